//! A socket in another process, seen from outside: all that is known of it before it is bound.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use nix::libc;

use super::{check, procfs};
use crate::core::types::Pid;

/// Of all protocols, those of which we have sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    TcpV6,
    UnixStream,
}

/// What a descriptor is, apart from the file behind it.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub non_blocking: bool,
    pub close_on_exec: bool,
}

/// What bind(2) was called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Tcp(SocketAddr),
    /// Absolute: what was relative has been completed by the process' own directory.
    Unix(PathBuf),
}

/// The protocol's name as the kernel has it in an extended attribute of every socket; `None` for what is none of
/// ours, and for what cannot be seen.
pub fn protocol(process: Pid, fd: i32) -> Option<Protocol> {
    if !procfs::is_ours() {
        return None;
    }
    let path = CString::new(format!("/proc/{process}/fd/{fd}")).ok()?;
    let mut name = [0_u8; 64];
    // SAFETY: both strings are NUL-terminated, the buffer is as long as is said.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), name.as_mut_ptr().cast(), name.len())
    };
    let name = name.get(..usize::try_from(length).ok()?)?;
    match name.strip_suffix(b"\0").unwrap_or(name) {
        b"TCP" | b"MPTCP" => Some(Protocol::Tcp),
        b"TCPv6" | b"MPTCPv6" => Some(Protocol::TcpV6),
        b"UNIX-STREAM" => Some(Protocol::UnixStream),
        _ => None,
    }
}

/// The number of the socket behind a descriptor.
pub fn inode(process: Pid, fd: i32) -> Option<u64> {
    procfs::socket_inode(fs::read_link(format!("/proc/{process}/fd/{fd}")).ok()?.to_str()?)
}

/// The number too, and what else `/proc/PID/fdinfo/FD` tells: `flags:  02004002`, in octal, and since Linux 5.14 `ino:  74`.
pub fn inode_and_flags(process: Pid, fd: i32) -> Option<(u64, Flags)> {
    let info = procfs::read_text(format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let flags = i32::from_str_radix(field("flags:")?, 8).ok()?;
    let number = field("ino:").and_then(|number| number.parse().ok());
    let flags =
        Flags { non_blocking: flags & libc::O_NONBLOCK != 0, close_on_exec: flags & libc::O_CLOEXEC != 0 };
    Some((number.or_else(|| inode(process, fd))?, flags))
}

/// The thread group that a thread belongs to.
pub fn process_of(thread: Pid) -> Option<Pid> {
    let status = procfs::read_text(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok().map(Pid)
}

/// Read the address out of the process' memory. `None`: it is not one that could be ours.
pub fn wanted(process: Pid, address: u64, length: u64) -> Option<Wanted> {
    let bytes = read_memory(process, address, length.min(size_of::<libc::sockaddr_storage>() as u64))?;
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?));
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(Wanted::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port(&bytes)?)))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            Some(Wanted::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port(&bytes)?)))
        }
        libc::AF_UNIX => {
            use std::os::unix::ffi::OsStrExt;
            let path = bytes.get(2..)?;
            let path = path.split(|byte| *byte == 0).next().filter(|path| !path.is_empty())?;
            let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
            let directory = fs::read_link(format!("/proc/{process}/cwd")).ok()?;
            Some(Wanted::Unix(directory.join(path)))
        }
        _ => None,
    }
}

/// The value of a setsockopt(2) that takes an int.
pub fn read_int(process: Pid, address: u64) -> Option<i32> {
    Some(i32::from_ne_bytes(*read_memory(process, address, 4)?.first_chunk()?))
}

fn read_memory(process: Pid, address: u64, length: u64) -> Option<Vec<u8>> {
    let bytes = procfs::read_memory(process, address, length);
    (u64::try_from(bytes.len()) == Ok(length)).then_some(bytes)
}

/// Set O_NONBLOCK, which belongs to the open socket and so to every process that has it.
pub fn set_non_blocking(socket: &impl std::os::fd::AsRawFd) -> io::Result<()> {
    let mut value = MaybeUninit::new(1);
    // SAFETY: the kernel reads one int.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONBIO, value.as_mut_ptr()) }).map(drop)
}
