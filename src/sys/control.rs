//! The control socket: where it is, and who may use it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use nix::sys::socket::{getsockopt, sockopt};

use super::process;
use crate::core::types::Pid;

/// A path, or a name in the abstract namespace (unix(7)), which needs no writable file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Path(PathBuf),
    Abstract(String),
}

/// What every abstract name of ours begins with.
pub const PREFIX: &str = "drainit/";

impl Endpoint {
    /// `@name` or a path.
    pub fn parse(text: &str) -> Self {
        text.strip_prefix('@').map_or_else(|| Self::Path(text.into()), |name| Self::Abstract(name.to_owned()))
    }

    /// The name for the drainit of this container. Abstract names belong to the network namespace, which the
    /// containers of a pod share; the mount namespace tells them apart, and a process started by `exec` in the
    /// container shares it. Elsewhere several may run side by side: by pid.
    pub fn of_this_container(pid: Pid) -> Self {
        let name = process::namespace("mnt")
            .filter(|_| pid == Pid(1))
            .map_or_else(|| format!("{PREFIX}pid-{pid}"), |inode| format!("{PREFIX}mnt-{inode}"));
        Self::Abstract(name)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Path(path) => SocketAddr::from_pathname(path),
            Self::Abstract(name) => SocketAddr::from_abstract_name(name),
        }
    }

    /// Listen there. A path left over by somebody who is gone is replaced; it is for its owner alone.
    pub fn bind(&self) -> io::Result<UnixListener> {
        let listener = match self {
            Self::Abstract(_) => UnixListener::bind_addr(&self.address()?)?,
            Self::Path(path) => {
                super::listen::remove_stale_socket(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                listener
            }
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
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
