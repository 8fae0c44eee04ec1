//! A pool where something is missing: descriptors, a reader of its log, processes.

mod common;

use common::pool::{Companion, Pool, PoolLaunch, code, pool};
use common::{Exit, Stage, cannot_run, fresh_uid, is_root, until};

/// Kills workers and sees them come back, then drains.
#[track_caller]
fn assert_works(launch: PoolLaunch) {
    let mut pool = launch
        .options(["--workers", "2", "--max-crashes", "off", "--backoff", "0..0", "--log-level", "debug"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(2);
    for round in 0..6 {
        replace(&pool, round % 2);
    }
    assert_eq!(pool.readyz(), 200);
    assert_eq!(code(&pool.ask(&["scale", "3"])), 0);
    pool.wait_ready(3);
    assert_eq!(pool.get("/metrics").status, 200);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[track_caller]
fn replace(pool: &Pool, slot: u64) {
    let first = pool.member(slot).process;
    first.signal(libc::SIGKILL);
    until("a replacement", || {
        pool.members().into_iter().find(|m| m.slot == slot && m.state == "ready" && m.process != first)
    });
}

#[test]
fn a_pool_works_with_stderr_closed() {
    assert_works(pool().under(["close=2"]));
}

#[test]
fn a_pool_works_with_a_full_pipe_that_nobody_reads_as_stderr() {
    assert_works(pool().under(["full-pipe=2"]));
}

#[test]
fn a_pool_works_with_a_full_disk_as_stderr() {
    assert_works(pool().under(["close=2", "write-to=2:/dev/full"]));
}

#[test]
fn a_pool_works_with_all_of_stdio_closed() {
    assert_works(pool().under(["close=0", "close=1", "close=2"]));
}

#[test]
fn lines_that_nobody_took_are_counted() {
    let pool = pool().under(["full-pipe=2"]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    replace(&pool, 0);
    until("some are dropped", || {
        let metrics = pool.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("drainit_log_dropped_total"))?;
        (line.split(' ').nth(1)?.parse::<f64>().ok()? > 0.0).then_some(())
    });
}

#[test]
fn a_pool_of_two_works_with_16_descriptors() {
    let mut pool = pool()
        .options(["--workers", "2", "--max-crashes", "off", "--backoff", "0..0"])
        .under(["limit=NOFILE:16"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(2);
    for round in 0..6 {
        replace(&pool, round % 2);
    }
    // More visitors than descriptors: the probe gets through.
    let idle: Vec<_> =
        (0..40).filter_map(|_| std::net::TcpStream::connect(pool.admin.local()).ok()).collect();
    assert_eq!(pool.readyz(), 200);
    drop(idle);
    assert_eq!(code(&pool.ask(&["probe", "live"])), 0);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_pool_keeps_its_descriptors_in_bounds_over_many_restarts() {
    let pool = pool().options(["--max-crashes", "off", "--backoff", "0..0"]).worker(["exit=1"]).start();
    let descriptors = || pool.init().descriptors().len();
    until("50 restarts", || (pool.counter("spawns") >= 50).then_some(()));
    let before = descriptors();
    until("500 restarts", || (pool.counter("spawns") >= 500).then_some(()));
    let after = descriptors();
    // A worker and a visitor more or less.
    assert!(after <= before + 6, "{before} -> {after}");
}

#[test]
fn a_pool_works_on_a_read_only_root() {
    let stage = Stage::new();
    let launch = pool().with(|launch| launch.init_at(stage.init()).fixture_at(stage.fixture()));
    assert_works(launch.under(["read-only-root"]));
}

#[test]
fn a_pool_works_as_any_user_without_capabilities() {
    if !is_root() {
        return cannot_run("needs root to become another user");
    }
    let stage = Stage::new();
    let uid = format!("uid={}", fresh_uid());
    let launch = pool().with(|launch| launch.init_at(stage.init()).fixture_at(stage.fixture()));
    assert_works(launch.under(["no-new-privs", &uid]));
}

#[test]
fn a_fork_that_is_refused_later_is_tried_again() {
    if !is_root() {
        return cannot_run("needs root to become a user with no other process");
    }
    let stage = Stage::new();
    let uid = fresh_uid();
    let mut pool = pool()
        .with(|launch| launch.init_at(stage.init()).fixture_at(stage.fixture()))
        .options(["--backoff", "20ms..50ms", "--max-crashes", "2/60s"])
        .under(["limit=NPROC:2", &format!("uid={uid}")])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    // Somebody else of that user takes the seat of the worker that is about to die.
    let mut squatter = Companion::start(
        std::process::Command::new(stage.fixture())
            .args([&format!("uid={uid}"), "say=here", "pause"])
            .stdout(std::process::Stdio::piped()),
    );
    let mut line = [0; 5];
    std::io::Read::read_exact(squatter.stdout.as_mut().unwrap(), &mut line).unwrap();
    pool.member(0).process.signal(libc::SIGKILL);
    // More often than crashes are allowed: it is not the worker's fault.
    until("five attempts", || (pool.counter("spawn_failures") >= 5).then_some(()));
    assert_eq!(pool.get("/livez").status, 200);
    assert_eq!(pool.readyz(), 503);
    drop(squatter);
    pool.wait_ready(1);
    assert_eq!(pool.readyz(), 200);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_pool_works_without_proc() {
    // Other than `listening`, which looks there.
    let mut pool = pool()
        .options(["--workers", "2", "--ready-when", "notify"])
        .under(["hide=/proc"])
        .worker(["notify=READY=1", "poll=3"])
        .start();
    until("both are ready", || (pool.status()["ready_workers"] == 2).then_some(()));
    assert_eq!(pool.readyz(), 200);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}
