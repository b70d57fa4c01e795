//! The machine as the kernel shows it in files: `/sys`, `/proc`, `/dev`, `/lib/firmware`.
//!
//! What can't be read is not there: every answer is an `Option` or empty, and the checks say what its absence means.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// A directory that holds `sys`, `proc`, `dev` and `lib`: `/`, or a made-up one.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Tree { root: root.to_owned() }
    }

    /// A file's text, without the white space around it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&fs::read(self.root.join(path)).ok()?).trim().to_owned())
    }

    /// A file's decimal number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file's list of cores.
    pub(super) fn cores(&self, path: &str) -> Vec<u16> {
        self.text(path).map(|text| parse_cores(&text)).unwrap_or_default()
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last component of what a symbolic link leads to: sysfs names drivers and groups so.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.root.join(path)).ok()?.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether there is anything.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Owner and mode.
    pub(super) fn metadata(&self, path: &str) -> Option<Metadata> {
        fs::metadata(self.root.join(path)).ok()
    }

    /// The values of an argument on the kernel's command line, one for each time that it stands there.
    pub(super) fn kernel_argument(&self, name: &str) -> Vec<String> {
        let line = self.text("proc/cmdline").unwrap_or_default();
        let arguments = line.split_whitespace().filter_map(|argument| argument.split_once('='));
        arguments.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// The value of a line `NAME: VALUE` of a file such as `/proc/self/status`.
    pub(super) fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    }
}

/// The cores of a kernel's list: `0-3,8`. What is no number is skipped: kernel arguments have words in front.
pub(super) fn parse_cores(list: &str) -> Vec<u16> {
    let mut cores: Vec<u16> = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            cores.extend(first..=last);
        }
    }
    cores.sort_unstable();
    cores.dedup();
    cores
}

/// Cores as the kernel writes them; they are in order.
pub(super) fn list_cores(cores: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &core in cores {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(core) => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let range = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        for (text, cores, written) in [
            ("", vec![], ""),
            ("0", vec![0], "0"),
            ("0-3,8", vec![0, 1, 2, 3, 8], "0-3,8"),
            ("managed_irq,domain,2-3", vec![2, 3], "2-3"),
            ("5,4,4", vec![4, 5], "4-5"),
        ] {
            assert_eq!(parse_cores(text), cores, "{text}");
            assert_eq!(list_cores(&cores), written);
        }
    }
}
