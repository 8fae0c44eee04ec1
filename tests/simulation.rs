//! The pure core against thousands of random worlds, each history checked after every step.
//!
//! `SEEDS=n` simulates n worlds, from the first on or, with `FROM=m`, from the m-th. `SEED=n` replays one and prints its
//! whole history.

#[path = "simulation/books.rs"]
mod books;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/records.rs"]
mod records;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/setting.rs"]
mod setting;
#[path = "simulation/words.rs"]
mod words;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use drainit::core::signal::{Disposition, Signal};

use world::{Broken, World};

const SEEDS: u64 = 100_000;
const THREADS: usize = 2;
const LINES: usize = 30;

/// For a thousand steps of one world, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a simulation that never saw it would prove nothing about.
const CORNERS: [&str; 52] = [
    "a quiet end without handler",
    "a quiet end of a straggler",
    "an old worker was listened to",
    "a watched roll outlived its successor",
    "a watched roll was kept",
    "a canary failed in its hold",
    "a roll took over a recycling",
    "a rollback gave way",
    "another relief for one that hangs",
    "killed at a quiet moment, and slow to go",
    "what had changed went its own way",
    "a trial failed",
    "a trial succeeded",
    "aborted",
    "an old worker crashed in a roll",
    "blue/green",
    "dropped",
    "joined",
    "no memory in the middle of a roll",
    "preStop in a roll",
    "queued, then begun",
    "recycled by age",
    "recycled by memory",
    "recycled without a surge",
    "refused by the breaker",
    "refused for want of memory",
    "rolled",
    "rolled-back",
    "scaled in a roll",
    "short of memory",
    "stopped first",
    "stragglers fill the surge",
    "superseded",
    "a trial was given up",
    "a queue was waited for",
    "a hung worker's replacement",
    "a stop message in vain",
    "a stop message undelivered",
    "a silent worker",
    "a worker that stops by itself",
    "came to rest",
    "preStop without TERM",
    "a death in lame-duck",
    "a signal in the sweep",
    "exit over the undead",
    "exit 0",
    "exit 71",
    "exit 75",
    "exit 124",
    "exit 126",
    "exit 127",
    "exit with a worker's code",
];

#[test]
fn the_invariants_hold_in_every_world() {
    if let Some(seed) = number("SEED") {
        let watchdog = watchdog();
        _ = watchdog.send(seed);
        let mut world = World::new(seed);
        let ending = world.live(|| _ = watchdog.send(seed));
        println!("{}", history(&world, usize::MAX));
        return ending.unwrap_or_else(|broken| panic!("{}", report(&world, &broken)));
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let mut seen = Seen::default();
    // Some worlds take a thousand times as long as others.
    let first = number("FROM").unwrap_or(1);
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| live(&next, first + seeds))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).for_each(|part| seen.add(part));
    });
    if let Some(report) = seen.shortest {
        panic!("{}\nbroken worlds: {:?}", report.1, seen.broken);
    }
    println!("{:#?}", seen.marks);
    assert_eq!(seen.worlds, seeds);
    if seeds >= SEEDS {
        let missing: Vec<_> = CORNERS.iter().filter(|corner| !seen.marks.contains_key(*corner)).collect();
        assert!(missing.is_empty(), "never seen: {missing:?}");
        spreads(&seen.jitter);
    }
}

/// What was seen in many worlds.
#[derive(Default)]
struct Seen {
    worlds: u64,
    marks: BTreeMap<&'static str, u64>,
    jitter: Vec<f64>,
    /// By what broke in them.
    broken: BTreeMap<&'static str, Vec<u64>>,
    /// The broken one that takes the fewest steps, and what there is to say of it.
    shortest: Option<(u64, String)>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        other.marks.into_iter().for_each(|(mark, count)| *self.marks.entry(mark).or_default() += count);
        other.broken.into_iter().for_each(|(name, seeds)| self.broken.entry(name).or_default().extend(seeds));
        self.jitter.extend(other.jitter);
        let both = self.shortest.take().into_iter().chain(other.shortest);
        self.shortest = both.min_by_key(|(steps, _)| *steps);
    }
}

/// One world after the other, from `next` on and before `end`. `ONLY=name` reports of one invariant alone.
fn live(next: &AtomicU64, end: u64) -> Seen {
    let watchdog = watchdog();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut seen = Seen::default();
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
    while let Some(seed) = take() {
        _ = watchdog.send(seed);
        seen.worlds += 1;
        let mut world = World::new(seed);
        if let Err(broken) = world.live(|| _ = watchdog.send(seed)) {
            seen.broken.entry(broken.invariant).or_default().push(seed);
            let shorter = seen.shortest.as_ref().is_none_or(|(steps, _)| world.steps < *steps);
            if shorter && broken.invariant.contains(&only) {
                seen.shortest = Some((world.steps, report(&world, &broken)));
            }
            continue;
        }
        world.marks.iter().for_each(|mark| *seen.marks.entry(*mark).or_default() += 1);
        seen.jitter.append(&mut world.books.jitter);
    }
    seen
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in (1..=SEEDS).step_by(200) {
        let replay = || {
            let mut world = World::new(seed);
            _ = world.live(|| ());
            history(&world, usize::MAX)
        };
        assert_eq!(replay(), replay(), "seed {seed}");
    }
}

/// A core that turns in a circle never comes back to be checked. Wants the seed of each world.
fn watchdog() -> Sender<u64> {
    let (sender, seeds) = mpsc::channel();
    let watch = move || {
        let mut seed = 0;
        loop {
            match seeds.recv_timeout(PATIENCE) {
                Ok(next) => seed = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    _ = writeln!(
                        io::stderr(),
                        "\nbroken: settles\n  handle() does not return\n{}",
                        replay(seed)
                    );
                    std::process::abort();
                }
            }
        }
    };
    let started = thread::Builder::new().spawn(watch);
    assert!(started.is_ok(), "no watchdog: {started:?}");
    sender
}

fn replay(seed: u64) -> String {
    format!("replay: SEED={seed} cargo test --test simulation")
}

/// Workers that died together do not come back together.
fn spreads(jitter: &[f64]) {
    let share = |from: f64| jitter.iter().filter(|part| (from..from + 0.25).contains(*part)).count();
    for quarter in [0.0, 0.25, 0.5, 0.75] {
        assert!(share(quarter) * 6 > jitter.len(), "{quarter}: {} of {}", share(quarter), jitter.len());
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} takes a number, not {text:?}")))
}

fn report(world: &World, broken: &Broken) -> String {
    let (seed, config) = (world.seed, format!("{:?}", world.books.config));
    let table = config.find("signals: ").zip(config.find("remap_exit: "));
    let rules = table.map_or(config.clone(), |(from, to)| format!("{}{}", &config[..from], &config[to..]));
    let signals = Signal::all().map(|signal| (signal, world.books.config.signals.get(signal)));
    let signals: Vec<_> = signals.filter(|(_, does)| *does != Disposition::Forward).collect();
    format!(
        "\n{}\n{rules}\n{signals:?}\n{:?}\n\nbroken: {}\n  {}\nseed {seed}, step {}, {:?}\n{}",
        history(world, LINES),
        world.habits,
        broken.invariant,
        broken.detail,
        world.steps,
        world.books.now,
        replay(seed),
    )
}

/// The last lines of it.
fn history(world: &World, lines: usize) -> String {
    let skipped = world.history.len().saturating_sub(lines);
    let lines = world.history.iter().skip(skipped);
    lines.fold(String::new(), |mut text, entry| {
        _ = writeln!(text, "{entry}");
        text
    })
}
