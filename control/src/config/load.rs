//! From paths to a [`Config`]: which files are read, and in which order they are merged.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use dataplane::plan::{IpPrefix, PrefixRule};

use super::decode::{Setting, Text};
use super::error::Problems;
use super::node::{Mark, Node};
use super::text::Number;
use super::{Config, ConfigError, DEFAULT_PATH, Problem, Renumbered, file, resolve};

/// The largest file that is read, in bytes: more is a mistake.
const FILE_MAX: u64 = 16 << 20;

impl Config {
    /// Reads files, and of directories all the `*.yaml` in the byte order of their names (but for hidden ones), and
    /// merges them in this order: sections by key, lists by appending, and of other values the last is used.
    ///
    /// # Errors
    /// When one can't be read, or they say something impossible.
    pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Config, ConfigError> {
        Self::load_with(paths, &Renumbered::new())
    }

    fn load_with<P: AsRef<Path>>(paths: &[P], renumbered: &Renumbered) -> Result<Config, ConfigError> {
        let (mut sources, mut unreadable) = (Vec::new(), Vec::new());
        for path in paths {
            let path = path.as_ref();
            match files(path) {
                Ok(files) if files.is_empty() => {
                    unreadable.push(problem(path, "holds no *.yaml; put one there, or name a file"));
                }
                Ok(files) => {
                    for file in files {
                        match read(&file) {
                            Ok(text) => sources.push((file, text)),
                            Err(problem) => unreadable.push(problem),
                        }
                    }
                }
                Err(error) => unreadable.push(cannot(path, &error)),
            }
        }
        if !unreadable.is_empty() {
            return Err(ConfigError { problems: unreadable });
        }
        let files = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self::merge(&sources, renumbered).map(|config| Config { files, ..config })
    }

    /// Reads the same files again, with another outside prefix for a rule that exchanges prefixes (`nptv6.NAME`, `map66.NAME`,
    /// `netmap.NAME`), whatever they say, from now on; or with that of the files again.
    ///
    /// # Errors
    /// As [`Config::load`]; there is no such rule.
    pub fn renumber(&self, rule: &str, outside: Option<IpPrefix>) -> Result<Config, ConfigError> {
        let is_there = self.spec.prefixes.iter().any(|it| it.full_name() == rule);
        if !is_there {
            let names: Vec<String> = self.spec.prefixes.iter().map(PrefixRule::full_name).collect();
            let names = if names.is_empty() {
                "no rule exchanges prefixes".into()
            } else {
                format!("there is {}", names.join(", "))
            };
            let message = format!("no rule is called {rule:?}; {names}");
            return Err(ConfigError { problems: vec![problem(Path::new("prefix"), &message)] });
        }
        let mut renumbered = self.renumbered.clone();
        match outside {
            Some(outside) => renumbered.insert(rule.to_owned(), outside),
            None => renumbered.remove(rule),
        };
        self.reread_with(&renumbered)
    }

    /// Reads the same files and directories again, as they are now.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reread(&self) -> Result<Config, ConfigError> {
        self.reread_with(&self.renumbered)
    }

    fn reread_with(&self, renumbered: &Renumbered) -> Result<Config, ConfigError> {
        // Opening a pipe would wait for its other end, which a running gateway may not.
        let is_pipe = |path: &&PathBuf| fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir());
        match self.files.iter().find(is_pipe) {
            None => Self::load_with(&self.files, renumbered),
            Some(path) => {
                let message = "is neither a file nor a directory, so it can't be read again; restart with one that is";
                Err(ConfigError { problems: vec![problem(path, message)] })
            }
        }
    }

    /// Reads the text of a file, which is called `path` in errors.
    ///
    /// # Errors
    /// When it says something impossible.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config = Self::merge(&[(path.to_owned(), text.to_owned())], &Renumbered::new())?;
        Ok(Config { files: vec![path.to_owned()], ..config })
    }

    fn merge(sources: &[(PathBuf, String)], renumbered: &Renumbered) -> Result<Config, ConfigError> {
        let mut problems = Problems::default();
        let files: Vec<PathBuf> = sources.iter().map(|(path, _)| path.clone()).collect();
        let trees = sources.iter().enumerate().map(|(i, (_, text))| Node::parse(text, i, &mut problems));
        // All are read before one is missed.
        let trees: Vec<Option<Node>> = trees.collect();
        let config = trees.into_iter().collect::<Option<Vec<Node>>>().and_then(|trees| {
            let mut root = one(trees, &mut problems)?;
            // A rule that the files have no more takes its prefix with it.
            let mut renumbered = renumbered.clone();
            renumbered.retain(|rule, outside| root.set(rule, "outside", outside.to_string()));
            let file = file::File::decode(&root, "", &mut problems)?;
            let config = resolve::resolve(&file, &root, &files, &mut problems)?;
            Some(Config { renumbered, ..config })
        });
        match (config, problems.into_error(&files)) {
            (Some(config), None) => Ok(config),
            (_, Some(error)) => Err(error),
            (None, None) => Err(ConfigError { problems: vec![problem(Path::new(""), "no file is named; name one")] }),
        }
    }
}

/// The trees merged into one. Each may have its `version:`, and all are looked at.
fn one(trees: Vec<Node>, problems: &mut Problems) -> Option<Node> {
    trees.into_iter().reduce(|mut root, mut later| {
        let known = root.entries().is_some_and(|entries| entries.contains_key("version"));
        if known && let Some(version) = later.entries().and_then(|entries| entries.shift_remove("version")) {
            Text::<Number<1, 1>>::decode(&version.value, "version", problems);
        }
        root.merge(later);
        root
    })
}

/// The files that a path stands for.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "yaml") {
            files.push(file);
        }
    }
    files.sort_by(|one, other| one.as_os_str().as_encoded_bytes().cmp(other.as_os_str().as_encoded_bytes()));
    Ok(files)
}

fn read(path: &Path) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let taken = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = taken {
        return Err(cannot(path, &error));
    }
    if bytes.len() as u64 > FILE_MAX {
        return Err(problem(path, &format!("is larger than {} MiB; name a configuration", FILE_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let Mark { line, column, .. } = Mark::after(&String::from_utf8_lossy(good), 0);
        let message = "the text is not UTF-8 here; save it as UTF-8";
        Problem { position: Some((line, column)), ..problem(path, message) }
    })
}

fn cannot(path: &Path, error: &io::Error) -> Problem {
    problem(
        path,
        &format!("cannot be read: {error}; name a file or directory that you may read (default: {DEFAULT_PATH})"),
    )
}

fn problem(path: &Path, message: &str) -> Problem {
    Problem { file: path.to_owned(), position: None, key: String::new(), message: message.to_owned() }
}
