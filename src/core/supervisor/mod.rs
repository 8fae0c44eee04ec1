//! The supervisor: routes each event to the part it concerns, then does whatever time has made due.

mod deaths;
mod late;
mod recycling;
mod requests;
mod rolls;
mod shutdown;
mod status;
mod words;

use super::breaker::Breaker;
use super::config::{Config, ReadinessOnDrain};
use super::context::Context;
use super::drain::{Life, Stopping};
use super::event::{Action, Command, Event, Notice, RequestId};
use super::history::History;
use super::late::Late;
use super::lb_wait::{Evidence, LbWaitEnd};
use super::pool::Pool;
use super::roll::Roll;
use super::scales::Scales;
use super::seat::Seat;
use super::snapshot::{Phase, Snapshot, Vitals, WorkerState};
use super::time::Time;
use super::timeline::Timeline;
use super::types::{Generation, Release, Target};
use rolls::Queued;
use status::Endings;

/// The state of everything.
#[derive(Debug)]
pub struct Supervisor {
    ctx: Context,
    life: Life,
    /// [`Event::Start`] has come.
    begun: bool,
    /// Enough workers have been ready once.
    started: bool,
    /// A worker has executed its command once: from here on nothing ends drainit by accident.
    launched: bool,
    pool: Pool,
    breaker: Breaker,
    /// What the pool is, when nobody rolls it.
    target: Target,
    roll: Option<Roll>,
    queued: Option<Queued>,
    last_roll: u64,
    last_generation: Generation,
    history: History,
    timeline: Timeline,
    /// Rolls whose replaced workers have not finished in time, and that are not in the books yet.
    stragglers: Vec<u64>,
    /// Of rolls and recyclings alike: whose answer it is must not be in doubt.
    scales: Scales,
    /// What speaks for the end of the last LB wait.
    lb_wait: Option<Evidence>,
    /// preStop hooks that wait for the end of the LB wait.
    hooks: Vec<RequestId>,
    endings: Endings,
    late: Late,
    told_phase: Phase,
    revision: u64,
}

impl Supervisor {
    /// Nobody is started before [`Event::Start`].
    pub fn new(config: Config) -> Self {
        Self {
            life: Life::Running,
            begun: false,
            started: false,
            launched: false,
            pool: Pool::new(config.workers, Time::ZERO),
            breaker: Breaker::new(config.max_crashes, config.breaker),
            target: Target { release: Release(1), version: config.version.clone() },
            roll: None,
            queued: None,
            last_roll: 0,
            last_generation: Generation(1),
            history: History::default(),
            timeline: Timeline::default(),
            stragglers: Vec::new(),
            scales: Scales::default(),
            lb_wait: None,
            hooks: Vec::new(),
            endings: Endings::default(),
            late: Late::default(),
            told_phase: Phase::Starting,
            revision: 0,
            ctx: Context::new(config),
        }
    }

    /// Take in what happened. Time never runs backwards here, whatever the caller's clock does.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.ctx.now = self.ctx.now.max(now);
        if matches!(self.life, Life::Exited) {
            return;
        }
        // What happens from that moment on finds the pool serving, however late this call is.
        if matches!(&self.life, Life::LameDuck(duck) if duck.return_at.is_some_and(|at| at <= self.ctx.now)) {
            self.return_to_serving();
        }
        // It moves a deadline, and nothing that anybody can see.
        let is_mere_ping = matches!(&event, Event::Said { word, .. } if word.is_mere_ping());
        match event {
            Event::Start => self.begun = true,
            Event::Unavailable { reason } => self.on_unavailable(reason),
            Event::Tick => {}
            Event::Signal { signal, value } => self.on_signal(signal, value),
            Event::Spawned { worker, pid } => {
                self.launched = true;
                self.pool.on_spawned(worker, pid, &mut self.ctx);
            }
            Event::SpawnFailed { worker, failure } => self.on_spawn_failed(worker, failure),
            Event::Ready { worker } => self.pool.on_ready(worker, &mut self.ctx),
            Event::Said { worker, word } => self.on_said(worker, &word),
            Event::Hung { worker, why } => self.on_hung(worker, why),
            Event::Deaf { worker, sure } => self.pool.on_deaf(worker, sure),
            Event::LateAnswered => self.on_late_answered(),
            Event::Retired { worker } => self.pool.on_retired(worker, &mut self.ctx),
            Event::EndedQuietly { worker, why } => self.pool.on_ended_quietly(worker, why, &mut self.ctx),
            Event::Undelivered { worker } => self.pool.on_undelivered(worker, &mut self.ctx),
            Event::Exited { worker, exit } => {
                if let Some(death) = self.pool.on_exited(worker, exit, &mut self.ctx) {
                    self.on_death(&death);
                }
            }
            Event::Weighed { room } => self.scales.on_weighed(room),
            Event::Overweight { worker } => self.pool.on_overweight(worker, &mut self.ctx),
            Event::Observed(seen) => self.on_observed(seen),
            Event::Descendants { left } => self.on_descendants(left),
            Event::Command { command: Command::PreStop, request } => self.on_prestop(request),
            Event::Command { command: Command::Scale(workers), request } => {
                let outcome = self.scale(workers);
                self.ctx.act(Action::Reply { request, outcome });
            }
            Event::Command { command: Command::Roll(order), request } => self.on_roll_ordered(order, request),
            Event::Command { command: Command::Abort, request } => self.on_abort(request),
        }
        self.advance();
        if !is_mere_ping || self.ctx.has_actions() {
            self.revision += 1;
        }
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.ctx.next_action()
    }

    /// When the driver has to come back with a `Tick`, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.life.next_deadline(), self.pool_deadline(), self.roll_deadline()].into_iter().flatten().min()
    }

    /// Counts the events that can be seen; unchanged means that a snapshot would show nothing new.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Who sits in which slot.
    pub fn seats(&self) -> Vec<Seat> {
        self.pool.seats().collect()
    }

    /// The rules it was made with.
    pub fn config(&self) -> &Config {
        &self.ctx.config
    }

    /// Of everything there is to see what probes go by.
    pub fn vitals(&self) -> Vitals {
        Vitals {
            phase: self.phase(),
            ready: self.is_ready(),
            started: self.started,
            breaker: self.breaker.state(self.ctx.now),
            desired: self.pool.desired(),
            ready_workers: self.pool.ready(),
            min_ready: self.min_ready(),
            hung: self.pool.count(WorkerState::Hung),
            starting: self.pool.count(WorkerState::Starting),
        }
    }

    /// Everything there is to see. Ages in it are as of `now`.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        let now = now.max(self.ctx.now);
        Snapshot {
            phase: self.phase(),
            ready: self.is_ready(),
            started: self.started,
            generation: self.pool.edition().generation,
            breaker: self.breaker.state(now),
            breaker_reason: self.breaker.refusal(now).map(|(why, _)| why.to_owned()),
            breaker_reset_seconds: self.breaker.refusal(now).map(|(_, left)| left.as_secs_f64()),
            uptime_seconds: now.since_start().as_secs_f64(),
            desired: self.pool.desired(),
            ready_workers: self.pool.ready(),
            min_ready: self.min_ready(),
            workers: self.pool.views(now),
            roll: self.roll.as_ref().map(|roll| roll.view(self.pool.desired(), self.queued.is_some(), now)),
            rolls: self.history.totals().clone(),
            history: self.history.records(),
            timeline: self.timeline.lifespans(),
            drain: self.life.drain_view(now, self.lb_wait_view(now)),
            counters: self.ctx.counters.clone(),
        }
    }

    /// Where in its life drainit is.
    pub fn phase(&self) -> Phase {
        self.life.phase(self.started)
    }

    fn min_ready(&self) -> u32 {
        self.ctx.config.min_ready.of(self.pool.desired())
    }

    /// Derived, never stored: ready means started, enough workers, and no drain (or one that keeps readiness).
    fn is_ready(&self) -> bool {
        let phase_allows = match self.phase() {
            Phase::Serving => true,
            Phase::LameDuck => self.started && self.ctx.config.readiness_on_drain == ReadinessOnDrain::Keep,
            Phase::Starting | Phase::Draining | Phase::Killing | Phase::Exited => false,
        };
        phase_allows && self.pool.ready() >= self.min_ready()
    }

    /// What the daemon has to keep to be able to start: whatever the pool is, is on its way to, or may go back to.
    pub fn releases(&self) -> Vec<Release> {
        let rolling = self.roll.iter().flat_map(|roll| [roll.from.release, roll.to.release]);
        let queued = self.queued.iter().filter_map(Queued::release);
        rolling.chain(queued).chain([self.target.release]).collect()
    }

    /// What a request builds on that changes only a part.
    pub fn release_ahead(&self) -> Release {
        self.target_ahead().release
    }

    /// Deadlines of rolls, recyclings and the breaker; a drain has none.
    fn roll_deadline(&self) -> Option<Time> {
        match self.life {
            Life::Running | Life::LameDuck(_) => {
                let roll = self.roll.as_ref().and_then(|roll| roll.next_deadline(&self.pool, &self.ctx));
                let breaker = self.breaker.resets_at(self.ctx.now);
                roll.into_iter().chain(breaker).chain(self.recycling_deadline()).min()
            }
            Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => None,
        }
    }

    /// Deadlines of workers and slots; in the sweep there are none left.
    fn pool_deadline(&self) -> Option<Time> {
        match self.life {
            // Slots that are due have to wait.
            Life::Running | Life::LameDuck(_) if !self.begun => None,
            Life::Running | Life::LameDuck(_) | Life::Stopping(_) => self.pool.next_deadline(),
            Life::Sweeping(_) | Life::Exited => None,
        }
    }
}

/// What time brings.
impl Supervisor {
    /// Do everything that is due, until nothing is: a clock that was asleep makes much due at once.
    fn advance(&mut self) {
        loop {
            self.advance_once();
            if self.poll_timeout().is_none_or(|due| due > self.ctx.now) {
                break;
            }
        }
        self.tell_phase();
    }

    fn advance_once(&mut self) {
        if !self.started && self.pool.ready() >= self.min_ready() && matches!(self.life, Life::Running) {
            self.started = true;
        }
        self.advance_life();
        // Exit is the last action of all.
        if matches!(self.life, Life::Exited) {
            return;
        }
        self.mind_watchdogs();
        let (killed, late) = self.pool.fire(&mut self.ctx);
        late.iter().for_each(|late| self.on_late(late));
        self.pool.relieve(&mut self.ctx);
        self.finish_recycling();
        self.advance_roll();
        self.begin_recycling();
        match &mut self.life {
            Life::Running | Life::LameDuck(_) if self.begun => self.pool.fill(&mut self.ctx),
            Life::Running | Life::LameDuck(_) => {}
            Life::Stopping(stopping) => stopping.killing |= killed,
            Life::Sweeping(_) | Life::Exited => {}
        }
        self.sweep_if_gone();
        self.advance_late();
    }

    fn advance_life(&mut self) {
        let now = self.ctx.now;
        match &self.life {
            Life::LameDuck(duck) if duck.return_at.is_none() && duck.span.lb_wait_ends() <= now => {
                self.end_lb_wait(LbWaitEnd::Max);
            }
            Life::Stopping(Stopping { exit_by: Some(at), .. }) if *at <= now => {
                let status = self.stopped_status();
                self.exit(status);
            }
            Life::Stopping(Stopping { exit_by: None, span, .. })
                if span.hard <= now && !self.pool.is_empty() =>
            {
                self.pass_hard_deadline();
            }
            Life::Sweeping(sweeping) if sweeping.kill_at.is_some_and(|at| at <= now) => self.sweep_harder(),
            Life::Sweeping(sweeping) if sweeping.exit_by <= now => self.finish_sweep(),
            Life::Running | Life::LameDuck(_) | Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => {}
        }
    }

    fn tell_phase(&mut self) {
        let phase = self.phase();
        if phase != self.told_phase {
            self.ctx.tell(Notice::PhaseChanged { from: self.told_phase, to: phase });
            self.told_phase = phase;
        }
    }
}
