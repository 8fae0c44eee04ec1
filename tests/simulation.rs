//! The pure core against thousands of random worlds, each history checked after every step.
//!
//! `SEEDS=n` simulates worlds 1 to n, `SEED=n` replays one and prints its whole history.

#[path = "simulation/books.rs"]
mod books;
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/notes.rs"]
mod notes;
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
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use drainit::core::signal::{Disposition, Signal};

use world::{Broken, World};

const SEEDS: u64 = 50_000;
const LINES: usize = 30;

/// For one world, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a simulation that never saw it would prove nothing about.
const CORNERS: [&str; 20] = [
    "a quiet end without handler",
    "a quiet end of a straggler",
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
    let watchdog = watchdog();
    if let Some(seed) = number("SEED") {
        _ = watchdog.send(seed);
        let mut world = World::new(seed);
        let ending = world.live();
        println!("{}", history(&world, usize::MAX));
        return ending.unwrap_or_else(|broken| panic!("{}", report(&world, &broken)));
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let mut seen = BTreeMap::<_, u64>::new();
    let mut jitter = Vec::new();
    let mut shortest: Option<(World, Broken)> = None;
    let mut tally = BTreeMap::<_, u64>::new();
    for seed in 1..=seeds {
        _ = watchdog.send(seed);
        let mut world = World::new(seed);
        if let Err(broken) = world.live() {
            *tally.entry(broken.invariant).or_default() += 1;
            if shortest.as_ref().is_none_or(|(shortest, _)| world.steps < shortest.steps) {
                shortest = Some((world, broken));
            }
            continue;
        }
        world.marks.iter().for_each(|mark| *seen.entry(*mark).or_default() += 1);
        jitter.append(&mut world.books.jitter);
    }
    if let Some((world, broken)) = shortest {
        panic!("{}\nbroken worlds: {tally:#?}", report(&world, &broken));
    }
    println!("{seen:#?}");
    if seeds >= SEEDS {
        let missing: Vec<_> = CORNERS.iter().filter(|corner| !seen.contains_key(*corner)).collect();
        assert!(missing.is_empty(), "never seen: {missing:?}");
        spreads(&jitter);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in (1..=SEEDS).step_by(100) {
        let replay = || {
            let mut world = World::new(seed);
            _ = world.live();
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
