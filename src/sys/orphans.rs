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

/// A process that outlived the leader of its group. Its number may become another's, its start does not.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pid: Pid,
    group: Pid,
    started: u64,
}

impl Member {
    /// Still there, and in that group.
    pub fn is_alive(&self) -> bool {
        procfs::stat(self.pid).is_some_and(|stat| stat.group == self.group && stat.started == self.started)
    }

    pub fn kill(&self) {
        if self.is_alive() {
            // SAFETY: kill(2) touches no memory.
            unsafe { libc::kill(self.pid.0, libc::SIGKILL) };
        }
    }
}

/// Who is in a group whose leader is gone; nobody where /proc cannot tell, and then the sweep at the end has to do.
pub fn members_of(group: Pid) -> Vec<Member> {
    let all = procfs::pids().unwrap_or_default().into_iter();
    let stats = all.filter_map(|pid| Some((pid, procfs::stat(pid)?)));
    stats
        .filter(|(_, stat)| stat.group == group)
        .map(|(pid, stat)| Member { pid, group, started: stat.started })
        .collect()
}

fn below_us() -> Vec<Pid> {
    procfs::descendants(process::own_pid())
        .unwrap_or_else(|| (2..GUESSED_PIDS).map(Pid).filter(|pid| reap::is_child(*pid)).collect())
}
