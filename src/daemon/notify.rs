//! Waiting for what a worker says of itself: one task a worker, for as long as the worker lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::engine::Heard;
use super::message::Message;
use crate::core::types::WorkerId;
use crate::sys::notify::NotifySocket;
use crate::sys::pollable;

/// An error that stays must not become a busy loop.
const AFTER_AN_ERROR: Duration = Duration::from_millis(25);

/// Have the loop take in what the worker says: a sender must never find the queue full. Each turn of the loop is asked
/// for and waited for, so that a worker that never stops talking gets its share and no more.
pub(super) async fn listen(socket: Arc<NotifySocket>, worker: WorkerId, to_loop: &mpsc::Sender<Message>) {
    let Ok(socket) = pollable::register(socket) else { return };
    while let Ok(mut ready) = socket.readable().await {
        let (reply, heard) = oneshot::channel();
        if to_loop.send(Message::Words { worker, reply }).await.is_err() {
            return;
        }
        match heard.await {
            Ok(Heard::All) => ready.clear_ready(),
            Ok(Heard::Some) => {}
            Ok(Heard::Nothing) => sleep(AFTER_AN_ERROR).await,
            Err(_) => return,
        }
    }
}
