//! A closed border gateway (design §5): who may use a session, and what strangers reach of the gateway and its inside.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod common;

use std::net::Ipv4Addr;

use common::moves::moves;
use common::scene::{error, filtering, forward, one_to_one};
use common::{End, INSIDE, Lab, MACS, OUTSIDE, echo, end, icmp, pool, prefix, read, rule, spec, tcp, udp};
use dataplane::counters::Drop;
use dataplane::plan::{
    Filtering, ForwardProtocol, InterfaceId, InterfaceSpec, Nat44Rule, NextHop, PortId, PortSpec, RouteSpec, Spec,
    ZoneId,
};
use dataplane::session::Tuple4;
use dataplane::session::tcp::Tcp;
use dataplane::time::Time;

const H: &str = "192.168.1.10:4000";
const S: &str = "198.18.0.1:1000";
/// A host with a whole external address, and that.
const MAIL: [&str; 2] = ["192.168.1.25", "203.0.113.60"];
/// A second inside zone: 192.168.20.1/24.
const GUESTS: InterfaceId = InterfaceId(2);
/// A second uplink: 192.0.2.2/24, by which 198.19.0.0/16 is reached.
const BACKUP: InterfaceId = InterfaceId(3);

/// Four zones: the rig's two, guests and a second uplink. All that come from 192.168.0.0/16, wherever they come from, are
/// translated to the same pool, whose mappings admit everyone.
fn four_zones() -> Spec {
    let rule = |from, to| Nat44Rule { from: ZoneId(from), to: ZoneId(to), ..filtering(Filtering::EndpointIndependent) };
    let mut spec = spec();
    for (name, address, port) in [("guests", "192.168.20.1/24", 2), ("backup", "192.0.2.2/24", 3)] {
        spec.zones.push(name.into());
        spec.ports.push(PortSpec { name: name.into() });
        spec.interfaces.push(InterfaceSpec {
            name: name.into(),
            port: PortId(port),
            zone: ZoneId(port as u8),
            mac: MACS[usize::from(port) % 2],
            addresses: vec![prefix(address)],
            ..spec.interfaces[0].clone()
        });
    }
    let by_backup = NextHop::Via("192.0.2.1".parse().unwrap(), BACKUP);
    spec.routes.push(RouteSpec { prefix: prefix("198.19.0.0/16"), next_hop: by_backup });
    spec.nat44 = vec![rule(0, 1), rule(2, 1), rule(0, 3)];
    spec.static_nat = vec![one_to_one(MAIL[1], MAIL[0])];
    spec
}

/// All that the gateway remembers of its sessions.
fn sessions(lab: &Lab) -> Vec<(Tuple4, Time, Tcp)> {
    let sessions = lab.worker.engine().shards().iter().flat_map(|shard| shard.sessions());
    sessions.map(|session| (session.inside(), session.deadline, session.tcp)).collect()
}

/// A gateway with a UDP flow, an established connection and a ping between H and S, and a UDP flow between the host with an
/// address of its own and S.
fn busy() -> Lab {
    let mut lab = Lab::new(four_zones());
    let (h, s) = (end(H), end(S));
    let external = lab.udp_out(h, s);
    assert_eq!([lab.syn_out(h, s), lab.ping_out(h, s.0)], [external, external]);
    lab.pass(OUTSIDE, &tcp(OUTSIDE, s, external, "SA", 8, 1001, b""), INSIDE);
    lab.pass(INSIDE, &tcp(INSIDE, h, s, "A", 1001, 9, b""), OUTSIDE);
    lab.udp_out(mail(0), s);
    // What follows would refresh the sessions, if it were theirs.
    lab.wait_secs(30);
    lab.recount();
    lab
}

/// The host with an address of its own, as it is seen inside (0) and outside (1).
fn mail(side: usize) -> End {
    (MAIL[side].parse().unwrap(), 4000)
}

// --- The zones of a session -------------------------------------------------------------------------------------------

/// A packet that looks like the server's but comes from another zone, be it inside or a second uplink, is none of the
/// session's.
#[test]
fn a_session_admits_no_answers_from_other_zones() {
    let mut lab = busy();
    let (s, before) = (end(S), sessions(&lab));
    let external = (Ipv4Addr::new(203, 0, 113, 5), 4000);
    for (interface, name, reason) in
        [(BACKUP, "backup", Drop::Unsolicited), (GUESTS, "guests", Drop::Hairpin), (INSIDE, "inside", Drop::Hairpin)]
    {
        for frame in [
            udp(interface, s, external, b"forged"),
            udp(interface, s, mail(1), b"forged"),
            tcp(interface, s, external, "A", 9, 1001, b"forged"),
            tcp(interface, s, external, "RA", 9, 1001, b""),
            tcp(interface, s, external, "FA", 9, 1001, b""),
            echo(interface, s.0, external.0, false, external.1, 1),
        ] {
            lab.dropped(interface, &frame, reason);
        }
        lab.moved(moves().dropped(name, reason, 6));
    }
    assert_eq!(sessions(&lab), before);
    // The server's own still pass.
    assert!(lab.udp_in(s, external, end(H)) && lab.udp_in(s, mail(1), mail(0)));
    lab.pass(OUTSIDE, &tcp(OUTSIDE, s, external, "A", 9, 1001, b"true"), INSIDE);
}

/// A packet that looks like the inside host's but comes from another zone is none of the session's either; it is not even
/// answered, for its sender is not the host.
#[test]
fn a_session_carries_nothing_from_other_zones() {
    let mut lab = busy();
    let (h, s, before) = (end(H), end(S), sessions(&lab));
    let forged = |interface| {
        [
            udp(interface, h, s, b"forged"),
            udp(interface, mail(0), s, b"forged"),
            tcp(interface, h, s, "S", 1001, 9, b""),
            echo(interface, h.0, s.0, true, h.1, 1),
        ]
    };
    let used = (lab.leases.ports_used(0), lab.mappings());
    for frame in forged(GUESTS) {
        lab.dropped(GUESTS, &frame, Drop::FlowConflict);
    }
    // A mapping was made for the host that has an address of its own in its own zone only, and is gone.
    lab.moved(moves().dropped("guests", Drop::FlowConflict, 4).and("mapping-creations", 1));
    for frame in [tcp(GUESTS, h, s, "RA", 1001, 9, b""), tcp(GUESTS, h, s, "A", 1001, 9, b"forged")] {
        lab.dropped(GUESTS, &frame, Drop::TcpNotSyn);
    }
    assert_eq!((lab.leases.ports_used(0), lab.mappings()), used);
    // Between the uplinks nothing is translated: there it is a packet like any other, and leaves as it came.
    for interface in [OUTSIDE, BACKUP] {
        for frame in forged(interface) {
            let out = read(&lab.pass(interface, &frame, OUTSIDE));
            assert_eq!(out.source.0.octets()[..3], [192, 168, 1]);
        }
    }
    assert_eq!(sessions(&lab), before);
    lab.pass(INSIDE, &tcp(INSIDE, h, s, "A", 1001, 9, b"true"), OUTSIDE);
}

/// A session by one uplink takes no packets from the other, in either direction of the comparison.
#[test]
fn each_uplink_has_its_sessions() {
    let mut lab = Lab::new(four_zones());
    let (h, far) = (end(H), end("198.19.0.1:7"));
    let out = read(&lab.pass(INSIDE, &udp(INSIDE, h, far, b"out"), BACKUP));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, far, out.source, b"in"), Drop::Unsolicited);
    let back = read(&lab.pass(BACKUP, &udp(BACKUP, far, out.source, b"in"), INSIDE));
    assert_eq!(back.destination, h);
}

// --- ICMP errors ------------------------------------------------------------------------------------------------------

/// An ICMP error from inside goes back to the sender of what it quotes, and to nobody else.
#[test]
fn errors_from_inside_go_to_whom_they_quote() {
    let mut lab = busy();
    let (h, s) = (end(H), end(S));
    let delivered = lab.pass(OUTSIDE, &udp(OUTSIDE, s, (Ipv4Addr::new(203, 0, 113, 5), 4000), b"in"), INSIDE);
    lab.recount();
    for other in ["198.18.0.2", "198.51.100.1", "198.19.0.1"] {
        let forged = icmp(INSIDE, h.0, other.parse().unwrap(), 3, 3, [0; 4], &delivered[14..]);
        lab.dropped(INSIDE, &forged, Drop::IcmpErrorNoSession);
    }
    lab.moved(moves().dropped("inside", Drop::IcmpErrorNoSession, 3));
    let out = read(&lab.pass(INSIDE, &error(INSIDE, h.0, 3, 3, &delivered[14..]), OUTSIDE));
    assert_eq!((out.source.0, out.destination.0), (Ipv4Addr::new(203, 0, 113, 5), s.0));
}

/// An ICMP error about a flow comes from the flow's own zones: outside the one that it leaves to, inside the one that it
/// comes from.
#[test]
fn errors_come_from_the_zones_of_the_flow() {
    let mut lab = busy();
    let (h, s, router) = (end(H), end(S), Ipv4Addr::new(198, 18, 0, 254));
    let sent = [
        lab.pass(INSIDE, &udp(INSIDE, h, s, b"out"), OUTSIDE),
        lab.pass(INSIDE, &udp(INSIDE, mail(0), s, b""), OUTSIDE),
    ];
    let delivered = lab.pass(OUTSIDE, &udp(OUTSIDE, s, (Ipv4Addr::new(203, 0, 113, 5), 4000), b"in"), INSIDE);
    lab.recount();
    for sent in &sent {
        lab.dropped(BACKUP, &error(BACKUP, router, 3, 1, &sent[14..]), Drop::IcmpErrorNoSession);
        lab.dropped(GUESTS, &error(GUESTS, router, 3, 1, &sent[14..]), Drop::IcmpErrorNoSession);
    }
    let refused = |name| moves().dropped(name, Drop::IcmpErrorNoSession, 2);
    lab.moved(refused("backup").and("received", 2).and("guests-received", 2).and("drop-icmp-error-no-session", 2));
    for from in [h.0, Ipv4Addr::new(192, 168, 20, 9)] {
        lab.dropped(GUESTS, &error(GUESTS, from, 3, 3, &delivered[14..]), Drop::IcmpErrorNoSession);
    }
    lab.moved(moves().dropped("guests", Drop::IcmpErrorNoSession, 2));
    for sent in &sent {
        lab.pass(OUTSIDE, &error(OUTSIDE, router, 3, 1, &sent[14..]), INSIDE);
    }
    lab.pass(INSIDE, &error(INSIDE, h.0, 3, 3, &delivered[14..]), OUTSIDE);
    // Without a session, by the mapping and by the static entry alone.
    lab.wait_secs(301);
    lab.recount();
    lab.dropped(BACKUP, &error(BACKUP, router, 3, 1, &sent[1][14..]), Drop::IcmpErrorNoSession);
    lab.pass(OUTSIDE, &error(OUTSIDE, router, 3, 1, &sent[1][14..]), INSIDE);
}

// --- The gateway's own addresses, and hosts that are only forwarded to ------------------------------------------------

/// What asks for an answer of an address: ping, TCP, UDP, and a mid-stream segment.
fn questions(interface: InterfaceId, from: End, to: Ipv4Addr) -> [Vec<u8>; 4] {
    [
        echo(interface, from.0, to, true, 7, 1),
        tcp(interface, from, (to, 22), "S", 1, 0, b""),
        udp(interface, from, (to, 53), b"query"),
        tcp(interface, from, (to, 22), "A", 1, 1, b"x"),
    ]
}

/// The gateway's inside address is as closed to the outside as the hosts there; its outside address is open to both sides.
#[test]
fn strangers_do_not_reach_the_gateways_inside_address() {
    let mut lab = Lab::default_lab();
    let (inside, outside) = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(198, 51, 100, 2));
    for frame in questions(OUTSIDE, end(S), inside) {
        lab.dropped(OUTSIDE, &frame, Drop::Unsolicited);
    }
    lab.moved(moves().dropped("outside", Drop::Unsolicited, 4));
    for (interface, name, from, to) in
        [(INSIDE, "inside", end(H), inside), (INSIDE, "inside", end(H), outside), (OUTSIDE, "outside", end(S), outside)]
    {
        for frame in questions(interface, from, to) {
            let seen = lab.send(interface, &frame);
            assert_eq!((seen.frames.len(), seen.punted), (0, vec![(interface, frame)]));
        }
        lab.moved(moves().and("received", 4).and(&format!("{name}-received"), 4).and("punted", 4));
    }
}

/// A host that no rule covers, but a forward leads to, is closed at its own address to the zone that the forward is for.
#[test]
fn strangers_reach_a_forwarded_host_by_its_forward_only() {
    let host = end("10.9.0.7:80");
    let forwards = vec![forward(ForwardProtocol::Tcp, "203.0.113.5", 8080..=8080, host)];
    let mut spec = Spec { forwards, ..spec() };
    let inside = NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE);
    spec.routes.push(RouteSpec { prefix: prefix("10.9.0.0/16"), next_hop: inside });
    let mut lab = Lab::new(spec);
    for frame in questions(OUTSIDE, end(S), host.0) {
        lab.dropped(OUTSIDE, &frame, Drop::Unsolicited);
    }
    lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S), host, "S", 1, 0, b""), Drop::Unsolicited);
    lab.moved(moves().dropped("outside", Drop::Unsolicited, 5));
    let syn = tcp(OUTSIDE, end(S), end("203.0.113.5:8080"), "S", 1, 0, b"");
    assert_eq!(read(&lab.pass(OUTSIDE, &syn, INSIDE)).destination, host);
    // Its neighbours, which nothing is said about, are routed to.
    lab.pass(OUTSIDE, &tcp(OUTSIDE, end(S), end("10.9.0.8:80"), "S", 1, 0, b""), INSIDE);
}

/// An address that is the pool's and the gateway's own: strangers may ping it, but its ports do not answer them (RFC 5382
/// REQ-4); the inside reaches the gateway by it.
#[test]
fn strangers_get_no_answer_from_the_ports_of_a_shared_address() {
    let shared = Ipv4Addr::new(198, 51, 100, 2);
    for answer_echo in [false, true] {
        let mut pool = pool(&["198.51.100.2"], 1024..=65_535);
        pool.answer_echo = answer_echo;
        let mut lab = Lab::new(Spec { pools: vec![pool], nat44: vec![rule()], ..spec() });
        // A flow uses one of its ports; others are as silent.
        assert_eq!(lab.udp_out(end(H), end(S)), (shared, 4000));
        lab.recount();
        let [ping, others @ ..] = questions(OUTSIDE, end(S), shared);
        for frame in others {
            lab.dropped(OUTSIDE, &frame, Drop::Unsolicited);
        }
        lab.moved(moves().dropped("outside", Drop::Unsolicited, 3));
        assert_eq!(lab.send(OUTSIDE, &ping).punted, [(OUTSIDE, ping)]);
        for frame in questions(INSIDE, end(H), shared) {
            assert_eq!(lab.send(INSIDE, &frame).punted, [(INSIDE, frame)]);
        }
        lab.moved(moves().and("received", 5).and("inside-received", 4).and("outside-received", 1).and("punted", 5));
        assert!(lab.udp_in(end(S), (shared, 4000), end(H)));
    }
}
