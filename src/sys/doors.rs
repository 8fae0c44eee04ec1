//! The listening sockets when no worker accepts on them any more: drainit does, and then shuts them for everybody who has
//! a copy.
//!
//! shutdown(2) resets whoever waits in a TCP socket's queue. So first the socket is bound to a network interface that does
//! not exist: the kernel finds nobody there for a SYN, and refuses it, while handshakes that have begun are completed and
//! the queue stays as it is, for everybody who accepts. Then what has been queued is accepted, and nobody is there to be
//! reset. Where the kernel does not let us bind it (before Linux 5.7, without CAP_NET_RAW), a filter turns SYNs away,
//! silently: whoever has sent one tries again a second later, as TCP does, and is refused.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, sock_filter, sock_fprog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, Shutdown, SockFlag};

use super::check;
use super::descriptors::received;
use super::listen::Listener;
use super::peer::Peer;
use super::shapes::Shape;

/// What came of accept(2).
#[derive(Debug)]
pub enum Accepted {
    Somebody(Peer),
    /// All queues are empty.
    Nobody,
    /// There is no descriptor or no memory for one more.
    NoRoom,
}

/// So many connections in a row that cannot be accepted, and the queue is left for later.
const FAILURES_MAX: usize = 64;

/// asm-generic/socket.h, since Linux 5.0.
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// The number of no network interface: nobody looks whether there is one.
const NOWHERE: libc::c_int = libc::c_int::MAX;

/// Where a TCP header, with which the kernel has a filter's packet begin, has its flags.
const FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Drops a SYN that is no answer to one; see `struct sock_filter` in linux/filter.h.
const NO_NEWCOMERS: [sock_filter; 5] = [
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, FLAGS, 0, 0),
    op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK, 0, 0),
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, SYN, 0, 1),
    op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    op(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
];

const fn op(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

impl Listener {
    /// accept(2) must never wait here. O_NONBLOCK is everybody's who has a copy, and may be taken back by anybody; but nobody
    /// else accepts there any more.
    pub fn be_non_blocking(&self) {
        for door in self.doors() {
            if let Ok(flags) = fcntl(door, FcntlArg::F_GETFL) {
                let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
                let _ = fcntl(door, FcntlArg::F_SETFL(flags));
            }
        }
    }

    /// The next connection in the queues from number `queue` on, which becomes the first that may not be empty.
    pub fn accept(&self, queue: &mut usize) -> Accepted {
        for door in self.doors().skip(*queue) {
            for _ in 0..FAILURES_MAX {
                if !somebody_waits(door) {
                    break;
                }
                match socket::accept4(door.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
                    Ok(fd) => return Accepted::Somebody(Peer::new(received(fd))),
                    Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        return Accepted::NoRoom;
                    }
                    Err(Errno::EAGAIN | Errno::EINVAL) => break,
                    // An error of the one connection, mostly: accept(2). It is out of the queue.
                    Err(_) => {}
                }
            }
            *queue += 1;
        }
        Accepted::Nobody
    }

    /// Whoever connects from here on is refused, and for good: without CAP_NET_RAW there is no way back. Who accepts
    /// notices nothing. A unix socket cannot do that.
    ///
    /// # Errors
    /// The kernel's own, for the first socket that cannot be had refuse.
    pub fn refuse_newcomers(&self) -> io::Result<()> {
        let shapes = self.shapes.iter().filter(|shape| shape.listens && shape.address.is_some());
        shapes.flat_map(Shape::sockets).try_for_each(bind_nowhere)
    }

    /// Nobody new gets into the queues. A unix socket's newcomers are refused from here on.
    pub fn turn_newcomers_away(&self) {
        for shape in self.shapes.iter().filter(|shape| shape.listens) {
            for door in shape.sockets() {
                // What is refused here is done by shutdown(2) alone, a little later.
                let _ = match shape.address {
                    Some(_) => bind_nowhere(door).or_else(|_| attach(door)),
                    None => socket::shutdown(door.as_raw_fd(), Shutdown::Read).map_err(io::Error::from),
                };
            }
        }
    }

    /// For all who have a copy, and for good: whoever connects is refused.
    pub fn shut(&mut self) {
        self.shapes.iter_mut().for_each(Shape::shut);
        self.is_shut = true;
    }

    fn doors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.shapes.iter().filter(|shape| shape.listens).flat_map(Shape::sockets)
    }
}

fn somebody_waits(door: BorrowedFd<'_>) -> bool {
    let mut entries = [PollFd::new(door, PollFlags::POLLIN)];
    poll(&mut entries, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn bind_nowhere(door: BorrowedFd<'_>) -> io::Result<()> {
    // A second time takes CAP_NET_RAW.
    if number_of(door, SO_BINDTOIFINDEX)? == NOWHERE {
        return Ok(());
    }
    set(door, SO_BINDTOIFINDEX, &NOWHERE)
}

fn attach(door: BorrowedFd<'_>) -> io::Result<()> {
    let program = sock_fprog { len: NO_NEWCOMERS.len() as u16, filter: NO_NEWCOMERS.as_ptr().cast_mut() };
    // The kernel copies the program, which is as long as is said.
    set(door, libc::SO_ATTACH_FILTER, &program)
}

fn set<T>(door: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    set_at(libc::SOL_SOCKET, door, option, value)
}

fn set_at<T>(level: libc::c_int, door: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is as long as is said.
    let result =
        unsafe { libc::setsockopt(door.as_raw_fd(), level, option, ptr::from_ref(value).cast(), length) };
    check(result).map(drop)
}

fn number_of(door: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut number: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the buffer is as long as is said.
    let result = unsafe {
        let place = (&raw mut number).cast();
        libc::getsockopt(door.as_raw_fd(), libc::SOL_SOCKET, option, place, &mut length)
    };
    check(result).map(|_| number)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::address::Address;
    use crate::sys::listen::{Bound, Queue};
    use crate::sys::sock_diag;

    fn listener(address: &str) -> Listener {
        let address: Address = address.parse().unwrap();
        Listener::bind("test".to_owned(), &address, false, Queue::Split).unwrap()
    }

    fn address(listener: &Listener) -> SocketAddr {
        match listener.bound {
            Bound::Tcp { address, .. } => address,
            Bound::Unix(_) | Bound::Abstract(_) | Bound::Unknown => panic!("no TCP"),
        }
    }

    fn accepted(listener: &Listener) -> Option<Peer> {
        match listener.accept(&mut 0) {
            Accepted::Somebody(peer) => Some(peer),
            Accepted::Nobody => None,
            Accepted::NoRoom => panic!("no room"),
        }
    }

    /// In the hands of the kernel: it has begun, and not ended.
    fn connecting(to: SocketAddr) -> std::os::fd::OwnedFd {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let family = socket::AddressFamily::Inet;
        let fd = socket::socket(family, socket::SockType::Stream, flags, None).unwrap();
        let result = socket::connect(fd.as_raw_fd(), &socket::SockaddrStorage::from(to));
        assert_eq!(result, Err(Errno::EINPROGRESS));
        fd
    }

    #[test]
    fn who_is_in_the_queue_is_accepted_and_who_comes_is_refused() {
        let mut listener = listener("127.0.0.1:0");
        listener.add_part().unwrap();
        let address = address(&listener);
        let mut queued: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        listener.be_non_blocking();
        listener.refuse_newcomers().unwrap();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // Once more takes no privilege.
        listener.turn_newcomers_away();

        for client in &mut queued {
            // Packets of those that are connected still come through.
            client.write_all(b"hello").unwrap();
        }
        let mut buffer = [0; 16];
        let mut peers = 0;
        while let Some(peer) = accepted(&listener) {
            peers += 1;
            assert_eq!(peer.hear(&mut buffer).unwrap(), 5);
            assert_eq!(peer.hear(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(peer.say(b"bye").unwrap(), 3);
            peer.fall_silent();
        }
        assert_eq!(peers, 20);

        listener.shut();
        for client in &mut queued {
            let mut heard = String::new();
            client.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "bye");
        }
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(!listener.repair(), "it stays shut");
        assert!(accepted(&listener).is_none());
    }

    #[test]
    fn a_handshake_that_has_begun_is_completed() {
        let listener = listener("127.0.0.1:0");
        listener.be_non_blocking();
        // It is over once there are data: tcp(7).
        let seconds: libc::c_int = 10;
        for door in listener.doors() {
            set_at(libc::IPPROTO_TCP, door, libc::TCP_DEFER_ACCEPT, &seconds).unwrap();
        }
        let mut client = TcpStream::connect(address(&listener)).unwrap();
        listener.refuse_newcomers().unwrap();
        assert!(accepted(&listener).is_none());
        client.write_all(b"hello").unwrap();
        let peer = accepted(&listener).unwrap();
        assert_eq!(peer.hear(&mut [0; 16]).unwrap(), 5);
    }

    #[test]
    fn where_it_cannot_be_refused_a_handshake_does_not_begin() {
        let listener = listener("127.0.0.1:0");
        let _queued = TcpStream::connect(address(&listener)).unwrap();
        listener.doors().for_each(|door| attach(door).unwrap());
        listener.be_non_blocking();
        let _newcomer = connecting(address(&listener));
        assert!(accepted(&listener).is_some());
        assert!(accepted(&listener).is_none());
        assert!(!sock_diag::any_half_open(&[address(&listener).port()]));
    }

    #[test]
    fn a_unix_socket_keeps_its_queue_when_it_is_shut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut listener = listener(&format!("unix:{}", path.display()));
        let _queued: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
        listener.be_non_blocking();
        listener.turn_newcomers_away();
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(std::iter::from_fn(|| accepted(&listener)).count(), 20);
        listener.shut();
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_reset_is_noticed_at_once() {
        let listener = listener("127.0.0.1:0");
        let mut client = TcpStream::connect(address(&listener)).unwrap();
        listener.be_non_blocking();
        accepted(&listener).unwrap().reset();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
