//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A forwarded packet's transport checksum is only ever updated, never recomputed, so one that was wrong on arrival is
//! still wrong when it leaves. Four rules: an IPv4 UDP checksum of zero means "none" and stays zero; a UDP checksum that
//! comes out as zero is sent as 0xffff; ICMPv4 covers no pseudo-header and ICMPv6 does; 0x0000 is a valid checksum
//! everywhere but in UDP.

/// One's complement sum of `data` as big-endian words (an odd last byte is padded with zero), added to `initial`.
/// Not folded: good for up to 128 KiB.
#[must_use]
pub fn sum(initial: u32, data: &[u8]) -> u32 {
    let mut words = data.chunks_exact(2);
    let mut sum = initial;
    for word in &mut words {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u32::from(*last) << 8;
    }
    sum
}

/// Folds a sum to 16 bits.
#[inline]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    #[allow(clippy::cast_possible_truncation)] // after two folds it fits
    {
        sum as u16
    }
}

/// The checksum of `data` (its checksum field being zero), with `initial` from [`sum`] or [`pseudo4`] and the like.
#[must_use]
pub fn checksum(initial: u32, data: &[u8]) -> u16 {
    !fold(sum(initial, data))
}

/// Whether an IPv4 header with this checksum in it is right (RFC 1812 §5.2.2).
#[must_use]
pub fn is_header_right(header: &[u8]) -> bool {
    match header.try_into() {
        Ok(plain) => is_right(plain),
        Err(_) => fold(sum(0, header)) == 0xffff,
    }
}

/// Whether an IPv4 header without options is right. Sums whole words: the sum of one's complement words is the same in pieces
/// of any width and either byte order, but for the order of its own bytes (RFC 1071 §2).
#[inline(always)]
#[must_use]
pub fn is_right(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    // Five words of 32 bits, in two halves of at most 19 bits: their sum is a multiple of 0xffff, and not zero, if it is right.
    let sum = (sum >> 32) + (sum >> 16 & 0xffff) + (sum & 0xffff);
    // Which multiple it is depends on the addresses, and can't be foretold: no branch for each.
    (sum >> 16) + (sum & 0xffff) == 0xffff
}

/// Sum of the IPv4 pseudo-header (RFC 9293 §3.1). Addresses in host order, `len` in bytes.
#[must_use]
pub fn pseudo4(source: u32, destination: u32, protocol: u8, len: u16) -> u32 {
    halves(source) + halves(destination) + u32::from(protocol) + u32::from(len)
}

/// Sum of the IPv6 pseudo-header (RFC 8200 §8.1). `len` in bytes.
#[must_use]
pub fn pseudo6(source: u128, destination: u128, next_header: u8, len: u16) -> u32 {
    sum128(source) + sum128(destination) + u32::from(next_header) + u32::from(len)
}

/// Sum of an IPv6 address, host order. Not folded: below 2^19.
#[inline]
#[must_use]
#[allow(clippy::cast_possible_truncation)] // the halves, and a sum of four numbers of 32 bits that is folded to 19
pub const fn sum128(address: u128) -> u32 {
    let (high, low) = ((address >> 64) as u64, address as u64);
    let sum = (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff);
    ((sum >> 16) + (sum & 0xffff)) as u32
}

/// Sum of a 32-bit field, host order. Not folded: below 2^17.
#[inline]
#[must_use]
pub const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The difference that a rewriting makes to a checksum: RFC 1624's `~m + m'`, summed over the fields that change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// No difference.
    pub const NONE: Delta = Delta(0);

    /// Adds the replacement of one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Delta(fold(self.0 as u32 + (!old) as u32 + new as u32))
    }

    /// Adds the replacement of a 32-bit field that lies on an even offset. Host order.
    #[inline]
    #[must_use]
    pub const fn long(self, old: u32, new: u32) -> Self {
        Delta(fold(self.0 as u32 + halves(!old) + halves(new)))
    }

    /// Adds the replacement of a 128-bit field that lies on an even offset. Host order.
    #[inline]
    #[must_use]
    pub const fn wide(self, old: u128, new: u128) -> Self {
        self.sums(sum128(old), sum128(new))
    }

    /// Whether it leaves every checksum as it is. In one's complement there are two zeros.
    #[inline]
    #[must_use]
    pub const fn is_neutral(self) -> bool {
        matches!(self.0, 0 | 0xffff)
    }

    /// Adds the replacement of fields whose sums are these (not folded). They may be of different lengths, and fields that come
    /// or go have no counterpart; all lie on even offsets.
    #[inline]
    #[must_use]
    pub const fn sums(self, old: u32, new: u32) -> Self {
        Delta(fold(self.0 as u32 + (!fold(old)) as u32 + fold(new) as u32))
    }

    /// Adds another difference.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Delta) -> Self {
        Delta(fold(self.0 as u32 + other.0 as u32))
    }

    /// The checksum after this rewriting, after the replacement of a 32-bit field (host order), and after one hop less in the
    /// upper half of a word.
    #[inline]
    #[must_use]
    pub const fn apply_hop(checksum: u16, old: u32, new: u32) -> u16 {
        const HOP: u32 = !0x0100 & 0xffff;
        !fold((!checksum) as u32 + HOP + halves(!old) + halves(new))
    }

    /// The difference of the rewriting undone.
    #[inline]
    #[must_use]
    pub const fn inverse(self) -> Self {
        Delta(!self.0)
    }

    /// The difference of the rewriting, or of the rewriting undone.
    #[inline]
    #[must_use]
    pub const fn undone_if(self, undone: bool) -> Self {
        Delta(self.0 ^ 0u16.wrapping_sub(undone as u16))
    }

    /// The checksum after the rewriting (RFC 1624 equation 3).
    #[inline]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u32 + self.0 as u32)
    }

    /// The UDP checksum after the rewriting: zero stays zero, and a result of zero is sent as 0xffff.
    #[inline]
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        match (checksum, self.apply(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, new) => new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of requirements.md (RFC 7915 UDP and echo packets): the same datagram with two pairs of addresses.
    #[test]
    fn known_packets() {
        // IPv4 header of the UDP vector, checksum 0x8f76.
        let header = [0x45, 0, 0, 0x20, 0, 0, 0, 0, 0x3f, 0x11, 0, 0, 0xc0, 0, 2, 0x21, 0xc6, 0x33, 0x64, 2];
        assert_eq!(checksum(0, &header), 0x8f76);
        // Its UDP datagram "ping", checksum 0x2fa7 over IPv4.
        let udp = [0x04, 0xd2, 0, 0x35, 0, 0x0c, 0, 0, b'p', b'i', b'n', b'g'];
        assert_eq!(checksum(pseudo4(0xc000_0221, 0xc633_6402, 17, 12), &udp), 0x2fa7);
        // And over IPv6, checksum 0x897d.
        let (source, destination) =
            (0x2001_0db8_01c0_0002_0021_0000_0000_0000, 0x2001_0db8_01c6_3364_0002_0000_0000_0000);
        assert_eq!(checksum(pseudo6(source, destination, 17, 12), &udp), 0x897d);
        // ICMPv4 has no pseudo-header: the echo vector's 0x5435.
        let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1, b'a', b'b', b'c', b'd', b'e', b'f', b'g', b'h'];
        assert_eq!(checksum(0, &echo), 0x5435);
        // ICMPv6 has one: 0x4969.
        let mut echo6 = echo;
        echo6[0] = 128;
        assert_eq!(checksum(pseudo6(source, destination, 58, 16), &echo6), 0x4969);
    }

    /// The sum of an address is that of its bytes, whatever its width of words.
    #[test]
    fn sums_of_addresses() {
        for address in [0, 1, u128::MAX, 0xffff << 64, 0x2001_0db8_01c0_0002_0021_0000_0000_0000, u128::MAX - 0xfffe] {
            assert_eq!(fold(sum128(address)), fold(sum(0, &address.to_be_bytes())), "{address:x}");
        }
    }

    /// N44-31: for every new port, the update equals a full recomputation.
    #[test]
    fn every_port_pair_equals_a_full_recomputation() {
        let (source, destination, external) = (0xc0a8_0102, 0xc633_6402, 0xcb00_7105);
        for old in [0u16, 1, 53, 0x7fff, 0x8000, 0xfffe, 0xffff, 40_000] {
            for new in 0..=u16::MAX {
                let segment = |port: u16| {
                    let [high, low] = port.to_be_bytes();
                    [high, low, 0x01, 0xbb, 0, 12, 0, 0, 0xde, 0xad, 0xbe, 0xef]
                };
                let before = checksum(pseudo4(source, destination, 17, 12), &segment(old));
                let full = checksum(pseudo4(external, destination, 17, 12), &segment(new));
                let delta = Delta::default().long(source, external).word(old, new);
                assert_eq!(delta.apply(before), full, "{old} -> {new}");
                assert_eq!(delta.inverse().apply(full), before, "{new} -> {old}");
                let sent = if full == 0 { 0xffff } else { full };
                assert_eq!(delta.apply_udp(if before == 0 { 0xffff } else { before }), sent);
                assert_eq!(delta.apply_udp(0), 0, "UDP without a checksum stays without");
            }
        }
    }
}
