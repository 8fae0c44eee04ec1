//! When to look whether a worker that starts accepts: by what the last one did, since the next one mostly does the same.
//!
//! Each look wakes drainit, which costs more than the look; and one that comes late makes a roll longer. So who has told by
//! a call is left alone, and who was seen is looked for when the last one was found.

use std::time::Duration;

/// Nothing is known, and its calls do not tell: most servers are up in a moment.
const FIRST: Duration = Duration::from_millis(2);
const EVERY: Duration = Duration::from_millis(50);
/// Nothing is known, and its calls may tell: looking is for the few that accept on what they were given and never call
/// listen(2), such as Go, Rust and nginx with sockets of systemd's kind.
const FIRST_AT_CALLERS: Duration = Duration::from_millis(40);
const EVERY_AT_CALLERS: Duration = Duration::from_millis(100);
/// The last one has told. A new release may be another server.
const LATE: Duration = Duration::from_millis(500);

/// The last one was seen, and took longer.
const EVERY_BEFORE: Duration = Duration::from_millis(200);

/// How the last worker was found to accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Habit {
    #[default]
    Unknown,
    /// By a call of its own.
    Tells,
    /// By a look, after so long.
    Seen(Duration),
}

/// Of the looks at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    pub(super) first: Duration,
    /// When it is expected to accept before long. From then on such a part of what has gone by goes by before the next look.
    near: Duration,
    share: u32,
    longest: Duration,
}

impl Habit {
    pub(super) fn rhythm(self, calls: bool) -> Rhythm {
        let (first, share, longest) = match self {
            Self::Seen(after) => return Rhythm::around(after),
            Self::Tells if calls => (LATE, 1, LATE),
            Self::Unknown if calls => (FIRST_AT_CALLERS, 1, EVERY_AT_CALLERS),
            Self::Unknown | Self::Tells => (FIRST, 1, EVERY),
        };
        Rhythm { first, near: Duration::ZERO, share, longest }
    }

    /// Found by a look. By the first one it might have been long before.
    pub(super) fn seen(after: Duration, by_the_first: bool) -> Self {
        Self::Seen(if by_the_first { after * 3 / 4 } else { after })
    }
}

impl Rhythm {
    /// The next one may be quicker all the same: what the last one read from a disk is in memory now.
    fn around(after: Duration) -> Self {
        let near = (after * 4 / 5).max(FIRST);
        Self { first: near.min(EVERY_BEFORE), near, share: 10, longest: EVERY_BEFORE }
    }

    /// Between two looks, so long after the worker was started; `ever_later`: without end.
    pub(super) fn pause(self, after: Duration, ever_later: bool) -> Duration {
        let pause = if after < self.near { self.near - after } else { after / self.share }.max(FIRST);
        if ever_later { pause } else { pause.min(self.longest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it is found, by how many looks, and what is known then.
    fn found(habit: Habit, calls: bool, takes: Duration) -> (Duration, u32, Habit) {
        let rhythm = habit.rhythm(calls);
        let (mut at, mut looks) = (rhythm.first, 1);
        while at < takes {
            at += rhythm.pause(at, false);
            looks += 1;
        }
        (at, looks, Habit::seen(at, looks == 1))
    }

    #[test]
    fn whoever_is_seen_is_found_in_time_and_with_few_looks_before_long() {
        for takes in [1, 5, 30, 50, 200, 270, 1500, 10_000].map(Duration::from_millis) {
            for (mut habit, calls) in [
                (Habit::Unknown, true),
                (Habit::Unknown, false),
                (Habit::Tells, true),
                (Habit::Seen(takes * 7), true),
            ] {
                for _ in 0..12 {
                    habit = found(habit, calls, takes).2;
                }
                let (at, looks, _) = found(habit, calls, takes);
                assert!(at <= takes * 5 / 4 + FIRST, "{takes:?}: {at:?} by {habit:?}");
                let most = 4 + at.as_millis() / EVERY_BEFORE.as_millis();
                assert!(u128::from(looks) <= most, "{takes:?}: {looks} looks by {habit:?}");
            }
        }
    }

    #[test]
    fn the_first_of_all_is_found_soon() {
        for (calls, within) in [(true, EVERY_AT_CALLERS), (false, EVERY)] {
            for takes in (0..3000).map(Duration::from_millis) {
                let (at, ..) = found(Habit::Unknown, calls, takes);
                assert!(at < takes + within, "{takes:?}: {at:?}");
            }
        }
    }

    #[test]
    fn whoever_is_quicker_than_the_last_is_found_soon() {
        for takes in (0..3000).map(Duration::from_millis) {
            let (at, ..) = found(Habit::Seen(Duration::from_secs(60)), true, takes);
            assert!(at <= takes + EVERY_BEFORE, "{takes:?}: {at:?}");
        }
    }

    #[test]
    fn who_tells_is_left_alone() {
        assert_eq!(found(Habit::Tells, true, Duration::from_millis(450)).1, 1);
        assert_eq!(
            Habit::Tells.rhythm(false),
            Habit::Unknown.rhythm(false),
            "where calls do not tell any more"
        );
    }
}
