//! Explicit address mappings (RFC 7757): which IPv4 address stands for which IPv6 address, row by row.
//!
//! A row maps an IPv4 prefix to an IPv6 prefix. An address is translated by the row with the longest prefix that it is in: the
//! bits behind the prefix go behind the other one; in IPv6 zeros may follow, which on the way back are ignored (§3.3).
//!
//! The table is built once and never changed. For each family it is a hash table of the rows themselves, two in a cache line, by
//! prefix. A look-up asks it once for every length that occurs, from the longest on. Where all rows map whole addresses, that is one
//! question and, but for a few, one line of memory, which can be prefetched; and none for addresses beyond the first and the last row.

use crate::session::prefetch::prefetch;

/// A row of the table. Addresses in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    /// The IPv6 prefix. The bits behind it count for nothing.
    pub v6: u128,
    /// The IPv4 prefix. The bits behind it count for nothing.
    pub v4: u32,
    /// Length of the IPv6 prefix in bits.
    pub v6_len: u8,
    /// Length of the IPv4 prefix in bits.
    pub v4_len: u8,
}

/// The bits behind a prefix of this length.
#[inline]
fn low4(len: u8) -> u32 {
    u32::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// The same for IPv6.
#[inline]
fn low6(len: u8) -> u128 {
    u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// The family of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why rows are no table. Rows are counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A prefix is longer than an address of its family.
    #[error("the prefix is longer than an address")]
    Length(usize),
    /// There are more IPv4 addresses in the row than IPv6 addresses (RFC 7757 §3.2).
    #[error("the IPv4 prefix leaves more bits than the IPv6 prefix: not every address would have one (RFC 7757 §3.2)")]
    Suffix(usize),
    /// Two rows have the same prefix (RFC 7757 §5): the row, the one before it, and in which family.
    #[error("the prefix is in another row as well (RFC 7757 §5)")]
    Identical(usize, usize, Family),
    /// There are more than [`ROWS_MAX`].
    #[error("there are more than 16777216 rows")]
    Rows,
}

/// A row whose prefix lies inside that of another one: it is an exception to it (RFC 7757 §5). Legitimate, but worth a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The row, counted from zero.
    pub row: usize,
    /// The row with the next shorter prefix around it.
    pub within: usize,
    /// In which family.
    pub family: Family,
}

/// The most rows that a table has.
pub const ROWS_MAX: usize = 1 << 24;

/// The table. The default has no rows.
#[derive(Debug, Default)]
pub struct Table {
    by4: Side<u32>,
    by6: Side<u128>,
    len: usize,
}

impl Table {
    /// The table of these rows, and which of them overlap.
    ///
    /// # Errors
    /// The first problem.
    pub fn build(rows: &[Row]) -> Result<(Self, Vec<Overlap>), Problem> {
        if rows.len() > ROWS_MAX {
            return Err(Problem::Rows);
        }
        for (at, row) in rows.iter().enumerate() {
            if row.v4_len > 32 || row.v6_len > 128 {
                return Err(Problem::Length(at));
            }
            if 32 - row.v4_len > 128 - row.v6_len {
                return Err(Problem::Suffix(at));
            }
        }
        let rows: Vec<Row> = rows
            .iter()
            .map(|row| Row { v4: row.v4 & !low4(row.v4_len), v6: row.v6 & !low6(row.v6_len), ..*row })
            .collect();
        let mut overlaps = Vec::new();
        nest(&rows, Family::V4, &mut overlaps)?;
        nest(&rows, Family::V6, &mut overlaps)?;
        let mut by4 = Side::new(&rows, |row| (hash4(row.v4, row.v4_len), row.v4_len), |len| !low4(len));
        let mut by6 = Side::new(&rows, |row| (hash6(row.v6, row.v6_len), row.v6_len), |len| !low6(len));
        by4.first = rows.iter().map(|row| row.v4).min().unwrap_or_default();
        by4.last = rows.iter().map(|row| row.v4 | low4(row.v4_len)).max().unwrap_or_default();
        by6.first = rows.iter().map(|row| row.v6).min().unwrap_or_default();
        by6.last = rows.iter().map(|row| row.v6 | low6(row.v6_len)).max().unwrap_or_default();
        Ok((Table { by4, by6, len: rows.len() }, overlaps))
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The IPv6 address of an IPv4 address (RFC 7757 §3.3.1), by the row with the longest IPv4 prefix that it is in. Host order.
    #[inline]
    #[must_use]
    pub fn to6(&self, address: u32) -> Option<u128> {
        self.find4(address).map(|slot| slot.v6 | u128::from(address & low4(slot.v4_len)) << slot.padding)
    }

    /// The IPv4 address of an IPv6 address (RFC 7757 §3.3.2), by the row with the longest IPv6 prefix that it is in. Host order.
    #[inline]
    #[must_use]
    pub fn to4(&self, address: u128) -> Option<u32> {
        #[allow(clippy::cast_possible_truncation)] // the bits that are asked for are among the lower ones
        self.find6(address).map(|slot| slot.v4 | (address >> slot.padding) as u32 & low4(slot.v4_len))
    }

    /// The row that [`Table::to6`] goes by.
    #[must_use]
    pub fn row4(&self, address: u32) -> Option<Row> {
        self.find4(address).map(Slot::row)
    }

    /// The row that [`Table::to4`] goes by.
    #[must_use]
    pub fn row6(&self, address: u128) -> Option<Row> {
        self.find6(address).map(Slot::row)
    }

    #[inline]
    fn find4(&self, address: u32) -> Option<&Slot> {
        self.by4.lens_of(address).iter().find_map(|&(len, mask)| {
            let key = address & mask;
            self.by4.find(hash4(key, len), |slot| (slot.v4 == key) & (slot.v4_len == len))
        })
    }

    #[inline]
    fn find6(&self, address: u128) -> Option<&Slot> {
        self.by6.lens_of(address).iter().find_map(|&(len, mask)| {
            let key = address & mask;
            self.by6.find(hash6(key, len), |slot| (slot.v6 == key) & (slot.v6_len == len))
        })
    }

    /// Asks for the memory that [`Table::to6`] reads first, to be called some packets before it.
    #[inline]
    pub fn prefetch4(&self, address: u32) {
        if let Some(&(len, mask)) = self.by4.lens_of(address).first() {
            self.by4.prefetch(hash4(address & mask, len));
        }
    }

    /// Asks for the memory that [`Table::to4`] reads first, to be called some packets before it.
    #[inline]
    pub fn prefetch6(&self, address: u128) {
        if let Some(&(len, mask)) = self.by6.lens_of(address).first() {
            self.by6.prefetch(hash6(address & mask, len));
        }
    }
}

/// A row, or none.
#[derive(Clone, Copy, Debug)]
struct Slot {
    v6: u128,
    v4: u32,
    v6_len: u8,
    v4_len: u8,
    /// By how many zeros the IPv6 address's suffix is longer; without a suffix it does not matter.
    padding: u8,
    /// Of a bucket's first slot: whether a row that belongs here is in one of the next buckets.
    has_more: bool,
}

impl Slot {
    /// No row: its prefixes are longer than addresses.
    const FREE: Slot = Slot { v6: 0, v4: 0, v6_len: u8::MAX, v4_len: u8::MAX, padding: 0, has_more: false };

    fn new(row: &Row) -> Self {
        let Row { v6, v4, v6_len, v4_len } = *row;
        Slot { v6, v4, v6_len, v4_len, padding: (96 + v4_len - v6_len).min(127), has_more: false }
    }

    fn row(&self) -> Row {
        Row { v6: self.v6, v4: self.v4, v6_len: self.v6_len, v4_len: self.v4_len }
    }

    fn is_free(&self) -> bool {
        self.v4_len == u8::MAX
    }
}

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([Slot; 2]);

const _: () = assert!(size_of::<Bucket>() == 64);

/// The rows by the prefix of one family, whose addresses are `A`.
#[derive(Debug, Default)]
struct Side<A> {
    /// Lengths of prefixes that occur, from the longest on, and the bits that each has.
    lens: Vec<(u8, A)>,
    /// A power of two of them, at least one for every row. None if there are no rows.
    buckets: Box<[Bucket]>,
    /// By how many bits a hash is shifted right to be a place among them.
    shift: u32,
    /// The first and the last address that is in a row. Many others need no look-up: hosts elsewhere, which no row is about.
    first: A,
    last: A,
}

impl<A: Copy + Default + PartialOrd> Side<A> {
    /// `prefix` gives the hash and the length of a row's prefix, `mask` the bits that a prefix of this length has.
    fn new(rows: &[Row], prefix: impl Fn(&Row) -> (u64, u8), mask: impl Fn(u8) -> A) -> Self {
        let buckets = match rows.len() {
            0 => 0,
            rows => rows.next_power_of_two().max(2),
        };
        let buckets = vec![Bucket([Slot::FREE; 2]); buckets].into_boxed_slice();
        let shift = 64 - buckets.len().trailing_zeros().min(63);
        let mut side = Side { lens: Vec::new(), buckets, shift, first: A::default(), last: A::default() };
        let mut occurs = [false; 129];
        for row in rows {
            let (hash, len) = prefix(row);
            occurs[usize::from(len)] = true;
            side.insert(hash, Slot::new(row));
        }
        side.lens = (0..=128).rev().filter(|&len| occurs[usize::from(len)]).map(|len| (len, mask(len))).collect();
        side
    }

    /// The lengths of prefixes that an address may be in.
    #[inline]
    fn lens_of(&self, address: A) -> &[(u8, A)] {
        if self.first <= address && address <= self.last { &self.lens } else { &[] }
    }

    fn insert(&mut self, hash: u64, new: Slot) {
        let mut place = self.place(hash);
        loop {
            let Bucket(slots) = &mut self.buckets[place];
            if let Some(slot) = slots.iter_mut().find(|slot| slot.is_free()) {
                *slot = Slot { has_more: slot.has_more, ..new };
                return;
            }
            slots[0].has_more = true;
            place = self.next(place);
        }
    }

    /// The bucket where the look-up of a prefix with this hash begins.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // as few bits as there are buckets
    fn place(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline]
    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.buckets.len() - 1)
    }

    /// The slot of the prefix with this hash, of which `is` says whether it is it.
    #[inline]
    fn find(&self, hash: u64, is: impl Fn(&Slot) -> bool) -> Option<&Slot> {
        let mut place = self.place(hash);
        loop {
            let Bucket([first, second]) = self.buckets.get(place)?;
            // Both are looked at: which of them it is can't be foretold, that it is one of them can.
            let (is_first, is_second) = (is(first), is(second));
            if is_first | is_second {
                return Some(if is_second { second } else { first });
            }
            // At most half of the slots have rows, so this ends.
            if !first.has_more {
                return None;
            }
            place = self.next(place);
        }
    }

    #[inline]
    fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.place(hash)) {
            prefetch(bucket);
        }
    }
}

/// Numbers without pattern: 2^64 over the golden ratio, and over the plastic number.
const K: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc13f_a9a9_02a6_328f];

/// The hash of an IPv4 prefix: the upper bits are the good ones. Multiplied twice, so that no step between addresses stays one.
#[inline]
fn hash4(key: u32, len: u8) -> u64 {
    let product = (u64::from(key) << 8 | u64::from(len)).wrapping_mul(K[0]);
    (product ^ product >> 32).wrapping_mul(K[1])
}

/// The hash of an IPv6 prefix: the upper bits are the good ones. Both halves of a product, so that no pattern in the halves of
/// addresses stays one.
#[inline]
#[allow(clippy::cast_possible_truncation)] // the halves
fn hash6(key: u128, len: u8) -> u64 {
    let (high, low) = ((key >> 64) as u64, key as u64);
    let product = u128::from(high ^ u64::from(len) ^ K[0]) * u128::from(low ^ K[1]);
    (product >> 64) as u64 ^ product as u64
}

/// Finds identical prefixes, and those within others.
fn nest(rows: &[Row], family: Family, overlaps: &mut Vec<Overlap>) -> Result<(), Problem> {
    let prefix = |row: &Row| match family {
        Family::V4 => (u128::from(row.v4) << 96, row.v4_len),
        Family::V6 => (row.v6, row.v6_len),
    };
    // A prefix comes behind those that it is in.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&at| (prefix(&rows[at]), at));
    let mut around: Vec<usize> = Vec::new();
    for at in order {
        let (network, len) = prefix(&rows[at]);
        let covers = |&outer: &usize| {
            let (outer, len) = prefix(&rows[outer]);
            network & !low6(len) == outer
        };
        while around.last().is_some_and(|outer| !covers(outer)) {
            around.pop();
        }
        if let Some(&within) = around.last() {
            if prefix(&rows[within]).1 == len {
                return Err(Problem::Identical(at, within, family));
            }
            overlaps.push(Overlap { row: at, within, family });
        }
        around.push(at);
    }
    Ok(())
}

/// How flows between two hosts of the table, by way of their IPv4 addresses, are treated (RFC 7757 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hairpin {
    /// Not at all.
    None,
    /// Some addresses are not looked up in the table, so that answers come back by the same way (§4.2.1).
    Simple,
    /// What was translated to IPv4 is translated back at once (§4.2.2).
    #[default]
    Intrinsic,
}

/// Which address of a packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The source.
    Source,
    /// The destination.
    Destination,
    /// The source of the packet that an ICMP error quotes.
    QuotedSource,
    /// The destination of the packet that an ICMP error quotes.
    QuotedDestination,
}

/// Whether the table may be asked for an address of an IPv4 packet under simple hairpinning (RFC 7757 §4.2.1). If not, the
/// address is embedded in a prefix. `quoted_destination` is that of the packet that an ICMP error quotes; none if the packet
/// is no ICMP error.
#[must_use]
pub fn is_looked_up_by_simple(role: Role, address: u32, quoted_destination: Option<u32>) -> bool {
    match role {
        Role::Source => quoted_destination.is_some_and(|quoted| quoted != address),
        Role::QuotedDestination => false,
        Role::Destination | Role::QuotedSource => true,
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers, and the parts of a random one
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn v4(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().unwrap().to_bits()
    }

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().unwrap().to_bits()
    }

    fn row(four: &str, six: &str) -> Row {
        let (four, v4_len) = four.split_once('/').unwrap();
        let (six, v6_len) = six.split_once('/').unwrap();
        Row { v4: v4(four), v4_len: v4_len.parse().unwrap(), v6: v6(six), v6_len: v6_len.parse().unwrap() }
    }

    fn table(rows: &[(&str, &str)]) -> Result<(Table, Vec<Overlap>), Problem> {
        Table::build(&rows.iter().map(|(four, six)| row(four, six)).collect::<Vec<_>>())
    }

    /// EAM-03: the table of RFC 7757 figure 1, and its addresses.
    #[test]
    fn eam_03_the_rfcs_own_table() {
        let (table, overlaps) = table(&[
            ("192.0.2.1/32", "2001:db8:aaaa::/128"),
            ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
            ("192.0.2.16/28", "2001:db8:cccc::/124"),
            ("192.0.2.128/26", "2001:db8:dddd::/64"),
            ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
            ("192.0.2.224/31", "64:ff9b::/127"),
        ])
        .unwrap();
        assert_eq!((table.len(), overlaps), (6, vec![]));
        for (four, six) in [
            ("192.0.2.1", "2001:db8:aaaa::"),
            ("192.0.2.2", "2001:db8:bbbb::b"),
            ("192.0.2.16", "2001:db8:cccc::"),
            ("192.0.2.24", "2001:db8:cccc::8"),
            ("192.0.2.31", "2001:db8:cccc::f"),
            ("192.0.2.128", "2001:db8:dddd::"),
            ("192.0.2.152", "2001:db8:dddd:0:6000::"),
            ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
            ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
            ("192.0.2.193", "2001:db8:eeee:8:8000::"),
            ("192.0.2.195", "2001:db8:eeee:9:8000::"),
            ("192.0.2.225", "64:ff9b::1"),
        ] {
            assert_eq!(table.to6(v4(four)), Some(v6(six)), "{four}");
            assert_eq!(table.to4(v6(six)), Some(v4(four)), "{six}");
        }
        // What follows the suffix is discarded.
        for (six, four) in [
            ("2001:db8:dddd:0:d000::", "192.0.2.180"),
            ("2001:db8:dddd::ffff:0:1", "192.0.2.128"),
            ("2001:db8:eeee:9:8000::1234", "192.0.2.195"),
        ] {
            assert_eq!(table.to4(v6(six)), Some(v4(four)), "{six}");
        }
        for four in ["192.0.2.0", "192.0.2.3", "192.0.2.15", "192.0.2.32", "192.0.2.200", "0.0.0.0"] {
            assert_eq!(table.to6(v4(four)), None, "{four}");
        }
        for six in ["2001:db8:aaaa::1", "2001:db8:cccc::10", "2001:db8:eeee:c::", "64:ff9b::2", "::"] {
            assert_eq!(table.to4(v6(six)), None, "{six}");
        }
    }

    /// EAM-01: fewer IPv6 than IPv4 addresses are refused, equal and more are not.
    #[test]
    fn eam_01_every_ipv4_address_needs_an_ipv6_address() {
        assert_eq!(table(&[("192.0.2.0/24", "2001:db8::/121")]).err(), Some(Problem::Suffix(0)));
        assert!(table(&[("192.0.2.0/24", "2001:db8::/120")]).is_ok());
        assert!(table(&[("192.0.2.0/24", "2001:db8::/40")]).is_ok());
        assert_eq!(table(&[("0.0.0.0/33", "2001:db8::/128")]).err(), Some(Problem::Length(0)));
        let long = Row { v6_len: 129, v4_len: 32, ..Row::default() };
        assert_eq!(Table::build(&[Row { v4_len: 32, v6_len: 128, ..long }, long]).err(), Some(Problem::Length(1)));
        // The extremes.
        let (all, _) = table(&[("0.0.0.0/0", "2001:db8::/96")]).unwrap();
        assert_eq!(all.to6(v4("192.0.2.1")), Some(v6("2001:db8::192.0.2.1")));
        assert_eq!(all.to4(v6("2001:db8::192.0.2.1")), Some(v4("192.0.2.1")));
        let (one, _) = table(&[("192.0.2.1/32", "::/0")]).unwrap();
        assert_eq!(one.to6(v4("192.0.2.1")), Some(0));
        assert_eq!(one.to4(u128::MAX), Some(v4("192.0.2.1")));
    }

    /// EAM-08: identical prefixes are refused, in either family; those inside others are told of.
    #[test]
    fn eam_08_identical_and_overlapping_rows() {
        let twice4 = [("192.0.2.0/24", "2001:db8:1::/120"), ("192.0.2.9/24", "2001:db8:2::/120")];
        assert_eq!(table(&twice4).err(), Some(Problem::Identical(1, 0, Family::V4)));
        let twice6 = [("192.0.2.1/32", "2001:db8::1/128"), ("192.0.2.2/32", "2001:db8::1/128")];
        assert_eq!(table(&twice6).err(), Some(Problem::Identical(1, 0, Family::V6)));
        let (_, overlaps) = table(&[
            ("192.0.2.1/32", "2001:db8::1/128"),
            ("192.0.2.0/24", "2001:db8:2::/64"),
            ("192.0.0.0/16", "2001:db8::/96"),
            ("198.51.100.1/32", "2001:db8:2::7/128"),
        ])
        .unwrap();
        let expected = [
            Overlap { row: 1, within: 2, family: Family::V4 },
            Overlap { row: 0, within: 1, family: Family::V4 },
            Overlap { row: 0, within: 2, family: Family::V6 },
            Overlap { row: 3, within: 1, family: Family::V6 },
        ];
        assert_eq!(overlaps, expected);
    }

    /// EAM-06: RFC 7757 §4.2.1.
    #[test]
    fn eam_06_simple_hairpinning() {
        let (host, router) = (v4("192.0.2.1"), v4("203.0.113.7"));
        // No error: the destination only.
        assert!(!is_looked_up_by_simple(Role::Source, host, None));
        assert!(is_looked_up_by_simple(Role::Destination, host, None));
        // An error from a router about a packet to the host, and one of the host's own.
        assert!(is_looked_up_by_simple(Role::Source, router, Some(host)));
        assert!(!is_looked_up_by_simple(Role::Source, host, Some(host)));
        assert!(is_looked_up_by_simple(Role::Destination, host, Some(host)));
        assert!(is_looked_up_by_simple(Role::QuotedSource, host, Some(host)));
        assert!(!is_looked_up_by_simple(Role::QuotedDestination, host, Some(host)));
    }

    /// EAM-09: a hundred thousand rows, each found by both of its addresses, and none by its neighbours.
    #[test]
    fn eam_09_a_hundred_thousand_rows() {
        let rows: Vec<Row> = (0..100_000u32)
            .map(|n| {
                let v6 = v6("2001:db8::") | u128::from(n % 300) << 64 | u128::from(n.wrapping_mul(0x9e37_79b1)) << 8;
                Row { v4: v4("10.0.0.0") + 2 * n, v4_len: 32, v6, v6_len: 128 }
            })
            .collect();
        let (table, overlaps) = Table::build(&rows).unwrap();
        assert_eq!((table.len(), overlaps.len()), (100_000, 0));
        for row in &rows {
            assert_eq!((table.to6(row.v4), table.to4(row.v6)), (Some(row.v6), Some(row.v4)));
            assert_eq!((table.row4(row.v4), table.row6(row.v6)), (Some(*row), Some(*row)));
            assert_eq!((table.to6(row.v4 + 1), table.to4(row.v6 + 1)), (None, None));
        }
        // Nearly all of them in the line that is looked at first.
        for buckets in [&table.by4.buckets, &table.by6.buckets] {
            let more = buckets.iter().filter(|Bucket([first, _])| first.has_more).count();
            assert!(more < buckets.len() / 15, "{more} of {}", buckets.len());
        }
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (any::<u32>(), 0u8..=32, any::<u128>(), 0u8..=128, 0u8..16, 0u8..16);
        prop::collection::vec(row, 0..40).prop_map(|rows| {
            let mut kept: Vec<Row> = Vec::new();
            for (v4, v4_len, v6, v6_len, near4, near6) in rows {
                // Some of them near others.
                let near = |at: u8| kept.get(usize::from(at)).copied();
                let v4 = near(near4).map_or(v4, |row| row.v4 ^ v4 & 0xff) & !low4(v4_len);
                let v6_len = v6_len.min(96 + v4_len);
                let v6 = near(near6).map_or(v6, |row| row.v6 ^ v6 & 0xff) & !low6(v6_len);
                let same = |it: &Row| (it.v4, it.v4_len) == (v4, v4_len) || (it.v6, it.v6_len) == (v6, v6_len);
                if !kept.iter().any(same) {
                    kept.push(Row { v4, v6, v4_len, v6_len });
                }
            }
            kept
        })
    }

    proptest! {
        /// EAM-02: what is found is what a scan of all rows finds: bit by bit, as §3.3 says.
        #[test]
        fn eam_02_the_longest_prefix_both_ways(rows in rows(), noise: Vec<u128>) {
            let (table, _) = Table::build(&rows).unwrap();
            let bit = |value: u128, width: u8, at: u8| value >> (width - 1 - at) & 1;
            let begins = |value: u128, prefix: u128, width: u8, len: u8| {
                (0..len).all(|at| bit(value, width, at) == bit(prefix, width, at))
            };
            let fours = rows.iter().flat_map(|row| [row.v4, row.v4 | low4(row.v4_len), row.v4 ^ 1])
                .chain(noise.iter().map(|it| *it as u32));
            for four in fours {
                let best = rows.iter().filter(|row| begins(four.into(), row.v4.into(), 32, row.v4_len))
                    .max_by_key(|row| row.v4_len);
                let expected = best.map(|row| {
                    let suffix = 32 - row.v4_len;
                    let mut address = row.v6;
                    for at in 0..suffix {
                        address |= bit(four.into(), 32, row.v4_len + at) << (127 - row.v6_len - at);
                    }
                    address
                });
                prop_assert_eq!(table.to6(four), expected);
            }
            let sixes = rows.iter().flat_map(|row| [row.v6, row.v6 | low6(row.v6_len), row.v6 ^ 1]).chain(noise);
            for six in sixes {
                let best = rows.iter().filter(|row| begins(six, row.v6, 128, row.v6_len)).max_by_key(|row| row.v6_len);
                let expected = best.map(|row| {
                    let mut address = row.v4;
                    for at in 0..32 - row.v4_len {
                        address |= (bit(six, 128, row.v6_len + at) as u32) << (31 - row.v4_len - at);
                    }
                    address
                });
                prop_assert_eq!(table.to4(six), expected);
            }
        }
    }
}
