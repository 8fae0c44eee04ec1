//! What the core tells, as log lines. An init keeps quiet about what goes as it should.

use std::time::Duration;

use crate::core::config::Kind;
use crate::core::event::Notice;
use crate::core::types::{ExitStatus, code};

/// At the level named in a pool, debug in an init.
macro_rules! of_a_pool {
    ($kind:expr, $level:ident, $($rest:tt)*) => {
        match $kind {
            Kind::Pool => tracing::$level!($($rest)*),
            Kind::Single => tracing::debug!($($rest)*),
        }
    };
}

pub(super) fn tell(notice: &Notice, kind: Kind) {
    match notice {
        Notice::PhaseChanged { from, to } => {
            of_a_pool!(kind, info, from = from.name(), phase = to.name(), "phase changed")
        }
        Notice::WorkerStarted { slot, pid, generation } => {
            of_a_pool!(kind, info, slot, pid = pid.0, generation = generation.0, "worker started");
        }
        Notice::WorkerReady { slot, pid, after } => {
            of_a_pool!(kind, info, slot, pid = pid.0, after_seconds = seconds(after), "worker ready")
        }
        Notice::WorkerReloading { slot, pid } => {
            of_a_pool!(kind, info, slot, pid = pid.0, "worker reloading")
        }
        Notice::WorkerReloaded { slot, pid } => {
            of_a_pool!(kind, info, slot, pid = pid.0, "worker reloaded")
        }
        Notice::WorkerStopping { slot, pid } => {
            of_a_pool!(kind, info, slot, pid = pid.0, "worker stopping by itself");
        }
        Notice::WorkerExited { slot, pid, exit, uptime, expected: true } => {
            of_a_pool!(kind, info, slot, pid = pid.0, uptime_seconds = seconds(uptime), "worker {exit}");
        }
        Notice::WorkerExited { slot, pid, exit, uptime, expected: false } => {
            let uptime_seconds = seconds(uptime);
            of_a_pool!(kind, warn, slot, pid = pid.0, uptime_seconds, "worker ended unasked: it {exit}");
        }
        Notice::WorkerLate { slot, pid, after } => {
            tracing::warn!(
                slot,
                pid = pid.0,
                after_seconds = seconds(after),
                "worker not ready in time (--ready-timeout)"
            )
        }
        Notice::WorkerHung { slot, pid, why } => {
            tracing::warn!(slot, pid = pid.0, "worker hung: it {}", why.reason())
        }
        Notice::MessageInVain { slot, pid, after } => {
            tracing::info!(
                slot,
                pid = pid.0,
                after_seconds = seconds(after),
                "worker has not ended by its stop message: stop signal sent"
            )
        }
        Notice::WorkerEndedQuietly { slot, pid, why, after } => {
            tracing::info!(
                slot,
                pid = pid.0,
                reason = why.name(),
                after_seconds = seconds(after),
                "worker ended while it served nobody"
            )
        }
        Notice::WorkerKilled { slot, pid, after } => {
            tracing::warn!(
                slot,
                pid = pid.0,
                after_seconds = seconds(after),
                "worker killed: its time was up"
            )
        }
        Notice::WorkerReplaced { slot, delay, deaths } => {
            of_a_pool!(kind, info, slot, delay_seconds = seconds(delay), deaths, "worker will be replaced")
        }
        Notice::SpawnFailed { slot, failure, retry } => {
            tracing::error!(
                slot,
                retry_seconds = retry.as_ref().map(seconds),
                reason = failure.reason(),
                "worker could not be started"
            );
        }
        Notice::Scaled { from, to } => tracing::info!(from, to, "pool resized"),
        Notice::ScaleRefused { reason } => tracing::warn!(reason, "pool not resized"),
        Notice::SignalIgnored { signal } => tracing::info!(%signal, "signal dropped"),
        Notice::DrainPlanned(plan) => tracing::info!(
            trigger = %plan.trigger, grace_seconds = seconds(&plan.grace), margin_seconds = seconds(&plan.margin), spent_seconds = seconds(&plan.spent),
            lb_wait_seconds = seconds(&plan.lb_wait), lb_wait_min_seconds = seconds(&plan.lb_min), drain_seconds = seconds(&plan.drain), "drain planned"
        ),
        Notice::LbWaitOver(wait) => of_a_pool!(
            kind,
            info,
            waited_seconds = to_milliseconds(wait.elapsed_seconds),
            reason = wait.reason,
            connections = wait.connections,
            quiet_seconds = wait.quiet_seconds.map(to_milliseconds),
            checkers = wait.checkers,
            refused = wait.refused,
            "load balancer wait over"
        ),
        Notice::Stopping { workers, signal, patience } => {
            of_a_pool!(kind, info, workers, %signal, patience_seconds = seconds(patience), "workers asked to stop");
        }
        Notice::Messaging { workers, signal_after, patience } => {
            of_a_pool!(
                kind,
                info,
                workers,
                signal_after_seconds = seconds(signal_after),
                patience_seconds = seconds(patience),
                "workers asked to stop by message"
            );
        }
        Notice::BackToServing => tracing::warn!("no SIGTERM followed the preStop hook: back to serving"),
        Notice::RollStarted { roll, from, to, trigger, workers } => {
            tracing::info!(roll, from = from.0, to = to.0, %trigger, workers, "roll started");
        }
        Notice::RollQueued { trigger, why } => tracing::info!(%trigger, why, "roll queued"),
        Notice::RollJoined { roll, trigger } => {
            tracing::info!(roll, %trigger, "roll joined by another request")
        }
        Notice::RollRefused { trigger, reason } => tracing::warn!(%trigger, reason, "roll refused"),
        Notice::SlotTurned { roll, slot, generation, done, of } => {
            tracing::info!(roll, slot, generation = generation.0, done, of, "slot turned");
        }
        Notice::RollHolds { roll, canaries, hold } => {
            tracing::info!(roll, canaries, hold_seconds = seconds(hold), "roll holds: canaries are watched");
        }
        Notice::RollPauses { roll, pause } => {
            tracing::info!(roll, pause_seconds = seconds(pause), "roll pauses between batches");
        }
        Notice::RollShortOfMemory { roll } => {
            tracing::warn!(roll, "no memory for a worker beside the others: no surge (cgroup limit)");
        }
        Notice::RollFailed { roll, reason, to } => {
            tracing::error!(roll, reason, to = to.0, "roll goes back");
        }
        Notice::RollOver { roll, outcome, reason, generation, took, replaced, least_ready } => {
            let (outcome, took_seconds, generation) = (outcome.name(), seconds(took), generation.0);
            tracing::info!(
                roll,
                outcome,
                reason,
                generation,
                took_seconds,
                replaced,
                least_ready,
                "roll over"
            );
        }
        Notice::WorkerRecycled { slot, pid, why } => {
            tracing::info!(slot, pid = pid.0, "worker is replaced: {}", why.reason());
        }
        Notice::RecycleRefused { slot, pid } => tracing::warn!(
            slot,
            pid = pid.0,
            "worker should be replaced and is not: no room for another (--max-surge, cgroup limit), and \
             --max-unavailable lets none go first"
        ),
        Notice::BreakerOpen { reason, reset } => {
            tracing::error!(reason, reset_seconds = seconds(reset), "breaker open: no rolls");
        }
        Notice::SweepKilled => tracing::warn!("processes outlived the workers and --orphan-grace: killed"),
        Notice::HardDeadline => tracing::error!("hard deadline: everything is killed"),
    }
}

/// To the millisecond: nobody reads more of a log.
fn seconds(duration: &Duration) -> f64 {
    to_milliseconds(duration.as_secs_f64())
}

fn to_milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
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
