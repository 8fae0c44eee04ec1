//! What is started, and how it lives and ends.

use std::time::Duration;

use drainit::core::event::{Event, Hang, QuietEnd, SpawnFailure};
use drainit::core::signal::Signal;
use drainit::core::time::Time;
use drainit::core::types::{Edition, Exit, Pid, WorkerId};

use super::super::rng::Rng;
use super::super::setting::{self, Character, RTMIN_3};
use super::super::words::{self, said};
use super::{Broken, Happening, MANY_TALKERS, Orphan, Process, World};

/// More than a thousand workers and as many beside them.
const LAST_PID: i32 = 32_768;

impl World {
    pub(super) fn fork(&mut self, worker: WorkerId, edition: Edition) {
        let quiet = self.is_quiet();
        let slow = self.habits.slow_spawn;
        let answer = self.clock + if self.rng.chance(slow) { self.wait(3_000) } else { Duration::ZERO };
        let character = self.releases.get(&edition.release).filter(|_| !quiet).cloned();
        let character = character.unwrap_or(Character::Good);
        let failure = match &character {
            Character::CannotStart(failure) if self.books.launched => Some(failure.clone()),
            _ => self.spawn_failure(quiet),
        };
        if let Some(failure) = failure {
            return self.plan(answer, Happening::Told(Event::SpawnFailed { worker, failure }));
        }
        let pid = self.free_pid();
        self.plan(answer, Happening::Told(Event::Spawned { worker, pid }));
        let never = matches!(character, Character::NeverReady | Character::ExitsAtOnce);
        if quiet || !(never || self.rng.chance(self.habits.never_ready)) {
            let is_slow = matches!(character, Character::Slow) || self.rng.chance(self.habits.slow_ready);
            let slow = !quiet && is_slow;
            let ready = if slow { self.wait(40_000) } else { Duration::ZERO };
            self.plan(answer + ready, Happening::Told(Event::Ready { worker }));
            if self.books.config.watchdog.is_some() {
                self.plan(answer + ready, Happening::Pings(worker));
            }
            let after = answer + ready + self.wait(3_000);
            match character {
                Character::ExitsOnceReady => {
                    let exit = self.end();
                    self.plan(after, Happening::Dies(worker, exit));
                }
                Character::Hangs => {
                    self.plan(after, Happening::Told(Event::Hung { worker, why: Hang::Checks }));
                }
                _ => {}
            }
        }
        if matches!(character, Character::ExitsAtOnce) {
            let exit = self.end();
            self.plan(answer, Happening::Dies(worker, exit));
        }
        if !quiet && self.rng.chance(self.habits.crash) {
            let life = self.rng.up_to(self.habits.lifetime);
            let exit = self.end();
            self.plan(self.clock + life, Happening::Dies(worker, exit));
        }
        let stuck = self.rng.chance(self.habits.stuck);
        let reaction = (self.wait(20_000), self.end());
        let deaf = self.rng.chance(self.habits.deaf);
        let on_message = (!deaf).then(|| (self.wait(20_000), self.end()));
        let undead = self.rng.chance(self.habits.undead);
        let process = Process {
            pid,
            alive: true,
            known_at: answer,
            on_stop: (!stuck).then_some(reaction),
            on_message,
            dies_after: if undead { self.wait(60_000) } else { Duration::ZERO },
            leaves: if self.rng.chance(self.habits.orphans) { self.rng.below(3) } else { 0 },
        };
        self.processes.insert(worker, process);
    }

    pub(super) fn pings(&mut self, worker: WorkerId) -> Result<(), Broken> {
        let alive = self.processes.get(&worker).is_some_and(|process| process.alive);
        let Some(every) = self.books.config.watchdog.filter(|_| alive) else { return Ok(()) };
        let quiet = self.is_quiet() || self.processes.len() > MANY_TALKERS;
        let silent = self.habits.falls_silent;
        match words::sign_of_life(&mut self.rng, every, quiet, silent, self.clock) {
            Some((word, next)) => {
                if let Some(at) = next {
                    self.plan(at, Happening::Pings(worker));
                }
                self.tell(said(worker, word))
            }
            None => Ok(()),
        }
    }

    pub(super) fn spawn_failure(&mut self, quiet: bool) -> Option<SpawnFailure> {
        if !self.books.launched && self.habits.first_start.is_some() {
            return self.habits.first_start.clone();
        }
        (!quiet && self.books.launched && self.rng.chance(self.habits.spawn_failure))
            .then(|| setting::spawn_failure(&mut self.rng))
    }

    /// Short waits and none are as likely as long ones.
    pub(super) fn wait(&mut self, most: u64) -> Duration {
        let limit = self.rng.pick(&[0, 20, most / 10, most]);
        self.rng.up_to(Duration::from_millis(limit))
    }

    pub(super) fn end(&mut self) -> Exit {
        self.rng.pick(&[
            Exit::Code(0),
            Exit::Code(0),
            Exit::Code(1),
            Exit::Code(75),
            Exit::Code(255),
            Exit::Signal(Signal::TERM),
            Exit::Signal(RTMIN_3),
            Exit::OutOfMemory,
        ])
    }

    /// Recycled soon: a process id names somebody else the moment its process has been reaped.
    pub(super) fn free_pid(&mut self) -> Pid {
        loop {
            self.last_pid = if self.last_pid > LAST_PID { 2 } else { self.last_pid + 1 };
            if self.processes.values().all(|process| process.pid.0 != self.last_pid) {
                return Pid(self.last_pid);
            }
            if self.processes.len() < 20 && self.last_pid > 40 {
                self.last_pid = 1;
            }
        }
    }

    pub(super) fn kill(&mut self, pid: Pid, signal: Signal) {
        let Some((id, process)) = self.processes.iter().find(|(_, process)| process.pid == pid) else {
            return;
        };
        let id = *id;
        let asked = [Signal::TERM, Signal::INT, self.books.config.stop_signal].contains(&signal);
        let fate = match process.on_stop {
            _ if signal == Signal::KILL => Some((process.dies_after, Exit::Signal(Signal::KILL))),
            reaction if asked => reaction,
            _ => None,
        };
        if let Some((after, exit)) = fate {
            self.plan(self.clock + after, Happening::Dies(id, exit));
        }
    }

    pub(super) fn end_quietly(&mut self, worker: WorkerId, until: Time, why: QuietEnd) {
        if self.rng.chance(self.habits.never_quiet) {
            return;
        }
        let at = (self.clock + self.rng.up_to(until.since(self.clock))).min(until);
        self.mark(match why {
            QuietEnd::NoHandler => "a quiet end without handler",
            QuietEnd::Straggler => "a quiet end of a straggler",
            QuietEnd::Idle => "a quiet end of an idle one",
        });
        self.plan(at, Happening::Told(Event::EndedQuietly { worker, why }));
        let after = self.processes.get(&worker).map_or(Duration::ZERO, |process| process.dies_after);
        self.plan(at + after, Happening::Dies(worker, Exit::Signal(Signal::KILL)));
    }

    /// It closes its sockets soon, late, or not before its end.
    pub(super) fn listen(&mut self, worker: WorkerId) {
        self.mark("an old worker was listened to");
        if !self.rng.chance(self.habits.keeps_accepting) {
            let at = self.clock + self.wait(5_000);
            self.plan(at, Happening::Told(Event::Deaf { worker, sure: false }));
        }
    }

    pub(super) fn message(&mut self, pid: Pid) {
        let Some((id, process)) = self.processes.iter().find(|(_, process)| process.pid == pid) else {
            return;
        };
        let (id, reaction) = (*id, process.on_message);
        if self.rng.chance(self.habits.undelivered) {
            let after = self.wait(3_000);
            self.plan(self.clock + after, Happening::Told(Event::Undelivered { worker: id }));
        } else if let Some((after, exit)) = reaction {
            self.plan(self.clock + after, Happening::Dies(id, exit));
        }
    }

    pub(super) fn dies(&mut self, id: WorkerId, exit: Exit) {
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.alive) else { return };
        process.alive = false;
        let (leaves, known_at) = (process.leaves, process.known_at);
        for _ in 0..leaves {
            let patience = |rng: &mut Rng| rng.chance(60).then(|| rng.up_to(Duration::from_secs(2)));
            let orphan = Orphan { on_term: patience(&mut self.rng), on_kill: patience(&mut self.rng) };
            let number = self.planned + 1;
            self.orphans.insert(number, orphan);
            let lives = self.wait(100_000);
            self.plan(self.clock + lives, Happening::OrphanGone(number));
        }
        let reaped =
            self.clock.max(known_at) + if self.rng.chance(80) { Duration::ZERO } else { self.wait(20) };
        self.plan(reaped, Happening::Told(Event::Exited { worker: id, exit }));
    }

    pub(super) fn sweep(&mut self, signal: Signal) {
        self.swept = true;
        let fate = |orphan: &Orphan| if signal == Signal::KILL { orphan.on_kill } else { orphan.on_term };
        let dying: Vec<_> =
            self.orphans.iter().filter_map(|(number, orphan)| Some((*number, fate(orphan)?))).collect();
        for (number, after) in dying {
            self.plan(self.clock + after, Happening::OrphanGone(number));
        }
        let alive = self.processes.values().any(|process| process.alive);
        let left = alive || !self.orphans.is_empty();
        self.plan(self.clock, Happening::Told(Event::Descendants { left }));
    }
}
