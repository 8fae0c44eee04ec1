//! What the container's exit code says.

mod common;

use common::{Exit, Stage, Subject, cannot_run, fresh_uid, is_root, pid1};

#[test]
fn every_exit_code_of_the_worker_is_kept() {
    for code in 0..=255 {
        pid1().worker([format!("exit={code}")]).run().assert_code(code);
    }
}

#[test]
fn death_by_a_signal_is_128_plus_its_number() {
    // By default, these four stop a process and these four do nothing.
    let stop = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let nothing = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    for signal in (1..=64).filter(|s| !stop.contains(s) && !nothing.contains(s)) {
        pid1().worker([format!("die={signal}")]).run().assert_code(128 + signal);
    }
}

#[test]
fn exit_code_is_kept_where_init_is_not_pid_1() {
    for (step, code) in [("exit=0", 0), ("exit=42", 42), ("die=KILL", 137)] {
        common::nested().worker([step]).run().assert_code(code);
    }
}

#[test]
fn term_to_a_worker_that_does_not_catch_it_is_143() {
    let mut init = pid1().worker(["say=ready", "pause"]).start();
    init.expect("ready");
    init.signal(libc::SIGTERM);
    assert_eq!(init.wait(), Exit::Code(143));
}

#[test]
fn exit_code_can_be_remapped() {
    let run = |step: &str| pid1().options(["--remap-exit", "143=0"]).worker([step]).run();
    run("exit=143").assert_code(0);
    run("die=TERM").assert_code(0);
    run("exit=142").assert_code(142);
}

#[test]
fn a_command_that_does_not_exist_is_127_and_named() {
    for command in ["no-such-command", "/nowhere/no-such-command"] {
        let outcome = pid1().command([command]).run();
        outcome.assert_code(127);
        assert!(outcome.stderr.contains("no-such-command"), "{outcome:?}");
    }
}

#[test]
fn a_command_whose_interpreter_does_not_exist_is_127() {
    let stage = Stage::new();
    let script = stage.script("script", "#!/nowhere/interpreter\n", 0o755);
    pid1().command([script]).run().assert_code(127);
}

#[test]
fn a_command_that_is_not_executable_is_126_and_named() {
    let stage = Stage::new();
    let file = stage.script("not-executable", "", 0o644);
    let outcome = pid1().command([file]).run();
    outcome.assert_code(126);
    assert!(outcome.stderr.contains("not-executable"), "{outcome:?}");
}

#[test]
fn every_other_failure_to_execute_is_126_and_named() {
    let stage = Stage::new();
    let plain = stage.script("plain", "", 0o644);
    let circle = stage.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    let broken = stage.script("broken", "\u{7f}ELF, or so it says", 0o755);
    let long = format!("/{}", "x".repeat(300));
    let directory = stage.path().to_owned();
    for command in [plain.join("below-a-file"), circle, broken, long.into(), directory] {
        let outcome = pid1().command([&command]).run();
        outcome.assert_code(126);
        let name = command.file_name().unwrap().to_str().unwrap();
        assert!(outcome.stderr.contains(name), "{outcome:?}");
    }
}

#[test]
fn a_command_is_looked_up_in_path_past_what_cannot_be_executed() {
    let (first, second) = (Stage::new(), Stage::new());
    first.script("the-command", "", 0o644);
    second.copy(&common::fixture(), "the-command");
    let path = format!("env=PATH={}:{}", first.path().display(), second.path().display());
    pid1().under(["clear-env", &path]).command(["the-command", "exit=5"]).run().assert_code(5);
}

#[test]
fn without_path_the_usual_places_are_searched() {
    pid1().under(["clear-env"]).command(["sh", "-c", "exit 6"]).run().assert_code(6);
}

#[test]
fn an_init_that_may_not_fork_is_71() {
    if !is_root() {
        return cannot_run("needs root to become a user with no other process");
    }
    let stage = Stage::new();
    let uid = format!("uid={}", fresh_uid());
    let outcome = pid1()
        .init_at(stage.init())
        .under(["limit=NPROC:1", &uid])
        .fixture_at(stage.fixture())
        .worker(["say=started"])
        .run();
    assert!(!outcome.stdout.contains(&"started".into()), "{outcome:?}");
    let expected = if Subject::from_env().is_drainit() { 71 } else { 1 };
    outcome.assert_code(expected);
}

#[test]
fn a_bad_option_is_64_and_one_line_that_names_it() {
    for (flag, value) in [
        ("--grace", "soon"),
        ("--workers", "-1"),
        ("--signal", "TERM=explode"),
        ("--signal-scope", "everybody"),
        ("--remap-exit", "143"),
        ("--no-such-option", "x"),
    ] {
        let outcome = pid1().options([flag, value]).worker(["say=started"]).run();
        outcome.assert_code(64);
        assert!(outcome.stdout.is_empty(), "nothing may have been started: {outcome:?}");
        assert!(outcome.stderr.contains(flag), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn no_command_is_64() {
    pid1().command([""; 0]).run().assert_code(64);
}
