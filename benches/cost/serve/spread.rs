//! How evenly the workers come by their connections.

use std::io;

use super::load::{self, Connections, Limit};
use super::servers::{self, ALONE};
use crate::plan::Plan;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};

struct Case {
    measure: &'static str,
    unit: &'static str,
    workers: usize,
    connections: Connections,
    clients: usize,
    requests: u64,
    /// For the shared queue, which only a load that leaves no worker idle shares fairly: the one that went to sleep last is
    /// woken first. And for a queue each.
    bars: [Bar; 2],
}

const CASES: [Case; 2] = [
    Case {
        measure: "Node x 4, 10000 new connections under full load",
        unit: "most to least",
        workers: 4,
        connections: Connections::New,
        clients: 1000,
        requests: 10_000,
        bars: [Bar::Value(1.5), Bar::Value(1.2)],
    },
    Case {
        measure: "Node x 2, 32 kept connections",
        unit: "most to least",
        workers: 2,
        connections: Connections::Kept,
        clients: 32,
        requests: 3200,
        bars: [Bar::None, Bar::Value(2.0)],
    },
];

pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case, count) in CASES.iter().zip(plan.spread) {
        rows.extend(rounds(count, case, inits)?);
    }
    Ok(rows)
}

fn rounds(count: usize, case: &Case, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let (subjects, servers) = super::start_all(inits, case.workers)?;
    let mut series = Series::of(&subjects);
    let mut shuffle = Shuffle::new();
    let limit = Limit::Requests(case.requests);
    for round in 0..=count {
        for index in shuffle.round(servers.len()) {
            let (Some(server), Some(series)) = (servers.get(index), series.get_mut(index)) else { continue };
            let outcome = load::closed(server.address, case.connections, case.clients, limit)?;
            if round > 0 {
                series.values.push(outcome.imbalance(case.workers));
            }
        }
    }
    let bar = |subject: &Subject| case.bars[usize::from(servers::has_queue_each(subject))];
    Ok(table::worst_of_rounds(ALONE, case.measure, case.unit, &series, bar))
}
