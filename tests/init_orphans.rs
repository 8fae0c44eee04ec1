//! Whose parent has died, and what becomes of them when the worker ends.

mod common;

use common::{DEADLINE, Exit, Launch, Running, nested, pid1, until};

/// A grandchild in a session of its own that logs its TERM, slowly enough to be cut short.
const ESCAPEE: [&str; 9] =
    ["{", "setsid", "watch", "say=escaped", "log=TERM", "linger", "say=finished", "exit=0", "}"];

fn nested_subreaper() -> Launch {
    nested().subreaper()
}

#[track_caller]
fn wait_until_only_the_worker_is_left(init: &Running) {
    let process = init.init();
    until(format!("one child, no zombie\n{init}"), || (process.children().len() == 1).then_some(()));
}

#[test]
fn a_burst_of_5000_orphans_leaves_no_zombie() {
    let init = pid1().worker(["{", "times=5000", "{", "}", "}", "wait", "say=ready", "pause"]).start();
    init.expect("ready");
    wait_until_only_the_worker_is_left(&init);
}

#[test]
fn orphans_are_reaped_one_after_another() {
    let init = pid1().worker(["times=500", "{", "{", "}", "}", "wait", "say=ready", "pause"]).start();
    init.expect("ready");
    wait_until_only_the_worker_is_left(&init);
}

#[test]
fn orphans_are_adopted_and_reaped_where_init_is_not_pid_1() {
    let script = ["{", "{", "setsid", "say=orphan", "read", "}", "}", "wait", "say=ready", "pause"];
    let mut init = nested_subreaper().worker(script).start();
    init.expect("orphan");
    init.expect("ready");
    let process = init.init();
    until("the orphan is a child of init", || (process.children().len() == 2).then_some(()));
    init.close_stdin();
    wait_until_only_the_worker_is_left(&init);
}

#[test]
fn zombies_inherited_over_exec_are_reaped() {
    // Their SIGCHLD is long past.
    let init = pid1().under(["{", "}", "zombie", "{", "}", "zombie"]).worker(["say=ready", "pause"]).start();
    init.expect("ready");
    wait_until_only_the_worker_is_left(&init);
}

#[test]
fn the_rest_of_the_group_gets_term_and_may_finish() {
    for launch in [pid1(), nested_subreaper()] {
        let group =
            ["{", "watch", "say=sibling", "log=TERM", "linger", "say=finished", "}", "read", "exit=6"];
        let mut init = launch.options(PATIENCE).worker(group).start();
        init.expect("sibling");
        init.close_stdin();
        let outcome = init.outcome();
        outcome.assert_code(6).assert_says("got 15 0").assert_says("finished").assert_nothing_left();
    }
}

/// Generous: it ends when they do.
const PATIENCE: [&str; 4] = ["--orphan-grace", "15s", "--grace", "1h"];

fn end_with_escapee(launch: Launch) -> common::Outcome {
    let family = ESCAPEE.iter().chain(&["read", "exit=6"]);
    let mut init = launch.worker(family).start();
    init.expect("escaped");
    init.close_stdin();
    init.outcome()
}

#[test]
fn an_escapee_from_the_session_gets_term_and_may_finish() {
    let outcome = end_with_escapee(pid1().options(PATIENCE));
    outcome.assert_code(6).assert_says("got 15 0").assert_says("finished");
}

#[test]
fn an_escapee_gets_term_and_may_finish_where_init_is_not_pid_1() {
    let outcome = end_with_escapee(nested_subreaper().options(PATIENCE));
    outcome.assert_code(6).assert_says("got 15 0").assert_says("finished").assert_nothing_left();
}

#[test]
fn an_orphan_grace_of_zero_kills_at_once() {
    for launch in [pid1(), nested_subreaper()] {
        let outcome = end_with_escapee(launch.options(["--orphan-grace", "0"]));
        outcome.assert_code(6).assert_nothing_left();
        assert!(!outcome.stdout.contains(&"finished".into()), "{outcome:?}");
    }
}

#[test]
fn who_ignores_term_is_killed_after_the_orphan_grace_and_the_code_is_kept() {
    for obstacle in ["ignore=TERM", "raise=STOP", "block=all"] {
        let family = ["{", "setsid", "say=escaped", obstacle, "pause", "}", "read", "exit=6"];
        let mut init = nested_subreaper().worker(family).start();
        init.expect("escaped");
        init.close_stdin();
        init.outcome().assert_code(6).assert_nothing_left();
    }
}

#[test]
fn a_whole_tree_of_escapees_is_ended() {
    let tree = [
        "times=5",
        "{",
        "setsid",
        "times=5",
        "{",
        "setsid",
        "ignore=TERM",
        "{",
        "setsid",
        "pause",
        "}",
        "pause",
        "}",
        "say=up",
        "pause",
        "}",
        "read",
        "exit=6",
    ];
    let mut init = nested_subreaper().worker(tree).start();
    until("five times up", || (init.lines().iter().filter(|line| *line == "up").count() == 5).then_some(()));
    init.close_stdin();
    init.outcome().assert_code(6).assert_nothing_left();
}

#[test]
fn the_orphan_grace_ends_early_when_nothing_is_left() {
    let family = ["{", "setsid", "say=escaped", "pause", "}", "read", "exit=6"];
    let endless = format!("{}s", 100 * DEADLINE.as_secs());
    let options = ["--orphan-grace", &endless, "--grace", "1h"];
    for launch in [pid1(), nested_subreaper()] {
        let mut init = launch.options(options).worker(family).start();
        init.expect("escaped");
        init.close_stdin();
        assert_eq!(init.wait(), Exit::Code(6));
    }
}

#[test]
fn what_is_left_after_a_drain_gets_term_too() {
    let family = ESCAPEE.iter().chain(&["watch", "say=ready", "log=TERM", "exit=6"]);
    let mut init = nested_subreaper().options(PATIENCE).worker(family).start();
    init.expect("escaped");
    init.expect("ready");
    init.signal(libc::SIGTERM);
    init.outcome().assert_code(6).assert_says("finished").assert_nothing_left();
}
