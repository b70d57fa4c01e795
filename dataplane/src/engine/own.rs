//! What the gateway itself sends: ICMP errors, TCP resets, the host's packets and frames; and packets that waited for a neighbour.

use std::net::IpAddr;

use super::{Engine, Origin, Output, Prepared, Read, Story, Verdict};
use crate::counters::{Drop, IcmpError};
use crate::message::{NeighbourState, NeighbourUpdate};
use crate::packet::parse::{self, View4};
use crate::packet::verify::Covered;
use crate::packet::{Packet, PacketPool, error, reset};
use crate::plan::{InterfaceId, MacAddr, Named, Plan, PortId, Target};
use crate::route::neighbour::{Adjacency, Held, Neighbour, Waiting};
use crate::session::tcp::Segment;
use crate::steer::passage::Passage;
use crate::time::Time;

impl<P: Packet> Engine<P> {
    /// Whether an error about a packet of IPv4 that nothing else stands against would not be sent, by the configuration or, which
    /// is counted, by its rate.
    pub(super) fn is_unanswered(&mut self, ingress: InterfaceId, source: u32, now: Time) -> bool {
        let policy = &self.plan.spec.icmp;
        if error_source(&self.plan, ingress, false).is_none()
            || policy.silent.contains(&ingress)
            || self.plan.target4(source) == Some(Target::Broadcast)
        {
            return true;
        }
        let limited = !self.errors.clone().take(policy.rate, policy.burst, self.workers, now);
        self.counters.icmp_rate_limited.add(u64::from(limited));
        limited
    }

    /// Sends an ICMP error about a packet, if that may be answered at all.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub(super) fn originate<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        frame: &[u8],
        read: &Read,
        error: IcmpError,
        mtu: u16,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let policy = &self.plan.spec.icmp;
        let allowed = match read {
            Read::Four(view) => {
                // A source that is not a single host (RFC 1812 §4.3.2.7); the reader knows all but a subnet's broadcast.
                error::may_answer4(frame, view) && self.plan.target4(view.source) != Some(Target::Broadcast)
            }
            Read::Six(view) => error::may_answer6(frame, view, error),
            Read::Arp => false,
        };
        let Some(source) = error_source(&self.plan, ingress, matches!(read, Read::Six(_))) else { return };
        if !allowed || policy.silent.contains(&ingress) {
            return;
        }
        if !self.errors.take(policy.rate, policy.burst, self.workers, now) {
            self.counters.icmp_rate_limited.add(1);
            return;
        }
        let written = pool.alloc().and_then(|mut packet| {
            let written = match (read, source) {
                (Read::Four(view), IpAddr::V4(source)) => {
                    let original = frame.get(view.l3..view.end).unwrap_or(&[]);
                    error::write4(&mut packet, error, mtu, source.to_bits(), original)
                }
                (Read::Six(view), IpAddr::V6(source)) => {
                    let original = frame.get(view.l3..view.end).unwrap_or(&[]);
                    error::write6(&mut packet, error, mtu, source.to_bits(), original)
                }
                _ => false,
            };
            written.then_some(packet)
        });
        let Some(packet) = written else {
            self.counters.originate_failures.add(1);
            return;
        };
        self.counters.originated.add(1);
        self.counters.icmp_errors[error as usize].add(1);
        self.story.error = Some(error);
        self.send_own(packet, now, pool, out);
    }

    /// Tells the inside sender of a TCP segment that its connection is gone (mid-stream `reset`). What limits ICMP errors
    /// limits this too, apart from them; that an interface is to be silent about errors does not: the rule has asked for it.
    #[inline(never)]
    pub(super) fn reset<L: PacketPool<Packet = P>>(
        &mut self,
        frame: &[u8],
        view: &View4,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        // Nobody sends from a broadcast address, and a damaged segment may be of another connection (RFC 9293 §3.1).
        let credible = Covered::of4(frame, view).is_some_and(|covered| covered.is_right());
        if !credible || self.plan.target4(view.source) == Some(Target::Broadcast) {
            return;
        }
        let policy = &self.plan.spec.icmp;
        if !self.resets.take(policy.rate, policy.burst, self.workers, now) {
            self.counters.tcp_resets_rate_limited.add(1);
            return;
        }
        let segment = Segment::read(frame.get(view.l4..view.end).unwrap_or(&[]));
        let written = pool.alloc().and_then(|mut packet| reset::write4(&mut packet, view, &segment).then_some(packet));
        let Some(packet) = written else {
            self.counters.originate_failures.add(1);
            return;
        };
        self.counters.originated.add(1);
        self.counters.tcp_resets.add(1);
        self.story.reset = true;
        self.send_own(packet, now, pool, out);
    }

    /// Routes a packet of the gateway's own: an IP packet behind an Ethernet header that is still empty.
    pub(super) fn send_own<L: PacketPool<Packet = P>>(
        &mut self,
        packet: P,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let read = match packet.data().get(parse::ETHERNET).map(|byte| byte >> 4) {
            Some(4) => parse::ipv4(packet.data(), parse::ETHERNET).map(Read::Four),
            Some(6) => parse::ipv6(packet.data(), parse::ETHERNET).map(Read::Six),
            _ => Err(Drop::HostPacket),
        };
        let Ok(read) = read else {
            self.drop(packet, Drop::HostPacket, out);
            return;
        };
        let next_hop = match &read {
            Read::Four(view) => self
                .plan
                .target4(view.destination)
                .and_then(|it| it.next_hop(|id| Neighbour::ipv4(id, view.destination))),
            Read::Six(view) => self
                .plan
                .beyond6(view.destination)
                .and_then(|it| it.next_hop(|id| Neighbour::ipv6(id, view.destination))),
            Read::Arp => None,
        };
        let verdict = match next_hop {
            None if self.turns_back(&read) => return self.turn_own(packet, &read, now, pool, out),
            None => Drop::NoRoute.into(),
            Some(next_hop) => match self.resolve(&next_hop, out) {
                Ok(adjacency) => Verdict::Transmit(adjacency),
                Err(hold) => hold,
            },
        };
        self.dispose(Origin::Own, packet, verdict, Some(&read), now, pool, out);
    }

    pub(super) fn host_frame(&mut self, interface: InterfaceId, mut packet: P, out: &mut Output<P>) {
        let mut to = Adjacency { mac: MacAddr::default(), interface };
        to.mac.0.copy_from_slice(&packet.data()[..6]);
        let kind = parse::get16(packet.data(), 12);
        // The host may not have heard yet that a reload has taken the interface away.
        let known = self.plan.interface(interface).is_some_and(|it| !it.is_vacant());
        if known && self.address_frame(&mut packet, to, kind, parse::ETHERNET) {
            out.transmit.push((interface, packet));
        } else {
            self.drop(packet, Drop::HostPacket, out);
        }
    }

    /// A neighbour changed: what waited for it goes, or is dropped and answered.
    pub(super) fn neighbour<L: PacketPool<Packet = P>>(
        &mut self,
        update: &NeighbourUpdate,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let mut waiting: Waiting = self.neighbours.apply(update);
        if self.neighbours.wants_epoch() {
            self.begin_epoch();
        }
        while let Some(Held { packet, ingress, passage }) = self.neighbours.release(&mut waiting) {
            self.counters.held.sub(1);
            match (update.state, ingress) {
                (NeighbourState::Failed, Some(ingress)) => self.fail(ingress, packet, now, pool, out),
                (NeighbourState::Failed, None) => {
                    self.drop(packet, Drop::NeighbourFailed, out);
                }
                (_, Some(ingress)) => self.again(ingress, packet, passage, now, pool, out),
                (_, None) => self.send_own(packet, now, pool, out),
            }
        }
    }

    /// Processes a packet that has waited, from the start.
    pub(super) fn again<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        packet: P,
        passage: Passage,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let Some(port) = self.plan.interface(ingress).map(|interface| interface.port) else {
            self.drop(packet, Drop::UnknownVlan, out);
            return;
        };
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        self.resume(packet, port, prepared, passage, true, now, pool, out);
    }

    /// The neighbour that a packet waited for does not answer.
    fn fail<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        packet: P,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let port = self.plan.interface(ingress).map_or(PortId(u16::MAX), |interface| interface.port);
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        let read = prepared.read.as_ref().ok();
        let error = match read {
            Some(Read::Six(_)) => IcmpError::AddressUnreachable6,
            _ => IcmpError::HostUnreachable4,
        };
        let verdict = Verdict::Drop(Drop::NeighbourFailed, Some((error, 0)));
        self.story = Story::default();
        let disposal = self.dispose(Origin::Wire(ingress), packet, verdict, read, now, pool, out);
        self.tell(read, disposal, true);
    }
}

/// The source of an ICMP error: the one that the file gives, else the first address of the interface that the packet came in by, else
/// of any.
fn error_source(plan: &Plan, ingress: InterfaceId, six: bool) -> Option<IpAddr> {
    let is_of_family = |address: &IpAddr| address.is_ipv6() == six;
    let first = |interface: &crate::plan::InterfaceSpec| {
        interface.addresses.iter().map(|prefix| prefix.address).find(is_of_family)
    };
    let given = plan.spec.icmp.sources.iter().copied().find(is_of_family);
    given.or_else(|| plan.interface(ingress).and_then(first)).or_else(|| plan.spec.interfaces.iter().find_map(first))
}

/// A packet of the pool for the host: `empty` bytes for the Ethernet header, then `content`.
pub(super) fn own_packet<L: PacketPool>(pool: &mut L, empty: usize, content: &[u8]) -> Result<L::Packet, Drop> {
    let mut packet = pool.alloc().ok_or(Drop::PoolEmpty)?;
    let room = packet.append(empty + content.len());
    let (header, rest) = packet.data_mut().split_at_mut_checked(empty).filter(|_| room).ok_or(Drop::HostPacket)?;
    header.fill(0);
    rest.copy_from_slice(content);
    Ok(packet)
}
