//! Stateless translation between IPv4 and IPv6 (RFC 7915): from one family to the other, and on.
//!
//! As everywhere, nothing is changed before everything that could stop the packet has been checked: whether it can be
//! translated, its hop count, the way of the result, whether the next link takes that, and the neighbour. Errors so quote
//! what the sender sent, in its own family.

use super::ahead::Lane;
use super::ipv4::martian4;
use super::short::{Tally, readdress};
use super::{Arrival, Engine, Output, Verdict};
use crate::counters::{Drop, IcmpError};
use crate::fragment::cut;
use crate::packet::parse::{self, Transport, View4, View6, ethertype};
use crate::packet::{Packet, PacketPool};
use crate::plan::{InterfaceId, Target};
use crate::policy::crossing::Destination4;
use crate::pool::Proto;
use crate::route::neighbour::{Adjacency, Neighbour};
use crate::steer::ShardId;
use crate::trace::{Disposal, RuleRef};
use crate::translate::eam::{Hairpin, Role};
use crate::translate::siit::{self, Mtus, Refusal, to4, to6};
use crate::translate::{exchange, mss, napt};

/// Length of an IPv6 fragment header, in bytes.
const FRAGMENT_HEADER: usize = 8;
/// How much shorter an IPv4 header is than one of IPv6, in bytes.
const SHORTER: u16 = 20;
/// The most that a packet grows by at its front, in bytes: headers of IP and the link.
const GROWTH: usize = 48;

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Verdict::Drop(refusal.reason, refusal.error)
    }
}

/// What becomes of a packet that does not cross, whose sender is told, or not, that it can't be translated. Of hops, routes and sizes it
/// always is.
const fn reported(verdict: Verdict, report: bool) -> Verdict {
    match verdict {
        Verdict::Drop(
            reason,
            Some((
                IcmpError::Prohibited4
                | IcmpError::Prohibited6
                | IcmpError::SourceRouteFailed4
                | IcmpError::ParameterProblem6,
                _,
            )),
        ) if !report => Verdict::Drop(reason, None),
        other => other,
    }
}

impl<P: Packet> Engine<P> {
    /// An IPv4 packet, if it crosses. None: it goes on untouched.
    #[inline(always)]
    pub(super) fn cross4(&mut self, at: &mut Arrival<P>, view: &View4, target: Option<Target>) -> Option<Verdict> {
        let index = self.plan.crossings.from4(at.zone)?;
        let (crossing, spec) = self.plan.crossing(index)?;
        let destination = crossing.destination6(spec, view.destination, target)?;
        let report = spec.report_discards;
        Some(self.pass_to6(at, view, index, destination).unwrap_or_else(|verdict| reported(verdict, report)))
    }

    #[inline(never)]
    fn pass_to6(
        &mut self,
        at: &mut Arrival<P>,
        view: &View4,
        index: u16,
        destination: u128,
    ) -> Result<Verdict, Verdict> {
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let (ipv6, chosen) = (spec.ipv6, &spec.settings);
        let quoted = exchange::quoted4(at.packet.data(), view).map(|quoted| quoted.addresses.1);
        let source = spec.to6(Role::Source, view.source, quoted);
        let source = source.or_else(|| quoted.and(spec.error_prefix).map(|prefix| prefix.embed(view.source)));
        let source = source.ok_or(Verdict::Drop(Drop::Uncrossed, Some((IcmpError::Prohibited4, 0))))?;
        let plan = to6::examine(at.packet, view, chosen, |role, address| spec.to6(role, address, quoted))?;
        if view.ttl <= 1 {
            return Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded4, 0))));
        }
        let target = self.plan.beyond6(destination);
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv6(interface, destination)));
        let next_hop = next_hop.filter(|it| self.zone(it.interface()) == ipv6);
        let next_hop = next_hop.ok_or(Verdict::Drop(Drop::NoRoute, Some((IcmpError::NetUnreachable4, 0))))?;
        let mtu = self.mtu(next_hop.interface());
        let pieces = plan.fit(mtu, chosen)?;
        let to = self.resolve(&next_hop, at.out)?;
        let mtus = Mtus { v4: self.mtu(at.ingress), v6: mtu };
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let cut = pieces.is_some();
        let behind = to6::translate(at.packet, view, &plan, (source, destination), mtus, &spec.settings, cut);
        let behind = behind.ok_or(Drop::NoRoom)?;
        self.clamp_crossed(at, view.transport, behind, to.interface, (40, 60));
        self.counters.crossed[0].add(1);
        self.story.rule = RuleRef::Crossing(index);
        self.tell_crossed(at.packet, view.l3);
        Ok(match pieces {
            None => Verdict::Cross(to),
            Some(most) => Verdict::CrossCut(to, most),
        })
    }

    /// An IPv6 packet, if it crosses. None: it goes on untouched.
    #[inline(always)]
    pub(super) fn cross6(&mut self, at: &mut Arrival<P>, view: &View6, target: Option<Target>) -> Option<Verdict> {
        let index = self.plan.crossings.from6(at.zone)?;
        let (crossing, spec) = self.plan.crossing(index)?;
        let destination = crossing.destination4(spec, view.destination, target)?;
        let report = spec.report_discards;
        Some(self.pass_to4(at, view, index, destination).unwrap_or_else(|verdict| reported(verdict, report)))
    }

    #[inline(never)]
    fn pass_to4(
        &mut self,
        at: &mut Arrival<P>,
        view: &View6,
        index: u16,
        destination: Destination4,
    ) -> Result<Verdict, Verdict> {
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let (ipv4, hairpin) = (spec.ipv4, spec.hairpin);
        let quoted = exchange::quoted6(at.packet.data(), view).map(|quoted| quoted.addresses);
        let own = spec.to4(view.source);
        let source = own.or_else(|| {
            // A router in IPv6 (RFC 6791). By its address: two of them look different, and the same one the same.
            quoted?;
            spec.error_source4(self.secret.address_hash(view.source))
        });
        // No error about any ICMPv6 message (RFC 7915 §5.4).
        let error = (view.protocol != parse::protocol::ICMPV6).then_some((IcmpError::Prohibited6, 0));
        let source = source.ok_or(Verdict::Drop(Drop::Uncrossed, error))?;
        let Destination4 { address: destination, embedded } = destination;
        if embedded && spec.is_barred(view.destination) {
            return Err(Drop::NotGlobal.into());
        }
        if let Some(reason) = martian4(source, destination) {
            return Err(reason.into());
        }
        let mut plan = to4::examine(at.packet, view, |_, address| spec.to4(address))?;
        if own.is_none() {
            plan.tell_source(at.packet, view);
        }
        if view.hop_limit <= 1 {
            return Err(Verdict::Drop(Drop::TtlExceeded, Some((IcmpError::TimeExceeded6, 0))));
        }
        // Of an error it is the sender of what it quotes that tells (RFC 7757 §4.2.2).
        let peer = match quoted {
            None => embedded.then_some(destination),
            Some((sender, _)) => spec.extract(sender).filter(|_| spec.mappings.to4(sender).is_none()),
        };
        if hairpin == Hairpin::Intrinsic
            && let Some(peer) = peer
            && spec.mappings.to6(peer).is_some()
        {
            return self.pass_back(at, view, index, &plan, (source, destination));
        }
        let target = self.plan.target4(destination);
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv4(interface, destination)));
        let next_hop = next_hop.filter(|it| self.zone(it.interface()) == ipv4);
        let next_hop = next_hop.ok_or(Verdict::Drop(Drop::NoRoute, Some((IcmpError::NoRoute6, 0))))?;
        let mtu = self.mtu(next_hop.interface());
        let pieces = plan.fit(mtu)?;
        let to = self.resolve(&next_hop, at.out)?;
        let mtus = Mtus { v4: mtu, v6: self.mtu(at.ingress) };
        let behind = self.translate_to4(at, view, index, &plan, (source, destination), mtus)?;
        self.clamp_crossed(at, view.transport, behind, to.interface, (60, 40));
        self.counters.crossed[1].add(1);
        self.story.rule = RuleRef::Crossing(index);
        self.tell_crossed(at.packet, view.l3);
        Ok(match pieces {
            None => Verdict::Cross(to),
            Some(most) => Verdict::CrossCut(to, most),
        })
    }

    fn translate_to4(
        &mut self,
        at: &mut Arrival<P>,
        view: &View6,
        index: u16,
        plan: &to4::To4,
        addresses: (u32, u32),
        mtus: Mtus,
    ) -> Result<usize, Verdict> {
        let protocol = view.protocol;
        // Of a shard of our own: two workers never give out the same.
        let home = self.owned.first().unwrap_or(ShardId(0));
        let identifications = self.datagrams.get_mut(home.index()).map(|it| &mut it.identifications);
        let identification = identifications.map_or(0, |it| it.next(addresses.1, protocol));
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let behind = to4::translate(at.packet, view, plan, addresses, identification, mtus, &spec.settings);
        behind.ok_or(Verdict::from(Drop::NoRoom))
    }

    /// A packet between two hosts of the table, by way of IPv4: translated there and back at once, with one hop less in all (RFC 7757
    /// §4.2.2).
    fn pass_back(
        &mut self,
        at: &mut Arrival<P>,
        view: &View6,
        index: u16,
        plan: &to4::To4,
        addresses: (u32, u32),
    ) -> Result<Verdict, Verdict> {
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let back = |role, address| spec.back6(role, address);
        let ends = back(Role::Source, addresses.0).zip(back(Role::Destination, addresses.1));
        let (source, destination) = ends.ok_or(Verdict::from(Drop::Uncrossed))?;
        let ipv6 = spec.ipv6;
        let target = self.plan.beyond6(destination);
        let next_hop = target.and_then(|it| it.next_hop(|interface| Neighbour::ipv6(interface, destination)));
        let next_hop = next_hop.filter(|it| self.zone(it.interface()) == ipv6);
        let next_hop = next_hop.ok_or(Verdict::Drop(Drop::NoRoute, Some((IcmpError::NoRoute6, 0))))?;
        let mtu = self.mtu(next_hop.interface());
        if view.end - view.l3 > usize::from(mtu) {
            return Err(Verdict::Drop(Drop::TooBig, Some((IcmpError::PacketTooBig6, mtu))));
        }
        let to = self.resolve(&next_hop, at.out)?;
        let mtus = Mtus { v4: u16::MAX, v6: mtu };
        self.translate_to4(at, view, index, plan, addresses, mtus)?;
        let view4 = parse::ipv4(at.packet.data(), view.l3)?;
        napt::give_hop_back(at.packet.data_mut(), &view4);
        let (_, spec) = self.plan.crossing(index).ok_or(Drop::NoRoute)?;
        let view4 = View4 { ttl: view4.ttl.saturating_add(1), ..view4 };
        let plan = to6::examine(at.packet, &view4, &spec.settings, |role, address| spec.back6(role, address))?;
        let behind = to6::translate(at.packet, &view4, &plan, (source, destination), mtus, &spec.settings, false);
        let behind = behind.ok_or(Drop::NoRoom)?;
        self.clamp_crossed(at, view4.transport, behind, to.interface, (60, 60));
        self.counters.hairpins.add(1);
        self.counters.crossed.iter().for_each(|counter| counter.add(1));
        self.story.rule = RuleRef::Crossing(index);
        self.tell_crossed(at.packet, view.l3);
        Ok(Verdict::Transmit(to))
    }

    /// The short way from IPv4 to IPv6, of a datagram that was read ahead, to the destination that its own stands for. Gives the
    /// interface that it leaves by. None, and nothing has happened: it takes the long one.
    #[inline(always)]
    pub(super) fn pass_cross4(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        index: u16,
        to: u128,
        tally: &mut Tally,
    ) -> Option<InterfaceId> {
        let (_, spec) = self.plan.crossing(index)?;
        let (source, destination) = lane.addresses();
        let from = spec.to6(Role::Source, source, None)?;
        let next_hop = self.plan.beyond6(to)?.next_hop(|interface| Neighbour::ipv6(interface, to))?;
        let (_, way) = self.neighbours.recent(&next_hop);
        let l3 = usize::from(lane.l3);
        let frame = packet.data();
        let bytes = frame.len();
        let head = frame.get(l3..)?.first_chunk::<{ parse::IPV4 + 8 }>()?;
        // What may be cut up is, if it is longer than every way takes.
        let may_be_cut = head[6] & 0x40 == 0;
        let most = if may_be_cut { way.mtu.min(spec.settings.lowest_ipv6_mtu) } else { way.mtu };
        let has_checksum = lane.proto == Proto::Tcp || parse::get16(head, parse::IPV4 + 6) != 0;
        if usize::from(lane.total) + usize::from(SHORTER) > usize::from(most)
            || !has_checksum
            || packet.headroom() < GROWTH
            || self.zone(next_hop.interface()) != spec.ipv6
        {
            return None;
        }
        let end = l3 + usize::from(lane.total);
        to6::translate_plain(packet, l3, end, (source, destination), (from, to), &spec.settings)?;
        if !readdress(packet, l3, way) {
            return None;
        }
        tally.crossed[0] += 1;
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
    }

    /// The short way from IPv6 to IPv4, of a datagram that was read ahead, or on, if it does not cross.
    #[inline(never)]
    pub(super) fn pass_cross6(
        &mut self,
        packet: &mut P,
        lane: &Lane,
        index: u16,
        tally: &mut Tally,
    ) -> Option<InterfaceId> {
        let (crossing, spec) = self.plan.crossing(index)?;
        let l3 = usize::from(lane.l3);
        let frame = packet.data();
        let bytes = frame.len();
        let header = frame.get(l3..)?.first_chunk::<{ parse::IPV6 }>()?;
        let (source, destination) = (parse::get128(header, 8), parse::get128(header, 24));
        let Some(to) = crossing.destination4(spec, destination, self.plan.target6(destination)) else {
            return self.pass_route6(packet, lane, tally);
        };
        let from = spec.to4(source)?;
        let turns = to.embedded && spec.hairpin == Hairpin::Intrinsic && spec.mappings.to6(to.address).is_some();
        if turns || (to.embedded && spec.is_barred(destination)) || martian4(from, to.address).is_some() {
            return None;
        }
        let next_hop = self.plan.target4(to.address)?.next_hop(|interface| Neighbour::ipv4(interface, to.address))?;
        let (_, way) = self.neighbours.recent(&next_hop);
        let shorter = lane.total.checked_sub(SHORTER)?;
        if shorter > way.mtu || self.zone(next_hop.interface()) != spec.ipv4 {
            return None;
        }
        let home = self.owned.first().unwrap_or(ShardId(0));
        let identifications = &mut self.datagrams[home.index()].identifications;
        let identification = identifications.next(to.address, header[6]);
        let end = l3 + usize::from(lane.total);
        let addresses = ((source, destination), (from, to.address));
        to4::translate_plain(packet, l3, end, addresses.0, addresses.1, identification, &spec.settings)?;
        if !readdress(packet, l3, way) {
            return None;
        }
        tally.crossed[1] += 1;
        self.tally_ingress(lane.ingress, bytes, tally);
        Some(way.interface)
    }

    fn mtu(&self, interface: InterfaceId) -> u16 {
        self.plan.interface(interface).map_or(0, |interface| interface.mtu)
    }

    /// Clamps the segment that begins at an offset, behind so many bytes of headers on both sides.
    fn clamp_crossed(
        &self,
        at: &mut Arrival<P>,
        transport: Transport,
        l4: usize,
        egress: InterfaceId,
        headers: (u16, u16),
    ) {
        if let Transport::Tcp(_) = transport
            && let Some(egress) = self.plan.interface(egress)
            && let Some(limit) = mss::limit(self.plan.interface(at.ingress), egress, headers)
            && let Some(tcp) = at.packet.data_mut().get_mut(l4..)
        {
            mss::clamp(tcp, limit);
        }
    }

    /// Cuts a packet up that has crossed, and sends it.
    #[inline(never)]
    pub(super) fn cut_crossed<L: PacketPool<Packet = P>>(
        &mut self,
        mut packet: P,
        to: Adjacency,
        (kind, l3): (u16, usize),
        most: u16,
        pool: &mut L,
        out: &mut Output<P>,
    ) -> Disposal {
        if !self.address_frame(&mut packet, to, kind, l3) {
            return self.drop(packet, Drop::FrameShort, out);
        }
        let Ok(link) = parse::link(packet.data()) else { return self.drop(packet, Drop::FrameShort, out) };
        let view = if kind == ethertype::IPV4 { parse::ipv4(packet.data(), link.len).ok() } else { None };
        let pieces = match (&view, kind) {
            (Some(view), _) => cut::pieces(view, most),
            (None, ethertype::IPV6) => {
                let headers = link.len + parse::IPV6 + FRAGMENT_HEADER;
                packet.data().len().checked_sub(headers).and_then(|payload| siit::cut::pieces(payload, most))
            }
            (None, _) => None,
        };
        let Some(pieces) = pieces else { return self.drop(packet, Drop::FragmentationNeeded, out) };
        let before = out.transmit.len();
        if out.transmit.capacity() - before < pieces {
            return self.drop(packet, Drop::TransmitFull, out);
        }
        let sent = |fragment| out.transmit.push((to.interface, fragment));
        let done = match &view {
            Some(view) => cut::cut(packet, view, most, pool, sent),
            None => siit::cut::cut(packet, link.len, most, pool, sent),
        };
        match done {
            Ok(()) => {
                self.counters.cut.add(1);
                self.counters.pieces.add(pieces as u64);
                self.counters.originated.add(pieces as u64 - 1);
                Disposal::Transmit(to.interface)
            }
            Err(packet) => {
                out.transmit.truncate(before);
                self.drop(packet, Drop::PoolEmpty, out)
            }
        }
    }

    /// How a packet that has crossed looks now.
    fn tell_crossed(&mut self, packet: &P, l3: usize) {
        if self.traces.is_some() {
            let frame = packet.data();
            let read = match frame.get(l3).map(|byte| byte >> 4) {
                Some(4) => parse::ipv4(frame, l3).map(super::Read::Four),
                _ => parse::ipv6(frame, l3).map(super::Read::Six),
            };
            self.story.after = read.ok().as_ref().and_then(super::endpoints);
        }
    }
}
