//! What signals and commands bring.

use std::time::Duration;

use super::Supervisor;
use crate::core::config::{Kind, MAX_WORKERS, PRESTOP_RETURN};
use crate::core::drain::{LameDuck, Life, Verdict};
use crate::core::event::{Action, Notice, Outcome, RequestId, RollTrigger, Trigger};
use crate::core::lb_wait::LbWaitEnd;
use crate::core::signal::{Disposition, Signal};
use crate::core::types::{ExitStatus, code};

impl Supervisor {
    pub(super) fn on_signal(&mut self, signal: Signal, value: Option<u64>) {
        match self.ctx.config.signals.get(signal) {
            Disposition::Forward => self.pool.forward(signal, value, &mut self.ctx),
            Disposition::Rewrite(other) => self.pool.forward(other, value, &mut self.ctx),
            Disposition::Ignore => self.ctx.tell(Notice::SignalIgnored { signal }),
            Disposition::Drain => self.on_drain_signal(signal),
            Disposition::Restart => self.roll_by_signal(RollTrigger::Signal(signal)),
            Disposition::ScaleUp => self.scale_by_signal(self.pool.desired().saturating_add(1)),
            Disposition::ScaleDown => self.scale_by_signal(self.pool.desired().saturating_sub(1).max(1)),
        }
    }

    pub(super) fn on_drain_signal(&mut self, signal: Signal) {
        match self.life {
            Life::Running if signal == Signal::INT => {
                let span = self.plan(Trigger::Signal(signal), Duration::ZERO);
                self.stop(span, Signal::INT, Verdict::Drained);
            }
            // Nobody has ever been sent here.
            Life::Running | Life::LameDuck(_) if !self.begun => {
                let span = self.plan(Trigger::Signal(signal), Duration::ZERO);
                self.stop(span, signal, Verdict::Drained);
                self.answer_hooks("drained");
            }
            Life::Running => self.start_lb_wait(Trigger::Signal(signal)),
            Life::LameDuck(ref mut duck) => {
                duck.advice = false;
                self.end_lb_wait(LbWaitEnd::Signal);
            }
            // To many servers the second one means 'faster'.
            Life::Stopping(_) => self.pool.insist(signal, &mut self.ctx),
            Life::Sweeping(_) => self.bound_sweep(Trigger::Signal(signal)),
            Life::Exited => {}
        }
    }

    /// As where an address is taken: the orchestrator tries again, later and later.
    pub(super) fn on_unavailable(&mut self, reason: String) {
        if !self.begun && matches!(self.life, Life::Running | Life::LameDuck(_)) {
            self.pool.stop_filling();
            self.sweep(None, ExitStatus { code: code::UNAVAILABLE, reason });
        }
    }

    pub(super) fn on_prestop(&mut self, request: RequestId) {
        self.ctx.counters.prestop_calls += 1;
        match &mut self.life {
            Life::Running => {
                self.hooks.push(request);
                self.start_lb_wait(Trigger::PreStop);
            }
            Life::LameDuck(LameDuck { return_at: None, .. }) => self.hooks.push(request),
            Life::LameDuck(LameDuck { return_at, .. }) => {
                *return_at = Some(self.ctx.now + PRESTOP_RETURN);
                self.answer_hook(request, "the load balancer wait is over already");
            }
            Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => {
                self.bound_sweep(Trigger::PreStop);
                self.answer_hook(request, "draining already");
            }
        }
    }

    pub(super) fn answer_hook(&mut self, request: RequestId, text: &str) {
        self.ctx.act(Action::Reply { request, outcome: Outcome::Done(text.to_owned()) });
    }

    pub(super) fn answer_hooks(&mut self, text: &str) {
        for request in std::mem::take(&mut self.hooks) {
            self.answer_hook(request, text);
        }
    }

    pub(super) fn scale_by_signal(&mut self, workers: u32) {
        if let Outcome::Refused(reason) = self.scale(workers) {
            self.ctx.tell(Notice::ScaleRefused { reason });
        }
    }

    pub(super) fn scale(&mut self, workers: u32) -> Outcome {
        if self.ctx.config.kind == Kind::Single {
            return Outcome::Refused("not a pool: it has one worker and no --listen".to_owned());
        }
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Outcome::Refused(format!("{workers} workers cannot be; takes 1 to {MAX_WORKERS}"));
        }
        if !matches!(self.life, Life::Running) {
            return Outcome::Refused(format!(
                "the pool is {} and is not resized any more",
                self.phase().name()
            ));
        }
        let old = self.pool.desired();
        if workers != old {
            self.pool.resize(workers, &mut self.ctx);
        }
        Outcome::Done(format!("{old} -> {workers} workers"))
    }
}
