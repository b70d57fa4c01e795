//! An IPv6 packet: routed.

use super::{Arrival, Engine, Verdict, is_for_many};
use crate::counters::{Drop, IcmpError};
use crate::packet::Packet;
use crate::packet::parse::{self, Transport, View6};
use crate::plan::Target;
use crate::route::neighbour::Neighbour;
use crate::translate::mss;

impl<P: Packet> Engine<P> {
    pub(super) fn ipv6(&mut self, at: &mut Arrival<P>, view: &View6) -> Verdict {
        const LINK_LOCAL: u128 = 0xfe80 << 112;
        let is_link_local = |address: u128| address >> 118 == LINK_LOCAL >> 118;
        let icmp = view.protocol == parse::protocol::ICMPV6;
        let Some(interface) = self.plan.interface(at.ingress) else { return Drop::UnknownVlan.into() };
        if view.source >> 120 == 0xff || view.source == 1 {
            return Drop::BadSource.into();
        }
        if view.destination >> 120 == 0xff {
            return match (view.destination >> 112) & 0xf {
                // Reserved, and of one interface alone: on no link (RFC 4291 §2.7).
                0 | 1 => Drop::BadDestination.into(),
                // The link's own business.
                2 if icmp => Verdict::Punt,
                _ => Drop::Multicast.into(),
            };
        }
        if is_for_many(at.packet) {
            return Drop::LinkBroadcast.into();
        }
        let target = self.plan.target6(view.destination);
        let own = matches!(target, Some(Target::Local(_))) || view.destination == interface.mac.link_local().to_bits();
        if own {
            return Verdict::Punt;
        }
        if is_link_local(view.destination) || is_link_local(view.source) {
            return Drop::LinkLocal.into();
        }
        if view.source == 0 {
            return Drop::BadSource.into();
        }
        if view.destination <= 1 {
            return Drop::BadDestination.into();
        }
        if view.hop_limit <= 1 {
            return Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded6, 0)));
        }
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv6(interface, view.destination)));
        let Some(next_hop) = next_hop else {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NoRoute6, 0)));
        };
        let egress_id = next_hop.interface();
        let Some(egress) = self.plan.interface(egress_id) else { return Drop::NoRoute.into() };
        if view.end - view.l3 > usize::from(egress.mtu) {
            return Verdict::Drop(Drop::TooBig, Some((IcmpError::PacketTooBig6, egress.mtu)));
        }
        let clamp = mss::limit(self.plan.interface(at.ingress), egress, 60);
        let adjacency = match self.resolve(&next_hop, at.out) {
            Ok(adjacency) => adjacency,
            Err(verdict) => return verdict,
        };
        at.packet.truncate(view.end);
        let frame = at.packet.data_mut();
        if let Some(hop_limit) = frame.get_mut(view.l3 + 7) {
            *hop_limit -= 1;
        }
        if let Transport::Tcp(_) = view.transport
            && let Some(limit) = clamp
            && let Some(tcp) = frame.get_mut(view.l4..view.end)
        {
            mss::clamp(tcp, limit);
        }
        self.counters.routed[1].add(1);
        Verdict::Transmit(adjacency)
    }
}
