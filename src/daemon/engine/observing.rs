//! What is seen of load balancers while they let go: connections to the workers, and checks of readiness.
//!
//! Nobody looks before. Where something cannot be seen, that is said once a wait.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::admin::Stats;
use crate::core::event::Event;
use crate::core::lb_wait::Sighting;
use crate::core::time::Time;
use crate::core::types::Pid;
use crate::sys::arrivals::{Arrivals, Own};
use crate::sys::{connections, process, procfs};

/// Between two looks; more where looks are expensive.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// No more than such a part of the processor's time goes into looking.
const LOOK_SHARE: u32 = 50;

#[derive(Default)]
pub(super) struct Observing {
    /// Somebody wants to know, then.
    due: Option<Time>,
    /// What the last look has cost.
    spent: Duration,
    /// `None`: nobody can tell.
    arrivals: Option<Arrivals>,
    /// Of a pool without `--listen`: whose ports are watched, and whether they were ready then.
    watched: Vec<(Pid, bool)>,
    /// From where workers have been checked.
    checks: Vec<u16>,
}

impl Observing {
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    fn own(&self, stats: &Stats) -> Own<'_> {
        let port = u16::try_from(stats.admin_port.load(Ordering::Relaxed)).unwrap_or(0);
        Own { port, accepted: stats.admin_accepted.load(Ordering::Relaxed), checks: &self.checks }
    }
}

impl Engine {
    /// Say what comes from now on.
    pub(super) fn observe(&mut self) {
        let mut observing = self.observing.take().unwrap_or_else(|| {
            self.stats.checkers.begin();
            let mut observing = Observing::default();
            self.watch(&mut observing);
            observing
        });
        observing.due = Some(self.clock.now() + LOOK_EVERY.max(observing.spent * LOOK_SHARE));
        self.observing = Some(observing);
    }

    pub(super) fn look_for_load_balancers(&mut self, now: Time) {
        let Some(mut observing) =
            self.observing.take_if(|observing| observing.due.is_some_and(|due| due <= now))
        else {
            return;
        };
        observing.due = None;
        let before = process::cpu_time();
        let connections = if self.launcher.sockets.is_empty() && observing.watched != self.watchable() {
            // Whoever came in between is not known.
            self.watch(&mut observing).map(|()| 1)
        } else {
            let own = Own { checks: &observing.checks, ..observing.own(&self.stats) };
            observing.arrivals.as_mut().and_then(|arrivals| arrivals.look(own).ok())
        };
        let (checkers, refused) = self.stats.checkers.told();
        observing.spent = process::cpu_time().saturating_sub(before);
        self.observing = Some(observing);
        self.feed(Event::Observed(Sighting { connections, checkers, refused }));
        // Nobody wants to know more.
        self.observing.take_if(|observing| observing.due.is_none());
    }

    /// drainit's own connections to the workers are none of a client's.
    pub(in crate::daemon) fn note_check(&mut self, from: u16) {
        if let Some(observing) = &mut self.observing {
            observing.checks.push(from);
        }
    }

    fn watchable(&self) -> Vec<(Pid, bool)> {
        self.workers.values().map(|worker| (worker.pid, worker.ready)).collect()
    }

    fn watch(&mut self, observing: &mut Observing) -> Option<()> {
        observing.watched = self.watchable();
        let own = observing.own(&self.stats);
        let found = self.ports(own.port).and_then(|ports| Arrivals::watch(ports, own));
        match &found {
            Ok(arrivals) if arrivals.is_makeshift() => self.missing.push(
                "new connections cannot be told apart well (sock_diag is refused): the LB wait may be longer"
                    .to_owned(),
            ),
            Ok(_) => {}
            Err(error) => self.missing.push(format!("the LB wait lasts as long as it may: {error}")),
        }
        observing.arrivals = found.ok();
        observing.arrivals.is_some().then_some(())
    }

    /// Where the workers listen; where that is hidden, every port but our own.
    fn ports(&self, own: u16) -> io::Result<BTreeSet<u16>> {
        let sockets = &self.launcher.sockets;
        if sockets.names().next().is_some() {
            return Err(io::Error::other("nobody counts those to unix sockets"));
        }
        if !sockets.is_empty() {
            let mut ports = BTreeSet::new();
            ports.extend(sockets.ports());
            return Ok(ports);
        }
        let mut members = Vec::new();
        self.workers.values().for_each(|worker| members.extend(procfs::group(worker.pid)));
        let ports = connections::inodes_of(&members).and_then(|inodes| connections::listening_ports(&inodes));
        ports.or_else(|_| connections::listening_ports_but(own))
    }
}
