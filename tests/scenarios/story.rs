//! The core and a time of its own, and what one tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drainit::core::Supervisor;
use drainit::core::config::{
    Backoff, BreakerRules, Config, Count, Kind, LbWait, MaxCrashes, ReadinessOnDrain, Restart, RollRules,
};
use drainit::core::event::{
    Action, Command, Event, Outcome, RequestId, RollOrder, RollTrigger, SpawnFailure,
};
use drainit::core::signal::{Signal, SignalTable};
use drainit::core::snapshot::{Phase, RollOutcome, WorkerState};
use drainit::core::time::Time;
use drainit::core::types::{Exit, Pid, Release, Scope, Target, WorkerId};
use drainit::core::word::Word;

pub(crate) const BY_TERM: Exit = Exit::Signal(Signal::TERM);

/// A pool in a pod: 30 s of grace, 10 s for the load balancers.
pub(crate) fn pool(workers: u32) -> Config {
    Config {
        kind: Kind::Pool,
        workers,
        version: None,
        roll: RollRules::default(),
        breaker: BreakerRules::default(),
        max_lifetime: None,
        restart: Restart::Always,
        backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(30) },
        min_uptime: Duration::from_secs(10),
        max_crashes: Some(MaxCrashes { count: 5, window: Duration::from_secs(60) }),
        ready_timeout: Some(Duration::from_secs(30)),
        min_ready: Count::Workers(1),
        watchdog: None,
        grace: Duration::from_secs(30),
        margin: Duration::from_secs(1),
        lb_wait: LbWait { min: Duration::from_secs(3), max: Duration::from_secs(10) },
        lb_quiet: Duration::from_secs(2),
        lb_checks: 2,
        readiness_on_drain: ReadinessOnDrain::Fail,
        drain_timeout: None,
        orphan_grace: Duration::from_secs(1),
        stop_signal: Signal::TERM,
        stop_message: None,
        signal_scope: Scope::Leader,
        own_queues: false,
        signals: SignalTable::pool(),
        late: None,
        remap_exit: BTreeMap::new(),
        seed: 1,
    }
}

/// One worker as under tini, in a container outside of a pod.
pub(crate) fn single() -> Config {
    let none = LbWait { min: Duration::ZERO, max: Duration::ZERO };
    Config {
        kind: Kind::Single,
        restart: Restart::Never,
        ready_timeout: None,
        grace: Duration::from_secs(10),
        lb_wait: none,
        signals: SignalTable::single(),
        ..pool(1)
    }
}

pub(crate) fn not_found() -> SpawnFailure {
    SpawnFailure::NotFound("no such file".to_owned())
}

pub(crate) fn cannot_execute() -> SpawnFailure {
    SpawnFailure::CannotExecute("permission denied".to_owned())
}

pub(crate) fn refused() -> SpawnFailure {
    SpawnFailure::System("no process left".to_owned())
}

/// The core and the time; worker n has pid 100 + n.
pub(crate) struct Story {
    pub(crate) core: Supervisor,
    pub(crate) now: Time,
    pub(crate) actions: Vec<Action>,
    running: BTreeSet<u64>,
}

impl Story {
    /// Nothing has been answered yet.
    pub(crate) fn start(config: Config) -> Self {
        let core = Supervisor::new(config);
        let mut story = Self { core, now: Time::ZERO, actions: Vec::new(), running: BTreeSet::new() };
        story.tell(Event::Start);
        story
    }

    /// Every worker is ready at 0 s.
    pub(crate) fn serving(config: Config) -> Self {
        let workers = u64::from(config.workers);
        let mut story = Self::start(config);
        (1..=workers).for_each(|worker| story.comes_up(worker));
        assert_eq!(story.phase(), Phase::Serving);
        story
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.core.handle(self.now, event);
        self.actions.clear();
        while let Some(action) = self.core.poll_action() {
            self.actions.push(action);
        }
    }

    /// Lets the time pass until then; what the core did at its last deadline remains to be seen.
    pub(crate) fn at(&mut self, seconds: f64) -> &mut Self {
        let until = Time::at(Duration::from_secs_f64(seconds));
        self.actions.clear();
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= until) {
            self.now = due;
            self.tell(Event::Tick);
        }
        self.now = until;
        self
    }

    /// The process was suspended: nothing is heard before then.
    pub(crate) fn sleeps_until(&mut self, seconds: u64) -> &mut Self {
        self.now = Time::at(Duration::from_secs(seconds));
        self
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.tell(Event::Signal { signal, value: None });
    }

    pub(crate) fn prestop(&mut self, request: u64) {
        self.tell(Event::Command { command: Command::PreStop, request: RequestId(request) });
    }

    pub(crate) fn scale(&mut self, workers: u32) {
        self.tell(Event::Command { command: Command::Scale(workers), request: RequestId(99) });
    }

    pub(crate) fn rolls(&mut self, request: u64, release: u64) {
        let target = Some(Target { release: Release(release), version: None });
        let order = RollOrder { target, trigger: RollTrigger::Request, wait: true };
        self.tell(Event::Command { command: Command::Roll(order), request: RequestId(request) });
    }

    pub(crate) fn aborts(&mut self, request: u64) {
        self.tell(Event::Command { command: Command::Abort, request: RequestId(request) });
    }

    pub(crate) fn watched_path_changes(&mut self, request: u64) {
        let order = RollOrder { target: None, trigger: RollTrigger::Watch, wait: false };
        self.tell(Event::Command { command: Command::Roll(order), request: RequestId(request) });
    }

    /// There is room for so many more.
    pub(crate) fn weighed(&mut self, room: u32) {
        assert!(self.actions.contains(&Action::Weigh));
        self.tell(Event::Weighed { room });
    }

    /// Which generation each slot has, and whether it serves.
    pub(crate) fn generations(&self) -> Vec<(u32, u64, bool)> {
        let workers = self.core.snapshot(self.now).workers;
        let alive = workers.iter().filter(|view| view.state != WorkerState::Draining);
        alive.map(|view| (view.slot, view.generation.0, view.ready)).collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<RollOutcome> {
        self.core.snapshot(self.now).history.iter().map(|record| record.outcome).collect()
    }

    pub(crate) fn spawned(&mut self, worker: u64) {
        self.running.insert(worker);
        self.tell(Event::Spawned { worker: WorkerId(worker), pid: Pid(100 + worker as i32) });
    }

    pub(crate) fn spawn_fails(&mut self, worker: u64, failure: SpawnFailure) {
        self.tell(Event::SpawnFailed { worker: WorkerId(worker), failure });
    }

    pub(crate) fn ready(&mut self, worker: u64) {
        self.tell(Event::Ready { worker: WorkerId(worker) });
    }

    pub(crate) fn says(&mut self, worker: u64, word: Word) {
        self.tell(Event::Said { worker: WorkerId(worker), word });
    }

    pub(crate) fn comes_up(&mut self, worker: u64) {
        self.spawned(worker);
        self.ready(worker);
    }

    pub(crate) fn exits(&mut self, worker: u64, exit: Exit) {
        self.running.remove(&worker);
        self.tell(Event::Exited { worker: WorkerId(worker), exit });
    }

    pub(crate) fn nothing_is_left(&mut self) {
        self.tell(Event::Descendants { left: false });
    }

    pub(crate) fn phase(&self) -> Phase {
        self.core.snapshot(self.now).phase
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.core.snapshot(self.now).ready
    }

    /// Whom the last step sent that signal.
    pub(crate) fn sent(&self, wanted: Signal) -> Vec<i32> {
        let pids = self.actions.iter().filter_map(|action| match action {
            Action::Kill { pid, signal, .. } | Action::Stop { pid, signal, .. } if *signal == wanted => {
                Some(pid.0)
            }
            _ => None,
        });
        pids.collect()
    }

    pub(crate) fn swept(&self) -> Option<Signal> {
        self.actions.iter().find_map(|action| match action {
            Action::Sweep { signal } => Some(*signal),
            _ => None,
        })
    }

    /// The slots that the last step spawned into.
    pub(crate) fn spawns(&self) -> Vec<u32> {
        let slots = self.actions.iter().filter_map(|action| match action {
            Action::Spawn { slot, .. } => Some(*slot),
            _ => None,
        });
        slots.collect()
    }

    pub(crate) fn replied(&self, to: u64) -> Option<&Outcome> {
        self.actions.iter().find_map(|action| match action {
            Action::Reply { request, outcome } if request.0 == to => Some(outcome),
            _ => None,
        })
    }

    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.actions.iter().find_map(|action| match action {
            Action::Exit(status) => Some(status.code),
            _ => None,
        })
    }

    /// Everybody left ends so, and nothing outlives them.
    pub(crate) fn drains_with(&mut self, exit: Exit) -> Option<u8> {
        for worker in self.running.clone() {
            self.exits(worker, exit);
        }
        self.nothing_is_left();
        self.exit_code()
    }
}
