//! Addresses exchanged for others of the same family, and nothing else: NPTv6, MAP66, NETMAP. Also in the packet that an ICMP
//! error quotes, which is to look as its sender knows it.
//!
//! Checksums follow by difference (RFC 1624). Where an exchange makes no difference, as NPTv6's and MAP66's do not, no byte of a
//! transport header is touched.

use super::napt;
use crate::packet::checksum::Delta;
use crate::packet::parse::{Fragment, IPV4, IPV6, View4, View6, get16, get32, get128, protocol, put16, put32, put128};
use crate::session::Tuple4;

/// Source and destination of a packet.
pub type Pair<A> = (A, A);

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<A> {
    /// Its addresses.
    pub addresses: Pair<A>,
    /// Offset of its IP header in the frame.
    l3: usize,
    /// Offset of its transport's checksum, if it has one and that was quoted.
    checksum: Option<usize>,
    /// A checksum of zero means that there is none.
    optional: bool,
}

/// Exchanges the addresses of an IPv6 packet for those of `to`, and those of the packet that it quotes; one hop less.
#[inline]
pub fn exchange6(frame: &mut [u8], view: &View6, to: Pair<u128>, quote: Option<(Quoted<u128>, Pair<u128>)>) {
    let mut change = Delta::NONE.wide(view.source, to.0).wide(view.destination, to.1);
    if let Some((quoted, to)) = quote {
        change = change.plus(requote6(frame, &quoted, to));
    }
    let Some(header) = frame.get_mut(view.l3..).and_then(|it| it.first_chunk_mut::<IPV6>()) else { return };
    put128(header, 8, to.0);
    put128(header, 24, to.1);
    header[7] = header[7].wrapping_sub(1);
    if let Some(at) = checksum_place(view.protocol).filter(|_| view.fragment != Fragment::Later) {
        update(frame, view.l4 + at, view.end, is_never_zero(view.protocol), change);
    }
}

/// Exchanges the addresses of an IPv4 packet for those of `to` (host order), and those of the packet that it quotes; one hop less.
#[inline]
pub fn exchange4(frame: &mut [u8], view: &View4, to: Pair<u32>, quote: Option<(Quoted<u32>, Pair<u32>)>) {
    let change = Delta::NONE.long(view.source, to.0).long(view.destination, to.1);
    let tuple = Tuple4 { source: to.0, destination: to.1, ..Tuple4::default() };
    napt::rewrite_addresses(frame, view, &tuple, change);
    if view.fragment == Fragment::Later {
        return;
    }
    if view.protocol == protocol::ICMP {
        // No pseudo-header: it sees what it quotes, and nothing else.
        if let Some((quoted, to)) = quote {
            let change = requote4(frame, &quoted, to);
            update(frame, view.l4 + 2, view.end, false, change);
        }
    } else if let Some(at) = checksum_place4(view.protocol) {
        update(frame, view.l4 + at, view.end, is_never_zero(view.protocol), change);
    }
}

/// Where a transport that covers addresses has its checksum, behind the start of its header.
#[inline]
const fn checksum_place(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        // DCCP and UDP-Lite (RFC 4340 §9.1, RFC 3828 §3.1).
        protocol::UDP | 33 | UDP_LITE => Some(6),
        protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// The same behind an IPv4 header, where ICMPv6 is nobody's.
#[inline]
const fn checksum_place4(protocol: u8) -> Option<usize> {
    if protocol == protocol::ICMPV6 { None } else { checksum_place(protocol) }
}

const UDP_LITE: u8 = 136;

/// Whether a checksum of zero is none, and one that comes out as zero is sent as ones (RFC 768, RFC 3828 §3.1).
#[inline]
const fn is_never_zero(protocol: u8) -> bool {
    matches!(protocol, protocol::UDP | UDP_LITE)
}

/// Lets a checksum follow a change, if there is one at all. Gives what that changes in turn.
#[inline]
fn update(frame: &mut [u8], at: usize, end: usize, optional: bool, change: Delta) -> Delta {
    if change.is_neutral() || at + 2 > end {
        return Delta::NONE;
    }
    let old = get16(frame, at);
    let new = if optional { change.apply_udp(old) } else { change.apply(old) };
    put16(frame, at, new);
    Delta::NONE.word(old, new)
}

/// Writes other addresses into a quoted packet. Gives what that changes in the message around it.
fn requote6(frame: &mut [u8], quoted: &Quoted<u128>, to: Pair<u128>) -> Delta {
    let change = Delta::NONE.wide(quoted.addresses.0, to.0).wide(quoted.addresses.1, to.1);
    put128(frame, quoted.l3 + 8, to.0);
    put128(frame, quoted.l3 + 24, to.1);
    match quoted.checksum {
        Some(at) => change.plus(update(frame, at, at + 2, quoted.optional, change)),
        None => change,
    }
}

/// The same of IPv4, whose header has a checksum of its own.
fn requote4(frame: &mut [u8], quoted: &Quoted<u32>, to: Pair<u32>) -> Delta {
    let addresses = Delta::NONE.long(quoted.addresses.0, to.0).long(quoted.addresses.1, to.1);
    put32(frame, quoted.l3 + 12, to.0);
    put32(frame, quoted.l3 + 16, to.1);
    let at = quoted.l3 + 10;
    let change = addresses.plus(update(frame, at, at + 2, false, addresses));
    match quoted.checksum {
        Some(at) => change.plus(update(frame, at, at + 2, quoted.optional, addresses)),
        None => change,
    }
}

/// Where the datagram that an ICMP error quotes lies in the frame: to the end, or as far as its length attribute says, in units of
/// so many bytes, where extensions follow (RFC 4884 §4).
fn quote_end(units: Option<u8>, bytes: usize, start: usize, end: usize) -> usize {
    match units {
        None | Some(0) => end,
        Some(units) => end.min(start + usize::from(units) * bytes),
    }
}

/// The packet that an ICMPv6 error quotes, if it is one and quotes enough to name its ends.
#[must_use]
pub fn quoted6(frame: &[u8], view: &View6) -> Option<Quoted<u128>> {
    let kind = *frame.get(view.l4)?;
    if view.protocol != protocol::ICMPV6 || view.fragment != Fragment::Whole || !(1..=4).contains(&kind) {
        return None;
    }
    let l3 = view.l4 + 8;
    let units = if matches!(kind, 1 | 3) { frame.get(view.l4 + 4).copied() } else { None };
    let packet = frame.get(l3..quote_end(units, 8, l3, view.end))?;
    let header = packet.first_chunk::<IPV6>().filter(|it| it[0] >> 4 == 6)?;
    let (place, kind) =
        transport6(packet).map_or((None, 0), |(at, kind)| (checksum_place(kind).map(|it| at + it), kind));
    Some(Quoted {
        addresses: (get128(header, 8), get128(header, 24)),
        l3,
        checksum: place.filter(|at| at + 2 <= packet.len()).map(|at| l3 + at),
        optional: is_never_zero(kind),
    })
}

/// The packet that an ICMPv4 error quotes, if it is one and quotes enough to name its ends.
#[must_use]
pub fn quoted4(frame: &[u8], view: &View4) -> Option<Quoted<u32>> {
    let kind = *frame.get(view.l4)?;
    if view.protocol != protocol::ICMP || view.fragment != Fragment::Whole || !matches!(kind, 3 | 4 | 5 | 11 | 12) {
        return None;
    }
    let l3 = view.l4 + 8;
    let units = if matches!(kind, 3 | 11 | 12) { frame.get(view.l4 + 5).copied() } else { None };
    let packet = frame.get(l3..quote_end(units, 4, l3, view.end))?;
    let header = packet.first_chunk::<IPV4>().filter(|it| it[0] >> 4 == 4 && it[0] & 15 >= 5)?;
    let (kind, is_later) = (header[9], get16(header, 6) & 0x1fff != 0);
    let place = checksum_place4(kind).filter(|_| !is_later);
    let place = place.map(|at| usize::from(header[0] & 15) * 4 + at);
    Some(Quoted {
        addresses: (get32(header, 12), get32(header, 16)),
        l3,
        checksum: place.filter(|at| at + 2 <= packet.len()).map(|at| l3 + at),
        optional: is_never_zero(kind),
    })
}

/// Where the transport header of an IPv6 packet begins, which may be broken off, and its protocol. None: it is not in this packet.
fn transport6(packet: &[u8]) -> Option<(usize, u8)> {
    let (mut at, mut next) = (IPV6, *packet.get(6)?);
    loop {
        let header = packet.get(at..at + 8);
        let len = match (next, header) {
            (0 | 43 | 60 | 135 | 139 | 140, Some(header)) => usize::from(header[1]) * 8 + 8,
            (44, Some(header)) if get16(header, 2) & 0xfff8 == 0 => 8,
            (0 | 43 | 44 | 60 | 135 | 139 | 140, _) => return None,
            _ => return Some((at, next)),
        };
        next = header?[0];
        // Each is of eight bytes at least: the packet ends some time.
        at += len;
    }
}
