//! Routing, neighbours, errors of the gateway's own, and what is not forwarded: requirements §13 (RFC 1812, 4443, 8200).
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    End, INSIDE, Lab, MACS, OUTSIDE, PEER, echo, end, ethernet, icmp, icmp6, prefix, read, read_error, read6, spec,
    tcp, tcp6, udp, udp_ttl, udp6, with_ip,
};
use dataplane::counters::Drop;
use dataplane::message::{NeighbourState, ToWorker};
use dataplane::packet::{HeapPacket, PacketPool, RxChecksum};
use dataplane::plan::{IcmpPolicy, InterfaceId, Limits, MacAddr, NextHop, RouteSpec, Spec};

const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The addresses of the gateway that errors come from.
const INSIDE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
const OUTSIDE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

/// The rig's gateway with an inside network that no rule covers (10.9.0.0/16, fd00:9::/48) behind an inside router, and
/// networks that are unreachable.
fn routed() -> Spec {
    let route = |to: &str, next_hop| RouteSpec { prefix: prefix(to), next_hop };
    let mut spec = spec();
    spec.routes.extend([
        route("10.9.0.0/16", NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE)),
        route("fd00:9::/48", NextHop::Via("fd00:1::2".parse().unwrap(), INSIDE)),
        route("10.66.0.0/16", NextHop::Unreachable),
        route("2001:db8:66::/48", NextHop::Unreachable),
    ]);
    spec
}

/// A lab whose neighbours are all known, so that tests see only what they are about.
fn lab(spec: Spec) -> Lab {
    Lab::knowing(
        spec,
        &[
            (INSIDE, "192.168.1.2"),
            (INSIDE, "192.168.1.10"),
            (INSIDE, "fd00:1::2"),
            (INSIDE, "fd00:1::10"),
            (OUTSIDE, "198.51.100.1"),
            (OUTSIDE, "2001:db8:f::1"),
        ],
    )
}

fn host() -> End {
    end("192.168.1.10:4000")
}

fn unruled() -> End {
    end("10.9.0.7:4000")
}

fn server() -> End {
    end("198.18.0.1:53")
}

fn host6() -> (Ipv6Addr, u16) {
    ("fd00:9::7".parse().unwrap(), 4000)
}

fn server6() -> (Ipv6Addr, u16) {
    ("2001:db8:5::1".parse().unwrap(), 53)
}

/// Sends one frame, and expects one ICMP error on the interface that it came by, and nothing else.
#[track_caller]
fn error(lab: &mut Lab, from: InterfaceId, frame: &[u8]) -> common::ErrorMessage {
    read_error(&lab.pass(from, frame, from))
}

// --- What matches no rule ---------------------------------------------------------------------------------------------

/// Design §5: a packet that matches no rule is routed, both ways, and changed in nothing but its TTL.
#[test]
fn rtr_01_what_matches_no_rule_is_routed() {
    let mut lab = lab(routed());
    let out = lab.pass(INSIDE, &udp(INSIDE, unruled(), server(), b"there"), OUTSIDE);
    assert_eq!((&out[..6], &out[6..12]), (&PEER.0[..], &MACS[1].0[..]));
    let it = read(&out);
    assert_eq!((it.source, it.destination, it.ttl, &it.payload[..]), (unruled(), server(), 63, &b"there"[..]));
    lab.counted("received, inside-received, routed4, transmitted, outside-transmitted");
    let out = lab.pass(OUTSIDE, &tcp(OUTSIDE, server(), unruled(), "A", 9, 9, b"back"), INSIDE);
    assert_eq!((&out[..6], &out[6..12]), (&PEER.0[..], &MACS[0].0[..]));
    let it = read(&out);
    assert_eq!((it.source, it.destination, it.ttl, &it.payload[..]), (server(), unruled(), 63, &b"back"[..]));
    lab.counted("received, outside-received, routed4, transmitted, inside-transmitted");
    // Any protocol, and fragments.
    let gre = with_ip(udp(INSIDE, unruled(), server(), b"xyz"), |ip| ip[9] = 47);
    assert_eq!(read(&lab.pass(INSIDE, &gre, OUTSIDE)).transport, gre[34..]);
    let fragment = with_ip(udp(INSIDE, unruled(), server(), b"xyz"), |ip| ip[6..8].copy_from_slice(&[0x20, 0xb9]));
    assert_eq!(read(&lab.pass(INSIDE, &fragment, OUTSIDE)).transport, fragment[34..]);
    lab.counted("received 2, inside-received 2, routed4 2, transmitted 2, outside-transmitted 2");
}

/// The same in IPv6, extension headers included (RTR-12).
#[test]
fn rtr_01_ipv6_is_routed() {
    let mut lab = lab(routed());
    let out = lab.pass(INSIDE, &udp6(INSIDE, host6(), server6(), b"there", 64), OUTSIDE);
    assert_eq!((&out[..6], &out[6..14]), (&PEER.0[..], &[2, 0, 0, 0, 0, 2, 0x86, 0xdd][..]));
    let it = read6(&out);
    assert_eq!((it.source, it.destination, it.hop_limit), (host6().0, server6().0, 63));
    lab.counted("received, inside-received, routed6, transmitted, outside-transmitted");
    let it = read6(&lab.pass(OUTSIDE, &udp6(OUTSIDE, server6(), host6(), b"back", 2), INSIDE));
    assert_eq!((it.source, it.destination, it.hop_limit), (server6().0, host6().0, 1));
    lab.counted("received, outside-received, routed6, transmitted, inside-transmitted");
    // A chain of 64 destination options (RFC 8200 §4.6), longer than anybody looks, and an unknown next header.
    for (depth, last) in [(64u16, 17), (1, 253)] {
        let chain: Vec<u8> =
            (1..=depth).flat_map(|at| [if at == depth { last } else { 60 }, 0, 1, 4, 0, 0, 0, 0]).collect();
        let udp = udp6(INSIDE, host6(), server6(), b"", 64);
        let mut frame = [&udp[..54], &chain[..], &udp[54..]].concat();
        frame[18..20].copy_from_slice(&(8 * depth + 8).to_be_bytes());
        frame[20] = 60;
        let out = lab.pass(INSIDE, &frame, OUTSIDE);
        assert_eq!((&out[14..21], out[21], &out[22..]), (&frame[14..21], 63, &frame[22..]));
    }
}

/// RTR-13: DSCP and ECN survive routing and translation, in both families.
#[test]
fn rtr_13_dscp_and_ecn_survive() {
    let mut lab = lab(routed());
    // Expedited forwarding, congestion experienced.
    let marked = |frame| with_ip(frame, |ip| ip[1] = 0xb8 | 3);
    assert_eq!(lab.pass(INSIDE, &marked(udp(INSIDE, host(), server(), b"")), OUTSIDE)[15], 0xbb);
    assert_eq!(lab.pass(INSIDE, &marked(udp(INSIDE, unruled(), server(), b"")), OUTSIDE)[15], 0xbb);
    let back = udp(OUTSIDE, server(), end("203.0.113.5:4000"), b"");
    assert_eq!(lab.pass(OUTSIDE, &marked(back), INSIDE)[15], 0xbb);
    let frame = with_ip(udp6(INSIDE, host6(), server6(), b"", 64), |ip| ip[..4].copy_from_slice(&[0x6b, 0xb1, 2, 3]));
    assert_eq!(lab.pass(INSIDE, &frame, OUTSIDE)[14..18], [0x6b, 0xb1, 2, 3], "and the flow label");
}

/// The padding that Ethernet adds to short frames is not part of the packet.
#[test]
fn padding_is_cut() {
    let mut lab = lab(routed());
    for from in [host(), unruled()] {
        let mut frame = udp(INSIDE, from, server(), b"ab");
        frame.resize(60, 0xee);
        let out = lab.pass(INSIDE, &frame, OUTSIDE);
        assert_eq!(out.len(), 14 + 20 + 8 + 2);
        assert_eq!(read(&out).payload, b"ab");
    }
    let mut frame = udp6(INSIDE, host6(), server6(), b"ab", 64);
    frame.resize(100, 0xee);
    assert_eq!(lab.pass(INSIDE, &frame, OUTSIDE).len(), 14 + 40 + 8 + 2);
}

// --- Errors about what can't go on ------------------------------------------------------------------------------------

/// RTR-01, RTR-06, ICM-14: a packet whose TTL runs out here is answered, from the address that it came to.
#[test]
fn rtr_01_the_last_hop_is_answered() {
    let mut lab = lab(routed());
    for from in [host(), unruled()] {
        for ttl in [0, 1] {
            let probe = udp_ttl(INSIDE, from, server(), b"probe", ttl);
            let it = error(&mut lab, INSIDE, &probe);
            assert_eq!((it.source, it.destination), (INSIDE_ADDRESS, from.0.into()));
            assert_eq!((it.kind, it.code, it.word), (11, 0, 0));
            assert_eq!(it.quote, probe[14..], "as the host sent it");
            lab.counted(
                "received, inside-received, drop-ttl-exceeded, originated, icmp4-11/0, transmitted, inside-transmitted",
            );
        }
    }
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]), "no session is opened by a packet that does not pass");
    let probe = udp_ttl(OUTSIDE, server(), unruled(), b"probe", 1);
    let it = error(&mut lab, OUTSIDE, &probe);
    assert_eq!((it.source, it.destination, it.quote), (OUTSIDE_ADDRESS, server().0.into(), probe[14..].to_vec()));
    lab.counted(
        "received, outside-received, drop-ttl-exceeded, originated, icmp4-11/0, transmitted, outside-transmitted",
    );
    assert_eq!(read(&lab.pass(INSIDE, &udp_ttl(INSIDE, host(), server(), b"", 2), OUTSIDE)).ttl, 1);
    // To the gateway itself any TTL will do.
    let seen = lab.send(INSIDE, &udp_ttl(INSIDE, host(), end("192.168.1.1:53"), b"", 1));
    assert_eq!((seen.frames.len(), seen.punted.len()), (0, 1));
}

/// The same for hop limits.
#[test]
fn rtr_01_the_last_hop_is_answered_in_ipv6() {
    let mut lab = lab(routed());
    for hop_limit in [0, 1] {
        let probe = udp6(INSIDE, host6(), server6(), b"probe", hop_limit);
        let it = error(&mut lab, INSIDE, &probe);
        assert_eq!((it.source, it.destination), ("fd00:1::1".parse().unwrap(), host6().0.into()));
        assert_eq!((it.kind, it.code, it.word, &it.quote[..]), (3, 0, 0, &probe[14..]));
        lab.counted(
            "received, inside-received, drop-ttl-exceeded, originated, icmp6-3/0, transmitted, inside-transmitted",
        );
    }
    let own = ("fd00:1::1".parse().unwrap(), 53);
    assert_eq!(lab.send(INSIDE, &udp6(INSIDE, host6(), own, b"", 1)).punted.len(), 1);
}

/// N44-25: larger than the next link takes and not to be fragmented: answered with the link's MTU, translated or not, both
/// ways.
#[test]
fn n44_25_too_big_is_answered_with_the_mtu() {
    let mut spec = routed();
    spec.interfaces[1].mtu = 1400;
    let mut lab = lab(spec);
    for from in [host(), unruled()] {
        let big = udp(INSIDE, from, server(), &[7; 1500 - 28]);
        let it = error(&mut lab, INSIDE, &big);
        assert_eq!((it.source, it.destination), (INSIDE_ADDRESS, from.0.into()));
        assert_eq!((it.kind, it.code, it.word), (3, 4, 1400));
        assert_eq!(it.quote, big[14..14 + 548]);
        lab.counted("received, inside-received, drop-too-big, originated, icmp4-3/4, transmitted, inside-transmitted");
        assert_eq!(lab.sessions(), 0);
        // What fits to the byte passes, and what may be fragmented is (N44-26).
        let fits = udp(INSIDE, from, server(), &[7; 1400 - 28]);
        assert_eq!(lab.pass(INSIDE, &fits, OUTSIDE).len(), 14 + 1400);
        let may_be_cut = with_ip(big, |ip| ip[6] = 0);
        assert_eq!(lab.send(INSIDE, &may_be_cut).frames.len(), 2);
        lab.wait_secs(400);
        lab.counted(&format!(
            "received 2, inside-received 2, {}, cut, pieces 2, originated, transmitted 3, outside-transmitted 3",
            if from == host() {
                "nat44-out 2, session-creations, session-timeouts, mapping-creations"
            } else {
                "routed4 2"
            }
        ));
    }
}

/// RTR-08: routers never fragment IPv6.
#[test]
fn rtr_08_ipv6_too_big_is_answered_with_the_mtu() {
    let mut spec = routed();
    spec.interfaces[1].mtu = 1300;
    let mut lab = lab(spec);
    let big = udp6(INSIDE, host6(), server6(), &[7; 1301 - 48], 64);
    let it = error(&mut lab, INSIDE, &big);
    assert_eq!((it.kind, it.code, it.word), (2, 0, 1300));
    assert_eq!(it.quote, big[14..14 + 1280 - 48]);
    lab.counted("received, inside-received, drop-too-big, originated, icmp6-2/0, transmitted, inside-transmitted");
    assert_eq!(lab.pass(INSIDE, &udp6(INSIDE, host6(), server6(), &[7; 1300 - 48], 64), OUTSIDE).len(), 14 + 1300);
}

/// Nothing leads to the destination: net unreachable (RFC 1812 §5.2.7.1); 1/0 in IPv6.
#[test]
fn no_route_is_answered() {
    let mut spec = routed();
    spec.routes.retain(|route| route.prefix.len != 0);
    let mut lab = lab(spec);
    let lost = udp(INSIDE, unruled(), server(), b"lost");
    let it = error(&mut lab, INSIDE, &lost);
    assert_eq!((it.source, it.kind, it.code, &it.quote[..]), (INSIDE_ADDRESS, 3, 0, &lost[14..]));
    lab.counted("received, inside-received, drop-no-route, originated, icmp4-3/0, transmitted, inside-transmitted");
    let lost = udp6(INSIDE, host6(), server6(), b"lost", 64);
    let it = error(&mut lab, INSIDE, &lost);
    assert_eq!((it.kind, it.code, &it.quote[..]), (1, 0, &lost[14..]));
    lab.counted("received, inside-received, drop-no-route, originated, icmp6-1/0, transmitted, inside-transmitted");
}

/// A route that says unreachable: host unreachable; 1/0 in IPv6.
#[test]
fn an_unreachable_route_is_answered() {
    let mut lab = lab(routed());
    for from in [host(), unruled()] {
        let lost = udp(INSIDE, from, end("10.66.1.2:9"), b"lost");
        let it = error(&mut lab, INSIDE, &lost);
        assert_eq!((it.source, it.kind, it.code, &it.quote[..]), (INSIDE_ADDRESS, 3, 1, &lost[14..]));
        lab.counted("received, inside-received, drop-no-route, originated, icmp4-3/1, transmitted, inside-transmitted");
    }
    let lost = udp6(INSIDE, host6(), ("2001:db8:66::1".parse().unwrap(), 9), b"lost", 64);
    let it = error(&mut lab, INSIDE, &lost);
    assert_eq!((it.kind, it.code, &it.quote[..]), (1, 0, &lost[14..]));
    lab.counted("received, inside-received, drop-no-route, originated, icmp6-1/0, transmitted, inside-transmitted");
}

/// RTR-05: an ICMPv4 error is at most 576 bytes, an ICMPv6 error at most 1280, and quotes as much as fits.
#[test]
fn rtr_05_errors_quote_as_much_as_fits() {
    let mut lab = lab(routed());
    for size in [0, 1, 520, 521, 1000, 1472] {
        let probe = udp_ttl(INSIDE, host(), server(), &vec![7; size], 1);
        let it = error(&mut lab, INSIDE, &probe);
        assert_eq!(it.quote, probe[14..(14 + 576 - 28).min(probe.len())]);
    }
    for size in [0, 1, 1184, 1185, 1452] {
        let probe = udp6(INSIDE, host6(), server6(), &vec![7; size], 1);
        let it = error(&mut lab, INSIDE, &probe);
        assert_eq!(it.quote, probe[14..(14 + 1280 - 48).min(probe.len())]);
    }
}

/// RTR-02: no ICMP error about an ICMP error, a multicast or broadcast (of IP or Ethernet), a bad source, or a fragment but
/// the first. All these packets have run out of hops.
#[test]
fn rtr_02_what_is_never_answered() {
    let mut lab = lab(routed());
    let last = |frame| with_ip(frame, |ip| ip[8] = 1);
    let quote = udp(OUTSIDE, server(), unruled(), b"")[14..].to_vec();
    for kind in [3, 4, 5, 11, 12] {
        let frame = icmp(INSIDE, unruled().0, server().0, kind, 0, [0; 4], &quote);
        lab.dropped(INSIDE, &last(frame), Drop::TtlExceeded);
        lab.counted("received, inside-received, drop-ttl-exceeded");
    }
    for multicast in ["224.0.0.1:9", "239.1.2.3:9"] {
        lab.dropped(INSIDE, &last(udp(INSIDE, unruled(), end(multicast), b"")), Drop::Multicast);
        lab.counted("received, inside-received, drop-multicast");
    }
    for broadcast in ["255.255.255.255:9", "192.168.1.255:9", "198.51.100.0:9"] {
        lab.dropped(INSIDE, &last(udp(INSIDE, unruled(), end(broadcast), b"")), Drop::Broadcast);
        lab.counted("received, inside-received, drop-broadcast");
    }
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let mut frame = last(udp(INSIDE, unruled(), server(), b""));
        frame[..6].copy_from_slice(&group);
        lab.dropped(INSIDE, &frame, Drop::LinkBroadcast);
        lab.counted("received, inside-received, drop-link-broadcast");
    }
    for source in ["0.0.0.0:9", "0.1.2.3:9", "127.0.0.1:9", "224.1.1.1:9", "255.255.255.255:9", "240.0.0.1:9"] {
        lab.dropped(INSIDE, &last(udp(INSIDE, end(source), server(), b"")), Drop::BadSource);
        lab.counted("received, inside-received, drop-bad-source");
    }
    for source in ["192.168.1.255:9", "192.168.1.0:9", "198.51.100.255:9"] {
        lab.dropped(INSIDE, &last(udp(INSIDE, end(source), server(), b"")), Drop::TtlExceeded);
        lab.counted("received, inside-received, drop-ttl-exceeded");
    }
    let later = with_ip(udp(INSIDE, unruled(), server(), b""), |ip| {
        ip[6..8].copy_from_slice(&[0x20, 8]);
        ip[8] = 1;
    });
    lab.dropped(INSIDE, &later, Drop::TtlExceeded);
    lab.counted("received, inside-received, drop-ttl-exceeded");
    let first = with_ip(later, |ip| ip[6..8].copy_from_slice(&[0x20, 0]));
    assert_eq!(error(&mut lab, INSIDE, &first).quote, first[14..], "about the first fragment there is one");
    // An echo request is a query: answered.
    let ping = last(echo(INSIDE, unruled().0, server().0, true, 1, 1));
    assert_eq!(error(&mut lab, INSIDE, &ping).quote, ping[14..]);
}

/// RTR-03: the same in IPv6.
#[test]
fn rtr_03_what_is_never_answered_in_ipv6() {
    let mut lab = lab(routed());
    let last = |frame| with_ip(frame, |ip| ip[7] = 1);
    let quote = udp6(OUTSIDE, server6(), host6(), b"", 64)[14..].to_vec();
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        let frame = last(icmp6(INSIDE, host6().0, server6().0, kind, 0, [0; 4], &quote));
        lab.dropped(INSIDE, &frame, Drop::TtlExceeded);
        lab.counted("received, inside-received, drop-ttl-exceeded");
    }
    for (source, destination, reason) in [
        ("::", "2001:db8:5::1", Drop::BadSource),
        ("::1", "2001:db8:5::1", Drop::BadSource),
        ("ff02::1", "2001:db8:5::1", Drop::BadSource),
        ("fd00:9::7", "::1", Drop::BadDestination),
        ("fd00:9::7", "::", Drop::BadDestination),
        ("fd00:9::7", "ff0e::1", Drop::Multicast),
        ("fd00:9::7", "ff05::2", Drop::Multicast),
        ("fe80::7", "2001:db8:5::1", Drop::LinkLocal),
        ("fd00:9::7", "fe80::99", Drop::LinkLocal),
    ] {
        let (source, destination) = ((source.parse().unwrap(), 9), (destination.parse().unwrap(), 9));
        lab.dropped(INSIDE, &udp6(INSIDE, source, destination, b"", 1), reason);
        lab.counted(&format!("received, inside-received, drop-{}", reason.name()));
    }
    let mut frame = udp6(INSIDE, host6(), server6(), b"", 1);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    lab.dropped(INSIDE, &frame, Drop::LinkBroadcast);
    lab.counted("received, inside-received, drop-link-broadcast");
    let ping = last(icmp6(INSIDE, host6().0, server6().0, 128, 0, [0, 1, 0, 1], b"ping"));
    assert_eq!(error(&mut lab, INSIDE, &ping).quote, ping[14..], "an echo request is answered");
}

/// RTR-04: a token bucket: a burst is answered at once, and then as many a second as the file says.
#[test]
fn rtr_04_errors_are_limited_by_a_token_bucket() {
    let mut lab = lab(Spec { icmp: IcmpPolicy { rate: 10, burst: 10, ..IcmpPolicy::default() }, ..routed() });
    let probes = vec![udp_ttl(INSIDE, host(), server(), b"", 1); 30];
    assert_eq!(lab.send_all(INSIDE, &probes).frames.len(), 10);
    lab.counted(
        "received 30, inside-received 30, drop-ttl-exceeded 30, originated 10, icmp4-11/0 10, icmp-rate-limited 20,
         transmitted 10, inside-transmitted 10",
    );
    for (millis, answers) in [(99, 0), (1, 1), (100, 1), (500, 5), (60_000, 10)] {
        lab.wait(std::time::Duration::from_millis(millis));
        assert_eq!(lab.send_all(INSIDE, &probes).frames.len(), answers, "after {millis} ms");
    }
}

/// ICM-13: an interface that is silent.
#[test]
fn icm_13_silent_interfaces_send_no_errors() {
    let mut lab = lab(Spec { icmp: IcmpPolicy { silent: vec![OUTSIDE], ..IcmpPolicy::default() }, ..routed() });
    lab.dropped(OUTSIDE, &udp_ttl(OUTSIDE, server(), unruled(), b"", 1), Drop::TtlExceeded);
    lab.counted("received, outside-received, drop-ttl-exceeded");
    error(&mut lab, INSIDE, &udp_ttl(INSIDE, unruled(), server(), b"", 1));
}

/// Nothing to write the error into: the packet is dropped all the same, and the missing error counted.
#[test]
fn an_empty_pool_sends_no_errors() {
    let mut lab = lab(routed());
    let mut pool = lab.pool.clone();
    let taken: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    lab.dropped(INSIDE, &udp_ttl(INSIDE, host(), server(), b"", 1), Drop::TtlExceeded);
    lab.counted("received, inside-received, drop-ttl-exceeded, originate-failures");
    // A packet of the host needs one too.
    lab.to_worker.send(ToWorker::Packet { packet: udp(INSIDE, host(), server(), b"")[14..].into() }).unwrap();
    lab.to_worker
        .send(ToWorker::Frame { interface: INSIDE, frame: ethernet(INSIDE, 0x0806, &[0; 28]).into() })
        .unwrap();
    assert!(lab.run().frames.is_empty());
    lab.counted("from-host 2, drop-pool-empty 2");
    drop(taken);
    error(&mut lab, INSIDE, &udp_ttl(INSIDE, host(), server(), b"", 1));
}

// --- What is not to be forwarded --------------------------------------------------------------------------------------

/// RTR-07: a malformed header is dropped by its name, and not answered.
#[test]
fn rtr_07_malformed_headers_are_dropped_by_name() {
    let mut lab = lab(routed());
    let good = || tcp(INSIDE, unruled(), server(), "S", 1, 0, b"payload");
    let raw = |change: fn(&mut Vec<u8>)| {
        let mut frame = good();
        change(&mut frame);
        frame
    };
    let udp_of = |length: u8| with_ip(udp(INSIDE, unruled(), server(), b"abc"), |ip| ip[25] = length);
    let cases: Vec<(&str, Vec<u8>, Drop)> = vec![
        ("version 5", with_ip(good(), |ip| ip[0] = 0x55), Drop::IpHeader),
        ("version 6 in an IPv4 frame", with_ip(good(), |ip| ip[0] = 0x65), Drop::IpHeader),
        ("header of 16 bytes", with_ip(good(), |ip| ip[0] = 0x44), Drop::IpHeader),
        ("header beyond the total length", with_ip(good(), |ip| (ip[0], ip[2], ip[3]) = (0x4f, 0, 59)), Drop::IpLength),
        ("total length below the header's", with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 19])), Drop::IpLength),
        ("total length beyond the frame", with_ip(good(), |ip| ip[3] += 1), Drop::IpLength),
        ("header checksum", raw(|frame| frame[24] ^= 1), Drop::IpChecksum),
        ("TTL changed on the way", raw(|frame| frame[22] -= 1), Drop::IpChecksum),
        ("TCP cut short", with_ip(good(), |ip| ip[2..4].copy_from_slice(&[0, 39])), Drop::TransportShort),
        ("TCP header of 16 bytes", with_ip(good(), |ip| ip[32] = 0x40), Drop::TransportShort),
        ("TCP header beyond the packet", with_ip(good(), |ip| ip[32] = 0xf0), Drop::TransportShort),
        ("UDP length below 8", udp_of(7), Drop::TransportShort),
        ("UDP length beyond the packet", udp_of(12), Drop::TransportShort),
        (
            "ICMP cut short",
            with_ip(echo(INSIDE, unruled().0, server().0, true, 1, 1), |ip| ip[3] = 27),
            Drop::TransportShort,
        ),
        ("not IP", ethernet(INSIDE, 0x88b5, &good()[14..]), Drop::NotIp),
        ("an 802.3 length", ethernet(INSIDE, 46, &good()[14..]), Drop::LengthFrame),
        ("no header", ethernet(INSIDE, 0x0800, &[]), Drop::IpHeader),
        ("another's address", raw(|frame| frame[5] ^= 0x10), Drop::OtherStation),
    ];
    for (what, frame, reason) in cases {
        lab.dropped(INSIDE, &frame, reason);
        println!("{what}");
        lab.counted(&format!("received, inside-received, drop-{}", reason.name()));
    }
    let good6 = || udp6(INSIDE, host6(), server6(), b"abc", 64);
    for (what, frame, reason) in [
        ("version 4 in an IPv6 frame", with_ip(good6(), |ip| ip[0] = 0x50), Drop::IpHeader),
        ("payload length beyond the frame", with_ip(good6(), |ip| ip[5] += 1), Drop::IpLength),
        ("UDP cut short", with_ip(good6(), |ip| ip[5] = 7), Drop::TransportShort),
        ("extension header beyond the packet", with_ip(good6(), |ip| (ip[6], ip[41]) = (60, 9)), Drop::IpHeader),
    ] {
        println!("{what}");
        lab.dropped(INSIDE, &frame, reason);
        lab.counted(&format!("received, inside-received, drop-{}", reason.name()));
    }
    lab.pass(INSIDE, &good(), OUTSIDE);
}

/// RTR-07: a frame may end anywhere: it is dropped once, for one reason, and never answered.
#[test]
fn rtr_07_a_frame_may_end_anywhere() {
    let mut lab = lab(routed());
    let quote = udp(OUTSIDE, server(), host(), b"")[14..].to_vec();
    for frame in [
        tcp(INSIDE, unruled(), server(), "S", 1, 0, b"payload"),
        udp(INSIDE, host(), server(), b"payload"),
        echo(INSIDE, host().0, server().0, true, 1, 1),
        icmp(INSIDE, host().0, server().0, 3, 3, [0; 4], &quote),
        udp6(INSIDE, host6(), server6(), b"payload", 64),
        icmp6(INSIDE, host6().0, server6().0, 128, 0, [0; 4], b"payload"),
    ] {
        let ip = if frame[14] >> 4 == 4 { 20 } else { 40 };
        for len in 0..frame.len() {
            let reason = match len {
                0..14 => Drop::FrameShort,
                _ if len < 14 + ip => Drop::IpHeader,
                _ => Drop::IpLength,
            };
            lab.dropped(INSIDE, &frame[..len], reason);
            let ingress = if len < 14 { "" } else { "inside-received, " };
            lab.counted(&format!("received, {ingress}drop-{}", reason.name()));
        }
    }
}

/// Addresses that never cross a router (RFC 1812 §5.3.7, RFC 3927 §7).
#[test]
fn martians_are_dropped_by_name() {
    let mut lab = lab(routed());
    for (source, destination, reason) in [
        ("0.0.0.0", "198.18.0.1", Drop::BadSource),
        ("127.0.0.1", "198.18.0.1", Drop::BadSource),
        ("224.0.0.5", "198.18.0.1", Drop::BadSource),
        ("240.0.0.1", "198.18.0.1", Drop::BadSource),
        ("255.255.255.255", "198.18.0.1", Drop::BadSource),
        ("192.168.1.10", "0.0.0.0", Drop::BadDestination),
        ("192.168.1.10", "127.0.0.1", Drop::BadDestination),
        ("192.168.1.10", "240.0.0.1", Drop::BadDestination),
        ("192.168.1.10", "224.0.0.5", Drop::Multicast),
        ("192.168.1.10", "255.255.255.255", Drop::Broadcast),
        ("169.254.1.1", "198.18.0.1", Drop::LinkLocal),
        ("192.168.1.10", "169.254.1.1", Drop::LinkLocal),
        // Directed broadcasts of the gateway's own networks, and their old form (RFC 1812 §5.3.5).
        ("192.168.1.10", "198.51.100.255", Drop::Broadcast),
        ("192.168.1.10", "198.51.100.0", Drop::Broadcast),
    ] {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        lab.dropped(INSIDE, &udp(INSIDE, (source, 9), (destination, 9), b""), reason);
        lab.counted(&format!("received, inside-received, drop-{}", reason.name()));
    }
}

/// A broadcast frame with an IP packet for one host is not forwarded (RFC 1812 §5.3.4), and one for another station is not
/// ours.
#[test]
fn frames_for_all_or_for_others_are_not_forwarded() {
    let mut lab = lab(routed());
    for from in [host(), unruled()] {
        let mut frame = udp(INSIDE, from, server(), b"");
        frame[..6].fill(0xff);
        lab.dropped(INSIDE, &frame, Drop::LinkBroadcast);
        lab.counted("received, inside-received, drop-link-broadcast");
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        lab.dropped(INSIDE, &frame, Drop::OtherStation);
        lab.counted("received, inside-received, drop-other-station");
    }
    // Broadcast to a mapping that exists.
    lab.pass(INSIDE, &udp(INSIDE, host(), server(), b""), OUTSIDE);
    let mut frame = udp(OUTSIDE, server(), end("203.0.113.5:4000"), b"");
    frame[..6].fill(0xff);
    lab.dropped(OUTSIDE, &frame, Drop::LinkBroadcast);
}

// --- Neighbours -------------------------------------------------------------------------------------------------------

/// A gateway that knows no neighbour but the inside host.
fn strangers(limits: Limits) -> Lab {
    let mut lab = Lab::new(Spec { limits, ..routed() });
    lab.resolving = false;
    lab.neighbour(INSIDE, host().0.into(), NeighbourState::Reachable(PEER));
    lab.run();
    lab.counted("");
    lab
}

/// Packets wait for their neighbour, who is asked for once, and go on in order when it is found.
#[test]
fn packets_wait_for_their_neighbour_and_go_in_order() {
    let mut lab = strangers(spec().limits);
    let frames: Vec<_> = (0..5).map(|n| udp(INSIDE, host(), server(), &[n; 3])).collect();
    let seen = lab.send_all(INSIDE, &frames);
    assert_eq!((seen.frames.len(), seen.resolve), (0, vec![(OUTSIDE, ROUTER)]));
    lab.counted("received 5, inside-received 5, held 5");
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]), "nothing is decided yet");
    let mac = MacAddr([2, 9, 9, 9, 9, 9]);
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(mac));
    let seen = lab.run();
    let payloads: Vec<_> = seen.frames.iter().map(|(_, frame)| read(frame).payload).collect();
    assert_eq!(payloads, (0..5).map(|n| vec![n; 3]).collect::<Vec<_>>());
    assert!(seen.frames.iter().all(|(to, frame)| *to == OUTSIDE && frame[..6] == mac.0));
    lab.counted(
        "held -5, transmitted 5, outside-transmitted 5, nat44-out 5, session-creations, sessions-udp-active,
         mapping-creations, mappings-udp",
    );
    // From now on it is known.
    assert!(lab.send(INSIDE, &frames[0]).resolve.is_empty());
}

/// At most so many packets wait for one neighbour, and in all.
#[test]
fn waiting_is_bounded_per_neighbour_and_in_all() {
    let mut lab = strangers(Limits { held_per_neighbour: 3, held: 5, ..spec().limits });
    let frames = vec![udp(INSIDE, host(), server(), b""); 4];
    lab.send_all(INSIDE, &frames);
    lab.counted("received 4, inside-received 4, held 3, drop-neighbour-queue-full");
    let others = vec![udp(INSIDE, unruled(), end("198.51.100.9:9"), b""); 3];
    assert_eq!(lab.send_all(INSIDE, &others).resolve, [(OUTSIDE, "198.51.100.9".parse().unwrap())]);
    lab.counted("received 3, inside-received 3, held 2, drop-neighbour-queue-full");
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(PEER));
    assert_eq!(lab.run().frames.len(), 3);
    // Their places are free again.
    lab.counted(
        "held -3, transmitted 3, outside-transmitted 3, nat44-out 3, session-creations, sessions-udp-active,
         mapping-creations, mappings-udp",
    );
    lab.send_all(INSIDE, &others);
    lab.counted("received 3, inside-received 3, held, drop-neighbour-queue-full 2");
}

/// Neighbours that never answer may take all the room for waiting packets: a new one is still asked for, and reached as soon
/// as it has answered.
#[test]
fn dead_neighbours_do_not_keep_others_from_being_asked_for() {
    let mut lab = strangers(Limits { held_per_neighbour: 2, held: 8, ..spec().limits });
    let to = |last: u8| udp(INSIDE, unruled(), (Ipv4Addr::new(198, 51, 100, last), 9), b"");
    let dead: Vec<_> = (50..54).flat_map(|last| [to(last), to(last)]).collect();
    assert_eq!(lab.send_all(INSIDE, &dead).resolve.len(), 4);
    lab.counted("received 8, inside-received 8, held 8");
    let new: IpAddr = "198.51.100.99".parse().unwrap();
    assert_eq!(lab.send(INSIDE, &to(99)).resolve, [(OUTSIDE, new)]);
    assert!(lab.send(INSIDE, &to(99)).resolve.is_empty(), "asked for once");
    lab.counted("received 2, inside-received 2, drop-neighbour-queue-full 2");
    lab.neighbour(OUTSIDE, new, NeighbourState::Reachable(PEER));
    lab.run();
    assert_eq!(lab.pass(INSIDE, &to(99), OUTSIDE)[..6], PEER.0);
    lab.counted("received, inside-received, routed4, transmitted, outside-transmitted");
    // One that fails without a packet that waited may be asked for again.
    assert_eq!(lab.send(INSIDE, &to(98)).resolve.len(), 1);
    lab.neighbour(OUTSIDE, "198.51.100.98".parse().unwrap(), NeighbourState::Failed);
    lab.run();
    assert_eq!(lab.send(INSIDE, &to(98)).resolve.len(), 1);
    lab.counted("received 2, inside-received 2, drop-neighbour-queue-full 2");
}

/// The neighbour table has its bound too; the known ones keep working.
#[test]
fn a_full_neighbour_table_refuses_new_ones() {
    let mut lab = strangers(Limits { neighbours: 3, ..spec().limits });
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(PEER));
    let to = |last: u8| udp(INSIDE, host(), (Ipv4Addr::new(198, 51, 100, last), 9), b"");
    assert_eq!(lab.send_all(INSIDE, &[to(50), to(51)]).resolve.len(), 1);
    lab.counted("received 2, inside-received 2, held, drop-neighbour-table-full");
    lab.pass(INSIDE, &udp(INSIDE, unruled(), server(), b""), OUTSIDE);
    lab.counted("received, inside-received, routed4, transmitted, outside-transmitted");
    // One more published than the table holds is not lost, but asked for again.
    lab.neighbour(OUTSIDE, "198.51.100.51".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.dropped(INSIDE, &to(51), Drop::NeighbourTableFull);
    // The one that fails makes room.
    lab.neighbour(OUTSIDE, "198.51.100.50".parse().unwrap(), NeighbourState::Failed);
    lab.run();
    assert_eq!(lab.send(INSIDE, &to(51)).resolve.len(), 1);
}

/// A neighbour that does not answer: host unreachable to each sender, about the packet as it was sent, and nothing stays
/// behind. A later packet asks anew (RFC 1812 §3.3.2, RFC 1122 §2.3.2.2).
#[test]
fn a_neighbour_that_fails_is_answered_as_unreachable() {
    let mut lab = strangers(spec().limits);
    let frames = [
        udp(INSIDE, host(), server(), b"translated"),
        udp(INSIDE, host(), end("10.9.9.9:1"), b"elsewhere"),
        tcp(INSIDE, host(), server(), "S", 1, 0, b""),
    ];
    assert_eq!(lab.send_all(INSIDE, &frames).resolve.len(), 2);
    lab.counted("received 3, inside-received 3, held 3");
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Failed);
    let seen = lab.run();
    let quotes: Vec<_> = seen
        .frames
        .iter()
        .map(|(to, frame)| {
            let it = read_error(frame);
            assert_eq!((*to, it.source, it.destination), (INSIDE, INSIDE_ADDRESS, host().0.into()));
            assert_eq!((it.kind, it.code, it.word), (3, 1, 0));
            it.quote
        })
        .collect();
    assert_eq!(quotes, [frames[0][14..].to_vec(), frames[2][14..].to_vec()], "as the host sent them");
    lab.counted("held -2, drop-neighbour-failed 2, originated 2, icmp4-3/1 2, transmitted 2, inside-transmitted 2");
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
    assert_eq!(lab.leases.ports_used(0), [0; 3]);
    assert_eq!(lab.send(INSIDE, &frames[0]).resolve, [(OUTSIDE, ROUTER)]);
}

/// The same in IPv6: address unreachable (RFC 4443 §3.1).
#[test]
fn an_ipv6_neighbour_that_fails_is_answered_as_unreachable() {
    let mut lab = strangers(spec().limits);
    lab.neighbour(INSIDE, "fd00:1::2".parse().unwrap(), NeighbourState::Reachable(PEER));
    let router: IpAddr = "2001:db8:f::1".parse().unwrap();
    let frame = udp6(INSIDE, host6(), server6(), b"lost", 64);
    assert_eq!(lab.send(INSIDE, &frame).resolve, [(OUTSIDE, router)]);
    lab.neighbour(OUTSIDE, router, NeighbourState::Failed);
    let seen = lab.run();
    let it = read_error(&seen.frames[0].1);
    assert_eq!((it.destination, it.kind, it.code, &it.quote[..]), (host6().0.into(), 1, 3, &frame[14..]));
    lab.counted(
        "received, inside-received, drop-neighbour-failed, originated, icmp6-1/3, transmitted, inside-transmitted",
    );
}

/// RFC 4861 §7.3.3: the use of a stale neighbour is reported, once for each publication.
#[test]
fn the_use_of_a_stale_neighbour_is_reported_once() {
    let mut lab = strangers(spec().limits);
    let frame = udp(INSIDE, host(), server(), b"");
    for _ in 0..2 {
        lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Stale(PEER));
        assert!(lab.run().used.is_empty(), "not before it is used");
        let seen = lab.send_all(INSIDE, &[frame.clone(), frame.clone()]);
        assert_eq!((seen.frames.len(), seen.used), (2, vec![(OUTSIDE, ROUTER)]));
        assert!(lab.send(INSIDE, &frame).used.is_empty());
    }
}

// --- The gateway as a host --------------------------------------------------------------------------------------------

/// What is for the gateway itself goes to the control thread as it came.
#[test]
fn what_is_for_the_gateway_is_punted() {
    let mut lab = lab(routed());
    let arp = {
        let mut frame = ethernet(INSIDE, 0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0xaa, 0xaa, 192, 168, 1, 10]);
        frame.extend([0, 0, 0, 0, 0, 0, 192, 168, 1, 1]);
        frame[..6].fill(0xff);
        frame.resize(60, 0);
        frame
    };
    let solicitation = |to: &str, mac: [u8; 6]| {
        let mut frame = icmp6(INSIDE, "fd00:1::10".parse().unwrap(), to.parse().unwrap(), 135, 0, [0; 4], &[0; 16]);
        frame[..6].copy_from_slice(&mac);
        with_ip(frame, |ip| ip[7] = 255)
    };
    let frames = [
        arp,
        solicitation("ff02::1:ff00:1", [0x33, 0x33, 0xff, 0, 0, 1]),
        solicitation("fd00:1::1", MACS[0].0),
        solicitation("fe80::ff:fe00:1", MACS[0].0),
        echo(INSIDE, host().0, Ipv4Addr::new(192, 168, 1, 1), true, 1, 1),
        // Another of its addresses than that of the interface.
        echo(INSIDE, host().0, Ipv4Addr::new(198, 51, 100, 2), true, 1, 1),
        tcp(INSIDE, host(), end("192.168.1.1:22"), "S", 1, 0, b""),
    ];
    for frame in frames {
        let seen = lab.send(INSIDE, &frame);
        assert_eq!((seen.frames.len(), seen.punted), (0, vec![(INSIDE, frame)]));
        lab.counted("received, inside-received, punted");
    }
    // A ping of a pool address that belongs to no session, from outside.
    let ping = echo(OUTSIDE, server().0, Ipv4Addr::new(203, 0, 113, 5), true, 7, 1);
    assert_eq!(lab.send(OUTSIDE, &ping).punted, [(OUTSIDE, ping)]);
    lab.counted("received, outside-received, punted");
    let reply = echo(OUTSIDE, server().0, Ipv4Addr::new(203, 0, 113, 5), false, 7, 1);
    lab.dropped(OUTSIDE, &reply, Drop::Unsolicited);
}

/// An interface with several addresses of each family: each is the gateway's own, the prefix of each is on the link, and
/// errors come from the first of each family, wherever their cause came from (RTR-06).
#[test]
fn rtr_06_an_interface_with_several_addresses() {
    let mut spec = routed();
    let more = ["192.168.1.2/24", "10.9.0.1/24", "10.9.1.1/24", "fd00:1::2/64", "fd00:9::1/64"];
    spec.interfaces[0].addresses.extend(more.map(prefix));
    let mut lab = lab(spec);
    for address in ["192.168.1.1", "192.168.1.2", "10.9.0.1", "10.9.1.1"] {
        for (interface, from) in [(INSIDE, host().0), (INSIDE, unruled().0)] {
            let ping = echo(interface, from, address.parse().unwrap(), true, 1, 1);
            assert_eq!(lab.send(interface, &ping).punted, [(interface, ping)], "{address}");
            lab.counted("received, inside-received, punted");
        }
    }
    for address in ["fd00:1::1", "fd00:1::2", "fd00:9::1", "fe80::ff:fe00:1"] {
        let ping = icmp6(INSIDE, host6().0, address.parse().unwrap(), 128, 0, [0; 4], b"");
        assert_eq!(lab.send(INSIDE, &ping).punted, [(INSIDE, ping)], "{address}");
        lab.counted("received, inside-received, punted");
    }
    // On the link: asked for there, and reached.
    for to in ["10.9.0.77:9", "10.9.1.77:9"] {
        let seen = lab.send(INSIDE, &udp(INSIDE, host(), end(to), b""));
        assert_eq!((seen.resolve, seen.frames.len()), (vec![(INSIDE, end(to).0.into())], 1));
    }
    let there = ("fd00:9::77".parse().unwrap(), 9);
    let seen = lab.send(OUTSIDE, &udp6(OUTSIDE, server6(), there, b"", 64));
    assert_eq!((seen.resolve, seen.frames.len()), (vec![(INSIDE, there.0.into())], 1));
    for from in ["192.168.1.10:9", "10.9.0.7:9", "10.9.1.7:9"] {
        let it = error(&mut lab, INSIDE, &udp_ttl(INSIDE, end(from), server(), b"", 1));
        assert_eq!((it.source, it.destination), ("192.168.1.1".parse().unwrap(), end(from).0.into()));
    }
    for from in ["fd00:1::10", "fd00:9::7"] {
        let it = error(&mut lab, INSIDE, &udp6(INSIDE, (from.parse().unwrap(), 9), server6(), b"", 1));
        assert_eq!((it.source, it.destination), ("fd00:1::1".parse().unwrap(), from.parse().unwrap()));
    }
}

/// RTR-06: errors come from the addresses that the file names, whatever interface the packet came in by: a router's one name.
#[test]
fn rtr_06_errors_from_one_address() {
    let mut spec = routed();
    // Two single addresses, as a loopback interface would have them.
    spec.interfaces[1].addresses.extend(["203.0.113.1/32", "2001:db8:1::1/128"].map(prefix));
    spec.icmp.sources = ["203.0.113.1", "2001:db8:1::1"].map(|it| it.parse().unwrap()).into();
    let mut lab = lab(spec);
    let it = error(&mut lab, INSIDE, &udp_ttl(INSIDE, host(), server(), b"", 1));
    assert_eq!((it.source, it.destination), ("203.0.113.1".parse().unwrap(), host().0.into()));
    let it = error(&mut lab, INSIDE, &udp6(INSIDE, host6(), server6(), b"", 1));
    assert_eq!((it.source, it.destination), ("2001:db8:1::1".parse().unwrap(), host6().0.into()));
    // They are reached like any other of its own.
    let ping = echo(INSIDE, unruled().0, "203.0.113.1".parse().unwrap(), true, 1, 1);
    assert_eq!(lab.send(INSIDE, &ping).punted, [(INSIDE, ping)]);
}

/// A pool address that is also an interface's own is pinged as that, whatever the pool says; others do as the pool says,
/// whether they are on a link of the gateway's or routed to it.
#[test]
fn pool_addresses_are_pinged_as_the_pool_says_and_own_ones_always() {
    for answer_echo in [true, false] {
        let mut spec = routed();
        spec.pools = vec![common::pool(&["198.51.100.2", "198.51.100.9", "203.0.113.5-203.0.113.6"], 1..=65535)];
        spec.pools[0].answer_echo = answer_echo;
        let mut lab = lab(spec);
        for (address, own) in
            [("198.51.100.2", true), ("198.51.100.9", false), ("203.0.113.5", false), ("203.0.113.6", false)]
        {
            let address = address.parse().unwrap();
            let ping = echo(OUTSIDE, server().0, address, true, 7, 1);
            let from_inside = echo(INSIDE, unruled().0, address, true, 7, 1);
            if answer_echo || own {
                assert_eq!(lab.send(OUTSIDE, &ping).punted, [(OUTSIDE, ping)], "{address}");
                assert_eq!(lab.send(INSIDE, &from_inside).punted, [(INSIDE, from_inside)], "{address}");
                lab.counted("received 2, outside-received, inside-received, punted 2");
            } else {
                lab.dropped(OUTSIDE, &ping, Drop::Unsolicited);
                lab.counted("received, outside-received, drop-unsolicited");
                lab.dropped(INSIDE, &from_inside, Drop::Unsolicited);
                lab.counted("received, inside-received, drop-unsolicited");
            }
            // Nothing but a ping is answered.
            lab.dropped(OUTSIDE, &udp(OUTSIDE, server(), (address, 9), b""), Drop::Unsolicited);
            lab.counted("received, outside-received, drop-unsolicited");
        }
    }
}

/// Where the pool does not answer, a ping is as unsolicited as anything.
#[test]
fn a_pool_that_does_not_answer_is_silent() {
    let mut spec = routed();
    spec.pools[0].answer_echo = false;
    let mut lab = lab(spec);
    lab.dropped(OUTSIDE, &echo(OUTSIDE, server().0, Ipv4Addr::new(203, 0, 113, 5), true, 7, 1), Drop::Unsolicited);
    lab.counted("received, outside-received, drop-unsolicited");
}

/// What the host sends is routed like anything, waits for its neighbour, and is refused by name if it is no packet.
#[test]
fn packets_of_the_host_are_routed_and_wait() {
    let mut lab = strangers(spec().limits);
    let send = |lab: &mut Lab, frame: &[u8]| {
        lab.to_worker.send(ToWorker::Packet { packet: frame[14..].into() }).unwrap();
        lab.run()
    };
    let reply = echo(INSIDE, Ipv4Addr::new(192, 168, 1, 1), host().0, false, 1, 1);
    let seen = send(&mut lab, &reply);
    let [(INSIDE, frame)] = &seen.frames[..] else { panic!("one frame inside: {seen:?}") };
    assert_eq!((&frame[..6], &frame[6..12], &frame[14..]), (&PEER.0[..], &MACS[0].0[..], &reply[14..]));
    lab.counted("from-host, transmitted, inside-transmitted");
    let away = udp(INSIDE, end("198.51.100.2:53"), server(), b"query");
    assert_eq!(send(&mut lab, &away).resolve, [(OUTSIDE, ROUTER)]);
    lab.counted("from-host, held");
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(PEER));
    let seen = lab.run();
    let it = read(&seen.frames[0].1);
    assert_eq!((it.source, it.destination, it.ttl), (end("198.51.100.2:53"), server(), 64), "no hop is counted");
    lab.counted("held -1, transmitted, outside-transmitted");
    let six = udp6(INSIDE, ("2001:db8:f::2".parse().unwrap(), 53), server6(), b"", 64);
    assert_eq!(send(&mut lab, &six).resolve.len(), 1);
    lab.counted("from-host, held");
    // A neighbour that fails: nobody is told but the counters.
    lab.neighbour(OUTSIDE, "2001:db8:f::1".parse().unwrap(), NeighbourState::Failed);
    assert!(lab.run().frames.is_empty());
    lab.counted("held -1, drop-neighbour-failed");
    for (frame, reason) in [
        (udp(INSIDE, end("198.51.100.2:53"), end("10.66.0.1:1"), b""), Drop::NoRoute),
        (udp(INSIDE, end("198.51.100.2:53"), end("192.168.1.255:1"), b""), Drop::NoRoute),
        (vec![0; 14], Drop::HostPacket),
        (vec![0x30; 60], Drop::HostPacket),
        (away[..30].to_vec(), Drop::HostPacket),
        (with_ip(away.clone(), |ip| ip[3] = 200), Drop::HostPacket),
        (vec![0x45; 5000], Drop::HostPacket),
    ] {
        assert!(send(&mut lab, &frame).frames.is_empty());
        lab.counted(&format!("from-host, drop-{}", reason.name()));
    }
}

/// Frames of the host go out as they are.
#[test]
fn frames_of_the_host_are_sent_as_they_are() {
    let mut lab = lab(routed());
    let mut send = |interface, frame: &[u8]| {
        lab.to_worker.send(ToWorker::Frame { interface, frame: frame.into() }).unwrap();
        lab.run().frames
    };
    let mut arp = ethernet(OUTSIDE, 0x0806, &[7; 28]);
    arp[..6].fill(0xff);
    arp[6..12].copy_from_slice(&MACS[1].0);
    assert_eq!(send(OUTSIDE, &arp), [(OUTSIDE, arp.clone())]);
    assert!(send(OUTSIDE, &arp[..13]).is_empty());
    assert!(send(OUTSIDE, &[1; 5000]).is_empty());
    assert!(send(InterfaceId(99), &arp).is_empty());
    lab.counted("from-host 4, transmitted, outside-transmitted, drop-host-packet 3");
}

// --- Queues that are full ---------------------------------------------------------------------------------------------

/// What the device does not take is dropped by name, and the rest has gone.
#[test]
fn a_full_transmit_queue_drops_by_name() {
    let mut lab = lab(routed());
    lab.worker.devices_mut()[1].room = Some(40);
    let frames: Vec<_> = (0..70).map(|n| udp(INSIDE, unruled(), server(), &[n])).collect();
    let seen = lab.send_all(INSIDE, &frames);
    let payloads: Vec<_> = seen.frames.iter().map(|(_, frame)| read(frame).payload[0]).collect();
    assert_eq!(payloads, (0..40).collect::<Vec<_>>());
    lab.counted(
        "received 70, inside-received 70, routed4 70, transmitted 40, outside-transmitted 40, drop-transmit-full 30",
    );
    lab.worker.devices_mut()[1].room = None;
    lab.pass(INSIDE, &frames[0], OUTSIDE);
}

/// A control thread that does not listen: what is for it is dropped by name, and the packets of others pass. What it must
/// hear, that a neighbour is wanted, is not lost.
#[test]
fn a_full_punt_queue_drops_by_name() {
    let mut lab = Lab::with_queue(routed(), 4);
    lab.resolving = false;
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(PEER));
    lab.run();
    lab.counted("");
    let ping = echo(INSIDE, host().0, Ipv4Addr::new(192, 168, 1, 1), true, 1, 1);
    // Polled without listening.
    let deliver = |lab: &mut Lab, frames: &[Vec<u8>]| {
        let port = &mut lab.worker.devices_mut()[0];
        port.rx.extend(frames.iter().map(|frame| HeapPacket::from_frame(frame)));
        while lab.worker.poll_once(lab.now).received > 0 {}
        lab.check();
    };
    deliver(&mut lab, &vec![ping.clone(); 10]);
    lab.counted("received 10, inside-received 10, punted 4, drop-punt-queue-full 6");
    // A neighbour is wanted, and behind that come pings without end.
    deliver(&mut lab, &[udp(INSIDE, host(), end("198.51.100.77:9"), b"")]);
    deliver(&mut lab, &vec![ping.clone(); 100]);
    deliver(&mut lab, &[udp(INSIDE, unruled(), server(), b"")]);
    lab.counted(
        "received 102, inside-received 102, held, drop-punt-queue-full 100, routed4, transmitted, outside-transmitted",
    );
    let seen = lab.run();
    assert_eq!((seen.punted.len(), seen.resolve.len()), (4, 0));
    let seen = lab.run();
    assert_eq!((seen.punted.len(), seen.resolve), (0, vec![(OUTSIDE, "198.51.100.77".parse().unwrap())]));
    assert_eq!(lab.send(INSIDE, &ping).punted.len(), 1);
}

/// While the control thread does not listen it is not listened to either, so that what waits for it stays bounded: its
/// messages are applied later, none is lost, and the packets of others pass meanwhile.
#[test]
fn a_control_thread_that_does_not_listen_is_listened_to_later() {
    const MESSAGES: u8 = 100;
    let mut lab = Lab::with_queue(routed(), 4);
    lab.resolving = false;
    lab.neighbour(OUTSIDE, ROUTER, NeighbourState::Reachable(PEER));
    lab.run();
    lab.counted("");
    let reply = echo(INSIDE, Ipv4Addr::new(192, 168, 1, 1), host().0, false, 1, 1);
    for n in 0..MESSAGES {
        let mut frame = ethernet(OUTSIDE, 0x0806, &[n; 28]);
        frame[6..12].copy_from_slice(&MACS[1].0);
        lab.to_worker.send(ToWorker::Frame { interface: OUTSIDE, frame: frame.into() }).unwrap();
    }
    lab.to_worker.send(ToWorker::Packet { packet: reply[14..].into() }).unwrap();
    let ping = echo(INSIDE, host().0, Ipv4Addr::new(192, 168, 1, 1), true, 1, 1);
    for _ in 0..50 {
        lab.arrive(INSIDE, [ping.clone(), udp(INSIDE, unruled(), server(), b"")].map(|it| HeapPacket::from_frame(&it)));
        lab.worker.poll_once(lab.now);
        lab.check();
    }
    let applied = lab.counters.from_host.get();
    assert!(applied < 40, "{applied} messages, of which the control thread has not taken back one");
    assert_eq!(lab.counters.drops(Drop::PuntQueueFull), 50);
    assert_eq!(lab.counters.routed[0].get(), 50);
    let mut frames = Vec::new();
    let mut resolve = Vec::new();
    while lab.counters.held.get() == 0 || resolve.is_empty() {
        let seen = lab.run();
        assert!(frames.len() < 1000, "it goes on");
        frames.extend(seen.frames);
        resolve.extend(seen.resolve);
    }
    let arps: Vec<u8> = frames.iter().filter(|(_, it)| it[12..14] == [8, 6]).map(|(_, it)| it[14]).collect();
    assert_eq!(arps, (0..MESSAGES).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(resolve, [(INSIDE, host().0.into())]);
    assert_eq!(lab.send(INSIDE, &ping).punted.len(), 1);
}

// --- Unfinished checksums ---------------------------------------------------------------------------------------------

/// Where the UDP or TCP checksum of a frame is.
fn checksum_field(frame: &[u8]) -> std::ops::Range<usize> {
    let (protocol, l4) = if frame[14] >> 4 == 4 { (frame[23], 34) } else { (frame[20], 54) };
    let field = l4 + if protocol == 17 { 6 } else { 16 };
    field..field + 2
}

/// The frame as Linux gives it to a device that shall compute the checksum: only the pseudo-header's sum is in its place
/// (RFC 768, RFC 8200 §8.1), not inverted.
fn unfinished(mut frame: Vec<u8>) -> Vec<u8> {
    let (protocol, addresses, l4) = match frame[14] >> 4 {
        4 => (frame[23], 26..34, 34),
        _ => (frame[20], 22..54, 54),
    };
    let words = frame[addresses].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum::<u32>() + u32::from(protocol) + (frame.len() - l4) as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    let field = checksum_field(&frame);
    frame[field].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Design rule 5: a packet whose sender has left the checksum to hardware (virtio, TAP) leaves with a right one, whether it
/// is translated or routed; and so does what goes to the host.
#[test]
fn unfinished_checksums_are_finished() {
    let mut lab = lab(routed());
    let payloads = [&b""[..], b"odd", b"even", &[0xff; 1000]];
    for payload in payloads {
        for frame in [
            udp(INSIDE, host(), server(), payload),
            tcp(INSIDE, host(), server(), "S", 1, 0, payload),
            udp(INSIDE, unruled(), server(), payload),
            tcp(INSIDE, unruled(), server(), "S", 1, 0, payload),
        ] {
            let whole = read(&lab.pass(INSIDE, &frame, OUTSIDE));
            lab.arrive(INSIDE, [HeapPacket::from_frame(&unfinished(frame)).with_rx_checksum(RxChecksum::Partial)]);
            // Read by etherparse, which computes the checksums.
            assert_eq!(read(&lab.run().frames[0].1), whole);
        }
        for frame in [udp6(INSIDE, host6(), server6(), payload, 64), tcp6(INSIDE, host6(), server6(), "S", payload, 64)]
        {
            let whole = read6(&lab.pass(INSIDE, &frame, OUTSIDE));
            lab.arrive(INSIDE, [HeapPacket::from_frame(&unfinished(frame)).with_rx_checksum(RxChecksum::Partial)]);
            assert_eq!(read6(&lab.run().frames[0].1), whole);
        }
    }
    let to_the_gateway = udp(INSIDE, host(), end("192.168.1.1:53"), b"query");
    let packet = HeapPacket::from_frame(&unfinished(to_the_gateway.clone())).with_rx_checksum(RxChecksum::Partial);
    lab.arrive(INSIDE, [packet]);
    assert_eq!(lab.run().punted, [(INSIDE, to_the_gateway)]);
}

/// Of a packet that the device does not call unfinished the checksum is left alone, be it right or wrong.
#[test]
fn finished_checksums_are_left_alone() {
    let mut lab = lab(routed());
    for said in [RxChecksum::Unknown, RxChecksum::Good, RxChecksum::Bad, RxChecksum::Partial] {
        let whole = udp(INSIDE, unruled(), server(), b"whole");
        let mut without = whole.clone();
        without[checksum_field(&whole)].fill(0);
        let mut wrong = whole.clone();
        wrong[checksum_field(&whole)].copy_from_slice(&0x1234u16.to_be_bytes());
        let mut frames = vec![whole.clone(), without, wrong];
        if said != RxChecksum::Partial {
            frames.push(unfinished(whole));
        }
        for frame in frames {
            lab.arrive(INSIDE, [HeapPacket::from_frame(&frame).with_rx_checksum(said)]);
            let out = &lab.run().frames[0].1;
            assert_eq!(out[34..], frame[34..], "{said:?}");
        }
    }
}
