//! The containers beside this one in the pod: those that have to be there before the first worker, and those that want
//! to be told after the last.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::checks;
use super::message::Message;
use crate::config::url::Url;

/// For one question to a sidecar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two questions: at first, and at most.
const ASK_FIRST: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Tell the loop when all of them have answered 2xx, or who has not within `limit`.
pub(super) async fn await_all(urls: Vec<Url>, limit: Duration, to_loop: mpsc::Sender<Message>) {
    let end = Instant::now() + limit;
    for url in urls {
        tracing::info!(%url, limit_seconds = limit.as_secs_f64(), "no worker is started before this answers");
        let mut last = None;
        let asked = timeout_at(end, async {
            let mut pause = ASK_FIRST;
            loop {
                match ask("GET", &url).await {
                    Some(200..=299) => return,
                    other => last = other,
                }
                sleep(pause).await;
                pause = (pause * 2).min(ASK_EVERY);
            }
        });
        if asked.await.is_err() {
            let answer = last.map_or_else(|| "no answer".to_owned(), |status| format!("answered {status}"));
            let reason = format!("--wait-for {url}: {answer} within {limit:?}");
            let _ = to_loop.send(Message::Unavailable(reason)).await;
            return;
        }
        tracing::info!(%url, "answered");
    }
    let _ = to_loop.send(Message::Begin).await;
}

/// POST to all of them at once, and wait for their answers no longer than `limit`.
pub(super) async fn tell_all(urls: Vec<Url>, limit: Duration) {
    let mut told = JoinSet::new();
    for url in urls {
        told.spawn(async move {
            let answer = timeout(limit, ask("POST", &url)).await.ok().flatten();
            match answer {
                Some(status) => tracing::info!(%url, status, "told of the end"),
                None => tracing::warn!(%url, "not told of the end: no answer"),
            }
        });
    }
    while told.join_next().await.is_some() {}
}

/// The status of the answer.
async fn ask(method: &str, url: &Url) -> Option<u16> {
    for address in &url.addresses {
        if let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(address)).await {
            let answer = checks::exchange(stream, method, &url.authority, &url.path);
            return timeout(PATIENCE, answer).await.ok().flatten();
        }
    }
    None
}
