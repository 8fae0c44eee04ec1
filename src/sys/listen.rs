//! The listening sockets: made before the first worker, kept until after the last.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};

use super::shapes::Shapes;
use crate::config::address::Address;

/// A socket that drainit owns. Dropping it closes it and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    pub name: String,
    pub bound: Bound,
    inode: u64,
    /// The other forms of a bare port, as its workers ask for them.
    pub(super) shapes: Shapes,
    file: Option<SocketFile>,
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

/// The file of a unix socket, removed when this is dropped if it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// A second name for the same socket: a server that removes the first one does not orphan it.
    spare: Option<PathBuf>,
    device: u64,
    inode: u64,
}

impl Listener {
    /// Bind and listen.
    ///
    /// # Errors
    /// Says in words what is in the way.
    pub fn bind(name: String, address: &Address, v6_only: bool) -> Result<Self, String> {
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
                listener.shapes = Shapes::of_a_bare_port();
                return Ok(listener);
            }
            Address::Tcp(address) => (bind_tcp(*address, v6_only).map_err(say)?, None),
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
        Self::wrap(fd, name, None)
    }

    fn wrap(fd: OwnedFd, name: String, file: Option<SocketFile>) -> io::Result<Self> {
        let inode = nix::sys::stat::fstat(&fd)?.st_ino;
        let bound = bound(&fd);
        Ok(Self { fd, name, bound, inode, shapes: Shapes::none(), file })
    }

    /// The numbers by which /proc names this socket, in all its shapes.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.inode).chain(self.shapes.inodes())
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Put the file of a unix socket back where a server has removed it, to bind there.
    pub(super) fn restore_file(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), SocketFile::restore)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl SocketFile {
    /// Of a socket that has just been bound there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), spare: None, device: meta.dev(), inode: meta.ino() })
    }

    fn with_spare(path: &Path) -> io::Result<Self> {
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

    fn restore(&self) -> io::Result<()> {
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
///
/// Bound alone first, so that a port which somebody else has is refused; only then are other shapes of ours let in.
fn bind_any(port: u16) -> io::Result<OwnedFd> {
    let fd = match bind_tcp(SocketAddr::from(([0_u16; 8], port)), false) {
        Err(error)
            if matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)) =>
        {
            bind_tcp(SocketAddr::from(([0_u8; 4], port)), false)
        }
        bound => bound,
    }?;
    socket::setsockopt(&fd, sockopt::ReusePort, &true)?;
    Ok(fd)
}

/// One TCP socket, blocking as the servers expect of what they inherit, its queue as long as the kernel allows.
pub fn bind_tcp(address: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Old connections in TIME_WAIT must not keep the next container from starting.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
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
