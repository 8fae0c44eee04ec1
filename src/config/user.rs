//! `--user U[:G]`: as it was typed. Who that is, is found out by whoever can read files.

use std::str::FromStr;

/// A user, and a group if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub user: Id,
    pub group: Option<Id>,
}

/// A name, or a number, which needs no file to be found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    Number(u32),
    Name(String),
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        Ok(Self { user: id(user)?, group: group.map(id).transpose()? })
    }
}

fn id(text: &str) -> Result<Id, String> {
    let takes = "takes USER or USER:GROUP, each a name or a number";
    if text.is_empty() || text.contains(':') {
        return Err(takes.to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Id::Name(text.to_owned()));
    }
    // The last one means "unchanged" to setresuid(2).
    let number = text.parse().ok().filter(|number| *number != u32::MAX);
    number
        .map(Id::Number)
        .ok_or_else(|| format!("'{text}' is no user or group id; takes 0 to {}", u32::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let name = |name: &str| Id::Name(name.to_owned());
        let parsed = |text: &str| text.parse::<User>();
        assert_eq!(parsed("1000"), Ok(User { user: Id::Number(1000), group: None }));
        assert_eq!(parsed("app"), Ok(User { user: name("app"), group: None }));
        assert_eq!(parsed("app:20"), Ok(User { user: name("app"), group: Some(Id::Number(20)) }));
        assert_eq!(parsed("0:2nd"), Ok(User { user: Id::Number(0), group: Some(name("2nd")) }));
        for wrong in ["", ":", "app:", ":app", "a:b:c", "4294967295", "99999999999"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
