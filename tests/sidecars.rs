//! The other containers of a pod: who is waited for, and who is told of the end; and the preStop hook over HTTP.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a sidecar serves beside the test")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::pool::{pool, pool_without_socket};
use common::{Exit, holds_for, pid1, until};

/// Answers everything with one status, and keeps what it was asked.
struct Sidecar {
    port: u16,
    status: Arc<AtomicU16>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Sidecar {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sidecar = Self { port, status: Arc::new(AtomicU16::new(status)), asked: Arc::default() };
        let (status, asked) = (Arc::clone(&sidecar.status), Arc::clone(&sidecar.asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<_> =
                    lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                asked.lock().unwrap().push(head.join("\n"));
                let status = status.load(Ordering::SeqCst);
                let _ =
                    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        sidecar
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[test]
fn no_worker_is_started_before_the_sidecar_is_ready() {
    let sidecar = Sidecar::start(503);
    let url = sidecar.url("/healthz/ready?a=b");
    let mut pool =
        pool().options(["--wait-for", &url]).worker(["watch", "say=here", "log=TERM", "exit=0"]).start();
    until("it asks again", || (sidecar.asked().len() > 2).then_some(()));
    assert_eq!((pool.phase().as_str(), pool.readyz()), ("starting", 503));
    assert_eq!((pool.get("/livez").status, pool.get("/startupz").status), (200, 503));
    assert!(pool.init().children().is_empty());
    let refused = pool.ask(&["restart"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    pool.signal(libc::SIGHUP);
    pool.signal(libc::SIGUSR1);
    assert!(pool.get("/metrics").body.contains("deadline=\"wait-for\""));
    holds_for(Duration::from_millis(200), "nobody is started", || pool.init().children().is_empty());
    sidecar.status.store(204, Ordering::SeqCst);
    pool.expect("here");
    let head = sidecar.asked().pop().unwrap();
    assert!(
        head.starts_with("GET /healthz/ready?a=b HTTP/1.1\n") && head.contains("User-Agent: drainit/"),
        "{head}"
    );
    assert!(head.contains(&format!("Host: localhost:{}", sidecar.port)), "{head}");
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_term_while_it_waits_ends_at_once() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let sidecar = Sidecar::start(503);
        let mut pool = pool()
            .options(["--wait-for", &sidecar.url("/"), "--lb-wait", "20s", "--grace", "60s"])
            .worker(["say=here"])
            .start();
        until("it asks", || sidecar.asked().pop());
        pool.signal(signal);
        assert_eq!(pool.wait(), Exit::Code(0));
        assert!(!pool.has("here"));
    }
}

#[test]
fn a_hook_while_it_waits_is_answered() {
    let sidecar = Sidecar::start(503);
    let options = ["--wait-for", &sidecar.url("/"), "--lb-wait", "100ms"];
    let pool = pool().options(options).worker(["watch", "say=here"]).start();
    until("it asks", || sidecar.asked().pop());
    assert_eq!(pool.ask(&["prestop"]).status.code(), Some(0));
    assert!(pool.init().children().is_empty());
    sidecar.status.store(200, Ordering::SeqCst);
    pool.expect("here");
}

#[test]
fn a_sidecar_that_never_comes_is_69_and_named() {
    let sidecar = Sidecar::start(500);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, why) in [
        (sidecar.url("/x"), "answered 500".to_owned()),
        (format!("http://{nobody}/"), "no answer".to_owned()),
    ] {
        let mut waiting =
            pool().options(["--wait-for", &url, "--wait-for-timeout", "300ms"]).worker(["say=here"]).start();
        assert_eq!(waiting.wait(), Exit::Code(69));
        let reason = format!("--wait-for {url}: {why} within 300ms");
        assert!(waiting.log().iter().any(|line| line.to_string().contains(&reason)), "{}", *waiting);
        assert!(!waiting.has("here"));
    }
}

#[test]
fn all_of_them_have_to_answer() {
    let (first, second) = (Sidecar::start(200), Sidecar::start(503));
    let both = format!("{},{}", first.url("/1"), second.url("/2"));
    let pool = pool().options(["--wait-for", &both]).worker(["watch", "say=here"]).start();
    until("the second is asked", || second.asked().pop());
    assert!(pool.init().children().is_empty());
    second.status.store(200, Ordering::SeqCst);
    pool.expect("here");
}

#[test]
fn an_init_waits_too_and_keeps_the_code_of_its_worker() {
    let sidecar = Sidecar::start(200);
    let (wait, post) = (sidecar.url("/ready"), sidecar.url("/quitquitquit"));
    let options = ["--wait-for", &wait, "--on-exit-post", &post];
    let mut init = pool_without_socket().options(options).worker(["exit=7"]).start();
    assert_eq!(init.wait(), Exit::Code(7));
    let asked = sidecar.asked();
    let [ready, quit] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(ready.starts_with("GET /ready "), "{ready}");
    assert!(
        quit.starts_with("POST /quitquitquit HTTP/1.1\n") && quit.contains("Content-Length: 0"),
        "{quit}"
    );
}

#[test]
fn sidecars_are_told_once_the_last_worker_is_gone_and_nobody_waits_long_for_them() {
    let sidecar = Sidecar::start(200);
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let posts = format!("http://{}/,{}", silent.local_addr().unwrap(), sidecar.url("/shutdown"));
    let mut pool = pool()
        .options(["--on-exit-post", &posts, "--margin", "2s"])
        .worker(["watch", "say=here", "log=TERM", "log=USR1", "exit=0"])
        .start();
    pool.expect("here");
    let worker = pool.init().children()[0];
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
    assert!(sidecar.asked().is_empty(), "the worker is still there");
    worker.signal(libc::SIGUSR1);
    let told = until("the sidecar is told", || sidecar.asked().pop());
    assert!(told.starts_with("POST /shutdown "), "{told}");
    assert!(!worker.is_alive());
    assert_eq!(pool.wait(), Exit::Code(0));
    pool.logged("not told of the end: no answer");
}

#[test]
fn a_url_that_cannot_be_asked_is_refused() {
    for option in ["--wait-for", "--on-exit-post"] {
        for url in ["https://127.0.0.1/", "http://sidecar:80/", "127.0.0.1:80", ""] {
            let outcome = pid1().bare().options([option, url]).worker(["say=started"]).run();
            outcome.assert_code(64);
            assert!(outcome.stderr.contains(option), "{outcome:?}");
            assert!(outcome.stdout.is_empty(), "{outcome:?}");
        }
    }
}

#[test]
fn the_hook_over_http_is_there_where_it_is_asked_for() {
    let steps = ["watch", "say=here", "log=TERM", "exit=0"];
    let off = pool().options(["--ready-when", "started"]).worker(steps).start();
    off.wait_ready(1);
    assert_eq!(off.get("/prestop").status, 404);
    assert_eq!(off.phase(), "serving");
    let mut on = pool()
        .options(["--prestop-http", "--lb-wait", "300ms", "--ready-when", "started"])
        .worker(steps)
        .start();
    on.wait_ready(1);
    let answer = on.get("/prestop");
    assert_eq!((answer.status, on.phase().as_str()), (200, "lame-duck"), "{}", answer.body);
    assert_eq!(on.get("/prestop").status, 200, "at least once");
    on.signal(libc::SIGTERM);
    on.expect("got 15 0");
    assert_eq!(on.wait(), Exit::Code(0));
}
