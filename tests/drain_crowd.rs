//! Ten thousand connections that are kept and idle, and a drainit that has little: it waits for its workers and for nothing
//! else, and its watching costs next to nothing.
//!
//! `DRAIN_SECONDS=30` makes it wait longer.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "a limit of another process")]

mod common;
#[path = "common/memory_group.rs"]
mod memory_group;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::machine::Sleeper;
use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, pool};
use common::{Exit, Process, cannot_run, until_at_last};
use memory_group::MemoryGroup;

const CROWD: usize = 10_000;

/// What drainit has.
const DESCRIPTORS: u64 = 1024;
const MEBIBYTES: u64 = 64;

/// What it may have of one processor while it waits; and once to find out whose all of them are and who still accepts, when
/// it tells the workers.
const SHARE: f64 = 0.02;
const ONCE: Duration = Duration::from_millis(100);

/// How long the workers keep their connections once they are told.
fn patience() -> Duration {
    let seconds = std::env::var("DRAIN_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

fn limit_of_descriptors(process: Process, limit: Option<u64>) -> u64 {
    let new = limit.map(|limit| libc::rlimit { rlim_cur: limit, rlim_max: limit });
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let done = unsafe { libc::prlimit(process.0, libc::RLIMIT_NOFILE, new, &mut old) };
    assert_eq!(done, 0, "prlimit: {}", std::io::Error::last_os_error());
    old.rlim_cur
}

/// This process is the clients of all tests.
static CLIENTS: Mutex<()> = Mutex::new(());

/// Nothing where it may not have that many connections, which has been said.
#[track_caller]
fn clients() -> Option<MutexGuard<'static, ()>> {
    if limit_of_descriptors(Process(std::process::id() as i32), None) > CROWD as u64 + 1000 {
        return Some(CLIENTS.lock().unwrap_or_else(PoisonError::into_inner));
    }
    cannot_run("RLIMIT_NOFILE is too low for ten thousand connections");
    None
}

fn server(launch: PoolLaunch, group: &MemoryGroup) -> PoolLaunch {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drain_crowd/server.js");
    let (port, patience) = (launch.port().number.to_string(), patience().as_millis().to_string());
    launch.under([group.join()]).options(["--grace", "10m", "--drain-timeout", "9m"]).worker([
        &group.leave(),
        "--",
        "/usr/bin/env",
        "node",
        script,
        &port,
        &patience,
    ])
}

/// All of them have been answered once.
fn crowd(pool: &Pool) -> Vec<TcpStream> {
    let mut all = Vec::new();
    while all.len() < CROWD {
        let mut some: Vec<_> = (0..100).map(|_| TcpStream::connect(pool.address()).unwrap()).collect();
        for stream in &mut some {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
        for stream in &mut some {
            stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        }
        all.append(&mut some);
    }
    all
}

fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (value, size) = ((&raw const linger).cast(), size_of_val(&linger) as libc::socklen_t);
    let set = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
    assert_eq!(set, 0);
}

/// The processor's time that it has had: the first field of /proc/PID/schedstat.
fn processor_time(process: Process) -> Duration {
    let text = process.text("schedstat");
    let spent = text.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse().ok());
    Duration::from_nanos(spent.unwrap_or_else(|| panic!("no schedstat of {process:?}")))
}

/// How much it has worked since then, of how much time.
fn work(process: Process, since: (Instant, Duration)) -> (Duration, Duration) {
    (processor_time(process) - since.1, since.0.elapsed())
}

fn percent((work, time): (Duration, Duration)) -> f64 {
    work.as_secs_f64() / time.as_secs_f64() * 100.0
}

fn now(process: Process) -> (Instant, Duration) {
    (Instant::now(), processor_time(process))
}

#[track_caller]
fn drains_with_a_crowd(mut pool: Pool, group: &MemoryGroup) {
    let machine = Sleeper::start();
    let mut crowd = crowd(&pool);
    let held = |pool: &Pool| {
        let status = pool.status();
        let workers = status["workers"].as_array().expect("workers").iter();
        workers.map(|worker| worker["connections"].as_u64().unwrap_or(0)).sum::<u64>() as usize
    };
    until_at_last(common::DEADLINE, "all are seen", || (held(&pool) == CROWD).then_some(()));
    let init = pool.init();
    assert_eq!(limit_of_descriptors(init, None), DESCRIPTORS);
    let began = now(init);
    pool.signal(libc::SIGTERM);
    pool.logged("load balancer wait over");
    let (wait, draining) = (work(init, began), now(init));
    assert_eq!(pool.phase(), "draining");
    // Up to shortly before the workers let go.
    let watched = patience() - Duration::from_millis(500);
    std::thread::sleep(watched.saturating_sub(draining.0.elapsed()));
    let watching = work(init, draining);
    let peak = init.status("VmHWM");
    assert_eq!(held(&pool), CROWD);
    for stream in &mut crowd {
        stream.set_read_timeout(Some(patience() + common::DEADLINE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    let gone = Instant::now();
    // What the kernel would remember for a minute is in everybody's way who looks for connections on this machine.
    crowd.into_iter().for_each(reset);
    assert_eq!(pool.wait(), Exit::Code(0), "{}", *pool);
    let (after, took) = (gone.elapsed(), began.0.elapsed());
    eprintln!(
        "{CROWD} connections: at work {wait:?} of the load balancer wait, {:.2} %, and {watching:?} of draining, {:.2} %; \
         {peak} at most; gone {after:?} after the last connection, {took:.2?} after SIGTERM",
        percent(wait),
        percent(watching),
    );
    for (work, time) in [wait, watching] {
        assert!(work < ONCE + time.mul_f64(SHARE), "{work:?} of {time:?}");
    }
    let late = machine.lateness(gone, gone + after);
    assert!(after < Duration::from_secs(1) + late, "it ends when its workers have: {after:?}");
    assert_eq!(group.kills(), 0);
}

/// One worker has them all. Its limit is its own, and was drainit's too when it was started.
#[test]
fn one_worker_has_them_all() {
    let Some(_clients) = clients() else { return };
    let Some(group) = MemoryGroup::of_mebibytes(MEBIBYTES) else {
        return cannot_run("no memory cgroup can be made here");
    };
    leave_network();
    let pool = server(pool().options(["--lb-wait", "1s..10s", "--lb-quiet", "1s"]), &group).start();
    pool.wait_ready(1);
    limit_of_descriptors(pool.init(), Some(DESCRIPTORS));
    drains_with_a_crowd(pool, &group);
}

/// The limit is everybody's.
#[test]
fn twelve_workers_have_less_than_a_thousand_each() {
    let Some(_clients) = clients() else { return };
    let Some(group) = MemoryGroup::of_mebibytes(MEBIBYTES) else {
        return cannot_run("no memory cgroup can be made here");
    };
    leave_network();
    let options = ["--workers", "12", "--sockets", "per-worker", "--lb-wait", "1s..10s", "--lb-quiet", "1s"];
    let limit = format!("limit=NOFILE:{DESCRIPTORS}");
    let pool = server(pool().options(options).under([limit]), &group).start();
    pool.wait_ready(12);
    drains_with_a_crowd(pool, &group);
}
