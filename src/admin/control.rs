//! The routes that change things; on the control socket alone.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
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
    Router::new().route("/prestop", post(prestop)).route("/scale", post(scale))
}

/// A long poll: answers when the LB wait is over. A hook is advice, so there is nothing it could be refused.
async fn prestop(State(shared): State<Shared>) -> Answer {
    match ask(&shared, Command::PreStop).await {
        Ok(Outcome::Done(text) | Outcome::Refused(text)) => (StatusCode::OK, line(text)),
        Err(answer) => answer,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    workers: u32,
}

async fn scale(State(shared): State<Shared>, body: Body) -> Answer {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, format!("takes at most {BODY_LIMIT} bytes\n")),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not arrive\n".to_owned()),
    };
    let workers = match serde_json::from_slice(&body) {
        Ok(Scale { workers }) => workers,
        Err(error) => return bad(format!("takes {{\"workers\": N}}: {error}\n")),
    };
    if !(1..=MAX_WORKERS).contains(&workers) {
        return bad(format!("{workers} workers: takes 1 to {MAX_WORKERS}\n"));
    }
    match ask(&shared, Command::Scale(workers)).await {
        Ok(Outcome::Done(text)) => (StatusCode::OK, line(text)),
        Ok(Outcome::Refused(text)) => (StatusCode::CONFLICT, line(text)),
        Err(answer) => answer,
    }
}

/// Puts it to the loop. The reply may take as long as an LB wait: its deadline is the core's, and the
/// connection's.
async fn ask(shared: &Shared, command: Command) -> Result<Outcome, Answer> {
    let unavailable = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("drainit {why}\n"));
    let (reply, outcome) = oneshot::channel();
    match timeout(LOOP_TIMEOUT, shared.requests.send(Request::Command { command, reply })).await {
        Ok(Ok(())) => outcome.await.map_err(|_| unavailable("is exiting")),
        Ok(Err(_)) => Err(unavailable("is exiting")),
        Err(_) => Err(unavailable("is busy")),
    }
}

fn line(text: String) -> String {
    text + "\n"
}
