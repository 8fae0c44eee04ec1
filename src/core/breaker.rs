//! The tally of crashes: more than so many in so long, and the breaker is open.

use std::collections::VecDeque;

use super::config::MaxCrashes;
use super::snapshot::BreakerState;
use super::time::Time;

/// Crash times, as many as are needed to tell whether the limit is passed.
#[derive(Debug)]
pub(super) struct Breaker {
    limit: Option<MaxCrashes>,
    crashes: VecDeque<Time>,
}

impl Breaker {
    pub(super) const fn new(limit: Option<MaxCrashes>) -> Self {
        Self { limit, crashes: VecDeque::new() }
    }

    pub(super) fn record(&mut self, now: Time) {
        let Some(limit) = self.limit else { return };
        self.crashes.push_back(now);
        while self.crashes.len() > limit.count as usize + 1 {
            self.crashes.pop_front();
        }
    }

    /// Open while more than the allowed number of crashes lie within the window.
    pub(super) fn state(&self, now: Time) -> BreakerState {
        let Some(limit) = self.limit else { return BreakerState::Closed };
        let recent = self.crashes.iter().filter(|at| now.since(**at) <= limit.window).count();
        if recent > limit.count as usize { BreakerState::Open } else { BreakerState::Closed }
    }

    pub(super) const fn limit(&self) -> Option<MaxCrashes> {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn opens_beyond_the_count_and_closes_with_the_window() {
        let at = |seconds| Time::at(Duration::from_secs(seconds));
        let mut breaker = Breaker::new(Some(MaxCrashes { count: 2, window: Duration::from_secs(60) }));
        breaker.record(at(0));
        breaker.record(at(1));
        assert_eq!(breaker.state(at(1)), BreakerState::Closed);
        breaker.record(at(2));
        assert_eq!(breaker.state(at(2)), BreakerState::Open);
        assert_eq!(breaker.state(at(61)), BreakerState::Closed);
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let mut breaker = Breaker::new(None);
        (0..1_000).for_each(|_| breaker.record(Time::ZERO));
        assert_eq!(breaker.state(Time::ZERO), BreakerState::Closed);
        assert!(breaker.crashes.is_empty());
    }
}
