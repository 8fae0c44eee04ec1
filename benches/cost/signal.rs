//! From a signal sent to an init to its receipt in the worker.

use std::io::{self, Read};

use nix::sys::signal::Signal;

use crate::clock;
use crate::launch::{Command, Namespace, Talk};
use crate::plan::Plan;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::worker;

const BAR: Bar = Bar::Ratio(1.5);

pub(crate) fn measure(plan: &Plan, inits: &[Subject], namespace: Option<Namespace>) -> io::Result<Vec<Row>> {
    let subjects: Vec<_> = inits.iter().cloned().chain([Subject::none()]).collect();
    let worker = worker::command("stamp")?;
    let mut talks = subjects
        .iter()
        .map(|subject| Command::new(subject.run(&[], &worker))?.start_piped(namespace))
        .collect::<io::Result<Vec<_>>>()?;
    // Each says once that it is there.
    talks.iter_mut().try_for_each(|talk| stamp(talk).map(drop))?;
    let mut series = Series::of(&subjects);
    let mut shuffle = Shuffle::new();
    for _ in 0..plan.signal_rounds {
        for index in shuffle.round(talks.len()) {
            let (Some(talk), Some(series)) = (talks.get_mut(index), series.get_mut(index)) else { continue };
            series.values.push(latency(talk)?);
        }
    }
    Ok(table::rounds("signal forwarded", "us", &series, BAR))
}

fn latency(talk: &mut Talk) -> io::Result<f64> {
    let sent = clock::now();
    talk.process.signal(Signal::SIGUSR1)?;
    Ok(clock::micros(stamp(talk)?.saturating_sub(sent)))
}

fn stamp(talk: &mut Talk) -> io::Result<u64> {
    let mut stamp = [0; 8];
    talk.from.read_exact(&mut stamp)?;
    Ok(u64::from_ne_bytes(stamp))
}
