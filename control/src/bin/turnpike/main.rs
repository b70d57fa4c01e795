//! `turnpike`: the gateway, and what checks and tries its configuration.
//!
//! A subcommand is a module with `Args` and `run(Args) -> anyhow::Result<ExitCode>`; add it to [`Command`] and to the
//! match in `main`. Exit codes: 0, 1 (failed), 2 (wrong use or configuration).

mod check;
mod doctor;
mod generate_ula;
mod replay;
mod run;
mod schema;
mod translate_address;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use control::config::ConfigError;

/// A NAT gateway on DPDK.
#[derive(Debug, Parser)]
#[command(name = "turnpike", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Example:
  turnpike check configs/minimal.yaml

Exit codes: 0 done, 1 failed, 2 wrong use or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Doctor(doctor::Args),
    GenerateUla(generate_ula::Args),
    Replay(replay::Args),
    Run(run::Args),
    Schema(schema::Args),
    TranslateAddress(translate_address::Args),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check(args) => check::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::GenerateUla(args) => generate_ula::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Run(args) => run::run(args),
        Command::Man { directory } => man(&directory),
        Command::Schema(args) => schema::run(args),
        Command::TranslateAddress(args) => translate_address::run(args),
    };
    result.unwrap_or_else(|error| match error.downcast_ref::<ConfigError>() {
        Some(wrong) => {
            eprintln!("{wrong}");
            ExitCode::from(2)
        }
        None => {
            eprintln!("turnpike: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn man(directory: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(Cli::command(), directory).with_context(|| directory.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
