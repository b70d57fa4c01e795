//! Reading a frame, and naming the session that its packet may have.

use super::{Engine, Flow, Prepared, Read};
use crate::counters::Drop;
use crate::packet::Packet;
use crate::packet::parse::{self, Fragment, Transport, View4, ethertype};
use crate::plan::{PortId, Target, ZoneId};
use crate::pool::{Owner, Proto};
use crate::session::{Direction, Tuple4};
use crate::steer::{ShardId, ShardSet, shard_of4};
use crate::translate::icmp;

impl<P: Packet> Engine<P> {
    /// Reads a packet into `prepared`, whatever is in it.
    pub(super) fn prepare(&self, port: PortId, packet: &P, prepared: &mut Prepared) {
        (prepared.interface, prepared.target, prepared.flow, prepared.quoted) = (None, None, None, None);
        if packet.is_merged() || !packet.is_contiguous() {
            prepared.read = Err(not_as_on_a_wire(packet));
            return;
        }
        let frame = packet.data();
        let link = match parse::link(frame) {
            Ok(link) => link,
            Err(reason) => {
                prepared.read = Err(reason);
                return;
            }
        };
        prepared.interface = self.plan.ingress(port, link.outer_vlan, link.vlan);
        let Some(interface) = prepared.interface.and_then(|id| self.plan.interface(id)) else {
            prepared.read = Err(Drop::UnknownVlan);
            return;
        };
        if frame[0] & 1 == 0 && frame[..6] != interface.mac.0 {
            prepared.read = Err(Drop::OtherStation);
            return;
        }
        match link.ethertype {
            ethertype::IPV4 => match parse::ipv4(frame, link.len) {
                Ok(view) => {
                    prepared.read = Ok(Read::Four(view));
                    prepared.target = self.plan.target4(view.destination);
                    prepared.flow = self.flow(interface.zone, &view, prepared.target);
                    if view.transport == Transport::IcmpError
                        && view.fragment == Fragment::Whole
                        && self.owned != ShardSet::ALL
                    {
                        prepared.quoted = self.quoted_owner(interface.zone, frame, &view, prepared.target);
                    }
                }
                Err(reason) => prepared.read = Err(reason),
            },
            ethertype::IPV6 => match parse::ipv6(frame, link.len) {
                Ok(view) => prepared.read = Ok(Read::Six(view)),
                Err(reason) => prepared.read = Err(reason),
            },
            ethertype::ARP => prepared.read = Ok(Read::Arp),
            other => prepared.read = Err(not_ip(other)),
        }
    }

    /// The session look-up of a packet: whose shard, which side, by what (design rule 3).
    #[inline(always)]
    pub(super) fn flow(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> Option<Flow> {
        if view.fragment == Fragment::Whole { self.flow_of(zone, view, target) } else { None }
    }

    /// The same of a packet that may be a fragment to which its ports are lent.
    #[inline(always)]
    pub(super) fn flow_of(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> Option<Flow> {
        let query = matches!(view.transport, Transport::Tcp(_) | Transport::Udp | Transport::IcmpQuery(_));
        let proto = Proto::from_ip(view.protocol).filter(|_| query)?;
        let packet = tuple_of(view);
        let (shard, direction, tuple) = match target.and_then(|target| target.external_id(view.destination)) {
            Some(id) => (self.owner(id, proto, packet.destination_port)?, Direction::Inbound, packet.reversed()),
            None if self.plan.policy.is_inside(zone) => (shard_of4(packet.source), Direction::Outbound, packet),
            None => return None,
        };
        let hash = self.secret.flow_hash(tuple.key(direction), proto);
        Some(Flow { shard, direction, tuple, proto, hash })
    }

    /// The shard that owns an external endpoint, if any flow can exist there.
    pub(super) fn owner(&self, external: u32, proto: Proto, port: u16) -> Option<ShardId> {
        match self.leases.owner(external, port) {
            Owner::Shard(shard) => Some(shard),
            Owner::Free => None,
            Owner::Static => {
                let entry = self.plan.externals.get(external as usize)?;
                let found = self.plan.policy.static_in(entry.address, entry.static_nat, proto, port);
                found.map(|entry| shard_of4(entry.inside))
            }
        }
    }

    /// The shard of the flow that an ICMP error quotes: where `errors` will look for its session. Checksums are left to that.
    pub(super) fn quoted_owner(
        &self,
        zone: ZoneId,
        frame: &[u8],
        view: &View4,
        target: Option<Target>,
    ) -> Option<ShardId> {
        let quote = icmp::read_quote(frame, view).ok()?;
        match target.and_then(|target| target.external_id(view.destination)) {
            Some(id) if !self.is_from_inside(zone, view.destination) => {
                self.owner(id, quote.proto, quote.tuple.source_port)
            }
            // The quoted packet is one that was delivered to the inside host.
            _ => self.plan.policy.is_inside(zone).then(|| shard_of4(quote.tuple.destination)),
        }
    }
}

/// Why a frame that is no link's, or not in one buffer, is dropped. A sender's own segments are the likelier cause of both.
#[cold]
fn not_as_on_a_wire<P: Packet>(packet: &P) -> Drop {
    if packet.is_merged() { Drop::Unsegmented } else { Drop::MultiSegment }
}

/// Why a frame of another type is dropped.
#[cold]
fn not_ip(kind: u16) -> Drop {
    match kind {
        0..ethertype::MIN => Drop::LengthFrame,
        ethertype::LLDP | ethertype::SLOW | ethertype::MAC_CONTROL | ethertype::EAPOL => Drop::LinkControl,
        _ if ethertype::MPLS.contains(&kind) => Drop::Mpls,
        _ if ethertype::PPPOE.contains(&kind) => Drop::Pppoe,
        _ => Drop::NotIp,
    }
}

pub(super) fn tuple_of(view: &View4) -> Tuple4 {
    Tuple4 {
        source: view.source,
        destination: view.destination,
        source_port: view.source_port,
        destination_port: view.destination_port,
    }
}
