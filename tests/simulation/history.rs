//! What happened, line by line.

use std::fmt;
use std::time::Duration;

use drainit::core::event::{Action, Event};
use drainit::core::time::Time;

/// A line of the history.
pub(crate) enum Entry {
    Event(u64, Time, Event),
    Action(Action),
    Clock(Duration),
}

impl Entry {
    pub(crate) fn action(&self) -> Option<&Action> {
        match self {
            Self::Action(action) => Some(action),
            Self::Event(..) | Self::Clock(_) => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(step, at, event) => {
                write!(f, "{step:>5} {:>12.6} s  {event:?}", at.since_start().as_secs_f64())
            }
            Self::Action(action) => write!(f, "{:>24}-> {action:?}", ""),
            Self::Clock(step) => write!(f, "{:>24}.. the clock jumps by {step:?}", ""),
        }
    }
}
