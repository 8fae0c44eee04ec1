//! What follows on the death of a worker.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::time::Duration;

use common::pool::{Pool, code, pool, pool_without_socket};
use common::{Exit, Process, Stage, holds_for, pid1, until};

/// A shell that does as its slot says.
fn shell(script: &str) -> [String; 3] {
    ["/bin/sh".into(), "-c".into(), script.into()]
}

#[track_caller]
fn kill_and_await_replacement(pool: &Pool, slot: u64) -> Process {
    let first = pool.member(slot).process;
    first.signal(libc::SIGKILL);
    until(format_args!("a replacement\n{}", **pool), || {
        let members = pool.members();
        members.iter().find(|m| m.slot == slot && m.state == "ready" && m.process != first).map(|m| m.process)
    })
}

/// Delay and number of deaths of every replacement so far, in order.
fn replacements(pool: &Pool) -> Vec<(f64, u64)> {
    let lines = pool.log().into_iter().filter(|line| line["message"] == "worker will be replaced");
    lines.map(|line| (line["delay_seconds"].as_f64().unwrap(), line["deaths"].as_u64().unwrap())).collect()
}

#[test]
fn a_pool_replaces_whatever_exits_by_default() {
    for step in ["exit=0", "exit=3", "die=KILL"] {
        let pool = pool().options(["--max-crashes", "off"]).worker(["say=here", step]).start();
        until("three of them", || (pool.lines().len() >= 3).then_some(()));
    }
}

#[test]
fn on_failure_replaces_crashes_and_lets_success_go() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "echo here; n=$(cat {0}/n || echo 0); echo $((n+1)) > {0}/n; test $n -ge 2",
        directory.path().display()
    );
    let mut pool = pool().options(["--restart", "on-failure"]).command(shell(&script)).start();
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout.iter().filter(|line| *line == "here").count(), 3, "{outcome:?}");
}

#[test]
fn under_never_nobody_is_replaced_and_the_first_failure_is_the_code() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "echo here; case $DRAINIT_SLOT in 0) exit 0;; 1) while ! test -e {}/go; do sleep .01; done; exit 5;; \
         2) exit 7;; esac",
        directory.path().display()
    );
    let mut pool = pool().options(["--workers", "3", "--restart", "never"]).command(shell(&script)).start();
    until("one is left", || (pool.status()["workers"].as_array().unwrap().len() == 1).then_some(()));
    std::fs::write(directory.path().join("go"), "").unwrap();
    let outcome = pool.outcome();
    outcome.assert_code(7);
    assert_eq!(outcome.stdout.len(), 3);
}

#[test]
fn under_never_a_pool_in_which_nobody_fails_is_0() {
    let mut pool = pool().options(["--workers", "3", "--restart", "never"]).worker(["exit=0"]).start();
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn one_worker_without_a_socket_is_replaced_when_that_is_asked_for() {
    let pool = pool_without_socket().options(["--restart", "always"]).worker(["say=here", "exit=0"]).start();
    until("three of them", || (pool.lines().len() >= 3).then_some(()));
}

#[test]
fn one_worker_without_a_socket_ends_with_success_under_on_failure() {
    let mut pool =
        pool_without_socket().options(["--restart", "on-failure"]).worker(["say=here", "exit=0"]).start();
    assert_eq!(pool.outcome().assert_code(0).stdout, ["here"]);
}

#[test]
fn one_worker_that_is_restarted_ends_a_drain_with_0_whatever_its_own_code() {
    let mut pool = pool_without_socket()
        .options(["--restart", "always"])
        .worker(["watch", "say=here", "log=TERM", "exit=9"])
        .start();
    pool.expect("here");
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn the_first_death_is_healed_at_once_and_then_the_delay_grows_within_its_bounds() {
    let pool =
        pool().options(["--backoff", "20ms..100ms", "--max-crashes", "off"]).worker(["exit=1"]).start();
    let seen = until("ten deaths", || Some(replacements(&pool)).filter(|seen| seen.len() >= 10));
    for (index, (delay, deaths)) in seen.iter().enumerate() {
        assert_eq!(*deaths, index as u64 + 1);
        let ceiling = match index {
            0 => 0.0,
            n => f64::min(0.100, 0.020 * 2_f64.powi(n as i32 - 1)),
        };
        // The log rounds to the millisecond.
        assert!(*delay <= ceiling + 0.000_5, "death {deaths}: {delay} > {ceiling}");
    }
    assert!(seen.iter().skip(1).any(|(delay, _)| *delay > 0.0), "there is a delay at all: {seen:?}");
}

#[test]
fn the_delay_is_kept() {
    // There is no floor in the jitter: compare it with what was announced.
    let pool = pool().options(["--backoff", "2s..2s", "--max-crashes", "off"]).worker(["exit=1"]).start();
    until("two deaths", || (replacements(&pool).len() >= 2).then_some(()));
    let announced = Duration::from_secs_f64(replacements(&pool)[1].0);
    let early = announced.mul_f64(0.8).saturating_sub(Duration::from_millis(50));
    holds_for(early, "nobody is started before", || pool.counter("spawns") == 2);
    until("the third", || (pool.counter("spawns") >= 3).then_some(()));
}

#[test]
fn a_worker_that_was_ready_long_enough_is_replaced_at_once_every_time() {
    let pool = pool()
        .options(["--min-uptime", "100ms", "--backoff", "10s..10s", "--max-crashes", "1/60s"])
        .worker(["poll=3"])
        .start();
    for _ in 0..4 {
        let slot = pool.member(0);
        until("long enough", || {
            let uptime = pool.status()["workers"][0]["uptime_seconds"].as_f64()?;
            (uptime > 0.2).then_some(())
        });
        assert_eq!(slot.process, pool.member(0).process);
        kill_and_await_replacement(&pool, 0);
    }
    assert!(replacements(&pool).iter().all(|(delay, _)| *delay == 0.0));
    assert_eq!(pool.status()["breaker"], "closed", "none of them was a crash");
}

#[test]
fn slots_are_counted_apart() {
    let pool = pool().options(["--workers", "3", "--backoff", "10s..10s"]).worker(["poll=3"]).start();
    pool.wait_ready(3);
    // The first death of each is healed at once.
    for slot in 0..3 {
        kill_and_await_replacement(&pool, slot);
    }
}

#[test]
fn workers_that_keep_crashing_are_75_with_a_reason() {
    let mut pool = pool()
        .options(["--max-crashes", "2/60s", "--backoff", "0..0"])
        .worker(["say=here", "exit=3"])
        .start();
    let outcome = pool.outcome();
    outcome.assert_code(75);
    assert_eq!(outcome.stdout.len(), 3, "more than 2: {outcome:?}");
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.contains("crashing") && last.contains("exited with code 3"), "{outcome:?}");
}

#[test]
fn crashes_end_nothing_while_a_worker_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    // Slot 1 crashes, again and again, once slot 0 is ready.
    let gate = directory.path().join("go").display().to_string();
    let script = format!(
        "test $DRAINIT_SLOT = 0 && exec \"$0\" poll=3; while ! test -e {gate}; do sleep .01; done; exit 3"
    );
    let fixture = common::fixture().display().to_string();
    let mut pool = pool()
        .options(["--workers", "2", "--max-crashes", "2/60s", "--backoff", "1ms..1ms"])
        .command(shell(&script).into_iter().chain([fixture]))
        .start();
    pool.member(0);
    std::fs::write(&gate, "").unwrap();
    pool.logged("breaker open");
    until("and more crashes", || (pool.counter("restarts_crash") >= 8).then_some(()));
    assert_eq!(pool.status()["breaker"], "open");
    assert_eq!((pool.readyz(), pool.get("/livez").status), (200, 200));
    // The last one that was ready: now nobody serves.
    pool.member(0).process.signal(libc::SIGKILL);
    assert_eq!(pool.wait(), Exit::Code(75));
}

#[test]
fn crashes_beyond_the_window_are_forgotten() {
    let pool = pool().options(["--max-crashes", "2/100ms", "--backoff", "0..0"]).worker(["poll=3"]).start();
    for _ in 0..6 {
        kill_and_await_replacement(&pool, 0);
        until("the window is over", || {
            (pool.status()["workers"][0]["uptime_seconds"].as_f64()? > 0.15).then_some(())
        });
    }
    assert_eq!(pool.status()["breaker"], "closed");
}

#[test]
fn without_a_limit_crashes_are_never_too_many() {
    let pool = pool().options(["--max-crashes", "off", "--backoff", "0..0"]).worker(["exit=1"]).start();
    until("50 crashes", || (pool.counter("restarts_crash") >= 50).then_some(()));
}

#[test]
fn restarts_are_counted_by_their_reason() {
    let pool = pool()
        .options(["--max-crashes", "off", "--backoff", "0..0", "--workers", "2"])
        .command(shell("exit $DRAINIT_SLOT"))
        .start();
    until("some of each", || {
        let counters = &pool.status()["counters"];
        let some = |name: &str| counters[name].as_u64().unwrap() >= 3;
        (some("restarts_exit") && some("restarts_crash")).then_some(())
    });
    let metrics = pool.get("/metrics").body;
    for reason in ["exit", "crash", "late"] {
        assert!(
            metrics.contains(&format!("drainit_worker_restarts_total{{reason=\"{reason}\"}}")),
            "{metrics}"
        );
    }
}

#[test]
fn what_a_dead_worker_leaves_in_its_group_is_terminated() {
    let pool = pool().worker(["{", "watch", "say=helper", "log=TERM", "say=gone", "}", "poll=3"]).start();
    pool.expect("helper");
    kill_and_await_replacement(&pool, 0);
    pool.expect("got 15 0");
    pool.expect("gone");
    until("no orphan, no zombie", || (pool.init().children().len() == 1).then_some(()));
}

#[test]
fn what_ignores_that_is_killed_after_orphan_grace() {
    let pool = pool()
        .options(["--orphan-grace", "300ms"])
        .worker(["{", "ignore=TERM", "say=helper", "pause", "}", "poll=3"])
        .start();
    pool.expect("helper");
    let helper = pool.member(0).process.children()[0];
    kill_and_await_replacement(&pool, 0);
    until("the helper is dead", || (!helper.is_alive()).then_some(()));
    // The new worker's own helper is not meant.
    let worker = pool.member(0).process;
    holds_for(Duration::from_millis(400), "the new helper lives", || {
        worker.is_alive() && worker.children().iter().all(|child| child.is_alive())
    });
}

#[test]
fn a_command_that_has_gone_meanwhile_is_a_crash_like_any_other() {
    let stage = Stage::new();
    let mut pool = pool()
        .with(|launch| launch.fixture_at(stage.fixture()))
        .options(["--max-crashes", "3/60s", "--backoff", "1ms..1ms"])
        .worker(["poll=3"])
        .start();
    pool.wait_ready(1);
    std::fs::remove_file(stage.fixture()).unwrap();
    pool.member(0).process.signal(libc::SIGKILL);
    let outcome = pool.outcome();
    outcome.assert_code(75);
    assert!(outcome.stderr.contains("worker could not be started"), "{outcome:?}");
}

#[test]
fn a_command_that_is_never_there_is_127_in_a_pool_too() {
    let outcome = pid1().options(["--workers", "2"]).command(["/nowhere/server"]).run();
    outcome.assert_code(127);
    assert!(outcome.stderr.contains("/nowhere/server"), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1);
}

#[test]
fn orphans_of_a_pool_are_reaped_and_counted() {
    let pool = pool().worker(["times=50", "{", "{", "setsid", "}", "}", "poll=3"]).start();
    pool.wait_ready(1);
    let orphans = || {
        let metrics = pool.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("drainit_orphans_reaped_total"))?;
        line.split(' ').nth(1)?.parse::<u64>().ok()
    };
    until("50 orphans reaped", || (orphans()? == 50).then_some(()));
    assert_eq!(pool.init().zombies(), 0);
    assert_eq!(code(&pool.ask(&["probe", "ready"])), 0);
}
