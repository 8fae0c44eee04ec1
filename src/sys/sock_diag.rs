//! Sockets as the kernel lists them: sock_diag(7) over netlink, /proc/net where that is refused.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::TimeVal;

/// The state LISTEN, as a bit of the request's mask; the same number for TCP and unix sockets.
pub(super) const LISTEN: u32 = 1 << 10;

/// A connection that has been asked for and not been confirmed.
const SYN_RECV: u32 = 1 << 3;

/// struct inet_diag_msg: the inode is its last field.
pub(super) const INODE: usize = 68;

/// struct inet_diag_sockid that names nobody, its cookie included (INET_DIAG_NOCOOKIE).
pub(super) const ANY: [u8; 48] = {
    let mut id = [0; 48];
    let mut at = 40;
    while at < 48 {
        id[at] = 0xff;
        at += 1;
    }
    id
};

/// struct inet_diag_sockid that names a local port.
pub(super) fn to_port(port: u16) -> [u8; 48] {
    let mut id = ANY;
    if let Some(local) = id.first_chunk_mut() {
        *local = port.to_be_bytes();
    }
    id
}

/// The kernel hands over no more at once.
pub(super) const BUFFER: usize = 32 * 1024;

const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The older request for TCP sockets, which tells of both families whichever it names. The kernel's table of connections
/// has half a million places on a machine of some size, and each request is a walk through all of them: a millisecond.
const TCPDIAG_GETSOCK: u16 = 18;

/// The inodes of all listening stream sockets in this network namespace.
pub fn listening_inodes() -> BTreeSet<u64> {
    by_netlink().unwrap_or_else(|_| by_procfs())
}

fn by_netlink() -> io::Result<BTreeSet<u64>> {
    let netlink = open()?;
    let mut inodes = BTreeSet::new();
    let mut note = |message: &[u8], inode_at| inodes.extend(read_u32(message, inode_at).map(u64::from));
    dump_tcp(&netlink, 0, LISTEN, &ANY, |message| note(message, INODE))?;
    // struct unix_diag_msg: family, type, state, padding, inode. The kernel may have been built without it.
    if dump_unix(&netlink, 0, LISTEN, |message| note(message, 4)).is_err() {
        inodes.extend(unix_by_procfs());
    }
    Ok(inodes)
}

/// Whether a handshake with one of these local ports has begun and is not over. `false` where nobody can tell.
pub fn any_half_open(ports: &[u16]) -> bool {
    let look = || -> io::Result<bool> {
        let mut found = false;
        dump_tcp(&open()?, 0, SYN_RECV, &ANY, |message| {
            // struct inet_diag_msg: family, state, timer, retransmissions, then the local port.
            let port = message.get(4..6).and_then(|bytes| Some(u16::from_be_bytes(*bytes.first_chunk()?)));
            found |= port.is_some_and(|port| ports.contains(&port));
        })?;
        Ok(found)
    };
    look().unwrap_or(false)
}

/// Whether somebody has accepted the connection to `local` that comes from `remote`; `None` where nobody can tell.
pub fn is_accepted(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    const ESTABLISHED: u8 = 1;
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut id = ANY;
    for (at, address) in [(0, local), (2, remote)] {
        id.get_mut(at..at + 2)?.copy_from_slice(&address.port().to_be_bytes());
    }
    for (at, address) in [(4, local), (20, remote)] {
        match address.ip() {
            IpAddr::V4(ip) => id.get_mut(at..at + 4)?.copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id.get_mut(at..at + 16)?.copy_from_slice(&ip.octets()),
        }
    }
    let mut accepted = None;
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, the socket's id.
    let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(id);
    let netlink = open().ok()?;
    send(&netlink, SOCK_DIAG_BY_FAMILY, 0, &request).ok()?;
    receive(&netlink, &mut vec![0; BUFFER], |message| {
        // Until somebody accepts it, no inode belongs to it.
        let waits = message.get(1) == Some(&ESTABLISHED) && read_u32(message, INODE) == Some(0);
        accepted = Some(!waits);
    })
    .ok()?;
    accepted
}

pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink =
        socket::socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers from within the call; the limit is for what no one has thought of.
    socket::setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(0, 200_000))?;
    Ok(netlink)
}

/// All TCP sockets in these states whose ports are those of `id`, where it names any.
pub(super) fn dump_tcp(
    netlink: &OwnedFd,
    extensions: u8,
    states: u32,
    id: &[u8; 48],
    each: impl FnMut(&[u8]),
) -> io::Result<()> {
    ask_for_tcp(netlink, extensions, states, id)?;
    receive_all(netlink, each)
}

/// The same, whose answer is still to be received.
pub(super) fn ask_for_tcp(netlink: &OwnedFd, extensions: u8, states: u32, id: &[u8; 48]) -> io::Result<()> {
    // struct inet_diag_req: family, lengths of addresses, extensions, the socket's id, states, a number that nobody reads.
    let mut request = vec![libc::AF_INET as u8, 0, 0, extensions];
    request.extend(id);
    request.extend(states.to_ne_bytes());
    request.extend([0; 4]);
    send(netlink, TCPDIAG_GETSOCK, libc::NLM_F_DUMP, &request)
}

/// All unix sockets in these states.
pub(super) fn dump_unix(
    netlink: &OwnedFd,
    show: u32,
    states: u32,
    each: impl FnMut(&[u8]),
) -> io::Result<()> {
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend([0; 4]);
    request.extend(show.to_ne_bytes());
    request.extend([0; 8]);
    send(netlink, SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request)?;
    receive_all(netlink, each)
}

/// For everything that fits the request with NLM_F_DUMP, for the one that it names without.
fn send(netlink: &OwnedFd, kind: u16, how: i32, payload: &[u8]) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | how) as u16;
    let length = u32::try_from(HEADER + payload.len()).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER + payload.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(payload);
    socket::send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(())
}

fn receive_all(netlink: &OwnedFd, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while receive(netlink, &mut buffer, &mut each)? {}
    Ok(())
}

/// As much of an answer as the kernel hands over at once. Says whether there is more: of a dump it goes on where it was
/// when it is read the next time.
pub(super) fn receive(netlink: &OwnedFd, buffer: &mut [u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
    let read = socket::recv(netlink.as_raw_fd(), buffer, MsgFlags::empty())?;
    let mut rest = buffer.get(..read).unwrap_or_default();
    while let Some((kind, message, after)) = split_message(rest) {
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => return Err(io::Error::other("sock_diag refused")),
            _ => each(message),
        }
        rest = after;
    }
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
}

/// One netlink message: its kind, its payload, what follows. netlink(7)
pub(super) fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = read_u32(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let message = bytes.get(HEADER..length)?;
    Some((kind, message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn by_procfs() -> BTreeSet<u64> {
    let tcp = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|table| {
        let text = fs::read_to_string(table).unwrap_or_default();
        // sl local remote st tx:rx tr:when retrnsmt uid timeout inode
        text.lines()
            .filter(|line| field(line, 3) == Some("0A"))
            .filter_map(|line| field(line, 9)?.parse().ok())
            .collect::<Vec<_>>()
    });
    tcp.chain(unix_by_procfs()).collect()
}

fn unix_by_procfs() -> Vec<u64> {
    /// SO_ACCEPTCON
    const LISTENING: &str = "00010000";
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // Num RefCount Protocol Flags Type St Inode Path
    text.lines()
        .filter(|line| field(line, 3) == Some(LISTENING))
        .filter_map(|line| field(line, 6)?.parse().ok())
        .collect()
}

pub(super) fn field(line: &str, index: usize) -> Option<&str> {
    line.split_ascii_whitespace().nth(index)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use nix::sys::stat::fstat;

    use super::*;

    #[test]
    fn a_listening_socket_is_in_both_lists() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = SocketAddr::from_abstract_name(format!("drainit-test-{}", std::process::id())).unwrap();
        let unix = UnixListener::bind_addr(&name).unwrap();
        for inode in [fstat(&tcp).unwrap().st_ino, fstat(&unix).unwrap().st_ino] {
            assert!(by_netlink().unwrap().contains(&inode));
            assert!(by_procfs().contains(&inode));
        }
    }

    #[test]
    fn a_connection_is_no_listening_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!listening_inodes().contains(&fstat(&client).unwrap().st_ino));
    }

    #[test]
    fn a_handshake_that_is_not_over_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!any_half_open(&[port]));
        // It is over once there are data: tcp(7).
        let seconds: i32 = 10;
        // SAFETY: the value is as long as is said.
        let deferred = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        assert_eq!(deferred, 0);
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(any_half_open(&[port]));
        assert!(!any_half_open(&[1]));
        drop(client);
    }

    #[test]
    fn it_is_known_whether_somebody_has_accepted_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            assert_eq!(is_accepted(local, remote), Some(false));
            let accepted = listener.accept().unwrap();
            assert_eq!(is_accepted(local, remote), Some(true));
            drop(accepted);
            assert_ne!(is_accepted(local, remote), Some(false));
        }
    }
}
