//! A pod's life as the kubelet leads it: order and timing are those that were measured on a real one.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::net::Network;
use super::service::{Endpoint, Endpoints};
use crate::common::http::parse;
use crate::common::{Exit, Launch, Process, Running, Subject};

/// What a pod's spec says.
#[derive(Clone)]
pub struct Spec {
    /// The server; drainit goes before it.
    pub command: Vec<String>,
    /// Taken out, the server is PID 1 itself, and is probed itself.
    pub drainit: bool,
    /// `lifecycle.preStop.exec`, drainit's subcommand.
    pub pre_stop: Option<&'static str>,
    /// `terminationGracePeriodSeconds`
    pub grace: Duration,
    /// Deleted with no grace: SIGKILL in place of SIGTERM.
    pub forced: bool,
    pub options: Vec<String>,
}

/// `periodSeconds` of startup and readiness.
const PERIOD: Duration = Duration::from_secs(1);
const LIVENESS_PERIOD: Duration = Duration::from_secs(10);
/// `timeoutSeconds`
const TIMEOUT: Duration = Duration::from_secs(1);
/// What the kubelet leaves at least between SIGTERM and SIGKILL.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);
/// From the deletion, or the end of the hook, to the signal.
const CALL_OF_THE_RUNTIME: Duration = Duration::from_millis(10);
/// From the container's end to that of its network.
const TEAR_DOWN: Duration = Duration::from_millis(120);
const TICK: Duration = Duration::from_millis(5);
/// No pod takes so long to become ready, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Startup,
    Readiness,
    Liveness,
}

/// What became of it. Times count from the deletion.
#[derive(Debug)]
pub struct Record {
    pub address: Ipv4Addr,
    pub deleted: Instant,
    pub terminated: Duration,
    pub ended: Duration,
    pub exit: Exit,
    pub killed: bool,
    pub hook: Option<(Duration, i32)>,
    /// After the deletion: when, which, and the status; 0 where there was no answer.
    pub probes: Vec<(Duration, Probe, u16)>,
    /// drainit's.
    pub log: Vec<Value>,
}

impl Record {
    pub fn logged(&self, message: &str) -> Option<&Value> {
        self.log.iter().find(|line| line["message"] == message)
    }

    /// When it said its last word, after the deletion: the harness may see the end much later.
    pub fn exited(&self) -> Option<Duration> {
        let [told, exit] = ["drain planned", "exit"].map(|message| time_of_day(self.logged(message)?));
        Some(self.terminated + exit?.checked_sub(told?)?)
    }
}

/// `2026-01-31T23:59:59.123456Z`
fn time_of_day(line: &Value) -> Option<Duration> {
    let time = line["timestamp"].as_str()?.split('T').nth(1)?.trim_end_matches('Z');
    let mut parts = time.split(':').filter_map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Duration::from_secs_f64((hours * 60.0 + minutes) * 60.0 + seconds))
}

pub struct Pod {
    pub address: Ipv4Addr,
    ready: Arc<Mutex<bool>>,
    delete: Option<Sender<Instant>>,
    thread: Option<JoinHandle<Record>>,
}

impl Pod {
    /// On the node that this thread is on.
    pub fn create(spec: &Spec, address: Ipv4Addr, endpoints: &Endpoints) -> Self {
        let ready = Arc::new(Mutex::new(false));
        let (delete, deleted) = mpsc::channel();
        let life = Life {
            spec: spec.clone(),
            endpoints: endpoints.clone(),
            ready: Arc::clone(&ready),
            network: Network::new(address),
        };
        let thread = thread::spawn(move || life.lead(&deleted));
        Self { address, ready, delete: Some(delete), thread: Some(thread) }
    }

    pub fn is_ready(&self) -> bool {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!ended, "the container of {} has ended by itself", self.address);
        *self.ready.lock().unwrap()
    }

    pub fn delete(&self) {
        let sent = self.delete.as_ref().map(|delete| delete.send(Instant::now()));
        assert!(matches!(sent, Some(Ok(()))), "{} lives until it is deleted", self.address);
    }

    pub fn record(mut self) -> Record {
        self.thread.take().expect("it has a life").join().expect("a pod's life")
    }
}

/// Where the test has failed: the container goes with its pod.
impl Drop for Pod {
    fn drop(&mut self) {
        self.delete = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Life {
    spec: Spec,
    endpoints: Endpoints,
    ready: Arc<Mutex<bool>>,
    network: Network,
}

impl Life {
    fn lead(&self, deletion: &Receiver<Instant>) -> Record {
        let mut container = self.network.run(|| self.start());
        let deleted = self.serve(&mut container, deletion);
        let record = self.terminate(container, deleted);
        thread::sleep(TEAR_DOWN);
        self.network.tear_down();
        self.endpoints.remove(self.network.address);
        record
    }

    fn start(&self) -> Running {
        let launch = Launch::new(&["pidns"])
            .bare()
            .under(["env=KUBERNETES_SERVICE_HOST=10.96.0.1"])
            .command(&self.spec.command);
        if !self.spec.drainit {
            return launch.start_without_init();
        }
        let grace = format!("--grace={}s", self.spec.grace.as_secs());
        launch.options(["--listen=8080", &grace]).options(&self.spec.options).start()
    }

    /// Until it is deleted.
    fn serve(&self, container: &mut Running, deletion: &Receiver<Instant>) -> Instant {
        let created = Instant::now();
        let mut due = created;
        let mut lively = created;
        let mut started = false;
        loop {
            match deletion.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(deleted) => return deleted,
                Err(RecvTimeoutError::Disconnected) => panic!("the test has failed"),
                Err(RecvTimeoutError::Timeout) => due += PERIOD,
            }
            assert!(!container.has_ended(), "a container has ended by itself\n{container}");
            if !started {
                started = is_success(self.ask(Probe::Startup));
                assert!(started || created.elapsed() < PATIENCE, "does not start\n{container}");
            }
            // A pod that has just started is asked at once.
            if started {
                self.tell_readiness(is_success(self.ask(Probe::Readiness)), false);
                if lively <= Instant::now() {
                    let status = self.ask(Probe::Liveness);
                    assert!(is_success(status), "liveness: {status}\n{container}");
                    lively = Instant::now() + LIVENESS_PERIOD;
                }
            }
        }
    }

    fn tell_readiness(&self, ready: bool, terminating: bool) {
        *self.ready.lock().unwrap() = ready;
        self.endpoints.set(self.network.address, Endpoint { serving: ready, terminating });
    }

    /// The countdown begins with the hook. Liveness is asked no more, readiness to the end.
    fn terminate(&self, mut container: Running, deleted: Instant) -> Record {
        let was_ready = *self.ready.lock().unwrap();
        self.tell_readiness(was_ready, true);
        let init = container.init();
        let mut probes = Vec::new();
        let mut due = deleted + PERIOD / 2;
        let mut attend = |container: &mut Running| {
            thread::sleep(TICK);
            if due <= Instant::now() {
                let status = self.ask(Probe::Readiness);
                if !container.has_ended() {
                    probes.push((deleted.elapsed(), Probe::Readiness, status));
                    self.tell_readiness(is_success(status), true);
                }
                due += PERIOD;
            }
            container.has_ended()
        };

        let hook = self.spec.pre_stop.map(|subcommand| {
            let mut hook = in_container(init, subcommand);
            let code = loop {
                if let Some(status) = hook.try_wait().expect("the hook") {
                    break status.code().unwrap_or(-1);
                }
                if deleted.elapsed() > self.spec.grace || attend(&mut container) {
                    break -1;
                }
            };
            (deleted.elapsed(), code)
        });
        // Whole seconds of the hook are subtracted.
        let spent = Duration::from_secs(hook.map_or(0, |(took, _)| took.as_secs()));
        let left = self.spec.grace.saturating_sub(spent).max(MINIMUM_GRACE);
        thread::sleep(CALL_OF_THE_RUNTIME);
        let terminated = deleted.elapsed();
        let mut killed = self.spec.forced;
        init.signal(if killed { libc::SIGKILL } else { libc::SIGTERM });
        while !attend(&mut container) {
            if !killed && deleted.elapsed() - terminated > left {
                killed = true;
                init.signal_if_alive(libc::SIGKILL);
            }
        }
        let ended = deleted.elapsed();
        let exit = container.wait();
        let log = container.errors().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Record { address: self.network.address, deleted, terminated, ended, exit, killed, hook, probes, log }
    }

    /// A status, or 0.
    fn ask(&self, probe: Probe) -> u16 {
        let (port, path) = match probe {
            _ if !self.spec.drainit => (8080, "/"),
            Probe::Startup => (9180, "/startupz"),
            Probe::Readiness => (9180, "/readyz"),
            Probe::Liveness => (9180, "/livez"),
        };
        get(SocketAddr::from((self.network.address, port)), path).unwrap_or(0)
    }
}

fn is_success(status: u16) -> bool {
    (200..400).contains(&status)
}

fn get(address: SocketAddr, path: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let host = address.ip();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(parse(&answer)?.status)
}

/// An exec hook: a process of the runtime's in the container's namespaces.
fn in_container(init: Process, subcommand: &str) -> Child {
    Command::new("nsenter")
        .args(["--target", &init.0.to_string(), "--pid", "--net", "--mount"])
        .arg(Subject::from_env().path())
        .arg(subcommand)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nsenter")
}
