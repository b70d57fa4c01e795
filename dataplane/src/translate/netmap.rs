//! NETMAP: one prefix for another of the same length, IPv4 or IPv6; the bits behind it stay, and checksums follow.

/// A pair of prefixes, ready for use. Addresses in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netmap<A> {
    inside: A,
    outside: A,
    /// The bits behind the prefix.
    host: A,
}

macro_rules! netmap {
    ($address:ty) => {
        impl Netmap<$address> {
            /// Maps addresses of one prefix to those of the other; both have zeros behind `len` bits.
            #[must_use]
            pub fn new(inside: $address, outside: $address, len: u8) -> Self {
                let host = <$address>::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                Netmap { inside, outside, host }
            }

            /// The outside address of an inside one.
            #[inline]
            #[must_use]
            pub const fn outbound(&self, address: $address) -> $address {
                self.outside | address & self.host
            }

            /// The inside address of an outside one.
            #[inline]
            #[must_use]
            pub const fn inbound(&self, address: $address) -> $address {
                self.inside | address & self.host
            }
        }
    };
}

netmap!(u32);
netmap!(u128);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn nmp_01_every_host_keeps_its_bits() {
        let v4 = |text: &str| text.parse::<Ipv4Addr>().expect("an address").to_bits();
        let map = Netmap::<u32>::new(v4("10.1.2.0"), v4("203.0.113.0"), 24);
        for host in 0..=255 {
            let (inside, outside) = (format!("10.1.2.{host}"), format!("203.0.113.{host}"));
            assert_eq!(map.outbound(v4(&inside)), v4(&outside));
            assert_eq!(map.inbound(v4(&outside)), v4(&inside));
        }
        let whole = Netmap::<u32>::new(v4("10.1.2.3"), v4("203.0.113.9"), 32);
        assert_eq!(whole.outbound(v4("10.1.2.3")), v4("203.0.113.9"));
        let v6 = |text: &str| text.parse::<Ipv6Addr>().expect("an address").to_bits();
        let map = Netmap::<u128>::new(v6("fd00:1:2:3::"), v6("2001:db8:0:5::"), 64);
        assert_eq!(map.outbound(v6("fd00:1:2:3:211:22ff:fe33:4455")), v6("2001:db8:0:5:211:22ff:fe33:4455"));
        assert_eq!(map.inbound(v6("2001:db8:0:5::1")), v6("fd00:1:2:3::1"));
    }
}
