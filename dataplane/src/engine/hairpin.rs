//! Hairpin: a packet from inside to the external address of an inside host (RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7).
//!
//! It takes two passes (design rule 3). The shard of its sender translates it as it would on its way out, so that it comes
//! from the sender's external address and port; then the shard that owns its destination processes it as if it came from
//! outside, with the filtering that applies there. At most one turn, and one hop: the second pass takes it. So an ICMP error
//! about it that arises there goes to the sender's external address, and is itself turned round.

use super::{Arrival, Engine, Flow, Origin, Output, Prepared, Read, Verdict, tuple_of};
use crate::counters::{Drop, IcmpError};
use crate::fragment::Lent;
use crate::packet::parse::{Transport, View4};
use crate::packet::{Packet, PacketPool};
use crate::plan::{InterfaceId, PortId, ZoneId};
use crate::pool::Proto;
use crate::route::neighbour::Hop;
use crate::session::Direction;
use crate::steer::hand_over::Turn;
use crate::steer::passage::Passage;
use crate::steer::{ShardId, shard_of4};
use crate::time::Time;
use crate::trace::{Disposal, SessionStep};
use crate::translate::napt;

impl<P: Packet> Engine<P> {
    /// Whether a packet from a zone to an external address comes from its inside: from a zone that something translates, and
    /// that the address is not external to.
    pub(super) fn is_from_inside(&self, zone: ZoneId, destination: u32) -> bool {
        self.plan.policy.is_inside(zone)
            && self.plan.external(destination).is_some_and(|(_, entry)| !entry.outside.contains(zone))
    }

    /// Whether a packet to an external address is to be turned round: it comes from inside, and somebody may be there. A query
    /// to an address that hosts share is the gateway's own to answer (RFC 5508 REQ-7).
    pub(super) fn is_turned(&self, zone: ZoneId, view: &View4, external: u32) -> bool {
        let Some(entry) = self.plan.externals.get(external as usize) else { return false };
        let owned = || {
            let proto = Proto::from_ip(view.protocol);
            proto.is_some_and(|proto| self.owner(external, proto, view.destination_port).is_some())
        };
        self.is_from_inside(zone, view.destination)
            && match view.transport {
                Transport::IcmpQuery(true) => entry.static_nat.is_some(),
                Transport::Tcp(_) | Transport::Udp | Transport::IcmpQuery(false) => owned(),
                Transport::IcmpError => true,
                Transport::IcmpOther | Transport::Other => false,
            }
    }

    /// The zone that a packet seems to come from once it is turned round: one that both of its ends are external to.
    pub(super) fn turned_from(&self, view: &View4) -> ZoneId {
        let outside = |address| self.plan.external(address).map(|(_, entry)| entry.outside).unwrap_or_default();
        let (source, destination) = (outside(view.source), outside(view.destination));
        let zone = source.both(&destination).iter().next().or_else(|| destination.iter().next());
        zone.unwrap_or(ZoneId(u8::MAX))
    }

    /// Turns a packet round: its outbound pass here, then its inbound pass.
    #[inline(never)]
    pub(super) fn turn<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        mut packet: P,
        view: &View4,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        // An error is of the flow that it quotes, any other packet of its sender's.
        let sender = match view.transport {
            Transport::IcmpError => self.quoted_owner(self.zone(ingress), packet.data(), view, None),
            _ => Some(shard_of4(view.source)),
        };
        if let Some(shard) = sender.filter(|&shard| !self.owns(shard)) {
            return self.hand_on(ingress, packet, shard, self.passage, out);
        }
        let zone = self.zone(ingress);
        let mut at = Arrival { ingress, zone, packet: &mut packet, now, out: &mut *out };
        let outbound = if view.ttl <= 1 {
            Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded4, 0))))
        } else if view.transport == Transport::IcmpError {
            self.error_out(&mut at, view).map(|()| None).map_err(Verdict::from)
        } else {
            self.flow_out(&mut at, view)
        };
        let lent = match outbound {
            Ok(lent) => lent,
            Err(verdict) => {
                let read = Some(&Read::Four(*view));
                return self.dispose(Origin::Wire(ingress), packet, verdict, read, now, pool, out);
            }
        };
        napt::give_hop_back(packet.data_mut(), view);
        self.counters.hairpins.add(1);
        self.go_on(ingress, packet, Passage { turn: Turn::Hairpin, lent }, now, pool, out)
    }

    /// The shard that a packet is to go to first, which its prepared owner `shard` is not this worker's: if it is going to be
    /// turned round, to its sender's, which may be.
    #[inline(never)]
    pub(super) fn first_owner(&self, prepared: &Prepared, shard: ShardId) -> Option<ShardId> {
        let Ok(Read::Four(view)) = &prepared.read else { return Some(shard) };
        let zone = prepared.interface.map_or(ZoneId(u8::MAX), |id| self.zone(id));
        let external = prepared.target.and_then(|target| target.external_id(view.destination));
        // An error's owner is its sender's already.
        let turned =
            view.transport != Transport::IcmpError && external.is_some_and(|id| self.is_turned(zone, view, id));
        let first = if turned { shard_of4(view.source) } else { shard };
        (!self.owns(first)).then_some(first)
    }

    /// The outbound pass. Returns what the packet, if it is a fragment, is lent on its inbound pass.
    fn flow_out(&mut self, at: &mut Arrival<P>, view: &View4) -> Result<Option<Lent>, Verdict> {
        let proto = Proto::from_ip(view.protocol).ok_or(Drop::Protocol)?;
        let (shard, tuple) = (shard_of4(view.source), tuple_of(view));
        let hash = self.secret.flow_hash(tuple.key(Direction::Outbound), proto);
        let flow = Flow { shard, direction: Direction::Outbound, tuple, proto, hash };
        let found = self.live_session(at.zone, &flow, at.now);
        // This pass leads to no neighbour: a session that it opens is to remember none.
        self.hop = Hop::UNKNOWN;
        let (to, (addresses, transport)) = match found {
            Some(id) => {
                let session = self.shards.get(shard.index()).and_then(|shard| shard.session(id));
                let session = *session.ok_or(Drop::Hairpin)?;
                self.story.rule = session.rule();
                self.story.session = SessionStep::Hit;
                self.advance(at.packet.data(), view, &flow, id, at.now);
                (session.outside(), (session.address_delta(), session.transport_delta))
            }
            None => {
                let (_, entry) = self.plan.external(view.destination).ok_or(Drop::Hairpin)?;
                let rule = entry.outside.iter().find_map(|to| Some((to, self.rule_for(at.zone, to, view)?)));
                let (to, rule) = rule.ok_or(Drop::Hairpin)?;
                self.may_open_by(rule, view)?;
                self.new_outbound(at, view, &flow, rule, to)?
            }
        };
        at.packet.truncate(view.end);
        napt::rewrite(at.packet.data_mut(), view, &to, addresses, transport);
        if !view.is_atomic() {
            self.identify(at.packet.data_mut(), view);
        }
        self.counters.nat44[Direction::Outbound as usize].add(1);
        Ok(self.passage.lent.map(|lent| Lent { source_port: to.source_port, ..lent }))
    }

    /// The outbound pass of an ICMP error, about a packet that had itself been turned round.
    fn error_out(&mut self, at: &mut Arrival<P>, view: &View4) -> Result<(), Drop> {
        let delivered = self.delivered(at, view)?;
        self.translate_delivered(at, view, &delivered);
        Ok(())
    }

    /// Whether a packet of the gateway's own is an ICMP error about a packet that was turned round.
    pub(super) fn turns_back(&self, read: &Read) -> bool {
        matches!(read, Read::Four(view)
            if view.transport == Transport::IcmpError && self.plan.external(view.destination).is_some())
    }

    /// Sends an ICMP error of the gateway's own about a packet that was turned round: to its sender, as that knows it.
    #[inline(never)]
    pub(super) fn turn_own<L: PacketPool<Packet = P>>(
        &mut self,
        mut packet: P,
        read: &Read,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let Read::Four(view) = read else { return self.drop_own(packet, out) };
        let target = self.plan.target4(view.destination);
        let external = target.and_then(|target| target.external_id(view.destination));
        let (Some(target), Some(external)) = (target, external) else { return self.drop_own(packet, out) };
        if let Some(shard) = self
            .quoted_owner(self.turned_from(view), packet.data(), view, Some(target))
            .filter(|&shard| !self.owns(shard))
        {
            return self.hand_over(packet, PortId(0), shard, Passage { turn: Turn::Own, lent: None }, out);
        }
        let (story, passage) = (self.story, std::mem::replace(&mut self.passage, Passage::FIRST));
        let zone = self.turned_from(view);
        let mut at = Arrival { ingress: InterfaceId(u16::MAX), zone, packet: &mut packet, now, out: &mut *out };
        let verdict = self.error_from_outside(&mut at, view, external).unwrap_or_else(Verdict::from);
        self.dispose(Origin::Own, packet, verdict, Some(read), now, pool, out);
        (self.story, self.passage) = (story, passage);
    }

    fn drop_own(&self, packet: P, out: &mut Output<P>) {
        self.drop(packet, Drop::NoRoute, out);
    }
}
