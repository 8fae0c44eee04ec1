//! Steering new connections between the queues of one address: a classic BPF program on the SO_REUSEPORT group says
//! which socket gets a SYN. socket(7), SO_ATTACH_REUSEPORT_CBPF.
//!
//! The kernel counts the sockets of a group in the order in which they began to listen, and fills the place of one
//! that is gone with the last. So ours begin in order, and only the last ones are ever closed: a socket's number is
//! its part of the queue. What the program answers beyond the group falls back to the kernel's own hash.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::libc::{self, sock_filter, sock_fprog};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use super::check;
use super::listen::Listener;
use super::shapes::Shape;

/// Which part of the queue gets what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub spread: Spread,
    /// Who connects from 127.42.x.y gets the part that this key, x·256 + y, stands for.
    pub keys: Vec<(u16, u16)>,
}

/// How everybody else is spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Evenly over these parts.
    Even(Vec<u16>),
    /// Each client address always to the same of these parts, as long as there are as many.
    ByClient(Vec<u16>),
}

/// A local port that nobody else can have: whoever connects from it gets one given part. For IPv6, whose loopback
/// has no second address.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) part: u16,
    port: u16,
    _reserved: OwnedFd,
}

/// 2⁴ ports of one client in a row go to the same part, the next ones to the next. A client on Linux goes two to
/// sixteen ports further for its next connection, so the few long-lived connections of one proxy are spread more evenly
/// than by chance: 32 of them over two workers 1.13 to 1 in the median and 1.9 in the worst of a hundred, not 1.29 and
/// 2.6.
const ROW_OF_PORTS: u32 = 4;

/// The network that a check comes from.
const CHECKS: u32 = u32::from_be_bytes([127, 42, 0, 0]);

impl Listener {
    /// Tell the kernel where new connections go.
    ///
    /// # Errors
    /// EINVAL or ENOPROTOOPT where the kernel cannot; ENOMEM for a program that is too long.
    pub fn steer(&mut self, plan: &Plan) -> io::Result<()> {
        for shape in self.shapes.iter().filter(|shape| shape.listens && shape.address.is_some()) {
            shape.steer(plan)?;
        }
        self.regrouped = false;
        Ok(())
    }

    /// Whether there is a socket that [`Listener::steer`] has not reached.
    pub fn is_regrouped(&self) -> bool {
        self.regrouped
    }

    /// How many connections wait in this part, in all shapes.
    pub fn waiting(&self, part: usize) -> u32 {
        self.shapes.iter().filter_map(|shape| shape.socket(part)).filter_map(waiting).sum()
    }

    /// Begin a connection that ends in this part of the queue, `key` being its own in the plan. It is under way when
    /// this returns: whatever is steered afterwards does not concern it.
    ///
    /// # Errors
    /// The kernel's own; `AddrNotAvailable` where nothing listens yet.
    pub fn connect(&mut self, part: usize, key: u16, plan: &Plan) -> io::Result<TcpStream> {
        let listening = |shape: &&mut Shape| shape.listens && shape.address.is_some();
        let shape = self.shapes.iter_mut().find(listening);
        let Some((shape, address)) = shape.and_then(|shape| shape.address.map(|at| (shape, at))) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let (source, target) = match address.ip() {
            IpAddr::V6(ip) if shape.v6_only || !ip.is_unspecified() => {
                let part = u16::try_from(part).unwrap_or(u16::MAX);
                if !shape.doors.iter().any(|door| door.part == part) {
                    shape.doors.push(Door::reserve(part)?);
                    shape.steer(plan)?;
                }
                let port = shape.doors.iter().find(|door| door.part == part).map_or(0, |door| door.port);
                let target = if ip.is_unspecified() { Ipv6Addr::LOCALHOST } else { ip };
                (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), IpAddr::from(target))
            }
            ip => {
                let [high, low] = key.to_be_bytes();
                let target = if ip.is_unspecified() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { ip };
                (SocketAddr::from(([127, 42, high, low], 0)), target)
            }
        };
        connect(source, SocketAddr::new(target, address.port()))
    }
}

impl Shape {
    fn steer(&self, plan: &Plan) -> io::Result<()> {
        let Some(socket) = self.order.first().and_then(|part| self.socket(usize::from(*part))) else {
            return Ok(());
        };
        let number = |part: u16| {
            let place = self.order.iter().position(|known| *known == part);
            place.and_then(|place| u16::try_from(place).ok())
        };
        let numbers = |parts: &[u16]| parts.iter().filter_map(|part| number(*part)).collect();
        let spread = match &plan.spread {
            Spread::Even(parts) => {
                let mut numbers: Vec<u16> = numbers(parts);
                numbers.sort_unstable();
                Spread::Even(numbers)
            }
            Spread::ByClient(parts) => Spread::ByClient(numbers(parts)),
        };
        let keys = plan.keys.iter().filter_map(|(key, part)| Some((*key, number(*part)?))).collect();
        let doors = self.doors.iter().filter_map(|door| Some((door.port, number(door.part)?)));
        let doors: Vec<_> = doors.collect();
        attach(socket, &program(&Plan { spread, keys }, &doors))
    }
}

impl Door {
    fn reserve(part: u16) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Inet6, SockType::Stream, flags, None)?;
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        let any_port = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(any_port))?;
        let bound = socket::getsockname::<SockaddrStorage>(fd.as_raw_fd())?;
        let port = bound.as_sockaddr_in6().map_or(0, |bound| bound.port());
        Ok(Self { part, port, _reserved: fd })
    }
}

/// Never waits: the answer is the stream's to tell.
fn connect(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(family, SockType::Stream, flags, None)?;
    // For a door's port; it is let go at once afterwards, not kept in TIME_WAIT.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error.into()),
    }
}

fn attach(socket: i32, program: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?,
        // The kernel copies it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the caller's socket is open as long as its shape is borrowed.
    let socket = unsafe { BorrowedFd::borrow_raw(socket) };
    Ok(socket::setsockopt(&socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// tcpi_unacked of a socket that listens is the length of its accept queue: tcp(7), TCP_INFO.
fn waiting(socket: i32) -> Option<u32> {
    const STATE_LISTEN: u8 = 10;
    let mut info = [0_u8; 104];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the buffer is as long as is said.
    let result = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
    };
    check(result).ok()?;
    let unacked = info.get(24..28)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    unacked.filter(|_| info.first() == Some(&STATE_LISTEN))
}

/// The program for one shape, whose sockets have numbers instead of parts here. See `struct sock_filter` in linux/filter.h.
fn program(plan: &Plan, doors: &[(u16, u16)]) -> Vec<sock_filter> {
    use code::*;
    let by_client = matches!(plan.spread, Spread::ByClient(_));

    // What has come from 127.42.x.y, and goes on as everybody else where no part has that key.
    let mut v4 = vec![op(LD_WORD, NET + 12), op(ST, 0), op(AND, 0xffff_0000)];
    let keys = by_key(&plan.keys);
    v4.extend([jump(JEQ, CHECKS, 1, 0), op(JUMP, length(&keys))]);
    v4.extend(keys);
    if by_client {
        v4.push(op(LD_MEM, 0));
    } else {
        // The header of IPv4 has options at times, and the port comes after them.
        v4.extend([op(LDX_HEADER, NET), op(LD_HALF_X, NET), op(SHIFT_RIGHT, ROW_OF_PORTS)]);
        v4.extend([op(LDX_MEM, 0), op(ADD_X, 0)]);
    }

    let mut v6: Vec<sock_filter> = Vec::new();
    if !doors.is_empty() {
        v6.push(op(LD_HALF, NET + 40));
        v6.extend(
            doors.iter().flat_map(|(port, number)| {
                [jump(JEQ, u32::from(*port), 0, 1), op(RETURN, u32::from(*number))]
            }),
        );
    }
    if by_client {
        v6.push(op(LD_WORD, NET + 8));
        for offset in [12, 16, 20] {
            v6.extend([op(MULTIPLY, GOLDEN), op(MOVE_X, 0), op(LD_WORD, NET + offset), op(XOR_X, 0)]);
        }
    } else {
        v6.extend([op(LD_HALF, NET + 40), op(SHIFT_RIGHT, ROW_OF_PORTS), op(MOVE_X, 0)]);
        v6.extend([op(LD_WORD, NET + 20), op(ADD_X, 0)]);
    }

    v4.push(op(JUMP, length(&v6)));
    let mut program = vec![op(LD_BYTE, NET), op(SHIFT_RIGHT, 4), jump(JEQ, 6, 0, 1)];
    program.push(op(JUMP, length(&v4)));
    program.extend(v4);
    program.extend(v6);
    program.extend(match &plan.spread {
        Spread::Even(parts) => even(parts),
        Spread::ByClient(parts) => by_weight(parts),
    });
    program
}

/// M[0] holds the source address: returns the number for its key, where there is one. Keys in a row whose numbers are
/// in a row too are one comparison.
fn by_key(keys: &[(u16, u16)]) -> Vec<sock_filter> {
    use code::*;
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut program = vec![op(LD_MEM, 0), op(AND, 0xffff)];
    for run in keys.chunk_by(|one, next| (one.0 + 1, one.1 + 1) == *next) {
        let (Some((first, number)), Some((last, _))) = (run.first(), run.last()) else { continue };
        program.extend([
            jump(JGE, u32::from(*first), 0, 3),
            jump(JGE, u32::from(*last) + 1, 2, 0),
            op(ADD, u32::from(*number).wrapping_sub(u32::from(*first))),
            op(RETURN_A, 0),
        ]);
    }
    program
}

/// A counts: the n-th of the parts is n in a row of numbers, most of the time.
fn even(parts: &[u16]) -> Vec<sock_filter> {
    use code::*;
    let mut program = vec![op(MODULO, u32::try_from(parts.len()).unwrap_or(1).max(1))];
    let mut nth = 0_u32;
    for run in parts.chunk_by(|one, next| one + 1 == *next) {
        let Some(first) = run.first() else { continue };
        let after = nth + u32::try_from(run.len()).unwrap_or(0);
        program.extend([
            jump(JGE, after, 2, 0),
            op(ADD, u32::from(*first).wrapping_sub(nth)),
            op(RETURN_A, 0),
        ]);
        nth = after;
    }
    // Not reached.
    program.push(op(RETURN, u32::MAX));
    program
}

/// A is the client: the part with the highest weight for it has it (rendezvous hashing), so that one part more or
/// less moves nobody but those whom it gets or had.
fn by_weight(parts: &[u16]) -> Vec<sock_filter> {
    use code::*;
    let mut program = vec![op(MOVE_X, 0), op(SHIFT_RIGHT, 16), op(XOR_X, 0), op(MULTIPLY, MIX)];
    program.extend([op(MOVE_X, 0), op(SHIFT_RIGHT, 15), op(XOR_X, 0), op(ST, 0)]);
    program.extend([op(LD, 0), op(ST, 1), op(LD, u32::from(*parts.first().unwrap_or(&0))), op(ST, 2)]);
    for (slot, part) in (1_u32..).zip(parts) {
        program.extend([op(LD_MEM, 0), op(XOR, slot.wrapping_mul(GOLDEN)), op(MULTIPLY, MIX)]);
        program.extend([op(MOVE_X, 0), op(SHIFT_RIGHT, 15), op(XOR_X, 0), op(MULTIPLY, GOLDEN)]);
        program.extend([op(MOVE_X, 0), op(LD_MEM, 1), jump(JGE_X, 0, 4, 0)]);
        program.extend([op(MOVE_A, 0), op(ST, 1), op(LD, u32::from(*part)), op(ST, 2)]);
    }
    program.extend([op(LD_MEM, 2), op(RETURN_A, 0)]);
    program
}

fn length(program: &[sock_filter]) -> u32 {
    u32::try_from(program.len()).unwrap_or(0)
}

const fn op(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// The instructions by what they do.
mod code {
    use nix::libc::{
        BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE,
        BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_MISC, BPF_MOD, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH,
        BPF_ST, BPF_TAX, BPF_TXA, BPF_W, BPF_X, BPF_XOR,
    };

    /// From here on counts the network header; the data begins after TCP's. (SKF_NET_OFF)
    pub(super) const NET: u32 = 0xfff0_0000;
    /// 2³² divided by the golden ratio; and another odd number whose bits are well mixed.
    pub(super) const GOLDEN: u32 = 0x9e37_79b1;
    pub(super) const MIX: u32 = 0x7feb_352d;

    pub(super) const LD_WORD: u32 = BPF_LD | BPF_W | BPF_ABS;
    pub(super) const LD_HALF: u32 = BPF_LD | BPF_H | BPF_ABS;
    pub(super) const LD_BYTE: u32 = BPF_LD | BPF_B | BPF_ABS;
    pub(super) const LD_HALF_X: u32 = BPF_LD | BPF_H | BPF_IND;
    pub(super) const LD: u32 = BPF_LD | BPF_IMM;
    pub(super) const LD_MEM: u32 = BPF_LD | BPF_MEM;
    pub(super) const LDX_MEM: u32 = BPF_LDX | BPF_MEM;
    /// X is the length of an IPv4 header.
    pub(super) const LDX_HEADER: u32 = BPF_LDX | BPF_B | BPF_MSH;
    pub(super) const ST: u32 = BPF_ST;
    pub(super) const MOVE_X: u32 = BPF_MISC | BPF_TAX;
    pub(super) const MOVE_A: u32 = BPF_MISC | BPF_TXA;
    pub(super) const ADD: u32 = BPF_ALU | BPF_ADD | BPF_K;
    pub(super) const ADD_X: u32 = BPF_ALU | BPF_ADD | BPF_X;
    pub(super) const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
    pub(super) const XOR: u32 = BPF_ALU | BPF_XOR | BPF_K;
    pub(super) const XOR_X: u32 = BPF_ALU | BPF_XOR | BPF_X;
    pub(super) const MULTIPLY: u32 = BPF_ALU | BPF_MUL | BPF_K;
    pub(super) const MODULO: u32 = BPF_ALU | BPF_MOD | BPF_K;
    pub(super) const SHIFT_RIGHT: u32 = BPF_ALU | BPF_RSH | BPF_K;
    pub(super) const JUMP: u32 = BPF_JMP | BPF_JA;
    pub(super) const JEQ: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    pub(super) const JGE: u32 = BPF_JMP | BPF_JGE | BPF_K;
    pub(super) const JGE_X: u32 = BPF_JMP | BPF_JGE | BPF_X;
    pub(super) const RETURN: u32 = BPF_RET | BPF_K;
    pub(super) const RETURN_A: u32 = BPF_RET | BPF_A;
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::sys::listen::Queue;

    fn listener(address: &str, parts: usize) -> Listener {
        let mut listener =
            Listener::bind("test".to_owned(), &address.parse().unwrap(), false, Queue::Split).unwrap();
        (1..parts).for_each(|_| listener.add_part().unwrap());
        listener
    }

    fn plan(spread: Spread, parts: u16) -> Plan {
        Plan { spread, keys: (0..parts).map(|part| (part, part)).collect() }
    }

    /// Which part the connection has come to; it is taken out of the queue.
    fn part_with_a_connection(listener: &Listener) -> usize {
        let part = (0..listener.parts()).find(|part| listener.waiting(*part) > 0).unwrap();
        let socket = listener.socket(part).unwrap();
        // SAFETY: the listener is open, and the copy is closed by its owner.
        let copy = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned().unwrap();
        drop(TcpListener::from(copy).accept().unwrap());
        part
    }

    fn target(listener: &Listener, host: &str) -> SocketAddr {
        format!("{host}:{}", listener.bound.port().unwrap()).parse().unwrap()
    }

    fn from(source: &str, target: SocketAddr, listener: &Listener) -> usize {
        let stream = connect(source.parse().unwrap(), target).unwrap();
        let part = part_with_a_connection(listener);
        drop(stream);
        part
    }

    #[test]
    fn a_source_address_picks_the_part() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let mut listener = listener(address, 4);
            let spread = Spread::Even(vec![0, 1]);
            listener.steer(&Plan { spread, keys: vec![(0, 0), (1, 1), (2, 3), (0x8001, 2)] }).unwrap();
            let target = target(&listener, "127.0.0.1");
            for (source, part) in
                [("127.42.0.0:0", 0), ("127.42.0.1:0", 1), ("127.42.0.2:0", 3), ("127.42.128.1:0", 2)]
            {
                assert_eq!(from(source, target, &listener), part, "{address} {source}");
            }
            // A key that nobody has does not lead to one that is closed to others.
            assert!((0..20).all(|_| from("127.42.0.9:0", target, &listener) < 2));
        }
    }

    #[test]
    fn connections_are_spread_evenly_over_the_open_parts() {
        for (host, address, source) in
            [("127.0.0.1", "127.0.0.1:0", "127.0.0.1:0"), ("[::1]", "[::1]:0", "[::1]:0")]
        {
            let mut listener = listener(address, 5);
            listener.steer(&plan(Spread::Even(vec![0, 2, 3]), 5)).unwrap();
            let mut counts = [0_u32; 5];
            for _ in 0..600 {
                counts[from(source, target(&listener, host), &listener)] += 1;
            }
            assert_eq!((counts[1], counts[4]), (0, 0));
            assert!([0, 2, 3].iter().all(|part| (140..260).contains(&counts[*part])), "{counts:?}");
        }
    }

    #[test]
    fn a_client_keeps_its_part_and_few_move_when_there_is_one_more() {
        let mut listener = listener("127.0.0.1:0", 5);
        let clients: Vec<String> =
            (1..=200).map(|client| format!("127.7.{}.{client}:0", client % 3)).collect();
        let target = target(&listener, "127.0.0.1");
        let mut parts = |slots: Vec<u16>| -> Vec<usize> {
            listener.steer(&plan(Spread::ByClient(slots), 5)).unwrap();
            clients.iter().map(|client| from(client, target, &listener)).collect()
        };
        let with_four = parts(vec![0, 1, 2, 3]);
        assert_eq!(with_four, parts(vec![0, 1, 2, 3]));
        let with_five = parts(vec![0, 1, 2, 3, 4]);
        let moved = with_four.iter().zip(&with_five).filter(|(one, other)| one != other).count();
        assert!((20..=60).contains(&moved), "{moved} of 200 moved");
        assert!(with_four.iter().zip(&with_five).all(|(one, other)| one == other || *other == 4));
        for part in 0..5 {
            let share = with_five.iter().filter(|known| **known == part).count();
            assert!((20..=65).contains(&share), "{share} of 200 for part {part}");
        }
        // The slot is what counts, not who is in it.
        let replaced = parts(vec![0, 4, 2, 3]);
        assert!(with_four.iter().zip(&replaced).all(|(one, other)| one == other || (*one, *other) == (1, 4)));
    }

    #[test]
    fn a_reserved_port_picks_the_part_where_there_is_only_ipv6() {
        let mut listener = listener("[::1]:0", 3);
        let plan = plan(Spread::Even(vec![0]), 3);
        listener.steer(&plan).unwrap();
        for _ in 0..3 {
            for part in [2, 0, 1] {
                let stream = listener.connect(part, 0, &plan).unwrap();
                assert_eq!(part_with_a_connection(&listener), part);
                drop(stream);
            }
        }
    }

    #[test]
    fn a_socket_that_was_shut_down_listens_again_and_the_order_is_known() {
        let mut listener = listener("127.0.0.1:0", 4);
        let plan = plan(Spread::Even(vec![0, 1, 2, 3]), 4);
        listener.steer(&plan).unwrap();
        let socket = listener.socket(1).unwrap();
        socket::shutdown(socket, socket::Shutdown::Both).unwrap();
        assert!(listener.repair());
        assert!(!listener.repair());
        listener.steer(&plan).unwrap();
        let target = target(&listener, "127.0.0.1");
        for part in 0..4 {
            assert_eq!(from(&format!("127.42.0.{part}:0"), target, &listener), part);
        }
        listener.drop_parts(2);
        listener.steer(&self::plan(Spread::Even(vec![0, 1]), 2)).unwrap();
        for part in 0..2 {
            assert_eq!(from(&format!("127.42.0.{part}:0"), target, &listener), part);
        }
    }

    #[test]
    fn the_largest_pool_can_be_steered() {
        let listener = listener("127.0.0.1:0", 2);
        let socket = listener.socket(0).unwrap();
        for spread in [Spread::Even((0..1024).collect()), Spread::ByClient((0..128).collect())] {
            attach(socket, &program(&plan(spread, 1024), &[])).unwrap();
        }
    }
}
