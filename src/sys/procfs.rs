//! Looking at other processes through /proc; every answer may be out of date when it is given.
//!
//! A /proc of another PID namespace (`unshare --pid` without `--mount-proc`) counts as none: the pids in it are other
//! processes', and nobody may be looked at, let alone signalled, in place of another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid as NixPid;

use super::process::own_pid;
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
    let entries = fs::read_dir("/proc").ok()?;
    Some(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid)).collect())
}

/// Files here are mostly shorter than this, and are given whole to whoever asks for as much.
const PAGE: usize = 4096;

/// A file of /proc in three system calls: the standard library asks for its size, which is 0, and reads once more.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut bytes = vec![0; PAGE];
    let length = file.read(&mut bytes)?;
    bytes.truncate(length);
    if length == PAGE {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The same, of text.
pub(super) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::ErrorKind::InvalidData.into())
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
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        match children(pid) {
            Some(children) => found.extend(children),
            None => return tree_by_scan(root),
        }
    }
    found
}

/// From `/proc/PID/task/TID/children`; `None` where the kernel was built without it.
fn children(pid: Pid) -> Option<Vec<Pid>> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(Vec::new()) };
    let mut children = Vec::new();
    for task in tasks.flatten() {
        match read_text(task.path().join("children")) {
            Ok(list) => {
                children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok().map(Pid)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && task.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(children)
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
        fs::File::open(format!("/proc/{own}/task/{own}/children")).and_then(|mut file| file.read(&mut page));
    let list = page.get(..read.unwrap_or(0)).unwrap_or_default();
    let pids = list.split(|byte| *byte == b' ').filter_map(|pid| std::str::from_utf8(pid).ok()?.parse().ok());
    pids.map(Pid).collect()
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

/// What `/proc/PID/fd` links to, by descriptor.
///
/// # Errors
/// EACCES where the process belongs to another user or is not dumpable (ptrace(2)).
pub fn descriptors(pid: Pid) -> io::Result<Vec<(i32, String)>> {
    Descriptors::of(pid)?.collect()
}

/// The same, one after the other.
#[derive(Debug)]
pub struct Descriptors {
    /// Each name is looked up below this one: finding the process again and again is most of the work.
    handle: fs::File,
    entries: fs::ReadDir,
}

impl Descriptors {
    /// # Errors
    /// As of [`descriptors`].
    pub fn of(pid: Pid) -> io::Result<Self> {
        let directory = format!("/proc/{pid}/fd");
        Ok(Self { handle: fs::File::open(&directory)?, entries: fs::read_dir(&directory)? })
    }
}

impl Iterator for Descriptors {
    type Item = io::Result<(i32, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        for entry in self.entries.by_ref().flatten() {
            let name = entry.file_name();
            let target = match readlinkat(&self.handle, name.as_os_str()) {
                Ok(target) => target,
                // Root may read every directory, and what is in this one it may not.
                Err(Errno::EACCES) => return Some(Err(Errno::EACCES.into())),
                // Closed meanwhile.
                Err(_) => continue,
            };
            let fd = name.to_str().and_then(|name| name.parse().ok());
            if let Some(found) = fd.zip(target.into_string().ok()) {
                return Some(Ok(found));
            }
        }
        None
    }
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
        fs::File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, address))
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
