//! Waiting for children: look first, then reap, so that a dead worker's group can still be named.

use std::io;
use std::mem::MaybeUninit;

use nix::libc;

use super::check;
use crate::core::signal::Signal;
use crate::core::types::{Exit, Pid};

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Dead and not reaped: its pid and its group's number are still its own.
    Exited(Pid),
    /// Stopped by that signal; told once.
    Stopped(Pid, Signal),
}

/// Whether there is anything to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    Changed(Change),
    /// All alive.
    Quiet,
    None,
}

/// The next child whose state has changed, `stops` included where asked for. Never blocks.
pub fn look(stops: bool) -> Children {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | if stops { libc::WSTOPPED } else { 0 };
    match wait(libc::P_ALL, 0, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Children::None,
        Err(_) | Ok(None) => Children::Quiet,
        Ok(Some(info)) => {
            // SAFETY: waitid(2) fills in the pid of the child.
            let pid = unsafe { info.si_pid() };
            // SAFETY: and its status.
            let status = unsafe { info.si_status() };
            if info.si_code == libc::CLD_STOPPED || info.si_code == libc::CLD_TRAPPED {
                // Taken, so that it is not told again.
                let _ = wait(libc::P_PID, pid.unsigned_abs(), libc::WSTOPPED | libc::WNOHANG);
                Signal::new(status)
                    .map_or(Children::Quiet, |by| Children::Changed(Change::Stopped(Pid(pid), by)))
            } else {
                Children::Changed(Change::Exited(Pid(pid)))
            }
        }
    }
}

/// Take the dead child off the process table. `None`: it is no dead child of ours.
pub fn reap(Pid(pid): Pid) -> Option<Exit> {
    let info = wait(libc::P_PID, pid.unsigned_abs(), libc::WEXITED | libc::WNOHANG).ok()??;
    // SAFETY: waitid(2) fills in the status.
    let status = unsafe { info.si_status() };
    // Decoded by hand: nix's waitpid fails for deaths by real-time signals after it has reaped.
    match info.si_code {
        libc::CLD_EXITED => Some(Exit::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX))),
        _ => Signal::new(status).map(Exit::Signal),
    }
}

fn wait(kind: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> io::Result<Option<libc::siginfo_t>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes at most one siginfo_t; zeroed, since with WNOHANG it may write nothing.
    check(unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) })?;
    // SAFETY: zeroed is a valid siginfo_t.
    let info = unsafe { info.assume_init() };
    // SAFETY: zero where nothing was written.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(info))
}

/// Whether that process is a child of ours, dead or alive.
pub fn is_child(Pid(pid): Pid) -> bool {
    wait(libc::P_PID, pid.unsigned_abs(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
}
