//! The drain, step by step.

use std::time::Duration;

use super::Supervisor;
use crate::core::config::PRESTOP_RETURN;
use crate::core::drain::{KILL_PATIENCE, LameDuck, Life, SWEEP_PATIENCE, Span, Stopping, Sweeping, Verdict};
use crate::core::event::{Action, Notice, Trigger};
use crate::core::lb_wait::{Evidence, LbWaitEnd, LbWaitView, Sighting};
use crate::core::signal::Signal;
use crate::core::snapshot::Phase;
use crate::core::time::Time;
use crate::core::types::ExitStatus;

impl Supervisor {
    /// Lay out a drain that begins now, and say so.
    pub(super) fn plan(&mut self, trigger: Trigger, lb_wait: Duration) -> Span {
        let span = Span::new(trigger, self.ctx.now, lb_wait, &self.ctx.config);
        let plan = span.plan(self.ctx.now, &self.ctx.config);
        self.ctx.tell(Notice::DrainPlanned(plan));
        span
    }

    pub(super) fn start_lb_wait(&mut self, trigger: Trigger) {
        let span = self.plan(trigger, self.ctx.config.effective_lb_wait().max);
        if trigger != Trigger::PreStop {
            self.drop_roll("a drain came");
        }
        self.life = Life::LameDuck(LameDuck { span, advice: trigger == Trigger::PreStop, return_at: None });
        self.lb_wait = Some(Evidence::since(self.ctx.now));
        if span.lb_wait.is_zero() {
            self.end_lb_wait(LbWaitEnd::None);
        } else if self.ctx.config.effective_lb_wait().min < span.lb_wait {
            self.ctx.act(Action::Observe);
        }
    }

    pub(super) fn on_observed(&mut self, seen: Sighting) {
        let Life::LameDuck(LameDuck { return_at: None, .. }) = self.life else { return };
        let Some(evidence) = &mut self.lb_wait else { return };
        evidence.add(self.ctx.now, seen);
        if evidence.is_enough(self.ctx.now, &self.ctx.config) {
            self.end_lb_wait(LbWaitEnd::Quiet);
        } else {
            self.ctx.act(Action::Observe);
        }
    }

    pub(super) fn lb_wait_view(&self, now: Time) -> Option<LbWaitView> {
        self.lb_wait.map(|evidence| evidence.view(now, &self.ctx.config))
    }

    /// After a signal the workers stop now; after a preStop hook they do once the signal comes.
    pub(super) fn end_lb_wait(&mut self, why: LbWaitEnd) {
        let now = self.ctx.now;
        let Life::LameDuck(duck) = &mut self.life else { return };
        let span = duck.span;
        if duck.return_at.is_none()
            && let Some(evidence) = &mut self.lb_wait
        {
            evidence.close(now, why);
            self.ctx.tell(Notice::LbWaitOver(evidence.view(now, &self.ctx.config)));
            let counters = &mut self.ctx.counters;
            match why {
                LbWaitEnd::None => {}
                LbWaitEnd::Quiet => counters.lb_waits_quiet += 1,
                LbWaitEnd::Max => counters.lb_waits_max += 1,
                LbWaitEnd::Signal => counters.lb_waits_signal += 1,
            }
        }
        if duck.advice {
            duck.return_at = Some(now + PRESTOP_RETURN);
        } else {
            self.stop(span, self.ctx.config.stop_signal, Verdict::Drained);
        }
        self.answer_hooks("the load balancer wait is over");
    }

    /// No SIGTERM followed the preStop hook: the hook is advice.
    pub(super) fn return_to_serving(&mut self) {
        self.life = Life::Running;
        self.lb_wait = None;
        self.ctx.counters.prestop_returns += 1;
        self.ctx.tell(Notice::BackToServing);
    }

    pub(super) fn stop(&mut self, span: Span, signal: Signal, verdict: Verdict) {
        let now = self.ctx.now;
        let deadline = span.workers_deadline(now, &self.ctx.config);
        let (workers, patience) = (self.pool.len(), deadline.since(now));
        self.ctx.tell(match self.ctx.config.stop_message {
            Some(message) => {
                let signal_after = message.signal_due(now, deadline).since(now);
                Notice::Messaging { workers, signal_after, patience }
            }
            None => Notice::Stopping { workers, signal, patience },
        });
        self.drop_roll("a drain came");
        self.pool.stop_filling();
        self.pool.stop_all(signal, deadline, &mut self.ctx);
        self.life = Life::Stopping(Stopping { span, killing: false, exit_by: None, verdict });
    }

    pub(super) fn pass_hard_deadline(&mut self) {
        let Life::Stopping(stopping) = &mut self.life else { return };
        stopping.exit_by = Some(self.ctx.now + KILL_PATIENCE);
        stopping.killing = true;
        self.ctx.counters.hard_deadlines += 1;
        self.ctx.tell(Notice::HardDeadline);
        self.pool.kill_all(&mut self.ctx);
        self.ctx.act(Action::Sweep { signal: Signal::KILL });
    }

    /// The last worker is gone, and there will be no other.
    pub(super) fn sweep_if_gone(&mut self) {
        match &self.life {
            Life::Stopping(stopping) if self.pool.is_empty() => {
                let span = stopping.span;
                let status = self.stopped_status();
                self.sweep(Some(span), status);
            }
            Life::Running if self.pool.is_finished() => self.sweep(None, self.finished_status()),
            Life::LameDuck(duck) if self.pool.is_finished() => {
                self.sweep(Some(duck.span), self.finished_status())
            }
            Life::Running | Life::LameDuck(_) | Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => {}
        }
    }

    /// TERM, and after `--orphan-grace` KILL, for whatever outlived the workers.
    pub(super) fn sweep(&mut self, span: Option<Span>, status: ExitStatus) {
        // The sweep reaches whoever waits in this container, the hook's own process too.
        self.answer_hooks("drained");
        self.drop_roll("every worker has finished");
        let now = self.ctx.now;
        let grace_ends = now + self.ctx.config.orphan_grace;
        let kill_at = span.map_or(grace_ends, |span| span.hard.min(grace_ends)).max(now);
        let patience_ends = kill_at + SWEEP_PATIENCE;
        let exit_by = span.map_or(patience_ends, |span| span.exit_by().min(patience_ends));
        let at_once = kill_at == now;
        let killing = self.phase() == Phase::Killing;
        let kill_at = (!at_once).then_some(kill_at);
        self.life = Life::Sweeping(Sweeping { span, kill_at, exit_by, killing, swept: false, status });
        self.ctx.act(Action::Sweep { signal: if at_once { Signal::KILL } else { Signal::TERM } });
    }

    /// The workers were gone before anybody asked for it: from now on there is a budget.
    pub(super) fn bound_sweep(&mut self, trigger: Trigger) {
        let Life::Sweeping(Sweeping { span: None, .. }) = self.life else { return };
        let bound = self.plan(trigger, Duration::ZERO);
        let Life::Sweeping(sweeping) = &mut self.life else { return };
        sweeping.span = Some(bound);
        sweeping.kill_at = sweeping.kill_at.map(|at| at.min(bound.hard));
        sweeping.exit_by = sweeping.exit_by.min(bound.exit_by());
    }

    pub(super) fn sweep_harder(&mut self) {
        let Life::Sweeping(sweeping) = &mut self.life else { return };
        sweeping.kill_at = None;
        sweeping.killing = true;
        self.ctx.counters.orphan_timeouts += 1;
        self.ctx.tell(Notice::SweepKilled);
        self.ctx.act(Action::Sweep { signal: Signal::KILL });
    }

    pub(super) fn on_descendants(&mut self, left: bool) {
        if !left {
            self.finish_sweep();
        }
    }

    pub(super) fn exit(&mut self, status: ExitStatus) {
        self.answer_hooks("drained");
        self.life = Life::Exited;
        self.tell_phase();
        let code = self.ctx.config.remap_exit.get(&status.code).copied().unwrap_or(status.code);
        self.ctx.act(Action::Exit(ExitStatus { code, ..status }));
    }
}
