//! New connections are refused while the last workers end, where those know nothing of their end.
//!
//! They go on accepting, since nobody can tell them not to, and behind somebody who goes on connecting (nginx without
//! checks) there is always a request in flight. What has been queued before is theirs still. Who has a handler closes
//! its socket when it sees fit, and nothing is done for it.

use std::time::Duration;

use super::Engine;
use crate::core::snapshot::Phase;
use crate::core::time::Time;

/// Whoever accepts has accepted by then who was in the queue; after that a worker that is at rest and leaves somebody
/// waiting does not accept.
const LAST_TURN: Duration = Duration::from_millis(250);

impl Engine {
    /// In a drain, once every worker that is left is ended at a quiet moment.
    pub(super) fn refuse_newcomers(&mut self, now: Time) {
        if self.endings.refused.is_some() || self.endings.cannot_refuse || !self.may_refuse(now) {
            return;
        }
        for listener in self.launcher.sockets.own_listeners().filter(|one| one.bound.port().is_some()) {
            match listener.refuse_newcomers() {
                Ok(()) => {
                    self.endings.refused = Some(now);
                    tracing::info!(socket = %listener.bound, "new connections refused");
                }
                Err(error) => {
                    self.endings.cannot_refuse = true;
                    tracing::info!(socket = %listener.bound, %error, "new connections not refused");
                }
            }
        }
    }

    fn may_refuse(&self, now: Time) -> bool {
        let Some(rules) = self.core.config().late else { return false };
        let ends = self.endings.of_all(self.workers.keys().copied());
        // Whoever would have lingered for them has a worker serve them for so long.
        let due = ends.map(|(began, half_time)| (began + rules.linger).min(half_time));
        self.core.phase() == Phase::Draining && due.is_some_and(|due| due <= now)
    }

    /// Who waits now waits for drainit.
    pub(super) fn has_had_its_turn(&self, now: Time) -> bool {
        self.endings.refused.is_some_and(|refused| now.since(refused) >= LAST_TURN)
    }
}
