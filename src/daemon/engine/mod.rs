//! Performs what the core wants and tells it what happened. Knows no event loop: whoever turns it does.

mod actions;
mod census;
mod ending;
mod late;
mod looking;
mod messages;
mod observing;
mod reaping;
mod refusing;
mod rolls;
mod steering;
mod watching;
mod weighing;
mod words;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::adoption::Adoption;
use super::clock::Clock;
use super::job_control::JobControl;
use super::late::Late;
use super::launcher::Launcher;
use super::notices;
use crate::admin::{Request, Stats};
use crate::config::values::{NodeIpc, ReadyWhen, StopMessage};
use crate::config::{Config, Health, LateAnswer};
use crate::core::Supervisor;
use crate::core::config::{Kind, MAX_WORKERS};
use crate::core::event::{Command, Event, Notice, Outcome, RequestId};
use crate::core::signal::Signal;
use crate::core::snapshot::{Snapshot, Vitals};
use crate::core::time::Time;
use crate::core::types::{ExitStatus, Pid, Scope, WorkerId};
use crate::sys::channel::Channel;
use crate::sys::memory::OomKills;
use crate::sys::orphans::Member;
use crate::sys::signals::Received;
use crate::sys::{cgroup, kill, stderr};

use census::Census;
use ending::Endings;
use looking::Looks;
use observing::Observing;
use steering::Retiring;
use weighing::Scales;
use words::Ear;
pub(super) use words::Heard;
use workers::Worker;
pub(super) use workers::{Answered, Newcomer};

/// During a sweep: who was put into the container from outside (`kubectl exec`) has a parent there, and its death is
/// told to nobody here.
const LOOK_FOR_GUESTS: Duration = Duration::from_millis(20);

pub(super) struct Engine {
    core: Supervisor,
    clock: Clock,
    launcher: Launcher,
    scales: Scales,
    ready_when: ReadyWhen,
    health: Option<Health>,
    scale_with_quota: bool,
    /// As many as the pool was last made for.
    processors: u32,
    events: VecDeque<Event>,
    /// Everybody we have started and not reaped; who is in neither is an orphan.
    children: BTreeMap<Pid, WorkerId>,
    checks: BTreeMap<Pid, Check>,
    workers: BTreeMap<WorkerId, Worker>,
    node_ipc: NodeIpc,
    stop_message: Option<StopMessage>,
    end_idle_after: Option<Duration>,
    /// Our ends, for as long as the worker lives.
    channels: BTreeMap<WorkerId, Arc<Channel>>,
    /// Where they can say how they are.
    ears: BTreeMap<WorkerId, Ear>,
    looks: Looks,
    /// For the event loop: whose readiness to find out, and whose no more.
    pub(super) newcomers: Vec<Newcomer>,
    pub(super) departed: Vec<WorkerId>,
    /// Who has become ready, and is to be checked from now on.
    pub(super) serving: Vec<WorkerId>,
    replies: BTreeMap<RequestId, oneshot::Sender<Outcome>>,
    last_request: u64,
    /// What outlived its worker in its process group, and when that is killed.
    remnants: Vec<(Time, Vec<Member>)>,
    /// Who serves its own queue, and is told to stop when that is empty.
    retiring: Vec<Retiring>,
    /// Who is to be ended at a quiet moment.
    endings: Endings,
    census: Census,
    /// What connections get that no worker accepts any more; and those that are being answered.
    late_answer: Option<LateAnswer>,
    late: Option<Late>,
    late_has_begun: bool,
    /// While load balancers let go.
    observing: Option<Observing>,
    /// The state of the core by which connections are steered.
    steered: Option<u64>,
    steering_failed: bool,
    job_control: JobControl,
    adoption: Adoption,
    oom_kills: OomKills,
    /// What could not be had, to be told once there is a log.
    pub(super) missing: Vec<String>,
    /// Everything is being killed: whoever turns up now goes too.
    sweeping: Option<Signal>,
    /// When to look whether somebody is left whose death nobody tells.
    look_at: Option<Time>,
    /// Told before there was a log.
    early: Option<Vec<Notice>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    published: u64,
    /// What probes go by, as it was published.
    vitals: Option<Vitals>,
    stats: Arc<Stats>,
    exit: Option<ExitStatus>,
}

struct Check {
    reply: oneshot::Sender<bool>,
    kill_at: Option<Time>,
}

impl Engine {
    pub(super) fn new(config: Config, launcher: Launcher) -> Self {
        let core = Supervisor::new(config.core);
        let clock = Clock::start();
        let snapshot = watch::Sender::new(Arc::new(core.snapshot(clock.now())));
        Self {
            clock,
            job_control: JobControl::new(core.config().kind, launcher.terminal()),
            launcher,
            scales: Scales::new(config.max_rss),
            ready_when: config.ready_when,
            health: config.health,
            scale_with_quota: config.scale_with_quota,
            processors: core.config().workers,
            events: VecDeque::new(),
            children: BTreeMap::new(),
            checks: BTreeMap::new(),
            workers: BTreeMap::new(),
            node_ipc: config.node_ipc,
            stop_message: config.stop_message,
            end_idle_after: config.end_idle_after,
            channels: BTreeMap::new(),
            ears: BTreeMap::new(),
            looks: Looks::default(),
            newcomers: Vec::new(),
            departed: Vec::new(),
            serving: Vec::new(),
            retiring: Vec::new(),
            endings: Endings::default(),
            census: Census::default(),
            late_answer: config.late,
            late: None,
            late_has_begun: false,
            observing: None,
            steered: None,
            steering_failed: false,
            replies: BTreeMap::new(),
            last_request: 0,
            remnants: Vec::new(),
            adoption: Adoption::default(),
            oom_kills: OomKills::default(),
            missing: Vec::new(),
            sweeping: None,
            look_at: None,
            early: Some(Vec::new()),
            snapshot,
            published: 0,
            vitals: None,
            stats: Arc::default(),
            exit: None,
            core,
        }
    }

    /// Tell the core what happened, and do what it wants.
    pub(super) fn feed(&mut self, event: Event) {
        self.events.push_back(event);
        self.settle();
    }

    /// Until the core wants no more. The answer to an action comes before the next action: after a first spawn that
    /// failed there is no second.
    fn settle(&mut self) {
        while self.exit.is_none() {
            if let Some(event) = self.events.pop_front() {
                self.core.handle(self.clock.now(), event);
            } else if let Some(action) = self.core.poll_action() {
                self.perform(action);
            } else {
                break;
            }
        }
        if self.steered != Some(self.core.revision()) && self.launcher.sockets.wants_to_follow() {
            self.steer();
        }
    }

    /// The quota may have changed, by an in-place resize of the pod: then the pool does too. What somebody has asked for
    /// since is left alone until it changes again.
    pub(super) fn follow_quota(&mut self) {
        let processors = cgroup::processors().min(MAX_WORKERS);
        if std::mem::replace(&mut self.processors, processors) != processors {
            self.command(Command::Scale(processors), None);
        }
    }

    pub(super) fn follows_quota(&self) -> bool {
        self.scale_with_quota
    }

    /// The signals that have arrived, in their order.
    pub(super) fn take_signals(&mut self, signals: &[Received]) {
        for Received { signal, own, value } in signals {
            if !own && *signal != Signal::CHLD {
                self.feed(Event::Signal { signal: *signal, value: *value });
            }
        }
    }

    /// Do what time has made due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        for (pid, check) in &mut self.checks {
            if check.kill_at.is_some_and(|at| at <= now) {
                check.kill_at = None;
                let _ = kill::send(*pid, Signal::KILL, Scope::Group, None);
            }
        }
        for (_, members) in self.remnants.extract_if(.., |(kill_at, _)| *kill_at <= now) {
            members.iter().for_each(Member::kill);
        }
        self.look_at_due(now);
        self.look_at_retiring(now);
        self.look_for_the_overweight(now);
        self.look_for_quiet(now);
        self.go_on_counting(now);
        self.tell_progress(now);
        self.look_at_late(now);
        self.look_for_load_balancers(now);
        if let Some(signal) = self.sweeping.filter(|_| self.look_at.is_some_and(|at| at <= now)) {
            self.look_at = Some(now + LOOK_FOR_GUESTS);
            self.check_sweep(signal);
        }
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.hear_everybody();
            self.feed(Event::Tick);
        }
    }

    /// When [`Engine::tick`] wants to be called.
    pub(super) fn next_tick(&self) -> Option<Time> {
        let checks = self.checks.values().filter_map(|check| check.kill_at);
        checks
            .chain(self.remnants.iter().map(|(kill_at, _)| *kill_at))
            .chain(self.look_at)
            .chain(self.scales.next_look())
            .chain(self.looks.next_look())
            .chain(self.retiring.iter().map(Retiring::due))
            .chain(self.endings.next_look())
            .chain(self.census.next_look())
            .chain(self.late.as_ref().map(Late::due))
            .chain(self.observing.as_ref().and_then(Observing::due))
            .chain(self.core.poll_timeout())
            .min()
    }

    /// Something from the admin port or the control socket.
    pub(super) fn take_request(&mut self, request: Request) {
        match request {
            Request::Command { command, reply } => self.command(command, Some(reply)),
            Request::Restart { order, reply } => self.take_restart(&order, reply),
            Request::Refresh { connections, reply } => {
                self.look_at_workers();
                if connections {
                    return self.count_for(reply);
                }
                self.publish();
                let _ = reply.send(());
            }
        }
    }

    /// Show the newest state, where probes would answer differently by it. Everybody else asks for a fresh one.
    pub(super) fn publish_changes(&mut self) {
        if self.published != self.core.revision() {
            self.published = self.core.revision();
            let vitals = self.core.vitals();
            if self.vitals.as_ref() != Some(&vitals) {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        self.published = self.core.revision();
        self.vitals = Some(self.core.vitals());
        self.stats.log_lines_dropped.store(stderr::dropped(), Ordering::Relaxed);
        let mut snapshot = self.core.snapshot(self.clock.now());
        for worker in &mut snapshot.workers {
            let known = self.workers.get(&worker.id);
            worker.socket = known.map_or("", |known| known.socket);
            worker.version = known.and_then(|known| known.version.clone());
            worker.connections = self.census.connections(worker.id);
        }
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    pub(super) fn log_is_up(&mut self) {
        let kind = self.core.config().kind;
        self.early.take().unwrap_or_default().iter().for_each(|notice| notices::tell(notice, kind));
        self.missing.drain(..).for_each(|what| tracing::warn!("{what}"));
    }

    /// The first worker runs already: what this costs delays nobody.
    pub(super) fn watch_memory(&mut self) {
        self.oom_kills = OomKills::watch();
    }

    pub(super) fn leave_start_directory(&self) {
        if self.launcher.can_come_back() {
            crate::sys::process::leave_start_directory();
        }
    }

    pub(super) fn restore_terminal(&mut self) {
        self.job_control.restore();
    }

    pub(super) fn exit_status(&self) -> Option<&ExitStatus> {
        self.exit.as_ref()
    }

    pub(super) fn is_init_only(&self) -> bool {
        self.core.config().kind == Kind::Single
    }

    pub(super) fn budget(&self) -> Duration {
        self.core.config().budget()
    }

    pub(super) fn worker_pids(&self) -> Vec<Pid> {
        self.workers.values().map(|worker| worker.pid).collect()
    }

    pub(super) fn core(&self) -> &Supervisor {
        &self.core
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn ready_when(&self) -> &ReadyWhen {
        &self.ready_when
    }

    pub(super) fn late_answer(&self) -> Option<&LateAnswer> {
        self.late_answer.as_ref()
    }

    pub(super) fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    pub(super) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    pub(super) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }
}
