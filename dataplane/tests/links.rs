//! Ports whose link is down: what becomes of their routes.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::sync::Arc;

use common::{INSIDE, Lab, OUTSIDE, Seen, echo, end, pool, prefix, read, read_error, spec, udp, udp6};
use dataplane::counters::Drop;
use dataplane::message::ToWorker;
use dataplane::plan::{InterfaceId, InterfaceSpec, NextHop, PortId, RouteSpec, Spec};

/// The ICMP error that is all that left: its type and code.
#[track_caller]
fn told(seen: &Seen) -> (u8, u8) {
    assert_eq!(seen.frames.len(), 1);
    let error = read_error(&seen.frames[0].1);
    (error.kind, error.code)
}

/// Works by the same plan with these ports' links down.
fn links_down(lab: &mut Lab, ports: &[u16]) {
    let ports = ports.iter().map(|&port| PortId(port)).collect();
    let plan = Arc::new(lab.worker.engine().plan().with_links_down(ports).unwrap());
    lab.to_worker.send(ToWorker::Plan { plan, leases: Arc::clone(&lab.leases) }).unwrap();
    lab.run();
}

#[test]
fn routes_over_a_link_that_is_down_are_withdrawn() {
    let mut lab = Lab::new(spec());
    let (client, server) = (end("192.168.1.10:4000"), end("198.18.0.1:53"));
    let out = lab.pass(INSIDE, &udp(INSIDE, client, server, b"ask"), OUTSIDE);
    let external = read(&out).source;
    links_down(&mut lab, &[1]);
    // The session's packet, a new flow, and IPv6: all are told that there is no way.
    for frame in [udp(INSIDE, client, server, b"ask"), udp(INSIDE, end("192.168.1.11:4000"), server, b"ask")] {
        let seen = lab.send(INSIDE, &frame);
        assert_eq!(told(&seen), (3, 0), "net unreachable");
    }
    let (from, to) = ("fd00:1::10".parse().unwrap(), "2001:db8:99::1".parse().unwrap());
    let six = udp6(INSIDE, (from, 4000), (to, 53), b"ask", 64);
    let seen = lab.send(INSIDE, &six);
    assert_eq!(told(&seen), (1, 0), "no route to destination");
    // The gateway's own address on that link is still its own.
    let own = echo(INSIDE, client.0, "198.51.100.2".parse().unwrap(), true, 1, 1);
    assert_eq!(lab.send(INSIDE, &own).punted.len(), 1);
    // And when it is up again the session goes on.
    links_down(&mut lab, &[]);
    let out = lab.pass(INSIDE, &udp(INSIDE, client, server, b"ask"), OUTSIDE);
    assert_eq!(read(&out).source, external);
}

/// With the inside link down, an answer from outside is not led back out by the default route, translated or not.
#[test]
fn a_connected_network_is_not_elsewhere_while_its_link_is_down() {
    let mut lab = Lab::new(spec());
    let (client, server) = (end("192.168.1.10:4000"), end("198.18.0.1:53"));
    let out = lab.pass(INSIDE, &udp(INSIDE, client, server, b"ask"), OUTSIDE);
    let external = read(&out).source;
    links_down(&mut lab, &[0]);
    let seen = lab.send(OUTSIDE, &udp(OUTSIDE, server, external, b"answer"));
    assert_eq!((seen.frames.len(), told(&seen)), (1, (3, 0)));
    // To a stranger the inside network is as closed as ever.
    lab.dropped(OUTSIDE, &udp(OUTSIDE, server, client, b"hello"), Drop::Unsolicited);
}

/// Nor is one behind a router on it; but a route that is given for the same prefix takes over, wherever it leads.
#[test]
fn what_is_inside_is_not_sought_outside() {
    let mut spec = spec();
    let inside =
        RouteSpec { prefix: prefix("10.9.0.0/16"), next_hop: NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE) };
    spec.routes.push(inside);
    let mut lab = Lab::new(spec.clone());
    let hello = udp(OUTSIDE, end("198.18.0.1:53"), end("10.9.0.7:4000"), b"hello");
    lab.pass(OUTSIDE, &hello, INSIDE);
    links_down(&mut lab, &[0]);
    assert_eq!(told(&lab.send(OUTSIDE, &hello)), (3, 0));
    for at in [0, spec.routes.len()] {
        let mut twice = spec.clone();
        twice.routes.insert(at, RouteSpec { next_hop: spec.routes[0].next_hop, ..inside });
        let mut lab = Lab::new(twice);
        links_down(&mut lab, &[0]);
        lab.pass(OUTSIDE, &hello, OUTSIDE);
    }
}

/// A route by another interface takes over.
#[test]
fn a_less_specific_route_takes_over() {
    let mut backup = spec();
    backup.interfaces.push(InterfaceSpec {
        name: "backup".into(),
        vlan: Some(7),
        addresses: vec![prefix("198.51.101.2/24")],
        ..backup.interfaces[1].clone()
    });
    backup.interfaces[2].port = PortId(0);
    let via = NextHop::Via("198.51.101.1".parse().unwrap(), InterfaceId(2));
    backup.routes.push(RouteSpec { prefix: prefix("198.18.0.0/15"), next_hop: backup.routes[0].next_hop });
    backup.routes[0].next_hop = via;
    let mut lab = Lab::new(backup);
    let frame = udp(INSIDE, end("192.168.1.10:4000"), end("198.18.0.1:53"), b"ask");
    lab.pass(INSIDE, &frame, OUTSIDE);
    links_down(&mut lab, &[1]);
    lab.pass(INSIDE, &frame, InterfaceId(2));
}

/// In the middle of a reload too: places and leases stay as they are.
#[test]
fn a_link_may_go_down_during_a_reload() {
    let two = || Spec { pools: vec![pool(&["203.0.113.5", "203.0.113.6"], 1..=65535)], ..spec() };
    let mut lab = Lab::new(two());
    let clients: Vec<_> = (10..30).map(|host| (std::net::Ipv4Addr::new(192, 168, 1, host), 4000)).collect();
    let server = end("198.18.0.1:53");
    let ask = |lab: &mut Lab, client| read(&lab.pass(INSIDE, &udp(INSIDE, client, server, b"ask"), OUTSIDE)).source;
    let before: Vec<_> = clients.iter().map(|&client| ask(&mut lab, client)).collect();
    // One address leaves the pool, one that nobody has seen comes.
    lab.begin_reload(Spec { pools: vec![pool(&["203.0.113.6", "203.0.113.7"], 1..=65535)], ..spec() });
    lab.run();
    links_down(&mut lab, &[1]);
    links_down(&mut lab, &[]);
    let mut swept = None;
    while swept.is_none() {
        swept = lab.run().swept;
    }
    lab.end_reload();
    let after: Vec<_> = clients.iter().map(|&client| ask(&mut lab, client)).collect();
    assert_eq!(before, after);
    lab.wait_secs(400);
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
    lab.reload(two());
    for id in lab.worker.engine().plan().pools[0].clone() {
        assert_eq!(lab.leases.free_blocks(id), (1024, 1024));
    }
}
