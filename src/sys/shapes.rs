//! The shapes of a bare port: IPv4, dual-stack, IPv6 alone, or one address, as the workers ask for them.
//!
//! With SO_REUSEPORT they can all be bound side by side, and only those that listen receive: so each is bound when a
//! worker binds it, and listens when a worker listens. A server on loopback is not exposed wider, and accept(2)
//! returns the addresses that the server expects.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, sockopt,
};

use super::foreign_socket::{Protocol, Wanted};
use super::listen::{Bound, Listener};

/// The sockets beside the one that was bound at the start.
#[derive(Debug)]
pub(super) struct Shapes {
    /// Of a bare port; an explicit address is what it says.
    allowed: bool,
    others: Vec<Shape>,
    /// The one bound at the start does not listen any more: the workers wanted others.
    main_is_deaf: bool,
    /// A worker has taken the one bound at the start.
    main_is_taken: bool,
}

#[derive(Debug)]
struct Shape {
    fd: OwnedFd,
    inode: u64,
    address: SocketAddr,
    v6_only: bool,
    listens: bool,
}

impl Shapes {
    pub(super) const fn none() -> Self {
        Self { allowed: false, others: Vec::new(), main_is_deaf: false, main_is_taken: false }
    }

    pub(super) fn of_a_bare_port() -> Self {
        Self { allowed: true, ..Self::none() }
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.others.iter().map(|shape| shape.inode)
    }
}

impl Listener {
    /// The socket to give to a worker that binds `wanted`, if that is ours; `v6_only` as it was set on the worker's
    /// own socket.
    ///
    /// # Errors
    /// The kernel's own, for an address that cannot be bound.
    pub fn socket_for(
        &mut self,
        protocol: Protocol,
        wanted: &Wanted,
        v6_only: bool,
    ) -> Option<io::Result<RawFd>> {
        let asked = match (wanted, &self.bound, protocol) {
            (Wanted::Unix(path), Bound::Unix(own), Protocol::UnixStream) if is_same_file(path, own) => {
                return Some(self.restore_file().map(|()| self.as_raw_fd()));
            }
            (Wanted::Tcp(asked), Bound::Tcp { address, .. }, Protocol::Tcp | Protocol::TcpV6)
                if asked.port() == address.port() && asked.port() != 0 =>
            {
                *asked
            }
            _ => return None,
        };
        if !self.shapes.allowed || self.is_main_shape(protocol, asked, v6_only) {
            self.shapes.main_is_taken = true;
            return Some(Ok(self.as_raw_fd()));
        }
        Some(self.shape(asked, v6_only))
    }

    fn is_main_shape(&self, protocol: Protocol, asked: SocketAddr, v6_only: bool) -> bool {
        match (&self.bound, protocol) {
            (Bound::Tcp { dual: true, .. }, Protocol::TcpV6) => asked.ip().is_unspecified() && !v6_only,
            (Bound::Tcp { address, dual: false }, _) => *address == asked,
            _ => false,
        }
    }

    fn shape(&mut self, address: SocketAddr, v6_only: bool) -> io::Result<RawFd> {
        let known =
            self.shapes.others.iter().find(|shape| shape.address == address && shape.v6_only == v6_only);
        if let Some(known) = known {
            return Ok(known.fd.as_raw_fd());
        }
        let fd = bind_beside(address, v6_only)?;
        let (raw, inode) = (fd.as_raw_fd(), nix::sys::stat::fstat(&fd)?.st_ino);
        self.shapes.others.push(Shape { fd, inode, address, v6_only, listens: false });
        Ok(raw)
    }

    /// A worker listens on the socket of that number; says whether it is ours. The queue is as long as the kernel
    /// allows, whatever the worker asks for.
    pub fn listen_on(&mut self, inode: u64) -> io::Result<bool> {
        if self.inode() == inode {
            self.shapes.main_is_taken = true;
            if std::mem::take(&mut self.shapes.main_is_deaf) {
                socket::listen(&*self, Backlog::MAXALLOWABLE)?;
            }
            return Ok(true);
        }
        let Some(shape) = self.shapes.others.iter_mut().find(|shape| shape.inode == inode) else {
            return Ok(false);
        };
        if !shape.listens {
            socket::listen(&shape.fd, Backlog::MAXALLOWABLE)?;
            shape.listens = true;
        }
        // Whoever connects must not wait in a queue that nobody has asked for.
        if !self.shapes.main_is_taken && !self.shapes.main_is_deaf {
            socket::shutdown(self.as_raw_fd(), Shutdown::Read)?;
            self.shapes.main_is_deaf = true;
        }
        Ok(true)
    }
}

/// Bound, and not listening yet.
fn bind_beside(address: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&fd, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// The directory may be spelled in another way; the file may not be there.
fn is_same_file(asked: &std::path::Path, own: &std::path::Path) -> bool {
    let resolved = |path: &std::path::Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    asked == own || (resolved(asked).is_some() && resolved(asked) == resolved(own))
}
