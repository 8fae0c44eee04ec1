//! The command line: exactly what was typed, no effects.

mod help;
mod resolve;

pub use resolve::{Surroundings, resolve};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::config::endpoint::Endpoint;
use crate::config::values::{self, Listen, LogFormat, ReadyWhen, SignalRule, Timeout};
use crate::config::{Admin, Control, duration};
use crate::core::config::{Backoff, Count, LbWait, MaxCrashes, ReadinessOnDrain, Restart};
use crate::core::signal::Signal;
use crate::core::types::Scope;

/// PID 1 for containers: init, worker pool on shared sockets, drain and probes.
#[derive(Debug, Parser)]
#[command(name = "drainit", version, about, after_help = help::AFTER, args_conflicts_with_subcommands = true)]
#[command(override_usage = "drainit [OPTIONS] -- COMMAND [ARG]...\n       drainit <SUBCOMMAND>")]
pub struct Cli {
    #[command(subcommand)]
    pub subcommand: Option<Ask>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What is asked of a drainit that runs already.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// For a preStop exec hook: leave the load balancers, return when that wait is over
    Prestop {
        /// Give up waiting after this long (the drain goes on)
        #[arg(long, value_name = "DUR", default_value = "10m", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// For an exec probe: exit code 0 yes, 1 no, 2 cannot be asked
    Probe {
        #[arg(value_enum)]
        which: Probe,
        /// Give up asking after this long
        #[arg(long, value_name = "DUR", default_value = "5s", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Show phase, workers and counters
    Status {
        /// As JSON, the same as on /status
        #[arg(long)]
        json: bool,
    },
    /// Make the pool this large
    Scale {
        #[arg(value_name = "N", value_parser = values::parse_workers)]
        workers: u32,
    },
    /// Copy this binary to PATH, for an initContainer
    Install { path: PathBuf },
}

/// A probe of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    Live,
    Ready,
    Startup,
}

/// The options of `drainit -- COMMAND`; each also as `DRAINIT_<OPTION>` in the environment.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Worker processes
    #[arg(long, env = "DRAINIT_WORKERS", allow_hyphen_values = true, value_name = "N", default_value = "1", value_parser = values::parse_workers, help_heading = "Pool")]
    pub workers: u32,
    #[arg(
        long,
        env = "DRAINIT_LISTEN",
        value_name = "[NAME=]ADDR",
        help = "A socket drainit owns: 8080, 0.0.0.0:8080, [::]:8080, unix:/run/app.sock (repeatable)",
        value_delimiter = ',',
        help_heading = "Pool"
    )]
    pub listen: Vec<Listen>,
    /// When a worker exits by itself: always, on-failure or never
    #[arg(long, env = "DRAINIT_RESTART", value_name = "POLICY", value_parser = parse_restart, help_heading = "Pool", help = "When a worker exits by itself, start another: always, on-failure, never [default: never for one worker without --listen, else always]")]
    pub restart: Option<Restart>,
    /// Bounds of the random delay before a worker that keeps dying is started again
    #[arg(long, env = "DRAINIT_BACKOFF", allow_hyphen_values = true, value_name = "MIN..MAX", default_value = "100ms..30s", value_parser = values::parse_backoff, help_heading = "Pool")]
    pub backoff: Backoff,
    /// A worker that was ready for so long is replaced without delay
    #[arg(long, env = "DRAINIT_MIN_UPTIME", allow_hyphen_values = true, value_name = "DUR", default_value = "10s", value_parser = duration::parse, help_heading = "Pool")]
    pub min_uptime: Duration,
    /// More crashes than this with no worker ready end drainit with exit code 75; or off
    #[arg(long, env = "DRAINIT_MAX_CRASHES", allow_hyphen_values = true, value_name = "N/WINDOW", default_value = "5/60s", value_parser = parse_max_crashes, help_heading = "Pool")]
    pub max_crashes: CrashLimit,

    /// When one worker counts as ready: listening, notify, started, tcp=:PORT, http=:PORT/PATH, exec=CMD
    #[arg(
        long,
        env = "DRAINIT_READY_WHEN",
        value_name = "WHEN",
        default_value = "listening",
        help_heading = "Readiness"
    )]
    pub ready_when: ReadyWhen,
    /// Then a worker that is not ready is failed; or off
    #[arg(
        long,
        env = "DRAINIT_READY_TIMEOUT",
        allow_hyphen_values = true,
        value_name = "DUR",
        help_heading = "Readiness",
        help = "Then a worker that is not ready is failed; or off [default: 30s with --listen, else off]"
    )]
    pub ready_timeout: Option<Timeout>,
    /// Ready workers below which the pod is not ready
    #[arg(long, env = "DRAINIT_MIN_READY", allow_hyphen_values = true, value_name = "N|N%", default_value = "1", value_parser = values::parse_count, help_heading = "Readiness")]
    pub min_ready: Count,

    /// The orchestrator's whole patience, terminationGracePeriodSeconds
    #[arg(long, env = "DRAINIT_GRACE", allow_hyphen_values = true, value_name = "DUR", value_parser = duration::parse, help_heading = "Drain", help = "The orchestrator's whole patience, terminationGracePeriodSeconds [default: 30s in a pod, 10s elsewhere]")]
    pub grace: Option<Duration>,
    /// Kept back from it, so that drainit exits before it is killed
    #[arg(long, env = "DRAINIT_MARGIN", allow_hyphen_values = true, value_name = "DUR", default_value = "1s", value_parser = duration::parse, help_heading = "Drain")]
    pub margin: Duration,
    /// How long to go on serving, unready, while load balancers let go
    #[arg(long, env = "DRAINIT_LB_WAIT", allow_hyphen_values = true, value_name = "MIN..MAX", value_parser = values::parse_lb_wait, help_heading = "Drain", help = "How long to go on serving, unready, while load balancers let go [default: 3s..15s in a pod, 0 elsewhere]")]
    pub lb_wait: Option<LbWait>,
    /// Whether /readyz fails during that wait: fail or keep
    #[arg(long, env = "DRAINIT_READINESS_ON_DRAIN", value_name = "POLICY", default_value = "fail", value_parser = parse_readiness, help_heading = "Drain")]
    pub readiness_on_drain: ReadinessOnDrain,
    /// What asks a worker to finish
    #[arg(
        long,
        env = "DRAINIT_STOP_SIGNAL",
        value_name = "SIG",
        default_value = "TERM",
        help_heading = "Drain"
    )]
    pub stop_signal: Signal,
    /// Cap on the workers' own finishing
    #[arg(long, env = "DRAINIT_DRAIN_TIMEOUT", allow_hyphen_values = true, value_name = "DUR", value_parser = duration::parse, help_heading = "Drain", help = "Cap on the workers' own finishing [default: what is left of the grace period]")]
    pub drain_timeout: Option<Duration>,

    /// What a signal does: forward, ignore, drain, scale-up, scale-down or another signal's name (repeatable)
    #[arg(
        long,
        env = "DRAINIT_SIGNAL",
        value_name = "SIG=ACTION",
        value_delimiter = ',',
        help_heading = "Init"
    )]
    pub signal: Vec<SignalRule>,
    /// Who gets forwarded and stop signals: leader or group
    #[arg(long, env = "DRAINIT_SIGNAL_SCOPE", value_name = "SCOPE", default_value = "leader", value_parser = parse_scope, help_heading = "Init")]
    pub signal_scope: Scope,
    /// Show an exit code as another, such as 143=0 (repeatable)
    #[arg(long, env = "DRAINIT_REMAP_EXIT", allow_hyphen_values = true, value_name = "FROM=TO", value_delimiter = ',', value_parser = values::parse_remap, help_heading = "Init")]
    pub remap_exit: Vec<(u8, u8)>,
    /// Get this signal when the parent of drainit dies
    #[arg(long, env = "DRAINIT_PARENT_DEATH", value_name = "SIG", help_heading = "Init")]
    pub parent_death: Option<Signal>,
    /// What outlives the last worker gets TERM, and after this KILL
    #[arg(long, env = "DRAINIT_ORPHAN_GRACE", allow_hyphen_values = true, value_name = "DUR", default_value = "1s", value_parser = duration::parse, help_heading = "Init")]
    pub orphan_grace: Duration,

    /// Probes, metrics and status, read-only; or off
    #[arg(long, env = "DRAINIT_ADMIN", value_name = "ADDR", value_parser = parse_admin, help_heading = "Admin", help = "Probes, metrics and status, read-only; or off [default: [::]:9180]")]
    pub admin: Option<Admin>,
    /// The socket of the subcommands: a path, an abstract @NAME, or off
    #[arg(long, env = "DRAINIT_CONTROL", value_name = "PATH|@NAME", value_parser = parse_control, help_heading = "Admin", help = "The socket of the subcommands: a path, an abstract @NAME, or off [default: a name of this container's]")]
    pub control: Option<Control>,
    /// text or json
    #[arg(
        long,
        env = "DRAINIT_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        help_heading = "Admin",
        help = "drainit's own log, on stderr: text or json [default: text on a terminal, else json]"
    )]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace or off
    #[arg(
        long,
        env = "DRAINIT_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Admin"
    )]
    pub log_level: LevelFilter,

    /// What the workers execute
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// `--max-crashes` as clap wants it: an `Option` of its own would mean "not given".
#[derive(Clone, Copy, Debug)]
pub struct CrashLimit(pub Option<MaxCrashes>);

fn parse_max_crashes(text: &str) -> Result<CrashLimit, String> {
    values::parse_max_crashes(text).map(CrashLimit)
}

fn parse_restart(text: &str) -> Result<Restart, String> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        _ => Err("takes always, on-failure or never".to_owned()),
    }
}

fn parse_readiness(text: &str) -> Result<ReadinessOnDrain, String> {
    match text {
        "fail" => Ok(ReadinessOnDrain::Fail),
        "keep" => Ok(ReadinessOnDrain::Keep),
        _ => Err("takes fail or keep".to_owned()),
    }
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    match text {
        "leader" => Ok(Scope::Leader),
        "group" => Ok(Scope::Group),
        _ => Err("takes leader or group".to_owned()),
    }
}

fn parse_admin(text: &str) -> Result<Admin, String> {
    if text == "off" { Ok(Admin::Off) } else { text.parse().map(Admin::At) }
}

fn parse_control(text: &str) -> Result<Control, String> {
    match text {
        "off" => Ok(Control::Off),
        "" | "@" => Err("takes a path, @NAME or off".to_owned()),
        _ => Ok(Control::At(Endpoint::parse(text))),
    }
}

/// What the parser has to say to a person.
pub enum Stop {
    /// `--help` and `--version`.
    Text(String),
    /// One line.
    Usage(String),
}

/// Parse the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    Cli::try_parse_from(args).map_err(|error| {
        use clap::error::ErrorKind;
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Text(error.to_string()),
            _ => Stop::Usage(one_line(&error.to_string())),
        }
    })
}

/// clap explains in paragraphs; the first one says what is wrong.
fn one_line(error: &str) -> String {
    let first = error.split("\n\n").next().unwrap_or_default();
    let joined = first.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} (see drainit --help)", joined.strip_prefix("error: ").unwrap_or(&joined))
}
