//! The way to a path: every place where something can happen that makes the path mean something else.
//!
//! Links are followed by hand, one by one, because inotify follows them once and for all: a watch of
//! `/etc/config/app.yaml` in a ConfigMap's volume is one of a file that no swap ever touches.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::inotify::AddWatchFlags;

/// As many as the kernel follows (path_resolution(7)).
const LINKS: u32 = 40;

/// What matters about a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// A directory that is on the way: its being moved or removed. Nothing else, so that a busy `/tmp` on the way costs
    /// nothing.
    Itself,
    /// A directory, and whatever becomes of that name in it: a link, a file, or nothing yet.
    Name(OsString),
    /// A directory, and everything in it.
    Entries,
    /// A file. Not by its directory alone: what is written through a bind mount or another hard link is told to the
    /// file's watch and to no directory of ours.
    Content,
}

impl Interest {
    pub(super) fn mask(&self) -> AddWatchFlags {
        let itself = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        let names = itself | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        // IN_MODIFY beside IN_CLOSE_WRITE: some writers never close. IN_ATTRIB is what touch(1) gives.
        let content = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
        let mask = match self {
            Self::Itself => itself | AddWatchFlags::IN_ONLYDIR,
            Self::Name(_) => names | AddWatchFlags::IN_ONLYDIR,
            Self::Entries => names | content | AddWatchFlags::IN_ONLYDIR,
            Self::Content => itself | content,
        };
        mask | AddWatchFlags::IN_DONT_FOLLOW
    }
}

/// A place on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Without any link in it.
    pub(super) place: PathBuf,
    /// Device and inode: another directory of the same name is another place.
    identity: (u64, u64),
    pub(super) interest: Interest,
}

/// The way as it was a moment ago.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trail {
    pub(super) steps: Vec<Step>,
    /// Where it ends, if it leads anywhere.
    pub(super) target: Option<PathBuf>,
    /// What cannot be looked at, and the error's number.
    pub(super) hidden: Option<(PathBuf, i32)>,
}

impl Trail {
    /// `path` is absolute.
    pub(super) fn of(path: &Path) -> Self {
        let mut trail = Self::default();
        let mut at = PathBuf::from("/");
        let mut ahead = names_backwards(path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            // `at` has no link in it, so that this is its real parent.
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let found = match fs::symlink_metadata(&next) {
                Ok(found) => found,
                Err(error) => {
                    trail.pass(at, Interest::Name(name));
                    trail.hidden = reason_but_absence(&error).map(|number| (next, number));
                    return trail;
                }
            };
            if found.is_dir() {
                trail.pass(at, Interest::Itself);
                at = next;
                continue;
            }
            trail.pass(at.clone(), Interest::Name(name));
            if !found.is_symlink() {
                if ahead.is_empty() {
                    trail.arrive(next, &found, Interest::Content);
                }
                return trail;
            }
            links += 1;
            // One that is gone by now is found out by whoever walks again.
            let Some(target) = fs::read_link(&next).ok().filter(|_| links <= LINKS) else { return trail };
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            ahead.extend(names_backwards(&target));
        }
        if let Ok(found) = fs::symlink_metadata(&at) {
            trail.arrive(at, &found, Interest::Entries);
        }
        trail
    }

    fn pass(&mut self, place: PathBuf, interest: Interest) {
        // Nobody moves the root.
        if interest == Interest::Itself && place == Path::new("/") {
            return;
        }
        let identity = fs::symlink_metadata(&place).map_or((0, 0), |found| (found.dev(), found.ino()));
        self.steps.push(Step { place, identity, interest });
    }

    fn arrive(&mut self, place: PathBuf, found: &Metadata, interest: Interest) {
        self.target = Some(place.clone());
        // Whoever writes to a device or a pipe changes nothing.
        if found.is_file() || found.is_dir() {
            self.steps.push(Step { place, identity: (found.dev(), found.ino()), interest });
        }
    }
}

fn names_backwards(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn reason_but_absence(error: &io::Error) -> Option<i32> {
    let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    error.raw_os_error().filter(|_| !absent)
}
