//! `/status` for programs and `/` for people. Neither shows arguments or environment: they hold secrets.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};

use super::Shared;

const NO_CONNECTIONS: &str = "exclude=connections";

/// The snapshot as JSON; `?exclude=connections` leaves out what is dear to find out.
pub(super) async fn status(State(shared): State<Shared>, uri: Uri) -> Response {
    let snapshot = if uri.query().is_some_and(|query| query.split('&').any(|pair| pair == NO_CONNECTIONS)) {
        let mut snapshot = shared.refreshed().await;
        Arc::make_mut(&mut snapshot).workers.iter_mut().for_each(|worker| worker.connections = None);
        snapshot
    } else {
        shared.counted().await
    };
    match serde_json::to_string(&*snapshot) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// A page for people, without scripts.
pub(super) async fn overview(State(shared): State<Shared>) -> Html<String> {
    let snapshot = shared.refreshed().await;
    let mut rows = String::new();
    for worker in &snapshot.workers {
        let pid = worker.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (slot, state, uptime) = (worker.slot, worker.state.name(), worker.uptime_seconds);
        // Writing to a String cannot fail.
        let _ =
            write!(rows, "<tr><td>{slot}<td>{pid}<td>{}<td>{state}<td>{uptime:.0} s", worker.generation.0);
    }
    let roll = snapshot.roll.as_ref().map(|roll| {
        let (from, to, stage, done, workers) =
            (roll.from.0, roll.to.0, roll.stage.name(), roll.done, roll.workers);
        format!("<p>roll {}, {from} to {to}: {stage}, {done} of {workers} done", roll.roll)
    });
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>drainit</title>\
         <h1>{phase}, {ready}</h1>\
         <p>{ready_workers} of {desired} workers ready, {min_ready} needed; breaker {breaker}; up {uptime:.0} s{roll}\
         <table><tr><th>slot<th>pid<th>generation<th>state<th>up{rows}</table>\
         <p><a href=/livez?verbose>livez</a> <a href=/readyz?verbose>readyz</a> \
         <a href=/startupz?verbose>startupz</a> <a href=/metrics>metrics</a> <a href=/status>status</a>\n",
        roll = roll.unwrap_or_default(),
        phase = snapshot.phase.name(),
        ready = if snapshot.ready { "ready" } else { "not ready" },
        ready_workers = snapshot.ready_workers,
        desired = snapshot.desired,
        min_ready = snapshot.min_ready,
        breaker = snapshot.breaker.name(),
        uptime = snapshot.uptime_seconds,
    ))
}
