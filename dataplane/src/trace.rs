//! What happened to a packet and why, for `turnpike replay --explain`.

use std::net::IpAddr;

use crate::counters::{Drop, IcmpError};
use crate::plan::InterfaceId;

/// Where a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// Out of an interface.
    Transmit(InterfaceId),
    /// To the control thread.
    Punt,
    /// Waits for a neighbour.
    Hold(InterfaceId, IpAddr),
    /// Waits for the first fragment of its datagram.
    HoldFragment,
    /// To the worker that owns its flow, which has its story.
    HandOver,
    /// Dropped.
    Drop(Drop),
}

/// The part of the configuration that decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleRef {
    /// None.
    #[default]
    None,
    /// `nat44.rules`, by index.
    Nat44(u16),
    /// `nat44.forwards`, by index.
    Forward(u16),
    /// `nat44.static`, by index.
    Static(u16),
    /// `nptv6`, `map66` or `netmap`, by place in [`Spec::prefixes`](crate::plan::Spec::prefixes).
    Prefix(u16),
    /// `siit`, by place in [`Spec::crossings`](crate::plan::Spec::crossings).
    Crossing(u16),
}

/// A packet's addresses and ports, as it stood on the wire. For ICMP queries the requester's port is the identifier and
/// the other is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
}

/// What the packet met in the session table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionStep {
    /// Not looked for, or not found.
    #[default]
    None,
    /// It belongs to a session.
    Hit,
    /// It opened one.
    New,
    /// It is an ICMP error that quotes one.
    Quoted,
}

/// One packet's story. A packet that had to wait for a neighbour has a second one, of the time when it went on.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Where it went.
    pub disposal: Disposal,
    /// The shard that owns its flow, if it has one.
    pub shard: Option<u8>,
    /// What decided.
    pub rule: RuleRef,
    /// The session's part in it.
    pub session: SessionStep,
    /// As it came in, if it could be read.
    pub before: Option<Endpoints>,
    /// As it left, if it was translated.
    pub after: Option<Endpoints>,
    /// The ICMP error that it provoked.
    pub error: Option<IcmpError>,
    /// It was answered with a TCP reset.
    pub reset: bool,
    /// The packet had waited; its first story ended with [`Disposal::Hold`] or [`Disposal::HoldFragment`].
    pub resumed: bool,
}
