//! A picture of the supervisor for everybody who only looks: probes, metrics, status.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::config::Config;
use super::history::{self, RollRecord, RollTotals};
use super::lb_wait::LbWaitView;
use super::timeline::Lifespan;
use super::types::{Generation, Pid, SlotIndex, WorkerId};

/// Where drainit stands between start and exit; these names are used in code, log, metrics and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Not enough workers have been ready yet.
    Starting,
    Serving,
    /// Unready, still accepting, while load balancers let go.
    LameDuck,
    /// The workers have been told to finish.
    Draining,
    /// The workers' time is up.
    Killing,
    Exited,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Serving, Self::LameDuck, Self::Draining, Self::Killing, Self::Exited];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::LameDuck => "lame-duck",
            Self::Draining => "draining",
            Self::Killing => "killing",
            Self::Exited => "exited",
        }
    }
}

/// Where one worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    Starting,
    Ready,
    /// It reads its configuration again, and serves meanwhile.
    Reloading,
    /// It is ending by itself.
    Stopping,
    /// It was ready and does not serve any more; its replacement is under way.
    Hung,
    /// Told to stop.
    Draining,
    /// Its time was up.
    Killed,
}

impl WorkerState {
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Ready,
        Self::Reloading,
        Self::Stopping,
        Self::Hung,
        Self::Draining,
        Self::Killed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
            Self::Hung => "hung",
            Self::Draining => "draining",
            Self::Killed => "killed",
        }
    }

    /// Whether it serves, as far as is known.
    pub const fn is_ready(self) -> bool {
        match self {
            Self::Ready | Self::Reloading => true,
            Self::Starting | Self::Stopping | Self::Hung | Self::Draining | Self::Killed => false,
        }
    }
}

/// Closed: all is well. Open: failures are too many, and rolls are refused. Half-open: one may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

impl BreakerState {
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// How a roll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollOutcome {
    /// The pool is the new generation.
    Rolled,
    /// It failed: the pool is the old generation.
    RolledBack,
    /// Somebody gave it up: the pool is the old generation.
    Aborted,
    /// A drain came.
    Dropped,
}

impl RollOutcome {
    pub const ALL: [Self; 4] = [Self::Rolled, Self::RolledBack, Self::Aborted, Self::Dropped];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rolled => "rolled",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
            Self::Dropped => "dropped",
        }
    }
}

/// What a roll is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollStage {
    /// Workers are being replaced.
    Replacing,
    /// The canaries are being watched.
    Holding,
    /// Between two batches.
    Pausing,
    /// The new generation's workers make room for the old one's.
    RollingBack,
}

impl RollStage {
    pub const ALL: [Self; 4] = [Self::Replacing, Self::Holding, Self::Pausing, Self::RollingBack];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Replacing => "replacing",
            Self::Holding => "holding",
            Self::Pausing => "pausing",
            Self::RollingBack => "rolling-back",
        }
    }
}

/// The roll that runs.
#[derive(Clone, Debug, Serialize)]
pub struct RollView {
    /// Counted from 1.
    pub roll: u64,
    pub from: Generation,
    pub to: Generation,
    /// Of the new generation, where it has one.
    pub version: Option<String>,
    /// What started it.
    pub trigger: String,
    pub stage: RollStage,
    /// Why it goes back, if it does.
    pub reason: Option<String>,
    pub elapsed_seconds: f64,
    /// Slots that are where the roll wants them.
    pub done: u32,
    pub workers: u32,
    /// The fewest workers that have been ready at any moment of it.
    pub least_ready: u32,
    /// Another one waits for its end.
    pub queued: bool,
}

/// Everything there is to see, at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    pub phase: Phase,
    /// What `/readyz` says.
    pub ready: bool,
    /// Enough workers have been ready at least once.
    pub started: bool,
    pub generation: Generation,
    pub breaker: BreakerState,
    pub uptime_seconds: f64,
    /// How many workers there should be.
    pub desired: u32,
    pub ready_workers: u32,
    pub min_ready: u32,
    pub workers: Vec<WorkerView>,
    /// The roll that runs.
    pub roll: Option<RollView>,
    /// All rolls that are over.
    pub rolls: RollTotals,
    /// The last hundred of them, oldest first.
    #[serde(serialize_with = "history::serialize_records")]
    pub history: Vec<Arc<RollRecord>>,
    /// The workers of the roll that runs, or of the last one.
    pub timeline: Vec<Lifespan>,
    /// For how long rolls are refused, and why.
    pub breaker_reason: Option<String>,
    pub breaker_reset_seconds: Option<f64>,
    /// Present from the first of preStop and SIGTERM on.
    pub drain: Option<DrainView>,
    pub counters: Counters,
}

/// What the answers of probes depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    pub phase: Phase,
    pub ready: bool,
    pub started: bool,
    pub breaker: BreakerState,
    pub desired: u32,
    pub ready_workers: u32,
    pub min_ready: u32,
    /// Workers that live and serve nobody, and those that may yet serve.
    pub hung: u32,
    pub starting: u32,
}

/// One worker. Neither arguments nor environment: they hold secrets.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerView {
    #[serde(skip)]
    pub id: WorkerId,
    pub slot: SlotIndex,
    pub pid: Option<Pid>,
    pub generation: Generation,
    /// Of the generation, where it has one.
    pub version: Option<String>,
    pub state: WorkerState,
    pub ready: bool,
    /// How the worker got its sockets.
    pub socket: &'static str,
    /// Established ones, as they were when somebody looked last; `None` where nobody has, or there is no seeing them.
    pub connections: Option<u32>,
    pub uptime_seconds: f64,
    /// What it says of itself, for people (`STATUS=`).
    pub status_text: Option<String>,
    /// Who of its processes is the one that matters, where it names another than the one we started (`MAINPID=`).
    pub main_pid: Option<Pid>,
}

/// The drain in seconds, counted from its start.
#[derive(Clone, Debug, Serialize)]
pub struct DrainView {
    pub trigger: String,
    pub elapsed_seconds: f64,
    pub lb_wait_seconds: f64,
    /// What was seen in the LB wait; nothing where the drain has none.
    pub lb_wait: Option<LbWaitView>,
    /// Until everything is killed.
    pub deadline_seconds: f64,
}

/// What has been counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Workers started in place of one that exited by itself with code 0.
    pub restarts_exit: u64,
    /// … with another code, or by a signal.
    pub restarts_crash: u64,
    /// … that the kernel killed for want of memory.
    pub restarts_oom: u64,
    /// … that was not ready in time.
    pub restarts_late: u64,
    /// … that lived and did not serve any more.
    pub restarts_hung: u64,
    /// Workers replaced because they were old.
    pub recycled_lifetime: u64,
    /// … because they were large.
    pub recycled_memory: u64,
    pub spawns: u64,
    /// Workers that the kernel killed for want of memory, replaced or not.
    pub oom_kills: u64,
    pub spawn_failures: u64,
    /// Workers killed because their time was up.
    pub forced_kills: u64,
    /// Workers without a handler for the stop signal, killed while they served nobody.
    pub ended_without_handler: u64,
    /// Workers whose time was nearly up, killed while they served nobody.
    pub ended_stragglers: u64,
    /// Workers none of whose connections had had a request in flight for `--end-idle-after`.
    pub ended_idle: u64,
    pub signals_forwarded: u64,
    pub prestop_calls: u64,
    /// A preStop hook that no SIGTERM followed.
    pub prestop_returns: u64,
    pub hard_deadlines: u64,
    /// LB waits, by why they were over.
    pub lb_waits_quiet: u64,
    pub lb_waits_max: u64,
    pub lb_waits_signal: u64,
    pub ready_timeouts: u64,
    pub watchdog_timeouts: u64,
    pub orphan_timeouts: u64,
    /// Queues that were not empty in time.
    pub retire_timeouts: u64,
    /// Stop messages that the signal had to follow.
    pub stop_message_timeouts: u64,
}

/// The named deadlines and how long each lets somebody wait.
pub fn deadlines(config: &Config) -> [(&'static str, Option<Duration>); 12] {
    [
        ("ready", config.ready_timeout),
        ("min-ready", Some(config.roll.min_ready_time)),
        ("canary-hold", config.roll.canary.map(|canary| canary.hold)),
        ("roll-pause", Some(config.roll.pause)),
        ("watchdog", config.watchdog),
        ("lb-wait", Some(config.effective_lb_wait().max)),
        ("retire", config.retire_patience()),
        ("drain", Some(config.stop_patience())),
        ("stop-message", config.stop_message.map(|message| message.patience(config.stop_patience()))),
        ("hard", Some(config.budget())),
        ("orphan", Some(config.orphan_grace)),
        ("prestop-return", Some(super::config::PRESTOP_RETURN)),
    ]
}
