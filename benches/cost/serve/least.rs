//! How long a roll takes beside the least time that it could, and what it costs the supervisor.
#![allow(unsafe_code, reason = "sigaction(2); a signal handler")]

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use super::roll::{run, unique_name};
use crate::launch;
use crate::plan::Plan;
use crate::stats::Series;
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::{clock, idle, worker};

/// What the worker takes to start.
const BOOT: Duration = Duration::from_millis(200);

/// Microseconds of the supervisor's own processor time for each worker.
const OWN: Bar = Bar::Value(1000.0);

struct Case {
    workers: u32,
    /// `--max-surge`, and so many workers.
    surge: (&'static str, u32),
    bar: f64,
}

const CASES: [Case; 3] = [
    Case { workers: 4, surge: ("1", 1), bar: 1.3 },
    Case { workers: 4, surge: ("2", 2), bar: 1.3 },
    Case { workers: 200, surge: ("25%", 50), bar: 1.5 },
];

pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in CASES {
        let Case { workers, surge: (surge, at_once), bar } = case;
        let least = BOOT * workers.div_ceil(at_once);
        let (mut times, mut costs) = (Vec::new(), Vec::new());
        for init in inits.iter().filter(|init| init.ours) {
            let (took, cost) = timed(plan.rolls[1], init, &case)?;
            let took = took.into_iter().map(|took| took / clock::micros(least.as_nanos() as u64)).collect();
            times.push(Series { subject: init.clone(), values: took });
            costs.push(Series { subject: init.clone(), values: cost });
        }
        let measure = format!("roll of {workers} workers that start in 200 ms, surge {surge}");
        let times = |unit: &str| table::worst_of_rounds("none", &measure, unit, &times, |_| Bar::Value(bar));
        rows.extend(times("of the least time"));
        let measure = format!("{measure}: the supervisor");
        rows.extend(table::worst_of_rounds("none", &measure, "us a worker", &costs, |_| OWN));
    }
    Ok(rows)
}

/// Microseconds of the clock for each roll, and of the supervisor's processor time for each worker in it.
fn timed(rolls: usize, init: &Subject, case: &Case) -> io::Result<(Vec<f64>, Vec<f64>)> {
    let (address, control) = (idle::free_address()?, unique_name());
    let (workers, listen) = (format!("--workers={}", case.workers), format!("--listen={address}"));
    let (surge, control_option) = (format!("--max-surge={}", case.surge.0), format!("--control={control}"));
    let options = [&workers, &listen, &surge, &control_option, "--admin=off", "--log-level=warn"];
    let mut server = worker::command("boot")?;
    server.push(address.port().to_string().into());
    let process = launch::Command::new(init.run(&options, &server))?.start(None)?;
    let ask = |words: &[&str]| run(Command::new(&init.path).args(words).env("DRAINIT_CONTROL", &control));
    // The first of them waits until all are there.
    for _ in 0..100 {
        if ask(&["status"]).is_ok() {
            break;
        }
        clock::sleep(Duration::from_millis(100));
    }
    ask(&["restart", "--wait"])?;
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..rolls {
        let (began, before) = (clock::now(), clock::processor_time(process.pid)?);
        ask(&["restart", "--wait"])?;
        times.push(clock::since(began));
        // What is left of the last ones to go is part of it.
        clock::sleep(BOOT);
        costs.push((clock::processor_time(process.pid)? - before) / f64::from(case.workers));
    }
    Ok((times, costs))
}

/// A server that takes its time to start, and ends when it is told to: `PORT`.
pub(crate) fn boot() -> io::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit(2) may be called by a signal handler.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: the handler does nothing but end the process.
    unsafe { signal(Signal::SIGTERM, SigHandler::Handler(end)) }?;
    clock::sleep(BOOT);
    let port = worker::arguments().next().unwrap_or_default().parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.incoming().try_for_each(|connection| connection.map(drop))
}
