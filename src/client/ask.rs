//! One question over the control socket, with a deadline on all of it.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::DEADLINE;
use super::endpoint::address;
use super::error::ClientError;
use crate::config::endpoint::Endpoint;
use crate::http::{self, Question};

/// The status of a thousand workers is a fifth of it.
const BODY_LIMIT: usize = 1024 * 1024;

/// Until connect(2) is tried again where the queue of the other side is full.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// What drainit said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As of HTTP.
    pub status: u16,
    /// Text or JSON.
    pub body: String,
}

/// Between two looks, where somebody watches for long.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Puts one question and waits for the answer, `deadline` at most for everything.
pub fn ask(
    endpoint: &Endpoint,
    method: &str,
    target: &str,
    body: Option<String>,
    deadline: Duration,
) -> Result<Answer, ClientError> {
    let answer = async { timeout(deadline, exchange(endpoint, method, target, body.as_deref())).await };
    runtime()?.block_on(answer).unwrap_or(Err(ClientError::Late(deadline)))
}

/// What there is to know of a roll. Counting connections takes the kernel longer than all else that a roll wants of
/// drainit.
pub(super) const ROLLS: &str = "/status?exclude=connections";

/// As [`ask`], and shows `/status` to `watch` again and again until the answer comes, pausing for `every` between two.
pub(super) fn ask_watching(
    endpoint: &Endpoint,
    method: &str,
    target: &str,
    body: Option<String>,
    deadline: Duration,
    every: Duration,
    mut watch: impl FnMut(&str),
) -> Result<Answer, ClientError> {
    let look = async || {
        let answer = timeout(WATCH_EVERY, exchange(endpoint, "GET", ROLLS, None)).await;
        answer.unwrap_or(Err(ClientError::Late(WATCH_EVERY)))
    };
    let answer = async {
        let mut question = std::pin::pin!(exchange(endpoint, method, target, body.as_deref()));
        loop {
            tokio::select! {
                biased;
                answer = &mut question => return answer,
                () = sleep(every) => {}
            }
            tokio::select! {
                biased;
                answer = &mut question => return answer,
                seen = look() => {
                    if let Ok(Answer { status: 200, body }) = seen {
                        watch(&body);
                    }
                }
            }
        }
    };
    runtime()?.block_on(async { timeout(deadline, answer).await }).unwrap_or(Err(ClientError::Late(deadline)))
}

/// Shows `/status` to `watch` again and again, until that has seen enough or nobody answers.
pub(super) fn watch_status(
    endpoint: &Endpoint,
    mut watch: impl FnMut(&str) -> bool,
) -> Result<(), ClientError> {
    runtime()?.block_on(async {
        loop {
            let answer = timeout(DEADLINE, exchange(endpoint, "GET", "/status", None)).await;
            let Answer { body, .. } = answer.unwrap_or(Err(ClientError::Late(DEADLINE)))?;
            if !watch(&body) {
                return Ok(());
            }
            sleep(WATCH_EVERY).await;
        }
    })
}

fn unusable(error: &dyn Error) -> ClientError {
    ClientError::Unusable(error.to_string())
}

fn runtime() -> Result<Runtime, ClientError> {
    Builder::new_current_thread().enable_all().build().map_err(|error| unusable(&error))
}

async fn exchange(
    endpoint: &Endpoint,
    method: &str,
    target: &str,
    body: Option<&str>,
) -> Result<Answer, ClientError> {
    let mut stream =
        connect(endpoint).await.map_err(|error| ClientError::Connect(format!("{endpoint}: {error}")))?;
    let question = Question { method, target, authority: "drainit", body };
    let answer = http::ask(&mut stream, question, BODY_LIMIT).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => unusable(&error),
        _ => ClientError::Ended,
    })?;
    Ok(Answer { status: answer.status, body: String::from_utf8_lossy(&answer.body).into_owned() })
}

/// connect(2): to a unix socket that does not block, a full queue is EAGAIN rather than a wait.
async fn connect(endpoint: &Endpoint) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(address(endpoint)).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(CONNECT_AGAIN).await,
            result => return result,
        }
    }
}
