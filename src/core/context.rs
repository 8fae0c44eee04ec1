//! What every part of the core needs to act: the time, the rules, and somewhere to put actions.

use std::collections::VecDeque;

use super::config::Config;
use super::event::{Action, Notice};
use super::rng::Rng;
use super::snapshot::Counters;
use super::time::Time;

/// The supervisor's state that no part owns alone.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) counters: Counters,
    outbox: VecDeque<Action>,
}

impl Context {
    pub(super) fn new(config: Config) -> Self {
        let rng = Rng::new(config.seed);
        Self { config, now: Time::ZERO, rng, counters: Counters::default(), outbox: VecDeque::new() }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.outbox.push_back(action);
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.outbox.push_back(Action::Tell(notice));
    }

    /// Take back what has not been handed out yet: nobody is started any more.
    pub(super) fn recall_spawns(&mut self) {
        self.outbox.retain(|action| !matches!(action, Action::Spawn { .. }));
    }

    pub(super) fn has_actions(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.outbox.pop_front()
    }
}
