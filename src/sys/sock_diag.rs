//! Sockets as the kernel lists them: sock_diag(7) over netlink, /proc/net where that is refused.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::TimeVal;

/// The state LISTEN, as a bit of the request's mask; the same number for TCP and unix sockets.
const LISTEN: u32 = 1 << 10;

const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The inodes of all listening stream sockets in this network namespace.
pub fn listening_inodes() -> BTreeSet<u64> {
    by_netlink().unwrap_or_else(|_| by_procfs())
}

fn by_netlink() -> io::Result<BTreeSet<u64>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink =
        socket::socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    // The kernel answers from within the call; the limit is for what no one has thought of.
    socket::setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(0, 200_000))?;
    let mut inodes = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // struct inet_diag_msg: the inode is its last field.
        dump(&netlink, &inet_request(family), 68, &mut inodes)?;
    }
    // struct unix_diag_msg: family, type, state, padding, inode. The kernel may have been built without it.
    if dump(&netlink, &unix_request(), 4, &mut inodes).is_err() {
        inodes.extend(unix_by_procfs());
    }
    Ok(inodes)
}

/// struct inet_diag_req_v2: family, protocol, extensions, padding, states, and an empty socket id.
fn inet_request(family: i32) -> Vec<u8> {
    let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend(LISTEN.to_ne_bytes());
    request.extend([0; 48]);
    request
}

/// struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
fn unix_request() -> Vec<u8> {
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    request.extend(LISTEN.to_ne_bytes());
    request.extend([0; 16]);
    request
}

fn dump(netlink: &OwnedFd, payload: &[u8], inode_at: usize, inodes: &mut BTreeSet<u64>) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let length = u32::try_from(HEADER + payload.len()).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER + payload.len());
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(payload);
    socket::send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = socket::recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..read).unwrap_or_default();
        while let Some((kind, message, after)) = split_message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => return Err(io::Error::other("sock_diag refused")),
                _ => inodes.extend(read_u32(message, inode_at).map(u64::from)),
            }
            rest = after;
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// One netlink message: its kind, its payload, what follows. netlink(7)
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = read_u32(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let message = bytes.get(HEADER..length)?;
    Some((kind, message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
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

fn field(line: &str, index: usize) -> Option<&str> {
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
}
