//! The workers as the daemon knows them: who is ready, whose calls wait, who is checked.

use tokio::sync::oneshot;

use super::{CHECK_TIMEOUT, Check, Child, Engine};
use crate::config::values::ReadyWhen;
use crate::core::event::Event;
use crate::core::types::{Pid, SlotIndex, WorkerId};
use crate::daemon::adoption::Told;
use crate::sys::accepting::{self, Sight};
use crate::sys::notify::NotifySocket;
use crate::sys::seccomp::Notifier;

/// The calls of one worker that are answered in one turn.
const CALLS_AT_ONCE: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    pub(super) slot: SlotIndex,
    pub(super) ready: bool,
    /// How it got its sockets.
    pub(super) socket: &'static str,
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
    pub(in crate::daemon) pid: Pid,
    pub(in crate::daemon) slot: SlotIndex,
    pub(in crate::daemon) notify: Option<NotifySocket>,
    /// Who is asked about its sockets.
    pub(in crate::daemon) notifier: Option<Notifier>,
}

impl Engine {
    /// A worker has been found ready.
    pub(in crate::daemon) fn mark_ready(&mut self, worker: WorkerId) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.ready = true;
            self.feed(Event::Ready { worker });
        }
    }

    pub(in crate::daemon) fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|worker| worker.ready)
    }

    /// Look whether workers that are starting have become ready: where nobody sends word, and somebody asks.
    pub(in crate::daemon) fn look_at_workers(&mut self) {
        if self.ready_when != ReadyWhen::Listening {
            return;
        }
        let starting: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.ready)
            .map(|(id, worker)| (*id, worker.pid))
            .collect();
        for (id, pid) in starting {
            if matches!(self.look_at(pid), Sight::Accepting | Sight::Blind(_)) {
                self.mark_ready(id);
            }
        }
    }

    pub(in crate::daemon) fn look_at(&self, pid: Pid) -> Sight {
        let inodes = self.launcher.socket_inodes();
        if inodes.is_empty() { accepting::on_own_socket(pid) } else { accepting::on_sockets(pid, &inodes) }
    }

    /// Answer the calls of a worker that wait for us.
    pub(in crate::daemon) fn answer_calls(&mut self, worker: WorkerId, notifier: &Notifier) -> Answered {
        for _ in 0..CALLS_AT_ONCE {
            let call = match notifier.receive() {
                Ok(Some(call)) => call,
                Ok(None) => return Answered::All,
                Err(_) => return Answered::Last,
            };
            let told = self.adoption.answer(notifier, &call, self.launcher.listeners());
            if told == Told::Nothing {
                continue;
            }
            if let Some(known) = self.workers.get_mut(&worker) {
                known.socket = "adopted";
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
        reply: oneshot::Sender<bool>,
    ) {
        let Some(Worker { pid, slot, .. }) = self.workers.get(&worker).copied() else { return };
        match self.launcher.start_check(command, slot, pid) {
            Ok(pid) => {
                let kill_at = Some(self.clock.now() + CHECK_TIMEOUT);
                self.children.insert(pid, Child::Check(Check { reply, kill_at }));
            }
            Err(failure) => {
                tracing::warn!(slot, reason = failure.reason(), "readiness check not run");
                let _ = reply.send(false);
            }
        }
    }
}
