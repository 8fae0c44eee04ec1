//! What has been seen in a world, for the coverage.

use drainit::core::config::Count;
use drainit::core::event::{Action, Command, Event, Hang, Notice};
use drainit::core::snapshot::{BreakerState, Phase};

use super::super::books::Answer;
use super::super::history::Entry;
use super::World;

impl World {
    pub(super) fn mark_step(&mut self, event: &Event) {
        for saw in self.books.this_step.saw.clone() {
            self.mark(saw);
        }
        self.mark_rolls(event);
        if self.books.this_step.returned {
            self.mark("preStop without TERM");
        }
        if let Event::Spawned { worker, .. } = event
            && self.books.slots.iter().any(|slot| slot.successor == Some(*worker))
        {
            self.mark("a hung worker's replacement");
        }
        let vain = |action: &Action| matches!(action, Action::Tell(Notice::MessageInVain { .. }));
        if self.history.iter().rev().map_while(Entry::action).any(vain) {
            self.mark("a stop message in vain");
        }
        if let Event::Undelivered { worker } = event
            && self.books.workers.get(worker).is_some_and(|worker| worker.stop_signals == 1)
        {
            self.mark("a stop message undelivered");
        }
        let hung = |wanted: Hang| {
            let told = self.history.iter().rev().map_while(Entry::action);
            told.filter(
                |action| matches!(action, Action::Tell(Notice::WorkerHung { why, .. }) if *why == wanted),
            )
            .count()
                > 0
        };
        if hung(Hang::Silent) {
            self.mark("a silent worker");
        }
        if let Event::Said { worker, .. } = event
            && self.books.workers.get(worker).is_some_and(|record| record.stopping.is_some())
        {
            self.mark("a worker that stops by itself");
        }
        if matches!(event, Event::Signal { .. }) && self.books.sweep.is_some() {
            self.mark("a signal in the sweep");
        }
        if let Event::Exited { .. } = event
            && self.snapshot.phase == Phase::LameDuck
        {
            self.mark("a death in lame-duck");
        }
        if self.books.exit.is_some() {
            self.mark(match self.books.expected_code() {
                0 => "exit 0",
                71 => "exit 71",
                75 => "exit 75",
                124 => "exit 124",
                126 => "exit 126",
                127 => "exit 127",
                _ => "exit with a worker's code",
            });
            if !self.books.workers.is_empty() && self.books.refused.is_none() {
                self.mark("exit over the undead");
            }
        }
    }

    fn mark_rolls(&mut self, event: &Event) {
        let told = self.history.iter().rev().map_while(Entry::action);
        let outcomes: Vec<_> = told
            .filter_map(|action| match action {
                Action::Tell(Notice::RollOver { outcome, .. }) => Some(outcome.name()),
                _ => None,
            })
            .collect();
        outcomes.into_iter().for_each(|outcome| self.mark(outcome));
        let open = self.snapshot.breaker == BreakerState::Open;
        if let Event::Command { command: Command::Roll(_), .. } = event
            && open
            && self.books.this_step.answers.iter().any(|(_, answer)| *answer == Answer::Refused)
        {
            self.mark("refused by the breaker");
        }
        let Some(roll) = &self.books.rolls.running else { return };
        let (config, old) = (&self.books.config, roll.from.generation);
        let whole = config.roll.max_surge == Count::Percent(100);
        let all_at_once = self.books.desired > 1 && roll.turned.len() as u32 == self.books.desired;
        let crashed = matches!(event, Event::Exited { worker, exit } if !exit.is_success() && worker.0 > 0)
            && self.books.this_step.lost_ready > 0
            && self.books.slots.iter().any(|slot| slot.vacancy.is_none() && slot.deaths > 0);
        let prestop = matches!(event, Event::Command { command: Command::PreStop, .. });
        let scaled = matches!(event, Event::Command { command: Command::Scale(_), .. })
            && self
                .history
                .iter()
                .rev()
                .map_while(Entry::action)
                .any(|action| matches!(action, Action::Tell(Notice::Scaled { .. })));
        _ = old;
        for (mark, seen) in [
            ("blue/green", whole && all_at_once),
            ("an old worker crashed in a roll", crashed && roll.back.is_none()),
            ("preStop in a roll", prestop),
            ("scaled in a roll", scaled),
        ] {
            if seen {
                self.mark(mark);
            }
        }
    }
}
