//! The message that may come before the stop signal, and when the signal follows it.

use std::time::Duration;

use super::config::StopMessage;
use super::time::Time;

/// Kept of a worker's time for the signal, should the message have been for nothing: a quarter, and no more than this.
const SIGNALS_SHARE: Duration = Duration::from_secs(1);

impl StopMessage {
    /// When the signal follows a message sent at `now` to a worker that is killed at `deadline`. It always comes
    /// before KILL does.
    pub(super) fn signal_due(self, now: Time, deadline: Time) -> Time {
        let latest = latest_signal(now, deadline);
        self.wait.map_or(latest, |wait| (now + wait).min(latest))
    }

    /// How long the message is waited for where a worker has all of `patience`.
    pub(super) fn patience(self, patience: Duration) -> Duration {
        self.signal_due(Time::ZERO, Time::ZERO + patience).since_start()
    }
}

/// When the signal comes at the latest to a worker that is killed at `deadline`.
pub(super) fn latest_signal(now: Time, deadline: Time) -> Time {
    deadline - (deadline.since(now) / 4).min(SIGNALS_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_comes_before_kill() {
        let ms = Duration::from_millis;
        let due = |wait: Option<u64>, deadline: u64| {
            let message = StopMessage { wait: wait.map(ms) };
            message.signal_due(Time::at(ms(1_000)), Time::at(ms(1_000 + deadline))).since_start()
        };
        assert_eq!(due(None, 20_000), ms(20_000), "a second before the deadline");
        assert_eq!(due(None, 400), ms(1_300), "a quarter of a short time");
        assert_eq!(due(Some(0), 400), ms(1_000));
        assert_eq!(due(Some(5_000), 20_000), ms(6_000));
        assert_eq!(due(Some(60_000), 20_000), ms(20_000), "a wait that is too long is cut");
        assert_eq!(due(None, 0), ms(1_000));
    }
}
