//! Longest-prefix match for IPv4 and IPv6.
//!
//! A multibit trie: 16 bits at the root, then 8 bits a step. Prefixes are pushed down to the leaves, so that a look-up
//! reads one word per step, keeps no best match so far, and ends after two steps for most IPv4 tables. Where all addresses
//! but those of one longer prefix mean the same, a [`Skip`] compares as many bytes as are in common at once: in most IPv6
//! tables a subnet is one step behind the root, and an address in it another one. It is built once, when a plan is compiled,
//! and only read by the packet path. One trie holds keys of one family.
//!
//! An empty trie takes no memory; one with a handful of prefixes 320 KiB for the root and some KiB more.

/// Bits of the root, and words in it.
const ROOT_BITS: usize = 16;
const ROOT: usize = 1 << ROOT_BITS;
/// Words in a node below the root.
const NODE: usize = 256;
/// Mark a word that leads to a node, or to a skip; the other bits are its number. Any other word is a value plus one, or zero
/// for none.
const CHILD: u32 = 1 << 31;
const SKIP: u32 = 1 << 30;

/// A map from prefixes to numbers, and from an address to that of the longest prefix that it is in.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    /// The root, then the nodes.
    words: Vec<u32>,
    /// The length of the prefix that each leaf word is from. For insertions only.
    lens: Vec<u8>,
    skips: Vec<Skip>,
}

/// Several steps at once, all but one of whose ways lead to the same leaf.
#[derive(Debug, Clone, Copy)]
struct Skip {
    /// The way that does not, from the first bit of the address on, and the bits that it has.
    key: u128,
    mask: u128,
    /// The word behind it, and that behind all others, which is a leaf.
    hit: u32,
    miss: u32,
    /// The lengths of the prefixes that these leaves are from. For insertions only.
    hit_len: u8,
    miss_len: u8,
    /// The byte of the address that the next step looks at.
    end: u8,
}

/// Where a word is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the root, or in a node.
    Word(usize),
    /// In the skip of that number.
    Hit(usize),
}

impl Trie {
    /// The largest value that a trie holds.
    pub const VALUE_MAX: u32 = SKIP - 2;

    /// A trie without prefixes.
    #[must_use]
    pub const fn new() -> Self {
        Trie { words: Vec::new(), lens: Vec::new(), skips: Vec::new() }
    }

    /// Maps the prefix of the first `len` bits of `key` to `value`, in place of what it was mapped to before. The order of
    /// insertions of different prefixes does not matter.
    ///
    /// `key` is an address in network order, 4 or 16 bytes (bytes that are missing count as zero); its bits behind the
    /// prefix are ignored, and a `len` above its width means the whole address. A `value` above [`Trie::VALUE_MAX`] is
    /// taken for that.
    pub fn insert(&mut self, key: &[u8], len: u8, value: u32) {
        let len = usize::from(len).min(key.len() * 8).min(128);
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        if self.words.is_empty() {
            self.add_node(ROOT, (0, 0));
        }
        // A word, its place among the words of its node, and the bits that lead to it.
        let mut at = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let (mut place, mut end) = (Place::Word(at), ROOT_BITS);
        while len > end {
            let word = self.leaf(place).0;
            if word & CHILD != 0 {
                at = usize::from(bytes[end / 8]);
                (place, end) = (Place::Word(node(word) + at), end + 8);
            } else if word & SKIP == 0 {
                self.lengthen(place, &bytes, len, end);
            } else if let skip = self.skips[number(word)]
                && let skipped = usize::from(skip.end) * 8
                && len >= skipped
                && (u128::from_be_bytes(bytes) ^ skip.key) & skip.mask == 0
            {
                (place, end) = (Place::Hit(number(word)), skipped);
            } else {
                self.split(place, end / 8);
            }
        }
        #[allow(clippy::cast_possible_truncation)] // at most 128, see above
        let leaf = (value.min(Self::VALUE_MAX) + 1, len as u8);
        match place {
            // It has that many bits exactly.
            Place::Hit(_) => self.cover(place, leaf),
            Place::Word(word) => {
                let span = 1 << (end - len);
                let first = word - at % span;
                (first..first + span).for_each(|word| self.cover(Place::Word(word), leaf));
            }
        }
    }

    /// The value of the longest prefix that an IPv4 address, in host order, is in.
    #[inline]
    #[must_use]
    pub fn lookup4(&self, address: u32) -> Option<u32> {
        let mut word = *self.words.get((address >> 16) as usize)?;
        let mut at = 2;
        while word & (CHILD | SKIP) != 0 {
            if word & CHILD != 0 {
                let byte = address >> (24u32.wrapping_sub(8 * at) & 24) & 0xff;
                word = *self.words.get(node(word) + byte as usize)?;
                at += 1;
            } else {
                let skip = self.skips.get(number(word))?;
                if (u64::from(address) << 32 ^ high(skip.key)) & high(skip.mask) != 0 {
                    return skip.miss.checked_sub(1);
                }
                (word, at) = (skip.hit, u32::from(skip.end));
            }
        }
        word.checked_sub(1)
    }

    /// The value of the longest prefix that an IPv6 address, in host order, is in.
    #[inline]
    #[must_use]
    pub fn lookup6(&self, address: u128) -> Option<u32> {
        let bytes = address.to_be_bytes();
        let mut word = *self.words.get((address >> 112) as usize)?;
        let mut at = 2;
        while word & (CHILD | SKIP) != 0 {
            if word & CHILD != 0 {
                word = *self.words.get(node(word) + usize::from(bytes[at & 15]))?;
                at += 1;
            } else {
                let skip = self.skips.get(number(word))?;
                if (address ^ skip.key) & skip.mask != 0 {
                    return skip.miss.checked_sub(1);
                }
                (word, at) = (skip.hit, usize::from(skip.end));
            }
        }
        word.checked_sub(1)
    }

    /// Makes a leaf lead on toward a longer prefix: by a skip, or by a node, where less than a byte is left of the prefix.
    fn lengthen(&mut self, place: Place, bytes: &[u8; 16], len: usize, end: usize) {
        let (leaf, leaf_len) = self.leaf(place);
        let word = if len / 8 == end / 8 {
            let start = self.add_node(NODE, (leaf, leaf_len));
            marked(CHILD, (start - ROOT) / NODE)
        } else {
            let mask = u128::MAX << (128 - len / 8 * 8);
            #[allow(clippy::cast_possible_truncation)] // at most 16
            let end = (len / 8) as u8;
            let key = u128::from_be_bytes(*bytes) & mask;
            let (hit, miss, hit_len, miss_len) = (leaf, leaf, leaf_len, leaf_len);
            self.skips.push(Skip { key, mask, hit, miss, hit_len, miss_len, end });
            marked(SKIP, self.skips.len() - 1)
        };
        self.set(place, (word, leaf_len));
    }

    /// Makes a node of a skip's first byte, which is that one of the address.
    fn split(&mut self, place: Place, byte: usize) {
        let (word, len) = self.leaf(place);
        let skip = self.skips[number(word)];
        let start = self.add_node(NODE, (skip.miss, skip.miss_len));
        let rest = if byte + 1 == usize::from(skip.end) { (skip.hit, skip.hit_len) } else { (word, len) };
        self.set(Place::Word(start + usize::from(skip.key.to_be_bytes()[byte])), rest);
        self.set(place, (marked(CHILD, (start - ROOT) / NODE), len));
    }

    /// A word, and the length of the prefix that it is from, if it is a leaf.
    fn leaf(&self, place: Place) -> (u32, u8) {
        match place {
            Place::Word(at) => (self.words[at], self.lens[at]),
            Place::Hit(skip) => (self.skips[skip].hit, self.skips[skip].hit_len),
        }
    }

    fn set(&mut self, place: Place, leaf: (u32, u8)) {
        match place {
            Place::Word(at) => (self.words[at], self.lens[at]) = leaf,
            Place::Hit(skip) => (self.skips[skip].hit, self.skips[skip].hit_len) = leaf,
        }
    }

    /// Appends a node of that many equal words, and returns where it starts.
    fn add_node(&mut self, words: usize, (word, len): (u32, u8)) -> usize {
        let start = self.words.len();
        self.words.resize(start + words, word);
        self.lens.resize(start + words, len);
        start
    }

    /// Sets all leaves below this word, where they are not from a longer prefix.
    fn cover(&mut self, place: Place, leaf: (u32, u8)) {
        let (word, len) = self.leaf(place);
        if word & CHILD != 0 {
            let start = node(word);
            (start..start + NODE).for_each(|word| self.cover(Place::Word(word), leaf));
        } else if word & SKIP != 0 {
            let skip = &mut self.skips[number(word)];
            if skip.miss_len <= leaf.1 {
                (skip.miss, skip.miss_len) = leaf;
            }
            self.cover(Place::Hit(number(word)), leaf);
        } else if len <= leaf.1 {
            self.set(place, leaf);
        }
    }
}

/// A word that leads to the node, or to the skip, of that number.
#[allow(clippy::cast_possible_truncation)] // 2^30 of them would take 48 GiB
const fn marked(mark: u32, number: usize) -> u32 {
    mark | number as u32
}

/// The number that a marked word has.
#[inline]
const fn number(word: u32) -> usize {
    (word & !(CHILD | SKIP)) as usize
}

/// Where the node starts that a word leads to.
#[inline]
const fn node(word: u32) -> usize {
    ROOT + number(word) * NODE
}

/// The first 64 bits of an address.
#[inline]
const fn high(address: u128) -> u64 {
    (address >> 64) as u64
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
