//! What translation does to transport headers: checksums by difference (RFC 7915 §4.5, §5.5), and the types of ICMP queries. A header
//! may be cut off: what is not there is not changed.

use crate::packet::checksum::{self, Delta, halves, sum128};
use crate::packet::parse::{get16, protocol, put16};

/// What the change of addresses from IPv4 to IPv6 does to a checksum that covers them.
#[inline(always)]
pub(super) fn delta6(from: (u32, u32), to: (u128, u128)) -> Delta {
    Delta::NONE.sums(halves(from.0) + halves(from.1), sum128(to.0) + sum128(to.1))
}

/// The same from IPv6 to IPv4.
#[inline(always)]
pub(super) fn delta4(from: (u128, u128), to: (u32, u32)) -> Delta {
    delta6(to, from).inverse()
}

/// Updates the checksum in a TCP or UDP header.
#[inline(always)]
pub(super) fn update(segment: &mut [u8], protocol: u8, delta: Delta) {
    match protocol {
        protocol::TCP => {
            let checksum = delta.apply(get16(segment, 16));
            put16(segment, 16, checksum);
        }
        protocol::UDP => {
            let checksum = delta.apply_udp(get16(segment, 6));
            put16(segment, 6, checksum);
        }
        _ => {}
    }
}

/// Computes the checksum over IPv6 of a UDP datagram that has none.
pub(super) fn complete(datagram: &mut [u8], (source, destination): (u128, u128)) {
    let len = get16(datagram, 4);
    let pseudo = checksum::pseudo6(source, destination, protocol::UDP, len);
    let Some(covered) = datagram.get(..usize::from(len)) else { return };
    let checksum = match checksum::checksum(pseudo, covered) {
        0 => 0xffff, // RFC 768: zero would mean that there is none
        other => other,
    };
    put16(datagram, 6, checksum);
}

/// Gives an ICMP query another type, and the checksum that follows from that and from what becomes of its pseudo-header.
pub(super) fn query(message: &mut [u8], kind: u8, pseudo: Delta) {
    let old = get16(message, 0);
    let new = u16::from(kind) << 8 | old & 0xff;
    if let Some(first) = message.first_mut() {
        *first = kind;
    }
    let checksum = pseudo.word(old, new).apply(get16(message, 2));
    put16(message, 2, checksum);
}

/// Sum of the pseudo-header of an ICMPv6 message of this length in bytes.
pub(super) fn pseudo(len: usize, (source, destination): (u128, u128)) -> u32 {
    checksum::pseudo6(source, destination, protocol::ICMPV6, u16::try_from(len).unwrap_or(0))
}

/// An ICMP message comes under a pseudo-header of this sum, as in IPv6 and not in IPv4.
pub(super) const fn covered(pseudo: u32) -> Delta {
    Delta::NONE.sums(0, pseudo)
}
