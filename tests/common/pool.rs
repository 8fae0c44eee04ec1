//! drainit with a pool: PID 1 of its own namespace, probes on a port of the tests' network namespace.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::http::{self, Answer};
use super::{Launch, Process, Running, Subject, example, is_root, pid1, until};

/// A TCP port that no other test gets: a socket is bound to it that does not listen and lets others do so.
pub struct Port {
    pub number: u16,
    _reservation: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        let fd = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        let reservation = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&reservation, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
        // Of both families, and only then open to others: chosen before that, it could be another's already.
        let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        let mut size = size_of_val(&address) as libc::socklen_t;
        let place = (&raw mut address).cast::<libc::sockaddr>();
        assert_eq!(unsafe { libc::bind(fd, place, size) }, 0, "bind: {}", std::io::Error::last_os_error());
        assert_eq!(unsafe { libc::getsockname(fd, place, &mut size) }, 0);
        set(&reservation, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        Self { number: u16::from_be(address.sin6_port), _reservation: reservation }
    }

    pub fn on(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.number)
    }

    pub fn local(&self) -> SocketAddr {
        self.on(Ipv4Addr::LOCALHOST)
    }
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) {
    let size = size_of_val(&value) as libc::socklen_t;
    let place = (&raw const value).cast();
    assert_eq!(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, place, size) }, 0);
}

/// A name in the abstract namespace, which the tests share with all others of this machine.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("@drainit/test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What to start.
pub struct PoolLaunch {
    launch: Launch,
    port: Port,
    admin: Port,
    control: String,
}

/// With a socket on 127.0.0.1 that it owns.
pub fn pool() -> PoolLaunch {
    pool_without_socket().listening()
}

/// With no socket; of one worker, it is an init with probes.
pub fn pool_without_socket() -> PoolLaunch {
    PoolLaunch::of(pid1())
}

impl PoolLaunch {
    pub fn of(launch: Launch) -> Self {
        Self::at((Port::reserve(), Port::reserve()), launch)
    }

    /// At ports that another had, of the workers and of its probes.
    pub fn at((port, admin): (Port, Port), launch: Launch) -> Self {
        let control = unique_name();
        let admin_address = admin.local().to_string();
        // What a drainit that is killed leaves there goes with the namespace.
        let launch = launch.bare().under(["hide=/run", "hide=/dev/shm"]).options([
            "--admin",
            &admin_address,
            "--control",
            &control,
        ]);
        Self { launch, port, admin, control }
    }

    pub fn listening(self) -> Self {
        let address = self.port.local().to_string();
        self.options(["--listen", &address])
    }

    pub fn port(&self) -> &Port {
        &self.port
    }

    pub fn with(mut self, change: impl FnOnce(Launch) -> Launch) -> Self {
        self.launch = change(self.launch);
        self
    }

    pub fn options<S: AsRef<OsStr>>(self, options: impl IntoIterator<Item = S>) -> Self {
        self.with(|launch| launch.options(options))
    }

    pub fn under<S: AsRef<OsStr>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.with(|launch| launch.under(steps))
    }

    /// The fixture; `poll=3` as its last step is a worker that waits for connections.
    pub fn worker<S: AsRef<OsStr>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        self.with(|launch| launch.worker(steps))
    }

    pub fn command<S: AsRef<OsStr>>(self, command: impl IntoIterator<Item = S>) -> Self {
        self.with(|launch| launch.command(command))
    }

    /// A server that behaves.
    pub fn server(self) -> Self {
        self.command([example("server")])
    }

    pub fn start(self) -> Pool {
        let Self { launch, port, admin, control } = self;
        Pool { running: launch.start(), port, admin, control }
    }
}

pub struct Pool {
    running: Running,
    pub port: Port,
    pub admin: Port,
    pub control: String,
}

impl Deref for Pool {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Pool {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// A line of `workers` in /status, and the process it speaks of.
#[derive(Clone, Debug)]
pub struct Member {
    pub slot: u64,
    pub state: String,
    pub process: Process,
}

/// Whom /status shows of the children, dead ones left out.
pub fn members(init: Process, status: &Value) -> Vec<Member> {
    let children = init.children();
    let shown = status["workers"].as_array().into_iter().flatten();
    let member = |worker: &Value| {
        let pid = worker["pid"].as_i64()?.to_string();
        let process = children.iter().find(|child| child.pid_inside() == pid)?;
        let state = worker["state"].as_str()?.to_owned();
        Some(Member { slot: worker["slot"].as_u64()?, state, process: *process })
    };
    shown.filter_map(member).collect()
}

impl Pool {
    /// Its ports, for another; it ends, if it has not.
    pub fn into_ports(self) -> (Port, Port) {
        (self.port, self.admin)
    }

    /// Where the workers serve.
    pub fn address(&self) -> SocketAddr {
        self.port.local()
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        http::get(self.admin.local(), path).ok()
    }

    /// From the admin port, which may not be served yet.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        until(format_args!("an answer to {path}"), || {
            assert!(self.launcher().is_alive(), "it has ended, and was to answer {path}\n{}", self.running);
            self.try_get(path)
        })
    }

    #[track_caller]
    pub fn readyz(&self) -> u16 {
        self.get("/readyz").status
    }

    pub fn try_status(&self) -> Option<Value> {
        serde_json::from_str(&self.try_get("/status")?.body).ok()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.get("/status");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    #[track_caller]
    pub fn phase(&self) -> String {
        self.status()["phase"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_for_phase(&self, phase: &str) {
        until(format_args!("phase {phase}\n{}", self.running), || (self.phase() == phase).then_some(()));
    }

    /// `workers` ready, and no other there.
    #[track_caller]
    pub fn wait_ready(&self, workers: u64) {
        until(format_args!("{workers} ready workers\n{}", self.running), || {
            let status = self.status();
            let all = status["workers"].as_array().map_or(0, Vec::len) as u64;
            (status["ready_workers"] == workers && all == workers).then_some(())
        });
    }

    /// Whom /status shows, dead ones left out.
    #[track_caller]
    pub fn members(&self) -> Vec<Member> {
        members(self.init(), &self.status())
    }

    /// Whoever is in that slot and ready, once somebody is.
    #[track_caller]
    pub fn member(&self, slot: u64) -> Member {
        until(format_args!("a ready worker in slot {slot}\n{}", self.running), || {
            self.members().into_iter().find(|member| member.slot == slot && member.state == "ready")
        })
    }

    /// A subcommand, as `kubectl exec` runs it: in the container's namespaces.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("nsenter")
    }

    /// The same, to be waited for.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.inside();
        command.arg(Subject::from_env().path()).args(words).env("DRAINIT_CONTROL", &self.control);
        command
    }

    /// The beginning of a command line that goes on in the container.
    #[track_caller]
    pub fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init().0.to_string(), "--pid", "--mount"]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// drainit's own log so far.
    pub fn log(&self) -> Vec<Value> {
        self.errors().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first line of the log with that message.
    #[track_caller]
    pub fn logged(&self, message: &str) -> Value {
        until(format_args!("{message:?} in the log"), || {
            self.log().into_iter().find(|line| line["message"].as_str().is_some_and(|m| m.contains(message)))
        })
    }

    pub fn has_logged(&self, message: &str) -> bool {
        self.log().iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains(message)))
    }
}

/// A process beside drainit, that ends with this guard.
pub struct Companion(Child);

impl Companion {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("start a companion"))
    }
}

impl Deref for Companion {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Companion {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The code with which a subcommand ended.
#[track_caller]
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no code: {output:?}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The interpreter itself: what is in PATH may be a script that looks for it.
pub fn python() -> Option<OsString> {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    output.status.success().then(|| text(&output.stdout).trim().into())
}
