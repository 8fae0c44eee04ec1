//! What a path leads to, as far as can be told without reading it: by stat(2) alone, since drainit may not be allowed to
//! read what its workers read.

use std::fs::{self, DirEntry, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// More entries of a directory than these go by their names alone: the loop must not stand still for them.
const LOOKED_AT: usize = 4096;

/// Two that are equal: nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fingerprint {
    /// The path leads nowhere.
    Nothing,
    One(Mark),
    /// The directory itself, and the sum of its entries, in whatever order they come.
    Directory(Mark, u64),
}

/// A file by its identity, size and time of change. Not by its ctime, which chmod(1) and another hard link change too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Mark {
    /// The time of a directory is that of its entries, the time of a pipe that of its use.
    fn of(found: &Metadata) -> Self {
        let (size, modified) =
            if found.is_file() { (found.len(), (found.mtime(), found.mtime_nsec())) } else { (0, (0, 0)) };
        Self { device: found.dev(), inode: found.ino(), size, modified }
    }
}

impl Fingerprint {
    /// `target` has no link in it.
    pub(super) fn of(target: Option<&Path>) -> Self {
        let Some((target, Ok(found))) = target.map(|target| (target, fs::symlink_metadata(target))) else {
            return Self::Nothing;
        };
        if found.is_dir() {
            Self::Directory(Mark::of(&found), entries(target))
        } else {
            Self::One(Mark::of(&found))
        }
    }
}

fn entries(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    // The kubelet's own names: what it shows are links by way of `..data`, and those are followed. It takes away the old
    // directory after the swap, when that may have been noticed already.
    let shown = entries.filter(|entry| !entry.file_name().as_bytes().starts_with(b".."));
    shown.enumerate().fold(0, |sum, (index, entry)| sum.wrapping_add(summary(&entry, index < LOOKED_AT)))
}

fn summary(entry: &DirEntry, look: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.file_name().hash(&mut hasher);
    if look {
        fs::metadata(entry.path()).ok().as_ref().map(Mark::of).hash(&mut hasher);
    }
    hasher.finish()
}
