//! Clients that come when no worker accepts any more.
#![allow(dead_code, reason = "shared by tests that need different parts of it")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::http::{self, Answer};
use crate::common::pool::{Pool, PoolLaunch, pool};

/// What an answer may take on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool whose worker waits for connections, accepts none, and dies of the stop signal.
pub(crate) fn deaf() -> PoolLaunch {
    pool().worker(["poll=3"])
}

pub(crate) fn started(launch: PoolLaunch) -> Pool {
    let pool = launch.start();
    pool.wait_ready(1);
    pool
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Connects and sends that.
pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("send");
    stream
}

/// Everything up to a clean end; a reset is an error.
pub(crate) fn hear(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The one answer that there is.
#[track_caller]
pub(crate) fn answer(stream: &mut impl Read) -> Answer {
    let bytes = hear(stream).expect("an answer and a clean end");
    http::parse(&bytes).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)))
}

#[track_caller]
pub(crate) fn assert_unavailable(stream: &mut impl Read) {
    let answer = answer(stream);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    assert_eq!(answer.body, r#"{"error":"restarting, please retry"}"#, "{answer:?}");
}

/// By name, of the line in the log that says what became of them.
#[track_caller]
pub(crate) fn told(outcome: &crate::common::Outcome, name: &str) -> u64 {
    let lines =
        outcome.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut told = lines.filter(|line| line["message"] == "late connections answered");
    told.next().and_then(|line| line[name].as_u64()).unwrap_or_else(|| panic!("{outcome:?}"))
}

/// How many connections wait in the queue of its socket.
pub(crate) fn waiting(pool: &Pool) -> usize {
    let end = format!(":{:04X}", pool.port.number);
    let table = pool.init().text("net/tcp");
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // State 0A is LISTEN; of such a socket the second half of the fifth field is the length of its queue.
    let own = lines.find(|fields| fields[1].ends_with(&end) && fields[3] == "0A");
    own.and_then(|fields| usize::from_str_radix(fields[4].split(':').nth(1)?, 16).ok()).unwrap_or(0)
}
