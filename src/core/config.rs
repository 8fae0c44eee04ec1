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
    pub restart: Restart,
    pub backoff: Backoff,
    /// A worker that was ready for so long and dies is replaced at once.
    pub min_uptime: Duration,
    /// `None`: crashes are never too many.
    pub max_crashes: Option<MaxCrashes>,
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
            Self::Percent(percent) => {
                u32::try_from((u64::from(whole) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX)
            }
        }
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
}
