//! `/restart` and `/abort`: rolls on request.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{Answer, answer, ask, put, read};
use crate::admin::{Request, Shared};
use crate::core::event::Command;

/// As much as the kernel passes to a program in one piece, and then some for the others.
const BODY_LIMIT: usize = 512 * 1024;

/// What the next generation is to be; whatever is not said stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restart {
    /// Answer at the end of the roll, rather than at its start.
    pub wait: bool,
    /// Shown as `DRAINIT_VERSION` and `APP_VERSION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Variables to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Variables to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// What the workers execute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

impl Restart {
    /// It asks for what there is, only anew.
    pub fn changes_nothing(&self) -> bool {
        self.version.is_none() && self.env.is_empty() && self.unset.is_empty() && self.command.is_none()
    }
}

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
