//! The short way: packets of known sessions, and packets that are only routed.
//!
//! Most packets have nothing special about them: a whole TCP or UDP datagram behind a plain IP header, of a session that is
//! there and stays in its state, to a neighbour that is known. A burst of these has been read together (`ahead`). Each, at
//! its turn, is checked and rewritten in one go ([`Engine::take_short_way`]), in which it touches its own headers, one line
//! of the session table and one of its neighbour's way, and consults neither rules nor routes.
//!
//! Whatever is special in any respect is left untouched here and takes the long way (`Engine::take_long_way`), which
//! decides everything from the start. Both ways leave the same state behind, so it does not matter which one a packet
//! takes.

use super::ahead::{Course, Lane};
use super::ipv4::martian4;
use super::{Engine, Flow, Output};
use crate::counters::{Drop, MappingFailure, SessionClass, Translator};
use crate::packet::Packet;
use crate::packet::checksum::Delta;
use crate::packet::parse::{ETHERNET, IPV4, IPV6, get16, get32, put16, put32, put128, tcp_flags};
use crate::plan::{InterfaceId, PortId, Target, Timers};
use crate::policy::Translation;
use crate::policy::prefixes::Exchange;
use crate::pool::Proto;
use crate::route::neighbour::{Neighbour, Way};
use crate::session::tcp::{self, Segment, Tcp};
use crate::session::{Direction, NONE, Tuple4};
use crate::steer::passage::Passage;
use crate::time::Time;
use crate::translate::napt;

/// Until when a burst's sessions last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    tcp: Time,
    /// But those of ports that have a time of their own.
    udp: Time,
}

impl Deadlines {
    pub(super) fn new(timers: &Timers, now: Time) -> Self {
        Deadlines { tcp: now + timers.tcp_established, udp: now + timers.udp }
    }
}

/// No translator without state covers a packet.
#[derive(Clone, Copy, Debug)]
struct Uncovered;

/// What a burst's short ways have counted.
#[derive(Debug)]
pub(super) struct Tally {
    is_received: bool,
    ingress: InterfaceId,
    packets: u64,
    bytes: u64,
    translated: [u64; 2],
    routed: [u64; 2],
    exchanged: [[u64; 2]; Translator::ALL.len()],
    pub(super) crossed: [u64; 2],
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
        exchanged: [[0; 2]; Translator::ALL.len()],
        crossed: [0; 2],
    };
    /// Of a burst that another worker has handed over, and counted when it came in.
    pub(super) const HANDED: Tally = Tally { is_received: false, ..Tally::RECEIVED };
}

impl<P: Packet> Engine<P> {
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
        let state = (now, deadlines);
        let sent = match lane.course {
            Course::Session => self.pass_state(&mut packet, lane, state, tally),
            Course::Route4 => Ok(self.pass_route4(&mut packet, lane, tally)),
            Course::Stateless4 | Course::Either4 | Course::Translation4 => {
                match (self.pass_stateless4(&mut packet, lane, tally), lane.course) {
                    (Ok(sent), _) => Ok(sent),
                    (Err(Uncovered), Course::Stateless4) => Ok(self.pass_route4(&mut packet, lane, tally)),
                    (Err(Uncovered), Course::Either4) => self.pass_state(&mut packet, lane, state, tally),
                    (Err(Uncovered), _) => Ok(None),
                }
            }
            Course::Stateless6 => Ok(match self.plan.crossings.from6(lane.zone) {
                None => self.pass_route6(&mut packet, lane, tally),
                Some(index) => self.pass_cross6(&mut packet, lane, index, tally),
            }),
            Course::Elsewhere if self.is_still(lane) => {
                self.tally_ingress(lane.ingress, packet.data().len(), tally);
                self.hand_over(packet, port, lane.shard, Passage::FIRST, out);
                return None;
            }
            Course::Elsewhere | Course::Long => Ok(None),
        };
        match sent {
            Ok(Some(interface)) => {
                out.transmit.push((interface, packet));
                None
            }
            Ok(None) => Some(packet),
            Err(reason) => {
                self.tally_ingress(lane.ingress, packet.data().len(), tally);
                self.drop(packet, reason, out);
                None
            }
        }
    }

    /// A packet that belongs to a session, or has none yet.
    ///
    /// # Errors
    /// Those of [`Engine::pass_new`].
    #[inline(always)]
    fn pass_state(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        state: (Time, &Deadlines),
        tally: &mut Tally,
    ) -> Result<Option<InterfaceId>, Drop> {
        if lane.guess == NONE {
            self.pass_new(packet, lane, state, tally)
        } else {
            Ok(self.pass_session(packet, lane, state, tally))
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

    /// A packet of a session. Gives the interface that it leaves by.
    #[inline(never)]
    fn pass_session(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        (now, deadlines): (Time, &Deadlines),
        tally: &mut Tally,
    ) -> Option<InterfaceId> {
        let direction = lane.direction;
        let session = self.shards[lane.shard.index()].session_place(lane.guess)?;
        let fits = session.key(direction) == lane.key
            && session.proto == lane.proto
            && session.epoch == self.epoch
            && session.deadline > now
            && session.zone(direction) == lane.zone;
        let way = self.neighbours.way(session.hops[direction as usize]);
        if !fits || lane.total > way.mtu {
            return None;
        }
        let bytes = packet.data().len();
        let (deadline, segment) = if lane.proto == Proto::Udp {
            if !session.has_common_idle() {
                return None;
            }
            (deadlines.udp, None)
        } else {
            let l3 = usize::from(lane.l3);
            let segment = packet.data().get(l3 + IPV4..l3 + usize::from(lane.total))?;
            if !session.tcp.is_established() {
                return None;
            }
            (deadlines.tcp, Some(Segment::read_plain(segment)?))
        };
        if deadline < session.deadline {
            return None;
        }
        let ip = reframe(packet, lane, way)?;
        session.deadline = deadline;
        let ((from, _), (address, port)) = session.replacement(direction);
        let delta = session.transport_delta.undone_if(direction == Direction::Inbound);
        let head = ip.first_chunk_mut::<{ IPV4 + 8 }>()?;
        put32(head, 12 + 4 * (direction as usize), address);
        put16(head, IPV4 + 2 * (direction as usize), port);
        let sum = Delta::apply_hop(get16(head, 10), from, address);
        head[8] = head[8].wrapping_sub(1);
        put16(head, 10, sum);
        if head[6] & 0x40 == 0 && direction == Direction::Outbound {
            // It may be cut up on its way (RFC 7857 §10).
            let (destination, protocol) = (get32(head, 16), head[9]);
            let identification = self.datagrams[lane.shard.index()].identifications.next(destination, protocol);
            napt::put_identification(head.first_chunk_mut()?, identification);
        }
        match segment {
            None => {
                let sum = delta.apply_udp(get16(head, IPV4 + 6));
                put16(head, IPV4 + 6, sum);
            }
            Some(segment) => {
                let sum = ip.get_mut(IPV4 + 16..)?.first_chunk_mut::<2>()?;
                *sum = delta.apply(u16::from_be_bytes(*sum)).to_be_bytes();
                session.tcp.pass_plain((direction == Direction::Outbound) == session.opened_inside(), &segment);
            }
        }
        if self.plan.spec.limits.session_counters {
            self.shards[lane.shard.index()].count(lane.guess, direction, lane.total.into());
        }
        tally.translated[direction as usize] += 1;
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
    }

    /// A packet that has no session yet. One from inside is only routed, if no rule covers it; or it is a datagram that opens
    /// one by a rule.
    ///
    /// # Errors
    /// It would open one, and there is no room for it.
    #[inline(never)]
    fn pass_new(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        (now, deadlines): (Time, &Deadlines),
        tally: &mut Tally,
    ) -> Result<Option<InterfaceId>, Drop> {
        let &Lane { direction, zone, proto, shard, hash, .. } = lane;
        let known = self.shards[shard.index()].find(hash, direction, lane.key, proto);
        if direction == Direction::Inbound || known.is_some() {
            return Ok(None);
        }
        let (source, destination) = lane.addresses();
        #[allow(clippy::cast_possible_truncation)] // the two halves
        let (source_port, destination_port) = (lane.key.ports as u16, (lane.key.ports >> 16) as u16);
        let policy = &self.plan.policy;
        let target = self.plan.target4(destination);
        let Some(next_hop) = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv4(interface, destination)))
        else {
            return Ok(None);
        };
        let to = self.zone(next_hop.interface());
        let Some(rule) = policy.translation(zone, to, source, Some(proto), source_port, destination) else {
            let closed = policy.is_closed(zone, to, destination);
            return Ok(if closed { None } else { self.pass_route4(packet, lane, tally) });
        };
        let (hop, way) = self.neighbours.recent(&next_hop);
        if lane.total > way.mtu || martian4(source, destination).is_some() {
            return Ok(None);
        }
        let tuple = Tuple4 { source, destination, source_port, destination_port };
        let flow = Flow { shard, direction, tuple, proto, hash };
        if self.arenas.is_full() {
            return if self.is_refused(packet, lane, &flow, rule, now) {
                Err(Drop::SessionTableFull)
            } else {
                Ok(None)
            };
        }
        if proto != Proto::Udp {
            return Ok(None);
        }
        // Whatever fails from here on fails on the long way too, where it is counted and answered.
        self.hop = hop;
        let Ok(new) = self.mapped(&flow, rule, (zone, to), now) else { return Ok(None) };
        let (_, delta) = napt::deltas(proto, &new.inside, &new.outside);
        let Ok(guess) = self.add(&flow, &new, (SessionClass::Udp, Tcp::default()), delta, now) else { return Ok(None) };
        Ok(self.pass_session(packet, &Lane { guess, ..*lane }, (now, deadlines), tally))
    }

    /// Whether a packet that opens a session and a mapping by a rule can be refused here and now, the table being full. That is
    /// counted. A flood of such packets so leaves the caches to others.
    #[inline(never)]
    fn is_refused(&mut self, packet: &P, lane: &Lane, flow: &Flow, rule: Translation, now: Time) -> bool {
        let Translation::Nat44(index) = rule else { return false };
        let flags = packet.data().get(usize::from(lane.l3) + IPV4 + 13).copied().unwrap_or(0);
        let opens = flow.proto == Proto::Udp || tcp::opens(flags);
        if !opens || self.has_mapping(flow, index) || !self.is_unanswered(lane.ingress, flow.tuple.source, now) {
            return false;
        }
        self.counters.mapping_failures[MappingFailure::Memory as usize].add(1);
        true
    }

    /// A packet from a zone that nothing is translated in, but what is sent to a rule's outside prefix.
    #[inline(never)]
    fn pass_route4(&mut self, packet: &mut P, lane: &Lane, tally: &mut Tally) -> Option<InterfaceId> {
        let (source, destination) = lane.addresses();
        if martian4(source, destination).is_some() {
            return None;
        }
        let target = self.plan.target4(destination)?;
        if let Target::Prefix(_) = target {
            return self.pass_stateless4(packet, lane, tally).unwrap_or(None);
        }
        let next_hop = target.next_hop(|interface| Neighbour::ipv4(interface, destination))?;
        let (_, way) = self.neighbours.recent(&next_hop);
        let l3 = usize::from(lane.l3);
        // A segment that opens a connection may have to be clamped.
        let opens = lane.proto == Proto::Tcp && packet.data().get(l3 + IPV4 + 13)? & tcp_flags::SYN != 0;
        if lane.total > way.mtu || opens {
            return None;
        }
        let bytes = packet.data().len();
        let head = reframe(packet, lane, way)?.first_chunk_mut::<IPV4>()?;
        let sum = Delta::apply_hop(get16(head, 10), 0, 0);
        head[8] = head[8].wrapping_sub(1);
        put16(head, 10, sum);
        tally.routed[0] += 1;
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
    }

    /// A packet that may be translated without state.
    ///
    /// # Errors
    /// It is not.
    #[inline(never)]
    fn pass_stateless4(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        tally: &mut Tally,
    ) -> Result<Option<InterfaceId>, Uncovered> {
        let (source, destination) = lane.addresses();
        // A segment that opens a connection may have to be clamped.
        let flags = packet.data().get(usize::from(lane.l3) + IPV4 + 13).copied().unwrap_or(0);
        let opens = lane.proto == Proto::Tcp && flags & tcp_flags::SYN != 0;
        if opens || martian4(source, destination).is_some() {
            return Ok(None);
        }
        let target = self.plan.target4(destination);
        match self.plan.exchange(lane.zone, (source, destination), target) {
            Ok(Some(exchange)) => Ok(self.pass_exchange4(packet, lane, &exchange, tally)),
            Err(_) => Ok(None),
            Ok(None) => {
                let index = self.plan.crossings.from4(lane.zone).ok_or(Uncovered)?;
                let to = self.plan.crossing(index).and_then(|(it, spec)| it.destination6(spec, destination, target));
                Ok(self.pass_cross4(packet, lane, index, to.ok_or(Uncovered)?, tally))
            }
        }
    }

    /// A packet whose prefixes are exchanged.
    #[inline(always)]
    fn pass_exchange4(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        exchange: &Exchange<u32>,
        tally: &mut Tally,
    ) -> Option<InterfaceId> {
        let (source, destination) = lane.addresses();
        let (from, to) = ((source, destination), exchange.to);
        let next_hop = exchange.target?.next_hop(|interface| Neighbour::ipv4(interface, to.1))?;
        let (_, way) = self.neighbours.recent(&next_hop);
        let special = exchange.zone != self.zone(next_hop.interface()) || exchange.directions() == [true; 2];
        if special || lane.total > way.mtu {
            return None;
        }
        let bytes = packet.data().len();
        let ip = reframe(packet, lane, way)?;
        let head = ip.first_chunk_mut::<IPV4>()?;
        put32(head, 12, to.0);
        put32(head, 16, to.1);
        let change = Delta::NONE.long(from.0, to.0).long(from.1, to.1);
        let sum = change.apply(Delta::apply_hop(get16(head, 10), 0, 0));
        head[8] = head[8].wrapping_sub(1);
        put16(head, 10, sum);
        follow(ip.get_mut(IPV4..)?, lane.proto, change);
        for (count, counts) in tally.exchanged[exchange.translator as usize].iter_mut().zip(exchange.directions()) {
            *count += u64::from(counts);
        }
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
    }

    /// A packet of IPv6, whose prefixes may be exchanged.
    #[inline(never)]
    pub(super) fn pass_route6(&mut self, packet: &mut P, lane: &Lane, tally: &mut Tally) -> Option<InterfaceId> {
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
        let target = self.plan.target6(destination)?;
        let exchange = self.plan.exchange(lane.zone, (source, destination), Some(target)).ok()?;
        let (target, to) = exchange.map_or((Some(target), destination), |it| (it.target, it.to.1));
        let next_hop = target?.next_hop(|interface| Neighbour::ipv6(interface, to))?;
        let (_, way) = self.neighbours.recent(&next_hop);
        // A packet that is turned round is rare.
        let special = |it: Exchange<u128>| it.zone != self.zone(next_hop.interface()) || it.directions() == [true; 2];
        if lane.total > way.mtu || exchange.is_some_and(special) {
            return None;
        }
        let bytes = packet.data().len();
        let ip = reframe(packet, lane, way)?;
        let head = ip.first_chunk_mut::<IPV6>()?;
        head[7] = head[7].wrapping_sub(1);
        if let Some(exchange) = exchange {
            let Exchange { to, translator, .. } = exchange;
            put128(head, 8, to.0);
            put128(head, 24, to.1);
            // The others leave the checksum as it is (RFC 6296 §2.6).
            if translator == Translator::Netmap {
                let change = Delta::NONE.wide(source, to.0).wide(destination, to.1);
                follow(ip.get_mut(IPV6..)?, lane.proto, change);
            }
            for (count, counts) in tally.exchanged[translator as usize].iter_mut().zip(exchange.directions()) {
                *count += u64::from(counts);
            }
        } else {
            tally.routed[1] += 1;
        }
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
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
        for (counter, count) in self.counters.crossed.iter().zip(tally.crossed) {
            counter.add(count);
        }
        for (counter, count) in
            self.counters.exchanged.as_flattened().iter().zip(tally.exchanged.as_flattened().iter().copied())
        {
            counter.add(count);
        }
    }

    #[inline(always)]
    pub(super) fn tally_ingress(&self, ingress: InterfaceId, bytes: usize, tally: &mut Tally) {
        if tally.ingress != ingress {
            self.turn_tally(ingress, tally);
        }
        tally.packets += 1;
        tally.bytes += bytes as u64;
    }

    /// Counts what has come in by one interface, before packets of another.
    #[inline(never)]
    fn turn_tally(&self, ingress: InterfaceId, tally: &mut Tally) {
        self.count_ingress(tally, tally.ingress, tally.packets, tally.bytes);
        (tally.ingress, tally.packets, tally.bytes) = (ingress, 0, 0);
    }

    /// Counts packets of an interface, if they have just come in.
    pub(super) fn count_ingress(&self, tally: &Tally, id: InterfaceId, packets: u64, bytes: u64) {
        if let Some(counters) = self.counters.interfaces.get(usize::from(id.0)).filter(|_| tally.is_received) {
            counters.received_packets.add(packets);
            counters.received_bytes.add(bytes);
        }
    }
}

/// Lets the checksum of a TCP or UDP datagram follow a change of its addresses.
#[inline(always)]
fn follow(datagram: &mut [u8], proto: Proto, change: Delta) {
    if proto == Proto::Udp {
        let sum = change.apply_udp(get16(datagram, 6));
        put16(datagram, 6, sum);
    } else {
        let sum = change.apply(get16(datagram, 16));
        put16(datagram, 16, sum);
    }
}

/// Writes a way's link-layer header before a packet in place of its own, and cuts off what is behind it. Gives the IP packet.
/// None, and no change: there is no room for it.
#[inline(always)]
fn reframe<'a, P: Packet>(packet: &'a mut P, lane: &Lane, way: &Way) -> Option<&'a mut [u8]> {
    if (usize::from(lane.l3), usize::from(way.len)) != (ETHERNET, ETHERNET) {
        return reframe_tagged(packet, lane, way);
    }
    packet.truncate(ETHERNET + usize::from(lane.total));
    let (header, ip) = packet.data_mut().split_first_chunk_mut::<ETHERNET>()?;
    *header = *way.header.first_chunk()?;
    Some(ip)
}

/// The same where there are VLAN tags before it or after.
#[inline(never)]
fn reframe_tagged<'a, P: Packet>(packet: &'a mut P, lane: &Lane, way: &Way) -> Option<&'a mut [u8]> {
    let (old, new) = (usize::from(lane.l3), usize::from(way.len));
    if !if new > old { packet.prepend(new - old) } else { packet.trim_front(old - new) } {
        return None;
    }
    packet.truncate(new + usize::from(lane.total));
    let (header, ip) = packet.data_mut().split_at_mut_checked(new)?;
    header.copy_from_slice(way.header.get(..new)?);
    Some(ip)
}

/// Writes a way's link-layer header before an IP packet that begins at an offset of a frame, in place of what stands there. False:
/// there is no room for it.
#[inline(always)]
pub(super) fn readdress<P: Packet>(packet: &mut P, l3: usize, way: &Way) -> bool {
    let len = usize::from(way.len);
    if len != l3 && !(if len > l3 { packet.prepend(len - l3) } else { packet.trim_front(l3 - len) }) {
        return false;
    }
    match (packet.data_mut().get_mut(..len), way.header.get(..len)) {
        (Some(header), Some(new)) => header.copy_from_slice(new),
        _ => return false,
    }
    true
}
