//! What a process waits for by epoll(7): `/proc/PID/fdinfo` tells of each of its sets what is in it (proc_pid_fdinfo(5)).
//!
//! Whose a connection is shows here for a tenth of what its descriptor costs: each of those is a name in a directory
//! that the kernel makes for whoever looks, and one file tells of a whole set. What is in a set is its process's; what is
//! in none may be all the same, and only its descriptors tell. The kernel tells of inodes since Linux 4.13.
//!
//! Nobody can wait by a set while the kernel writes of it: some 5 ms for ten thousand entries.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::procfs;
use crate::core::types::Pid;

/// Event loops are made before there is anybody to serve, and the lowest numbers are given out first. Further ones are
/// not looked for: somebody with a thousand connections has as many names.
const NUMBERS: i32 = 64;

/// Some hundred entries.
const BUFFER: usize = 16 * 1024;

/// The inodes of what `pid` has in its sets.
///
/// # Errors
/// EACCES where the process may not be looked into (ptrace(2)), ENOENT where it is gone.
pub fn each_of(pid: Pid, each: &mut dyn FnMut(u64)) -> io::Result<()> {
    let directory = File::open(format!("/proc/{pid}/fd"))?;
    for number in 0..NUMBERS {
        match procfs::link(&directory, number) {
            Ok(link) if link == EPOLL => each_in(pid, number, each),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a set's descriptor links to.
pub(super) const EPOLL: &str = "anon_inode:[eventpoll]";

/// The inodes of what `pid` has in this set: none where that cannot be read.
pub(super) fn each_in(pid: Pid, set: i32, each: &mut dyn FnMut(u64)) {
    let Ok(info) = File::open(format!("/proc/{pid}/fdinfo/{set}")) else { return };
    let mut info = BufReader::with_capacity(BUFFER, info);
    let mut line = Vec::new();
    while info.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        inode(&line).into_iter().for_each(&mut *each);
        line.clear();
    }
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:2a4f sdev:8`
fn inode(line: &[u8]) -> Option<u64> {
    let (_, rest) = std::str::from_utf8(line).ok()?.strip_prefix("tfd:")?.split_once(" ino:")?;
    u64::from_str_radix(rest.split_ascii_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use nix::libc;
    use nix::sys::stat::fstat;

    use super::super::hangup::owned;
    use super::super::process::own_pid;
    use super::*;

    #[test]
    fn what_is_in_a_set_is_told_and_what_is_not_is_not() {
        // SAFETY: numbers only.
        let set = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into()).unwrap();
        let pairs: Vec<_> = (0..1000).map(|_| UnixStream::pair().unwrap()).collect();
        let inode = |stream: &UnixStream| fstat(stream).unwrap().st_ino;
        for (polled, _) in &pairs {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
            // SAFETY: the event is live.
            let added = unsafe {
                libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, polled.as_raw_fd(), &raw mut event)
            };
            assert_eq!(added, 0);
        }
        let (mut polled, mut found) = (Vec::new(), Vec::new());
        polled.extend(pairs.iter().map(|(polled, _)| inode(polled)));
        each_in(own_pid(), set.as_raw_fd(), &mut |inode| found.push(inode));
        polled.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, polled);
        each_in(own_pid(), pairs[0].0.as_raw_fd(), &mut |inode| panic!("{inode} in a socket"));
        assert!(each_of(Pid(i32::MAX), &mut |_| {}).is_err());
    }

    #[test]
    fn lines_of_kernels_that_tell_less_tell_nothing() {
        let line = b"tfd:        5 events:       19 data:                5  pos:0 ino:2a4f sdev:8\n";
        assert_eq!(inode(line), Some(0x2a4f));
        assert_eq!(inode(b"tfd:        5 events:       19 data:                5\n"), None);
        assert_eq!(inode(b"pos:\t0\n"), None);
    }
}
