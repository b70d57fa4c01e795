//! A new session: the rule or static entry that covers a flow, its mapping, its record.

use super::{Arrival, Engine, Flow, Verdict};
use crate::counters::{Drop, IcmpError, MappingFailure, SessionClass};
use crate::packet::Packet;
use crate::packet::checksum::Delta;
use crate::packet::parse::{self, Transport, View4, tcp_flags};
use crate::plan::{Filtering, MidStream, ZoneId};
use crate::policy::Translation;
use crate::pool::{Owner, Proto};
use crate::session::tcp::{self, Segment, Tcp};
use crate::session::{Direction, NONE, Session, Tuple4, idle_time, recheck};
use crate::stages::Stage;
use crate::steer::shard_of4;
use crate::time::Time;
use crate::trace::{RuleRef, SessionStep};
use crate::translate::napt;

impl<P: Packet> Engine<P> {
    /// What translates a flow from inside: the static entry that its source has, or a rule.
    pub(super) fn rule_for(&self, from: ZoneId, to: ZoneId, view: &View4) -> Option<Translation> {
        let proto = Proto::from_ip(view.protocol);
        self.plan.policy.translation(from, to, view.source, proto, view.source_port, view.destination)
    }

    pub(super) fn open_outbound(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        flow: &Flow,
        rule: Translation,
    ) -> Verdict {
        if let Err(verdict) = self.may_open_by(rule, view) {
            return verdict;
        }
        let egress = match self.forward4(at, view, view.destination, self.plan.target4(view.destination)) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        match self.new_outbound(at, view, flow, rule, self.zone(egress.interface)) {
            Ok((outside, deltas)) => self.translate(at, view, Direction::Outbound, &outside, deltas, egress),
            Err(verdict) => verdict,
        }
    }

    /// Whether a packet from inside may open a session by this rule.
    pub(super) fn may_open_by(&mut self, rule: Translation, view: &View4) -> Result<(), Verdict> {
        self.story.rule = rule.reference();
        if !may_open(view) {
            match (view.transport, self.mid_stream(rule)) {
                (Transport::Tcp(flags), MidStream::Adopt) if tcp::adopts(flags) => {}
                (Transport::Tcp(flags), MidStream::Reset) if flags & tcp_flags::RST == 0 => return Err(Verdict::Reset),
                (Transport::Tcp(_), _) => return Err(Drop::TcpNotSyn.into()),
                _ => return Err(Drop::Unsolicited.into()),
            }
        }
        Ok(())
    }

    /// Opens a session from inside toward a zone: how its packets look there, and what that does to their checksums.
    pub(super) fn new_outbound(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        flow: &Flow,
        rule: Translation,
        zone: ZoneId,
    ) -> Result<(Tuple4, (Delta, Delta)), Verdict> {
        let new = self.mapped(flow, rule, (at.zone, zone), at.now).map_err(|reason| {
            // It is there, and is being ended.
            if reason == Drop::MappingEnds {
                return reason.into();
            }
            let cause = if reason == Drop::NoPort { MappingFailure::Ports } else { MappingFailure::Memory };
            self.counters.mapping_failures[cause as usize].add(1);
            Verdict::Drop(reason, Some((IcmpError::HostUnreachable4, 0)))
        })?;
        let outside = new.outside;
        match self.open(at.packet.data(), view, flow, new, at.now) {
            Ok(deltas) => Ok((outside, deltas)),
            // The flow is there, and this packet came from another zone: its sender is not who it says.
            Err(Drop::FlowConflict) => Err(Drop::FlowConflict.into()),
            Err(reason) => Err(Verdict::Drop(reason, Some((IcmpError::HostUnreachable4, 0)))),
        }
    }

    /// What a session from inside will be, between these zones: its mapping is there, or is made.
    pub(super) fn mapped(
        &mut self,
        flow: &Flow,
        rule: Translation,
        zones: (ZoneId, ZoneId),
        now: Time,
    ) -> Result<NewSession, Drop> {
        self.counters.stages.end(Stage::Decide, 1);
        let (external, port, mapping, filtering, inbound_refresh) = match rule {
            Translation::Static(entry) => (entry.external, entry.external_port, NONE, entry.filtering, true),
            Translation::Nat44(index) => {
                let mapping = self.mapping(flow, index, now)?;
                let made = self.shards[flow.shard.index()].mapping(mapping).ok_or(Drop::NoPort)?;
                let external =
                    self.plan.externals.get(usize::from(made.external)).map_or(0, |external| external.address);
                let rule = self.plan.spec.nat44.get(usize::from(index));
                let refresh = rule.is_none_or(|rule| rule.inbound_refresh);
                let filtering = rule.map_or(made.filtering, |rule| rule.filtering.of(flow.proto));
                (external, made.external_port, mapping, filtering, refresh)
            }
        };
        self.counters.stages.end(Stage::Mapping, 1);
        let outside = outside_tuple(flow.tuple, external, port);
        let (inside, rule) = (flow.tuple, rule.reference());
        Ok(NewSession { inside, outside, zones, mapping, rule, filtering, inbound_refresh, opened_inside: true })
    }

    /// What a rule does with a TCP segment in mid-stream. Behind a static entry it is dropped.
    fn mid_stream(&self, rule: Translation) -> MidStream {
        match rule {
            Translation::Nat44(index) => {
                self.plan.spec.nat44.get(usize::from(index)).map_or(MidStream::Drop, |rule| rule.mid_stream)
            }
            Translation::Static(_) => MidStream::Drop,
        }
    }

    /// The mapping of an inside endpoint: the one that it has (RFC 4787 REQ-1), or a new one.
    pub(super) fn mapping(&mut self, flow: &Flow, rule: u16, now: Time) -> Result<u32, Drop> {
        let pool = self.plan.spec.nat44.get(usize::from(rule)).map_or(0, |rule| rule.pool.0);
        let (inside, port, proto) = (flow.tuple.source, flow.tuple.source_port, flow.proto);
        let (shard, mut context) = self.shard_at(flow.shard, now);
        match shard.mapping_of_inside(context.secret, inside, port, proto, pool) {
            Some(id) if shard.reuse_mapping(&context, id, rule) => Ok(id),
            Some(_) => Err(Drop::MappingEnds),
            None => shard.add_mapping(&mut context, rule, inside, port, proto),
        }
    }

    /// Whether an inside endpoint has a mapping that a flow by this rule would use.
    pub(super) fn has_mapping(&self, flow: &Flow, rule: u16) -> bool {
        let pool = self.plan.spec.nat44.get(usize::from(rule)).map_or(0, |rule| rule.pool.0);
        let (inside, port) = (flow.tuple.source, flow.tuple.source_port);
        self.shards[flow.shard.index()].mapping_of_inside(&self.secret, inside, port, flow.proto, pool).is_some()
    }

    /// A packet from outside without a session: through a static entry, or a mapping whose filtering admits it.
    pub(super) fn open_inbound(&mut self, at: &mut Arrival<P>, view: &View4, external: u32, flow: &Flow) -> Verdict {
        let plan = &*self.plan;
        let zone = at.zone;
        let (port, remote) = (flow.tuple.source_port, flow.tuple.destination);
        let Some(entry) = plan.externals.get(external as usize) else { return Drop::Unsolicited.into() };
        let static_entry = match self.leases.owner(external, port) {
            // Where a reload has just ended the port's lease, this is still the shard that had it: the next packet finds the right one.
            Owner::Static => plan
                .policy
                .static_in(entry.address, entry.static_nat, flow.proto, port)
                .filter(|entry| shard_of4(entry.inside) == flow.shard),
            Owner::Free | Owner::Shard(_) => None,
        };
        let (inside, inside_port, mapping, rule, filtering, refresh, (to, from)) = if let Some(entry) = static_entry {
            let zones = (entry.inside_zone, entry.outside_zone);
            (entry.inside, entry.inside_port, NONE, entry.rule, entry.filtering, true, zones)
        } else {
            let Some(shard) = self.shards.get(flow.shard.index()) else { return Drop::Unsolicited.into() };
            let found = shard.mapping_of_external(&self.secret, external, port, flow.proto);
            let Some((id, mapping)) = found.and_then(|id| shard.mapping(id).map(|mapping| (id, *mapping))) else {
                return Drop::Unsolicited.into();
            };
            let Some(rule) = plan.spec.nat44.get(usize::from(mapping.rule)) else { return Drop::Unsolicited.into() };
            // A reload may have left it to be ended.
            if !recheck::allows_mapping(plan, &mapping) {
                return Drop::Unsolicited.into();
            }
            let reference = RuleRef::Nat44(mapping.rule);
            let filtering = rule.filtering.of(flow.proto);
            let zones = (rule.from, rule.to);
            (mapping.inside, mapping.inside_port, id, reference, filtering, rule.inbound_refresh, zones)
        };
        self.story.rule = rule;
        if zone != from {
            return Drop::Unsolicited.into();
        }
        let (shard, context) = self.shard_at(flow.shard, at.now);
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
        let egress = match self.forward4(at, view, inside, self.plan.target4(inside)) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        // What is inside is not led outside, wherever routes lead by now.
        if self.zone(egress.interface) != to {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NetUnreachable4, 0)));
        }
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
        match self.open(at.packet.data(), view, flow, new, at.now) {
            Ok((addresses, transport)) => {
                let (addresses, transport) = (addresses.inverse(), transport.inverse());
                let to = tuple.reversed();
                self.translate(at, view, Direction::Inbound, &to, (addresses, transport), egress)
            }
            Err(reason) => reason.into(),
        }
    }

    /// Adds the session that a packet opens. Without room for it the mapping, if it was made for it, goes too.
    fn open(
        &mut self,
        frame: &[u8],
        view: &View4,
        flow: &Flow,
        new: NewSession,
        now: Time,
    ) -> Result<(Delta, Delta), Drop> {
        let (class, tcp) = match flow.proto {
            Proto::Tcp => {
                let segment = Segment::read(frame.get(view.l4..view.end).unwrap_or(&[]));
                let tcp = if segment.opens() { Tcp::open(&segment) } else { Tcp::adopt(&segment) };
                (SessionClass::TcpOpening, tcp)
            }
            Proto::Udp => (SessionClass::Udp, Tcp::default()),
            Proto::Icmp => (SessionClass::Icmp, Tcp::default()),
        };
        self.make_way(flow, &new, now)?;
        let (address_delta, transport_delta) = napt::deltas(flow.proto, &new.inside, &new.outside);
        let id = self.add(flow, &new, (class, tcp), transport_delta, now)?;
        self.shards[flow.shard.index()].count(id, flow.direction, view.end - view.l3);
        self.counters.session_adoptions.add(u64::from(tcp.is_adopted()));
        self.story.session = SessionStep::New;
        Ok((address_delta, transport_delta))
    }

    /// One host may have two external endpoints, and one peer may use both: the inside could not tell two sessions apart, so
    /// there is no second one.
    fn make_way(&mut self, flow: &Flow, new: &NewSession, now: Time) -> Result<(), Drop> {
        let key = new.inside.key(Direction::Outbound);
        let hash = match flow.direction {
            Direction::Outbound => flow.hash,
            Direction::Inbound => self.secret.flow_hash(key, flow.proto),
        };
        let (shard, mut context) = self.shard_at(flow.shard, now);
        if let Some(id) = shard.find(hash, Direction::Outbound, key, flow.proto) {
            if shard.session(id).is_some_and(|session| session.deadline > now) {
                shard.abandon_mapping(&mut context, new.mapping);
                return Err(Drop::FlowConflict);
            }
            context.counters.session_timeouts.add(1);
            shard.remove_session(&mut context, id);
        }
        Ok(())
    }

    /// Adds a session that is not there. Its packets leave by the hop that was found last.
    pub(super) fn add(
        &mut self,
        flow: &Flow,
        new: &NewSession,
        (class, tcp): (SessionClass, Tcp),
        transport_delta: Delta,
        now: Time,
    ) -> Result<u32, Drop> {
        let hashes = match flow.direction {
            Direction::Outbound => {
                let outside = new.outside.key(Direction::Inbound);
                [flow.hash, self.secret.flow_hash(outside, flow.proto)]
            }
            Direction::Inbound => {
                let inside = new.inside.key(Direction::Outbound);
                [self.secret.flow_hash(inside, flow.proto), flow.hash]
            }
        };
        let idle = idle_time(&self.plan.spec.timers, class, new.inside.destination_port);
        let hop = self.hop;
        let (shard, mut context) = self.shard_at(flow.shard, now);
        // Where it will be entered last.
        shard.home_bucket(hashes[1]);
        let mut deadline = now + idle;
        if !new.inbound_refresh && flow.proto != Proto::Tcp {
            deadline = shard.keep_mapping(new.mapping, new.opened_inside, deadline);
        }
        let external = (new.outside.source, new.outside.source_port);
        let mut session = Session::new(&new.inside, external, flow.proto, new.rule);
        session.deadline = deadline;
        session.class = class;
        session.epoch = context.epoch;
        session.tcp = tcp;
        session.mapping = new.mapping;
        session.transport_delta = transport_delta;
        session.zones = new.zones.into();
        session.set_opened_inside(new.opened_inside);
        session.set_inbound_refresh(new.inbound_refresh);
        session.set_own_idle(idle != context.plan.spec.timers.udp);
        session.hops[flow.direction as usize] = hop;
        let added = shard.add_session(&mut context, session, hashes, new.filtering);
        if added.is_err() {
            shard.abandon_mapping(&mut context, new.mapping);
        }
        self.counters.stages.end(Stage::Open, 1);
        added
    }
}

/// A session to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSession {
    pub inside: Tuple4,
    pub outside: Tuple4,
    /// Inside and outside.
    zones: (ZoneId, ZoneId),
    mapping: u32,
    rule: RuleRef,
    filtering: Filtering,
    inbound_refresh: bool,
    opened_inside: bool,
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
