use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything may take on the slowest machine. Nothing waits so long unless it fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(2);

/// Waits for a condition; `what` names it in the failure.
#[track_caller]
pub fn until<T>(what: impl Display, mut condition: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, &mut condition) {
        Some(value) => value,
        None => panic!("not within {DEADLINE:?}: {what}"),
    }
}

pub fn within<T>(limit: Duration, condition: impl FnMut() -> Option<T>) -> Option<T> {
    looking_every(POLL, limit, condition)
}

/// Looks ten times a second, where the looking itself would take the time that is waited for.
#[track_caller]
pub fn until_at_last<T>(limit: Duration, what: impl Display, condition: impl FnMut() -> Option<T>) -> T {
    match looking_every(Duration::from_millis(100), limit, condition) {
        Some(value) => value,
        None => panic!("not within {limit:?}: {what}"),
    }
}

fn looking_every<T>(pause: Duration, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(pause);
    }
}

/// The opposite: the condition must hold all through the window. For "nothing happens" only.
#[track_caller]
pub fn holds_for(window: Duration, what: impl Display, mut condition: impl FnMut() -> bool) {
    let broken = within(window, || (!condition()).then_some(()));
    assert!(broken.is_none(), "did not last: {what}");
}

/// Busy waiting, because a sleep is too coarse to hit a window of microseconds.
pub fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (act(), start.elapsed())
}
