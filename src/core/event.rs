//! The core's whole vocabulary towards the outside: what can happen, what it asks for, what it tells.

use std::fmt;
use std::time::Duration;

use super::lb_wait::{LbWaitView, Sighting};
use super::signal::Signal;
use super::snapshot::{Phase, RollOutcome};
use super::time::Time;
use super::types::{Edition, Exit, ExitStatus, Generation, Pid, Scope, SlotIndex, Target, WorkerId};
use super::word::Word;

/// Everything that can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first worker may be started. What happens before is taken in, and starts nobody.
    Start,
    /// What has to be there before [`Self::Start`] will not be.
    Unavailable { reason: String },
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
    /// The answer to [`Action::Stop`] and [`Action::End`], where a quiet moment was waited for and has come: the worker
    /// has been killed in it.
    EndedQuietly { worker: WorkerId, why: QuietEnd },
    /// The answer to [`Action::Listen`]: the worker accepts no connection any more, as far as can be seen.
    Deaf { worker: WorkerId, sure: bool },
    /// The answer to [`Action::AnswerLate`]: whoever waited has been answered, and whoever comes is refused.
    LateAnswered,
    /// The worker has not got, or has not read, what [`Action::Message`] sent it.
    Undelivered { worker: WorkerId },
    /// The worker's own process is gone, and has been reaped.
    Exited { worker: WorkerId, exit: Exit },
    /// The answer to [`Action::Weigh`]: so many more workers have room in the memory that is left.
    Weighed { room: u32 },
    /// The worker and its helpers use more memory than they may.
    Overweight { worker: WorkerId },
    /// The answer to [`Action::Observe`].
    Observed(Sighting),
    /// The answer to [`Action::Sweep`], and told again once the last one is gone.
    Descendants { left: bool },
    /// Somebody on the control socket wants something; exactly one [`Action::Reply`] answers.
    Command { command: Command, request: RequestId },
    /// A deadline passed.
    Tick,
}

/// A request on the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The preStop hook: leave the load balancers, answer when that wait is over.
    PreStop,
    /// Make the pool this large.
    Scale(u32),
    /// Take the pool to another generation.
    Roll(RollOrder),
    /// Give up the roll that runs and go back.
    Abort,
}

/// A wish for another generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollOrder {
    /// `None`: whatever the pool is on its way to.
    pub target: Option<Target>,
    pub trigger: RollTrigger,
    /// Reply at the end of the roll, rather than at its start.
    pub wait: bool,
}

/// What started a roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollTrigger {
    Signal(Signal),
    /// Somebody on the control socket.
    Request,
    /// A watched path has changed: whoever started before has seen the old one.
    Watch,
}

impl fmt::Display for RollTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => signal.fmt(f),
            Self::Request => f.write_str("request"),
            Self::Watch => f.write_str("watch"),
        }
    }
}

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(String),
    Refused(String),
    /// The roll failed, or was given up: the pool is what it was.
    RolledBack(String),
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

/// Why a worker that serves is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recycle {
    /// `--max-lifetime`
    Lifetime,
    /// `--max-rss`
    Memory,
}

impl Recycle {
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Lifetime => "it is old (--max-lifetime)",
            Self::Memory => "it is large (--max-rss)",
        }
    }
}

/// Why a worker was not left to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuietEnd {
    /// It does not catch the stop signal, which would have ended it at any moment.
    NoHandler,
    /// Its time was nearly up.
    Straggler,
    /// None of its connections has had a request in flight for long.
    Idle,
}

impl QuietEnd {
    /// As the label of a metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoHandler => "no-handler",
            Self::Straggler => "straggler",
            Self::Idle => "idle",
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
        edition: Edition,
    },
    /// Say how many more workers have room in the memory that is left; answered by [`Event::Weighed`].
    Weigh,
    /// Say when a worker that has been told to finish accepts no connection any more; answered by [`Event::Deaf`], or by
    /// its end. `sure`: one that may only be busy with whom it has accepted last counts as accepting.
    Listen {
        worker: WorkerId,
        sure: bool,
    },
    /// Answer the connections that no worker accepts any more, and those that come until then; answered by
    /// [`Event::LateAnswered`].
    AnswerLate {
        linger_until: Time,
    },
    /// Turn new connections away from a worker; answered by [`Event::Retired`] once its queue is empty.
    Retire {
        worker: WorkerId,
    },
    /// Ask a worker to finish. Where it does not catch the signal, which would end it at once, a moment is waited for in
    /// which it has no request in flight, up to `quiet_until`; without that the signal goes out as it is.
    Stop {
        worker: WorkerId,
        pid: Pid,
        signal: Signal,
        scope: Scope,
        quiet_until: Option<Time>,
    },
    /// Kill a worker that has been asked to finish at the first moment at which it has no request in flight. At `until`
    /// a [`Action::Kill`] follows.
    End {
        worker: WorkerId,
        until: Time,
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
    /// Say a little later what has been seen of load balancers since the last time; answered by [`Event::Observed`].
    Observe,
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
    PhaseChanged {
        from: Phase,
        to: Phase,
    },
    WorkerStarted {
        slot: SlotIndex,
        pid: Pid,
        generation: Generation,
    },
    WorkerReady {
        slot: SlotIndex,
        pid: Pid,
        after: Duration,
    },
    WorkerReloading {
        slot: SlotIndex,
        pid: Pid,
    },
    WorkerReloaded {
        slot: SlotIndex,
        pid: Pid,
    },
    WorkerStopping {
        slot: SlotIndex,
        pid: Pid,
    },
    WorkerExited {
        slot: SlotIndex,
        pid: Pid,
        exit: Exit,
        uptime: Duration,
        expected: bool,
    },
    WorkerLate {
        slot: SlotIndex,
        pid: Pid,
        after: Duration,
    },
    WorkerHung {
        slot: SlotIndex,
        pid: Pid,
        why: Hang,
    },
    MessageInVain {
        slot: SlotIndex,
        pid: Pid,
        after: Duration,
    },
    WorkerEndedQuietly {
        slot: SlotIndex,
        pid: Pid,
        why: QuietEnd,
        after: Duration,
    },
    WorkerKilled {
        slot: SlotIndex,
        pid: Pid,
        after: Duration,
    },
    WorkerReplaced {
        slot: SlotIndex,
        delay: Duration,
        deaths: u32,
    },
    SpawnFailed {
        slot: SlotIndex,
        failure: SpawnFailure,
        retry: Option<Duration>,
    },
    Scaled {
        from: u32,
        to: u32,
    },
    ScaleRefused {
        reason: String,
    },
    SignalIgnored {
        signal: Signal,
    },
    DrainPlanned(DrainPlan),
    LbWaitOver(LbWaitView),
    Stopping {
        workers: u32,
        signal: Signal,
        patience: Duration,
    },
    Messaging {
        workers: u32,
        signal_after: Duration,
        patience: Duration,
    },
    BackToServing,
    RollStarted {
        roll: u64,
        from: Generation,
        to: Generation,
        trigger: RollTrigger,
        workers: u32,
    },
    RollQueued {
        trigger: RollTrigger,
        why: String,
    },
    RollJoined {
        roll: u64,
        trigger: RollTrigger,
    },
    RollRefused {
        trigger: RollTrigger,
        reason: String,
    },
    /// A slot belongs to the new generation; its old worker, if there was one, has been told to go.
    SlotTurned {
        roll: u64,
        slot: SlotIndex,
        generation: Generation,
        done: u32,
        of: u32,
    },
    RollHolds {
        roll: u64,
        canaries: u32,
        hold: Duration,
    },
    RollPauses {
        roll: u64,
        pause: Duration,
    },
    RollShortOfMemory {
        roll: u64,
    },
    RollFailed {
        roll: u64,
        reason: String,
        to: Generation,
    },
    RollOver {
        roll: u64,
        outcome: RollOutcome,
        reason: Option<String>,
        generation: Generation,
        took: Duration,
        replaced: u32,
        least_ready: u32,
    },
    WorkerRecycled {
        slot: SlotIndex,
        pid: Pid,
        why: Recycle,
    },
    RecycleRefused {
        slot: SlotIndex,
        pid: Pid,
    },
    BreakerOpen {
        reason: String,
        reset: Duration,
    },
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
    /// The LB wait at most, and at least.
    pub lb_wait: Duration,
    pub lb_min: Duration,
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
