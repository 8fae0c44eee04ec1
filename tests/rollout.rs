//! Rollouts of a Deployment under load, with the kubelet's and kube-proxy's parts played in their order and timing:
//! probes, endpoints that are removed late, hooks, SIGTERM, and SIGKILL when the grace period is over.
//!
//! `ROLLOUTS=20` says how many; by default up to 20, in a minute and a half.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod common;
#[path = "rollout/mod.rs"]
mod rollout;
#[path = "../examples/support/steady/mod.rs"]
mod steady;

use std::time::Duration;

use common::{Exit, cannot_run};
use rollout::clients::{Clients, failed, new_connections, shapes, summary};
use rollout::deployment::{Deployment, reached};
use rollout::kubelet::{Record, Spec};
use rollout::net::become_a_node;
use rollout::service::{Endpoints, Proxy};
use rollout::verdict::{drained, rollouts, spread};
use steady::{Shape, Tally};

const REPLICAS: usize = 3;

/// From a pod's deletion to its end, of nine in ten, since a machine that has others to run may hold up one: who terminates
/// takes what it needs, and no fixed sleep.
const CLOSED: Duration = Duration::from_secs(5);

fn spec(server: &str) -> Spec {
    let server = format!("{}/tests/matrix/servers/{server}", env!("CARGO_MANIFEST_DIR"));
    Spec {
        command: ["/usr/bin/node", &server, "8080"].map(str::to_owned).to_vec(),
        drainit: true,
        pre_stop: None,
        grace: Duration::from_secs(30),
        forced: false,
        options: Vec::new(),
    }
}

/// `None` where this host cannot play a node, which has been said.
#[track_caller]
fn roll_out(spec: Spec, shapes: &[Shape], rollouts: u32) -> Option<(Vec<Tally>, Vec<Record>)> {
    if let Err(why) = become_a_node(&[]) {
        cannot_run(&why);
        return None;
    }
    let endpoints = Endpoints::default();
    let _proxy = Proxy::start(endpoints.clone());
    let mut deployment = Deployment::create(spec, REPLICAS, endpoints.clone());
    for address in deployment.addresses() {
        reached(address, |address| endpoints.is_named(address));
    }
    let clients = Clients::start(Proxy::address(), shapes);
    for _ in 0..rollouts {
        // A Deployment knows nothing of kube-proxy.
        deployment.roll_out(|_| true);
    }
    let records = deployment.records();
    clients.go_on();
    let tallies = clients.stop();
    deployment.delete();

    assert_eq!(records.len(), REPLICAS * rollouts as usize);
    let removals = records.iter().map(|record| {
        let removed = endpoints.removed(record.address).expect("its removal");
        removed - record.deleted
    });
    let ends = records.iter().map(|record| record.ended);
    eprintln!(
        "{rollouts} rollouts of {REPLICAS} replicas: {}; from deletion to removal {}, to the end {}",
        summary(&tallies),
        spread(removals),
        spread(ends),
    );
    Some((tallies, records))
}

#[track_caller]
fn loses_nothing(spec: Spec, shapes: &[Shape], usually: u32) {
    let hook = spec.pre_stop.is_some();
    let Some((tallies, records)) = roll_out(spec, shapes, rollouts(usually)) else { return };
    assert_eq!(failed(&tallies), 0, "{tallies:#?}");
    for record in &records {
        drained(record, hook);
    }
    let mut ends: Vec<_> = records.iter().map(|record| record.ended).collect();
    ends.sort_unstable();
    assert!(ends[(ends.len() - 1) * 9 / 10] < CLOSED, "{ends:?}");
}

/// It dies of SIGTERM with requests in flight, if nobody sees to it that there are none.
#[test]
fn node_without_a_handler() {
    loses_nothing(spec("paths.js"), &new_connections(), 3);
}

/// Kept connections are told by `Connection: close`.
#[test]
fn node_that_says_close() {
    loses_nothing(spec("paths_gentle.js"), &shapes(), 20);
}

#[test]
fn the_wait_in_a_hook() {
    loses_nothing(Spec { pre_stop: Some("prestop"), ..spec("paths_gentle.js") }, &shapes(), 3);
}

/// The harness itself: the same server, which does end gracefully, loses what is sent to it until its endpoint is gone.
#[test]
fn without_drainit_requests_fail() {
    let control = Spec { drainit: false, ..spec("paths_gentle.js") };
    let Some((tallies, records)) = roll_out(control, &new_connections(), 3) else { return };
    assert!(failed(&tallies) >= 3, "{}", summary(&tallies));
    for record in &records {
        assert_eq!((record.exit, record.killed), (Exit::Code(0), false), "{record:#?}");
    }
}

/// Nor does it help to do nothing: as PID 1 it does not even die, until it is killed with what it has in hand.
#[test]
fn without_drainit_and_a_handler_the_grace_period_passes() {
    let control = Spec { drainit: false, grace: Duration::from_secs(5), ..spec("paths.js") };
    let Some((_, records)) = roll_out(control, &new_connections(), 1) else { return };
    for record in &records {
        assert!(record.killed && record.ended >= Duration::from_secs(5), "{record:#?}");
    }
}
