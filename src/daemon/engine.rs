//! Performs what the core wants and tells it what happened. Knows no event loop: whoever turns it does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::adoption::{Adoption, Told};
use super::clock::Clock;
use super::job_control::JobControl;
use super::launcher::Launcher;
use super::notices;
use crate::admin::{Request, Stats};
use crate::config::Config;
use crate::config::values::ReadyWhen;
use crate::core::Supervisor;
use crate::core::config::{Kind, MAX_WORKERS};
use crate::core::event::{Action, Command, Event, Notice, Outcome, RequestId, SpawnFailure};
use crate::core::signal::Signal;
use crate::core::snapshot::Snapshot;
use crate::core::time::Time;
use crate::core::types::{Exit, ExitStatus, Generation, Pid, Scope, SlotIndex, WorkerId};
use crate::sys::accepting::{self, Sight};
use crate::sys::notify::NotifySocket;
use crate::sys::orphans::{self, Member};
use crate::sys::reap::{self, Change, Children};
use crate::sys::seccomp::Notifier;
use crate::sys::signals::Received;
use crate::sys::spawn::Started;
use crate::sys::{cgroup, descriptors, kill, process, stderr};

/// The dead that are reaped in one turn.
const REAPED_AT_ONCE: usize = 256;

/// During a sweep: who was put into the container from outside (`kubectl exec`) has a parent there, and its death is
/// told to nobody here.
const LOOK_FOR_GUESTS: Duration = Duration::from_millis(20);

/// Descriptors that are not for workers: the event loop's, the sockets', the connections' of probes.
const DESCRIPTORS_KEPT: i32 = 32;

/// The calls of one worker that are answered in one turn.
const CALLS_AT_ONCE: usize = 64;

/// An exec check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    core: Supervisor,
    clock: Clock,
    launcher: Launcher,
    ready_when: ReadyWhen,
    scale_with_quota: bool,
    /// As many as the pool was last made for.
    processors: u32,
    events: VecDeque<Event>,
    /// Everybody we have started and not reaped; who is not here is an orphan.
    children: BTreeMap<Pid, Child>,
    workers: BTreeMap<WorkerId, Worker>,
    /// For the event loop: whose readiness to find out, and whose no more.
    pub(super) newcomers: Vec<Newcomer>,
    pub(super) departed: Vec<WorkerId>,
    replies: BTreeMap<RequestId, oneshot::Sender<Outcome>>,
    last_request: u64,
    /// What outlived its worker in its process group, and when that is killed.
    remnants: Vec<(Time, Vec<Member>)>,
    job_control: JobControl,
    adoption: Adoption,
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
    stats: Arc<Stats>,
    exit: Option<ExitStatus>,
}

enum Child {
    Worker(WorkerId),
    Check(Check),
}

struct Check {
    reply: oneshot::Sender<bool>,
    kill_at: Option<Time>,
}

#[derive(Clone, Copy)]
struct Worker {
    pid: Pid,
    slot: SlotIndex,
    ready: bool,
    /// How it got its sockets.
    socket: &'static str,
}

/// How many of a worker's calls have been answered.
pub(super) enum Answered {
    All,
    /// There may be more.
    Some,
    /// There will never be another.
    Last,
}

/// A worker whose readiness is to be found out.
pub(super) struct Newcomer {
    pub(super) worker: WorkerId,
    pub(super) pid: Pid,
    pub(super) slot: SlotIndex,
    pub(super) notify: Option<NotifySocket>,
    /// Who is asked about its sockets.
    pub(super) notifier: Option<Notifier>,
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
            ready_when: config.ready_when,
            scale_with_quota: config.scale_with_quota,
            processors: core.config().workers,
            events: VecDeque::new(),
            children: BTreeMap::new(),
            workers: BTreeMap::new(),
            newcomers: Vec::new(),
            departed: Vec::new(),
            replies: BTreeMap::new(),
            last_request: 0,
            remnants: Vec::new(),
            adoption: Adoption::default(),
            missing: Vec::new(),
            sweeping: None,
            look_at: None,
            early: Some(Vec::new()),
            snapshot,
            published: 0,
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
    }

    /// The quota may have changed, by an in-place resize of the pod: then the pool does too. What somebody has asked for
    /// since is left alone until it changes again.
    pub(super) fn follow_quota(&mut self) {
        let processors = cgroup::processors().min(MAX_WORKERS);
        if std::mem::replace(&mut self.processors, processors) != processors {
            self.last_request += 1;
            let request = RequestId(self.last_request);
            self.feed(Event::Command { command: Command::Scale(processors), request });
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

    /// Reap whoever is dead. Called at every turn: a SIGCHLD that coalesced costs latency, never a zombie. Says
    /// whether there may be more: a fork bomb's dead must not keep signals and deadlines waiting.
    pub(super) fn reap(&mut self) -> bool {
        let reaped = self.collect_dead();
        self.settle();
        if reaped > 0 && self.exit.is_none() {
            self.remnants.retain(|(_, members)| members.iter().any(Member::is_alive));
            if let Some(signal) = self.sweeping {
                self.check_sweep(signal);
            }
        }
        reaped == REAPED_AT_ONCE
    }

    /// Reap, and note what the core has to be told.
    fn collect_dead(&mut self) -> usize {
        let mut reaped = 0;
        while reaped < REAPED_AT_ONCE
            && let Children::Changed(change) = reap::look(self.job_control.is_active())
        {
            reaped += 1;
            match change {
                Change::Exited(pid) => self.bury(pid),
                Change::Stopped(pid, by) => {
                    if matches!(self.children.get(&pid), Some(Child::Worker(_))) {
                        self.job_control.on_stopped(pid, by);
                    }
                }
            }
        }
        reaped
    }

    fn bury(&mut self, pid: Pid) {
        let child = self.children.remove(&pid);
        if let Some(Child::Worker(_)) = child {
            // Its group has its number for as long as it is a zombie: now its helpers can be told safely.
            let _ = kill::send_to_group(pid, Signal::TERM);
        }
        let Some(exit) = reap::reap(pid) else { return };
        match child {
            Some(Child::Worker(worker)) => {
                self.job_control.on_exited(pid);
                self.workers.remove(&worker);
                self.departed.push(worker);
                if kill::group_exists(pid) {
                    let kill_at = self.clock.now() + self.core.config().orphan_grace;
                    self.remnants.push((kill_at, orphans::members_of(pid)));
                }
                self.events.push_back(Event::Exited { worker, exit });
            }
            Some(Child::Check(check)) => {
                let _ = check.reply.send(exit == Exit::Code(0));
            }
            None => Stats::count(&self.stats.orphans_reaped),
        }
    }

    /// Do what time has made due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        for (pid, child) in &mut self.children {
            if let Child::Check(check) = child
                && check.kill_at.is_some_and(|at| at <= now)
            {
                check.kill_at = None;
                let _ = kill::send(*pid, Signal::KILL, Scope::Group, None);
            }
        }
        for (_, members) in self.remnants.extract_if(.., |(kill_at, _)| *kill_at <= now) {
            members.iter().for_each(Member::kill);
        }
        if let Some(signal) = self.sweeping.filter(|_| self.look_at.is_some_and(|at| at <= now)) {
            self.look_at = Some(now + LOOK_FOR_GUESTS);
            self.check_sweep(signal);
        }
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.feed(Event::Tick);
        }
    }

    /// When [`Engine::tick`] wants to be called.
    pub(super) fn next_tick(&self) -> Option<Time> {
        let checks = self.children.values().filter_map(|child| match child {
            Child::Check(check) => check.kill_at,
            Child::Worker(_) => None,
        });
        checks
            .chain(self.remnants.iter().map(|(kill_at, _)| *kill_at))
            .chain(self.look_at)
            .chain(self.core.poll_timeout())
            .min()
    }

    /// A worker has been found ready.
    pub(super) fn mark_ready(&mut self, worker: WorkerId) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.ready = true;
            self.feed(Event::Ready { worker });
        }
    }

    pub(super) fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|worker| worker.ready)
    }

    /// Look whether workers that are starting have become ready: where nobody sends word, and somebody asks.
    pub(super) fn look_at_workers(&mut self) {
        if self.ready_when != ReadyWhen::Listening {
            return;
        }
        let starting: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| !worker.ready)
            .map(|(id, worker)| (*id, worker.pid))
            .collect();
        for (id, pid) in starting {
            if matches!(self.look_at(pid), Sight::Accepting | Sight::Blind(_)) {
                self.mark_ready(id);
            }
        }
    }

    pub(super) fn look_at(&self, pid: Pid) -> Sight {
        let inodes = self.launcher.socket_inodes();
        if inodes.is_empty() { accepting::on_own_socket(pid) } else { accepting::on_sockets(pid, &inodes) }
    }

    /// Answer the calls of a worker that wait for us.
    pub(super) fn answer_calls(&mut self, worker: WorkerId, notifier: &Notifier) -> Answered {
        for _ in 0..CALLS_AT_ONCE {
            let call = match notifier.receive() {
                Ok(Some(call)) => call,
                Ok(None) => return Answered::All,
                Err(_) => return Answered::Last,
            };
            let told = self.adoption.answer(notifier, &call, self.launcher.listeners());
            if told == Told::Nothing {
                continue;
            }
            if let Some(known) = self.workers.get_mut(&worker) {
                known.socket = "adopted";
            }
            if told == Told::Listening && self.ready_when == ReadyWhen::Listening {
                self.mark_ready(worker);
            }
        }
        Answered::Some
    }

    /// Run a check command for a worker; the reply is whether it succeeded in time.
    pub(super) fn start_check(&mut self, worker: WorkerId, command: &[String], reply: oneshot::Sender<bool>) {
        let Some(Worker { pid, slot, .. }) = self.workers.get(&worker).copied() else { return };
        match self.launcher.start_check(command, slot, pid) {
            Ok(pid) => {
                let kill_at = Some(self.clock.now() + CHECK_TIMEOUT);
                self.children.insert(pid, Child::Check(Check { reply, kill_at }));
            }
            Err(failure) => {
                tracing::warn!(slot, reason = failure.reason(), "readiness check not run");
                let _ = reply.send(false);
            }
        }
    }

    /// Something from the admin port or the control socket.
    pub(super) fn take_request(&mut self, request: Request) {
        match request {
            Request::Command { command, reply } => {
                self.last_request += 1;
                let request = RequestId(self.last_request);
                self.replies.insert(request, reply);
                self.feed(Event::Command { command, request });
            }
            Request::Refresh { reply } => {
                self.look_at_workers();
                self.publish();
                let _ = reply.send(());
            }
        }
    }

    /// Show the newest state, where it is new.
    pub(super) fn publish_changes(&mut self) {
        if self.published != self.core.revision() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.published = self.core.revision();
        self.stats.log_lines_dropped.store(stderr::dropped(), Ordering::Relaxed);
        let mut snapshot = self.core.snapshot(self.clock.now());
        for worker in &mut snapshot.workers {
            let known = self.workers.values().find(|known| Some(known.pid) == worker.pid);
            worker.socket = known.map_or("", |known| known.socket);
            worker.version = self.launcher.version().map(str::to_owned);
        }
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    pub(super) fn log_is_up(&mut self) {
        let kind = self.core.config().kind;
        self.early.take().unwrap_or_default().iter().for_each(|notice| notices::tell(notice, kind));
        self.missing.drain(..).for_each(|what| tracing::warn!("{what}"));
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

    pub(super) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    pub(super) fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }
}

/// The actions.
impl Engine {
    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(worker, slot, generation),
            Action::Kill { pid, signal, scope, value } => self.kill(pid, signal, scope, value),
            Action::Sweep { signal } => self.sweep(signal),
            Action::Reply { request, outcome } => {
                if let Some(reply) = self.replies.remove(&request) {
                    let _ = reply.send(outcome);
                }
            }
            Action::Tell(notice) => match &mut self.early {
                Some(early) => early.push(notice),
                None => notices::tell(&notice, self.core.config().kind),
            },
            Action::Exit(status) => self.exit = Some(status),
        }
    }

    fn spawn(&mut self, worker: WorkerId, slot: SlotIndex, generation: Generation) {
        match self.try_spawn(worker, slot, generation) {
            Ok(pid) => {
                let socket = self.launcher.socket_way();
                self.children.insert(pid, Child::Worker(worker));
                self.workers.insert(worker, Worker { pid, slot, ready: false, socket });
                self.events.push_back(Event::Spawned { worker, pid });
                if self.ready_when == ReadyWhen::Started {
                    self.events.push_back(Event::Ready { worker });
                }
            }
            Err(failure) => self.events.push_back(Event::SpawnFailed { worker, failure }),
        }
    }

    fn try_spawn(
        &mut self,
        worker: WorkerId,
        slot: SlotIndex,
        generation: Generation,
    ) -> Result<Pid, SpawnFailure> {
        let wanted = self.ready_when == ReadyWhen::Notify;
        let to_spare = self.has_descriptors_to_spare();
        if !to_spare && self.launcher.may_adopt() {
            self.give_up_adoption("RLIMIT_NOFILE leaves no descriptor for it");
        }
        let notify = if wanted || (!self.is_init_only() && to_spare) {
            match NotifySocket::new(worker.0) {
                Ok(socket) => Some(socket),
                Err(error) if wanted => {
                    return Err(SpawnFailure::System(format!("no socket for sd_notify: {error}")));
                }
                Err(_) => None,
            }
        } else {
            None
        };
        let address = notify.as_ref().map(NotifySocket::address);
        let Started { pid, notifier, not_adopted } =
            self.launcher.start(slot, generation, address.as_deref())?;
        if let Some(error) = not_adopted {
            // What the kernel refuses one worker, it refuses all.
            self.give_up_adoption(&error.to_string());
        }
        self.newcomers.push(Newcomer { worker, pid, slot, notify, notifier });
        Ok(pid)
    }

    /// Said once.
    fn give_up_adoption(&mut self, why: &str) {
        self.launcher.give_up_adoption();
        self.missing
            .push(format!("servers cannot be given drainit's sockets when they bind (--adopt-bind): {why}"));
    }

    /// A socket a worker that few workers use must not cost the pool its event loop.
    fn has_descriptors_to_spare(&self) -> bool {
        let workers = i32::try_from(self.workers.len()).unwrap_or(i32::MAX);
        workers.saturating_mul(2).saturating_add(DESCRIPTORS_KEPT) < descriptors::limit()
    }

    fn kill(&mut self, pid: Pid, signal: Signal, scope: Scope, value: Option<u64>) {
        self.job_control.on_sent(signal);
        match kill::send(pid, signal, scope, value) {
            Ok(()) => tracing::debug!(%pid, %signal, "signal sent"),
            // A zombie takes signals, so this is somebody who has been reaped by others: nothing to tell.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => tracing::warn!(%pid, %signal, %error, "signal not sent"),
        }
    }

    fn sweep(&mut self, signal: Signal) {
        self.sweeping = Some(signal);
        self.collect_dead();
        if orphans::any_left() {
            orphans::signal_all(signal);
        }
        let left = orphans::any_left();
        self.look_at = (left && process::is_init()).then(|| self.clock.now() + LOOK_FOR_GUESTS);
        self.events.push_back(Event::Descendants { left });
    }

    /// Somebody has been reaped during the sweep.
    fn check_sweep(&mut self, signal: Signal) {
        let left = orphans::any_left();
        if left && signal == Signal::KILL {
            // What was born while the others died.
            orphans::signal_all(signal);
        }
        self.feed(Event::Descendants { left });
    }
}
