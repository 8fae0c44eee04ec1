//! One worker in another's place: what a roll and a recycling are made of.

use std::time::Duration;

use super::slot::Turn;
use super::{Pool, Slot};
use crate::core::context::Context;
use crate::core::event::Action;
use crate::core::scales::Load;
use crate::core::snapshot::WorkerState;
use crate::core::time::Time;
use crate::core::types::{Edition, Generation, SlotIndex, WorkerId};
use crate::core::worker::Worker;

/// The pool in the eyes of whoever takes it to a generation.
#[derive(Debug)]
pub(in crate::core) struct Survey {
    /// By slot.
    pub(in crate::core) standings: Vec<Standing>,
    /// Workers that serve; those of the generation asked for only once they have been ready for long enough.
    pub(in crate::core) available: u32,
    /// Processes there are, and those that are sure to come.
    pub(in crate::core) committed: u32,
    /// The latter alone.
    pub(in crate::core) coming: u32,
    /// Workers that are in no slot any more.
    pub(in crate::core) leaving: u32,
    /// Those of them that may still accept connections.
    pub(in crate::core) accepting: bool,
    /// Slots in which workers crash one after the other: nobody waits for them.
    pub(in crate::core) hopeless: u32,
    /// Slots that are empty for good.
    pub(in crate::core) finished: u32,
    /// Whoever came last.
    newest: WorkerId,
}

/// How far a slot is on its way to a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Standing {
    /// There.
    Done,
    /// On its way.
    Underway,
    /// Its worker is of another generation, and serves.
    Serving,
    /// Its worker is of another generation and does not serve, or there is none.
    Broken { alive: bool, hopeless: bool },
    /// Somebody takes its worker's place for another reason.
    Busy,
    /// Empty for good.
    Finished,
}

impl Survey {
    /// Slots that nobody waits for.
    pub(in crate::core) fn written_off(&self) -> u32 {
        self.hopeless + self.finished
    }

    /// What makes it another pool, for whoever weighs it.
    pub(in crate::core) fn load(&self) -> Load {
        let Self { committed, coming, leaving, newest, .. } = *self;
        Load { committed, coming, leaving, newest }
    }
}

impl Pool {
    /// Where the pool stands on its way to a generation, of which a worker counts once it has been ready for `min_ready`.
    pub(in crate::core) fn survey(&self, target: Generation, min_ready: Duration, now: Time) -> Survey {
        let standings: Vec<_> =
            self.slots.iter().map(|slot| self.standing(slot, target, min_ready, now)).collect();
        let available = self.workers.values().filter(|worker| is_available(worker, target, min_ready, now));
        let seated = self
            .slots
            .iter()
            .map(|slot| u32::from(slot.occupant.is_some()) + u32::from(slot.successor.is_some()));
        let seated: u32 = seated.sum();
        let seated_in = |id: WorkerId, index: SlotIndex| {
            let slot = self.slots.get(index as usize);
            slot.is_some_and(|slot| slot.occupant == Some(id) || slot.successor == Some(id))
        };
        let may_accept = |worker: &Worker| worker.edition.generation != target && !worker.deaf;
        let mut left = self.workers.iter().filter(|(id, worker)| !seated_in(*id, worker.slot));
        let accepting = self.len() > seated && left.any(|(_, worker)| may_accept(worker));
        let coming = self
            .slots
            .iter()
            .filter(|slot| if slot.is_vacant() { !slot.finished } else { slot.due.is_some() });
        let coming = count(coming);
        let serves = |id: WorkerId| self.workers.get(id).is_some_and(|worker| worker.state.is_ready());
        let hopeless =
            self.slots.iter().filter(|slot| slot.is_hopeless() && !slot.occupant.is_some_and(serves));
        Survey {
            available: count(available),
            committed: self.len().saturating_add(coming),
            coming,
            leaving: self.len().saturating_sub(seated),
            accepting,
            hopeless: count(hopeless.filter(|slot| !slot.finished)),
            finished: count(self.slots.iter().filter(|slot| slot.finished)),
            newest: WorkerId(self.last_id),
            standings,
        }
    }

    /// Have it told of everybody on the way out when he accepts no more.
    pub(in crate::core) fn await_deaf(&mut self, target: Generation, ctx: &mut Context) {
        for (id, worker) in self.workers.iter_mut() {
            let leaves = worker.state == WorkerState::Draining && worker.edition.generation != target;
            if leaves && !worker.deaf && !std::mem::replace(&mut worker.listened_to, true) {
                ctx.act(Action::Listen { worker: id, sure: false });
            }
        }
    }

    pub(super) fn standing(
        &self,
        slot: &Slot,
        target: Generation,
        min_ready: Duration,
        now: Time,
    ) -> Standing {
        let occupant = slot.occupant.and_then(|id| self.workers.get(id));
        let is_there = occupant.is_some_and(|worker| worker.edition.generation == target);
        let serves = occupant.is_some_and(|worker| worker.state.is_ready());
        let alone = slot.successor.is_none() && slot.due.is_none();
        let settled = occupant.is_some_and(|worker| is_available(worker, target, min_ready, now));
        let hopeless = slot.is_hopeless();
        match slot.turn {
            _ if slot.finished => Standing::Finished,
            _ if is_there && alone && settled => Standing::Done,
            Some(Turn::Roll) => Standing::Underway,
            Some(Turn::Recycle(_)) => Standing::Busy,
            None if is_there => Standing::Underway,
            // Whoever comes here next is of that generation anyway.
            None if slot.is_vacant() && slot.edition.generation == target => Standing::Underway,
            None if slot.is_vacant() => Standing::Broken { alive: false, hopeless },
            None if slot.successor.is_some() => Standing::Busy,
            None if serves => Standing::Serving,
            None => Standing::Broken { alive: true, hopeless },
        }
    }

    /// Have a worker of `edition` take the place of whoever is in a slot: beside it, or, to make room, after it.
    pub(in crate::core) fn turn(
        &mut self,
        index: SlotIndex,
        turn: Turn,
        edition: Edition,
        make_room: bool,
        ctx: &mut Context,
    ) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.turn = Some(turn);
        slot.edition = edition;
        slot.deaths = 0;
        if !make_room || slot.is_vacant() {
            slot.due = Some(ctx.now);
            return;
        }
        slot.due = None;
        slot.refill = true;
        if let Some(id) = slot.occupant {
            self.let_go(id, ctx);
        }
    }

    /// Successors that have been ready for `min_ready` take their slots, where `spare` workers can be done without, and
    /// those whose places they take are told to go. Says whether there were any.
    pub(in crate::core) fn promote(
        &mut self,
        turn: fn(Turn) -> bool,
        min_ready: Duration,
        spare: u32,
        ctx: &mut Context,
    ) -> bool {
        let proved = |id: WorkerId| {
            let worker = self.workers.get(id).filter(|worker| worker.state.is_ready());
            worker.and_then(|worker| worker.ready_for(ctx.now)).is_some_and(|ready| ready >= min_ready)
        };
        let slots = (0..).zip(&self.slots);
        let due = slots.filter(|(_, slot)| slot.turn.is_some_and(turn) && slot.successor.is_some_and(proved));
        let due: Vec<SlotIndex> = due.map(|(index, _)| index).take(spare as usize).collect();
        due.iter().for_each(|index| self.succeed(*index, ctx));
        !due.is_empty()
    }

    /// A slot has arrived. Says whether it had a turn.
    pub(in crate::core) fn end_turn(&mut self, index: SlotIndex) -> bool {
        self.slots.get_mut(index as usize).is_some_and(|slot| slot.turn.take().is_some())
    }

    /// No roll is under way any more: whoever comes from here on is of the pool's own generation.
    pub(in crate::core) fn end_turns(&mut self) {
        let edition = self.edition;
        for slot in &mut self.slots {
            slot.turn.take_if(|turn| *turn == Turn::Roll);
            slot.edition = edition;
        }
    }

    /// Whoever was about to take a place for generation `failed` goes, and `back` comes where nobody is left. Whoever
    /// has taken one and serves stays for the time being.
    pub(in crate::core) fn undo(&mut self, failed: Generation, back: Edition, ctx: &mut Context) {
        let is_failed = |workers: &Self, id: &WorkerId| {
            workers.workers.get(*id).is_some_and(|worker| worker.edition.generation == failed)
        };
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else { continue };
            let successor = slot.successor.filter(|id| is_failed(self, id));
            let unready = slot.occupant.filter(|id| {
                is_failed(self, id)
                    && self.workers.get(*id).is_some_and(|worker| worker.state == WorkerState::Starting)
            });
            let state = |id| self.workers.get(id).map(|worker| worker.state);
            let forsaken = slot.occupant.and_then(state) == Some(WorkerState::Hung);
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if slot.edition.generation != failed && successor.is_none() {
                continue;
            }
            slot.turn = None;
            slot.edition = back;
            slot.successor.take_if(|id| Some(*id) == successor);
            slot.refill |= unready.is_some();
            slot.due = (forsaken || slot.is_vacant() && !slot.finished).then_some(ctx.now);
            successor.into_iter().chain(unready).for_each(|id| self.let_go(id, ctx));
        }
    }

    /// Whoever was about to take the place of somebody who serves is not needed.
    pub(in crate::core) fn recall_turns(&mut self, ctx: &mut Context) {
        for index in 0..self.slots.len() {
            let serves = |id| self.workers.get(id).is_some_and(|worker| worker.state.is_ready());
            let turned = self.slots.get_mut(index).filter(|slot| slot.turn == Some(Turn::Roll));
            let Some(slot) = turned.filter(|slot| slot.occupant.is_some_and(serves)) else { continue };
            slot.due = None;
            if let Some(successor) = slot.successor.take() {
                self.let_go(successor, ctx);
            }
        }
    }

    /// Somebody comes at once where there is nobody.
    pub(in crate::core) fn refill(&mut self, index: SlotIndex, now: Time) {
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.is_vacant() && !slot.finished);
        if let Some(slot) = slot {
            slot.due = slot.due.or(Some(now));
        }
    }

    /// When the next successor or newcomer of a generation will have been ready for `min_ready`.
    pub(in crate::core) fn next_proof(
        &self,
        generation: Generation,
        min_ready: Duration,
        now: Time,
    ) -> Option<Time> {
        let workers = self.workers.values().filter(|worker| worker.edition.generation == generation);
        let ready = workers.filter(|worker| worker.state.is_ready()).filter_map(|worker| worker.ready_at());
        ready.map(|at| at + min_ready).filter(|at| *at > now).min()
    }

    /// Tell a worker to go, which others outlive.
    pub(super) fn let_go(&mut self, id: WorkerId, ctx: &mut Context) {
        let (signal, deadline) = (ctx.config.stop_signal, ctx.now + ctx.config.stop_patience());
        let roll = self.roll;
        if let Some(worker) = self.workers.get_mut(id) {
            worker.replaced_by = roll;
            worker.retire(id, signal, deadline, ctx);
        }
    }
}

/// It serves, and has done so for long enough.
fn is_available(worker: &Worker, target: Generation, min_ready: Duration, now: Time) -> bool {
    let proved = || worker.ready_for(now).is_some_and(|ready| ready >= min_ready);
    worker.state.is_ready() && (worker.edition.generation != target || proved())
}

fn count(of: impl Iterator) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}
