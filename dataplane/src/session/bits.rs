//! A set of small numbers in which the next member is found in a few steps, however sparse it is.

/// A set of numbers below a fixed bound: a bitmap, with bitmaps of its non-zero words above it, up to a single word.
/// Every operation takes one step per level (three for 262,144 numbers). No allocation after construction.
#[derive(Debug, Clone)]
pub struct BitSet {
    /// `levels[0]` holds the members; bit `i` of the next level is set if word `i` of this one is not zero.
    levels: Vec<Box<[u64]>>,
}

impl BitSet {
    /// The empty set, with room for the numbers below `bound`.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        let mut levels = Vec::new();
        let mut words = bound;
        while levels.is_empty() || words > 1 {
            words = words.div_ceil(64).max(1);
            levels.push(vec![0; words].into_boxed_slice());
        }
        BitSet { levels }
    }

    /// Adds `member`. No effect at or above the bound.
    #[inline]
    pub fn insert(&mut self, mut member: usize) {
        for level in &mut self.levels {
            let Some(word) = level.get_mut(member / 64) else { return };
            *word |= 1 << (member % 64);
            member /= 64;
        }
    }

    /// Takes `member` out, if it is in.
    #[inline]
    pub fn remove(&mut self, mut member: usize) {
        for level in &mut self.levels {
            let Some(word) = level.get_mut(member / 64) else { return };
            *word &= !(1 << (member % 64));
            if *word != 0 {
                return;
            }
            member /= 64;
        }
    }

    /// The smallest member that is not less than `from`.
    #[inline]
    #[must_use]
    pub fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(at / 64)? & (u64::MAX << (at % 64));
            if rest != 0 {
                at = at / 64 * 64 + rest.trailing_zeros() as usize;
                for below in self.levels.get(..height)?.iter().rev() {
                    at = at * 64 + below.get(at)?.trailing_zeros() as usize;
                }
                return Some(at);
            }
            at = at / 64 + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_btreeset(
            bound in prop_oneof![1usize..200, Just(64), Just(4096), Just(8192), Just(300_000)],
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let (mut set, mut model) = (BitSet::new(bound), BTreeSet::new());
            for (add, number) in steps {
                let number = number.index(bound + 70);
                if add && number < bound {
                    set.insert(number);
                    model.insert(number);
                } else {
                    set.remove(number);
                    model.remove(&number);
                }
                for from in [0, number, number + 1, bound, bound + 64] {
                    prop_assert_eq!(set.next(from), model.range(from..).next().copied());
                }
            }
        }
    }
}
