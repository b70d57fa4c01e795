//! Fragments and hairpins with several workers: whichever receives a packet, the same leaves as with one worker.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;

use common::fragments::{ORDERS, cut_up, fragmentable, put_together};
use common::scene::{error, filtering, forward, one_to_one, with_rule};
use common::team::Team;
use common::{End, INSIDE, OUTSIDE, echo, end, read, tcp, udp, udp_ttl};
use dataplane::counters::Drop;
use dataplane::plan::{Filtering, ForwardProtocol, IcmpPolicy, InterfaceId, Spec};
use dataplane::steer::{SHARDS, ShardId, WorkerId};

const S: &str = "198.18.0.1:1000";
const SHARED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// Open mappings, a forward, a static entry; the inside link takes 1400 bytes, and errors are not limited.
fn gateway() -> Spec {
    let mut spec = Spec {
        forwards: vec![forward(ForwardProtocol::Tcp, "203.0.113.5", 80..=80, end("192.168.1.10:8000"))],
        static_nat: vec![one_to_one("203.0.113.60", "192.168.1.25")],
        ..with_rule(filtering(Filtering::EndpointIndependent))
    };
    spec.interfaces[0].mtu = 1400;
    // Workers share the rate; here nobody is to notice.
    spec.icmp = IcmpPolicy { rate: 1_000_000, burst: 100_000, silent: Vec::new() };
    spec
}

/// A team that knows its neighbours, and one datagram of each host has gone out.
fn team(workers: u8) -> Team {
    let mut team = Team::new(gateway(), workers);
    team.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap());
    for host in hosts().map(|host| host.0).into_iter().chain([[192, 168, 1, 25].into()]) {
        team.neighbour(INSIDE, host.into());
    }
    team.run();
    team
}

/// Hosts of different shards, each with its port outside as inside.
fn hosts() -> [End; 6] {
    [10, 11, 12, 13, 14, 15].map(|last| (Ipv4Addr::new(192, 168, 1, last), 4000 + u16::from(last) * 64))
}

fn seen(host: End) -> End {
    (SHARED, host.1)
}

/// Packets that come one after the other, where each may need another worker.
fn scenario() -> Vec<(InterfaceId, Vec<u8>)> {
    let mut all = Vec::new();
    let data: Vec<u8> = (0..3000u16).map(|byte| (byte % 251) as u8).collect();
    for host in hosts() {
        all.push((INSIDE, udp(INSIDE, host, end(S), b"out")));
    }
    let pairs: Vec<_> = hosts().into_iter().flat_map(|a| hosts().map(|b| (a, b))).collect();
    for (nth, &(a, b)) in pairs.iter().enumerate() {
        let id = nth as u16;
        all.push((INSIDE, udp(INSIDE, a, seen(b), b"there")));
        all.push((INSIDE, udp_ttl(INSIDE, a, seen(b), b"short", 1)));
        // What b got, which it refuses; and what it did not get, for its link is too narrow.
        let mut got = udp(INSIDE, seen(a), b, b"there");
        got[22] -= 1;
        all.push((INSIDE, error(INSIDE, b.0, 3, 3, &got[14..])));
        all.push((INSIDE, udp(INSIDE, a, seen(b), &data[..1400])));
        all.push((INSIDE, fragmentable(&udp(INSIDE, a, seen(b), &data[..1400]), id)));
        let order = ORDERS[nth % 6];
        let whole = fragmentable(&udp(INSIDE, a, seen(b), &data), id);
        let fragments = cut_up(&whole, &[150, 290]);
        all.extend(order.map(|nth| (INSIDE, fragments[nth].clone())));
        let fragments = cut_up(&fragmentable(&udp(OUTSIDE, end(S), seen(b), &data), id), &[171, 300]);
        all.extend(order.map(|nth| (OUTSIDE, fragments[nth].clone())));
        let fragments = cut_up(&fragmentable(&udp(INSIDE, a, end(S), &data), id), &[150, 290]);
        all.extend(order.map(|nth| (INSIDE, fragments[nth].clone())));
        // By the forward and by the static entry.
        let (client, server) = ((b.0, b.1 + 1), end("203.0.113.5:80"));
        all.push((INSIDE, tcp(INSIDE, client, server, "S", 100, 0, b"")));
        all.push((INSIDE, tcp(INSIDE, end("192.168.1.10:8000"), (SHARED, client.1), "SA", 900, 101, b"")));
        all.push((INSIDE, echo(INSIDE, a.0, Ipv4Addr::new(203, 0, 113, 60), true, a.1, id)));
        all.push((INSIDE, echo(INSIDE, Ipv4Addr::new(192, 168, 1, 25), SHARED, false, a.1, id)));
    }
    all
}

/// N44-20, N44-27, ICM-11: a fragment, an error, a packet to be turned round goes to whoever can translate it, by two workers or
/// more, whichever received it, and while shards move; each step's output is to the byte that of one worker, and nothing is lost on the way.
#[test]
fn n44_22_the_same_with_any_number_of_workers() {
    let steps = scenario();
    let mut alone = team(1);
    let expected: Vec<_> = steps.iter().map(|(interface, frame)| alone.send(0, *interface, frame)).collect();
    assert!(expected.iter().map(Vec::len).sum::<usize>() > steps.len() / 2);
    for workers in [2, 3, 4, 8] {
        for seed in 0..4u32 {
            let mut team = team(workers);
            let mut random = seed.wrapping_mul(0x9e37_79b9).wrapping_add(12_345);
            for (nth, (interface, frame)) in steps.iter().enumerate() {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if seed > 1 && nth % 5 == 0 {
                    // With some fragments waiting, and of some datagrams only the rest to come.
                    let shard = ShardId((random >> 10) as u8 % SHARDS as u8);
                    team.move_shard(shard, WorkerId((random >> 20) as u8 % workers));
                    assert!(team.run().is_empty());
                }
                let receiver = (random >> 16) as usize % usize::from(workers);
                let out = team.send(receiver, *interface, frame);
                assert!(out == expected[nth], "step {nth}, {workers} workers: {out:02x?} for {:02x?}", expected[nth]);
            }
            for reason in Drop::ALL {
                assert_eq!(team.drops(*reason), alone.drops(*reason), "{}, {workers} workers", reason.name());
            }
            assert_eq!(team.sum(|it| &it.received), steps.len() as u64);
            assert_eq!((team.sum(|it| &it.held), team.sum(|it| &it.fragments_held)), (0, 0));
            assert_eq!(team.sum(|it| &it.hairpins), alone.sum(|it| &it.hairpins));
            assert!(team.handed_over() > 0);
        }
    }
}

/// What waits for its datagram's first fragment waits with one worker, wherever its fragments are received.
#[test]
fn n44_27_fragments_meet_at_one_worker() {
    let mut team = team(4);
    let host = hosts()[0];
    team.send(0, INSIDE, &udp(INSIDE, host, end(S), b"out"));
    for id in 0..64 {
        let fragments = cut_up(&fragmentable(&udp(OUTSIDE, end(S), seen(host), &[7; 3000]), id), &[171, 300]);
        let mut out = Vec::new();
        for (worker, nth) in [(3, 2), (1, 1), (2, 0)] {
            out.extend(team.send(worker, OUTSIDE, &fragments[nth]).into_iter().map(|(_, frame)| frame));
        }
        let whole = read(&put_together(&out));
        assert_eq!((whole.source, whole.destination), (end(S), host));
    }
}
