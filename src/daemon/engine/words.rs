//! What the workers say of themselves: read here, in the loop, so that nothing is decided over words not yet heard.

use std::io;
use std::sync::Arc;

use super::Engine;
use crate::core::event::Event;
use crate::core::types::{Pid, SlotIndex, WorkerId};
use crate::core::word::{Lifecycle, Ping, Word};
use crate::sys::notify::{NotifySocket, Received};
use crate::sys::procfs;

/// The messages of one worker that are taken in one turn.
const WORDS_AT_ONCE: usize = 64;

/// The socket of one worker.
pub(super) struct Ear {
    socket: Arc<NotifySocket>,
    pid: Pid,
    slot: SlotIndex,
    /// That nothing is stored here has been said.
    refused_to_store: bool,
}

/// Whoever waits for words may keep the socket; nobody is to find it any more.
impl Drop for Ear {
    fn drop(&mut self) {
        self.socket.remove_file();
    }
}

/// How many of a worker's messages have been taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Heard {
    All,
    /// There may be more.
    Some,
    /// The system refused to say.
    Nothing,
}

impl Engine {
    pub(super) fn lend_ear(
        &mut self,
        worker: WorkerId,
        pid: Pid,
        slot: SlotIndex,
        socket: Arc<NotifySocket>,
    ) {
        self.ears.insert(worker, Ear { socket, pid, slot, refused_to_store: false });
    }

    /// Whether anybody may have something to say.
    pub(in crate::daemon) fn has_ears(&self) -> bool {
        !self.ears.is_empty()
    }

    /// Before a deadline is taken for missed.
    pub(in crate::daemon) fn hear_everybody(&mut self) {
        for worker in self.ears.keys().copied().collect::<Vec<_>>() {
            self.hear(worker);
        }
    }

    /// Take in what a worker has said. Of many signs of life in a row only the last counts: a flood of them costs the
    /// core one event a turn.
    pub(in crate::daemon) fn hear(&mut self, worker: WorkerId) -> Heard {
        let mut alive = false;
        let mut heard = Heard::Some;
        for _ in 0..WORDS_AT_ONCE {
            let Some(ear) = self.ears.get(&worker) else { return Heard::All };
            match ear.socket.receive(ear.pid) {
                Ok(Some(received)) if received.message.word.is_mere_ping() => {
                    alive = true;
                    self.refuse_to_store(worker, &received);
                }
                Ok(Some(received)) => {
                    self.pass_on_ping(worker, &mut alive);
                    self.take_in(worker, received);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    heard = Heard::All;
                    break;
                }
                Err(_) => {
                    heard = Heard::Nothing;
                    break;
                }
            }
        }
        self.pass_on_ping(worker, &mut alive);
        heard
    }

    fn pass_on_ping(&mut self, worker: WorkerId, alive: &mut bool) {
        if std::mem::take(alive) {
            let word = Word { ping: Some(Ping::Alive), ..Word::default() };
            self.feed(Event::Said { worker, word });
        }
    }

    fn take_in(&mut self, worker: WorkerId, received: Received) {
        self.refuse_to_store(worker, &received);
        // What came before has been taken in: whoever waits behind the barrier may go on.
        if received.message.barrier {
            return;
        }
        let mut word = received.message.word;
        word.main_pid = word.main_pid.filter(|main| self.is_of(worker, *main));
        if word == Word::default() {
            return;
        }
        if word.lifecycle == Some(Lifecycle::Ready) {
            self.mark_ready(worker);
        }
        self.feed(Event::Said { worker, word });
    }

    /// Said once a worker. What else is in the message counts; the descriptors are closed with it.
    fn refuse_to_store(&mut self, worker: WorkerId, received: &Received) {
        if !received.message.stores {
            return;
        }
        let Some(ear) = self.ears.get_mut(&worker) else { return };
        if !std::mem::replace(&mut ear.refused_to_store, true) {
            tracing::warn!(
                slot = ear.slot,
                pid = ear.pid.0,
                descriptors = received.descriptors.len(),
                "worker sent descriptors to be stored (FDSTORE=1): drainit stores none, they have been closed"
            );
        }
    }

    fn is_of(&self, worker: WorkerId, main: Pid) -> bool {
        let Some(ear) = self.ears.get(&worker) else { return false };
        let is_of = procfs::is_within(main, ear.pid) == Some(true);
        if !is_of {
            tracing::debug!(slot = ear.slot, %main, "MAINPID ignored: no process of this worker's");
        }
        is_of
    }
}
