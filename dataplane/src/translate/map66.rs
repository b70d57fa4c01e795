//! MAP66: one IPv6 prefix for another of the same length, 16 to 112 bits in steps of 16, with the word right behind the prefix
//! adjusted so that no checksum sees it.
//!
//! Of 48 bits it is NPTv6 (RFC 6296 §3.4). Of 16 and 32 bits NPTv6 adjusts bits 48 to 63 instead, and of 64 bits the first word
//! of the identifier that is not all ones, which MAP66 does not look for.

use super::Unmapped;
use super::nptv6::{adjusted, adjustment, host_bits};

/// A pair of prefixes, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map66 {
    inside: u128,
    outside: u128,
    /// Length of both, in bits.
    len: u8,
    adjustment: u16,
}

impl Map66 {
    /// Maps addresses of one prefix to those of the other; both have zeros behind `len` bits. None: of such a length none are.
    #[must_use]
    pub fn new(inside: u128, outside: u128, len: u8) -> Option<Self> {
        let map = Map66 { inside, outside, len, adjustment: adjustment(inside, outside) };
        ((16..=112).contains(&len) && len.is_multiple_of(16)).then_some(map)
    }

    /// The outside address of an inside one.
    ///
    /// # Errors
    /// It has none: its word behind the prefix is all ones.
    #[inline]
    pub fn outbound(&self, address: u128) -> Result<u128, Unmapped> {
        self.map(address, self.outside, self.adjustment)
    }

    /// The inside address of an outside one.
    ///
    /// # Errors
    /// It has none: its word behind the prefix is all ones.
    #[inline]
    pub fn inbound(&self, address: u128) -> Result<u128, Unmapped> {
        self.map(address, self.inside, !self.adjustment)
    }

    #[inline]
    fn map(&self, address: u128, to: u128, adjustment: u16) -> Result<u128, Unmapped> {
        let behind = 112 - u32::from(self.len);
        adjusted(to | address & host_bits(self.len), behind, adjustment).ok_or(Unmapped::Subnet)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::packet::checksum::{fold, sum};

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().expect("an address").to_bits()
    }

    #[test]
    fn map_01_of_48_bits_it_is_nptv6() {
        let map = Map66::new(v6("fd01:203:405::"), v6("2001:db8:1::"), 48).expect("a length that does");
        assert_eq!(map.outbound(v6("fd01:203:405:1::1234")), Ok(v6("2001:db8:1:d550::1234")));
        assert_eq!(map.inbound(v6("2001:db8:1:d550::1234")), Ok(v6("fd01:203:405:1::1234")));
        assert_eq!(map.outbound(v6("fd01:203:405:ffff::1")), Err(Unmapped::Subnet));
    }

    #[test]
    fn map_02_every_length_there_and_back() {
        let (inside, outside) = (v6("fdca:ffee:babe:1234:5678:9abc:def0::"), v6("2001:4dd0:fe77:1:8:15:47:0"));
        for len in 0..=128 {
            let net = |prefix: u128| prefix & !host_bits(len);
            let map = Map66::new(net(inside), net(outside), len);
            assert_eq!(map.is_some(), [16, 32, 48, 64, 80, 96, 112].contains(&len), "{len}");
            let Some(map) = map else { continue };
            for host in [0, 1, 0xfffe, 0x1234_0000_0000_0000_5678, u128::MAX / 3] {
                let address = net(inside) | host & host_bits(len);
                let mapped = map.outbound(address).expect("it is mapped");
                assert_eq!(net(mapped), net(outside));
                assert_eq!(map.inbound(mapped), Ok(address), "{len}");
                let total = |address: u128| fold(sum(0, &address.to_be_bytes())) % 0xffff;
                assert_eq!(total(address), total(mapped), "{len}");
                // Nothing but the prefix and the word behind it.
                assert_eq!((address ^ mapped) & host_bits(len + 16), 0);
            }
        }
    }

    /// The living example of background document 002: both uplinks.
    #[test]
    fn map_02_the_mesh_network() {
        let inside = v6("fdca:ffee:babe::");
        for outside in ["2001:4dd0:fe77:1::", "2002:4d57:3007:1::"] {
            let map = Map66::new(inside, v6(outside), 64).expect("a length that does");
            let host = v6("fdca:ffee:babe::211:22ff:fe33:4455");
            let mapped = map.outbound(host).expect("it is mapped");
            assert_eq!(mapped >> 64, v6(outside) >> 64);
            assert_eq!(map.inbound(mapped), Ok(host));
        }
    }
}
