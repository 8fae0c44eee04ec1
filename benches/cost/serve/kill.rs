//! What a worker's death costs: requests, and time until the next one accepts.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::steady::{Answer, Shape, Steady, Tally};
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
        let (tally, took) = late(plan, init)?;
        lost.push(row(plan, &init.renamed(format!("{}, 20 ms", init.name)), &tally));
        again.push(took);
    }
    // Accepting for workers is what loses a request beyond those that the dead one was at.
    for contender in super::contenders(inits).iter().filter(|contender| contender.restarts()) {
        let server = contender.start(WORKERS)?;
        let tally = under_load(server.address, server.pid(), plan.kills, |_| Ok(()))?;
        lost.push(row(plan, &contender.subject, &tally));
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

fn row(plan: &Plan, subject: &Subject, tally: &Tally) -> Row {
    Row::of("requests lost a kill", subject, tally.failures() as f64 / plan.kills as f64, LOST)
}

/// Kill the oldest of a keeper's workers, again and again, each time when all of them have answered.
fn under_load(
    address: SocketAddr,
    keeper: i32,
    kills: usize,
    mut killed: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Tally> {
    let answered = Answered::default();
    let load = Steady::telling(address, "/1ms", Shape::New { rate: RATE }, answered.listener());
    let mut last = None;
    let done = (0..kills).try_for_each(|_| {
        let victim = oldest_of_all(keeper, &answered, last)?;
        last = Some(victim);
        clock::sleep(PAUSE);
        let at = clock::now();
        kill(Pid::from_raw(victim), Signal::SIGKILL)?;
        killed(at)
    });
    // Whoever was to be lost is lost by then.
    clock::sleep(PAUSE);
    let tally = load.stop();
    done.and(tally)
}

/// Who has answered so far, by its own word.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<BTreeSet<String>>>);

impl Answered {
    fn listener(&self) -> impl FnMut(&Answer, Instant) + Send + use<> {
        let answered = Arc::clone(&self.0);
        move |answer, _| drop(answered.lock().map(|mut all| all.insert(answer.body.clone())))
    }

    fn has_all(&self, pids: &[i32]) -> bool {
        self.0.lock().is_ok_and(|answered| pids.iter().all(|pid| answered.contains(&pid.to_string())))
    }
}

/// Once there are as many as there should be, the last one killed is not among them, and all of them have answered.
fn oldest_of_all(keeper: i32, answered: &Answered, killed: Option<i32>) -> io::Result<i32> {
    for _ in 0..2000 {
        let children = procfs::children_of(keeper)?;
        let gone = killed.is_none_or(|killed| !children.contains(&killed));
        if gone && children.len() == WORKERS && answered.has_all(&children) {
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

fn late(plan: &Plan, init: &Subject) -> io::Result<(Tally, Series)> {
    let address = idle::free_address()?;
    let (workers, listen) = (format!("--workers={WORKERS}"), format!("--listen={address}"));
    let quiet = ["--admin=off", "--control=off", "--log-level=off"];
    let options = [&quiet[..], &super::servers::RESTARTS, &[&workers, &listen]].concat();
    let mut talk = Command::new(init.run(&options, &server(address)?))?.start_piped(None)?;
    let Talk { process, from, .. } = &mut talk;
    (0..WORKERS).try_for_each(|_| stamp(from).map(drop))?;
    let mut values = Vec::new();
    let tally = under_load(address, process.pid, plan.kills, |killed| {
        values.push(clock::micros(stamp(from)?.saturating_sub(killed)));
        Ok(())
    })?;
    Ok((tally, Series { subject: init.clone(), values }))
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
