//! The addresses of a session: what it is found by, and what its record's size depends on.
//!
//! Sessions come in four size classes, and none pays for another's addresses. Whatever many sessions share (an external
//! address's pool, a prefix, a rule) is an index. Both directions of a flow have its remote end in common, which is stored
//! once.

use std::fmt::Debug;

use super::Secret;
use super::record::Direction;
use crate::pool::Proto;

/// Addresses and ports of a packet, as it stands on the wire: what its session is found by, with the protocol.
pub trait Key: Copy + PartialEq + Debug {
    /// For the index.
    fn hash(self, secret: &Secret, proto: Proto) -> u32;
}

/// The addresses of a class of sessions.
pub trait Ends: Copy + PartialEq + Default + Debug {
    /// What their packets are found by.
    type Key: Key;
    /// Aligned so that no record reaches into more cache lines than it must.
    type Line: Copy + Debug;
    /// A packet and its answer have the same key, which is entered once.
    const ONE_KEY: bool;

    /// What a packet of this direction is found by. `ports` are those of the inside, remote and external end.
    fn key(&self, ports: &[u16; 3], direction: Direction) -> Self::Key;
}

/// A whole line: records of 64 or 128 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Whole;
/// Half a line: three to two records.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Half;
/// A quarter: five to four records.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub struct Quarter;

/// Of a packet of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Source address in the lower half, destination above. Host order.
    pub addresses: u64,
    /// Source port in the lower half, destination above.
    pub ports: u32,
}

impl FlowKey {
    /// Of source and destination.
    #[inline]
    #[must_use]
    pub const fn new(addresses: [u32; 2], ports: [u16; 2]) -> FlowKey {
        FlowKey {
            addresses: addresses[0] as u64 | (addresses[1] as u64) << 32,
            ports: ports[0] as u32 | (ports[1] as u32) << 16,
        }
    }
}

impl Key for FlowKey {
    #[inline]
    fn hash(self, secret: &Secret, proto: Proto) -> u32 {
        secret.flow_hash(self, proto)
    }
}

/// IPv4 on both sides: inside, remote and external address, as a packet of either direction has its two, one after the other.
/// Host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends44(pub [u32; 3]);

impl Ends for Ends44 {
    type Key = FlowKey;
    type Line = Whole;
    const ONE_KEY: bool = false;

    #[inline]
    fn key(&self, ports: &[u16; 3], direction: Direction) -> FlowKey {
        let at = direction as usize;
        FlowKey::new([self.0[at], self.0[at + 1]], [ports[at], ports[at + 1]])
    }
}

/// An IPv6 address in four words: records that hold it need not be aligned as a whole one.
pub type Words = [u32; 4];

/// Of a packet of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey6 {
    /// Of the source and the destination.
    pub addresses: [Words; 2],
    /// Source port in the lower half, destination above.
    pub ports: u32,
}

impl FlowKey6 {
    fn new(addresses: [Words; 2], ports: [u16; 2]) -> FlowKey6 {
        FlowKey6 { addresses, ports: u32::from(ports[0]) | u32::from(ports[1]) << 16 }
    }
}

impl Key for FlowKey6 {
    #[inline]
    fn hash(self, secret: &Secret, proto: Proto) -> u32 {
        let [[a, b, c, d], [e, f, g, h]] = self.addresses;
        let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        secret.long_hash([long(a, b), long(c, d), long(e, f), long(g, h)], u64::from(self.ports) | (proto as u64) << 32)
    }
}

/// IPv6, not translated: inside and remote address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends6(pub [Words; 2]);

impl Ends for Ends6 {
    type Key = FlowKey6;
    type Line = Half;
    const ONE_KEY: bool = true;

    /// Whichever way a packet goes, the inside end is first.
    #[inline]
    fn key(&self, ports: &[u16; 3], _direction: Direction) -> FlowKey6 {
        FlowKey6::new(self.0, [ports[0], ports[1]])
    }
}

/// IPv6 on both sides: inside, remote and external address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends66(pub [Words; 3]);

impl Ends for Ends66 {
    type Key = FlowKey6;
    type Line = Whole;
    const ONE_KEY: bool = false;

    #[inline]
    fn key(&self, ports: &[u16; 3], direction: Direction) -> FlowKey6 {
        let at = direction as usize;
        FlowKey6::new([self.0[at], self.0[at + 1]], [ports[at], ports[at + 1]])
    }
}

/// Of a packet between IPv6 inside and IPv4 outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKey64 {
    /// As it stands inside: the remote address is the one that its destination embeds by a prefix.
    Inside {
        /// Of the source.
        inside: Words,
        /// Which the destination embeds, in host order.
        remote: u32,
        /// The prefix, by index.
        prefix: u16,
        /// Source port in the lower half, destination above.
        ports: u32,
    },
    /// As it stands outside.
    Outside(FlowKey),
}

impl Key for FlowKey64 {
    #[inline]
    fn hash(self, secret: &Secret, proto: Proto) -> u32 {
        match self {
            FlowKey64::Outside(key) => key.hash(secret, proto),
            FlowKey64::Inside { inside: [a, b, c, d], remote, prefix, ports } => {
                let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
                let last = u64::from(ports) | (proto as u64) << 32 | u64::from(prefix) << 40;
                secret.long_hash([long(a, b), long(c, d), u64::from(remote), 0], last)
            }
        }
    }
}

/// IPv6 inside and IPv4 outside: the remote address, which IPv6 has embedded, is stored once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends64 {
    /// Inside address.
    pub inside: Words,
    /// Remote address, host order.
    pub remote: u32,
    /// External address, host order.
    pub external: u32,
    /// What the remote address is embedded by, by index.
    pub prefix: u16,
}

impl Ends for Ends64 {
    type Key = FlowKey64;
    type Line = Quarter;
    const ONE_KEY: bool = false;

    #[inline]
    fn key(&self, ports: &[u16; 3], direction: Direction) -> FlowKey64 {
        let &Ends64 { inside, remote, external, prefix } = self;
        match direction {
            Direction::Outbound => {
                let ports = u32::from(ports[0]) | u32::from(ports[1]) << 16;
                FlowKey64::Inside { inside, remote, prefix, ports }
            }
            Direction::Inbound => FlowKey64::Outside(FlowKey::new([remote, external], [ports[1], ports[2]])),
        }
    }
}
