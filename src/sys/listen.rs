//! The listening sockets: made before the first worker, kept until after the last.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};

use super::shapes::Shape;
use super::socket_file::{SocketFile, remove_stale_socket};
use crate::config::address::Address;

/// A socket that drainit owns, in as many copies as its queue has parts. Dropping it closes them and removes a unix
/// socket's file.
#[derive(Debug)]
pub struct Listener {
    pub name: String,
    pub bound: Bound,
    /// The first is the one that was bound at the start.
    pub(super) shapes: Vec<Shape>,
    /// Of a bare port, which takes the shapes that its workers ask for; an explicit address is what it says.
    pub(super) any_shape: bool,
    /// A worker has taken the shape that was bound at the start.
    pub(super) main_is_taken: bool,
    /// A socket listens that the kernel has not been told about where to steer.
    pub(super) regrouped: bool,
    /// For everybody, until the end.
    pub(super) is_shut: bool,
    /// Somebody else has it too, and goes on listening when drainit is gone.
    pub is_inherited: bool,
    file: Option<SocketFile>,
}

/// How workers share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// One accept queue for all of them.
    Shared,
    /// One each: SO_REUSEPORT, socket(7).
    Split,
}

/// Where a socket really is, port 0 resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `dual`: an IPv6 wildcard that takes IPv4 as well.
    Tcp {
        address: SocketAddr,
        dual: bool,
    },
    Unix(PathBuf),
    Abstract(String),
    /// Handed to drainit by somebody who did not say.
    Unknown,
}

impl Listener {
    /// Bind and listen.
    ///
    /// # Errors
    /// Says in words what is in the way.
    pub fn bind(name: String, address: &Address, v6_only: bool, queue: Queue) -> Result<Self, String> {
        let say = |error: io::Error| match error.raw_os_error() {
            Some(nix::libc::EADDRINUSE) => {
                format!("{address} is taken, by another process or another --listen")
            }
            Some(nix::libc::EACCES) if matches!(address, Address::Port(_) | Address::Tcp(_)) => format!(
                "{address} is refused: ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
            ),
            Some(nix::libc::EADDRNOTAVAIL) => format!("{address} is no address of this machine"),
            _ => format!("cannot listen on {address}: {error}"),
        };
        let (fd, file) = match address {
            Address::Port(port) => {
                let fd = bind_any(*port).map_err(say)?;
                let mut listener = Self::wrap(fd, name, None).map_err(say)?;
                listener.any_shape = true;
                return Ok(listener);
            }
            Address::Tcp(address) => {
                let reuse = queue == Queue::Split;
                (bind_tcp_for(*address, v6_only, reuse).map_err(say)?, None)
            }
            Address::Unix(path) => {
                let (fd, file) = bind_unix(path).map_err(say)?;
                (fd, Some(file))
            }
            Address::Abstract(name) => (bind_abstract(name).map_err(say)?, None),
        };
        Self::wrap(fd, name, file).map_err(say)
    }

    /// A socket that drainit was started with.
    pub fn inherited(fd: OwnedFd, name: String) -> io::Result<Self> {
        Self::wrap(fd, name, None).map(|listener| Self { is_inherited: true, ..listener })
    }

    fn wrap(fd: OwnedFd, name: String, file: Option<SocketFile>) -> io::Result<Self> {
        let bound = bound(&fd);
        let main = Shape::of(fd, &bound)?;
        Ok(Self {
            name,
            bound,
            shapes: vec![main],
            any_shape: false,
            main_is_taken: false,
            regrouped: true,
            is_shut: false,
            is_inherited: false,
            file,
        })
    }

    /// What a worker is started with.
    pub fn socket(&self, part: usize) -> Option<RawFd> {
        self.shapes.first()?.socket(part)
    }

    /// The numbers by which /proc names this part of the socket, in all its shapes.
    pub fn inodes(&self, part: usize) -> impl Iterator<Item = u64> {
        self.shapes.iter().filter_map(move |shape| shape.inode(part))
    }

    /// Whether a socket of that number is ours.
    pub fn owns(&self, inode: u64) -> bool {
        self.shapes.iter().any(|shape| shape.part_of(inode).is_some())
    }

    /// Put the file of a unix socket back where a server has removed it, to bind there.
    pub(super) fn restore_file(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), SocketFile::restore)
    }
}

impl Bound {
    /// The port, for TCP.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { address, .. } => Some(address.port()),
            Self::Unix(_) | Self::Abstract(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Every address of the machine: dual-stack, or IPv4 where there is no IPv6.
fn bind_any(port: u16) -> io::Result<OwnedFd> {
    match bind_tcp_for(SocketAddr::from(([0_u16; 8], port)), false, true) {
        Err(error)
            if matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)) =>
        {
            bind_tcp_for(SocketAddr::from(([0_u8; 4], port)), false, true)
        }
        bound => bound,
    }
}

/// One TCP socket, blocking as the servers expect of what they inherit, its queue as long as the kernel allows.
pub fn bind_tcp(address: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    bind_tcp_for(address, v6_only, false)
}

/// Bound alone, so that a port which somebody else has is refused; only then are others of ours let in.
fn bind_tcp_for(address: SocketAddr, v6_only: bool, for_others: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Old connections in TIME_WAIT must not keep the next container from starting.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if for_others {
        socket::setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    // The kernel cuts it to net.core.somaxconn: listen(2).
    socket::listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(fd)
}

fn bind_unix(path: &Path) -> io::Result<(OwnedFd, SocketFile)> {
    remove_stale_socket(path)?;
    let listener = UnixListener::bind(path)?;
    let file = SocketFile::with_spare(path)?;
    deepen(&listener)?;
    Ok((listener.into(), file))
}

fn bind_abstract(name: &str) -> io::Result<OwnedFd> {
    let listener = UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
    deepen(&listener)?;
    Ok(listener.into())
}

/// A second listen(2) only sets the backlog; the standard library asks for 128.
fn deepen(listener: &UnixListener) -> io::Result<()> {
    Ok(socket::listen(listener, Backlog::MAXALLOWABLE)?)
}

fn bound(fd: &OwnedFd) -> Bound {
    let Ok(address) = socket::getsockname::<SockaddrStorage>(fd.as_raw_fd()) else { return Bound::Unknown };
    if let Some(v4) = address.as_sockaddr_in() {
        return Bound::Tcp { address: SocketAddr::new(v4.ip().into(), v4.port()), dual: false };
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        let v6_only = socket::getsockopt(fd, sockopt::Ipv6V6Only).unwrap_or(false);
        let address = SocketAddr::from((v6.ip(), v6.port()));
        return Bound::Tcp { address, dual: address.ip().is_unspecified() && !v6_only };
    }
    let Some(unix) = address.as_unix_addr() else { return Bound::Unknown };
    if let Some(path) = unix.path() {
        return Bound::Unix(path.to_owned());
    }
    unix.as_abstract()
        .map_or(Bound::Unknown, |name| Bound::Abstract(String::from_utf8_lossy(name).into_owned()))
}
