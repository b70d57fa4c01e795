//! ICMPv4 errors through port translation (RFC 5508 §4): reading the quoted packet, and rewriting it together with the
//! outer header. The quoted transport checksum is updated where it was quoted, and never verified.

use super::napt;
use crate::counters::Drop;
use crate::packet::checksum::{self, Delta};
use crate::packet::parse::{IPV4, View4, get16, get32, protocol, put16, put32};
use crate::pool::Proto;
use crate::session::Tuple4;

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    /// Offset of the quoted IPv4 header in the frame.
    l3: usize,
    /// Offset of the quoted transport header.
    l4: usize,
    /// Where the quoted packet ends; extensions and padding (RFC 4884) lie behind.
    end: usize,
    /// Its protocol.
    pub proto: Proto,
    /// Its addresses and ports; an ICMP query's requester has the identifier as port, its peer 0.
    pub tuple: Tuple4,
    /// Of an ICMP query: whether it is the request.
    request: bool,
}

/// Reads the packet that the ICMP error in `frame` quotes.
///
/// # Errors
/// The reason to drop the error (RFC 5508 REQ-3): [`Drop::IcmpErrorChecksum`], [`Drop::IcmpErrorQuote`],
/// [`Drop::IcmpErrorProtocol`], [`Drop::IcmpType`].
pub fn quote(frame: &[u8], view: &View4) -> Result<Quote, Drop> {
    let icmp = frame.get(view.l4..view.end).ok_or(Drop::IcmpErrorQuote)?;
    if checksum::fold(checksum::sum(0, icmp)) != 0xffff {
        return Err(Drop::IcmpErrorChecksum);
    }
    read_quote(frame, view)
}

/// The same without a look at the error's own checksum: enough to say whose flow it is about.
///
/// # Errors
/// As [`quote`], but for [`Drop::IcmpErrorChecksum`].
pub fn read_quote(frame: &[u8], view: &View4) -> Result<Quote, Drop> {
    let icmp = frame.get(view.l4..view.end).ok_or(Drop::IcmpErrorQuote)?;
    // Redirects are the link's own business, and source quench is deprecated (RFC 6633): neither crosses.
    if matches!(icmp.first(), Some(4 | 5)) {
        return Err(Drop::IcmpType);
    }
    let l3 = view.l4 + 8;
    // RFC 4884 §4: for these types the length of the quoted datagram, in 32-bit words; 0 without extensions.
    let words = if matches!(icmp.first(), Some(3 | 11 | 12)) { icmp.get(5).copied().unwrap_or(0) } else { 0 };
    let end = if words == 0 { view.end } else { view.end.min(l3 + usize::from(words) * 4) };
    let packet = frame.get(l3..end).ok_or(Drop::IcmpErrorQuote)?;
    if packet.len() < IPV4 || packet[0] >> 4 != 4 {
        return Err(Drop::IcmpErrorQuote);
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    if header < IPV4 || packet.len() < header + 8 {
        return Err(Drop::IcmpErrorQuote);
    }
    if checksum::fold(checksum::sum(0, &packet[..header])) != 0xffff {
        return Err(Drop::IcmpErrorQuote);
    }
    if get16(packet, 6) & 0x1fff != 0 {
        return Err(Drop::IcmpErrorProtocol);
    }
    let transport = &packet[header..];
    let mut tuple = Tuple4 {
        source: get32(packet, 12),
        destination: get32(packet, 16),
        source_port: get16(transport, 0),
        destination_port: get16(transport, 2),
    };
    let (proto, request) = match packet[9] {
        protocol::TCP => (Proto::Tcp, false),
        protocol::UDP => (Proto::Udp, false),
        protocol::ICMP => {
            let identifier = get16(transport, 4);
            let request = match transport[0] {
                8 | 13 | 15 | 17 => true,
                0 | 14 | 16 | 18 => false,
                _ => return Err(Drop::IcmpErrorProtocol),
            };
            (tuple.source_port, tuple.destination_port) = if request { (identifier, 0) } else { (0, identifier) };
            (Proto::Icmp, request)
        }
        _ => return Err(Drop::IcmpErrorProtocol),
    };
    Ok(Quote { l3, l4: l3 + header, end, proto, tuple, request })
}

/// Rewrites an ICMP error: its outer addresses to those of `outer`, its quoted packet to `inner`, one hop less.
pub fn rewrite(frame: &mut [u8], view: &View4, quote: &Quote, outer: &Tuple4, inner: &Tuple4) {
    let mut change = Delta::default(); // of the error's own checksum: every word of the quote that changes
    let (addresses, transport) = napt::deltas(quote.proto, &quote.tuple, inner);
    put32(frame, quote.l3 + 12, inner.source);
    put32(frame, quote.l3 + 16, inner.destination);
    change = change.plus(addresses);
    change = update(frame, quote, quote.l3 + 10, change, |old| addresses.apply(old));
    let l4 = quote.l4;
    match quote.proto {
        Proto::Tcp => {
            change = ports(frame, quote, inner, change);
            change = update(frame, quote, l4 + 16, change, |old| transport.apply(old));
        }
        Proto::Udp => {
            change = ports(frame, quote, inner, change);
            change = update(frame, quote, l4 + 6, change, |old| transport.apply_udp(old));
        }
        Proto::Icmp => {
            let identifier = if quote.request { inner.source_port } else { inner.destination_port };
            change = update(frame, quote, l4 + 4, change, |_| identifier);
            change = update(frame, quote, l4 + 2, change, |old| transport.apply(old));
        }
    }
    let at = view.l4 + 2;
    let own = change.apply(get16(frame, at));
    put16(frame, at, own);
    let before = Tuple4 { source: view.source, destination: view.destination, source_port: 0, destination_port: 0 };
    let (outer_addresses, _) = napt::deltas(Proto::Icmp, &before, outer);
    napt::rewrite_addresses(frame, view, outer, outer_addresses);
}

fn ports(frame: &mut [u8], quote: &Quote, to: &Tuple4, change: Delta) -> Delta {
    let change = update(frame, quote, quote.l4, change, |_| to.source_port);
    update(frame, quote, quote.l4 + 2, change, |_| to.destination_port)
}

/// Replaces one word of the quote, if it was quoted at all, and adds the replacement to `change`.
fn update(frame: &mut [u8], quote: &Quote, at: usize, change: Delta, new: impl Fn(u16) -> u16) -> Delta {
    if at + 2 > quote.end {
        return change;
    }
    let old = get16(frame, at);
    let new = new(old);
    put16(frame, at, new);
    change.word(old, new)
}
