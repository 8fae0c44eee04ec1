//! Connections go where the core wants them, and away from whom it wants to go.

use std::time::Duration;

use super::Engine;
use crate::core::event::Event;
use crate::core::snapshot::Phase;
use crate::core::time::Time;
use crate::core::types::WorkerId;
use crate::sys::sock_diag;

/// Between two looks at a queue that is to become empty.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So many looks in a row find nothing: a connection that was under way when the others were turned away has come.
const LOOKS: u32 = 2;

/// A worker that gets no new connection and serves those that wait.
pub(super) struct Retiring {
    worker: WorkerId,
    due: Time,
    empty: u32,
}

impl Retiring {
    pub(super) fn worker(&self) -> WorkerId {
        self.worker
    }

    pub(super) fn due(&self) -> Time {
        self.due
    }
}

impl Engine {
    /// Said once: connections go on going where they went.
    pub(super) fn steer(&mut self) {
        self.steered = Some(self.core.revision());
        // Whoever is to be answered late is nobody else's, and no socket that has been shut is to listen again.
        if self.launcher.sockets.is_empty() || self.late_has_begun {
            return;
        }
        // Whoever waits for a worker that will not come is answered late.
        let ending = matches!(self.core.vitals().phase, Phase::Draining | Phase::Killing);
        let trims = !(ending && self.late_answer.is_some());
        if let Err(error) = self.launcher.sockets.follow(&self.core.seats(), trims)
            && !std::mem::replace(&mut self.steering_failed, true)
        {
            self.missing.push(format!("new connections cannot be steered between the workers: {error}"));
        }
    }

    pub(super) fn retire(&mut self, worker: WorkerId) {
        self.retiring.push(Retiring { worker, due: self.clock.now(), empty: 0 });
    }

    pub(super) fn look_at_retiring(&mut self, now: Time) {
        if self.retiring.iter().all(|retiring| retiring.due > now) {
            return;
        }
        // A handshake that is not over ends in the queue of whoever was chosen at its beginning.
        let half_open = sock_diag::any_half_open(&self.launcher.sockets.ports().collect::<Vec<_>>());
        for retiring in &mut self.retiring {
            let empty = !half_open && self.launcher.sockets.waiting_for(retiring.worker) == 0;
            retiring.empty = if empty { retiring.empty + 1 } else { 0 };
            retiring.due = now + LOOK_EVERY;
        }
        for retired in self.retiring.extract_if(.., |retiring| retiring.empty >= LOOKS) {
            self.events.push_back(Event::Retired { worker: retired.worker });
        }
        self.settle();
    }
}
