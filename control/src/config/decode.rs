//! From the tree of a file to the types of [`file`](super::file), back again, and to the JSON Schema: a [`Setting`] is what
//! can stand at a key, and knows all three.
//!
//! Decoding notes every problem and goes on: what can't be used is left out, its neighbours are read nevertheless. The
//! [`section!`] macro makes a section out of its keys, each with its documentation, kind, type and default, so a new key
//! is one line there.

use std::borrow::Cow;
use std::hash::Hash;

use indexmap::IndexMap;
use indexmap::map::Entry as Place;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_yaml::{Mapping, Value};

use super::error::{Problems, suggest};
use super::node::{Entry, Kind, Mark, Node, join};
use super::text::FromText;

/// What can stand at a key.
pub(super) trait Setting: JsonSchema + Sized {
    /// What to write, with an example: completes "write".
    fn wanted() -> String;

    /// Reads it. None: something else stands there, which has been noted.
    fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self>;

    /// The value, in the one way that is written for all that mean the same.
    fn encode(&self) -> Value;

    /// Notes that something else stands there.
    fn refuse(node: &Node, path: &str, problems: &mut Problems) {
        let found = match &node.kind {
            Kind::Null => "nothing stands here".to_owned(),
            Kind::Scalar(text) => format!("{text:?} does not do"),
            Kind::List(_) => "a list does not do".to_owned(),
            Kind::Map(_) => "a mapping does not do".to_owned(),
        };
        let or = if matches!(node.kind, Kind::Null) { ", or remove the key" } else { "" };
        problems.add(node.mark, path, format_args!("{found}; write {}{or}", Self::wanted()));
    }
}

/// A scalar of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text<T>(pub T);

impl<T: FromText> Setting for Text<T> {
    fn wanted() -> String {
        T::wanted().into_owned()
    }

    fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let Kind::Scalar(text) = &node.kind else {
            Self::refuse(node, path, problems);
            return None;
        };
        let read = T::from_text(text);
        if read.is_none() {
            let flaw = T::flaw(text).map_or_else(String::new, |flaw| format!(": {flaw}"));
            problems.add(node.mark, path, format_args!("{text:?} does not do{flaw}; write {}", T::wanted()));
        }
        read.map(Text)
    }

    fn encode(&self) -> Value {
        self.0.to_value()
    }
}

impl<T: FromText> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::wanted()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// Things in a row. One that was refused keeps its place, so that the others' indices are those of the file.
#[derive(Clone, Debug)]
pub(super) struct List<T>(Vec<Option<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T> List<T> {
    /// Each with its index.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate().filter_map(|(i, item)| Some((i, item.as_ref()?)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Setting> Setting for List<T> {
    fn wanted() -> String {
        format!("a list (in brackets, or a dash before each item), each item {}", T::wanted())
    }

    fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        match &node.kind {
            Kind::List(items) => {
                let items = items.iter().enumerate();
                Some(List(items.map(|(i, item)| T::decode(item, &format!("{path}[{i}]"), problems)).collect()))
            }
            Kind::Scalar(text) => {
                problems.add(node.mark, path, format_args!("{text:?} is not a list; write [{text}], in brackets"));
                None
            }
            Kind::Null | Kind::Map(_) => {
                Self::refuse(node, path, problems);
                None
            }
        }
    }

    fn encode(&self) -> Value {
        Value::Sequence(self.iter().map(|(_, item)| item.encode()).collect())
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({"type": "array", "items": item})
    }
}

/// Things by name, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V>(pub IndexMap<K, V>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(IndexMap::new())
    }
}

impl<K: FromText + Eq + Hash, V: Setting> Setting for Table<K, V> {
    fn wanted() -> String {
        format!("entries without dashes, each {}, a colon, and {}", K::wanted(), V::wanted())
    }

    fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            Self::refuse(node, path, problems);
            return None;
        };
        let mut table = IndexMap::new();
        for (name, Entry { mark, value }) in entries {
            let path = join(path, name);
            let Some(key) = K::from_text(name) else {
                let flaw = K::flaw(name).map_or_else(String::new, |flaw| format!(": {flaw}"));
                problems.add(*mark, &path, format_args!("{name:?} does not do as a key{flaw}; write {}", K::wanted()));
                // What is below it is to be told all the same.
                V::decode(value, &path, problems);
                continue;
            };
            let value = V::decode(value, &path, problems);
            match table.entry(key) {
                Place::Occupied(place) => {
                    let other = K::to_text(place.key());
                    problems.add(
                        *mark,
                        path,
                        format_args!("{name:?} is given twice, as {other:?} too; remove one of the two"),
                    );
                }
                Place::Vacant(place) => {
                    if let Some(value) = value {
                        place.insert(value);
                    }
                }
            }
        }
        Some(Table(table))
    }

    fn encode(&self) -> Value {
        self.0.iter().map(|(key, value)| (key.to_value(), value.encode())).collect::<Mapping>().into()
    }
}

impl<K: FromText, V: JsonSchema> JsonSchema for Table<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Table of {}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<V>();
        // Keys are text to a schema, those that are numbers too.
        let keys = match K::schema() {
            number if number.get("type").is_some_and(|kind| kind == "integer") => json_schema!({"pattern": "^[0-9]+$"}),
            text => text,
        };
        json_schema!({"type": "object", "propertyNames": keys, "additionalProperties": value})
    }
}

/// A section while its keys are read.
pub(super) struct Reader<'a> {
    entries: &'a IndexMap<String, Entry>,
    mark: Mark,
    path: &'a str,
    /// Keys that were probably meant by others: they are not said to be missing.
    meant: Vec<String>,
    problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    /// Begins with a section that has these `keys`; all others are refused.
    pub fn open(node: &'a Node, path: &'a str, keys: &[&str], problems: &'a mut Problems) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else { return None };
        let mut meant = Vec::new();
        for (name, entry) in entries.iter().filter(|(name, _)| !keys.contains(&name.as_str())) {
            let absent = keys.iter().copied().filter(|key| !entries.contains_key(*key));
            let remedy = match suggest(name, absent) {
                Some(key) => {
                    problems.misread(join(path, key));
                    meant.push(key.to_owned());
                    format!("did you mean {key:?}?")
                }
                None => format!("the keys here are {}", keys.join(", ")),
            };
            problems.add(entry.mark, join(path, name), format_args!("there is no key {name:?} here; {remedy}"));
        }
        Some(Reader { entries, mark: node.mark, path, meant, problems })
    }

    /// A key that may be left out.
    pub fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let entry = self.entries.get(key)?;
        T::decode(&entry.value, &join(self.path, key), self.problems)
    }

    /// A key that may not.
    pub fn required<T: Setting>(&mut self, key: &str) -> Option<T> {
        if !self.entries.contains_key(key) && !self.meant.iter().any(|meant| meant == key) {
            let message = format!("{key:?} is missing; add `{key}:` with {}", T::wanted());
            self.problems.add(self.mark, join(self.path, key), message);
        }
        self.optional(key)
    }
}

/// Describes a key for the schema.
pub(super) fn describe<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    about: &str,
    default: Option<&Value>,
) -> serde_json::Value {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("description".to_owned(), about.trim().into());
    if let Some(default) =
        default.filter(|value| !value.is_mapping()).and_then(|value| serde_json::to_value(value).ok())
    {
        schema.insert("default".to_owned(), default);
    }
    schema.to_value()
}

/// Declares a section: a struct with a field for each of its keys, in kebab-case.
///
/// A key is `required`, `optional`, or has a `default`. The first two are `Option`s: None where a required key is missing
/// or a value was refused, both of which have been noted. A refused value of the third kind is read as the default.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $($(#[doc = $doc:literal])+ $field:ident: $kind:ident $type:ty $(= $default:expr)?,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub(super) struct $name {
            $($(#[doc = $doc])+ pub $field: section!(@type $kind $type),)+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: section!(@absent $kind $($default)?)),+ }
            }
        }

        impl $name {
            /// The section's keys.
            fn keys() -> Vec<String> {
                vec![$(key_of(stringify!($field))),+]
            }
        }

        impl Setting for $name {
            fn wanted() -> String {
                format!("a section of the keys {}", Self::keys().join(", "))
            }

            fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
                let keys = Self::keys();
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                if !matches!(node.kind, Kind::Map(_)) {
                    Self::refuse(node, path, problems);
                }
                let mut reader = Reader::open(node, path, &keys, problems)?;
                Some($name { $($field: section!(@read $kind reader, &key_of(stringify!($field)) $(, $default)?)),+ })
            }

            fn encode(&self) -> Value {
                let mut entries = Mapping::new();
                $(
                    if let Some(value) = section!(@some $kind &self.$field) {
                        entries.insert(key_of(stringify!($field)).into(), Setting::encode(value));
                    }
                )+
                entries.into()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let mut properties = serde_json::Map::new();
                let mut required: Vec<String> = Vec::new();
                $(
                    let key = key_of(stringify!($field));
                    let default: Option<Value> = section!(@default $type $(, $default)?);
                    let about = concat!($($doc),+);
                    properties.insert(key.clone(), describe::<$type>(generator, about, default.as_ref()));
                    if section!(@is_required $kind) {
                        required.push(key);
                    }
                )+
                let about = concat!($($about),+).trim();
                let mut schema = json_schema!({
                    "type": "object", "description": about, "properties": properties, "additionalProperties": false,
                });
                if !required.is_empty() {
                    schema.insert("required".to_owned(), required.into());
                }
                schema
            }
        }
    };

    (@type required $type:ty) => { Option<$type> };
    (@type optional $type:ty) => { Option<$type> };
    (@type default $type:ty) => { $type };
    (@read required $reader:ident, $key:expr) => { $reader.required($key) };
    (@read optional $reader:ident, $key:expr) => { $reader.optional($key) };
    (@read default $reader:ident, $key:expr, $default:expr) => { $reader.optional($key).unwrap_or_else(|| $default) };
    (@absent required) => { None };
    (@absent optional) => { None };
    (@absent default $default:expr) => { $default };
    (@some required $field:expr) => { $field.as_ref() };
    (@some optional $field:expr) => { $field.as_ref() };
    (@some default $field:expr) => { Some($field) };
    (@default $type:ty) => { None };
    (@default $type:ty, $default:expr) => {{
        let default: $type = $default;
        Some(default.encode())
    }};
    (@is_required required) => { true };
    (@is_required $kind:ident) => { false };
}
pub(super) use section;

/// The key of a field.
pub(super) fn key_of(field: &str) -> String {
    field.trim_start_matches("r#").replace('_', "-")
}
