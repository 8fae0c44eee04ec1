//! Who sits in which slot, and where new connections go.

use super::types::{SlotIndex, WorkerId};

/// One slot of the pool, as whoever gives out the sockets has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub occupant: Option<WorkerId>,
    /// The occupant serves.
    pub ready: bool,
    /// It takes the occupant's place once it is ready.
    pub successor: Option<WorkerId>,
}

/// The slots that get new connections: those whose workers serve. Where none does, they wait in all of them for the
/// first that will.
pub fn open_slots(seats: &[Seat]) -> Vec<SlotIndex> {
    let slots = |wanted: fn(&Seat) -> bool| {
        (0..).zip(seats).filter(|(_, seat)| wanted(seat)).map(|(slot, _)| slot).collect::<Vec<SlotIndex>>()
    };
    let ready = slots(|seat| seat.ready);
    if ready.is_empty() { slots(|_| true) } else { ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(ready: bool) -> Seat {
        Seat { occupant: Some(WorkerId(1)), ready, successor: None }
    }

    #[test]
    fn connections_go_to_whoever_serves_and_wait_where_nobody_does() {
        assert_eq!(open_slots(&[seat(true), seat(false), seat(true)]), [0, 2]);
        assert_eq!(open_slots(&[seat(false), seat(false)]), [0, 1]);
        assert!(open_slots(&[]).is_empty());
    }
}
