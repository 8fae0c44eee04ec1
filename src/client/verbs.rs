//! `probe`, `prestop`, `scale`: one question each, and what its answer means as an exit code.

use std::time::Duration;

use super::ask::{Answer, ask};
use super::error::ClientError;
use super::{DEADLINE, NO, OK, complain, misunderstood, say};
use crate::config::endpoint::Endpoint;

/// What a probe asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/livez`
    Live,
    /// `/readyz`
    Ready,
    /// `/startupz`
    Startup,
}

/// 0: it is so. 1: it is not; stdout says why, which the kubelet shows. 2: cannot be asked.
pub fn probe(endpoint: &Endpoint, which: Probe, deadline: Duration) -> u8 {
    let path = match which {
        Probe::Live => "/livez",
        Probe::Ready => "/readyz",
        Probe::Startup => "/startupz",
    };
    match ask(endpoint, "GET", &format!("{path}?verbose"), None, deadline) {
        Ok(Answer { status: 200, .. }) => OK,
        Ok(Answer { status: 503, body }) => {
            say(&body);
            NO
        }
        Ok(answer) => misunderstood(&answer),
        Err(error) => complain(error),
    }
}

/// 0 in every phase: a hook that fails is an event in the cluster, and helps nobody. 2 where there is nobody to ask.
pub fn prestop(endpoint: &Endpoint, deadline: Duration) -> u8 {
    match ask(endpoint, "POST", "/prestop", None, deadline) {
        Ok(answer @ Answer { status: 403, .. }) => misunderstood(&answer),
        Ok(Answer { body, .. }) => {
            say(&body);
            OK
        }
        // It heard the question, and went on with the drain.
        Err(ClientError::Ended) => OK,
        Err(error @ ClientError::Late(_)) => {
            complain(error);
            OK
        }
        Err(error) => complain(error),
    }
}

/// 0: done. 1: refused, and stderr says why. 2: cannot be asked.
pub fn scale(endpoint: &Endpoint, workers: u32) -> u8 {
    match ask(endpoint, "POST", "/scale", Some(format!("{{\"workers\":{workers}}}")), DEADLINE) {
        Ok(Answer { status: 200, body }) => {
            say(&body);
            OK
        }
        Ok(Answer { status: 400 | 409, body }) => {
            complain(body.trim_end());
            NO
        }
        Ok(answer) => misunderstood(&answer),
        Err(error) => complain(error),
    }
}
