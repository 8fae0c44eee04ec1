//! The watchdog of one worker: by when it has to be heard of again.

use std::time::Duration;

use super::time::Time;

/// Whoever looks so long after a deadline was not there to hear anything before it: the whole container stood still,
/// or its machine. That is no fault of the worker's.
const ABSENT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watchdog {
    /// How often there has to be a ping; `None`: never.
    every: Option<Duration>,
    /// Set for as long as the worker serves.
    due: Option<Time>,
}

impl Watchdog {
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self { every, due: None }
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    /// The worker is alive: when it became ready, and with each ping.
    pub(super) fn restart(&mut self, now: Time) {
        self.due = self.every.map(|every| now + every);
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// From now on there will be a ping so often.
    pub(super) fn set(&mut self, every: Duration) {
        self.every = Some(every);
    }

    /// It says that it will be silent until then.
    pub(super) fn extend(&mut self, until: Time) {
        self.due = self.due.map(|due| due.max(until));
    }

    /// Whether its time is up. Where nobody can have heard it, it gets another turn.
    pub(super) fn is_missed(&mut self, now: Time) -> bool {
        let Some(due) = self.due.filter(|due| *due <= now) else { return false };
        if now.since(due) < ABSENT {
            return true;
        }
        self.restart(now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Time {
        Time::at(Duration::from_secs(seconds))
    }

    #[test]
    fn each_ping_gives_it_the_whole_interval() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        assert!(!watchdog.is_missed(at(100)), "it does not serve yet");
        watchdog.restart(at(100));
        watchdog.restart(at(107));
        assert!(!watchdog.is_missed(at(116)));
        assert!(watchdog.is_missed(at(117)));
    }

    #[test]
    fn a_supervisor_that_was_not_there_blames_nobody() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        watchdog.restart(at(0));
        assert!(!watchdog.is_missed(at(60)));
        assert_eq!(watchdog.due(), Some(at(70)));
        assert!(watchdog.is_missed(at(70)));
    }

    #[test]
    fn a_longer_silence_can_be_announced_and_a_shorter_one_changes_nothing() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        watchdog.restart(at(0));
        watchdog.extend(at(5));
        assert_eq!(watchdog.due(), Some(at(10)));
        watchdog.extend(at(30));
        assert_eq!(watchdog.due(), Some(at(30)));
    }
}
