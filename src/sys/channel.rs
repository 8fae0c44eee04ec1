//! A channel to one worker: a pair of connected stream sockets, as Node's child_process makes them.
//!
//! Nothing here waits, and nothing raises SIGPIPE: PID 1 would take it for a signal to pass on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
};

/// The supervisor's end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Both ends; the other one is for the worker.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: ours }, theirs))
    }

    /// What has arrived; nothing at the end. Descriptors that came along are closed by the kernel, since there is no
    /// place for them.
    ///
    /// # Errors
    /// WouldBlock when there is no more; ConnectionReset, once, when the other end was closed before it had read
    /// everything.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    }

    /// All of it, or an error.
    ///
    /// # Errors
    /// WouldBlock where the other end does not read; BrokenPipe where it is closed.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(self.socket.as_raw_fd(), bytes, flags)?;
        if sent < bytes.len() {
            // Half a message would spoil the next one.
            self.hang_up()?;
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }

    /// End the channel for the other end, whose last words can still be received.
    ///
    /// # Errors
    /// BrokenPipe where the other end is closed.
    pub fn hang_up(&self) -> io::Result<()> {
        let mut state = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut state, PollTimeout::ZERO)?;
        if state.iter().filter_map(PollFd::revents).any(|flags| flags.contains(PollFlags::POLLHUP)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(shutdown(self.socket.as_raw_fd(), Shutdown::Write)?)
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, theirs.into())
    }

    #[test]
    fn what_one_end_sends_the_other_receives() {
        let (channel, mut peer) = pair();
        let mut buffer = [0; 8];
        assert_eq!(channel.receive(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.write_all(b"ready").unwrap();
        assert_eq!(channel.receive(&mut buffer).unwrap(), 5);
        channel.send(b"stop").unwrap();
        assert_eq!(peer.read(&mut buffer).unwrap(), 4);
        channel.hang_up().unwrap();
        assert_eq!(peer.read(&mut buffer).unwrap(), 0);
        peer.write_all(b"bye").unwrap();
        drop(peer);
        assert_eq!(channel.receive(&mut buffer).unwrap(), 3);
        assert_eq!(channel.receive(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_full_channel_takes_whole_messages_only() {
        let (channel, mut peer) = pair();
        let message = [b'x'; 1000];
        let mut sent = 0;
        let error = loop {
            match channel.send(&message) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        channel.hang_up().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), sent * message.len());
    }

    #[test]
    fn a_closed_end_is_found_out() {
        let (channel, peer) = pair();
        drop(peer);
        assert_eq!(channel.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(channel.hang_up().unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(channel.receive(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn what_was_not_read_is_told() {
        let (channel, peer) = pair();
        channel.send(b"x").unwrap();
        drop(peer);
        assert_eq!(channel.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(channel.receive(&mut [0; 8]).unwrap(), 0);
    }
}
