//! `/metrics`: names and meanings of what Prometheus is told. Everything is read off when it is asked for.

mod rolls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::exposition::{Format, classic};
use super::process::Process;
use super::{Facts, Shared, Stats};
use crate::core::event::QuietEnd;
use crate::core::lb_wait::LbWaitEnd;
use crate::core::snapshot::{BreakerState, Phase, Snapshot, WorkerState};

/// All metrics, in the format that is asked for.
pub(super) async fn answer(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let snapshot = shared.counted().await;
    let sources = Sources { snapshot, facts: shared.facts, stats: shared.stats, process: Process::read() };
    match render(sources, format) {
        Ok(text) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn render(sources: Sources, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    let mut text = String::with_capacity(8 * 1024);
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    })
}

#[derive(Debug)]
struct Sources {
    snapshot: Arc<Snapshot>,
    facts: Arc<Facts>,
    stats: Arc<Stats>,
    process: Process,
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        out.info("drainit_build", "The version of drainit", ("version", &self.facts.version))?;
        self.pool(&mut out)?;
        rolls::encode(&self.snapshot, &mut out)?;
        self.deadlines(&mut out)?;
        self.around(&mut out)?;
        self.process(&mut out)
    }
}

impl Sources {
    fn pool(&self, out: &mut Families<'_>) -> fmt::Result {
        let Snapshot { phase, breaker, ref workers, ref counters, .. } = *self.snapshot;
        let phases = Phase::ALL.map(|each| (each.name(), u64::from(each == phase)));
        out.gauges("drainit_phase", "1 for the phase drainit is in", "phase", phases)?;
        out.gauge("drainit_ready", "What /readyz says", u64::from(self.snapshot.ready))?;
        let states = WorkerState::ALL.map(|state| {
            (state.name(), workers.iter().filter(|worker| worker.state == state).count() as u64)
        });
        out.gauges("drainit_workers", "Workers there are", "state", states)?;
        let mut connections: BTreeMap<_, u64> = BTreeMap::new();
        for worker in workers {
            let Some(open) = worker.connections else { continue };
            *connections.entry(worker.slot).or_default() += u64::from(open);
        }
        let connections = connections.into_iter().map(|(slot, open)| (slot.to_string(), open));
        let help = "Established connections of the workers in a slot, old and new";
        out.gauges("drainit_worker_connections", help, "slot", connections)?;
        out.gauge("drainit_workers_desired", "Workers there should be", self.snapshot.desired)?;
        out.gauge(
            "drainit_workers_min_ready",
            "Ready workers below which the pod is not ready",
            self.snapshot.min_ready,
        )?;
        let restarts = [
            ("exit", counters.restarts_exit),
            ("crash", counters.restarts_crash),
            ("oom", counters.restarts_oom),
            ("late", counters.restarts_late),
            ("hung", counters.restarts_hung),
        ];
        out.counters("drainit_worker_restarts", "Workers replaced, by why", "reason", restarts)?;
        out.counter("drainit_worker_spawns", "Workers started", counters.spawns)?;
        out.counter(
            "drainit_worker_spawn_failures",
            "Workers that could not be started",
            counters.spawn_failures,
        )?;
        out.counter(
            "drainit_forced_kills",
            "Workers killed because their time was up",
            counters.forced_kills,
        )?;
        let ended = [
            (QuietEnd::NoHandler.name(), counters.ended_without_handler),
            (QuietEnd::Straggler.name(), counters.ended_stragglers),
            (QuietEnd::Idle.name(), counters.ended_idle),
        ];
        out.counters(
            "drainit_workers_ended_idle",
            "Workers killed while they served nobody",
            "reason",
            ended,
        )?;
        out.counter(
            "drainit_worker_oom_kills",
            "Workers that the kernel killed for want of memory",
            counters.oom_kills,
        )?;
        out.counter("drainit_signals_forwarded", "Signals passed on to workers", counters.signals_forwarded)?;
        out.counter("drainit_prestop_calls", "Calls of the preStop hook", counters.prestop_calls)?;
        out.counter(
            "drainit_prestop_returns",
            "preStop hooks that no SIGTERM followed",
            counters.prestop_returns,
        )?;
        let waits = [
            (LbWaitEnd::Quiet.name(), counters.lb_waits_quiet),
            (LbWaitEnd::Max.name(), counters.lb_waits_max),
            (LbWaitEnd::Signal.name(), counters.lb_waits_signal),
        ];
        out.counters("drainit_lb_waits_ended", "LB waits, by why they were over", "reason", waits)?;
        let states = BreakerState::ALL.map(|state| (state.name(), u64::from(state == breaker)));
        out.gauges("drainit_breaker_state", "1 for the state the breaker is in", "state", states)
    }

    fn deadlines(&self, out: &mut Families<'_>) -> fmt::Result {
        let counters = &self.snapshot.counters;
        let set = self.facts.deadlines.iter();
        let set = set.filter_map(|&(name, deadline)| Some((name, deadline?.as_secs_f64())));
        out.gauges("drainit_deadline_seconds", "How long each wait may take", "deadline", set)?;
        let exceeded = [
            ("ready", counters.ready_timeouts),
            ("retire", counters.retire_timeouts),
            ("watchdog", counters.watchdog_timeouts),
            ("drain", counters.forced_kills),
            ("stop-message", counters.stop_message_timeouts),
            ("hard", counters.hard_deadlines),
            ("orphan", counters.orphan_timeouts),
            ("late", self.stats.late.overdue.load(Ordering::Relaxed)),
        ];
        out.counters("drainit_deadlines_exceeded", "Waits that took too long", "deadline", exceeded)?;
        let Some(drain) = &self.snapshot.drain else { return Ok(()) };
        if let Some(wait) = &drain.lb_wait {
            out.gauge("drainit_lb_wait_seconds", "How long the LB wait has lasted", wait.elapsed_seconds)?;
        }
        let (elapsed, left) = (drain.elapsed_seconds, drain.deadline_seconds - drain.elapsed_seconds);
        out.gauge("drainit_drain_elapsed_seconds", "Since the first of preStop and SIGTERM", elapsed)?;
        out.gauge("drainit_drain_remaining_seconds", "Until everything is killed", left.max(0.0))
    }

    /// What is counted around the core.
    fn around(&self, out: &mut Families<'_>) -> fmt::Result {
        let failed = self.stats.checks_failed.load(Ordering::Relaxed);
        out.counter("drainit_checks_failed", "Checks of workers that failed (--check)", failed)?;
        let freezes = self.stats.freezes.load(Ordering::Relaxed);
        out.counter("drainit_worker_freezes", "Times that a worker was stopped to be looked at", freezes)?;
        let frozen = Duration::from_micros(self.stats.frozen_micros.load(Ordering::Relaxed));
        out.counter(
            "drainit_worker_frozen_seconds",
            "Time that workers stood still for it",
            frozen.as_secs_f64(),
        )?;
        let late = &self.stats.late;
        let answers = [
            ("503", &late.unavailable),
            ("goaway", &late.goaway),
            ("closed", &late.closed),
            ("reset", &late.reset),
        ];
        let answers = answers.map(|(answer, count)| (answer, count.load(Ordering::Relaxed)));
        out.counters(
            "drainit_late_answers",
            "Connections that no worker accepted any more, by what they got",
            "answer",
            answers,
        )?;
        let Stats { orphans_reaped, log_lines_dropped, admin_connections, admin_evictions, .. } =
            &*self.stats;
        let orphans = orphans_reaped.load(Ordering::Relaxed);
        out.counter("drainit_orphans_reaped", "Processes reaped that were no workers", orphans)?;
        let dropped = log_lines_dropped.load(Ordering::Relaxed);
        out.counter("drainit_log_dropped", "Lines of drainit's log that nobody took in time", dropped)?;
        let connections = admin_connections.load(Ordering::Relaxed);
        out.gauge("drainit_admin_connections", "Open connections to drainit itself", connections)?;
        let evictions = admin_evictions.load(Ordering::Relaxed);
        out.counter("drainit_admin_evictions", "Idle ones of them dropped for newer ones", evictions)
    }

    /// The names every Prometheus client library uses; these are drainit's own figures, not the workers'.
    fn process(&self, out: &mut Families<'_>) -> fmt::Result {
        let process = &self.process;
        if let Some(cpu) = process.cpu_seconds {
            out.counter("process_cpu_seconds", "User and system CPU time spent", cpu)?;
        }
        if let Some(start) = process.start_time_seconds {
            out.gauge("process_start_time_seconds", "Start time since the Unix epoch", start)?;
        }
        let gauges = [
            ("process_open_fds", "Open file descriptors", process.open_fds),
            ("process_max_fds", "How many of them there may be", process.max_fds),
            ("process_virtual_memory_bytes", "Virtual memory", process.virtual_memory_bytes),
            ("process_resident_memory_bytes", "Resident memory", process.resident_memory_bytes),
            ("process_threads", "Threads", process.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                out.gauge(name, help, value)?;
            }
        }
        Ok(())
    }
}

/// Writes one family after another. Counters and infos are named without the suffix their samples get.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn info(&mut self, name: &str, help: &str, label: (&str, &str)) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&[label])
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn histogram(&mut self, name: &str, help: &str, values: &impl EncodeMetric) -> fmt::Result {
        values.encode(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&[(label, of.as_ref())])?)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            ConstCounter::new(value).encode(family.encode_family(&[(label, of)])?)?;
        }
        Ok(())
    }
}
