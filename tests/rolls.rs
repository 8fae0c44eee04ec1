//! Rolls as people and programs ask for them: what they are told, what the workers see, what is kept.
#![allow(clippy::expect_used, reason = "a test")]

mod common;

use std::process::Output;
use std::time::Duration;

use common::pool::{Companion, Pool, PoolLaunch, code, pool, pool_without_socket, text};
use common::{Exit, fixture, until};
use serde_json::Value;

/// A worker that does what `MODE` in its environment says, and serves where that says nothing.
fn moody() -> PoolLaunch {
    let serve = format!("exec {} poll=3", fixture().display());
    let script = format!(
        r#"case "$MODE" in
        exits) exit 7 ;;
        sleeps) exec sleep 1000 ;;
        dies) {} poll=3 & sleep "${{AFTER:-0.3}}"; exit 9 ;;
        slow) sleep 0.3; {serve} ;;
        *) {serve} ;;
        esac"#,
        fixture().display()
    );
    pool().command(["sh".to_owned(), "-c".to_owned(), script])
}

fn restart(pool: &Pool, words: &[&str]) -> Output {
    pool.ask(&[&["restart", "--wait"], words].concat())
}

#[track_caller]
fn roll(pool: &Pool, words: &[&str]) -> Output {
    let output = restart(pool, words);
    assert_eq!(code(&output), 0, "{output:?}\n{}", **pool);
    output
}

#[track_caller]
fn last_roll(pool: &Pool) -> Value {
    pool.status()["history"]
        .as_array()
        .and_then(|history| history.last().cloned())
        .expect("a roll that is over")
}

/// Once it is there.
#[track_caller]
fn wait_for_rolls(pool: &Pool, count: u64) {
    until(format_args!("{count} rolls that are over\n{}", **pool), || {
        (pool.status()["rolls"]["total"] == count).then_some(())
    });
}

#[track_caller]
fn wait_for_stage(pool: &Pool, stage: &str) {
    until(format_args!("a roll that is {stage}\n{}", **pool), || {
        (pool.status()["roll"]["stage"] == stage).then_some(())
    });
}

fn pids(pool: &Pool) -> Vec<i32> {
    pool.members().iter().map(|member| member.process.0).collect()
}

/// `restart --wait` beside the test.
fn waiting(pool: &Pool, words: &[&str]) -> Companion {
    Companion::start(&mut pool.command(&[&["restart", "--wait"], words].concat()))
}

#[track_caller]
fn ends(companion: &mut Companion) -> i32 {
    let status = until("it returns", || companion.try_wait().expect("wait"));
    status.code().unwrap_or_else(|| panic!("{status}"))
}

#[test]
fn every_worker_is_replaced_and_none_was_missing() {
    let pool = moody().options(["--workers", "3"]).start();
    pool.wait_ready(3);
    let before = pids(&pool);
    let output = roll(&pool, &["--version", "v2"]);
    assert!(text(&output.stdout).contains("rolled to generation 2"), "{output:?}");
    pool.wait_ready(3);
    let after = pool.members();
    assert!(after.iter().all(|member| !before.contains(&member.process.0)), "{after:?}");
    for member in &after {
        let variable = |name: &str| member.process.variable(name);
        assert_eq!(variable("DRAINIT_GENERATION").as_deref(), Some("2"));
        assert_eq!(variable("WORKER_GENERATION").as_deref(), Some("2"));
        assert_eq!(variable("DRAINIT_VERSION").as_deref(), Some("v2"));
        assert_eq!(variable("APP_VERSION").as_deref(), Some("v2"));
    }
    let status = pool.status();
    assert_eq!((&status["generation"], &status["workers"][0]["version"]), (&2.into(), &"v2".into()));
    let last = last_roll(&pool);
    assert_eq!(
        (&last["outcome"], &last["version"], &last["replaced"]),
        (&"rolled".into(), &"v2".into(), &3.into())
    );
    assert_eq!(
        (&last["least_ready"], &last["failures"], &last["reason"]),
        (&3.into(), &0.into(), &Value::Null)
    );
    assert_eq!((&status["rolls"]["total"], &status["rolls"]["failure_rate"]), (&1.into(), &0.0.into()));
}

#[test]
fn hup_and_usr2_roll_a_pool() {
    let pool = moody().options(["--workers", "2"]).start();
    pool.wait_ready(2);
    pool.signal(libc::SIGHUP);
    wait_for_rolls(&pool, 1);
    pool.signal(libc::SIGUSR2);
    wait_for_rolls(&pool, 2);
    assert_eq!(pool.status()["generation"], 3);
    assert_eq!(last_roll(&pool)["trigger"], "SIGUSR2");
}

#[test]
fn any_signal_can_be_made_to_roll() {
    let pool = moody().options(["--signal", "USR1=restart", "--signal", "HUP=ignore"]).start();
    pool.wait_ready(1);
    pool.signal(libc::SIGHUP);
    pool.signal(libc::SIGUSR1);
    wait_for_rolls(&pool, 1);
    assert_eq!(last_roll(&pool)["trigger"], "SIGUSR1");
}

#[test]
fn the_environment_and_the_command_can_change() {
    let pool = moody().options(["--workers", "2"]).start();
    pool.wait_ready(2);
    roll(&pool, &["--env", "COLOR=blue", "--env", "SIZE=a=b"]);
    let variable = |name: &str| pool.member(0).process.variable(name);
    assert_eq!((variable("COLOR").as_deref(), variable("SIZE").as_deref()), (Some("blue"), Some("a=b")));
    roll(&pool, &["--unset-env", "COLOR"]);
    assert_eq!((variable("COLOR"), variable("SIZE").as_deref()), (None, Some("a=b")), "the rest stays");
    let fixture_path = fixture();
    let fixture = fixture_path.display().to_string();
    roll(&pool, &["--", &fixture, "poll=3"]);
    let member = pool.member(1).process;
    assert!(member.runs(&fixture_path), "{:?}", member.arguments());
    assert_eq!(variable("SIZE").as_deref(), Some("a=b"));
}

#[test]
fn a_failed_roll_is_undone_and_says_why() {
    let pool = moody().options(["--workers", "3"]).start();
    pool.wait_ready(3);
    let before = pids(&pool);
    let output = restart(&pool, &["--env", "MODE=exits", "--version", "bad"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("exited with code 7"), "{output:?}");
    pool.wait_ready(3);
    assert_eq!(pids(&pool), before, "nobody was touched");
    let status = pool.status();
    assert_eq!((&status["generation"], &status["workers"][0]["version"]), (&1.into(), &Value::Null));
    let last = last_roll(&pool);
    assert_eq!((&last["outcome"], &last["version"]), (&"rolled-back".into(), &"bad".into()));
    assert!(last["reason"].as_str().is_some_and(|why| why.contains("exited with code 7")), "{last}");
    assert_eq!(pool.readyz(), 200);
    roll(&pool, &["--version", "good"]);
    assert_eq!(pool.status()["generation"], 3, "a number is never used twice");
    assert_eq!(pool.member(0).process.variable("MODE"), None, "what failed is forgotten");
}

#[test]
fn a_late_worker_fails_the_roll() {
    let pool = moody().options(["--workers", "2", "--ready-timeout", "1s"]).start();
    pool.wait_ready(2);
    let output = restart(&pool, &["--env", "MODE=sleeps"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("not ready in time"), "{output:?}");
    pool.wait_ready(2);
}

#[test]
fn a_worker_that_dies_before_it_has_proved_itself_fails_the_roll() {
    let pool = moody().options(["--workers", "2", "--min-ready-time", "2s"]).start();
    pool.wait_ready(2);
    let before = pids(&pool);
    let output = restart(&pool, &["--env", "MODE=dies"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("exited with code 9"), "{output:?}");
    pool.wait_ready(2);
    assert_eq!(pids(&pool), before);
}

#[test]
fn canaries_that_fail_are_replaced_by_what_was_before() {
    let options = ["--workers", "3", "--canary", "1", "--canary-hold", "30s"];
    let pool = moody().options(options).start();
    pool.wait_ready(3);
    let before = pids(&pool);
    let mut caller = waiting(&pool, &["--env", "MODE=dies", "--env", "AFTER=1"]);
    wait_for_stage(&pool, "holding");
    assert_eq!(ends(&mut caller), 1);
    pool.wait_ready(3);
    let after = pids(&pool);
    assert_eq!(after[1..], before[1..], "only the canary's slot has seen anybody else");
    assert_ne!(after[0], before[0]);
    assert_eq!(pool.member(0).process.variable("MODE"), None);
    assert_eq!(last_roll(&pool)["replaced"], 1);
}

#[test]
fn canaries_that_hold_let_the_others_follow() {
    let pool = moody().options(["--workers", "3", "--canary", "1", "--canary-hold", "500ms"]).start();
    pool.wait_ready(3);
    let (_, took) = common::timed(|| roll(&pool, &[]));
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(pool.has_logged("roll holds"));
}

#[test]
fn after_three_failures_the_breaker_refuses_until_one_may_try() {
    let pool = moody().options(["--breaker-reset", "2s"]).start();
    pool.wait_ready(1);
    for _ in 0..3 {
        assert_eq!(code(&restart(&pool, &["--env", "MODE=exits"])), 1);
    }
    let output = restart(&pool, &[]);
    assert_eq!(code(&output), 2, "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("breaker is open for") && said.contains("3 failed rolls"), "{said}");
    let status = pool.status();
    assert_eq!((&status["breaker"], &status["ready"]), (&"open".into(), &true.into()));
    let verbose = pool.get("/readyz?verbose");
    assert_eq!(verbose.status, 200, "a pool that serves is ready");
    assert!(verbose.body.contains("[+]breaker ok: open for"), "{}", verbose.body);
    assert!(pool.get("/metrics").body.contains("drainit_breaker_state{state=\"open\"} 1"));
    assert_eq!(pool.get("/livez").status, 200);

    until("half-open", || (pool.status()["breaker"] == "half-open").then_some(()));
    assert_eq!(code(&restart(&pool, &["--env", "MODE=exits"])), 1, "one may try");
    assert_eq!(pool.status()["breaker"], "open", "and has failed");
    until("half-open again", || (pool.status()["breaker"] == "half-open").then_some(()));
    roll(&pool, &[]);
    assert_eq!(pool.status()["breaker"], "closed");
}

#[test]
fn the_same_target_is_joined_and_another_one_waits_its_turn() {
    let pool = moody().options(["--workers", "2", "--min-ready-time", "1s"]).start();
    pool.wait_ready(2);
    let mut first = waiting(&pool, &["--version", "v2"]);
    wait_for_stage(&pool, "replacing");
    let mut joined = waiting(&pool, &["--version", "v2"]);
    pool.logged("roll joined");
    let mut superseded = waiting(&pool, &["--version", "v3"]);
    until("it waits", || (pool.status()["roll"]["queued"] == true).then_some(()));
    let mut latest = waiting(&pool, &["--version", "v4"]);
    assert_eq!(ends(&mut superseded), 2);
    assert_eq!((ends(&mut first), ends(&mut joined), ends(&mut latest)), (0, 0, 0));
    let versions: Vec<_> = history(&pool, "version");
    assert_eq!(versions, ["v2", "v4"]);
    assert_eq!(pool.status()["generation"], 3);
}

fn history(pool: &Pool, field: &str) -> Vec<String> {
    let status = pool.status();
    let records = status["history"].as_array().expect("history");
    records.iter().map(|record| record[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn abort_brings_the_old_generation_back() {
    let pool = moody().options(["--workers", "2", "--canary", "1", "--canary-hold", "60s"]).start();
    pool.wait_ready(2);
    assert_eq!(code(&pool.ask(&["abort"])), 1, "there is nothing to give up");
    let mut caller = waiting(&pool, &["--version", "v2"]);
    wait_for_stage(&pool, "holding");
    let output = pool.ask(&["abort"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(ends(&mut caller), 1);
    pool.wait_ready(2);
    let status = pool.status();
    assert_eq!((&status["generation"], &status["breaker"]), (&1.into(), &"closed".into()));
    assert!(status["workers"].as_array().expect("workers").iter().all(|worker| worker["generation"] == 1));
    assert_eq!(last_roll(&pool)["outcome"], "aborted");
}

#[test]
fn a_drain_drops_the_roll_and_takes_everybody_along() {
    let mut pool = moody().options(["--workers", "2", "--canary", "1", "--canary-hold", "60s"]).start();
    pool.wait_ready(2);
    let mut caller = waiting(&pool, &[]);
    wait_for_stage(&pool, "holding");
    pool.signal(libc::SIGTERM);
    assert_eq!(ends(&mut caller), 2);
    assert_eq!(pool.wait(), Exit::Code(0));
    assert!(pool.has_logged("the roll was dropped") || pool.logged("roll over")["outcome"] == "dropped");
}

#[test]
fn whoever_does_not_wait_is_told_at_once_and_a_patient_one_in_time() {
    let pool = moody().options(["--workers", "2", "--min-ready-time", "2s"]).start();
    pool.wait_ready(2);
    let output = pool.ask(&["restart"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(pool.status()["roll"]["stage"], "replacing");
    let output = restart(&pool, &["--timeout", "300ms"]);
    assert_eq!(code(&output), 124, "{output:?}");
    assert!(text(&output.stderr).contains("the roll goes on"), "{output:?}");
    wait_for_rolls(&pool, 1);
}

#[test]
fn what_cannot_be_rolled_is_refused() {
    let single = pool_without_socket().worker(["say=here", "pause"]).start();
    single.expect("here");
    let output = single.ask(&["restart", "--wait"]);
    assert_eq!(code(&output), 2, "{output:?}");
    assert!(text(&output.stderr).contains("not a pool"), "{output:?}");

    let pool = moody().start();
    pool.wait_ready(1);
    for (words, says) in
        [(&["--version", ""][..], "a version takes"), (&["--", "server", "{fd:nobody}"][..], "{fd:nobody}")]
    {
        let output = restart(&pool, words);
        assert_eq!(code(&output), 2, "{output:?}");
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
    assert_eq!(code(&restart(&pool, &["--env", "novalue"])), 64);
    let output = restart(&pool, &["--", "/nowhere/server"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(text(&output.stderr).contains("could not be started"), "{output:?}");
    pool.wait_ready(1);
}

#[test]
fn blue_green_and_recreate() {
    let blue_green = moody().options(["--workers", "3", "--max-surge", "100%"]).start();
    blue_green.wait_ready(3);
    let mut caller = waiting(&blue_green, &["--env", "MODE=slow"]);
    until("twice as many", || {
        (blue_green.status()["workers"].as_array().map_or(0, Vec::len) == 6).then_some(())
    });
    assert_eq!(ends(&mut caller), 0);
    assert_eq!(last_roll(&blue_green)["least_ready"], 3);

    let recreate =
        moody().options(["--workers", "3", "--max-surge", "0", "--max-unavailable", "100%"]).start();
    recreate.wait_ready(3);
    let mut caller = waiting(&recreate, &["--env", "MODE=slow"]);
    let mut most = 0;
    until("it is over", || {
        most = most.max(recreate.status()["workers"].as_array().map_or(0, Vec::len));
        caller.try_wait().expect("wait")
    });
    assert_eq!(most, 3, "nobody beside anybody");
    assert_eq!(last_roll(&recreate)["least_ready"], 0);
    assert_eq!(recreate.status()["generation"], 2);
}

#[test]
fn surge_and_unavailable_cannot_both_be_nothing() {
    let outcome = common::pid1().bare().options(["--max-surge", "0"]).worker(["pause"]).run();
    outcome.assert_code(64);
    assert!(outcome.stderr.contains("--max-surge 0 and --max-unavailable 0"), "{}", outcome.stderr);
}

#[test]
fn the_pool_is_drawn_and_counted() {
    let pool = moody().options(["--workers", "2"]).start();
    pool.wait_ready(2);
    let output = roll(&pool, &["--version", "v2"]);
    assert!(text(&output.stdout).contains("never fewer than 2 workers ready"), "{output:?}");
    let shown = text(&pool.ask(&["status"]).stdout);
    assert!(shown.contains("1: 1 -> 2 (v2) by request: rolled"), "{shown}");
    assert!(shown.lines().filter(|line| line.contains('█')).count() > 2, "{shown}");
    let metrics = pool.get("/metrics").body;
    for line in [
        "drainit_rolls_total{outcome=\"rolled\"} 1",
        "drainit_roll_duration_seconds_count 1",
        "drainit_roll_duration_seconds_bucket{le=\"+Inf\"} 1",
        "drainit_generation 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn a_crash_in_the_middle_of_a_roll_is_healed_and_the_roll_ends() {
    let pool = moody().options(["--workers", "3", "--canary", "1", "--canary-hold", "2s"]).start();
    pool.wait_ready(3);
    let mut caller = waiting(&pool, &["--version", "v2"]);
    wait_for_stage(&pool, "holding");
    let old = pool.member(2).process;
    old.signal(libc::SIGKILL);
    until("another of the old generation is there", || {
        let status = pool.status();
        let workers = status["workers"].as_array()?.clone();
        workers
            .iter()
            .any(|worker| worker["slot"] == 2 && worker["generation"] == 1 && worker["ready"] == true)
            .then_some(())
    });
    assert_eq!(ends(&mut caller), 0);
    pool.wait_ready(3);
    assert_eq!(pool.status()["generation"], 2);
}

/// Whoever does not finish keeps its place in the surge, and the others do not wait for it where there is another.
#[test]
fn stragglers_are_bounded_by_the_surge_and_written_down() {
    let stubborn = ["catch=TERM", "poll=3"];
    let options = ["--workers", "3", "--max-surge", "2", "--drain-timeout", "1s"];
    let pool = pool().options(options).worker(stubborn).start();
    pool.wait_ready(3);
    let mut caller = waiting(&pool, &[]);
    let mut most = 0;
    until("it is over", || {
        most = most.max(pool.status()["workers"].as_array().map_or(0, Vec::len));
        caller.try_wait().expect("wait")
    });
    assert_eq!(most, 5, "three, and a surge of two");
    let last = last_roll(&pool);
    assert_eq!((&last["outcome"], &last["least_ready"]), (&"rolled".into(), &3.into()));
    until("all are gone and counted", || (last_roll(&pool)["stragglers"] == 3).then_some(()));
    pool.wait_ready(3);
}

#[test]
fn a_roll_that_waits_for_the_drain_has_one_batch_after_the_other() {
    let stubborn = ["catch=TERM", "poll=3"];
    let options =
        ["--workers", "2", "--max-surge", "2", "--roll-waits-for-drain", "--drain-timeout", "500ms"];
    let pool = pool().options(options).worker(stubborn).start();
    pool.wait_ready(2);
    let (_, took) = common::timed(|| roll(&pool, &[]));
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert_eq!(pool.status()["workers"].as_array().map(Vec::len), Some(2), "the old ones are gone");
}
