//! A load generator that believes nothing: a new connection for each request, and every failure is kept with its
//! time and its kind. Shared by the demo and the tests.

#![allow(unreachable_pub, dead_code, reason = "shared by programs that need different parts of it")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No connection was made: nobody listens.
    Refused,
    /// The connection was made, and reset.
    Reset,
    /// The connection was made, and ended before the answer did.
    Cut,
    /// No answer in time.
    Hang,
    /// An answer, but not 200.
    Status,
}

/// One request that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub began: Instant,
    pub at: Instant,
    pub kind: Kind,
}

/// What has become of a load.
#[derive(Debug, Default)]
pub struct Report {
    pub answered: u64,
    pub failures: Vec<Failure>,
    /// The longest time between two answers, over all clients.
    pub slowest: Duration,
}

/// Clients that send requests until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Report>>,
}

/// Longer than any answer takes, shorter than a test has time.
pub const PATIENCE: Duration = Duration::from_secs(10);

impl Load {
    /// `clients` at once, each with a pause of `pause` between two requests for `path`.
    pub fn start(address: SocketAddr, path: &str, clients: usize, pause: Duration) -> Self {
        let request = http_request(path);
        Self::of(clients, pause, move || {
            check_http(&exchange(TcpStream::connect_timeout(&address, PATIENCE), &request)?)
        })
    }

    /// The same, of requests that `ask` makes.
    pub fn of<A>(clients: usize, pause: Duration, ask: A) -> Self
    where
        A: Fn() -> Result<(), Kind> + Clone + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let failed = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|_| {
                let (stop, answered, failed) =
                    (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
                let ask = ask.clone();
                thread::spawn(move || {
                    let mut report = Report::default();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        match ask() {
                            Ok(()) => {
                                report.answered += 1;
                                report.slowest = report.slowest.max(began.elapsed());
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(kind) => {
                                report.failures.push(Failure { began, at: Instant::now(), kind });
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        if !pause.is_zero() {
                            thread::sleep(pause);
                        }
                    }
                    report
                })
            })
            .collect();
        Self { stop, answered, failed, clients }
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Finish the requests under way, and tell.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .filter_map(|client| client.join().ok())
            .fold(Report::default(), Report::merge)
    }
}

impl Report {
    fn merge(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
        self
    }

    /// Failures by kind, for people.
    pub fn summary(&self) -> String {
        let kinds = [Kind::Refused, Kind::Reset, Kind::Cut, Kind::Hang, Kind::Status];
        let count = |kind| self.failures.iter().filter(|failure| failure.kind == kind).count();
        let failed: Vec<_> = kinds
            .iter()
            .filter(|kind| count(**kind) > 0)
            .map(|kind| format!("{:?} {}", kind, count(*kind)))
            .collect();
        format!("{} answered, {} failed {}", self.answered, self.failures.len(), failed.join(", "))
    }
}

pub fn http_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n").into_bytes()
}

/// An answer to an HTTP request, if it is whole and 200.
pub fn check_http(answer: &[u8]) -> Result<(), Kind> {
    if !is_whole(answer) {
        Err(Kind::Cut)
    } else if answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200") {
        Ok(())
    } else {
        Err(Kind::Status)
    }
}

/// All that a server sends on a new connection until it closes it.
pub fn exchange(connected: io::Result<TcpStream>, request: &[u8]) -> Result<Vec<u8>, Kind> {
    let mut stream = connected.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Kind::Refused,
        _ => Kind::Hang,
    })?;
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Kind::Reset,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Kind::Hang,
        _ => Kind::Cut,
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(request).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    Ok(answer)
}

/// The body is as long as its head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned())
    });
    length.is_none_or(|length| length.parse() == Ok(body.len()))
}
