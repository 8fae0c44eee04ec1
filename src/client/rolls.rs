//! Rolls for people: the one that runs, those that were.

use std::fmt::Write;

use serde::Deserialize;

use super::timeline::{Lifespan, draw};

/// So many of the last rolls are shown one by one.
const SHOWN: usize = 5;

/// What `/status` says of rolls; whatever else there is, or is not, does no harm.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rolls {
    pub(super) roll: Option<Running>,
    rolls: Totals,
    history: Vec<Record>,
    timeline: Vec<Lifespan>,
    pub(super) ready_workers: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Running {
    pub(super) roll: u64,
    from: u64,
    to: u64,
    version: Option<String>,
    pub(super) stage: String,
    reason: Option<String>,
    elapsed_seconds: f64,
    pub(super) done: u32,
    workers: u32,
    least_ready: u32,
    queued: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Totals {
    total: u64,
    rolled: u64,
    rolled_back: u64,
    refused: u64,
    failure_rate: f64,
    average_seconds: f64,
    minimum_seconds: f64,
    maximum_seconds: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    roll: u64,
    from: u64,
    to: u64,
    version: Option<String>,
    trigger: String,
    outcome: String,
    reason: Option<String>,
    duration_seconds: f64,
    replaced: u32,
    least_ready: u32,
    workers: u32,
    short_of_memory: bool,
    stragglers: u32,
}

impl Rolls {
    /// The roll that runs in one line.
    pub(super) fn progress(&self) -> Option<String> {
        let Running {
            roll,
            from,
            to,
            version,
            stage,
            reason,
            elapsed_seconds,
            done,
            workers,
            least_ready,
            queued,
        } = self.roll.as_ref()?;
        let version = version.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
        let reason = reason.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default();
        let queued = if *queued { "; another one waits" } else { "" };
        Some(format!(
            "roll {roll}, {from} -> {to}{version}: {stage}, {done} of {workers} slots done, {} ready (least {least_ready}), \
             {elapsed_seconds:.1} s{reason}{queued}\n",
            self.ready_workers
        ))
    }

    /// The workers of the roll that runs, or of the last one.
    pub(super) fn timeline(&self) -> String {
        let last = self.history.last();
        let newest = self.roll.as_ref().map(|roll| (roll.to, roll.elapsed_seconds));
        let newest = newest.or(last.map(|record| (record.to, record.duration_seconds)));
        newest.map(|(new, until)| draw(&self.timeline, new, until)).unwrap_or_default()
    }

    /// Everything.
    pub(super) fn report(&self) -> String {
        let mut out = self.progress().unwrap_or_default();
        let Totals {
            total,
            rolled,
            rolled_back,
            refused,
            failure_rate,
            average_seconds,
            minimum_seconds,
            maximum_seconds,
        } = self.rolls;
        // Writing to a String cannot fail.
        if total + refused > 0 {
            let _ = writeln!(
                out,
                "rolls: {total} ({rolled} rolled, {rolled_back} rolled back, {refused} refused), {:.0} % failed; \
                 {average_seconds:.1} s on average, {minimum_seconds:.1} to {maximum_seconds:.1} s",
                failure_rate * 100.0
            );
        }
        for record in self.history.iter().rev().take(SHOWN) {
            let Record {
                roll,
                from,
                to,
                trigger,
                outcome,
                duration_seconds,
                replaced,
                least_ready,
                workers,
                ..
            } = record;
            let version = record.version.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
            let _ = write!(
                out,
                "  {roll}: {from} -> {to}{version} by {trigger}: {outcome} in {duration_seconds:.1} s, {replaced} replaced, \
                 least ready {least_ready} of {workers}"
            );
            if record.stragglers > 0 {
                let _ = write!(out, ", {} stragglers ended", record.stragglers);
            }
            if record.short_of_memory {
                let _ = write!(out, ", no memory for a surge");
            }
            let _ =
                writeln!(out, "{}", record.reason.as_ref().map(|why| format!("; {why}")).unwrap_or_default());
        }
        out + &self.timeline()
    }
}
