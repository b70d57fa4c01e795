//! The tables' memory: taken at start, on huge pages where there are any, cut into segments that move from hand to hand.
//!
//! With ordinary pages of 4 KiB, every look-up in a table of a million flows first waits for the page tables themselves:
//! they fall out of the caches too. So memory comes from the reserved huge pages (`vm.nr_hugepages`); where these do not
//! suffice, the kernel is asked to put transparent ones under it; and where it has none, ordinary pages do.
//!
//! A [`Segment`] is a piece of it with one owner, like a `Box`: a table holds it, gives it back to its arena, or moves to
//! another thread with it.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::{fmt, slice};

/// The size of a huge page, in bytes.
const HUGE: usize = 2 << 20;

/// A mapping of memory, unmapped when its last segment is gone.
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is an address and a length; its memory is reached through segments alone, each of which has one owner.
unsafe impl Send for Region {}
// SAFETY: as above; a shared region gives access to nothing.
unsafe impl Sync for Region {}

impl Region {
    /// At least `bytes` bytes of zeroes, aligned to a page. None if the system has no more memory.
    fn take(bytes: usize) -> Option<Region> {
        // On huge pages, whole ones, if they are at least half of use; they may all be taken.
        let huge = bytes.next_multiple_of(HUGE);
        if bytes >= HUGE / 2
            && let Some(start) = map(huge, libc::MAP_HUGETLB | libc::MAP_POPULATE)
        {
            return Some(Region { start, bytes: huge });
        }
        let start = map(bytes.max(1), 0)?;
        // SAFETY: the range is the mapping just made. The kernel may put huge pages under it; if not, nothing changes.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Some(Region { start, bytes: bytes.max(1) })
    }
}

/// A private anonymous mapping. None if there is no memory of that kind.
fn map(bytes: usize, flags: libc::c_int) -> Option<NonNull<u8>> {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags);
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that anybody has.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is as `take` made it, and no segment of it is left: each holds the region.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// `N` records in a row, with one owner.
pub struct Segment<T, const N: usize> {
    start: NonNull<T>,
    /// Keeps the memory. Counted when segments are made and dropped, not when they move.
    _region: Arc<Region>,
    _records: PhantomData<T>,
}

// SAFETY: a segment owns its records as a box does.
unsafe impl<T: Send, const N: usize> Send for Segment<T, N> {}
// SAFETY: a shared segment gives shared access to its records, as a shared box does.
unsafe impl<T: Sync, const N: usize> Sync for Segment<T, N> {}

impl<T: Copy, const N: usize> Segment<T, N> {
    /// `count` segments whose records are all `empty`: all memory is touched.
    ///
    /// # Panics
    /// Without memory for them, as every allocation does.
    #[must_use]
    pub fn take(count: usize, empty: T) -> Vec<Segment<T, N>> {
        const { assert!(align_of::<T>() <= 64 && (size_of::<T>() * N).is_multiple_of(64), "segments stay on cache lines") };
        let bytes = size_of::<T>() * N;
        let region = count.checked_mul(bytes).and_then(Region::take).map(Arc::new);
        let Some(region) = region else { panic!("no memory for a table of {count} times {bytes} bytes") };
        let segment = |number: usize| {
            // SAFETY: `number` is below `count`, and the region has `count` times that many bytes.
            let start = unsafe { region.start.add(number * bytes) }.cast::<T>();
            for at in 0..N {
                // SAFETY: the record is inside the segment, which nobody else has; pages and cache lines align it.
                unsafe { start.add(at).write(empty) };
            }
            Segment { start, _region: Arc::clone(&region), _records: PhantomData }
        };
        (0..count).map(segment).collect()
    }

    /// The records.
    #[inline]
    #[must_use]
    pub fn records(&self) -> &[T] {
        // SAFETY: the segment's `N` records were written when it was made, and it is theirs alone.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), N) }
    }

    /// The records, writable.
    #[inline]
    pub fn records_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `records`; we have the segment for ourselves.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), N) }
    }
}

impl<T, const N: usize> fmt::Debug for Segment<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} records at {:?}", self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_apart_aligned_and_writable() {
        let mut segments = Segment::<[u64; 8], 4>::take(100, [7; 8]);
        for (number, segment) in segments.iter_mut().enumerate() {
            assert_eq!(segment.records(), [[7; 8]; 4]);
            assert_eq!(segment.records().as_ptr().addr() % 64, 0);
            segment.records_mut().fill([number as u64; 8]);
        }
        // Whatever order they go in, the others keep their content.
        segments.retain(|segment| segment.records()[0][0] % 3 == 1);
        assert_eq!(segments.len(), 33);
        assert!(segments.iter().all(|segment| segment.records().iter().flatten().all(|&word| word % 3 == 1)));
    }

    #[test]
    fn nothing_is_something_too() {
        assert!(Segment::<u64, 8>::take(0, 0).is_empty());
    }
}
