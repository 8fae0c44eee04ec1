//! What drainit costs beside the inits that people use now, tini and dumb-init, and what its pool costs beside the same
//! processes with nobody above them, Node's cluster and PM2.
//!
//! A report, not a test: it fails only where nothing could be measured. Every round runs every init once, in
//! shuffled order, and a ratio is the median over the rounds of "this init's figure / tini's figure of the same
//! round", so that whatever else the machine does meanwhile hits all of them.
//!
//! `DRAINIT_UNDER_TEST` names the binary, `dist/drainit` if unset; several, separated by colons, are compared with
//! each other too. `BENCH_QUICK=1` takes some 20 seconds. `BENCH_ONLY` selects: start, signal, orphans, filter, idle, size,
//! throughput, spread, kill, roll, least.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks and waits")]

mod clock;
mod filter;
mod idle;
mod launch;
mod network;
mod orphans;
mod plan;
mod procfs;
mod serve;
mod signal;
mod size;
mod start;
mod stats;
mod subject;
mod table;
mod worker;

use std::io;
use std::process::ExitCode;

use launch::Namespace;
use plan::Plan;
use subject::Subject;
use table::Row;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match args.next().as_deref() {
        Some(worker::FILTERED) => worker::run_filtered(args),
        Some(worker::ROLE) => worker::run(&args.next().unwrap_or_default()),
        // `cargo bench` passes --bench.
        _ => report(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> io::Result<()> {
    let started = clock::now();
    let plan = Plan::from_environment();
    let inits = subject::find()?;
    let namespace = Namespace::permitted()?;
    introduce(&plan, &inits, namespace);
    if !network::leave()? {
        println!("  in the host's network: its firewall may drop connections");
    }
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (name, measure) in MEASURES.into_iter().filter(|(name, _)| plan.wants(name)) {
        match measure(&plan, &inits, namespace) {
            Ok(figures) => rows.extend(figures),
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    println!("\nload at the end {}, {:.0} s in all", procfs::load(), clock::since(started) / 1e6);
    println!("{}", table::summary(&rows));
    if failed.is_empty() { Ok(()) } else { Err(io::Error::other(failed.join("; "))) }
}

type Measure = fn(&Plan, &[Subject], Option<Namespace>) -> io::Result<Vec<Row>>;

const MEASURES: [(&str, Measure); 11] = [
    ("start", start::measure),
    ("signal", signal::measure),
    ("orphans", orphans::measure),
    ("filter", |plan, inits, _| filter::measure(plan, inits)),
    ("idle", idle::measure),
    ("size", size::measure),
    ("throughput", |plan, inits, _| serve::throughput(plan, inits)),
    ("spread", |plan, inits, _| serve::spread(plan, inits)),
    ("kill", |plan, inits, _| serve::kill(plan, inits)),
    ("roll", |plan, inits, _| serve::roll(plan, inits)),
    ("least", |plan, inits, _| serve::least(plan, inits)),
];

fn introduce(plan: &Plan, inits: &[Subject], namespace: Option<Namespace>) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load at the start {}, Linux {}", procfs::load(), procfs::kernel());
    println!("{}", if plan.quick { "quick run: few rounds" } else { "full run" });
    for init in inits {
        println!("  {:<12} {}", init.name, init.path.display());
    }
    for missing in subject::missing(inits) {
        println!("  {missing:<12} NOT FOUND: not measured (Debian packages: tini, dumb-init)");
    }
    let wants_one_of = |measures: &[&str]| measures.iter().any(|measure| plan.wants(measure));
    let not_there = |peer, why| println!("  {peer:<12} NOT TO BE HAD: not measured ({why})");
    if wants_one_of(&["throughput", "spread", "kill", "roll"]) {
        serve::get_pm2().unwrap_or_else(|why| not_there("pm2", why));
    }
    if wants_one_of(&["roll"]) {
        serve::get_python().unwrap_or_else(|why| not_there("gunicorn", why));
    }
    match namespace {
        Some(Namespace::Privileged) => {}
        Some(Namespace::OfUser) => println!("  PID namespaces only inside user namespaces"),
        None => println!("  PID namespaces NOT PERMITTED: nothing is measured as PID 1"),
    }
}
