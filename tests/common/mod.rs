//! Real processes, in namespaces of their own, watched from outside.
//!
//! [`Launch`] says what to start and under which conditions, [`Running`] is what came of it and leaves
//! nothing behind when dropped, [`Process`] reads the kernel's own view of one process.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(unreachable_pub)]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod gate;
pub mod http;
mod launch;
pub mod machine;
pub mod network;
pub mod not_run;
pub mod pool;
mod process;
mod pty;
mod subject;
mod wait;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub use launch::{Exit, Launch, Outcome, Running};
pub use not_run::cannot_run;
pub use process::{Process, bit};
pub use pty::Pty;
pub use subject::{Scope, Subject};
pub use wait::{DEADLINE, holds_for, spin, timed, until, until_at_last, within};

/// The binary under test as PID 1 of its own namespace.
pub fn pid1() -> Launch {
    Launch::new(&["pidns"])
}

/// The binary under test as the child of another PID 1, which tells `survivors` if it leaves any.
pub fn nested() -> Launch {
    Launch::new(&["pidns", "nest"])
}

/// A worker that catches and logs all signals, says when it is ready and ends with `end`.
pub fn signal_log(end: &str) -> [String; 3] {
    ["watch".into(), "say=ready".into(), format!("log={end}")]
}

pub fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// A user id that no other test uses, as RLIMIT_NPROC counts by user.
pub fn fresh_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    200_000 + (std::process::id() % 0x10000) * 64 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The fixture, an example of this package; see its own documentation.
pub fn fixture() -> PathBuf {
    example("fixture")
}

/// Cargo builds the examples of the package before its tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let path = test.ancestors().nth(2).expect("target/PROFILE/deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --example {name}", path.display());
    path
}

/// A directory that every user can read, with copies of both binaries: they may have been built in a
/// place that is closed to others, or be needed as the only files of a root.
pub struct Stage(tempfile::TempDir);

impl Stage {
    pub fn new() -> Self {
        let stage = Self(tempfile::tempdir().expect("a temporary directory"));
        fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).unwrap();
        stage.copy(Subject::from_env().path(), "init");
        stage.copy(&fixture(), "fixture");
        stage
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn init(&self) -> PathBuf {
        self.path().join("init")
    }

    pub fn fixture(&self) -> PathBuf {
        self.path().join("fixture")
    }

    /// By a process of its own: while this one has the copy open for writing, another test's fork would
    /// inherit the descriptor and make it impossible to execute ("text file busy").
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.path().join(name);
        let status = Command::new("cp").arg("--").arg(from).arg(&to).status().expect("cp");
        assert!(status.success(), "cp: {status}");
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    }

    pub fn script(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        let status =
            Command::new("sh").args(["-c", "printf %s \"$1\" > \"$0\""]).arg(&path).arg(text).status();
        assert!(status.expect("sh").success());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}
