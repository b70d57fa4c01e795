//! Faults: wrong checksums on receive, and everything that can run out. Each has a counter, leaves what is there already
//! alone, and ends by itself.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use common::scene::{filtering, with_header, with_pool};
use common::{End, INSIDE, Lab, OUTSIDE, PEER, echo, end, icmp6, pool, read, spec, tcp, udp, udp_ttl, udp6, with_ip};
use dataplane::counters::Drop;
use dataplane::message::{NeighbourState, ToWorker};
use dataplane::packet::{HeapPacket, PacketPool};
use dataplane::plan::{Filtering, InterfaceId, Limits, Spec};

const H: &str = "192.168.1.10:4000";
const S: &str = "198.18.0.1:1000";

// --- Wrong transport checksums ----------------------------------------------------------------------------------------

/// So many received packets for one that is looked at.
const SAMPLE: usize = 61;

/// Samples and wrong ones among them, of an interface.
fn samples(lab: &Lab, interface: InterfaceId) -> (u64, u64) {
    let counters = &lab.counters.interfaces[usize::from(interface.0)];
    (counters.checksum_samples.get(), counters.checksum_bad.get())
}

/// How often a frame's checksum is looked at and found wrong, when each packet is such a frame and one is looked at.
fn judged(frame: &[u8]) -> (u64, u64) {
    let mut lab = Lab::default_lab();
    lab.send_all(INSIDE, &vec![frame.to_vec(); SAMPLE]);
    assert_eq!(samples(&lab, OUTSIDE), (0, 0));
    samples(&lab, INSIDE)
}

/// The frame with one bit of it changed.
fn damaged(frame: &[u8], at: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] ^= 4;
    frame
}

/// What has a transport checksum is judged by it: TCP, UDP and ICMP of both families, with options, padding and lengths of
/// any kind; etherparse has made them. With any bit wrong they are wrong.
#[test]
fn checksums_are_judged_right() {
    let (h6, s6): (Ipv6Addr, Ipv6Addr) = ("fd00:1::10".parse().unwrap(), "2001:db8:5::1".parse().unwrap());
    let plain = udp(INSIDE, end(H), end(S), b"odd");
    let segment = tcp(INSIDE, end(H), end(S), "S", 1, 0, b"");
    let options = with_header(&segment, |header| header.options = [1, 1, 1, 0].into());
    // What lies between UDP's end and IP's is covered by nothing.
    let slack = with_ip([&plain[..], &[0xee; 7]].concat(), |ip| ip[3] += 7);
    for (frame, end) in [
        (plain.clone(), plain.len()),
        (slack, plain.len()),
        (segment.clone(), segment.len()),
        ([&segment[..], &[0xee; 6]].concat(), segment.len()),
        (options.clone(), options.len()),
        (tcp(INSIDE, end(H), end(S), "PA", 1, 1, &[0xff; 1400]), 54 + 1400),
        (echo(INSIDE, end(H).0, end(S).0, true, 7, 1), 42 + 8),
        (udp6(INSIDE, (h6, 1), (s6, 2), b"odd", 64), 62 + 3),
        (icmp6(INSIDE, h6, s6, 128, 0, [0, 7, 0, 1], b"ping"), 62 + 4),
    ] {
        assert_eq!(judged(&frame), (1, 0), "{frame:02x?}");
        for at in [end - 1, end - 4] {
            assert_eq!(judged(&damaged(&frame, at)), (1, 1), "{frame:02x?}, byte {at}");
        }
    }
}

/// What has no checksum, or none that can be looked at, is not counted.
#[test]
fn what_has_no_checksum_is_not_judged() {
    let plain = udp(INSIDE, end(H), end(S), b"no checksum");
    let without = with_ip(plain.clone(), |ip| ip[26..28].fill(0));
    let first = with_header(&plain, |header| header.more_fragments = true);
    let later = with_header(&plain, |header| header.fragment_offset = 5.try_into().unwrap());
    let other = with_header(&plain, |header| header.protocol = 47.into());
    let for_others = damaged(&damaged(&plain, 0), plain.len() - 1);
    for frame in [without, first, later, other, for_others, damaged(&plain, 20)] {
        assert_eq!(judged(&frame), (0, 0), "{frame:02x?}");
    }
}

/// Wrong ones are forwarded all the same; one in 61 is looked at, however they come in bursts, and by interface.
#[test]
fn one_packet_in_sixty_one_is_looked_at() {
    let right = udp(INSIDE, end(H), end(S), b"right");
    let wrong = damaged(&right, right.len() - 1);
    for cut in [1, 7, 32] {
        let mut lab = Lab::default_lab();
        let external = lab.udp_out(end(H), end(S)); // the first is looked at
        for burst in vec![wrong.clone(); 10 * SAMPLE].chunks(cut) {
            assert_eq!(lab.send_all(INSIDE, burst).frames.len(), burst.len());
        }
        assert_eq!(samples(&lab, INSIDE), (11, 10), "in bursts of {cut}");
        assert!(lab.udp_in(end(S), external, end(H)));
        assert_eq!(samples(&lab, OUTSIDE), (0, 0));
        let back = udp(OUTSIDE, end(S), external, b"back");
        lab.send_all(OUTSIDE, &vec![back; SAMPLE]);
        assert_eq!(samples(&lab, OUTSIDE), (1, 0));
    }
    // Every second packet is wrong: so is every second of those looked at.
    let mut lab = Lab::default_lab();
    lab.send_all(INSIDE, &[right, wrong].into_iter().cycle().take(2 * SAMPLE).collect::<Vec<_>>());
    assert_eq!(samples(&lab, INSIDE), (2, 1));
}

/// A device that found a checksum right is believed, one that found it wrong is not: there are some that say so of UDP
/// without a checksum. What came unfinished has been finished here, and is right.
#[test]
fn the_word_of_the_device() {
    use dataplane::packet::RxChecksum::{Bad, Good, Partial, Unknown};
    let right = udp(INSIDE, end(H), end(S), b"right");
    let wrong = damaged(&right, right.len() - 1);
    let without = with_ip(right.clone(), |ip| ip[26..28].fill(0));
    for (frame, word, counted) in [
        (&right, Good, (1, 0)),
        (&right, Bad, (1, 0)),
        (&right, Unknown, (1, 0)),
        (&right, Partial, (1, 0)),
        (&wrong, Good, (1, 0)),
        (&wrong, Bad, (1, 1)),
        (&wrong, Unknown, (1, 1)),
        (&without, Bad, (0, 0)),
        (&without, Good, (0, 0)),
    ] {
        let mut lab = Lab::default_lab();
        lab.arrive(INSIDE, [HeapPacket::from_frame(frame).with_rx_checksum(word)]);
        lab.run();
        assert_eq!(samples(&lab, INSIDE), counted, "{word:?}");
    }
}

// --- What can run out -------------------------------------------------------------------------------------------------

/// Something that can be full.
struct Full {
    spec: Spec,
    /// So many flows fit.
    room: u16,
    reason: Drop,
}

/// The `n`th flow, of a host of its own.
fn flow(n: u16) -> Vec<u8> {
    udp(INSIDE, (Ipv4Addr::new(192, 168, 1, 100 + n as u8), 5000 + n), end(S), b"flow")
}

/// CGN-16, CGN-09, D2: a full session table, a full mapping table, an exhausted pool. Each time: who is in goes on, both ways;
/// who comes is refused, told so by ICMP 3/1 about its own packet, and counted; when the flows have ended as many others
/// get in, and all is as it was; three times over.
#[test]
fn full_tables_and_pools_recover() {
    let limits = |sessions, mappings| Limits { sessions, mappings, ..spec().limits };
    for Full { spec, room, reason } in [
        Full { spec: Spec { limits: limits(50, 1000), ..spec() }, room: 50, reason: Drop::SessionTableFull },
        Full { spec: Spec { limits: limits(1000, 50), ..spec() }, room: 50, reason: Drop::MappingTableFull },
        Full { spec: with_pool(pool(&["203.0.113.5"], 2048..=2048)), room: 1, reason: Drop::NoPort },
    ] {
        let mut lab = Lab::new(spec);
        let at_rest = lab.worker.engine().arenas().free();
        for round in 0..3 {
            let seen: Vec<End> = (0..room).map(|n| read(&lab.pass(INSIDE, &flow(n), OUTSIDE)).source).collect();
            assert_eq!(lab.sessions(), u64::from(room));
            for n in room..room + 20 {
                let answer = lab.refused(INSIDE, &flow(n), reason);
                assert_eq!((answer.protocol, &answer.transport[..2]), (1, &[3, 1][..]), "{reason:?}, round {round}");
                assert_eq!(answer.transport[8..], flow(n)[14..], "about what was refused");
            }
            for (n, external) in (0..room).zip(&seen) {
                assert_eq!(read(&lab.pass(INSIDE, &flow(n), OUTSIDE)).source, *external);
                assert!(lab.arrives(&udp(OUTSIDE, end(S), *external, b"back")).is_some());
            }
            lab.wait_secs(301);
            assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
            assert_eq!(lab.worker.engine().arenas().free(), at_rest);
            assert_eq!(lab.leases.ports_used(0), [0; 3]);
        }
    }
}

/// The same with room made by one flow that ends while others stay: exactly one other gets in.
#[test]
fn each_flow_that_ends_makes_room_for_one() {
    let mut spec = Spec { limits: Limits { sessions: 3, ..spec().limits }, ..spec() };
    spec.timers.udp_ports = vec![(53, Duration::from_secs(10))];
    let mut lab = Lab::new(spec);
    lab.pass(INSIDE, &flow(0), OUTSIDE);
    lab.pass(INSIDE, &flow(1), OUTSIDE);
    lab.udp_out(end(H), end("198.18.0.1:53"));
    lab.refused(INSIDE, &flow(2), Drop::SessionTableFull);
    lab.wait_secs(11);
    lab.pass(INSIDE, &flow(2), OUTSIDE);
    lab.refused(INSIDE, &flow(3), Drop::SessionTableFull);
    for n in 0..3 {
        lab.pass(INSIDE, &flow(n), OUTSIDE);
    }
}

/// A gateway that knows its router and the inside host, and asks for others.
fn strangers(limits: Limits) -> Lab {
    let mut lab = Lab::new(Spec { limits, ..spec() });
    lab.resolving = false;
    lab.neighbour(INSIDE, end(H).0.into(), NeighbourState::Reachable(PEER));
    lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.run();
    lab
}

/// A neighbour on the outside network, and a packet for it.
fn stranger(n: u8) -> (IpAddr, Vec<u8>) {
    let address = Ipv4Addr::new(198, 51, 100, 100 + n);
    (address.into(), udp(INSIDE, end(H), (address, 9), b"for a neighbour"))
}

/// A full neighbour table: traffic to the neighbours that it holds goes on; those that do not fit are refused and counted;
/// when one has failed, another finds room. Five times over.
#[test]
fn a_full_neighbour_table_recovers() {
    let mut lab = strangers(Limits { neighbours: 4, ..spec().limits });
    for round in 0..5 {
        let asked: Vec<_> = (0..2).map(stranger).collect();
        for (address, frame) in &asked {
            assert_eq!(lab.send(INSIDE, frame).resolve, [(OUTSIDE, *address)], "round {round}");
        }
        for n in 2..10 {
            lab.dropped(INSIDE, &stranger(n).1, Drop::NeighbourTableFull);
        }
        lab.udp_out(end(H), end(S));
        for (address, _) in &asked {
            lab.neighbour(OUTSIDE, *address, NeighbourState::Failed);
        }
        assert_eq!(lab.run().frames.len(), 2, "each sender is told");
        let (address, frame) = stranger(20);
        assert_eq!(lab.send(INSIDE, &frame).resolve, [(OUTSIDE, address)]);
        lab.neighbour(OUTSIDE, address, NeighbourState::Reachable(PEER));
        assert_eq!(lab.run().frames.len(), 1);
        lab.neighbour(OUTSIDE, address, NeighbourState::Failed);
        lab.run();
    }
}

/// All places for packets that wait are taken: traffic to known neighbours goes on, what would have to wait is dropped and
/// counted, and places that become free are used again. Five times over.
#[test]
fn a_full_hold_queue_recovers() {
    let mut lab = strangers(Limits { held: 6, held_per_neighbour: 3, ..spec().limits });
    for _ in 0..5 {
        for n in 0..2 {
            lab.send_all(INSIDE, &vec![stranger(n).1; 3]);
        }
        assert_eq!(lab.counters.held.get(), 6);
        lab.dropped(INSIDE, &stranger(0).1, Drop::NeighbourQueueFull);
        lab.dropped(INSIDE, &stranger(2).1, Drop::NeighbourQueueFull);
        let external = lab.udp_out(end(H), end(S));
        assert!(lab.udp_in(end(S), external, end(H)));
        for n in 0..3 {
            lab.neighbour(OUTSIDE, stranger(n).0, NeighbourState::Reachable(PEER));
        }
        assert_eq!((lab.run().frames.len(), lab.counters.held.get()), (6, 0));
        for n in 0..3 {
            lab.pass(INSIDE, &stranger(n).1, OUTSIDE);
            lab.neighbour(OUTSIDE, stranger(n).0, NeighbourState::Failed);
        }
        lab.run();
    }
}

/// No buffer is free for what the gateway itself sends: what crosses it goes on, new flows included; errors that can't be
/// sent and packets of the host are counted by name; and with buffers all is as before.
#[test]
fn an_empty_packet_pool_recovers() {
    let mut lab = Lab::new(Spec { nat44: vec![filtering(Filtering::EndpointIndependent)], ..spec() });
    let external = lab.udp_out(end(H), end(S));
    let expired = udp_ttl(INSIDE, end(H), end(S), b"", 1);
    let reply = || {
        let packet = echo(INSIDE, Ipv4Addr::new(192, 168, 1, 1), end(H).0, false, 1, 1)[14..].into();
        ToWorker::Packet { packet }
    };
    for round in 0..3 {
        let mut pool = lab.pool.clone();
        let taken: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        lab.dropped(INSIDE, &expired, Drop::TtlExceeded);
        lab.to_worker.send(reply()).unwrap();
        assert!(lab.run().frames.is_empty());
        assert_eq!(
            (lab.counters.originate_failures.get(), lab.counters.drops(Drop::PoolEmpty)),
            (round + 1, round + 1)
        );
        assert!(lab.udp_in(end(S), external, end(H)));
        lab.pass(INSIDE, &flow(round as u16), OUTSIDE);
        drop(taken);
        assert_eq!(lab.refused(INSIDE, &expired, Drop::TtlExceeded).transport[..2], [11, 0]);
        lab.to_worker.send(reply()).unwrap();
        assert_eq!(lab.run().frames.len(), 1);
    }
}
