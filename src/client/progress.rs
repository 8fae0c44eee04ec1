//! A roll as it goes: drawn anew on a terminal, a line for each step elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::rolls::Rolls;
use super::say;
use super::status::printable;

/// ECMA-48: the cursor so many lines up, and everything from there on gone.
fn back_up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

pub(super) struct Progress {
    terminal: bool,
    /// Of the last drawing.
    lines: usize,
    told: Option<(u64, String, u32)>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), lines: 0, told: None }
    }

    /// Between two looks, for each of which drainit pays: a drawing should move, a log need not.
    pub(super) fn every(&self) -> Duration {
        Duration::from_millis(if self.terminal { 250 } else { 1000 })
    }

    /// Show what `/status` says.
    pub(super) fn show(&mut self, json: &str) {
        let Ok(rolls) = serde_json::from_str::<Rolls>(json) else { return };
        let Some(line) = rolls.progress() else { return };
        if self.terminal {
            let drawing = printable(&(line + &rolls.timeline()));
            say(&(back_up(self.lines) + &drawing));
            self.lines = drawing.lines().count();
            return;
        }
        let state = rolls.roll.map(|roll| (roll.roll, roll.stage, roll.done));
        if state != self.told {
            say(&printable(&line));
            self.told = state;
        }
    }

    /// There is a drawing that has to be finished.
    pub(super) fn is_drawn(&self) -> bool {
        self.lines > 0
    }

    /// The end, drawn for the last time.
    pub(super) fn finish(&mut self, json: &str) {
        if let Ok(rolls) = serde_json::from_str::<Rolls>(json) {
            say(&(back_up(self.lines) + &printable(&rolls.timeline())));
        }
    }
}
