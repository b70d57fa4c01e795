//! Figures: what a window gave, and the cells that they go into.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stages::PREFIX;

/// A burst that took this many times its window's median was interrupted: by the kernel, or by the machine below it.
const INTERRUPTED: u64 = 8;

/// What one case's packets cost in one window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The figure: for the engine, ticks per packet, the mean over all bursts that nothing interrupted.
    pub figure: f64,
    /// The share of the bursts that were interrupted.
    pub interrupted: f64,
}

impl Window {
    /// From the ticks that each burst of `burst` packets took.
    #[must_use]
    pub fn new(mut spent: Vec<u64>, burst: usize) -> Window {
        spent.sort_unstable();
        let limit = spent.get(spent.len() / 2).map_or(0, |median| median * INTERRUPTED);
        let whole = spent.partition_point(|&ticks| ticks <= limit);
        let sum: u64 = spent[..whole].iter().sum();
        Window { figure: sum as f64 / (whole * burst) as f64, interrupted: 1.0 - whole as f64 / spent.len() as f64 }
    }

    /// A figure of which no part can have been left out.
    #[must_use]
    pub const fn of(figure: f64) -> Window {
        Window { figure, interrupted: 0.0 }
    }
}

/// What a cell is of: the key by which it is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// What was measured, as in the tables.
    pub name: String,
    /// Flows.
    pub flows: usize,
    /// Length of the frames: `64`, `IMIX`.
    pub frames: String,
}

impl Case {
    /// Frames of 64 bytes (IPv6: 78).
    #[must_use]
    pub fn new(name: &str, flows: usize) -> Self {
        Case { name: name.into(), flows, frames: "64".into() }
    }

    /// With other frames.
    #[must_use]
    pub fn frames(mut self, frames: String) -> Self {
        self.frames = frames;
        self
    }
}

/// A figure with its spread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// What it is of.
    #[serde(flatten)]
    pub case: Case,
    /// What it counts: `cycles/packet`, `Mpps`.
    pub unit: String,
    /// The median of the windows.
    pub median: f64,
    /// The lowest window.
    pub lowest: f64,
    /// The highest window.
    pub highest: f64,
    /// Every window, in the order in which they were measured.
    pub windows: Vec<f64>,
    /// The share of bursts that were interrupted, and left out.
    pub interrupted: f64,
    /// What stands beside the figure: `floor`, `instructions`, `opened`.
    #[serde(default)]
    pub beside: BTreeMap<String, f64>,
}

/// The cells of a run. Those that are not wanted are not measured.
#[derive(Debug)]
pub struct Sheet {
    cells: Vec<Cell>,
    only: String,
    exactly: bool,
    /// Whether figures are kept; while they are not, everything warms up.
    pub counting: bool,
}

impl Sheet {
    /// An empty one, for cases whose name contains `only`.
    #[must_use]
    pub fn new(only: &str) -> Sheet {
        Sheet { cells: Vec::new(), only: only.into(), exactly: false, counting: true }
    }

    /// An empty one, for cases of this very name.
    #[must_use]
    pub fn exactly(name: &str) -> Sheet {
        Sheet { exactly: true, ..Sheet::new(name) }
    }

    /// Whether a case of that name is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        if self.exactly { name == self.only } else { name.contains(&self.only) }
    }

    /// Measures a window of a case, if the case is wanted.
    ///
    /// # Errors
    /// Those of `measure`.
    pub fn add<E>(&mut self, case: &Case, unit: &str, measure: impl FnOnce() -> Result<Window, E>) -> Result<(), E> {
        if self.wants(&case.name) {
            let window = measure()?;
            if self.counting {
                self.put(case, unit, window);
            }
        }
        Ok(())
    }

    /// Adds a window to a case.
    pub fn put(&mut self, case: &Case, unit: &str, window: Window) {
        let at = self.cells.iter().position(|cell| cell.case == *case).unwrap_or(self.cells.len());
        if at == self.cells.len() {
            let (unit, beside, windows) = (unit.to_owned(), BTreeMap::new(), Vec::new());
            let [median, lowest, highest, interrupted] = [0.0; 4];
            self.cells.push(Cell { case: case.clone(), unit, median, lowest, highest, windows, interrupted, beside });
        }
        let cell = &mut self.cells[at];
        let before = cell.windows.len() as f64;
        cell.interrupted = (cell.interrupted * before + window.interrupted) / (before + 1.0);
        cell.windows.push(window.figure);
        (cell.lowest, cell.median, cell.highest) = spread(&cell.windows);
    }

    /// Puts a figure beside a case's, if there is such a case.
    pub fn beside(&mut self, case: &Case, what: &str, figure: f64) {
        if let Some(cell) = self.cells.iter_mut().find(|cell| cell.case == *case) {
            cell.beside.insert(what.into(), figure);
        }
    }

    /// The cells, in the order in which they were first measured.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// All cells that are wanted, one a line.
    #[must_use]
    pub fn list(&self, wanted: impl Fn(&Cell) -> bool) -> String {
        list(self.cells.iter().filter(|cell| wanted(cell)))
    }

    /// Gives them away.
    #[must_use]
    pub fn into_cells(self) -> Vec<Cell> {
        self.cells
    }
}

/// A figure with as many digits as say something.
#[must_use]
pub fn shown(figure: f64) -> String {
    match figure.abs() {
        it if it >= 100.0 || it == 0.0 => format!("{figure:.0}"),
        it if it >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

/// Cells, one a line. What stages have taken has a table of its own.
#[must_use]
pub fn list<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    let mut text = String::from(
        "| case | flows | frames | unit | median | lowest | highest | left out | beside |\n\
         |---|--:|--:|---|--:|--:|--:|--:|---|\n",
    );
    for Cell { case, unit, median, lowest, highest, interrupted, beside, .. } in cells {
        let others = beside.iter().filter(|(what, _)| !what.starts_with(PREFIX));
        let beside: Vec<String> = others.map(|(what, &figure)| format!("{what} {}", shown(figure))).collect();
        let [median, lowest, highest] = [*median, *lowest, *highest].map(shown);
        let left_out = if *interrupted > 0.0 { format!("{:.2} %", interrupted * 100.0) } else { String::new() };
        let (name, flows, frames, beside) = (&case.name, grouped(case.flows), &case.frames, beside.join(", "));
        text += &format!(
            "| {name} | {flows} | {frames} | {unit} | {median} | {lowest} | {highest} | {left_out} | {beside} |\n"
        );
    }
    text
}

/// Lowest, median and highest.
#[must_use]
pub fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

/// The figure that a share `q` of the sorted figures is not above (nearest rank).
#[must_use]
pub fn percentile(sorted: &[u64], q: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// `1032192` as `1,032,192`.
#[must_use]
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_bursts_are_left_out_and_told() {
        let mut spent = vec![320; 99];
        spent.push(1_000_000);
        let window = Window::new(spent, 32);
        assert!((window.figure - 10.0).abs() < 1e-9 && (window.interrupted - 0.01).abs() < 1e-9, "{window:?}");
    }

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(spread(&[3.0, 1.0, 2.0, 9.0, 4.0]), (1.0, 3.0, 9.0));
        let sorted: Vec<u64> = (1..=1000).collect();
        assert_eq!((percentile(&sorted, 0.5), percentile(&sorted, 0.999), percentile(&sorted, 1.0)), (500, 999, 1000));
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn a_case_that_is_not_wanted_is_not_measured() {
        let mut sheet = Sheet::new("NAT44");
        let measured = |it: &mut Sheet, name, figure| {
            it.add(&Case::new(name, 1), "cycles", || Ok::<_, ()>(Window::of(figure))).expect("it measures");
        };
        measured(&mut sheet, "IPv4 routed", 1.0);
        sheet.counting = false;
        measured(&mut sheet, "NAT44 in→out", 2.0);
        sheet.counting = true;
        [3.0, 7.0, 5.0].into_iter().for_each(|figure| measured(&mut sheet, "NAT44 in→out", figure));
        let [cell] = sheet.cells() else { panic!("one cell") };
        assert_eq!((cell.lowest, cell.median, cell.highest, cell.windows.len()), (3.0, 5.0, 7.0, 3));
    }
}
