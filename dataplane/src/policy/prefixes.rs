//! Stateless translation of prefixes: which rule covers a packet, and what its addresses become.
//!
//! From inside, a rule is found by the packet's source, between the zone that it comes from and the one that it is routed to;
//! of several the one with the longest prefix. From outside, by the destination: rules' outside prefixes are destinations of
//! their own ([`Target::Prefix`]), so a more specific route leads past them. From inside to an outside prefix both ends are
//! exchanged, and the packet is turned round (RFC 6296 §4.3).

use std::net::IpAddr;

use crate::counters::Translator;
use crate::plan::{IpPrefix, Plan, PrefixKind, PrefixRule, Spec, Target, ZoneId};
use crate::translate::Unmapped;
use crate::translate::exchange::Pair;
use crate::translate::map66::Map66;
use crate::translate::netmap::Netmap;
use crate::translate::nptv6::Nptv6;

/// An address: of IPv4 or IPv6, in host order.
pub trait Address: Copy + Eq {
    /// How its prefixes are exchanged.
    type Map: Copy + std::fmt::Debug;

    /// The rules for it.
    fn rules(prefixes: &Prefixes) -> &Rules<Self>;
    /// Whether a prefix, given with its host bits zero, covers it.
    fn is_in(self, prefix: Self, host: Self) -> bool;
    /// Its counterpart outside.
    fn outbound(self, map: &Self::Map) -> Result<Self, Unmapped>;
    /// Its counterpart inside.
    fn inbound(self, map: &Self::Map) -> Result<Self, Unmapped>;
    /// What a destination means.
    fn target(self, plan: &Plan) -> Option<Target>;
}

/// How an IPv6 prefix is exchanged.
#[derive(Clone, Copy, Debug)]
pub enum Map6 {
    /// As RFC 6296 says.
    Nptv6(Nptv6),
    /// As MAP66 did.
    Map66(Map66),
    /// Bit by bit.
    Netmap(Netmap<u128>),
}

impl Address for u128 {
    type Map = Map6;

    #[inline]
    fn rules(prefixes: &Prefixes) -> &Rules<u128> {
        &prefixes.six
    }

    #[inline]
    fn is_in(self, prefix: u128, host: u128) -> bool {
        (self ^ prefix) & !host == 0
    }

    #[inline]
    fn outbound(self, map: &Map6) -> Result<u128, Unmapped> {
        match map {
            Map6::Nptv6(map) => map.outbound(self),
            Map6::Map66(map) => map.outbound(self),
            Map6::Netmap(map) => Ok(map.outbound(self)),
        }
    }

    #[inline]
    fn inbound(self, map: &Map6) -> Result<u128, Unmapped> {
        match map {
            Map6::Nptv6(map) => map.inbound(self),
            Map6::Map66(map) => map.inbound(self),
            Map6::Netmap(map) => Ok(map.inbound(self)),
        }
    }

    #[inline]
    fn target(self, plan: &Plan) -> Option<Target> {
        plan.target6(self)
    }
}

impl Address for u32 {
    type Map = Netmap<u32>;

    #[inline]
    fn rules(prefixes: &Prefixes) -> &Rules<u32> {
        &prefixes.four
    }

    #[inline]
    fn is_in(self, prefix: u32, host: u32) -> bool {
        (self ^ prefix) & !host == 0
    }

    #[inline]
    fn outbound(self, map: &Netmap<u32>) -> Result<u32, Unmapped> {
        Ok(map.outbound(self))
    }

    #[inline]
    fn inbound(self, map: &Netmap<u32>) -> Result<u32, Unmapped> {
        Ok(map.inbound(self))
    }

    #[inline]
    fn target(self, plan: &Plan) -> Option<Target> {
        plan.target4(self)
    }
}

/// A prefix, ready for matching.
#[derive(Clone, Copy, Debug)]
struct Covered<A> {
    prefix: A,
    host: A,
}

/// A rule, ready for use.
#[derive(Debug)]
struct Rule<A: Address> {
    /// Its place in [`Spec::prefixes`].
    index: u16,
    from: ZoneId,
    to: ZoneId,
    inside: Covered<A>,
    outside: Covered<A>,
    /// The gateway's own addresses are mapped like any other.
    maps_own: bool,
    /// Otherwise those of the inside prefix, which are not.
    own: Box<[A]>,
    translator: Translator,
    map: A::Map,
}

/// The rules of one family.
#[derive(Debug)]
pub struct Rules<A: Address> {
    /// In the order in which they are asked: longer inside prefixes first.
    rules: Vec<Rule<A>>,
    /// The place in `rules` of each rule, by its place in [`Spec::prefixes`].
    places: Vec<Option<u16>>,
    /// Zones that a rule has its inside in.
    inside: Vec<bool>,
}

/// All rules.
#[derive(Debug)]
pub struct Prefixes {
    six: Rules<u128>,
    four: Rules<u32>,
}

/// What a packet's addresses become by a rule.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<A> {
    /// Source and destination.
    pub to: Pair<A>,
    /// What the destination means then.
    pub target: Option<Target>,
    /// The rule by which it was done, as its place in [`Spec::prefixes`].
    pub rule: u16,
    /// What it is counted under.
    pub translator: Translator,
    /// The rules that exchange the source, and the destination; the same, unless a packet is turned round.
    by: (Option<u16>, Option<u16>),
    /// The zone that it leads to: not elsewhere, whatever the routes say.
    pub zone: ZoneId,
}

/// Why a packet that a rule covers can't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Unmapped,
    /// It is its source; otherwise its destination.
    pub source: bool,
}

impl<A> Exchange<A> {
    /// Whether the packet leaves outward, and whether it comes inward; both, if it is turned round.
    #[inline]
    #[must_use]
    pub const fn directions(&self) -> [bool; 2] {
        [self.by.0.is_some(), self.by.1.is_some()]
    }
}

impl<A: Address> Rules<A> {
    fn new(zones: usize) -> Self {
        Rules { rules: Vec::new(), places: Vec::new(), inside: vec![false; zones] }
    }

    fn by_index(&self, index: u16) -> Option<&Rule<A>> {
        self.rules.get(usize::from((*self.places.get(usize::from(index))?)?))
    }

    /// The rule that covers a source between two zones.
    #[inline]
    fn outbound(&self, from: ZoneId, to: ZoneId, source: A) -> Option<&Rule<A>> {
        let covers =
            |rule: &&Rule<A>| rule.from == from && rule.to == to && source.is_in(rule.inside.prefix, rule.inside.host);
        self.rules.iter().find(covers)
    }

    fn finish(&mut self) {
        for (rule, place) in self.rules.iter().zip(0..) {
            let index = usize::from(rule.index);
            if self.places.len() <= index {
                self.places.resize(index + 1, None);
            }
            self.places[index] = Some(place);
            if let Some(inside) = self.inside.get_mut(usize::from(rule.from.0)) {
                *inside = true;
            }
        }
    }
}

impl Prefixes {
    pub(crate) fn compile(spec: &Spec) -> Self {
        let mut all = Prefixes { six: Rules::new(spec.zones.len()), four: Rules::new(spec.zones.len()) };
        let mut sorted: Vec<(u16, &PrefixRule)> = (0..).zip(&spec.prefixes).collect();
        sorted.sort_by_key(|(_, rule)| std::cmp::Reverse(rule.inside.len));
        for (index, rule) in sorted {
            let &PrefixRule { from, to, inside, outside, kind, .. } = rule;
            let translator = match kind {
                PrefixKind::Nptv6 { .. } => Translator::Nptv6,
                PrefixKind::Map66 { .. } => Translator::Map66,
                PrefixKind::Netmap => Translator::Netmap,
            };
            let maps_own = kind == PrefixKind::Map66 { maps_own: true };
            let own = spec.interfaces.iter().flat_map(|interface| &interface.addresses).map(|it| it.address);
            let own = own.filter(|&address| !maps_own && inside.contains(address));
            match (bits(inside), bits(outside)) {
                ((Bits::Six(from_net), from_host), (Bits::Six(to_net), to_host)) => {
                    let netmap = || Some(Map6::Netmap(Netmap::<u128>::new(from_net, to_net, inside.len)));
                    let map = match kind {
                        PrefixKind::Nptv6 { allow_zero_iid } => {
                            let (inside, outside) = ((from_net, inside.len), (to_net, outside.len));
                            Nptv6::new(inside, outside, allow_zero_iid).map(Map6::Nptv6)
                        }
                        PrefixKind::Map66 { .. } => Map66::new(from_net, to_net, inside.len).map(Map6::Map66),
                        PrefixKind::Netmap => netmap(),
                    };
                    let Some(map) = map else { continue };
                    let inside = Covered { prefix: from_net, host: from_host };
                    let outside = Covered { prefix: to_net, host: to_host };
                    let own = own.filter_map(|it| match it {
                        IpAddr::V6(it) => Some(it.to_bits()),
                        IpAddr::V4(_) => None,
                    });
                    let own = own.collect();
                    all.six.rules.push(Rule { index, from, to, inside, outside, maps_own, own, translator, map });
                }
                ((Bits::Four(from_net), from_host), (Bits::Four(to_net), to_host)) => {
                    #[allow(clippy::cast_possible_truncation)] // of a prefix of IPv4
                    let [from_host, to_host] = [from_host, to_host].map(|host| host as u32);
                    let map = Netmap::<u32>::new(from_net, to_net, inside.len);
                    let inside = Covered { prefix: from_net, host: from_host };
                    let outside = Covered { prefix: to_net, host: to_host };
                    let own = own.filter_map(|it| match it {
                        IpAddr::V4(it) => Some(it.to_bits()),
                        IpAddr::V6(_) => None,
                    });
                    let own = own.collect();
                    all.four.rules.push(Rule { index, from, to, inside, outside, maps_own, own, translator, map });
                }
                _ => {}
            }
        }
        all.six.finish();
        all.four.finish();
        all
    }

    /// Whether a rule may exchange the source of packets from this zone.
    #[inline]
    #[must_use]
    pub fn is_inside<A: Address>(&self, zone: ZoneId) -> bool {
        A::rules(self).inside.get(usize::from(zone.0)).copied().unwrap_or(false)
    }
}

impl Prefixes {
    /// What each rule that covers an address makes of it: the rule's place in [`Spec::prefixes`], whether the address is inside, and
    /// its counterpart.
    pub fn counterparts<A: Address>(&self, address: A) -> Vec<(u16, bool, Result<A, Unmapped>)> {
        let rules = A::rules(self).rules.iter();
        let found = rules.flat_map(|rule| {
            let inside = address.is_in(rule.inside.prefix, rule.inside.host);
            let outside = address.is_in(rule.outside.prefix, rule.outside.host);
            let inside = inside.then(|| (rule.index, true, address.outbound(&rule.map)));
            inside.into_iter().chain(outside.then(|| (rule.index, false, address.inbound(&rule.map))))
        });
        found.collect()
    }

    /// Whether a rule exchanges this source between two zones, and so comes before all that keeps state.
    #[must_use]
    pub fn covers<A: Address>(&self, from: ZoneId, to: ZoneId, source: A) -> bool {
        A::rules(self).outbound(from, to, source).is_some()
    }
}

enum Bits {
    Four(u32),
    Six(u128),
}

/// A prefix's bits, and those behind it.
fn bits(prefix: IpPrefix) -> (Bits, u128) {
    match prefix.network().address {
        IpAddr::V4(address) => {
            (Bits::Four(address.to_bits()), u32::MAX.checked_shr(prefix.len.into()).unwrap_or(0).into())
        }
        IpAddr::V6(address) => (Bits::Six(address.to_bits()), u128::MAX.checked_shr(prefix.len.into()).unwrap_or(0)),
    }
}

impl Plan {
    /// What the addresses of a packet from `zone` become, whose destination means `target`. None: no rule covers it.
    ///
    /// # Errors
    /// A rule covers it, and an address has no counterpart.
    #[inline(always)]
    pub fn exchange<A: Address>(
        &self,
        zone: ZoneId,
        (source, destination): Pair<A>,
        target: Option<Target>,
    ) -> Result<Option<Exchange<A>>, Refusal> {
        let rules = A::rules(&self.prefixes);
        let inward = match target {
            Some(Target::Prefix(index)) => rules.by_index(index),
            // Where the gateway's own addresses are mapped too.
            Some(Target::Local(_)) => rules.rules.iter().find(|rule| {
                rule.maps_own && rule.to == zone && destination.is_in(rule.outside.prefix, rule.outside.host)
            }),
            _ => None,
        };
        if let Some(inward) = inward.filter(|rule| [rule.from, rule.to].contains(&zone)) {
            let inside = destination.inbound(&inward.map).map_err(|reason| Refusal { reason, source: false })?;
            let outward = if zone == inward.from { rules.outbound(zone, inward.to, source) } else { None };
            let outside = self.outbound(outward, source)?;
            return Ok(Some(Exchange {
                to: (outside, inside),
                target: inside.target(self),
                rule: inward.index,
                translator: inward.translator,
                by: (outward.map(|rule| rule.index), Some(inward.index)),
                zone: inward.from,
            }));
        }
        if !self.prefixes.is_inside::<A>(zone) {
            return Ok(None);
        }
        let Some(to) = target.and_then(|target| self.egress_zone(target)) else { return Ok(None) };
        let Some(outward) = rules.outbound(zone, to, source) else { return Ok(None) };
        // One of our own on that side is what it is.
        if outward.own.contains(&source) {
            return Ok(None);
        }
        let outside = self.outbound(Some(outward), source)?;
        Ok(Some(Exchange {
            to: (outside, destination),
            target,
            rule: outward.index,
            translator: outward.translator,
            by: (Some(outward.index), None),
            zone: to,
        }))
    }

    /// The exchange of an ICMP error from `zone` whose own addresses no rule covers, about a packet that was delivered to `quoted`: its
    /// destination means `target`. None: no rule covers that either.
    #[must_use]
    pub fn exchange_of_error<A: Address>(
        &self,
        zone: ZoneId,
        addresses: Pair<A>,
        quoted: A,
        target: Option<Target>,
    ) -> Option<Exchange<A>> {
        let to = self.egress_zone(target?)?;
        let rule = A::rules(&self.prefixes).outbound(zone, to, quoted).filter(|rule| !rule.own.contains(&quoted))?;
        let (rule, translator) = (rule.index, rule.translator);
        Some(Exchange { to: addresses, target, rule, translator, by: (Some(rule), None), zone: to })
    }

    fn outbound<A: Address>(&self, rule: Option<&Rule<A>>, source: A) -> Result<A, Refusal> {
        let outside = rule.map_or(Ok(source), |rule| source.outbound(&rule.map));
        outside.map_err(|reason| Refusal { reason, source: true })
    }

    /// The addresses of the packet that an ICMP error quotes, which is exchanged itself: its destination is where the error comes from,
    /// and its source where it goes to. What has no counterpart stays as it is.
    #[must_use]
    pub fn exchange_quoted<A: Address>(&self, exchange: &Exchange<A>, (source, destination): Pair<A>) -> Pair<A> {
        let rules = A::rules(&self.prefixes);
        let rule = |index: Option<u16>| index.and_then(|index| rules.by_index(index));
        let inside = |address: A, rule: &Rule<A>| {
            address.is_in(rule.outside.prefix, rule.outside.host).then(|| address.inbound(&rule.map).ok()).flatten()
        };
        let outside = |address: A, rule: &Rule<A>| {
            address.is_in(rule.inside.prefix, rule.inside.host).then(|| address.outbound(&rule.map).ok()).flatten()
        };
        let (outward, inward) = exchange.by;
        (
            rule(inward).and_then(|rule| inside(source, rule)).unwrap_or(source),
            rule(outward).and_then(|rule| outside(destination, rule)).unwrap_or(destination),
        )
    }
}
