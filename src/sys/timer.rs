//! One timer of the kernel: timerfd_create(2).
//!
//! tokio's own wake a sleeping process at every step of their wheel (64 ms, 4 s) that is on the way, and a millisecond late.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Zero would disarm it.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// Of what never comes, the kernel cannot count the seconds.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// On the monotonic clock. Readable once its time has come, until it is set anew.
pub struct Timer(TimerFd);

impl Timer {
    /// # Errors
    /// The kernel's own: no descriptor is left, or seccomp(2) refuses it.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // What is not refused now will not be when it matters.
        timer.set(None)?;
        Ok(timer)
    }

    /// Have it expire `after` so long, or never.
    ///
    /// # Errors
    /// The kernel's own; none where [`Timer::new`] had none.
    pub fn set(&self, after: Option<Duration>) -> io::Result<()> {
        let Some(after) = after else { return Ok(self.0.unset()?) };
        let after = TimeSpec::from(after.clamp(AT_ONCE, LONGEST));
        Ok(self.0.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn has_expired(timer: &Timer, within_ms: u16) -> bool {
        let mut waited = [PollFd::new(timer.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut waited, PollTimeout::from(within_ms)).unwrap() > 0
    }

    #[test]
    fn it_can_be_read_once_its_time_has_come_until_it_is_set_anew() {
        let timer = Timer::new().unwrap();
        assert!(!has_expired(&timer, 0));
        for after in [Duration::ZERO, Duration::from_millis(2)] {
            timer.set(Some(after)).unwrap();
            assert!(has_expired(&timer, 60_000), "{after:?}");
            assert!(has_expired(&timer, 0), "nobody has read it");
            timer.set(Some(Duration::MAX)).unwrap();
            assert!(!has_expired(&timer, 0));
        }
        timer.set(Some(Duration::ZERO)).unwrap();
        timer.set(None).unwrap();
        assert!(!has_expired(&timer, 0));
    }
}
