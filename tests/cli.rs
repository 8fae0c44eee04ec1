//! The command line: what it takes, and how it says what it does not take.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::process::{Command, Output, Stdio};

use common::pool::{code, pool_without_socket, text, unique_name};
use common::{Exit, Launch, Outcome, Subject, pid1};

const TOO_LONG: &str = match std::str::from_utf8(&[b'x'; 4097]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Each option with values that it does not take.
const BAD: &[(&str, &[&str])] = &[
    ("--workers", &["0", "-1", "1025", "two", "1.5", "", "99999999999999999999"]),
    (
        "--listen",
        &[
            "",
            "http",
            "65536",
            "-1",
            "localhost:80",
            "::1:80",
            "unix:",
            "unix:@",
            "unix:/x/",
            "=80",
            "a:b=80",
        ],
    ),
    ("--node-ipc", &["", "yes", "ON"]),
    ("--restart", &["", "sometimes", "Always"]),
    ("--backoff", &["", "10", "5s..1s", "1s..", "..1s", "-1s..1s", "1s-2s"]),
    ("--min-uptime", &["", "soon", "5", "-1s", "1d"]),
    ("--max-crashes", &["", "5", "5/", "/60s", "x/60s", "5/60", "-1/60s"]),
    (
        "--ready-when",
        &[
            "",
            "ready",
            "tcp",
            "tcp=80",
            "tcp=:0",
            "tcp=:65536",
            "http=/x",
            "http",
            "http=x",
            "http=:x/",
            "exec=",
            "exec='",
            "notify=1",
        ],
    ),
    ("--sockets", &["", "some", "per-worker", "sticky"]),
    ("--wait-for-timeout", &["", "1", "-1s"]),
    ("--end-idle-after", &["", "5", "-1s", "soon"]),
    ("--on-exit-post", &["", "https://127.0.0.1/", "http://sidecar/", "15020"]),
    ("--check", &["", "tcp", "http=/", "http=x", "exec=", "listening", "tcp=:0"]),
    ("--check-every", &["", "soon", "5", "0s"]),
    ("--check-timeout", &["", "soon", "5", "0s"]),
    ("--check-failures", &["", "0", "-1", "x"]),
    ("--ready-timeout", &["", "soon", "5", "-1s"]),
    ("--watchdog", &["", "on", "5", "-1s", "0", "0s"]),
    ("--min-ready", &["", "-1", "101%", "%", "x", "1.5"]),
    ("--grace", &["", "soon", "10", "-1s", "999999h"]),
    ("--margin", &["", "soon", "1", "-1s"]),
    ("--lb-wait", &["", "x", "15s..3s", "3..15", "-3s..1s"]),
    ("--lb-quiet", &["", "soon", "5", "-1s"]),
    ("--lb-checks", &["", "-1", "x", "1.5"]),
    ("--readiness-on-drain", &["", "maybe", "FAIL"]),
    ("--stop-signal", &["", "NOPE", "0", "65", "-1"]),
    ("--stop-message", &["", "shutdown", "{type:'shutdown'}", "\"a\" \"b\"", "Disconnect"]),
    ("--stop-message-wait", &["", "soon", "5", "-1s"]),
    ("--drain-timeout", &["", "soon", "5", "-1s"]),
    ("--late-response", &["", "404", "RESET", "on"]),
    ("--late-body", &[TOO_LONG]),
    ("--late-retry-after", &["", "soon", "5", "-1s"]),
    ("--late-linger", &["", "soon", "5", "-1s"]),
    ("--late-timeout", &["", "soon", "5", "-1s", "0s"]),
    ("--watch", &["", "/a,", ",/a", "/a,,/b"]),
    (
        "--signal",
        &["", "TERM", "TERM=", "TERM=explode", "NOPE=drain", "KILL=ignore", "STOP=drain", "CHLD=forward"],
    ),
    ("--signal-scope", &["", "everybody"]),
    ("--remap-exit", &["", "143", "143=", "=0", "256=0", "0=256", "-1=0", "x=y"]),
    ("--parent-death", &["", "NOPE", "65"]),
    ("--orphan-grace", &["", "soon", "5", "-1s"]),
    ("--admin", &["", "http", "65536", "localhost:80"]),
    ("--control", &["", "@"]),
    ("--log-format", &["", "xml"]),
    ("--log-level", &["", "loud", "3", "INFO", "-1"]),
];

/// One that it does take, and that does no harm; and whether it may be given more than once.
const GOOD: &[(&str, &str)] = &[
    ("--workers", "1"),
    ("--listen", "127.0.0.1:0"),
    ("--node-ipc", "on"),
    ("--restart", "never"),
    ("--backoff", "1ms..2ms"),
    ("--min-uptime", "1h30m"),
    ("--max-crashes", "off"),
    ("--ready-when", "started"),
    ("--sockets", "shared"),
    ("--check", "exec=true"),
    ("--check-every", "1s"),
    ("--check-timeout", "1s"),
    ("--check-failures", "2"),
    ("--ready-timeout", "off"),
    ("--watchdog", "off"),
    ("--min-ready", "50%"),
    ("--wait-for-timeout", "1m"),
    ("--end-idle-after", "off"),
    ("--on-exit-post", "http://127.0.0.1:1/quit"),
    ("--grace", "1.5s"),
    ("--margin", "250ms"),
    ("--lb-wait", "0"),
    ("--lb-quiet", "500ms"),
    ("--lb-checks", "0"),
    ("--readiness-on-drain", "keep"),
    ("--stop-signal", "SIGRTMIN+1"),
    ("--stop-message", "{\"type\":\"shutdown\"}"),
    ("--stop-message-wait", "1.5s"),
    ("--drain-timeout", "2m"),
    ("--late-response", "reset"),
    ("--late-body", "come back"),
    ("--late-retry-after", "off"),
    ("--late-linger", "2s"),
    ("--late-timeout", "1.5s"),
    ("--watch", "/etc/a,etc/b"),
    ("--signal", "USR1=ignore"),
    ("--signal-scope", "group"),
    ("--remap-exit", "143=0"),
    ("--parent-death", "KILL"),
    ("--orphan-grace", "0"),
    ("--admin", "off"),
    ("--control", "off"),
    ("--log-format", "text"),
    ("--log-level", "debug"),
];

fn variable(option: &str) -> String {
    format!("DRAINIT_{}", option.trim_start_matches('-').replace('-', "_").to_uppercase())
}

/// Without the quiet options of the harness, where the test gives those itself.
fn launch(option: &str) -> Launch {
    let quiet = [("--admin", "off"), ("--control", "off")];
    let others = quiet.iter().filter(|(name, _)| *name != option).flat_map(|(name, value)| [*name, *value]);
    // Of a pool, the worker that has been seen would be started again.
    let once = if option == "--listen" { &["--restart", "never"][..] } else { &[] };
    pid1().bare().options(others).options(once)
}

#[track_caller]
fn assert_refused(outcome: &Outcome, option: &str, what: &str) {
    assert_eq!(outcome.exit, Exit::Code(64), "{option} {what}: {outcome:?}");
    assert!(outcome.stdout.is_empty(), "{option} {what}: started: {outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{option} {what}: {outcome:?}");
    assert!(outcome.stderr.contains(option), "{option} {what}: not named: {outcome:?}");
}

#[test]
fn every_bad_value_is_64_and_one_line_that_names_the_flag() {
    for (option, values) in BAD {
        for value in *values {
            let outcome = launch(option).options([option, value]).worker(["say=started"]).run();
            assert_refused(&outcome, option, value);
        }
    }
}

#[test]
fn the_line_says_what_would_be_taken() {
    let taken = [
        ("--grace", "soon", "10s"),
        ("--workers", "0", "1 to"),
        ("--restart", "x", "on-failure"),
        ("--lb-wait", "5s..1s", "MIN..MAX"),
        ("--listen", "localhost:80", "0.0.0.0:8080"),
        ("--signal", "TERM=x", "scale-up"),
        ("--remap-exit", "1", "FROM=TO"),
        ("--readiness-on-drain", "x", "keep"),
        ("--log-format", "x", "json"),
        ("--log-level", "x", "debug"),
        ("--stop-signal", "NOPE", "TERM"),
        ("--stop-message", "shutdown", "disconnect"),
        ("--node-ipc", "x", "auto, on or off"),
    ];
    for (option, value, says) in taken {
        let outcome = pid1().options([option, value]).worker(["say=started"]).run();
        assert!(outcome.stderr.contains(says), "{option}: {outcome:?}");
    }
}

#[test]
fn a_bad_value_in_the_environment_is_refused_too() {
    for (option, values) in BAD {
        // An empty variable is one that is not set, as everywhere.
        let Some(value) = values.iter().find(|value| !value.is_empty()) else { continue };
        let entry = format!("env={}={value}", variable(option));
        let outcome = launch(option).under([entry]).worker(["say=started"]).run();
        assert_refused(&outcome, option, value);
    }
}

#[test]
fn every_option_is_taken_as_a_flag_and_from_the_environment() {
    assert_eq!(GOOD.len(), BAD.len());
    for (option, value) in GOOD {
        let flag = launch(option).options([option, value]).worker(["say=started"]).run();
        assert!(flag.exit == Exit::Code(0) && flag.stdout == ["started"], "{option}: {flag:?}");
        let joined = launch(option).options([format!("{option}={value}")]).worker(["say=started"]).run();
        assert!(joined.exit == Exit::Code(0), "{option}: {joined:?}");
        let entry = format!("env={}={value}", variable(option));
        let environment = launch(option).under([entry]).worker(["say=started"]).run();
        assert!(
            environment.exit == Exit::Code(0) && environment.stdout == ["started"],
            "{option}: {environment:?}"
        );
    }
}

#[test]
fn the_flag_wins_over_the_environment() {
    for (option, value) in GOOD {
        // What stands there cannot be taken, and nobody minds.
        let (_, bad) = BAD.iter().find(|(name, _)| name == option).unwrap();
        let bad = bad.iter().find(|value| !value.is_empty()).copied().unwrap();
        let entry = format!("env={}={bad}", variable(option));
        let outcome = launch(option).under([entry]).options([option, value]).worker(["say=started"]).run();
        assert!(outcome.exit == Exit::Code(0), "{option}: {outcome:?}");
    }
}

#[test]
fn the_flag_wins_with_its_value() {
    let run =
        |under: &str, options: &[&str]| pid1().under([under]).options(options).worker(["exit=5"]).run().exit;
    assert_eq!(run("env=DRAINIT_REMAP_EXIT=5=6", &[]), Exit::Code(6));
    assert_eq!(run("env=DRAINIT_REMAP_EXIT=5=6", &["--remap-exit", "5=7"]), Exit::Code(7));
    assert_eq!(run("env=DRAINIT_REMAP_EXIT=5=6", &["--remap-exit", "1=7"]), Exit::Code(5));
}

#[test]
fn repeatable_options_are_comma_separated_in_the_environment() {
    let run = |step: &str| pid1().under(["env=DRAINIT_REMAP_EXIT=5=6,7=8"]).worker([step]).run().exit;
    assert_eq!([run("exit=5"), run("exit=7")], [Exit::Code(6), Exit::Code(8)]);
    let launch = pool_without_socket();
    let second = common::pool::Port::reserve();
    let entry = format!("env=DRAINIT_LISTEN=web={},unix:{}", launch.port().local(), unique_name());
    let pool = launch.under([entry]).worker(["poll=3"]).start();
    pool.wait_ready(1);
    assert_eq!(pool.member(0).process.variable("LISTEN_FDNAMES").as_deref(), Some("web:unknown"));
    drop(second);
    let init =
        pid1().under(["env=DRAINIT_SIGNAL=USR1=ignore,USR2=TERM"]).worker(common::signal_log("TERM")).start();
    init.expect("ready");
    init.signal(libc::SIGUSR1);
    init.signal(libc::SIGUSR2);
    init.expect("got 15 0");
    assert!(!init.has("got 10 0"));
}

#[test]
fn repeatable_options_can_be_repeated() {
    for (code, shown) in [("exit=5", 6), ("exit=7", 8)] {
        pid1()
            .options(["--remap-exit", "5=6", "--remap-exit", "7=8"])
            .worker([code])
            .run()
            .assert_code(shown);
    }
}

#[test]
fn any_other_option_given_twice_is_refused() {
    let outcome = pid1().options(["--grace", "5s", "--grace", "6s"]).worker(["say=started"]).run();
    assert_refused(&outcome, "--grace", "twice");
}

#[test]
fn a_margin_as_long_as_the_grace_period_is_refused() {
    for (grace, margin) in [("5s", "5s"), ("5s", "6s"), ("1s", "1s"), ("0", "0")] {
        let outcome = pid1().options(["--grace", grace, "--margin", margin]).worker(["say=started"]).run();
        assert_refused(&outcome, "--margin", margin);
        assert!(outcome.stderr.contains("--grace"), "{outcome:?}");
    }
    // The default margin is 1 s.
    let outcome = pid1().options(["--grace", "500ms"]).worker(["say=started"]).run();
    assert_refused(&outcome, "--margin", "default");
}

#[test]
fn two_sockets_of_one_name_are_refused() {
    let outcome = pid1()
        .options(["--listen", "a=127.0.0.1:0", "--listen", "a=127.0.0.2:0"])
        .worker(["say=started"])
        .run();
    assert_refused(&outcome, "--listen", "a twice");
}

#[test]
fn an_unknown_option_is_refused_by_its_name() {
    for option in ["--no-such-option", "--worker", "-x"] {
        let outcome = pid1().options([option]).worker(["say=started"]).run();
        assert_refused(&outcome, option, "");
    }
}

#[test]
fn no_command_is_64_and_one_line() {
    let outcome = pid1().without_separator().command([""; 0]).run();
    outcome.assert_code(64);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[test]
fn a_command_needs_no_separator_and_keeps_its_own_options() {
    let fixture = common::fixture();
    let outcome =
        pid1().without_separator().command([fixture.as_os_str(), "say=-l".as_ref(), "exit=4".as_ref()]).run();
    outcome.assert_code(4).assert_says("-l");
    let outcome = pid1().without_separator().command(["ls", "-l", "--all", "/proc/self"]).run();
    outcome.assert_code(0);
    let outcome = pid1().without_separator().command(["echo", "--grace", "soon", "--", "-x", "--help"]).run();
    outcome.assert_code(0).assert_says("--grace soon -- -x --help");
}

#[test]
fn a_command_that_is_called_like_a_subcommand_runs_behind_the_separator() {
    let stage = common::Stage::new();
    stage.copy(&common::fixture(), "status");
    let path = format!("env=PATH={}", stage.path().display());
    pid1().under(["clear-env", &path]).command(["status", "exit=5"]).run().assert_code(5);
}

fn drainit(words: &[&str]) -> Output {
    Command::new(Subject::from_env().path()).args(words).output().unwrap()
}

#[test]
fn help_and_version_are_0_and_on_stdout() {
    for words in [&["--help"][..], &["-h"], &["--version"], &["-V"], &["scale", "--help"], &["help"]] {
        let output = drainit(words);
        assert_eq!(code(&output), 0, "{words:?}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}: {output:?}");
    }
    assert_eq!(text(&drainit(&["--version"]).stdout).trim(), concat!("drainit ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_names_every_option_its_variable_and_every_subcommand() {
    let help = text(&drainit(&["--help"]).stdout);
    for (option, _) in GOOD {
        assert!(help.contains(option), "{option}");
    }
    for word in ["prestop", "probe", "status", "scale", "install", "DRAINIT_", "124"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn a_broken_stdout_is_no_reason_to_panic() {
    for words in [&["--help"][..], &["--version"], &["scale", "--help"]] {
        for stdout in ["> /dev/full", "| true", ">&-"] {
            let script = format!("\"$@\" {stdout}");
            let output = Command::new("sh")
                .args(["-c", &script, "sh"])
                .arg(Subject::from_env().path())
                .args(words)
                .stdout(Stdio::piped())
                .output()
                .unwrap();
            assert_eq!(code(&output), 0, "{words:?} {stdout}: {output:?}");
            assert!(output.stderr.is_empty(), "{words:?} {stdout}: {output:?}");
        }
    }
}

#[test]
fn a_broken_stderr_is_no_reason_to_panic() {
    for under in [&["close=2"][..], &["full-pipe=2"], &["close=2", "write-to=2:/dev/full"]] {
        pid1().under(under).options(["--grace", "soon"]).worker(["say=started"]).run().assert_code(64);
    }
}

#[test]
fn a_subcommand_refuses_what_it_does_not_know() {
    for words in [
        &["probe"][..],
        &["probe", "x"],
        &["scale"],
        &["scale", "x"],
        &["install"],
        &["status", "--x"],
        &["prestop", "--timeout", "soon"],
        &["status", "extra"],
    ] {
        let output = drainit(words);
        assert_eq!(code(&output), 64, "{words:?}: {output:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{words:?}: {output:?}");
    }
}

#[test]
fn a_unix_socket_can_only_be_shared() {
    for (mode, address) in [("per-worker", "unix:/tmp/app.sock"), ("sticky", "unix:@app")] {
        let options = ["--listen", address, "--sockets", mode, "--admin", "off", "--control", "off"];
        let outcome = pid1().bare().options(options).worker(["say=started"]).run();
        outcome.assert_code(64);
        assert!(
            outcome.stderr.contains(mode) && outcome.stderr.contains("can only be shared"),
            "{outcome:?}"
        );
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_check_that_cannot_be_aimed_is_refused_and_told_what_could_be() {
    let refused = |options: &[&str]| {
        let all = ["--listen", "127.0.0.1:0", "--admin", "off", "--control", "off"];
        let outcome = pid1().bare().options(all).options(options).worker(["say=started"]).run();
        outcome.assert_code(64);
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
        outcome.stderr
    };
    for options in
        [["--ready-when", "http=/x"], ["--ready-when", "tcp"], ["--check", "http=/x"], ["--check", "tcp"]]
    {
        let said = refused(&options);
        assert!(
            said.contains(options[0]) && said.contains("--sockets per-worker") && said.contains("exec"),
            "{said}"
        );
    }
    let said = refused(&["--check", "http=:80/x", "--workers", "2"]);
    assert!(said.contains("--check") && said.contains("one worker"), "{said}");
}

#[test]
fn uvicorn_has_a_queue_for_each_worker_where_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", folder.path().join("socket").display());
    let asked = |address: &str, options: &[&str], worker: &str| {
        let all = ["--restart", "never", "--admin", "off", "--control", "off", "--check", "tcp", "--listen"];
        pid1().bare().options(all).options([address]).options(options).worker([worker]).run()
    };
    // A check without a port asks who has a queue of its own, and nobody else.
    asked("127.0.0.1:0", &[], "say=uvicorn").assert_code(0).assert_says("uvicorn");
    asked("127.0.0.1:0", &[], "say=another").assert_code(64);
    asked("127.0.0.1:0", &["--sockets", "shared"], "say=uvicorn").assert_code(64);
    asked(&unix, &[], "say=uvicorn").assert_code(64);
}
