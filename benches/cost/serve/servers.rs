//! The same server, several processes on one port, by whoever keeps them there.
#![allow(unsafe_code, reason = "a socket gets a certain descriptor, children end with their parent")]

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::load::{self, Connections, Limit};
use super::peers::PM2_RUNTIME;
use crate::launch::{Command, Process};
use crate::subject::{self, Subject};
use crate::{clock, idle, procfs, worker};

/// Whom the others are compared with: the processes on one socket that they have inherited, and nobody above them.
pub(crate) const ALONE: &str = "one socket";

pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const PM2: &str = "pm2";

/// Somebody who keeps killing workers that have been there for a while is no reason to give up or to wait.
pub(crate) const RESTARTS: [&str; 2] = ["--min-uptime=100ms", "--max-crashes=off"];

/// By what a subject serves.
#[derive(Clone, Debug)]
pub(crate) enum Keeper {
    Nobody,
    Drainit {
        path: PathBuf,
        sockets: &'static str,
    },
    Cluster,
    Pm2(PathBuf),
    /// A cluster whose primary knows how to restart its workers.
    RollingCluster,
    Gunicorn {
        folder: PathBuf,
        words: &'static str,
    },
    /// Ours with a control socket.
    Rolled {
        path: PathBuf,
        control: String,
        server: Vec<OsString>,
    },
}

/// Whom to measure: its name and bars, and by what it serves.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) subject: Subject,
    pub(crate) keeper: Keeper,
}

impl Contender {
    pub(crate) fn peer(name: &str, keeper: Keeper) -> Self {
        Self { subject: Subject::peer(name), keeper }
    }

    pub(crate) fn ours(init: &Subject, sockets: &'static str) -> Self {
        let name =
            if sockets == "shared" { init.name.clone() } else { init.name.replace("drainit", sockets) };
        Self { subject: init.renamed(name), keeper: Keeper::Drainit { path: init.path.clone(), sockets } }
    }

    pub(crate) fn restarts(&self) -> bool {
        !matches!(self.keeper, Keeper::Nobody)
    }

    /// Start it; all of its workers answer when this returns.
    pub(crate) fn start(&self, workers: usize) -> io::Result<Server> {
        let port = idle::free_address()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Command::new(self.command(port, workers)?)?.start(None)?;
        let server = Server { process, address };
        // One after the other would always get the same one.
        for _ in 0..100 {
            let limit = Limit::After(Duration::from_millis(100));
            if TcpStream::connect(address).is_ok()
                && load::closed(address, Connections::New, 4 * workers, limit)?.connections.len() == workers
            {
                return Ok(server);
            }
            clock::sleep(Duration::from_millis(100));
        }
        Err(io::Error::other(format!("{}: no answer from {workers} workers", self.subject.name)))
    }

    fn command(&self, port: u16, workers: usize) -> io::Result<Vec<OsString>> {
        let node = node()?;
        let (port, count) = (port.to_string(), workers.to_string());
        let mut words = vec!["/usr/bin/env".into(), format!("PORT={port}").into()];
        match &self.keeper {
            Keeper::Nobody => {
                words.extend(worker::command("keep")?);
                words.extend([port.into(), count.into(), node, script("inheriting.js")]);
            }
            Keeper::Drainit { path, sockets } => {
                let options = ["--workers", &count, "--listen", &port, "--sockets", sockets];
                let options = options.iter().chain(&RESTARTS).chain(&["--admin=off", "--control=off", "--"]);
                words.push(path.into());
                words.extend(options.map(OsString::from));
                words.extend([node, script("server.js")]);
            }
            Keeper::Cluster => words.extend([node, script("cluster.js"), count.into()]),
            Keeper::RollingCluster => words.extend([node, script("cluster_rolling.js"), count.into()]),
            Keeper::Gunicorn { folder, words: options } => {
                words.push(folder.join("gunicorn").into());
                words.extend(options.split(' ').map(OsString::from));
                words.extend(["--workers".into(), count.into(), "--bind".into()]);
                words.extend([format!("127.0.0.1:{port}").into(), "--chdir".into(), script("")]);
            }
            Keeper::Rolled { path, control, server } => {
                let options =
                    ["--workers", &count, "--listen", &port, "--control", control, "--admin=off", "--"];
                words.push(path.into());
                words.extend(options.map(OsString::from));
                words.extend(server.iter().cloned());
            }
            Keeper::Pm2(folder) => {
                let mut home = OsString::from("PM2_HOME=");
                home.push(folder.join("home"));
                words.extend([home, node, folder.join(PM2_RUNTIME).into(), "start".into()]);
                words.extend([script("server.js"), "-i".into(), count.into()]);
            }
        }
        Ok(words)
    }
}

/// Whether it is ours with a queue for each worker.
pub(crate) fn has_queue_each(subject: &Subject) -> bool {
    subject.name.starts_with("per-worker")
}

/// Ends with this guard.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// What the workers and whoever keeps them have used so far, in microseconds.
    pub(crate) fn processor_time(&self) -> io::Result<f64> {
        let own = clock::processor_time(self.pid())?;
        procfs::children_of(self.pid())?
            .into_iter()
            .try_fold(own, |sum, pid| Ok(sum + clock::processor_time(pid)?))
    }
}

pub(crate) fn node() -> io::Result<OsString> {
    let node = subject::in_path("node").map(PathBuf::into_os_string);
    node.ok_or_else(|| io::Error::other("no node in PATH (Debian package: nodejs)"))
}

pub(crate) fn script(name: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/serve/servers").join(name).into()
}

/// The one above those that nobody keeps: `PORT WORKERS COMMAND...`. It listens, starts them with the socket as
/// descriptor 3, and waits.
pub(crate) fn keep(mut arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let mut number = || arguments.next().unwrap_or_default().parse::<u16>().map_err(io::Error::other);
    let (port, workers) = (number()?, number()?);
    let command: Vec<_> = arguments.collect();
    let (program, rest) = command.split_first().ok_or_else(|| io::Error::other("no command"))?;
    // Of both families, as Node's own would be.
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    // SAFETY: dup2(2) and listen(2) touch no memory, and descriptor 3 is nobody's or this one.
    unsafe { libc::dup2(listener.as_raw_fd(), 3) };
    // SAFETY: as above. The kernel takes no more than somaxconn.
    unsafe { libc::listen(3, i32::MAX) };
    let mut children = Vec::new();
    for _ in 0..workers {
        let mut child = std::process::Command::new(program);
        child.args(rest);
        let end_with_parent = || {
            // Inherited from here on, where it was not dup2's to say so.
            // SAFETY: fcntl(2) touches no memory.
            unsafe { libc::fcntl(3, libc::F_SETFD, 0) };
            Ok(prctl::set_pdeathsig(Signal::SIGTERM)?)
        };
        // SAFETY: two system calls, nothing else.
        unsafe { child.pre_exec(end_with_parent) };
        children.push(child.spawn()?);
    }
    children.iter_mut().try_for_each(|child| child.wait().map(drop))
}
