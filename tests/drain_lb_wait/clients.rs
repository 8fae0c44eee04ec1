//! Who connects to a pod: load balancers, sidecars, probes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::http;

/// Does something again and again, until it is dropped.
pub(crate) struct Repeated {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repeated {
    pub(crate) fn every(period: Duration, mut act: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                act();
                thread::park_timeout(period);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The server closes it after its answer, and remembers it for a minute.
    ByServer,
    /// The client has sent a request and is gone: no list of connections will ever show it.
    ByReset,
}

pub(crate) fn connect(address: SocketAddr, end: End) {
    match end {
        End::ByServer => {
            let _ = http::get(address, "/");
        }
        End::ByReset => {
            let Ok(mut stream) = TcpStream::connect(address) else { return };
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            reset(stream);
        }
    }
}

fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (value, size) = ((&raw const linger).cast(), size_of_val(&linger) as libc::socklen_t);
    let set = unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
    assert_eq!(set, 0);
}

/// Sends new connections until it is told to let go.
pub(crate) struct LoadBalancer {
    sending: Repeated,
    last: Arc<Mutex<(Instant, Instant)>>,
}

impl LoadBalancer {
    pub(crate) fn of(address: SocketAddr, period: Duration, end: End) -> Self {
        let now = Instant::now();
        let last = Arc::new(Mutex::new((now, now)));
        let noted = Arc::clone(&last);
        let sending = Repeated::every(period, move || {
            let before = Instant::now();
            connect(address, end);
            *noted.lock().unwrap() = (before, Instant::now());
        });
        Self { sending, last }
    }

    /// When the last connection began, and when it was over.
    pub(crate) fn lets_go(self) -> (Instant, Instant) {
        drop(self.sending);
        *self.last.lock().unwrap()
    }
}

/// Somebody else in the same network namespace, with connections of its own: fifty a second.
pub(crate) struct Sidecar {
    _clients: Repeated,
    _server: Repeated,
    pub(crate) connections: Arc<AtomicU32>,
}

impl Sidecar {
    pub(crate) fn start(end: End) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Repeated::every(Duration::from_millis(1), move || {
            while let Ok((mut stream, _)) = listener.accept() {
                // What is left unread would make it a reset.
                let _ = stream.set_nonblocking(false).and_then(|()| stream.read(&mut [0; 1024]));
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        let clients = Repeated::every(Duration::from_millis(20), move || {
            connect(address, end);
            counted.fetch_add(1, Ordering::Relaxed);
        });
        Self { _clients: clients, _server: server, connections }
    }
}

/// Checks readiness and keeps what it was answered.
pub(crate) struct Checker {
    checking: Repeated,
    refused: Arc<AtomicU32>,
}

impl Checker {
    pub(crate) fn of(admin: SocketAddr, period: Duration, agent: &str) -> Self {
        let refused = Arc::new(AtomicU32::new(0));
        let (counted, headers) = (Arc::clone(&refused), format!("User-Agent: {agent}\r\n"));
        let checking = Repeated::every(period, move || {
            if http::request(admin, "GET", "/readyz", &headers).is_ok_and(|answer| answer.status == 503) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { checking, refused }
    }

    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn stops(self) {
        drop(self.checking);
    }
}
