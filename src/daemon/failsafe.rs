//! What is left when there is a bug in us: an init that forwards, reaps and ends in time.
//!
//! abort() in PID 1 is no way out: it is reported as a segmentation fault and kills every worker at once.

use std::time::Duration;

use super::clock::Clock;
use crate::core::signal::Signal;
use crate::core::time::Time;
use crate::core::types::{ExitStatus, Pid, Scope, code};
use crate::sys::reap::{self, Change, Children};
use crate::sys::{kill, orphans, signals, standstill, stderr};

/// Keep the workers running until they end, or until a signal asks them to and their time is up.
pub(super) fn run(workers: &[Pid], budget: Duration) -> ExitStatus {
    stderr::complain("a bug in drainit: no more than forwarding signals and reaping from here on");
    let clock = Clock::start();
    let mut alive = workers.to_vec();
    let mut deadline: Option<Time> = None;
    // Whoever was to be looked at.
    workers.iter().for_each(|worker| standstill::thaw(*worker));
    loop {
        while let Children::Changed(Change::Exited(pid)) = reap::look(false) {
            let _ = reap::reap(pid);
            alive.retain(|worker| *worker != pid);
        }
        let now = clock.now();
        if alive.is_empty() || deadline.is_some_and(|at| at <= now) {
            orphans::signal_all(Signal::KILL);
            return ExitStatus {
                code: code::SOFTWARE,
                reason: "a bug in drainit; its workers were kept until they ended".to_owned(),
            };
        }
        let received = signals::wait(deadline.map(|at| at.since(now)));
        let Some(received) = received.filter(|received| !received.own && received.signal != Signal::CHLD)
        else {
            continue;
        };
        for worker in &alive {
            let _ = kill::send(*worker, received.signal, Scope::Leader, received.value);
        }
        if matches!(received.signal, Signal::TERM | Signal::INT) && deadline.is_none() {
            deadline = Some(now + budget);
        }
    }
}
