//! Very many sessions, and floods: memory stays what it was, each poll does little, and who is in loses nothing.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::*;
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::packet::HeapPacket;
use dataplane::plan::{Limits, Spec};
use dataplane::session::Arenas;
use dataplane::steer::{ShardId, shard_of4};
use dataplane::worker::{BURST, Poll};

/// Sessions and held-down mappings that one poll looks at: the bound on what time costs the packets that come meanwhile.
const ENDED_IN_A_POLL: u64 = 16;
const HOSTS: usize = 1600;

/// A gateway with room for so many sessions, each with a mapping, and with twice as many ports.
fn lab(sessions: usize) -> Lab {
    let limits = Limits { sessions: sessions as u32, mappings: sessions as u32, ..spec().limits };
    let last = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(203, 0, 113, 0)) + 2 * sessions as u32 / 64_512);
    let range = format!("203.0.113.0-{last}");
    let mut lab = Lab::new(Spec { limits, pools: vec![pool(&[&range], 1024..=65_535)], ..spec() });
    // Stories take the long way.
    lab.worker.set_tracing(false);
    lab.neighbour(INSIDE, "192.168.1.2".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap(), NeighbourState::Reachable(PEER));
    lab.run();
    lab
}

/// One poll; and how many frames it sent.
fn poll(lab: &mut Lab) -> (Poll, usize) {
    let poll = lab.worker.poll_once(lab.now);
    while lab.from_worker.try_recv().is_ok() {}
    (poll, lab.worker.devices_mut()[1].tx.drain(..).count())
}

/// Sends every `step`th of the frames, a burst a poll; all pass. Asserts that no burst takes more memory than a few segments
/// for each of its packets.
fn send(lab: &mut Lab, frames: &[Vec<u8>], step: usize) {
    for burst in frames.chunks(BURST * step) {
        let free = lab.worker.engine().arenas().free();
        let burst: Vec<_> = burst.iter().step_by(step).map(|frame| HeapPacket::from_frame(frame)).collect();
        let count = burst.len();
        lab.arrive(INSIDE, burst);
        assert_eq!(poll(lab).1, count, "all pass: {:?}", lab.drops());
        for (kind, (before, after)) in free.into_iter().zip(lab.worker.engine().arenas().free()).enumerate() {
            // A bucket's split and its overflow for each of two entries; one segment of records.
            assert!(before.abs_diff(after) <= 4 * count, "kind {kind}: from {before} to {after} in a burst");
        }
    }
}

/// Issue: ten turns in which the whole table is filled, used at random, and emptied by its timers.
#[test]
fn memory_is_flat_and_polls_are_short_over_ten_turns() {
    const SESSIONS: usize = 201_600;
    let mut lab = lab(SESSIONS);
    let at_rest = lab.worker.engine().arenas().free();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for n in 0..SESSIONS {
        let host = Ipv4Addr::from_bits(0xc0a8_8000 + (n % HOSTS) as u32);
        frames.push(udp(INSIDE, (host, 2000 + (n / HOSTS) as u16), end("198.18.0.1:53"), b""));
    }
    // Any order: 997 and the number have no divisor in common.
    let again: Vec<Vec<u8>> = (0..SESSIONS).map(|n| frames[n * 997 % SESSIONS].clone()).collect();
    for turn in 0..10 {
        send(&mut lab, &frames, 1);
        assert_eq!(lab.sessions(), SESSIONS as u64);
        let full = lab.worker.engine().arenas().free();
        lab.now = lab.now + Duration::from_secs(100);
        send(&mut lab, &again, 7);
        assert_eq!(lab.sessions(), SESSIONS as u64, "hits make and end none");
        assert_eq!(lab.worker.engine().arenas().free(), full, "hits take no memory");

        // Those that were not hit end first; then the others; then the ports have rested.
        for (wait, left) in [(250, SESSIONS.div_ceil(7)), (60, 0), (300, 0)] {
            lab.now = lab.now + Duration::from_secs(wait);
            let (mut polls, mut quiet) = (0, 0);
            while quiet < 65 {
                let before = (lab.sessions(), lab.counters.mappings_held.get());
                let (poll, _) = poll(&mut lab);
                let ended = before.0 - lab.sessions();
                let rested = before.1.saturating_sub(lab.counters.mappings_held.get());
                assert!(
                    ended + rested <= ENDED_IN_A_POLL,
                    "turn {turn}: {ended} sessions, {rested} mappings in a poll"
                );
                polls += 1;
                quiet = if poll.more { 0 } else { quiet + 1 };
                assert!(polls < SESSIONS, "turn {turn}: it comes to an end");
            }
            assert_eq!(lab.sessions(), left as u64, "turn {turn}");
        }
        assert_eq!(lab.mappings(), [0; 3]);
        assert_eq!(lab.worker.engine().arenas().free(), at_rest, "turn {turn}: memory is flat");
        lab.check();
    }
}

/// A NAT44 flow takes 160 bytes: its session with TCP's state and timer, its own mapping with a timer, and two index entries
/// of each at the load to which tables are filled. Measured: what a shard holds of its worker's memory for very many flows.
#[test]
fn a_flow_takes_160_bytes() {
    const SESSIONS: usize = 200_000;
    const PORTS: usize = 50_000;
    let mut lab = lab(SESSIONS);
    let at_rest = lab.worker.engine().arenas().free();
    // All in one shard, so that segments which are not full matter as little as they do with millions of flows.
    let of_shard = |host: &u32| shard_of4(*host) == ShardId(7);
    let hosts: Vec<u32> = (0xc0a8_8000..).filter(of_shard).take(SESSIONS / PORTS).collect();
    for host in hosts {
        let from = |port: usize| (Ipv4Addr::from_bits(host), 2000 + port as u16);
        let frames: Vec<_> = (0..PORTS).map(|port| udp(INSIDE, from(port), end("198.18.0.1:53"), b"")).collect();
        send(&mut lab, &frames, 1);
    }
    assert_eq!(lab.sessions(), SESSIONS as u64);
    let held = at_rest.into_iter().zip(lab.worker.engine().arenas().free()).map(|(before, after)| before - after);
    let bytes: usize = Arenas::SEGMENTS.iter().zip(held).map(|((_, bytes), held)| bytes * held).sum();
    let flow = bytes as f64 / SESSIONS as f64;
    // One segment of each kind, or two, is not full.
    let rounding = Arenas::SEGMENTS.iter().map(|(_, bytes)| 2 * bytes).sum::<usize>() as f64 / SESSIONS as f64;
    assert!((140.0..=160.0 + rounding).contains(&flow), "{flow:.1} bytes, {rounding:.1} of them in segments not full");
}

/// CGN-16: new flows flood a full table, from inside and from outside, 31 packets of each poll's 32. Of the established flows,
/// whose packets come at an even pace among them, not one is lost, in either direction; and each refused packet is counted.
#[test]
fn a_flood_into_a_full_table_costs_established_flows_nothing() {
    const SESSIONS: usize = 640;
    const POLLS: usize = 5_000;
    let mut lab = lab(SESSIONS);
    let server = end("198.18.0.1:53");
    let host = |n: usize| (Ipv4Addr::new(192, 168, 1, 10 + (n % 64) as u8), 2000 + (n / 64) as u16);
    let flows: Vec<(End, End)> = (0..SESSIONS).map(|n| (host(n), lab.udp_out(host(n), server))).collect();
    assert_eq!(lab.sessions(), SESSIONS as u64);
    assert!(flows.iter().all(|(inside, external)| lab.udp_in(server, *external, *inside)), "neighbours are known");
    let refused = lab.counters.drops(Drop::SessionTableFull);
    let unsolicited = lab.counters.drops(Drop::Unsolicited) + lab.counters.drops(Drop::Filtered);
    let mut stranger = 0u32;
    for n in 0..POLLS {
        let (inside, external) = flows[n * 7 % SESSIONS];
        let mut out = vec![udp(INSIDE, inside, server, b"out")];
        let mut back = vec![udp(OUTSIDE, server, external, b"back")];
        for _ in 1..BURST {
            stranger += 1;
            let new = (Ipv4Addr::from_bits(0xc0a8_4000 + (stranger & 0x3fff)), 10_000 + (stranger >> 14) as u16);
            out.push(udp(INSIDE, new, server, b"new"));
            let from = (Ipv4Addr::from_bits(0xc612_0000 + stranger), 4000);
            back.push(udp(OUTSIDE, from, external, b"nobody asked"));
        }
        // In the middle of the others.
        out.swap(0, n % BURST);
        back.swap(0, n % BURST);
        lab.now = lab.now + Duration::from_micros(10);
        for (interface, frames) in [(INSIDE, out), (OUTSIDE, back)] {
            lab.arrive(interface, frames.iter().map(|frame| HeapPacket::from_frame(frame)));
        }
        lab.worker.poll_once(lab.now);
        while lab.from_worker.try_recv().is_ok() {}
        let sent: Vec<Vec<Vec<u8>>> = lab.worker.devices_mut().iter_mut().map(|it| it.tx.drain(..).collect()).collect();
        let udp_of =
            |frames: &[Vec<u8>]| frames.iter().map(|it| read(it)).filter(|it| it.protocol == 17).collect::<Vec<_>>();
        let (to_inside, to_outside) = (udp_of(&sent[0]), udp_of(&sent[1]));
        assert_eq!((to_outside.len(), to_inside.len()), (1, 1), "poll {n}: {:?}", lab.drops());
        assert_eq!((to_outside[0].source, &to_outside[0].payload[..]), (external, &b"out"[..]));
        assert_eq!((to_inside[0].destination, &to_inside[0].payload[..]), (inside, &b"back"[..]));
    }
    let flood = (POLLS * (BURST - 1)) as u64;
    assert_eq!(lab.counters.drops(Drop::SessionTableFull) - refused, flood);
    let unsolicited = lab.counters.drops(Drop::Unsolicited) + lab.counters.drops(Drop::Filtered) - unsolicited;
    assert_eq!((unsolicited, lab.sessions()), (flood, SESSIONS as u64));
    lab.check();
}
