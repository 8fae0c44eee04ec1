//! Looking at workers that say nothing of themselves: whether one that starts accepts yet, and whether one that finishes
//! accepts still. Both are turns of the loop, not tasks beside it: a roll consists of little else.

mod rhythm;

use std::time::Duration;

use super::Engine;
use crate::config::values::ReadyWhen;
use crate::core::event::Event;
use crate::core::time::Time;
use crate::core::types::WorkerId;
use crate::sys::accepting::{self, Sight};
use rhythm::{Habit, Rhythm};

/// A worker without a socket of drainit's may never listen. After so many looks, only who asks makes us look.
const UNASKED: u32 = 9;

/// Between two looks at a worker that is on its way out, and before the first: it has only just been told.
const OUT_EVERY: Duration = Duration::from_millis(20);
const OUT_FIRST: Duration = Duration::from_millis(10);
/// So many in a row.
const LOOKS_OUT: u32 = 2;
/// More where there must be no doubt, or is some: one that has a socket open on which it might accept may be busy with
/// somebody just when it is looked at.
const LOOKS_OUT_SURE: u32 = 5;
/// What a look takes is paid for by waiting so many times as long: it may find thousands of connections.
const OUT_SHARE: u32 = 50;

/// Then somebody else has his turn.
const AT_ONCE: usize = 8;

/// Who is looked at, and when next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    habit: Habit,
    starting: Vec<Starting>,
    leaving: Vec<Leaving>,
}

#[derive(Debug)]
struct Starting {
    worker: WorkerId,
    since: Time,
    due: Time,
    rhythm: Rhythm,
    looks: u32,
}

#[derive(Debug)]
struct Leaving {
    worker: WorkerId,
    /// It has to be beyond doubt.
    sure: bool,
    due: Time,
    /// So many times in a row it did not accept, and so many are enough.
    deaf: u32,
    enough: u32,
}

impl Looks {
    pub(super) fn next_look(&self) -> Option<Time> {
        let starting = self.starting.iter().map(|look| look.due);
        starting.chain(self.leaving.iter().map(|look| look.due)).min()
    }

    /// It is ready.
    pub(super) fn arrived(&mut self, worker: WorkerId) {
        self.starting.retain(|look| look.worker != worker);
    }

    /// It is, and has said so by a call.
    pub(super) fn arrived_by_call(&mut self, worker: WorkerId) {
        if self.starting.iter().any(|look| look.worker == worker) {
            self.habit = Habit::Tells;
        }
    }

    /// It is told only now.
    pub(super) fn told(&mut self, worker: WorkerId, now: Time) {
        let looks = self.leaving.iter_mut().filter(|look| look.worker == worker);
        looks.for_each(|look| look.due = look.due.max(now + OUT_FIRST));
    }

    /// It is dead.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.arrived(worker);
        self.leaving.retain(|look| look.worker != worker);
    }
}

impl Leaving {
    /// Says whether it accepts no more; `None`: there is no telling.
    fn is_deaf(&mut self, sight: &Sight) -> Option<bool> {
        match sight {
            Sight::Accepting => (self.deaf, self.enough) = (0, looks_out(self.sure)),
            Sight::Holding if self.sure => self.deaf = 0,
            Sight::Holding => (self.deaf, self.enough) = (self.deaf + 1, LOOKS_OUT_SURE),
            Sight::NotYet => self.deaf += 1,
            Sight::Blind(_) => return None,
        }
        Some(self.deaf >= self.enough)
    }
}

fn looks_out(sure: bool) -> u32 {
    if sure { LOOKS_OUT_SURE } else { LOOKS_OUT }
}

impl Engine {
    /// A worker has been started, whose calls tell or do not.
    pub(super) fn look_for_arrival(&mut self, worker: WorkerId, calls: bool) {
        if self.ready_when != ReadyWhen::Listening {
            return;
        }
        let rhythm = self.looks.habit.rhythm(calls);
        let since = self.clock.now();
        let due = since + rhythm.first;
        self.looks.starting.push(Starting { worker, since, due, rhythm, looks: 0 });
    }

    /// Look at a worker that has been told to finish until it accepts no more. `sure`: one that has a socket open on which
    /// it might does, unless it has an event loop and keeps that socket out of it.
    pub(super) fn look_for_departure(&mut self, worker: WorkerId, sure: bool) {
        let due = self.clock.now() + OUT_FIRST;
        self.looks.leaving.push(Leaving { worker, sure, due, deaf: 0, enough: looks_out(sure) });
    }

    /// At whoever is due.
    pub(super) fn look_at_due(&mut self, now: Time) {
        // Who has been looked at is due later, or no more.
        for _ in 0..AT_ONCE {
            let starting = self.looks.starting.iter().find(|look| look.due <= now);
            let leaving = self.looks.leaving.iter().find(|look| look.due <= now);
            match (starting, leaving) {
                (Some(look), _) => self.look_whether_ready(look.worker, now),
                (None, Some(look)) => self.look_whether_deaf(look.worker, look.sure),
                (None, None) => return,
            }
        }
    }

    fn look_whether_ready(&mut self, worker: WorkerId, now: Time) {
        match self.look_at(worker) {
            Sight::Accepting => {
                if let Some(look) = self.looks.starting.iter().find(|look| look.worker == worker) {
                    self.looks.habit = Habit::seen(now.since(look.since), look.looks == 0);
                }
                self.mark_ready(worker);
            }
            Sight::Blind(error) => {
                if let Some(known) = self.workers.get(&worker).filter(|_| !self.is_init_only()) {
                    tracing::warn!(slot = known.slot, pid = %known.pid, %error, "cannot see whether the worker accepts: taken for ready (--ready-when has other ways)");
                }
                self.mark_ready(worker);
            }
            Sight::Holding | Sight::NotYet => {
                let alone = self.is_init_only();
                let look = self.looks.starting.iter_mut().find(|look| look.worker == worker);
                let Some(look) = look else { return };
                look.due = now + look.rhythm.pause(now.since(look.since), alone);
                look.looks += 1;
                if alone && look.looks == UNASKED {
                    self.looks.arrived(worker);
                }
            }
        }
    }

    fn look_whether_deaf(&mut self, worker: WorkerId, sure: bool) {
        let before = self.clock.now();
        let sight = self.look_out(worker);
        let after = self.clock.now();
        let is_it = |look: &Leaving| look.worker == worker && look.sure == sure;
        let Some(look) = self.looks.leaving.iter_mut().find(|look| is_it(look)) else { return };
        look.due = after + OUT_EVERY.max(after.since(before) * OUT_SHARE);
        let is_deaf = look.is_deaf(&sight);
        if is_deaf != Some(false) {
            self.looks.leaving.retain(|look| !is_it(look));
        }
        // Who cannot be seen is beyond doubt only when it has ended.
        if is_deaf.unwrap_or(!sure) {
            self.feed(Event::Deaf { worker, sure });
        }
    }

    /// Who has no handler for the stop signal accepts until it is ended, however busy it is with somebody when it is looked
    /// at; unless it has an event loop, and that has been made deaf.
    fn look_out(&mut self, worker: WorkerId) -> Sight {
        // It has not been told.
        if self.endings.has_yet_to_be_told(worker) {
            return Sight::Accepting;
        }
        match self.look_at(worker) {
            Sight::Holding if self.endings.knows_nothing(worker) => Sight::Accepting,
            sight => sight,
        }
    }

    /// Look whether workers that are starting have become ready: where nobody sends word, and somebody asks.
    pub(super) fn look_at_workers(&mut self) {
        if self.ready_when != ReadyWhen::Listening {
            return;
        }
        let starting: Vec<_> =
            self.workers.iter().filter(|(_, worker)| !worker.ready).map(|(id, _)| *id).collect();
        for id in starting {
            if matches!(self.look_at(id), Sight::Accepting | Sight::Blind(_)) {
                self.mark_ready(id);
            }
        }
    }

    fn look_at(&mut self, worker: WorkerId) -> Sight {
        let Some(known) = self.workers.get_mut(&worker) else { return Sight::NotYet };
        let sockets = &self.launcher.sockets;
        let inodes = sockets.part_of(worker).map(|part| sockets.inodes(part)).unwrap_or_default();
        match inodes.is_empty() {
            true => accepting::on_own_socket(known.pid),
            false => accepting::on_sockets(known.pid, inodes, &mut known.waiting),
        }
    }
}
