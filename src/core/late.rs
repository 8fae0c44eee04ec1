//! Connections that no worker accepts any more: whether they are being answered, and for how long the exit waits.

use std::time::Duration;

use super::time::Time;

/// Of a drain's last moments, what belongs to those who have come, and not to those who may.
pub(super) const LAST_ANSWERS: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Late {
    /// A worker may accept.
    #[default]
    Ahead,
    /// They are being answered, and drainit stays for that until then.
    Underway { until: Time },
    /// Everybody has been answered, or there was no time.
    Over,
}

impl Late {
    /// How long it has to be waited for, if it has.
    pub(super) fn due(self, now: Time) -> Option<Time> {
        match self {
            Self::Underway { until } => Some(until).filter(|until| now < *until),
            Self::Ahead | Self::Over => None,
        }
    }
}
