//! sd_notify(3), receiving: one datagram socket a worker.
//!
//! By rights a name in the abstract namespace would do, which needs no file system; but among the senders there are
//! such that take every address for a path (the sd-notify crate, Ruby's sd_notify and with it puma and sidekiq), and
//! some of those end where it leads nowhere. So it is a path wherever one can be had, and an abstract name elsewhere.

pub mod message;
#[cfg(test)]
mod properties;

use std::fs::{self, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};

use super::{descriptors, process, procfs};
use crate::core::types::Pid;
use message::Message;

/// Where a socket may be put. One of them can be written to in most containers: read-only roots have a /dev/shm, which
/// is also the cheapest, being no disk.
const DIRECTORIES: [&str; 3] = ["/dev/shm", "/run", "/tmp"];

/// Those that whoever a worker runs as can reach. Asked for once: each worker has a socket.
static REACHABLE: LazyLock<Vec<&Path>> = LazyLock::new(|| {
    let is_reachable = |path: &&Path| fs::metadata(path).is_ok_and(|found| found.mode() & 0o001 != 0);
    DIRECTORIES.iter().map(Path::new).filter(is_reachable).collect()
});

/// systemd takes no longer ones either.
const LONGEST: usize = 4096;

/// The supervisor's end for one worker.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    /// For NOTIFY_SOCKET.
    address: String,
    file: Option<PathBuf>,
    removed: AtomicBool,
}

/// One datagram that counts.
#[derive(Debug)]
pub struct Received {
    pub message: Message,
    /// What was sent along; closed when this is dropped.
    pub descriptors: Vec<OwnedFd>,
}

impl NotifySocket {
    /// `id` tells this worker's socket from the others'.
    pub fn new(id: u64) -> io::Result<Self> {
        static SEED: LazyLock<u64> = LazyLock::new(process::random_seed);
        let name = format!("drainit-notify-{:016x}-{id}", *SEED);
        let in_a_directory = REACHABLE.iter().find_map(|directory| Self::at(directory, &name));
        let notify = match in_a_directory {
            Some(notify) => notify,
            None => {
                let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
                Self { socket, address: format!("@{name}"), file: None, removed: AtomicBool::new(false) }
            }
        };
        notify.socket.set_nonblocking(true)?;
        setsockopt(&notify.socket, sockopt::PassCred, &true)?;
        Ok(notify)
    }

    /// Whoever the worker runs as has to reach it; who may speak is seen from the sender.
    fn at(directory: &Path, name: &str) -> Option<Self> {
        let path = directory.join(name);
        let socket = UnixDatagram::bind(&path).ok()?;
        let (address, removed) = (path.to_str()?.to_owned(), AtomicBool::new(false));
        let notify = Self { socket, address, file: Some(path), removed };
        fs::set_permissions(&notify.address, Permissions::from_mode(0o666)).ok()?;
        Some(notify)
    }

    /// For NOTIFY_SOCKET.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Nobody can find it any more. Done at the latest when it is dropped.
    pub fn remove_file(&self) {
        if let Some(file) = &self.file
            && !self.removed.swap(true, Ordering::Relaxed)
        {
            let _ = fs::remove_file(file);
        }
    }

    /// One message from `worker` or a process below it; `None` for one that does not count.
    ///
    /// # Errors
    /// WouldBlock when there is no more.
    pub fn receive(&self, worker: Pid) -> io::Result<Option<Received>> {
        let mut buffer = [0_u8; LONGEST];
        // Room for as many descriptors as can be sent along (unix(7), SCM_RIGHTS): one that did not fit would have the
        // whole message dropped.
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; 253]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let length = received.bytes;
        let truncated = received.flags.contains(MsgFlags::MSG_TRUNC);
        let mut sender = None;
        let mut fds = Vec::new();
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
                ControlMessageOwned::ScmRights(sent) => {
                    fds.extend(sent.into_iter().map(descriptors::received));
                }
                _ => {}
            }
        }
        let counts = !truncated && sender.is_some_and(|sender| counts(&sender, worker));
        Ok(counts.then(|| Received {
            message: message::parse(buffer.get(..length).unwrap_or_default()),
            descriptors: fds,
        }))
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl AsRawFd for NotifySocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// From the worker's own process tree. A sender that is gone already (`systemd-notify --ready --no-block`) cannot be
/// looked up any more: it counts if it was the worker's user, since the address is told to this worker alone.
fn counts(sender: &UnixCredentials, worker: Pid) -> bool {
    let pid = Pid(sender.pid());
    // Nobody but us reaps it, so its number is its own: no need to look.
    if pid == worker {
        return true;
    }
    pid.0 > 0
        && procfs::is_within(pid, worker).unwrap_or_else(|| {
            sender.uid() == 0
                || sender.uid() == procfs::owner(worker).map_or_else(process::uid, |(uid, _)| uid)
        })
}
