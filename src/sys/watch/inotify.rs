//! inotify(7): the kernel says where something happens to files.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{self, AddWatchFlags, InitFlags, InotifyEvent, WatchDescriptor};

/// One instance: a descriptor, of which each user has a limited number (fs.inotify.max_user_instances).
#[derive(Debug)]
pub struct Inotify(inotify::Inotify);

impl Inotify {
    /// # Errors
    /// EMFILE at that limit or at that of descriptors, ENOSYS or EPERM where a sandbox has none.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(inotify::Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?))
    }

    /// One watch an inode: a second one for the same replaces what the first asked for, but with IN_MASK_ADD.
    ///
    /// # Errors
    /// ENOSPC at fs.inotify.max_user_watches, EACCES where it may not be read.
    pub(super) fn add(&self, place: &Path, mask: AddWatchFlags) -> io::Result<WatchDescriptor> {
        Ok(self.0.add_watch(place, mask)?)
    }

    /// One that the kernel has removed by itself is no error.
    pub(super) fn remove(&self, watch: WatchDescriptor) {
        let _ = self.0.rm_watch(watch);
    }

    /// Some of what has happened; empty when there is no more, or the kernel does not say.
    pub(super) fn read(&self) -> Vec<InotifyEvent> {
        loop {
            match self.0.read_events() {
                Ok(events) => return events,
                Err(Errno::EINTR) => {}
                Err(_) => return Vec::new(),
            }
        }
    }
}

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
