//! Answering connections that no worker accepts any more, and saying what came of it.

use super::Engine;
use super::actions::DESCRIPTORS_KEPT;
use crate::core::event::Event;
use crate::core::time::Time;
use crate::daemon::late::{self, Late};
use crate::sys::descriptors;

/// Connections of probes and of subcommands keep their places.
const PLACES_KEPT: i32 = 128;

impl Engine {
    pub(super) fn answer_late(&mut self, linger_until: Time) {
        let now = self.clock.now();
        self.late_has_begun = true;
        // Nobody comes to be lingered for.
        let linger_until = if self.endings.refused.is_some() { now } else { linger_until };
        self.late = self.late_answer.as_ref().map(|answer| Late::new(answer, now, linger_until));
        if self.late.is_none() {
            self.events.push_back(Event::LateAnswered);
        }
    }

    pub(super) fn look_at_late(&mut self, now: Time) {
        let Some(mut late) = self.late.take_if(|late| late.due() <= now) else { return };
        let room = self.room_for_late();
        if late.look(now, &mut self.launcher.sockets, room, &self.stats) {
            late::tell(&self.stats, 0);
            self.feed(Event::LateAnswered);
        } else {
            self.late = Some(late);
        }
    }

    /// drainit is about to end.
    pub(super) fn tell_late(&mut self) {
        if let Some(late) = self.late.take() {
            late::tell(&self.stats, late.left(&self.launcher.sockets));
        }
    }

    fn room_for_late(&self) -> usize {
        let workers = i32::try_from(self.workers.len()).unwrap_or(i32::MAX);
        let sockets = i32::try_from(self.launcher.sockets.surplus()).unwrap_or(i32::MAX);
        let used = workers.saturating_mul(self.descriptors_a_worker()).saturating_add(sockets);
        let room = descriptors::limit().saturating_sub(used).saturating_sub(DESCRIPTORS_KEPT + PLACES_KEPT);
        usize::try_from(room).unwrap_or(0).max(1)
    }
}
