//! A gateway on a bench: one engine, all neighbours known, packets in rotation.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::counters::{Counters, Drop};
use dataplane::engine::{Engine, Output, Received};
use dataplane::message::{NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{Packet, PacketPool};
use dataplane::plan::{
    FilteringSet, InterfaceId, InterfaceSpec, IpPrefix, Limits, MacAddr, MssClamp, Nat44Rule, NextHop, Plan, PoolId,
    PoolSpec, Pooling, PortId, PortSpec, RouteSpec, Spec, ZoneId,
};
use dataplane::pool::Leases;
use dataplane::time::Time;
use dataplane::worker::BURST;

use crate::clock;
use crate::report::Window;
use crate::traffic::{End, PEER, Traffic, ends4, udp4, udp6};

/// Packets in rotation: a burst's buffers come back after 255 others, as from a receive ring that is kept full.
pub const ROTATION: usize = 8192;
/// Flows of one inside host, as in CSIT's tests.
pub const PORTS_PER_HOST: usize = 63;
/// The gateway's Ethernet addresses: inside, outside.
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// The first inside host, the first remote one, the first external address.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
const REMOTE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);
/// Flows for each external address of the pool: half of its ports, since the hosts spread over addresses and shards by
/// chance.
const FLOWS_PER_EXTERNAL: usize = 64_512 / 2;
/// From one burst to the next: 32 packets of 100 ns each.
const STEP: Duration = Duration::from_nanos(3200);

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

/// An engine, with its flows ready to be replayed.
#[derive(Debug)]
pub struct Rig<P> {
    engine: Engine<P>,
    out: Output<P>,
    now: Time,
    outbound: Traffic,
    inbound: Traffic,
    /// What the last tenth of the sessions cost to make.
    pub opening: Option<Window>,
}

impl<P: Packet> Rig<P> {
    /// A NAT44 gateway with this many sessions, of one mapping each.
    pub fn nat44<L: PacketPool<Packet = P>>(flows: usize, pool: &mut L, packets: &mut VecDeque<P>) -> Result<Rig<P>> {
        let mut spec = spec(u32::try_from(flows + flows / 9 + 64)?);
        let externals = u32::try_from(flows.div_ceil(FLOWS_PER_EXTERNAL))?;
        let last = Ipv4Addr::from_bits(EXTERNAL.to_bits() + externals - 1);
        spec.pools = vec![PoolSpec {
            name: "public".into(),
            addresses: vec![EXTERNAL..=last],
            ports: 1..=65_535,
            proxy_arp: false,
            answer_echo: false,
        }];
        spec.nat44 = vec![Nat44Rule {
            name: "subscribers".into(),
            from: ZoneId(0),
            to: ZoneId(1),
            source: vec![IpPrefix { address: INSIDE.into(), len: 8 }],
            destination: Vec::new(),
            pool: PoolId(0),
            filtering: FilteringSet::default(),
            pooling: Pooling::Paired,
            port_preservation: true,
            port_parity: true,
            inbound_refresh: true,
            mid_stream: dataplane::plan::MidStream::Drop,
        }];
        let outbound = Traffic::of4((0..flows).map(|flow| {
            let (inside, remote) = flow_ends(flow);
            udp4(MACS[0], inside, remote)
        }));
        let mut rig = Rig::new(spec, outbound, pool)?;
        let mut replies = Vec::with_capacity(flows);
        let mut spent = Vec::new();
        for first in (0..flows).step_by(BURST) {
            let count = BURST.min(flows - first);
            let ticks = rig.burst(Way::Out, count, true, pool, packets, |frame| {
                let (external, remote) = ends4(frame);
                replies.push(udp4(MACS[1], remote, external));
            });
            if count == BURST && first >= flows / 10 * 9 {
                spent.push(ticks);
            }
        }
        rig.opening = (spent.len() > 100).then(|| Window::new(spent, BURST));
        let sessions: u64 = rig.engine.counters().sessions.iter().map(dataplane::counters::Counter::get).sum();
        ensure!(sessions == flows as u64 && replies.len() == flows, "{flows} sessions wanted: {}", rig.state());
        rig.inbound = Traffic::of4(replies.into_iter()).shuffled();
        rig.outbound = rig.outbound.shuffled();
        Ok(rig)
    }

    /// A router without any translation, and this many flows: of IPv4 outward, of IPv6 inward.
    pub fn router<L: PacketPool<Packet = P>>(flows: u16, pool: &mut L) -> Result<Rig<P>> {
        let outbound = Traffic::of4((0..flows).map(|flow| {
            let (inside, remote) = flow_ends(usize::from(flow));
            udp4(MACS[0], inside, remote)
        }));
        let mut rig = Rig::new(spec(64), outbound.shuffled(), pool)?;
        let address = |net, host| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host);
        let inbound = (0..flows).map(|flow| udp6(MACS[1], address(0xbbbb, flow), address(0xaaaa, flow)));
        rig.inbound = Traffic::of6(inbound).shuffled();
        Ok(rig)
    }

    fn new<L: PacketPool<Packet = P>>(spec: Spec, outbound: Traffic, pool: &mut L) -> Result<Rig<P>> {
        let now = Time::from_secs(1000);
        let plan = Arc::new(Plan::compile(spec)?);
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let mut out = Output::new(&plan.spec.limits);
        let mut engine = Engine::new(plan, leases, counters, now);
        for (interface, address) in ROUTERS {
            let state = NeighbourState::Reachable(PEER);
            let update = ToWorker::Neighbour(NeighbourUpdate { interface, address, state });
            engine.apply(update, now, pool, &mut out);
        }
        out.events.clear();
        let inbound = Traffic::of4(std::iter::empty());
        Ok(Rig { engine, out, now, outbound, inbound, opening: None })
    }

    /// Measures so many bursts.
    pub fn window<L: PacketPool<Packet = P>>(
        &mut self,
        way: Way,
        headers: Headers,
        bursts: usize,
        pool: &mut L,
        packets: &mut VecDeque<P>,
    ) -> Result<Window> {
        let mut spent = Vec::with_capacity(bursts);
        let before = self.forwarded();
        while spent.len() < bursts {
            match headers {
                Headers::Warm => spent.push(self.burst(way, BURST, true, pool, packets, |_| ())),
                Headers::Cold => {
                    let traffic = self.traffic(way);
                    packets.iter_mut().for_each(|packet| write(traffic, packet));
                    for _ in 0..ROTATION / BURST {
                        spent.push(self.burst(way, BURST, false, pool, packets, |_| ()));
                    }
                }
            }
        }
        let sent = (spent.len() * BURST) as u64;
        ensure!(self.forwarded() - before == sent, "{sent} packets sent, and not all forwarded: {}", self.state());
        Ok(Window::new(spent, BURST))
    }

    /// What a tick costs, as each poll makes one: per tick.
    pub fn ticks(&mut self, count: usize) -> Window {
        let spent = (0..count).map(|_| {
            self.now = self.now + STEP;
            let start = clock::ticks();
            self.engine.tick(self.now);
            clock::ticks() - start
        });
        Window::new(spent.collect(), 1)
    }

    /// Sends one burst through the engine and takes the packets back. Returns how long the engine took. `seen` gets each
    /// frame that leaves.
    fn burst<L: PacketPool<Packet = P>>(
        &mut self,
        way: Way,
        count: usize,
        write_headers: bool,
        pool: &mut L,
        packets: &mut VecDeque<P>,
        mut seen: impl FnMut(&[u8]),
    ) -> u64 {
        let traffic = self.traffic(way);
        let port = PortId(u16::from(way == Way::In));
        let mut burst = Received::new();
        for mut packet in packets.drain(..count) {
            if write_headers {
                write(traffic, &mut packet);
            }
            burst.push((port, packet));
        }
        self.now = self.now + STEP;
        let start = clock::ticks();
        self.engine.process(&mut burst, self.now, pool, &mut self.out);
        let spent = clock::ticks() - start;
        packets.extend(self.out.transmit.drain(..).map(|(_, packet)| {
            seen(packet.data());
            packet
        }));
        packets.extend(self.out.dropped.drain(..));
        spent
    }

    fn traffic(&mut self, way: Way) -> &mut Traffic {
        match way {
            Way::Out => &mut self.outbound,
            Way::In => &mut self.inbound,
        }
    }

    /// Packets forwarded, translated or not.
    fn forwarded(&self) -> u64 {
        let counters = self.engine.counters();
        counters.nat44.iter().chain(&counters.routed).map(dataplane::counters::Counter::get).sum()
    }

    /// What has been dropped, by name: for error messages.
    fn state(&self) -> String {
        let counters = self.engine.counters();
        let drops = Drop::ALL.iter().map(|&reason| (reason.name(), counters.drops(reason)));
        format!("dropped {:?}", drops.filter(|(_, count)| *count > 0).collect::<Vec<_>>())
    }
}

/// The packets of a pool that will be in rotation.
pub fn rotation<L: PacketPool>(pool: &mut L) -> Result<VecDeque<L::Packet>> {
    (0..ROTATION).map(|_| pool.alloc().context("the pool has too few packets")).collect()
}

/// Writes the next frame into a packet of whatever length.
#[inline]
fn write<P: Packet>(traffic: &mut Traffic, packet: &mut P) {
    packet.truncate(0);
    if packet.append(traffic.frame_len()) {
        traffic.write(packet.data_mut());
    }
}

const ROUTERS: [(InterfaceId, IpAddr); 3] = [
    (InterfaceId(0), IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2))),
    (InterfaceId(0), IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2))),
    (InterfaceId(1), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
];

/// Inside and remote end of a flow: 63 flows between the n-th inside host and the n-th remote one.
fn flow_ends(flow: usize) -> (End, End) {
    let host = u32::try_from(flow / PORTS_PER_HOST).unwrap_or(u32::MAX);
    let port = 1024 + u16::try_from(flow % PORTS_PER_HOST).unwrap_or(0);
    ((Ipv4Addr::from_bits(INSIDE.to_bits() + host), port), (Ipv4Addr::from_bits(REMOTE.to_bits() + host), port))
}

/// Two interfaces; behind each a router that leads to everything else on that side.
fn spec(sessions: u32) -> Spec {
    let prefix = |address: IpAddr, len| IpPrefix { address, len };
    let interface = |name: &str, port: u8, addresses: [IpPrefix; 2]| InterfaceSpec {
        name: name.into(),
        port: PortId(port.into()),
        vlan: None,
        outer_vlan: None,
        zone: ZoneId(port),
        mac: MACS[usize::from(port)],
        addresses: addresses.into(),
        mtu: 1500,
        neighbours: Vec::new(),
        mss_clamp: MssClamp::Off,
    };
    let via = |router: usize| NextHop::Via(ROUTERS[router].1, ROUTERS[router].0);
    let (v4, v6) = (|a, b, c, d| IpAddr::from([a, b, c, d]), |a, b| IpAddr::from([a, b, 0xaaaa, 0, 0, 0, 0, 0]));
    Spec {
        generation: 1,
        ports: vec![PortSpec { name: "lan".into() }, PortSpec { name: "wan".into() }],
        zones: vec!["inside".into(), "outside".into()],
        interfaces: vec![
            interface(
                "inside",
                0,
                [prefix(v4(192, 168, 1, 1), 24), prefix(IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 1]), 64)],
            ),
            interface("outside", 1, [prefix(v4(198, 51, 100, 2), 24), prefix(v6(0x2001, 0xdb9), 64)]),
        ],
        routes: vec![
            RouteSpec { prefix: prefix(INSIDE.into(), 8), next_hop: via(0) },
            RouteSpec { prefix: prefix(v6(0x2001, 0xdb8), 48), next_hop: via(1) },
            RouteSpec { prefix: prefix(v4(0, 0, 0, 0), 0), next_hop: via(2) },
        ],
        limits: Limits { sessions, mappings: sessions, ..Limits::default() },
        secret: *b"0123456789abcdef",
        ..Spec::default()
    }
}
