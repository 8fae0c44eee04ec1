//! What outlives the workers: PID 1 gets it all, a subreaper everything below itself.

use nix::libc;

use super::reap::{self, Children};
use super::{check, process, procfs};
use crate::core::signal::Signal;
use crate::core::types::Pid;

/// Rounds of looking and killing for a fork bomb below a subreaper; each round finds what was born meanwhile.
const ROUNDS: usize = 64;

/// Without /proc a subreaper's children can only be guessed; pids beyond this are not.
const GUESSED_PIDS: i32 = 65_536;

/// Send `signal` to everything that is left.
pub fn signal_all(signal: Signal) {
    if process::is_init() {
        // Every process of the namespace but ourselves, in one go that no fork escapes: kill(2).
        // SAFETY: kill(2) touches no memory.
        unsafe { libc::kill(-1, signal.number()) };
        return;
    }
    let mut known: Vec<Pid> = Vec::new();
    for _ in 0..ROUNDS {
        let left = below_us();
        let fresh: Vec<_> = left.iter().filter(|pid| !known.contains(pid)).copied().collect();
        for pid in &fresh {
            // SAFETY: kill(2) touches no memory. It is below us, so at worst it has just become a zombie.
            unsafe { libc::kill(pid.0, signal.number()) };
        }
        if fresh.is_empty() || signal != Signal::KILL {
            return;
        }
        known.extend(fresh);
    }
}

/// Whether anything is left, zombies that nobody has reaped included.
pub fn any_left() -> bool {
    if reap::look(false) != Children::None {
        return true;
    }
    // SAFETY: signal 0 only asks, and kill(2) touches no memory.
    process::is_init() && check(unsafe { libc::kill(-1, 0) }).is_ok()
}

fn below_us() -> Vec<Pid> {
    procfs::descendants(process::own_pid())
        .unwrap_or_else(|| (2..GUESSED_PIDS).map(Pid).filter(|pid| reap::is_child(*pid)).collect())
}
