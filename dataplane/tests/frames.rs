//! Frames that the gateway has no use for, and those for many stations: each kind has one reason, and moves nothing else.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv6Addr;

use common::moves::moves;
use common::scene::{tagged, with_header};
use common::{End, INSIDE, Lab, OUTSIDE, PEER, end, ethernet, icmp6, prefix, spec, tcp, udp, udp6};
use dataplane::counters::Drop;
use dataplane::packet::HeapPacket;
use dataplane::plan::{InterfaceSpec, Spec};

/// All stations.
const EVERYONE: [u8; 6] = [0xff; 6];

/// The rig's gateway; its inside interface has 10.9.0.1/16 and fd00:9::1/64 too, which no rule covers.
fn gateway() -> Spec {
    let mut spec = spec();
    spec.interfaces[0].addresses.extend([prefix("10.9.0.1/16"), prefix("fd00:9::1/64")]);
    spec
}

fn unruled() -> End {
    end("10.9.0.7:4000")
}

fn server() -> End {
    end("198.18.0.1:53")
}

fn host6() -> (Ipv6Addr, u16) {
    ("fd00:1::10".parse().unwrap(), 4000)
}

fn server6() -> (Ipv6Addr, u16) {
    ("2001:db8:5::1".parse().unwrap(), 53)
}

/// The frame to another Ethernet address.
fn to(address: [u8; 6], frame: Vec<u8>) -> Vec<u8> {
    [&address[..], &frame[6..]].concat()
}

/// The frame comes in on the inside, and is dropped for this reason; nothing else happens.
#[track_caller]
fn dropped(lab: &mut Lab, frame: &[u8], reason: Drop) {
    lab.dropped(INSIDE, frame, reason);
    lab.moved(moves().dropped("inside", reason, 1));
}

/// Frames as stations and switches send them unasked, from their destination on.
fn chatter() -> Vec<(&'static str, Vec<u8>, Drop)> {
    let frame = |to: [u8; 6], rest: &[u8]| {
        let mut frame = [&to[..], &PEER.0, rest].concat();
        frame.resize(frame.len().max(60), 0);
        frame
    };
    let bridges = |last: u8| [1, 0x80, 0xc2, 0, 0, last];
    let length = |content: &[u8]| [&(content.len() as u16).to_be_bytes()[..], content].concat();
    // LLC to SAP 0x42, a configuration BPDU of a root bridge (IEEE 802.1D §9.3.1).
    let bpdu = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0, 0x80, 0][..], &PEER.0, &[0; 4], &[0x80, 0], &PEER.0].concat();
    let bpdu = [&bpdu[..], &[0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]].concat();
    let ppp = [0x11, 0, 0, 1, 0, 6, 0xc0, 0x21, 9, 1, 0, 4];
    let labelled = [&[0x88, 0x47, 0, 0x10, 0x01, 0x40][..], &udp(INSIDE, unruled(), server(), b"")[14..]].concat();
    vec![
        // IEEE 802.1AB §8.2: chassis, port, time to live, end.
        (
            "LLDP",
            frame(bridges(14), b"\x88\xcc\x02\x07\x04\x02\0\0\0\xaa\xaa\x04\x02\x07a\x06\x02\0\x78\0\0"),
            Drop::LinkControl,
        ),
        (
            "LLDP to the nearest customer bridge",
            frame(bridges(0), b"\x88\xcc\x02\x07\x04\x02\0\0\0\xaa\xaa"),
            Drop::LinkControl,
        ),
        ("LACP", frame(bridges(2), &[0x88, 0x09, 1, 1, 1, 20, 0x80, 0]), Drop::LinkControl),
        ("pause", frame(bridges(1), &[0x88, 0x08, 0, 1, 0xff, 0xff]), Drop::LinkControl),
        ("802.1X", frame(bridges(3), &[0x88, 0x8e, 1, 1, 0, 0]), Drop::LinkControl),
        ("spanning tree", frame(bridges(0), &length(&bpdu)), Drop::LengthFrame),
        // LLC and SNAP, organisation 00000c, protocol 0x2000.
        (
            "CDP",
            frame([1, 0, 0x0c, 0xcc, 0xcc, 0xcc], &length(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 2, 180])),
            Drop::LengthFrame,
        ),
        ("a full length frame", frame(EVERYONE, &[0x05, 0xdc, 0xe0, 0xe0, 3]), Drop::LengthFrame),
        ("the undefined types below 0x600", frame(EVERYONE, &[0x05, 0xff]), Drop::LengthFrame),
        ("MPLS", frame(common::MACS[0].0, &labelled), Drop::Mpls),
        // RFC 5332 §4.
        ("MPLS multicast", frame([1, 0, 0x5e, 0x80, 0, 1], &[&[0x88, 0x48], &labelled[2..]].concat()), Drop::Mpls),
        ("PPPoE discovery", frame(EVERYONE, &[0x88, 0x63, 0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0]), Drop::Pppoe),
        ("PPPoE session", frame(common::MACS[0].0, &[&[0x88, 0x64], &ppp[..]].concat()), Drop::Pppoe),
        ("RARP", frame(EVERYONE, &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]), Drop::NotIp),
        ("Wake-on-LAN", frame(EVERYONE, &[0x08, 0x42, 0xff, 0xff, 0xff]), Drop::NotIp),
        ("PTP", frame(bridges(14), &[0x88, 0xf7, 0, 2]), Drop::NotIp),
        ("the smallest type", frame(EVERYONE, &[0x06, 0x00]), Drop::NotIp),
    ]
}

/// What switches and other stations say among themselves: one reason for each kind, whether the frame is for a group or for
/// the gateway alone, whatever its length; none is answered, and none reaches the host.
#[test]
fn frames_that_are_not_ip_are_dropped_by_name() {
    let mut lab = Lab::new(gateway());
    for (what, frame, reason) in chatter() {
        println!("{what}");
        dropped(&mut lab, &frame, reason);
        dropped(&mut lab, &to(common::MACS[0].0, frame.clone()), reason);
        dropped(&mut lab, &to(EVERYONE, frame.clone()), reason);
        dropped(&mut lab, &frame[..14], reason);
        // For another station it is none of our business what it is.
        dropped(&mut lab, &to([2, 0, 0, 0, 0, 9], frame), Drop::OtherStation);
    }
}

/// The same behind tags: an interface that has the VLAN counts them, and of an unknown VLAN nothing else is looked at.
#[test]
fn tagged_frames_that_are_not_ip_are_dropped_by_name() {
    let mut spec = gateway();
    let guests = InterfaceSpec {
        name: "guests".into(),
        vlan: Some(20),
        addresses: vec![prefix("192.168.20.1/24")],
        ..spec.interfaces[0].clone()
    };
    spec.interfaces.push(guests);
    let mut lab = Lab::new(spec);
    for (what, frame, reason) in chatter() {
        println!("{what}");
        lab.dropped(INSIDE, &tagged(&frame, 20), reason);
        lab.moved(moves().dropped("guests", reason, 1));
        lab.dropped(INSIDE, &tagged(&frame, 21), Drop::UnknownVlan);
        lab.counted("received, drop-unknown-vlan");
    }
}

/// A port that has tagged interfaces only: an untagged frame belongs to none, whatever it is.
#[test]
fn an_untagged_frame_on_a_tagged_port_is_of_an_unknown_vlan() {
    let mut spec = gateway();
    spec.interfaces[0].vlan = Some(20);
    let mut lab = Lab::new(spec);
    let ip = ("IP", udp(INSIDE, unruled(), server(), b""), Drop::UnknownVlan);
    let arp = ("ARP", to(EVERYONE, ethernet(INSIDE, 0x0806, &[0; 46])), Drop::UnknownVlan);
    for (what, frame, _) in chatter().into_iter().chain([ip, arp]) {
        println!("{what}");
        lab.dropped(INSIDE, &frame, Drop::UnknownVlan);
        lab.counted("received, drop-unknown-vlan");
    }
}

/// IPv4 multicast, of every scope and protocol, by multicast frames or not, from hosts that are translated or not, and from
/// those that have no address yet (IGMP of a snooping switch, RFC 4541 §2.1.1): it is not forwarded (FW-01, RFC 1812 §5.3.4).
#[test]
fn ipv4_multicast_is_dropped_by_name() {
    let mut lab = Lab::new(gateway());
    for group in
        ["224.0.0.1", "224.0.0.5", "224.0.0.251", "232.1.2.3", "233.252.0.1", "239.255.255.250", "239.255.255.255"]
    {
        let group = end(&format!("{group}:5353"));
        let [_, b, c, d] = group.0.octets();
        let mac = [1, 0, 0x5e, b & 0x7f, c, d]; // RFC 1112 §6.4
        for source in ["192.168.1.10:5353", "10.9.0.7:5353", "0.0.0.0:5353", "169.254.1.1:5353"] {
            let frame = udp(INSIDE, end(source), group, b"");
            dropped(&mut lab, &frame, Drop::Multicast);
            dropped(&mut lab, &to(mac, frame.clone()), Drop::Multicast);
            dropped(&mut lab, &to(EVERYONE, frame.clone()), Drop::Multicast);
            // IGMP, PIM, OSPF, and a TTL of 1, which is not answered.
            for protocol in [2, 103, 89] {
                let frame = with_header(&frame, |ip| (ip.protocol, ip.time_to_live) = (protocol.into(), 1));
                dropped(&mut lab, &to(mac, frame), Drop::Multicast);
            }
        }
    }
    // From outside too.
    lab.dropped(OUTSIDE, &udp(OUTSIDE, server(), end("239.1.2.3:9"), b""), Drop::Multicast);
    lab.moved(moves().dropped("outside", Drop::Multicast, 1));
}

/// The limited broadcast, as DHCP uses it, and the broadcast addresses of every network of the gateway's, from near and far
/// (RFC 1812 §5.3.5, RFC 2644), by broadcast frames or not.
#[test]
fn ipv4_broadcasts_are_dropped_by_name() {
    let mut lab = Lab::new(gateway());
    for broadcast in ["255.255.255.255", "192.168.1.255", "10.9.255.255", "10.9.0.0", "198.51.100.255", "198.51.100.0"]
    {
        for source in ["192.168.1.10:68", "10.9.0.7:68"] {
            let frame = udp(INSIDE, end(source), end(&format!("{broadcast}:67")), b"");
            dropped(&mut lab, &frame, Drop::Broadcast);
            dropped(&mut lab, &to(EVERYONE, frame.clone()), Drop::Broadcast);
            dropped(&mut lab, &to([1, 0, 0x5e, 0, 0, 1], frame), Drop::Broadcast);
        }
        let frame = udp(OUTSIDE, server(), end(&format!("{broadcast}:67")), b"");
        lab.dropped(OUTSIDE, &frame, Drop::Broadcast);
        lab.moved(moves().dropped("outside", Drop::Broadcast, 1));
    }
    let discover = to(EVERYONE, udp(INSIDE, end("0.0.0.0:68"), end("255.255.255.255:67"), b""));
    dropped(&mut lab, &discover, Drop::Broadcast);
    // To one host from nowhere is another matter, and so is the rest of 240.0.0.0/4.
    dropped(&mut lab, &udp(INSIDE, end("0.0.0.0:68"), server(), b""), Drop::BadSource);
    dropped(&mut lab, &udp(INSIDE, unruled(), end("255.255.255.254:67"), b""), Drop::BadDestination);
}

/// An IP packet for one host in a frame for many is not forwarded (RFC 1812 §5.3.4, §5.3.5), and does not reach the gateway
/// itself (RFC 1122 §3.3.6), in both families; whether it is for a neighbour, for a network behind a router, for the gateway
/// or for a mapping that exists.
#[test]
fn frames_for_many_with_packets_for_one_are_dropped_by_name() {
    let mut lab = Lab::new(gateway());
    let source = end("192.168.1.10:4000");
    lab.udp_out(source, server());
    lab.recount();
    for group in [EVERYONE, [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1]] {
        for destination in ["198.18.0.1:53", "10.9.0.9:53", "192.168.1.1:53", "203.0.113.5:53"] {
            for from in [source, unruled()] {
                dropped(&mut lab, &to(group, udp(INSIDE, from, end(destination), b"")), Drop::LinkBroadcast);
                dropped(&mut lab, &to(group, tcp(INSIDE, from, end(destination), "S", 1, 0, b"")), Drop::LinkBroadcast);
            }
        }
        let last = with_header(&udp(INSIDE, unruled(), server(), b""), |ip| ip.time_to_live = 1);
        dropped(&mut lab, &to(group, last), Drop::LinkBroadcast);
        let frame = to(group, udp(OUTSIDE, server(), end("203.0.113.5:4000"), b""));
        lab.dropped(OUTSIDE, &frame, Drop::LinkBroadcast);
        lab.moved(moves().dropped("outside", Drop::LinkBroadcast, 1));
        for destination in ["2001:db8:5::1", "fd00:1::1", "fd00:9::9", "fe80::ff:fe00:1"] {
            let destination: Ipv6Addr = destination.parse().unwrap();
            dropped(&mut lab, &to(group, udp6(INSIDE, host6(), (destination, 53), b"", 64)), Drop::LinkBroadcast);
            let ping = icmp6(INSIDE, host6().0, destination, 128, 0, [0; 4], b"");
            dropped(&mut lab, &to(group, ping), Drop::LinkBroadcast);
        }
    }
    // To us alone they pass.
    lab.pass(INSIDE, &udp6(INSIDE, host6(), server6(), b"", 64), OUTSIDE);
}

/// IPv6 multicast by its scope (RFC 4291 §2.7, RFC 7346): none of it is forwarded; what is of the link and ICMPv6 (neighbour
/// discovery, MLD, pings) is for the host; scope 0 is reserved, and scope 1 is on no link.
#[test]
fn ipv6_multicast_is_judged_by_its_scope() {
    let mut lab = Lab::new(gateway());
    for flags in [0, 1, 3, 7] {
        for scope in 0..=15u16 {
            let group = Ipv6Addr::new(0xff00 | flags << 4 | scope, 0, 0, 0, 0, 0, 0, 1);
            let mac = [0x33, 0x33, 0, 0, 0, 1]; // RFC 2464 §7
            let reason = if scope < 2 { Drop::BadDestination } else { Drop::Multicast };
            let datagram = udp6(INSIDE, host6(), (group, 5353), b"", 1);
            let ping = icmp6(INSIDE, host6().0, group, 128, 0, [0; 4], b"ping");
            for frame in [datagram.clone(), to(mac, datagram)] {
                println!("UDP to {group}");
                dropped(&mut lab, &frame, reason);
            }
            for frame in [ping.clone(), to(mac, ping)] {
                println!("ping {group}");
                if scope == 2 {
                    assert_eq!(lab.send(INSIDE, &frame).punted, [(INSIDE, frame)]);
                    lab.counted("received, inside-received, punted");
                } else {
                    dropped(&mut lab, &frame, reason);
                }
            }
        }
    }
    // The gateway tests addresses for uniqueness, and so do others: from ::, to the group of the address.
    let test = icmp6(INSIDE, Ipv6Addr::UNSPECIFIED, "ff02::1:ff00:7".parse().unwrap(), 135, 0, [0; 4], &[0; 16]);
    let test = to([0x33, 0x33, 0xff, 0, 0, 7], test);
    assert_eq!(lab.send(INSIDE, &test).punted, [(INSIDE, test)]);
    lab.counted("received, inside-received, punted");
    // A multicast source is none.
    let source = ("ff02::1".parse().unwrap(), 9);
    dropped(&mut lab, &udp6(INSIDE, source, server6(), b"", 64), Drop::BadSource);
}

/// A frame that its sender has left to hardware to cut into segments, or that hardware has merged, is none that was on a link: it
/// goes nowhere, whatever its size.
#[test]
fn a_frame_of_several_tcp_segments_is_dropped_by_name() {
    let mut lab = Lab::default_lab();
    // Of a flow that is there already.
    let (host, server) = (end("192.168.1.10:4000"), end("198.18.0.1:80"));
    lab.pass(INSIDE, &tcp(INSIDE, host, server, "S", 1, 0, b""), OUTSIDE);
    lab.recount();
    for len in [0, 100, 1400, 1800] {
        let segment = tcp(INSIDE, host, server, "S", 1, 0, &vec![0; len]);
        lab.arrive(INSIDE, [HeapPacket::from_frame(&segment).as_merged()]);
        assert!(lab.run().frames.is_empty());
        lab.counted("received, drop-unsegmented");
    }
}
