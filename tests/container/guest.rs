//! A container that is gone when the test is over, however it ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::podman::{Ended, LABEL, Podman};

/// Where the workers serve.
pub(crate) const APP: u16 = 8080;
/// Where drainit answers.
pub(crate) const ADMIN: u16 = 9180;

/// For what takes no time at all on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Guest {
    podman: &'static Podman,
    name: String,
    ports: BTreeMap<u16, SocketAddr>,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    body: BufReader<TcpStream>,
}

impl Podman {
    /// Start `drainit OPTIONS -- COMMAND`, its ports published unless `podman` names a network.
    pub(crate) fn start(&'static self, podman: &[&str], drainit: &[&str], command: &[&str]) -> Guest {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("drainit-test-{}-{count}", std::process::id());
        // From here on there may be something to remove.
        let mut guest = Guest { podman: self, name, ports: BTreeMap::new() };
        let mut arguments =
            vec!["run", "--detach", "--log-driver=k8s-file", "--label", LABEL, "--name", &guest.name];
        if !podman.iter().any(|argument| argument.starts_with("--network")) {
            arguments.extend(["--publish=127.0.0.1::8080", "--publish=127.0.0.1::9180"]);
        }
        arguments.extend(podman);
        arguments.push(&self.image);
        arguments.extend(drainit);
        arguments.push("--");
        arguments.extend(command);
        self.must(arguments);
        guest.ports = published(&self.run(["port", &guest.name]).stdout);
        guest
    }

    /// The worker that the image has, and what it is to do.
    pub(crate) fn worker(&'static self, podman: &[&str], drainit: &[&str], worker: &[&str]) -> Guest {
        self.start(podman, drainit, &[&["/worker"], worker].concat())
    }

    /// A pool that is ready.
    pub(crate) fn pool(&'static self, podman: &[&str], drainit: &[&str], worker: &str) -> Guest {
        let guest = self.worker(podman, &[&["--listen", "8080"], drainit].concat(), &[worker]);
        guest.until_ready();
        guest
    }
}

/// `8080/tcp -> 127.0.0.1:40123`
fn published(table: &str) -> BTreeMap<u16, SocketAddr> {
    let row = |line: &str| {
        let (inside, outside) = line.split_once("/tcp -> ")?;
        Some((inside.parse().ok()?, outside.trim().parse().ok()?))
    };
    table.lines().filter_map(row).collect()
}

impl Guest {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `drainit SUBCOMMAND`, in the container.
    pub(crate) fn drainit(&self, subcommand: &[&str]) -> Ended {
        self.podman.run([&["exec", self.name(), "/drainit"], subcommand].concat())
    }

    /// What `drainit status --json` says.
    pub(crate) fn status(&self) -> Value {
        let ended = self.drainit(&["status", "--json"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    pub(crate) fn open(&self, port: u16, path: &str) -> io::Result<Reply> {
        let address = self.ports.get(&port).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        body.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        while line.trim_end() != "" {
            line.clear();
            body.read_line(&mut line)?;
        }
        Ok(Reply { status, body })
    }

    /// The body that a worker answers with.
    pub(crate) fn get(&self, path: &str) -> String {
        let reply = self.open(APP, path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(reply.status, 200, "{path}");
        reply.text()
    }

    /// The status of a probe on the admin port.
    pub(crate) fn probe(&self, path: &str) -> io::Result<u16> {
        self.open(ADMIN, path).map(|reply| reply.status)
    }

    pub(crate) fn until_ready(&self) {
        self.until_probe("/readyz", 200);
    }

    pub(crate) fn until_probe(&self, path: &str, status: u16) {
        eventually(&format!("{path} {status}"), || match self.probe(path) {
            Ok(seen) => (seen == status).then_some(()),
            Err(error) => {
                let state = self.state("{{.State.Status}}");
                assert_eq!(state, "running", "it cannot be asked for {path} any more: {error}");
                None
            }
        });
    }

    /// Waits for a line of the worker's.
    pub(crate) fn until_said(&self, line: &str) {
        eventually(line, || self.output().lines().any(|said| said == line).then_some(()));
    }

    pub(crate) fn state(&self, format: &str) -> String {
        self.podman.must(["inspect", "--format", format, self.name()]).trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.podman.must(["kill", "--signal", signal, self.name()]);
    }

    /// `podman stop`, and the exit code.
    pub(crate) fn stop(&self, options: &[&str]) -> i32 {
        self.podman.must([&["stop", self.name()], options].concat());
        self.exit_code()
    }

    pub(crate) fn exit_code(&self) -> i32 {
        self.podman.must(["wait", self.name()]).trim_end().parse().expect("a number")
    }

    /// drainit's own lines.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line of the log with this message, once it is there.
    pub(crate) fn logged(&self, message: &str) -> Value {
        eventually(message, || self.log().into_iter().find(|line| line["message"] == message))
    }

    /// By drainit's own clock: how fast podman tells of it does not matter.
    pub(crate) fn seconds_between(&self, first: &str, second: &str) -> f64 {
        const DAY: f64 = 86_400.0;
        let [first, second] = [first, second].map(|message| time_of_day(&self.logged(message)));
        (second - first).rem_euclid(DAY)
    }

    fn output(&self) -> String {
        let ended = self.podman.run(["logs", self.name()]);
        ended.stdout + &ended.stderr
    }
}

/// In seconds; `2026-01-31T23:59:59.123456Z`.
fn time_of_day(line: &Value) -> f64 {
    let (_, time) = line["timestamp"].as_str().and_then(|time| time.split_once('T')).expect("a timestamp");
    let number = |digits: &str| digits.parse::<f64>().expect("a number");
    time.trim_end_matches('Z').split(':').fold(0.0, |seconds, digits| seconds * 60.0 + number(digits))
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.output());
        }
        self.podman.run(["rm", "--force", "--time=0", self.name()]);
    }
}

impl Reply {
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("the answer is whole");
        text
    }
}

/// What `look` finds, as soon as it does.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
