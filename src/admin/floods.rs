//! Tests of serving: floods, and the bounds on one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::testing::{fetch, fixture, listen, send, serve, snapshot};
use super::{Stats, read_only};
use crate::core::snapshot::Phase;

/// A connection of somebody who means no good: comes again whenever it is thrown out.
async fn dribble(address: SocketAddr, every: Duration) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nX-").await;
            while stream.write_all(b"a").await.is_ok() {
                sleep(every).await;
            }
        }
        sleep(every).await;
    }
}

#[tokio::test]
async fn a_thousand_dribbling_connections_delay_no_probe() {
    let (shared, _publish, _requests) = fixture(snapshot(Phase::Serving));
    let stats = Arc::clone(&shared.stats);
    let address = listen(read_only(shared, false), 64, &stats).await;
    let dribblers: Vec<_> =
        (0..1000).map(|_| tokio::spawn(dribble(address, Duration::from_millis(100)))).collect();
    sleep(Duration::from_millis(300)).await;
    // The dribblers share the thread with the servers, and the machine with others: whom nobody floods tells how much of
    // the delay is theirs.
    let (others, _publish, _requests) = fixture(snapshot(Phase::Serving));
    let calm = listen(read_only(others.clone(), false), 64, &others.stats).await;
    let (mut times, mut calm_times) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        for (address, times) in [(address, &mut times), (calm, &mut calm_times)] {
            let before = Instant::now();
            assert_eq!(fetch(address, "/readyz").await.0, 200);
            times.push(before.elapsed());
        }
        sleep(Duration::from_millis(10)).await;
    }
    times.sort();
    calm_times.sort();
    // A probe that has to wait for a seat would wait for seconds.
    let allowed = |at: usize| calm_times[at] * 3 + Duration::from_millis(100);
    assert!(times[94] < allowed(94), "{times:?} beside {calm_times:?}");
    assert!(times[99] < allowed(99) + Duration::from_secs(2), "{times:?} beside {calm_times:?}");
    // Those that were told to go may not have gone yet.
    assert!(stats.admin_connections.load(Ordering::Relaxed) <= 64 + 16);
    assert!(stats.admin_evictions.load(Ordering::Relaxed) > 900);
    for dribbler in dribblers {
        dribbler.abort();
    }
}

#[tokio::test]
async fn the_oldest_idle_goes_and_the_busy_stay() {
    let stats = Arc::new(Stats::default());
    let slow = get(async || {
        sleep(Duration::from_millis(300)).await;
        "slow"
    });
    let broken = get(async || -> &'static str { panic!("a bug in a handler") });
    let router = Router::new().route("/slow", slow).route("/broken", broken).route("/", get(async || "fast"));
    let address = listen(router, 2, &stats).await;
    let busy = tokio::spawn(async move { fetch(address, "/slow").await });
    sleep(Duration::from_millis(20)).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    for _ in 0..3 {
        assert_eq!(fetch(address, "/").await, (200, "fast".to_owned()));
    }
    let closed = timeout(Duration::from_millis(50), idle.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
    assert_eq!(busy.await.unwrap(), (200, "slow".to_owned()));

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(fetch(address, "/").await.0, 200);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(stats.admin_connections.load(Ordering::Relaxed), 0);
    assert_eq!(stats.admin_requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn where_all_are_busy_a_new_one_is_not_kept_waiting() {
    let stats = Arc::new(Stats::default());
    let router = Router::new().route("/", get(std::future::pending::<&'static str>));
    let address = listen(router, 1, &stats).await;
    let _busy = tokio::spawn(async move { fetch(address, "/").await });
    sleep(Duration::from_millis(20)).await;
    let mut refused = TcpStream::connect(address).await.unwrap();
    let closed = timeout(Duration::from_millis(300), refused.read(&mut [0])).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_head_has_two_seconds_and_thirty_two_headers() {
    let (address, _publish) = serve(snapshot(Phase::Serving), false).await;
    let many: String = (0..40).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(send(address, "GET /livez", &many).await.status, 431);
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let before = Instant::now();
    let _ = slow.read_to_end(&mut Vec::new()).await;
    assert!((1900..2500).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
}
