//! Whether there is anything to wait for before a worker ends, as far as its connections can be seen.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::shared::Shared;
use super::{Ending, Engine};
use crate::core::event::QuietEnd;
use crate::sys::{connections, procfs};

impl Engine {
    /// By anybody in this network namespace. Whose connections there are is a long look where processes come and go.
    pub(super) fn nobody_is_served(&self) -> bool {
        let sockets = &self.launcher.sockets;
        let Some(ending) = self.endings.sought.last() else { return false };
        if ending.why != QuietEnd::NoHandler || self.others_serve(ending.worker) || sockets.is_empty() {
            return false;
        }
        self.names().is_empty()
            && connections::is_anybody_served(self.admin_port()).is_ok_and(|served| !served)
    }

    /// Take in what the one that was sought last has. Says whether it serves anybody over a network, as far as that shows.
    pub(super) fn can_be_seen(&mut self) -> bool {
        let names = self.names();
        let nobody_else_listens = self.nobody_else_listens();
        let Some(ending) = self.endings.sought.last_mut() else { return false };
        let members = procfs::group(ending.pid);
        // Who has been looked at already can be.
        let found = self.census.found_with(ending.worker);
        let listening = match nobody_else_listens {
            true if !found.is_empty() => Ok((BTreeSet::new(), found)),
            true => connections::polled_by(&members).map(|own| (BTreeSet::new(), own)),
            false => connections::inodes_of(&members)
                .and_then(|own| Ok((connections::listening_ports(&own)?, own))),
        };
        match listening {
            Ok((ports, own)) => {
                ending.ports.extend(ports);
                ending.own = own;
                !ending.ports.is_empty() || !names.is_empty()
            }
            Err(error) => {
                self.tell_blind(&error);
                false
            }
        }
    }

    /// In this network namespace, but for drainit: no worker has a port of its own.
    fn nobody_else_listens(&self) -> bool {
        let known: Vec<u16> = self.launcher.sockets.ports().collect();
        connections::listening_ports_but(self.admin_port())
            .is_ok_and(|ports| ports.iter().all(|port| known.contains(port)))
    }

    fn admin_port(&self) -> u16 {
        u16::try_from(self.stats.admin_port.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Of who was sought last. What it might accept now would wait in vain otherwise, where nobody else is there to take it.
    pub(super) fn has_nothing_to_wait_for(&self) -> bool {
        let Some(ending) = self.endings.sought.last() else { return false };
        if ending.why != QuietEnd::NoHandler || self.others_serve(ending.worker) {
            return false;
        }
        // Somebody waits there, and may be accepted just now; nobody else will come.
        let expects = self.endings.refused.is_some() && self.launcher.sockets.waiting_for(ending.worker) > 0;
        !expects && self.has_no_connection(ending)
    }

    /// As far as can be seen.
    fn has_no_connection(&self, ending: &Ending) -> bool {
        let Ok(open) = Shared::default().to(ending, self) else { return false };
        let has = |own: &BTreeSet<u64>| open.iter().any(|one| own.contains(&one.inode));
        let look = || connections::inodes_of(&procfs::group(ending.pid));
        open.is_empty() || !has(&ending.own) && look().is_ok_and(|own| !has(&own))
    }
}
