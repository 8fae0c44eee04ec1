//! Whose time has come, though it serves.

use std::time::Duration;

use super::slot::{Slot, Turn};
use super::{Pool, Standing};
use crate::core::context::Context;
use crate::core::event::Recycle;
use crate::core::time::Time;
use crate::core::types::{Generation, Pid, SlotIndex, WorkerId};

/// Workers that have grown together do not go together.
const SPREAD: Duration = Duration::from_secs(5);

impl Pool {
    /// A worker uses more memory than it may.
    pub(in crate::core) fn on_overweight(&mut self, id: WorkerId, ctx: &mut Context) {
        let at = ctx.now + ctx.rng.up_to(SPREAD);
        let worker = self.workers.get_mut(id).filter(|worker| worker.state.is_ready());
        if let Some(worker) = worker.filter(|worker| worker.recycle.is_none_or(|(due, _)| due > at)) {
            worker.recycle = Some((at, Recycle::Memory));
        }
    }

    /// The slot whose worker is being recycled.
    pub(in crate::core) fn recycled(&self) -> Option<(SlotIndex, Recycle)> {
        (0..).zip(&self.slots).find_map(|(index, slot)| match slot.turn {
            Some(Turn::Recycle(why)) => Some((index, why)),
            Some(Turn::Roll) | None => None,
        })
    }

    /// A roll replaces everybody: whom nobody has come for yet is left to it, and with him the memory for one more.
    pub(in crate::core) fn leave_recycling_to_the_roll(&mut self) {
        let is_ready = |id: WorkerId| self.workers.get(id).is_some_and(|worker| worker.state.is_ready());
        let waits = |slot: &&mut Slot| slot.successor.is_none() && slot.due.is_some();
        for slot in self.slots.iter_mut().filter(waits) {
            let recycled = slot.turn.take_if(|turn| *turn != Turn::Roll).is_some();
            if recycled && slot.occupant.is_some_and(is_ready) {
                slot.due = None;
            }
        }
    }

    /// Whoever is next to be recycled, and when.
    pub(in crate::core) fn next_recycle(&self) -> Option<(Time, WorkerId, Recycle)> {
        let settled = self
            .slots
            .iter()
            .filter(|slot| slot.turn.is_none() && slot.successor.is_none() && slot.due.is_none());
        let recycled = settled.filter_map(|slot| slot.occupant).filter_map(|id| {
            let worker = self.workers.get(id).filter(|worker| worker.state.is_ready())?;
            worker.recycle.map(|(at, why)| (at, id, why))
        });
        recycled.min_by_key(|(at, id, _)| (*at, *id))
    }

    pub(in crate::core) fn seat_of(&self, id: WorkerId) -> Option<(SlotIndex, Pid)> {
        self.workers.get(id).map(|worker| (worker.slot, worker.pid()))
    }

    pub(in crate::core) fn postpone_recycle(&mut self, id: WorkerId, until: Time) {
        if let Some(recycle) = self.workers.get_mut(id).and_then(|worker| worker.recycle.as_mut()) {
            recycle.0 = until;
        }
    }

    /// Whether it is still the old worker that has a slot; it is left alone until then.
    pub(in crate::core) fn keep_old(&mut self, index: SlotIndex, now: Time, until: Time) -> bool {
        let occupant = self.slots.get(index as usize).and_then(|slot| slot.occupant);
        let recycle =
            occupant.and_then(|id| self.workers.get_mut(id)).and_then(|worker| worker.recycle.as_mut());
        recycle.filter(|(at, _)| *at <= now).map(|recycle| recycle.0 = until).is_some()
    }

    pub(in crate::core) fn standing_of(
        &self,
        index: SlotIndex,
        target: Generation,
        min_ready: Duration,
        now: Time,
    ) -> Standing {
        let slot = self.slots.get(index as usize);
        slot.map_or(Standing::Done, |slot| self.standing(slot, target, min_ready, now))
    }
}
