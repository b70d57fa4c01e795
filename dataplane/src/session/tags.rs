//! Comparing all tags of a bucket at once.

/// A bit for each of these tags that is `tag`: the first has the lowest.
#[inline(always)]
#[must_use]
pub fn equal(tags: &[u16; 9], tag: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    let found = {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        // SAFETY: the sixteen bytes that are loaded, from wherever they lie, are the first eight of nine tags. SSE2, which
        // all of this needs, is part of x86_64.
        unsafe {
            let first = _mm_loadu_si128(tags.as_ptr().cast::<__m128i>());
            let equal = _mm_cmpeq_epi16(first, _mm_set1_epi16(tag.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
        }
    };
    #[cfg(not(target_arch = "x86_64"))]
    let found = tags.iter().take(8).rev().fold(0, |found, &other| found << 1 | u32::from(other == tag));
    found | u32::from(tags[8] == tag) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_has_its_bit() {
        for way in 0..9 {
            for value in [0, 1, 0x7fff, 0x8000, 0xffff] {
                let mut tags = [value ^ 0x0100; 9];
                assert_eq!(equal(&tags, value), 0);
                tags[way] = value;
                assert_eq!(equal(&tags, value), 1 << way);
                assert_eq!(equal(&tags, value ^ 0x0100), 0x1ff & !(1 << way));
            }
        }
    }
}
