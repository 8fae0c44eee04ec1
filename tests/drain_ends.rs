//! How a drain ends: the code, the reason, and what is left.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::pool::{Companion, PoolLaunch, pool, pool_without_socket};
use common::{Exit, Launch, Outcome, nested, pid1};

/// Starts it, waits until the worker says `here`, sends TERM, and tells what came of it.
#[track_caller]
fn drained(launch: PoolLaunch) -> Outcome {
    let mut pool = launch.start();
    pool.expect("here");
    // The log is up, and with it all that a drain tells.
    pool.status();
    pool.signal(libc::SIGTERM);
    pool.outcome()
}

fn last_log_line(outcome: &Outcome) -> serde_json::Value {
    serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap_or_default()
}

#[test]
fn a_pool_that_drained_in_time_is_0_whatever_its_workers_exit_with() {
    for end in ["exit=0", "exit=3", "die=KILL"] {
        let outcome = drained(pool().worker(["watch", "say=here", "log=TERM", end]));
        outcome.assert_code(0);
        assert!(last_log_line(&outcome)["reason"].as_str().unwrap().contains("drained in"), "{outcome:?}");
    }
}

#[test]
fn a_pool_whose_workers_die_of_the_stop_signal_is_0() {
    drained(pool().options(["--workers", "3"]).worker(["say=here", "poll=3"])).assert_code(0);
}

#[test]
fn under_never_a_pool_keeps_the_first_failure_after_a_drain_too() {
    let launch = pool().options(["--workers", "2", "--restart", "never"]);
    drained(launch.worker(["watch", "say=here", "log=TERM", "exit=6"])).assert_code(6);
}

#[test]
fn one_worker_without_a_socket_keeps_its_code_after_a_drain() {
    drained(pool_without_socket().worker(["watch", "say=here", "log=TERM", "exit=6"])).assert_code(6);
    drained(pool_without_socket().worker(["say=here", "pause"])).assert_code(143);
}

#[test]
fn the_codes_of_a_drain_can_be_remapped() {
    let launch = pool().options(["--remap-exit", "124=9", "--drain-timeout", "100ms"]);
    drained(launch.worker(["ignore=TERM", "say=here", "pause"])).assert_code(9);
}

#[test]
fn a_worker_that_is_killed_at_the_drain_timeout_makes_it_124() {
    for launch in [pool(), pool_without_socket()] {
        let launch = launch.options(["--drain-timeout", "200ms"]);
        let outcome = drained(launch.worker(["ignore=TERM", "say=here", "pause"]));
        outcome.assert_code(124);
        let reason = outcome.stderr.lines().last().unwrap();
        assert!(reason.contains("had to be killed"), "{outcome:?}");
    }
}

#[test]
fn a_worker_that_is_killed_at_the_hard_deadline_makes_it_124() {
    let launch = pool().options(["--grace", "1s", "--margin", "500ms", "--drain-timeout", "1m"]);
    let outcome = drained(launch.worker(["ignore=TERM", "say=here", "pause"]));
    outcome.assert_code(124);
    assert!(outcome.stderr.contains("worker killed"), "{outcome:?}");
}

#[test]
fn one_stubborn_worker_among_many_is_enough_for_124() {
    let fixture = common::fixture().display().to_string();
    let script = "test $DRAINIT_SLOT = 1 && exec \"$0\" ignore=TERM say=here pause; exec \"$0\" poll=3";
    let launch = pool()
        .options(["--workers", "3", "--drain-timeout", "200ms", "--ready-when", "started"])
        .command(["/bin/sh", "-c", script, &fixture]);
    drained(launch).assert_code(124);
}

#[test]
fn a_worker_that_is_stopped_is_killed_in_time() {
    let mut pool = pool()
        .options(["--drain-timeout", "300ms", "--ready-when", "started"])
        .worker(["say=here", "pause"])
        .start();
    pool.expect("here");
    pool.wait_ready(1);
    let worker = pool.member(0).process;
    worker.signal(libc::SIGSTOP);
    common::until("it stands still", || (worker.state() == 'T').then_some(()));
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(124));
}

/// A grandchild in a session of its own that ignores everything.
const ESCAPEE: [&str; 6] = ["{", "setsid", "ignore=TERM,INT,HUP", "say=escaped", "pause", "}"];

#[test]
fn what_outlives_the_workers_is_killed_and_changes_no_code() {
    for launch in [pid1(), nested()] {
        let mut pool = PoolLaunch::of(launch)
            .listening()
            .options(["--orphan-grace", "200ms"])
            .worker(ESCAPEE.iter().chain(&["say=here", "poll=3"]))
            .start();
        pool.expect("escaped");
        pool.expect("here");
        pool.status();
        pool.signal(libc::SIGTERM);
        let outcome = pool.outcome();
        outcome.assert_code(0).assert_nothing_left();
        assert!(outcome.stderr.contains("outlived the workers"), "{outcome:?}");
    }
}

#[test]
fn what_outlives_the_workers_is_given_its_grace() {
    let mut pool = pool()
        .options(["--orphan-grace", "20s", "--grace", "30s"])
        .worker([
            "{",
            "setsid",
            "watch",
            "say=escaped",
            "log=TERM",
            "linger",
            "say=finished",
            "}",
            "say=here",
            "poll=3",
        ])
        .start();
    pool.expect("escaped");
    pool.expect("here");
    pool.status();
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0).assert_says("finished");
}

/// With a file of the test's own in place of /dev/termination-log.
struct TerminationLog(tempfile::TempDir);

impl TerminationLog {
    fn new() -> Self {
        let log = Self(tempfile::tempdir().unwrap());
        fs::write(log.path(), "").unwrap();
        log
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// On a /dev of its own: the host may have no such file.
    fn under(&self, launch: Launch) -> Launch {
        let bind = format!("bind={}:/dev/termination-log", self.path().display());
        launch.under(["hide=/dev", "write=/dev/termination-log:", &bind])
    }

    #[track_caller]
    fn line(&self) -> String {
        let text = fs::read_to_string(self.path()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "one line: {text:?}");
        assert!(text.ends_with('\n'));
        text.trim_end().to_owned()
    }
}

#[test]
fn the_reason_of_a_drain_is_in_the_termination_log() {
    let log = TerminationLog::new();
    drained(pool().with(|launch| log.under(launch)).worker(["say=here", "poll=3"])).assert_code(0);
    let line = log.line();
    assert!(line.contains("drained in") && line.contains("SIGTERM"), "{line}");
}

#[test]
fn every_end_has_its_reason_in_the_termination_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &[&str], i32, &str); 6] = [
        (&["--grace", "soon"], &["exit=0"], 64, "--grace"),
        (&["--listen", &address], &["exit=0"], 69, &address),
        (&["--workers", "2", "--max-crashes", "0/60s"], &["exit=3"], 75, "exited with code 3"),
        (&["--restart", "never"], &["exit=3"], 3, "worker 0 exited with code 3"),
        (&[], &["die=KILL"], 137, "SIGKILL"),
        (&[], &["exit=0"], 0, "worker 0 exited with code 0"),
    ];
    for (options, worker, code, reason) in cases {
        let log = TerminationLog::new();
        log.under(pid1()).options(options).worker(worker).run().assert_code(code);
        let line = log.line();
        assert!(line.contains(reason), "{code}: {line}");
    }
}

#[test]
fn a_kill_is_in_the_termination_log() {
    let log = TerminationLog::new();
    let launch = pool().with(|launch| log.under(launch)).options(["--drain-timeout", "100ms"]);
    drained(launch.worker(["ignore=TERM", "say=here", "pause"])).assert_code(124);
    assert!(log.line().contains("had to be killed"));
}

#[test]
fn a_command_that_is_not_there_is_in_the_termination_log_in_at_most_4_kib() {
    let log = TerminationLog::new();
    let command = format!("/nowhere/{}", "x/".repeat(1900));
    log.under(pid1()).command([&command]).run().assert_code(127);
    let line = log.line();
    assert!(line.contains("/nowhere/") && line.len() < 4096, "{} bytes", line.len());
}

#[test]
fn a_termination_log_that_is_not_there_is_not_made() {
    let log = TerminationLog::new();
    let target = log.0.path().join("dev");
    fs::create_dir(&target).unwrap();
    let bind = format!("bind={}:/dev", target.display());
    pid1().under([bind]).worker(["exit=4"]).run().assert_code(4);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn a_termination_log_that_cannot_be_written_changes_nothing() {
    // A directory in its place, and nothing but a full disk.
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("termination-log")).unwrap();
    let bind = format!("bind={}:/dev", directory.path().display());
    pid1().under([bind]).worker(["exit=4"]).run().assert_code(4);
    let dev = tempfile::tempdir().unwrap();
    fs::write(dev.path().join("termination-log"), "").unwrap();
    let hide = format!("bind={}:/dev", dev.path().display());
    pid1().under(["read-only-root", &hide]).worker(["exit=4"]).run().assert_code(4);
}

#[test]
fn a_pool_with_nothing_to_do_exits_at_once() {
    let mut pool = pool().options(["--restart", "never"]).worker(["exit=0"]).start();
    let (exit, took) = common::timed(|| pool.wait());
    assert_eq!(exit, Exit::Code(0));
    assert!(took < common::DEADLINE / 4, "{took:?}");
}

#[test]
fn what_was_put_into_the_container_and_goes_at_once_is_not_waited_for() {
    // As `kubectl exec` and exec probes do: its parent is outside, so nobody tells drainit of its death.
    let mut pool =
        pool().options(["--orphan-grace", "8s", "--grace", "60s"]).worker(["say=here", "poll=3"]).start();
    pool.expect("here");
    pool.status();
    let mut guest = Companion::start(pool.inside().arg(common::fixture()).args(["say=in", "pause"]));
    let mut line = [0; 3];
    std::io::Read::read_exact(guest.stdout.as_mut().unwrap(), &mut line).unwrap();
    let (exit, took) = common::timed(|| {
        pool.signal(libc::SIGTERM);
        let end = guest.wait().unwrap();
        assert_eq!(Exit::from(end), Exit::Signal(libc::SIGTERM));
        pool.wait()
    });
    assert_eq!(exit, Exit::Code(0));
    assert!(took < std::time::Duration::from_secs(4), "{took:?}");
}
