//! People, and the clock.

use std::time::Duration;

use drainit::core::event::{Command, Event, Hang, RequestId, RollOrder, RollTrigger};
use drainit::core::signal::Signal;
use drainit::core::time::Time;
use drainit::core::types::{Exit, Release, Target, WorkerId};

use super::super::history::Entry;
use super::super::setting::{self, Character, QUIT, RTMIN_3, USR1};
use super::super::words::{self, said};
use super::{Happening, LONG, World};

const KINDS_OF_SIGNAL: [Signal; 13] = [
    Signal::HUP,
    Signal::INT,
    QUIT,
    USR1,
    Signal::USR2,
    Signal::TERM,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::RTMIN,
    RTMIN_3,
    Signal::RTMAX,
];

impl World {
    pub(super) fn provocation(&mut self) -> Event {
        let request = self.request();
        let any_worker = WorkerId(1 + self.rng.below(self.books.last_worker.0 + 2));
        // Of those only: who lives, or may yet, is not declared dead.
        let gone = !self.books.workers.contains_key(&any_worker);
        if self.rng.chance(self.habits.drain_signal) {
            let signal = self.rng.pick(&[Signal::TERM, Signal::TERM, Signal::INT]);
            return Event::Signal { signal, value: None };
        }
        if self.rng.chance(self.habits.rolls) {
            return self.about_rolls(request, any_worker);
        }
        match self.rng.below(16) {
            0..2 => Event::Command { command: Command::PreStop, request },
            2..4 => Event::Command { command: Command::Scale(self.size()), request },
            4 => Event::Ready { worker: any_worker },
            13..15 => {
                let word = words::any_word(&mut self.rng);
                said(self.any_ready().filter(|_| word.watchdog.is_some()).unwrap_or(any_worker), word)
            }
            10 => Event::Hung { worker: self.any_ready().unwrap_or(any_worker), why: Hang::Checks },
            11 => Event::Retired { worker: any_worker },
            12 => Event::Undelivered { worker: any_worker },
            5 if gone => Event::Exited { worker: any_worker, exit: Exit::Code(1) },
            6 if gone => {
                let failure = setting::spawn_failure(&mut self.rng);
                Event::SpawnFailed { worker: any_worker, failure }
            }
            _ => {
                let signal = self.rng.pick(&KINDS_OF_SIGNAL);
                let ends = self.drains(signal);
                let signal = if ends { Signal::CONT } else { signal };
                let value = signal.is_realtime().then(|| self.rng.next());
                Event::Signal { signal, value }
            }
        }
    }

    fn about_rolls(&mut self, request: RequestId, any_worker: WorkerId) -> Event {
        match self.rng.below(20) {
            0..12 => Event::Command { command: Command::Roll(self.order()), request },
            12 => Event::Command { command: Command::Abort, request },
            13 => Event::Signal { signal: self.rng.pick(&[Signal::HUP, Signal::USR2]), value: None },
            14 => Event::Weighed { room: self.room() },
            15 => Event::Command { command: Command::Scale(self.size()), request },
            16 => Event::Hung { worker: self.any_ready().unwrap_or(any_worker), why: Hang::Checks },
            17 => Event::Command { command: Command::PreStop, request },
            _ => {
                // Where nobody can take its place, that is tried for ever.
                let longer = self.rng.up_to(LONG);
                self.plan(Time::at(self.habits.horizon) + longer, Happening::Leave);
                Event::Overweight { worker: self.any_ready().unwrap_or(any_worker) }
            }
        }
    }

    /// What there is already, once more, or something new.
    fn order(&mut self) -> RollOrder {
        let known: Vec<_> = self.releases.keys().copied().collect();
        let release = if self.rng.chance(40) {
            self.rng.pick(&known)
        } else {
            let bad = self.rng.chance(self.habits.bad_release);
            let character = if bad { Character::random(&mut self.rng) } else { Character::Good };
            let release = Release(known.len() as u64 + 1);
            self.releases.insert(release, character);
            release
        };
        let version = self.rng.chance(50).then(|| format!("v{}", release.0));
        RollOrder {
            target: self.rng.chance(75).then_some(Target { release, version }),
            trigger: if self.rng.chance(80) { RollTrigger::Request } else { RollTrigger::Watch },
            wait: self.rng.chance(60),
        }
    }

    fn room(&mut self) -> u32 {
        let few = self.rng.pick(&[0, 0, 1, 2]);
        let short = !self.is_quiet() && self.rng.chance(self.habits.no_memory);
        if short { few } else { u32::MAX }
    }

    pub(super) fn weigh(&mut self) {
        let room = self.room();
        let late = !self.is_quiet() && self.rng.chance(self.habits.slow_scales);
        let answer = if late { self.wait(5_000) } else { Duration::ZERO };
        self.plan(self.clock + answer, Happening::Told(Event::Weighed { room }));
    }

    pub(super) fn any_ready(&mut self) -> Option<WorkerId> {
        let ready: Vec<_> = self.books.workers.iter().filter(|(_, worker)| worker.is_ready()).collect();
        (!ready.is_empty()).then(|| *self.rng.pick(&ready).0)
    }

    pub(super) fn size(&mut self) -> u32 {
        // A thousand workers take their time to simulate.
        let large = if self.seed % 2_000 == 7 { 1024 } else { 24 };
        self.rng.pick(&[0, 1, 2, 3, 5, 8, large, 1025, u32::MAX])
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    pub(super) fn provoke_at_the_deadline(&mut self) {
        let Some(timeout) = self.core.poll_timeout() else { return };
        if !self.is_quiet() && self.rng.chance(self.habits.punctual) {
            self.plan(timeout, Happening::Provocation);
        }
    }

    pub(super) fn step_the_clock(&mut self) {
        if self.rng.chance(self.habits.clock_step) {
            let step = self.rng.pick(&[1, 99, 101, 1_500, 20_000, 3_600_000]);
            let step = Duration::from_millis(step);
            self.clock = self.clock + step;
            self.history.push(Entry::Clock(step));
            if self.books.committed.is_some() {
                self.books.jumped += step;
            }
        }
    }
}
