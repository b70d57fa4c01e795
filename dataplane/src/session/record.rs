//! What a shard remembers: sessions, mappings, subscribers.

use super::ends::{Ends, Ends6, Ends44, Ends64, Ends66, FlowKey};
use super::slab::{Record, Slab};
use super::tcp::Tcp;
use super::wheel::{Link, Links};
use crate::counters::SessionClass;
use crate::packet::checksum::Delta;
use crate::plan::{Filtering, ZoneId};
use crate::pool::Proto;
use crate::route::neighbour::Hop;
use crate::time::Time;
use crate::trace::RuleRef;

/// No record.
pub const NONE: u32 = u32::MAX;

/// Addresses and ports of one direction of a flow, as they stand in a packet. Host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple4 {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Tuple4 {
    /// What a packet of this direction is found by, whose flow's outbound packets look like this on its side.
    #[inline]
    #[must_use]
    pub const fn key(&self, direction: Direction) -> FlowKey {
        let Tuple4 { source, destination, source_port, destination_port } = *self;
        match direction {
            Direction::Outbound => FlowKey::new([source, destination], [source_port, destination_port]),
            Direction::Inbound => FlowKey::new([destination, source], [destination_port, source_port]),
        }
    }

    /// The tuple of the other direction.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Tuple4 {
        Tuple4 {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// The way of a packet through a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From inside to outside.
    Outbound,
    /// From outside to inside.
    Inbound,
}

/// One flow with its two directions. Of IPv4 it is a cache line, which is all that a packet of it reads and writes; of others it
/// reaches into two.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Session<E: Ends = Ends44> {
    line: [E::Line; 0],
    ends: E,
    /// Inside, remote and external port.
    ports: [u16; 3],
    /// Its protocol.
    pub proto: Proto,
    /// What it is counted under.
    pub class: SessionClass,
    /// The engine's epoch in which it was checked against the plan, and its ways out were found.
    pub epoch: u32,
    /// When it ends, unless a packet comes before.
    pub deadline: Time,
    /// The TCP state; unused by other protocols.
    pub tcp: Tcp,
    /// Its mapping, or [`NONE`] for a static entry's.
    pub mapping: u32,
    rule: u16,
    /// What an outbound translation does to the transport checksum (for ICMP: without the addresses).
    pub transport_delta: Delta,
    /// The ways out, of outbound and inbound packets, as far as they are known in this epoch.
    pub hops: [Hop; 2],
    /// The zones that its outbound and inbound packets come from: inside and outside.
    pub zones: [ZoneId; 2],
    flags: u8,
    rule_kind: u8,
}

/// There is a session in this place.
const USED: u8 = 1;
const OPENED_INSIDE: u8 = 2;
const INBOUND_REFRESH: u8 = 4;
const PERMISSION: u8 = 8;
const OWN_IDLE: u8 = 16;

impl<E: Ends> Default for Session<E> {
    fn default() -> Self {
        Session {
            line: [],
            ends: E::default(),
            ports: [0; 3],
            proto: Proto::default(),
            class: SessionClass::default(),
            epoch: 0,
            deadline: Time::ZERO,
            tcp: Tcp::default(),
            mapping: NONE,
            rule: 0,
            transport_delta: Delta::default(),
            hops: [Hop::UNKNOWN; 2],
            zones: [ZoneId(0); 2],
            flags: 0,
            rule_kind: 0,
        }
    }
}

impl Session {
    /// A session between an inside tuple and what it looks like outside: `external` in place of the inside address and
    /// port. The rest is to be filled in.
    #[must_use]
    pub fn new(inside: &Tuple4, external: (u32, u16), proto: Proto, rule: RuleRef) -> Self {
        let ends = Ends44([inside.source, inside.destination, external.0]);
        Session::between(ends, [inside.source_port, inside.destination_port, external.1], proto, rule)
    }

    /// An outbound packet as it looks inside.
    #[inline]
    #[must_use]
    pub const fn inside(&self) -> Tuple4 {
        let ([source, destination, _], [source_port, destination_port, _]) = (self.ends.0, self.ports);
        Tuple4 { source, destination, source_port, destination_port }
    }

    /// An outbound packet as it looks outside.
    #[inline]
    #[must_use]
    pub const fn outside(&self) -> Tuple4 {
        let ([_, destination, source], [_, destination_port, source_port]) = (self.ends.0, self.ports);
        Tuple4 { source, destination, source_port, destination_port }
    }

    /// For a packet of this direction, the address and port that it loses and those that it gets in their place: an outbound
    /// one for its source, an inbound one for its destination.
    #[inline]
    #[must_use]
    pub const fn replacement(&self, direction: Direction) -> ((u32, u16), (u32, u16)) {
        let (from, to) = (2 * direction as usize, 2 - 2 * direction as usize);
        ((self.ends.0[from], self.ports[from]), (self.ends.0[to], self.ports[to]))
    }

    /// What an outbound translation does to the IPv4 header checksum.
    #[inline]
    #[must_use]
    pub const fn address_delta(&self) -> Delta {
        Delta::NONE.long(self.ends.0[0], self.ends.0[2])
    }
}

impl<E: Ends> Session<E> {
    /// A session between these ends, whose ports are those of the inside, the remote and the external one. The rest is to be
    /// filled in.
    #[must_use]
    pub fn between(ends: E, ports: [u16; 3], proto: Proto, rule: RuleRef) -> Self {
        let mut session = Session { ends, ports, proto, flags: USED, ..Session::default() };
        session.set_rule(rule);
        session
    }

    /// What a packet of this direction is found by.
    #[inline]
    #[must_use]
    pub fn key(&self, direction: Direction) -> E::Key {
        self.ends.key(&self.ports, direction)
    }

    /// The zone that a packet of this direction comes from.
    #[inline]
    #[must_use]
    pub const fn zone(&self, direction: Direction) -> ZoneId {
        self.zones[direction as usize]
    }

    /// The zone of the inside.
    #[inline]
    #[must_use]
    pub const fn inside_zone(&self) -> ZoneId {
        self.zones[0]
    }

    /// The zone of the outside.
    #[inline]
    #[must_use]
    pub const fn outside_zone(&self) -> ZoneId {
        self.zones[1]
    }

    /// The rule that made it.
    #[must_use]
    pub const fn rule(&self) -> RuleRef {
        match self.rule_kind {
            1 => RuleRef::Nat44(self.rule),
            2 => RuleRef::Forward(self.rule),
            3 => RuleRef::Static(self.rule),
            _ => RuleRef::None,
        }
    }

    fn set_rule(&mut self, rule: RuleRef) {
        (self.rule_kind, self.rule) = match rule {
            RuleRef::None | RuleRef::Prefix(_) | RuleRef::Crossing(_) => (0, 0),
            RuleRef::Nat44(rule) => (1, rule),
            RuleRef::Forward(rule) => (2, rule),
            RuleRef::Static(rule) => (3, rule),
        };
    }

    /// Whether the inside end opened it; of TCP: is the client.
    #[inline]
    #[must_use]
    pub const fn opened_inside(&self) -> bool {
        self.flags & OPENED_INSIDE != 0
    }

    /// Says whether the inside end opened it.
    pub fn set_opened_inside(&mut self, yes: bool) {
        self.set(OPENED_INSIDE, yes);
    }

    /// Whether packets from outside keep it alive.
    #[inline]
    #[must_use]
    pub const fn inbound_refresh(&self) -> bool {
        self.flags & INBOUND_REFRESH != 0
    }

    /// Says whether packets from outside keep it alive.
    pub fn set_inbound_refresh(&mut self, yes: bool) {
        self.set(INBOUND_REFRESH, yes);
    }

    /// Says whether it lasts longer or less long without packets than most of UDP do: what its port has of its own.
    pub fn set_own_idle(&mut self, yes: bool) {
        self.set(OWN_IDLE, yes);
    }

    /// Whether each packet, from wherever, gives it the time that most sessions of UDP have.
    #[inline]
    #[must_use]
    pub const fn has_common_idle(&self) -> bool {
        self.flags & (OWN_IDLE | INBOUND_REFRESH) == INBOUND_REFRESH
    }

    /// Whether it holds a permission for its remote address (address-dependent filtering).
    #[must_use]
    pub const fn has_permission(&self) -> bool {
        self.flags & PERMISSION != 0
    }

    pub(super) fn set_permission(&mut self, yes: bool) {
        self.set(PERMISSION, yes);
    }

    fn set(&mut self, flag: u8, yes: bool) {
        self.flags = if yes { self.flags | flag } else { self.flags & !flag };
    }
}

/// What a session has carried, if that is counted: 32 bytes more for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, outbound and inbound.
    pub packets: [u64; 2],
    /// Bytes in them, from their IP headers on, as they came in.
    pub bytes: [u64; 2],
}

impl<E: Ends> Record for Session<E> {
    type Side = Link;
    type Extra = Counts;

    #[inline]
    fn is_used(&self) -> bool {
        self.flags & USED != 0
    }
}

/// The binding of an inside transport address to an external one.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Of a live mapping: until when packets from inside keep it, where those from outside do not. Of a held-down one:
    /// when it gives its port back.
    pub deadline: Time,
    /// Inside address, host order.
    pub inside: u32,
    /// Its subscriber.
    pub subscriber: u32,
    /// Its sessions. With none left it ends, or is held down.
    pub sessions: u32,
    /// Inside port.
    pub inside_port: u16,
    /// External port.
    pub external_port: u16,
    /// External address, by index in the plan.
    pub external: u16,
    /// The pool that it was made from, by index: part of what it is found by.
    pub pool: u16,
    /// The rule that made it, by index.
    pub rule: u16,
    /// Its protocol.
    pub proto: Proto,
    /// What it admits from outside.
    pub filtering: Filtering,
}

impl Default for Mapping {
    fn default() -> Self {
        Mapping {
            deadline: Time::ZERO,
            inside: 0,
            subscriber: NONE,
            sessions: 0,
            inside_port: 0,
            external_port: 0,
            external: 0,
            pool: 0,
            rule: 0,
            proto: Proto::default(),
            filtering: Filtering::default(),
        }
    }
}

impl Record for Mapping {
    type Side = Link;
    type Extra = ();

    /// Every mapping has a subscriber.
    #[inline]
    fn is_used(&self) -> bool {
        self.subscriber != NONE
    }
}

/// Leave for a remote address to send to an inside endpoint (address-dependent filtering, RFC 4787 §5).
#[derive(Clone, Copy, Debug, Default)]
pub struct Permission {
    /// Inside address, host order.
    pub inside: u32,
    /// Remote address, host order.
    pub remote: u32,
    /// Inside port.
    pub inside_port: u16,
    /// For which protocol.
    pub proto: Proto,
    /// There is a permission in this place.
    pub used: bool,
    /// The sessions with that address. With none left the permission ends.
    pub sessions: u32,
}

impl Record for Permission {
    type Side = ();
    type Extra = ();

    fn is_used(&self) -> bool {
        self.used
    }
}

/// An inside address that has mappings, and the external address that it is paired with in one pool (RFC 4787 REQ-2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscriber {
    /// Inside address, host order.
    pub inside: u32,
    /// The pool, by index.
    pub pool: u16,
    /// The external address, by index in the plan.
    pub external: u16,
    /// Its mappings. With none left the pairing ends.
    pub mappings: u32,
    /// There is a subscriber in this place.
    pub used: bool,
}

impl Record for Subscriber {
    type Side = ();
    type Extra = ();

    fn is_used(&self) -> bool {
        self.used
    }
}

impl<E: Ends> Links for Slab<Session<E>> {
    fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.side_mut(id)
    }
}

impl Links for Slab<Mapping> {
    fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.side_mut(id)
    }
}

// One cache line, and half of one; both with a place in the timer wheel beside them. Where sessions are larger, none reaches
// into a third line.
const _: () = assert!(size_of::<Session>() == 64 && size_of::<Mapping>() == 32 && size_of::<Link>() == 8);
const _: () = assert!(size_of::<Counts>() == 32);
const _: () = assert!(size_of::<Session<Ends6>>() == 96 && align_of::<Session<Ends6>>() == 32);
const _: () = assert!(size_of::<Session<Ends64>>() == 80 && align_of::<Session<Ends64>>() == 16);
const _: () = assert!(size_of::<Session<Ends66>>() == 128 && align_of::<Session<Ends66>>() == 64);
