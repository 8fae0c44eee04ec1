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
    /// All of its replicas are ready, and can be reached.
    pub fn create(spec: Spec, replicas: usize, endpoints: Endpoints) -> Self {
        let mut deployment = Self { spec, endpoints, replicas: Vec::new(), leaving: Vec::new(), created: 0 };
        for _ in 0..replicas {
            let pod = deployment.next();
            deployment.replicas.push(pod);
        }
        for pod in &deployment.replicas {
            ready(pod);
            let named = || deployment.endpoints.is_named(pod.address).then_some(());
            until_at_last(PATIENCE, format_args!("{} is an endpoint", pod.address), named);
        }
        deployment
    }

    /// The defaults, 25% and 25%: `maxSurge` is rounded up and `maxUnavailable` down, so that it is 1 and 0 of three
    /// replicas. Who terminates is not counted, nor waited for.
    pub fn roll_out(&mut self) {
        for _ in 0..self.replicas.len() {
            let new = self.next();
            ready(&new);
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

    /// No address is used twice, as a host-local address manager goes through all before.
    fn next(&mut self) -> Pod {
        self.created += 1;
        let [third, fourth] = self.created.to_be_bytes();
        Pod::create(&self.spec, Ipv4Addr::new(10, 244, third, fourth), &self.endpoints)
    }
}

fn ready(pod: &Pod) {
    until_at_last(PATIENCE, format_args!("{} is ready", pod.address), || pod.is_ready().then_some(()));
}
