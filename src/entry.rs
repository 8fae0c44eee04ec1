//! From the arguments to the exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use crate::cli::{self, Ask, Cli, Probe, RestartArgs, Stop, Surroundings, resolve};
use crate::config::endpoint::Endpoint;
use crate::config::restart::Restart;
use crate::core::types::code;
use crate::sys::signals::Inherited;
use crate::sys::{cgroup, control, descriptors, install, process, script, signals, stderr};
use crate::{client, daemon};

/// The whole program, once signals have been taken over. `args` start with its name.
pub fn run(inherited: Inherited, args: impl IntoIterator<Item = OsString>) -> u8 {
    descriptors::plug_stdio();
    // The standard hook prints a backtrace, and waits for whoever reads it.
    std::panic::set_hook(Box::new(|panic| stderr::complain(&format!("a bug in drainit: {panic}"))));
    if let Some(name) = unreadable_variable() {
        return daemon::refuse_usage(&format!("the environment variable {name} is not UTF-8"));
    }
    match cli::parse(args) {
        Ok(Cli { subcommand: Some(subcommand), .. }) => ask(subcommand, inherited),
        Ok(Cli { subcommand: None, run }) => {
            let around = Surroundings {
                in_pod: in_pod(),
                stderr_is_terminal: stderr::is_terminal(),
                seed: process::random_seed(),
                processors: cgroup::processors,
                interpreter: script::interpreter,
                unknown_variables: cli::unknown_variables(),
            };
            match resolve(run, &around) {
                Ok(config) => daemon::run(config, inherited),
                Err(reason) => daemon::refuse_usage(&reason),
            }
        }
        Err(Stop::Text(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Err(Stop::Usage(reason)) => daemon::refuse_usage(&reason),
    }
}

/// An option in the environment that cannot be read; the parser would not say which.
fn unreadable_variable() -> Option<String> {
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DRAINIT_"));
    ours.filter(|(_, value)| value.to_str().is_none())
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .next()
}

/// Whether Kubernetes started this.
fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A subcommand is an ordinary program: it can be interrupted.
fn ask(subcommand: Ask, inherited: Inherited) -> u8 {
    match subcommand {
        // The end of the drain that it waits for ends it too, like everything in the container: no failure.
        Ask::Prestop { .. } => signals::end_on_term(0),
        // A drain drops the roll, and whoever waits for it has been refused.
        Ask::Restart(RestartArgs { wait: true, .. }) => signals::end_on_term(client::CANNOT_ASK),
        Ask::Restart(_)
        | Ask::Probe { .. }
        | Ask::Status { .. }
        | Ask::Scale { .. }
        | Ask::Abort { .. }
        | Ask::Install { .. } => {}
    }
    signals::give_back(inherited);
    match subcommand {
        Ask::Prestop { timeout } => to_running(|endpoint| client::prestop(endpoint, timeout)),
        Ask::Probe { which, timeout } => {
            let which = match which {
                Probe::Live => client::Probe::Live,
                Probe::Ready => client::Probe::Ready,
                Probe::Startup => client::Probe::Startup,
            };
            to_running(|endpoint| client::probe(endpoint, which, timeout))
        }
        Ask::Status { watch: true, .. } => to_running(client::watch),
        Ask::Status { json, .. } => to_running(|endpoint| client::status(endpoint, json)),
        Ask::Scale { workers } => to_running(|endpoint| client::scale(endpoint, workers)),
        Ask::Restart(args) => {
            let RestartArgs { wait, timeout, release_version, env, unset_env, command } = args;
            let order = Restart {
                wait,
                version: release_version,
                env: env.into_iter().collect(),
                unset: unset_env,
                command: (!command.is_empty()).then_some(command),
            };
            to_running(|endpoint| client::restart(endpoint, &order, timeout))
        }
        Ask::Abort { timeout } => to_running(|endpoint| client::abort(endpoint, timeout)),
        Ask::Install { path } => install_to(&path),
    }
}

/// Find the drainit that is meant, and put the question.
fn to_running(ask: impl FnOnce(&Endpoint) -> u8) -> u8 {
    let explicit = std::env::var("DRAINIT_CONTROL").ok();
    let own = control::of_this_container().to_string();
    match client::find(explicit.as_deref(), Some(&own)) {
        Ok(endpoint) => ask(&endpoint),
        Err(error) => {
            stderr::complain(&error.to_string());
            client::CANNOT_ASK
        }
    }
}

fn install_to(path: &Path) -> u8 {
    match install::to(path) {
        Ok(target) => {
            let _ = writeln!(std::io::stdout(), "{}", target.display());
            0
        }
        Err(error) => {
            stderr::complain(&format!("cannot install to {}: {error}", path.display()));
            code::OS
        }
    }
}
