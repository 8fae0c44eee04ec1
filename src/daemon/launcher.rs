//! Starts workers, and the commands that check them.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use super::environment::{Environment, expand};
use super::releases::{Content, Releases};
use super::sockets::Sockets;
use crate::config::Config;
use crate::config::restart::Restart;
use crate::config::values::AdoptBind;
use crate::core::config::Kind;
use crate::core::event::SpawnFailure;
use crate::core::signal::Signal;
use crate::core::types::{Edition, Pid, Release, SlotIndex, Target};
use crate::sys::signals::Inherited;
use crate::sys::spawn::{Adopt, Launch, Started, spawn};
use crate::sys::standing::Standing;
use crate::sys::tty::Terminal;

/// The releases and everything else that a worker is given.
#[derive(Debug)]
pub(super) struct Launcher {
    kind: Kind,
    pub(super) releases: Releases,
    pub(super) sockets: Sockets,
    inherited: Inherited,
    /// Where drainit was started: it leaves that directory itself after the first worker.
    directory: Option<CString>,
    terminal: Option<Terminal>,
    adopt: Adopt,
    /// The signal that asks Node to finish: what it does with it, /proc does not tell.
    handled: Option<Signal>,
    standing: Standing,
    /// How often a worker has to be heard of.
    watchdog: Option<Duration>,
}

impl Launcher {
    pub(super) fn new(
        config: &Config,
        mut environment: Environment,
        sockets: Sockets,
        inherited: Inherited,
        standing: Standing,
    ) -> Self {
        let kind = config.core.kind;
        if kind == Kind::Pool {
            environment.forget_supervisor();
        }
        let any_socket = !sockets.is_empty();
        Self {
            kind,
            releases: Releases::new(Content::new(config.command.clone(), environment)),
            sockets,
            inherited,
            // A directory that we may be in but not enter (WORKDIR /root, another uid) is not left.
            directory: std::env::current_dir()
                .ok()
                .filter(|path| std::env::set_current_dir(path).is_ok())
                .and_then(|path| CString::new(path.into_os_string().into_vec()).ok()),
            // A pool keeps the foreground, so that Ctrl-C reaches drainit, which drains.
            terminal: Terminal::controlling().filter(|_| kind == Kind::Single),
            adopt: match config.adopt_bind {
                AdoptBind::Off => Adopt::No,
                AdoptBind::Auto | AdoptBind::On if !any_socket => Adopt::No,
                AdoptBind::Auto => Adopt::Try,
                AdoptBind::On => Adopt::Must,
            },
            handled: config.catches_unseen.then_some(config.core.stop_signal),
            standing,
            watchdog: config.core.watchdog,
        }
    }

    pub(super) fn can_come_back(&self) -> bool {
        self.directory.is_some()
    }

    /// What an order makes of a release.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn derive(&mut self, base: Release, order: &Restart) -> Result<Target, String> {
        self.releases.derive(base, order, self.sockets.listeners())
    }

    pub(super) fn terminal(&self) -> Option<Terminal> {
        self.terminal
    }

    /// Adoption is tried, and can be done without.
    pub(super) fn may_adopt(&self) -> bool {
        self.adopt == Adopt::Try
    }

    /// No worker's sockets are adopted from here on: the kernel refuses.
    pub(super) fn give_up_adoption(&mut self) {
        self.adopt = Adopt::No;
    }

    /// How a worker gets its sockets.
    pub(super) fn socket_way(&self) -> &'static str {
        if self.sockets.is_empty() { "own" } else { "inherited" }
    }

    pub(super) fn start(
        &self,
        slot: SlotIndex,
        edition: Edition,
        part: usize,
        notify: Option<&str>,
        channel: Option<RawFd>,
    ) -> Result<Started, SpawnFailure> {
        let Content { command, environment, version } = self.content(edition.release)?;
        let mut environment = environment.clone();
        let generation = edition.generation;
        let argv = match self.kind {
            Kind::Single => arguments(command.iter().cloned())?,
            Kind::Pool => {
                environment.introduce(slot, generation, version.as_deref());
                arguments(
                    command
                        .iter()
                        .map(|argument| expand(argument, self.sockets.listeners(), slot, generation)),
                )?
            }
        };
        if let Some(address) = notify {
            environment.listen_to(address, self.watchdog);
        }
        let mut descriptors = self.sockets.descriptors(part);
        if let Some(channel) = channel {
            environment.offer_channel(3 + descriptors.len());
            descriptors.push(channel);
        }
        let listen_pid = (!self.sockets.is_empty()).then_some("LISTEN_PID");
        let watchdog_pid = notify.and(self.watchdog).map(|_| "WATCHDOG_PID");
        let pid_variables: Vec<_> = listen_pid.into_iter().chain(watchdog_pid).collect();
        spawn(&Launch {
            argv: &argv,
            env: environment.entries(),
            pid_variables: &pid_variables,
            descriptors: &descriptors,
            foreground: self.terminal.filter(|terminal| terminal.is_ours()).map(Terminal::fd),
            directory: self.directory.as_deref(),
            silent: false,
            inherited: self.inherited,
            standing: &self.standing,
            adopt: self.adopt,
            handled: self.handled,
        })
    }

    fn content(&self, release: Release) -> Result<&Content, SpawnFailure> {
        let unknown = || SpawnFailure::System("its release is not known any more".to_owned());
        self.releases.get(release).ok_or_else(unknown)
    }

    /// A command that says by its exit code how the worker is.
    pub(super) fn start_check(
        &self,
        command: &[String],
        release: Release,
        slot: SlotIndex,
        worker: Pid,
    ) -> Result<Pid, SpawnFailure> {
        let mut environment = self.content(release)?.environment.clone();
        environment.set("DRAINIT_SLOT", &slot.to_string());
        environment.set("DRAINIT_WORKER_PID", &worker.to_string());
        spawn(&Launch {
            argv: &arguments(command.iter().map(OsString::from))?,
            env: environment.entries(),
            pid_variables: &[],
            descriptors: &[],
            foreground: None,
            directory: self.directory.as_deref(),
            silent: true,
            inherited: self.inherited,
            standing: &self.standing,
            adopt: Adopt::No,
            handled: None,
        })
        .map(|started| started.pid)
    }
}

fn arguments(arguments: impl Iterator<Item = OsString>) -> Result<Vec<CString>, SpawnFailure> {
    let impossible = |_| SpawnFailure::CannotExecute("an argument holds a NUL byte".to_owned());
    arguments.map(|argument| CString::new(argument.as_bytes()).map_err(impossible)).collect()
}
