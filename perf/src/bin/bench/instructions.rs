//! Instructions per packet, counted by callgrind in runs of this program of their own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use dataplane::worker::BURST;

use crate::ROUNDS_OF_ONE_WINDOW;

/// Bursts of a window under callgrind, which is slow.
const BURSTS: usize = 512;

/// Instructions that one packet of a case takes in the engine: what a run with packets takes more than one without.
///
/// # Errors
/// valgrind is missing, or the program does not run in it.
pub fn per_packet(case: &str, flows: usize) -> Result<f64> {
    let packets = BURSTS * BURST * ROUNDS_OF_ONE_WINDOW;
    Ok((count(case, flows, BURSTS)? - count(case, flows, 0)?) / packets as f64)
}

fn count(case: &str, flows: usize, bursts: usize) -> Result<f64> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new("valgrind");
    // Only what `measured` does, and what it calls, counts.
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"]);
    command.arg(program).args(["--heap", "--windows", "1", "--case", case]);
    command.args([format!("--flows={flows}"), format!("--bursts={bursts}")]);
    let output = command.output().context("starting valgrind: is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    ensure!(output.status.success(), "callgrind: {said}");
    count.with_context(|| format!("callgrind counted nothing: {said}"))
}
