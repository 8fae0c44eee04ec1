//! One look at all connections, a part at a time.
//!
//! Whose they are is remembered: a connection never changes hands. What workers wait for by epoll(7) tells it, and where
//! somebody is in nobody's sets, all their descriptors, which take several times as long.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use crate::core::time::Time;
use crate::core::types::{Pid, WorkerId};
use crate::sys::connections::{self, UnixName};
use crate::sys::listing::{Holdings, Listing, Open};
use crate::sys::procfs;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// By inode.
    known: BTreeMap<u64, Known>,
    look: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// `None`: nobody's who could be looked at.
    owner: Option<WorkerId>,
    /// It was found there, and is not its because there was nobody else.
    found: bool,
    since: Time,
    /// That saw it last.
    look: u64,
}

/// What one worker holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) connections: u32,
    pub(super) peers: BTreeSet<IpAddr>,
    /// When the oldest was seen first.
    pub(super) since: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Look {
    /// When it began.
    at: Time,
    /// Who is to be asked, and whether for all that it holds: the last one first.
    left: Vec<(WorkerId, Pid, bool)>,
    /// If there is no other, all are its own.
    sole: Option<WorkerId>,
    names: BTreeSet<UnixName>,
    stage: Stage,
    held: BTreeMap<WorkerId, Held>,
    /// Who has been seen now for the first time.
    strangers: BTreeMap<u64, Option<IpAddr>>,
}

#[derive(Debug)]
enum Stage {
    Listing(Listing),
    /// Who holds the strangers: one worker after the other.
    Asking(Option<(WorkerId, Holdings)>),
}

impl Look {
    pub(super) fn new(
        at: Time,
        workers: Vec<(WorkerId, Pid)>,
        ports: BTreeSet<u16>,
        names: BTreeSet<UnixName>,
        register: &mut Register,
    ) -> Self {
        register.look += 1;
        let sole = if let [(worker, _)] = workers.as_slice() { Some(*worker) } else { None };
        let stage = Stage::Listing(Listing::to(ports));
        let (held, strangers) = (BTreeMap::new(), BTreeMap::new());
        let asked = |all| workers.iter().map(move |(worker, pid)| (*worker, *pid, all));
        let left = asked(true).chain(asked(false)).collect();
        Self { at, left, sole, names, stage, held, strangers }
    }

    /// One part more. Says whether that was not all.
    ///
    /// # Errors
    /// The kernel's own, where connections cannot be seen.
    pub(super) fn go_on(&mut self, register: &mut Register) -> io::Result<bool> {
        match &mut self.stage {
            Stage::Listing(_) => self.list(register),
            Stage::Asking(_) => Ok(self.ask(register)),
        }
    }

    fn list(&mut self, register: &mut Register) -> io::Result<bool> {
        let Self { at, sole, stage, held, strangers, .. } = self;
        let mut see = |(inode, peer): Open| match register.known.get_mut(&inode) {
            // Once in a look.
            Some(known) if known.look == register.look => {}
            Some(known) => {
                known.look = register.look;
                count(*known, peer, held);
            }
            None if sole.is_some() => register.enter((inode, peer), *sole, false, *at, held),
            None => _ = strangers.insert(inode, peer),
        };
        if let Stage::Listing(listing) = stage
            && listing.read(&mut see)?
        {
            return Ok(true);
        }
        let unix = connections::to_names(&self.names);
        unix.into_iter().flatten().for_each(|one| see((one.inode, None)));
        self.stage = Stage::Asking(None);
        Ok(!self.strangers.is_empty())
    }

    fn ask(&mut self, register: &mut Register) -> bool {
        let Self { at, left, stage, held, strangers, .. } = self;
        let Stage::Asking(asked) = stage else { return true };
        let more = match asked {
            Some((worker, holdings)) => holdings.read(|inode| {
                if let Some(stranger) = strangers.remove_entry(&inode) {
                    register.enter(stranger, Some(*worker), true, *at, held);
                }
            }),
            None => false,
        };
        if more && !strangers.is_empty() {
            return true;
        }
        let next = left.pop().filter(|_| !strangers.is_empty());
        *asked = next.map(|(worker, pid, all)| (worker, Holdings::of(procfs::group(pid), all)));
        if asked.is_some() {
            return true;
        }
        // Nobody's, or of who may not be looked into.
        std::mem::take(strangers)
            .into_iter()
            .for_each(|stranger| register.enter(stranger, None, false, *at, held));
        false
    }

    /// Who holds what; those who have gone are forgotten.
    pub(super) fn close(self, register: &mut Register) -> BTreeMap<WorkerId, Held> {
        let look = register.look;
        register.known.retain(|_, known| known.look == look);
        self.held
    }
}

fn count(known: Known, peer: Option<IpAddr>, held: &mut BTreeMap<WorkerId, Held>) {
    let Some(owner) = known.owner else { return };
    let held = held.entry(owner).or_default();
    held.connections += 1;
    held.peers.extend(peer);
    held.since = Some(held.since.map_or(known.since, |oldest| oldest.min(known.since)));
}

impl Register {
    /// With whom this connection has been found.
    pub(super) fn owner(&self, inode: u64) -> Option<WorkerId> {
        self.known.get(&inode).filter(|known| known.found)?.owner
    }

    pub(super) fn found_with(&self, worker: WorkerId) -> impl Iterator<Item = u64> {
        let found = self.known.iter().filter(move |(_, known)| known.found && known.owner == Some(worker));
        found.map(|(inode, _)| *inode)
    }

    fn enter(
        &mut self,
        (inode, peer): Open,
        owner: Option<WorkerId>,
        found: bool,
        since: Time,
        held: &mut BTreeMap<WorkerId, Held>,
    ) {
        let known = Known { owner, found, since, look: self.look };
        self.known.insert(inode, known);
        count(known, peer, held);
    }
}
