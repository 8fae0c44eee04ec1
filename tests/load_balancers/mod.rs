//! Load balancers, each in a network of its own, in front of pods that they know by a list of addresses.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod haproxy;
pub mod nginx;

use std::net::Ipv4Addr;

/// For as long as it lives.
pub trait Balancer {
    /// It serves clients at port 80 there.
    fn address(&self) -> Ipv4Addr;

    /// It sends requests to this pod.
    fn reaches(&self, pod: Ipv4Addr) -> bool;

    /// It is up, and has found out which of the addresses are pods.
    fn knows(&self, pods: &[Ipv4Addr]) -> bool;
}
