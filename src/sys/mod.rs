//! The thin layer over Linux, one mechanism a file; the only unsafe code there is.
//!
//! Functions report what the kernel said and decide nothing. After the first worker is up none of them may
//! panic or block: every descriptor is close-on-exec, every read and write of ours non-blocking.
#![allow(unsafe_code, reason = "system calls; each block states why it is sound")]

pub mod accepting;
pub mod accounts;
pub mod arrivals;
pub mod cgroup;
pub mod channel;
pub mod connections;
pub mod control;
pub mod descriptors;
pub mod doors;
pub mod eyes;
pub mod foreign_socket;
pub mod hangup;
pub mod install;
pub mod kill;
pub mod listen;
pub mod listing;
pub mod memory;
pub mod notify;
pub mod oom_score;
pub mod orphans;
pub mod peer;
pub mod pollable;
pub mod polled;
pub mod process;
pub mod procfs;
pub mod reap;
pub mod script;
pub mod seccomp;
pub mod shapes;
pub mod signals;
pub mod sock_diag;
pub mod socket_file;
pub mod spawn;
pub mod standing;
pub mod standstill;
pub mod stderr;
pub mod steering;
pub mod termination_log;
mod threads;
pub mod timer;
pub mod tty;
pub mod unpoll;
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod untranslated;
pub mod watch;
pub mod weight;

use std::io;

/// The usual convention of system calls: -1 means errno.
fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
