//! The rolls that were: the last hundred, and what they add up to.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::snapshot::RollOutcome;
use super::types::Generation;

/// So many are remembered one by one.
const REMEMBERED: usize = 100;

/// The upper bounds of the histogram's buckets, in seconds; one more takes the rest.
pub const ROLL_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// One roll, from its first worker to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RollRecord {
    /// Counted from 1.
    pub roll: u64,
    pub from: Generation,
    pub to: Generation,
    /// Of the new generation, where it has one.
    pub version: Option<String>,
    /// What started it.
    pub trigger: String,
    pub outcome: RollOutcome,
    /// Why it is not [`RollOutcome::Rolled`].
    pub reason: Option<String>,
    /// Since drainit's start.
    pub began_seconds: f64,
    pub duration_seconds: f64,
    /// Slots that were given to the new generation.
    pub replaced: u32,
    /// Workers of the new generation that failed.
    pub failures: u32,
    /// The fewest workers that were ready at any moment of it.
    pub least_ready: u32,
    /// How many there should have been.
    pub workers: u32,
    /// There was no memory for a surge.
    pub short_of_memory: bool,
    /// Replaced workers that did not finish in time, and were ended.
    pub stragglers: u32,
}

/// All rolls together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RollTotals {
    pub total: u64,
    pub rolled: u64,
    pub rolled_back: u64,
    pub aborted: u64,
    pub dropped: u64,
    /// Requests that were not let through; no rolls.
    pub refused: u64,
    /// Of all that were neither aborted nor dropped, 0 to 1.
    pub failure_rate: f64,
    pub average_seconds: f64,
    pub minimum_seconds: f64,
    pub maximum_seconds: f64,
    pub last: Option<RollOutcome>,
    /// How many took as long as each of [`ROLL_BUCKETS`] at most and longer than the one before; and the rest.
    #[serde(skip)]
    pub buckets: [u64; ROLL_BUCKETS.len() + 1],
    #[serde(skip)]
    pub seconds: f64,
}

/// The books of all rolls.
#[derive(Debug, Default)]
pub(super) struct History {
    records: VecDeque<Arc<RollRecord>>,
    totals: RollTotals,
}

impl History {
    pub(super) fn add(&mut self, record: RollRecord) {
        self.totals.add(&record);
        if self.records.len() == REMEMBERED {
            self.records.pop_front();
        }
        self.records.push_back(Arc::new(record));
    }

    pub(super) fn on_refused(&mut self) {
        self.totals.refused += 1;
    }

    /// A worker that a roll had replaced did not finish in time.
    pub(super) fn on_straggler(&mut self, roll: u64) {
        if let Some(record) = self.records.iter_mut().find(|record| record.roll == roll) {
            Arc::make_mut(record).stragglers += 1;
        }
    }

    /// Oldest first.
    pub(super) fn records(&self) -> Vec<Arc<RollRecord>> {
        self.records.iter().map(Arc::clone).collect()
    }

    pub(super) fn totals(&self) -> &RollTotals {
        &self.totals
    }
}

impl RollTotals {
    fn add(&mut self, record: &RollRecord) {
        let seconds = record.duration_seconds;
        self.minimum_seconds = if self.total == 0 { seconds } else { self.minimum_seconds.min(seconds) };
        self.maximum_seconds = self.maximum_seconds.max(seconds);
        self.total += 1;
        self.seconds += seconds;
        self.average_seconds = self.seconds / self.total as f64;
        let counter = match record.outcome {
            RollOutcome::Rolled => &mut self.rolled,
            RollOutcome::RolledBack => &mut self.rolled_back,
            RollOutcome::Aborted => &mut self.aborted,
            RollOutcome::Dropped => &mut self.dropped,
        };
        *counter += 1;
        let judged = self.rolled + self.rolled_back;
        self.failure_rate = if judged == 0 { 0.0 } else { self.rolled_back as f64 / judged as f64 };
        self.last = Some(record.outcome);
        let bucket = ROLL_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(ROLL_BUCKETS.len());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }
}

/// Records are shared between snapshots, which are many; serde does that only by another feature.
pub(super) fn serialize_records<S: Serializer>(
    records: &[Arc<RollRecord>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(records.iter().map(|record| &**record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(roll: u64, outcome: RollOutcome, duration_seconds: f64) -> RollRecord {
        RollRecord {
            roll,
            from: Generation(1),
            to: Generation(2),
            version: None,
            trigger: "request".to_owned(),
            outcome,
            reason: None,
            began_seconds: 0.0,
            duration_seconds,
            replaced: 1,
            failures: 0,
            least_ready: 1,
            workers: 1,
            short_of_memory: false,
            stragglers: 0,
        }
    }

    #[test]
    fn a_hundred_are_remembered_and_all_are_counted() {
        let mut history = History::default();
        (1..=150).for_each(|roll| history.add(record(roll, RollOutcome::Rolled, roll as f64)));
        let records = history.records();
        assert_eq!((records.len(), records[0].roll, records[99].roll), (100, 51, 150));
        let totals = history.totals();
        assert_eq!((totals.total, totals.minimum_seconds, totals.maximum_seconds), (150, 1.0, 150.0));
        assert_eq!(totals.average_seconds, 75.5);
    }

    #[test]
    fn what_nobody_judged_counts_for_no_failure_rate() {
        let mut history = History::default();
        history.add(record(1, RollOutcome::Aborted, 1.0));
        assert_eq!(history.totals().failure_rate, 0.0);
        history.add(record(2, RollOutcome::RolledBack, 1.0));
        history.add(record(3, RollOutcome::Rolled, 1.0));
        assert_eq!(history.totals().failure_rate, 0.5);
        assert_eq!(history.totals().last, Some(RollOutcome::Rolled));
    }

    #[test]
    fn a_straggler_is_written_into_its_roll() {
        let mut history = History::default();
        history.add(record(7, RollOutcome::Rolled, 1.0));
        let before = history.records();
        history.on_straggler(7);
        assert_eq!((before[0].stragglers, history.records()[0].stragglers), (0, 1));
    }
}
