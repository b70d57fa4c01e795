//! Stateless translation of prefixes: NPTv6, MAP66, NETMAP.

use super::{Arrival, Engine, Verdict};
use crate::counters::{Drop, IcmpError};
use crate::packet::Packet;
use crate::packet::parse::{Transport, View4, View6};
use crate::plan::Target;
use crate::policy::prefixes::{Exchange, Refusal};
use crate::trace::RuleRef;
use crate::translate::Unmapped;
use crate::translate::exchange;

/// Offsets of source and destination in an IPv6 header: what a parameter problem points at (RFC 6296 §3.7).
const ADDRESSES6: [u16; 2] = [8, 24];

impl<P: Packet> Engine<P> {
    /// An IPv4 packet, if a rule covers it. None: it goes on untouched.
    #[inline(always)]
    pub(super) fn exchange4(&mut self, at: &mut Arrival<P>, view: &View4, target: Option<Target>) -> Option<Verdict> {
        match self.plan.exchange(at.zone, (view.source, view.destination), target) {
            Ok(None) if view.transport == Transport::IcmpError => {
                let quoted = exchange::quoted4(at.packet.data(), view)?.addresses.1;
                let addresses = (view.source, view.destination);
                let exchange = self.plan.exchange_of_error(at.zone, addresses, quoted, target)?;
                Some(self.pass_exchanged4(at, view, &exchange))
            }
            Ok(None) => None,
            Ok(Some(exchange)) => Some(self.pass_exchanged4(at, view, &exchange)),
            // Bits are kept whatever they are.
            Err(_) => Some(Drop::PrefixUnmapped.into()),
        }
    }

    #[inline(never)]
    fn pass_exchanged4(&mut self, at: &mut Arrival<P>, view: &View4, exchange: &Exchange<u32>) -> Verdict {
        let egress = match self.forward4(at, view, exchange.to.1, exchange.target) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        if self.zone(egress.interface) != exchange.zone {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NetUnreachable4, 0)));
        }
        at.packet.truncate(view.end);
        let frame = at.packet.data_mut();
        let quote = exchange::quoted4(frame, view);
        let quote = quote.map(|it| (it, self.plan.exchange_quoted(exchange, it.addresses)));
        exchange::exchange4(frame, view, exchange.to, quote);
        self.clamp_mss4(at, view, egress.interface);
        self.count_exchange(exchange);
        let (source, destination) = exchange.to;
        let ports = crate::session::Tuple4 {
            source,
            destination,
            source_port: view.source_port,
            destination_port: view.destination_port,
        };
        self.tell_after(view, &ports);
        Verdict::Transmit(egress)
    }

    /// An IPv6 packet, if a rule covers it. None: it goes on untouched.
    #[inline(always)]
    pub(super) fn exchange6(&mut self, at: &mut Arrival<P>, view: &View6, target: Option<Target>) -> Option<Verdict> {
        match self.plan.exchange(at.zone, (view.source, view.destination), target) {
            Ok(None) if view.transport == Transport::IcmpError => {
                let quoted = exchange::quoted6(at.packet.data(), view)?.addresses.1;
                let addresses = (view.source, view.destination);
                let exchange = self.plan.exchange_of_error(at.zone, addresses, quoted, target)?;
                Some(self.pass_exchanged6(at, view, &exchange))
            }
            Ok(None) => None,
            Ok(Some(exchange)) => Some(self.pass_exchanged6(at, view, &exchange)),
            Err(refusal) => Some(refused6(refusal)),
        }
    }

    #[inline(never)]
    fn pass_exchanged6(&mut self, at: &mut Arrival<P>, view: &View6, exchange: &Exchange<u128>) -> Verdict {
        let egress = match self.forward6(at, view, exchange.to.1, exchange.target) {
            Ok(egress) => egress,
            Err(verdict) => return verdict,
        };
        if self.zone(egress.interface) != exchange.zone {
            return Verdict::Drop(Drop::NoRoute, Some((IcmpError::NoRoute6, 0)));
        }
        at.packet.truncate(view.end);
        let frame = at.packet.data_mut();
        let quote = exchange::quoted6(frame, view);
        let quote = quote.map(|it| (it, self.plan.exchange_quoted(exchange, it.addresses)));
        exchange::exchange6(frame, view, exchange.to, quote);
        self.clamp_mss6(at, view, egress.interface);
        self.count_exchange(exchange);
        self.tell_after6(view, exchange.to);
        Verdict::Transmit(egress)
    }

    fn count_exchange<A>(&mut self, exchange: &Exchange<A>) {
        let directions = exchange.directions();
        for (counter, counts) in self.counters.exchanged[exchange.translator as usize].iter().zip(directions) {
            counter.add(counts.into());
        }
        self.counters.hairpins.add((directions == [true; 2]).into());
        self.story.rule = RuleRef::Prefix(exchange.rule);
    }
}

/// A packet whose address has no counterpart, and what its sender is told.
#[cold]
fn refused6(refusal: Refusal) -> Verdict {
    match refusal.reason {
        Unmapped::ZeroIdentifier => {
            let pointer = ADDRESSES6[usize::from(!refusal.source)];
            Verdict::Drop(Drop::PrefixZeroIdentifier, Some((IcmpError::ParameterProblem6, pointer)))
        }
        Unmapped::Subnet | Unmapped::Identifier => {
            let error = if refusal.source { IcmpError::SourcePolicy6 } else { IcmpError::AddressUnreachable6 };
            Verdict::Drop(Drop::PrefixUnmapped, Some((error, 0)))
        }
    }
}
