//! Longest-prefix match for IPv4 and IPv6.
//!
//! A multibit trie: 16 bits at the root, then 8 bits a step. Prefixes are pushed down to the leaves, so that a look-up
//! reads one word per step, keeps no best match so far, and ends after two steps for most IPv4 tables. It is built once,
//! when a plan is compiled, and only read by the packet path. One trie holds keys of one family.
//!
//! An empty trie takes no memory; one with a handful of prefixes 640 KiB at the most (320 KiB for the root, 1.25 KiB for
//! each node, and room to grow).

/// Bits of the root, and words in it.
const ROOT_BITS: u8 = 16;
const ROOT: usize = 1 << ROOT_BITS;
/// Words in a node below the root.
const NODE: usize = 256;
/// Marks a word that leads to a node; the other bits are the node's number. Any other word is a value plus one, or zero
/// for none.
const CHILD: u32 = 1 << 31;

/// A map from prefixes to numbers, and from an address to that of the longest prefix that it is in.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    /// The root, then the nodes.
    words: Vec<u32>,
    /// The length of the prefix that each leaf word is from. For insertions only.
    lens: Vec<u8>,
}

impl Trie {
    /// The largest value that a trie holds.
    pub const VALUE_MAX: u32 = CHILD - 2;

    /// A trie without prefixes.
    #[must_use]
    pub const fn new() -> Self {
        Trie { words: Vec::new(), lens: Vec::new() }
    }

    /// Maps the prefix of the first `len` bits of `key` to `value`, in place of what it was mapped to before. The order of
    /// insertions of different prefixes does not matter.
    ///
    /// `key` is an address in network order, 4 or 16 bytes (bytes that are missing count as zero); its bits behind the
    /// prefix are ignored, and a `len` above its width means the whole address. A `value` above [`Trie::VALUE_MAX`] is
    /// taken for that.
    pub fn insert(&mut self, key: &[u8], len: u8, value: u32) {
        let len = usize::from(len).min(key.len() * 8).min(128);
        let byte = |at: usize| usize::from(key.get(at).copied().unwrap_or(0));
        if self.words.is_empty() {
            self.add_node(ROOT, 0, 0);
        }
        let (mut node, mut at, mut end) = (0, byte(0) << 8 | byte(1), usize::from(ROOT_BITS));
        while len > end {
            node = self.descend(node + at);
            at = byte(end / 8);
            end += 8;
        }
        let span = 1 << (end - len);
        let first = node + at / span * span;
        #[allow(clippy::cast_possible_truncation)] // at most 128, see above
        self.cover(first..first + span, len as u8, value.min(Self::VALUE_MAX) + 1);
    }

    /// The value of the longest prefix that an IPv4 address, in host order, is in.
    #[inline]
    #[must_use]
    pub fn lookup4(&self, address: u32) -> Option<u32> {
        let mut word = *self.words.get((address >> 16) as usize)?;
        let mut rest = address << 16;
        while word & CHILD != 0 {
            word = *self.words.get(node(word) + (rest >> 24) as usize)?;
            rest <<= 8;
        }
        word.checked_sub(1)
    }

    /// The value of the longest prefix that an IPv6 address, in host order, is in.
    #[inline]
    #[must_use]
    pub fn lookup6(&self, address: u128) -> Option<u32> {
        let mut word = *self.words.get((address >> 112) as usize)?;
        let mut rest = address << 16;
        while word & CHILD != 0 {
            word = *self.words.get(node(word) + (rest >> 120) as usize)?;
            rest <<= 8;
        }
        word.checked_sub(1)
    }

    /// The node below the word at `place`. Where there was none, one that means the same as the word did.
    fn descend(&mut self, place: usize) -> usize {
        let word = self.words[place];
        if word & CHILD != 0 {
            return node(word);
        }
        let start = self.add_node(NODE, word, self.lens[place]);
        #[allow(clippy::cast_possible_truncation)] // 2^31 nodes would take 2.5 TiB
        let number = ((start - ROOT) / NODE) as u32;
        self.words[place] = CHILD | number;
        start
    }

    /// Appends a node of that many equal words, and returns where it starts.
    fn add_node(&mut self, words: usize, word: u32, len: u8) -> usize {
        let start = self.words.len();
        self.words.resize(start + words, word);
        self.lens.resize(start + words, len);
        start
    }

    /// Sets all leaves below these words to `leaf`, where they are not from a longer prefix than `len`.
    fn cover(&mut self, places: std::ops::Range<usize>, len: u8, leaf: u32) {
        for place in places {
            let word = self.words[place];
            if word & CHILD != 0 {
                self.cover(node(word)..node(word) + NODE, len, leaf);
            } else if self.lens[place] <= len {
                (self.words[place], self.lens[place]) = (leaf, len);
            }
        }
    }
}

/// Where the node starts that a word leads to.
#[inline]
const fn node(word: u32) -> usize {
    ROOT + (word & !CHILD) as usize * NODE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest prefix of a list that covers `address`, an address of `width` bits; of equal ones the last.
    fn scan(table: &[(u128, u8, u32)], width: u8, address: u128) -> Option<u32> {
        let covers = |&&(key, len, _): &&(u128, u8, u32)| {
            let shift = u32::from(width - len);
            (key ^ address).checked_shr(shift).unwrap_or(0) == 0
        };
        table.iter().filter(covers).max_by_key(|&&(_, len, _)| len).map(|&(_, _, value)| value)
    }

    /// Addresses that share beginnings: a few patterns, cut anywhere and continued otherwise.
    fn address() -> impl Strategy<Value = u128> {
        let pattern = prop_oneof![Just(0u128), Just(u128::MAX), Just(0x2001_0db8_aaaa_5555_1234_5678_9abc_def0)];
        (pattern.clone(), pattern, 0u32..=128, any::<u128>(), 0u32..=128).prop_map(|(a, b, cut, noise, quiet)| {
            let low = u128::MAX.checked_shr(cut).unwrap_or(0);
            (a & !low | b & low) ^ noise.checked_shr(quiet).unwrap_or(0)
        })
    }

    /// A table of prefixes, and addresses to look up: the edges of each prefix, and others.
    fn table(width: u8) -> impl Strategy<Value = (Vec<(u128, u8, u32)>, Vec<u128>)> {
        let table = prop::collection::vec((address(), 0..=width, 0..Trie::VALUE_MAX), 0..40);
        (table, prop::collection::vec(address(), 40)).prop_map(move |(mut table, mut addresses)| {
            let cut = |address: u128| address >> (128 - u32::from(width));
            for (key, len, _) in &mut table {
                *key = cut(*key);
                let low = cut(u128::MAX).checked_shr(u32::from(*len)).unwrap_or(0);
                let (first, last) = (*key & !low, *key | low);
                addresses
                    .extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| a & cut(u128::MAX)));
            }
            addresses.iter_mut().take(40).for_each(|address| *address = cut(*address));
            (table, addresses)
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds_in_ipv4((table, addresses) in table(32)) {
            let mut trie = Trie::new();
            for &(key, len, value) in &table {
                trie.insert(&u32::try_from(key).unwrap().to_be_bytes(), len, value);
            }
            for address in addresses {
                prop_assert_eq!(trie.lookup4(u32::try_from(address).unwrap()), scan(&table, 32, address));
            }
        }

        #[test]
        fn finds_what_a_scan_finds_in_ipv6((table, addresses) in table(128)) {
            let mut trie = Trie::new();
            for &(key, len, value) in &table {
                trie.insert(&key.to_be_bytes(), len, value);
            }
            for address in addresses {
                prop_assert_eq!(trie.lookup6(address), scan(&table, 128, address));
            }
        }

        /// Nothing that is inserted makes a look-up fail.
        #[test]
        fn takes_anything(key in prop::collection::vec(any::<u8>(), 0..20), len: u8, value: u32, address: u128) {
            let mut trie = Trie::new();
            trie.insert(&key, len, value);
            let _ = (trie.lookup4((address >> 96) as u32), trie.lookup6(address));
        }
    }

    #[test]
    fn a_few_routes_take_little_memory() {
        let mut trie = Trie::new();
        assert_eq!((trie.lookup4(0), trie.lookup6(0), trie.words.capacity()), (None, None, 0));
        trie.insert(&[0; 16], 0, 1);
        trie.insert(&0x2001_0db8_0000_0000_0000_0000_0000_0001_u128.to_be_bytes(), 128, 2);
        let bytes = trie.words.capacity() * 4 + trie.lens.capacity();
        assert!(bytes <= 640 << 10, "{bytes} bytes");
    }
}
