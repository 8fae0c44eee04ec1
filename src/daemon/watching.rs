//! Waiting for `--watch`: one task for all paths, asleep while nothing happens to them.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::message::Message;
use crate::core::burst::Burst;
use crate::core::time::Time;
use crate::sys::pollable;
use crate::sys::watch::{Inotify, Watcher};

/// Between two looks where inotify does not say everything.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two reads: somebody who never stops writing costs ten wake-ups a second and no more.
const READ_EVERY: Duration = Duration::from_millis(100);

/// Tell the loop once for each burst that has changed something.
pub(super) async fn watch(mut watcher: Watcher, clock: Clock, to_loop: mpsc::Sender<Message>) {
    let inotify = watcher.descriptor().and_then(|inotify| match pollable::register(inotify) {
        Ok(inotify) => Some(inotify),
        Err(error) => {
            watcher.give_up_inotify(&error);
            None
        }
    });
    let mut burst = Burst::default();
    let mut look_at: Option<Time> = None;
    let mut read_at: Option<Time> = None;
    loop {
        let now = clock.now();
        look_at = next_look(&watcher, look_at, now);
        let due = [burst.due(), look_at, read_at].into_iter().flatten().min();
        let due = due.and_then(|at| clock.instant(at)).map(Instant::from_std);
        tokio::select! {
            biased;
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let now = clock.now();
                read_at = read_at.filter(|at| *at > now);
                if burst.end(now) {
                    let findings = watcher.settle();
                    for path in &findings.gone {
                        let path = path.display();
                        tracing::info!(%path, "a watched path is gone: nothing is rolled before it is back");
                    }
                    let changed = !findings.changed.is_empty();
                    if changed && to_loop.send(Message::Changed(findings.changed)).await.is_err() {
                        return;
                    }
                } else if look_at.is_some_and(|at| at <= now) {
                    look_at = Some(now + LOOK_EVERY);
                    if watcher.look_anew() {
                        burst.note(now);
                    }
                }
            }
            ready = readable(inotify.as_ref()), if read_at.is_none() => {
                let events = watcher.read_events();
                if let Some(mut ready) = ready.filter(|_| !events.more) {
                    ready.clear_ready();
                }
                let now = clock.now();
                read_at = Some(now + READ_EVERY);
                if events.suspicious {
                    burst.note(now);
                }
            }
        }
    }
}

/// Says once that looking begins or is needed no more.
fn next_look(watcher: &Watcher, look_at: Option<Time>, now: Time) -> Option<Time> {
    let every = LOOK_EVERY.as_secs();
    match (watcher.trouble(), look_at) {
        (Some(trouble), None) => {
            tracing::warn!("--watch {trouble}: looked at every {every} s instead");
            Some(now + LOOK_EVERY)
        }
        (None, Some(_)) => {
            tracing::info!("--watch: the kernel tells of everything again");
            None
        }
        (_, look_at) => look_at,
    }
}

async fn readable(inotify: Option<&AsyncFd<Arc<Inotify>>>) -> Option<AsyncFdReadyGuard<'_, Arc<Inotify>>> {
    match inotify {
        Some(inotify) => inotify.readable().await.ok(),
        None => pending().await,
    }
}
