//! The engine's own: linear hashing in buckets of a cache line, of which it has one index for each of 64 shards.

use anyhow::{Result, ensure};
use dataplane::session::index::{BucketArena, Index};
use dataplane::steer::SHARDS;
use dataplane::worker::BURST;

use crate::{Key, Sessions, Table, side_of};

/// The index numbers its entries' hashes by their lower bits; the shard is in the upper ones.
const SHIFT: u32 = u32::BITS - SHARDS.trailing_zeros();

/// The indexes, and what they have taken of the memory that they share.
pub struct Own {
    shards: Vec<Index>,
    arena: BucketArena,
    all: usize,
}

impl Own {
    fn shard(&self, hash: u32) -> &Index {
        &self.shards[(hash >> SHIFT) as usize]
    }

    fn shard_mut(&mut self, hash: u32) -> (&mut Index, &mut BucketArena) {
        (&mut self.shards[(hash >> SHIFT) as usize], &mut self.arena)
    }
}

impl Table for Own {
    const NAME: &'static str = "own index";

    fn new(entries: usize) -> Result<Self> {
        let arena = BucketArena::new(BucketArena::segments_for(entries, SHARDS));
        let most = BucketArena::segments_for(entries, 1);
        let all = arena.free();
        Ok(Own { shards: (0..SHARDS).map(|_| Index::new(most)).collect(), arena, all })
    }

    fn find(&self, sessions: &Sessions, keys: &[Key; BURST]) -> [u32; BURST] {
        let hashes = keys.map(|key| key.hash());
        let buckets = hashes.map(|hash| self.shard(hash).prefetch(hash));
        let guesses: [_; BURST] = std::array::from_fn(|at| buckets[at].first_candidate(hashes[at]));
        guesses.iter().flatten().for_each(|value| sessions.prefetch(value >> 1));
        std::array::from_fn(|at| match guesses[at] {
            Some(value) if side_of(sessions, value, &keys[at]) => value,
            _ => {
                let is_it = |value| side_of(sessions, value, &keys[at]);
                self.shard(hashes[at]).find(hashes[at], is_it).unwrap_or(u32::MAX)
            }
        })
    }

    fn expect(&self, hash: u32) {
        self.shard(hash).prefetch(hash);
    }

    fn insert(&mut self, sessions: &Sessions, key: &Key, value: u32) -> Result<()> {
        let hash = key.hash();
        let (index, arena) = self.shard_mut(hash);
        ensure!(index.find(hash, |value| side_of(sessions, value, key)).is_none(), "the key is there");
        Ok(index.insert(arena, hash, value)?)
    }

    fn remove(&mut self, _sessions: &Sessions, key: &Key, value: u32) -> Result<()> {
        let hash = key.hash();
        let (index, arena) = self.shard_mut(hash);
        ensure!(index.remove(arena, hash, value), "the entry is gone");
        Ok(())
    }

    fn bytes(&self) -> usize {
        (self.all - self.arena.free()) * BucketArena::bytes()
    }
}
