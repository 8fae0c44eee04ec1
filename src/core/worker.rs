//! One incarnation of a worker: starting, ready, reloading, stopping, hung, draining, killed.

use std::time::Duration;

use super::config::Kind;
use super::context::Context;
use super::event::{Action, Hang, Notice, QuietEnd, Recycle};
use super::signal::Signal;
use super::snapshot::{WorkerState, WorkerView};
use super::stop_message::latest_signal;
use super::time::Time;
use super::types::{Edition, Pid, Scope, SlotIndex, WorkerId};
use super::watchdog::Watchdog;
use super::word::{Lifecycle, Word};

/// Before its deadline, a worker that has not ended is ended at a moment when it serves nobody, if there is one: for a
/// quarter of the time since its stop signal, and no longer than this.
const END_WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Worker {
    id: WorkerId,
    pub(super) slot: SlotIndex,
    pub(super) edition: Edition,
    pub(super) state: WorkerState,
    /// Not ready in time, or hung where nobody replaces it: its end is a crash, though we asked for it.
    pub(super) failed: bool,
    /// It has been told to finish, and accepts no connection any more.
    pub(super) deaf: bool,
    /// Somebody is finding out when that is so.
    pub(super) listened_to: bool,
    /// It will accept none again either; and somebody is finding out when that is so.
    pub(super) past_accepting: bool,
    pub(super) watched_out: bool,
    /// The roll that has put another in its place.
    pub(super) replaced_by: Option<u64>,
    /// When another is to take its place, and why, though it serves.
    pub(super) recycle: Option<(Time, Recycle)>,
    /// Unknown until the spawn has been answered.
    pid: Option<Pid>,
    spawned: Time,
    ready_at: Option<Time>,
    /// Of the state it is in.
    deadline: Option<Time>,
    /// What it is asked to stop with, for a pid that is not known yet or after the message.
    stop_signal: Option<Signal>,
    /// It has been sent the stop message, and the signal follows then.
    signal_due: Option<Time>,
    stopped_at: Option<Time>,
    /// The stop signal was sent, or is held back for want of a handler.
    signalled: Option<Time>,
    /// It is to end at the next quiet moment, whether it wants to or not.
    ending: bool,
    /// It has been killed in one.
    ended: bool,
    /// Until when it serves its own queue, before the stop signal is sent.
    retires_by: Option<Time>,
    /// It began to end by itself, and nobody has asked it to since.
    leaving: bool,
    watchdog: Watchdog,
    status_text: Option<String>,
    main_pid: Option<Pid>,
}

impl Worker {
    pub(super) fn new(id: WorkerId, slot: SlotIndex, edition: Edition, ctx: &Context) -> Self {
        Self {
            id,
            slot,
            edition,
            state: WorkerState::Starting,
            failed: false,
            deaf: false,
            listened_to: false,
            past_accepting: false,
            watched_out: false,
            replaced_by: None,
            recycle: None,
            pid: None,
            spawned: ctx.now,
            ready_at: None,
            deadline: None,
            stop_signal: None,
            signal_due: None,
            stopped_at: None,
            signalled: None,
            ending: false,
            ended: false,
            retires_by: None,
            leaving: false,
            watchdog: Watchdog::new(ctx.config.watchdog),
            status_text: None,
            main_pid: None,
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid.unwrap_or(Pid(0))
    }

    pub(super) fn known_pid(&self) -> Option<Pid> {
        self.pid
    }

    pub(super) fn spawned(&self) -> Time {
        self.spawned
    }

    pub(super) fn ready_at(&self) -> Option<Time> {
        self.ready_at
    }

    pub(super) fn is_spawning(&self) -> bool {
        self.pid.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.retires_by.into_iter().chain(self.deadline).min()
    }

    /// When the stop signal follows the stop message.
    pub(super) fn signal_due(&self) -> Option<Time> {
        self.signal_due
    }

    /// When a quiet moment is as good as its own end.
    pub(super) fn end_due(&self) -> Option<Time> {
        let waited_for = self.state == WorkerState::Draining && !self.ending;
        let (signalled, deadline) = self.signalled.zip(self.deadline).filter(|_| waited_for)?;
        Some(deadline - (deadline.since(signalled) / 4).min(END_WINDOW))
    }

    pub(super) fn uptime(&self, now: Time) -> Duration {
        now.since(self.spawned)
    }

    /// How long it has been ready without interruption.
    pub(super) fn ready_for(&self, now: Time) -> Option<Duration> {
        self.ready_at.map(|at| now.since(at))
    }

    /// Whether its end was our wish and not a failure.
    pub(super) fn was_asked_to_stop(&self) -> bool {
        match self.state {
            WorkerState::Starting
            | WorkerState::Ready
            | WorkerState::Reloading
            | WorkerState::Stopping
            | WorkerState::Hung => false,
            WorkerState::Draining | WorkerState::Killed => !self.failed && !self.leaving,
        }
    }

    pub(super) fn on_spawned(&mut self, pid: Pid, ctx: &mut Context) {
        self.pid = Some(pid);
        self.spawned = ctx.now;
        ctx.tell(Notice::WorkerStarted { slot: self.slot, pid, generation: self.edition.generation });
        match self.state {
            WorkerState::Starting
            | WorkerState::Ready
            | WorkerState::Reloading
            | WorkerState::Stopping
            | WorkerState::Hung => {
                self.deadline = ctx.config.ready_timeout.map(|timeout| ctx.now + timeout);
            }
            // The order to stop overtook the answer to the spawn.
            WorkerState::Draining => self.ask(!self.failed, ctx),
            WorkerState::Killed => self.send(Signal::KILL, Scope::Group, ctx),
        }
    }

    pub(super) fn on_ready(&mut self, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting => {
                self.state = WorkerState::Ready;
                self.ready_at = Some(ctx.now);
                self.deadline = None;
                self.watchdog.restart(ctx.now);
                self.recycle = ctx.config.max_lifetime.map(|most| {
                    // Jittered, so that workers which came together do not go together.
                    (ctx.now + most - ctx.rng.up_to(most / 10), Recycle::Lifetime)
                });
                let after = self.uptime(ctx.now);
                ctx.tell(Notice::WorkerReady { slot: self.slot, pid: self.pid(), after });
            }
            WorkerState::Ready
            | WorkerState::Reloading
            | WorkerState::Stopping
            | WorkerState::Hung
            | WorkerState::Draining
            | WorkerState::Killed => {}
        }
    }

    /// It serves nobody any more, and goes on until its replacement is ready.
    pub(super) fn on_hung(&mut self, why: Hang, ctx: &mut Context) {
        self.state = WorkerState::Hung;
        self.watchdog.stop();
        ctx.tell(Notice::WorkerHung { slot: self.slot, pid: self.pid(), why });
    }

    /// Ask it to finish until `deadline`, after which it is killed.
    pub(super) fn stop(&mut self, signal: Signal, deadline: Time, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting
            | WorkerState::Ready
            | WorkerState::Reloading
            | WorkerState::Stopping
            | WorkerState::Hung => {
                // Of whoever serves nobody there is no reason to think that it reads.
                let listens = self.state != WorkerState::Hung && !self.failed;
                self.state = WorkerState::Draining;
                self.leaving = false;
                self.watchdog.stop();
                self.stop_signal = Some(signal);
                self.stopped_at = Some(ctx.now);
                self.deadline = Some(deadline);
                self.ask(listens, ctx);
            }
            // Asked before, by a scale-down perhaps; a drain may leave it less time.
            WorkerState::Draining => {
                self.deadline = self.deadline.map(|at| at.min(deadline));
                let latest = self.deadline.map(|at| latest_signal(ctx.now, at));
                self.signal_due = self.signal_due.map(|due| latest.map_or(due, |at| at.min(due)));
                if self.retires_by.is_some() {
                    self.stop_signal = Some(signal);
                    self.on_retired(ctx);
                }
            }
            WorkerState::Killed => {}
        }
    }

    /// As [`Worker::stop`], while others go on serving: where its connections wait in a queue of its own, it is told
    /// once that is empty.
    pub(super) fn retire(&mut self, id: WorkerId, signal: Signal, deadline: Time, ctx: &mut Context) {
        // Told before: it keeps its time, and what waits for it is being served still.
        if self.state == WorkerState::Draining {
            return;
        }
        let Some(patience) = ctx.config.retire_patience().filter(|_| self.state.is_ready()) else {
            return self.stop(signal, deadline, ctx);
        };
        self.state = WorkerState::Draining;
        self.watchdog.stop();
        self.stop_signal = Some(signal);
        self.stopped_at = Some(ctx.now);
        self.deadline = Some(deadline);
        self.retires_by = Some(deadline.min(ctx.now + patience));
        ctx.act(Action::Retire { worker: id });
    }

    /// Nothing waits for it any more, or for too long.
    pub(super) fn on_retired(&mut self, ctx: &mut Context) {
        if self.retires_by.take().is_some() && self.state == WorkerState::Draining {
            self.ask(true, ctx);
        }
    }

    /// Its queue has not become empty in time.
    pub(super) fn is_overdue_to_retire(&self, now: Time) -> bool {
        self.retires_by.is_some_and(|at| at <= now) && self.deadline.is_none_or(|at| at > now)
    }

    /// By message first, where there is one and it listens.
    fn ask(&mut self, listens: bool, ctx: &mut Context) {
        let (Some(pid), Some(deadline)) = (self.pid, self.deadline) else { return };
        match ctx.config.stop_message.filter(|_| listens) {
            Some(message) => {
                self.signal_due = Some(message.signal_due(ctx.now, deadline));
                ctx.act(Action::Message { pid });
            }
            None => self.send_stop_signal(ctx),
        }
    }

    /// The message has had its time.
    pub(super) fn give_up_message(&mut self, ctx: &mut Context) {
        ctx.counters.stop_message_timeouts += 1;
        let after = ctx.now.since(self.stopped_at.unwrap_or(self.spawned));
        ctx.tell(Notice::MessageInVain { slot: self.slot, pid: self.pid(), after });
        self.end_message_wait(ctx);
    }

    /// The signal goes now, where the message has kept it waiting.
    pub(super) fn end_message_wait(&mut self, ctx: &mut Context) {
        if self.signal_due.take().is_some() {
            self.send_stop_signal(ctx);
        }
    }

    fn send_stop_signal(&mut self, ctx: &mut Context) {
        let Some(pid) = self.pid else { return };
        let signal = self.stop_signal.unwrap_or(ctx.config.stop_signal);
        let is_pool = ctx.config.kind == Kind::Pool;
        // Who has never served has nobody's request.
        let quiet_until = self.deadline.filter(|_| is_pool && self.ready_at.is_some());
        self.signalled = Some(ctx.now).filter(|_| is_pool);
        let scope = ctx.config.signal_scope;
        ctx.act(Action::Stop { worker: self.id, pid, signal, scope, quiet_until });
    }

    /// Its time is nearly up.
    pub(super) fn end_when_quiet(&mut self, ctx: &mut Context) {
        self.ending = true;
        if let Some(until) = self.deadline {
            ctx.act(Action::End { worker: self.id, until });
        }
    }

    /// It was killed at a moment when it served nobody. Says whether that is news: its deadline may have passed before.
    pub(super) fn on_ended_quietly(&mut self, why: QuietEnd, ctx: &mut Context) -> bool {
        if self.state != WorkerState::Draining || std::mem::replace(&mut self.ended, true) {
            return false;
        }
        match why {
            QuietEnd::NoHandler => ctx.counters.ended_without_handler += 1,
            QuietEnd::Straggler => ctx.counters.ended_stragglers += 1,
            QuietEnd::Idle => ctx.counters.ended_idle += 1,
        }
        let after = ctx.now.since(self.stopped_at.unwrap_or(self.spawned));
        ctx.tell(Notice::WorkerEndedQuietly { slot: self.slot, pid: self.pid(), why, after });
        true
    }

    /// It was killed at a quiet moment, and the kernel has not handed it over yet.
    pub(super) fn has_been_ended(&self) -> bool {
        self.ended
    }

    /// Its time is up.
    pub(super) fn kill(&mut self, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting
            | WorkerState::Ready
            | WorkerState::Reloading
            | WorkerState::Stopping
            | WorkerState::Hung
            | WorkerState::Draining => {
                self.state = WorkerState::Killed;
                self.deadline = None;
                self.retires_by = None;
                self.signal_due = None;
                self.watchdog.stop();
                if !self.ended {
                    ctx.counters.forced_kills += 1;
                    let after = ctx.now.since(self.stopped_at.unwrap_or(self.spawned));
                    ctx.tell(Notice::WorkerKilled { slot: self.slot, pid: self.pid(), after });
                }
                self.send(Signal::KILL, Scope::Group, ctx);
            }
            WorkerState::Killed => {}
        }
    }

    /// Pass on a signal that was meant for the workers.
    pub(super) fn forward(&self, signal: Signal, value: Option<u64>, ctx: &mut Context) {
        if self.pid.is_some() {
            ctx.counters.signals_forwarded += 1;
        }
        let (signal, scope) = match ctx.config.signal_scope {
            // A group that is orphaned ignores the terminal's stops by default (setpgid(2)), STOP it does not.
            Scope::Group if signal.is_terminal_stop() => (Signal::STOP, Scope::Group),
            scope => (signal, scope),
        };
        self.send_with(signal, scope, value, ctx);
    }

    fn send(&self, signal: Signal, scope: Scope, ctx: &mut Context) {
        self.send_with(signal, scope, None, ctx);
    }

    fn send_with(&self, signal: Signal, scope: Scope, value: Option<u64>, ctx: &mut Context) {
        if let Some(pid) = self.pid {
            ctx.act(Action::Kill { pid, signal, scope, value });
        }
    }

    pub(super) fn view(&self, id: WorkerId, now: Time) -> WorkerView {
        WorkerView {
            id,
            slot: self.slot,
            pid: self.pid,
            generation: self.edition.generation,
            version: None,
            state: self.state,
            ready: self.state.is_ready(),
            socket: "",
            connections: None,
            uptime_seconds: self.uptime(now).as_secs_f64(),
            status_text: self.status_text.clone(),
            main_pid: self.main_pid,
        }
    }
}

/// What it says of itself.
impl Worker {
    /// When it has to be heard of again.
    pub(super) fn watchdog_due(&self) -> Option<Time> {
        self.watchdog.due()
    }

    /// It has been silent for too long.
    pub(super) fn is_silent(&mut self, now: Time) -> bool {
        self.watchdog.is_missed(now)
    }

    /// It is alive.
    pub(super) fn on_ping(&mut self, now: Time) {
        if self.watchdog.due().is_some() {
            self.watchdog.restart(now);
        }
    }

    /// Everything but becoming ready and being hung, which concern its slot too.
    pub(super) fn on_said(&mut self, word: &Word, ctx: &mut Context) {
        if let Some(text) = &word.status {
            self.status_text = Some(text.clone()).filter(|text| !text.is_empty());
        }
        if let Some(pid) = word.main_pid {
            self.main_pid = Some(pid).filter(|pid| Some(*pid) != self.pid);
        }
        match word.lifecycle {
            Some(Lifecycle::Reloading) => self.on_reloading(ctx),
            Some(Lifecycle::Stopping) => self.on_stopping(ctx),
            Some(Lifecycle::Ready) => self.on_reloaded(ctx),
            None => {}
        }
        if let Some(every) = word.watchdog {
            self.watchdog.set(every);
            self.on_interval_set(ctx.now);
        }
        if let Some(extra) = word.extend {
            self.extend(ctx.now + extra);
        }
    }

    fn on_interval_set(&mut self, now: Time) {
        if self.state.is_ready() {
            self.watchdog.restart(now);
        }
    }

    fn on_reloading(&mut self, ctx: &mut Context) {
        if self.state == WorkerState::Ready {
            self.state = WorkerState::Reloading;
            ctx.tell(Notice::WorkerReloading { slot: self.slot, pid: self.pid() });
        }
    }

    fn on_reloaded(&mut self, ctx: &mut Context) {
        if self.state == WorkerState::Reloading {
            self.state = WorkerState::Ready;
            ctx.tell(Notice::WorkerReloaded { slot: self.slot, pid: self.pid() });
        }
    }

    /// It gets the time that we would have given it, had we asked.
    fn on_stopping(&mut self, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Reloading => {
                self.state = WorkerState::Stopping;
                self.leaving = true;
                self.watchdog.stop();
                self.stopped_at = Some(ctx.now);
                self.deadline = Some(ctx.now + ctx.config.stop_patience());
                ctx.tell(Notice::WorkerStopping { slot: self.slot, pid: self.pid() });
            }
            WorkerState::Stopping | WorkerState::Hung | WorkerState::Draining | WorkerState::Killed => {}
        }
    }

    pub(super) fn cut_deadline(&mut self, latest: Time) {
        self.deadline = self.deadline.map(|at| at.min(latest));
    }

    /// Whatever it is being waited for may take until then, if that is later; at the hard deadline of a drain everybody
    /// is killed all the same.
    fn extend(&mut self, until: Time) {
        self.deadline = self.deadline.map(|at| at.max(until));
        self.watchdog.extend(until);
    }
}
