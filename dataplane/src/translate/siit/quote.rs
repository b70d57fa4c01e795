//! ICMP errors. The packet that one quotes is translated like any packet, but for its hops; it may be cut off anywhere behind its
//! IP header (RFC 7915 §4.3, §5.3). What stands behind it goes along (RFC 4884). An error from a router in IPv6 that has no address
//! of its own in IPv4 tells its IPv6 address there, in an interface information object (RFC 5837, RFC 6791 §4).

use super::chain::Chain;
use super::header::{FRAGMENT, Header4, Header6, field6, has_room, reframe};
use super::icmp::{self, Equivalent, Rest};
use super::{Mtus, Settings, to4, to6, transport};
use crate::counters::Drop;
use crate::packet::Packet;
use crate::packet::checksum::{Delta, checksum, fold, sum, sum128};
use crate::packet::error::{ERROR4_MAX, ERROR6_MAX};
use crate::packet::parse::{IPV4, IPV6, View4, View6, get16, get32, get128, protocol, put16, put32};
use crate::translate::eam::Role;

/// Length of an ICMP error's header, in bytes.
const ICMP: usize = 8;
/// The least length of a quoted packet with something behind it, in bytes (RFC 4884 §4).
const EXTENDED_MIN: usize = 128;

/// Length of the header of an error's extensions, and of an interface information object with an IPv6 address, in bytes.
const EXTENSION: usize = 4;
const INTERFACE: usize = 24;
/// The most of extensions that an ICMPv4 error has room for behind the shortest quoted packet, in bytes.
const EXTENSIONS_MAX: usize = ERROR4_MAX - IPV4 - ICMP - EXTENDED_MIN;
/// The class of interface information objects.
const INTERFACE_CLASS: u8 = 2;

/// What an ICMP error looks like afterwards: headers, as much of the quoted packet as there is room for, and extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Length of the headers: of IP, of ICMP, and of the quoted packet.
    headers: usize,
    /// Offset in the frame of what the quoted packet has behind its headers; the first `kept` bytes of it stay there.
    stays: usize,
    kept: usize,
    /// Zeros behind it.
    padding: usize,
    /// Offset in the frame of the extensions, of which that many bytes go behind the zeros.
    extensions: usize,
    extensions_kept: usize,
    /// How many bytes are added behind them.
    added: usize,
    /// How long the quoted packet is with its zeros, in units of the family; zero if nothing is behind it.
    attribute: u8,
}

/// What a layout depends on but the frame.
struct Family {
    /// Length of an IP header, in bytes.
    header: usize,
    /// Longest error, in bytes.
    max: usize,
    /// In which a quoted packet's length is counted, in bytes.
    unit: usize,
}

const V4: Family = Family { header: IPV4, max: ERROR4_MAX, unit: 4 };
const V6: Family = Family { header: IPV6, max: ERROR6_MAX, unit: 8 };

impl Layout {
    /// Of a quoted packet whose header will have `quoted` bytes, and whose payload lies in `stays..quote_end` of the frame, before
    /// extensions up to `end` that are kept or not, and `added` bytes, for which there is room ([`EXTENSIONS_MAX`]).
    fn new(
        family: &Family,
        quoted: usize,
        (stays, quote_end, end): (usize, usize, usize),
        keep: bool,
        added: usize,
    ) -> Self {
        let room = family.max - family.header - ICMP;
        let len = quoted + (quote_end - stays);
        let extensions = if keep { end - quote_end } else { 0 } + added;
        let (len, padded, extensions_kept) = if extensions == 0 {
            (len.min(room), len.min(room), 0)
        } else {
            // Rather less of the packet than of what a router has added.
            let most = (room.saturating_sub(extensions) / family.unit * family.unit).max(EXTENDED_MIN);
            let padded = len.next_multiple_of(family.unit).clamp(EXTENDED_MIN, most);
            (len.min(padded), padded, extensions.min(room - padded).saturating_sub(added))
        };
        Layout {
            headers: family.header + ICMP + quoted,
            stays,
            kept: len - quoted,
            padding: padded - len,
            extensions: quote_end,
            extensions_kept,
            added,
            attribute: if extensions == 0 { 0 } else { u8::try_from(padded / family.unit).unwrap_or(0) },
        }
    }

    /// Length of the packet, in bytes.
    pub fn len(&self) -> usize {
        self.headers + self.kept + self.padding + self.extensions_kept + self.added
    }

    /// Where it ends in the frame, before that is moved.
    fn end(&self) -> usize {
        self.stays + self.kept + self.padding + self.extensions_kept + self.added
    }

    /// Whether the buffer of a packet that ends at `end` of its frame has the room.
    fn fits<P: Packet>(&self, packet: &P, l3: usize, end: usize) -> bool {
        let behind = packet.tailroom() + packet.data().len().saturating_sub(end);
        self.end().saturating_sub(end) <= behind && has_room(packet, l3, self.stays, self.headers)
    }

    /// Puts everything in place but the headers and what is added, for which there is room then, at `l3`. Gives the frame from there on.
    fn apply<'a, P: Packet>(&self, packet: &'a mut P, l3: usize, end: usize) -> Option<&'a mut [u8]> {
        packet.truncate(end);
        if self.end() > end && !packet.append(self.end() - end) {
            return None;
        }
        let frame = packet.data_mut();
        let (zeros, behind) = (self.stays + self.kept, self.stays + self.kept + self.padding);
        if self.extensions_kept > 0 {
            let extensions = self.extensions..self.extensions + self.extensions_kept;
            if extensions.end.max(self.end()) > frame.len() {
                return None;
            }
            frame.copy_within(extensions, behind);
        }
        frame.get_mut(zeros..behind)?.fill(0);
        packet.truncate(self.end());
        if !reframe(packet, l3, self.stays, self.headers) {
            return None;
        }
        packet.data_mut().get_mut(l3..)
    }
}

/// Where the quoted packet ends that begins at `start` of an error that ends at `end`: the error says so, if it is extended.
fn quote_end(start: usize, end: usize, attribute: u8, unit: usize) -> usize {
    match usize::from(attribute) * unit {
        0 => end,
        len => end.min(start + len),
    }
}

/// Writes the checksum of a message in which it is zero, and of its pseudo-header: as wrong as it was, when message and
/// pseudo-header added up to `before`, and not to 0xffff as they should.
fn write_checksum(message: &mut [u8], pseudo: u32, before: u16) {
    let right = checksum(pseudo, message);
    let checksum = if before == 0xffff { right } else { fold(u32::from(right) + u32::from(before)) };
    put16(message, 2, checksum);
}

/// An ICMPv4 error that becomes an ICMPv6 error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Error6 {
    pub layout: Layout,
    equivalent: Equivalent,
    /// Of the quoted packet: its source and destination, as they will be.
    addresses: (u128, u128),
}

impl Error6 {
    /// `old` is its header.
    pub fn examine<P: Packet>(
        packet: &P,
        view: &View4,
        old: &[u8; ICMP],
        mut address: impl FnMut(Role, u32) -> Option<u128>,
    ) -> Result<Self, Drop> {
        let frame = packet.data();
        let kind = old[0];
        let equivalent = icmp::error6(kind, old[1], old[4]).ok_or(Drop::IcmpUntranslatable)?;
        let start = view.l4 + ICMP;
        let attribute = if icmp::is_extensible4(kind) { old[5] } else { 0 };
        let quote_end = quote_end(start, view.end, attribute, V4.unit);
        let quote = frame.get(start..quote_end).ok_or(Drop::QuoteUnreadable)?;
        let header = quote.first_chunk::<IPV4>().ok_or(Drop::QuoteUnreadable)?;
        let len = header_len(header);
        if header[0] >> 4 != 4 || len < IPV4 || len > quote.len() || usize::from(get16(header, 2)) < len {
            return Err(Drop::QuoteUnreadable);
        }
        let field = get16(header, 6);
        match (header[9], quote.get(len)) {
            (protocol::IGMP, _) => return Err(Drop::QuoteUntranslatable),
            (protocol::ICMP, Some(&kind)) if field & 0x1fff == 0 && icmp::query6(kind).is_none() => {
                return Err(Drop::QuoteUntranslatable);
            }
            _ => {}
        }
        let destination = address(Role::QuotedDestination, get32(header, 16)).ok_or(Drop::QuoteAddress)?;
        let source = address(Role::QuotedSource, get32(header, 12)).ok_or(Drop::QuoteAddress)?;
        let quoted = IPV6 + if field & 0x3fff == 0 { 0 } else { FRAGMENT };
        let keep = icmp::is_extensible6(equivalent.kind);
        let layout = Layout::new(&V6, quoted, (start + len, quote_end, view.end), keep, 0);
        if !layout.fits(packet, view.l3, view.end) {
            return Err(Drop::NoRoom);
        }
        Ok(Error6 { layout, equivalent, addresses: (source, destination) })
    }

    /// `outer` is its IP header, but for payload and next header.
    pub fn translate<P: Packet>(
        &self,
        packet: &mut P,
        view: &View4,
        mut outer: Header6,
        mtus: Mtus,
        settings: &Settings,
    ) -> Option<usize> {
        let frame = packet.data_mut();
        let message = frame.get(view.l4..view.end)?;
        let before = fold(sum(0, message));
        let old: [u8; ICMP] = *message.first_chunk()?;
        let header: [u8; IPV4] = *message.get(ICMP..)?.first_chunk()?;
        let (total, field) = (get16(&header, 2), get16(&header, 6));
        let payload = total.checked_sub(u16::try_from(header_len(&header)).ok()?)?;
        let segment = frame.get_mut(self.layout.stays..self.layout.stays + self.layout.kept)?;
        let mut next_header = header[9];
        if next_header == protocol::ICMP {
            next_header = protocol::ICMPV6;
            let kind = segment.first().and_then(|&kind| icmp::query6(kind)).filter(|_| field & 0x1fff == 0);
            if let Some(kind) = kind {
                let pseudo = transport::pseudo(payload.into(), self.addresses);
                transport::query(segment, kind, transport::covered(pseudo));
            }
        } else if field & 0x1fff == 0 {
            let from = (get32(&header, 12), get32(&header, 16));
            transport::update(segment, next_header, transport::delta6(from, self.addresses));
        }
        let fragment = (field & 0x3fff != 0).then(|| (field6(field), get16(&header, 4).into()));
        let inner = Header6 {
            class: to6::class(&header, settings),
            payload: payload.checked_add(if fragment.is_some() { 8 } else { 0 })?,
            next_header,
            hop_limit: header[8],
            source: self.addresses.0,
            destination: self.addresses.1,
        };
        let len = self.layout.len() - IPV6;
        outer.payload = u16::try_from(len).ok()?;
        outer.next_header = protocol::ICMPV6;
        let new = self.layout.apply(packet, view.l3, view.end)?;
        outer.write_before(None, new);
        let message = new.get_mut(IPV6..IPV6 + len)?;
        message.get_mut(..ICMP)?.copy_from_slice(&[self.equivalent.kind, self.equivalent.code, 0, 0, 0, 0, 0, 0]);
        match self.equivalent.rest {
            Rest::Unused => message[4] = self.layout.attribute,
            Rest::Pointer(pointer) => put32(message, 4, pointer.into()),
            Rest::Mtu => {
                put32(message, 4, icmp::packet_too_big_mtu(get16(&old, 6), total, &settings.plateaus, mtus));
            }
        }
        inner.write_before(fragment, message.get_mut(ICMP..)?);
        write_checksum(message, transport::pseudo(len, (outer.source, outer.destination)), before);
        Some(view.l3 + IPV6)
    }
}

/// The length that an IPv4 header says it has, in bytes.
fn header_len(header: &[u8; IPV4]) -> usize {
    usize::from(header[0] & 0x0f) * 4
}

/// An ICMPv6 error that becomes an ICMPv4 error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Error4 {
    pub layout: Layout,
    equivalent: Equivalent,
    /// Offset of the ICMPv6 header in the frame.
    icmp: usize,
    /// What stands between the quoted packet's header and its payload.
    chain: Chain,
    /// Of the quoted packet: its source and destination, as they will be.
    addresses: (u32, u32),
}

impl Error4 {
    /// `at` is where its header is in the frame, which is `old`.
    pub fn examine<P: Packet>(
        packet: &P,
        view: &View6,
        at: usize,
        old: &[u8; ICMP],
        mut address: impl FnMut(Role, u128) -> Option<u32>,
    ) -> Result<Self, Drop> {
        let frame = packet.data();
        let kind = old[0];
        let equivalent = icmp::error4(kind, old[1], get32(old, 4)).ok_or(Drop::IcmpUntranslatable)?;
        let start = at + ICMP;
        let attribute = if icmp::is_extensible6(kind) { old[4] } else { 0 };
        let quote_end = quote_end(start, view.end, attribute, V6.unit);
        let quote = frame.get(start..quote_end).ok_or(Drop::QuoteUnreadable)?;
        let header = quote.first_chunk::<IPV6>().ok_or(Drop::QuoteUnreadable)?;
        if header[0] >> 4 != 6 {
            return Err(Drop::QuoteUnreadable);
        }
        let chain = Chain::read(frame, start, quote_end).map_err(|_| Drop::QuoteUnreadable)?;
        let payload = payload(header, start, &chain).ok_or(Drop::QuoteUnreadable)?;
        let is_no_query = |kind: &u8| !chain.is_later() && icmp::query4(*kind).is_none();
        let transport = frame.get(chain.end..quote_end).unwrap_or(&[]);
        let is_strange = chain.protocol == protocol::ICMPV6 && transport.first().is_some_and(is_no_query);
        // No translated packet has addresses left to go to, or is longer than IPv4 can be.
        if is_strange || chain.segments_left.is_some() || payload > usize::from(u16::MAX) - IPV4 {
            return Err(Drop::QuoteUntranslatable);
        }
        let destination = address(Role::QuotedDestination, get128(header, 24)).ok_or(Drop::QuoteAddress)?;
        let source = address(Role::QuotedSource, get128(header, 8)).ok_or(Drop::QuoteAddress)?;
        let keep = equivalent.rest == Rest::Unused && icmp::is_extensible4(equivalent.kind);
        let layout = Layout::new(&V4, IPV4, (chain.end, quote_end, view.end), keep, 0);
        if !layout.fits(packet, view.l3, view.end) {
            return Err(Drop::NoRoom);
        }
        Ok(Error4 { layout, equivalent, icmp: at, chain, addresses: (source, destination) })
    }

    /// Lets it tell its source, if there is room.
    pub fn tell_source<P: Packet>(&mut self, packet: &P, view: &View6) {
        let frame = packet.data();
        let Layout { stays, extensions: at, extensions_kept: kept, .. } = self.layout;
        let before = frame.get(at..at + kept).unwrap_or(&[]);
        let added = if kept == 0 { EXTENSION } else { 0 } + INTERFACE;
        let may_grow = icmp::is_extensible4(self.equivalent.kind) && (kept == 0 || tells_no_interface(before));
        if may_grow && kept + added <= EXTENSIONS_MAX && at + kept <= view.end {
            let layout = Layout::new(&V4, IPV4, (stays, at, at + kept), true, added);
            if layout.fits(packet, view.l3, view.end) {
                self.layout = layout;
            }
        }
    }

    /// `outer` is its IP header, but for the protocol.
    pub fn translate<P: Packet>(
        &self,
        packet: &mut P,
        view: &View6,
        mut outer: Header4,
        mtus: Mtus,
        settings: &Settings,
    ) -> Option<usize> {
        let chain = &self.chain;
        let frame = packet.data_mut();
        let message = frame.get(self.icmp..view.end)?;
        let before = fold(sum(transport::pseudo(message.len(), (view.source, view.destination)), message));
        let old: [u8; ICMP] = *message.first_chunk()?;
        let header: [u8; IPV6] = *message.get(ICMP..)?.first_chunk()?;
        let payload = payload(&header, self.icmp + ICMP, chain)?;
        let from = (get128(&header, 8), get128(&header, 24));
        let segment = frame.get_mut(self.layout.stays..self.layout.stays + self.layout.kept)?;
        let mut protocol = chain.protocol;
        if protocol == protocol::ICMPV6 {
            protocol = protocol::ICMP;
            let kind = segment.first().and_then(|&kind| icmp::query4(kind)).filter(|_| !chain.is_later());
            if let Some(kind) = kind {
                let pseudo = transport::pseudo(payload, from);
                transport::query(segment, kind, transport::covered(pseudo).inverse());
            }
        } else if !chain.is_later() {
            transport::update(segment, protocol, transport::delta4(from, self.addresses));
        }
        let total = u16::try_from(IPV4 + payload).ok()?;
        let (identification, field) = to4::fragmentation(chain, total, 0);
        let inner = Header4 {
            tos: to4::tos(&header, settings),
            total,
            identification,
            field,
            ttl: header[7],
            protocol,
            source: self.addresses.0,
            destination: self.addresses.1,
        };
        let len = self.layout.len() - IPV4;
        outer.protocol = protocol::ICMP;
        let new = self.layout.apply(packet, view.l3, view.end)?;
        outer.write_to(new);
        let message = new.get_mut(IPV4..IPV4 + len)?;
        if self.layout.added > 0 {
            let at = len - self.layout.added - self.layout.extensions_kept;
            write_interface(message.get_mut(at..)?, self.layout.extensions_kept, view.source);
        }
        message.get_mut(..ICMP)?.copy_from_slice(&[self.equivalent.kind, self.equivalent.code, 0, 0, 0, 0, 0, 0]);
        message[5] = self.layout.attribute;
        match self.equivalent.rest {
            Rest::Unused => {}
            Rest::Pointer(pointer) => message[4] = pointer,
            Rest::Mtu => {
                let mtu = icmp::fragmentation_needed_mtu(get32(&old, 4), chain.fragment.is_some(), mtus);
                put16(message, 6, mtu);
            }
        }
        inner.write_to(message.get_mut(ICMP..)?);
        write_checksum(message, 0, before);
        Some(view.l3 + IPV4)
    }
}

/// Whether extensions can be read to their end, and none of their objects tells of an interface.
fn tells_no_interface(extensions: &[u8]) -> bool {
    let Some(([version, ..], mut objects)) = extensions.split_first_chunk::<EXTENSION>() else { return false };
    while let Some(&[high, low, class, _]) = objects.first_chunk() {
        match objects.get(usize::from(u16::from_be_bytes([high, low]))..) {
            Some(rest) if rest.len() + EXTENSION <= objects.len() && class != INTERFACE_CLASS => objects = rest,
            _ => return false,
        }
    }
    version >> 4 == 2 && objects.is_empty()
}

/// Adds the object with an IPv6 address to extensions of `before` bytes; to none, with their header before it.
fn write_interface(extensions: &mut [u8], before: usize, address: u128) {
    // Of 24 bytes: the interface that the datagram came by, by its address (RFC 5837 §4.1), which is of IPv6 (§4.2).
    let head = [0, 24, INTERFACE_CLASS, 0x04, 0, 2, 0, 0];
    let sum = sum(0, &head) + sum128(address);
    let at = if before == 0 { EXTENSION } else { before };
    if before == 0 {
        let header = 0x2000_u16;
        let checksum = !fold(u32::from(header) + sum);
        put16(extensions, 0, header);
        put16(extensions, 2, checksum);
    } else if get16(extensions, 2) != 0 {
        let checksum = Delta::NONE.sums(0, sum).apply(get16(extensions, 2));
        put16(extensions, 2, checksum);
    }
    if let Some(object) = extensions.get_mut(at..at + INTERFACE) {
        object[..8].copy_from_slice(&head);
        object[8..].copy_from_slice(&address.to_be_bytes());
    }
}

/// Length of what a quoted IPv6 packet had behind its headers, in bytes. `start` is where it begins.
fn payload(header: &[u8; IPV6], start: usize, chain: &Chain) -> Option<usize> {
    usize::from(get16(header, 4)).checked_sub(chain.end - start - IPV6)
}
