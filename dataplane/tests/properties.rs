//! What holds for any traffic: there and back is the identity, checksums are carried along, bursts can be cut anywhere,
//! no external port has two owners, and everything that is taken is given back.
//!
//! The sequences of packets are made up as they go: a step may answer, quote or spoil a packet seen before. What was sent
//! is then sent again, cut into bursts in another way.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use common::fragments::{fragmentable, link_len, units_of};
use common::{INSIDE, Lab, MACS, OUTSIDE, PEER, pool, prefix, read, rule, spec, tally};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::engine::{Engine, Output, Received};
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{HeapPacket, HeapPool, Packet};
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, IcmpPolicy, InterfaceId, InterfaceSpec, Limits, MidStream, Nat44Rule,
    Plan, Pooling, PortForward, PortId, Spec, StaticNat, ZoneId,
};
use dataplane::pool::{Leases, Owner};
use dataplane::steer::ShardId;
use dataplane::time::Time;
use dataplane::trace::{SessionStep, Trace};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::sample::Index;

// --- There and back ---------------------------------------------------------------------------------------------------

/// A flow's kind of packet.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Echo,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)]
}

/// Hosts that leave by a rule, by a port forward (port 80 and 7000), and by a static entry.
fn insider() -> impl Strategy<Value = (Ipv4Addr, u16)> {
    let host = prop_oneof![
        Just([192, 168, 1, 10]),
        Just([192, 168, 1, 25]),
        any::<[u8; 2]>().prop_map(|[c, d]| [192, 168, c, d])
    ];
    let port = prop_oneof![2 => any::<u16>(), 1 => Just(80), 1 => Just(7000)];
    // Not the gateway's own, nor a broadcast address.
    let valid = |(host, _): &([u8; 4], u16)| host[3] != 0 && host[3] != 255 && host[..] != [192, 168, 1, 1];
    (host, port).prop_filter("a host", valid).prop_map(|(host, port)| (Ipv4Addr::from(host), port))
}

fn outsider() -> impl Strategy<Value = (Ipv4Addr, u16)> {
    (any::<[u8; 2]>(), any::<u16>()).prop_map(|([c, d], port)| (Ipv4Addr::new(198, 18, c, d), port))
}

/// The rig's gateway with port forwards and a static entry.
fn gateway() -> Spec {
    let forward = |name: &str, protocol, external_ports, inside_port| PortForward {
        name: name.into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        protocol,
        external: Ipv4Addr::new(203, 0, 113, 5),
        external_ports,
        inside: Ipv4Addr::new(192, 168, 1, 10),
        inside_port,
        filtering: Filtering::EndpointIndependent,
    };
    Spec {
        forwards: vec![
            forward("web", ForwardProtocol::Tcp, 8080..=8080, 80),
            forward("games", ForwardProtocol::Udp, 27_000..=27_010, 7000),
        ],
        static_nat: vec![StaticNat {
            name: "mail".into(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(1),
            external: Ipv4Addr::new(203, 0, 113, 60),
            inside: Ipv4Addr::new(192, 168, 1, 25),
            filtering: Filtering::AddressDependent,
        }],
        routes: [
            spec().routes,
            vec![dataplane::plan::RouteSpec {
                prefix: prefix("192.168.0.0/16"),
                next_hop: dataplane::plan::NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE),
            }],
        ]
        .concat(),
        ..spec()
    }
}

/// The first packet of a flow; TCP's is a SYN.
fn opening(kind: Kind, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8], tos: u8) -> Vec<u8> {
    let mut ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber(0), from.0.octets(), to.0.octets()).unwrap();
    ip.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
    ip.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
    ip.identification = from.1;
    let builder = PacketBuilder::ethernet2(PEER.0, MACS[0].0).ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
    let mut frame = Vec::new();
    match kind {
        Kind::Tcp => builder.tcp(from.1, to.1, 7, 65_000).syn().write(&mut frame, payload),
        Kind::Udp => builder.udp(from.1, to.1).write(&mut frame, payload),
        Kind::Echo => builder.icmpv4_echo_request(from.1, 1).write(&mut frame, payload),
    }
    .unwrap();
    frame
}

/// Sum of 16-bit words modulo 0xffff (RFC 1071), the plainest way.
fn sum(data: &[u8]) -> u32 {
    data.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum::<u32>() % 0xffff
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn set_word(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Offset of the transport checksum.
fn checksum_at(kind: Kind) -> usize {
    34 + match kind {
        Kind::Tcp => 16,
        Kind::Udp => 6,
        Kind::Echo => 2,
    }
}

/// The same frame going the other way: ends swapped, which leaves every checksum as it is but that of the echo's type.
fn mirrored(kind: Kind, frame: &[u8], to: [u8; 6]) -> Vec<u8> {
    let mut back = frame.to_vec();
    back[..6].copy_from_slice(&to);
    back[6..12].copy_from_slice(&PEER.0);
    back[26..30].copy_from_slice(&frame[30..34]);
    back[30..34].copy_from_slice(&frame[26..30]);
    match kind {
        Kind::Tcp | Kind::Udp => {
            back[34..36].copy_from_slice(&frame[36..38]);
            back[36..38].copy_from_slice(&frame[34..36]);
        }
        Kind::Echo => {
            back[34] = 8 - frame[34];
            set_word(&mut back, 36, 0);
            let checksum = !(sum(&back[34..]) as u16);
            set_word(&mut back, 36, checksum);
        }
    }
    back
}

/// The frame with the Ethernet addresses, TTL and header checksum left out.
fn essence(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..12].fill(0);
    frame[22] = 0;
    frame[24..26].fill(0);
    frame
}

proptest! {
    /// N44-31, RTR-13: what goes out and comes back is, to the byte, what the inside host would have got without
    /// translation; etherparse finds every checksum right on the way. DSCP and ECN survive.
    #[test]
    fn n44_31_there_and_back_is_the_identity(
        kind in kind(),
        host in insider(),
        server in outsider(),
        tos in any::<u8>(),
        payload in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut lab = Lab::new(gateway());
        let inside = opening(kind, host, server, &payload, tos);
        let outside = lab.pass(INSIDE, &inside, OUTSIDE);
        let seen = read(&outside);
        prop_assert_eq!((seen.destination.0, seen.ttl), (server.0, 63));
        prop_assert!(seen.source.0.octets().starts_with(&[203, 0, 113]));
        prop_assert_eq!(outside[15], tos);
        let mut reply = mirrored(kind, &outside, MACS[1].0);
        if let Kind::Tcp = kind {
            // A SYN in answer to a SYN: the server opens at the same time (RFC 9293 §3.5).
            reply[22] = 64;
        }
        reply[22] = 64;
        set_word(&mut reply, 24, 0);
        let header = !(sum(&reply[14..34]) as u16);
        set_word(&mut reply, 24, header);
        let back = lab.pass(OUTSIDE, &reply, INSIDE);
        prop_assert_eq!(read(&back).ttl, 63);
        prop_assert_eq!(essence(&mirrored(kind, &back, MACS[0].0)), essence(&inside));
        lab.check();
    }

    /// N44-31: a transport checksum that is wrong on arrival is wrong by the same amount when it leaves, both ways; a UDP
    /// checksum of zero stays zero, and one that comes out as zero is sent as 0xffff.
    #[test]
    fn n44_31_a_wrong_checksum_stays_wrong(
        kind in kind(),
        host in insider(),
        server in outsider(),
        checksum in prop_oneof![4 => any::<u16>(), 1 => Just(0), 1 => Just(0xffff)],
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut lab = Lab::new(gateway());
        let at = checksum_at(kind);
        // What is wrong with a checksum: the sum of all that it covers, itself included, which should be zero.
        let error = |frame: &[u8]| {
            let pseudo = match kind {
                Kind::Echo => 0,
                Kind::Tcp | Kind::Udp => sum(&frame[26..34]) + u32::from(frame[23]) + (frame.len() - 34) as u32,
            };
            (pseudo + sum(&frame[34..])) % 0xffff
        };
        let mut inside = opening(kind, host, server, &payload, 0);
        set_word(&mut inside, at, checksum);
        let outside = lab.pass(INSIDE, &inside, OUTSIDE);
        let none = matches!(kind, Kind::Udp) && checksum == 0;
        if none {
            prop_assert_eq!(word(&outside, at), 0);
        } else {
            prop_assert_eq!(error(&outside), error(&inside));
            prop_assert!(!matches!(kind, Kind::Udp) || word(&outside, at) != 0);
        }
        let mut reply = mirrored(kind, &outside, MACS[1].0);
        set_word(&mut reply, at, checksum);
        let back = lab.pass(OUTSIDE, &reply, INSIDE);
        if none {
            prop_assert_eq!(word(&back, at), 0);
        } else {
            prop_assert_eq!(error(&back), error(&reply));
        }
    }
}

// --- Any sequence -----------------------------------------------------------------------------------------------------

/// A third interface: guests on a VLAN of the outside port, so that a burst of one port holds both directions. It takes less
/// than the others, so that what goes there may have to be cut up.
const GUESTS: InterfaceId = InterfaceId(2);
const GUEST_VLAN: u16 = 20;

/// Everything is small, so that it runs out: 2 addresses of 2 blocks, 24 sessions, 16 mappings, 6 neighbours, 5 held
/// packets, 4 ICMP errors a second, 2 fragments that wait in a shard.
fn cramped() -> Spec {
    let mut spec = gateway();
    spec.interfaces.push(InterfaceSpec {
        name: "guests".into(),
        port: PortId(1),
        vlan: Some(GUEST_VLAN),
        outer_vlan: None,
        zone: ZoneId(0),
        addresses: vec![prefix("192.168.20.1/24")],
        mtu: 1300,
        ..spec.interfaces[1].clone()
    });
    spec.pools = vec![pool(&["203.0.113.5-203.0.113.6"], 960..=1087), pool(&["203.0.113.9"], 2048..=2050)];
    let filtering = FilteringSet {
        tcp: Filtering::AddressPortDependent,
        udp: Filtering::EndpointIndependent,
        icmp: Filtering::AddressDependent,
    };
    spec.nat44 = vec![
        Nat44Rule {
            destination: vec![prefix("198.18.0.3/32")],
            pool: dataplane::plan::PoolId(1),
            port_preservation: false,
            mid_stream: MidStream::Reset,
            ..rule()
        },
        Nat44Rule {
            filtering,
            pooling: Pooling::PairedSoft,
            inbound_refresh: false,
            mid_stream: MidStream::Adopt,
            ..rule()
        },
    ];
    spec.icmp = IcmpPolicy { rate: 4, burst: 4, ..IcmpPolicy::default() };
    spec.limits = Limits {
        sessions: 24,
        mappings: 16,
        neighbours: 6,
        held_per_neighbour: 2,
        held: 5,
        fragments: 128,
        session_counters: true,
    };
    spec
}

/// What a packet carries.
#[derive(Clone, Copy, Debug)]
enum What {
    Udp(u16),
    /// Flags: FIN, SYN, RST, PSH, ACK as on the wire.
    Tcp(u8),
    Echo(bool),
    /// Another IP protocol.
    Other(u8),
}

fn what() -> impl Strategy<Value = What> {
    let flags = prop_oneof![4 => Just(0x02u8), 4 => Just(0x12), 3 => Just(0x10), 2 => Just(0x11), 1 => Just(0x04)];
    prop_oneof![
        6 => prop_oneof![8 => 0..100u16, 1 => 1400..1473u16].prop_map(What::Udp),
        8 => flags.prop_map(What::Tcp),
        3 => prop::bool::weighted(0.7).prop_map(What::Echo),
        1 => any::<u8>().prop_map(What::Other),
    ]
}

/// In how many pieces a packet comes.
#[derive(Clone, Debug)]
enum Form {
    /// One, atomic (RFC 6864 §4).
    Atomic,
    /// One, which may be cut up, with this identification.
    Loose(u16),
    /// A longer datagram, which comes in fragments: which, in units of 8 bytes. They may repeat or overlap each other, be tiny, or
    /// leave something out.
    Fragments(u16, Vec<(u16, u16)>),
}

/// Units of a datagram that comes in fragments.
const UNITS: u16 = 12;

fn form() -> impl Strategy<Value = Form> {
    let cuts = (1..UNITS, 1..UNITS).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let whole = cuts.prop_map(|(one, other)| match one == other {
        true => vec![(0, one), (one, UNITS)],
        false => vec![(0, one), (one, other), (other, UNITS)],
    });
    let stray = (0..UNITS, 0..4u16).prop_map(|(start, len)| (start, (start + len).min(UNITS)));
    let spoiled =
        (whole.clone(), prop::collection::vec(stray, 0..3)).prop_map(|(whole, stray)| [whole, stray].concat());
    // Few identifications: datagrams get into each other's way.
    prop_oneof![
        12 => Just(Form::Atomic),
        2 => (0..4u16).prop_map(Form::Loose),
        2 => (0..4u16, whole.prop_shuffle()).prop_map(|(id, parts)| Form::Fragments(id, parts)),
        2 => (0..4u16, spoiled.prop_shuffle(), any::<Index>()).prop_map(|(id, mut parts, lost)| {
            parts.truncate(1 + lost.index(parts.len()));
            Form::Fragments(id, parts)
        }),
    ]
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A packet of an inside host to a server.
    Out { host: usize, port: u16, server: usize, server_port: u16, what: What, ttl: u8, form: Form },
    /// An answer to a frame that was sent, perhaps from another port.
    Answer { nth: Index, what: Option<What>, other_port: bool, form: Form },
    /// A packet of an inside host to the external end of one that was sent out, or near it: a hairpin.
    Hairpin { host: usize, port: u16, nth: Index, what: What, ttl: u8, other_port: bool, form: Form },
    /// From outside to an external address, a host, or the gateway.
    Knock { to: usize, port: u16, server: usize, what: What, form: Form },
    /// An ICMP error about a frame that was sent, quoting so much of it.
    Error { nth: Index, kind: u8, code: u8, quoted: usize },
    /// A frame as before, with bytes changed or cut off.
    Mutant { nth: Index, changes: Vec<(Index, u8)>, cut: Option<Index> },
    /// Bytes behind a proper Ethernet header.
    Noise { interface: usize, ethertype: u16, bytes: Vec<u8> },
    /// Time passes; timers fire, or are late.
    Pass { millis: u64, settle: bool },
    /// A neighbour is found, is stale, or fails.
    Neighbour { which: usize, state: u8 },
}

const SERVERS: usize = 4;
const PORTS: [u16; 4] = [1000, 1001, 1030, 5000];

fn step() -> impl Strategy<Value = Step> {
    let port = || prop::sample::select(PORTS.to_vec());
    let ttl = prop_oneof![6 => Just(64u8), 1 => 0..3u8];
    let time = prop_oneof![3 => 0..2_000u64, 3 => 0..130_000u64, 1 => 0..400_000u64, 1 => 0..8_000_000u64];
    prop_oneof![
        12 => (0..6usize, port(), 0..SERVERS, 0..2u16, what(), ttl.clone(), form()).prop_map(
            |(host, port, server, at, what, ttl, form)| Step::Out { host, port, server, server_port: 53 + at, what, ttl, form }),
        10 => (any::<Index>(), prop::option::weighted(0.3, what()), prop::bool::weighted(0.2), form())
            .prop_map(|(nth, what, other_port, form)| Step::Answer { nth, what, other_port, form }),
        4 => (0..6usize, port(), any::<Index>(), what(), ttl, prop::bool::weighted(0.2), form()).prop_map(
            |(host, port, nth, what, ttl, other_port, form)| Step::Hairpin { host, port, nth, what, ttl, other_port, form }),
        3 => (0..8usize, prop_oneof![port(), 960..1087u16, Just(8080), Just(27_003)], 0..SERVERS, what(), form())
            .prop_map(|(to, port, server, what, form)| Step::Knock { to, port, server, what, form }),
        2 => (any::<Index>(), prop::sample::select(vec![3u8, 4, 5, 11, 12]), 0..16u8, 20..100usize)
            .prop_map(|(nth, kind, code, quoted)| Step::Error { nth, kind, code, quoted }),
        2 => (any::<Index>(), prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), prop::option::of(any::<Index>()))
            .prop_map(|(nth, changes, cut)| Step::Mutant { nth, changes, cut }),
        1 => (0..3usize, prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88cc]), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(interface, ethertype, bytes)| Step::Noise { interface, ethertype, bytes }),
        2 => (time, any::<bool>()).prop_map(|(millis, settle)| Step::Pass { millis, settle }),
        3 => (0..NEIGHBOURS.len(), 0..4u8).prop_map(|(which, state)| Step::Neighbour { which, state }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..160)
}

/// Those who may be resolved: more than the table holds.
const NEIGHBOURS: [(InterfaceId, [u8; 4]); 8] = [
    (OUTSIDE, [198, 51, 100, 1]),
    (INSIDE, [192, 168, 1, 10]),
    (INSIDE, [192, 168, 1, 11]),
    (INSIDE, [192, 168, 1, 25]),
    (INSIDE, [192, 168, 1, 2]),
    (GUESTS, [192, 168, 20, 5]),
    (GUESTS, [192, 168, 20, 6]),
    (OUTSIDE, [198, 51, 100, 9]),
];

fn server(which: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, which as u8)
}

/// A host and the interface that it is on.
fn host(which: usize) -> (InterfaceId, Ipv4Addr) {
    match which {
        0 => (INSIDE, Ipv4Addr::new(192, 168, 1, 10)),
        1 => (INSIDE, Ipv4Addr::new(192, 168, 1, 11)),
        2 => (INSIDE, Ipv4Addr::new(192, 168, 1, 25)),
        3 => (INSIDE, Ipv4Addr::new(192, 168, 77, 7)),
        4 => (GUESTS, Ipv4Addr::new(192, 168, 20, 5)),
        _ => (GUESTS, Ipv4Addr::new(192, 168, 20, 6)),
    }
}

/// An IPv4 frame toward the gateway, on the wire of an interface.
fn frame(ingress: InterfaceId, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), what: What, ttl: u8) -> Vec<u8> {
    long_frame(ingress, from, to, what, ttl, 0)
}

/// The same with more payload.
fn long_frame(
    ingress: InterfaceId,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    what: What,
    ttl: u8,
    more: usize,
) -> Vec<u8> {
    let more = vec![0x5a; more];
    let vlan = (ingress == GUESTS).then_some(GUEST_VLAN);
    let mac = MACS[usize::from(ingress != INSIDE)];
    let link = PacketBuilder::ethernet2(PEER.0, mac.0);
    let builder = match vlan {
        Some(vlan) => link.single_vlan(vlan.try_into().unwrap()).ipv4(from.0.octets(), to.0.octets(), ttl),
        None => link.ipv4(from.0.octets(), to.0.octets(), ttl),
    };
    let mut frame = Vec::new();
    match what {
        What::Udp(len) => {
            let payload = [&vec![0x5a; usize::from(len)][..], &more].concat();
            builder.udp(from.1, to.1).write(&mut frame, &payload).unwrap();
        }
        What::Tcp(flags) => {
            let mut tcp = etherparse::TcpHeader::new(from.1, to.1, 1000, 65_000);
            (tcp.fin, tcp.syn, tcp.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            (tcp.psh, tcp.ack) = (flags & 8 != 0, flags & 16 != 0);
            tcp.acknowledgment_number = 1000;
            builder.tcp_header(tcp).write(&mut frame, &more).unwrap();
        }
        What::Echo(request) => {
            let payload = [b"ping", &more[..]].concat();
            let echo =
                if request { builder.icmpv4_echo_request(from.1, 1) } else { builder.icmpv4_echo_reply(to.1, 1) };
            echo.write(&mut frame, &payload).unwrap();
        }
        What::Other(protocol) => {
            let payload = [&[0x5a; 24], &more[..]].concat();
            builder.write(&mut frame, etherparse::IpNumber(protocol), &payload).unwrap();
        }
    }
    frame
}

/// The same as it comes in a form.
fn frames(
    ingress: InterfaceId,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    (what, ttl, form): (What, u8, &Form),
) -> Vec<Vec<u8>> {
    match form {
        Form::Atomic => vec![frame(ingress, from, to, what, ttl)],
        Form::Loose(id) => vec![fragmentable(&frame(ingress, from, to, what, ttl), *id)],
        Form::Fragments(id, parts) => {
            let whole = long_frame(ingress, from, to, what, ttl, usize::from(UNITS) * 8);
            parts
                .iter()
                .map(|&(start, end)| units_of(&whole, start, if end == UNITS { u16::MAX / 8 } else { end }, *id))
                .collect()
        }
    }
}

/// What is done to an engine: the same whatever the bursts.
#[derive(Clone, Debug)]
enum Op {
    Frame(PortId, Vec<u8>),
    Pass(Duration, bool),
    Neighbour(NeighbourUpdate),
}

/// What comes out of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    frames: Vec<(InterfaceId, Vec<u8>)>,
    events: Vec<String>,
    stories: Vec<String>,
}

/// An engine without a worker.
struct Bench {
    engine: Engine<HeapPacket>,
    plan: Arc<Plan>,
    leases: Arc<Leases>,
    counters: Arc<Counters>,
    pool: HeapPool,
    out: Output<HeapPacket>,
    now: Time,
    seen: Seen,
}

/// Packets for ICMP errors and for what is cut up: more than a burst asks for, as what a burst has sent is only given back behind
/// it.
const PACKETS: usize = 256;

impl Bench {
    fn new(spec: Spec) -> Bench {
        let plan = Arc::new(Plan::compile(spec).expect("a plan"));
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let now = Time::from_secs(1000);
        let mut engine = Engine::new(Arc::clone(&plan), Arc::clone(&leases), Arc::clone(&counters), now);
        engine.set_tracing(true);
        let out = Output::new(&plan.spec.limits);
        Bench { engine, plan, leases, counters, pool: HeapPool::new(PACKETS), out, now, seen: Seen::default() }
    }

    fn burst(&mut self, frames: &[(PortId, Vec<u8>)]) -> Vec<Trace> {
        let packets = frames.iter().map(|(port, frame)| (*port, HeapPacket::from_frame(frame)));
        let mut burst: Received<HeapPacket> = packets.collect();
        self.engine.process(&mut burst, self.now, &mut self.pool, &mut self.out);
        assert!(burst.is_empty());
        self.collect()
    }

    fn run(&mut self, op: &Op) -> Vec<Trace> {
        match op {
            Op::Frame(port, frame) => return self.burst(&[(*port, frame.clone())]),
            Op::Pass(time, settle) => {
                self.now = self.now + *time;
                if *settle {
                    self.engine.settle(self.now);
                }
            }
            Op::Neighbour(update) => {
                let message = ToWorker::Neighbour(*update);
                assert!(self.engine.apply(message, self.now, &mut self.pool, &mut self.out));
            }
        }
        self.collect()
    }

    /// What a worker does: sends, tells, frees.
    fn collect(&mut self) -> Vec<Trace> {
        for (interface, packet) in self.out.transmit.drain(..) {
            self.counters.transmitted.add(1);
            self.seen.frames.push((interface, packet.data().to_vec()));
        }
        for event in self.out.events.drain(..) {
            match event {
                FromWorker::Punt { interface, packet } => {
                    self.counters.punted.add(1); // as the worker does, when it has handed it over
                    self.seen.events.push(format!("punt {interface:?} {:02x?}", packet.data()));
                }
                FromWorker::Spent(_) | FromWorker::Swept { .. } | FromWorker::Walked(_) | FromWorker::Moved(_) => {}
                event => self.seen.events.push(format!("{event:?}")),
            }
        }
        self.out.dropped.clear();
        let stories = self.engine.take_traces();
        self.seen.stories.extend(stories.iter().map(|story| format!("{story:?}")));
        stories
    }

    /// Every session and mapping, with the shard that has it.
    fn state(&self) -> Vec<String> {
        let of = |shard: &dataplane::session::Shard| {
            let sessions: Vec<_> = shard.sessions().map(|session| format!("{session:?}")).collect();
            let mappings: Vec<_> = shard.mappings().map(|mapping| format!("{mapping:?}")).collect();
            let counts: Vec<_> = shard.counts().collect();
            format!("{:?}: {sessions:?} {counts:?} {mappings:?}", shard.id())
        };
        self.engine.shards().iter().map(of).collect()
    }

    fn tally(&self) -> tally::Tally {
        tally::tally(&self.counters, &self.plan.spec.interfaces)
    }

    /// No external endpoint has two owners; ports, gauges, tables and leases agree; nothing is lost.
    fn check(&self) {
        assert_eq!(self.counters.imbalance(), 0, "received + from host + originated = where it all went");
        let (mut sessions, mut live, mut held) = (0, 0, 0);
        let mut ends = HashSet::new();
        let (mut inside, mut outside) = (HashSet::new(), HashSet::new());
        let mut used: BTreeMap<u32, [u32; 3]> = BTreeMap::new();
        for shard in self.engine.shards() {
            for mapping in shard.mappings() {
                let end = (mapping.external, mapping.external_port, mapping.proto);
                assert!(ends.insert(end), "{end:?} has two owners");
                let owner = self.leases.owner(mapping.external.into(), mapping.external_port);
                assert_eq!(owner, Owner::Shard(shard.id()), "who has the mapping has the lease");
                let range = &self.plan.spec.pools[usize::from(mapping.pool)].ports;
                assert!(range.contains(&mapping.external_port), "of the pool's ports");
                used.entry(u32::from(mapping.external)).or_default()[mapping.proto.index()] += 1;
                if mapping.sessions > 0 { live += 1 } else { held += 1 }
            }
            for session in shard.sessions() {
                sessions += 1;
                assert!(outside.insert((session.outside(), session.proto)), "one session per outside tuple");
                assert!(inside.insert((session.inside(), session.proto)), "one session per inside tuple");
                assert_eq!(ShardId(shard.id().0), dataplane::steer::shard_of4(session.inside().source));
                if let Some(mapping) = shard.mapping(session.mapping) {
                    let external = self.plan.externals[usize::from(mapping.external)].address;
                    assert_eq!(
                        (session.outside().source, session.outside().source_port),
                        (external, mapping.external_port)
                    );
                    assert_eq!(
                        (session.inside().source, session.inside().source_port),
                        (mapping.inside, mapping.inside_port)
                    );
                    assert_eq!(session.proto, mapping.proto);
                }
            }
        }
        for (id, _) in (0..).zip(&self.plan.externals) {
            assert_eq!(self.leases.ports_used(id), used.get(&id).copied().unwrap_or_default(), "ports conserved");
        }
        let gauge = |counters: &[Counter]| counters.iter().map(Counter::get).sum::<u64>();
        assert_eq!(gauge(&self.counters.sessions), sessions);
        assert_eq!(gauge(&self.counters.mappings), live);
        assert_eq!(self.counters.mappings_held.get(), held);
    }
}

/// Carries the steps out one by one, and notes what was done.
struct Script {
    bench: Bench,
    ops: Vec<Op>,
    sent: Vec<(InterfaceId, Vec<u8>)>,
    /// A frame with an inside source came from outside, and may have gone back there.
    spoofed: bool,
}

impl Script {
    fn run(steps: &[Step]) -> Script {
        let mut script = Script { bench: Bench::new(cramped()), ops: Vec::new(), sent: Vec::new(), spoofed: false };
        for (interface, address) in &NEIGHBOURS[..2] {
            let state = NeighbourState::Reachable(PEER);
            script.op(Op::Neighbour(NeighbourUpdate { interface: *interface, address: IpAddr::from(*address), state }));
        }
        for step in steps {
            script.step(step);
        }
        script
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Out { host: which, port, server: to, server_port, what, ttl, form } => {
                let (ingress, address) = host(*which);
                let (from, to) = ((address, *port), (server(*to), *server_port));
                self.send_all(ingress, frames(ingress, from, to, (*what, *ttl, form)));
            }
            Step::Hairpin { host: which, port, nth, what, ttl, other_port, form } => {
                let (ingress, address) = host(*which);
                let out: Vec<_> = self.bench.seen.frames.iter().filter(|(to, _)| *to == OUTSIDE).cloned().collect();
                let Some((end, ..)) = pick(&out, nth).and_then(|(_, frame)| ends(&frame)) else { return };
                let to = (end.0, end.1 ^ u16::from(*other_port));
                self.send_all(ingress, frames(ingress, (address, *port), to, (*what, *ttl, form)));
            }
            Step::Answer { nth, what, other_port, form } => {
                let Some((interface, sent)) = self.seen(nth) else { return };
                let Some((from, to, was)) = ends(&sent) else { return };
                let what = what.unwrap_or(match was {
                    What::Tcp(0x02) => What::Tcp(0x12),
                    What::Echo(request) => What::Echo(!request),
                    other => other,
                });
                let to = (to.0, to.1 ^ u16::from(*other_port));
                self.send_all(interface, frames(interface, to, from, (what, 64, form)));
            }
            Step::Knock { to, port, server: from, what, form } => {
                let to = match to {
                    0 | 1 => Ipv4Addr::new(203, 0, 113, 5),
                    2 => Ipv4Addr::new(203, 0, 113, 6),
                    3 => Ipv4Addr::new(203, 0, 113, 60),
                    4 => Ipv4Addr::new(192, 168, 1, 10),
                    5 => Ipv4Addr::new(198, 51, 100, 2),
                    6 => Ipv4Addr::new(198, 51, 100, 9),
                    _ => Ipv4Addr::new(255, 255, 255, 255),
                };
                self.send_all(OUTSIDE, frames(OUTSIDE, (server(*from), 53), (to, *port), (*what, 64, form)));
            }
            Step::Error { nth, kind, code, quoted } => {
                let Some((interface, sent)) = self.seen(nth) else { return };
                let ip = &sent[link_len(&sent)..];
                let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
                let quote = &ip[..ip.len().min(*quoted)];
                let router = if interface == OUTSIDE { server(9) } else { Ipv4Addr::new(192, 168, 1, 2) };
                self.send(interface, error_frame(interface, router, source, *kind, *code, quote));
            }
            Step::Mutant { nth, changes, cut } => {
                let Some((interface, mut frame)) = pick(&self.sent, nth) else { return };
                for (at, value) in changes {
                    let at = at.index(frame.len().max(1));
                    frame.get_mut(at).into_iter().for_each(|byte| *byte = *value);
                }
                if let Some(cut) = cut {
                    frame.truncate(cut.index(frame.len() + 1));
                }
                self.send(interface, frame);
            }
            Step::Noise { interface, ethertype, bytes } => {
                let interface = InterfaceId(*interface as u16);
                let mut frame = MACS[usize::from(interface != INSIDE)].0.to_vec();
                frame.extend(PEER.0);
                frame.extend(ethertype.to_be_bytes());
                frame.extend(bytes);
                self.send(interface, frame);
            }
            Step::Pass { millis, settle } => self.op(Op::Pass(Duration::from_millis(*millis), *settle)),
            Step::Neighbour { which, state } => {
                let (interface, address) = NEIGHBOURS[*which];
                let state = match state {
                    0 => NeighbourState::Failed,
                    1 => NeighbourState::Stale(PEER),
                    _ => NeighbourState::Reachable(PEER),
                };
                self.op(Op::Neighbour(NeighbourUpdate { interface, address: address.into(), state }));
            }
        }
    }

    /// One of the IPv4 frames that left.
    fn seen(&self, nth: &Index) -> Option<(InterfaceId, Vec<u8>)> {
        pick(&self.bench.seen.frames, nth).filter(|(_, frame)| frame[link_len(frame) - 2..][..2] == [8, 0])
    }

    fn send_all(&mut self, interface: InterfaceId, frames: Vec<Vec<u8>>) {
        frames.into_iter().for_each(|frame| self.send(interface, frame));
    }

    fn send(&mut self, interface: InterfaceId, frame: Vec<u8>) {
        self.sent.push((interface, frame.clone()));
        let port = self.bench.plan.interface(interface).expect("an interface").port;
        self.op(Op::Frame(port, frame));
    }

    /// Does it, and looks whether all is in order.
    fn op(&mut self, op: Op) {
        let bench = &mut self.bench;
        let (now, sent) = (bench.now, bench.seen.frames.len());
        let created = bench.counters.session_creations.get();
        let over: Vec<_> = bench
            .engine
            .shards()
            .iter()
            .flat_map(dataplane::session::Shard::sessions)
            .filter(|session| session.deadline <= now)
            .flat_map(|session| [(session.proto, session.inside()), (session.proto, session.outside().reversed())])
            .collect();
        let stories = bench.run(&op);
        if let Op::Frame(port, frame) = &op {
            self.spoofed |= *port == PortId(1) && is_untagged(frame) && source(frame) == Some([192, 168]);
            assert_eq!(stories.iter().filter(|story| !story.resumed).count(), 1, "every packet has one disposal");
            // What a packet before it, which waited for this one, has made anew may be used.
            let made = bench.counters.session_creations.get() > created;
            for story in stories.iter().filter(|_| !made) {
                let (SessionStep::Hit, Some(before)) = (story.session, story.before) else { continue };
                let used = over.iter().any(|(proto, tuple)| {
                    dataplane::pool::Proto::from_ip(before.protocol) == Some(*proto)
                        && before.source == IpAddr::from(Ipv4Addr::from_bits(tuple.source))
                        && before.destination == IpAddr::from(Ipv4Addr::from_bits(tuple.destination))
                        && (before.source_port, before.destination_port) == (tuple.source_port, tuple.destination_port)
                });
                assert!(!used, "a session was used past its deadline: {story:?}");
            }
        }
        bench.check();
        for (interface, frame) in &bench.seen.frames[sent..] {
            let ip = &frame[link_len(frame)..];
            assert_eq!(ip[0] >> 4, 4);
            let leaked = *interface == OUTSIDE && ip[12..16].starts_with(&[192, 168]);
            assert!(!leaked || self.spoofed, "an inside address leaked: {frame:02x?}");
            assert_eq!(usize::from(word(ip, 2)), ip.len(), "no padding");
            assert_eq!(sum(&ip[..usize::from(ip[0] & 15) * 4]), 0, "IPv4 header checksum");
            assert!(ip[8] > 0, "TTL");
        }
        self.ops.push(op);
    }

    /// Waits until every timer has run out and every neighbour is known: everything is back.
    fn rest(&mut self) {
        for (interface, address) in NEIGHBOURS {
            let state = NeighbourState::Failed;
            self.op(Op::Neighbour(NeighbourUpdate { interface, address: address.into(), state }));
        }
        for _ in 0..3 {
            self.op(Op::Pass(Duration::from_secs(7500), true));
        }
        // The errors about what had waited may themselves wait; they fail without another.
        for _ in 0..2 {
            for (interface, address) in NEIGHBOURS {
                let state = NeighbourState::Failed;
                self.op(Op::Neighbour(NeighbourUpdate { interface, address: address.into(), state }));
            }
        }
    }
}

fn pick(frames: &[(InterfaceId, Vec<u8>)], nth: &Index) -> Option<(InterfaceId, Vec<u8>)> {
    (!frames.is_empty()).then(|| frames[nth.index(frames.len())].clone())
}

/// Whether a frame belongs to the untagged interface: it has no tag, or VLAN 0 in it.
fn is_untagged(frame: &[u8]) -> bool {
    frame.get(12..14) != Some(&[0x81, 0]) || frame.get(14..16).is_some_and(|tag| (tag[0] & 15, tag[1]) == (0, 0))
}

/// The first half of an IPv4 source address.
fn source(frame: &[u8]) -> Option<[u8; 2]> {
    frame.get(13)?;
    frame.get(link_len(frame) + 12..)?.first_chunk().copied()
}

/// The ends of an IPv4 frame that was sent, and what it carries.
#[allow(clippy::type_complexity)]
fn ends(frame: &[u8]) -> Option<((Ipv4Addr, u16), (Ipv4Addr, u16), What)> {
    let ip = frame.get(link_len(frame)..)?;
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let transport = ip.get(usize::from(ip[0] & 15) * 4..).filter(|transport| transport.len() >= 8)?;
    let (source, destination, what) = match (ip[9], transport[0]) {
        (6, _) => (word(transport, 0), word(transport, 2), What::Tcp(*transport.get(13)?)),
        (17, _) => (word(transport, 0), word(transport, 2), What::Udp(8)),
        (1, 8) => (word(transport, 4), 0, What::Echo(true)),
        (1, 0) => (0, word(transport, 4), What::Echo(false)),
        _ => return None,
    };
    Some(((address(12), source), (address(16), destination), what))
}

/// Where two lists part, and what each has there.
fn first_difference<T: PartialEq + Clone>(a: &[T], b: &[T]) -> Option<(usize, Option<T>, Option<T>)> {
    let at = (0..a.len().max(b.len())).find(|&at| a.get(at) != b.get(at))?;
    Some((at, a.get(at).cloned(), b.get(at).cloned()))
}

fn error_frame(ingress: InterfaceId, from: Ipv4Addr, to: Ipv4Addr, kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    let mut plain = frame(ingress, (from, 0), (to, 0), What::Other(1), 64);
    plain.truncate(link_len(&plain) + 20);
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    icmp.extend(quote);
    let checksum = !(sum(&icmp) as u16);
    set_word(&mut icmp, 2, checksum);
    let at = plain.len() - 20;
    set_word(&mut plain, at + 2, 20 + icmp.len() as u16);
    set_word(&mut plain, at + 10, 0);
    let header = !(sum(&plain[at..]) as u16);
    set_word(&mut plain, at + 10, header);
    plain.extend(icmp);
    plain
}

proptest! {
    /// Design rule 4: any cutting of a sequence into bursts gives the same frames, counters, stories and state. So does the
    /// short way, which packets take when no stories are told.
    #[test]
    fn bursts_may_be_cut_anywhere(steps in steps(), cuts in prop::collection::vec(1..=32usize, 1..40)) {
        let one_by_one = Script::run(&steps);
        for stories in [true, false] {
            let mut bench = Bench::new(cramped());
            bench.engine.set_tracing(stories);
            let mut sizes = cuts.iter().cycle();
            let mut burst = Vec::new();
            let mut room = *sizes.next().unwrap_or(&1);
            for op in &one_by_one.ops {
                if let Op::Frame(port, frame) = op {
                    burst.push((*port, frame.clone()));
                    if burst.len() < room {
                        continue;
                    }
                }
                bench.burst(&burst);
                burst.clear();
                room = *sizes.next().unwrap_or(&1);
                if !matches!(op, Op::Frame(..)) {
                    bench.run(op);
                }
            }
            bench.burst(&burst);
            bench.check();
            let (seen, expected) = (&bench.seen, &one_by_one.bench.seen);
            if stories {
                prop_assert_eq!(first_difference(&seen.stories, &expected.stories), None);
            }
            prop_assert_eq!(first_difference(&seen.frames, &expected.frames), None);
            prop_assert_eq!(first_difference(&seen.events, &expected.events), None);
            prop_assert_eq!(first_difference(&bench.state(), &one_by_one.bench.state()), None);
            prop_assert_eq!(bench.tally(), one_by_one.bench.tally());
        }
    }

    /// N44-06, TCP-14, MIB-06: whatever happens, no external endpoint has two owners, no session is used past its
    /// deadline, no inside address leaks, and every packet is counted (all this after each step, see `Script::op`). When
    /// all timers have run out, everything that was taken is back.
    #[test]
    fn n44_06_every_port_has_one_owner_and_comes_back(steps in steps()) {
        let fresh = Bench::new(cramped());
        let mut script = Script::run(&steps);
        script.rest();
        let bench = &script.bench;
        prop_assert_eq!(bench.engine.arenas().free(), fresh.engine.arenas().free());
        for (id, _) in (0..).zip(&bench.plan.externals) {
            prop_assert_eq!(bench.leases.free_blocks(id), fresh.leases.free_blocks(id));
            prop_assert_eq!(bench.leases.ports_used(id), [0; 3]);
        }
        let counters = &bench.counters;
        let now: u64 = counters.sessions.iter().chain(&counters.mappings).chain([&counters.mappings_held, &counters.held])
            .map(Counter::get).sum();
        prop_assert_eq!(now, 0);
        prop_assert_eq!(bench.pool.free(), PACKETS);
        prop_assert_eq!(counters.session_creations.get(), counters.session_timeouts.get() + counters.session_replacements.get());
    }

    /// Frames of any bytes, also behind the beginnings of proper ones: no panic, one disposal each.
    #[test]
    fn rtr_12_any_bytes_have_one_disposal(
        frames in prop::collection::vec((0..3usize, prop::collection::vec(any::<u8>(), 0..200), 0..80usize, any::<u8>()), 1..60),
    ) {
        let mut bench = Bench::new(cramped());
        for (interface, bytes, keep, protocol) in frames {
            let interface = InterfaceId(interface as u16);
            let proper = frame(interface, (host(0).1, 1000), (server(0), 53), What::Other(protocol), 64);
            let mut bytes = [&proper[..keep.min(proper.len())], &bytes[..]].concat();
            // Half of them with an IPv4 header whose length and checksum hold, so that what is behind it is read.
            if keep % 2 == 0 && bytes.len() >= link_len(&proper) + 20 {
                let at = link_len(&proper);
                let total = (bytes.len() - at) as u16;
                bytes[..at].copy_from_slice(&proper[..at]);
                let ip = &mut bytes[at..];
                ip[0] = 0x45 + (protocol & 1);
                set_word(ip, 2, total);
                set_word(ip, 10, 0);
                let header = usize::from(ip[0] & 15) * 4;
                if ip.len() >= header {
                    let checksum = !(sum(&ip[..header]) as u16);
                    set_word(ip, 10, checksum);
                }
            }
            let port = PortId(u16::from(interface != INSIDE));
            prop_assert_eq!(bench.burst(&[(port, bytes)]).len(), 1);
            bench.check();
        }
    }
}

/// ICM-16: an ICMP error that quotes any protocol at any length never panics and is either translated, because it quotes
/// a flow, or dropped by one of the names of unreadable errors.
#[test]
fn icm_16_any_quoted_protocol_of_any_length() {
    let mut bench = Bench::new(Spec { limits: Limits::default(), ..cramped() });
    for (interface, address) in NEIGHBOURS {
        let update = NeighbourUpdate { interface, address: address.into(), state: NeighbourState::Reachable(PEER) };
        bench.run(&Op::Neighbour(update));
    }
    let (inside, outside) = ((host(0).1, 1000), (server(0), 53));
    bench.burst(&[(PortId(0), frame(INSIDE, inside, outside, What::Udp(100), 64))]);
    let (_, sent) = bench.seen.frames.pop().expect("sent");
    let named = [Drop::IcmpErrorQuote, Drop::IcmpErrorProtocol, Drop::IcmpErrorNoSession];
    let mut translated = 0;
    for (protocol, quoted, kind) in (0..=255u8)
        .flat_map(|protocol| (0..=64usize).flat_map(move |len| [3u8, 11, 12].map(|kind| (protocol, len, kind))))
    {
        let mut quote = sent[14..].to_vec();
        quote[9] = protocol;
        set_word(&mut quote, 10, 0);
        let header = !(sum(&quote[..20]) as u16);
        set_word(&mut quote, 10, header);
        let to = Ipv4Addr::new(quote[12], quote[13], quote[14], quote[15]);
        let before: u64 = named.iter().map(|reason| bench.counters.drops(*reason)).sum();
        bench.burst(&[(PortId(1), error_frame(OUTSIDE, server(9), to, kind, 0, &quote[..quoted]))]);
        let dropped = named.iter().map(|reason| bench.counters.drops(*reason)).sum::<u64>() - before;
        let frames = bench.seen.frames.drain(..).count() as u64;
        assert_eq!(frames + dropped, 1, "protocol {protocol}, {quoted} bytes");
        assert_eq!(frames == 1, protocol == 17 && quoted >= 28, "protocol {protocol}, {quoted} bytes");
        translated += frames;
        bench.check();
    }
    assert_eq!(translated, 3 * (64 - 27));
}

/// N44-22: a flow that is refused because the session table is full takes no port and no mapping, not even for the time
/// of a hold-down: the table's capacity says how many there are, whatever floods it.
#[test]
fn n44_22_a_refused_session_takes_no_port() {
    let limits = Limits { sessions: 1, mappings: 10, ..Limits::default() };
    let filtering = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let mut lab = Lab::new(Spec { limits, nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() });
    let host = Ipv4Addr::new(192, 168, 1, 10);
    lab.neighbour(INSIDE, host.into(), NeighbourState::Reachable(PEER));
    let flow = |port| common::udp(INSIDE, (host, port), common::end("198.18.0.1:53"), b"");
    lab.pass(INSIDE, &flow(4000), OUTSIDE);
    lab.counted(
        "received, inside-received, nat44-out, transmitted, outside-transmitted, session-creations,
         sessions-udp-active, mapping-creations, mappings-udp",
    );
    let refused: Vec<_> = (4001..4021).map(flow).collect();
    assert!(lab.send_all(INSIDE, &refused).frames.iter().all(|(to, _)| *to == INSIDE));
    lab.counted(
        "received 20, inside-received 20, drop-session-table-full 20, mapping-failures-memory 20, originated 20,
         icmp4-3/1 20, transmitted 20, inside-transmitted 20",
    );
    assert_eq!(lab.leases.ports_used(0), [0, 1, 0]);
}
