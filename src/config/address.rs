//! Addresses as they are written on the command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Every address of the machine.
    Port(u16),
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// `unix:@name`, unix(7).
    Abstract(String),
}

/// What sockaddr_un can hold, its terminating NUL left out.
const UNIX_PATH_MAX: usize = 107;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("unix:@") {
            return if name.is_empty() || name.len() > UNIX_PATH_MAX {
                Err(format!("'{text}': the name after unix:@ takes 1 to {UNIX_PATH_MAX} bytes"))
            } else {
                Ok(Self::Abstract(name.to_owned()))
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.len() > UNIX_PATH_MAX || path.ends_with('/') {
                Err(format!(
                    "'{text}': the path after unix: takes 1 to {UNIX_PATH_MAX} bytes and names a file"
                ))
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("'{text}' is no address; takes 8080, 0.0.0.0:8080, [::]:8080 or unix:/run/app.sock (no host names)")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms_are_taken() {
        assert_eq!("8080".parse(), Ok(Address::Port(8080)));
        assert_eq!("127.0.0.1:80".parse(), Ok(Address::Tcp(([127, 0, 0, 1], 80).into())));
        assert_eq!("[::]:80".parse(), Ok(Address::Tcp(([0_u16; 8], 80).into())));
        assert_eq!("unix:/run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!("unix:@a".parse(), Ok(Address::Abstract("a".to_owned())));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for text in
            ["", "http", "65536", "-1", "localhost:80", "1.2.3.4", "::1:80", "unix:", "unix:@", "unix:/run/"]
        {
            assert!(text.parse::<Address>().is_err_and(|error| error.contains("takes")), "{text}");
        }
    }
}
