//! `turnpike schema`: the JSON Schema of the configuration.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// Print the JSON Schema of the configuration, for editors
///
/// An editor that has the YAML language server completes and checks keys in a file that begins with
/// `# yaml-language-server: $schema=turnpike.schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  turnpike schema > turnpike.schema.json

Exit codes: 0 done, 1 failed.")]
pub struct Args {}

/// Runs the command.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(control::config::schema().as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
