//! The descriptors drainit was started with: 0, 1 and 2 are the workers', the rest is nobody's.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc;

use super::check;

/// Fill the holes among 0, 1 and 2, so that no socket of ours is ever taken for stderr. The plugs are closed
/// on exec: a worker sees its descriptors as drainit found them. `/` is used because `/dev` may be empty.
pub fn plug_stdio() {
    for fd in 0..=2 {
        if !is_open(fd) {
            // SAFETY: the path is a literal; the lowest free descriptor is `fd`, since those below are open.
            unsafe { libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
        }
    }
}

/// Close everything from `first` on: a pipe that drainit held would never end for its reader.
pub fn close_from(first: RawFd) {
    // SAFETY: nothing of ours is open yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return;
    }
    // Older kernels and strict seccomp profiles.
    let open: Vec<RawFd> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        }
        Err(_) => (first..limit().min(65_536)).collect(),
    };
    for fd in open.into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as above; closing what is not open is harmless.
        unsafe { libc::close(fd) };
    }
}

/// The sockets of systemd's protocol, if they are meant for this process: descriptors 3 to 3 + `count` - 1.
pub fn take_activated(count: usize) -> io::Result<Vec<OwnedFd>> {
    let first = 3;
    let count = RawFd::try_from(count).map_err(io::Error::other)?;
    (first..first + count)
        .map(|fd| {
            // SAFETY: fcntl(2) with F_SETFD touches no memory.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
            // SAFETY: open, as the call before has shown, and by the protocol it is ours.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

/// A descriptor that somebody has sent.
pub(super) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given it to us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The soft RLIMIT_NOFILE.
pub fn limit() -> RawFd {
    let soft = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_or(1024, |(soft, _)| soft);
    RawFd::try_from(soft).unwrap_or(RawFd::MAX)
}

/// RLIMIT_NOFILE, both of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Raise the soft limit to the hard one; returns what it was, if it was lower.
pub fn raise_limit() -> Option<Limit> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    raised.then_some(Limit { soft, hard })
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: fcntl(2) with F_GETFD touches no memory.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).is_ok()
}
