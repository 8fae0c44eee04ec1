//! Rolls as the daemon sees them: what is to be started.

use tokio::sync::oneshot;

use super::Engine;
use crate::config::restart::Restart;
use crate::core::event::{Command, Event, Outcome, RequestId, RollOrder, RollTrigger};

impl Engine {
    /// Somebody on the control socket wants another generation.
    pub(super) fn take_restart(&mut self, order: &Restart, reply: oneshot::Sender<Outcome>) {
        let target = if order.changes_nothing() {
            None
        } else {
            self.launcher.releases.keep(&self.core.releases());
            let base = self.core.release_ahead();
            match self.launcher.derive(base, order) {
                Ok(target) => Some(target),
                Err(reason) => {
                    let _ = reply.send(Outcome::Refused(reason));
                    return;
                }
            }
        };
        let order = RollOrder { target, trigger: RollTrigger::Request, wait: order.wait };
        self.command(Command::Roll(order), Some(reply));
    }

    /// Put a command to the core, with somebody who waits for what becomes of it, or nobody.
    pub(super) fn command(&mut self, command: Command, reply: Option<oneshot::Sender<Outcome>>) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.replies.extend(reply.map(|reply| (request, reply)));
        self.feed(Event::Command { command, request });
    }
}
