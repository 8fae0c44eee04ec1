//! What an init spends on processes that it never started.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::clock;
use crate::launch::{Command, Namespace, Talk};
use crate::plan::Plan;
use crate::procfs;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::worker;

const BAR: Bar = Bar::Ratio(1.5);

/// Only PID 1 gets the orphans of all of these inits.
pub(crate) fn measure(plan: &Plan, inits: &[Subject], namespace: Option<Namespace>) -> io::Result<Vec<Row>> {
    if namespace.is_none() {
        println!("\norphans: not measured without PID namespaces");
        return Ok(Vec::new());
    }
    let worker = worker::command("orphans")?;
    let mut talks = inits
        .iter()
        .map(|subject| Command::new(subject.run(&[], &worker))?.start_piped(namespace))
        .collect::<io::Result<Vec<_>>>()?;
    talks.iter_mut().try_for_each(await_dot)?;
    let mut rows = rounds("storm", plan.storm, inits, &mut talks)?;
    rows.extend(rounds("burst", plan.burst, inits, &mut talks)?);
    rows.extend(left_over(inits, &talks)?);
    Ok(rows)
}

fn rounds(
    kind: &str,
    (rounds, count): (usize, usize),
    inits: &[Subject],
    talks: &mut [Talk],
) -> io::Result<Vec<Row>> {
    let mut series = Series::of(inits);
    let mut shuffle = Shuffle::new();
    for _ in 0..rounds {
        for index in shuffle.round(talks.len()) {
            let (Some(talk), Some(series)) = (talks.get_mut(index), series.get_mut(index)) else { continue };
            series.values.push(processor_time_per_orphan(talk, kind, count)?);
        }
    }
    let unit = format!("processor us an orphan, {count} of them");
    Ok(table::rounds(&format!("orphans, {kind}"), &unit, &series, BAR))
}

fn processor_time_per_orphan(talk: &mut Talk, kind: &str, count: usize) -> io::Result<f64> {
    let before = clock::processor_time(talk.process.pid)?;
    writeln!(talk.to, "{kind} {count}")?;
    await_dot(talk)?;
    await_reaped(talk)?;
    Ok((clock::processor_time(talk.process.pid)? - before) / count as f64)
}

fn await_dot(talk: &mut Talk) -> io::Result<()> {
    talk.from.read_exact(&mut [0])
}

/// Until the worker is the only child, or for as long as would be a scandal.
fn await_reaped(talk: &Talk) -> io::Result<()> {
    for _ in 0..5000 {
        if procfs::children(talk.process.pid)?.0 <= 1 {
            break;
        }
        clock::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn left_over(inits: &[Subject], talks: &[Talk]) -> io::Result<Vec<Row>> {
    let rows = inits
        .iter()
        .zip(talks)
        .map(|(init, talk)| {
            let (_, zombies) = procfs::children(talk.process.pid)?;
            Ok(Row::of("orphans left as zombies", init, zombies as f64, Bar::Value(0.0)))
        })
        .collect::<io::Result<Vec<_>>>()?;
    Ok(table::once("orphans left as zombies", "processes", rows))
}
