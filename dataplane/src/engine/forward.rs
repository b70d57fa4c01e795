//! The way out: route, hop count, size, neighbour; then the rewriting, and the frame's new header.

use std::cmp::Ordering;

use super::{Arrival, Engine, Output, Verdict, endpoints4, endpoints6};
use crate::counters::{Drop, IcmpError};
use crate::message::FromWorker;
use crate::packet::Packet;
use crate::packet::checksum::Delta;
use crate::packet::parse::{self, Transport, View4, View6, ethertype, put16};
use crate::plan::{InterfaceId, InterfaceSpec, Target, ZoneId};
use crate::route::neighbour::{Adjacency, Lookup, Neighbour, Way};
use crate::session::{Direction, Tuple4};
use crate::translate::{mss, napt};

impl<P: Packet> Engine<P> {
    pub(super) fn zone(&self, interface: InterfaceId) -> ZoneId {
        self.plan.interface(interface).map_or(ZoneId(u8::MAX), |interface| interface.zone)
    }

    pub(super) fn egress_zone(&self, target: Option<Target>) -> Option<ZoneId> {
        self.plan.egress_zone(target?)
    }

    /// Whether no rule covers a packet from inside.
    pub(super) fn is_unruled(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> bool {
        self.egress_zone(target).is_none_or(|to| self.rule_for(zone, to, view).is_none())
    }

    /// The way of a packet toward `destination` (host order), which means `target`, with everything checked that can stop
    /// it.
    pub(super) fn forward4(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        destination: u32,
        target: Option<Target>,
    ) -> Result<Adjacency, Verdict> {
        if view.ttl <= 1 {
            return Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded4, 0))));
        }
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv4(interface, destination)));
        let Some(next_hop) = next_hop else {
            let error = match target {
                None | Some(Target::LinkDown(_)) => IcmpError::NetUnreachable4,
                Some(_) => IcmpError::HostUnreachable4,
            };
            let reason = if target == Some(Target::Former) { Drop::PrefixFormer } else { Drop::NoRoute };
            return Err(Verdict::Drop(reason, Some((error, 0))));
        };
        let mtu = self.plan.interface(next_hop.interface()).map_or(0, |interface| interface.mtu);
        if view.end - view.l3 > usize::from(mtu) {
            if view.dont_fragment {
                return Err(Verdict::Drop(Drop::TooBig, Some((IcmpError::FragmentationNeeded4, mtu))));
            }
            if !self.cutting {
                return Err(Verdict::Cut);
            }
        }
        self.resolve(&next_hop, at.out)
    }

    /// The same for IPv6, where nothing is cut up.
    pub(super) fn forward6(
        &mut self,
        at: &mut Arrival<P>,
        view: &View6,
        destination: u128,
        target: Option<Target>,
    ) -> Result<Adjacency, Verdict> {
        if view.hop_limit <= 1 {
            return Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded6, 0))));
        }
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv6(interface, destination)));
        let Some(next_hop) = next_hop else {
            let reason = if target == Some(Target::Former) { Drop::PrefixFormer } else { Drop::NoRoute };
            return Err(Verdict::Drop(reason, Some((IcmpError::NoRoute6, 0))));
        };
        let mtu = self.plan.interface(next_hop.interface()).map_or(0, |interface| interface.mtu);
        if view.end - view.l3 > usize::from(mtu) {
            return Err(Verdict::Drop(Drop::TooBig, Some((IcmpError::PacketTooBig6, mtu))));
        }
        self.resolve(&next_hop, at.out)
    }

    /// The neighbour's address, or the packet waits for it. Its hop is noted.
    pub(super) fn resolve(&mut self, neighbour: &Neighbour, out: &mut Output<P>) -> Result<Adjacency, Verdict> {
        let (adjacency, hop) = match self.neighbours.lookup(neighbour) {
            Lookup::Known(adjacency, hop) => (adjacency, hop),
            Lookup::Stale(adjacency, hop) => {
                let (interface, address) = (neighbour.interface(), neighbour.address());
                out.events.push_back(FromWorker::NeighbourUsed { interface, address });
                (adjacency, hop)
            }
            Lookup::Unknown => {
                self.sought = *neighbour;
                return Err(Verdict::Hold);
            }
        };
        self.hop = hop;
        if let Some(interface) = self.plan.interface(adjacency.interface) {
            let kind = if neighbour.is_ipv6() { ethertype::IPV6 } else { ethertype::IPV4 };
            self.neighbours.open(neighbour, hop, way(interface, adjacency, kind));
        }
        Ok(adjacency)
    }

    /// Untranslated.
    pub(super) fn route4(&mut self, at: &mut Arrival<P>, view: &View4, target: Option<Target>) -> Verdict {
        let egress = match self.forward4(at, view, view.destination, target) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        at.packet.truncate(view.end);
        napt::decrement_ttl(at.packet.data_mut(), view);
        self.clamp_mss4(at, view, egress.interface);
        self.counters.routed[0].add(1);
        Verdict::Transmit(egress)
    }

    /// Translated to the tuple `to`, with what that does to the checksums of IP header and transport.
    pub(super) fn translate(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        direction: Direction,
        to: &Tuple4,
        (addresses, transport): (Delta, Delta),
        egress: Adjacency,
    ) -> Verdict {
        at.packet.truncate(view.end);
        napt::rewrite(at.packet.data_mut(), view, to, addresses, transport);
        if !view.is_atomic() && direction == Direction::Outbound {
            self.identify(at.packet.data_mut(), view);
        }
        self.clamp_mss4(at, view, egress.interface);
        self.counters.nat44[direction as usize].add(1);
        self.tell_after(view, to);
        Verdict::Transmit(egress)
    }

    pub(super) fn tell_after(&mut self, view: &View4, to: &Tuple4) {
        if self.traces.is_some() {
            self.story.after = Some(endpoints4(view.protocol, to));
        }
    }

    pub(super) fn tell_after6(&mut self, view: &View6, (source, destination): (u128, u128)) {
        if self.traces.is_some() {
            self.story.after = Some(endpoints6(&View6 { source, destination, ..*view }));
        }
    }

    pub(super) fn clamp_mss4(&self, at: &mut Arrival<P>, view: &View4, egress: InterfaceId) {
        if let Transport::Tcp(_) = view.transport {
            self.clamp_mss(at, (view.l4, view.end), egress, 40);
        }
    }

    pub(super) fn clamp_mss6(&self, at: &mut Arrival<P>, view: &View6, egress: InterfaceId) {
        if let Transport::Tcp(_) = view.transport {
            self.clamp_mss(at, (view.l4, view.end), egress, 60);
        }
    }

    /// Clamps the segment between two offsets, behind so many bytes of headers on its way out.
    fn clamp_mss(&self, at: &mut Arrival<P>, (l4, end): (usize, usize), egress: InterfaceId, headers: u16) {
        if let Some(egress) = self.plan.interface(egress)
            && let Some(limit) = mss::limit(self.plan.interface(at.ingress), egress, (headers, headers))
            && let Some(tcp) = at.packet.data_mut().get_mut(l4..end)
        {
            mss::clamp(tcp, limit);
        }
    }

    /// Writes the link-layer header of a packet whose `old` bytes of it are still there.
    #[inline]
    pub(super) fn address_frame(&self, packet: &mut P, to: Adjacency, kind: u16, old: usize) -> bool {
        let Some(interface) = self.plan.interface(to.interface) else { return false };
        let new = header_len(interface);
        let fits = match new.cmp(&old) {
            Ordering::Equal => true,
            Ordering::Greater => packet.prepend(new - old),
            Ordering::Less => packet.trim_front(old - new),
        };
        let header = packet.data_mut();
        if !fits || header.len() < new {
            return false;
        }
        write_header(header, interface, to, kind);
        true
    }
}

/// What a packet needs to leave by an interface.
fn way(interface: &InterfaceSpec, to: Adjacency, kind: u16) -> Way {
    let mut way = Way { interface: to.interface, mtu: interface.mtu, ..Way::CLOSED };
    let len = header_len(interface);
    write_header(&mut way.header, interface, to, kind);
    way.len = u8::try_from(len).unwrap_or(0);
    way
}

/// The length of an interface's link-layer headers, in bytes.
fn header_len(interface: &InterfaceSpec) -> usize {
    parse::ETHERNET + parse::TAG * interface.tags().count()
}

/// Writes a link-layer header to the beginning of `header`, which has room for it.
fn write_header(header: &mut [u8], interface: &InterfaceSpec, to: Adjacency, kind: u16) {
    header[..6].copy_from_slice(&to.mac.0);
    header[6..12].copy_from_slice(&interface.mac.0);
    let mut at = 12;
    for (tag, vlan) in interface.tags() {
        put16(header, at, tag);
        put16(header, at + 2, vlan);
        at += parse::TAG;
    }
    put16(header, at, kind);
}
