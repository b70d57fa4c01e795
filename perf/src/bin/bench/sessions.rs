//! New sessions: what making and ending them costs, and what that does to the packets of others.

use anyhow::{Result, ensure};
use dataplane::counters::Drop;
use dataplane::packet::{Packet, PacketPool};
use dataplane::worker::BURST;
use perf::clock;
use perf::figures::{Window, percentile};
use perf::frames::{End, flow_ends};
use perf::scene::{HOLD_DOWN, SHORT, SHORT_LIVED};
use perf::stages::Spent;

use crate::rig::{Build, PATIENCE, Rig, Supply, Way, write4};

/// New flows of a window, in all its rounds.
const FLOWS: usize = 20_480;
/// New flows of a round: this part of the capacity, at most so many, and in whole bursts.
const PART: usize = 50;
const ROUND_MAX: usize = 32_768;

/// A gateway whose table and pool are filled in part, and flows that are new to it.
#[derive(Debug)]
pub struct Filled<P> {
    rig: Rig<P>,
    capacity: usize,
    next: usize,
}

/// What a window gave.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Ticks per new flow.
    pub opening: Window,
    /// Ticks per ended session: its timer, its end, the end of its mapping after the hold-down.
    pub expiry: Window,
    /// The share of the flows that got a session.
    pub share: f64,
    /// Where the cycles have gone.
    pub spent: Spent,
}

/// How long bursts took, in ticks: half of them at most this long, and so on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latency {
    fn of(mut spent: Vec<u64>) -> Self {
        spent.sort_unstable();
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|q| percentile(&spent, q));
        Latency { p50, p99, p999, max }
    }
}

/// The ends of a flow that is new, and will not stay.
pub fn short_lived(flow: usize) -> (End, End) {
    let (inside, remote) = flow_ends(flow, 1);
    (inside, (remote.0, SHORT_LIVED))
}

impl<P: Packet> Filled<P> {
    /// Fills table and pool to this percentage.
    pub fn new<L: PacketPool<Packet = P>>(capacity: usize, percent: usize, supply: &mut Supply<L>) -> Result<Self> {
        let build = Build { opened: capacity / 100 * percent, ..Build::of(capacity) };
        Ok(Filled { rig: Rig::nat44(&build, supply)?, capacity, next: 0 })
    }

    /// Makes new sessions and lets them end, in rounds.
    pub fn window<L: PacketPool<Packet = P>>(&mut self, flows: usize, supply: &mut Supply<L>) -> Result<Opened> {
        let round = (self.capacity / PART).min(ROUND_MAX).min(flows).max(BURST) / BURST * BURST;
        let (mut spent, mut ended, mut made, mut offered) = (Vec::new(), 0, 0, 0);
        let stay = self.rig.sessions();
        let before = Spent::now(self.rig.engine.counters());
        while offered < flows.min(FLOWS.max(round)) {
            self.open(round, supply, |ticks| spent.push(ticks));
            (made, offered) = (made + self.rig.sessions() - stay, offered + round);
            ended += self.rig.expire(stay)?.ticks;
        }
        ensure!(made > 0, "no new session: {}", self.rig.state());
        let expiry = Window::of(ended as f64 / made as f64);
        let stages = Spent::now(self.rig.engine.counters()).since(&before);
        let share = made as f64 / offered as f64;
        Ok(Opened { opening: Window::new(spent, BURST), expiry, share, spent: stages })
    }

    /// Offers so many new flows.
    fn open<L: PacketPool<Packet = P>>(&mut self, flows: usize, supply: &mut Supply<L>, mut spent: impl FnMut(u64)) {
        for _ in 0..flows / BURST {
            let (rest, next) = (std::mem::take(&mut self.rig.rest), &mut self.next);
            let fill = |packet: &mut P| {
                write4(short_lived(rest[*next]), packet);
                *next = (*next + 1) % rest.len();
            };
            spent(self.rig.burst(Way::Out, BURST, supply, fill, |_| ()));
            self.rig.rest = rest;
        }
    }

    /// How long polls of a burst and a tick take: `bursts` of them while nothing ends, and then those during which all
    /// short-lived sessions, as many as fit the table, end at once.
    pub fn latency<L: PacketPool<Packet = P>>(
        &mut self,
        bursts: usize,
        supply: &mut Supply<L>,
    ) -> Result<[Latency; 2]> {
        let stay = self.rig.sessions();
        let mut poll = |rig: &mut Rig<P>| rig.replay(Way::Out, supply) + rig.tick().0;
        let quiet: Vec<u64> = (0..bursts).map(|_| poll(&mut self.rig)).collect();
        self.open(self.rig.rest.len() / 10 * 9 / BURST * BURST, supply, |_| ());
        let more = self.rig.sessions() - stay;
        self.rig.now = self.rig.now + SHORT + HOLD_DOWN;
        let mut poll = |rig: &mut Rig<P>| rig.replay(Way::Out, supply) + rig.tick().0;
        let mut busy = Vec::new();
        while self.rig.sessions() > stay {
            busy.push(poll(&mut self.rig));
            ensure!(busy.len() < PATIENCE, "sessions do not end: {}", self.rig.state());
        }
        ensure!(more > 0, "no session ended: {}", self.rig.state());
        self.rig.expire(stay)?;
        Ok([Latency::of(quiet), Latency::of(busy)])
    }
}

/// How long an empty loop takes that should take `ticks`: what the machine itself adds.
pub fn empty_loop(ticks: u64, count: usize) -> Latency {
    let turn = || {
        let start = clock::ticks();
        while clock::ticks() - start < ticks {}
        clock::ticks() - start
    };
    Latency::of((0..count).map(|_| turn()).collect())
}

/// A gateway whose table is full.
#[derive(Debug)]
pub struct Full<P> {
    rig: Rig<P>,
    next: usize,
}

impl<P: Packet> Full<P> {
    /// One with this many sessions.
    pub fn new<L: PacketPool<Packet = P>>(flows: usize, supply: &mut Supply<L>) -> Result<Self> {
        Ok(Full { rig: Rig::full(flows, supply)?, next: flows })
    }

    /// So many bursts of established flows: alone, or with a burst of new flows between two of them, all to be refused.
    /// Gives ticks per established and per refused packet.
    pub fn window<L: PacketPool<Packet = P>>(
        &mut self,
        flood: bool,
        bursts: usize,
        supply: &mut Supply<L>,
    ) -> Result<(Window, Window)> {
        let (mut established, mut refused) = (Vec::with_capacity(bursts), Vec::with_capacity(bursts));
        let drops = |rig: &Rig<P>| Drop::ALL.iter().map(|&it| rig.engine.counters().drops(it)).sum::<u64>();
        let before = drops(&self.rig);
        for _ in 0..bursts {
            if flood {
                let next = &mut self.next;
                let fill = |packet: &mut P| {
                    write4(short_lived(*next), packet);
                    *next += 1;
                };
                refused.push(self.rig.burst(Way::Out, BURST, supply, fill, |_| ()));
            }
            established.push(self.rig.replay(Way::Out, supply));
        }
        let (dropped, wanted) = (drops(&self.rig) - before, (refused.len() * BURST) as u64);
        ensure!(dropped == wanted, "{wanted} new flows to be refused, {dropped} were: {}", self.rig.state());
        Ok((Window::new(established, BURST), Window::new(refused, BURST)))
    }
}
