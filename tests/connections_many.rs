//! Tens of thousands of connections are counted, and probes are answered meanwhile. `CONNECTIONS=100000` says how many.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "a limit of the test's own")]

mod common;
mod late;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::network::enter_new_network;
use common::pool::{Companion, Pool, pool};
use common::{cannot_run, example, http, until, until_at_last};
use late::waiting;

/// Of each client and, at most, of each worker, which have as many descriptors.
const EACH: usize = 8_000;
const DESCRIPTORS: u64 = 10_000;

/// The first look at so many takes a second at most, on a machine that has time.
const PATIENCE: Duration = Duration::from_secs(120);

/// In one piece the smallest number takes twice as long.
const STALL: Duration = Duration::from_millis(100);

fn number() -> usize {
    std::env::var("CONNECTIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(3 * EACH)
}

fn may_have_descriptors() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_max >= DESCRIPTORS
}

/// Somebody with so many connections.
fn client(number: usize, pool: &Pool, connections: usize) -> Companion {
    let mut command = Command::new(example("fixture"));
    let connect = format!("connect={connections},127.0.1.{number},{}", pool.address());
    command.args([&format!("soft-limit=NOFILE:{DESCRIPTORS}"), &connect, "say=connected", "pause"]);
    let mut client = Companion::start(command.stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");
    client
}

fn held(pool: &Pool) -> Option<usize> {
    let status = pool.status();
    let workers = status["workers"].as_array()?;
    let counts = workers.iter().map(|worker| Some(worker["connections"].as_u64()? as usize));
    counts.sum()
}

/// How long each answer to a probe takes, for as long as `during` does, and what that comes to.
fn probed<T>(pool: &Pool, during: impl FnOnce() -> T) -> (T, Duration, Vec<Duration>) {
    let admin = pool.admin.local();
    let (began, done) = (Instant::now(), std::sync::atomic::AtomicBool::new(false));
    thread::scope(|threads| {
        let probes = threads.spawn(|| {
            let mut answers = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let asked = Instant::now();
                assert_eq!(http::get(admin, "/readyz").expect("an answer").status, 200);
                answers.push(asked.elapsed());
            }
            answers
        });
        let result = during();
        let took = began.elapsed();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (result, took, probes.join().unwrap())
    })
}

fn longest(answers: &[Duration]) -> Duration {
    answers.iter().copied().max().unwrap_or_default()
}

/// Whose they are the workers' event loops tell.
#[test]
fn so_many_are_counted_in_slices_between_which_probes_are_answered() {
    are_counted_in_slices("keep-polled=3");
}

/// Each descriptor has to be looked at.
#[test]
fn so_are_those_of_servers_without_event_loops() {
    are_counted_in_slices("keep=3");
}

/// One after the other: it is the same machine.
static ALONE: Mutex<()> = Mutex::new(());

fn are_counted_in_slices(worker: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !may_have_descriptors() {
        return cannot_run("needs 10,000 descriptors a process");
    }
    if let Err(error) = enter_new_network() {
        return cannot_run(&format!("needs a network of its own: {error}"));
    }
    let connections = number();
    let workers = (2 * connections).div_ceil(EACH).max(2).to_string();
    let limit = format!("soft-limit=NOFILE:{DESCRIPTORS}");
    let pool =
        pool().options(["--workers", &workers, "--log-level", "debug"]).worker([&limit, worker]).start();
    pool.wait_ready(workers.parse().unwrap());
    let clients: Vec<_> = (0..connections.div_ceil(EACH))
        .map(|client| EACH.min(connections - client * EACH))
        .enumerate()
        .map(|(number, share)| client(number + 1, &pool, share))
        .collect();
    until("all are accepted", || (waiting(&pool) == 0).then_some(()));

    let ((), _, control) = probed(&pool, || thread::sleep(Duration::from_millis(500)));
    let (counted, took, answers) = probed(&pool, || {
        // Shown are those of a look that is whole, and no other.
        until_at_last(PATIENCE, "they are counted", || held(&pool).filter(|held| *held > 0))
    });
    assert_eq!(counted, connections, "{}", *pool);
    let (quickest, slowest) = (longest(&control), longest(&answers));
    eprintln!(
        "{connections} of {worker} counted in {took:?}; {} probes meanwhile, the slowest in {slowest:?}; {quickest:?} without",
        answers.len()
    );
    let looks = pool.log().into_iter().filter(|line| line["message"] == "connections counted");
    eprintln!("looks took {:?}", looks.map(|line| line["took"].to_string()).collect::<Vec<_>>());
    assert!(answers.len() >= 10 && slowest < quickest + STALL, "{} answers, {slowest:?}", answers.len());
    drop(clients);
}
