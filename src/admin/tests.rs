//! The routes, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::testing::{fetch, fixture, listen, put, send, serve, snapshot};
use super::*;

#[tokio::test]
async fn probes_speak_kubernetes() {
    let (address, publish) = serve(snapshot(Phase::Serving), false).await;
    for path in
        ["/livez", "/healthz", "/readyz", "/startupz", "/readyz/workers", "/livez/ping", "/healthz/pool"]
    {
        assert_eq!(fetch(address, path).await, (200, "ok".to_owned()), "{path}");
    }
    let all =
        "[+]ping ok\n[+]startup ok\n[+]workers ok\n[+]breaker ok\n[+]shutdown ok\nreadyz check passed\n";
    assert_eq!(fetch(address, "/readyz?verbose").await, (200, all.to_owned()));
    assert_eq!(fetch(address, "/healthz?verbose=1").await.1, "[+]ping ok\n[+]pool ok\nlivez check passed\n");

    publish.send_replace(Arc::new(snapshot(Phase::Starting)));
    let failing = "[+]ping ok\n[-]startup failed: not enough workers have been ready yet\n\
                   [-]workers failed: 2 of 4 ready, 3 needed\n[+]breaker ok\n[+]shutdown ok\nreadyz check failed\n";
    assert_eq!(fetch(address, "/readyz").await, (503, failing.to_owned()));
    assert_eq!(fetch(address, "/readyz?exclude=startup&exclude=workers").await, (200, "ok".to_owned()));
    let partly = "[-]workers failed: 2 of 4 ready, 3 needed\nreadyz check failed\n";
    assert_eq!(fetch(address, "/readyz/workers").await, (503, partly.to_owned()));
    let (status, body) = fetch(address, "/startupz?exclude=startup&verbose&exclude=x").await;
    assert_eq!(status, 200);
    assert_eq!(body, "[+]startup excluded: ok\nwarn: no check \"x\" to exclude\nstartupz check passed\n");
    assert_eq!(fetch(address, "/livez").await.0, 200);
}

#[tokio::test]
async fn readyz_is_what_the_snapshot_says() {
    let (address, publish) = serve(snapshot(Phase::Serving), false).await;
    for phase in Phase::ALL {
        for (ready, started, ready_workers) in [
            (true, true, 4),
            (true, true, 0),
            (true, false, 0),
            (false, true, 4),
            (false, true, 0),
            (false, false, 4),
            (false, false, 0),
        ] {
            let seen = Snapshot { ready, started, ready_workers, ..snapshot(phase) };
            // A pool cannot be ready without having been so.
            if ready && !started {
                continue;
            }
            publish.send_replace(Arc::new(seen));
            let (status, body) = fetch(address, "/readyz?verbose").await;
            assert_eq!(status == 200, ready, "{phase:?} {started} {ready_workers} {body}");
        }
    }
    let duck = fetch(address, "/readyz/shutdown").await;
    assert_eq!(duck.1, "[-]shutdown failed: exited\nreadyz check failed\n");

    let crashing =
        Snapshot { breaker: crate::core::snapshot::BreakerState::Open, ..snapshot(Phase::Serving) };
    publish.send_replace(Arc::new(crashing.clone()));
    assert_eq!(fetch(address, "/livez").await.0, 200);
    publish.send_replace(Arc::new(Snapshot { ready_workers: 0, ..crashing }));
    assert_eq!(fetch(address, "/livez").await.0, 503);
}

#[tokio::test]
async fn methods_and_paths() {
    let (address, _publish) = serve(snapshot(Phase::Serving), false).await;
    let head = send(address, "HEAD /readyz?verbose", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.has("content-type: text/plain; charset=utf-8"), "{}", head.head);
    assert!(head.has("cache-control: no-cache, private"), "{}", head.head);
    assert!(head.has("x-content-type-options: nosniff"), "{}", head.head);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        for path in ["/livez", "/readyz/workers", "/metrics", "/status", "/"] {
            let reply = send(address, &format!("{method} {path}"), "").await;
            assert_eq!(reply.status, 405, "{method} {path}");
            assert!(reply.has("allow: get,head"), "{}", reply.head);
        }
        assert_eq!(send(address, &format!("{method} /livez/nonsense"), "").await.status, 404);
    }
    for path in
        ["/nothing", "/livez/workers", "/livez/", "/readyz/workers/x", "/prestop", "/scale", "/etc/passwd"]
    {
        assert_eq!(fetch(address, path).await, (404, "not found\n".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn whoever_asks_sees_to_it_that_workers_are_looked_at() {
    let (shared, publish, mut requests) = fixture(snapshot(Phase::Starting));
    let stats = Arc::clone(&shared.stats);
    let address = listen(read_only(shared, false), 8, &stats).await;
    let looked = tokio::spawn(async move {
        let Some(Request::Refresh { connections: false, reply }) = requests.recv().await else {
            panic!("no refresh")
        };
        publish.send_replace(Arc::new(snapshot(Phase::Serving)));
        reply.send(()).unwrap();
        (requests, publish)
    });
    assert_eq!(fetch(address, "/readyz").await.0, 200);
    let (mut requests, publish) = looked.await.unwrap();
    // Neither who is ready nor who drains is looked at by a probe, …
    assert_eq!(fetch(address, "/readyz").await.0, 200);
    publish.send_replace(Arc::new(snapshot(Phase::LameDuck)));
    assert_eq!(fetch(address, "/readyz").await.0, 503);
    assert!(requests.try_recv().is_err());
    // … and a loop without time delays an answer, but keeps nobody from it.
    let before = Instant::now();
    publish.send_replace(Arc::new(snapshot(Phase::Starting)));
    assert_eq!(fetch(address, "/startupz").await.0, 503);
    assert!(before.elapsed() < Duration::from_millis(100));
    drop(requests);
    assert_eq!(fetch(address, "/startupz").await.0, 503);
}

#[tokio::test]
async fn connections_are_counted_for_those_who_are_shown_them() {
    let (shared, _publish, mut requests) = fixture(snapshot(Phase::Serving));
    let stats = Arc::clone(&shared.stats);
    let address = listen(read_only(shared, false), 8, &stats).await;
    let counted = tokio::spawn(async move {
        let mut counted = Vec::new();
        while let Some(Request::Refresh { connections, reply }) = requests.recv().await {
            counted.push(connections);
            reply.send(()).unwrap();
            if counted.len() == 4 {
                break;
            }
        }
        counted
    });
    let connections_in = async |target: &str| {
        let json: serde_json::Value = serde_json::from_str(&fetch(address, target).await.1).unwrap();
        json["workers"][3]["connections"].as_u64()
    };
    assert_eq!(connections_in("/status").await, Some(3));
    assert_eq!(connections_in("/status?exclude=connections").await, None);
    fetch(address, "/").await;
    fetch(address, "/metrics").await;
    assert_eq!(counted.await.unwrap(), [true, false, false, true]);
}

#[tokio::test]
async fn metrics_in_both_formats() {
    let (address, _publish) = serve(snapshot(Phase::LameDuck), false).await;
    let classic = send(address, "GET /metrics", "").await;
    assert!(classic.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", classic.head);
    let open = send(address, "GET /metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").await;
    assert!(
        open.has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{}",
        open.head
    );
    let samples = [
        "drainit_build_info{version=\"0.1.0\"} 1",
        "drainit_phase{phase=\"lame-duck\"} 1",
        "drainit_phase{phase=\"serving\"} 0",
        "drainit_ready 0",
        "drainit_workers{state=\"ready\"} 4",
        "drainit_workers_desired 4",
        "drainit_workers_min_ready 3",
        "drainit_worker_restarts_total{reason=\"crash\"} 2",
        "drainit_worker_spawns_total 6",
        "drainit_worker_spawn_failures_total 0",
        "drainit_forced_kills_total 0",
        "drainit_signals_forwarded_total 0",
        "drainit_prestop_calls_total 0",
        "drainit_prestop_returns_total 0",
        "drainit_breaker_state{state=\"closed\"} 1",
        "drainit_deadline_seconds{deadline=\"hard\"} 29.0",
        "drainit_deadlines_exceeded_total{deadline=\"orphan\"} 0",
        "drainit_drain_elapsed_seconds 1.5",
        "drainit_drain_remaining_seconds 27.5",
        "drainit_orphans_reaped_total 0",
        "drainit_log_dropped_total 0",
        "drainit_admin_connections 1",
        "drainit_admin_evictions_total 0",
    ];
    for text in [&classic.body, &open.body] {
        for sample in samples {
            assert!(text.lines().any(|line| line == sample), "no {sample} in {text}");
        }
        for process in
            ["cpu_seconds_total", "open_fds", "resident_memory_bytes", "start_time_seconds", "threads"]
        {
            assert!(text.contains(&format!("\nprocess_{process} ")), "no {process} in {text}");
        }
        assert!(!text.contains("deadline_seconds{deadline=\"ready\"}"), "{text}");
    }
    assert!(open.body.ends_with("\n# EOF\n"));
    assert!(open.body.contains("# TYPE drainit_worker_spawns counter\n"));
    assert!(open.body.contains("# TYPE drainit_build info\n"));
    assert!(!classic.body.contains("# EOF") && !classic.body.contains("# UNIT"));
    assert!(classic.body.contains(
        "# HELP drainit_worker_spawns_total Workers started\n# TYPE drainit_worker_spawns_total counter\n"
    ));
    assert!(classic.body.contains("# TYPE drainit_build_info gauge\n"));
}

#[tokio::test]
async fn status_and_page() {
    let (address, _publish) = serve(snapshot(Phase::Serving), false).await;
    let reply = send(address, "GET /status", "").await;
    assert!(reply.has("content-type: application/json"), "{}", reply.head);
    let json: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((json["phase"].as_str(), json["workers"][3]["slot"].as_u64()), (Some("serving"), Some(3)));
    let (status, page) = fetch(address, "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("<h1>serving, ready</h1>"), "{page}");
}

#[tokio::test]
async fn events_are_told_as_they_come_to_as_many_as_there_is_room_for() {
    let (address, publish) = serve(snapshot(Phase::Serving), false).await;
    let mut listening = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let told = read_until(&mut stream, "}\n\n").await;
        assert!(told.contains("content-type: text/event-stream") && told.contains("retry: 1000"), "{told}");
        assert!(told.contains("event: status\ndata: {\"phase\":\"serving\""), "{told}");
        listening.push(stream);
    }
    assert_eq!(fetch(address, "/events").await.0, 503);
    publish.send(Arc::new(snapshot(Phase::LameDuck))).unwrap();
    for stream in &mut listening {
        let told = read_until(stream, "}\n\n").await;
        assert!(told.contains("event: status\ndata: {\"phase\":\"lame-duck\""), "{told}");
    }
    drop(publish);
    read_until(&mut listening[0], "0\r\n\r\n").await;
    drop(listening);
    let asked = || async { fetch(address, "/events").await.0 };
    while asked().await == 503 {}
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the end, after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[tokio::test]
async fn control_changes_things() {
    let (address, _publish) = serve(snapshot(Phase::Serving), true).await;
    assert_eq!(fetch(address, "/readyz").await.0, 200);
    assert_eq!(put(address, "/prestop", "").await, (200, "waited\n".to_owned()));
    assert_eq!(put(address, "/scale", r#"{"workers": 2}"#).await, (200, "2 workers\n".to_owned()));
    assert_eq!(put(address, "/scale", r#"{"workers": 9}"#).await, (409, "no memory\n".to_owned()));
    for bad in [
        "",
        "{}",
        "2",
        r#"{"workers": 0}"#,
        r#"{"workers": -1}"#,
        r#"{"workers": 1025}"#,
        r#"{"workers": 2, "x": 1}"#,
    ] {
        assert_eq!(put(address, "/scale", bad).await.0, 400, "{bad}");
    }
    assert_eq!(put(address, "/scale", &" ".repeat(1025)).await.0, 413);
    assert_eq!(send(address, "GET /prestop", "").await.status, 405);
}

#[tokio::test]
async fn an_exiting_loop_is_said_to_be_one() {
    let (shared, _publish, requests) = fixture(snapshot(Phase::Serving));
    drop(requests);
    let stats = Arc::clone(&shared.stats);
    let address = listen(control(shared), 8, &stats).await;
    assert_eq!(put(address, "/prestop", "").await, (503, "drainit is exiting\n".to_owned()));
    assert_eq!(fetch(address, "/status").await.0, 200);
}
