//! Looking at other processes through /proc; every answer may be out of date when it is given.
//!
//! A /proc of another PID namespace (`unshare --pid` without `--mount-proc`) counts as none: the pids in it are other
//! processes', and nobody may be looked at, let alone signalled, in place of another.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid as NixPid;

use super::check;
use super::process::own_pid;
use super::threads::{self, Threads};
use crate::core::types::Pid;

/// Whether /proc is mounted and speaks of our own PID namespace. Once it does it goes on doing so: whoever can mount
/// another one over it can do anything else too.
pub fn is_ours() -> bool {
    static KNOWN: AtomicBool = AtomicBool::new(false);
    let look =
        || fs::read_link("/proc/self").is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()));
    if KNOWN.load(Ordering::Relaxed) {
        return true;
    }
    let ours = look();
    KNOWN.store(ours, Ordering::Relaxed);
    ours
}

/// Every process, or `None` where /proc cannot tell.
pub fn pids() -> Option<Vec<Pid>> {
    if !is_ours() {
        return None;
    }
    let (_, pids) = numbers("/proc").ok()?;
    Some(pids.into_iter().map(Pid).collect())
}

/// Files here are mostly shorter than this, and are given whole to whoever asks for as much.
const PAGE: usize = 4096;

/// A file of /proc in three system calls: the standard library asks for its size, which is 0, and reads once more.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    read_file(File::open(path)?)
}

/// The same of a file in a directory that is open: the kernel need not find the process again.
pub(super) fn read_in(directory: &File, path: &str) -> io::Result<Vec<u8>> {
    let file = openat(directory, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    read_file(File::from(file))
}

fn read_file(mut file: File) -> io::Result<Vec<u8>> {
    let mut page = [0; PAGE];
    let length = file.read(&mut page)?;
    let mut bytes = page.get(..length).unwrap_or_default().to_vec();
    if length == PAGE {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The same, of text.
pub(super) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A directory, and the numbers that it has for names: processes, threads, descriptors. The standard library asks for its
/// size too, and keeps the directory to itself.
pub(super) fn numbers(path: &str) -> io::Result<(File, Vec<i32>)> {
    let directory = File::open(path)?;
    let mut buffer = [0_u8; 2 * PAGE];
    let mut numbers = Vec::new();
    loop {
        let (entries, room) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the buffer is live and as long as is said.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), entries, room) };
        let length = usize::try_from(check(read)?).unwrap_or_default();
        if length == 0 {
            return Ok((directory, numbers));
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        // struct linux_dirent64: inode, offset, length of all of it, kind, name: getdents(2).
        while let Some(length) = rest.get(16..).and_then(|length| length.first_chunk()) {
            let length = usize::from(u16::from_ne_bytes(*length)).max(1);
            let name = rest.get(19..length).and_then(|name| name.split(|byte| *byte == 0).next());
            numbers.extend(name.and_then(|name| std::str::from_utf8(name).ok()?.parse::<i32>().ok()));
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// What proc_pid_stat(5) says of a process.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub parent: Pid,
    pub group: Pid,
    /// In clock ticks since boot.
    pub started: u64,
}

/// The name in parentheses may hold anything, so what follows the last one counts.
pub fn stat(pid: Pid) -> Option<Stat> {
    let stat = read(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after_name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = Pid(fields.nth(1)?.parse().ok()?);
    let group = Pid(fields.next()?.parse().ok()?);
    Some(Stat { parent, group, started: fields.nth(16)?.parse().ok()? })
}

fn parent(pid: Pid) -> Option<Pid> {
    stat(pid).map(|stat| stat.parent)
}

/// `root` and everything below it.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    walk(root, |pid, _| {
        found.push(pid);
        ControlFlow::Continue(())
    });
    found
}

/// Visit `root` and everything below it, until it is broken off.
pub(super) fn walk(root: Pid, mut visit: impl FnMut(Pid, &Threads) -> ControlFlow<()>) {
    let mut found = vec![root];
    let mut next = 0;
    let mut all = false;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let threads = Threads::of(pid);
        if visit(pid, &threads).is_break() {
            return;
        }
        match threads.children() {
            _ if all => {}
            Some(children) => found.extend(children),
            None => {
                found = tree_by_scan(root);
                all = true;
            }
        }
    }
}

fn tree_by_scan(root: Pid) -> Vec<Pid> {
    let all = pids().unwrap_or_default().into_iter();
    let parents: BTreeMap<_, _> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(child, _)| *child));
    }
    found
}

/// Everything below `root`, without it.
pub fn descendants(root: Pid) -> Option<Vec<Pid>> {
    if !is_ours() {
        return None;
    }
    parent(root)?;
    Some(tree(root).split_off(1))
}

/// Of those who have become children of ours, so many are looked at, the last ones first: in a storm of orphans there are
/// thousands, and whoever looks at all of them misses his deadlines.
const FOSTERED_MAX: usize = 256;

/// As many as a page has room for: the kernel counts through all of them anew for each that it tells while others die.
fn first_children_of_ours() -> Vec<Pid> {
    let own = own_pid();
    let mut page = [0; PAGE];
    let read =
        File::open(format!("/proc/{own}/task/{own}/children")).and_then(|mut file| file.read(&mut page));
    threads::pids(page.get(..read.unwrap_or(0)).unwrap_or_default()).collect()
}

/// The processes of a worker's group, `leader` among them: those below it, and whoever has lost its parent and become
/// a child of ours. Without /proc it is the leader alone.
pub fn group(leader: Pid) -> Vec<Pid> {
    let is_of = |pid: &Pid| stat(*pid).is_some_and(|stat| stat.group == leader);
    let mut found = tree(leader);
    let ours = first_children_of_ours().into_iter().rev().take(FOSTERED_MAX);
    let fostered = ours.filter(|pid| *pid != leader);
    found.extend(fostered.filter(is_of).flat_map(tree));
    found.retain(|pid| *pid == leader || is_of(pid));
    found
}

/// Whether `pid` is `root` or below it; `None` where that cannot be seen (any more).
pub fn is_within(pid: Pid, root: Pid) -> Option<bool> {
    if !is_ours() {
        return None;
    }
    let mut at = pid;
    // Deeper trees do not occur; a loop, from pids that changed hands meanwhile, must end.
    for _ in 0..64 {
        if at == root {
            return Some(true);
        }
        if at.0 <= 1 {
            return Some(false);
        }
        at = parent(at)?;
    }
    Some(false)
}

/// What `/proc/PID/fd` links to, by descriptor; of a path the beginning, by which it is told from a socket.
///
/// # Errors
/// EACCES where the process belongs to another user or is not dumpable (ptrace(2)).
pub fn descriptors(pid: Pid) -> io::Result<Vec<(i32, String)>> {
    let (directory, fds) = numbers(&format!("/proc/{pid}/fd"))?;
    let mut found = Vec::with_capacity(fds.len());
    for fd in fds {
        match link(&directory, fd) {
            Ok(target) => found.push((fd, target)),
            // Root may read every directory, and what is in this one it may not.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The same, one after the other.
#[derive(Debug)]
pub struct Descriptors {
    directory: File,
    entries: fs::ReadDir,
}

impl Descriptors {
    /// # Errors
    /// As of [`descriptors`].
    pub fn of(pid: Pid) -> io::Result<Self> {
        let path = format!("/proc/{pid}/fd");
        Ok(Self { directory: File::open(&path)?, entries: fs::read_dir(&path)? })
    }
}

impl Iterator for Descriptors {
    type Item = io::Result<(i32, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        for entry in self.entries.by_ref().flatten() {
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match link(&self.directory, fd) {
                Ok(target) => return Some(Ok((fd, target))),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Some(Err(error)),
                Err(_) => {}
            }
        }
        None
    }
}

/// No socket's and no event loop's is longer.
const LINK: usize = 64;

pub(super) fn link(directory: &File, name: i32) -> io::Result<String> {
    let name = CString::new(name.to_string())?;
    let mut target = [0_u8; LINK];
    // SAFETY: the name ends with NUL; the buffer is live and as long as is said.
    let read = unsafe {
        libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
    };
    let length = usize::try_from(check(read as i64)?).unwrap_or_default();
    Ok(String::from_utf8_lossy(target.get(..length).unwrap_or_default()).into_owned())
}

/// The inode in `socket:[…]`.
pub fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What is in the memory of a process, as far as it can be read.
pub(super) fn read_memory(pid: Pid, address: u64, length: u64) -> Vec<u8> {
    let (Ok(base), Ok(len)) = (usize::try_from(address), usize::try_from(length)) else { return Vec::new() };
    let mut bytes = vec![0; len];
    let read = process_vm_readv(
        NixPid::from_raw(pid.0),
        &mut [IoSliceMut::new(&mut bytes)],
        &[RemoteIoVec { base, len }],
    );
    // That call asks who we are, this one by whose rights we open files; and old profiles of seccomp refuse that call.
    let read = read.map_err(io::Error::from).or_else(|_| {
        File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, address))
    });
    bytes.truncate(read.unwrap_or(0));
    bytes
}

/// The user and the group that `pid` runs as, as far as can be seen: of what is not dumpable root's.
pub fn owner(pid: Pid) -> Option<(u32, u32)> {
    if !is_ours() {
        return None;
    }
    fs::metadata(format!("/proc/{pid}")).ok().map(|directory| (directory.uid(), directory.gid()))
}
