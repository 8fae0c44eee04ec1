//! One incarnation of a worker: starting, ready, hung, draining, killed.

use std::time::Duration;

use super::context::Context;
use super::event::{Action, Hang, Notice};
use super::signal::Signal;
use super::snapshot::{WorkerState, WorkerView};
use super::stop_message::latest_signal;
use super::time::Time;
use super::types::{Generation, Pid, Scope, SlotIndex, WorkerId};

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) slot: SlotIndex,
    pub(super) generation: Generation,
    pub(super) state: WorkerState,
    /// Not ready in time, or hung where nobody replaces it: its end is a crash, though we asked for it.
    pub(super) failed: bool,
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
    /// Until when it serves its own queue, before the stop signal is sent.
    retires_by: Option<Time>,
}

impl Worker {
    pub(super) fn new(slot: SlotIndex, generation: Generation, now: Time) -> Self {
        Self {
            slot,
            generation,
            state: WorkerState::Starting,
            failed: false,
            pid: None,
            spawned: now,
            ready_at: None,
            deadline: None,
            stop_signal: None,
            signal_due: None,
            stopped_at: None,
            retires_by: None,
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid.unwrap_or(Pid(0))
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
            WorkerState::Starting | WorkerState::Ready | WorkerState::Hung => false,
            WorkerState::Draining | WorkerState::Killed => !self.failed,
        }
    }

    pub(super) fn on_spawned(&mut self, pid: Pid, ctx: &mut Context) {
        self.pid = Some(pid);
        self.spawned = ctx.now;
        ctx.tell(Notice::WorkerStarted { slot: self.slot, pid, generation: self.generation });
        match self.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Hung => {
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
                let after = self.uptime(ctx.now);
                ctx.tell(Notice::WorkerReady { slot: self.slot, pid: self.pid(), after });
            }
            WorkerState::Ready | WorkerState::Hung | WorkerState::Draining | WorkerState::Killed => {}
        }
    }

    /// It serves nobody any more, and goes on until its replacement is ready.
    pub(super) fn on_hung(&mut self, why: Hang, ctx: &mut Context) {
        self.state = WorkerState::Hung;
        ctx.tell(Notice::WorkerHung { slot: self.slot, pid: self.pid(), why });
    }

    /// Ask it to finish until `deadline`, after which it is killed.
    pub(super) fn stop(&mut self, signal: Signal, deadline: Time, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Hung => {
                // Of whoever serves nobody there is no reason to think that it reads.
                let listens = self.state != WorkerState::Hung && !self.failed;
                self.state = WorkerState::Draining;
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
        let Some(patience) = ctx.config.retire_patience().filter(|_| self.state == WorkerState::Ready) else {
            return self.stop(signal, deadline, ctx);
        };
        self.state = WorkerState::Draining;
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

    fn send_stop_signal(&self, ctx: &mut Context) {
        let signal = self.stop_signal.unwrap_or(ctx.config.stop_signal);
        self.send(signal, ctx.config.signal_scope, ctx);
    }

    /// Its time is up.
    pub(super) fn kill(&mut self, ctx: &mut Context) {
        match self.state {
            WorkerState::Starting | WorkerState::Ready | WorkerState::Hung | WorkerState::Draining => {
                self.state = WorkerState::Killed;
                self.deadline = None;
                self.retires_by = None;
                self.signal_due = None;
                ctx.counters.forced_kills += 1;
                let after = ctx.now.since(self.stopped_at.unwrap_or(self.spawned));
                ctx.tell(Notice::WorkerKilled { slot: self.slot, pid: self.pid(), after });
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

    pub(super) fn view(&self, now: Time) -> WorkerView {
        WorkerView {
            slot: self.slot,
            pid: self.pid,
            generation: self.generation,
            version: None,
            state: self.state,
            ready: self.state == WorkerState::Ready,
            socket: "",
            uptime_seconds: self.uptime(now).as_secs_f64(),
        }
    }
}
