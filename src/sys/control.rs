//! The control socket: its name, and who may use it.

use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::sys::socket::{getsockopt, sockopt};

use super::process;
use super::socket_file::{SocketFile, remove_stale_socket};
use crate::config::endpoint::{Endpoint, PREFIX};
use crate::core::types::Pid;

/// The name for the drainit of this container. Abstract names belong to the network namespace, which the
/// containers of a pod share; the mount namespace tells them apart, and a process started by `exec` in the
/// container shares it.
pub fn of_this_container() -> Endpoint {
    let name = process::namespace("mnt")
        .map_or_else(|| format!("{PREFIX}pid-1"), |inode| format!("{PREFIX}mnt-{inode}"));
    Endpoint::Abstract(name)
}

/// The name where several may run side by side.
pub fn of_process(pid: Pid) -> Endpoint {
    Endpoint::Abstract(format!("{PREFIX}pid-{pid}"))
}

/// Listen there. A path left over by somebody who is gone is replaced; it is for its owner alone.
///
/// # Errors
/// EADDRINUSE where somebody listens there.
pub fn bind(endpoint: &Endpoint) -> io::Result<(UnixListener, Option<SocketFile>)> {
    let (listener, file) = match endpoint {
        Endpoint::Abstract(name) => (UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?, None),
        Endpoint::Path(path) => {
            remove_stale_socket(path)?;
            let listener = UnixListener::bind(path)?;
            let file = SocketFile::of(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            (listener, Some(file))
        }
    };
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

/// Own uid or root, own PID namespace: an abstract name can be reached by whoever shares the network.
pub fn may_control(peer: &impl AsFd) -> bool {
    let Ok(credentials) = getsockopt(peer, sockopt::PeerCredentials) else { return false };
    let pid = Pid(credentials.pid());
    let by_user = credentials.uid() == 0 || credentials.uid() == process::uid();
    // SO_PEERCRED translates the pid into our namespace; 0 means that it is not in it.
    let in_namespace = pid.0 > 0
        && match (process::namespace_of(pid, "pid"), process::namespace("pid")) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
    by_user && in_namespace
}
