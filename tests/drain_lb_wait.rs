//! The LB wait ends once the load balancers have let go, and not before.
//!
//! `DRAINIT_LB_WAIT_FULL=1` has them let go after 1, 3, 7 and 12 s, with the defaults of a pod; otherwise all is shorter.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "a connection that is reset")]

#[path = "drain_lb_wait/clients.rs"]
mod clients;
mod common;

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use clients::{Checker, End, LoadBalancer, Repeated, Sidecar};
use common::machine::Sleeper;
use common::network::leave_network;
use common::pool::{Pool, PoolLaunch, pool, pool_without_socket};
use common::{Exit, http, until};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const QUIET: Duration = ms(600);

/// Between 0.3 s and 12 s.
fn adaptive(launch: PoolLaunch) -> PoolLaunch {
    launch.options(["--grace", "30s", "--lb-wait", "300ms..12s", "--lb-quiet", "600ms"])
}

/// The line at the end of the wait.
#[track_caller]
fn wait_is_over(pool: &Pool) -> Value {
    let over = pool.logged("load balancer wait over");
    until("the log has it once", || {
        let lines = pool.log().into_iter().filter(|line| line["message"] == "load balancer wait over");
        (lines.count() == 1).then_some(())
    });
    over
}

fn seconds(line: &Value, field: &str) -> Duration {
    Duration::from_secs_f64(line[field].as_f64().unwrap_or_else(|| panic!("no {field} in {line}")))
}

/// It ended by itself, with nobody there to be waited for.
#[track_caller]
fn ends_at_once(pool: &Pool) -> Value {
    pool.signal(libc::SIGTERM);
    let over = wait_is_over(pool);
    assert_eq!(over["reason"], "quiet", "{over}\n{}", **pool);
    assert!(seconds(&over, "waited_seconds") >= QUIET, "{over}");
    over
}

/// One that sends new connections up to `after`; says how long the wait and how long the drain was.
fn with_a_load_balancer(
    pool: &mut Pool,
    address: SocketAddr,
    end: End,
    after: Duration,
    quiet: Duration,
) -> (Duration, Duration) {
    with_a_load_balancer_and(pool, address, end, after, quiet, ms(0))
}

/// The same; the wait may last `more` for other reasons.
fn with_a_load_balancer_and(
    pool: &mut Pool,
    address: SocketAddr,
    end: End,
    after: Duration,
    quiet: Duration,
    more: Duration,
) -> (Duration, Duration) {
    let sleeper = Sleeper::start();
    let balancer = LoadBalancer::of(address, ms(50), end);
    until("it has connected", || http::get(address, "/").is_ok().then_some(()));
    let told = Instant::now();
    pool.signal(libc::SIGTERM);
    thread::park_timeout(after);
    let (began, ended) = balancer.lets_go();
    let over = wait_is_over(pool);
    assert_eq!(pool.wait(), Exit::Code(0), "{}", **pool);
    let drained = told.elapsed();
    let waited = seconds(&over, "waited_seconds");
    assert_eq!(over["reason"], "quiet", "{over}\n{}", **pool);
    assert!(over["connections"].as_u64() >= Some(1), "{over}");
    // The tables of /proc/net promise no more than that it ends by itself and not too early.
    let makeshift = if pool.has_logged("sock_diag is refused") { ms(12_000) } else { ms(0) };
    // The signal takes its time to arrive, the wait begins with it; so do the log's milliseconds.
    let late = sleeper.lateness(told, Instant::now());
    assert!(
        waited + ms(2) >= (began - told).saturating_sub(late) + quiet,
        "before the last: {over}, {began:?}"
    );
    let limit = (ended - told) + quiet + ms(500) + makeshift + late + more;
    assert!(waited <= limit, "{waited:?} of {limit:?}: {over}\n{}", **pool);
    (waited, drained)
}

#[test]
fn the_wait_ends_once_the_load_balancer_has_let_go() {
    let full = std::env::var_os("DRAINIT_LB_WAIT_FULL").is_some();
    let (wait, quiet, times): (_, _, &[u64]) = match full {
        true => ("3s..15s", ms(2000), &[1000, 3000, 7000, 12000]),
        false => ("300ms..12s", QUIET, &[500, 1500, 3000]),
    };
    println!("let go after   LB wait ended   drain took   a fixed 15 s: drain would take");
    let all: Vec<_> = times
        .iter()
        .map(|after| {
            thread::spawn(move || {
                leave_network();
                let quiet_option = format!("{}ms", quiet.as_millis());
                let options = ["--grace", "30s", "--lb-wait", wait, "--lb-quiet", &quiet_option];
                let mut pool = pool().options(options).server().start();
                pool.wait_ready(1);
                let address = pool.address();
                (*after, with_a_load_balancer(&mut pool, address, End::ByServer, ms(*after), quiet))
            })
        })
        .collect();
    for one in all {
        let (after, (waited, drained)) = one.join().expect("none of them failed");
        let fixed = drained - waited + Duration::from_secs(15);
        println!("{:9.1} s {waited:13.2?} {drained:13.2?} {fixed:12.2?}", after as f64 / 1000.0);
    }
}

#[test]
fn no_connection_is_too_short_to_be_seen() {
    leave_network();
    let mut pool = adaptive(pool()).server().start();
    pool.wait_ready(1);
    let address = pool.address();
    with_a_load_balancer(&mut pool, address, End::ByReset, ms(1500), QUIET);
}

#[test]
fn both_families_count() {
    for (listen, host) in
        [("[::]", SocketAddr::from((Ipv6Addr::LOCALHOST, 0))), ("", (Ipv4Addr::LOCALHOST, 0).into())]
    {
        leave_network();
        let launch = pool_without_socket();
        let address = SocketAddr::new(host.ip(), launch.port().number);
        let listen =
            if listen.is_empty() { address.port().to_string() } else { format!("[::]:{}", address.port()) };
        let mut pool = adaptive(launch).options(["--listen", &listen]).server().start();
        pool.wait_ready(1);
        with_a_load_balancer(&mut pool, address, End::ByServer, ms(700), QUIET);
    }
}

#[test]
fn a_worker_that_binds_by_itself_is_watched_at_its_own_port() {
    leave_network();
    let launch = pool_without_socket();
    let port = launch.port().number;
    let steps = [format!("bind-and-serve={port}")];
    let mut pool =
        adaptive(launch).options(["--remap-exit", "143=0", "--log-level", "debug"]).worker(steps).start();
    let address = pool.address();
    until("it serves", || http::get(address, "/").is_ok().then_some(()));
    let sidecar = Sidecar::start(End::ByServer);
    with_a_load_balancer(&mut pool, address, End::ByServer, ms(1000), QUIET);
    drop(sidecar);
}

/// One that binds the port, with and without drainit's owning it, dies in the wait, before and after the load balancer has let
/// go. Who comes in its place is watched like it; a change counts as if somebody had come.
#[test]
fn a_worker_that_is_replaced_in_the_wait_is_watched_in_its_place() {
    const LETS_GO: Duration = ms(1500);
    for (owned, dies) in
        [(false, ms(500)), (false, LETS_GO + ms(300)), (true, ms(500)), (true, LETS_GO + ms(300))]
    {
        leave_network();
        let launch = pool_without_socket();
        let port = launch.port().number.to_string();
        let launch = if owned { launch.options(["--listen", &port, "--workers", "2"]) } else { launch };
        let launch = adaptive(launch).options(["--restart", "always", "--log-level", "debug"]);
        let mut pool = launch.worker([format!("bind-and-serve={port}")]).start();
        pool.wait_ready(if owned { 2 } else { 1 });
        let (address, victim) = (pool.address(), pool.member(0).process);
        let end = thread::spawn(move || {
            thread::park_timeout(dies);
            victim.signal(libc::SIGKILL);
        });
        let more = if owned { ms(0) } else { dies.saturating_sub(LETS_GO) + QUIET };
        with_a_load_balancer_and(&mut pool, address, End::ByServer, LETS_GO, QUIET, more);
        end.join().unwrap();
        let at = |message: &str| {
            let at = pool.log().iter().rposition(|line| line["message"].to_string().contains(message));
            at.unwrap_or_else(|| panic!("no {message:?}\n{}", *pool))
        };
        let (killed, replaced, over) =
            (at("killed by SIGKILL"), at("worker ready"), at("load balancer wait over"));
        assert!(killed < replaced && replaced < over, "{}", *pool);
    }
}

#[test]
fn a_queue_for_each_worker_is_watched_as_well_and_own_checks_are_no_clients() {
    leave_network();
    let options =
        ["--workers", "2", "--sockets", "per-worker", "--check", "http=/", "--check-every", "200ms"];
    let mut pool = adaptive(pool()).options(options).server().start();
    pool.wait_ready(2);
    let address = pool.address();
    with_a_load_balancer(&mut pool, address, End::ByServer, ms(700), QUIET);
}

#[test]
fn own_checks_of_a_port_are_no_clients() {
    leave_network();
    let launch = pool();
    let check = format!("http=:{}/", launch.port().number);
    let pool = adaptive(launch).options(["--check", &check, "--check-every", "150ms"]).server().start();
    pool.wait_ready(1);
    ends_at_once(&pool);
}

#[test]
fn others_in_the_pod_do_not_lengthen_the_wait() {
    for end in [End::ByServer, End::ByReset] {
        leave_network();
        let pool = adaptive(pool()).server().start();
        pool.wait_ready(1);
        let sidecar = Sidecar::start(end);
        let over = ends_at_once(&pool);
        assert_eq!(over["connections"], 0, "{over}");
        assert!(sidecar.connections.load(std::sync::atomic::Ordering::Relaxed) > 10);
    }
}

#[test]
fn the_kubelet_does_not_lengthen_the_wait() {
    leave_network();
    let pool = adaptive(pool()).server().start();
    pool.wait_ready(1);
    let (address, admin) = (pool.address(), pool.admin.local());
    let readiness = Checker::of(admin, ms(100), "kube-probe/1.33");
    // Connects and says nothing.
    let _tcp = Repeated::every(ms(150), move || drop(TcpStream::connect(address)));
    // Seldom enough for a quiet moment in between.
    let _http = Repeated::every(ms(2500), move || {
        let _ = http::request(address, "GET", "/", "User-Agent: kube-probe/1.33\r\n");
    });
    until("they have been there", || (pool.counter("spawns") == 1).then_some(()));
    let over = ends_at_once(&pool);
    assert_eq!(over["checkers"], 0, "{over}");
    readiness.stops();
}

/// All that goes on in a pod that nobody sends anything to any more: at the kubelet's own pace and with a pod's own wait where
/// there is time for that.
#[test]
fn a_sidecar_and_the_kubelet_together_do_not_lengthen_the_wait() {
    let full = std::env::var_os("DRAINIT_LB_WAIT_FULL").is_some();
    let (wait, quiet, min, period) = match full {
        true => ("3s..15s", "2s", ms(3000), ms(10_000)),
        false => ("1s..12s", "600ms", ms(1000), ms(400)),
    };
    let quiet_time = if full { ms(2000) } else { ms(600) };
    leave_network();
    let options = ["--grace", "30s", "--lb-wait", wait, "--lb-quiet", quiet];
    let mut pool = pool().options(options).server().start();
    pool.wait_ready(1);
    let (address, admin) = (pool.address(), pool.admin.local());
    let sidecar = Sidecar::start(End::ByServer);
    let count = || sidecar.connections.load(std::sync::atomic::Ordering::Relaxed);
    let readiness = Checker::of(admin, period, "kube-probe/1.36");
    let _tcp = Repeated::every(period, move || drop(TcpStream::connect(address)));
    until("the sidecar is at work", || (count() > 10).then_some(()));
    let (told, before) = (Instant::now(), count());
    pool.signal(libc::SIGTERM);
    let over = wait_is_over(&pool);
    let (took, connections) = (told.elapsed(), count() - before);
    assert_eq!(over["reason"], "quiet", "{over}\n{}", *pool);
    // A probe that is there at the very moment of a look counts as a client, for one more time of quiet.
    let seen = over["connections"].as_u64().expect("a number");
    assert!(
        seen <= 1 && seconds(&over, "waited_seconds") < min + ms(700) + quiet_time * (seen as u32),
        "{over}"
    );
    // Fifty a second, less what the machine has no time for.
    assert!(f64::from(connections) > 20.0 * took.as_secs_f64(), "{connections} in {took:?}");
    assert_eq!(pool.wait(), Exit::Code(0));
    readiness.stops();
}

#[test]
fn a_load_balancer_that_checks_has_to_have_been_told_twice() {
    leave_network();
    let pool = adaptive(pool()).server().start();
    pool.wait_ready(1);
    let checker = Checker::of(pool.admin.local(), ms(1000), "HAProxy");
    until("it has come before", || {
        let answer = http::request(pool.admin.local(), "GET", "/readyz", "User-Agent: HAProxy\r\n");
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    });
    thread::park_timeout(ms(1200));
    assert_eq!(checker.refused(), 0);
    let over = ends_at_once(&pool);
    assert!(checker.refused() >= 2, "{over}");
    assert_eq!((&over["checkers"], &over["refused"]), (&1.into(), &2.into()), "{over}");
    checker.stops();
}

#[test]
fn one_that_has_stopped_checking_is_not_waited_for() {
    leave_network();
    let pool = adaptive(pool()).server().start();
    pool.wait_ready(1);
    let checker = Checker::of(pool.admin.local(), ms(300), "ELB-HealthChecker/2.0");
    thread::park_timeout(ms(1000));
    checker.stops();
    let over = ends_at_once(&pool);
    assert_eq!(over["checkers"], 0, "{over}");
}

#[test]
fn kept_connections_do_not_lengthen_the_wait_nor_end_it_before_its_minimum() {
    leave_network();
    let options = ["--grace", "30s", "--lb-wait", "1500ms..12s", "--lb-quiet", "300ms"];
    let pool = pool().options(options).server().start();
    pool.wait_ready(1);
    let address = pool.address();
    let mut kept = TcpStream::connect(address).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut alive = kept.try_clone().unwrap();
    let _used = Repeated::every(ms(50), move || {
        let _ = alive.write_all(b"X-More: yes\r\n");
    });
    pool.signal(libc::SIGTERM);
    let over = wait_is_over(&pool);
    let waited = seconds(&over, "waited_seconds");
    assert_eq!((&over["reason"], &over["connections"]), (&"quiet".into(), &0.into()), "{over}");
    assert!(waited >= ms(1499), "{over}");
    kept.write_all(b"\r\n").unwrap();
}

#[test]
fn without_netlink_the_tables_have_to_do() {
    leave_network();
    let mut pool = adaptive(pool()).under(["no-netlink"]).server().start();
    pool.wait_ready(1);
    let sidecar = Sidecar::start(End::ByServer);
    let address = pool.address();
    with_a_load_balancer(&mut pool, address, End::ByReset, ms(1000), QUIET);
    assert!(pool.has_logged("sock_diag is refused"));
    drop(sidecar);
}

#[test]
fn what_nobody_can_see_lasts_as_long_as_it_may() {
    let options = ["--grace", "30s", "--lb-wait", "100ms..1s", "--lb-quiet", "100ms"];
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("socket").display());
    leave_network();
    let blind = pool().options(options).under(["hide=/proc"]).server().start();
    let named = pool_without_socket().options(options).options(["--listen", &unix]).server().start();
    for pool in [blind, named] {
        until("it serves", || (pool.readyz() == 200).then_some(()));
        pool.signal(libc::SIGTERM);
        let over = wait_is_over(&pool);
        assert_eq!((&over["reason"], &over["connections"]), (&"max".into(), &Value::Null), "{over}");
        assert!(pool.has_logged("lasts as long as it may"), "{}", *pool);
    }
}

#[test]
fn a_hook_returns_when_the_wait_is_over_and_what_was_seen_is_told() {
    leave_network();
    let pool = adaptive(pool()).server().start();
    pool.wait_ready(1);
    let output = pool.ask(&["prestop"]);
    assert!(output.status.success(), "{output:?}");
    let status = pool.status();
    assert_eq!(status["phase"], "lame-duck");
    let wait = &status["drain"]["lb_wait"];
    assert_eq!((&wait["reason"], &wait["max_seconds"]), (&"quiet".into(), &12.0.into()), "{status}");
    assert!(wait["elapsed_seconds"].as_f64().unwrap() < 12.0, "{status}");
    let metrics = pool.get("/metrics").body;
    assert!(metrics.contains("drainit_lb_waits_ended_total{reason=\"quiet\"} 1"), "{metrics}");
    assert!(metrics.contains("\ndrainit_lb_wait_seconds "), "{metrics}");
}

#[test]
fn a_second_term_ends_the_wait_and_is_named() {
    leave_network();
    let pool = adaptive(pool())
        .worker(["watch", "say=here", "log=USR1"])
        .options(["--ready-when", "started"])
        .start();
    pool.expect("here");
    pool.signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    pool.signal(libc::SIGTERM);
    assert_eq!(wait_is_over(&pool)["reason"], "signal");
    let metrics = pool.get("/metrics").body;
    assert!(metrics.contains("drainit_lb_waits_ended_total{reason=\"signal\"} 1"), "{metrics}");
    pool.signal(libc::SIGUSR1);
}
