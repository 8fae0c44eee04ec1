//! One question over the control socket, with a deadline on all of it.

use std::error::Error;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::DEADLINE;
use super::endpoint::address;
use super::error::ClientError;
use crate::config::endpoint::Endpoint;

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

/// Between two looks at what is going on.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The same, where somebody watches for long.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Puts one question and waits for the answer, `deadline` at most for everything.
pub fn ask(
    endpoint: &Endpoint,
    method: &str,
    target: &str,
    body: Option<String>,
    deadline: Duration,
) -> Result<Answer, ClientError> {
    let request = request(method, target, body)?;
    let answer = async { timeout(deadline, exchange(endpoint, request)).await };
    runtime()?.block_on(answer).unwrap_or(Err(ClientError::Late(deadline)))
}

/// As [`ask`], and shows `/status` to `watch` again and again until the answer comes.
pub(super) fn ask_watching(
    endpoint: &Endpoint,
    method: &str,
    target: &str,
    body: Option<String>,
    deadline: Duration,
    mut watch: impl FnMut(&str),
) -> Result<Answer, ClientError> {
    let question = request(method, target, body)?;
    let look = async || {
        let answer = timeout(LOOK_EVERY * 4, exchange(endpoint, request("GET", "/status", None)?)).await;
        answer.unwrap_or(Err(ClientError::Late(LOOK_EVERY)))
    };
    let answer = async {
        let mut question = std::pin::pin!(exchange(endpoint, question));
        loop {
            tokio::select! {
                biased;
                answer = &mut question => return answer,
                () = sleep(LOOK_EVERY) => {}
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
            let answer = timeout(DEADLINE, exchange(endpoint, request("GET", "/status", None)?)).await;
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

fn request(method: &str, target: &str, body: Option<String>) -> Result<Request<String>, ClientError> {
    let mut request = Request::builder().method(method).uri(target).header(HOST, "drainit");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request.body(body.unwrap_or_default()).map_err(|error| unusable(&error))
}

async fn exchange(endpoint: &Endpoint, request: Request<String>) -> Result<Answer, ClientError> {
    let ended = |_| ClientError::Ended;
    let stream =
        connect(endpoint).await.map_err(|error| ClientError::Connect(format!("{endpoint}: {error}")))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ended)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(ended)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_err(|error| {
        if error.is::<hyper::Error>() { ClientError::Ended } else { ClientError::Unusable(error.to_string()) }
    })?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Answer { status, body })
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
