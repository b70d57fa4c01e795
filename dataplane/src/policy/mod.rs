//! What to do with a flow that has no session: zones, translation rules, static entries.
//!
//! Consulted on a miss only; the session then holds what was decided. From inside, in this order: the source's static
//! whole-address entry, its port forward, the first rule that covers it. From outside: the static entry of the
//! destination, or a mapping whose filtering admits the sender.

pub mod crossing;
pub mod prefixes;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::plan::{Filtering, ForwardProtocol, IpPrefix, Named, PlanError, Spec, ZoneId};
use crate::pool::Proto;
use crate::trace::RuleRef;

/// An IPv4 prefix, ready for matching.
#[derive(Clone, Copy, Debug)]
struct Match4 {
    value: u32,
    mask: u32,
}

impl Match4 {
    fn all_of(prefixes: &[IpPrefix]) -> Vec<Match4> {
        let of = |prefix: &IpPrefix| match prefix.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.len)).unwrap_or(0);
                Some(Match4 { value: address.to_bits() & mask, mask })
            }
            IpAddr::V6(_) => None,
        };
        prefixes.iter().filter_map(of).collect()
    }

    fn any(matches: &[Match4], address: u32) -> bool {
        matches.is_empty() || matches.iter().any(|it| address & it.mask == it.value)
    }
}

/// A rule's matching part.
#[derive(Debug)]
struct Rule {
    index: u16,
    source: Vec<Match4>,
    destination: Vec<Match4>,
}

/// A static entry, ready for use.
#[derive(Clone, Copy, Debug)]
pub struct StaticEntry {
    /// Inside address, host order.
    pub inside: u32,
    /// Inside port.
    pub inside_port: u16,
    /// External address, host order.
    pub external: u32,
    /// External port.
    pub external_port: u16,
    /// Which entry it is.
    pub rule: RuleRef,
    /// What it admits from outside.
    pub filtering: Filtering,
    /// Where its inside host is.
    pub inside_zone: ZoneId,
    /// Who may use it.
    pub outside_zone: ZoneId,
}

/// What translates a flow from inside.
#[derive(Clone, Copy, Debug)]
pub enum Translation {
    /// A forward or a static entry.
    Static(StaticEntry),
    /// A NAT44 rule, by index.
    Nat44(u16),
}

impl Translation {
    /// The part of the configuration that it is.
    #[must_use]
    pub const fn reference(&self) -> RuleRef {
        match self {
            Translation::Static(entry) => entry.rule,
            Translation::Nat44(index) => RuleRef::Nat44(*index),
        }
    }
}

impl StaticEntry {
    /// What stands in a vacant place. No table leads there.
    const NONE: StaticEntry = StaticEntry {
        inside: 0,
        inside_port: 0,
        external: 0,
        external_port: 0,
        rule: RuleRef::None,
        filtering: Filtering::AddressPortDependent,
        inside_zone: ZoneId(u8::MAX),
        outside_zone: ZoneId(u8::MAX),
    };
}

/// The compiled rules.
#[derive(Debug)]
pub struct Policy {
    zones: usize,
    /// Rules by (from, to): index `from * zones + to`.
    rules: Vec<Vec<Rule>>,
    /// Whether packets from a zone may be translated as coming from inside.
    inside: Vec<bool>,
    /// The pool of the first rule from each zone.
    first_pools: Vec<Option<u16>>,
    whole: Vec<StaticEntry>,
    whole_by_inside: HashMap<u32, u16>,
    forwards: Vec<StaticEntry>,
    /// Hosts behind a forward, with the zone that it serves.
    forwarded: HashSet<(u32, ZoneId)>,
    forwards_in: HashMap<(u32, Proto, u16), u16>,
    forwards_out: HashMap<(u32, Proto, u16), u16>,
}

impl Policy {
    /// From a specification whose indexes are checked.
    ///
    /// # Errors
    /// When two static entries claim the same address or port.
    pub fn compile(spec: &Spec) -> Result<Policy, PlanError> {
        let zones = spec.zones.len();
        let mut policy = Policy {
            zones,
            rules: (0..zones * zones).map(|_| Vec::new()).collect(),
            inside: vec![false; zones],
            first_pools: vec![None; zones],
            whole: Vec::new(),
            whole_by_inside: HashMap::new(),
            forwards: Vec::new(),
            forwarded: HashSet::new(),
            forwards_in: HashMap::new(),
            forwards_out: HashMap::new(),
        };
        for index in spec.rule_order() {
            let Some(rule) = spec.nat44.get(usize::from(index)).filter(|rule| !rule.is_vacant()) else { continue };
            let (source, destination) = (Match4::all_of(&rule.source), Match4::all_of(&rule.destination));
            policy.rules[usize::from(rule.from.0) * zones + usize::from(rule.to.0)].push(Rule {
                index,
                source,
                destination,
            });
            policy.inside[usize::from(rule.from.0)] = true;
            policy.first_pools[usize::from(rule.from.0)].get_or_insert(rule.pool.0);
        }
        for (entry, index) in spec.static_nat.iter().zip(0..) {
            if entry.is_vacant() {
                // Keeps the places.
                policy.whole.push(StaticEntry::NONE);
                continue;
            }
            policy.inside[usize::from(entry.inside_zone.0)] = true;
            policy.whole.push(StaticEntry {
                inside: entry.inside.to_bits(),
                inside_port: 0,
                external: entry.external.to_bits(),
                external_port: 0,
                rule: RuleRef::Static(index),
                filtering: entry.filtering,
                inside_zone: entry.inside_zone,
                outside_zone: entry.outside_zone,
            });
            if policy.whole_by_inside.insert(entry.inside.to_bits(), index).is_some() {
                let text = format!("static {}", entry.name);
                return Err(PlanError::Overlap(text, format!("another static entry of {}", entry.inside)));
            }
        }
        for (forward, index) in spec.forwards.iter().zip(0..) {
            if forward.is_vacant() {
                policy.forwards.push(StaticEntry::NONE);
                continue;
            }
            policy.inside[usize::from(forward.inside_zone.0)] = true;
            let proto = match forward.protocol {
                ForwardProtocol::Tcp => Proto::Tcp,
                ForwardProtocol::Udp => Proto::Udp,
            };
            let entry = StaticEntry {
                inside: forward.inside.to_bits(),
                inside_port: forward.inside_port,
                external: forward.external.to_bits(),
                external_port: *forward.external_ports.start(),
                rule: RuleRef::Forward(index),
                filtering: forward.filtering,
                inside_zone: forward.inside_zone,
                outside_zone: forward.outside_zone,
            };
            for (port, step) in forward.external_ports.clone().zip(0u16..) {
                let inside_port = forward.inside_port.wrapping_add(step);
                // Of several external ports for one inside port, the lowest is the one that the host is seen under.
                let seen = policy.forwards_out.entry((entry.inside, proto, inside_port)).or_insert(index);
                let under = |index: u16| {
                    spec.forwards.get(usize::from(index)).map(|it| {
                        (it.external, it.external_ports.start().wrapping_add(inside_port.wrapping_sub(it.inside_port)))
                    })
                };
                if under(index) < under(*seen) {
                    *seen = index;
                }
                if let Some(other) = policy.forwards_in.insert((entry.external, proto, port), index) {
                    let other = &spec.forwards[usize::from(other)].name;
                    return Err(PlanError::Overlap(format!("forward {}", forward.name), format!("forward {other}")));
                }
            }
            policy.forwarded.insert((entry.inside, entry.outside_zone));
            policy.forwards.push(entry);
        }
        Ok(policy)
    }

    /// Whether packets from this zone may be translated as coming from inside.
    #[inline]
    #[must_use]
    pub fn is_inside(&self, zone: ZoneId) -> bool {
        self.inside.get(usize::from(zone.0)).copied().unwrap_or(false)
    }

    /// The pool (by index) of the first rule from a zone: the most likely one of a packet from there.
    #[inline]
    #[must_use]
    pub fn first_pool(&self, zone: ZoneId) -> Option<u16> {
        self.first_pools.get(usize::from(zone.0)).copied().flatten()
    }

    /// Whether nothing is translated from this zone to any other, nor from any other to it.
    #[must_use]
    pub fn is_plain(&self, zone: ZoneId) -> bool {
        let statics = self.whole.iter().chain(&self.forwards);
        let mut zones = statics.flat_map(|entry| [entry.inside_zone, entry.outside_zone]);
        let zone_rules = |(at, rules): (usize, &Vec<Rule>)| {
            !rules.is_empty() && [at / self.zones, at % self.zones].contains(&usize::from(zone.0))
        };
        !self.rules.iter().enumerate().any(zone_rules) && !zones.any(|it| it == zone)
    }

    /// The first NAT44 rule that covers a flow from inside. Addresses in host order.
    #[must_use]
    pub fn rule(&self, from: ZoneId, to: ZoneId, source: u32, destination: u32) -> Option<u16> {
        let rules = self.rules.get(usize::from(from.0) * self.zones + usize::from(to.0))?;
        let covers = |rule: &&Rule| Match4::any(&rule.source, source) && Match4::any(&rule.destination, destination);
        rules.iter().find(covers).map(|rule| rule.index)
    }

    /// What translates a flow from inside, before it has a session: the static entry that its source has, or the first rule
    /// that covers it. Addresses in host order; of an ICMP query the port is the identifier.
    #[must_use]
    pub fn translation(
        &self,
        from: ZoneId,
        to: ZoneId,
        source: u32,
        proto: Option<Proto>,
        port: u16,
        destination: u32,
    ) -> Option<Translation> {
        let fits = |entry: &StaticEntry| entry.inside_zone == from && entry.outside_zone == to;
        match self.static_out(source, proto, port).filter(fits) {
            Some(entry) => Some(Translation::Static(entry)),
            None => self.rule(from, to, source, destination).map(Translation::Nat44),
        }
    }

    /// Whether anything translates datagrams from a source inside to a destination, whatever their ports: what a fragment alone
    /// can tell.
    #[must_use]
    pub fn may_translate(&self, from: ZoneId, to: ZoneId, source: u32, destination: u32) -> bool {
        self.translation(from, to, source, None, 0, destination).is_some() || self.forwarded.contains(&(source, to))
    }

    /// Whether this NAT44 rule covers a source between these zones, whatever its destination.
    #[must_use]
    pub fn covers_source(&self, rule: u16, from: ZoneId, to: ZoneId, source: u32) -> bool {
        let rules = self.rules.get(usize::from(from.0) * self.zones + usize::from(to.0));
        rules.is_some_and(|rules| rules.iter().any(|it| it.index == rule && Match4::any(&it.source, source)))
    }

    /// Whether an IPv4 destination is the inside of a translation toward `from`: no mapping, no entry (design §5).
    #[must_use]
    pub fn is_closed(&self, from: ZoneId, to: ZoneId, destination: u32) -> bool {
        let rules = self.rules.get(usize::from(to.0) * self.zones + usize::from(from.0));
        let translated = rules.is_some_and(|rules| rules.iter().any(|rule| Match4::any(&rule.source, destination)));
        translated
            || self.forwarded.contains(&(destination, from))
            || self.whole_out(destination).is_some_and(|entry| entry.outside_zone == from)
    }

    /// The static entry that a flow from inside leaves by: of its whole address, or of its port.
    #[must_use]
    pub fn static_out(&self, inside: u32, proto: Option<Proto>, port: u16) -> Option<StaticEntry> {
        if let Some(entry) = self.whole_out(inside) {
            return Some(StaticEntry { inside_port: port, external_port: port, ..*entry });
        }
        let index = *self.forwards_out.get(&(inside, proto?, port))?;
        self.forwards.get(usize::from(index)).map(|entry| at_inside_port(entry, port))
    }

    /// The whole-address entry of an inside address.
    #[must_use]
    pub fn whole_out(&self, inside: u32) -> Option<&StaticEntry> {
        self.whole_by_inside.get(&inside).and_then(|&index| self.whole.get(usize::from(index)))
    }

    /// The static entry that leads inside from an external address (host order) and port: `whole` is the address's
    /// whole-address entry, if it has one.
    #[must_use]
    pub fn static_in(&self, external: u32, whole: Option<u16>, proto: Proto, port: u16) -> Option<StaticEntry> {
        if let Some(entry) = whole.and_then(|index| self.whole.get(usize::from(index))) {
            return Some(StaticEntry { inside_port: port, external_port: port, ..*entry });
        }
        let index = *self.forwards_in.get(&(external, proto, port))?;
        let entry = self.forwards.get(usize::from(index))?;
        let step = port.wrapping_sub(entry.external_port);
        Some(StaticEntry { inside_port: entry.inside_port.wrapping_add(step), external_port: port, ..*entry })
    }
}

fn at_inside_port(entry: &StaticEntry, port: u16) -> StaticEntry {
    let step = port.wrapping_sub(entry.inside_port);
    StaticEntry { inside_port: port, external_port: entry.external_port.wrapping_add(step), ..*entry }
}
