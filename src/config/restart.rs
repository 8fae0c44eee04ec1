//! What `drainit restart` asks for, as it travels over the control socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
