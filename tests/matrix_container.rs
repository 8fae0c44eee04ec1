//! The matrix once more, in containers as they are run where nobody is trusted: an ordinary user without capabilities
//! or new privileges, a read-only root, the runtime's default seccomp profile.
#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test waits, and needs what it needs")]

mod common;
#[allow(dead_code, reason = "made for other tests too")]
#[path = "container/guest.rs"]
mod guest;
#[path = "../examples/support/load.rs"]
mod load;
#[path = "matrix/mod.rs"]
mod matrix;
#[path = "container/podman.rs"]
mod podman;

use std::net::Ipv4Addr;
use std::path::Path;
use std::{fs, thread};

use common::network::join_network;
use common::{Process, cannot_run, http, is_root, not_run};
use guest::{ADMIN, APP};
use matrix::client::Client;
use matrix::row::{Mode, Row, Setting, Stage};
use matrix::trial;
use podman::{Podman, podman};
use serde_json::Value;

on_each_server!(try_each_mode);

const HARDENED: [&str; 6] = [
    "--user=1000:1000",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
];

/// What a server of the host's has of the host, besides what begins like [`SETTINGS`] in /etc.
const PROGRAMS: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];
const SETTINGS: [&str; 3] = ["alternatives", "java-", "php"];

#[track_caller]
fn try_each_mode(row: &Row) {
    if let Err(why) = row.in_container {
        return cannot_run(why);
    }
    if !is_root() {
        return cannot_run("only root can enter a container's network");
    }
    let Some(podman) = podman() else { return };
    for mode in row.modes {
        let Some(stage) = Stage::new(row) else { return };
        eprintln!("{} with --sockets {}", row.name, mode.word());
        try_in_container(row, *mode, &stage, podman);
    }
}

fn try_in_container(row: &Row, mode: Mode, stage: &Stage, podman: &'static Podman) {
    let setting = Setting { dir: "/srv".into(), tmp: "/tmp".into(), port: APP };
    stage.furnish(row, &setting);
    let container: Vec<String> = HARDENED
        .into_iter()
        .map(str::to_owned)
        .chain(["--network=none".to_owned(), format!("--volume={}:/srv:ro", stage.path().display())])
        .chain(volumes())
        .collect();
    let options = row.options(mode, setting.port);

    let guest = podman.start(&words(&container), &words(&options), &words(&setting.words(row.command)));
    let inside = Inside(Process(guest.state("{{.State.Pid}}").parse().expect("a number")));
    assert_hardened(inside.0);
    // In a thread, because podman needs the host's network.
    let client = Client::new(row.speaks, &setting);
    let trial = thread::scope(|threads| {
        let trial = threads.spawn(|| {
            join_network(inside.0);
            trial::run(row, &inside, client);
        });
        trial.join()
    });
    assert!(trial.is_ok(), "{}, see above", row.name);
    assert_eq!(guest.stop(&[]), 0, "{}", row.name);
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn volumes() -> impl Iterator<Item = String> {
    let settings = fs::read_dir("/etc").expect("/etc").flatten().map(|entry| entry.path());
    let settings = settings.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        SETTINGS.iter().any(|start| name.starts_with(start)) && path.is_dir()
    });
    // Most of them are links to places in /usr.
    PROGRAMS.into_iter().map(Into::into).chain(settings).filter_map(|path| {
        let real = Path::new(&path).canonicalize().ok()?;
        Some(format!("--volume={}:{}:ro", real.display(), path.display()))
    })
}

fn assert_hardened(init: Process) {
    assert_eq!(init.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(init.status("CapBnd"), "0000000000000000");
    assert_eq!(init.status("NoNewPrivs"), "1");
    // SECCOMP_MODE_FILTER
    assert_eq!(init.status("Seccomp"), "2");
}

/// A pool in a container, seen from the container's network.
struct Inside(Process);

impl trial::Pool for Inside {
    fn port(&self) -> u16 {
        APP
    }

    fn status(&self) -> Option<Value> {
        assert!(self.0.is_alive(), "it has ended");
        let answer = http::get((Ipv4Addr::LOCALHOST, ADMIN).into(), "/status").ok()?;
        serde_json::from_str(&answer.body).ok()
    }

    fn init(&self) -> Process {
        self.0
    }
}
