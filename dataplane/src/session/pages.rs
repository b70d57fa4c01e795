//! Huge pages for tables on the heap.
//!
//! With ordinary pages of 4 KiB, every look-up in a table of a million flows first waits for the page tables themselves:
//! they fall out of the caches too. The tables are taken once, at start, so the kernel is asked once, at start, to put
//! huge pages under them.

use std::ptr;

/// The size of a huge page, in bytes.
const HUGE: usize = 2 << 20;
/// Below this many bytes a table is left alone: it is quick anyway, and quicker made.
const WORTHWHILE: usize = 4 << 20;

/// Asks the kernel to replace the ordinary pages under `boxes`, already written, by huge ones (Linux 6.1 and later; an older
/// one refuses, and nothing changes). Whole huge pages only, so that the edges stay as they are.
pub fn make_huge<T>(boxes: &[Box<T>]) {
    if size_of_val(boxes) / size_of::<Box<T>>() * size_of::<T>() < WORTHWHILE {
        return;
    }
    let mut pages: Vec<usize> = boxes.iter().map(|it| ptr::from_ref::<T>(it).addr() / HUGE).collect();
    pages.sort_unstable();
    // A huge page is worth having if most of it is ours.
    for page in pages.chunk_by(|a, b| a == b).filter(|it| it.len() * size_of::<T>() > HUGE / 2) {
        let address = ptr::without_provenance_mut(page[0] * HUGE);
        // SAFETY: MADV_COLLAPSE changes no content and no access right, whatever is at the address: it copies pages to
        // others and maps these in their place. Where it can't, it says so, and that does not matter here.
        unsafe { libc::madvise(address, HUGE, libc::MADV_COLLAPSE) };
    }
}
