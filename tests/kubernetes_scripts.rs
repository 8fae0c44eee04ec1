//! What there is of tests/kubernetes without a cluster: its scripts, its judge, its load generator.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use common::{cannot_run, example};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes")
}

#[test]
fn the_judge_of_pods() {
    let output = Command::new("python3")
        .args(["-B", "-m", "unittest", "--quiet"])
        .current_dir(folder())
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn scripts() {
    let mut seen = 0;
    for name in ["run", "kind", "images"] {
        let Ok(output) = Command::new("shellcheck").arg(folder().join(name)).output() else {
            return cannot_run("no shellcheck");
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// Everything that it was told to do comes, and it says so; SIGTERM has it tell the rest.
#[test]
fn the_load_generator_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    let summary = generate(address, 20);
    assert!(summary["answered"].as_u64() >= Some(20) && summary["sent"] == summary["answered"], "{summary}");
    assert_eq!(summary["failed"], serde_json::json!({}));
}

#[test]
fn the_load_generator_sees_failures() {
    // Bound and not listening: nobody else gets it.
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let any = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0);
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &any).unwrap();
    let bound: nix::sys::socket::SockaddrIn =
        nix::sys::socket::getsockname(std::os::fd::AsRawFd::as_raw_fd(&socket)).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], bound.port()));
    let summary = generate(address, 0);
    assert!(summary["failed"]["refused"].as_u64() >= Some(1), "{summary}");
    assert_eq!(summary["answered"], 0);
    assert_eq!(summary["first"][0]["kind"], "refused", "{summary}");
}

/// Until so many were answered, or any failed; its last word.
fn generate(address: SocketAddr, answers: u64) -> Value {
    let mut load = Command::new(example("load"))
        .args([&address.to_string(), "/", "new:50"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = false;
    let mut last = Value::Null;
    for line in BufReader::new(load.stdout.take().unwrap()).lines() {
        last = serde_json::from_str(&line.unwrap()).expect("a line of JSON");
        let enough =
            last["answered"].as_u64() >= Some(answers) && answers > 0 || last["failed"].as_u64() > Some(0);
        if enough && !told {
            told = true;
            kill(Pid::from_raw(load.id() as i32), Signal::SIGTERM).unwrap();
        }
    }
    assert!(load.wait().unwrap().success());
    assert_eq!(last["shape"], "new:50");
    last
}
