//! The one loop between the core and the world.
//!
//! Two eras. While booting, everything may be refused with a clear error and nothing is started. After the
//! first worker is up nothing may end this process by accident: no `?` leaves the loop, no panic passes it.

mod adoption;
mod boot;
mod checks;
mod clock;
mod engine;
mod environment;
mod failsafe;
mod job_control;
mod late;
mod launcher;
mod message;
mod node_ipc;
mod notices;
mod notify;
mod plain;
mod quiet;
mod reactor;
mod readiness;
mod releases;
mod sidecars;
mod sockets;
mod watching;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::config::Config;
use crate::core::event::Event;
use crate::core::types::{ExitStatus, code};
use crate::log;
use crate::sys::signals::Inherited;
use crate::sys::{stderr, termination_log};

use boot::Boot;
use engine::Engine;

/// Run a pool to its end; returns the exit code.
pub fn run(config: Config, inherited: Inherited) -> u8 {
    let logging = config.log;
    let warnings = config.warnings.clone();
    let (mut engine, mut servers) = match Boot::up(config, inherited) {
        Ok(Boot { engine, servers }) => (engine, servers),
        Err(refusal) => return refuse(&refusal),
    };
    let _control_file = servers.control_file.take();
    let supervised = catch_unwind(AssertUnwindSafe(|| {
        // The worker first: all that it does not need comes after it. Unless it has to wait itself.
        if servers.sidecars.wait_for.is_empty() {
            engine.feed(Event::Start);
        }
        let started = engine.exit_status().is_none();
        if started {
            engine.leave_start_directory();
            engine.watch_memory();
            log::start(logging);
            engine.log_is_up();
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            supervise(&mut engine, servers);
        }
        started
    }));
    let status = match (supervised, engine.exit_status()) {
        (Ok(false), Some(refusal)) => return refuse(refusal),
        (Ok(_), Some(status)) => status.clone(),
        _ => failsafe::run(&engine.worker_pids(), engine.budget()),
    };
    engine.restore_terminal();
    notices::tell_end(&status, engine.is_init_only());
    termination_log::write(&status.reason);
    status.code
}

fn supervise(engine: &mut Engine, servers: boot::Servers) {
    let watches = servers.watcher.is_some();
    let waits = !servers.sidecars.wait_for.is_empty();
    if let Err(error) = reactor::run(engine, servers) {
        // seccomp or RLIMIT_NOFILE; an init needs neither epoll nor a descriptor.
        tracing::warn!(%error, "no event loop to be had: signals and workers only, no probes");
        if watches {
            tracing::warn!("--watch does nothing without an event loop");
        }
        if waits {
            tracing::warn!(
                "--wait-for cannot ask without an event loop: the first worker is started as it is"
            );
            engine.feed(Event::Start);
        }
        plain::run(engine);
    }
}

/// Nothing has been started.
fn refuse(status: &ExitStatus) -> u8 {
    stderr::complain(&status.reason);
    termination_log::write(&status.reason);
    status.code
}

/// A usage error, in the form that every other refusal has.
pub fn refuse_usage(reason: &str) -> u8 {
    refuse(&ExitStatus { code: code::USAGE, reason: reason.to_owned() })
}
