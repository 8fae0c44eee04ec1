//! What an init takes while nothing happens.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::clock;
use crate::launch::{Command, Namespace, Process};
use crate::plan::Plan;
use crate::procfs;
use crate::subject::Subject;
use crate::table::{self, Bar, Row};
use crate::worker;

/// The figures of one idle init.
struct Figures {
    wake_ups: f64,
    processor: f64,
    resident: f64,
    threads: f64,
}

pub(crate) fn measure(plan: &Plan, inits: &[Subject], namespace: Option<Namespace>) -> io::Result<Vec<Row>> {
    let mut idlers = Vec::new();
    for init in inits {
        let command = Command::new(init.run(&[], &["sleep".into(), "600".into()]))?;
        idlers.push((init.clone(), command.start(namespace)?));
    }
    for init in inits.iter().filter(|init| init.ours) {
        let pool = init.renamed(format!("{} pool", init.name));
        idlers.push((pool, start_pool(init)?));
    }
    clock::sleep(plan.settle);
    let before = idlers.iter().map(|(_, idler)| counters(idler)).collect::<io::Result<Vec<_>>>()?;
    clock::sleep(plan.idle);
    let mut figures = Vec::new();
    for ((subject, idler), (sleeps, processor)) in idlers.iter().zip(before) {
        let after = counters(idler)?;
        let figure = Figures {
            wake_ups: after.0.saturating_sub(sleeps) as f64,
            processor: after.1 - processor,
            resident: procfs::resident(idler.pid)? as f64,
            threads: procfs::threads(idler.pid)? as f64,
        };
        figures.push((subject.clone(), figure));
    }
    Ok(rows(&figures, plan.idle))
}

fn counters(idler: &Process) -> io::Result<(u64, f64)> {
    Ok((procfs::sleeps(idler.pid)?, clock::processor_time(idler.pid)?))
}

fn rows(figures: &[(Subject, Figures)], idle: Duration) -> Vec<Row> {
    let section = |measure: &str, unit: &str, bar: Bar, pick: fn(&Figures) -> f64| {
        let rows = figures.iter().map(|(subject, figures)| Row::of(measure, subject, pick(figures), bar));
        table::once(measure, unit, rows.collect())
    };
    let window = format!("in {} s", idle.as_secs());
    let mut rows = section("idle wake-ups", &window, Bar::Value(0.0), |figures| figures.wake_ups);
    rows.extend(section("idle processor time", &format!("us {window}"), Bar::None, |f| f.processor));
    rows.extend(section("resident memory", "KiB", Bar::Value(4096.0), |figures| figures.resident));
    rows.extend(section("threads", "threads", Bar::Value(1.0), |figures| figures.threads));
    rows
}

/// Four workers that accept on one inherited socket, all of them ready. In no namespace of its own, since /proc,
/// where readiness is seen, would be another's.
fn start_pool(init: &Subject) -> io::Result<Process> {
    let admin = free_address()?;
    let admin_option = format!("--admin={admin}");
    let options = ["--workers=4", "--min-ready=4", "--listen=127.0.0.1:0", "--control=off", &admin_option];
    let pool = Command::new(init.run(&options, &worker::command("accept")?))?.start(None)?;
    for _ in 0..100 {
        if is_ready(admin).unwrap_or(false) {
            return Ok(pool);
        }
        clock::sleep(Duration::from_millis(100));
    }
    Err(io::Error::other(format!("{}: the workers of the pool do not become ready", init.name)))
}

fn is_ready(admin: SocketAddr) -> io::Result<bool> {
    let mut connection = TcpStream::connect(admin)?;
    connection.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// Free just now, which is all that can be known.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
