//! The workers as the daemon knows them: who is ready, whose calls wait, who is checked.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Check, Engine};
use crate::config::values::ReadyWhen;
use crate::core::event::{Event, Hang};
use crate::core::signal::Signal;
use crate::core::snapshot::Phase;
use crate::core::types::{Pid, Release, SlotIndex, WorkerId};
use crate::daemon::adoption::Told;
use crate::sys::accepting::Waiting;
use crate::sys::channel::Channel;
use crate::sys::notify::NotifySocket;
use crate::sys::seccomp::Notifier;

/// The calls of one worker that are answered in one turn.
const CALLS_AT_ONCE: usize = 64;

/// Who binds listens next. To be woken for that anew would cost as much again.
const LISTENS_WITHIN: Duration = Duration::from_micros(100);

pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) slot: SlotIndex,
    pub(super) release: Release,
    pub(super) version: Option<String>,
    pub(super) ready: bool,
    /// By us.
    pub(super) killed: bool,
    /// Asked to finish.
    pub(super) told: bool,
    /// Killed in a quiet moment in place of this signal, which is what it is taken to have died of.
    pub(super) ended_for: Option<Signal>,
    /// Whether its handler of the stop signal goes with its first use, where that is known.
    pub(super) handles_once: Option<bool>,
    /// How it got its sockets.
    pub(super) socket: &'static str,
    /// What the last look has seen, if it need not be looked at before it has run again.
    pub(super) waiting: Option<Waiting>,
}

impl Worker {
    pub(super) fn new(
        pid: Pid,
        slot: SlotIndex,
        release: Release,
        version: Option<String>,
        socket: &'static str,
    ) -> Self {
        Self {
            pid,
            slot,
            release,
            version,
            ready: false,
            killed: false,
            told: false,
            ended_for: None,
            handles_once: None,
            socket,
            waiting: None,
        }
    }
}

/// How many of a worker's calls have been answered.
pub(in crate::daemon) enum Answered {
    All,
    /// There may be more.
    Some,
    /// There will never be another.
    Last,
}

/// A worker whose readiness is to be found out.
pub(in crate::daemon) struct Newcomer {
    pub(in crate::daemon) worker: WorkerId,
    pub(in crate::daemon) slot: SlotIndex,
    /// Where it says how it is.
    pub(in crate::daemon) notify: Option<Arc<NotifySocket>>,
    pub(in crate::daemon) channel: Option<Arc<Channel>>,
    /// Who is asked about its sockets.
    pub(in crate::daemon) notifier: Option<Notifier>,
}

impl Engine {
    /// A worker has been found ready.
    pub(in crate::daemon) fn mark_ready(&mut self, worker: WorkerId) {
        if let Some(known) = self.workers.get_mut(&worker) {
            if !std::mem::replace(&mut known.ready, true) {
                self.serving.push(worker);
                self.looks.arrived(worker);
            }
            self.feed(Event::Ready { worker });
        }
    }

    /// A worker that was ready has been found hung.
    pub(in crate::daemon) fn mark_hung(&mut self, worker: WorkerId, why: Hang) {
        self.feed(Event::Hung { worker, why });
    }

    pub(in crate::daemon) fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|worker| worker.ready)
    }

    /// Answer the calls of a worker that wait for us.
    pub(in crate::daemon) fn answer_calls(&mut self, worker: WorkerId, notifier: &Notifier) -> Answered {
        let mut within = Duration::ZERO;
        for _ in 0..CALLS_AT_ONCE {
            let call = match notifier.receive(std::mem::take(&mut within)) {
                Ok(Some(call)) => call,
                Ok(None) => return Answered::All,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(_) => return Answered::Last,
            };
            let all_finish = matches!(self.core.phase(), Phase::Draining | Phase::Killing | Phase::Exited);
            let sockets = &mut self.launcher.sockets;
            // What a worker has left behind gets nothing of the others.
            let part = sockets.part_of(worker).unwrap_or(usize::MAX);
            let told = self.adoption.answer(notifier, &call, part, sockets.listeners_mut(), all_finish);
            if told == Told::Nothing {
                continue;
            }
            // What it forks sets handlers of its own; Node sets those of the process from the main thread.
            if let Told::Handles { once } = told
                && let Some(known) = self.workers.get_mut(&worker).filter(|known| known.pid == call.thread)
            {
                known.handles_once = Some(once);
            }
            // Many servers listen on what they have inherited too.
            if told == Told::Adopted
                && let Some(known) = self.workers.get_mut(&worker)
            {
                known.socket = "adopted";
                within = LISTENS_WITHIN;
            }
            // Its event loop may have the socket for as long as others do, whatever it closes: it is not looked at.
            if told == Told::Done {
                self.feed(Event::Deaf { worker, sure: true });
            }
            if told == Told::Listening {
                self.looks.arrived_by_call(worker);
                self.steer();
            }
            if told == Told::Listening && self.ready_when == ReadyWhen::Listening {
                self.mark_ready(worker);
            }
        }
        Answered::Some
    }

    /// Run a check command for a worker; the reply is whether it succeeded in time.
    pub(in crate::daemon) fn start_check(
        &mut self,
        worker: WorkerId,
        command: &[String],
        timeout: Duration,
        reply: oneshot::Sender<bool>,
    ) {
        let Some(&Worker { pid, slot, release, .. }) = self.workers.get(&worker) else { return };
        match self.launcher.start_check(command, release, slot, pid) {
            Ok(pid) => {
                let kill_at = Some(self.clock.now() + timeout);
                self.checks.insert(pid, Check { reply, kill_at });
            }
            Err(failure) => {
                tracing::warn!(slot, reason = failure.reason(), "check not run");
                let _ = reply.send(false);
            }
        }
    }

    /// Begin a connection to this worker and no other.
    pub(in crate::daemon) fn connect(&mut self, worker: WorkerId) -> io::Result<TcpStream> {
        let stream = self.launcher.sockets.connect(worker)?;
        self.note_check(stream.local_addr()?.port());
        Ok(stream)
    }
}
