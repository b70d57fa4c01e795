//! Address and port translation of IPv4 packets. Checksums are updated, never recomputed (RFC 1624).

use crate::packet::checksum::Delta;
use crate::packet::parse::{Transport, View4, get16, put16, put32};
use crate::pool::Proto;
use crate::session::Tuple4;

/// What rewriting one tuple into another does to the checksums: of the IPv4 header, and of the transport.
#[must_use]
pub fn deltas(proto: Proto, from: &Tuple4, to: &Tuple4) -> (Delta, Delta) {
    let addresses = Delta::default().long(from.source, to.source).long(from.destination, to.destination);
    let ports =
        Delta::default().word(from.source_port, to.source_port).word(from.destination_port, to.destination_port);
    // ICMPv4 has no pseudo-header; of its two "ports" one is the identifier and the other always zero.
    let transport = if proto == Proto::Icmp { ports } else { addresses.plus(ports) };
    (addresses, transport)
}

/// Writes `to` into a packet, and one hop less into its TTL.
#[inline]
pub fn rewrite(frame: &mut [u8], view: &View4, to: &Tuple4, addresses: Delta, transport: Delta) {
    rewrite_addresses(frame, view, to, addresses);
    let l4 = view.l4;
    match view.transport {
        Transport::Tcp(_) => {
            put16(frame, l4, to.source_port);
            put16(frame, l4 + 2, to.destination_port);
            let checksum = transport.apply(get16(frame, l4 + 16));
            put16(frame, l4 + 16, checksum);
        }
        Transport::Udp => {
            put16(frame, l4, to.source_port);
            put16(frame, l4 + 2, to.destination_port);
            let checksum = transport.apply_udp(get16(frame, l4 + 6));
            put16(frame, l4 + 6, checksum);
        }
        Transport::IcmpQuery(request) => {
            put16(frame, l4 + 4, if request { to.source_port } else { to.destination_port });
            let checksum = transport.apply(get16(frame, l4 + 2));
            put16(frame, l4 + 2, checksum);
        }
        Transport::IcmpError | Transport::IcmpOther | Transport::Other => {}
    }
}

/// Writes the addresses of `to` into the IPv4 header, and one hop less into its TTL.
#[inline]
pub fn rewrite_addresses(frame: &mut [u8], view: &View4, to: &Tuple4, addresses: Delta) {
    put32(frame, view.l3 + 12, to.source);
    put32(frame, view.l3 + 16, to.destination);
    decrement_ttl(frame, view, addresses);
}

/// One hop less, together with another change of the header.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], view: &View4, also: Delta) {
    let at = view.l3 + 8;
    let old = get16(frame, at);
    let new = old.wrapping_sub(0x0100);
    put16(frame, at, new);
    let checksum = also.word(old, new).apply(get16(frame, view.l3 + 10));
    put16(frame, view.l3 + 10, checksum);
}
