//! Node's IPC channel: workers written for PM2 or for a cluster master of their own run and drain as they are.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::pool::{Pool, PoolLaunch, Port, code, pool, python, text, unique_name};
use common::{Exit, Process, Stage, cannot_run, holds_for, http, nested, pid1, until};
use load::Load;

/// The interpreter itself: what is in PATH may be a script that looks for it.
fn node() -> Option<OsString> {
    let output = Command::new("node").args(["-p", "process.execPath"]).output().ok()?;
    output.status.success().then(|| text(&output.stdout).trim().into())
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/node_ipc").join(name)
}

/// `worker.js` with these steps; says why there is none.
fn worker<S: AsRef<str>>(launch: PoolLaunch, steps: impl IntoIterator<Item = S>) -> Option<PoolLaunch> {
    let Some(node) = node() else {
        cannot_run("needs node");
        return None;
    };
    let steps = steps.into_iter().map(|step| step.as_ref().into());
    Some(launch.command([node, script("worker.js").into()].into_iter().chain(steps)))
}

fn rude(launch: PoolLaunch, arguments: &[&str]) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("needs python3");
        return None;
    };
    let arguments = arguments.iter().map(OsString::from);
    let command = [python, script("rude.py").into()].into_iter().chain(arguments);
    Some(launch.options(["--node-ipc", "on", "--ready-when", "notify"]).command(command))
}

/// A file that something waits for.
struct Gate(tempfile::TempDir);

impl Gate {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> String {
        self.0.path().join("go").display().to_string()
    }

    fn open(&self) {
        std::fs::write(self.path(), "").unwrap();
    }
}

/// No wait of a passing test depends on it.
const GRACE: [&str; 2] = ["--grace", "60s"];

/// Far below what is left of [`GRACE`].
const AT_ONCE: Duration = Duration::from_secs(15);

#[track_caller]
fn assert_ready_by_message(json: &str) {
    let gate = Gate::new();
    let steps =
        ["serve".to_owned(), "say=up".into(), format!("await={}", gate.path()), format!("send={json}")];
    let Some(launch) = worker(pool().options(["--ready-when", "notify"]), steps) else { return };
    let pool = launch.start();
    pool.expect("up");
    holds_for(Duration::from_millis(300), "unready: it has not said so", || pool.readyz() == 503);
    gate.open();
    until(format_args!("ready\n{}", *pool), || (pool.readyz() == 200).then_some(()));
}

#[test]
fn ready_as_pm2_has_it() {
    assert_ready_by_message(r#""ready""#);
}

#[test]
fn ready_as_hand_made_masters_have_it() {
    assert_ready_by_message(r#"{"type":"ready","pid":1}"#);
}

#[test]
fn ready_counts_whatever_else_is_asked_for() {
    let Some(launch) = worker(pool(), [r#"send="ready""#, "message"]) else { return };
    launch.start().wait_ready(1);
}

/// A worker that takes the message ends by it, and no signal reaches it.
#[track_caller]
fn assert_stops_by(message: &str, step: &str, says: &str) {
    let options = ["--workers", "2", "--stop-message", message];
    let Some(launch) = worker(pool().options(GRACE).options(options), ["serve", step, "term"]) else {
        return;
    };
    let mut pool = launch.start();
    pool.wait_ready(2);
    pool.signal(libc::SIGTERM);
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout, [says, says], "{outcome:?}");
}

#[test]
fn a_string_asks_it_to_finish_as_pm2_does() {
    assert_stops_by(r#""shutdown""#, "message", r#"message "shutdown""#);
}

#[test]
fn an_object_asks_it_to_finish_as_hand_made_masters_do() {
    assert_stops_by(r#"{"type":"shutdown"}"#, "message", r#"message {"type":"shutdown"}"#);
    assert_stops_by(r#"{"type":"SHUTDOWN"}"#, "message", r#"message {"type":"SHUTDOWN"}"#);
}

#[test]
fn the_end_of_the_channel_asks_it_to_finish_as_cluster_does() {
    assert_stops_by("disconnect", "disconnect", "disconnect");
}

#[test]
fn the_signal_follows_where_nobody_listens() {
    let options = ["--stop-message", r#""shutdown""#, "--stop-message-wait", "400ms"];
    let Some(launch) = worker(pool().options(GRACE).options(options), ["serve", "term"]) else { return };
    let mut pool = launch.start();
    pool.wait_ready(1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.expect("TERM");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(outcome.stderr.contains("has not ended by its stop message"), "{outcome:?}");
}

#[test]
fn by_default_the_signal_comes_a_moment_before_kill_would() {
    let options = ["--grace", "3s", "--stop-message", r#""shutdown""#];
    let Some(launch) = worker(pool().options(options), ["serve", "term"]) else { return };
    let mut pool = launch.start();
    pool.wait_ready(1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.expect("TERM");
    // Of the 2 s without the margin a quarter is the signal's.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    pool.outcome().assert_code(0);
}

#[test]
fn a_second_term_ends_the_wait() {
    let options = ["--stop-message", r#""shutdown""#];
    let Some(launch) = worker(pool().options(GRACE).options(options), ["serve", "term"]) else { return };
    let mut pool = launch.start();
    pool.wait_ready(1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    holds_for(Duration::from_millis(200), "no signal yet", || !pool.has("TERM"));
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0).assert_says("TERM");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn the_end_of_drainit_itself_is_the_end_of_the_channel() {
    let Some(launch) = worker(PoolLaunch::of(nested()).listening(), ["serve", "disconnect"]) else { return };
    let pool = launch.start();
    pool.wait_ready(1);
    pool.init().signal(libc::SIGKILL);
    pool.expect("disconnect");
}

/// Whom no message reaches gets the signal at once, and the log says why.
#[track_caller]
fn assert_signalled_at_once(mut pool: Pool, why: &str) {
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    let outcome = pool.outcome();
    assert!(began.elapsed() < AT_ONCE, "{:?}\n{outcome:?}", began.elapsed());
    outcome.assert_code(0);
    assert!(outcome.stderr.contains(why), "{outcome:?}");
}

/// Behind the one socket.
fn holds_channel(worker: Process) -> bool {
    let is_socket = |path: &std::path::Path| path.to_string_lossy().starts_with("socket:");
    worker.descriptors().iter().any(|(number, path)| *number == 4 && is_socket(path))
}

#[test]
fn a_channel_that_the_worker_has_closed_costs_no_time() {
    for message in [r#""shutdown""#, "disconnect"] {
        let launch = pool().options(GRACE).options(["--stop-message", message]);
        let Some(launch) = worker(launch, ["serve", "term", "hangup", "say=alone"]) else { return };
        let pool = launch.start();
        pool.wait_ready(1);
        pool.expect("alone");
        // Node closes it when it comes round to it.
        let worker = pool.member(0).process;
        until("the channel is closed", || (!holds_channel(worker)).then_some(()));
        assert_signalled_at_once(pool, "it has closed its IPC channel");
    }
}

#[test]
fn a_channel_that_is_full_costs_no_time() {
    let launch = pool().options(GRACE).options(["--stop-message", r#""shutdown""#]);
    let Some(launch) = rude(launch, &["deaf"]) else { return };
    let pool = launch.start();
    pool.wait_ready(1);
    // Answers that found no room before it are its own affair.
    assert_signalled_at_once(pool, "it does not read its IPC channel");
}

#[test]
fn a_worker_that_stands_still_is_killed_at_its_deadline() {
    let options = ["--grace", "3s", "--stop-message", r#""shutdown""#];
    let Some(launch) = worker(pool().options(options), ["serve", "message"]) else { return };
    let mut pool = launch.start();
    pool.member(0).process.signal(libc::SIGSTOP);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(124);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn rubbish_is_passed_over() {
    let gate = Gate::new();
    let Some(launch) = rude(pool(), &["rubbish", &gate.path()]) else { return };
    let pool = launch.start();
    pool.expect("rubbish sent");
    holds_for(Duration::from_millis(300), "unready", || pool.readyz() == 503);
    gate.open();
    until(format_args!("ready\n{}", *pool), || (pool.readyz() == 200).then_some(()));
}

fn resident_kib(process: Process) -> u64 {
    process.status("VmRSS").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// It takes its time from drainit; drainit answers probes, keeps its size and ends in time.
#[track_caller]
fn assert_bears(what: &str) {
    let Some(launch) = rude(pool().options(["--grace", "3s"]), &[what]) else { return };
    let mut pool = launch.start();
    pool.expect("flooding");
    assert_eq!(pool.get("/livez").status, 200);
    let before = resident_kib(pool.init());
    let cpu = |process: Process| process.stat(14) + process.stat(15);
    let init = pool.init();
    let used = cpu(init);
    until("it has read for a while", || (cpu(init) > used + 20).then_some(()));
    for _ in 0..20 {
        assert_eq!(pool.get("/livez").status, 200);
    }
    let after = resident_kib(init);
    assert!(after < before + 2048, "{before} KiB, then {after}");
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0);
}

#[test]
fn a_line_without_an_end_is_borne() {
    assert_bears("endless");
}

#[test]
fn messages_without_an_end_are_borne() {
    assert_bears("chatter");
}

#[test]
fn sockets_that_are_sent_along_are_closed_and_nobody_waits_for_them() {
    let gate = Gate::new();
    let steps = ["serve", "message", "say=up", &format!("await={}", gate.path())].map(str::to_owned);
    let steps =
        steps.into_iter().chain(["handles", "handles", "handles", r#"send="ready""#].map(str::to_owned));
    let launch = pool().options(GRACE).options(["--ready-when", "notify", "--stop-message", r#""shutdown""#]);
    let Some(launch) = worker(launch, steps) else { return };
    let mut pool = launch.start();
    pool.expect("up");
    assert_eq!(pool.readyz(), 503);
    let before = pool.init().descriptors().len();
    gate.open();
    pool.wait_ready(1);
    assert!(pool.has("all closed"), "{}", *pool);
    let after = pool.init().descriptors().len();
    // A connection of this test's own may be open at either moment.
    assert!(after <= before + 1, "{before}, then {after}");
    pool.logged("sent a socket over its IPC channel");
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0);
}

#[test]
fn the_primary_of_a_cluster_is_a_worker_like_any_other() {
    let Some(node) = node() else { return cannot_run("needs node") };
    let port = Port::reserve();
    let own_port = format!("env=OWN_PORT={}", port.number);
    let mut pool = pool()
        .options(GRACE)
        .options(["--ready-when", "notify", "--stop-message", r#""shutdown""#])
        .under([own_port])
        .command([node, script("primary.js").into()])
        .start();
    pool.wait_ready(1);
    assert_eq!(http::get(port.local(), "/").expect("an answer").status, 200);
    pool.signal(libc::SIGTERM);
    let outcome = pool.outcome();
    outcome.assert_code(0).assert_says("from above: shutdown").assert_says("from below: ready");
    outcome.assert_says("below exited with 0");
}

#[test]
fn behind_a_shell_it_works_where_it_is_asked_for() {
    let Some(node) = node() else { return cannot_run("needs node") };
    let mut pool = pool()
        .options(GRACE)
        .options(["--node-ipc", "on", "--ready-when", "notify", "--stop-message", r#""shutdown""#])
        .command(
            ["sh".into(), "-c".into(), r#""$0" "$@"; exit $?"#.into(), node, script("worker.js").into()]
                .into_iter()
                .chain(["serve", "message", r#"send="ready""#].map(OsString::from)),
        )
        .start();
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0).assert_says(r#"message "shutdown""#);
}

#[test]
fn a_script_that_comes_to_its_end_ends() {
    let Some(node) = node() else { return cannot_run("needs node") };
    let mut pool = pool()
        .options(["--restart", "never"])
        .command([node, "-e".into(), "process.exitCode = process.connected ? 0 : 9".into()])
        .start();
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_server_that_has_closed_ends_by_itself() {
    let steps = ["serve", r#"send="ready""#, "close"];
    let Some(launch) = worker(pool().options(GRACE), steps) else { return };
    let mut pool = launch.start();
    pool.wait_ready(1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.outcome().assert_code(0);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

/// The fixture under another name, which waits on its first socket, or on standard input.
fn named(stage: &Stage, name: &str) -> OsString {
    stage.copy(&common::fixture(), name).into()
}

#[test]
fn the_channel_comes_after_the_sockets_and_is_named_in_the_environment() {
    let stage = Stage::new();
    let name = unique_name();
    let pool = pool()
        .options(["--listen", &format!("unix:{name}")])
        .under(["env=NODE_UNIQUE_ID=7", "env=NODE_CHANNEL_FD=99"])
        .command([named(&stage, "node"), "poll=3".into()])
        .start();
    pool.wait_ready(1);
    let worker = pool.member(0).process;
    assert_eq!(worker.variable("LISTEN_FDS").as_deref(), Some("2"));
    assert_eq!(worker.variable("NODE_CHANNEL_FD").as_deref(), Some("5"));
    assert_eq!(worker.variable("NODE_CHANNEL_SERIALIZATION_MODE").as_deref(), Some("json"));
    assert_eq!(worker.variable("NODE_UNIQUE_ID"), None);
    assert_eq!(numbers(worker), [0, 1, 2, 3, 4, 5]);
}

fn numbers(process: Process) -> Vec<i32> {
    process.descriptors().into_iter().map(|(number, _)| number).collect()
}

#[track_caller]
fn assert_channel(options: &[&str], program: OsString, expected: bool) {
    let about = format!("{options:?} {}", program.display());
    let pool = pool().options(options).command([program, "poll=3".into()]).start();
    pool.wait_ready(1);
    let worker = pool.member(0).process;
    assert_eq!(worker.variable("NODE_CHANNEL_FD").is_some(), expected, "{about}");
    assert_eq!(numbers(worker).len(), if expected { 5 } else { 4 }, "{about}");
}

#[test]
fn node_and_scripts_for_it_get_a_channel() {
    let stage = Stage::new();
    assert_channel(&[], named(&stage, "nodejs"), true);
    assert_channel(&["--node-ipc", "off"], named(&stage, "node"), false);
    assert_channel(&[], common::fixture().into(), false);
    assert_channel(&["--node-ipc", "on"], common::fixture().into(), true);
    // `node` there is the fixture, which does not get beyond its first step.
    let script = format!("#!{} pause\n", stage.path().join("node").display());
    let server = stage.script("server", &script, 0o755);
    let npm = stage.script("npm", &script, 0o755);
    let variable = |program: PathBuf| {
        let pool =
            pool().options(["--ready-when", "started", "--max-crashes", "off"]).command([program]).start();
        let worker = until("a worker", || {
            let worker = pool.init().children().into_iter().next()?;
            worker.variable("DRAINIT_SLOT").map(|_| worker.variable("NODE_CHANNEL_FD"))
        });
        worker.is_some()
    };
    assert!(variable(server));
    assert!(!variable(npm));
}

#[test]
fn an_init_gives_no_channel_unless_it_is_asked_to() {
    let stage = Stage::new();
    let node = named(&stage, "node");
    let started = |options: &[&str]| {
        let running = pid1()
            .options(options)
            .under(["clear-env", "env=A=1", "env=NODE_CHANNEL_FD=9"])
            .command([node.clone(), "say=here".into(), "pause".into()])
            .start();
        running.expect("here");
        let worker = running.worker();
        (numbers(worker), worker.environment().iter().map(|entry| text(entry)).collect::<Vec<_>>())
    };
    assert_eq!(started(&[]), (vec![0, 1, 2], vec!["A=1".to_owned(), "NODE_CHANNEL_FD=9".to_owned()]));
    let (numbers, environment) = started(&["--node-ipc", "on"]);
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(environment, ["A=1", "NODE_CHANNEL_FD=3", "NODE_CHANNEL_SERIALIZATION_MODE=json"]);
}

#[test]
fn an_inits_worker_is_asked_by_message_where_it_has_a_channel() {
    let Some(node) = node() else { return cannot_run("needs node") };
    let command = [node, script("worker.js").into(), "message".into(), "say=here".into()];
    let mut init = pid1()
        .options(["--node-ipc", "on", "--stop-message", r#""shutdown""#])
        .options(GRACE)
        .command(command)
        .start();
    init.expect("here");
    init.signal(libc::SIGTERM);
    init.outcome().assert_code(0).assert_says(r#"message "shutdown""#);
}

#[test]
fn a_message_that_can_reach_nobody_is_refused_or_told() {
    let message = ["--stop-message", r#""shutdown""#];
    let refused = pid1().options(message).options(["--node-ipc", "off"]).worker(["say=started"]).run();
    refused.assert_code(64);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("--node-ipc"), "{refused:?}");
    // The signal goes at once.
    let pool = pool().options(GRACE).options(message).worker(["poll=3"]).start();
    pool.wait_ready(1);
    assert_signalled_at_once(pool, "reaches nobody");
}

/// Retired by a message while it serves: what it has begun is finished, and the rest goes to the other one.
#[test]
fn none_of_the_requests_is_lost_while_workers_are_retired_by_message() {
    let launch =
        pool().options(GRACE).options(["--workers", "2", "--stop-message", r#"{"type":"shutdown"}"#]);
    let Some(launch) = worker(launch, ["serve", r#"send={"type":"ready"}"#, "message"]) else { return };
    let pool = launch.start();
    pool.wait_ready(2);
    let load = Load::start(pool.address(), "/slow", 8, Duration::ZERO);
    for _ in 0..5 {
        let before = load.answered();
        until("the load goes on", || (load.answered() > before + 50).then_some(()));
        assert_eq!(code(&pool.ask(&["scale", "1"])), 0);
        pool.wait_ready(1);
        assert_eq!(code(&pool.ask(&["scale", "2"])), 0);
        pool.wait_ready(2);
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), *pool);
    let told = pool.lines().iter().filter(|line| line.starts_with("message")).count();
    assert_eq!(told, 5);
}
