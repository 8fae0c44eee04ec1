//! What one world is like: the rules drainit gets, and the habits of what surrounds it.

use std::collections::BTreeMap;
use std::time::Duration;

use drainit::core::config::{
    Backoff, BreakerRules, Canary, Config, Count, Kind, LbWait, MaxCrashes, ReadinessOnDrain, Restart,
    RollRules, StopMessage,
};
use drainit::core::event::SpawnFailure;
use drainit::core::signal::{Disposition, Signal, SignalTable};
use drainit::core::types::Scope;

use super::rng::Rng;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const QUIT: Signal = signal(3);
pub(crate) const USR1: Signal = signal(10);
pub(crate) const RTMIN_3: Signal = signal(37);

const fn signal(number: i32) -> Signal {
    match Signal::new(number) {
        Some(signal) => signal,
        None => panic!("no such signal"),
    }
}

/// How likely what is, in percent.
#[derive(Debug)]
pub(crate) struct Habits {
    /// Until then people and workers misbehave; afterwards everything new goes well.
    pub(crate) horizon: Duration,
    /// Things that people do at random times before the horizon.
    pub(crate) provocations: u64,
    /// That something is done to drainit exactly when a deadline of its own is due.
    pub(crate) punctual: u64,
    pub(crate) crash: u64,
    /// How long a worker lives that crashes.
    pub(crate) lifetime: Duration,
    pub(crate) slow_ready: u64,
    pub(crate) never_ready: u64,
    pub(crate) slow_spawn: u64,
    pub(crate) spawn_failure: u64,
    /// What the very first start ends with.
    pub(crate) first_start: Option<SpawnFailure>,
    /// Workers that do not answer the stop signal.
    pub(crate) stuck: u64,
    /// Workers that do not catch the stop signal.
    pub(crate) no_handler: u64,
    /// Workers that always have a request in flight.
    pub(crate) never_quiet: u64,
    /// Workers that are told to go and accept connections to their end.
    pub(crate) keeps_accepting: u64,
    /// Workers that do not answer the stop message.
    pub(crate) deaf: u64,
    /// Messages that do not arrive.
    pub(crate) undelivered: u64,
    /// Workers that not even KILL ends at once.
    pub(crate) undead: u64,
    pub(crate) orphans: u64,
    pub(crate) clock_step: u64,
    pub(crate) drain_signal: u64,
    /// Of what people do, that it is about rolls.
    pub(crate) rolls: u64,
    /// Releases that are no good.
    pub(crate) bad_release: u64,
    /// That there is no memory for one worker more.
    pub(crate) no_memory: u64,
    pub(crate) slow_scales: u64,
    /// That a worker with a watchdog pings no more.
    pub(crate) falls_silent: u64,
}

impl Habits {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let often = |rng: &mut Rng| rng.pick(&[0, 0, 10, 50, 100]);
        Self {
            horizon: rng.pick(&[ms(100), ms(5_000), ms(30_000), ms(120_000)]),
            provocations: rng.below(14),
            punctual: rng.pick(&[0, 10, 40]),
            crash: often(rng),
            lifetime: rng.pick(&[ms(0), ms(50), ms(3_000), ms(40_000)]),
            slow_ready: often(rng),
            never_ready: rng.pick(&[0, 0, 10, 100]),
            slow_spawn: often(rng),
            spawn_failure: rng.pick(&[0, 0, 10, 60]),
            first_start: rng.chance(4).then(|| spawn_failure(rng)),
            stuck: often(rng),
            no_handler: often(rng),
            never_quiet: often(rng),
            keeps_accepting: often(rng),
            deaf: often(rng),
            undelivered: rng.pick(&[0, 0, 20, 100]),
            undead: rng.pick(&[0, 0, 20, 100]),
            orphans: rng.pick(&[0, 20, 100]),
            clock_step: rng.pick(&[0, 0, 2, 10]),
            drain_signal: rng.pick(&[0, 5, 30]),
            rolls: rng.pick(&[0, 30, 60, 90]),
            bad_release: rng.pick(&[0, 20, 50, 80]),
            no_memory: rng.pick(&[0, 0, 20, 100]),
            slow_scales: rng.pick(&[0, 30, 100]),
            falls_silent: rng.pick(&[0, 0, 2, 20, 100]),
        }
    }
}

/// What becomes of the workers of a release.
#[derive(Clone, Debug)]
pub(crate) enum Character {
    Good,
    ExitsAtOnce,
    ExitsOnceReady,
    NeverReady,
    Hangs,
    CannotStart(SpawnFailure),
    Slow,
}

impl Character {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.below(6) {
            0 => Self::ExitsAtOnce,
            1 => Self::ExitsOnceReady,
            2 => Self::NeverReady,
            3 => Self::Hangs,
            4 => Self::CannotStart(spawn_failure(rng)),
            _ => Self::Slow,
        }
    }
}

pub(crate) fn spawn_failure(rng: &mut Rng) -> SpawnFailure {
    rng.pick(&[
        SpawnFailure::NotFound("no such file".to_owned()),
        SpawnFailure::CannotExecute("permission denied".to_owned()),
        SpawnFailure::System("resource temporarily unavailable".to_owned()),
    ])
}

pub(crate) fn config(rng: &mut Rng) -> Config {
    let kind = if rng.chance(25) { Kind::Single } else { Kind::Pool };
    let workers = if kind == Kind::Single { 1 } else { rng.between(1, 8) };
    let backoff_min = rng.pick(&[ms(1), ms(100), ms(1_000)]);
    // The last ones leave less than nothing, nothing, and next to nothing.
    let (grace, margin) = rng.pick(&[
        (ms(30_000), ms(1_000)),
        (ms(10_000), ms(1_000)),
        (ms(120_000), ms(5_000)),
        (ms(2_000), ms(1_000)),
        (ms(500), ms(1_000)),
        (ms(0), ms(0)),
        (ms(60), ms(50)),
    ]);
    let lb_max = rng.pick(&[ms(0), ms(0), ms(700), ms(3_000), ms(15_000), ms(60_000)]);
    Config {
        kind,
        workers,
        version: None,
        roll: roll_rules(rng),
        breaker: BreakerRules {
            failures: rng.between(1, 4),
            window: rng.pick(&[ms(1_000), ms(60_000), ms(600_000)]),
            reset: rng.pick(&[ms(0), ms(500), ms(10_000), ms(60_000)]),
        },
        max_lifetime: rng.chance(15).then(|| rng.pick(&[ms(1_000), ms(10_000), ms(60_000)])),
        restart: rng.pick(&[Restart::Always, Restart::Always, Restart::OnFailure, Restart::Never]),
        backoff: Backoff { min: backoff_min, max: backoff_min * rng.pick(&[1, 10, 300]) },
        min_uptime: rng.pick(&[ms(0), ms(1_000), ms(10_000)]),
        max_crashes: rng.chance(70).then(|| MaxCrashes {
            count: rng.between(0, 6),
            window: rng.pick(&[ms(1_000), ms(10_000), ms(60_000)]),
        }),
        ready_timeout: rng.chance(70).then(|| rng.pick(&[ms(1), ms(1_000), ms(5_000), ms(30_000)])),
        min_ready: match rng.below(3) {
            0 => Count::Workers(1),
            1 => Count::Workers(rng.between(1, workers + 1)),
            _ => Count::Percent(rng.between(1, 100)),
        },
        watchdog: rng.chance(20).then(|| rng.pick(&[ms(1), ms(1_000), ms(5_000), ms(30_000)])),
        grace,
        margin,
        lb_wait: LbWait { min: rng.up_to(lb_max), max: lb_max },
        lb_quiet: Duration::from_secs(2),
        lb_checks: 2,
        readiness_on_drain: rng.pick(&[ReadinessOnDrain::Fail, ReadinessOnDrain::Keep]),
        drain_timeout: rng
            .chance(50)
            .then(|| rng.pick(&[ms(0), ms(10), ms(1_000), ms(5_000), ms(86_400_000)])),
        orphan_grace: rng.pick(&[ms(0), ms(10), ms(1_000), ms(5_000), ms(60_000)]),
        stop_message: rng.chance(40).then(|| StopMessage {
            wait: rng.pick(&[None, None, Some(ms(0)), Some(ms(300)), Some(ms(4_000)), Some(ms(86_400_000))]),
        }),
        stop_signal: rng.pick(&[Signal::TERM, Signal::TERM, QUIT, Signal::INT, USR1, RTMIN_3]),
        signal_scope: rng.pick(&[Scope::Leader, Scope::Group]),
        own_queues: kind == Kind::Pool && rng.chance(30),
        signals: signals(kind, rng),
        late: None,
        remap_exit: remap(rng),
        seed: rng.next(),
    }
}

fn roll_rules(rng: &mut Rng) -> RollRules {
    let count = |rng: &mut Rng| match rng.below(3) {
        0 => Count::Workers(rng.pick(&[0, 1, 1, 2, 3, 50])),
        1 => Count::Percent(rng.pick(&[0, 1, 25, 50, 100])),
        _ => Count::Workers(rng.pick(&[0, 1])),
    };
    RollRules {
        max_surge: count(rng),
        max_unavailable: if rng.chance(50) { Count::Workers(0) } else { count(rng) },
        min_ready_time: rng.pick(&[ms(0), ms(0), ms(50), ms(2_000), ms(15_000)]),
        pause: rng.pick(&[ms(0), ms(0), ms(0), ms(500), ms(10_000)]),
        canary: rng.chance(30).then(|| Canary {
            workers: rng.pick(&[1, 1, 2, 9]),
            hold: rng.pick(&[ms(0), ms(1_000), ms(20_000)]),
        }),
        waits_for_drain: rng.chance(25),
    }
}

fn signals(kind: Kind, rng: &mut Rng) -> SignalTable {
    let mut table = match kind {
        Kind::Single => SignalTable::single(),
        Kind::Pool => SignalTable::pool(),
    };
    if rng.chance(20) {
        table.set(USR1, rng.pick(&[Disposition::Rewrite(Signal::HUP), Disposition::Ignore]));
        table.set(Signal::USR2, rng.pick(&[Disposition::Drain, Disposition::Forward]));
        table.set(Signal::TTIN, Disposition::ScaleUp);
        table.set(Signal::INT, rng.pick(&[Disposition::Forward, Disposition::Drain]));
    }
    table
}

fn remap(rng: &mut Rng) -> BTreeMap<u8, u8> {
    if rng.chance(80) {
        return BTreeMap::new();
    }
    [(143, 0), (75, 1), (124, 0), (0, 9), (127, 2)].into_iter().filter(|_| rng.chance(50)).collect()
}
