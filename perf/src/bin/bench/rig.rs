//! A gateway on a bench: one engine, all neighbours known, packets in rotation.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::engine::{Engine, Output, Received};
use dataplane::packet::heap::HEADROOM;
use dataplane::packet::{Packet, PacketPool};
use dataplane::plan::{Limits, Plan, PortId, Spec};
use dataplane::pool::Leases;
use dataplane::time::Time;
use dataplane::translate::nptv6::Nptv6;
use dataplane::worker::BURST;
use perf::clock;
use perf::figures::Window;
use perf::frames::{
    End, GATEWAY, INSIDE, Lengths, REMOTE, Traffic, Writer4, ends4, flow_ends, flow_ends6, permutation,
};
use perf::scene::{
    EMBEDDED, HOLD_DOWN, MAPPED, NETMAP, NPTV6, SHORT, Stateless, neighbours, router, translate, translate_stateless,
};

/// Packets in rotation: a burst's buffers come back after 255 others, as from a receive ring that is kept full.
pub const ROTATION: usize = 8192;
/// From one burst to the next: 32 packets of 100 ns each.
pub const STEP: Duration = Duration::from_nanos(3200);

/// Ticks after which what was to end has ended, for certain.
pub const PATIENCE: usize = 100_000_000;

/// The way of a case's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In at the inside port.
    Out,
    /// In at the outside port.
    In,
}

/// When the headers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Just before the burst, as a driver's copy would.
    Warm,
    /// A whole rotation before.
    Cold,
}

/// What the end of sessions took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    /// In ticks.
    pub ticks: u64,
    /// The most that one poll has ended.
    pub most: u64,
}

/// A NAT44 gateway to be built.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Sessions that its table has room for.
    pub capacity: usize,
    /// Mappings that its pool has addresses for, by CSIT's scheme.
    pub pool: usize,
    /// Flows of these that are opened.
    pub opened: usize,
    /// Flows of one mapping.
    pub remotes: usize,
    /// Lengths of the frames.
    pub lengths: Lengths,
}

impl Build {
    /// All flows opened, of one mapping each, frames of 64 bytes.
    pub fn of(flows: usize) -> Self {
        Build { capacity: flows, pool: flows, opened: flows, remotes: 1, lengths: Lengths::Fixed(64) }
    }
}

/// The packets in rotation, and where the engine takes its own from.
#[derive(Debug)]
pub struct Supply<L: PacketPool> {
    pool: L,
    packets: VecDeque<L::Packet>,
}

impl<L: PacketPool> Supply<L> {
    /// Takes the rotation out of the pool.
    pub fn new(mut pool: L) -> Result<Self> {
        let packets =
            (0..ROTATION).map(|_| pool.alloc().context("the pool has too few packets")).collect::<Result<_>>()?;
        Ok(Supply { pool, packets })
    }
}

/// An engine, with its flows ready to be replayed.
#[derive(Debug)]
pub struct Rig<P> {
    pub engine: Engine<P>,
    out: Output<P>,
    pub now: Time,
    outbound: Traffic,
    inbound: Traffic,
    /// The flows that are not opened, in random order.
    pub rest: Vec<usize>,
    /// The share of the flows to be opened that were.
    pub opened: f64,
}

impl<P: Packet> Rig<P> {
    /// A NAT44 gateway with its flows opened, in random order if they do not fill it.
    pub fn nat44<L: PacketPool<Packet = P>>(build: &Build, supply: &mut Supply<L>) -> Result<Rig<P>> {
        let &Build { capacity, pool, opened, remotes, lengths } = build;
        let mut spec = router();
        let sessions = u32::try_from(capacity)?;
        spec.limits = Limits { sessions, mappings: u32::try_from(capacity.div_ceil(remotes))?, ..spec.limits };
        translate(&mut spec, u32::try_from(pool.div_ceil(remotes))?, INSIDE.into(), 8);
        let mut rig = Rig::new(spec, &mut supply.pool)?;
        let order = if opened < capacity { permutation(capacity, 2) } else { (0..capacity).collect() };
        let (flows, rest) = order.split_at(opened);
        let writer = Writer4::new();
        let (mut requests, mut replies) = (Vec::with_capacity(opened), Vec::with_capacity(opened));
        for some in flows.chunks(BURST) {
            let patches = some.iter().map(|&flow| writer.patch(flow_ends(flow, remotes), lengths.of(flow)));
            let mut frames = Traffic::of4(GATEWAY[0], patches);
            rig.burst(
                Way::Out,
                some.len(),
                supply,
                |packet| write(&mut frames, packet),
                |frame| {
                    let (external, remote) = ends4(frame);
                    let length = u16::try_from(frame.len() + 4).unwrap_or(u16::MAX);
                    replies.push(writer.patch((remote, external), length));
                    let flow = perf::frames::flow_of(remote, remotes).unwrap_or(0);
                    requests.push(writer.patch((flow_ends(flow, remotes).0, remote), length));
                },
            );
        }
        rig.opened = if opened > 0 { replies.len() as f64 / opened as f64 } else { 1.0 };
        let full = rig.opened > 0.9 && rig.sessions() == replies.len() as u64;
        ensure!(full, "{opened} sessions wanted, {} opened: {}", replies.len(), rig.state());
        rig.rest = rest.to_vec();
        rig.outbound = Traffic::of4(GATEWAY[0], requests.into_iter()).shuffled();
        rig.inbound = Traffic::of4(GATEWAY[1], replies.into_iter()).shuffled();
        Ok(rig)
    }

    /// A NAT44 gateway whose table is full, though its pool is not.
    pub fn full<L: PacketPool<Packet = P>>(flows: usize, supply: &mut Supply<L>) -> Result<Rig<P>> {
        let rig = Rig::nat44(&Build { pool: 2 * flows, ..Build::of(flows) }, supply)?;
        ensure!(rig.sessions() == flows as u64, "{flows} sessions wanted: {}", rig.state());
        Ok(rig)
    }

    /// A router and this many flows: of IPv4 outward, of IPv6 inward. It translates nothing; it may have a rule that
    /// translates others.
    pub fn router<L: PacketPool<Packet = P>>(flows: usize, configured: bool, supply: &mut Supply<L>) -> Result<Rig<P>> {
        let mut spec = router();
        if configured {
            translate(&mut spec, 64, IpAddr::from([10, 255, 0, 0]), 16);
            for kind in [Stateless::Nptv6, Stateless::Netmap, Stateless::Siit] {
                translate_stateless(&mut spec, kind, false);
            }
        }
        let mut rig = Rig::new(spec, &mut supply.pool)?;
        let writer = Writer4::new();
        let outbound = (0..flows).map(|flow| writer.patch(flow_ends(flow, 1), 64));
        rig.outbound = Traffic::of4(GATEWAY[0], outbound).shuffled();
        let inbound = (0..u16::try_from(flows)?).map(flow_ends6).map(|(inside, remote)| (remote, inside));
        rig.inbound = Traffic::of6(GATEWAY[1], inbound, 78).shuffled();
        Ok(rig)
    }

    /// A stateless translator and this many flows, both ways.
    pub fn stateless<L: PacketPool<Packet = P>>(
        kind: Stateless,
        flows: usize,
        supply: &mut Supply<L>,
    ) -> Result<Rig<P>> {
        let mut spec = router();
        translate_stateless(&mut spec, kind, true);
        let mut rig = Rig::new(spec, &mut supply.pool)?;
        let writer = Writer4::new();
        // Of a table each flow has a row of its own.
        let ends = |flow: usize| match (kind, flow_ends(flow, 1)) {
            (Stateless::Eam, (inside, (_, port))) => {
                let remote = REMOTE.to_bits() + u32::try_from(flow).unwrap_or(0);
                (inside, (Ipv4Addr::from_bits(remote), port))
            }
            (_, ends) => ends,
        };
        let four = |ends: fn((End, End)) -> (End, End)| (0..flows).map(move |flow| ends(flow_ends(flow, 1)));
        let patches = |ends: Vec<(End, End)>| ends.into_iter().map(move |ends| writer.patch(ends, 64));
        let six = |address: u128| Ipv6Addr::from_bits(address);
        let embedded = |address: Ipv4Addr| six(EMBEDDED | u128::from(address.to_bits()));
        (rig.outbound, rig.inbound) = match kind {
            Stateless::Nptv6 => {
                let [inside, outside] = NPTV6.map(|prefix| (prefix, 48));
                let map = Nptv6::new(inside, outside, false).context("two prefixes")?;
                let flows: Vec<_> = (0..u16::try_from(flows)?).map(flow_ends6).collect();
                let back = flows.iter().map(|(inside, remote)| {
                    (*remote, six(map.outbound(inside.to_bits()).expect("a subnet that is mapped")))
                });
                let back: Vec<_> = back.collect();
                (Traffic::of6(GATEWAY[0], flows.into_iter(), 78), Traffic::of6(GATEWAY[1], back.into_iter(), 78))
            }
            Stateless::Netmap => {
                let outside = |((inside, port), remote): (End, End)| {
                    (remote, (Ipv4Addr::from_bits(inside.to_bits() + NETMAP), port))
                };
                let back = four(outside).collect();
                (
                    Traffic::of4(GATEWAY[0], patches(four(|ends| ends).collect())),
                    Traffic::of4(GATEWAY[1], patches(back)),
                )
            }
            Stateless::Siit | Stateless::Eam => {
                let out = (0..flows).map(ends).collect();
                let back: Vec<_> = (0..flows)
                    .map(ends)
                    .map(|((inside, _), (remote, _))| {
                        let mapped = six(MAPPED + u128::from(remote.to_bits() - REMOTE.to_bits()));
                        (if kind == Stateless::Eam { mapped } else { embedded(remote) }, embedded(inside))
                    })
                    .collect();
                (Traffic::of4(GATEWAY[0], patches(out)), Traffic::of6(GATEWAY[1], back.into_iter(), 78))
            }
        };
        (rig.outbound, rig.inbound) = (rig.outbound.shuffled(), rig.inbound.shuffled());
        Ok(rig)
    }

    fn new<L: PacketPool<Packet = P>>(spec: Spec, pool: &mut L) -> Result<Rig<P>> {
        let now = Time::from_secs(1000);
        let plan = Arc::new(Plan::compile(spec)?);
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let mut out = Output::new(&plan.spec.limits);
        let mut engine = Engine::new(plan, leases, counters, now);
        for neighbour in neighbours() {
            engine.apply(neighbour, now, pool, &mut out);
        }
        out.events.clear();
        let none = || Traffic::of4(GATEWAY[0], std::iter::empty());
        Ok(Rig { engine, out, now, outbound: none(), inbound: none(), rest: Vec::new(), opened: 1.0 })
    }

    /// Measures so many bursts.
    pub fn window<L: PacketPool<Packet = P>>(
        &mut self,
        way: Way,
        headers: Headers,
        bursts: usize,
        supply: &mut Supply<L>,
    ) -> Result<Window> {
        let mut spent = Vec::with_capacity(bursts);
        let before = self.forwarded();
        while spent.len() < bursts {
            match headers {
                Headers::Warm => spent.push(self.replay(way, supply)),
                Headers::Cold => {
                    supply.packets.iter_mut().for_each(|packet| write(self.traffic(way), packet));
                    for _ in 0..ROTATION / BURST {
                        spent.push(self.burst(way, BURST, supply, |_| (), |_| ()));
                    }
                }
            }
        }
        let sent = (spent.len() * BURST) as u64;
        ensure!(self.forwarded() - before == sent, "{sent} packets sent, and not all forwarded: {}", self.state());
        Ok(Window::new(spent, BURST))
    }

    /// Sends the next burst of opened flows. Returns how long the engine took.
    pub fn replay<L: PacketPool<Packet = P>>(&mut self, way: Way, supply: &mut Supply<L>) -> u64 {
        let mut traffic = std::mem::replace(self.traffic(way), Traffic::of4(GATEWAY[0], std::iter::empty()));
        let spent = self.burst(way, BURST, supply, |packet| write(&mut traffic, packet), |_| ());
        *self.traffic(way) = traffic;
        spent
    }

    /// What a tick costs, as each poll makes one: per tick.
    pub fn ticks(&mut self, count: usize) -> Window {
        Window::new((0..count).map(|_| self.tick().0).collect(), 1)
    }

    /// One tick: what it cost, and whether there is more to be done at once.
    pub fn tick(&mut self) -> (u64, bool) {
        self.now = self.now + STEP;
        let start = clock::ticks();
        let more = self.engine.tick(self.now);
        (clock::ticks() - start, more)
    }

    /// Lets time pass until only so many sessions are left, and no mapping is held down.
    pub fn expire(&mut self, stay: u64) -> Result<Ended> {
        let mut ended = Ended::default();
        for wait in [SHORT, HOLD_DOWN] {
            self.now = self.now + wait + HOLD_DOWN;
            let mut before = self.sessions();
            for patience in 0.. {
                let (ticks, more) = self.tick();
                let left = self.sessions();
                ended.ticks += ticks;
                ended.most = ended.most.max(before - left);
                before = left;
                // All shards have been looked at after 64 ticks.
                if !more && patience > 64 {
                    break;
                }
                ensure!(patience < PATIENCE, "sessions do not end: {}", self.state());
            }
        }
        let held = self.engine.counters().mappings_held.get();
        ensure!(self.sessions() == stay && held == 0, "{stay} sessions should stay: {}", self.state());
        Ok(ended)
    }

    /// Sends one burst through the engine and takes the packets back. Returns how long the engine took. `fill` writes each
    /// frame, `seen` gets each that leaves.
    pub fn burst<L: PacketPool<Packet = P>>(
        &mut self,
        way: Way,
        count: usize,
        supply: &mut Supply<L>,
        mut fill: impl FnMut(&mut P),
        mut seen: impl FnMut(&[u8]),
    ) -> u64 {
        let port = PortId(u16::from(way == Way::In));
        let mut burst = Received::new();
        for mut packet in supply.packets.drain(..count) {
            fill(&mut packet);
            burst.push((port, packet));
        }
        self.now = self.now + STEP;
        let start = clock::ticks();
        measured(&mut self.engine, &mut burst, self.now, &mut supply.pool, &mut self.out);
        let spent = clock::ticks() - start;
        supply.packets.extend(self.out.transmit.drain(..).map(|(_, packet)| {
            seen(packet.data());
            packet
        }));
        supply.packets.extend(self.out.dropped.drain(..));
        self.out.events.clear();
        spent
    }

    fn traffic(&mut self, way: Way) -> &mut Traffic {
        match way {
            Way::Out => &mut self.outbound,
            Way::In => &mut self.inbound,
        }
    }

    /// Sessions now.
    pub fn sessions(&self) -> u64 {
        self.engine.counters().sessions.iter().map(Counter::get).sum()
    }

    /// Packets forwarded, translated or not.
    fn forwarded(&self) -> u64 {
        let counters = self.engine.counters();
        let stateless = counters.exchanged.as_flattened().iter().chain(&counters.crossed);
        counters.nat44.iter().chain(&counters.routed).chain(stateless).map(Counter::get).sum()
    }

    /// What has been dropped, by name: for error messages.
    pub fn state(&self) -> String {
        let counters = self.engine.counters();
        let drops = Drop::ALL.iter().map(|&reason| (reason.name(), counters.drops(reason)));
        format!("{} sessions, dropped {:?}", self.sessions(), drops.filter(|(_, n)| *n > 0).collect::<Vec<_>>())
    }
}

/// All that is measured. By this name, callgrind finds it.
#[inline(never)]
fn measured<L: PacketPool>(
    engine: &mut Engine<L::Packet>,
    burst: &mut Received<L::Packet>,
    now: Time,
    pool: &mut L,
    out: &mut Output<L::Packet>,
) {
    engine.process(burst, now, pool, out);
}

/// Writes the next frame into a packet of whatever length, with the room before it that a device leaves: translation to IPv6 has
/// taken some of it, and that to IPv4 given some.
#[inline]
pub fn write<P: Packet>(traffic: &mut Traffic, packet: &mut P) {
    packet.truncate(0);
    let room = packet.headroom();
    let moved = if room > HEADROOM {
        packet.prepend(room - HEADROOM)
    } else {
        packet.append(HEADROOM - room) && packet.trim_front(HEADROOM - room)
    };
    assert!(moved, "a buffer is too small");
    packet.truncate(0);
    traffic.write(|length| {
        assert!(packet.append(length), "a buffer is too small");
        packet.data_mut()
    });
}

/// A frame of an IPv4 flow from its inside end, into a packet of whatever length.
pub fn write4<P: Packet>(ends: (End, End), packet: &mut P) {
    write(&mut Traffic::of4(GATEWAY[0], std::iter::once(Writer4::new().patch(ends, 64))), packet);
}
