//! Records with stable ids, in memory that all slabs of a worker share.
//!
//! A slab hands out ids, 32 to a segment; segments come from an arena and go back to it as soon as they are empty. New
//! records go to the lowest segment that has room, so that the higher ones empty. What is in use is noted beside the
//! records: finding one touches a 16-byte directory entry, which is hot or prefetched, and the record's own lines.
//!
//! No operation allocates or panics after construction, and all take constant time. Ids are reused at once.

use super::bits::BitSet;
use super::pages::make_huge;
use super::prefetch::prefetch;

/// Records in a segment.
pub const RECORDS: usize = 32;
/// The most segments of one slab: all ids of 32 bits.
const SEGMENTS_MAX: usize = 1 << 27;

type Segment<T> = Box<[T; RECORDS]>;

/// The memory that the slabs of one worker share.
#[derive(Debug)]
pub struct SlabArena<T> {
    free: Vec<Segment<T>>,
}

impl<T: Default> SlabArena<T> {
    /// Takes `segments` segments of 32 records from the heap, and touches them.
    #[must_use]
    pub fn new(segments: usize) -> Self {
        let free: Vec<Segment<T>> = (0..segments).map(|_| Box::new(std::array::from_fn(|_| T::default()))).collect();
        make_huge(&free);
        SlabArena { free }
    }
}

impl<T> SlabArena<T> {
    /// Segments that no slab holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Makes room for so many segments in all: those that moved shards bring along are given back here, without an allocation.
    pub fn make_room(&mut self, segments: usize) {
        self.free.reserve_exact(segments.saturating_sub(self.free.len()));
    }

    /// Enough for `records` records in `slabs` slabs, however they are spread over them. Records do not move: while many
    /// segments have room that their slab does not need, another slab may find the arena empty before that number.
    #[must_use]
    pub const fn segments_for(records: usize, slabs: usize) -> usize {
        records.div_ceil(RECORDS) + slabs
    }
}

#[derive(Debug)]
struct Entry<T> {
    /// None: this place of the directory is vacant.
    records: Option<Segment<T>>,
    /// A bit for each record in use.
    used: u32,
}

/// The records of one shard. `T::default()` is what lies in unused places.
#[derive(Debug)]
pub struct Slab<T> {
    /// Grows to its reserved capacity as it is needed, never above it.
    directory: Vec<Entry<T>>,
    max_segments: usize,
    /// Places of the directory whose segment has room.
    room: BitSet,
    /// Places of the directory that have no segment.
    vacant: BitSet,
    len: usize,
}

impl<T: Default> Slab<T> {
    /// An empty slab that may come to hold up to `max_segments` segments, and holds none yet. Of the directory,
    /// 16 bytes a segment, only what is used is ever touched.
    #[must_use]
    pub fn new(max_segments: usize) -> Self {
        let max_segments = max_segments.min(SEGMENTS_MAX);
        Slab {
            directory: Vec::with_capacity(max_segments),
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

    /// Stores `record` and returns its id. None, and no change, if the arena is empty or the slab at its bound.
    #[inline]
    pub fn insert(&mut self, arena: &mut SlabArena<T>, record: T) -> Option<u32> {
        let place = match self.room.next(0) {
            Some(place) => place,
            None => self.add_segment(arena)?,
        };
        let entry = self.directory.get_mut(place)?;
        let slot = entry.used.trailing_ones();
        *entry.records.as_mut()?.get_mut(slot as usize)? = record;
        entry.used |= 1 << slot;
        if entry.used == u32::MAX {
            self.room.remove(place);
        }
        self.len += 1;
        id(place, slot)
    }

    /// Takes the record out. None if there is no such record.
    #[inline]
    pub fn remove(&mut self, arena: &mut SlabArena<T>, id: u32) -> Option<T> {
        let record = std::mem::take(self.get_mut(id)?);
        let (place, bit) = locate(id);
        let entry = self.directory.get_mut(place)?;
        entry.used &= !bit;
        if entry.used == 0 {
            arena.free.extend(entry.records.take());
            self.room.remove(place);
            self.vacant.insert(place);
        } else {
            self.room.insert(place);
        }
        self.len -= 1;
        Some(record)
    }

    /// The record.
    #[inline]
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        let (place, bit) = locate(id);
        let entry = self.directory.get(place)?;
        if entry.used & bit == 0 {
            return None;
        }
        Some(&entry.records.as_ref()?[id as usize % RECORDS])
    }

    /// The record, writable.
    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (place, bit) = locate(id);
        let entry = self.directory.get_mut(place)?;
        if entry.used & bit == 0 {
            return None;
        }
        Some(&mut entry.records.as_mut()?[id as usize % RECORDS])
    }

    /// Loads the lines of a record. Any id will do.
    #[inline]
    pub fn prefetch(&self, id: u32) {
        if let Some(record) = self.get(id) {
            prefetch(record);
        }
    }

    /// The ids of the records in a segment, by its place in the directory. None behind the last place.
    pub fn ids_in(&self, place: usize) -> Option<impl Iterator<Item = u32> + use<T>> {
        let used = self.directory.get(place)?.used;
        Some((0..32).filter(move |slot| used >> slot & 1 == 1).filter_map(move |slot| id(place, slot)))
    }

    /// All records with their ids, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.directory.iter().enumerate().flat_map(|(place, entry)| {
            let records = entry.records.iter().flat_map(|records| records.iter());
            (0u32..).zip(records).filter_map(move |(slot, record)| {
                let used = entry.used >> slot & 1 == 1;
                if used { id(place, slot).map(|id| (id, record)) } else { None }
            })
        })
    }

    /// Takes a segment from the arena, and returns its place in the directory.
    fn add_segment(&mut self, arena: &mut SlabArena<T>) -> Option<usize> {
        let place = self.vacant.next(0).unwrap_or(self.directory.len());
        if place == self.max_segments {
            return None;
        }
        let records = Some(arena.free.pop()?);
        match self.directory.get_mut(place) {
            Some(entry) => entry.records = records,
            None => self.directory.push(Entry { records, used: 0 }),
        }
        self.vacant.remove(place);
        self.room.insert(place);
        Some(place)
    }
}

/// The id of a record: its segment's place in the directory, then five bits of its slot there.
fn id(place: usize, slot: u32) -> Option<u32> {
    Some(u32::try_from(place).ok()? << 5 | slot)
}

/// The place of a record's segment in the directory, and the record's bit in [`Entry::used`].
#[inline]
const fn locate(id: u32) -> (usize, u32) {
    (id as usize / RECORDS, 1 << (id % 32))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
            (0u32..150).prop_map(Step::Insert),
            (0u32..150, any::<prop::sample::Index>(), 0usize..70).prop_map(|(count, at, stride)| Step::Remove {
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
                    let mut places: Vec<_> = model.keys().map(|id| id / 32).collect();
                    places.dedup();
                    places.len()
                }).sum();
                prop_assert_eq!(arena.free(), segments - held);
            }
        }
    }

    #[test]
    fn records_keep_their_alignment() {
        #[derive(Debug, Default)]
        #[repr(align(64))]
        struct Line(u8);
        let mut arena = SlabArena::<Line>::new(2);
        let mut slab = Slab::new(2);
        for n in 0..64 {
            let id = slab.insert(&mut arena, Line(n)).unwrap();
            let record = slab.get(id).unwrap();
            assert_eq!(record.0, n);
            assert_eq!(std::ptr::from_ref(record).addr() % 64, 0);
        }
        assert!(slab.insert(&mut arena, Line(64)).is_none());
    }
}
