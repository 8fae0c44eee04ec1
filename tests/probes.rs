//! What the orchestrator sees on the admin port.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::machine::Sleeper;
use common::pool::{Pool, Port, pool, pool_without_socket, unique_name};
use common::{Exit, cannot_run, http, pid1, until};
use http::request;

fn ready_pool() -> Pool {
    let pool = pool().options(["--workers", "2", "--lb-wait", "5s"]).worker(["poll=3"]).start();
    pool.wait_ready(2);
    pool
}

fn unready_pool() -> Pool {
    let pool = pool().worker(["say=here", "pause"]).start();
    pool.expect("here");
    pool
}

#[test]
fn all_probes_of_a_ready_pool_are_200_and_ok() {
    let pool = ready_pool();
    for path in ["/livez", "/healthz", "/readyz", "/startupz"] {
        let answer = pool.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache, private"));
    }
}

#[test]
fn a_pool_that_has_not_started_is_alive_and_no_more() {
    let pool = unready_pool();
    let statuses = ["/livez", "/healthz", "/readyz", "/startupz"].map(|path| pool.get(path).status);
    assert_eq!(statuses, [200, 200, 503, 503]);
}

#[test]
fn verbose_lists_every_check() {
    let pool = ready_pool();
    let body = pool.get("/readyz?verbose").body;
    for line in ["[+]ping ok", "[+]startup ok", "[+]workers ok", "[+]shutdown ok", "readyz check passed"] {
        assert!(body.lines().any(|l| l == line), "no {line:?} in {body}");
    }
    assert!(pool.get("/livez?verbose").body.contains("livez check passed"));
}

#[test]
fn what_fails_is_listed_with_its_reason_even_unasked() {
    let pool = unready_pool();
    let body = pool.get("/readyz").body;
    assert!(body.contains("[-]workers failed: 0 of 1 ready, 1 needed"), "{body}");
    assert!(body.contains("[-]startup failed:") && body.contains("readyz check failed"), "{body}");
}

#[test]
fn excluded_checks_do_not_fail() {
    let pool = unready_pool();
    assert_eq!(pool.get("/readyz?exclude=workers").status, 503);
    let answer = pool.get("/readyz?verbose&exclude=workers&exclude=startup");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("[+]workers excluded: ok"), "{answer:?}");
}

#[test]
fn each_check_has_a_path_of_its_own() {
    let pool = unready_pool();
    let status = |path: &str| pool.get(path).status;
    assert_eq!([status("/readyz/ping"), status("/readyz/workers"), status("/livez/pool")], [200, 503, 200]);
    assert_eq!([status("/readyz/shutdown"), status("/startupz/startup")], [200, 503]);
    assert_eq!([status("/readyz/nothing"), status("/livez/workers")], [404, 404]);
}

#[test]
fn an_unknown_path_is_404() {
    let pool = ready_pool();
    for path in ["/nothing", "/readyz/", "/readyz/workers/x", "/scale", "/prestop", "//", "/status/x"] {
        assert_eq!(pool.get(path).status, 404, "{path}");
    }
}

#[test]
fn head_is_as_get_without_a_body() {
    let pool = unready_pool();
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        let answer = request(pool.admin.local(), "HEAD", path, "").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (pool.get(path).status, ""), "{path}");
    }
}

#[test]
fn any_other_method_is_405_with_allow() {
    let pool = ready_pool();
    for path in ["/livez", "/readyz", "/readyz/workers", "/startupz", "/metrics", "/status", "/"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = request(pool.admin.local(), method, path, "Content-Length: 0\r\n").unwrap();
            assert_eq!(answer.status, 405, "{method} {path}");
            let allow = answer.header("allow").unwrap_or_default();
            assert!(allow.contains("GET") && allow.contains("HEAD"), "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn metrics_come_in_the_format_that_is_asked_for() {
    let pool = ready_pool();
    let classic = pool.get("/metrics");
    assert_eq!(classic.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!classic.body.contains("# EOF"));
    let wanted = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = request(pool.admin.local(), "GET", "/metrics", wanted).unwrap();
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.body.ends_with("# EOF\n"), "{open:?}");
    for metrics in [&classic.body, &open.body] {
        for sample in [
            "drainit_phase{phase=\"serving\"} 1",
            "drainit_ready 1",
            "drainit_workers{state=\"ready\"} 2",
            "drainit_workers_desired 2",
            "drainit_worker_spawns_total 2",
            "drainit_breaker_state{state=\"closed\"} 1",
            "process_resident_memory_bytes ",
        ] {
            assert!(metrics.lines().any(|line| line.starts_with(sample)), "no {sample:?} in {metrics}");
        }
    }
}

#[test]
fn every_family_of_the_metrics_is_declared_once_and_before_its_samples() {
    let pool = ready_pool();
    let text = pool.get("/metrics").body;
    let mut declared = std::collections::BTreeSet::new();
    let mut histograms = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            assert!(declared.insert(name.clone()), "{name} is declared twice");
            histograms.extend(rest.ends_with(" histogram").then_some(name));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = |family: &String| {
                let part = name.strip_prefix(family.as_str());
                part.is_some_and(|part| ["_sum", "_count", "_bucket"].contains(&part))
            };
            let known = declared.contains(name) || histograms.iter().any(of_histogram);
            assert!(known, "{name} is not declared: {line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(declared.len() > 15, "{declared:?}");
}

#[test]
fn metrics_tell_of_a_drain() {
    let pool = ready_pool();
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    let metrics = pool.get("/metrics").body;
    for sample in [
        "drainit_phase{phase=\"lame-duck\"} 1",
        "drainit_phase{phase=\"serving\"} 0",
        "drainit_ready 0",
        "drainit_drain_elapsed_seconds ",
        "drainit_drain_remaining_seconds ",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(sample)), "no {sample:?} in {metrics}");
    }
}

#[test]
fn status_has_at_its_top_what_the_contract_says() {
    let pool = ready_pool();
    let status = pool.status();
    assert_eq!((&status["phase"], &status["breaker"]), (&"serving".into(), &"closed".into()));
    assert_eq!(status["generation"], 1);
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for (slot, worker) in workers.iter().enumerate() {
        assert_eq!(worker["slot"], slot);
        assert!(worker["pid"].as_i64().unwrap() > 1);
        assert_eq!((&worker["generation"], &worker["state"]), (&1.into(), &"ready".into()));
        assert_eq!((&worker["ready"], &worker["socket"]), (&true.into(), &"inherited".into()));
    }
    assert_eq!(pool.get("/status").header("content-type"), Some("application/json"));
}

#[test]
fn nothing_that_is_shown_holds_environment_arguments_or_paths() {
    let secret = "hunter2-secret";
    let directory = tempfile::Builder::new().prefix(secret).tempdir().unwrap();
    let socket = format!("unix:{}/app.sock", directory.path().display());
    let pool = pool()
        .options(["--listen", &socket])
        .under([format!("env=TOKEN={secret}")])
        .worker([&format!("say={secret}"), "poll=3"])
        .start();
    pool.wait_ready(1);
    for path in ["/status", "/", "/metrics", "/readyz?verbose", "/livez?verbose"] {
        let answer = pool.get(path);
        for word in [secret, "fixture", "poll=3", "TOKEN", "app.sock"] {
            assert!(!answer.body.contains(word), "{path} shows {word:?}: {}", answer.body);
        }
    }
    assert!(!pool.errors().join("\n").contains(secret), "nor in the log");
}

#[test]
fn there_is_a_page_for_people() {
    let pool = ready_pool();
    let page = pool.get("/");
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains("serving") && page.body.contains("2 of 2"), "{page:?}");
}

#[test]
fn probes_answer_until_the_very_end_of_the_drain() {
    let mut pool = pool()
        .options(["--grace", "3s", "--lb-wait", "500ms", "--drain-timeout", "1s", "--ready-when", "started"])
        .worker(["ignore=TERM", "say=here", "pause"])
        .start();
    pool.expect("here");
    pool.wait_ready(1);
    let admin = pool.admin.local();
    let ended = AtomicBool::new(false);
    let (answered, last) = std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let (mut answered, mut last) = (0, Instant::now());
            while !ended.load(Ordering::Relaxed) {
                match (http::get(admin, "/livez"), http::get(admin, "/metrics")) {
                    (Ok(alive), Ok(metrics)) => {
                        assert_eq!((alive.status, metrics.status), (200, 200));
                        (answered, last) = (answered + 1, Instant::now());
                    }
                    // From now on there may be nobody.
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            (answered, last)
        });
        pool.signal(libc::SIGTERM);
        assert_eq!(pool.wait(), Exit::Code(124));
        ended.store(true, Ordering::Relaxed);
        asker.join().unwrap()
    });
    let gap = last.elapsed();
    assert!(answered > 50, "{answered}");
    // Since the last answer it has ended, which the test has noticed; a second of silence before would be much more.
    assert!(gap < Duration::from_millis(700), "the last answer was {gap:?} ago");
}

#[test]
fn probes_can_be_off() {
    let mut running = pid1()
        .bare()
        .options(["--admin", "off"])
        .options(["--control", &unique_name()])
        .worker(["say=here", "read"])
        .start();
    running.expect("here");
    // 9180 may be somebody else's: what counts are its own descriptors.
    let init = running.init();
    let listening = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default()
        + &std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    for (_, path) in init.descriptors() {
        let text = path.to_string_lossy().into_owned();
        let Some(inode) = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else {
            continue;
        };
        assert!(!listening.split_whitespace().any(|word| word == inode), "it has a TCP socket");
    }
    running.close_stdin();
    assert_eq!(running.wait(), Exit::Code(0));
}

#[test]
fn an_admin_address_that_is_taken_is_69_where_it_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for options in [&["--workers", "2"][..], &[]] {
        let launch = pid1().bare().options(["--admin", &address, "--control", "off"]).options(options);
        let outcome = launch.worker(["say=started"]).run();
        outcome.assert_code(69);
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
        assert!(outcome.stderr.contains("--admin") && outcome.stderr.contains(&address), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
}

#[test]
fn the_default_admin_port_is_9180_on_all_addresses_and_an_init_goes_on_without_it() {
    // One test for both, because there is one such port.
    let first = pid1().bare().options(["--control", &unique_name()]).worker(["say=here", "pause"]).start();
    first.expect("here");
    let at = |ip: std::net::IpAddr| http::get(SocketAddr::new(ip, 9180), "/livez");
    let answered = until("port 9180 is served by somebody", || at(Ipv4Addr::LOCALHOST.into()).ok());
    assert_eq!(answered.status, 200);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        assert_eq!(at(Ipv6Addr::LOCALHOST.into()).unwrap().status, 200);
    }
    let second = pid1().bare().options(["--control", &unique_name()]).worker(["say=on", "exit=3"]).run();
    second.assert_code(3).assert_says("on");
    assert!(second.stderr.contains("9180"), "it says so: {second:?}");
    let pool =
        pid1().bare().options(["--control", &unique_name(), "--workers", "2"]).worker(["say=on"]).run();
    pool.assert_code(69);
    assert!(pool.stdout.is_empty(), "whoever runs a pool relies on them: {pool:?}");
}

#[test]
fn the_admin_port_can_be_on_one_address_alone() {
    let pool = ready_pool();
    assert!(TcpStream::connect(pool.admin.on(Ipv4Addr::new(127, 0, 0, 2))).is_err());
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return cannot_run("needs IPv6 for the other half");
    }
    let port = Port::reserve();
    let address = port.on(Ipv6Addr::LOCALHOST).to_string();
    let other = pid1().bare().options(["--admin", &address, "--control", "off"]).worker(["pause"]).start();
    until("answered on IPv6", || http::get(port.on(Ipv6Addr::LOCALHOST), "/livez").ok());
    drop(other);
}

/// Each of many probes within 100 ms, or by as much later as the machine is at that time.
#[track_caller]
fn assert_prompt(pool: &Pool, machine: &Sleeper, during: &str) {
    for _ in 0..50 {
        let began = Instant::now();
        let status = pool.get("/readyz").status;
        let ended = Instant::now();
        let late = machine.lateness(began, ended);
        let took = ended - began;
        assert_eq!(status, 200);
        assert!(
            took <= Duration::from_millis(100) + late,
            "{took:?} with {during}, the machine {late:?} late"
        );
    }
}

#[test]
fn readyz_is_prompt_beside_100_clients_that_dribble() {
    let pool = ready_pool();
    let machine = Sleeper::start();
    let ended = AtomicBool::new(false);
    let admin = pool.admin.local();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let connect = || TcpStream::connect(admin).unwrap();
            let mut clients: Vec<_> = (0..100).map(|_| connect()).collect();
            while !ended.load(Ordering::Relaxed) {
                for client in &mut clients {
                    // Thrown out, it comes back at once.
                    if client.write_all(b"G").is_err() {
                        *client = connect();
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let connections = || pool.get("/metrics").body.contains("drainit_admin_evictions_total ");
        until("they are there", || connections().then_some(()));
        let prompt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_prompt(&pool, &machine, "100 slow clients");
        }));
        ended.store(true, Ordering::Relaxed);
        prompt.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn readyz_is_prompt_beside_1000_idle_connections() {
    let pool = ready_pool();
    let machine = Sleeper::start();
    let idle: Vec<_> = (0..1000).map(|_| TcpStream::connect(pool.admin.local()).unwrap()).collect();
    assert_prompt(&pool, &machine, "1000 idle connections");
    drop(idle);
}

#[test]
fn readyz_is_prompt_under_full_cpu_load_of_the_workers() {
    let pool = pool()
        .options(["--workers", "4", "--ready-when", "started"])
        .command(["/bin/sh", "-c", "while :; do :; done"])
        .start();
    pool.wait_ready(4);
    let machine = Sleeper::start();
    assert_prompt(&pool, &machine, "busy workers");
}

#[test]
fn a_request_that_is_too_large_is_refused() {
    let pool = ready_pool();
    let long =
        format!("GET /readyz?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(200_000));
    let answer = http::exchange(TcpStream::connect(pool.admin.local()).unwrap(), &long);
    assert!(answer.as_ref().map_or(true, |answer| answer.status >= 400), "{answer:?}");
    let many: String = (0..500).map(|n| format!("X-{n}: y\r\n")).collect();
    let answer = request(pool.admin.local(), "GET", "/readyz", &many);
    assert!(answer.as_ref().map_or(true, |answer| answer.status >= 400), "{answer:?}");
    assert_eq!(pool.readyz(), 200);
}

#[test]
fn a_client_that_sends_half_a_head_is_dropped_in_seconds() {
    let pool = ready_pool();
    let mut client = TcpStream::connect(pool.admin.local()).unwrap();
    client.write_all(b"GET /readyz HT").unwrap();
    client.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let ended = std::io::Read::read(&mut client, &mut [0; 512]);
    assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
}

#[test]
fn an_init_has_probes_without_being_asked_for() {
    let pool =
        pool_without_socket().options(["--ready-when", "started"]).worker(["say=here", "pause"]).start();
    pool.expect("here");
    assert_eq!([pool.get("/livez").status, pool.readyz()], [200, 200]);
    assert_eq!(pool.status()["workers"][0]["socket"], "own");
}
