//! `/livez`, `/readyz`, `/startupz`: what each is made of, and Kubernetes' conventions for saying so.

use std::fmt::Write;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use super::Shared;
use crate::core::snapshot::{BreakerState, Phase, Snapshot, WorkerState, WorkerView};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Live,
    Ready,
    Startup,
}

impl Probe {
    const fn name(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
            Self::Startup => "startupz",
        }
    }

    const fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &[Check::Ping, Check::Pool],
            Self::Ready => &[Check::Ping, Check::Startup, Check::Workers, Check::Breaker, Check::Shutdown],
            Self::Startup => &[Check::Startup],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Somebody answers.
    Ping,
    /// The pool is not beyond help.
    Pool,
    /// The pool has been ready once.
    Startup,
    /// Enough workers are ready.
    Workers,
    /// Rolls are let through. Never fails: a pool that serves is ready, whatever becomes of its next generation.
    Breaker,
    /// Nobody has told drainit to go.
    Shutdown,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Pool => "pool",
            Self::Startup => "startup",
            Self::Workers => "workers",
            Self::Breaker => "breaker",
            Self::Shutdown => "shutdown",
        }
    }

    /// What there is to say though it passes.
    fn remark(self, snapshot: &Snapshot) -> String {
        match (self, snapshot.breaker) {
            (Self::Breaker, BreakerState::Open) => format!(
                ": open for {:.0} s more, rolls are refused: {}",
                snapshot.breaker_reset_seconds.unwrap_or_default().ceil(),
                snapshot.breaker_reason.as_deref().unwrap_or_default()
            ),
            (Self::Breaker, BreakerState::HalfOpen) => ": half-open, one roll may try".to_owned(),
            (Self::Breaker, BreakerState::Closed)
            | (Self::Ping | Self::Pool | Self::Startup | Self::Workers | Self::Shutdown, _) => String::new(),
        }
    }

    /// Why it fails, if it does.
    ///
    /// The three of readiness explain [`Snapshot::ready`] and never contradict it: none fails while it is
    /// true, and at least one does while it is not.
    fn failure(self, snapshot: &Snapshot) -> Option<String> {
        let Snapshot { phase, ready, ready_workers, min_ready, desired, .. } = *snapshot;
        let leaving = match phase {
            Phase::Starting | Phase::Serving => false,
            Phase::LameDuck | Phase::Draining | Phase::Killing | Phase::Exited => true,
        };
        match self {
            Self::Ping | Self::Breaker => None,
            Self::Pool if ready_workers > 0 => None,
            Self::Pool if snapshot.breaker == BreakerState::Open => {
                Some("workers keep crashing, none is ready".to_owned())
            }
            Self::Pool => all_hung(&snapshot.workers).then(|| "every worker is hung".to_owned()),
            Self::Startup => (!snapshot.started).then(|| "not enough workers have been ready yet".to_owned()),
            Self::Workers if ready => None,
            Self::Workers => (ready_workers < min_ready || (snapshot.started && !leaving))
                .then(|| format!("{ready_workers} of {desired} ready, {min_ready} needed")),
            Self::Shutdown => (leaving && !ready).then(|| phase.name().to_owned()),
        }
    }
}

/// And none is starting in place of one.
fn all_hung(workers: &[WorkerView]) -> bool {
    let count = |state| workers.iter().filter(|worker| worker.state == state).count();
    count(WorkerState::Hung) > 0 && count(WorkerState::Starting) == 0
}

/// One route a check rather than a pattern: a check that does not exist is a path that does not.
pub(super) fn routes() -> Router<Shared> {
    let paths = [
        ("livez", Probe::Live),
        ("healthz", Probe::Live),
        ("readyz", Probe::Ready),
        ("startupz", Probe::Startup),
    ];
    let mut router = Router::new();
    for (path, probe) in paths {
        router = router.route(&format!("/{path}"), route(probe, probe.checks()));
        for check in probe.checks() {
            router =
                router.route(&format!("/{path}/{}", check.name()), route(probe, std::slice::from_ref(check)));
        }
    }
    router
}

fn route(probe: Probe, checks: &'static [Check]) -> MethodRouter<Shared> {
    get(async move |State(shared): State<Shared>, uri: Uri| {
        let snapshot = match probe {
            Probe::Live => shared.latest(),
            Probe::Ready | Probe::Startup => shared.refreshed_if_waiting().await,
        };
        report(probe, checks, &snapshot, uri.query().unwrap_or_default())
    })
}

fn report(probe: Probe, checks: &[Check], snapshot: &Snapshot, query: &str) -> Response {
    let parameters = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let verbose = parameters().any(|(key, _)| key == "verbose");
    let excluded: Vec<&str> =
        parameters().filter(|(key, _)| *key == "exclude").map(|(_, value)| value).collect();

    let mut passed = true;
    let mut lines = String::new();
    for check in checks {
        let name = check.name();
        // Writing to a String cannot fail.
        let _ = if excluded.contains(&name) {
            writeln!(lines, "[+]{name} excluded: ok")
        } else if let Some(why) = check.failure(snapshot) {
            passed = false;
            writeln!(lines, "[-]{name} failed: {why}")
        } else {
            writeln!(lines, "[+]{name} ok{}", check.remark(snapshot))
        };
    }
    if passed && !verbose {
        return (StatusCode::OK, "ok").into_response();
    }
    for name in excluded.iter().filter(|name| !checks.iter().any(|check| check.name() == **name)) {
        let _ = writeln!(lines, "warn: no check {name:?} to exclude");
    }
    let (status, verdict) =
        if passed { (StatusCode::OK, "passed") } else { (StatusCode::SERVICE_UNAVAILABLE, "failed") };
    let _ = writeln!(lines, "{} check {verdict}", probe.name());
    (status, lines).into_response()
}
