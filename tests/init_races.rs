//! Signals and deaths at the most awkward moments.

mod common;

use std::time::Duration;

use common::{Exit, Scope, bit, nested, pid1, spin, until};

/// TERM is blocked and pending when the init is executed; the worker inherits the blocked TERM, so that
/// it stays in its queue over exec, whenever it came.
fn pending_term_reaches_the_worker(scope: Scope) {
    for _ in 0..20 {
        let mut init =
            pid1().under(["block=TERM", "raise=TERM"]).scope(scope).worker(["log=TERM", "exit=3"]).start();
        assert_eq!(init.wait(), Exit::Code(3));
    }
}

#[test]
fn a_term_pending_at_entry_reaches_the_worker() {
    pending_term_reaches_the_worker(Scope::Leader);
}

#[test]
fn a_term_pending_at_entry_reaches_the_workers_group() {
    pending_term_reaches_the_worker(Scope::Group);
}

/// Here the worker inherits an empty mask and dies of TERM, or never hears of it.
fn pending_term_ends_the_worker(scope: Scope) {
    for _ in 0..20 {
        let mut init = nested()
            .under(["block=TERM", "raise=TERM"])
            .scope(scope)
            .worker(["unblock=TERM", "pause"])
            .start();
        assert_eq!(init.wait(), Exit::Code(143));
    }
}

#[test]
fn a_term_pending_at_entry_ends_a_worker_that_does_not_catch_it() {
    pending_term_ends_the_worker(Scope::Leader);
}

#[test]
fn a_term_pending_at_entry_ends_a_group_that_does_not_catch_it() {
    pending_term_ends_the_worker(Scope::Group);
}

/// TERM after exec of the init, later by a little each time: before, in and after fork and exec.
fn term_while_starting_reaches_the_worker(scope: Scope) {
    for step in 0..60 {
        let mut init = pid1().under(["block=TERM"]).scope(scope).worker(["log=TERM", "exit=3"]).start();
        let process = init.init();
        spin(Duration::from_micros(step * 25));
        process.signal(libc::SIGTERM);
        assert_eq!(init.wait(), Exit::Code(3), "TERM after {} us", step * 25);
    }
}

#[test]
fn a_term_while_the_worker_is_being_started_reaches_it() {
    term_while_starting_reaches_the_worker(Scope::Leader);
}

#[test]
fn a_term_while_the_worker_is_being_started_reaches_its_group() {
    term_while_starting_reaches_the_worker(Scope::Group);
}

#[test]
fn signals_at_the_moment_of_the_workers_exit_do_no_harm() {
    for step in 0..60 {
        let mut init = pid1().worker(["catch=HUP,USR1", "say=ready", "read", "exit=3"]).start();
        init.expect("ready");
        let process = init.init();
        init.close_stdin();
        spin(Duration::from_micros(step * 10));
        process.signal_if_alive(libc::SIGUSR1);
        process.signal_if_alive(libc::SIGHUP);
        assert_eq!(init.wait(), Exit::Code(3));
    }
}

#[test]
fn the_workers_code_is_kept_when_many_die_with_it() {
    for _ in 0..5 {
        let family = ["times=300", "{", "times=2", "{", "}", "}", "exit=21"];
        pid1().worker(family).run().assert_code(21);
    }
}

#[test]
fn signals_in_a_burst_of_deaths_all_arrive() {
    let dying = ["watch", "{", "times=1000", "{", "}", "}", "say=ready", "log=64", "exit=3"];
    let mut init = pid1().worker(dying).start();
    let process = init.init();
    init.expect("ready");
    for _ in 0..500 {
        until("room in the queue", || process.queue(50, 0).then_some(()));
    }
    process.signal(64);
    assert_eq!(init.wait(), Exit::Code(3));
    assert_eq!(init.lines().iter().filter(|line| line.starts_with("got 50 ")).count(), 500);
}

#[test]
fn sigchld_ignored_at_entry_loses_neither_the_end_nor_the_code() {
    // The kernel would reap by itself, and no code would be left.
    pid1().under(["ignore=CHLD"]).worker(["exit=17"]).run().assert_code(17);
    nested().under(["ignore=CHLD"]).worker(["exit=18"]).run().assert_code(18);
}

#[test]
fn sigchld_ignored_at_entry_does_not_keep_it_from_reaping() {
    let orphans = ["{", "times=50", "{", "}", "}", "say=ready", "read", "exit=17"];
    let mut init = pid1().under(["ignore=CHLD"]).worker(orphans).start();
    init.expect("ready");
    let process = init.init();
    until("one child is left", || (process.children().len() == 1).then_some(()));
    init.close_stdin();
    assert_eq!(init.wait(), Exit::Code(17));
}

#[test]
fn all_signals_blocked_at_entry_are_still_seen() {
    let mut init = pid1().under(["block=all"]).worker(["say=ready", "read", "log=USR1", "exit=8"]).start();
    init.expect("ready");
    // KILL and STOP cannot be blocked; whether those of libc are kept is a test of its own.
    let others = [libc::SIGKILL, libc::SIGSTOP, 32, 33].map(bit).iter().fold(u64::MAX, |set, one| set & !one);
    assert_eq!(init.worker().signals("SigBlk") & others, others);
    init.signal(libc::SIGUSR1);
    init.close_stdin();
    assert_eq!(init.wait(), Exit::Code(8));
}

#[test]
fn a_worker_that_ends_at_once_is_noticed() {
    for _ in 0..100 {
        pid1().worker(["exit=1"]).run().assert_code(1);
    }
}
