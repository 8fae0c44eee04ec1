//! Connections that are no requests: a drain waits for them, for as long as it may, and says whose they were.
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

use std::time::{Duration, Instant};

use common::machine::Sleeper;
use common::network::leave_network;
use common::{Exit, Process, until};
use rolls::websocket::WebSocket;
use rolls::{Trial, rows};

const TIMEOUT: Duration = Duration::from_secs(4);
/// From when on it is ended, if there is a moment when nothing is being said.
const LAST_QUARTER: Duration = Duration::from_secs(3);

/// Two workers, and one WebSocket to one of them, which is told.
fn chatting() -> Option<(Trial, WebSocket, Process, Instant)> {
    leave_network();
    let trial = Trial::start(&rows::websocket(), &["--grace=60s", "--drain-timeout=4s"])?;
    let chat = WebSocket::open(trial.address()).expect("a WebSocket");
    let has_it = |process: &Process| chat.greeting == format!("pid {}", process.pid_inside());
    let holder = trial.members().into_iter().map(|member| member.process).find(has_it).expect("who has it");
    let told = Instant::now();
    trial.signal(libc::SIGTERM);
    until("the other one has gone", || (trial.members().len() == 1).then_some(()));
    assert!(holder.is_alive());
    Some((trial, chat, holder, told))
}

fn held(trial: &Trial) -> Option<u64> {
    trial.status()["workers"][0]["connections"].as_u64()
}

#[test]
fn one_that_stays_is_ended_at_the_deadline_and_named() {
    let machine = Sleeper::start();
    let Some((mut trial, mut chat, holder, told)) = chatting() else { return };
    until("it is shown", || (held(&trial) == Some(1)).then_some(()));
    assert_eq!(trial.logged("letting go")["connections"], 1);
    while told.elapsed() < LAST_QUARTER - Duration::from_millis(500) {
        chat.echoes("still there").expect("it goes on");
    }
    let pid = holder.pid_inside();
    assert_eq!(trial.wait(), Exit::Code(0), "{}", **trial);
    let took = told.elapsed();
    let late = machine.lateness(told, told + took);
    assert!(took >= LAST_QUARTER && took < TIMEOUT + Duration::from_millis(500) + late, "{took:?}");
    assert!(chat.echoes("still there").is_err());
    let named = trial.logged("still holds connections");
    assert_eq!((&named["connections"], &named["peers"]), (&1.into(), &1.into()), "{named}");
    assert_eq!(named["pid"], pid, "{named}");
    assert_eq!(trial.logged("worker ended while it served nobody")["reason"], "straggler");
    eprintln!("ended after {took:.2?}");
}

#[test]
fn one_that_goes_earlier_ends_the_drain() {
    let machine = Sleeper::start();
    let Some((mut trial, mut chat, _, told)) = chatting() else { return };
    while told.elapsed() < Duration::from_secs(1) {
        chat.echoes("still there").expect("it goes on");
    }
    let gone = Instant::now();
    drop(chat);
    assert_eq!(trial.wait(), Exit::Code(0), "{}", **trial);
    let after = gone.elapsed();
    let late = machine.lateness(gone, gone + after);
    assert!(after < Duration::from_secs(1) + late, "{after:?} after the last has gone");
    assert!(!trial.has_logged("still holds connections"), "{}", **trial);
}
