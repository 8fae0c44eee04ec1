//! Doing what the core wants done.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::Engine;
use super::workers::{Newcomer, Worker};
use crate::config::values::{NodeIpc, ReadyWhen};
use crate::core::event::{Action, Event, SpawnFailure};
use crate::core::signal::Signal;
use crate::core::types::{Edition, Pid, Scope, SlotIndex, WorkerId};
use crate::daemon::notices;
use crate::sys::notify::NotifySocket;
use crate::sys::spawn::Started;
use crate::sys::{descriptors, kill};

/// Descriptors that are not for workers: the event loop's, the sockets', the connections' of probes.
pub(super) const DESCRIPTORS_KEPT: i32 = 32;

impl Engine {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, slot, edition } => self.spawn(worker, slot, edition),
            Action::Weigh => self.weigh(),
            Action::Kill { pid, signal, scope, value } => self.kill(pid, signal, scope, value),
            Action::Stop { worker, pid, signal, scope, quiet_until } => {
                self.stop(worker, pid, signal, scope, quiet_until);
            }
            Action::End { worker, until } => self.end_when_quiet(worker, until),
            Action::Listen { worker, sure } => self.look_for_departure(worker, sure),
            Action::AnswerLate { linger_until } => self.answer_late(linger_until),
            Action::Retire { worker } => self.retire(worker),
            Action::Message { pid } => self.send_stop_message(pid),
            Action::Observe => self.observe(),
            Action::Sweep { signal } => self.sweep(signal),
            Action::Reply { request, outcome } => {
                if let Some(reply) = self.replies.remove(&request) {
                    let _ = reply.send(outcome);
                }
            }
            Action::Tell(notice) => match &mut self.early {
                Some(early) => early.push(notice),
                None => {
                    notices::tell(&notice, self.core.config().kind);
                    self.tell_who_holds(&notice);
                }
            },
            Action::Exit(status) => {
                self.tell_late();
                self.exit = Some(status);
            }
        }
    }

    fn spawn(&mut self, worker: WorkerId, slot: SlotIndex, edition: Edition) {
        match self.try_spawn(worker, slot, edition) {
            Ok(pid) => {
                let socket = self.launcher.socket_way();
                self.children.insert(pid, worker);
                let release = edition.release;
                let version = self.launcher.releases.version(release);
                let known = Worker::new(pid, slot, release, version, socket);
                self.workers.insert(worker, known);
                self.events.push_back(Event::Spawned { worker, pid });
                if self.ready_when == ReadyWhen::Started {
                    self.serving.push(worker);
                    self.events.push_back(Event::Ready { worker });
                }
            }
            Err(failure) => {
                self.launcher.sockets.release(worker);
                self.events.push_back(Event::SpawnFailed { worker, failure });
            }
        }
    }

    fn try_spawn(
        &mut self,
        worker: WorkerId,
        slot: SlotIndex,
        edition: Edition,
    ) -> Result<Pid, SpawnFailure> {
        let wanted = self.ready_when == ReadyWhen::Notify || self.core.config().watchdog.is_some();
        let to_spare = self.has_descriptors_to_spare();
        if !to_spare && self.launcher.may_adopt() {
            self.give_up_adoption("RLIMIT_NOFILE leaves no descriptor for it");
        }
        let notify = if wanted || (!self.is_init_only() && to_spare) {
            match NotifySocket::new(worker.0) {
                Ok(socket) => Some(Arc::new(socket)),
                Err(error) if wanted => {
                    return Err(SpawnFailure::System(format!("no socket for sd_notify: {error}")));
                }
                Err(_) => None,
            }
        } else {
            None
        };
        let seats = self.core.seats();
        let beside =
            usize::try_from(slot).ok().and_then(|slot| seats.get(slot)).is_some_and(|seat| seat.ready);
        let part = self.launcher.sockets.assign(worker, slot, beside);
        let part = part.map_err(|error| SpawnFailure::System(format!("no socket for it: {error}")))?;
        let address = notify.as_ref().map(|socket| socket.address());
        let (channel, childs_end) = self.open_channel(to_spare)?.unzip();
        let Started { pid, notifier, not_adopted } =
            self.launcher.start(slot, edition, part, address, childs_end.as_ref().map(AsRawFd::as_raw_fd))?;
        if let Some(socket) = &notify {
            self.lend_ear(worker, pid, slot, Arc::clone(socket));
        }
        if let Some(error) = not_adopted {
            // What the kernel refuses one worker, it refuses all.
            self.give_up_adoption(&error.to_string());
        }
        self.channels.extend(channel.iter().map(|channel| (worker, Arc::clone(channel))));
        self.look_for_arrival(worker, notifier.is_some());
        self.newcomers.push(Newcomer { worker, slot, notify, channel, notifier });
        Ok(pid)
    }

    /// Said once.
    fn give_up_adoption(&mut self, why: &str) {
        self.launcher.give_up_adoption();
        self.missing
            .push(format!("servers cannot be given drainit's sockets when they bind (--adopt-bind): {why}"));
    }

    /// A socket a worker that few workers use must not cost the pool its event loop.
    fn has_descriptors_to_spare(&self) -> bool {
        let workers = i32::try_from(self.workers.len()).unwrap_or(i32::MAX);
        let sockets = i32::try_from(self.launcher.sockets.surplus()).unwrap_or(i32::MAX);
        workers
            .saturating_mul(self.descriptors_a_worker())
            .saturating_add(sockets)
            .saturating_add(DESCRIPTORS_KEPT)
            < descriptors::limit()
    }

    pub(in crate::daemon) fn descriptors_a_worker(&self) -> i32 {
        if self.node_ipc == NodeIpc::Off { 2 } else { 3 }
    }

    pub(super) fn kill(&mut self, pid: Pid, signal: Signal, scope: Scope, value: Option<u64>) {
        if !self.endings.on_sent(pid, signal) {
            return;
        }
        self.job_control.on_sent(signal);
        if signal == Signal::KILL
            && let Some(known) = self.children.get(&pid).and_then(|worker| self.workers.get_mut(worker))
        {
            known.killed = true;
        }
        match kill::send(pid, signal, scope, value) {
            Ok(()) => tracing::debug!(%pid, %signal, "signal sent"),
            // A zombie takes signals, so this is somebody who has been reaped by others: nothing to tell.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => tracing::warn!(%pid, %signal, %error, "signal not sent"),
        }
    }
}
