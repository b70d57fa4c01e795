//! Several workers do what one does, with any mix of flows, fragments, ICMP errors and hairpins: the same packets leave, in the
//! same order within a flow, up to the choice of external ports and IPv4 identifications.
//!
//! A conversation is played on a gateway of one worker and on one of several, each with the answers that its own external ports
//! call for. A round's packets are spread over the queues, by an emulated NIC or by chance; then the workers are stepped in an
//! order drawn from a seed, until all is quiet.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::fragments::{cut_up, fragmentable, put_together};
use common::mix::{Dice, Flow, Form, Kind, Mix, Numbered, Peer, Step, Way, gateway, hosts};
use common::nic::{Fields, Nic};
use common::player::{Player, Seen, Told, assert_same};
use common::team::{RING, Team};
use common::{INSIDE, OUTSIDE, end, read, rule, udp};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::plan::{Nat44Rule, Spec};
use dataplane::steer::{SHARDS, ShardId, ShardSet, WorkerId, shard_of4};
use dataplane::worker::Poll;

type CounterOf = fn(&Counters) -> &Counter;

/// What adds up over workers to what one has.
const SUMS: [(&str, CounterOf); 11] = [
    ("received", |it| &it.received),
    ("originated", |it| &it.originated),
    ("transmitted", |it| &it.transmitted),
    ("punted", |it| &it.punted),
    ("held", |it| &it.held),
    ("sessions", |it| &it.session_creations),
    ("mappings", |it| &it.mapping_creations),
    ("hairpins", |it| &it.hairpins),
    ("fragments", |it| &it.fragments),
    ("cut", |it| &it.cut),
    ("pieces", |it| &it.pieces),
];

#[track_caller]
fn assert_same_counts(many: &Team, one: &Team) {
    for reason in Drop::ALL {
        assert_eq!(many.drops(*reason), one.drops(*reason), "{}", reason.name());
    }
    for (name, counter) in SUMS {
        assert_eq!(many.sum(counter), one.sum(counter), "{name}");
    }
}

/// How packets reach queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As a NIC does that was told of the shards.
    Nic,
    /// By a hash of the flow that knows nothing of shards: order within a flow is kept, owners are missed.
    Flow,
}

/// A gateway whose workers are stepped one by one.
struct Stepped {
    player: Player,
    team: Team,
    spread: Spread,
    nics: [Nic; 2],
}

impl Stepped {
    fn new(spec: Spec, workers: u8, spread: Spread) -> Stepped {
        Stepped::with_rings(spec, workers, spread, 8 * RING)
    }

    /// The same with rings of this capacity.
    fn with_rings(spec: Spec, workers: u8, spread: Spread, ring: usize) -> Stepped {
        let team = Team::behind_nics(spec, workers, ring, spread == Spread::Nic);
        // So many do not wait for their router.
        team.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap());
        let nics = [Nic::new(Fields::Source, &team.map), Nic::new(Fields::Destination, &team.map)];
        Stepped { player: Player::new(), team, spread, nics }
    }

    /// Puts packets into queues, and says how many.
    fn arrive(&mut self, steps: &[Numbered]) -> u64 {
        let frames = self.player.frames(steps);
        for (interface, frame) in &frames {
            let queue = match self.spread {
                Spread::Nic => self.nics[usize::from(interface.0)].queue(frame),
                Spread::Flow => {
                    // Addresses, and ports where there are any.
                    let whole = frame[20] & 0x3f == 0 && frame[21] == 0;
                    let ends = &frame[26..if frame[23] == 1 || !whole { 34 } else { 38 }];
                    let ends: usize = ends.iter().map(|&byte| usize::from(byte)).sum();
                    (ends * 7 + usize::from(frame[23])) % self.team.workers.len()
                }
            };
            self.team.arrive(queue, *interface, frame);
        }
        frames.len() as u64
    }

    /// Plays steps at once; what leaves.
    #[track_caller]
    fn round(&mut self, steps: &[Numbered], order: &mut Dice) -> Seen {
        self.arrive(steps);
        self.quiet(order)
    }

    /// Steps the workers, in an order that is drawn, until nothing moves; what leaves.
    #[track_caller]
    fn quiet(&mut self, order: &mut Dice) -> Seen {
        let mut idle = vec![false; self.team.workers.len()];
        while idle.contains(&false) {
            let worker = order.below(idle.len());
            let Poll { received, taken_over, messages, .. } = self.team.step(worker);
            let moved = received + taken_over + messages > 0;
            if moved {
                idle.fill(false);
            }
            idle[worker] = !moved;
        }
        let frames = self.team.run();
        assert_eq!((self.team.moves, self.team.drops(Drop::HandOverFull)), (0, 0));
        self.player.tell(&frames)
    }
}

/// A gateway of one worker and one of several, which get the same.
struct Pair {
    one: Stepped,
    many: Stepped,
    dice: Dice,
}

impl Pair {
    fn new(seed: u64, workers: u8, spread: Spread) -> Pair {
        let [one, many] = [1, workers].map(|workers| Stepped::new(gateway(), workers, spread));
        Pair { one, many, dice: Dice(seed ^ 0x5eed) }
    }

    /// Plays steps on both: the same leaves.
    #[track_caller]
    fn round(&mut self, steps: &[Numbered]) {
        let expected = self.one.round(steps, &mut Dice(1));
        let seen = self.many.round(steps, &mut self.dice);
        assert_same(&seen, &expected);
    }

    /// So many shards go to any workers, and have arrived.
    fn move_shards(&mut self, count: usize) {
        let workers = self.many.team.workers.len();
        for _ in 0..count {
            let (shard, to) = (ShardId(self.dice.below(SHARDS) as u8), WorkerId(self.dice.below(workers) as u8));
            self.many.team.move_shard(shard, to);
            assert!(self.many.quiet(&mut self.dice).is_empty());
            assert_eq!(self.many.team.map.owner(shard), to);
        }
    }

    /// Waits until what still waits for fragments has been given up. Both have done the same, and of everything there was some.
    fn finish(self) -> Stepped {
        let Pair { mut one, mut many, mut dice } = self;
        for it in [&mut one, &mut many] {
            it.team.wait(Duration::from_secs(60));
            assert!(it.quiet(&mut dice).is_empty());
            assert_eq!(it.team.sum(|it| &it.held), 0);
            assert!(it.player.put_together() > 10);
        }
        assert_same_counts(&many.team, &one.team);
        for (name, counter) in SUMS.iter().filter(|(name, _)| !matches!(*name, "held" | "punted")) {
            assert!(one.team.sum(counter) > 10, "{name}");
        }
        for reason in [Drop::FragmentTimeout, Drop::FragmentOverlap, Drop::TtlExceeded, Drop::TooBig, Drop::Unsolicited]
        {
            assert!(one.team.drops(reason) > 0, "{}", reason.name());
        }
        many
    }
}

/// Plays a conversation of 60 rounds on one worker and on several. `moves`: one shard in every so many rounds.
fn compare(seed: u64, workers: u8, spread: Spread, moves: Option<usize>) -> Stepped {
    let (mut pair, mut mix) = (Pair::new(seed, workers, spread), Mix::new(seed));
    for number in 0..60 {
        if moves.is_some_and(|every| number % every == 0) {
            pair.move_shards(1);
        }
        pair.round(&mix.round(50));
    }
    pair.finish()
}

#[test]
fn any_number_of_workers_behind_a_nic_does_what_one_does() {
    for (seed, workers) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (6, 2), (7, 3), (8, 4), (9, 8)] {
        compare(seed, workers, Spread::Nic, None);
    }
}

#[test]
fn any_number_of_workers_behind_a_nic_that_knows_nothing_of_shards_does_what_one_does() {
    for (seed, workers) in [(11, 1), (12, 2), (13, 3), (14, 4), (15, 8), (16, 2), (17, 8)] {
        let many = compare(seed, workers, Spread::Flow, None);
        assert_eq!(workers > 1, many.team.handed_over() > 0);
    }
}

/// Shards move when nothing is on its way, with what waits for fragments and what is known of datagrams.
#[test]
fn shards_move_and_nothing_is_lost_or_overtaken() {
    for (seed, workers) in [(21, 2), (22, 3), (23, 4), (24, 8)] {
        for spread in [Spread::Nic, Spread::Flow] {
            compare(seed, workers, spread, Some(3));
        }
    }
}

/// The same in lockstep: a step is a packet or a few, and ends when the rings are empty; after every hundred of them shards move.
#[test]
fn in_lockstep_shards_move_every_hundred_steps() {
    for (seed, workers, spread) in [(25, 2, Spread::Flow), (26, 3, Spread::Nic), (27, 8, Spread::Flow)] {
        let (mut pair, mut mix) = (Pair::new(seed, workers, spread), Mix::new(seed));
        for step in 0..1000 {
            if step % 100 == 0 {
                pair.move_shards(32);
            }
            pair.round(&mix.round(3));
        }
        pair.finish();
    }
}

/// Both NICs name the owner: of a packet from inside, and of one to a port of a block that was leased where it is at home.
#[test]
fn behind_nics_that_know_the_shards_no_packet_is_handed_over() {
    // A port that is to be kept may be anywhere.
    let spec = Spec { nat44: vec![Nat44Rule { port_preservation: false, ..rule() }], ..gateway() };
    let mut stepped = Stepped::new(spec, 4, Spread::Nic);
    let mut dice = Dice(51);
    let flows: Vec<Flow> = (0..200)
        .map(|n| Flow {
            kind: [Kind::Udp, Kind::Tcp][n % 2],
            host: (Ipv4Addr::new(192, 168, 1, 10 + n as u8), 5000 + n as u16),
            peer: Peer::Server(end("198.18.0.1:80")),
        })
        .collect();
    let steps = |first: u16, way| -> Vec<Numbered> {
        (first..).zip(&flows).map(|(tag, &flow)| (tag, Step::Packet(flow, way, Form::Atomic))).collect()
    };
    assert_eq!(stepped.round(&steps(1, Way::There), &mut dice).len(), 200);
    assert_eq!(stepped.round(&steps(1000, Way::Back), &mut dice).len(), 200);
    assert_eq!(stepped.team.handed_over(), 0);
    // All four had their part of it.
    assert!(stepped.team.counters.iter().all(|it| it.received.get() > 40));
}

/// N44-27: what waits for its datagram's first fragment waits with one worker, wherever its fragments are received.
#[test]
fn n44_27_fragments_meet_at_one_worker() {
    let mut team = Team::new(gateway(), 4);
    let host = end("192.168.1.10:4640");
    let out = team.send(0, INSIDE, &udp(INSIDE, host, end("198.18.0.1:1000"), b"out"));
    let [(OUTSIDE, out)] = &out[..] else { panic!("{out:?}") };
    let external = read(out).source;
    for id in 0..64 {
        let whole = fragmentable(&udp(OUTSIDE, end("198.18.0.1:1000"), external, &[7; 3000]), id);
        let fragments = cut_up(&whole, &[171, 300]);
        let mut out = Vec::new();
        for (worker, nth) in [(3, 2), (1, 1), (2, 0)] {
            out.extend(team.send(worker, OUTSIDE, &fragments[nth]).into_iter().map(|(_, frame)| frame));
        }
        let whole = read(&put_together(&out));
        assert_eq!((whole.source, whole.destination), (end("198.18.0.1:1000"), host));
    }
}

/// All shards of a worker go: it owns nothing, holds nothing, and goes on receiving for the others.
#[test]
fn a_worker_can_be_emptied() {
    let mut stepped = Stepped::new(gateway(), 2, Spread::Nic);
    let (mut dice, mut mix) = (Dice(31), Mix::new(31));
    for _ in 0..10 {
        stepped.round(&mix.round(60), &mut dice);
    }
    let sessions = |stepped: &Stepped, worker: usize| {
        stepped.team.workers[worker].engine().shards().iter().map(|shard| shard.sessions().count()).sum::<usize>()
    };
    let before = [0, 1].map(|worker| sessions(&stepped, worker));
    assert!(before.iter().all(|&count| count > 0));
    let waiting = stepped.team.sum(|it| &it.fragments_held);
    assert!(waiting > 0);
    for shard in ShardId::all() {
        stepped.team.move_shard(shard, WorkerId(1));
        assert!(stepped.quiet(&mut dice).is_empty());
    }
    assert_eq!([0, 1].map(|worker| sessions(&stepped, worker)), [0, before[0] + before[1]]);
    assert_eq!(stepped.team.map.shards_of(WorkerId(1)), ShardSet::ALL);
    // Of a gauge only the sum means anything: it is what there is.
    let gauge = dataplane::counters::sum(stepped.team.counters.iter().flat_map(|it| &it.sessions));
    assert_eq!(gauge, (before[0] + before[1]) as u64);
    assert_eq!(stepped.team.sum(|it| &it.fragments_held), waiting);
    // In time everything ends, and when no port is held down any more, is given back.
    for _ in 0..2 {
        stepped.team.wait(Duration::from_secs(24 * 3600));
    }
    let gauge = dataplane::counters::sum(stepped.team.counters.iter().flat_map(|it| &it.sessions));
    assert_eq!((gauge, sessions(&stepped, 1), stepped.team.sum(|it| &it.held)), (0, 0, 0));
    assert_eq!((0..2).map(|external| stepped.team.leases.ports_used(external)).collect::<Vec<_>>(), [[0; 3]; 2]);
}

/// A gateway of one worker and one of several, and a conversation whose flows both know. Nobody has to be asked for.
fn acquainted(seed: u64, workers: u8, ring: usize) -> (Stepped, Stepped, Mix) {
    let mut mix = Mix::new(seed);
    let [mut one, mut many] = [(1, 4096), (workers, ring)].map(|(workers, ring)| {
        let mut stepped = Stepped::with_rings(gateway(), workers, Spread::Flow, ring);
        hosts().for_each(|host| stepped.team.neighbour(INSIDE, host.into()));
        stepped.team.run();
        stepped
    });
    let mut dice = Dice(seed);
    for _ in 0..12 {
        let steps = mix.openings(15);
        assert_same(&many.round(&steps, &mut dice), &one.round(&steps, &mut Dice(1)));
    }
    assert_same_counts(&many.team, &one.team);
    (one, many, mix)
}

/// Shards move in the middle of the traffic: order may then suffer, but nothing is lost.
#[test]
fn shards_that_move_under_traffic_lose_nothing() {
    for workers in [2, 3, 4] {
        let seed = 40 + u64::from(workers);
        let (mut one, mut many, mut mix) = acquainted(seed, workers, 4096);
        let mut dice = Dice(seed);
        for _ in 0..40 {
            for _ in 0..3 {
                let shard = ShardId(dice.below(SHARDS) as u8);
                many.team.move_shard(shard, WorkerId(dice.below(usize::from(workers)) as u8));
            }
            let steps = mix.passing(20);
            let expected = sorted(one.round(&steps, &mut Dice(1)));
            assert_same(&sorted(many.round(&steps, &mut dice)), &expected);
        }
        assert_same_counts(&many.team, &one.team);
    }
}

fn sorted(mut seen: Seen) -> Seen {
    seen.values_mut().for_each(|group| group.sort());
    seen
}

/// Workers in threads of their own, which run as they like, while shards move. Where the rings have room nothing is lost; where they
/// have not, a full ring is what loses, counted, and all that leaves is right. Either way every packet is accounted for, and order
/// is kept in the flows of shards that stay.
#[test]
fn workers_in_threads_lose_nothing_uncounted() {
    for (seed, workers, ring) in [(61, 3, 32_768), (62, 3, 128), (63, 8, 128)] {
        let (mut one, mut many, mut mix) = acquainted(seed, workers, ring);
        let steps = mix.passing(8000);
        let expected = one.round(&steps, &mut Dice(1));
        assert!(Drop::ALL.iter().all(|&reason| one.team.drops(reason) == 0), "all of it would pass");
        let received = many.team.sum(|it| &it.received) + many.arrive(&steps);
        let moved = [0, 7, 12].map(|nth| shard_of4(hosts().nth(nth).expect("a host").to_bits()));
        for shard in moved {
            many.team.move_shard(shard, WorkerId((many.team.map.owner(shard).0 + 1) % workers));
        }
        many.team.run_free(received);
        let frames = many.team.run();
        let seen = many.player.tell(&frames);
        assert_eq!(many.team.sum(|it| &it.received), received);
        assert_in_order(&seen, &expected, &moved);

        // A fragment that has lost its datagram's first one waits in vain; nothing else is lost than by a full ring.
        let (lost, waiting) = (many.team.drops(Drop::HandOverFull), many.team.sum(|it| &it.fragments_held));
        let [sent, of] = [&seen, &expected].map(|seen| seen.values().map(Vec::len).sum::<usize>() as u64);
        // What is cut leaves as two.
        assert!((lost + waiting..=2 * (lost + waiting)).contains(&(of - sent)), "{sent} of {of}, {lost} lost");
        many.team.wait(Duration::from_secs(60));
        assert!(many.team.run().is_empty());
        for (reason, count) in Drop::ALL.iter().map(|&reason| (reason, many.team.drops(reason))) {
            let expected = match reason {
                Drop::HandOverFull => lost,
                Drop::FragmentTimeout => waiting,
                _ => 0,
            };
            assert_eq!(count, expected, "{}", reason.name());
        }
        if ring > frames.len() {
            assert_eq!(lost, 0);
            assert_same_counts(&many.team, &one.team);
        } else {
            assert!(lost > 0);
        }
    }
}

/// Each frame that was seen is one of those expected, once, and behind those seen before it, but for shards that moved.
#[track_caller]
fn assert_in_order(seen: &Seen, expected: &Seen, moved: &[ShardId]) {
    for (group, told) in seen {
        let stays = !group.is_hashed && group.ends.iter().all(|end| !moved.contains(&shard_of4(end.to_bits())));
        let mut left: Vec<&Told> = expected[group].iter().collect();
        let mut from = 0;
        for told in told {
            let at = left[from..].iter().position(|it| *it == told);
            from += at.unwrap_or_else(|| panic!("{told:?} is in its place in {group:?}"));
            left.remove(from);
            from = if stays { from } else { 0 };
        }
    }
}
