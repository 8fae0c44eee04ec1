//! Nothing lost: a load that opens a connection for each request and keeps account of every failure.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;

use std::time::{Duration, Instant};

use common::network::leave_network;
use common::pool::{code, pool};
use common::{Exit, Process, until};
use load::{Kind, Load};

const REQUESTS: u64 = 100_000;

/// On the slowest machine, with everything else at work.
const PATIENCE: Duration = Duration::from_secs(400);

#[test]
fn none_of_100000_requests_fails_while_the_pool_is_scaled_up_and_down_and_drained() {
    leave_network();
    let mut pool = pool().options(["--workers", "4", "--grace", "60s", "--lb-wait", "5s"]).server().start();
    pool.wait_ready(4);
    let load = Load::start(pool.address(), "/", 12, Duration::ZERO);
    let began = Instant::now();
    let mut sizes = [1, 6, 3, 8, 2, 4].into_iter().cycle();
    let mut resized = 0;
    while load.answered() < REQUESTS && load.failed() == 0 {
        assert!(began.elapsed() < PATIENCE, "{} answered in {PATIENCE:?}", load.answered());
        match resized % 3 {
            0 => pool.signal(libc::SIGTTIN),
            1 => pool.signal(libc::SIGTTOU),
            _ => {
                let size = sizes.next().unwrap();
                assert_eq!(code(&pool.ask(&["scale", &size.to_string()])), 0);
            }
        }
        resized += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(resized > 5, "there was something to be survived: {resized}");
    pool.signal(libc::SIGTERM);
    // A load balancer goes on until it has noticed, and half a second longer.
    until("unready", || (pool.readyz() == 503).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(pool.phase(), "lame-duck", "the load balancer lets go before the workers stop");
    let report = load.stop();
    assert!(report.failures.is_empty(), "{} (resized {resized} times)\n{}", report.summary(), *pool);
    assert!(report.answered >= REQUESTS);
    assert_eq!(pool.wait(), Exit::Code(0));
    eprintln!("{}, resized {resized} times in {:?}", report.summary(), began.elapsed());
}

/// What it has accepted: its sockets but the listening one. It is stopped, so there will be no more.
fn connections(worker: Process) -> usize {
    let is_socket = |path: &std::path::Path| path.to_string_lossy().starts_with("socket:");
    worker.descriptors().iter().filter(|(number, path)| *number > 3 && is_socket(path)).count()
}

#[test]
fn killed_workers_cost_their_own_requests_in_flight_and_no_other() {
    leave_network();
    let mut pool = pool()
        .options(["--workers", "3", "--max-crashes", "off", "--backoff", "1ms..20ms", "--lb-wait", "3s"])
        .server()
        .start();
    pool.wait_ready(3);
    let load = Load::start(pool.address(), "/slow", 24, Duration::ZERO);
    let mut in_flight = 0;
    for round in 0..15 {
        let before = load.answered();
        until("the load goes on", || (load.answered() > before + 24).then_some(()));
        let victim = pool.member(round % 3).process;
        victim.signal(libc::SIGSTOP);
        until("it stands still", || (victim.state() == 'T').then_some(()));
        in_flight += connections(victim);
        victim.signal(libc::SIGKILL);
    }
    let before = load.answered();
    until("the load goes on", || (load.answered() > before + 100).then_some(()));
    pool.signal(libc::SIGTERM);
    until("unready", || (pool.readyz() == 503).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    let report = load.stop();
    assert!(in_flight > 0, "there was something to be lost");
    assert!(report.failures.len() <= in_flight, "{}, {in_flight} were in flight", report.summary());
    let own = |kind| matches!(kind, Kind::Reset | Kind::Cut);
    assert!(report.failures.iter().all(|failure| own(failure.kind)), "{}", report.summary());
    assert_eq!(pool.wait(), Exit::Code(0));
    eprintln!("{}, {in_flight} were in flight", report.summary());
}

#[test]
fn requests_wait_for_the_next_worker_when_the_only_one_is_killed() {
    leave_network();
    let pool = pool().options(["--max-crashes", "off", "--backoff", "1ms..1ms"]).server().start();
    pool.wait_ready(1);
    for _ in 0..10 {
        let victim = pool.member(0).process;
        victim.signal(libc::SIGSTOP);
        until("it stands still", || (victim.state() == 'T').then_some(()));
        let address = pool.address();
        let clients: Vec<_> =
            (0..8).map(|_| std::thread::spawn(move || common::http::get(address, "/"))).collect();
        victim.signal(libc::SIGKILL);
        for client in clients {
            assert_eq!(client.join().unwrap().expect("an answer").status, 200);
        }
    }
}
