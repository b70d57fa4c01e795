//! Where a worker's cycles go: counted by stage of a packet's way, with the cargo feature `stages`.
//!
//! The way is divided by seams. [`Stages::start`] stands where it begins; at each seam, [`Stages::end`] says which stage ends
//! there, and all that has passed since the seam before is that stage's, unless it was interrupted. Reading the counter at each seam costs some twenty
//! cycles, which are in the stages; so this is to see proportions, and a figure to quote is taken without it. Without the
//! feature there are no seams: `perf/README.md` says how that was made sure of.

use crate::counters::Counter;
use crate::dpdk::cycles;

/// Whether stages are counted in this build.
pub const COUNTED: bool = cfg!(feature = "stages");

/// What takes this many cycles, some hundred microseconds, was interrupted by the kernel, or by the machine below it: no stage
/// has taken it.
const INTERRUPTED: u64 = 1 << 18;

/// A part of a packet's way, in the order of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Taking packets from a device, if there are any.
    Receive,
    /// The burst is read: headers, checks, hashes; buckets of the index are prefetched, and the sessions of all but the last
    /// packets.
    Read,
    /// The other sessions are prefetched.
    Fetch,
    /// What is done once a burst: counts, timers' deadlines, the sampled checksum.
    Burst,
    /// The short way of packets that have a session, or may have.
    Session,
    /// The short way of packets that are only routed.
    Route,
    /// The short way of packets that have to take the long one after all, or go to another worker.
    Return,
    /// The long way: the packet is read again.
    Prepare,
    /// Packets that open a session from inside, until the session is made: look-up, rule, way out.
    Decide,
    /// Their mapping is found or made.
    Mapping,
    /// Their session is made.
    Open,
    /// The rest of the long way; of packets that open no session, all of it.
    Rest,
    /// Sessions and mappings that are past their time are ended.
    Expire,
    /// Giving packets to devices and other workers.
    Transmit,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 14] = [
        Stage::Receive,
        Stage::Read,
        Stage::Fetch,
        Stage::Burst,
        Stage::Session,
        Stage::Route,
        Stage::Return,
        Stage::Prepare,
        Stage::Decide,
        Stage::Mapping,
        Stage::Open,
        Stage::Rest,
        Stage::Expire,
        Stage::Transmit,
    ];

    /// As in tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Read => "read",
            Stage::Fetch => "fetch",
            Stage::Burst => "burst",
            Stage::Session => "session",
            Stage::Route => "route",
            Stage::Return => "return",
            Stage::Prepare => "prepare",
            Stage::Decide => "decide",
            Stage::Mapping => "mapping",
            Stage::Open => "open",
            Stage::Rest => "rest",
            Stage::Expire => "expire",
            Stage::Transmit => "transmit",
        }
    }
}

/// What one stage has taken.
#[derive(Debug, Default)]
pub struct Total {
    /// Cycles of the counter that ticks evenly.
    pub cycles: Counter,
    /// Times that the stage has come to its end.
    pub calls: Counter,
    /// Packets that have come to its end.
    pub packets: Counter,
}

/// What the stages of one worker have taken.
#[derive(Debug, Default)]
pub struct Stages {
    /// When the last seam was passed.
    since: Counter,
    /// By stage. None if they are not counted.
    totals: [Total; if COUNTED { Stage::ALL.len() } else { 0 }],
}

impl Stages {
    /// A packet's way begins here, or goes on after something that is no part of it.
    #[inline(always)]
    pub fn start(&self) {
        if COUNTED {
            self.since.add(cycles().wrapping_sub(self.since.get()));
        }
    }

    /// A stage ends here, for so many packets.
    #[inline(always)]
    pub fn end(&self, stage: Stage, packets: usize) {
        if let Some(total) = self.totals.get(stage as usize) {
            let since = self.since.get();
            self.start();
            let spent = self.since.get().wrapping_sub(since);
            total.cycles.add(if spent < INTERRUPTED { spent } else { 0 });
            total.calls.add(1);
            total.packets.add(packets as u64);
        }
    }

    /// By stage; none if they are not counted.
    pub fn totals(&self) -> impl Iterator<Item = (Stage, &Total)> {
        Stage::ALL.into_iter().zip(&self.totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_place_and_what_passed_is_its_own() {
        let stages = Stages::default();
        assert!(Stage::ALL.iter().enumerate().all(|(place, &stage)| stage as usize == place));
        stages.start();
        stages.end(Stage::Read, 32);
        stages.start();
        stages.end(Stage::Fetch, 31);
        let totals: Vec<_> = stages.totals().map(|(stage, it)| (stage, it.calls.get(), it.packets.get())).collect();
        let expected = |stage| match stage {
            Stage::Read => (stage, 1, 32),
            Stage::Fetch => (stage, 1, 31),
            _ => (stage, 0, 0),
        };
        assert_eq!(totals, Stage::ALL.map(expected)[..if COUNTED { Stage::ALL.len() } else { 0 }]);
        let read: u64 = stages.totals().take(2).map(|(_, it)| it.cycles.get()).sum();
        let unset = stages.totals().filter(|(_, it)| it.calls.get() == 0).all(|(_, it)| it.cycles.get() == 0);
        assert!(unset && read < 2 * INTERRUPTED, "{read} cycles");
    }
}
