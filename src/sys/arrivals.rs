//! New TCP connections to some ports, seen from beside the road: none is missed, however short it was.
//!
//! Each source leaves a question open that the next one answers. PassiveOpens of /proc/net/snmp says whether somebody has
//! connected to somebody in this network namespace. A list of the connections, sock_diag(7), shows who is there and was
//! not before. Who came and went between two lists is told when the kernel destroys the socket: it does so to whoever
//! asks (SKNLGRP_INET_TCP_DESTROY, as `ss -E` does), and asks for no privilege. One that has ended and never brought any
//! data is not counted: a TCP probe.
//!
//! Where netlink is refused the tables of /proc/net are the list, and what PassiveOpens has counted has to be explained:
//! by what drainit has accepted itself, and by new lines at the ports of others. What remains was too short for the
//! tables, may have been for the workers, and counts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};
use nix::sys::socket::{self, MsgFlags, NetlinkAddr};

use super::check;
use super::connections::{CONNECTED, INET_MESSAGE, INFO, attribute, read_tables, read_traffic};
use super::sock_diag::{dump_tcp, field, open, split_message, to_port};

/// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY, as bits.
const DESTROYED: u32 = 1 << 0 | 1 << 2;

/// A jump in a filter passes over 255 instructions at most.
const FILTERED_MAX: usize = 250;

/// The messages about ended connections that are read in one look; the kernel keeps a few hundred.
const READ_MAX: usize = 1024;

/// Watches for new connections.
pub struct Arrivals {
    ports: BTreeSet<u16>,
    /// What has been counted: the cookies of connections, or in their place a hash of both ends.
    known: BTreeSet<u64>,
    /// PassiveOpens at the last look.
    passive: u64,
    /// It had moved then. It does so a moment before a list shows the connection, or drainit has accepted it.
    again: bool,
    /// Tells of ended connections; `None` where netlink is refused.
    ended: Option<OwnedFd>,
    /// Of `Own::accepted` at the last look.
    accepted: u64,
    /// So many were explained at the last look that the kernel had not counted yet: it went on counting meanwhile.
    ahead: u64,
}

/// What is none of a client's.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// Of drainit's admin port.
    pub port: u16,
    /// How many connections it has accepted there.
    pub accepted: u64,
    /// From where it connects to the workers, to check them.
    pub checks: &'a [u16],
}

/// A connection in the kernel's words.
struct Seen {
    key: u64,
    local: u16,
    remote: u16,
}

impl Arrivals {
    /// From now on, to these ports.
    ///
    /// # Errors
    /// Why nobody can tell.
    pub fn watch(ports: BTreeSet<u16>, own: Own<'_>) -> io::Result<Self> {
        let mut arrivals = Self {
            passive: passive_opens()?,
            ended: subscribe(&ports).ok(),
            ports,
            known: BTreeSet::new(),
            // By the tables, what is on its way just now would be somebody's whom nobody can name.
            again: false,
            accepted: own.accepted,
            ahead: 0,
        };
        if arrivals.ended.is_some() && arrivals.list(own).is_err() {
            arrivals.ended = None;
        }
        if arrivals.ended.is_none() {
            arrivals.list(own)?;
            arrivals.again = true;
        }
        Ok(arrivals)
    }

    /// How many connections have come since the last time; more than none where that cannot be ruled out.
    ///
    /// # Errors
    /// Why nobody can tell.
    pub fn look(&mut self, own: Own<'_>) -> io::Result<u32> {
        let passive = passive_opens()?;
        let moved = passive.wrapping_sub(std::mem::replace(&mut self.passive, passive));
        let accepted = own.accepted.wrapping_sub(std::mem::replace(&mut self.accepted, own.accepted));
        let again = std::mem::replace(&mut self.again, true);
        let (mut new, mut explained) = (0, 0);
        if moved > 0 || again {
            (new, explained) = self.list(own)?;
        }
        self.again = moved > 0;
        Ok(match self.ended {
            Some(_) => new + self.read_ended(own),
            None => {
                // Lines are missed where the table changes while it is read.
                if self.ahead + accepted + explained + u64::from(new) < moved {
                    let (missed, others) = self.list(own)?;
                    new += missed;
                    explained += others;
                }
                explained += accepted + u64::from(new);
                let traceless = moved.saturating_sub(self.ahead + explained);
                // What explains nothing by the next look never will: it was counted before, and its line was missed then.
                self.ahead = (self.ahead + explained).saturating_sub(moved).min(explained);
                new.saturating_add(u32::try_from(traceless).unwrap_or(u32::MAX))
            }
        })
    }

    /// Whether it has less to go by than it might.
    pub fn is_makeshift(&self) -> bool {
        self.ended.is_none()
    }

    /// How many of those who are there had not been seen; by the tables also how many are there for others.
    fn list(&mut self, own: Own<'_>) -> io::Result<(u32, u64)> {
        let Self { ports, known, ended, .. } = self;
        let (mut new, mut others) = (0, 0);
        let is_of_client = |seen: &Seen| ports.contains(&seen.local) && !own.checks.contains(&seen.remote);
        if ended.is_some() {
            let mut note = |message: &[u8]| {
                if let Some(seen) = read_message(message) {
                    new += u32::from(known.insert(seen.key) && is_of_client(&seen));
                }
            };
            let netlink = open()?;
            for port in ports.iter() {
                dump_tcp(&netlink, 0, CONNECTED, &to_port(*port), &mut note)?;
            }
            return Ok((new, 0));
        }
        let tables = read_tables()?;
        let is_listening = |line: &&str| field(line, 3) == Some("0A");
        let listening: Vec<u16> =
            tables.lines().filter(is_listening).filter_map(read_line).map(|seen| seen.local).collect();
        for seen in tables.lines().filter_map(read_line) {
            if !known.insert(seen.key) {
                continue;
            }
            if is_of_client(&seen) {
                new += 1;
            } else if listening.contains(&seen.local) && seen.local != own.port {
                // The admin port's are taken off by their number.
                others += 1;
            }
        }
        Ok((new, others))
    }

    /// How many of those who are gone had not been seen.
    fn read_ended(&mut self, own: Own<'_>) -> u32 {
        let Some(ended) = &self.ended else { return 0 };
        let mut new = 0;
        let mut buffer = [0; 1024];
        for _ in 0..READ_MAX {
            let read = match socket::recv(ended.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(read) => read,
                // There were more than the kernel keeps for us: so many do not end where nobody comes.
                Err(Errno::ENOBUFS) => {
                    new += 1;
                    continue;
                }
                Err(_) => break,
            };
            let message =
                split_message(buffer.get(..read).unwrap_or_default()).map(|(_, message, _)| message);
            let Some((message, seen)) = message.and_then(|message| Some((message, read_message(message)?)))
            else {
                continue;
            };
            // The end itself is a byte to the kernel, and no data.
            let traffic = message.get(INET_MESSAGE..).and_then(|rest| read_traffic(attribute(rest, INFO)?));
            let is_new = !self.known.contains(&seen.key)
                && self.ports.contains(&seen.local)
                && !own.checks.contains(&seen.remote)
                && traffic.is_none_or(|traffic| traffic.received > 0);
            new += u32::from(is_new);
        }
        new
    }
}

/// `Tcp: RtoAlgorithm … ActiveOpens PassiveOpens …`, a line of names and one of numbers.
fn passive_opens() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split(' ').position(|name| name == "PassiveOpens");
    at.and_then(|at| field(numbers, at)?.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// struct inet_diag_msg: family, state, timer, retransmissions, both ports, both addresses, interface, cookie.
fn read_message(message: &[u8]) -> Option<Seen> {
    let port = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let key = u64::from_ne_bytes(*message.get(44..)?.first_chunk()?);
    Some(Seen { key, local: port(4)?, remote: port(6)? })
}

/// `sl local remote st …`, an end being `0100007F:1F90`.
fn read_line(line: &str) -> Option<Seen> {
    let (local, remote) = (field(line, 1)?, field(line, 2)?);
    let port = |end: &str| u16::from_str_radix(end.rsplit(':').next()?, 16).ok();
    // FNV-1a.
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let key = local.bytes().chain(remote.bytes()).fold(0xcbf2_9ce4_8422_2325, fold);
    Some(Seen { key, local: port(local)?, remote: port(remote)? })
}

/// To what the kernel says of the ends of connections to these ports.
fn subscribe(ports: &BTreeSet<u16>) -> io::Result<OwnedFd> {
    let netlink = open()?;
    if ports.len() <= FILTERED_MAX {
        attach(&netlink, &only_from(ports))?;
    }
    socket::bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, DESTROYED))?;
    Ok(netlink)
}

/// The local port is the fifth and sixth byte behind a header of 16.
fn only_from(ports: &BTreeSet<u16>) -> Vec<sock_filter> {
    let op = |code: u32, k: u32, jt: u8| sock_filter { code: code as u16, jt, jf: 0, k };
    let mut program = vec![op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 20, 0)];
    let mut left = ports.len() as u8;
    for port in ports {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::from(*port), left));
        left -= 1;
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0));
    program.push(op(libc::BPF_RET | libc::BPF_K, u32::MAX, 0));
    program
}

fn attach(socket: &OwnedFd, program: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let (value, length) = ((&raw const program).cast(), size_of_val(&program) as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the kernel copies the program, which is as long as is said.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
    check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const NOBODY: Own<'static> = Own { port: 0, accepted: 0, checks: &[] };

    fn watch(listener: &TcpListener) -> Arrivals {
        let port = listener.local_addr().unwrap().port();
        let mut arrivals = Arrivals::watch(BTreeSet::from([port]), NOBODY).unwrap();
        assert!(!arrivals.is_makeshift());
        assert_eq!(arrivals.look(NOBODY).unwrap(), 0);
        arrivals
    }

    /// The kernel tells of an end from a thread of its own, a moment later.
    fn count(arrivals: &mut Arrivals) -> u32 {
        let looks = std::iter::repeat_with(|| {
            // SAFETY: gives the processor away.
            unsafe { libc::usleep(10_000) };
            arrivals.look(NOBODY).unwrap()
        });
        looks.take(30).sum()
    }

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn whoever_is_there_counts_once_accepted_or_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let _before = pair(&listener);
            let mut arrivals = watch(&listener);
            let _accepted = pair(&listener);
            let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(count(&mut arrivals), 2);
        }
    }

    #[test]
    fn whoever_is_gone_counts_if_it_has_said_something() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut arrivals = watch(&listener);
        drop(pair(&listener));
        assert_eq!(count(&mut arrivals), 0, "a probe");
        let (mut client, server) = pair(&listener);
        client.write_all(b"GET /").unwrap();
        drop((client, server));
        assert_eq!(count(&mut arrivals), 1);
    }

    #[test]
    fn whoever_was_there_before_and_goes_does_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, server) = pair(&listener);
        let mut arrivals = watch(&listener);
        client.write_all(b"GET /").unwrap();
        drop((client, server));
        assert_eq!(count(&mut arrivals), 0);
    }

    #[test]
    fn others_ports_and_own_checks_do_not_count() {
        let (listener, other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut arrivals = watch(&listener);
        let _other = pair(&other);
        assert_eq!(count(&mut arrivals), 0);
        let (client, _server) = pair(&listener);
        let checks = [client.local_addr().unwrap().port()];
        assert_eq!(arrivals.look(Own { checks: &checks, ..NOBODY }).unwrap(), 0);
    }

    #[test]
    fn more_than_the_kernel_keeps_is_more_than_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut arrivals = watch(&listener);
        for _ in 0..2_000 {
            let (mut client, server) = pair(&listener);
            client.write_all(b"GET /").unwrap();
            drop((client, server));
        }
        assert!(count(&mut arrivals) > 0);
        // The kernel tells of so many as it gets round to it.
        assert!((0..100).any(|_| count(&mut arrivals) == 0), "it goes on telling");
        let _client = pair(&listener);
        assert_eq!(count(&mut arrivals), 1, "and goes on counting");
    }

    #[test]
    fn a_line_of_the_tables_is_known_by_both_ends() {
        let line = |remote| format!("   0: 0100007F:1F90 {remote} 01 00000000:00000000 00:00000000 00000000");
        let (one, same) = (line("0200007F:C350"), line("0200007F:C350"));
        let other = line("0200007F:C351");
        let key = |line: &str| read_line(line).unwrap().key;
        assert_eq!((key(&one), read_line(&one).unwrap().local), (key(&same), 8080));
        assert_ne!(key(&one), key(&other));
        assert!(passive_opens().is_ok());
    }
}
