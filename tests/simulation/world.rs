//! A model world around the core: processes, people, a clock, and every misfortune that the kernel allows.

use std::collections::BTreeMap;
use std::time::Duration;

use drainit::core::Supervisor;
use drainit::core::event::{Action, Command, Event, Hang, Notice, QuietEnd, RequestId, SpawnFailure};
use drainit::core::signal::{Disposition, Signal};
use drainit::core::snapshot::{Phase, Snapshot};
use drainit::core::time::Time;
use drainit::core::types::{Exit, Pid, WorkerId};

use super::books::Books;
use super::history::Entry;
use super::invariants::INVARIANTS;
use super::records::Step;
use super::rng::Rng;
use super::setting::{self, Habits, QUIT, RTMIN_3, USR1};
use super::words::{self, FAR, said};

/// More steps than any history needs; beyond them something turns in a circle.
const ENDLESS: u64 = 100_000;

/// So many workers have come and gone that the next ones do not crash: not every rule bounds a crash loop.
const MANY: u64 = 2_000;

/// More of them talk too much for a history.
const MANY_TALKERS: usize = 24;

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

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) history: Vec<Entry>,
    pub(crate) books: Books,
    pub(crate) habits: Habits,
    /// What has happened in this world, for the coverage.
    pub(crate) marks: Vec<&'static str>,
    rng: Rng,
    core: Supervisor,
    clock: Time,
    agenda: BTreeMap<(Time, u64), Happening>,
    planned: u64,
    pub(crate) steps: u64,
    snapshot: Snapshot,
    processes: BTreeMap<WorkerId, Process>,
    orphans: BTreeMap<u64, Orphan>,
    swept: bool,
    last_pid: i32,
    last_request: u64,
    leaving: bool,
}

/// What broke.
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

#[derive(Clone, Debug)]
enum Happening {
    Told(Event),
    Dies(WorkerId, Exit),
    OrphanGone(u64),
    /// A worker with a watchdog says that it is alive, or does not.
    Pings(WorkerId),
    /// Somebody does something; what, is thought of then.
    Provocation,
}

/// A child of drainit's, until it is reaped.
struct Process {
    pid: Pid,
    alive: bool,
    /// The core does not hear of it before.
    known_at: Time,
    /// How it takes a request to finish; not at all, where there is nothing.
    on_stop: Option<(Duration, Exit)>,
    on_message: Option<(Duration, Exit)>,
    dies_after: Duration,
    leaves: u64,
}

struct Orphan {
    on_term: Option<Duration>,
    on_kill: Option<Duration>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let config = setting::config(&mut rng);
        let habits = Habits::random(&mut rng);
        let core = Supervisor::new(config.clone());
        Self {
            seed,
            history: Vec::new(),
            books: Books::open(config),
            marks: Vec::new(),
            clock: Time::ZERO,
            agenda: BTreeMap::new(),
            planned: 0,
            steps: 0,
            snapshot: core.snapshot(Time::ZERO),
            processes: BTreeMap::new(),
            orphans: BTreeMap::new(),
            swept: false,
            last_pid: 1,
            last_request: 0,
            leaving: false,
            rng,
            habits,
            core,
        }
    }

    /// From the first event to the last action.
    pub(crate) fn live(&mut self) -> Result<(), Broken> {
        for _ in 0..self.habits.provocations {
            let at = Time::ZERO + self.rng.up_to(self.habits.horizon);
            self.plan(at, Happening::Provocation);
        }
        self.tell(Event::Start)?;
        while self.books.exit.is_none() {
            self.steps += 1;
            if self.steps > ENDLESS {
                return Err(Broken { invariant: "settles", detail: "it goes on and on".to_owned() });
            }
            self.step_the_clock();
            self.provoke_at_the_deadline();
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), Broken> {
        let due = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let timeout = self.core.poll_timeout().filter(|at| at.since(self.clock) < FAR);
        let happens_first = match (due, timeout) {
            (None, None) => return self.rest(),
            (Some(due), Some(timeout)) if due.max(self.clock) == timeout.max(self.clock) => {
                self.rng.chance(50)
            }
            (Some(due), Some(timeout)) => due < timeout,
            (due, _) => due.is_some(),
        };
        if !happens_first {
            self.clock = self.clock.max(timeout.unwrap_or(self.clock));
            return self.tell(Event::Tick);
        }
        let Some(((at, _), happening)) = self.agenda.pop_first() else { return Ok(()) };
        self.clock = self.clock.max(at);
        match happening {
            Happening::Told(event) => self.tell(event),
            Happening::Provocation => {
                let event = self.provocation();
                self.tell(event)
            }
            Happening::Pings(id) => self.pings(id),
            Happening::Dies(id, exit) => {
                self.dies(id, exit);
                Ok(())
            }
            Happening::OrphanGone(orphan) => {
                self.orphans.remove(&orphan);
                if self.swept && self.orphans.is_empty() {
                    self.plan(self.clock, Happening::Told(Event::Descendants { left: false }));
                }
                Ok(())
            }
        }
    }

    /// Nothing is going to happen by itself any more.
    fn rest(&mut self) -> Result<(), Broken> {
        let ended = matches!(self.snapshot.phase, Phase::Draining | Phase::Killing | Phase::LameDuck);
        let told = self.books.workers.values().any(|worker| worker.told.is_some());
        let vacant = self.books.slots.iter().any(|slot| slot.vacancy.is_some());
        if ended || told || vacant {
            let detail = format!("at rest in {:?}, vacant: {vacant}, told: {told}", self.snapshot.phase);
            return Err(Broken { invariant: "settles", detail });
        }
        self.mark("came to rest");
        self.clock = self.clock.max(Time::at(self.habits.horizon));
        let only_a_hook = !self.leaving && self.rng.chance(30);
        self.leaving = true;
        let request = self.request();
        if only_a_hook {
            return self.tell(Event::Command { command: Command::PreStop, request });
        }
        let signal = if self.drains(Signal::INT) && self.rng.chance(30) { Signal::INT } else { Signal::TERM };
        self.tell(Event::Signal { signal, value: None })
    }

    fn drains(&self, signal: Signal) -> bool {
        self.books.config.signals.get(signal) == Disposition::Drain
    }

    fn is_quiet(&self) -> bool {
        self.clock >= Time::at(self.habits.horizon) || self.books.last_worker.0 > MANY
    }

    fn plan(&mut self, at: Time, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), happening);
    }

    pub(crate) fn mark(&mut self, what: &'static str) {
        self.marks.push(what);
    }
}

/// People, and the clock.
impl World {
    fn provocation(&mut self) -> Event {
        let request = self.request();
        let any_worker = WorkerId(1 + self.rng.below(self.books.last_worker.0 + 2));
        // Of those only: who lives, or may yet, is not declared dead.
        let gone = !self.books.workers.contains_key(&any_worker);
        if self.rng.chance(self.habits.drain_signal) {
            let signal = self.rng.pick(&[Signal::TERM, Signal::TERM, Signal::INT]);
            return Event::Signal { signal, value: None };
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

    fn any_ready(&mut self) -> Option<WorkerId> {
        let ready: Vec<_> = self.books.workers.iter().filter(|(_, worker)| worker.is_ready()).collect();
        (!ready.is_empty()).then(|| *self.rng.pick(&ready).0)
    }

    fn size(&mut self) -> u32 {
        // A thousand workers take their time to simulate.
        let large = if self.seed % 2_000 == 7 { 1024 } else { 24 };
        self.rng.pick(&[0, 1, 2, 3, 5, 8, large, 1025, u32::MAX])
    }

    fn request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    fn provoke_at_the_deadline(&mut self) {
        let Some(timeout) = self.core.poll_timeout() else { return };
        if !self.is_quiet() && self.rng.chance(self.habits.punctual) {
            self.plan(timeout, Happening::Provocation);
        }
    }

    fn step_the_clock(&mut self) {
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

/// The core, and what it asks for.
impl World {
    fn tell(&mut self, event: Event) -> Result<(), Broken> {
        if let Event::Exited { worker, .. } = &event {
            self.processes.remove(worker);
        }
        let backwards = self.rng.chance(self.habits.clock_step);
        let reading =
            if backwards { self.clock - self.rng.up_to(Duration::from_secs(5)) } else { self.clock };
        self.history.push(Entry::Event(self.steps, reading, event.clone()));
        self.core.handle(reading, event.clone());
        let first = self.history.len();
        while let Some(action) = self.core.poll_action() {
            self.history.push(Entry::Action(action));
        }
        let actions: Vec<_> = self.history[first..].iter().filter_map(Entry::action).cloned().collect();
        let after = self.core.snapshot(reading);
        let before = std::mem::replace(&mut self.snapshot, after);
        let timeout = self.core.poll_timeout();
        let step = Step { event: &event, actions: &actions, before: &before, after: &self.snapshot, timeout };
        self.books.enter(reading, &step);
        if self.books.committed == Some(self.books.now) {
            self.books.jumped += self.clock.since(reading);
        }
        for (invariant, holds) in INVARIANTS {
            holds(&self.books, &step).map_err(|detail| Broken { invariant, detail })?;
        }
        self.leaves_nothing_alive()?;
        self.mark_step(&event);
        actions.into_iter().for_each(|action| self.perform(action));
        Ok(())
    }

    /// The one promise that only the world can check.
    fn leaves_nothing_alive(&self) -> Result<(), Broken> {
        let refused = self.books.refused.is_some();
        if self.books.exit.is_none() || refused || self.books.kill_swept || self.orphans.is_empty() {
            return Ok(());
        }
        let detail = format!("{} orphans were not killed", self.orphans.len());
        Err(Broken { invariant: "leaves nothing alive", detail })
    }

    fn mark_step(&mut self, event: &Event) {
        if self.books.this_step.returned {
            self.mark("preStop without TERM");
        }
        if let Event::Spawned { worker, .. } = event
            && self.books.slots.iter().any(|slot| slot.successor == Some(*worker))
        {
            self.mark("a hung worker's replacement");
        }
        let vain = |action: &Action| matches!(action, Action::Tell(Notice::MessageInVain { .. }));
        if self.history.iter().rev().map_while(Entry::action).any(vain) {
            self.mark("a stop message in vain");
        }
        if let Event::Undelivered { worker } = event
            && self.books.workers.get(worker).is_some_and(|worker| worker.stop_signals == 1)
        {
            self.mark("a stop message undelivered");
        }
        let hung = |wanted: Hang| {
            let told = self.history.iter().rev().map_while(Entry::action);
            told.filter(
                |action| matches!(action, Action::Tell(Notice::WorkerHung { why, .. }) if *why == wanted),
            )
            .count()
                > 0
        };
        if hung(Hang::Silent) {
            self.mark("a silent worker");
        }
        if let Event::Said { worker, .. } = event
            && self.books.workers.get(worker).is_some_and(|record| record.stopping.is_some())
        {
            self.mark("a worker that stops by itself");
        }
        if matches!(event, Event::Signal { .. }) && self.books.sweep.is_some() {
            self.mark("a signal in the sweep");
        }
        if let Event::Exited { .. } = event
            && self.snapshot.phase == Phase::LameDuck
        {
            self.mark("a death in lame-duck");
        }
        if self.books.exit.is_some() {
            self.mark(match self.books.expected_code() {
                0 => "exit 0",
                71 => "exit 71",
                75 => "exit 75",
                124 => "exit 124",
                126 => "exit 126",
                127 => "exit 127",
                _ => "exit with a worker's code",
            });
            if !self.books.workers.is_empty() && self.books.refused.is_none() {
                self.mark("exit over the undead");
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, .. } => self.fork(worker),
            Action::Kill { pid, signal, .. } => self.kill(pid, signal),
            // Without a handler, and a moment in which it serves nobody comes, or does not.
            Action::Stop { worker, quiet_until: Some(until), .. }
                if self.rng.chance(self.habits.no_handler) =>
            {
                self.end_quietly(worker, until, QuietEnd::NoHandler);
            }
            Action::Stop { pid, signal, .. } => self.kill(pid, signal),
            Action::End { worker, until } => self.end_quietly(worker, until, QuietEnd::Straggler),
            Action::Sweep { signal } => self.sweep(signal),
            Action::Retire { worker } => {
                self.mark("a queue was waited for");
                if self.rng.chance(80) {
                    let at = self.clock + self.wait(20_000);
                    self.plan(at, Happening::Told(Event::Retired { worker }));
                }
            }
            Action::Message { pid } => self.message(pid),
            Action::Weigh
            | Action::Listen { .. }
            | Action::Reply { .. }
            | Action::Tell(_)
            | Action::Exit(_) => {}
        }
    }

    fn fork(&mut self, worker: WorkerId) {
        let quiet = self.is_quiet();
        let slow = self.habits.slow_spawn;
        let answer = self.clock + if self.rng.chance(slow) { self.wait(3_000) } else { Duration::ZERO };
        if let Some(failure) = self.spawn_failure(quiet) {
            return self.plan(answer, Happening::Told(Event::SpawnFailed { worker, failure }));
        }
        let pid = self.free_pid();
        self.plan(answer, Happening::Told(Event::Spawned { worker, pid }));
        if quiet || !self.rng.chance(self.habits.never_ready) {
            let slow = !quiet && self.rng.chance(self.habits.slow_ready);
            let ready = if slow { self.wait(40_000) } else { Duration::ZERO };
            self.plan(answer + ready, Happening::Told(Event::Ready { worker }));
            if self.books.config.watchdog.is_some() {
                self.plan(answer + ready, Happening::Pings(worker));
            }
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

    fn pings(&mut self, worker: WorkerId) -> Result<(), Broken> {
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

    fn spawn_failure(&mut self, quiet: bool) -> Option<SpawnFailure> {
        if !self.books.launched && self.habits.first_start.is_some() {
            return self.habits.first_start.clone();
        }
        (!quiet && self.books.launched && self.rng.chance(self.habits.spawn_failure))
            .then(|| setting::spawn_failure(&mut self.rng))
    }

    /// Short waits and none are as likely as long ones.
    fn wait(&mut self, most: u64) -> Duration {
        let limit = self.rng.pick(&[0, 20, most / 10, most]);
        self.rng.up_to(Duration::from_millis(limit))
    }

    fn end(&mut self) -> Exit {
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
    fn free_pid(&mut self) -> Pid {
        loop {
            self.last_pid = if self.last_pid > 1_200 { 2 } else { self.last_pid + 1 };
            if self.processes.values().all(|process| process.pid.0 != self.last_pid) {
                return Pid(self.last_pid);
            }
            if self.processes.len() < 20 && self.last_pid > 40 {
                self.last_pid = 1;
            }
        }
    }

    fn kill(&mut self, pid: Pid, signal: Signal) {
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

    fn end_quietly(&mut self, worker: WorkerId, until: Time, why: QuietEnd) {
        if self.rng.chance(self.habits.never_quiet) {
            return;
        }
        let at = (self.clock + self.rng.up_to(until.since(self.clock))).min(until);
        self.mark(match why {
            QuietEnd::NoHandler => "a quiet end without handler",
            QuietEnd::Straggler => "a quiet end of a straggler",
        });
        self.plan(at, Happening::Told(Event::EndedQuietly { worker, why }));
        let after = self.processes.get(&worker).map_or(Duration::ZERO, |process| process.dies_after);
        self.plan(at + after, Happening::Dies(worker, Exit::Signal(Signal::KILL)));
    }

    fn message(&mut self, pid: Pid) {
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

    fn dies(&mut self, id: WorkerId, exit: Exit) {
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

    fn sweep(&mut self, signal: Signal) {
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
