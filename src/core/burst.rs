//! Many changes in a moment are one: a burst ends once nothing has come for a while, or has gone on for too long.

use std::time::Duration;

use super::time::Time;

/// Nothing for so long, and the burst is over: an editor's or the kubelet's steps take milliseconds.
pub const QUIET: Duration = Duration::from_secs(1);

/// What is written without end must not be put off without end: the deadline `watch`.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Events that may belong together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burst {
    /// When the first and the last of them came.
    span: Option<(Time, Time)>,
}

impl Burst {
    /// One more, or the first.
    pub fn note(&mut self, now: Time) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// When it will be over, if nothing more comes.
    pub fn due(&self) -> Option<Time> {
        self.span.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    /// Whether it is over; the next event begins another.
    pub fn end(&mut self, now: Time) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            self.span = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::at(Duration::from_millis(millis))
    }

    #[test]
    fn each_event_puts_the_end_off() {
        let mut burst = Burst::default();
        assert_eq!((burst.due(), burst.end(at(9000))), (None, false));
        burst.note(at(100));
        burst.note(at(1000));
        assert_eq!(burst.due(), Some(at(2000)));
        assert!(!burst.end(at(1999)));
        assert!(burst.end(at(2000)));
        assert_eq!((burst.due(), burst.end(at(2000))), (None, false));
    }

    #[test]
    fn no_burst_is_longer_than_the_longest() {
        let mut burst = Burst::default();
        for millis in (0..60_000).step_by(900) {
            burst.note(at(millis));
            assert!(burst.due().is_some_and(|due| due <= at(10_000)), "{burst:?}");
        }
        assert!(burst.end(at(10_000)));
        burst.note(at(20_000));
        assert_eq!(burst.due(), Some(at(21_000)));
    }
}
