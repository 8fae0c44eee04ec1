//! check.py, by the Python that has what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::cannot_run;

/// check.py with these arguments; nothing where PyPI is out of reach, and the test is to return.
#[track_caller]
pub(crate) fn script(arguments: &[&str]) -> Option<Command> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOLDER.get_or_init(environment) {
        Ok(folder) => {
            let mut command = Command::new(folder.join("bin/python"));
            command.arg("-B").arg(here().join("check.py")).args(arguments);
            // Nobody's cluster.
            command.env("KUBECONFIG", "/dev/null");
            Some(command)
        }
        Err(why) => {
            cannot_run(why);
            None
        }
    }
}

/// The virtual environment, made if need be.
fn environment() -> Result<PathBuf, String> {
    let Output { status, stdout, stderr } =
        Command::new(here().join("venv")).output().map_err(|error| error.to_string())?;
    let said = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if status.success() { Ok(said(&stdout).into()) } else { Err(said(&stderr)) }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart")
}
