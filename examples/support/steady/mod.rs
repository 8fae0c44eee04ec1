//! A load that is steady: so many requests a second, whatever the server does. It is one thread, so that it takes little
//! from the servers on the same machine; what it was late with it says.

#![allow(unreachable_pub, dead_code, reason = "shared by programs that need different parts of it")]
#![allow(clippy::disallowed_methods, reason = "a load generator reads clocks, and is a thread of its own")]

mod request;
mod tally;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep_until;

pub use request::Answer;
use request::Connection;
pub use tally::{Failure, Tally};

/// On which connections the requests are sent, and when.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Each on a new one, so many a second.
    New { rate: u32 },
    /// So many a second on so many connections that are kept, the one that has rested longest first.
    Kept { rate: u32, connections: usize },
    /// So many at any time, each followed by the next: for answers that take seconds.
    Streams { at_once: u32, each: Duration },
}

impl Shape {
    pub const NEW: Self = Self::New { rate: 500 };
    pub const KEPT: Self = Self::Kept { rate: 500, connections: 32 };
    pub const STREAMS: Self = Self::Streams { at_once: 30, each: Duration::from_secs(3) };

    /// Streams are begun evenly, so that there is always one that has just begun, and one that is about to end.
    fn rate(self) -> f64 {
        match self {
            Self::New { rate } | Self::Kept { rate, .. } => f64::from(rate),
            Self::Streams { at_once, each } => f64::from(at_once) / each.as_secs_f64(),
        }
    }
}

/// Somebody who sends requests until told to stop.
pub struct Steady {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<Tally>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Steady {
    pub fn start(address: SocketAddr, path: &str, shape: Shape) -> Self {
        Self::telling(address, path, shape, |_, _| ())
    }

    /// The same; `tell` gets each answer and the time at which its request was sent.
    pub fn telling(
        address: SocketAddr,
        path: &str,
        shape: Shape,
        tell: impl FnMut(&Answer, Instant) + Send + 'static,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let (theirs, path) = (Arc::clone(&shared), path.to_owned());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let client = Client {
                address,
                request: request(&path, shape),
                keeps: if let Shape::Kept { connections, .. } = shape { connections } else { 0 },
                idle: RefCell::default(),
                busy: Cell::default(),
                tally: RefCell::new(Tally::new(Instant::now())),
                tell: RefCell::new(tell),
                shared: theirs,
            };
            Ok(runtime.block_on(LocalSet::new().run_until(pace(Rc::new(client), shape.rate()))))
        });
        Self { shared, thread }
    }

    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Send no more, wait for the answers to those that have been sent, and tell.
    pub fn stop(self) -> io::Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the load has ended by itself"))?
    }
}

fn request(path: &str, shape: Shape) -> Vec<u8> {
    let close = if matches!(shape, Shape::Kept { .. }) { "" } else { "Connection: close\r\n" };
    format!("GET {path} HTTP/1.1\r\nHost: load\r\n{close}\r\n").into_bytes()
}

struct Client<T> {
    address: SocketAddr,
    request: Vec<u8>,
    keeps: usize,
    idle: RefCell<VecDeque<Connection>>,
    /// Requests under way.
    busy: Cell<usize>,
    tally: RefCell<Tally>,
    tell: RefCell<T>,
    shared: Arc<Shared>,
}

async fn pace<T: FnMut(&Answer, Instant) + 'static>(client: Rc<Client<T>>, rate: f64) -> Tally {
    let began = client.tally.borrow().began;
    let mut under_way = JoinSet::new();
    let mut number = 0.0;
    while !client.shared.stop.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs_f64(number / rate);
        sleep_until(due.into()).await;
        client.tally.borrow_mut().sends(due, Instant::now());
        under_way.spawn_local(Rc::clone(&client).send());
        while under_way.try_join_next().is_some() {}
        number += 1.0;
    }
    while under_way.join_next().await.is_some() {}
    let mut tally = client.tally.borrow().clone();
    tally.took = began.elapsed();
    tally
}

impl<T: FnMut(&Answer, Instant)> Client<T> {
    async fn send(self: Rc<Self>) {
        let sent = Instant::now();
        let result = self.ask(sent).await;
        let count = if result.is_ok() { &self.shared.answered } else { &self.shared.failed };
        count.fetch_add(1, Ordering::Relaxed);
        let heard = *result.as_ref().unwrap_or(&Instant::now());
        self.tally.borrow_mut().hears(sent, heard, result.map(drop));
    }

    /// When the answer was here.
    async fn ask(&self, sent: Instant) -> Result<Instant, Failure> {
        self.busy.set(self.busy.get() + 1);
        let result = self.ask_somebody(sent).await;
        self.busy.set(self.busy.get() - 1);
        result
    }

    async fn ask_somebody(&self, sent: Instant) -> Result<Instant, Failure> {
        let kept = self.take_idle();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::new(self.address).await?,
        };
        let answer = connection.ask(&self.request).await?;
        let heard = Instant::now();
        (self.tell.borrow_mut())(&answer, sent);
        if self.keeps == 0 {
            connection.wait_for_end().await;
        } else if !answer.last && self.idle.borrow().len() < self.keeps {
            self.idle.borrow_mut().push_back(connection);
        }
        Ok(heard)
    }

    /// The one that has rested longest, unless there are to be more of them, or all are busy.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        if idle.len() + self.busy.get() <= self.keeps {
            return None;
        }
        while let Some(connection) = idle.pop_front() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }
}
