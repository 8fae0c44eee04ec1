//! Node's IPC channel: what a worker says on it, and the stop message that it is sent.
//!
//! The worker finds its end under the number in NODE_CHANNEL_FD (child_process in Node.js); messages are JSON, one a
//! line. Whatever a worker does with it, it harms nobody but itself: what is too long or no JSON is passed over, what
//! it does not read is not kept for it.

mod document;
mod lines;

use std::io::{self, ErrorKind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::message::Message;
use crate::core::types::{SlotIndex, WorkerId};
use crate::sys::channel::Channel;
use crate::sys::pollable;
use document::Document;
use lines::Lines;

/// What is taken in at once.
const CHUNK: usize = 16 * 1024;

/// Who a channel goes to.
pub(super) struct Listener {
    pub(super) worker: WorkerId,
    pub(super) slot: SlotIndex,
    pub(super) channel: Arc<Channel>,
}

/// What is known of the other end.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    lines: Lines,
    pub(super) ready: bool,
    /// It has sent a socket.
    gave_handle: bool,
    /// It has been sent something that nobody misses.
    answered: bool,
}

impl Conversation {
    /// Take in what has arrived. `false`: that was the end.
    ///
    /// # Errors
    /// Those of [`Channel::receive`].
    pub(super) fn hear(&mut self, channel: &Channel) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let length = channel.receive(&mut chunk)?;
        let Self { lines, ready, gave_handle, answered } = self;
        lines.take_in(chunk.get(..length).unwrap_or_default(), |line| {
            let said = Document::read(line);
            *ready |= said.is_ready();
            *gave_handle |= said.has_handle();
            if let Some(reply) = said.reply() {
                // Whoever does not read its replies waits for them alone.
                *answered |= channel.send(reply.as_bytes()).is_ok();
            }
        });
        Ok(length > 0)
    }
}

/// For the worker's whole life: a sender must never find the channel full.
pub(super) async fn listen(listener: Listener, to_loop: &mpsc::Sender<Message>) {
    let Listener { worker, slot, channel } = listener;
    let Ok(channel) = pollable::register(channel) else { return };
    let mut conversation = Conversation::default();
    let (mut ready_told, mut handle_told) = (false, false);
    while let Ok(mut readable) = channel.readable().await {
        match conversation.hear(channel.get_ref()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if error.kind() == ErrorKind::WouldBlock => readable.clear_ready(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                if error.kind() == ErrorKind::ConnectionReset && !conversation.answered {
                    let _ = to_loop.send(Message::Unread(worker)).await;
                }
                return;
            }
        }
        drop(readable);
        // Once: whoever goes on saying so does not keep the loop busy with it.
        if conversation.ready && !std::mem::replace(&mut ready_told, true) {
            let _ = to_loop.send(Message::Ready(worker)).await;
        }
        if conversation.gave_handle && !std::mem::replace(&mut handle_told, true) {
            tracing::warn!(
                slot,
                "the worker has sent a socket over its IPC channel: nobody takes it, it is closed"
            );
        }
        // `readable` takes no part in tokio's budget: a worker that never stops talking would stop the loop.
        yield_now().await;
    }
}
