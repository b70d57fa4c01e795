//! NAT44 mapping, filtering, UDP: requirements §1, and what of §4 (pools, exhaustion) goes with it.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_precision_loss)]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use common::moves::moves;
use common::scene::{error, filtering, forward, one_to_one, tagged, with_header, with_pool, with_rule};
use common::{End, INSIDE, Lab, OUTSIDE, PEER, echo, end, pool, prefix, read, rule, spec, tcp, udp};
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::packet::HeapPacket;
use dataplane::plan::{
    Filtering, ForwardProtocol, IcmpPolicy, InterfaceId, Limits, Nat44Rule, PoolId, Pooling, PortId, PortSpec, Spec,
    Timers,
};
use dataplane::steer::shard_of4;

/// The inside host, and another.
const H: &str = "192.168.1.10:4000";
/// Outside servers.
const S: &str = "198.18.0.1:1000";
const S2: &str = "198.18.0.2:1000";

fn host(last: u8, port: u16) -> End {
    (Ipv4Addr::new(192, 168, 1, last), port)
}

/// An inside endpoint for any number.
fn some_host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xc0a8_0200 + number)
}

// --- Mapping ----------------------------------------------------------------------------------------------------------

/// N44-01, N44-31: one inside endpoint keeps one external endpoint for every destination; replies come back.
#[test]
fn n44_01_mapping_is_endpoint_independent() {
    let mut lab = Lab::default_lab();
    let host = end(H);
    let mut seen = Vec::new();
    for server in ["198.18.0.1:1", "198.18.0.1:2", "198.18.0.2:1"] {
        let out = read(&lab.pass(INSIDE, &udp(INSIDE, host, end(server), b"hello"), OUTSIDE));
        assert_eq!((out.destination, out.ttl, &out.payload[..]), (end(server), 63, &b"hello"[..]));
        seen.push(out.source);
        let back = read(&lab.pass(OUTSIDE, &udp(OUTSIDE, end(server), out.source, b"reply"), INSIDE));
        assert_eq!((back.source, back.destination, back.ttl), (end(server), host, 63));
    }
    assert_eq!(seen, [end("203.0.113.5:4000"); 3], "and the port is kept (N44-09)");
    lab.moved(moves().outbound(3).inbound(3).opened("udp-active", 3, 1));
}

/// N44-02: an endpoint's TCP and UDP mappings are two; the end of one leaves the other.
#[test]
fn n44_02_mappings_of_tcp_and_udp_are_apart() {
    let mut lab = Lab::default_lab();
    let by_tcp = lab.syn_out(end(H), end(S));
    assert_eq!(lab.udp_out(end(H), end(S)), by_tcp, "the same number, from two tables");
    assert_eq!(lab.mappings(), [1, 1, 0]);
    lab.pass(OUTSIDE, &tcp(OUTSIDE, end(S), by_tcp, "SA", 1, 1001, b""), INSIDE);
    lab.recount();
    lab.wait_secs(301);
    lab.moved(moves().expired("udp-active", 1, 1));
    assert_eq!(lab.mappings(), [1, 0, 0]);
    lab.pass(OUTSIDE, &tcp(OUTSIDE, end(S), by_tcp, "A", 2, 1001, b""), INSIDE);
}

/// N44-04: all flows of an inside address, of all protocols, come from one external address; other hosts from others.
#[test]
fn n44_04_paired_pooling() {
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.0-203.0.113.15"], 1..=65535)));
    let mut seen = HashSet::new();
    for port in 5000..6000 {
        let from = match port % 3 {
            0 => lab.udp_out(host(10, port), end(S)),
            1 => lab.syn_out(host(10, port), end(S)),
            _ => lab.ping_out(host(10, port), end(S).0),
        };
        seen.insert(from.0);
    }
    assert_eq!(seen.len(), 1, "one external address for 1000 flows");
    let of_others: HashSet<Ipv4Addr> = (0..200).map(|n| lab.udp_out((some_host(n), 5000), end(S)).0).collect();
    assert!(of_others.len() > 12, "the other hosts use the whole /28: {of_others:?}");
}

/// N44-05: the paired address is full: a new flow is refused (strict, the default), answered, and counted.
#[test]
fn n44_05_strict_pairing_refuses_at_exhaustion() {
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.4-203.0.113.5"], 1024..=1087)));
    let used: HashSet<End> = (0..64).map(|n| lab.udp_out(host(10, 5000 + n), end(S))).collect();
    assert_eq!(used.len(), 64, "64 ports for 64 endpoints");
    assert_eq!(used.iter().map(|end| end.0).collect::<HashSet<_>>().len(), 1);
    assert!(used.iter().all(|end| (1024..=1087).contains(&end.1)));
    lab.recount();
    let answer = lab.refused(INSIDE, &udp(INSIDE, host(10, 6000), end(S), b"65"), Drop::NoPort);
    assert_eq!(answer.transport[..2], [3, 1], "host unreachable (D2)");
    lab.moved(
        moves().dropped("inside", Drop::NoPort, 1).answered("inside", "icmp4-3/1", 1).and("mapping-failures-ports", 1),
    );
    // Known endpoints, also to new destinations, and other protocols and hosts are not touched.
    assert!(used.contains(&lab.udp_out(host(10, 5063), end(S2))));
    let paired = used.iter().next().unwrap().0;
    assert_eq!(lab.syn_out(host(10, 6000), end(S2)).0, paired);
    assert!(!used.contains(&lab.udp_out(host(11, 5000), end(S))));
}

/// N44-05: with `paired-soft` the 65th flow takes a second address, and the first is used again when it has a port.
#[test]
fn n44_05_soft_pairing_takes_a_second_address() {
    let soft = Nat44Rule { pooling: Pooling::PairedSoft, ..rule() };
    let pools = vec![pool(&["203.0.113.4-203.0.113.5"], 1024..=1087)];
    let mut lab = Lab::new(Spec { pools, ..with_rule(soft) });
    let used: HashSet<End> = (0..64).map(|n| lab.udp_out(host(10, 5000 + n), end(S))).collect();
    let first = used.iter().next().unwrap().0;
    assert!(used.iter().all(|end| end.0 == first));
    lab.wait_secs(200);
    for n in 1..64 {
        lab.udp_out(host(10, 5000 + n), end(S));
    }
    let spilt = lab.udp_out(host(10, 6000), end(S));
    assert_ne!(spilt.0, first);
    lab.wait_secs(101); // only the flow from port 5000 has been idle for 300 s
    assert_eq!(lab.mappings(), [0, 64, 0]);
    assert_eq!(lab.udp_out(host(10, 6001), end(S)).0, first, "the pairing is as it was");
}

/// N44-06: no external port is given to two inside endpoints, for any protocol.
#[test]
fn n44_06_no_overloading() {
    let mut lab = Lab::default_lab();
    let mut seen = HashSet::new();
    for last in 10..110 {
        assert!(seen.insert(("udp", lab.udp_out(host(last, 4000), end(S)))));
        assert!(seen.insert(("tcp", lab.syn_out(host(last, 4000), end(S)))));
        assert!(seen.insert(("icmp", lab.ping_out(host(last, 4000), end(S).0))));
    }
    assert_eq!(lab.mappings(), [100; 3]);
}

/// N44-07: ports below 1024 are mapped below 1024 and others above, while there are any; then to the other side.
#[test]
fn n44_07_port_ranges_are_kept() {
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.5"], 1000..=1100)));
    for source in 1..=24 {
        let external = lab.udp_out(host(10, source), end(S)).1;
        assert!((1000..1024).contains(&external), "{source} -> {external}");
    }
    let external = lab.udp_out(host(10, 500), end(S)).1;
    assert!((1024..=1100).contains(&external), "no low port is left: {external}");
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.5"], 1000..=1100)));
    for source in 5000..5077 {
        let external = lab.udp_out(host(10, source), end(S)).1;
        assert!((1024..=1100).contains(&external), "{source} -> {external}");
    }
    let external = lab.udp_out(host(10, 6000), end(S)).1;
    assert!((1000..1024).contains(&external), "no high port is left: {external}");
}

/// N44-08: parity is kept, also where the port is not.
#[test]
fn n44_08_port_parity_is_kept() {
    let mut lab = Lab::new(with_rule(Nat44Rule { port_preservation: false, ..rule() }));
    let mut kept = 0;
    for n in 0..200u16 {
        let source = 1024 + n * 317;
        let external = lab.udp_out(host(10, source), end(S)).1;
        assert_eq!(external % 2, source % 2, "{source} -> {external}");
        kept += u32::from(external == source);
    }
    assert!(kept < 5, "preservation is off");
    // When the pool has no port of that parity left, one of the other is better than none.
    let without = Nat44Rule { port_preservation: false, ..rule() };
    let mut lab = Lab::new(Spec { pools: vec![pool(&["203.0.113.5"], 1024..=1087)], ..with_rule(without) });
    for n in 0..32 {
        assert_eq!(lab.udp_out(host(10, 5000 + 2 * n), end(S)).1 % 2, 0);
    }
    assert_eq!(lab.udp_out(host(10, 6000), end(S)).1 % 2, 1);
}

/// N44-09: a free port is kept; a taken one gives way to another on the same side of 1024.
#[test]
fn n44_09_port_preservation() {
    let mut lab = Lab::default_lab();
    // Two hosts of one shard: another might have leased the block that a port is in.
    let shard = |last: u8| shard_of4(host(last, 0).0.to_bits());
    let twin = (11..=254).find(|&last| shard(last) == shard(10)).expect("4 hosts of a /24 are in a shard");
    for source in [1, 80, 1023, 1024, 4000, 65535] {
        assert_eq!(lab.udp_out(host(10, source), end(S)).1, source);
        let other = lab.udp_out(host(twin, source), end(S)).1;
        assert_ne!(other, source);
        assert_eq!(other < 1024, source < 1024, "{source} -> {other}");
    }
}

/// N44-10: ports that are chosen are not to be guessed: uniform over the range from an empty gateway, over the block and
/// without runs in a full one, and others with another secret.
#[test]
fn n44_10_ports_are_unpredictable() {
    let random = || Nat44Rule { port_preservation: false, port_parity: false, ..rule() };
    let mut lab =
        Lab::new(Spec { timers: Timers { udp: Duration::from_secs(1), ..Timers::default() }, ..with_rule(random()) });
    let mut one_by_one = Vec::new();
    for n in 0..10_000 {
        one_by_one.push(lab.udp_out((some_host(n % 30_000), 5000), end(S)).1);
        lab.wait_secs(2);
    }
    assert!(one_by_one.iter().all(|&port| port >= 1024));
    let uniform = |values: &mut dyn Iterator<Item = usize>, bins: usize, what: &str| {
        let mut counts = vec![0u32; bins];
        values.for_each(|value| counts[value] += 1);
        let expected = f64::from(counts.iter().sum::<u32>()) / bins as f64;
        let chi2: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        // The 99.99th percentile for 62 and 63 degrees of freedom is about 110.
        assert!(chi2 < 110.0, "{what}: chi-square {chi2} over {bins} bins");
    };
    uniform(&mut one_by_one.iter().map(|port| usize::from(port / 1024) - 1), 63, "the range");
    uniform(&mut one_by_one.iter().map(|port| usize::from(port % 64)), 64, "the block");
    let steps = |ports: &[u16]| ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect::<Vec<u16>>();
    uniform(&mut steps(&one_by_one).iter().map(|step| usize::from(step % 64)), 64, "the step to the next");

    // 10,000 at a time, of ten hosts.
    let limits = Limits { sessions: 20_000, mappings: 20_000, ..Limits::default() };
    let mut lab = Lab::new(Spec { limits, ..with_rule(random()) });
    for last in 10..20 {
        let ports: Vec<u16> = (0..1000).map(|n| lab.udp_out(host(last, 5000 + n), end(S)).1).collect();
        let sequential = steps(&ports).iter().map(|&step| step == 1 || step == u16::MAX).collect::<Vec<_>>();
        let neighbours = sequential.iter().filter(|&&next| next).count();
        assert!(neighbours < 80, "1 of 32 by chance, {neighbours} of 999 seen");
        assert!(!sequential.windows(4).any(|run| run.iter().all(|&next| next)), "a run of five ports");
    }

    let ports_with = |secret: [u8; 16]| {
        let mut lab = Lab::new(Spec { secret, ..with_rule(random()) });
        (0..50).map(|n| lab.udp_out(host(10, 5000 + n), end(S)).1).collect::<Vec<_>>()
    };
    let (one, other) = (ports_with(*b"0123456789abcdef"), ports_with(*b"0123456789abcdeg"));
    let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same <= 1, "another secret, other ports: {same} of 50 are the same");
}

// --- Timers -----------------------------------------------------------------------------------------------------------

/// After an idle time, does a reply still pass?
fn alive_after(spec: Spec, server: &str, idle: u64) -> bool {
    let mut lab = Lab::new(spec);
    let external = lab.udp_out(end(H), end(server));
    lab.wait_secs(idle);
    lab.recount();
    let alive = lab.udp_in(end(server), external, end(H));
    lab.moved(if alive { moves().inbound(1) } else { moves().dropped("outside", Drop::Unsolicited, 1) });
    assert_eq!(lab.sessions(), u64::from(alive), "and not a second later is it gone");
    alive
}

/// N44-11: the UDP timer can be set to 120 s, and holds what it says.
#[test]
fn n44_11_udp_timer_is_configurable() {
    let spec = || Spec { timers: Timers { udp: Duration::from_secs(120), ..Timers::default() }, ..spec() };
    assert!(alive_after(spec(), S, 119));
    assert!(!alive_after(spec(), S, 121));
}

/// N44-12: it is 300 s by default.
#[test]
fn n44_12_default_udp_timer() {
    assert!(alive_after(spec(), S, 299));
    assert!(!alive_after(spec(), S, 301));
}

/// N44-13: a shorter timer for one well-known destination port; all others keep theirs.
#[test]
fn n44_13_shorter_timer_for_a_port() {
    let timers = Timers { udp_ports: vec![(53, Duration::from_secs(10))], ..Timers::default() };
    let spec = || Spec { timers: timers.clone(), ..spec() };
    assert!(alive_after(spec(), "198.18.0.1:53", 9));
    assert!(!alive_after(spec(), "198.18.0.1:53", 11));
    assert!(alive_after(spec(), "198.18.0.1:54", 299));
}

/// N44-14: packets from inside keep a mapping alive; so do those from outside, unless the rule says otherwise.
#[test]
fn n44_14_refresh() {
    let knob = |inbound_refresh| with_rule(Nat44Rule { inbound_refresh, ..rule() });
    for refresh in [true, false] {
        let mut lab = Lab::new(knob(refresh));
        let external = lab.udp_out(end(H), end(S));
        for _ in 0..6 {
            lab.wait_secs(100);
            assert_eq!(lab.udp_out(end(H), end(S)), external);
        }
        lab.recount();
        assert!(lab.udp_in(end(S), external, end(H)), "ten minutes of packets from inside");
        lab.moved(moves().inbound(1));

        let alive = (0..6).all(|_| {
            lab.wait_secs(100);
            lab.udp_in(end(S), external, end(H))
        });
        assert_eq!(alive, refresh, "ten minutes of packets from outside alone");
    }
}

/// N44-14: without inbound refresh strangers that the mapping admits can't keep it alive either, one after the other.
#[test]
fn n44_14_strangers_do_not_keep_a_mapping() {
    let rule = Nat44Rule { inbound_refresh: false, ..filtering(Filtering::EndpointIndependent) };
    let mut lab = Lab::new(with_rule(rule));
    let external = lab.udp_out(end(H), end(S));
    lab.wait_secs(200);
    assert!(lab.udp_in(end(S2), external, end(H)));
    lab.wait_secs(90);
    assert!(lab.udp_in(end("198.18.0.3:1000"), external, end(H)));
    lab.wait_secs(11);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S2), external, b""), Drop::Unsolicited);
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
    // But H's answer to a stranger is a packet from inside.
    let external = lab.udp_out(end(H), end(S));
    lab.wait_secs(200);
    assert!(lab.udp_in(end(S2), external, end(H)));
    assert_eq!(lab.udp_out(end(H), end(S2)), external);
    lab.wait_secs(200);
    assert!(lab.udp_in(end("198.18.0.3:1000"), external, end(H)));
}

/// N44-15: packets that the filtering refuses do not keep a mapping alive.
#[test]
fn n44_15_refused_packets_do_not_refresh() {
    let mut lab = Lab::default_lab();
    let external = lab.udp_out(end(H), end(S));
    lab.recount();
    for _ in 0..299 {
        lab.wait_secs(1);
        assert!(!lab.udp_in(end(S2), external, end(H)));
    }
    lab.moved(moves().dropped("outside", Drop::Filtered, 299));
    lab.wait_secs(2);
    lab.moved(moves().expired("udp-active", 1, 1));
}

/// N44-16: the inside host's ICMP errors about what it receives do not refresh.
#[test]
fn n44_16_answers_by_errors_do_not_refresh() {
    let mut lab = Lab::new(with_rule(Nat44Rule { inbound_refresh: false, ..rule() }));
    let external = lab.udp_out(end(H), end(S));
    for _ in 0..2 {
        lab.wait_secs(149);
        let delivered = lab.pass(OUTSIDE, &udp(OUTSIDE, end(S), external, b"in"), INSIDE);
        let refusal = error(INSIDE, end(H).0, 3, 3, &delivered[14..]);
        assert_eq!(read(&lab.pass(INSIDE, &refusal, OUTSIDE)).source.0, external.0);
    }
    lab.recount();
    lab.wait_secs(3);
    lab.moved(moves().expired("udp-active", 1, 1));
}

// --- Filtering --------------------------------------------------------------------------------------------------------

/// Who reaches a mapping that has sent to S alone: S itself, another port of S, S2. And nobody reaches what is not mapped.
fn admitted(kind: Filtering) -> [bool; 3] {
    let mut lab = Lab::new(with_rule(filtering(kind)));
    let external = lab.udp_out(end(H), end(S));
    lab.recount();
    let seen = [S, "198.18.0.1:1001", S2].map(|from| lab.udp_in(end(from), external, end(H)));
    let passed = seen.iter().filter(|&&seen| seen).count() as i64;
    lab.moved(moves().inbound(passed).dropped("outside", Drop::Filtered, 3 - passed).opened(
        "udp-active",
        passed - 1,
        0,
    ));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), (external.0, 4001), b""), Drop::Unsolicited);
    seen
}

/// N44-18: the three filterings; the default is address and port dependent.
#[test]
fn n44_18_filtering() {
    assert_eq!(admitted(Filtering::EndpointIndependent), [true, true, true]);
    assert_eq!(admitted(Filtering::AddressDependent), [true, true, false]);
    assert_eq!(admitted(Filtering::AddressPortDependent), [true, false, false]);
    assert_eq!(Filtering::default(), Filtering::AddressPortDependent);
}

/// N44-18: address-dependent filtering forgets an address with its last flow.
#[test]
fn n44_18_permission_ends_with_the_flow() {
    let mut lab = Lab::new(with_rule(filtering(Filtering::AddressDependent)));
    let external = lab.udp_out(end(H), end(S));
    lab.wait_secs(200);
    lab.udp_out(end(H), end(S2));
    lab.wait_secs(101);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end("198.18.0.1:7"), external, b""), Drop::Filtered);
    assert!(lab.udp_in(end("198.18.0.2:7"), external, end(H)));
}

/// N44-18: one remote address with as many flows as there are ports has one permission: it ends with the last of them, and
/// no memory stays behind.
#[test]
fn n44_18_one_address_with_every_port() {
    let limits = Limits { sessions: 65_536, ..Limits::default() };
    let mut lab = Lab::new(Spec { limits, ..with_rule(filtering(Filtering::AddressDependent)) });
    let at_rest = lab.worker.engine().arenas().free();
    let (host, server) = (end(H), end(S).0);
    let external = lab.udp_out(host, (server, 1));
    lab.neighbour(INSIDE, host.0.into(), NeighbourState::Reachable(PEER));
    lab.run();
    lab.recount();
    let from = |port| udp(OUTSIDE, (server, port), external, b"");
    let all: Vec<_> = (2..=65_535).map(from).collect();
    assert_eq!(lab.send_all(OUTSIDE, &all).frames.len(), all.len());
    lab.moved(moves().inbound(65_534).opened("udp-active", 65_534, 0));
    // One record for all of them, hence one segment of its memory.
    assert_eq!(lab.worker.engine().arenas().free()[5], at_rest[5] - 1);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S2), external, b""), Drop::Filtered);
    // All but one end: that one still speaks for the address.
    lab.wait_secs(299);
    lab.pass(OUTSIDE, &from(40_000), INSIDE);
    lab.wait_secs(2);
    assert_eq!(lab.sessions(), 1);
    lab.pass(OUTSIDE, &from(2), INSIDE);
    // The first to end is not the last.
    lab.wait_secs(298);
    assert_eq!(lab.sessions(), 1);
    lab.pass(INSIDE, &udp(INSIDE, host, end(S2), b""), OUTSIDE);
    lab.wait_secs(3);
    assert_eq!((lab.sessions(), lab.mappings()), (1, [0, 1, 0]));
    lab.dropped(OUTSIDE, &from(2), Drop::Filtered);
    lab.wait_secs(301);
    assert_eq!(lab.worker.engine().arenas().free(), at_rest);
    assert_eq!(lab.leases.ports_used(0), [0; 3]);
}

/// N44-18: what admits strangers lets their flows live on, refreshed by both sides.
#[test]
fn n44_18_flows_of_strangers_are_flows() {
    let mut lab = Lab::new(with_rule(filtering(Filtering::EndpointIndependent)));
    let external = lab.udp_out(end(H), end(S));
    assert!(lab.udp_in(end(S2), external, end(H)));
    for _ in 0..3 {
        lab.wait_secs(250);
        assert_eq!(lab.udp_out(end(H), end(S2)), external);
    }
    assert_eq!((lab.sessions(), lab.mappings()), (1, [0, 1, 0]), "that with S has ended");
}

/// N44-19: a mapping of one protocol admits none of another.
#[test]
fn n44_19_filtering_is_per_protocol() {
    let mut lab = Lab::new(with_rule(filtering(Filtering::EndpointIndependent)));
    let by_tcp = lab.syn_out(end(H), end(S));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), by_tcp, b""), Drop::Unsolicited);
    let by_udp = lab.udp_out(host(10, 4001), end(S));
    lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S), by_udp, "S", 1, 0, b""), Drop::Unsolicited);
    let reply = echo(OUTSIDE, end(S).0, by_udp.0, false, by_udp.1, 1);
    lab.dropped(OUTSIDE, &reply, Drop::Unsolicited);
}

/// Nothing unsolicited passes, neither to an external address nor to an inside one.
#[test]
fn n44_18_unsolicited_packets_are_dropped() {
    let mut lab = Lab::default_lab();
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), end("203.0.113.5:4000"), b""), Drop::Unsolicited);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), end(H), b""), Drop::Unsolicited);
    lab.moved(moves().dropped("outside", Drop::Unsolicited, 2));
}

// --- What is dropped by its name ----------------------------------------------------------------------------------------

/// L4X-01: protocols that are not port-translated are dropped by name where a rule or a static entry covers them, and never
/// answered: IPv4 in IPv4, DCCP, GRE, ESP, AH, SCTP, UDP-Lite, and one that nobody uses.
#[test]
fn l4x_01_other_protocols_are_dropped_by_name() {
    let static_nat = vec![one_to_one("203.0.113.60", "192.168.1.25")];
    let mut lab = Lab::new(Spec { static_nat, ..spec() });
    for protocol in [4, 33, 47, 50, 51, 132, 136, 253] {
        let of = |frame: &[u8]| with_header(frame, |header| header.protocol = etherparse::IpNumber(protocol));
        for host in [end(H), end("192.168.1.25:9")] {
            lab.dropped(INSIDE, &of(&udp(INSIDE, host, end(S), b"payload")), Drop::Protocol);
        }
        for external in ["203.0.113.5:9", "203.0.113.60:9"] {
            lab.dropped(OUTSIDE, &of(&udp(OUTSIDE, end(S), end(external), b"payload")), Drop::Protocol);
        }
        // Straight to an inside address it is as unsolicited as anything.
        lab.dropped(OUTSIDE, &of(&udp(OUTSIDE, end(S), end(H), b"payload")), Drop::Unsolicited);
    }
    lab.moved(moves().dropped("inside", Drop::Protocol, 16).dropped("outside", Drop::Protocol, 16).dropped(
        "outside",
        Drop::Unsolicited,
        8,
    ));
}

// --- What passes is otherwise left alone ------------------------------------------------------------------------------

/// N44-21: payloads are left alone, whatever addresses they name.
#[test]
fn n44_21_no_application_gateways() {
    let mut lab = Lab::default_lab();
    let sip = b"REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060\r\nContact: <sip:a@192.168.1.10:5060>\r\n";
    let out = read(&lab.pass(INSIDE, &udp(INSIDE, host(10, 5060), end("198.18.0.1:5060"), sip), OUTSIDE));
    assert_eq!(out.payload, sip);
    let back = read(&lab.pass(OUTSIDE, &udp(OUTSIDE, end("198.18.0.1:5060"), out.source, sip), INSIDE));
    assert_eq!(back.payload, sip);
    let tftp = b"\0\x01file\0octet\0";
    assert_eq!(read(&lab.pass(INSIDE, &udp(INSIDE, end(H), end("198.18.0.1:69"), tftp), OUTSIDE)).payload, tftp);
}

/// N44-22: with nine tenths of the pool in use, mapping and filtering are what they were. (Several workers: later.)
#[test]
fn n44_22_behaviour_does_not_change_with_load() {
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.5"], 1024..=2047)));
    let probe = |lab: &mut Lab, from: End| {
        let seen: HashSet<End> = [S, "198.18.0.1:1001", S2].map(|to| lab.udp_out(from, end(to))).into();
        assert_eq!(seen.len(), 1, "endpoint-independent mapping");
        let external = *seen.iter().next().unwrap();
        let refused = [S, "198.18.0.1:1001", S2].map(|server| (end(server).0, 999));
        assert!(
            refused.iter().all(|&server| !lab.udp_in(server, external, from)),
            "address-and-port-dependent filtering"
        );
        assert!(lab.udp_in(end(S2), external, from));
    };
    probe(&mut lab, host(10, 5000));
    // Hosts of 14 shards, 64 ports each, and some more of the probe's: 921 ports.
    let mut shards = HashMap::new();
    for number in 0..200 {
        let shard = dataplane::steer::shard_of4(some_host(number).to_bits());
        if shard != dataplane::steer::shard_of4(host(10, 0).0.to_bits()) && shards.len() < 14 {
            shards.entry(shard).or_insert(some_host(number));
        }
    }
    for (&busy, port) in shards.values().flat_map(|host| (5000..5064).map(move |port| (host, port))) {
        lab.udp_out((busy, port), end(S));
    }
    for port in 0..24 {
        lab.udp_out(host(10, 6000 + port), end(S));
    }
    assert_eq!(lab.mappings(), [0, 921, 0]);
    probe(&mut lab, host(10, 7000));
}

/// N44-23: no ICMP error deletes a mapping or a session, from either side, whatever its type and code.
#[test]
fn n44_23_no_icmp_message_deletes_a_mapping() {
    let mut lab = Lab::default_lab();
    let out = lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), b"out"), OUTSIDE);
    let external = read(&out).source;
    let delivered = lab.pass(OUTSIDE, &udp(OUTSIDE, end(S), external, b"in"), INSIDE);
    lab.recount();
    for kind in [3, 11, 12] {
        for code in 0..=15 {
            let seen = read(&lab.pass(OUTSIDE, &error(OUTSIDE, end(S).0, kind, code, &out[14..]), INSIDE));
            assert_eq!(seen.transport[..2], [kind, code]);
            let seen = read(&lab.pass(INSIDE, &error(INSIDE, end(H).0, kind, code, &delivered[14..]), OUTSIDE));
            assert_eq!(seen.transport[..2], [kind, code]);
        }
    }
    lab.moved(moves().inbound(48).outbound(48));
    // Source quench and redirect do not even cross (RFC 6633; a redirect speaks of its own link).
    for kind in [4, 5] {
        lab.dropped(OUTSIDE, &error(OUTSIDE, end(S).0, kind, 0, &out[14..]), Drop::IcmpType);
        lab.dropped(INSIDE, &error(INSIDE, end(H).0, kind, 0, &delivered[14..]), Drop::IcmpType);
    }
    assert!(lab.udp_in(end(S), external, end(H)));
    assert_eq!(lab.udp_out(end(H), end(S)), external);
}

/// N44-24: who sends an ICMP error does not matter, only the flow that it quotes.
#[test]
fn n44_24_errors_are_not_filtered_by_their_sender() {
    let mut lab = Lab::default_lab();
    let out = lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), b"out"), OUTSIDE);
    let router = Ipv4Addr::new(198, 19, 7, 7);
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0)] {
        let seen = read(&lab.pass(OUTSIDE, &error(OUTSIDE, router, kind, code, &out[14..]), INSIDE));
        assert_eq!((seen.source.0, seen.destination.0), (router, end(H).0));
        assert_eq!(seen.transport[..2], [kind, code]);
    }
}

/// N44-25: too large for the next link, and not to be fragmented: the sender hears of that link's MTU.
#[test]
fn n44_25_path_mtu() {
    let mut narrow = spec();
    narrow.interfaces[1].mtu = 1400;
    let mut lab = Lab::new(narrow);
    let large = udp(INSIDE, end(H), end(S), &[7; 1472]);
    assert_eq!(large.len() - 14, 1500);
    let answer = lab.refused(INSIDE, &large, Drop::TooBig);
    assert_eq!((answer.source.0, answer.destination.0), (Ipv4Addr::new(192, 168, 1, 1), end(H).0));
    assert_eq!(answer.transport[..2], [3, 4]);
    assert_eq!(answer.transport[4..8], [0, 0, 1400u16.to_be_bytes()[0], 1400u16.to_be_bytes()[1]], "the MTU");
    assert_eq!(answer.transport[8..], large[14..][..576 - 28], "quotes the packet that H sent");
    lab.moved(moves().dropped("inside", Drop::TooBig, 1).answered("inside", "icmp4-3/4", 1));
    assert_eq!(lab.sessions(), 0);
    lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), &[7; 1372]), OUTSIDE);
    // The other way it fits the link that it comes by, and the inside link too.
    let mut lab = Lab::default_lab();
    let external = lab.udp_out(end(H), end(S));
    lab.pass(OUTSIDE, &udp(OUTSIDE, end(S), external, &[7; 1472]), INSIDE);
}

/// N44-25: the same from outside to inside.
#[test]
fn n44_25_path_mtu_from_outside() {
    let mut narrow = spec();
    narrow.interfaces[0].mtu = 1300;
    let mut lab = Lab::new(narrow);
    let external = lab.udp_out(end(H), end(S));
    let large = udp(OUTSIDE, end(S), external, &[7; 1472]);
    lab.recount();
    let answer = lab.refused(OUTSIDE, &large, Drop::TooBig);
    assert_eq!((answer.source.0, answer.destination.0), (Ipv4Addr::new(198, 51, 100, 2), end(S).0));
    assert_eq!((&answer.transport[..2], &answer.transport[6..8]), (&[3, 4][..], &1300u16.to_be_bytes()[..]));
    assert_eq!(answer.transport[8..], large[14..][..576 - 28], "quotes what S sent, external address and all");
    lab.moved(moves().dropped("outside", Drop::TooBig, 1).answered("outside", "icmp4-3/4", 1));
}

/// N44-31: for 60,000 pairs of ports, and payloads of many lengths, the updated checksum is the right one (read by
/// etherparse, which computes it over the whole datagram).
#[test]
fn n44_31_incremental_checksums_are_exact() {
    let limits = Limits { sessions: 65_536, mappings: 1024, ..Limits::default() };
    let games = forward(ForwardProtocol::Udp, "203.0.113.5", 1..=60_000, (end(H).0, 5001));
    let mut lab = Lab::new(Spec { forwards: vec![games], limits, ..spec() });
    lab.neighbour(INSIDE, end(H).0.into(), NeighbourState::Reachable(PEER));
    let payload: Vec<u8> = (0..=255).cycle().take(700).collect();
    for ports in (1..=60_000).collect::<Vec<u16>>().chunks(32) {
        let frames: Vec<_> = ports
            .iter()
            .map(|&port| {
                udp(OUTSIDE, end(S), (Ipv4Addr::new(203, 0, 113, 5), port), &payload[..usize::from(port % 700)])
            })
            .collect();
        let seen = lab.send_all(OUTSIDE, &frames);
        assert_eq!(seen.frames.len(), ports.len());
        for (port, (_, frame)) in ports.iter().zip(&seen.frames) {
            let seen = read(frame);
            assert_eq!(seen.destination, (end(H).0, port + 5000));
            assert_eq!(seen.payload, payload[..usize::from(port % 700)]);
        }
    }
}

/// N44-31: UDP without a checksum stays without, in both directions.
#[test]
fn n44_31_udp_without_checksum() {
    let mut lab = Lab::default_lab();
    let without = |mut frame: Vec<u8>| {
        frame[14 + 20 + 6..][..2].fill(0);
        frame
    };
    let out = read(&lab.pass(INSIDE, &without(udp(INSIDE, end(H), end(S), b"out")), OUTSIDE));
    assert_eq!(out.transport[6..8], [0, 0]);
    let back = read(&lab.pass(OUTSIDE, &without(udp(OUTSIDE, end(S), out.source, b"in")), INSIDE));
    assert_eq!(back.transport[6..8], [0, 0]);
}

/// N44-31: a UDP checksum that is computed as zero is sent as 0xffff.
#[test]
fn n44_31_computed_zero_is_sent_as_ffff() {
    let mut lab = Lab::default_lab();
    let external = lab.udp_out(end(H), end(S));
    // Pick the payload so that the datagram's checksum behind the gateway is zero: put its own checksum into it.
    let outside_sum = |word: [u8; 2]| {
        let header =
            etherparse::UdpHeader { source_port: external.1, destination_port: end(S).1, length: 10, checksum: 0 };
        header.calc_checksum_ipv4_raw(external.0.octets(), end(S).0.octets(), &word).unwrap()
    };
    let word = outside_sum([0, 0]).to_be_bytes();
    assert_eq!(outside_sum(word), 0xffff, "etherparse's word for a computed zero");
    let out = read(&lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), &word), OUTSIDE));
    assert_eq!((out.source, &out.transport[6..8]), (external, &[0xff, 0xff][..]));
}

/// N44-31: a transport checksum that was wrong is still wrong, by as much, when it leaves.
#[test]
fn n44_31_wrong_checksums_stay_wrong() {
    let mut lab = Lab::default_lab();
    let right = lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), b"payload"), OUTSIDE);
    let mut wrong = udp(INSIDE, end(H), end(S), b"payload");
    wrong[14 + 20 + 8] ^= 1; // the p of payload
    let out = lab.pass(INSIDE, &wrong, OUTSIDE);
    assert_eq!(out[14 + 20 + 6..][..2], right[14 + 20 + 6..][..2], "the checksum of what should have been there");
    assert_eq!(&out[14 + 20 + 8..], b"qayload");
}

/// Ethernet padding is taken off, IPv4 options and TOS stay.
#[test]
fn n44_31_padding_goes_and_options_stay() {
    let mut lab = Lab::default_lab();
    let mut padded = udp(INSIDE, end(H), end(S), b"x");
    padded.resize(60, 0xee);
    let out = read(&lab.pass(INSIDE, &padded, OUTSIDE));
    assert_eq!(out.payload, b"x");
    let timestamps = [0x44, 8, 5, 0, 0, 0, 0, 0];
    let with_options = with_header(&udp(INSIDE, end(H), end(S), b"x"), |header| {
        header.options = timestamps.into();
        header.dscp = 46.try_into().unwrap();
        header.ecn = 3.try_into().unwrap();
        header.identification = 0xbeef;
    });
    let out = lab.pass(INSIDE, &with_options, OUTSIDE);
    let seen = read(&out);
    assert_eq!((seen.source.0, seen.payload.as_slice()), (Ipv4Addr::new(203, 0, 113, 5), &b"x"[..]));
    assert_eq!(out[15], 46 << 2 | 3);
    assert_eq!(out[18..20], [0xbe, 0xef]);
    assert_eq!(out[34..42], timestamps);
}

// --- Static entries ---------------------------------------------------------------------------------------------------

fn static_lab() -> Lab {
    let forwards = vec![
        forward(ForwardProtocol::Tcp, "203.0.113.5", 8080..=8080, end("192.168.1.20:80")),
        forward(ForwardProtocol::Udp, "203.0.113.5", 27_000..=27_010, end("192.168.1.21:5000")),
        forward(ForwardProtocol::Tcp, "203.0.113.77", 443..=443, end("192.168.1.20:443")),
    ];
    let static_nat = vec![one_to_one("203.0.113.60", "192.168.1.25")];
    Lab::new(Spec { forwards, static_nat, ..spec() })
}

/// N44-32: forwards of a port, of a range with other inside ports, and of an address of its own.
#[test]
fn n44_32_port_forwards() {
    let mut lab = static_lab();
    let client = end("198.18.0.9:5555");
    let syn = read(&lab.pass(OUTSIDE, &tcp(OUTSIDE, client, end("203.0.113.5:8080"), "S", 1, 0, b""), INSIDE));
    assert_eq!((syn.source, syn.destination), (client, end("192.168.1.20:80")));
    let answer = tcp(INSIDE, end("192.168.1.20:80"), client, "SA", 9, 2, b"");
    let answer = read(&lab.pass(INSIDE, &answer, OUTSIDE));
    assert_eq!((answer.source, answer.destination), (end("203.0.113.5:8080"), client));
    for step in 0..=10 {
        let external = (Ipv4Addr::new(203, 0, 113, 5), 27_000 + step);
        let inside = (Ipv4Addr::new(192, 168, 1, 21), 5000 + step);
        assert!(lab.udp_in(client, external, inside));
        assert_eq!(lab.udp_out(inside, client), external);
    }
    lab.pass(OUTSIDE, &tcp(OUTSIDE, client, end("203.0.113.77:443"), "S", 1, 0, b""), INSIDE);
    lab.moved(
        moves()
            .inbound(13)
            .outbound(12)
            .opened("udp-active", 11, 0)
            .opened("tcp-opening", 2, 0)
            .turned("tcp-opening", "tcp-established"),
    );
    // Around the range, and of the other protocol, nothing leads in.
    for (port, proto) in [(26_999, "udp"), (27_011, "udp"), (27_000, "tcp"), (8080, "udp")] {
        let external = (Ipv4Addr::new(203, 0, 113, 5), port);
        let frame = match proto {
            "udp" => udp(OUTSIDE, client, external, b""),
            _ => tcp(OUTSIDE, client, external, "S", 1, 0, b""),
        };
        lab.dropped(OUTSIDE, &frame, Drop::Unsolicited);
    }
    lab.dropped(OUTSIDE, &tcp(OUTSIDE, client, end("203.0.113.77:80"), "S", 1, 0, b""), Drop::Unsolicited);
}

/// N44-32: two external addresses lead to the same inside endpoint. A peer that uses both at once with one port of its own
/// could not be told apart in the answers: the second flow is refused until the first has ended.
#[test]
fn n44_32_one_peer_at_two_doors_of_one_host() {
    let host = end("192.168.1.20:80");
    let doors = ["203.0.113.5:8080", "203.0.113.6:8080"].map(end);
    let forwards = [ForwardProtocol::Udp, ForwardProtocol::Tcp]
        .into_iter()
        .flat_map(|protocol| doors.map(|door| forward(protocol, &door.0.to_string(), door.1..=door.1, host)));
    let mut lab = Lab::new(Spec { forwards: forwards.collect(), ..spec() });
    let syn = |door| tcp(OUTSIDE, end(S), door, "S", 1, 0, b"");
    lab.pass(OUTSIDE, &syn(doors[0]), INSIDE);
    assert!(lab.udp_in(end(S), doors[0], host));
    lab.recount();
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), doors[1], b"in"), Drop::FlowConflict);
    lab.dropped(OUTSIDE, &syn(doors[1]), Drop::FlowConflict);
    lab.moved(moves().dropped("outside", Drop::FlowConflict, 2));
    // The first goes on, and keeps its address.
    assert!(lab.udp_in(end(S), doors[0], host));
    assert_eq!(lab.udp_out(host, end(S)), doors[0]);
    let answer = tcp(INSIDE, host, end(S), "SA", 9, 2, b"");
    assert_eq!(read(&lab.pass(INSIDE, &answer, OUTSIDE)).source, doors[0]);
    // Others may come by the second.
    assert!(lab.udp_in(end("198.18.0.1:1001"), doors[1], host));
    assert_eq!(lab.udp_out(host, end("198.18.0.1:1001")), doors[1]);
    lab.wait_secs(7441);
    assert_eq!(lab.sessions(), 0);
    assert!(lab.udp_in(end(S), doors[1], host));
    assert_eq!(lab.udp_out(host, end(S)), doors[1]);
    assert_eq!(read(&lab.pass(OUTSIDE, &syn(doors[1]), INSIDE)).destination, host);
    assert_eq!(read(&lab.pass(INSIDE, &answer, OUTSIDE)).source, doors[1]);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), doors[0], b"in"), Drop::FlowConflict);
}

/// N44-32: a forwarded endpoint is seen outside under its forwarded port when it begins, other ports of its host under a
/// dynamic one.
#[test]
fn n44_32_forwarded_hosts_begin_too() {
    let mut lab = static_lab();
    assert_eq!(lab.syn_out(end("192.168.1.20:80"), end(S)), end("203.0.113.5:8080"));
    assert_eq!(lab.udp_out(end("192.168.1.21:5003"), end(S)), end("203.0.113.5:27003"));
    lab.moved(moves().outbound(2).opened("tcp-opening", 1, 0).opened("udp-active", 1, 0));
    assert_eq!(lab.udp_out(end("192.168.1.21:5011"), end(S)), end("203.0.113.5:5011"));
    lab.moved(moves().outbound(1).opened("udp-active", 1, 1));
}

/// N44-32: a whole address belongs to its host, for TCP, UDP and ICMP, whoever begins.
#[test]
fn n44_32_one_to_one() {
    let mut lab = static_lab();
    let (inside, external) = (Ipv4Addr::new(192, 168, 1, 25), Ipv4Addr::new(203, 0, 113, 60));
    let client = end("198.18.0.9:5555");
    // From outside.
    assert!(lab.udp_in(client, (external, 9), (inside, 9)));
    assert_eq!(lab.udp_out((inside, 9), client), (external, 9));
    let syn = read(&lab.pass(OUTSIDE, &tcp(OUTSIDE, client, (external, 25), "S", 1, 0, b""), INSIDE));
    assert_eq!(syn.destination, (inside, 25));
    let answer = read(&lab.pass(INSIDE, &tcp(INSIDE, (inside, 25), client, "SA", 9, 2, b""), OUTSIDE));
    assert_eq!(answer.source, (external, 25));
    let ping = read(&lab.pass(OUTSIDE, &echo(OUTSIDE, client.0, external, true, 77, 3), INSIDE));
    assert_eq!((ping.source, ping.destination.0, ping.transport[0]), ((client.0, 77), inside, 8));
    let pong = read(&lab.pass(INSIDE, &echo(INSIDE, inside, client.0, false, 77, 3), OUTSIDE));
    assert_eq!((pong.source.0, pong.destination, pong.transport[0]), (external, (client.0, 77), 0));
    lab.moved(moves().inbound(3).outbound(3).opened("udp-active", 1, 0).opened("tcp-established", 1, 0).opened(
        "icmp-active",
        1,
        0,
    ));
    // From inside.
    assert_eq!(lab.udp_out((inside, 5353), end(S)), (external, 5353));
    assert!(lab.udp_in(end(S), (external, 5353), (inside, 5353)));
    assert_eq!(lab.syn_out((inside, 6000), end(S)), (external, 6000));
    assert_eq!(lab.ping_out((inside, 42), end(S).0), (external, 42));
    let pong = lab.pass(OUTSIDE, &echo(OUTSIDE, end(S).0, external, false, 42, 1), INSIDE);
    assert_eq!(read(&pong).destination, (inside, 42));
    lab.moved(moves().outbound(3).inbound(2).opened("udp-active", 1, 0).opened("tcp-opening", 1, 0).opened(
        "icmp-active",
        1,
        0,
    ));
}

/// N44-32: static entries filter as they say.
#[test]
fn n44_32_static_filtering() {
    let mut own = one_to_one("203.0.113.60", "192.168.1.25");
    own.filtering = Filtering::AddressDependent;
    let mut web = forward(ForwardProtocol::Udp, "203.0.113.5", 80..=80, end(H));
    web.filtering = Filtering::AddressPortDependent;
    let mut lab = Lab::new(Spec { forwards: vec![web], static_nat: vec![own], ..spec() });
    for (inside, external, admits) in
        [("192.168.1.25:80", "203.0.113.60:80", [true, true, false]), (H, "203.0.113.5:80", [true, false, false])]
    {
        lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), end(external), b""), Drop::Filtered);
        assert_eq!(lab.udp_out(end(inside), end(S)), end(external));
        let seen = [S, "198.18.0.1:9", S2].map(|from| lab.udp_in(end(from), end(external), end(inside)));
        assert_eq!(seen, admits);
    }
}

/// One inside endpoint behind two forwards: whoever comes by both of them from one port is let in by the first alone, for
/// the host could not tell the two flows apart.
#[test]
fn n44_32_two_ways_to_one_endpoint() {
    let ways = ["203.0.113.5:80", "203.0.113.77:8080"].map(end);
    let forwards = ways.map(|(address, port)| {
        forward(ForwardProtocol::Udp, &address.to_string(), port..=port, end("192.168.1.20:53"))
    });
    let mut lab = Lab::new(Spec { forwards: forwards.into(), ..spec() });
    let inside = end("192.168.1.20:53");
    assert!(lab.udp_in(end(S), ways[0], inside));
    assert!(lab.udp_in(end(S2), ways[1], inside));
    lab.recount();
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), ways[1], b""), Drop::FlowConflict);
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S2), ways[0], b""), Drop::FlowConflict);
    lab.moved(moves().dropped("outside", Drop::FlowConflict, 2));
    // Each peer's answers come from where it has sent to.
    assert_eq!(lab.udp_out(inside, end(S)), ways[0]);
    assert_eq!(lab.udp_out(inside, end(S2)), ways[1]);
    // When the first flow has ended, the other way is open.
    lab.wait_secs(301);
    assert!(lab.udp_in(end(S), ways[1], inside));
    assert_eq!(lab.udp_out(inside, end(S)), ways[1]);
}

/// N44-32: static entries never expire.
#[test]
fn n44_32_static_entries_stay() {
    let mut lab = static_lab();
    let client = end("198.18.0.9:5555");
    for _ in 0..3 {
        assert!(lab.udp_in(client, end("203.0.113.5:27000"), end("192.168.1.21:5000")));
        assert!(lab.udp_in(client, end("203.0.113.60:27000"), end("192.168.1.25:27000")));
        lab.wait_secs(86_400);
        assert_eq!(lab.sessions(), 0, "their flows do");
    }
}

/// N44-32: a static port is never handed out, however the pool is pressed.
#[test]
fn n44_32_static_ports_are_reserved() {
    let forwards = vec![forward(ForwardProtocol::Tcp, "203.0.113.5", 1100..=1101, end("192.168.1.20:80"))];
    let mut lab = Lab::new(Spec { forwards, ..with_pool(pool(&["203.0.113.5"], 1024..=1279)) });
    // A host that would like the very port, for both protocols.
    assert_ne!(lab.syn_out(host(11, 1100), end(S)).1, 1100);
    assert_ne!(lab.udp_out(host(11, 1101), end(S)).1, 1101);
    let mut given = HashSet::new();
    for port in 5000..5300 {
        for frame in [tcp(INSIDE, host(11, port), end(S), "S", 1, 0, b""), udp(INSIDE, host(11, port), end(S), b"")] {
            for (_, frame) in lab.send(INSIDE, &frame).frames.iter().filter(|(interface, _)| *interface == OUTSIDE) {
                given.insert(read(frame).source.1);
            }
        }
    }
    assert!(given.len() >= 190 && !given.contains(&1100) && !given.contains(&1101), "{given:?}");
    assert!(lab.counters.drops(Drop::NoPort) > 0, "the pool is empty");
    let syn = lab.pass(OUTSIDE, &tcp(OUTSIDE, end(S), end("203.0.113.5:1100"), "S", 1, 0, b""), INSIDE);
    assert_eq!(read(&syn).destination, end("192.168.1.20:80"));
}

/// N44-33: on a stick: inside and outside are two VLANs of one port, and a second inside network is a third.
#[test]
fn n44_33_nat_on_a_stick() {
    let mut stick = spec();
    stick.ports = vec![PortSpec { name: "trunk".into() }];
    for (interface, vlan) in stick.interfaces.iter_mut().zip([10, 20]) {
        interface.port = PortId(0);
        interface.vlan = Some(vlan);
        interface.mac = common::MACS[0];
    }
    let mut guests = stick.interfaces[0].clone();
    guests.name = "guests".into();
    guests.vlan = Some(30);
    guests.addresses = vec![prefix("192.168.30.1/24")];
    stick.interfaces.push(guests);
    let mut lab = Lab::new(stick);
    const GUESTS: InterfaceId = InterfaceId(2);
    for (inside, vlan, from) in [(INSIDE, 10, end(H)), (GUESTS, 30, end("192.168.30.7:4000"))] {
        let out = lab.pass(inside, &tagged(&udp(INSIDE, from, end(S), b"out"), vlan), OUTSIDE);
        assert_eq!((&out[..6], &out[12..16]), (&PEER.0[..], &[0x81, 0, 0, 20][..]));
        let external = read(&out).source;
        assert_eq!(external.0, Ipv4Addr::new(203, 0, 113, 5));
        let back = lab.pass(OUTSIDE, &tagged(&udp(INSIDE, end(S), external, b"in"), 20), inside);
        assert_eq!((read(&back).source, read(&back).destination), (end(S), from));
    }
    assert_eq!(lab.mappings(), [0, 2, 0]);
    lab.dropped(INSIDE, &tagged(&udp(INSIDE, end(H), end(S), b""), 40), Drop::UnknownVlan);
    lab.dropped(INSIDE, &udp(INSIDE, end(H), end(S), b""), Drop::UnknownVlan);
}

/// The first rule that covers a flow decides; what none covers is routed, untranslated.
#[test]
fn n44_32_rules_decide_in_their_order() {
    let partners = Nat44Rule { destination: vec![prefix("198.19.0.0/16")], pool: PoolId(1), ..rule() };
    let all = Nat44Rule { source: vec![prefix("192.168.1.0/25")], ..rule() };
    let pools = vec![pool(&["203.0.113.5"], 1..=65535), pool(&["203.0.113.99"], 1..=65535)];
    let mut lab = Lab::new(Spec { pools, nat44: vec![partners, all], ..spec() });
    assert_eq!(lab.udp_out(end(H), end("198.19.0.1:53")), end("203.0.113.99:4000"));
    assert_eq!(lab.udp_out(end(H), end(S)), end("203.0.113.5:4000"));
    assert!(lab.udp_in(end(S), end("203.0.113.5:4000"), end(H)));
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S), end("203.0.113.99:4000"), b""), Drop::Filtered);
    assert_eq!(lab.mappings(), [0, 2, 0]);
    lab.recount();
    let uncovered = end("192.168.1.200:4000");
    assert_eq!(lab.udp_out(uncovered, end(S)), uncovered);
    lab.moved(
        moves()
            .and("received", 1)
            .and("inside-received", 1)
            .and("routed4", 1)
            .and("transmitted", 1)
            .and("outside-transmitted", 1),
    );
}

// --- Pools, exhaustion, limits ----------------------------------------------------------------------------------------

/// CGN-03: a pool of three ranges and a single address: flows come from all of them and from nowhere else.
#[test]
fn cgn_03_pools_of_any_shape() {
    let ranges = ["203.0.113.1-203.0.113.3", "203.0.113.128-203.0.113.133", "192.0.2.255-192.0.3.0", "100.64.0.1"];
    let mut lab = Lab::new(with_pool(pool(&ranges, 1..=65535)));
    let seen: HashSet<Ipv4Addr> = (0..400).map(|n| lab.udp_out((some_host(n), 5000), end(S)).0).collect();
    let others = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "192.0.2.255", "192.0.3.0", "100.64.0.1"];
    let others = others.into_iter().map(|text| text.parse().unwrap());
    let all: HashSet<Ipv4Addr> = others.chain((128..=133).map(|last| Ipv4Addr::new(203, 0, 113, last))).collect();
    assert_eq!(seen, all);
}

/// CGN-09: a port that strangers could know is not given to another for 120 s. CGN-10: others are free at once.
#[test]
fn cgn_09_freed_ports_rest() {
    let next = || udp(INSIDE, host(10, 5001), end(S), b"");
    for (kind, rests) in [(Filtering::EndpointIndependent, true), (Filtering::AddressPortDependent, false)] {
        let pools = vec![pool(&["203.0.113.5"], 1024..=1024)];
        let mut lab = Lab::new(Spec { pools, ..with_rule(filtering(kind)) });
        lab.udp_out(host(10, 5000), end(S));
        lab.wait_secs(301);
        if rests {
            for _ in 0..11 {
                lab.refused(INSIDE, &next(), Drop::NoPort);
                lab.wait_secs(10);
            }
            lab.wait_secs(9);
            lab.refused(INSIDE, &next(), Drop::NoPort);
            lab.recount();
            lab.wait_secs(2);
            lab.moved(moves().and("mappings-held", -1));
        }
        assert_eq!(read(&lab.pass(INSIDE, &next(), OUTSIDE)).source.1, 1024);
    }
}

/// CGN-09: an exhausted address refuses, and counts, every further flow; a port that becomes free is given out at once, or
/// after its rest. The ports of TCP and UDP are apart.
#[test]
fn cgn_09_an_exhausted_address_recovers() {
    for (kind, rest) in [(Filtering::EndpointIndependent, 120), (Filtering::AddressPortDependent, 0)] {
        let timers = Timers { udp_ports: vec![(53, Duration::from_secs(10))], ..Timers::default() };
        let pools = vec![pool(&["203.0.113.5"], 1024..=1087)];
        let mut lab = Lab::new(Spec { pools, timers, ..with_rule(filtering(kind)) });
        let refused = |lab: &mut Lab, proto: &str, from: End| {
            let frame = match proto {
                "udp" => udp(INSIDE, from, end(S), b""),
                _ => tcp(INSIDE, from, end(S), "S", 1, 0, b""),
            };
            lab.refused(INSIDE, &frame, Drop::NoPort);
            let refused = moves().dropped("inside", Drop::NoPort, 1).and("mapping-failures-ports", 1);
            lab.moved(refused.answered("inside", "icmp4-3/1", 1));
        };
        for port in 0..63 {
            lab.udp_out(host(10, 5000 + port), end(S));
        }
        lab.udp_out(host(10, 5063), end("198.18.0.1:53"));
        assert_eq!(lab.leases.ports_used(0), [0, 64, 0]);
        lab.recount();
        for port in 0..10 {
            refused(&mut lab, "udp", host(10, 6000 + port));
            refused(&mut lab, "udp", host(11 + port as u8, 6000));
        }
        // The block is that of this host, whose TCP still has every port of it.
        for port in 0..64 {
            lab.syn_out(host(10, 5000 + port), end(S));
        }
        assert_eq!(lab.leases.ports_used(0), [64, 64, 0]);
        lab.recount();
        refused(&mut lab, "tcp", host(10, 6000));
        lab.wait_secs(11);
        lab.recount();
        if rest > 0 {
            refused(&mut lab, "udp", host(10, 6000));
            lab.wait_secs(rest - 2);
            refused(&mut lab, "udp", host(10, 6000));
            lab.wait_secs(2);
        }
        lab.recount();
        refused(&mut lab, "tcp", host(10, 6000));
        lab.udp_out(host(10, 6000), end(S));
        lab.recount();
        refused(&mut lab, "udp", host(10, 6001));
        refused(&mut lab, "tcp", host(10, 6000));
    }
}

/// CGN-09: a subscriber whose ports are used up takes a block that another has given back, and all of it, although the
/// address is then exhausted again.
#[test]
fn cgn_09_a_block_given_back_is_used_whole() {
    let timers = Timers { udp_ports: vec![(53, Duration::from_secs(10))], ..Timers::default() };
    let mut lab = Lab::new(Spec { timers, ..with_pool(pool(&["203.0.113.5"], 1024..=1151)) });
    // Blocks belong to shards.
    let shard = |host: End| shard_of4(host.0.to_bits());
    let other = (11..).map(|last| host(last, 5000)).find(|it| shard(*it) != shard(end(H)));
    lab.udp_out(other.expect("a host in another shard"), end("198.18.0.1:53"));
    for port in 0..64 {
        lab.udp_out(host(10, 5000 + port), end(S));
    }
    assert_eq!(lab.leases.free_blocks(0), (0, 2));
    lab.refused(INSIDE, &udp(INSIDE, host(10, 6000), end(S), b""), Drop::NoPort);
    lab.wait_secs(11);
    assert_eq!(lab.leases.free_blocks(0), (1, 2));
    for port in 0..64 {
        lab.udp_out(host(10, 6000 + port), end(S));
    }
    assert_eq!(lab.leases.ports_used(0), [0, 128, 0]);
    lab.refused(INSIDE, &udp(INSIDE, host(10, 7000), end(S), b""), Drop::NoPort);
}

/// CGN-03: what is leasable are the blocks of the pool's ports and no others; when half of them are gone, a port is no
/// longer preserved at the price of a new block.
#[test]
fn cgn_03_a_narrow_range_of_ports() {
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.5"], 1024..=2047)));
    assert_eq!(lab.leases.free_blocks(0), (16, 16));
    for block in 0..16 {
        let wanted = 1024 + 64 * block;
        let given = lab.udp_out(host(10, wanted), end(S)).1;
        assert_eq!(given == wanted, block < 8, "port {wanted} became {given}");
        assert!((1024..=2047).contains(&given));
    }
    assert_eq!(lab.leases.free_blocks(0), (8, 16));
}

/// CGN-14 and D2: who gets no port is told by ICMP 3/1, at the configured rate and not above it.
#[test]
fn cgn_14_refusals_are_answered_at_a_limited_rate() {
    let icmp = IcmpPolicy { rate: 10, burst: 20, ..IcmpPolicy::default() };
    let mut lab = Lab::new(Spec { icmp, ..with_pool(pool(&["203.0.113.5"], 1024..=1024)) });
    lab.neighbour(INSIDE, end(H).0.into(), NeighbourState::Reachable(PEER));
    lab.udp_out(end(H), end(S));
    lab.recount();
    let flood: Vec<_> = (0..100).map(|n| udp(INSIDE, host(10, 6000 + n), end(S), b"?")).collect();
    let seen = lab.send_all(INSIDE, &flood);
    for (at, (interface, frame)) in seen.frames.iter().enumerate() {
        let answer = read(frame);
        assert_eq!((*interface, &answer.transport[..2]), (INSIDE, &[3, 1][..]));
        assert_eq!(answer.transport[8..], flood[at][14..], "quotes what was refused");
    }
    let refused = |refused: i64, answered: i64| {
        moves()
            .dropped("inside", Drop::NoPort, refused)
            .and("mapping-failures-ports", refused)
            .answered("inside", "icmp4-3/1", answered)
            .and("icmp-rate-limited", refused - answered)
    };
    lab.moved(refused(100, 20));
    lab.wait_secs(1);
    lab.send_all(INSIDE, &flood);
    lab.moved(refused(100, 10));
}

/// CGN-16: a full session table refuses new flows, answers and counts them; every known flow goes on.
#[test]
fn cgn_16_full_session_table_keeps_what_it_has() {
    for kind in [Filtering::AddressPortDependent, Filtering::EndpointIndependent] {
        let limits = Limits { sessions: 100, mappings: 1000, ..Limits::default() };
        let mut lab = Lab::new(Spec { limits, ..with_rule(filtering(kind)) });
        let flows: Vec<(End, End)> = (0..100u16)
            .map(|n| host(10 + (n % 50) as u8, 5000 + n))
            .map(|from| (from, lab.udp_out(from, end(S))))
            .collect();
        lab.recount();
        for port in 0..10 {
            let answer = lab.refused(INSIDE, &udp(INSIDE, host(100, port + 1), end(S), b""), Drop::SessionTableFull);
            assert_eq!(answer.transport[..2], [3, 1]);
        }
        // A known endpoint to a new destination is refused too, and keeps its mapping.
        lab.refused(INSIDE, &udp(INSIDE, flows[0].0, end(S2), b""), Drop::SessionTableFull);
        lab.recount();
        for (from, external) in &flows {
            assert_eq!(lab.udp_out(*from, end(S)), *external);
            assert!(lab.udp_in(end(S), *external, *from));
        }
        lab.moved(moves().outbound(100).inbound(100));
        assert_eq!(lab.mappings(), [0, 100, 0], "the refused ones left none behind");
        assert_eq!(lab.counters.mappings_held.get(), 0, "nor held any port down: nobody ever saw it");
        lab.wait_secs(301);
        lab.udp_out(host(100, 1), end(S));
    }
}

/// CGN-16: the same of a full mapping table. Known endpoints still reach new destinations.
#[test]
fn cgn_16_full_mapping_table_keeps_what_it_has() {
    let limits = Limits { sessions: 1000, mappings: 100, ..Limits::default() };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    let flows: Vec<(End, End)> = (0..100u16)
        .map(|n| host(10 + (n % 50) as u8, 5000 + n))
        .map(|from| (from, lab.udp_out(from, end(S))))
        .collect();
    lab.recount();
    let answer = lab.refused(INSIDE, &udp(INSIDE, host(100, 1), end(S), b""), Drop::MappingTableFull);
    assert_eq!(answer.transport[..2], [3, 1]);
    lab.moved(
        moves()
            .dropped("inside", Drop::MappingTableFull, 1)
            .answered("inside", "icmp4-3/1", 1)
            .and("mapping-failures-memory", 1),
    );
    for (from, external) in &flows {
        assert_eq!(lab.udp_out(*from, end(S)), *external);
        assert_eq!(lab.udp_out(*from, end(S2)), *external);
    }
    lab.moved(moves().outbound(200).opened("udp-active", 100, 0));
}

/// CGN-16: nor does a full session table let anyone in from outside, who is not answered.
#[test]
fn cgn_16_full_session_table_and_static_entries() {
    let limits = Limits { sessions: 10, mappings: 1000, ..Limits::default() };
    let forwards = vec![forward(ForwardProtocol::Udp, "203.0.113.5", 80..=80, end(H))];
    let mut lab = Lab::new(Spec { limits, forwards, ..spec() });
    let external = end("203.0.113.5:80");
    for port in 0..10 {
        assert!(lab.udp_in((end(S).0, 1000 + port), external, end(H)));
    }
    lab.recount();
    lab.dropped(OUTSIDE, &udp(OUTSIDE, end(S2), external, b""), Drop::SessionTableFull);
    lab.moved(moves().dropped("outside", Drop::SessionTableFull, 1));
    for port in 0..10 {
        assert!(lab.udp_in((end(S).0, 1000 + port), external, end(H)));
    }
}

// --- Expiry -----------------------------------------------------------------------------------------------------------

/// CGN-27: ten thousand flows of one host end at once. They go in bounded steps, while the packets of others pass in every
/// poll, and the worker is told all the time that there is more to do.
#[test]
fn cgn_27_ten_thousand_flows_end_at_once() {
    const FLOWS: u64 = 10_000;
    let limits = Limits { sessions: 16_384, ..Limits::default() };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    let flow = |n: u64| udp(INSIDE, end(H), (Ipv4Addr::from_bits(0xc612_0000 + n as u32), 1000), b"");
    let at_rest = lab.worker.engine().arenas().free();
    lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.run();
    assert_eq!(lab.send_all(INSIDE, &(0..FLOWS).map(flow).collect::<Vec<_>>()).frames.len() as u64, FLOWS);
    let (other, server) = (host(77, 5000), end(S));
    lab.now = lab.now + Duration::from_secs(299);
    lab.udp_out(other, server);
    lab.now = lab.now + Duration::from_secs(2);
    let (mut polls, mut steps) = (0, HashSet::new());
    while lab.sessions() > 1 {
        let before = lab.sessions();
        lab.arrive(INSIDE, [HeapPacket::from_frame(&udp(INSIDE, other, server, b"still here"))]);
        let poll = lab.worker.poll_once(lab.now);
        assert_eq!(lab.worker.devices_mut()[1].tx.drain(..).count(), 1);
        steps.insert(before - lab.sessions());
        polls += 1;
        // Behind the first round of all shards it is known.
        assert!(poll.more || polls <= 16 || lab.sessions() == 1, "poll {polls}: {} left", lab.sessions());
    }
    // A few at a time.
    assert!(steps.iter().all(|&ended| ended <= 64), "{steps:?}");
    assert!(polls <= 16 * (FLOWS / 64 + 2), "{polls} polls");
    while lab.worker.poll_once(lab.now).more {
        polls += 1;
        assert!(polls <= 16 * (FLOWS / 64 + 4), "it knows when it is done");
    }
    lab.wait_secs(301);
    assert_eq!(lab.worker.engine().arenas().free(), at_rest);
}
