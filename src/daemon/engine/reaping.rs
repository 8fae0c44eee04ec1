//! Reaping: whoever dies is buried, and the core is told of its workers.

use super::{Engine, LOOK_FOR_GUESTS};
use crate::admin::Stats;
use crate::core::event::Event;
use crate::core::signal::Signal;
use crate::core::types::{Exit, Pid};
use crate::sys::orphans::{self, Member};
use crate::sys::reap::{self, Change, Children};
use crate::sys::{kill, process};

/// The dead that are reaped in one turn.
const REAPED_AT_ONCE: usize = 256;

impl Engine {
    /// Reap whoever is dead. Called at every turn: a SIGCHLD that coalesced costs latency, never a zombie. Says
    /// whether there may be more: a fork bomb's dead must not keep signals and deadlines waiting.
    pub(in crate::daemon) fn reap(&mut self) -> bool {
        let reaped = self.collect_dead();
        self.settle();
        if reaped > 0 && self.exit.is_none() {
            self.remnants.retain(|(_, members)| members.iter().any(Member::is_alive));
            if let Some(signal) = self.sweeping {
                self.check_sweep(signal);
            }
        }
        reaped == REAPED_AT_ONCE
    }

    /// Reap, and note what the core has to be told.
    fn collect_dead(&mut self) -> usize {
        let mut reaped = 0;
        while reaped < REAPED_AT_ONCE
            && let Children::Changed(change) = reap::look(self.job_control.is_active())
        {
            reaped += 1;
            match change {
                Change::Exited(pid) => self.bury(pid),
                Change::Stopped(pid, by) => {
                    if self.children.contains_key(&pid) {
                        self.job_control.on_stopped(pid, by);
                    }
                }
            }
        }
        reaped
    }

    fn bury(&mut self, pid: Pid) {
        let child = self.children.remove(&pid);
        if child.is_some() {
            self.endings.forget(pid);
            // Its group has its number for as long as it is a zombie: now its helpers can be told safely.
            let _ = kill::send_to_group(pid, Signal::TERM);
        }
        let Some(exit) = reap::reap(pid) else { return };
        match child {
            Some(worker) => {
                self.job_control.on_exited(pid);
                let known = self.workers.remove(&worker);
                let by_us = known.as_ref().is_some_and(|known| known.killed);
                let exit = match exit {
                    Exit::Signal(Signal::KILL)
                        if let Some(signal) = known.as_ref().and_then(|known| known.ended_for) =>
                    {
                        Exit::Signal(signal)
                    }
                    Exit::Signal(Signal::KILL) if !by_us && self.oom_kills.claim(self.clock.now()) => {
                        Exit::OutOfMemory
                    }
                    other => other,
                };
                self.channels.remove(&worker);
                self.ears.remove(&worker);
                self.departed.push(worker);
                self.looks.forget(worker);
                self.launcher.sockets.release(worker);
                self.retiring.retain(|retiring| retiring.worker() != worker);
                if kill::group_exists(pid) {
                    let kill_at = self.clock.now() + self.core.config().orphan_grace;
                    self.remnants.push((kill_at, orphans::members_of(pid)));
                }
                self.events.push_back(Event::Exited { worker, exit });
            }
            None => match self.checks.remove(&pid) {
                Some(check) => {
                    let _ = check.reply.send(exit == Exit::Code(0));
                }
                None => Stats::count(&self.stats.orphans_reaped),
            },
        }
    }

    pub(super) fn sweep(&mut self, signal: Signal) {
        self.sweeping = Some(signal);
        self.collect_dead();
        if orphans::any_left() {
            orphans::signal_all(signal);
        }
        let left = orphans::any_left();
        self.look_at = (left && process::is_init()).then(|| self.clock.now() + LOOK_FOR_GUESTS);
        self.events.push_back(Event::Descendants { left });
    }

    /// Somebody has been reaped during the sweep.
    pub(super) fn check_sweep(&mut self, signal: Signal) {
        let left = orphans::any_left();
        if left && signal == Signal::KILL {
            // What was born while the others died.
            orphans::signal_all(signal);
        }
        self.feed(Event::Descendants { left });
    }
}
