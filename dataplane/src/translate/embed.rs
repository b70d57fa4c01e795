//! IPv4 addresses inside IPv6 addresses (RFC 6052), and the prefixes that are used for it.
//!
//! Bits 64 to 71 of the address, the octet *u*, are left out: an IPv4 address that would reach into them goes on behind.
//! Both halves of the address are two shifts away from the IPv4 address, whatever the length of the prefix is.

use crate::packet::checksum;

/// Lengths that a prefix may have, in bits (RFC 6052 §2.2).
pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The well-known prefix, `64:ff9b::/96` (RFC 6052 §2.1).
pub const WELL_KNOWN: Prefix = Prefix::at96(0x0064_ff9b << 96);

/// `::ffff:0:0/96`: IPv4-mapped addresses, which stood for nodes that speak IPv4 only (RFC 2765 §2.1). Legacy.
pub const IPV4_MAPPED: Prefix = Prefix::at96(0xffff << 32);

/// `::ffff:0:0:0/96`: IPv4-translated addresses, which stood for nodes that speak IPv6 (RFC 2765 §2.1). Legacy, and older
/// than the rule that the octet *u* is zero.
pub const IPV4_TRANSLATED: Prefix = Prefix::at96(0xffff << 48);

/// An IPv6 prefix that embeds IPv4 addresses (RFC 6052).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    network: u128,
    len: u8,
    /// By how many bits the IPv4 address is shifted right, to lie in the upper half.
    high: u8,
    /// By how many it is shifted left, to lie in the lower half.
    low: u8,
}

/// Why a prefix can't embed IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has another length than [`LENGTHS`].
    #[error("a prefix that embeds IPv4 addresses is 32, 40, 48, 56, 64 or 96 bits long (RFC 6052 §2.2)")]
    Length,
    /// Of 96 bits, with bits 64 to 71 not zero.
    #[error("bits 64 to 71 of a /96 that embeds IPv4 addresses must be zero (RFC 6052 §2.2)")]
    OctetU,
}

/// The lower half of an address without the octet *u*.
const BEHIND_U: u64 = (1 << 56) - 1;

impl Prefix {
    const fn at96(network: u128) -> Self {
        Prefix { network, len: 96, high: 32, low: 0 }
    }

    /// The prefix of the first `len` bits of `network`; the others are ignored.
    ///
    /// # Errors
    /// It can't embed IPv4 addresses. [`IPV4_TRANSLATED`] can, in spite of its octet *u*.
    pub fn new(network: u128, len: u8) -> Result<Self, Problem> {
        if !LENGTHS.contains(&len) {
            return Err(Problem::Length);
        }
        let network = network >> (128 - len) << (128 - len);
        if len == 96 {
            let prefix = Prefix::at96(network);
            let u_is_zero = network >> 56 & 0xff == 0;
            return if u_is_zero || prefix == IPV4_TRANSLATED { Ok(prefix) } else { Err(Problem::OctetU) };
        }
        Ok(Prefix { network, len, high: len - 32, low: 88 - len })
    }

    /// The prefix's bits, the others zero. Host order.
    #[must_use]
    pub const fn network(&self) -> u128 {
        self.network
    }

    /// The prefix's length in bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.len
    }

    /// The address that embeds an IPv4 address; octet *u* and suffix are zero. Both in host order.
    #[inline]
    #[must_use]
    pub const fn embed(&self, address: u32) -> u128 {
        let address = address as u64;
        let (high, low) = (address >> self.high, address << self.low & BEHIND_U);
        self.network | (high as u128) << 64 | low as u128
    }

    /// The IPv4 address that is embedded in `address`; none if that is not in the prefix. Octet *u* and suffix are ignored
    /// (RFC 6052 §2.2). Both in host order.
    #[inline]
    #[must_use]
    pub const fn extract(&self, address: u128) -> Option<u32> {
        if (address ^ self.network) >> (128 - self.len) != 0 {
            return None;
        }
        #[allow(clippy::cast_possible_truncation)] // the halves, and the bits of the prefix above the address's
        let (high, low) = ((address >> 64) as u64, address as u64 & BEHIND_U);
        #[allow(clippy::cast_possible_truncation)]
        Some((high << self.high | low >> self.low) as u32)
    }

    /// Whether it is `64:ff9b::/96`.
    #[must_use]
    pub fn is_well_known(&self) -> bool {
        *self == WELL_KNOWN
    }

    /// Whether it may stand before this IPv4 address: the well-known prefix may not before one that is not global (RFC 6052
    /// §3.1). Any other may before any, that of RFC 8215 too.
    #[must_use]
    pub fn may_embed(&self, address: u32) -> bool {
        !self.is_well_known() || is_global(address)
    }

    /// Whether the Internet checksum of what it embeds is that of the IPv4 address, so that transport checksums over both are
    /// equal (RFC 6052 §4.1): its words add up to nothing, and the address lies on whole words.
    #[must_use]
    pub const fn is_checksum_neutral(&self) -> bool {
        matches!(self.len, 32 | 96) && matches!(checksum::fold(checksum::sum128(self.network)), 0 | 0xffff)
    }
}

/// Whether an IPv4 address means the same host everywhere, as the IANA registry of special addresses has it (RFC 6890 §2.2.2,
/// with its updates); multicast and reserved addresses do not. Host order.
#[must_use]
pub const fn is_global(address: u32) -> bool {
    !matches!(
        address,
        0x0000_0000..=0x00ff_ffff   // 0.0.0.0/8: this network
        | 0x0a00_0000..=0x0aff_ffff // 10.0.0.0/8: private use
        | 0x6440_0000..=0x647f_ffff // 100.64.0.0/10: shared by subscribers of a provider
        | 0x7f00_0000..=0x7fff_ffff // 127.0.0.0/8: loopback
        | 0xa9fe_0000..=0xa9fe_ffff // 169.254.0.0/16: link-local
        | 0xac10_0000..=0xac1f_ffff // 172.16.0.0/12: private use
        | 0xc000_0000..=0xc000_0008 // 192.0.0.0/24: protocol assignments,
        | 0xc000_000b..=0xc000_00ff //     but for the anycast addresses 192.0.0.9 and .10
        | 0xc000_0200..=0xc000_02ff // 192.0.2.0/24: documentation
        | 0xc0a8_0000..=0xc0a8_ffff // 192.168.0.0/16: private use
        | 0xc612_0000..=0xc613_ffff // 198.18.0.0/15: benchmarks
        | 0xc633_6400..=0xc633_64ff // 198.51.100.0/24: documentation
        | 0xcb00_7100..=0xcb00_71ff // 203.0.113.0/24: documentation
        | 0xe000_0000..=0xffff_ffff // 224.0.0.0/4: multicast; 240.0.0.0/4: reserved; broadcast
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::packet::checksum::{fold, sum};

    fn v4(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().unwrap().to_bits()
    }

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().unwrap().to_bits()
    }

    fn prefix(text: &str) -> Result<Prefix, Problem> {
        let (network, len) = text.split_once('/').unwrap();
        Prefix::new(v6(network), len.parse().unwrap())
    }

    /// ADR-02: table 1 of RFC 6052, and appendix A of RFC 7915.
    #[test]
    fn adr_02_the_rfcs_own_addresses() {
        for (network, address, embedded) in [
            ("2001:db8::/32", "192.0.2.33", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "192.0.2.33", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "192.0.2.33", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "192.0.2.33", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "192.0.2.33", "2001:db8:122:344::c000:221"),
            ("64:ff9b::/96", "192.0.2.33", "64:ff9b::c000:221"),
            ("2001:db8:100::/40", "198.51.100.2", "2001:db8:1c6:3364:2::"),
            // ADR-11: RFC 2765 §2.1.
            ("::ffff:0:0/96", "192.0.2.33", "::ffff:192.0.2.33"),
            ("::ffff:0:0:0/96", "192.0.2.33", "::ffff:0:192.0.2.33"),
        ] {
            let prefix = prefix(network).unwrap();
            assert_eq!(prefix.embed(v4(address)), v6(embedded), "{network}");
            assert_eq!(prefix.extract(v6(embedded)), Some(v4(address)), "{network}");
        }
    }

    /// ADR-01, ADR-03: all other lengths are refused, and a /96 with an octet u; other bits behind the prefix do not matter.
    #[test]
    fn adr_01_03_what_no_prefix_can_be() {
        for len in (0..=255).filter(|len| ![32, 40, 48, 56, 64, 96].contains(len)) {
            assert_eq!(Prefix::new(v6("2001:db8::"), len), Err(Problem::Length), "{len}");
        }
        assert_eq!(prefix("2001:db8:1:0:d245::/96"), Err(Problem::OctetU));
        assert_eq!(prefix("2001:db8:1:0:100::/96"), Err(Problem::OctetU));
        assert_eq!(prefix("2001:db8:1:0:45::/96").unwrap().network(), v6("2001:db8:1:0:45::"));
        assert_eq!(prefix("2001:db8:1:2:d245::/64").unwrap(), prefix("2001:db8:1:2::/64").unwrap());
        assert_eq!(prefix("::ffff:0:0:0/96"), Ok(IPV4_TRANSLATED));
        assert_eq!(prefix("::ffff:0:0/96"), Ok(IPV4_MAPPED));
    }

    /// ADR-04: a suffix, or an octet u, of whoever made the address changes nothing; another prefix does.
    #[test]
    fn adr_04_the_suffix_is_ignored() {
        for (network, address) in [
            ("2001:db8::/32", "2001:db8:c000:221:ff12:3456:789a:bcde"),
            ("2001:db8:122::/48", "2001:db8:122:c000:ff02:2112:3456:789a"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:99c0:2:2112:3456"),
        ] {
            assert_eq!(prefix(network).unwrap().extract(v6(address)), Some(v4("192.0.2.33")), "{network}");
        }
        assert_eq!(prefix("2001:db8:122::/48").unwrap().extract(v6("2001:db8:123:c000:2:2100::")), None);
        assert_eq!(prefix("64:ff9b::/96").unwrap().extract(v6("64:ff9b::1:c000:221")), None);
    }

    /// ADR-05, ADR-10: the edges of each block of the registry; only the well-known prefix cares.
    #[test]
    fn adr_05_the_well_known_prefix_has_global_addresses_only() {
        let blocks = [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.8"),
            ("192.0.0.11", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ];
        let well_known = prefix("64:ff9b::/96").unwrap();
        let local_use = prefix("64:ff9b:1::/96").unwrap();
        for (first, last) in blocks {
            for inside in [v4(first), v4(last), u32::midpoint(v4(first), v4(last))] {
                assert!(!well_known.may_embed(inside), "{}", Ipv4Addr::from_bits(inside));
                assert!(local_use.may_embed(inside));
            }
            for outside in [v4(first).checked_sub(1), v4(last).checked_add(1)].into_iter().flatten() {
                assert!(well_known.may_embed(outside), "{}", Ipv4Addr::from_bits(outside));
            }
        }
    }

    /// ADR-09: 64:ff9b::/96 is neutral, the other examples are not.
    #[test]
    fn adr_09_checksum_neutral_prefixes() {
        for (network, neutral) in [
            ("64:ff9b::/96", true),
            ("64:ff9b:1:fffe::/96", true),
            ("::/96", true),
            ("64:ff9b::/32", true),
            // Neutral by its words, but the address lies across them.
            ("64:ff9b::/48", false),
            ("64:ff9b::/64", false),
            ("64:ff9b:1::/96", false),
            ("2001:db8:122:344::/96", false),
            ("2001:db8:100::/40", false),
        ] {
            assert_eq!(prefix(network).unwrap().is_checksum_neutral(), neutral, "{network}");
        }
    }

    proptest! {
        /// There and back is the identity; octet u is zero; a neutral prefix is neutral for every address.
        #[test]
        fn there_and_back(bits: u128, len in prop::sample::select(&LENGTHS), address: u32, suffix: u128) {
            let network = if len == 96 { bits & !(0xff << 56) } else { bits };
            let prefix = Prefix::new(network, len).unwrap();
            let embedded = prefix.embed(address);
            prop_assert_eq!(prefix.extract(embedded), Some(address));
            prop_assert_eq!(embedded >> 56 & 0xff, 0);
            prop_assert_eq!(embedded >> (128 - len), network >> (128 - len));
            // Behind the IPv4 address, and octet u: whatever.
            let end = if len < 64 { len + 40 } else { 104 };
            let behind = if len == 32 { u64::MAX.into() } else if len == 96 { 0 } else { u128::MAX >> end };
            prop_assert_eq!(embedded & behind, 0);
            let u = if len == 96 { 0 } else { 0xff << 56 };
            prop_assert_eq!(prefix.extract(embedded ^ suffix & (behind | u)), Some(address));
            for len in [32, 96] {
                let neutral = Prefix::new(0x0064_ff9b << 96, len).unwrap();
                let sum6 = fold(sum(0, &neutral.embed(address).to_be_bytes()));
                let sum4 = fold(sum(0, &address.to_be_bytes()));
                prop_assert_eq!(sum6 % 0xffff, sum4 % 0xffff, "/{}", len);
            }
        }
    }
}
