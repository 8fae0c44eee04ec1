//! Who accepts what comes while a worker is to end: others, where there are any, and it is kept from it.

use std::time::Duration;

use super::{Ending, Engine};
use crate::core::event::QuietEnd;
use crate::core::time::Time;
use crate::core::types::{Pid, WorkerId};
use crate::sys::unpoll;

/// So long a worker is looked at before it is held.
const HOLD_AFTER: Duration = Duration::from_millis(250);

impl Engine {
    /// Somebody waits, and nobody else is there to be waited for.
    pub(super) fn is_needed(&self, ending: &Ending, now: Time) -> bool {
        let sockets = &self.launcher.sockets;
        let is_alone = sockets.are_shared() && !self.others_serve(ending.worker);
        is_alone && !self.has_had_its_turn(now) && sockets.waiting_for(ending.worker) > 0
    }

    /// And go on doing so.
    pub(super) fn others_serve(&self, worker: WorkerId) -> bool {
        self.workers.iter().any(|(id, known)| *id != worker && known.ready && !known.told)
    }

    /// It is to be ended whatever it does, and others take what comes: it need not learn of it.
    pub(super) fn keep_from_accepting(&mut self, ending: &mut Ending, members: &[Pid]) {
        if ending.is_deaf.is_some()
            || self.endings.cannot_unpoll
            || ending.signal_by.is_some()
            || !self.spares(ending)
        {
            return;
        }
        let sockets = &self.launcher.sockets;
        let inodes = sockets.part_of(ending.worker).map(|part| sockets.inodes(part)).unwrap_or_default();
        match unpoll::stop_polling(members, &inodes) {
            Ok(entries) => ending.is_deaf = Some(entries > 0),
            Err(_) => self.endings.cannot_unpoll = true,
        }
    }

    /// Nobody misses it: others accept what comes.
    fn spares(&self, ending: &Ending) -> bool {
        ending.why == QuietEnd::NoHandler
            && self.launcher.sockets.are_shared()
            && self.others_serve(ending.worker)
    }

    pub(super) fn may_hold(&self, ending: &Ending, now: Time) -> bool {
        ending.is_deaf != Some(true) && now.since(ending.began) >= HOLD_AFTER && self.spares(ending)
    }
}
