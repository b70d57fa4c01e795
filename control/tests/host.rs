//! The host, driven from outside in virtual time.
//!
//! Expected frames were made by scapy 2.5; packets going in are built, and packets coming out dissected, by etherparse or by
//! hand after the RFC's picture. Nothing here is compared with the host's own writer.
#![allow(clippy::cast_possible_truncation, missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use control::host::{Host, Ignored, Notice, NudState, SETTLING, link_local};
use dataplane::message::{NeighbourState, ToWorker};
use dataplane::plan::{
    CrossingSpec, Filtering, ForwardProtocol, InterfaceId, InterfaceSpec, IpPrefix, MacAddr, MssClamp, NextHop, Plan,
    PoolSpec, PortForward, PortId, PortSpec, PrefixKind, PrefixRule, RouteSpec, Spec, StaticNat, ZoneId,
};
use dataplane::pool::Leases;
use dataplane::time::Time;
use dataplane::translate::eam::{Hairpin, Row, Table};
use dataplane::translate::siit::Settings;
use etherparse::{Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const INSIDE: InterfaceId = InterfaceId(0);
const UPLINK: InterfaceId = InterfaceId(1);

/// The gateway on its uplink, the router there, a third station, and a host inside.
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GATEWAY_INSIDE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 1, 9];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 10];
const EVERYBODY: [u8; 6] = [0xff; 6];
const NOBODY: [u8; 6] = [0; 6];

const GATEWAY4: [u8; 4] = [198, 51, 100, 2];
const ROUTER4: [u8; 4] = [198, 51, 100, 1];
const INSIDE4: [u8; 4] = [192, 168, 1, 1];
const CLIENT4: [u8; 4] = [192, 168, 1, 10];

// Made by scapy.
const GRATUITOUS: &str = "ffffffffffff02000000000208060001080006040001020000000002c6336402000000000000c6336402";
const ARP_REQUEST: &str = "ffffffffffff02000000000208060001080006040001020000000002c6336402000000000000c6336401";
const ARP_PROBE: &str = "02000000010102000000000208060001080006040001020000000002c6336402000000000000c6336401";
const ARP_REPLY: &str = "02000000010102000000000208060001080006040002020000000002c6336402020000000101c6336401";
const DAD_GLOBAL: &str = "3333ff00000202000000000286dd6000000000183aff00000000000000000000000000000000\
    ff0200000000000000000001ff00000287004cdc0000000020010db8000f00000000000000000002";
const DAD_LINK_LOCAL: &str = "3333ff00000202000000000286dd6000000000183aff00000000000000000000000000000000\
    ff0200000000000000000001ff00000287007d2300000000fe80000000000000000000fffe000002";
const UNSOLICITED_GLOBAL: &str = "33330000000102000000000286dd6000000000203aff20010db8000f00000000000000000002\
    ff02000000000000000000000000000188007909a000000020010db8000f000000000000000000020201020000000002";
const UNSOLICITED_LINK_LOCAL: &str = "33330000000102000000000286dd6000000000203afffe80000000000000000000fffe000002\
    ff0200000000000000000000000000018800d997a0000000fe80000000000000000000fffe0000020201020000000002";
const SOLICITATION: &str = "3333ff00000102000000000286dd6000000000203afffe80000000000000000000fffe000002\
    ff0200000000000000000001ff00000187004c500000000020010db8000f000000000000000000010101020000000002";
const UNICAST_SOLICITATION: &str = "02000000010102000000000286dd6000000000203afffe80000000000000000000fffe000002\
    20010db8000f0000000000000000000187001c8d0000000020010db8000f000000000000000000010101020000000002";
const ADVERTISEMENT: &str = "02000000010102000000000286dd6000000000203aff20010db8000f00000000000000000002\
    20010db8000f0000000000000000000188000a44e000000020010db8000f000000000000000000020201020000000002";
const PROXY_ADVERTISEMENT: &str = "02000000010102000000000286dd6000000000203afffe80000000000000000000fffe000002\
    20010db8000f000000000000000000018800da87c000000020010db8000f000080000000000000050201020000000002";
const PROXY_DEFENCE: &str = "33330000000102000000000286dd6000000000203afffe80000000000000000000fffe000002\
    ff0200000000000000000000000000018800494d8000000020010db8000f000080000000000000050201020000000002";
const PING6: &str = "02000000000202000000010186dd6000000000103a4020010db8000f00000000000000000001\
    20010db8000f0000000000000000000280008057123400016162636465666768";
const PONG6: &str = "6000000000103a4020010db8000f0000000000000000000220010db8000f00000000000000000001\
    81007f57123400016162636465666768";

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn prefix(text: &str) -> IpPrefix {
    let (address, len) = text.split_once('/').unwrap();
    IpPrefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
}

fn interface(name: &str, zone: u8, mac: [u8; 6], addresses: &[&str]) -> InterfaceSpec {
    InterfaceSpec {
        name: name.into(),
        port: PortId(u16::from(zone)),
        vlan: None,
        outer_vlan: None,
        zone: ZoneId(zone),
        mac: MacAddr(mac),
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        mtu: 1500,
        neighbours: Vec::new(),
        mss_clamp: MssClamp::Off,
    }
}

fn pool(name: &str, first: [u8; 4], last: [u8; 4], proxy_arp: bool, answer_echo: bool) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        addresses: vec![Ipv4Addr::from(first)..=Ipv4Addr::from(last)],
        ports: 1..=65535,
        proxy_arp,
        answer_echo,
    }
}

fn spec() -> Spec {
    let mut inside = interface("inside", 0, GATEWAY_INSIDE, &["192.168.1.1/24"]);
    inside.neighbours.push((IpAddr::from([192, 168, 1, 77]), MacAddr([2, 0, 0, 0, 0, 0x77])));
    let forward = PortForward {
        name: "web".into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        protocol: ForwardProtocol::Tcp,
        external: Ipv4Addr::new(198, 51, 100, 61),
        external_ports: 80..=80,
        inside: CLIENT4.into(),
        inside_port: 80,
        filtering: Filtering::EndpointIndependent,
    };
    let mail = StaticNat {
        name: "mail".into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        external: Ipv4Addr::new(198, 51, 100, 60),
        inside: Ipv4Addr::new(192, 168, 1, 25),
        filtering: Filtering::EndpointIndependent,
    };
    Spec {
        ports: ["lan", "wan"].map(|name| PortSpec { name: name.into() }).into(),
        zones: vec!["inside".into(), "outside".into()],
        interfaces: vec![inside, interface("uplink", 1, GATEWAY, &["198.51.100.2/24", "2001:db8:f::2/64"])],
        pools: vec![
            pool("public", [198, 51, 100, 64], [198, 51, 100, 65], true, true),
            pool("quiet", [198, 51, 100, 128], [198, 51, 100, 143], false, false),
            pool("routed", [203, 0, 113, 0], [203, 0, 113, 15], true, true),
        ],
        forwards: vec![forward],
        static_nat: vec![mail],
        ..Spec::default()
    }
}

/// A message to the workers, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Reachable(InterfaceId, IpAddr, [u8; 6]),
    Stale(InterfaceId, IpAddr, [u8; 6]),
    Failed(InterfaceId, IpAddr),
    Frame(InterfaceId, String),
    Packet(String),
}

fn frame(interface: InterfaceId, hex: &str) -> Seen {
    Seen::Frame(interface, hex.into())
}

struct Lab {
    host: Host,
    now: Time,
}

impl Lab {
    /// Not started.
    fn new(spec: Spec) -> Self {
        let plan = Arc::new(Plan::compile(spec).unwrap());
        Lab { host: Host::new(plan, 1, Time::ZERO), now: Time::ZERO }
    }

    /// Started, all addresses in use, all announcements made.
    fn settled(spec: Spec) -> Self {
        let mut lab = Lab::new(spec);
        lab.host.start(Time::ZERO, &mut Vec::new());
        lab.run(SETTLING);
        lab
    }

    fn call(&mut self, step: impl FnOnce(&mut Host, Time, &mut Vec<ToWorker>)) -> Vec<Seen> {
        let mut out = Vec::new();
        step(&mut self.host, self.now, &mut out);
        out.into_iter()
            .map(|message| match message {
                ToWorker::Neighbour(update) => match update.state {
                    NeighbourState::Reachable(mac) => Seen::Reachable(update.interface, update.address, mac.0),
                    NeighbourState::Stale(mac) => Seen::Stale(update.interface, update.address, mac.0),
                    NeighbourState::Failed => Seen::Failed(update.interface, update.address),
                },
                ToWorker::Frame { interface, frame } => Seen::Frame(interface, hex(&frame)),
                ToWorker::Packet { packet } => Seen::Packet(hex(&packet)),
                other => panic!("the host does not say {other:?}"),
            })
            .collect()
    }

    fn start(&mut self) -> Vec<Seen> {
        self.call(Host::start)
    }

    fn receive(&mut self, interface: InterfaceId, frame: &[u8]) -> Vec<Seen> {
        self.call(|host, now, out| host.receive(interface, frame, now, out))
    }

    fn resolve(&mut self, interface: InterfaceId, address: impl Into<IpAddr>) -> Vec<Seen> {
        self.call(|host, now, out| host.resolve(interface, address.into(), now, out))
    }

    fn used(&mut self, interface: InterfaceId, address: impl Into<IpAddr>) -> Vec<Seen> {
        self.call(|host, now, out| host.neighbour_used(interface, address.into(), now, out))
    }

    fn link(&mut self, port: u16, up: bool) -> Vec<Seen> {
        let mut down = self.host.plan().spec.links_down.clone();
        down.retain(|&it| it != PortId(port));
        down.extend(Some(PortId(port)).filter(|_| !up));
        let plan = Arc::new(self.host.plan().with_links_down(down).unwrap());
        self.call(|host, now, out| host.succeed(plan, now, out))
    }

    /// Lets time pass, polling exactly when the host asks for it; what was said, with the seconds since the call.
    fn run(&mut self, span: Duration) -> Vec<(f64, Seen)> {
        let (start, end) = (self.now, self.now + span);
        let mut seen = Vec::new();
        while let Some(deadline) = self.host.next_deadline().filter(|&deadline| deadline <= end) {
            assert!(deadline >= self.now, "a deadline in the past");
            self.now = deadline;
            let said = self.call(Host::poll);
            seen.extend(said.into_iter().map(|message| (deadline.since(start).as_secs_f64(), message)));
            assert!(self.host.next_deadline().is_none_or(|next| next > deadline), "polled in vain");
        }
        self.now = end;
        seen
    }

    #[track_caller]
    fn ignores(&mut self, interface: InterfaceId, frame: &[u8], reason: Ignored) {
        let before = self.host.counters();
        assert_eq!(self.receive(interface, frame), []);
        let after = self.host.counters();
        let mut expected = before;
        expected.received += 1;
        expected.ignored[reason as usize] += 1;
        assert_eq!(after, expected, "not ignored as {}", reason.name());
    }

    fn state(&self, interface: InterfaceId, address: impl Into<IpAddr>) -> Option<NudState> {
        let address = address.into();
        self.host.neighbours().find(|n| n.interface == interface && n.address == address).map(|n| n.state)
    }
}

/// An ARP packet in an Ethernet frame, after RFC 826's picture.
fn arp_in(from: [u8; 6], to: [u8; 6], op: u8, sha: [u8; 6], spa: [u8; 4], tha: [u8; 6], tpa: [u8; 4]) -> Vec<u8> {
    [&to[..], &from, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, op], &sha, &spa, &tha, &tpa].concat()
}

fn arp_request(mac: [u8; 6], address: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    arp_in(mac, EVERYBODY, 1, mac, address, NOBODY, target)
}

fn arp_reply(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    arp_in(mac, GATEWAY, 2, mac, address, GATEWAY, GATEWAY4)
}

/// An ICMPv6 message in an IPv6 packet in a frame, its checksum by etherparse.
#[derive(Clone)]
struct Icmp6 {
    macs: ([u8; 6], [u8; 6]),
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    kind: u8,
    code: u8,
    word: [u8; 4],
    body: Vec<u8>,
}

impl Icmp6 {
    /// A solicitation by the router for `target`, multicast.
    fn solicitation(source: &str, target: &str, option: Option<[u8; 6]>) -> Self {
        let target = v6(target);
        let [.., a, b, c] = target.octets();
        let mut body = target.octets().to_vec();
        body.extend(option.iter().flat_map(|mac| [&[1, 1], &mac[..]].concat()));
        Icmp6 {
            macs: (ROUTER, [0x33, 0x33, 0xff, a, b, c]),
            source: v6(source),
            destination: v6(&format!("ff02::1:ff{a:02x}:{:x}", u16::from_be_bytes([b, c]))),
            hop_limit: 255,
            kind: 135,
            code: 0,
            word: [0; 4],
            body,
        }
    }

    /// An advertisement by the router for `target`, to the gateway. `flags` are R (0x80), S (0x40) and O (0x20).
    fn advertisement(target: &str, flags: u8, option: Option<[u8; 6]>) -> Self {
        let target = v6(target);
        let mut body = target.octets().to_vec();
        body.extend(option.iter().flat_map(|mac| [&[2, 1], &mac[..]].concat()));
        Icmp6 {
            macs: (ROUTER, GATEWAY),
            source: target,
            destination: link_local(MacAddr(GATEWAY)),
            hop_limit: 255,
            kind: 136,
            code: 0,
            word: [flags, 0, 0, 0],
            body,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ipv6(self.source.octets(), self.destination.octets(), self.hop_limit)
            .icmpv6_raw(self.kind, self.code, self.word)
            .write(&mut bytes, &self.body)
            .unwrap();
        bytes
    }
}

fn ping4(mac: [u8; 6], to: [u8; 6], source: [u8; 4], destination: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(mac, to)
        .ipv4(source, destination, 57)
        .icmpv4_echo_request(0x1234, 7)
        .write(&mut bytes, data)
        .unwrap();
    bytes
}

fn udp4(source: [u8; 4], destination: [u8; 4], len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER, GATEWAY)
        .ipv4(source, destination, 1)
        .udp(40000, 33434)
        .write(&mut bytes, &vec![0x40; len])
        .unwrap();
    bytes
}

/// Dissects an IPv4 packet of the host with etherparse: header checksum right, TTL 64, and from where to where.
#[track_caller]
fn open4(seen: &[Seen], from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let [Seen::Packet(packet)] = seen else { panic!("not one packet: {seen:?}") };
    let bytes = unhex(packet);
    let (header, rest) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!((header.source, header.destination, header.time_to_live), (from, to, 64));
    assert_eq!(usize::from(header.total_len), bytes.len());
    rest.to_vec()
}

/// The ICMP type and code of a message whose checksum is right, and what follows the first eight bytes.
#[track_caller]
fn open_icmp4(message: &[u8]) -> (u8, u8, Vec<u8>) {
    let icmp = etherparse::Icmpv4Slice::from_slice(message).unwrap();
    assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload()));
    (icmp.type_u8(), icmp.code_u8(), message[8..].to_vec())
}

const SECOND: Duration = Duration::from_secs(1);

// ---- Own addresses ------------------------------------------------------------------------------------------------

#[test]
fn link_local_address_is_the_eui_64_of_rfc_4291_appendix_a() {
    // RFC 2464 §4: 34-56-78-9A-BC-DE gives 36-56-78-FF-FE-9A-BC-DE.
    assert_eq!(link_local(MacAddr([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde])), v6("fe80::3656:78ff:fe9a:bcde"));
}

#[test]
fn start_publishes_static_neighbours_announces_ipv4_and_tests_ipv6() {
    let mut lab = Lab::new(Spec { static_nat: Vec::new(), forwards: Vec::new(), pools: Vec::new(), ..spec() });
    let said = lab.start();
    assert_eq!(said[0], Seen::Reachable(INSIDE, [192, 168, 1, 77].into(), [2, 0, 0, 0, 0, 0x77]));
    let on_uplink: Vec<_> = said.into_iter().filter(|seen| matches!(seen, Seen::Frame(UPLINK, _))).collect();
    assert_eq!(on_uplink, [GRATUITOUS, DAD_GLOBAL, DAD_LINK_LOCAL].map(|hex| frame(UPLINK, hex)));
    let later: Vec<_> =
        lab.run(SETTLING).into_iter().filter(|(_, seen)| matches!(seen, Seen::Frame(UPLINK, _))).collect();
    let expected = [
        (1.0, UNSOLICITED_GLOBAL),
        (1.0, UNSOLICITED_LINK_LOCAL),
        (2.0, GRATUITOUS),
        (3.0, UNSOLICITED_GLOBAL),
        (3.0, UNSOLICITED_LINK_LOCAL),
    ];
    assert_eq!(later, expected.map(|(at, hex)| (at, frame(UPLINK, hex))));
    assert_eq!(lab.host.next_deadline(), None, "a settled host with no neighbours waits for nothing");
}

#[test]
fn external_addresses_on_the_uplink_are_announced_twice() {
    let mut lab = Lab::new(spec());
    let mut announced: Vec<_> = lab.start().into_iter().map(|seen| (0.0, seen)).collect();
    announced.extend(lab.run(SETTLING));
    for last in [60, 61, 64, 65] {
        let gratuitous = arp_in(GATEWAY, EVERYBODY, 1, GATEWAY, [198, 51, 100, last], NOBODY, [198, 51, 100, last]);
        let times: Vec<_> =
            announced.iter().filter(|(_, seen)| *seen == frame(UPLINK, &hex(&gratuitous))).map(|(at, _)| *at).collect();
        assert_eq!(times, [0.0, 2.0], "198.51.100.{last}");
    }
    // The quiet pool and the one that is not on the link are not.
    let frames =
        announced.iter().filter(|(_, seen)| matches!(seen, Seen::Frame(UPLINK, f) if f.contains("0806"))).count();
    assert_eq!(frames, 2 * (4 + 1));
}

#[test]
fn an_address_under_test_is_not_used() {
    let mut lab = Lab::new(spec());
    lab.start();
    let solicitation = Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::2", Some(ROUTER));
    lab.ignores(UPLINK, &solicitation.bytes(), Ignored::NotOurs);
    lab.ignores(UPLINK, &unhex(PING6), Ignored::NotOurs);
    // Nor does a resolution ask from it: the first attempt is silent, the next one comes when the test is over.
    assert_eq!(lab.resolve(UPLINK, v6("2001:db8:f::1")), []);
    let said = lab.run(SECOND);
    assert_eq!(said.last(), Some(&(1.0, frame(UPLINK, SOLICITATION))));
    assert_eq!(lab.receive(UPLINK, &unhex(PING6)), [Seen::Packet(PONG6.into())]);
}

#[test]
fn an_address_that_another_station_has_or_wants_is_not_used() {
    let has = Icmp6 {
        destination: v6("ff02::1"),
        macs: (OTHER, [0x33, 0x33, 0, 0, 0, 1]),
        ..Icmp6::advertisement("2001:db8:f::2", 0x20, Some(OTHER))
    };
    let wants =
        Icmp6 { macs: (OTHER, [0x33, 0x33, 0xff, 0, 0, 2]), ..Icmp6::solicitation("::", "2001:db8:f::2", None) };
    for claim in [has, wants] {
        let mut lab = Lab::new(spec());
        lab.start();
        lab.ignores(UPLINK, &claim.bytes(), Ignored::Conflict);
        let expected =
            Notice::Duplicate { interface: "uplink".into(), address: v6("2001:db8:f::2").into(), mac: MacAddr(OTHER) };
        assert!(expected.to_string().contains("2001:db8:f::2 is in use by 02:00:00:00:01:09"));
        assert_eq!(lab.host.notices().collect::<Vec<_>>(), [expected]);
        let said = lab.run(SETTLING);
        assert!(!said.iter().any(|(_, seen)| *seen == frame(UPLINK, UNSOLICITED_GLOBAL)));
        assert!(said.iter().any(|(_, seen)| *seen == frame(UPLINK, UNSOLICITED_LINK_LOCAL)), "the other one is used");
        lab.ignores(UPLINK, &unhex(PING6), Ignored::NotOurs);
    }
}

#[test]
fn an_address_in_use_is_defended_against_a_station_that_tests_it() {
    let mut lab = Lab::settled(spec());
    let wants = Icmp6::solicitation("::", "2001:db8:f::2", None);
    assert_eq!(lab.receive(UPLINK, &wants.bytes()), [frame(UPLINK, UNSOLICITED_GLOBAL)]);
    // RFC 5227 §2.1.1: an ARP probe has no sender address. The reply goes to the prober, and no entry is made.
    let said = lab.receive(UPLINK, &arp_request(ROUTER, [0; 4], GATEWAY4));
    let reply = arp_in(GATEWAY, ROUTER, 2, GATEWAY, GATEWAY4, ROUTER, [0; 4]);
    assert_eq!(said, [frame(UPLINK, &hex(&reply))]);
    assert_eq!(lab.host.neighbours().count(), 1, "only the static one");
}

#[test]
fn a_claim_to_an_address_is_countered_once_in_ten_seconds() {
    let mut lab = Lab::settled(spec());
    let claim4 = arp_request(OTHER, GATEWAY4, ROUTER4);
    let claim6 = Icmp6 { macs: (OTHER, GATEWAY), ..Icmp6::advertisement("2001:db8:f::2", 0x20, Some(OTHER)) }.bytes();
    assert_eq!(lab.receive(UPLINK, &claim4), [frame(UPLINK, GRATUITOUS)]);
    assert_eq!(lab.receive(UPLINK, &claim6), [frame(UPLINK, UNSOLICITED_GLOBAL)]);
    assert_eq!(lab.host.notices().count(), 2);
    lab.run(Duration::from_millis(9_999));
    lab.ignores(UPLINK, &claim4, Ignored::Conflict);
    lab.ignores(UPLINK, &claim6, Ignored::Conflict);
    assert_eq!(lab.host.notices().count(), 0);
    lab.run(Duration::from_millis(1));
    assert_eq!(lab.receive(UPLINK, &claim4), [frame(UPLINK, GRATUITOUS)]);
    assert_eq!(lab.host.counters().ignored(Ignored::Conflict), 5);
    assert_eq!(lab.host.neighbours().count(), 1, "who claims our address is no neighbour");
}

#[test]
fn our_own_frames_that_come_back_are_no_conflict() {
    let mut lab = Lab::new(spec());
    lab.start();
    for hex in [GRATUITOUS, DAD_GLOBAL, DAD_LINK_LOCAL] {
        lab.ignores(UPLINK, &unhex(hex), Ignored::Looped);
        lab.ignores(INSIDE, &unhex(hex), Ignored::Looped);
    }
}

// ---- ARP and neighbour discovery, answered -------------------------------------------------------------------------

#[test]
fn arp_for_an_own_address_is_answered_and_makes_a_stale_neighbour() {
    let mut lab = Lab::settled(spec());
    let said = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4));
    assert_eq!(said, [frame(UPLINK, ARP_REPLY), Seen::Stale(UPLINK, ROUTER4.into(), ROUTER)]);
    // Asked again, answered again; nothing new to publish.
    assert_eq!(lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4)), [frame(UPLINK, ARP_REPLY)]);
    // An Ethernet frame is padded to 60 bytes (RFC 894).
    let mut padded = arp_request(ROUTER, ROUTER4, GATEWAY4);
    padded.resize(60, 0);
    assert_eq!(lab.receive(UPLINK, &padded), [frame(UPLINK, ARP_REPLY)]);
}

#[test]
fn arp_for_external_addresses_is_answered_where_they_are_on_link() {
    let mut lab = Lab::settled(spec());
    for last in [60, 61, 64, 65] {
        let target = [198, 51, 100, last];
        let reply = arp_in(GATEWAY, ROUTER, 2, GATEWAY, target, ROUTER, ROUTER4);
        let said = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, target));
        assert_eq!(said.first(), Some(&frame(UPLINK, &hex(&reply))), "{target:?}");
    }
    // No proxy_arp; not on this link; nobody's; another interface's.
    for target in [[198, 51, 100, 130], [203, 0, 113, 1], [198, 51, 100, 66], INSIDE4] {
        assert_eq!(lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, target)), [], "{target:?}");
    }
    // Inside, the pool is not on link.
    for target in [[198, 51, 100, 64], [198, 51, 100, 60], GATEWAY4] {
        assert_eq!(lab.receive(INSIDE, &arp_request(CLIENT, CLIENT4, target)), [], "{target:?}");
    }
}

#[test]
fn a_station_that_has_a_pool_address_itself_is_not_told_that_we_have_it() {
    let mut lab = Lab::settled(spec());
    let target = [198, 51, 100, 64];
    let countered = arp_in(GATEWAY, EVERYBODY, 1, GATEWAY, target, NOBODY, target);
    // Its gratuitous ARP is a conflict, countered by ours, not answered by a reply.
    assert_eq!(lab.receive(UPLINK, &arp_request(OTHER, target, target)), [frame(UPLINK, &hex(&countered))]);
    lab.ignores(UPLINK, &arp_request(OTHER, target, target), Ignored::Conflict);
}

#[test]
fn arp_of_strangers_is_ignored() {
    let mut lab = Lab::settled(spec());
    let own = GATEWAY4;
    lab.ignores(UPLINK, &arp_request(ROUTER, [192, 0, 2, 1], own), Ignored::OffLink);
    lab.ignores(UPLINK, &arp_request(ROUTER, [198, 51, 100, 255], own), Ignored::OffLink);
    lab.ignores(UPLINK, &arp_request(ROUTER, [198, 51, 100, 0], own), Ignored::OffLink);
    lab.ignores(UPLINK, &arp_in(ROUTER, EVERYBODY, 1, EVERYBODY, ROUTER4, NOBODY, own), Ignored::BadSource);
    lab.ignores(UPLINK, &arp_in(ROUTER, EVERYBODY, 1, NOBODY, ROUTER4, NOBODY, own), Ignored::BadSource);
    lab.ignores(UPLINK, &arp_in(ROUTER, EVERYBODY, 3, ROUTER, ROUTER4, NOBODY, own), Ignored::Unsupported);
    lab.ignores(UPLINK, &arp_in(ROUTER, OTHER, 1, ROUTER, ROUTER4, NOBODY, own), Ignored::OtherStation);
    lab.ignores(UPLINK, &arp_request(ROUTER, ROUTER4, own)[..41], Ignored::Malformed);
    // Junk that nobody asked for makes no entry: replies, gratuitous ARP, requests among others.
    lab.ignores(UPLINK, &arp_reply(ROUTER, ROUTER4), Ignored::Unneeded);
    lab.ignores(UPLINK, &arp_request(ROUTER, ROUTER4, ROUTER4), Ignored::Unneeded);
    lab.ignores(UPLINK, &arp_request(ROUTER, ROUTER4, [198, 51, 100, 9]), Ignored::Unneeded);
    assert_eq!(lab.state(UPLINK, ROUTER4), None);
}

#[test]
fn a_solicitation_is_answered_and_makes_a_stale_neighbour() {
    let mut lab = Lab::settled(spec());
    let solicitation = Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::2", Some(ROUTER));
    let said = lab.receive(UPLINK, &solicitation.bytes());
    assert_eq!(said, [frame(UPLINK, ADVERTISEMENT), Seen::Stale(UPLINK, v6("2001:db8:f::1").into(), ROUTER)]);
    // A unicast probe may leave its option out.
    let probe = Icmp6 {
        macs: (ROUTER, GATEWAY),
        destination: v6("2001:db8:f::2"),
        ..Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::2", None)
    };
    assert_eq!(lab.receive(UPLINK, &probe.bytes()), [frame(UPLINK, ADVERTISEMENT)]);
}

/// What stands for hosts elsewhere, by translators without state, is answered for where it is part of the link's network.
#[test]
fn addresses_that_stand_for_others_are_answered_for() {
    let rule = |inside: &str, outside: &str| PrefixRule {
        name: outside.into(),
        from: ZoneId(0),
        to: ZoneId(1),
        inside: prefix(inside),
        outside: prefix(outside),
        kind: PrefixKind::Netmap,
    };
    let mapped =
        |v4: [u8; 4], v6: Ipv6Addr| Row { v4: u32::from_be_bytes(v4), v4_len: 32, v6: v6.to_bits(), v6_len: 128 };
    let rows = [mapped([198, 51, 100, 70], v6("2001:db8:aaaa::1")), mapped([203, 0, 113, 9], v6("2001:db8:aaaa::2"))];
    let with = |rules: &[PrefixRule]| {
        let mut spec = spec();
        spec.prefixes = rules.to_vec();
        // Where the mapped hosts are.
        spec.routes.push(RouteSpec { prefix: prefix("2001:db8:aaaa::/48"), next_hop: NextHop::OnLink(INSIDE) });
        spec.crossings = vec![CrossingSpec {
            name: "dc".into(),
            ipv4: ZoneId(1),
            ipv6: ZoneId(0),
            prefixes: Vec::new(),
            destinations: Vec::new(),
            destination_prefix: None,
            mappings: Arc::new(Table::build(&rows).unwrap().0),
            hairpin: Hairpin::Intrinsic,
            settings: Settings::default(),
            error_sources: Vec::new(),
            error_prefix: None,
            report_discards: true,
        }];
        spec
    };
    let parts = [rule("10.1.2.192/28", "198.51.100.192/28"), rule("fd00:7:0:0:8000::/65", "2001:db8:f:0:8000::/65")];
    let mut lab = Lab::settled(with(&parts));
    for (last, answered) in [(192, true), (193, true), (207, true), (70, true), (191, false), (208, false), (71, false)]
    {
        let target = [198, 51, 100, last];
        let reply = frame(UPLINK, &hex(&arp_in(GATEWAY, ROUTER, 2, GATEWAY, target, ROUTER, ROUTER4)));
        let said = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, target));
        assert_eq!(said.first(), answered.then_some(&reply), "{target:?}");
        // We do not ask for what we are.
        let asks = lab.resolve(UPLINK, target).iter().any(|it| matches!(it, Seen::Frame(..)));
        assert_eq!(asks, !answered, "{target:?}");
    }
    // Not on this link, and not from inside.
    assert_eq!(lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, [203, 0, 113, 9])), []);
    let stands = "2001:db8:f:0:8000::5";
    let said = lab.receive(UPLINK, &Icmp6::solicitation("2001:db8:f::1", stands, Some(ROUTER)).bytes());
    assert_eq!(said[0], frame(UPLINK, PROXY_ADVERTISEMENT));
    // Another one wants it for itself: it is taken.
    let test = Icmp6::solicitation("::", stands, None);
    assert_eq!(lab.receive(UPLINK, &test.bytes()), [frame(UPLINK, PROXY_DEFENCE)]);
    let native = Icmp6::solicitation("2001:db8:f::1", "2001:db8:f:0:7000::5", Some(ROUTER));
    lab.ignores(UPLINK, &native.bytes(), Ignored::NotOurs);
    // Of a whole network nobody can say which addresses are hosts of its own.
    let mut lab = Lab::settled(with(&[rule("10.1.2.0/24", "198.51.100.0/24"), rule("fd00:7::/64", "2001:db8:f::/64")]));
    assert_eq!(lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, [198, 51, 100, 193])), []);
    lab.ignores(UPLINK, &Icmp6::solicitation("2001:db8:f::1", stands, Some(ROUTER)).bytes(), Ignored::NotOurs);
}

#[test]
fn a_solicitation_that_breaks_rfc_4861_section_7_1_1_is_ignored() {
    let mut lab = Lab::settled(spec());
    let good = Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::2", Some(ROUTER));
    lab.ignores(UPLINK, &Icmp6 { hop_limit: 254, ..good.clone() }.bytes(), Ignored::HopLimit);
    lab.ignores(UPLINK, &Icmp6 { code: 1, ..good.clone() }.bytes(), Ignored::Malformed);
    let mut bad_sum = good.bytes();
    *bad_sum.last_mut().unwrap() ^= 1;
    lab.ignores(UPLINK, &bad_sum, Ignored::Checksum);
    lab.ignores(UPLINK, &Icmp6 { body: good.body[..12].to_vec(), ..good.clone() }.bytes(), Ignored::Malformed);
    let empty_option = [&good.body[..16], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    lab.ignores(UPLINK, &Icmp6 { body: empty_option, ..good.clone() }.bytes(), Ignored::Malformed);
    let group_target = [&v6("ff02::2").octets()[..], &good.body[16..]].concat();
    lab.ignores(UPLINK, &Icmp6 { body: group_target, ..good.clone() }.bytes(), Ignored::Malformed);
    // A test for duplicates goes to the solicited-node group and has no source option.
    let test = Icmp6::solicitation("::", "2001:db8:f::2", None);
    lab.ignores(UPLINK, &Icmp6 { destination: v6("ff02::1"), ..test.clone() }.bytes(), Ignored::Malformed);
    lab.ignores(UPLINK, &Icmp6 { source: v6("::"), ..good.clone() }.bytes(), Ignored::Malformed);
    // From a station that is not on the link, from none, and from one with a group's address.
    lab.ignores(UPLINK, &Icmp6 { source: v6("2001:db8:e::1"), ..good.clone() }.bytes(), Ignored::OffLink);
    lab.ignores(UPLINK, &Icmp6 { source: v6("ff02::5"), ..good.clone() }.bytes(), Ignored::BadSource);
    let group_option = [&good.body[..16], &[1, 1, 0x33, 0x33, 0, 0, 0, 1]].concat();
    lab.ignores(UPLINK, &Icmp6 { body: group_option, ..good.clone() }.bytes(), Ignored::BadSource);
    lab.ignores(UPLINK, &Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::3", Some(ROUTER)).bytes(), Ignored::NotOurs);
    // An option that nobody knows is passed over (RFC 4861 §4.6).
    let nonce = [&good.body[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat();
    assert_eq!(lab.receive(UPLINK, &Icmp6 { body: nonce, ..good }.bytes())[0], frame(UPLINK, ADVERTISEMENT));
}

#[test]
fn an_interface_without_ipv6_does_not_speak_it() {
    let mut lab = Lab::settled(spec());
    let address = link_local(MacAddr(GATEWAY_INSIDE)).to_string();
    let mut solicitation = Icmp6::solicitation("fe80::a", &address, Some(CLIENT));
    solicitation.macs = (CLIENT, GATEWAY_INSIDE);
    lab.ignores(INSIDE, &solicitation.bytes(), Ignored::NotOurs);
    assert_eq!(lab.resolve(INSIDE, v6("fe80::a")), [Seen::Failed(INSIDE, v6("fe80::a").into())]);
}

// ---- Resolving neighbours ------------------------------------------------------------------------------------------

#[test]
fn a_neighbour_lives_through_all_states_by_arp() {
    let mut lab = Lab::settled(spec());
    assert_eq!(lab.resolve(UPLINK, ROUTER4), [frame(UPLINK, ARP_REQUEST)]);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Incomplete));
    assert_eq!(lab.resolve(UPLINK, ROUTER4), [], "already asked");
    assert_eq!(lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4)), [Seen::Reachable(UPLINK, ROUTER4.into(), ROUTER)]);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Reachable));

    // 30 s, times 0.5 to 1.5.
    let said = lab.run(Duration::from_secs(45));
    let [(at, Seen::Stale(UPLINK, _, ROUTER))] = said[..] else { panic!("{said:?}") };
    assert!((15.0..=45.0).contains(&at), "{at}");
    assert_eq!(lab.run(Duration::from_secs(100_000)), [], "unused, it stays stale");

    assert_eq!(lab.used(UPLINK, ROUTER4), []);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Delay));
    assert_eq!(lab.used(UPLINK, ROUTER4), []);
    assert_eq!(lab.run(Duration::from_millis(5_500)), [(5.0, frame(UPLINK, ARP_PROBE))]);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Probe));
    assert_eq!(lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4)), [Seen::Reachable(UPLINK, ROUTER4.into(), ROUTER)]);

    // And once more, but now it is gone.
    lab.run(Duration::from_secs(45));
    lab.used(UPLINK, ROUTER4);
    let probe = frame(UPLINK, ARP_PROBE);
    let expected =
        [(5.0, probe.clone()), (6.0, probe.clone()), (7.0, probe), (8.0, Seen::Failed(UPLINK, ROUTER4.into()))];
    assert_eq!(lab.run(Duration::from_secs(20)), expected);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Failed));
    // A later packet asks anew, by broadcast.
    assert_eq!(lab.resolve(UPLINK, ROUTER4), [frame(UPLINK, ARP_REQUEST)]);
}

#[test]
fn a_neighbour_lives_through_all_states_by_discovery() {
    let router = "2001:db8:f::1";
    let mut lab = Lab::settled(spec());
    assert_eq!(lab.resolve(UPLINK, v6(router)), [frame(UPLINK, SOLICITATION)]);
    let answer = Icmp6::advertisement(router, 0xe0, Some(ROUTER)).bytes();
    assert_eq!(lab.receive(UPLINK, &answer), [Seen::Reachable(UPLINK, v6(router).into(), ROUTER)]);
    lab.run(Duration::from_secs(45));
    assert_eq!(lab.state(UPLINK, v6(router)), Some(NudState::Stale));
    lab.used(UPLINK, v6(router));
    assert_eq!(lab.run(Duration::from_millis(5_500)), [(5.0, frame(UPLINK, UNICAST_SOLICITATION))]);
    // The answer to a unicast probe may leave its option out.
    let answer = Icmp6::advertisement(router, 0xc0, None).bytes();
    assert_eq!(lab.receive(UPLINK, &answer), [Seen::Reachable(UPLINK, v6(router).into(), ROUTER)]);
}

#[test]
fn a_neighbour_that_does_not_answer_fails_after_three_requests() {
    let mut lab = Lab::settled(spec());
    assert_eq!(lab.resolve(UPLINK, v6("2001:db8:f::1")), [frame(UPLINK, SOLICITATION)]);
    let solicitation = frame(UPLINK, SOLICITATION);
    let expected =
        [(1.0, solicitation.clone()), (2.0, solicitation), (3.0, Seen::Failed(UPLINK, v6("2001:db8:f::1").into()))];
    assert_eq!(lab.run(Duration::from_secs(10)), expected);
    // The failure is kept for a minute to be looked at.
    lab.run(Duration::from_secs(60));
    assert_eq!(lab.state(UPLINK, v6("2001:db8:f::1")), None);
    assert_eq!(lab.host.next_deadline(), None);
}

#[test]
fn advertisements_follow_rfc_4861_section_7_2_5() {
    let router = "2001:db8:f::1";
    let key = IpAddr::from(v6(router));
    // Flags and option of a first advertisement, and of a second; what is said at each.
    let (reachable, stale) = (|mac| vec![Seen::Reachable(UPLINK, key, mac)], |mac| vec![Seen::Stale(UPLINK, key, mac)]);
    let cases = [
        // INCOMPLETE: without an address nothing; solicited confirms; unsolicited only informs.
        ((0x40, None), vec![], (0x40, Some(ROUTER)), reachable(ROUTER)),
        ((0x00, Some(ROUTER)), stale(ROUTER), (0x40, Some(ROUTER)), reachable(ROUTER)),
        // REACHABLE, another address without override: stale, address kept. With it: taken over.
        ((0x40, Some(ROUTER)), reachable(ROUTER), (0x40, Some(OTHER)), stale(ROUTER)),
        ((0x40, Some(ROUTER)), reachable(ROUTER), (0x60, Some(OTHER)), reachable(OTHER)),
        ((0x40, Some(ROUTER)), reachable(ROUTER), (0x20, Some(OTHER)), stale(OTHER)),
        // The same address unsolicited changes nothing.
        ((0x40, Some(ROUTER)), reachable(ROUTER), (0x20, Some(ROUTER)), vec![]),
        // STALE, another address without override: nothing.
        ((0x00, Some(ROUTER)), stale(ROUTER), (0x40, Some(OTHER)), vec![]),
    ];
    for (number, (first, said_first, second, said_second)) in cases.into_iter().enumerate() {
        let mut lab = Lab::settled(spec());
        lab.resolve(UPLINK, v6(router));
        for ((flags, option), said) in [(first, said_first), (second, said_second)] {
            let advertisement = Icmp6::advertisement(router, flags, option);
            assert_eq!(lab.receive(UPLINK, &advertisement.bytes()), said, "case {number}");
        }
    }
}

#[test]
fn an_advertisement_that_breaks_rfc_4861_section_7_1_2_is_ignored() {
    let mut lab = Lab::settled(spec());
    lab.resolve(UPLINK, v6("2001:db8:f::1"));
    let good = Icmp6::advertisement("2001:db8:f::1", 0x60, Some(ROUTER));
    lab.ignores(UPLINK, &Icmp6 { hop_limit: 254, ..good.clone() }.bytes(), Ignored::HopLimit);
    lab.ignores(UPLINK, &Icmp6 { code: 9, ..good.clone() }.bytes(), Ignored::Malformed);
    let to_all = Icmp6 { destination: v6("ff02::1"), macs: (ROUTER, [0x33, 0x33, 0, 0, 0, 1]), ..good.clone() };
    lab.ignores(UPLINK, &to_all.bytes(), Ignored::Malformed);
    lab.ignores(UPLINK, &Icmp6 { source: v6("::"), ..good.clone() }.bytes(), Ignored::BadSource);
    lab.ignores(UPLINK, &Icmp6::advertisement("2001:db8:f::9", 0x60, Some(ROUTER)).bytes(), Ignored::Unneeded);
    assert_eq!(lab.state(UPLINK, v6("2001:db8:f::1")), Some(NudState::Incomplete));
}

#[test]
fn gratuitous_arp_moves_a_known_neighbour() {
    let mut lab = Lab::settled(spec());
    lab.resolve(UPLINK, ROUTER4);
    lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4));
    let said = lab.receive(UPLINK, &arp_request(OTHER, ROUTER4, ROUTER4));
    assert_eq!(said, [Seen::Stale(UPLINK, ROUTER4.into(), OTHER)]);
    // A second reply that nobody waits for does not make a spoofed address reachable.
    assert_eq!(lab.receive(UPLINK, &arp_reply(OTHER, ROUTER4)), []);
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Stale));
}

#[test]
fn a_static_neighbour_is_never_changed_and_never_asked_for() {
    let mut lab = Lab::settled(spec());
    let address = [192, 168, 1, 77];
    let published = Seen::Reachable(INSIDE, address.into(), [2, 0, 0, 0, 0, 0x77]);
    assert_eq!(lab.resolve(INSIDE, address), [published], "said again to a worker that asks");
    lab.ignores(INSIDE, &arp_request(CLIENT, address, address), Ignored::Unneeded);
    let reply = arp_in(GATEWAY_INSIDE, CLIENT, 2, GATEWAY_INSIDE, INSIDE4, CLIENT, address);
    assert_eq!(lab.receive(INSIDE, &arp_request(CLIENT, address, INSIDE4)), [frame(INSIDE, &hex(&reply))]);
    assert_eq!(lab.run(Duration::from_secs(1_000_000)), []);
    assert_eq!(lab.state(INSIDE, address), Some(NudState::Permanent));
}

/// The ports of the interfaces.
const LAN: u16 = 0;
const WAN: u16 = 1;

fn on_uplink(seen: &[Seen]) -> Vec<Seen> {
    seen.iter().filter(|seen| matches!(seen, Seen::Frame(UPLINK, _))).cloned().collect()
}

/// An address of the uplink's own and nothing else there.
fn plain() -> Spec {
    Spec { static_nat: Vec::new(), forwards: Vec::new(), pools: Vec::new(), ..spec() }
}

#[test]
fn neighbours_behind_a_link_that_goes_down_are_forgotten_and_who_waits_for_one_is_told() {
    let mut lab = Lab::settled(spec());
    lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4));
    lab.receive(INSIDE, &arp_request(CLIENT, CLIENT4, INSIDE4));
    lab.resolve(UPLINK, [198, 51, 100, 9]);
    let failed = |last| Seen::Failed(UPLINK, [198, 51, 100, last].into());
    assert_eq!(lab.link(WAN, false), [failed(1), failed(9)]);
    // Nothing is asked there any more, not even by one who had not heard of it yet.
    assert_eq!(lab.resolve(UPLINK, ROUTER4), [failed(1)]);
    assert_eq!(lab.used(UPLINK, ROUTER4), []);
    assert_eq!(lab.link(WAN, false), [], "no news");
    assert_eq!(lab.run(Duration::from_secs(600)), []);
    assert_eq!(lab.state(UPLINK, ROUTER4), None);
    // The other link has nothing to do with it; nor has what the file says.
    assert_eq!(lab.state(INSIDE, CLIENT4), Some(NudState::Stale));
    assert_eq!(lab.link(LAN, false), [Seen::Failed(INSIDE, CLIENT4.into())]);
    assert_eq!(lab.state(INSIDE, [192, 168, 1, 77]), Some(NudState::Permanent));
    // Up again, neighbours are found as ever.
    lab.link(WAN, true);
    assert_eq!(lab.resolve(UPLINK, ROUTER4), [frame(UPLINK, ARP_REQUEST)]);
    let answer = lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4));
    assert_eq!(answer, [Seen::Reachable(UPLINK, ROUTER4.into(), ROUTER)]);
}

/// RFC 5227 §3, RFC 4861 §7.2.6: who has moved meanwhile, or behind another switch port, learns where the gateway is.
#[test]
fn addresses_are_announced_again_when_a_link_comes_back() {
    let mut lab = Lab::settled(plain());
    assert_eq!(lab.link(WAN, false), []);
    lab.run(Duration::from_secs(5));
    let announced = [GRATUITOUS, UNSOLICITED_GLOBAL, UNSOLICITED_LINK_LOCAL].map(|hex| frame(UPLINK, hex));
    assert_eq!(lab.link(WAN, true), announced);
    assert_eq!(lab.link(WAN, true), [], "no news");
    assert_eq!(lab.run(Duration::from_secs(60)), announced.map(|frame| (2.0, frame)));
    // And those of others that the gateway answers for on that link, but not on another.
    let mut lab = Lab::settled(spec());
    for port in [LAN, WAN] {
        lab.link(port, false);
    }
    let count = |seen: &[Seen]| {
        on_uplink(seen).iter().filter(|seen| matches!(seen, Seen::Frame(_, f) if f.contains("0806"))).count()
    };
    assert_eq!(count(&lab.link(LAN, true)), 0);
    assert_eq!(
        lab.run(Duration::from_secs(5)).iter().filter(|(_, seen)| matches!(seen, Seen::Frame(UPLINK, _))).count(),
        0
    );
    assert_eq!(count(&lab.link(WAN, true)), 4 + 1);
}

/// RFC 4862 §5.4: an address is not used before a whole test was passed.
#[test]
fn a_test_that_a_fault_cut_short_is_made_again() {
    let mut lab = Lab::new(plain());
    lab.start();
    lab.run(Duration::from_millis(500));
    assert_eq!(lab.link(WAN, false), []);
    assert_eq!(
        lab.run(Duration::from_secs(10)).iter().filter(|(_, seen)| matches!(seen, Seen::Frame(UPLINK, _))).count(),
        0
    );
    assert_eq!(lab.link(WAN, true), [GRATUITOUS, DAD_GLOBAL, DAD_LINK_LOCAL].map(|hex| frame(UPLINK, hex)));
    let later = lab.run(Duration::from_millis(1500));
    let expected = [UNSOLICITED_GLOBAL, UNSOLICITED_LINK_LOCAL].map(|hex| (1.0, frame(UPLINK, hex)));
    assert_eq!(later, expected);
}

/// A duplicate is given another chance when the link has been down: the cable may have led to the wrong network.
#[test]
fn a_duplicate_is_tested_again_when_the_link_comes_back() {
    let mut lab = Lab::new(plain());
    lab.start();
    lab.receive(UPLINK, &Icmp6::advertisement("2001:db8:f::2", 0x20, Some(OTHER)).bytes());
    assert!(matches!(lab.host.notices().next(), Some(Notice::Duplicate { .. })));
    lab.run(SETTLING);
    lab.link(WAN, false);
    let said = lab.link(WAN, true);
    assert!(said.contains(&frame(UPLINK, DAD_GLOBAL)), "{said:?}");
    lab.run(Duration::from_secs(2));
    let echo = lab.receive(UPLINK, &unhex(PING6));
    assert_eq!(echo, [Seen::Packet(PONG6.into())]);
}

#[test]
fn a_start_without_a_link_says_nothing_there_until_it_is_up() {
    let mut lab = Lab::new(spec());
    assert_eq!(on_uplink(&lab.link(WAN, false)), []);
    assert_eq!(on_uplink(&lab.start()), []);
    let later: Vec<_> = lab.run(SETTLING).into_iter().map(|(_, seen)| seen).collect();
    assert_eq!(on_uplink(&later), []);
    let said = lab.link(WAN, true);
    for hex in [GRATUITOUS, DAD_GLOBAL, DAD_LINK_LOCAL] {
        assert!(said.contains(&frame(UPLINK, hex)), "{said:?}");
    }
}

#[test]
fn what_cannot_be_a_neighbour_fails_at_once() {
    let mut lab = Lab::settled(spec());
    for address in [GATEWAY4, [198, 51, 100, 64], [198, 51, 100, 255], [0; 4], [224, 0, 0, 1], [255; 4]] {
        assert_eq!(lab.resolve(UPLINK, address), [Seen::Failed(UPLINK, address.into())]);
    }
    for address in ["2001:db8:f::2", "::", "::1", "ff02::1"] {
        assert_eq!(lab.resolve(UPLINK, v6(address)), [Seen::Failed(UPLINK, v6(address).into())]);
    }
    let nowhere = InterfaceId(77);
    assert_eq!(lab.resolve(nowhere, ROUTER4), [Seen::Failed(nowhere, ROUTER4.into())]);
}

#[test]
fn the_table_is_bounded_and_the_oldest_stale_neighbour_makes_room() {
    let mut small = spec();
    small.limits.neighbours = 4; // One of them is the static one.
    let mut lab = Lab::settled(small);
    let host = |last: u8| [192, 168, 1, last];
    let ask = |last| arp_request([2, 0, 0, 0, 0, last], host(last), INSIDE4);
    for last in [10, 11, 12] {
        lab.receive(INSIDE, &ask(last));
        lab.run(SECOND);
    }
    // 10 is the oldest, but in use.
    lab.used(INSIDE, host(10));
    let said = lab.receive(INSIDE, &ask(13));
    assert!(said.contains(&Seen::Failed(INSIDE, host(11).into())), "the workers forget it: {said:?}");
    assert!(said.contains(&Seen::Stale(INSIDE, host(13).into(), [2, 0, 0, 0, 0, 13])));
    assert_eq!(lab.host.neighbours().count(), 4);
    assert_eq!(lab.state(INSIDE, host(10)), Some(NudState::Delay));
    assert_eq!(lab.state(INSIDE, [192, 168, 1, 77]), Some(NudState::Permanent));

    // A scan of the subnet takes at most half of the table, and the rest is told so.
    for last in 100..200 {
        lab.resolve(INSIDE, host(last));
    }
    assert_eq!(lab.host.neighbours().count(), 4);
    assert_eq!(lab.host.neighbours().filter(|n| n.state == NudState::Incomplete).count(), 2);
    assert_eq!(lab.host.counters().neighbour_overflows, 98);
    assert_eq!(lab.resolve(INSIDE, host(200)), [Seen::Failed(INSIDE, host(200).into())]);
    // What failed goes first: the scan does not go on to push out the living.
    lab.run(Duration::from_secs(3));
    lab.resolve(INSIDE, host(201));
    assert_eq!(lab.state(INSIDE, host(10)), Some(NudState::Delay));
    assert_eq!(lab.host.neighbours().count(), 4);
}

// ---- Several addresses of each family -------------------------------------------------------------------------------

/// The uplink with more addresses: another of the same subnet, one of another subnet, and two more of IPv6.
fn many() -> Spec {
    let mut spec = Spec { pools: Vec::new(), static_nat: Vec::new(), forwards: Vec::new(), ..spec() };
    let more = ["198.51.100.3/24", "203.0.113.1/28", "2001:db8:f::3/64", "2001:db8:e::2/64"];
    spec.interfaces[1].addresses.extend(more.map(prefix));
    spec
}

const MORE4: [[u8; 4]; 3] = [GATEWAY4, [198, 51, 100, 3], [203, 0, 113, 1]];
const MORE6: [&str; 4] = ["2001:db8:f::2", "2001:db8:f::3", "2001:db8:e::2", "fe80::ff:fe00:2"];

#[test]
fn every_address_is_announced_and_every_ipv6_one_tested_first() {
    let mut lab = Lab::new(many());
    let mut said: Vec<_> = lab.start().into_iter().map(|seen| (0.0, seen)).collect();
    said.extend(lab.run(SETTLING));
    let times = |wanted: &[u8]| {
        let wanted = frame(UPLINK, &hex(wanted));
        said.iter().filter(|(_, seen)| *seen == wanted).map(|(at, _)| *at).collect::<Vec<_>>()
    };
    for address in MORE4 {
        assert_eq!(times(&arp_in(GATEWAY, EVERYBODY, 1, GATEWAY, address, NOBODY, address)), [0.0, 2.0]);
    }
    for address in MORE6 {
        let test = Icmp6::solicitation("::", address, None);
        assert_eq!(times(&Icmp6 { macs: (GATEWAY, test.macs.1), ..test }.bytes()), [0.0], "{address}");
        let announcement = Icmp6 {
            macs: (GATEWAY, [0x33, 0x33, 0, 0, 0, 1]),
            destination: v6("ff02::1"),
            ..Icmp6::advertisement(address, 0xa0, Some(GATEWAY))
        };
        assert_eq!(times(&announcement.bytes()), [1.0, 3.0], "{address}");
    }
    let on_uplink = said.iter().filter(|(_, seen)| matches!(seen, Seen::Frame(UPLINK, _))).count();
    assert_eq!(on_uplink, 2 * MORE4.len() + 3 * MORE6.len(), "and nothing else is said there");
}

#[test]
fn another_station_s_claim_to_one_address_leaves_the_others_in_use() {
    let mut lab = Lab::new(many());
    lab.start();
    let has = Icmp6::advertisement("2001:db8:f::3", 0x20, Some(OTHER));
    let has = Icmp6 { macs: (OTHER, [0x33, 0x33, 0, 0, 0, 1]), destination: v6("ff02::1"), ..has };
    lab.ignores(UPLINK, &has.bytes(), Ignored::Conflict);
    lab.run(SETTLING);
    for address in MORE6 {
        let asked = Icmp6::solicitation("fe80::1", address, Some(ROUTER)).bytes();
        if address == "2001:db8:f::3" {
            lab.ignores(UPLINK, &asked, Ignored::NotOurs);
        } else {
            assert!(!lab.receive(UPLINK, &asked).is_empty(), "{address}");
        }
    }
}

#[test]
fn every_address_is_answered_for_and_answers() {
    let mut lab = Lab::settled(many());
    for address in MORE4 {
        let asker = if address[0] == 203 { [203, 0, 113, 9] } else { ROUTER4 };
        let reply = arp_in(GATEWAY, ROUTER, 2, GATEWAY, address, ROUTER, asker);
        let said = lab.receive(UPLINK, &arp_request(ROUTER, asker, address));
        assert!(said.contains(&frame(UPLINK, &hex(&reply))), "{said:?}");
        let said = lab.receive(UPLINK, &ping4(ROUTER, GATEWAY, ROUTER4, address, b"ping"));
        assert_eq!(open_icmp4(&open4(&said, address, ROUTER4)), (0, 0, b"ping".to_vec()));
        // An unused port: the error comes from the address that was asked.
        let said = lab.receive(UPLINK, &udp4(ROUTER4, address, 8));
        assert_eq!(open_icmp4(&open4(&said, address, ROUTER4)).0, 3);
    }
    for address in MORE6 {
        let source = if address.starts_with("fe80") { "fe80::1" } else { "2001:db8:f::1" };
        let said = lab.receive(UPLINK, &Icmp6::solicitation(source, address, Some(ROUTER)).bytes());
        let reply = Icmp6::advertisement(address, 0xe0, Some(GATEWAY));
        let reply = Icmp6 { macs: (GATEWAY, ROUTER), destination: v6(source), ..reply };
        assert!(said.contains(&frame(UPLINK, &hex(&reply.bytes()))), "{address}: {said:?}");
        let ping = Icmp6 {
            macs: (ROUTER, GATEWAY),
            source: v6(source),
            destination: v6(address),
            hop_limit: 64,
            kind: 128,
            code: 0,
            word: [0x12, 0x34, 0, 1],
            body: b"ping".to_vec(),
        };
        let pong = Icmp6 { source: v6(address), destination: v6(source), kind: 129, ..ping.clone() }.bytes();
        let said = lab.receive(UPLINK, &ping.bytes());
        match &said[..] {
            [Seen::Packet(packet)] => assert_eq!(*packet, hex(&pong[14..])),
            [Seen::Frame(UPLINK, frame)] if address.starts_with("fe80") => {
                assert_eq!(frame[28..], hex(&pong[14..]));
            }
            other => panic!("{address}: {other:?}"),
        }
    }
}

#[test]
fn a_neighbour_is_asked_for_from_the_address_of_its_own_subnet() {
    let mut lab = Lab::settled(many());
    for (target, source) in [(ROUTER4, GATEWAY4), ([203, 0, 113, 9], [203, 0, 113, 1])] {
        let asked = arp_in(GATEWAY, EVERYBODY, 1, GATEWAY, source, NOBODY, target);
        assert_eq!(lab.resolve(UPLINK, Ipv4Addr::from(target)), [frame(UPLINK, &hex(&asked))]);
    }
    // No address of ours is a neighbour, and no subnet's broadcast address.
    for nobody in [[198, 51, 100, 3], [203, 0, 113, 1], [203, 0, 113, 15], [203, 0, 113, 0]] {
        assert_eq!(lab.resolve(UPLINK, Ipv4Addr::from(nobody)), [Seen::Failed(UPLINK, nobody.into())]);
    }
}

#[test]
fn interfaces_of_one_port_answer_with_their_own_ethernet_addresses() {
    let mut spec = many();
    let own = [2, 0, 0, 0, 0, 0xc0];
    let mut customer = interface("customer", 1, own, &["192.168.30.1/24", "2001:db8:30::1/64"]);
    (customer.outer_vlan, customer.vlan) = (Some(200), Some(20));
    spec.interfaces.push(customer);
    let (id, mut lab) = (InterfaceId(2), Lab::settled(spec));
    let asked = arp_request(CLIENT, [192, 168, 30, 10], [192, 168, 30, 1]);
    let reply = arp_in(own, CLIENT, 2, own, [192, 168, 30, 1], CLIENT, [192, 168, 30, 10]);
    assert!(lab.receive(id, &asked).contains(&frame(id, &hex(&reply))));
    // The link-local address follows from it; the port's is of the other interface alone.
    let asked = |target| Icmp6 {
        macs: (CLIENT, [0x33, 0x33, 0, 0, 0, 1]),
        ..Icmp6::solicitation("fe80::a", target, Some(CLIENT))
    };
    let reply = Icmp6 {
        macs: (own, CLIENT),
        destination: v6("fe80::a"),
        ..Icmp6::advertisement("fe80::ff:fe00:c0", 0xe0, Some(own))
    };
    let said = lab.receive(id, &asked("fe80::ff:fe00:c0").bytes());
    assert!(said.contains(&frame(id, &hex(&reply.bytes()))), "{said:?}");
    lab.ignores(id, &asked("fe80::ff:fe00:2").bytes(), Ignored::NotOurs);
    lab.ignores(id, &ping4(CLIENT, GATEWAY, [192, 168, 30, 10], [192, 168, 30, 1], &[]), Ignored::OtherStation);
}

// ---- Pings ---------------------------------------------------------------------------------------------------------

#[test]
fn the_first_ping_is_answered() {
    // The requester has just asked for our address: the worker knows it, stale, before the reply comes to it.
    let mut lab = Lab::settled(spec());
    let mut said = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4));
    said.extend(lab.receive(UPLINK, &ping4(ROUTER, GATEWAY, ROUTER4, GATEWAY4, b"payload of a ping")));
    assert_eq!(said[1], Seen::Stale(UPLINK, ROUTER4.into(), ROUTER));
    let message = open4(&said[2..], GATEWAY4, ROUTER4);
    assert_eq!(open_icmp4(&message), (0, 0, b"payload of a ping".to_vec()));
    assert_eq!(message[4..8], [0x12, 0x34, 0, 7], "identifier and sequence number");
    // And by IPv6, byte for byte.
    assert_eq!(lab.receive(UPLINK, &unhex(PING6)), [Seen::Packet(PONG6.into())]);
}

#[test]
fn pings_of_any_interface_and_of_pools_that_say_so_are_answered() {
    let mut lab = Lab::settled(spec());
    for target in [INSIDE4, GATEWAY4, [198, 51, 100, 64], [203, 0, 113, 15]] {
        let said = lab.receive(INSIDE, &ping4(CLIENT, GATEWAY_INSIDE, CLIENT4, target, &[1, 2, 3]));
        assert_eq!(open_icmp4(&open4(&said, target, CLIENT4)), (0, 0, vec![1, 2, 3]));
    }
    for target in [[198, 51, 100, 130], [198, 51, 100, 60], [203, 0, 113, 16], [192, 168, 1, 255], [224, 0, 0, 1]] {
        lab.ignores(INSIDE, &ping4(CLIENT, GATEWAY_INSIDE, CLIENT4, target, &[]), Ignored::NotOurs);
    }
}

#[test]
fn the_largest_ping_is_answered_and_a_larger_one_is_not() {
    let mut lab = Lab::settled(spec());
    let data = vec![0x5a; 1472];
    let said = lab.receive(UPLINK, &ping4(ROUTER, GATEWAY, ROUTER4, GATEWAY4, &data));
    assert_eq!(open_icmp4(&open4(&said, GATEWAY4, ROUTER4)), (0, 0, data));
    lab.ignores(UPLINK, &ping4(ROUTER, GATEWAY, ROUTER4, GATEWAY4, &[0; 1473]), Ignored::TooBig);
}

#[test]
fn bad_pings_are_ignored() {
    let mut lab = Lab::settled(spec());
    let good = ping4(ROUTER, GATEWAY, ROUTER4, GATEWAY4, b"abcd");
    let with = |at: usize, xor: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= xor;
        bytes
    };
    lab.ignores(UPLINK, &with(14 + 8, 1), Ignored::Checksum); // TTL
    lab.ignores(UPLINK, &with(good.len() - 1, 1), Ignored::Checksum); // ICMP data
    lab.ignores(UPLINK, &with(14, 0x20), Ignored::Malformed); // version 6
    lab.ignores(UPLINK, &good[..good.len() - 1], Ignored::Malformed); // shorter than it says
    for source in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 9], [255; 4], GATEWAY4, INSIDE4, [198, 51, 100, 255]] {
        lab.ignores(UPLINK, &ping4(ROUTER, GATEWAY, source, GATEWAY4, &[]), Ignored::BadSource);
    }
    lab.ignores(UPLINK, &ping4(ROUTER, EVERYBODY, ROUTER4, GATEWAY4, &[]), Ignored::OtherStation);
    lab.ignores(UPLINK, &ping4(ROUTER, OTHER, ROUTER4, GATEWAY4, &[]), Ignored::OtherStation);
    let mut ping6 = unhex(PING6);
    *ping6.last_mut().unwrap() ^= 1;
    lab.ignores(UPLINK, &ping6, Ignored::Checksum);
    // A fragment is not answered, even the first one.
    let mut ip = etherparse::Ipv4Header::from_slice(&good[14..]).unwrap().0;
    ip.more_fragments = true;
    ip.header_checksum = ip.calc_header_checksum();
    let fragment = [&good[..14], &ip.to_bytes()[..], &good[34..]].concat();
    lab.ignores(UPLINK, &fragment, Ignored::Fragment);
    // Nor is a reply, or an error.
    let mut reply = Vec::new();
    let builder = PacketBuilder::ethernet2(ROUTER, GATEWAY).ipv4(ROUTER4, GATEWAY4, 64);
    builder.icmpv4_echo_reply(1, 1).write(&mut reply, &[]).unwrap();
    lab.ignores(UPLINK, &reply, Ignored::Unsupported);
}

#[test]
fn a_ping_between_link_local_addresses_stays_on_its_link() {
    let mut lab = Lab::settled(spec());
    let ours = link_local(MacAddr(GATEWAY));
    let ping = |to: [u8; 6], source: &str, destination: Ipv6Addr| Icmp6 {
        macs: (ROUTER, to),
        source: v6(source),
        destination,
        hop_limit: 64,
        kind: 128,
        code: 0,
        word: [0x12, 0x34, 0, 1],
        body: b"abc".to_vec(),
    };
    let all_nodes = ping([0x33, 0x33, 0, 0, 0, 1], "fe80::1", v6("ff02::1"));
    let cases = [
        (ping(GATEWAY, "fe80::1", ours), ours),
        (ping(GATEWAY, "fe80::1", v6("2001:db8:f::2")), v6("2001:db8:f::2")),
        (all_nodes, ours),
    ];
    for (request, answerer) in cases {
        let said = lab.receive(UPLINK, &request.bytes());
        let [Seen::Frame(UPLINK, answer)] = &said[..] else { panic!("{said:?}") };
        let bytes = unhex(answer);
        assert_eq!(bytes[..12], [ROUTER, GATEWAY].concat());
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("{packet:?}") };
        assert!(icmp.is_checksum_valid(answerer.octets(), request.source.octets()));
        assert!(matches!(icmp.icmp_type(), Icmpv6Type::EchoReply(echo) if (echo.id, echo.seq) == (0x1234, 1)));
        assert_eq!(icmp.payload(), b"abc");
    }
    // The other interface's link-local address is not on this link.
    lab.ignores(UPLINK, &ping(GATEWAY, "fe80::1", link_local(MacAddr(GATEWAY_INSIDE))).bytes(), Ignored::NotOurs);
}

// ---- Where nobody listens ------------------------------------------------------------------------------------------

#[test]
fn udp_gets_port_unreachable_so_that_traceroute_ends() {
    let mut lab = Lab::settled(spec());
    let probe = udp4(ROUTER4, GATEWAY4, 32);
    let said = lab.receive(UPLINK, &probe);
    assert_eq!(open_icmp4(&open4(&said, GATEWAY4, ROUTER4)), (3, 3, probe[14..].to_vec()));
    // The quotation is cut so that the error is no larger than 576 bytes (RFC 1812 §4.3.2.3).
    let long = udp4(ROUTER4, GATEWAY4, 1400);
    let said = lab.receive(UPLINK, &long);
    let (_, _, quote) = open_icmp4(&open4(&said, GATEWAY4, ROUTER4));
    assert_eq!(quote, long[14..14 + 576 - 28]);

    let mut probe6 = Vec::new();
    let (router, gateway) = (v6("2001:db8:f::1"), v6("2001:db8:f::2"));
    let builder = PacketBuilder::ethernet2(ROUTER, GATEWAY).ipv6(router.octets(), gateway.octets(), 1);
    builder.udp(40000, 33434).write(&mut probe6, &[0x40; 1400]).unwrap();
    let said = lab.receive(UPLINK, &probe6);
    let [Seen::Packet(error)] = &said[..] else { panic!("{said:?}") };
    let bytes = unhex(error);
    let packet = SlicedPacket::from_ip(&bytes).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("{packet:?}") };
    assert!(icmp.is_checksum_valid(gateway.octets(), router.octets()));
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 4));
    assert_eq!(bytes.len(), 1280);
    assert_eq!(icmp.payload(), &probe6[14..14 + 1280 - 48]);
}

#[test]
fn udp_that_gets_no_error() {
    let mut lab = Lab::settled(spec());
    let mut bad = udp4(ROUTER4, GATEWAY4, 4);
    *bad.last_mut().unwrap() ^= 1;
    lab.ignores(UPLINK, &bad, Ignored::Checksum);
    lab.ignores(UPLINK, &udp4(ROUTER4, [198, 51, 100, 64], 4), Ignored::NotOurs); // a pool's address
    lab.ignores(UPLINK, &udp4(ROUTER4, [198, 51, 100, 255], 4), Ignored::NotOurs);
    // Ten at once, then one every tenth of a second.
    for _ in 0..10 {
        assert_eq!(lab.receive(UPLINK, &udp4(ROUTER4, GATEWAY4, 4)).len(), 1);
    }
    lab.ignores(UPLINK, &udp4(ROUTER4, GATEWAY4, 4), Ignored::RateLimited);
    lab.run(Duration::from_millis(100));
    assert_eq!(lab.receive(UPLINK, &udp4(ROUTER4, GATEWAY4, 4)).len(), 1);
    lab.ignores(UPLINK, &udp4(ROUTER4, GATEWAY4, 4), Ignored::RateLimited);

    let mut silent = spec();
    silent.icmp.silent.push(UPLINK);
    let mut lab = Lab::settled(silent);
    lab.ignores(UPLINK, &udp4(ROUTER4, GATEWAY4, 4), Ignored::Silent);
}

#[test]
fn tcp_gets_a_reset_by_rfc_9293_section_3_10_7_1() {
    let mut lab = Lab::settled(spec());
    let segment = |flags: &str, payload: &[u8]| {
        let builder = PacketBuilder::ethernet2(ROUTER, GATEWAY).ipv4(ROUTER4, GATEWAY4, 64);
        let mut tcp = builder.tcp(40000, 22, 1000, 65535);
        for flag in flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'F' => tcp.fin(),
                'A' => tcp.ack(5000),
                _ => tcp.rst(),
            };
        }
        let mut bytes = Vec::new();
        tcp.write(&mut bytes, payload).unwrap();
        bytes
    };
    // Flags and payload; sequence and acknowledgement number of the reset.
    let cases: [(&str, &[u8], u32, Option<u32>); 4] =
        [("S", b"", 0, Some(1001)), ("SF", b"abc", 0, Some(1005)), ("SA", b"", 5000, None), ("A", b"abc", 5000, None)];
    for (flags, payload, sequence, acknowledgement) in cases {
        let message = open4(&lab.receive(UPLINK, &segment(flags, payload)), GATEWAY4, ROUTER4);
        let (tcp, rest) = etherparse::TcpHeader::from_slice(&message).unwrap();
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4_raw(GATEWAY4, ROUTER4, rest).unwrap());
        assert_eq!((tcp.source_port, tcp.destination_port), (22, 40000));
        assert_eq!((tcp.sequence_number, tcp.ack.then_some(tcp.acknowledgment_number)), (sequence, acknowledgement));
        assert!(tcp.rst && !tcp.syn && !tcp.fin && rest.is_empty());
    }
    lab.ignores(UPLINK, &segment("R", b""), Ignored::Unsupported);
}

// ---- Any input -----------------------------------------------------------------------------------------------------

/// Frames that the host understands, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        arp_request(ROUTER, ROUTER4, GATEWAY4),
        arp_reply(ROUTER, ROUTER4),
        Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::2", Some(ROUTER)).bytes(),
        Icmp6::advertisement("2001:db8:f::1", 0xe0, Some(ROUTER)).bytes(),
        ping4(ROUTER, GATEWAY, ROUTER4, GATEWAY4, b"abcdefgh"),
        unhex(PING6),
        udp4(ROUTER4, GATEWAY4, 8),
    ]
}

/// Makes the checksums of a damaged frame right again where they can be found, so that it gets further in.
fn mend(frame: &mut [u8]) {
    let sum = |parts: &[&[u8]]| {
        let words = parts.concat();
        let total: u32 =
            words.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
        !((total >> 16) + (total & 0xffff) + (((total >> 16) + (total & 0xffff)) >> 16)) as u16
    };
    let Some(ethertype) = frame.get(12..14).map(<[u8]>::to_vec) else { return };
    let packet = &mut frame[14..];
    if ethertype == [0x08, 0x00] && packet.len() >= 20 {
        let header = usize::from(packet[0] & 15) * 4;
        if header >= 20 && packet.len() >= header {
            packet[10..12].fill(0);
            let checksum = sum(&[&packet[..header]]);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    } else if ethertype == [0x86, 0xdd] && packet.len() >= 44 && packet[6] == 58 {
        packet[42..44].fill(0);
        let len = (packet.len() - 40) as u32;
        let checksum = sum(&[&packet[8..40], &len.to_be_bytes(), &[0, 0, 0, 58], &packet[40..]]);
        packet[42..44].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Junk(Vec<u8>),
    Damaged { seed: usize, edits: Vec<(usize, u8)>, cut: usize, mended: bool },
    Resolve(u16, [u8; 4]),
    Resolve6(u16, u16),
    Used(u16, [u8; 4]),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let edits = proptest::collection::vec((0usize..120, any::<u8>()), 0..4);
    let near =
        prop_oneof![Just(ROUTER4), Just(GATEWAY4), any::<u8>().prop_map(|last| [198, 51, 100, last]), any::<[u8; 4]>()];
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Step::Junk),
        6 => (0usize..7, edits, 0usize..8, any::<bool>())
            .prop_map(|(seed, edits, cut, mended)| Step::Damaged { seed, edits, cut, mended }),
        2 => (0u16..3, near.clone()).prop_map(|(interface, address)| Step::Resolve(interface, address)),
        1 => (0u16..3, any::<u16>()).prop_map(|(interface, last)| Step::Resolve6(interface, last)),
        1 => (0u16..3, near).prop_map(|(interface, address)| Step::Used(interface, address)),
        2 => (0u64..20_000).prop_map(Step::Wait),
    ]
}

/// The host under another configuration (a reload).
fn reload(lab: &mut Lab, before: Spec, after: Spec) -> Vec<Seen> {
    let old = Plan::compile(before).unwrap();
    let plan = Arc::new(Plan::succeed(&old, &Leases::new(&old), after).unwrap());
    lab.call(|host, now, out| host.succeed(plan, now, out))
}

#[test]
fn a_reload_of_the_same_says_and_forgets_nothing() {
    let mut lab = Lab::settled(spec());
    lab.resolve(UPLINK, ROUTER4);
    lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4));
    let permanent = Seen::Reachable(INSIDE, [192, 168, 1, 77].into(), [2, 0, 0, 0, 0, 0x77]);
    let said = reload(&mut lab, spec(), spec());
    assert!(said.iter().all(|it| *it == permanent), "{said:?}");
    assert_eq!(lab.state(UPLINK, ROUTER4), Some(NudState::Reachable));
    // It answers as before.
    let asked = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4));
    assert_eq!(asked, [frame(UPLINK, ARP_REPLY)]);
}

#[test]
fn a_reload_brings_new_addresses_up_and_only_these() {
    let mut lab = Lab::settled(spec());
    let mut after = spec();
    after.interfaces[1].addresses.extend([prefix("198.51.100.3/24"), prefix("2001:db8:f::3/64")]);
    let said = reload(&mut lab, spec(), after);
    // The IPv4 address is announced, the IPv6 one tested first (RFC 4862 §5.4); nothing else is said.
    let frames = said.iter().filter_map(|it| if let Seen::Frame(_, hex) = it { Some(hex) } else { None });
    let frames: Vec<_> = frames.collect();
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!(*frames[0], GRATUITOUS.replace("c6336402", "c6336403"));
    assert!(frames[1].starts_with("3333ff000003") && frames[1].contains("ff0200000000000000000001ff000003"));
    let asked = lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, [198, 51, 100, 3]));
    assert!(asked.contains(&frame(UPLINK, &ARP_REPLY.replace("c6336402", "c6336403"))), "{asked:?}");
    lab.run(SETTLING);
    let asked = lab.receive(UPLINK, &Icmp6::solicitation("2001:db8:f::1", "2001:db8:f::3", Some(ROUTER)).bytes());
    assert!(matches!(&asked[0], Seen::Frame(_, hex) if hex.starts_with(&ADVERTISEMENT[..28])), "{asked:?}");
}

#[test]
fn a_reload_takes_addresses_and_neighbours_away() {
    let mut lab = Lab::settled(spec());
    lab.resolve(UPLINK, ROUTER4);
    lab.receive(UPLINK, &arp_reply(ROUTER, ROUTER4));
    let mut after = spec();
    after.interfaces[0].neighbours.clear();
    after.interfaces[1].addresses[0] = prefix("198.51.100.9/24");
    after.interfaces[1].vlan = Some(7);
    let said = reload(&mut lab, spec(), after);
    // Its link is another one now, so who was there is not known any more.
    assert!(said.contains(&Seen::Failed(UPLINK, IpAddr::from(ROUTER4))));
    assert!(said.contains(&Seen::Failed(INSIDE, [192, 168, 1, 77].into())));
    assert_eq!(lab.host.neighbours().count(), 0);
    assert_eq!(lab.receive(UPLINK, &arp_request(ROUTER, ROUTER4, GATEWAY4)), []);
}

#[test]
fn an_interface_that_is_gone_says_nothing() {
    let mut lab = Lab::settled(spec());
    let mut after = spec();
    let uplink = after.interfaces.remove(1);
    after.interfaces[0] = InterfaceSpec { port: PortId(1), ..uplink };
    after.forwards.clear();
    after.static_nat.clear();
    let said = reload(&mut lab, spec(), after);
    assert_eq!(said, [Seen::Failed(INSIDE, [192, 168, 1, 77].into())]);
    assert_eq!(lab.receive(INSIDE, &arp_request(CLIENT, CLIENT4, INSIDE4)), []);
    assert_eq!(lab.run(Duration::from_secs(10)), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No input panics; every frame is counted exactly once; the table stays within its bounds; timers lie ahead; and what
    /// is sent is a frame or packet that another parser can read.
    #[test]
    fn any_input_leaves_the_host_sane(steps in proptest::collection::vec(step(), 1..60)) {
        let mut small = spec();
        small.limits.neighbours = 5;
        let mut lab = Lab::settled(small);
        let seeds = seeds();
        for step in steps {
            let said = match step {
                Step::Junk(bytes) => lab.receive(UPLINK, &bytes),
                Step::Damaged { seed, edits, cut, mended } => {
                    let mut bytes = seeds[seed].clone();
                    for (at, value) in edits {
                        let len = bytes.len();
                        bytes[at % len] = value;
                    }
                    bytes.truncate(bytes.len() - if cut < 4 { 0 } else { cut });
                    if mended {
                        mend(&mut bytes);
                    }
                    lab.receive(UPLINK, &bytes)
                }
                Step::Resolve(interface, address) => lab.resolve(InterfaceId(interface), address),
                Step::Resolve6(interface, last) => {
                    lab.resolve(InterfaceId(interface), Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, last))
                }
                Step::Used(interface, address) => lab.used(InterfaceId(interface), address),
                Step::Wait(millis) => {
                    lab.run(Duration::from_millis(millis)).into_iter().map(|(_, seen)| seen).collect()
                }
            };
            for seen in said {
                match seen {
                    Seen::Frame(_, frame) => prop_assert!(SlicedPacket::from_ethernet(&unhex(&frame)).is_ok()),
                    Seen::Packet(packet) => prop_assert!(SlicedPacket::from_ip(&unhex(&packet)).is_ok()),
                    _ => {}
                }
            }
            let counters = lab.host.counters();
            prop_assert_eq!(counters.received, counters.handled + counters.ignored.iter().sum::<u64>());
            prop_assert!(lab.host.neighbours().count() <= 5);
            prop_assert!(lab.host.next_deadline().is_none_or(|deadline| deadline >= lab.now));
        }
    }
}
