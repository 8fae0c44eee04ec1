//! gRPC: whoever retries what was not looked at, as its clients do, sees no error, whatever becomes of the servers.
//!
//! `ROLLS=10 DRAINS=10` makes more of it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

#[path = "grpc/calls.rs"]
mod calls;
mod common;
mod late;

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use calls::{Calls, Client, STEADY, Server, Tally};
use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, Port, code, text};
use common::{Exit, Launch, Running, cannot_run, pid1, until};

const REPLICAS: usize = 3;
const WORKERS: u64 = 2;

const HAPROXY: &str = "/usr/sbin/haproxy";

fn so_many(variable: &str, usually: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usually)
}

/// Some drainits, each with a pool of servers, and what they all are started with.
struct Replicas {
    server: Server,
    options: Vec<&'static str>,
    pools: Vec<Pool>,
}

impl Replicas {
    #[track_caller]
    fn start(server: &Server, replicas: usize, options: &[&'static str]) -> Self {
        let mut all = Self { server: server.clone(), options: options.into(), pools: Vec::new() };
        all.pools = (0..replicas).map(|_| all.launch(PoolLaunch::of(pid1()))).collect();
        all.pools.iter().for_each(|pool| pool.wait_ready(WORKERS));
        all
    }

    fn launch(&self, launch: PoolLaunch) -> Pool {
        let port = launch.port().number;
        let own = [format!("--workers={WORKERS}"), format!("--listen={port}")];
        launch.options(own).options(&self.options).command(self.server.command(port)).start()
    }

    /// As gRPC takes a list of addresses.
    fn target(&self) -> String {
        let addresses: Vec<_> = self.pools.iter().map(|pool| pool.address().to_string()).collect();
        format!("ipv4:{}", addresses.join(","))
    }

    #[track_caller]
    fn roll(&self, replica: usize) {
        let pool = &self.pools[replica % self.pools.len()];
        let output = pool.ask(&["restart", "--wait", "--timeout", "60s"]);
        assert_eq!(code(&output), 0, "{}{}\n{}", text(&output.stdout), text(&output.stderr), **pool);
    }

    /// One drains while the others serve, and another comes in its place.
    #[track_caller]
    fn replace(&mut self, replica: usize) {
        let replica = replica % self.pools.len();
        let mut pool = self.pools.remove(replica);
        pool.signal(libc::SIGTERM);
        assert_eq!(pool.wait(), Exit::Code(0), "{}", *pool);
        let pool = self.launch(PoolLaunch::at(pool.into_ports(), pid1()));
        pool.wait_ready(WORKERS);
        self.pools.insert(replica, pool);
    }

    /// Rolls and drains of one after the other under calls that never wait.
    #[track_caller]
    fn loses_no_call(mut self, how: &str, client: Client) -> Tally {
        let (rolls, drains) = (so_many("ROLLS", 2), so_many("DRAINS", 2));
        client.wait_for_answers();
        for number in 0..rolls.max(drains) {
            if number < rolls {
                self.roll(number);
            }
            if number < drains {
                self.replace(number);
            }
            client.wait_for_answers();
        }
        let tally = client.stop();
        eprintln!("{how}, {rolls} rolls, {drains} drains: {tally:?}");
        assert_eq!((tally.errors, tally.answered()), (0, tally.sent), "{how}: {tally:?}");
        // Fewer calls than that would prove less.
        assert!(tally.sent as f64 > f64::from(STEADY.rate) * tally.seconds / 2.0, "{how}: {tally:?}");
        tally
    }
}

/// Shorter than a pod's, and as adaptive.
const LB_WAIT: [&str; 3] = ["--grace=30s", "--lb-wait=1s..5s", "--lb-quiet=500ms"];

/// A client of all of them that chooses in that way.
#[track_caller]
fn loses_no_call(server: Option<Server>, policy: &str, options: &[&'static str]) {
    leave_network();
    let Some(server) = server else { return };
    let replicas = Replicas::start(&server, REPLICAS, options);
    let Some(client) = Client::start(&server, &replicas.target(), policy, STEADY) else { return };
    let tally = replicas.loses_no_call(&format!("{policy} {options:?}"), client);
    assert!(policy == "pick_first" || tally.answers.len() == REPLICAS, "{tally:?}");
}

#[test]
fn a_client_that_asks_all_in_turn() {
    loses_no_call(Server::core(), "round_robin", &LB_WAIT);
}

#[test]
fn the_same_of_servers_on_node() {
    loses_no_call(Server::js(), "round_robin", &LB_WAIT);
}

/// Without a wait too: whoever is turned away asks elsewhere.
#[test]
fn a_client_that_stays_with_one_as_long_as_it_is_there() {
    loses_no_call(Server::core(), "pick_first", &["--grace=30s", "--lb-wait=0"]);
}

#[test]
fn the_same_of_servers_on_node_without_a_wait() {
    loses_no_call(Server::js(), "pick_first", &["--grace=30s", "--lb-wait=0"]);
}

#[test]
fn a_queue_for_each_worker() {
    loses_no_call(Server::core(), "round_robin", &[&LB_WAIT[..], &["--sockets=per-worker"]].concat());
}

/// HAProxy makes an error of its own of a call that the core cancels, which no client retries. So it is servers on Node.
#[test]
fn a_client_behind_haproxy() {
    if !Path::new(HAPROXY).exists() {
        return cannot_run("no haproxy");
    }
    leave_network();
    let Some(server) = Server::js() else { return };
    let replicas = Replicas::start(&server, REPLICAS, &["--grace=30s", "--lb-wait=1s..15s", "--lb-quiet=1s"]);
    let haproxy = Haproxy::start(&replicas.pools);
    let target = format!("ipv4:{}", haproxy.port.local());
    let Some(client) = Client::start(&server, &target, "pick_first", STEADY) else { return };
    let tally = replicas.loses_no_call("HAProxy", client);
    assert_eq!(tally.answers.len(), REPLICAS, "{tally:?}");
}

const LATE: usize = 4;

/// Clients that know two addresses, and the first of them first.
fn clients(server: &Server, first: &Pool, second: &Pool) -> Vec<Client> {
    let target = format!("ipv4:{},{}", first.address(), second.address());
    let calls = Calls { rate: 20, ..STEADY };
    (0..LATE).filter_map(|_| Client::start(server, &target, "pick_first", calls)).collect()
}

/// The first drains; says how many answers the second has given.
#[track_caller]
fn go_on_with_the_other(clients: Vec<Client>, first: &mut Pool, second: &Pool) -> Vec<u64> {
    clients.iter().for_each(Client::wait_for_answers);
    assert_eq!(first.wait(), Exit::Code(0), "{}", **first);
    clients.iter().for_each(Client::wait_for_answers);
    let tallies: Vec<_> = clients.into_iter().map(Client::stop).collect();
    let second = second.port.number.to_string();
    let each = tallies.iter().map(|tally| {
        assert_eq!((tally.errors, tally.answered()), (0, tally.sent), "{tallies:#?}\n{}", **first);
        tally.answers.get(&second).copied().unwrap_or_default()
    });
    each.collect()
}

/// The kernel has taken their connections, and the worker is gone before it has. drainit's own GOAWAY of stream 0 says that
/// nothing was looked at.
#[test]
fn clients_that_wait_in_the_queue_of_a_server_that_ends() {
    leave_network();
    let Some(server) = Server::core() else { return };
    let replicas = Replicas::start(&server, 1, &[]);
    let second = &replicas.pools[0];
    let mut first = late::started(late::deaf());
    let clients = clients(&server, &first, second);
    until("they wait", || (late::waiting(&first) == LATE).then_some(()));
    first.signal(libc::SIGTERM);
    assert!(go_on_with_the_other(clients, &mut first, second).iter().all(|answers| *answers > 0));
    assert_eq!(first.logged("late connections answered")["goaway"], LATE, "{}", *first);
}

/// It has told them to go, and is at work on calls of others.
#[test]
fn clients_that_come_back_while_a_server_finishes() {
    leave_network();
    for server in [Server::core(), Server::js()] {
        let Some(server) = server else { return };
        let mut replicas = Replicas::start(&server, 2, &["--grace=30s", "--lb-wait=0"]);
        let mut first = replicas.pools.remove(0);
        let second = &replicas.pools[0];
        let slow = Calls { rate: 4, milliseconds: 3000 };
        let alone = format!("ipv4:{}", first.address());
        let Some(mut busy) = Client::start(&server, &alone, "pick_first", slow) else { return };
        let clients = clients(&server, &first, second);
        clients.iter().for_each(Client::wait_for_answers);
        until("all are connected", || (connections(&first) == LATE as u64 + 1).then_some(()));
        busy.makes_no_more();
        first.signal(libc::SIGTERM);
        first.expect("stopping");
        assert!(go_on_with_the_other(clients, &mut first, second).iter().all(|answers| *answers > 0));
        let tally = busy.stop();
        assert_eq!((tally.errors, tally.answered()), (0, tally.sent), "{tally:?}");
        assert!(tally.slowest_seconds >= 3.0, "{tally:?}");
    }
}

fn connections(pool: &Pool) -> u64 {
    let status = pool.status();
    let workers = status["workers"].as_array().expect("workers").iter();
    workers.map(|worker| worker["connections"].as_u64().unwrap_or(0)).sum()
}

/// HTTP/2 on both sides; it asks for readiness and retries nothing.
struct Haproxy {
    _running: Running,
    _directory: tempfile::TempDir,
    port: Port,
}

impl Haproxy {
    #[track_caller]
    fn start(pools: &[Pool]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), Port::reserve());
        let each = |line: fn(&Pool) -> String| pools.iter().map(line).collect::<String>();
        // Its checks would speak HTTP/2 too where they are the server's own.
        let servers =
            each(|pool| format!(" server {0} {1} track probes/{0}\n", pool.port.number, pool.address()));
        let probes = each(|pool| format!(" server {} {} check\n", pool.port.number, pool.admin.local()));
        let text = format!(
            "global\n nbthread 1\n maxconn 2000\n\
             defaults\n mode http\n retries 0\n timeout connect 2s\n timeout client 30s\n timeout server 20s\n\
             frontend clients\n bind {} proto h2\n default_backend replicas\n\
             backend replicas\n balance roundrobin\n default-server proto h2\n{servers}\
             backend probes\n option httpchk GET /readyz\n default-server inter 500ms fall 2 rise 1\n{probes}",
            port.local()
        );
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let command = [HAPROXY, "-db", "-f", file.to_str().unwrap()];
        let running = Launch::new(&["pidns"]).command(command).start_without_init();
        until(format_args!("HAProxy listens\n{running}"), || TcpStream::connect(port.local()).ok());
        Self { _running: running, _directory: directory, port }
    }
}
