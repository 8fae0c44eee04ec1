//! What `--watch` is for.

use std::path::PathBuf;

use super::Engine;
use crate::core::event::{Command, RollOrder, RollTrigger};

impl Engine {
    /// One burst of changes, come to rest; `paths` are those of `--watch` that lead to something else now.
    pub(in crate::daemon) fn watched_path_changed(&mut self, paths: &[PathBuf]) {
        let path = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        tracing::info!(path, "a watched path has changed");
        let order = RollOrder { target: None, trigger: RollTrigger::Watch, wait: false };
        self.command(Command::Roll(order), None);
    }
}
