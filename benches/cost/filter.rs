//! What the filter of bind adoption costs a worker at all its other system calls.

use std::io::{self, Read, Write};

use crate::launch::{Command, Talk};
use crate::plan::Plan;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::worker;

/// In a container there is a filter already, the runtime's, and with it the way through the kernel that looks for filters.
/// A second one, which lets everything pass that it does not ask about, is then below what can be told from nothing.
const BAR: Bar = Bar::Ratio(1.05);

const WITHOUT: &str = "off";

/// The calls in the order in which the worker tells of them. The last is one whose arguments the filter looks at.
const CALLS: [&str; 3] = ["getppid", "read and write", "setsockopt"];

/// The same worker below the same drainit, with the filter and without, turn by turn; in a container's place, and where
/// there is no filter yet.
pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for init in inits.iter().filter(|init| init.ours) {
        for (place, is_first) in [("the runtime's filter there", false), ("no filter there", true)] {
            let series = rounds(plan, init, is_first)?;
            for (call, series) in CALLS.into_iter().zip(&series) {
                let bar = if is_first || call == "setsockopt" { Bar::None } else { BAR };
                let measure = format!("--adopt-bind on, {place}: {call}");
                rows.extend(table::rounds_beside(WITHOUT, &measure, "ns a call", series, |_| bar));
            }
        }
    }
    Ok(rows)
}

fn rounds(plan: &Plan, init: &Subject, is_first: bool) -> io::Result<[Vec<Series>; CALLS.len()]> {
    let mut without = init.renamed(WITHOUT.to_owned());
    without.ours = false;
    let subjects = [without, init.clone()];
    let mut talks = [start(init, "off", is_first)?, start(init, "on", is_first)?];
    let mut series = CALLS.map(|_| Series::of(&subjects));
    let mut shuffle = Shuffle::new();
    for _ in 0..plan.filter_rounds {
        for index in shuffle.round(talks.len()) {
            let Some(talk) = talks.get_mut(index) else { continue };
            for (series, figure) in series.iter_mut().zip(ask(talk)?) {
                let Some(series) = series.get_mut(index) else { continue };
                series.values.push(figure);
            }
        }
    }
    Ok(series)
}

fn start(init: &Subject, adopt: &str, is_first: bool) -> io::Result<Talk> {
    let adopt = format!("--adopt-bind={adopt}");
    let options = [
        "--listen=127.0.0.1:0",
        "--admin=off",
        "--control=off",
        "--ready-when=started",
        "--log-level=off",
        &adopt,
    ];
    let command = init.run(&options, &worker::command("calls")?);
    let command = if is_first { command } else { worker::filtered(command)? };
    let mut talk = Command::new(command)?.start_piped(None)?;
    // The first time is warming up.
    ask(&mut talk)?;
    Ok(talk)
}

fn ask(talk: &mut Talk) -> io::Result<[f64; CALLS.len()]> {
    talk.to.write_all(b"\n")?;
    let mut answer = [[0; 8]; CALLS.len()];
    talk.from.read_exact(answer.as_flattened_mut())?;
    Ok(answer.map(f64::from_ne_bytes))
}
