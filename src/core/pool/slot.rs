//! A place in the pool.

use crate::core::event::Recycle;
use crate::core::time::Time;
use crate::core::types::{Edition, WorkerId};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) occupant: Option<WorkerId>,
    /// It takes the place of the occupant, once it is ready.
    pub(super) successor: Option<WorkerId>,
    /// When somebody is to be spawned for this slot; never, where there is none.
    pub(super) due: Option<Time>,
    /// What is spawned here next.
    pub(super) edition: Edition,
    /// Deaths in a row, none after a healthy life.
    pub(super) deaths: u32,
    /// Somebody takes another's place here.
    pub(super) turn: Option<Turn>,
    /// The occupant has been told to go so that another can come.
    pub(super) refill: bool,
    /// Its last worker has ended, and is not replaced.
    pub(super) finished: bool,
}

/// For what reason a worker that was no failure is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Turn {
    Roll,
    Recycle(Recycle),
}

impl Slot {
    pub(super) fn due(edition: Edition, now: Time) -> Self {
        Self {
            occupant: None,
            successor: None,
            due: Some(now),
            edition,
            deaths: 0,
            turn: None,
            refill: false,
            finished: false,
        }
    }

    /// Workers crash here one after the other.
    pub(super) fn is_hopeless(&self) -> bool {
        self.deaths > 1
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.occupant.is_none() && self.successor.is_none()
    }
}
