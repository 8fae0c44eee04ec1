//! What the workers bring: spawns that fail, deaths, crashes that are too many.

use std::time::Duration;

use super::Supervisor;
use crate::core::config::Restart;
use crate::core::drain::{Life, Verdict};
use crate::core::event::{Hang, Notice, SpawnFailure, Trigger};
use crate::core::pool::{Death, FailedSpawn, LateWorker};
use crate::core::types::{Exit, ExitStatus, SlotIndex, WorkerId, code};

impl Supervisor {
    pub(super) fn on_spawn_failed(&mut self, worker: WorkerId, failure: SpawnFailure) {
        let Some(failed) = self.pool.on_spawn_failed(worker, failure, &mut self.ctx) else { return };
        if !self.launched {
            self.refuse_to_start(&failed);
            return;
        }
        if failed.asked || self.life.is_ending() {
            return;
        }
        let FailedSpawn { slot, generation, missed, failure, .. } = failed;
        let what = format!("could not be started: {}", failure.reason());
        if self.on_generation_failed(generation, slot, &what) {
            self.ctx.tell(Notice::SpawnFailed { slot, failure, retry: None });
            return;
        }
        // A refusal of the system passes; that the command is gone is a crash like any other.
        let crashed = !matches!(failure, SpawnFailure::System(_));
        let retry = if missed { self.pool.replace(slot, false, &mut self.ctx) } else { None };
        let reason = failure.reason().to_owned();
        self.ctx.tell(Notice::SpawnFailed { slot, failure, retry });
        if crashed {
            self.record_crash(slot, &reason);
        }
    }

    /// The very first start failed: nothing has been started, and drainit says why and ends.
    pub(super) fn refuse_to_start(&mut self, failed: &FailedSpawn) {
        let code = match failed.failure {
            SpawnFailure::NotFound(_) => code::NOT_FOUND,
            SpawnFailure::CannotExecute(_) => code::CANNOT_EXECUTE,
            SpawnFailure::System(_) => code::OS,
        };
        self.ctx.recall_spawns();
        self.drop_roll(failed.failure.reason());
        self.exit(ExitStatus { code, reason: failed.failure.reason().to_owned() });
    }

    pub(super) fn on_death(&mut self, death: &Death) {
        if self.life.is_ending() {
            self.endings.add(death);
            return;
        }
        if death.asked || death.hung {
            // Whoever was to follow it may have ended before.
            if death.hung {
                self.pool.finish(death.slot);
            }
            return;
        }
        let failed = death.failed || !death.exit.is_success();
        let replaced = match self.ctx.config.restart {
            Restart::Always => true,
            Restart::OnFailure => failed,
            Restart::Never => false,
        };
        // Whatever the restart policy: whoever was to come back comes, and whoever was to relieve one that hangs.
        let goes_back = self.roll.as_ref().is_some_and(|roll| !roll.is_forward());
        let awaited = goes_back || self.pool.hangs(death.slot);
        let replaced = replaced || death.was_successor && awaited;
        let what = if death.failed { "was not ready in time".to_owned() } else { death.exit.to_string() };
        // What a roll has started and has not proved itself is the roll's affair.
        let is_the_rolls = failed || replaced || death.was_successor;
        if is_the_rolls && self.on_generation_failed(death.generation, death.slot, &what) {
            self.pool.refill(death.slot, self.ctx.now);
            return;
        }
        if !replaced {
            if !death.was_successor {
                self.pool.finish(death.slot);
            }
            self.endings.add(death);
            return;
        }
        if (death.vacant || death.was_successor)
            && let Some(delay) = self.pool.replace(death.slot, death.healthy, &mut self.ctx)
        {
            let counter = match (death.failed, failed) {
                (true, _) => &mut self.ctx.counters.restarts_late,
                (false, true) if death.exit == Exit::OutOfMemory => &mut self.ctx.counters.restarts_oom,
                (false, true) => &mut self.ctx.counters.restarts_crash,
                (false, false) => &mut self.ctx.counters.restarts_exit,
            };
            *counter += 1;
            let deaths = self.pool.deaths(death.slot);
            self.ctx.tell(Notice::WorkerReplaced { slot: death.slot, delay, deaths });
        }
        if !death.healthy {
            self.record_crash(death.slot, &what);
        }
    }

    /// In a roll it fails the roll at once; otherwise its end is a crash, once it has come.
    pub(super) fn on_late(&mut self, late: &LateWorker) {
        if !self.life.is_ending() {
            self.on_generation_failed(late.generation, late.slot, "was not ready in time (--ready-timeout)");
        }
    }

    /// Replacement first: whoever waits in its connections is not helped by its end.
    pub(super) fn on_hung(&mut self, worker: WorkerId, why: Hang) {
        if self.life.is_ending() {
            return;
        }
        let Some(hung) = self.pool.on_hung(worker, why, &mut self.ctx) else { return };
        if self.on_generation_failed(hung.generation, hung.slot, why.reason()) {
            return;
        }
        let Some(delay) = hung.delay else { return };
        self.ctx.counters.restarts_hung += 1;
        let deaths = self.pool.deaths(hung.slot);
        self.ctx.tell(Notice::WorkerReplaced { slot: hung.slot, delay, deaths });
        if !hung.healthy {
            self.record_crash(hung.slot, why.reason());
        }
    }

    /// One more crash; where they are too many and nobody serves, the orchestrator's own back-off takes over.
    pub(super) fn record_crash(&mut self, slot: SlotIndex, what: &str) {
        let now = self.ctx.now;
        if let Some(why) = self.breaker.on_crash(now) {
            self.tell_breaker_open(why);
        }
        let Some(limit) = self.breaker.limit().filter(|_| self.breaker.has_too_many_crashes(now)) else {
            return;
        };
        if self.pool.ready() == 0 && matches!(self.life, Life::Running) {
            let reason = format!(
                "workers keep crashing: more than {} in {:?}; the last in slot {slot} {what}",
                limit.count, limit.window
            );
            let span = self.plan(Trigger::CrashLoop, Duration::ZERO);
            self.stop(span, self.ctx.config.stop_signal, Verdict::CrashLoop(reason));
        }
    }
}
