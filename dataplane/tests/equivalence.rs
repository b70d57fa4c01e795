//! Several workers do what one does: the same packets leave, in the same order within a flow, up to the choice of external ports.
//!
//! A scenario is played on a gateway of one worker and on one of several, each with the answers that its own external ports call for.
//! A round's packets are spread over the queues, by an emulated NIC or by chance; then the workers are stepped in an
//! order drawn from a seed, until all is quiet. External ports are then replaced by the inside ends that they stand for, of which
//! each has one, and it has no other.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::nic::{Fields, Nic};
use common::scene::{error, with_header};
use common::team::Team;
use common::{End, INSIDE, OUTSIDE, echo, pool, read, rule, spec, tcp, udp, udp_ttl};
use dataplane::counters::Drop;
use dataplane::plan::{IcmpPolicy, InterfaceId, Nat44Rule, Spec};
use dataplane::steer::{SHARDS, ShardId, ShardSet, WorkerId, shard_of4};
use dataplane::time::Time;

/// A gateway with two external addresses, all of whose ICMP errors are sent.
fn gateway() -> Spec {
    Spec {
        icmp: IcmpPolicy { rate: 1_000_000_000, burst: 1_000_000, ..IcmpPolicy::default() },
        pools: vec![pool(&["203.0.113.5-203.0.113.6"], 1024..=60_000)],
        ..spec()
    }
}

/// Numbers from a seed (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Udp,
    Tcp,
    Ping,
}

/// A flow from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    kind: Kind,
    host: End,
    server: End,
}

impl Flow {
    fn drawn(dice: &mut Dice) -> Flow {
        let host = Ipv4Addr::new(192, 168, 1, 10 + dice.below(40) as u8);
        let server = Ipv4Addr::new(198, 18, 0, 1 + dice.below(3) as u8);
        let kind = [Kind::Udp, Kind::Tcp, Kind::Ping][dice.below(3)];
        let server_port = if kind == Kind::Ping { 0 } else { 80 };
        Flow { kind, host: (host, 5000 + dice.below(4) as u16), server: (server, server_port) }
    }
}

/// One packet of a scenario, by what it is; its bytes depend on the gateway's external ports.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// From inside; the first of a TCP flow is a SYN.
    Out(Flow),
    /// The server's answer.
    Back(Flow),
    /// A router outside says that what the flow sends can't be delivered.
    ErrorFromOutside(Flow),
    /// The host says so of what it receives.
    ErrorFromInside(Flow),
    /// From inside, with its last hop.
    Expired(Flow),
    /// From outside, to a port that no pool gives out.
    Knock(u16),
}

/// How packets reach queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// As a NIC does that was told of the shards.
    Nic,
    /// By a hash of the flow that knows nothing of shards: order within a flow is kept, owners are missed.
    Flow,
}

/// What has left, by flow, direction and kind.
type Seen = BTreeMap<String, Vec<String>>;

struct Player {
    team: Team,
    spread: Spread,
    nics: [Nic; 2],
    /// External ends as they were seen to stand for inside ends, and back.
    inside: HashMap<(Kind, End), End>,
    outside: HashMap<(Kind, End), End>,
    opened: HashMap<Flow, u16>,
}

impl Player {
    fn new(workers: u8, spread: Spread) -> Player {
        Player::on(gateway(), workers, spread)
    }

    fn on(spec: Spec, workers: u8, spread: Spread) -> Player {
        let team = Team::behind_nics(spec, workers, 4096, spread == Spread::Nic);
        let nics = [Nic::new(Fields::Source, &team.map), Nic::new(Fields::Destination, &team.map)];
        Player { team, spread, nics, inside: HashMap::new(), outside: HashMap::new(), opened: HashMap::new() }
    }

    /// The frame of a step, with `tag` to be known by. None if the flow has no external end yet.
    fn frame(&mut self, step: Step, tag: u16) -> Option<(InterfaceId, Vec<u8>)> {
        let payload = tag.to_be_bytes();
        let external = |flow: &Flow| self.outside.get(&(flow.kind, flow.host)).copied();
        let (interface, frame) = match step {
            Step::Out(flow) => {
                let first = *self.opened.entry(flow).or_insert(tag) == tag;
                let Flow { kind, host, server } = flow;
                let frame = match kind {
                    Kind::Udp => udp(INSIDE, host, server, &payload),
                    Kind::Tcp if first => tcp(INSIDE, host, server, "S", 1000, 0, &payload),
                    Kind::Tcp => tcp(INSIDE, host, server, "A", 1001, 1, &payload),
                    Kind::Ping => echo(INSIDE, host.0, server.0, true, host.1, tag),
                };
                (INSIDE, frame)
            }
            Step::Expired(Flow { host, server, .. }) => (INSIDE, udp_ttl(INSIDE, host, server, &payload, 1)),
            Step::Back(flow) => (OUTSIDE, back(&flow, external(&flow)?, tag)),
            Step::Knock(port) => {
                let from = (Ipv4Addr::new(198, 18, 0, 9), 7);
                (OUTSIDE, udp(OUTSIDE, from, (Ipv4Addr::new(203, 0, 113, 5), port), &payload))
            }
            Step::ErrorFromOutside(flow) => {
                let sent = forth(&flow, external(&flow)?, tag);
                (OUTSIDE, error(OUTSIDE, Ipv4Addr::new(198, 18, 0, 254), 3, 1, &tagged(&sent, tag)[14..]))
            }
            Step::ErrorFromInside(flow) => {
                external(&flow)?;
                let got = back(&flow, flow.host, tag);
                (INSIDE, error(INSIDE, flow.host.0, 3, 3, &tagged(&got, tag)[14..]))
            }
        };
        Some((interface, tagged(&frame, tag)))
    }

    /// Plays steps at once; what leaves.
    fn round(&mut self, steps: &[(u16, Step)], order: &mut Dice) -> Seen {
        let workers = self.team.workers.len();
        for &(tag, step) in steps {
            let Some((interface, frame)) = self.frame(step, tag) else { continue };
            let queue = match self.spread {
                Spread::Nic => self.nics[usize::from(interface.0)].queue(&frame),
                Spread::Flow => {
                    // Addresses, and ports where there are any.
                    let ends = &frame[26..if frame[23] == 1 { 34 } else { 38 }];
                    let ends: usize = ends.iter().map(|&byte| usize::from(byte)).sum();
                    (ends * 7 + usize::from(frame[23])) % workers
                }
            };
            self.team.arrive(queue, interface, &frame);
        }
        self.quiet(order)
    }

    /// Steps the workers until nothing moves; what leaves.
    fn quiet(&mut self, order: &mut Dice) -> Seen {
        let workers = self.team.workers.len();
        for _ in 0..3 * workers {
            self.team.step(order.below(workers));
        }
        let frames = self.team.run();
        assert_eq!((self.team.moves, self.team.drops(Drop::HandOverFull)), (0, 0));
        self.learn(&frames);
        let mut seen = Seen::new();
        for (interface, frame) in &frames {
            let (group, what) = self.told(*interface, frame);
            seen.entry(group).or_default().push(what);
        }
        seen
    }

    /// Which external ends stand for which inside ends: one for one. The tag says which step a frame comes of, and so whose.
    fn learn(&mut self, frames: &[(InterfaceId, Vec<u8>)]) {
        for (_, frame) in frames.iter().filter(|(interface, _)| *interface == OUTSIDE) {
            let out = read(frame);
            let Some(kind) = kind(out.protocol, &out.transport) else { continue };
            let external = match kind {
                Kind::Ping => (out.source.0, word(&out.transport, 4)),
                _ => out.source,
            };
            let host = self.opened_by(kind, out.destination.0, word(frame, 18));
            if let Some(host) = host {
                assert_eq!(
                    *self.outside.entry((kind, host)).or_insert(external),
                    external,
                    "{host:?} has one external end"
                );
                assert_eq!(
                    *self.inside.entry((kind, external)).or_insert(host),
                    host,
                    "{external:?} stands for one host"
                );
            }
        }
    }

    /// The inside end of the flow whose latest packet has this tag.
    fn opened_by(&self, kind: Kind, server: Ipv4Addr, tag: u16) -> Option<End> {
        let is = |flow: &&Flow| flow.kind == kind && flow.server.0 == server && self.opened[*flow] == tag;
        self.opened.keys().find(is).map(|flow| flow.host)
    }

    /// A frame that has left, with inside ends in place of external ones: its flow, and what it says.
    fn told(&self, interface: InterfaceId, frame: &[u8]) -> (String, String) {
        let got = read(frame);
        let tag = word(frame, 18);
        let end = |kind: Kind, end: End| match self.inside.get(&(kind, end)) {
            Some(host) => format!("<{host:?}>"),
            None => format!("{end:?}"),
        };
        if let Some(kind) = kind(got.protocol, &got.transport) {
            let port = word(&got.transport, 4);
            let (from, to) = match kind {
                Kind::Ping if interface == OUTSIDE => ((got.source.0, port), got.destination),
                Kind::Ping => (got.source, (got.destination.0, port)),
                _ => (got.source, got.destination),
            };
            let flow = format!("{interface:?} {kind:?} {} {}", end(kind, from), end(kind, to));
            return (flow, format!("{tag} ttl {} {:?}", got.ttl, got.payload));
        }
        // An ICMP error: what it quotes is of a flow too, as it looks where the error goes.
        let quote = &got.transport[8..];
        let kind = match quote[9] {
            17 => Kind::Udp,
            6 => Kind::Tcp,
            _ => Kind::Ping,
        };
        let address = |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
        let (from, to) = match (kind, quote[20]) {
            (Kind::Ping, 8) => ((address(12), word(quote, 24)), (address(16), 0)),
            (Kind::Ping, _) => ((address(12), 0), (address(16), word(quote, 24))),
            _ => ((address(12), word(quote, 20)), (address(16), word(quote, 22))),
        };
        let said = format!("{}/{} from {}", got.transport[0], got.transport[1], outer(got.source.0));
        let to_whom = outer(got.destination.0);
        let about = format!("{} {} id {}", end(kind, from), end(kind, to), word(quote, 4));
        (format!("{interface:?} error about {about}"), format!("{tag} {said} to {to_whom} about {about}"))
    }
}

/// An address of an error itself. Which of the pool's it is, is part of the choice of external ends.
fn outer(address: Ipv4Addr) -> String {
    let is_external = [Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(203, 0, 113, 6)].contains(&address);
    if is_external { "external".to_owned() } else { address.to_string() }
}

/// The frame with this IPv4 identification, which no translation changes.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    with_header(frame, |header| header.identification = tag)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn kind(protocol: u8, transport: &[u8]) -> Option<Kind> {
    match (protocol, transport[0]) {
        (17, _) => Some(Kind::Udp),
        (6, _) => Some(Kind::Tcp),
        (1, 0 | 8) => Some(Kind::Ping),
        _ => None,
    }
}

/// What a flow sends, as it looks with its source at `from`.
fn forth(flow: &Flow, from: End, tag: u16) -> Vec<u8> {
    match flow.kind {
        Kind::Udp => udp(OUTSIDE, from, flow.server, &tag.to_be_bytes()),
        Kind::Tcp => tcp(OUTSIDE, from, flow.server, "A", 1001, 1, &tag.to_be_bytes()),
        Kind::Ping => echo(OUTSIDE, from.0, flow.server.0, true, from.1, tag),
    }
}

/// The server's answer to `to`.
fn back(flow: &Flow, to: End, tag: u16) -> Vec<u8> {
    match flow.kind {
        Kind::Udp => udp(OUTSIDE, flow.server, to, &tag.to_be_bytes()),
        Kind::Tcp => tcp(OUTSIDE, flow.server, to, "A", 1, 1001, &tag.to_be_bytes()),
        Kind::Ping => echo(OUTSIDE, flow.server.0, to.0, false, to.1, tag),
    }
}

/// A scenario's rounds. In a round a flow is opened by no more than one packet, and only what was opened before is answered.
fn scenario(seed: u64, rounds: usize) -> Vec<Vec<(u16, Step)>> {
    let mut dice = Dice(seed);
    let mut tag = 0;
    let mut flows: Vec<Flow> = Vec::new();
    let round = |_| {
        let known = flows.len();
        let steps = (0..1 + dice.below(60)).map(|_| {
            tag += 1;
            let old = |dice: &mut Dice, flows: &[Flow]| flows[dice.below(known)];
            let step = match dice.below(12) {
                0..3 => {
                    let flow = Flow::drawn(&mut dice);
                    if !flows.contains(&flow) {
                        flows.push(flow);
                        Step::Out(flow)
                    } else {
                        Step::Knock(60_001 + dice.below(5000) as u16)
                    }
                }
                _ if known == 0 => Step::Knock(60_001 + dice.below(5000) as u16),
                3..5 => Step::Out(old(&mut dice, &flows)),
                5..8 => Step::Back(old(&mut dice, &flows)),
                8 => Step::ErrorFromOutside(old(&mut dice, &flows)),
                9 => Step::ErrorFromInside(old(&mut dice, &flows)),
                10 => Step::Expired(old(&mut dice, &flows)),
                _ => Step::Knock(60_001 + dice.below(5000) as u16),
            };
            (tag, step)
        });
        steps.collect()
    };
    (0..rounds).map(round).collect()
}

/// Plays a scenario on one worker and on several, and compares. `moves`: one shard in every so many rounds.
fn compare(seed: u64, workers: u8, spread: Spread, moves: Option<usize>) -> Player {
    let (mut one, mut many) = (Player::new(1, spread), Player::new(workers, spread));
    let mut dice = Dice(seed ^ 0x5eed);
    for (number, steps) in scenario(seed, 40).iter().enumerate() {
        if moves.is_some_and(|every| number % every == 0) {
            let (shard, to) = (ShardId(dice.below(SHARDS) as u8), WorkerId(dice.below(usize::from(workers)) as u8));
            many.team.move_shard(shard, to);
            assert!(many.quiet(&mut dice).is_empty());
            assert_eq!(many.team.map.owner(shard), to);
        }
        let expected = one.round(steps, &mut Dice(1));
        let seen = many.round(steps, &mut dice);
        assert_eq!(seen, expected, "seed {seed}, {workers} workers, round {number}: {steps:?}");
    }
    for (name, counter) in [
        ("drops", (|team: &Team| Drop::ALL.iter().map(|&reason| team.drops(reason)).sum::<u64>()) as fn(&Team) -> u64),
        ("sessions", |team| team.sum(|it| &it.session_creations)),
        ("mappings", |team| team.sum(|it| &it.mapping_creations)),
        ("originated", |team| team.sum(|it| &it.originated)),
    ] {
        assert_eq!(counter(&many.team), counter(&one.team), "{name}");
    }
    many
}

#[test]
fn any_number_of_workers_behind_a_nic_does_what_one_does() {
    for (seed, workers) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 8), (6, 2), (7, 3), (8, 4), (9, 8)] {
        compare(seed, workers, Spread::Nic, None);
    }
}

/// Both NICs name the owner: of a packet from inside, and of one to a port of a block that was leased where it is at home.
#[test]
fn behind_nics_that_know_the_shards_no_packet_is_handed_over() {
    // A port that is to be kept may be anywhere.
    let spec = Spec { nat44: vec![Nat44Rule { port_preservation: false, ..rule() }], ..gateway() };
    let mut player = Player::on(spec, 4, Spread::Nic);
    // So many do not wait for their router.
    player.team.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap());
    let mut dice = Dice(51);
    let flows: Vec<Flow> = (0..200)
        .map(|n| Flow {
            kind: [Kind::Udp, Kind::Tcp][n % 2],
            host: (Ipv4Addr::new(192, 168, 1, 10 + n as u8), 5000 + n as u16),
            server: (Ipv4Addr::new(198, 18, 0, 1), 80),
        })
        .collect();
    let out: Vec<_> = (1..).zip(flows.iter().map(|&flow| Step::Out(flow))).collect();
    assert_eq!(player.round(&out, &mut dice).len(), 200);
    let back: Vec<_> = (1000..).zip(flows.iter().map(|&flow| Step::Back(flow))).collect();
    assert_eq!(player.round(&back, &mut dice).len(), 200);
    assert_eq!(player.team.handed_over(), 0);
    // All four had their part of it.
    assert!(player.team.counters.iter().all(|it| it.received.get() > 40));
}

#[test]
fn any_number_of_workers_behind_a_nic_that_knows_nothing_of_shards_does_what_one_does() {
    for (seed, workers) in [(11, 1), (12, 2), (13, 3), (14, 4), (15, 8), (16, 2), (17, 8)] {
        let many = compare(seed, workers, Spread::Flow, None);
        assert_eq!(workers > 1, many.team.handed_over() > 0);
    }
}

#[test]
fn shards_move_and_nothing_is_lost_or_overtaken() {
    for (seed, workers) in [(21, 2), (22, 3), (23, 4), (24, 8)] {
        for spread in [Spread::Nic, Spread::Flow] {
            compare(seed, workers, spread, Some(3));
        }
    }
}

/// All shards of a worker go: it owns nothing, holds nothing, and goes on receiving for the others.
#[test]
fn a_worker_can_be_emptied() {
    let mut player = Player::new(2, Spread::Nic);
    let mut dice = Dice(31);
    for steps in scenario(31, 10) {
        player.round(&steps, &mut dice);
    }
    let sessions = |player: &Player, worker: usize| {
        player.team.workers[worker].engine().shards().iter().map(|shard| shard.sessions().count()).sum::<usize>()
    };
    let before = [0, 1].map(|worker| sessions(&player, worker));
    assert!(before.iter().all(|&count| count > 0));
    for shard in ShardId::all() {
        player.team.move_shard(shard, WorkerId(1));
        assert!(player.quiet(&mut dice).is_empty());
    }
    assert_eq!([0, 1].map(|worker| sessions(&player, worker)), [0, before[0] + before[1]]);
    assert_eq!(player.team.map.shards_of(WorkerId(1)), ShardSet::ALL);
    // Of a gauge only the sum means anything: it is what there is.
    let gauge = dataplane::counters::sum(player.team.counters.iter().flat_map(|it| &it.sessions));
    assert_eq!(gauge, (before[0] + before[1]) as u64);
    // In time everything ends, and is given back.
    player.team.now = player.team.now + Duration::from_secs(24 * 3600);
    for worker in &mut player.team.workers {
        worker.engine_mut().settle(player.team.now);
    }
    let gauge = dataplane::counters::sum(player.team.counters.iter().flat_map(|it| &it.sessions));
    assert_eq!((gauge, sessions(&player, 1)), (0, 0));
    assert_eq!((0..2).map(|external| player.team.leases.ports_used(external)).collect::<Vec<_>>(), [[0; 3]; 2]);
}

/// Shards move in the middle of the traffic: order may then suffer, but nothing is lost.
#[test]
fn shards_that_move_under_traffic_lose_nothing() {
    for workers in [2, 3, 4] {
        let seed = 40 + u64::from(workers);
        let (mut one, mut many) = (Player::new(1, Spread::Flow), Player::new(workers, Spread::Flow));
        let mut dice = Dice(seed);
        for steps in scenario(seed, 40) {
            for _ in 0..3 {
                let shard = ShardId(dice.below(SHARDS) as u8);
                many.team.move_shard(shard, WorkerId(dice.below(usize::from(workers)) as u8));
            }
            let sorted = |mut seen: Seen| {
                seen.values_mut().for_each(|group| group.sort());
                seen
            };
            let expected = sorted(one.round(&steps, &mut Dice(1)));
            assert_eq!(sorted(many.round(&steps, &mut dice)), expected);
        }
    }
}

/// Workers in threads of their own, which run as they like: what leaves is right and in order, whatever is lost is a counted loss, and
/// every packet is accounted for.
#[test]
fn workers_in_threads_lose_nothing_uncounted() {
    const WORKERS: u8 = 3;
    const ROUNDS: u16 = 400;
    let mut team = Team::with_rings(gateway(), WORKERS, 256);
    // Neighbours first, so that nothing has to wait.
    team.neighbour(OUTSIDE, "198.51.100.1".parse().unwrap());
    let hosts: Vec<End> = (0..24).map(|n| (Ipv4Addr::new(192, 168, 1, 10 + n), 5000)).collect();
    let server = (Ipv4Addr::new(198, 18, 0, 1), 80);
    let mut arrived = 0;
    for round in 0..ROUNDS {
        for (n, &host) in hosts.iter().enumerate() {
            let [high, low] = round.to_be_bytes();
            let payload = [high, low, host.0.octets()[3]];
            team.arrive(n % usize::from(WORKERS), INSIDE, &udp(INSIDE, host, server, &payload));
            arrived += 1;
        }
    }
    let moved = [0, 7, 12].map(|n: usize| shard_of4(hosts[n].0.to_bits()));
    for shard in moved {
        let to = (team.map.owner(shard).0 + 1) % WORKERS;
        team.move_shard(shard, WorkerId(to));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = std::mem::take(&mut team.workers)
        .into_iter()
        .map(|mut worker| {
            let (stop, now) = (Arc::clone(&stop), Time::from_secs(1000));
            std::thread::spawn(move || {
                let mut idle = 0;
                while !stop.load(Ordering::Relaxed) || idle < 100 {
                    let poll = worker.poll_once(now);
                    idle = if poll.received + poll.taken_over + poll.messages == 0 { idle + 1 } else { 0 };
                    if idle > 0 {
                        std::thread::yield_now();
                    }
                }
                worker
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let done = |team: &Team| {
        let dropped: u64 = Drop::ALL.iter().map(|&reason| team.drops(reason)).sum();
        team.sum(|it| &it.transmitted) + dropped == arrived
    };
    while !done(&team) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    team.workers = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    let frames = team.run();
    assert!(done(&team), "{} transmitted of {arrived}", team.sum(|it| &it.transmitted));
    assert_eq!(team.sum(|it| &it.received), arrived);
    let lost = team.drops(Drop::HandOverFull);
    assert_eq!(frames.len() as u64 + lost, arrived, "a ring that is full is the only loss");
    // Each host has one external end, and its rounds leave in order, but for the shards that moved.
    let mut last: HashMap<End, u16> = HashMap::new();
    for (interface, frame) in &frames {
        let out = read(frame);
        assert_eq!((*interface, out.destination), (OUTSIDE, server));
        let round = word(&out.payload, 0);
        let host = Ipv4Addr::new(192, 168, 1, out.payload[2]);
        let before = last.insert(out.source, round);
        if !moved.contains(&shard_of4(host.to_bits())) {
            assert!(before.is_none_or(|before| before < round), "{host}: {before:?} before {round}");
        }
    }
    assert_eq!(last.len(), hosts.len());
}
