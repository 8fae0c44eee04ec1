//! `restart` and `abort`.

use std::time::Duration;

use super::ask::{Answer, ROLLS, ask, ask_watching};
use super::error::ClientError;
use super::progress::Progress;
use super::{CANNOT_ASK, DEADLINE, NO, OK, complain, misunderstood, say};
use crate::config::endpoint::Endpoint;
use crate::config::restart::Restart;
use crate::core::types::code;

/// 0: rolled, or begun where nobody waits. 1: rolled back. 2: refused, superseded, or cannot be asked. 124: not over in
/// time.
pub fn restart(endpoint: &Endpoint, order: &Restart, deadline: Duration) -> u8 {
    let body = match serde_json::to_string(order) {
        Ok(body) => body,
        Err(error) => return complain(error),
    };
    let mut progress = Progress::new();
    let answer = if order.wait {
        let every = progress.every();
        ask_watching(endpoint, "POST", "/restart", Some(body), deadline, every, |status| {
            progress.show(status)
        })
    } else {
        ask(endpoint, "POST", "/restart", Some(body), DEADLINE)
    };
    if progress.is_drawn()
        && let Ok(Answer { status: 200, body }) = ask(endpoint, "GET", ROLLS, None, DEADLINE)
    {
        progress.finish(&body);
    }
    match answer {
        Ok(Answer { status: 200, body }) => {
            say(&body);
            OK
        }
        Ok(Answer { status: 422, body }) => {
            complain(body.trim_end());
            NO
        }
        Ok(Answer { status: 400 | 409 | 413, body }) => {
            complain(body.trim_end());
            CANNOT_ASK
        }
        Ok(answer) => misunderstood(&answer),
        Err(error @ ClientError::Late(_)) if order.wait => {
            complain(format_args!("{error}; the roll goes on"));
            code::DEADLINE
        }
        Err(error) => complain(error),
    }
}

/// 0: the old generation is back. 1: there was no roll. 2: cannot be asked. 124: not back in time.
pub fn abort(endpoint: &Endpoint, deadline: Duration) -> u8 {
    match ask(endpoint, "POST", "/abort", None, deadline) {
        Ok(Answer { status: 200, body }) => {
            say(&body);
            OK
        }
        Ok(Answer { status: 409, body }) => {
            complain(body.trim_end());
            NO
        }
        Ok(answer) => misunderstood(&answer),
        Err(error @ ClientError::Late(_)) => {
            complain(error);
            code::DEADLINE
        }
        Err(error) => complain(error),
    }
}
