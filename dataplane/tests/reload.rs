//! Reload (design rule 3): a new configuration under live flows. What it still allows goes on, the rest ends and is
//! counted, and no port ever has two owners.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use common::{End, INSIDE, Lab, OUTSIDE, end, icmp, pool, prefix, read, read_error, rule, tcp, udp, udp_ttl};
use dataplane::counters::Drop;
use dataplane::message::ToWorker;
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, IcmpPolicy, InterfaceId, InterfaceSpec, Limits, Nat44Rule, NextHop,
    PoolId, PoolSpec, PortForward, PortId, RouteSpec, Spec, StaticNat, Timers, ZoneId,
};

/// The rig's gateway, with a router inside.
fn spec() -> Spec {
    let mut spec = common::spec();
    let next_hop = NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE);
    spec.routes.push(RouteSpec { prefix: prefix("192.168.0.0/16"), next_hop });
    spec
}

fn server() -> End {
    end("198.18.0.1:53")
}

/// A packet from inside; returns what it looks like outside.
#[track_caller]
fn out(lab: &mut Lab, client: End) -> End {
    let frame = lab.pass(INSIDE, &udp(INSIDE, client, server(), b"ask"), OUTSIDE);
    read(&frame).source
}

/// An answer from outside; asserts that it reaches the client.
#[track_caller]
fn answered(lab: &mut Lab, external: End, client: End) {
    let frame = lab.pass(OUTSIDE, &udp(OUTSIDE, server(), external, b"answer"), INSIDE);
    assert_eq!(read(&frame).destination, client);
}

fn named(name: &str, source: &str, pool: u16) -> Nat44Rule {
    Nat44Rule { name: name.into(), source: vec![prefix(source)], pool: PoolId(pool), ..rule() }
}

fn pool_named(name: &str, ranges: &[&str]) -> PoolSpec {
    PoolSpec { name: name.into(), ..pool(ranges, 1..=65535) }
}

fn forward(name: &str, external: End, inside: End) -> PortForward {
    PortForward {
        name: name.into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        protocol: ForwardProtocol::Udp,
        external: external.0,
        external_ports: external.1..=external.1,
        inside: inside.0,
        inside_port: inside.1,
        filtering: Filtering::EndpointIndependent,
    }
}

/// Two pools of two addresses, a rule for each half of the inside.
fn halves() -> Spec {
    Spec {
        pools: vec![
            pool_named("low", &["203.0.113.1-203.0.113.2"]),
            pool_named("high", &["203.0.113.65-203.0.113.66"]),
        ],
        nat44: vec![named("low", "192.168.0.0/17", 0), named("high", "192.168.128.0/17", 1)],
        ..spec()
    }
}

#[test]
fn the_same_configuration_changes_nothing() {
    let mut lab = Lab::new(spec());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    lab.counted(
        "received, transmitted, inside-received, outside-transmitted, nat44-out, session-creations, sessions-udp-active, \
         mapping-creations, mappings-udp",
    );
    lab.reload(spec());
    lab.counted("");
    assert_eq!(out(&mut lab, client), external);
    answered(&mut lab, external, client);
    assert_eq!(lab.sessions(), 1);
}

#[test]
fn sessions_of_a_rule_that_is_gone_end_and_are_counted() {
    let mut lab = Lab::new(halves());
    let (low, high) = (end("192.168.1.10:4000"), end("192.168.200.10:4000"));
    let (low_outside, high_outside) = (out(&mut lab, low), out(&mut lab, high));
    lab.reload(Spec { nat44: vec![named("high", "192.168.128.0/17", 1)], ..halves() });
    assert_eq!((lab.sessions(), lab.counters.session_reload_ends.get()), (1, 1));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, server(), low_outside, b"answer"), Drop::Unsolicited);
    answered(&mut lab, high_outside, high);
    assert_eq!(out(&mut lab, high), high_outside);
    // What no rule covers is routed, not translated.
    assert_eq!(out(&mut lab, low), low);
    // And it may come back.
    lab.reload(halves());
    assert!([1, 2].map(|last| Ipv4Addr::new(203, 0, 113, last)).contains(&out(&mut lab, low).0));
    answered(&mut lab, high_outside, high);
}

/// On its first packet under the new plan a session is checked, before the sweep gets there.
#[test]
fn a_packet_does_not_wait_for_the_sweep() {
    let mut lab = Lab::new(halves());
    let (low, high) = (end("192.168.1.10:4000"), end("192.168.200.10:4000"));
    let (low_outside, high_outside) = (out(&mut lab, low), out(&mut lab, high));
    lab.begin_reload(Spec {
        nat44: vec![named("low", "192.168.0.0/17", 1), named("high", "192.168.128.0/17", 1)],
        ..halves()
    });
    // Taken in by the same poll as the plan.
    let moved = out(&mut lab, low);
    assert_ne!(moved.0, low_outside.0);
    assert!([65, 66].map(|last| Ipv4Addr::new(203, 0, 113, last)).contains(&moved.0));
    assert_eq!(lab.counters.session_reload_ends.get(), 1);
    answered(&mut lab, high_outside, high);
}

#[test]
fn rules_are_known_by_their_names_whatever_their_order() {
    let mut lab = Lab::new(halves());
    let clients = [end("192.168.1.10:4000"), end("192.168.200.10:4000")];
    let externals = clients.map(|client| out(&mut lab, client));
    let mut spec = halves();
    spec.nat44.reverse();
    spec.nat44.insert(0, named("new", "192.168.77.0/24", 0));
    spec.pools.insert(0, pool_named("new", &["203.0.113.200-203.0.113.200"]));
    spec.nat44.iter_mut().for_each(|rule| rule.pool.0 += 1);
    spec.nat44[0].pool.0 = 0;
    lab.reload(spec);
    assert_eq!(lab.counters.session_reload_ends.get(), 0);
    for (client, external) in clients.into_iter().zip(externals) {
        assert_eq!(out(&mut lab, client), external);
        answered(&mut lab, external, client);
    }
    // The new rule is asked first.
    assert_eq!(out(&mut lab, end("192.168.77.1:4000")).0, Ipv4Addr::new(203, 0, 113, 200));
}

/// W21: quick removal of one pool address.
#[test]
fn an_address_that_leaves_its_pool_is_drained() {
    let mut lab = Lab::new(halves());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    let other = if external.0.octets()[3] == 1 { "203.0.113.2" } else { "203.0.113.1" };
    let mut without = halves();
    without.pools[0] = pool_named("low", &[other]);
    lab.reload(without.clone());
    // Its session goes on, both ways.
    assert_eq!(out(&mut lab, client), external);
    answered(&mut lab, external, client);
    // The same host's next flow, and another host's, are elsewhere.
    for next in [end("192.168.1.10:4001"), end("192.168.1.11:4000")] {
        assert_eq!(out(&mut lab, next).0.to_string(), other);
    }
    assert_eq!(lab.counters.session_reload_ends.get(), 0);
    // Empty, it goes with the next reload; what comes for it then is no longer ours.
    lab.wait_secs(301);
    lab.reload(without);
    assert!(lab.worker.engine().plan().external(external.0.to_bits()).is_none());
}

#[test]
fn ports_that_a_pool_no_longer_gives_out_are_taken_back() {
    let mut lab = Lab::new(spec());
    let (kept, lost) = (end("192.168.1.10:4000"), end("192.168.1.10:40000"));
    let externals = [kept, lost].map(|client| out(&mut lab, client));
    assert_eq!(externals.map(|external| external.1), [4000, 40000]);
    lab.reload(Spec { pools: vec![pool(&["203.0.113.5"], 1024..=32767)], ..spec() });
    assert_eq!(lab.counters.session_reload_ends.get(), 1);
    answered(&mut lab, externals[0], kept);
    assert!((1024..=32767).contains(&out(&mut lab, lost).1));
    assert_eq!(lab.leases.free_blocks(0).1, (32768 - 1024) / 64);
}

/// A new forward of a port that a mapping holds: the mapping ends, and the port is the forward's.
#[test]
fn a_forward_takes_its_port() {
    let mut lab = Lab::new(spec());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    assert_eq!(external, end("203.0.113.5:4000"));
    let inside = end("192.168.1.20:53");
    let with = Spec { forwards: vec![forward("dns", external, inside)], ..spec() };
    lab.reload(with.clone());
    assert_eq!(lab.counters.session_reload_ends.get(), 1);
    let stranger = end("198.18.0.9:9999");
    let frame = lab.pass(OUTSIDE, &udp(OUTSIDE, stranger, external, b"?"), INSIDE);
    assert_eq!(read(&frame).destination, inside);
    assert_ne!(out(&mut lab, client).1 / 64, 4000 / 64, "its block is the forward's");
    // Gone again, its session ends, and the block can be leased.
    lab.reload(spec());
    assert_eq!(lab.counters.session_reload_ends.get(), 2);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, stranger, external, b"?"), Drop::Unsolicited);
    assert_eq!(out(&mut lab, end("192.168.1.11:4001")).1, 4001);
    // The same name and port, another inside host: not the same.
    lab.reload(with);
    lab.pass(OUTSIDE, &udp(OUTSIDE, stranger, external, b"?"), INSIDE);
    let before = lab.counters.session_reload_ends.get();
    lab.reload(Spec { forwards: vec![forward("dns", external, end("192.168.1.21:53"))], ..spec() });
    assert_eq!(lab.counters.session_reload_ends.get(), before + 1);
}

/// An inside host that gets a whole address of its own, out of a pool, and loses it again.
#[test]
fn a_static_entry_takes_its_address() {
    let mut lab = Lab::new(halves());
    let clients: Vec<End> = (1..=8).map(|host| (Ipv4Addr::new(192, 168, 1, host), 4000)).collect();
    let externals: BTreeMap<End, End> = clients.iter().map(|&client| (client, out(&mut lab, client))).collect();
    let host = Ipv4Addr::new(192, 168, 1, 1);
    let entry = StaticNat {
        name: "mail".into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        external: Ipv4Addr::new(203, 0, 113, 2),
        inside: host,
        filtering: Filtering::EndpointIndependent,
    };
    let mut with = Spec { static_nat: vec![entry], ..halves() };
    with.pools[0] = pool_named("low", &["203.0.113.1"]);
    lab.reload(with);
    for (&client, &external) in &externals {
        let now = out(&mut lab, client);
        if client.0 == host {
            assert_eq!(now.0, Ipv4Addr::new(203, 0, 113, 2));
        } else if external.0.octets()[3] == 1 {
            assert_eq!(now, external, "its address stays");
        } else {
            assert_eq!(now.0, Ipv4Addr::new(203, 0, 113, 1), "the address is another's now");
        }
    }
    lab.reload(halves());
    assert!(clients.iter().all(|&client| [1, 2].contains(&out(&mut lab, client).0.octets()[3])));
    assert_eq!(lab.leases.free_blocks(1).1, 1024, "all of it can be leased again");
}

/// A mapping that only holds its port down does not stand in the way.
#[test]
fn a_held_down_port_is_given_up_when_it_belongs_to_something_else() {
    let filtering = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let cone = || Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() };
    let mut lab = Lab::new(cone());
    let external = out(&mut lab, end("192.168.1.10:4000"));
    lab.wait_secs(301);
    assert_eq!(lab.counters.mappings_held.get(), 1);
    lab.reload(Spec { forwards: vec![forward("dns", external, end("192.168.1.20:53"))], ..cone() });
    assert_eq!(lab.counters.mappings_held.get(), 0);
    let frame = lab.pass(OUTSIDE, &udp(OUTSIDE, server(), external, b"?"), INSIDE);
    assert_eq!(read(&frame).destination, end("192.168.1.20:53"));
}

/// A filtering that becomes stricter holds at once, for mappings that exist.
#[test]
fn a_stricter_filtering_holds_at_once() {
    let with = |filtering: Filtering| {
        let filtering = FilteringSet { udp: filtering, ..FilteringSet::default() };
        Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() }
    };
    let mut lab = Lab::new(with(Filtering::EndpointIndependent));
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    let stranger = udp(OUTSIDE, end("198.18.0.9:9"), external, b"?");
    lab.pass(OUTSIDE, &stranger, INSIDE);
    lab.reload(with(Filtering::AddressPortDependent));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.10:9"), external, b"?"), Drop::Filtered);
    answered(&mut lab, external, client);
    lab.reload(with(Filtering::EndpointIndependent));
    lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.18.0.11:9"), external, b"?"), INSIDE);
}

/// A stricter filtering holds for the first packet under it, whether or not the sweep has come by.
#[test]
fn a_stricter_filtering_does_not_wait_for_the_sweep() {
    let with = |filtering: Filtering| {
        let filtering = FilteringSet { udp: filtering, ..FilteringSet::default() };
        Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() }
    };
    let mut lab = Lab::new(with(Filtering::EndpointIndependent));
    let external = out(&mut lab, end("192.168.1.10:4000"));
    lab.begin_reload(with(Filtering::AddressPortDependent));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.9:9"), external, b"?"), Drop::Filtered);
}

/// Whoever the host speaks with may come by another port as soon as the rule says so.
#[test]
fn a_filtering_by_address_knows_the_sessions_of_before() {
    let with = |filtering: Filtering| {
        let filtering = FilteringSet { udp: filtering, ..FilteringSet::default() };
        Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() }
    };
    let mut lab = Lab::new(with(Filtering::AddressPortDependent));
    let external = out(&mut lab, end("192.168.1.10:4000"));
    let known = (server().0, 999);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, known, external, b"?"), Drop::Filtered);
    lab.reload(with(Filtering::AddressDependent));
    lab.pass(OUTSIDE, &udp(OUTSIDE, known, external, b"?"), INSIDE);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.9:9"), external, b"?"), Drop::Filtered);
}

/// ICMP errors do not use what a reload has ended either.
#[test]
fn errors_about_sessions_that_are_ended_stay_outside() {
    let mut lab = Lab::new(spec());
    let client = end("192.168.1.10:4000");
    let sent = lab.pass(INSIDE, &udp(INSIDE, client, server(), b"ask"), OUTSIDE);
    let router = Ipv4Addr::new(198, 18, 9, 9);
    let error = icmp(OUTSIDE, router, read(&sent).source.0, 3, 1, [0; 4], &sent[14..]);
    lab.pass(OUTSIDE, &error, INSIDE);
    lab.begin_reload(Spec { nat44: vec![named("subscribers", "192.168.77.0/24", 0)], ..spec() });
    lab.dropped(OUTSIDE, &error, Drop::IcmpErrorNoSession);
    assert_eq!(lab.counters.session_reload_ends.get(), 1);
}

/// A network that is no longer routed inside is not sought outside, by answers, strangers or errors.
#[test]
fn nothing_is_translated_to_the_wrong_side() {
    let filtering = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let cone = || Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() };
    let mut lab = Lab::new(cone());
    let client = end("192.168.50.10:4000");
    let sent = lab.pass(INSIDE, &udp(INSIDE, client, server(), b"ask"), OUTSIDE);
    let external = read(&sent).source;
    let mut lost = cone();
    lost.routes.retain(|route| route.prefix != prefix("192.168.0.0/16"));
    lab.reload(lost);
    for remote in [server(), end("198.18.0.9:9")] {
        let seen = lab.send(OUTSIDE, &udp(OUTSIDE, remote, external, b"?"));
        assert_eq!(seen.frames.len(), 1);
        let told = read_error(&seen.frames[0].1);
        assert_eq!((told.kind, told.code, told.destination), (3, 0, remote.0.into()));
    }
    let error = icmp(OUTSIDE, Ipv4Addr::new(198, 18, 9, 9), external.0, 3, 1, [0; 4], &sent[14..]);
    lab.dropped(OUTSIDE, &error, Drop::NoRoute);
    lab.reload(cone());
    answered(&mut lab, external, client);
}

/// Two rules with one pool share a host's mappings. What each lets in stays its own through a reload, and a mapping whose
/// rule goes becomes the other's.
#[test]
fn a_mapping_that_two_rules_use_stays_the_first_ones() {
    let cone = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let closed = || Nat44Rule { destination: vec![prefix("198.18.0.0/24")], ..named("closed", "192.168.0.0/16", 0) };
    let open = || Nat44Rule { filtering: cone, ..named("open", "192.168.0.0/16", 0) };
    let both = || Spec { nat44: vec![closed(), open()], ..spec() };
    let mut lab = Lab::new(both());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    let frame = lab.pass(INSIDE, &udp(INSIDE, client, end("198.19.0.1:53"), b"ask"), OUTSIDE);
    assert_eq!(read(&frame).source, external);
    let stranger = udp(OUTSIDE, end("198.18.0.9:9"), external, b"?");
    lab.dropped(OUTSIDE, &stranger, Drop::Filtered);
    lab.reload(Spec { timers: Timers { hold_down: std::time::Duration::ZERO, ..Timers::default() }, ..both() });
    lab.dropped(OUTSIDE, &stranger, Drop::Filtered);
    lab.reload(Spec { nat44: vec![open()], ..spec() });
    assert_eq!(lab.counters.session_reload_ends.get(), 1, "that of the rule that is gone");
    lab.pass(OUTSIDE, &stranger, INSIDE);
}

/// An interface's own address, and one that has a forward, are drained like any other.
#[test]
fn addresses_with_another_use_are_drained_too() {
    let own = || PoolSpec { name: "public".into(), ..pool(&["198.51.100.2"], 1..=65535) };
    let beside = |address: &str| Spec { pools: vec![pool(&[address], 1..=65535)], ..spec() };
    let mut lab = Lab::new(Spec { pools: vec![own()], ..spec() });
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    assert_eq!(external.0, Ipv4Addr::new(198, 51, 100, 2));
    let forward = || forward("dns", (external.0, 53), end("192.168.1.20:53"));
    for forwards in [vec![], vec![forward()]] {
        lab.reload(Spec { forwards, ..beside("203.0.113.5") });
        assert_eq!(out(&mut lab, client), external);
        answered(&mut lab, external, client);
        assert_eq!(out(&mut lab, end("192.168.1.11:4000")).0, Ipv4Addr::new(203, 0, 113, 5));
    }
    let frame = lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.18.0.9:9"), (external.0, 53), b"?"), INSIDE);
    assert_eq!(read(&frame).destination, end("192.168.1.20:53"));
    assert_eq!(lab.counters.session_reload_ends.get(), 0);
}

/// Between reloads too an address that is empty is let go, and nothing else moves: not the places of interfaces that a
/// reload has taken away either.
#[test]
fn an_empty_address_is_let_go_between_reloads() {
    let with = |ranges: &[&str]| Spec { pools: vec![pool(ranges, 1..=65535)], ..spec() };
    let mut more = with(&["203.0.113.5"]);
    let guests = InterfaceSpec {
        name: "guests".into(),
        vlan: Some(9),
        addresses: vec![prefix("10.9.0.1/24")],
        ..more.interfaces[0].clone()
    };
    more.interfaces.push(guests);
    let mut lab = Lab::new(more);
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    lab.reload(with(&["203.0.113.6"]));
    let other = end("192.168.1.11:4000");
    let elsewhere = out(&mut lab, other);
    let drained = |lab: &Lab| lab.worker.engine().plan().without_drained(&lab.leases).unwrap();
    assert!(drained(&lab).external(external.0.to_bits()).is_some(), "it is not empty");
    lab.wait_secs(200);
    assert_eq!(out(&mut lab, other), elsewhere);
    lab.wait_secs(200);
    for _ in 0..3 {
        let old = Arc::clone(lab.worker.engine().plan());
        let plan = Arc::new(drained(&lab));
        assert!(plan.external(external.0.to_bits()).is_none());
        assert_eq!((plan.spec.interfaces.len(), plan.spec.generation), (3, old.spec.generation));
        lab.leases = Arc::new(lab.leases.succeed(&old, &plan));
        lab.to_worker.send(ToWorker::Plan { plan, leases: Arc::clone(&lab.leases) }).unwrap();
        assert_eq!(lab.run().swept, None);
        assert_eq!(out(&mut lab, other), elsewhere);
    }
    assert_eq!(lab.counters.session_reload_ends.get(), 0);
}

/// An address that comes back before it is empty gives out ports at once.
#[test]
fn a_drained_address_may_come_back() {
    let with = |ranges: &[&str]| Spec { pools: vec![pool(ranges, 1..=65535)], ..spec() };
    let mut lab = Lab::new(with(&["203.0.113.5"]));
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    lab.reload(with(&["203.0.113.6"]));
    lab.begin_reload(with(&["203.0.113.5"]));
    lab.run();
    assert_eq!(out(&mut lab, end("192.168.1.10:4001")), (external.0, 4001));
    answered(&mut lab, external, client);
}

/// A higher rate of ICMP errors holds at once, though the lower one has been used up for minutes ahead.
#[test]
fn a_higher_rate_of_errors_holds_at_once() {
    let with = |rate| Spec { icmp: IcmpPolicy { rate, burst: 100, ..IcmpPolicy::default() }, ..spec() };
    let mut lab = Lab::new(with(1));
    let expired = udp_ttl(INSIDE, end("192.168.1.10:4000"), server(), b"", 1);
    for _ in 0..150 {
        lab.send(INSIDE, &expired);
    }
    assert_eq!(lab.counters.icmp_rate_limited.get(), 50);
    lab.reload(with(1000));
    lab.send(INSIDE, &expired);
    lab.wait(std::time::Duration::from_millis(1));
    assert_eq!(lab.send(INSIDE, &expired).frames.len(), 1);
}

/// Interfaces and zones keep their places too: a new one before the others, and one gone.
#[test]
fn interfaces_and_zones_are_known_by_their_names() {
    let mut lab = Lab::new(spec());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    let mut more = spec();
    more.zones.insert(0, "guests".into());
    more.interfaces.iter_mut().for_each(|it| it.zone.0 += 1);
    (more.nat44[0].from, more.nat44[0].to) = (ZoneId(1), ZoneId(2));
    more.interfaces.insert(
        0,
        InterfaceSpec {
            name: "guests".into(),
            port: PortId(0),
            vlan: Some(9),
            zone: ZoneId(0),
            addresses: vec![prefix("10.9.0.1/24")],
            ..more.interfaces[0].clone()
        },
    );
    for route in &mut more.routes {
        route.next_hop = match route.next_hop {
            NextHop::Via(via, id) => NextHop::Via(via, InterfaceId(id.0 + 1)),
            other => other,
        };
    }
    lab.reload(more);
    assert_eq!(out(&mut lab, client), external);
    answered(&mut lab, external, client);
    assert_eq!(lab.worker.engine().plan().interface(InterfaceId(2)).unwrap().name, "guests");
    lab.reload(spec());
    assert_eq!(out(&mut lab, client), external);
    assert_eq!(lab.counters.session_reload_ends.get(), 0);
}

/// New times are for the packets that come after.
#[test]
fn timers_hold_from_the_next_packet_on() {
    let mut lab = Lab::new(spec());
    let client = end("192.168.1.10:4000");
    let external = out(&mut lab, client);
    let timers = Timers { udp: std::time::Duration::from_secs(600), ..Timers::default() };
    lab.reload(Spec { timers, ..spec() });
    lab.wait_secs(299);
    answered(&mut lab, external, client);
    lab.wait_secs(599);
    answered(&mut lab, external, client);
}

#[test]
fn what_was_fixed_at_start_is_refused() {
    let lab = Lab::new(spec());
    let plan = lab.worker.engine().plan();
    let mut other = spec();
    other.ports.push(dataplane::plan::PortSpec { name: "dmz".into() });
    assert!(dataplane::plan::Plan::succeed(plan, &lab.leases, other).is_err());
    let many = Spec { pools: vec![pool(&["203.0.112.0-203.0.119.255"], 1..=65535)], ..spec() };
    let error = dataplane::plan::Plan::succeed(plan, &lab.leases, many).unwrap_err();
    assert!(error.to_string().contains("1024"), "{error}");
}

/// A generator of random numbers (Steele, Lea, Flood 2014: SplitMix64).
fn noise(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % below
    }
}

/// A random configuration around one rule, pool and forward that are always the same.
fn random_spec(noise: &mut impl FnMut(u64) -> u64, limits: Limits) -> Spec {
    let mut spec = Spec { limits, pools: Vec::new(), nat44: Vec::new(), ..spec() };
    // Up to three other pools, of addresses that move between them.
    let mut addresses: Vec<String> = (100..112).map(|last| format!("203.0.113.{last}")).collect();
    for name in ["red", "green", "blue"] {
        if noise(4) > 0 {
            let count = 1 + noise(4) as usize;
            let mut own = Vec::new();
            for _ in 0..count.min(addresses.len()) {
                own.push(addresses.swap_remove(noise(addresses.len() as u64) as usize));
            }
            let first = [1, 1024, 2000][noise(3) as usize];
            let last = [65535, 40000, 5000][noise(3) as usize];
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            spec.pools.push(PoolSpec { name: name.into(), ..pool(&own, first..=last) });
        }
    }
    for name in ["one", "two", "three", "four"] {
        if noise(4) > 0 && !spec.pools.is_empty() {
            let source = format!("192.168.{}.0/2{}", noise(4), noise(5));
            let source = prefix(&source).network().to_string();
            let filtering =
                [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressPortDependent]
                    [noise(3) as usize];
            let filtering = FilteringSet { tcp: filtering, udp: filtering, icmp: filtering };
            let pool = noise(spec.pools.len() as u64) as u16;
            spec.nat44.push(Nat44Rule { filtering, ..named(name, &source, pool) });
        }
    }
    for name in ["web", "dns"] {
        if noise(2) > 0 && !spec.pools.is_empty() {
            let pool = &spec.pools[noise(spec.pools.len() as u64) as usize];
            let external = (*pool.addresses[0].start(), 3000 + noise(3) as u16);
            let inside = (Ipv4Addr::new(192, 168, noise(4) as u8, 5), 53);
            if spec.forwards.iter().all(|it| (it.external, *it.external_ports.start()) != external) {
                spec.forwards.push(forward(name, external, inside));
            }
        }
    }
    if noise(3) == 0 && !addresses.is_empty() {
        spec.static_nat.push(StaticNat {
            name: "mail".into(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(1),
            external: addresses[0].parse().unwrap(),
            inside: Ipv4Addr::new(192, 168, noise(4) as u8, 6),
            filtering: Filtering::EndpointIndependent,
        });
    }
    let at = noise(spec.pools.len() as u64 + 1) as usize;
    spec.pools.insert(at, pool_named("steady", &["203.0.113.5-203.0.113.6"]));
    spec.nat44.iter_mut().filter(|rule| usize::from(rule.pool.0) >= at).for_each(|rule| rule.pool.0 += 1);
    spec.nat44.insert(noise(spec.nat44.len() as u64 + 1) as usize, named("steady", "192.168.77.0/24", at as u16));
    spec.forwards.insert(
        noise(spec.forwards.len() as u64 + 1) as usize,
        forward("steady", end("203.0.113.5:7000"), end("192.168.77.9:53")),
    );
    if noise(3) == 0 {
        spec.interfaces.push(InterfaceSpec {
            name: format!("guests{}", noise(3)),
            vlan: Some(9),
            zone: ZoneId(2),
            addresses: vec![prefix("10.9.0.1/24")],
            ..spec.interfaces[0].clone()
        });
        spec.zones.push(format!("guests{}", noise(3)));
    }
    spec
}

/// Every external port has one owner: no two sessions of one protocol and remote end, and no two mappings, share one; and
/// what a forward or static entry has, no mapping has.
fn one_owner_each(lab: &Lab) {
    let mut mapped = BTreeSet::new();
    let epoch = lab.worker.engine().epoch();
    for mapping in lab.worker.engine().shards().iter().flat_map(dataplane::session::Shard::mappings) {
        let key = (mapping.external, mapping.proto as u8, mapping.external_port);
        assert!(mapped.insert(key), "a port with two mappings");
    }
    let mut outside = BTreeSet::new();
    for session in lab.worker.engine().shards().iter().flat_map(dataplane::session::Shard::sessions) {
        let of = session.outside();
        let key = (session.proto as u8, of.source, of.source_port, of.destination, of.destination_port);
        if session.deadline > lab.now && session.epoch == epoch {
            assert!(outside.insert(key), "two sessions that look the same outside");
        }
    }
}

/// 1,000 random valid reloads under load: nothing is lost in the rule that does not change, the law of conservation holds
/// after every poll, no port has two owners, and when all sessions are over all memory is back.
#[test]
fn a_thousand_reloads_under_load() {
    let limits = Limits { sessions: 4096, mappings: 4096, ..Limits::default() };
    let mut noise = noise(2026);
    let mut lab = Lab::new(random_spec(&mut noise, limits));
    let before = lab.worker.engine().arenas().free();
    let steady: Vec<End> = (1..=8).map(|host| (Ipv4Addr::new(192, 168, 77, host), 4000)).collect();
    let externals: Vec<End> = steady.iter().map(|&client| out(&mut lab, client)).collect();
    let syn = lab.pass(INSIDE, &tcp(INSIDE, end("192.168.77.1:80"), end("198.18.0.2:80"), "S", 1, 0, b""), OUTSIDE);
    let tcp_outside = read(&syn).source;
    for round in 0..1000 {
        let spec = random_spec(&mut noise, limits);
        lab.begin_reload(spec);
        let generation = lab.worker.engine().plan().spec.generation + 1;
        let mut swept = None;
        let mut steps = 0;
        while swept.is_none() {
            // Load, in the middle of it: of the steady rule, and of all others.
            for (&client, &external) in steady.iter().zip(&externals) {
                let mut frames = vec![(INSIDE, udp(INSIDE, client, server(), b"ask"))];
                frames.push((OUTSIDE, udp(OUTSIDE, server(), external, b"answer")));
                for (interface, frame) in frames {
                    let seen = lab.send(interface, &frame);
                    assert_eq!(seen.frames.len(), 1, "round {round}: {:?}", lab.drops());
                    let read = read(&seen.frames[0].1);
                    assert!(read.source == external || read.destination == client, "round {round}");
                    swept = swept.or(seen.swept);
                }
            }
            for _ in 0..4 {
                let client = (Ipv4Addr::new(192, 168, noise(4) as u8, 1 + noise(8) as u8), 2990 + noise(40) as u16);
                let seen = lab.send(INSIDE, &udp(INSIDE, client, server(), b"ask"));
                swept = swept.or(seen.swept);
                let external = (Ipv4Addr::new(203, 0, 113, 100 + noise(12) as u8), 2990 + noise(40) as u16);
                let seen = lab.send(OUTSIDE, &udp(OUTSIDE, server(), external, b"answer"));
                swept = swept.or(seen.swept);
            }
            one_owner_each(&lab);
            lab.check();
            steps += 1;
            assert!(steps < 1000, "the sweep ends");
        }
        assert_eq!(swept, Some(generation));
        lab.end_reload();
        one_owner_each(&lab);
        // A stranger finds the forward, and the connection lives.
        let stranger = (Ipv4Addr::new(198, 18, 1, noise(256) as u8), 999);
        lab.pass(OUTSIDE, &udp(OUTSIDE, stranger, end("203.0.113.5:7000"), b"?"), INSIDE);
        lab.pass(OUTSIDE, &tcp(OUTSIDE, end("198.18.0.2:80"), tcp_outside, "SA", 1, 2, b""), INSIDE);
        lab.wait_secs(1 + noise(20));
    }
    assert!(lab.counters.session_reload_ends.get() > 1000, "the others did change");
    // All over: every record, every segment and every port is back.
    lab.wait_secs(10_000);
    lab.wait_secs(Timers::default().hold_down.as_secs());
    assert_eq!(lab.sessions() + lab.mappings().iter().sum::<u64>() + lab.counters.mappings_held.get(), 0);
    assert_eq!(lab.worker.engine().arenas().free(), before);
    let plan = Arc::clone(lab.worker.engine().plan());
    for &id in plan.pools.iter().flatten() {
        let (free, leasable) = lab.leases.free_blocks(id);
        assert_eq!((free, lab.leases.ports_used(id)), (leasable, [0; 3]));
        assert!(!lab.leases.is_leased(id));
    }
}

/// The host may answer by an interface that a reload has just taken away: its frame goes nowhere, and is counted.
#[test]
fn a_frame_for_an_interface_that_is_gone_is_dropped_by_name() {
    let mut guests = spec().interfaces[0].clone();
    (guests.name, guests.vlan, guests.addresses) = ("guests".into(), Some(20), vec![prefix("192.168.20.1/24")]);
    let mut lab = Lab::new(Spec { interfaces: [spec().interfaces, vec![guests]].concat(), ..spec() });
    let send = |lab: &mut Lab| {
        let frame = ToWorker::Frame { interface: InterfaceId(2), frame: [0xff; 60].into() };
        lab.to_worker.send(frame).unwrap();
        lab.run().frames.len()
    };
    assert_eq!(send(&mut lab), 1);
    lab.reload(spec());
    lab.recount();
    assert_eq!(send(&mut lab), 0);
    lab.counted("from-host, drop-host-packet");
}
