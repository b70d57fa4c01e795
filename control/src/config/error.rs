//! What is wrong with a configuration, said so that it can be mended without the manual.

use std::fmt::{self, Display};
use std::path::PathBuf;

use super::node::Mark;

/// Characters of a key or message that are shown.
const TEXT_MAX: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file that it is in.
    pub file: PathBuf,
    /// Line and column in the file, both from 1, columns in characters. None where the file could not be read.
    pub position: Option<(usize, usize)>,
    /// The key it is about, as a path (`nat44.rules.subscribers.pool`, `routes[0].via`); empty for the whole file.
    pub key: String,
    /// What is wrong with which value, and after a semicolon what to write instead.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A configuration that can't be used: all the problems that were found in its files.
///
/// Displayed with one line per problem: `FILE:LINE:COLUMN: KEY: MESSAGE; REMEDY`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// What is wrong, in the order of the files and lines. Never empty.
    pub problems: Vec<Problem>,
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<(Mark, String, String)>,
    misread: Vec<String>,
}

impl Problems {
    /// Notes one, at `mark`, about `key`.
    pub fn add(&mut self, mark: Mark, key: impl Display, message: impl Display) {
        self.found.push((mark, printable(&key.to_string()), printable(&message.to_string())));
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Notes that what stands at `key` is not known, though nothing is wrong there: the problem is elsewhere.
    pub fn misread(&mut self, key: String) {
        self.misread.push(key);
    }

    /// The keys whose values are not known, or not all of them.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(_, key, _)| key.as_str()).chain(self.misread.iter().map(String::as_str))
    }

    /// The error that they make, if there are any. Marks count in `files`.
    pub fn into_error(mut self, files: &[PathBuf]) -> Option<ConfigError> {
        self.found.sort_by_key(|(mark, ..)| *mark);
        let problem = |(mark, key, message): (Mark, String, String)| Problem {
            file: files.get(mark.file).cloned().unwrap_or_default(),
            position: (mark.line > 0).then_some((mark.line, mark.column)),
            key,
            message,
        };
        let problems: Vec<Problem> = self.found.into_iter().map(problem).collect();
        (!problems.is_empty()).then_some(ConfigError { problems })
    }
}

/// Text of a file for a terminal: no control characters, and of what is very long the beginning.
fn printable(text: &str) -> String {
    let mut shown: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(TEXT_MAX).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The name of `known` that was probably meant by `wrong`, as a remedy.
pub(super) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|&(distance, name)| distance <= (name.len() / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}
