//! `/events`: `/status` each time that something in it changes, as server-sent events (WHATWG HTML, 9.2).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::Shared;

/// Between one event and the next. What changes faster is seen in the next one.
const PACE: Duration = Duration::from_millis(100);

/// A comment that says nothing: whoever has gone unnoticed is noticed by it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Until a reader comes back whose connection has lived its time.
const PREAMBLE: &str = "retry: 1000\n\n";

pub(super) async fn answer(State(shared): State<Shared>) -> Response {
    let Ok(seat) = Arc::clone(&shared.audience).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many are listening; /status can be asked\n")
            .into_response();
    };
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(narrate(shared, tell, seat));
    ([(CONTENT_TYPE, "text/event-stream")], Body::new(Story(told))).into_response()
}

/// Until nobody listens, or there is nothing more to tell.
async fn narrate(mut shared: Shared, tell: mpsc::Sender<Bytes>, _seat: OwnedSemaphorePermit) {
    let first = shared.counted().await;
    shared.snapshot.mark_unchanged();
    let Ok(json) = serde_json::to_string(&*first) else { return };
    let mut text = format!("{PREAMBLE}event: status\ndata: {json}\n\n");
    while tell.send(text.into()).await.is_ok() {
        text = tokio::select! {
            () = tell.closed() => return,
            changed = timeout(HEARTBEAT, shared.snapshot.changed()) => match changed {
                Ok(Ok(())) => {
                    sleep(PACE).await;
                    let latest = Arc::clone(&shared.snapshot.borrow_and_update());
                    let Ok(json) = serde_json::to_string(&*latest) else { return };
                    format!("event: status\ndata: {json}\n\n")
                }
                Ok(Err(_)) => return,
                Err(_) => ":\n\n".to_owned(),
            },
        };
    }
}

struct Story(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Story {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
