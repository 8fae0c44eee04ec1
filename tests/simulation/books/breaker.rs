//! Closed, open, half-open, worked out anew from all the failures there have been.

use std::time::Duration;

use drainit::core::config::{BreakerRules, MaxCrashes};
use drainit::core::snapshot::BreakerState;
use drainit::core::time::Time;

pub(crate) struct Breaker {
    limit: Option<MaxCrashes>,
    rules: BreakerRules,
    crashes: Vec<Time>,
    failed_rolls: Vec<Time>,
    opened: Option<Time>,
    /// How often it has opened, which people are to be told of.
    pub(crate) openings: u64,
    pub(crate) told: u64,
}

impl Breaker {
    pub(super) fn new(limit: Option<MaxCrashes>, rules: BreakerRules) -> Self {
        Self {
            limit,
            rules,
            crashes: Vec::new(),
            failed_rolls: Vec::new(),
            opened: None,
            openings: 0,
            told: 0,
        }
    }

    fn recent(times: &[Time], window: Duration, now: Time) -> usize {
        times.iter().rev().take_while(|at| now.since(**at) <= window).count()
    }

    fn too_many_crashes(&self, now: Time) -> bool {
        self.limit.is_some_and(|limit| Self::recent(&self.crashes, limit.window, now) > limit.count as usize)
    }

    fn too_many_failed_rolls(&self, now: Time) -> bool {
        Self::recent(&self.failed_rolls, self.rules.window, now) >= self.rules.failures as usize
    }

    pub(crate) fn state(&self, now: Time) -> BreakerState {
        match self.opened {
            Some(at) if now.since(at) < self.rules.reset => BreakerState::Open,
            Some(_) if self.too_many_crashes(now) || self.too_many_failed_rolls(now) => {
                BreakerState::HalfOpen
            }
            Some(_) | None => BreakerState::Closed,
        }
    }

    /// Says whether there have been too many.
    pub(super) fn on_crash(&mut self, now: Time) -> bool {
        if self.limit.is_none() {
            return false;
        }
        let trial = self.state(now) == BreakerState::HalfOpen;
        self.crashes.push(now);
        if trial || self.too_many_crashes(now) {
            self.open(now);
        }
        self.too_many_crashes(now)
    }

    pub(super) fn on_roll_failed(&mut self, now: Time) {
        let trial = self.state(now) == BreakerState::HalfOpen;
        self.failed_rolls.push(now);
        if trial || self.too_many_failed_rolls(now) {
            self.open(now);
        }
    }

    fn open(&mut self, now: Time) {
        self.openings += u64::from(self.state(now) != BreakerState::Open);
        self.opened = Some(now);
    }

    pub(super) fn on_rolled(&mut self) {
        (self.crashes, self.failed_rolls, self.opened) = (Vec::new(), Vec::new(), None);
    }
}
