//! Listing, counting and ending sessions and mappings.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use common::fragments::{cut_up, fragmentable};
use common::*;
use dataplane::message::ToWorker;
use dataplane::plan::{Filtering, FilteringSet, Nat44Rule, Spec};
use dataplane::pool::Proto;
use dataplane::session::Counts;
use dataplane::session::walk::{Action, Filter, MappingRow, Prefix4, STEP, SessionRow, Walk};
use dataplane::trace::RuleRef;

/// What a whole walk brought, and its steps.
#[derive(Default)]
struct Found {
    sessions: Vec<SessionRow>,
    mappings: Vec<MappingRow>,
    met: u64,
    steps: usize,
}

fn walk(lab: &mut Lab, action: Action, filter: Filter) -> Found {
    let mut found = Found::default();
    let mut walk = Walk::new(7, action, filter);
    while !walk.done {
        lab.to_worker.send(ToWorker::Walk(Box::new(walk))).unwrap();
        let mut seen = lab.run();
        assert_eq!(seen.walked.len(), 1, "it comes back");
        walk = seen.walked.remove(0);
        assert_eq!(walk.id, 7);
        assert!(walk.sessions.len().max(walk.mappings.len()) <= STEP);
        found.sessions.extend(&walk.sessions);
        found.mappings.extend(&walk.mappings);
        found.steps += 1;
    }
    found.met = walk.met;
    found
}

/// Sessions of 1000 hosts, UDP, and one of TCP.
fn busy() -> Lab {
    let limits = dataplane::plan::Limits { sessions: 4096, mappings: 4096, ..Default::default() };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    for host in 0..1000u16 {
        let [high, low] = host.to_be_bytes();
        let source = (Ipv4Addr::new(192, 168, 100 + high, low), 5000);
        lab.send(INSIDE, &udp(INSIDE, source, end("198.18.0.1:53"), b""));
    }
    lab.send(INSIDE, &tcp(INSIDE, end("192.168.1.10:4000"), end("198.18.0.2:80"), "S", 1, 0, b""));
    lab
}

fn prefix4(text: &str) -> Option<Prefix4> {
    let prefix = prefix(text);
    let std::net::IpAddr::V4(address) = prefix.address else { panic!("IPv4") };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.len)).unwrap_or(0);
    Some(Prefix4 { address: address.to_bits(), mask })
}

/// What sessions carry is counted if it is wanted, from the IP header on, whichever way a packet takes through the engine.
#[test]
fn packets_of_sessions_are_counted_on_demand() {
    for counted in [false, true] {
        let limits = dataplane::plan::Limits { session_counters: counted, ..spec().limits };
        let mut lab = Lab::new(Spec { limits, ..spec() });
        let (client, server) = (end("192.168.1.10:5000"), end("198.18.0.1:5000"));
        // The first opens it and the second finds its way; with their headers they have 20 and 8 bytes more.
        let payloads: [&[u8]; 4] = [b"", b"one", b"three", b"and the last"];
        for payload in payloads {
            let out = lab.send(INSIDE, &udp(INSIDE, client, server, payload));
            assert_eq!(out.frames.len(), 1);
        }
        let external = (Ipv4Addr::new(203, 0, 113, 5), 5000);
        for payload in &payloads[1..] {
            let back = lab.send(OUTSIDE, &udp(OUTSIDE, server, external, payload));
            assert_eq!(back.frames.len(), 1);
        }
        let found = walk(&mut lab, Action::ListSessions, Filter::default());
        let counts = Counts { packets: [4, 3], bytes: [4 * 28 + 20, 3 * 28 + 20] };
        assert_eq!(found.sessions[0].counts, counted.then_some(counts));

        // A datagram of 40 bytes, in fragments of 8 and of 32: each is a packet, with a header.
        let whole = udp(INSIDE, client, server, &[7; 32]);
        for fragment in cut_up(&fragmentable(&whole, 9), &[1]) {
            assert_eq!(lab.send(INSIDE, &fragment).frames.len(), 1);
        }
        let found = walk(&mut lab, Action::ListSessions, Filter::default());
        let counts = Counts { packets: [6, 3], bytes: [4 * 28 + 20 + 28 + 52, 3 * 28 + 20] };
        assert_eq!(found.sessions[0].counts, counted.then_some(counts));

        // A session that comes into its place begins anew.
        lab.wait(std::time::Duration::from_secs(600));
        lab.send(INSIDE, &udp(INSIDE, client, end("198.18.0.9:9"), b"again"));
        let found = walk(&mut lab, Action::ListSessions, Filter::default());
        assert_eq!(found.sessions.len(), 1);
        assert_eq!(found.sessions[0].counts, counted.then_some(Counts { packets: [1, 0], bytes: [33, 0] }));
    }
}

#[test]
fn every_session_is_listed_once() {
    let mut lab = busy();
    let found = walk(&mut lab, Action::ListSessions, Filter::default());
    assert_eq!((found.sessions.len(), found.met), (1001, 1001));
    let sources: BTreeSet<_> = found.sessions.iter().map(|row| (row.inside.source, row.inside.source_port)).collect();
    assert_eq!(sources.len(), 1001);
    assert!(found.steps >= 1001 / STEP, "in steps");
    let tcp = found.sessions.iter().find(|row| row.proto == Proto::Tcp).unwrap();
    assert_eq!(tcp.inside.source, Ipv4Addr::new(192, 168, 1, 10).to_bits());
    assert_eq!(tcp.outside.source, Ipv4Addr::new(203, 0, 113, 5).to_bits());
    assert_eq!((tcp.outside.destination_port, tcp.rule), (80, RuleRef::Nat44(0)));
    assert_eq!(tcp.remaining.as_secs(), 240);
    assert!(tcp.opened_inside);
}

#[test]
fn every_mapping_is_listed_once() {
    let mut lab = busy();
    let found = walk(&mut lab, Action::ListMappings, Filter::default());
    let ports: BTreeSet<_> = found.mappings.iter().map(|row| (row.proto as u8, row.external_port)).collect();
    assert_eq!((found.mappings.len(), ports.len()), (1001, 1001));
    assert!(found.mappings.iter().all(|row| row.sessions == 1));
}

#[test]
fn a_filter_picks() {
    let mut lab = busy();
    let mut count = |filter| walk(&mut lab, Action::CountSessions, filter).met;
    assert_eq!(count(Filter { proto: Some(Proto::Tcp), ..Filter::default() }), 1);
    assert_eq!(count(Filter { inside: prefix4("192.168.100.0/24"), ..Filter::default() }), 256);
    assert_eq!(count(Filter { external: prefix4("203.0.113.5/32"), ..Filter::default() }), 1001);
    assert_eq!(count(Filter { external: prefix4("203.0.113.6/32"), ..Filter::default() }), 0);
    assert_eq!(count(Filter { remote: prefix4("198.18.0.1/32"), ..Filter::default() }), 1000);
    assert_eq!(count(Filter { rule: Some(RuleRef::Forward(0)), ..Filter::default() }), 0);
}

#[test]
fn sessions_are_ended_with_their_mappings() {
    let mut lab = busy();
    let found = walk(&mut lab, Action::EndSessions, Filter { proto: Some(Proto::Udp), ..Filter::default() });
    assert_eq!(found.met, 1000);
    assert_eq!(lab.counters.session_flushes.get(), 1000);
    assert_eq!(lab.counters.sessions.iter().map(dataplane::counters::Counter::get).sum::<u64>(), 1);
    assert_eq!(lab.leases.ports_used(0), [1, 0, 0]);
    // And the TCP one goes on.
    assert_eq!(walk(&mut lab, Action::ListSessions, Filter::default()).sessions.len(), 1);
}

#[test]
fn a_mapping_that_is_held_down_has_no_sessions() {
    let filtering = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let mut lab = Lab::new(Spec { nat44: vec![Nat44Rule { filtering, ..rule() }], ..spec() });
    lab.send(INSIDE, &udp(INSIDE, end("192.168.1.10:5000"), end("198.18.0.1:53"), b""));
    lab.wait_secs(301);
    let found = walk(&mut lab, Action::ListMappings, Filter::default());
    assert_eq!(found.mappings.iter().map(|row| row.sessions).collect::<Vec<_>>(), [0]);
    assert_eq!(walk(&mut lab, Action::ListSessions, Filter::default()).met, 0);
}

#[test]
fn traffic_flows_while_a_full_table_is_listed() {
    const SESSIONS: u32 = 1_000_000;
    let limits = dataplane::plan::Limits { sessions: SESSIONS, mappings: SESSIONS, ..Default::default() };
    let mut lab = Lab::new(Spec { limits, ..spec() });
    let source = end("192.168.1.10:5000");
    for n in 0..SESSIONS {
        let server = (Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + n), 7000);
        lab.send(INSIDE, &udp(INSIDE, source, server, b""));
    }
    let frame = udp(INSIDE, source, end("198.18.1.1:7000"), b"traffic");
    let (mut listed, mut steps) = (0, 0);
    let mut walk = Walk::new(1, Action::ListSessions, Filter::default());
    while !walk.done {
        lab.to_worker.send(ToWorker::Walk(Box::new(walk))).unwrap();
        let mut seen = lab.send(INSIDE, &frame);
        assert_eq!((seen.frames.len(), seen.walked.len()), (1, 1), "a step and a packet, in one round of the loop");
        walk = seen.walked.remove(0);
        assert!(walk.sessions.len() <= STEP);
        listed += walk.sessions.len();
        steps += 1;
    }
    assert_eq!((listed, walk.met), (SESSIONS as usize, u64::from(SESSIONS)));
    assert!(steps >= SESSIONS as usize / STEP);
}
