//! The loop where there can be no other: one system call, no descriptor.
//!
//! seccomp may refuse epoll, RLIMIT_NOFILE may leave nothing. Signals, workers and deadlines are kept; probes,
//! metrics and commands are not to be had, and readiness that would need them is taken for granted.

use std::time::Duration;

use super::engine::{Answered, Engine, Newcomer};
use super::node_ipc::Conversation;
use crate::config::values::ReadyWhen;
use crate::core::config::Kind;
use crate::core::types::WorkerId;
use crate::sys::channel::Channel;
use crate::sys::seccomp::Notifier;
use crate::sys::signals;

/// How often calls that wait are answered, and what workers say is heard. Whether they accept is looked at in turns of the
/// engine.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The signals that are taken in one turn.
const SIGNALS_AT_ONCE: usize = 256;

/// Turn the engine until it has an exit status.
pub(super) fn run(engine: &mut Engine) {
    let mut starting: Vec<Newcomer> = Vec::new();
    let mut attended: Vec<(WorkerId, Notifier)> = Vec::new();
    loop {
        let more = engine.reap();
        engine.tick();
        for mut newcomer in std::mem::take(&mut engine.newcomers) {
            attended.extend(newcomer.notifier.take().map(|notifier| (newcomer.worker, notifier)));
            starting.push(newcomer);
        }
        attended
            .retain(|(worker, notifier)| !matches!(engine.answer_calls(*worker, notifier), Answered::Last));
        // Whoever finds the queue full may wait for ever.
        engine.hear_everybody();
        starting.retain(|newcomer| !settled(engine, newcomer));
        engine.serving.clear();
        let departed = std::mem::take(&mut engine.departed);
        starting.retain(|newcomer| !departed.contains(&newcomer.worker));
        if engine.exit_status().is_some() {
            return;
        }
        let now = engine.clock().now();
        let until_tick = engine.next_tick().map(|at| at.since(now));
        let until_look =
            (!starting.is_empty() || !attended.is_empty() || engine.has_ears()).then_some(LOOK_EVERY);
        let at_once = more.then_some(Duration::ZERO);
        let timeout = [until_tick, until_look, at_once].into_iter().flatten().min();
        let mut timeout = timeout;
        for _ in 0..SIGNALS_AT_ONCE {
            let Some(signal) = signals::wait(timeout) else { break };
            engine.take_signals(&[signal]);
            timeout = Some(Duration::ZERO);
        }
    }
}

/// Whether nothing is to be found out about this worker any more.
fn settled(engine: &mut Engine, newcomer: &Newcomer) -> bool {
    match engine.ready_when() {
        // Whether it listens is seen in turns of the loop.
        ReadyWhen::Started | ReadyWhen::Listening => true,
        // Nobody can ask, so nobody looks.
        _ if engine.core().config().kind == Kind::Single => true,
        ReadyWhen::Notify => {
            if newcomer.channel.as_ref().is_some_and(|channel| has_sent_ready(channel)) {
                engine.mark_ready(newcomer.worker);
            }
            engine.is_ready(newcomer.worker)
        }
        ReadyWhen::Check(_) => {
            tracing::warn!(
                slot = newcomer.slot,
                "readiness cannot be checked without an event loop: taken for granted"
            );
            engine.mark_ready(newcomer.worker);
            true
        }
    }
}

/// A message that comes in two pieces is missed here.
fn has_sent_ready(channel: &Channel) -> bool {
    let mut conversation = Conversation::default();
    while let Ok(true) = conversation.hear(channel) {}
    conversation.ready
}
