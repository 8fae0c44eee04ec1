//! What a worker says of itself, sd_notify(3): one message of it, without the protocol.

use std::time::Duration;

use super::types::Pid;

/// One message. What it leaves out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    pub lifecycle: Option<Lifecycle>,
    /// One line for people; an empty one takes back the last.
    pub status: Option<String>,
    /// Somebody of its own process tree, who is the one that matters.
    pub main_pid: Option<Pid>,
    /// It needs so long from now on, whatever it is doing.
    pub extend: Option<Duration>,
    pub ping: Option<Ping>,
    /// How often there will be a ping from now on.
    pub watchdog: Option<Duration>,
}

/// Where it stands, as it sees it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Started, or done with reloading.
    Ready,
    /// It reads its configuration again, and will say when it is ready.
    Reloading,
    /// It is ending by itself. There is no way back.
    Stopping,
}

/// What it lets its watchdog know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// It is alive.
    Alive,
    /// It has found out itself that it does not serve any more.
    Trigger,
}

impl Word {
    /// It says that it is alive, and nothing else: two such say no more than one.
    pub fn is_mere_ping(&self) -> bool {
        *self == Self { ping: Some(Ping::Alive), ..Self::default() }
    }
}
