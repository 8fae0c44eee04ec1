//! `make demo`: a pool of four, load on it, a worker killed, the pool resized, rolled, rolled back, and drained; every
//! request counted.
//!
//! Takes the path of the drainit to show as its argument. Exit code 0 only if nothing failed.
#![allow(clippy::disallowed_methods, reason = "a program of its own, outside the architecture of drainit")]

#[path = "support/load.rs"]
mod load;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use load::{Kind, Load, Report};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

const CLIENTS: usize = 8;
const LB_LETS_GO_AFTER: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    match Demo::start().and_then(Demo::run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("the demo could not be run: {why}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    drainit: Child,
    app: SocketAddr,
    admin: SocketAddr,
    control: String,
    began: Instant,
    /// The least number of ready workers seen while the pool was to serve.
    least_ready: u64,
}

impl Demo {
    fn start() -> Result<Self, String> {
        let drainit = std::env::args().nth(1).ok_or("takes the path of drainit")?;
        let server = std::env::current_exe().map_err(text)?.with_file_name("server");
        let (app, admin) = (free_address()?, free_address()?);
        let control = format!("@drainit/demo-{}", std::process::id());
        let mut command = Command::new(&drainit);
        command.args(["--workers", "4", "--listen", &app.to_string(), "--admin", &admin.to_string()]);
        command
            .args([
                "--control",
                &control,
                "--grace",
                "10s",
                "--lb-wait",
                "2s",
                "--log-level",
                "warn",
                "--log-format",
                "text",
                "--",
            ])
            .arg(server);
        println!("$ drainit --workers 4 --listen {app} --grace 10s --lb-wait 2s -- ./server\n");
        let drainit = command.stdin(Stdio::null()).spawn().map_err(|error| format!("{drainit}: {error}"))?;
        let began = Instant::now();
        Ok(Self { drainit, app, admin, control, began, least_ready: u64::MAX })
    }

    fn run(mut self) -> Result<bool, String> {
        self.wait_until("4 workers ready", |status| status["ready_workers"] == 4)?;
        let load = Load::start(self.app, "/", CLIENTS, Duration::ZERO);
        self.watch(&load, Duration::from_millis(1500), "8 clients, a new connection for each request")?;

        let victim = self.status()?["workers"][1]["pid"].as_i64().ok_or("no worker 1")?;
        let killed_at = Instant::now();
        kill(victim, Signal::SIGKILL)?;
        self.watch(&load, Duration::from_millis(1500), &format!("kill -9 {victim}"))?;

        for workers in ["6", "2", "4"] {
            self.scale(workers)?;
            self.watch(&load, Duration::from_millis(1000), &format!("drainit scale {workers}"))?;
        }

        let version = ["restart", "--wait", "--version", "v2"];
        let rolled = self.ask(&version)?;
        self.watch(&load, Duration::from_millis(500), "drainit restart --wait --version v2")?;
        println!("{}", self.timeline()?);
        let undone = self.ask(&["restart", "--wait", "--version", "v3", "--", "false"])?;
        let what = format!("drainit restart --wait -- false: exit code {}", shown(undone));
        self.watch(&load, Duration::from_millis(500), &what)?;
        let generation = self.status()?["generation"].as_u64();

        kill(i64::from(self.drainit.id()), Signal::SIGTERM)?;
        let stopped_at = Instant::now();
        self.least_ready = self.least_ready.min(self.status()?["ready_workers"].as_u64().unwrap_or(0));
        self.line(&load, "SIGTERM: unready, still serving")?;
        self.wait_until("readyz 503", |status| status["phase"] != "serving")?;
        while stopped_at.elapsed() < LB_LETS_GO_AFTER {
            self.line(&load, "the load balancer still sends")?;
            std::thread::sleep(Duration::from_millis(250));
        }
        let report = load.stop();
        println!("  {:>5.1}s  the load balancer has let go", self.began.elapsed().as_secs_f64());
        let code = self.drainit.wait().map_err(text)?.code();
        let took = stopped_at.elapsed();
        println!(
            "  {:>5.1}s  exited with code {}, {:.1} s after SIGTERM\n",
            self.began.elapsed().as_secs_f64(),
            shown(code),
            took.as_secs_f64()
        );
        let rolls = (rolled, undone, generation);
        Ok(self.judge(&report, killed_at, rolls, code, took))
    }

    /// What a sceptic wants to know.
    fn judge(
        &self,
        report: &Report,
        killed_at: Instant,
        rolls: (Option<i32>, Option<i32>, Option<u64>),
        code: Option<i32>,
        took: Duration,
    ) -> bool {
        let in_flight = |failure: &&load::Failure| {
            matches!(failure.kind, Kind::Cut | Kind::Reset)
                && failure.at >= killed_at
                && failure.at.duration_since(killed_at) < Duration::from_millis(500)
        };
        let cut = report.failures.iter().filter(in_flight).count();
        let failed = report.failures.len() - cut;
        let checks = [
            (failed == 0, format!("{} requests answered, {failed} failed", report.answered)),
            (
                cut <= CLIENTS,
                format!(
                    "{cut} requests were in flight in the worker that kill -9 hit; nobody can save those"
                ),
            ),
            (
                self.least_ready >= 1,
                format!("never fewer than {} workers ready while serving", self.least_ready),
            ),
            (
                rolls == (Some(0), Some(1), Some(2)),
                "rolled to generation 2, and back to it when generation 3 failed".to_owned(),
            ),
            (
                code == Some(0),
                format!("drained with exit code {} in {:.1} s of 9.0 s", shown(code), took.as_secs_f64()),
            ),
            (report.answered > 1000, format!("slowest answer {:?}", report.slowest)),
        ];
        for (good, what) in &checks {
            println!("  {} {what}", if *good { "ok  " } else { "FAIL" });
        }
        checks.iter().all(|(good, _)| *good)
    }

    fn watch(&mut self, load: &Load, time: Duration, what: &str) -> Result<(), String> {
        let until = Instant::now() + time;
        let mut what = what;
        while Instant::now() < until {
            self.line(load, what)?;
            what = "";
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    fn line(&mut self, load: &Load, what: &str) -> Result<(), String> {
        let status = self.status()?;
        let (phase, ready) =
            (status["phase"].as_str().unwrap_or("?"), status["ready_workers"].as_u64().unwrap_or(0));
        if phase == "serving" {
            self.least_ready = self.least_ready.min(ready);
        }
        let bar = "█".repeat(usize::try_from(ready).unwrap_or(0));
        let at = self.began.elapsed().as_secs_f64();
        println!(
            "  {at:>5.1}s  {phase:<9} {bar:<6} {ready} ready  {:>7} answered {:>3} failed  {what}",
            load.answered(),
            load.failed()
        );
        Ok(())
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if self.status().is_ok_and(|status| condition(&status)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("waited {PATIENCE:?} for: {what}"))
    }

    fn status(&self) -> Result<Value, String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE).map_err(text)?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").map_err(text)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(text)?;
        let body = answer.split_once("\r\n\r\n").ok_or("no answer from /status")?.1;
        serde_json::from_str(body).map_err(text)
    }

    /// A subcommand, and its exit code.
    fn ask(&self, words: &[&str]) -> Result<Option<i32>, String> {
        let mut command = self.subcommand(words)?;
        command.stderr(Stdio::null()).status().map(|status| status.code()).map_err(text)
    }

    /// The last roll as `drainit status` draws it.
    fn timeline(&self) -> Result<String, String> {
        let output = self.subcommand(&["status"])?.stdout(Stdio::piped()).output().map_err(text)?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("rolls:")).skip(2).collect();
        Ok(lines.join("\n"))
    }

    fn subcommand(&self, words: &[&str]) -> Result<Command, String> {
        let drainit = std::env::args().nth(1).ok_or("takes the path of drainit")?;
        let mut command = Command::new(drainit);
        command.args(words).env("DRAINIT_CONTROL", &self.control).stdout(Stdio::null());
        Ok(command)
    }

    fn scale(&self, workers: &str) -> Result<(), String> {
        run(&mut self.subcommand(&["scale", workers])?)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // KILL would leave the workers behind.
        if let Ok(None) = self.drainit.try_wait() {
            let _ = kill(i64::from(self.drainit.id()), Signal::SIGTERM);
        }
        let _ = self.drainit.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

fn shown(code: Option<i32>) -> String {
    code.map_or("none".to_owned(), |code| code.to_string())
}

fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// By the system call: a minimal Debian has no kill(1).
fn kill(pid: i64, signal: Signal) -> Result<(), String> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(text)?);
    nix::sys::signal::kill(pid, signal).map_err(text)
}
