//! What the stages of a packet's way have taken, in builds that count them (`dataplane/stages`).

use std::ops::AddAssign;

use dataplane::counters::Counters;
use dataplane::stages::{COUNTED, Stage};

use crate::figures::{Case, Sheet};

/// How figures of a stage are named beside a case's.
pub const PREFIX: &str = "stage ";

/// Cycles and packets by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent([[u64; 2]; Stage::ALL.len()]);

impl Spent {
    /// Since the worker began.
    #[must_use]
    pub fn now(counters: &Counters) -> Spent {
        let mut spent = Spent::default();
        for ((_, total), place) in counters.stages.totals().zip(&mut spent.0) {
            *place = [total.cycles.get(), total.packets.get()];
        }
        spent
    }

    /// Since an earlier time.
    #[must_use]
    pub fn since(&self, earlier: &Spent) -> Spent {
        Spent(std::array::from_fn(|stage| [0, 1].map(|it| self.0[stage][it] - earlier.0[stage][it])))
    }

    /// Puts beside a case's figure what each of these stages has taken, in cycles for each packet that was read.
    pub fn put(&self, sheet: &mut Sheet, case: &Case, wanted: impl Fn(Stage) -> bool) {
        let [_, packets] = self.0[Stage::Read as usize];
        for (stage, [cycles, _]) in Stage::ALL.into_iter().zip(self.0).filter(|(stage, it)| wanted(*stage) && it[0] > 0)
        {
            sheet.beside(case, &format!("{PREFIX}{}", stage.name()), cycles as f64 / packets.max(1) as f64);
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.0.iter_mut().flatten().zip(other.0.iter().flatten()).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// What stands beside the figures of a build that counts stages.
#[must_use]
pub fn note() -> Option<String> {
    COUNTED.then(|| {
        let stages = dataplane::stages::Stages::default();
        let start = crate::clock::ticks();
        (0..1000).for_each(|_| stages.end(Stage::Read, 1));
        let seam = (crate::clock::ticks() - start) as f64 / 1000.0;
        format!("counted by stage: each of a packet's seams costs some {seam:.0} cycles, which are in all figures")
    })
}
