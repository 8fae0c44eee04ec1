//! The open connections of a server, and the sockets that its processes hold, a part at a time: there may be a hundred
//! thousand, and somebody else waits for his turn.
//!
//! A dump of sock_diag(7) is a cursor, which the kernel keeps with the netlink socket; so is an open directory of /proc.
//! What does not fit a request the kernel passes over without a pause, so each port is asked for once, for both families.
//! What comes and goes between two parts may be told twice or not at all.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use nix::libc;

use super::connections::{State, by_procfs};
use super::eyes::look_at;
use super::polled;
use super::procfs::{self, Descriptors};
use super::sock_diag::{BUFFER, INODE, ask_for_tcp, open, read_u32, receive, to_port};
use crate::core::types::Pid;

/// So many descriptors are a part.
const DESCRIPTORS_AT_ONCE: usize = 256;

/// A connection by the inode that its socket has, and who is at the other end.
pub type Open = (u64, Option<IpAddr>);

/// All accepted TCP connections to local ports on which our side has not finished.
#[derive(Debug)]
pub struct Listing {
    ports: BTreeSet<u16>,
    /// What has not been asked for yet.
    left: Vec<u16>,
    netlink: Option<OwnedFd>,
    /// An answer is under way.
    answering: bool,
    buffer: Vec<u8>,
}

impl Listing {
    pub fn to(ports: BTreeSet<u16>) -> Self {
        let left = ports.iter().copied().collect();
        Self { ports, left, netlink: None, answering: false, buffer: vec![0; BUFFER] }
    }

    /// One part more. Says whether that was not all.
    ///
    /// # Errors
    /// The kernel's own, where neither netlink nor /proc/net tells.
    pub fn read(&mut self, mut each: impl FnMut(Open)) -> io::Result<bool> {
        if let Ok(more) = self.read_dump(&mut each) {
            return Ok(more);
        }
        let open = by_procfs(&self.ports)?.into_iter().filter(|one| one.state != State::OwnDone);
        open.for_each(|one| each((one.inode, one.ends.map(|ends| ends.remote.ip()))));
        Ok(false)
    }

    fn read_dump(&mut self, mut each: impl FnMut(Open)) -> io::Result<bool> {
        /// ESTABLISHED, CLOSE_WAIT.
        const OPEN: u32 = 1 << 1 | 1 << 8;
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(open()?),
        };
        if !self.answering {
            let Some(port) = self.left.pop() else { return Ok(false) };
            ask_for_tcp(netlink, 0, OPEN, &to_port(port))?;
        }
        self.answering =
            receive(netlink, &mut self.buffer, |message| read_open(message).into_iter().for_each(&mut each))?;
        Ok(self.answering || !self.left.is_empty())
    }
}

/// struct inet_diag_msg, as far as it is of interest; without an inode nobody has accepted it yet.
fn read_open(message: &[u8]) -> Option<Open> {
    const REMOTE: usize = 24;
    let inode = u64::from(read_u32(message, INODE)?);
    let address = message.get(REMOTE..)?;
    let remote: IpAddr = match libc::c_int::from(*message.first()?) {
        libc::AF_INET => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        _ => Ipv6Addr::from(*address.first_chunk::<16>()?).to_canonical(),
    };
    (inode != 0).then_some((inode, Some(remote)))
}

/// The inodes of all sockets that processes hold, as far as they may be looked into; or, for much less, of those that they
/// wait for by epoll(7).
#[derive(Debug)]
pub struct Holdings {
    left: Vec<Pid>,
    /// Each descriptor is looked at.
    all: bool,
    reading: Option<(Pid, Descriptors)>,
}

impl Holdings {
    pub fn of(processes: Vec<Pid>, all: bool) -> Self {
        Self { left: processes, all, reading: None }
    }

    /// One part more. Says whether that was not all.
    pub fn read(&mut self, mut each: impl FnMut(u64)) -> bool {
        if self.reading.is_none() {
            let Some(pid) = self.left.pop() else { return false };
            if !self.all {
                let _ = look_at(pid, || polled::each_of(pid, &mut each));
                return !self.left.is_empty();
            }
            self.reading = look_at(pid, || Descriptors::of(pid)).ok().map(|descriptors| (pid, descriptors));
        }
        if let Some((pid, descriptors)) = &mut self.reading {
            let mut read = 0;
            look_at(*pid, || {
                for (_, link) in descriptors.by_ref().take(DESCRIPTORS_AT_ONCE).map_while(Result::ok) {
                    read += 1;
                    procfs::socket_inode(&link).into_iter().for_each(&mut each);
                }
            });
            if read < DESCRIPTORS_AT_ONCE {
                self.reading = None;
            }
        }
        self.reading.is_some() || !self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::connections;
    use super::super::process::own_pid;
    use super::*;

    fn list(listener: &TcpListener) -> (BTreeSet<u64>, u32) {
        let mut listing = Listing::to(BTreeSet::from([listener.local_addr().unwrap().port()]));
        let mut inodes = BTreeSet::new();
        let mut parts = 1;
        while listing
            .read(|(inode, peer)| {
                assert!(peer.unwrap().is_loopback());
                inodes.insert(inode);
            })
            .unwrap()
        {
            parts += 1;
        }
        (inodes, parts)
    }

    #[test]
    fn all_of_them_are_listed_in_parts_and_found_among_what_we_hold() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(list(&listener).0.is_empty(), "nobody has accepted it");
            listener.accept().unwrap();
            let connect = |_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap())
            };
            let mut pairs: Vec<_> = (0..600).map(connect).collect();
            let (inodes, parts) = list(&listener);
            assert!(inodes.len() == 600 && parts > 2, "{} in {parts} parts", inodes.len());
            let ports = BTreeSet::from([listener.local_addr().unwrap().port()]);
            let whole = connections::to_ports(&ports).unwrap();
            assert!(
                whole
                    .iter()
                    .filter(|one| one.state == State::Established)
                    .all(|one| inodes.contains(&one.inode))
            );

            let mut held = BTreeSet::new();
            let mut holdings = Holdings::of(vec![own_pid(), Pid(i32::MAX)], true);
            while holdings.read(|inode| _ = held.insert(inode)) {}
            assert!(held.is_superset(&inodes));
            pairs.truncate(10);
            assert_eq!(list(&listener).0.len(), 10);
        }
    }

    #[test]
    fn to_no_port_there_are_none() {
        assert!(!Listing::to(BTreeSet::new()).read(|one| panic!("{one:?}")).unwrap());
    }
}
