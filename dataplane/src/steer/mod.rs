//! Which shard owns a packet, and which worker the shard (design rule 3): any worker can name the owner of any flow, from
//! read-only data.
//!
//! A flow belongs to the shard of its inside end. From inside that is the source. From outside it follows from the
//! static entry that the destination falls under, else from the lease of the external port. An ICMP error belongs to the flow
//! that it quotes. What belongs to no flow (ARP, packets for the gateway itself, what is only routed) has no owner, and stays
//! with the worker that received it.
//!
//! NICs that can are told to deliver packets to their owners in the first place ([`rss`]). A worker that receives a packet of
//! another's shard hands it over ([`hand_over`]), as the map of shards says ([`map`]).

pub mod hand_over;
pub mod map;
pub mod passage;
pub mod rss;

pub use map::{ShardMap, ShardSet};

/// Shards that the state is split into, whatever the number of workers.
pub const SHARDS: usize = 64;

/// The most workers: each has at least one shard.
pub const WORKERS_MAX: usize = SHARDS;

/// A worker, by its place among all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u8);

impl WorkerId {
    /// Index in a table of all workers.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One of the [`SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardId(pub u8);

impl ShardId {
    /// All of them.
    pub fn all() -> impl Iterator<Item = ShardId> {
        (0u8..).take(SHARDS).map(ShardId)
    }

    /// Index in a table of all shards.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) % SHARDS
    }
}

/// The shard of an inside IPv4 address (host order). A fixed function, so that peers and restarts agree on it; and one that a NIC
/// can compute as well ([`rss`]): a sum, without carries, of the address shifted by different numbers of bits.
#[inline]
#[must_use]
pub fn shard_of4(inside: u32) -> ShardId {
    let terms = rss::ADDRESS_SHIFTS.iter().fold(0, |sum, shift| sum ^ inside >> shift);
    #[allow(clippy::cast_possible_truncation)] // 6 bits are left
    ShardId((terms & 63) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fewest and the most of these addresses that a shard owns.
    fn spread(addresses: impl Iterator<Item = u32>) -> (usize, usize) {
        let mut owned = [0; SHARDS];
        addresses.for_each(|address| owned[shard_of4(address).index()] += 1);
        (owned.into_iter().min().unwrap_or(0), owned.into_iter().max().unwrap_or(0))
    }

    /// The hosts of any /24 and of any /16 are spread over all shards, as even as can be hoped for: 4 and 1024 each.
    #[test]
    fn the_hosts_of_a_network_are_spread_over_all_shards() {
        for network in (0..1 << 24).step_by(4099) {
            let (least, most) = spread((0..256).map(|host| network << 8 | host));
            assert!(least >= 3 && most <= 5, "{network:#x}/24: {least} to {most}");
        }
        for network in (0..1 << 16).step_by(1021) {
            let (least, most) = spread((0..1 << 16).map(|host| network << 16 | host));
            assert!(least >= 1014 && most <= 1034, "{network:#x}/16: {least} to {most}");
        }
    }

    /// So are hosts at regular distances: one of each /24 or /30, the routers of each /16.
    #[test]
    fn regular_distances_do_not_gather_in_a_shard() {
        for distance in [2, 4, 8, 16, 64, 256, 1 << 12, 1 << 16] {
            for first in [0x0a00_0001, 0x6440_0005, 0xac10_00fe, 0xc0a8_0001_u32] {
                let (least, most) = spread((0..1024).map(|n| first.wrapping_add(n * distance)));
                assert!(least >= 10 && most <= 24, "every {distance} from {first:#x}: {least} to {most}, 16 hoped for");
            }
        }
        for distance in 1..300 {
            let (_, most) = spread((0..256).map(|n| 0x0a00_0001_u32 + n * distance));
            assert!(most <= 16, "every {distance}: {most} of 256 in one shard, 4 hoped for");
        }
    }
}
