//! One burst in, each packet disposed of exactly once.
//!
//! The life of a packet: [`Engine::process`] has the frames of the burst read and what their look-ups will touch fetched
//! (`ahead`), then takes the packets in their order. Most are of known sessions and go the short way (`short`). All others go the long
//! one: `prepare` reads the packet, and `walk` leads it on. `ipv4` asks the plan what the destination means and finds the
//! session; without one `open` asks the policy and makes one, and `errors` does the same for ICMP errors. `forward` checks
//! hop count, size and neighbour, all before anything is changed, and rewrites. What comes of it is a `Verdict`, and
//! `dispose` carries it out. `own` is what the gateway itself sends. Off the common way: `fragments` gives
//! fragments the ports of their datagrams and cuts up what is too large, `hairpin` turns packets round that inside hosts send
//! to each other's external addresses.
//!
//! A packet whose flow belongs to another worker goes there as it came ([`Engine::process_handed`] takes it there), before
//! anything is decided.
//!
//! Decisions are taken in arrival order; looking ahead only prefetches. So any cutting of a sequence into bursts gives
//! the same output. A packet that must wait for a neighbour waits unchanged, and is processed again from the start.

mod ahead;
mod crossing;
mod errors;
mod forward;
mod fragments;
mod hairpin;
mod ipv4;
mod ipv6;
mod open;
mod own;
mod prefix;
mod prepare;
mod short;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::counters::{Counters, Drop, IcmpError};
use crate::fragment::Datagrams;
use crate::fragment::cut::PIECES_MAX;
use crate::message::{FromWorker, ToWorker};
use crate::packet::parse::{self, View4, View6, ethertype};
use crate::packet::verify::Covered;
use crate::packet::{Packet, PacketPool, RxChecksum, offload};
use crate::plan::{InterfaceId, Limits, Plan, PortId, Target, ZoneId};
use crate::pool::{Leases, Proto};
use crate::route::neighbour::{Adjacency, Held, Hop, Neighbour, Neighbours};
use crate::session::recheck::{CHUNKS, Sweep};
use crate::session::walk::{Budget, Walk};
use crate::session::wheel;
use crate::session::{Arenas, Context, Direction, Secret, Shard, Tuple4};
use crate::stages::Stage;
use crate::steer::hand_over::{HOPS_MAX, Handed, HandedBurst, Move, Turn};
use crate::steer::passage::Passage;
use crate::steer::{SHARDS, ShardId, ShardSet};
use crate::time::Time;
use crate::trace::{Disposal, Endpoints, RuleRef, SessionStep, Trace};
use crate::worker::BURST;
use ahead::Lane;
use fragments::Waiting;
use own::own_packet;
use prepare::tuple_of;
use short::{Deadlines, Tally};

/// Of this many received packets one has its transport checksum looked at. A prime, so that traffic with a rhythm does not
/// keep clear of it.
const SAMPLE: u64 = 61;

/// Received packets, with the port that each came in by.
pub type Received<P> = ArrayVec<(PortId, P), BURST>;

/// What the engine wants done, in order. Taken and emptied by the worker after each call.
#[derive(Debug)]
pub struct Output<P> {
    /// Frames to transmit, complete.
    pub transmit: Vec<(InterfaceId, P)>,
    /// Packets for the workers that own their flows.
    pub hand_over: Vec<Handed<P>>,
    /// What the control thread is to hear.
    pub events: VecDeque<FromWorker<P>>,
    /// Packets to free: already counted.
    pub dropped: Vec<P>,
}

impl<P> Output<P> {
    /// Empty, with room for what a burst and a full release of held packets and fragments can bring.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let room = (4 + PIECES_MAX) * BURST + 2 * (limits.held + limits.fragments) as usize;
        Output {
            transmit: Vec::with_capacity(room),
            hand_over: Vec::with_capacity(room),
            events: VecDeque::with_capacity(room),
            dropped: Vec::with_capacity(room),
        }
    }
}

/// Where a packet came from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// From this interface.
    Wire(InterfaceId),
    /// From the gateway itself: the host, or an ICMP error.
    Own,
}

/// A packet in hand: where and when it came in, and where its output goes.
struct Arrival<'a, P> {
    ingress: InterfaceId,
    /// The zone that it comes from: the interface's, unless it was turned round.
    zone: ZoneId,
    packet: &'a mut P,
    now: Time,
    out: &'a mut Output<P>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// To this neighbour.
    Transmit(Adjacency),
    /// To this neighbour, in the other address family than it came in.
    Cross(Adjacency),
    /// The same, cut into packets of at most so many bytes.
    CrossCut(Adjacency, u16),
    /// To the host.
    Punt,
    /// Waits for [`Engine::sought`].
    Hold,
    /// A fragment, to be given the ports of its datagram.
    Fragment,
    /// To be cut up for the next link.
    Cut,
    /// From inside to an external address, to be turned round.
    Turn,
    /// Dropped, and its sender told: an ICMP error with its MTU field.
    Drop(Drop, Option<(IcmpError, u16)>),
    /// Dropped as [`Drop::TcpNotSyn`], and its sender told by a TCP reset.
    Reset,
}

// Every packet has one.
const _: () = assert!(size_of::<Verdict>() == 16 && size_of::<Result<Adjacency, Verdict>>() == 16);

impl From<Drop> for Verdict {
    fn from(reason: Drop) -> Self {
        Verdict::Drop(reason, None)
    }
}

/// A frame that has been read.
#[derive(Clone, Copy, Debug)]
enum Read {
    Four(View4),
    Six(View6),
    Arp,
}

/// A packet, read, with the hash of its session look-up if it may have a session.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    interface: Option<InterfaceId>,
    read: Result<Read, Drop>,
    /// What the IPv4 destination means.
    target: Option<Target>,
    flow: Option<Flow>,
    /// Of an ICMP error: the shard of the flow that it quotes. Only looked for where it may be another worker's.
    quoted: Option<ShardId>,
}

impl Prepared {
    const UNREAD: Prepared =
        Prepared { interface: None, read: Err(Drop::MultiSegment), target: None, flow: None, quoted: None };

    /// The shard that the packet belongs to.
    fn owner(&self) -> Option<ShardId> {
        self.flow.as_ref().map(|flow| flow.shard).or(self.quoted)
    }
}

/// A worker's part in a gateway of several.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The shards that it owns.
    pub shards: ShardSet,
    /// The workers in all, which share memory and rates evenly.
    pub workers: u8,
    /// A NIC outside delivers packets by destination address and port ([`rss`](crate::steer::rss)): blocks of ports that it
    /// delivers here are leased before others.
    pub steered: bool,
}

impl Part {
    /// Of the only worker.
    pub const WHOLE: Part = Part { shards: ShardSet::ALL, workers: 1, steered: false };
}

/// A flow to look up: where, and by what.
#[derive(Clone, Copy, Debug)]
struct Flow {
    shard: ShardId,
    direction: Direction,
    /// As an outbound packet of the flow looks on the side that this one came from.
    tuple: Tuple4,
    proto: Proto,
    hash: u32,
}

/// Token bucket, as the time at which it would be full again.
#[derive(Clone, Debug)]
struct Bucket {
    full_at: Time,
}

impl Bucket {
    /// Takes one out of the share that one of so many workers has of this rate and burst.
    fn take(&mut self, rate: u32, burst: u32, workers: u8, now: Time) -> bool {
        let [rate, burst] = [rate, burst].map(|all| all.div_ceil(u32::from(workers)));
        if rate == 0 || burst == 0 {
            return false;
        }
        let step = std::time::Duration::from_nanos(1_000_000_000 / u64::from(rate));
        // The rate may have been raised since.
        self.full_at = self.full_at.clamp(now, now + step * burst);
        let room = self.full_at.since(now) + step <= step * burst;
        if room {
            self.full_at = self.full_at + step;
        }
        room
    }
}

/// The engine of one worker: its shards, its neighbours, its counters. No I/O, no clock.
#[derive(Debug)]
pub struct Engine<P> {
    plan: Arc<Plan>,
    leases: Arc<Leases>,
    counters: Arc<Counters>,
    secret: Secret,
    arenas: Arenas,
    /// All 64; those of other workers are empty.
    shards: Box<[Shard; SHARDS]>,
    /// The same 64 shards' datagrams in fragments.
    datagrams: Box<[Datagrams<Waiting<P>>; SHARDS]>,
    /// Of the packet in hand. Beside it, for nearly all have come in just now.
    passage: Passage,
    /// The packet in hand is going to be cut up: the next link need not take it whole.
    cutting: bool,
    /// How often the packet in hand has been handed over.
    hops: u8,
    /// Its own.
    owned: ShardSet,
    /// Workers in all.
    workers: u8,
    /// See [`Part::steered`].
    steered: bool,
    neighbours: Neighbours<P>,
    /// The neighbour that a packet was last found to wait for. Beside the verdict, which so fits two registers.
    sought: Neighbour,
    /// The hop of the neighbour that was last found.
    hop: Hop,
    /// Counts plans, and times that neighbours' hops were given out anew: what a session remembers of either is good for
    /// one epoch.
    epoch: u32,
    errors: Bucket,
    resets: Bucket,
    /// The second that the timers were last asked in.
    second: u64,
    /// The next shard to ask, and those that are still to be asked: a bit each.
    expiring: u32,
    overdue: u64,
    /// The check of all sessions against a new plan, while it goes on.
    sweep: Option<Sweep>,
    /// Packets received when it last went on.
    swept_at: u64,
    /// It has come to its end, and nobody has been told.
    swept: bool,
    traces: Option<Vec<Trace>>,
    story: Story,
}

/// What is told of the packet in hand.
#[derive(Clone, Copy, Debug, Default)]
struct Story {
    shard: Option<u8>,
    rule: RuleRef,
    session: SessionStep,
    after: Option<Endpoints>,
    error: Option<IcmpError>,
    reset: bool,
}

impl<P: Packet> Engine<P> {
    /// The engine of the only worker, with all 64 shards. Takes all memory that it will ever use.
    #[must_use]
    pub fn new(plan: Arc<Plan>, leases: Arc<Leases>, counters: Arc<Counters>, now: Time) -> Self {
        Engine::among(Part::WHOLE, plan, leases, counters, now)
    }

    /// The engine of one of several workers. Takes all memory that it will ever use.
    #[must_use]
    pub fn among(part: Part, plan: Arc<Plan>, leases: Arc<Leases>, counters: Arc<Counters>, now: Time) -> Self {
        let id = |place: usize| ShardId(u8::try_from(place).unwrap_or(0));
        let shards = std::array::from_fn(|place| Shard::new(id(place), &plan, now));
        let limits = plan.spec.limits.share(part.workers);
        let secret = Secret::new(plan.spec.secret);
        let datagrams = std::array::from_fn(|place| Datagrams::new(id(place), &secret, limits.fragments));
        let mut engine = Engine {
            secret,
            datagrams: Box::new(datagrams),
            passage: Passage::FIRST,
            cutting: false,
            hops: 0,
            arenas: Arenas::new(&limits),
            shards: Box::new(shards),
            owned: part.shards,
            workers: part.workers.max(1),
            steered: part.steered,
            neighbours: Neighbours::new(&limits),
            sought: Neighbour::ipv4(InterfaceId(0), 0),
            hop: Hop::UNKNOWN,
            epoch: first_epoch(part.shards),
            errors: Bucket { full_at: now },
            resets: Bucket { full_at: now },
            second: wheel::tick_of(now),
            expiring: 0,
            overdue: u64::MAX,
            sweep: None,
            swept_at: 0,
            swept: false,
            traces: None,
            story: Story::default(),
            plan,
            leases,
            counters,
        };
        engine.arenas.make_room(usize::from(engine.workers));
        engine.prefer_near();
        engine
    }

    /// Its shards take ports where a NIC delivers them to this worker, if one does.
    fn prefer_near(&mut self) {
        let near = self.steered.then_some(self.owned);
        self.shards.iter_mut().for_each(|shard| shard.prefer(near));
    }

    /// The configuration in use.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The epoch: a session of another one is checked against the plan before it is used.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Its shards, for listings and tests.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &*self.shards
    }

    /// Whether a shard is its own.
    #[inline]
    #[must_use]
    pub fn owns(&self, shard: ShardId) -> bool {
        self.owned.contains(shard)
    }

    /// The memory of its shards, for listings and tests.
    #[must_use]
    pub fn arenas(&self) -> &Arenas {
        &self.arenas
    }

    /// Switches the telling of stories on or off.
    pub fn set_tracing(&mut self, on: bool) {
        self.traces = on.then(Vec::new);
    }

    /// The stories told since the last call: one for each received packet, and another for each that had to wait.
    pub fn take_traces(&mut self) -> Vec<Trace> {
        self.traces.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes a burst, and leaves it empty.
    pub fn process<L: PacketPool<Packet = P>>(
        &mut self,
        burst: &mut Received<P>,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        self.counters.stages.start();
        let earlier = self.counters.received.get();
        self.counters.received.add(burst.len() as u64);
        for (_, packet) in burst.iter_mut() {
            if packet.rx_checksum() == RxChecksum::Partial {
                offload::finish(packet.data_mut());
            }
        }
        let mut lanes = [Lane::LONG; BURST];
        self.look_ahead(burst.iter().map(|(port, packet)| (*port, packet)), &mut lanes);
        let sampled = usize::try_from((SAMPLE - earlier % SAMPLE) % SAMPLE).unwrap_or(0);
        if let Some((port, packet)) = burst.get(sampled) {
            self.sample(*port, packet);
        }
        let deadlines = Deadlines::new(&self.plan.spec.timers, now);
        let mut tally = Tally::RECEIVED;
        self.counters.stages.end(Stage::Burst, 0);
        for ((port, packet), lane) in burst.drain(..).zip(&lanes) {
            match self.take_short_way(packet, port, lane, (now, &deadlines), &mut tally, out) {
                None => self.counters.stages.end(lane.stage(), 1),
                Some(packet) => self.take_long_way(packet, port, &tally, now, pool, out),
            }
        }
        self.count(tally);
        self.counters.stages.end(Stage::Burst, 0);
    }

    /// Takes a burst that other workers have handed over, and leaves it empty. Its packets have been received already, and
    /// counted as such.
    pub fn process_handed<L: PacketPool<Packet = P>>(
        &mut self,
        burst: &mut HandedBurst<P>,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        self.counters.stages.start();
        self.counters.taken_over.add(burst.len() as u64);
        let mut lanes = [Lane::LONG; BURST];
        self.look_ahead(burst.iter().map(|handed| (handed.ingress, &handed.packet)), &mut lanes);
        let deadlines = Deadlines::new(&self.plan.spec.timers, now);
        let mut tally = Tally::HANDED;
        self.counters.stages.end(Stage::Burst, 0);
        for (handed, lane) in burst.drain(..).zip(&lanes) {
            let Handed { packet, ingress, turn, lent, hops, .. } = handed;
            self.hops = hops;
            match (turn, lent) {
                (Turn::First, None) => {
                    match self.take_short_way(packet, ingress, lane, (now, &deadlines), &mut tally, out) {
                        None => self.counters.stages.end(lane.stage(), 1),
                        Some(packet) => self.take_long_way(packet, ingress, &tally, now, pool, out),
                    }
                }
                (Turn::First | Turn::Hairpin, lent) => {
                    let passage = Passage { turn, lent };
                    let mut prepared = Prepared::UNREAD;
                    self.prepare(ingress, &packet, &mut prepared);
                    self.resume(packet, ingress, prepared, passage, false, now, pool, out);
                }
                (Turn::Own, _) => self.send_own(packet, now, pool, out),
            }
        }
        self.hops = 0;
        self.count(tally);
        self.counters.stages.end(Stage::Burst, 0);
    }

    /// Whatever a packet is: reads it, and decides all from the start. It has come in by a port, and has been handed over so
    /// often.
    #[inline(never)]
    fn take_long_way<L: PacketPool<Packet = P>>(
        &mut self,
        packet: P,
        port: PortId,
        tally: &Tally,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        self.counters.stages.end(Stage::Return, 1);
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        self.counters.stages.end(Stage::Prepare, 1);
        if let Some(id) = prepared.interface {
            self.count_ingress(tally, id, 1, packet.data().len() as u64);
        }
        match self.elsewhere(&prepared) {
            None => self.walk(packet, &prepared, false, now, pool, out),
            Some(shard) => self.hand_over(packet, port, shard, Passage::FIRST, out),
        }
        self.counters.stages.end(Stage::Rest, 1);
    }

    /// Puts a shard of its own into `moving`, in exchange for the empty one that is there: what comes for it from now on goes to
    /// its new owner. Its fragments that wait go there too, by `out`. False, and no change, if the shard is not its own.
    pub fn give(&mut self, moving: &mut Move, out: &mut Output<P>) -> bool {
        self.owns(moving.id) && {
            self.owned = self.owned.without(moving.id);
            self.overdue &= !(1 << moving.id.index());
            std::mem::swap(&mut self.shards[moving.id.index()], &mut moving.shard);
            self.give_datagrams(moving, out);
            self.prefer_near();
            true
        }
    }

    /// Takes the shard that `moving` brings, and leaves the empty one there that was in its place.
    pub fn adopt(&mut self, moving: &mut Move) {
        self.owned = self.owned.with(moving.id);
        // It may be behind the time.
        self.overdue |= 1 << moving.id.index();
        std::mem::swap(&mut self.shards[moving.id.index()], &mut moving.shard);
        self.datagrams[moving.id.index()].exchange(&mut moving.datagrams);
        self.prefer_near();
    }

    /// The shard of a packet as it came in that is another worker's.
    #[inline(always)]
    fn elsewhere(&self, prepared: &Prepared) -> Option<ShardId> {
        if self.owned == ShardSet::ALL {
            return None;
        }
        let own = matches!(prepared.target, Some(Target::Local(_) | Target::Broadcast));
        prepared.owner().filter(|&shard| !own && !self.owns(shard)).and_then(|shard| self.first_owner(prepared, shard))
    }

    /// To the owner of its flow, unchanged.
    #[inline(never)]
    fn hand_over(&self, packet: P, ingress: PortId, shard: ShardId, passage: Passage, out: &mut Output<P>) {
        let Passage { turn, lent } = passage;
        if self.hops < HOPS_MAX {
            out.hand_over.push(Handed { packet, ingress, shard, turn, lent, hops: self.hops + 1 });
        } else {
            self.drop(packet, Drop::HandOverAstray, out);
        }
    }

    /// Looks at the transport checksum of a received packet, for statistics.
    #[inline(never)]
    fn sample(&self, port: PortId, packet: &P) {
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, packet, &mut prepared);
        let Some(counters) = prepared.interface.and_then(|id| self.counters.interfaces.get(usize::from(id.0))) else {
            return;
        };
        let covered = match &prepared.read {
            Ok(Read::Four(view)) => Covered::of4(packet.data(), view),
            Ok(Read::Six(view)) => Covered::of6(packet.data(), view),
            Ok(Read::Arp) | Err(_) => None,
        };
        // A device's praise is believed; its blame is not: there are some that take a missing checksum for a wrong one.
        let is_right = |covered: Covered| packet.rx_checksum() == RxChecksum::Good || covered.is_right();
        if let Some(covered) = covered {
            counters.checksum_samples.add(1);
            counters.checksum_bad.add(u64::from(!is_right(covered)));
        }
    }

    /// Applies a message of the control thread. `false` means: stop.
    pub fn apply<L: PacketPool<Packet = P>>(
        &mut self,
        message: ToWorker,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> bool {
        let message = match message {
            ToWorker::Walk(mut walk) => {
                self.step(&mut walk, now);
                out.events.push_back(FromWorker::Walked(walk));
                return true;
            }
            ToWorker::Plan { plan, leases } => self.succeed(plan, leases),
            message => message,
        };
        match &message {
            ToWorker::Stop => return false,
            // A move is the worker's affair, which has the rings.
            ToWorker::Plan { .. } | ToWorker::Walk(_) | ToWorker::Move(_) => {}
            ToWorker::Neighbour(update) => self.neighbour(update, now, pool, out),
            ToWorker::Frame { interface, frame } => {
                self.counters.from_host.add(1);
                match own_packet(pool, 0, frame) {
                    Ok(packet) if frame.len() >= parse::ETHERNET => self.host_frame(*interface, packet, out),
                    Ok(packet) => {
                        self.drop(packet, Drop::HostPacket, out);
                    }
                    Err(reason) => self.count_drop(reason),
                }
            }
            ToWorker::Packet { packet } => {
                self.counters.from_host.add(1);
                match own_packet(pool, parse::ETHERNET, packet) {
                    Ok(packet) => self.send_own(packet, now, pool, out),
                    Err(reason) => self.count_drop(reason),
                }
            }
        }
        out.events.push_back(FromWorker::Spent(message));
        true
    }

    /// Works by another plan from now on. Returns the one before, for the control thread to free.
    fn succeed(&mut self, plan: Arc<Plan>, leases: Arc<Leases>) -> ToWorker {
        let plan = std::mem::replace(&mut self.plan, plan);
        self.begin_epoch();
        if plan.spec.generation != self.plan.spec.generation {
            self.sweep = Some(Sweep::default());
        }
        let leases = std::mem::replace(&mut self.leases, leases);
        ToWorker::Plan { plan, leases }
    }

    /// What sessions remember of the plan and of neighbours is not to be relied upon any more.
    fn begin_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.neighbours.begin_epoch();
    }

    /// Takes a walk one step further.
    fn step(&mut self, walk: &mut Walk, now: Time) {
        walk.begin_step();
        let mut budget = Budget::step();
        while !budget.is_spent() {
            let Ok(id) = u8::try_from(walk.shard()) else { break };
            if usize::from(id) == SHARDS {
                walk.done = true;
                break;
            }
            let (shard, mut context) = self.shard_at(ShardId(id), now);
            walk.through(shard, &mut context, &mut budget);
        }
    }

    /// Does what time alone brings about, in bounded work: call it at every poll. Returns true if there is more to do.
    ///
    /// Timers have a tick of a second, so most of the time there is nothing to ask the shards for.
    #[inline]
    pub fn tick(&mut self, now: Time) -> bool {
        let second = wheel::tick_of(now);
        if second != self.second {
            (self.second, self.overdue) = (second, u64::MAX);
        }
        if self.overdue != 0 {
            self.counters.stages.start();
            self.expire(now);
            self.counters.stages.end(Stage::Expire, 0);
        }
        if self.sweep.is_some() {
            self.sweep_on(now);
        }
        self.overdue != 0 || self.sweep.is_some()
    }

    /// Ends what is past its time in the next of the shards that have to be asked, in bounded work.
    #[inline(never)]
    fn expire(&mut self, now: Time) {
        // From where it stopped on, in a circle.
        let ahead = self.overdue.rotate_right(self.expiring).trailing_zeros();
        let at = (self.expiring + ahead) % u64::BITS;
        self.expiring = (at + 1) % u64::BITS;
        let id = ShardId(u8::try_from(at).unwrap_or(0));
        let (shard, mut context) = self.shard_at(id, now);
        let more = shard.expire(&mut context);
        if !(more | (self.counters.fragments_held.get() > 0 && self.expire_fragments(id, now))) {
            self.overdue &= !(1 << at);
        }
    }

    /// Takes the sweep after a reload one step further, if there is one.
    fn sweep_on(&mut self, now: Time) {
        let Some(mut sweep) = self.sweep else { return };
        let received = self.counters.received.get();
        let loaded = std::mem::replace(&mut self.swept_at, received) != received;
        let shard = u8::try_from(sweep.shard).ok().filter(|&id| usize::from(id) < SHARDS);
        self.sweep = shard.map(|id| {
            let (shard, mut context) = self.shard_at(ShardId(id), now);
            shard.sweep(&mut context, &mut sweep, if loaded { 1 } else { CHUNKS });
            sweep
        });
        self.swept = self.sweep.is_none();
    }

    /// The generation of the plan that by now every session has been checked against, once.
    pub fn take_swept(&mut self) -> Option<u32> {
        std::mem::take(&mut self.swept).then_some(self.plan.spec.generation)
    }

    /// Ticks until nothing that time brings about is left: for tests and `turnpike replay`, where the clock jumps.
    pub fn settle(&mut self, now: Time) {
        while self.tick(now) {}
    }

    /// The walk of one packet, from its reading to its disposal. `resumed`: it has waited for a neighbour.
    fn walk<L: PacketPool<Packet = P>>(
        &mut self,
        packet: P,
        prepared: &Prepared,
        resumed: bool,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        self.begin_story(prepared);
        let zone = prepared.interface.map_or(ZoneId(u8::MAX), |id| self.zone(id));
        let read = prepared.read.as_ref().ok();
        let disposal = self.pass(packet, prepared, zone, now, pool, out);
        self.tell(read, disposal, resumed);
    }

    /// The same without a story. `zone` is where the packet comes from.
    #[inline(always)]
    fn pass<L: PacketPool<Packet = P>>(
        &mut self,
        mut packet: P,
        prepared: &Prepared,
        zone: ZoneId,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        let verdict = match (prepared.interface, &prepared.read) {
            (_, Err(reason)) => (*reason).into(),
            (None, Ok(_)) => Drop::UnknownVlan.into(),
            (Some(ingress), Ok(read)) => {
                let mut at = Arrival { ingress, zone, packet: &mut packet, now, out: &mut *out };
                match read {
                    Read::Four(view) => self.ipv4(&mut at, view, prepared),
                    Read::Six(view) => self.ipv6(&mut at, view),
                    Read::Arp => Verdict::Punt,
                }
            }
        };
        let origin = prepared.interface.map_or(Origin::Own, Origin::Wire);
        self.dispose(origin, packet, verdict, prepared.read.as_ref().ok(), now, pool, out)
    }

    /// What is said of a packet from here on is said of this one.
    fn begin_story(&mut self, prepared: &Prepared) {
        if self.traces.is_some() {
            self.story = Story { shard: prepared.flow.as_ref().map(|flow| flow.shard.0), ..Story::default() };
        }
    }

    fn tell(&mut self, read: Option<&Read>, disposal: Disposal, resumed: bool) {
        // What is handed over is told of where it goes on.
        if let Some(traces) = &mut self.traces
            && disposal != Disposal::HandOver
        {
            let Story { shard, rule, session, after, error, reset } = self.story;
            let before = read.and_then(endpoints);
            traces.push(Trace { disposal, shard, rule, session, before, after, error, reset, resumed });
        }
    }

    /// Carries a verdict out. The only place where a packet that came in leaves the engine.
    #[allow(clippy::too_many_arguments)]
    fn dispose<L: PacketPool<Packet = P>>(
        &mut self,
        origin: Origin,
        mut packet: P,
        verdict: Verdict,
        read: Option<&Read>,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        match verdict {
            Verdict::Transmit(adjacency) => {
                let (kind, old) = match read {
                    Some(Read::Six(view)) => (ethertype::IPV6, view.l3),
                    Some(Read::Four(view)) => (ethertype::IPV4, view.l3),
                    Some(Read::Arp) | None => (ethertype::IPV4, parse::ETHERNET),
                };
                if self.address_frame(&mut packet, adjacency, kind, old) {
                    out.transmit.push((adjacency.interface, packet));
                    Disposal::Transmit(adjacency.interface)
                } else {
                    self.drop(packet, Drop::FrameShort, out)
                }
            }
            Verdict::Cross(to) | Verdict::CrossCut(to, _) => {
                let (kind, old) = match read {
                    Some(Read::Six(view)) => (ethertype::IPV4, view.l3),
                    Some(Read::Four(view)) => (ethertype::IPV6, view.l3),
                    Some(Read::Arp) | None => return self.drop(packet, Drop::NoRoute, out),
                };
                if let Verdict::CrossCut(_, most) = verdict {
                    return self.cut_crossed(packet, to, (kind, old), most, pool, out);
                }
                if self.address_frame(&mut packet, to, kind, old) {
                    out.transmit.push((to.interface, packet));
                    Disposal::Transmit(to.interface)
                } else {
                    self.drop(packet, Drop::FrameShort, out)
                }
            }
            Verdict::Punt => self.punt(origin, packet, out),
            Verdict::Hold => self.hold(origin, packet, out),
            Verdict::Fragment | Verdict::Cut | Verdict::Turn => match (origin, read) {
                (Origin::Wire(ingress), Some(Read::Four(view))) => match verdict {
                    Verdict::Fragment => self.fragment(ingress, packet, view, now, pool, out),
                    Verdict::Cut => self.cut(ingress, packet, view, now, pool, out),
                    _ => self.turn(ingress, packet, view, now, pool, out),
                },
                _ => self.drop(packet, Drop::NoRoute, out),
            },
            Verdict::Drop(reason, error) => {
                if let (Origin::Wire(interface), Some((error, mtu)), Some(read)) = (origin, error, read) {
                    self.originate(interface, packet.data(), read, error, mtu, now, pool, out);
                }
                self.drop(packet, reason, out)
            }
            Verdict::Reset => {
                if let Some(Read::Four(view)) = read {
                    self.reset(packet.data(), view, now, pool, out);
                }
                self.drop(packet, Drop::TcpNotSyn, out)
            }
        }
    }

    #[inline(never)]
    fn punt(&mut self, origin: Origin, mut packet: P, out: &mut Output<P>) -> Disposal {
        match origin {
            Origin::Wire(interface) => {
                untag(&mut packet);
                out.events.push_back(FromWorker::Punt { interface, packet });
                Disposal::Punt
            }
            Origin::Own => self.drop(packet, Drop::HostPacket, out),
        }
    }

    #[inline(never)]
    fn hold(&mut self, origin: Origin, packet: P, out: &mut Output<P>) -> Disposal {
        let ingress = match origin {
            Origin::Wire(id) => Some(id),
            Origin::Own => None,
        };
        let (interface, address) = (self.sought.interface(), self.sought.address());
        let passage = if ingress.is_some() { self.passage } else { Passage::FIRST };
        let (new, held) = self.neighbours.hold(self.sought, Held { packet, ingress, passage });
        if new {
            out.events.push_back(FromWorker::Resolve { interface, address });
        }
        match held {
            Ok(()) => {
                self.counters.held.add(1);
                Disposal::Hold(interface, address)
            }
            Err((packet, reason)) => self.drop(packet, reason, out),
        }
    }

    fn drop(&self, packet: P, reason: Drop, out: &mut Output<P>) -> Disposal {
        self.count_drop(reason);
        out.dropped.push(packet);
        Disposal::Drop(reason)
    }

    fn count_drop(&self, reason: Drop) {
        self.counters.dropped[reason as usize].add(1);
    }

    /// A shard, with what its operations need.
    fn shard_at(&mut self, id: ShardId, now: Time) -> (&mut Shard, Context<'_>) {
        let context = Context {
            plan: &self.plan,
            leases: &self.leases,
            counters: &self.counters,
            arenas: &mut self.arenas,
            secret: &self.secret,
            now,
            epoch: self.epoch,
        };
        (&mut self.shards[id.index()], context)
    }
}

/// The epoch that a worker begins with. A shard that moves on finds no worker in an epoch that it knows, for no two workers
/// begin with the same shards.
fn first_epoch(owned: ShardSet) -> u32 {
    let first = (0..64).find(|&id| owned.contains(ShardId(id))).unwrap_or(64);
    u32::from(first + 1) << 24
}

fn endpoints4(protocol: u8, tuple: &Tuple4) -> Endpoints {
    Endpoints {
        protocol,
        source: IpAddr::V4(Ipv4Addr::from_bits(tuple.source)),
        source_port: tuple.source_port,
        destination: IpAddr::V4(Ipv4Addr::from_bits(tuple.destination)),
        destination_port: tuple.destination_port,
    }
}

fn endpoints6(view: &View6) -> Endpoints {
    Endpoints {
        protocol: view.protocol,
        source: IpAddr::V6(Ipv6Addr::from_bits(view.source)),
        source_port: view.source_port,
        destination: IpAddr::V6(Ipv6Addr::from_bits(view.destination)),
        destination_port: view.destination_port,
    }
}

fn endpoints(read: &Read) -> Option<Endpoints> {
    match read {
        Read::Four(view) => Some(endpoints4(view.protocol, &tuple_of(view))),
        Read::Six(view) => Some(endpoints6(view)),
        Read::Arp => None,
    }
}

/// Whether the frame of a packet is for more than one station.
#[inline(always)]
fn is_for_many<P: Packet>(packet: &P) -> bool {
    packet.data().first().is_some_and(|byte| byte & 1 != 0)
}

/// Takes the VLAN tags off a frame for the host.
fn untag<P: Packet>(packet: &mut P) {
    let tags = parse::link(packet.data()).map_or(0, |link| link.len - parse::ETHERNET);
    if tags > 0 {
        packet.data_mut().copy_within(..12, tags);
        let _ = packet.trim_front(tags);
    }
}
