//! hashbrown's HashTable: what Rust's own HashMap is made of. Its groups of tags can't be reached from outside, so nothing
//! prefetches them; the processor may overlap the look-ups of a batch as far as it looks ahead. Sessions are prefetched, of
//! the first entry whose tag fits. It grows by moving all entries at once.

use anyhow::{Context, Result, ensure};
use dataplane::worker::BURST;
use hashbrown::HashTable;

use crate::{Key, Sessions, Table, side_of};

/// An entry has its hash beside the value: without it, growing would read every session.
pub struct Brown(HashTable<(u32, u32)>);

/// It places entries by the lower bits of 64, and tags them with the upper seven.
#[inline]
fn wide(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl Table for Brown {
    const NAME: &'static str = "hashbrown";

    fn new(_entries: usize) -> Result<Self> {
        Ok(Brown(HashTable::new()))
    }

    fn find(&self, sessions: &Sessions, keys: &[Key; BURST]) -> [u32; BURST] {
        let hashes = keys.map(|key| key.hash());
        let first = |hash| self.0.iter_hash(wide(hash)).find(|entry| entry.0 == hash).map(|entry| entry.1);
        let guesses = hashes.map(first);
        guesses.iter().flatten().for_each(|value| sessions.prefetch(value >> 1));
        std::array::from_fn(|at| match guesses[at] {
            Some(value) if side_of(sessions, value, &keys[at]) => value,
            _ => {
                let is_it = |entry: &(u32, u32)| entry.0 == hashes[at] && side_of(sessions, entry.1, &keys[at]);
                self.0.find(wide(hashes[at]), is_it).map_or(u32::MAX, |entry| entry.1)
            }
        })
    }

    fn insert(&mut self, sessions: &Sessions, key: &Key, value: u32) -> Result<()> {
        let hash = key.hash();
        let is_it = |entry: &(u32, u32)| entry.0 == hash && side_of(sessions, entry.1, key);
        ensure!(self.0.find(wide(hash), is_it).is_none(), "the key is there");
        self.0.insert_unique(wide(hash), (hash, value), |entry| wide(entry.0));
        Ok(())
    }

    fn remove(&mut self, _sessions: &Sessions, key: &Key, value: u32) -> Result<()> {
        let entry = self.0.find_entry(wide(key.hash()), |entry| entry.1 == value);
        entry.ok().context("the entry is gone")?.remove();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.allocation_size()
    }
}
