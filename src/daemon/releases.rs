//! What a generation is made of: command, environment, version. The core knows each by a number.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::environment::{Environment, unknown_socket};
use crate::config::restart::Restart;
use crate::core::types::{Release, Target};
use crate::sys::listen::Listener;

/// Shown with every worker in every status: enough for any version, and no more.
const VERSION_MAX: usize = 128;

/// Where a version comes from that nobody has given.
const VERSIONS: [&str; 2] = ["DRAINIT_VERSION", "APP_VERSION"];

fn version_in(environment: &Environment) -> Option<String> {
    let version = VERSIONS.into_iter().find_map(|name| environment.get(name))?;
    Some(String::from_utf8_lossy(version).chars().take(VERSION_MAX).collect())
}

/// What workers are started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) command: Vec<OsString>,
    pub(super) environment: Environment,
    pub(super) version: Option<String>,
}

impl Content {
    /// The version comes from the environment, if from anywhere.
    pub(super) fn new(command: Vec<OsString>, environment: Environment) -> Self {
        let version = version_in(&environment);
        Self { command, environment, version }
    }

    /// # Errors
    /// What cannot be started, or not be told apart.
    fn change(&mut self, order: &Restart, listeners: &[Listener]) -> Result<(), String> {
        for name in order.env.keys().chain(&order.unset) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{name:?} cannot be the name of a variable"));
            }
        }
        let arguments = order.command.iter().flatten();
        if let Some(text) = order.env.values().chain(arguments).find(|text| text.contains('\0')) {
            return Err(format!("{text:?} holds a NUL byte"));
        }
        order.unset.iter().for_each(|name| self.environment.remove(name));
        order.env.iter().for_each(|(name, value)| self.environment.set(name, value));
        if VERSIONS.iter().any(|name| order.env.contains_key(*name)) {
            self.version = version_in(&self.environment);
        }
        if let Some(version) = &order.version {
            let length = version.chars().count();
            if !(1..=VERSION_MAX).contains(&length) || version.chars().any(char::is_control) {
                return Err(format!("a version takes 1 to {VERSION_MAX} characters that can be shown"));
            }
            self.version = Some(version.clone());
            VERSIONS.iter().for_each(|name| self.environment.set(name, version));
        }
        if let Some(command) = &order.command {
            if command.first().is_none_or(String::is_empty) {
                return Err("the new command is empty".to_owned());
            }
            self.command = command.iter().map(OsString::from).collect();
            let unknown = self.command.iter().find_map(|argument| unknown_socket(argument, listeners));
            if let Some(name) = unknown.filter(|_| !listeners.is_empty()) {
                return Err(format!("the new command asks for {{fd:{name}}}, and no --listen is named so"));
            }
        }
        Ok(())
    }
}

/// Everything that the core may want to be started.
#[derive(Debug)]
pub(super) struct Releases {
    known: BTreeMap<Release, Content>,
    last: Release,
}

impl Releases {
    /// The first one is number 1, as the core has it.
    pub(super) fn new(first: Content) -> Self {
        Self { known: BTreeMap::from([(Release(1), first)]), last: Release(1) }
    }

    pub(super) fn get(&self, release: Release) -> Option<&Content> {
        self.known.get(&release)
    }

    pub(super) fn version(&self, release: Release) -> Option<String> {
        self.get(release).and_then(|content| content.version.clone())
    }

    /// Forget all others.
    pub(super) fn keep(&mut self, needed: &[Release]) {
        self.known.retain(|release, _| needed.contains(release));
    }

    /// What an order makes of a release: the same number, if that is known already.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(super) fn derive(
        &mut self,
        base: Release,
        order: &Restart,
        listeners: &[Listener],
    ) -> Result<Target, String> {
        let mut content = self.get(base).cloned().ok_or("that release is not known any more")?;
        content.change(order, listeners)?;
        let version = content.version.clone();
        let known = self.known.iter().find(|(_, known)| **known == content).map(|(release, _)| *release);
        let release = known.unwrap_or_else(|| {
            self.last = Release(self.last.0 + 1);
            self.known.insert(self.last, content);
            self.last
        });
        Ok(Target { release, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn releases() -> Releases {
        let mut environment = Environment::default();
        environment.set("A", "1");
        environment.set("APP_VERSION", "v1");
        Releases::new(Content::new(vec!["server".into()], environment))
    }

    #[test]
    fn what_is_the_same_has_the_same_number() {
        let mut releases = releases();
        let order = Restart { version: Some("v2".to_owned()), ..Restart::default() };
        let target = releases.derive(Release(1), &order, &[]).unwrap();
        assert_eq!(target, Target { release: Release(2), version: Some("v2".to_owned()) });
        assert_eq!(releases.derive(Release(2), &order, &[]), Ok(target.clone()));
        assert_eq!(releases.derive(Release(1), &order, &[]), Ok(target));
        let content = releases.get(Release(2)).unwrap();
        assert_eq!(content.environment.get("APP_VERSION"), Some(&b"v2"[..]));
        releases.keep(&[Release(2)]);
        assert!(releases.get(Release(1)).is_none());
    }

    #[test]
    fn variables_come_and_go() {
        let mut releases = releases();
        let order = Restart {
            env: BTreeMap::from([("B".to_owned(), "2".to_owned())]),
            unset: vec!["A".to_owned()],
            ..Restart::default()
        };
        let target = releases.derive(Release(1), &order, &[]).unwrap();
        let environment = &releases.get(target.release).unwrap().environment;
        assert_eq!((environment.get("A"), environment.get("B")), (None, Some(&b"2"[..])));
        assert_eq!(target.version.as_deref(), Some("v1"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |order: Restart| releases().derive(Release(1), &order, &[]).unwrap_err();
        let named = |name: &str| Restart { unset: vec![name.to_owned()], ..Restart::default() };
        assert!(refused(named("")).contains("name of a variable"));
        assert!(refused(named("A=B")).contains("name of a variable"));
        let version = |text: &str| Restart { version: Some(text.to_owned()), ..Restart::default() };
        assert!(refused(version("")).contains("1 to 128"));
        assert!(refused(version("a\nb")).contains("can be shown"));
        assert!(refused(Restart { command: Some(Vec::new()), ..Restart::default() }).contains("empty"));
        let nul = Restart { command: Some(vec!["a\0".to_owned()]), ..Restart::default() };
        assert!(refused(nul).contains("NUL"));
    }
}
