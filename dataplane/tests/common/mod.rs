//! A gateway on a bench: one worker over heap packets, virtual time, every neighbour known.
//!
//! Packets are built and read back by `etherparse`, which computes and checks every checksum on its own.
#![allow(dead_code, clippy::cast_possible_truncation)]

pub mod fragments;
pub mod mix;
pub mod moves;
pub mod nic;
pub mod player;
pub mod recycled;
pub mod scene;
pub mod tally;
pub mod team;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use dataplane::counters::{Counters, Drop};
use dataplane::engine::Engine;
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{HeapPacket, HeapPool, Packet};
use dataplane::plan::{
    FilteringSet, InterfaceId, InterfaceSpec, IpPrefix, MacAddr, MssClamp, Nat44Rule, NextHop, Plan, PoolId, PoolSpec,
    Pooling, PortId, PortSpec, RouteSpec, Spec, ZoneId,
};
use dataplane::pool::Leases;
use dataplane::session::walk::Walk;
use dataplane::time::Time;
use dataplane::trace::Trace;
use dataplane::worker::{Burst, Device, Worker};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use tally::Tally;

/// The inside interface, on port 0: 192.168.1.1/24, fd00:1::1/64.
pub const INSIDE: InterfaceId = InterfaceId(0);
/// The outside interface, on port 1: 198.51.100.2/24, 2001:db8:f::2/64, default route to 198.51.100.1.
pub const OUTSIDE: InterfaceId = InterfaceId(1);
/// The gateway's Ethernet addresses.
pub const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// Every neighbour's Ethernet address.
pub const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0xaa, 0xaa]);

/// One end of a flow.
pub type End = (Ipv4Addr, u16);

/// `"192.0.2.1:80"`.
pub fn end(text: &str) -> End {
    let address: std::net::SocketAddrV4 = text.parse().expect("an address and port");
    (*address.ip(), address.port())
}

/// `"192.0.2.0/24"`.
pub fn prefix(text: &str) -> IpPrefix {
    let (address, len) = text.split_once('/').expect("a prefix");
    IpPrefix { address: address.parse().expect("an address"), len: len.parse().expect("a length") }
}

/// Two interfaces, one pool (203.0.113.5, all ports), one rule for 192.168.0.0/16.
pub fn spec() -> Spec {
    let interface = |name: &str, port, mac, addresses: &[&str]| InterfaceSpec {
        name: name.into(),
        port: PortId(port),
        vlan: None,
        outer_vlan: None,
        zone: ZoneId(port as u8),
        mac,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        mtu: 1500,
        neighbours: Vec::new(),
        mss_clamp: MssClamp::Off,
    };
    Spec {
        generation: 1,
        ports: vec![PortSpec { name: "lan".into() }, PortSpec { name: "wan".into() }],
        zones: vec!["inside".into(), "outside".into()],
        interfaces: vec![
            interface("inside", 0, MACS[0], &["192.168.1.1/24", "fd00:1::1/64"]),
            interface("outside", 1, MACS[1], &["198.51.100.2/24", "2001:db8:f::2/64"]),
        ],
        routes: vec![
            RouteSpec { prefix: prefix("0.0.0.0/0"), next_hop: NextHop::Via("198.51.100.1".parse().unwrap(), OUTSIDE) },
            RouteSpec { prefix: prefix("::/0"), next_hop: NextHop::Via("2001:db8:f::1".parse().unwrap(), OUTSIDE) },
        ],
        pools: vec![pool(&["203.0.113.5-203.0.113.5"], 1..=65535)],
        nat44: vec![rule()],
        limits: dataplane::plan::Limits { sessions: 8192, mappings: 8192, ..Default::default() },
        secret: *b"0123456789abcdef",
        ..Spec::default()
    }
}

/// A pool of inclusive ranges.
pub fn pool(ranges: &[&str], ports: std::ops::RangeInclusive<u16>) -> PoolSpec {
    let range = |text: &&str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        first.parse().expect("an address")..=last.parse().expect("an address")
    };
    PoolSpec {
        name: "public".into(),
        addresses: ranges.iter().map(range).collect(),
        ports,
        proxy_arp: true,
        answer_echo: true,
    }
}

/// The rule of [`spec`].
pub fn rule() -> Nat44Rule {
    Nat44Rule {
        name: "subscribers".into(),
        from: ZoneId(0),
        to: ZoneId(1),
        source: vec![prefix("192.168.0.0/16")],
        destination: Vec::new(),
        pool: PoolId(0),
        filtering: FilteringSet::default(),
        pooling: Pooling::Paired,
        port_preservation: true,
        port_parity: true,
        inbound_refresh: true,
        mid_stream: dataplane::plan::MidStream::Drop,
    }
}

/// A port whose wire is two queues.
#[derive(Debug, Default)]
pub struct Wire {
    /// What will be received.
    pub rx: VecDeque<HeapPacket>,
    /// What was sent.
    pub tx: Vec<Vec<u8>>,
    /// How many more packets it accepts; none: any number.
    pub room: Option<usize>,
}

impl Device for Wire {
    type Packet = HeapPacket;

    fn receive(&mut self, burst: &mut Burst<HeapPacket>) {
        while !burst.is_full()
            && let Some(packet) = self.rx.pop_front()
        {
            burst.push(packet);
        }
    }

    fn transmit(&mut self, burst: &mut Burst<HeapPacket>) {
        let accepted = self.room.map_or(burst.len(), |room| room.min(burst.len()));
        self.room = self.room.map(|room| room - accepted);
        self.tx.extend(burst.drain(..accepted).map(|packet| packet.data().to_vec()));
    }
}

/// What left, or happened, after a poll.
#[derive(Debug, Default)]
pub struct Seen {
    /// Frames by interface, in order.
    pub frames: Vec<(InterfaceId, Vec<u8>)>,
    /// Frames for the host.
    pub punted: Vec<(InterfaceId, Vec<u8>)>,
    /// Neighbours asked for.
    pub resolve: Vec<(InterfaceId, IpAddr)>,
    /// Stale neighbours used.
    pub used: Vec<(InterfaceId, IpAddr)>,
    /// The generation that every session has been checked against.
    pub swept: Option<u32>,
    /// Walks that have come back.
    pub walked: Vec<Walk>,
}

/// The gateway.
pub struct Lab {
    pub worker: Worker<Wire, HeapPool>,
    pub to_worker: Sender<ToWorker>,
    pub from_worker: Receiver<FromWorker<HeapPacket>>,
    pub counters: Arc<Counters>,
    pub leases: Arc<Leases>,
    pub pool: HeapPool,
    pub now: Time,
    /// Answer every question for a neighbour with [`PEER`] at once.
    pub resolving: bool,
    stories: Vec<Trace>,
    counted: Tally,
}

impl Lab {
    /// A gateway with this configuration.
    pub fn new(spec: Spec) -> Lab {
        Lab::with_queue(spec, 65_536)
    }

    /// The same where these neighbours are known, so that tests see only what they are about.
    pub fn knowing(spec: Spec, neighbours: &[(InterfaceId, &str)]) -> Lab {
        let mut lab = Lab::new(spec);
        for &(interface, address) in neighbours {
            lab.neighbour(interface, address.parse().unwrap(), NeighbourState::Reachable(PEER));
        }
        lab.run();
        lab.counted("");
        lab
    }

    /// A gateway with a queue to the control thread that holds this many messages.
    pub fn with_queue(spec: Spec, queue: usize) -> Lab {
        let now = Time::from_secs(1000);
        let plan = Arc::new(Plan::compile(spec).expect("a plan"));
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let pool = HeapPool::new(4096);
        let (to_worker, inbox) = crossbeam_channel::bounded(65_536);
        let (outbox, from_worker) = crossbeam_channel::bounded(queue);
        let devices = plan.spec.ports.iter().map(|_| Wire::default()).collect();
        let engine = Engine::new(plan, Arc::clone(&leases), Arc::clone(&counters), now);
        let mut worker = Worker::new(engine, devices, pool.clone(), inbox, outbox);
        worker.set_tracing(true);
        let counted = tally::tally(&counters, &worker.engine().plan().spec.interfaces);
        let stories = Vec::new();
        Lab { worker, to_worker, from_worker, counters, leases, pool, now, resolving: true, stories, counted }
    }

    /// Asserts that exactly these counters moved since the last call, e.g. `"received 2, inside-received 2, punted 2"`; a
    /// name alone means one. See [`tally`] for the names. Bytes need not be named: they are those of the frames.
    #[track_caller]
    pub fn counted(&mut self, expected: &str) {
        let after = tally::tally(&self.counters, &self.worker.engine().plan().spec.interfaces);
        let mut moved = tally::moved(&self.counted, &after);
        moved.retain(|name, _| !name.ends_with("-bytes"));
        self.counted = after;
        assert_eq!(moved, tally::expected(expected), "the counters that moved");
    }

    /// A gateway with the default configuration.
    pub fn default_lab() -> Lab {
        Lab::new(spec())
    }

    /// Lets time pass; timers fire.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.worker.engine_mut().settle(self.now);
        self.check();
    }

    /// Seconds pass.
    pub fn wait_secs(&mut self, secs: u64) {
        self.wait(Duration::from_secs(secs));
    }

    /// Puts frames on the wire of an interface's port, and polls until all is quiet.
    pub fn send_all(&mut self, interface: InterfaceId, frames: &[Vec<u8>]) -> Seen {
        self.arrive(interface, frames.iter().map(|frame| HeapPacket::from_frame(frame)));
        self.run()
    }

    /// Puts packets on the wire of an interface's port, for the next polls.
    pub fn arrive(&mut self, interface: InterfaceId, packets: impl IntoIterator<Item = HeapPacket>) {
        let port = self.port(interface);
        self.worker.devices_mut()[port].rx.extend(packets);
    }

    /// One frame.
    pub fn send(&mut self, interface: InterfaceId, frame: &[u8]) -> Seen {
        self.send_all(interface, &[frame.to_vec()])
    }

    /// Sends one frame and expects exactly one to leave, by `to`.
    #[track_caller]
    pub fn pass(&mut self, from: InterfaceId, frame: &[u8], to: InterfaceId) -> Vec<u8> {
        let mut seen = self.send(from, frame);
        assert_eq!(seen.frames.len(), 1, "one frame in, one out: {:?}; drops {:?}", seen, self.drops());
        let (interface, out) = seen.frames.remove(0);
        assert_eq!(interface, to);
        out
    }

    /// Sends one frame and expects it to be dropped for this reason, and nothing to leave.
    #[track_caller]
    pub fn dropped(&mut self, from: InterfaceId, frame: &[u8], reason: Drop) {
        let before = self.counters.drops(reason);
        let seen = self.send(from, frame);
        assert!(seen.frames.is_empty() && seen.punted.is_empty(), "nothing leaves: {seen:?}");
        assert_eq!(self.counters.drops(reason), before + 1, "dropped as {}: {:?}", reason.name(), self.drops());
    }

    /// Goes over to another configuration, and lets every session be checked against it.
    #[track_caller]
    pub fn reload(&mut self, spec: Spec) {
        self.begin_reload(spec);
        let mut seen = self.run();
        while seen.swept.is_none() {
            seen = self.run();
        }
        assert_eq!(seen.swept, Some(self.worker.engine().plan().spec.generation));
        self.end_reload();
    }

    /// The first half of a reload: the new plan is in force, no session has been checked.
    #[track_caller]
    pub fn begin_reload(&mut self, spec: Spec) {
        let old = Arc::clone(self.worker.engine().plan());
        let spec = Spec { generation: old.spec.generation + 1, ..spec };
        let plan = Arc::new(Plan::succeed(&old, &self.leases, spec).expect("a plan"));
        self.leases = Arc::new(self.leases.succeed(&old, &plan));
        self.to_worker.send(ToWorker::Plan { plan, leases: Arc::clone(&self.leases) }).unwrap();
    }

    /// The second half: every session has been checked.
    pub fn end_reload(&mut self) {
        let plan = Arc::clone(self.worker.engine().plan());
        self.leases.open(&plan);
        self.check();
    }

    /// Polls until nothing moves any more.
    pub fn run(&mut self) -> Seen {
        let mut seen = Seen::default();
        loop {
            let poll = self.worker.poll_once(self.now);
            self.stories.extend(self.worker.take_traces());
            let mut moved = poll.received > 0 || poll.messages > 0;
            while let Ok(event) = self.from_worker.try_recv() {
                match event {
                    FromWorker::Punt { interface, packet } => seen.punted.push((interface, packet.data().to_vec())),
                    FromWorker::Resolve { interface, address } => {
                        seen.resolve.push((interface, address));
                        if self.resolving {
                            self.neighbour(interface, address, NeighbourState::Reachable(PEER));
                            moved = true;
                        }
                    }
                    FromWorker::NeighbourUsed { interface, address } => seen.used.push((interface, address)),
                    FromWorker::Spent(_) | FromWorker::Moved(_) => {}
                    FromWorker::Swept { generation } => seen.swept = Some(generation),
                    FromWorker::Walked(walk) => seen.walked.push(*walk),
                }
            }
            let interfaces = self.worker.engine().plan().spec.interfaces.clone();
            for (wire, port) in self.worker.devices_mut().iter_mut().zip(0..) {
                for frame in wire.tx.drain(..) {
                    let tags = tags(&frame);
                    let has_them = |it: &InterfaceSpec| match (it.outer_vlan, it.vlan) {
                        (Some(outer), Some(vlan)) => tags == [(0x88a8, outer), (0x8100, vlan)],
                        (_, Some(vlan)) => tags == [(0x8100, vlan)],
                        _ => tags.is_empty(),
                    };
                    let interface = interfaces.iter().position(|it| it.port == PortId(port) && has_them(it));
                    seen.frames.push((InterfaceId(interface.expect("a known interface") as u16), frame));
                }
            }
            self.check();
            if !moved {
                return seen;
            }
        }
    }

    /// Publishes a neighbour; takes effect at the next poll.
    pub fn neighbour(&mut self, interface: InterfaceId, address: IpAddr, state: NeighbourState) {
        self.to_worker.send(ToWorker::Neighbour(NeighbourUpdate { interface, address, state })).unwrap();
    }

    /// The law of conservation (design rule 6).
    #[track_caller]
    pub fn check(&self) {
        assert_eq!(self.counters.imbalance(), 0, "received + from host + originated = where it all went");
    }

    /// Every reason that has dropped something.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let of = |reason: &Drop| (reason.name(), self.counters.drops(*reason));
        Drop::ALL.iter().map(of).filter(|(_, count)| *count > 0).collect()
    }

    /// The stories of the packets received since the last call.
    pub fn stories(&mut self) -> Vec<Trace> {
        std::mem::take(&mut self.stories)
    }

    /// Sessions now.
    pub fn sessions(&self) -> u64 {
        self.counters.sessions.iter().map(dataplane::counters::Counter::get).sum()
    }

    /// Mappings now: TCP, UDP, ICMP.
    pub fn mappings(&self) -> [u64; 3] {
        std::array::from_fn(|proto| self.counters.mappings[proto].get())
    }

    fn port(&self, interface: InterfaceId) -> usize {
        usize::from(self.worker.engine().plan().interface(interface).expect("an interface").port.0)
    }
}

/// An Ethernet and IPv4 header toward the gateway's interface.
fn to_gateway(
    interface: InterfaceId,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let mac = MACS[usize::from(interface.0) % 2];
    PacketBuilder::ethernet2(PEER.0, mac.0).ipv4(source.octets(), destination.octets(), ttl)
}

/// A UDP datagram that arrives on `interface`.
pub fn udp(interface: InterfaceId, from: End, to: End, payload: &[u8]) -> Vec<u8> {
    udp_ttl(interface, from, to, payload, 64)
}

/// The same with a given TTL.
pub fn udp_ttl(interface: InterfaceId, from: End, to: End, payload: &[u8], ttl: u8) -> Vec<u8> {
    let builder = to_gateway(interface, from.0, to.0, ttl).udp(from.1, to.1);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A TCP segment that arrives on `interface`. Flags: any of `SAFRPUEC`, the last two of RFC 3168.
pub fn tcp(interface: InterfaceId, from: End, to: End, flags: &str, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    tcp_with(interface, from, to, flags, seq, ack, payload, &[])
}

/// The same with options (a multiple of 4 bytes).
#[allow(clippy::too_many_arguments)]
pub fn tcp_with(
    interface: InterfaceId,
    from: End,
    to: End,
    flags: &str,
    seq: u32,
    ack: u32,
    payload: &[u8],
    options: &[u8],
) -> Vec<u8> {
    let builder = flagged(to_gateway(interface, from.0, to.0, 64).tcp(from.1, to.1, seq, 65_000), flags, ack);
    let builder = builder.options_raw(options).unwrap();
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn flagged(
    mut builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>,
    flags: &str,
    ack: u32,
) -> etherparse::PacketBuilderStep<etherparse::TcpHeader> {
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(ack),
            'F' => builder.fin(),
            'R' => builder.rst(),
            'P' => builder.psh(),
            'U' => builder.urg(1),
            'E' => builder.ece(),
            'C' => builder.cwr(),
            other => panic!("no such flag: {other}"),
        };
    }
    builder
}

/// A TCP segment over IPv6 that arrives on `interface`.
pub fn tcp6(
    interface: InterfaceId,
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    flags: &str,
    payload: &[u8],
    hop_limit: u8,
) -> Vec<u8> {
    let mac = MACS[usize::from(interface.0) % 2];
    let ip = PacketBuilder::ethernet2(PEER.0, mac.0).ipv6(from.0.octets(), to.0.octets(), hop_limit);
    let builder = flagged(ip.tcp(from.1, to.1, 1, 65_000), flags, 1);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A UDP datagram over IPv6 that arrives on `interface`.
pub fn udp6(
    interface: InterfaceId,
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    payload: &[u8],
    hop_limit: u8,
) -> Vec<u8> {
    let mac = MACS[usize::from(interface.0) % 2];
    let builder =
        PacketBuilder::ethernet2(PEER.0, mac.0).ipv6(from.0.octets(), to.0.octets(), hop_limit).udp(from.1, to.1);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An ICMPv6 message that arrives on `interface`: type, code, the four bytes behind the checksum, and the rest.
pub fn icmp6(
    interface: InterfaceId,
    from: Ipv6Addr,
    to: Ipv6Addr,
    kind: u8,
    code: u8,
    word: [u8; 4],
    rest: &[u8],
) -> Vec<u8> {
    let mac = MACS[usize::from(interface.0) % 2];
    let builder = PacketBuilder::ethernet2(PEER.0, mac.0).ipv6(from.octets(), to.octets(), 64);
    let builder = builder.icmpv6_raw(kind, code, word);
    let mut frame = Vec::new();
    builder.write(&mut frame, rest).unwrap();
    frame
}

/// An echo request or reply that arrives on `interface`.
pub fn echo(interface: InterfaceId, from: Ipv4Addr, to: Ipv4Addr, request: bool, id: u16, seq: u16) -> Vec<u8> {
    let builder = to_gateway(interface, from, to, 64);
    let builder = if request { builder.icmpv4_echo_request(id, seq) } else { builder.icmpv4_echo_reply(id, seq) };
    let mut frame = Vec::new();
    builder.write(&mut frame, b"abcdefgh").unwrap();
    frame
}

/// An ICMPv4 message that arrives on `interface`, with all of it given: type, code, the four bytes behind the checksum,
/// and the rest.
pub fn icmp(
    interface: InterfaceId,
    from: Ipv4Addr,
    to: Ipv4Addr,
    kind: u8,
    code: u8,
    word: [u8; 4],
    rest: &[u8],
) -> Vec<u8> {
    let builder = to_gateway(interface, from, to, 64).icmpv4_raw(kind, code, word);
    let mut frame = Vec::new();
    builder.write(&mut frame, rest).unwrap();
    frame
}

/// The VLAN tags of a frame, outermost first: type and identifier.
pub fn tags(frame: &[u8]) -> Vec<(u16, u16)> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let tags = (12..).step_by(4).map_while(|at| Some((word(at)?, word(at + 2)?)));
    tags.take_while(|(kind, _)| matches!(kind, 0x8100 | 0x88a8 | 0x9100)).collect()
}

/// A frame as another station sees it, read and verified by etherparse: all checksums are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub source: End,
    pub destination: End,
    pub ttl: u8,
    pub protocol: u8,
    /// The transport header and payload.
    pub transport: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Reads an IPv4 frame that the gateway sent; panics if any length or checksum is wrong.
#[track_caller]
pub fn read(frame: &[u8]) -> Read {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a readable frame");
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("not IPv4: {frame:02x?}") };
    let header = ip.header();
    assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum(), "IPv4 header checksum");
    assert_eq!(usize::from(header.total_len()) + 14 + 4 * tags(frame).len(), frame.len(), "no padding");
    let (source, destination) = (header.source_addr(), header.destination_addr());
    let transport = ip.payload().payload.to_vec();
    let (ports, payload) = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            let payload = udp.payload();
            if udp.checksum() != 0 {
                let computed =
                    udp.to_header().calc_checksum_ipv4_raw(header.source(), header.destination(), payload).unwrap();
                assert_eq!(udp.checksum(), computed, "UDP checksum");
            }
            ((udp.source_port(), udp.destination_port()), payload.to_vec())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let computed =
                tcp.to_header().calc_checksum_ipv4_raw(header.source(), header.destination(), tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), computed, "TCP checksum");
            ((tcp.source_port(), tcp.destination_port()), tcp.payload().to_vec())
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            // By hand: etherparse does not know of the length of what is quoted (RFC 4884).
            let words = transport.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
            assert_eq!(words.sum::<u32>() % 0xffff, 0, "ICMP checksum");
            let id = u16::from_be_bytes([transport[4], transport[5]]);
            let ports = match transport[0] {
                8 | 13 => (id, 0),
                0 | 14 => (0, id),
                _ => (0, 0),
            };
            (ports, icmp.payload().to_vec())
        }
        _ => ((0, 0), transport.clone()),
    };
    Read {
        source: (source, ports.0),
        destination: (destination, ports.1),
        ttl: header.ttl(),
        protocol: header.protocol().0,
        transport,
        payload,
    }
}

/// An IPv6 frame as another station sees it, read and verified by etherparse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub next_header: u8,
    /// What is behind the IPv6 header.
    pub transport: Vec<u8>,
}

/// Reads an IPv6 frame that the gateway sent; panics if any length or checksum is wrong.
#[track_caller]
pub fn read6(frame: &[u8]) -> Read6 {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a readable frame");
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("not IPv6: {frame:02x?}") };
    let header = ip.header();
    let (source, destination) = (header.source(), header.destination());
    let link = frame.len() - 40 - usize::from(header.payload_length());
    assert_eq!(link, 14 + 4 * tags(frame).len(), "no padding");
    match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            let computed = udp.to_header().calc_checksum_ipv6_raw(source, destination, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), computed, "UDP checksum");
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let computed = tcp.to_header().calc_checksum_ipv6_raw(source, destination, tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), computed, "TCP checksum");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert!(icmp.is_checksum_valid(source, destination), "ICMPv6 checksum");
        }
        _ => {}
    }
    Read6 {
        source: source.into(),
        destination: destination.into(),
        hop_limit: header.hop_limit(),
        next_header: header.next_header().0,
        transport: frame[link + 40..].to_vec(),
    }
}

/// The frame with its IP header changed, and an IPv4 header checksum that is right again.
pub fn with_ip(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let ip = &mut frame[14..];
    change(ip);
    if ip[0] >> 4 == 4 {
        let header = (usize::from(ip[0] & 15) * 4).min(ip.len());
        ip[10..12].fill(0);
        let sum: u32 =
            ip[..header].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
        let checksum = !((sum % 0xffff) as u16);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

/// A control thread's ARP request or any other frame: an Ethernet header of the interface's, then `rest`.
pub fn ethernet(interface: InterfaceId, ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mac = MACS[usize::from(interface.0) % 2];
    [&mac.0[..], &PEER.0[..], &ethertype.to_be_bytes()[..], rest].concat()
}

/// An ICMP error that the gateway sent, read and verified by etherparse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub kind: u8,
    pub code: u8,
    /// The four bytes behind the checksum.
    pub word: u32,
    /// The packet that it quotes, from its IP header on.
    pub quote: Vec<u8>,
}

/// Reads an ICMP or ICMPv6 error.
#[track_caller]
pub fn read_error(frame: &[u8]) -> ErrorMessage {
    let (source, destination, message) = if frame[14] >> 4 == 6 {
        let read = read6(frame);
        assert_eq!(read.next_header, 58, "ICMPv6");
        (read.source.into(), read.destination.into(), read.transport)
    } else {
        let read = read(frame);
        assert_eq!(read.protocol, 1, "ICMP");
        (read.source.0.into(), read.destination.0.into(), read.transport)
    };
    let word = u32::from_be_bytes(message[4..8].try_into().unwrap());
    ErrorMessage { source, destination, kind: message[0], code: message[1], word, quote: message[8..].to_vec() }
}
