//! What a worker's death costs: requests, and time until the next one accepts.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load::{self, Outcome, Watch};
use crate::launch::{Command, Talk};
use crate::plan::Plan;
use crate::stats::Series;
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::{clock, idle, procfs, worker};

const WORKERS: usize = 3;
const RATE: u32 = 500;

const LOST: Bar = Bar::Value(1.0);

/// Microseconds, for a server that starts in 20 ms.
const AGAIN: Bar = Bar::Value(50_000.0);

/// How long everybody has been there when the next one is killed: none of them is taken for one that cannot start.
const PAUSE: Duration = Duration::from_millis(400);

pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let mut lost = Vec::new();
    let mut again = vec![floor(plan)?];
    for init in inits.iter().filter(|init| init.ours) {
        let (outcome, took) = late(plan, init)?;
        lost.push(row(plan, &init.renamed(format!("{}, 20 ms", init.name)), &outcome));
        again.push(took);
    }
    // Accepting for workers is what loses a request beyond those that the dead one was at.
    for contender in super::contenders(inits).iter().filter(|contender| contender.restarts()) {
        let server = contender.start(WORKERS)?;
        let outcome = under_load(server.address, server.pid(), plan.kills, |_| Ok(()))?;
        lost.push(row(plan, &contender.subject, &outcome));
    }
    let kills = format!("kill -9 of 1 of {WORKERS} at {RATE} requests/s");
    let mut rows = table::once(&kills, &format!("requests lost a kill ({} kills)", plan.kills), lost);
    let measure = format!("{kills}: until the next one accepts");
    rows.extend(table::worst_of_rounds(
        "none",
        &measure,
        "us, a server that starts in 20 ms",
        &again,
        |_| AGAIN,
    ));
    Ok(rows)
}

fn row(plan: &Plan, subject: &Subject, outcome: &Outcome) -> Row {
    Row::of("requests lost a kill", subject, outcome.failures() as f64 / plan.kills as f64, LOST)
}

/// Kill the oldest of a keeper's workers, again and again, each time when all of them have answered.
fn under_load(
    address: SocketAddr,
    keeper: i32,
    kills: usize,
    mut killed: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Outcome> {
    let watch = Arc::new(Watch::default());
    let watched = Arc::clone(&watch);
    let load = thread::spawn(move || load::open(address, "/1ms", RATE, &watched));
    let mut last = None;
    let done = (0..kills).try_for_each(|_| {
        let victim = oldest_of_all(keeper, &watch, last)?;
        last = Some(victim);
        clock::sleep(PAUSE);
        let at = clock::now();
        kill(Pid::from_raw(victim), Signal::SIGKILL)?;
        killed(at)
    });
    // Whoever was to be lost is lost by then.
    clock::sleep(PAUSE);
    watch.end();
    let outcome = load.join().map_err(|_| io::Error::other("the load has ended"))?;
    done.and(outcome)
}

/// Once there are as many as there should be, the last one killed is not among them, and all of them have answered.
fn oldest_of_all(keeper: i32, watch: &Watch, killed: Option<i32>) -> io::Result<i32> {
    for _ in 0..2000 {
        let children = procfs::children_of(keeper)?;
        let gone = killed.is_none_or(|killed| !children.contains(&killed));
        if gone && children.len() == WORKERS && watch.have_answered(&children) {
            return children.first().copied().ok_or_else(|| io::Error::other("no worker"));
        }
        clock::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other(format!("{WORKERS} workers do not come back")))
}

/// The same server with nobody to start it again: from its start until it accepts.
fn floor(plan: &Plan) -> io::Result<Series> {
    let mut values = Vec::new();
    for _ in 0..plan.kills {
        let command = Command::new(server(idle::free_address()?)?)?;
        let start = clock::now();
        let mut talk = command.start_piped(None)?;
        values.push(clock::micros(stamp(&mut talk.from)?.saturating_sub(start)));
    }
    Ok(Series { subject: Subject::none(), values })
}

fn late(plan: &Plan, init: &Subject) -> io::Result<(Outcome, Series)> {
    let address = idle::free_address()?;
    let (workers, listen) = (format!("--workers={WORKERS}"), format!("--listen={address}"));
    let quiet = ["--admin=off", "--control=off", "--log-level=off"];
    let options = [&quiet[..], &super::servers::RESTARTS, &[&workers, &listen]].concat();
    let mut talk = Command::new(init.run(&options, &server(address)?))?.start_piped(None)?;
    let Talk { process, from, .. } = &mut talk;
    (0..WORKERS).try_for_each(|_| stamp(from).map(drop))?;
    let mut values = Vec::new();
    let outcome = under_load(address, process.pid, plan.kills, |killed| {
        values.push(clock::micros(stamp(from)?.saturating_sub(killed)));
        Ok(())
    })?;
    Ok((outcome, Series { subject: init.clone(), values }))
}

fn server(address: SocketAddr) -> io::Result<Vec<OsString>> {
    Ok([worker::command("late")?, vec![address.to_string().into()]].concat())
}

/// When the next one accepts.
fn stamp(from: &mut PipeReader) -> io::Result<u64> {
    let mut stamp = [0; 8];
    from.read_exact(&mut stamp)?;
    Ok(u64::from_ne_bytes(stamp))
}
