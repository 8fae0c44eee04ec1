//! Rolls where each worker has a queue of its own: connections turn to whoever takes the slot, and who waits is served.
#![allow(clippy::expect_used, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "common/from.rs"]
mod from;
#[path = "../examples/support/load.rs"]
mod load;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::network::leave_network;
use common::pool::{Pool, code, pool};
use common::until;
use from::connect_from;
use load::{Load, check_http, exchange, http_request};

/// Of many clients: what an address decides is decided anew for each request.
fn load(address: SocketAddr) -> Load {
    let next = Arc::new(AtomicU32::new(0));
    let request = http_request("/");
    Load::of(6, Duration::from_millis(3), move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let client = [127, 43, (number / 250 % 250) as u8 + 1, (number % 250) as u8 + 1];
        check_http(&exchange(connect_from((client, 0).into(), address), &request)?)
    })
}

#[track_caller]
fn roll_under_load(pool: &Pool, rolls: u64, words: &[&str]) {
    let load = load(pool.address());
    for roll in 1..=rolls {
        let before = load.answered();
        until("the load goes on", || (load.answered() > before + 30).then_some(()));
        let output = pool.ask(&[&["restart", "--wait"], words].concat());
        assert_eq!(code(&output), 0, "roll {roll}: {output:?}\n{}", **pool);
    }
    let before = load.answered();
    until("the load goes on", || (load.answered() > before + 30).then_some(()));
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), **pool);
    eprintln!("{}", report.summary());
}

#[test]
fn nobody_who_waits_in_an_old_queue_is_lost() {
    leave_network();
    for mode in ["per-worker", "sticky"] {
        let options = ["--workers", "3", "--sockets", mode, "--max-surge", "2"];
        let pool = pool().options(options).server().start();
        pool.wait_ready(3);
        roll_under_load(&pool, 8, &[]);
    }
}

#[test]
fn nor_where_one_goes_before_the_other_comes() {
    leave_network();
    let options = ["--workers", "3", "--sockets", "per-worker", "--max-surge", "0", "--max-unavailable", "1"];
    let pool = pool().options(options).server().start();
    pool.wait_ready(3);
    roll_under_load(&pool, 5, &[]);
}

#[test]
fn nor_with_a_server_that_knows_nothing_of_signals() {
    leave_network();
    let pool = pool().options(["--workers", "3", "--sockets", "per-worker"]);
    let port = pool.port().number.to_string();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quiet/plain.js");
    let pool = pool.command(["node".into(), plain.into_os_string(), port.into()]).start();
    pool.wait_ready(3);
    roll_under_load(&pool, 3, &["--version", "v2"]);
}

#[test]
fn nor_when_a_roll_is_undone() {
    leave_network();
    let options = ["--workers", "3", "--sockets", "per-worker", "--min-ready-time", "300ms"];
    let pool = pool().options(options).options(["--breaker-failures", "100"]).server().start();
    pool.wait_ready(3);
    let load = load(pool.address());
    let server = common::example("server").display().to_string();
    let dies = format!("{server} & sleep 0.2; exit 5");
    for _ in 0..4 {
        let output = pool.ask(&["restart", "--wait", "--", "sh", "-c", &dies]);
        assert_eq!(code(&output), 1, "{output:?}");
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), *pool);
    pool.wait_ready(3);
}
