//! What a worker gets to know: its environment and its arguments.
//!
//! An init changes neither, byte for byte. In a pool a worker is told about its sockets in every convention that
//! servers look for, and who it is.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::core::types::{Generation, SlotIndex};
use crate::sys::listen::{Bound, Listener};

/// The entries of an environment, as drainit got them: any bytes, doubles included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment(Vec<CString>);

impl Environment {
    pub(super) fn inherited() -> Self {
        Self(crate::sys::process::environment())
    }

    pub(super) fn entries(&self) -> &[CString] {
        &self.0
    }

    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find_map(|entry| value_of(entry, name))
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|entry| value_of(entry, name).is_none());
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.set_bytes(name, value.as_bytes());
    }

    pub(super) fn set_bytes(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.0.extend(CString::new([name.as_bytes(), b"=", value].concat()));
    }

    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// Every convention by which a server finds a listening socket it has inherited; the first is descriptor 3.
    /// `LISTEN_PID` is missing here: it is the worker's own, known only after the fork.
    pub(super) fn announce(&mut self, listeners: &[Listener]) {
        for stale in ["LISTEN_PID", "LISTEN_PIDFDID"] {
            self.remove(stale);
        }
        if listeners.is_empty() {
            return;
        }
        let numbered = || (3..).zip(listeners);
        let joined = |separator: &str, item: &dyn Fn(usize, &Listener) -> String| {
            numbered().map(|(fd, listener)| item(fd, listener)).collect::<Vec<_>>().join(separator)
        };
        self.set("LISTEN_FDS", &listeners.len().to_string());
        self.set("LISTEN_FDNAMES", &joined(":", &|_, listener| listener.name.clone()));
        self.set(
            "SERVER_STARTER_PORT",
            &joined(";", &|fd, listener| format!("{}={fd}", starter_name(&listener.bound))),
        );
        self.set("EINHORN_FD_COUNT", &listeners.len().to_string());
        self.set("UNICORN_FD", &joined(",", &|fd, _| fd.to_string()));
        self.set("FPM_SOCKETS", &joined(",", &|fd, listener| format!("{}={fd}", fpm_name(&listener.bound))));
        for (index, (fd, listener)) in numbered().enumerate() {
            self.set(&format!("EINHORN_FD_{index}"), &fd.to_string());
            self.set(&format!("PUMA_INHERIT_{index}"), &format!("{fd}:{}", url(&listener.bound)));
        }
        if let Some(port) = listeners.iter().find_map(|listener| listener.bound.port()) {
            self.set_default("PORT", &port.to_string());
        }
    }

    /// Node's child_process finds its channel by the first, and takes both out of its own environment; the second is
    /// the default. By the last one, which cluster sets, it would take itself for somebody's worker and not bind.
    const NODE: [&str; 3] = ["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID"];

    /// The channel that drainit itself may have been given is closed.
    pub(super) fn forget_channel(&mut self) {
        Self::NODE.iter().for_each(|name| self.remove(name));
    }

    pub(super) fn offer_channel(&mut self, fd: usize) {
        self.forget_channel();
        self.set("NODE_CHANNEL_FD", &fd.to_string());
        self.set("NODE_CHANNEL_SERIALIZATION_MODE", "json");
    }

    /// What whoever supervises drainit has told drainit about itself, and means no worker of a pool.
    pub(super) fn forget_supervisor(&mut self) {
        for of_drainit in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            self.remove(of_drainit);
        }
    }

    /// Where the worker can say how it is, and how often it has to.
    pub(super) fn listen_to(&mut self, address: &str, watchdog: Option<Duration>) {
        self.forget_supervisor();
        self.set("NOTIFY_SOCKET", address);
        if let Some(every) = watchdog {
            self.set("WATCHDOG_USEC", &every.as_micros().max(1).to_string());
        }
    }

    /// Who the worker is.
    pub(super) fn introduce(&mut self, slot: SlotIndex, generation: Generation, version: Option<&str>) {
        let generation = generation.0.to_string();
        self.set("DRAINIT_SLOT", &slot.to_string());
        self.set("DRAINIT_GENERATION", &generation);
        self.set_default("WORKER_GENERATION", &generation);
        if let Some(version) = version {
            self.set("DRAINIT_VERSION", version);
            self.set_default("APP_VERSION", version);
        }
    }
}

fn value_of<'a>(entry: &'a CString, name: &str) -> Option<&'a [u8]> {
    entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Server::Starter's "host:port", the port alone for every address.
fn starter_name(bound: &Bound) -> String {
    match bound {
        Bound::Tcp { address, dual: true } => address.port().to_string(),
        other => other.to_string(),
    }
}

/// PHP-FPM compares it to an address of its own spelling, which has no brackets around IPv6.
fn fpm_name(bound: &Bound) -> String {
    match bound {
        Bound::Tcp { address, .. } => format!("{}:{}", address.ip(), address.port()),
        other => other.to_string(),
    }
}

fn url(bound: &Bound) -> String {
    match bound {
        Bound::Tcp { .. } => format!("tcp://{bound}"),
        Bound::Unix(_) | Bound::Abstract(_) | Bound::Unknown => format!("unix://{bound}"),
    }
}

/// `{fd}`, `{fd:NAME}`, `{slot}` and `{generation}` in an argument; everything else stays as it is.
pub(super) fn expand(
    argument: &OsString,
    listeners: &[Listener],
    slot: SlotIndex,
    generation: Generation,
) -> OsString {
    let mut rest = argument.clone().into_vec();
    let mut expanded = Vec::with_capacity(rest.len());
    while let Some(open) = rest.iter().position(|byte| *byte == b'{') {
        let tail = rest.split_off(open);
        expanded.append(&mut rest);
        let value = tail.iter().position(|byte| *byte == b'}').and_then(|close| {
            let name = std::str::from_utf8(tail.get(1..close)?).ok()?;
            Some((close, placeholder(name, listeners, slot, generation)?))
        });
        rest = match value {
            Some((close, value)) => {
                expanded.extend(value.bytes());
                tail.get(close + 1..).unwrap_or_default().to_vec()
            }
            None => {
                expanded.push(b'{');
                tail.get(1..).unwrap_or_default().to_vec()
            }
        };
    }
    expanded.append(&mut rest);
    OsString::from_vec(expanded)
}

fn placeholder(
    name: &str,
    listeners: &[Listener],
    slot: SlotIndex,
    generation: Generation,
) -> Option<String> {
    let fd_of = |index: usize| (index + 3).to_string();
    match name {
        "slot" => Some(slot.to_string()),
        "generation" => Some(generation.0.to_string()),
        "fd" => (!listeners.is_empty()).then(|| fd_of(0)),
        _ => {
            let wanted = name.strip_prefix("fd:")?;
            listeners.iter().position(|listener| listener.name == wanted).map(fd_of)
        }
    }
}

/// The first `{fd:NAME}` that no socket has. What cannot be a name, and a bare number, belongs to a program in
/// the arguments: `node -e 'server.listen({fd: 3})'`.
pub(super) fn unknown_socket(argument: &OsString, listeners: &[Listener]) -> Option<String> {
    let text = argument.to_string_lossy();
    text.split("{fd:").skip(1).find_map(|tail| {
        let name = tail.split_once('}')?.0;
        let is_a_name = name.bytes().all(|byte| byte.is_ascii_graphic())
            && !name.bytes().all(|byte| byte.is_ascii_digit());
        (is_a_name && !listeners.iter().any(|listener| listener.name == name)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::sys::listen::Queue;

    fn listeners() -> Vec<Listener> {
        let bind = |name: &str, address: &str| {
            Listener::bind(name.to_owned(), &address.parse().unwrap(), false, Queue::Shared).unwrap()
        };
        vec![bind("web", "127.0.0.1:0"), bind("unknown", "0")]
    }

    #[test]
    fn placeholders_are_replaced_and_all_else_is_kept() {
        let listeners = listeners();
        let expand =
            |text: &[u8]| expand(&OsString::from_vec(text.to_vec()), &listeners, 2, Generation(7)).into_vec();
        assert_eq!(expand(b"fd://{fd}"), b"fd://3");
        assert_eq!(expand(b"{fd:web}{slot}-{generation}"), b"32-7");
        assert_eq!(expand(b"{ {slot {x} {{slot}} {fd:no} \xff{"), b"{ {slot {x} {2} {fd:no} \xff{");
        assert_eq!(unknown_socket(&"{fd:web} {fd:no}".into(), &listeners), Some("no".to_owned()));
        assert_eq!(unknown_socket(&"{fd:web}".into(), &listeners), None);
        assert_eq!(unknown_socket(&"listen({fd: 3}, {fd:3})".into(), &listeners), None);
    }

    #[test]
    fn a_worker_hears_of_its_own_supervisor_and_of_no_other() {
        let stale = [c"NOTIFY_SOCKET=/run/systemd/notify", c"WATCHDOG_USEC=5", c"WATCHDOG_PID=1", c"A=b"];
        let mut env = Environment(stale.map(CStr::to_owned).to_vec());
        env.listen_to("@x", None);
        assert_eq!(env.entries(), [c"A=b".to_owned(), c"NOTIFY_SOCKET=@x".to_owned()]);
        env.listen_to("@y", Some(Duration::from_millis(1500)));
        assert_eq!(env.get("WATCHDOG_USEC"), Some(b"1500000".as_slice()));
        env.forget_supervisor();
        assert_eq!(env.entries(), [c"A=b".to_owned()]);
    }

    #[test]
    fn sockets_are_announced_in_every_convention() {
        let listeners = listeners();
        let ports: Vec<_> = listeners.iter().filter_map(|listener| listener.bound.port()).collect();
        let mut env =
            Environment(vec![c"LISTEN_PID=1".to_owned(), c"PORT=9".to_owned(), c"LISTEN_FDS=7".to_owned()]);
        env.announce(&listeners);
        let get = |name: &str| String::from_utf8(env.get(name).unwrap_or_default().to_vec()).unwrap();
        assert_eq!(get("LISTEN_FDS"), "2");
        assert_eq!(get("LISTEN_FDNAMES"), "web:unknown");
        assert_eq!(get("SERVER_STARTER_PORT"), format!("127.0.0.1:{}=3;{}=4", ports[0], ports[1]));
        assert_eq!((get("EINHORN_FD_COUNT"), get("EINHORN_FD_1")), ("2".to_owned(), "4".to_owned()));
        assert_eq!(get("UNICORN_FD"), "3,4");
        assert_eq!(get("PUMA_INHERIT_0"), format!("3:tcp://127.0.0.1:{}", ports[0]));
        assert_eq!(get("FPM_SOCKETS"), format!("127.0.0.1:{}=3,:::{}=4", ports[0], ports[1]));
        assert_eq!(get("PORT"), "9");
        assert_eq!(env.get("LISTEN_PID"), None);
    }
}
