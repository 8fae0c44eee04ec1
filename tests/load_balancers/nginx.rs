//! nginx, which asks nobody whether he is ready: it notices who does not answer, and tries another.

use std::fs;
use std::net::Ipv4Addr;

use super::Balancer;
use crate::common::{Launch, Running};
use crate::rollout::net::Network;
use crate::rollout::service::TARGET_PORT;

pub struct Nginx {
    _running: Running,
    network: Network,
    directory: tempfile::TempDir,
}

impl Nginx {
    pub const PROGRAM: &str = "/usr/sbin/nginx";

    /// `next`: when it asks another pod, as `proxy_next_upstream` takes it.
    pub fn start(network: Network, pods: &[Ipv4Addr], next: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let temp = directory.path().display().to_string();
        let servers: String = pods
            .iter()
            .map(|pod| format!("server {pod}:{TARGET_PORT} max_fails=1 fail_timeout=1s;\n"))
            .collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("{what}_temp_path {temp}/{what};\n"))
            .collect();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {temp}/pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 2000; }}\n\
             http {{\n{temporary}\
             log_format tries '$status|$upstream_addr|$upstream_status';\n\
             access_log {temp}/access tries;\n\
             upstream pods {{\n{servers}keepalive 32;\n}}\n\
             server {{\nlisten {}:80;\nlocation / {{\n\
             proxy_pass http://pods;\nproxy_http_version 1.1;\nproxy_set_header Connection '';\n\
             proxy_connect_timeout 1s;\nproxy_next_upstream {next};\n}}\n}}\n}}\n",
            network.address
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, text).unwrap();
        let command = [Self::PROGRAM, "-e", "stderr", "-c", file.to_str().unwrap()];
        let running = network.run(|| Launch::new(&["pidns"]).command(command).start_without_init());
        Self { _running: running, network, directory }
    }

    /// Requests that it asked more than one pod for, by what those before the last said.
    pub fn tried_again(&self) -> Vec<(String, u64)> {
        let mut kinds: Vec<(String, u64)> = Vec::new();
        for [_, _, states] in self.requests() {
            let Some((before, _)) = states.rsplit_once(", ") else { continue };
            match kinds.iter_mut().find(|(kind, _)| kind == before) {
                Some((_, count)) => *count += 1,
                None => kinds.push((before.to_owned(), 1)),
            }
        }
        kinds
    }

    /// What the client got, whom it asked, and what those said.
    fn requests(&self) -> Vec<[String; 3]> {
        let text = fs::read_to_string(self.directory.path().join("access")).unwrap_or_default();
        // The last line may have been written in part.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let fields = |line: &str| line.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().ok();
        whole.lines().filter_map(fields).collect()
    }
}

impl Balancer for Nginx {
    fn address(&self) -> Ipv4Addr {
        self.network.address
    }

    fn reaches(&self, pod: Ipv4Addr) -> bool {
        let answered = |[_, pods, states]: &[String; 3]| {
            pods.ends_with(&format!("{pod}:{TARGET_PORT}")) && states.ends_with("200")
        };
        self.requests().iter().any(answered)
    }

    /// It knows nothing before it has tried.
    fn knows(&self, _: &[Ipv4Addr]) -> bool {
        self.directory.path().join("pid").exists()
    }
}
