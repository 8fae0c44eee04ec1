//! Who is measured.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// An init.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Held against the bars.
    pub(crate) ours: bool,
    /// What comes between the program and the command; no program at all where it is empty.
    separator: &'static [&'static str],
}

/// Whom the others are compared with.
pub(crate) const REFERENCE: &str = "tini";

const PEERS: [&str; 3] = [REFERENCE, "tini-static", "dumb-init"];

impl Subject {
    /// The command itself, without any init: the floor of what can be measured.
    pub(crate) fn none() -> Self {
        Self { name: "none".to_owned(), path: PathBuf::new(), ours: false, separator: &[] }
    }

    /// Something else than an init, with ways of its own to be started.
    pub(crate) fn peer(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::none() }
    }

    pub(crate) fn renamed(&self, name: String) -> Self {
        Self { name, ..self.clone() }
    }

    /// The arguments that start `command` below it, with options of the init's own.
    pub(crate) fn run(&self, options: &[&str], command: &[OsString]) -> Vec<OsString> {
        if self.separator.is_empty() {
            return command.to_vec();
        }
        let head = [self.path.clone().into_os_string()].into_iter();
        let options = options.iter().chain(self.separator).map(OsString::from);
        head.chain(options).chain(command.iter().cloned()).collect()
    }
}

/// Ours, and the peers that are installed.
pub(crate) fn find() -> io::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (number, path) in (1..).zip(under_test()) {
        if !path.is_file() {
            let path = path.display();
            return Err(io::Error::other(format!("no {path}: make build, or DRAINIT_UNDER_TEST=PATH")));
        }
        let name = if number == 1 { "drainit".to_owned() } else { format!("drainit-{number}") };
        subjects.push(Subject { name, path, ours: true, separator: &["--"] });
    }
    subjects.extend(PEERS.iter().filter_map(|name| {
        Some(Subject { name: (*name).to_owned(), path: in_path(name)?, ours: false, separator: &["--"] })
    }));
    Ok(subjects)
}

/// Peers that are not installed.
pub(crate) fn missing(found: &[Subject]) -> impl Iterator<Item = &'static str> {
    PEERS.into_iter().filter(|peer| !found.iter().any(|subject| subject.name == *peer))
}

fn under_test() -> Vec<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/drainit").into_os_string();
    let paths = env::var_os("DRAINIT_UNDER_TEST").filter(|paths| !paths.is_empty()).unwrap_or_else(default);
    env::split_paths(&paths).map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
