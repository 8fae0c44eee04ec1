//! The core's whole vocabulary towards the outside: what can happen, what it asks for, what it tells.

use std::fmt;
use std::time::Duration;

use super::signal::Signal;
use super::snapshot::Phase;
use super::types::{Exit, ExitStatus, Generation, Pid, Scope, SlotIndex, WorkerId};
use super::word::Word;

/// Everything that can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first event of all.
    Start,
    /// A signal reached drainit. A queued one carries a value, which goes on with it.
    Signal { signal: Signal, value: Option<u64> },
    /// The answer to [`Action::Spawn`]: the worker executes its command.
    Spawned { worker: WorkerId, pid: Pid },
    /// The other answer to [`Action::Spawn`].
    SpawnFailed { worker: WorkerId, failure: SpawnFailure },
    /// The worker can serve.
    Ready { worker: WorkerId },
    /// The worker says something of itself.
    Said { worker: WorkerId, word: Word },
    /// The worker lives and does not serve any more.
    Hung { worker: WorkerId, why: Hang },
    /// The answer to [`Action::Retire`]: nothing waits for the worker any more.
    Retired { worker: WorkerId },
    /// The worker has not got, or has not read, what [`Action::Message`] sent it.
    Undelivered { worker: WorkerId },
    /// The worker's own process is gone, and has been reaped.
    Exited { worker: WorkerId, exit: Exit },
    /// The answer to [`Action::Sweep`], and told again once the last one is gone.
    Descendants { left: bool },
    /// Somebody on the control socket wants something; exactly one [`Action::Reply`] answers.
    Command { command: Command, request: RequestId },
    /// A deadline passed.
    Tick,
}

/// A request on the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The preStop hook: leave the load balancers, answer when that wait is over.
    PreStop,
    /// Make the pool this large.
    Scale(u32),
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(String),
    Refused(String),
}

/// Why a worker could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The command is not there (ENOENT).
    NotFound(String),
    /// The command cannot be executed.
    CannotExecute(String),
    /// The system refused: no process, no memory, no descriptor. It may do so later no more.
    System(String),
}

impl SpawnFailure {
    pub fn reason(&self) -> &str {
        match self {
            Self::NotFound(reason) | Self::CannotExecute(reason) | Self::System(reason) => reason,
        }
    }
}

/// How a worker was found to be hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// It failed its checks, `--check-failures` in a row.
    Checks,
    /// No WATCHDOG=1 came in time.
    Silent,
    /// It said so itself.
    Trigger,
}

impl Hang {
    /// As a sentence about the worker.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Checks => "failed its checks (--check)",
            Self::Silent => "sent no WATCHDOG=1 in time (--watchdog)",
            Self::Trigger => "says so itself (WATCHDOG=trigger)",
        }
    }
}

/// Everything the core may ask the world to do. Results come back as events.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a worker; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        worker: WorkerId,
        slot: SlotIndex,
        generation: Generation,
    },
    /// Turn new connections away from a worker; answered by [`Event::Retired`] once its queue is empty.
    Retire {
        worker: WorkerId,
    },
    /// Send a signal to a worker that has not been reaped yet.
    Kill {
        pid: Pid,
        signal: Signal,
        scope: Scope,
        value: Option<u64>,
    },
    /// Send the stop message to a worker; [`Event::Undelivered`] where that cannot be.
    Message {
        pid: Pid,
    },
    /// Send a signal to everything that outlived the workers; answered by [`Event::Descendants`].
    Sweep {
        signal: Signal,
    },
    Reply {
        request: RequestId,
        outcome: Outcome,
    },
    /// Something people want to know.
    Tell(Notice),
    /// The last action of all.
    Exit(ExitStatus),
}

/// What happened, for the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    PhaseChanged { from: Phase, to: Phase },
    WorkerStarted { slot: SlotIndex, pid: Pid, generation: Generation },
    WorkerReady { slot: SlotIndex, pid: Pid, after: Duration },
    WorkerReloading { slot: SlotIndex, pid: Pid },
    WorkerReloaded { slot: SlotIndex, pid: Pid },
    WorkerStopping { slot: SlotIndex, pid: Pid },
    WorkerExited { slot: SlotIndex, pid: Pid, exit: Exit, uptime: Duration, expected: bool },
    WorkerLate { slot: SlotIndex, pid: Pid, after: Duration },
    WorkerHung { slot: SlotIndex, pid: Pid, why: Hang },
    MessageInVain { slot: SlotIndex, pid: Pid, after: Duration },
    WorkerKilled { slot: SlotIndex, pid: Pid, after: Duration },
    WorkerReplaced { slot: SlotIndex, delay: Duration, deaths: u32 },
    SpawnFailed { slot: SlotIndex, failure: SpawnFailure, retry: Option<Duration> },
    Scaled { from: u32, to: u32 },
    ScaleRefused { reason: String },
    SignalIgnored { signal: Signal },
    DrainPlanned(DrainPlan),
    LbWaitOver { waited: Duration, why: &'static str },
    Stopping { workers: u32, signal: Signal, patience: Duration },
    Messaging { workers: u32, signal_after: Duration, patience: Duration },
    BackToServing,
    BreakerOpen { crashes: u32, window: Duration },
    SweepKilled,
    HardDeadline,
}

/// The arithmetic of one drain, told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    pub trigger: Trigger,
    pub grace: Duration,
    pub margin: Duration,
    /// Already gone since the first of preStop and SIGTERM.
    pub spent: Duration,
    pub lb_wait: Duration,
    /// What is left for the workers.
    pub drain: Duration,
}

/// What started a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    PreStop,
    Signal(Signal),
    CrashLoop,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreStop => f.write_str("preStop"),
            Self::Signal(signal) => signal.fmt(f),
            Self::CrashLoop => f.write_str("crash loop"),
        }
    }
}
