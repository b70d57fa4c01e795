//! What a shard remembers: sessions, mappings, subscribers.

use super::slab::Slab;
use super::tcp::Tcp;
use super::wheel::{Link, Links};
use crate::counters::SessionClass;
use crate::packet::checksum::Delta;
use crate::plan::{Filtering, ZoneId};
use crate::pool::Proto;
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
pub enum Direction {
    /// From inside to outside.
    Outbound,
    /// From outside to inside.
    Inbound,
}

/// One flow with its two directions. What a hit reads and writes comes first, within a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Session {
    /// An outbound packet as it looks inside.
    pub inside: Tuple4,
    /// An outbound packet as it looks outside.
    pub outside: Tuple4,
    /// When it ends, unless a packet comes before.
    pub deadline: Time,
    /// The plan that it was checked against.
    pub generation: u32,
    /// Its mapping, or [`NONE`] for a static entry's.
    pub mapping: u32,
    /// The rule that made it.
    pub rule: RuleRef,
    /// What an outbound translation does to the IPv4 header checksum.
    pub address_delta: Delta,
    /// What it does to the transport checksum (for ICMP: without the addresses).
    pub transport_delta: Delta,
    /// Its protocol.
    pub proto: Proto,
    /// What it is counted under.
    pub class: SessionClass,
    /// Whether the inside end opened it; of TCP: is the client.
    pub opened_inside: bool,
    /// The permission for its remote address (address-dependent filtering), or [`NONE`].
    pub permission: u32,
    /// The zone that its outbound packets come from.
    pub inside_zone: ZoneId,
    /// The zone that its inbound packets come from.
    pub outside_zone: ZoneId,
    /// Whether packets from outside keep it alive.
    pub inbound_refresh: bool,
    /// The TCP state; unused by other protocols.
    pub tcp: Tcp,
    /// Its place in the timer wheel.
    pub link: Link,
}

/// The binding of an inside transport address to an external one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mapping {
    /// Inside address, host order.
    pub inside: u32,
    /// Inside port.
    pub inside_port: u16,
    /// External port.
    pub external_port: u16,
    /// External address, by index in the plan.
    pub external: u32,
    /// The pool that it was made from, by index: part of what it is found by.
    pub pool: u16,
    /// Its protocol.
    pub proto: Proto,
    /// What it admits from outside.
    pub filtering: Filtering,
    /// The rule that made it, by index.
    pub rule: u16,
    /// Its sessions. With none left it ends, or is held down.
    pub sessions: u32,
    /// Of a live mapping: until when packets from inside keep it, where those from outside do not. Of a held-down one:
    /// when it gives its port back.
    pub deadline: Time,
    /// Its subscriber.
    pub subscriber: u32,
    /// Its place in the hold-down wheel.
    pub link: Link,
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
    /// The sessions with that address. With none left the permission ends.
    pub sessions: u32,
}

/// An inside address that has mappings, and the external address that it is paired with in one pool (RFC 4787 REQ-2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscriber {
    /// Inside address, host order.
    pub inside: u32,
    /// The pool, by index.
    pub pool: u16,
    /// The external address, by index in the plan.
    pub external: u32,
    /// Its mappings. With none left the pairing ends.
    pub mappings: u32,
}

impl Links for Slab<Session> {
    fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.get_mut(id).map(|session| &mut session.link)
    }
}

impl Links for Slab<Mapping> {
    fn link(&mut self, id: u32) -> Option<&mut Link> {
        self.get_mut(id).map(|mapping| &mut mapping.link)
    }
}

// Two cache lines, and no more.
const _: () = assert!(size_of::<Session>() <= 128);
const _: () = assert!(size_of::<Mapping>() <= 64);
