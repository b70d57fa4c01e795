//! Stateless translation between IPv4 and IPv6 through the engine: requirements §6 to §8 (RFC 6052, 7757, 7915, 6791), and the
//! router's duties around it. The maps of fields are tested where they are (`dataplane/src/translate/siit/`).
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use common::{
    INSIDE, Lab, OUTSIDE, PEER, end, icmp, icmp6, prefix, read, read6, spec, tcp_with, udp, udp_ttl, udp6, with_ip,
};
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::plan::{CrossingSpec, InterfaceId, MssClamp, NextHop, RouteSpec, Spec, ZoneId};
use dataplane::translate::eam::{Hairpin, Row, Table};
use dataplane::translate::embed::Prefix;
use dataplane::translate::siit::{Settings, UdpChecksumNone};

/// The IP header in a frame.
const IP: usize = 14;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A frame that brings an IP packet to the gateway.
fn frame(interface: InterfaceId, packet: &[u8]) -> Vec<u8> {
    common::ethernet(interface, if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

fn embedding(text: &str) -> Prefix {
    let (network, len) = text.split_once('/').expect("a prefix");
    Prefix::new(v6(network).to_bits(), len.parse().unwrap()).expect("a prefix that embeds")
}

fn table(rows: &[(&str, &str)]) -> Arc<Table> {
    let row = |&(four, six): &(&str, &str)| {
        let (four, v4_len) = four.split_once('/').unwrap_or((four, "32"));
        let (six, v6_len) = six.split_once('/').unwrap_or((six, "128"));
        Row {
            v4: v4(four).to_bits(),
            v4_len: v4_len.parse().unwrap(),
            v6: v6(six).to_bits(),
            v6_len: v6_len.parse().unwrap(),
        }
    };
    let rows: Vec<Row> = rows.iter().map(row).collect();
    Arc::new(Table::build(&rows).expect("rows that are a table").0)
}

/// IPv4 outside, IPv6 inside; the prefix and the hosts of the vectors.
fn crossing() -> CrossingSpec {
    CrossingSpec {
        name: "border".into(),
        ipv4: ZoneId(1),
        ipv6: ZoneId(0),
        prefixes: vec![embedding("2001:db8:100::/40")],
        destinations: vec![v4("192.0.2.0")..=v4("192.0.2.255")],
        destination_prefix: None,
        mappings: Arc::default(),
        hairpin: Hairpin::Intrinsic,
        settings: Settings::default(),
        error_sources: vec![v4("198.51.100.9")..=v4("198.51.100.9")],
        error_prefix: None,
        report_discards: true,
    }
}

fn spec_with(crossing: CrossingSpec) -> Spec {
    let mut spec = spec();
    (spec.nat44, spec.pools) = (Vec::new(), Vec::new());
    spec.interfaces[1].addresses[0] = prefix("198.51.100.9/24");
    let via = |to: &str| RouteSpec { prefix: prefix(to), next_hop: NextHop::Via(v6("fd00:1::2").into(), INSIDE) };
    // Hosts inside: embedded ones, by a native route within the prefix, and mapped ones.
    spec.routes.extend([via("2001:db8:1c0::/48"), via("2001:db8:aaaa::/48"), via("2001:db8:bbbb::/48")]);
    spec.crossings = vec![crossing];
    spec
}

fn lab_of(spec: Spec) -> Lab {
    Lab::knowing(
        spec,
        &[(INSIDE, "fd00:1::2"), (OUTSIDE, "198.51.100.1"), (OUTSIDE, "198.51.100.2"), (OUTSIDE, "2001:db8:f::1")],
    )
}

fn lab() -> Lab {
    lab_of(spec_with(crossing()))
}

/// The hosts of the vectors: inside with its IPv4-translatable address, and outside as inside sees it.
const H6: &str = "2001:db8:1c0:2:21::";
const H4: &str = "2001:db8:1c6:3364:2::";
const ADDRESSES: &str = "20010db801c000020021000000000000 20010db801c633640002000000000000";

/// An IPv4 packet without what is free: the identification, and the header checksum, which is asserted to be right.
fn plain4(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header checksum");
    packet[4..6].fill(0);
    packet[10..12].fill(0);
    packet
}

/// The vectors of requirements.md §7c: UDP, a SYN, an echo request.
#[test]
fn xl_24_28_vectors_from_ipv6() {
    let mut lab = lab();
    for (six, four) in [
        (
            format!("60000000000c1140 {ADDRESSES} 04d20035000c897d70696e67"),
            "45000020000000003f118f76c0000221c6336402 04d20035000c2fa770696e67",
        ),
        (
            format!("6000000000180640 {ADDRESSES} 9c40005000000001000000006002ffff69140000020405b4"),
            "4500002c000000003f068f75c0000221c6336402 9c40005000000001000000006002ffff0f3e0000020405b4",
        ),
        (
            format!("6000000000103a40 {ADDRESSES} 80004969123400016162636465666768"),
            "45000024000000003f018f82c0000221c6336402 08005435123400016162636465666768",
        ),
    ] {
        let out = lab.pass(INSIDE, &frame(INSIDE, &hex(&six)), OUTSIDE);
        assert_eq!(plain4(&out[IP..]), plain4(&hex(four)), "{six}");
    }
    let counters = lab.worker.engine().counters();
    assert_eq!(counters.crossed.each_ref().map(|it| it.get()), [0, 3]);
}

/// The ICMP error of requirements.md §7c: 3/4 with MTU 1400 becomes a packet too big with 1420, its quote translated.
#[test]
fn xl_33_38_vector_of_a_fragmentation_needed() {
    let mut lab = lab();
    let four = "4500003c0000000040017c98cb007107c00002210304e3f80000057845000020000000003c119276c0000221c633640204d20035000c2fa770696e67";
    let six = "60000000003c3a3f20010db801cb0071000700000000000020010db801c0000200210000000000000200273a0000058c\
               60000000000c113c20010db801c00002002100000000000020010db801c63364000200000000000004d20035000c897d70696e67";
    let came = lab.pass(OUTSIDE, &frame(OUTSIDE, &hex(four)), INSIDE);
    assert_eq!(came[IP..], hex(six));
}

/// From IPv4: datagrams with right checksums, one hop less, both ways of the same flow.
#[test]
fn xl_02_03_07_from_ipv4() {
    let mut lab = lab();
    let came = lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer"), INSIDE);
    let seen = read6(&came);
    assert_eq!((seen.source, seen.destination, seen.hop_limit, seen.next_header), (v6(H4), v6(H6), 63, 17));
    assert_eq!(seen.transport.len(), 8 + 6, "no fragment header, though it may be cut");
    let left = lab.pass(INSIDE, &udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), b"question", 64), OUTSIDE);
    let seen = read(&left);
    assert_eq!((seen.source, seen.destination, seen.ttl), (end("192.0.2.33:1234"), end("198.51.100.2:53"), 63));
}

/// XL-03, XL-15, RTR-06: hops end in the sender's own family, with its packet quoted, from the interface that it came by.
#[test]
fn xl_03_15_hops_end() {
    let mut lab = lab();
    let last = udp_ttl(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer", 1);
    let error = common::read_error(&lab.pass(OUTSIDE, &last, OUTSIDE));
    assert_eq!((error.kind, error.code, error.source), (11, 0, IpAddr::V4(v4("198.51.100.9"))));
    let last = udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), b"question", 1);
    let error = read6(&lab.pass(INSIDE, &last, INSIDE));
    assert_eq!((error.source, error.destination, &error.transport[..2]), (v6("fd00:1::1"), v6(H6), &[3, 0][..]));
    assert_eq!(error.transport[8..], last[IP..]);
}

/// XL-05: a packet that may not be cut, too large for the IPv6 link.
#[test]
fn xl_05_too_large_and_not_to_be_cut() {
    let mut lab = lab();
    let large = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[7; 1472]), |ip| ip[6] |= 0x40);
    let error = common::read_error(&lab.pass(OUTSIDE, &large, OUTSIDE));
    assert_eq!((error.kind, error.code, error.word), (3, 4, 1480));
    let fits = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[7; 1452]), |ip| ip[6] |= 0x40);
    assert_eq!(read6(&lab.pass(OUTSIDE, &fits, INSIDE)).transport.len(), 1460);
}

/// XL-06, XL-08: one that may be is cut to 1280 bytes, with its identification; or not, where the network takes more.
#[test]
fn xl_06_08_cut_to_the_lowest_mtu() {
    let mut lab = lab();
    let large = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[7; 1472]), |ip| {
        ip[4..6].copy_from_slice(&0xbeef_u16.to_be_bytes());
        ip[6] &= !0x40;
    });
    let seen = lab.send(OUTSIDE, &large);
    let pieces: Vec<&[u8]> = seen.frames.iter().map(|(_, frame)| &frame[IP..]).collect();
    assert_eq!(pieces.len(), 2);
    let mut datagram = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        assert!(piece.len() <= 1280);
        assert_eq!((piece[6], piece[40]), (44, 17), "a fragment header, then UDP");
        assert_eq!(piece[44..48], 0xbeef_u32.to_be_bytes());
        let field = u16::from_be_bytes([piece[42], piece[43]]);
        assert_eq!((usize::from(field & 0xfff8), field & 1), (datagram.len(), u16::from(at == 0)));
        datagram.extend(&piece[48..]);
    }
    let whole = read6(&common::ethernet(INSIDE, 0x86dd, &{
        let mut packet = pieces[0][..40].to_vec();
        packet[4..6].copy_from_slice(&(datagram.len() as u16).to_be_bytes());
        packet[6] = 17;
        packet.extend(&datagram);
        packet
    }));
    assert_eq!(whole.transport[8..], [7; 1472], "and a right checksum over it");
    let mut wide = crossing();
    wide.settings.lowest_ipv6_mtu = 1500;
    let mut lab = lab_of(spec_with(wide));
    let fits = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[7; 1452]), |ip| ip[6] &= !0x40);
    assert_eq!(read6(&lab.pass(OUTSIDE, &fits, INSIDE)).next_header, 17, "whole");
}

/// XL-08, XL-18, XL-22: fragments keep their places both ways; an atomic one is a whole packet.
#[test]
fn xl_08_18_22_fragments() {
    let mut lab = lab();
    let later = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[7; 64]), |ip| {
        ip[4..8].copy_from_slice(&[0xbe, 0xef, 0x20, 8]);
    });
    let came = lab.pass(OUTSIDE, &later, INSIDE);
    assert_eq!(came[IP + 6], 44);
    assert_eq!(came[IP + 40..IP + 48], [17, 0, 0, 65, 0, 0, 0xbe, 0xef], "offset 64, more to come");
    assert_eq!(came[IP + 48..], later[IP + 20..]);
    let six = |field: u16, identification: u32| {
        let datagram = udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), &[7; 64], 64)[IP..].to_vec();
        let mut packet = datagram[..40].to_vec();
        packet[4..6].copy_from_slice(&80_u16.to_be_bytes());
        packet[6] = 44;
        packet.extend([17, 0]);
        packet.extend(field.to_be_bytes());
        packet.extend(identification.to_be_bytes());
        packet.extend(&datagram[40..]);
        frame(INSIDE, &packet)
    };
    let left = lab.pass(INSIDE, &six(64 | 1, 0x1234_5678), OUTSIDE);
    assert_eq!(left[IP + 4..IP + 8], [0x56, 0x78, 0x20, 8]);
    let left = lab.pass(INSIDE, &six(0, 0x1234_5678), OUTSIDE);
    assert_eq!(read(&left).payload, [7; 64]);
    assert_eq!(left[IP + 6..IP + 8], [0, 0], "an atomic fragment is a whole datagram, which may be cut");
}

/// XL-12: a more specific native route leads past the translation; and what is not among the destinations is routed.
#[test]
fn xl_12_native_routes_win() {
    let mut spec = spec_with(crossing());
    let to = |to: &str, router: &str, interface| RouteSpec {
        prefix: prefix(to),
        next_hop: NextHop::Via(router.parse().unwrap(), interface),
    };
    spec.routes.push(to("2001:db8:1c6:3364:2::/128", "2001:db8:f::1", OUTSIDE));
    spec.routes.push(to("192.0.2.33/32", "192.168.1.2", INSIDE));
    let mut lab = lab_of(spec);
    lab.neighbour(INSIDE, "192.168.1.2".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.run();
    let native = udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), b"question", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &native, OUTSIDE)).destination, v6(H4));
    let native = udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer");
    assert_eq!(read(&lab.pass(OUTSIDE, &native, INSIDE)).destination, end("192.0.2.33:1234"));
}

/// 464XLAT's customer side (RFC 6877): all of IPv4 is embedded in the provider's prefix, which is out there somewhere.
#[test]
fn xl_12_what_is_embedded_leaves_by_the_routes_around_its_prefix() {
    let mut lab = lab_of(spec_with(CrossingSpec {
        ipv4: ZoneId(0),
        ipv6: ZoneId(1),
        prefixes: vec![embedding("2001:db8:64::/96")],
        destinations: vec![Ipv4Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST],
        mappings: table(&[("192.168.1.0/24", "2001:db8:c1a7::/120")]),
        ..crossing()
    }));
    lab.neighbour(INSIDE, "192.168.1.10".parse().unwrap(), NeighbourState::Reachable(PEER));
    let (home, server) = (v6("2001:db8:c1a7::a"), v6("2001:db8:64::9.9.9.9"));
    for _ in 0..2 {
        let question = udp(INSIDE, end("192.168.1.10:1234"), end("9.9.9.9:53"), b"question");
        let left = read6(&lab.pass(INSIDE, &question, OUTSIDE));
        assert_eq!((left.source, left.destination), (home, server));
        let answer = udp6(OUTSIDE, (server, 53), (home, 1234), b"answer", 64);
        let came = read(&lab.pass(OUTSIDE, &answer, INSIDE));
        assert_eq!((came.source, came.destination), (end("9.9.9.9:53"), end("192.168.1.10:1234")));
    }
    // So do errors to who is embedded.
    let last = udp6(OUTSIDE, (server, 53), (home, 1234), b"answer", 1);
    let error = read6(&lab.pass(OUTSIDE, &last, OUTSIDE));
    assert_eq!((error.destination, &error.transport[..2]), (server, &[3, 0][..]));
}

/// XL-20, XL-21: toward a smaller IPv4 link small packets are cut, and senders of larger ones are told.
#[test]
fn xl_20_21_a_smaller_ipv4_link() {
    let mut narrow = spec_with(crossing());
    narrow.interfaces[1].mtu = 576;
    narrow.interfaces[1].addresses.truncate(1);
    narrow.routes.retain(|route| route.prefix.address.is_ipv4() || matches!(route.next_hop, NextHop::Via(_, INSIDE)));
    let mut lab = lab_of(narrow);
    let seen = lab.send(INSIDE, &udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), &[7; 1232], 64));
    assert_eq!(seen.frames.len(), 3, "1260 bytes to 576");
    let identification = &seen.frames[0].1[IP + 4..IP + 6];
    let mut payload = 0;
    for (at, (_, frame)) in seen.frames.iter().enumerate() {
        assert!(frame.len() - IP <= 576 && &frame[IP + 4..IP + 6] == identification);
        let field = u16::from_be_bytes([frame[IP + 6], frame[IP + 7]]);
        assert_eq!((usize::from(field & 0x1fff) * 8, field & 0xe000), (payload, if at < 2 { 0x2000 } else { 0 }));
        payload += frame.len() - IP - 20;
    }
    assert_eq!(payload, 1240);
    let mut smaller = spec_with(crossing());
    smaller.interfaces[1].mtu = 1400;
    let mut lab = lab_of(smaller);
    let error = read6(&lab.pass(INSIDE, &udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), &[7; 1452], 64), INSIDE));
    assert_eq!((&error.transport[..2], &error.transport[4..8]), (&[2, 0][..], &1420_u32.to_be_bytes()[..]));
}

/// XL-24: a wrong transport checksum is wrong by as much when it leaves.
#[test]
fn xl_24_wrong_checksums_stay_wrong() {
    let mut lab = lab();
    let sum = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let right = udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), b"question", 64);
    let mut wrong = right.clone();
    wrong[IP + 46] ^= 0x40;
    let (good, bad) = (lab.pass(INSIDE, &right, OUTSIDE), lab.pass(INSIDE, &wrong, OUTSIDE));
    let difference = |one: u16, other: u16| (u32::from(one) + 0xffff - u32::from(other)) % 0xffff;
    assert_eq!(
        difference(sum(&bad, IP + 26), sum(&good, IP + 26)),
        difference(sum(&wrong, IP + 46), sum(&right, IP + 46))
    );
    let right = udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer");
    let mut wrong = right.clone();
    wrong[IP + 26] ^= 0x40;
    let (good, bad) = (lab.pass(OUTSIDE, &right, INSIDE), lab.pass(OUTSIDE, &wrong, INSIDE));
    assert_eq!(
        difference(sum(&bad, IP + 46), sum(&good, IP + 46)),
        difference(sum(&wrong, IP + 26), sum(&right, IP + 26))
    );
}

/// XL-25: all three ways of a datagram without a checksum.
#[test]
fn xl_25_datagrams_without_a_checksum() {
    let mut bare = udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer");
    bare[IP + 26..IP + 28].fill(0);
    let of = |mode| {
        let mut crossing = crossing();
        crossing.settings.udp_checksum_none = mode;
        lab_of(spec_with(crossing))
    };
    assert_eq!(read6(&of(UdpChecksumNone::Compute).pass(OUTSIDE, &bare, INSIDE)).transport[8..], *b"answer");
    let mut forward = of(UdpChecksumNone::Forward);
    assert_eq!(forward.pass(OUTSIDE, &bare, INSIDE)[IP + 46..IP + 48], [0, 0]);
    let mut drop = of(UdpChecksumNone::Drop);
    let error = common::read_error(&drop.pass(OUTSIDE, &bare, OUTSIDE));
    assert_eq!((error.kind, error.code), (3, 13), "prohibited (§4.4)");
    assert_eq!(drop.drops(), [("udp-checksum-none", 1)]);
}

/// XL-26, XL-27, L4X-07: whatever else there is passes as it is.
#[test]
fn xl_26_other_transports_pass() {
    let mut lab = lab();
    // The last ones mean something else in IPv6.
    for protocol in [132, 50, 51, 47, 253, 0, 43, 44, 58, 60] {
        let four = with_ip(udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"whatever it is"), |ip| {
            ip[9] = protocol
        });
        let came = lab.pass(OUTSIDE, &four, INSIDE);
        assert_eq!((came[IP + 6], &came[IP + 40..]), (protocol, &four[IP + 20..]), "protocol {protocol}");
    }
}

/// ADR-05, ADR-10: the well-known prefix does not stand before private addresses; a prefix of 64:ff9b:1::/48 does.
#[test]
fn adr_05_10_the_well_known_prefix() {
    let with = |text: &str| {
        let mut crossing = crossing();
        crossing.prefixes.push(embedding(text));
        lab_of(spec_with(crossing))
    };
    let mut lab = with("64:ff9b::/96");
    for private in ["64:ff9b::10.0.0.1", "64:ff9b::100.64.0.1", "64:ff9b::169.254.1.1", "64:ff9b::192.0.2.1"] {
        assert!(
            lab.send(INSIDE, &udp6(INSIDE, (v6(H6), 1234), (v6(private), 53), b"", 64)).frames.is_empty(),
            "{private}"
        );
    }
    assert_eq!(lab.drops(), [("not-global", 4)]);
    let global = udp6(INSIDE, (v6(H6), 1234), (v6("64:ff9b::8.8.8.8"), 53), b"", 64);
    assert_eq!(read(&lab.pass(INSIDE, &global, OUTSIDE)).destination.0, v4("8.8.8.8"));
    let mut lab = with("64:ff9b:1::/96");
    let private = udp6(INSIDE, (v6(H6), 1234), (v6("64:ff9b:1::10.0.0.1"), 53), b"", 64);
    assert_eq!(read(&lab.pass(INSIDE, &private, OUTSIDE)).destination.0, v4("10.0.0.1"));
}

/// ADR-04, ADR-11: a suffix is ignored; the legacy prefixes are prefixes like any other, where they are configured.
#[test]
fn adr_04_11_suffixes_and_legacy_prefixes() {
    let mut lab = lab();
    let suffix = udp6(INSIDE, (v6(H6), 1234), (v6("2001:db8:1c6:3364:2::77"), 53), b"", 64);
    assert_eq!(read(&lab.pass(INSIDE, &suffix, OUTSIDE)).destination.0, v4("198.51.100.2"));
    for text in ["::ffff:0:0/96", "::ffff:0:0:0/96"] {
        let mut legacy = crossing();
        legacy.prefixes.push(embedding(text));
        let mut lab = lab_of(spec_with(legacy));
        let address = Ipv6Addr::from_bits(embedding(text).embed(v4("198.51.100.2").to_bits()));
        let frame = udp6(INSIDE, (v6(H6), 1234), (address, 53), b"", 64);
        assert_eq!(read(&lab.pass(INSIDE, &frame, OUTSIDE)).destination.0, v4("198.51.100.2"), "{text}");
    }
}

/// ADR-11: by default addresses that stand for IPv4 ones are on no wire.
#[test]
fn adr_11_mapped_addresses_are_dropped() {
    let mut lab = lab();
    for (from, to) in [("::ffff:198.51.100.2", H4), (H6, "::ffff:198.51.100.2")] {
        assert!(lab.send(INSIDE, &udp6(INSIDE, (v6(from), 1234), (v6(to), 53), b"", 64)).frames.is_empty());
    }
    assert_eq!(lab.drops(), [("bad-source", 1), ("bad-destination", 1)]);
}

/// RFC 2765's scheme, as the translator of background document 001 had it: hosts in IPv6 have IPv4-translated addresses, hosts in IPv4
/// are seen under IPv4-mapped ones; ranges of destinations need be no prefixes.
#[test]
fn adr_11_two_legacy_prefixes_at_once() {
    let crossing = CrossingSpec {
        prefixes: vec![embedding("::ffff:0:0/96"), embedding("::ffff:0:0:0/96")],
        destinations: vec![v4("131.107.65.100")..=v4("131.107.65.130")],
        destination_prefix: Some(embedding("::ffff:0:0:0/96")),
        ..crossing()
    };
    let mut spec = spec_with(crossing);
    let next_hop = NextHop::Via(v6("fd00:1::2").into(), INSIDE);
    spec.routes.push(RouteSpec { prefix: prefix("::ffff:0:131.107.65.0/120"), next_hop });
    let mut lab = lab_of(spec);
    let came =
        read6(&lab.pass(OUTSIDE, &udp(OUTSIDE, end("207.46.130.14:53"), end("131.107.65.121:1234"), b""), INSIDE));
    assert_eq!((came.source, came.destination), (v6("::ffff:207.46.130.14"), v6("::ffff:0:131.107.65.121")));
    let back = udp6(INSIDE, (v6("::ffff:0:131.107.65.121"), 1234), (v6("::ffff:207.46.130.14"), 53), b"", 64);
    let left = read(&lab.pass(INSIDE, &back, OUTSIDE));
    assert_eq!((left.source.0, left.destination.0), (v4("131.107.65.121"), v4("207.46.130.14")));
    // Out of the range: routed.
    let past =
        read(&lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.51.100.2:53"), end("131.107.65.131:1234"), b""), OUTSIDE));
    assert_eq!(past.destination.0, v4("131.107.65.131"));
}

/// Two mapped hosts, with a prefix for the rest of the world (RFC 7757 figures 8 to 11).
fn mapped(hairpin: Hairpin) -> CrossingSpec {
    CrossingSpec {
        prefixes: vec![embedding("64:ff9b::/96")],
        destinations: Vec::new(),
        mappings: table(&[("198.18.0.1", "2001:db8:aaaa::"), ("198.18.0.2", "2001:db8:bbbb::b")]),
        hairpin,
        ..crossing()
    }
}

/// A prefix before the addresses of the mapped hosts that may stand there.
fn own_prefix(hairpin: Hairpin) -> CrossingSpec {
    CrossingSpec { prefixes: vec![embedding("2001:db8:64::/96")], ..mapped(hairpin) }
}

#[test]
fn eam_02_03_mapped_and_embedded_addresses_in_one_packet() {
    let mut lab = lab_of(spec_with(mapped(Hairpin::Intrinsic)));
    let came = lab.pass(OUTSIDE, &udp(OUTSIDE, end("9.9.9.9:53"), end("198.18.0.1:1234"), b"answer"), INSIDE);
    let seen = read6(&came);
    assert_eq!((seen.source, seen.destination), (v6("64:ff9b::9.9.9.9"), v6("2001:db8:aaaa::")));
    let left =
        lab.pass(INSIDE, &udp6(INSIDE, (v6("2001:db8:bbbb::b"), 1234), (v6("64:ff9b::9.9.9.9"), 53), b"", 64), OUTSIDE);
    assert_eq!((read(&left).source.0, read(&left).destination.0), (v4("198.18.0.2"), v4("9.9.9.9")));
    // Neither mapped nor embedded: it has no address there.
    let stranger = udp6(INSIDE, (v6("2001:db8:aaaa::77"), 1234), (v6("64:ff9b::9.9.9.9"), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &stranger, INSIDE)).transport[..2], [1, 1], "prohibited");
    assert_eq!(lab.drops(), [("uncrossed", 1)]);
    // About its ICMPv6 there is nothing to say (RFC 7915 §5.4).
    let ping = icmp6(INSIDE, v6("2001:db8:aaaa::77"), v6("64:ff9b::9.9.9.9"), 128, 0, [0; 4], b"ping");
    lab.dropped(INSIDE, &ping, Drop::Uncrossed);
}

/// Of a mapping's two addresses one is a host's: packets to it in its own family are routed.
#[test]
fn eam_packets_to_mapped_hosts_themselves_are_routed() {
    let mut lab = lab_of(spec_with(CrossingSpec {
        // The second stands for a host in IPv4, on the link there.
        mappings: table(&[("198.18.0.1", "2001:db8:aaaa::"), ("198.51.100.2", "fd00:beef::2")]),
        ..mapped(Hairpin::Intrinsic)
    }));
    let native = udp6(INSIDE, (v6("2001:db8:bbbb::b"), 1234), (v6("2001:db8:aaaa::"), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &native, INSIDE)).destination, v6("2001:db8:aaaa::"));
    let native = udp(OUTSIDE, end("9.9.9.9:53"), end("198.51.100.2:1234"), b"");
    assert_eq!(read(&lab.pass(OUTSIDE, &native, OUTSIDE)).destination, end("198.51.100.2:1234"));
    let crossed = udp6(INSIDE, (v6("2001:db8:aaaa::"), 1234), (v6("fd00:beef::2"), 53), b"", 64);
    let left = read(&lab.pass(INSIDE, &crossed, OUTSIDE));
    assert_eq!((left.source.0, left.destination.0), (v4("198.18.0.1"), v4("198.51.100.2")));
}

/// EAM-07: what mapped hosts send to each other's embedded addresses comes back as from an embedded address, with one hop less.
#[test]
fn eam_05_07_intrinsic_hairpin() {
    let mut lab = lab_of(spec_with(own_prefix(Hairpin::Intrinsic)));
    let (one, other) = (v6("2001:db8:aaaa::"), v6("2001:db8:bbbb::b"));
    let [one_embedded, other_embedded] = [v6("2001:db8:64::198.18.0.1"), v6("2001:db8:64::198.18.0.2")];
    let turned = read6(&lab.pass(INSIDE, &udp6(INSIDE, (one, 1234), (other_embedded, 53), b"hello", 64), INSIDE));
    assert_eq!((turned.source, turned.destination, turned.hop_limit), (one_embedded, other, 63));
    let back = udp6(INSIDE, (other, 53), (one_embedded, 1234), b"hello", 64);
    let turned = read6(&lab.pass(INSIDE, &back, INSIDE));
    assert_eq!((turned.source, turned.destination), (other_embedded, one));
    // The error about it, too: its quote looks as its sender knows it.
    let quote = |from: Ipv6Addr, to: Ipv6Addr| udp6(INSIDE, (from, 1234), (to, 53), b"hello", 63)[IP..].to_vec();
    let error = icmp6(INSIDE, other, one_embedded, 1, 4, [0; 4], &quote(one_embedded, other));
    let came = read6(&lab.pass(INSIDE, &error, INSIDE));
    assert_eq!((came.source, came.destination), (other_embedded, one));
    assert_eq!(came.transport[8..], quote(one, other_embedded));
    assert_eq!(lab.worker.engine().counters().hairpins.get(), 3);
}

/// EAM-06: under simple hairpinning such a packet goes to IPv4 and comes back by a router there.
#[test]
fn eam_06_simple_hairpin() {
    let mut lab = lab_of(spec_with(own_prefix(Hairpin::Simple)));
    let left = lab.pass(
        INSIDE,
        &udp6(INSIDE, (v6("2001:db8:aaaa::"), 1234), (v6("2001:db8:64::198.18.0.2"), 53), b"", 64),
        OUTSIDE,
    );
    assert_eq!((read(&left).source.0, read(&left).destination.0), (v4("198.18.0.1"), v4("198.18.0.2")));
    // Turned round outside.
    let came = read6(&lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.18.0.1:1234"), end("198.18.0.2:53"), b""), INSIDE));
    assert_eq!((came.source, came.destination), (v6("2001:db8:64::198.18.0.1"), v6("2001:db8:bbbb::b")));
}

/// ISP-01, ISP-02: a router in IPv6 without an address in IPv4 reports from one of a pool; two of them mostly from different ones.
#[test]
fn isp_01_02_errors_of_untranslatable_routers() {
    let mut crossing = crossing();
    crossing.error_sources = vec![v4("198.18.9.1")..=v4("198.18.9.16")];
    let mut lab = lab_of(spec_with(crossing));
    let quote = udp6(INSIDE, (v6(H4), 53), (v6(H6), 1234), b"answer", 1)[IP..].to_vec();
    let mut seen = std::collections::HashSet::new();
    for router in 1..=20_u128 {
        let router = Ipv6Addr::from_bits(v6("2001:db8:aaaa::").to_bits() | router);
        let error = icmp6(INSIDE, router, v6(H4), 3, 0, [0; 4], &quote);
        let left = read(&lab.pass(INSIDE, &error, OUTSIDE));
        assert_eq!((left.destination.0, left.transport[0]), (v4("198.51.100.2"), 11));
        assert!((v4("198.18.9.1")..=v4("198.18.9.16")).contains(&left.source.0));
        seen.insert(left.source.0);
    }
    assert!(seen.len() > 5, "{seen:?}");
}

/// ISP-03: such an error tells the router's address behind the quoted packet, in an object of RFC 5837.
#[test]
fn isp_03_untranslatable_routers_are_named() {
    let mut crossing = crossing();
    crossing.error_sources = vec![v4("198.18.9.1")..=v4("198.18.9.1")];
    let mut lab = lab_of(spec_with(crossing));
    let router = v6("2001:db8:aaaa::7");
    let quote = udp6(INSIDE, (v6(H4), 53), (v6(H6), 1234), b"answer", 1)[IP..].to_vec();
    // Class 2, the incoming interface by its address, of family 2 (IPv6).
    let object = [&[0, 24, 2, 4, 0, 2, 0, 0][..], &router.octets()].concat();
    // What RFC 4884 wants before it: the version, and a checksum of all extensions.
    let sum = |bytes: &[u8]| {
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).fold(0, |sum, it| {
            let sum = sum + it;
            (sum & 0xffff) + (sum >> 16)
        })
    };
    for (kind, code, expected) in [(1, 4, [3, 3]), (3, 0, [11, 0]), (4, 0, [12, 0]), (2, 0, [3, 4])] {
        let rest = [0, 0, 5 * u8::from(kind == 2), 0];
        let error = icmp6(INSIDE, router, v6(H4), kind, code, rest, &quote);
        let left = read(&lab.pass(INSIDE, &error, OUTSIDE));
        assert_eq!((left.source.0, &left.transport[..2]), (v4("198.18.9.1"), &expected[..]), "{kind}/{code}");
        // The quoted packet, and zeros up to 128 bytes, which are 32 words.
        assert_eq!((left.transport.len(), left.transport[5]), (8 + 128 + 28, 32), "{kind}/{code}");
        assert_eq!(left.transport[8 + 34..8 + 128], [0; 94]);
        let extensions = &left.transport[8 + 128..];
        assert_eq!((&extensions[..2], &extensions[4..], sum(extensions)), (&[0x20, 0][..], &object[..], 0xffff));
    }
    // Behind what the router itself has added (RFC 4950), in the same structure.
    let quote = [&quote[..], &[0; 128][..]].concat()[..128].to_vec();
    let label = [0, 8, 1, 1, 0x12, 0x34, 0x51, 0xfe];
    for checksum in [!sum(&[&[0x20, 0][..], &label].concat()) as u16, 0] {
        let extensions = [&[0x20, 0][..], &checksum.to_be_bytes(), &label].concat();
        let error = icmp6(INSIDE, router, v6(H4), 3, 0, [16, 0, 0, 0], &[&quote[..], &extensions].concat());
        let left = read(&lab.pass(INSIDE, &error, OUTSIDE));
        let found = &left.transport[8 + 128..];
        assert_eq!((&found[4..12], &found[12..]), (&label[..], &object[..]));
        let has_checksum = checksum != 0;
        assert_eq!((found[2..4] != [0, 0], sum(found) == 0xffff), (has_checksum, has_checksum));
    }
    // A router that tells of its interface itself has said enough; one that has a counterpart needs not.
    let told = [&[0x20, 0, 0, 0][..], &[0, 8, 2, 8, 0, 0, 0, 1]].concat();
    let error = icmp6(INSIDE, router, v6(H4), 3, 0, [16, 0, 0, 0], &[&quote[..], &told].concat());
    assert_eq!(read(&lab.pass(INSIDE, &error, OUTSIDE)).transport[8 + 128..], told);
    let error = icmp6(INSIDE, v6(H6), v6(H4), 3, 0, [0; 4], &quote);
    assert_eq!(read(&lab.pass(INSIDE, &error, OUTSIDE)).transport[5], 0);
}

/// XL-41: senders are told of what can't be translated, or not; of hops and sizes they always are.
#[test]
fn xl_41_reports_of_discards() {
    for report in [true, false] {
        let mut lab = lab_of(spec_with(CrossingSpec { report_discards: report, ..crossing() }));
        let mut answered = |interface, frame: &[u8]| {
            let seen = lab.send(interface, frame).frames;
            assert!(seen.iter().all(|(to, _)| *to == interface));
            !seen.is_empty()
        };
        let source_route = [131, 7, 4, 192, 0, 2, 1, 0];
        let to6 = || udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answered");
        let to4 = |hops| udp6(INSIDE, (v6(H6), 1234), (v6(H4), 53), b"question", hops);
        // Without a checksum, and in fragments: 3/13. A source route: 3/5.
        let mut fragment = with_ip(to6(), |ip| ip[6] = 0x20);
        fragment[IP + 26..IP + 28].fill(0);
        let mut routed = to6();
        routed.splice(IP + 20..IP + 20, source_route);
        let total = u8::try_from(routed.len() - IP).unwrap();
        let routed = with_ip(routed, |ip| (ip[0], ip[3]) = (0x47, total));
        assert_eq!([answered(OUTSIDE, &fragment), answered(OUTSIDE, &routed)], [report; 2]);
        // A source that has no counterpart: 1/1.
        let foreign = udp6(INSIDE, (v6("2001:db8:aaaa::7"), 1234), (v6(H4), 53), b"question", 64);
        assert_eq!(answered(INSIDE, &foreign), report);
        // Hops.
        assert!(answered(OUTSIDE, &with_ip(to6(), |ip| ip[8] = 1)) && answered(INSIDE, &to4(1)));
    }
}

/// The MSS of a SYN follows the MTU of both sides, less the headers there.
#[test]
fn segment_sizes_are_clamped_across() {
    let mut spec = spec_with(crossing());
    spec.interfaces[0].mss_clamp = MssClamp::FromMtu;
    let mut lab = lab_of(spec);
    let syn = tcp_with(OUTSIDE, end("198.51.100.2:80"), end("192.0.2.33:1234"), "S", 1, 0, b"", &[2, 4, 5, 180]);
    let came = lab.pass(OUTSIDE, &syn, INSIDE);
    read6(&came);
    assert_eq!(came[IP + 60..IP + 64], [2, 4, 5, 160], "1440");
}

/// A neighbour that is not known yet: the packet waits as it came, and crosses when it answers; or its sender is told in its own family.
#[test]
fn a_packet_waits_before_it_crosses() {
    let mut lab = Lab::new(spec_with(crossing()));
    lab.resolving = false;
    let frame = udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), b"answer");
    let seen = lab.send(OUTSIDE, &frame);
    assert_eq!(seen.resolve, [(INSIDE, IpAddr::V6(v6("fd00:1::2")))]);
    lab.neighbour(INSIDE, v6("fd00:1::2").into(), NeighbourState::Reachable(PEER));
    let seen = lab.run();
    assert_eq!(read6(&seen.frames[0].1).destination, v6(H6));
}

/// RTR-01 and the rest: traceroute's probes and pings of any size, both ways; echo has its checksum right.
#[test]
fn xl_28_echo_both_ways() {
    let mut lab = lab();
    let ping = common::echo(OUTSIDE, v4("198.51.100.2"), v4("192.0.2.33"), true, 7, 1);
    let came = read6(&lab.pass(OUTSIDE, &ping, INSIDE));
    assert_eq!((came.next_header, came.transport[0]), (58, 128));
    let pong = icmp6(INSIDE, v6(H6), v6(H4), 129, 0, [0, 7, 0, 1], b"abcdefgh");
    let left = read(&lab.pass(INSIDE, &pong, OUTSIDE));
    assert_eq!((left.protocol, left.transport[0], left.destination), (1, 0, (v4("198.51.100.2"), 7)));
    // A later fragment of a ping has no checksum to follow it (XL-10).
    let part = with_ip(ping, |ip| ip[6..8].copy_from_slice(&[0x20, 0]));
    let error = common::read_error(&lab.pass(OUTSIDE, &part, OUTSIDE));
    assert_eq!((error.kind, error.code), (3, 13));
    assert_eq!(lab.drops(), [("fragment-icmp", 1)]);
}

/// XL-29: what has no equivalent is dropped without a word.
#[test]
fn xl_29_31_untranslatable_messages() {
    let mut lab = lab();
    for kind in [4, 5, 6, 9, 10, 13, 17] {
        let frame = icmp(OUTSIDE, v4("198.51.100.2"), v4("192.0.2.33"), kind, 0, [0; 4], &[0; 28]);
        assert!(lab.send(OUTSIDE, &frame).frames.is_empty(), "type {kind}");
    }
    assert_eq!(lab.drops(), [("icmp-untranslatable", 7)]);
}

/// XL-09, XL-10, XL-23: sources that can't be, and groups.
#[test]
fn xl_09_23_illegal_sources() {
    let mut lab = lab();
    for source in ["0.0.0.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        let frame = udp(OUTSIDE, (v4(source), 53), end("192.0.2.33:1234"), b"answer");
        assert!(lab.send(OUTSIDE, &frame).frames.is_empty(), "{source}");
    }
    for source in ["::", "::1", "ff02::1", "fe80::7"] {
        let frame = udp6(INSIDE, (v6(source), 1234), (v6(H4), 53), b"question", 64);
        assert!(lab.send(INSIDE, &frame).frames.is_empty(), "{source}");
    }
    let group = Ipv6Addr::from_bits(embedding("2001:db8:100::/40").embed(v4("224.0.0.251").to_bits()));
    assert!(lab.send(INSIDE, &udp6(INSIDE, (v6(H6), 1234), (group, 53), b"question", 64)).frames.is_empty());
    assert_eq!(lab.drops(), [("bad-source", 8), ("multicast", 1), ("link-local", 1)]);
}

/// XL-11: a burst of one flow, some of whose packets go the long way, leaves in its order.
#[test]
fn xl_11_a_flow_keeps_its_order() {
    let mut lab = lab();
    let frames: Vec<Vec<u8>> = (0..64_u8)
        .map(|n| {
            let frame = udp(OUTSIDE, end("198.51.100.2:53"), end("192.0.2.33:1234"), &[n; 16]);
            // An option, which goes.
            if n % 3 != 0 { frame } else { with_ip(frame, |ip| ip[1] = n) }
        })
        .collect();
    let seen = lab.send_all(OUTSIDE, &frames);
    let order: Vec<u8> = seen.frames.iter().map(|(_, frame)| frame[IP + 48]).collect();
    assert_eq!(order, (0..64).collect::<Vec<u8>>());
}

/// ISP-04: a router in IPv4, where no prefix embeds: its errors come from a prefix of their own, all else of it is refused.
#[test]
fn isp_04_errors_of_routers_in_ipv4() {
    let crossing = CrossingSpec {
        prefixes: Vec::new(),
        destinations: Vec::new(),
        mappings: table(&[("198.18.0.1", "2001:db8:aaaa::"), ("198.18.7.7", "2001:db8:7::7")]),
        error_prefix: Some(embedding("2001:db8:e::/96")),
        ..crossing()
    };
    let mut lab = lab_of(spec_with(crossing));
    let quote = udp(OUTSIDE, end("198.18.0.1:1234"), end("198.18.7.7:53"), b"question")[IP..].to_vec();
    let error = icmp(OUTSIDE, v4("9.9.9.9"), v4("198.18.0.1"), 11, 0, [0; 4], &quote);
    let came = read6(&lab.pass(OUTSIDE, &error, INSIDE));
    assert_eq!((came.source, came.transport[0]), (v6("2001:db8:e::9.9.9.9"), 3));
    let refused = lab.pass(OUTSIDE, &udp(OUTSIDE, end("9.9.9.9:53"), end("198.18.0.1:1234"), b""), OUTSIDE);
    let error = common::read_error(&refused);
    assert_eq!((error.kind, error.code), (3, 13), "prohibited");
    assert_eq!(lab.drops(), [("uncrossed", 1)]);
}
