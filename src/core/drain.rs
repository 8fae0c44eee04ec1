//! How drainit ends: the LB wait, the stop, the sweep, and the one deadline above them all.

use std::time::Duration;

use super::config::Config;
use super::event::{DrainPlan, Trigger};
use super::lb_wait::LbWaitView;
use super::snapshot::{DrainView, Phase};
use super::time::Time;
use super::types::ExitStatus;

/// After the hard deadline and a KILL for everybody, how long the kernel gets to hand over the dead.
pub(super) const KILL_PATIENCE: Duration = Duration::from_millis(100);

/// The same for what outlived the workers, where the hard deadline is further away.
pub(super) const SWEEP_PATIENCE: Duration = Duration::from_secs(1);

/// Where in its life drainit is.
#[derive(Debug)]
pub(super) enum Life {
    Running,
    LameDuck(LameDuck),
    Stopping(Stopping),
    Sweeping(Sweeping),
    Exited,
}

/// Unready, still accepting: load balancers are letting go.
#[derive(Debug)]
pub(super) struct LameDuck {
    pub(super) span: Span,
    /// Nothing but a preStop hook asked for it: advice, until SIGTERM comes.
    pub(super) advice: bool,
    /// The wait is over, and drainit goes back to serving then, unless SIGTERM comes.
    pub(super) return_at: Option<Time>,
}

/// The workers have been told to finish.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) span: Span,
    /// A worker's time was up: the phase is `killing`.
    pub(super) killing: bool,
    /// Everything has been killed at the hard deadline; the kernel gets until then.
    pub(super) exit_by: Option<Time>,
    pub(super) verdict: Verdict,
}

/// The workers are gone; what they left behind goes now.
#[derive(Debug)]
pub(super) struct Sweeping {
    pub(super) span: Option<Span>,
    /// TERM was sent; KILL follows then.
    pub(super) kill_at: Option<Time>,
    /// Then drainit ends, whatever is left.
    pub(super) exit_by: Time,
    pub(super) killing: bool,
    /// Nothing is left to be swept.
    pub(super) swept: bool,
    pub(super) status: ExitStatus,
}

/// What the exit status will tell of a stop.
#[derive(Debug)]
pub(super) enum Verdict {
    Drained,
    CrashLoop(String),
}

/// One drain's arithmetic: from the first of preStop and signal to the hard deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) trigger: Trigger,
    pub(super) began: Time,
    pub(super) hard: Time,
    pub(super) lb_wait: Duration,
}

impl Span {
    pub(super) fn new(trigger: Trigger, began: Time, lb_wait: Duration, config: &Config) -> Self {
        Self { trigger, began, hard: began + config.budget(), lb_wait }
    }

    pub(super) fn lb_wait_ends(&self) -> Time {
        self.began + self.lb_wait
    }

    /// When the workers are killed that were told to stop at `now`.
    pub(super) fn workers_deadline(&self, now: Time, config: &Config) -> Time {
        config.drain_timeout.map_or(self.hard, |timeout| (now + timeout).min(self.hard))
    }

    /// When drainit exits at the latest.
    pub(super) fn exit_by(&self) -> Time {
        self.hard + KILL_PATIENCE
    }

    pub(super) fn plan(&self, now: Time, config: &Config) -> DrainPlan {
        let until = self.lb_wait_ends().max(now);
        DrainPlan {
            trigger: self.trigger,
            grace: config.grace,
            margin: config.margin,
            spent: now.since(self.began),
            lb_wait: until.since(now),
            lb_min: config.effective_lb_wait().min.min(self.lb_wait),
            drain: self.workers_deadline(until, config).since(until),
        }
    }

    fn view(&self, now: Time, lb_wait: Option<LbWaitView>) -> DrainView {
        DrainView {
            trigger: self.trigger.to_string(),
            elapsed_seconds: now.since(self.began).as_secs_f64(),
            lb_wait_seconds: self.lb_wait.as_secs_f64(),
            lb_wait,
            deadline_seconds: self.hard.since(self.began).as_secs_f64(),
        }
    }
}

impl Life {
    /// The phase, where that does not depend on readiness.
    pub(super) fn phase(&self, started: bool) -> Phase {
        match self {
            Self::Running if started => Phase::Serving,
            Self::Running => Phase::Starting,
            Self::LameDuck(_) => Phase::LameDuck,
            Self::Stopping(Stopping { killing, .. }) | Self::Sweeping(Sweeping { killing, .. }) => {
                if *killing { Phase::Killing } else { Phase::Draining }
            }
            Self::Exited => Phase::Exited,
        }
    }

    /// The workers have been told to finish, or are gone.
    pub(super) fn is_ending(&self) -> bool {
        match self {
            Self::Running | Self::LameDuck(_) => false,
            Self::Stopping(_) | Self::Sweeping(_) | Self::Exited => true,
        }
    }

    /// The next moment at which time alone changes something.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self {
            Self::Running | Self::Exited => None,
            Self::LameDuck(duck) => Some(duck.return_at.unwrap_or_else(|| duck.span.lb_wait_ends())),
            Self::Stopping(stopping) => Some(stopping.exit_by.unwrap_or(stopping.span.hard)),
            Self::Sweeping(sweeping) => Some(sweeping.kill_at.unwrap_or(sweeping.exit_by)),
        }
    }

    pub(super) fn drain_view(&self, now: Time, lb_wait: Option<LbWaitView>) -> Option<DrainView> {
        match self {
            Self::Running | Self::Exited => None,
            Self::LameDuck(duck) => Some(duck.span.view(now, lb_wait)),
            Self::Stopping(stopping) => Some(stopping.span.view(now, lb_wait)),
            Self::Sweeping(sweeping) => sweeping.span.map(|span| span.view(now, lb_wait)),
        }
    }
}
