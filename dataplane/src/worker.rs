//! The poll loop: receive, engine, transmit.
//!
//! A worker has everything of its own: a device (queue pair) of every port, an engine with its shards, a packet pool, and a
//! ring to and from every other worker, for packets whose flows another one owns.
//! [`Worker::poll_once`] is one turn of the loop and can be called from a test; the loop itself, with its thread, its
//! core and its backing off, is the control crate's.

use arrayvec::ArrayVec;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::sync::Arc;

use crate::counters::{Counters, Drop};
use crate::engine::{Engine, Output, Received};
use crate::message::{FromWorker, ToWorker};
use crate::packet::{Packet, PacketPool};
use crate::plan::{InterfaceId, PortId};
use crate::steer::WorkerId;
use crate::steer::hand_over::{self, Handed, HandedBurst, Links};
use crate::time::Time;
use crate::trace::Trace;

/// The most packets taken from a device, or given to it, at once.
pub const BURST: usize = 32;

/// Messages of the control thread that are applied in one poll.
const MESSAGES: usize = 16;

/// A reused array of packets. What is left in it after use is freed by its owner.
pub type Burst<P> = ArrayVec<P, BURST>;

/// One port as one worker sees it: a receive queue and a transmit queue of its own.
pub trait Device: Send {
    /// The kind of packet it moves.
    type Packet: Packet;

    /// Appends what has arrived to `burst`, as far as there is room in it.
    fn receive(&mut self, burst: &mut Burst<Self::Packet>);

    /// Sends `burst` in order. What the device does not accept is left in it, in order.
    fn transmit(&mut self, burst: &mut Burst<Self::Packet>);
}

/// What one turn of the loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// Packets received.
    pub received: usize,
    /// Packets taken over from other workers.
    pub taken_over: usize,
    /// Messages of the control thread applied.
    pub messages: usize,
    /// Time has brought more about than one turn takes care of.
    pub more: bool,
    /// The control thread asked to stop.
    pub stop: bool,
}

/// A worker.
#[derive(Debug)]
pub struct Worker<D: Device, L> {
    engine: Engine<D::Packet>,
    devices: Vec<D>,
    pool: L,
    inbox: Receiver<ToWorker>,
    outbox: Sender<FromWorker<D::Packet>>,
    received: Burst<D::Packet>,
    burst: Received<D::Packet>,
    links: Links<D::Packet>,
    handed: HandedBurst<D::Packet>,
    out: Output<D::Packet>,
    /// What waits for its device, with the interface it leaves by, per port.
    pending: Vec<Pending<D::Packet>>,
}

#[derive(Debug)]
struct Pending<P> {
    packets: Burst<P>,
    interfaces: ArrayVec<(InterfaceId, u64), BURST>,
}

impl<D: Device, L: PacketPool<Packet = D::Packet>> Worker<D, L> {
    /// The only worker, with one device per port, in the order of the plan's ports.
    #[must_use]
    pub fn new(
        engine: Engine<D::Packet>,
        devices: Vec<D>,
        pool: L,
        inbox: Receiver<ToWorker>,
        outbox: Sender<FromWorker<D::Packet>>,
    ) -> Self {
        Worker::among(Links::alone(), engine, devices, pool, inbox, outbox)
    }

    /// One of several workers: the one whose ends of the rings these are.
    #[must_use]
    pub fn among(
        links: Links<D::Packet>,
        engine: Engine<D::Packet>,
        devices: Vec<D>,
        pool: L,
        inbox: Receiver<ToWorker>,
        outbox: Sender<FromWorker<D::Packet>>,
    ) -> Self {
        let limits = engine.plan().spec.limits;
        let mut out = Output::new(&limits);
        // While the control thread does not listen, each neighbour can be asked for, or reported as used, once: what it is told
        // of them, which could make them worth another word, is not applied then (see `poll_once`).
        out.events.reserve(out.events.capacity() + limits.neighbours as usize);
        let pending = devices.iter().map(|_| Pending { packets: Burst::new(), interfaces: ArrayVec::new() });
        Worker {
            pending: pending.collect(),
            out,
            received: Burst::new(),
            burst: Received::new(),
            handed: HandedBurst::new(),
            links,
            engine,
            devices,
            pool,
            inbox,
            outbox,
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine<D::Packet> {
        &self.engine
    }

    /// The engine, to settle it in virtual time.
    pub fn engine_mut(&mut self) -> &mut Engine<D::Packet> {
        &mut self.engine
    }

    /// The devices, by port.
    pub fn devices_mut(&mut self) -> &mut [D] {
        &mut self.devices
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        self.engine.counters()
    }

    /// Switches the telling of stories on or off.
    pub fn set_tracing(&mut self, on: bool) {
        self.engine.set_tracing(on);
    }

    /// The stories told since the last call: one for each received packet, in order of reception, and another for each that
    /// had to wait.
    pub fn take_traces(&mut self) -> Vec<Trace> {
        self.engine.take_traces()
    }

    /// One turn: applies messages, takes a burst from every ring and every port through the engine, lets time pass, transmits.
    pub fn poll_once(&mut self, now: Time) -> Poll {
        let mut poll = Poll::default();
        // While the control thread does not listen, it is not listened to either: so what waits for it stays bounded.
        while poll.messages < MESSAGES
            && self.out.events.len() < MESSAGES
            && let Ok(message) = self.inbox.try_recv()
        {
            poll.messages += 1;
            // What the old plan has routed leaves by the old plan.
            if matches!(message, ToWorker::Plan { .. }) {
                self.flush();
            }
            if !self.engine.apply(message, now, &mut self.pool, &mut self.out) {
                poll.stop = true;
                break;
            }
        }
        self.flush();
        for ring in 0..self.links.from.len() {
            hand_over::receive(&mut self.links.from[ring], &mut self.handed);
            poll.taken_over += self.handed.len();
            if !self.handed.is_empty() {
                self.engine.process_handed(&mut self.handed, now, &mut self.pool, &mut self.out);
                self.flush();
            }
        }
        for (device, port) in (0..self.devices.len()).zip(0..) {
            self.devices[device].receive(&mut self.received);
            poll.received += self.received.len();
            self.burst.extend(self.received.drain(..).map(|packet| (PortId(port), packet)));
            if !self.burst.is_empty() {
                self.engine.process(&mut self.burst, now, &mut self.pool, &mut self.out);
                self.flush();
            }
        }
        poll.more = self.engine.tick(now);
        if let Some(generation) = self.engine.take_swept() {
            self.out.events.push_back(FromWorker::Swept { generation });
        }
        let counters = self.engine.counters();
        counters.polls.add(1);
        if poll.received + poll.taken_over == 0 {
            counters.empty_polls.add(1);
        }
        poll
    }

    /// Empties the output: transmits, hands over, tells the control thread, frees.
    fn flush(&mut self) {
        let Worker { out, pending, devices, engine, outbox, received, links, .. } = self;
        let (plan, counters) = (engine.plan(), engine.counters());
        if !out.hand_over.is_empty() {
            send_handed(&mut out.hand_over, links, counters);
        }
        for (interface, packet) in out.transmit.drain(..) {
            let port = plan.interface(interface).map_or(usize::MAX, |it| usize::from(it.port.0));
            let (Some(pending), Some(device)) = (pending.get_mut(port), devices.get_mut(port)) else {
                counters.dropped[Drop::TransmitFull as usize].add(1);
                continue;
            };
            pending.interfaces.push((interface, packet.data().len() as u64));
            pending.packets.push(packet);
            if pending.packets.is_full() {
                pending.send(device, counters);
            }
        }
        for (pending, device) in pending.iter_mut().zip(devices) {
            if !pending.packets.is_empty() {
                pending.send(device, counters);
            }
        }
        while !out.dropped.is_empty() {
            received.extend(out.dropped.drain(..out.dropped.len().min(BURST)));
            Packet::discard(received);
        }
        // What the control thread must hear waits if its queue is full; packets do not, not even behind what waits.
        for _ in 0..out.events.len() {
            let Some(event) = out.events.pop_front() else { break };
            let punted = u64::from(matches!(event, FromWorker::Punt { .. }));
            match outbox.try_send(event) {
                Ok(()) => counters.punted.add(punted),
                Err(
                    TrySendError::Full(FromWorker::Punt { .. }) | TrySendError::Disconnected(FromWorker::Punt { .. }),
                ) => {
                    counters.dropped[Drop::PuntQueueFull as usize].add(1);
                }
                Err(TrySendError::Full(event)) => out.events.push_back(event),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

/// Gives each packet to the ring of the worker that owns its shard.
#[inline(never)]
fn send_handed<P: Packet>(out: &mut Vec<Handed<P>>, links: &mut Links<P>, counters: &Counters) {
    for handed in out.drain(..) {
        let worker = links.map.owner(handed.shard);
        let Some(outgoing) = links.to.get_mut(worker.index()) else {
            counters.dropped[Drop::HandOverFull as usize].add(1);
            continue;
        };
        outgoing.pending.push(handed);
        if outgoing.pending.is_full() {
            outgoing.flush(worker, counters);
        }
    }
    for (outgoing, worker) in links.to.iter_mut().zip((0..).map(WorkerId)) {
        if !outgoing.pending.is_empty() {
            outgoing.flush(worker, counters);
        }
    }
}

impl<P: Packet> Pending<P> {
    fn send<D: Device<Packet = P>>(&mut self, device: &mut D, counters: &Counters) {
        device.transmit(&mut self.packets);
        let accepted = self.interfaces.len() - self.packets.len();
        counters.transmitted.add(accepted as u64);
        for (interface, bytes) in self.interfaces.drain(..).take(accepted) {
            if let Some(counters) = counters.interfaces.get(usize::from(interface.0)) {
                counters.transmitted_packets.add(1);
                counters.transmitted_bytes.add(bytes);
            }
        }
        counters.dropped[Drop::TransmitFull as usize].add(self.packets.len() as u64);
        Packet::discard(&mut self.packets);
    }
}
