//! For tests: a snapshot of every phase, a loop that answers, a server and a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Facts, Request, Shared, Stats, control, read_only, serve_tcp};
use crate::core::event::{Command, Outcome};
use crate::core::history::RollTotals;
use crate::core::snapshot::{BreakerState, Counters, DrainView, Phase, Snapshot, WorkerState, WorkerView};
use crate::core::types::{Generation, Pid, WorkerId};

/// Four workers, three of them needed; as many are ready as the phase makes likely.
pub(crate) fn snapshot(phase: Phase) -> Snapshot {
    let ready_workers = match phase {
        Phase::Starting => 2,
        Phase::Serving | Phase::LameDuck => 4,
        Phase::Draining | Phase::Killing | Phase::Exited => 0,
    };
    let drain = DrainView {
        trigger: "SIGTERM".to_owned(),
        elapsed_seconds: 1.5,
        lb_wait_seconds: 3.0,
        lb_wait: None,
        deadline_seconds: 29.0,
    };
    Snapshot {
        phase,
        ready: phase == Phase::Serving,
        started: phase != Phase::Starting,
        generation: Generation(1),
        breaker: BreakerState::Closed,
        uptime_seconds: 12.5,
        desired: 4,
        ready_workers,
        min_ready: 3,
        workers: (0..4)
            .map(|slot| WorkerView {
                id: WorkerId(u64::from(slot)),
                slot,
                pid: Some(Pid(100 + slot as i32)),
                generation: Generation(1),
                version: None,
                state: if slot < ready_workers { WorkerState::Ready } else { WorkerState::Starting },
                ready: slot < ready_workers,
                socket: "inherited",
                connections: Some(slot),
                status_text: None,
                main_pid: None,
                uptime_seconds: 12.0,
            })
            .collect(),
        roll: None,
        rolls: RollTotals::default(),
        history: Vec::new(),
        timeline: Vec::new(),
        breaker_reason: None,
        breaker_reset_seconds: None,
        drain: (!matches!(phase, Phase::Starting | Phase::Serving)).then_some(drain),
        counters: Counters { restarts_crash: 2, spawns: 6, ..Counters::default() },
    }
}

/// What handlers see, and the loop's ends of it.
pub(crate) fn fixture(snapshot: Snapshot) -> (Shared, watch::Sender<Arc<Snapshot>>, mpsc::Receiver<Request>) {
    let (publish, snapshot) = watch::channel(Arc::new(snapshot));
    let (requests, incoming) = mpsc::channel(16);
    let deadlines = vec![("hard", Some(Duration::from_secs(29))), ("ready", None)];
    let facts = Arc::new(Facts { version: "0.1.0".to_owned(), deadlines });
    let waiting_room = Arc::new(Semaphore::new(1));
    let audience = Arc::new(Semaphore::new(2));
    (Shared { snapshot, requests, facts, stats: Arc::default(), waiting_room, audience }, publish, incoming)
}

/// Stands in for the daemon: does everything at once, and refuses more than eight workers.
pub(crate) async fn serve_loop(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Refresh { reply, .. } => drop(reply.send(())),
            Request::Restart { order, reply } => {
                drop(reply.send(match order.version.as_deref() {
                    Some("bad") => Outcome::RolledBack("rolled back: worker 0 exited with code 1".to_owned()),
                    Some("early") => Outcome::Refused("the breaker is open for 42 s more".to_owned()),
                    _ => Outcome::Done("rolled to generation 2".to_owned()),
                }));
            }
            Request::Command { command, reply } => {
                let outcome = match command {
                    Command::PreStop => Outcome::Done("waited".to_owned()),
                    Command::Scale(workers) if workers > 8 => Outcome::Refused("no memory".to_owned()),
                    Command::Scale(workers) => Outcome::Done(format!("{workers} workers")),
                    Command::Roll(_) => Outcome::Done("generation 2 is on its way".to_owned()),
                    Command::Abort => Outcome::Refused("no roll is running".to_owned()),
                };
                drop(reply.send(outcome));
            }
        }
    }
}

/// Serves `router` on a port of its own.
pub(crate) async fn listen(router: Router, limit: usize, stats: &Arc<Stats>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_tcp(listener, router, limit, Arc::clone(stats)));
    address
}

/// Serves both kinds of routes for one test; the way to publish another snapshot comes along.
pub(crate) async fn serve(
    snapshot: Snapshot,
    control_too: bool,
) -> (SocketAddr, watch::Sender<Arc<Snapshot>>) {
    let (shared, publish, requests) = fixture(snapshot);
    tokio::spawn(serve_loop(requests));
    let stats = Arc::clone(&shared.stats);
    let router = if control_too { control(shared) } else { read_only(shared, false) };
    (listen(router, 8, &stats).await, publish)
}

/// An answer; its head in lower case.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|each| each == line)
    }
}

pub(crate) async fn send(address: SocketAddr, request: &str, more: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}");
    let text = if more.contains("\r\n\r\n") { text } else { text + "\r\n" };
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    Reply::parse(&reply)
}

pub(crate) async fn fetch(address: SocketAddr, target: &str) -> (u16, String) {
    let reply = send(address, &format!("GET {target}"), "").await;
    (reply.status, reply.body)
}

pub(crate) async fn put(address: SocketAddr, target: &str, body: &str) -> (u16, String) {
    let more = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let reply = send(address, &format!("POST {target}"), &more).await;
    (reply.status, reply.body)
}
