//! Which workers may still accept connections, while everybody is to finish.

use super::Pool;
use crate::core::context::Context;
use crate::core::event::Action;
use crate::core::snapshot::WorkerState;
use crate::core::types::WorkerId;

/// So many are looked at together: each look takes the loop's time, and nothing is won before the last of them is
/// through.
const LOOKED_AT_TOGETHER: usize = 8;

impl Pool {
    /// A worker that goes has stopped accepting.
    pub(in crate::core) fn on_deaf(&mut self, id: WorkerId, sure: bool) {
        if let Some(worker) = self.workers.get_mut(id).filter(|worker| worker.state == WorkerState::Draining)
        {
            worker.deaf = true;
            worker.past_accepting |= sure;
        }
    }

    /// Whether somebody may still accept connections. Where so, it is being found out until when.
    pub(in crate::core) fn may_accept(&mut self, ctx: &mut Context) -> bool {
        let mut accepting = false;
        let mut looked_at = 0;
        for (id, worker) in self.workers.iter_mut().filter(|(_, worker)| !worker.past_accepting) {
            accepting = true;
            // Who has never been ready may yet begin to accept: nothing tells but its end.
            let can_tell = worker.state == WorkerState::Draining && worker.ready_at().is_some();
            if can_tell && looked_at < LOOKED_AT_TOGETHER {
                looked_at += 1;
                if !std::mem::replace(&mut worker.watched_out, true) {
                    ctx.act(Action::Listen { worker: id, sure: true });
                }
            }
        }
        accepting
    }
}
