//! Whether there is memory for one worker more, and who uses more of it than it may.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::core::event::Event;
use crate::core::time::Time;
use crate::core::types::{Pid, WorkerId};
use crate::sys::weight::{self, Weight};

/// For so long what has been seen is good enough: a roll of hundreds of workers asks for each of them.
const FRESH: Duration = Duration::from_secs(1);

/// Between two looks at workers that `--max-rss` limits.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Scales {
    seen: Option<Seen>,
    /// `--max-rss`, in bytes.
    max_rss: Option<u64>,
    look_at: Option<Time>,
}

#[derive(Debug)]
struct Seen {
    at: Time,
    headroom: Option<u64>,
    weights: BTreeMap<Pid, Weight>,
    /// Who had grown by then, or was on the way out.
    grown: Vec<Pid>,
}

impl Seen {
    /// How many more have room beside `workers`, who are there now.
    fn room(&self, workers: &[Pid]) -> u32 {
        let Some(headroom) = self.headroom else { return u32::MAX };
        let weight_of = |pid: &Pid| self.weights.get(pid).map_or(0, |weight| weight.own);
        let largest = workers.iter().map(weight_of).max().unwrap_or(0);
        if largest == 0 {
            return u32::MAX;
        }
        // Whoever was starting then, or has been started since, takes its share of what was seen to be left, however large
        // it is by now.
        let growing = workers.iter().filter(|pid| !self.grown.contains(pid));
        let claimed: u64 = growing.map(|pid| largest.saturating_sub(weight_of(pid))).sum();
        u32::try_from(headroom.saturating_sub(claimed) / largest).unwrap_or(u32::MAX)
    }
}

impl Scales {
    pub(super) fn new(max_rss: Option<u64>) -> Self {
        Self { seen: None, max_rss, look_at: max_rss.map(|_| Time::ZERO + LOOK_EVERY) }
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.look_at
    }
}

impl Engine {
    /// How many more workers have room, each as large as the largest there is.
    pub(super) fn weigh(&mut self) {
        let now = self.clock.now();
        let workers = self.worker_pids();
        let fresh = self.scales.seen.as_ref().filter(|seen| now.since(seen.at) < FRESH);
        let mut room = fresh.map_or(0, |seen| seen.room(&workers));
        // What leads to a refusal has to be true.
        if room == 0 {
            let headroom = weight::headroom();
            let weights = if headroom.is_some() { weight::of_groups() } else { BTreeMap::new() };
            let grown = self.workers.values().filter(|worker| worker.ready || worker.told);
            let seen = Seen { at: now, headroom, weights, grown: grown.map(|worker| worker.pid).collect() };
            room = seen.room(&workers);
            self.scales.seen = Some(seen);
        }
        self.events.push_back(Event::Weighed { room });
    }

    /// Look whether a worker is too large.
    pub(super) fn look_for_the_overweight(&mut self, now: Time) {
        let (Some(limit), Some(at)) = (self.scales.max_rss, self.scales.look_at) else { return };
        if at > now {
            return;
        }
        self.scales.look_at = Some(now + LOOK_EVERY);
        let weights = weight::of_groups();
        let is_over = |pid: Pid| weights.get(&pid).is_some_and(|weight| weight.resident > limit);
        let over = self.workers.iter().filter(|(_, worker)| worker.ready && is_over(worker.pid));
        let over: Vec<WorkerId> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|worker| self.feed(Event::Overweight { worker }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much as was left then, and two workers, the second of which was starting.
    fn seen(headroom: u64) -> Seen {
        let weight = |own| Weight { own, resident: own };
        let weights = BTreeMap::from([(Pid(1), weight(100)), (Pid(2), weight(10))]);
        Seen { at: Time::ZERO, headroom: Some(headroom), weights, grown: vec![Pid(1)] }
    }

    #[test]
    fn who_was_starting_when_somebody_looked_has_its_share_set_aside() {
        assert_eq!(seen(190).room(&[Pid(1), Pid(2)]), 1);
        assert_eq!(seen(189).room(&[Pid(1), Pid(2)]), 0);
    }

    #[test]
    fn so_has_who_was_not_there_yet() {
        assert_eq!(seen(290).room(&[Pid(1), Pid(2), Pid(3)]), 1);
        assert_eq!(seen(289).room(&[Pid(1), Pid(2), Pid(3)]), 0);
    }

    #[test]
    fn nothing_is_set_aside_for_who_has_grown_or_is_gone() {
        assert_eq!(seen(100).room(&[Pid(1)]), 1);
    }
}
