//! When a worker counts as ready, and what happens to one that never does.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::gate::Gate;
use common::pool::{Companion, Pool, pool, python};
use common::{cannot_run, example, holds_for, until};

#[track_caller]
fn assert_stays_unready(pool: &Pool, why: &str) {
    holds_for(Duration::from_millis(300), format_args!("unready: {why}"), || pool.readyz() == 503);
}

#[track_caller]
fn wait_until_ready(pool: &Pool) {
    until(format_args!("ready\n{}", **pool), || (pool.readyz() == 200).then_some(()));
}

#[test]
fn started_is_ready_at_once() {
    let pool = pool().options(["--ready-when", "started"]).worker(["pause"]).start();
    assert_eq!(pool.readyz(), 200);
}

#[test]
fn notify_waits_for_ready_from_the_worker() {
    let gate = Gate::new();
    let pool = pool()
        .options(["--ready-when", "notify"])
        .worker(["notify=STATUS=on my way", "say=here", &gate.step(), "notify=READY=1", "poll=3"])
        .start();
    pool.expect("here");
    assert_stays_unready(&pool, "it has not said so");
    gate.open();
    wait_until_ready(&pool);
}

#[test]
fn notify_is_understood_as_python_sends_it() {
    let Some(python) = python() else { return cannot_run("needs python3") };
    let script = "import os, socket, time\na = os.environ['NOTIFY_SOCKET']\n\
        if a[0] == '@': a = '\\0' + a[1:]\n\
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'STATUS=up\\nREADY=1\\n', a)\ntime.sleep(600)";
    let pool =
        pool().options(["--ready-when", "notify"]).command([python, "-c".into(), script.into()]).start();
    wait_until_ready(&pool);
}

#[test]
fn a_child_of_the_worker_may_send_ready() {
    let pool = pool()
        .options(["--ready-when", "notify"])
        .worker(["{", "setsid", "notify=READY=1", "pause", "}", "pause"])
        .start();
    wait_until_ready(&pool);
}

#[test]
fn a_message_from_outside_the_workers_tree_does_not_count() {
    let pool = pool().options(["--ready-when", "notify"]).worker(["say=here", "pause"]).start();
    pool.expect("here");
    let address = pool.worker().variable("NOTIFY_SOCKET").expect("an address");
    // In the same container, by root; it lives on, so that drainit can see whose child it is.
    let mut stranger = Companion::start(
        pool.inside()
            .arg(common::fixture())
            .args(["notify=READY=1", "say=sent", "pause"])
            .env("NOTIFY_SOCKET", &address),
    );
    let mut line = [0; 5];
    std::io::Read::read_exact(stranger.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"sent\n");
    assert_stays_unready(&pool, "a stranger said so");
}

#[test]
fn one_worker_cannot_speak_for_another() {
    // Slot 1 tells the file its address; slot 0 sends there, and both live on.
    let gate = Gate::new();
    let path = gate.path().display().to_string();
    let script = format!(
        "case $DRAINIT_SLOT in 1) echo $NOTIFY_SOCKET > {path}.new; mv {path}.new {path}; exec sleep 600;; esac; \
         while ! test -e {path}; do sleep .01; done; NOTIFY_SOCKET=$(cat {path}) exec $0 notify=READY=1 say=sent pause"
    );
    let fixture = common::fixture().display().to_string();
    let pool = pool()
        .options(["--workers", "2", "--ready-when", "notify"])
        .command(["/bin/sh", "-c", &script, &fixture])
        .start();
    pool.expect("sent");
    assert_stays_unready(&pool, "each speaks for itself");
}

#[test]
fn ready_counts_under_listening_too() {
    let pool = pool().worker(["notify=READY=1", "pause"]).start();
    wait_until_ready(&pool);
}

#[test]
fn a_worker_that_has_long_waited_for_something_else_is_seen_when_it_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // open(2) waits until somebody writes.
    let pool = pool().worker(["say=here", &format!("read-from=4:{}", fifo.display()), "poll=3"]).start();
    pool.expect("here");
    assert_stays_unready(&pool, "it waits for a file");
    let _writer = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    wait_until_ready(&pool);
}

#[test]
fn tcp_waits_for_a_connection_to_be_accepted() {
    let port = common::pool::Port::reserve();
    let pool = pool()
        .options(["--ready-when", &format!("tcp=:{}", port.number)])
        .worker(["say=here", "poll=3"])
        .start();
    pool.expect("here");
    assert_stays_unready(&pool, "nobody listens there");
    let _listener = TcpListener::bind(port.local()).unwrap();
    wait_until_ready(&pool);
}

/// Answers every connection with that status, until it is dropped; answer and end arrive in one piece.
fn answering(address: std::net::SocketAddr, status: &str) -> Companion {
    let python = python().unwrap();
    // Whoever asks may have gone before it is answered.
    let script = format!(
        "import socket\ns = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('127.0.0.1', {})); s.listen()\nwhile True:\n  c = s.accept()[0]\n  try:\n    \
         ok = c.recv(4096).startswith(b'GET /health?deep=1 HTTP/1.1')\n    \
         c.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)\n    \
         c.sendall((b'HTTP/1.1 {status} X' if ok else b'HTTP/1.1 400 X') + b'\\r\\nContent-Length: 0\\r\\n\\r\\n')\n  \
         except OSError: pass\n  c.close()",
        address.port()
    );
    Companion::start(std::process::Command::new(python).args(["-c", &script]))
}

#[test]
fn http_waits_for_a_good_answer_to_a_get_of_that_path() {
    if python().is_none() {
        return cannot_run("needs python3");
    }
    let port = common::pool::Port::reserve();
    let server = answering(port.local(), "503");
    let when = format!("http=:{}/health?deep=1", port.number);
    let pool = pool().options(["--ready-when", &when]).worker(["poll=3"]).start();
    until("the server answers", || std::net::TcpStream::connect(port.local()).ok());
    holds_for(Duration::from_millis(1500), "unready while the answer is 503", || pool.readyz() == 503);
    drop(server);
    let _server = answering(port.local(), "204");
    wait_until_ready(&pool);
}

#[test]
fn exec_waits_for_the_commands_success() {
    let gate = Gate::new();
    let check = format!("exec=test -e '{}'", gate.path().display());
    let pool = pool().options(["--ready-when", &check]).worker(["poll=3"]).start();
    assert_stays_unready(&pool, "the check fails");
    gate.open();
    wait_until_ready(&pool);
}

#[test]
fn exec_is_told_which_worker_it_is_about() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "exec=sh -c 'env | grep ^DRAINIT_ > {0}/new$DRAINIT_SLOT && mv {0}/new$DRAINIT_SLOT {0}/$DRAINIT_SLOT'",
        directory.path().display()
    );
    let pool = pool().options(["--workers", "2", "--ready-when", &script]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    for member in pool.members() {
        let seen = std::fs::read_to_string(directory.path().join(member.slot.to_string())).unwrap();
        let expected = format!("DRAINIT_WORKER_PID={}", member.process.pid_inside());
        assert!(seen.lines().any(|line| line == expected), "{seen}");
    }
}

#[test]
fn a_check_that_hangs_is_killed_and_tried_again() {
    let gate = Gate::new();
    // It hangs with a child of its own, ignoring TERM, until the gate is open.
    let script = format!(
        "exec=sh -c 'trap \"\" TERM; echo $$ >> {0}.pids; test -e {0} && exit 0; sleep 600 & wait'",
        gate.path().display()
    );
    let pool = pool().options(["--ready-when", &script]).worker(["poll=3"]).start();
    let attempts = || std::fs::read_to_string(format!("{}.pids", gate.path().display())).unwrap_or_default();
    until("a second attempt", || (attempts().lines().count() >= 2).then_some(()));
    let first = attempts().lines().next().unwrap().to_owned();
    let children = pool.init().children();
    assert!(!children.iter().any(|child| child.pid_inside() == first), "the first one is still there");
    let sleepers = children.iter().filter(|child| child.text("comm").trim() == "sleep").count();
    assert!(sleepers <= 1, "its children are killed with it");
    gate.open();
    wait_until_ready(&pool);
}

#[test]
fn checks_leave_no_zombies() {
    let pool = pool().options(["--workers", "4", "--ready-when", "exec=false"]).worker(["poll=3"]).start();
    until("some checks have run", || (pool.init().children().len() >= 4).then_some(()));
    let checks = std::time::Duration::from_millis(700);
    holds_for(checks, "at most a moment's zombies", || {
        until("no zombie", || (pool.init().zombies() == 0).then_some(()));
        true
    });
}

#[test]
fn a_check_has_no_socket_of_the_pools() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    let check = format!("exec=sh -c 'ls -l /proc/$$/fd > {0}.new && mv {0}.new {0}'", list.display());
    let pool = pool().options(["--ready-when", &check]).worker(["poll=3"]).start();
    wait_until_ready(&pool);
    let seen = std::fs::read_to_string(list).unwrap();
    assert!(!seen.contains("socket:"), "{seen}");
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_stopped_counted_and_replaced() {
    let pool = pool()
        .options(["--ready-timeout", "200ms", "--max-crashes", "off", "--backoff", "0..0"])
        .worker(["watch", "say=here", "log=TERM"])
        .start();
    pool.expect("got 15 0");
    let late = pool.logged("not ready in time");
    assert_eq!(late["slot"], 0);
    until("a second one", || (pool.lines().iter().filter(|line| *line == "here").count() >= 2).then_some(()));
    assert!(pool.counter("restarts_late") >= 1 && pool.counter("ready_timeouts") >= 1);
}

#[test]
fn workers_that_are_never_ready_in_time_are_crashes() {
    let mut pool = pool()
        .options(["--ready-timeout", "50ms", "--max-crashes", "2/60s", "--backoff", "0..0"])
        .worker(["pause"])
        .start();
    let outcome = pool.outcome();
    outcome.assert_code(75);
    assert!(outcome.stderr.contains("not ready in time"), "{outcome:?}");
}

#[test]
fn a_late_worker_that_ignores_its_stop_signal_is_killed() {
    let pool = pool()
        .options(["--ready-timeout", "100ms", "--drain-timeout", "200ms", "--max-crashes", "off"])
        .worker(["ignore=TERM", "say=here", "pause"])
        .start();
    until("a second one", || (pool.lines().iter().filter(|line| *line == "here").count() >= 2).then_some(()));
    assert!(pool.counter("forced_kills") >= 1);
}

#[test]
fn the_pod_is_ready_with_as_many_workers_as_min_ready_says() {
    for (min_ready, needed) in [("1", 1), ("3", 3), ("50%", 2), ("51%", 3), ("100%", 4)] {
        let directory = tempfile::tempdir().unwrap();
        let check = format!("exec=sh -c 'test -e {}/$DRAINIT_SLOT'", directory.path().display());
        let pool = pool()
            .options(["--workers", "4", "--min-ready", min_ready, "--ready-when", &check])
            .worker(["poll=3"])
            .start();
        for ready in 0..needed {
            until(format_args!("{ready} are ready"), || {
                (pool.status()["ready_workers"] == ready).then_some(())
            });
            assert_eq!(pool.readyz(), 503, "{ready} of {min_ready}");
            std::fs::write(directory.path().join(ready.to_string()), "").unwrap();
        }
        wait_until_ready(&pool);
        assert_eq!(pool.status()["min_ready"], needed);
    }
}

#[test]
fn a_pool_that_loses_workers_below_min_ready_is_unready_until_it_has_them_again() {
    let gate = Gate::new();
    let check = format!("exec=sh -c 'test ! -e {}'", gate.path().display());
    let pool = pool()
        .options(["--workers", "2", "--min-ready", "2", "--ready-when", &check])
        .command([example("server")])
        .start();
    wait_until_ready(&pool);
    gate.open();
    pool.member(1).process.signal(libc::SIGKILL);
    until("unready", || (pool.readyz() == 503).then_some(()));
    assert_eq!(pool.get("/livez").status, 200);
    assert_eq!(pool.get("/startupz").status, 200, "that it has started stays true");
    std::fs::remove_file(gate.path()).unwrap();
    wait_until_ready(&pool);
}
