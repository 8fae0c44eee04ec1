//! Finding out when a worker is ready: one task a worker, for as long as the worker lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::engine::Newcomer;
use super::message::Message;
use super::node_ipc::{self, Listener};
use super::{checks, notify};
use crate::config::values::ReadyWhen;
use crate::core::types::WorkerId;
use crate::sys::pollable;
use crate::sys::seccomp::Notifier;

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two checks that cost a connection or a process.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The first of them come sooner: most servers are up in a moment.
const CHECK_FIRST: Duration = Duration::from_millis(25);

/// Watch one worker. READY=1 and Node's `ready` count whatever else is asked for.
pub(super) async fn watch(newcomer: Newcomer, when: ReadyWhen, to_loop: mpsc::Sender<Message>) {
    let Newcomer { worker, slot, notify: socket, channel, notifier: _ } = newcomer;
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
    tokio::join!(told, spoken, find_out(worker, &when, &to_loop));
}

/// Have the calls of a worker answered, and of everything that it forks: for as long as any of them lives, which may
/// be longer than the worker.
pub(super) async fn attend(worker: WorkerId, notifier: Notifier, to_loop: mpsc::Sender<Message>) {
    let Ok(notifier) = pollable::register(notifier) else { return };
    let notifier = Arc::new(notifier);
    while let Ok(mut ready) = notifier.readable().await {
        // EPOLLHUP: whoever could ask is gone, and what they had asked.
        if ready.ready().is_read_closed() {
            return;
        }
        // What comes from here on is told anew.
        ready.clear_ready();
        if to_loop.send(Message::Calls { worker, notifier: Arc::clone(&notifier) }).await.is_err() {
            return;
        }
    }
}

async fn find_out(worker: WorkerId, when: &ReadyWhen, to_loop: &mpsc::Sender<Message>) {
    // Whether it listens is seen in turns of the loop.
    let ReadyWhen::Check(check) = when else { return };
    let mut pause = CHECK_FIRST;
    while !checks::passes(worker, check, CHECK_TIMEOUT, to_loop).await {
        sleep(pause).await;
        pause = (pause * 2).min(CHECK_EVERY);
    }
    let _ = to_loop.send(Message::Ready(worker)).await;
}
