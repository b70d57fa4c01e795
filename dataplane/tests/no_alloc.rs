//! Design rule 2: the packet path allocates nothing. A worker whose packets and device allocate nothing themselves runs
//! through everything that a packet can meet, while this thread's heap allocations are counted.
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use common::recycled::{Recycled, RecycledPool};
use common::{End, INSIDE, MACS, OUTSIDE, PEER, echo, end, ethernet, icmp, prefix, spec, tcp, udp, udp_ttl, udp6};
use crossbeam_channel::{Receiver, Sender};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::engine::{Engine, Part};
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{Packet as _, PacketPool as _};
use dataplane::plan::{Filtering, FilteringSet, IcmpPolicy, InterfaceId, Limits, Nat44Rule, Plan, RouteSpec, Spec};
use dataplane::plan::{MidStream, NextHop, Pooling};
use dataplane::pool::Leases;
use dataplane::steer::hand_over::{Links, Move};
use dataplane::steer::{ShardId, ShardMap, ShardSet, WorkerId};
use dataplane::time::Time;
use dataplane::worker::{Access, Burst, Device, Worker};

/// Buffers of the pool, and places on each wire.
const PACKETS: usize = 8192;

/// A port whose wire is two queues of fixed size.
struct Wire {
    rx: VecDeque<Recycled>,
    tx: Vec<Recycled>,
}

impl Device for Wire {
    type Packet = Recycled;

    fn receive(&mut self, burst: &mut Burst<Recycled>) {
        while !burst.is_full()
            && let Some(packet) = self.rx.pop_front()
        {
            burst.push(packet);
        }
    }

    fn transmit(&mut self, burst: &mut Burst<Recycled>) {
        self.tx.extend(burst.drain(..));
    }
}

/// A worker, and the control thread's ends of its queues.
struct Rig {
    worker: Worker<Wire, RecycledPool>,
    pool: RecycledPool,
    to_worker: Sender<ToWorker>,
    from_worker: Receiver<FromWorker<Recycled>>,
    counters: Arc<Counters>,
    now: Time,
}

impl Rig {
    fn new(spec: Spec) -> Rig {
        Rig::heard(spec, PACKETS)
    }

    /// With so much room for what the control thread is told.
    fn heard(spec: Spec, room: usize) -> Rig {
        let now = Time::from_secs(1000);
        let plan = Arc::new(Plan::compile(spec).expect("a plan"));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let leases = Arc::new(Leases::new(&plan));
        let (to_worker, inbox) = crossbeam_channel::bounded(PACKETS);
        let (outbox, from_worker) = crossbeam_channel::bounded(room);
        let pool = RecycledPool::new(PACKETS);
        let wire = || Wire { rx: VecDeque::with_capacity(PACKETS), tx: Vec::with_capacity(PACKETS) };
        let engine = Engine::new(plan, leases, Arc::clone(&counters), now);
        let worker = Worker::new(engine, vec![wire(), wire()], pool.clone(), inbox, outbox);
        let mut rig = Rig { worker, pool, to_worker, from_worker, counters, now };
        for (interface, address) in
            [(OUTSIDE, "198.51.100.1"), (OUTSIDE, "2001:db8:f::1"), (INSIDE, "192.168.1.2"), (INSIDE, "fd00:1::2")]
        {
            rig.neighbour(interface, address.parse().unwrap(), NeighbourState::Reachable(PEER));
        }
        rig.poll("the first neighbours");
        rig
    }

    fn neighbour(&mut self, interface: InterfaceId, address: IpAddr, state: NeighbourState) {
        self.to_worker.send(ToWorker::Neighbour(NeighbourUpdate { interface, address, state })).unwrap();
    }

    /// Polls until all is quiet, and asserts that this allocates nothing. Returns the frames that left.
    #[track_caller]
    fn poll(&mut self, what: &str) -> Vec<Vec<u8>> {
        self.poll_unheard(what);
        while self.from_worker.try_recv().is_ok() {}
        assert_eq!(self.counters.imbalance(), 0);
        let sent = self.worker.devices_mut().iter_mut().flat_map(|wire| wire.tx.drain(..));
        sent.map(|packet| packet.data().to_vec()).collect()
    }

    /// The same, with a control thread that does not listen.
    #[track_caller]
    fn poll_unheard(&mut self, what: &str) {
        let (worker, now) = (&mut self.worker, self.now);
        let info = allocation_counter::measure(|| {
            loop {
                let poll = worker.poll_once(now);
                if poll.received == 0 && poll.messages == 0 {
                    break;
                }
            }
        });
        assert_eq!((info.count_total, info.bytes_total), (0, 0), "allocations and bytes of {what}");
    }

    #[track_caller]
    fn send(&mut self, what: &str, interface: InterfaceId, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let wire = &mut self.worker.devices_mut()[usize::from(interface.0)];
        wire.rx.extend(frames.into_iter().map(|frame| self.pool.packet(&frame)));
        self.poll(what)
    }

    /// Sends frames that all pass.
    #[track_caller]
    fn pass(&mut self, what: &str, interface: InterfaceId, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let before = self.counters.received.get();
        let sent = self.send(what, interface, frames);
        assert_eq!(sent.len() as u64, self.counters.received.get() - before, "{what} all pass");
        sent
    }

    /// Lets time pass, and timers fire.
    fn wait(&mut self, what: &str, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        let (worker, now) = (&mut self.worker, self.now);
        let info = allocation_counter::measure(|| {
            for _ in 0..10_000 {
                worker.poll_once(now);
            }
        });
        assert_eq!((info.count_total, info.bytes_total), (0, 0), "allocations and bytes of {what}");
    }

    fn sessions(&self) -> u64 {
        self.counters.sessions.iter().map(Counter::get).sum()
    }
}

/// Two thousand inside hosts behind an inside router; endpoint-independent filtering, so that ports are held down.
fn provider(limits: Limits) -> Spec {
    let to_hosts = NextHop::Via("192.168.1.2".parse().unwrap(), INSIDE);
    let to_hosts6 = NextHop::Via("fd00:1::2".parse().unwrap(), INSIDE);
    let mut spec = spec();
    spec.routes.push(RouteSpec { prefix: prefix("192.168.0.0/16"), next_hop: to_hosts });
    spec.routes.push(RouteSpec { prefix: prefix("fd00:9::/48"), next_hop: to_hosts6 });
    let filtering = FilteringSet {
        tcp: Filtering::AddressPortDependent,
        udp: Filtering::EndpointIndependent,
        icmp: Filtering::AddressDependent,
    };
    let rule = |mid_stream| Nat44Rule { filtering, pooling: Pooling::PairedSoft, mid_stream, ..common::rule() };
    let reset = Nat44Rule { destination: vec![prefix("198.18.0.4/32")], ..rule(MidStream::Reset) };
    spec.nat44 = vec![reset, rule(MidStream::Adopt)];
    spec.icmp = IcmpPolicy { rate: 1_000_000, burst: 1_000_000, ..IcmpPolicy::default() };
    spec.limits = limits;
    spec
}

/// The n-th inside endpoint.
fn host(n: u16) -> End {
    (Ipv4Addr::new(192, 168, 100 + (n / 250) as u8, 1 + (n % 250) as u8), 20_000 + n)
}

fn server() -> End {
    end("198.18.0.1:53")
}

const FLOWS: u16 = 2000;

/// The external ends of flows, from their first frames outside.
fn externals(frames: &[Vec<u8>]) -> Vec<End> {
    frames.iter().map(|frame| common::read(frame).source).collect()
}

#[test]
fn the_packet_path_allocates_nothing() {
    let mut rig = Rig::new(provider(Limits { sessions: 4096, mappings: 4096, ..spec().limits }));
    // Twice, so that what was given back is taken again.
    for _ in 0..2 {
        // New sessions, and hits in both directions.
        let queries = || (0..FLOWS).map(|n| udp(INSIDE, host(n), server(), b"query"));
        let external = externals(&rig.pass("new UDP sessions", INSIDE, queries()));
        rig.pass("UDP hits", INSIDE, queries());
        rig.pass("UDP replies", OUTSIDE, external.iter().map(|&to| udp(OUTSIDE, server(), to, b"answer")));
        let web = end("198.18.0.2:443");
        let to_web = |flags, seq, ack| (0..500).map(move |n| tcp(INSIDE, host(n), web, flags, seq, ack, b""));
        let seen = externals(&rig.pass("SYN", INSIDE, to_web("S", 1, 0)));
        rig.pass("SYN ACK", OUTSIDE, seen.iter().map(|&to| tcp(OUTSIDE, web, to, "SA", 1, 2, b"")));
        rig.pass("FIN", INSIDE, to_web("FA", 2, 2));
        rig.pass("RST", INSIDE, to_web("RA", 3, 2));
        rig.pass("pings", INSIDE, (0..100).map(|n| echo(INSIDE, host(n).0, server().0, true, 20_000 + n, 1)));
        let strangers = external[..100].iter().map(|&to| udp(OUTSIDE, end("198.18.9.9:9"), to, b""));
        rig.pass("sessions from outside", OUTSIDE, strangers);
        // Connections that the gateway does not know: adopted, and reset.
        let known = |to, port| (0..200).map(move |n| tcp(INSIDE, (host(n).0, port), to, "PA", 7, 9, b"data"));
        rig.pass("adopted connections", INSIDE, known(end("198.18.0.3:80"), 31_000));
        rig.pass("resets", INSIDE, known(end("198.18.0.4:80"), 32_000));
        assert_eq!(rig.counters.tcp_resets.get() % 200, 0);
        assert!(rig.counters.tcp_resets.get() > 0);
        // Errors: the gateway's own, and about translated flows in both directions.
        let last = (0..300).map(|n| udp_ttl(INSIDE, host(n), server(), b"probe", 1));
        rig.pass("ICMP errors originated", INSIDE, last);
        rig.pass("packets too big", INSIDE, (0..100).map(|n| udp(INSIDE, host(n), server(), &[0; 1473])));
        let quote = |from| udp(OUTSIDE, from, server(), b"")[14..].to_vec();
        let errors = external.iter().map(|&to| icmp(OUTSIDE, server().0, to.0, 3, 3, [0; 4], &quote(to)));
        rig.pass("ICMP errors from outside", OUTSIDE, errors);
        let quote = |to| udp(INSIDE, server(), to, b"")[14..].to_vec();
        let errors = (0..FLOWS).map(|n| icmp(INSIDE, host(n).0, server().0, 3, 3, [0; 4], &quote(host(n))));
        rig.pass("ICMP errors from inside", INSIDE, errors);
        // What is dropped, routed, or for the host.
        let unsolicited = (0..300).map(|n| udp(OUTSIDE, server(), (external[0].0, 1024 + n), b""));
        rig.send("unsolicited packets", OUTSIDE, unsolicited);
        assert!(rig.counters.drops(Drop::Unsolicited) > 0);
        let whole = udp(INSIDE, host(0), server(), b"payload");
        rig.send("truncated frames", INSIDE, (0..whole.len()).map(|len| whole[..len].to_vec()));
        let six = |to: &str| (to.parse().unwrap(), 9);
        let from_six = |hops| (0..100).map(move |_| udp6(INSIDE, six("fd00:9::1"), six("2001:db8:7::1"), b"", hops));
        rig.pass("IPv6 routing", INSIDE, from_six(64));
        rig.pass("ICMPv6 errors originated", INSIDE, from_six(1));
        rig.send("punted frames", INSIDE, (0..100).map(|_| ethernet(INSIDE, 0x0806, &[0; 46])));
        // What the host sends: the message is the control thread's memory, and goes back to it.
        let pong = echo(INSIDE, Ipv4Addr::new(192, 168, 1, 1), host(1).0, false, 1, 1);
        let frame = [&PEER.0[..], &MACS[0].0, &[8, 6], &[0; 28]].concat();
        for _ in 0..50 {
            rig.to_worker.send(ToWorker::Packet { packet: pong[14..].into() }).unwrap();
            rig.to_worker.send(ToWorker::Frame { interface: INSIDE, frame: frame.clone().into() }).unwrap();
        }
        assert_eq!(rig.poll("packets of the host").len(), 100);
        // Timers.
        assert!(rig.sessions() > u64::from(FLOWS) + 500);
        rig.wait("expiry of UDP sessions", 301);
        rig.wait("expiry of TCP sessions and hold-downs", 8000);
        assert_eq!((rig.sessions(), rig.counters.mappings_held.get()), (0, 0));
    }
    assert_eq!(rig.pool.free(), PACKETS, "every buffer is back");
}

/// At the capacity of each table.
#[test]
fn full_tables_allocate_nothing() {
    let mut rig = Rig::new(provider(Limits { sessions: 700, mappings: 600, ..spec().limits }));
    for round in 1..=2 {
        let frames = (0..FLOWS).map(|n| udp(INSIDE, host(n), server(), b"query"));
        // Those that are refused are answered.
        rig.pass("more flows than mappings", INSIDE, frames);
        assert_eq!(rig.counters.drops(Drop::MappingTableFull), u64::from(FLOWS - 600) * round);
        let frames = (0..FLOWS).map(|n| udp(INSIDE, host(n % 600), (server().0, 1000 + n), b"query"));
        rig.pass("more flows than sessions", INSIDE, frames);
        assert_eq!(rig.counters.drops(Drop::SessionTableFull), u64::from(FLOWS - 100) * round);
        rig.wait("expiry", 301);
        rig.wait("hold-downs", 200);
    }
}

/// Neighbours come and go, at a table that is full, and packets wait for them.
#[test]
fn neighbours_allocate_nothing() {
    // With twice the room for one more, 27 fill a hash table of 64 places as far as it goes.
    let limits = Limits {
        sessions: 64,
        mappings: 64,
        neighbours: 27,
        held_per_neighbour: 4,
        held: 40,
        fragments: 64,
        session_counters: true,
    };
    let mut rig = Rig::new(provider(limits));
    let router = |n: u32| Ipv4Addr::from_bits(0xc633_6400 + 10 + n % 200);
    let mut known = VecDeque::new();
    for n in 0..3000 {
        let to = router(n);
        let waiting = || (0..6).map(|_| udp(INSIDE, host(1), (to, 9), b"wait"));
        rig.send("packets that wait", INSIDE, waiting());
        if known.len() == 23 {
            // The table is full: one goes, and there is room again.
            rig.neighbour(OUTSIDE, known.pop_front().expect("the oldest"), NeighbourState::Failed);
            rig.send("a neighbour that goes", INSIDE, waiting());
        }
        let state = match n % 7 {
            0 => NeighbourState::Failed,
            1 => NeighbourState::Stale(PEER),
            _ => NeighbourState::Reachable(PEER),
        };
        if state != NeighbourState::Failed {
            known.push_back(to.into());
        }
        rig.neighbour(OUTSIDE, to.into(), state);
        rig.poll("what a neighbour releases");
    }
    for reason in [Drop::NeighbourTableFull, Drop::NeighbourQueueFull, Drop::NeighbourFailed] {
        assert!(rig.counters.drops(reason) > 0, "{}", reason.name());
    }
}

/// While the control thread does not listen, what is to be asked of it and told to it waits without taking memory: one
/// question for each neighbour that there is room for, and one report for each stale one.
#[test]
fn a_control_thread_that_does_not_listen_costs_no_memory() {
    const STALE: u128 = 300;
    const NEIGHBOURS: u128 = 1000;
    let limits = Limits {
        sessions: 64,
        mappings: 64,
        neighbours: NEIGHBOURS as u32,
        held_per_neighbour: 2,
        held: 20,
        fragments: 64,
        session_counters: false,
    };
    let mut spec = provider(limits);
    spec.routes.push(RouteSpec { prefix: prefix("2001:db8:77::/48"), next_hop: NextHop::OnLink(OUTSIDE) });
    let mut rig = Rig::heard(spec, 1);
    let neighbour = |n: u128| Ipv6Addr::from_bits(0x2001_0db8_0077 << 80 | n);
    for n in 0..STALE {
        rig.neighbour(OUTSIDE, neighbour(n).into(), NeighbourState::Stale(PEER));
        rig.poll("a stale neighbour");
    }
    let known = rig.counters.transmitted.get();
    // Twice as many destinations as fit, each twice.
    let frames =
        || (0..2 * NEIGHBOURS).map(|n| udp6(INSIDE, ("fd00:9::1".parse().unwrap(), 9), (neighbour(n), 9), b"", 64));
    for _ in 0..2 {
        let wire = &mut rig.worker.devices_mut()[usize::from(INSIDE.0)];
        wire.rx.extend(frames().map(|frame| rig.pool.packet(&frame)));
        rig.poll_unheard("packets that nobody is told of");
        // And what it still says is left where it is.
        rig.neighbour(OUTSIDE, neighbour(1).into(), NeighbourState::Failed);
    }
    assert_eq!(u128::from(rig.counters.transmitted.get() - known), 2 * STALE);
    assert!(rig.counters.drops(Drop::NeighbourTableFull) > 0);
    // Now it listens: everything is said, once.
    let (mut asked, mut used) = (Vec::new(), Vec::new());
    while let Ok(event) = rig.from_worker.try_recv() {
        match event {
            FromWorker::Resolve { address, .. } => asked.push(address),
            FromWorker::NeighbourUsed { address, .. } => used.push(address),
            FromWorker::Spent(_) => {}
            other => panic!("{other:?}"),
        }
        rig.worker.poll_once(rig.now);
    }
    let expected = |range: std::ops::Range<u128>| range.map(|n| IpAddr::from(neighbour(n))).collect::<Vec<_>>();
    asked.sort_unstable();
    used.sort_unstable();
    // Four neighbours of the rig take room too.
    assert_eq!((asked, used), (expected(STALE..NEIGHBOURS - 4), expected(0..STALE)));
}

/// Two workers: packets are handed over, shards move with their sessions, and those end where they have come to.
#[test]
fn several_workers() {
    let mut now = Time::from_secs(1000);
    let plan = Arc::new(Plan::compile(spec()).expect("a plan"));
    let leases = Arc::new(Leases::new(&plan));
    let map = Arc::new(ShardMap::dealt(2));
    let mut pool = RecycledPool::new(PACKETS);
    let (outbox, from_workers) = crossbeam_channel::bounded(PACKETS);
    let (mut inboxes, mut counters) = (Vec::new(), Vec::new());
    let links = Links::between(&map, 2, 1024).into_iter().zip((0..).map(WorkerId));
    let mut workers: Vec<_> = links
        .map(|(links, id)| {
            let (to_worker, inbox) = crossbeam_channel::bounded(PACKETS);
            for (interface, address) in [(OUTSIDE, "198.51.100.1"), (INSIDE, "192.168.1.2")] {
                let (address, state) = (address.parse().unwrap(), NeighbourState::Reachable(PEER));
                to_worker.send(ToWorker::Neighbour(NeighbourUpdate { interface, address, state })).unwrap();
            }
            inboxes.push(to_worker);
            counters.push(Arc::new(Counters::among(2, plan.spec.interfaces.len())));
            let part = Part { shards: map.shards_of(id), workers: 2, steered: true };
            let counters = Arc::clone(&counters[id.index()]);
            let engine = Engine::among(part, Arc::clone(&plan), Arc::clone(&leases), counters, now);
            let wire = || Wire { rx: VecDeque::with_capacity(PACKETS), tx: Vec::with_capacity(PACKETS) };
            // The second sends to the outside through the first.
            let uplink = if id.0 == 0 { Access::Own(wire()) } else { Access::Through(WorkerId(0)) };
            Worker::among(links, engine, [Access::Own(wire()), uplink], pool.clone(), inbox, outbox.clone())
        })
        .collect();
    let quiet = |workers: &mut Vec<Worker<Wire, RecycledPool>>, now, what: &str| {
        let info = allocation_counter::measure(|| {
            loop {
                let polls = [0, 1].map(|worker: usize| workers[worker].poll_once(now));
                if polls.iter().all(|poll| poll.received + poll.taken_over + poll.messages == 0 && !poll.more) {
                    break;
                }
            }
        });
        assert_eq!(info.count_total, 0, "{what}: heap allocations");
        while from_workers.try_recv().is_ok() {}
    };
    quiet(&mut workers, now, "the first neighbours");
    for host in 0..1000_u16 {
        let host = (Ipv4Addr::new(192, 168, 1 + (host / 200) as u8, 10 + (host % 200) as u8), 5000 + host);
        let mut packet = pool.alloc().expect("a buffer");
        let frame = udp(INSIDE, host, end("198.18.0.1:53"), b"");
        assert!(packet.append(frame.len()));
        packet.data_mut().copy_from_slice(&frame);
        workers[0].devices_mut()[0].rx.push_back(packet);
    }
    quiet(&mut workers, now, "handing over");
    let drops =
        Drop::ALL.iter().map(|&reason| (reason.name(), counters.iter().map(|it| it.drops(reason)).sum::<u64>()));
    let drops: Vec<_> = drops.filter(|(_, count)| *count > 0).collect();
    assert_eq!((counters.iter().map(|it| it.session_creations.get()).sum::<u64>(), drops), (1000, Vec::new()));
    assert!(counters[1].taken_over.get() > 300 && workers[0].devices_mut()[1].tx.len() == 1000);
    workers[0].devices_mut()[1].tx.clear();
    for shard in ShardId::all() {
        let from = map.owner(shard).index();
        inboxes[from].send(ToWorker::Move(Box::new(Move::order(shard, WorkerId(1), &plan, now)))).unwrap();
    }
    quiet(&mut workers, now, "shards that move");
    assert_eq!(map.shards_of(WorkerId(1)), ShardSet::ALL);
    now = now + Duration::from_secs(3600);
    for _ in 0..3 {
        quiet(&mut workers, now, "sessions that end elsewhere");
        now = now + Duration::from_secs(3600);
    }
    assert_eq!(counters.iter().map(|it| it.session_timeouts.get()).sum::<u64>(), 1000);
}
