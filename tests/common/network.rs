//! Networks apart from the host's, whose firewall may drop connections when there are many: it would count as ours.

use std::fs::File;
use std::io::{self, Error};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Process;

/// Moves this thread, and what it starts from here on, to a network of its own that has loopback and nothing else.
/// Where that is refused it stays where it is.
pub fn leave_network() {
    let _ = enter_new_network();
}

/// The same, or the reason why not.
pub fn enter_new_network() -> io::Result<()> {
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(Error::last_os_error());
    }
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "socket: {}", Error::last_os_error());
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    assert_eq!(done, 0, "loopback: {}", Error::last_os_error());
    Ok(())
}

/// Moves this thread to the network of a process.
pub fn join_network(of: Process) {
    enter_network(&File::open(of.path("ns/net")).expect("its network"));
}

/// Moves this thread to a network that is held open.
pub fn enter_network(network: &File) {
    let done = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "setns: {}", Error::last_os_error());
}
