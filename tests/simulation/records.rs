//! What the books are made of: workers, slots, signals, the stages of the end.

use std::time::Duration;

use drainit::core::event::{Action, Event, RequestId, RollTrigger};
use drainit::core::signal::Signal;
use drainit::core::snapshot::Snapshot;
use drainit::core::time::Time;
use drainit::core::types::{Generation, Pid, Scope, SlotIndex, WorkerId};

use super::books::{Answer, Due, Ended};

/// One event, and everything that followed from it.
pub(crate) struct Step<'a> {
    pub(crate) event: &'a Event,
    pub(crate) actions: &'a [Action],
    pub(crate) before: &'a Snapshot,
    pub(crate) after: &'a Snapshot,
    pub(crate) timeout: Option<Time>,
}

/// Where drainit was when the event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    LameDuck,
    Ending,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) occupant: Option<WorkerId>,
    /// Whoever is to take the place of an occupant that is hung.
    pub(crate) successor: Option<WorkerId>,
    pub(crate) deaths: u32,
    pub(crate) vacancy: Option<Vacancy>,
    /// The occupant has been told to go so that another can come.
    pub(crate) refill: bool,
    /// Whoever was here last had been told to go when he went.
    pub(crate) after_farewell: bool,
    /// The step in which he went.
    pub(crate) left: u64,
    /// Its last worker has ended, and is not replaced.
    pub(crate) finished: bool,
}

impl Slot {
    /// Nobody is there, and nobody will come.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}

/// A slot that somebody is to be spawned for no later than `ceiling` after `since`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vacancy {
    pub(crate) since: Time,
    pub(crate) ceiling: Duration,
}

/// A worker from its spawn to its reaping.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) slot: SlotIndex,
    pub(crate) generation: Generation,
    /// It uses more memory than it may.
    pub(crate) overweight: bool,
    pub(crate) pid: Option<Pid>,
    pub(crate) ready_at: Option<Time>,
    /// Not ready in time, or hung where nobody is replaced.
    pub(crate) failed: bool,
    pub(crate) hung: bool,
    pub(crate) reloading: bool,
    /// It is ending by itself, and has to be gone by then.
    pub(crate) stopping: Option<Time>,
    /// It began to before anybody asked it to.
    pub(crate) leaving: bool,
    pub(crate) watchdog: Option<Duration>,
    /// When it has to be heard of again.
    pub(crate) watchdog_due: Option<Time>,
    /// Told to stop, with this deadline.
    pub(crate) told: Option<Time>,
    /// Told, and not before then or its queue is empty.
    pub(crate) retires_by: Option<Time>,
    /// How it was told: filled once the signal has been seen.
    pub(crate) stop_signals: u32,
    pub(crate) signalled: Option<Time>,
    /// It is to be ended at the next quiet moment.
    pub(crate) ended: bool,
    /// That has come.
    pub(crate) ended_quietly: bool,
    /// Told, and it accepts no connection any more.
    pub(crate) deaf: bool,
    /// Somebody finds out when that is so.
    pub(crate) listened_to: bool,
    pub(crate) message: Option<SentMessage>,
    pub(crate) killed: bool,
    pub(crate) ready_by: Option<Time>,
    pub(crate) overdue: bool,
}

/// A stop message that the signal is to follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentMessage {
    /// Not before, and not later.
    pub(crate) signal_due: Time,
    /// The worker's own deadline, when that was reckoned.
    pub(crate) deadline: Time,
}

impl Record {
    /// The message has been sent, and the signal has not.
    pub(crate) fn awaits_signal(&self) -> bool {
        self.message.is_some() && self.stop_signals == 0 && !self.killed
    }

    /// When a quiet moment is as good as its own end.
    pub(crate) fn end_due(&self) -> Option<Time> {
        let (signalled, deadline) = self.signalled.zip(self.told)?;
        Some(deadline - (deadline.since(signalled) / 4).min(Duration::from_secs(1)))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_some() && self.told.is_none() && !self.hung && self.stopping.is_none()
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.ready_at.is_none() && self.told.is_none() && self.stopping.is_none()
    }

    /// A later order leaves it less time, not more.
    pub(crate) fn tell(&mut self, deadline: Time) {
        if self.told.is_none() {
            self.leaving = false;
            self.watchdog_due = None;
        }
        self.told = Some(self.told.map_or(deadline, |at| at.min(deadline)));
    }

    /// Who does not get done with ending by itself is ended.
    pub(crate) fn overstay(&mut self, now: Time) {
        if self.told.is_none() && self.stopping.is_some_and(|by| by <= now) {
            self.told = self.stopping;
        }
    }
}

/// A signal that the core sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) pid: Pid,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) signal: Signal,
    pub(crate) scope: Scope,
    pub(crate) value: Option<u64>,
    pub(crate) purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Forward,
    Stop,
    Kill,
}

/// The end of the workers: told to stop, or gone by themselves.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) at: Time,
    pub(crate) signal: Signal,
    /// Nobody was left to be told.
    pub(crate) finished: bool,
    /// What began it was the event itself, not the time.
    pub(crate) cut: bool,
    /// The stage it began in.
    pub(crate) from: Stage,
}

/// Everything swept after the last worker's end.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) since: Time,
    pub(crate) kill_due: Time,
    /// Nothing is left: the world said so.
    pub(crate) clean: bool,
}

/// What the step at hand did.
#[derive(Debug, Default)]
pub(crate) struct ThisStep {
    pub(crate) sent: Vec<Sent>,
    /// Told while connections may have waited in its queue.
    pub(crate) told_too_early: Vec<WorkerId>,
    /// Whom a signal is to be passed on to, and which.
    pub(crate) forwards: Vec<(Pid, Signal, Option<u64>)>,
    /// A worker that was ready is gone or hung, or the pool was made smaller.
    pub(crate) lost_ready: u32,
    pub(crate) returned: bool,
    /// Slots that a roll has given away, in this step or before.
    pub(crate) given_away: Vec<SlotIndex>,
    /// Spawns into a slot that was not to be filled, or under a used id.
    pub(crate) odd_spawns: Vec<(WorkerId, SlotIndex)>,
    pub(crate) odd_replies: Vec<RequestId>,
    /// Messages to somebody who is not there, or was told already.
    pub(crate) odd_messages: Vec<Pid>,
    /// Stop signals to somebody who has been killed.
    pub(crate) odd_stops: Vec<Pid>,
    /// Quiet ends of somebody who is not there, twice, too early, or with a deadline that is not its own.
    pub(crate) odd_ends: Vec<WorkerId>,
    /// Told of as killed for the second time.
    pub(crate) killed_twice: Vec<Pid>,
    pub(crate) sweeps: Vec<Signal>,
    /// The last worker is gone.
    pub(crate) deserted: bool,
    /// Promises that were broken, judged action by action.
    pub(crate) objections: Vec<(&'static str, String)>,
    /// Corners.
    pub(crate) saw: Vec<&'static str>,
    /// Requests that have to be answered in this step, and those that have been.
    pub(crate) answers_due: Vec<(RequestId, Answer)>,
    pub(crate) answers: Vec<(RequestId, Answer)>,
    /// Rolls that are over, and are in the history now.
    pub(crate) ended: Vec<Ended>,
    /// Requests to roll that have joined one, or wait.
    pub(crate) notes_due: Vec<Due>,
    /// Rolls that have to begin in this step.
    pub(crate) rolls_due: Vec<(u64, Generation, Generation, RollTrigger)>,
    /// The roll has failed in this step, and has not said so yet.
    pub(crate) failures_due: u32,
    pub(crate) drop_due: bool,
}
