//! Rolls that are unlike others: to another version, of servers that are slow to start, of connections that stay.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;
#[path = "matrix/mod.rs"]
mod matrix;
#[path = "rolls/mod.rs"]
mod rolls;
#[path = "../examples/support/steady/mod.rs"]
mod steady;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::network::leave_network;
use common::{timed, until};
use matrix::row::Row;
use rolls::websocket::WebSocket;
use rolls::{Trial, WORKERS, last_roll, rows, wait_for_answers};
use steady::{Shape, Steady};

/// When each request was sent, and who has answered it: its DRAINIT_VERSION, APP_VERSION and COLOUR.
type Answers = Arc<Mutex<Vec<(Instant, String)>>>;

#[test]
fn when_it_is_over_only_the_new_version_answers() {
    only_the_new_version_answers(&rows::node_closing());
}

#[test]
fn when_it_is_over_only_the_new_version_answers_where_the_old_one_has_no_handler() {
    only_the_new_version_answers(&rows::node());
}

#[track_caller]
fn only_the_new_version_answers(row: &Row) {
    leave_network();
    let Some(trial) = Trial::start(row, &[]) else { return };
    let answers = Answers::default();
    let heard = Arc::clone(&answers);
    let load = Steady::telling(trial.address(), "/", Shape::NEW, move |answer, sent| {
        heard.lock().unwrap().push((sent, answer.body.trim().to_owned()));
    });
    let mut began = Instant::now();
    let mut only = |words: &[&str], expected: &str| {
        let whole = if words.is_empty() { 0 } else { answers.lock().unwrap().len() };
        if !words.is_empty() {
            trial.roll(words);
            began = Instant::now();
        }
        wait_for_answers(&load);
        let all = answers.lock().unwrap();
        let since: Vec<_> = all[whole..].iter().filter(|(sent, _)| *sent > began).collect();
        assert!(!since.is_empty(), "nobody has asked since");
        let wrong: Vec<_> = since.iter().filter(|(_, body)| body != expected).collect();
        assert!(wrong.is_empty(), "not {expected:?}: {} of {}, {wrong:?}", wrong.len(), since.len());
    };
    only(&[], "- - -");
    only(&["--version", "v2", "--env", "COLOUR=green"], "v2 v2 green");
    only(&["--version", "v3"], "v3 v3 green");
    only(&["--unset-env", "COLOUR"], "v3 v3 -");
    let tally = load.stop().expect("the load");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", **trial);
    let status = trial.status();
    assert_eq!(status["generation"], 4);
    assert!(status["workers"].as_array().unwrap().iter().all(|worker| worker["version"] == "v3"), "{status}");
    assert_eq!(last_roll(&trial)["version"], "v3");
}

#[test]
fn a_server_that_is_slow_to_start_leaves_no_gap() {
    const BOOT: Duration = Duration::from_millis(1500);
    const GAP: Duration = Duration::from_millis(150);
    leave_network();
    let Some(trial) = Trial::start(&rows::node_closing(), &[]) else { return };
    let load = Steady::start(trial.address(), "/", Shape::NEW);
    wait_for_answers(&load);
    let ((), took) = timed(|| trial.roll(&["--env", &format!("BOOT_MS={}", BOOT.as_millis())]));
    wait_for_answers(&load);
    let tally = load.stop().expect("the load");
    assert!(took >= BOOT * WORKERS as u32, "one after the other: {took:?}");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", **trial);
    assert!(tally.silence < GAP, "{tally}\n{}", **trial);
    eprintln!("{took:.2?}: {tally}");
}

const CHATS: usize = 16;

/// Until each worker has one, for whoever has none is gone at once. Under load they take turns.
#[track_caller]
fn open(trial: &Trial) -> Vec<WebSocket> {
    let mut chats: Vec<WebSocket> = Vec::new();
    until("WebSockets of each worker", || {
        chats.push(WebSocket::open(trial.address()).expect("a WebSocket"));
        let workers: BTreeSet<_> = chats.iter().map(|chat| &chat.greeting).collect();
        (chats.len() >= CHATS && workers.len() as u64 == WORKERS).then_some(())
    });
    chats
}

#[track_caller]
fn all_echo(chats: &mut [WebSocket]) {
    for chat in chats {
        chat.echoes("still there").unwrap_or_else(|error| panic!("{}: {error}", chat.greeting));
    }
}

fn draining(trial: &Trial) -> usize {
    let status = trial.status();
    let all = status["workers"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|worker| worker["state"] == "draining").count()
}

#[test]
fn web_sockets_are_kept_until_they_are_done_and_the_roll_does_not_wait() {
    const PATIENCE: Duration = Duration::from_secs(60);
    leave_network();
    let options = ["--max-surge=100%", "--grace=120s", "--drain-timeout=60s"];
    let Some(trial) = Trial::start(&rows::websocket(), &options) else { return };
    let load = Steady::start(trial.address(), "/", Shape::NEW);
    let mut old = open(&trial);
    let ((), took) = timed(|| trial.roll(&[]));
    assert!(took < PATIENCE / 2, "{took:?}: it has waited for them");
    all_echo(&mut old);
    assert!(draining(&trial) > 0, "{}", trial.status());
    let mut new: Vec<_> =
        (0..CHATS).map(|_| WebSocket::open(trial.address()).expect("a WebSocket")).collect();
    for chat in &new {
        assert!(
            !old.iter().any(|other| other.greeting == chat.greeting),
            "{} is an old one\n{}",
            chat.greeting,
            **trial
        );
    }
    drop(old);
    trial.wait_ready(WORKERS);
    all_echo(&mut new);
    let tally = load.stop().expect("the load");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", **trial);
    eprintln!("{took:.2?}: {tally}");
}

#[test]
fn web_sockets_that_never_end_hold_up_a_roll_for_as_long_as_the_surge_says() {
    const DRAIN: Duration = Duration::from_secs(2);
    leave_network();
    let Some(trial) = Trial::start(&rows::websocket(), &["--drain-timeout=2s"]) else { return };
    let load = Steady::start(trial.address(), "/", Shape::NEW);
    let mut old = open(&trial);
    let ((), took) = timed(|| trial.roll(&[]));
    // Whoever is at its deadline is ended a little earlier, at a moment when nothing is being said.
    assert!(took >= DRAIN / 2, "one worker more than there should be, and no second: {took:?}");
    assert!(took < DRAIN * 4, "{took:?}");
    // Those of the last one may have a moment left.
    until("they have been ended", || old.iter_mut().all(|chat| chat.echoes("gone").is_err()).then_some(()));
    trial.wait_ready(WORKERS);
    let tally = load.stop().expect("the load");
    assert_eq!(tally.failures(), 0, "{tally}\n{}", **trial);
    eprintln!("{took:.2?}: {tally}");
}
