//! Reading a frame: lengths are checked here, once, and everything behind relies on the offsets that come out.
//!
//! A [`View4`] or [`View6`] promises for the frame that it was read from, as long as that frame's length and length
//! fields are not changed: `l3 + header <= l4 <= end <= frame.len()`; with a [`Transport`] of TCP, UDP or ICMP the fixed
//! transport header (20, 8, 8 bytes; of ICMPv6 the 4 that every message has) lies before `end`. Malformed packets give a [`Drop`] reason (RFC 1812 §5.2.2).

use super::checksum;
use crate::counters::Drop;

/// EtherTypes (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS, unicast and multicast (RFC 3032 §5).
    pub const MPLS: [u16; 2] = [0x8847, 0x8848];
    /// MAC control (IEEE 802.3 annex 31A): pause.
    pub const MAC_CONTROL: u16 = 0x8808;
    /// Slow protocols (IEEE 802.3 annex 57A): link aggregation and the like.
    pub const SLOW: u16 = 0x8809;
    /// PPPoE, discovery and session (RFC 2516 §4).
    pub const PPPOE: [u16; 2] = [0x8863, 0x8864];
    /// 802.1X.
    pub const EAPOL: u16 = 0x888e;
    /// 802.1ad service tag.
    pub const SERVICE: u16 = 0x88a8;
    /// LLDP (IEEE 802.1AB).
    pub const LLDP: u16 = 0x88cc;
    /// A service tag as it was written before 802.1ad.
    pub const OLD_SERVICE: u16 = 0x9100;
    /// From here on it is a type, below the length of an IEEE 802.3 frame.
    pub const MIN: u16 = 0x0600;

    /// Whether a VLAN tag begins with it.
    #[inline(always)]
    #[must_use]
    pub const fn is_tag(ethertype: u16) -> bool {
        matches!(ethertype, VLAN | SERVICE | OLD_SERVICE)
    }
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Length of an Ethernet header without a tag, in bytes.
pub const ETHERNET: usize = 14;
/// Length of a VLAN tag, in bytes.
pub const TAG: usize = 4;
/// Length of an IPv4 header without options, in bytes.
pub const IPV4: usize = 20;
/// Length of an IPv6 header, in bytes.
pub const IPV6: usize = 40;
/// Extension headers that are looked behind; a longer chain is forwarded, but not seen into (RFC 8200 §3).
pub const EXTENSIONS_MAX: usize = 8;

/// TCP flags.
pub mod tcp_flags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
}

/// The 16-bit big-endian field at `at`; zero beyond the end.
#[inline]
#[must_use]
pub fn get16(data: &[u8], at: usize) -> u16 {
    data.get(at..at + 2).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]))
}

/// The 32-bit big-endian field at `at`; zero beyond the end.
#[inline]
#[must_use]
pub fn get32(data: &[u8], at: usize) -> u32 {
    data.get(at..at + 4).map_or(0, |field| u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
}

/// Writes a 16-bit big-endian field at `at`; nothing beyond the end.
#[inline]
pub fn put16(data: &mut [u8], at: usize, value: u16) {
    if let Some(field) = data.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes a 32-bit big-endian field at `at`; nothing beyond the end.
#[inline]
pub fn put32(data: &mut [u8], at: usize, value: u32) {
    if let Some(field) = data.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The 128-bit big-endian field at `at`; zero beyond the end.
#[inline]
#[must_use]
pub fn get128(data: &[u8], at: usize) -> u128 {
    data.get(at..at + 16).and_then(|field| field.try_into().ok()).map_or(0, u128::from_be_bytes)
}

/// Writes a 128-bit big-endian field at `at`; nothing beyond the end.
#[inline]
pub fn put128(data: &mut [u8], at: usize, value: u128) {
    if let Some(field) = data.get_mut(at..at + 16) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// What is inside the Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Identifier of the service tag around the VLAN tag (802.1ad); 0 without one.
    pub outer_vlan: u16,
    /// VLAN identifier (802.1Q); 0 without one.
    pub vlan: u16,
    /// EtherType behind the tags.
    pub ethertype: u16,
    /// Length of Ethernet header and tags, in bytes.
    pub len: usize,
}

/// Reads the Ethernet header and up to two VLAN tags.
///
/// A tag with identifier 0 has a priority and no VLAN (IEEE 802.1Q §9.6): it counts as none. The outer of two tags may have
/// any of the three types; an inner one is 802.1Q's.
///
/// # Errors
/// [`Drop::FrameShort`]; [`Drop::UnknownVlan`] for more tags than these.
#[inline(always)]
pub fn link(frame: &[u8]) -> Result<Link, Drop> {
    if frame.len() < ETHERNET {
        return Err(Drop::FrameShort);
    }
    let kind = get16(frame, 12);
    if !ethertype::is_tag(kind) {
        return Ok(Link { outer_vlan: 0, vlan: 0, ethertype: kind, len: ETHERNET });
    }
    let (identifier, next) = tag(frame, ETHERNET)?;
    let (outer_vlan, vlan) = if kind == ethertype::VLAN { (0, identifier) } else { (identifier, 0) };
    if ethertype::is_tag(next) {
        return tags(frame, outer_vlan, vlan);
    }
    Ok(Link { outer_vlan, vlan, ethertype: next, len: ETHERNET + TAG })
}

/// Reads the second of two tags; the first has one of the identifiers.
#[cold]
fn tags(frame: &[u8], outer_vlan: u16, vlan: u16) -> Result<Link, Drop> {
    let (inner, next) = tag(frame, ETHERNET + TAG)?;
    if get16(frame, ETHERNET + 2) != ethertype::VLAN || ethertype::is_tag(next) {
        return Err(Drop::UnknownVlan);
    }
    let (outer_vlan, vlan) = if inner == 0 { (outer_vlan, vlan) } else { (outer_vlan | vlan, inner) };
    Ok(Link { outer_vlan, vlan, ethertype: next, len: ETHERNET + 2 * TAG })
}

/// The identifier of the tag whose type ends at `at`, and the type behind it.
#[inline(always)]
fn tag(frame: &[u8], at: usize) -> Result<(u16, u16), Drop> {
    match frame.get(at..at + TAG) {
        Some(tag) => Ok((get16(tag, 0) & 0x0fff, get16(tag, 2))),
        None => Err(Drop::FrameShort),
    }
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first part, with the transport header.
    First,
    /// A later part.
    Later,
}

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with its flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// An ICMP query: echo, timestamp, information, address mask (RFC 792). True: the request.
    IcmpQuery(bool),
    /// An ICMP error.
    IcmpError,
    /// ICMP of another type.
    IcmpOther,
    /// Another protocol, or a later fragment.
    Other,
}

/// An IPv4 packet in a frame.
#[derive(Clone, Copy, Debug)]
pub struct View4 {
    /// Offset of the IPv4 header in the frame.
    pub l3: usize,
    /// Offset behind the IPv4 header and its options.
    pub l4: usize,
    /// Offset behind the packet; the frame may be padded beyond.
    pub end: usize,
    /// Source address, host order.
    pub source: u32,
    /// Destination address, host order.
    pub destination: u32,
    /// Source port. For an ICMP query the requester's port is the identifier, the other's is 0.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// The don't-fragment bit.
    pub dont_fragment: bool,
    /// Whole, or a fragment.
    pub fragment: Fragment,
    /// The transport header.
    pub transport: Transport,
}

impl View4 {
    /// Whether it is a datagram that nobody may cut up: its identification means nothing (RFC 6864 §4).
    #[inline]
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.dont_fragment && self.fragment == Fragment::Whole
    }
}

/// An IPv6 packet in a frame.
#[derive(Clone, Copy, Debug)]
pub struct View6 {
    /// Offset of the IPv6 header in the frame.
    pub l3: usize,
    /// Offset behind the extension headers that were read.
    pub l4: usize,
    /// Offset behind the packet; the frame may be padded beyond.
    pub end: usize,
    /// Source address.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// Source port, if there is one.
    pub source_port: u16,
    /// Destination port, if there is one.
    pub destination_port: u16,
    /// Protocol of the header at `l4`.
    pub protocol: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Whole, or a fragment.
    pub fragment: Fragment,
    /// The transport header.
    pub transport: Transport,
}

/// Reads the IPv4 packet that begins at `l3`.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn ipv4(frame: &[u8], l3: usize) -> Result<View4, Drop> {
    let packet = frame.get(l3..).unwrap_or(&[]);
    let Some(fixed) = packet.first_chunk::<IPV4>() else { return Err(Drop::IpHeader) };
    let header = usize::from(fixed[0] & 0x0f) * 4;
    let total = usize::from(get16(fixed, 2));
    if fixed[0] >> 4 != 4 || header < IPV4 {
        return Err(Drop::IpHeader);
    }
    if total < header || total > packet.len() {
        return Err(Drop::IpLength);
    }
    if !checksum::is_header_right(&packet[..header]) {
        return Err(Drop::IpChecksum);
    }
    let flags = get16(fixed, 6);
    let fragment = match (flags & 0x1fff, flags & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let protocol = fixed[9];
    let payload = &packet[header..total];
    let (transport, source_port, destination_port) = if fragment == Fragment::Later {
        (Transport::Other, 0, 0)
    } else if protocol == protocol::ICMP {
        icmp4(payload).ok_or_else(|| short(fragment))?
    } else {
        ports(payload, protocol, fragment)?
    };
    Ok(View4 {
        l3,
        l4: l3 + header,
        end: l3 + total,
        source: get32(fixed, 12),
        destination: get32(fixed, 16),
        source_port,
        destination_port,
        protocol,
        ttl: fixed[8],
        dont_fragment: flags & 0x4000 != 0,
        fragment,
        transport,
    })
}

#[inline(always)]
fn ports(payload: &[u8], protocol: u8, fragment: Fragment) -> Result<(Transport, u16, u16), Drop> {
    let transport = match protocol {
        protocol::TCP => {
            let Some(fixed) = payload.first_chunk::<20>() else { return Err(short(fragment)) };
            let offset = usize::from(fixed[12] >> 4) * 4;
            if offset < 20 || (offset > payload.len() && fragment == Fragment::Whole) {
                return Err(Drop::TransportShort);
            }
            Transport::Tcp(fixed[13])
        }
        protocol::UDP => {
            let Some(fixed) = payload.first_chunk::<8>() else { return Err(short(fragment)) };
            let length = usize::from(get16(fixed, 4));
            if length < 8 || (length > payload.len() && fragment == Fragment::Whole) {
                return Err(Drop::TransportShort);
            }
            Transport::Udp
        }
        _ => return Ok((Transport::Other, 0, 0)),
    };
    Ok((transport, get16(payload, 0), get16(payload, 2)))
}

/// Why a packet that ends inside its transport header is dropped.
#[cold]
fn short(fragment: Fragment) -> Drop {
    if fragment == Fragment::Whole { Drop::TransportShort } else { Drop::FragmentTiny }
}

/// The ICMPv4 type's kind, and the ports that stand for its identifier.
#[inline]
fn icmp4(payload: &[u8]) -> Option<(Transport, u16, u16)> {
    if payload.len() < 8 {
        return None;
    }
    let identifier = get16(payload, 4);
    Some(match payload[0] {
        8 | 13 | 15 | 17 => (Transport::IcmpQuery(true), identifier, 0),
        0 | 14 | 16 | 18 => (Transport::IcmpQuery(false), 0, identifier),
        3 | 4 | 5 | 11 | 12 => (Transport::IcmpError, 0, 0),
        _ => (Transport::IcmpOther, 0, 0),
    })
}

/// Reads the IPv6 packet that begins at `l3`, looking behind extension headers as far as there are few of them.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn ipv6(frame: &[u8], l3: usize) -> Result<View6, Drop> {
    let packet = frame.get(l3..).unwrap_or(&[]);
    let Some(fixed) = packet.first_chunk::<IPV6>() else { return Err(Drop::IpHeader) };
    if fixed[0] >> 4 != 6 {
        return Err(Drop::IpHeader);
    }
    let total = IPV6 + usize::from(get16(fixed, 4));
    if total > packet.len() {
        return Err(Drop::IpLength);
    }
    let packet = &packet[..total];
    let (mut next, mut at, mut fragment) = (fixed[6], IPV6, Fragment::Whole);
    for _ in 0..EXTENSIONS_MAX {
        let Some(header) = packet.get(at..at + 8) else { break };
        match next {
            // Hop-by-hop options, routing, destination options (RFC 8200 §4.3, §4.4, §4.6), mobility, HIP, Shim6.
            0 | 43 | 60 | 135 | 139 | 140 => at += usize::from(header[1]) * 8 + 8,
            44 => {
                let offset = get16(header, 2);
                at += 8;
                fragment = match (offset & 0xfff8, offset & 1) {
                    (0, 0) => Fragment::Whole, // an atomic fragment (RFC 6946)
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
            }
            _ => break,
        }
        next = header[0];
        if fragment == Fragment::Later {
            break;
        }
    }
    let payload = packet.get(at..).ok_or(Drop::IpHeader)?;
    let (transport, source_port, destination_port) = match next {
        _ if fragment == Fragment::Later => (Transport::Other, 0, 0),
        protocol::ICMPV6 => icmp6(payload)?,
        _ => ports(payload, next, fragment)?,
    };
    Ok(View6 {
        l3,
        l4: l3 + at,
        end: l3 + total,
        source: get128(fixed, 8),
        destination: get128(fixed, 24),
        source_port,
        destination_port,
        protocol: next,
        hop_limit: fixed[7],
        fragment,
        transport,
    })
}

/// The ICMPv6 type's kind (RFC 4443 §2.1: below 128 is an error).
fn icmp6(payload: &[u8]) -> Result<(Transport, u16, u16), Drop> {
    if payload.len() < 4 {
        return Err(Drop::TransportShort);
    }
    let identifier = get16(payload, 4);
    Ok(match payload[0] {
        0..=127 | 137 => (Transport::IcmpError, 0, 0), // 137: no error about a redirect either (RFC 4443 §2.4 e)
        128 => (Transport::IcmpQuery(true), identifier, 0),
        129 => (Transport::IcmpQuery(false), 0, identifier),
        _ => (Transport::IcmpOther, 0, 0),
    })
}
