//! A server without a handler goes on accepting for as long as somebody connects. In a drain new connections are refused
//! to it, so that it comes to rest, and what it has in hand is finished.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/steady/mod.rs"]
mod steady;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, pool, pool_without_socket, python};
use common::{Exit, cannot_run, holds_for, until};
use steady::{Failure, Shape, Steady, Tally};

/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(5);
const DRAIN: [&str; 2] = ["--grace", "30s"];

fn server(name: &str) -> OsString {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quiet").join(name).into()
}

/// Three hundred new connections a second, whatever becomes of them.
fn hammer(pool: &Pool) -> Steady {
    let load = Steady::start(pool.address(), "/", Shape::New { rate: 300 });
    until("the load is on", || (load.answered() > 200).then_some(()));
    load
}

/// Every request was answered by a worker, or with a 503 by drainit, or did not get in.
#[track_caller]
fn assert_none_cut(tally: &Tally, pool: &Pool) {
    let lost = tally.failures() - tally.count(Failure::Refused) - tally.count(Failure::Status);
    assert_eq!(lost, 0, "{tally}\n{}", **pool);
}

#[track_caller]
fn drain_under_load(mut pool: Pool, workers: u64) {
    pool.wait_ready(workers);
    let load = hammer(&pool);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    let exit = pool.wait();
    let took = began.elapsed();
    let refused = load.failed();
    until("they go on coming", || (load.failed() > refused + 50).then_some(()));
    let tally = load.stop().unwrap();
    assert_none_cut(&tally, &pool);
    assert_eq!(exit, Exit::Code(0), "{}", *pool);
    assert!(took < PATIENCE, "{took:?}\n{}", *pool);
    assert!(pool.has_logged("new connections refused"), "{}", *pool);
    assert!(!pool.has_logged("worker killed"), "{}", *pool);
    eprintln!("{took:?}; {tally}");
}

fn python_server(workers: &str) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    leave_network();
    let pool = pool().options(DRAIN).options(["--workers", workers]);
    let port = pool.port().number.to_string();
    Some(pool.command([python, server("server.py"), port.into()]))
}

fn node_server(pool: PoolLaunch) -> PoolLaunch {
    let port = pool.port().number.to_string();
    pool.options(DRAIN).command(["node".into(), server("plain.js"), port.into()])
}

#[test]
fn python_that_never_rests_ends_when_it_has_answered() {
    let Some(pool) = python_server("1") else { return };
    drain_under_load(pool.start(), 1);
}

#[test]
fn so_do_three_of_them() {
    let Some(pool) = python_server("3") else { return };
    drain_under_load(pool.start(), 3);
}

#[test]
fn so_does_node() {
    leave_network();
    drain_under_load(node_server(pool()).start(), 1);
}

/// Of a bare port, dual-stack and with a queue for each worker.
#[test]
fn so_do_workers_with_queues_of_their_own() {
    leave_network();
    let pool = pool_without_socket();
    let port = pool.port().number.to_string();
    let pool = pool.options(["--listen", &port, "--sockets", "per-worker", "--workers", "2"]);
    drain_under_load(node_server(pool).start(), 2);
}

/// It does nothing but accept, and would end if that failed.
#[test]
fn whoever_accepts_notices_nothing() {
    leave_network();
    let pool = pool().options(DRAIN).options(["--workers", "2"]).worker(["serve=3"]).start();
    drain_under_load(pool, 2);
}

/// The test itself: where late connections are the kernel's, it never rests.
#[test]
fn with_late_responses_off_it_is_killed_when_its_time_is_up() {
    let Some(pool) = python_server("1") else { return };
    let mut pool = pool.options(["--late-response", "off", "--drain-timeout", "1500ms"]).start();
    pool.wait_ready(1);
    let load = hammer(&pool);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(124), "{}", *pool);
    let tally = load.stop().unwrap();
    assert!(tally.failures() > tally.count(Failure::Refused), "{tally}");
}

#[test]
fn for_as_long_as_it_is_to_linger_it_serves() {
    let Some(pool) = python_server("1") else { return };
    let mut pool = pool.options(["--late-linger", "2s"]).start();
    pool.wait_ready(1);
    let load = hammer(&pool);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    holds_for(Duration::from_millis(1500), "nobody is refused", || load.failed() == 0);
    assert_eq!(pool.wait(), Exit::Code(0), "{}", *pool);
    assert!(began.elapsed() < PATIENCE, "{:?}\n{}", began.elapsed(), *pool);
    assert_none_cut(&load.stop().unwrap(), &pool);
}
