//! Pods on a node: networks of their own, a kubelet's and a kube-proxy's part in real time, and clients elsewhere.
#![allow(dead_code, reason = "shared by tests that need different parts of it")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod clients;
pub mod deployment;
pub mod kubelet;
pub mod net;
pub mod service;
pub mod verdict;
