//! One timer of the kernel: timerfd_create(2).
//!
//! tokio's own wake a sleeping process at every step of their wheel (64 ms, 4 s) that is on the way, and a millisecond late.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

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
    pub fn set(&self, after: Option<Duration>) -> io::Result<()> {
        let Some(after) = after else { return Ok(self.0.unset()?) };
        // Zero would disarm it.
        let after = TimeSpec::from(after.max(Duration::from_nanos(1)));
        Ok(self.0.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
