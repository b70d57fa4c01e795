//! One burst in, each packet disposed of exactly once.
//!
//! The life of an IPv4 packet, from top to bottom of this file: [`Engine::process`] reads every frame of the burst and
//! prefetches what its look-up will touch, then takes the packets in their order, each through `one`: `ipv4` asks the plan what the destination means and goes `inbound` (an external address) or `outbound`; there
//! the session is found, or policy decides and makes one; `forward4` checks hop count, size and neighbour, all before
//! anything is changed; the packet is rewritten and put on the output list. Whatever happens to it is its `Verdict`.
//!
//! Decisions are taken in arrival order; looking ahead only prefetches. So any cutting of a sequence into bursts gives
//! the same output. A packet that must wait for a neighbour waits unchanged, and is processed again from the start.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::counters::{Counters, Drop, IcmpError, MappingFailure, SessionClass};
use crate::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use crate::packet::checksum::Delta;
use crate::packet::parse::{self, Fragment, Transport, View4, View6, ethertype, put16};
use crate::packet::{Packet, PacketPool, RxChecksum, error, offload};
use crate::plan::{Filtering, InterfaceId, MacAddr, Plan, PortId, Target, ZoneId};
use crate::policy::StaticEntry;
use crate::pool::{Leases, Owner, Proto};
use crate::route::neighbour::{Adjacency, Held, Lookup, Neighbour, Neighbours, Waiting};
use crate::session::tcp::{self, Segment, State, Tcp, Timer};
use crate::session::{Arenas, Context, Direction, NONE, Secret, Session, Shard, Tuple4, idle_time, wheel};
use crate::steer::{SHARDS, ShardId, shard_of4};
use crate::time::Time;
use crate::trace::{Disposal, Endpoints, RuleRef, SessionStep, Trace};
use crate::translate::{icmp, mss, napt};
use crate::worker::BURST;

/// Received packets, with the port that each came in by.
pub type Received<P> = ArrayVec<(PortId, P), BURST>;

/// What the engine wants done, in order. Taken and emptied by the worker after each call.
#[derive(Debug)]
pub struct Output<P> {
    /// Frames to transmit, complete.
    pub transmit: Vec<(InterfaceId, P)>,
    /// What the control thread is to hear.
    pub events: VecDeque<FromWorker<P>>,
    /// Packets to free: already counted.
    pub dropped: Vec<P>,
}

impl<P> Output<P> {
    /// Empty, with room for what a burst and a full release of held packets can bring.
    #[must_use]
    pub fn new(held: usize) -> Self {
        let room = 4 * BURST + 2 * held;
        Output {
            transmit: Vec::with_capacity(room),
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

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// To this neighbour.
    Transmit(Adjacency),
    /// To the host.
    Punt,
    /// Waits for [`Engine::sought`].
    Hold,
    /// Dropped, and its sender told: an ICMP error with its MTU field.
    Drop(Drop, Option<(IcmpError, u16)>),
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

/// A packet of the burst, read, with the hash of its session look-up if it may have a session.
#[derive(Clone, Copy, Debug)]
struct Prepared {
    interface: Option<InterfaceId>,
    read: Result<Read, Drop>,
    /// What the IPv4 destination means.
    target: Option<Target>,
    flow: Option<Flow>,
}

impl Prepared {
    const UNREAD: Prepared = Prepared { interface: None, read: Err(Drop::MultiSegment), target: None, flow: None };
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
    /// The session that was prefetched.
    guess: Option<u32>,
}

/// Token bucket, as the time at which it would be full again.
#[derive(Debug)]
struct Bucket {
    full_at: Time,
}

impl Bucket {
    fn take(&mut self, rate: u32, burst: u32, now: Time) -> bool {
        if rate == 0 || burst == 0 {
            return false;
        }
        let step = std::time::Duration::from_nanos(1_000_000_000 / u64::from(rate));
        let full_at = self.full_at.max(now);
        let room = full_at.since(now) + step <= step * burst;
        if room {
            self.full_at = full_at + step;
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
    shards: Box<[Shard]>,
    neighbours: Neighbours<P>,
    /// The neighbour that a packet was last found to wait for. Beside the verdict, which so fits two registers.
    sought: Neighbour,
    /// A burst's packets, read. Here so that its memory is taken once.
    prepared: Vec<Prepared>,
    errors: Bucket,
    /// The next shard to expire.
    expiring: usize,
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
}

impl<P: Packet> Engine<P> {
    /// An engine with all 64 shards. Takes all memory that it will ever use.
    #[must_use]
    pub fn new(plan: Arc<Plan>, leases: Arc<Leases>, counters: Arc<Counters>, now: Time) -> Self {
        let shards = (0..SHARDS).map(|id| Shard::new(ShardId(u8::try_from(id).unwrap_or(0)), &plan, now));
        let limits = plan.spec.limits;
        Engine {
            secret: Secret::new(plan.spec.secret),
            arenas: Arenas::new(&limits),
            shards: shards.collect(),
            neighbours: Neighbours::new(&limits),
            sought: Neighbour::ipv4(InterfaceId(0), 0),
            prepared: vec![Prepared::UNREAD; BURST],
            errors: Bucket { full_at: now },
            expiring: 0,
            traces: None,
            story: Story::default(),
            plan,
            leases,
            counters,
        }
    }

    /// The configuration in use.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Its shards, for listings and tests.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
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
        self.counters.received.add(burst.len() as u64);
        for (_, packet) in burst.iter_mut() {
            if packet.rx_checksum() == RxChecksum::Partial {
                offload::finish(packet.data_mut());
            }
        }
        let mut prepared = std::mem::take(&mut self.prepared);
        for ((port, packet), prepared) in burst.iter().zip(&mut prepared) {
            self.prepare(*port, packet, prepared);
        }
        for flow in prepared.iter_mut().take(burst.len()).filter_map(|it| it.flow.as_mut()) {
            if let Some(shard) = self.shards.get(flow.shard.index()) {
                flow.guess = shard.guess_session(flow.hash);
            }
        }
        for ((_, packet), prepared) in burst.drain(..).zip(&mut prepared) {
            self.one(packet, prepared, now, pool, out);
        }
        self.prepared = prepared;
    }

    /// Applies a message of the control thread. `false` means: stop.
    pub fn apply<L: PacketPool<Packet = P>>(
        &mut self,
        message: ToWorker,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> bool {
        match &message {
            ToWorker::Stop => return false,
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

    /// Does what time alone brings about, in bounded work: call it at every poll. Returns true if there is more to do.
    pub fn tick(&mut self, now: Time) -> bool {
        let mut more = false;
        // A few shards at a time; all of them within 16 calls.
        for _ in 0..4 {
            let at = self.expiring;
            self.expiring = (at + 1) % SHARDS;
            let (shard, mut context) = self.shard_at(ShardId(u8::try_from(at).unwrap_or(0)), now);
            more |= shard.expire(&mut context);
        }
        more
    }

    /// Ticks until nothing that time brings about is left: for tests and `turnpike replay`, where the clock jumps.
    pub fn settle(&mut self, now: Time) {
        while (0..SHARDS).fold(false, |more, _| self.tick(now) | more) {}
    }

    // --- Reading, and looking ahead -----------------------------------------------------------------------------------

    /// Reads a packet into `prepared`, whatever is in it.
    fn prepare(&self, port: PortId, packet: &P, prepared: &mut Prepared) {
        (prepared.interface, prepared.target, prepared.flow) = (None, None, None);
        if !packet.is_contiguous() {
            prepared.read = Err(Drop::MultiSegment);
            return;
        }
        let frame = packet.data();
        let link = match parse::link(frame) {
            Ok(link) => link,
            Err(reason) => {
                prepared.read = Err(reason);
                return;
            }
        };
        prepared.interface = self.plan.ingress(port, link.vlan);
        let Some(interface) = prepared.interface.and_then(|id| self.plan.interface(id)) else {
            prepared.read = Err(Drop::UnknownVlan);
            return;
        };
        if frame[0] & 1 == 0 && frame[..6] != interface.mac.0 {
            prepared.read = Err(Drop::OtherStation);
            return;
        }
        match link.ethertype {
            ethertype::IPV4 => match parse::ipv4(frame, link.len) {
                Ok(view) => {
                    prepared.read = Ok(Read::Four(view));
                    prepared.target = self.plan.target4(view.destination);
                    prepared.flow = self.flow(interface.zone, &view, prepared.target);
                    if let Some(flow) = &prepared.flow
                        && let Some(shard) = self.shards.get(flow.shard.index())
                    {
                        shard.prefetch_bucket(flow.hash);
                    }
                }
                Err(reason) => prepared.read = Err(reason),
            },
            ethertype::IPV6 => match parse::ipv6(frame, link.len) {
                Ok(view) => prepared.read = Ok(Read::Six(view)),
                Err(reason) => prepared.read = Err(reason),
            },
            ethertype::ARP => prepared.read = Ok(Read::Arp),
            _ => prepared.read = Err(Drop::NotIp),
        }
    }

    /// The session look-up of a packet: whose shard, which side, by what (design rule 3).
    #[inline(always)]
    fn flow(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> Option<Flow> {
        let query = matches!(view.transport, Transport::Tcp(_) | Transport::Udp | Transport::IcmpQuery(_));
        let proto = Proto::from_ip(view.protocol).filter(|_| query && view.fragment == Fragment::Whole)?;
        let packet = tuple_of(view);
        let (shard, direction, tuple) = match target.and_then(|target| target.external_id(view.destination)) {
            Some(id) => (self.owner(id, proto, packet.destination_port)?, Direction::Inbound, packet.reversed()),
            None if self.plan.policy.is_inside(zone) => (shard_of4(packet.source), Direction::Outbound, packet),
            None => return None,
        };
        Some(Flow { shard, direction, tuple, proto, hash: self.secret.tuple_hash(&tuple, proto), guess: None })
    }

    /// The shard that owns an external endpoint, if any flow can exist there.
    fn owner(&self, external: u32, proto: Proto, port: u16) -> Option<ShardId> {
        match self.leases.owner(external, port) {
            Owner::Shard(shard) => Some(shard),
            Owner::Free => None,
            Owner::Static => {
                let entry = self.plan.externals.get(external as usize)?;
                let found = self.plan.policy.static_in(entry.address, entry.static_nat, proto, port);
                found.map(|entry| shard_of4(entry.inside))
            }
        }
    }

    /// A prepared packet when its turn has come. Looking ahead was guessing: the packets before this one may have leased the
    /// block that it is sent to, or given it back, and so changed its owner.
    fn settle_owner(&self, prepared: &mut Prepared) {
        if let (Some(interface), Ok(Read::Four(view)), Some(target)) =
            (prepared.interface, &prepared.read, prepared.target)
            && let Some(id) = target.external_id(view.destination)
        {
            let owned = |flow: &Flow| self.owner(id, flow.proto, flow.tuple.source_port) == Some(flow.shard);
            if !prepared.flow.as_ref().is_some_and(owned) {
                prepared.flow = self.flow(self.zone(interface), view, prepared.target);
            }
        }
    }

    // --- One packet ---------------------------------------------------------------------------------------------------

    fn one<L: PacketPool<Packet = P>>(
        &mut self,
        mut packet: P,
        prepared: &mut Prepared,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        self.settle_owner(prepared);
        let prepared = &*prepared;
        self.begin_story(prepared);
        if let Some(counters) = prepared.interface.and_then(|id| self.counters.interfaces.get(usize::from(id.0))) {
            counters.received_packets.add(1);
            counters.received_bytes.add(packet.data().len() as u64);
        }
        let verdict = match (prepared.interface, &prepared.read) {
            (_, Err(reason)) => (*reason).into(),
            (None, Ok(_)) => Drop::UnknownVlan.into(),
            (Some(_), Ok(Read::Arp)) => Verdict::Punt,
            (Some(id), Ok(Read::Four(view))) => self.ipv4(id, &mut packet, view, prepared, now, out),
            (Some(id), Ok(Read::Six(view))) => self.ipv6(id, &mut packet, view, out),
        };
        let origin = prepared.interface.map_or(Origin::Own, Origin::Wire);
        let read = prepared.read.as_ref().ok();
        let disposal = self.dispose(origin, packet, verdict, read, now, pool, out);
        self.tell(read, disposal, false);
    }

    /// What is said of a packet from here on is said of this one.
    fn begin_story(&mut self, prepared: &Prepared) {
        if self.traces.is_some() {
            self.story = Story { shard: prepared.flow.as_ref().map(|flow| flow.shard.0), ..Story::default() };
        }
    }

    fn tell(&mut self, read: Option<&Read>, disposal: Disposal, resumed: bool) {
        if let Some(traces) = &mut self.traces {
            let Story { shard, rule, session, after, error } = self.story;
            let before = read.and_then(endpoints);
            traces.push(Trace { disposal, shard, rule, session, before, after, error, resumed });
        }
    }

    /// Carries a verdict out. The only place where a packet that came in leaves the engine.
    #[allow(clippy::too_many_arguments)]
    #[inline]
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
            Verdict::Punt => self.punt(origin, packet, out),
            Verdict::Hold => self.hold(origin, packet, out),
            Verdict::Drop(reason, error) => {
                if let (Origin::Wire(interface), Some((error, mtu)), Some(read)) = (origin, error, read) {
                    self.originate(interface, packet.data(), read, error, mtu, now, pool, out);
                }
                self.drop(packet, reason, out)
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
        let (new, held) = self.neighbours.hold(self.sought, Held { packet, ingress });
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

    // --- IPv4 ---------------------------------------------------------------------------------------------------------

    fn ipv4(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        prepared: &Prepared,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        if let Some(reason) = martian4(view) {
            return reason.into();
        }
        match prepared.target {
            Some(Target::Local(interface)) => {
                // Our address on the inside is as closed to strangers as the hosts there.
                let (from, to) = (self.zone(ingress), self.zone(interface));
                let closed = from != to && self.plan.policy.is_closed(from, to, view.destination);
                return if closed { Drop::Unsolicited.into() } else { Verdict::Punt };
            }
            Some(Target::Broadcast) => return Drop::Multicast.into(),
            // A frame to all stations is not forwarded (RFC 1812 §5.3.4).
            _ if packet.data().first().is_some_and(|byte| byte & 1 != 0) => return Drop::Multicast.into(),
            _ => {}
        }
        match prepared.target.and_then(|target| target.external_id(view.destination)) {
            Some(id) => self.inbound(ingress, packet, view, id, prepared.flow, now, out),
            None => self.outbound(ingress, packet, view, prepared, now, out),
        }
    }

    /// From inside, or between networks that nothing is translated between.
    fn outbound(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        prepared: &Prepared,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        let zone = self.zone(ingress);
        if let Some(flow) = prepared.flow {
            if let Some(id) = self.live_session(zone, &flow, now) {
                return self.hit(ingress, packet, view, &flow, id, now, out);
            }
        } else if view.transport == Transport::IcmpError && self.plan.policy.is_inside(zone) {
            match self.error_from_inside(packet, view, now, out) {
                Ok(verdict) => return verdict,
                // About a flow that is not translated: routed like any packet.
                Err(_) if self.is_unruled(zone, view, prepared.target) => {}
                Err(reason) => return reason.into(),
            }
        }
        let egress_zone = self.egress_zone(prepared.target);
        let rule = egress_zone.and_then(|to| self.rule_for(zone, to, view));
        match (rule, prepared.flow) {
            (Some(rule), Some(flow)) => self.open_outbound(ingress, packet, view, &flow, rule, now, out),
            (Some(rule), None) => {
                self.story.rule = rule.reference();
                untranslatable(view).into()
            }
            (None, _) => {
                if egress_zone.is_some_and(|to| self.plan.policy.is_closed(zone, to, view.destination)) {
                    return Drop::Unsolicited.into();
                }
                self.route4(ingress, packet, view, out)
            }
        }
    }

    /// Toward an external address.
    #[allow(clippy::too_many_arguments)]
    fn inbound(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        external: u32,
        flow: Option<Flow>,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        if let Some(flow) = flow {
            if let Some(id) = self.live_session(self.zone(ingress), &flow, now) {
                return self.hit(ingress, packet, view, &flow, id, now, out);
            }
            match self.open_inbound(ingress, packet, view, external, &flow, now, out) {
                Verdict::Drop(Drop::Unsolicited, _) => {}
                verdict => return verdict,
            }
        } else if view.transport == Transport::IcmpError {
            return match self.error_from_outside(ingress, packet, view, external, now, out) {
                Ok(verdict) => verdict,
                Err(reason) => reason.into(),
            };
        }
        // Nothing leads inside.
        let Some(entry) = self.plan.externals.get(external as usize) else { return Drop::Unsolicited.into() };
        let from_inside = self.plan.policy.is_inside(self.zone(ingress));
        let is_icmp = view.protocol == parse::protocol::ICMP;
        let ping = entry.answer_echo && view.transport == Transport::IcmpQuery(true);
        // An address that is also our own is pinged like one; but strangers get no answer from its ports (RFC 5382 REQ-4).
        if (entry.local && (from_inside || is_icmp)) || ping {
            Verdict::Punt
        } else if from_inside {
            Drop::Hairpin.into()
        } else {
            match view.transport {
                _ if view.fragment != Fragment::Whole => Drop::Fragment,
                Transport::IcmpOther => Drop::IcmpType,
                Transport::Other => Drop::Protocol,
                _ => Drop::Unsolicited,
            }
            .into()
        }
    }

    /// A packet of a known session: no rule is consulted.
    #[allow(clippy::too_many_arguments)]
    fn hit(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        flow: &Flow,
        id: u32,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        let Some(session) = self.shards.get(flow.shard.index()).and_then(|shard| shard.session(id)) else {
            return Drop::Unsolicited.into();
        };
        let (to, addresses, transport) = match flow.direction {
            Direction::Outbound => (session.outside, session.address_delta, session.transport_delta),
            Direction::Inbound => {
                (session.inside.reversed(), session.address_delta.inverse(), session.transport_delta.inverse())
            }
        };
        self.story.rule = session.rule;
        self.story.session = SessionStep::Hit;
        let egress = match self.forward4(view, to.destination, out) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        self.advance(packet.data(), view, flow, id, now);
        self.translate(ingress, packet, view, flow.direction, &to, addresses, transport, egress)
    }

    /// The session is used: its state and its deadline move on.
    fn advance(&mut self, frame: &[u8], view: &View4, flow: &Flow, id: u32, now: Time) {
        let timers = &self.plan.spec.timers;
        let Some(shard) = self.shards.get_mut(flow.shard.index()) else { return };
        let Some(session) = shard.session_mut(id) else { return };
        let outbound = flow.direction == Direction::Outbound;
        let (class, restart) = match flow.proto {
            Proto::Tcp => {
                let segment = Segment::read(frame.get(view.l4..view.end).unwrap_or(&[]));
                if session.tcp.is_reopened_by(&segment) {
                    session.opened_inside = outbound;
                    self.counters.session_replacements.add(1);
                    self.counters.session_creations.add(1);
                }
                let timer = session.tcp.pass(outbound == session.opened_inside, &segment);
                let class = match session.tcp.state() {
                    State::Init => SessionClass::TcpOpening,
                    State::Established => SessionClass::TcpEstablished,
                    State::ClientFin | State::ServerFin | State::BothFin | State::Transitory => {
                        SessionClass::TcpClosing
                    }
                };
                let restart = match timer {
                    Timer::Keep => None,
                    Timer::Opening => Some(timers.tcp_opening),
                    Timer::Established => Some(timers.tcp_established),
                    Timer::Closing => Some(timers.tcp_closing),
                };
                (class, restart)
            }
            Proto::Udp | Proto::Icmp => {
                let (class, mapping, inbound_refresh) = (session.class, session.mapping, session.inbound_refresh);
                let idle = idle_time(timers, class, session.inside.destination_port);
                if outbound && !inbound_refresh {
                    shard.keep_mapping(mapping, true, now + idle);
                }
                (class, (outbound || inbound_refresh).then_some(idle))
            }
        };
        shard.refresh(&self.counters, id, class, restart.map(|idle| now + idle));
    }

    /// The session of a flow, if it has one that has not ended.
    ///
    /// A packet from another zone than the session's own side is none of its packets, whatever its addresses say.
    fn live_session(&mut self, zone: ZoneId, flow: &Flow, now: Time) -> Option<u32> {
        let (shard, mut context) = self.shard_at(flow.shard, now);
        let id = shard.find(flow.hash, flow.direction, &flow.tuple, flow.proto, flow.guess)?;
        let session = shard.session(id)?;
        if session.deadline > now {
            let side = match flow.direction {
                Direction::Outbound => session.inside_zone,
                Direction::Inbound => session.outside_zone,
            };
            return (side == zone).then_some(id);
        }
        context.counters.session_timeouts.add(1);
        shard.remove_session(&mut context, id);
        None
    }

    // --- A new session ------------------------------------------------------------------------------------------------

    /// What translates a flow from inside: the static entry that its source has, or a rule.
    fn rule_for(&self, from: ZoneId, to: ZoneId, view: &View4) -> Option<Rule> {
        let policy = &self.plan.policy;
        let proto = Proto::from_ip(view.protocol);
        let fits = |entry: &StaticEntry| entry.inside_zone == from && entry.outside_zone == to;
        match policy.static_out(view.source, proto, view.source_port).filter(fits) {
            Some(entry) => Some(Rule::Static(entry)),
            None => policy.rule(from, to, view.source, view.destination).map(Rule::Nat44),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn open_outbound(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        flow: &Flow,
        rule: Rule,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        self.story.rule = rule.reference();
        if !may_open(view) {
            return if view.protocol == parse::protocol::TCP { Drop::TcpNotSyn } else { Drop::Unsolicited }.into();
        }
        let egress = match self.forward4(view, view.destination, out) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        let (external, port, mapping, filtering, inbound_refresh) = match rule {
            Rule::Static(entry) => (entry.external, entry.external_port, NONE, entry.filtering, true),
            Rule::Nat44(index) => {
                let mapping = match self.mapping(flow, index, now) {
                    Ok(mapping) => mapping,
                    Err(reason) => {
                        let cause = if reason == Drop::NoPort { MappingFailure::Ports } else { MappingFailure::Memory };
                        self.counters.mapping_failures[cause as usize].add(1);
                        return Verdict::Drop(reason, Some((IcmpError::HostUnreachable4, 0)));
                    }
                };
                let Some(&made) = self.shards.get(flow.shard.index()).and_then(|shard| shard.mapping(mapping)) else {
                    return Drop::NoPort.into();
                };
                let external = self.plan.externals.get(made.external as usize).map_or(0, |external| external.address);
                let refresh = self.plan.spec.nat44.get(usize::from(index)).is_none_or(|rule| rule.inbound_refresh);
                (external, made.external_port, mapping, made.filtering, refresh)
            }
        };
        let outside = outside_tuple(flow.tuple, external, port);
        let rule = rule.reference();
        let inside = flow.tuple;
        let zones = (self.zone(ingress), self.zone(egress.interface));
        let new = NewSession { inside, outside, zones, mapping, rule, filtering, inbound_refresh, opened_inside: true };
        match self.open(packet.data(), view, flow, new, now) {
            Ok((addresses, transport)) => {
                self.translate(ingress, packet, view, Direction::Outbound, &outside, addresses, transport, egress)
            }
            Err(reason) => Verdict::Drop(reason, Some((IcmpError::HostUnreachable4, 0))),
        }
    }

    /// The mapping of an inside endpoint: the one that it has (RFC 4787 REQ-1), or a new one.
    fn mapping(&mut self, flow: &Flow, rule: u16, now: Time) -> Result<u32, Drop> {
        let pool = self.plan.spec.nat44.get(usize::from(rule)).map_or(0, |rule| rule.pool.0);
        let (inside, port, proto) = (flow.tuple.source, flow.tuple.source_port, flow.proto);
        let (shard, mut context) = self.shard_at(flow.shard, now);
        match shard.mapping_of_inside(context.secret, inside, port, proto, pool) {
            Some(mapping) => Ok(mapping),
            None => shard.add_mapping(&mut context, rule, inside, port, proto),
        }
    }

    /// A packet from outside without a session: through a static entry, or a mapping whose filtering admits it.
    #[allow(clippy::too_many_arguments)]
    fn open_inbound(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        external: u32,
        flow: &Flow,
        now: Time,
        out: &mut Output<P>,
    ) -> Verdict {
        let plan = &*self.plan;
        let zone = self.zone(ingress);
        let (port, remote) = (flow.tuple.source_port, flow.tuple.destination);
        let Some(entry) = plan.externals.get(external as usize) else { return Drop::Unsolicited.into() };
        let static_entry = match self.leases.owner(external, port) {
            Owner::Static => plan.policy.static_in(entry.address, entry.static_nat, flow.proto, port),
            Owner::Free | Owner::Shard(_) => None,
        };
        let (inside, inside_port, mapping, rule, filtering, refresh, from) = if let Some(entry) = static_entry {
            (entry.inside, entry.inside_port, NONE, entry.rule, entry.filtering, true, entry.outside_zone)
        } else {
            let Some(shard) = self.shards.get(flow.shard.index()) else { return Drop::Unsolicited.into() };
            let found = shard.mapping_of_external(&self.secret, external, port, flow.proto);
            let Some((id, mapping)) = found.and_then(|id| shard.mapping(id).map(|mapping| (id, *mapping))) else {
                return Drop::Unsolicited.into();
            };
            let Some(rule) = plan.spec.nat44.get(usize::from(mapping.rule)) else { return Drop::Unsolicited.into() };
            let reference = RuleRef::Nat44(mapping.rule);
            (mapping.inside, mapping.inside_port, id, reference, mapping.filtering, rule.inbound_refresh, rule.to)
        };
        self.story.rule = rule;
        if zone != from {
            return if plan.policy.is_inside(zone) { Drop::Hairpin } else { Drop::Unsolicited }.into();
        }
        let (shard, context) = self.shard_at(flow.shard, now);
        let permission = || shard.permission(context.secret, inside, inside_port, flow.proto, remote);
        let admitted = match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => permission().is_some(),
            Filtering::AddressPortDependent => false,
        };
        if !admitted {
            return Drop::Filtered.into();
        }
        if !may_open(view) {
            return if view.protocol == parse::protocol::TCP { Drop::TcpNotSyn } else { Drop::Filtered }.into();
        }
        let egress = match self.forward4(view, inside, out) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        let outside = flow.tuple;
        let tuple = Tuple4 { source: inside, source_port: inside_port, ..outside };
        let new = NewSession {
            inside: tuple,
            outside,
            zones: (self.zone(egress.interface), zone),
            mapping,
            rule,
            filtering,
            inbound_refresh: refresh,
            opened_inside: false,
        };
        match self.open(packet.data(), view, flow, new, now) {
            Ok((addresses, transport)) => {
                let (addresses, transport) = (addresses.inverse(), transport.inverse());
                let to = tuple.reversed();
                self.translate(ingress, packet, view, Direction::Inbound, &to, addresses, transport, egress)
            }
            Err(reason) => reason.into(),
        }
    }

    /// Adds the session. Without room for it the mapping, if it was made for it, goes too.
    fn open(
        &mut self,
        frame: &[u8],
        view: &View4,
        flow: &Flow,
        new: NewSession,
        now: Time,
    ) -> Result<(Delta, Delta), Drop> {
        let generation = self.plan.spec.generation;
        let (class, tcp) = match flow.proto {
            Proto::Tcp => {
                let segment = Segment::read(frame.get(view.l4..view.end).unwrap_or(&[]));
                (SessionClass::TcpOpening, Tcp::open(&segment))
            }
            Proto::Udp => (SessionClass::Udp, Tcp::default()),
            Proto::Icmp => (SessionClass::Icmp, Tcp::default()),
        };
        let (address_delta, transport_delta) = napt::deltas(flow.proto, &new.inside, &new.outside);
        let idle = idle_time(&self.plan.spec.timers, class, new.inside.destination_port);
        let inside_hash = self.secret.tuple_hash(&new.inside, flow.proto);
        let (shard, mut context) = self.shard_at(flow.shard, now);
        // One host may have two external endpoints, and one peer may use both: the inside could not tell them apart.
        if let Some(id) = shard.find(inside_hash, Direction::Outbound, &new.inside, flow.proto, None) {
            if shard.session(id).is_some_and(|session| session.deadline > now) {
                shard.abandon_mapping(&mut context, new.mapping);
                return Err(Drop::FlowConflict);
            }
            context.counters.session_timeouts.add(1);
            shard.remove_session(&mut context, id);
        }
        let mut deadline = now + idle;
        if !new.inbound_refresh && flow.proto != Proto::Tcp {
            deadline = shard.keep_mapping(new.mapping, new.opened_inside, deadline);
        }
        let session = Session {
            inside: new.inside,
            outside: new.outside,
            deadline,
            generation,
            mapping: new.mapping,
            rule: new.rule,
            address_delta,
            transport_delta,
            proto: flow.proto,
            class,
            opened_inside: new.opened_inside,
            permission: NONE,
            inside_zone: new.zones.0,
            outside_zone: new.zones.1,
            inbound_refresh: new.inbound_refresh,
            tcp,
            link: wheel::Link::default(),
        };
        if let Err(reason) = shard.add_session(&mut context, session, new.filtering) {
            shard.abandon_mapping(&mut context, new.mapping);
            return Err(reason);
        }
        self.story.session = SessionStep::New;
        Ok((address_delta, transport_delta))
    }

    // --- ICMP errors about translated flows (RFC 5508 §4) -------------------------------------------------------------

    /// From outside: the quoted packet is one that we sent, from an external address.
    fn error_from_outside(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        external: u32,
        now: Time,
        out: &mut Output<P>,
    ) -> Result<Verdict, Drop> {
        if view.fragment != Fragment::Whole {
            return Err(Drop::Fragment);
        }
        let quote = icmp::quote(packet.data(), view)?;
        let sent = quote.tuple;
        // The error comes to the address that the packet was sent from (RFC 5508 REQ-4).
        if sent.source != view.destination {
            return Err(Drop::IcmpErrorNoSession);
        }
        let shard_id = self.owner(external, quote.proto, sent.source_port).ok_or(Drop::IcmpErrorNoSession)?;
        let hash = self.secret.tuple_hash(&sent, quote.proto);
        let plan = &*self.plan;
        let shard = self.shards.get(shard_id.index()).ok_or(Drop::IcmpErrorNoSession)?;
        let session = shard.find(hash, Direction::Inbound, &sent, quote.proto, None).and_then(|id| shard.session(id));
        let (inside, rule) = if let Some(session) = session.filter(|session| session.deadline > now) {
            (session.inside, session.rule)
        } else if let Some(mapping) = shard
            .mapping_of_external(&self.secret, external, sent.source_port, quote.proto)
            .and_then(|id| shard.mapping(id))
        {
            // No session with that remote any more, but the mapping still says who sent it.
            let inside = Tuple4 { source: mapping.inside, source_port: mapping.inside_port, ..sent };
            (inside, RuleRef::Nat44(mapping.rule))
        } else {
            let entry = plan.externals.get(external as usize).ok_or(Drop::IcmpErrorNoSession)?;
            let entry = plan.policy.static_in(entry.address, entry.static_nat, quote.proto, sent.source_port);
            let entry = entry.ok_or(Drop::IcmpErrorNoSession)?;
            (Tuple4 { source: entry.inside, source_port: entry.inside_port, ..sent }, entry.rule)
        };
        let zone = self.zone(ingress);
        if plan.outside_zone(rule) != Some(zone) {
            return Err(if plan.policy.is_inside(zone) { Drop::Hairpin } else { Drop::IcmpErrorNoSession });
        }
        self.story = Story { shard: Some(shard_id.0), rule, session: SessionStep::Quoted, ..self.story };
        let egress = match self.forward4(view, inside.source, out) {
            Ok(egress) => egress,
            Err(verdict) => return Ok(verdict),
        };
        let outer = Tuple4 { source: view.source, destination: inside.source, ..Tuple4::default() };
        icmp::rewrite(packet.data_mut(), view, &quote, &outer, &inside);
        packet.truncate(view.end);
        self.counters.nat44[Direction::Inbound as usize].add(1);
        self.tell_after(view, &outer);
        Ok(Verdict::Transmit(egress))
    }

    /// From inside: the quoted packet is one that we delivered, to an inside address.
    fn error_from_inside(
        &mut self,
        packet: &mut P,
        view: &View4,
        now: Time,
        out: &mut Output<P>,
    ) -> Result<Verdict, Drop> {
        if view.fragment != Fragment::Whole {
            return Err(Drop::Fragment);
        }
        let quote = icmp::quote(packet.data(), view)?;
        // The error goes back to where the packet came from, and nowhere else.
        if quote.tuple.source != view.destination {
            return Err(Drop::IcmpErrorNoSession);
        }
        // An outbound packet of the flow is the delivered one, turned round.
        let key = quote.tuple.reversed();
        let shard_id = shard_of4(key.source);
        let hash = self.secret.tuple_hash(&key, quote.proto);
        let shard = self.shards.get(shard_id.index()).ok_or(Drop::IcmpErrorNoSession)?;
        let session = shard.find(hash, Direction::Outbound, &key, quote.proto, None).and_then(|id| shard.session(id));
        let session = *session.filter(|session| session.deadline > now).ok_or(Drop::IcmpErrorNoSession)?;
        // The outer source: a router with an address of its own outside keeps that, any other borrows the session's.
        let own = self.plan.policy.whole_out(view.source).filter(|it| it.outside_zone == session.outside_zone);
        let source = own.map_or(session.outside.source, |entry| entry.external);
        self.story = Story { shard: Some(shard_id.0), rule: session.rule, session: SessionStep::Quoted, ..self.story };
        let egress = match self.forward4(view, view.destination, out) {
            Ok(egress) => egress,
            Err(verdict) => return Ok(verdict),
        };
        let outer = Tuple4 { source, destination: view.destination, ..Tuple4::default() };
        icmp::rewrite(packet.data_mut(), view, &quote, &outer, &session.outside.reversed());
        packet.truncate(view.end);
        self.counters.nat44[Direction::Outbound as usize].add(1);
        self.tell_after(view, &outer);
        Ok(Verdict::Transmit(egress))
    }

    // --- IPv6 ---------------------------------------------------------------------------------------------------------

    fn ipv6(&mut self, ingress: InterfaceId, packet: &mut P, view: &View6, out: &mut Output<P>) -> Verdict {
        const LINK_LOCAL: u128 = 0xfe80 << 112;
        let is_link_local = |address: u128| address >> 118 == LINK_LOCAL >> 118;
        let icmp = view.protocol == parse::protocol::ICMPV6;
        let Some(interface) = self.plan.interface(ingress) else { return Drop::UnknownVlan.into() };
        if view.source >> 120 == 0xff || view.source == 1 {
            return Drop::BadSource.into();
        }
        if view.destination >> 120 == 0xff {
            // Scope 1 or 2: the link's own business (RFC 4291 §2.7).
            let on_link = (view.destination >> 112) & 0xf <= 2;
            return if on_link && icmp { Verdict::Punt } else { Drop::Multicast.into() };
        }
        let target = self.plan.target6(view.destination);
        let own = matches!(target, Some(Target::Local(_))) || view.destination == interface.mac.link_local().to_bits();
        if own {
            return Verdict::Punt;
        }
        if is_link_local(view.destination) || is_link_local(view.source) {
            return Drop::LinkLocal.into();
        }
        if view.source == 0 {
            return Drop::BadSource.into();
        }
        if view.destination <= 1 {
            return Drop::BadDestination.into();
        }
        if packet.data().first().is_some_and(|byte| byte & 1 != 0) {
            return Drop::Multicast.into();
        }
        if view.hop_limit <= 1 {
            return Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded6, 0)));
        }
        let Some(next_hop) = next_hop_of(target, |interface| Neighbour::ipv6(interface, view.destination)) else {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NoRoute6, 0)));
        };
        let egress_id = next_hop.interface();
        let Some(egress) = self.plan.interface(egress_id) else { return Drop::NoRoute.into() };
        if view.end - view.l3 > usize::from(egress.mtu) {
            return Verdict::Drop(Drop::TooBig, Some((IcmpError::PacketTooBig6, egress.mtu)));
        }
        let clamp = mss::limit(self.plan.interface(ingress), egress, 60);
        let adjacency = match self.resolve(&next_hop, out) {
            Ok(adjacency) => adjacency,
            Err(verdict) => return verdict,
        };
        packet.truncate(view.end);
        let frame = packet.data_mut();
        if let Some(hop_limit) = frame.get_mut(view.l3 + 7) {
            *hop_limit -= 1;
        }
        if let Transport::Tcp(_) = view.transport
            && let Some(limit) = clamp
            && let Some(tcp) = frame.get_mut(view.l4..view.end)
        {
            mss::clamp(tcp, limit);
        }
        self.counters.routed[1].add(1);
        Verdict::Transmit(adjacency)
    }

    // --- Routing ------------------------------------------------------------------------------------------------------

    fn zone(&self, interface: InterfaceId) -> ZoneId {
        self.plan.interface(interface).map_or(ZoneId(u8::MAX), |interface| interface.zone)
    }

    fn egress_zone(&self, target: Option<Target>) -> Option<ZoneId> {
        match target? {
            Target::Via(router) => Some(self.zone(router.interface())),
            Target::OnLink(id) => Some(self.zone(id)),
            _ => None,
        }
    }

    /// Whether no rule covers a packet from inside.
    fn is_unruled(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> bool {
        self.egress_zone(target).is_none_or(|to| self.rule_for(zone, to, view).is_none())
    }

    /// The way of a packet toward `destination` (host order), with everything checked that can stop it.
    fn forward4(&mut self, view: &View4, destination: u32, out: &mut Output<P>) -> Result<Adjacency, Verdict> {
        if view.ttl <= 1 {
            return Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded4, 0))));
        }
        let target = self.plan.target4(destination);
        let Some(next_hop) = next_hop_of(target, |interface| Neighbour::ipv4(interface, destination)) else {
            let error = match target {
                None => IcmpError::NetUnreachable4,
                Some(_) => IcmpError::HostUnreachable4,
            };
            return Err(Verdict::Drop(Drop::NoRoute, Some((error, 0))));
        };
        let mtu = self.plan.interface(next_hop.interface()).map_or(0, |interface| interface.mtu);
        if view.end - view.l3 > usize::from(mtu) {
            return Err(if view.dont_fragment {
                Verdict::Drop(Drop::TooBig, Some((IcmpError::FragmentationNeeded4, mtu)))
            } else {
                Drop::FragmentationNeeded.into()
            });
        }
        self.resolve(&next_hop, out)
    }

    /// The neighbour's address, or the packet waits for it.
    #[inline(always)]
    fn resolve(&mut self, neighbour: &Neighbour, out: &mut Output<P>) -> Result<Adjacency, Verdict> {
        match self.neighbours.lookup(neighbour) {
            Lookup::Known(adjacency) => Ok(adjacency),
            Lookup::Stale(adjacency) => {
                let (interface, address) = (neighbour.interface(), neighbour.address());
                out.events.push_back(FromWorker::NeighbourUsed { interface, address });
                Ok(adjacency)
            }
            Lookup::Unknown => {
                self.sought = *neighbour;
                Err(Verdict::Hold)
            }
        }
    }

    /// Untranslated.
    fn route4(&mut self, ingress: InterfaceId, packet: &mut P, view: &View4, out: &mut Output<P>) -> Verdict {
        let egress = match self.forward4(view, view.destination, out) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        packet.truncate(view.end);
        napt::decrement_ttl(packet.data_mut(), view);
        self.clamp_mss(ingress, packet, view, egress.interface);
        self.counters.routed[0].add(1);
        Verdict::Transmit(egress)
    }

    #[allow(clippy::too_many_arguments)]
    fn translate(
        &mut self,
        ingress: InterfaceId,
        packet: &mut P,
        view: &View4,
        direction: Direction,
        to: &Tuple4,
        addresses: Delta,
        transport: Delta,
        egress: Adjacency,
    ) -> Verdict {
        packet.truncate(view.end);
        napt::rewrite(packet.data_mut(), view, to, addresses, transport);
        self.clamp_mss(ingress, packet, view, egress.interface);
        self.counters.nat44[direction as usize].add(1);
        self.tell_after(view, to);
        Verdict::Transmit(egress)
    }

    fn tell_after(&mut self, view: &View4, to: &Tuple4) {
        if self.traces.is_some() {
            self.story.after = Some(endpoints4(view.protocol, to));
        }
    }

    fn clamp_mss(&self, ingress: InterfaceId, packet: &mut P, view: &View4, egress: InterfaceId) {
        if let Transport::Tcp(_) = view.transport
            && let Some(egress) = self.plan.interface(egress)
            && let Some(limit) = mss::limit(self.plan.interface(ingress), egress, 40)
            && let Some(tcp) = packet.data_mut().get_mut(view.l4..view.end)
        {
            mss::clamp(tcp, limit);
        }
    }

    /// Writes the link-layer header of a packet whose `old` bytes of it are still there.
    #[inline]
    fn address_frame(&self, packet: &mut P, to: Adjacency, kind: u16, old: usize) -> bool {
        let Some(interface) = self.plan.interface(to.interface) else { return false };
        let new = if interface.vlan.is_some() { parse::ETHERNET + parse::TAG } else { parse::ETHERNET };
        let fits = match new.cmp(&old) {
            Ordering::Equal => true,
            Ordering::Greater => packet.prepend(new - old),
            Ordering::Less => packet.trim_front(old - new),
        };
        let Some((header, rest)) = packet.data_mut().split_first_chunk_mut::<{ parse::ETHERNET }>() else {
            return false;
        };
        if !fits {
            return false;
        }
        header[..6].copy_from_slice(&to.mac.0);
        header[6..12].copy_from_slice(&interface.mac.0);
        if let Some(vlan) = interface.vlan {
            put16(header, 12, ethertype::VLAN);
            put16(rest, 0, vlan);
            put16(rest, 2, kind);
        } else {
            put16(header, 12, kind);
        }
        true
    }

    // --- What the gateway itself sends --------------------------------------------------------------------------------

    /// Sends an ICMP error about a packet, if that may be answered at all.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    fn originate<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        frame: &[u8],
        read: &Read,
        error: IcmpError,
        mtu: u16,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let policy = &self.plan.spec.icmp;
        let allowed = match read {
            Read::Four(view) => error::may_answer4(frame, view),
            Read::Six(view) => error::may_answer6(frame, view, error),
            Read::Arp => false,
        };
        let Some(source) = error_source(&self.plan, ingress, matches!(read, Read::Six(_))) else { return };
        if !allowed || policy.silent.contains(&ingress) {
            return;
        }
        if !self.errors.take(policy.rate, policy.burst, now) {
            self.counters.icmp_rate_limited.add(1);
            return;
        }
        let written = pool.alloc().and_then(|mut packet| {
            let written = match (read, source) {
                (Read::Four(view), IpAddr::V4(source)) => {
                    let original = frame.get(view.l3..view.end).unwrap_or(&[]);
                    error::write4(&mut packet, error, mtu, source.to_bits(), original)
                }
                (Read::Six(view), IpAddr::V6(source)) => {
                    let original = frame.get(view.l3..view.end).unwrap_or(&[]);
                    error::write6(&mut packet, error, mtu, source.to_bits(), original)
                }
                _ => false,
            };
            written.then_some(packet)
        });
        let Some(packet) = written else {
            self.counters.originate_failures.add(1);
            return;
        };
        self.counters.originated.add(1);
        self.counters.icmp_errors[error as usize].add(1);
        self.story.error = Some(error);
        self.send_own(packet, now, pool, out);
    }

    /// Routes a packet of the gateway's own: an IP packet behind an Ethernet header that is still empty.
    fn send_own<L: PacketPool<Packet = P>>(&mut self, packet: P, now: Time, pool: &mut L, out: &mut Output<P>) {
        let read = match packet.data().get(parse::ETHERNET).map(|byte| byte >> 4) {
            Some(4) => parse::ipv4(packet.data(), parse::ETHERNET).map(Read::Four),
            Some(6) => parse::ipv6(packet.data(), parse::ETHERNET).map(Read::Six),
            _ => Err(Drop::HostPacket),
        };
        let Ok(read) = read else {
            self.drop(packet, Drop::HostPacket, out);
            return;
        };
        let next_hop = match &read {
            Read::Four(view) => {
                next_hop_of(self.plan.target4(view.destination), |id| Neighbour::ipv4(id, view.destination))
            }
            Read::Six(view) => {
                next_hop_of(self.plan.target6(view.destination), |id| Neighbour::ipv6(id, view.destination))
            }
            Read::Arp => None,
        };
        let verdict = match next_hop {
            None => Drop::NoRoute.into(),
            Some(next_hop) => match self.resolve(&next_hop, out) {
                Ok(adjacency) => Verdict::Transmit(adjacency),
                Err(hold) => hold,
            },
        };
        self.dispose(Origin::Own, packet, verdict, Some(&read), now, pool, out);
    }

    fn host_frame(&mut self, interface: InterfaceId, mut packet: P, out: &mut Output<P>) {
        let mut to = Adjacency { mac: MacAddr::default(), interface };
        to.mac.0.copy_from_slice(&packet.data()[..6]);
        let kind = parse::get16(packet.data(), 12);
        if self.address_frame(&mut packet, to, kind, parse::ETHERNET) {
            out.transmit.push((interface, packet));
        } else {
            self.drop(packet, Drop::HostPacket, out);
        }
    }

    /// A neighbour changed: what waited for it goes, or is dropped and answered.
    fn neighbour<L: PacketPool<Packet = P>>(
        &mut self,
        update: &NeighbourUpdate,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let mut waiting: Waiting = self.neighbours.apply(update);
        while let Some(Held { packet, ingress }) = self.neighbours.release(&mut waiting) {
            self.counters.held.sub(1);
            match (update.state, ingress) {
                (NeighbourState::Failed, Some(ingress)) => self.fail(ingress, packet, now, pool, out),
                (NeighbourState::Failed, None) => {
                    self.drop(packet, Drop::NeighbourFailed, out);
                }
                (_, Some(ingress)) => self.again(ingress, packet, now, pool, out),
                (_, None) => self.send_own(packet, now, pool, out),
            }
        }
    }

    /// Processes a packet that has waited, from the start.
    fn again<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        mut packet: P,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let Some(port) = self.plan.interface(ingress).map(|interface| interface.port) else {
            self.drop(packet, Drop::UnknownVlan, out);
            return;
        };
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        self.begin_story(&prepared);
        let verdict = match &prepared.read {
            Ok(Read::Four(view)) => self.ipv4(ingress, &mut packet, view, &prepared, now, out),
            Ok(Read::Six(view)) => self.ipv6(ingress, &mut packet, view, out),
            Ok(Read::Arp) => Verdict::Punt,
            Err(reason) => (*reason).into(),
        };
        let read = prepared.read.as_ref().ok();
        let disposal = self.dispose(Origin::Wire(ingress), packet, verdict, read, now, pool, out);
        self.tell(read, disposal, true);
    }

    /// The neighbour that a packet waited for does not answer.
    fn fail<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        packet: P,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let port = self.plan.interface(ingress).map_or(PortId(u16::MAX), |interface| interface.port);
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        let read = prepared.read.as_ref().ok();
        let error = match read {
            Some(Read::Six(_)) => IcmpError::AddressUnreachable6,
            _ => IcmpError::HostUnreachable4,
        };
        let verdict = Verdict::Drop(Drop::NeighbourFailed, Some((error, 0)));
        self.story = Story::default();
        let disposal = self.dispose(Origin::Wire(ingress), packet, verdict, read, now, pool, out);
        self.tell(read, disposal, true);
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
        };
        (&mut self.shards[id.index()], context)
    }
}

/// A session to be made.
#[derive(Clone, Copy, Debug)]
struct NewSession {
    inside: Tuple4,
    outside: Tuple4,
    /// Inside and outside.
    zones: (ZoneId, ZoneId),
    mapping: u32,
    rule: RuleRef,
    filtering: Filtering,
    inbound_refresh: bool,
    opened_inside: bool,
}

/// What translates a flow from inside.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Static(StaticEntry),
    /// A NAT44 rule, by index.
    Nat44(u16),
}

impl Rule {
    fn reference(&self) -> RuleRef {
        match self {
            Rule::Static(entry) => entry.rule,
            Rule::Nat44(index) => RuleRef::Nat44(*index),
        }
    }
}

fn tuple_of(view: &View4) -> Tuple4 {
    Tuple4 {
        source: view.source,
        destination: view.destination,
        source_port: view.source_port,
        destination_port: view.destination_port,
    }
}

/// An outbound tuple as it looks outside. In a reply to a query from outside the inside end has no identifier: it stays 0.
fn outside_tuple(inside: Tuple4, external: u32, port: u16) -> Tuple4 {
    Tuple4 { source: external, source_port: port, ..inside }
}

/// Whether a packet may be the first of a session: of TCP a SYN alone, of an ICMP query the request.
fn may_open(view: &View4) -> bool {
    match view.transport {
        Transport::Tcp(flags) => tcp::opens(flags),
        Transport::IcmpQuery(request) => request,
        Transport::Udp => true,
        Transport::IcmpError | Transport::IcmpOther | Transport::Other => false,
    }
}

/// Why a packet that a rule covers can't be translated.
fn untranslatable(view: &View4) -> Drop {
    match view.transport {
        _ if view.fragment != Fragment::Whole => Drop::Fragment,
        Transport::IcmpOther => Drop::IcmpType,
        Transport::IcmpError => Drop::IcmpErrorNoSession,
        _ => Drop::Protocol,
    }
}

/// Addresses that never cross a router (RFC 1812 §5.3.7, RFC 3927 §7).
fn martian4(view: &View4) -> Option<Drop> {
    let link_local = |address: u32| address >> 16 == 0xa9fe;
    match (view.source >> 24, view.destination >> 24) {
        (0 | 127 | 224.., _) => Some(Drop::BadSource),
        (_, 0 | 127) => Some(Drop::BadDestination),
        (_, 224..=239) => Some(Drop::Multicast),
        (_, 240..) if view.destination == u32::MAX => Some(Drop::Multicast),
        (_, 240..) => Some(Drop::BadDestination),
        _ if link_local(view.source) || link_local(view.destination) => Some(Drop::LinkLocal),
        _ => None,
    }
}

/// The neighbour that a target leads to; `on_link` is the destination as a neighbour on an interface.
#[inline]
fn next_hop_of(target: Option<Target>, on_link: impl FnOnce(InterfaceId) -> Neighbour) -> Option<Neighbour> {
    match target? {
        Target::Via(router) => Some(router),
        Target::OnLink(interface) => Some(on_link(interface)),
        Target::Local(_) | Target::External { .. } | Target::Broadcast | Target::Unreachable => None,
    }
}

/// The source of an ICMP error: the first address of the interface that the packet came in by, else of any.
fn error_source(plan: &Plan, ingress: InterfaceId, six: bool) -> Option<IpAddr> {
    let first = |interface: &crate::plan::InterfaceSpec| {
        interface.addresses.iter().map(|prefix| prefix.address).find(|address| address.is_ipv6() == six)
    };
    plan.interface(ingress).and_then(first).or_else(|| plan.spec.interfaces.iter().find_map(first))
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

fn endpoints(read: &Read) -> Option<Endpoints> {
    match read {
        Read::Four(view) => Some(endpoints4(view.protocol, &tuple_of(view))),
        Read::Six(view) => Some(Endpoints {
            protocol: view.protocol,
            source: IpAddr::V6(Ipv6Addr::from_bits(view.source)),
            source_port: view.source_port,
            destination: IpAddr::V6(Ipv6Addr::from_bits(view.destination)),
            destination_port: view.destination_port,
        }),
        Read::Arp => None,
    }
}

/// Takes the VLAN tag off a frame for the host.
fn untag<P: Packet>(packet: &mut P) {
    let tagged = parse::link(packet.data()).is_ok_and(|link| link.len > parse::ETHERNET);
    if tagged {
        packet.data_mut().copy_within(..12, parse::TAG);
        let _ = packet.trim_front(parse::TAG);
    }
}

/// A packet of the pool for the host: `empty` bytes for the Ethernet header, then `content`.
fn own_packet<L: PacketPool>(pool: &mut L, empty: usize, content: &[u8]) -> Result<L::Packet, Drop> {
    let mut packet = pool.alloc().ok_or(Drop::PoolEmpty)?;
    let room = packet.append(empty + content.len());
    let (header, rest) = packet.data_mut().split_at_mut_checked(empty).filter(|_| room).ok_or(Drop::HostPacket)?;
    header.fill(0);
    rest.copy_from_slice(content);
    Ok(packet)
}
