//! From IPv6 to IPv4 (RFC 7915 §5).

use super::chain::Chain;
use super::header::{Header4, field4, reframe};
use super::quote::Error4;
use super::{IPV6_MTU_MIN, Mtus, Refusal, Settings, icmp, is_crafted, transport};
use crate::counters::{Drop, IcmpError};
use crate::packet::Packet;
use crate::packet::parse::{IPV4, IPV6, Transport, View6, protocol};
use crate::translate::eam::Role;

/// What an IPv6 packet will be in IPv4.
#[derive(Clone, Copy, Debug)]
pub struct To4 {
    /// Length of the IPv4 packet, if it is not cut: bytes from its header on.
    pub len: usize,
    /// Length of the IPv6 packet, in bytes.
    total: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A whole TCP or UDP datagram, behind a header without extensions.
    Plain,
    /// Any other packet that is not ICMPv6.
    Special(Chain),
    /// An ICMPv6 query, of this type in IPv4.
    Query(Chain, u8),
    /// An ICMPv6 error.
    Error(Chain, Error4),
}

/// What will become of an IPv6 packet. Nothing is changed.
///
/// `quoted` gives the IPv4 address (host order) of an IPv6 address inside of an ICMP error, by its role; it is asked for none
/// else, and first for the destination.
///
/// # Errors
/// It can't be translated.
#[inline(always)]
pub fn examine<P: Packet>(
    packet: &P,
    view: &View6,
    quoted: impl FnMut(Role, u128) -> Option<u32>,
) -> Result<To4, Refusal> {
    let total = view.end - view.l3;
    let is_plain = matches!(view.transport, Transport::Tcp(_) | Transport::Udp) && view.l4 == view.l3 + IPV6;
    if is_plain && total <= usize::from(u16::MAX) + IPV6 - IPV4 {
        return Ok(To4 { len: total - (IPV6 - IPV4), total, what: What::Plain });
    }
    examine_special(packet, view, quoted)
}

#[inline(never)]
fn examine_special<P: Packet>(
    packet: &P,
    view: &View6,
    quoted: impl FnMut(Role, u128) -> Option<u32>,
) -> Result<To4, Refusal> {
    let prohibited = |reason| Refusal::answered(reason, IcmpError::Prohibited6, 0);
    let frame = packet.data();
    let chain = match Chain::read(frame, view.l3, view.end) {
        Ok(chain) => chain,
        // No error about any ICMPv6 message (§5.4).
        Err(reason @ Drop::FragmentExtension) if view.protocol != protocol::ICMPV6 => return Err(prohibited(reason)),
        Err(reason) => return Err(reason.into()),
    };
    let is_icmp = chain.protocol == protocol::ICMPV6;
    if let Some(at) = chain.segments_left {
        let pointer = u16::try_from(at - view.l3).ok().filter(|_| !is_icmp);
        let error = pointer.map(|pointer| (IcmpError::ParameterProblem6, pointer));
        return Err(Refusal { reason: Drop::RoutingHeader, error });
    }
    let payload = frame.get(chain.end..view.end).ok_or(Drop::TransportShort)?;
    if let Some((field, _)) = chain.fragment.filter(|_| chain.is_part())
        && is_crafted(usize::from(field & 0xfff8), field & 1 != 0, payload.len())
    {
        return Err(Drop::FragmentLength.into());
    }
    let (len, total) = (IPV4 + payload.len(), view.end - view.l3);
    if len > usize::from(u16::MAX) {
        return Err(Drop::NoRoom.into());
    }
    if !is_icmp {
        return Ok(To4 { len, total, what: What::Special(chain) });
    }
    if chain.is_part() {
        return Err(Drop::FragmentIcmp.into());
    }
    let header = payload.first_chunk::<8>().ok_or(Drop::TransportShort)?;
    if let Some(kind) = icmp::query4(header[0]) {
        return Ok(To4 { len, total, what: What::Query(chain, kind) });
    }
    if !icmp::is_error6(header[0]) {
        return Err(Drop::IcmpUntranslatable.into());
    }
    let error = Error4::examine(packet, view, chain.end, header, quoted)?;
    let len = error.layout.len();
    Ok(To4 { len, total: len + (IPV6 - IPV4), what: What::Error(chain, error) })
}

impl To4 {
    /// Lets an ICMP error tell its source, if there is room: for an error whose source has no IPv4 address of its own (RFC 6791
    /// §4).
    pub fn tell_source<P: Packet>(&mut self, packet: &P, view: &View6) {
        if let What::Error(_, error) = &mut self.what {
            error.tell_source(packet, view);
            self.len = error.layout.len();
            self.total = self.len + (IPV6 - IPV4);
        }
    }

    /// Whether the next link takes it, whose MTU is given in bytes: whole, or cut into packets of the length that is returned, by
    /// [`crate::fragment::cut`].
    ///
    /// # Errors
    /// It takes it not, and its sender can send less: it was longer than every IPv6 link takes.
    #[inline(always)]
    pub fn fit(&self, mtu: u16) -> Result<Option<u16>, Refusal> {
        if self.len <= usize::from(mtu) {
            return Ok(None);
        }
        if self.total <= usize::from(IPV6_MTU_MIN) {
            return Ok(Some(mtu));
        }
        let value = mtu.saturating_add(20).max(IPV6_MTU_MIN);
        Err(Refusal::answered(Drop::TooBig, IcmpError::PacketTooBig6, value))
    }
}

/// Makes an IPv4 packet of the IPv6 packet that was examined, with one hop less, behind as many bytes as stood before it. Gives the
/// offset of what follows its header in the frame. None, and no use to anyone, if it is not the packet that was examined.
///
/// `identification` is for a packet that has no fragment header with one. Addresses are in host order.
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &mut P,
    view: &View6,
    plan: &To4,
    (source, destination): (u32, u32),
    identification: u16,
    mtus: Mtus,
    settings: &Settings,
) -> Option<usize> {
    if !matches!(plan.what, What::Plain) {
        return translate_special(packet, view, plan, (source, destination), identification, mtus, settings);
    }
    let (from, to) = ((view.source, view.destination), (source, destination));
    translate_plain(packet, view.l3, view.end, from, to, identification, settings)
}

/// The same for a packet that is known to be plain: a whole TCP or UDP datagram behind a header without extensions at `l3`; up to
/// `end`, not more than 65535 bytes long in IPv4. Its addresses are given as they are and as they will be.
#[inline(always)]
pub fn translate_plain<P: Packet>(
    packet: &mut P,
    l3: usize,
    end: usize,
    from: (u128, u128),
    to: (u32, u32),
    identification: u16,
    settings: &Settings,
) -> Option<usize> {
    packet.truncate(end);
    let ip = packet.data_mut().get_mut(l3..end)?;
    let (header, segment) = ip.split_first_chunk_mut::<IPV6>()?;
    let (tos, protocol, hop_limit) = (tos(header, settings), header[6], header[7]);
    transport::update(segment, protocol, transport::delta4(from, to));
    #[allow(clippy::cast_possible_truncation)] // it fits, see above
    let total = (IPV4 + segment.len()) as u16;
    if !packet.trim_front(IPV6 - IPV4) {
        return None;
    }
    let header = packet.data_mut().get_mut(l3..)?.first_chunk_mut()?;
    let (ttl, field, source, destination) = (hop_limit.saturating_sub(1), dont_fragment(total), to.0, to.1);
    Header4 { tos, total, identification, field, ttl, protocol, source, destination }.write(header);
    Some(l3 + IPV4)
}

#[inline(never)]
fn translate_special<P: Packet>(
    packet: &mut P,
    view: &View6,
    plan: &To4,
    (source, destination): (u32, u32),
    identification: u16,
    mtus: Mtus,
    settings: &Settings,
) -> Option<usize> {
    packet.truncate(view.end);
    let frame = packet.data_mut();
    let chain = match &plan.what {
        What::Special(chain) | What::Query(chain, _) | What::Error(chain, _) => *chain,
        What::Plain => Chain::read(frame, view.l3, view.end).ok()?,
    };
    let total = u16::try_from(plan.len).ok()?;
    let (identification, field) = fragmentation(&chain, total, identification);
    let mut new = Header4 {
        tos: tos(frame.get(view.l3..)?.first_chunk()?, settings),
        total,
        identification,
        field,
        ttl: view.hop_limit.saturating_sub(1),
        protocol: chain.protocol,
        source,
        destination,
    };
    let payload = frame.get_mut(chain.end..view.end)?;
    match &plan.what {
        What::Error(_, error) => return error.translate(packet, view, new, mtus, settings),
        What::Query(_, kind) => {
            new.protocol = protocol::ICMP;
            let pseudo = transport::pseudo(payload.len(), (view.source, view.destination));
            transport::query(payload, *kind, transport::covered(pseudo).inverse());
        }
        What::Special(_) | What::Plain if !chain.is_later() => {
            let delta = transport::delta4((view.source, view.destination), (source, destination));
            transport::update(payload, chain.protocol, delta);
        }
        What::Special(_) | What::Plain => {}
    }
    if !reframe(packet, view.l3, chain.end, IPV4) {
        return None;
    }
    new.write_to(packet.data_mut().get_mut(view.l3..)?);
    Some(view.l3 + IPV4)
}

/// The type of service of a packet with this IPv6 header.
#[inline(always)]
pub(super) fn tos(header: &[u8; IPV6], settings: &Settings) -> u8 {
    settings.tos.unwrap_or(header[0] << 4 | header[1] >> 4)
}

/// The identification, and the flags and offset, of an IPv4 packet of this length; without a fragment header the given
/// identification.
pub(super) fn fragmentation(chain: &Chain, total: u16, identification: u16) -> (u16, u16) {
    match chain.fragment {
        #[allow(clippy::cast_possible_truncation)] // the lower half (§5.1.1)
        Some((field, identification)) => (identification as u16, field4(field)),
        None => (identification, dont_fragment(total)),
    }
}

/// The flags of an IPv4 packet of this length. A short one may be cut up: its sender can't be told to send less than 1280 bytes
/// (§5.1).
#[inline(always)]
const fn dont_fragment(total: u16) -> u16 {
    if total <= 1260 { 0 } else { 0x4000 }
}
