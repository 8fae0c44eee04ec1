//! Ending a worker at a moment when it serves nobody: look, freeze, look again, kill.
//!
//! For workers that do not catch the stop signal, which would end them in the middle of whatever they do, and for those
//! that have caught it and are still there when their time is nearly up. Frozen, a worker accepts nothing: what arrives
//! waits in the shared queue for somebody else, and what it may be sent meanwhile shows as unread.
//!
//! A look costs a worker nothing, so it is frozen only where a look has found it quiet: for some 2 ms, never for more
//! than [`FREEZE_MAX`], and no more than a tenth of its time. Connections that are found idle then are hung up on, one
//! after the other, where the kernel lets us: so it need not be quiet on all of them at once, and whoever sends the next
//! request learns at once that there is nobody, not when the kernel has taken a large process apart.
//!
//! New connections may come faster than the old ones end. Where somebody else is there to take them, a worker that waits
//! by epoll(7) is made deaf to them, where the kernel lets us. Any other that is never found quiet is kept from accepting:
//! held for [`FREEZE_MAX`] at a time while all its threads wait for something, and a little longer while somebody waits in
//! the queue, whom it would accept next. After a second of that it is held for [`HOLD_LONGER`], nine tenths of its time:
//! where answers take seconds, one connection that it comes by in between is enough to keep it busy.

mod accepting;
mod seeking;
mod shared;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::admin::Stats;
use crate::core::event::{Event, QuietEnd};
use crate::core::signal::Signal;
use crate::core::time::Time;
use crate::core::types::{Pid, Scope, WorkerId};
use crate::daemon::quiet::Watch;
use crate::sys::connections::{self, Connection, State};
use crate::sys::hangup;
use crate::sys::standstill::{self, Handling};
use crate::sys::{kill, process, procfs};
use shared::Shared;

/// Between two looks at a worker that runs; more where looks are expensive.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The same where a connection has to be silent for long.
const IDLE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// No more than such a part of our own time goes into looking. Where all of the machine has many connections, a look
/// at few takes long.
const LOOK_SHARE: u32 = 10;

/// As a worker's time runs out there is no such thrift, nor is it spared: a request that is cut is worse than one that
/// waits. Such a part of what is left it has to itself.
const HASTE: u32 = 16;

/// How long SIGSTOP is given to reach everybody before it is looked again.
const FREEZE_STEP: Duration = Duration::from_millis(1);

/// A worker goes on after this at the latest.
const FREEZE_MAX: Duration = Duration::from_millis(20);

/// So many times as long as it was frozen for nothing it runs before it is frozen again.
const THAW_SHARE: u32 = 9;

/// So long it is held once that has not helped, and when that is.
const HOLD_LONGER: Duration = Duration::from_millis(45);
const LONGER_AFTER: Duration = Duration::from_millis(1250);

/// It runs for so long at least after it has been held.
const RUN_BETWEEN: Duration = Duration::from_millis(5);

/// Where nobody can know whether a handler is more than the end, the signal waits so long for a quiet moment at most; a
/// quarter of the worker's time, where that is less.
const SIGNAL_WAIT: Duration = Duration::from_secs(5);

/// Who is to be ended.
#[derive(Debug, Default)]
pub(super) struct Endings {
    sought: Vec<Ending>,
    /// Where workers of a pool without `--listen` listened when they were told to stop: they may not any more.
    ports: BTreeMap<Pid, BTreeSet<u16>>,
    /// That there is no telling has been said.
    told_blind: bool,
    told_half_blind: bool,
    /// Connections of other processes cannot be closed.
    cannot_hang_up: bool,
    /// Nor can they be kept from accepting without being held.
    cannot_unpoll: bool,
    /// Since when new connections are refused.
    pub(super) refused: Option<Time>,
    pub(super) cannot_refuse: bool,
}

#[derive(Debug)]
struct Ending {
    worker: WorkerId,
    pid: Pid,
    /// What it was asked to stop with.
    signal: Signal,
    why: QuietEnd,
    began: Time,
    due: Time,
    ports: BTreeSet<u16>,
    /// It gets the signal in the quiet moment, and then at the latest, and nobody kills it.
    signal_by: Option<Time>,
    watch: Watch,
    /// Whether it has nothing any more by which it would learn of new connections; tried once.
    is_deaf: Option<bool>,
    /// Connections by whose they were when somebody looked: reading all descriptors takes longer than all else.
    own: BTreeSet<u64>,
    others: BTreeSet<u64>,
    frozen: Option<Frozen>,
}

#[derive(Clone, Copy, Debug)]
struct Frozen {
    since: Time,
    until: Time,
    /// All of it stands still, and did before anybody was looked at.
    still: bool,
    /// Not to be looked at, but to be kept from accepting.
    held: bool,
}

/// What has come of it.
enum Found {
    /// Nothing, yet.
    Busy,
    Quiet,
    Unknown(io::Error),
}

impl Endings {
    pub(super) fn ports_of_told(&self) -> impl Iterator<Item = (&Pid, &BTreeSet<u16>)> {
        self.ports.iter()
    }

    /// Where all of `workers` end at a quiet moment and in no other way: when half of their time will be over, and when it
    /// began.
    pub(super) fn of_all(&self, mut workers: impl Iterator<Item = WorkerId>) -> Option<(Time, Time)> {
        if !workers.all(|worker| self.knows_nothing(worker)) {
            return None;
        }
        let began = self.sought.iter().map(|ending| ending.began).max()?;
        Some((began, self.sought.iter().map(|ending| ending.watch.half_time()).min()?))
    }

    /// It is to end without being told.
    pub(super) fn knows_nothing(&self, worker: WorkerId) -> bool {
        self.sought.iter().any(|ending| {
            ending.worker == worker && ending.why == QuietEnd::NoHandler && ending.signal_by.is_none()
        })
    }

    /// Its signal waits for a quiet moment.
    pub(super) fn has_yet_to_be_told(&self, worker: WorkerId) -> bool {
        self.sought.iter().any(|ending| ending.worker == worker && ending.signal_by.is_some())
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.sought.iter().map(|ending| ending.due).min()
    }

    /// A signal is about to be sent to a worker. Says whether it may: the one that is held back stays so, however often
    /// it is passed on.
    pub(super) fn on_sent(&mut self, pid: Pid, signal: Signal) -> bool {
        if signal == Signal::KILL {
            self.sought.retain(|ending| ending.pid != pid);
        }
        !self.sought.iter().any(|ending| ending.pid == pid && ending.holds_back(signal))
    }

    /// It is dead, and whom it leaves behind in its group is not to stand still for ever.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.ports.remove(&pid);
        for ending in self.sought.extract_if(.., |ending| ending.pid == pid) {
            if ending.frozen.is_some() {
                let _ = kill::send_to_group(pid, Signal::CONT);
            }
        }
    }
}

impl Ending {
    /// Whether it is to lose one connection after the other: who is only to be told may want to keep them.
    fn goes_by_and_by(&self) -> bool {
        self.signal_by.is_none() && self.why != QuietEnd::Idle
    }

    /// Who is to be silent for long is looked at once in a while.
    fn look_every(&self) -> Duration {
        match self.why {
            QuietEnd::NoHandler | QuietEnd::Straggler => LOOK_EVERY,
            QuietEnd::Idle => IDLE_LOOK_EVERY,
        }
    }

    fn holds_back(&self, signal: Signal) -> bool {
        self.why == QuietEnd::NoHandler && self.signal == signal
    }

    /// Those of `seen` that its processes have: what they poll is told at once, and only their descriptors tell of what
    /// they do not.
    fn own_among(&mut self, mut seen: Vec<Connection>, members: &[Pid]) -> io::Result<Vec<Connection>> {
        let mut all_known = self.knows_all(&seen);
        if !all_known {
            self.own.extend(connections::polled_by(members)?);
            all_known = self.knows_all(&seen);
        }
        if !all_known {
            self.own = connections::inodes_of(members)?;
            let others = seen.iter().map(|connection| connection.inode);
            self.others = others.filter(|inode| !self.own.contains(inode)).collect();
        }
        if !self.others.is_empty() {
            seen.retain(|connection| self.own.contains(&connection.inode));
        }
        Ok(seen)
    }

    fn knows_all(&self, seen: &[Connection]) -> bool {
        seen.iter().all(|one| self.own.contains(&one.inode) || self.others.contains(&one.inode))
    }

    /// Those of `seen` that have no request in flight.
    fn idle_among(
        &mut self,
        now: Time,
        seen: &[Connection],
        is_at_work: impl FnOnce() -> bool,
    ) -> Vec<Connection> {
        let is_at_work = LazyCell::new(is_at_work);
        let judged = self.watch.judge(now, seen);
        let idle = seen.iter().zip(judged).filter(|(_, stillness)| stillness.is_idle(|| *is_at_work));
        idle.map(|(connection, _)| *connection).collect()
    }

    fn freeze(&mut self, now: Time, held: bool) {
        // EPERM: it has become another user, and will be killed at its deadline if that can be done.
        if standstill::freeze(self.pid).is_ok() {
            let longer = held && now.since(self.began) >= LONGER_AFTER;
            let most = if longer { HOLD_LONGER } else { FREEZE_MAX };
            self.frozen = Some(Frozen { since: now, until: now + most, still: false, held });
            self.due = now + if held { most } else { FREEZE_STEP };
        } else {
            self.due = now + FREEZE_MAX;
        }
    }

    fn thaw(&mut self, now: Time, stats: &Stats) {
        let Some(frozen) = self.frozen.take() else { return };
        standstill::thaw(self.pid);
        let stood = now.since(frozen.since);
        count(stood, stats);
        let runs = (stood * THAW_SHARE).min(self.watch.left(now) / HASTE);
        self.due = now + if frozen.held { RUN_BETWEEN } else { LOOK_EVERY.max(runs) };
    }
}

fn count(stood: Duration, stats: &Stats) {
    Stats::count(&stats.freezes);
    let micros = u64::try_from(stood.as_micros()).unwrap_or(u64::MAX);
    stats.frozen_micros.fetch_add(micros, Ordering::Relaxed);
}

impl Engine {
    /// Ask a worker to finish: by the signal where it does something about it, at a quiet moment where it would die.
    pub(super) fn stop(
        &mut self,
        worker: WorkerId,
        pid: Pid,
        signal: Signal,
        scope: Scope,
        quiet_until: Option<Time>,
    ) {
        let known = self.workers.get_mut(&worker);
        let handles_once = known.and_then(|known| {
            known.told = true;
            known.handles_once
        });
        if quiet_until.is_some() && self.launcher.sockets.is_empty() {
            let ports = connections::inodes_of(&procfs::group(pid))
                .and_then(|inodes| connections::listening_ports(&inodes));
            self.endings.ports.extend(ports.ok().map(|ports| (pid, ports)));
        }
        let now = self.clock.now();
        let handling = Some(signal).filter(|signal| signal.ends_by_default());
        let handling = handling.and_then(|signal| standstill::handling(pid, signal));
        let wait = |until: Time| (now + SIGNAL_WAIT.min(until.since(now) / 4)).min(until);
        let held_back = match (quiet_until, handling) {
            (Some(until), Some(Handling::Default)) => Some((until, None)),
            // Node has a handler of its own, which ends it and is set for one time, until the server sets another.
            (Some(until), Some(Handling::Caught)) if standstill::is_node(pid) => match handles_once {
                Some(true) => Some((until, None)),
                Some(false) => None,
                None => Some((wait(until), Some(wait(until)))),
            },
            _ => None,
        };
        if let Some((until, signal_by)) = held_back
            && self.seek(worker, pid, signal, QuietEnd::NoHandler, Watch::new(now, until), signal_by)
        {
            tracing::debug!(%pid, %signal, "signal held back for a quiet moment");
            return;
        }
        if let Some(least) = self.end_idle_after {
            self.seek_idle(worker, pid, signal, least);
        }
        self.kill(pid, signal, scope, None);
    }

    /// It has not ended, and its time is nearly up. Where it has connections, they are what it may be waiting for; one
    /// without may be at work on something else, and has all of its time for that, as has one that ignores the signal.
    pub(super) fn end_when_quiet(&mut self, worker: WorkerId, until: Time) {
        // There is no more time for being idle for long.
        self.endings.sought.retain(|ending| {
            ending.worker != worker || ending.why != QuietEnd::Idle || ending.frozen.is_some()
        });
        let sought = self.endings.sought.iter().any(|ending| ending.worker == worker);
        if let Some(pid) = self.workers.get(&worker).map(|known| known.pid).filter(|_| !sought) {
            let signal = self.core.config().stop_signal;
            if standstill::handling(pid, signal) == Some(Handling::Ignored) {
                return;
            }
            let watch = Watch::new(self.clock.now(), until);
            self.seek(worker, pid, signal, QuietEnd::Straggler, watch, None);
        }
    }

    /// From the moment in which it is told: it may listen no more a moment later, and then nobody knows at which ports.
    fn seek_idle(&mut self, worker: WorkerId, pid: Pid, signal: Signal, least: Duration) {
        if standstill::handling(pid, signal) != Some(Handling::Ignored) {
            let watch = Watch::for_idle(self.clock.now(), least);
            self.seek(worker, pid, signal, QuietEnd::Idle, watch, None);
        }
    }

    /// Says whether its connections can be looked at.
    fn seek(
        &mut self,
        worker: WorkerId,
        pid: Pid,
        signal: Signal,
        why: QuietEnd,
        watch: Watch,
        signal_by: Option<Time>,
    ) -> bool {
        // Whoever has joined another group is stopped with it, or not at all; and whom somebody else has stopped is not to
        // be continued by us.
        if procfs::stat(pid).is_none_or(|stat| stat.group != pid) || standstill::stand_still(&[pid]) {
            return false;
        }
        let now = self.clock.now();
        let told = self.endings.ports.get(&pid).into_iter().flatten().copied();
        self.endings.sought.push(Ending {
            worker,
            pid,
            signal,
            why,
            began: now,
            due: now,
            ports: self.launcher.sockets.ports().chain(told).collect(),
            signal_by,
            watch,
            is_deaf: None,
            own: BTreeSet::new(),
            others: BTreeSet::new(),
            frozen: None,
        });
        self.refuse_newcomers(now);
        let serves = self.census.connections(worker).is_some_and(|count| count > 0);
        let is_sought = (serves || !self.nobody_is_served())
            && self.can_be_seen()
            && (serves || !self.has_nothing_to_wait_for());
        if !is_sought {
            self.endings.sought.pop();
        }
        is_sought
    }

    /// Said once.
    fn tell_blind(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.endings.told_blind, true) {
            self.missing.push(format!(
                "workers without a handler for the stop signal get it with requests in flight: their connections cannot be seen: {error}"
            ));
        }
    }

    /// The same.
    fn tell_half_blind(&mut self, seen: &[Connection]) {
        let kept_back =
            seen.iter().any(|connection| connection.ends.is_some() && connection.traffic.is_none());
        if kept_back && !std::mem::replace(&mut self.endings.told_half_blind, true) {
            self.missing.push(
                "who spoke last on a connection cannot be seen (sock_diag is refused): a worker that is to end keeps its open ones for half of its time".to_owned(),
            );
        }
    }

    /// Whoever is due, and whoever has been told to stand still: SIGCHLD says when that is so.
    pub(super) fn look_for_quiet(&mut self, now: Time) {
        if self.endings.sought.iter().all(|ending| ending.due > now && ending.frozen.is_none()) {
            return;
        }
        let before = process::cpu_time();
        self.refuse_newcomers(now);
        let mut sought = std::mem::take(&mut self.endings.sought);
        for ending in &mut sought {
            if let Some(frozen) = &mut ending.frozen {
                frozen.still = !frozen.held && standstill::stand_still(&procfs::group(ending.pid));
            }
        }
        // One look for all.
        let mut shared = Shared::default();
        sought.retain_mut(|ending| {
            let found = match ending.frozen {
                _ if ending.signal_by.is_some_and(|at| at <= now) => Found::Quiet,
                Some(frozen) => self.look_at_frozen(ending, frozen, &mut shared, now),
                None if ending.due > now => Found::Busy,
                None => self.look_at_running(ending, &mut shared, now),
            };
            match found {
                Found::Busy => true,
                Found::Quiet => {
                    self.end(ending, now);
                    false
                }
                Found::Unknown(error) => {
                    ending.thaw(now, &self.stats);
                    self.tell_blind(&error);
                    self.let_go(ending);
                    false
                }
            }
        });
        // The looks' own time counts, and not how long others kept us from them.
        let spent = process::cpu_time().saturating_sub(before);
        for ending in sought.iter_mut().filter(|ending| ending.frozen.is_none()) {
            ending.due = ending.due.max(now + (spent * LOOK_SHARE).min(ending.watch.left(now) / HASTE));
        }
        sought.append(&mut self.endings.sought);
        self.endings.sought = sought;
        self.settle();
    }

    fn look_at_running(&mut self, ending: &mut Ending, shared: &mut Shared, now: Time) -> Found {
        ending.due = now + ending.look_every();
        let members = procfs::group(ending.pid);
        self.keep_from_accepting(ending, &members);
        let seen = shared.to(ending, self);
        let seen = match seen.and_then(|seen| ending.own_among(seen, &members)) {
            Ok(seen) => seen,
            Err(error) => return Found::Unknown(error),
        };
        self.tell_half_blind(&seen);
        let is_at_work = LazyCell::new(|| standstill::is_at_work(&members));
        let idle = ending.idle_among(now, &seen, || *is_at_work);
        // What keeps one that has been told, and has none, are not its connections.
        let quiet = idle.len() == seen.len() && !(seen.is_empty() && ending.why != QuietEnd::NoHandler);
        let may_hang_up = ending.goes_by_and_by()
            && !self.endings.cannot_hang_up
            && idle.iter().any(|one| one.state != State::OwnDone);
        if quiet && !self.is_needed(ending, now) || may_hang_up {
            ending.freeze(now, false);
        } else if self.may_hold(ending, now) && !*is_at_work {
            ending.freeze(now, true);
        }
        Found::Busy
    }

    fn look_at_frozen(
        &mut self,
        ending: &mut Ending,
        frozen: Frozen,
        shared: &mut Shared,
        now: Time,
    ) -> Found {
        let members = procfs::group(ending.pid);
        let is_held_on = frozen.held
            && now < frozen.until + FREEZE_MAX
            && self.launcher.sockets.waiting_for(ending.worker) > 0;
        if now >= frozen.until && is_held_on {
            ending.due = now + FREEZE_STEP;
        } else if now >= frozen.until || frozen.still {
            let seen = if !frozen.still {
                None
            } else {
                // Afresh: what was accepted just as somebody looked was nobody's yet.
                ending.others.clear();
                if shared.is_old(self.clock.now()) {
                    *shared = Shared::default();
                }
                let seen = shared.to(ending, self);
                match seen.and_then(|seen| ending.own_among(seen, &members)) {
                    Ok(seen) => Some(seen),
                    Err(error) => return Found::Unknown(error),
                }
            };
            if let Some(seen) = seen {
                let idle = ending.idle_among(now, &seen, || !standstill::were_waiting(&members));
                let all = idle.len() == seen.len();
                if ending.goes_by_and_by() || all && ending.signal_by.is_none() {
                    self.hang_up(&members, &idle);
                }
                if all && !self.is_needed(ending, now) {
                    return Found::Quiet;
                }
            }
            ending.thaw(self.clock.now(), &self.stats);
        } else {
            ending.due = if frozen.held { frozen.until } else { now + FREEZE_STEP };
        }
        Found::Busy
    }

    /// On those that are not done already.
    fn hang_up(&mut self, members: &[Pid], idle: &[Connection]) {
        let open = idle.iter().filter(|connection| connection.state != State::OwnDone);
        let inodes: BTreeSet<u64> = open.map(|connection| connection.inode).collect();
        if !inodes.is_empty() && !self.endings.cannot_hang_up {
            self.endings.cannot_hang_up = hangup::hang_up(members, &inodes).is_err();
        }
    }

    fn names(&self) -> BTreeSet<connections::UnixName> {
        self.launcher.sockets.names().collect()
    }

    fn end(&mut self, ending: &mut Ending, now: Time) {
        if ending.signal_by.is_some() {
            // Before it goes on: whatever it does next, it does first.
            self.let_go(ending);
            ending.thaw(now, &self.stats);
            if let Some(least) = self.end_idle_after {
                self.seek_idle(ending.worker, ending.pid, ending.signal, least);
            }
            return;
        }
        if let Some(frozen) = ending.frozen {
            count(now.since(frozen.since), &self.stats);
        }
        if let Err(error) = kill::send(ending.pid, Signal::KILL, Scope::Group, None) {
            tracing::warn!(pid = %ending.pid, %error, "quiet worker not killed");
            standstill::thaw(ending.pid);
            return;
        }
        if let Some(known) = self.workers.get_mut(&ending.worker) {
            known.killed = true;
            known.ended_for = Some(ending.signal);
        }
        self.events.push_back(Event::EndedQuietly { worker: ending.worker, why: ending.why });
    }

    /// There is no telling: it gets its signal as it is, where it has not had it.
    fn let_go(&mut self, ending: &Ending) {
        if ending.why == QuietEnd::NoHandler {
            self.looks.told(ending.worker, self.clock.now());
            let scope = self.core.config().signal_scope;
            self.kill(ending.pid, ending.signal, scope, None);
        }
    }
}
