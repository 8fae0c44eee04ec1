//! Releases that are no good, against a pool of four under load: nothing is lost, everything is as it was, and whoever
//! has asked for it is told why.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;
#[path = "matrix/mod.rs"]
mod matrix;
#[path = "rolls/mod.rs"]
mod rolls;
#[path = "../examples/support/steady/mod.rs"]
mod steady;

use std::process::Output;
use std::time::Duration;

use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, Port, code, pool, text};
use common::{example, fixture, timed, until};
use rolls::{last_roll, rows, wait_for_answers};
use serde_json::Value;
use steady::{Shape, Steady};

const WORKERS: u64 = 4;

/// What a roll may take beyond the time that its release is given, on the slowest machine.
const MARGIN: Duration = Duration::from_secs(4);

fn four() -> PoolLaunch {
    pool().options(["--workers", "4", "--drain-timeout", "1s"])
}

/// Slot, process and generation of each worker.
fn workers(pool: &Pool) -> Vec<[Value; 3]> {
    let status = pool.status();
    let all = status["workers"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| ["slot", "pid", "generation"].map(|name| one[name].clone())).collect()
}

fn restart(pool: &Pool, words: &[&str]) -> Output {
    pool.ask(&[&["restart", "--wait"], words].concat())
}

/// The pool goes on as if nothing had been asked of it; `limit` is what such a release has for itself. A canary has taken
/// the place of an old worker before it was found out.
#[track_caller]
fn is_undone(pool: &Pool, words: &[&str], reasons: &[&str], limit: Duration, canaries: usize) {
    pool.wait_ready(WORKERS);
    let before = workers(pool);
    let load = Steady::start(pool.address(), "/", Shape::NEW);
    wait_for_answers(&load);
    let (output, took) = timed(|| restart(pool, words));
    wait_for_answers(&load);
    let why = text(&output.stderr);
    assert_eq!(code(&output), 1, "{output:?}\n{}", **pool);
    assert!(reasons.iter().any(|reason| why.contains(reason)), "one of {reasons:?}: {output:?}");
    assert!(took < limit + MARGIN, "{took:?}: {output:?}");
    let record = last_roll(pool);
    assert_eq!(record["outcome"], "rolled-back", "{record}");
    let written = record["reason"].as_str().unwrap_or_default();
    assert!(reasons.iter().any(|reason| written.contains(reason)), "{record}");
    assert!(record["least_ready"].as_u64() >= Some(WORKERS - canaries as u64), "{record}");
    pool.wait_ready(WORKERS);
    wait_for_answers(&load);
    let tally = load.stop().expect("the load");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", **pool);
    let after = workers(pool);
    let kept = before.iter().filter(|worker| after.contains(worker)).count();
    assert_eq!(
        kept + canaries,
        before.len(),
        "the old workers have never stopped: {before:?}, {after:?}\n{}",
        **pool
    );
    assert!(after.iter().all(|[_, _, generation]| *generation == 1), "{after:?}");
    assert_eq!(pool.readyz(), 200);
    eprintln!("undone in {took:.2?}: {}; {tally}", why.trim_end());
}

#[track_caller]
fn command_is_undone(launch: PoolLaunch, command: &[&str], reasons: &[&str], limit: Duration) {
    leave_network();
    let pool = launch.server().start();
    is_undone(&pool, &[&["--"], command].concat(), reasons, limit, 0);
}

const READY_TIMEOUT: Duration = Duration::from_secs(2);

fn impatient() -> PoolLaunch {
    four().options(["--ready-timeout", "2s"])
}

/// The fixture, that does as it is told.
fn steps<'a>(fixture: &'a str, steps: &[&'a str]) -> Vec<&'a str> {
    [&[fixture], steps].concat()
}

fn path_of(program: std::path::PathBuf) -> String {
    program.display().to_string()
}

#[test]
fn it_exits_at_once() {
    let fixture = path_of(fixture());
    command_is_undone(four(), &steps(&fixture, &["exit=3"]), &["3"], Duration::ZERO);
}

#[test]
fn it_exits_after_it_was_ready() {
    // It answers for a while, and finishes what it has begun.
    const SCRIPT: &str = "(sleep 0.4; kill -TERM $$) & exec \"$0\"";
    let server = path_of(example("server"));
    let launch = four().options(["--min-ready-time", "1s"]);
    command_is_undone(launch, &["sh", "-c", SCRIPT, &server], &["0", "exit"], Duration::from_secs(1));
}

#[test]
fn it_is_never_ready() {
    let fixture = path_of(fixture());
    command_is_undone(impatient(), &steps(&fixture, &["pause"]), &["not ready in time"], READY_TIMEOUT);
}

#[test]
fn it_hangs_at_its_start_and_hears_no_signal() {
    let fixture = path_of(fixture());
    let deaf = steps(&fixture, &["ignore=TERM,INT,HUP", "pause"]);
    command_is_undone(impatient(), &deaf, &["not ready in time"], READY_TIMEOUT + Duration::from_secs(1));
}

#[test]
fn it_binds_another_port() {
    let (fixture, other) = (path_of(fixture()), Port::reserve());
    let step = format!("bind-and-serve={}", other.number);
    command_is_undone(impatient(), &steps(&fixture, &[&step]), &["not ready in time"], READY_TIMEOUT);
}

#[test]
fn its_command_is_not_there() {
    let nowhere = ["/nowhere/server"];
    command_is_undone(four(), &nowhere, &["No such file", "not found"], Duration::ZERO);
}

/// It serves, and says that it is ill.
#[track_caller]
fn ill_is_undone(options: &[&str], canaries: usize) {
    leave_network();
    // However slow the machine is, nobody else is taken for ill.
    let check = ["--check=http=/health", "--check-every=200ms", "--check-timeout=10s", "--check-failures=2"];
    let words = [&["--sockets=per-worker", "--drain-timeout=1s"], &check[..], options].concat();
    let Some(trial) = rolls::Trial::of(WORKERS, &rows::node_closing(), &words) else { return };
    is_undone(&trial, &["--env", "SICK=1"], &["check"], Duration::from_secs(3), canaries);
}

#[test]
fn it_fails_its_check_before_it_counts() {
    ill_is_undone(&["--min-ready-time=3s"], 0);
}

#[test]
fn it_fails_its_check_as_a_canary() {
    ill_is_undone(&["--canary=1", "--canary-hold=3s"], 1);
}

/// A pool that serves all along, whatever is asked of it.
#[test]
fn three_of_them_open_the_breaker_and_the_pool_serves_on() {
    leave_network();
    let fixture = path_of(fixture());
    let pool = four().options(["--breaker-reset", "4s"]).server().start();
    pool.wait_ready(WORKERS);
    let before = workers(&pool);
    let load = Steady::start(pool.address(), "/", Shape::NEW);
    for _ in 0..3 {
        assert_eq!(code(&restart(&pool, &["--", &fixture, "exit=3"])), 1, "{}", *pool);
    }
    let (output, took) = timed(|| restart(&pool, &[]));
    let why = text(&output.stderr);
    assert_eq!(code(&output), 2, "{output:?}\n{}", *pool);
    assert!(why.contains("breaker is open for") && why.contains("3 failed rolls"), "{why}");
    assert!(took < MARGIN, "{took:?}");
    assert_eq!((pool.readyz(), workers(&pool)), (200, before));
    assert_eq!(pool.status()["breaker"], "open");
    until("a trial", || (pool.status()["breaker"] == "half-open").then_some(()));
    let output = restart(&pool, &[]);
    assert_eq!(code(&output), 0, "{output:?}\n{}", *pool);
    assert_eq!(pool.status()["breaker"], "closed");
    wait_for_answers(&load);
    let tally = load.stop().expect("the load");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", *pool);
    eprintln!("{}; {tally}", why.trim_end());
}
