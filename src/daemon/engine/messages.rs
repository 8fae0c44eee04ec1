//! The workers' IPC channels: made, kept, and used for the stop message.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Engine;
use crate::config::values::{NodeIpc, StopMessage};
use crate::core::event::{Event, SpawnFailure};
use crate::core::types::{Pid, WorkerId};
use crate::sys::channel::Channel;

impl Engine {
    /// Both ends for a worker that is to have a channel.
    pub(super) fn open_channel(
        &mut self,
        to_spare: bool,
    ) -> Result<Option<(Arc<Channel>, OwnedFd)>, SpawnFailure> {
        let opened = match self.node_ipc {
            NodeIpc::Off => return Ok(None),
            NodeIpc::Auto if !to_spare => Err(io::Error::other("RLIMIT_NOFILE leaves no descriptor for it")),
            NodeIpc::Auto | NodeIpc::On => Channel::pair(),
        };
        match (opened, self.node_ipc) {
            (Ok((ours, theirs)), _) => Ok(Some((Arc::new(ours), theirs))),
            (Err(error), NodeIpc::On) => {
                Err(SpawnFailure::System(format!("no channel (--node-ipc on): {error}")))
            }
            (Err(error), _) => {
                // Said once.
                self.node_ipc = NodeIpc::Off;
                self.missing.push(format!("Node workers get no IPC channel (--node-ipc): {error}"));
                Ok(None)
            }
        }
    }

    /// Ask a worker to finish on its channel. Where it cannot be reached, the core hears of it.
    pub(super) fn send_stop_message(&mut self, pid: Pid) {
        let Some(worker) = self.children.get(&pid).copied() else { return };
        let sent = match (self.channels.get(&worker), &self.stop_message) {
            (Some(channel), Some(StopMessage::Json(text))) => channel.send(format!("{text}\n").as_bytes()),
            (Some(channel), Some(StopMessage::Disconnect)) => channel.hang_up(),
            (None, _) | (_, None) => Err(io::Error::other("it has no IPC channel")),
        };
        match sent {
            Ok(()) => tracing::debug!(%pid, "stop message sent"),
            Err(error) => {
                self.warn_of_undelivered(pid, &error);
                self.events.push_back(Event::Undelivered { worker });
            }
        }
    }

    /// A worker has closed its channel and left unread what it had been sent.
    pub(in crate::daemon) fn on_unread(&mut self, worker: WorkerId) {
        tracing::debug!(worker = worker.0, "channel closed by the worker, something unread");
        self.feed(Event::Undelivered { worker });
    }

    fn warn_of_undelivered(&self, pid: Pid, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::WouldBlock => "it does not read its IPC channel".to_owned(),
            io::ErrorKind::BrokenPipe => "it has closed its IPC channel".to_owned(),
            _ => error.to_string(),
        };
        tracing::warn!(%pid, "stop message not delivered, {why}: the stop signal goes at once");
    }
}
