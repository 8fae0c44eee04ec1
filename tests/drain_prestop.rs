//! The preStop hook: advice that starts a drain, and a deadline that counts from it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;

use std::process::Child;
use std::time::{Duration, Instant};

use common::machine::Sleeper;
use common::pool::{Pool, code, pool, pool_without_socket, text};
use common::{Exit, holds_for, until};

const UNTIL_USR1: [&str; 3] = ["watch", "say=here", "log=USR1"];

fn lingering(options: &[&str]) -> Pool {
    let pool = pool().options(["--ready-when", "started"]).options(options).worker(UNTIL_USR1).start();
    pool.expect("here");
    pool.wait_ready(1);
    pool
}

/// The hook, while something else goes on.
struct Hook(Child);

impl Hook {
    fn start(pool: &Pool) -> Self {
        Self(pool.command(&["prestop"]).spawn().expect("nsenter"))
    }

    fn is_waiting(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }

    #[track_caller]
    fn returns(&mut self, expected: i32) {
        let status = until("the hook returns", || self.0.try_wait().expect("wait"));
        assert_eq!(status.code(), Some(expected));
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_hook_returns_when_the_wait_is_over() {
    let pool = lingering(&["--lb-wait", "1s"]);
    let began = Instant::now();
    let mut hook = Hook::start(&pool);
    pool.wait_for_phase("lame-duck");
    assert_eq!(pool.readyz(), 503);
    assert_eq!(pool.status()["drain"]["trigger"], "preStop");
    assert!(hook.is_waiting() || began.elapsed() >= Duration::from_secs(1));
    hook.returns(0);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(pool.phase(), "lame-duck", "it goes on serving until the signal comes");
    assert!(!pool.has("got 15 0"));
}

#[test]
fn the_signal_that_follows_goes_straight_to_the_workers() {
    let mut pool = lingering(&["--lb-wait", "500ms"]);
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
    assert_eq!(pool.phase(), "draining");
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0));
    pool.logged("load balancer wait over");
    let plans = pool.log().into_iter().filter(|line| line["message"] == "drain planned").count();
    assert_eq!(plans, 1, "one drain, one plan");
}

#[test]
fn the_deadline_counts_from_the_hook() {
    let machine = Sleeper::start();
    let options = ["--grace", "3s", "--margin", "1s", "--lb-wait", "1s", "--ready-when", "started"];
    let mut pool = pool().options(options).worker(["ignore=TERM", "say=here", "pause"]).start();
    pool.expect("here");
    pool.wait_ready(1);
    let began = Instant::now();
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(124));
    let ended = Instant::now();
    // The hook is a process that has to be started; what it asks for counts from when it is heard.
    let asked = pool.log().into_iter().find(|line| line["message"] == "drain planned").unwrap();
    assert_eq!(asked["trigger"], "preStop");
    let took = ended - began;
    let allowed = Duration::from_millis(2200) + machine.lateness(began, ended);
    // Had it counted from the signal, it would be 3 s.
    assert!(took >= Duration::from_secs(2) && took <= allowed.max(Duration::from_millis(2500)), "{took:?}");
}

#[test]
fn without_a_signal_the_pool_goes_back_to_serving_and_forgets_the_deadline() {
    let mut pool = lingering(&["--grace", "5s", "--lb-wait", "300ms"]);
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    let returned = Instant::now();
    // Longer than the grace period: the deadline would have passed.
    holds_for(Duration::from_secs(9), "lame-duck for 10 s", || {
        std::thread::sleep(Duration::from_millis(50));
        pool.readyz() == 503
    });
    pool.wait_for_phase("serving");
    assert!(returned.elapsed() >= Duration::from_millis(9800), "{:?}", returned.elapsed());
    assert_eq!(pool.readyz(), 200);
    assert!(pool.status()["drain"].is_null());
    assert_eq!(pool.counter("prestop_returns"), 1);
    assert_eq!(code(&pool.ask(&["scale", "2"])), 0, "a pool like any other");
    pool.wait_ready(2);
    // The next drain has its whole time.
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
    let left = pool.status()["drain"]["elapsed_seconds"].as_f64().unwrap();
    assert!(left < 4.0, "{left}");
    pool.signal(libc::SIGUSR1);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn a_second_hook_waits_with_the_first() {
    let pool = lingering(&["--lb-wait", "1s"]);
    let mut first = Hook::start(&pool);
    pool.wait_for_phase("lame-duck");
    let mut second = Hook::start(&pool);
    until("both are heard", || (pool.counter("prestop_calls") == 2).then_some(()));
    first.returns(0);
    second.returns(0);
    pool.logged("load balancer wait over");
    let plans = pool.log().into_iter().filter(|line| line["message"] == "drain planned").count();
    assert_eq!(plans, 1);
}

#[test]
fn a_hook_after_the_wait_returns_at_once() {
    let pool = lingering(&["--lb-wait", "300ms"]);
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    let output = pool.ask(&["prestop"]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stdout).contains("over already"), "{output:?}");
}

#[test]
fn a_hook_after_the_signal_waits_with_it() {
    let pool = lingering(&["--lb-wait", "1s"]);
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let mut hook = Hook::start(&pool);
    until("it is heard", || (pool.counter("prestop_calls") == 1).then_some(()));
    hook.returns(0);
    pool.expect("got 15 0");
}

#[test]
fn a_hook_in_draining_returns_at_once() {
    let pool = lingering(&[]);
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("draining");
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    assert_eq!(pool.phase(), "draining");
}

#[test]
fn a_hook_before_anybody_is_ready_works_too() {
    let pool = pool().options(["--lb-wait", "300ms"]).worker(UNTIL_USR1).start();
    pool.expect("here");
    assert_eq!(pool.phase(), "starting");
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    assert_eq!(pool.phase(), "lame-duck");
}

#[test]
fn a_hook_returns_at_once_where_there_is_no_wait() {
    let pool = lingering(&[]);
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    assert_eq!((pool.phase().as_str(), pool.readyz()), ("lame-duck", 503));
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
}

#[test]
fn a_signal_while_the_hook_waits_ends_the_wait_and_the_hook_is_content() {
    let pool = lingering(&["--grace", "60s", "--lb-wait", "30s"]);
    let mut hook = Hook::start(&pool);
    pool.wait_for_phase("lame-duck");
    pool.signal(libc::SIGTERM);
    pool.expect("got 15 0");
    hook.returns(0);
    assert_eq!(pool.phase(), "draining");
}

#[test]
fn a_hook_that_waits_while_drainit_ends_is_content() {
    let mut pool = pool().options(["--grace", "60s", "--lb-wait", "30s"]).server().start();
    pool.wait_ready(1);
    let mut hook = Hook::start(&pool);
    pool.wait_for_phase("lame-duck");
    pool.signal(libc::SIGINT);
    assert_eq!(pool.wait(), Exit::Code(0));
    hook.returns(0);
}

#[test]
fn a_hook_that_is_told_to_stop_is_content_and_the_drain_goes_on() {
    let pool = lingering(&["--grace", "60s", "--lb-wait", "30s"]);
    let mut hook = Hook::start(&pool);
    pool.wait_for_phase("lame-duck");
    // The subcommand itself, below nsenter. It has sent its request, so it is past its start.
    let nsenter = common::Process(hook.0.id().try_into().unwrap());
    let subcommand = until("the subcommand", || nsenter.children().first().copied());
    subcommand.signal(libc::SIGTERM);
    hook.returns(0);
    assert_eq!(pool.phase(), "lame-duck");
}

#[test]
fn an_init_has_the_hook_too() {
    let mut pool = pool_without_socket()
        .options(["--ready-when", "started", "--lb-wait", "300ms"])
        .worker(["watch", "say=here", "log=TERM", "exit=5"])
        .start();
    pool.expect("here");
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    assert_eq!(pool.readyz(), 503);
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(5));
}

#[test]
fn a_worker_that_dies_after_the_hook_is_replaced() {
    let pool = pool().options(["--lb-wait", "200ms"]).server().start();
    pool.wait_ready(1);
    assert_eq!(code(&pool.ask(&["prestop"])), 0);
    let first = pool.member(0).process;
    first.signal(libc::SIGKILL);
    until("a replacement", || pool.members().into_iter().find(|m| m.process != first && m.state == "ready"));
}

#[test]
fn the_admin_port_does_not_take_the_hook() {
    let pool = lingering(&[]);
    let answer = common::http::request(pool.admin.local(), "POST", "/prestop", "").unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(pool.phase(), "serving");
}
