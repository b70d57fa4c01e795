//! A YAML file as a tree whose every node knows its line and column, and the merging of several into one.
//!
//! The parser is saphyr-parser: it tells events with their positions, and this builds the tree from them without
//! recursion. What the format has no use for is refused by name: anchors and aliases (and with them merge keys and
//! every "billion laughs"), tags, several documents, keys that are not one word. So the tree is never larger than its
//! file, and never deeper than [`DEPTH_MAX`].

use std::collections::HashMap;

use indexmap::IndexMap;
use indexmap::map::Entry as Place;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::error::Problems;

/// Collections inside of each other. The format needs six.
const DEPTH_MAX: usize = 32;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Which of the files.
    pub file: usize,
    /// From 1. Zero: the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Mark {
    /// The place after this text.
    pub fn after(text: &str, file: usize) -> Mark {
        let line = text.matches('\n').count() + 1;
        let column = text.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Mark { file, line, column }
    }
}

/// A value.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it stands. What has a key and is no scalar stands where its key does.
    pub mark: Mark,
    pub kind: Kind,
}

/// The shapes of a value.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, or `null`.
    Null,
    /// A word, as it stands in the file but for quotes and escapes.
    Scalar(String),
    List(Vec<Node>),
    Map(IndexMap<String, Entry>),
}

/// A key's value, and where the key stands.
#[derive(Debug)]
pub(super) struct Entry {
    pub mark: Mark,
    pub value: Node,
}

impl Node {
    /// Reads a file, the `file`-th. Notes what is wrong; None if it can't be read at all.
    pub fn parse(text: &str, file: usize, problems: &mut Problems) -> Option<Node> {
        let mut builder = Builder { file, documents: 0, open: Vec::new(), root: None, problems };
        // The parser takes a NUL for the end of the file.
        if let Some(at) = text.find('\0') {
            builder.problems.add(Mark::after(&text[..at], file), "", "a NUL character stands here; remove it");
            return None;
        }
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let refused = match event {
                Ok((event, span)) => builder.event(event, builder.mark(span.start)).err(),
                Err(error) => Some((builder.mark(*error.marker()), explain(&error))),
            };
            if let Some((mark, message)) = refused {
                let key = builder.path();
                builder.problems.add(mark, key, message);
                return None;
            }
        }
        // A file of comments alone says nothing.
        let empty = || Node { mark: Mark { file, line: 1, column: 1 }, kind: Kind::Map(IndexMap::new()) };
        Some(builder.root.filter(|root| !matches!(root.kind, Kind::Null)).unwrap_or_else(empty))
    }

    /// The mapping that it is, if it is one.
    pub fn entries(&mut self) -> Option<&mut IndexMap<String, Entry>> {
        match &mut self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Adds what a later file says: mappings are merged by key, lists are appended, all else is replaced.
    pub fn merge(&mut self, later: Node) {
        match (&mut self.kind, later.kind) {
            (Kind::Map(ours), Kind::Map(theirs)) => merge_entries(ours, theirs),
            // Neither can be used, and one is enough to say so.
            (Kind::Map(_), kind) => *self = Node { mark: later.mark, kind },
            _ => {}
        }
    }

    /// Puts a scalar at `key` of the section at `path`, whose names have dots between. False: there is no such section.
    pub fn set(&mut self, path: &str, key: &str, text: String) -> bool {
        let mut node = self;
        for name in path.split('.') {
            let Kind::Map(entries) = &mut node.kind else { return false };
            let Some(entry) = entries.get_mut(name) else { return false };
            node = &mut entry.value;
        }
        let mark = node.mark;
        let Kind::Map(entries) = &mut node.kind else { return false };
        let mark = entries.get(key).map_or(mark, |entry| entry.value.mark);
        entries.insert(key.to_owned(), Entry { mark, value: Node { mark, kind: Kind::Scalar(text) } });
        true
    }

    /// Where each key stands, by path, with its value: a key's mark, then its value's. Items of a list have one.
    pub fn places(&self) -> HashMap<String, (Mark, Mark)> {
        let mut places = HashMap::new();
        self.note_places(self.mark, String::new(), &mut places);
        places
    }

    fn note_places(&self, key: Mark, path: String, places: &mut HashMap<String, (Mark, Mark)>) {
        match &self.kind {
            Kind::Null | Kind::Scalar(_) => {}
            Kind::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.note_places(item.mark, format!("{path}[{i}]"), places);
                }
            }
            Kind::Map(entries) => {
                for (name, entry) in entries {
                    entry.value.note_places(entry.mark, join(&path, name), places);
                }
            }
        }
        places.insert(path, (key, self.mark));
    }
}

fn merge_entries(ours: &mut IndexMap<String, Entry>, theirs: IndexMap<String, Entry>) {
    for (name, entry) in theirs {
        match ours.entry(name) {
            Place::Vacant(place) => {
                place.insert(entry);
            }
            Place::Occupied(mut place) => match (&mut place.get_mut().value.kind, entry.value.kind) {
                (Kind::Map(ours), Kind::Map(theirs)) => merge_entries(ours, theirs),
                (Kind::List(ours), Kind::List(theirs)) => ours.extend(theirs),
                (_, kind) => {
                    let value = Node { mark: entry.value.mark, kind };
                    place.insert(Entry { mark: entry.mark, value });
                }
            },
        }
    }
}

/// The path of `name` within `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Where a file can't be read any further, and why.
type Refusal = (Mark, String);

/// A collection that has not ended yet.
struct Open {
    mark: Mark,
    collection: Collection,
}

enum Collection {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Map(IndexMap<String, Entry>, Option<(String, Mark)>),
}

struct Builder<'a> {
    file: usize,
    documents: usize,
    open: Vec<Open>,
    root: Option<Node>,
    problems: &'a mut Problems,
}

impl Builder<'_> {
    fn mark(&self, marker: Marker) -> Mark {
        Mark { file: self.file, line: marker.line(), column: marker.col() + 1 }
    }

    /// Takes one event, or says why the file can't be read.
    fn event(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Refusal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                match self.documents {
                    1 => Ok(()),
                    _ => Err((mark, DOCUMENT.to_owned())),
                }
            }
            Event::Alias(_) => Err((mark, ALIAS.to_owned())),
            Event::Scalar(text, style, anchor, tag) => {
                plain(mark, anchor, tag.is_some())?;
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar(text.into_owned()) };
                self.value(Node { mark, kind })
            }
            Event::SequenceStart(anchor, tag) => {
                plain(mark, anchor, tag.is_some())?;
                self.begin(mark, Collection::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                plain(mark, anchor, tag.is_some())?;
                self.begin(mark, Collection::Map(IndexMap::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { mark, collection }) => {
                    let kind = match collection {
                        Collection::List(items) => Kind::List(items),
                        Collection::Map(entries, _) => Kind::Map(entries),
                    };
                    self.value(Node { mark, kind })
                }
                None => Ok(()),
            },
        }
    }

    fn begin(&mut self, mark: Mark, collection: Collection) -> Result<(), Refusal> {
        if self.open.len() == DEPTH_MAX {
            return Err((mark, format!("more than {DEPTH_MAX} levels are nested here; remove some brackets")));
        }
        self.open.push(Open { mark, collection });
        Ok(())
    }

    /// Puts a value where it belongs.
    fn value(&mut self, node: Node) -> Result<(), Refusal> {
        match self.open.last_mut().map(|open| &mut open.collection) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push(node),
            Some(Collection::Map(_, key @ None)) => {
                let name = match node.kind {
                    Kind::Scalar(name) => name,
                    Kind::Null => "null".to_owned(),
                    Kind::List(_) | Kind::Map(_) => return Err((node.mark, KEY.to_owned())),
                };
                if name == "<<" {
                    return Err((node.mark, MERGE.to_owned()));
                }
                *key = Some((name, node.mark));
            }
            Some(Collection::Map(entries, key @ Some(_))) => {
                let Some((name, mark)) = key.take() else { return Ok(()) };
                let line = entries.get(&name).map(|first| first.mark.line);
                if let Some(line) = line {
                    let path = join(&self.path(), &name);
                    self.problems.add(
                        mark,
                        path,
                        format_args!(
                            "\"{name}\" is given twice, first in line {line}; remove one of the two, or rename it"
                        ),
                    );
                } else {
                    // A collection is told by its key, and so is a value that is not there.
                    let own = if matches!(node.kind, Kind::Scalar(_)) { node.mark } else { mark };
                    entries.insert(name, Entry { mark, value: Node { mark: own, kind: node.kind } });
                }
            }
        }
        Ok(())
    }

    /// The path of what is being read.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.collection {
            Collection::List(items) => format!("{path}[{}]", items.len()),
            Collection::Map(_, Some((name, _))) => join(&path, name),
            Collection::Map(_, None) => path,
        })
    }
}

/// Refuses what a value may carry in YAML and not here.
fn plain(mark: Mark, anchor: usize, tag: bool) -> Result<(), Refusal> {
    let (what, sign) = match (anchor, tag) {
        (0, false) => return Ok(()),
        (0, true) => ("tags", '!'),
        _ => ("anchors", '&'),
    };
    let remedy = format!("remove it, or put quotes around a value that begins with `{sign}`");
    Err((mark, format!("{what} (`{sign}name`) are not read; {remedy}")))
}

const DOCUMENT: &str = "a second document begins here; remove this `---`, or put what follows into a file of its own";
const KEY: &str = "a list or mapping stands where a key belongs; write one word before the `:`, and put quotes around a \
                   value that begins with `[` or `{`";
const MERGE: &str = "merge keys (`<<`) are not read; write the keys out";
const ALIAS: &str =
    "aliases (`*name`) are not read; write the value out, or put quotes around one that begins with `*`";

/// What the parser found, in the words of this format: parts of the parser's message, and what is told for it.
const EXPLANATIONS: &[(&[&str], &str)] = &[
    (&["tab"], "a tab stands in the indentation; indent with spaces"),
    (
        &["mapping values are not allowed"],
        "a `:` cannot stand here; begin all keys of a section in the same column, and put quotes around a value with \
         `: ` in it",
    ),
    (
        &["did not find expected key", "did not find expected '-'"],
        "this belongs to nothing above; begin all keys of a section in the same column, and put quotes around a value \
         that begins with a bracket or a quote",
    ),
    (
        &["simple key expect", "simple key expected"],
        "a `:` is missing here or in the line above; put a `:` and a space after each key",
    ),
    (
        &["quoted scalar"],
        "the text in quotes is wrong here; look for a quote that is missing, and write `\\` as `\\\\` in double quotes",
    ),
    (
        &["flow", "bracket", "placement of ':'"],
        "a bracket here or above is not closed, or closed twice; count `[` `]` `{` `}` and the commas between, and put \
         quotes around a value that begins with a bracket",
    ),
    (&["recursion"], "too many brackets are nested here; remove some"),
    (&["unexpected character"], "a value cannot begin with this character; put quotes around it"),
    (&["indent"], "the indentation is wrong; begin all keys of a section in the same column"),
];

/// What the parser found, with a remedy.
fn explain(error: &ScanError) -> String {
    let info = error.info();
    if info.contains("anchor") {
        return ALIAS.to_owned();
    }
    let known = EXPLANATIONS.iter().find(|(parts, _)| parts.iter().any(|part| info.contains(part)));
    match known {
        Some((_, explanation)) => format!("this is not YAML: {explanation}"),
        None => format!("this is not YAML: {info}; look at the indentation, brackets and quotes here and above"),
    }
}
