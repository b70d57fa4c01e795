//! From IPv4 to IPv6 (RFC 7915 §4).

use super::header::{FRAGMENT, Header6, field6, has_room, reframe};
use super::quote::Error6;
use super::{Mtus, Refusal, Settings, UdpChecksumNone, cut, icmp, is_crafted, transport};
use crate::counters::{Drop, IcmpError};
use crate::packet::Packet;
use crate::packet::parse::{Fragment, IPV4, IPV6, Transport, View4, get16, protocol};
use crate::translate::eam::Role;

/// What an IPv4 packet will be in IPv6.
#[derive(Clone, Copy, Debug)]
pub struct To6 {
    /// Length of the IPv6 packet, if it is not cut: bytes from its header on.
    pub len: usize,
    /// The length that the sender is to be told of, in bytes of IPv4.
    total: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A whole TCP or UDP datagram with a checksum, behind a header without options.
    Plain { may_be_cut: bool },
    /// Any other packet that is not ICMP.
    Special { is_fragment: bool, may_be_cut: bool },
    /// An ICMP query, of this type in IPv6.
    Query { kind: u8, may_be_cut: bool },
    /// An ICMP error.
    Error(Error6),
}

/// How much longer the headers become at the most, if they are not an ICMP error's, in bytes.
const GROWTH: usize = IPV6 + FRAGMENT - IPV4;

/// What will become of an IPv4 packet. Nothing is changed.
///
/// `quoted` gives the IPv6 address of an IPv4 address (host order) inside of an ICMP error, by its role; it is asked for none
/// else, and first for the destination.
///
/// # Errors
/// It can't be translated.
#[inline(always)]
pub fn examine<P: Packet>(
    packet: &P,
    view: &View4,
    settings: &Settings,
    quoted: impl FnMut(Role, u32) -> Option<u128>,
) -> Result<To6, Refusal> {
    let has_checksum = match view.transport {
        Transport::Tcp(_) => true,
        Transport::Udp => get16(packet.data(), view.l4 + 6) != 0,
        _ => false,
    };
    let total = view.end - view.l3;
    if has_checksum && view.fragment == Fragment::Whole && view.l4 == view.l3 + IPV4 {
        if packet.headroom() < GROWTH {
            return Err(Drop::NoRoom.into());
        }
        return Ok(To6 { len: total + (IPV6 - IPV4), total, what: What::Plain { may_be_cut: !view.dont_fragment } });
    }
    examine_special(packet, view, settings, quoted)
}

#[inline(never)]
fn examine_special<P: Packet>(
    packet: &P,
    view: &View4,
    settings: &Settings,
    quoted: impl FnMut(Role, u32) -> Option<u128>,
) -> Result<To6, Refusal> {
    let prohibited = |reason| Refusal::answered(reason, IcmpError::Prohibited4, 0);
    let frame = packet.data();
    if has_source_route(frame.get(view.l3 + IPV4..view.l4).unwrap_or(&[])) {
        return Err(Refusal::answered(Drop::SourceRoute, IcmpError::SourceRouteFailed4, 0));
    }
    let is_fragment = view.fragment != Fragment::Whole;
    let payload = frame.get(view.l4..view.end).unwrap_or(&[]);
    let field = get16(frame, view.l3 + 6);
    if is_fragment && is_crafted(usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, payload.len()) {
        return Err(Drop::FragmentLength.into());
    }
    let may_be_cut = !view.dont_fragment;
    let what = match view.protocol {
        protocol::IGMP => return Err(Drop::IcmpUntranslatable.into()),
        protocol::ICMP if is_fragment => return Err(prohibited(Drop::FragmentIcmp)),
        protocol::ICMP => {
            let header = payload.first_chunk::<8>().ok_or(Drop::TransportShort)?;
            if let Some(kind) = icmp::query6(header[0]) {
                What::Query { kind, may_be_cut }
            } else {
                let error = Error6::examine(packet, view, header, quoted)?;
                let len = error.layout.len();
                return Ok(To6 { len, total: len - (IPV6 - IPV4), what: What::Error(error) });
            }
        }
        protocol::UDP if view.fragment != Fragment::Later && get16(payload, 6) == 0 => {
            match settings.udp_checksum_none {
                UdpChecksumNone::Drop => return Err(prohibited(Drop::UdpChecksumNone)),
                UdpChecksumNone::Compute if is_fragment => return Err(prohibited(Drop::UdpChecksumNone)),
                UdpChecksumNone::Compute | UdpChecksumNone::Forward => What::Special { is_fragment, may_be_cut },
            }
        }
        _ => What::Special { is_fragment, may_be_cut },
    };
    let header = IPV6 + if is_fragment { FRAGMENT } else { 0 };
    if !has_room(packet, view.l3, view.l4, IPV6 + FRAGMENT) {
        return Err(Drop::NoRoom.into());
    }
    Ok(To6 { len: header + payload.len(), total: view.end - view.l3, what })
}

/// Whether there is a source route with addresses left to go to (RFC 791 §3.1).
fn has_source_route(mut options: &[u8]) -> bool {
    loop {
        match *options {
            [131 | 137, len, pointer, ..] if len >= 3 && pointer <= len => return true,
            [] | [0, ..] => return false,
            [1, ..] => options = &options[1..],
            [_, len, ..] if len >= 2 => options = options.get(usize::from(len)..).unwrap_or(&[]),
            // Broken: where the next one would begin can't be told.
            _ => return false,
        }
    }
}

impl To6 {
    /// Whether the next link takes it, whose MTU is given in bytes: whole, or cut into packets of the length that is returned.
    ///
    /// # Errors
    /// It takes it not, and it may not be cut; or into too many.
    #[inline(always)]
    pub fn fit(&self, mtu: u16, settings: &Settings) -> Result<Option<u16>, Refusal> {
        let may_be_cut = match self.what {
            What::Plain { may_be_cut } | What::Special { may_be_cut, .. } | What::Query { may_be_cut, .. } => {
                may_be_cut
            }
            What::Error(_) => false,
        };
        if !may_be_cut {
            // What the sender can do about it is to send less than the MTU without the IPv6 header's surplus (§4.1).
            let fits = self.len.max(self.total + (IPV6 - IPV4)) <= usize::from(mtu);
            return if fits { Ok(None) } else { Err(self.too_big(mtu)) };
        }
        let most = mtu.min(settings.lowest_ipv6_mtu);
        if self.len <= usize::from(most) {
            return Ok(None);
        }
        self.fit_cut(most)
    }

    #[cold]
    fn too_big(&self, mtu: u16) -> Refusal {
        let is_fragment = matches!(self.what, What::Special { is_fragment: true, .. });
        let surplus = if is_fragment { GROWTH } else { IPV6 - IPV4 };
        #[allow(clippy::cast_possible_truncation)] // 28 at the most
        let mtu = mtu.saturating_sub(surplus as u16);
        Refusal::answered(Drop::TooBig, IcmpError::FragmentationNeeded4, mtu)
    }

    #[cold]
    fn fit_cut(&self, most: u16) -> Result<Option<u16>, Refusal> {
        let header = match self.what {
            What::Special { is_fragment: true, .. } => IPV6 + FRAGMENT,
            _ => IPV6,
        };
        match cut::pieces(self.len - header, most) {
            Some(_) => Ok(Some(most)),
            None => Err(Drop::FragmentationNeeded.into()),
        }
    }
}

/// Makes an IPv6 packet of the IPv4 packet that was examined, with one hop less, behind as many bytes as stood before it. Gives the
/// offset of what follows its headers in the frame. None, and no use to anyone, if it is not the packet that was examined.
///
/// It gets a fragment header if it is a fragment, or to be `cut` by [`cut::cut`] as [`To6::fit`] has said; of an atomic IPv4
/// packet's identification nothing is left else. Addresses are in host order.
#[inline(always)]
pub fn translate<P: Packet>(
    packet: &mut P,
    view: &View4,
    plan: &To6,
    (source, destination): (u128, u128),
    mtus: Mtus,
    settings: &Settings,
    cut: bool,
) -> Option<usize> {
    if !matches!(plan.what, What::Plain { .. }) || cut {
        return translate_special(packet, view, plan, (source, destination), mtus, settings, cut);
    }
    translate_plain(packet, view.l3, view.end, (view.source, view.destination), (source, destination), settings)
}

/// The same for a packet that is known to be plain: a whole TCP or UDP datagram with a checksum, behind a header without options at
/// `l3`; up to `end`; with 20 bytes of room in front. Its addresses are given as they are and as they will be.
#[inline(always)]
pub fn translate_plain<P: Packet>(
    packet: &mut P,
    l3: usize,
    end: usize,
    from: (u32, u32),
    to: (u128, u128),
    settings: &Settings,
) -> Option<usize> {
    packet.truncate(end);
    let ip = packet.data_mut().get_mut(l3..end)?;
    let (header, segment) = ip.split_first_chunk_mut::<IPV4>()?;
    let (class, protocol, ttl) = (class(header, settings), header[9], header[8]);
    transport::update(segment, protocol, transport::delta6(from, to));
    #[allow(clippy::cast_possible_truncation)] // the payload of an IPv4 packet
    let payload = segment.len() as u16;
    if !packet.prepend(IPV6 - IPV4) {
        return None;
    }
    let header = packet.data_mut().get_mut(l3..)?.first_chunk_mut()?;
    let (hop_limit, source, destination) = (ttl.saturating_sub(1), to.0, to.1);
    Header6 { class, payload, next_header: protocol, hop_limit, source, destination }.write(header);
    Some(l3 + IPV6)
}

#[inline(never)]
fn translate_special<P: Packet>(
    packet: &mut P,
    view: &View4,
    plan: &To6,
    addresses: (u128, u128),
    mtus: Mtus,
    settings: &Settings,
    cut: bool,
) -> Option<usize> {
    packet.truncate(view.end);
    let frame = packet.data_mut();
    let header = *frame.get(view.l3..)?.first_chunk::<IPV4>()?;
    let mut new = Header6 {
        class: class(&header, settings),
        payload: 0,
        next_header: view.protocol,
        hop_limit: view.ttl.saturating_sub(1),
        source: addresses.0,
        destination: addresses.1,
    };
    let delta = transport::delta6((view.source, view.destination), addresses);
    let payload = frame.get_mut(view.l4..view.end)?;
    let mut fragmented = cut;
    match &plan.what {
        What::Error(error) => return error.translate(packet, view, new, mtus, settings),
        What::Query { kind, .. } => {
            new.next_header = protocol::ICMPV6;
            let pseudo = transport::pseudo(payload.len(), addresses);
            transport::query(payload, *kind, transport::covered(pseudo));
        }
        What::Special { is_fragment, .. } if view.fragment != Fragment::Later => {
            fragmented |= is_fragment;
            if view.transport == Transport::Udp && get16(payload, 6) == 0 {
                if settings.udp_checksum_none == UdpChecksumNone::Compute {
                    transport::complete(payload, addresses);
                }
            } else {
                transport::update(payload, view.protocol, delta);
            }
        }
        What::Special { is_fragment, .. } => fragmented |= is_fragment,
        What::Plain { .. } => transport::update(payload, view.protocol, delta),
    }
    let surplus = if fragmented { FRAGMENT } else { 0 };
    new.payload = u16::try_from(surplus + payload.len()).ok()?;
    let field = field6(get16(&header, 6));
    let fragment = fragmented.then(|| (field, u32::from(get16(&header, 4))));
    if !reframe(packet, view.l3, view.l4, IPV6 + surplus) {
        return None;
    }
    new.write_before(fragment, packet.data_mut().get_mut(view.l3..)?);
    Some(view.l3 + IPV6 + surplus)
}

/// The traffic class of a packet with this IPv4 header.
#[inline(always)]
pub(super) fn class(header: &[u8; IPV4], settings: &Settings) -> u8 {
    if settings.copy_tos { header[1] } else { 0 }
}
