//! The identifications of datagrams that leave translated.
//!
//! To their receivers all hosts behind an external address are one source, which must not use an identification again while
//! fragments of the datagram before may be on their way (RFC 6864 §4.3, §5.3.1; RFC 7857 §10). So what is not atomic gets a
//! number from a counter of its destination and protocol. The upper six bits are those of the shard, so that no two shards,
//! whoever works them, give out the same.

use crate::pool::Proto;
use crate::session::{FlowKey, Secret};
use crate::steer::ShardId;

/// Counters of a shard. Destinations share them, which only makes them go round earlier.
const COUNTERS: usize = 64;
/// Bits of an identification that a counter counts.
const BITS: u32 = 10;
const MASK: u16 = (1 << BITS) - 1;

/// The identifications of one shard.
#[derive(Debug)]
pub struct Identifications {
    shard: ShardId,
    secret: Secret,
    next: [u16; COUNTERS],
}

impl Identifications {
    /// Of a shard that has given out none.
    #[must_use]
    pub fn new(shard: ShardId, secret: &Secret) -> Self {
        Identifications { shard, secret: *secret, next: [0; COUNTERS] }
    }

    /// The next for a datagram of this protocol to `destination` (host order). After 1024 they begin again.
    pub fn next(&mut self, destination: u32, protocol: u8) -> u16 {
        // Where a destination's numbers begin nobody outside can tell.
        let hash = self.secret.flow_hash(FlowKey::new([u32::from(protocol), destination], [0, 0]), Proto::Udp);
        let counter = &mut self.next[hash as usize % COUNTERS];
        #[allow(clippy::cast_possible_truncation)] // 16 of its bits
        let number = counter.wrapping_add((hash >> 16) as u16) & MASK;
        *counter = counter.wrapping_add(1);
        u16::from(self.shard.0) << BITS | number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// N44-30: a destination sees 1024 datagrams of one protocol before an identification comes again, and none of another
    /// shard's.
    #[test]
    fn n44_30_none_comes_twice_in_a_thousand() {
        let secret = Secret::new(*b"0123456789abcdef");
        let mut seen = HashSet::new();
        for shard in [0, 1, 63] {
            let mut identifications = Identifications::new(ShardId(shard), &secret);
            let first: Vec<u16> = (0..1024).map(|_| identifications.next(0xc612_0001, 17)).collect();
            assert!(first.iter().all(|id| id >> 10 == u16::from(shard)));
            assert!(first.iter().all(|id| seen.insert(*id)));
            assert_eq!(identifications.next(0xc612_0001, 17), first[0]);
        }
    }

    /// The numbers of one destination do not tell those of another.
    #[test]
    fn destinations_begin_anywhere() {
        let secret = Secret::new(*b"0123456789abcdef");
        let mut identifications = Identifications::new(ShardId(7), &secret);
        let first: HashSet<u16> = (0..64).map(|host| identifications.next(0xc612_0000 + host, 17)).collect();
        assert!(first.len() > 50);
    }
}
