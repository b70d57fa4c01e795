//! Any text as a configuration.

use std::path::Path;

use control::config::Config;
use dataplane::plan::{MacAddr, Plan};

/// Reads a configuration: what it accepts can be compiled, and what it refuses it explains.
///
/// # Panics
/// When that is not so.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, Path::new("any.yaml")) {
        Ok(config) => {
            let spec = config.spec(&|port| MacAddr([2, 0, 0, 0, 0, port.0.to_be_bytes()[1]]), [0; 16], 1);
            if let Err(error) = Plan::compile(spec) {
                panic!("accepted, but {error}");
            }
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(error.problems.iter().all(|problem| !problem.message.is_empty()));
            let said = error.to_string();
            assert!(said.contains("any.yaml") && said.len() < 1000 * (bytes.len() + 100), "{said}");
        }
    }
}
