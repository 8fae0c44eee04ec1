//! A Deployment's replicas, and how a rollout replaces them: one more than wanted, none missing.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::kubelet::{Pod, Record, Spec};
use super::service::Endpoints;
use crate::common::until_at_last;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Deployment {
    spec: Spec,
    endpoints: Endpoints,
    replicas: Vec<Pod>,
    leaving: Vec<Pod>,
    created: u16,
}

impl Deployment {
    /// All of its replicas are ready.
    pub fn create(spec: Spec, replicas: usize, endpoints: Endpoints) -> Self {
        let mut deployment = Self { spec, endpoints, replicas: Vec::new(), leaving: Vec::new(), created: 0 };
        for _ in 0..replicas {
            let pod = deployment.next();
            deployment.replicas.push(pod);
        }
        for pod in &deployment.replicas {
            ready(pod);
        }
        deployment
    }

    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.replicas.iter().map(|pod| pod.address).collect()
    }

    /// The defaults, 25% and 25%: `maxSurge` is rounded up and `maxUnavailable` down, so that it is 1 and 0 of three
    /// replicas. Who terminates is not counted, nor waited for. A new one counts when it is ready, and for as long as
    /// `is_reached` may take.
    pub fn roll_out(&mut self, is_reached: impl Fn(Ipv4Addr) -> bool) {
        for _ in 0..self.replicas.len() {
            let new = self.next();
            ready(&new);
            reached(new.address, &is_reached);
            let old = self.replicas.remove(0);
            old.delete();
            self.replicas.push(new);
            self.leaving.push(old);
        }
    }

    /// Waits for those that were deleted.
    pub fn records(&mut self) -> Vec<Record> {
        self.leaving.drain(..).map(Pod::record).collect()
    }

    pub fn delete(mut self) -> Vec<Record> {
        for pod in &self.replicas {
            pod.delete();
        }
        self.leaving.append(&mut self.replicas);
        self.records()
    }

    fn next(&mut self) -> Pod {
        self.created += 1;
        Pod::create(&self.spec, address(self.created), &self.endpoints)
    }
}

/// Of the pod that is created as the first, the second...; none is used twice, as a host-local address manager goes
/// through all before.
pub fn address(number: u16) -> Ipv4Addr {
    let [third, fourth] = number.to_be_bytes();
    Ipv4Addr::new(10, 244, third, fourth)
}

/// Waits until whoever sends requests to pods sends them to this one.
pub fn reached(address: Ipv4Addr, is_reached: impl Fn(Ipv4Addr) -> bool) {
    until_at_last(PATIENCE, format_args!("{address} is reached"), || is_reached(address).then_some(()));
}

fn ready(pod: &Pod) {
    until_at_last(PATIENCE, format_args!("{} is ready", pod.address), || pod.is_ready().then_some(()));
}
