//! How many connections each worker holds, and since when: for whoever asks, and once a second while they drain.
//!
//! A look is a dump of the sockets with the pool's ports, which the kernel makes some million of a second. It is taken in
//! slices, between which everybody else has his turn, and shows once it is whole.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Engine;
use crate::core::event::{Notice, QuietEnd};
use crate::core::snapshot::Phase;
use crate::core::time::Time;
use crate::core::types::{Pid, WorkerId};
use crate::sys::{connections, process, procfs, sock_diag};
use look::{Held, Look, Register};

/// Between two looks at a pool that drains.
const EVERY: Duration = Duration::from_secs(1);

/// No more than such a part of our own time goes into looking, however many there are and however often somebody asks.
const SHARE: u32 = 10;

/// The same in a drain: other people's processes have work to do.
const DRAIN_SHARE: u32 = 200;

/// So long a look goes on without a pause, and so long it pauses: whoever has come meanwhile has his turn.
const SLICE: Duration = Duration::from_millis(3);
const PAUSE: Duration = Duration::from_millis(1);

/// So many workers are named when their time is up.
const NAMED: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Census {
    register: Register,
    held: BTreeMap<WorkerId, Held>,
    /// Without pauses.
    took: Duration,
    looked: Option<Time>,
    due: Option<Time>,
    under_way: Option<UnderWay>,
    /// It cannot be seen, and that has been said.
    blind: bool,
    /// Where workers of a pool without `--listen` listen, or did before they were told to stop.
    ports: BTreeMap<Pid, BTreeSet<u16>>,
    /// All listening sockets there were when somebody looked for those.
    listening: BTreeSet<u64>,
}

/// A look that is not over.
#[derive(Debug)]
struct UnderWay {
    look: Look,
    began: Time,
    took: Duration,
    goes_on: Time,
    /// Who wants to know.
    asking: Vec<oneshot::Sender<()>>,
    /// The log does.
    tells: bool,
}

impl Census {
    /// Of this worker; `None` where nobody has looked, or there is no looking.
    pub(super) fn connections(&self, worker: WorkerId) -> Option<u32> {
        let looked = self.looked.is_some() && !self.blind;
        looked.then(|| self.held.get(&worker).map_or(0, |held| held.connections))
    }

    /// With whom a connection has been found, where somebody has looked.
    pub(super) fn owner(&self, inode: u64) -> Option<WorkerId> {
        self.register.owner(inode)
    }

    /// What has been found with it, where somebody has looked.
    pub(super) fn found_with(&self, worker: WorkerId) -> BTreeSet<u64> {
        self.register.found_with(worker).collect()
    }

    fn total(&self) -> Option<u32> {
        (self.looked.is_some() && !self.blind).then(|| self.held.values().map(|held| held.connections).sum())
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.due.into_iter().chain(self.under_way.as_ref().map(|look| look.goes_on)).min()
    }

    /// There is nothing to look at, or somebody just has, and it took its time.
    fn is_settled(&self, now: Time) -> bool {
        self.blind || self.looked.is_some_and(|looked| now.since(looked) < self.took * SHARE)
    }
}

impl Engine {
    /// Publish what is counted now, unless that has just been done, and say when it is out.
    pub(super) fn count_for(&mut self, reply: oneshot::Sender<()>) {
        if !self.take_census(false) {
            self.publish();
            let _ = reply.send(());
        } else if let Some(under_way) = &mut self.census.under_way {
            under_way.asking.push(reply);
            self.go_on_counting(self.clock.now());
        }
    }

    /// Begin to count anew, where nobody does already. Says whether it is being counted.
    fn take_census(&mut self, tells: bool) -> bool {
        if let Some(under_way) = &mut self.census.under_way {
            under_way.tells |= tells;
            return true;
        }
        let now = self.clock.now();
        if self.workers.is_empty() || self.census.is_settled(now) {
            return false;
        }
        let workers: Vec<_> = self.workers.iter().map(|(worker, known)| (*worker, known.pid)).collect();
        match self.ports_of(&workers) {
            Ok(ports) => {
                let names = self.launcher.sockets.names().collect();
                let look = Look::new(now, workers, ports, names, &mut self.census.register);
                let (took, asking) = (Duration::ZERO, Vec::new());
                self.census.under_way =
                    Some(UnderWay { look, began: now, took, goes_on: now, asking, tells });
                true
            }
            Err(error) => {
                self.go_blind(&error);
                false
            }
        }
    }

    pub(super) fn go_on_counting(&mut self, now: Time) {
        let Some(mut under_way) = self.census.under_way.take_if(|look| look.goes_on <= now) else { return };
        let resumed = self.clock.now();
        let before = process::cpu_time();
        let end = loop {
            let more = under_way.look.go_on(&mut self.census.register);
            let now = self.clock.now();
            if !matches!(more, Ok(true)) {
                break more;
            }
            if now.since(resumed) >= SLICE {
                under_way.took += process::cpu_time().saturating_sub(before);
                under_way.goes_on = now + PAUSE;
                self.census.under_way = Some(under_way);
                return;
            }
        };
        let UnderWay { look, began, took, asking, tells, .. } = under_way;
        match end {
            Ok(_) => self.census.held = look.close(&mut self.census.register),
            Err(error) => self.go_blind(&error),
        }
        self.census.looked = Some(began);
        self.census.took = took + process::cpu_time().saturating_sub(before);
        if let Some(due) = &mut self.census.due {
            *due = (*due).max(began + self.census.took * DRAIN_SHARE);
        }
        if let Some(connections) = self.census.total().filter(|_| tells) {
            let (phase, workers) = (self.core.phase().name(), self.workers.len());
            tracing::info!(phase, workers, connections, "letting go");
        }
        tracing::debug!(took = ?self.census.took, "connections counted");
        self.publish();
        for reply in asking {
            let _ = reply.send(());
        }
    }

    fn go_blind(&mut self, error: &std::io::Error) {
        self.census.blind = true;
        tracing::info!(%error, "connections cannot be counted");
    }

    /// Where connections to these workers end.
    fn ports_of(&mut self, workers: &[(WorkerId, Pid)]) -> std::io::Result<BTreeSet<u16>> {
        if !self.launcher.sockets.is_empty() {
            return Ok(self.launcher.sockets.ports().collect());
        }
        let census = &mut self.census;
        // Whose sockets they are takes reading all descriptors.
        let listening = sock_diag::listening_inodes();
        let changed = std::mem::replace(&mut census.listening, listening) != census.listening;
        for (_, pid) in
            workers.iter().filter(|(_, pid)| changed || !census.ports.contains_key(pid)).collect::<Vec<_>>()
        {
            let inodes = connections::inodes_of(&procfs::group(*pid))?;
            let ports = connections::listening_ports(&inodes)?;
            // Or did, if it has been told to stop.
            if !ports.is_empty() || !census.ports.contains_key(pid) {
                census.ports.insert(*pid, ports);
            }
        }
        census.ports.extend(self.endings.ports_of_told().map(|(pid, ports)| (*pid, ports.clone())));
        census.ports.retain(|pid, _| workers.iter().any(|(_, worker)| worker == pid));
        Ok(census.ports.values().flatten().copied().collect())
    }

    /// Once a second while load balancers or workers let go.
    pub(super) fn tell_progress(&mut self, now: Time) {
        let phase = self.core.phase();
        let drains = matches!(phase, Phase::LameDuck | Phase::Draining);
        if !drains {
            self.census.due = None;
            return;
        }
        if self.census.due.is_some_and(|due| due > now) {
            return;
        }
        let first = self.census.due.replace(now + EVERY).is_none();
        // An init has other things to do when it is told to end, which is over in no time mostly.
        if first && self.is_init_only() {
            return;
        }
        self.take_census(!first);
        self.go_on_counting(now);
    }

    /// Their time is up: who still held what, a second ago at most. A deadline waits for no look.
    pub(super) fn tell_who_holds(&self, notice: &Notice) {
        let whose = |pid: Pid| match notice {
            Notice::HardDeadline => true,
            Notice::WorkerKilled { pid: ended, .. }
            | Notice::WorkerEndedQuietly { pid: ended, why: QuietEnd::Straggler, .. } => *ended == pid,
            _ => false,
        };
        let now = self.clock.now();
        let holding =
            self.census.held.iter().filter_map(|(worker, held)| Some((self.workers.get(worker)?, held)));
        for (known, held) in holding.filter(|(known, _)| whose(known.pid)).take(NAMED) {
            tracing::warn!(
                slot = known.slot,
                pid = %known.pid,
                connections = held.connections,
                peers = held.peers.len(),
                seen_for_seconds = held.since.map_or(0.0, |since| now.since(since).as_secs_f64()),
                "still holds connections"
            );
        }
    }
}
