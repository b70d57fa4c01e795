//! The JSON Schema of the configuration, for editors that complete and check.

use schemars::generate::SchemaSettings;

use super::file::File;

/// The schema, as a JSON text that ends with a newline. It is generated from the types that files are read into; what a
/// file says as a whole (names, overlaps) only `turnpike check` knows.
#[must_use]
pub fn schema() -> String {
    // Editors know draft 7 best, and a schema without references.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<File>();
    format!("{:#}\n", schema.to_value())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::super::decode::Setting;
    use super::super::error::Problems;
    use super::super::node::Node;
    use super::*;

    const MANUAL: &str = include_str!("../../../docs/configuration.md");

    #[test]
    fn the_file_beside_the_examples_is_the_schema() {
        let committed = include_str!("../../../configs/turnpike.schema.json");
        assert_eq!(committed, schema(), "run: turnpike schema > configs/turnpike.schema.json");
    }

    /// Every key of a schema, as the manual writes it, with its own schema and whether it must be given.
    fn keys(schema: &Value, path: &str, found: &mut BTreeMap<String, (Value, bool)>) {
        for (key, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let required = schema["required"].as_array().is_some_and(|keys| keys.iter().any(|other| other == key));
            found.insert(path.clone(), (value.clone(), required));
            keys(value, &path, found);
            keys(&value["items"], &format!("{path}[]"), found);
            keys(&value["additionalProperties"], &format!("{path}.NAME"), found);
            for one in value["anyOf"].as_array().into_iter().flatten() {
                keys(one, &path, found);
            }
        }
    }

    /// The rows of the manual's tables: key, then its other cells.
    fn rows() -> BTreeMap<String, Vec<String>> {
        let key = |key: &str| {
            key.starts_with(|c: char| c.is_ascii_lowercase())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || ".-[]".contains(c))
        };
        let row = |line: &str| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().to_owned());
            let first = cells.next()?.strip_suffix('`').filter(|cell| key(cell))?.to_owned();
            Some((first, cells.collect()))
        };
        MANUAL.lines().filter_map(row).collect()
    }

    #[test]
    fn the_manual_has_every_key_and_no_other() {
        let mut known = BTreeMap::new();
        keys(&serde_json::from_str(&schema()).unwrap(), "", &mut known);
        let rows = rows();
        let missing: Vec<_> = known.keys().filter(|key| !rows.contains_key(*key)).collect();
        assert_eq!(missing, Vec::<&String>::new(), "not in the manual");
        let unknown: Vec<_> = rows.keys().filter(|key| !known.contains_key(*key)).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "not in the program");
    }

    /// What the manual says of a key's default, and of the words that it may have, is what the schema says.
    #[test]
    fn the_manual_has_the_defaults_and_words_of_the_schema() {
        let mut known = BTreeMap::new();
        keys(&serde_json::from_str(&schema()).unwrap(), "", &mut known);
        for (key, cells) in rows() {
            let (schema, required) = &known[&key];
            // Times have a table of their own: default, least, meaning.
            let timer = key.starts_with("timers.");
            let default = &cells[if timer { 0 } else { 1 }];
            assert_eq!(default == "required", *required, "{key}");
            let same = match &schema["default"] {
                // It follows from something else, and the manual says so in words.
                Value::Null => !default.starts_with('`') || default.contains(' '),
                Value::Array(_) => true,
                Value::String(text) if timer => {
                    let time = |text: &str| humantime::parse_duration(text.trim_matches('`')).unwrap();
                    time(text) == time(default)
                }
                Value::String(text) => default == &format!("`{text}`"),
                other => *default.trim_matches('`') == *other.to_string(),
            };
            assert!(same, "the default of {key} is {}, not {default}", schema["default"]);
            for word in schema["enum"].as_array().into_iter().flatten().filter(|_| !key.contains("filtering")) {
                let word = format!("`{}`", word.as_str().unwrap());
                assert!(cells[0].contains(&word), "{key} can be {word}");
            }
        }
    }

    /// The manual's examples can be read; most are only a section.
    #[test]
    fn the_manuals_examples_can_be_read() {
        let examples: Vec<&str> =
            MANUAL.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(examples.len() > 10);
        for example in examples {
            let mut problems = Problems::default();
            let root = Node::parse(example, 0, &mut problems).unwrap();
            File::decode(&root, "", &mut problems);
            let whole = example.contains("version:");
            let missing = |key: &&str| !whole && ["version", "ports", "interfaces"].contains(key);
            let told: Vec<&str> = problems.unknown().filter(|key| !missing(key)).collect();
            assert_eq!(told, Vec::<&str>::new(), "{example}");
        }
    }
}
