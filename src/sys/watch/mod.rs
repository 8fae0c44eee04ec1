//! Paths that may come to mean something else: written, replaced, re-linked, removed, created.
//!
//! inotify says where to look and when; whether anything has changed is told by comparing what a path leads to with what
//! it led to. So what the kernel adds, merges or loses on the way makes no difference.

mod fingerprint;
mod inotify;
#[cfg(test)]
mod tests;
mod trail;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InotifyEvent, WatchDescriptor};

use fingerprint::Fingerprint;
pub use inotify::Inotify;
use trail::{Interest, Trail};

/// A way that changes while it is walked is walked again. Whoever changes it for longer causes an event that makes us
/// come back.
const TRIES: u32 = 8;

/// Reads in one turn, of some hundred events each.
const READS: u32 = 16;

/// Several paths, and one inotify instance for all of them.
#[derive(Debug)]
pub struct Watcher {
    inotify: Option<Arc<Inotify>>,
    paths: Vec<Watched>,
    /// By which the watches were set.
    trails: Vec<Trail>,
    /// They may be there no more.
    stale: bool,
    watches: BTreeMap<WatchDescriptor, Vec<Interest>>,
    no_instance: Option<i32>,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// What it led to when it last counted as changed, or at the start. A path that is gone keeps it.
    known: Fingerprint,
    /// At the last look.
    seen: Fingerprint,
    /// That it is gone has been said.
    told_gone: bool,
}

/// Why inotify does not say all that there is to know: somebody has to look by himself, now and then.
#[derive(Debug)]
pub struct Trouble {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)?;
        // What the kernel's own words do not say.
        match self.error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC) => f.write_str(", of inotify watches (fs.inotify.max_user_watches)"),
            Some(Errno::EMFILE) => f.write_str(", or inotify instances (fs.inotify.max_user_instances)"),
            Some(Errno::EACCES) => f.write_str(", to be told of its changes takes the right to read it"),
            _ => Ok(()),
        }
    }
}

/// What a turn of reading has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Something has happened that may be a change.
    pub suspicious: bool,
    /// There may be more to be read.
    pub more: bool,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// They lead to something else than before.
    pub changed: Vec<PathBuf>,
    /// They lead nowhere any more, which is told once, and is no change before they lead somewhere again.
    pub gone: Vec<PathBuf>,
}

impl Watcher {
    /// From now on nothing is missed. `paths` are absolute. Refuses nothing: see [`Watcher::trouble`].
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let watched = |path| {
            let (known, seen) = (Fingerprint::Nothing, Fingerprint::Nothing);
            Watched { path, known, seen, told_gone: false }
        };
        let (inotify, no_instance) = match Inotify::new() {
            Ok(inotify) => (Some(Arc::new(inotify)), None),
            Err(error) => (None, error.raw_os_error()),
        };
        let mut watcher = Self {
            inotify,
            paths: paths.into_iter().map(watched).collect(),
            trails: Vec::new(),
            stale: true,
            watches: BTreeMap::new(),
            no_instance,
            trouble: None,
        };
        watcher.look();
        for path in &mut watcher.paths {
            path.known = path.seen;
        }
        watcher
    }

    /// What can be waited for.
    pub fn descriptor(&self) -> Option<Arc<Inotify>> {
        self.inotify.clone()
    }

    /// Why looking now and then is needed, where it is.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Nobody can wait for it.
    pub fn give_up_inotify(&mut self, why: &io::Error) {
        self.inotify = None;
        self.no_instance = why.raw_os_error();
        self.watches.clear();
        self.stale = true;
        self.arm();
    }

    /// Take in what the kernel has to say. The watches follow at once, so that the end of a burst is not missed where the
    /// beginning has made a new directory.
    pub fn read_events(&mut self) -> Events {
        let mut taken = Events { suspicious: false, more: false };
        let Some(inotify) = self.inotify.clone() else { return taken };
        for read in 1..=READS {
            let events = inotify.read();
            taken.more = !events.is_empty() && read == READS;
            if events.is_empty() {
                break;
            }
            for event in &events {
                taken.suspicious |= self.take(event);
            }
        }
        if self.stale {
            self.arm();
        }
        taken
    }

    /// Whether any path leads elsewhere than at the last look. Where there was trouble, inotify gets another chance.
    pub fn look_anew(&mut self) -> bool {
        self.stale = true;
        let before: Vec<Fingerprint> = self.paths.iter().map(|path| path.seen).collect();
        self.look();
        self.paths.iter().map(|path| path.seen).ne(before)
    }

    /// Things have come to rest: what is different now counts as changed.
    pub fn settle(&mut self) -> Findings {
        self.look();
        let mut findings = Findings::default();
        for Watched { path, known, seen, told_gone } in &mut self.paths {
            let gone = *seen == Fingerprint::Nothing;
            if gone && *known != Fingerprint::Nothing && !*told_gone {
                findings.gone.push(path.clone());
            }
            if !gone && seen != known {
                *known = *seen;
                findings.changed.push(path.clone());
            }
            *told_gone = gone;
        }
        findings
    }

    /// Whether the event may be a change of a path of ours.
    fn take(&mut self, event: &InotifyEvent) -> bool {
        // The kernel's queue was full: whatever happened, it is not in it.
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.stale = true;
            return true;
        }
        // Of a watch that we have removed ourselves.
        let Some(interests) = self.watches.get(&event.wd) else { return false };
        let of_itself = AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_UNMOUNT
            | AddWatchFlags::IN_IGNORED;
        if event.mask.intersects(of_itself) {
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.watches.remove(&event.wd);
            }
            self.stale = true;
            return true;
        }
        let Some(name) = &event.name else { return interests.contains(&Interest::Content) };
        if interests.iter().any(|interest| matches!(interest, Interest::Name(ours) if ours == name)) {
            self.stale = true;
            return true;
        }
        interests.contains(&Interest::Entries)
    }

    /// Watches first: what happens afterwards causes an event.
    fn look(&mut self) {
        self.arm();
        for (path, trail) in self.paths.iter_mut().zip(&self.trails) {
            path.seen = Fingerprint::of(trail.target.as_deref());
        }
    }

    /// Watch the ways as they are now: they are walked once more when the watches are set, since what has changed between
    /// walking and watching has caused no event.
    fn arm(&mut self) {
        for _ in 0..TRIES {
            let trails: Vec<Trail> = self.paths.iter().map(|watched| Trail::of(&watched.path)).collect();
            if !self.stale && trails == self.trails {
                return;
            }
            self.stale = false;
            self.set_watches(&trails);
            self.trails = trails;
        }
    }

    fn set_watches(&mut self, trails: &[Trail]) {
        let mut watches: BTreeMap<WatchDescriptor, Vec<Interest>> = BTreeMap::new();
        let trouble = |path: &PathBuf, error| Some(Trouble { path: path.clone(), error });
        self.trouble = None;
        for (watched, trail) in self.paths.iter().zip(trails) {
            if let Some(number) = self.no_instance {
                self.trouble = trouble(&watched.path, io::Error::from_raw_os_error(number));
            }
            if let Some((hidden, number)) = &trail.hidden {
                self.trouble = trouble(hidden, io::Error::from_raw_os_error(*number));
            }
            let Some(inotify) = &self.inotify else { continue };
            for step in &trail.steps {
                let mask = step.interest.mask();
                match inotify.add(&step.place, mask) {
                    Ok(watch) => {
                        let interests = watches.entry(watch).or_default();
                        if !interests.is_empty() {
                            let wanted = interests.iter().fold(mask, |mask, other| mask | other.mask());
                            let _ = inotify.add(&step.place, wanted);
                        }
                        interests.push(step.interest.clone());
                    }
                    // Gone since: the next walk finds another way.
                    Err(error) if is_absence(&error) => {}
                    Err(error) => self.trouble = trouble(&step.place, error),
                }
            }
        }
        if let Some(inotify) = &self.inotify {
            let old = self.watches.keys().filter(|watch| !watches.contains_key(watch));
            old.for_each(|watch| inotify.remove(*watch));
        }
        self.watches = watches;
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
