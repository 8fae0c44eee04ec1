//! From the start of an init to its end, around a command that does nothing.

use std::io;

use crate::clock;
use crate::launch::{Command, Namespace};
use crate::plan::Plan;
use crate::stats::{Series, Shuffle};
use crate::subject::Subject;
use crate::table::{self, Bar, Row};

const BAR: Bar = Bar::Ratio(1.3);

pub(crate) fn measure(plan: &Plan, inits: &[Subject], namespace: Option<Namespace>) -> io::Result<Vec<Row>> {
    let mut rows = rounds("start to exit", plan, inits, None)?;
    if namespace.is_some() {
        rows.extend(rounds("start to exit as PID 1", plan, inits, namespace)?);
    }
    Ok(rows)
}

fn rounds(
    measure: &str,
    plan: &Plan,
    inits: &[Subject],
    namespace: Option<Namespace>,
) -> io::Result<Vec<Row>> {
    let subjects: Vec<_> = inits.iter().cloned().chain([Subject::none()]).collect();
    let commands = subjects
        .iter()
        .map(|subject| Command::new(subject.run(&[], &["/bin/true".into()])))
        .collect::<io::Result<Vec<_>>>()?;
    let mut series = Series::of(&subjects);
    let mut shuffle = Shuffle::new();
    // The first rounds bring the programs into the caches.
    for round in 0..plan.start_rounds + 3 {
        for index in shuffle.round(commands.len()) {
            let (Some(command), Some(series)) = (commands.get(index), series.get_mut(index)) else {
                continue;
            };
            let took = start_to_exit(command, namespace, &series.subject.name)?;
            if round >= 3 {
                series.values.push(took);
            }
        }
    }
    Ok(table::rounds(measure, "us", &series, BAR))
}

fn start_to_exit(command: &Command, namespace: Option<Namespace>, name: &str) -> io::Result<f64> {
    let start = clock::now();
    let mut process = command.start(namespace)?;
    let code = process.wait()?;
    let took = clock::since(start);
    if code == 0 { Ok(took) } else { Err(io::Error::other(format!("{name} -- /bin/true: exit code {code}"))) }
}
