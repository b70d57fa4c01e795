//! 802.1Q and 802.1ad: several interfaces on one port, untagged, with one tag, and with two.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use common::recycled::RecycledPool;
use common::{
    End, INSIDE, Lab, MACS, OUTSIDE, PEER, echo, end, ethernet, prefix, read, read_error, spec, tcp, udp, udp_ttl,
};
use dataplane::counters::{Counters, Drop};
use dataplane::engine::{Engine, Output, Received};
use dataplane::message::ToWorker;
use dataplane::packet::{HeapPacket, RxChecksum};
use dataplane::plan::{InterfaceId, InterfaceSpec, NextHop, Plan, PortId, RouteSpec, Spec, ZoneId};
use dataplane::pool::Leases;
use dataplane::time::Time;

/// Guests, inside, on VLAN 20 of the inside port.
const GUESTS: InterfaceId = InterfaceId(2);
/// A customer, inside, on VLAN 20 within service VLAN 200 of the inside port.
const CUSTOMER: InterfaceId = InterfaceId(4);
/// Another, on the same VLAN within another service VLAN.
const OTHER: InterfaceId = InterfaceId(5);
/// A second uplink, outside, on VLAN 30 of the inside port: 198.51.101.2/24, with the route to 198.19.0.0/16.
const STICK: InterfaceId = InterfaceId(3);

fn trunk() -> Spec {
    let mut spec = spec();
    let on_lan = |name: &str, outer_vlan, vlan, zone, address: &str| InterfaceSpec {
        name: name.into(),
        vlan: Some(vlan),
        outer_vlan,
        zone: ZoneId(zone),
        addresses: vec![prefix(address)],
        ..spec.interfaces[0].clone()
    };
    spec.interfaces.extend([
        on_lan("guests", None, 20, 0, "192.168.20.1/24"),
        on_lan("stick", None, 30, 1, "198.51.101.2/24"),
        on_lan("customer", Some(200), 20, 0, "192.168.30.1/24"),
        on_lan("other", Some(300), 20, 0, "192.168.40.1/24"),
    ]);
    let next_hop = NextHop::Via("198.51.101.1".parse().unwrap(), STICK);
    spec.routes.push(RouteSpec { prefix: prefix("198.19.0.0/16"), next_hop });
    spec
}

fn lab() -> Lab {
    Lab::knowing(
        trunk(),
        &[
            (INSIDE, "192.168.1.10"),
            (GUESTS, "192.168.20.7"),
            (CUSTOMER, "192.168.30.7"),
            (OTHER, "192.168.40.7"),
            (OUTSIDE, "198.51.100.1"),
            (STICK, "198.51.101.1"),
        ],
    )
}

/// The frame with an 802.1Q tag: priority and drop eligibility in the upper four bits.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

/// The frame with two tags: the outer one of this type.
fn twice_tagged(frame: &[u8], kind: u16, outer: u16, inner: u16) -> Vec<u8> {
    let tags = [kind, outer, 0x8100, inner].map(u16::to_be_bytes).concat();
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// The link-layer header of a frame from the gateway's inside port to a neighbour of a customer, by IEEE 802.1Q §9.5: a
/// service tag, with type 0x88a8, around the customer's, with type 0x8100.
fn service_header(outer: u16) -> Vec<u8> {
    [&PEER.0[..], &MACS[0].0, &[0x88, 0xa8], &outer.to_be_bytes(), &[0x81, 0, 0, 20, 8, 0]].concat()
}

fn customer() -> End {
    end("192.168.30.7:4000")
}

/// The link-layer header of a frame from the gateway's port to a neighbour.
fn header(port: usize, vlan: Option<u8>) -> Vec<u8> {
    let tag: &[u8] = match vlan {
        Some(vlan) => &[0x81, 0, 0, vlan, 8, 0],
        None => &[8, 0],
    };
    [&PEER.0, &MACS[port].0, tag].concat()
}

fn host() -> End {
    end("192.168.1.10:4000")
}

fn guest() -> End {
    end("192.168.20.7:4000")
}

fn server() -> End {
    end("198.18.0.1:53")
}

/// Translation between a tagged interface and an untagged one: the tag goes, and comes back.
#[test]
fn a_tagged_host_is_translated_to_an_untagged_uplink() {
    let mut lab = lab();
    let out = lab.pass(GUESTS, &tagged(&udp(INSIDE, guest(), server(), b"there"), 20), OUTSIDE);
    assert_eq!(out[..14], header(1, None));
    let seen = read(&out);
    assert_eq!((seen.source, &seen.payload[..]), (end("203.0.113.5:4000"), &b"there"[..]));
    lab.counted(
        "received, guests-received, nat44-out, transmitted, outside-transmitted, session-creations,
         sessions-udp-active, mapping-creations, mappings-udp",
    );
    let back = lab.pass(OUTSIDE, &udp(OUTSIDE, server(), seen.source, b"back"), GUESTS);
    assert_eq!(back[..18], header(0, Some(20)));
    let seen = read(&back);
    assert_eq!((seen.source, seen.destination, &seen.payload[..]), (server(), guest(), &b"back"[..]));
    lab.counted("received, outside-received, nat44-in, transmitted, guests-transmitted");
    // The tag takes nothing from the MTU.
    let full = tagged(&udp(INSIDE, guest(), server(), &[7; 1472]), 20);
    assert_eq!(lab.pass(GUESTS, &full, OUTSIDE).len(), 1514);
    let full = udp(OUTSIDE, server(), end("203.0.113.5:4000"), &[7; 1472]);
    assert_eq!(lab.pass(OUTSIDE, &full, GUESTS).len(), 1518);
}

/// N44-33: NAT on a stick: in and out of one port, by two VLANs, and from the untagged interface.
#[test]
fn n44_33_nat_on_a_stick() {
    let mut lab = lab();
    let far = end("198.19.0.1:80");
    for (interface, from, vlan) in [(GUESTS, guest(), Some(20)), (INSIDE, host(), None)] {
        let syn = tcp(INSIDE, from, far, "S", 1, 0, b"");
        let out = lab.pass(interface, &vlan.map_or(syn.clone(), |vlan| tagged(&syn, u16::from(vlan))), STICK);
        assert_eq!(out[..18], header(0, Some(30)));
        let seen = read(&out);
        assert_eq!((seen.source.0, seen.destination), (Ipv4Addr::new(203, 0, 113, 5), far));
        let answer = tagged(&tcp(INSIDE, far, seen.source, "SA", 1, 2, b""), 30);
        let back = lab.pass(STICK, &answer, interface);
        let header = header(0, vlan);
        assert_eq!(back[..header.len()], header);
        assert_eq!(read(&back).destination, from);
    }
    // The same server by way of the wrong VLAN is a stranger's packet from inside.
    lab.dropped(GUESTS, &tagged(&udp(INSIDE, far, end("203.0.113.5:4000"), b""), 20), Drop::Hairpin);
}

/// Between two inside networks of one port nothing is translated; the tags are exchanged.
#[test]
fn routing_between_vlans() {
    let mut lab = lab();
    let out = lab.pass(GUESTS, &tagged(&udp(INSIDE, guest(), host(), b"hi"), 20), INSIDE);
    assert_eq!(out[..14], header(0, None));
    assert_eq!((read(&out).source, read(&out).destination), (guest(), host()));
    let out = lab.pass(INSIDE, &udp(INSIDE, host(), guest(), b"hi"), GUESTS);
    assert_eq!(out[..18], header(0, Some(20)));
    lab.counted(
        "received 2, guests-received, inside-received, routed4 2, transmitted 2, inside-transmitted,
         guests-transmitted",
    );
}

/// A VLAN that no interface has, on either port.
#[test]
fn an_unknown_vlan_is_dropped_by_name() {
    let mut lab = lab();
    let frame = udp(INSIDE, host(), server(), b"");
    for vlan in [1, 19, 21, 4094, 4095] {
        lab.dropped(INSIDE, &tagged(&frame, vlan), Drop::UnknownVlan);
        lab.counted("received, drop-unknown-vlan");
    }
    // Known on the other port only.
    lab.dropped(OUTSIDE, &tagged(&udp(OUTSIDE, server(), host(), b""), 20), Drop::UnknownVlan);
}

/// A frame with VLAN 0 has a priority and no VLAN (IEEE 802.1Q §9.6): it is the untagged interface's. The priority of a
/// tagged frame does not matter.
#[test]
fn a_priority_tag_is_no_vlan() {
    let mut lab = lab();
    let frame = udp(INSIDE, host(), server(), b"");
    let out = lab.pass(INSIDE, &tagged(&frame, 0xa000), OUTSIDE);
    assert_eq!(out[..14], header(1, None));
    lab.counted(
        "received, inside-received, nat44-out, transmitted, outside-transmitted, session-creations,
         sessions-udp-active, mapping-creations, mappings-udp",
    );
    let out = lab.pass(INSIDE, &tagged(&udp(INSIDE, host(), guest(), b""), 0xe000), GUESTS);
    assert_eq!(out[..18], header(0, Some(20)));
    lab.pass(GUESTS, &tagged(&udp(INSIDE, guest(), server(), b""), 0xf000 | 20), OUTSIDE);
}

/// Tags that are cut short.
#[test]
fn malformed_tags_are_dropped_by_name() {
    let mut lab = lab();
    let frame = tagged(&udp(INSIDE, guest(), server(), b"payload"), 20);
    for len in 0..frame.len() {
        let reason = match len {
            0..18 => Drop::FrameShort,
            18..38 => Drop::IpHeader,
            _ => Drop::IpLength,
        };
        lab.dropped(GUESTS, &frame[..len], reason);
    }
    lab.recount();
    let frame = twice_tagged(&udp(INSIDE, customer(), server(), b"payload"), 0x88a8, 200, 20);
    for len in 14..frame.len() {
        let reason = match len {
            0..22 => Drop::FrameShort,
            22..42 => Drop::IpHeader,
            _ => Drop::IpLength,
        };
        lab.dropped(CUSTOMER, &frame[..len], reason);
        let ingress = if len < 22 { "" } else { "customer-received, " };
        lab.counted(&format!("received, {ingress}drop-{}", reason.name()));
    }
}

/// QinQ: translation between a customer's interface and an untagged uplink. What comes may have any of the three types that
/// outer tags have; what goes has 802.1ad's. The tags take nothing from the MTU.
#[test]
fn a_doubly_tagged_host_is_translated_to_an_untagged_uplink() {
    let mut lab = lab();
    let frame = udp(INSIDE, customer(), server(), b"there");
    let out = lab.pass(CUSTOMER, &twice_tagged(&frame, 0x88a8, 200, 20), OUTSIDE);
    assert_eq!(out[..14], header(1, None));
    let seen = read(&out);
    assert_eq!((seen.source, &seen.payload[..]), (end("203.0.113.5:4000"), &b"there"[..]));
    lab.counted(
        "received, customer-received, nat44-out, transmitted, outside-transmitted, session-creations,
         sessions-udp-active, mapping-creations, mappings-udp",
    );
    for (kind, priorities) in [(0x88a8, 0xe000), (0x9100, 0x3000), (0x8100, 0)] {
        let frame = twice_tagged(&frame, kind, priorities | 200, priorities | 20);
        assert_eq!(lab.pass(CUSTOMER, &frame, OUTSIDE), out);
        lab.counted("received, customer-received, nat44-out, transmitted, outside-transmitted");
    }
    let back = lab.pass(OUTSIDE, &udp(OUTSIDE, server(), seen.source, b"back"), CUSTOMER);
    assert_eq!(back[..22], service_header(200));
    let seen = read(&back);
    assert_eq!((seen.source, seen.destination, &seen.payload[..]), (server(), customer(), &b"back"[..]));
    lab.counted("received, outside-received, nat44-in, transmitted, customer-transmitted");
    let full = udp(INSIDE, customer(), server(), &[7; 1472]);
    assert_eq!(lab.pass(CUSTOMER, &twice_tagged(&full, 0x88a8, 200, 20), OUTSIDE).len(), 1514);
    let full = udp(OUTSIDE, server(), end("203.0.113.5:4000"), &[7; 1472]);
    assert_eq!(lab.pass(OUTSIDE, &full, CUSTOMER).len(), 1522);
}

/// QinQ: customers of different service VLANs may use the same VLAN, and one of the port's own may be the same too.
#[test]
fn routing_between_service_vlans() {
    let mut lab = lab();
    let other = end("192.168.40.7:9");
    let frame = twice_tagged(&udp(INSIDE, customer(), other, b"hi"), 0x88a8, 200, 20);
    assert_eq!(lab.pass(CUSTOMER, &frame, OTHER)[..22], service_header(300));
    let frame = twice_tagged(&udp(INSIDE, other, guest(), b"hi"), 0x88a8, 300, 20);
    assert_eq!(lab.pass(OTHER, &frame, GUESTS)[..18], header(0, Some(20)));
    let frame = tagged(&udp(INSIDE, guest(), customer(), b"hi"), 20);
    assert_eq!(lab.pass(GUESTS, &frame, CUSTOMER)[..22], service_header(200));
    lab.counted(
        "received 3, customer-received, other-received, guests-received, routed4 3, transmitted 3, customer-transmitted,
         other-transmitted, guests-transmitted",
    );
}

/// Tags that no interface has: a service tag alone, with or without the VLAN of an interface; the customer's without the
/// service tag around it, or within another; both the other way round; three. And their priority-tagged relatives.
#[test]
fn unknown_pairs_of_tags_are_dropped_by_name() {
    let mut lab = lab();
    let frame = udp(INSIDE, customer(), server(), b"");
    let with = |tags: &[u16]| {
        [&frame[..12], &tags.iter().copied().flat_map(u16::to_be_bytes).collect::<Vec<_>>(), &frame[12..]].concat()
    };
    for tags in [
        &[0x88a8, 200][..],
        &[0x9100, 200],
        &[0x88a8, 20],
        &[0x8100, 200],
        &[0x88a8, 201, 0x8100, 20],
        &[0x88a8, 200, 0x8100, 21],
        &[0x88a8, 20, 0x8100, 200],
        &[0x8100, 20, 0x8100, 30],
        &[0x88a8, 200, 0x88a8, 20],
        &[0x8100, 200, 0x9100, 20],
        &[0x88a8, 4095, 0x8100, 4095],
        &[0x88a8, 200, 0x8100, 0],
        &[0x88a8, 200, 0x8100, 20, 0x8100, 20],
        &[0x88a8, 200, 0x8100, 20, 0x88a8, 0],
        &[0x8100, 20, 0x8100, 20, 0x8100, 20],
    ] {
        println!("{tags:04x?}");
        lab.dropped(CUSTOMER, &with(tags), Drop::UnknownVlan);
        lab.counted("received, drop-unknown-vlan");
    }
    // Identifier 0 is no VLAN, wherever it stands.
    for tags in [&[0x88a8, 0][..], &[0x8100, 0], &[0x88a8, 0, 0x8100, 0], &[0x9100, 0x6000, 0x8100, 0xe000]] {
        lab.pass(INSIDE, &with(tags), OUTSIDE);
    }
    for tags in [&[0x88a8, 0, 0x8100, 20][..], &[0x8100, 20, 0x8100, 0], &[0x8100, 0, 0x8100, 20]] {
        lab.pass(GUESTS, &with(tags), OUTSIDE);
    }
    // All of them one flow: only the interface that it comes by differs.
    lab.counted(
        "received 7, inside-received 4, guests-received 3, nat44-out 7, transmitted 7, outside-transmitted 7,
         session-creations, sessions-udp-active, mapping-creations, mappings-udp",
    );
}

/// Both tags are gone from what the host sees, and on what it sends; the gateway's errors have them.
#[test]
fn the_host_sees_no_service_tags_either() {
    let mut lab = lab();
    let mut arp = ethernet(INSIDE, 0x0806, &[9; 46]);
    arp[..6].fill(0xff);
    let address = Ipv4Addr::new(192, 168, 30, 1);
    let ping = echo(INSIDE, customer().0, address, true, 1, 1);
    for frame in [arp.clone(), ping] {
        let seen = lab.send(CUSTOMER, &twice_tagged(&frame, 0x88a8, 200, 20));
        assert_eq!(seen.punted, [(CUSTOMER, frame)]);
        lab.counted("received, customer-received, punted");
    }
    arp[6..12].copy_from_slice(&MACS[0].0);
    lab.to_worker.send(ToWorker::Frame { interface: CUSTOMER, frame: arp.clone().into() }).unwrap();
    assert_eq!(lab.run().frames, [(CUSTOMER, twice_tagged(&arp, 0x88a8, 200, 20))]);
    let pong = echo(INSIDE, address, customer().0, false, 1, 1);
    lab.to_worker.send(ToWorker::Packet { packet: pong[14..].into() }).unwrap();
    assert_eq!(lab.run().frames, [(CUSTOMER, [&service_header(200), &pong[14..]].concat())]);
    lab.counted("from-host 2, transmitted 2, customer-transmitted 2");
    let probe = udp_ttl(INSIDE, customer(), server(), b"probe", 1);
    let out = lab.pass(CUSTOMER, &twice_tagged(&probe, 0x88a8, 200, 20), CUSTOMER);
    assert_eq!(out[..22], service_header(200));
    let it = read_error(&[&out[..12], &out[20..]].concat());
    assert_eq!((it.source, it.kind, it.code), (address.into(), 11, 0));
    assert_eq!(it.quote, probe[14..]);
}

/// QinQ: a checksum that the sender has left to hardware is finished behind two tags too.
#[test]
fn an_unfinished_checksum_behind_two_tags_is_finished() {
    let mut lab = lab();
    let whole = udp(INSIDE, customer(), server(), b"unfinished");
    let expected = lab.pass(CUSTOMER, &twice_tagged(&whole, 0x88a8, 200, 20), OUTSIDE);
    let mut frame = whole;
    // The sum of the pseudo-header (RFC 768), not inverted: addresses, protocol, length.
    let words = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
    let sum: u32 = words.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    let packet = HeapPacket::from_frame(&twice_tagged(&frame, 0x88a8, 200, 20));
    lab.arrive(CUSTOMER, [packet.with_rx_checksum(RxChecksum::Partial)]);
    assert_eq!(lab.run().frames, [(OUTSIDE, expected)]);
}

/// What is for the host comes to it untagged, with the interface beside it; what it sends gets the tag.
#[test]
fn the_host_sees_no_tags() {
    let mut lab = lab();
    let mut arp = ethernet(INSIDE, 0x0806, &[9; 46]);
    arp[..6].fill(0xff);
    let ping = echo(INSIDE, guest().0, Ipv4Addr::new(192, 168, 20, 1), true, 1, 1);
    for frame in [arp.clone(), ping] {
        let seen = lab.send(GUESTS, &tagged(&frame, 20));
        assert_eq!(seen.punted, [(GUESTS, frame)]);
        lab.counted("received, guests-received, punted");
    }
    arp[6..12].copy_from_slice(&MACS[0].0);
    lab.to_worker.send(ToWorker::Frame { interface: GUESTS, frame: arp.clone().into() }).unwrap();
    assert_eq!(lab.run().frames, [(GUESTS, tagged(&arp, 20))]);
    let pong = echo(INSIDE, Ipv4Addr::new(192, 168, 20, 1), guest().0, false, 1, 1);
    lab.to_worker.send(ToWorker::Packet { packet: pong[14..].into() }).unwrap();
    let expected = [&header(0, Some(20)), &pong[14..]].concat();
    assert_eq!(lab.run().frames, [(GUESTS, expected)]);
    lab.counted("from-host 2, transmitted 2, guests-transmitted 2");
}

/// The gateway's own errors come from the interface's address, with its tag.
#[test]
fn errors_are_tagged() {
    let mut lab = lab();
    let probe = udp_ttl(INSIDE, guest(), server(), b"probe", 1);
    let out = lab.pass(GUESTS, &tagged(&probe, 20), GUESTS);
    assert_eq!(out[..18], header(0, Some(20)));
    let untagged = [&out[..12], &out[16..]].concat();
    let it = read_error(&untagged);
    assert_eq!((it.source, it.kind, it.code), ("192.168.20.1".parse().unwrap(), 11, 0));
    assert_eq!(it.quote, probe[14..]);
}

/// A tagged packet waits for a neighbour on another VLAN, and leaves with that one's tag.
#[test]
fn a_packet_that_waits_gets_the_right_tag() {
    let mut lab = Lab::new(trunk());
    let frame = tagged(&udp(INSIDE, guest(), end("198.19.0.1:53"), b"later"), 20);
    let seen = lab.send(GUESTS, &frame);
    assert_eq!(seen.resolve, [(STICK, "198.51.101.1".parse().unwrap())]);
    let [(STICK, out)] = &seen.frames[..] else { panic!("one frame: {seen:?}") };
    assert_eq!(out[..18], header(0, Some(30)));
    assert_eq!(read(out).payload, b"later");
}

/// A frame in several buffers, which the packet path does not take, is dropped by name before a byte of it is read.
#[test]
fn several_segments_are_dropped_by_name() {
    let plan = Arc::new(Plan::compile(trunk()).unwrap());
    let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
    let leases = Arc::new(Leases::new(&plan));
    let mut engine = Engine::new(plan, leases, Arc::clone(&counters), Time::from_secs(1));
    let mut pool = RecycledPool::new(1);
    let mut packet = pool.packet(&udp(INSIDE, host(), server(), b""));
    packet.contiguous = false;
    let mut burst: Received<_> = [(PortId(0), packet)].into_iter().collect();
    let mut out = Output::new(&spec().limits);
    engine.process(&mut burst, Time::from_secs(1), &mut pool, &mut out);
    assert_eq!((out.transmit.len(), out.events.len(), out.dropped.len()), (0, 0, 1));
    assert_eq!((counters.drops(Drop::MultiSegment), counters.imbalance()), (1, 0));
    drop(out);
    assert_eq!(pool.free(), 1, "and its buffer is back");
}
