//! Stateless translation between IPv4 and IPv6 (RFC 7915), of one packet at a time, in its buffer.
//!
//! For each direction, [`to6`] and [`to4`], the same steps:
//!
//! 1. `examine` reads on where the packet's reader has ended and changes nothing. It says what will become of the packet, or why
//!    nothing can.
//! 2. The engine finds the way of the result: hops left, route, neighbour. `fit` says whether the next link takes it.
//! 3. `translate` rewrites the packet, with one hop less. Behind as many bytes as the old link-layer header had, for the new one,
//!    stands a packet of the other family. Nothing that is checked here can stop it any more.
//! 4. What `fit` wanted in pieces is cut up: IPv6 by [`cut`], IPv4 by [`crate::fragment::cut`].
//!
//! Headers are written anew in front of what stays where it is: the payload; of an ICMP error, the payload of the packet that it
//! quotes. Transport checksums follow by difference (§4.5, §5.5): a wrong one stays wrong. Addresses are the caller's: those of the
//! packet are given to `translate`, those inside of errors come from a function given to `examine`.
//!
//! A whole TCP or UDP datagram behind plain headers takes a straight way through each step. All else is read and
//! written by the private modules.

use crate::counters::{Drop, IcmpError};

mod chain;
pub mod cut;
mod header;
pub mod icmp;
mod quote;
pub mod to4;
pub mod to6;
mod transport;

/// What the RFC leaves to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether the IPv6 traffic class is the IPv4 type of service; otherwise it is zero (§4.1).
    pub copy_tos: bool,
    /// The IPv4 type of service; without one it is the IPv6 traffic class (§5.1).
    pub tos: Option<u8>,
    /// What becomes of IPv4 UDP datagrams without a checksum (§4.5).
    pub udp_checksum_none: UdpChecksumNone,
    /// The longest IPv6 packet that goes out whole although it may be cut, in bytes: what every way takes, if nothing better is
    /// known of the network (§4.1). At least 1280.
    pub lowest_ipv6_mtu: u16,
    /// MTUs that links have, in bytes: for errors of routers that do not tell theirs (RFC 1191 §7.1). In any order.
    pub plateaus: Vec<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            copy_tos: true,
            tos: None,
            udp_checksum_none: UdpChecksumNone::Compute,
            lowest_ipv6_mtu: IPV6_MTU_MIN,
            plateaus: vec![65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68],
        }
    }
}

/// What becomes of IPv4 UDP datagrams without a checksum. IPv6 wants one (RFC 8200 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksumNone {
    /// They are dropped.
    Drop,
    /// It is computed. Of fragments it can't be: they are dropped.
    Compute,
    /// They are forwarded without one: a receiver takes them only where RFC 6935 lets it.
    Forward,
}

/// The MTUs of the interfaces on both sides, in bytes: the next hops that an ICMP error's MTU is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtus {
    /// Of the one where IPv4 comes from, or goes.
    pub v4: u16,
    /// Of the one where IPv6 goes, or comes from.
    pub v6: u16,
}

/// The least MTU of an IPv6 link, in bytes (RFC 8200 §5).
pub const IPV6_MTU_MIN: u16 = 1280;

/// Whether no sender would cut a datagram so: a fragment that is empty, breaks off within 8 bytes although there are more, or goes
/// beyond the largest datagram (RFC 791 §3.2, RFC 8200 §4.5). Cut again, it would be another one.
const fn is_crafted(offset: usize, more: bool, len: usize) -> bool {
    len == 0 || (more && !len.is_multiple_of(8)) || offset + len > u16::MAX as usize
}

/// A packet that is not translated: why, and the error in its own family that tells its sender (§4.4, §5.4), with its MTU or
/// pointer. Whether an error may be sent at all is for the engine to say, as of every error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Drop,
    /// The error, and the value in it.
    pub error: Option<(IcmpError, u16)>,
}

impl From<Drop> for Refusal {
    /// Without a word to the sender.
    fn from(reason: Drop) -> Self {
        Refusal { reason, error: None }
    }
}

impl Refusal {
    const fn answered(reason: Drop, error: IcmpError, value: u16) -> Self {
        Refusal { reason, error: Some((error, value)) }
    }
}
