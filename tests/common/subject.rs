use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Leader,
    Group,
}

/// The binary under test. `DRAINIT_UNDER_TEST` puts a peer in its place, which takes the same command
/// line but for options: it is how one shows where a peer fails.
pub struct Subject {
    path: PathBuf,
    peer: Option<String>,
}

impl Subject {
    pub fn from_env() -> Self {
        let Some(path) = std::env::var_os("DRAINIT_UNDER_TEST").map(PathBuf::from) else {
            return Self { path: env!("CARGO_BIN_EXE_drainit").into(), peer: None };
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let peer = if name.starts_with("drainit") { None } else { Some(name) };
        Self { path, peer }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_drainit(&self) -> bool {
        self.peer.is_none()
    }

    /// No admin port, no control socket: faster, and any number at a time.
    pub fn quiet_options(&self) -> Vec<OsString> {
        if self.is_drainit() { words(&["--admin", "off", "--control", "off"]) } else { Vec::new() }
    }

    pub fn scope(&self, scope: Scope) -> Vec<OsString> {
        match (self.peer.as_deref(), scope) {
            (None, Scope::Leader) => words(&["--signal-scope", "leader"]),
            (None, Scope::Group) => words(&["--signal-scope", "group"]),
            (Some("dumb-init"), Scope::Leader) => words(&["-c"]),
            (Some("dumb-init"), Scope::Group) | (Some(_), Scope::Leader) => Vec::new(),
            (Some(_), Scope::Group) => words(&["-g"]),
        }
    }

    /// What makes it adopt orphans where it is not PID 1.
    pub fn subreaper(&self) -> Vec<OsString> {
        match self.peer.as_deref() {
            Some(name) if name.starts_with("tini") => words(&["-s"]),
            _ => Vec::new(),
        }
    }

    /// drainit's own options, or what the peer has in their place.
    pub fn options(&self, options: &[OsString]) -> Vec<OsString> {
        let Some(peer) = self.peer.as_deref() else {
            return options.to_vec();
        };
        let pairs = options.chunks(2).map(|pair| (pair[0].to_str(), pair.get(1).and_then(|w| w.to_str())));
        pairs
            .flat_map(|pair| match (peer, pair) {
                // They have no such patience to be set.
                (_, (Some("--orphan-grace" | "--grace"), Some(_))) => Vec::new(),
                (p, (Some("--parent-death"), Some(signal))) if p.starts_with("tini") => {
                    words(&["-p", &format!("SIG{signal}")])
                }
                (p, (Some("--remap-exit"), Some("143=0"))) if p.starts_with("tini") => words(&["-e", "143"]),
                ("dumb-init", (Some("--signal"), Some("TERM=QUIT"))) => words(&["-r", "15:3"]),
                ("dumb-init", (Some("--signal"), Some("USR1=ignore"))) => words(&["-r", "10:0"]),
                _ => panic!("{peer} has no {pair:?}"),
            })
            .collect()
    }
}

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}
