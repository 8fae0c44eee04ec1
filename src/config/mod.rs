//! From what was typed to what is meant: parsed once, proved consistent, immutable afterwards.

pub mod address;
pub mod duration;
pub mod endpoint;
pub mod restart;
pub mod size;
pub mod url;
pub mod user;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::core;
use crate::core::signal::Signal;
use endpoint::Endpoint;

/// Everything `drainit -- COMMAND` has to know.
#[derive(Debug)]
pub struct Config {
    pub core: core::config::Config,
    pub command: Vec<OsString>,
    pub listen: Vec<values::Listen>,
    pub adopt_bind: values::AdoptBind,
    pub sockets: values::Sockets,
    /// Bytes that a worker's process group may use before it is replaced.
    pub max_rss: Option<u64>,
    /// Whom the workers run as; as drainit, where there is nobody.
    pub user: Option<user::User>,
    pub ready_when: values::ReadyWhen,
    /// Of each worker while it serves.
    pub health: Option<Health>,
    /// Resolved: `Auto` is a channel where it can be had, `Off` none.
    pub node_ipc: values::NodeIpc,
    /// COMMAND is Node, or has it run: /proc does not tell its own handlers from the server's.
    pub catches_unseen: bool,
    pub stop_message: Option<values::StopMessage>,
    /// A worker that was told to finish is ended when its connections have been without a request for so long.
    pub end_idle_after: Option<Duration>,
    pub sidecars: Sidecars,
    /// What connections get that no worker accepts any more, if they get something.
    pub late: Option<LateAnswer>,
    pub admin: Admin,
    /// The preStop handshake is served on the admin port too.
    pub prestop_http: bool,
    pub control: Control,
    /// The pool rolls when one of them changes; may be relative, as it was typed.
    pub watch: Vec<PathBuf>,
    pub parent_death: Option<Signal>,
    pub log: Log,
    /// `--workers auto`: the pool follows the processor quota.
    pub scale_with_quota: bool,
    /// Kubernetes started this.
    pub in_pod: bool,
    /// Consistent, but surprising: told once the log is up.
    pub warnings: Vec<String>,
}

/// How a worker that is ready is asked whether it still serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub check: values::Check,
    /// From the end of one check to the next.
    pub every: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// So many in a row, and the worker is hung.
    pub failures: u32,
}

/// The other containers of the pod that begin before this one, and end after it.
#[derive(Debug, Default)]
pub struct Sidecars {
    /// Who has to answer before the first worker is started.
    pub wait_for: Vec<url::Url>,
    /// And within what time, all of them.
    pub wait_for_timeout: Duration,
    /// Who is told when the last worker is gone.
    pub on_exit_post: Vec<url::Url>,
    /// And how long their answers are waited for.
    pub on_exit_timeout: Duration,
}

/// What a late connection gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateAnswer {
    pub response: values::LateResponse,
    /// Of the 503.
    pub body: String,
    pub retry_after: Option<Duration>,
    /// How long its request may take to come, and how long it is listened to once it is answered.
    pub timeout: Duration,
}

/// Where probes, metrics and status are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    Off,
    /// The default port: an init goes on without it where it is taken.
    Default,
    At(address::Address),
}

/// The port of the default admin address.
pub const ADMIN_PORT: u16 = 9180;

/// Where the subcommands find this drainit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Off,
    OfThisContainer,
    At(Endpoint),
}

/// drainit's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: values::LogFormat,
    pub level: tracing::level_filters::LevelFilter,
}
