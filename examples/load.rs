//! A steady load from wherever it is started, as a program: `load ADDRESS:PORT PATH SHAPE...`, a shape being `new:RATE`, each
//! request on a new connection, or `kept:RATE:CONNECTIONS`, on connections that are kept.
//!
//! Every second a line of JSON says how many requests were answered and how many failed so far; after SIGTERM it waits for the
//! answers to those that were sent, and a line for each shape says what became of them. As PID 1 too.
#![allow(clippy::disallowed_methods, reason = "a program of its own, outside the architecture of drainit")]

#[path = "support/steady/mod.rs"]
mod steady;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use steady::{Shape, Steady, Tally};

const TICK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}; takes ADDRESS:PORT PATH new:RATE|kept:RATE:CONNECTIONS...");
            ExitCode::from(64)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, shapes @ ..] = &words[..] else { return Err("too few words".into()) };
    let address: SocketAddr = address.parse()?;
    let shapes = shapes.iter().map(|word| Ok((word, shape(word)?))).collect::<Result<Vec<_>, String>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }

    let loads: Vec<_> =
        shapes.into_iter().map(|(word, shape)| (word, Steady::start(address, path, shape))).collect();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if due <= Instant::now() {
            let sum = |count: fn(&Steady) -> u64| loads.iter().map(|(_, load)| count(load)).sum::<u64>();
            say(&json!({ "at": now(), "answered": sum(Steady::answered), "failed": sum(Steady::failed) }))?;
            due += TICK;
        }
        thread::sleep(Duration::from_millis(50));
    }
    for (word, load) in loads {
        let tally = load.stop()?;
        say(&summary(word, &tally))?;
    }
    Ok(())
}

fn shape(word: &str) -> Result<Shape, String> {
    let parts: Vec<_> = word.split(':').collect();
    let number = |text: &str| text.parse().map_err(|_| format!("{word}: {text} is no number"));
    match parts[..] {
        ["new", rate] => Ok(Shape::New { rate: number(rate)? }),
        ["kept", rate, connections] => {
            Ok(Shape::Kept { rate: number(rate)?, connections: number(connections)? as usize })
        }
        _ => Err(format!("{word} is no shape")),
    }
}

fn summary(word: &str, tally: &Tally) -> serde_json::Value {
    let failed: serde_json::Map<_, _> =
        tally.failed.iter().map(|(kind, count)| (kind.word().to_owned(), json!(count))).collect();
    let began = SystemTime::now() - tally.began.elapsed();
    let first: Vec<_> = tally
        .first
        .iter()
        .map(|(at, kind)| json!({ "at": unix(began + *at), "kind": kind.word() }))
        .collect();
    json!({
        "shape": word,
        "sent": tally.sent,
        "answered": tally.answered,
        "failed": failed,
        "first": first,
        "late": tally.late,
        "slowest_seconds": tally.slowest.as_secs_f64(),
        "silence_seconds": tally.silence.as_secs_f64(),
    })
}

fn now() -> f64 {
    unix(SystemTime::now())
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// One write a line, at once.
fn say(line: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}
