//! Whether one more worker has room in the memory that is left; only whoever starts workers can tell.

use super::context::Context;
use super::event::Action;
use super::types::WorkerId;

/// What is weighed: where that changes, an answer is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Processes there are, and those that are sure to come.
    pub(super) committed: u32,
    /// The latter alone. Whoever weighs does not know of them, and they take their room without asking.
    pub(super) coming: u32,
    pub(super) leaving: u32,
    /// Whoever came last.
    pub(super) newest: WorkerId,
}

#[derive(Debug, Default)]
pub(super) struct Scales {
    asked: Option<Load>,
    /// Questions without an answer: only that to the last one counts.
    unanswered: u32,
    known: Option<(Load, u32)>,
}

impl Scales {
    /// How many more workers have room; `None` until that is known, which it soon is.
    pub(super) fn room(&mut self, load: Load, ctx: &mut Context) -> Option<u32> {
        match self.known {
            Some((known, room)) if known == load => Some(room.saturating_sub(load.coming)),
            Some(_) | None => {
                if self.asked != Some(load) {
                    self.asked = Some(load);
                    // The pool may come to look as it did; its memory may not.
                    self.known = None;
                    self.unanswered += 1;
                    ctx.act(Action::Weigh);
                }
                None
            }
        }
    }

    /// What nobody asked for is no answer.
    pub(super) fn on_weighed(&mut self, room: u32) {
        let Some(left) = self.unanswered.checked_sub(1) else { return };
        self.unanswered = left;
        if left == 0 {
            self.known = self.asked.take().map(|load| (load, room));
        }
    }

    /// What is known may be so no longer.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}
