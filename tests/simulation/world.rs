//! A model world around the core: processes, people, a clock, and every misfortune that the kernel allows.

#[path = "world/marks.rs"]
mod marks;
#[path = "world/people.rs"]
mod people;
#[path = "world/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::time::Duration;

use drainit::core::Supervisor;
use drainit::core::event::{Action, Command, Event, QuietEnd};
use drainit::core::signal::{Disposition, Signal};
use drainit::core::snapshot::{Phase, Snapshot};
use drainit::core::time::Time;
use drainit::core::types::{Exit, Pid, Release, WorkerId};

use super::books::Books;
use super::history::Entry;
use super::invariants::{INVARIANTS, PROMISES, ROLLS};
use super::records::Step;
use super::rng::Rng;
use super::setting::{self, Character, Habits};
use super::words::FAR;

/// More steps than any history needs; beyond them something turns in a circle.
const ENDLESS: u64 = 100_000;

/// So many workers have come and gone that the next ones do not crash: not every rule bounds a crash loop.
const MANY: u64 = 2_000;

/// Longer than most rolls.
const LONG: Duration = Duration::from_secs(300);

/// So many of them show all there is to see of recycling.
const LIFETIMES: u32 = 20;

/// More of them talk too much for a history.
const MANY_TALKERS: usize = 24;

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
    /// What has been rolled out so far, and how good it is.
    releases: BTreeMap<Release, Character>,
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
    /// Where nothing ever comes to rest.
    Leave,
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
            releases: BTreeMap::from([(Release(1), Character::Good)]),
            rng,
            habits,
            core,
        }
    }

    /// From the first event to the last action. Now and then it shows that it comes back from the core.
    pub(crate) fn live(&mut self, lives: impl Fn()) -> Result<(), Broken> {
        for _ in 0..self.habits.provocations {
            let at = Time::ZERO + self.rng.up_to(self.habits.horizon);
            self.plan(at, Happening::Provocation);
        }
        // Where workers are recycled, something always happens.
        if let Some(lifetime) = self.books.config.max_lifetime {
            let longer = self.rng.up_to(LONG.min(lifetime * LIFETIMES));
            self.plan(Time::at(self.habits.horizon) + longer, Happening::Leave);
        }
        self.tell(Event::Start)?;
        while self.books.exit.is_none() {
            self.steps += 1;
            if self.steps.is_multiple_of(1_000) {
                lives();
            }
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
            Happening::Leave => self.leave(),
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
        // Who may take for ever keeps others waiting for ever.
        let endless = self.books.workers.values().any(|worker| worker.is_starting());
        let rolling = self.books.rolls.running.is_some();
        let hangs = self.books.workers.values().any(|worker| worker.hung);
        if ended || told || (vacant || rolling || hangs) && !endless {
            let detail = format!(
                "at rest in {:?}, vacant: {vacant}, told: {told}, rolling: {rolling}, hangs: {hangs}\n  {:?}\n  {:?}\n  {:?}",
                self.snapshot.phase, self.books.slots, self.books.workers, self.books.rolls.running
            );
            return Err(Broken { invariant: "settles", detail });
        }
        self.mark("came to rest");
        self.clock = self.clock.max(Time::at(self.habits.horizon));
        if rolling && !self.leaving && self.rng.chance(50) {
            self.leaving = true;
            let request = self.request();
            return self.tell(Event::Command { command: Command::Abort, request });
        }
        self.leave()
    }

    fn leave(&mut self) -> Result<(), Broken> {
        let only_a_hook = !self.leaving && self.rng.chance(30);
        self.leaving = true;
        let request = self.request();
        if only_a_hook {
            self.plan(self.clock + LONG, Happening::Leave);
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
        for (invariant, holds) in INVARIANTS.iter().chain(PROMISES).chain(ROLLS) {
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

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, edition, .. } => self.fork(worker, edition),
            Action::Weigh => self.weigh(),
            Action::Kill { pid, signal, .. } => self.kill(pid, signal),
            // Without a handler, and a moment in which it serves nobody comes, or does not.
            Action::Stop { worker, quiet_until: Some(until), .. }
                if self.rng.chance(self.habits.no_handler) =>
            {
                self.end_quietly(worker, until, QuietEnd::NoHandler);
            }
            Action::Stop { pid, signal, .. } => self.kill(pid, signal),
            Action::End { worker, until } => self.end_quietly(worker, until, QuietEnd::Straggler),
            Action::Listen { worker, sure: _ } => self.listen(worker),
            Action::Sweep { signal } => self.sweep(signal),
            Action::Retire { worker } => {
                self.mark("a queue was waited for");
                if self.rng.chance(80) {
                    let at = self.clock + self.wait(20_000);
                    self.plan(at, Happening::Told(Event::Retired { worker }));
                }
            }
            Action::Message { pid } => self.message(pid),
            Action::AnswerLate { .. }
            | Action::Observe
            | Action::Reply { .. }
            | Action::Tell(_)
            | Action::Exit(_) => {}
        }
    }
}
