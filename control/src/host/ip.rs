//! IP packets to the gateway itself: pings, and what nobody listens to.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dataplane::message::ToWorker;
use dataplane::time::Time;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

use super::ndp::Envelope;
use super::wire::{self, Answer, Ipv4Options};
use super::{ANSWERS_AT_ONCE, ANSWERS_PER_SECOND, Came, Host, Ignored, is_bad_source4, is_bad_source6};

impl Host {
    pub(super) fn receive_ipv4(
        &mut self,
        came: Came,
        payload: &[u8],
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let packet = Ipv4Packet::new_checked(payload).map_err(|_| Ignored::Malformed)?;
        if packet.version() != 4 || packet.header_len() < 20 {
            return Err(Ignored::Malformed);
        }
        if !packet.verify_checksum() {
            return Err(Ignored::Checksum);
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let link = &self.links[came.index];
        if is_bad_source4(source) || self.owns(source.into()) || self.links.iter().any(|l| l.is_broadcast(source)) {
            return Err(Ignored::BadSource);
        }
        let owned = self.owns(destination.into());
        if !owned && !self.echoes(destination) {
            return Err(Ignored::NotOurs);
        }
        if came.to != link.mac {
            return Err(Ignored::OtherStation);
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            return Err(Ignored::Fragment);
        }
        if usize::from(packet.total_len()) > link.mtu {
            return Err(Ignored::TooBig);
        }
        let options = Ipv4Options {
            dscp: packet.dscp(),
            dont_fragment: packet.dont_frag(),
            identification: (self.random.next() & 0xffff) as u16,
        };
        let answer = Answer::V4 { from: destination, to: source, options };
        match packet.next_header() {
            IpProtocol::Icmp => {
                let icmp = Icmpv4Packet::new_checked(packet.payload()).map_err(|_| Ignored::Malformed)?;
                if !icmp.verify_checksum() {
                    return Err(Ignored::Checksum);
                }
                if icmp.msg_type() != Icmpv4Message::EchoRequest || icmp.msg_code() != 0 {
                    return Err(Ignored::Unsupported);
                }
                out.push(ToWorker::Packet { packet: answer.echo_reply(packet.payload()) });
                Ok(())
            }
            _ if !owned => Err(Ignored::NotOurs),
            protocol => {
                let original = &payload[..usize::from(packet.total_len())];
                let packet = self.refuse(came, protocol, original, packet.payload(), answer, now)?;
                out.push(ToWorker::Packet { packet });
                Ok(())
            }
        }
    }

    pub(super) fn receive_ipv6(
        &mut self,
        came: Came,
        payload: &[u8],
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let packet = Ipv6Packet::new_checked(payload).map_err(|_| Ignored::Malformed)?;
        if packet.version() != 6 {
            return Err(Ignored::Malformed);
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let protocol = packet.next_header();
        if protocol == IpProtocol::Icmpv6 {
            let icmp = Icmpv6Packet::new_checked(packet.payload()).map_err(|_| Ignored::Malformed)?;
            if !icmp.verify_checksum(&source, &destination) {
                return Err(Ignored::Checksum);
            }
            if icmp.msg_type().is_ndisc() {
                let envelope = Envelope { came, source, destination, hop_limit: packet.hop_limit() };
                return self.receive_discovery(envelope, &icmp, now, out);
            }
        }
        let link = &self.links[came.index];
        if is_bad_source6(source) || self.owns(source.into()) || link.owns(source.into()) {
            return Err(Ignored::BadSource);
        }
        // A ping to everyone is answered from the link-local address, on the link alone (RFC 4443 §4.2).
        let to_group = matches!(destination, wire::ALL_NODES | wire::ALL_ROUTERS);
        let from = if to_group {
            if protocol != IpProtocol::Icmpv6 || !source.is_unicast_link_local() {
                return Err(Ignored::NotOurs);
            }
            link.link_local().ok_or(Ignored::NotOurs)?
        } else {
            if !self.owns(destination.into()) && !link.owns(destination.into()) {
                return Err(Ignored::NotOurs);
            }
            if came.to != link.mac {
                return Err(Ignored::OtherStation);
            }
            destination
        };
        if packet.total_len() > link.mtu {
            return Err(Ignored::TooBig);
        }
        let answer = Answer::V6 { from, to: source };
        let reply = match protocol {
            IpProtocol::Icmpv6 => {
                let icmp = Icmpv6Packet::new_checked(packet.payload()).map_err(|_| Ignored::Malformed)?;
                if icmp.msg_type() != Icmpv6Message::EchoRequest || icmp.msg_code() != 0 {
                    return Err(Ignored::Unsupported);
                }
                answer.echo_reply(packet.payload())
            }
            IpProtocol::Ipv6Frag => return Err(Ignored::Fragment),
            _ => self.refuse(came, protocol, &payload[..packet.total_len()], packet.payload(), answer, now)?,
        };
        let link = &self.links[came.index];
        out.push(if from.is_unicast_link_local() || source.is_unicast_link_local() {
            // These addresses mean something on this link only, and say nothing of it to a routing table.
            ToWorker::Frame { interface: link.id, frame: wire::framed(link.mac, came.from, &reply) }
        } else {
            ToWorker::Packet { packet: reply }
        });
        Ok(())
    }

    /// What a packet gets that is for one of our addresses, on which nobody listens: `original` is the whole packet,
    /// `payload` what its IP header carries.
    fn refuse(
        &mut self,
        came: Came,
        protocol: IpProtocol,
        original: &[u8],
        payload: &[u8],
        answer: Answer,
        now: Time,
    ) -> Result<Box<[u8]>, Ignored> {
        let (destination, source) = answer.addresses();
        match protocol {
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(payload).map_err(|_| Ignored::Malformed)?;
                // RFC 8200 §8.1: by IPv6 a checksum there must be.
                let missing = udp.checksum() == 0 && source.is_ipv6();
                if missing || !udp.verify_checksum(&source.into(), &destination.into()) {
                    return Err(Ignored::Checksum);
                }
                if self.plan.spec.icmp.silent.contains(&self.links[came.index].id) {
                    return Err(Ignored::Silent);
                }
                self.may_answer(now)?;
                Ok(answer.port_unreachable(original))
            }
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(payload).map_err(|_| Ignored::Malformed)?;
                if !tcp.verify_checksum(&source.into(), &destination.into()) {
                    return Err(Ignored::Checksum);
                }
                if tcp.rst() {
                    return Err(Ignored::Unsupported);
                }
                self.may_answer(now)?;
                Ok(answer.reset(&tcp))
            }
            _ => Err(Ignored::Unsupported),
        }
    }

    /// Takes one error or reset out of the bucket.
    fn may_answer(&mut self, now: Time) -> Result<(), Ignored> {
        let each = Duration::from_secs(1) / ANSWERS_PER_SECOND;
        let full = self.bucket_full.max(now);
        if full.since(now) > each * (ANSWERS_AT_ONCE - 1) {
            return Err(Ignored::RateLimited);
        }
        self.bucket_full = full + each;
        Ok(())
    }

    /// Whether this is a usable address of any interface; link-local ones aside, which are of one link.
    fn owns(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Whether pings of this external address are answered.
    fn echoes(&self, address: Ipv4Addr) -> bool {
        let mut pools = self.plan.spec.pools.iter().filter(|pool| pool.answer_echo);
        pools.any(|pool| pool.addresses.iter().any(|range| range.contains(&address)))
    }
}
