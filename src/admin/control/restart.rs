//! `/restart` and `/abort`: rolls on request.

use axum::body::Body;
use axum::extract::State;

use super::{Answer, answer, ask, put, read};
use crate::admin::{Request, Shared};
use crate::config::restart::Restart;
use crate::core::event::Command;

/// As much as the kernel passes to a program in one piece, and then some for the others.
const BODY_LIMIT: usize = 512 * 1024;

/// 200 rolled, or begun where nobody waits; 409 refused or superseded; 422 rolled back.
pub(super) async fn restart(State(shared): State<Shared>, body: Body) -> Answer {
    let takes =
        r#"{"wait": bool, "version": "V", "env": {"NAME": "value"}, "unset": ["NAME"], "command": ["ARG"]}"#;
    match read::<Restart>(body, BODY_LIMIT, takes).await {
        Ok(order) => answer(put(&shared, |reply| Request::Restart { order, reply }).await),
        Err(answer) => answer,
    }
}

/// 200 once the old generation is restored; 409 where no roll runs.
pub(super) async fn abort(State(shared): State<Shared>) -> Answer {
    answer(ask(&shared, Command::Abort).await)
}
