//! Any sequence of packets, time steps, messages and reloads into an engine.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use control::host::Host;
use dataplane::counters::{Counter, Counters};
use dataplane::engine::{Engine, Output, Received};
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{HeapPacket, HeapPool, Packet, RxChecksum};
use dataplane::plan::{
    Filtering, ForwardProtocol, InterfaceId, IpPrefix, Limits, MacAddr, MidStream, NextHop, Plan, PortForward, PortId,
    RouteSpec, Spec, StaticNat, ZoneId,
};
use dataplane::pool::{Leases, Owner, Proto};
use dataplane::session::walk::{Action, Filter, Prefix4, Walk};
use dataplane::steer::shard_of4;
use dataplane::time::Time;

use super::bytes::Bytes;
use crate::build::{Ip4, ethernet, get16, icmp, low16, packet_at, put16, seal4, tagged, tcp, udp};
use crate::catalogue::seal;
use crate::check;
use crate::scene::{
    self, CUSTOMER, EXTERNAL, EXTERNAL_MAIL, GUEST, HOST, MAIL, PEER, SERVER, SERVER6, Side, VLAN, double_tagged,
};

/// Moves of an input that are made.
const MOVES: usize = 256;
/// Frames that left and are remembered, to be answered.
const REMEMBERED: usize = 16;
/// Packets that the engine has for errors and for the host.
const PACKETS: usize = 64;

/// Makes the moves that `input` stands for, and after each of them: every packet is accounted for, no external port has
/// two owners, tables, gauges and leases agree, and what left is well-formed.
///
/// # Panics
/// When that is not so.
pub fn engine(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut bench = Bench::new();
    for _ in 0..MOVES {
        if bench.step(&mut bytes).is_none() {
            break;
        }
        bench.check();
    }
    bench.flush();
    bench.check();
    bench.check_ports();
}

/// The gateway of [`scene::CONFIG`], with tables that are soon full. It knows the way to the servers only, since a default
/// route is what takes longest to compile.
fn base() -> &'static Spec {
    static BASE: OnceLock<Spec> = OnceLock::new();
    BASE.get_or_init(|| {
        let limits = Limits {
            sessions: 40,
            mappings: 24,
            neighbours: 16,
            held_per_neighbour: 4,
            held: 8,
            fragments: 128,
            session_counters: true,
        };
        let mut spec = Spec { limits, ..scene::spec() };
        for route in &mut spec.routes {
            if route.prefix.len == 0 {
                let servers = if route.prefix.address.is_ipv4() { (SERVER.into(), 15) } else { (SERVER6.into(), 48) };
                route.prefix = IpPrefix { address: servers.0, len: servers.1 }.network();
            }
        }
        spec
    })
}

struct Bench {
    engine: Engine<HeapPacket>,
    leases: Arc<Leases>,
    counters: Arc<Counters>,
    pool: HeapPool,
    out: Output<HeapPacket>,
    host: Host,
    now: Time,
    proper: Vec<(Side, Vec<u8>)>,
    /// The datagram that fragments are of: the last proper one, answer or hairpin.
    whole: (Side, Vec<u8>),
    /// The burst that is being collected.
    burst: Received<HeapPacket>,
    /// What has left of late, and by which side.
    left: Vec<(Side, Vec<u8>)>,
    /// Neighbours asked for.
    sought: Vec<(InterfaceId, IpAddr)>,
    /// A reload is under way: not every session has been checked yet.
    reloading: bool,
    /// The host has been made to send what it never would.
    forged: bool,
}

impl Bench {
    fn new() -> Self {
        static FIRST: OnceLock<Arc<Plan>> = OnceLock::new();
        let plan = Arc::clone(FIRST.get_or_init(|| Arc::new(Plan::compile(base().clone()).expect("a plan"))));
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let now = Time::from_secs(1000);
        let mut host = Host::new(Arc::clone(&plan), 1, now);
        let mut answers = Vec::new();
        host.start(now, &mut answers);
        let mut bench = Bench {
            out: Output::new(&plan.spec.limits),
            engine: Engine::new(plan, Arc::clone(&leases), Arc::clone(&counters), now),
            leases,
            counters,
            pool: HeapPool::new(PACKETS),
            host,
            now,
            proper: scene::proper(),
            whole: (Side::Inside, Vec::new()),
            burst: Received::new(),
            left: Vec::new(),
            sought: Vec::new(),
            reloading: false,
            forged: false,
        };
        bench.tell(answers);
        bench
    }

    fn step(&mut self, bytes: &mut Bytes) -> Option<()> {
        let what = bytes.byte()?;
        // Frames may be held back, to arrive in one burst.
        let later = what & 0x80 != 0;
        let is_frame = matches!(what & 31, 0..=11 | 28..=30);
        if !is_frame {
            self.flush();
        }
        match what & 31 {
            0..=3 => {
                let index = bytes.index(self.proper.len())?;
                let (side, frame) = self.proper[index].clone();
                self.arrive_whole(side, frame, later);
            }
            4..=6 => self.spoiled(bytes, later)?,
            7 => {
                let side = Side::BOTH[usize::from(what >> 5 & 1)];
                let frame = [&side.gateway()[..], bytes.piece()?].concat();
                self.arrive(side, frame, RxChecksum::Partial, later);
            }
            8 | 9 => self.answer(bytes, later)?,
            10 | 11 => self.quote(bytes, later)?,
            12 | 13 => {
                let (mantissa, exponent) = (u64::from(bytes.byte()?), bytes.byte()? % 44);
                self.now = self.now + Duration::from_nanos(mantissa << exponent);
                self.engine.tick(self.now);
            }
            14 => self.engine.settle(self.now),
            15 => {
                self.engine.tick(self.now);
            }
            16 | 17 => self.neighbour(bytes)?,
            18 => self.frame_of_host(bytes)?,
            19 => {
                self.forged = true;
                self.tell([ToWorker::Packet { packet: bytes.piece()?.into() }]);
            }
            20 | 21 => self.walk(bytes)?,
            22..=25 => self.reload(bytes.word()?, bytes.byte()?),
            26 => self.end_reload(),
            28 | 29 => self.fragment(bytes, later)?,
            30 => self.hairpin(bytes, later)?,
            _ => {
                let mut answers = Vec::new();
                self.host.poll(self.now, &mut answers);
                self.tell(answers);
            }
        }
        if !is_frame {
            self.check_ports();
        }
        Some(())
    }

    fn arrive(&mut self, side: Side, frame: Vec<u8>, checksum: RxChecksum, later: bool) {
        let packet = HeapPacket::from_frame(&frame).with_rx_checksum(checksum);
        self.burst.push((PortId(u16::from(side == Side::Outside)), packet));
        if !later || self.burst.is_full() {
            self.flush();
        }
    }

    /// The same of a datagram that fragments may be of.
    fn arrive_whole(&mut self, side: Side, frame: Vec<u8>, later: bool) {
        self.whole = (side, frame.clone());
        self.arrive(side, frame, RxChecksum::Unknown, later);
    }

    /// Processes what was held back.
    fn flush(&mut self) {
        if !self.burst.is_empty() {
            self.engine.process(&mut self.burst, self.now, &mut self.pool, &mut self.out);
            assert!(self.burst.is_empty());
        }
        self.collect(true);
    }

    /// A proper frame with some bytes changed, cut off or not.
    fn spoiled(&mut self, bytes: &mut Bytes, later: bool) -> Option<()> {
        let index = bytes.index(self.proper.len())?;
        let (side, mut frame) = self.proper[index].clone();
        let how = bytes.byte()?;
        for _ in 0..how & 7 {
            let (at, value) = (usize::from(bytes.byte()?), bytes.byte()?);
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if how & 8 != 0 {
            frame.truncate(usize::from(bytes.byte()?));
        }
        if how & 16 != 0 {
            seal(&mut frame);
        }
        let side = if how & 32 == 0 { side } else { Side::BOTH[usize::from(side == Side::Inside)] };
        self.arrive(side, frame, RxChecksum::Unknown, later);
        Some(())
    }

    /// The receiver of a frame that left answers it: the same frame with its ends exchanged, and other flags if it is TCP's.
    fn answer(&mut self, bytes: &mut Bytes, later: bool) -> Option<()> {
        let (nth, flags) = (bytes.byte()?, bytes.byte()?);
        let Some((side, mut frame)) = self.remembered(nth) else { return Some(()) };
        let at = packet_at(&frame).min(frame.len());
        frame[..6].copy_from_slice(&side.gateway());
        frame[6..12].copy_from_slice(&PEER);
        let packet = &mut frame[at..];
        let (addresses, transport, protocol) = match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() > 23 => (12..20, usize::from(packet[0] & 15) * 4, packet[9]),
            Some(6) if packet.len() > 43 => (8..40, 40, packet[6]),
            _ => return Some(()),
        };
        let half = addresses.len() / 2;
        packet[addresses].rotate_left(half);
        let segment = packet.get_mut(transport..).unwrap_or(&mut []);
        match protocol {
            6 | 17 if segment.len() >= 4 => segment[..4].rotate_left(2),
            1 if !segment.is_empty() => segment[0] ^= 8,
            58 if !segment.is_empty() => segment[0] ^= 1,
            _ => {}
        }
        if let (6, Some(byte)) = (protocol, segment.get_mut(13)) {
            *byte = flags;
        }
        seal(&mut frame);
        self.arrive_whole(side, frame, later);
        Some(())
    }

    /// An inside host sends to the external end of a packet that left, or to a forward or static entry.
    fn hairpin(&mut self, bytes: &mut Bytes, later: bool) -> Option<()> {
        let (nth, from, how) = (bytes.byte()?, bytes.byte()?, bytes.byte()?);
        let left = self.remembered(nth).filter(|(side, _)| *side == Side::Outside).map(|(_, frame)| frame);
        let packet = left.as_ref().and_then(|frame| frame.get(14..));
        let seen = packet.filter(|packet| packet.len() >= 28 && packet[0] == 0x45);
        let (to, port, protocol) = match seen {
            Some(packet) => {
                let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
                (source, get16(packet, if packet[9] == 1 { 24 } else { 20 }), packet[9])
            }
            None => [(EXTERNAL, 8080, 6), (EXTERNAL, 27_003, 17), (EXTERNAL_MAIL, 25, 17), (EXTERNAL_MAIL, 0, 1)]
                [usize::from(nth) % 4],
        };
        let host = [HOST, MAIL, GUEST, CUSTOMER][usize::from(from) % 4];
        let source = 4000 + u16::from(from / 4);
        let [high, low] = source.to_be_bytes();
        let segment = match protocol {
            1 => icmp(8, 0, [high, low, 0, 1], b"ping"),
            6 => tcp(source, port, how, &[], b"turn round"),
            _ => udp(source, port, b"turn round"),
        };
        let ip = Ip4 { ttl: if how & 0x40 == 0 { 64 } else { 1 }, ..Ip4::new(host, to) };
        let frame = ethernet(Side::Inside, 0x0800, &ip.packet(protocol, &segment));
        let frame = match host {
            GUEST => tagged(&frame, 0x8100, VLAN),
            CUSTOMER => double_tagged(&frame),
            _ => frame,
        };
        self.arrive_whole(Side::Inside, frame, later);
        Some(())
    }

    /// Any part of the datagram in hand, in units of 8 bytes, as a fragment with one of a few identifications. It has something
    /// behind it, so that there are more parts than one.
    fn fragment(&mut self, bytes: &mut Bytes, later: bool) -> Option<()> {
        let (part, how) = (bytes.byte()?, bytes.byte()?);
        let (side, mut frame) = self.whole.clone();
        let at = packet_at(&frame).min(frame.len());
        if frame.get(at) != Some(&0x45) || frame.len() < at + 20 {
            return Some(());
        }
        frame.resize(frame.len() + 64, 0x5a);
        let payload = frame.split_off(at + 20);
        let [start, end] = [part & 15, (part & 15) + (part >> 4)].map(|unit| usize::from(unit) * 8);
        frame.extend(payload.get(start.min(payload.len())..end.min(payload.len())).unwrap_or(&[]));
        let packet = &mut frame[at..];
        let total = low16(packet.len());
        put16(packet, 2, total);
        put16(packet, 4, u16::from(how & 3));
        put16(packet, 6, u16::from(how & 4) << 11 | u16::from(part & 15));
        seal4(packet);
        self.arrive(side, frame, RxChecksum::Unknown, later);
        Some(())
    }

    /// A router sends an ICMP error about an IPv4 packet that left.
    fn quote(&mut self, bytes: &mut Bytes, later: bool) -> Option<()> {
        let (nth, kind, code, len) = (bytes.byte()?, bytes.byte()?, bytes.byte()?, usize::from(bytes.byte()?));
        let Some((side, frame)) = self.remembered(nth) else { return Some(()) };
        let packet = frame.get(14..).filter(|packet| packet.len() >= 20 && packet[0] >> 4 == 4);
        let Some(packet) = packet else { return Some(()) };
        let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
        let message = icmp(kind % 20, code, [0, 0, 2, 64], &packet[..packet.len().min(len)]);
        let error = Ip4::new(Ipv4Addr::new(198, 18, 0, 9), source).packet(1, &message);
        self.arrive(side, ethernet(side, 0x0800, &error), RxChecksum::Unknown, later);
        Some(())
    }

    fn remembered(&self, nth: u8) -> Option<(Side, Vec<u8>)> {
        let nth = usize::from(nth).checked_rem(self.left.len())?;
        self.left.get(self.left.len() - 1 - nth).cloned()
    }

    /// A neighbour that was asked for, or any, has another state now.
    fn neighbour(&mut self, bytes: &mut Bytes) -> Option<()> {
        let (which, state) = (bytes.byte()?, bytes.byte()?);
        let asked = usize::from(which).checked_rem(self.sought.len()).map(|at| self.sought[at]);
        let any = (InterfaceId(u16::from(which % 5)), IpAddr::from([198, 51, 100, which]));
        let (interface, address) = asked.filter(|_| state & 0x40 == 0).unwrap_or(any);
        let state = match state % 3 {
            0 => NeighbourState::Reachable(MacAddr(PEER)),
            1 => NeighbourState::Stale(MacAddr(PEER)),
            _ => NeighbourState::Failed,
        };
        self.tell([ToWorker::Neighbour(NeighbourUpdate { interface, address, state })]);
        Some(())
    }

    /// The host sends a frame of any content.
    fn frame_of_host(&mut self, bytes: &mut Bytes) -> Option<()> {
        let interface = InterfaceId(u16::from(bytes.byte()? % 5));
        let message = ToWorker::Frame { interface, frame: bytes.piece()?.into() };
        assert!(self.engine.apply(message, self.now, &mut self.pool, &mut self.out));
        self.collect(false);
        Some(())
    }

    /// A walk through all that there is.
    fn walk(&mut self, bytes: &mut Bytes) -> Option<()> {
        let (what, filter) = (bytes.byte()?, bytes.byte()?);
        let action = match what % 4 {
            0 => Action::ListSessions,
            1 => Action::ListMappings,
            2 => Action::CountSessions,
            _ => Action::EndSessions,
        };
        let given = |bit: u8| filter & bit != 0;
        let filter = Filter {
            proto: given(1).then_some([Proto::Tcp, Proto::Udp, Proto::Icmp][usize::from(what >> 2) % 3]),
            inside: given(2).then_some(Prefix4 { address: 0xc0a8_0100, mask: 0xffff_ff00 }),
            external_port: given(4).then_some(4000),
            remote: given(8).then_some(Prefix4 { address: 0xc612_0000, mask: 0xffff_0000 }),
            ..Filter::default()
        };
        let mut walk = Box::new(Walk::new(1, action, filter));
        let (mut rows, mut steps) = (0, 0);
        while !walk.done {
            assert!(self.engine.apply(ToWorker::Walk(walk), self.now, &mut self.pool, &mut self.out));
            let Some(FromWorker::Walked(back)) = self.out.events.pop_back() else { panic!("the walk is lost") };
            walk = back;
            rows += walk.sessions.len() + walk.mappings.len();
            steps += 1;
            assert!(steps <= 200, "a walk without end");
        }
        let listed = matches!(action, Action::ListSessions | Action::ListMappings);
        assert!(!listed || u64::try_from(rows) == Ok(walk.met));
        Some(())
    }

    /// Goes over to another configuration, if it is one: each bit of `how` is something that is different from the first.
    fn reload(&mut self, how: u16, detail: u8) {
        self.end_reload();
        let old = Arc::clone(self.engine.plan());
        let spec = Spec { generation: old.spec.generation + 1, ..variant(how, detail) };
        let Ok(plan) = Plan::succeed(&old, &self.leases, spec) else { return };
        let plan = Arc::new(plan);
        self.leases = Arc::new(self.leases.succeed(&old, &plan));
        self.reloading = true;
        self.tell([ToWorker::Plan { plan: Arc::clone(&plan), leases: Arc::clone(&self.leases) }]);
        let mut answers = Vec::new();
        self.host.succeed(plan, self.now, &mut answers);
        self.tell(answers);
    }

    /// Lets the reload come to its end, if there is one.
    fn end_reload(&mut self) {
        if self.reloading {
            while self.engine.take_swept().is_none() {
                self.engine.tick(self.now);
            }
            self.leases.open(self.engine.plan());
            self.reloading = false;
        }
    }

    /// Gives messages of the control thread to the engine.
    fn tell(&mut self, messages: impl IntoIterator<Item = ToWorker>) {
        for message in messages {
            assert!(self.engine.apply(message, self.now, &mut self.pool, &mut self.out));
            self.collect(true);
        }
    }

    /// What a worker and the control thread do with the output. `proper`: nothing in it was made up.
    fn collect(&mut self, proper: bool) {
        let mut answers = Vec::new();
        for (interface, packet) in self.out.transmit.drain(..) {
            self.counters.transmitted.add(1);
            let Some(interface) = self.engine.plan().interface(interface) else { panic!("by no interface") };
            let side = Side::BOTH[usize::from(interface.port.0)];
            let frame = packet.data().to_vec();
            if let Err(wrong) = check::headers(side, &frame)
                && proper
                && !self.forged
            {
                panic!("{wrong}: {frame:02x?}");
            }
            if self.left.len() == REMEMBERED {
                self.left.remove(0);
            }
            self.left.push((side, frame));
        }
        while let Some(event) = self.out.events.pop_front() {
            match event {
                FromWorker::Punt { interface, packet } => {
                    self.counters.punted.add(1); // as the worker does, when it has handed it over
                    self.host.receive(interface, packet.data(), self.now, &mut answers);
                }
                FromWorker::Resolve { interface, address } => {
                    self.sought.push((interface, address));
                    self.host.resolve(interface, address, self.now, &mut answers);
                }
                FromWorker::NeighbourUsed { interface, address } => {
                    self.host.neighbour_used(interface, address, self.now, &mut answers);
                }
                FromWorker::Spent(_) | FromWorker::Moved(_) | FromWorker::Swept { .. } | FromWorker::Walked(_) => {}
            }
        }
        self.out.dropped.clear();
        // Answers provoke no more than a handful of further ones.
        if !answers.is_empty() {
            self.tell(answers);
        }
    }

    /// Every port that is taken is a mapping's. Looks at every block, so not after every frame.
    fn check_ports(&self) {
        let mut used: HashMap<u32, [u32; 3]> = HashMap::new();
        for mapping in self.engine.shards().iter().flat_map(|shard| shard.mappings()) {
            used.entry(u32::from(mapping.external)).or_default()[mapping.proto.index()] += 1;
        }
        for (id, _) in (0..).zip(&self.engine.plan().externals) {
            assert_eq!(self.leases.ports_used(id), used.get(&id).copied().unwrap_or_default(), "ports conserved");
        }
    }

    fn check(&self) {
        assert_eq!(self.counters.imbalance(), 0, "every packet is accounted for");
        let plan = self.engine.plan();
        let (mut sessions, mut live, mut held) = (0, 0, 0);
        let (mut ends, mut inside, mut outside) = (HashSet::new(), HashSet::new(), HashSet::new());
        for shard in self.engine.shards() {
            for mapping in shard.mappings() {
                let end = (mapping.external, mapping.external_port, mapping.proto);
                assert!(ends.insert(end), "{end:?} has two owners");
                let owner = self.leases.owner(mapping.external.into(), mapping.external_port);
                assert_eq!(owner, Owner::Shard(shard.id()), "who has the mapping has the lease");
                *(if mapping.sessions > 0 { &mut live } else { &mut held }) += 1;
            }
            for session in shard.sessions() {
                sessions += 1;
                assert!(outside.insert((session.outside(), session.proto)), "one session per outside tuple");
                assert!(inside.insert((session.inside(), session.proto)), "one session per inside tuple");
                assert_eq!(shard.id(), shard_of4(session.inside().source));
                let Some(mapping) = shard.mapping(session.mapping) else { continue };
                let end = (mapping.inside, mapping.inside_port, mapping.proto);
                assert_eq!((session.inside().source, session.inside().source_port, session.proto), end);
                assert_eq!(session.outside().source_port, mapping.external_port);
                let external = plan.externals.get(usize::from(mapping.external)).map_or(0, |external| external.address);
                // What a reload has left without its address waits for the sweep.
                assert!(session.outside().source == external || self.reloading);
            }
        }
        let gauge = |counters: &[Counter]| counters.iter().map(Counter::get).sum::<u64>();
        assert_eq!(gauge(&self.counters.sessions), sessions);
        assert_eq!((gauge(&self.counters.mappings), self.counters.mappings_held.get()), (live, held));
        let (held, fragments) = (self.counters.held.get(), self.counters.fragments_held.get());
        assert!(held - fragments <= u64::from(base().limits.held) && fragments <= u64::from(base().limits.fragments));
    }
}

/// The first configuration with some things different: for each bit of `how` one, by the amount of `detail`.
fn variant(how: u16, detail: u8) -> Spec {
    let mut spec = base().clone();
    let is = |bit: u32| how & 1 << bit != 0;
    let address = |last: u8| Ipv4Addr::new(203, 0, 113, last);
    if is(0) {
        // The pool is elsewhere, or larger.
        let first = 5 + detail % 3;
        spec.pools[0].addresses = vec![address(first)..=address(first + detail / 4 % 3)];
    }
    if is(1) {
        let first = u16::from(detail) * 64 + 1;
        spec.pools[0].ports = first..=first.saturating_add(200);
    }
    if is(2) {
        spec.forwards.clear();
    }
    if is(3) {
        spec.static_nat.clear();
    }
    if is(4) {
        // The forwards take over dynamic ports.
        spec.forwards.push(PortForward {
            name: "taken".into(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(1),
            protocol: if detail & 1 == 0 { ForwardProtocol::Tcp } else { ForwardProtocol::Udp },
            external: address(5 + detail % 3),
            external_ports: 3990..=4010,
            inside: Ipv4Addr::new(192, 168, 1, 30),
            inside_port: 3990,
            filtering: Filtering::EndpointIndependent,
        });
    }
    if is(5) {
        spec.nat44[0].source = vec![IpPrefix { address: Ipv4Addr::new(192, 168, detail % 32, 0).into(), len: 20 }];
    }
    if is(6) {
        spec.nat44.clear();
    }
    if is(7) {
        // Another rule with another pool, before or behind the first.
        let mut pool = spec.pools[0].clone();
        (pool.name, pool.addresses) = ("second".into(), vec![address(20)..=address(20 + detail % 4)]);
        spec.pools.push(pool);
        if let Some(mut rule) = spec.nat44.first().cloned() {
            (rule.name, rule.pool.0) = ("second".into(), 1);
            spec.nat44.insert(usize::from(detail & 1), rule);
        }
    }
    if is(8) {
        // A static entry takes an address that was the pool's, or another one.
        spec.static_nat.push(StaticNat {
            name: "whole".into(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(1),
            external: address(5 + detail % 4),
            inside: Ipv4Addr::new(192, 168, 1, 10 + detail % 2),
            filtering: Filtering::EndpointIndependent,
        });
    }
    if is(9) {
        // Of the VLANs one is gone: the last, or the one before the uplink.
        let gone = if detail & 1 == 0 { "customers" } else { "guests" };
        spec.interfaces.retain(|interface| interface.name != gone);
        let uplink = spec.interfaces.iter().position(|interface| interface.name == "uplink").unwrap_or(0);
        for route in &mut spec.routes {
            if let NextHop::Via(_, id) | NextHop::OnLink(id) = &mut route.next_hop {
                *id = InterfaceId(low16(uplink)); // all routes lead there
            }
        }
    }
    if is(10) {
        spec.links_down = vec![PortId(u16::from(detail & 1))];
    }
    if is(11) {
        let prefix = IpPrefix { address: Ipv4Addr::new(198, 18, 0, 0).into(), len: 15 + detail % 17 };
        spec.routes.push(RouteSpec { prefix: prefix.network(), next_hop: NextHop::Unreachable });
    }
    if is(12) {
        let filtering = [Filtering::EndpointIndependent, Filtering::AddressDependent][usize::from(detail & 1)];
        for rule in &mut spec.nat44 {
            (rule.filtering.udp, rule.filtering.tcp) = (filtering, filtering);
            rule.mid_stream = [MidStream::Drop, MidStream::Reset, MidStream::Adopt][usize::from(detail / 2 % 3)];
        }
    }
    if is(13) {
        spec.timers.udp = Duration::from_secs(120 + u64::from(detail));
        spec.timers.hold_down = Duration::from_secs(u64::from(detail));
    }
    if is(14) {
        spec.icmp.silent = vec![InterfaceId(u16::from(detail & 1))];
        spec.icmp.burst = u32::from(detail);
    }
    if is(15) {
        // The gateway has another address.
        spec.interfaces[0].addresses[0].address = Ipv4Addr::new(192, 168, 1, 1 + detail % 8).into();
    }
    spec
}
