//! Records with stable ids, in memory that all slabs of a worker share.
//!
//! A slab hands out ids, 256 to a segment; segments come from an arena and go back to it as soon as they are empty. New
//! records go to the lowest segment that has room, so that the higher ones empty. A record itself says whether it is in
//! use: finding one touches its segment's place in the directory, which is hot, and the record's own line, and nothing else.
//! What only some operations need, such as a place in the timer wheel, lies beside the records ([`Record::Side`]).
//!
//! No operation allocates or panics after construction, and all take constant time. Ids are reused at once.

use super::bits::BitSet;
use super::memory::Segment;
use super::prefetch::prefetch;

/// Records in a segment.
pub const RECORDS: usize = 256;
/// Records in a chunk: the unit in which walks go through a slab.
pub const CHUNK: usize = 32;
/// Chunks in a segment.
const CHUNKS: usize = RECORDS / CHUNK;
/// The most segments of one slab: ids have 29 bits.
const SEGMENTS_MAX: usize = (1 << 29) / RECORDS;

/// What a slab holds.
pub trait Record: Copy + Default {
    /// What lies beside the record.
    type Side: Copy + Default;
    /// What lies beside it where the memory was taken for that too ([`SlabArena::extended`]).
    type Extra: Copy + Default;

    /// Whether this is a record, and not the [`Default`] that lies in unused places.
    fn is_used(&self) -> bool;
}

/// A segment's content.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block<T: Record> {
    records: [T; RECORDS],
    sides: [T::Side; RECORDS],
}

/// The memory that the slabs of one worker share.
#[derive(Debug)]
pub struct SlabArena<T: Record> {
    free: Vec<Segment<Block<T>, 1>>,
    /// As many, or none.
    extras: Vec<Segment<T::Extra, RECORDS>>,
}

impl<T: Record> SlabArena<T> {
    /// Takes `segments` segments of 256 records, and touches them.
    #[must_use]
    pub fn new(segments: usize) -> Self {
        let empty = Block { records: [T::default(); RECORDS], sides: [T::Side::default(); RECORDS] };
        SlabArena { free: Segment::take(segments, empty), extras: Vec::new() }
    }

    /// The same, with an [`Record::Extra`] for each record.
    #[must_use]
    pub fn extended(segments: usize) -> Self {
        SlabArena { extras: Segment::take(segments, T::Extra::default()), ..SlabArena::new(segments) }
    }

    /// Segments that no slab holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes room for so many segments in all: those that moved shards bring along are given back here, without an allocation.
    pub fn make_room(&mut self, segments: usize) {
        self.free.reserve_exact(segments.saturating_sub(self.free.len()));
        if !self.extras.is_empty() {
            self.extras.reserve_exact(segments.saturating_sub(self.extras.len()));
        }
    }

    /// Enough for `records` records in `slabs` slabs, however they are spread over them. Records do not move: while many
    /// segments have room that their slab does not need, another slab may find the arena empty before that number.
    #[must_use]
    pub const fn segments_for(records: usize, slabs: usize) -> usize {
        records.div_ceil(RECORDS) + slabs
    }

    /// Memory for one record, in bytes.
    #[must_use]
    pub const fn bytes() -> usize {
        size_of::<Block<T>>() / RECORDS
    }
}

/// The records of one shard.
#[derive(Debug)]
pub struct Slab<T: Record> {
    /// Grows to its reserved capacity as it is needed, never above it. None: this place is vacant.
    directory: Vec<Option<Segment<Block<T>, 1>>>,
    /// The same for what lies beside the records at wish.
    extras: Vec<Option<Segment<T::Extra, RECORDS>>>,
    /// For each place, a bit for each record in use: where there is room. Kept apart, as look-ups do not need it.
    used: Vec<[u32; CHUNKS]>,
    max_segments: usize,
    /// Places of the directory whose segment has room.
    room: BitSet,
    /// Places of the directory that have no segment.
    vacant: BitSet,
    len: usize,
}

impl<T: Record> Slab<T> {
    /// An empty slab that may come to hold up to `max_segments` segments, and holds none yet. Of the directory,
    /// 48 bytes a segment, only what is used is ever touched.
    #[must_use]
    pub fn new(max_segments: usize) -> Self {
        let max_segments = max_segments.min(SEGMENTS_MAX);
        Slab {
            directory: Vec::with_capacity(max_segments),
            extras: Vec::with_capacity(max_segments),
            used: Vec::with_capacity(max_segments),
            max_segments,
            room: BitSet::new(max_segments),
            vacant: BitSet::new(max_segments),
            len: 0,
        }
    }

    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores `record`, which is in use, and returns its id. None, and no change, if the arena is empty or the slab at its
    /// bound.
    #[inline]
    pub fn insert(&mut self, arena: &mut SlabArena<T>, record: T) -> Option<u32> {
        let place = match self.room.next(0) {
            Some(place) => place,
            None => self.add_segment(arena)?,
        };
        let used = self.used.get_mut(place)?;
        let chunk = used.iter().position(|&bits| bits != u32::MAX)?;
        let slot = used[chunk].trailing_ones() as usize;
        used[chunk] |= 1 << slot;
        let is_full = used.iter().all(|&bits| bits == u32::MAX);
        let at = chunk * CHUNK + slot;
        *self.directory.get_mut(place)?.as_mut()?.records_mut().first_mut()?.records.get_mut(at)? = record;
        if is_full {
            self.room.remove(place);
        }
        self.len += 1;
        let id = u32::try_from(place * RECORDS + at).ok()?;
        if let Some(extra) = self.extra_mut(id) {
            *extra = T::Extra::default();
        }
        Some(id)
    }

    /// Takes the record out. None if there is no such record.
    #[inline]
    pub fn remove(&mut self, arena: &mut SlabArena<T>, id: u32) -> Option<T> {
        let record = std::mem::take(self.get_mut(id)?);
        if let Some(side) = self.side_mut(id) {
            *side = T::Side::default();
        }
        let (place, at) = locate(id);
        let used = self.used.get_mut(place)?;
        used[at / CHUNK] &= !(1 << (at % CHUNK));
        if used.iter().all(|&bits| bits == 0) {
            arena.free.extend(self.directory.get_mut(place)?.take());
            arena.extras.extend(self.extras.get_mut(place)?.take());
            self.room.remove(place);
            self.vacant.insert(place);
        } else {
            self.room.insert(place);
        }
        self.len -= 1;
        Some(record)
    }

    #[inline(always)]
    fn block(&self, place: usize) -> Option<&Block<T>> {
        self.directory.get(place)?.as_ref()?.records().first()
    }

    #[inline(always)]
    fn block_mut(&mut self, place: usize) -> Option<&mut Block<T>> {
        self.directory.get_mut(place)?.as_mut()?.records_mut().first_mut()
    }

    /// The record.
    #[inline]
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        let (place, at) = locate(id);
        self.block(place)?.records.get(at).filter(|record| record.is_used())
    }

    /// The record, writable.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (place, at) = locate(id);
        self.block_mut(place)?.records.get_mut(at).filter(|record| record.is_used())
    }

    /// A place for a record, whether or not it is in use. Not to be put to use.
    #[inline(always)]
    pub fn place_mut(&mut self, id: u32) -> Option<&mut T> {
        let (place, at) = locate(id);
        self.block_mut(place)?.records.get_mut(at)
    }

    /// What lies beside the record.
    #[inline]
    pub fn side_mut(&mut self, id: u32) -> Option<&mut T::Side> {
        let (place, at) = locate(id);
        self.block_mut(place)?.sides.get_mut(at)
    }

    /// What lies beside the record at wish.
    #[inline]
    #[must_use]
    pub fn extra(&self, id: u32) -> Option<&T::Extra> {
        let (place, at) = locate(id);
        self.extras.get(place)?.as_ref()?.records().get(at)
    }

    /// The same, writable.
    #[inline]
    pub fn extra_mut(&mut self, id: u32) -> Option<&mut T::Extra> {
        let (place, at) = locate(id);
        self.extras.get_mut(place)?.as_mut()?.records_mut().get_mut(at)
    }

    /// Loads the lines of a record. Any id will do.
    #[inline(always)]
    pub fn prefetch(&self, id: u32) {
        let (place, at) = locate(id);
        if let Some(record) = self.block(place).and_then(|block| block.records.get(at)) {
            prefetch(record);
        }
    }

    /// Loads the place that the next record will get.
    pub fn prefetch_vacant(&self) {
        let Some(place) = self.room.next(0) else { return };
        let Some(used) = self.used.get(place) else { return };
        let Some(chunk) = used.iter().position(|&bits| bits != u32::MAX) else { return };
        let at = chunk * CHUNK + used[chunk].trailing_ones() as usize;
        if let Some(block) = self.block(place)
            && let (Some(record), Some(side)) = (block.records.get(at), block.sides.get(at))
        {
            prefetch(record);
            prefetch(side);
        }
    }

    /// The ids of the records in a chunk of 32. None behind the last chunk.
    pub fn ids_in(&self, chunk: usize) -> Option<impl Iterator<Item = u32> + use<T>> {
        let used = *self.used.get(chunk / CHUNKS)?.get(chunk % CHUNKS)?;
        let first = u32::try_from(chunk * CHUNK).ok()?;
        Some((0..32).filter(move |slot| used >> slot & 1 == 1).map(move |slot| first + slot))
    }

    /// All records with their ids, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let ids = (0..).map_while(|chunk| self.ids_in(chunk)).flatten();
        ids.filter_map(|id| self.get(id).map(|record| (id, record)))
    }

    /// Takes a segment from the arena, and returns its place in the directory.
    fn add_segment(&mut self, arena: &mut SlabArena<T>) -> Option<usize> {
        let place = self.vacant.next(0).unwrap_or(self.directory.len());
        if place == self.max_segments {
            return None;
        }
        let (segment, extra) = (Some(arena.free.pop()?), arena.extras.pop());
        match (self.directory.get_mut(place), self.extras.get_mut(place)) {
            (Some(vacant), Some(beside)) => (*vacant, *beside) = (segment, extra),
            _ => {
                self.directory.push(segment);
                self.extras.push(extra);
                self.used.push([0; CHUNKS]);
            }
        }
        self.vacant.remove(place);
        self.room.insert(place);
        Some(place)
    }
}

/// The place of a record's segment in the directory, and the record's place in it.
#[inline]
const fn locate(id: u32) -> (usize, usize) {
    (id as usize / RECORDS, id as usize % RECORDS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Record for u64 {
        type Side = ();
        type Extra = ();

        fn is_used(&self) -> bool {
            *self != 0
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Insert so many.
        Insert(u32),
        /// Remove so many, the first at this place of those there are, then each so many further.
        Remove { count: u32, at: prop::sample::Index, stride: usize },
        /// Write to one.
        Write(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..900).prop_map(Step::Insert),
            (0u32..900, any::<prop::sample::Index>(), 0usize..70).prop_map(|(count, at, stride)| Step::Remove {
                count,
                at,
                stride
            }),
            any::<prop::sample::Index>().prop_map(Step::Write),
        ]
    }

    proptest! {
        /// Several slabs on one arena that is too small for all.
        #[test]
        fn behaves_as_a_map(
            segments in 0usize..12,
            max_segments in 0usize..14,
            steps in prop::collection::vec((0usize..3, step()), 0..40),
        ) {
            let mut arena = SlabArena::<u64>::new(segments);
            let mut slabs: Vec<_> = (0..3).map(|_| (Slab::new(max_segments), BTreeMap::new())).collect();
            let mut next = 0u64;
            for (which, step) in steps {
                let (slab, model) = &mut slabs[which];
                match step {
                    Step::Insert(count) => for _ in 0..count {
                        next += 1;
                        match slab.insert(&mut arena, next) {
                            Some(id) => prop_assert_eq!(model.insert(id, next), None),
                            None => {
                                // Refused only when every segment that it may have is full.
                                prop_assert_eq!(model.len() % RECORDS, 0);
                                prop_assert!(arena.free() == 0 || model.len() == max_segments * RECORDS);
                            }
                        }
                    },
                    Step::Remove { count, at, stride } => for n in 0..count as usize {
                        if model.is_empty() {
                            break;
                        }
                        let id = *model.keys().nth((at.index(model.len()) + n * stride) % model.len()).unwrap();
                        prop_assert_eq!(slab.remove(&mut arena, id), model.remove(&id));
                        prop_assert_eq!(slab.remove(&mut arena, id), None);
                    },
                    Step::Write(at) => if !model.is_empty() {
                        let id = *model.keys().nth(at.index(model.len())).unwrap();
                        next += 1;
                        *slab.get_mut(id).unwrap() = next;
                        model.insert(id, next);
                    },
                }
                for (slab, model) in &slabs {
                    prop_assert_eq!(slab.len(), model.len());
                    prop_assert!(slab.iter().map(|(id, &value)| (id, value)).eq(model.iter().map(|(&k, &v)| (k, v))));
                    for id in (0..500).chain([u32::MAX]) {
                        slab.prefetch(id);
                        prop_assert_eq!(slab.get(id), model.get(&id));
                    }
                }
                // A segment is held only for records that are in it.
                let held: usize = slabs.iter().map(|(_, model)| {
                    let mut places: Vec<_> = model.keys().map(|id| id / 256).collect();
                    places.dedup();
                    places.len()
                }).sum();
                prop_assert_eq!(arena.free(), segments - held);
            }
        }
    }

    #[test]
    fn records_keep_their_alignment() {
        #[derive(Clone, Copy, Debug, Default)]
        #[repr(align(64))]
        struct Line(u16);
        impl Record for Line {
            type Side = u64;
            type Extra = ();

            fn is_used(&self) -> bool {
                self.0 != 0
            }
        }
        assert_eq!(SlabArena::<Line>::bytes(), 72);
        let mut arena = SlabArena::<Line>::new(2);
        let mut slab = Slab::new(2);
        for n in 1..=512 {
            let id = slab.insert(&mut arena, Line(n)).unwrap();
            *slab.side_mut(id).unwrap() = n.into();
        }
        for (id, n) in (0..512).zip(1..) {
            let record = slab.get(id).unwrap();
            assert_eq!((record.0, std::ptr::from_ref(record).addr() % 64), (n, 0));
            assert_eq!(slab.side_mut(id), Some(&mut u64::from(n)));
        }
        assert!(slab.insert(&mut arena, Line(1)).is_none());
    }
}
