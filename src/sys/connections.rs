//! The connections of a server: sock_diag(7) over netlink, /proc/net where that is refused.
//!
//! [`to_ports`] and [`to_names`] list them ([`super::listing`] a part at a time), [`inodes_of`] says which are a process's, and [`of_group`] puts the two
//! together. A connection that nobody has accepted yet belongs to no process: its inode is 0, and it is left out.
//!
//! One look is a dump a port, whatever the number of processes; the kernel walks its table of all
//! connections for each, and tells only of those with the port.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;

use super::eyes::look_at;
use super::sock_diag::{ANY, INODE, LISTEN, dump_tcp, dump_unix, field, open, read_u32, to_port};
use super::{polled, procfs};
use crate::core::types::Pid;

/// How far a TCP connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    /// The peer has said that it will send no more (CLOSE_WAIT).
    PeerDone,
    /// Our side has said so: whatever it had to say is the kernel's to deliver (FIN_WAIT1 and 2, CLOSING, LAST_ACK).
    OwnDone,
}

/// A connection that a process has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As in `socket:[…]` of /proc/PID/fd.
    pub inode: u64,
    pub state: State,
    /// Both ends; `None` of a unix socket.
    pub ends: Option<Ends>,
    /// Bytes that have arrived and have not been read.
    pub unread: u32,
    /// Bytes that have been sent and not been acknowledged, of a unix socket: not been read.
    pub unsent: u32,
    /// `None` where the kernel keeps no account (unix sockets) or does not tell (/proc/net).
    pub traffic: Option<Traffic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// What has gone to and fro: struct tcp_info, tcp(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Milliseconds since data were sent last, since the connection was made where none have been. In steps of the
    /// kernel's clock tick (1 to 10 ms), so that what came shortly before and what came shortly after look the same.
    pub last_sent_ms: u32,
    /// The same of data that arrived.
    pub last_received_ms: u32,
    /// Segments with data that were sent, repetitions included.
    pub sent: u32,
    /// Segments with data that have arrived.
    pub received: u32,
}

/// The name of a unix socket as the kernel keeps it: a path, or an abstract name with its leading zero byte.
pub type UnixName = Vec<u8>;

/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING; the others belong to nobody.
pub(super) const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// INET_DIAG_INFO, as an attribute and as a bit of the request.
pub(super) const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);

/// UDIAG_SHOW_NAME, UDIAG_SHOW_RQLEN, and the attributes that follow from them.
const SHOW_NAME: u32 = 1;
const SHOW_QUEUES: u32 = 0x10;
const NAME: u16 = 0;
const QUEUES: u16 = 4;

/// The size of struct inet_diag_msg and of struct unix_diag_msg: attributes follow.
pub(super) const INET_MESSAGE: usize = 72;
const UNIX_MESSAGE: usize = 16;

/// All accepted TCP connections to these local ports, in this network namespace.
///
/// # Errors
/// The kernel's own, where neither netlink nor /proc/net tells.
pub fn to_ports(ports: &BTreeSet<u16>) -> io::Result<Vec<Connection>> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    by_netlink(ports).or_else(|_| by_procfs(ports))
}

/// Whether any server in this network namespace has a connection, but for the one on the port `except`.
///
/// # Errors
/// Netlink's own.
pub fn is_anybody_served(except: u16) -> io::Result<bool> {
    const LISTENING: u8 = 10;
    let (mut served, mut connected) = (BTreeSet::new(), BTreeSet::new());
    // struct inet_diag_msg: family, state, timer, retransmissions, then the local port.
    dump_tcp(&open()?, 0, LISTEN | CONNECTED, &ANY, |message| {
        let port = message.get(4..).and_then(|rest| Some(u16::from_be_bytes(*rest.first_chunk()?)));
        let ports = if message.get(1) == Some(&LISTENING) { &mut served } else { &mut connected };
        ports.extend(port);
    })?;
    served.remove(&except);
    Ok(!served.is_disjoint(&connected))
}

fn by_netlink(ports: &BTreeSet<u16>) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    dump(ports, WANT_INFO, CONNECTED, |message| found.extend(read_connection(message)))?;
    Ok(found)
}

fn dump(ports: &BTreeSet<u16>, wanted: u8, states: u32, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let netlink = open()?;
    for port in ports {
        dump_tcp(&netlink, wanted, states, &to_port(*port), &mut each)?;
    }
    Ok(())
}

/// struct inet_diag_msg: family, state, timer, retransmissions, the socket's id (ports, addresses, interface, cookie),
/// expiry, both queues, uid, inode.
fn read_connection(message: &[u8]) -> Option<Connection> {
    let inode = u64::from(read_u32(message, INODE)?);
    let address = |at: usize, port: usize| {
        let ip: IpAddr = match i32::from(*message.first()?) {
            libc::AF_INET => Ipv4Addr::from(*message.get(at..)?.first_chunk::<4>()?).into(),
            _ => Ipv6Addr::from(*message.get(at..)?.first_chunk::<16>()?).into(),
        };
        let port = u16::from_be_bytes(*message.get(port..)?.first_chunk()?);
        Some(SocketAddr::new(ip.to_canonical(), port))
    };
    let ends = Some(Ends { local: address(8, 4)?, remote: address(24, 6)? });
    let traffic = attribute(message.get(INET_MESSAGE..)?, INFO).and_then(read_traffic);
    let (unread, unsent) = (read_u32(message, 56)?, read_u32(message, 60)?);
    let state = state(*message.get(1)?)?;
    (inode != 0).then_some(Connection { inode, state, ends, unread, unsent, traffic })
}

fn state(number: u8) -> Option<State> {
    match number {
        1 => Some(State::Established),
        8 => Some(State::PeerDone),
        4 | 5 | 9 | 11 => Some(State::OwnDone),
        _ => None,
    }
}

/// struct tcp_info up to tcpi_data_segs_out (Linux 4.6).
pub(super) fn read_traffic(info: &[u8]) -> Option<Traffic> {
    Some(Traffic {
        last_sent_ms: read_u32(info, 44)?,
        last_received_ms: read_u32(info, 52)?,
        received: read_u32(info, 152)?,
        sent: read_u32(info, 156)?,
    })
}

/// struct rtattr: length, kind, then what it holds; the next one is aligned to four bytes.
pub(super) fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        if kind == wanted {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode`. Where connections come and go meanwhile, the kernel may
/// tell of one twice.
pub(super) fn by_procfs(ports: &BTreeSet<u16>) -> io::Result<Vec<Connection>> {
    let mut told = BTreeSet::new();
    let tables = read_tables()?;
    let found = tables.lines().filter_map(|line| read_line(line, ports));
    Ok(found.filter(|connection| told.insert(connection.inode)).collect())
}

/// Of both families, where there are both.
pub(super) fn read_tables() -> io::Result<String> {
    let mut text = fs::read_to_string("/proc/net/tcp")?;
    text.push_str(&fs::read_to_string("/proc/net/tcp6").unwrap_or_default());
    Ok(text)
}

fn read_line(line: &str, ports: &BTreeSet<u16>) -> Option<Connection> {
    let local = read_address(field(line, 1)?)?;
    let ends = Some(Ends { local, remote: read_address(field(line, 2)?)? });
    let state = state(u8::from_str_radix(field(line, 3)?, 16).ok()?)?;
    let (unsent, unread) = field(line, 4)?.split_once(':')?;
    let hex = |digits| u32::from_str_radix(digits, 16).ok();
    let (unread, unsent) = (hex(unread)?, hex(unsent)?);
    let inode = field(line, 9)?.parse().ok()?;
    let wanted = inode != 0 && ports.contains(&local.port());
    wanted.then_some(Connection { inode, state, ends, unread, unsent, traffic: None })
}

/// `0100007F:1F90`: words of four bytes in the machine's own order.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
        _ => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// All connections to unix sockets of these names; one that has been accepted has its listener's. Those that wait to be
/// accepted have no inode of their own either.
///
/// # Errors
/// The kernel's own, where netlink is refused or the kernel was built without (CONFIG_UNIX_DIAG): /proc/net/unix knows
/// nothing of queues.
pub fn to_names(names: &BTreeSet<UnixName>) -> io::Result<Vec<Connection>> {
    /// TCP_ESTABLISHED, for unix sockets too.
    const ESTABLISHED: u32 = 1 << 1;
    let mut found = Vec::new();
    if names.is_empty() {
        return Ok(found);
    }
    dump_unix(&open()?, SHOW_NAME | SHOW_QUEUES, ESTABLISHED, |message| {
        let attributes = message.get(UNIX_MESSAGE..).unwrap_or_default();
        let Some(name) = attribute(attributes, NAME) else { return };
        // struct unix_diag_msg: family, type, state, padding, inode.
        let inode = read_u32(message, 4).map_or(0, u64::from);
        // A path has its terminating zero byte counted in.
        let name = if name.first() == Some(&0) { name } else { name.strip_suffix(b"\0").unwrap_or(name) };
        if inode == 0 || !names.contains(name) {
            return;
        }
        let queues = attribute(attributes, QUEUES).unwrap_or_default();
        let (unread, unsent) = (read_u32(queues, 0).unwrap_or(0), read_u32(queues, 4).unwrap_or(0));
        let state = State::Established;
        found.push(Connection { inode, state, ends: None, unread, unsent, traffic: None });
    })?;
    Ok(found)
}

/// The ports at which these sockets listen.
///
/// # Errors
/// The kernel's own, where neither netlink nor /proc/net tells.
pub fn listening_ports(inodes: &BTreeSet<u64>) -> io::Result<BTreeSet<u16>> {
    listening_ports_of(&|inode, _| inodes.contains(&inode))
}

/// The same of all but one, whosever they are.
///
/// # Errors
/// As of [`listening_ports`].
pub fn listening_ports_but(own: u16) -> io::Result<BTreeSet<u16>> {
    listening_ports_of(&|_, port| port != own)
}

fn listening_ports_of(is_wanted: &dyn Fn(u64, u16) -> bool) -> io::Result<BTreeSet<u16>> {
    let look = || -> io::Result<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        dump_tcp(&open()?, 0, LISTEN, &ANY, |message| {
            let port = message.get(4..).and_then(|rest| Some(u16::from_be_bytes(*rest.first_chunk()?)));
            if let (Some(inode), Some(port)) = (read_u32(message, INODE), port)
                && is_wanted(inode.into(), port)
            {
                ports.insert(port);
            }
        })?;
        Ok(ports)
    };
    look().or_else(|_| {
        let text = read_tables()?;
        let listening = text.lines().filter(|line| field(line, 3) == Some("0A"));
        let port = |line: &str| {
            let port = read_address(field(line, 1)?)?.port();
            is_wanted(field(line, 9)?.parse().ok()?, port).then_some(port)
        };
        Ok(listening.filter_map(port).collect())
    })
}

/// The inodes of all sockets that these processes hold.
///
/// # Errors
/// EACCES where one of them may not be looked into (ptrace(2)). Of one that is gone there is nothing to know.
pub fn inodes_of(processes: &[Pid]) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for pid in processes {
        let descriptors = || match polled::each_of_many(*pid, &mut |inode| _ = inodes.insert(inode))? {
            Some((lowest, true)) => Ok(lowest),
            _ => procfs::descriptors(*pid),
        };
        match look_at(*pid, descriptors) {
            Ok(descriptors) => {
                inodes.extend(descriptors.iter().filter_map(|(_, link)| procfs::socket_inode(link)));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {}
        }
    }
    Ok(inodes)
}

/// The inodes of what these processes wait for by epoll(7), all connections of most servers among them, for a tenth of the
/// time: what is not there may be theirs all the same.
///
/// # Errors
/// As of [`inodes_of`].
pub fn polled_by(processes: &[Pid]) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for pid in processes {
        match look_at(*pid, || polled::each_of(*pid, &mut |inode| _ = inodes.insert(inode))) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(inodes)
}

/// The connections to `ports` that these processes have accepted.
///
/// # Errors
/// As of [`to_ports`] and [`inodes_of`].
pub fn of_group(processes: &[Pid], ports: &BTreeSet<u16>) -> io::Result<Vec<Connection>> {
    // What is accepted in between is in the second list alone, and told the next time.
    let connections = to_ports(ports)?;
    let inodes = inodes_of(processes)?;
    Ok(connections.into_iter().filter(|connection| inodes.contains(&connection.inode)).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

    use super::super::process::own_pid;
    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn ports(listener: &TcpListener) -> BTreeSet<u16> {
        BTreeSet::from([listener.local_addr().unwrap().port()])
    }

    #[test]
    fn a_connection_is_listed_once_it_is_accepted_with_what_has_gone_to_and_fro() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let ports = ports(&listener);
            let waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert_eq!(to_ports(&ports).unwrap(), []);
            assert_eq!(by_procfs(&ports).unwrap(), []);
            let (mut server, _) = listener.accept().unwrap();
            let mut client = waiting;
            client.write_all(b"12345").unwrap();
            let found = of_group(&[own_pid()], &ports).unwrap();
            let [connection] = found.as_slice() else { panic!("{found:?}") };
            let ends = Ends { local: client.peer_addr().unwrap(), remote: client.local_addr().unwrap() };
            assert_eq!((connection.ends, connection.unread, connection.unsent), (Some(ends), 5, 0));
            let traffic = connection.traffic.unwrap();
            assert_eq!((traffic.received, traffic.sent), (1, 0));
            assert_eq!(by_procfs(&ports).unwrap(), [Connection { traffic: None, ..*connection }]);
            server.read_exact(&mut [0; 5]).unwrap();
            server.write_all(b"answer").unwrap();
            let found = to_ports(&ports).unwrap();
            assert_eq!((found[0].unread, found[0].traffic.unwrap().sent), (0, 1));
        }
    }

    #[test]
    fn a_side_that_is_done_shows() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = ports(&listener);
        let (client, server) = pair(&listener);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(to_ports(&ports).unwrap()[0].state, State::PeerDone);
        assert_eq!(to_ports(&ports).unwrap()[0].traffic.unwrap().received, 0, "the end is no data");
        server.shutdown(Shutdown::Write).unwrap();
        assert!(to_ports(&ports).unwrap().iter().all(|found| found.state == State::OwnDone));
    }

    #[test]
    fn listening_sockets_tell_their_ports_and_are_no_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("[::1]:0").unwrap();
        let listening = listening_ports(&inodes_of(&[own_pid()]).unwrap()).unwrap();
        assert!(listening.is_superset(&ports(&listener)) && listening.is_superset(&ports(&other)));
        assert!(to_ports(&ports(&listener)).unwrap().is_empty());
        assert!(listening_ports(&BTreeSet::new()).unwrap().is_empty());
    }

    #[test]
    fn unix_connections_have_the_name_of_their_listener() {
        let name = format!("drainit-connections-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let names = BTreeSet::from([[b"\0", name.as_bytes()].concat()]);
        let mut client = UnixStream::connect_addr(&address).unwrap();
        let (_server, _) = listener.accept().unwrap();
        client.write_all(b"123").unwrap();
        let found = to_names(&names).unwrap();
        let [connection] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(connection.unread, 3);
        assert!(inodes_of(&[own_pid()]).unwrap().contains(&connection.inode));
        assert!(to_names(&BTreeSet::from([b"/nobody".to_vec()])).unwrap().is_empty());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let names = BTreeSet::from([path.to_str().unwrap().as_bytes().to_vec()]);
        assert!(to_names(&names).unwrap().is_empty(), "it waits to be accepted");
        let _server = listener.accept().unwrap();
        assert_eq!(to_names(&names).unwrap().len(), 1);
    }

    /// `cargo test --release connections -- --ignored --nocapture` tells how long a look takes.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::disallowed_methods, reason = "it measures")]
    fn a_look_at_a_thousand_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = ports(&listener);
        let _held: Vec<_> = (0..1_000).map(|_| pair(&listener)).collect();
        for _ in 0..5 {
            let began = std::time::Instant::now();
            let listed = to_ports(&ports).unwrap().len();
            let dump = began.elapsed();
            let inodes = inodes_of(&[own_pid()]).unwrap().len();
            println!("{listed} listed in {dump:?}, {inodes} inodes in {:?}", began.elapsed() - dump);
        }
    }
}
