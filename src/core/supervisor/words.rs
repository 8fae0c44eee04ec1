//! What the workers say of themselves, and what follows from their silence.

use super::Supervisor;
use crate::core::drain::Life;
use crate::core::event::Hang;
use crate::core::types::WorkerId;
use crate::core::word::{Ping, Word};

impl Supervisor {
    pub(super) fn on_said(&mut self, worker: WorkerId, word: &Word) {
        self.pool.on_said(worker, word, &mut self.ctx);
        // Whatever it asks for: then everybody is killed, and its quiet moment has to come before.
        if let Life::Stopping(stopping) = &self.life {
            self.pool.cut_deadline(worker, stopping.span.hard);
        }
        match word.ping {
            Some(Ping::Alive) => self.pool.on_ping(worker, self.ctx.now),
            Some(Ping::Trigger) if !self.life.is_ending() => {
                if let Some(late) = self.pool.on_never_ready(worker, Hang::Trigger, &mut self.ctx) {
                    self.on_generation_failed(late.generation, late.slot, Hang::Trigger.reason());
                }
                self.on_hung(worker, Hang::Trigger);
            }
            Some(Ping::Trigger) | None => {}
        }
    }

    /// Whoever has been silent for too long does not serve any more.
    pub(super) fn mind_watchdogs(&mut self) {
        while !self.life.is_ending()
            && let Some(worker) = self.pool.next_silent(self.ctx.now)
        {
            self.ctx.counters.watchdog_timeouts += 1;
            self.on_hung(worker, Hang::Silent);
        }
    }
}
