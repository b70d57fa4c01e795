//! ICMP errors of our own: when one may be sent (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e), and what it looks like.

use super::buffer::Packet;
use super::checksum;
use super::parse::{self, Fragment, Transport, View4, View6, put16, put32};
use crate::counters::IcmpError;

/// Most bytes of an ICMPv4 error, IP header included (RFC 1812 §4.3.2.3).
pub const ERROR4_MAX: usize = 576;
/// Most bytes of an ICMPv6 error, IP header included (RFC 4443 §2.4 c).
pub const ERROR6_MAX: usize = 1280;
/// Time to live and hop limit of what we originate.
pub const TTL: u8 = 64;

/// Whether an error may be sent about this packet. The reader has already refused bad sources and failed header checks.
#[must_use]
pub fn may_answer4(frame: &[u8], view: &View4) -> bool {
    let link_multicast = frame.first().is_some_and(|byte| byte & 1 != 0);
    let multicast = view.destination >= 0xe000_0000;
    let source_ok = view.source != 0 && view.source < 0xe000_0000;
    !link_multicast
        && !multicast
        && source_ok
        && view.fragment != Fragment::Later
        && view.transport != Transport::IcmpError
}

/// The same for IPv6. A packet-too-big may answer multicast (RFC 4443 §2.4 e.3).
#[must_use]
pub fn may_answer6(frame: &[u8], view: &View6, error: IcmpError) -> bool {
    let link_multicast = frame.first().is_some_and(|byte| byte & 1 != 0);
    let multicast = view.destination >> 120 == 0xff;
    let too_big = error == IcmpError::PacketTooBig6;
    let source_ok = view.source != 0 && view.source >> 120 != 0xff;
    ((!link_multicast && !multicast) || too_big) && source_ok && view.transport != Transport::IcmpError
}

/// Writes an ICMPv4 error from `source` about `original` (from its IP header on) into the empty `packet`, behind room
/// for an Ethernet header. `mtu` goes into a fragmentation-needed error. Addresses in host order. False without the room.
#[must_use]
pub fn write4<P: Packet>(packet: &mut P, error: IcmpError, mtu: u16, source: u32, original: &[u8]) -> bool {
    let quote = &original[..original.len().min(ERROR4_MAX - parse::IPV4 - 8)];
    let total = parse::IPV4 + 8 + quote.len();
    let (Ok(total_field), true) = (u16::try_from(total), packet.append(parse::ETHERNET + total)) else {
        return false;
    };
    let (_, kind, code) = error.type_code();
    let (ethernet, ip) = packet.data_mut().split_at_mut(parse::ETHERNET);
    ethernet.fill(0);
    put16(ethernet, 12, parse::ethertype::IPV4);
    // Precedence 6, internetwork control (RFC 1812 §4.3.2.5); an atomic datagram (RFC 6864 §4.1).
    ip[..parse::IPV4].copy_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, TTL, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put16(ip, 2, total_field);
    put32(ip, 12, source);
    put32(ip, 16, parse::get32(original, 12));
    let header = checksum::checksum(0, &ip[..parse::IPV4]);
    put16(ip, 10, header);
    let icmp = &mut ip[parse::IPV4..];
    icmp[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    if error == IcmpError::FragmentationNeeded4 {
        put16(icmp, 6, mtu);
    }
    icmp[8..].copy_from_slice(quote);
    let sum = checksum::checksum(0, icmp);
    put16(icmp, 2, sum);
    true
}

/// The same for ICMPv6. `value` goes into a packet-too-big, as the MTU, and into a parameter problem, as the pointer.
#[must_use]
pub fn write6<P: Packet>(packet: &mut P, error: IcmpError, value: u16, source: u128, original: &[u8]) -> bool {
    let quote = &original[..original.len().min(ERROR6_MAX - parse::IPV6 - 8)];
    let payload = 8 + quote.len();
    let (Ok(payload_field), true) = (u16::try_from(payload), packet.append(parse::ETHERNET + parse::IPV6 + payload))
    else {
        return false;
    };
    let (_, kind, code) = error.type_code();
    let (ethernet, ip) = packet.data_mut().split_at_mut(parse::ETHERNET);
    ethernet.fill(0);
    put16(ethernet, 12, parse::ethertype::IPV6);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, parse::protocol::ICMPV6, TTL]);
    put16(ip, 4, payload_field);
    ip[8..24].copy_from_slice(&source.to_be_bytes());
    ip[24..40].copy_from_slice(&original[8..24]);
    let pseudo = checksum::sum(u32::from(parse::protocol::ICMPV6) + u32::from(payload_field), &ip[8..40]);
    let icmp = &mut ip[parse::IPV6..];
    icmp[..8].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    if matches!(error, IcmpError::PacketTooBig6 | IcmpError::ParameterProblem6) {
        put32(icmp, 4, u32::from(value));
    }
    icmp[8..].copy_from_slice(quote);
    let sum = checksum::checksum(pseudo, icmp);
    put16(icmp, 2, sum);
    true
}
