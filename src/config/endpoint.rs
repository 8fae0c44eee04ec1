//! Where a control socket is.

use std::fmt;
use std::path::PathBuf;

/// What every abstract name that drainit chooses itself begins with.
pub const PREFIX: &str = "drainit/";

/// A path, or a name in the abstract namespace (unix(7)), which needs no writable file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Path(PathBuf),
    Abstract(String),
}

impl Endpoint {
    /// `@name` or a path.
    pub fn parse(text: &str) -> Self {
        text.strip_prefix('@').map_or_else(|| Self::Path(text.into()), |name| Self::Abstract(name.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}
