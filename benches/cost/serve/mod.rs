//! What it costs a server to be kept by drainit, beside the same processes with nobody above them and beside those who
//! accept for their workers: Node's cluster, and PM2, which is made of it.

mod kill;
mod least;
mod load;
mod peers;
mod roll;
mod servers;
mod spread;
#[path = "../../../examples/support/steady/mod.rs"]
mod steady;
mod throughput;

use std::io;

use crate::subject::Subject;
use servers::{ALONE, CLUSTER, Contender, Keeper, PM2, Server};

pub(crate) use kill::measure as kill;
pub(crate) use least::{boot, measure as least};
pub(crate) use peers::{get_pm2, get_python};
pub(crate) use roll::measure as roll;
pub(crate) use servers::keep;
pub(crate) use spread::measure as spread;
pub(crate) use throughput::measure as throughput;

/// Nobody, ours in two modes, and the peers that are here.
fn contenders(inits: &[Subject]) -> Vec<Contender> {
    let mut contenders = vec![Contender::peer(ALONE, Keeper::Nobody)];
    for init in inits.iter().filter(|init| init.ours) {
        contenders.extend(["shared", "per-worker"].map(|sockets| Contender::ours(init, sockets)));
    }
    contenders.push(Contender::peer(CLUSTER, Keeper::Cluster));
    contenders.extend(peers::pm2().map(|folder| Contender::peer(PM2, Keeper::Pm2(folder))));
    contenders
}

/// Start all of them; a peer that does not start is left out.
fn start_all(inits: &[Subject], workers: usize) -> io::Result<(Vec<Subject>, Vec<Server>)> {
    let (mut subjects, mut servers) = (Vec::new(), Vec::new());
    for contender in contenders(inits) {
        match contender.start(workers) {
            Ok(server) => {
                subjects.push(contender.subject);
                servers.push(server);
            }
            Err(error) if contender.subject.ours || contender.subject.name == ALONE => return Err(error),
            Err(error) => println!("\n{} left out: {error}", contender.subject.name),
        }
    }
    Ok((subjects, servers))
}
