//! ICMP messages in the other family: types, codes, pointers (RFC 7915 §4.2, §5.2), and the arithmetic of MTUs.

use super::{IPV6_MTU_MIN, Mtus};

/// An ICMP error in the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equivalent {
    /// Its type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// What the rest of its header says.
    pub rest: Rest,
}

/// The rest of an ICMP error's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Unused,
    /// Which byte of the quoted header is wrong.
    Pointer(u8),
    /// An MTU.
    Mtu,
}

const fn plain(kind: u8, code: u8) -> Option<Equivalent> {
    Some(Equivalent { kind, code, rest: Rest::Unused })
}

/// The ICMPv6 type of an ICMPv4 query: of an echo. None of any other message.
#[must_use]
pub const fn query6(kind: u8) -> Option<u8> {
    match kind {
        8 => Some(128),
        0 => Some(129),
        _ => None,
    }
}

/// The ICMPv4 type of an ICMPv6 query: of an echo. None of any other message.
#[must_use]
pub const fn query4(kind: u8) -> Option<u8> {
    match kind {
        128 => Some(8),
        129 => Some(0),
        _ => None,
    }
}

/// Whether ICMPv6 messages of this type are errors, which quote a packet (RFC 4443 §2.1).
#[must_use]
pub const fn is_error6(kind: u8) -> bool {
    kind < 128
}

/// The ICMPv6 error of an ICMPv4 one; none if there is no equivalent. `pointer` is the first byte of the rest of its header.
#[must_use]
pub const fn error6(kind: u8, code: u8, pointer: u8) -> Option<Equivalent> {
    match (kind, code) {
        // Networks and hosts unreachable, unknown, or not for this type of service: no route.
        (3, 0 | 1 | 5..=8 | 11 | 12) => plain(1, 0),
        // Protocol unreachable: the next-header field is not known.
        (3, 2) => Some(Equivalent { kind: 4, code: 1, rest: Rest::Pointer(6) }),
        (3, 3) => plain(1, 4),
        (3, 4) => Some(Equivalent { kind: 2, code: 0, rest: Rest::Mtu }),
        // Prohibited.
        (3, 9 | 10 | 13 | 15) => plain(1, 1),
        (11, code) => plain(3, code),
        (12, 0 | 2) => match pointer6(pointer) {
            Some(pointer) => Some(Equivalent { kind: 4, code: 0, rest: Rest::Pointer(pointer) }),
            None => None,
        },
        _ => None,
    }
}

/// The ICMPv4 error of an ICMPv6 one; none if there is no equivalent. `pointer` is the rest of its header.
#[must_use]
pub const fn error4(kind: u8, code: u8, pointer: u32) -> Option<Equivalent> {
    match (kind, code) {
        // No route, beyond the source's scope, address unreachable: host unreachable.
        (1, 0 | 2 | 3) => plain(3, 1),
        (1, 1) => plain(3, 10),
        (1, 4) => plain(3, 3),
        (2, _) => Some(Equivalent { kind: 3, code: 4, rest: Rest::Mtu }),
        (3, code) => plain(11, code),
        (4, 0) => match pointer4(pointer) {
            Some(pointer) => Some(Equivalent { kind: 12, code: 0, rest: Rest::Pointer(pointer) }),
            None => None,
        },
        (4, 1) => plain(3, 2),
        _ => None,
    }
}

/// The byte of the IPv6 header that stands for a byte of the IPv4 header (RFC 7915 figure 3).
const fn pointer6(pointer: u8) -> Option<u8> {
    match pointer {
        // Version and class of service.
        0 | 1 => Some(pointer),
        // Total length, payload length.
        2 | 3 => Some(4),
        // Time to live, hop limit.
        8 => Some(7),
        // Protocol, next header.
        9 => Some(6),
        // Addresses.
        12..=15 => Some(8),
        16..=19 => Some(24),
        _ => None,
    }
}

/// The byte of the IPv4 header that stands for a byte of the IPv6 header (RFC 7915 figure 6).
const fn pointer4(pointer: u32) -> Option<u8> {
    match pointer {
        0 => Some(0),
        1 => Some(1),
        4 | 5 => Some(2),
        6 => Some(9),
        7 => Some(8),
        8..=23 => Some(12),
        24..=39 => Some(16),
        _ => None,
    }
}

/// Whether errors of this type say how long the packet is that they quote, so that more can stand behind it (RFC 4884 §4):
/// ICMPv4's.
pub(super) const fn is_extensible4(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

/// The same of ICMPv6's.
pub(super) const fn is_extensible6(kind: u8) -> bool {
    matches!(kind, 1 | 3)
}

/// The MTU that an ICMPv6 packet-too-big says, for what an ICMPv4 fragmentation-needed has said (RFC 7915 §4.2). A router of
/// before RFC 1191 has said zero: then it is the greatest plateau below the length of the packet that it quotes.
#[must_use]
pub fn packet_too_big_mtu(mtu: u16, quoted_total: u16, plateaus: &[u16], next: Mtus) -> u32 {
    let likely: u32 = match mtu {
        // The plateau itself: it is a guess at what the way as a whole takes (D10).
        0 => plateaus.iter().copied().filter(|&plateau| plateau < quoted_total).max().unwrap_or(0).into(),
        told => u32::from(told) + 20,
    };
    likely.min(next.v6.into()).min(u32::from(next.v4) + 20).max(IPV6_MTU_MIN.into())
}

/// The MTU that an ICMPv4 fragmentation-needed says, for what an ICMPv6 packet-too-big has said (RFC 7915 §5.2). A packet that had
/// a fragment header was longer by that in IPv6.
#[must_use]
pub fn fragmentation_needed_mtu(mtu: u32, had_fragment_header: bool, next: Mtus) -> u16 {
    let longer = if had_fragment_header { 28 } else { 20 };
    // Every link takes 1280 bytes: less is not believed (RFC 8201 §4). IPv4 packets are not longer than 65535.
    let told = u16::try_from(mtu).unwrap_or(u16::MAX).max(IPV6_MTU_MIN);
    told.min(next.v6).saturating_sub(longer).min(next.v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XL-31, XL-32: all types and codes, written down from the RFC's text; every other one has no equivalent.
    #[test]
    fn xl_31_32_every_icmpv4_type_and_code() {
        let known = [
            ((3, 0), (1, 0)),
            ((3, 1), (1, 0)),
            ((3, 2), (4, 1)),
            ((3, 3), (1, 4)),
            ((3, 4), (2, 0)),
            ((3, 5), (1, 0)),
            ((3, 6), (1, 0)),
            ((3, 7), (1, 0)),
            ((3, 8), (1, 0)),
            ((3, 9), (1, 1)),
            ((3, 10), (1, 1)),
            ((3, 11), (1, 0)),
            ((3, 12), (1, 0)),
            ((3, 13), (1, 1)),
            ((3, 15), (1, 1)),
            ((12, 0), (4, 0)),
            ((12, 2), (4, 0)),
        ];
        for kind in 0..=255u8 {
            for code in 0..=255u8 {
                let expected = match kind {
                    11 => Some((3, code)),
                    _ => known.iter().find(|(from, _)| *from == (kind, code)).map(|(_, to)| *to),
                };
                let found = error6(kind, code, 0);
                assert_eq!(found.map(|it| (it.kind, it.code)), expected, "{kind}/{code}");
                let rest = match (kind, code) {
                    (3, 2) => Rest::Pointer(6),
                    (3, 4) => Rest::Mtu,
                    (12, _) => Rest::Pointer(0),
                    _ => Rest::Unused,
                };
                assert!(found.is_none_or(|it| it.rest == rest), "{kind}/{code}");
            }
        }
        let queries = (0..=255).filter_map(|kind| query6(kind).map(|six| (kind, six)));
        assert_eq!(queries.collect::<Vec<_>>(), [(0, 129), (8, 128)]);
    }

    /// XL-32: all pointers.
    #[test]
    fn xl_32_every_ipv4_pointer() {
        // By byte of the IPv4 header; -1 has no equivalent.
        let table = [0, 1, 4, 4, -1, -1, -1, -1, 7, 6, -1, -1, 8, 8, 8, 8, 24, 24, 24, 24];
        for pointer in 0..=255u8 {
            let expected = table.get(usize::from(pointer)).and_then(|&to| u8::try_from(to).ok());
            for code in [0, 2] {
                let found = error6(12, code, pointer).map(|it| it.rest);
                assert_eq!(found, expected.map(Rest::Pointer), "{pointer}");
            }
        }
    }

    /// XL-35, XL-37: all types and codes.
    #[test]
    fn xl_35_37_every_icmpv6_type_and_code() {
        let known = [((1, 0), (3, 1)), ((1, 1), (3, 10)), ((1, 2), (3, 1)), ((1, 3), (3, 1)), ((1, 4), (3, 3))];
        for kind in 0..=255u8 {
            for code in 0..=255u8 {
                let expected = match (kind, code) {
                    (2, _) => Some((3, 4)),
                    (3, code) => Some((11, code)),
                    (4, 0) => Some((12, 0)),
                    (4, 1) => Some((3, 2)),
                    _ => known.iter().find(|(from, _)| *from == (kind, code)).map(|(_, to)| *to),
                };
                let found = error4(kind, code, 0);
                assert_eq!(found.map(|it| (it.kind, it.code)), expected, "{kind}/{code}");
                let rest = match (kind, code) {
                    (2, _) => Rest::Mtu,
                    (4, 0) => Rest::Pointer(0),
                    _ => Rest::Unused,
                };
                assert!(found.is_none_or(|it| it.rest == rest), "{kind}/{code}");
            }
        }
        let queries = (0..=255).filter_map(|kind| query4(kind).map(|four| (kind, four)));
        assert_eq!(queries.collect::<Vec<_>>(), [(128, 8), (129, 0)]);
    }

    /// XL-37: all pointers.
    #[test]
    fn xl_37_every_ipv6_pointer() {
        for pointer in (0..=300).chain([256, 65536, 1 << 24, u32::MAX]) {
            let expected = match pointer {
                0 => Some(0),
                1 => Some(1),
                4 | 5 => Some(2),
                6 => Some(9),
                7 => Some(8),
                _ if (8..24).contains(&pointer) => Some(12),
                _ if (24..40).contains(&pointer) => Some(16),
                _ => None,
            };
            assert_eq!(error4(4, 0, pointer).map(|it| it.rest), expected.map(Rest::Pointer), "{pointer}");
        }
    }

    fn mtus(v4: u16, v6: u16) -> Mtus {
        Mtus { v4, v6 }
    }

    /// XL-33, XL-34.
    #[test]
    fn xl_33_34_mtus_to_ipv6() {
        let plateaus = &super::super::Settings::default().plateaus;
        let mtu = |mtu, total, next| packet_too_big_mtu(mtu, total, plateaus, next);
        for (told, v6, v4, expected) in [
            (1400, 1500, 1500, 1420),
            (576, 1500, 1500, 1280),
            (1260, 1500, 1500, 1280),
            (1500, 1500, 1500, 1500),
            (8980, 1500, 9000, 1500),
            (1500, 9000, 1400, 1420),
            (65535, 65535, 65535, 65535),
        ] {
            assert_eq!(mtu(told, 1500, mtus(v4, v6)), expected, "{told}");
        }
        for (total, v6, expected) in [
            (1500, 1500, 1492),
            (4000, 9000, 2002),
            (4000, 1500, 1500),
            (1400, 1500, 1280),
            (68, 1500, 1280),
            (0, 1500, 1280),
        ] {
            assert_eq!(mtu(0, total, mtus(9000, v6)), expected, "{total}");
        }
        assert_eq!(packet_too_big_mtu(0, 1500, &[], mtus(1500, 1500)), 1280);
        assert_eq!(packet_too_big_mtu(0, 4000, &[1300, 1350, 9000], mtus(9000, 9000)), 1350);
    }

    /// XL-36.
    #[test]
    fn xl_36_mtus_to_ipv4() {
        for (told, v4, v6, expected) in [
            (1280, 1500, 1500, 1260),
            (1500, 1500, 1500, 1480),
            (1492, 1500, 1500, 1472),
            (9000, 1500, 9000, 1500),
            (9000, 9000, 1500, 1480),
            (u32::MAX, 9000, 9000, 8980),
            (0, 1500, 1500, 1260),
        ] {
            assert_eq!(fragmentation_needed_mtu(told, false, mtus(v4, v6)), expected, "{told}");
        }
        assert_eq!(fragmentation_needed_mtu(1400, true, mtus(1500, 1500)), 1372);
    }
}
