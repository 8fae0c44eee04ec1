//! What is asked over HTTP on this machine: the sidecars of `--wait-for` and `--on-exit-post`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// `http://127.0.0.1:15021/healthz/ready`. No names but localhost: a static program resolves none without help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Both of localhost's, the older first.
    pub addresses: Vec<SocketAddr>,
    /// As it goes into the Host header.
    pub authority: String,
    /// With its query.
    pub path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let takes = || {
            format!(
                "'{text}' is no URL to ask; takes http://127.0.0.1:15021/path, with an address or localhost (no other \
                 names, no https)"
            )
        };
        let rest = text.strip_prefix("http://").ok_or_else(takes)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.is_empty() { "/" } else { path };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
            return Err(takes());
        }
        let addresses = addresses(authority).ok_or_else(takes)?;
        Ok(Self { addresses, authority: authority.to_owned(), path: path.to_owned() })
    }
}

fn addresses(authority: &str) -> Option<Vec<SocketAddr>> {
    if let Ok(address) = authority.parse() {
        return Some(vec![address]);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    if host == "localhost" {
        let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Some(local.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let ip: IpAddr = match host.strip_prefix('[') {
        Some(v6) => IpAddr::V6(v6.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(host.parse().ok()?),
    };
    Some(vec![SocketAddr::new(ip, port)])
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost() {
        let parsed = |text: &str| text.parse::<Url>().map(|url| (url.addresses, url.path));
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(
            parsed("http://127.0.0.1:15021/healthz/ready?x=1"),
            Ok((vec![at("127.0.0.1:15021")], "/healthz/ready?x=1".into()))
        );
        assert_eq!(parsed("http://10.0.0.1"), Ok((vec![at("10.0.0.1:80")], "/".into())));
        assert_eq!(parsed("http://[::1]:4191/shutdown"), Ok((vec![at("[::1]:4191")], "/shutdown".into())));
        assert_eq!(parsed("http://[::1]/"), Ok((vec![at("[::1]:80")], "/".into())));
        assert_eq!(
            parsed("http://localhost:4191/shutdown"),
            Ok((vec![at("127.0.0.1:4191"), at("[::1]:4191")], "/shutdown".into()))
        );
        for wrong in [
            "",
            "localhost",
            "https://localhost/",
            "http://",
            "http://:80/",
            "http://host/",
            "http://1.2.3.4:99999/",
            "http://::1/",
            "http://1.2.3.4/a b",
            "http://1.2.3.4/a#b",
            "http://user@1.2.3.4/",
            "http://[::1/",
        ] {
            let said = parsed(wrong).unwrap_err();
            assert!(said.contains("takes http://127.0.0.1:15021/path"), "{wrong}: {said}");
        }
    }
}
