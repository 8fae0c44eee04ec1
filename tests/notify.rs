//! What workers say of themselves by sd_notify(3), and what follows from their silence.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "../examples/support/load.rs"]
mod load;

use std::time::{Duration, Instant};

use common::gate::Gate;
use common::pool::{Companion, Pool, pool, pool_without_socket, text};
use common::{Exit, Stage, cannot_run, example, fixture, holds_for, is_root, pid1, until};
use load::Load;
use serde_json::Value;

/// A pool whose workers are replaced as often as need be.
const TIRELESS: [&str; 4] = ["--max-crashes", "off", "--backoff", "0..0"];

/// What /status says of the workers of slot 0, oldest first.
fn workers(pool: &Pool) -> Vec<Value> {
    pool.status()["workers"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn wait_for_state(pool: &Pool, state: &str) {
    until(format_args!("a worker that is {state}\n{}", **pool), || {
        workers(pool).iter().any(|worker| worker["state"] == state).then_some(())
    });
}

#[track_caller]
fn wait_for_line(pool: &Pool, line: &str, times: usize) {
    until(format_args!("{line:?} {times} times\n{}", **pool), || {
        (pool.lines().iter().filter(|said| *said == line).count() >= times).then_some(())
    });
}

#[test]
fn a_worker_is_told_how_often_it_has_to_be_heard_of() {
    let pool = pool().options(["--watchdog", "90s"]).worker(["say-watchdog", "poll=3"]).start();
    // The crate compares WATCHDOG_PID with its own pid.
    pool.expect("watchdog 90000000");
    let worker = pool.worker();
    assert_eq!(worker.variable("WATCHDOG_PID"), Some(worker.pid_inside()));
    assert_eq!(worker.variable("LISTEN_PID"), Some(worker.pid_inside()));
}

#[test]
fn a_pools_workers_hear_nothing_of_drainits_own_watchdog() {
    let stale = ["env=WATCHDOG_USEC=5", "env=WATCHDOG_PID=1", "env=NOTIFY_SOCKET=/run/systemd/notify"];
    let pool = pool().under(stale).worker(["say-watchdog", "poll=3"]).start();
    pool.expect("no watchdog");
    let worker = pool.worker();
    assert_eq!((worker.variable("WATCHDOG_USEC"), worker.variable("WATCHDOG_PID")), (None, None));
    assert_ne!(worker.variable("NOTIFY_SOCKET").as_deref(), Some("/run/systemd/notify"));
}

#[test]
fn an_init_hands_on_what_it_was_told() {
    let stale = ["clear-env", "env=WATCHDOG_USEC=5", "env=WATCHDOG_PID=1", "env=NOTIFY_SOCKET=/no/where"];
    let init = pid1().under(stale).worker(["say=here", "pause"]).start();
    init.expect("here");
    let expected = ["WATCHDOG_USEC=5", "WATCHDOG_PID=1", "NOTIFY_SOCKET=/no/where"];
    assert_eq!(init.worker().environment(), expected.map(|entry| entry.as_bytes().to_vec()));
}

#[test]
fn one_worker_without_a_socket_can_have_a_watchdog_too() {
    let mut pool = pool_without_socket()
        .options(["--watchdog", "200ms", "--drain-timeout", "300ms"])
        .worker(["watch", "notify=READY=1", "log=TERM", "exit=7"])
        .start();
    // There is nobody to replace it: it is told to stop, and its exit code is drainit's.
    assert_eq!(pool.wait(), Exit::Code(7));
}

/// The old one is asked to stop when the new one is ready, and not a moment before; meanwhile it goes on.
#[test]
fn a_silent_worker_is_replaced_under_load_and_no_request_fails() {
    let silenced = Gate::new();
    let ping = format!("ping=50:{}", silenced.path().display());
    let (fixture, server) = (fixture().display().to_string(), example("server").display().to_string());
    let pool = pool()
        .options(["--workers", "2", "--watchdog", "3s", "--log-level", "debug"])
        .options(TIRELESS)
        .command([&fixture, "{", &ping, "}", "--", &server])
        .start();
    pool.wait_ready(2);
    let load = Load::start(pool.address(), "/", 8, Duration::ZERO);
    let victim = pool.member(0).process;
    let pid = victim.pid_inside();
    until("some requests", || (load.answered() > 200).then_some(()));
    silenced.write(&pid);
    until(format_args!("its end\n{}", *pool), || (!victim.is_alive()).then_some(()));
    pool.wait_ready(2);
    let before = load.answered();
    until("some more requests", || (load.answered() > before + 200).then_some(()));
    let report = load.stop();
    assert!(report.failures.is_empty(), "{}\n{}", report.summary(), *pool);
    assert_eq!((pool.counter("restarts_hung"), pool.counter("watchdog_timeouts")), (1, 1));

    let log = pool.log();
    let hung = log
        .iter()
        .position(|line| line["message"] == "worker hung: it sent no WATCHDOG=1 in time (--watchdog)");
    let hung = hung.expect("the log says so");
    assert_eq!(log[hung]["pid"].to_string(), pid);
    let ready = log.iter().skip(hung).position(|line| line["message"] == "worker ready" && line["slot"] == 0);
    let stop = log.iter().skip(hung).position(|line| line["message"] == "signal sent" && line["pid"] == *pid);
    assert!(ready.is_some() && ready < stop, "ready {ready:?}, stop signal {stop:?}\n{}", *pool);
}

#[test]
fn a_worker_that_stands_still_misses_its_watchdog() {
    let pool = pool()
        .options(["--ready-when", "started", "--watchdog", "1500ms", "--drain-timeout", "200ms"])
        .options(TIRELESS)
        .worker(["ping=20:/nowhere"])
        .start();
    let victim = pool.member(0).process;
    holds_for(Duration::from_millis(2500), "it is alive and says so", || {
        pool.counter("watchdog_timeouts") == 0 && victim.is_alive()
    });
    victim.signal(libc::SIGSTOP);
    until(format_args!("its end\n{}", *pool), || (!victim.is_alive()).then_some(()));
    assert_eq!(pool.counter("restarts_hung"), 1);
    let metrics = pool.get("/metrics").body;
    for line in [
        "drainit_deadline_seconds{deadline=\"watchdog\"} 1.5",
        "drainit_deadlines_exceeded_total{deadline=\"watchdog\"} 1",
        "drainit_worker_restarts_total{reason=\"hung\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// As `docker pause` has it.
#[test]
fn a_container_that_stood_still_finds_nobody_hung() {
    let pool = pool()
        .options(["--ready-when", "started", "--watchdog", "1500ms"])
        .options(TIRELESS)
        .worker(["ping=20:/nowhere"])
        .start();
    let (init, worker) = (pool.init(), pool.member(0).process);
    for process in [init, worker] {
        process.signal(libc::SIGSTOP);
        until("it stands still", || (process.state() == 'T').then_some(()));
    }
    std::thread::sleep(Duration::from_millis(3500));
    init.signal(libc::SIGCONT);
    let asked = pool.counter("watchdog_timeouts");
    worker.signal(libc::SIGCONT);
    assert_eq!(asked, 0, "the worker had no chance");
    holds_for(Duration::from_millis(2000), "nor is it hung afterwards", || {
        pool.counter("watchdog_timeouts") == 0
    });
}

#[test]
fn a_worker_that_says_so_is_hung_with_or_without_a_watchdog() {
    let gate = Gate::new();
    let pool = pool()
        .options(TIRELESS)
        .worker(["watch", "notify=READY=1", &gate.step(), "notify=WATCHDOG=trigger", "log=TERM"])
        .start();
    let first = pool.member(0).process;
    gate.open();
    pool.logged("worker hung: it says so itself (WATCHDOG=trigger)");
    until(format_args!("its end\n{}", *pool), || (!first.is_alive()).then_some(()));
    assert!(pool.counter("restarts_hung") >= 1);
    assert_eq!(pool.counter("watchdog_timeouts"), 0);
}

#[test]
fn a_worker_may_set_its_own_interval() {
    let pool = pool()
        .options(TIRELESS)
        .worker(["watch", "notify=READY=1\nWATCHDOG_USEC=200000", "say=here", "log=TERM"])
        .start();
    wait_for_line(&pool, "got 15 0", 1);
    assert!(pool.counter("watchdog_timeouts") >= 1);
}

#[test]
fn a_worker_that_needs_longer_to_start_gets_it() {
    let gate = Gate::new();
    let pool = pool()
        .options(["--ready-timeout", "2s", "--ready-when", "notify"])
        .worker(["notify=EXTEND_TIMEOUT_USEC=60000000", "say=said", &gate.step(), "notify=READY=1", "pause"])
        .start();
    pool.expect("said");
    holds_for(Duration::from_millis(2500), "nobody is late", || pool.counter("ready_timeouts") == 0);
    gate.open();
    pool.wait_ready(1);
}

#[test]
fn a_worker_that_needs_longer_to_finish_gets_it() {
    let gate = Gate::new();
    let mut pool = pool()
        .options(["--drain-timeout", "2s", "--grace", "30s"])
        .options(["--ready-when", "notify"])
        .worker([
            "watch",
            "notify=READY=1",
            "log=TERM",
            "notify=EXTEND_TIMEOUT_USEC=20000000",
            "say=said",
            &gate.step(),
            "exit=0",
        ])
        .start();
    pool.wait_ready(1);
    pool.signal(libc::SIGTERM);
    pool.expect("said");
    holds_for(Duration::from_millis(2500), "it is not killed", || pool.counter("forced_kills") == 0);
    gate.open();
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn no_worker_gets_longer_than_the_hard_deadline() {
    let mut pool = pool()
        .options(["--ready-when", "notify", "--drain-timeout", "1s", "--grace", "4s", "--margin", "1s"])
        .worker([
            "watch",
            "notify=READY=1",
            "log=TERM",
            "notify=EXTEND_TIMEOUT_USEC=60000000",
            "say=said",
            "pause",
        ])
        .start();
    pool.wait_ready(1);
    let began = Instant::now();
    pool.signal(libc::SIGTERM);
    pool.expect("said");
    assert_eq!(pool.wait(), Exit::Code(124));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2950), "killed before its time: {took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_worker_that_stops_by_itself_is_ready_no_more_and_replaced_when_it_is_gone() {
    let (stop, go) = (Gate::new(), Gate::new());
    let pool = pool()
        .options(["--ready-when", "notify"])
        .options(TIRELESS)
        .worker(["notify=READY=1", &stop.step(), "notify=STOPPING=1", "notify=READY=1", &go.step(), "exit=0"])
        .start();
    pool.wait_ready(1);
    assert_eq!(pool.readyz(), 200);
    stop.open();
    wait_for_state(&pool, "stopping");
    holds_for(Duration::from_millis(200), "there is no way back", || {
        pool.readyz() == 503 && workers(&pool).len() == 1
    });
    stop.close();
    go.open();
    until(format_args!("a successor\n{}", *pool), || (pool.counter("spawns") == 2).then_some(()));
    pool.wait_ready(1);
    assert_eq!((pool.counter("restarts_exit"), pool.readyz()), (1, 200));
}

#[test]
fn a_worker_that_never_gets_done_with_stopping_is_killed_and_replaced() {
    let pool = pool()
        .options(["--drain-timeout", "200ms"])
        .options(TIRELESS)
        .worker(["notify=READY=1", "notify=STOPPING=1", "pause"])
        .start();
    until(format_args!("a second one\n{}", *pool), || (pool.counter("spawns") >= 2).then_some(()));
    assert!(pool.counter("forced_kills") >= 1 && pool.counter("restarts_crash") >= 1);
}

#[test]
fn a_worker_that_reloads_goes_on_serving() {
    let (reload, done) = (Gate::new(), Gate::new());
    let steps = [
        "notify=READY=1".to_owned(),
        reload.step(),
        "notify=RELOADING=1\nMONOTONIC_USEC=1".to_owned(),
        done.step(),
        "notify=READY=1".to_owned(),
        "pause".to_owned(),
    ];
    let pool = pool().options(["--ready-when", "notify"]).worker(steps).start();
    pool.wait_ready(1);
    reload.open();
    wait_for_state(&pool, "reloading");
    assert_eq!((pool.readyz(), pool.status()["ready_workers"].as_u64()), (200, Some(1)));
    assert!(pool.get("/metrics").body.contains("drainit_workers{state=\"reloading\"} 1"));
    done.open();
    wait_for_state(&pool, "ready");
}

#[test]
fn what_a_worker_says_of_itself_is_shown_without_what_would_spoil_a_terminal() {
    let gate = Gate::new();
    let pool = pool()
        .worker([
            "notify=READY=1\nSTATUS=12 of 20 \u{1b}[1mcaches\u{202e} warm",
            "say=said",
            &gate.step(),
            "notify=STATUS=",
            "pause",
        ])
        .start();
    pool.expect("said");
    let shown = "12 of 20 ?[1mcaches? warm";
    until("the status", || (workers(&pool)[0]["status_text"] == shown).then_some(()));
    let table = text(&pool.ask(&["status"]).stdout);
    assert!(table.contains("STATUS") && table.contains(shown), "{table}");
    gate.open();
    until("none any more", || workers(&pool)[0]["status_text"].is_null().then_some(()));
}

#[test]
fn a_barrier_falls_when_everything_before_it_has_been_taken_in() {
    let pool = pool()
        .worker([
            "flood=200:STATUS=on the way",
            "notify=STATUS=there",
            "barrier=BARRIER=1",
            "say=fallen",
            "pause",
        ])
        .start();
    pool.expect("fallen");
    assert_eq!(workers(&pool)[0]["status_text"], "there");
}

#[test]
fn descriptors_are_not_stored_which_is_said_once() {
    let pool = pool()
        .worker([
            "notify=READY=1",
            "barrier=BARRIER=1",
            "say=here",
            "store=300",
            "barrier=BARRIER=1",
            "say=stored",
            "pause",
        ])
        .start();
    pool.expect("stored");
    assert_eq!(workers(&pool)[0]["status_text"], "stored 300", "the rest of the message counts");
    let sent = pool.init().descriptors().len();
    assert!(sent < 40, "{sent} descriptors are open");
    let refused =
        pool.log().iter().filter(|line| line["message"].to_string().contains("drainit stores none")).count();
    assert_eq!(refused, 1, "{}", *pool);
}

#[test]
fn a_flood_of_words_keeps_nobody_waiting() {
    let pool = pool()
        .options(["--workers", "2", "--watchdog", "60s"])
        .worker([
            "notify=READY=1",
            // Whose a process is that is not the worker itself has to be looked up.
            "{",
            "flood=20000:WATCHDOG=1",
            "say=flooded",
            "}",
            "flood=100000:WATCHDOG=1",
            "flood=20000:STATUS=x",
            "say=flooded",
            "pause",
        ])
        .start();
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while pool.lines().iter().filter(|line| *line == "flooded").count() < 4 {
        for path in ["/readyz", "/status"] {
            let began = Instant::now();
            pool.get(path);
            (asked, slowest) = (asked + 1, slowest.max(began.elapsed()));
        }
    }
    assert!(
        asked >= 40 && slowest < Duration::from_secs(2),
        "{asked} answered, the slowest took {slowest:?}"
    );
    assert_eq!(pool.counter("watchdog_timeouts"), 0);
    eprintln!("{asked} probes, the slowest took {slowest:?}");
}

#[test]
fn a_stranger_has_no_say_and_is_not_kept_waiting() {
    let pool = pool().options(["--ready-when", "notify"]).worker(["notify=READY=1", "pause"]).start();
    pool.wait_ready(1);
    let address = pool.worker().variable("NOTIFY_SOCKET").expect("an address");
    let words = [
        "notify=STOPPING=1",
        "notify=STATUS=mine",
        "notify=WATCHDOG=trigger",
        "barrier=BARRIER=1",
        "say=sent",
        "pause",
    ];
    let mut stranger =
        Companion::start(pool.inside().arg(fixture()).args(words).env("NOTIFY_SOCKET", &address));
    let mut line = [0; 5];
    std::io::Read::read_exact(stranger.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"sent\n");
    let worker = &workers(&pool)[0];
    assert_eq!((&worker["state"], &worker["status_text"]), (&Value::from("ready"), &Value::Null));
}

#[test]
fn the_main_process_is_shown_where_it_is_one_of_the_workers() {
    let steps = [
        "{",
        "pause",
        "}",
        "notify=READY=1",
        "notify-main-pid-of-child",
        "notify=MAINPID=1",
        "say=said",
        "pause",
    ];
    let pool = pool().worker(steps).start();
    pool.expect("said");
    let child: i64 = pool.worker().children()[0].pid_inside().parse().unwrap();
    until("the main process", || (workers(&pool)[0]["main_pid"] == child).then_some(()));
}

#[test]
fn the_address_is_a_path_that_goes_with_the_worker() {
    let pool = pool().options(TIRELESS).worker(["notify=READY=1", "pause"]).start();
    let sockets = || {
        let entries = std::fs::read_dir(pool.init().path("root/dev/shm")).unwrap().flatten();
        entries.map(|entry| format!("/dev/shm/{}", entry.file_name().display())).collect::<Vec<_>>()
    };
    let first = pool.member(0).process;
    let address = first.variable("NOTIFY_SOCKET").expect("an address");
    assert_eq!(sockets(), [address]);
    first.signal(libc::SIGKILL);
    until(format_args!("another\n{}", *pool), || (pool.counter("spawns") == 2).then_some(()));
    pool.wait_ready(1);
    assert_eq!(sockets(), [pool.member(0).process.variable("NOTIFY_SOCKET").unwrap()]);
}

#[test]
fn a_worker_of_another_user_is_heard() {
    if !is_root() {
        return cannot_run("needs root");
    }
    let stage = Stage::new();
    let pool = pool()
        .options(["--ready-when", "notify", "--user", "12345:12345"])
        .with(|launch| launch.fixture_at(stage.fixture()))
        .worker(["notify=READY=1\nSTATUS=by 12345", "barrier=BARRIER=1", "say=heard", "pause"])
        .start();
    pool.expect("heard");
    let worker = &workers(&pool)[0];
    assert_eq!((&worker["state"], &worker["status_text"]), (&Value::from("ready"), &Value::from("by 12345")));
}

#[test]
fn where_nothing_can_be_written_the_address_is_an_abstract_name() {
    let pool = pool()
        .under(["read-only-root"])
        .options(["--ready-when", "notify"])
        .worker(["notify=READY=1", "pause"])
        .start();
    pool.wait_ready(1);
    let address = pool.worker().variable("NOTIFY_SOCKET").expect("an address");
    assert!(address.starts_with("@drainit-notify-"), "{address}");
}

/// There are no probes then; the workers' own lines tell.
#[test]
fn without_an_event_loop_the_watchdog_is_minded_all_the_same() {
    let silenced = Gate::new();
    let ping = format!("ping=20:{}", silenced.path().display());
    let pool = pool()
        .under(["seccomp=ENOSYS:epoll_create1"])
        .options(["--ready-when", "notify", "--watchdog", "1500ms", "--drain-timeout", "200ms"])
        .options(TIRELESS)
        .worker(["say=here", "notify=READY=1", &ping, "pause"])
        .start();
    pool.expect("here");
    let first = pool.worker();
    holds_for(Duration::from_millis(2500), "nobody is found hung", || {
        first.is_alive() && !pool.has_logged("worker hung")
    });
    silenced.write(&first.pid_inside());
    wait_for_line(&pool, "here", 2);
    until(format_args!("its end\n{}", *pool), || (!first.is_alive()).then_some(()));
    pool.logged("worker hung");
}
