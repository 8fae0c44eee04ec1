//! From the arguments to the exit code.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use crate::cli::{self, Ask, Cli, Probe, Stop, Surroundings, resolve};
use crate::core::types::code;
use crate::sys::signals::Inherited;
use crate::sys::{control, descriptors, install, process, signals, stderr};
use crate::{client, daemon};

/// The whole program. `args` start with its name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    // The very first act: PID 1 drops what is neither blocked nor handled.
    let inherited = signals::take_over();
    descriptors::plug_stdio();
    // The standard hook prints a backtrace, and waits for whoever reads it.
    std::panic::set_hook(Box::new(|panic| stderr::complain(&format!("a bug in drainit: {panic}"))));
    match cli::parse(args) {
        Ok(Cli { subcommand: Some(subcommand), .. }) => ask(subcommand, inherited),
        Ok(Cli { subcommand: None, run }) => {
            let around = Surroundings {
                in_pod: in_pod(),
                stderr_is_terminal: stderr::is_terminal(),
                seed: process::random_seed(),
            };
            match resolve(run, around) {
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

/// Whether Kubernetes started this.
pub fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A subcommand is an ordinary program: it can be interrupted.
fn ask(subcommand: Ask, inherited: Inherited) -> u8 {
    signals::give_back(inherited);
    if let Ask::Install { path } = subcommand {
        return install_to(&path);
    }
    let explicit = std::env::var("DRAINIT_CONTROL").ok();
    let own = control::of_this_container().to_string();
    let endpoint = match client::find(explicit.as_deref(), Some(&own)) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            stderr::complain(&error.to_string());
            return client::CANNOT_ASK;
        }
    };
    match subcommand {
        Ask::Prestop { timeout } => client::prestop(&endpoint, timeout),
        Ask::Probe { which, timeout } => {
            let which = match which {
                Probe::Live => client::Probe::Live,
                Probe::Ready => client::Probe::Ready,
                Probe::Startup => client::Probe::Startup,
            };
            client::probe(&endpoint, which, false, timeout)
        }
        Ask::Status { json } => client::status(&endpoint, json),
        Ask::Scale { workers } => client::scale(&endpoint, workers),
        Ask::Install { path } => install_to(&path),
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
