//! The terminal's part: a job that its shell stops is drainit and its worker, not the worker alone.

use crate::core::config::Kind;
use crate::core::signal::Signal;
use crate::core::types::{Pid, Scope};
use crate::sys::tty::{Terminal, stop_as_a_job, stop_for_good};
use crate::sys::{kill, process};

/// Job control for one worker; a pool has none.
#[derive(Debug)]
pub(super) struct JobControl {
    active: bool,
    terminal: Option<Terminal>,
    /// The worker was sent a terminal stop through us.
    stop_sent: bool,
    last_worker: Option<Pid>,
}

impl JobControl {
    /// PID 1 is nobody's job: it has no shell above it, and the kernel does not stop it.
    pub(super) fn new(kind: Kind, terminal: Option<Terminal>) -> Self {
        let active = kind == Kind::Single && !process::is_init();
        Self { active, terminal, stop_sent: false, last_worker: None }
    }

    /// Whether stopped children are to be told of.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn on_sent(&mut self, signal: Signal) {
        if signal.is_terminal_stop() || signal == Signal::STOP {
            self.stop_sent = true;
        } else if signal == Signal::CONT {
            self.stop_sent = false;
        }
    }

    /// The worker is stopped: if the terminal did it, or we passed it on, stop too, so that the shell above takes
    /// over; when it continues us, give the terminal back and continue the worker.
    pub(super) fn on_stopped(&mut self, worker: Pid, by: Signal) {
        let from_terminal = self.terminal.is_some_and(|terminal| terminal.belongs_to(worker));
        // Asked for by whoever sent it to us, with or without a shell above; he continues us.
        let stopped = if std::mem::take(&mut self.stop_sent) {
            stop_for_good();
            true
        } else {
            (by.is_terminal_stop() || from_terminal) && stop_as_a_job()
        };
        if !stopped {
            return;
        }
        if let Some(terminal) = self.terminal.filter(|terminal| terminal.is_ours()) {
            terminal.give_to(worker);
        }
        // The whole group was stopped by the terminal; CONT for the leader alone would leave its helpers.
        let _ = kill::send(worker, Signal::CONT, Scope::Group, None);
    }

    pub(super) fn on_exited(&mut self, worker: Pid) {
        self.last_worker = Some(worker);
    }

    /// At the end: the foreground must not belong to a group that is gone.
    pub(super) fn restore(&self) {
        if let (Some(terminal), Some(worker)) = (self.terminal, self.last_worker) {
            terminal.take_back_from(worker);
        }
    }
}
