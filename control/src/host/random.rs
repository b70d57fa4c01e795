//! Random delays, and nothing that must be unpredictable.

use std::time::Duration;

/// A reproducible stream of numbers (SplitMix64): the same seed gives the same delays in every replay.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly between half and one and a half times `base` (RFC 4861 §10, MIN_RANDOM_FACTOR and MAX_RANDOM_FACTOR), to
    /// the millisecond.
    pub fn around(&mut self, base: Duration) -> Duration {
        let millis = u64::try_from(base.as_millis()).unwrap_or(u64::MAX).max(1);
        base / 2 + Duration::from_millis(self.next() % millis)
    }
}
