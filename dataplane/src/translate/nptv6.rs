//! NPTv6 (RFC 6296): one IPv6 prefix for another, and one word adjusted so that no checksum sees it.

use super::Unmapped;
use crate::packet::checksum::{fold, sum};

/// A pair of prefixes, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nptv6 {
    inside: u128,
    outside: u128,
    /// Length of the longer prefix, in bits. The shorter one counts as long, with zeros (RFC 6296 §3.1).
    len: u8,
    /// What is added outbound (RFC 6296 §3.1), in one's complement.
    adjustment: u16,
    /// Interface identifiers of zeros pass (D4).
    allow_zero_iid: bool,
}

/// The longest prefix that leaves a word for the adjustment.
pub const LEN_MAX: u8 = 64;

impl Nptv6 {
    /// Maps addresses of one prefix to those of the other. Prefixes are given with zeros behind their lengths, in bits; None:
    /// one is longer than [`LEN_MAX`].
    #[must_use]
    pub fn new(inside: (u128, u8), outside: (u128, u8), allow_zero_iid: bool) -> Option<Self> {
        let len = inside.1.max(outside.1);
        let (inside, outside) = (inside.0, outside.0);
        let adjustment = adjustment(inside, outside);
        (len <= LEN_MAX).then_some(Nptv6 { inside, outside, len, adjustment, allow_zero_iid })
    }

    /// The outside address of an inside one (RFC 6296 §3.2).
    ///
    /// # Errors
    /// It has none.
    #[inline]
    pub fn outbound(&self, address: u128) -> Result<u128, Unmapped> {
        self.map(address, self.inside, self.outside, self.adjustment)
    }

    /// The inside address of an outside one (RFC 6296 §3.3).
    ///
    /// # Errors
    /// It has none.
    #[inline]
    pub fn inbound(&self, address: u128) -> Result<u128, Unmapped> {
        self.map(address, self.outside, self.inside, !self.adjustment)
    }

    #[inline]
    fn map(&self, address: u128, from: u128, to: u128, adjustment: u16) -> Result<u128, Unmapped> {
        let host = host_bits(self.len);
        if (address ^ from) & !host != 0 {
            return Err(Unmapped::Subnet);
        }
        let place = if self.len <= 48 { 64 } else { self.identifier_word(address)? };
        adjusted(to | address & host, place, adjustment).ok_or(Unmapped::Subnet)
    }

    /// The word of the interface identifier that is adjusted: the first that is not all ones (RFC 6296 §3.5). Its lowest bit.
    fn identifier_word(&self, address: u128) -> Result<u32, Unmapped> {
        #[allow(clippy::cast_possible_truncation)] // the lower half
        let identifier = address as u64;
        if identifier == 0 && !self.allow_zero_iid {
            return Err(Unmapped::ZeroIdentifier);
        }
        let ones = identifier.leading_ones() / 16;
        if ones == 4 { Err(Unmapped::Identifier) } else { Ok(48 - ones * 16) }
    }
}

/// The bits of an address behind a prefix.
#[inline]
pub(super) const fn host_bits(len: u8) -> u128 {
    match u128::MAX.checked_shr(len as u32) {
        Some(host) => host,
        None => 0,
    }
}

/// What makes up for the exchange of a prefix: the difference of the sums of their words, in one's complement.
pub(super) fn adjustment(inside: u128, outside: u128) -> u16 {
    let [inside, outside] = [inside, outside].map(|prefix| fold(sum(0, &prefix.to_be_bytes())));
    fold(u32::from(inside) + u32::from(!outside))
}

/// The address with its word at `place` (its lowest bit) adjusted. None: the word is all ones, which is not mapped, as it would
/// have the same sum as zero (RFC 6296 appendix B).
#[inline]
pub(super) fn adjusted(address: u128, place: u32, adjustment: u16) -> Option<u128> {
    #[allow(clippy::cast_possible_truncation)] // a word of it
    let word = (address >> place) as u16;
    if word == u16::MAX {
        return None;
    }
    let new = match fold(u32::from(word) + u32::from(adjustment)) {
        u16::MAX => 0,
        new => new,
    };
    Some(address ^ u128::from(word ^ new) << place)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().expect("an address").to_bits()
    }

    fn pair(inside: &str, outside: &str) -> Nptv6 {
        let prefix = |text: &str| {
            let (address, len) = text.split_once('/').expect("a prefix");
            (v6(address), len.parse().expect("a length"))
        };
        Nptv6::new(prefix(inside), prefix(outside), false).expect("lengths that do")
    }

    /// The vectors of requirements.md §9 (RFC 6296 §3.6, and computed by another implementation).
    const VECTORS: [(&str, &str, &str, Option<&str>); 10] = [
        ("fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:0:1:2:3:4", Some("2001:db8:1:d54f:1:2:3:4")),
        ("fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:1::1234", Some("2001:db8:1:d550::1234")),
        ("fd01:203:405::/48", "2001:db8:1::/48", "fd01:203:405:2ab0::1", Some("2001:db8:1::1")),
        (
            "fd00::/48",
            "2001:db8:cafe::/48",
            "fd00:0:0:beef:211:22ff:fe33:4455",
            Some("2001:db8:cafe:c338:211:22ff:fe33:4455"),
        ),
        ("fd01:203::/32", "2001:db8::/32", "fd01:203:405:1::1234", Some("2001:db8:405:d14c::1234")),
        ("fd01:203:405:100::/56", "2001:db8:1:200::/56", "fd01:203:405:1aa:1:2:3:4", Some("2001:db8:1:2aa:d450:2:3:4")),
        ("fd01:203:405::/48", "2001:db8:1:200::/56", "fd01:203:405:aa:1:2:3:4", Some("2001:db8:1:2aa:d350:2:3:4")),
        ("fd01:203:405::/48", "2001:db8:1:200::/56", "fd01:203:405:1aa:1:2:3:4", None),
        (
            "fd01:203:405:10::/60",
            "2001:db8:1:20::/60",
            "fd01:203:405:1a:ffff:2:3:4",
            Some("2001:db8:1:2a:ffff:d541:3:4"),
        ),
        (
            "fd01:203:405:1::/64",
            "2001:db8:1:2::/64",
            "fd01:203:405:1:ffff:ffff:ffff:4",
            Some("2001:db8:1:2:ffff:ffff:ffff:d552"),
        ),
    ];

    #[test]
    fn npt_02_03_05_vectors() {
        for (inside, outside, address, mapped) in VECTORS {
            let map = pair(inside, outside);
            let expected = mapped.map(v6).ok_or(Unmapped::Subnet);
            assert_eq!(map.outbound(v6(address)), expected, "{address}");
            if let Some(mapped) = mapped {
                assert_eq!(map.inbound(v6(mapped)), Ok(v6(address)), "{mapped}");
            }
        }
    }

    #[test]
    fn npt_01_the_adjustment_is_the_difference_of_the_sums() {
        assert_eq!(pair("fd01:203:405::/48", "2001:db8:1::/48").adjustment, 0xd54f);
    }

    #[test]
    fn npt_06_07_what_has_no_counterpart() {
        let short = pair("fd01:203:405::/48", "2001:db8:1::/48");
        assert_eq!(short.outbound(v6("fd01:203:405:ffff::1")), Err(Unmapped::Subnet));
        assert_eq!(short.inbound(v6("2001:db8:1:ffff::1")), Err(Unmapped::Subnet));
        assert!(short.outbound(v6("fd01:203:405:1::")).is_ok(), "up to /48 the identifier is nobody's business");
        let long = pair("fd01:203:405:1::/64", "2001:db8:1:2::/64");
        let ones = "ffff:ffff:ffff:ffff";
        assert_eq!(long.outbound(v6(&format!("fd01:203:405:1:{ones}"))), Err(Unmapped::Identifier));
        assert_eq!(long.inbound(v6(&format!("2001:db8:1:2:{ones}"))), Err(Unmapped::Identifier));
        assert_eq!(long.outbound(v6("fd01:203:405:1::")), Err(Unmapped::ZeroIdentifier));
        assert_eq!(long.inbound(v6("2001:db8:1:2::")), Err(Unmapped::ZeroIdentifier));
        let lenient = Nptv6 { allow_zero_iid: true, ..long };
        assert!(lenient.outbound(v6("fd01:203:405:1::")).is_ok());
        assert_eq!(Nptv6::new((0, 65), (0, 64), false), None);
    }

    /// RFC 6296 appendix B, all 65,535 subnets: a bijection on 0..=fffe, the sum of an address stays the same, and the identifier.
    #[test]
    fn npt_04_08_every_subnet_has_one_counterpart() {
        let map = pair("fd01:203:405::/48", "2001:db8:1::/48");
        let mut seen = vec![false; 1 << 16];
        for subnet in 0..u16::MAX {
            let inside = v6("fd01:203:405::1:2:3:4") | u128::from(subnet) << 64;
            let outside = map.outbound(inside).expect("it is mapped");
            assert_eq!(map.inbound(outside), Ok(inside));
            assert_eq!(outside >> 80, v6("2001:db8:1::") >> 80);
            assert_eq!(outside << 64, inside << 64, "the identifier");
            let word = usize::from(u16::try_from(outside >> 64 & 0xffff).expect("a word"));
            assert!(word != 0xffff && !std::mem::replace(&mut seen[word], true), "{subnet:x}");
            let total = |address: u128| {
                address.to_be_bytes().chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>()
                    % 0xffff
            };
            assert_eq!(total(inside), total(outside), "{subnet:x}");
        }
    }
}
