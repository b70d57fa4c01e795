//! Stateless translation between IPv4 and IPv6: which packets cross from one family to the other, and by which addresses.
//!
//! A translator stands between a zone where IPv4 comes from and one where IPv6 does. An address is translated by the table of explicit
//! mappings (RFC 7757), else by a prefix that embeds it (RFC 6052). The prefixes, and what of IPv4 is embedded in them, are
//! destinations of their own ([`Target::Cross`]); so a more specific route leads past them. So it does past a mapping, which is no
//! route. And of a mapping's two addresses one is that of a host, and the other one only stands for it: packets to the host, in
//! its own family, do not cross. Which one that is the routes tell: the host's zone is known by more than a default route.

use std::net::IpAddr;

use crate::plan::{CrossingSpec, InterfaceId, IpPrefix, NextHop, Plan, Spec, Target, ZoneId};
use crate::route::trie::Trie;
use crate::translate::eam::{Hairpin, Role, is_looked_up_by_simple};

/// What is known of a translator beside its [`CrossingSpec`].
#[derive(Debug)]
pub struct Crossing {
    /// Its place in [`Spec::crossings`].
    pub index: u16,
    /// Routes and addresses of our own that are more specific than the mapping around them.
    native4: Trie,
    native6: Trie,
    /// What lies in the zones on either side, by more than a default route.
    known4: Trie,
    known6: Trie,
}

/// All translators.
#[derive(Debug)]
pub struct Crossings {
    all: Vec<Crossing>,
    /// The one that IPv4 packets from a zone may cross by, and IPv6 packets.
    from4: Vec<Option<u16>>,
    from6: Vec<Option<u16>>,
}

/// How a destination of IPv6 was found in IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination4 {
    /// The address, host order.
    pub address: u32,
    /// It was embedded in a prefix, and not mapped.
    pub embedded: bool,
}

impl Crossings {
    pub(crate) fn compile(spec: &Spec) -> Self {
        let none = || vec![None; spec.zones.len()];
        let mut all = Crossings { all: Vec::new(), from4: none(), from6: none() };
        for (it, index) in spec.crossings.iter().zip(0..) {
            let mut crossing = Crossing {
                index,
                native4: Trie::new(),
                native6: Trie::new(),
                known4: Trie::new(),
                known6: Trie::new(),
            };
            for (native, zone) in natives(spec) {
                let is_known = |side: ZoneId| native.len > 0 && zone == Some(side);
                match native.address {
                    IpAddr::V4(address) => {
                        let row = it.mappings.row4(address.to_bits());
                        if row.is_some_and(|row| row.v4_len < native.len) {
                            crossing.native4.insert(&address.octets(), native.len, 0);
                        }
                        if is_known(it.ipv4) {
                            crossing.known4.insert(&address.octets(), native.len, 0);
                        }
                    }
                    IpAddr::V6(address) => {
                        let row = it.mappings.row6(address.to_bits());
                        if row.is_some_and(|row| row.v6_len < native.len) {
                            crossing.native6.insert(&address.octets(), native.len, 0);
                        }
                        if is_known(it.ipv6) {
                            crossing.known6.insert(&address.octets(), native.len, 0);
                        }
                    }
                }
            }
            for (zones, zone) in [(&mut all.from4, it.ipv4), (&mut all.from6, it.ipv6)] {
                if let Some(place) = zones.get_mut(usize::from(zone.0)) {
                    *place = Some(index);
                }
            }
            all.all.push(crossing);
        }
        all
    }

    /// The translator that IPv4 packets from this zone may cross by.
    #[inline]
    #[must_use]
    pub fn from4(&self, zone: ZoneId) -> Option<u16> {
        *self.from4.get(usize::from(zone.0))?
    }

    /// The translator that IPv6 packets from this zone may cross by.
    #[inline]
    #[must_use]
    pub fn from6(&self, zone: ZoneId) -> Option<u16> {
        *self.from6.get(usize::from(zone.0))?
    }
}

/// Connected prefixes, addresses of our own, and routes, with the zones that they lead to.
fn natives(spec: &Spec) -> impl Iterator<Item = (IpPrefix, Option<ZoneId>)> {
    let own =
        spec.interfaces.iter().flat_map(|interface| interface.addresses.iter().map(move |own| (own, interface.zone)));
    let own = own.flat_map(|(own, zone)| {
        let len = if own.address.is_ipv4() { 32 } else { 128 };
        [(own.network(), Some(zone)), (IpPrefix { address: own.address, len }, Some(zone))]
    });
    let zone = |id: InterfaceId| spec.interfaces.get(usize::from(id.0)).map(|interface| interface.zone);
    let routes = spec.routes.iter().map(move |route| match route.next_hop {
        NextHop::Via(_, id) | NextHop::OnLink(id) => (route.prefix, zone(id)),
        NextHop::Unreachable => (route.prefix, None),
    });
    own.chain(routes)
}

impl Plan {
    /// A translator, with what the file says of it.
    #[inline]
    #[must_use]
    pub fn crossing(&self, index: u16) -> Option<(&Crossing, &CrossingSpec)> {
        Some((self.crossings.all.get(usize::from(index))?, self.spec.crossings.get(usize::from(index))?))
    }
}

impl Crossing {
    /// The IPv6 address that an IPv4 destination (host order) stands for, which means `target`. None: it is routed.
    #[inline]
    #[must_use]
    pub fn destination6(&self, spec: &CrossingSpec, address: u32, target: Option<Target>) -> Option<u128> {
        match spec.mappings.to6(address) {
            Some(to) => {
                let is_host = self.known4.lookup4(address).is_some() && self.known6.lookup6(to).is_none();
                (!is_host && self.native4.lookup4(address).is_none()).then_some(to)
            }
            _ if target == Some(Target::Cross(self.index)) => spec.embed(Role::Destination, address),
            _ => None,
        }
    }

    /// The IPv4 address that an IPv6 destination stands for, which means `target`. None: it is routed.
    #[inline]
    #[must_use]
    pub fn destination4(&self, spec: &CrossingSpec, address: u128, target: Option<Target>) -> Option<Destination4> {
        match spec.mappings.to4(address) {
            Some(to) => {
                let is_host = self.known6.lookup6(address).is_some() && self.known4.lookup4(to).is_none();
                let crosses = !is_host && self.native6.lookup6(address).is_none();
                crosses.then_some(Destination4 { address: to, embedded: false })
            }
            _ if target == Some(Target::Cross(self.index)) => {
                spec.extract(address).map(|address| Destination4 { address, embedded: true })
            }
            _ => None,
        }
    }
}

impl CrossingSpec {
    /// The IPv4 address embedded in an IPv6 address, by any of the prefixes.
    #[inline]
    #[must_use]
    pub fn extract(&self, address: u128) -> Option<u32> {
        self.prefixes.iter().find_map(|prefix| prefix.extract(address))
    }

    /// An IPv4 address (host order), embedded. Who is in IPv6 may have a prefix of its own.
    #[inline]
    #[must_use]
    pub fn embed(&self, role: Role, address: u32) -> Option<u128> {
        let prefix = match role {
            Role::Destination | Role::QuotedSource => self.destination_prefix.as_ref().or(self.prefixes.first()),
            Role::Source | Role::QuotedDestination => self.prefixes.first(),
        };
        prefix.map(|prefix| prefix.embed(address))
    }

    /// Whether an embedded address may not stand where it does: the well-known prefix does not stand before addresses that are not
    /// global (RFC 6052 §3.1).
    #[must_use]
    pub fn is_barred(&self, address: u128) -> bool {
        self.prefixes.iter().any(|it| it.extract(address).is_some_and(|embedded| !it.may_embed(embedded)))
    }

    /// The IPv4 address (host order) of an IPv6 address that is no destination of its packet.
    #[inline]
    #[must_use]
    pub fn to4(&self, address: u128) -> Option<u32> {
        self.mappings.to4(address).or_else(|| self.extract(address))
    }

    /// The IPv6 address of an IPv4 address (host order) that is no destination of its packet. `quoted` is the destination of the packet
    /// that an ICMP error quotes.
    #[inline]
    #[must_use]
    pub fn to6(&self, role: Role, address: u32, quoted: Option<u32>) -> Option<u128> {
        let is_mapped = self.hairpin != Hairpin::Simple || is_looked_up_by_simple(role, address, quoted);
        let mapped = if is_mapped { self.mappings.to6(address) } else { None };
        mapped.or_else(|| self.embed(role, address))
    }

    /// The IPv6 address of an IPv4 address, on the way back of a packet that hosts behind the table send to each other (RFC 7757
    /// §4.2.2): its peer stays embedded, and it is mapped.
    #[must_use]
    pub fn back6(&self, role: Role, address: u32) -> Option<u128> {
        let embedded = || self.embed(role, address);
        match role {
            Role::Source | Role::QuotedDestination => embedded(),
            Role::Destination | Role::QuotedSource => self.mappings.to6(address).or_else(embedded),
        }
    }

    /// The source of an ICMP error from a router in IPv6 that has no address in IPv4 (RFC 6791 §4), host order: one of those that the
    /// file gives, by `chance`.
    #[must_use]
    pub fn error_source4(&self, chance: u32) -> Option<u32> {
        let total: u64 =
            self.error_sources.iter().map(|range| u64::from(range.end().to_bits() - range.start().to_bits()) + 1).sum();
        let mut left = u64::from(chance).checked_rem(total)?;
        for range in &self.error_sources {
            let (first, count) =
                (range.start().to_bits(), u64::from(range.end().to_bits() - range.start().to_bits()) + 1);
            if left < count {
                return Some(first + u32::try_from(left).unwrap_or(0));
            }
            left -= count;
        }
        None
    }
}
