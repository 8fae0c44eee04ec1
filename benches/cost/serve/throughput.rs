//! Requests a second, and what a request costs.

use std::io;

use super::load::{self, Connections, Limit};
use super::servers::{self, ALONE};
use crate::plan::Plan;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};

/// Nothing is in the way of a request; what is missing is noise. A queue each is not for connections that last for one
/// request: whoever waits for a worker that is busy is not helped by another that is not. With kept connections it keeps
/// every worker equally busy, as cluster does, and on few processors that is felt by whoever makes the load.
const RATE: Bar = Bar::AtLeast(0.98);

/// The same, and steadier: what else the machine does takes little of it away.
const COST: Bar = Bar::Ratio(1.05);

const WORKERS: usize = 2;

const CLIENTS: usize = 32;

/// The first rounds are for Node's compiler.
const WARMING_UP: usize = 5;

struct Load {
    name: &'static str,
    connections: Connections,
    rates: Vec<Series>,
    costs: Vec<Series>,
    failed: u64,
}

pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let (subjects, servers) = super::start_all(inits, WORKERS)?;
    let load = |name, connections| Load {
        name,
        connections,
        rates: Series::of(&subjects),
        costs: Series::of(&subjects),
        failed: 0,
    };
    let mut loads = [load("new connections", Connections::New), load("kept connections", Connections::Kept)];
    let mut shuffle = Shuffle::new();
    let (rounds, time) = plan.serve;
    for round in 0..rounds + WARMING_UP {
        for load in &mut loads {
            for index in shuffle.round(servers.len()) {
                let Some(server) = servers.get(index) else { continue };
                let before = server.processor_time()?;
                let limit = Limit::After(time);
                let outcome = load::closed(server.address, load.connections, CLIENTS, limit)?;
                if round >= WARMING_UP {
                    load.costs[index]
                        .values
                        .push((server.processor_time()? - before) / outcome.answered as f64);
                    load.rates[index].values.push(outcome.rate());
                    load.failed += outcome.failures();
                }
            }
        }
    }
    let mut rows = Vec::new();
    for Load { name, rates, costs, failed, .. } in loads {
        let bar = |subject: &Subject| if servers::has_queue_each(subject) { Bar::None } else { RATE };
        let measure = format!("Node x {WORKERS}, {name}");
        rows.extend(table::rounds_beside(ALONE, &measure, "requests a second", &rates, bar));
        if failed > 0 {
            println!("  {failed} requests FAILED");
        }
        let measure = format!("{measure}: workers and whoever is above them");
        rows.extend(table::rounds_beside(ALONE, &measure, "us of processor time a request", &costs, |_| {
            COST
        }));
    }
    Ok(rows)
}
