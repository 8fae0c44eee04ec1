//! Connections: accepting them, bounding them in number, time and memory.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::header::USER_AGENT;
use axum::http::{HeaderValue, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::Stats;
use super::seats::{Seat, Seats};

/// For the head of a request, and for a connection kept alive to send its next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_HEADERS: usize = 32;
const MAX_BUFFER: usize = 16 * 1024;

/// How long a connection may live.
const TCP_LIFETIME: Duration = Duration::from_secs(60);
/// The preStop hook is a long poll.
const CONTROL_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// For the answer under way when that is over.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Until accept(2) is tried again after an error that will not go away by itself.
const BACKOFF: Duration = Duration::from_millis(100);

/// How many connections are accepted before those that have been are served; less where few may stay.
const BATCH: usize = 16;

/// Serves the admin port. Never returns.
pub async fn serve_tcp(listener: TcpListener, router: Router, limit: usize, stats: Arc<Stats>) {
    deepen_queue(&listener);
    let port = listener.local_addr().map_or(0, |address| address.port());
    stats.admin_port.store(port.into(), Ordering::Relaxed);
    let counted = Arc::clone(&stats);
    let accept = |context: &mut Context<'_>| {
        listener.poll_accept(context).map_ok(|(stream, _)| {
            Stats::count(&counted.admin_accepted);
            // The tail of a long answer must not wait for the acknowledgement of what went before.
            let _ = stream.set_nodelay(true);
            stream
        })
    };
    let route = |stream: &TcpStream| (router.clone(), stream.peer_addr().ok());
    serve(accept, route, Seats::new(limit, stats), TCP_LIFETIME).await;
}

/// Serves the control socket; whoever is not `allowed` is told so. Never returns.
pub async fn serve_control(
    listener: UnixListener,
    router: Router,
    limit: usize,
    allowed: impl Fn(&UnixStream) -> bool,
    stats: Arc<Stats>,
) {
    deepen_queue(&listener);
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    // Closing at once would look to a client as if drainit had exited.
    let refusal = Router::new().fallback(async || (StatusCode::FORBIDDEN, "not permitted\n"));
    let route = |stream: &UnixStream| (if allowed(stream) { router.clone() } else { refusal.clone() }, None);
    serve(accept, route, Seats::new(limit, stats), CONTROL_LIFETIME).await;
}

async fn serve<S>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>>,
    route: impl Fn(&S) -> (Router, Option<SocketAddr>),
    seats: Arc<Seats>,
    lifetime: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let batch = (seats.limit() / 4).clamp(1, BATCH);
    let mut accepted = 0_usize;
    loop {
        match poll_fn(&mut accept).await {
            Ok(stream) => {
                if let Some(seat) = seats.take().await {
                    let (router, peer) = route(&stream);
                    // A task of its own contains a panic.
                    tokio::spawn(converse(stream, router, peer, seat, lifetime));
                }
                accepted = (accepted + 1) % batch;
                if accepted > 0 {
                    continue;
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            // With the descriptor of an idle connection, the next attempt succeeds.
            Err(error) if is_shortage(&error) && seats.evict() => {}
            Err(_) => sleep(BACKOFF).await,
        }
        // However many are waiting to be accepted, those that have been get their turn, to be served or to go.
        yield_now().await;
    }
}

/// listen(2), once more: tokio's queue of 128 overflows in a flood, and then a probe's SYN is dropped, to be sent
/// again a second later. The kernel cuts this to net.core.somaxconn.
fn deepen_queue(listener: &impl AsFd) {
    let _ = listen(listener, Backlog::MAXALLOWABLE);
}

async fn converse<S>(stream: S, router: Router, peer: Option<SocketAddr>, seat: Arc<Seat>, lifetime: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        let busy = seat.busy();
        let checker = peer.filter(|_| is_of_a_load_balancer(&request));
        let seat = &seat;
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            drop(busy);
            if let (Some(peer), Ok(answer)) = (checker, &answer) {
                let refused = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
                seat.stats().checkers.note(peer.ip().to_canonical(), refused);
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        () = seat.evicted() => return,
        _ = connection.as_mut() => return,
        () = sleep(lifetime) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(LAST_ANSWER, connection).await;
}

/// A check of readiness, and not the kubelet's: that one has taken the pod out of its endpoints when it was deleted.
fn is_of_a_load_balancer<B>(request: &Request<B>) -> bool {
    let agent = request.headers().get(USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
    request.uri().path().starts_with("/readyz") && !agent.starts_with(b"kube-probe/")
}

/// accept(2), "Error handling": pending errors of the new socket are passed on; the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut)
}

fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
