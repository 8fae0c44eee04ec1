//! Closed, open, half-open: when failures are too many, no more rolls are tried for a while.
//!
//! Crashes and failed rolls are counted apart, each by its own rule, and either opens it. Open, it refuses every roll;
//! after `--breaker-reset` it is half-open and lets one through, which closes it or opens it again. Whatever it is, a
//! pool that serves goes on serving: crashes alone, and nobody left, end it.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{BreakerRules, MaxCrashes};
use super::snapshot::BreakerState;
use super::time::Time;

#[derive(Debug)]
pub(super) struct Breaker {
    limit: Option<MaxCrashes>,
    rules: BreakerRules,
    /// As many as are needed to tell whether there are too many.
    crashes: VecDeque<Time>,
    failed_rolls: VecDeque<Time>,
    opened: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    at: Time,
    why: String,
}

impl Breaker {
    pub(super) const fn new(limit: Option<MaxCrashes>, rules: BreakerRules) -> Self {
        Self { limit, rules, crashes: VecDeque::new(), failed_rolls: VecDeque::new(), opened: None }
    }

    /// One more crash. Says why the breaker opens, if it does now.
    pub(super) fn on_crash(&mut self, now: Time) -> Option<String> {
        let limit = self.limit?;
        keep_last(&mut self.crashes, limit.count as usize + 1, now);
        let why = format!("more than {} crashes in {:?}", limit.count, limit.window);
        let fails = self.has_too_many_crashes(now) || self.state(now) == BreakerState::HalfOpen;
        self.open_if(fails, now, why)
    }

    /// One more roll that has failed. Says why the breaker opens, if it does now.
    pub(super) fn on_roll_failed(&mut self, now: Time) -> Option<String> {
        let half_open = self.state(now) == BreakerState::HalfOpen;
        keep_last(&mut self.failed_rolls, self.rules.failures as usize, now);
        let failures = self.recent_failed_rolls(now);
        let why = format!("{failures} failed rolls in {:?}", self.rules.window);
        self.open_if(half_open || failures >= self.rules.failures as usize, now, why)
    }

    /// A roll has succeeded: what was before is forgiven.
    pub(super) fn on_rolled(&mut self) {
        self.opened = None;
        self.failed_rolls.clear();
        self.crashes.clear();
    }

    fn open_if(&mut self, fails: bool, now: Time, why: String) -> Option<String> {
        if !fails {
            return None;
        }
        let was_open = self.state(now) == BreakerState::Open;
        let opened = self.opened.insert(Opened { at: now, why });
        (!was_open).then(|| opened.why.clone())
    }

    /// Half-open, it closes by itself once the failures are too long ago to count.
    pub(super) fn state(&self, now: Time) -> BreakerState {
        match &self.opened {
            None => BreakerState::Closed,
            Some(opened) if now.since(opened.at) < self.rules.reset => BreakerState::Open,
            Some(_)
                if self.has_too_many_crashes(now)
                    || self.recent_failed_rolls(now) >= self.rules.failures as usize =>
            {
                BreakerState::HalfOpen
            }
            Some(_) => BreakerState::Closed,
        }
    }

    /// Why no roll is let through, and for how long; `None`: it is.
    pub(super) fn refusal(&self, now: Time) -> Option<(&str, Duration)> {
        let opened = self.opened.as_ref().filter(|_| self.state(now) == BreakerState::Open)?;
        Some((&opened.why, (opened.at + self.rules.reset).since(now)))
    }

    /// When it will be half-open.
    pub(super) fn resets_at(&self, now: Time) -> Option<Time> {
        self.opened.as_ref().map(|opened| opened.at + self.rules.reset).filter(|at| *at > now)
    }

    /// More than the allowed number of crashes lie within the window.
    pub(super) fn has_too_many_crashes(&self, now: Time) -> bool {
        self.limit.is_some_and(|limit| recent(&self.crashes, limit.window, now) > limit.count as usize)
    }

    fn recent_failed_rolls(&self, now: Time) -> usize {
        recent(&self.failed_rolls, self.rules.window, now)
    }

    pub(super) const fn limit(&self) -> Option<MaxCrashes> {
        self.limit
    }

    pub(super) const fn reset(&self) -> Duration {
        self.rules.reset
    }
}

fn keep_last(times: &mut VecDeque<Time>, count: usize, now: Time) {
    times.push_back(now);
    while times.len() > count {
        times.pop_front();
    }
}

fn recent(times: &VecDeque<Time>, window: Duration, now: Time) -> usize {
    times.iter().filter(|at| now.since(**at) <= window).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::at(Duration::from_secs(seconds))
    }

    fn breaker(limit: Option<MaxCrashes>) -> Breaker {
        let rules =
            BreakerRules { failures: 3, window: Duration::from_secs(600), reset: Duration::from_secs(60) };
        Breaker::new(limit, rules)
    }

    #[test]
    fn crashes_beyond_the_count_open_it_and_time_closes_it() {
        let mut breaker = breaker(Some(MaxCrashes { count: 2, window: Duration::from_secs(90) }));
        assert_eq!(breaker.on_crash(at(0)), None);
        assert_eq!(breaker.on_crash(at(1)), None);
        assert_eq!(breaker.state(at(1)), BreakerState::Closed);
        assert!(breaker.on_crash(at(2)).is_some());
        assert_eq!(breaker.on_crash(at(3)), None, "told once");
        assert_eq!(breaker.refusal(at(4)).map(|(_, left)| left.as_secs()), Some(59));
        assert_eq!(breaker.state(at(62)), BreakerState::Open);
        assert_eq!(breaker.state(at(63)), BreakerState::HalfOpen);
        assert_eq!(breaker.state(at(94)), BreakerState::Closed);
    }

    #[test]
    fn the_trial_closes_it_or_opens_it_again() {
        let mut breaker = breaker(None);
        assert_eq!(breaker.on_roll_failed(at(0)), None);
        assert_eq!(breaker.on_roll_failed(at(1)), None);
        assert!(breaker.on_roll_failed(at(2)).is_some());
        assert_eq!(breaker.state(at(61)), BreakerState::Open);
        assert_eq!(breaker.state(at(62)), BreakerState::HalfOpen);
        assert!(breaker.refusal(at(62)).is_none());
        assert!(breaker.on_roll_failed(at(70)).is_some());
        assert_eq!(breaker.state(at(129)), BreakerState::Open);
        breaker.on_rolled();
        assert_eq!(breaker.state(at(129)), BreakerState::Closed);
    }

    #[test]
    fn without_a_limit_crashes_never_open_it() {
        let mut breaker = breaker(None);
        (0..1_000).for_each(|_| _ = breaker.on_crash(Time::ZERO));
        assert_eq!(breaker.state(Time::ZERO), BreakerState::Closed);
        assert!(breaker.crashes.is_empty());
    }
}
