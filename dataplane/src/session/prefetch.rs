//! Asking the processor for memory ahead of its use.
//!
//! A table of a million flows lies outside the caches. A burst first names all the lines that it will touch, then
//! touches them: the waits overlap.

/// The cache line of every processor that we build for, in bytes.
pub const LINE: usize = 64;

/// Starts to load all lines of `value` into the first-level cache. Does nothing where there is no such instruction in
/// stable Rust.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: a prefetch is a hint: it reads and writes nothing that the program can see, and does not fault for any
        // address. SSE, which it needs, is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
