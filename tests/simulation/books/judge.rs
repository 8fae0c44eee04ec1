//! What is promised of a roll and a recycling, judged at each spawn and each farewell.

use std::time::Duration;

use drainit::core::config::{Count, Restart};
use drainit::core::event::Recycle;
use drainit::core::snapshot::RollOutcome;
use drainit::core::time::Time;
use drainit::core::types::{Edition, Generation, Pid, SlotIndex, WorkerId};

use super::super::records::Record;
use super::Books;
use super::rolls::Rolling;

impl Books {
    pub(super) fn object(&mut self, promise: &'static str, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.this_step.objections.push((promise, otherwise()));
        }
    }

    /// How many may be beside the others, and how many may be missing: as in a Deployment.
    pub(crate) fn bounds(&self) -> (u32, u32) {
        let of = |count: Count, carry: u64| match count {
            Count::Workers(workers) => workers,
            Count::Percent(percent) => ((u64::from(self.desired) * u64::from(percent) + carry) / 100) as u32,
        };
        let surge = of(self.config.roll.max_surge, 99);
        let unavailable = of(self.config.roll.max_unavailable, 0).min(self.desired);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Whose workers have to prove themselves, and for how long.
    fn proof(&self) -> (Generation, Duration) {
        match &self.rolls.running {
            Some(roll) if roll.back.is_some() => (roll.from.generation, Duration::ZERO),
            Some(roll) => (roll.to.generation, self.config.roll.min_ready_time),
            None => (self.rolls.edition.generation, self.config.roll.min_ready_time),
        }
    }

    fn has_been_ready(&self, worker: &Record, so_long: Duration) -> bool {
        worker.is_ready() && worker.ready_at.is_some_and(|at| self.now.since(at) >= so_long)
    }

    fn counts(&self, worker: &Record) -> bool {
        let (generation, so_long) = self.proof();
        worker.is_ready() && (worker.generation != generation || self.has_been_ready(worker, so_long))
    }

    fn is_alone_and_proved(&self, index: SlotIndex, generation: Generation, so_long: Duration) -> bool {
        let Some(slot) = self.slots.get(index as usize) else { return true };
        let occupant = slot.occupant.and_then(|id| self.workers.get(&id));
        let proved = occupant
            .is_some_and(|worker| worker.generation == generation && self.has_been_ready(worker, so_long));
        proved && slot.successor.is_none() && slot.vacancy.is_none()
            || slot.is_finished() && self.config.restart != Restart::Always
    }

    /// Every slot is where a roll wants it.
    pub(crate) fn has_arrived(&self, generation: Generation) -> bool {
        let (_, so_long) = self.proof();
        (0..self.desired).all(|index| self.is_alone_and_proved(index, generation, so_long))
    }

    /// The core tells a worker to go whom nothing else forces to.
    pub(super) fn note_farewell(&mut self, id: WorkerId) {
        let gives_way =
            self.rolls.running.as_ref().is_some_and(|roll| roll.stuck) && self.rolls.queued.is_some();
        if let Some(slot) = self.slots.iter_mut().find(|slot| gives_way && slot.successor == Some(id)) {
            slot.successor = None;
            return self.let_go(id);
        }
        let seat = self.slots.iter().position(|slot| slot.occupant == Some(id));
        let busy = self.rolls.running.is_some() || self.rolls.recycled.is_some();
        let Some(index) = seat.filter(|_| busy) else {
            self.object("a farewell has a reason", false, || format!("{id:?}"));
            return self.let_go(id);
        };
        let served = self.workers.get(&id).is_some_and(|worker| worker.is_ready());
        let recycles = self.rolls.recycled == Some(index as SlotIndex);
        let first = self.slots[index].successor.is_none();
        match self.slots[index].successor {
            Some(successor) => {
                let back = self.rolls.running.as_ref().is_some_and(|roll| roll.back.is_some());
                let so_long = if back { Duration::ZERO } else { self.config.roll.min_ready_time };
                let proved =
                    self.workers.get(&successor).is_some_and(|worker| self.has_been_ready(worker, so_long));
                self.object("a replacement proves itself first", proved, || {
                    format!("{id:?} goes, {successor:?} has not been ready for {so_long:?}")
                });
                self.succeed(index);
            }
            None => {
                let slot = &mut self.slots[index];
                (slot.refill, slot.vacancy, slot.deaths) = (true, None, 0);
                self.let_go(id);
                self.this_step.saw.push("stopped first");
                if recycles {
                    self.this_step.saw.push("recycled without a surge");
                } else {
                    self.note_turn(index as SlotIndex);
                }
            }
        }
        if served {
            self.enough_serve(id, first);
        }
    }

    /// Where nobody has come yet, a slot that keeps crashing is one that is missing.
    fn enough_serve(&mut self, gone: WorkerId, first: bool) {
        let (_, unavailable) = self.bounds();
        let serving = self.workers.values().filter(|worker| self.counts(worker)).count() as u32;
        let goes_back = self.rolls.running.as_ref().is_some_and(|roll| roll.back.is_some());
        // Nobody waits for slots that keep crashing, or that nobody comes to any more.
        let hopeless = self.slots.iter().filter(|slot| {
            let occupant = slot.occupant.and_then(|id| self.workers.get(&id));
            slot.finished
                || (goes_back || !first)
                    && slot.deaths > 1
                    && !occupant.is_some_and(|worker| self.counts(worker))
        });
        let promised = self.desired.saturating_sub(unavailable);
        let mut floor = promised.saturating_sub(hopeless.count() as u32);
        if goes_back && first {
            floor = floor.max(promised.min(1));
        }
        self.object("enough serve while others are replaced", serving >= floor, || {
            format!("{serving} after {gone:?} went, at least {floor}")
        });
    }

    /// A slot is given to the new generation, or back to the old one.
    fn note_turn(&mut self, index: SlotIndex) {
        let suspended = self.budget_from.is_some();
        self.object("a drain suspends a roll", !suspended, || format!("slot {index} is turned"));
        let leaving = self.leaving();
        let (rules, now, step) = (self.config.roll, self.now, self.step);
        let finished = self.slots.iter().map(|slot| slot.finished).collect::<Vec<_>>();
        let Some(roll) = self.rolls.running.as_mut().filter(|roll| roll.back.is_none()) else { return };
        if !roll.turned.insert(index) {
            return;
        }
        roll.replaced += 1;
        // Of whoever has finished there is nothing to be judged.
        let turned = roll.turned.iter().filter(|index| !finished[**index as usize]).count() as u32;
        let (turned, holds, batch, paused) = (turned, roll.holds, roll.batch, roll.paused);
        roll.batch = Some((now, step));
        if let Some(canary) = rules.canary.filter(|canary| turned > canary.workers) {
            let held = holds.is_some_and(|at| now.since(at) >= canary.hold);
            self.object("canaries come first", held, || format!("{turned} turned, held since {holds:?}"));
        }
        if rules.waits_for_drain {
            self.object("a batch waits for those who leave", leaving == 0, || format!("{leaving} leave"));
        }
        let Some((at, _)) = batch.filter(|(_, earlier)| *earlier != step) else { return };
        if rules.waits_for_drain || !rules.pause.is_zero() {
            // Those that nobody has seen may be of this very batch.
            let mut batch = self.this_step.given_away.clone();
            batch.push(index);
            self.nobody_is_on_the_way("one batch follows the other", &batch);
        }
        if !rules.pause.is_zero() {
            // The hold is a pause too.
            let rests = [paused, holds].into_iter().flatten();
            let rested = rests.max().is_some_and(|since| since >= at && now.since(since) >= rules.pause);
            self.object("a pause comes between batches", rested, || {
                format!("the last batch was at {at:?}, the pause at {paused:?}")
            });
        }
    }

    /// Workers that are in no slot any more.
    fn leaving(&self) -> usize {
        let seated = self.slots.iter().flat_map(|slot| slot.occupant.into_iter().chain(slot.successor));
        self.workers.len() - seated.count()
    }

    pub(super) fn nobody_is_on_the_way(&mut self, promise: &'static str, but: &[SlotIndex]) {
        let Some(roll) = self.rolls.forward() else { return };
        let (to, so_long) = (roll.to.generation, self.config.roll.min_ready_time);
        // Who has been there and ends by himself is not on his way.
        let leaves = |index: &SlotIndex| {
            let occupant = self.slots.get(*index as usize).and_then(|slot| slot.occupant);
            occupant.and_then(|id| self.workers.get(&id)).is_some_and(|worker| worker.stopping.is_some())
        };
        let slots = roll.turned.iter().copied().filter(|index| !but.contains(index) && !leaves(index));
        let under_way = slots.clone().find(|index| !self.is_alone_and_proved(*index, to, so_long));
        self.object(promise, under_way.is_none(), || format!("{under_way:?} is on its way"));
    }

    pub(super) fn note_holds(&mut self) {
        self.nobody_is_on_the_way("canaries come first", &[]);
        let (now, desired, canary) = (self.now, self.desired, self.config.roll.canary);
        let finished = self.slots.iter().filter(|slot| slot.is_finished()).count() as u32;
        let Some(roll) = &mut self.rolls.running else { return };
        roll.holds = Some(now);
        let turned = roll.turned.len() as u32;
        let enough = canary.is_some_and(|canary| turned >= canary.workers.min(desired - finished));
        self.object("canaries come first", enough, || format!("{turned} of {canary:?}"));
    }

    /// Whoever is spawned is of the generation that is due, and within the surge where nobody is missing.
    pub(super) fn judge_spawn(&mut self, id: WorkerId, index: SlotIndex, edition: Edition) {
        let generation = edition.generation;
        let given_up = self.rolls.given_up.contains(&generation);
        self.object("nobody is spawned for what has been given up", !given_up, || format!("{id:?}"));
        let due = match &self.rolls.running {
            Some(roll) if roll.back.is_none() => edition == roll.from || edition == roll.to,
            Some(roll) => edition == roll.from,
            None => edition == self.rolls.edition,
        };
        self.object("everybody is of the generation that is due", due, || format!("{id:?} is {edition:?}"));
        let Some(slot) = self.slots.get(index as usize) else { return };
        let (beside, wanted) = (slot.occupant.is_some(), slot.vacancy.is_some());
        let (after_farewell, left) = (slot.after_farewell, slot.left);
        let idle = self.rolls.running.is_none() && self.budget_from.is_none();
        let is_new = self.rolls.forward().is_some_and(|roll| roll.to == edition);
        let recycles = self.rolls.recycled == Some(index) && !wanted && idle;
        let goes_back = self.rolls.running.as_ref().is_some_and(|roll| roll.back.is_some()) && !wanted;
        if is_new {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                slot.deaths = 0;
            }
            // What nobody has seen: the old one had been told already when its slot was given away, before it went or just now.
            if after_farewell && !beside && left == self.step {
                if let Some(roll) = &mut self.rolls.running {
                    roll.replaced += u32::from(roll.turned.insert(index));
                }
                self.this_step.given_away.push(index);
            } else {
                self.note_turn(index);
            }
        } else if goes_back {
            if beside || !after_farewell {
                self.note_turn(index);
            }
        } else {
            let occupant = slot.occupant.and_then(|id| self.workers.get(&id));
            let useless = occupant.is_some_and(|worker| worker.told.is_some() || worker.hung);
            // A roll may have given it away when the last one had been told to go already, which nobody sees.
            let silent = after_farewell && !beside && self.rolls.ended > Time::ZERO;
            self.object("spawns fill vacancies", wanted || recycles || useless || silent, || {
                format!("{id:?} in slot {index}")
            });
        }
        if beside && (is_new || recycles || goes_back) {
            self.surge_has_room(id, index);
            if is_new || recycles {
                // Whoever is sure to come takes his room without asking.
                let (room, coming) = (self.rolls.room, self.coming(index));
                let fits = room.is_some_and(|room| room as usize > coming);
                self.object("memory is weighed before a surge", fits, || {
                    format!("{id:?} has room {room:?}, {coming} are to come")
                });
            }
        }
        self.rolls.room = self.rolls.room.map(|room| room.saturating_sub(1));
    }

    /// Into other slots, and whatever a roll does.
    fn coming(&self, index: SlotIndex) -> usize {
        let coming = self.slots.iter().enumerate().filter(|(other, slot)| {
            // Whose last one is on his way out may be given away, which nobody sees.
            let occupant = slot.occupant.and_then(|id| self.workers.get(&id));
            let waits = occupant.is_some_and(|worker| worker.told.is_some());
            *other != index as usize && slot.vacancy.is_some() && !waits
        });
        coming.count()
    }

    /// Stragglers, those that leave and those that are sure to come are counted all.
    fn surge_has_room(&mut self, id: WorkerId, index: SlotIndex) {
        let processes = self.workers.len() + 1 + self.coming(index);
        let most = u64::from(self.desired) + u64::from(self.bounds().0);
        self.object("never more than the surge allows", processes as u64 <= most, || {
            format!("{processes} with {id:?}, at most {most}")
        });
        if self.leaving() > 0 && processes as u64 == most {
            self.this_step.saw.push("stragglers fill the surge");
        }
    }

    pub(super) fn demand_shortage(&mut self) {
        let (began, short) = (self.rolls.running.as_ref().map(|roll| roll.began), self.rolls.short);
        self.object("memory is weighed before a surge", short >= began, || {
            format!("short, and that was said at {short:?}")
        });
    }

    pub(super) fn judge_end(&mut self, roll: &Rolling, outcome: RollOutcome) {
        let (generation, so_long) = match outcome {
            RollOutcome::Rolled => (roll.to.generation, self.config.roll.min_ready_time),
            RollOutcome::RolledBack | RollOutcome::Aborted => (roll.from.generation, Duration::ZERO),
            RollOutcome::Dropped => return,
        };
        // Whoever has something better may try.
        if outcome != RollOutcome::Rolled && roll.stuck && self.rolls.queued.is_some() && self.may_roll() {
            self.recall_turns(generation);
            return self.this_step.saw.push("a rollback gave way");
        }
        self.nobody_is_heard(generation);
        let missing = (0..self.desired).find(|index| !self.is_alone_and_proved(*index, generation, so_long));
        let seat = missing.and_then(|index| self.slots.get(index as usize)).map(|slot| format!("{slot:?}"));
        self.object("a roll ends at full strength", missing.is_none(), || {
            format!("{outcome:?}, slot {missing:?} is not {generation:?}: {seat:?}")
        });
        if outcome != RollOutcome::Rolled {
            return;
        }
        if let Some(canary) = self.config.roll.canary {
            let held = roll.holds.is_some_and(|at| self.now.since(at) >= canary.hold);
            self.object("canaries come first", held, || format!("rolled, held since {:?}", roll.holds));
        }
        let leaving = self.leaving();
        self.object(
            "a batch waits for those who leave",
            !self.config.roll.waits_for_drain || leaving == 0,
            || format!("rolled, {leaving} leave"),
        );
    }

    /// Whoever asks once it is over is answered by the generation that the pool is of; with a queue of its own nobody else is
    /// asked.
    fn nobody_is_heard(&mut self, generation: Generation) {
        let seated: Vec<_> =
            self.slots.iter().flat_map(|slot| slot.occupant.into_iter().chain(slot.successor)).collect();
        let heard = self
            .workers
            .iter()
            .find(|(id, worker)| worker.generation != generation && !worker.deaf && !seated.contains(id));
        let heard = heard.map(|(id, _)| *id).filter(|_| !self.config.own_queues);
        self.object("a roll is over when nobody is heard any more", heard.is_none(), || format!("{heard:?}"));
    }

    /// Once of each, and only of those that have been told to go and are of another generation than the one to come.
    pub(super) fn note_listened(&mut self, id: WorkerId) {
        let wanted = self.rolls.running.as_ref().map(|roll| match roll.back {
            Some(_) => roll.from.generation,
            None => roll.to.generation,
        });
        let own_queues = self.config.own_queues;
        let seated = self.slots.iter().any(|slot| [slot.occupant, slot.successor].contains(&Some(id)));
        let right = self.workers.get_mut(&id).is_some_and(|worker| {
            let again = std::mem::replace(&mut worker.listened_to, true);
            let leaves = worker.told.is_some() && !worker.killed && !seated;
            leaves
                && !again
                && !worker.deaf
                && !own_queues
                && wanted.is_some_and(|wanted| wanted != worker.generation)
        });
        self.object("a roll is over when nobody is heard any more", right, || {
            format!("{id:?} is listened to")
        });
    }

    /// Who was about to replace somebody who serves is not needed any more.
    fn recall_turns(&mut self, generation: Generation) {
        for index in 0..self.slots.len() {
            let is_ready = |id: WorkerId| self.workers.get(&id).is_some_and(|worker| worker.is_ready());
            let of = |id: WorkerId| self.workers.get(&id).map(|worker| worker.generation);
            let slot = &self.slots[index];
            // Where the old one is of the same generation, somebody was hung. A recycling goes on, whatever the old one is: one
            // that a rollback has left behind, which did not come to its end, may be recycled too.
            let recycles = self.rolls.recycled == Some(index as SlotIndex);
            let goes_back = slot.occupant.and_then(of) != Some(generation) && !recycles;
            if goes_back && slot.occupant.is_some_and(is_ready) {
                let slot = &mut self.slots[index];
                slot.vacancy = None;
                let recalled = slot.successor.take();
                recalled.into_iter().for_each(|id| self.let_go(id));
            }
        }
    }

    /// A roll replaces whoever is to be recycled, where nobody has come for him yet.
    pub(super) fn leave_recycling_to_the_roll(&mut self) {
        let Some(index) = self.rolls.recycled.filter(|_| self.rolls.running.is_some()) else { return };
        let is_ready = |id| self.workers.get(&id).is_some_and(|worker| worker.is_ready());
        let Some(slot) = self.slots.get(index as usize) else { return };
        let (serves, waits) =
            (slot.occupant.is_some_and(is_ready), slot.successor.is_none() && slot.vacancy.is_some());
        if !waits {
            return;
        }
        self.rolls.recycled = None;
        self.slots[index as usize].vacancy.take_if(|_| serves);
        self.this_step.saw.push("a roll took over a recycling");
    }

    pub(super) fn note_recycled(&mut self, index: SlotIndex, pid: Pid, why: Recycle) {
        let name = "recycling waits its turn";
        let idle = self.rolls.running.is_none() && self.budget_from.is_none();
        self.object(name, idle, || "a roll runs, or a drain".to_owned());
        let other = self.rolls.recycled.and_then(|index| self.slots.get(index as usize));
        let settled = other.is_none_or(|slot| slot.successor.is_none() && !slot.refill);
        let other = self.rolls.recycled;
        self.object(name, settled, || format!("{other:?} is being recycled"));
        let slot = self.slots.get(index as usize);
        let worker = slot.and_then(|slot| slot.occupant).and_then(|id| self.workers.get(&id));
        let due = worker.is_some_and(|worker| {
            let age = worker.ready_at.map(|at| self.now.since(at));
            let old = self.config.max_lifetime.zip(age).is_some_and(|(most, age)| age >= most - most / 10);
            let reason = match why {
                Recycle::Lifetime => old,
                Recycle::Memory => worker.overweight,
            };
            reason && worker.is_ready() && worker.pid == Some(pid)
        });
        self.object(name, due, || format!("slot {index} for {why:?}"));
        self.rolls.recycled = Some(index);
        self.this_step.saw.push(match why {
            Recycle::Lifetime => "recycled by age",
            Recycle::Memory => "recycled by memory",
        });
    }
}
