//! What the tasks around the loop want of it.

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::engine::Heard;
use crate::core::event::Hang;
use crate::core::types::WorkerId;
use crate::sys::seccomp::Notifier;

pub(super) enum Message {
    /// All of `--wait-for` have answered.
    Begin,
    /// One of them has not.
    Unavailable(String),
    Ready(WorkerId),
    Hung(WorkerId, Hang),
    /// The worker has closed its IPC channel with something unread.
    Unread(WorkerId),
    /// These of `--watch` have changed, in one burst.
    Changed(Vec<PathBuf>),
    /// The worker has said something of itself.
    Words {
        worker: WorkerId,
        reply: oneshot::Sender<Heard>,
    },
    /// Calls of the worker wait to be answered.
    Calls {
        worker: WorkerId,
        notifier: Arc<AsyncFd<Notifier>>,
    },
    /// Begin a connection to the worker and no other.
    Connect {
        worker: WorkerId,
        reply: oneshot::Sender<io::Result<TcpStream>>,
    },
    /// A check has connected to a worker, from this port.
    Connected {
        from: u16,
    },
    /// Run a command that checks the worker.
    Check {
        worker: WorkerId,
        command: Vec<String>,
        timeout: Duration,
        reply: oneshot::Sender<bool>,
    },
}
