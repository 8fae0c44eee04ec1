//! Sending signals to workers, and surviving whatever the kernel says to it.

use std::io;
use std::mem::MaybeUninit;

use nix::libc;

use super::check;
use crate::core::signal::Signal;
use crate::core::types::{Pid, Scope};

/// Send `signal`. The pid must not have been reaped yet: then it cannot belong to anybody else.
///
/// # Errors
/// EPERM, where the worker has become another user and drainit is not root.
pub fn send(pid: Pid, signal: Signal, scope: Scope, value: Option<u64>) -> io::Result<()> {
    match scope {
        Scope::Leader => to_process(pid, signal, value),
        Scope::Group => to_group(pid, signal, value),
    }
}

fn to_process(Pid(pid): Pid, signal: Signal, value: Option<u64>) -> io::Result<()> {
    if let Some(value) = value.filter(|_| signal.is_realtime()) {
        match queue(pid, signal, value) {
            // The queue's limit (RLIMIT_SIGPENDING) is reached: the signal alone still gets through.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            sent => return sent,
        }
    }
    kill(pid, signal)
}

fn to_group(leader: Pid, signal: Signal, value: Option<u64>) -> io::Result<()> {
    // SAFETY: getpgid(2) touches no memory.
    let moved_away = unsafe { libc::getpgid(leader.0) } != leader.0;
    let group = kill(-leader.0, signal);
    if moved_away || group.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
        return to_process(leader, signal, value);
    }
    group
}

fn kill(pid: libc::pid_t, signal: Signal) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory.
    check(unsafe { libc::kill(pid, signal.number()) }).map(drop)
}

/// rt_sigqueueinfo(2), which keeps the value; sigqueue(3) refuses the signals that libc keeps for itself.
fn queue(pid: libc::pid_t, signal: Signal, value: u64) -> io::Result<()> {
    /// The head of siginfo_t for queued signals, sigaction(2).
    #[repr(C)]
    struct Queued {
        signo: libc::c_int,
        errno: libc::c_int,
        code: libc::c_int,
        pad: libc::c_int,
        pid: libc::pid_t,
        uid: libc::uid_t,
        value: u64,
    }
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: getuid(2) cannot fail.
    let uid = unsafe { libc::getuid() };
    let head = Queued {
        signo: signal.number(),
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        pid: std::process::id().cast_signed(),
        uid,
        value,
    };
    // SAFETY: siginfo_t is 128 bytes and aligned for it; this writes its first 32.
    unsafe { info.as_mut_ptr().cast::<Queued>().write(head) };
    // SAFETY: the kernel reads one siginfo_t.
    check(unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal.number(), info.as_ptr()) }).map(drop)
}

/// Send `signal` to what is left of a group.
pub fn send_to_group(Pid(leader): Pid, signal: Signal) -> io::Result<()> {
    kill(-leader, signal)
}

/// Whether anybody, a zombie perhaps, is in that group.
pub fn group_exists(Pid(leader): Pid) -> bool {
    // SAFETY: signal 0 only asks, and kill(2) touches no memory.
    match check(unsafe { libc::kill(-leader, 0) }) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() != Some(libc::ESRCH),
    }
}
