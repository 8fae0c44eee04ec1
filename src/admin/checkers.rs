//! Who checks readiness, and what they have been told: a load balancer lets go once enough of its checks have failed.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Checks further apart are no checks.
const LONGEST: Duration = Duration::from_secs(60);

/// More checkers than these are not told apart: the one that has been silent for longest makes room.
const CHECKERS_MAX: usize = 32;

/// By address. The kubelet is none of them.
#[derive(Default)]
pub struct Checkers(Mutex<Vec<Checker>>);

struct Checker {
    peer: IpAddr,
    last: Instant,
    /// The longest time between two of its checks; `None` where there has been one.
    every: Option<Duration>,
    /// How many in a row have failed.
    refused: u32,
    /// It was there before the drain.
    came_before: bool,
}

impl fmt::Debug for Checkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checkers")
    }
}

impl Checkers {
    pub(super) fn note(&self, peer: IpAddr, refused: bool) {
        self.note_at(peer, refused, Instant::now());
    }

    fn note_at(&self, peer: IpAddr, refused: bool, now: Instant) {
        let mut checkers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = checkers
            .iter()
            .position(|one| one.peer == peer)
            .or((checkers.len() == CHECKERS_MAX).then_some(0));
        let known =
            at.map(|at| checkers.remove(at)).filter(|one| one.peer == peer && now - one.last < LONGEST);
        let mut checker = Checker { peer, last: now, every: None, refused: 0, came_before: false };
        if let Some(before) = known {
            checker = Checker { every: before.every.max(Some(now - before.last)), last: now, ..before };
        }
        checker.refused = if refused { checker.refused + 1 } else { 0 };
        // The one that came last is last.
        checkers.push(checker);
    }

    /// A drain begins: whoever comes regularly is waited for.
    pub fn begin(&self) {
        self.begin_at(Instant::now());
    }

    fn begin_at(&self, now: Instant) {
        let mut checkers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for one in checkers.iter_mut() {
            one.came_before = one.every.is_some() && now - one.last < LONGEST;
        }
    }

    /// How many of them go on checking, and how many failures in a row each has seen at least.
    pub fn told(&self) -> (u32, u32) {
        self.told_at(Instant::now())
    }

    fn told_at(&self, now: Instant) -> (u32, u32) {
        let checkers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two of its checks have failed to come: it has been taken away, or has given this pod up.
        let comes =
            |one: &&Checker| one.came_before && one.every.is_some_and(|every| now - one.last <= every * 2);
        let coming = checkers.iter().filter(comes);
        coming.fold((0, 0), |(count, least), one| {
            (count + 1, if count == 0 { one.refused } else { least.min(one.refused) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn at(seconds: u64) -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn whoever_came_regularly_has_to_be_told() {
        let checkers = Checkers::default();
        checkers.note_at(LB, false, at(0));
        checkers.note_at(LB, false, at(2));
        checkers.note_at(OTHER, false, at(2));
        checkers.begin_at(at(3));
        assert_eq!(checkers.told_at(at(3)), (1, 0), "who came once is nobody");
        checkers.note_at(LB, true, at(4));
        assert_eq!(checkers.told_at(at(4)), (1, 1));
        checkers.note_at(LB, true, at(6));
        assert_eq!(checkers.told_at(at(7)), (1, 2));
        checkers.note_at(LB, false, at(8));
        assert_eq!(checkers.told_at(at(8)), (1, 0), "it is let in again");
    }

    #[test]
    fn the_one_that_knows_least_counts() {
        let checkers = Checkers::default();
        for second in [0, 1] {
            checkers.note_at(LB, false, at(second));
            checkers.note_at(OTHER, false, at(second));
        }
        checkers.begin_at(at(1));
        checkers.note_at(LB, true, at(2));
        assert_eq!(checkers.told_at(at(2)), (2, 0));
        checkers.note_at(OTHER, true, at(3));
        assert_eq!(checkers.told_at(at(3)), (2, 1));
    }

    #[test]
    fn whoever_stays_away_is_not_waited_for() {
        let checkers = Checkers::default();
        checkers.note_at(LB, false, at(0));
        checkers.note_at(LB, false, at(3));
        checkers.begin_at(at(4));
        assert_eq!(checkers.told_at(at(9)), (1, 0));
        assert_eq!(checkers.told_at(at(10)), (0, 0));
        checkers.begin_at(at(63));
        assert_eq!(checkers.told_at(at(63)), (0, 0), "a minute is too long");
    }

    #[test]
    fn whoever_comes_during_the_drain_is_not_waited_for() {
        let checkers = Checkers::default();
        checkers.begin_at(at(0));
        checkers.note_at(LB, true, at(1));
        checkers.note_at(LB, true, at(2));
        assert_eq!(checkers.told_at(at(2)), (0, 0));
    }

    #[test]
    fn the_one_that_has_been_away_for_longest_makes_room() {
        let checkers = Checkers::default();
        for number in 0..=255 {
            checkers.note_at(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, number)), false, at(0));
        }
        assert_eq!(checkers.0.lock().unwrap().len(), CHECKERS_MAX);
        checkers.note_at(LB, false, at(1));
        checkers.note_at(LB, false, at(2));
        checkers.begin_at(at(2));
        assert_eq!(checkers.told_at(at(2)), (1, 0));
    }
}
