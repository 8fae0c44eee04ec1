//! A test that cannot run on this host says so, and does not pass for one that ran.

#![allow(unreachable_pub, reason = "shared by tests with and without the rest of the harness")]

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::Location;
use std::thread;

/// `NOT RUN: <test>: <why>`, on stderr and at the end of the file that `DRAINIT_NOT_RUN` names.
#[track_caller]
pub fn cannot_run(why: &str) {
    // The harness names its threads for the tests, but for the one that it has with --test-threads=1.
    let thread = thread::current();
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => Location::caller().to_string(),
    };
    let line = format!("NOT RUN: {test}: {}\n", why.trim_end().replace('\n', "; "));
    // Not eprint, which the harness swallows where a test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("DRAINIT_NOT_RUN") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("DRAINIT_NOT_RUN can be written");
    }
}
