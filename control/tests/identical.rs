//! What `turnpike replay` says of packets is what happens to them in a worker: the same frames in the same order at the same
//! times come out the same, byte for byte, of captures and heap packets as of DPDK's ports and mbufs, however the ports cut
//! them into bursts.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::capture::{CaptureReader, CaptureWriter};
use control::host::{Host, SETTLING};
use control::replay::{NEIGHBOUR, Options, Replay, Summary};
use crossbeam_channel::{Receiver, Sender, unbounded};
use dataplane::counters::{Counters, Drop};
use dataplane::dpdk::{Eal, EalConfig, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Queue};
use dataplane::engine::Engine;
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{Packet, PacketPool, offload};
use dataplane::plan::{MacAddr, Plan};
use dataplane::pool::Leases;
use dataplane::steer::SHARDS;
use dataplane::time::Time;
use dataplane::worker::{BURST, Burst, Device, Worker};
use hostile::Stream;
use hostile::build::{ACK, Ip4, SYN, ethernet, get16, icmp, packet_at, tagged, tcp, udp};
use hostile::random::Random;
use hostile::scene::{self, CUSTOMER, GUEST, HOST, Side, VLAN, double_tagged};

/// Frames of a run.
const FRAMES: usize = 4000;

/// How far a replay's clock steps while something can expire.
const STEP: Duration = Duration::from_secs(1);

/// A frame, where it arrives, and when.
#[derive(Clone)]
struct Arrival {
    now: Time,
    side: Side,
    frame: Vec<u8>,
    /// The control thread has a word in what becomes of it: nothing may be in a burst behind it, since that is spoken between
    /// two polls.
    asks: bool,
}

/// What left by an interface, and when.
type Left = BTreeMap<&'static str, Vec<(Time, Vec<u8>)>>;

/// Two ports of DPDK's, each a ring back to itself, as one: what is put into the first is received, and what is sent comes out
/// of the second.
#[derive(Debug)]
struct Rings {
    inward: Queue,
    outward: Queue,
}

impl Device for Rings {
    type Packet = Mbuf;

    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        self.inward.receive(burst);
    }

    fn transmit(&mut self, burst: &mut Burst<Mbuf>) {
        self.outward.transmit(burst);
    }
}

/// A gateway on rings, with a control thread that says what a replay's does.
struct Gateway {
    worker: Worker<Rings, Mempool>,
    counters: Arc<Counters>,
    to_worker: Sender<ToWorker>,
    from_worker: Receiver<FromWorker<Mbuf>>,
    plan: Arc<Plan>,
    host: Host,
    pool: Mempool,
    now: Time,
    left: Left,
}

impl Gateway {
    fn new(eal: Eal, pool: &Mempool, seed: u64, now: Time) -> Self {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        let plan = Arc::new(Plan::compile(scene::config().spec(&|_| MacAddr::default(), secret, 1)).unwrap());
        let open = |n: u16| {
            let device = PortConfig::new(&format!("net_ring{n}"));
            let (_, mut queues) = Port::open(eal, &device, &[pool]).unwrap();
            queues.remove(0)
        };
        let rings = [0, 2].map(|n| Rings { inward: open(n), outward: open(n + 1) });
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let leases = Arc::new(Leases::new(&plan));
        let engine = Engine::new(Arc::clone(&plan), leases, Arc::clone(&counters), now);
        let ((to_worker, inbox), (outbox, from_worker)) = (unbounded(), unbounded());
        let worker = Worker::new(engine, rings.into(), pool.clone(), inbox, outbox);
        let (mut host, mut announcements) = (Host::new(Arc::clone(&plan), seed, now), Vec::new());
        host.start(now, &mut announcements);
        while let Some(due) = host.next_deadline().filter(|&due| due <= now + SETTLING) {
            host.poll(due, &mut announcements);
        }
        let left = Left::new();
        Gateway { worker, counters, to_worker, from_worker, plan, host, pool: pool.clone(), now, left }
    }

    /// Lets time pass as a replay does.
    fn advance(&mut self, to: Time) {
        let c = Arc::clone(&self.counters);
        let can_expire =
            || c.sessions.iter().chain(&c.mappings).chain([&c.mappings_held, &c.held]).any(|it| it.get() > 0);
        while self.now + STEP < to && can_expire() {
            self.now = self.now + STEP;
            self.settle();
        }
        self.now = to;
        self.settle();
    }

    /// Polls until all that is due has expired: a few shards a poll, as a worker does between packets.
    fn settle(&mut self) {
        let mut polls = 0;
        while self.worker.poll_once(self.now).more || polls < SHARDS {
            polls += 1;
        }
        assert!(!self.poll(), "time alone asks nothing");
    }

    /// Puts frames on the wires, and polls. Says whether the control thread was asked anything.
    fn arrive(&mut self, arrivals: &[Arrival]) -> bool {
        self.advance(arrivals[0].now);
        for side in Side::BOTH {
            let frames = arrivals.iter().filter(|it| it.side == side);
            let mut burst: Burst<Mbuf> = frames.map(|it| mbuf(&mut self.pool, &it.frame)).collect();
            self.worker.devices_mut()[side as usize].inward.transmit(&mut burst);
            assert!(burst.is_empty(), "a ring has room for a burst");
        }
        self.poll()
    }

    fn poll(&mut self) -> bool {
        let mut asked = false;
        loop {
            self.worker.poll_once(self.now);
            assert_eq!(self.counters.imbalance(), 0);
            self.take();
            let mut answers = Vec::new();
            while let Ok(message) = self.from_worker.try_recv() {
                self.answer(message, &mut answers);
            }
            if answers.is_empty() {
                return asked;
            }
            asked = true;
            answers.into_iter().for_each(|answer| self.to_worker.send(answer).unwrap());
        }
    }

    /// Takes from the wires what has left.
    fn take(&mut self) {
        for (device, side) in self.worker.devices_mut().iter_mut().zip(Side::BOTH) {
            let mut burst = Burst::new();
            loop {
                device.outward.receive(&mut burst);
                if burst.is_empty() {
                    break;
                }
                for packet in burst.drain(..) {
                    let (frame, at) = (packet.data(), packet_at(packet.data()) - 2);
                    let name = match (side, at) {
                        (Side::Outside, _) => "uplink",
                        (Side::Inside, 12) => "inside",
                        (Side::Inside, 16) => "guests",
                        (Side::Inside, _) => "customers",
                    };
                    let untagged = [&frame[..12], &frame[at..]].concat();
                    self.left.entry(name).or_default().push((self.now, untagged));
                }
            }
        }
    }

    fn answer(&mut self, message: FromWorker<Mbuf>, answers: &mut Vec<ToWorker>) {
        match message {
            FromWorker::Resolve { interface, address } => {
                let neighbours = &self.plan.spec.interfaces[usize::from(interface.0)].neighbours;
                let known = neighbours.iter().find(|(neighbour, _)| *neighbour == address);
                let state = NeighbourState::Reachable(known.map_or(NEIGHBOUR, |&(_, mac)| mac));
                answers.push(ToWorker::Neighbour(NeighbourUpdate { interface, address, state }));
            }
            FromWorker::Punt { interface, packet } => {
                let mut replies = Vec::new();
                self.host.receive(interface, packet.data(), self.now + SETTLING, &mut replies);
                answers.extend(replies.into_iter().filter(|reply| !matches!(reply, ToWorker::Neighbour(_))));
            }
            _ => {}
        }
    }
}

fn mbuf(pool: &mut Mempool, frame: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().expect("a free buffer");
    assert!(mbuf.append(frame.len()), "a buffer for {} bytes", frame.len());
    mbuf.data_mut().copy_from_slice(frame);
    mbuf
}

/// Traffic as it comes: hostile and proper frames, flows of many hosts, answers to and errors about what has left, hops that
/// run out; bursts at the same time, and pauses in which everything expires.
struct Traffic {
    random: Random,
    stream: Stream,
}

impl Traffic {
    fn frame(&mut self, left: &Left) -> (Side, Vec<u8>) {
        let random = &mut self.random;
        let seen = left.get("uplink").filter(|frames| frames.len() > 50).map(|frames| {
            // Of the last ones, mostly.
            let back = if random.below(4) == 0 { frames.len() } else { 40 };
            &frames[frames.len() - 1 - random.below(back)].1
        });
        // Of IPv4, with a whole header.
        let seen = seen.filter(|frame| frame.len() >= 34 && frame[12..14] == [8, 0]).map(|frame| frame[14..].to_vec());
        match (random.below(10), seen) {
            (0..4, _) => {
                let (side, frame) = self.stream.frame();
                (side, frame.to_vec())
            }
            (4..7, Some(packet)) => (Side::Outside, ethernet(Side::Outside, 0x0800, &answer(random, &packet))),
            (7, Some(packet)) => {
                let router = Ipv4Addr::new(198, 18, 9, random.byte());
                let about = Ipv4Addr::from(*packet[12..].first_chunk::<4>().unwrap());
                let (kind, code, rest) = [(3, 1, [0; 4]), (11, 0, [0; 4]), (3, 4, [0, 0, 5, 0])][random.below(3)];
                let quote = &packet[..packet.len().min(if random.below(2) == 0 { 28 } else { 500 })];
                let error = Ip4::new(router, about).packet(1, &icmp(kind, code, rest, quote));
                (Side::Outside, ethernet(Side::Outside, 0x0800, &error))
            }
            (8, _) => {
                let side = Side::BOTH[random.below(2)];
                let (from, to) = (1000 + u16::from(random.byte()), 53);
                (
                    side,
                    ethernet(side, 0x86dd, &scene::way6(side).packet(17, &udp(from, to, &vec![6; random.below(1400)]))),
                )
            }
            _ => {
                let hosts = [HOST, GUEST, CUSTOMER, Ipv4Addr::new(192, 168, 1, 10 + random.byte() % 16)];
                let host = hosts[random.below(4)];
                // One in eight is routed, to another of the inside networks.
                let server = Ipv4Addr::new(198, 18, 0, 1 + random.byte() % 4);
                let server = if random.below(8) == 0 { [GUEST, CUSTOMER][random.below(2)] } else { server };
                let (port, to) = (1000 + u16::from(random.byte()), 53 + u16::from(random.byte() % 2));
                let payload = vec![random.byte(); random.below(1440)];
                let ttl = if random.below(20) == 0 { 1 } else { 64 };
                let fragment = if random.below(3) == 0 { 0x4000 } else { 0 };
                let ip = Ip4 { ttl, fragment, ..Ip4::new(host, server) };
                let [high, low] = port.to_be_bytes();
                let packet = match random.below(4) {
                    0 => ip.packet(1, &icmp(8, 0, [high, low, 0, 1], &payload)),
                    1 => ip.packet(6, &tcp(port, to, if random.below(3) == 0 { ACK } else { SYN }, &[], b"")),
                    _ => ip.packet(17, &udp(port, to, &payload)),
                };
                let frame = ethernet(Side::Inside, 0x0800, &packet);
                let frame = match host {
                    GUEST => tagged(&frame, 0x8100, VLAN),
                    CUSTOMER => double_tagged(&frame),
                    _ => frame,
                };
                (Side::Inside, frame)
            }
        }
    }
}

/// The answer to an IPv4 packet that has left: its ends swapped. Something else if it is no such packet.
fn answer(random: &mut Random, packet: &[u8]) -> Vec<u8> {
    let address = |at: usize| Ipv4Addr::from(*packet[at..].first_chunk::<4>().unwrap());
    let back = Ip4 { ttl: if random.below(20) == 0 { 1 } else { 60 }, ..Ip4::new(address(16), address(12)) };
    let transport = packet.get(4 * usize::from(packet[0] & 15)..).filter(|it| it.len() >= 8).unwrap_or(&[0; 8]);
    let (from, to) = (get16(transport, 2), get16(transport, 0));
    match packet[9] {
        6 => back.packet(6, &tcp(from, to, [SYN | ACK, ACK, 4, 1 | ACK][random.below(4)], &[], b"")),
        17 => back.packet(17, &udp(from, to, &vec![7; random.below(1400)])),
        _ => back.packet(1, &icmp(0, 0, transport[4..8].try_into().unwrap(), b"ping")),
    }
}

/// Makes the traffic as it goes, a frame a poll; gives it with what became of it.
fn record(gateway: &mut Gateway, seed: u64) -> Vec<Arrival> {
    let mut traffic = Traffic { random: Random::new(seed), stream: Stream::new(seed) };
    let (mut arrivals, mut now) = (Vec::new(), gateway.now);
    while arrivals.len() < FRAMES {
        let count = 1 + traffic.random.below(48);
        let frames = (0..count).map(|_| traffic.frame(&gateway.left));
        // A replay finishes checksums that a capture shows unfinished, and leaves out what the gateway itself has sent.
        let from_gateway = |frame: &[u8]| Side::BOTH.iter().any(|side| frame.get(6..12) == Some(&side.gateway()[..]));
        let frames = frames.filter(|(_, frame)| !from_gateway(frame));
        let mut frames: Vec<_> = frames.collect();
        for (_, frame) in &mut frames {
            offload::finish(frame);
        }
        // Those of one time come in the order of the interfaces.
        frames.sort_by_key(|(side, _)| *side);
        for (side, frame) in frames {
            let mut arrival = Arrival { now, side, frame, asks: false };
            arrival.asks = gateway.arrive(std::slice::from_ref(&arrival));
            arrivals.push(arrival);
        }
        let pauses = [1, 1_000, 20_000_000, 1_500_000_000, 31_000_000_000, 400_000_000_000];
        let pause =
            if traffic.random.below(200) == 0 { 3 * 3_600_000_000_000 } else { pauses[traffic.random.below(6)] };
        now = now + Duration::from_nanos(pause);
    }
    arrivals
}

/// Sends the same once more, in bursts of any size up to `most`.
fn again(gateway: &mut Gateway, arrivals: &[Arrival], most: usize, random: &mut Random) {
    let mut rest = arrivals;
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|it| it.now == first.now).count();
        let until_asked = rest.iter().position(|it| it.asks).map_or(rest.len(), |at| at + 1);
        // A poll takes the ports in their order, a burst of each; so the order is that of the frames.
        let count = (1 + random.below(most)).min(alike).min(until_asked);
        let (burst, behind) = rest.split_at(count);
        gateway.arrive(burst);
        rest = behind;
    }
}

/// Sends it through a replay, by captures.
fn replay(arrivals: &[Arrival], seed: u64, dir: &Path) -> (Left, Summary) {
    let names = ["inside", "uplink"];
    let mut inputs = names.map(|name| CaptureWriter::create(&dir.join(format!("{name}.pcap"))).unwrap());
    for arrival in arrivals {
        inputs[arrival.side as usize].write(arrival.now, &arrival.frame).unwrap();
    }
    inputs.into_iter().for_each(|input| input.finish().unwrap());
    let options = Options {
        inputs: names.map(|name| (name.to_owned(), dir.join(format!("{name}.pcap")))).to_vec(),
        out_dir: dir.join("out"),
        tail: Duration::ZERO,
        seed,
        gateway: Side::BOTH.map(|side| MacAddr(side.gateway())).to_vec(),
        explain: false,
    };
    let mut replay = Replay::new(&scene::config(), &options).unwrap();
    while replay.step().unwrap().is_some() {}
    let summary = replay.finish(options.tail).unwrap();
    let mut left = Left::new();
    for name in ["inside", "guests", "uplink", "customers"] {
        let records = CaptureReader::open(&options.out_dir.join(format!("{name}.pcap"))).unwrap();
        left.insert(name, records.map(Result::unwrap).map(|record| (record.time, record.data)).collect());
    }
    (left, summary)
}

#[track_caller]
fn same(one: &Left, other: &Left, what: &str) {
    assert!(one.keys().eq(other.keys()), "{what}: {:?} {:?}", one.keys(), other.keys());
    for (name, frames) in one {
        let others = &other[name];
        let differs = frames.iter().zip(others).position(|(one, other)| one != other);
        assert!(
            differs.is_none() && frames.len() == others.len(),
            "{what}, {name}: {} and {} frames; at {differs:?}: {:02x?} {:02x?}",
            frames.len(),
            others.len(),
            differs.map(|at| &frames[at]),
            differs.map(|at| &others[at]),
        );
    }
}

#[test]
fn a_worker_does_what_a_replay_says() {
    let eal = Eal::start(&EalConfig { memory_mib: 192, ..EalConfig::default() }).unwrap();
    let pool = Mempool::new(eal, &MempoolConfig { packets: 4095, frame_size: 16_384, ..Default::default() }).unwrap();
    let start = Time::from_secs(1_700_000_000);
    for seed in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Gateway::new(eal, &pool, seed, start);
        let arrivals = record(&mut first, seed);
        let (expected, counters) = (first.left, first.counters);
        drop(first.worker);
        let (left, summary) = replay(&arrivals, seed, dir.path());
        same(&left, &expected, "a replay, and a worker frame by frame");
        let reasons: Vec<_> = Drop::ALL.iter().map(|&reason| (reason, counters.drops(reason))).collect();
        let reasons: Vec<_> = reasons.into_iter().filter(|(_, count)| *count > 0).collect();
        let mut dropped = summary.dropped.clone();
        dropped.sort_by_key(|(reason, _)| *reason as usize);
        assert_eq!(dropped, reasons);
        let made =
            (counters.session_creations.get(), counters.session_timeouts.get(), counters.mapping_creations.get());
        assert_eq!((summary.sessions_made, summary.sessions_ended, summary.mappings_made), made);
        // It was as rich as it was meant to be.
        assert!(left.values().all(|frames| frames.len() > 10), "{:?}", left.values().map(Vec::len).collect::<Vec<_>>());
        assert!(counters.nat44.iter().chain(&counters.routed).all(|counter| counter.get() > 10), "{counters:?}");
        assert!(reasons.len() > 15 && made.1 > 300 && summary.originated > 30, "{reasons:?} {summary:?}");
        for most in [2, 7, BURST] {
            let mut gateway = Gateway::new(eal, &pool, seed, start);
            again(&mut gateway, &arrivals, most, &mut Random::new(seed));
            same(&gateway.left, &expected, &format!("bursts of up to {most}"));
            assert!(reasons.iter().all(|&(reason, count)| gateway.counters.drops(reason) == count));
        }
    }
    assert_eq!(pool.in_use(), 0);
}
