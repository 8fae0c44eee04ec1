//! sd_notify(3), receiving: one datagram socket a worker, in the abstract namespace.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};

use super::{descriptors, process, procfs};
use crate::core::types::Pid;

/// The supervisor's end for one worker.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    name: String,
}

/// What a worker says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub ready: bool,
}

impl NotifySocket {
    /// `id` tells this worker's socket from the others'.
    pub fn new(id: u64) -> io::Result<Self> {
        let name = format!("drainit/notify-{:016x}-{id}", process::random_seed());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, name })
    }

    /// For NOTIFY_SOCKET.
    pub fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// One message from `worker` or a process below it; `None` for one that does not count.
    ///
    /// # Errors
    /// WouldBlock when there is no more.
    pub fn receive(&self, worker: Pid) -> io::Result<Option<Message>> {
        let mut buffer = [0_u8; 4096];
        // Room for as many descriptors as can be sent along (unix(7), SCM_RIGHTS), which are closed: one that did not
        // fit would have the whole message dropped.
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
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
                ControlMessageOwned::ScmRights(fds) => fds.into_iter().for_each(descriptors::close),
                _ => {}
            }
        }
        let trusted = !truncated && sender.is_some_and(|sender| counts(&sender, worker));
        Ok(trusted.then(|| parse(buffer.get(..length).unwrap_or_default())))
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

/// From the worker's own process tree. A sender that is gone already (`systemd-notify --ready`) cannot be looked
/// up any more: it counts if it was the worker's user, since the address is told to this worker alone.
fn counts(sender: &UnixCredentials, worker: Pid) -> bool {
    let pid = Pid(sender.pid());
    pid.0 > 0
        && procfs::is_within(pid, worker).unwrap_or_else(|| {
            sender.uid() == 0
                || sender.uid() == procfs::owner(worker).map_or_else(process::uid, |(uid, _)| uid)
        })
}

/// Newline-separated assignments; what is not known is skipped, as the protocol wants it.
pub fn parse(datagram: &[u8]) -> Message {
    Message { ready: datagram.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_found_among_other_assignments() {
        assert!(parse(b"READY=1").ready);
        assert!(parse(b"STATUS=up\nREADY=1\n").ready);
        assert!(!parse(b"READY=0").ready);
        assert!(!parse(b"XREADY=1\nREADY=11\n\xff").ready);
        assert!(!parse(b"").ready);
    }
}
