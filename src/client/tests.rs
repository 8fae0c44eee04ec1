//! The client against the control router, each on a thread of its own as in life.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::admin::testing::{fixture, serve_loop, snapshot};
use crate::admin::{control, serve_control};
use crate::config::endpoint::Endpoint;
use crate::core::snapshot::Phase;

/// Listens on an abstract socket, and runs `server` with it on another thread.
#[expect(clippy::disallowed_methods, reason = "the client blocks, as the other process that it is")]
fn on_socket<F: Future<Output = ()>>(
    name: &str,
    server: impl FnOnce(tokio::net::UnixListener) -> F + Send + 'static,
) -> Endpoint {
    let name = format!("drainit/test-{name}-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { server(tokio::net::UnixListener::from_std(listener).unwrap()).await });
    });
    find(None, Some(&format!("@{name}"))).unwrap()
}

fn drainit(name: &str, phase: Phase, allow: bool) -> Endpoint {
    on_socket(name, move |listener| async move {
        let (shared, _publish, requests) = fixture(snapshot(phase));
        tokio::spawn(serve_loop(requests));
        let stats = shared.stats.clone();
        serve_control(listener, control(shared), 8, move |_| allow, stats).await;
    })
}

#[test]
fn verbs_say_what_is_so() {
    let serving = drainit("serving", Phase::Serving, true);
    assert_eq!(probe(&serving, Probe::Ready, DEADLINE), OK);
    assert_eq!(probe(&serving, Probe::Live, DEADLINE), OK);
    assert_eq!(prestop(&serving, DEADLINE), OK);
    assert_eq!(scale(&serving, 3), OK);
    assert_eq!(scale(&serving, 99), NO);
    assert_eq!(scale(&serving, 0), NO);
    assert_eq!(status(&serving, false), OK);
    assert_eq!(status(&serving, true), OK);

    let starting = drainit("starting", Phase::Starting, true);
    assert_eq!(probe(&starting, Probe::Startup, DEADLINE), NO);
    assert_eq!(probe(&starting, Probe::Ready, DEADLINE), NO);
}

#[test]
fn nobody_to_ask_is_2() {
    for name in ["@drainit/nobody", "/nonexistent/drainit.sock"] {
        let nobody = Endpoint::parse(name);
        let codes = [
            probe(&nobody, Probe::Live, DEADLINE),
            prestop(&nobody, DEADLINE),
            scale(&nobody, 1),
            status(&nobody, true),
        ];
        assert_eq!(codes, [CANNOT_ASK; 4], "{name}");
    }
    let refusing = drainit("refusing", Phase::Serving, false);
    assert_eq!(prestop(&refusing, DEADLINE), CANNOT_ASK);
    assert_eq!(status(&refusing, false), CANNOT_ASK);
}

#[test]
fn the_hook_succeeds_while_drainit_exits() {
    let exits = on_socket("exits", |listener| async move {
        let _ = listener.accept().await;
    });
    assert_eq!(prestop(&exits, DEADLINE), OK);
}

#[test]
fn every_question_has_a_deadline() {
    let (hold, held) = mpsc::channel();
    let silent = on_socket("silent", |listener| async move {
        let _ = hold.send(listener.accept().await);
        std::future::pending::<()>().await;
    });
    let deadline = Duration::from_millis(50);
    assert_eq!(ask(&silent, "GET", "/livez", None, deadline), Err(ClientError::Late(deadline)));
    assert_eq!(prestop(&silent, deadline), OK);
    drop(held);
}
