//! The only place that reads the time: the monotonic clock, as [`Time`] since the start.

use std::time::Instant;

use crate::core::time::Time;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn now(self) -> Time {
        Time::at(self.start.elapsed())
    }

    /// For timers that want an instant.
    pub(super) fn instant(self, time: Time) -> Option<Instant> {
        self.start.checked_add(time.since_start())
    }
}
