//! Whether one more worker has room in the memory that is left; only whoever starts workers can tell.

use super::context::Context;
use super::event::Action;

/// What was true of the pool when it was weighed: who comes or goes makes the answer stale.
pub(super) type State = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Scales {
    asked: Option<State>,
    known: Option<(State, u32)>,
}

impl Scales {
    /// How many more workers have room; `None` until that is known, which it soon is.
    pub(super) fn room(&mut self, state: State, ctx: &mut Context) -> Option<u32> {
        match self.known {
            Some((known, room)) if known == state => Some(room),
            Some(_) | None => {
                if self.asked != Some(state) {
                    self.asked = Some(state);
                    ctx.act(Action::Weigh);
                }
                None
            }
        }
    }

    /// Says whether that was asked.
    pub(super) fn on_weighed(&mut self, room: u32) -> bool {
        self.known = self.asked.take().map(|state| (state, room)).or(self.known);
        self.known.is_some()
    }

    /// What is known may be so no longer.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}
