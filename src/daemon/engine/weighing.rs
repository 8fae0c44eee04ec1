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
        let fresh = self.scales.seen.as_ref().is_some_and(|seen| now.since(seen.at) < FRESH);
        let mut room = if fresh { self.room() } else { 0 };
        // What leads to a refusal has to be true.
        if room == 0 {
            let headroom = weight::headroom();
            let weights = if headroom.is_some() { weight::of_groups() } else { BTreeMap::new() };
            self.scales.seen = Some(Seen { at: now, headroom, weights });
            room = self.room();
        }
        self.events.push_back(Event::Weighed { room });
    }

    fn room(&self) -> u32 {
        let Some(Seen { headroom: Some(headroom), weights, .. }) = &self.scales.seen else { return u32::MAX };
        let weight_of = |pid: Pid| weights.get(&pid).map_or(0, |weight| weight.own);
        let largest = self.workers.values().map(|worker| weight_of(worker.pid)).max().unwrap_or(0);
        if largest == 0 {
            return u32::MAX;
        }
        // Whoever is starting has not grown yet.
        let claimed: u64 = self
            .workers
            .values()
            .filter(|worker| !worker.ready && !worker.told)
            .map(|worker| largest.saturating_sub(weight_of(worker.pid)))
            .sum();
        u32::try_from(headroom.saturating_sub(claimed) / largest).unwrap_or(u32::MAX)
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
