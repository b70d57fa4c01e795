//! Frames from their parts, well-formed unless the parts say otherwise. Lengths and checksums are right until changed.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::scene::{PEER, Side};

/// TCP's SYN.
pub const SYN: u8 = 0x02;
/// TCP's ACK.
pub const ACK: u8 = 0x10;
/// ICMPv6's neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The low 16 bits.
#[allow(clippy::cast_possible_truncation, reason = "that is the point")]
#[must_use]
pub const fn low16(value: usize) -> u16 {
    value as u16
}

/// The low 8 bits.
#[allow(clippy::cast_possible_truncation, reason = "that is the point")]
#[must_use]
pub const fn low8(value: usize) -> u8 {
    value as u8
}

/// Writes a 16-bit big-endian field, if there is room for it.
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The 16-bit big-endian field at `at`; zero beyond the end.
#[must_use]
pub fn get16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]))
}

/// The Internet checksum (RFC 1071), the plainest way.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// An Ethernet frame from [`PEER`] to the gateway.
#[must_use]
pub fn ethernet(side: Side, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&side.gateway()[..], &PEER, &kind.to_be_bytes(), payload].concat()
}

/// The frame with a tag behind its addresses: `tpid` is 0x8100, 0x88a8 or another.
#[must_use]
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at_checked(12).unwrap_or((frame, &[]));
    [addresses, &tpid.to_be_bytes(), &tci.to_be_bytes(), rest].concat()
}

/// Where the packet begins in a frame: behind its tags.
#[must_use]
pub fn packet_at(frame: &[u8]) -> usize {
    let is_tag = |at: &usize| matches!(get16(frame, *at), 0x8100 | 0x88a8 | 0x9100);
    (12..).step_by(4).take(3).find(|at| !is_tag(at)).unwrap_or(20) + 2
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ip4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Flags and fragment offset, as they are in the header.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Options; a multiple of four bytes, at most 40.
    pub options: Vec<u8>,
}

impl Ip4 {
    /// One without options, whole, with 64 hops to go.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Ip4 { source, destination, fragment: 0, ttl: 64, options: Vec::new() }
    }

    /// The packet, with the transport's checksum filled in if `payload` begins with a whole header of TCP or UDP.
    #[must_use]
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 + low8(header / 4), 0, 0, 0, 0x12, 0x34, 0, 0, self.ttl, protocol, 0, 0];
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        packet.extend(payload);
        let total = low16(packet.len());
        put16(&mut packet, 2, total);
        put16(&mut packet, 6, self.fragment);
        seal4(&mut packet);
        let pseudo = [&self.source.octets()[..], &self.destination.octets(), &[0, protocol]].concat();
        seal_transport(&mut packet[header..], protocol, &pseudo);
        packet
    }
}

/// An IPv6 header.
#[derive(Clone, Debug)]
pub struct Ip6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Hop limit.
    pub hops: u8,
    /// What stands between the header and the transport: headers with their numbers.
    pub chain: Vec<(u8, Vec<u8>)>,
}

impl Ip6 {
    /// One without extension headers, with 64 hops to go.
    #[must_use]
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Ip6 { source, destination, hops: 64, chain: Vec::new() }
    }

    /// The packet, with the transport's checksum filled in. Each header of the chain is told what follows it.
    #[must_use]
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for (index, (_, header)) in self.chain.iter().enumerate() {
            let next = self.chain.get(index + 1).map_or(protocol, |(number, _)| *number);
            body.extend(header);
            let at = body.len() - header.len();
            if let Some(field) = body.get_mut(at) {
                *field = next;
            }
        }
        let transport = body.len();
        body.extend(payload);
        let first = self.chain.first().map_or(protocol, |(number, _)| *number);
        let [high, low] = low16(body.len()).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, high, low, first, self.hops];
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(body);
        let pseudo = [&self.source.octets()[..], &self.destination.octets(), &[0, protocol]].concat();
        seal_transport(&mut packet[40 + transport..], protocol, &pseudo);
        packet
    }

    /// An ICMPv6 message of neighbour discovery: `body` from behind the checksum on.
    #[must_use]
    pub fn discovery(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.packet(58, &[&[kind, 0, 0, 0], body].concat())
    }
}

/// Makes the IPv4 header's checksum right, as far as there is a header.
pub fn seal4(packet: &mut [u8]) {
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4).clamp(20, 60);
    put16(packet, 10, 0);
    let sum = packet.get(..header).map_or(0, |header| checksum(&[header]));
    put16(packet, 10, sum);
}

/// Where the checksum of a transport is.
#[must_use]
pub const fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        1 | 58 => Some(2),
        6 => Some(16),
        17 => Some(6),
        _ => None,
    }
}

/// Makes the checksum of a transport right. `pseudo`: addresses, zero, protocol.
pub fn seal_transport(segment: &mut [u8], protocol: u8, pseudo: &[u8]) {
    let Some(at) = checksum_at(protocol).filter(|at| segment.len() >= at + 2) else { return };
    put16(segment, at, 0);
    let len = low16(segment.len()).to_be_bytes();
    let sum = if protocol == 1 { checksum(&[segment]) } else { checksum(&[pseudo, &len, segment]) };
    put16(segment, at, if sum == 0 && protocol == 17 { 0xffff } else { sum });
}

/// A UDP datagram without its checksum.
#[must_use]
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = low16(8 + payload.len());
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// A TCP segment without its checksum; `options` is a multiple of four bytes.
#[must_use]
pub fn tcp(from: u16, to: u16, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = low8(5 + options.len() / 4) << 4;
    let rest = [0, 0, 0x10, 0, 0, 0, 0x20, 0, offset, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &rest, options, payload].concat()
}

/// An ICMP message; `rest` is the second half of its header.
#[must_use]
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, payload].concat();
    seal_transport(&mut message, 1, &[]);
    message
}

/// An ICMPv6 message without its checksum.
#[must_use]
pub fn icmp6(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], &rest, payload].concat()
}

/// An ARP packet (RFC 826) for Ethernet and IPv4.
#[must_use]
pub fn arp(operation: u16, from: [u8; 6], sender: Ipv4Addr, to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    [&head[..], &operation.to_be_bytes(), &from, &sender.octets(), &to, &target.octets()].concat()
}
