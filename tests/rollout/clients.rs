//! Clients of a Service, each in a network of its own: with one address, ports that lead to a dead pod would be used
//! again, since connection tracking remembers where a connection that was never answered was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::net::Network;
use crate::common::until_at_last;
use crate::steady::{Failure, Shape, Steady, Tally};

const CLIENTS: u8 = 4;

/// All of them together: 160 new connections a second, and as many requests on 16 that are kept.
const NEW: Shape = Shape::New { rate: 40 };
const KEPT: Shape = Shape::Kept { rate: 40, connections: 4 };

pub struct Clients {
    loads: Vec<Steady>,
    networks: Vec<Network>,
}

impl Clients {
    /// On the node that this thread is on. Each of them is all of these shapes.
    pub fn start(address: SocketAddr, shapes: &[Shape]) -> Self {
        let networks: Vec<_> =
            (1..=CLIENTS).map(|number| Network::new(Ipv4Addr::new(10, 1, 0, number))).collect();
        let begin = |network: &Network| {
            network.run(|| shapes.iter().map(|shape| Steady::start(address, "/slow", *shape)).collect())
        };
        let loads = networks.iter().flat_map(|network| -> Vec<Steady> { begin(network) }).collect();
        let clients = Self { loads, networks };
        clients.go_on();
        clients
    }

    /// Each has had answers, as it would for a while.
    pub fn go_on(&self) {
        let before: Vec<_> = self.loads.iter().map(Steady::answered).collect();
        until_at_last(Duration::from_secs(60), "the load goes on", || {
            let mut both = self.loads.iter().zip(&before);
            both.all(|(load, before)| load.answered() > before + 20).then_some(())
        });
    }

    /// The answers to all that were sent are waited for.
    pub fn stop(self) -> Vec<Tally> {
        let tallies = self.loads.into_iter().map(|load| load.stop().expect("the load")).collect();
        drop(self.networks);
        tallies
    }
}

pub fn shapes() -> [Shape; 2] {
    [NEW, KEPT]
}

pub fn new_connections() -> [Shape; 1] {
    [NEW]
}

pub fn summary(tallies: &[Tally]) -> String {
    let failures = tallies.iter().flat_map(|tally| &tally.failed);
    let mut kinds: Vec<(Failure, u64)> = Vec::new();
    for (failure, count) in failures {
        match kinds.iter_mut().find(|(kind, _)| kind == failure) {
            Some((_, sum)) => *sum += count,
            None => kinds.push((*failure, *count)),
        }
    }
    let sent: u64 = tallies.iter().map(|tally| tally.sent).sum();
    let late: u64 = tallies.iter().map(|tally| tally.late).sum();
    let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{} {count}", kind.word())).collect();
    format!("{sent} requests, {} failed ({}), {late} sent late", failed(tallies), kinds.join(", "))
}

pub fn failed(tallies: &[Tally]) -> u64 {
    tallies.iter().map(Tally::failures).sum()
}
