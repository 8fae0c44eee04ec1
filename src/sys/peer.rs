//! A connection that drainit itself has accepted. Nothing here waits: `WouldBlock` says that it would have to.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{self, MsgFlags, Shutdown, sockopt};

/// What the kernel may hold of what nobody has read yet, doubled: of a thousand connections that send as fast as they can
/// it must not be more than a small container has. Two of the connection's segments, where that is more: into a window
/// that holds none a sender puts something only when its persist timer says so, every 200 ms (RFC 9293, 3.8.6.2.1). Over
/// the loopback interface they are of 64 KB.
const UNREAD_MAX: u32 = 16 * 1024;

/// Dropping it closes the connection: what is unread then makes it a reset.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl Peer {
    pub(super) fn new(fd: OwnedFd) -> Self {
        // A unix socket's sender is charged.
        let segment = socket::getsockopt(&fd, sockopt::TcpMaxSeg).unwrap_or(0);
        let unread = UNREAD_MAX.max(segment.saturating_mul(2));
        let _ = socket::setsockopt(&fd, sockopt::RcvBuf, &usize::try_from(unread).unwrap_or(usize::MAX));
        Self(fd)
    }

    /// What it has sent; 0: it will send no more.
    pub fn hear(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(socket::recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    }

    /// Says how much of it has been taken.
    pub fn say(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(socket::send(self.0.as_raw_fd(), bytes, flags)?)
    }

    /// There is nothing more to say.
    pub fn fall_silent(&self) {
        let _ = socket::shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// It is to notice at once: SO_LINGER, socket(7).
    pub fn reset(self) {
        let _ = socket::setsockopt(&self.0, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    }
}
