//! Who holds how many connections: in /status, in the metrics, in the log of a drain and at its end.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;
#[path = "common/from.rs"]
mod from;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use common::network::leave_network;
use common::pool::{Pool, pool, pool_without_socket};
use common::{Exit, until};

fn held(pool: &Pool) -> u64 {
    let status = pool.status();
    let workers = status["workers"].as_array().expect("workers").iter();
    workers.map(|worker| worker["connections"].as_u64().unwrap_or(0)).sum()
}

/// A connection that a worker has answered on, and keeps.
fn kept(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    stream
}

const NODE: &str =
    "const s = require('http').createServer((q, r) => r.end('x')); s.keepAliveTimeout = 600000;
    process.on('SIGTERM', () => {}); s.listen(process.argv[1])";

#[test]
fn each_worker_s_connections_are_counted_and_shown() {
    leave_network();
    for options in [["--workers", "1"], ["--workers", "3"]] {
        let pool = pool().options(options);
        let port = pool.port().number.to_string();
        let pool = pool.command(["node", "-e", NODE, &port]).start();
        pool.wait_ready(options[1].parse().unwrap());
        assert_eq!(held(&pool), 0);
        let mut open: Vec<_> = (0..30).map(|_| kept(pool.address())).collect();
        until("all are seen", || (held(&pool) == 30).then_some(()));
        let metrics = pool.get("/metrics").body;
        let counted =
            metrics.lines().filter_map(|line| line.strip_prefix("drainit_worker_connections{slot=\""));
        let counted: u64 = counted.filter_map(|line| line.split_once(' ')?.1.parse::<u64>().ok()).sum();
        assert_eq!(counted, 30, "{metrics}");
        open.truncate(10);
        until("those that are gone are not", || (held(&pool) == 10).then_some(()));
        let table = String::from_utf8(pool.ask(&["status"]).stdout).unwrap();
        assert!(table.contains("CONNECTIONS"), "{table}");
    }
}

/// By slot: two have an event loop, and one has none.
#[test]
fn whose_they_are_shows_with_event_loops_and_without() {
    leave_network();
    let script = "test $DRAINIT_SLOT = 2 && exec \"$0\" keep=3; exec \"$0\" keep-polled=3";
    let fixture = common::fixture().display().to_string();
    let pool = pool()
        .options(["--workers", "3", "--sockets", "per-worker"])
        .command(["/bin/sh", "-c", script, &fixture])
        .start();
    pool.wait_ready(3);
    let connect = |slot: usize| {
        from::connect_from(format!("127.42.0.{slot}:0").parse().unwrap(), pool.address()).expect("connect")
    };
    let held = || {
        let status = pool.status();
        let workers = status["workers"].as_array().expect("workers").iter();
        let mut held: Vec<_> = workers
            .map(|worker| (worker["slot"].as_u64().unwrap(), worker["connections"].as_u64().unwrap_or(0)))
            .collect();
        held.sort_unstable();
        held.into_iter().map(|(_, connections)| connections).collect::<Vec<_>>()
    };
    let mut open: Vec<_> = [0, 0, 0, 1, 1, 2].into_iter().map(connect).collect();
    until("all are seen", || (held() == [3, 2, 1]).then_some(()));
    open.extend([1, 2, 2].into_iter().map(connect));
    until("so are those who come later", || (held() == [3, 3, 3]).then_some(()));
}

#[test]
fn without_a_socket_of_drainit_s_it_is_where_the_server_listens() {
    leave_network();
    let pool = pool_without_socket();
    let port = pool.port().number.to_string();
    let pool = pool.command(["node", "-e", NODE, &port]).start();
    until("it listens", || TcpStream::connect(pool.address()).ok());
    let _open: Vec<_> = (0..3).map(|_| kept(pool.address())).collect();
    until("all are seen", || (held(&pool) == 3).then_some(()));
}

#[test]
fn unix_sockets_count_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let pool = pool_without_socket().options(["--listen", &listen]);
    let server = "require('net').createServer(c => c.write('x')).listen({ fd: 3 })";
    let pool = pool.command(["node", "-e", server]).start();
    pool.wait_ready(1);
    let mut open: Vec<_> = (0..2).map(|_| UnixStream::connect(&path).unwrap()).collect();
    open.iter_mut().for_each(|stream| stream.read_exact(&mut [0]).unwrap());
    until("both are seen", || (held(&pool) == 2).then_some(()));
}

#[test]
fn a_drain_tells_how_far_it_is_and_at_its_deadline_who_held_what() {
    leave_network();
    let pool = pool().options(["--drain-timeout", "4s", "--grace", "30s", "--node-ipc", "off"]);
    let port = pool.port().number.to_string();
    // Always in use, so that no moment is right to end it before its time.
    let busy = "const s = require('http').createServer((q, r) => { r.write('x'); setInterval(() => r.write('x'), 50); });
        process.on('SIGTERM', () => {}); s.listen(process.argv[1])";
    let mut pool = pool.command(["node", "-e", busy, &port]).start();
    pool.wait_ready(1);
    let _open: Vec<_> = (0..5).map(|_| kept(pool.address())).collect();
    pool.signal(libc::SIGTERM);
    let progress = pool.logged("letting go");
    assert_eq!(
        (progress["connections"].as_u64(), progress["workers"].as_u64()),
        (Some(5), Some(1)),
        "{progress}"
    );
    assert_eq!(held(&pool), 5);
    assert_eq!(pool.wait(), Exit::Code(124));
    let held = pool.logged("still holds connections");
    assert_eq!((held["connections"].as_u64(), held["peers"].as_u64()), (Some(5), Some(1)), "{held}");
    assert!(held["seen_for_seconds"].as_f64().unwrap() >= 1.0, "{held}");
    assert!(pool.log().iter().filter(|line| line["message"] == "letting go").count() >= 2);
}
