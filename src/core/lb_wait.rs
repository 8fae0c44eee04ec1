//! When load balancers have let go: what was seen of them, and what it proves.
//!
//! Whoever sends no new connection any more has let go, or keeps those it has and has none to open: so there is a
//! minimum. Whoever checks readiness believes it only after some failures. What nobody can see proves nothing, and the
//! wait lasts as long as it may.

use serde::Serialize;

use super::config::{Config, ReadinessOnDrain};
use super::time::Time;

/// What was seen since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// New connections to the workers; `None` where nobody can tell.
    pub connections: Option<u32>,
    /// Load balancers that were checking readiness before, and still do.
    pub checkers: u32,
    /// How many checks in a row each of them has seen fail, at least.
    pub refused: u32,
}

/// Why the wait was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LbWaitEnd {
    /// There was none.
    None,
    /// The load balancers had let go.
    Quiet,
    /// Its time was up.
    Max,
    /// Somebody was in a hurry.
    Signal,
}

impl LbWaitEnd {
    /// As the label of a metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quiet => "quiet",
            Self::Max => "max",
            Self::Signal => "signal",
        }
    }
}

/// One wait, as far as it has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LbWaitView {
    pub min_seconds: f64,
    pub max_seconds: f64,
    pub elapsed_seconds: f64,
    /// Why it is over, once it is.
    pub reason: Option<&'static str>,
    /// New connections since its beginning; nothing where nobody has looked or can tell.
    pub connections: Option<u64>,
    /// Since the last of them, or since the beginning.
    pub quiet_seconds: Option<f64>,
    /// Load balancers that check readiness, and how many checks in a row each of them has seen fail, at least.
    pub checkers: u32,
    pub refused: u32,
}

/// What speaks for an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    began: Time,
    /// The last moment at which there may have been a new connection.
    busy_until: Time,
    connections: Option<u64>,
    checkers: u32,
    refused: u32,
    over: Option<(Time, LbWaitEnd)>,
}

impl Evidence {
    pub(super) fn since(began: Time) -> Self {
        Self { began, busy_until: began, connections: None, checkers: 0, refused: 0, over: None }
    }

    pub(super) fn add(&mut self, now: Time, seen: Sighting) {
        self.checkers = seen.checkers;
        self.refused = seen.refused;
        if seen.connections != Some(0) {
            self.busy_until = now;
        }
        self.connections = seen.connections.map(|new| self.connections.unwrap_or(0) + u64::from(new));
    }

    /// Asked at every look and at no other moment: what has come since the last one is not known.
    pub(super) fn is_enough(&self, now: Time, config: &Config) -> bool {
        // Nobody is told where readiness is kept.
        let nobody_to_tell = self.checkers == 0 || config.readiness_on_drain == ReadinessOnDrain::Keep;
        now.since(self.began) >= config.effective_lb_wait().min
            && self.connections.is_some()
            && now.since(self.busy_until) >= config.lb_quiet
            && (nobody_to_tell || self.refused >= config.lb_checks)
    }

    pub(super) fn close(&mut self, now: Time, why: LbWaitEnd) {
        self.over = Some((now, why));
    }

    pub(super) fn view(&self, now: Time, config: &Config) -> LbWaitView {
        let wait = config.effective_lb_wait();
        let until = self.over.map_or(now, |(at, _)| at);
        LbWaitView {
            min_seconds: wait.min.as_secs_f64(),
            max_seconds: wait.max.as_secs_f64(),
            elapsed_seconds: until.since(self.began).as_secs_f64(),
            reason: self.over.map(|(_, why)| why.name()),
            connections: self.connections,
            quiet_seconds: self.connections.map(|_| until.since(self.busy_until).as_secs_f64()),
            checkers: self.checkers,
            refused: self.refused,
        }
    }
}
