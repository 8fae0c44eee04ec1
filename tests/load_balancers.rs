//! Rollouts behind HAProxy and nginx: with checks of readiness and without, with connections to the pods that are kept
//! and with new ones.
//!
//! `ROLLOUTS=20` says how many behind HAProxy that may lose nothing; by default all takes less than a minute.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "load_balancers/mod.rs"]
mod load_balancers;
#[path = "rollout/mod.rs"]
mod rollout;
#[path = "../examples/support/steady/mod.rs"]
mod steady;

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use common::{Exit, cannot_run, until};
use load_balancers::Balancer;
use load_balancers::haproxy::{Haproxy, Towards};
use load_balancers::nginx::Nginx;
use rollout::clients::{Clients, failed, summary};
use rollout::deployment::{Deployment, address, reached};
use rollout::kubelet::{Record, Spec};
use rollout::net::{Network, become_a_node};
use rollout::service::Endpoints;
use rollout::verdict::{drained, rollouts, spread};
use steady::{Shape, Tally};

const REPLICAS: usize = 3;

const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// Four times, 500 requests a second, half of them on new connections.
const SHAPES: [Shape; 2] = [Shape::New { rate: 65 }, Shape::Kept { rate: 60, connections: 12 }];

/// drainit's own in a pod.
const LB_WAIT_MAX: f64 = 15.0;

fn spec(server: &str, options: &[&str]) -> Spec {
    let server = format!("{}/tests/matrix/servers/{server}", env!("CARGO_MANIFEST_DIR"));
    Spec {
        command: ["/usr/bin/node", &server, "8080"].map(str::to_owned).to_vec(),
        drainit: true,
        pre_stop: None,
        grace: Duration::from_secs(30),
        forced: false,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

/// A load balancer after the rollouts, what its clients have got, and how the pods ended.
struct Played<B> {
    balancer: B,
    tallies: Vec<Tally>,
    records: Vec<Record>,
}

/// `None` where this host cannot play a node, which has been said.
#[track_caller]
fn roll_out<B: Balancer>(
    spec: Spec,
    rollouts: u32,
    program: &str,
    start: impl FnOnce(Network, &[Ipv4Addr]) -> B,
) -> Option<Played<B>> {
    if let Err(why) = become_a_node(&[program]) {
        cannot_run(&why);
        return None;
    }
    let replaced = REPLICAS * rollouts as usize;
    // The list has all that will ever be.
    let list: Vec<_> = (1..=REPLICAS + replaced).map(|number| address(number.try_into().unwrap())).collect();
    let mut deployment = Deployment::create(spec, REPLICAS, Endpoints::default());
    let balancer = start(Network::new(BALANCER), &list);
    until("the load balancer knows the pods", || balancer.knows(&deployment.addresses()).then_some(()));
    let clients = Clients::start(SocketAddr::from((balancer.address(), 80)), &SHAPES);
    for pod in deployment.addresses() {
        reached(pod, |pod| balancer.reaches(pod));
    }
    for _ in 0..rollouts {
        deployment.roll_out(|pod| balancer.reaches(pod));
    }
    let records = deployment.records();
    clients.go_on();
    let tallies = clients.stop();
    deployment.delete();

    assert_eq!(records.len(), replaced);
    let waits = records.iter().filter_map(|record| Some(seconds(lb_wait(record)?, "waited_seconds")));
    eprintln!(
        "{rollouts} rollouts of {REPLICAS} replicas: {}; LB wait {}; from deletion to the end {}",
        summary(&tallies),
        spread(waits.map(Duration::from_secs_f64)),
        spread(records.iter().map(|record| record.ended)),
    );
    Some(Played { balancer, tallies, records })
}

fn lb_wait(record: &Record) -> Option<&Value> {
    record.logged("load balancer wait over")
}

fn seconds(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("no {field} in {line}"))
}

fn behind_haproxy(spec: Spec, towards: Towards, rollouts: u32) -> Option<Played<Haproxy>> {
    roll_out(spec, rollouts, Haproxy::PROGRAM, |network, pods| Haproxy::start(network, pods, towards))
}

fn behind_nginx(spec: Spec, next: &str, rollouts: u32) -> Option<Played<Nginx>> {
    let played = roll_out(spec, rollouts, Nginx::PROGRAM, |network, pods| Nginx::start(network, pods, next))?;
    eprintln!("tried elsewhere after {:?}", played.balancer.tried_again());
    Some(played)
}

/// Who checks is told, is waited for, and no longer than it takes.
#[track_caller]
fn loses_nothing_behind_haproxy(towards: Towards) {
    let spec = spec("paths.js", &[]);
    let Some(Played { balancer, tallies, records }) = behind_haproxy(spec, towards, rollouts(2)) else {
        return;
    };
    assert_eq!(failed(&tallies), 0, "{tallies:#?}");
    for record in &records {
        drained(record, false);
        balancer.was_told(record.address);
        let over = lb_wait(record).unwrap_or_else(|| panic!("no LB wait: {record:#?}"));
        assert_eq!((&over["reason"], &over["checkers"]), (&"quiet".into(), &1.into()), "{over}");
        assert!(over["refused"].as_u64() >= Some(2), "{over}");
        assert!(seconds(over, "waited_seconds") < LB_WAIT_MAX, "{over}");
        if towards == Towards::Closing {
            assert!(over["connections"].as_u64() >= Some(1), "{over}");
        }
    }
}

#[test]
fn haproxy_that_opens_a_connection_for_each_request() {
    loses_nothing_behind_haproxy(Towards::Closing);
}

#[test]
fn haproxy_that_keeps_its_connections() {
    loses_nothing_behind_haproxy(Towards::Keeping);
}

/// nginx asks for no readiness: it sends what comes to a pod until the pod refuses it. One rollout: it goes on trying all
/// addresses of its list, and the more of them are gone, the more requests wait for them.
#[track_caller]
fn loses_nothing_behind_nginx(late: &str, next: &str) {
    let spec = spec("paths_gentle.js", &["--lb-wait=1s..4s", "--lb-quiet=1s", late]);
    let Some(Played { tallies, records, .. }) = behind_nginx(spec, next, 1) else { return };
    assert_eq!(failed(&tallies), 0, "{tallies:#?}");
    for record in &records {
        drained(record, false);
        let over = lb_wait(record).unwrap_or_else(|| panic!("no LB wait: {record:#?}"));
        assert_eq!((&over["checkers"], &over["refused"]), (&0.into(), &0.into()), "{over}");
    }
}

/// A connection that was refused or reset it tries elsewhere by itself, a 503 where it has been told to.
#[test]
fn nginx_tries_elsewhere_what_comes_too_late() {
    at_once([
        || loses_nothing_behind_nginx("--late-response=reset", "error timeout"),
        || loses_nothing_behind_nginx("--late-response=503", "error timeout http_503"),
    ]);
}

/// A server without a handler goes on accepting as long as somebody connects, and nginx does until it is refused.
#[test]
fn nginx_and_a_server_without_a_handler() {
    let options = ["--lb-wait=1s..4s", "--lb-quiet=1s", "--drain-timeout=20s"];
    let Some(played) = behind_nginx(spec("paths.js", &options), "error timeout", 1) else { return };
    assert_eq!(failed(&played.tallies), 0, "{:#?}", played.tallies);
    for record in &played.records {
        drained(record, false);
        let over = lb_wait(record).unwrap_or_else(|| panic!("no LB wait: {record:#?}"));
        let waited = Duration::from_secs_f64(seconds(over, "waited_seconds"));
        assert!(record.ended < waited + Duration::from_secs(5), "{record:#?}");
    }
}

/// The harness itself: who does not wait answers what still comes with a 503, and refuses it then. HAProxy needs a second.
///
/// This server lets its socket go when it is told to stop.
fn without_the_wait() {
    let spec = spec("paths_gentle.js", &["--lb-wait=0"]);
    let Some(Played { tallies, records, .. }) = behind_haproxy(spec, Towards::Closing, 1) else { return };
    assert!(failed(&tallies) >= 3, "{}", summary(&tallies));
    for record in &records {
        assert_eq!((record.exit, record.killed), (Exit::Code(0), false), "{record:#?}");
    }
}

/// And who is killed takes with him what he had in hand.
fn killed_behind_haproxy() {
    let spec = Spec { forced: true, ..spec("paths.js", &[]) };
    if let Some(Played { tallies, records, .. }) = behind_haproxy(spec, Towards::Keeping, 1) {
        were_killed(&tallies, &records);
    }
}

/// What nginx would otherwise try elsewhere.
fn killed_behind_nginx_that_tries_once() {
    let spec = Spec { forced: true, ..spec("paths.js", &[]) };
    if let Some(Played { tallies, records, .. }) = behind_nginx(spec, "off", 1) {
        were_killed(&tallies, &records);
    }
}

#[track_caller]
fn were_killed(tallies: &[Tally], records: &[Record]) {
    assert!(failed(tallies) >= 3, "{}", summary(tallies));
    for record in records {
        assert_eq!((record.exit, record.killed), (Exit::Signal(libc::SIGKILL), true), "{record:#?}");
    }
}

#[test]
fn without_a_wait_or_killed_pods_lose_requests() {
    at_once([without_the_wait, killed_behind_haproxy, killed_behind_nginx_that_tries_once]);
}

/// They wait most of the time. Each is a node of its own.
fn at_once<const N: usize>(rollouts: [fn(); N]) {
    let test = thread::current();
    thread::scope(|threads| {
        for rollout in rollouts {
            let named = thread::Builder::new().name(test.name().unwrap_or_default().to_owned());
            named.spawn_scoped(threads, rollout).expect("a thread");
        }
    });
}
