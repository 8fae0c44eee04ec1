//! The nouns: who is meant, how it ended, what drainit ends with.

use std::fmt;

use serde::Serialize;

use super::signal::Signal;

/// The stable place of a worker in the pool, counted from 0.
pub type SlotIndex = u32;

/// One incarnation of a worker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WorkerId(pub u64);

/// A process id as drainit sees it, in its own PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One command, environment and version; counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Generation(pub u64);

/// What a generation is made of, kept by whoever starts workers: the same number, the same command, environment and
/// version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Release(pub u64);

/// A release as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub release: Release,
    pub version: Option<String>,
}

/// A generation and what is started for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    pub generation: Generation,
    pub release: Release,
}

/// How a process ended: what wait(2) tells, and the kernel's other books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned from main or called exit(3).
    Code(u8),
    /// A signal killed it.
    Signal(Signal),
    /// The kernel killed it, for there was no memory left.
    OutOfMemory,
}

impl Exit {
    /// As a shell shows it: the code, or 128 + the signal.
    pub const fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.number() as u8,
            Self::OutOfMemory => Self::Signal(Signal::KILL).code(),
        }
    }

    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by {signal}"),
            Self::OutOfMemory => f.write_str("was killed by the kernel: out of memory (OOM)"),
        }
    }
}

/// Who gets a signal that is meant for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The worker's own process.
    Leader,
    /// Its whole process group.
    Group,
}

/// Exit codes of drainit itself; sysexits(3), timeout(1) and the shells gave the numbers.
pub mod code {
    /// A flag or its value cannot be used.
    pub const USAGE: u8 = 64;
    /// An address is taken or refused.
    pub const UNAVAILABLE: u8 = 69;
    /// A bug of ours.
    pub const SOFTWARE: u8 = 70;
    /// The system refused: fork, memory.
    pub const OS: u8 = 71;
    /// Workers keep crashing.
    pub const CRASH_LOOP: u8 = 75;
    /// A worker had to be killed in the drain.
    pub const DEADLINE: u8 = 124;
    /// COMMAND is there and cannot be executed.
    pub const CANNOT_EXECUTE: u8 = 126;
    /// COMMAND is not there.
    pub const NOT_FOUND: u8 = 127;
}

/// The end of drainit: the exit code and one line that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    pub code: u8,
    pub reason: String,
}
