//! Whom the kernel kills when memory runs out: proc_pid_oom_score_adj(5). The size decides, and a handicap in thousandths
//! of all the memory there is.

use std::ffi::CString;
use std::fs;

use super::memory;

const FILE: &str = "/proc/self/oom_score_adj";

const MAX: i32 = 1000;

/// More than drainit ever holds: a worker is to be preferred even where it holds nothing yet.
const AHEAD: u64 = 8 << 20;

/// The text for a worker's oom_score_adj with which it is killed before us. `None` where there is no telling.
pub fn for_workers() -> Option<CString> {
    let mut own = fs::read_to_string(FILE).ok()?.trim().parse().ok()?;
    // Nobody can come before who is first of all; it takes CAP_SYS_RESOURCE to be less than what one was given.
    if own == MAX && fs::write(FILE, (MAX - 1).to_string()).is_ok() {
        own = MAX - 1;
    }
    CString::new(ahead_of(own, memory::limit()).to_string()).ok()
}

/// As little as puts a worker ahead: the order among containers, which is the orchestrator's, is made of this too.
fn ahead_of(own: i32, limit: Option<u64>) -> i32 {
    let thousandths = limit.map_or(0, |limit| AHEAD.saturating_mul(1000) / limit.max(1));
    let thousandths = i32::try_from(thousandths).unwrap_or(MAX).min(MAX);
    own.saturating_add(1).saturating_add(thousandths).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_little_ahead() {
        let gibibytes = |count: u64| Some(count << 30);
        assert_eq!(ahead_of(0, None), 1);
        assert_eq!(ahead_of(0, gibibytes(64)), 1);
        assert_eq!(ahead_of(-997, gibibytes(1)), -989);
        assert_eq!(ahead_of(0, Some(64 << 20)), 126);
        assert_eq!(ahead_of(0, Some(1)), 1000);
        assert_eq!(ahead_of(999, None), 1000);
        assert_eq!(ahead_of(1000, None), 1000);
    }
}
