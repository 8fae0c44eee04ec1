//! Which worker has which part of the listening sockets, and where new connections go.
//!
//! One part for all of them under `--sockets shared`. Otherwise one a slot: a worker that dies leaves its part, with
//! whoever waits there, to its replacement, and one that hangs shares it. One that is replaced while it serves keeps its
//! own, and its successor gets another, which its checks alone reach until it is ready. What nobody needs any more is
//! given to the next one, or closed if it is the last: the kernel knows the parts by their order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use crate::config::values::Sockets as Mode;
use crate::core::seat::{Seat, open_slots};
use crate::core::types::{SlotIndex, WorkerId};
use crate::sys::connections::UnixName;
use crate::sys::listen::{Bound, Listener};
use crate::sys::steering::{Plan, Spread};

/// Keys of successors, beyond those of slots.
const SUCCESSORS: u16 = 0x8000;

#[derive(Debug)]
pub(super) struct Sockets {
    mode: Mode,
    listeners: Vec<Listener>,
    parts: Vec<Part>,
    plan: Plan,
    /// By whom the plan was made.
    seats: Vec<Seat>,
    /// A worker is gone since: it may have left something to be seen to.
    deserted: bool,
}

#[derive(Debug)]
struct Part {
    slot: SlotIndex,
    place: Place,
    /// Who was given it and lives: two, where the first one hangs.
    owners: Vec<WorkerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It is the slot's own: whoever comes into the slot has it.
    Holder,
    /// Of a worker that will take the slot.
    Successor,
    /// Of nobody who is to have new connections.
    Retired,
}

impl Sockets {
    pub(super) fn new(mode: Mode, listeners: Vec<Listener>) -> Self {
        let first = Part { slot: 0, place: Place::Holder, owners: Vec::new() };
        let plan = Plan { spread: Spread::Even(vec![0]), keys: Vec::new() };
        Self { mode, listeners, parts: vec![first], plan, seats: Vec::new(), deserted: false }
    }

    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Descriptors beyond the first of each socket.
    pub(super) fn surplus(&self) -> usize {
        self.listeners.len() * (self.parts.len() - 1)
    }

    /// The part that a worker about to be spawned gets; `beside` one that serves, where somebody does in that slot.
    ///
    /// # Errors
    /// The kernel's own, where there has to be another and cannot be.
    pub(super) fn assign(&mut self, worker: WorkerId, slot: SlotIndex, beside: bool) -> io::Result<usize> {
        if self.mode == Mode::Shared {
            return Ok(0);
        }
        let own = self.parts.iter().position(|part| part.slot == slot && part.place == Place::Holder);
        if let Some(own) = own.filter(|_| !beside)
            && let Some(part) = self.parts.get_mut(own)
        {
            part.owners.push(worker);
            return Ok(own);
        }
        let place = if own.is_some() { Place::Successor } else { Place::Holder };
        let retired = |part: &usize| {
            let known = self.parts.get(*part);
            known.is_some_and(|known| known.place == Place::Retired && known.owners.is_empty())
        };
        // Whoever waits in a queue that nobody serves is served by the next one.
        let spare = (0..self.parts.len()).filter(retired).max_by_key(|part| self.waiting(*part));
        let part = match spare {
            Some(spare) => spare,
            None => self.add()?,
        };
        self.give(part, slot, place, worker);
        Ok(part)
    }

    fn give(&mut self, part: usize, slot: SlotIndex, place: Place, worker: WorkerId) {
        if let Some(part) = self.parts.get_mut(part) {
            *part = Part { slot, place, owners: vec![worker] };
        }
    }

    fn add(&mut self) -> io::Result<usize> {
        let new = self.parts.len();
        for added in 0..self.listeners.len() {
            let listener = self.listeners.get_mut(added).map_or(Ok(()), Listener::add_part);
            if listener.is_err() {
                self.listeners.iter_mut().for_each(|listener| listener.drop_parts(new));
                return listener.map(|()| new);
            }
        }
        self.parts.push(Part { slot: 0, place: Place::Retired, owners: Vec::new() });
        Ok(new)
    }

    /// A worker is gone, or could not be started.
    pub(super) fn release(&mut self, worker: WorkerId) {
        self.deserted = true;
        self.parts.iter_mut().for_each(|part| part.owners.retain(|owner| *owner != worker));
    }

    /// The part that a worker has.
    pub(super) fn part_of(&self, worker: WorkerId) -> Option<usize> {
        match self.mode {
            Mode::Shared => Some(0),
            Mode::PerWorker | Mode::Sticky => {
                self.parts.iter().position(|part| part.owners.contains(&worker))
            }
        }
    }

    /// What a worker is started with.
    pub(super) fn descriptors(&self, part: usize) -> Vec<RawFd> {
        self.listeners.iter().filter_map(|listener| listener.socket(part)).collect()
    }

    /// The numbers by which /proc names a worker's sockets.
    pub(super) fn inodes(&self, part: usize) -> Vec<u64> {
        self.listeners.iter().flat_map(|listener| listener.inodes(part)).collect()
    }

    /// For adoption, which may give a bare port more shapes.
    pub(super) fn listeners_mut(&mut self) -> &mut [Listener] {
        &mut self.listeners
    }

    /// What is drainit's alone.
    pub(super) fn own_listeners(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.listeners.iter_mut().filter(|listener| !listener.is_inherited)
    }

    /// Whether a connection that waits is whoever's accepts first.
    pub(super) fn are_shared(&self) -> bool {
        self.mode == Mode::Shared
    }

    /// How many connections wait for this worker, under `--sockets shared` for any.
    pub(super) fn waiting_for(&self, worker: WorkerId) -> u32 {
        self.part_of(worker).map_or(0, |part| self.waiting(part))
    }

    fn waiting(&self, part: usize) -> u32 {
        self.listeners.iter().map(|listener| listener.waiting(part)).sum()
    }

    /// How many wait for anybody.
    pub(super) fn all_waiting(&self) -> u32 {
        (0..self.parts.len()).map(|part| self.waiting(part)).sum()
    }

    /// The TCP ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.listeners.iter().filter_map(|listener| listener.bound.port())
    }

    /// The names of the unix sockets.
    pub(super) fn names(&self) -> impl Iterator<Item = UnixName> {
        self.listeners.iter().filter_map(|listener| match &listener.bound {
            Bound::Unix(path) => Some(path.as_os_str().as_bytes().to_vec()),
            Bound::Abstract(name) => Some([b"\0", name.as_bytes()].concat()),
            Bound::Tcp { .. } | Bound::Unknown => None,
        })
    }

    /// Whether who sits where makes a difference: in a queue of all, only who has left it does.
    pub(super) fn wants_to_follow(&self) -> bool {
        self.mode != Mode::Shared || self.deserted
    }

    /// Send new connections where the core wants them now. `trims`: and close what nobody needs.
    ///
    /// # Errors
    /// The kernel's own: then they go where they went before.
    pub(super) fn follow(&mut self, seats: &[Seat], trims: bool) -> io::Result<()> {
        let deserted = std::mem::take(&mut self.deserted);
        if deserted && self.listeners.iter_mut().fold(false, |repaired, one| one.repair() | repaired) {
            tracing::warn!("a worker had shut down a socket of all: it listens again");
        }
        let regrouped = self.listeners.iter().any(Listener::is_regrouped);
        if self.mode == Mode::Shared || (self.seats == seats && !deserted && !regrouped) {
            return Ok(());
        }
        self.seats = seats.to_vec();
        self.place(seats);
        let plan = self.plan_for(seats);
        if plan != self.plan || regrouped {
            self.plan = plan;
            for listener in &mut self.listeners {
                listener.steer(&self.plan)?;
            }
        }
        if trims {
            self.trim();
        }
        Ok(())
    }

    fn place(&mut self, seats: &[Seat]) {
        for part in &mut self.parts {
            let seat = usize::try_from(part.slot).ok().and_then(|slot| seats.get(slot));
            let has = |worker: Option<WorkerId>| worker.is_some_and(|worker| part.owners.contains(&worker));
            part.place = match seat {
                None => Place::Retired,
                Some(seat) if has(seat.occupant) => Place::Holder,
                Some(seat) if has(seat.successor) => Place::Successor,
                // Told to stop, and its slot is somebody else's.
                Some(_) if !part.owners.is_empty() => Place::Retired,
                Some(_) => part.place,
            };
        }
        // Whom a worker leaves behind has one heir: the part of who is in the slot now goes before one without owner.
        let held = self.parts.iter().filter(|part| part.place == Place::Holder && !part.owners.is_empty());
        let held: BTreeSet<SlotIndex> = held.map(|part| part.slot).collect();
        for part in self.parts.iter_mut().filter(|part| part.owners.is_empty()) {
            if held.contains(&part.slot) || part.place == Place::Successor {
                part.place = Place::Retired;
            }
        }
    }

    fn plan_for(&self, seats: &[Seat]) -> Plan {
        let places: BTreeMap<(SlotIndex, Place), u16> =
            self.parts.iter().zip(0..).map(|(part, number)| ((part.slot, part.place), number)).collect();
        let part_in = |slot: SlotIndex, place: Place| places.get(&(slot, place)).copied();
        let holders = |slots: Vec<SlotIndex>| -> Vec<u16> {
            slots.into_iter().filter_map(|slot| part_in(slot, Place::Holder)).collect()
        };
        let slots = || (0..).take(seats.len());
        let spread = match self.mode {
            // The same client, the same slot, whoever is in it.
            Mode::Sticky => Spread::ByClient(holders(slots().collect())),
            Mode::Shared | Mode::PerWorker => {
                let mut parts = holders(open_slots(seats));
                parts.sort_unstable();
                Spread::Even(parts)
            }
        };
        let key = |slot: SlotIndex| u16::try_from(slot).unwrap_or(SUCCESSORS - 1);
        let keys = slots().flat_map(|slot| {
            let own = part_in(slot, Place::Holder).map(|part| (key(slot), part));
            let successor = part_in(slot, Place::Successor).map(|part| (SUCCESSORS | key(slot), part));
            own.into_iter().chain(successor)
        });
        Plan { spread, keys: keys.collect() }
    }

    /// Close what nobody needs, from the end. Whoever waits where nobody will ever come is let go: a worker had its time
    /// to serve them, and has ended without.
    fn trim(&mut self) {
        let unneeded = |part: &Part| part.place == Place::Retired && part.owners.is_empty();
        let forsaken: Vec<usize> =
            (0..).zip(&self.parts).filter(|(_, part)| unneeded(part)).map(|(at, _)| at).collect();
        for part in forsaken {
            let connections = self.waiting(part);
            if connections > 0 {
                tracing::warn!(connections, "nobody is left to serve those that wait for a worker: reset");
                self.listeners.iter_mut().for_each(|listener| listener.reset(part));
            }
        }
        let needed = self.parts.iter().rposition(|part| !unneeded(part));
        let kept = needed.map_or(1, |last| last + 1);
        if kept < self.parts.len() {
            self.parts.truncate(kept);
            self.listeners.iter_mut().for_each(|listener| listener.drop_parts(kept));
        }
    }

    /// A connection to this worker and to no other.
    ///
    /// # Errors
    /// The kernel's own; `Unsupported` where workers share one queue.
    pub(super) fn connect(&mut self, worker: WorkerId) -> io::Result<TcpStream> {
        let part = self.part_of(worker).filter(|_| self.mode != Mode::Shared);
        let Some(part) = part else { return Err(io::ErrorKind::Unsupported.into()) };
        let number = u16::try_from(part).unwrap_or(u16::MAX);
        let key = self.plan.keys.iter().find(|(_, known)| *known == number).map_or(number, |(key, _)| *key);
        let listener = self.listeners.first_mut().ok_or(io::ErrorKind::Unsupported)?;
        listener.connect(part, key, &self.plan)
    }
}
