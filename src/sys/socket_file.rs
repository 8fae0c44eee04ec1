//! The file of a unix socket: put where it belongs, kept there, and removed in the end.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

/// The file of a unix socket, removed when this is dropped if it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// A second name for the same socket: a server that removes the first one does not orphan it.
    spare: Option<PathBuf>,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Of a socket that has just been bound there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), spare: None, device: meta.dev(), inode: meta.ino() })
    }

    pub(super) fn with_spare(path: &Path) -> io::Result<Self> {
        let mut spare = path.as_os_str().to_owned();
        spare.push(".drainit");
        let spare = PathBuf::from(spare);
        // What a drainit that was killed has left; another's file stays where it is.
        let _ = remove_stale_socket(&spare);
        let spare = fs::hard_link(path, &spare).ok().map(|()| spare);
        let mut file = Self::of(path)?;
        file.spare = spare;
        Ok(file)
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode))
    }

    pub(super) fn restore(&self) -> io::Result<()> {
        match &self.spare {
            _ if self.is_at(&self.path) => Ok(()),
            Some(spare) => fs::hard_link(spare, &self.path),
            None => Err(Errno::ENOENT.into()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        for path in std::iter::once(&self.path).chain(&self.spare) {
            if self.is_at(path) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Remove a socket that nobody listens on any more.
///
/// # Errors
/// EADDRINUSE where somebody does; EEXIST where it is another kind of file.
pub fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is in the way"));
    }
    // Non-blocking: connect(2) would wait for ever where the queue is full.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match socket::connect(probe.as_raw_fd(), &socket::UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        Err(Errno::ENOENT) => Ok(()),
        // Accepted, or its queue is full: somebody is there.
        Ok(_) | Err(_) => Err(Errno::EADDRINUSE.into()),
    }
}
