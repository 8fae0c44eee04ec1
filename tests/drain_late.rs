//! Connections that no worker accepts any more: how many, when they are answered, and when nobody is listened to.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures, and some clients are slow")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "a limit of the test's own")]

mod common;
#[path = "common/from.rs"]
mod from;
mod late;
#[path = "common/memory_group.rs"]
mod memory_group;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::pool::{Pool, PoolLaunch, pool, pool_without_socket};
use common::{Exit, cannot_run, http, until};
use late::{assert_unavailable, connect, deaf, hear, send, started, told, waiting};
use memory_group::MemoryGroup;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Whether this process may have so many clients and the kernel so long a queue.
fn may_queue(clients: u64) -> bool {
    let queue = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = limit.rlim_max;
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    queue.trim().parse::<u64>().unwrap_or(0) >= clients && limit.rlim_max > 2 * clients
}

/// A thousand who wait in the queue, and what each of them gets.
#[track_caller]
fn assert_all_answered(launch: PoolLaunch, clients: usize) -> Pool {
    let pool = started(launch);
    let mut clients: Vec<TcpStream> = (0..clients).map(|_| send(pool.address(), REQUEST)).collect();
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    pool
}

#[test]
fn a_thousand_that_wait_when_the_last_worker_stops_get_a_thousand_answers() {
    if !may_queue(1000) {
        return cannot_run("needs net.core.somaxconn of 1000 and descriptors");
    }
    let mut pool = assert_all_answered(deaf().options(["--workers", "1"]), 1000);
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(told(&outcome, "unavailable"), 1000);
    assert_eq!((told(&outcome, "closed"), told(&outcome, "reset"), told(&outcome, "overdue")), (0, 0, 0));
}

#[test]
fn with_1024_descriptors_and_64_mib_too_and_silent_ones_among_them() {
    if !may_queue(1400) {
        return cannot_run("needs net.core.somaxconn of 1400 and descriptors");
    }
    let Some(group) = MemoryGroup::of_mebibytes(64) else {
        return cannot_run("needs a memory cgroup to write to");
    };
    let launch = deaf().under(["limit=NOFILE:1024".to_owned(), group.join()]);
    let pool = started(launch);
    // More than there is room for at once, ahead of everybody else.
    let mut silent: Vec<TcpStream> = (0..400).map(|_| connect(pool.address())).collect();
    // Bodies that nobody wants, as fast as they can be sent.
    let greedy: Vec<_> = (0..100)
        .map(|_| {
            let mut client = send(pool.address(), b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
            thread::spawn(move || {
                client.write_all(&[b'x'; 1_000_000]).expect("all of it can be sent");
                assert_unavailable(&mut client);
            })
        })
        .collect();
    let mut clients: Vec<TcpStream> = (0..900).map(|_| send(pool.address(), REQUEST)).collect();
    let mut pool = pool;
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    greedy.into_iter().for_each(|client| client.join().expect("an answer"));
    for client in &mut silent {
        assert_eq!(hear(client).expect("a clean end"), b"");
    }
    drop((clients, silent));
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!((told(&outcome, "unavailable"), told(&outcome, "closed")), (1000, 400));
    assert_eq!(group.kills(), 0);
}

#[test]
fn a_queue_for_each_worker_is_answered_too_those_of_dead_workers_included() {
    for mode in ["per-worker", "sticky"] {
        let launch = deaf().options(["--workers", "3", "--sockets", mode]);
        let mut pool = launch.start();
        pool.wait_ready(3);
        // One to each slot, and many to whoever it is.
        let mut clients: Vec<TcpStream> = (0..60).map(|_| send(pool.address(), REQUEST)).collect();
        for slot in 0..3 {
            let from: SocketAddr = format!("127.42.0.{slot}:0").parse().unwrap();
            let mut client = from::connect_from(from, pool.address()).expect("connect");
            client.write_all(REQUEST).unwrap();
            clients.push(client);
        }
        pool.signal(libc::SIGTERM);
        clients.iter_mut().for_each(|client| assert_unavailable(client));
        drop(clients);
        let outcome = pool.outcome();
        outcome.assert_code(0);
        assert_eq!(told(&outcome, "unavailable"), 63, "{mode}");
    }
}

#[test]
fn every_shape_of_a_bare_port_is_answered() {
    let launch = pool_without_socket();
    let port = launch.port().number.to_string();
    let mut pool = started(launch.options(["--listen", &port]).worker(["poll=3"]));
    let mut clients = vec![send(pool.port.local(), REQUEST)];
    let six = pool.port.on(Ipv6Addr::LOCALHOST);
    if TcpStream::connect(six).is_ok() {
        clients.push(send(six, REQUEST));
    }
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    drop(clients);
    pool.outcome().assert_code(0);
}

/// A Node server, where there is one, and the file that lets its slow requests end.
fn node(manner: &str) -> Option<(Pool, PathBuf, tempfile::TempDir)> {
    Command::new("node").arg("--version").output().ok()?;
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/late/server.js");
    let launch = pool();
    let port = launch.port().number.to_string();
    let command = ["node", script, &port, &gate.display().to_string(), manner];
    Some((started(launch.command(command)), gate, folder))
}

#[test]
fn once_the_worker_has_closed_its_socket_who_comes_later_is_refused_at_once_while_it_finishes() {
    let Some((mut pool, gate, _folder)) = node("close") else { return cannot_run("needs node") };
    let mut slow = send(pool.address(), b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it has the request", || (waiting(&pool) == 0).then_some(()));
    pool.signal(libc::SIGTERM);
    pool.expect("stopping");
    // Until nobody listens any more, nobody is reset: whoever gets in is answered.
    let refused = until("they are refused", || match TcpStream::connect(pool.address()) {
        Ok(mut client) => {
            client.write_all(REQUEST).expect("it is not reset");
            let heard = hear(&mut client).expect("an answer and a clean end");
            let answer = http::parse(&heard).expect("an answer");
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(pool.worker().is_alive(), "it still works on the request");
    let metrics = pool.get("/metrics").body;
    assert!(metrics.contains("drainit_late_answers_total{answer=\"503\"}"), "{metrics}");
    fs::write(gate, "").unwrap();
    let answer = late::answer(&mut slow);
    assert_eq!((answer.status, answer.body.as_str()), (200, "at last"));
    drop(slow);
    pool.outcome().assert_code(0);
}

#[test]
fn a_worker_that_still_accepts_wins() {
    let Some((mut pool, gate, _folder)) = node("stay") else { return cannot_run("needs node") };
    pool.signal(libc::SIGTERM);
    pool.expect("stopping");
    let until = Instant::now() + Duration::from_secs(2);
    let mut served = 0;
    while Instant::now() < until {
        let mut client = send(pool.address(), REQUEST);
        assert_eq!(late::answer(&mut client).status, 200);
        served += 1;
    }
    fs::write(gate, "").unwrap();
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert!(served > 20, "{served}");
    assert!(!outcome.stderr.contains("late connections answered"), "{outcome:?}");
}

/// It has no event loop, and is busy with somebody whenever it is looked at.
#[test]
fn so_does_one_that_accepts_between_two_requests() {
    let script = "import signal, socket, time\n\
                  over = []\n\
                  signal.signal(signal.SIGTERM, lambda *_: over.append(time.monotonic() + 2))\n\
                  s = socket.socket(fileno=3)\n\
                  print('here', flush=True)\n\
                  while not over or time.monotonic() < over[0]:\n\
                  \x20   c, _ = s.accept(); c.recv(4096); time.sleep(0.2)\n\
                  \x20   c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok'); c.close()\n";
    let Some(python) = common::pool::python() else { return cannot_run("needs python3") };
    let mut pool = started(pool().command([python, "-c".into(), script.into()]));
    let mut clients: Vec<TcpStream> = (0..20).map(|_| send(pool.address(), REQUEST)).collect();
    pool.signal(libc::SIGTERM);
    let statuses: Vec<u16> = clients.iter_mut().map(|client| late::answer(client).status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(statuses.iter().take(served).all(|status| *status == 200), "in their order: {statuses:?}");
    assert!(statuses.iter().skip(served).all(|status| *status == 503), "{statuses:?}");
    assert!((8..20).contains(&served), "for two seconds it is the worker's: {statuses:?}");
    drop(clients);
    pool.outcome().assert_code(0);
}

#[test]
fn a_linger_answers_who_comes_later_and_then_they_are_refused() {
    let mut pool = started(deaf().options(["--late-linger", "1500ms"]));
    pool.signal(libc::SIGTERM);
    until("its worker is gone", || pool.has_logged("worker was killed").then_some(()));
    let start = Instant::now();
    let mut answered = 0;
    let refused = loop {
        match TcpStream::connect(pool.address()) {
            Ok(mut client) => {
                client.write_all(REQUEST).expect("it is not reset");
                assert_unavailable(&mut client);
                answered += 1;
            }
            Err(error) => break error,
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(answered > 5, "{answered}");
    let outcome = pool.outcome();
    outcome.assert_code(0);
    assert_eq!(told(&outcome, "unavailable"), answered);
}

#[test]
fn the_hard_deadline_wins_over_whoever_is_waited_for() {
    let options = ["--grace", "2500ms", "--margin", "500ms", "--late-timeout", "1m", "--late-linger", "1m"];
    let mut pool = started(deaf().options(options));
    let mut dribbling = send(pool.address(), b"GET / HTTP/1.1\r\n");
    let address = pool.address();
    pool.signal(libc::SIGTERM);
    let start = Instant::now();
    let dribbler = thread::spawn(move || {
        while dribbling.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let exit = pool.wait();
    let took = start.elapsed();
    dribbler.join().unwrap();
    assert_eq!(exit, Exit::Code(0), "{took:?}: no worker had to be killed\n{}", pool.errors().join("\n"));
    assert!(took > Duration::from_millis(1900) && took < Duration::from_millis(2500), "{took:?}");
    assert!(pool.errors().iter().any(|line| line.contains("late connections cut")), "{:?}", pool.errors());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn who_waits_for_a_worker_that_has_to_be_killed_is_answered() {
    let mut pool = started(pool().options(["--drain-timeout", "500ms"]).worker(["ignore=TERM", "poll=3"]));
    let mut clients: Vec<TcpStream> = (0..20).map(|_| send(pool.address(), REQUEST)).collect();
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    drop(clients);
    pool.outcome().assert_code(124);
}

/// By socket activation: whoever gave the socket to drainit goes on listening, and starts the next one.
#[test]
fn a_socket_that_somebody_else_has_too_is_left_alone() {
    let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = given.local_addr().unwrap();
    let stdin = OwnedFd::from(given.try_clone().unwrap());
    let launch = pool().with(|launch| launch.stdin(stdin));
    let launch = launch.under(["copy=0:3", "env=LISTEN_FDS=1", "env-own-pid=LISTEN_PID"]);
    // Its own one is the second.
    let mut pool = started(launch.worker(["poll=4"]));
    let mut own = send(pool.address(), REQUEST);
    let mut others = send(address, REQUEST);
    pool.signal(libc::SIGTERM);
    assert_unavailable(&mut own);
    drop(own);
    pool.outcome().assert_code(0);
    let (mut next, _) = given.accept().expect("it still waits");
    next.read_exact(&mut [0; REQUEST.len()]).expect("all of it");
    next.write_all(b"here").unwrap();
    drop(next);
    assert_eq!(hear(&mut others).expect("no reset"), b"here");
    TcpStream::connect(address).expect("it still listens");
}

/// Signals and workers are all that is left there, and still nobody is reset.
#[test]
fn without_an_event_loop_it_is_the_same() {
    let mut pool = deaf().under(["seccomp=ENOSYS:epoll_create1"]).start();
    pool.expect_on_stderr("worker ready");
    let mut clients: Vec<TcpStream> = (0..200).map(|_| send(pool.address(), REQUEST)).collect();
    pool.signal(libc::SIGTERM);
    clients.iter_mut().for_each(|client| assert_unavailable(client));
    drop(clients);
    pool.outcome().assert_code(0);
}

#[test]
fn one_worker_without_a_socket_has_nothing_to_answer() {
    let mut pool = pool_without_socket().worker(["say=here", "pause"]).start();
    pool.expect("here");
    pool.status();
    pool.signal(libc::SIGTERM);
    let outcome = pool.outcome();
    outcome.assert_code(143);
    assert!(!outcome.stderr.contains("late"), "{outcome:?}");
}
