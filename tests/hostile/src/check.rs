//! Whether what a gateway sends is well-formed, as `etherparse` reads it.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, EtherType, Icmpv4Type, Ipv4HeaderSlice, Ipv6HeaderSlice, NetSlice, SlicedPacket, TransportSlice,
};

use crate::build::{checksum, tagged};
use crate::scene::{EXTERNAL, HOST, SERVER, Side, VLAN, double_tagged, is_own};

/// What a frame is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was sent on: whatever its payload is, it was so before.
    Forwarded,
    /// The gateway itself made it.
    Own,
}

/// Checks a frame that left by `side`. Its headers up to IP's are right, and there is nothing behind the packet; what the
/// gateway itself sent is right all through.
///
/// # Errors
/// What is wrong with it.
pub fn well_formed(side: Side, frame: &[u8]) -> Result<Kind, String> {
    let kind = headers(side, frame)?;
    if kind == Kind::Own {
        own(frame)?;
    }
    Ok(kind)
}

/// The first half of [`well_formed`]: the headers up to IP's.
///
/// # Errors
/// What is wrong with them.
pub fn headers(side: Side, frame: &[u8]) -> Result<Kind, String> {
    let (to, rest) = frame.split_at_checked(6).ok_or("shorter than an address")?;
    let (from, rest) = rest.split_at_checked(6).ok_or("shorter than two addresses")?;
    if from != side.gateway() {
        return Err(format!("sent from {from:02x?}"));
    }
    // The tags of the interfaces inside.
    let untagged = [tagged(&[0; 12], 0x8100, VLAN), double_tagged(&[0; 12])];
    let mut untagged = untagged.iter().filter_map(|tags| rest.strip_prefix(&tags[12..]));
    let rest = if side == Side::Inside { untagged.next().unwrap_or(rest) } else { rest };
    let (kind, packet) = rest.split_at_checked(2).ok_or("no EtherType")?;
    if packet.len() > side.mtu() {
        return Err(format!("a packet of {} bytes", packet.len()));
    }
    let kind = match EtherType(u16::from_be_bytes([kind[0], kind[1]])) {
        EtherType::ARP => arp(packet)?,
        EtherType::IPV4 => ipv4(packet)?,
        EtherType::IPV6 => ipv6(packet)?,
        other => return Err(format!("of type {other:?}")),
    };
    if kind == Kind::Forwarded && (to[0] & 1 == 1 || to == [0; 6]) {
        return Err(format!("forwarded to {to:02x?}"));
    }
    Ok(kind)
}

fn arp(packet: &[u8]) -> Result<Kind, String> {
    let arp = ArpPacketSlice::from_slice(packet).map_err(|error| error.to_string())?;
    let proper = arp.proto_addr_type() == EtherType::IPV4
        && (arp.hw_addr_size(), arp.proto_addr_size(), arp.slice().len()) == (6, 4, packet.len())
        && matches!(arp.operation().0, 1 | 2);
    if proper { Ok(Kind::Own) } else { Err(format!("ARP: {arp:?}")) }
}

fn ipv4(packet: &[u8]) -> Result<Kind, String> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| error.to_string())?;
    let is_martian = |it: Ipv4Addr| matches!(it.octets()[0], 0 | 127 | 224..) || it.is_link_local();
    if usize::from(header.total_len()) != packet.len() {
        return Err(format!("total length {} of {} bytes", header.total_len(), packet.len()));
    }
    // Not etherparse's own, which leaves the reserved bit out.
    if checksum(&[header.slice()]) != 0 {
        return Err("IPv4 header checksum".into());
    }
    if header.ttl() == 0 || is_martian(header.source_addr()) || is_martian(header.destination_addr()) {
        return Err(format!("{header:?}"));
    }
    Ok(kind_of(header.source_addr().into(), header.ttl()))
}

fn ipv6(packet: &[u8]) -> Result<Kind, String> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| error.to_string())?;
    if usize::from(header.payload_length()) + 40 != packet.len() {
        return Err(format!("payload length {} of {} bytes", header.payload_length(), packet.len()));
    }
    let (source, destination) = (header.source_addr(), header.destination_addr());
    let kind = if source.is_unicast_link_local() { Kind::Own } else { kind_of(source.into(), header.hop_limit()) };
    // Its own tests for uniqueness come from nowhere, and go to everyone (RFC 4862 §5.4.2).
    let kind = if source.is_unspecified() && header.hop_limit() == 255 { Kind::Own } else { kind };
    let martian = source.is_multicast()
        || source.is_loopback()
        || destination.is_loopback()
        || destination.is_unspecified()
        || (kind == Kind::Forwarded && (source.is_unspecified() || destination.is_multicast()));
    if header.hop_limit() == 0 || martian { Err(format!("{header:?}")) } else { Ok(kind) }
}

/// What has already been sent on by somebody is not our own, even if it says that it comes from us.
fn kind_of(source: IpAddr, hops: u8) -> Kind {
    if is_own(source) && matches!(hops, 64 | 255) { Kind::Own } else { Kind::Forwarded }
}

/// What the gateway itself sent: every layer reads, and every checksum is right.
///
/// # Errors
/// What does not read.
pub fn own(frame: &[u8]) -> Result<(), String> {
    let read = SlicedPacket::from_ethernet(frame).map_err(|error| format!("of our own: {error}"))?;
    let transport = read.transport.as_ref();
    let right = match (&read.net, transport) {
        (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Icmpv4(icmp))) => {
            icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
        }
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()) == Ok(tcp.checksum())
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()) == Ok(tcp.checksum())
        }
        (Some(NetSlice::Arp(_)), None) => true,
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("of our own: {:?} {transport:?}", read.net)) }
}

/// Whether these frames that left answer [`afterwards`](crate::scene::afterwards): the ping's reply, and the flow translated both ways.
///
/// # Errors
/// What is missing.
pub fn alive(left: &[(Side, Vec<u8>)]) -> Result<(), String> {
    let pong = left.iter().any(|(side, frame)| *side == Side::Inside && is_pong(frame));
    let (out, back) = (Some((EXTERNAL, SERVER, &b"alive?"[..])), Some((SERVER, HOST, &b"alive!"[..])));
    let out = left.iter().any(|(side, frame)| *side == Side::Outside && datagram(frame) == out);
    let back = left.iter().any(|(side, frame)| *side == Side::Inside && datagram(frame) == back);
    match (pong, out, back) {
        (true, true, true) => Ok(()),
        _ => Err(format!("ping answered: {pong}; flow out: {out}; flow back: {back}")),
    }
}

fn is_pong(frame: &[u8]) -> bool {
    let Ok(read) = SlicedPacket::from_ethernet(frame) else { return false };
    let from_us = matches!(&read.net, Some(NetSlice::Ipv4(ip)) if is_own(ip.header().source_addr().into()));
    let Some(TransportSlice::Icmpv4(icmp)) = &read.transport else { return false };
    from_us
        && matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(echo) if echo.id == 0x7777)
        && icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
}

/// Source, destination and payload of a UDP datagram of the flow of [`afterwards`](crate::scene::afterwards), if its checksum is right.
fn datagram(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, &[u8])> {
    let read = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&read.net, &read.transport) else { return None };
    let (ip, ports) = (ip.header(), [udp.source_port(), udp.destination_port()]);
    let sum = udp.to_header().calc_checksum_ipv4(&ip.to_header(), udp.payload()).ok()?;
    let ours = ports.contains(&40_404) && ports.contains(&40_405) && sum == udp.checksum();
    ours.then(|| (ip.source_addr(), ip.destination_addr(), udp.payload()))
}
