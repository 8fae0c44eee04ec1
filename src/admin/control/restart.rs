//! `/restart` and `/abort`: rolls on request.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;

use super::{Answer, answer, ask, put, read};
use crate::admin::{Request, Shared};
use crate::config::restart::Restart;
use crate::core::event::Command;

/// As much as the kernel passes to a program in one piece, and then some for the others.
const BODY_LIMIT: usize = 512 * 1024;

/// 200 rolled, or begun where nobody waits; 409 refused or superseded; 422 rolled back; 503 nobody more may wait.
pub(super) async fn restart(State(shared): State<Shared>, body: Body) -> Answer {
    let takes =
        r#"{"wait": bool, "version": "V", "env": {"NAME": "value"}, "unset": ["NAME"], "command": ["ARG"]}"#;
    let order = match read::<Restart>(body, BODY_LIMIT, takes).await {
        Ok(order) => order,
        Err(answer) => return answer,
    };
    let seat = if order.wait {
        let Ok(seat) = Arc::clone(&shared.waiting_room).try_acquire_owned() else {
            let full = "too many wait for the end of a roll already; takes \"wait\": false";
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{full}\n"));
        };
        Some(seat)
    } else {
        None
    };
    let answer = answer(put(&shared, |reply| Request::Restart { order, reply }).await);
    drop(seat);
    answer
}

/// 200 once the old generation is restored; 409 where no roll runs.
pub(super) async fn abort(State(shared): State<Shared>) -> Answer {
    answer(ask(&shared, Command::Abort).await)
}
