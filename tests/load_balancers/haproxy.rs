//! HAProxy, which asks every pod whether it is ready and believes it after the second failure.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use super::Balancer;
use crate::common::{Launch, Running};
use crate::rollout::net::Network;
use crate::rollout::service::TARGET_PORT;

/// What it does with the connections to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// A new one for each request.
    Closing,
    /// Kept, and shared by all clients.
    Keeping,
}

pub struct Haproxy {
    running: Running,
    network: Network,
    directory: tempfile::TempDir,
}

impl Haproxy {
    pub const PROGRAM: &str = "/usr/sbin/haproxy";

    /// Nothing is tried twice: a request that meets a pod which does not answer has failed.
    pub fn start(network: Network, pods: &[Ipv4Addr], towards: Towards) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connections = match towards {
            Towards::Closing => "option http-server-close\n http-reuse never",
            Towards::Keeping => "option http-keep-alive\n http-reuse always",
        };
        let (stats, address) = (directory.path().join("stats").display().to_string(), network.address);
        let servers: String = pods.iter().map(|pod| format!(" server {pod} {pod}:{TARGET_PORT}\n")).collect();
        let text = format!(
            "global\n nbthread 1\n maxconn 2000\n stats socket {stats} level user\n log stdout format raw local0 info\n\
             defaults\n mode http\n retries 0\n timeout connect 2s\n timeout client 30s\n timeout server 10s\n\
             frontend clients\n bind {address}:80\n default_backend pods\n\
             backend pods\n log global\n balance roundrobin\n {connections}\n\
             \x20option httpchk GET /readyz\n http-check expect status 200\n\
             \x20default-server check port 9180 inter 500ms fall 2 rise 1\n{servers}"
        );
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let command = [Self::PROGRAM, "-db", "-f", file.to_str().unwrap()];
        let running = network.run(|| Launch::new(&["pidns"]).command(command).start_without_init());
        Self { running, network, directory }
    }

    /// It has taken this pod out because of what its readiness said.
    #[track_caller]
    pub fn was_told(&self, pod: Ipv4Addr) {
        let told = format!("Server pods/{pod} is DOWN, reason: Layer7 wrong status, code: 503");
        let lines = self.running.lines();
        assert!(lines.iter().any(|line| line.contains(&told)), "{pod}: {lines:#?}");
    }

    /// Server and state, as it tells whoever asks; nothing as long as it does not listen.
    fn states(&self) -> Option<Vec<(String, String)>> {
        let mut socket = UnixStream::connect(self.directory.path().join("stats")).ok()?;
        socket.write_all(b"show stat pods 4 -1\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let mut lines =
            answer.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next()?;
        let column = |name| names.iter().position(|other| *other == name);
        let (server, state) = (column("svname")?, column("status")?);
        Some(
            lines
                .filter_map(|line| Some(((*line.get(server)?).into(), (*line.get(state)?).into())))
                .collect(),
        )
    }
}

impl Balancer for Haproxy {
    fn address(&self) -> Ipv4Addr {
        self.network.address
    }

    fn reaches(&self, pod: Ipv4Addr) -> bool {
        let states = self.states().unwrap_or_default();
        states.iter().any(|(server, state)| *server == pod.to_string() && state.starts_with("UP"))
    }

    /// It takes all for ready until their checks have failed.
    fn knows(&self, pods: &[Ipv4Addr]) -> bool {
        let is_right = |(server, state): &(String, String)| {
            pods.iter().any(|pod| pod.to_string() == *server) == state.starts_with("UP")
        };
        self.states().is_some_and(|states| !states.is_empty() && states.iter().all(is_right))
    }
}
