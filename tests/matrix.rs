//! Real servers, unmodified: three workers on one port, and each of them killed once under load.
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;
#[path = "matrix/mod.rs"]
mod matrix;

use common::network::leave_network;
use common::pool::{Pool, PoolLaunch};
use common::{Process, cannot_run, is_root, nested};
use matrix::client::Client;
use matrix::row::{Mode, Row, Stage};
use matrix::trial;
use serde_json::Value;

on_each_server!(try_each_mode);

#[track_caller]
fn try_each_mode(row: &Row) {
    if row.drops_root && !is_root() {
        return cannot_run("the only user of a user namespace cannot become another");
    }
    for mode in row.modes {
        let Some(stage) = Stage::new(row) else { return };
        eprintln!("{} with --sockets {}", row.name, mode.word());
        try_on_this_host(row, *mode, &stage);
    }
}

fn try_on_this_host(row: &Row, mode: Mode, stage: &Stage) {
    leave_network();
    let launch = PoolLaunch::of(nested());
    let setting = stage.setting(launch.port().number);
    stage.furnish(row, &setting);
    let options = row.options(mode, setting.port);
    let pool = launch.options(options).command(setting.words(row.command)).start();
    let mut host = Host(pool);
    trial::run(row, &host, Client::new(row.speaks, &setting));
    host.0.signal(libc::SIGTERM);
    host.0.outcome().assert_code(0).assert_nothing_left();
}

/// drainit below another PID 1, which tells whether anything is left.
struct Host(Pool);

impl trial::Pool for Host {
    fn port(&self) -> u16 {
        self.0.port.number
    }

    fn status(&self) -> Option<Value> {
        assert!(self.0.launcher().is_alive(), "it has ended");
        self.0.try_status()
    }

    fn init(&self) -> Process {
        self.0.init()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", *self.0);
        }
    }
}
