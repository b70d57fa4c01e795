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
