//! The slots and who is in them: spawning, filling, resizing, stopping.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff;
use super::config::Restart;
use super::context::Context;
use super::event::{Action, Hang, Notice, SpawnFailure};
use super::seat::Seat;
use super::signal::Signal;
use super::snapshot::{WorkerState, WorkerView};
use super::time::Time;
use super::types::{Exit, Generation, Pid, SlotIndex, WorkerId};
use super::word::{Lifecycle, Word};
use super::worker::Worker;

#[derive(Debug)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    /// Whoever has been spawned and not been reaped, retired ones included.
    workers: BTreeMap<WorkerId, Worker>,
    generation: Generation,
    last_id: u64,
}

/// A place in the pool.
#[derive(Debug, Default)]
struct Slot {
    occupant: Option<WorkerId>,
    /// It takes the place of an occupant that is hung, once it is ready.
    successor: Option<WorkerId>,
    /// When somebody is to be spawned for this slot; never, where there is none.
    due: Option<Time>,
    /// Deaths in a row, none after a healthy life.
    deaths: u32,
}

/// A worker that is gone.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) slot: SlotIndex,
    /// The slot is not its own any more: the pool was made smaller since, and larger again perhaps.
    pub(super) retired: bool,
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
    /// It had been ready for `min_uptime`.
    pub(super) healthy: bool,
    /// Until its replacement is spawned.
    pub(super) delay: Duration,
}

/// A worker that could not be started.
#[derive(Debug)]
pub(super) struct FailedSpawn {
    pub(super) slot: SlotIndex,
    /// It was asked to stop before it existed.
    pub(super) asked: bool,
    pub(super) failure: SpawnFailure,
}

impl Pool {
    /// `workers` slots, all due at once.
    pub(super) fn new(workers: u32, now: Time) -> Self {
        let slots = (0..workers).map(|_| Slot::due(now)).collect();
        Self { slots, workers: BTreeMap::new(), generation: Generation(1), last_id: 0 }
    }

    pub(super) fn desired(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn ready(&self) -> u32 {
        u32::try_from(self.workers.values().filter(|worker| worker.state.is_ready()).count())
            .unwrap_or(u32::MAX)
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
        let mut views: Vec<_> = self.workers.values().map(|worker| worker.view(now)).collect();
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
            self.workers.insert(id, Worker::new(index, self.generation, ctx));
            ctx.counters.spawns += 1;
            ctx.act(Action::Spawn { worker: id, slot: index, generation: self.generation });
        }
    }

    /// No empty slot is filled any more.
    pub(super) fn stop_filling(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.due = None);
    }

    /// Grow by empty slots, shrink by retiring the highest ones.
    pub(super) fn resize(&mut self, desired: u32, ctx: &mut Context) {
        let now = ctx.now;
        let deadline = now + ctx.config.stop_patience();
        let signal = ctx.config.stop_signal;
        let old = self.desired();
        if desired < old {
            for slot in self.slots.drain(desired as usize..) {
                for id in slot.occupant.into_iter().chain(slot.successor) {
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.retire(id, signal, deadline, ctx);
                    }
                }
            }
        } else {
            self.slots.extend((old..desired).map(|_| Slot::due(now)));
        }
        ctx.tell(Notice::Scaled { from: old, to: desired });
    }

    pub(super) fn on_spawned(&mut self, id: WorkerId, pid: Pid, ctx: &mut Context) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_spawning()) {
            worker.on_spawned(pid, ctx);
        }
    }

    pub(super) fn on_spawn_failed(
        &mut self,
        id: WorkerId,
        failure: SpawnFailure,
        ctx: &mut Context,
    ) -> Option<FailedSpawn> {
        if !self.workers.get(&id)?.is_spawning() {
            return None;
        }
        let worker = self.workers.remove(&id)?;
        self.vacate(worker.slot, id);
        ctx.counters.spawn_failures += 1;
        Some(FailedSpawn { slot: worker.slot, asked: worker.was_asked_to_stop(), failure })
    }

    pub(super) fn on_ready(&mut self, id: WorkerId, ctx: &mut Context) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.is_spawning()) else { return };
        worker.on_ready(ctx);
        let (index, ready) = (worker.slot, worker.state.is_ready());
        if ready {
            self.succeed(index, id, ctx);
        }
    }

    /// The successor of a slot is ready: whom it replaces may go.
    fn succeed(&mut self, index: SlotIndex, id: WorkerId, ctx: &mut Context) {
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.successor == Some(id));
        let Some(slot) = slot else { return };
        let replaced = std::mem::replace(&mut slot.occupant, slot.successor.take());
        if let Some(id) = replaced
            && let Some(worker) = self.workers.get_mut(&id)
        {
            worker.retire(id, ctx.config.stop_signal, ctx.now + ctx.config.stop_patience(), ctx);
        }
    }

    /// Nothing waits for the worker any more.
    pub(super) fn on_retired(&mut self, id: WorkerId, ctx: &mut Context) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.on_retired(ctx);
        }
    }

    /// Who is in which slot, for whoever has sockets to give them.
    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> {
        let is_ready = |id| self.workers.get(&id).is_some_and(|worker| worker.state.is_ready());
        self.slots.iter().map(move |slot| Seat {
            occupant: slot.occupant,
            ready: slot.occupant.is_some_and(is_ready),
            successor: slot.successor,
        })
    }

    /// A ready worker serves no more. Its replacement comes first; the delay until it is spawned is returned. Without
    /// one (`--restart never`) it is told to stop, and its end is a failure.
    pub(super) fn on_hung(&mut self, id: WorkerId, why: Hang, ctx: &mut Context) -> Option<HungWorker> {
        let worker = self.workers.get_mut(&id).filter(|worker| worker.state.is_ready())?;
        let healthy = worker.ready_for(ctx.now).is_some_and(|ready| ready >= ctx.config.min_uptime);
        let index = worker.slot;
        worker.on_hung(why, ctx);
        if ctx.config.restart == Restart::Never {
            worker.failed = true;
            worker.stop(ctx.config.stop_signal, ctx.now + ctx.config.stop_patience(), ctx);
            return None;
        }
        let delay = self.replace(index, healthy, ctx)?;
        Some(HungWorker { slot: index, healthy, delay })
    }

    /// What a worker says of itself, but for its being hung.
    pub(super) fn on_said(&mut self, id: WorkerId, word: &Word, ctx: &mut Context) {
        if word.lifecycle == Some(Lifecycle::Ready) {
            self.on_ready(id, ctx);
        }
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.is_spawning()) else { return };
        worker.on_said(word, ctx);
    }

    pub(super) fn on_ping(&mut self, id: WorkerId, now: Time) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.on_ping(now);
        }
    }

    /// A worker that starts has found out that it will not be ready: it is told to stop, and its end is a failure.
    pub(super) fn on_never_ready(&mut self, id: WorkerId, why: Hang, ctx: &mut Context) {
        let worker = self.workers.get_mut(&id).filter(|worker| !worker.is_spawning());
        if let Some(worker) = worker.filter(|worker| worker.state == WorkerState::Starting) {
            ctx.tell(Notice::WorkerHung { slot: worker.slot, pid: worker.pid(), why });
            worker.failed = true;
            worker.stop(ctx.config.stop_signal, ctx.now + ctx.config.stop_patience(), ctx);
        }
    }

    /// Somebody whose watchdog has run out.
    pub(super) fn next_silent(&mut self, now: Time) -> Option<WorkerId> {
        self.workers.iter_mut().find_map(|(id, worker)| worker.is_silent(now).then_some(*id))
    }

    pub(super) fn on_exited(&mut self, id: WorkerId, exit: Exit, ctx: &mut Context) -> Option<Death> {
        if self.workers.get(&id)?.is_spawning() {
            return None;
        }
        let worker = self.workers.remove(&id)?;
        let retired = !self.vacate(worker.slot, id);
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
        Some(Death { slot: worker.slot, retired, asked, hung, failed: worker.failed, healthy, exit })
    }

    /// Says whether the slot was its own.
    fn vacate(&mut self, index: SlotIndex, id: WorkerId) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else { return false };
        if slot.occupant == Some(id) {
            slot.occupant = slot.successor.take();
            return true;
        }
        slot.successor.take_if(|successor| *successor == id).is_some()
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
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.end_message_wait(ctx);
        }
    }

    /// The next moment at which [`Pool::fire`] or [`Pool::fill`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let workers = self.workers.values();
        let deadlines =
            workers.flat_map(|worker| [worker.deadline(), worker.signal_due(), worker.watchdog_due()]);
        let deadlines = deadlines.flatten();
        deadlines.chain(self.slots.iter().filter_map(|slot| slot.due)).min()
    }

    /// Fail whoever is late, send the signal where the message was in vain, kill whoever does not stop. Says whether a worker had to be killed.
    pub(super) fn fire(&mut self, ctx: &mut Context) -> bool {
        let patience = ctx.now + ctx.config.stop_patience();
        let signal = ctx.config.stop_signal;
        let mut killed = false;
        for worker in self.workers.values_mut() {
            if worker.deadline().is_none_or(|deadline| deadline > ctx.now) {
                if worker.signal_due().is_some_and(|due| due <= ctx.now) {
                    worker.give_up_message(ctx);
                }
                continue;
            }
            match worker.state {
                WorkerState::Starting => {
                    worker.failed = true;
                    ctx.counters.ready_timeouts += 1;
                    let after = worker.uptime(ctx.now);
                    ctx.tell(Notice::WorkerLate { slot: worker.slot, pid: worker.pid(), after });
                    worker.stop(signal, patience, ctx);
                }
                WorkerState::Draining if worker.is_overdue_to_retire(ctx.now) => {
                    ctx.counters.retire_timeouts += 1;
                    worker.on_retired(ctx);
                }
                WorkerState::Draining | WorkerState::Stopping => {
                    worker.kill(ctx);
                    killed = true;
                }
                WorkerState::Ready | WorkerState::Reloading | WorkerState::Hung | WorkerState::Killed => {}
            }
        }
        killed
    }
}

impl Slot {
    fn due(now: Time) -> Self {
        Self { due: Some(now), ..Self::default() }
    }
}
