//! Checks of one worker: that it accepts, that it answers, that a command is content with it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::message::Message;
use crate::admin::Stats;
use crate::config::Health;
use crate::config::values::Check;
use crate::core::event::Hang;
use crate::core::types::WorkerId;
use crate::http::{self, Question};
use crate::sys::sock_diag;

/// Between two looks whether a connection has been accepted: at first, and at most.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Check a worker that is ready, until it is hung or nobody listens any more.
pub(super) async fn watch(
    worker: WorkerId,
    health: Health,
    stats: Arc<Stats>,
    to_loop: mpsc::Sender<Message>,
) {
    let mut failed = 0;
    while failed < health.failures {
        sleep(health.every).await;
        if passes(worker, &health.check, health.timeout, &to_loop).await {
            failed = 0;
        } else {
            failed += 1;
            Stats::count(&stats.checks_failed);
            tracing::debug!(worker = worker.0, failed, "check failed");
        }
    }
    let _ = to_loop.send(Message::Hung(worker, Hang::Checks)).await;
}

/// Whether the worker passes, within this time.
pub(super) async fn passes(
    worker: WorkerId,
    check: &Check,
    limit: Duration,
    to_loop: &mpsc::Sender<Message>,
) -> bool {
    let passes = async {
        match check {
            Check::Tcp(Some(port)) => connect(*port, limit, to_loop).await.is_some(),
            Check::Tcp(None) => accepts(worker, to_loop).await.unwrap_or(false),
            Check::Http { port: Some(port), path } => match connect(*port, limit, to_loop).await {
                Some(stream) => answers(stream, path).await,
                None => false,
            },
            Check::Http { port: None, path } => match aim(worker, to_loop).await {
                Some(stream) => answers(stream, path).await,
                None => false,
            },
            Check::Exec(command) => {
                let (reply, answer) = oneshot::channel();
                let command = command.clone();
                let check = Message::Check { worker, command, timeout: limit, reply };
                // The loop ends a command that takes too long.
                return to_loop.send(check).await.is_ok() && answer.await.unwrap_or(false);
            }
        }
    };
    match check {
        Check::Exec(_) => passes.await,
        Check::Tcp(_) | Check::Http { .. } => timeout(limit, passes).await.unwrap_or(false),
    }
}

/// Whoever listens on that port of this machine.
async fn connect(port: u16, limit: Duration, to_loop: &mpsc::Sender<Message>) -> Option<TcpStream> {
    let local =
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    for address in local {
        if let Ok(Ok(stream)) = timeout(limit / 2, TcpStream::connect(address)).await {
            let from = stream.local_addr().ok()?.port();
            let _ = to_loop.try_send(Message::Connected { from });
            return Some(stream);
        }
    }
    None
}

/// This worker, on the pool's own socket.
async fn aim(worker: WorkerId, to_loop: &mpsc::Sender<Message>) -> Option<TcpStream> {
    let (reply, stream) = oneshot::channel();
    to_loop.send(Message::Connect { worker, reply }).await.ok()?;
    let stream = TcpStream::from_std(stream.await.ok()?.ok()?).ok()?;
    stream.writable().await.ok()?;
    stream.take_error().ok()?.is_none().then_some(stream)
}

/// The kernel confirms connections that nobody accepts: a worker that hangs would pass, so it has to accept this one.
async fn accepts(worker: WorkerId, to_loop: &mpsc::Sender<Message>) -> Option<bool> {
    let stream = aim(worker, to_loop).await?;
    let (local, remote) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let mut pause = LOOK_FIRST;
    // Where the kernel does not tell, a connection has to do.
    while !sock_diag::is_accepted(local, remote).unwrap_or(true) {
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
    Some(true)
}

async fn answers(stream: TcpStream, path: &str) -> bool {
    let port = stream.peer_addr().map_or(0, |peer| peer.port());
    let status = exchange(stream, "GET", &format!("localhost:{port}"), path).await;
    status.is_some_and(|status| (200..400).contains(&status))
}

/// One question; the status of its answer.
pub(super) async fn exchange(
    mut stream: TcpStream,
    method: &str,
    authority: &str,
    path: &str,
) -> Option<u16> {
    let question = Question { method, target: path, authority, body: None };
    http::ask(&mut stream, question, 0).await.ok().map(|answer| answer.status)
}
