//! One configuration after another.
//!
//! Sessions, mappings, leases, neighbours and counters know zones, interfaces, pools, rules and external addresses by
//! their places in the plan's tables. So a successor keeps the places: what has the same name (or is the same external
//! address) has the same place in both plans, what is new takes a vacant one, and the place of what is gone stays vacant
//! as long as anything may still refer to it. That is until every session has been checked against the successor
//! ([`FromWorker::Swept`](crate::message::FromWorker::Swept)); only then may the next one come.

use std::collections::HashMap;

use super::{
    External, INTERFACES_MAX, IcmpPolicy, InterfaceId, InterfaceSpec, IpPrefix, MacAddr, MssClamp, Nat44Rule, NextHop,
    Plan, PlanError, PoolId, PoolSpec, PortForward, PortId, PrefixRule, Spec, StaticNat, ZoneId,
};
use crate::pool::Leases;

/// What has a name, and a place in a table.
pub(crate) trait Named: Sized {
    /// Its name in the file. A vacant place has none.
    fn name(&self) -> &str;

    /// What stands in a vacant place.
    fn vacant() -> Self;

    /// Whether nothing is in this place.
    fn is_vacant(&self) -> bool {
        self.name().is_empty()
    }
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }

    fn vacant() -> Self {
        String::new()
    }
}

impl Named for InterfaceSpec {
    fn name(&self) -> &str {
        &self.name
    }

    fn vacant() -> Self {
        InterfaceSpec {
            name: String::new(),
            port: PortId(u16::MAX),
            vlan: None,
            outer_vlan: None,
            zone: ZoneId(0),
            mac: MacAddr::default(),
            addresses: Vec::new(),
            mtu: 0,
            neighbours: Vec::new(),
            mss_clamp: MssClamp::Off,
        }
    }
}

impl Named for PoolSpec {
    fn name(&self) -> &str {
        &self.name
    }

    fn vacant() -> Self {
        PoolSpec { name: String::new(), addresses: Vec::new(), ports: 1..=1, proxy_arp: false, answer_echo: false }
    }
}

impl Named for Nat44Rule {
    fn name(&self) -> &str {
        &self.name
    }

    fn vacant() -> Self {
        Nat44Rule {
            name: String::new(),
            from: ZoneId(0),
            to: ZoneId(0),
            source: Vec::new(),
            destination: Vec::new(),
            pool: PoolId(0),
            filtering: super::FilteringSet::default(),
            pooling: super::Pooling::Paired,
            port_preservation: false,
            port_parity: false,
            inbound_refresh: false,
            mid_stream: super::MidStream::Drop,
        }
    }
}

impl Named for PortForward {
    fn name(&self) -> &str {
        &self.name
    }

    fn vacant() -> Self {
        PortForward {
            name: String::new(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(0),
            protocol: super::ForwardProtocol::Tcp,
            external: [0; 4].into(),
            external_ports: 1..=1,
            inside: [0; 4].into(),
            inside_port: 1,
            filtering: super::Filtering::AddressPortDependent,
        }
    }
}

impl Named for StaticNat {
    fn name(&self) -> &str {
        &self.name
    }

    fn vacant() -> Self {
        StaticNat {
            name: String::new(),
            inside_zone: ZoneId(0),
            outside_zone: ZoneId(0),
            external: [0; 4].into(),
            inside: [0; 4].into(),
            filtering: super::Filtering::AddressPortDependent,
        }
    }
}

/// Puts `new` into places: those of the same names in `old`, then vacant ones. Returns the table, and the place of each
/// of `new` in order.
///
/// With `fresh`, places are used again only when there are more than that: what counts by place then never counts for two.
fn placed<T: Named>(old: &[T], new: Vec<T>, fresh: usize) -> (Vec<T>, Vec<usize>) {
    let known: HashMap<&str, usize> =
        old.iter().enumerate().filter(|(_, it)| !it.is_vacant()).map(|(at, it)| (it.name(), at)).collect();
    let mut vacant = (0..old.len()).filter(|&at| old[at].is_vacant());
    let mut beyond = old.len()..;
    let places: Vec<usize> = new
        .iter()
        .map(|it| match known.get(it.name()) {
            Some(&at) => at,
            None if beyond.start < fresh => beyond.next().unwrap_or(usize::MAX),
            None => vacant.next().or_else(|| beyond.next()).unwrap_or(usize::MAX),
        })
        .collect();
    // Vacant places at the end are given up, but for those that something may still refer to, or that count.
    let referred =
        if fresh > 0 { old.len() } else { old.iter().rposition(|it| !it.is_vacant()).map_or(0, |at| at + 1) };
    let len = places.iter().map(|at| at + 1).max().unwrap_or(0).max(referred);
    let mut table: Vec<T> = (0..len).map(|_| T::vacant()).collect();
    for (it, &at) in new.into_iter().zip(&places) {
        if let Some(place) = table.get_mut(at) {
            *place = it;
        }
    }
    (table, places)
}

/// The places of one table, for what refers to it.
fn moved(places: &[usize], index: usize) -> usize {
    places.get(index).copied().unwrap_or(usize::MAX)
}

fn place16(places: &[usize], index: u16) -> u16 {
    u16::try_from(moved(places, usize::from(index))).unwrap_or(u16::MAX)
}

impl Spec {
    /// The same configuration, with everything in the place that it has in `old`.
    fn in_places_of(mut self, old: &Spec) -> Result<Spec, PlanError> {
        let names = |spec: &Spec| spec.ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        if names(&self) != names(old) {
            return Err(PlanError::Ports);
        }
        let (zones, zone_places) = placed(&old.zones, self.zones, 0);
        if zones.len() > usize::from(u8::MAX) + 1 {
            return Err(PlanError::TooMany("zones, together with those that have just gone", 256));
        }
        let zone = |id: ZoneId| ZoneId(u8::try_from(moved(&zone_places, usize::from(id.0))).unwrap_or(u8::MAX));
        let (mut interfaces, interface_places) = placed(&old.interfaces, self.interfaces, INTERFACES_MAX);
        let interface = |id: InterfaceId| InterfaceId(place16(&interface_places, id.0));
        let (pools, pool_places) = placed(&old.pools, self.pools, 0);
        let (mut nat44, rule_places) = placed(&old.nat44, self.nat44, 0);
        let (mut forwards, _) = placed(&old.forwards, self.forwards, 0);
        let (mut static_nat, _) = placed(&old.static_nat, self.static_nat, 0);
        for it in interfaces.iter_mut().filter(|it| !it.is_vacant()) {
            it.zone = zone(it.zone);
        }
        for it in nat44.iter_mut().filter(|it| !it.is_vacant()) {
            (it.from, it.to) = (zone(it.from), zone(it.to));
            it.pool = PoolId(place16(&pool_places, it.pool.0));
        }
        for it in forwards.iter_mut().filter(|it| !it.is_vacant()) {
            (it.inside_zone, it.outside_zone) = (zone(it.inside_zone), zone(it.outside_zone));
        }
        for it in static_nat.iter_mut().filter(|it| !it.is_vacant()) {
            (it.inside_zone, it.outside_zone) = (zone(it.inside_zone), zone(it.outside_zone));
        }
        self.former = former(old, &self.prefixes);
        for it in &mut self.prefixes {
            (it.from, it.to) = (zone(it.from), zone(it.to));
        }
        for it in &mut self.crossings {
            (it.ipv4, it.ipv6) = (zone(it.ipv4), zone(it.ipv6));
        }
        for route in &mut self.routes {
            match &mut route.next_hop {
                NextHop::Via(_, id) | NextHop::OnLink(id) => *id = interface(*id),
                NextHop::Unreachable => {}
            }
        }
        let order =
            if self.nat44_order.is_empty() { (0..).take(rule_places.len()).collect() } else { self.nat44_order };
        let silent = self.icmp.silent.iter().map(|&id| interface(id)).collect();
        Ok(Spec {
            zones,
            interfaces,
            pools,
            nat44_order: order.into_iter().map(|rule: u16| place16(&rule_places, rule)).collect(),
            nat44,
            forwards,
            static_nat,
            icmp: IcmpPolicy { silent, ..self.icmp },
            ..self
        })
    }

    /// The NAT44 rules' places, in the order in which they are asked.
    pub(crate) fn rule_order(&self) -> Vec<u16> {
        if self.nat44_order.is_empty() { (0..).take(self.nat44.len()).collect() } else { self.nat44_order.clone() }
    }
}

/// The outside prefixes that rules of `old` had, and do not have in `new`; of those before them, the last few that nothing has taken.
fn former(old: &Spec, new: &[PrefixRule]) -> Vec<IpPrefix> {
    let renumbered = old.prefixes.iter().filter(|rule| {
        let name = rule.full_name();
        new.iter().any(|it| it.full_name() == name && it.outside != rule.outside)
    });
    let known = old.former.iter().copied().chain(renumbered.map(|rule| rule.outside));
    let is_taken = |prefix: &IpPrefix| {
        new.iter().any(|rule| rule.outside.contains(prefix.address) || prefix.contains(rule.outside.address))
    };
    let mut former: Vec<IpPrefix> = known.filter(|prefix| !is_taken(prefix)).collect();
    former.drain(..former.len().saturating_sub(FORMER_MAX));
    former
}

/// Former outside prefixes that are remembered.
const FORMER_MAX: usize = 16;

impl Plan {
    /// The plan that comes after `old`, for sessions that were made under it: everything that has the same name has the
    /// same place. `leases` are those of `old`; external addresses that `spec` leaves out, but whose pool goes on, are
    /// drained: nothing new is given out there, and the first successor that finds nothing mapped to them any more lets go.
    ///
    /// # Errors
    /// When the specification contradicts itself, or needs what is fixed at start: other ports, more external addresses
    /// than the tables were made for.
    pub fn succeed(old: &Plan, leases: &Leases, spec: Spec) -> Result<Plan, PlanError> {
        let spec = spec.in_places_of(&old.spec)?;
        let draining = old.externals.iter().enumerate().filter(|(id, external)| {
            // Whether its pool goes on: the same name in the same place.
            let pool = external.pool.map(|pool| usize::from(pool.0));
            let goes_on = pool.is_some_and(|pool| spec.pools.get(pool).is_some_and(|it| !it.is_vacant()));
            // One that is found empty the next time is let go; until then its blocks are closed, so that it stays empty.
            goes_on && (!external.draining || u32::try_from(*id).is_ok_and(|id| leases.is_leased(id)))
        });
        let draining = draining.map(|(_, external)| external.clone()).collect();
        Plan::compile_after(spec, Some(&Before::of(old, draining)))
    }

    /// The same plan with these ports' links down, and all others' up: of the same generation, every place the same, and
    /// with the same leases.
    ///
    /// # Errors
    /// None that the plan itself did not have.
    pub fn with_links_down(&self, ports: Vec<PortId>) -> Result<Plan, PlanError> {
        let draining = self.externals.iter().filter(|external| external.draining).cloned().collect();
        let spec = Spec { links_down: ports, ..self.spec.clone() };
        Plan::compile_after(spec, Some(&Before::of(self, draining)))
    }

    /// The same plan, of the same generation, without the drained addresses that nothing is mapped to any more; for
    /// `leases`, which are this plan's, [`Leases::succeed`] gives its own.
    ///
    /// # Errors
    /// None that the plan itself did not have.
    pub fn without_drained(&self, leases: &Leases) -> Result<Plan, PlanError> {
        let externals = (0..).zip(&self.externals);
        let left = externals.filter(|(id, external)| external.draining && leases.is_leased(*id));
        let left = left.map(|(_, external)| external.clone()).collect();
        Plan::compile_after(self.spec.clone(), Some(&Before::of(self, left)))
    }
}

impl Before {
    fn of(old: &Plan, draining: Vec<External>) -> Self {
        Before {
            places: old.externals.iter().zip(0..).map(|(it, id)| (it.address, id)).filter(|it| it.0 != 0).collect(),
            draining,
            len: old.externals.len(),
            capacity: old.capacity,
        }
    }
}

/// What a plan's external addresses have to do with those of the plan before.
#[derive(Debug)]
pub(super) struct Before {
    /// Their places, by address (host order).
    pub(super) places: HashMap<u32, u32>,
    /// Those that may have to be drained, as they were.
    pub(super) draining: Vec<External>,
    /// All places, vacant ones too.
    pub(super) len: usize,
    /// Places that the workers have memory for.
    pub(super) capacity: usize,
}
