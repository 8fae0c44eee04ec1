//! What a rolling restart costs under load, by whoever keeps the workers: requests, and time.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::peers::{self, PM2_COMMAND};
use super::servers::{self, CLUSTER, Contender, Keeper, PM2, Server};
use super::steady::{Shape, Steady, Tally};
use crate::plan::Plan;
use crate::stats::Series;
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::{clock, procfs};

const WORKERS: usize = 2;

const LOST: Bar = Bar::Value(0.0);

/// Before the first roll, and after the last.
const AROUND: Duration = Duration::from_millis(300);

/// What is compared is who rolls it.
#[derive(Clone, Copy)]
enum Application {
    Node,
    Uvicorn,
    /// gunicorn's threads, which say `Connection: close` while they drain.
    Threads,
}

const CASES: [(&str, Application, &str, Shape); 3] = [
    ("Node", Application::Node, "500 new connections/s", Shape::NEW),
    ("uvicorn", Application::Uvicorn, "500 new connections/s", Shape::NEW),
    ("gunicorn's threads", Application::Threads, "500/s on 32 kept connections", Shape::KEPT),
];

pub(crate) fn measure(plan: &Plan, inits: &[Subject]) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, application, load, shape) in CASES {
        let (mut lost, mut took) = (Vec::new(), Vec::new());
        let measure = format!("{name} x {WORKERS}, rolls at {load}");
        println!();
        for contender in contenders(inits, application)? {
            match rolled(&contender, plan.rolls[0], shape) {
                Ok((tally, times)) => {
                    println!("  {}: {tally}", contender.subject.name);
                    lost.push(Row::of(&measure, &contender.subject, tally.per_100000(), LOST));
                    took.push(Series { subject: contender.subject, values: times });
                }
                Err(error) if contender.subject.ours => return Err(error),
                Err(error) => println!("  {} left out: {error}", contender.subject.name),
            }
        }
        let count = plan.rolls[0];
        rows.extend(table::once(&measure, &format!("requests lost of 100,000 ({count} rolls)"), lost));
        rows.extend(table::worst_of_rounds("none", &measure, "ms a roll", &took, |_| Bar::None));
    }
    Ok(rows)
}

fn contenders(inits: &[Subject], application: Application) -> io::Result<Vec<Contender>> {
    let python = peers::python();
    let server = match application {
        Application::Node => Some(vec![servers::node()?, servers::script("server.js")]),
        Application::Uvicorn => python.as_ref().map(|folder| {
            let words = "--fd {fd} --no-access-log --log-level warning asgi:app --app-dir";
            command(&folder.join("uvicorn"), words)
        }),
        Application::Threads => python.as_ref().map(|folder| {
            command(&folder.join("gunicorn"), "--worker-class gthread --threads 64 wsgi:app --chdir")
        }),
    };
    let peers = match application {
        Application::Node => {
            let pm2 = peers::pm2().map(|folder| Contender::peer(PM2, Keeper::Pm2(folder)));
            vec![Some(Contender::peer(CLUSTER, Keeper::RollingCluster)), pm2]
        }
        Application::Uvicorn => vec![python.map(|folder| gunicorn(folder, UVICORN_WORKERS))],
        Application::Threads => vec![python.map(|folder| gunicorn(folder, THREADS))],
    };
    let ours = inits.iter().filter(|init| init.ours).zip(server.into_iter().cycle());
    let ours = ours.map(|(init, server)| Contender {
        subject: init.clone(),
        keeper: Keeper::Rolled { path: init.path.clone(), control: unique_name(), server },
    });
    Ok(ours.chain(peers.into_iter().flatten()).collect())
}

const UVICORN_WORKERS: &str = "asgi:app --worker-class uvicorn_worker.UvicornWorker";
const THREADS: &str = "wsgi:app --worker-class gthread --threads 64";

fn gunicorn(folder: PathBuf, words: &'static str) -> Contender {
    Contender::peer("gunicorn", Keeper::Gunicorn { folder, words })
}

/// The last of the words takes the folder of the applications.
fn command(program: &Path, words: &str) -> Vec<OsString> {
    let words = words.split(' ').map(OsString::from);
    [program.into()].into_iter().chain(words).chain([servers::script("")]).collect()
}

/// For a control socket.
pub(super) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("@drainit/bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One roll after the other under load; how long each of them took, in milliseconds.
fn rolled(contender: &Contender, rolls: usize, shape: Shape) -> io::Result<(Tally, Vec<f64>)> {
    let server = contender.start(WORKERS)?;
    let load = Steady::start(server.address, "/1ms", shape);
    clock::sleep(AROUND);
    let times = (0..rolls).map(|_| {
        let before = procfs::children_of(server.pid())?;
        let began = clock::now();
        order(contender, &server)?;
        wait_for_others(server.pid(), &before)?;
        Ok(clock::since(began) / 1000.0)
    });
    let times = times.collect::<io::Result<_>>();
    clock::sleep(AROUND);
    let tally = load.stop()?;
    Ok((tally, times?))
}

fn order(contender: &Contender, server: &Server) -> io::Result<()> {
    let signal = |signal| Ok(kill(Pid::from_raw(server.pid()), signal)?);
    match &contender.keeper {
        Keeper::Rolled { path, control, .. } => {
            run(Command::new(path).args(["restart", "--wait"]).env("DRAINIT_CONTROL", control))
        }
        Keeper::Pm2(folder) => {
            let mut command = Command::new(servers::node()?);
            command.arg(folder.join(PM2_COMMAND)).args(["reload", "all"]);
            run(command.env("PM2_HOME", folder.join("home")))
        }
        Keeper::RollingCluster => signal(Signal::SIGUSR2),
        Keeper::Gunicorn { .. } => signal(Signal::SIGHUP),
        _ => Err(io::Error::other("nobody who could roll")),
    }
}

pub(super) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("{output:?}"))) }
}

/// As many as before, and none of those.
fn wait_for_others(keeper: i32, before: &[i32]) -> io::Result<()> {
    for _ in 0..12_000 {
        let children = procfs::children_of(keeper)?;
        if children.len() == before.len() && children.iter().all(|child| !before.contains(child)) {
            return Ok(());
        }
        clock::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other("the roll does not come to an end"))
}
