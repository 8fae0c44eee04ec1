//! What the core did in a step, one action after the other.

use drainit::core::event::{Action, Command};
use drainit::core::signal::Signal;
use drainit::core::snapshot::{Snapshot, WorkerState};
use drainit::core::time::Time;
use drainit::core::types::{Edition, Pid, Scope, SlotIndex, WorkerId};

use super::super::records::{Purpose, Record, Sent, SentMessage};
use super::{Answer, Books};

impl Books {
    pub(super) fn note(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Spawn { worker, slot, edition } => self.note_spawn(*worker, *slot, *edition),
                Action::Kill { pid, signal, scope, value } => {
                    let forwarded = self.this_step.sent.len() < self.this_step.forwards.len();
                    let purpose = if forwarded { Purpose::Forward } else { Purpose::Kill };
                    self.note_signal(*pid, *signal, *scope, *value, purpose);
                }
                Action::Stop { worker, pid, signal, scope, .. } => {
                    self.note_told(*worker);
                    self.note_signal(*pid, *signal, *scope, None, Purpose::Stop);
                }
                Action::End { worker, until } => self.note_end(*worker, *until),
                Action::Listen { worker, .. } => self.note_listened(*worker),
                Action::Sweep { signal } => {
                    self.this_step.sweeps.push(*signal);
                    self.kill_swept |= *signal == Signal::KILL;
                }
                Action::Reply { request, outcome } => match self.requests.remove(request) {
                    Some(Command::PreStop) => self.hook_over = Some(self.now),
                    Some(Command::Scale(_)) => {}
                    Some(Command::Roll(_) | Command::Abort) => {
                        self.this_step.answers.push((*request, Answer::from(outcome)));
                    }
                    None => self.this_step.odd_replies.push(*request),
                },
                Action::Message { pid } => self.note_message(*pid),
                Action::Retire { worker } => self.note_told(*worker),
                Action::Weigh => {
                    self.rolls.weighing += 1;
                    // Spawns that an answer has let through in this very step may be still to come.
                    let is_new = self.rolls.weighed_in == self.step;
                    self.rolls.room.take_if(|_| !is_new);
                }
                Action::AnswerLate { .. } => {}
                Action::Tell(notice) => self.note_notice(notice),
                Action::Observe => {}
                Action::Exit(status) => self.exit = Some(status.clone()),
            }
        }
    }

    fn note_told(&mut self, id: WorkerId) {
        let untold = self.workers.get(&id).is_some_and(|worker| worker.told.is_none());
        if untold && self.ending.is_none() {
            self.note_farewell(id);
        }
    }

    /// Of somebody without a pid, whom no signal reaches yet, the snapshot alone tells.
    pub(super) fn note_silent_farewells(&mut self, after: &Snapshot) {
        if self.rolls.running.is_none() && self.rolls.recycled.is_none() || self.ending.is_some() {
            return;
        }
        let told = after.workers.iter().filter(|view| {
            view.pid.is_none() && matches!(view.state, WorkerState::Draining | WorkerState::Killed)
        });
        let mut slots: Vec<_> = told.map(|view| view.slot).collect();
        for worker in self.workers.values().filter(|worker| worker.pid.is_none() && worker.told.is_some()) {
            if let Some(known) = slots.iter().position(|slot| *slot == worker.slot) {
                slots.remove(known);
            }
        }
        for slot in slots {
            if let Some(id) = self.slots.get(slot as usize).and_then(|slot| slot.occupant) {
                self.note_told(id);
            }
        }
    }

    pub(super) fn note_spawn(&mut self, id: WorkerId, index: SlotIndex, edition: Edition) {
        self.judge_spawn(id, index, edition);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.finished = false;
        }
        let slot = self.slots.get_mut(index as usize);
        let vacancy = slot.filter(|slot| slot.successor.is_none()).and_then(|slot| {
            match slot.occupant {
                None => slot.occupant = Some(id),
                Some(_) => slot.successor = Some(id),
            }
            slot.vacancy.take()
        });
        match vacancy {
            Some(vacancy) if id > self.last_worker => {
                // At the maximum the doubling does not show, and a roll does not wait.
                let waits = self.rolls.running.is_none() && vacancy.since > self.rolls.ended;
                if waits && !vacancy.ceiling.is_zero() && vacancy.ceiling < self.config.backoff.max {
                    let waited = self.now.since(vacancy.since).as_secs_f64();
                    self.jitter.push(waited / vacancy.ceiling.as_secs_f64());
                }
            }
            None if id > self.last_worker => {}
            Some(_) | None => self.this_step.odd_spawns.push((id, index)),
        }
        self.last_worker = id;
        let record = Record {
            slot: index,
            generation: edition.generation,
            overweight: false,
            pid: None,
            ready_at: None,
            failed: false,
            hung: false,
            reloading: false,
            stopping: None,
            leaving: false,
            watchdog: self.config.watchdog,
            watchdog_due: None,
            told: None,
            retires_by: None,
            stop_signals: 0,
            signalled: None,
            ended: false,
            ended_quietly: false,
            deaf: false,
            listened_to: false,
            message: None,
            killed: false,
            ready_by: None,
            overdue: false,
        };
        self.workers.insert(id, record);
    }

    pub(super) fn note_message(&mut self, pid: Pid) {
        if let Some(id) = self.living(pid) {
            self.note_told(id);
        }
        let wait = self.config.stop_message.and_then(|message| message.wait);
        let record = self.living(pid).and_then(|id| self.workers.get(&id));
        let record =
            record.filter(|record| record.message.is_none() && record.stop_signals == 0 && !record.killed);
        let due = record.and_then(|record| record.told).map(|deadline| {
            let latest = self.latest_signal(deadline);
            SentMessage { signal_due: wait.map_or(latest, |wait| latest.min(self.now + wait)), deadline }
        });
        match due.zip(self.living(pid)) {
            Some((sent, id)) => _ = self.workers.get_mut(&id).map(|record| record.message = Some(sent)),
            None => self.this_step.odd_messages.push(pid),
        }
    }

    fn note_signal(&mut self, pid: Pid, signal: Signal, scope: Scope, value: Option<u64>, purpose: Purpose) {
        let worker = self.living(pid);
        if let Some(record) = worker.and_then(|id| self.workers.get_mut(&id)) {
            record.stop_signals += u32::from(purpose == Purpose::Stop);
            record.signalled = record.signalled.or(Some(self.now).filter(|_| purpose == Purpose::Stop));
            if purpose == Purpose::Stop && record.retires_by.is_some() {
                self.this_step.told_too_early.extend(worker);
            }
            if purpose == Purpose::Stop && record.killed {
                self.this_step.odd_stops.push(pid);
            }
            record.killed |= purpose == Purpose::Kill;
        }
        self.this_step.sent.push(Sent { pid, worker, signal, scope, value, purpose });
    }

    /// Before its KILL; whoever has no pid yet gets that later.
    pub(super) fn note_killed(&mut self, pid: Pid) {
        self.kills += 1;
        let worker = self.living(pid).and_then(|id| self.workers.get(&id));
        if worker.is_some_and(|worker| worker.killed || worker.ended_quietly) {
            self.this_step.killed_twice.push(pid);
        }
    }

    fn note_end(&mut self, id: WorkerId, until: Time) {
        let Some(record) = self.workers.get_mut(&id) else {
            return self.this_step.odd_ends.push(id);
        };
        let again = std::mem::replace(&mut record.ended, true);
        let early = record.end_due().is_none_or(|due| due > self.now);
        if again || early || record.killed || record.told != Some(until) {
            self.this_step.odd_ends.push(id);
        }
    }
}
