//! What a process waits for by epoll(7): `/proc/PID/fdinfo` tells of each of its sets what is in it (proc_pid_fdinfo(5)).
//!
//! Whose a connection is shows here for a tenth of what its descriptor costs: each of those is a name in a directory
//! that the kernel makes for whoever looks, and one file tells of a whole set. What is in a set is its process's; what is
//! in none may be all the same, and only its descriptors tell. The kernel tells of inodes since Linux 4.13.
//!
//! Nobody can wait by a set while the kernel writes of it: some 5 ms for ten thousand entries.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use super::procfs;
use crate::core::types::Pid;

/// Event loops are made before there is anybody to serve, and the lowest numbers are given out first. Further ones are
/// not looked for: somebody with a thousand connections has as many names.
const NUMBERS: i32 = 64;

/// With more descriptors its sets are the shorter read.
const MANY: u64 = 2 * NUMBERS as u64;

/// Some hundred entries.
const BUFFER: usize = 16 * 1024;

/// The lowest descriptors of a process, as [`procfs::descriptors`] has them, and whether all others are in its sets.
pub type Lowest = (Vec<(i32, String)>, bool);

/// The inodes of what `pid` has in its sets. What else it has open the kernel counts since Linux 6.2; before, there may
/// always be more.
///
/// # Errors
/// EACCES where the process may not be looked into (ptrace(2)), ENOENT where it is gone.
pub fn each_of(pid: Pid, each: &mut dyn FnMut(u64)) -> io::Result<Lowest> {
    let path = format!("/proc/{pid}/fd");
    let directory = File::open(&path)?;
    let open = directory.metadata()?.len();
    let mut lowest = Vec::new();
    let (mut polled, mut nested) = (0, false);
    for number in 0..NUMBERS {
        let link = match procfs::link(&directory, number) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(link) => link,
        };
        if link == EPOLL {
            // All sets have the same, which others have that are no sets: timers, counters.
            let own = fs::metadata(format!("{path}/{number}")).map_or(0, |set| set.ino());
            each_in(pid, number, &mut |number, inode| {
                polled += u64::from(number >= NUMBERS);
                nested |= number >= NUMBERS && inode == own;
                each(inode);
            });
        }
        lowest.push((number, link));
    }
    let told = polled + lowest.len() as u64;
    // Who closes one meanwhile has what it has in the end.
    let all = told == open || directory.metadata()?.len() == told;
    Ok((lowest, all && !nested))
}

/// [`each_of`], where that is the shorter read.
pub(super) fn each_of_many(pid: Pid, each: &mut dyn FnMut(u64)) -> io::Result<Option<Lowest>> {
    if has_many(pid)? { each_of(pid, each).map(Some) } else { Ok(None) }
}

/// Whether it has many descriptors: how many there are the directory's size tells since Linux 6.2.
pub(super) fn has_many(pid: Pid) -> io::Result<bool> {
    Ok(fs::metadata(format!("/proc/{pid}/fd"))?.len() > MANY)
}

/// What a set's descriptor links to.
pub(super) const EPOLL: &str = "anon_inode:[eventpoll]";

/// The descriptors and inodes of what `pid` has in this set: none where that cannot be read.
pub(super) fn each_in(pid: Pid, set: i32, each: &mut dyn FnMut(i32, u64)) {
    let Ok(info) = File::open(format!("/proc/{pid}/fdinfo/{set}")) else { return };
    let mut info = BufReader::with_capacity(BUFFER, info);
    let mut line = Vec::new();
    while info.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if let Some((number, inode)) = entry(&line) {
            each(number, inode);
        }
        line.clear();
    }
}

/// `tfd:        5 events:       19 data:                5  pos:0 ino:2a4f sdev:8`
fn entry(line: &[u8]) -> Option<(i32, u64)> {
    let (number, rest) = std::str::from_utf8(line).ok()?.strip_prefix("tfd:")?.split_once(" events:")?;
    let (_, inode) = rest.split_once(" ino:")?;
    let inode = u64::from_str_radix(inode.split_ascii_whitespace().next()?, 16).ok()?;
    Some((number.trim_ascii_start().parse().ok()?, inode))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

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
        each_in(own_pid(), set.as_raw_fd(), &mut |_, inode| found.push(inode));
        polled.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, polled);
        each_in(own_pid(), pairs[0].0.as_raw_fd(), &mut |_, inode| panic!("{inode} in a socket"));
        assert!(each_of(Pid(i32::MAX), &mut |_| {}).is_err());
    }

    #[test]
    fn whether_the_lowest_are_all_that_is_open_is_told_where_the_kernel_counts() {
        // Of what the test was started with too.
        const CLOSE: &str =
            "for fd in /proc/$$/fd/*; do (( ${fd##*/} > 2 )) && eval exec ${fd##*/}'>&-'; done;";
        for (shell, more) in [("exec cat", false), ("exec cat 99</dev/null", true)] {
            let mut command = Command::new("bash");
            let mut cat = command
                .args(["-c", &format!("{CLOSE} {shell}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // Whoever answers is done with starting.
            cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let pid = Pid(cat.id().cast_signed());
            let (lowest, all) = each_of(pid, &mut |inode| panic!("{inode} in no set")).unwrap();
            let counted = fs::metadata(format!("/proc/{pid}/fd")).unwrap().len();
            assert_eq!(all, counted > 0 && !more, "{counted} open, {lowest:?}");
            drop(cat.stdin.take());
            cat.wait().unwrap();
        }
    }

    #[test]
    fn lines_of_kernels_that_tell_less_tell_nothing() {
        let line = b"tfd:        5 events:       19 data:                5  pos:0 ino:2a4f sdev:8\n";
        assert_eq!(entry(line), Some((5, 0x2a4f)));
        assert_eq!(entry(b"tfd:        5 events:       19 data:                5\n"), None);
        assert_eq!(entry(b"pos:\t0\n"), None);
    }
}
