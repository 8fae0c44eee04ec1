//! The supervisor: routes each event to the part it concerns, then does whatever time has made due.

use std::time::Duration;

use super::breaker::Breaker;
use super::config::{Config, Kind, MAX_WORKERS, PRESTOP_RETURN, ReadinessOnDrain, Restart};
use super::context::Context;
use super::drain::{LameDuck, Life, SWEEP_PATIENCE, Span, Stopping, Sweeping, Verdict};
use super::event::{Action, Command, Event, Notice, Outcome, RequestId, SpawnFailure, Trigger};
use super::pool::{Death, FailedSpawn, Pool};
use super::signal::{Disposition, Signal};
use super::snapshot::{BreakerState, Phase, Snapshot};
use super::time::Time;
use super::types::{Exit, ExitStatus, SlotIndex, WorkerId, code};

/// The state of everything.
#[derive(Debug)]
pub struct Supervisor {
    ctx: Context,
    life: Life,
    /// Enough workers have been ready once.
    started: bool,
    /// A worker has executed its command once: from here on nothing ends drainit by accident.
    launched: bool,
    pool: Pool,
    breaker: Breaker,
    /// preStop hooks that wait for the end of the LB wait.
    hooks: Vec<RequestId>,
    endings: Endings,
    told_phase: Phase,
    revision: u64,
}

/// How workers that are not replaced ended, for the exit code.
#[derive(Debug, Default)]
struct Endings {
    last: Option<(SlotIndex, Exit)>,
    first_failure: Option<(SlotIndex, Exit)>,
}

impl Supervisor {
    /// Nothing happens before [`Event::Start`].
    pub fn new(config: Config) -> Self {
        Self {
            life: Life::Running,
            started: false,
            launched: false,
            pool: Pool::new(config.workers, Time::ZERO),
            breaker: Breaker::new(config.max_crashes),
            hooks: Vec::new(),
            endings: Endings::default(),
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
        match event {
            Event::Start | Event::Tick => {}
            Event::Signal { signal, value } => self.on_signal(signal, value),
            Event::Spawned { worker, pid } => {
                self.launched = true;
                self.pool.on_spawned(worker, pid, &mut self.ctx);
            }
            Event::SpawnFailed { worker, failure } => self.on_spawn_failed(worker, failure),
            Event::Ready { worker } => self.pool.on_ready(worker, &mut self.ctx),
            Event::Exited { worker, exit } => {
                if let Some(death) = self.pool.on_exited(worker, exit, &mut self.ctx) {
                    self.on_death(&death);
                }
            }
            Event::Descendants { left } => self.on_descendants(left),
            Event::Command { command: Command::PreStop, request } => self.on_prestop(request),
            Event::Command { command: Command::Scale(workers), request } => {
                let outcome = self.scale(workers);
                self.ctx.act(Action::Reply { request, outcome });
            }
        }
        self.advance();
        self.revision += 1;
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.ctx.next_action()
    }

    /// When the driver has to come back with a `Tick`, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.life.next_deadline(), self.pool_deadline()].into_iter().flatten().min()
    }

    /// Counts the events taken in; unchanged means that a snapshot would show nothing new.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rules it was made with.
    pub fn config(&self) -> &Config {
        &self.ctx.config
    }

    /// Everything there is to see. Ages in it are as of `now`.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        let now = now.max(self.ctx.now);
        Snapshot {
            phase: self.phase(),
            ready: self.is_ready(),
            started: self.started,
            generation: self.pool.generation(),
            breaker: self.breaker.state(now),
            uptime_seconds: now.since_start().as_secs_f64(),
            desired: self.pool.desired(),
            ready_workers: self.pool.ready(),
            min_ready: self.min_ready(),
            workers: self.pool.views(now),
            drain: self.life.drain_view(now),
            counters: self.ctx.counters.clone(),
        }
    }

    fn phase(&self) -> Phase {
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

    /// Deadlines of workers and slots; in the sweep there are none left.
    fn pool_deadline(&self) -> Option<Time> {
        match self.life {
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
        let killed = self.pool.fire(&mut self.ctx);
        match &mut self.life {
            Life::Running | Life::LameDuck(_) => self.pool.fill(&mut self.ctx),
            Life::Stopping(stopping) => stopping.killing |= killed,
            Life::Sweeping(_) | Life::Exited => {}
        }
        self.sweep_if_gone();
    }

    fn advance_life(&mut self) {
        let now = self.ctx.now;
        match &self.life {
            Life::LameDuck(duck) if duck.return_at.is_some_and(|at| at <= now) => self.return_to_serving(),
            Life::LameDuck(duck) if duck.return_at.is_none() && duck.span.lb_wait_ends() <= now => {
                self.end_lb_wait("its time is up");
            }
            Life::Stopping(stopping) if stopping.span.exit_by() <= now => {
                let status = self.stopped_status();
                self.exit(status);
            }
            Life::Stopping(stopping) if stopping.span.hard <= now && !stopping.past_hard => {
                self.pass_hard_deadline()
            }
            Life::Sweeping(sweeping) if sweeping.kill_at.is_some_and(|at| at <= now) => self.sweep_harder(),
            Life::Sweeping(sweeping) if sweeping.exit_by <= now => {
                let status = sweeping.status.clone();
                self.exit(status);
            }
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

/// What signals and commands bring.
impl Supervisor {
    fn on_signal(&mut self, signal: Signal, value: Option<u64>) {
        match self.ctx.config.signals.get(signal) {
            Disposition::Forward => self.pool.forward(signal, value, &mut self.ctx),
            Disposition::Rewrite(other) => self.pool.forward(other, value, &mut self.ctx),
            Disposition::Ignore => self.ctx.tell(Notice::SignalIgnored { signal }),
            Disposition::Drain => self.on_drain_signal(signal),
            Disposition::ScaleUp => self.scale_by_signal(self.pool.desired().saturating_add(1)),
            Disposition::ScaleDown => self.scale_by_signal(self.pool.desired().saturating_sub(1).max(1)),
        }
    }

    fn on_drain_signal(&mut self, signal: Signal) {
        match self.life {
            Life::Running if signal == Signal::INT => {
                let span = self.plan(Trigger::Signal(signal), Duration::ZERO);
                self.stop(span, Signal::INT, Verdict::Drained);
            }
            Life::Running => self.start_lb_wait(Trigger::Signal(signal)),
            Life::LameDuck(ref mut duck) => {
                duck.advice = false;
                self.end_lb_wait("a signal ended it");
            }
            // To many servers the second one means 'faster'.
            Life::Stopping(_) => self.pool.forward(signal, None, &mut self.ctx),
            Life::Sweeping(_) | Life::Exited => {}
        }
    }

    fn on_prestop(&mut self, request: RequestId) {
        self.ctx.counters.prestop_calls += 1;
        match &mut self.life {
            Life::Running => {
                self.hooks.push(request);
                self.start_lb_wait(Trigger::PreStop);
            }
            Life::LameDuck(LameDuck { return_at: None, .. }) => self.hooks.push(request),
            Life::LameDuck(LameDuck { return_at, .. }) => {
                *return_at = Some(self.ctx.now + PRESTOP_RETURN);
                self.answer_hook(request, "the load balancer wait is over already");
            }
            Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => {
                self.answer_hook(request, "draining already")
            }
        }
    }

    fn answer_hook(&mut self, request: RequestId, text: &str) {
        self.ctx.act(Action::Reply { request, outcome: Outcome::Done(text.to_owned()) });
    }

    fn answer_hooks(&mut self, text: &str) {
        for request in std::mem::take(&mut self.hooks) {
            self.answer_hook(request, text);
        }
    }

    fn scale_by_signal(&mut self, workers: u32) {
        if let Outcome::Refused(reason) = self.scale(workers) {
            self.ctx.tell(Notice::ScaleRefused { reason });
        }
    }

    fn scale(&mut self, workers: u32) -> Outcome {
        if self.ctx.config.kind == Kind::Single {
            return Outcome::Refused("not a pool: it has one worker and no --listen".to_owned());
        }
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Outcome::Refused(format!("{workers} workers cannot be; takes 1 to {MAX_WORKERS}"));
        }
        if !matches!(self.life, Life::Running) {
            return Outcome::Refused(format!(
                "the pool is {} and is not resized any more",
                self.phase().name()
            ));
        }
        let old = self.pool.desired();
        if workers != old {
            self.pool.resize(workers, &mut self.ctx);
        }
        Outcome::Done(format!("{old} -> {workers} workers"))
    }
}

/// What the workers bring.
impl Supervisor {
    fn on_spawn_failed(&mut self, worker: WorkerId, failure: SpawnFailure) {
        let Some(failed) = self.pool.on_spawn_failed(worker, failure, &mut self.ctx) else { return };
        if !self.launched {
            self.refuse_to_start(&failed);
            return;
        }
        if failed.asked || self.is_ending() {
            return;
        }
        let FailedSpawn { slot, failure, .. } = failed;
        // A refusal of the system passes; that the command is gone is a crash like any other.
        let crashed = !matches!(failure, SpawnFailure::System(_));
        let retry = self.pool.replace(slot, false, &mut self.ctx);
        let reason = failure.reason().to_owned();
        self.ctx.tell(Notice::SpawnFailed { slot, failure, retry });
        if crashed {
            self.record_crash(slot, &reason);
        }
    }

    /// The very first start failed: nothing has been started, and drainit says why and ends.
    fn refuse_to_start(&mut self, failed: &FailedSpawn) {
        let code = match failed.failure {
            SpawnFailure::NotFound(_) => code::NOT_FOUND,
            SpawnFailure::CannotExecute(_) => code::CANNOT_EXECUTE,
            SpawnFailure::System(_) => code::OS,
        };
        self.ctx.recall_spawns();
        self.exit(ExitStatus { code, reason: failed.failure.reason().to_owned() });
    }

    fn on_death(&mut self, death: &Death) {
        if self.is_ending() {
            self.endings.add(death);
            return;
        }
        if death.asked {
            return;
        }
        let failed = death.late || !death.exit.is_success();
        let replaced = match self.ctx.config.restart {
            Restart::Always => true,
            Restart::OnFailure => failed,
            Restart::Never => false,
        };
        if !replaced {
            self.endings.add(death);
            return;
        }
        let counter = match (death.late, failed) {
            (true, _) => &mut self.ctx.counters.restarts_late,
            (false, true) => &mut self.ctx.counters.restarts_crash,
            (false, false) => &mut self.ctx.counters.restarts_exit,
        };
        *counter += 1;
        if let Some(delay) = self.pool.replace(death.slot, death.healthy, &mut self.ctx) {
            let deaths = self.pool.deaths(death.slot);
            self.ctx.tell(Notice::WorkerReplaced { slot: death.slot, delay, deaths });
        }
        if !death.healthy {
            let what = if death.late { "was not ready in time".to_owned() } else { death.exit.to_string() };
            self.record_crash(death.slot, &what);
        }
    }

    /// One more crash; where they are too many and nobody serves, the orchestrator's own back-off takes over.
    fn record_crash(&mut self, slot: SlotIndex, what: &str) {
        let now = self.ctx.now;
        let before = self.breaker.state(now);
        self.breaker.record(now);
        let (BreakerState::Open, Some(limit)) = (self.breaker.state(now), self.breaker.limit()) else {
            return;
        };
        if before == BreakerState::Closed {
            self.ctx.tell(Notice::BreakerOpen { crashes: limit.count + 1, window: limit.window });
        }
        if self.pool.ready() == 0 && matches!(self.life, Life::Running) {
            let reason = format!(
                "workers keep crashing: more than {} in {:?}; the last in slot {slot} {what}",
                limit.count, limit.window
            );
            let span = self.plan(Trigger::CrashLoop, Duration::ZERO);
            self.stop(span, self.ctx.config.stop_signal, Verdict::CrashLoop(reason));
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.life, Life::Stopping(_) | Life::Sweeping(_) | Life::Exited)
    }
}

/// The drain, step by step.
impl Supervisor {
    /// Lay out a drain that begins now, and say so.
    fn plan(&mut self, trigger: Trigger, lb_wait: Duration) -> Span {
        let span = Span::new(trigger, self.ctx.now, lb_wait, &self.ctx.config);
        let plan = span.plan(self.ctx.now, &self.ctx.config);
        self.ctx.tell(Notice::DrainPlanned(plan));
        span
    }

    fn start_lb_wait(&mut self, trigger: Trigger) {
        let span = self.plan(trigger, self.ctx.config.effective_lb_wait().max);
        self.life = Life::LameDuck(LameDuck { span, advice: trigger == Trigger::PreStop, return_at: None });
        if span.lb_wait.is_zero() {
            self.end_lb_wait("there is none");
        }
    }

    /// After a signal the workers stop now; after a preStop hook they do once the signal comes.
    fn end_lb_wait(&mut self, why: &'static str) {
        let now = self.ctx.now;
        let Life::LameDuck(duck) = &mut self.life else { return };
        let span = duck.span;
        if duck.return_at.is_none() {
            self.ctx.tell(Notice::LbWaitOver { waited: now.since(span.began), why });
        }
        if duck.advice {
            duck.return_at = Some(now + PRESTOP_RETURN);
        } else {
            self.stop(span, self.ctx.config.stop_signal, Verdict::Drained);
        }
        self.answer_hooks("the load balancer wait is over");
    }

    /// No SIGTERM followed the preStop hook: the hook is advice.
    fn return_to_serving(&mut self) {
        self.life = Life::Running;
        self.ctx.counters.prestop_returns += 1;
        self.ctx.tell(Notice::BackToServing);
    }

    fn stop(&mut self, span: Span, signal: Signal, verdict: Verdict) {
        let now = self.ctx.now;
        let deadline = span.workers_deadline(now, &self.ctx.config);
        self.ctx.tell(Notice::Stopping { workers: self.pool.len(), signal, patience: deadline.since(now) });
        self.pool.stop_filling();
        self.pool.stop_all(signal, deadline, &mut self.ctx);
        self.life = Life::Stopping(Stopping { span, killing: false, past_hard: false, verdict });
    }

    fn pass_hard_deadline(&mut self) {
        let Life::Stopping(stopping) = &mut self.life else { return };
        stopping.past_hard = true;
        stopping.killing = true;
        self.ctx.counters.hard_deadlines += 1;
        self.ctx.tell(Notice::HardDeadline);
        self.pool.kill_all(&mut self.ctx);
        self.ctx.act(Action::Sweep { signal: Signal::KILL });
    }

    /// The last worker is gone, and there will be no other.
    fn sweep_if_gone(&mut self) {
        match &self.life {
            Life::Stopping(stopping) if self.pool.is_empty() => {
                let (span, past_hard) = (stopping.span, stopping.past_hard);
                let status = self.stopped_status();
                self.sweep(Some(span), status, past_hard);
            }
            Life::Running if self.pool.is_finished() => self.sweep(None, self.finished_status(), false),
            Life::LameDuck(duck) if self.pool.is_finished() => {
                self.sweep(Some(duck.span), self.finished_status(), false)
            }
            Life::Running | Life::LameDuck(_) | Life::Stopping(_) | Life::Sweeping(_) | Life::Exited => {}
        }
    }

    /// TERM, and after `--orphan-grace` KILL, for whatever outlived the workers.
    fn sweep(&mut self, span: Option<Span>, status: ExitStatus, past_hard: bool) {
        let now = self.ctx.now;
        let grace_ends = now + self.ctx.config.orphan_grace;
        let kill_at = span.map_or(grace_ends, |span| span.hard.min(grace_ends)).max(now);
        let patience_ends = kill_at + SWEEP_PATIENCE;
        let exit_by = span.map_or(patience_ends, |span| span.exit_by().min(patience_ends));
        let at_once = past_hard || kill_at == now;
        let killing = self.phase() == Phase::Killing;
        let kill_at = (!at_once).then_some(kill_at);
        self.life = Life::Sweeping(Sweeping { span, kill_at, exit_by, killing, status });
        self.ctx.act(Action::Sweep { signal: if at_once { Signal::KILL } else { Signal::TERM } });
    }

    fn sweep_harder(&mut self) {
        let Life::Sweeping(sweeping) = &mut self.life else { return };
        sweeping.kill_at = None;
        sweeping.killing = true;
        self.ctx.counters.orphan_timeouts += 1;
        self.ctx.tell(Notice::SweepKilled);
        self.ctx.act(Action::Sweep { signal: Signal::KILL });
    }

    fn on_descendants(&mut self, left: bool) {
        if let (false, Life::Sweeping(sweeping)) = (left, &self.life) {
            let status = sweeping.status.clone();
            self.exit(status);
        }
    }

    fn exit(&mut self, status: ExitStatus) {
        self.answer_hooks("drained");
        self.life = Life::Exited;
        self.tell_phase();
        let code = self.ctx.config.remap_exit.get(&status.code).copied().unwrap_or(status.code);
        self.ctx.act(Action::Exit(ExitStatus { code, ..status }));
    }
}

/// The exit code and its reason.
impl Supervisor {
    /// After a stop.
    fn stopped_status(&self) -> ExitStatus {
        let Life::Stopping(stopping) = &self.life else { return self.finished_status() };
        let took = self.ctx.now.since(stopping.span.began).as_secs_f64();
        match &stopping.verdict {
            Verdict::CrashLoop(reason) => ExitStatus { code: code::CRASH_LOOP, reason: reason.clone() },
            Verdict::Drained if stopping.killing => ExitStatus {
                code: code::DEADLINE,
                reason: format!(
                    "a worker had to be killed in the drain, {took:.1} s after {}",
                    stopping.span.trigger
                ),
            },
            Verdict::Drained => {
                let status = self.finished_status();
                ExitStatus {
                    reason: format!(
                        "drained in {took:.1} s after {}: {}",
                        stopping.span.trigger, status.reason
                    ),
                    ..status
                }
            }
        }
    }

    /// After the last worker's end.
    fn finished_status(&self) -> ExitStatus {
        let telling = if self.ctx.config.mirrors_exit() {
            self.endings.last
        } else if self.ctx.config.restart == Restart::Never {
            self.endings.first_failure
        } else {
            None
        };
        telling.map_or_else(
            || ExitStatus { code: 0, reason: "every worker has finished".to_owned() },
            |(slot, exit)| ExitStatus { code: exit.code(), reason: format!("worker {slot} {exit}") },
        )
    }
}

impl Endings {
    fn add(&mut self, death: &Death) {
        let ending = (death.slot, death.exit);
        self.last = Some(ending);
        if !death.exit.is_success() {
            self.first_failure.get_or_insert(ending);
        }
    }
}
