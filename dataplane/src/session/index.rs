//! The hash index: from 24 bits of hash to a 32-bit value (a record's id), several values to a hash.
//!
//! Linear hashing (Litwin, 1980): the table grows and shrinks by one bucket at a time, so no insertion ever waits for a
//! rehash of the whole. A bucket is one cache line of nine entries; what does not fit goes to a list of overflow
//! buckets, of which only the first is ever not full. Buckets come in segments of 16 KiB from an arena that all indexes
//! of a worker share, and go back to it: an empty index holds none.
//!
//! ```text
//! directory  [ home 0..255 | home 256..511 | ... free ... | overflow 256..511 | overflow 0..255 ]
//!                                                           both ends grow towards the middle
//! ```
//!
//! There are never fewer than 256 home buckets, so a bucket's number says the lowest eight bits of its entries' hashes, and
//! an entry has to hold the other sixteen only, its tag. Two entries of different hashes may so look the same; the caller
//! compares records anyway.
//!
//! Overflow buckets are kept dense: when one is freed, the youngest moves into its place. With that, memory in use is
//! always in proportion to the entries, whatever came before.
//!
//! No operation allocates or panics. All take constant time if hashes are spread evenly; entries of equal hash are found
//! one after the other.

use super::memory::Segment;
use super::prefetch::prefetch;
use super::tags;

/// Entries in a bucket.
const WAYS: usize = 9;
/// Buckets in a segment.
const BUCKETS: usize = 256;
/// The bits of a hash that a bucket's number always says, and that its tag says.
const LOW_BITS: u32 = BUCKETS.trailing_zeros();
const LOW_MASK: u32 = (1 << LOW_BITS) - 1;
const HASH_MASK: u32 = (1 << (LOW_BITS + u16::BITS)) - 1;
/// No bucket.
const NONE: u32 = u32::MAX;
/// The most segments of one index: as many home buckets as hashes can tell apart, and as many others.
const SEGMENTS_MAX: usize = 1 << 17;
/// The table grows above this many entries in four buckets, and shrinks below that many.
const GROW_ABOVE: usize = 25;
const SHRINK_BELOW: usize = 22;

/// There is no room for another entry: the arena is empty, or the index has reached its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the index is full")]
pub struct Full;

/// Entries whose hashes end alike: one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Bucket {
    tags: [u16; WAYS],
    len: u16,
    values: [u32; WAYS],
    /// The next overflow bucket of the list, and the bucket before this one.
    next: u32,
    prev: u32,
}

/// A bucket without entries.
pub const EMPTY: Bucket = Bucket::new(NONE, NONE);

/// What an entry holds of a hash.
#[inline]
#[allow(clippy::cast_possible_truncation)] // that is the purpose
const fn tag_of(hash: u32) -> u16 {
    (hash >> LOW_BITS) as u16
}

impl Bucket {
    const fn new(prev: u32, next: u32) -> Self {
        Bucket { tags: [0; WAYS], len: 0, values: [0; WAYS], next, prev }
    }

    #[inline]
    const fn len(&self) -> usize {
        self.len as usize
    }

    /// A bit for each entry with this tag.
    #[inline(always)]
    fn matches(&self, tag: u16) -> u32 {
        tags::equal(&self.tags, tag) & ((1 << self.len) - 1)
    }

    /// The value that [`Index::find`] will most likely try first of this bucket's: to prefetch its record. A guess, not an
    /// answer.
    #[inline(always)]
    #[must_use]
    pub fn first_candidate(&self, hash: u32) -> Option<u32> {
        self.values.get(self.matches(tag_of(hash)).trailing_zeros() as usize).copied()
    }

    /// The values of the entries with this tag.
    #[inline]
    fn candidates(&self, tag: u16) -> impl Iterator<Item = (usize, u32)> {
        let mut rest = self.matches(tag);
        std::iter::from_fn(move || {
            let way = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            self.values.get(way).map(|&value| (way, value))
        })
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u32)> {
        self.tags.into_iter().zip(self.values).take(self.len())
    }

    fn set(&mut self, way: usize, (tag, value): (u16, u32)) {
        if let (Some(t), Some(v)) = (self.tags.get_mut(way), self.values.get_mut(way)) {
            (*t, *v) = (tag, value);
        }
    }

    /// False if the bucket is full.
    fn push(&mut self, entry: (u16, u32)) -> bool {
        let room = self.len() < WAYS;
        if room {
            self.set(self.len(), entry);
            self.len += 1;
        }
        room
    }

    fn pop(&mut self) -> Option<(u16, u32)> {
        let last = self.entries().last()?;
        self.len -= 1;
        Some(last)
    }
}

/// The memory that the indexes of one worker share. All buckets in it are empty.
#[derive(Debug)]
pub struct BucketArena {
    free: Vec<Segment<Bucket, BUCKETS>>,
}

impl BucketArena {
    /// Takes `segments` segments of 16 KiB, and touches them.
    #[must_use]
    pub fn new(segments: usize) -> Self {
        BucketArena { free: Segment::take(segments, EMPTY) }
    }

    /// Segments that no index holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Memory for one segment, in bytes.
    #[must_use]
    pub const fn bytes() -> usize {
        size_of::<Bucket>() * BUCKETS
    }

    /// Makes room for so many segments in all: those that moved shards bring along are given back here, without an allocation.
    pub fn make_room(&mut self, segments: usize) {
        self.free.reserve_exact(segments.saturating_sub(self.free.len()));
    }

    /// Enough for `entries` entries in `indexes` indexes, however they are spread over them and whatever came before:
    /// home buckets at the load at which a table shrinks, overflow buckets (one to eight of these at the most with evenly
    /// spread hashes; one to six is reserved), and in each index two segments that are not full.
    #[must_use]
    pub const fn segments_for(entries: usize, indexes: usize) -> usize {
        let home = entries * 4 / SHRINK_BELOW + 1;
        (home + home / 6).div_ceil(BUCKETS) + 2 * indexes
    }

    fn give(&mut self, segment: Option<Segment<Bucket, BUCKETS>>) {
        self.free.extend(segment);
    }
}

/// Home buckets and mask of an empty index.
const FIRST: (u32, u32) = (1 << LOW_BITS, (2 << LOW_BITS) - 1);

/// The index of one shard.
#[derive(Debug)]
pub struct Index {
    directory: Box<[Option<Segment<Bucket, BUCKETS>>]>,
    /// Entries.
    len: usize,
    /// Home buckets, ids 0 and up. At least a segment of them, even while there is none.
    buckets: u32,
    /// The bits of a hash that can matter: `mask / 2 < buckets <= mask`.
    mask: u32,
    /// Overflow buckets, ids `top - 1` and down.
    overflow: u32,
    top: u32,
    /// Stands in for a bucket that does not exist. It never has to.
    sink: Bucket,
}

impl Index {
    /// An empty index that may come to hold up to `max_segments` segments, and holds none yet.
    #[must_use]
    pub fn new(max_segments: usize) -> Self {
        let segments = max_segments.min(SEGMENTS_MAX);
        Index {
            directory: std::iter::repeat_with(|| None).take(segments).collect(),
            len: 0,
            buckets: FIRST.0,
            mask: FIRST.1,
            overflow: 0,
            #[allow(clippy::cast_possible_truncation)] // SEGMENTS_MAX * BUCKETS is 2^25
            top: (segments * BUCKETS) as u32,
            sink: EMPTY,
        }
    }

    /// Entries in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Loads the line that [`Index::find`] will look at first.
    #[inline(always)]
    pub fn prefetch(&self, hash: u32) -> &Bucket {
        let bucket = self.bucket(self.home(hash));
        prefetch(bucket);
        bucket
    }

    /// Loads the line that [`Index::find`] will look at next. False: there is none.
    pub fn prefetch_overflow(&self, hash: u32) -> bool {
        let next = self.bucket(self.home(hash)).next;
        if next != NONE {
            prefetch(self.bucket(next));
        }
        next != NONE
    }

    /// The value that [`Index::find`] will most likely try first in that line.
    pub fn overflow_candidate(&self, hash: u32) -> Option<u32> {
        self.bucket(self.bucket(self.home(hash)).next).first_candidate(hash)
    }

    /// The first value under `hash` that `eq` accepts.
    #[inline]
    pub fn find(&self, hash: u32, mut eq: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut bucket = self.bucket(self.home(hash));
        loop {
            for (_, value) in bucket.candidates(tag_of(hash)) {
                if eq(value) {
                    return Some(value);
                }
            }
            if bucket.next == NONE {
                return None;
            }
            bucket = self.bucket(bucket.next);
        }
    }

    /// Adds `value` under `hash`. The caller sees to it that the pair is not in yet; the hash may be.
    ///
    /// # Errors
    /// [`Full`]: nothing changed.
    pub fn insert(&mut self, arena: &mut BucketArena, hash: u32, value: u32) -> Result<(), Full> {
        if self.len == 0 {
            self.take_segment(arena, 0)?;
        }
        self.place(arena, hash & HASH_MASK, value)?;
        self.len += 1;
        if self.len * 4 > self.buckets as usize * GROW_ABOVE {
            self.grow(arena);
        }
        Ok(())
    }

    /// Takes `value` under `hash` out. False if it is not in.
    pub fn remove(&mut self, arena: &mut BucketArena, hash: u32, value: u32) -> bool {
        let home = self.home(hash);
        let mut id = home;
        let way = loop {
            let bucket = self.bucket(id);
            if let Some((way, _)) = bucket.candidates(tag_of(hash)).find(|&(_, other)| other == value) {
                break way;
            }
            if bucket.next == NONE {
                return false;
            }
            id = bucket.next;
        };
        // The last entry of the one bucket that may not be full fills the hole.
        let first = self.bucket(home).next;
        let partial = if first == NONE { home } else { first };
        if let Some(last) = self.bucket_mut(partial).pop()
            && (id, way) != (partial, self.bucket(partial).len())
        {
            self.bucket_mut(id).set(way, last);
        }
        if partial != home && self.bucket(partial).len() == 0 {
            let next = self.bucket(partial).next;
            self.bucket_mut(home).next = next;
            if next != NONE {
                self.bucket_mut(next).prev = home;
            }
            self.free_overflow(arena, partial);
        }
        self.len -= 1;
        if self.len == 0 {
            self.clear(arena);
        } else if self.len * 4 < self.buckets as usize * SHRINK_BELOW {
            self.shrink(arena);
        }
        true
    }

    /// All values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let buckets = self.directory.iter().flatten().flat_map(|segment| segment.records());
        buckets.flat_map(|bucket| bucket.entries().map(|(_, value)| value))
    }

    /// The bucket in which the entries of `hash` start.
    #[inline(always)]
    fn home(&self, hash: u32) -> u32 {
        let id = hash & self.mask;
        if id < self.buckets { id } else { id & (self.mask >> 1) }
    }

    #[inline(always)]
    fn bucket(&self, id: u32) -> &Bucket {
        match self.directory.get(id as usize / BUCKETS) {
            Some(Some(segment)) => segment.records().get(id as usize % BUCKETS).unwrap_or(&EMPTY),
            _ => &EMPTY,
        }
    }

    #[inline]
    fn bucket_mut(&mut self, id: u32) -> &mut Bucket {
        match self.directory.get_mut(id as usize / BUCKETS) {
            Some(Some(segment)) => segment.records_mut().get_mut(id as usize % BUCKETS).unwrap_or(&mut self.sink),
            _ => &mut self.sink,
        }
    }

    /// Puts an entry into its home, or behind it.
    fn place(&mut self, arena: &mut BucketArena, hash: u32, value: u32) -> Result<(), Full> {
        let (home, entry) = (self.home(hash), (tag_of(hash), value));
        if self.bucket_mut(home).push(entry) {
            return Ok(());
        }
        let first = self.bucket(home).next;
        if first != NONE && self.bucket_mut(first).push(entry) {
            return Ok(());
        }
        let id = self.top.wrapping_sub(self.overflow + 1);
        if starts_segment(self.overflow) {
            self.take_segment(arena, id)?;
        }
        self.overflow += 1;
        let mut bucket = Bucket::new(home, first);
        bucket.push(entry);
        *self.bucket_mut(id) = bucket;
        self.bucket_mut(home).next = id;
        if first != NONE {
            self.bucket_mut(first).prev = id;
        }
        Ok(())
    }

    /// Whether one more overflow bucket can be had.
    fn has_overflow_room(&self, arena: &BucketArena) -> bool {
        let id = self.top.wrapping_sub(self.overflow + 1) as usize;
        id % BUCKETS != BUCKETS - 1 || arena.free() > 0 && matches!(self.directory.get(id / BUCKETS), Some(None))
    }

    /// Splits one bucket, if there is memory for it. If not, lists grow instead, until there is.
    fn grow(&mut self, arena: &mut BucketArena) {
        let new = self.buckets;
        // Hashes tell no more buckets apart.
        if new > HASH_MASK {
            return;
        }
        if starts_segment(new) && self.take_segment(arena, new).is_err() {
            return;
        }
        let split = new & (self.mask >> 1);
        self.buckets += 1;
        if self.buckets > self.mask {
            self.mask = self.mask << 1 | 1;
        }
        self.replace(arena, split);
    }

    /// Joins the last bucket with the one that it was split from, unless it is in the only segment, or this needs an
    /// overflow bucket for which there is no memory.
    fn shrink(&mut self, arena: &mut BucketArena) {
        if self.buckets as usize == BUCKETS {
            return;
        }
        let last = self.buckets - 1;
        let mask = if last <= self.mask >> 1 { self.mask >> 1 } else { self.mask };
        let joined = self.bucket(last).len() + self.bucket(last & (mask >> 1)).len();
        if joined > WAYS && !self.has_overflow_room(arena) {
            return;
        }
        (self.buckets, self.mask) = (last, mask);
        self.replace(arena, last);
        if starts_segment(last) {
            self.give_segment(arena, last);
        }
    }

    /// Empties a home bucket with its list, and puts each entry where it belongs now. Needs one overflow bucket more than
    /// it frees at the most, and none if the entries go to two buckets that were empty.
    fn replace(&mut self, arena: &mut BucketArena, id: u32) {
        let mut bucket = std::mem::replace(self.bucket_mut(id), EMPTY);
        loop {
            for (tag, value) in bucket.entries() {
                let hash = u32::from(tag) << LOW_BITS | id & LOW_MASK;
                let placed = self.place(arena, hash, value);
                debug_assert_eq!(placed, Ok(()), "there is room: see above");
            }
            let hole = bucket.next;
            if hole == NONE {
                return;
            }
            bucket = *self.bucket(hole);
            if self.free_overflow(arena, hole) == bucket.next {
                bucket.next = hole;
            }
        }
    }

    /// Frees an overflow bucket that no list leads to: the youngest takes its place. Returns the id that that one had.
    fn free_overflow(&mut self, arena: &mut BucketArena, id: u32) -> u32 {
        let youngest = self.top.wrapping_sub(self.overflow);
        let moved = std::mem::replace(self.bucket_mut(youngest), EMPTY);
        if youngest != id {
            self.bucket_mut(moved.prev).next = id;
            if moved.next != NONE {
                self.bucket_mut(moved.next).prev = id;
            }
            *self.bucket_mut(id) = moved;
        }
        self.overflow -= 1;
        if starts_segment(self.overflow) {
            self.give_segment(arena, youngest);
        }
        youngest
    }

    /// Gives everything back: no bucket has an entry.
    fn clear(&mut self, arena: &mut BucketArena) {
        for id in (0..self.buckets).step_by(BUCKETS) {
            self.give_segment(arena, id);
        }
        (self.buckets, self.mask) = FIRST;
    }

    /// Takes a segment for bucket `id`.
    fn take_segment(&mut self, arena: &mut BucketArena, id: u32) -> Result<(), Full> {
        match self.directory.get_mut(id as usize / BUCKETS) {
            Some(place @ None) => *place = Some(arena.free.pop().ok_or(Full)?),
            _ => return Err(Full),
        }
        Ok(())
    }

    /// Gives the segment of bucket `id` back.
    fn give_segment(&mut self, arena: &mut BucketArena, id: u32) {
        arena.give(self.directory.get_mut(id as usize / BUCKETS).and_then(Option::take));
    }
}

/// Whether bucket `id` from either end of the directory is the first of its segment.
const fn starts_segment(id: u32) -> bool {
    (id as usize).is_multiple_of(BUCKETS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation)]

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// What the index means: values by hash.
    type Model = HashMap<u32, Vec<u32>>;

    /// The lists lead both ways, through as many buckets as there are, and each entry is in the right one.
    fn assert_sound(index: &Index) {
        let (mut entries, mut overflow) = (0, 0);
        let homes = if index.is_empty() { 0 } else { index.buckets };
        for home in 0..homes {
            let (mut id, mut prev) = (home, NONE);
            while id != NONE {
                let bucket = index.bucket(id);
                assert_eq!(bucket.prev, prev);
                assert!(
                    bucket.entries().all(|(tag, _)| index.home(u32::from(tag) << LOW_BITS | home & LOW_MASK) == home)
                );
                // Of a list, the first overflow bucket or, without one, the home bucket has room.
                assert!(
                    bucket.len() == WAYS || (bucket.next == NONE && id == home) || (prev == home && bucket.len() > 0)
                );
                entries += bucket.len();
                overflow += u32::from(id != home);
                (id, prev) = (bucket.next, id);
            }
        }
        assert_eq!((entries, overflow), (index.len(), index.overflow));
        let segments = homes.div_ceil(256) + overflow.div_ceil(256);
        assert_eq!(index.directory.iter().flatten().count(), segments as usize);
    }

    /// Every pair of the model is found, what it lacks is not, and nothing else is in the index.
    fn assert_same(index: &Index, model: &Model) {
        assert_sound(index);
        let mut values: Vec<u32> = model.values().flatten().copied().collect();
        assert_eq!(index.len(), values.len());
        for (&hash, values) in model {
            for &value in values {
                assert_eq!(index.find(hash, |other| other == value), Some(value));
            }
            let mut seen = Vec::new();
            assert_eq!(
                index.find(hash, |value| {
                    seen.push(value);
                    false
                }),
                None
            );
            assert!(index.prefetch(hash).first_candidate(hash).is_none_or(|value| seen.contains(&value)));
            seen.sort_unstable();
            let mut expected = values.clone();
            expected.sort_unstable();
            assert_eq!(seen, expected);
        }
        let mut all: Vec<u32> = index.iter().collect();
        all.sort_unstable();
        values.sort_unstable();
        assert_eq!(all, values);
    }

    /// How the hashes of a test are spread.
    #[derive(Debug, Clone, Copy)]
    enum Spread {
        Even,
        /// Multiples of 256: one bucket of each segment.
        Aligned,
        /// 128 hashes, in sixteen buckets of the first 256.
        Few,
        /// All the same.
        One,
    }

    impl Spread {
        fn hash(self, key: u32) -> u32 {
            let even = key.wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca77);
            match self {
                Spread::Even => even & HASH_MASK,
                Spread::Aligned => even << 8 & HASH_MASK,
                Spread::Few => even & 0x7c3,
                Spread::One => 0xad_beef,
            }
        }
    }

    fn spread() -> impl Strategy<Value = Spread> {
        prop_oneof![Just(Spread::Even), Just(Spread::Aligned), Just(Spread::Few), Just(Spread::One)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Several indexes on one arena, too small for all, filled and emptied in waves.
        #[test]
        fn behaves_as_a_multimap(
            spread in spread(),
            segments in 0usize..24,
            max_segments in 0usize..30,
            waves in prop::collection::vec((0usize..3, 0u32..6000, any::<u32>(), 0u8..=8), 1..12),
        ) {
            let mut arena = BucketArena::new(segments);
            let mut indexes: Vec<_> = (0..3).map(|_| (Index::new(max_segments), Model::new())).collect();
            let mut next = 0;
            for (which, count, seed, eighths) in waves {
                let (index, model) = &mut indexes[which];
                for key in next..next + count {
                    let hash = spread.hash(key ^ seed);
                    match index.insert(&mut arena, hash, key) {
                        Ok(()) => model.entry(hash).or_default().push(key),
                        Err(Full) => {
                            // Whatever the hashes, refusing takes a reason.
                            let held = segments - arena.free();
                            prop_assert!(arena.free() == 0 || held >= max_segments);
                        }
                    }
                }
                next += count;
                assert_same(index, model);
                // Take out some eighths, in an order that has nothing to do with that of insertion.
                let mut pairs: Vec<_> = model.iter().flat_map(|(&h, vs)| vs.iter().map(move |&v| (h, v))).collect();
                pairs.sort_unstable_by_key(|&(_, value)| Spread::Even.hash(value ^ !seed));
                for &(hash, value) in &pairs[..pairs.len() * usize::from(eighths) / 8] {
                    prop_assert!(index.remove(&mut arena, hash, value));
                    prop_assert!(!index.remove(&mut arena, hash, value));
                    model.entry(hash).or_default().retain(|&other| other != value);
                }
                model.retain(|_, values| !values.is_empty());
                for (index, model) in &indexes {
                    assert_same(index, model);
                }
            }
            for (index, model) in &mut indexes {
                for (hash, values) in model.drain() {
                    for value in values {
                        prop_assert!(index.remove(&mut arena, hash, value));
                    }
                }
                prop_assert!(index.is_empty());
                prop_assert_eq!(index.iter().count(), 0);
            }
            prop_assert_eq!(arena.free(), segments);
        }

        /// A random walk of single insertions and removals, which leaves no order in the lists.
        #[test]
        fn stays_sound(spread in spread(), seed in any::<u32>(), drifts in prop::collection::vec(0u32..=8, 1..16)) {
            let mut arena = BucketArena::new(60);
            let mut index = Index::new(60);
            let mut held: Vec<(u32, u32)> = Vec::new();
            let mut noise = seed;
            for drift in drifts {
                for _ in 0..1600 {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if noise >> 29 < drift {
                        let pair = (spread.hash(noise), noise);
                        prop_assert_eq!(index.insert(&mut arena, pair.0, pair.1), Ok(()));
                        held.push(pair);
                    } else if !held.is_empty() {
                        let (hash, value) = held.swap_remove(noise as usize / 7 % held.len());
                        prop_assert!(index.remove(&mut arena, hash, value));
                    }
                }
                let mut model = Model::new();
                held.iter().for_each(|&(hash, value)| model.entry(hash).or_default().push(value));
                assert_same(&index, &model);
            }
        }

        /// What `segments_for` promises: the entries fit, wherever they are and wherever they were before.
        #[test]
        fn the_arena_is_large_enough(
            seed in any::<u32>(),
            shares in prop::collection::vec(prop::collection::vec(0usize..100, 4), 1..5),
        ) {
            const ENTRIES: usize = 40_000;
            let mut arena = BucketArena::new(BucketArena::segments_for(ENTRIES, 4));
            let mut indexes: Vec<_> = (0..4).map(|_| (Index::new(arena.free()), Vec::new())).collect();
            let mut next = seed;
            for round in shares {
                let total = round.iter().sum::<usize>().max(1);
                let targets: Vec<_> = round.iter().map(|share| share * ENTRIES / total).collect();
                for ((index, held), &target) in indexes.iter_mut().zip(&targets) {
                    for value in held.drain(target.min(held.len())..) {
                        prop_assert!(index.remove(&mut arena, Spread::Even.hash(value), value));
                    }
                }
                for ((index, held), &target) in indexes.iter_mut().zip(&targets) {
                    while held.len() < target {
                        next = next.wrapping_add(1);
                        prop_assert_eq!(index.insert(&mut arena, Spread::Even.hash(next), next), Ok(()));
                        held.push(next);
                    }
                }
            }
        }
    }

    #[test]
    fn a_bucket_is_a_cache_line_and_a_segment_four_pages() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(size_of::<Bucket>() * BUCKETS, 4 * 4096);
    }

    /// The most buckets that a look-up in a table visits.
    fn longest_list(index: &Index) -> usize {
        let list = |home| std::iter::successors(Some(home), |&id| Some(index.bucket(id).next).filter(|&id| id != NONE));
        (0..index.buckets).map(|home| list(home).count()).max().unwrap_or(0)
    }

    /// However large the table, an insertion or removal splits or joins one bucket, and takes or gives two segments at the
    /// most; a look-up visits few buckets at any size.
    #[test]
    fn grows_and_shrinks_one_bucket_at_a_time() {
        let mut arena = BucketArena::new(2000);
        let mut index = Index::new(2000);
        let mut free = arena.free();
        for key in 0..100_000 {
            let buckets = index.buckets;
            assert_eq!(index.insert(&mut arena, Spread::Even.hash(key), key), Ok(()));
            assert!(free.abs_diff(arena.free()) <= 2 && index.buckets - buckets <= 1);
            assert!(key % 997 > 0 || longest_list(&index) <= 4, "{key}: {} buckets", longest_list(&index));
            free = arena.free();
        }
        // 6.25 entries to a home bucket, and some overflow buckets.
        assert!((2000 - free) * BUCKETS < 100_000 / 5);
        for key in 0..99_999 {
            let buckets = index.buckets;
            assert!(index.remove(&mut arena, Spread::Even.hash(key), key));
            assert!(free.abs_diff(arena.free()) <= 2 && buckets - index.buckets <= 1);
            assert!(key % 997 > 0 || longest_list(&index) <= 4, "{key}: {} buckets", longest_list(&index));
            free = arena.free();
        }
        assert!(index.remove(&mut arena, Spread::Even.hash(99_999), 99_999));
        assert_eq!(arena.free(), 2000);
    }
}
