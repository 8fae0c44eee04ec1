//! Having a process accept no more, from outside: its listening sockets are taken out of its epoll(7) sets.
//!
//! An entry of a set is known by an open file and a number, so whoever has a copy of the set, by pidfd_getfd(2), can take
//! it out while the socket has the same number here as there. A process that waits in accept(2), poll(2) or io_uring(7) goes
//! on, and where the seccomp profile of a container runtime or ptrace_scope(5) refuses the copy, so does everybody: nothing
//! may depend on it.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::libc;
use nix::sys::stat::fstat;

use super::eyes::look_at;
use super::hangup::{copy, open, owned};
use super::{polled, procfs};
use crate::core::types::Pid;

/// Take the sockets with one of `inodes` out of all that these processes wait for. Says how many entries there were.
///
/// Nothing else of drainit's may open or close a descriptor meanwhile.
///
/// # Errors
/// EPERM, ENOSYS and the like, where a descriptor of another process cannot be had. One that is gone is no error.
pub fn stop_polling(processes: &[Pid], inodes: &[u64]) -> io::Result<usize> {
    let mut taken = 0;
    for pid in processes {
        let Ok(descriptors) = look_at(*pid, || procfs::descriptors(*pid)) else { continue };
        let is_wanted = |link: &str| procfs::socket_inode(link).is_some_and(|inode| inodes.contains(&inode));
        let having = |wanted: &dyn Fn(&str) -> bool| -> Vec<RawFd> {
            descriptors.iter().filter(|(_, link)| wanted(link)).map(|(number, _)| *number).collect()
        };
        let (sets, sockets) = (having(&|link| link == polled::EPOLL), having(&is_wanted));
        if sets.is_empty() || sockets.is_empty() {
            continue;
        }
        let Some(process) = unless_gone(open(*pid))? else { continue };
        for set in sets {
            let Some(set) = unless_gone(copy(&process, set))? else { continue };
            let set = out_of_the_way(set, &sockets)?;
            for number in &sockets {
                let Some(socket) = unless_gone(copy(&process, *number))? else { continue };
                // The number may be somebody else's by now, who would never be waited for again.
                if !fstat(&socket).is_ok_and(|stat| inodes.contains(&stat.st_ino)) {
                    continue;
                }
                taken += usize::from(as_number(&socket, *number, || take_out(&set, *number))?);
            }
        }
    }
    Ok(taken)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => Ok(None),
        result => result.map(Some),
    }
}

/// Under a number that none of `sockets` is to have.
fn out_of_the_way(set: OwnedFd, sockets: &[RawFd]) -> io::Result<OwnedFd> {
    match sockets.iter().max() {
        Some(last) if sockets.contains(&set.as_raw_fd()) => {
            // SAFETY: numbers only.
            owned(unsafe { libc::fcntl(set.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last + 1) }.into())
        }
        _ => Ok(set),
    }
}

/// Whether it was in.
fn take_out(set: &OwnedFd, number: RawFd) -> bool {
    // SAFETY: nothing is read from the event.
    unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_DEL, number, ptr::null_mut()) == 0 }
}

/// Have `socket` under that number for a moment. Whatever else has it here stays open, and so in the sets that it is in.
fn as_number<T>(socket: &OwnedFd, number: RawFd, perform: impl FnOnce() -> T) -> io::Result<T> {
    if socket.as_raw_fd() == number {
        return Ok(perform());
    }
    // SAFETY: numbers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        let _placed = place(socket, number, libc::O_CLOEXEC)?;
        return Ok(perform());
    }
    // SAFETY: numbers only; the copy is owned below.
    let displaced = owned(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) }.into())?;
    let placed = place(socket, number, libc::O_CLOEXEC).map(mem::forget);
    let performed = placed.map(|()| perform());
    let close_on_exec = if flags & libc::FD_CLOEXEC == 0 { 0 } else { libc::O_CLOEXEC };
    place(&displaced, number, close_on_exec).map(mem::forget)?;
    performed
}

/// dup3(2): what is open under `number` is closed.
fn place(descriptor: &OwnedFd, number: RawFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: whoever asks has kept what is there.
    owned(unsafe { libc::dup3(descriptor.as_raw_fd(), number, flags) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The socket would be put where the set was, and nothing be taken out.
    #[test]
    fn a_set_makes_room_for_the_number_of_a_socket() {
        let set = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let number = set.as_raw_fd();
        let set = out_of_the_way(set, &[number + 1]).unwrap();
        assert_eq!(set.as_raw_fd(), number);
        let moved = out_of_the_way(set, &[number + 7, number, 0]).unwrap();
        assert!(moved.as_raw_fd() > number + 7, "{moved:?}");
    }
}
