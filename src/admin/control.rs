//! The routes that change things; on the control socket alone.

mod restart;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Request, Shared};
use crate::core::config::MAX_WORKERS;
use crate::core::event::{Command, Outcome};

const BODY_LIMIT: usize = 1024;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the loop may take to accept a request.
const LOOP_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = (StatusCode, String);

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/prestop", post(prestop))
        .route("/scale", post(scale))
        .route("/restart", post(restart::restart))
        .route("/abort", post(restart::abort))
}

/// `httpGet` of a lifecycle hook can only GET.
pub(super) fn hook() -> Router<Shared> {
    let prestop = async |State(shared): State<Shared>| {
        // Whoever comes in crowds finds the hook busy, and probes find a seat.
        match Arc::clone(&shared.waiting_room).try_acquire_owned() {
            Ok(_seat) => prestop(State(shared)).await,
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many are waiting\n".to_owned()),
        }
    };
    Router::new().route("/prestop", get(prestop).post(prestop))
}

/// A long poll: answers when the LB wait is over. A hook is advice, so there is nothing it could be refused.
async fn prestop(State(shared): State<Shared>) -> Answer {
    match ask(&shared, Command::PreStop).await {
        Ok(Outcome::Done(text) | Outcome::Refused(text) | Outcome::RolledBack(text)) => {
            (StatusCode::OK, line(text))
        }
        Err(answer) => answer,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    workers: u32,
}

async fn scale(State(shared): State<Shared>, body: Body) -> Answer {
    let Scale { workers } = match read(body, BODY_LIMIT, "{\"workers\": N}").await {
        Ok(scale) => scale,
        Err(answer) => return answer,
    };
    if !(1..=MAX_WORKERS).contains(&workers) {
        return (StatusCode::BAD_REQUEST, format!("{workers} workers: takes 1 to {MAX_WORKERS}\n"));
    }
    answer(ask(&shared, Command::Scale(workers)).await)
}

/// What a client sends, if it is what is taken here.
async fn read<T: DeserializeOwned>(body: Body, limit: usize, takes: &str) -> Result<T, Answer> {
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("takes at most {limit} bytes\n"))),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive\n".to_owned())),
    };
    // Whoever asks by hand has nothing to say mostly.
    let body = if body.is_empty() { &b"{}"[..] } else { &body };
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("takes {takes}: {error}\n")))
}

fn answer(outcome: Result<Outcome, Answer>) -> Answer {
    match outcome {
        Ok(Outcome::Done(text)) => (StatusCode::OK, line(text)),
        Ok(Outcome::Refused(text)) => (StatusCode::CONFLICT, line(text)),
        Ok(Outcome::RolledBack(text)) => (StatusCode::UNPROCESSABLE_ENTITY, line(text)),
        Err(answer) => answer,
    }
}

/// Puts it to the loop. The reply may take as long as an LB wait or a roll: its deadline is the core's, and the
/// connection's.
async fn ask(shared: &Shared, command: Command) -> Result<Outcome, Answer> {
    put(shared, |reply| Request::Command { command, reply }).await
}

async fn put(
    shared: &Shared,
    request: impl FnOnce(oneshot::Sender<Outcome>) -> Request,
) -> Result<Outcome, Answer> {
    let unavailable = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("drainit {why}\n"));
    let (reply, outcome) = oneshot::channel();
    match timeout(LOOP_TIMEOUT, shared.requests.send(request(reply))).await {
        Ok(Ok(())) => outcome.await.map_err(|_| unavailable("is exiting")),
        Ok(Err(_)) => Err(unavailable("is exiting")),
        Err(_) => Err(unavailable("is busy")),
    }
}

fn line(text: String) -> String {
    text + "\n"
}
