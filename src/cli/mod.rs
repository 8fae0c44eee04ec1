//! The command line: exactly what was typed, no effects.

mod help;
mod options;
mod parse;
mod resolve;

pub use options::RunArgs;
pub use resolve::{Surroundings, resolve};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{duration, values};

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
    /// Show phase, workers, rolls and the timeline of the last one
    Status {
        /// As JSON, the same as on /status
        #[arg(long)]
        json: bool,
        /// Again and again
        #[arg(long, conflicts_with = "json")]
        watch: bool,
    },
    /// Make the pool this large
    Scale {
        #[arg(value_name = "N", value_parser = values::parse_workers)]
        workers: u32,
    },
    /// Replace every worker, one after the other, losing nothing; go back if the new ones fail
    Restart(RestartArgs),
    /// Give up the roll that runs, and return when the old generation is back at full strength
    Abort {
        /// Give up waiting after this long (the way back goes on)
        #[arg(long, value_name = "DUR", default_value = "10m", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Copy this binary to PATH, for an initContainer
    Install { path: PathBuf },
}

/// What the next generation is to be; what is not said stays as it is.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Return at the end of the roll: exit code 0 rolled, 1 rolled back, 2 refused or superseded, 124 not over in time
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this long (the roll goes on)
    #[arg(long, value_name = "DUR", default_value = "10m", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Its version, which workers see as DRAINIT_VERSION and APP_VERSION
    #[arg(long = "version", value_name = "V")]
    pub release_version: Option<String>,
    /// Give the workers this variable (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::variable)]
    pub env: Vec<(String, String)>,
    /// Take this variable from the workers (repeatable)
    #[arg(long, value_name = "NAME")]
    pub unset_env: Vec<String>,
    /// What the workers execute from now on
    #[arg(value_name = "NEW COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// A probe of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    Live,
    Ready,
    Startup,
}

/// What the parser has to say to a person.
pub enum Stop {
    /// `--help` and `--version`.
    Text(String),
    /// One line.
    Usage(String),
}

/// Names in the environment that look like options of ours and are none: a slip of the pen is not passed over.
pub fn unknown_variables() -> Vec<String> {
    /// What workers are given, and the version, which may come from outside.
    const OTHERS: [&str; 4] = ["DRAINIT_SLOT", "DRAINIT_GENERATION", "DRAINIT_VERSION", "DRAINIT_WORKER_PID"];
    let command = Cli::command();
    let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
    let names = std::env::vars_os().map(|(name, _)| name).filter(|name| !known.contains(&name.as_os_str()));
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.starts_with("DRAINIT_") && !OTHERS.contains(&name.as_str())).collect()
}

/// An image's variable can be emptied and not removed, so an empty one counts as none. What begins with a dash after an option is that option's value, a wrong one perhaps: the error names the option.
fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        let arg = if empty { arg.env(clap::builder::Resettable::Reset) } else { arg };
        let is_option_with_value = !arg.is_positional() && arg.get_action().takes_values();
        if is_option_with_value { arg.allow_hyphen_values(true) } else { arg }
    })
}

/// Parse the arguments, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let parsed = command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
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
