//! An IPv6 packet: its prefixes are exchanged where a rule says so, or it crosses to IPv4; or it is routed.

use std::net::Ipv6Addr;

use super::{Arrival, Engine, Verdict, is_for_many};
use crate::counters::Drop;
use crate::packet::Packet;
use crate::packet::parse::{self, View6};
use crate::plan::Target;

/// The ICMPv6 type (RFC 4861 §4.3).
const NEIGHBOUR_SOLICITATION: u8 = 135;

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
        if view.destination == interface.mac.link_local().to_bits() {
            return Verdict::Punt;
        }
        if let Some(Target::Local(_)) = target {
            // Where the gateway's own addresses are mapped too, one may mean a host inside.
            return self.exchange6(at, view, target).unwrap_or(Verdict::Punt);
        }
        // Asked whether we still stand for an address of the link's (RFC 4861 §7.3.3); further than the link it does not go.
        if icmp
            && view.hop_limit == u8::MAX
            && at.packet.data().get(view.l4) == Some(&NEIGHBOUR_SOLICITATION)
            && interface.addresses.iter().any(|own| own.contains(Ipv6Addr::from_bits(view.destination).into()))
        {
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
        // Addresses that stand for IPv4 ones are for a translator that has their prefix (RFC 4291 §2.5.5.2).
        let is_mapped = |address: u128| address >> 32 == 0xffff;
        let crosses = |target: Option<Target>| matches!(target, Some(Target::Cross(_)));
        if is_mapped(view.source) && !crosses(self.plan.target6(view.source)) {
            return Drop::BadSource.into();
        }
        if is_mapped(view.destination) && !crosses(target) {
            return Drop::BadDestination.into();
        }
        if let Some(verdict) = self.exchange6(at, view, target) {
            return verdict;
        }
        if let Some(verdict) = self.cross6(at, view, target) {
            return verdict;
        }
        let egress = match self.forward6(at, view, view.destination, target) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        at.packet.truncate(view.end);
        if let Some(hop_limit) = at.packet.data_mut().get_mut(view.l3 + 7) {
            *hop_limit -= 1;
        }
        self.clamp_mss6(at, view, egress.interface);
        self.counters.routed[1].add(1);
        Verdict::Transmit(egress)
    }
}
