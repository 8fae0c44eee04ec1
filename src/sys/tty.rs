//! Job control: who owns the terminal's foreground.

use std::os::fd::BorrowedFd;

use nix::libc;
use nix::unistd::{Pid as NixPid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::signals::{bit, pending, set_mask};
use crate::core::types::Pid;

/// The controlling terminal, through whichever of 0, 1 and 2 leads to it.
#[derive(Clone, Copy, Debug)]
pub struct Terminal(BorrowedFd<'static>);

impl Terminal {
    /// The controlling terminal, where drainit has one.
    pub fn controlling() -> Option<Self> {
        (0..=2)
            .map(|fd| {
                // SAFETY: 0, 1 and 2 are open for the whole life of the process: holes have been plugged.
                unsafe { BorrowedFd::borrow_raw(fd) }
            })
            .find(|fd| tcgetpgrp(fd).is_ok())
            .map(Self)
    }

    pub fn fd(self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }

    /// Whether drainit's own group is in the foreground. One started in the background must not take it.
    pub fn is_ours(self) -> bool {
        tcgetpgrp(self.0) == Ok(getpgrp())
    }

    /// Whether that worker's group is in the foreground.
    pub fn belongs_to(self, worker: Pid) -> bool {
        tcgetpgrp(self.0) == Ok(NixPid::from_raw(worker.0))
    }

    /// Give the foreground to a worker's group. SIGTTOU, which the kernel sends for this from the background,
    /// is blocked.
    pub fn give_to(self, worker: Pid) {
        let _ = tcsetpgrp(self.0, NixPid::from_raw(worker.0));
    }

    /// Take the foreground back from a worker that is gone: whoever shares our group may want to read.
    pub fn take_back_from(self, worker: Pid) {
        if self.belongs_to(worker) {
            let _ = tcsetpgrp(self.0, getpgrp());
        }
    }
}

/// Stop this process until somebody sends CONT. PID 1 is immune to it.
pub fn stop_for_good() {
    // SAFETY: raise(3) touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Stop this process as the terminal would: the shell that started it takes over until it sends CONT. Where there is
/// no such shell the kernel ignores a TSTP (setpgid(2), orphaned process groups). Says whether it was stopped.
pub fn stop_as_a_job() -> bool {
    // SAFETY: raise(3) touches no memory; the signal stays pending until the mask lets it through.
    unsafe { libc::raise(libc::SIGTSTP) };
    let mask = set_mask(!bit(libc::SIGTSTP));
    set_mask(mask);
    pending() & bit(libc::SIGCONT) != 0
}
