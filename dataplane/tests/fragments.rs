//! Fragments through NAT44, and what is too large for a link: RFC 4787 REQ-13 and 14, RFC 1858, RFC 3128, RFC 5722,
//! RFC 6864, RFC 7857 §10. In virtual time; etherparse and plain arithmetic are the other side.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::fragments::{ORDERS, cut_up, fragmentable, part, place, put_together};
use common::moves::moves;
use common::scene::{error, filtering, forward, one_to_one, tagged, with_header, with_rule};
use common::{End, INSIDE, Lab, OUTSIDE, echo, end, icmp, read, rule, spec, tcp, udp, udp_ttl};
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::packet::PacketPool;
use dataplane::plan::{Filtering, ForwardProtocol, InterfaceId, Limits, Spec};

const H: &str = "192.168.1.10:4000";
const H2: &str = "192.168.1.11:4000";
const S: &str = "198.18.0.1:1000";
const EXTERNAL: &str = "203.0.113.5:4000";

/// A payload whose bytes are all different from their neighbours.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|byte| (byte * 7 % 251) as u8).collect()
}

/// An ICMP echo message of this length.
fn ping(interface: InterfaceId, from: Ipv4Addr, to: Ipv4Addr, request: bool, id: u16, len: usize) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    icmp(interface, from, to, if request { 8 } else { 0 }, 0, [high, low, 0, 1], &payload(len))
}

/// The fragments in another order.
fn ordered(fragments: &[Vec<u8>], order: [usize; 3]) -> Vec<Vec<u8>> {
    order.iter().map(|&nth| fragments[nth].clone()).collect()
}

/// Sends fragments, one after the other; all of them have left when the last has come.
#[track_caller]
fn pass_all(lab: &mut Lab, from: InterfaceId, fragments: &[Vec<u8>], to: InterfaceId) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for fragment in fragments {
        for (interface, frame) in lab.send(from, fragment).frames {
            assert_eq!(interface, to);
            read(&frame);
            out.push(frame);
        }
    }
    assert_eq!(out.len(), fragments.len(), "{:?}", lab.drops());
    assert_eq!((lab.counters.held.get(), lab.counters.fragments_held.get()), (0, 0));
    out
}

/// The offsets of fragments.
fn offsets(fragments: &[Vec<u8>]) -> Vec<usize> {
    fragments.iter().map(|frame| place(frame).1).collect()
}

// --- In any order -----------------------------------------------------------------------------------------------------

/// N44-27: from outside, all six orders of three fragments: by a session, a mapping alone, a forward, a static entry; UDP, TCP
/// and echo. The datagram arrives intact, and its fragments leave in the order in which they came.
#[test]
fn n44_27_from_outside_in_all_orders() {
    for order in ORDERS {
        let spec = Spec {
            forwards: vec![forward(ForwardProtocol::Tcp, "203.0.113.5", 80..=80, end(H))],
            static_nat: vec![one_to_one("203.0.113.60", "192.168.1.25")],
            ..with_rule(filtering(Filtering::EndpointIndependent))
        };
        let mut lab = Lab::new(spec);
        let external = lab.udp_out(end(H), end(S));
        let pinger = lab.ping_out((end(H).0, 77), end(S).0);
        lab.send(OUTSIDE, &tcp(OUTSIDE, end(S), end("203.0.113.5:80"), "S", 1, 0, b""));
        let stranger = end("198.18.0.9:9");
        let data = payload(3000);
        let segment = tcp(OUTSIDE, end(S), end("203.0.113.5:80"), "PA", 2, 1, &data);
        let cases: [(Vec<u8>, End); 5] = [
            (udp(OUTSIDE, end(S), external, &data), end(H)),
            (udp(OUTSIDE, stranger, external, &data), end(H)),
            (udp(OUTSIDE, stranger, end("203.0.113.60:53"), &data), end("192.168.1.25:53")),
            (segment, end(H)),
            (ping(OUTSIDE, end(S).0, pinger.0, false, pinger.1, 3000), (end(H).0, 77)),
        ];
        for (nth, (frame, host)) in cases.iter().enumerate() {
            let whole = fragmentable(frame, 0x1230 + nth as u16);
            let fragments = ordered(&cut_up(&whole, &[171, 300]), order);
            let out = pass_all(&mut lab, OUTSIDE, &fragments, INSIDE);
            assert_eq!(offsets(&out), offsets(&fragments));
            let seen = read(&put_together(&out));
            assert_eq!(seen.destination, if nth == 4 { (host.0, host.1) } else { *host }, "{nth} {order:?}");
            assert_eq!((seen.source.0, seen.ttl), (read(frame).source.0, 63));
            assert_eq!(seen.payload, read(frame).payload);
            assert_eq!(place(&out[0]).0, 0x1230 + nth as u16, "the server's identification");
        }
    }
}

/// N44-27: from inside likewise; whichever fragment comes first, the datagram opens the session that a whole one would.
#[test]
fn n44_27_from_inside_in_all_orders() {
    for order in ORDERS {
        let mut lab = Lab::default_lab();
        lab.syn_out(end(H), end(S));
        let data = payload(3000);
        for (nth, frame) in [
            udp(INSIDE, end(H), end(S), &data),
            ping(INSIDE, end(H).0, end(S).0, true, 4000, 3000),
            tcp(INSIDE, end(H), end(S), "PA", 1001, 1, &data),
        ]
        .iter()
        .enumerate()
        {
            let fragments = ordered(&cut_up(&fragmentable(frame, 77), &[171, 300]), order);
            let out = pass_all(&mut lab, INSIDE, &fragments, OUTSIDE);
            assert_eq!(offsets(&out), offsets(&fragments), "{nth}");
            let seen = read(&put_together(&out));
            assert_eq!(seen.source, end(EXTERNAL), "{nth}");
            assert_eq!((seen.destination.0, seen.ttl, &seen.payload), (end(S).0, 63, &read(frame).payload));
        }
        assert_eq!(lab.sessions(), 3);
    }
}

/// N44-27: what the counters say of fragments that come in the worst order.
#[test]
fn n44_27_counted() {
    let mut lab = Lab::default_lab();
    let fragments = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 1), &[171, 300]);
    lab.send_all(INSIDE, &[fragments[2].clone(), fragments[1].clone()]);
    lab.moved(moves().and("received", 2).and("inside-received", 2).and("held", 2).and("fragments-held", 2));
    lab.send(INSIDE, &fragments[0]);
    let passed = moves().outbound(3).and("received", -2).and("inside-received", -2).and("fragments", 3);
    lab.moved(passed.opened("udp-active", 1, 1).and("held", -2).and("fragments-held", -2));
}

/// Two datagrams of one flow, their fragments mixed up, do not mix.
#[test]
fn n44_27_datagrams_do_not_mix() {
    let mut lab = Lab::default_lab();
    lab.udp_out(end(H), end(S));
    let [a, b] = [(1, 0xaa), (2, 0xbb)].map(|(id, byte)| {
        cut_up(&fragmentable(&udp(OUTSIDE, end(S), end(EXTERNAL), &vec![byte; 3000]), id), &[171, 300])
    });
    let mixed = [&b[1], &a[2], &b[0], &a[1], &a[0], &b[2]].map(Clone::clone);
    let out = pass_all(&mut lab, OUTSIDE, &mixed, INSIDE);
    for (id, byte) in [(1, 0xaa), (2, 0xbb)] {
        let of: Vec<_> = out.iter().filter(|frame| place(frame).0 == id).cloned().collect();
        assert_eq!(read(&put_together(&of)).payload, vec![byte; 3000]);
    }
}

/// UDP without a checksum stays without, in fragments too.
#[test]
fn n44_27_no_checksum_stays_none() {
    let mut lab = Lab::default_lab();
    let mut frame = fragmentable(&udp(INSIDE, end(H), end(S), &payload(2000)), 9);
    frame[40..42].fill(0);
    let out = pass_all(&mut lab, INSIDE, &cut_up(&frame, &[100]), OUTSIDE);
    assert_eq!(put_together(&out)[40..42], [0, 0]);
}

/// A host that only a port forward translates: the forward's datagrams are, in any order; its others leave as they came.
#[test]
fn n44_27_behind_a_forward_alone() {
    for order in ORDERS {
        let forwards = vec![forward(ForwardProtocol::Udp, "203.0.113.5", 80..=80, end("192.168.1.10:80"))];
        let mut lab = Lab::new(Spec { nat44: Vec::new(), forwards, ..spec() });
        for (from, seen_from) in [("192.168.1.10:80", "203.0.113.5:80"), ("192.168.1.10:81", "192.168.1.10:81")] {
            let whole = fragmentable(&udp(INSIDE, end(from), end(S), &payload(3000)), 9);
            let out = pass_all(&mut lab, INSIDE, &ordered(&cut_up(&whole, &[171, 300]), order), OUTSIDE);
            assert_eq!(read(&put_together(&out)).source, end(seen_from), "{order:?}");
        }
    }
}

/// Of other protocols fragments are dropped as whole packets are, at once; and so are such as nothing could lead in.
#[test]
fn n44_27_what_is_not_translated_does_not_wait() {
    let mut lab = Lab::default_lab();
    let gre = |frame: &[u8]| with_header(frame, |header| header.protocol = etherparse::IpNumber(47));
    let inside = cut_up(&udp(INSIDE, end(H), end(S), &payload(3000)), &[171, 300]);
    let outside = cut_up(&udp(OUTSIDE, end(S), end(EXTERNAL), &payload(3000)), &[171, 300]);
    for nth in 0..3 {
        lab.dropped(INSIDE, &gre(&inside[nth]), Drop::Protocol);
        lab.dropped(OUTSIDE, &gre(&outside[nth]), Drop::Protocol);
    }
    // A first fragment to a port that nobody has; those after it have a name to go by, and are dropped by it.
    for fragment in &outside {
        lab.dropped(OUTSIDE, fragment, Drop::Unsolicited);
    }
    assert_eq!(lab.counters.held.get(), 0);
}

/// The filtering that applies to whole packets applies to fragments.
#[test]
fn n44_27_filtered() {
    let mut lab = Lab::default_lab();
    lab.udp_out(end(H), end(S));
    for fragment in cut_up(&udp(OUTSIDE, end("198.18.0.9:9"), end(EXTERNAL), &payload(3000)), &[171, 300]) {
        lab.dropped(OUTSIDE, &fragment, Drop::Filtered);
    }
}

/// A fragment that has been given its ports, and waits for a neighbour, still has them when it goes on.
#[test]
fn n44_27_fragments_wait_for_their_neighbour() {
    for order in ORDERS {
        let mut lab = Lab::default_lab();
        lab.resolving = false;
        let whole = fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9);
        let fragments = ordered(&cut_up(&whole, &[171, 300]), order);
        assert!(lab.send_all(INSIDE, &fragments).frames.is_empty());
        assert_eq!((lab.counters.held.get(), lab.counters.fragments_held.get()), (3, 0));
        lab.wait_secs(30);
        lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Reachable(common::PEER));
        let out: Vec<_> = lab.run().frames.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(offsets(&out), offsets(&fragments));
        assert_eq!(read(&put_together(&out)).source, end(EXTERNAL));
    }
}

/// What waits for the first fragment has waited in vain when a neighbour fails: only the first fragment is answered about.
#[test]
fn n44_27_a_neighbour_fails() {
    let mut lab = Lab::default_lab();
    lab.resolving = false;
    let fragments = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9), &[171, 300]);
    lab.send_all(INSIDE, &fragments);
    lab.resolving = true;
    lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Failed);
    let seen = lab.run();
    assert_eq!(seen.frames.len(), 1, "one error");
    assert_eq!(lab.counters.drops(Drop::NeighbourFailed), 3);
}

/// Of the fragments of a datagram whose hops run out the first is answered about, quoted as its sender sent it (RTR-02).
#[test]
fn rtr_02_only_the_first_fragment_is_answered() {
    let mut lab = Lab::default_lab();
    let fragments = cut_up(&fragmentable(&udp_ttl(INSIDE, end(H), end(S), &payload(3000), 1), 9), &[171, 300]);
    let seen = lab.send_all(INSIDE, &fragments);
    let [(INSIDE, answer)] = &seen.frames[..] else { panic!("one answer: {seen:?}") };
    let answer = common::read_error(answer);
    assert_eq!((answer.kind, answer.code), (11, 0));
    assert_eq!(answer.quote, fragments[0][14..14 + answer.quote.len()]);
    assert_eq!(lab.counters.drops(Drop::TtlExceeded), 3);
}

/// ICM-08: an error that quotes a first fragment is translated like any other.
#[test]
fn icm_08_errors_about_first_fragments() {
    let mut lab = Lab::default_lab();
    let fragments = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(2000)), 9), &[171]);
    let out = pass_all(&mut lab, INSIDE, &fragments, OUTSIDE);
    // Fragment reassembly time exceeded (RFC 792).
    let answer = error(OUTSIDE, end(S).0, 11, 1, &out[0][14..]);
    let seen = common::read_error(&lab.pass(OUTSIDE, &answer, INSIDE));
    assert_eq!((seen.kind, seen.code), (11, 1));
    // The quote is what the host sent, but for the hop and for the identification that the datagram left with.
    let mut expected = fragments[0][14..42].to_vec();
    expected[8] -= 1;
    expected[4..6].copy_from_slice(&out[0][18..20]);
    let mut quote = seen.quote.clone();
    for header in [&mut expected, &mut quote] {
        header[10..12].fill(0);
    }
    assert_eq!(quote, expected);
}

// --- Bounds -----------------------------------------------------------------------------------------------------------

/// N44-28: 100,000 fragments without a first one, to the same address as everybody's flows: what waits stays bounded, in number
/// and in bytes; no whole packet of an established flow is lost, and no fragment that comes in order.
#[test]
fn n44_28_floods_hurt_nobody() {
    let limits = Limits { fragments: 128, ..spec().limits };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    lab.udp_out(end(H), end(S));
    let flood = udp(OUTSIDE, end("198.18.7.7:7"), end(EXTERNAL), &payload(1400));
    let (_, body) = etherparse::Ipv4Header::from_slice(&flood[14..]).unwrap();
    let mut sent = 0u64;
    for round in 0..1000u32 {
        let address = Ipv4Addr::from_bits(0xc613_0000 + round);
        let burst: Vec<_> = (0..100u16)
            .map(|nth| {
                let from = with_header(&flood, |header| header.source = address.octets());
                part(&from, 10 + nth, true, body, nth)
            })
            .collect();
        lab.send_all(OUTSIDE, &burst);
        sent += 100;
        assert!(lab.counters.fragments_held.get() <= 128);
        assert!(lab.udp_in(end(S), end(EXTERNAL), end(H)), "whole packets pass");
        let id = round as u16;
        let datagram = fragmentable(&udp(OUTSIDE, end(S), end(EXTERNAL), &payload(3000)), id);
        let mut out = Vec::new();
        for fragment in cut_up(&datagram, &[171, 300]) {
            out.push(lab.pass(OUTSIDE, &fragment, INSIDE));
        }
        assert_eq!(read(&put_together(&out)).payload, payload(3000));
    }
    let lost = lab.counters.drops(Drop::FragmentQueueFull);
    assert_eq!(lost + lab.counters.fragments_held.get(), sent, "{:?}", lab.drops());
    lab.wait_secs(6);
    assert_eq!((lab.counters.held.get(), lab.counters.fragments_held.get()), (0, 0));
    assert_eq!(lab.counters.drops(Drop::FragmentTimeout) + lost, sent);
}

/// N44-28: a flood of first fragments to an open port does not stop those that come in order either.
#[test]
fn n44_28_floods_of_first_fragments() {
    let limits = Limits { fragments: 64, ..spec().limits };
    let mut lab = Lab::new(Spec { limits, ..with_rule(filtering(Filtering::EndpointIndependent)) });
    lab.udp_out(end(H), end(S));
    for round in 0..300u16 {
        let burst: Vec<_> = (0..32u16)
            .map(|nth| {
                let from = (Ipv4Addr::from_bits(0xc613_0000 + u32::from(round)), 7);
                let frame = udp(OUTSIDE, from, end(EXTERNAL), &payload(64));
                cut_up(&fragmentable(&frame, nth), &[2]).remove(0)
            })
            .collect();
        lab.send_all(OUTSIDE, &burst);
        let datagram = fragmentable(&udp(OUTSIDE, end(S), end(EXTERNAL), &payload(3000)), round);
        let out = pass_all(&mut lab, OUTSIDE, &cut_up(&datagram, &[171, 300]), INSIDE);
        assert_eq!(read(&put_together(&out)).payload, payload(3000));
    }
}

/// N44-28, N64-06's bound: fragments wait as long as the configuration says, 5 s by itself, and are then dropped by their name;
/// nobody is told, for nobody has the first fragment (RFC 792).
#[test]
fn n44_28_age() {
    for (age, configured) in
        [(5000, None), (2000, Some(Duration::from_secs(2))), (60_000, Some(Duration::from_secs(60)))]
    {
        let mut spec = spec();
        if let Some(configured) = configured {
            spec.timers.fragment = configured;
        }
        for (wait, passes) in [(age - 1, true), (age, false)] {
            let mut lab = Lab::new(spec.clone());
            let fragments = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9), &[171, 300]);
            lab.send_all(INSIDE, &fragments[1..]);
            lab.wait(Duration::from_millis(wait));
            assert_eq!(lab.counters.drops(Drop::FragmentTimeout), if passes { 0 } else { 2 });
            let seen = lab.send(INSIDE, &fragments[0]);
            assert_eq!(seen.frames.len(), if passes { 3 } else { 1 });
            assert_eq!((lab.counters.originated.get(), lab.counters.held.get()), (0, 0));
        }
    }
}

/// The ports of a first fragment are remembered as long, and no longer: time is compared, whether or not anything ticks.
#[test]
fn n44_28_age_of_what_is_known() {
    for (wait, passes) in [(4999, true), (5000, false)] {
        let mut lab = Lab::default_lab();
        let fragments = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9), &[171, 300]);
        lab.pass(INSIDE, &fragments[0], OUTSIDE);
        lab.wait(Duration::from_millis(wait));
        let seen = lab.send(INSIDE, &fragments[1]);
        assert_eq!((seen.frames.len(), lab.counters.held.get()), if passes { (1, 0) } else { (0, 1) });
    }
}

/// Each shard has its share of the places: a host that floods takes none of another's.
#[test]
fn n44_28_a_host_floods_its_own_share() {
    let limits = Limits { fragments: 256, ..spec().limits };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    let mine = cut_up(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9), &[171, 300]);
    lab.send_all(INSIDE, &mine[1..]);
    let flood = cut_up(&udp(INSIDE, end(H2), end(S), &payload(3000)), &[171, 300]);
    for id in 0..500 {
        let (_, offset, more, body) = place(&flood[1]);
        lab.send(INSIDE, &part(&flood[1], offset as u16 / 8, more, &body, id));
    }
    assert_eq!(lab.counters.fragments_held.get(), 2 + 256 / 64);
    assert_eq!(lab.send(INSIDE, &mine[0]).frames.len(), 3);
}

// --- Hostile ----------------------------------------------------------------------------------------------------------

/// N44-29: a first fragment without its whole transport header (RFC 1858 §3), of each protocol, whatever is behind it.
#[test]
fn n44_29_tiny_first_fragments() {
    let mut lab = Lab::default_lab();
    let syn = tcp(INSIDE, end(H), end(S), "S", 1, 0, &payload(60));
    let (datagram, query) = (udp(INSIDE, end(H), end(S), &payload(60)), echo(INSIDE, end(H).0, end(S).0, true, 7, 1));
    for (frame, headers) in [(&syn, &[8, 16][..]), (&datagram, &[0, 4]), (&query, &[0])] {
        for &len in headers {
            let tiny = part(frame, 0, true, &frame[34..34 + len], 9);
            lab.dropped(INSIDE, &tiny, Drop::FragmentTiny);
        }
    }
    lab.moved(moves().dropped("inside", Drop::FragmentTiny, 5));
    lab.pass(INSIDE, &part(&syn, 0, true, &syn[34..34 + 24], 9), OUTSIDE);
}

/// N44-29: a later fragment that would write over the transport header (RFC 1858 §4, RFC 3128).
#[test]
fn n44_29_fragments_that_write_over_the_header() {
    let mut lab = Lab::default_lab();
    let syn = tcp(INSIDE, end(H), end(S), "S", 1, 0, &payload(60));
    for (offset, more) in [(1, false), (1, true), (2, false), (2, true)] {
        lab.dropped(INSIDE, &part(&syn, offset, more, &payload(40), 9), Drop::FragmentOverwrite);
    }
    // Behind UDP's header 8 bytes on there is nothing to write over.
    assert!(lab.send(INSIDE, &part(&udp(INSIDE, end(H), end(S), b""), 1, false, &payload(40), 9)).frames.is_empty());
    assert_eq!(lab.counters.held.get(), 1);
}

/// N44-29: overlapping fragments (RFC 5722): nothing of a datagram passes once one has come, before or behind the first one,
/// and nothing that waited does.
#[test]
fn n44_29_overlapping_fragments() {
    let frame = udp(INSIDE, end(H), end(S), &payload(792));
    let piece = |from: u16, to: u16| {
        part(&frame, from, to < 100, &frame[34 + usize::from(from) * 8..34 + usize::from(to) * 8], 9)
    };
    for (good, bad) in [
        (vec![(0, 10), (10, 20)], (15, 25)),
        (vec![(0, 10), (20, 30)], (15, 21)),
        (vec![(0, 10), (20, 30)], (12, 40)),
        (vec![(20, 30), (40, 50)], (25, 45)),
        (vec![(20, 30)], (0, 21)),
        (vec![(0, 10), (90, 100)], (80, 95)),
    ] {
        let mut lab = Lab::default_lab();
        for &(from, to) in &good {
            lab.send(INSIDE, &piece(from, to));
        }
        let waiting = lab.counters.held.get();
        lab.send(INSIDE, &piece(bad.0, bad.1));
        assert_eq!(lab.counters.drops(Drop::FragmentOverlap), 1 + waiting, "{good:?} {bad:?}");
        for (from, to) in [(0, 10), (50, 60), (60, 100)] {
            assert!(lab.send(INSIDE, &piece(from, to)).frames.is_empty(), "{good:?} {bad:?}");
        }
        assert_eq!(lab.counters.held.get(), 0);
        // Another datagram is not affected.
        let other = cut_up(&fragmentable(&frame, 10), &[50]);
        pass_all(&mut lab, INSIDE, &other, OUTSIDE);
    }
}

/// N44-29: beyond the end of a datagram there is nothing, and it has one end.
#[test]
fn n44_29_beyond_the_end() {
    let frame = udp(INSIDE, end(H), end(S), &payload(792));
    for pieces in
        [[(50, false), (60, true)], [(60, true), (50, false)], [(50, false), (60, false)], [(60, false), (50, false)]]
    {
        let mut lab = Lab::default_lab();
        lab.pass(INSIDE, &part(&frame, 0, true, &frame[34..34 + 80], 9), OUTSIDE);
        let [first, second] = pieces.map(|(offset, more)| part(&frame, offset, more, &payload(80), 9));
        lab.pass(INSIDE, &first, OUTSIDE);
        lab.dropped(INSIDE, &second, Drop::FragmentOverlap);
        lab.dropped(INSIDE, &part(&frame, 20, true, &payload(80), 9), Drop::FragmentOverlap);
    }
}

/// N44-29: a fragment that a network has doubled is dropped, and the others of its datagram pass.
#[test]
fn n44_29_repeated_fragments() {
    for order in ORDERS {
        let mut lab = Lab::default_lab();
        let whole = fragmentable(&udp(INSIDE, end(H), end(S), &payload(3000)), 9);
        let fragments = ordered(&cut_up(&whole, &[171, 300]), order);
        let doubled = [&fragments[0], &fragments[0], &fragments[1], &fragments[0], &fragments[1], &fragments[2]];
        let seen = lab.send_all(INSIDE, &doubled.map(Clone::clone));
        let out: Vec<_> = seen.frames.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(read(&put_together(&out)).payload, payload(3000), "{order:?}");
        assert_eq!(lab.counters.drops(Drop::FragmentOverlap), 3);
    }
}

/// N44-29: lengths that no sender would cut (RFC 791 §3.2): empty, broken off within 8 bytes, beyond the largest datagram.
#[test]
fn n44_29_impossible_lengths() {
    let mut lab = Lab::default_lab();
    for interface in [INSIDE, OUTSIDE] {
        let frame = if interface == INSIDE {
            udp(INSIDE, end(H), end(S), b"")
        } else {
            udp(OUTSIDE, end(S), end(EXTERNAL), b"")
        };
        for (offset, more, len) in
            [(10, true, 0), (10, false, 0), (10, true, 9), (10, true, 15), (8190, false, 8), (8000, true, 1528)]
        {
            lab.dropped(interface, &part(&frame, offset, more, &payload(len), 9), Drop::FragmentLength);
        }
        let mut first = part(&frame, 0, true, &payload(9), 9);
        first[34..42].copy_from_slice(&frame[34..42]);
        lab.dropped(interface, &first, Drop::FragmentLength);
    }
    assert_eq!(lab.counters.held.get(), 0);
}

/// N44-29: a datagram in more pieces, with more gaps between them, than are remembered loses those.
#[test]
fn n44_29_too_many_gaps() {
    let limits = Limits { fragments: 64 * 64, ..spec().limits };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    let whole = fragmentable(&udp(INSIDE, end(H), end(S), &payload(8000)), 9);
    let fragments = cut_up(&whole, &(1..100).map(|at| at * 10).collect::<Vec<_>>());
    for fragment in fragments.iter().skip(1).step_by(2) {
        lab.send(INSIDE, fragment);
    }
    let (held, refused) = (lab.counters.fragments_held.get(), lab.counters.drops(Drop::FragmentQueueFull));
    assert!(held >= 12 && held + refused == 50, "{held} {refused}");
}

// --- Identifications --------------------------------------------------------------------------------------------------

/// N44-30: two inside hosts send fragments with equal identifications to one server, which puts together what each has sent.
#[test]
fn n44_30_equal_identifications_of_two_hosts() {
    let mut lab = Lab::default_lab();
    let datagrams: Vec<_> = (0..20u16)
        .flat_map(|id| [(H, 0xaa), (H2, 0xbb)].map(|(host, byte)| (id % 4, host, byte)))
        .map(|(id, host, byte)| cut_up(&fragmentable(&udp(INSIDE, end(host), end(S), &vec![byte; 2500]), id), &[171]))
        .collect();
    // All first fragments of a round, then all second ones.
    let mut out = Vec::new();
    for round in datagrams.chunks(8) {
        for nth in 0..2 {
            out.extend(round.iter().map(|fragments| lab.pass(INSIDE, &fragments[nth], OUTSIDE)));
        }
    }
    let ids: HashSet<u16> = out.iter().map(|frame| place(frame).0).collect();
    assert_eq!(ids.len(), 40, "every datagram its own");
    for id in ids {
        let of: Vec<_> = out.iter().filter(|frame| place(frame).0 == id).cloned().collect();
        let payload = read(&put_together(&of)).payload;
        assert!(payload == vec![0xaa; 2500] || payload == vec![0xbb; 2500]);
    }
}

/// N44-30: whole datagrams that may be cut up on the way get one too; atomic ones keep what they have (RFC 6864 §4.1), and so
/// does all that comes from outside.
#[test]
fn n44_30_what_gets_an_identification() {
    let mut lab = Lab::default_lab();
    let mut seen = HashSet::new();
    for host in [H, H2] {
        for _ in 0..400 {
            let out = lab.pass(INSIDE, &fragmentable(&udp(INSIDE, end(host), end(S), b"x"), 7), OUTSIDE);
            read(&out);
            // Both hosts have the same external address.
            assert!(seen.insert(place(&out).0));
        }
    }
    let atomic = with_header(&udp(INSIDE, end(H), end(S), b"x"), |header| header.identification = 0xbeef);
    assert_eq!(place(&lab.pass(INSIDE, &atomic, OUTSIDE)).0, 0xbeef);
    let inbound = fragmentable(&udp(OUTSIDE, end(S), end(EXTERNAL), b"x"), 0xbeef);
    assert_eq!(place(&lab.pass(OUTSIDE, &inbound, INSIDE)).0, 0xbeef);
}

/// N44-30: an identification has the shard of the inside host in its upper bits, so that no two workers choose the same.
#[test]
fn n44_30_identifications_carry_the_shard() {
    let mut lab = Lab::default_lab();
    for host in 2..100 {
        let host = Ipv4Addr::new(192, 168, 1, host);
        let out = lab.pass(INSIDE, &fragmentable(&udp(INSIDE, (host, 9), end(S), b"x"), 7), OUTSIDE);
        assert_eq!(place(&out).0 >> 10, u16::from(dataplane::steer::shard_of4(host.to_bits()).0));
    }
}

// --- Too large for the next link --------------------------------------------------------------------------------------

/// A gateway whose links take no more than this.
fn narrow(inside: u16, outside: u16) -> Spec {
    let mut spec = spec();
    (spec.interfaces[0].mtu, spec.interfaces[1].mtu) = (inside, outside);
    spec
}

/// N44-26: 1500 bytes over a link that takes 1400: two fragments, in order, with offsets that rise; put together they are the
/// datagram, translated, with one identification. So it is both ways, and routed.
#[test]
fn n44_26_cut_for_the_next_link() {
    let mut lab = Lab::new(narrow(1400, 1400));
    let data = payload(1472);
    lab.udp_out(end(H), end(S));
    lab.recount();
    let unruled = end("10.0.0.9:4000");
    for (from, frame, to, source, destination) in [
        (INSIDE, udp(INSIDE, end(H), end(S), &data), OUTSIDE, end(EXTERNAL), end(S)),
        (OUTSIDE, udp(OUTSIDE, end(S), end(EXTERNAL), &data), INSIDE, end(S), end(H)),
        (INSIDE, udp(INSIDE, unruled, end(S), &data), OUTSIDE, unruled, end(S)),
    ] {
        let seen = lab.send(from, &fragmentable(&frame, 0x1234));
        let out: Vec<_> = seen.frames.iter().map(|(_, frame)| frame.clone()).collect();
        assert!(seen.frames.iter().all(|(interface, _)| *interface == to));
        assert_eq!(offsets(&out), [0, 1376]);
        assert!(out.iter().all(|frame| frame.len() <= 14 + 1400 && read(frame).ttl == 63));
        let whole = read(&put_together(&out));
        assert_eq!((whole.source, whole.destination, whole.payload), (source, destination, data.clone()));
        if source != end(EXTERNAL) {
            assert_eq!(place(&out[0]).0, 0x1234);
        }
    }
    let all = moves().outbound(1).inbound(1).and("received", 1).and("inside-received", 1).and("routed4", 1);
    let sent = all.and("transmitted", 4).and("outside-transmitted", 3).and("inside-transmitted", 1);
    lab.moved(sent.and("originated", 3).and("cut", 3).and("pieces", 6));
}

/// N44-26: fragments that are too large are cut up further, and keep their places, whichever comes first.
#[test]
fn n44_26_fragments_are_cut_further() {
    for order in ORDERS {
        let mut lab = Lab::new(narrow(1500, 600));
        let whole = fragmentable(&udp(INSIDE, end(H), end(S), &payload(4000)), 9);
        let seen = lab.send_all(INSIDE, &ordered(&cut_up(&whole, &[171, 340]), order));
        let out: Vec<_> = seen.frames.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(out.len(), 9);
        let whole = read(&put_together(&out));
        assert_eq!((whole.source, whole.payload), (end(EXTERNAL), payload(4000)));
        assert_eq!(lab.sessions(), 1);
    }
}

/// N44-26: options that are to be copied are in every fragment, the others in the first (RFC 791 §3.1).
#[test]
fn n44_26_options() {
    let mut lab = Lab::new(narrow(1500, 600));
    let frame = with_header(&fragmentable(&udp(INSIDE, end(H), end(S), &payload(1000)), 9), |header| {
        // Router alert (copied), record route (not).
        header.options = [0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0][..].try_into().unwrap();
    });
    let out: Vec<_> = lab.send(INSIDE, &frame).frames.into_iter().map(|(_, frame)| frame).collect();
    let headers: Vec<_> = out.iter().map(|frame| etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0).collect();
    assert_eq!(headers.iter().map(|header| header.options.len()).collect::<Vec<_>>(), [12, 4]);
    assert_eq!(headers[1].options[..], [0x94, 4, 0, 0]);
    assert_eq!(place(&out[1]).1, 568);
}

/// N44-26: on a VLAN every fragment has the tag.
#[test]
fn n44_26_tags() {
    let mut spec = narrow(1500, 1400);
    spec.interfaces[1].vlan = Some(30);
    let mut lab = Lab::new(spec);
    let seen = lab.send(INSIDE, &fragmentable(&udp(INSIDE, end(H), end(S), &payload(1472)), 9));
    assert_eq!(seen.frames.len(), 2);
    for (_, frame) in &seen.frames {
        assert_eq!(common::tags(frame), [(0x8100, 30)]);
        read(frame);
    }
    let back = udp(OUTSIDE, end(S), read(&seen.frames[0].1).source, &payload(10));
    let _ = lab.send(OUTSIDE, &tagged(&back, 30));
}

/// N44-26: down to the least that a link may take (RFC 791); what would be more than 32 fragments is refused by its name.
#[test]
fn n44_26_the_smallest_link() {
    let mut lab = Lab::new(narrow(9000, 68));
    let seen = lab.send(INSIDE, &fragmentable(&udp(INSIDE, end(H), end(S), &payload(1472)), 9));
    let out: Vec<_> = seen.frames.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(out.len(), 31);
    assert_eq!(read(&put_together(&out)).payload, payload(1472));
    let large = fragmentable(&udp(INSIDE, end(H), end(S), &payload(1600)), 9);
    lab.dropped(INSIDE, &large, Drop::FragmentationNeeded);
}

/// N44-26: without buffers for the fragments nothing of the datagram leaves.
#[test]
fn n44_26_no_buffer() {
    let mut lab = Lab::new(narrow(1500, 576));
    lab.udp_out(end(H), end(S));
    let mut taken = Vec::new();
    while lab.pool.free() > 1 {
        taken.push(lab.pool.alloc().expect("a packet"));
    }
    lab.recount();
    let large = fragmentable(&udp(INSIDE, end(H), end(S), &payload(1472)), 9);
    lab.dropped(INSIDE, &large, Drop::PoolEmpty);
    lab.moved(moves().dropped("inside", Drop::PoolEmpty, 1).and("nat44-out", 1));
    drop(taken);
    assert_eq!(lab.send(INSIDE, &large).frames.len(), 3);
}

/// N44-26: a packet that is to be cut up waits for its neighbour as it came.
#[test]
fn n44_26_waits_for_its_neighbour() {
    let mut lab = Lab::new(narrow(1500, 1400));
    lab.resolving = false;
    let large = fragmentable(&udp(INSIDE, end(H), end(S), &payload(1472)), 9);
    assert!(lab.send(INSIDE, &large).frames.is_empty());
    assert_eq!((lab.counters.held.get(), lab.sessions()), (1, 0));
    lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Reachable(common::PEER));
    let out: Vec<_> = lab.run().frames.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(read(&put_together(&out)).payload, payload(1472));
}

/// A rule that does not preserve ports gives the fragments of a flow its port, as it gives it to whole packets.
#[test]
fn n44_27_other_ports() {
    let mut lab = Lab::new(with_rule(dataplane::plan::Nat44Rule { port_preservation: false, ..rule() }));
    let out = pass_all(&mut lab, INSIDE, &cut_up(&udp(INSIDE, end(H), end(S), &payload(3000)), &[180, 300]), OUTSIDE);
    let seen = read(&put_together(&out));
    assert_ne!(seen.source.1, 4000);
    assert_eq!(lab.udp_out(end(H), end(S)), seen.source);
    let back = cut_up(&udp(OUTSIDE, end(S), seen.source, &payload(3000)), &[150, 250]);
    assert_eq!(read(&put_together(&pass_all(&mut lab, OUTSIDE, &back, INSIDE))).destination, end(H));
}
