//! Finding out when a worker is ready: one task a worker, for as long as the worker lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::engine::{Answered, Newcomer};
use super::message::Message;
use super::node_ipc::{self, Listener};
use super::{checks, notify};
use crate::config::values::ReadyWhen;
use crate::core::config::Kind;
use crate::core::types::{Pid, WorkerId};
use crate::sys::accepting::Sight;
use crate::sys::pollable;
use crate::sys::seccomp::Notifier;

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two checks that cost a connection or a process.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The first of them come sooner: most servers are up in a moment.
const CHECK_FIRST: Duration = Duration::from_millis(25);

const LOOK_FIRST: Duration = Duration::from_millis(2);
/// Where a worker's calls tell: looking is for the few that accept on what they were given and never call listen(2).
const LOOK_FIRST_AT_CALLERS: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY_AT_CALLERS: Duration = Duration::from_millis(100);
/// A worker without a socket of drainit's may never listen. After so many looks, only who asks makes us look.
const LOOKS_UNASKED: u32 = 9;

/// Watch one worker. READY=1 and Node's `ready` count whatever else is asked for.
pub(super) async fn watch(newcomer: Newcomer, when: ReadyWhen, kind: Kind, to_loop: mpsc::Sender<Message>) {
    let Newcomer { worker, pid, slot, notify: socket, channel, notifier: _, calls } = newcomer;
    let told = async {
        if let Some(socket) = socket {
            notify::listen(socket, worker, &to_loop).await;
        }
    };
    let spoken = async {
        if let Some(channel) = channel {
            node_ipc::listen(Listener { worker, slot, channel }, &to_loop).await;
        }
    };
    let found = async {
        let pauses =
            if calls { (LOOK_FIRST_AT_CALLERS, LOOK_EVERY_AT_CALLERS) } else { (LOOK_FIRST, LOOK_EVERY) };
        find_out(worker, pid, slot, pauses, &when, kind, &to_loop).await;
    };
    tokio::join!(told, spoken, found);
}

/// Have the calls of a worker answered, and of everything that it forks: for as long as any of them lives, which may
/// be longer than the worker.
pub(super) async fn attend(worker: WorkerId, notifier: Notifier, to_loop: mpsc::Sender<Message>) {
    let Ok(notifier) = pollable::register(notifier) else { return };
    let notifier = Arc::new(notifier);
    while let Ok(mut ready) = notifier.readable().await {
        let (reply, answered) = oneshot::channel();
        let calls = Message::Calls { worker, notifier: Arc::clone(&notifier), reply };
        if to_loop.send(calls).await.is_err() {
            return;
        }
        match answered.await {
            Ok(Answered::All) => ready.clear_ready(),
            Ok(Answered::Some) => {}
            Ok(Answered::Last) | Err(_) => return,
        }
    }
}

/// Between two looks at a worker that is on its way out.
const LOOK_OUT_EVERY: Duration = Duration::from_millis(20);
/// So many in a row.
const LOOKS_OUT: u32 = 2;
/// More where there must be no doubt, or is some: one that has a socket open on which it might accept may be busy with
/// somebody just when it is looked at.
const LOOKS_OUT_SURE: u32 = 5;
/// What a look takes is paid for by waiting so many times as long: it may find thousands of connections.
const LOOK_OUT_SHARE: u32 = 50;

/// Watch a worker that has been told to finish until it accepts no more. `sure`: one that has a socket open on which it might
/// does, unless it has an event loop and keeps that socket out of it.
pub(super) async fn watch_out(worker: WorkerId, sure: bool, to_loop: mpsc::Sender<Message>) {
    let looks = if sure { LOOKS_OUT_SURE } else { LOOKS_OUT };
    let (mut deaf, mut enough) = (0, looks);
    while deaf < enough {
        let asked = Instant::now();
        let (reply, sight) = oneshot::channel();
        if to_loop.send(Message::LookOut { worker, reply }).await.is_err() {
            return;
        }
        match sight.await {
            Ok(Sight::Accepting) => (deaf, enough) = (0, looks),
            Ok(Sight::Holding) if sure => deaf = 0,
            Ok(Sight::Holding) => (deaf, enough) = (deaf + 1, LOOKS_OUT_SURE),
            Ok(Sight::NotYet) => deaf += 1,
            // There is no telling but by its end.
            Ok(Sight::Blind(_)) | Err(_) if sure => return,
            Ok(Sight::Blind(_)) | Err(_) => break,
        }
        sleep(LOOK_OUT_EVERY.max(asked.elapsed() * LOOK_OUT_SHARE)).await;
    }
    let _ = to_loop.send(Message::Deaf(worker, sure)).await;
}

async fn find_out(
    worker: WorkerId,
    pid: Pid,
    slot: u32,
    pauses: (Duration, Duration),
    when: &ReadyWhen,
    kind: Kind,
    to_loop: &mpsc::Sender<Message>,
) {
    let found = match when {
        ReadyWhen::Started | ReadyWhen::Notify => return,
        ReadyWhen::Listening => look_until_it_accepts(worker, pid, slot, pauses, kind, to_loop).await,
        ReadyWhen::Check(check) => {
            let mut pause = CHECK_FIRST;
            while !checks::passes(worker, check, CHECK_TIMEOUT, to_loop).await {
                sleep(pause).await;
                pause = (pause * 2).min(CHECK_EVERY);
            }
            true
        }
    };
    if found {
        let _ = to_loop.send(Message::Ready(worker)).await;
    }
}

/// Says whether it does; `false` when looking any longer would only cost.
async fn look_until_it_accepts(
    worker: WorkerId,
    pid: Pid,
    slot: u32,
    pauses: (Duration, Duration),
    kind: Kind,
    to_loop: &mpsc::Sender<Message>,
) -> bool {
    let (mut pause, longest) = pauses;
    for look in 1.. {
        sleep(pause).await;
        let (reply, sight) = oneshot::channel();
        if to_loop.send(Message::Look { worker, reply }).await.is_err() {
            return false;
        }
        match sight.await {
            Ok(Sight::Accepting) => return true,
            Ok(Sight::Blind(error)) => {
                if kind == Kind::Pool {
                    tracing::warn!(slot, %pid, %error, "cannot see whether the worker accepts: taken for ready (--ready-when has other ways)");
                }
                return true;
            }
            Ok(Sight::Holding | Sight::NotYet) => {}
            Err(_) => return false,
        }
        pause = match kind {
            Kind::Pool => (pause * 2).min(longest),
            Kind::Single if look < LOOKS_UNASKED => pause * 2,
            Kind::Single => return false,
        };
    }
    false
}
