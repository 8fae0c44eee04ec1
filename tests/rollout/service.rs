//! A Service: the endpoints that the control plane knows, and the DNAT rules that kube-proxy makes of them, late.

use std::collections::BTreeMap;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::net::feed;

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 80;
pub const TARGET_PORT: u16 = 8080;

/// From a change of a pod to an EndpointSlice that everybody has: 10–60 ms were measured.
const WATCH: Duration = Duration::from_millis(40);

/// kube-proxy's `minSyncPeriod`: a change is applied at once, and the next no sooner than this after it. In a rollout
/// an old pod is deleted right after a new one has become ready, so that its removal waits all of it.
const MIN_SYNC_PERIOD: Duration = Duration::from_secs(1);

/// What a sync of many rules takes; measured: removals up to 1.2 s late.
const SYNC: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The readiness probe.
    pub serving: bool,
    /// Deleted, and so not ready whatever the probe says.
    pub terminating: bool,
}

#[derive(Default)]
struct State {
    endpoints: BTreeMap<Ipv4Addr, Endpoint>,
    changed: Option<Instant>,
    /// In the rules.
    named: Vec<Ipv4Addr>,
    removed: BTreeMap<Ipv4Addr, Instant>,
    stopped: bool,
}

/// What the kubelets tell and kube-proxy reads.
#[derive(Clone, Default)]
pub struct Endpoints(Arc<(Mutex<State>, Condvar)>);

impl Endpoints {
    pub fn set(&self, address: Ipv4Addr, endpoint: Endpoint) {
        self.change(|state| state.endpoints.insert(address, endpoint) != Some(endpoint));
    }

    pub fn remove(&self, address: Ipv4Addr) {
        self.change(|state| state.endpoints.remove(&address).is_some());
    }

    pub fn is_named(&self, address: Ipv4Addr) -> bool {
        self.0.0.lock().unwrap().named.contains(&address)
    }

    /// When the rules stopped naming it.
    pub fn removed(&self, address: Ipv4Addr) -> Option<Instant> {
        self.0.0.lock().unwrap().removed.get(&address).copied()
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let mut state = self.0.0.lock().unwrap();
        if change(&mut state) {
            state.changed.get_or_insert_with(Instant::now);
            self.0.1.notify_all();
        }
    }

    fn stop(&self) {
        self.0.0.lock().unwrap().stopped = true;
        self.0.1.notify_all();
    }
}

/// kube-proxy's part, until it is dropped.
pub struct Proxy {
    endpoints: Endpoints,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// On the node that this thread is on.
    pub fn start(endpoints: Endpoints) -> Self {
        let rules = format!(
            "*nat\n:SERVICE - [0:0]\n-A PREROUTING -d {CLUSTER_IP} -p tcp --dport {PORT} -j SERVICE\nCOMMIT\n"
        );
        feed("iptables-restore", &["--noflush"], &rules).expect("iptables");
        let theirs = endpoints.clone();
        Self { endpoints, thread: Some(thread::spawn(move || keep_in_step(&theirs))) }
    }

    pub fn address() -> SocketAddr {
        SocketAddr::from((CLUSTER_IP, PORT))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.endpoints.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn keep_in_step(endpoints: &Endpoints) {
    let Endpoints(shared) = endpoints;
    let mut synced: Option<Instant> = None;
    loop {
        let mut state = shared.0.lock().unwrap();
        let due = loop {
            if state.stopped {
                return;
            }
            let due = state.changed.map(|changed| {
                let next = synced.map_or(changed, |synced| synced + MIN_SYNC_PERIOD);
                next.max(changed + WATCH)
            });
            match due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => state = shared.1.wait(state).unwrap(),
                Some(Duration::ZERO) => break due,
                Some(left) => state = shared.1.wait_timeout(state, left).unwrap().0,
            }
        };
        state.changed = None;
        let backends = backends(&state.endpoints);
        drop(state);
        synced = due;
        thread::sleep(SYNC);
        feed("iptables-restore", &["--noflush"], &chain(&backends)).expect("iptables");
        let now = Instant::now();
        let mut state = shared.0.lock().unwrap();
        let named = mem::replace(&mut state.named, backends.clone());
        let gone = named.into_iter().filter(|address| !backends.contains(address));
        state.removed.extend(gone.map(|address| (address, now)));
    }
}

/// The ready ones; where there are none, those that still serve while they terminate.
fn backends(endpoints: &BTreeMap<Ipv4Addr, Endpoint>) -> Vec<Ipv4Addr> {
    let which = |terminating| {
        let those = endpoints.iter().filter(move |(_, e)| e.serving && e.terminating == terminating);
        those.map(|(address, _)| *address).collect::<Vec<_>>()
    };
    let ready = which(false);
    if ready.is_empty() { which(true) } else { ready }
}

/// All of the chain's rules, swapped at once.
fn chain(backends: &[Ipv4Addr]) -> String {
    let mut lines = "*nat\n:SERVICE - [0:0]\n".to_owned();
    for (number, address) in backends.iter().enumerate() {
        let share = 1.0 / (backends.len() - number) as f64;
        let of_them = format!("-m statistic --mode random --probability {share:.8}");
        let of_them = if number + 1 < backends.len() { of_them.as_str() } else { "" };
        lines += &format!("-A SERVICE -p tcp {of_them} -j DNAT --to-destination {address}:{TARGET_PORT}\n");
    }
    lines + "COMMIT\n"
}
