//! Sessions that are all made, used and ended, over and over: what each costs, and that memory is afterwards what it was.

use anyhow::{Result, ensure};
use dataplane::packet::{Packet, PacketPool};
use dataplane::session::Arenas;
use dataplane::worker::BURST;
use perf::figures::Window;
use perf::frames::{GATEWAY, Traffic, Writer4};
use perf::machine;

use crate::rig::{Build, Rig, Supply, Way, write};
use crate::sessions::short_lived;

/// What the resident memory may grow by after the first turn, as a part of it: the kernel rounds.
const ROUNDING: f64 = 0.01;

/// A gateway without sessions, and the packets that make them.
#[derive(Debug)]
pub struct Cycles<P> {
    rig: Rig<P>,
    flows: usize,
    /// One for each flow: in order, and in random order.
    first: Traffic,
    again: Traffic,
    at_rest: [usize; 8],
    /// MiB resident after the first turn.
    resident: Option<u64>,
}

/// What one turn gave.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Ticks for each new session, hit and ended session.
    pub made: Window,
    pub hit: Window,
    pub ended: Window,
    /// The most sessions that one poll has ended.
    pub most_ended: u64,
    /// MiB resident when all is over.
    pub resident: u64,
    /// Segments that shards held while all sessions were there, by kind.
    pub held: [usize; Arenas::SEGMENTS.len()],
}

impl<P: Packet> Cycles<P> {
    /// With room for this many flows. The pool has twice as many ports, so that the table is what is full.
    pub fn new<L: PacketPool<Packet = P>>(flows: usize, supply: &mut Supply<L>) -> Result<Self> {
        let rig = Rig::nat44(&Build { pool: 2 * flows, opened: 0, ..Build::of(flows) }, supply)?;
        let writer = Writer4::new();
        let first = Traffic::of4(GATEWAY[0], (0..flows).map(|flow| writer.patch(short_lived(flow), 64)));
        let at_rest = rig.engine.arenas().free();
        Ok(Cycles { again: first.clone().shuffled(), first, rig, flows, at_rest, resident: None })
    }

    /// Makes all sessions, uses each once in random order, and lets all end. Fails if that leaves anything behind.
    pub fn turn<L: PacketPool<Packet = P>>(&mut self, supply: &mut Supply<L>) -> Result<Turn> {
        let made = Window::new(self.send(supply, true), BURST);
        let sessions = self.rig.sessions();
        ensure!(sessions == self.flows as u64, "{} sessions wanted: {}", self.flows, self.rig.state());
        let free = self.rig.engine.arenas().free();
        let held = std::array::from_fn(|kind| self.at_rest[kind] - free[kind]);
        let hit = Window::new(self.send(supply, false), BURST);
        ensure!(self.rig.sessions() == sessions, "hits made or ended sessions: {}", self.rig.state());
        let ended = self.rig.expire(0)?;
        let (free, resident) = (self.rig.engine.arenas().free(), machine::resident_mib());
        ensure!(free == self.at_rest, "memory is not flat: free was {:?}, and is {free:?}", self.at_rest);
        let first = *self.resident.get_or_insert(resident);
        let grown = resident as f64 > first as f64 * (1.0 + ROUNDING);
        ensure!(!grown, "memory is not flat: {first} MiB resident after the first turn, {resident} MiB now");
        let (most_ended, ended) = (ended.most, Window::of(ended.ticks as f64 / sessions as f64));
        Ok(Turn { made, hit, ended, most_ended, resident, held })
    }

    /// One packet of each flow, the first ones or others; how long each burst took.
    fn send<L: PacketPool<Packet = P>>(&mut self, supply: &mut Supply<L>, first: bool) -> Vec<u64> {
        let traffic = if first { &mut self.first } else { &mut self.again };
        traffic.rewind();
        let mut spent = Vec::with_capacity(self.flows.div_ceil(BURST));
        for from in (0..self.flows).step_by(BURST) {
            let count = BURST.min(self.flows - from);
            spent.push(self.rig.burst(Way::Out, count, supply, |packet| write(traffic, packet), |_| ()));
        }
        spent
    }
}

/// A flow's memory by part, in bytes: what shards held for so many flows.
pub fn by_part(held: &[usize], flows: usize) -> impl Iterator<Item = (&'static str, f64)> {
    Arenas::SEGMENTS
        .into_iter()
        .zip(held)
        .map(move |((part, bytes), &held)| (part, (bytes * held) as f64 / flows as f64))
}
