//! All connections that are open, for several workers that are looked at one after the other.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::{Ending, Engine};
use crate::core::time::Time;
use crate::core::types::WorkerId;
use crate::sys::connections::{self, Connection};

/// So long it does for one frozen worker after the other.
const GOOD_FOR: Duration = Duration::from_millis(5);

/// A connection, and with whom it has been found already.
type Owned = (Option<WorkerId>, Connection);

/// What the connections of several workers are found among.
#[derive(Default)]
pub(super) struct Shared {
    /// When the first of the lists was.
    taken: Option<Time>,
    /// By ports: mostly all have the same.
    lists: Vec<(BTreeSet<u16>, Vec<Owned>)>,
    unix: Option<Vec<Owned>>,
}

impl Shared {
    /// Too old for one that stands still: it may be sent something all the same.
    pub(super) fn is_old(&self, now: Time) -> bool {
        self.taken.is_some_and(|taken| now.since(taken) > GOOD_FOR)
    }

    /// What is open to its ports and names, and is not known to be somebody else's.
    ///
    /// # Errors
    /// The kernel's own, where connections cannot be seen.
    pub(super) fn to(&mut self, ending: &Ending, engine: &Engine) -> io::Result<Vec<Connection>> {
        let with_owner = |one: Connection| (engine.census.owner(one.inode), one);
        if !self.lists.iter().any(|(ports, _)| *ports == ending.ports) {
            let found = connections::to_ports(&ending.ports)?;
            self.lists.push((ending.ports.clone(), found.into_iter().map(with_owner).collect()));
            self.taken.get_or_insert(engine.clock.now());
        }
        if self.unix.is_none() {
            let found = connections::to_names(&engine.names())?;
            self.unix = Some(found.into_iter().map(with_owner).collect());
        }
        let mut open = Vec::new();
        let tcp = self.lists.iter().filter(|(ports, _)| *ports == ending.ports).map(|(_, list)| list);
        for list in tcp.chain(&self.unix) {
            let may_be_its = |owner: &Option<WorkerId>| owner.is_none_or(|owner| owner == ending.worker);
            open.extend(list.iter().filter(|(owner, _)| may_be_its(owner)).map(|(_, one)| *one));
        }
        Ok(open)
    }
}
