//! Clocks that two processes can compare, and the processor time of another process. All in microseconds.
#![allow(unsafe_code, reason = "clock_gettime(2), which the standard library does not show")]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use nix::libc;

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC).unwrap_or_default()
}

/// Microseconds since then.
pub(crate) fn since(start: u64) -> f64 {
    micros(now().saturating_sub(start))
}

pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Microseconds that a process has spent on a processor so far: to the nanosecond, where /proc/PID/stat counts
/// in hundredths of a second.
pub(crate) fn processor_time(pid: i32) -> io::Result<f64> {
    let mut clock = 0;
    // SAFETY: the pointer is to a live clock id.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
        0 => read(clock).map(micros),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

fn read(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is to a live timespec.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first, and written by the kernel.
    let time = unsafe { time.assume_init() };
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}
