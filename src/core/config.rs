//! What the core has to know. Parsed and proved elsewhere: every value here makes sense.

use std::collections::BTreeMap;
use std::time::Duration;

use super::signal::{Signal, SignalTable};
use super::types::Scope;

/// The most workers a pool can have; a typing error must not become a fork bomb.
pub const MAX_WORKERS: u32 = 1024;

/// How long drainit waits for the SIGTERM that should follow a preStop hook before it goes back to serving.
pub const PRESTOP_RETURN: Duration = Duration::from_secs(10);

/// The supervisor's rules; immutable for the life of the process.
#[derive(Clone, Debug)]
pub struct Config {
    pub kind: Kind,
    pub workers: u32,
    /// Of the first generation, where it has one.
    pub version: Option<String>,
    pub restart: Restart,
    pub backoff: Backoff,
    /// A worker that was ready for so long and dies is replaced at once.
    pub min_uptime: Duration,
    /// `None`: crashes are never too many.
    pub max_crashes: Option<MaxCrashes>,
    pub roll: RollRules,
    pub breaker: BreakerRules,
    /// A worker that has been ready for about so long is replaced.
    pub max_lifetime: Option<Duration>,
    /// A worker not ready after this long is failed.
    pub ready_timeout: Option<Duration>,
    pub min_ready: Count,
    /// How often a worker that serves has to be heard of.
    pub watchdog: Option<Duration>,
    /// The orchestrator's whole patience.
    pub grace: Duration,
    /// Kept back from it.
    pub margin: Duration,
    pub lb_wait: LbWait,
    /// Between its two bounds the LB wait ends once no new connection has come for so long …
    pub lb_quiet: Duration,
    /// … and every load balancer that checks readiness has seen it fail so often.
    pub lb_checks: u32,
    pub readiness_on_drain: ReadinessOnDrain,
    /// `None`: whatever is left of the budget.
    pub drain_timeout: Option<Duration>,
    pub orphan_grace: Duration,
    pub stop_signal: Signal,
    /// What comes before the signal, to workers that take messages.
    pub stop_message: Option<StopMessage>,
    pub signal_scope: Scope,
    /// Connections wait for each worker in a queue of its own, which somebody else cannot serve.
    pub own_queues: bool,
    pub signals: SignalTable,
    /// `None`: whoever waits when the last worker accepts no more is left alone.
    pub late: Option<LateRules>,
    /// Exit codes to be shown as others.
    pub remap_exit: BTreeMap<u8, u8>,
    /// Of the jitter.
    pub seed: u64,
}

/// What drainit is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One worker, no socket of drainit's: an init.
    Single,
    /// Several workers, or a socket that outlives them.
    Pool,
}

/// What happens when a worker exits by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

/// Bounds of the random delay before a crashed worker is started again.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

/// More than `count` crashes in `window` open the breaker.
#[derive(Clone, Copy, Debug)]
pub struct MaxCrashes {
    pub count: u32,
    pub window: Duration,
}

/// How the pool goes from one generation to the next.
#[derive(Clone, Copy, Debug)]
pub struct RollRules {
    /// Processes beyond the pool's size.
    pub max_surge: Count,
    /// Workers of the pool's size that may be missing.
    pub max_unavailable: Count,
    /// A replacement has to stay ready for so long.
    pub min_ready_time: Duration,
    /// Between one batch and the next.
    pub pause: Duration,
    pub canary: Option<Canary>,
    /// The next batch waits until the replaced workers are gone.
    pub waits_for_drain: bool,
}

/// The first `workers` replacements are watched for `hold`, before there are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    pub workers: u32,
    pub hold: Duration,
}

/// Rolls that fail too often are refused for a while.
#[derive(Clone, Copy, Debug)]
pub struct BreakerRules {
    /// So many failed rolls in `window` open it.
    pub failures: u32,
    pub window: Duration,
    /// Until it lets one trial through.
    pub reset: Duration,
}

/// How long to go on serving, unready, while load balancers let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbWait {
    pub min: Duration,
    pub max: Duration,
}

/// A worker that is told to stop gets a message first, and the signal once that has had its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopMessage {
    /// `None`: as long as the worker's time permits.
    pub wait: Option<Duration>,
}

/// Connections that no worker accepts any more are answered by drainit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateRules {
    /// For so long, before whoever still comes is refused.
    pub linger: Duration,
}

/// Whether `/readyz` fails during the LB wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadinessOnDrain {
    Fail,
    Keep,
}

/// A number of workers, or a share of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Workers(u32),
    Percent(u32),
}

impl Count {
    /// Of a pool of `whole`; percentages round up.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Workers(count) => count,
            Self::Percent(percent) => share(whole, percent, 99),
        }
    }

    /// As [`Count::of`], and percentages round down.
    pub fn at_most_of(self, whole: u32) -> u32 {
        match self {
            Self::Workers(count) => count,
            Self::Percent(percent) => share(whole, percent, 0),
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Workers(0) | Self::Percent(0))
    }
}

fn share(whole: u32, percent: u32, carry: u64) -> u32 {
    u32::try_from((u64::from(whole) * u64::from(percent) + carry) / 100).unwrap_or(u32::MAX)
}

impl Default for RollRules {
    fn default() -> Self {
        Self {
            max_surge: Count::Workers(1),
            max_unavailable: Count::Workers(0),
            min_ready_time: Duration::ZERO,
            pause: Duration::ZERO,
            canary: None,
            waits_for_drain: false,
        }
    }
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 3, window: Duration::from_secs(600), reset: Duration::from_secs(60) }
    }
}

impl RollRules {
    /// Processes beyond a pool of `workers`, and how many of its workers may be missing. As in a Deployment: the surge
    /// rounds up, the other one down, and where that leaves nothing to move with, one may be missing.
    pub fn bounds(&self, workers: u32) -> (u32, u32) {
        let surge = self.max_surge.of(workers);
        let unavailable = self.max_unavailable.at_most_of(workers).min(workers);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Nobody may come and nobody may go: no roll ever moves.
    pub fn cannot_move(&self) -> bool {
        self.max_surge.is_zero() && self.max_unavailable.is_zero()
    }

    /// One batch after the other, rather than one worker as soon as another is done.
    pub fn has_batches(&self) -> bool {
        self.waits_for_drain || !self.pause.is_zero()
    }
}

impl Config {
    /// What drainit may use of the grace period.
    pub fn budget(&self) -> Duration {
        self.grace.saturating_sub(self.margin)
    }

    /// The LB wait as it fits the budget: a quarter of it, at least 500 ms, belongs to the workers.
    pub fn effective_lb_wait(&self) -> LbWait {
        let budget = self.budget();
        let limit = budget.saturating_sub((budget / 4).max(Duration::from_millis(500)));
        LbWait { min: self.lb_wait.min.min(limit), max: self.lb_wait.max.min(limit) }
    }

    /// How long a worker that is told to stop may take, where no drain says less.
    pub fn stop_patience(&self) -> Duration {
        self.drain_timeout.unwrap_or_else(|| self.budget())
    }

    /// How long a worker that is to go may take to serve its own queue before it is told, where nobody else can.
    pub fn retire_patience(&self) -> Option<Duration> {
        self.own_queues.then(|| self.stop_patience() / 2)
    }

    /// One worker that is never replaced: its exit code becomes drainit's own.
    pub fn mirrors_exit(&self) -> bool {
        self.workers == 1 && self.restart == Restart::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up() {
        assert_eq!(Count::Percent(50).of(3), 2);
        assert_eq!(Count::Percent(1).of(4), 1);
        assert_eq!(Count::Percent(100).of(4), 4);
        assert_eq!(Count::Percent(0).of(4), 0);
        assert_eq!(Count::Workers(3).of(2), 3);
    }

    #[test]
    fn surge_and_unavailable_round_as_deployments_do() {
        let bounds = |max_surge, max_unavailable, workers| {
            let rules = RollRules { max_surge, max_unavailable, ..RollRules::default() };
            rules.bounds(workers)
        };
        assert_eq!(bounds(Count::Percent(25), Count::Percent(25), 10), (3, 2));
        assert_eq!(bounds(Count::Percent(100), Count::Workers(0), 4), (4, 0));
        assert_eq!(bounds(Count::Workers(0), Count::Percent(100), 4), (0, 4));
        assert_eq!(bounds(Count::Workers(0), Count::Percent(10), 4), (0, 1));
        assert_eq!(bounds(Count::Workers(1), Count::Workers(9), 4), (1, 4));
    }
}
