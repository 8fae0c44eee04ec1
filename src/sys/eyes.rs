//! Looking at a process of another user: its /proc is open to that user and to CAP_SYS_PTRACE, which a container's root
//! mostly has not. But it may open files with the rights of that user.

use std::sync::OnceLock;

use nix::libc;

use super::standing::{be_dumpable, is_dumpable};
use super::{process, procfs};
use crate::core::types::Pid;

/// Look at `process`, and do nothing else: what this opened or made would be opened and made with the rights of whoever
/// it runs as.
pub fn look_at<T>(process: Pid, look: impl FnOnce() -> T) -> T {
    if sees_everybody() {
        return look();
    }
    let own = (process::uid(), process::gid());
    let other = procfs::owner(process).filter(|owner| *owner != own);
    let _borrowed = other.map(|(uid, gid)| Borrowed::new(uid, gid));
    look()
}

/// CAP_SYS_PTRACE, and CAP_DAC_OVERRIDE for directories that are open to their owner alone: capabilities(7).
fn sees_everybody() -> bool {
    const WANTED: u64 = 1 << 19 | 1 << 1;
    static SEES: OnceLock<bool> = OnceLock::new();
    *SEES.get_or_init(|| {
        let status = procfs::read_text("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
        effective.and_then(|set| u64::from_str_radix(set, 16).ok()).is_some_and(|set| set & WANTED == WANTED)
    })
}

/// Ours are back when it is dropped.
struct Borrowed {
    uid: u32,
    gid: u32,
    dumpable: bool,
}

impl Borrowed {
    fn new(uid: u32, gid: u32) -> Self {
        let dumpable = is_dumpable();
        Self { gid: set(libc::SYS_setfsgid, gid), uid: set(libc::SYS_setfsuid, uid), dumpable }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        set(libc::SYS_setfsuid, self.uid);
        set(libc::SYS_setfsgid, self.gid);
        // Each change takes it away.
        if self.dumpable {
            be_dumpable();
        }
    }
}

/// setfsuid(2), setfsgid(2): of this thread, and there is no other. Refused or not, the answer is the previous one.
fn set(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: takes a number.
    unsafe { libc::syscall(call, id) as u32 }
}
