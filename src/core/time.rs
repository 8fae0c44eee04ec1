//! Time as data: the core is told what time it is and never asks.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::Serialize;

/// A point on the monotonic clock, counted from the start of drainit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Time(Duration);

impl Time {
    /// The moment drainit started.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point that lies `since_start` after the start.
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after the start this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; zero where it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Saturates: a deadline that cannot be represented is one that never comes.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}
