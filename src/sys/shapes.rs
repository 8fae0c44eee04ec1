//! The shapes of a bare port: IPv4, dual-stack, IPv6 alone, or one address, as the workers ask for them.
//!
//! With SO_REUSEPORT they can all be bound side by side, and only those that listen receive: so each is bound when a
//! worker binds it, and listens when a worker listens. A server on loopback is not exposed wider, and accept(2)
//! returns the addresses that the server expects. Where every worker has a queue of its own, a shape is as many
//! sockets, which listen together and in order: the kernel counts them as we do.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    self, AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, sockopt,
};

use super::foreign_socket::{Protocol, Wanted};
use super::listen::{Bound, Listener};
use super::steering::Door;

/// One form of an address, a socket for each part of its queue.
#[derive(Debug)]
pub(super) struct Shape {
    /// `None` for what is no TCP socket.
    pub(super) address: Option<SocketAddr>,
    pub(super) v6_only: bool,
    pub(super) listens: bool,
    sockets: Vec<Socket>,
    /// The parts as the kernel counts them: in the order in which they began to listen.
    pub(super) order: Vec<u16>,
    /// By which a part can be reached where a source address cannot tell.
    pub(super) doors: Vec<Door>,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    inode: u64,
}

impl Shape {
    /// Of a socket that listens.
    pub(super) fn of(fd: OwnedFd, bound: &Bound) -> io::Result<Self> {
        let (address, v6_only) = match bound {
            Bound::Tcp { address, dual } => (Some(*address), address.is_ipv6() && !dual),
            Bound::Unix(_) | Bound::Abstract(_) | Bound::Unknown => (None, false),
        };
        let sockets = vec![Socket::of(fd)?];
        Ok(Self { address, v6_only, listens: true, sockets, order: vec![0], doors: Vec::new() })
    }

    fn bound_to(address: SocketAddr, v6_only: bool) -> Self {
        let (sockets, order, doors) = (Vec::new(), Vec::new(), Vec::new());
        Self { address: Some(address), v6_only, listens: false, sockets, order, doors }
    }

    pub(super) fn socket(&self, part: usize) -> Option<RawFd> {
        self.sockets.get(part).map(|socket| socket.fd.as_raw_fd())
    }

    pub(super) fn inode(&self, part: usize) -> Option<u64> {
        self.sockets.get(part).map(|socket| socket.inode)
    }

    pub(super) fn part_of(&self, inode: u64) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.inode == inode)
    }

    fn add_part(&mut self) -> io::Result<()> {
        let Some(address) = self.address else { return Err(io::ErrorKind::Unsupported.into()) };
        let socket = Socket::of(bind_beside(address, self.v6_only)?)?;
        if self.listens {
            socket::listen(&socket.fd, Backlog::MAXALLOWABLE)?;
            self.order.extend(u16::try_from(self.sockets.len()));
        }
        self.sockets.push(socket);
        Ok(())
    }

    fn drop_parts(&mut self, kept: usize) {
        while self.sockets.len() > kept {
            let Some(socket) = self.sockets.pop() else { return };
            // Some process may have a copy: closing ours would leave it in the group.
            let _ = socket::shutdown(socket.fd.as_raw_fd(), Shutdown::Read);
            self.forget(self.sockets.len());
        }
        self.doors.retain(|door| usize::from(door.part) < kept);
    }

    /// As the kernel does it: the last one takes the place.
    fn forget(&mut self, part: usize) {
        if let Some(place) = self.order.iter().position(|known| usize::from(*known) == part) {
            self.order.swap_remove(place);
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        for (part, socket) in (0..).zip(&self.sockets) {
            socket::listen(&socket.fd, Backlog::MAXALLOWABLE)?;
            self.order.push(part);
        }
        self.listens = true;
        Ok(())
    }

    /// A worker may shut the socket down that it was given, for all who have it: then it listens again. Says whether
    /// there was need.
    pub(super) fn repair(&mut self) -> bool {
        let deaf = |shape: &Self, part: &u16| {
            shape.socket(usize::from(*part)).is_some_and(|socket| !is_listening(socket))
        };
        if !self.listens || self.address.is_none() {
            return false;
        }
        let shut: Vec<u16> = self.order.iter().copied().filter(|part| deaf(self, part)).collect();
        for part in &shut {
            self.forget(usize::from(*part));
        }
        for part in &shut {
            let socket = self.sockets.get(usize::from(*part));
            if socket.is_some_and(|socket| socket::listen(&socket.fd, Backlog::MAXALLOWABLE).is_ok()) {
                self.order.push(*part);
            }
        }
        !shut.is_empty()
    }

    /// Whoever connects is refused.
    fn go_deaf(&mut self) -> io::Result<()> {
        for socket in &self.sockets {
            socket::shutdown(socket.fd.as_raw_fd(), Shutdown::Read)?;
        }
        self.listens = false;
        self.order.clear();
        Ok(())
    }

    /// As [`Shape::go_deaf`], and none of them keeps the others from it.
    pub(super) fn shut(&mut self) {
        for socket in self.sockets.iter().filter(|_| self.listens) {
            let _ = socket::shutdown(socket.fd.as_raw_fd(), Shutdown::Read);
        }
        self.listens = false;
        self.order.clear();
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.fd.as_fd())
    }

    /// Whether a socket of this protocol, bound there, is of this shape.
    fn is(&self, protocol: Protocol, asked: SocketAddr, v6_only: bool) -> bool {
        let same_family = asked.is_ipv4() == (protocol == Protocol::Tcp);
        let same_reach = !asked.is_ipv6() || !asked.ip().is_unspecified() || v6_only == self.v6_only;
        self.address == Some(asked) && same_family && same_reach
    }
}

impl Socket {
    fn of(fd: OwnedFd) -> io::Result<Self> {
        let inode = nix::sys::stat::fstat(&fd)?.st_ino;
        Ok(Self { fd, inode })
    }
}

impl Listener {
    /// One queue more, the last one.
    ///
    /// # Errors
    /// The kernel's own: descriptors, ports, memory. Then nothing has changed.
    pub fn add_part(&mut self) -> io::Result<()> {
        let parts = self.parts();
        let added = self.shapes.iter_mut().try_for_each(Shape::add_part);
        if added.is_err() {
            self.drop_parts(parts);
        }
        self.regrouped = true;
        added
    }

    /// Close the last queues: whoever waits there is reset.
    pub fn drop_parts(&mut self, kept: usize) {
        self.shapes.iter_mut().for_each(|shape| shape.drop_parts(kept));
    }

    /// Have everything listen again that a worker has shut down. Says whether there was something.
    pub fn repair(&mut self) -> bool {
        let repaired = self.shapes.iter_mut().fold(false, |repaired, shape| shape.repair() | repaired);
        self.regrouped |= repaired;
        repaired
    }

    /// Reset whoever waits in a queue.
    pub fn reset(&mut self, part: usize) {
        let sockets = self.shapes.iter().filter(|shape| shape.listens).filter_map(|shape| shape.socket(part));
        for socket in sockets {
            let _ = socket::shutdown(socket, Shutdown::Read);
        }
        self.repair();
    }

    /// How many queues there are.
    pub fn parts(&self) -> usize {
        self.shapes.first().map_or(0, |shape| shape.sockets.len())
    }

    /// The socket to give to a worker that binds `wanted`, if that is ours; `v6_only` as it was set on the worker's
    /// own socket.
    ///
    /// # Errors
    /// The kernel's own, for an address that cannot be bound.
    pub fn socket_for(
        &mut self,
        part: usize,
        protocol: Protocol,
        wanted: &Wanted,
        v6_only: bool,
    ) -> Option<io::Result<RawFd>> {
        let asked = match (wanted, &self.bound, protocol) {
            (Wanted::Unix(path), Bound::Unix(own), Protocol::UnixStream) if is_same_file(path, own) => {
                let socket = self.socket(part)?;
                return Some(self.restore_file().map(|()| socket));
            }
            (Wanted::Tcp(asked), Bound::Tcp { address, .. }, Protocol::Tcp | Protocol::TcpV6)
                if asked.port() == address.port() && asked.port() != 0 =>
            {
                *asked
            }
            _ => return None,
        };
        if !self.any_shape || self.shapes.first().is_some_and(|main| main.is(protocol, asked, v6_only)) {
            self.main_is_taken = true;
            return self.socket(part).map(Ok);
        }
        Some(self.shape(part, asked, v6_only))
    }

    fn shape(&mut self, part: usize, address: SocketAddr, v6_only: bool) -> io::Result<RawFd> {
        let wanted = |shape: &&Shape| shape.address == Some(address) && shape.v6_only == v6_only;
        let gone = || io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
        if let Some(known) = self.shapes.iter().skip(1).find(wanted) {
            return known.socket(part).ok_or_else(gone);
        }
        let mut shape = Shape::bound_to(address, v6_only);
        for _ in 0..self.parts() {
            shape.add_part()?;
        }
        let socket = shape.socket(part).ok_or_else(gone)?;
        self.shapes.push(shape);
        Ok(socket)
    }

    /// A worker listens on the socket of that number; says whether it is ours. The queue is as long as the kernel
    /// allows, whatever the worker asks for.
    pub fn listen_on(&mut self, inode: u64) -> io::Result<bool> {
        let Some(index) = self.shapes.iter().position(|shape| shape.part_of(inode).is_some()) else {
            return Ok(false);
        };
        self.main_is_taken |= index == 0;
        if let Some(shape) = self.shapes.get_mut(index).filter(|shape| !shape.listens && !self.is_shut) {
            shape.listen()?;
            self.regrouped = true;
        }
        // Whoever connects must not wait in a queue that nobody has asked for.
        if let Some(main) = self.shapes.first_mut().filter(|main| main.listens && !self.main_is_taken) {
            main.go_deaf()?;
        }
        Ok(true)
    }
}

/// SO_ACCEPTCONN, socket(7).
fn is_listening(socket: RawFd) -> bool {
    // SAFETY: the caller has it from a shape that is borrowed.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket) };
    socket::getsockopt(&socket, sockopt::AcceptConn).unwrap_or(true)
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
