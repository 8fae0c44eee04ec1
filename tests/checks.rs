//! Checks of one given worker: before it counts as ready, and while it serves.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;
#[path = "common/from.rs"]
mod from;

use std::net::SocketAddr;
use std::path::Path;

use common::pool::{Pool, PoolLaunch, pool, pool_without_socket, python};
use common::{cannot_run, http, until};
use from::connect_from;

/// Serves on an address that it binds itself; `/ready` fails while the file `closed-SLOT` is there, and leaves `passed-SLOT`
/// where it does not. argv: port, family,
/// directory.
const SERVER: &str = "import http.server, os, socket, sys\n\
    class H(http.server.BaseHTTPRequestHandler):\n  \
    def log_message(*a): pass\n  \
    def do_GET(self):\n    \
    closed = os.path.exists(sys.argv[3] + '/closed-' + os.environ['DRAINIT_SLOT'])\n    \
    if not closed: open(sys.argv[3] + '/passed-' + os.environ['DRAINIT_SLOT'], 'w')\n    \
    body = os.environ['DRAINIT_SLOT'].encode()\n    \
    self.send_response(503 if closed and self.path == '/ready' else 200)\n    \
    self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
    class S(http.server.ThreadingHTTPServer):\n  \
    address_family = getattr(socket, sys.argv[2])\n  \
    def server_bind(self):\n    \
    if sys.argv[2] == 'AF_INET6': self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n    \
    super().server_bind()\n\
    host = {'AF_INET': '0.0.0.0', 'AF_INET6': '::'}[sys.argv[2]]\n\
    S((host, int(sys.argv[1])), H).serve_forever()";

fn close(directory: &Path, slot: u64) {
    std::fs::write(directory.join(format!("closed-{slot}")), "").unwrap();
}

fn open(directory: &Path, slot: u64) {
    std::fs::remove_file(directory.join(format!("closed-{slot}"))).unwrap();
}

/// Three servers on a bare port that each has a queue for.
fn servers(family: &str, mode: &str, directory: &Path) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let words = [&"-c".into(), &SERVER.into(), &port, &family.into(), &directory.display().to_string()];
    let words: Vec<_> = std::iter::once(python).chain(words.map(|word: &String| word.into())).collect();
    Some(launch.options(["--workers", "3", "--listen", &port, "--sockets", mode]).command(words))
}

fn ready_slots(pool: &Pool) -> Vec<u64> {
    let status = pool.status();
    let workers = status["workers"].as_array().cloned().unwrap_or_default();
    let ready = workers.iter().filter(|worker| worker["ready"] == true);
    ready.map(|worker| worker["slot"].as_u64().unwrap()).collect()
}

#[track_caller]
fn wait_for_slots(pool: &Pool, slots: &[u64]) {
    until(format_args!("{slots:?} ready\n{}", **pool), || (ready_slots(pool) == slots).then_some(()));
}

#[test]
fn readiness_asks_one_worker_on_the_pools_own_port() {
    for (family, mode) in [("AF_INET", "per-worker"), ("AF_INET6", "per-worker"), ("AF_INET6", "sticky")] {
        let directory = tempfile::tempdir().unwrap();
        close(directory.path(), 0);
        close(directory.path(), 2);
        let Some(launch) = servers(family, mode, directory.path()) else { return };
        let pool = launch.options(["--ready-when", "http=/ready"]).start();
        wait_for_slots(&pool, &[1]);
        open(directory.path(), 2);
        wait_for_slots(&pool, &[1, 2]);
        open(directory.path(), 0);
        wait_for_slots(&pool, &[0, 1, 2]);
    }
}

/// The kernel completes handshakes for a server that stands still, so a connection alone says nothing.
#[test]
fn a_worker_that_does_not_accept_fails_tcp_and_is_replaced() {
    let pool = pool()
        .options(["--workers", "2", "--sockets", "per-worker", "--ready-when", "tcp", "--check", "tcp"])
        .options(["--check-every", "20ms", "--check-timeout", "500ms", "--check-failures", "2"])
        .options(["--drain-timeout", "200ms"])
        .server()
        .start();
    pool.wait_ready(2);
    let hung = pool.member(1).process;
    hung.signal(libc::SIGSTOP);
    until("it is found", || (pool.counter("restarts_hung") == 1).then_some(()));
    until("it is replaced", || (!hung.is_alive()).then_some(()));
    pool.wait_ready(2);
    let log = pool.log();
    let at = |message: &str, from: usize| {
        let found = log.iter().skip(from).position(|line| line["message"].to_string().contains(message));
        from + found.unwrap_or_else(|| panic!("no {message:?}\n{}", *pool))
    };
    let found = at("worker hung", 0);
    let replaced = at("worker ready", found);
    let killed = at("worker killed", found);
    assert!(found < replaced && replaced < killed, "the replacement first: {found} {replaced} {killed}");
    assert_eq!(pool.counter("restarts_crash"), 0);
}

#[test]
fn a_worker_whose_answer_is_no_success_is_replaced_and_the_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let Some(launch) = servers("AF_INET", "per-worker", directory.path()) else { return };
    let pool = launch
        .options(["--check", "http=/ready", "--check-every", "50ms", "--check-failures", "3"])
        .options(["--drain-timeout", "2s"])
        .start();
    pool.wait_ready(3);
    let before: Vec<_> = (0..3).map(|slot| pool.member(slot).process).collect();
    close(directory.path(), 1);
    until("it is found", || (pool.counter("restarts_hung") >= 1).then_some(()));
    open(directory.path(), 1);
    until("it is replaced", || (!before[1].is_alive()).then_some(()));
    pool.wait_ready(3);
    assert!(before[0].is_alive() && before[2].is_alive());
    assert_eq!(pool.logged("worker hung")["slot"], 1);
    let text = pool.get("/metrics").body;
    assert!(text.contains("drainit_worker_restarts_total{reason=\"hung\"} 1"), "{text}");
    assert!(!text.contains("drainit_checks_failed_total 0"), "{text}");
    assert!(text.contains("drainit_deadline_seconds{deadline=\"check\"} 1"), "{text}");
}

#[test]
fn one_failure_is_no_hang() {
    let directory = tempfile::tempdir().unwrap();
    let Some(launch) = servers("AF_INET", "per-worker", directory.path()) else { return };
    let pool = launch.options(["--check", "http=/ready", "--check-every", "100ms"]).start();
    pool.wait_ready(3);
    let failed = || {
        let text = pool.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix("drainit_checks_failed_total "));
        line.and_then(|count| count.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    for _ in 0..4 {
        let before = failed();
        close(directory.path(), 0);
        until("a check fails", || (failed() > before).then_some(()));
        open(directory.path(), 0);
        // The next check passes, and the count begins anew.
        let passed = directory.path().join("passed-0");
        let _ = std::fs::remove_file(&passed);
        until("a check passes", || passed.exists().then_some(()));
    }
    assert_eq!(pool.counter("restarts_hung"), 0);
}

/// Shared sockets cannot be aimed at; a command knows whom it is to look at.
#[test]
fn a_command_checks_each_worker_where_they_share_a_queue() {
    let directory = tempfile::tempdir().unwrap();
    let check = format!("exec=sh -c 'test ! -e {}/closed-$DRAINIT_SLOT'", directory.path().display());
    let pool = pool()
        .options(["--workers", "2", "--check", &check, "--check-every", "50ms", "--check-failures", "2"])
        .server()
        .start();
    pool.wait_ready(2);
    let before = (pool.member(0).process, pool.member(1).process);
    close(directory.path(), 1);
    until("it is found", || (pool.counter("restarts_hung") >= 1).then_some(()));
    open(directory.path(), 1);
    until("it is replaced", || (!before.1.is_alive()).then_some(()));
    pool.wait_ready(2);
    assert!(before.0.is_alive());
}

#[test]
fn the_pool_is_beyond_help_when_every_worker_hangs_and_none_comes_up() {
    let directory = tempfile::tempdir().unwrap();
    let check = format!("exec=sh -c 'test ! -e {}/closed-$DRAINIT_SLOT'", directory.path().display());
    let pool = pool()
        .options(["--check", &check, "--check-every", "50ms", "--check-failures", "2"])
        .options([
            "--backoff",
            "60s..60s",
            "--max-crashes",
            "off",
            "--ready-when",
            &check,
            "--ready-timeout",
            "300ms",
        ])
        .server()
        .start();
    pool.wait_ready(1);
    assert_eq!(pool.get("/livez").status, 200);
    close(directory.path(), 0);
    until(format_args!("not alive\n{}", *pool), || (pool.get("/livez").status == 503).then_some(()));
    assert!(pool.get("/livez?verbose").body.contains("every worker is hung"));
}

/// They were given to a worker that then did not come for them.
#[test]
fn whoever_waits_for_a_worker_that_hangs_is_served_by_its_replacement() {
    let pool = pool()
        .options(["--workers", "2", "--sockets", "per-worker", "--check", "tcp", "--check-every", "100ms"])
        .options(["--check-timeout", "500ms", "--check-failures", "2", "--drain-timeout", "1s"])
        .server()
        .start();
    pool.wait_ready(2);
    let hung = pool.member(1).process;
    hung.signal(libc::SIGSTOP);
    until("it stands still", || (hung.state() == 'T').then_some(()));
    let slot = SocketAddr::from(([127, 42, 0, 1], 0));
    let waiting: Vec<_> = (0..10).map(|_| connect_from(slot, pool.address()).unwrap()).collect();
    for stream in waiting {
        let answer = http::exchange(stream, "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(answer.expect("an answer").status, 200, "{}", *pool);
    }
    assert_eq!(pool.counter("restarts_hung"), 1);
}
