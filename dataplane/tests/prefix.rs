//! Stateless translation of prefixes through the engine: requirements §9 (RFC 6296, MAP66, NETMAP).
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{INSIDE, Lab, OUTSIDE, PEER, echo, end, icmp, icmp6, prefix, read, read6, spec, tcp, udp, udp6, with_ip};
use dataplane::counters::Translator;
use dataplane::message::NeighbourState;
use dataplane::plan::{InterfaceId, IpPrefix, NextHop, PrefixKind, PrefixRule, RouteSpec, Spec, ZoneId};
use proptest::prelude::*;

/// The IPv6 header in a frame.
const IP: usize = 14;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("an IPv4 address")
}

fn exchange(kind: PrefixKind, inside: &str, outside: &str) -> PrefixRule {
    let (inside, outside) = (prefix(inside), prefix(outside));
    PrefixRule { name: format!("{inside}"), from: ZoneId(0), to: ZoneId(1), inside, outside, kind }
}

fn nptv6(inside: &str, outside: &str) -> PrefixRule {
    exchange(PrefixKind::Nptv6 { allow_zero_iid: false }, inside, outside)
}

/// The rig's gateway with these rules, their inside prefixes behind an inside router; nothing else is translated.
fn spec_with(rules: &[PrefixRule]) -> Spec {
    let mut spec = spec();
    (spec.nat44, spec.pools) = (Vec::new(), Vec::new());
    let via = |inside: IpPrefix| {
        let router: IpAddr = if inside.address.is_ipv4() { "192.168.1.2" } else { "fd00:1::2" }.parse().unwrap();
        RouteSpec { prefix: inside, next_hop: NextHop::Via(router, INSIDE) }
    };
    let inside = rules.iter().filter(|rule| !spec.routes.iter().any(|it| it.prefix == rule.inside));
    let mut routes: Vec<RouteSpec> = inside.map(|rule| via(rule.inside)).collect();
    routes.dedup_by_key(|route| route.prefix);
    spec.routes.extend(routes);
    spec.prefixes = rules.to_vec();
    spec
}

fn lab(rules: &[PrefixRule]) -> Lab {
    lab_of(spec_with(rules))
}

fn lab_of(spec: Spec) -> Lab {
    Lab::knowing(
        spec,
        &[
            (INSIDE, "192.168.1.2"),
            (INSIDE, "fd00:1::2"),
            (INSIDE, "fd00:1::10"),
            (OUTSIDE, "198.51.100.1"),
            (OUTSIDE, "2001:db8:f::1"),
        ],
    )
}

fn home() -> PrefixRule {
    nptv6("fd01:203:405::/48", "2001:db8:1::/48")
}

fn server() -> Ipv6Addr {
    v6("2001:db8:5::1")
}

/// An IPv6 packet of any protocol, as it arrives on an interface.
fn raw6(interface: InterfaceId, from: Ipv6Addr, to: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    common::ethernet(interface, 0x86dd, &packet)
}

/// Both ways, for every protocol: TCP, UDP, ICMPv6, SCTP, ESP; no byte behind the IPv6 header changes, and one hop is lost.
#[test]
fn npt_02_03_08_there_and_back_without_touching_the_transport() {
    let mut lab = lab(&[home()]);
    let (inside, outside) = (v6("fd01:203:405:1::1234"), v6("2001:db8:1:d550::1234"));
    let echo6 = icmp6(INSIDE, inside, server(), 128, 0, [0, 1, 0, 1], b"abcdefgh")[IP + 40..].to_vec();
    let datagram = udp6(INSIDE, (inside, 4000), (server(), 53), b"question", 64)[IP + 40..].to_vec();
    for (next, payload) in [
        (17, datagram),
        (58, echo6),
        (6, [[0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0x12, 0x34, 0, 0]].concat()),
        (132, b"an SCTP packet, whatever is in it".to_vec()),
        (50, b"an ESP packet".to_vec()),
        (59, Vec::new()),
    ] {
        let out = lab.pass(INSIDE, &raw6(INSIDE, inside, server(), next, 64, &payload), OUTSIDE);
        assert_eq!(out[IP..], raw6(INSIDE, outside, server(), next, 63, &payload)[IP..], "protocol {next}");
        let back = lab.pass(OUTSIDE, &raw6(OUTSIDE, server(), outside, next, 64, &payload), INSIDE);
        assert_eq!(back[IP..], raw6(INSIDE, server(), inside, next, 63, &payload)[IP..], "protocol {next}");
    }
    let counters = lab.worker.engine().counters();
    assert_eq!(counters.exchanged[Translator::Nptv6 as usize].each_ref().map(|it| it.get()), [6, 6]);
    assert_eq!(counters.routed[1].get(), 0);
}

#[test]
fn npt_02_datagrams_pass_with_right_checksums() {
    let mut lab = lab(&[home()]);
    let inside = v6("fd01:203:405:2ab0::1");
    let out = read6(&lab.pass(INSIDE, &udp6(INSIDE, (inside, 4000), (server(), 53), b"question", 64), OUTSIDE));
    assert_eq!((out.source, out.hop_limit), (v6("2001:db8:1::1"), 63));
    let back = udp6(OUTSIDE, (server(), 53), (v6("2001:db8:1::1"), 4000), b"answer", 64);
    assert_eq!(read6(&lab.pass(OUTSIDE, &back, INSIDE)).destination, inside);
}

#[test]
fn npt_06_subnets_without_a_counterpart_are_refused() {
    let mut lab = lab(&[home()]);
    let ones = v6("fd01:203:405:ffff::1");
    let refused = lab.pass(INSIDE, &udp6(INSIDE, (ones, 4000), (server(), 53), b"", 64), INSIDE);
    let error = read6(&refused);
    assert_eq!((error.destination, error.next_header), (ones, 58));
    assert_eq!(error.transport[..2], [1, 5], "source address failed policy");
    let to_ones = udp6(OUTSIDE, (server(), 53), (v6("2001:db8:1:ffff::1"), 4000), b"", 64);
    let error = read6(&lab.pass(OUTSIDE, &to_ones, OUTSIDE));
    assert_eq!((error.destination, &error.transport[..2]), (server(), &[1, 3][..]), "address unreachable");
    assert_eq!(lab.drops(), [("prefix-unmapped", 2)]);

    let mut lab = lab_of(spec_with(&[nptv6("fd01:203:405::/48", "2001:db8:1:200::/56")]));
    let unmapped = udp6(INSIDE, (v6("fd01:203:405:1aa:1:2:3:4"), 4000), (server(), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &unmapped, INSIDE)).transport[..2], [1, 5]);
    assert_eq!(lab.drops(), [("prefix-unmapped", 1)]);
    let mapped = udp6(INSIDE, (v6("fd01:203:405:aa:1:2:3:4"), 4000), (server(), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &mapped, OUTSIDE)).source, v6("2001:db8:1:2aa:d350:2:3:4"));
}

#[test]
fn npt_07_identifiers_of_ones_and_zeros() {
    let rule = nptv6("fd01:203:405:1::/64", "2001:db8:1:2::/64");
    let mut lab = lab(std::slice::from_ref(&rule));
    let ones = udp6(INSIDE, (v6("fd01:203:405:1:ffff:ffff:ffff:ffff"), 1), (server(), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &ones, INSIDE)).transport[..2], [1, 5]);
    assert_eq!(lab.drops(), [("prefix-unmapped", 1)]);
    let zeros = udp6(INSIDE, (v6("fd01:203:405:1::"), 1), (server(), 53), b"", 64);
    let error = read6(&lab.pass(INSIDE, &zeros, INSIDE));
    assert_eq!(error.transport[..2], [4, 0], "parameter problem");
    assert_eq!(error.transport[4..8], [0, 0, 0, 8], "at the source address");
    let zeros = udp6(OUTSIDE, (server(), 53), (v6("2001:db8:1:2::"), 1), b"", 64);
    let error = read6(&lab.pass(OUTSIDE, &zeros, OUTSIDE));
    assert_eq!((&error.transport[..2], &error.transport[4..8]), (&[4, 0][..], &[0, 0, 0, 24][..]));
    assert_eq!(lab.drops(), [("prefix-unmapped", 1), ("prefix-zero-identifier", 2)]);

    let lenient = PrefixRule { kind: PrefixKind::Nptv6 { allow_zero_iid: true }, ..rule };
    let mut lab = lab_of(spec_with(&[lenient]));
    let zeros = udp6(INSIDE, (v6("fd01:203:405:1::"), 1), (server(), 53), b"", 64);
    read6(&lab.pass(INSIDE, &zeros, OUTSIDE));
}

#[test]
fn npt_10_hairpin_translates_both_ends() {
    let mut lab = lab(&[home()]);
    let (one, other) = (v6("fd01:203:405:1::1"), v6("fd01:203:405:2::2"));
    let [one_outside, other_outside] = [v6("2001:db8:1:d550::1"), v6("2001:db8:1:d551::2")];
    let out = read6(&lab.pass(INSIDE, &udp6(INSIDE, (one, 4000), (other_outside, 53), b"hello", 64), INSIDE));
    assert_eq!((out.source, out.destination, out.hop_limit), (one_outside, other, 63));
    let back = read6(&lab.pass(INSIDE, &udp6(INSIDE, (other, 53), (one_outside, 4000), b"hello", 64), INSIDE));
    assert_eq!((back.source, back.destination), (other_outside, one));
    assert_eq!(lab.worker.engine().counters().hairpins.get(), 2);
}

/// The packet that an ICMPv6 error quotes looks as its receiver knows it, and the checksum stays right without a change.
#[test]
fn npt_11_quoted_packets_are_translated_too() {
    let mut lab = lab(&[home()]);
    let (inside, outside) = (v6("fd01:203:405:1::1234"), v6("2001:db8:1:d550::1234"));
    let router = v6("2001:db8:77::7");
    let quote = |from: Ipv6Addr, to: Ipv6Addr| udp6(INSIDE, (from, 4000), (to, 53), b"question", 64)[IP..].to_vec();
    for (kind, word) in [(2, [0, 0, 5, 0]), (3, [0; 4]), (1, [0; 4]), (4, [0, 0, 0, 6])] {
        // From outside: about a packet that has left.
        let error = icmp6(OUTSIDE, router, outside, kind, 0, word, &quote(outside, server()));
        let came = read6(&lab.pass(OUTSIDE, &error, INSIDE));
        assert_eq!((came.source, came.destination), (router, inside));
        assert_eq!(came.transport[8..], quote(inside, server()), "type {kind}");
        assert_eq!(came.transport[2..4], error[IP + 42..IP + 44], "the checksum");
        // From inside: about a packet that was delivered.
        let error = icmp6(INSIDE, v6("fd01:203:405:9::9"), server(), kind, 0, word, &quote(server(), inside));
        let left = read6(&lab.pass(INSIDE, &error, OUTSIDE));
        assert_eq!(left.transport[8..], quote(server(), outside), "type {kind}");
    }
    // From a router inside whose own address no rule covers, and which keeps it: the quote is what the server has sent all the same.
    let foreign = v6("fd00:1::9");
    let error = icmp6(INSIDE, foreign, server(), 3, 0, [0; 4], &quote(server(), inside));
    let left = read6(&lab.pass(INSIDE, &error, OUTSIDE));
    assert_eq!((left.source, &left.transport[8..]), (foreign, &quote(server(), outside)[..]));
    // One that quotes too little says nothing of a packet.
    let short = icmp6(OUTSIDE, router, outside, 1, 0, [0; 4], &quote(outside, server())[..39]);
    assert_eq!(read6(&lab.pass(OUTSIDE, &short, INSIDE)).transport[8..], quote(outside, server())[..39]);
}

/// RTR-09: where the outside prefix is part of the uplink's own network, the host answers for it; also when it is asked there
/// whether it still does. A ping of such an address is for whom it stands for.
#[test]
fn a_solicitation_for_an_outside_address_on_the_link_is_the_hosts() {
    let mut lab = lab(&[exchange(PrefixKind::Netmap, "fd00:7:0:0:8000::/65", "2001:db8:f:0:8000::/65")]);
    let (router, outside) = (v6("2001:db8:f::1"), v6("2001:db8:f:0:8000::5"));
    let solicitation = |hops: u8| {
        let frame = icmp6(OUTSIDE, router, outside, 135, 0, [0; 4], &outside.octets());
        with_ip(frame, |ip| ip[7] = hops)
    };
    let seen = lab.send(OUTSIDE, &solicitation(255));
    assert_eq!((seen.punted, seen.frames.len()), (vec![(OUTSIDE, solicitation(255))], 0));
    // Not from this link.
    assert_eq!(read6(&lab.pass(OUTSIDE, &solicitation(64), INSIDE)).destination, v6("fd00:7:0:0:8000::5"));
    let ping = icmp6(OUTSIDE, router, outside, 128, 0, [0, 1, 0, 1], b"");
    assert_eq!(read6(&lab.pass(OUTSIDE, &ping, INSIDE)).destination, v6("fd00:7:0:0:8000::5"));
}

/// Nothing is remembered: a gateway that was never seen before takes packets in the middle, from either side.
#[test]
fn npt_12_there_is_no_state() {
    for _ in 0..2 {
        let mut lab = lab(&[home()]);
        let back = udp6(OUTSIDE, (server(), 53), (v6("2001:db8:1:d550::1234"), 4000), b"answer", 64);
        assert_eq!(read6(&lab.pass(OUTSIDE, &back, INSIDE)).destination, v6("fd01:203:405:1::1234"));
        assert_eq!(lab.sessions(), 0);
    }
}

/// Several pairs on one interface, and another pair toward another uplink: the way out decides.
#[test]
fn npt_13_several_pairs_and_uplinks() {
    let mut rules = vec![home(), nptv6("fd02:203:405::/48", "2001:db8:2::/48")];
    rules.push(PrefixRule { to: ZoneId(2), ..nptv6("fd01:203:405::/48", "2001:db8:3::/48") });
    let mut spec = spec_with(&rules);
    spec.zones.push("second".into());
    let mut second = spec.interfaces[1].clone();
    second.name = "second".into();
    second.zone = ZoneId(2);
    second.vlan = Some(7);
    second.addresses = vec![prefix("2001:db8:e::2/64")];
    spec.interfaces.push(second);
    let next_hop = NextHop::Via("2001:db8:e::1".parse().unwrap(), InterfaceId(2));
    spec.routes.push(RouteSpec { prefix: prefix("2001:db8:6::/48"), next_hop });
    let mut lab = lab_of(spec);
    lab.neighbour(InterfaceId(2), "2001:db8:e::1".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.run();
    let mut leaves = |from: &str, to: &str| {
        let seen = lab.send(INSIDE, &udp6(INSIDE, (v6(from), 4000), (v6(to), 53), b"question", 64));
        let sent: Vec<_> = seen.frames.iter().map(|(_, frame)| read6(frame).source).collect();
        assert_eq!(sent.len(), 1, "{from} to {to}");
        sent[0].segments()[2]
    };
    assert_eq!(leaves("fd01:203:405:1::1", "2001:db8:5::1"), 1);
    assert_eq!(leaves("fd02:203:405:1::1", "2001:db8:5::1"), 2);
    assert_eq!(leaves("fd01:203:405:1::1", "2001:db8:6::1"), 3);
}

/// NPT-13: the outside prefix changes while packets flow: new ones have the new prefix at once, and what comes for the old one is
/// counted by a name of its own, and answered; until the prefix comes back.
#[test]
fn npt_13_a_prefix_changes_at_run_time() {
    let mut lab = lab(&[home()]);
    let inside = v6("fd01:203:405:1::1234");
    let out = |lab: &mut Lab| {
        read6(&lab.pass(INSIDE, &udp6(INSIDE, (inside, 4000), (server(), 53), b"question", 64), OUTSIDE)).source
    };
    let old = out(&mut lab);
    let renumbered = PrefixRule { name: home().name, ..nptv6("fd01:203:405::/48", "2001:db8:9::/48") };
    let with = |rule: &PrefixRule, generation| Spec { generation, ..spec_with(std::slice::from_ref(rule)) };
    lab.reload(with(&renumbered, 2));
    let new = out(&mut lab);
    assert_eq!(new.segments()[..3], v6("2001:db8:9::").segments()[..3]);
    let answer = |to: Ipv6Addr| udp6(OUTSIDE, (server(), 53), (to, 4000), b"answer", 64);
    assert_eq!(read6(&lab.pass(OUTSIDE, &answer(new), INSIDE)).destination, inside);
    assert_eq!(read6(&lab.pass(OUTSIDE, &answer(old), OUTSIDE)).transport[..2], [1, 0]);
    assert_eq!(lab.drops(), [("prefix-former", 1)]);
    lab.reload(with(&home(), 3));
    assert_eq!(read6(&lab.pass(OUTSIDE, &answer(old), INSIDE)).destination, inside);
    lab.send(OUTSIDE, &answer(new));
    assert_eq!(lab.drops(), [("prefix-former", 2)]);
}

/// A more specific route leads past the translation, and what no rule covers is routed as it is.
#[test]
fn what_no_rule_covers_is_routed() {
    let mut spec = spec_with(&[home()]);
    let next_hop = NextHop::Via("fd00:1::10".parse().unwrap(), INSIDE);
    spec.routes.push(RouteSpec { prefix: prefix("2001:db8:1:77::/64"), next_hop });
    let mut lab = lab_of(spec);
    let native = v6("2001:db8:1:77::1");
    let past = read6(&lab.pass(OUTSIDE, &udp6(OUTSIDE, (server(), 53), (native, 4000), b"", 64), INSIDE));
    assert_eq!(past.destination, native);
    let out = read6(&lab.pass(INSIDE, &udp6(INSIDE, (native, 4000), (server(), 53), b"", 64), OUTSIDE));
    assert_eq!(out.source, native);
    // Within the inside, nothing is translated.
    let next = udp6(INSIDE, (v6("fd01:203:405:1::1"), 4000), (v6("fd00:1::10"), 53), b"", 64);
    assert_eq!(read6(&lab.pass(INSIDE, &next, INSIDE)).source, v6("fd01:203:405:1::1"));
}

#[test]
fn npt_routers_duties() {
    let mut lab = lab(&[home()]);
    let (inside, outside) = (v6("fd01:203:405:1::1234"), v6("2001:db8:1:d550::1234"));
    // One hop is left: the error quotes the packet as its sender knows it, and comes from the interface that it came in by.
    let last = udp6(INSIDE, (inside, 4000), (server(), 53), b"question", 1);
    let error = read6(&lab.pass(INSIDE, &last, INSIDE));
    assert_eq!((error.source, error.destination, &error.transport[..2]), (v6("fd00:1::1"), inside, &[3, 0][..]));
    assert_eq!(error.transport[8..], last[IP..]);
    let last = udp6(OUTSIDE, (server(), 53), (outside, 4000), b"answer", 1);
    let error = read6(&lab.pass(OUTSIDE, &last, OUTSIDE));
    assert_eq!((error.source, &error.transport[8..]), (v6("2001:db8:f::2"), &last[IP..]));
    // Too large: nobody cuts up IPv6.
    let mut spec = spec_with(&[home()]);
    spec.interfaces[1].mtu = 1280;
    let mut lab = lab_of(spec);
    let large = udp6(INSIDE, (inside, 4000), (server(), 53), &[0; 1300], 64);
    let error = read6(&lab.pass(INSIDE, &large, INSIDE));
    assert_eq!((&error.transport[..2], &error.transport[4..8]), (&[2, 0][..], &1280_u32.to_be_bytes()[..]));
}

#[test]
fn map_01_03_own_addresses_are_exempt_or_not() {
    let rule = |maps_own| exchange(PrefixKind::Map66 { maps_own }, "fdca:ffee:babe::/64", "2001:db8:f::/64");
    // The outside prefix is the uplink's own: ::2 is the gateway's, in both directions.
    let host = |identifier: u128| Ipv6Addr::from_bits(v6("fdca:ffee:babe::").to_bits() | identifier);
    let outside = |lab: &mut Lab, identifier| {
        let frame = udp6(INSIDE, (host(identifier), 4000), (server(), 53), b"question", 64);
        read6(&lab.pass(INSIDE, &frame, OUTSIDE)).source
    };
    let mut exempt = lab_of(spec_with(&[rule(false)]));
    let mapped = outside(&mut exempt, 0x1234_0000_0000_0077);
    assert_eq!(mapped.segments()[..4], v6("2001:db8:f::").segments()[..4]);
    let back = udp6(OUTSIDE, (server(), 53), (mapped, 4000), b"answer", 64);
    assert_eq!(read6(&exempt.pass(OUTSIDE, &back, INSIDE)).destination, host(0x1234_0000_0000_0077));
    // A ping of the gateway itself is the gateway's to answer.
    let ping = icmp6(OUTSIDE, server(), v6("2001:db8:f::2"), 128, 0, [0, 1, 0, 1], b"abcdefgh");
    let seen = exempt.send(OUTSIDE, &ping);
    assert_eq!((seen.frames.len(), seen.punted.len()), (0, 1));
    let mut spec = spec_with(&[rule(true)]);
    spec.zones.push("unused".into());
    let mut nocheck = lab_of(spec);
    let seen = nocheck.send(OUTSIDE, &ping);
    assert_eq!((seen.frames.len(), seen.punted.len()), (1, 0), "it is translated like any other");
    assert_eq!(read6(&seen.frames[0].1).destination.segments()[..4], host(0).segments()[..4]);
}

#[test]
fn map_02_lengths_from_16_to_112() {
    for len in (16..=112).step_by(16) {
        let net = |address: &str| IpPrefix { address: v6(address).into(), len }.network().to_string();
        let (inside, outside) = (net("fdca:ffee:babe:1:2:3:4:0"), net("2a0e:4dd0:fe77:8:15:47:11:0"));
        let mut lab = lab(&[exchange(PrefixKind::Map66 { maps_own: false }, &inside, &outside)]);
        let address = |prefix: &str| v6(prefix.split('/').next().unwrap()).to_bits();
        let host = Ipv6Addr::from_bits(address(&inside) | 0x1234);
        let out = read6(&lab.pass(INSIDE, &udp6(INSIDE, (host, 4000), (server(), 53), b"question", 64), OUTSIDE));
        assert_eq!(out.source.to_bits() >> (128 - len), address(&outside) >> (128 - len));
        let back = udp6(OUTSIDE, (server(), 53), (out.source, 4000), b"answer", 64);
        assert_eq!(read6(&lab.pass(OUTSIDE, &back, INSIDE)).destination, host, "/{len}");
    }
}

fn netmap4() -> PrefixRule {
    exchange(PrefixKind::Netmap, "10.1.2.0/24", "203.0.113.0/24")
}

/// Every host, both ways, with right checksums; ICMP has no pseudo-header.
#[test]
fn nmp_01_ipv4_every_host_and_protocol() {
    let mut lab = lab(&[netmap4()]);
    let server = end("198.18.0.1:53");
    for host in 0..=255_u8 {
        let (inside, outside) = (Ipv4Addr::new(10, 1, 2, host), Ipv4Addr::new(203, 0, 113, host));
        let out = read(&lab.pass(INSIDE, &udp(INSIDE, (inside, 4000), server, b"question"), OUTSIDE));
        assert_eq!((out.source, out.ttl), ((outside, 4000), 63));
        let back = read(&lab.pass(OUTSIDE, &tcp(OUTSIDE, server, (outside, 4000), "SA", 1, 2, b""), INSIDE));
        assert_eq!(back.destination, (inside, 4000));
        let ping = read(&lab.pass(INSIDE, &echo(INSIDE, inside, server.0, true, 7, 1), OUTSIDE));
        assert_eq!(ping.source, (outside, 7));
    }
    assert_eq!(lab.sessions(), 0);
}

#[test]
fn nmp_01_ipv6_keeps_the_bits() {
    let mut lab = lab(&[exchange(PrefixKind::Netmap, "fd00:7::/64", "2001:db8:7:5::/64")]);
    let inside = v6("fd00:7::211:22ff:fe33:4455");
    for frame in [
        udp6(INSIDE, (inside, 4000), (server(), 53), b"question", 64),
        icmp6(INSIDE, inside, server(), 128, 0, [0, 1, 0, 1], b"abcdefgh"),
    ] {
        let out = read6(&lab.pass(INSIDE, &frame, OUTSIDE));
        assert_eq!(out.source, v6("2001:db8:7:5:211:22ff:fe33:4455"));
    }
    let back = udp6(OUTSIDE, (server(), 53), (v6("2001:db8:7:5::9"), 4000), b"answer", 64);
    assert_eq!(read6(&lab.pass(OUTSIDE, &back, INSIDE)).destination, v6("fd00:7::9"));
}

#[test]
fn nmp_02_quotes_fragments_and_hairpin() {
    let mut lab = lab(&[netmap4()]);
    let (inside, outside, server) = (v4("10.1.2.7"), v4("203.0.113.7"), end("198.18.0.1:53"));
    let quote = |from: Ipv4Addr| udp(INSIDE, (from, 4000), server, b"question")[IP..].to_vec();
    let error = icmp(OUTSIDE, v4("198.18.0.9"), outside, 3, 4, [0, 0, 5, 0], &quote(outside));
    let came = read(&lab.pass(OUTSIDE, &error, INSIDE));
    assert_eq!(came.destination.0, inside);
    assert_eq!(came.transport[8..], quote(inside), "header checksum and UDP checksum of the quote are its sender's");
    // A later fragment has no ports, and needs none; nor does it wait.
    let fragment = with_ip(udp(INSIDE, (inside, 4000), server, &[7; 64]), |ip| {
        ip[6..8].copy_from_slice(&0x2008_u16.to_be_bytes());
    });
    let seen = lab.send(INSIDE, &fragment);
    assert_eq!(seen.frames.len(), 1);
    assert_eq!(seen.frames[0].1[IP + 12..IP + 16], outside.octets());
    assert_eq!(seen.frames[0].1[IP + 20..], fragment[IP + 20..], "no byte behind the header changes");
    // From inside to an external address: both ends.
    let other = end("203.0.113.8:53");
    let turned = read(&lab.pass(INSIDE, &udp(INSIDE, (inside, 4000), other, b"hello"), INSIDE));
    assert_eq!((turned.source, turned.destination, turned.ttl), ((outside, 4000), end("10.1.2.8:53"), 63));
}

/// UDP-Lite has a checksum in every packet: one that comes out as zero is sent as ones (RFC 3828 §3.1). ICMPv6 behind an IPv4 header
/// is nobody's, and has none.
#[test]
fn nmp_01_checksums_of_rare_protocols() {
    let mut lab = lab(&[netmap4()]);
    let packet = |protocol: u8, sum: u16| {
        with_ip(udp(INSIDE, end("10.1.2.7:4000"), end("198.18.0.1:53"), b"data"), |ip| {
            ip[9] = protocol;
            ip[26..28].copy_from_slice(&sum.to_be_bytes());
        })
    };
    let sum = |frame: &[u8]| u16::from_be_bytes([frame[IP + 26], frame[IP + 27]]);
    // What the exchange of addresses takes away.
    let less = 0x7000 - sum(&lab.pass(INSIDE, &packet(136, 0x7000), OUTSIDE));
    assert_eq!(sum(&lab.pass(INSIDE, &packet(136, less), OUTSIDE)), 0xffff);
    assert_eq!(sum(&lab.pass(INSIDE, &packet(136, less + 1), OUTSIDE)), 1);
    let strange = packet(58, 0x7000);
    assert_eq!(lab.pass(INSIDE, &strange, OUTSIDE)[IP + 20..], strange[IP + 20..]);
}

/// NETMAP comes before NAT44 of the same zones, and a session of before a reload ends.
#[test]
fn netmap_beside_nat44() {
    let plain = spec();
    let mut both = spec_with(&[exchange(PrefixKind::Netmap, "192.168.1.128/25", "203.0.113.128/25")]);
    (both.nat44, both.pools) = (plain.nat44.clone(), plain.pools.clone());
    both.generation = 2;
    let mut lab = lab_of(plain);
    let (inside, server) = (end("192.168.1.200:4000"), end("198.18.0.1:53"));
    lab.neighbour(INSIDE, IpAddr::V4(inside.0), NeighbourState::Reachable(PEER));
    let out = read(&lab.pass(INSIDE, &udp(INSIDE, inside, server, b"question"), OUTSIDE));
    assert_eq!(out.source.0, v4("203.0.113.5"));
    lab.reload(both);
    assert_eq!(lab.sessions(), 0);
    let out = read(&lab.pass(INSIDE, &udp(INSIDE, inside, server, b"question"), OUTSIDE));
    assert_eq!(out.source, end("203.0.113.200:4000"));
    let masked = read(&lab.pass(INSIDE, &udp(INSIDE, end("192.168.1.10:4000"), server, b"question"), OUTSIDE));
    assert_eq!(masked.source.0, v4("203.0.113.5"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A transport checksum that was wrong is still wrong, by as much, for every translator.
    #[test]
    fn a_wrong_checksum_stays_wrong(wrong in 1..0xffff_u16, payload in prop::collection::vec(any::<u8>(), 0..40)) {
        let rules = [
            (home(), v6("fd01:203:405:1::1234")),
            (exchange(PrefixKind::Map66 { maps_own: false }, "fdca:ffee:babe::/64", "2001:db8:7::/64"), v6("fdca:ffee:babe::5:1")),
            (exchange(PrefixKind::Netmap, "fd00:7::/64", "2001:db8:8::/64"), v6("fd00:7::1")),
        ];
        for (rule, inside) in rules {
            let mut lab = lab(&[rule]);
            let right = udp6(INSIDE, (inside, 4000), (server(), 53), &payload, 64);
            let sum = |frame: &[u8]| u16::from_be_bytes([frame[IP + 46], frame[IP + 47]]);
            let mut damaged = right.clone();
            damaged[IP + 46..IP + 48].copy_from_slice(&add(sum(&right), wrong).to_be_bytes());
            let expected = add(sum(&lab.pass(INSIDE, &right, OUTSIDE)), wrong);
            let came = lab.pass(INSIDE, &damaged, OUTSIDE);
            prop_assert_eq!(sum(&came) % 0xffff, expected % 0xffff);
        }
        let mut lab = lab(&[netmap4()]);
        let right = udp(INSIDE, end("10.1.2.7:4000"), end("198.18.0.1:53"), &payload);
        let sum = |frame: &[u8]| u16::from_be_bytes([frame[IP + 26], frame[IP + 27]]);
        let mut damaged = right.clone();
        let bad = match add(sum(&right), wrong) { 0 => 0xffff, bad => bad };
        damaged[IP + 26..IP + 28].copy_from_slice(&bad.to_be_bytes());
        let expected = add(sum(&lab.pass(INSIDE, &right, OUTSIDE)), wrong);
        prop_assert_eq!(sum(&lab.pass(INSIDE, &damaged, OUTSIDE)) % 0xffff, expected % 0xffff);
    }

    /// Whatever comes, by whatever rules, has one disposal (the lab asserts the balance after each step).
    #[test]
    fn any_bytes_behind_a_header_have_one_disposal(next in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut lab = lab(&[home(), exchange(PrefixKind::Netmap, "fd00:7::/64", "2001:db8:8::/64"), netmap4()]);
        for inside in ["fd01:203:405:1::1234", "fd00:7::1"] {
            lab.send(INSIDE, &raw6(INSIDE, v6(inside), server(), next, 64, &payload));
        }
        for outside in ["2001:db8:1:d550::1234", "2001:db8:8::1"] {
            lab.send(OUTSIDE, &raw6(OUTSIDE, server(), v6(outside), next, 64, &payload));
        }
        let frame = with_ip(udp(INSIDE, end("10.1.2.7:1"), end("198.18.0.1:2"), &payload), |ip| ip[9] = next);
        lab.send(INSIDE, &frame);
    }
}

/// One's complement addition.
fn add(one: u16, other: u16) -> u16 {
    let sum = u32::from(one) + u32::from(other);
    (sum as u16).wrapping_add((sum >> 16) as u16)
}
