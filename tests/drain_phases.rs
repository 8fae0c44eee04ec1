//! The drain, phase by phase.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::pool::{Pool, PoolLaunch, pool, pool_without_socket};
use common::{Exit, holds_for, http, timed, until};

/// Logs its signals and ends with USR1, so that a drain lasts until the test wants it to end.
const UNTIL_USR1: [&str; 3] = ["watch", "say=here", "log=USR1"];

fn lingering(launch: PoolLaunch) -> Pool {
    let pool = launch.options(["--ready-when", "started"]).worker(UNTIL_USR1).start();
    pool.expect("here");
    until("ready", || (pool.readyz() == 200).then_some(()));
    pool
}

#[track_caller]
fn finish(mut pool: Pool) {
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0), "{}", *pool);
}

fn phases(pool: &Pool) -> Vec<String> {
    let changes = pool.log().into_iter().filter(|line| line["message"] == "phase changed");
    changes.map(|line| line["phase"].as_str().unwrap().to_owned()).collect()
}

/// What /status shows is seen before the log's line about it has been read.
#[track_caller]
fn expect_phases(pool: &Pool, expected: &[&str]) {
    until(format_args!("the phases {expected:?}\n{}", **pool), || (phases(pool) == expected).then_some(()));
}

fn count(pool: &Pool, line: &str) -> usize {
    pool.lines().iter().filter(|l| *l == line).count()
}

#[test]
fn the_phases_come_in_their_order() {
    let mut pool = lingering(pool().options(["--lb-wait", "400ms"]));
    assert_eq!(pool.phase(), "serving");
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    pool.wait_for_phase("draining");
    pool.expect("got 15 0");
    assert_eq!(count(&pool, "got 15 0"), 1);
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0));
    assert_eq!(phases(&pool), ["serving", "lame-duck", "draining", "exited"]);
}

#[test]
fn a_worker_that_does_not_stop_brings_the_phase_killing() {
    let mut pool = pool()
        .options(["--ready-when", "started", "--drain-timeout", "200ms"])
        .worker(["ignore=TERM", "say=here", "pause"])
        .start();
    pool.expect("here");
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(124));
    assert_eq!(phases(&pool), ["serving", "draining", "killing", "exited"]);
}

#[test]
fn in_lame_duck_the_pod_is_unready_at_once_and_goes_on_serving() {
    let pool = pool().options(["--lb-wait", "5s"]).server().start();
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    // From the first moment, and all along.
    holds_for(Duration::from_millis(500), "unready and serving", || {
        pool.readyz() == 503 && http::get(pool.address(), "/").is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(pool.get("/livez").status, 200);
    assert_eq!(pool.phase(), "lame-duck");
    let status = pool.status();
    assert_eq!((&status["ready"], &status["workers"][0]["ready"]), (&false.into(), &true.into()));
    assert_eq!(status["drain"]["trigger"], "SIGTERM");
}

#[test]
fn readiness_can_be_kept_until_the_workers_stop() {
    let pool = lingering(pool().options(["--lb-wait", "500ms", "--readiness-on-drain", "keep"]));
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    assert_eq!(pool.readyz(), 200);
    pool.wait_for_phase("draining");
    assert_eq!(pool.readyz(), 503);
    finish(pool);
}

#[test]
fn the_wait_lasts_as_long_as_its_maximum_says() {
    let pool = lingering(pool().options(["--lb-wait", "100ms..1s"]));
    let ((), took) = timed(|| {
        pool.signal(libc::SIGTERM);
        pool.expect("got 15 0");
    });
    assert!(took >= Duration::from_millis(995), "{took:?}");
    let waited = pool.logged("load balancer wait over")["waited_seconds"].as_f64().unwrap();
    assert!((0.999..2.0).contains(&waited), "{waited}");
    finish(pool);
}

#[test]
fn outside_of_a_pod_there_is_no_wait() {
    let pool = lingering(pool());
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    expect_phases(&pool, &["serving", "draining"]);
    let plan = pool.logged("drain planned");
    assert_eq!((plan["grace_seconds"].as_f64(), plan["lb_wait_seconds"].as_f64()), (Some(10.0), Some(0.0)));
    finish(pool);
}

#[test]
fn in_a_pod_the_defaults_are_those_of_kubernetes() {
    let pool = lingering(pool().under(["env=KUBERNETES_SERVICE_HOST=10.0.0.1"]));
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let plan = pool.logged("drain planned");
    assert_eq!(plan["grace_seconds"], 30.0);
    assert_eq!(plan["lb_wait_seconds"], 15.0);
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    finish(pool);
}

#[test]
fn a_second_term_ends_the_wait() {
    a_second_signal_ends_the_wait(libc::SIGTERM);
}

#[test]
fn int_ends_the_wait_as_term_does() {
    a_second_signal_ends_the_wait(libc::SIGINT);
}

fn a_second_signal_ends_the_wait(signal: i32) {
    let pool = lingering(pool().options(["--grace", "120s", "--lb-wait", "60s"]));
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    pool.signal(signal);
    pool.wait_for_phase("draining");
    pool.expect("got 15 0");
    assert_eq!(count(&pool, "got 2 0"), 0, "the stop signal is TERM");
    finish(pool);
}

#[test]
fn int_skips_the_wait_and_is_the_stop_signal() {
    let pool = lingering(pool().options(["--grace", "120s", "--lb-wait", "60s"]));
    pool.signal(libc::SIGINT);
    pool.expect("got 2 0");
    assert_eq!(pool.phase(), "draining");
    expect_phases(&pool, &["serving", "draining"]);
    assert_eq!(count(&pool, "got 15 0"), 0);
    finish(pool);
}

#[test]
fn a_signal_in_draining_is_passed_on_once_more() {
    for (signal, line) in [(libc::SIGTERM, "got 15 0"), (libc::SIGINT, "got 2 0")] {
        let pool = lingering(pool());
        pool.signal(libc::SIGTERM);
        pool.wait_for_phase("draining");
        pool.expect("got 15 0");
        let before = count(&pool, line);
        pool.signal(signal);
        until("once more", || (count(&pool, line) == before + 1).then_some(()));
        finish(pool);
    }
}

#[test]
fn any_signal_can_be_made_to_drain() {
    let pool = lingering(pool().options(["--signal", "QUIT=drain", "--signal", "TERM=forward"]));
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
    assert_eq!(pool.phase(), "serving");
    pool.signal(libc::SIGQUIT);
    pool.wait_for_phase("draining");
    finish(pool);
}

#[test]
fn one_worker_without_a_socket_drains_by_the_same_phases() {
    let mut pool = pool_without_socket()
        .options(["--ready-when", "started", "--lb-wait", "600ms"])
        .worker(["watch", "say=here", "log=TERM", "exit=7"])
        .start();
    pool.expect("here");
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    assert_eq!((pool.readyz(), count(&pool, "got 15 0")), (503, 0));
    assert_eq!(pool.wait(), Exit::Code(7), "its own code");
}

#[test]
fn the_stop_signal_can_be_another() {
    let pool = lingering(pool().options(["--stop-signal", "QUIT"]));
    pool.signal(libc::SIGTERM);
    pool.expect("got 3 0");
    assert_eq!(count(&pool, "got 15 0"), 0);
    finish(pool);
}

#[test]
fn the_stop_signal_goes_to_every_worker() {
    let pool = pool()
        .options(["--workers", "5", "--ready-when", "started"])
        .worker(["watch", "say=here", "log=USR1"])
        .start();
    until("all of them", || (count(&pool, "here") == 5).then_some(()));
    pool.signal(libc::SIGTERM);
    until("all are told", || (count(&pool, "got 15 0") == 5).then_some(()));
    finish(pool);
}

#[test]
fn the_stop_signal_goes_to_the_group_where_that_is_asked_for() {
    for (scope, told) in [("leader", 1), ("group", 2)] {
        let pool = pool()
            .options(["--ready-when", "started", "--signal-scope", scope, "--orphan-grace", "5s"])
            .worker(["{", "watch", "say=helper", "log=USR1", "}", "watch", "say=here", "log=USR1"])
            .start();
        pool.expect("here");
        pool.expect("helper");
        pool.signal(libc::SIGTERM);
        until("told", || (count(&pool, "got 15 0") == told).then_some(()));
        assert_eq!(pool.phase(), "draining");
        assert_eq!(count(&pool, "got 15 0"), told, "{scope}");
        pool.init().children().iter().for_each(|child| child.signal(libc::SIGUSR1));
    }
}

#[test]
fn the_plan_is_logged_at_the_start() {
    let options = [
        "--grace",
        "8s",
        "--margin",
        "2s",
        "--lb-wait",
        "1s",
        "--drain-timeout",
        "3s",
        "--stop-signal",
        "INT",
    ];
    let pool = lingering(pool().options(options));
    pool.signal(libc::SIGTERM);
    let plan = pool.logged("drain planned");
    let seconds = |field: &str| plan[field].as_f64().unwrap();
    assert_eq!(plan["trigger"], "SIGTERM");
    assert_eq!((seconds("grace_seconds"), seconds("margin_seconds")), (8.0, 2.0));
    assert_eq!((seconds("lb_wait_seconds"), seconds("drain_seconds")), (1.0, 3.0));
    assert_eq!(seconds("spent_seconds"), 0.0);
    pool.expect("got 2 0");
    finish(pool);
}

#[test]
fn a_wait_that_leaves_the_workers_too_little_is_cut_with_a_warning_at_the_start() {
    // A quarter of the budget is 1 s; or half a second, where that is more.
    for (grace, cut) in [("5s", 3.0), ("2s", 0.5)] {
        let pool = lingering(pool().options(["--grace", grace, "--lb-wait", "1s..20s"]));
        let warning = pool.logged("--lb-wait");
        assert_eq!(warning["level"], "WARN");
        pool.signal(libc::SIGTERM);
        assert_eq!(pool.logged("drain planned")["lb_wait_seconds"], cut, "{warning}");
    }
}

#[test]
fn a_wait_that_fits_is_no_reason_for_a_warning() {
    let pool = lingering(pool().options(["--grace", "5s", "--lb-wait", "3s"]));
    assert!(!pool.has_logged("--lb-wait"));
}

#[test]
fn a_worker_that_dies_in_lame_duck_is_replaced() {
    let pool = pool().options(["--grace", "60s", "--lb-wait", "30s"]).server().start();
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let first = pool.member(0).process;
    first.signal(libc::SIGKILL);
    until("a replacement that is ready", || {
        pool.members().into_iter().find(|m| m.process != first && m.state == "ready")
    });
    assert_eq!((pool.phase().as_str(), pool.readyz()), ("lame-duck", 503));
    assert_eq!(http::get(pool.address(), "/").unwrap().status, 200);
}

#[test]
fn a_worker_that_dies_in_draining_is_not_replaced() {
    let mut pool = lingering(pool().options(["--workers", "2"]));
    until("both", || (count(&pool, "here") == 2).then_some(()));
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    pool.members()[0].process.signal(libc::SIGKILL);
    until("one is left", || (pool.members().len() == 1).then_some(()));
    holds_for(Duration::from_millis(300), "nobody is started", || pool.counter("spawns") == 2);
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_request_in_flight_is_finished() {
    use std::io::{Read, Write};
    let mut pool = pool().server().start();
    pool.wait_ready(1);
    // It has been accepted when the worker has one descriptor more, and is then in the middle of its head.
    let worker = pool.member(0).process;
    let before = worker.descriptors().len();
    let mut client = TcpStream::connect(pool.address()).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\n").unwrap();
    until("accepted", || (worker.descriptors().len() > before).then_some(()));
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    client.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_drain_before_anybody_is_ready_drains_too() {
    let mut pool = pool().worker(["watch", "say=here", "log=TERM"]).start();
    pool.expect("here");
    assert_eq!(pool.phase(), "starting");
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}
