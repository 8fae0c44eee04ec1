//! The series that a text in PromQL selects, and whether they are among those that a drainit exposes.

use std::collections::{BTreeMap, BTreeSet};

/// By metric, by label: the values.
pub(crate) type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A selector: a metric, and what its labels have to be.
#[derive(Debug)]
pub(crate) struct Series {
    metric: String,
    labels: Vec<(String, String)>,
}

/// Set by Prometheus, not by drainit.
const OF_THE_TARGET: [&str; 3] = ["namespace", "pod", "SERIES"];

/// What is in a text of Prometheus' exposition format.
pub(crate) fn exposed(text: &str) -> Exposed {
    let mut exposed = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let labels = exposed.entry(name.to_owned()).or_default();
        for (label, value) in matchers(rest) {
            labels.entry(label).or_default().insert(value);
        }
    }
    exposed
}

/// What their names begin with.
const FAMILIES: [&str; 2] = ["drainit_", "process_"];

/// Every selector of a metric of drainit's, or of its process.
pub(crate) fn selected(text: &str) -> Vec<Series> {
    let mut found = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(at) = FAMILIES.iter().filter_map(|family| rest.find(family)).min() {
        let before = rest[..at].chars().next_back();
        let tail = &rest[at..];
        let end = tail.find(|c| !is_name(c)).unwrap_or(tail.len());
        let (metric, after) = tail.split_at(end);
        rest = after;
        // The middle of another word is none, and a name that ends in _ is a pattern.
        if before.is_some_and(is_name) || metric.ends_with('_') {
            continue;
        }
        found.push(Series { metric: metric.to_owned(), labels: matchers(after) });
    }
    found
}

impl Series {
    /// What is not there, if anything.
    pub(crate) fn fault(&self, exposed: &Exposed) -> Option<String> {
        let Some(labels) = exposed.get(&self.metric) else {
            return Some(format!("no metric {}", self.metric));
        };
        let own = self.labels.iter().filter(|(label, _)| !OF_THE_TARGET.contains(&label.as_str()));
        own.flat_map(|(label, values)| values.split('|').map(move |value| (label, value))).find_map(
            |(label, value)| {
                let there = labels.get(label).is_some_and(|values| values.contains(value));
                (!there).then(|| format!("no {}{{{label}=\"{value}\"}}", self.metric))
            },
        )
    }
}

/// The labels in braces at the beginning of a text: `{a="b",c=~"d|e"} …`.
fn matchers(text: &str) -> Vec<(String, String)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Vec::new() };
    let mut labels = Vec::new();
    while !rest.is_empty() && !rest.starts_with('}') {
        rest = rest.trim_start_matches([',', ' ']);
        let end = rest.find(['=', '!', ',', '}']).unwrap_or(rest.len());
        let label = rest[..end].to_owned();
        rest = rest[end..].trim_start_matches(['=', '!', '~']);
        let Some(quoted) = rest.strip_prefix('"') else {
            labels.push((label, String::new()));
            continue;
        };
        let close = quoted.find('"').unwrap_or(quoted.len());
        labels.push((label, quoted[..close].to_owned()));
        rest = quoted.get(close + 1..).unwrap_or_default();
    }
    labels
}
