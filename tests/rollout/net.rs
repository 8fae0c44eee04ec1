//! A node's network: itself a namespace, and one more behind a veth pair for each pod.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::common::network::{enter_network, enter_new_network};

/// What every pod's default route leads to.
const GATEWAY: &str = "169.254.1.1";

/// Moves this thread to a node of its own, which forwards and on which Node and these programs can be run. Why not, where
/// they are missing or it is refused.
pub fn become_a_node(programs: &[&str]) -> Result<(), String> {
    let mut needs = ["/usr/bin/node", "/usr/sbin/iptables-restore"].iter().chain(programs);
    if let Some(missing) = needs.find(|program| !Path::new(program).exists()) {
        return Err(format!("no {missing}"));
    }
    enter_new_network().map_err(|error| format!("no network of its own: {error}"))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|error| format!("no forwarding: {error}"))?;
    feed("iptables-restore", &["--noflush"], "*nat\nCOMMIT\n")?;
    // Where packets to pods that are gone get lost, after connection tracking has kept where they were sent.
    feed(
        "ip",
        &["-batch", "-"],
        "link add sink type veth peer name drain\nlink set drain up\nlink set sink up arp off\n",
    )
}

/// A pod's network, which lasts until this is dropped and nobody runs in it any more.
pub struct Network {
    namespace: File,
    device: String,
    pub address: Ipv4Addr,
}

impl Network {
    /// On the node that this thread is on.
    pub fn new(address: Ipv4Addr) -> Self {
        let namespace = elsewhere(|| {
            enter_new_network().expect("another network");
            File::open("/proc/thread-self/ns/net").expect("its file")
        });
        let [_, second, third, fourth] = address.octets();
        let device = format!("veth{second}-{third}-{fourth}");
        let inside = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        ip(&format!(
            "link add {device} type veth peer name eth0 netns {inside}\n\
             address add {GATEWAY} peer {address} dev {device}\n\
             link set {device} up\n"
        ));
        let network = Self { namespace, device, address };
        network.run(|| {
            ip(&format!(
                "link set eth0 up\n\
                 address add {address} peer {GATEWAY} dev eth0\n\
                 route add default via {GATEWAY}\n"
            ));
        });
        network
    }

    /// On a thread of its own that is in there; so is what it starts.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        elsewhere(|| {
            enter_network(&self.namespace);
            act()
        })
    }

    /// What a runtime does when the last container has ended. From here on packets to it are lost, and nobody is told.
    pub fn tear_down(&self) {
        ip(&format!("link delete {}\nroute add {} dev sink\n", self.device, self.address));
    }
}

fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|threads| threads.spawn(act).join().expect("a thread in another network"))
}

fn ip(lines: &str) {
    feed("ip", &["-batch", "-"], lines).unwrap_or_else(|why| panic!("{lines}{why}"));
}

/// `iptables-restore` and `ip` read what they are to do.
pub fn feed(program: &str, arguments: &[&str], lines: &str) -> Result<(), String> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("no {program}: {error}"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match written {
        Some(Ok(())) if output.status.success() => Ok(()),
        _ => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
