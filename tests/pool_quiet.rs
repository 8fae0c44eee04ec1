//! Grace for servers that have none: who does not catch the stop signal, or does not end, is ended at a moment when it
//! serves nobody.
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
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, code, pool, python};
use common::{Exit, Process, cannot_run, fresh_uid, holds_for, is_root, until};
use load::Load;

fn server(name: &str) -> OsString {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quiet").join(name).into()
}

/// A pool of servers in Python that do not catch TERM.
fn unmodified(workers: &str) -> Option<PoolLaunch> {
    let Some(python) = python() else {
        cannot_run("no python3");
        return None;
    };
    leave_network();
    let pool = pool().options(["--workers", workers]);
    let port = pool.port().number.to_string();
    Some(pool.command([python, server("server.py"), port.into()]))
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

fn send(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    stream.write_all(&request(path)).unwrap();
    stream
}

/// One answer, to the last byte of its body, or what came in its place.
fn answer(stream: &mut TcpStream) -> Result<String, ErrorKind> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            // Node sends `hello` in one chunk where it does not know how long the body is.
            if length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length) {
                return Ok(text);
            }
        }
        match stream.read(&mut buffer).map_err(|error| error.kind())? {
            0 => return Err(ErrorKind::UnexpectedEof),
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
}

#[track_caller]
fn scale(pool: &Pool, workers: &str) {
    assert_eq!(code(&pool.ask(&["scale", workers])), 0);
}

/// Which worker is at work on that request: it has said so.
#[track_caller]
fn wait_for_request(pool: &Pool, path: &str, count: usize) {
    let line = format!("got {path}");
    until(format_args!("{line}\n{}", **pool), || {
        (pool.lines().iter().filter(|said| **said == line).count() >= count).then_some(())
    });
}

fn metric(pool: &Pool, name: &str) -> f64 {
    let text = pool.get("/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn sockets(process: Process) -> usize {
    let descriptors = process.descriptors();
    descriptors.iter().filter(|(_, path)| path.to_string_lossy().starts_with("socket:")).count()
}

/// Nobody below drainit stands still, or not for long.
#[track_caller]
fn nobody_is_left_frozen(pool: &Pool) {
    until("nobody stands still", || {
        let family = pool.init().family();
        family.iter().all(|process| process.state() != 'T').then_some(())
    });
}

#[test]
fn servers_that_do_not_catch_the_signal_are_scaled_away_under_load_with_no_request_lost() {
    let Some(pool) = unmodified("4") else { return };
    lose_nothing_while_scaling(pool);
}

#[test]
fn the_same_as_another_user() {
    if !is_root() {
        return cannot_run("only root can become another user");
    }
    leave_network();
    let uid = fresh_uid().to_string();
    lose_nothing_while_scaling(pool().options(["--workers", "4", "--user", &uid]).worker(["serve=3"]));
}

#[test]
fn node_whose_own_handler_would_end_it_loses_no_request_either() {
    leave_network();
    let pool = pool().options(["--workers", "4", "--drain-timeout", "30s"]);
    let port = pool.port().number.to_string();
    let pool = pool.command(["node".into(), server("plain.js"), port.into()]).start();
    scale_under_load(&pool);
    assert_eq!(pool.counter("ended_without_handler"), 4, "its own handler is known for what it is");
    nobody_is_left_frozen(&pool);
}

/// Of Node too, whose own handler looks the same from outside: never quiet, it is told all the same.
#[test]
fn node_with_a_handler_is_told_at_once() {
    is_told_at_once(&["node"]);
}

#[test]
fn so_is_one_that_something_else_becomes() {
    is_told_at_once(&["/usr/bin/env", "node"]);
    is_told_at_once(&["sh", "-c", r#"exec node "$0" "$1""#]);
}

fn is_told_at_once(node: &[&str]) {
    leave_network();
    let pool = pool().options(["--workers", "2", "--drain-timeout", "60s"]);
    let port = pool.port().number.to_string();
    let node = node.iter().map(|word| (*word).into());
    let pool = pool.command(node.chain([server("straggler.js"), port.into()])).start();
    pool.wait_ready(2);
    let clients: Vec<_> = (0..8).map(|_| send(pool.address(), "/slow")).collect();
    wait_for_request(&pool, "/slow", 8);
    let ((), took) = common::timed(|| {
        scale(&pool, "1");
        pool.expect("told");
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(clients);
}

fn lose_nothing_while_scaling(pool: PoolLaunch) {
    let pool = pool.options(["--drain-timeout", "30s"]).start();
    scale_under_load(&pool);
    assert_eq!(pool.counter("ended_without_handler"), 4);
    let line = pool.logged("worker ended while it served nobody");
    assert_eq!(line["reason"], "no-handler");
    nobody_is_left_frozen(&pool);
}

fn scale_under_load(pool: &Pool) {
    pool.wait_ready(4);
    let load = Load::start(pool.address(), "/", 8, Duration::from_millis(5));
    for size in ["3", "4", "2", "1"] {
        let before = load.answered();
        until("the load goes on", || (load.answered() > before + 40).then_some(()));
        scale(pool, size);
        pool.wait_ready(size.parse().unwrap());
    }
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), **pool);
    assert_eq!(pool.counter("forced_kills"), 0);
    eprintln!(
        "{}; frozen {} times for {} s",
        report.summary(),
        metric(pool, "drainit_worker_freezes_total"),
        metric(pool, "drainit_worker_frozen_seconds_total")
    );
}

#[test]
fn a_drain_waits_for_what_is_in_flight_and_for_no_idle_connection() {
    let Some(pool) = unmodified("2") else { return };
    let mut pool = pool.options(["--grace", "30s"]).start();
    pool.wait_ready(2);
    let mut idle = send(pool.address(), "/");
    answer(&mut idle).unwrap();
    let silent = TcpStream::connect(pool.address()).unwrap();
    let mut slow = send(pool.address(), "/slow");
    let mut stream = send(pool.address(), "/stream");
    wait_for_request(&pool, "/slow", 1);
    wait_for_request(&pool, "/stream", 1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    assert!(answer(&mut slow).unwrap().ends_with("hello\n"));
    assert!(answer(&mut stream).unwrap().ends_with(&".".repeat(20)));
    assert_eq!(pool.wait(), Exit::Code(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}\n{}", began.elapsed(), *pool);
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
    drop(silent);
}

#[test]
fn one_that_mirrors_its_workers_exit_ends_as_if_by_the_signal() {
    let Some(pool) = unmodified("1") else { return };
    let mut pool = pool.options(["--restart", "never"]).start();
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(128 + libc::SIGTERM));
}

#[test]
fn a_request_without_end_is_killed_at_the_drain_timeout_and_not_before() {
    let Some(pool) = unmodified("1") else { return };
    let mut pool = pool.options(["--drain-timeout", "2s"]).start();
    pool.wait_ready(1);
    let mut client = send(pool.address(), "/for-ever");
    wait_for_request(&pool, "/for-ever", 1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    // Insisting does not help.
    pool.wait_for_phase("draining");
    pool.signal(libc::SIGTERM);
    assert!(answer(&mut client).is_err());
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(pool.wait(), Exit::Code(124));
}

#[test]
fn a_worker_that_is_kept_from_accepting_goes_on_again_and_again() {
    let Some(pool) = unmodified("2") else { return };
    let pool = pool.options(["--drain-timeout", "20s"]).start();
    pool.wait_ready(2);
    // Both are at work on something without end: whoever is told has nothing to be found quiet for.
    let mut clients = Vec::new();
    let victim = pool.member(1).process;
    let none = sockets(victim);
    while sockets(victim) == none {
        clients.push(send(pool.address(), "/for-ever"));
        wait_for_request(&pool, "/for-ever", clients.len());
    }
    scale(&pool, "1");
    until("it is held", || (metric(&pool, "drainit_worker_freezes_total") > 10.0).then_some(()));
    let mut frozen_since = None;
    let mut moved = 0;
    holds_for(Duration::from_secs(2), "it never stands still for long", || {
        if victim.state() == 'T' {
            let since: Instant = *frozen_since.get_or_insert_with(Instant::now);
            return since.elapsed() < Duration::from_millis(500);
        }
        moved += u32::from(frozen_since.take().is_some());
        true
    });
    assert!(moved > 3, "it was held and went on: {moved}");
    // The others are served meanwhile, and once everybody has gone it ends.
    assert!(answer(&mut send(pool.address(), "/")).is_ok());
    assert!(victim.is_alive());
    drop(clients);
    nobody_is_left_frozen(&pool);
}

/// By epoll: as the kernel tells of each set, in /proc/PID/fdinfo.
fn polls_sockets(process: Process) -> usize {
    let descriptors = process.descriptors();
    let is_listener = |number: i32| {
        let tables = process.text("net/tcp") + &process.text("net/tcp6");
        let links = descriptors.iter().filter(|(known, _)| *known == number);
        let inodes = links.filter_map(|(_, link)| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']'));
        inodes.into_iter().any(|inode| {
            tables.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.get(3) == Some(&"0A") && fields.get(9) == Some(&inode)
            })
        })
    };
    let sets = descriptors.iter().filter(|(_, link)| link.as_os_str() == "anon_inode:[eventpoll]");
    let polled = sets.flat_map(|(set, _)| {
        let text = process.text(&format!("fdinfo/{set}"));
        let entries = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
        entries.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect::<Vec<i32>>()
    });
    polled.filter(|number| is_listener(*number)).count()
}

#[test]
fn a_worker_that_waits_by_epoll_need_not_be_held_to_learn_of_nobody() {
    if copying_is_refused() {
        return cannot_run("pidfd_getfd(2) is refused");
    }
    leave_network();
    let pool = pool().options(["--workers", "2", "--drain-timeout", "30s"]);
    let port = pool.port().number.to_string();
    let pool = pool.command(["node".into(), server("plain.js"), port.into()]).start();
    pool.wait_ready(2);
    let mut clients = Vec::new();
    let [other, victim] = [0, 1].map(|slot| pool.member(slot).process);
    let none = sockets(victim);
    while sockets(victim) == none {
        clients.push(send(pool.address(), "/for-ever"));
        let accepted = 2 * none + clients.len();
        until("it is accepted", || (sockets(other) + sockets(victim) == accepted).then_some(()));
    }
    assert_eq!(polls_sockets(victim), 1);
    scale(&pool, "1");
    until("it is deaf", || (polls_sockets(victim) == 0).then_some(()));
    assert_eq!(polls_sockets(other), 1, "the other one is not");
    for _ in 0..20 {
        assert!(answer(&mut send(pool.address(), "/")).is_ok());
    }
    assert!(victim.is_alive());
    assert!(metric(&pool, "drainit_worker_freezes_total") < 1.0, "{}", *pool);
    drop(clients);
    pool.logged("worker ended while it served nobody");
    nobody_is_left_frozen(&pool);
}

/// By a seccomp profile: of itself a process may have what it likes.
fn copying_is_refused() -> bool {
    // SAFETY: numbers only; the two descriptors are the test's until it ends.
    #[allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
    let own = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    #[allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, own, 0, 0) };
    copy < 0
}

#[test]
fn a_server_that_catches_the_signal_is_signalled_and_never_stands_still() {
    leave_network();
    let pool = pool()
        .options(["--workers", "2", "--ready-when", "started", "--drain-timeout", "20s"])
        .worker(["watch", "say=here", "log=TERM", "say=told"])
        .start();
    pool.expect("here");
    pool.wait_ready(2);
    scale(&pool, "1");
    pool.wait_ready(1);
    pool.expect("told");
    assert_eq!(metric(&pool, "drainit_worker_freezes_total"), 0.0);
    assert_eq!(pool.counter("ended_without_handler"), 0);
}

#[test]
fn a_server_that_blocks_the_signal_to_read_it_is_signalled() {
    leave_network();
    let pool = pool()
        .options(["--workers", "2", "--ready-when", "started", "--drain-timeout", "3s"])
        .worker(["block=TERM", "say=here", "pause"])
        .start();
    pool.expect("here");
    pool.wait_ready(2);
    let worker = pool.member(1).process;
    until("blocked", || (worker.signals("SigBlk") & common::bit(libc::SIGTERM) != 0).then_some(()));
    scale(&pool, "1");
    until("it waits to be read", || {
        (worker.signals("ShdPnd") & common::bit(libc::SIGTERM) != 0).then_some(())
    });
}

/// A client that goes on asking on one connection for as long as it lives; says how often it was answered, and the
/// request that it got no answer to.
fn keep_asking(address: SocketAddr, name: usize, stop: Arc<AtomicBool>) -> (u64, Option<String>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/{name}-{answered}");
        if stream.write_all(&request(&path)).is_err() || answer(&mut stream).is_err() {
            return (answered, Some(path));
        }
        answered += 1;
        // In step with nobody: who asks at the same pace for ever may leave no moment free.
        thread::sleep(Duration::from_millis(80 + (answered * 37 + name as u64 * 53) % 160));
    }
    (answered, None)
}

#[test]
fn a_straggler_under_keep_alive_is_ended_within_its_window_with_no_request_cut() {
    leave_network();
    let pool = pool().options(["--workers", "2", "--drain-timeout", "4s", "--node-ipc", "off"]);
    let port = pool.port().number.to_string();
    let pool = pool.command(["node".into(), server("straggler.js"), port.into()]).start();
    pool.wait_ready(2);
    let stop = Arc::new(AtomicBool::new(false));
    let address = pool.address();
    let victim = pool.member(1).process;
    let none = sockets(victim);
    let mut clients = Vec::new();
    while sockets(victim) < none + 3 {
        let (stop, name) = (Arc::clone(&stop), clients.len());
        clients.push(thread::spawn(move || keep_asking(address, name, stop)));
        let asked = format!("got /{name}-0");
        until("it asks", || pool.has(&asked).then_some(()));
    }
    until("they go on", || (pool.lines().len() > 20 * clients.len()).then_some(()));
    let began = Instant::now();
    scale(&pool, "1");
    pool.wait_ready(1);
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let lines = pool.lines();
    let cut: Vec<_> = ends
        .iter()
        .filter_map(|(_, lost)| lost.as_ref())
        .filter(|lost| lines.contains(&format!("got {lost}")))
        .collect();
    assert!(cut.is_empty(), "{cut:?} cut\n{}", *pool);
    let stale = ends.iter().filter(|(_, lost)| lost.is_some()).count();
    assert!(took >= Duration::from_secs(3), "it has had its time: {took:?}");
    assert_eq!(pool.counter("forced_kills"), 0, "{}", *pool);
    assert_eq!(pool.counter("ended_stragglers"), 1);
    assert_eq!(pool.logged("worker ended while it served nobody")["reason"], "straggler");
    eprintln!("ended after {took:?}, {stale} of {} connections closed", ends.len());
}

#[test]
fn a_worker_that_only_idle_connections_keep_is_ended_before_its_time() {
    leave_network();
    let options =
        ["--drain-timeout", "60s", "--grace", "90s", "--end-idle-after", "600ms", "--node-ipc", "off"];
    let pool = pool().options(options);
    let port = pool.port().number.to_string();
    let mut pool = pool.command(["node".into(), server("straggler.js"), port.into()]).start();
    pool.wait_ready(1);
    let mut idle = send(pool.address(), "/idle");
    answer(&mut idle).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (pool.address(), Arc::clone(&stop));
    let client = thread::spawn(move || keep_asking(address, 0, stopped));
    wait_for_request(&pool, "/0-1", 1);
    let worker = pool.member(0).process;
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    common::holds_for(Duration::from_secs(2), "one connection is in use", || worker.is_alive());
    stop.store(true, Ordering::Relaxed);
    let (answered, lost) = client.join().unwrap();
    assert_eq!(lost, None, "after {answered}");
    let began = Instant::now();
    assert_eq!(pool.wait(), common::Exit::Code(0));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(pool.logged("worker ended while it served nobody")["reason"], "idle");
}
