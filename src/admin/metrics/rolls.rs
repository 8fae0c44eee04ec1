//! Rolls and recyclings, and how long rolls took.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Families;
use crate::core::history::{ROLL_BUCKETS, RollTotals};
use crate::core::snapshot::{RollStage, Snapshot};

pub(super) fn encode(snapshot: &Snapshot, out: &mut Families<'_>) -> fmt::Result {
    let Snapshot { generation, ref roll, ref rolls, ref counters, .. } = *snapshot;
    out.gauge("drainit_generation", "The generation that the pool is, or goes back to", generation.0)?;
    let outcomes = [
        ("rolled", rolls.rolled),
        ("rolled-back", rolls.rolled_back),
        ("aborted", rolls.aborted),
        ("dropped", rolls.dropped),
    ];
    out.counters("drainit_rolls", "Rolls that are over, by how they ended", "outcome", outcomes)?;
    out.counter("drainit_rolls_refused", "Requests to roll that were refused or superseded", rolls.refused)?;
    let stages = RollStage::ALL
        .map(|stage| (stage.name(), u64::from(roll.as_ref().is_some_and(|roll| roll.stage == stage))));
    out.gauges("drainit_roll_stage", "1 for the stage of the roll that runs", "stage", stages)?;
    let done = roll.as_ref().map_or(0, |roll| roll.done);
    out.gauge("drainit_roll_slots_done", "Slots that are where the roll that runs wants them", done)?;
    let recycled = [("lifetime", counters.recycled_lifetime), ("memory", counters.recycled_memory)];
    out.counters(
        "drainit_workers_recycled",
        "Workers replaced while they served, by why",
        "reason",
        recycled,
    )?;
    out.histogram("drainit_roll_duration_seconds", "How long rolls took", &Durations(rolls))
}

struct Durations<'a>(&'a RollTotals);

impl EncodeMetric for Durations<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let RollTotals { seconds, total, buckets, .. } = self.0;
        let bounds = ROLL_BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(*buckets).collect();
        encoder.encode_histogram::<NoLabelSet>(*seconds, *total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
