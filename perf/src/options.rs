//! The options that all benchmarks have.

use std::path::PathBuf;

/// How much is measured, and where the figures go.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Short windows, few of them, few flows: to see that it works, not to quote
    #[arg(long)]
    pub quick: bool,
    /// Everything, in long windows: takes long
    #[arg(long, conflicts_with = "quick")]
    pub full: bool,
    /// Windows of each case
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub windows: Option<u8>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "", hide_default_value = true)]
    pub only: String,
    /// Only cases of at most this many flows
    #[arg(long)]
    pub flows: Option<usize>,
    /// Puts the figures into JSON files in this directory
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Common {
    /// Windows of each case: 5, or 3 with `--quick`, unless it was said.
    #[must_use]
    pub fn windows(&self) -> u8 {
        self.windows.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// The most flows of a case: any number, or `few` with `--quick`, unless it was said.
    #[must_use]
    pub fn flows(&self, few: usize) -> usize {
        self.flows.unwrap_or(if self.quick { few } else { usize::MAX })
    }
}
