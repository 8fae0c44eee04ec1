//! Making a worker's processes stand still for a moment, and what can be seen of them then.
//!
//! SIGSTOP reaches a thread when it is next about to return to its own code, so a process stands still a little after it
//! was told to. A thread that was stopped in a system call that waits has nothing under way; one that was stopped
//! anywhere else may be about to send the rest of an answer.

use std::fs;
use std::io;

use nix::libc;

use super::eyes::look_at;
use super::kill;
use super::procfs;
use super::threads::Threads;
use crate::core::signal::Signal;
use crate::core::types::{Pid, Scope};

/// What a process does with a signal: SigCgt, SigBlk and SigIgn in /proc/PID/status, proc_pid_status(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// By a handler; or it is blocked, and waits to be read (signalfd(2), sigwait(3)).
    Caught,
    Ignored,
    Default,
}

/// So often it is looked again whether a thread goes on.
const LOOKS: usize = 100;

/// `None` where it cannot be seen.
pub fn handling(pid: Pid, signal: Signal) -> Option<Handling> {
    if !procfs::is_ours() {
        return None;
    }
    for _ in 0..LOOKS {
        let status = procfs::read_text(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let set = |name: &str| u64::from_str_radix(field(name)?.trim(), 16).ok();
        let has = |set: u64, signal: i32| set >> (signal - 1) & 1 == 1;
        let (caught, ignored, blocked) = (set("SigCgt")?, set("SigIgn")?, set("SigBlk")?);
        if has(caught, signal.number()) {
            return Some(Handling::Caught);
        }
        if has(ignored, signal.number()) {
            return Some(Handling::Ignored);
        }
        if !has(blocked, signal.number()) {
            return Some(Handling::Default);
        }
        // The C library blocks everything, its own two signals included, for the moment in which it starts a thread.
        // Programs that block everything for good, and not those two, cannot: it does not let them.
        let is_passing = LIBRARYS_OWN.iter().all(|own| has(blocked, *own));
        let waits = field("State").is_some_and(|state| state.trim_start().starts_with('S'));
        if !is_passing || waits {
            return Some(Handling::Caught);
        }
    }
    Some(Handling::Default)
}

/// Kept by glibc and musl for cancelling threads and for changing their user.
const LIBRARYS_OWN: [i32; 2] = [32, 33];

/// Whether it is Node.js, by the name of what it executes.
pub fn is_node(pid: Pid) -> bool {
    let program = look_at(pid, || fs::read_link(format!("/proc/{pid}/exe")));
    program.is_ok_and(|program| program.file_name().is_some_and(|name| name == "node" || name == "nodejs"))
}

/// Stop the group of `leader`.
///
/// # Errors
/// EPERM, where it has become another user and drainit is not root.
pub fn freeze(leader: Pid) -> io::Result<()> {
    kill::send(leader, Signal::STOP, Scope::Group, None)
}

/// Have it go on. Whom SIGSTOP has not reached yet is not stopped by it any more: kill(2).
pub fn thaw(leader: Pid) {
    let _ = kill::send(leader, Signal::CONT, Scope::Group, None);
}

/// Whether a thread of these processes runs, wants to, or waits for a disk.
pub fn is_at_work(processes: &[Pid]) -> bool {
    processes.iter().any(|pid| any_is(*pid, |state| matches!(state, 'R' | 'D')))
}

/// Whether all their threads are stopped. Of the dead there is nothing to wait for.
pub fn stand_still(processes: &[Pid]) -> bool {
    processes.iter().all(|pid| !any_is(*pid, |state| !matches!(state, 'T' | 't' | 'Z' | 'X')))
}

/// Whether all threads that stand still were stopped while they waited. Where that may not be seen (ptrace(2)), the
/// answer is yes: then silence on the connections has to do.
pub fn were_waiting(processes: &[Pid]) -> bool {
    let waited = |pid: Pid| {
        look_at(pid, || {
            let threads = Threads::of(pid);
            let mut numbers = threads.read("syscall").filter_map(|call| call_number(&call));
            numbers.all(|number| WAITING.contains(&number))
        })
    };
    processes.iter().all(|pid| waited(*pid))
}

/// `232 0x… …`, `-1 0x… 0x…` in its own code, `running` where it does not stand still.
fn call_number(text: &[u8]) -> Option<libc::c_long> {
    let text = std::str::from_utf8(text).ok()?;
    text.split_ascii_whitespace().next().map(|word| word.parse().unwrap_or(-1))
}

/// System calls in which a server waits: for connections, requests, time, other threads, its children.
const WAITING: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_futex,
    libc::SYS_io_uring_enter,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // What a wait with a time limit becomes once it has been stopped and continued.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_wait4,
    libc::SYS_waitid,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pause,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
];

/// Whether a thread is in one of these states.
fn any_is(pid: Pid, wanted: impl Fn(char) -> bool) -> bool {
    Threads::of(pid).read("stat").any(|stat| {
        // The name in parentheses may hold anything.
        let after_name = stat.iter().rposition(|byte| *byte == b')');
        let state = after_name.and_then(|at| stat.get(at + 2)).copied().map(char::from);
        state.is_some_and(&wanted)
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::sys::process::own_pid;

    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = kill::send_to_group(Pid(self.0.id().cast_signed()), Signal::KILL);
            let _ = self.0.wait();
        }
    }

    fn start(script: &str) -> (Guard, Pid) {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        let child = command.args(["-c", script]).process_group(0).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id().cast_signed());
        (Guard(child), pid)
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if done() {
                return;
            }
            std::thread::yield_now();
        }
        panic!("never {what}");
    }

    #[test]
    fn a_frozen_group_stands_still_and_shows_what_it_was_doing() {
        let (_waits, waiting) = start("read line");
        let (_works, working) = start("while :; do :; done");
        until("blocked", || !is_at_work(&[waiting]));
        until("at work", || is_at_work(&[working]));
        for pid in [waiting, working] {
            freeze(pid).unwrap();
            until("still", || stand_still(&procfs::group(pid)));
        }
        assert!(were_waiting(&[waiting]));
        assert!(!were_waiting(&[waiting, working]));
        thaw(waiting);
        until("going on", || !stand_still(&[waiting]));
    }

    #[test]
    fn a_group_is_all_its_processes() {
        let (_guard, leader) = start("sleep 1000 & read line");
        until("two of them", || procfs::group(leader).len() == 2);
        assert!(procfs::group(leader).contains(&leader));
    }

    #[test]
    fn what_is_done_with_a_signal_shows() {
        let (_guard, pid) = start("trap : USR1; trap '' USR2; read line");
        let seen = |number| handling(pid, Signal::new(number).unwrap());
        until("ready", || seen(libc::SIGUSR1) == Some(Handling::Caught));
        until("all", || seen(libc::SIGUSR2) == Some(Handling::Ignored));
        assert_eq!(seen(libc::SIGTERM), Some(Handling::Default));
        assert_eq!(handling(Pid(i32::MAX), Signal::TERM), None);
        assert!(!stand_still(&[own_pid()]));
    }
}
