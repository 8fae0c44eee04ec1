//! When connections are answered that no worker accepts any more. A worker that still accepts wins, always.

use super::Supervisor;
use crate::core::drain::{Life, Span};
use crate::core::event::Action;
use crate::core::late::{LAST_ANSWERS, Late};

impl Supervisor {
    /// Once no worker accepts any more, nor what one has left behind.
    pub(super) fn advance_late(&mut self) {
        let Some(rules) = self.ctx.config.late else { return };
        let span = match &self.life {
            Life::Stopping(stopping) => Some(stopping.span),
            Life::Sweeping(sweeping) if sweeping.kill_at.is_some() => return,
            Life::Sweeping(sweeping) => sweeping.span,
            Life::Running | Life::LameDuck(_) | Life::Exited => return,
        };
        if self.late != Late::Ahead || self.pool.may_accept(&mut self.ctx) {
            return;
        }
        let now = self.ctx.now;
        let hard = span.map_or(now + self.ctx.config.budget(), |span| span.hard);
        // Beyond it, there is what the kernel gets to hand over the dead.
        let until = if now < hard { hard } else { span.as_ref().map_or(hard, Span::exit_by) };
        self.late = Late::Underway { until };
        self.ctx.act(Action::AnswerLate { linger_until: (now + rules.linger).min(until - LAST_ANSWERS) });
    }

    pub(super) fn on_late_answered(&mut self) {
        self.late = Late::Over;
        if matches!(&self.life, Life::Sweeping(sweeping) if sweeping.swept) {
            self.finish_sweep();
        }
    }

    /// Nobody is left below us, or whoever is has had its time: late answers alone are still waited for.
    pub(super) fn finish_sweep(&mut self) {
        if let Life::Sweeping(sweeping) = &mut self.life {
            sweeping.swept = true;
            sweeping.kill_at = None;
        }
        self.advance_late();
        let due = self.late.due(self.ctx.now);
        let Life::Sweeping(sweeping) = &mut self.life else { return };
        if let Some(due) = due {
            sweeping.exit_by = due;
            return;
        }
        let status = sweeping.status.clone();
        self.exit(status);
    }
}
