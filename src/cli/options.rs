//! The options of `drainit -- COMMAND`, each also as `DRAINIT_<OPTION>` in the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::parse::{self, CrashLimit, SizeLimit};
use crate::config::url::Url;
use crate::config::user::User;
use crate::config::values::{
    self, AdoptBind, Check, LateResponse, Listen, LogFormat, NodeIpc, ReadyWhen, SignalRule, Sockets,
    StopMessage, Timeout, Workers,
};
use crate::config::{Admin, Control, duration};
use crate::core::config::{Backoff, Count, LbWait, ReadinessOnDrain, Restart};
use crate::core::signal::Signal;
use crate::core::types::Scope;

/// Everything that can be said about a pool.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub pool: PoolArgs,
    #[command(flatten)]
    pub readiness: ReadinessArgs,
    #[command(flatten)]
    pub health: HealthArgs,
    #[command(flatten)]
    pub drain: DrainArgs,
    #[command(flatten)]
    pub roll: RollArgs,
    #[command(flatten)]
    pub init: InitArgs,
    #[command(flatten)]
    pub admin: AdminArgs,

    /// What the workers execute
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// The workers and their sockets.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pool")]
pub struct PoolArgs {
    /// Worker processes; auto: the processor quota, rounded up, now and when it changes
    #[arg(long, env = "DRAINIT_WORKERS", value_name = "N|auto", default_value = "1")]
    pub workers: Workers,
    #[arg(
        long,
        env = "DRAINIT_LISTEN",
        value_name = "[NAME=]ADDR",
        help = "A socket drainit owns: 8080, 0.0.0.0:8080, [::]:8080, unix:/run/app.sock, unix:@name (repeatable)",
        value_delimiter = ','
    )]
    pub listen: Vec<Listen>,
    /// How the workers share these sockets: shared (one queue), per-worker (a queue each), sticky (each client to the same worker) [default: per-worker for uvicorn, else shared]
    #[arg(long, env = "DRAINIT_SOCKETS", value_name = "MODE", value_parser = parse::sockets)]
    pub sockets: Option<Sockets>,
    /// Give servers that bind an address of --listen themselves drainit's socket in its place: auto, on or off
    #[arg(long, env = "DRAINIT_ADOPT_BIND", value_name = "WHEN", default_value = "auto", value_parser = parse::adopt_bind)]
    pub adopt_bind: AdoptBind,
    /// Give workers Node's IPC channel: auto (in a pool whose COMMAND is Node), on or off
    #[arg(long, env = "DRAINIT_NODE_IPC", value_name = "WHEN", default_value = "auto", value_parser = parse::node_ipc)]
    pub node_ipc: NodeIpc,
    #[arg(long, env = "DRAINIT_RESTART", value_name = "POLICY", value_parser = parse::restart, help = "When a worker exits by itself, start another: always, on-failure, never [default: never for one worker without --listen, else always]")]
    pub restart: Option<Restart>,
    /// Bounds of the random delay before a worker that keeps dying is started again
    #[arg(long, env = "DRAINIT_BACKOFF", value_name = "MIN..MAX", default_value = "100ms..30s", value_parser = values::parse_backoff)]
    pub backoff: Backoff,
    /// A worker that was ready for so long is replaced without delay
    #[arg(long, env = "DRAINIT_MIN_UPTIME", value_name = "DUR", default_value = "10s", value_parser = duration::parse)]
    pub min_uptime: Duration,
    /// More crashes than this with no worker ready end drainit with exit code 75; or off
    #[arg(long, env = "DRAINIT_MAX_CRASHES", value_name = "N/WINDOW", default_value = "5/60s", value_parser = parse::max_crashes)]
    pub max_crashes: CrashLimit,
    /// A worker that uses more memory than this (512Mi, 1Gi, …), its whole process group counted, is replaced, its replacement first, one at a time; or off
    #[arg(long, env = "DRAINIT_MAX_RSS", value_name = "SIZE", default_value = "off", value_parser = parse::max_rss)]
    pub max_rss: SizeLimit,
    /// A worker that has been ready for so long is replaced, its replacement first, one at a time; or off
    #[arg(long, env = "DRAINIT_MAX_LIFETIME", value_name = "DUR", default_value = "off")]
    pub max_lifetime: Timeout,
    /// Run the workers as this user: names or numbers [default: as drainit]
    #[arg(long, env = "DRAINIT_USER", value_name = "USER[:GROUP]")]
    pub user: Option<User>,
}

/// When a worker, and when the pod, is ready.
#[derive(Debug, Args)]
#[command(next_help_heading = "Readiness")]
pub struct ReadinessArgs {
    /// When one worker counts as ready: listening, notify, started, tcp[=:PORT], http=[:PORT]/PATH, exec=CMD
    #[arg(long, env = "DRAINIT_READY_WHEN", value_name = "WHEN", default_value = "listening")]
    pub ready_when: ReadyWhen,
    #[arg(
        long,
        env = "DRAINIT_READY_TIMEOUT",
        value_name = "DUR",
        help = "Then a worker that is not ready is failed; or off [default: 30s with --listen, else off]"
    )]
    pub ready_timeout: Option<Timeout>,
    /// In a roll a new worker must stay ready so long before the old one is told to go
    #[arg(long, env = "DRAINIT_MIN_READY_TIME", value_name = "DUR", default_value = "0s", value_parser = duration::parse)]
    pub min_ready_time: Duration,
    /// A worker that serves and sends no WATCHDOG=1 for so long is hung, and replaced; or off
    #[arg(long, env = "DRAINIT_WATCHDOG", value_name = "DUR", default_value = "off")]
    pub watchdog: Timeout,
    /// Ready workers below which the pod is not ready
    #[arg(long, env = "DRAINIT_MIN_READY", value_name = "N|N%", default_value = "1", value_parser = values::parse_count)]
    pub min_ready: Count,
    /// Start no worker before this answers 2xx: a sidecar's readiness, such as http://127.0.0.1:15021/healthz/ready (repeatable)
    #[arg(long, env = "DRAINIT_WAIT_FOR", value_name = "URL", value_delimiter = ',')]
    pub wait_for: Vec<Url>,
    /// Then drainit gives up, with exit code 69
    #[arg(long, env = "DRAINIT_WAIT_FOR_TIMEOUT", value_name = "DUR", default_value = "60s", value_parser = duration::parse)]
    pub wait_for_timeout: Duration,
}

/// Whether a worker that is ready still serves.
#[derive(Debug, Args)]
#[command(next_help_heading = "Health")]
pub struct HealthArgs {
    /// Ask each worker while it serves: http=/PATH, tcp, exec=CMD; one that fails is replaced, its replacement first
    #[arg(long, env = "DRAINIT_CHECK", value_name = "CHECK")]
    pub check: Option<Check>,
    /// How often it is asked
    #[arg(long, env = "DRAINIT_CHECK_EVERY", value_name = "DUR", default_value = "5s", value_parser = duration::parse)]
    pub check_every: Duration,
    /// A check that takes longer has failed
    #[arg(long, env = "DRAINIT_CHECK_TIMEOUT", value_name = "DUR", default_value = "1s", value_parser = duration::parse)]
    pub check_timeout: Duration,
    /// So many failures in a row, and the worker is hung
    #[arg(long, env = "DRAINIT_CHECK_FAILURES", value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
    pub check_failures: u32,
}

/// How it ends.
#[derive(Debug, Args)]
#[command(next_help_heading = "Drain")]
pub struct DrainArgs {
    #[arg(long, env = "DRAINIT_GRACE", value_name = "DUR", value_parser = duration::parse, help = "The orchestrator's whole patience, terminationGracePeriodSeconds [default: 30s in a pod, 10s elsewhere]")]
    pub grace: Option<Duration>,
    /// Kept back from it, so that drainit exits before it is killed
    #[arg(long, env = "DRAINIT_MARGIN", value_name = "DUR", default_value = "1s", value_parser = duration::parse)]
    pub margin: Duration,
    #[arg(long, env = "DRAINIT_LB_WAIT", value_name = "MIN..MAX", value_parser = values::parse_lb_wait, help = "How long to go on serving, unready, while load balancers let go [default: 3s..15s in a pod, 0 elsewhere]")]
    pub lb_wait: Option<LbWait>,
    /// Between MIN and MAX that wait ends once no new connection has come for so long …
    #[arg(long, env = "DRAINIT_LB_QUIET", value_name = "DUR", default_value = "2s", value_parser = duration::parse)]
    pub lb_quiet: Duration,
    /// … and each load balancer that was checking /readyz has seen it fail so often (the kubelet is none)
    #[arg(long, env = "DRAINIT_LB_CHECKS", value_name = "N", default_value = "2")]
    pub lb_checks: u32,
    /// Whether /readyz fails during that wait: fail or keep
    #[arg(long, env = "DRAINIT_READINESS_ON_DRAIN", value_name = "POLICY", default_value = "fail", value_parser = parse::readiness)]
    pub readiness_on_drain: ReadinessOnDrain,
    /// What asks a worker to finish
    #[arg(long, env = "DRAINIT_STOP_SIGNAL", value_name = "SIG", default_value = "TERM")]
    pub stop_signal: Signal,
    #[arg(
        long,
        env = "DRAINIT_STOP_MESSAGE",
        value_name = "JSON|disconnect",
        help = "Asks a Node worker to finish, on its IPC channel, before the signal does: JSON such as '\"shutdown\"', or disconnect, which closes the channel"
    )]
    pub stop_message: Option<StopMessage>,
    #[arg(long, env = "DRAINIT_STOP_MESSAGE_WAIT", value_name = "DUR", value_parser = duration::parse, help = "Then the signal follows, if the worker is still there [default: as long as it may take, less a second for the signal]")]
    pub stop_message_wait: Option<Duration>,
    #[arg(long, env = "DRAINIT_DRAIN_TIMEOUT", value_name = "DUR", value_parser = duration::parse, help = "Cap on the workers' own finishing [default: what is left of the grace period]")]
    pub drain_timeout: Option<Duration>,
    /// A worker that was told to finish, none of whose connections has had a request in flight for so long, is ended; or off
    #[arg(long, env = "DRAINIT_END_IDLE_AFTER", value_name = "DUR", default_value = "off")]
    pub end_idle_after: Timeout,
    /// POST to this once the last worker is gone: what ends a sidecar, such as http://127.0.0.1:15020/quitquitquit (repeatable)
    #[arg(long, env = "DRAINIT_ON_EXIT_POST", value_name = "URL", value_delimiter = ',')]
    pub on_exit_post: Vec<Url>,
    /// What connections get that no worker accepts any more: 503 (HTTP/2: GOAWAY; TLS and others: a clean end), reset or off
    #[arg(long, env = "DRAINIT_LATE_RESPONSE", value_name = "WHAT", default_value = "503", value_parser = parse::late_response)]
    pub late_response: LateResponse,
    /// The body of that 503
    #[arg(
        long,
        env = "DRAINIT_LATE_BODY",
        value_name = "TEXT",
        default_value = r#"{"error":"restarting, please retry"}"#
    )]
    pub late_body: String,
    /// Its Retry-After, in whole seconds; or off
    #[arg(long, env = "DRAINIT_LATE_RETRY_AFTER", value_name = "DUR", default_value = "1s")]
    pub late_retry_after: Timeout,
    /// Go on answering for so long, before whoever still comes is refused
    #[arg(long, env = "DRAINIT_LATE_LINGER", value_name = "DUR", default_value = "0s", value_parser = duration::parse)]
    pub late_linger: Duration,
    /// How long the request of such a connection may take to come, and what follows it
    #[arg(long, env = "DRAINIT_LATE_TIMEOUT", value_name = "DUR", default_value = "5s", value_parser = duration::parse)]
    pub late_timeout: Duration,
}

/// How one generation of workers follows another.
#[derive(Debug, Args)]
#[command(next_help_heading = "Roll")]
pub struct RollArgs {
    /// Workers beyond --workers while a roll runs; 100% is blue/green
    #[arg(long, env = "DRAINIT_MAX_SURGE", value_name = "N|N%", default_value = "1", value_parser = values::parse_count)]
    pub max_surge: Count,
    /// Workers of --workers that may be missing while a roll runs; 100% is recreate
    #[arg(long, env = "DRAINIT_MAX_UNAVAILABLE", value_name = "N|N%", default_value = "0", value_parser = values::parse_count)]
    pub max_unavailable: Count,
    /// Replace so many workers first, then hold (--canary-hold) and go back if one of them fails
    #[arg(long, env = "DRAINIT_CANARY", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub canary: Option<u32>,
    /// How long the canaries are watched
    #[arg(long, env = "DRAINIT_CANARY_HOLD", value_name = "DUR", value_parser = duration::parse)]
    pub canary_hold: Option<Duration>,
    /// Pause between one batch and the next
    #[arg(long, env = "DRAINIT_ROLL_PAUSE", value_name = "DUR", default_value = "0s", value_parser = duration::parse)]
    pub roll_pause: Duration,
    /// Begin the next batch once the replaced workers are gone
    #[arg(long, env = "DRAINIT_ROLL_WAITS_FOR_DRAIN")]
    pub roll_waits_for_drain: bool,
    /// Roll when this file or directory changes, by way of links too; what does not exist yet is waited for (repeatable)
    #[arg(long, env = "DRAINIT_WATCH", value_name = "PATH", value_delimiter = ',')]
    pub watch: Vec<PathBuf>,
    /// So many failed rolls within --breaker-window open the breaker: rolls are refused
    #[arg(long, env = "DRAINIT_BREAKER_FAILURES", value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub breaker_failures: u32,
    #[arg(long, env = "DRAINIT_BREAKER_WINDOW", value_name = "DUR", default_value = "10m", value_parser = duration::parse, help = "How long a failed roll counts")]
    pub breaker_window: Duration,
    /// How long the breaker stays open before it lets one roll try
    #[arg(long, env = "DRAINIT_BREAKER_RESET", value_name = "DUR", default_value = "60s", value_parser = duration::parse)]
    pub breaker_reset: Duration,
}

/// What every init does.
#[derive(Debug, Args)]
#[command(next_help_heading = "Init")]
pub struct InitArgs {
    /// What a signal does: forward, ignore, drain, restart, scale-up, scale-down or another signal's name (repeatable)
    #[arg(long, env = "DRAINIT_SIGNAL", value_name = "SIG=ACTION", value_delimiter = ',')]
    pub signal: Vec<SignalRule>,
    /// Who gets forwarded and stop signals: leader or group
    #[arg(long, env = "DRAINIT_SIGNAL_SCOPE", value_name = "SCOPE", default_value = "leader", value_parser = parse::scope)]
    pub signal_scope: Scope,
    /// Show an exit code as another, such as 143=0 (repeatable)
    #[arg(long, env = "DRAINIT_REMAP_EXIT", value_name = "FROM=TO", value_delimiter = ',', value_parser = values::parse_remap)]
    pub remap_exit: Vec<(u8, u8)>,
    /// Get this signal when the parent of drainit dies
    #[arg(long, env = "DRAINIT_PARENT_DEATH", value_name = "SIG")]
    pub parent_death: Option<Signal>,
    /// What outlives the last worker gets TERM, and after this KILL; 0: KILL at once
    #[arg(long, env = "DRAINIT_ORPHAN_GRACE", value_name = "DUR", default_value = "1s", value_parser = duration::parse)]
    pub orphan_grace: Duration,
}

/// What others see of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Admin")]
pub struct AdminArgs {
    #[arg(long, env = "DRAINIT_ADMIN", value_name = "ADDR", value_parser = parse::admin, help = "Probes, metrics and status, read-only; or off [default: [::]:9180]")]
    pub admin: Option<Admin>,
    #[arg(long, env = "DRAINIT_CONTROL", value_name = "PATH|@NAME", value_parser = parse::control, help = "The socket of the subcommands: a path, an abstract @NAME, or off [default: a name of this container's]")]
    pub control: Option<Control>,
    /// Serve the preStop hook on the admin port too, for httpGet: GET or POST /prestop, by anybody who can reach it
    #[arg(long, env = "DRAINIT_PRESTOP_HTTP")]
    pub prestop_http: bool,
    #[arg(
        long,
        env = "DRAINIT_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        help = "drainit's own log, on stderr: text or json [default: text on a terminal, else json]"
    )]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace or off
    #[arg(
        long,
        env = "DRAINIT_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = parse::log_level,
    )]
    pub log_level: LevelFilter,
}
