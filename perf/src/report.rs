//! Figures, and the table of them.

use std::fmt::Write as _;

use anyhow::Result;

/// A burst that took this many times its window's median was interrupted: by the kernel, or by the machine below it.
const INTERRUPTED: u64 = 8;

/// What one case's packets cost in one window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Ticks per packet: the mean over all bursts that nothing interrupted.
    pub ticks: f64,
    /// The share of the bursts that were interrupted.
    pub interrupted: f64,
}

impl Window {
    /// From the ticks that each burst of `burst` packets took.
    pub fn new(mut spent: Vec<u64>, burst: usize) -> Window {
        spent.sort_unstable();
        let limit = spent[spent.len() / 2] * INTERRUPTED;
        let whole = spent.partition_point(|&ticks| ticks <= limit);
        let sum: u64 = spent[..whole].iter().sum();
        Window { ticks: sum as f64 / (whole * burst) as f64, interrupted: 1.0 - whole as f64 / spent.len() as f64 }
    }
}

/// A line of the table.
#[derive(Debug)]
struct Row {
    name: String,
    flows: usize,
    /// One figure for each window.
    windows: Vec<Window>,
}

/// All figures.
#[derive(Debug)]
pub struct Sheet {
    rows: Vec<Row>,
    only: String,
    /// Whether figures are kept; while they are not, everything warms up.
    pub counting: bool,
}

impl Sheet {
    /// An empty one, for cases whose name contains `only`.
    pub fn new(only: &str) -> Sheet {
        Sheet { rows: Vec::new(), only: only.into(), counting: true }
    }

    /// Measures a window of a case, if the case is wanted.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn add(&mut self, name: &str, flows: usize, measure: impl FnOnce() -> Result<Window>) -> Result<()> {
        if !name.contains(&self.only) {
            return Ok(());
        }
        let window = measure()?;
        if self.counting {
            match self.rows.iter_mut().find(|row| row.name == name && row.flows == flows) {
                Some(row) => row.windows.push(window),
                None => self.rows.push(Row { name: name.into(), flows, windows: vec![window] }),
            }
        }
        Ok(())
    }

    /// The table in Markdown. `frequency`: ticks in a second.
    pub fn table(&self, frequency: f64) -> String {
        let mut text = String::from(
            "| path | flows | cycles, median | lowest | highest | ns | million/s | interrupted bursts |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for Row { name, flows, windows } in &self.rows {
            let mut ticks: Vec<f64> = windows.iter().map(|window| window.ticks).collect();
            ticks.sort_unstable_by(f64::total_cmp);
            let (Some(lowest), Some(highest)) = (ticks.first(), ticks.last()) else { continue };
            let median = ticks[ticks.len() / 2];
            let interrupted = windows.iter().map(|window| window.interrupted).sum::<f64>() / windows.len() as f64;
            let _ = writeln!(
                text,
                "| {name} | {} | {median:.0} | {lowest:.0} | {highest:.0} | {:.1} | {:.1} | {:.2} % |",
                grouped(*flows),
                median / frequency * 1e9,
                frequency / median / 1e6,
                interrupted * 100.0,
            );
        }
        text
    }
}

/// `1032192` as `1,032,192`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}
