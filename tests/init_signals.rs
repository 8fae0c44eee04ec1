//! What is sent to the init reaches the worker: all of it, once, in order.

mod common;

use std::time::Duration;

use common::{
    Exit, Launch, Running, Scope, Stage, bit, cannot_run, fresh_uid, is_root, pid1, signal_log, timed, until,
};

const FAULTS: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
const JOB_CONTROL: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
/// The first real-time signal that libc leaves to programs.
const REALTIME: i32 = 34;

/// Sends one after another, each when the one before has arrived, and asserts that nothing else came.
#[track_caller]
fn assert_forwarded_once_each(init: &Running, signals: impl IntoIterator<Item = i32>) {
    let mut expected = vec!["ready".to_owned()];
    init.expect("ready");
    for signal in signals {
        init.signal(signal);
        let line = format!("got {signal} 0");
        init.expect(&line);
        expected.push(line);
    }
    assert_eq!(init.lines(), expected);
}

fn logged(init: &Running, signal: i32) -> usize {
    let prefix = format!("got {signal} ");
    init.lines().iter().filter(|line| line.starts_with(&prefix)).count()
}

#[test]
fn every_standard_signal_is_forwarded_exactly_once() {
    let apart = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGTERM, libc::SIGINT];
    let rest = (1..=31).filter(|s| !apart.contains(s) && !FAULTS.contains(s) && !JOB_CONTROL.contains(s));
    for scope in [Scope::Leader, Scope::Group] {
        let init = pid1().scope(scope).worker(signal_log("TERM")).start();
        assert_forwarded_once_each(&init, rest.clone().chain([libc::SIGTERM]));
    }
}

#[test]
fn every_realtime_signal_is_forwarded_exactly_once() {
    for scope in [Scope::Leader, Scope::Group] {
        let init = pid1().scope(scope).worker(signal_log("64")).start();
        assert_forwarded_once_each(&init, REALTIME..=64);
    }
}

#[test]
fn realtime_signals_that_libc_keeps_to_itself_are_forwarded() {
    let init = pid1().worker(signal_log("TERM")).start();
    assert_forwarded_once_each(&init, 32..REALTIME);
}

#[test]
fn fault_signals_sent_by_somebody_are_forwarded() {
    let init = pid1().worker(signal_log("TERM")).start();
    assert_forwarded_once_each(&init, FAULTS);
}

#[test]
fn job_control_signals_are_forwarded_to_the_leader() {
    let init = pid1().scope(Scope::Leader).worker(signal_log("TERM")).start();
    assert_forwarded_once_each(&init, JOB_CONTROL);
}

#[test]
fn tstp_stops_a_whole_group_and_cont_resumes_it() {
    // The kernel ignores TSTP's default in an orphaned group, which is what a container's is.
    let init = pid1().scope(Scope::Group).worker(["{", "pause", "}", "say=ready", "pause"]).start();
    init.expect("ready");
    let worker = init.worker();
    let child = until("the worker's child", || worker.children().first().copied());
    let both_are = |state| {
        until(format!("both {state}"), || (worker.state() == state && child.state() == state).then_some(()))
    };
    init.signal(libc::SIGTSTP);
    both_are('T');
    init.signal(libc::SIGCONT);
    both_are('S');
}

#[test]
fn int_reaches_the_worker_as_int() {
    let mut init = pid1().worker(signal_log("INT")).start();
    assert_forwarded_once_each(&init, [libc::SIGINT]);
    assert_eq!(init.wait(), Exit::Code(0));
}

#[test]
fn term_reaches_a_worker_that_only_waits_for_it() {
    // No handler, as with signalfd or sigwait: SigCgt says nothing about such a worker.
    let mut init = pid1().worker(["block=all", "say=ready", "log=TERM", "exit=3"]).start();
    assert_forwarded_once_each(&init, [libc::SIGTERM]);
    assert_eq!(init.wait(), Exit::Code(3));
}

#[test]
fn signals_from_inside_the_container_are_forwarded() {
    let init = pid1().worker(["watch", "say=ready", "signal-init=USR1,40", "log=TERM"]).start();
    init.expect("got 10 0");
    init.expect("got 40 0");
}

#[test]
fn a_storm_of_realtime_signals_arrives_complete() {
    storm(
        |sent| (REALTIME..=64).nth(sent % 31).unwrap_or(REALTIME),
        |init| {
            until("all 10,000 signals", || (init.lines().len() == STORM + 1).then_some(()));
            for (place, signal) in (REALTIME..=64).enumerate() {
                let sent = (0..STORM).filter(|n| n % 31 == place).count();
                assert_eq!(logged(init, signal), sent, "signal {signal}");
            }
        },
    );
}

#[test]
fn a_storm_of_realtime_signals_arrives_in_order_with_its_values() {
    storm(
        |_| REALTIME,
        |init| {
            until("all 10,000 signals", || (init.lines().len() == STORM + 1).then_some(()));
            let expected = (0..STORM).map(|n| format!("got {REALTIME} {n}"));
            assert!(init.lines().into_iter().skip(1).eq(expected), "out of order, or other values");
        },
    );
}

const STORM: usize = 10_000;

fn storm(signal: impl Fn(usize) -> i32, check: impl FnOnce(&Running)) {
    let init = pid1().worker(signal_log("TERM")).start();
    init.expect("ready");
    let process = init.init();
    for sent in 0..STORM {
        until("room in the queue", || process.queue(signal(sent), sent as i32).then_some(()));
    }
    check(&init);
    assert!(process.is_alive());
}

#[test]
fn a_storm_of_standard_signals_kills_nobody() {
    let mut init = pid1().worker(signal_log("USR2")).start();
    init.expect("ready");
    let process = init.init();
    for _ in 0..STORM {
        process.signal(libc::SIGUSR1);
    }
    until("USR1", || (logged(&init, libc::SIGUSR1) > 0).then_some(()));
    process.signal(libc::SIGUSR2);
    assert_eq!(init.wait(), Exit::Code(0));
}

#[test]
fn init_survives_a_worker_that_it_may_not_signal() {
    if !is_root() {
        return cannot_run("needs root to install a setuid worker");
    }
    let stage = Stage::new();
    let worker = stage.copy(&common::fixture(), "setuid");
    std::fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let mut init = pid1()
        .init_at(stage.init())
        .under([format!("uid={}", fresh_uid())])
        .command([worker.to_str().unwrap(), "become-root", "say=ready", "read", "exit=7"])
        .start();
    until("the worker is ready, if setuid works here", || {
        (init.has("ready") || !init.init().is_alive()).then_some(())
    });
    if init.worker().status("Uid").split_whitespace().next() != Some("0") {
        return cannot_run("the temporary directory is mounted nosuid");
    }
    let process = init.init();
    for signal in [libc::SIGUSR1, libc::SIGHUP, 40] {
        process.signal(signal);
        until("the signal is taken from the queue", || {
            (process.signals("ShdPnd") & bit(signal) == 0).then_some(())
        });
    }
    init.close_stdin();
    assert_eq!(init.wait(), Exit::Code(7));
}

#[test]
fn a_signal_can_be_rewritten() {
    let init = pid1().options(["--signal", "TERM=QUIT"]).worker(signal_log("QUIT")).start();
    init.expect("ready");
    init.signal(libc::SIGTERM);
    init.expect("got 3 0");
    assert_eq!(logged(&init, libc::SIGTERM), 0);
}

#[test]
fn a_signal_can_be_rewritten_by_any_of_its_names() {
    for spelling in ["USR1=HUP", "SIGUSR1=SIGHUP", "10=1"] {
        let init = pid1().options(["--signal", spelling]).worker(signal_log("HUP")).start();
        init.expect("ready");
        init.signal(libc::SIGUSR1);
        init.expect("got 1 0");
    }
}

#[test]
fn a_realtime_signal_can_be_rewritten() {
    // systemd's way to stop a container.
    for spelling in ["37=TERM", "RTMIN+3=TERM", "SIGRTMIN+3=SIGTERM"] {
        let init = pid1().options(["--signal", spelling]).worker(signal_log("TERM")).start();
        init.expect("ready");
        init.signal(37);
        init.expect("got 15 0");
        assert_eq!(logged(&init, 37), 0);
    }
}

#[test]
fn a_signal_can_be_ignored() {
    let init = pid1().options(["--signal", "USR1=ignore"]).worker(signal_log("USR2")).start();
    init.expect("ready");
    let process = init.init();
    process.signal(libc::SIGUSR1);
    until("USR1 is taken from the queue", || {
        (process.signals("ShdPnd") & bit(libc::SIGUSR1) == 0).then_some(())
    });
    process.signal(libc::SIGUSR2);
    init.expect("got 12 0");
    assert_eq!(logged(&init, libc::SIGUSR1), 0);
}

#[test]
fn scope_group_reaches_the_workers_children_and_scope_leader_does_not() {
    for (scope, expected) in [(Scope::Group, 2), (Scope::Leader, 1)] {
        let family = ["watch", "{", "say=child", "log=TERM", "}", "say=ready", "log=TERM"];
        let init = pid1().scope(scope).worker(family).start();
        init.expect("ready");
        init.expect("child");
        init.signal(libc::SIGUSR1);
        until("USR1", || (logged(&init, libc::SIGUSR1) == expected).then_some(()));
        // What follows arrives after it: nobody else got the first.
        init.signal(libc::SIGUSR2);
        until("USR2", || (logged(&init, libc::SIGUSR2) == expected).then_some(()));
        assert_eq!(logged(&init, libc::SIGUSR1), expected);
    }
}

#[test]
fn a_leader_that_moved_to_another_group_is_still_reached() {
    let moves_away = ["{", "pause", "}", "join-group-of-child", "watch", "say=ready", "log=TERM", "exit=5"];
    let mut init = pid1().scope(Scope::Group).worker(moves_away).start();
    init.expect("ready");
    init.signal(libc::SIGUSR1);
    init.expect("got 10 0");
    init.signal(libc::SIGTERM);
    assert_eq!(init.wait(), Exit::Code(5));
}

#[test]
fn the_stop_signal_stands_for_term() {
    let init = pid1().options(["--stop-signal", "QUIT"]).worker(signal_log("QUIT")).start();
    init.expect("ready");
    init.signal(libc::SIGTERM);
    init.expect("got 3 0");
    assert_eq!(logged(&init, libc::SIGTERM), 0);
}

#[test]
fn term_again_while_draining_is_passed_on_again() {
    let mut init =
        pid1().worker(["watch", "say=ready", "log=TERM", "say=again", "log=TERM", "exit=9"]).start();
    init.expect("ready");
    init.signal(libc::SIGTERM);
    init.expect("again");
    init.signal(libc::SIGTERM);
    assert_eq!(init.wait(), Exit::Code(9));
}

#[test]
fn a_worker_that_will_not_stop_is_killed_before_the_grace_is_over_with_124() {
    let ignores = ["ignore=TERM", "say=ready", "pause"].as_slice();
    let stopped = ["ignore=TERM", "say=ready", "raise=STOP", "pause"].as_slice();
    for stubborn in [ignores, stopped] {
        let mut init = pid1().options(["--grace", "3s", "--margin", "1s"]).worker(stubborn).start();
        init.expect("ready");
        let (worker, process) = (init.worker(), init.init());
        until("it pauses or is stopped", || matches!(worker.state(), 'S' | 'T').then_some(()));
        process.signal(libc::SIGTERM);
        let (exit, took) = timed(|| init.wait());
        assert_eq!(exit, Exit::Code(124));
        assert!(took >= Duration::from_millis(1900), "it had 2 s, and got {took:?}");
    }
}

#[test]
fn a_stopped_worker_has_not_ended() {
    let mut init = pid1().worker(["say=ready", "raise=STOP", "exit=4"]).start();
    let worker = init.worker();
    until("the worker is stopped", || (worker.state() == 'T').then_some(()));
    let process = init.init();
    process.signal(libc::SIGCONT);
    assert_eq!(init.wait(), Exit::Code(4));
}

#[test]
fn the_parents_death_is_a_signal() {
    let init = Launch::new(&["pidns", "adopt", "nest"])
        .options(["--parent-death", "TERM"])
        .worker(signal_log("TERM"))
        .start();
    init.expect("ready");
    init.parent_of_init().signal(libc::SIGKILL);
    init.expect("got 15 0");
}
