//! The books of the workers: who came, who went, and who is to come.

use std::time::Duration;

use drainit::core::config::{Config, Restart};
use drainit::core::event::{QuietEnd, SpawnFailure};
use drainit::core::time::Time;
use drainit::core::types::{Exit, Pid, WorkerId, code};

use super::super::records::{Slot, Stage, Vacancy};
use super::Books;

/// There is nobody to wait for.
pub(super) const AT_ONCE: Duration = Duration::ZERO;

impl Books {
    pub(super) fn on_spawned(&mut self, id: WorkerId, pid: Pid) {
        self.launched = true;
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.pid.is_none()) else { return };
        worker.pid = Some(pid);
        if worker.told.is_none() {
            worker.ready_by = self.config.ready_timeout.map(|timeout| self.now + timeout);
        }
    }

    pub(super) fn on_spawn_failed(&mut self, id: WorkerId, failure: &SpawnFailure) {
        if self.workers.get(&id).is_none_or(|worker| worker.pid.is_some()) {
            return;
        }
        let Some(worker) = self.workers.remove(&id) else { return };
        let asked = worker.told.is_some();
        if !self.launched {
            self.refused = Some(match failure {
                SpawnFailure::NotFound(_) => code::NOT_FOUND,
                SpawnFailure::CannotExecute(_) => code::CANNOT_EXECUTE,
                SpawnFailure::System(_) => code::OS,
            });
            self.drop_roll();
            return;
        }
        let was_successor = self.slots.iter().any(|slot| slot.successor == Some(id));
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.occupant == Some(id)) {
            (slot.after_farewell, slot.left) = (asked, self.step);
        }
        self.vacate(id);
        if asked || self.stage == Stage::Ending || self.on_generation_failed(worker.generation) {
            return;
        }
        let vacant = self.slots.get(worker.slot as usize).is_some_and(|slot| slot.occupant.is_none());
        if was_successor || vacant {
            self.want(worker.slot, false);
        }
        if !matches!(failure, SpawnFailure::System(_)) {
            self.crash();
        }
    }

    pub(super) fn on_exited(&mut self, id: WorkerId, exit: Exit) {
        if self.workers.get(&id).is_none_or(|worker| worker.pid.is_none()) {
            return;
        }
        let Some(worker) = self.workers.remove(&id) else { return };
        self.this_step.lost_ready += u32::from(worker.is_ready());
        let asked = worker.told.is_some() && !worker.failed && !worker.leaving;
        let arranged = worker.hung && worker.told.is_none();
        let failed = worker.failed || exit != Exit::Code(0);
        let replaced = match self.config.restart {
            Restart::Always => true,
            Restart::OnFailure => failed,
            Restart::Never => false,
        };
        let was_successor = self.slots.iter().any(|slot| slot.successor == Some(id));
        // A rollback is to end at full strength, and one that hangs is replaced (DESIGN §1), whatever becomes of those that are
        // to relieve it.
        let goes_back = self.rolls.running.as_ref().is_some_and(|roll| roll.back.is_some());
        let occupant = self.slots.get(worker.slot as usize).and_then(|slot| slot.occupant);
        let hangs = occupant
            .and_then(|id| self.workers.get(&id))
            .is_some_and(|worker| worker.hung && worker.told.is_none());
        if was_successor && hangs && !replaced {
            self.this_step.saw.push("another relief for one that hangs");
        }
        let replaced = replaced || was_successor && (goes_back || hangs);
        let was_seated = was_successor || self.slots.iter().any(|slot| slot.occupant == Some(id));
        self.vacate(id);
        let slot = self.slots.get_mut(worker.slot as usize).filter(|_| was_seated && !was_successor);
        if let Some(slot) = slot {
            (slot.after_farewell, slot.left) = (worker.told.is_some(), self.step);
        }
        if self.stage == Stage::Ending {
            self.first_failure = self.first_failure.or(Some(exit.code()).filter(|code| *code != 0));
            return;
        }
        if asked || arranged {
            // Whoever was to follow it may have ended before.
            let slot = self.slots.get_mut(worker.slot as usize).filter(|slot| slot.occupant.is_none());
            if let Some(slot) = slot.filter(|_| arranged) {
                slot.finished = slot.vacancy.is_none();
            }
            return;
        }
        // A new worker that ends well, and is not to be replaced, has not failed.
        if (failed || replaced || was_successor) && self.on_generation_failed(worker.generation) {
            return self.refill(worker.slot);
        }
        if !replaced {
            let slot = self.slots.get_mut(worker.slot as usize).filter(|slot| slot.occupant.is_none());
            if let Some(slot) = slot.filter(|_| was_seated && !was_successor) {
                slot.finished = slot.vacancy.is_none();
            }
            self.first_failure = self.first_failure.or(Some(exit.code()).filter(|code| *code != 0));
            return;
        }
        let ready_for = worker.ready_at.filter(|_| !worker.failed).map(|at| self.now.since(at));
        let healthy = ready_for.is_some_and(|ready| ready >= self.config.min_uptime);
        let vacant = self.slots.get(worker.slot as usize).is_some_and(|slot| slot.occupant.is_none());
        if was_successor || was_seated && vacant {
            self.want(worker.slot, healthy);
        }
        if !healthy {
            self.crash();
        }
    }

    /// It had been told to finish, and its time was not up.
    pub(super) fn on_ended_quietly(&mut self, id: WorkerId, why: QuietEnd) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.told.is_some() && !worker.killed)
        else {
            return;
        };
        if !std::mem::replace(&mut worker.ended_quietly, true) {
            *self.quiet_ends.entry(why.name()).or_default() += 1;
        }
    }

    /// Whoever was to take its place has it now; where it was told to go for somebody to come, he may.
    fn vacate(&mut self, id: WorkerId) {
        let held = |slot: &&mut Slot| [slot.occupant, slot.successor].contains(&Some(id));
        let Some(slot) = self.slots.iter_mut().find(held) else { return };
        if slot.occupant != Some(id) {
            slot.successor = None;
            return;
        }
        slot.occupant = slot.successor.take();
        if std::mem::take(&mut slot.refill) && slot.occupant.is_none() {
            slot.vacancy = slot.vacancy.or(Some(Vacancy { since: self.now, ceiling: AT_ONCE }));
        }
    }

    /// Nobody waits with it: the one who went was the roll's affair.
    pub(super) fn refill(&mut self, index: u32) {
        let now = self.now;
        let slot = self.slots.get_mut(index as usize);
        if let Some(slot) = slot.filter(|slot| slot.occupant.is_none() && !slot.finished) {
            slot.vacancy = slot.vacancy.or(Some(Vacancy { since: now, ceiling: AT_ONCE }));
        }
    }

    /// Somebody is to be spawned for the slot, where nobody has been already.
    fn want(&mut self, index: u32, healthy: bool) {
        let now = self.now;
        let slot = self.slots.get_mut(index as usize);
        if let Some(slot) = slot.filter(|slot| slot.successor.is_none() && slot.vacancy.is_none()) {
            Self::announce_vacancy(slot, healthy, now, &self.config);
        }
    }

    fn announce_vacancy(slot: &mut Slot, healthy: bool, now: Time, config: &Config) {
        slot.deaths = if healthy { 0 } else { slot.deaths + 1 };
        let backoff = config.backoff;
        let ceiling = match slot.deaths {
            0 | 1 => Duration::ZERO,
            deaths => backoff.min.saturating_mul(1 << (deaths - 2).min(20)).min(backoff.max),
        };
        slot.vacancy = Some(Vacancy { since: now, ceiling });
    }

    /// Its replacement first; told to stop where there will be none, and where it was about to replace somebody itself.
    pub(crate) fn on_hung(&mut self, id: WorkerId) {
        let (now, patience) = (self.now, self.patience());
        let record = self.workers.get_mut(&id).filter(|record| record.is_ready());
        let Some(record) = record.filter(|_| self.stage != Stage::Ending) else { return };
        self.this_step.lost_ready += 1;
        record.hung = true;
        record.watchdog_due = None;
        let generation = record.generation;
        let healthy = record.ready_at.is_some_and(|at| now.since(at) >= self.config.min_uptime);
        let is_successor = self.slots.iter().any(|slot| slot.successor == Some(id));
        if is_successor || self.config.restart == Restart::Never {
            record.failed = true;
            record.told = Some(now + patience);
            self.on_generation_failed(generation);
            return;
        }
        let slot = self.slots.iter_mut().find(|slot| slot.occupant == Some(id));
        // Where another is on its way already, that is no crash more.
        let announced = slot.filter(|slot| slot.successor.is_none() && slot.vacancy.is_none());
        let is_new = announced.is_some();
        if let Some(slot) = announced {
            Self::announce_vacancy(slot, healthy, now, &self.config);
        }
        if !self.on_generation_failed(generation) && is_new && !healthy {
            self.crash();
        }
    }

    /// Who is ready takes the place of one who does not serve.
    pub(super) fn relieve(&mut self) {
        let is_ready = |id: WorkerId| self.workers.get(&id).is_some_and(|worker| worker.is_ready());
        let relieved: Vec<_> = (0..self.slots.len())
            .filter(|index| {
                let slot = &self.slots[*index];
                slot.successor.is_some_and(is_ready) && !slot.occupant.is_some_and(is_ready)
            })
            .collect();
        relieved.into_iter().for_each(|index| self.succeed(index));
    }

    /// Whom a ready successor replaces is told to stop, and nobody before.
    pub(super) fn succeed(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.refill = false;
        let replaced = std::mem::replace(&mut slot.occupant, slot.successor.take());
        if let Some(replaced) = replaced {
            self.let_go(replaced);
        }
    }

    /// Told to go, and outlived by others.
    pub(super) fn let_go(&mut self, id: WorkerId) {
        let (deadline, retires_by) = (self.now + self.patience(), self.retires_by());
        // Whoever has been told before keeps its time.
        let record = self.workers.get_mut(&id).filter(|record| record.told.is_none());
        let Some(record) = record else { return };
        self.this_step.lost_ready += u32::from(record.is_ready());
        record.retires_by = retires_by.filter(|_| record.is_ready());
        record.tell(deadline);
    }

    /// Half of its time at most is for the queue.
    pub(super) fn retires_by(&self) -> Option<Time> {
        self.config.own_queues.then(|| self.now + self.patience() / 2)
    }

    pub(super) fn crash(&mut self) {
        let too_many = self.rolls.breaker.on_crash(self.now);
        // A hook or a signal may have come in this very step.
        let running = self.stage == Stage::Running && self.budget_from.is_none();
        if too_many && self.ready() == 0 && running {
            self.crash_loop = true;
            self.budget_from.get_or_insert(self.now);
            self.committed.get_or_insert(self.now);
            self.drop_roll();
        }
    }
}
