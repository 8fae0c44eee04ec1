//! Everything that may be refused, before anything is started: sockets first of all.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::engine::Engine;
use super::environment::{Environment, unknown_socket};
use super::launcher::Launcher;
use super::sockets::Sockets;
use crate::config::address::Address;
use crate::config::endpoint::Endpoint;
use crate::config::values::{Listen, Sockets as Mode};
use crate::config::{ADMIN_PORT, Admin, Config, Control, Sidecars};
use crate::core::config::Kind;
use crate::core::types::{ExitStatus, Release, code};
use crate::sys::accounts::Account;
use crate::sys::listen::{Listener, Queue, bind_tcp};
use crate::sys::signals::Inherited;
use crate::sys::socket_file::SocketFile;
use crate::sys::standing::{self, Standing};
use crate::sys::watch::Watcher;
use crate::sys::{accounts, control, descriptors, memory, oom_score, process};

/// A daemon about to start its first worker.
pub(super) struct Boot {
    pub(super) engine: Engine,
    pub(super) servers: Servers,
}

/// What is served once there is an event loop.
#[derive(Default)]
pub(super) struct Servers {
    pub(super) admin: Option<TcpListener>,
    pub(super) control: Option<UnixListener>,
    /// Removed when it is dropped.
    pub(super) control_file: Option<SocketFile>,
    /// Of `--watch`.
    pub(super) watcher: Option<Watcher>,
    pub(super) sidecars: Sidecars,
    /// `/prestop` on the admin port.
    pub(super) prestop: bool,
    /// What could not be had and is not worth refusing for.
    pub(super) missing: Vec<String>,
    /// What is no fault and worth knowing.
    pub(super) remarks: Vec<&'static str>,
    /// Whether somebody may rely on what is missing.
    pub(super) relied_on: bool,
}

impl Boot {
    pub(super) fn up(mut config: Config, inherited: Inherited) -> Result<Self, ExitStatus> {
        let mut environment = Environment::inherited();
        let account = account(&config, &mut environment)?;
        let activated = activated(&environment)?;
        if !activated.is_empty() && config.sockets != Mode::Shared {
            return Err(usage(
                "--sockets: what drainit was given by LISTEN_FDS can only be shared".to_owned(),
            ));
        }
        let listeners = listen(activated, &config)?;
        check_sockets_asked_for(&config, &listeners)?;
        let relied_on = config.core.kind == Kind::Pool || process::is_init() || config.in_pod;
        let mut servers = Servers { relied_on, ..Servers::default() };
        serve_admin(&config, &mut servers)?;
        serve_control(&config, &mut servers)?;
        arrange_parentage(&config, &mut servers)?;
        if config.core.kind == Kind::Pool {
            environment.forget_channel();
        }
        if !listeners.is_empty() {
            environment.announce(&listeners);
        }
        watch_paths(&config, &mut servers);
        servers.sidecars = std::mem::take(&mut config.sidecars);
        servers.prestop = config.prestop_http;
        let standing = standing(&config, account, &mut servers);
        let sockets = Sockets::new(config.sockets, listeners);
        let launcher = Launcher::new(&config, environment, sockets, inherited, standing);
        config.core.version = launcher.releases.version(Release(1));
        Ok(Self { engine: Engine::new(config, launcher), servers })
    }
}

/// Whom the workers run as, if it is somebody else.
fn account(config: &Config, environment: &mut Environment) -> Result<Option<Account>, ExitStatus> {
    let Some(user) = &config.user else { return Ok(None) };
    let account = accounts::find(user).map_err(|reason| usage(format!("--user: {reason}")))?;
    if standing::is_already(&account).unwrap_or(false) {
        return Ok(None);
    }
    // What a container runtime has set for drainit's user is none of the workers' business; what somebody chose is.
    let own = accounts::home_of(process::uid()).unwrap_or_else(|| "/".into());
    if environment.get("HOME").is_none_or(|home| home.is_empty() || home == own.as_bytes()) {
        environment.set_bytes("HOME", account.home.as_bytes());
    }
    Ok(Some(account))
}

/// An init leaves everything as it is but for the user. A pool's own needs are met, without its workers' noticing.
fn standing(config: &Config, account: Option<Account>, servers: &mut Servers) -> Standing {
    if config.core.kind == Kind::Single {
        return Standing { account, ..Standing::default() };
    }
    if memory::dies_as_one() {
        servers.remarks.push("memory.oom.group is set: where memory runs out, the whole container is killed");
    }
    Standing { account, descriptors: descriptors::raise_limit(), oom_score_adj: oom_score::for_workers() }
}

/// `{fd:NAME}` in COMMAND needs a socket of that name; without any socket it is nothing to us.
fn check_sockets_asked_for(config: &Config, listeners: &[Listener]) -> Result<(), ExitStatus> {
    match config.command.iter().find_map(|argument| unknown_socket(argument, listeners)) {
        Some(name) if !listeners.is_empty() => {
            Err(usage(format!("COMMAND asks for {{fd:{name}}}, and no --listen is named so")))
        }
        _ => Ok(()),
    }
}

fn usage(reason: String) -> ExitStatus {
    ExitStatus { code: code::USAGE, reason }
}

fn unavailable(reason: String) -> ExitStatus {
    ExitStatus { code: code::UNAVAILABLE, reason }
}

/// Sockets of systemd's protocol that are meant for this process; every other descriptor is closed.
fn activated(environment: &Environment) -> Result<Vec<Listener>, ExitStatus> {
    let number = |name: &str| std::str::from_utf8(environment.get(name)?).ok()?.parse::<usize>().ok();
    let ours = number("LISTEN_PID") == Some(std::process::id() as usize);
    let count = number("LISTEN_FDS").filter(|count| ours && *count < 1024).unwrap_or(0);
    descriptors::close_from(3 + i32::try_from(count).unwrap_or(0));
    let names = environment
        .get("LISTEN_FDNAMES")
        .map(|names| String::from_utf8_lossy(names).into_owned())
        .unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let fds: Vec<OwnedFd> = descriptors::take_activated(count).map_err(|error| {
        unavailable(format!("LISTEN_FDS={count}, but these descriptors are not open: {error}"))
    })?;
    fds.into_iter()
        .map(|fd| Listener::inherited(fd, names.next().unwrap_or("unknown").to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| unavailable(format!("an inherited socket cannot be used: {error}")))
}

fn listen(mut listeners: Vec<Listener>, config: &Config) -> Result<Vec<Listener>, ExitStatus> {
    let queue = if config.sockets == Mode::Shared { Queue::Shared } else { Queue::Split };
    for listen in &config.listen {
        let name = listen.name.clone().unwrap_or_else(|| "unknown".to_owned());
        let v6_only = has_v4_twin(&listen.address, &config.listen);
        listeners.push(
            Listener::bind(name, &absolute(&listen.address), v6_only, queue)
                .map_err(|error| unavailable(format!("--listen {error}")))?,
        );
    }
    Ok(listeners)
}

/// `[::]:80` takes IPv4 as well, unless IPv4 has a socket of its own on that port.
fn has_v4_twin(address: &Address, wanted: &[Listen]) -> bool {
    let Address::Tcp(address) = address else { return false };
    let twin = |other: &Listen| matches!(other.address, Address::Tcp(other) if other.is_ipv4() && other.port() == address.port());
    address.is_ipv6() && address.port() != 0 && wanted.iter().any(twin)
}

/// drainit leaves its start directory.
fn absolute(address: &Address) -> Address {
    match address {
        Address::Unix(path) => Address::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        other => other.clone(),
    }
}

/// Before the first worker: what changes after that worker has read it must not be taken for how it always was.
fn watch_paths(config: &Config, servers: &mut Servers) {
    if !config.watch.is_empty() {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let paths: BTreeSet<PathBuf> = config.watch.iter().map(absolute).collect();
        servers.watcher = Some(Watcher::new(paths));
    }
}

fn serve_admin(config: &Config, servers: &mut Servers) -> Result<(), ExitStatus> {
    let address = match &config.admin {
        Admin::Off => return Ok(()),
        Admin::Default => Address::Port(ADMIN_PORT),
        Admin::At(address) => address.clone(),
    };
    match bind_admin(&address) {
        Ok(listener) => servers.admin = Some(listener),
        // Whoever wants an init and no more can do without probes; whoever runs a pool relies on them.
        Err(reason) if config.admin == Admin::Default && config.core.kind == Kind::Single => {
            servers.missing.push(reason)
        }
        Err(reason) => return Err(unavailable(reason)),
    }
    Ok(())
}

fn bind_admin(address: &Address) -> Result<TcpListener, String> {
    let bind = |address: SocketAddr| bind_tcp(address, false).map(TcpListener::from);
    let bound = match address {
        Address::Port(port) => bind(([0_u16; 8], *port).into()).or_else(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied => Err(error),
            _ => bind(([0_u8; 4], *port).into()),
        }),
        Address::Tcp(address) => bind(*address),
        Address::Unix(_) | Address::Abstract(_) => {
            return Err("--admin takes a TCP address; unix sockets are for --control".to_owned());
        }
    };
    let listener =
        bound.map_err(|error| format!("--admin {address}: {error}; takes another address, or off"))?;
    listener.set_nonblocking(true).map_err(|error| format!("--admin {address}: {error}"))?;
    Ok(listener)
}

fn serve_control(config: &Config, servers: &mut Servers) -> Result<(), ExitStatus> {
    let (listener, file) = match &config.control {
        Control::Off => return Ok(()),
        Control::At(endpoint) => {
            let endpoint = match endpoint {
                Endpoint::Path(path) => {
                    Endpoint::Path(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
                }
                Endpoint::Abstract(_) => endpoint.clone(),
            };
            control::bind(&endpoint).map_err(|error| unavailable(format!("--control {endpoint}: {error}")))?
        }
        Control::OfThisContainer => match bind_own_name(config.in_pod) {
            Ok(bound) => bound,
            Err(error) => {
                servers.missing.push(format!("no control socket: {error}"));
                return Ok(());
            }
        },
    };
    servers.control = Some(listener);
    servers.control_file = file;
    Ok(())
}

/// The container's name for what is its main process (PID 1, unless the pod shares its PID namespace), the pid's for
/// whoever else runs there.
fn bind_own_name(in_pod: bool) -> std::io::Result<(UnixListener, Option<SocketFile>)> {
    let by_pid = control::of_process(process::own_pid());
    let is_main = process::is_init() || in_pod;
    let own = if is_main { control::of_this_container() } else { by_pid.clone() };
    control::bind(&own).or_else(|_| control::bind(&by_pid))
}

fn arrange_parentage(config: &Config, servers: &mut Servers) -> Result<(), ExitStatus> {
    if let Some(signal) = config.parent_death {
        let refused =
            |error| ExitStatus { code: code::OS, reason: format!("--parent-death {signal}: {error}") };
        if process::on_parent_death(signal).map_err(refused)? {
            return Err(ExitStatus {
                code: code::OS,
                reason: "the parent of drainit is dead already".to_owned(),
            });
        }
    }
    if !process::is_init()
        && let Err(error) = process::become_subreaper()
    {
        servers.missing.push(format!("orphans will not be seen: {error}"));
    }
    Ok(())
}
