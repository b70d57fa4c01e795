//! The poll loop: receive, engine, transmit.
//!
//! A worker has everything of its own: a device (queue pair) of every port that has enough of them, an engine with its shards, a
//! packet pool, and a ring to and from every other worker: for packets whose flows another one owns, and for what leaves by a
//! port that it has no device of.
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
use crate::stages::Stage;
use crate::steer::WorkerId;
use crate::steer::hand_over::{self, Crossing, Crossings, HandedBurst, Links, Move};
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

/// How a worker reaches a port.
#[derive(Debug)]
pub enum Access<D> {
    /// By a device of its own.
    Own(D),
    /// Through another worker, which has one: there are fewer than workers.
    Through(WorkerId),
}

/// Where a port's packets go.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// To the worker's own device of that number.
    Device(usize),
    Worker(WorkerId),
}

/// A worker.
#[derive(Debug)]
pub struct Worker<D: Device, L> {
    engine: Engine<D::Packet>,
    /// Its devices, with the port of each.
    devices: Vec<D>,
    ports: Vec<PortId>,
    /// By port.
    ways: Vec<Way>,
    pool: L,
    inbox: Receiver<ToWorker>,
    outbox: Sender<FromWorker<D::Packet>>,
    received: Burst<D::Packet>,
    burst: Received<D::Packet>,
    links: Links<D::Packet>,
    crossings: Crossings<D::Packet>,
    handed: HandedBurst<D::Packet>,
    /// A shard that leaves as soon as there is room for it in the ring.
    leaving: Option<Box<Move>>,
    out: Output<D::Packet>,
    /// What waits for its device, with the interface it leaves by, per device.
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
        let ports = devices.into_iter().map(Access::Own);
        Worker::among(Links::alone(), engine, ports, pool, inbox, outbox)
    }

    /// One of several workers, the one whose ends of the rings these are, with what it has of each of the plan's ports, in order.
    #[must_use]
    pub fn among(
        links: Links<D::Packet>,
        engine: Engine<D::Packet>,
        access: impl IntoIterator<Item = Access<D>>,
        pool: L,
        inbox: Receiver<ToWorker>,
        outbox: Sender<FromWorker<D::Packet>>,
    ) -> Self {
        let limits = engine.plan().spec.limits;
        let mut out = Output::new(&limits);
        // While the control thread does not listen, each neighbour can be asked for, or reported as used, once: what it is told
        // of them, which could make them worth another word, is not applied then (see `poll_once`).
        out.events.reserve(out.events.capacity() + limits.neighbours as usize);
        let (mut devices, mut ports, mut ways) = (Vec::new(), Vec::new(), Vec::new());
        for (access, port) in access.into_iter().zip((0..).map(PortId)) {
            ways.push(match access {
                Access::Own(device) => {
                    devices.push(device);
                    ports.push(port);
                    Way::Device(devices.len() - 1)
                }
                Access::Through(worker) => Way::Worker(worker),
            });
        }
        let pending = devices.iter().map(|_| Pending { packets: Burst::new(), interfaces: ArrayVec::new() });
        Worker {
            pending: pending.collect(),
            out,
            received: Burst::new(),
            burst: Received::new(),
            crossings: Crossings::new(),
            handed: HandedBurst::new(),
            leaving: None,
            links,
            engine,
            devices,
            ports,
            ways,
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

    /// Its devices, in the order of their ports.
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
            && self.leaving.is_none()
            && let Ok(message) = self.inbox.try_recv()
        {
            poll.messages += 1;
            // What the old plan has routed leaves by the old plan.
            if matches!(message, ToWorker::Plan { .. }) {
                self.flush();
            }
            if let ToWorker::Move(moving) = message {
                self.leaving = Some(moving);
            } else if !self.engine.apply(message, now, &mut self.pool, &mut self.out) {
                poll.stop = true;
                break;
            }
        }
        self.flush();
        if let Some(moving) = self.leaving.take() {
            self.leave(moving);
        }
        for ring in 0..self.links.from.len() {
            hand_over::receive(&mut self.links.from[ring], &mut self.crossings);
            if !self.crossings.is_empty() {
                poll.taken_over += self.crossings.len();
                self.take_over(now);
            }
        }
        for device in 0..self.devices.len() {
            let port = self.ports[device];
            self.counters().stages.start();
            self.devices[device].receive(&mut self.received);
            let received = self.received.len();
            poll.received += received;
            self.burst.extend(self.received.drain(..).map(|packet| (port, packet)));
            if !self.burst.is_empty() {
                self.counters().stages.end(Stage::Receive, received);
                self.engine.process(&mut self.burst, now, &mut self.pool, &mut self.out);
                self.flush();
                self.counters().stages.end(Stage::Transmit, received);
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

    /// What a ring has brought, in order.
    fn take_over(&mut self, now: Time) {
        let mut crossings = std::mem::take(&mut self.crossings);
        for crossing in crossings.drain(..) {
            match crossing {
                Crossing::Packet(handed) => self.handed.push(handed),
                Crossing::Transmit(interface, packet) => {
                    self.engine.counters().taken_over.add(1);
                    self.out.transmit.push((interface, packet));
                }
                Crossing::Shard(mut moving) => {
                    self.engine.process_handed(&mut self.handed, now, &mut self.pool, &mut self.out);
                    // What they have left for the shard goes to its old owner, as the map says until now, and comes back behind it.
                    self.flush();
                    self.engine.adopt(&mut moving);
                    self.links.map.publish(moving.id, self.links.worker);
                    self.out.events.push_back(FromWorker::Moved(moving));
                }
            }
        }
        self.crossings = crossings;
        self.engine.process_handed(&mut self.handed, now, &mut self.pool, &mut self.out);
        self.flush();
    }

    /// Gives a shard away, behind all that it has sent; or keeps it until the ring to its new owner has room.
    fn leave(&mut self, mut moving: Box<Move>) {
        if !self.engine.owns(moving.id) || !self.links.reaches(moving.to) {
            self.out.events.push_back(FromWorker::Moved(moving));
        } else if !self.links.has_room(moving.to) {
            self.leaving = Some(moving);
        } else if self.engine.give(&mut moving, &mut self.out) {
            self.links.send_shard(moving);
            // What has waited for a first fragment goes behind it.
            self.flush();
        }
    }

    /// Empties the output: transmits, hands over, tells the control thread, frees.
    fn flush(&mut self) {
        let Worker { out, pending, devices, engine, outbox, received, links, ways, .. } = self;
        let (plan, counters) = (engine.plan(), engine.counters());
        for handed in out.hand_over.drain(..) {
            let worker = links.owner(handed.shard);
            links.put(worker, Crossing::Packet(handed), counters);
        }
        for (interface, packet) in out.transmit.drain(..) {
            let port = plan.interface(interface).map_or(usize::MAX, |it| usize::from(it.port.0));
            let (pending, device) = match ways.get(port) {
                Some(&Way::Device(number)) => (&mut pending[number], &mut devices[number]),
                Some(&Way::Worker(worker)) => {
                    links.put(worker, Crossing::Transmit(interface, packet), counters);
                    continue;
                }
                None => {
                    counters.dropped[Drop::TransmitFull as usize].add(1);
                    continue;
                }
            };
            pending.interfaces.push((interface, packet.data().len() as u64));
            pending.packets.push(packet);
            if pending.packets.is_full() {
                pending.send(device, counters);
            }
        }
        links.flush(counters);
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

impl<P: Packet> Pending<P> {
    fn send<D: Device<Packet = P>>(&mut self, device: &mut D, counters: &Counters) {
        device.transmit(&mut self.packets);
        let accepted = self.interfaces.len() - self.packets.len();
        counters.transmitted.add(accepted as u64);
        for run in self.interfaces[..accepted].chunk_by(|(one, _), (other, _)| one == other) {
            if let Some(counters) = counters.interfaces.get(usize::from(run[0].0.0)) {
                counters.transmitted_packets.add(run.len() as u64);
                counters.transmitted_bytes.add(run.iter().map(|(_, bytes)| bytes).sum());
            }
        }
        self.interfaces.clear();
        counters.dropped[Drop::TransmitFull as usize].add(self.packets.len() as u64);
        Packet::discard(&mut self.packets);
    }
}
