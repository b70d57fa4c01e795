//! Which shard owns a packet (design rule 3): any worker can name the owner of any flow, from read-only data.
//!
//! A flow belongs to the shard of its inside end. From inside that is the source. From outside it follows from the
//! static entry that the destination falls under, else from the lease of the external port.

/// Shards that the state is split into, whatever the number of workers.
pub const SHARDS: usize = 64;

/// One of the [`SHARDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardId(pub u8);

impl ShardId {
    /// Index in a table of all shards.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) % SHARDS
    }
}

/// The shard of an inside IPv4 address (host order). A fixed function, so that peers and restarts agree on it.
#[inline]
#[must_use]
pub fn shard_of4(inside: u32) -> ShardId {
    // The upper bits of a multiplication by the golden ratio: neighbouring addresses land on different shards.
    #[allow(clippy::cast_possible_truncation)] // 6 bits are left
    ShardId((inside.wrapping_mul(0x9e37_79b1) >> 26) as u8)
}
