//! sd_notify(3) as others speak it: what they send is taken for what they mean.
//!
//! Rust's sd-notify crate knows paths only and systemd's own tools wait for barriers; Python's modules are those that
//! Debian has. Node has no datagram sockets of this kind: its servers call systemd-notify, or libsystemd by an addon.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::pool::{Pool, PoolLaunch, pool};
use common::{cannot_run, until};
use serde_json::Value;

/// Not what is first in PATH, which may not be the one that Debian's modules are for.
const PYTHON: &str = "/usr/bin/python3";

fn notified() -> PoolLaunch {
    pool().options(["--ready-when", "notify", "--watchdog", "60s"])
}

#[track_caller]
fn worker(pool: &Pool) -> Value {
    pool.status()["workers"][0].clone()
}

/// Until it is ready and says so in these words.
#[track_caller]
fn wait_for(pool: &Pool, state: &str, status: &str) {
    until(format_args!("{state}: {status}\n{}", **pool), || {
        let worker = worker(pool);
        (worker["state"] == state && worker["status_text"] == status).then_some(())
    });
}

fn has_module(module: &str) -> bool {
    let found = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output();
    found.is_ok_and(|output| output.status.success())
}

fn has_systemd_notify() -> bool {
    Command::new("systemd-notify").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_crate_of_rust() {
    let gates = [common::gate::Gate::new(), common::gate::Gate::new(), common::gate::Gate::new()];
    let pool = notified()
        .worker([
            "say-watchdog",
            "sd-notify=status:up",
            "sd-notify=ready",
            "sd-notify=watchdog",
            "sd-notify=extend:5000000",
            "sd-notify=watchdog-usec:30000000",
            "sd-notify=errno:2",
            &gates[0].step(),
            "sd-notify=reloading",
            &gates[1].step(),
            "sd-notify=ready",
            &gates[2].step(),
            "sd-notify=stopping",
            "pause",
        ])
        .start();
    pool.expect("watchdog 60000000");
    wait_for(&pool, "ready", "up");
    gates[0].open();
    wait_for(&pool, "reloading", "up");
    gates[1].open();
    wait_for(&pool, "ready", "up");
    gates[2].open();
    wait_for(&pool, "stopping", "up");
}

#[test]
fn the_command_of_systemd() {
    if !has_systemd_notify() {
        return cannot_run("needs systemd-notify");
    }
    let script = "systemd-notify --ready --status='up and running' && systemd-notify WATCHDOG=1 && \
        systemd-notify --pid=$$ && echo heard && exec sleep 600";
    let pool = notified().command(["/bin/sh", "-c", script]).start();
    wait_for(&pool, "ready", "up and running");
    // It waits for its barrier, and says so where that does not fall.
    pool.expect("heard");
    assert_eq!(worker(&pool)["main_pid"], Value::Null, "it is the worker itself");
}

/// Gone before anybody can look whose child it was.
#[test]
fn the_command_of_systemd_without_waiting() {
    if !has_systemd_notify() {
        return cannot_run("needs systemd-notify");
    }
    let script = "systemd-notify --no-block --ready --status=quick && exec sleep 600";
    let pool = notified().command(["/bin/sh", "-c", script]).start();
    wait_for(&pool, "ready", "quick");
}

#[test]
fn node_by_the_command_of_systemd() {
    if !has_systemd_notify() {
        return cannot_run("needs systemd-notify");
    }
    if Command::new("node").arg("--version").output().is_err() {
        return cannot_run("needs node");
    }
    let script = "const { execFileSync } = require('child_process');\n\
        execFileSync('systemd-notify', ['READY=1', 'STATUS=node is up', 'WATCHDOG=1']);\n\
        setInterval(() => {}, 1000);";
    let pool = notified().command(["/usr/bin/env", "node", "-e", script]).start();
    wait_for(&pool, "ready", "node is up");
}

#[test]
fn the_sdnotify_module_of_python() {
    if !has_module("sdnotify") {
        return cannot_run("needs python3-sdnotify");
    }
    let script = "import sdnotify, time\nn = sdnotify.SystemdNotifier(debug=True)\n\
        n.notify('READY=1'); n.notify('STATUS=3 of 3'); n.notify('WATCHDOG=1')\ntime.sleep(600)";
    let pool = notified().command([PYTHON, "-c", script]).start();
    wait_for(&pool, "ready", "3 of 3");
}

/// libsystemd itself, with all that it does.
#[test]
fn the_systemd_module_of_python() {
    if !has_module("systemd.daemon") {
        return cannot_run("needs python3-systemd");
    }
    let script = "import os, time\nfrom systemd import daemon\n\
        assert daemon.notify('READY=1\\nSTATUS=libsystemd')\n\
        r, w = os.pipe()\nassert daemon.notify('FDSTORE=1\\nFDNAME=x', fds=[w])\n\
        os.close(w)\nassert os.read(r, 1) == b''\nprint('closed', flush=True)\ntime.sleep(600)";
    let pool = notified().command([PYTHON, "-c", script]).start();
    wait_for(&pool, "ready", "libsystemd");
    pool.expect("closed");
}

/// As most servers have it: a few lines of their own, and the barrier by the book.
#[test]
fn the_sockets_of_python() {
    if !Path::new(PYTHON).exists() {
        return cannot_run("needs python3");
    }
    let script = "import os, select, socket, time\na = os.environ['NOTIFY_SOCKET']\n\
        if a[0] == '@': a = '\\0' + a[1:]\n\
        assert os.environ['WATCHDOG_PID'] == str(os.getpid()) and os.environ['WATCHDOG_USEC'] == '60000000'\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC); s.connect(a)\n\
        for i in range(100): s.sendall(b'STATUS=%d\\nWATCHDOG=1' % i)\ns.sendall(b'READY=1\\nSTATUS=r\\xc3\\xa9ady\\n')\n\
        r, w = os.pipe()\nsocket.send_fds(s, [b'BARRIER=1'], [w]); os.close(w)\n\
        p = select.poll(); p.register(r, 0)\nassert p.poll(20000)[0][1] & select.POLLHUP\n\
        print('fallen', flush=True)\ntime.sleep(600)";
    let pool = notified().command([PYTHON, "-c", script]).start();
    pool.expect("fallen");
    let worker = worker(&pool);
    assert_eq!((&worker["state"], &worker["status_text"]), (&Value::from("ready"), &Value::from("réady")));
}
