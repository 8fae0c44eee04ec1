//! The exit code and its reason.

use super::Supervisor;
use crate::core::config::Restart;
use crate::core::drain::{Life, Verdict};
use crate::core::pool::Death;
use crate::core::types::{Exit, ExitStatus, SlotIndex, code};

impl Supervisor {
    /// After a stop.
    pub(super) fn stopped_status(&self) -> ExitStatus {
        let Life::Stopping(stopping) = &self.life else { return self.finished_status() };
        let took = self.ctx.now.since(stopping.span.began).as_secs_f64();
        match &stopping.verdict {
            Verdict::CrashLoop(reason) => ExitStatus { code: code::CRASH_LOOP, reason: reason.clone() },
            Verdict::Drained if stopping.killing => ExitStatus {
                code: code::DEADLINE,
                reason: format!(
                    "a worker had to be killed in the drain, {took:.1} s after {}",
                    stopping.span.trigger
                ),
            },
            Verdict::Drained => {
                let status = self.finished_status();
                ExitStatus {
                    reason: format!(
                        "drained in {took:.1} s after {}: {}",
                        stopping.span.trigger, status.reason
                    ),
                    ..status
                }
            }
        }
    }

    /// After the last worker's end.
    pub(super) fn finished_status(&self) -> ExitStatus {
        let telling = if self.ctx.config.mirrors_exit() {
            // It may have been scaled up since: then the first failure counts, as in every pool.
            self.endings.first_failure.or(self.endings.last)
        } else if self.ctx.config.restart == Restart::Never {
            self.endings.first_failure
        } else {
            None
        };
        telling.map_or_else(
            || ExitStatus { code: 0, reason: "every worker has finished".to_owned() },
            |(slot, exit)| ExitStatus { code: exit.code(), reason: format!("worker {slot} {exit}") },
        )
    }
}

/// How workers that are not replaced ended, for the exit code.
#[derive(Debug, Default)]
pub(super) struct Endings {
    last: Option<(SlotIndex, Exit)>,
    first_failure: Option<(SlotIndex, Exit)>,
}

impl Endings {
    pub(super) fn add(&mut self, death: &Death) {
        let ending = (death.slot, death.exit);
        self.last = Some(ending);
        if !death.exit.is_success() {
            self.first_failure.get_or_insert(ending);
        }
    }
}
