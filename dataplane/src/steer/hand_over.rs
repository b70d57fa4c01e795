//! What goes from worker to worker, and the rings that it goes by: packets for the owners of their flows, packets for the
//! worker that has a port's queue, and shards that move.
//!
//! Between any two workers there is one ring each way, with one producer and one consumer. What a worker has for another is
//! gathered into bursts; what a full ring has no room for is lost, counted and named ([`Drop::HandOverFull`]), for a worker
//! never waits for another. Everything for one shard goes by one ring, in order.
//!
//! A shard that moves ([`Move`]) goes by the same ring: whatever its old owner has for it afterwards comes behind it. The new
//! owner publishes the move on the map, from which on the others send to it directly. Until then the old owner sends on what
//! still reaches it.

use std::sync::Arc;

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};

use super::map::ShardMap;
use super::{SHARDS, ShardId, WorkerId};
use crate::counters::{Counters, Drop};
use crate::fragment::{Datagrams, Lent};
use crate::plan::{InterfaceId, Plan, PortId};
use crate::session::{Secret, Shard};
use crate::time::Time;
use crate::worker::BURST;

/// How often a packet may be handed over: from the worker that received it to the owner, once more for a hairpin or because
/// the shard has moved meanwhile, and a reserve for a reload, during which two workers may name two owners.
pub const HOPS_MAX: u8 = 8;

/// What the owner is to do with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// All of it: the packet is as it came in.
    #[default]
    First,
    /// The inbound pass of a hairpin: the packet is as its outbound pass has left it.
    Hairpin,
    /// All that is to be done with an ICMP error of the gateway's own, about a packet that was turned round.
    Own,
}

/// A packet for the owner of a shard. It carries no decision: its new owner reads it again, by its own plan (design rule 3).
#[derive(Debug)]
pub struct Handed<P> {
    /// The packet, from its Ethernet header on, with the tags that it came in with.
    pub packet: P,
    /// The port that it came in by.
    pub ingress: PortId,
    /// Whose it is, as far as its sender knows.
    pub shard: ShardId,
    /// What is left to be done.
    pub turn: Turn,
    /// Of a fragment: what the first one of its datagram said, if that is known.
    pub lent: Option<Lent>,
    /// How often it has been handed over already, at most [`HOPS_MAX`].
    pub hops: u8,
}

/// Packets that have been handed over.
pub type HandedBurst<P> = ArrayVec<Handed<P>, BURST>;

/// A shard on its way to another worker. It takes along all that its flows need, the memory that they lie in included.
#[derive(Debug)]
pub struct Move {
    /// Its number.
    pub id: ShardId,
    /// Where it goes.
    pub to: WorkerId,
    /// While it travels, the shard. Before and after, an empty one for the place that it leaves or takes.
    pub shard: Shard,
    /// Likewise what it knows of datagrams in fragments. Those fragments that wait come behind it as packets.
    pub datagrams: Datagrams<()>,
}

impl Move {
    /// The order to give a shard away, with an empty one for its place.
    #[must_use]
    pub fn order(id: ShardId, to: WorkerId, plan: &Plan, now: Time) -> Self {
        let datagrams = Datagrams::new(id, &Secret::new(plan.spec.secret), plan.spec.limits.fragments);
        Move { id, to, shard: Shard::new(id, plan, now), datagrams }
    }
}

/// What a ring carries.
#[derive(Debug)]
pub(crate) enum Crossing<P> {
    /// A packet for the owner of its flow.
    Packet(Handed<P>),
    /// A packet that leaves by this interface, for the worker that has a queue of its port.
    Transmit(InterfaceId, P),
    /// A shard.
    Shard(Box<Move>),
}

/// What a ring brings, or takes, at once.
pub(crate) type Crossings<P> = ArrayVec<Crossing<P>, BURST>;

/// A worker's ends of the rings to and from the others.
#[derive(Debug)]
pub struct Links<P> {
    /// Whose ends they are.
    pub(crate) worker: WorkerId,
    /// Where the shards went that it has given away, for as long as the map still says that it owns them.
    pub(crate) given: [WorkerId; SHARDS],
    /// Who owns what.
    pub(crate) map: Arc<ShardMap>,
    /// To each worker, by its number; its own has no ring.
    pub(crate) to: Box<[Outgoing<P>]>,
    /// From each other worker.
    pub(crate) from: Box<[Consumer<Crossing<P>>]>,
}

/// What goes to one other worker.
#[derive(Debug)]
pub(crate) struct Outgoing<P> {
    ring: Option<Producer<Crossing<P>>>,
    /// What has not been given to the ring yet.
    pub(crate) pending: Crossings<P>,
}

impl<P> Links<P> {
    /// The ends of a worker that has no others beside it.
    #[must_use]
    pub fn alone() -> Self {
        Links::new(WorkerId(0), &Arc::new(ShardMap::dealt(1)), Vec::new(), Vec::new())
    }

    fn new(worker: WorkerId, map: &Arc<ShardMap>, to: Vec<Outgoing<P>>, from: Vec<Consumer<Crossing<P>>>) -> Self {
        Links { worker, given: [worker; SHARDS], map: Arc::clone(map), to: to.into(), from: from.into() }
    }

    /// The ends of all workers, for each in turn; every ring holds `capacity` packets.
    #[must_use]
    pub fn between(map: &Arc<ShardMap>, workers: u8, capacity: usize) -> Vec<Self> {
        let count = usize::from(workers);
        let mut to: Vec<Vec<Outgoing<P>>> = (0..count).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Consumer<Crossing<P>>>> = (0..count).map(|_| Vec::new()).collect();
        for (sender, outgoing) in to.iter_mut().enumerate() {
            for (receiver, incoming) in from.iter_mut().enumerate() {
                let ring = (sender != receiver).then(|| {
                    let (producer, consumer) = RingBuffer::new(capacity);
                    incoming.push(consumer);
                    producer
                });
                outgoing.push(Outgoing { ring, pending: Crossings::new() });
            }
        }
        let ends = to.into_iter().zip(from);
        let links = ends.zip((0..).map(WorkerId)).map(|((to, from), worker)| Links::new(worker, map, to, from));
        links.collect()
    }
}

impl<P> Links<P> {
    /// The worker that a packet of this shard goes to, which is another's.
    pub(crate) fn owner(&self, shard: ShardId) -> WorkerId {
        let owner = self.map.owner(shard);
        if owner == self.worker { self.given[shard.index()] } else { owner }
    }

    /// Puts something into the burst for a worker, which goes off when it is full.
    pub(crate) fn put(&mut self, worker: WorkerId, crossing: Crossing<P>, counters: &Counters) {
        let Some(outgoing) = self.to.get_mut(worker.index()) else {
            counters.dropped[Drop::HandOverFull as usize].add(1);
            return;
        };
        outgoing.pending.push(crossing);
        if outgoing.pending.is_full() {
            outgoing.flush(worker, counters);
        }
    }

    /// Sends all bursts off.
    pub(crate) fn flush(&mut self, counters: &Counters) {
        for (outgoing, worker) in self.to.iter_mut().zip((0..).map(WorkerId)) {
            if !outgoing.pending.is_empty() {
                outgoing.flush(worker, counters);
            }
        }
    }

    /// Whether there is another worker of that number, and it still runs.
    pub(crate) fn reaches(&self, worker: WorkerId) -> bool {
        self.to.get(worker.index()).and_then(|to| to.ring.as_ref()).is_some_and(|ring| !ring.is_abandoned())
    }

    /// Whether the ring to another worker has room for one thing more, nothing being pending.
    pub(crate) fn has_room(&self, worker: WorkerId) -> bool {
        self.to.get(worker.index()).and_then(|to| to.ring.as_ref()).is_some_and(|ring| ring.slots() > 0)
    }

    /// Sends a shard off, to a ring that has room ([`Links::has_room`]). What comes for it from now on is sent on.
    pub(crate) fn send_shard(&mut self, moving: Box<Move>) {
        let (id, to) = (moving.id, moving.to);
        if let Some(ring) = self.to.get_mut(to.index()).and_then(|to| to.ring.as_mut())
            && ring.push(Crossing::Shard(moving)).is_ok()
        {
            self.given[id.index()] = to;
        }
    }
}

impl<P> Outgoing<P> {
    /// Gives the ring to `worker` what is pending. What it has no room for is lost, and counted.
    fn flush(&mut self, worker: WorkerId, counters: &Counters) {
        let sent = self.send();
        let lost = self.pending.len() as u64;
        self.pending.clear();
        if let Some(counter) = counters.handed_over.get(worker.index()) {
            counter.add(sent as u64);
        }
        if lost > 0 {
            counters.dropped[Drop::HandOverFull as usize].add(lost);
            if let Some(counter) = counters.hand_over_drops.get(worker.index()) {
                counter.add(lost);
            }
        }
    }

    /// Gives the ring what is pending, in order, as far as it has room: returns how much. The rest stays pending.
    fn send(&mut self) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let count = ring.slots().min(self.pending.len());
        match ring.write_chunk_uninit(count) {
            Ok(chunk) => chunk.fill_from_iter(self.pending.drain(..count)),
            Err(_) => 0,
        }
    }
}

/// Takes what a ring has brought, as far as there is room in `burst`.
pub(crate) fn receive<P>(ring: &mut Consumer<Crossing<P>>, burst: &mut Crossings<P>) {
    let count = ring.slots().min(burst.remaining_capacity());
    if let Ok(chunk) = ring.read_chunk(count) {
        burst.extend(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossing(packet: u32) -> Crossing<u32> {
        Crossing::Packet(Handed {
            packet,
            ingress: PortId(0),
            shard: ShardId(0),
            turn: Turn::First,
            lent: None,
            hops: 1,
        })
    }

    /// What has come, as numbers.
    fn packets(burst: &mut Crossings<u32>) -> Vec<u32> {
        let packet = |crossing| match crossing {
            Crossing::Packet(handed) => handed.packet,
            other => panic!("{other:?}"),
        };
        burst.drain(..).map(packet).collect()
    }

    #[test]
    fn a_full_ring_takes_what_fits_and_order_is_kept() {
        let mut links = Links::between(&Arc::new(ShardMap::dealt(2)), 2, 40);
        let [first, second] = &mut links[..] else { panic!("two workers") };
        let mut sent = 0..;
        let mut send = |first: &mut Links<u32>, burst: u32| {
            first.to[1].pending.extend(sent.by_ref().take(burst as usize).map(crossing));
            first.to[1].send()
        };
        assert_eq!([send(first, 32), first.to[1].pending.len()], [32, 0]);
        assert_eq!([send(first, 32), first.to[1].pending.len()], [8, 24]);
        let mut burst = Crossings::new();
        receive(&mut second.from[0], &mut burst);
        assert!(packets(&mut burst).into_iter().eq(0..32));
        assert_eq!(first.to[1].send(), 24);
        receive(&mut second.from[0], &mut burst);
        assert!(packets(&mut burst).into_iter().eq(32..64));
        receive(&mut second.from[0], &mut burst);
        assert!(burst.is_empty());
        // There is none to itself.
        first.to[0].pending.push(crossing(0));
        assert_eq!([first.to[0].send(), first.to[0].pending.len()], [0, 1]);
    }

    /// Two threads, a small ring: everything arrives, in order.
    #[test]
    fn bursts_cross_from_thread_to_thread() {
        const PACKETS: u32 = 200_000;
        let mut links = Links::between(&Arc::new(ShardMap::dealt(2)), 2, 64);
        let (mut second, mut first) = (links.pop().expect("two"), links.pop().expect("two"));
        let sender = std::thread::spawn(move || {
            let mut next = 0;
            while next < PACKETS || !first.to[1].pending.is_empty() {
                while next < PACKETS && !first.to[1].pending.is_full() {
                    first.to[1].pending.push(crossing(next));
                    next += 1;
                }
                if first.to[1].send() == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let (mut expected, mut burst) = (0, Crossings::new());
        while expected < PACKETS {
            receive(&mut second.from[0], &mut burst);
            if burst.is_empty() {
                std::thread::yield_now();
            }
            for packet in packets(&mut burst) {
                assert_eq!(packet, expected);
                expected += 1;
            }
        }
        sender.join().expect("it ends");
    }
}
