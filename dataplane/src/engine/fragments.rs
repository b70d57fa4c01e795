//! Fragments: each is given the ports of its datagram, which only the first one has, and goes on as any packet does; and what
//! is too large for the next link is cut up.
//!
//! From inside, and where the destination's address alone says whose it is, the shard of the flow learns the ports; toward a
//! pool's address it is one that follows from what names the datagram (design rule 9). Fragments that come before the first
//! one wait, and go on before it when it comes. So order is kept among the whole packets of a flow, and among its fragments, but
//! not between the two; and toward a pool's address, where each datagram may have another shard, among the fragments of each.

use super::{Arrival, Engine, Origin, Output, Prepared, Read, Story, Verdict};
use crate::counters::Drop;
use crate::fragment::reassembly::Offer;
use crate::fragment::{self, Datagram, Lent, Piece, cut};
use crate::packet::parse::{self, Fragment, Transport, View4, ethertype};
use crate::packet::{Packet, PacketPool};
use crate::plan::{InterfaceId, PortId, Target, ZoneId};
use crate::pool::Proto;
use crate::steer::hand_over::{Handed, Move, Turn};
use crate::steer::passage::Passage;
use crate::steer::{ShardId, shard_of4};
use crate::time::Time;
use crate::trace::Disposal;
use crate::translate::napt;

/// Datagrams of a shard that one tick gives up.
const EXPIRE_BUDGET: usize = 8;

/// A fragment that waits for the first one of its datagram, as it came in.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    packet: P,
    ingress: InterfaceId,
}

impl<P: Packet> Engine<P> {
    /// Whether a fragment from a zone may be of a datagram that is translated on its way to `target`. It alone can't tell, if a
    /// port forward is all that translates its sender.
    pub(super) fn may_be_translated(&self, zone: ZoneId, view: &View4, target: Option<Target>) -> bool {
        self.passage.lent.is_none()
            && self.plan.policy.is_inside(zone)
            && self
                .egress_zone(target)
                .is_some_and(|to| self.plan.policy.may_translate(zone, to, view.source, view.destination))
    }

    /// A fragment of a datagram that may be translated: it goes on with the ports of the first one, or waits for it.
    #[inline(never)]
    pub(super) fn fragment<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        packet: P,
        view: &View4,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        let datagram = Datagram::of(packet.data(), view);
        let (piece, shard, outbound) = match self.place_fragment(ingress, &packet, view, &datagram) {
            Ok(place) => place,
            Err(reason) => return self.drop(packet, reason, out),
        };
        if !self.owns(shard) {
            return self.hand_on(ingress, packet, shard, Passage::FIRST, out);
        }
        let Some(datagrams) = self.datagrams.get_mut(shard.index()) else {
            return self.drop(packet, Drop::FragmentQueueFull, out);
        };
        let mut lend = || {
            let identification = outbound.then(|| datagrams.identifications.next(view.destination, view.protocol));
            Lent::of(view).map(|lent| Lent { identification, ..lent })
        };
        let first = (view.fragment == Fragment::First).then(&mut lend);
        let deadline = now + self.plan.spec.timers.fragment;
        let offer = datagrams.reassembly.offer(&datagram, piece, packet.data().len(), first, now, deadline);
        self.drop_lost(shard, Some(&mut *out));
        match offer {
            Offer::Pass(lent, mut chain) => {
                while let Some(waiting) = self.release(shard, &mut chain) {
                    let Waiting { packet, ingress } = waiting;
                    self.counters.held.sub(1);
                    self.counters.fragments_held.sub(1);
                    self.counters.fragments.add(1);
                    self.again(ingress, packet, Passage { lent: Some(lent), ..Passage::FIRST }, now, pool, out);
                }
                self.counters.fragments.add(1);
                self.story = Story::default();
                let passage = Passage { lent: Some(lent), ..Passage::FIRST };
                self.go_on(ingress, packet, passage, now, pool, out)
            }
            Offer::Wait(place) => {
                if let Some(datagrams) = self.datagrams.get_mut(shard.index()) {
                    datagrams.reassembly.hold(place, Waiting { packet, ingress });
                }
                self.counters.held.add(1);
                self.counters.fragments_held.add(1);
                Disposal::HoldFragment
            }
            Offer::Refuse(reason) => self.drop(packet, reason, out),
        }
    }

    /// What part of its datagram a fragment is, which shard learns the datagram's ports, and whether it is on its way out.
    fn place_fragment(
        &self,
        ingress: InterfaceId,
        packet: &P,
        view: &View4,
        datagram: &Datagram,
    ) -> Result<(Piece, ShardId, bool), Drop> {
        let proto = Proto::from_ip(view.protocol).ok_or(Drop::Protocol)?;
        let zone = self.zone(ingress);
        let external = self.plan.external(view.destination).filter(|_| !self.is_from_inside(zone, view.destination));
        let shard = match external {
            None => shard_of4(view.source),
            Some((_, entry)) if !entry.outside.contains(zone) => return Err(Drop::Unsolicited),
            Some((_, entry)) => match entry.static_nat {
                Some(_) => {
                    let entry = self.plan.policy.static_in(entry.address, entry.static_nat, proto, 0);
                    shard_of4(entry.ok_or(Drop::Unsolicited)?.inside)
                }
                None => datagram.shard(),
            },
        };
        Ok((Piece::read(packet.data(), view)?, shard, external.is_none()))
    }

    fn release(&mut self, shard: ShardId, chain: &mut fragment::reassembly::Chain) -> Option<Waiting<P>> {
        self.datagrams.get_mut(shard.index())?.reassembly.release(chain)
    }

    /// Drops what has waited in vain.
    fn drop_lost(&mut self, shard: ShardId, mut out: Option<&mut Output<P>>) {
        while let Some((Waiting { packet, .. }, reason)) =
            self.datagrams.get_mut(shard.index()).and_then(|datagrams| datagrams.reassembly.take_lost())
        {
            self.counters.held.sub(1);
            self.counters.fragments_held.sub(1);
            self.count_drop(reason);
            if let Some(out) = &mut out {
                out.dropped.push(packet);
            }
        }
    }

    /// Gives away what a shard knows of datagrams. What waits for a first fragment does so with the new owner, behind the shard.
    pub(super) fn give_datagrams(&mut self, moving: &mut Move, out: &mut Output<P>) {
        let shard = moving.id;
        let Some(datagrams) = self.datagrams.get_mut(shard.index()) else { return };
        datagrams.reassembly.give_up_waiting();
        let mut waiting = std::iter::from_fn(|| datagrams.reassembly.take_lost());
        for (Waiting { packet, ingress }, _) in &mut waiting {
            self.counters.held.sub(1);
            self.counters.fragments_held.sub(1);
            let port = self.plan.interface(ingress).map_or(PortId(0), |interface| interface.port);
            let Passage { turn, lent } = Passage::FIRST;
            out.hand_over.push(Handed { packet, ingress: port, shard, turn, lent, hops: 1 });
        }
        datagrams.exchange(&mut moving.datagrams);
    }

    /// Gives up the datagrams of a shard whose first fragment has not come in time. No ICMP error is due: that takes the first
    /// fragment (RFC 792). Returns true if there is more to do.
    #[inline(never)]
    pub(super) fn expire_fragments(&mut self, shard: ShardId, now: Time) -> bool {
        let Some(datagrams) = self.datagrams.get_mut(shard.index()) else { return false };
        let more = (0..EXPIRE_BUDGET).all(|_| datagrams.reassembly.expire(now));
        self.drop_lost(shard, None);
        more
    }

    /// Gives a packet that has been read what its passage says of it. Returns the zone that it comes from, and its owner if that
    /// is another worker.
    fn prepare_passage(&self, packet: &P, prepared: &mut Prepared, passage: &Passage) -> (ZoneId, Option<ShardId>) {
        let from = prepared.interface.map_or(ZoneId(u8::MAX), |id| self.zone(id));
        let Ok(Read::Four(view)) = &mut prepared.read else { return (from, None) };
        if let Some(lent) = passage.lent {
            *view = lent.to(view);
            prepared.flow = self.flow_of(from, view, prepared.target);
        }
        if passage.turn != Turn::Hairpin {
            return (from, self.elsewhere(prepared));
        }
        let zone = self.turned_from(view);
        if view.transport == Transport::IcmpError {
            prepared.quoted = self.quoted_owner(zone, packet.data(), view, prepared.target);
        }
        (zone, prepared.owner().filter(|&shard| !self.owns(shard)))
    }

    /// Processes a packet that has come so far, and was read. `again`: its story is a second one.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub(super) fn resume<L: PacketPool<Packet = P>>(
        &mut self,
        packet: P,
        port: PortId,
        mut prepared: Prepared,
        passage: Passage,
        again: bool,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) {
        let (zone, elsewhere) = self.prepare_passage(&packet, &mut prepared, &passage);
        if let Some(shard) = elsewhere {
            return self.hand_over(packet, port, shard, passage, out);
        }
        if passage == Passage::FIRST {
            return self.walk(packet, &prepared, again, now, pool, out);
        }
        self.begin_story(&prepared);
        let disposal = self.pass_on(packet, &prepared, zone, passage, now, pool, out);
        self.tell(prepared.read.as_ref().ok(), disposal, again);
    }

    /// The packet in hand has come so far, and goes on in the same story.
    pub(super) fn go_on<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        packet: P,
        passage: Passage,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        let Some(port) = self.plan.interface(ingress).map(|interface| interface.port) else {
            return self.drop(packet, Drop::UnknownVlan, out);
        };
        let mut prepared = Prepared::UNREAD;
        self.prepare(port, &packet, &mut prepared);
        let (zone, elsewhere) = self.prepare_passage(&packet, &mut prepared, &passage);
        match elsewhere {
            None => self.pass_on(packet, &prepared, zone, passage, now, pool, out),
            Some(shard) => self.hand_on(ingress, packet, shard, passage, out),
        }
    }

    /// The packet in hand belongs to another worker.
    pub(super) fn hand_on(
        &self,
        ingress: InterfaceId,
        packet: P,
        shard: ShardId,
        passage: Passage,
        out: &mut Output<P>,
    ) -> Disposal {
        let port = self.plan.interface(ingress).map_or(PortId(0), |interface| interface.port);
        self.hand_over(packet, port, shard, passage, out);
        Disposal::HandOver
    }

    /// Takes a packet further that belongs here.
    #[allow(clippy::too_many_arguments)]
    fn pass_on<L: PacketPool<Packet = P>>(
        &mut self,
        mut packet: P,
        prepared: &Prepared,
        zone: ZoneId,
        passage: Passage,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        let before = std::mem::replace(&mut self.passage, passage);
        let origin = prepared.interface.map_or(Origin::Own, Origin::Wire);
        let verdict = match (prepared.interface, &prepared.read) {
            (Some(ingress), Ok(Read::Four(view))) => {
                let mut at = Arrival { ingress, zone, packet: &mut packet, now, out: &mut *out };
                self.ipv4(&mut at, view, prepared)
            }
            (_, Err(reason)) => (*reason).into(),
            _ => Drop::UnknownVlan.into(),
        };
        let disposal = self.dispose(origin, packet, verdict, prepared.read.as_ref().ok(), now, pool, out);
        self.passage = before;
        disposal
    }

    /// Gives a datagram that leaves translated, and is not atomic, an identification (RFC 7857 §10): that of the fragments of
    /// its datagram before it, or a new one.
    #[inline(never)]
    pub(super) fn identify(&mut self, frame: &mut [u8], view: &View4) {
        let lent = self.passage.lent.and_then(|lent| lent.identification);
        let identification = lent.or_else(|| {
            let datagrams = self.datagrams.get_mut(shard_of4(view.source).index())?;
            Some(datagrams.identifications.next(view.destination, view.protocol))
        });
        if let Some(identification) = identification {
            napt::identify(frame, view, identification);
        }
    }

    /// A packet that is too large for the next link, and may be cut up: it is, when all else is done with it.
    #[inline(never)]
    pub(super) fn cut<L: PacketPool<Packet = P>>(
        &mut self,
        ingress: InterfaceId,
        mut packet: P,
        view: &View4,
        now: Time,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        let target = self.plan.target4(view.destination);
        let zone = if self.passage.turn == Turn::Hairpin { self.turned_from(view) } else { self.zone(ingress) };
        let lent = view.fragment == Fragment::Whole || self.passage.lent.is_some();
        let flow = if lent { self.flow_of(zone, view, target) } else { None };
        let prepared = Prepared { interface: Some(ingress), read: Ok(Read::Four(*view)), target, flow, quoted: None };
        let mut at = Arrival { ingress, zone, packet: &mut packet, now, out: &mut *out };
        self.cutting = true;
        let verdict = self.ipv4(&mut at, view, &prepared);
        self.cutting = false;
        let Verdict::Transmit(adjacency) = verdict else {
            return self.dispose(Origin::Wire(ingress), packet, verdict, Some(&Read::Four(*view)), now, pool, out);
        };
        if !self.address_frame(&mut packet, adjacency, ethertype::IPV4, view.l3) {
            return self.drop(packet, Drop::FrameShort, out);
        }
        // As it leaves: it has other tags than it came with.
        let view = parse::link(packet.data()).and_then(|link| parse::ipv4(packet.data(), link.len));
        let mtu = self.plan.interface(adjacency.interface).map_or(0, |interface| interface.mtu);
        let pieces = view.ok().and_then(|view| cut::pieces(&view, mtu).map(|pieces| (view, pieces)));
        let Some((view, pieces)) = pieces else { return self.drop(packet, Drop::FragmentationNeeded, out) };
        let before = out.transmit.len();
        if out.transmit.capacity() - before < pieces {
            return self.drop(packet, Drop::TransmitFull, out);
        }
        match cut::cut(packet, &view, mtu, pool, |fragment| out.transmit.push((adjacency.interface, fragment))) {
            Ok(()) => {
                self.counters.cut.add(1);
                self.counters.pieces.add(pieces as u64);
                self.counters.originated.add(pieces as u64 - 1);
                Disposal::Transmit(adjacency.interface)
            }
            Err(packet) => {
                out.transmit.truncate(before);
                self.drop(packet, Drop::PoolEmpty, out)
            }
        }
    }
}
