//! When each worker of a roll was what: the proof that somebody always served.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::pool::Pool;
use super::time::Time;
use super::types::{Generation, Pid, SlotIndex, WorkerId};

/// Who looks at more rows than this looks at numbers instead.
const SLOTS: SlotIndex = 64;

/// Workers that came and went in one roll, however often one of them crashes.
const WORKERS: usize = 4 * SLOTS as usize;

/// One worker in a roll. In seconds since the roll began, negative for what was before; `None`: not yet, or never.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lifespan {
    pub slot: SlotIndex,
    pub pid: Option<Pid>,
    pub generation: Generation,
    pub started: f64,
    pub ready: Option<f64>,
    /// It served no more: told to go, ending by itself, or hung.
    pub stopping: Option<f64>,
    pub gone: Option<f64>,
}

/// The workers of the roll that runs, or of the last one, until those that were replaced are gone.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    began: Time,
    /// Newcomers belong to it no more.
    over: bool,
    spans: BTreeMap<WorkerId, Span>,
}

#[derive(Debug)]
struct Span {
    slot: SlotIndex,
    pid: Option<Pid>,
    generation: Generation,
    started: Time,
    ready: Option<Time>,
    stopping: Option<Time>,
    gone: Option<Time>,
}

impl Timeline {
    pub(super) fn begin(now: Time) -> Self {
        Self { began: now, ..Self::default() }
    }

    /// Look who is what now.
    pub(super) fn follow(&mut self, pool: &Pool, now: Time) {
        if self.over && self.spans.values().all(|span| span.gone.is_some() || span.stopping.is_none()) {
            return;
        }
        for (id, span) in &mut self.spans {
            if span.gone.is_none() && !pool.has(*id) {
                span.gone = Some(now);
                span.stopping.get_or_insert(now);
            }
        }
        for (id, worker) in pool.workers().filter(|(_, worker)| worker.slot < SLOTS) {
            if !self.spans.contains_key(&id) && (self.over || self.spans.len() == WORKERS) {
                continue;
            }
            let span = self.spans.entry(id).or_insert_with(|| Span {
                slot: worker.slot,
                pid: None,
                generation: worker.edition.generation,
                started: worker.spawned(),
                ready: None,
                stopping: None,
                gone: None,
            });
            span.pid = span.pid.or(worker.known_pid());
            span.ready = span.ready.or(worker.ready_at());
            if span.ready.is_some() && !worker.state.is_ready() {
                span.stopping.get_or_insert(now);
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// By slot, and in each by age.
    pub(super) fn lifespans(&self) -> Vec<Lifespan> {
        let since = |at: Time| {
            let span = |later: Time, earlier: Time| -> Duration { later.since(earlier) };
            span(at, self.began).as_secs_f64() - span(self.began, at).as_secs_f64()
        };
        let mut lifespans: Vec<_> = self
            .spans
            .values()
            .map(|span| Lifespan {
                slot: span.slot,
                pid: span.pid,
                generation: span.generation,
                started: since(span.started),
                ready: span.ready.map(since),
                stopping: span.stopping.map(since),
                gone: span.gone.map(since),
            })
            .collect();
        lifespans.sort_by_key(|lifespan| lifespan.slot);
        lifespans
    }
}
