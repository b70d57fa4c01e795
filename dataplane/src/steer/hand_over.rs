//! A packet on its way to the worker that owns its flow, and the rings that it goes by.
//!
//! Between any two workers there is one ring each way, with one producer and one consumer. What a worker has for another is
//! gathered into bursts; what a full ring has no room for is lost, counted and named ([`Drop::HandOverFull`]), for a worker
//! never waits for another. Everything for one shard goes by one ring, in order.

use std::sync::Arc;

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};

use super::map::ShardMap;
use super::{ShardId, WorkerId};
use crate::counters::{Counters, Drop};
use crate::fragment::Lent;
use crate::plan::PortId;
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

/// A burst that a ring has brought.
pub type HandedBurst<P> = ArrayVec<Handed<P>, BURST>;

/// A worker's ends of the rings to and from the others.
#[derive(Debug)]
pub struct Links<P> {
    /// Who owns what.
    pub(crate) map: Arc<ShardMap>,
    /// To each worker, by its number; its own has no ring.
    pub(crate) to: Box<[Outgoing<P>]>,
    /// From each other worker.
    pub(crate) from: Box<[Consumer<Handed<P>>]>,
}

/// What goes to one other worker.
#[derive(Debug)]
pub(crate) struct Outgoing<P> {
    ring: Option<Producer<Handed<P>>>,
    /// What has not been given to the ring yet.
    pub(crate) pending: HandedBurst<P>,
}

impl<P> Links<P> {
    /// The ends of a worker that has no others beside it.
    #[must_use]
    pub fn alone() -> Self {
        Links { map: Arc::new(ShardMap::dealt(1)), to: Box::default(), from: Box::default() }
    }

    /// The ends of all workers, for each in turn; every ring holds `capacity` packets.
    #[must_use]
    pub fn between(map: &Arc<ShardMap>, workers: u8, capacity: usize) -> Vec<Self> {
        let count = usize::from(workers);
        let mut to: Vec<Vec<Outgoing<P>>> = (0..count).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Consumer<Handed<P>>>> = (0..count).map(|_| Vec::new()).collect();
        for (sender, outgoing) in to.iter_mut().enumerate() {
            for (receiver, incoming) in from.iter_mut().enumerate() {
                let ring = (sender != receiver).then(|| {
                    let (producer, consumer) = RingBuffer::new(capacity);
                    incoming.push(consumer);
                    producer
                });
                outgoing.push(Outgoing { ring, pending: HandedBurst::new() });
            }
        }
        let ends = to.into_iter().zip(from);
        let links = ends.map(|(to, from)| Links { map: Arc::clone(map), to: to.into(), from: from.into() });
        links.collect()
    }
}

impl<P> Outgoing<P> {
    /// Gives the ring to `worker` what is pending. What it has no room for is lost, and counted.
    pub(crate) fn flush(&mut self, worker: WorkerId, counters: &Counters) {
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
pub(crate) fn receive<P>(ring: &mut Consumer<Handed<P>>, burst: &mut HandedBurst<P>) {
    let count = ring.slots().min(burst.remaining_capacity());
    if let Ok(chunk) = ring.read_chunk(count) {
        burst.extend(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(packet: u32) -> Handed<u32> {
        Handed { packet, ingress: PortId(0), shard: ShardId(0), turn: Turn::First, lent: None, hops: 1 }
    }

    #[test]
    fn a_full_ring_takes_what_fits_and_order_is_kept() {
        let mut links = Links::between(&Arc::new(ShardMap::dealt(2)), 2, 40);
        let [first, second] = &mut links[..] else { panic!("two workers") };
        let mut sent = 0..;
        let mut send = |first: &mut Links<u32>, burst: u32| {
            first.to[1].pending.extend(sent.by_ref().take(burst as usize).map(handed));
            first.to[1].send()
        };
        assert_eq!([send(first, 32), first.to[1].pending.len()], [32, 0]);
        assert_eq!([send(first, 32), first.to[1].pending.len()], [8, 24]);
        let mut burst = HandedBurst::new();
        receive(&mut second.from[0], &mut burst);
        assert!(burst.drain(..).map(|it| it.packet).eq(0..32));
        assert_eq!(first.to[1].send(), 24);
        receive(&mut second.from[0], &mut burst);
        assert!(burst.drain(..).map(|it| it.packet).eq(32..64));
        receive(&mut second.from[0], &mut burst);
        assert!(burst.is_empty());
        // There is none to itself.
        first.to[0].pending.push(handed(0));
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
                    first.to[1].pending.push(handed(next));
                    next += 1;
                }
                if first.to[1].send() == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let (mut expected, mut burst) = (0, HandedBurst::new());
        while expected < PACKETS {
            receive(&mut second.from[0], &mut burst);
            if burst.is_empty() {
                std::thread::yield_now();
            }
            for handed in burst.drain(..) {
                assert_eq!(handed.packet, expected);
                expected += 1;
            }
        }
        sender.join().expect("it ends");
    }
}
