//! Several workers: a packet reaches the worker that owns its flow, whichever received it.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;

use common::scene::error;
use common::team::Team;
use common::{INSIDE, OUTSIDE, end, read, read_error, spec, udp, udp_ttl};
use dataplane::counters::Drop;
use dataplane::steer::{ShardId, WorkerId, shard_of4};

/// The worker of two that owns a host's flows, and the other one.
fn owner(team: &Team, host: Ipv4Addr) -> (usize, usize) {
    let owner = team.map.owner(shard_of4(host.to_bits())).index();
    (owner, 1 - owner)
}

/// Out, back, an ICMP error from either side: each is received by the worker that does not own the flow.
#[test]
fn whoever_receives_a_packet_its_owner_translates_it() {
    let mut team = Team::new(spec(), 2);
    let (host, server) = (end("192.168.1.10:5000"), end("198.18.0.1:53"));
    let (owner, other) = owner(&team, host.0);

    let seen = team.send(other, INSIDE, &udp(INSIDE, host, server, b"ask"));
    let [(OUTSIDE, out)] = &seen[..] else { panic!("{seen:?}") };
    let sent = read(out);
    assert_eq!(
        (sent.source.0, sent.destination, &sent.payload[..]),
        ("203.0.113.5".parse().unwrap(), server, &b"ask"[..])
    );
    assert_eq!((team.counters[owner].session_creations.get(), team.counters[other].session_creations.get()), (1, 0));

    let seen = team.send(other, OUTSIDE, &udp(OUTSIDE, server, sent.source, b"answer"));
    let [(INSIDE, back)] = &seen[..] else { panic!("{seen:?}") };
    let got = read(back);
    assert_eq!((got.source, got.destination, &got.payload[..]), (server, host, &b"answer"[..]));

    // A router outside can't deliver what was sent; the inside host hears of its own packet.
    let router: Ipv4Addr = "198.18.0.254".parse().unwrap();
    let seen = team.send(other, OUTSIDE, &error(OUTSIDE, router, 3, 1, &out[14..]));
    let [(INSIDE, told)] = &seen[..] else { panic!("{seen:?}") };
    let told = read_error(told);
    assert_eq!((told.destination, told.kind, told.code), (host.0.into(), 3, 1));
    assert_eq!(told.quote[12..16], host.0.octets());

    // Nor does the host take the answer: its port is closed by now.
    let seen = team.send(other, INSIDE, &error(INSIDE, host.0, 3, 3, &back[14..]));
    let [(OUTSIDE, told)] = &seen[..] else { panic!("{seen:?}") };
    let told = read_error(told);
    assert_eq!((told.source, told.destination), (sent.source.0.into(), server.0.into()));
    assert_eq!(told.quote[16..20], sent.source.0.octets());

    assert_eq!(team.counters[other].handed_over[owner].get(), 4);
    assert_eq!((team.counters[owner].taken_over.get(), team.handed_over()), (4, 4));
    assert_eq!((team.counters[other].received.get(), team.counters[owner].received.get()), (4, 0));
}

/// The owner's own packets, and what belongs to no flow, take no detour.
#[test]
fn what_needs_no_owner_or_has_it_stays_where_it_is() {
    let mut team = Team::new(spec(), 2);
    let (host, server) = (end("192.168.1.10:5000"), end("198.18.0.1:53"));
    let (owner, other) = owner(&team, host.0);
    assert_eq!(team.send(owner, INSIDE, &udp(INSIDE, host, server, b"")).len(), 1);
    // To the gateway itself; unsolicited, to a port that nobody has; the control thread's business.
    let own = ("192.168.1.1".parse().unwrap(), 7);
    assert!(team.send(other, INSIDE, &udp(INSIDE, host, own, b"")).is_empty());
    assert!(team.send(other, OUTSIDE, &udp(OUTSIDE, server, end("203.0.113.5:40000"), b"")).is_empty());
    assert!(team.send(other, INSIDE, &common::ethernet(INSIDE, 0x0806, &[0; 28])).is_empty());
    assert_eq!((team.punted.len(), team.drops(Drop::Unsolicited), team.handed_over()), (2, 1, 0));
}

/// What the owner has to say of a handed-over packet goes back to its sender.
#[test]
fn the_owner_answers_for_a_packet_that_another_worker_received() {
    let mut team = Team::new(spec(), 2);
    let (host, server) = (end("192.168.1.10:5000"), end("198.18.0.1:53"));
    let (_, other) = owner(&team, host.0);
    let seen = team.send(other, INSIDE, &udp_ttl(INSIDE, host, server, b"", 1));
    let [(INSIDE, told)] = &seen[..] else { panic!("{seen:?}") };
    let told = read_error(told);
    assert_eq!((told.source, told.destination, told.kind), ("192.168.1.1".parse().unwrap(), host.0.into(), 11));
}

/// A worker that does not keep up costs packets of its own flows, which are counted, and nothing else; then all is well.
#[test]
fn a_full_ring_is_counted_and_recovers() {
    const ROOM: usize = 64;
    let mut team = Team::with_rings(spec(), 2, ROOM);
    let (host, server) = (end("192.168.1.10:5000"), end("198.18.0.1:53"));
    let (owner, other) = owner(&team, host.0);
    let known = team.send(owner, INSIDE, &udp(INSIDE, host, server, b"who has the router?"));
    assert_eq!(known.len(), 1);
    for n in 0..100u8 {
        team.arrive(other, INSIDE, &udp(INSIDE, host, server, &[n]));
    }
    while team.step(other).received > 0 {}
    assert_eq!(team.counters[other].handed_over[owner].get(), ROOM as u64);
    assert_eq!((team.drops(Drop::HandOverFull), team.counters[other].hand_over_drops[owner].get()), (36, 36));
    assert!(team.frames.is_empty());
    // The first of them arrive, in order.
    let seen = team.run();
    assert!(seen.iter().map(|(_, frame)| read(frame).payload[0]).eq(0..ROOM as u8));
    assert_eq!(team.send(other, INSIDE, &udp(INSIDE, host, server, b"again")).len(), 1);
    assert_eq!(team.drops(Drop::HandOverFull), 36);
}

/// One worker of many: nothing is handed over.
#[test]
fn a_worker_alone_owns_all_shards() {
    let team = Team::new(spec(), 1);
    assert!(ShardId::all().all(|shard| team.workers[0].engine().owns(shard) && team.map.owner(shard) == WorkerId(0)));
}
