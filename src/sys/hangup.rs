//! Closing a connection of another process from outside: by a copy of its descriptor, pidfd_getfd(2), and shutdown(2),
//! which acts on every copy. The peer is told that no more will come, and what was sent before is still delivered.
//!
//! The seccomp profiles of container runtimes mostly refuse it, as does ptrace_scope(5) to those who are not the parent:
//! nothing may depend on it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};

use super::eyes::look_at;
use super::procfs;
use crate::core::types::Pid;

/// Hang up the connections of these processes that have one of `inodes`, where nothing waits to be read.
///
/// # Errors
/// EPERM, ENOSYS and the like, where a descriptor of another process cannot be had. One that is gone is no error.
pub fn hang_up(processes: &[Pid], inodes: &BTreeSet<u64>) -> io::Result<()> {
    for pid in processes {
        let Ok(descriptors) = look_at(*pid, || procfs::descriptors(*pid)) else { continue };
        let wanted = |link: &_| procfs::socket_inode(link).is_some_and(|inode| inodes.contains(&inode));
        let numbers = descriptors.iter().filter(|(_, link)| wanted(link)).map(|(number, _)| *number);
        let process = match open(*pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
            opened => opened?,
        };
        for number in numbers {
            match copy(&process, number) {
                // What has come since somebody looked has a right to an answer.
                Ok(connection) if has_unread(&connection) => {}
                Ok(connection) => {
                    let _ = shutdown(connection.as_raw_fd(), Shutdown::Both);
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

pub(super) fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes a number and no flags.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })
}

pub(super) fn copy(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes a descriptor that is open, a number and no flags.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn has_unread(connection: &OwnedFd) -> bool {
    recv(connection.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Ok(1)
}

pub(super) fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made it, for us.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::connections;
    use super::super::process::own_pid;
    use super::*;

    #[test]
    fn whoever_is_hung_up_on_gets_what_was_sent_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = BTreeSet::from([listener.local_addr().unwrap().port()]);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut asking = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_asked, _) = listener.accept().unwrap();
        let mut other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = connections::of_group(&[own_pid()], &ports).unwrap();
        let inodes: BTreeSet<u64> = found.iter().map(|connection| connection.inode).collect();
        assert_eq!(inodes.len(), 2);
        let (mut kept, _) = listener.accept().unwrap();
        asking.write_all(b"x").unwrap();
        server.write_all(b"answer").unwrap();
        if let Err(error) = hang_up(&[own_pid()], &inodes) {
            // As in a container.
            assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)), "{error}");
            return;
        }
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        kept.write_all(b"x").unwrap();
        assert_eq!(other.read(&mut [0; 2]).unwrap(), 1, "nobody else is hung up on");
        let open = connections::of_group(&[own_pid()], &ports).unwrap();
        let open = open.iter().filter(|one| one.state == connections::State::Established);
        assert_eq!(open.count(), 2, "nor who has asked since");
    }
}
