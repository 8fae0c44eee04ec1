//! What drainit shows to others and takes from them, over HTTP.
//!
//! Everything here looks at a [`Snapshot`] that the loop publishes, or sends the loop a [`Request`]; nothing
//! here decides, and nothing here can block the loop.

mod checkers;
mod control;
mod events;
mod exposition;
#[cfg(test)]
mod floods;
mod metrics;
mod pages;
mod probes;
mod process;
mod seats;
mod serve;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::config::restart::Restart;
use crate::core::event::{Command, Outcome};
use crate::core::snapshot::{Phase, Snapshot};

pub use checkers::Checkers;
pub use serve::{serve_control, serve_tcp};

/// How long an answer is held back for a fresh snapshot.
const REFRESH_WAIT: Duration = Duration::from_millis(50);

/// What every handler can see.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The newest picture of the supervisor.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The way into the loop.
    pub requests: mpsc::Sender<Request>,
    /// What never changes.
    pub facts: Arc<Facts>,
    /// What is counted outside the core.
    pub stats: Arc<Stats>,
    /// Who may wait for the end of a roll: a hook finds a seat however many do.
    pub waiting_room: Arc<Semaphore>,
    /// Who may listen to events: each has a picture of all workers on its way to it.
    pub audience: Arc<Semaphore>,
}

/// What never changes while drainit runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of drainit itself.
    pub version: String,
    /// How long each named deadline lets somebody wait; `None`: for ever.
    pub deadlines: Vec<(&'static str, Option<Duration>)>,
}

/// What is counted outside the core. Where it is no gauge and no port it only grows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Processes reaped that were no workers.
    pub orphans_reaped: AtomicU64,
    /// Lines of drainit's own log that nobody took in time.
    pub log_lines_dropped: AtomicU64,
    /// Gauge: connections open now, admin port and control socket together.
    pub admin_connections: AtomicU64,
    /// Gauge: requests being answered now. 0 means that every answer has been handed to its connection.
    pub admin_requests: AtomicU64,
    /// Connections to the admin port, and which that is.
    pub admin_accepted: AtomicU64,
    pub admin_port: AtomicU64,
    /// Connections dropped in favour of newer ones.
    pub admin_evictions: AtomicU64,
    /// Who checks readiness.
    pub checkers: Checkers,
    /// Checks of workers that failed.
    pub checks_failed: AtomicU64,
    /// Times that a worker was stopped (SIGSTOP) to be looked at.
    pub freezes: AtomicU64,
    /// For how long altogether, in microseconds.
    pub frozen_micros: AtomicU64,
    pub late: LateStats,
}

/// Connections that no worker accepted any more, by what they got.
#[derive(Debug, Default)]
pub struct LateStats {
    /// HTTP/1's 503.
    pub unavailable: AtomicU64,
    /// HTTP/2's.
    pub goaway: AtomicU64,
    /// A clean end.
    pub closed: AtomicU64,
    pub reset: AtomicU64,
    /// Those of them that were not waited for any longer.
    pub overdue: AtomicU64,
}

impl Stats {
    /// One more of `counter`.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a handler wants of the loop. The loop always replies; nobody may be left to hear it.
#[derive(Debug)]
pub enum Request {
    /// Hand this to the core.
    Command {
        /// What to do.
        command: Command,
        /// Takes what became of it.
        reply: oneshot::Sender<Outcome>,
    },
    /// Roll to what this asks for.
    Restart {
        /// What to change.
        order: Restart,
        /// Takes what became of it.
        reply: oneshot::Sender<Outcome>,
    },
    /// Look at the workers now and publish the snapshot; only then reply.
    Refresh {
        /// Count their connections too: the kernel walks through all that there are.
        connections: bool,
        /// Told when the snapshot is out.
        reply: oneshot::Sender<()>,
    },
}

impl Shared {
    fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The snapshot after the loop has looked at the workers and counted their connections; the last one where it does not
    /// find the time.
    async fn refreshed(&self) -> Arc<Snapshot> {
        self.after_a_look(false).await
    }

    /// The same, and their connections have been counted.
    async fn counted(&self) -> Arc<Snapshot> {
        self.after_a_look(true).await
    }

    async fn after_a_look(&self, connections: bool) -> Arc<Snapshot> {
        let (reply, done) = oneshot::channel();
        if self.requests.try_send(Request::Refresh { connections, reply }).is_ok() {
            let _ = timeout(REFRESH_WAIT, done).await;
        }
        self.latest()
    }

    /// After a look at the workers, where looking can make a difference to readiness: a worker without a socket of
    /// drainit's is only looked at when somebody asks.
    async fn refreshed_if_waiting(&self) -> Arc<Snapshot> {
        let seen = self.latest();
        let waiting = !seen.ready && matches!(seen.phase, Phase::Starting | Phase::Serving);
        if waiting { self.refreshed().await } else { seen }
    }
}

/// Probes, metrics and status: safe on the pod network, but for the preStop hook where somebody wants it there.
pub fn read_only(shared: Shared, prestop: bool) -> Router {
    let hook = if prestop { control::hook() } else { Router::new() };
    finish(look().merge(hook), shared)
}

/// The same, and what changes things: for the control socket alone.
pub fn control(shared: Shared) -> Router {
    finish(look().merge(control::routes()), shared)
}

fn look() -> Router<Shared> {
    probes::routes()
        .route("/metrics", get(metrics::answer))
        .route("/status", get(pages::status))
        .route("/events", get(events::answer))
        .route("/", get(pages::overview))
}

fn finish(routes: Router<Shared>, shared: Shared) -> Router {
    routes
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(middleware::map_response(harden))
        .with_state(shared)
}

/// What Kubernetes' own components send along: an answer of a minute ago says nothing, and text is text.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
