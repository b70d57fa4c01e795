//! The short way: packets of known sessions, and packets that are only routed.
//!
//! Most packets have nothing special about them: a whole TCP or UDP datagram behind a plain IP header, of a session that is
//! there and stays in its state, to a neighbour that is known. A burst of these is read together ([`Engine::look_ahead`]),
//! so that the waits for memory overlap: the bucket of each, then the session of each. Then each, at its turn, is checked
//! and rewritten in one go ([`Engine::take_short_way`]), in which it touches its own headers, one line of the session table
//! and one of its neighbour's way, and consults neither rules nor routes.
//!
//! Whatever is special in any respect is left untouched here and takes the long way (`Engine::take_long_way`), which
//! decides everything from the start. Both ways leave the same state behind, so it does not matter which one a packet
//! takes.

use super::ipv4::martian4;
use super::{Engine, Output};
use crate::packet::Packet;
use crate::packet::checksum::{self, Delta};
use crate::packet::parse::{self, ETHERNET, IPV4, IPV6, ethertype, get16, get32, protocol, put16, put32, tcp_flags};
use crate::plan::{InterfaceId, PortId, Timers, ZoneId};
use crate::pool::Proto;
use crate::route::neighbour::{Neighbour, Way};
use crate::session::tcp::Segment;
use crate::session::{Direction, FlowKey, NONE, Shard, idle_time};
use crate::stages::Stage;
use crate::steer::passage::Passage;
use crate::steer::{ShardId, shard_of4};
use crate::time::Time;
use crate::translate::napt;
use crate::worker::BURST;

/// What may become of a packet on the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Nothing: it takes the long one.
    Long,
    /// It may belong to a session.
    Session,
    /// It belongs to another worker.
    Elsewhere,
    /// Nothing is translated where it comes from.
    Route4,
    Route6,
}

/// A packet of the burst, as far as it was read ahead. Two of them to a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    key: FlowKey,
    hash: u32,
    /// The session that was prefetched.
    guess: u32,
    /// Length of the IP packet, in bytes.
    total: u16,
    ingress: InterfaceId,
    /// Offset of the IP header.
    l3: u8,
    zone: ZoneId,
    shard: ShardId,
    proto: Proto,
    direction: Direction,
    course: Course,
}

const _: () = assert!(size_of::<Lane>() <= 40);

impl Lane {
    pub(super) const LONG: Lane = Lane {
        key: FlowKey { addresses: 0, ports: 0 },
        hash: 0,
        guess: NONE,
        total: 0,
        ingress: InterfaceId(u16::MAX),
        l3: 0,
        zone: ZoneId(u8::MAX),
        shard: ShardId(0),
        proto: Proto::Udp,
        direction: Direction::Outbound,
        course: Course::Long,
    };

    /// What the short way is, for a packet that it leads to its end.
    pub(super) const fn stage(&self) -> Stage {
        match self.course {
            Course::Session => Stage::Session,
            Course::Route4 | Course::Route6 => Stage::Route,
            Course::Elsewhere | Course::Long => Stage::Return,
        }
    }

    /// Source and destination address.
    const fn addresses(&self) -> (u32, u32) {
        #[allow(clippy::cast_possible_truncation)] // the two halves
        (self.key.addresses as u32, (self.key.addresses >> 32) as u32)
    }
}

/// Until when a burst's sessions last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    tcp: Time,
    udp: Time,
    /// Some ports have another time.
    has_ports: bool,
}

impl Deadlines {
    pub(super) fn new(timers: &Timers, now: Time) -> Self {
        Deadlines { tcp: now + timers.tcp_established, udp: now + timers.udp, has_ports: !timers.udp_ports.is_empty() }
    }
}

/// The interface that packets come in by, as far as the short way needs it. The same for most packets of a burst.
#[derive(Clone, Copy, Debug)]
struct Ingress {
    /// Port, outer and inner VLAN.
    key: (PortId, u16, u16),
    id: InterfaceId,
    zone: ZoneId,
    mac: [u8; 6],
    /// Its packets may have sessions.
    is_inside: bool,
    /// Nothing is translated to or from its zone.
    is_plain: bool,
}

/// What a burst's short ways have counted.
#[derive(Debug)]
pub(super) struct Tally {
    is_received: bool,
    ingress: InterfaceId,
    packets: u64,
    bytes: u64,
    translated: [u64; 2],
    routed: [u64; 2],
}

impl Tally {
    /// Of a burst that has just come in.
    pub(super) const RECEIVED: Tally = Tally {
        is_received: true,
        ingress: InterfaceId(u16::MAX),
        packets: 0,
        bytes: 0,
        translated: [0; 2],
        routed: [0; 2],
    };
    /// Of a burst that another worker has handed over, and counted when it came in.
    pub(super) const HANDED: Tally = Tally { is_received: false, ..Tally::RECEIVED };
}

/// A whole TCP or UDP datagram behind an IPv4 header without options, its hop count above one.
#[derive(Clone, Copy)]
struct Skim4 {
    addresses: [u32; 2],
    ports: [u16; 2],
    total: u16,
    proto: Proto,
}

/// Reads an IPv4 packet, if it is as plain as most are. What this accepts, [`parse::ipv4`] accepts, and reads the same in.
#[inline(always)]
fn skim4(packet: &[u8]) -> Option<Skim4> {
    const PORTS: usize = IPV4 + 8;
    let head = packet.first_chunk::<PORTS>()?;
    let total = get16(head, 2);
    let len = usize::from(total);
    // Version, header length and fragment fields; hop count.
    let plain = head[0] == 0x45 && get16(head, 6) & 0x3fff == 0 && head[8] > 1;
    if !plain || len < PORTS || len > packet.len() || !checksum::is_right(head.first_chunk()?) {
        return None;
    }
    let proto = if head[9] == protocol::UDP {
        let length = usize::from(get16(head, IPV4 + 4));
        if length < 8 || length > len - IPV4 {
            return None;
        }
        Proto::Udp
    } else if head[9] == protocol::TCP {
        let offset = usize::from(*packet.get(IPV4 + 12)? >> 4) * 4;
        if offset < 20 || offset > len - IPV4 {
            return None;
        }
        Proto::Tcp
    } else {
        return None;
    };
    let (addresses, ports) = ([get32(head, 12), get32(head, 16)], [get16(head, 20), get16(head, 22)]);
    Some(Skim4 { addresses, ports, total, proto })
}

impl<P: Packet> Engine<P> {
    /// Reads a burst, each packet with the port that it came in by, and has fetched what its packets will touch.
    #[inline(never)]
    pub(super) fn look_ahead<'a>(
        &self,
        burst: impl ExactSizeIterator<Item = (PortId, &'a P)>,
        lanes: &mut [Lane; BURST],
    ) where
        P: 'a,
    {
        // Stories are told on the long way.
        if self.traces.is_some() {
            return;
        }
        let count = burst.len();
        let mut ingress = None;
        for ((port, packet), lane) in burst.zip(lanes.iter_mut()) {
            let _ = self.read_lane(port, packet, &mut ingress, lane);
        }
        self.counters.stages.end(Stage::Read, count);
        self.fetch_sessions(lanes.get_mut(..count).unwrap_or_default());
        self.counters.stages.end(Stage::Fetch, count);
    }

    /// Has the sessions of a burst fetched, as far as their buckets, which should be there by now, name them.
    #[inline(never)]
    fn fetch_sessions(&self, lanes: &mut [Lane]) {
        let mut missed = 0u32;
        for (at, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.course == Course::Session) {
            let Some(shard) = self.shards.get(lane.shard.index()) else { continue };
            match shard.guess_session(lane.hash) {
                Some(id) => lane.guess = id,
                None => missed |= 1 << at,
            }
        }
        // Few sessions are in the second bucket of a list; the others are still to be made.
        let mut rest = missed;
        while let Some(lane) = lanes.get(rest.trailing_zeros() as usize) {
            rest &= rest - 1;
            if let Some(shard) = self.shards.get(lane.shard.index())
                && !shard.prefetch_overflow(lane.hash)
                && lane.direction == Direction::Outbound
            {
                self.prefetch_opening(shard, lane);
            }
        }
        let mut rest = missed;
        while let Some(lane) = lanes.get_mut(rest.trailing_zeros() as usize) {
            rest &= rest - 1;
            if let Some(id) = self.shards.get(lane.shard.index()).and_then(|shard| shard.guess_overflow(lane.hash)) {
                lane.guess = id;
            }
        }
    }

    /// Has fetched what is looked at first when a session is made from inside: where the mapping and the subscriber would be
    /// found, if the zone's first pool is the one.
    fn prefetch_opening(&self, shard: &Shard, lane: &Lane) {
        #[allow(clippy::cast_possible_truncation)] // the lower halves
        let (source, port) = (lane.key.addresses as u32, lane.key.ports as u16);
        if let Some(pool) = self.plan.policy.first_pool(lane.zone) {
            shard.prefetch_opening(&self.secret, source, port, lane.proto, pool);
        }
    }

    /// Reads a packet into its lane, and has its session's bucket fetched. None: it is special.
    #[inline(always)]
    fn read_lane(&self, port: PortId, packet: &P, known: &mut Option<Ingress>, lane: &mut Lane) -> Option<()> {
        if packet.is_merged() || !packet.is_contiguous() {
            return None;
        }
        let frame = packet.data();
        let link = parse::link(frame).ok()?;
        let key = (port, link.outer_vlan, link.vlan);
        let ingress = match known {
            Some(ingress) if ingress.key == key => ingress,
            _ => known.insert(self.ingress(key)?),
        };
        if frame[..6] != ingress.mac {
            return None;
        }
        (lane.ingress, lane.zone) = (ingress.id, ingress.zone);
        #[allow(clippy::cast_possible_truncation)] // 22 at the most
        {
            lane.l3 = link.len as u8;
        }
        match link.ethertype {
            ethertype::IPV4 => {
                let Skim4 { addresses, ports, total, proto } = skim4(frame.get(link.len..)?)?;
                let [source, destination] = addresses;
                lane.key = FlowKey::new(addresses, ports);
                (lane.total, lane.proto) = (total, proto);
                if ingress.is_plain {
                    lane.course = Course::Route4;
                    return Some(());
                }
                let external = if self.plan.is_special4(destination) { self.external_at(destination)? } else { None };
                (lane.shard, lane.direction) = match external {
                    Some(id) => (self.owner(id, proto, ports[1])?, Direction::Inbound),
                    None if ingress.is_inside => (shard_of4(source), Direction::Outbound),
                    None => return None,
                };
                if !self.owns(lane.shard) {
                    // From inside to an external address it may have to be turned round first, by its sender's owner.
                    if external.is_some() && ingress.is_inside {
                        return None;
                    }
                    lane.course = Course::Elsewhere;
                    return Some(());
                }
                lane.hash = self.secret.flow_hash(lane.key, proto);
                self.shards.get(lane.shard.index())?.prefetch_bucket(lane.hash);
                lane.course = Course::Session;
            }
            ethertype::IPV6 => {
                let head = frame.get(link.len..)?.first_chunk::<IPV6>()?;
                let total = get16(head, 4).checked_add(40)?;
                // UDP alone: TCP's segments that open a connection may have to be clamped, and others have types.
                let plain = head[0] >> 4 == 6 && head[6] == protocol::UDP && head[7] > 1;
                let payload = frame.get(link.len + IPV6..link.len + usize::from(total))?;
                let length = usize::from(get16(payload, 4));
                if !plain || payload.len() < 8 || !(8..=payload.len()).contains(&length) {
                    return None;
                }
                lane.total = total;
                lane.course = Course::Route6;
            }
            _ => {}
        }
        Some(())
    }

    /// The external address (by index) that a destination is, if it is one; none at all for what is special otherwise: our
    /// own addresses and broadcasts.
    #[inline(always)]
    fn external_at(&self, destination: u32) -> Option<Option<u32>> {
        let target = self.plan.target4(destination)?;
        let external = target.external_id(destination);
        (external.is_some() || target.leads_out()).then_some(external)
    }

    #[inline(never)]
    fn ingress(&self, key: (PortId, u16, u16)) -> Option<Ingress> {
        let id = self.plan.ingress(key.0, key.1, key.2)?;
        let interface = self.plan.interface(id)?;
        let zone = interface.zone;
        Some(Ingress {
            key,
            id,
            zone,
            mac: interface.mac.0,
            is_inside: self.plan.policy.is_inside(zone),
            is_plain: self.plan.is_plain(zone),
        })
    }

    /// Sends a packet, if the short way leads to its end. If not, nothing has happened, and it comes back. It has come in by
    /// a port.
    #[inline(always)]
    pub(super) fn take_short_way(
        &mut self,
        mut packet: P,
        port: PortId,
        lane: &Lane,
        (now, deadlines): (Time, &Deadlines),
        tally: &mut Tally,
        out: &mut Output<P>,
    ) -> Option<P> {
        let sent = match lane.course {
            Course::Session if lane.guess == NONE => self.pass_unruled(&mut packet, lane, tally),
            Course::Session => self.pass_session(&mut packet, lane, (now, deadlines), tally),
            Course::Route4 => self.pass_route4(&mut packet, lane, tally),
            Course::Route6 => self.pass_route6(&mut packet, lane, tally),
            Course::Elsewhere if self.is_still(lane) => {
                self.tally_ingress(lane.ingress, packet.data().len() as u64, tally);
                self.hand_over(packet, port, lane.shard, Passage::FIRST, out);
                return None;
            }
            Course::Elsewhere | Course::Long => None,
        };
        match sent {
            Some((interface, bytes)) => {
                self.tally_ingress(lane.ingress, bytes, tally);
                out.transmit.push((interface, packet));
                None
            }
            None => Some(packet),
        }
    }

    /// Whether a packet is still another worker's at its turn: those before it may have leased the block that it is sent to,
    /// or given it back.
    #[inline(never)]
    fn is_still(&self, lane: &Lane) -> bool {
        #[allow(clippy::cast_possible_truncation)] // the upper half
        let ((_, destination), port) = (lane.addresses(), (lane.key.ports >> 16) as u16);
        lane.direction == Direction::Outbound
            || self.plan.external(destination).and_then(|(id, _)| self.owner(id, lane.proto, port)) == Some(lane.shard)
    }

    /// A packet of a session. Gives the interface that it leaves by, and its length as it came in.
    #[inline(never)]
    fn pass_session(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        (now, deadlines): (Time, &Deadlines),
        tally: &mut Tally,
    ) -> Option<(InterfaceId, u64)> {
        let direction = lane.direction;
        let session = self.shards.get_mut(lane.shard.index())?.session_place(lane.guess)?;
        let fits = session.key(direction) == lane.key
            && session.proto == lane.proto
            && session.epoch == self.epoch
            && session.deadline > now
            && session.zone(direction) == lane.zone;
        let way = self.neighbours.way(session.hops[direction as usize]);
        if !fits || lane.total > way.mtu {
            return None;
        }
        let l3 = usize::from(lane.l3);
        let bytes = packet.data().len() as u64;
        if lane.proto == Proto::Udp {
            let deadline = if deadlines.has_ports {
                now + idle_time(&self.plan.spec.timers, session.class, session.outside().destination_port)
            } else {
                deadlines.udp
            };
            if deadline < session.deadline || !session.inbound_refresh() || !frame_for(packet, l3, way) {
                return None;
            }
            session.deadline = deadline;
        } else {
            let segment = packet.data().get(l3 + IPV4..l3 + usize::from(lane.total))?;
            let segment = Segment::read_plain(segment)?;
            if deadlines.tcp < session.deadline || !session.tcp.is_established() || !frame_for(packet, l3, way) {
                return None;
            }
            session.tcp.pass_plain((direction == Direction::Outbound) == session.opened_inside(), &segment);
            session.deadline = deadlines.tcp;
        }
        let l3 = usize::from(way.len);
        packet.truncate(l3 + usize::from(lane.total));
        let head = packet.data_mut().get_mut(l3..)?;
        let (ip, transport) = head.split_first_chunk_mut::<IPV4>()?;
        let ((from, _), (address, port)) = session.replacement(direction);
        let sum = Delta::apply_hop(get16(ip, 10), from, address);
        ip[8] = ip[8].wrapping_sub(1);
        put16(ip, 10, sum);
        put32(ip, 12 + 4 * (direction as usize), address);
        if ip[6] & 0x40 == 0 && direction == Direction::Outbound {
            // It may be cut up on its way (RFC 7857 §10).
            let (destination, protocol) = (get32(ip, 16), ip[9]);
            if let Some(datagrams) = self.datagrams.get_mut(lane.shard.index()) {
                napt::put_identification(ip, datagrams.identifications.next(destination, protocol));
            }
        }
        let delta = match direction {
            Direction::Outbound => session.transport_delta,
            Direction::Inbound => session.transport_delta.inverse(),
        };
        if lane.proto == Proto::Udp {
            let udp = transport.first_chunk_mut::<8>()?;
            put16(udp, 2 * (direction as usize), port);
            let sum = delta.apply_udp(get16(udp, 6));
            put16(udp, 6, sum);
        } else {
            let tcp = transport.first_chunk_mut::<20>()?;
            put16(tcp, 2 * (direction as usize), port);
            let sum = delta.apply(get16(tcp, 16));
            put16(tcp, 16, sum);
        }
        tally.translated[direction as usize] += 1;
        Some((way.interface, bytes))
    }

    /// A packet from inside that has no session, and that no rule would make one for: it is only routed.
    #[inline(never)]
    fn pass_unruled(&mut self, packet: &mut P, lane: &Lane, tally: &mut Tally) -> Option<(InterfaceId, u64)> {
        let (direction, zone, proto) = (lane.direction, lane.zone, lane.proto);
        let shard = self.shards.get(lane.shard.index())?;
        if direction == Direction::Inbound || shard.find(lane.hash, direction, lane.key, proto).is_some() {
            return None;
        }
        let (source, destination) = lane.addresses();
        #[allow(clippy::cast_possible_truncation)] // the lower half
        let port = lane.key.ports as u16;
        let policy = &self.plan.policy;
        let next_hop = self.plan.target4(destination)?.next_hop(|interface| Neighbour::ipv4(interface, destination))?;
        let to = self.zone(next_hop.interface());
        let ruled = policy.translation(zone, to, source, Some(proto), port, destination).is_some()
            || policy.is_closed(zone, to, destination);
        if ruled { None } else { self.pass_route4(packet, lane, tally) }
    }

    /// A packet between zones that nothing is translated between.
    #[inline(never)]
    fn pass_route4(&mut self, packet: &mut P, lane: &Lane, tally: &mut Tally) -> Option<(InterfaceId, u64)> {
        let (source, destination) = lane.addresses();
        if martian4(source, destination).is_some() {
            return None;
        }
        let next_hop = self.plan.target4(destination)?.next_hop(|interface| Neighbour::ipv4(interface, destination))?;
        let way = self.neighbours.recent(&next_hop);
        let l3 = usize::from(lane.l3);
        // A segment that opens a connection may have to be clamped.
        let opens = lane.proto == Proto::Tcp && packet.data().get(l3 + IPV4 + 13)? & tcp_flags::SYN != 0;
        if lane.total > way.mtu || opens {
            return None;
        }
        let bytes = packet.data().len() as u64;
        if !frame_for(packet, l3, way) {
            return None;
        }
        let l3 = usize::from(way.len);
        packet.truncate(l3 + usize::from(lane.total));
        let head = packet.data_mut().get_mut(l3..)?.first_chunk_mut::<IPV4>()?;
        let sum = Delta::apply_hop(get16(head, 10), 0, 0);
        head[8] = head[8].wrapping_sub(1);
        put16(head, 10, sum);
        tally.routed[0] += 1;
        Some((way.interface, bytes))
    }

    /// A UDP datagram over IPv6, which is only ever routed.
    #[inline(never)]
    fn pass_route6(&mut self, packet: &mut P, lane: &Lane, tally: &mut Tally) -> Option<(InterfaceId, u64)> {
        let l3 = usize::from(lane.l3);
        let head = packet.data().get(l3..)?.first_chunk::<IPV6>()?;
        let address =
            |at: usize| head.get(at..at + 16).and_then(|it| it.try_into().ok()).map_or(0, u128::from_be_bytes);
        let (source, destination) = (address(8), address(24));
        // Global unicast addresses and unique local ones; whatever else there is has rules of its own.
        let is_common = |address: u128| address >> 125 == 1 || address >> 121 == 0xfc >> 1;
        if !is_common(source) || !is_common(destination) {
            return None;
        }
        let next_hop = self.plan.target6(destination)?.next_hop(|interface| Neighbour::ipv6(interface, destination))?;
        let way = self.neighbours.recent(&next_hop);
        if lane.total > way.mtu {
            return None;
        }
        let bytes = packet.data().len() as u64;
        if !frame_for(packet, l3, way) {
            return None;
        }
        let l3 = usize::from(way.len);
        packet.truncate(l3 + usize::from(lane.total));
        let head = packet.data_mut().get_mut(l3..)?.first_chunk_mut::<IPV6>()?;
        head[7] = head[7].wrapping_sub(1);
        tally.routed[1] += 1;
        Some((way.interface, bytes))
    }

    /// Counts what a burst's short ways have brought.
    #[inline]
    pub(super) fn count(&self, tally: Tally) {
        self.count_ingress(&tally, tally.ingress, tally.packets, tally.bytes);
        for (counter, count) in self.counters.nat44.iter().zip(tally.translated) {
            counter.add(count);
        }
        for (counter, count) in self.counters.routed.iter().zip(tally.routed) {
            counter.add(count);
        }
    }

    #[inline(always)]
    fn tally_ingress(&self, ingress: InterfaceId, bytes: u64, tally: &mut Tally) {
        if tally.ingress != ingress {
            self.count_ingress(tally, tally.ingress, tally.packets, tally.bytes);
            (tally.ingress, tally.packets, tally.bytes) = (ingress, 0, 0);
        }
        tally.packets += 1;
        tally.bytes += bytes;
    }

    /// Counts packets of an interface, if they have just come in.
    pub(super) fn count_ingress(&self, tally: &Tally, id: InterfaceId, packets: u64, bytes: u64) {
        if let Some(counters) = self.counters.interfaces.get(usize::from(id.0)).filter(|_| tally.is_received) {
            counters.received_packets.add(packets);
            counters.received_bytes.add(bytes);
        }
    }
}

/// Writes a way's link-layer header before an IP packet, in place of the `old` bytes that are there. False, and no change:
/// there is no room for it.
#[inline(always)]
fn frame_for<P: Packet>(packet: &mut P, old: usize, way: &Way) -> bool {
    let new = usize::from(way.len);
    if new == ETHERNET && old == ETHERNET {
        return match (packet.data_mut().first_chunk_mut::<ETHERNET>(), way.header.first_chunk::<ETHERNET>()) {
            (Some(header), Some(way)) => {
                *header = *way;
                true
            }
            _ => false,
        };
    }
    let fits = if new > old { packet.prepend(new - old) } else { packet.trim_front(old - new) };
    if let (true, Some(header), Some(way)) = (fits, packet.data_mut().get_mut(..new), way.header.get(..new)) {
        header.copy_from_slice(way);
    }
    fits
}
