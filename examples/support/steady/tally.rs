//! What has become of the requests of a steady load.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// How a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection was made: nobody listens.
    Refused,
    /// Reset on a connection that was new, with nothing answered.
    Reset,
    /// Closed on a connection that was new, with nothing answered: the request has been read, and dropped.
    Eof,
    /// A kept connection that was being closed when the request was sent, which nobody has read.
    Stale,
    /// A kept connection that was closed after the request had been read.
    StaleEof,
    /// No answer in time.
    Hang,
    /// The answer began, and has no end.
    Cut,
    /// Answered with an error of the server's.
    Status,
}

impl Failure {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Eof => "eof",
            Self::Stale => "stale",
            Self::StaleEof => "stale-eof",
            Self::Hang => "hang",
            Self::Cut => "cut",
            Self::Status => "5xx",
        }
    }
}

/// So many failures are kept with the time at which they were seen.
const KEPT: usize = 20;

/// The generator itself was not in time with a request.
const LATE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct Tally {
    pub began: Instant,
    pub sent: u64,
    pub answered: u64,
    pub failed: BTreeMap<Failure, u64>,
    /// The first of them, since the load began.
    pub first: Vec<(Duration, Failure)>,
    /// Requests that were sent later than they were due: the load was not what it says.
    pub late: u64,
    pub latest: Duration,
    /// The longest time between two answers, whoever got them.
    pub silence: Duration,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
    pub took: Duration,
    heard: Instant,
}

impl Tally {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            sent: 0,
            answered: 0,
            failed: BTreeMap::new(),
            first: Vec::new(),
            late: 0,
            latest: Duration::ZERO,
            silence: Duration::ZERO,
            slowest: Duration::ZERO,
            took: Duration::ZERO,
            heard: began,
        }
    }

    pub(super) fn sends(&mut self, due: Instant, now: Instant) {
        let behind = now.saturating_duration_since(due);
        self.sent += 1;
        self.latest = self.latest.max(behind);
        self.late += u64::from(behind > LATE);
    }

    pub(super) fn hears(&mut self, sent: Instant, now: Instant, result: Result<(), Failure>) {
        match result {
            Ok(()) => {
                self.answered += 1;
                self.silence = self.silence.max(now.saturating_duration_since(self.heard));
                self.heard = now;
                self.slowest = self.slowest.max(now.saturating_duration_since(sent));
            }
            Err(failure) => {
                *self.failed.entry(failure).or_default() += 1;
                if self.first.len() < KEPT {
                    self.first.push((now.saturating_duration_since(self.began), failure));
                }
            }
        }
    }

    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    pub fn count(&self, failure: Failure) -> u64 {
        self.failed.get(&failure).copied().unwrap_or_default()
    }

    pub fn per_100000(&self) -> f64 {
        self.failures() as f64 * 100_000.0 / self.sent.max(1) as f64
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, answered, late, latest, silence, slowest, took, .. } = self;
        write!(f, "{sent} sent in {took:.1?}, {answered} answered, {} failed", self.failures())?;
        for (failure, count) in &self.failed {
            write!(f, ", {} {count}", failure.word())?;
        }
        for (at, failure) in &self.first {
            write!(f, " [{} at {at:.3?}]", failure.word())?;
        }
        write!(f, "; slowest {slowest:.0?}, longest silence {silence:.0?}")?;
        write!(f, "; {late} sent late, the latest by {latest:.0?}")
    }
}
