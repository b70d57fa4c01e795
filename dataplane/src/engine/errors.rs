//! ICMP errors about translated flows (RFC 5508 §4).

use super::{Arrival, Engine, Story, Verdict};
use crate::counters::Drop;
use crate::packet::Packet;
use crate::packet::parse::{Fragment, View4};
use crate::pool::Proto;
use crate::session::{Direction, Session, Tuple4, recheck};
use crate::steer::{ShardId, shard_of4};
use crate::time::Time;
use crate::trace::{RuleRef, SessionStep};
use crate::translate::icmp;

impl<P: Packet> Engine<P> {
    /// From outside: the quoted packet is one that we sent, from an external address.
    pub(super) fn error_from_outside(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        external: u32,
    ) -> Result<Verdict, Drop> {
        let quote = icmp::quote(at.packet.data(), view)?;
        let sent = quote.tuple;
        // The error comes to the address that the packet was sent from (RFC 5508 REQ-4).
        if sent.source != view.destination {
            return Err(Drop::IcmpErrorNoSession);
        }
        let shard_id = self.owner(external, quote.proto, sent.source_port).ok_or(Drop::IcmpErrorNoSession)?;
        let session = self.quoted_session(shard_id, Direction::Inbound, &sent, quote.proto, at.now);
        let plan = &*self.plan;
        let shard = self.shards.get(shard_id.index()).ok_or(Drop::IcmpErrorNoSession)?;
        let (inside, rule) = if let Some(session) = session {
            (session.inside(), session.rule())
        } else if let Some(mapping) = shard
            .mapping_of_external(&self.secret, external, sent.source_port, quote.proto)
            .and_then(|id| shard.mapping(id))
            .filter(|mapping| recheck::allows_mapping(plan, mapping))
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
        if plan.outside_zone(rule) != Some(at.zone) {
            return Err(Drop::IcmpErrorNoSession);
        }
        self.story = Story { shard: Some(shard_id.0), rule, session: SessionStep::Quoted, ..self.story };
        let to = plan.inside_zone(rule);
        let egress = match self.forward4(at, view, inside.source, self.plan.target4(inside.source)) {
            Ok(egress) => egress,
            Err(verdict) => return Ok(verdict),
        };
        if to != Some(self.zone(egress.interface)) {
            return Err(Drop::NoRoute);
        }
        let outer = Tuple4 { source: view.source, destination: inside.source, ..Tuple4::default() };
        icmp::rewrite(at.packet.data_mut(), view, &quote, &outer, &inside);
        at.packet.truncate(view.end);
        self.counters.nat44[Direction::Inbound as usize].add(1);
        self.tell_after(view, &outer);
        Ok(Verdict::Transmit(egress))
    }

    /// The live session that a quoted packet belongs to, by its outbound tuple.
    fn quoted_session(
        &mut self,
        shard: ShardId,
        direction: Direction,
        tuple: &Tuple4,
        proto: Proto,
        now: Time,
    ) -> Option<Session> {
        let key = tuple.key(direction);
        let hash = self.secret.flow_hash(key, proto);
        let (shard, mut context) = self.shard_at(shard, now);
        let id = shard.find(hash, direction, key, proto)?;
        let session = shard.session(id).filter(|session| session.deadline > now)?;
        if session.epoch != context.epoch && !shard.recheck(&mut context, id) {
            return None;
        }
        shard.session(id).copied()
    }

    /// From inside: the quoted packet is one that we delivered, to an inside address.
    pub(super) fn error_from_inside(&mut self, at: &mut Arrival<P>, view: &View4) -> Result<Verdict, Drop> {
        if view.fragment != Fragment::Whole {
            return Err(Drop::Fragment);
        }
        let delivered = self.delivered(at, view)?;
        let egress = match self.forward4(at, view, view.destination, self.plan.target4(view.destination)) {
            Ok(egress) => egress,
            Err(verdict) => return Ok(verdict),
        };
        if self.zone(egress.interface) != delivered.session.outside_zone() {
            return Err(Drop::NoRoute);
        }
        self.translate_delivered(at, view, &delivered);
        Ok(Verdict::Transmit(egress))
    }

    /// The packet that an ICMP error from inside quotes, and its session.
    pub(super) fn delivered(&mut self, at: &mut Arrival<P>, view: &View4) -> Result<Delivered, Drop> {
        let quote = icmp::quote(at.packet.data(), view)?;
        // The error goes back to where the packet came from, and nowhere else.
        if quote.tuple.source != view.destination {
            return Err(Drop::IcmpErrorNoSession);
        }
        // An outbound packet of the flow is the delivered one, turned round.
        let key = quote.tuple.reversed();
        let shard_id = shard_of4(key.source);
        let session = self.quoted_session(shard_id, Direction::Outbound, &key, quote.proto, at.now);
        let session = session.filter(|session| session.inside_zone() == at.zone).ok_or(Drop::IcmpErrorNoSession)?;
        // The outer source: a router with an address of its own outside keeps that, any other borrows the session's.
        let own = self.plan.policy.whole_out(view.source).filter(|it| it.outside_zone == session.outside_zone());
        let source = own.map_or(session.outside().source, |entry| entry.external);
        self.story =
            Story { shard: Some(shard_id.0), rule: session.rule(), session: SessionStep::Quoted, ..self.story };
        Ok(Delivered { quote, session, source })
    }

    /// Rewrites an ICMP error from inside as it looks outside.
    pub(super) fn translate_delivered(&mut self, at: &mut Arrival<P>, view: &View4, delivered: &Delivered) {
        let Delivered { quote, session, source } = delivered;
        let outer = Tuple4 { source: *source, destination: view.destination, ..Tuple4::default() };
        icmp::rewrite(at.packet.data_mut(), view, quote, &outer, &session.outside().reversed());
        at.packet.truncate(view.end);
        if !view.dont_fragment {
            self.identify(at.packet.data_mut(), view);
        }
        self.counters.nat44[Direction::Outbound as usize].add(1);
        self.tell_after(view, &outer);
    }
}

/// A packet that was delivered to an inside host, and about which an ICMP error has come.
pub(super) struct Delivered {
    quote: icmp::Quote,
    pub(super) session: Session,
    /// The source that the error leaves with, host order.
    source: u32,
}
