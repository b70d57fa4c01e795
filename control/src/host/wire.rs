//! Frames and packets, written. Everything here is a pure function of its arguments; all checksums are complete.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::plan::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Message, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, TcpPacket, TcpSeqNumber,
};

/// Length of an Ethernet header without a tag, in bytes.
pub(super) const ETHERNET: usize = 14;
/// Length of an IPv4 header without options, in bytes.
const IPV4: usize = 20;
/// Length of an IPv6 header, in bytes.
const IPV6: usize = 40;
/// Length of the header of an ICMP error, in bytes, both families.
const ICMP_ERROR: usize = 8;
/// Length of a TCP header without options, in bytes.
const TCP: usize = 20;
/// The longest IPv4 packet that carries an ICMP error (RFC 1812 §4.3.2.3), in bytes.
const ERROR_MAX4: usize = 576;
/// The longest IPv6 packet that carries an ICMP error (RFC 4443 §2.4 c), in bytes.
const ERROR_MAX6: usize = 1280;
/// Time to live and hop limit of what the host sends (RFC 1700), but for neighbour discovery.
const TTL: u8 = 64;
/// The hop limit that shows that a message comes from its own link (RFC 4861 §7.1).
pub(super) const ND_HOP_LIMIT: u8 = 255;

pub(super) const BROADCAST: MacAddr = MacAddr([0xff; 6]);
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The group in which the owner of `address` listens for solicitations (RFC 4291 §2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (address.to_bits() & 0x00ff_ffff))
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
pub(super) fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// An Ethernet frame with `len` zero bytes of payload, which `fill` then writes.
fn frame(
    from: MacAddr,
    to: MacAddr,
    ethertype: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Box<[u8]> {
    let mut bytes = vec![0; ETHERNET + len].into_boxed_slice();
    let header = EthernetRepr { src_addr: EthernetAddress(from.0), dst_addr: EthernetAddress(to.0), ethertype };
    header.emit(&mut EthernetFrame::new_unchecked(&mut *bytes));
    fill(&mut bytes[ETHERNET..]);
    bytes
}

/// An IP packet in an Ethernet frame.
pub(super) fn framed(from: MacAddr, to: MacAddr, packet: &[u8]) -> Box<[u8]> {
    let ethertype =
        if packet.first().is_some_and(|byte| byte >> 4 == 4) { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    frame(from, to, ethertype, packet.len(), |payload| payload.copy_from_slice(packet))
}

/// One end of an ARP conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArpEnd {
    pub mac: MacAddr,
    pub address: Ipv4Addr,
}

/// An ARP packet from `sender` about `target`, to the station `to` (RFC 826).
pub(super) fn arp(operation: ArpOperation, sender: ArpEnd, target: ArpEnd, to: MacAddr) -> Box<[u8]> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(sender.mac.0),
        source_protocol_addr: sender.address,
        target_hardware_addr: EthernetAddress(target.mac.0),
        target_protocol_addr: target.address,
    };
    frame(sender.mac, to, EthernetProtocol::Arp, repr.buffer_len(), |payload| {
        repr.emit(&mut ArpPacket::new_unchecked(payload));
    })
}

/// An IPv6 address and the Ethernet address that goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NdEnd {
    pub mac: MacAddr,
    pub address: Ipv6Addr,
}

/// A neighbour solicitation for `target` (RFC 4861 §4.3): to the station `to` alone if there is one, else to the target's
/// group. From the unspecified address it is a test for duplicates and says nothing of the sender (RFC 4862 §5.4.2).
pub(super) fn solicitation(from: NdEnd, target: Ipv6Addr, to: Option<MacAddr>) -> Box<[u8]> {
    let group = solicited_node(target);
    let destination =
        to.map_or(NdEnd { mac: multicast_mac(group), address: group }, |mac| NdEnd { mac, address: target });
    let lladdr = (!from.address.is_unspecified()).then(|| EthernetAddress(from.mac.0).into());
    discovery(from, destination, NdiscRepr::NeighborSolicit { target_addr: target, lladdr })
}

/// A neighbour advertisement for `from`, by the router that we are (RFC 4861 §4.4). Without a `to` it is for everyone on
/// the link, and unsolicited.
pub(super) fn advertisement(from: NdEnd, to: Option<NdEnd>) -> Box<[u8]> {
    advertise(from, from.address, to, NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE)
}

/// The same by `from` for `target`, which is not its own: it replaces nobody's (RFC 4861 §7.2.4).
pub(super) fn proxy_advertisement(from: NdEnd, target: Ipv6Addr, to: Option<NdEnd>) -> Box<[u8]> {
    advertise(from, target, to, NdiscNeighborFlags::ROUTER)
}

fn advertise(from: NdEnd, target: Ipv6Addr, to: Option<NdEnd>, mut flags: NdiscNeighborFlags) -> Box<[u8]> {
    flags.set(NdiscNeighborFlags::SOLICITED, to.is_some());
    let destination = to.unwrap_or(NdEnd { mac: multicast_mac(ALL_NODES), address: ALL_NODES });
    let lladdr = Some(EthernetAddress(from.mac.0).into());
    discovery(from, destination, NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr })
}

fn discovery(from: NdEnd, to: NdEnd, message: NdiscRepr<'_>) -> Box<[u8]> {
    let message = Icmpv6Repr::Ndisc(message);
    let header = Ipv6Repr {
        src_addr: from.address,
        dst_addr: to.address,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: ND_HOP_LIMIT,
    };
    frame(from.mac, to.mac, EthernetProtocol::Ipv6, IPV6 + message.buffer_len(), |payload| {
        let mut packet = Ipv6Packet::new_unchecked(payload);
        header.emit(&mut packet);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&from.address, &to.address, &mut icmp, &ChecksumCapabilities::default());
    })
}

/// What a reply takes over from the packet that it answers, or chooses anew, in its IPv4 header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ipv4Options {
    /// Type of service (RFC 1812 §4.3.2.5: that of the request), without the congestion bits.
    pub dscp: u8,
    pub dont_fragment: bool,
    pub identification: u16,
}

/// The packets that the host sends in answer to one packet: from where it was sent to, to where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// By IPv4.
    V4 { from: Ipv4Addr, to: Ipv4Addr, options: Ipv4Options },
    /// By IPv6.
    V6 { from: Ipv6Addr, to: Ipv6Addr },
}

impl Answer {
    /// From where, to where.
    pub fn addresses(self) -> (IpAddr, IpAddr) {
        match self {
            Answer::V4 { from, to, .. } => (from.into(), to.into()),
            Answer::V6 { from, to } => (from.into(), to.into()),
        }
    }

    /// The echo reply to an ICMP echo request: its identifier, sequence number and data, untouched (RFC 792, RFC 4443 §4.2).
    pub fn echo_reply(self, request: &[u8]) -> Box<[u8]> {
        let mut message = request.to_vec();
        match self {
            Answer::V4 { .. } => {
                let mut icmp = Icmpv4Packet::new_unchecked(&mut message);
                icmp.set_msg_type(Icmpv4Message::EchoReply);
                icmp.fill_checksum();
            }
            Answer::V6 { from, to } => {
                let mut icmp = Icmpv6Packet::new_unchecked(&mut message);
                icmp.set_msg_type(Icmpv6Message::EchoReply);
                icmp.fill_checksum(&from, &to);
            }
        }
        self.packet(IpProtocol::Icmp, IpProtocol::Icmpv6, &message)
    }

    /// The ICMP port unreachable error about `original`, an IP packet, of which it quotes as much as it may (RFC 1812
    /// §4.3.2.3, RFC 4443 §3.1).
    pub fn port_unreachable(self, original: &[u8]) -> Box<[u8]> {
        let room = match self {
            Answer::V4 { .. } => ERROR_MAX4 - IPV4 - ICMP_ERROR,
            Answer::V6 { .. } => ERROR_MAX6 - IPV6 - ICMP_ERROR,
        };
        let quote = &original[..original.len().min(room)];
        let mut message = [&[0; ICMP_ERROR], quote].concat();
        match self {
            Answer::V4 { .. } => {
                let mut icmp = Icmpv4Packet::new_unchecked(&mut message);
                icmp.set_msg_type(Icmpv4Message::DstUnreachable);
                icmp.set_msg_code(Icmpv4DstUnreachable::PortUnreachable.into());
                icmp.fill_checksum();
            }
            Answer::V6 { from, to } => {
                let mut icmp = Icmpv6Packet::new_unchecked(&mut message);
                icmp.set_msg_type(Icmpv6Message::DstUnreachable);
                icmp.set_msg_code(Icmpv6DstUnreachable::PortUnreachable.into());
                icmp.fill_checksum(&from, &to);
            }
        }
        self.packet(IpProtocol::Icmp, IpProtocol::Icmpv6, &message)
    }

    /// The reset that a segment gets which belongs to no connection (RFC 9293 §3.10.7.1). The segment is not itself one.
    pub fn reset(self, segment: &TcpPacket<&[u8]>) -> Box<[u8]> {
        let mut bytes = [0; TCP];
        let mut tcp = TcpPacket::new_unchecked(&mut bytes);
        tcp.set_src_port(segment.dst_port());
        tcp.set_dst_port(segment.src_port());
        tcp.clear_flags();
        tcp.set_header_len(20);
        tcp.set_rst(true);
        if segment.ack() {
            tcp.set_seq_number(segment.ack_number());
        } else {
            tcp.set_seq_number(TcpSeqNumber(0));
            tcp.set_ack(true);
            tcp.set_ack_number(segment.seq_number() + segment.segment_len());
        }
        let (from, to) = self.addresses();
        tcp.fill_checksum(&from.into(), &to.into());
        self.packet(IpProtocol::Tcp, IpProtocol::Tcp, &bytes)
    }

    /// The IP packet around `payload`, whose protocol is `v4` or `v6`.
    fn packet(self, v4: IpProtocol, v6: IpProtocol, payload: &[u8]) -> Box<[u8]> {
        let payload_len = payload.len();
        let mut bytes;
        match self {
            Answer::V4 { from, to, options } => {
                bytes = [&[0; IPV4], payload].concat();
                let mut packet = Ipv4Packet::new_unchecked(&mut *bytes);
                Ipv4Repr { src_addr: from, dst_addr: to, next_header: v4, payload_len, hop_limit: TTL }
                    .emit(&mut packet, &ChecksumCapabilities::ignored());
                packet.set_dscp(options.dscp);
                packet.set_dont_frag(options.dont_fragment);
                packet.set_ident(options.identification);
                packet.fill_checksum();
            }
            Answer::V6 { from, to } => {
                bytes = [&[0; IPV6], payload].concat();
                Ipv6Repr { src_addr: from, dst_addr: to, next_header: v6, payload_len, hop_limit: TTL }
                    .emit(&mut Ipv6Packet::new_unchecked(&mut *bytes));
            }
        }
        bytes.into_boxed_slice()
    }
}
