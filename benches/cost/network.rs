//! A network of our own, whose loopback nobody's firewall counts the connections of.
#![allow(unsafe_code, reason = "unshare(2) is safe, the ioctl that brings loopback up is not")]

use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sched::{CloneFlags, unshare};

/// Moves this thread, and whatever it starts from here on, to a network of its own; false where that is refused.
pub(crate) fn leave() -> io::Result<bool> {
    // Any socket will do, but it has to be of the new network.
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        return Ok(false);
    }
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all of its fields may be zero.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads a live ifreq.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(true),
    }
}
