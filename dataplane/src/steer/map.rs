//! Which worker owns which shard.

use std::sync::atomic::{AtomicU8, Ordering};

use super::{SHARDS, ShardId, WorkerId};

/// Some of the shards, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// All shards.
    pub const ALL: ShardSet = ShardSet(u64::MAX);

    /// Whether it has this one.
    #[inline]
    #[must_use]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 >> shard.index() & 1 == 1
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, shard: ShardId) -> Self {
        ShardSet(self.0 | 1 << shard.index())
    }

    /// The set without one.
    #[must_use]
    pub fn without(self, shard: ShardId) -> Self {
        ShardSet(self.0 & !(1 << shard.index()))
    }

    /// The first that it has.
    #[inline]
    #[must_use]
    pub fn first(self) -> Option<ShardId> {
        u8::try_from(self.0.trailing_zeros()).ok().filter(|&first| first < 64).map(ShardId)
    }

    /// How many it has.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        ShardSet(shards.into_iter().fold(0, |set, shard| set | 1 << shard.index()))
    }
}

/// The owner of every shard, for all workers to read. A line of its own, which changes only when a shard moves.
#[derive(Debug)]
#[repr(align(64))]
pub struct ShardMap {
    owners: [AtomicU8; SHARDS], // the worker that a shard has moved to: w, all: ro
}

impl ShardMap {
    /// The shards dealt out to this many workers (at least one) as evenly as can be.
    #[must_use]
    pub fn dealt(workers: u8) -> Self {
        let workers = usize::from(workers.max(1));
        // A remainder of a number below 256.
        let owner = |shard: usize| AtomicU8::new(u8::try_from(shard % workers).unwrap_or(0));
        ShardMap { owners: std::array::from_fn(owner) }
    }

    /// The worker that owns a shard, or is about to.
    #[inline]
    #[must_use]
    pub fn owner(&self, shard: ShardId) -> WorkerId {
        WorkerId(self.owners[shard.index()].load(Ordering::Acquire))
    }

    /// A shard has arrived at a worker. Only that worker calls this.
    pub(crate) fn publish(&self, shard: ShardId, worker: WorkerId) {
        self.owners[shard.index()].store(worker.0, Ordering::Release);
    }

    /// The shards of a worker.
    #[must_use]
    pub fn shards_of(&self, worker: WorkerId) -> ShardSet {
        ShardId::all().filter(|&shard| self.owner(shard) == worker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_dealt_out_evenly_and_each_has_one_owner() {
        for workers in 1..=70 {
            let map = ShardMap::dealt(workers);
            let sets: Vec<ShardSet> = (0..workers).map(|worker| map.shards_of(WorkerId(worker))).collect();
            assert_eq!(sets.iter().map(|set| set.len()).sum::<usize>(), SHARDS);
            assert!(ShardId::all().all(|shard| sets.iter().filter(|set| set.contains(shard)).count() == 1));
            let (least, most) = (sets.iter().map(|set| set.len()).min(), sets.iter().map(|set| set.len()).max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{workers} workers");
        }
        assert_eq!(ShardMap::dealt(1).shards_of(WorkerId(0)), ShardSet::ALL);
        assert!(ShardMap::dealt(2).shards_of(WorkerId(2)).is_empty());
    }
}
