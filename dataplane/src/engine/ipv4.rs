//! An IPv4 packet: what its destination means, and the session that it belongs to.

use super::{Arrival, Engine, Flow, Prepared, Verdict, is_for_many};
use crate::counters::{Drop, IcmpError, SessionClass};
use crate::packet::Packet;
use crate::packet::parse::{self, Fragment, Transport, View4};
use crate::plan::{Target, ZoneId};
use crate::pool::Proto;
use crate::session::tcp::{Segment, State, Timer};
use crate::session::{Direction, idle_time};
use crate::time::Time;
use crate::trace::SessionStep;

impl<P: Packet> Engine<P> {
    pub(super) fn ipv4(&mut self, at: &mut Arrival<P>, view: &View4, prepared: &Prepared) -> Verdict {
        if let Some(reason) = martian4(view.source, view.destination) {
            return reason.into();
        }
        match prepared.target {
            Some(Target::Broadcast) => return Drop::Broadcast.into(),
            _ if is_for_many(at.packet) => return Drop::LinkBroadcast.into(),
            Some(Target::Local(interface)) => {
                // Our address on the inside is as closed to strangers as the hosts there.
                let (from, to) = (at.zone, self.zone(interface));
                let closed = from != to && self.plan.policy.is_closed(from, to, view.destination);
                return if closed { Drop::Unsolicited.into() } else { Verdict::Punt };
            }
            _ => {}
        }
        if let Some(verdict) = self.exchange4(at, view, prepared.target) {
            return verdict;
        }
        if let Some(verdict) = self.cross4(at, view, prepared.target) {
            return verdict;
        }
        match prepared.target.and_then(|target| target.external_id(view.destination)) {
            Some(id) => self.inbound(at, view, id, prepared),
            None => self.outbound(at, view, prepared),
        }
    }

    /// From inside, or between networks that nothing is translated between.
    pub(super) fn outbound(&mut self, at: &mut Arrival<P>, view: &View4, prepared: &Prepared) -> Verdict {
        let zone = at.zone;
        if let Some(flow) = &prepared.flow {
            if let Some(id) = self.live_session(zone, flow, at.now) {
                return self.hit(at, view, prepared, flow, id);
            }
        } else if view.fragment != Fragment::Whole && self.may_be_translated(zone, view, prepared.target) {
            return Verdict::Fragment;
        } else if view.transport == Transport::IcmpError && self.plan.policy.is_inside(zone) {
            match self.error_from_inside(at, view) {
                Ok(verdict) => return verdict,
                // About a flow that is not translated: routed like any packet.
                Err(_) if self.is_unruled(zone, view, prepared.target) => {}
                Err(reason) => return reason.into(),
            }
        }
        let egress_zone = self.egress_zone(prepared.target);
        let rule = egress_zone.and_then(|to| self.rule_for(zone, to, view));
        match (rule, &prepared.flow) {
            (Some(rule), Some(flow)) => self.open_outbound(at, view, flow, rule),
            (Some(rule), None) => {
                self.story.rule = rule.reference();
                untranslatable(view).into()
            }
            (None, _) => {
                if egress_zone.is_some_and(|to| self.plan.policy.is_closed(zone, to, view.destination)) {
                    return Drop::Unsolicited.into();
                }
                self.route4(at, view, prepared.target)
            }
        }
    }

    /// Toward an external address.
    fn inbound(&mut self, at: &mut Arrival<P>, view: &View4, external: u32, prepared: &Prepared) -> Verdict {
        if let Some(flow) = &prepared.flow {
            if let Some(id) = self.live_session(at.zone, flow, at.now) {
                return self.hit(at, view, prepared, flow, id);
            }
            if self.is_turned(at.zone, view, external) {
                return Verdict::Turn;
            }
            match self.open_inbound(at, view, external, flow) {
                Verdict::Drop(Drop::Unsolicited, _) => {}
                verdict => return verdict,
            }
        } else if view.fragment != Fragment::Whole && self.passage.lent.is_none() {
            return Verdict::Fragment;
        } else if view.transport == Transport::IcmpError {
            if self.is_turned(at.zone, view, external) {
                return Verdict::Turn;
            }
            return match self.error_from_outside(at, view, external) {
                Ok(verdict) => verdict,
                Err(reason) => reason.into(),
            };
        }
        // Nothing leads inside.
        let Some(entry) = self.plan.externals.get(external as usize) else { return Drop::Unsolicited.into() };
        let from_inside = self.plan.policy.is_inside(at.zone);
        let is_icmp = view.protocol == parse::protocol::ICMP;
        let ping = entry.answer_echo && view.transport == Transport::IcmpQuery(true);
        // An address that is also our own is pinged like one; but strangers get no answer from its ports (RFC 5382 REQ-4).
        if (entry.local && (from_inside || is_icmp)) || ping {
            Verdict::Punt
        } else {
            match view.transport {
                Transport::IcmpOther => Drop::IcmpType,
                Transport::Other => Drop::Protocol,
                _ => Drop::Unsolicited,
            }
            .into()
        }
    }

    /// A packet of a known session: no rule is consulted.
    fn hit(&mut self, at: &mut Arrival<P>, view: &View4, prepared: &Prepared, flow: &Flow, id: u32) -> Verdict {
        let Some(session) = self.shards.get(flow.shard.index()).and_then(|shard| shard.session(id)) else {
            return Drop::Unsolicited.into();
        };
        let (addresses, transport) = (session.address_delta(), session.transport_delta);
        let (to, target, deltas, zone) = match flow.direction {
            // Outbound, a translation leaves the destination as it is.
            Direction::Outbound => (session.outside(), prepared.target, (addresses, transport), session.outside_zone()),
            Direction::Inbound => {
                let to = session.inside().reversed();
                let deltas = (addresses.inverse(), transport.inverse());
                (to, self.plan.target4(to.destination), deltas, session.inside_zone())
            }
        };
        self.story.rule = session.rule();
        self.story.session = SessionStep::Hit;
        let egress = match self.forward4(at, view, to.destination, target) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        // Routes may have changed since; a translated packet is not led to where its translation does not hold.
        if self.zone(egress.interface) != zone {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NetUnreachable4, 0)));
        }
        self.remember_hop(flow, id);
        self.advance(at.packet.data(), view, flow, id, at.now);
        self.translate(at, view, flow.direction, &to, deltas, egress)
    }

    /// The hop that was looked up last is the one of this session's packets.
    pub(super) fn remember_hop(&mut self, flow: &Flow, id: u32) {
        let hop = self.hop;
        if let Some(session) = self.shards.get_mut(flow.shard.index()).and_then(|shard| shard.session_mut(id)) {
            session.hops[flow.direction as usize] = hop;
        }
    }

    /// The session is used: its packet is counted, its state and its deadline move on. A later fragment has no header to move it
    /// on by: it stays as its first one has left it.
    pub(super) fn advance(&mut self, frame: &[u8], view: &View4, flow: &Flow, id: u32, now: Time) {
        let timers = &self.plan.spec.timers;
        let shard = &mut self.shards[flow.shard.index()];
        shard.count(id, flow.direction, view.end - view.l3);
        let Some(session) = shard.session_mut(id).filter(|_| view.fragment != Fragment::Later) else { return };
        let outbound = flow.direction == Direction::Outbound;
        let (class, restart) = match flow.proto {
            Proto::Tcp => {
                let segment = Segment::read(frame.get(view.l4..view.end).unwrap_or(&[]));
                if session.tcp.is_reopened_by(&segment) {
                    session.set_opened_inside(outbound);
                    self.counters.session_replacements.add(1);
                    self.counters.session_creations.add(1);
                }
                let timer = session.tcp.pass(outbound == session.opened_inside(), &segment);
                let class = match session.tcp.state() {
                    State::Init | State::Adopted | State::AdoptedFin => SessionClass::TcpOpening,
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
                let (class, mapping, inbound_refresh) = (session.class, session.mapping, session.inbound_refresh());
                let idle = idle_time(timers, class, session.inside().destination_port);
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
    pub(super) fn live_session(&mut self, zone: ZoneId, flow: &Flow, now: Time) -> Option<u32> {
        let (shard, mut context) = self.shard_at(flow.shard, now);
        let id = shard.find(flow.hash, flow.direction, flow.tuple.key(flow.direction), flow.proto)?;
        let session = shard.session(id)?;
        if session.deadline > now {
            if session.epoch != context.epoch && !shard.recheck(&mut context, id) {
                return None;
            }
            let session = shard.session(id)?;
            return (session.zone(flow.direction) == zone).then_some(id);
        }
        context.counters.session_timeouts.add(1);
        shard.remove_session(&mut context, id);
        None
    }
}

/// Addresses that never cross a router (RFC 1812 §5.3.7, RFC 3927 §7).
pub(super) fn martian4(source: u32, destination: u32) -> Option<Drop> {
    let link_local = |address: u32| address >> 16 == 0xa9fe;
    match (source >> 24, destination >> 24) {
        // Before the source: a host without an address yet asks all others for one from 0.0.0.0.
        (_, 224..=239) => Some(Drop::Multicast),
        (_, 255) if destination == u32::MAX => Some(Drop::Broadcast),
        (0 | 127 | 224.., _) => Some(Drop::BadSource),
        (_, 0 | 127 | 240..) => Some(Drop::BadDestination),
        _ if link_local(source) || link_local(destination) => Some(Drop::LinkLocal),
        _ => None,
    }
}

/// Why a packet that a rule covers can't be translated.
fn untranslatable(view: &View4) -> Drop {
    match view.transport {
        Transport::IcmpOther => Drop::IcmpType,
        Transport::IcmpError => Drop::IcmpErrorNoSession,
        _ => Drop::Protocol,
    }
}
