//! Servers as they are: each is found ready without saying a word, and not before it accepts.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use common::pool::{Pool, pool, python, unique_name};
use common::{cannot_run, http, until};

/// What a server does after it has been told to: with the socket `s` and, to say so, `go`.
const PYTHON: [(&str, &str); 6] = [
    ("accept", "go()\nwhile True: answer(s.accept()[0])"),
    ("select", "import select\ngo()\nwhile True:\n  select.select([s], [], [])\n  answer(s.accept()[0])"),
    (
        "poll",
        "import select\np = select.poll(); p.register(s, select.POLLIN)\ngo()\n\
         while True:\n  p.poll()\n  answer(s.accept()[0])",
    ),
    (
        "epoll",
        "import select\ngo()\np = select.epoll(); p.register(s, select.EPOLLIN)\n\
         while True:\n  p.poll()\n  answer(s.accept()[0])",
    ),
    (
        "asyncio",
        "import asyncio\nasync def serve(r, w):\n  await r.readuntil(b'\\r\\n\\r\\n')\n  \
         w.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); w.close()\n\
         async def main():\n  go()\n  server = await asyncio.start_server(serve, sock=s)\n  \
         await server.serve_forever()\nasyncio.run(main())",
    ),
    (
        "http.server",
        "import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(self):\n    \
         self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n\
         h = http.server.ThreadingHTTPServer(('', 0), H, bind_and_activate=False)\n\
         h.socket.close(); h.socket = s; go()\nh.serve_forever()",
    ),
];

const PRELUDE: &str = "import os, socket, sys, time\n\
    s = socket.socket(fileno=3)\n\
    def go():\n  os.write(1, b'waiting\\n')\n  while not os.path.exists(sys.argv[1]): time.sleep(0.005)\n\
    def answer(c):\n  c.recv(4096); c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); c.close()\n";

/// Two workers that hold the socket and do not accept before the file is there.
struct Gate {
    directory: tempfile::TempDir,
}

impl Gate {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("go")
    }

    #[track_caller]
    fn check(&self, name: &str, command: Vec<OsString>) {
        let pool = pool().options(["--workers", "2"]).command(command).start();
        until(format_args!("{name}: both are about to accept\n{}", *pool), || {
            let waiting = pool.lines().iter().filter(|line| *line == "waiting").count();
            (waiting == 2).then_some(())
        });
        // As often as drainit looks, and longer: they hold the socket, but do not accept.
        common::holds_for(std::time::Duration::from_millis(300), format_args!("{name} is starting"), || {
            let status = pool.status();
            status["ready_workers"] == 0 && pool.readyz() == 503 && status["phase"] == "starting"
        });
        std::fs::write(self.path(), "").unwrap();
        pool.wait_ready(2);
        assert_eq!(pool.readyz(), 200, "{name}");
        assert_served(&pool, name);
    }
}

#[track_caller]
fn assert_served(pool: &Pool, name: &str) {
    for _ in 0..4 {
        assert_eq!(http::get(pool.address(), "/").expect("an answer").status, 200, "{name}");
    }
}

fn python_is_found_ready(name: &str) {
    let Some(python) = python() else { return cannot_run("needs python3") };
    let gate = Gate::new();
    let (_, server) = PYTHON.iter().find(|(each, _)| *each == name).unwrap();
    let script = format!("{PRELUDE}{server}");
    let go = gate.path().into_os_string();
    gate.check(name, vec![python, "-c".into(), script.into(), go]);
}

#[test]
fn python_in_a_blocking_accept_is_found_ready() {
    python_is_found_ready("accept");
}

#[test]
fn python_in_select_is_found_ready() {
    python_is_found_ready("select");
}

#[test]
fn python_in_poll_is_found_ready() {
    python_is_found_ready("poll");
}

#[test]
fn python_in_epoll_is_found_ready() {
    python_is_found_ready("epoll");
}

#[test]
fn python_in_asyncio_is_found_ready() {
    python_is_found_ready("asyncio");
}

#[test]
fn pythons_http_server_is_found_ready() {
    python_is_found_ready("http.server");
}

#[test]
fn node_on_an_inherited_descriptor_is_found_ready() {
    let node = Command::new("node").args(["-p", "process.execPath"]).output().ok();
    let Some(node) = node.filter(|output| output.status.success()) else {
        return cannot_run("needs node");
    };
    let node = common::pool::text(&node.stdout).trim().into();
    let script = "const fs = require('fs'); \
        const server = require('http').createServer((q, r) => r.end('ok')); \
        console.log('waiting'); \
        const t = setInterval(() => { if (fs.existsSync(process.argv[1])) { \
            clearInterval(t); server.listen({fd: 3}); } }, 5);";
    let gate = Gate::new();
    gate.check("node", vec![node, "-e".into(), script.into(), gate.path().into_os_string()]);
}

#[test]
fn a_server_that_forks_its_own_workers_is_found_ready_by_them() {
    let pool = pool().worker(["{", "setsid", "serve=3", "}", "wait"]).start();
    pool.wait_ready(1);
    assert_served(&pool, "a pre-forking server");
}

#[test]
fn a_server_with_threads_is_found_ready_by_any_of_them() {
    let Some(python) = python() else { return cannot_run("needs python3") };
    let script = "import socket, threading, time\ns = socket.socket(fileno=3)\n\
        def serve():\n  while True:\n    c = s.accept()[0]; c.recv(4096)\n    \
        c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); c.close()\n\
        threading.Thread(target=serve).start()\nwhile True: time.sleep(60)";
    let pool = pool().command([python, "-c".into(), script.into()]).start();
    pool.wait_ready(1);
    assert_served(&pool, "threads");
}

#[test]
fn a_worker_that_only_holds_the_socket_is_not_ready() {
    let pool = pool().worker(["say=here", "pause"]).start();
    pool.expect("here");
    common::holds_for(std::time::Duration::from_millis(300), "starting", || pool.readyz() == 503);
    assert_eq!(pool.status()["workers"][0]["state"], "starting");
}

#[test]
fn a_worker_that_waits_on_another_descriptor_is_not_ready() {
    let pool = pool().worker(["say=here", "poll=0"]).start();
    pool.expect("here");
    common::holds_for(std::time::Duration::from_millis(300), "starting", || pool.readyz() == 503);
}

#[test]
fn a_unix_socket_is_seen_to_be_accepted_on_too() {
    let name = format!("unix:{}", unique_name());
    let pool = common::pool::pool_without_socket().options(["--listen", &name]).worker(["serve=3"]).start();
    pool.wait_ready(1);
}

#[test]
fn without_a_socket_any_listening_one_of_the_workers_own_will_do() {
    // Whoever asks makes drainit look: an init does not by itself.
    let gate = Gate::new();
    let go = format!("await={}", gate.path().display());
    let pool = common::pool::pool_without_socket().worker(["say=here", &go, "listen=7", "pause"]).start();
    pool.expect("here");
    assert_eq!(pool.readyz(), 503);
    std::fs::write(gate.path(), "").unwrap();
    until("ready", || (pool.readyz() == 200).then_some(()));
}
