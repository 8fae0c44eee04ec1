//! How a worker stands with the kernel, where that differs from drainit: its user, its limit of descriptors, how readily
//! it is killed when memory runs out. Taken between clone(2) and execve(2), by system calls alone.

use std::ffi::CString;
use std::io;

use nix::libc;

use super::accounts::Account;
use super::check;
use super::descriptors::Limit;

/// What is not here stays as drainit has it.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub account: Option<Account>,
    /// RLIMIT_NOFILE.
    pub descriptors: Option<Limit>,
    /// The text for /proc/self/oom_score_adj.
    pub oom_score_adj: Option<CString>,
}

/// What could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Limit,
    Groups,
    Gid,
    Uid,
}

impl Standing {
    /// In the child; errno says why not.
    pub(super) fn take(&self) -> Result<(), Refused> {
        if let Some(text) = &self.oom_score_adj {
            // First, since the file is root's once we are somebody else. Where it is missing, size alone decides.
            write_oom_score(text);
        }
        if let Some(limit) = self.descriptors {
            let limit = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            // SAFETY: the kernel reads one rlimit; limits are the child's own: CLONE_THREAD is not set.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == -1 {
                return Err(Refused::Limit);
            }
        }
        self.account.as_ref().map_or(Ok(()), become_user)
    }
}

/// Written by a process that has our memory in common with us, this changes its own value alone: the kernel makes an
/// exception for who has been vforked (`__set_oom_adj` in fs/proc/base.c).
fn write_oom_score(text: &CString) {
    let path = c"/proc/self/oom_score_adj".as_ptr();
    // SAFETY: a literal.
    let fd = unsafe { libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC) };
    if fd != -1 {
        let text = text.as_bytes();
        // SAFETY: the text is live and as long as is said.
        unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
        // SAFETY: just opened, and nobody else's.
        unsafe { libc::close(fd) };
    }
}

/// Raw system calls: libc's functions of these names have all threads of the process do the same, and what it takes for
/// the process here is drainit, whose memory we have.
fn become_user(account: &Account) -> Result<(), Refused> {
    let Account { uid, gid, groups, .. } = account;
    // Of drainit's privileges none goes along, where it has them without being root. Before 4.3 there are none.
    // SAFETY: takes numbers.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    // SAFETY: the list is live and as long as is said.
    if unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } == -1 {
        return Err(Refused::Groups);
    }
    // SAFETY: takes numbers.
    if unsafe { libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) } == -1 {
        return Err(Refused::Gid);
    }
    // SAFETY: takes numbers.
    if unsafe { libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) } == -1 {
        return Err(Refused::Uid);
    }
    Ok(())
}

/// Whether this process' memory may be looked at by whoever has its user: prctl(2), PR_GET_DUMPABLE.
pub(super) fn is_dumpable() -> bool {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// Undo what a change of user has done to the memory that we share with the one who changed.
pub(super) fn be_dumpable() {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
}

/// Whether this process is that user in every respect that setresuid(2) and setresgid(2) change.
pub fn is_already(account: &Account) -> io::Result<bool> {
    let (mut uids, mut gids) = ([0; 3], [0; 3]);
    let [real, effective, saved] = &mut uids;
    // SAFETY: the kernel writes three numbers.
    check(unsafe { libc::getresuid(real, effective, saved) })?;
    let [real, effective, saved] = &mut gids;
    // SAFETY: the kernel writes three numbers.
    check(unsafe { libc::getresgid(real, effective, saved) })?;
    Ok(uids == [account.uid; 3] && gids == [account.gid; 3])
}
