//! What the core tells, as log lines. An init keeps quiet about what goes as it should.

use crate::core::config::Kind;
use crate::core::event::Notice;
use crate::core::types::{ExitStatus, code};

/// Info in a pool, debug in an init.
macro_rules! ordinary {
    ($kind:expr, $($rest:tt)*) => {
        match $kind {
            Kind::Pool => tracing::info!($($rest)*),
            Kind::Single => tracing::debug!($($rest)*),
        }
    };
}

pub(super) fn tell(notice: &Notice, kind: Kind) {
    match notice {
        Notice::PhaseChanged { from, to } => {
            ordinary!(kind, from = from.name(), phase = to.name(), "phase changed")
        }
        Notice::WorkerStarted { slot, pid, generation } => {
            ordinary!(kind, slot, %pid, generation = generation.0, "worker started");
        }
        Notice::WorkerReady { slot, pid, after } => ordinary!(kind, slot, %pid, ?after, "worker ready"),
        Notice::WorkerExited { slot, pid, exit, uptime, expected: true } => {
            ordinary!(kind, slot, %pid, ?uptime, "worker {exit}");
        }
        Notice::WorkerExited { slot, pid, exit, uptime, expected: false } => match kind {
            Kind::Pool => tracing::warn!(slot, %pid, ?uptime, "worker {exit} by itself"),
            Kind::Single => tracing::debug!(slot, %pid, ?uptime, "worker {exit} by itself"),
        },
        Notice::WorkerLate { slot, pid, after } => {
            tracing::warn!(slot, %pid, ?after, "worker not ready in time (--ready-timeout)")
        }
        Notice::WorkerKilled { slot, pid, after } => {
            tracing::warn!(slot, %pid, ?after, "worker killed: its time was up")
        }
        Notice::WorkerReplaced { slot, delay, deaths } => {
            ordinary!(kind, slot, ?delay, deaths, "worker will be replaced")
        }
        Notice::SpawnFailed { slot, failure, retry } => {
            tracing::error!(slot, ?retry, reason = failure.reason(), "worker could not be started");
        }
        Notice::Scaled { from, to } => tracing::info!(from, to, "pool resized"),
        Notice::ScaleRefused { reason } => tracing::warn!(reason, "pool not resized"),
        Notice::SignalIgnored { signal } => tracing::info!(%signal, "signal ignored (--signal)"),
        Notice::DrainPlanned(plan) => tracing::info!(
            trigger = %plan.trigger, grace = ?plan.grace, margin = ?plan.margin, spent = ?plan.spent,
            lb_wait = ?plan.lb_wait, drain = ?plan.drain, "drain planned"
        ),
        Notice::LbWaitOver { waited, why } => ordinary!(kind, ?waited, why, "load balancer wait over"),
        Notice::Stopping { workers, signal, patience } => {
            ordinary!(kind, workers, %signal, ?patience, "workers asked to stop");
        }
        Notice::BackToServing => tracing::warn!("no SIGTERM followed the preStop hook: back to serving"),
        Notice::BreakerOpen { crashes, window } => {
            tracing::error!(crashes, ?window, "breaker open: workers keep crashing")
        }
        Notice::SweepKilled => tracing::warn!("processes outlived the workers and --orphan-grace: killed"),
        Notice::HardDeadline => tracing::error!("hard deadline: everything is killed"),
    }
}

/// The last line.
pub(super) fn tell_end(status: &ExitStatus, init_only: bool) {
    let ExitStatus { code, reason } = status;
    match *code {
        code::CRASH_LOOP | code::SOFTWARE | code::OS => tracing::error!(code, reason, "exit"),
        code::DEADLINE => tracing::warn!(code, reason, "exit"),
        _ if init_only => tracing::debug!(code, reason, "exit"),
        _ => tracing::info!(code, reason, "exit"),
    }
}
