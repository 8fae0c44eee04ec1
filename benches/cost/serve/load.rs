//! Clients that are as fast as they can be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// A new one for each request.
    New,
    /// Each client keeps its own.
    Kept,
}

/// When a load is over.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    After(Duration),
    Requests(u64),
}

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    /// Why, and how often.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Who got how many connections.
    pub(crate) connections: BTreeMap<i32, u64>,
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Connections of whoever has most, to one of whoever has least.
    pub(crate) fn imbalance(&self, workers: usize) -> f64 {
        let most = self.connections.values().max().copied().unwrap_or_default();
        let least = self.connections.values().min().copied().unwrap_or_default();
        // One that has none at all counts as if it had one, as the peers were counted.
        let least = if self.connections.len() < workers { 1 } else { least };
        most as f64 / least as f64
    }

    fn merge(&mut self, other: Self) {
        self.answered += other.answered;
        let add = |to: &mut u64, more| *to += more;
        other
            .connections
            .into_iter()
            .for_each(|(pid, more)| add(self.connections.entry(pid).or_default(), more));
        other.failed.into_iter().for_each(|(why, more)| add(self.failed.entry(why).or_default(), more));
    }

    fn connected(&mut self, pid: i32) {
        *self.connections.entry(pid).or_default() += 1;
    }

    fn failed(&mut self, error: &io::Error) {
        *self.failed.entry(error.to_string()).or_default() += 1;
    }
}

/// `clients` at once, each sending its next request when it has its answer. As many threads as there are processors:
/// most of the kernel's work for a connection over loopback is done by whoever connects.
pub(crate) fn closed(
    address: SocketAddr,
    connections: Connections,
    clients: usize,
    limit: Limit,
) -> io::Result<Outcome> {
    let threads = thread::available_parallelism()?.get().min(clients);
    let left = Arc::new(AtomicU64::new(match limit {
        Limit::After(_) => u64::MAX,
        Limit::Requests(count) => count,
    }));
    let began = Instant::now();
    let threads: Vec<_> = (0..threads)
        .map(|number| {
            let left = Arc::clone(&left);
            let clients = clients / threads + usize::from(number < clients % threads);
            thread::spawn(move || share(address, connections, clients, &left))
        })
        .collect();
    if let Limit::After(duration) = limit {
        thread::sleep(duration);
        left.store(0, Ordering::Relaxed);
    }
    // One that gets no answer is to be counted, not to be waited for.
    let stopped = began.elapsed();
    let mut outcome = Outcome::default();
    for thread in threads {
        outcome.merge(thread.join().map_err(|_| io::Error::other("the load has ended"))??);
    }
    outcome.took = if matches!(limit, Limit::After(_)) { stopped } else { began.elapsed() };
    Ok(outcome)
}

/// One thread's share of it.
fn share(
    address: SocketAddr,
    connections: Connections,
    clients: usize,
    left: &Arc<AtomicU64>,
) -> io::Result<Outcome> {
    block_on(async {
        let outcome = Rc::new(RefCell::new(Outcome::default()));
        let local = LocalSet::new();
        for _ in 0..clients {
            local.spawn_local(client(address, connections, Rc::clone(&outcome), Arc::clone(left)));
        }
        local.await;
        outcome.take()
    })
}

async fn client(
    address: SocketAddr,
    connections: Connections,
    outcome: Rc<RefCell<Outcome>>,
    left: Arc<AtomicU64>,
) {
    let mut kept = None;
    let next = |left: u64| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
        let result = match connections {
            Connections::New => in_time(ask_once(address)).await.inspect(|pid| {
                outcome.borrow_mut().connected(*pid);
            }),
            Connections::Kept => in_time(ask_again(address, &mut kept, &outcome)).await,
        };
        match result {
            Ok(_) => outcome.borrow_mut().answered += 1,
            Err(error) => {
                kept = None;
                outcome.borrow_mut().failed(&error);
            }
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

async fn in_time<T>(request: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, request).await.unwrap_or_else(|_| Err(io::Error::other("no answer")))
}

/// Who has answered on a connection of its own.
async fn ask_once(address: SocketAddr) -> io::Result<i32> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(1024);
    while stream.read_buf(&mut answer).await? > 0 {}
    whole(&answer).ok_or_else(|| io::Error::other("cut short"))?
}

async fn ask_again(
    address: SocketAddr,
    kept: &mut Option<TcpStream>,
    outcome: &RefCell<Outcome>,
) -> io::Result<i32> {
    let is_new = kept.is_none();
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(TcpStream::connect(address).await?),
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other("cut short"));
        }
        if let Some(pid) = whole(&answer) {
            return pid.inspect(|pid| {
                if is_new {
                    outcome.borrow_mut().connected(*pid);
                }
            });
        }
    }
}

/// The body, which is a process id, if all of the answer is there.
fn whole(answer: &[u8]) -> Option<io::Result<i32>> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Some(Err(io::Error::other("not 200")));
    }
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "))?;
    (length.parse() == Ok(body.len())).then(|| body.parse().map_err(io::Error::other))
}
