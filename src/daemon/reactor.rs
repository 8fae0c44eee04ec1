//! The loop: waits for signals, requests, readiness and deadlines, and turns the engine. One thread, no wake-up
//! that nobody asked for.

use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::interval;

use super::boot::Servers;
use super::engine::{Answered, Engine};
use super::message::Message;
use super::{checks, late, readiness, sidecars, watching};
use crate::admin::{self, Facts, Request, Shared};
use crate::config::Sidecars;
use crate::core::event::Event;
use crate::core::signal::Signal;
use crate::core::time::Time;
use crate::core::types::WorkerId;
use crate::core::{burst, snapshot};
use crate::sys::control::may_control;
use crate::sys::signals::SignalFd;
use crate::sys::timer::Timer;
use crate::sys::{descriptors, pollable};

/// Requests that wait for their turn; far fewer than connections, so that most of those can be dropped.
const REQUESTS: usize = 16;

/// Most connections that are served at once, on the admin port and on the control socket each.
const CONNECTIONS: usize = 64;

/// Descriptors for everything that is no connection: stdio, the runtime's, signals, two servers, checks, watched paths.
const RESERVED: i32 = 16;

/// How often `--workers auto` looks at the quota, which tells nobody that it has changed.
const QUOTA_EVERY: Duration = Duration::from_secs(5);

/// Turns that answers under way get to leave before drainit does.
const LAST_TURNS: usize = 32;

/// Turn the engine until it has an exit status.
///
/// # Errors
/// There can be no event loop here; nothing has been turned.
pub(super) fn run(engine: &mut Engine, servers: Servers) -> io::Result<()> {
    let (signals, timer) = (SignalFd::new()?, Timer::new()?);
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let turned = runtime.block_on(async {
        // Never deregistered: the process ends with the loop, and the kernel does it faster.
        let signals = ManuallyDrop::new(pollable::register(signals)?);
        let timer = ManuallyDrop::new(pollable::register(timer)?);
        Reactor::start(engine, servers).turn(&signals, &timer).await;
        Ok(())
    });
    if turned.is_ok() {
        std::mem::forget(runtime);
    }
    turned
}

struct Reactor<'a> {
    engine: &'a mut Engine,
    requests: mpsc::Receiver<Request>,
    messages: mpsc::Receiver<Message>,
    to_us: mpsc::Sender<Message>,
    /// What one turn was not enough for.
    left: Vec<Message>,
    /// Who is finding out about which worker.
    watchers: BTreeMap<WorkerId, Vec<AbortHandle>>,
    sidecars: Sidecars,
}

impl<'a> Reactor<'a> {
    fn start(engine: &'a mut Engine, mut servers: Servers) -> Self {
        let (to_requests, requests) = mpsc::channel(REQUESTS);
        let (to_us, messages) = mpsc::channel(REQUESTS);
        let watcher = servers.watcher.take();
        let mut sidecars = std::mem::take(&mut servers.sidecars);
        serve(engine, servers, to_requests, watcher.is_some(), &sidecars);
        let awaited = std::mem::take(&mut sidecars.wait_for);
        if !awaited.is_empty() {
            tokio::spawn(sidecars::await_all(awaited, sidecars.wait_for_timeout, to_us.clone()));
        }
        if let Some(watcher) = watcher {
            tokio::spawn(watching::watch(watcher, engine.clock(), to_us.clone()));
        }
        Self { engine, requests, messages, to_us, left: Vec::new(), watchers: BTreeMap::new(), sidecars }
    }

    async fn turn(mut self, signals: &AsyncFd<SignalFd>, timer: &AsyncFd<Timer>) {
        let mut received = Vec::new();
        let mut quota = interval(QUOTA_EVERY);
        let mut set_for = None;
        // Looking for the dead takes the kernel as long as there are children.
        let mut may_be_dead = true;
        loop {
            may_be_dead = may_be_dead && self.engine.reap();
            std::mem::take(&mut self.left).into_iter().for_each(|message| self.take_message(message));
            self.engine.tick();
            self.update_watchers();
            self.engine.missing.drain(..).for_each(|what| tracing::warn!("{what}"));
            self.engine.publish_changes();
            if self.engine.exit_status().is_some() {
                break;
            }
            let due = self.engine.next_tick();
            if due != set_for && self.set(timer.get_ref(), due).is_ok() {
                set_for = due;
            }
            let more = may_be_dead || !self.left.is_empty();
            tokio::select! {
                biased;
                ready = signals.readable() => {
                    if let Ok(mut ready) = ready {
                        received.clear();
                        // A short read means that there are no more.
                        if signals.get_ref().read(&mut received).is_err() || received.len() < SignalFd::BATCH {
                            ready.clear_ready();
                        }
                        may_be_dead |= received.iter().any(|received| received.signal == Signal::CHLD);
                        self.engine.take_signals(&received);
                    }
                }
                Some(message) = self.messages.recv() => self.take_message(message),
                Some(request) = self.requests.recv() => self.engine.take_request(request),
                ready = timer.readable() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                    set_for = None;
                    may_be_dead = true;
                }
                _ = quota.tick(), if self.engine.follows_quota() => self.engine.follow_quota(),
                () = yield_now(), if more => {}
            }
        }
        self.finish().await;
    }

    fn set(&self, timer: &Timer, due: Option<Time>) -> io::Result<()> {
        timer.set(due.map(|due| due.since(self.engine.clock().now())))
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Begin => self.engine.feed(Event::Start),
            Message::Unavailable(reason) => self.engine.feed(Event::Unavailable { reason }),
            Message::Ready(worker) => self.engine.mark_ready(worker),
            Message::Hung(worker, why) => self.engine.mark_hung(worker, why),
            Message::Unread(worker) => self.engine.on_unread(worker),
            Message::Changed(paths) => self.engine.watched_path_changed(&paths),
            Message::Connect { worker, reply } => {
                let _ = reply.send(self.engine.connect(worker));
            }
            Message::Connected { from } => self.engine.note_check(from),
            Message::Words { worker, reply } => {
                let _ = reply.send(self.engine.hear(worker));
            }
            Message::Calls { worker, notifier } => {
                if let Answered::Some = self.engine.answer_calls(worker, notifier.get_ref()) {
                    self.left.push(Message::Calls { worker, notifier });
                }
            }
            Message::Check { worker, command, timeout, reply } => {
                self.engine.start_check(worker, &command, timeout, reply);
            }
        }
    }

    /// A task for each worker that is new, none for those that are gone.
    fn update_watchers(&mut self) {
        for mut newcomer in std::mem::take(&mut self.engine.newcomers) {
            let worker = newcomer.worker;
            if let Some(notifier) = newcomer.notifier.take() {
                // Ends by itself, when nobody is left who could ask.
                tokio::spawn(readiness::attend(worker, notifier, self.to_us.clone()));
            }
            let when = self.engine.ready_when().clone();
            let task = tokio::spawn(readiness::watch(newcomer, when, self.to_us.clone()));
            self.watchers.entry(worker).or_default().push(task.abort_handle());
        }
        for worker in std::mem::take(&mut self.engine.serving) {
            let Some(health) = self.engine.health().cloned() else { continue };
            let task = tokio::spawn(checks::watch(worker, health, self.engine.stats(), self.to_us.clone()));
            self.watchers.entry(worker).or_default().push(task.abort_handle());
        }
        for worker in std::mem::take(&mut self.engine.departed) {
            self.watchers.remove(&worker).iter().flatten().for_each(AbortHandle::abort);
        }
    }

    /// Let answers under way leave: a preStop hook that hears nothing looks failed.
    async fn finish(self) {
        use std::sync::atomic::Ordering;
        let stats = self.engine.stats();
        sidecars::tell_all(self.sidecars.on_exit_post, self.sidecars.on_exit_timeout).await;
        for _ in 0..LAST_TURNS {
            yield_now().await;
            if stats.admin_requests.load(Ordering::Relaxed) == 0 {
                break;
            }
        }
        yield_now().await;
    }
}

fn serve(
    engine: &Engine,
    servers: Servers,
    requests: mpsc::Sender<Request>,
    watches: bool,
    sidecars: &Sidecars,
) {
    servers.remarks.iter().for_each(|what| tracing::info!("{what}"));
    for what in &servers.missing {
        // Where nobody relies on it, an init says nothing of what it does not have.
        if servers.relied_on {
            tracing::warn!("{what}");
        } else {
            tracing::debug!("{what}");
        }
    }
    let config = engine.core().config();
    let limit = connection_limit(config.workers, engine.descriptors_a_worker());
    let shared = Shared {
        snapshot: engine.snapshots(),
        requests,
        facts: Arc::new(Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            deadlines: deadlines(engine, watches, sidecars),
        }),
        stats: engine.stats(),
        waiting_room: Arc::new(Semaphore::new(limit / 2)),
        audience: Arc::new(Semaphore::new((limit / 8).max(1))),
    };
    if let Some(listener) = servers.admin {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let router = admin::read_only(shared.clone(), servers.prestop);
                tokio::spawn(admin::serve_tcp(listener, router, limit, engine.stats()));
            }
            Err(error) => tracing::error!(%error, "admin port not served"),
        }
    }
    if let Some(listener) = servers.control {
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => {
                let router = admin::control(shared);
                tokio::spawn(admin::serve_control(listener, router, limit, may_control, engine.stats()));
            }
            Err(error) => tracing::error!(%error, "control socket not served"),
        }
    }
}

fn deadlines(engine: &Engine, watches: bool, sidecars: &Sidecars) -> Vec<(&'static str, Option<Duration>)> {
    let check = ("check", engine.health().map(|health| health.timeout));
    let watch = ("watch", watches.then_some(burst::LONGEST));
    let wait_for = (!sidecars.wait_for.is_empty()).then_some(sidecars.wait_for_timeout);
    let on_exit_post = (!sidecars.on_exit_post.is_empty()).then_some(sidecars.on_exit_timeout);
    let others = [check, watch, ("wait-for", wait_for), ("on-exit-post", on_exit_post)];
    let late = late::deadlines(engine.late_answer(), engine.core().config().late);
    snapshot::deadlines(engine.core().config()).into_iter().chain(others).chain(late).collect()
}

/// Half of the descriptors that are left for each of the two servers.
fn connection_limit(workers: u32, each: i32) -> usize {
    let used = RESERVED.saturating_add(i32::try_from(workers).unwrap_or(i32::MAX).saturating_mul(each));
    usize::try_from(descriptors::limit().saturating_sub(used) / 2).unwrap_or(0).clamp(1, CONNECTIONS)
}
