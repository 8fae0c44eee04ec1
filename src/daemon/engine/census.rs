//! How many connections each worker holds, and since when: for whoever asks, and once a second while they drain.
//!
//! A look is a dump of the sockets with the pool's ports, which the kernel makes some million of a second. Whose they are
//! takes reading the descriptors of all workers, so it is remembered: a connection never changes hands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use crate::core::event::{Notice, QuietEnd};
use crate::core::snapshot::Phase;
use crate::core::time::Time;
use crate::core::types::{Pid, WorkerId};
use crate::sys::{connections, process, procfs};

/// Between two looks at a pool that drains.
const EVERY: Duration = Duration::from_secs(1);

/// No more than such a part of our own time goes into looking, however many there are and however often somebody asks.
const SHARE: u32 = 10;

/// The same in a drain: other people's processes have work to do.
const DRAIN_SHARE: u32 = 100;

/// So many workers are named when their time is up.
const NAMED: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Census {
    /// By inode.
    known: BTreeMap<u64, Known>,
    round: u64,
    held: BTreeMap<WorkerId, Held>,
    took: Duration,
    looked: Option<Time>,
    due: Option<Time>,
    /// It cannot be seen, and that has been said.
    blind: bool,
    /// Where workers of a pool without `--listen` listen, or did before they were told to stop.
    ports: BTreeMap<Pid, BTreeSet<u16>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None`: nobody's who could be looked at.
    owner: Option<WorkerId>,
    since: Time,
    /// The look that saw it last.
    round: u64,
}

/// What one worker holds.
#[derive(Clone, Debug, Default)]
struct Held {
    connections: u32,
    peers: BTreeSet<IpAddr>,
    /// When the oldest was seen first.
    since: Option<Time>,
}

impl Census {
    /// Of this worker; `None` where nobody has looked, or there is no looking.
    pub(super) fn connections(&self, worker: WorkerId) -> Option<u32> {
        let looked = self.looked.is_some() && !self.blind;
        looked.then(|| self.held.get(&worker).map_or(0, |held| held.connections))
    }

    fn total(&self) -> Option<u32> {
        (self.looked.is_some() && !self.blind).then(|| self.held.values().map(|held| held.connections).sum())
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.due
    }

    /// Whose each of them is; those that nobody knows yet are looked for among all descriptors.
    fn find_owners(&mut self, now: Time, seen: &[(u64, Option<IpAddr>)], workers: &[(WorkerId, Pid)]) {
        self.round += 1;
        let mut unknown = Vec::new();
        for (inode, _) in seen {
            match self.known.get_mut(inode) {
                Some(known) => known.round = self.round,
                None => unknown.push(*inode),
            }
        }
        let mut owners = BTreeMap::new();
        let sole = if let [(worker, _)] = workers { Some(*worker) } else { None };
        if sole.is_none() && !unknown.is_empty() {
            for (worker, pid) in workers {
                let inodes = connections::inodes_of(&procfs::group(*pid)).unwrap_or_default();
                owners.extend(inodes.into_iter().map(|inode| (inode, *worker)));
            }
        }
        for inode in unknown {
            let owner = sole.or_else(|| owners.get(&inode).copied());
            self.known.insert(inode, Known { owner, since: now, round: self.round });
        }
        self.known.retain(|_, known| known.round == self.round);
    }

    fn count(&mut self, seen: &[(u64, Option<IpAddr>)]) {
        self.held.clear();
        for (inode, peer) in seen {
            let Some(Known { owner: Some(owner), since, .. }) = self.known.get(inode) else { continue };
            let held = self.held.entry(*owner).or_default();
            held.connections += 1;
            held.peers.extend(*peer);
            held.since = Some(held.since.map_or(*since, |oldest| oldest.min(*since)));
        }
    }
}

impl Engine {
    /// Count anew, unless that has just been done and took its time.
    pub(super) fn take_census(&mut self) {
        let now = self.clock.now();
        let recent = self.census.looked.is_some_and(|looked| now.since(looked) < self.census.took * SHARE);
        if recent || self.census.blind || self.workers.is_empty() {
            return;
        }
        let workers: Vec<_> = self.workers.iter().map(|(worker, known)| (*worker, known.pid)).collect();
        let before = process::cpu_time();
        match self.open_connections(&workers) {
            Ok(seen) => {
                self.census.find_owners(now, &seen, &workers);
                self.census.count(&seen);
            }
            Err(error) => {
                self.census.blind = true;
                tracing::info!(%error, "connections cannot be counted");
            }
        }
        self.census.looked = Some(now);
        self.census.took = process::cpu_time().saturating_sub(before);
    }

    fn open_connections(
        &mut self,
        workers: &[(WorkerId, Pid)],
    ) -> std::io::Result<Vec<(u64, Option<IpAddr>)>> {
        let mut ports: BTreeSet<u16> = self.launcher.sockets.ports().collect();
        if self.launcher.sockets.is_empty() {
            // Where they listen; or did, if they have been told to stop.
            for (_, pid) in workers {
                let inodes = connections::inodes_of(&procfs::group(*pid))?;
                let listening = connections::listening_ports(&inodes)?;
                if !listening.is_empty() {
                    self.census.ports.insert(*pid, listening);
                }
            }
            self.census.ports.extend(self.endings.ports_of_told().map(|(pid, ports)| (*pid, ports.clone())));
            self.census.ports.retain(|pid, _| workers.iter().any(|(_, worker)| worker == pid));
            ports.extend(self.census.ports.values().flatten());
        }
        let mut seen = connections::open_to_ports(&ports)?;
        let unix = connections::to_names(&self.launcher.sockets.names().collect());
        seen.extend(unix.into_iter().flatten().map(|connection| (connection.inode, None)));
        Ok(seen)
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
        self.take_census();
        self.census.due = Some(now + EVERY.max(self.census.took * DRAIN_SHARE));
        if let (false, Some(connections)) = (first, self.census.total()) {
            let workers = self.workers.len();
            tracing::info!(phase = phase.name(), workers, connections, "letting go");
        }
        self.publish();
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
