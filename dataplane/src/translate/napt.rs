//! Address and port translation of IPv4 packets. Checksums are updated, never recomputed (RFC 1624).

use crate::packet::checksum::Delta;
use crate::packet::parse::{IPV4, Transport, View4, get16, put16, put32};
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
    // Every transport that has a part in this has 8 bytes of header.
    let Some(header) = frame.get_mut(view.l4..).and_then(|header| header.first_chunk_mut::<8>()) else { return };
    match view.transport {
        Transport::Tcp(_) => {
            put16(header, 0, to.source_port);
            put16(header, 2, to.destination_port);
            let checksum = transport.apply(get16(frame, view.l4 + 16));
            put16(frame, view.l4 + 16, checksum);
        }
        Transport::Udp => {
            put16(header, 0, to.source_port);
            put16(header, 2, to.destination_port);
            let checksum = transport.apply_udp(get16(header, 6));
            put16(header, 6, checksum);
        }
        Transport::IcmpQuery(request) => {
            put16(header, 4, if request { to.source_port } else { to.destination_port });
            let checksum = transport.apply(get16(header, 2));
            put16(header, 2, checksum);
        }
        Transport::IcmpError | Transport::IcmpOther | Transport::Other => {}
    }
}

/// Writes the addresses of `to` into the IPv4 header, and one hop less into its TTL.
#[inline]
pub fn rewrite_addresses(frame: &mut [u8], view: &View4, to: &Tuple4, addresses: Delta) {
    let Some(header) = header(frame, view) else { return };
    put32(header, 12, to.source);
    put32(header, 16, to.destination);
    one_hop_less(header, addresses);
}

/// One hop less, and nothing else.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], view: &View4) {
    let Some(header) = header(frame, view) else { return };
    one_hop_less(header, Delta::default());
}

/// One hop more: a packet that is turned round loses its hop on the second way.
pub fn give_hop_back(frame: &mut [u8], view: &View4) {
    let Some(header) = header(frame, view) else { return };
    let old = get16(header, 8);
    put_word(header, 8, old.wrapping_add(0x0100));
}

/// Another identification (RFC 791 §3.1).
pub fn identify(frame: &mut [u8], view: &View4, identification: u16) {
    if let Some(header) = header(frame, view) {
        put_identification(header, identification);
    }
}

/// The same for an IPv4 header alone.
pub fn put_identification(header: &mut [u8; IPV4], identification: u16) {
    put_word(header, 4, identification);
}

/// Writes a word of the header, with what that does to its checksum.
fn put_word(header: &mut [u8; IPV4], at: usize, new: u16) {
    let checksum = Delta::default().word(get16(header, at), new).apply(get16(header, 10));
    put16(header, at, new);
    put16(header, 10, checksum);
}

/// One hop less, and the checksum of this and another change of the header.
#[inline]
fn one_hop_less(header: &mut [u8; IPV4], also: Delta) {
    let old = get16(header, 8);
    let new = old.wrapping_sub(0x0100);
    put16(header, 8, new);
    let checksum = also.word(old, new).apply(get16(header, 10));
    put16(header, 10, checksum);
}

#[inline]
fn header<'a>(frame: &'a mut [u8], view: &View4) -> Option<&'a mut [u8; IPV4]> {
    frame.get_mut(view.l3..)?.first_chunk_mut()
}
