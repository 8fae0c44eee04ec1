//! The books: what DESIGN.md makes of the events so far, kept without a look inside the core.
//!
//! They follow the events and hold the actions against them; the invariants read them.

#[path = "books/breaker.rs"]
mod breaker;
#[path = "books/judge.rs"]
mod judge;
#[path = "books/notes.rs"]
mod notes;
#[path = "books/rolls.rs"]
mod rolls;
#[path = "books/workers.rs"]
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use drainit::core::config::{Config, Kind, MAX_WORKERS, Restart};
use drainit::core::event::{Command, Event, RequestId, RollOrder, RollTrigger};
use drainit::core::signal::{Disposition, Signal};
use drainit::core::snapshot::Phase;
use drainit::core::time::Time;
use drainit::core::types::{ExitStatus, Pid, Scope, WorkerId, code};

pub(crate) use rolls::{Answer, Due, Ended, Rolls};

use super::records::{Ending, Record, SentMessage, Slot, Stage, Step, Sweep, ThisStep, Vacancy};

/// DESIGN §6: then the hook was advice.
const PRESTOP_RETURN: Duration = Duration::from_secs(10);

/// The state of everything, as it has to be.
pub(crate) struct Books {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) stage: Stage,
    pub(crate) desired: u32,
    pub(crate) slots: Vec<Slot>,
    /// Nobody who has been reaped.
    pub(crate) workers: BTreeMap<WorkerId, Record>,
    pub(crate) last_worker: WorkerId,
    pub(crate) launched: bool,
    /// The code of a failed first start.
    pub(crate) refused: Option<u8>,
    /// The first of preStop and drain signal.
    pub(crate) budget_from: Option<Time>,
    /// A drain signal, or the crash loop: there is no way back.
    pub(crate) committed: Option<Time>,
    pub(crate) lame_since: Option<Time>,
    /// When the last hook returned.
    pub(crate) hook_over: Option<Time>,
    pub(crate) crash_loop: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) sweep: Option<Sweep>,
    /// Everything there was has been sent KILL.
    pub(crate) kill_swept: bool,
    /// A worker's time was up in the drain.
    pub(crate) overdue_in_drain: bool,
    pub(crate) requests: BTreeMap<RequestId, Command>,
    pub(crate) jumped: Duration,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) jitter: Vec<f64>,
    /// Workers that were killed at a quiet moment, by why; and those whose time was up.
    pub(crate) quiet_ends: BTreeMap<&'static str, u64>,
    pub(crate) kills: u64,
    /// Watchdogs that have run out.
    pub(crate) silences: u64,
    pub(crate) rolls: Rolls,
    /// How many there have been.
    step: u64,
    first_failure: Option<u8>,
    pub(crate) this_step: ThisStep,
}

impl Books {
    pub(crate) fn open(config: Config) -> Self {
        let vacant = Vacancy { since: Time::ZERO, ceiling: Duration::ZERO };
        let slots = (0..config.workers).map(|_| Slot { vacancy: Some(vacant), ..Slot::default() });
        Self {
            now: Time::ZERO,
            stage: Stage::Running,
            desired: config.workers,
            slots: slots.collect(),
            workers: BTreeMap::new(),
            last_worker: WorkerId(0),
            launched: false,
            refused: None,
            budget_from: None,
            committed: None,
            lame_since: None,
            hook_over: None,
            crash_loop: false,
            ending: None,
            sweep: None,
            kill_swept: false,
            overdue_in_drain: false,
            requests: BTreeMap::new(),
            jumped: Duration::ZERO,
            exit: None,
            jitter: Vec::new(),
            quiet_ends: BTreeMap::new(),
            kills: 0,
            silences: 0,
            rolls: Rolls::new(&config),
            step: 0,
            first_failure: None,
            this_step: ThisStep::default(),
            config,
        }
    }

    pub(crate) fn enter(&mut self, now: Time, step: &Step<'_>) {
        self.now = self.now.max(now);
        self.step += 1;
        self.this_step = ThisStep::default();
        self.stage = match step.before.phase {
            Phase::Starting | Phase::Serving => Stage::Running,
            Phase::LameDuck => Stage::LameDuck,
            Phase::Draining | Phase::Killing | Phase::Exited => Stage::Ending,
        };
        self.return_to_serving();
        self.take_in(step.event);
        self.note_unseen();
        self.decide(step);
        self.note(step.actions);
        self.note_silent_farewells(step.after);
        self.close(step);
    }

    /// The first of preStop and signal + grace − margin.
    pub(crate) fn hard_deadline(&self) -> Option<Time> {
        self.budget_from.map(|from| from + self.budget())
    }

    fn budget(&self) -> Duration {
        self.config.grace.saturating_sub(self.config.margin)
    }

    /// The longest LB wait that leaves the workers a quarter of the budget, at least 500 ms.
    pub(crate) fn lb_wait(&self) -> Duration {
        let share = (self.budget() / 4).max(Duration::from_millis(500));
        self.config.lb_wait.max.min(self.budget().saturating_sub(share))
    }

    pub(crate) fn patience(&self) -> Duration {
        self.config.drain_timeout.unwrap_or(self.budget())
    }

    pub(crate) fn ready(&self) -> u32 {
        self.workers.values().filter(|worker| worker.is_ready()).count() as u32
    }

    pub(crate) fn prestop_returns_at(&self) -> Option<Time> {
        let advice = self.committed.is_none() && self.stage == Stage::LameDuck;
        self.hook_over.filter(|_| advice).map(|over| over + PRESTOP_RETURN)
    }

    /// What DESIGN §1 says, before `--remap-exit`.
    pub(crate) fn expected_code(&self) -> u8 {
        match self.refused {
            Some(code) => code,
            None if self.crash_loop => code::CRASH_LOOP,
            None if self.overdue_in_drain => code::DEADLINE,
            None if self.config.restart == Restart::Never => self.first_failure.unwrap_or(0),
            None => 0,
        }
    }

    fn living(&self, pid: Pid) -> Option<WorkerId> {
        self.workers.iter().find(|(_, worker)| worker.pid == Some(pid)).map(|(id, _)| *id)
    }
}

/// What happened.
impl Books {
    fn return_to_serving(&mut self) {
        if self.prestop_returns_at().is_some_and(|at| at <= self.now) {
            (self.budget_from, self.hook_over, self.lame_since) = (None, None, None);
            self.stage = Stage::Running;
            self.this_step.returned = true;
        }
    }

    fn take_in(&mut self, event: &Event) {
        match event {
            Event::Start
            | Event::Unavailable { .. }
            | Event::LateAnswered
            | Event::Observed(_)
            | Event::Tick => {}
            Event::Weighed { room } => {
                if self.rolls.weighing > 0 {
                    self.rolls.weighing -= 1;
                    self.rolls.room = Some(*room).filter(|_| self.rolls.weighing == 0);
                    self.rolls.weighed_in = self.step;
                    if self.rolls.room == Some(0) {
                        self.rolls.short = Some(self.now);
                    }
                }
            }
            Event::Overweight { worker } => {
                if let Some(record) = self.workers.get_mut(worker) {
                    record.overweight |= record.is_ready();
                }
            }
            Event::Signal { signal, value } => self.on_signal(*signal, *value),
            Event::Spawned { worker, pid } => self.on_spawned(*worker, *pid),
            Event::SpawnFailed { worker, failure } => self.on_spawn_failed(*worker, failure),
            Event::Ready { worker } => {
                self.on_ready(*worker);
            }
            Event::Said { worker, word } => self.on_said(*worker, word),
            Event::Hung { worker, .. } => self.on_hung(*worker),
            Event::Retired { worker } => {
                if let Some(record) = self.workers.get_mut(worker) {
                    record.retires_by = None;
                }
            }
            Event::Deaf { worker, .. } => {
                if let Some(record) = self.workers.get_mut(worker) {
                    record.deaf |= record.told.is_some() && !record.killed;
                }
            }
            Event::EndedQuietly { worker, why } => self.on_ended_quietly(*worker, *why),
            Event::Undelivered { worker } => self.end_message_wait(Some(*worker)),
            Event::Exited { worker, exit } => self.on_exited(*worker, *exit),
            Event::Descendants { left } => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.clean |= !left;
                }
            }
            Event::Command { command, request } => {
                self.requests.insert(*request, command.clone());
                match command {
                    Command::PreStop => _ = self.budget_from.get_or_insert(self.now),
                    Command::Scale(workers) => self.scale(*workers),
                    Command::Roll(order) => self.on_roll_ordered(order, Some(*request)),
                    Command::Abort => self.on_abort(*request),
                }
            }
        }
    }

    fn on_signal(&mut self, signal: Signal, value: Option<u64>) {
        match self.config.signals.get(signal) {
            Disposition::Forward => self.forward(signal, value),
            Disposition::Rewrite(other) => self.forward(other, value),
            Disposition::Ignore => {}
            Disposition::Restart => {
                let trigger = RollTrigger::Signal(signal);
                self.on_roll_ordered(&RollOrder { target: None, trigger, wait: false }, None);
            }
            Disposition::Drain => {
                if self.stage == Stage::Ending {
                    self.forward(signal, None);
                    self.insist();
                }
                self.budget_from.get_or_insert(self.now);
                if self.committed.is_none() {
                    self.committed = Some(self.now);
                    self.drop_roll();
                }
            }
            Disposition::ScaleUp => self.scale(self.desired + 1),
            Disposition::ScaleDown => self.scale((self.desired - 1).max(1)),
        }
    }

    fn forward(&mut self, signal: Signal, value: Option<u64>) {
        // An orphaned group ignores the terminal's stops by default.
        let stopped = self.config.signal_scope == Scope::Group && signal.is_terminal_stop();
        let signal = if stopped { Signal::STOP } else { signal };
        let pids = self.workers.values().filter_map(|worker| worker.pid);
        self.this_step.forwards = pids.map(|pid| (pid, signal, value)).collect();
    }

    /// Whoever waits for its message to work gets the stop signal in place of the one that is passed on.
    fn insist(&mut self) {
        let waiting = self.workers.values().filter(|worker| worker.awaits_signal());
        let waiting: Vec<_> = waiting.filter_map(|worker| worker.pid).collect();
        self.this_step.forwards.retain(|(pid, ..)| !waiting.contains(pid));
        self.end_message_wait(None);
    }

    /// Of one worker, or of all.
    fn end_message_wait(&mut self, of: Option<WorkerId>) {
        let now = self.now;
        for (id, worker) in &mut self.workers {
            if let Some(message) = worker.message.as_mut().filter(|_| of.is_none_or(|of| of == *id)) {
                message.signal_due = message.signal_due.min(now);
            }
        }
    }

    /// At least a quarter of a worker's time, or a second of it, is left for the signal.
    fn latest_signal(&self, deadline: Time) -> Time {
        deadline - (deadline.since(self.now) / 4).min(Duration::from_secs(1))
    }

    /// A drain may have left less time to a worker that had been told before.
    fn shorten_message_waits(&mut self) {
        let latest: Vec<_> = self
            .workers
            .iter()
            .filter_map(|(id, worker)| {
                let shortened =
                    worker.told.filter(|told| worker.message.is_some_and(|sent| *told < sent.deadline));
                shortened.map(|told| (*id, told, self.latest_signal(told)))
            })
            .collect();
        for (id, deadline, latest) in latest {
            if let Some(message) = self.workers.get_mut(&id).and_then(|worker| worker.message.as_mut()) {
                *message = SentMessage { signal_due: message.signal_due.min(latest), deadline };
            }
        }
    }

    fn scale(&mut self, workers: u32) {
        let resizable = self.config.kind == Kind::Pool && self.stage == Stage::Running;
        if !resizable || !(1..=MAX_WORKERS).contains(&workers) {
            return;
        }
        let (deadline, retires_by) = (self.now + self.patience(), self.retires_by());
        for slot in self.slots.drain((workers as usize).min(self.slots.len())..) {
            for id in slot.occupant.into_iter().chain(slot.successor) {
                let Some(worker) = self.workers.get_mut(&id) else { continue };
                if worker.told.is_some() {
                    continue;
                }
                self.this_step.lost_ready += u32::from(worker.is_ready());
                worker.retires_by = retires_by.filter(|_| worker.is_ready());
                worker.tell(deadline);
            }
        }
        let vacancy = Some(Vacancy { since: self.now, ceiling: Duration::ZERO });
        self.slots.resize_with(workers as usize, || Slot { vacancy, ..Slot::default() });
        self.desired = workers;
        if let Some(roll) = &mut self.rolls.running {
            roll.shrink(workers);
        }
        self.rolls.recycled.take_if(|index| *index >= workers);
    }
}

/// What follows from it.
impl Books {
    fn decide(&mut self, step: &Step<'_>) {
        let ends = matches!(step.after.phase, Phase::Draining | Phase::Killing | Phase::Exited);
        if !(ends && self.committed.is_some()) {
            self.mind_watchdogs();
        }
        if ends && self.ending.is_none() && self.refused.is_none() {
            self.end(step.event);
        }
        self.tell_the_late();
        if self.ending.is_none() {
            self.relieve();
            self.begin_kept();
            self.leave_recycling_to_the_roll();
        }
        self.mark_overdue();
        self.shorten_message_waits();
        let hard = self.hard_deadline();
        if self.ending.is_some() && self.workers.is_empty() && self.sweep.is_none() {
            let grace_over = self.now + self.config.orphan_grace;
            self.this_step.deserted = true;
            self.sweep = Some(Sweep { since: self.now, kill_due: grace_over, clean: false });
        }
        // A signal during the sweep of a pool that finished by itself.
        if let (Some(sweep), Some(hard)) = (&mut self.sweep, hard) {
            sweep.kill_due = sweep.kill_due.min(hard.max(sweep.since));
        }
    }

    fn end(&mut self, event: &Event) {
        let drained = matches!(event, Event::Signal { signal, .. }
            if self.config.signals.get(*signal) == Disposition::Drain);
        let by_int = matches!(event, Event::Signal { signal: Signal::INT, .. });
        let signal = if drained && by_int && self.stage == Stage::Running {
            Signal::INT
        } else {
            self.config.stop_signal
        };
        let finished = self.workers.is_empty() && self.slots.iter().all(|slot| slot.vacancy.is_none());
        self.ending = Some(Ending { at: self.now, signal, finished, cut: drained, from: self.stage });
        self.drop_roll();
        let deadline = self.drain_deadline();
        for worker in self.workers.values_mut() {
            worker.retires_by = None;
            worker.tell(deadline);
        }
        self.slots.iter_mut().for_each(|slot| (slot.vacancy, slot.refill) = (None, false));
    }

    fn drain_deadline(&self) -> Time {
        let hard = self.hard_deadline().unwrap_or(self.now);
        self.config.drain_timeout.map_or(hard, |timeout| hard.min(self.now + timeout))
    }

    fn tell_the_late(&mut self) {
        let now = self.now;
        let deadline = now + self.patience();
        // Whose time is up is not told anew by what the lateness of another brings.
        self.workers.values_mut().for_each(|worker| worker.overstay(now));
        let starting = self.workers.values_mut().filter(|w| w.told.is_none() && w.ready_at.is_none());
        let mut late = Vec::new();
        for worker in starting.filter(|worker| worker.ready_by.is_some_and(|by| by <= now)) {
            worker.failed = true;
            worker.told = Some(deadline);
            late.push(worker.generation);
        }
        if self.ending.is_none() {
            late.into_iter().for_each(|generation| _ = self.on_generation_failed(generation));
        }
    }

    fn mark_overdue(&mut self) {
        let now = self.now;
        let past_hard = self.ending.is_some() && self.hard_deadline().is_some_and(|hard| hard <= now);
        for worker in self.workers.values_mut() {
            worker.overstay(now);
            let due = worker.told.is_some_and(|deadline| deadline <= now);
            // Whoever was killed at a quiet moment finished in time, and is only slow to go.
            let newly = (due && !worker.overdue && !worker.ended_quietly) || past_hard;
            self.overdue_in_drain |= newly && self.ending.is_some();
            if due && !worker.overdue && worker.ended_quietly {
                self.this_step.saw.push("killed at a quiet moment, and slow to go");
            }
            worker.overdue |= due;
            worker.retires_by.take_if(|by| *by <= now);
        }
    }

    fn close(&mut self, step: &Step<'_>) {
        if self.ending.is_none() {
            self.mark_overdue();
        }
        let slots = &self.slots;
        self.rolls.recycled.take_if(|index| {
            let slot = slots.get(*index as usize);
            slot.is_none_or(|slot| slot.successor.is_none() && slot.vacancy.is_none() && !slot.refill)
        });
        self.note_unseen();
        let ready = self.ready();
        if let Some(roll) = &mut self.rolls.running {
            roll.least_ready = roll.least_ready.min(ready);
        }
        match step.after.phase {
            Phase::Starting | Phase::Serving => self.lame_since = None,
            Phase::LameDuck => _ = self.lame_since.get_or_insert(self.now),
            Phase::Draining | Phase::Killing | Phase::Exited => {}
        }
    }
}
