//! `status`: what drainit is doing, as a table for people or as the JSON it is.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use serde::Deserialize;

use super::ask::{Answer, ask, watch_status};
use super::rolls::Rolls;
use super::{DEADLINE, OK, complain, misunderstood, say};
use crate::config::endpoint::Endpoint;

/// What is shown of it; whatever else there is, or is not, does no harm.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    ready: bool,
    breaker: String,
    generation: u64,
    uptime_seconds: f64,
    desired: u32,
    ready_workers: u32,
    min_ready: u32,
    workers: Vec<Worker>,
    drain: Option<Drain>,
    counters: Counters,
    breaker_reason: Option<String>,
    breaker_reset_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counters {
    oom_kills: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Worker {
    slot: u32,
    pid: Option<i32>,
    generation: u64,
    version: Option<String>,
    state: String,
    socket: String,
    connections: Option<u64>,
    uptime_seconds: f64,
    status_text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Drain {
    trigger: String,
    elapsed_seconds: f64,
    lb_wait_seconds: f64,
    deadline_seconds: f64,
}

/// 0: shown. 2: cannot be asked.
pub fn status(endpoint: &Endpoint, json: bool) -> u8 {
    let answer = match ask(endpoint, "GET", "/status", None, DEADLINE) {
        Ok(answer) => answer,
        Err(error) => return complain(error),
    };
    match answer {
        Answer { status: 200, body } if json => say(&body),
        Answer { status: 200, body } => match page(&body) {
            Ok(page) => say(&page),
            Err(error) => return complain(format_args!("/status: {error}")),
        },
        answer => return misunderstood(&answer),
    }
    OK
}

/// Shows it again and again, until it cannot be asked or nobody looks. 2: it never could.
pub fn watch(endpoint: &Endpoint) -> u8 {
    let terminal = io::stdout().is_terminal();
    let mut seen = false;
    let end = watch_status(endpoint, |body| {
        let Ok(page) = page(body) else { return false };
        seen = true;
        // ECMA-48: home, and everything below gone.
        let clear = if terminal { "\x1b[H\x1b[J" } else { "" };
        let mut out = io::stdout().lock();
        out.write_all((clear.to_owned() + &page).as_bytes()).and_then(|()| out.flush()).is_ok()
    });
    if seen { OK } else { end.map_or_else(complain, |()| OK) }
}

fn page(json: &str) -> serde_json::Result<String> {
    let status: Status = serde_json::from_str(json)?;
    let rolls: Rolls = serde_json::from_str(json)?;
    Ok(printable(&(table(&status) + &rolls.report())))
}

fn table(status: &Status) -> String {
    let Status {
        phase, ready, breaker, generation, uptime_seconds, desired, ready_workers, min_ready, ..
    } = status;
    let ready = if *ready { "ready" } else { "not ready" };
    let mut out = format!(
        "{phase}, {ready}: {ready_workers} of {desired} workers ready, {min_ready} needed; \
         breaker {breaker}; generation {generation}; up {}\n",
        span(*uptime_seconds)
    );
    // Writing to a String cannot fail.
    if let Some(drain) = &status.drain {
        let (elapsed, deadline) = (drain.elapsed_seconds, drain.deadline_seconds);
        let (trigger, lb_wait) = (&drain.trigger, drain.lb_wait_seconds);
        let open =
            status.workers.iter().filter_map(|worker| worker.connections).reduce(|one, other| one + other);
        let open = open.map(|open| format!(", {open} connections")).unwrap_or_default();
        let bar = bar(elapsed / deadline);
        let _ = writeln!(
            out,
            "drain by {trigger}: {elapsed:.1} s of {deadline:.1} s {bar}, LB wait {lb_wait:.1} s{open}"
        );
    }
    if let Some((why, left)) = status.breaker_reason.as_ref().zip(status.breaker_reset_seconds) {
        let _ = writeln!(out, "breaker open for {:.0} s more, rolls are refused: {why}", left.ceil());
    }
    if status.counters.oom_kills > 0 {
        let _ = writeln!(out, "killed by the kernel, out of memory (OOM): {}", status.counters.oom_kills);
    }
    let header = ["SLOT", "PID", "GENERATION", "VERSION", "STATE", "SOCKET", "CONNECTIONS", "UP", "STATUS"]
        .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(status.workers.iter().map(row)).collect();
    // Most servers say nothing of themselves.
    let told = status.workers.iter().any(|worker| worker.status_text.is_some());
    let columns = if told { 9 } else { 8 };
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate().take(columns) {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            let _ = write!(line, "{cell:<width$}  ", width = width.unwrap_or(0));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn row(worker: &Worker) -> [String; 9] {
    let or_dash =
        |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    [
        worker.slot.to_string(),
        or_dash(worker.pid.map(|pid| pid.to_string())),
        worker.generation.to_string(),
        or_dash(worker.version.clone()),
        or_dash(Some(worker.state.clone())),
        or_dash(Some(worker.socket.clone())),
        or_dash(worker.connections.map(|open| open.to_string())),
        span(worker.uptime_seconds),
        or_dash(worker.status_text.clone()),
    ]
}

/// Twenty fields for the whole.
fn bar(part: f64) -> String {
    const FIELDS: usize = 20;
    let full = (part.clamp(0.0, 1.0) * FIELDS as f64) as usize;
    "█".repeat(full) + &"░".repeat(FIELDS - full)
}

/// The two largest units of it.
fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// A version is the user's text, a status the worker's, and this is a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_table() {
        let json = r#"{"phase":"lame-duck","ready":false,"breaker":"closed","generation":2,"uptime_seconds":4000.9,
            "desired":2,"ready_workers":1,"min_ready":1,"new":[],"counters":{"oom_kills":3,"spawns":9},"drain":{"trigger":"SIGTERM","elapsed_seconds":7.25,
            "lb_wait_seconds":3,"deadline_seconds":29},"workers":[
            {"slot":0,"pid":12,"generation":1,"version":"v\u001b[1m","state":"ready","ready":true,
             "socket":"inherited","connections":17,"uptime_seconds":90061},{"slot":10,"state":"starting","version":null}]}"#;
        let status: Status = serde_json::from_str(json).unwrap();
        let expected = "\
lame-duck, not ready: 1 of 2 workers ready, 1 needed; breaker closed; generation 2; up 1h6m
drain by SIGTERM: 7.2 s of 29.0 s █████░░░░░░░░░░░░░░░, LB wait 3.0 s, 17 connections
killed by the kernel, out of memory (OOM): 3
SLOT  PID  GENERATION  VERSION  STATE     SOCKET     CONNECTIONS  UP
0     12   1           v?[1m    ready     inherited  17           1d1h
10    -    0           -        starting  -          -            0s
";
        assert_eq!(printable(&table(&status)), expected);
    }

    #[test]
    fn what_workers_say_of_themselves_has_a_column_where_one_does() {
        let json = r#"{"workers":[{"slot":0,"state":"ready","status_text":"serving 3"},{"slot":1}]}"#;
        let table = table(&serde_json::from_str(json).unwrap());
        let lines: Vec<_> = table.lines().skip(1).collect();
        assert!(lines[0].ends_with("UP  STATUS") && lines[1].ends_with("0s  serving 3"), "{table}");
        assert!(lines[2].ends_with("0s  -"), "{table}");
    }

    #[test]
    fn spans_have_two_units() {
        let spans = [0.0, 59.9, 61.0, 3600.0, 90_000.0, -1.0].map(span);
        assert_eq!(spans, ["0s", "59s", "1m1s", "1h0m", "1d1h", "0s"]);
    }
}
