//! The slots and who is in them: spawning, filling, resizing, stopping.

mod accepting;
mod recycle;
mod roster;
mod slot;
mod turns;

use std::time::Duration;

use crate::core::backoff;
use crate::core::config::Restart;
use crate::core::context::Context;
use crate::core::event::{Action, Hang, Notice, QuietEnd, SpawnFailure};
use crate::core::seat::Seat;
use crate::core::signal::Signal;
use crate::core::snapshot::{WorkerState, WorkerView};
use crate::core::time::Time;
use crate::core::types::{Edition, Exit, Generation, Pid, Release, SlotIndex, WorkerId};
use crate::core::word::{Lifecycle, Word};
use crate::core::worker::Worker;

use roster::Roster;
use slot::Slot;
pub(super) use slot::Turn;
pub(super) use turns::{Standing, Survey};

#[derive(Debug)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    /// Whoever has been spawned and not been reaped, retired ones included.
    workers: Roster,
    /// What it is, when nobody rolls it.
    edition: Edition,
    /// The roll that replaces workers now.
    roll: Option<u64>,
    last_id: u64,
    /// Rolls whose replaced workers have not finished in time, one by one.
    stragglers: Vec<u64>,
}

/// A worker that is gone.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) slot: SlotIndex,
    pub(super) generation: Generation,
    /// Its slot has nobody now; one that is not its own any more has.
    pub(super) vacant: bool,
    /// It was about to take another's place, who goes on serving.
    pub(super) was_successor: bool,
    /// We asked for it, and not for a failure.
    pub(super) asked: bool,
    /// It was hung, and its replacement is under way.
    pub(super) hung: bool,
    /// It was not ready in time, or hung under `--restart never`.
    pub(super) failed: bool,
    /// Ready for `min_uptime`: no reason to wait with its replacement.
    pub(super) healthy: bool,
    pub(super) exit: Exit,
}

/// A worker that lives and serves no more.
#[derive(Debug)]
pub(super) struct HungWorker {
    pub(super) slot: SlotIndex,
    pub(super) generation: Generation,
    /// It had been ready for `min_uptime`.
    pub(super) healthy: bool,
    /// Until its replacement is spawned, if there will be one.
    pub(super) delay: Option<Duration>,
}

/// A worker that was not ready in time.
#[derive(Debug)]
pub(super) struct LateWorker {
    pub(super) slot: SlotIndex,
    pub(super) generation: Generation,
}

/// A worker that could not be started.
#[derive(Debug)]
pub(super) struct FailedSpawn {
    pub(super) slot: SlotIndex,
    pub(super) generation: Generation,
    /// It was asked to stop before it existed.
    pub(super) asked: bool,
    /// Nobody else is about to be what it was to be.
    pub(super) missed: bool,
    pub(super) failure: SpawnFailure,
}

impl Pool {
    /// `workers` slots, all due at once.
    pub(super) fn new(workers: u32, now: Time) -> Self {
        let edition = Edition { generation: Generation(1), release: Release(1) };
        let slots = (0..workers).map(|_| Slot::due(edition, now)).collect();
        Self { slots, workers: Roster::default(), edition, roll: None, last_id: 0, stragglers: Vec::new() }
    }

    pub(super) fn desired(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn edition(&self) -> Edition {
        self.edition
    }

    /// From here on it is this one.
    pub(super) fn become_edition(&mut self, edition: Edition) {
        self.edition = edition;
    }

    /// Workers that are told to go are replaced by this roll, or by none.
    pub(super) fn set_roll(&mut self, roll: Option<u64>) {
        self.roll = roll;
    }

    pub(super) fn take_straggler(&mut self) -> Option<u64> {
        self.stragglers.pop()
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter()
    }

    pub(super) fn has(&self, id: WorkerId) -> bool {
        self.workers.get(id).is_some()
    }

    pub(super) fn ready(&self) -> u32 {
        u32::try_from(self.workers.values().filter(|worker| worker.state.is_ready()).count())
            .unwrap_or(u32::MAX)
    }

    pub(super) fn count(&self, state: WorkerState) -> u32 {
        let count = self.workers.values().filter(|worker| worker.state == state).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Nobody left who has been spawned.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Nobody runs and nobody will.
    pub(super) fn is_finished(&self) -> bool {
        self.is_empty() && self.slots.iter().all(|slot| slot.due.is_none())
    }

    pub(super) fn views(&self, now: Time) -> Vec<WorkerView> {
        let mut views: Vec<_> = self.workers.iter().map(|(id, worker)| worker.view(id, now)).collect();
        views.sort_by_key(|view| view.slot);
        views
    }

    /// Spawn into every slot that is due.
    pub(super) fn fill(&mut self, ctx: &mut Context) {
        for (index, slot) in (0..).zip(&mut self.slots) {
            if slot.due.is_none_or(|due| due > ctx.now) {
                continue;
            }
            self.last_id += 1;
            let id = WorkerId(self.last_id);
            slot.due = None;
            match slot.occupant {
                None => slot.occupant = Some(id),
                Some(_) => slot.successor = Some(id),
            }
            self.workers.add(id, Worker::new(id, index, slot.edition, ctx));
            ctx.counters.spawns += 1;
            ctx.act(Action::Spawn { worker: id, slot: index, edition: slot.edition });
        }
    }

    /// No empty slot is filled any more.
    pub(super) fn stop_filling(&mut self) {
        for slot in &mut self.slots {
            (slot.due, slot.refill) = (None, false);
        }
    }

    /// Grow by empty slots, shrink by retiring the highest ones.
    pub(super) fn resize(&mut self, desired: u32, ctx: &mut Context) {
        let (now, edition) = (ctx.now, self.edition);
        let old = self.desired();
        if desired < old {
            for slot in self.slots.split_off(desired as usize) {
                slot.occupant.into_iter().chain(slot.successor).for_each(|id| self.let_go(id, ctx));
            }
        } else {
            self.slots.extend((old..desired).map(|_| Slot::due(edition, now)));
        }
        ctx.tell(Notice::Scaled { from: old, to: desired });
    }

    pub(super) fn on_spawned(&mut self, id: WorkerId, pid: Pid, ctx: &mut Context) {
        if let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.is_spawning()) {
            worker.on_spawned(pid, ctx);
        }
    }

    pub(super) fn on_spawn_failed(
        &mut self,
        id: WorkerId,
        failure: SpawnFailure,
        ctx: &mut Context,
    ) -> Option<FailedSpawn> {
        if !self.workers.get(id)?.is_spawning() {
            return None;
        }
        let worker = self.workers.remove(id)?;
        let was_successor =
            self.slots.get(worker.slot as usize).is_some_and(|slot| slot.successor == Some(id));
        let vacant = self.vacate(worker.slot, id, ctx.now);
        ctx.counters.spawn_failures += 1;
        Some(FailedSpawn {
            slot: worker.slot,
            generation: worker.edition.generation,
            asked: worker.was_asked_to_stop(),
            missed: vacant || was_successor,
            failure,
        })
    }

    pub(super) fn on_ready(&mut self, id: WorkerId, ctx: &mut Context) {
        let Some(worker) = self.workers.get_mut(id).filter(|worker| !worker.is_spawning()) else { return };
        worker.on_ready(ctx);
    }

    /// Successors that are ready take the slots of those that do not serve.
    pub(super) fn relieve(&mut self, ctx: &mut Context) {
        let is_ready = |id: WorkerId| self.workers.get(id).is_some_and(|worker| worker.state.is_ready());
        let slots = (0..).zip(&self.slots);
        let relieved = slots
            .filter(|(_, slot)| slot.successor.is_some_and(is_ready) && !slot.occupant.is_some_and(is_ready));
        let relieved: Vec<SlotIndex> = relieved.map(|(index, _)| index).collect();
        relieved.into_iter().for_each(|index| self.succeed(index, ctx));
    }

    /// The successor of a slot takes it: whom it replaces may go.
    fn succeed(&mut self, index: SlotIndex, ctx: &mut Context) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(successor) = slot.successor.take() else { return };
        slot.refill = false;
        if let Some(replaced) = slot.occupant.replace(successor) {
            self.let_go(replaced, ctx);
        }
    }

    /// Nothing waits for the worker any more.
    pub(super) fn on_retired(&mut self, id: WorkerId, ctx: &mut Context) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.on_retired(ctx);
        }
    }

    /// Who is in which slot, for whoever has sockets to give them.
    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> {
        let is_ready = |id| self.workers.get(id).is_some_and(|worker| worker.state.is_ready());
        self.slots.iter().map(move |slot| Seat {
            occupant: slot.occupant,
            ready: slot.occupant.is_some_and(is_ready),
            successor: slot.successor,
        })
    }

    /// A ready worker serves no more. Its replacement comes first. Without one (`--restart never`), and where it was about
    /// to replace another, it is told to stop, and its end is a failure.
    pub(super) fn on_hung(&mut self, id: WorkerId, why: Hang, ctx: &mut Context) -> Option<HungWorker> {
        let worker = self.workers.get_mut(id).filter(|worker| worker.state.is_ready())?;
        let healthy = worker.ready_for(ctx.now).is_some_and(|ready| ready >= ctx.config.min_uptime);
        let (index, generation) = (worker.slot, worker.edition.generation);
        worker.on_hung(why, ctx);
        let is_successor = self.slots.get(index as usize).is_some_and(|slot| slot.successor == Some(id));
        if is_successor || ctx.config.restart == Restart::Never {
            worker.failed = true;
            worker.stop(ctx.config.stop_signal, ctx.now + ctx.config.stop_patience(), ctx);
            return Some(HungWorker { slot: index, generation, healthy, delay: None });
        }
        let delay = self.replace(index, healthy, ctx);
        Some(HungWorker { slot: index, generation, healthy, delay })
    }

    /// Whoever has the slot lives and serves no more.
    pub(super) fn hangs(&self, index: SlotIndex) -> bool {
        let occupant = self.slots.get(index as usize).and_then(|slot| slot.occupant);
        occupant.and_then(|id| self.workers.get(id)).is_some_and(|worker| worker.state == WorkerState::Hung)
    }

    /// What a worker says of itself, but for its being hung.
    pub(super) fn on_said(&mut self, id: WorkerId, word: &Word, ctx: &mut Context) {
        if word.lifecycle == Some(Lifecycle::Ready) {
            self.on_ready(id, ctx);
        }
        let Some(worker) = self.workers.get_mut(id).filter(|worker| !worker.is_spawning()) else { return };
        worker.on_said(word, ctx);
    }

    pub(super) fn cut_deadline(&mut self, id: WorkerId, latest: Time) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.cut_deadline(latest);
        }
    }

    pub(super) fn on_ping(&mut self, id: WorkerId, now: Time) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.on_ping(now);
        }
    }

    /// A worker that starts has found out that it will not be ready: it is told to stop, and its end is a failure.
    pub(super) fn on_never_ready(
        &mut self,
        id: WorkerId,
        why: Hang,
        ctx: &mut Context,
    ) -> Option<LateWorker> {
        let worker = self.workers.get_mut(id).filter(|worker| !worker.is_spawning());
        let worker = worker.filter(|worker| worker.state == WorkerState::Starting)?;
        ctx.tell(Notice::WorkerHung { slot: worker.slot, pid: worker.pid(), why });
        worker.failed = true;
        worker.stop(ctx.config.stop_signal, ctx.now + ctx.config.stop_patience(), ctx);
        Some(LateWorker { slot: worker.slot, generation: worker.edition.generation })
    }

    /// Somebody whose watchdog has run out.
    pub(super) fn next_silent(&mut self, now: Time) -> Option<WorkerId> {
        self.workers.iter_mut().find_map(|(id, worker)| worker.is_silent(now).then_some(id))
    }

    pub(super) fn on_exited(&mut self, id: WorkerId, exit: Exit, ctx: &mut Context) -> Option<Death> {
        if self.workers.get(id)?.is_spawning() {
            return None;
        }
        let worker = self.workers.remove(id)?;
        let was_successor =
            self.slots.get(worker.slot as usize).is_some_and(|slot| slot.successor == Some(id));
        let vacant = self.vacate(worker.slot, id, ctx.now);
        let asked = worker.was_asked_to_stop();
        let healthy =
            !worker.failed && worker.ready_for(ctx.now).is_some_and(|ready| ready >= ctx.config.min_uptime);
        let uptime = worker.uptime(ctx.now);
        ctx.counters.oom_kills += u64::from(exit == Exit::OutOfMemory);
        ctx.tell(Notice::WorkerExited {
            slot: worker.slot,
            pid: worker.pid(),
            exit,
            uptime,
            expected: asked,
        });
        let hung = worker.state == WorkerState::Hung;
        Some(Death {
            slot: worker.slot,
            generation: worker.edition.generation,
            vacant,
            was_successor,
            asked,
            hung,
            failed: worker.failed,
            healthy,
            exit,
        })
    }

    /// Says whether the slot was its own, and is empty now.
    fn vacate(&mut self, index: SlotIndex, id: WorkerId, now: Time) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else { return false };
        let was_own = slot.occupant == Some(id) || slot.successor == Some(id);
        // Whoever follows it already is whom it has made room for.
        let mut refill = false;
        if slot.occupant == Some(id) {
            slot.occupant = slot.successor.take();
            refill = std::mem::take(&mut slot.refill);
        }
        slot.successor.take_if(|successor| *successor == id);
        let vacant = was_own && slot.is_vacant();
        if vacant && refill && slot.due.is_none() {
            slot.due = Some(now);
        }
        vacant
    }

    /// The worker of a slot has ended, and nobody follows it.
    pub(super) fn finish(&mut self, index: SlotIndex) {
        if let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.is_vacant()) {
            slot.finished = slot.due.is_none();
        }
    }

    /// Have somebody spawned for a slot: at once after a healthy life, else with back-off.
    pub(super) fn replace(&mut self, index: SlotIndex, healthy: bool, ctx: &mut Context) -> Option<Duration> {
        let slot = self
            .slots
            .get_mut(index as usize)
            .filter(|slot| slot.successor.is_none() && slot.due.is_none())?;
        slot.deaths = if healthy { 0 } else { slot.deaths.saturating_add(1) };
        let deaths = slot.deaths;
        let delay = backoff::delay(ctx.config.backoff, deaths, &mut ctx.rng);
        slot.due = Some(ctx.now + delay);
        Some(delay)
    }

    pub(super) fn deaths(&self, index: SlotIndex) -> u32 {
        self.slots.get(index as usize).map_or(0, |slot| slot.deaths)
    }

    pub(super) fn stop_all(&mut self, signal: Signal, deadline: Time, ctx: &mut Context) {
        self.workers.values_mut().for_each(|worker| worker.stop(signal, deadline, ctx));
    }

    pub(super) fn kill_all(&mut self, ctx: &mut Context) {
        self.workers.values_mut().for_each(|worker| worker.kill(ctx));
    }

    pub(super) fn forward(&self, signal: Signal, value: Option<u64>, ctx: &mut Context) {
        self.workers.values().for_each(|worker| worker.forward(signal, value, ctx));
    }

    /// Somebody insists on the stop: the signal is passed on to whoever has had the stop signal, and whoever waits for
    /// its message to work gets that now.
    pub(super) fn insist(&mut self, signal: Signal, ctx: &mut Context) {
        let asked = self.workers.values().filter(|worker| worker.signal_due().is_none());
        asked.for_each(|worker| worker.forward(signal, None, ctx));
        self.workers.values_mut().for_each(|worker| worker.end_message_wait(ctx));
    }

    pub(super) fn on_undelivered(&mut self, id: WorkerId, ctx: &mut Context) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.end_message_wait(ctx);
        }
    }

    pub(super) fn on_ended_quietly(&mut self, id: WorkerId, why: QuietEnd, ctx: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if !worker.on_ended_quietly(why, ctx) {
            return;
        }
        match why {
            QuietEnd::Straggler => self.stragglers.extend(worker.replaced_by),
            QuietEnd::NoHandler | QuietEnd::Idle => {}
        }
    }

    /// The next moment at which [`Pool::fire`] or [`Pool::fill`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let workers = self.workers.values();
        let deadlines = workers.flat_map(|worker| {
            [worker.deadline(), worker.signal_due(), worker.end_due(), worker.watchdog_due()]
        });
        let deadlines = deadlines.flatten();
        deadlines.chain(self.slots.iter().filter_map(|slot| slot.due)).min()
    }

    /// Fail whoever is late, send the signal where the message was in vain, kill whoever does not stop. Says whether a
    /// worker had to be killed, and who was late.
    pub(super) fn fire(&mut self, ctx: &mut Context) -> (bool, Vec<LateWorker>) {
        let patience = ctx.now + ctx.config.stop_patience();
        let signal = ctx.config.stop_signal;
        let mut killed = false;
        let mut late = Vec::new();
        for worker in self.workers.values_mut() {
            if worker.deadline().is_none_or(|deadline| deadline > ctx.now) {
                if worker.signal_due().is_some_and(|due| due <= ctx.now) {
                    worker.give_up_message(ctx);
                }
                if worker.end_due().is_some_and(|due| due <= ctx.now) {
                    worker.end_when_quiet(ctx);
                }
                continue;
            }
            match worker.state {
                WorkerState::Starting => {
                    worker.failed = true;
                    ctx.counters.ready_timeouts += 1;
                    let after = worker.uptime(ctx.now);
                    ctx.tell(Notice::WorkerLate { slot: worker.slot, pid: worker.pid(), after });
                    late.push(LateWorker { slot: worker.slot, generation: worker.edition.generation });
                    worker.stop(signal, patience, ctx);
                }
                WorkerState::Draining if worker.is_overdue_to_retire(ctx.now) => {
                    ctx.counters.retire_timeouts += 1;
                    worker.on_retired(ctx);
                }
                WorkerState::Draining | WorkerState::Stopping => {
                    worker.kill(ctx);
                    // Whoever has been ended before is in the books, and only slow to go.
                    if !worker.has_been_ended() {
                        killed = true;
                        self.stragglers.extend(worker.replaced_by);
                    }
                }
                WorkerState::Ready | WorkerState::Reloading | WorkerState::Hung | WorkerState::Killed => {}
            }
        }
        (killed, late)
    }
}
