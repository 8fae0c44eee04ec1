//! Who a user is: /etc/passwd and /etc/group, read by ourselves. A static binary has no name service, an image perhaps
//! none of these files; a number is enough then.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use crate::config::user::{Id, User};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// What a process of that user runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, the first of which is `gid`.
    pub groups: Vec<u32>,
    /// `/`, where nobody knows better.
    pub home: OsString,
}

/// Find out who is meant.
///
/// # Errors
/// One line: which name is in neither file.
pub fn find(wanted: &User) -> Result<Account, String> {
    resolve(wanted, &File::read(PASSWD), &File::read(GROUP))
}

/// Where the user of that number is at home, if anybody says so.
pub fn home_of(uid: u32) -> Option<OsString> {
    let passwd = File::read(PASSWD);
    passwd.users().find(|entry| entry.uid == uid).map(|entry| OsString::from_vec(entry.home.to_vec()))
}

fn resolve(wanted: &User, passwd: &File, group: &File) -> Result<Account, String> {
    let entry = match &wanted.user {
        Id::Number(uid) => passwd.users().find(|entry| entry.uid == *uid),
        Id::Name(name) => {
            let found = passwd.users().find(|entry| entry.name == name.as_bytes());
            Some(found.ok_or_else(|| passwd.misses("user", name))?)
        }
    };
    let uid = match (&wanted.user, &entry) {
        (Id::Number(uid), _) => *uid,
        (Id::Name(_), entry) => entry.as_ref().map_or(0, |entry| entry.uid),
    };
    let (gid, others) = match (&wanted.group, &entry) {
        (Some(Id::Number(gid)), _) => (*gid, Vec::new()),
        (Some(Id::Name(name)), _) => {
            let found = group.groups().find(|entry| entry.name == name.as_bytes());
            (found.ok_or_else(|| group.misses("group", name))?.gid, Vec::new())
        }
        // As initgroups(3) has it.
        (None, Some(user)) => {
            let member = group.groups().filter(|group| group.has(user.name));
            (user.gid, member.map(|group| group.gid).filter(|gid| *gid != user.gid).collect())
        }
        // As Docker and Kubernetes have it.
        (None, None) => (0, Vec::new()),
    };
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or(b"/");
    Ok(Account {
        uid,
        gid,
        groups: std::iter::once(gid).chain(others).collect(),
        home: OsString::from_vec(home.to_vec()),
    })
}

/// A file of lines whose fields are separated by colons. Lines that make no sense are passed over.
struct File {
    path: &'static str,
    content: Vec<u8>,
    /// Why there is none.
    missing: Option<String>,
}

impl File {
    fn read(path: &'static str) -> Self {
        match fs::read(path) {
            Ok(content) => Self { path, content, missing: None },
            Err(error) => Self { path, content: Vec::new(), missing: Some(error.to_string()) },
        }
    }

    fn lines(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        self.content.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
    }

    /// passwd(5)
    fn users(&self) -> impl Iterator<Item = UserEntry<'_>> {
        self.lines().filter_map(|fields| match fields.as_slice() {
            [name, _, uid, gid, _, home, ..] => {
                Some(UserEntry { name, uid: number(uid)?, gid: number(gid)?, home })
            }
            _ => None,
        })
    }

    /// group(5)
    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        self.lines().filter_map(|fields| match fields.as_slice() {
            [name, _, gid, members, ..] => Some(GroupEntry { name, gid: number(gid)?, members }),
            _ => None,
        })
    }

    fn misses(&self, what: &str, name: &str) -> String {
        let path = self.path;
        match &self.missing {
            Some(why) => format!("no {what} '{name}': {path}: {why}; takes a number, which needs no file"),
            None => format!("no {what} '{name}' in {path}; takes one that is there, or a number"),
        }
    }
}

struct UserEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    fn has(&self, user: &[u8]) -> bool {
        self.members.split(|byte| *byte == b',').any(|member| member == user)
    }
}

/// The last number means "unchanged" to setresuid(2), and nobody is that.
fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:-1:-1::/:\n\
        app:x:1000:1001:An app:/srv/app:/bin/false\nhomeless:x:7:7:::\n";
    const GROUPS: &str =
        "root:x:0:\napp:x:1001:\nvideo:x:44:other,app\nnot:x:45:apple\nown:x:1001:app\ndocker:x:998:app\n";

    fn file(path: &'static str, content: &str) -> File {
        File { path, content: content.into(), missing: None }
    }

    fn found(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let account = resolve(&wanted.parse().unwrap(), &file(PASSWD, USERS), &file(GROUP, GROUPS))?;
        let home = account.home.to_string_lossy().into_owned();
        Ok((account.uid, account.gid, account.groups, home))
    }

    #[test]
    fn a_known_user_has_the_groups_that_list_it() {
        let app = (1000, 1001, vec![1001, 44, 998], "/srv/app".to_owned());
        assert_eq!(found("app").as_ref(), Ok(&app));
        assert_eq!(found("1000"), Ok(app));
        assert_eq!(found("homeless"), Ok((7, 7, vec![7], "/".to_owned())));
    }

    #[test]
    fn a_group_that_is_named_is_the_only_one() {
        assert_eq!(found("app:video"), Ok((1000, 44, vec![44], "/srv/app".to_owned())));
        assert_eq!(found("app:5"), Ok((1000, 5, vec![5], "/srv/app".to_owned())));
        assert_eq!(found("4711:docker"), Ok((4711, 998, vec![998], "/".to_owned())));
    }

    #[test]
    fn a_number_that_nobody_knows_has_group_0() {
        assert_eq!(found("4711"), Ok((4711, 0, vec![0], "/".to_owned())));
    }

    #[test]
    fn a_name_that_is_not_there_is_named_with_its_file() {
        let unknown = found("nosuch").unwrap_err();
        assert!(unknown.contains("'nosuch' in /etc/passwd"), "{unknown}");
        let unknown = found("app:nosuch").unwrap_err();
        assert!(unknown.contains("'nosuch' in /etc/group"), "{unknown}");
        assert!(found("nobody").is_err(), "-1 is no number of anybody's");
        let none = || File { path: PASSWD, content: Vec::new(), missing: Some("gone".to_owned()) };
        let unknown = resolve(&"app".parse().unwrap(), &none(), &none()).unwrap_err();
        assert!(unknown.contains("/etc/passwd: gone"), "{unknown}");
        let known = resolve(&"5:6".parse().unwrap(), &none(), &none()).unwrap();
        assert_eq!((known.uid, known.gid), (5, 6));
    }
}
