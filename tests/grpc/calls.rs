//! gRPC's own server and client, from PyPI.
#![allow(dead_code, reason = "each test uses its own part")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde::Deserialize;

use crate::common::pool::Companion;
use crate::common::{cannot_run, until};

/// Calls that are made, so many each second, and how long each of them takes.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    pub rate: u32,
    pub milliseconds: u32,
}

pub const STEADY: Calls = Calls { rate: 200, milliseconds: 20 };

/// The Python that has gRPC; nothing where PyPI is out of reach, and the test is to return.
#[track_caller]
pub fn python() -> Option<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    or_say(FOLDER.get_or_init(|| folder_by("venv"))).map(|folder| folder.join("bin/python"))
}

/// The modules of @grpc/grpc-js; the same of npm.
#[track_caller]
fn modules() -> Option<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    or_say(FOLDER.get_or_init(|| folder_by("modules")))
}

#[track_caller]
fn or_say(folder: &Result<PathBuf, String>) -> Option<PathBuf> {
    folder.clone().inspect_err(|why| cannot_run(why)).ok()
}

/// What that script has made, if need be.
fn folder_by(script: &str) -> Result<PathBuf, String> {
    let output = Command::new(here(script)).output().map_err(|error| error.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout).into()) } else { Err(said(&output.stderr)) }
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc").join(file)
}

/// A server by what it is made on.
#[derive(Clone, Debug)]
pub enum Server {
    /// gRPC's own core, which servers in C++, Python, Ruby and PHP have in common.
    Core(PathBuf),
    /// Node's HTTP/2.
    Js(PathBuf),
}

impl Server {
    #[track_caller]
    pub fn core() -> Option<Self> {
        python().map(Self::Core)
    }

    #[track_caller]
    pub fn js() -> Option<Self> {
        modules().map(Self::Js)
    }

    pub fn command(&self, port: u16) -> Vec<OsString> {
        let port = port.to_string();
        match self {
            Self::Core(python) => vec![python.into(), "-B".into(), here("server.py").into(), port.into()],
            Self::Js(modules) => {
                let mut path = OsString::from("NODE_PATH=");
                path.push(modules);
                vec!["/usr/bin/env".into(), path, "node".into(), here("server.js").into(), port.into()]
            }
        }
    }

    /// What a client has to retry. A call that reaches the core after it was told to stop, and before its client has heard of
    /// that, is CANCELLED, where it should be UNAVAILABLE: <https://github.com/grpc/grpc/issues/41785>
    pub fn codes(&self) -> &'static str {
        match self {
            Self::Core(_) => "UNAVAILABLE,CANCELLED",
            Self::Js(_) => "UNAVAILABLE",
        }
    }
}

/// What has become of a client's calls.
#[derive(Debug, Deserialize)]
pub struct Tally {
    pub sent: u64,
    /// By the port of who has answered.
    pub answers: BTreeMap<String, u64>,
    /// Of those that were answered, how many were not by the first who was asked.
    pub retried: u64,
    pub errors: u64,
    pub first: Vec<String>,
    pub slowest_seconds: f64,
    pub seconds: f64,
}

impl Tally {
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }
}

/// Somebody who makes calls until told to stop.
pub struct Client {
    _process: Companion,
    stdin: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Client {
    /// `policy`: how it chooses among the addresses of `target`.
    #[track_caller]
    pub fn start(server: &Server, target: &str, policy: &str, calls: Calls) -> Option<Self> {
        let mut process = Companion::start(
            Command::new(python()?)
                .arg("-B")
                .arg(here("client.py"))
                .args([
                    target,
                    policy,
                    server.codes(),
                    &calls.rate.to_string(),
                    &calls.milliseconds.to_string(),
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let stdin = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let (say, said) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Some(Self { _process: process, stdin, said })
    }

    /// It goes on.
    #[track_caller]
    pub fn wait_for_answers(&self) {
        while self.said.try_recv().is_ok() {}
        for _ in 0..3 {
            until("calls go on", || self.said.try_recv().ok());
        }
    }

    pub fn makes_no_more(&mut self) {
        drop(self.stdin.take());
    }

    /// Make no more calls, wait for the answers, and tell.
    #[track_caller]
    pub fn stop(mut self) -> Tally {
        self.makes_no_more();
        let last = until("its last word", || self.said.try_iter().find(|line| line.starts_with('{')));
        serde_json::from_str(&last).expect("what has become of its calls")
    }
}
