//! Hairpin: inside hosts that reach each other by their external addresses (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7,
//! RFC 7857 §12). In virtual time; etherparse is the other side.

#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;

use common::fragments::{ORDERS, cut_up, fragmentable, place, put_together};
use common::moves::moves;
use common::scene::{error, filtering, forward, one_to_one, with_header, with_pool, with_rule};
use common::{
    End, ErrorMessage, INSIDE, Lab, OUTSIDE, Read, echo, end, icmp, pool, prefix, read, read_error, tcp, udp, udp_ttl,
};
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::plan::{
    Filtering, ForwardProtocol, InterfaceId, InterfaceSpec, MssClamp, Nat44Rule, PortId, Spec, ZoneId,
};
use dataplane::trace::Disposal;

const H: &str = "192.168.1.10:4000";
const H2: &str = "192.168.1.20:5000";
const S: &str = "198.18.0.1:1000";
/// The external address that all hosts share.
const SHARED: &str = "203.0.113.5";
/// The host with an address of its own, inside and outside.
const MAIL: [&str; 2] = ["192.168.1.25", "203.0.113.60"];

/// A gateway whose mappings admit anyone, with a forward of port 80 to H's port 8000 and a static entry.
fn open() -> Spec {
    Spec {
        forwards: vec![forward(ForwardProtocol::Tcp, SHARED, 80..=80, end("192.168.1.10:8000"))],
        static_nat: vec![one_to_one(MAIL[1], MAIL[0])],
        ..with_rule(filtering(Filtering::EndpointIndependent))
    }
}

fn mail(side: usize, port: u16) -> End {
    (MAIL[side].parse().unwrap(), port)
}

/// A frame from inside is delivered inside.
#[track_caller]
fn delivered(lab: &mut Lab, frame: &[u8]) -> Read {
    read(&lab.pass(INSIDE, frame, INSIDE))
}

// --- UDP --------------------------------------------------------------------------------------------------------------

/// N44-20: both ends see the other one as the world does: by its external address and port. Received once, one hop, one
/// translation each way.
#[test]
fn n44_20_both_ends_see_external_addresses() {
    let mut lab = Lab::new(open());
    // What STUN tells them.
    let (a, b) = (lab.udp_out(end(H), end(S)), lab.udp_out(end(H2), end(S)));
    lab.recount();
    let there = delivered(&mut lab, &udp(INSIDE, end(H), b, b"there"));
    assert_eq!((there.source, there.destination, there.ttl, &there.payload[..]), (a, end(H2), 63, &b"there"[..]));
    lab.moved(moves().hairpinned(1).and("session-creations", 2).and("sessions-udp-active", 2));
    let back = delivered(&mut lab, &udp(INSIDE, end(H2), a, b"back"));
    assert_eq!((back.source, back.destination, back.ttl, &back.payload[..]), (b, end(H), 63, &b"back"[..]));
    lab.moved(moves().hairpinned(1));
    // And they go on as long as they are used.
    for _ in 0..10 {
        lab.wait_secs(200);
        delivered(&mut lab, &udp(INSIDE, end(H), b, b"there"));
    }
    let story = lab.stories().pop().expect("a story");
    assert_eq!(story.disposal, Disposal::Transmit(INSIDE));
    let after = story.after.expect("it was translated");
    assert_eq!((after.source, after.source_port), (a.0.into(), a.1));
    assert_eq!((after.destination, after.destination_port), (end(H2).0.into(), 5000));
}

/// N44-20: the filtering that applies to strangers applies to neighbours, by their external endpoints.
#[test]
fn n44_20_filtering_applies() {
    for (filter, expected) in [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [false, true, true]),
        (Filtering::AddressPortDependent, [false, false, true]),
    ] {
        // Two addresses, paired with one host each.
        let mut spec = with_pool(pool(&["203.0.113.5-203.0.113.6"], 1..=65535));
        spec.nat44 = vec![filtering(filter)];
        let mut lab = Lab::new(spec);
        let b = lab.udp_out(end(H2), end(S));
        // Hosts are given addresses by themselves; one that has the other address.
        let host = (30..99).map(|last| Ipv4Addr::new(192, 168, 1, last));
        let mut seen = host.map(|host| (host, lab.udp_out((host, 6000), end(S)))).filter(|(_, seen)| seen.0 != b.0);
        let (host, a) = seen.next().expect("a host with the other address");
        // H2 has sent nothing to that address; then to another port of it; then to this one.
        for (nth, admitted) in expected.into_iter().enumerate() {
            let frame = udp(INSIDE, (host, 6000), b, b"knock");
            if admitted {
                assert_eq!((delivered(&mut lab, &frame).source, nth < 3), (a, true), "{filter:?} {nth}");
            } else {
                lab.dropped(INSIDE, &frame, Drop::Filtered);
            }
            let port = if nth == 0 { 6001 } else { 6000 };
            lab.send(INSIDE, &udp(INSIDE, end(H2), (a.0, port), b"opens"));
        }
    }
}

/// N44-20: a host reaches itself by its own mapping, and its packet goes round once.
#[test]
fn n44_20_to_oneself() {
    let mut lab = Lab::new(open());
    let a = lab.udp_out(end(H), end(S));
    let seen = delivered(&mut lab, &udp(INSIDE, end(H), a, b"me"));
    assert_eq!((seen.source, seen.destination), (a, end(H)));
    let seen = delivered(&mut lab, &udp(INSIDE, mail(0, 9), mail(1, 9), b"me"));
    assert_eq!((seen.source, seen.destination), (mail(1, 9), mail(0, 9)));
}

/// N44-20: hosts behind static entries, and one of each kind.
#[test]
fn n44_20_static_entries() {
    let mut spec = open();
    spec.static_nat.push(one_to_one("203.0.113.61", "192.168.1.26"));
    let mut lab = Lab::new(spec);
    let other: End = end("192.168.1.26:7");
    let seen = delivered(&mut lab, &udp(INSIDE, other, mail(1, 53), b"x"));
    assert_eq!((seen.source, seen.destination), (end("203.0.113.61:7"), mail(0, 53)));
    let seen = delivered(&mut lab, &udp(INSIDE, mail(0, 53), end("203.0.113.61:7"), b"y"));
    assert_eq!((seen.source, seen.destination), (mail(1, 53), other));
    let seen = delivered(&mut lab, &udp(INSIDE, end(H), mail(1, 53), b"x"));
    assert_eq!((seen.source, seen.destination), (end("203.0.113.5:4000"), mail(0, 53)));
    let seen = delivered(&mut lab, &udp(INSIDE, mail(0, 53), end("203.0.113.5:4000"), b"y"));
    assert_eq!((seen.source, seen.destination), (mail(1, 53), end(H)));
}

/// N44-20: from one inside network to another, and back; the tuple is what counts, not the interface.
#[test]
fn n44_20_between_inside_networks() {
    const GUESTS: InterfaceId = InterfaceId(2);
    let mut spec = open();
    spec.zones.push("guests".into());
    spec.interfaces.push(InterfaceSpec {
        name: "guests".into(),
        vlan: Some(20),
        zone: ZoneId(2),
        addresses: vec![prefix("192.168.20.1/24")],
        mss_clamp: MssClamp::Fixed(1200),
        port: PortId(0),
        ..spec.interfaces[0].clone()
    });
    let guests = Nat44Rule { name: "guests".into(), from: ZoneId(2), ..filtering(Filtering::EndpointIndependent) };
    spec.nat44.push(guests);
    let mut lab = Lab::new(spec);
    let b = lab.udp_out(end(H2), end(S));
    let guest = end("192.168.20.7:6000");
    let seen = read(&lab.pass(GUESTS, &common::scene::tagged(&udp(INSIDE, guest, b, b"x"), 20), INSIDE));
    assert_eq!((seen.source, seen.destination), (end("203.0.113.5:6000"), end(H2)));
    let back = lab.pass(INSIDE, &udp(INSIDE, end(H2), end("203.0.113.5:6000"), b"y"), GUESTS);
    assert_eq!((read(&back).source, read(&back).destination), (b, guest));
    assert_eq!(common::tags(&back), [(0x8100, 20)]);
}

/// N44-20: who is not translated is not let in by the back door, and nobody is where nothing leads in.
#[test]
fn n44_20_what_is_refused() {
    let mut spec = open();
    spec.nat44[0].source = vec![prefix("192.168.1.0/28")];
    let mut lab = Lab::new(spec);
    let a = lab.udp_out(end(H), end(S));
    lab.recount();
    // No rule covers the sender.
    lab.dropped(INSIDE, &udp(INSIDE, end(H2), a, b"x"), Drop::Hairpin);
    lab.dropped(INSIDE, &tcp(INSIDE, end("198.18.0.9:9"), end("203.0.113.5:80"), "S", 1, 0, b""), Drop::Hairpin);
    lab.moved(moves().dropped("inside", Drop::Hairpin, 2));
    // A block that nobody has leased; a port that nobody has in one that somebody has.
    lab.dropped(INSIDE, &udp(INSIDE, end(H), end("203.0.113.5:60000"), b"x"), Drop::Unsolicited);
    lab.dropped(INSIDE, &udp(INSIDE, end(H), (a.0, a.1 + 1), b"x"), Drop::Unsolicited);
    // From outside nothing has changed.
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), (a.0, a.1 + 1), b"x"), Drop::Unsolicited);
}

/// N44-20, N44-30: what was turned round has an identification of its own, if it is not atomic.
#[test]
fn n44_20_identifications() {
    let mut lab = Lab::new(open());
    let b = lab.udp_out(end(H2), end(S));
    let hosts = ["192.168.1.10:4000", "192.168.1.11:4000", "192.168.1.12:4000"];
    let ids = hosts.map(|host| place(&lab.pass(INSIDE, &fragmentable(&udp(INSIDE, end(host), b, b"x"), 7), INSIDE)).0);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    let atomic = with_header(&udp(INSIDE, end(H), b, b"x"), |header| header.identification = 7);
    assert_eq!(place(&lab.pass(INSIDE, &atomic, INSIDE)).0, 7);
}

/// N44-20, N44-27: datagrams in fragments, all orders, both ways.
#[test]
fn n44_20_fragments() {
    let data: Vec<u8> = (0..3000u16).map(|byte| (byte % 251) as u8).collect();
    for order in ORDERS {
        let mut lab = Lab::new(open());
        let (a, b) = (lab.udp_out(end(H), end(S)), lab.udp_out(end(H2), end(S)));
        for (from, to, seen_as, host) in [(end(H), b, a, end(H2)), (end(H2), a, b, end(H))] {
            let fragments = cut_up(&fragmentable(&udp(INSIDE, from, to, &data), 9), &[171, 300]);
            let sent: Vec<_> = order.iter().map(|&nth| fragments[nth].clone()).collect();
            let seen = lab.send_all(INSIDE, &sent);
            assert!(seen.frames.iter().all(|(interface, _)| *interface == INSIDE));
            let out: Vec<_> = seen.frames.into_iter().map(|(_, frame)| frame).collect();
            let whole = read(&put_together(&out));
            assert_eq!((whole.source, whole.destination, whole.ttl), (seen_as, host, 63), "{order:?}");
            assert_eq!(whole.payload, data);
        }
        assert_eq!(lab.counters.hairpins.get(), 6);
    }
}

/// N44-20, N44-26: what is too large for the other host's link is cut up.
#[test]
fn n44_20_cut_up() {
    let mut spec = open();
    spec.interfaces[0].mtu = 1400;
    let mut lab = Lab::new(spec);
    let b = lab.udp_out(end(H2), end(S));
    let seen = lab.send(INSIDE, &fragmentable(&udp(INSIDE, end(H), b, &[7; 1472]), 9));
    let out: Vec<_> = seen.frames.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(out.len(), 2);
    let whole = read(&put_together(&out));
    assert_eq!((whole.source, whole.destination, whole.payload.len()), (end("203.0.113.5:4000"), end(H2), 1472));
}

// --- TCP --------------------------------------------------------------------------------------------------------------

/// TCP-14: a connection from an inside host to another's forwarded port, by the external address: handshake, data, close. The
/// server sees the client's external address and port.
#[test]
fn tcp_14_hairpin() {
    let mut lab = Lab::new(open());
    let (client, server) = (end("192.168.1.20:6000"), end("192.168.1.10:8000"));
    let (seen_client, seen_server) = (end("203.0.113.5:6000"), end("203.0.113.5:80"));
    for (from_client, flags, seq, ack) in [
        (true, "S", 100, 0),
        (false, "SA", 900, 101),
        (true, "A", 101, 901),
        (true, "PA", 101, 901),
        (false, "PA", 901, 105),
        (true, "FA", 105, 905),
        (false, "FA", 905, 106),
        (true, "A", 106, 906),
    ] {
        let data = if flags == "PA" { &b"data"[..] } else { b"" };
        let (from, to) = if from_client { (client, seen_server) } else { (server, seen_client) };
        let seen = delivered(&mut lab, &tcp(INSIDE, from, to, flags, seq, ack, data));
        let expected = if from_client { (seen_client, server) } else { (seen_server, client) };
        assert_eq!((seen.source, seen.destination, seen.ttl), (expected.0, expected.1, 63), "{flags}");
        assert_eq!(seen.payload, data);
    }
    // Both sessions have seen the connection end.
    let closing = dataplane::counters::SessionClass::TcpClosing as usize;
    assert_eq!((lab.sessions(), lab.counters.sessions[closing].get()), (2, 2));
    lab.wait_secs(241);
    assert_eq!(lab.sessions(), 0);
}

/// TCP-14: to a dynamic mapping, which hosts punch holes through: a simultaneous open (RFC 5382 REQ-2) of two neighbours.
#[test]
fn tcp_14_hairpin_simultaneous_open() {
    let mut lab = Lab::new(with_rule(filtering(Filtering::AddressPortDependent)));
    let (a, b) = (lab.syn_out(end(H), end(S)), lab.syn_out(end(H2), end(S)));
    lab.dropped(INSIDE, &tcp(INSIDE, end(H), b, "S", 1, 0, b""), Drop::Filtered);
    let seen = delivered(&mut lab, &tcp(INSIDE, end(H2), a, "S", 5, 0, b""));
    assert_eq!((seen.source, seen.destination), (b, end(H)));
    let seen = delivered(&mut lab, &tcp(INSIDE, end(H), b, "SA", 1, 6, b""));
    assert_eq!((seen.source, seen.destination), (a, end(H2)));
}

/// TCP-14: a segment of no connection opens nothing.
#[test]
fn tcp_14_hairpin_in_mid_stream() {
    let mut lab = Lab::new(open());
    lab.dropped(INSIDE, &tcp(INSIDE, end(H2), end("203.0.113.5:80"), "A", 1, 1, b""), Drop::TcpNotSyn);
    assert_eq!(lab.sessions(), 0);
}

// --- ICMP -------------------------------------------------------------------------------------------------------------

/// ICM-11: queries to a host with an address of its own, from a host with one and from one that shares one; and the replies.
#[test]
fn icm_11_queries() {
    let mut spec = open();
    spec.static_nat.push(one_to_one("203.0.113.61", "192.168.1.26"));
    let mut lab = Lab::new(spec);
    for (host, seen_as) in [("192.168.1.26", "203.0.113.61"), ("192.168.1.10", SHARED)] {
        let (host, seen_as): (Ipv4Addr, Ipv4Addr) = (host.parse().unwrap(), seen_as.parse().unwrap());
        let seen = delivered(&mut lab, &echo(INSIDE, host, mail(1, 0).0, true, 77, 1));
        assert_eq!((seen.source.0, seen.destination.0, seen.transport[0]), (seen_as, mail(0, 0).0, 8));
        let seen = delivered(&mut lab, &echo(INSIDE, mail(0, 0).0, seen_as, false, seen.source.1, 1));
        assert_eq!((seen.source.0, seen.destination, seen.transport[0]), (mail(1, 0).0, (host, 77), 0));
    }
}

/// ICM-11: an address that hosts share answers pings by the gateway, from inside too, whatever identifiers are in use.
#[test]
fn icm_11_shared_addresses_answer_by_the_gateway() {
    let mut lab = Lab::new(open());
    let seen = lab.ping_out((end(H).0, 77), end(S).0);
    let frame = echo(INSIDE, end(H2).0, seen.0, true, seen.1, 1);
    assert_eq!(lab.send(INSIDE, &frame).punted, [(INSIDE, frame)]);
}

/// Reads the one ICMP error that a frame from inside provokes.
#[track_caller]
fn answer(lab: &mut Lab, frame: &[u8]) -> ErrorMessage {
    let mut seen = lab.send(INSIDE, frame);
    assert_eq!(seen.frames.len(), 1, "{:?}", lab.drops());
    let (interface, frame) = seen.frames.remove(0);
    assert_eq!(interface, INSIDE);
    read_error(&frame)
}

/// ICM-11: a host traces the way to another's external address: the gateway is the one hop, then the other host answers, and
/// its error comes from its external address about what was sent.
#[test]
fn icm_11_traceroute_to_an_external_address() {
    for to in [mail(1, 33_434), end("203.0.113.5:5000")] {
        let mut lab = Lab::new(open());
        let (a, _) = (lab.udp_out(end(H), end(S)), lab.udp_out(end(H2), end(S)));
        let probe = |ttl| udp_ttl(INSIDE, end(H), to, b"probe", ttl);
        let hop = answer(&mut lab, &probe(1));
        assert_eq!((hop.source, hop.destination), ("192.168.1.1".parse().unwrap(), end(H).0.into()));
        assert_eq!((hop.kind, hop.code), (11, 0));
        assert_eq!(hop.quote, probe(1)[14..]);
        let arrived = lab.pass(INSIDE, &probe(2), INSIDE);
        let seen = read(&arrived);
        assert_eq!((seen.source, seen.ttl), (a, 1));
        // Port unreachable.
        let reply = error(INSIDE, seen.destination.0, 3, 3, &arrived[14..]);
        let before = lab.sessions();
        let told = lab.pass(INSIDE, &reply, INSIDE);
        let it = read_error(&told);
        assert_eq!((it.source, it.destination), (to.0.into(), end(H).0.into()));
        assert_eq!((it.kind, it.code, told[22]), (3, 3, 63));
        // What H sent, but for the hop that it made.
        assert_eq!(it.quote, probe(1)[14..42], "{to:?}");
        assert_eq!(lab.sessions(), before);
        assert!(lab.drops().iter().all(|(name, _)| *name == "ttl-exceeded"));
    }
}

/// ICM-11: an inside router's error about a packet that was turned round comes from the external address of its flow.
#[test]
fn icm_11_errors_of_inside_routers() {
    let mut lab = Lab::new(open());
    let b = lab.udp_out(end(H2), end(S));
    let arrived = lab.pass(INSIDE, &udp(INSIDE, end(H), b, b"x"), INSIDE);
    let router = Ipv4Addr::new(192, 168, 1, 254);
    let it = read_error(&lab.pass(INSIDE, &error(INSIDE, router, 3, 1, &arrived[14..]), INSIDE));
    assert_eq!((it.source, it.destination), (b.0.into(), end(H).0.into()));
    assert_eq!((it.kind, it.code), (3, 1));
    // About nothing that was turned round: dropped by its name.
    let made_up = udp(INSIDE, end("203.0.113.5:9"), end(H2), b"x");
    lab.dropped(INSIDE, &error(INSIDE, router, 3, 1, &made_up[14..]), Drop::IcmpErrorNoSession);
}

/// ICM-11, N44-25: the gateway's own errors about a packet that was turned round reach its sender, and quote what it sent: the
/// next link does not take it, or its neighbour does not answer.
#[test]
fn icm_11_errors_of_the_gateway() {
    let mut spec = open();
    spec.interfaces[0].mtu = 1400;
    let mut lab = Lab::new(spec);
    let b = lab.udp_out(end(H2), end(S));
    let large = udp(INSIDE, end(H), b, &[7; 1472]);
    let it = answer(&mut lab, &large);
    assert_eq!((it.source, it.destination), ("192.168.1.1".parse().unwrap(), end(H).0.into()));
    assert_eq!((it.kind, it.code, it.word), (3, 4, 1400));
    assert_eq!(it.quote[12..28], large[26..42]);
    // A neighbour that does not answer.
    lab.resolving = false;
    let small = udp(INSIDE, end(H), b, b"x");
    assert!(lab.send(INSIDE, &small).frames.is_empty());
    assert_eq!(lab.counters.held.get(), 1);
    lab.neighbour(INSIDE, end(H2).0.into(), NeighbourState::Failed);
    lab.neighbour(INSIDE, end(H).0.into(), NeighbourState::Reachable(common::PEER));
    let seen = lab.run();
    let [(INSIDE, frame)] = &seen.frames[..] else { panic!("one error: {seen:?} {:?}", lab.drops()) };
    let it = read_error(frame);
    assert_eq!((it.kind, it.code, it.destination), (3, 1, end(H).0.into()));
    assert_eq!(it.quote[12..28], small[26..42]);
}

/// A packet that has been turned round, and waits for its neighbour, is not turned twice.
#[test]
fn n44_20_waits_for_its_neighbour() {
    for order in ORDERS {
        let mut lab = Lab::new(open());
        let b = lab.udp_out(end(H2), end(S));
        lab.resolving = false;
        let whole = fragmentable(&udp(INSIDE, end(H), b, &[7; 3000]), 9);
        let fragments = cut_up(&whole, &[171, 300]);
        lab.send_all(INSIDE, &order.map(|nth| fragments[nth].clone()));
        assert_eq!(
            (lab.counters.held.get(), lab.counters.fragments_held.get(), lab.counters.hairpins.get()),
            (3, 0, 3)
        );
        lab.neighbour(INSIDE, end(H2).0.into(), NeighbourState::Reachable(common::PEER));
        let out: Vec<_> = lab.run().frames.into_iter().map(|(_, frame)| frame).collect();
        let seen = read(&put_together(&out));
        assert_eq!((seen.source, seen.destination, seen.ttl), (end("203.0.113.5:4000"), end(H2), 63));
        assert_eq!(lab.counters.hairpins.get(), 3);
    }
}

/// ICM-11: other messages than queries and errors are dropped by their name.
#[test]
fn icm_11_other_messages() {
    let mut lab = Lab::new(open());
    lab.dropped(INSIDE, &icmp(INSIDE, end(H).0, mail(1, 0).0, 9, 0, [0; 4], b""), Drop::IcmpType);
}
