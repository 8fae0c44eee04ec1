//! Recycling: a worker that is old or large is replaced while it serves, one at a time, its replacement first.

use std::time::Duration;

use super::Supervisor;
use crate::core::drain::Life;
use crate::core::event::{Notice, Recycle};
use crate::core::pool::{Standing, Turn};
use crate::core::time::Time;
use crate::core::types::SlotIndex;

/// Where there is no room for a replacement: until somebody looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Supervisor {
    pub(super) fn recycling_deadline(&self) -> Option<Time> {
        let idle = self.roll.is_none() && self.pool.recycled().is_none();
        let now = self.ctx.now;
        let next = if idle {
            self.pool.next_recycle().map(|(at, ..)| at)
        } else {
            let min_ready = self.ctx.config.roll.min_ready_time;
            let generation = self.pool.edition().generation;
            self.pool.recycled().and_then(|_| self.pool.next_proof(generation, min_ready, now))
        };
        next.filter(|at| *at > now)
    }

    /// Its slot is the roll's then, where one has begun, and whoever leaves is seen by it.
    pub(super) fn finish_recycling(&mut self) {
        let Some((slot, why)) = self.pool.recycled().filter(|_| !self.life.is_ending()) else { return };
        let rules = self.ctx.config.roll;
        let generation = self.pool.edition().generation;
        // A roll that has begun since has newcomers of its own, who have to prove themselves too.
        let own = (generation, rules.min_ready_time);
        let (judged, min_ready) = self.roll.as_ref().map_or(own, |roll| roll.yardstick(&self.ctx));
        let survey = self.pool.survey(judged, min_ready, self.ctx.now);
        let spare = survey.available.saturating_sub(self.floor().saturating_sub(survey.written_off()));
        self.pool.promote(|turn| turn != Turn::Roll, rules.min_ready_time, spare, &mut self.ctx);
        let standing = self.pool.standing_of(slot, generation, rules.min_ready_time, self.ctx.now);
        if standing == Standing::Done {
            self.pool.end_turn(slot);
            self.on_recycled(slot, why);
        }
    }

    pub(super) fn begin_recycling(&mut self) {
        let busy = self.roll.is_some() || self.pool.recycled().is_some();
        if busy || !matches!(self.life, Life::Running) {
            return;
        }
        let due = self.pool.next_recycle().filter(|(at, ..)| *at <= self.ctx.now);
        let Some((_, id, why)) = due else { return };
        let rules = self.ctx.config.roll;
        let edition = self.pool.edition();
        let workers = self.pool.desired();
        let (surge, _) = rules.bounds(workers);
        let survey = self.pool.survey(edition.generation, rules.min_ready_time, self.ctx.now);
        let may_add = survey.committed < workers.saturating_add(surge);
        let room = match may_add {
            true => self.scales.room(survey.load(), &mut self.ctx),
            false => Some(0),
        };
        let Some(room) = room else { return };
        self.scales.forget();
        let make_room = room == 0;
        let Some((slot, pid)) = self.pool.seat_of(id) else { return };
        // Whoever is on the way out leaves a place, and memory.
        if make_room && (survey.leaving > 0 || survey.available <= self.floor()) {
            if survey.leaving == 0 {
                self.pool.postpone_recycle(id, self.ctx.now + LOOK_AGAIN);
                self.ctx.tell(Notice::RecycleRefused { slot, pid });
            }
            return;
        }
        self.ctx.tell(Notice::WorkerRecycled { slot, pid, why });
        self.pool.turn(slot, Turn::Recycle(why), edition, make_room, &mut self.ctx);
    }

    /// Workers below which nobody goes first.
    fn floor(&self) -> u32 {
        let workers = self.pool.desired();
        let (_, unavailable) = self.ctx.config.roll.bounds(workers);
        workers.saturating_sub(unavailable)
    }

    fn on_recycled(&mut self, slot: SlotIndex, why: Recycle) {
        // Nobody came, by the restart policy.
        if self.pool.keep_old(slot, self.ctx.now, self.ctx.now + LOOK_AGAIN) {
            return;
        }
        match why {
            Recycle::Lifetime => self.ctx.counters.recycled_lifetime += 1,
            Recycle::Memory => self.ctx.counters.recycled_memory += 1,
        }
    }
}
