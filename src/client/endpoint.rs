//! Where a running drainit listens for its subcommands, and how to find that out.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::error::ClientError;
use crate::config::endpoint::{Endpoint, PREFIX};

/// As tokio takes it: an abstract name starts with a NUL.
pub(super) fn address(endpoint: &Endpoint) -> PathBuf {
    match endpoint {
        Endpoint::Path(path) => path.clone(),
        Endpoint::Abstract(name) => PathBuf::from(format!("\0{name}")),
    }
}

/// Finds the control socket: the one that is named, usually by `$DRAINIT_CONTROL`; else the one that the drainit
/// of this container would make, where it is there; else an error that says which ones there are.
///
/// Both names are `@NAME` or a path.
pub fn find(explicit: Option<&str>, own_name: Option<&str>) -> Result<Endpoint, ClientError> {
    // proc(5): all unix sockets of the network namespace, abstract names shown with an @.
    let table = fs::read("/proc/net/unix").ok();
    find_in(explicit, own_name, table.as_deref())
}

fn find_in(
    explicit: Option<&str>,
    own_name: Option<&str>,
    table: Option<&[u8]>,
) -> Result<Endpoint, ClientError> {
    match explicit {
        Some("") | None => {}
        Some("off") => return Err(ClientError::Off),
        Some(name) => return Ok(Endpoint::parse(name)),
    }
    let own = own_name.map(Endpoint::parse);
    // Without the table, only trying can tell.
    let Some(table) = table else { return own.ok_or(ClientError::NoneFound(Vec::new())) };
    let names = listening(table);
    match own {
        Some(Endpoint::Abstract(name)) if !names.contains(&name) => {}
        Some(own) => return Ok(own),
        None => {}
    }
    let there = names.into_iter().map(Endpoint::Abstract).map(|endpoint| endpoint.to_string());
    Err(ClientError::NoneFound(there.collect()))
}

/// The abstract names of drainit's in the table that somebody listens on.
fn listening(table: &[u8]) -> BTreeSet<String> {
    // include/uapi/linux/net.h: __SO_ACCEPTCON.
    const ACCEPTS: &[u8] = b"00010000";
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            // Num: RefCount Protocol Flags Type St Inode Path; the last may hold spaces.
            let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
            let listens = fields.nth(3) == Some(ACCEPTS);
            let at = line
                .windows(PREFIX.len() + 1)
                .position(|window| window.strip_prefix(b"@") == Some(PREFIX.as_bytes()))?;
            listens.then(|| line.get(at + 1..).map(|name| String::from_utf8_lossy(name).into_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const TABLE: &[u8] = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 16163 /run/app.sock\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 16164 @drainit/2\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 16165 @drainit/2\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 16166 @drainit/gone\n\
        0000000000000000: 00000002 00000000 00010000 0001 01     7 @drainit/1 a\n";

    #[test]
    fn what_is_named_is_taken() {
        let find = |explicit, own| find_in(explicit, own, Some(TABLE)).map(|endpoint| endpoint.to_string());
        assert_eq!(find(Some("/run/c.sock"), Some("@drainit/2")), Ok("/run/c.sock".to_owned()));
        assert_eq!(find(Some("@x"), None), Ok("@x".to_owned()));
        assert_eq!(find(Some("off"), Some("@drainit/2")), Err(ClientError::Off));
        assert_eq!(find(None, Some("@drainit/2")), Ok("@drainit/2".to_owned()));
        assert_eq!(find(Some(""), Some("@drainit/2")), Ok("@drainit/2".to_owned()));
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        let there = || Err(ClientError::NoneFound(vec!["@drainit/1 a".to_owned(), "@drainit/2".to_owned()]));
        assert_eq!(find_in(None, Some("@drainit/gone"), Some(TABLE)), there());
        assert_eq!(find_in(None, None, Some(TABLE)), there());
        assert_eq!(find_in(None, None, Some(b"")), Err(ClientError::NoneFound(Vec::new())));
        assert_eq!(find_in(None, Some("@drainit/3"), None), Ok(Endpoint::parse("@drainit/3")));
    }

    #[test]
    fn an_abstract_name_starts_with_nul() {
        assert_eq!(address(&Endpoint::parse("@a")).as_os_str().as_bytes(), b"\0a");
        assert_eq!(address(&Endpoint::parse("/a")), PathBuf::from("/a"));
    }
}
