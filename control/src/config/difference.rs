//! What changes from one configuration to another, key by key, and what of it needs a restart.
//!
//! Compared are the values as the gateway understands them, so `5m` in place of `300s`, or a default written out, is no
//! change. Where a whole section or entry comes or goes that is one change, not one for each key in it. Order is a
//! change only where it has a meaning: of the rules of which the first that matches decides, and within a list.

use std::fmt;

use serde_yaml::{Mapping, Value};

use super::Config;

/// Sections whose entries are tried in the order of the file.
const ORDERED: &[&str] = &["nat44.rules"];

/// Top-level sections that are read once, at start.
const BOOT: &[&str] = &["boot", "ports", "metrics", "control"];

/// One difference between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is about, as a path: `nat44.rules.subscribers.pool`, `routes[0]`. An index counts in the new
    /// configuration, or in the old one where something is removed.
    pub key: String,
    /// What became of it.
    pub what: What,
}

/// What became of a key. Values are written as one line of YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was not there before.
    Added(String),
    /// It is there no more; this is what it was.
    Removed(String),
    /// It has another value.
    Changed {
        /// The value before.
        old: String,
        /// The value now.
        new: String,
    },
    /// The same entries, in another order where the order decides.
    Reordered {
        /// The order before.
        old: String,
        /// The order now.
        new: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Added(value) => write!(f, "added: {value}"),
            What::Removed(value) => write!(f, "removed: {value}"),
            What::Changed { old, new } => write!(f, "{old} becomes {new}"),
            What::Reordered { old, new } => write!(f, "the order {old} becomes {new}"),
        }
    }
}

impl Config {
    /// What would change if `new` took the place of this configuration, in the order of the new one. Empty where
    /// nothing does.
    #[must_use]
    pub fn difference(&self, new: &Config) -> Vec<Change> {
        let mut changes = Vec::new();
        values("", &self.values, &new.values, &mut changes);
        changes
    }

    /// The keys of [`difference`](Self::difference) that take effect only at the next start: everything under `boot`,
    /// `ports`, `metrics` and `control`.
    #[must_use]
    pub fn needs_restart(&self, new: &Config) -> Vec<String> {
        let section = |key: &str| key.split(['.', '[']).next().is_some_and(|section| BOOT.contains(&section));
        let keys = self.difference(new).into_iter().map(|change| change.key);
        keys.filter(|key| section(key)).collect()
    }
}

fn values(key: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    match (old, new) {
        (Value::Mapping(old), Value::Mapping(new)) => mappings(key, old, new, changes),
        (Value::Sequence(old), Value::Sequence(new)) => lists(key, old, new, changes),
        (old, new) if old != new => {
            let what = What::Changed { old: one_line(old), new: one_line(new) };
            changes.push(Change { key: key.to_owned(), what });
        }
        _ => {}
    }
}

fn mappings(key: &str, old: &Mapping, new: &Mapping, changes: &mut Vec<Change>) {
    let path = |name: &Value| if key.is_empty() { one_line(name) } else { format!("{key}.{}", one_line(name)) };
    for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(name)) {
        changes.push(Change { key: path(name), what: What::Removed(one_line(value)) });
    }
    for (name, value) in new {
        match old.get(name) {
            Some(old) => values(&path(name), old, value, changes),
            None => changes.push(Change { key: path(name), what: What::Added(one_line(value)) }),
        }
    }
    if ORDERED.contains(&key) {
        let common = |one: &Mapping, other: &Mapping| {
            let names = one.keys().filter(|name| other.contains_key(name)).map(one_line);
            names.collect::<Vec<_>>().join(", ")
        };
        let (old, new) = (common(old, new), common(new, old));
        if old != new {
            changes.push(Change { key: key.to_owned(), what: What::Reordered { old, new } });
        }
    }
}

/// Items of a list have no name: those that are in one list alone are told, and if there is none, another order.
fn lists(key: &str, old: &[Value], new: &[Value], changes: &mut Vec<Change>) {
    let before = changes.len();
    let at = |i: usize| format!("{key}[{i}]");
    for (i, item) in old.iter().enumerate().filter(|(_, item)| !new.contains(item)) {
        changes.push(Change { key: at(i), what: What::Removed(one_line(item)) });
    }
    for (i, item) in new.iter().enumerate().filter(|(_, item)| !old.contains(item)) {
        changes.push(Change { key: at(i), what: What::Added(one_line(item)) });
    }
    if changes.len() == before && old != new {
        let [old, new] = [old, new].map(|list| one_line(&Value::Sequence(list.to_vec())));
        changes.push(Change { key: key.to_owned(), what: What::Reordered { old, new } });
    }
}

/// A value as one line of YAML, for a reader: strings without quotes.
fn one_line(value: &Value) -> String {
    let all = |values: Vec<String>| values.join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Sequence(items) => format!("[{}]", all(items.iter().map(one_line).collect())),
        Value::Mapping(entries) => {
            let entry = |(name, value): (&Value, &Value)| format!("{}: {}", one_line(name), one_line(value));
            format!("{{{}}}", all(entries.iter().map(entry).collect()))
        }
        Value::Tagged(tagged) => one_line(&tagged.value),
    }
}
