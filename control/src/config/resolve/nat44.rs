//! `nat44`: rules, static entries and port forwards.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use dataplane::plan::{
    Filtering, ForwardProtocol, InterfaceId, IpPrefix, Nat44Rule, NextHop, PoolId, PortForward, StaticNat, ZoneId,
};

use super::{Resolver, id};
use crate::config::address::{Claim, is_host, overlapping, v4_bounds};
use crate::config::decode::{List, Table, Text};
use crate::config::file::{self, Profile};
use crate::config::text::{Endpoint, Name, span};

impl Resolver<'_> {
    /// Rules, in the order of the file.
    pub(super) fn rules(&mut self, table: &Table<Name, file::Rule>) {
        for (Name(name), rule) in &table.0 {
            let key = format!("nat44.rules.{name}");
            let zones = self.zones(&key, rule.from.as_ref(), rule.to.as_ref());
            let source = self.prefixes(&format!("{key}.source"), &rule.source);
            let destination = self.prefixes(&format!("{key}.destination"), &rule.destination);
            let pool = rule.pool.as_ref();
            let pool = pool.and_then(|Text(Name(pool))| self.find(format_args!("{key}.pool"), "pool", pool));
            let Some(((from, to), pool)) = zones.zip(pool) else { continue };
            for range in self.spec.pools[pool].addresses.clone() {
                self.external_not_inside(&format!("{key}.pool"), from, &range);
            }
            let filtering = match rule.profile.0 {
                Profile::Default => Filtering::AddressPortDependent,
                Profile::Cgn => Filtering::EndpointIndependent,
            };
            self.spec.nat44.push(Nat44Rule {
                name: name.clone(),
                from,
                to,
                source,
                destination,
                pool: PoolId(id(pool)),
                filtering: rule.filtering.clone().unwrap_or_default().or(filtering),
                pooling: rule.pooling.0,
                port_preservation: rule.port_preservation.0,
                port_parity: rule.port_parity.0,
                inbound_refresh: rule.inbound_refresh.0,
                mid_stream: rule.mid_stream.0,
            });
        }
    }

    /// The two zones of a translation.
    pub(super) fn zones(
        &mut self,
        key: &str,
        from: Option<&Text<Name>>,
        to: Option<&Text<Name>>,
    ) -> Option<(ZoneId, ZoneId)> {
        let one = from.and_then(|Text(from)| self.zone(format_args!("{key}.from"), from));
        let other = to.and_then(|Text(to)| self.zone(format_args!("{key}.to"), to));
        let (one, other, Text(Name(to))) = (one?, other?, to?);
        if one == other {
            self.problem(
                format_args!("{key}.to"),
                format_args!(
                    "\"{to}\" is also the zone that it comes from; a translation has an inside and an outside, so name \
                     two zones"
                ),
            );
            return None;
        }
        Some((one, other))
    }

    fn prefixes(&mut self, key: &str, prefixes: &List<Text<IpPrefix>>) -> Vec<IpPrefix> {
        for (i, Text(prefix)) in prefixes.iter() {
            let key = format!("{key}[{i}]");
            if prefix.address.is_ipv6() {
                self.problem(&key, format_args!("{prefix} is IPv6, and NAT44 is for IPv4; remove it"));
            } else if prefix.network() != *prefix {
                let net = prefix.network();
                self.problem(&key, format_args!("{prefix} has bits set after its length; write {net}"));
            }
        }
        prefixes.iter().map(|(_, prefix)| prefix.0).collect()
    }

    /// External addresses may not be on a link of the inside zone: the two address spaces would overlap.
    fn external_not_inside(&mut self, key: &str, inside: ZoneId, range: &RangeInclusive<Ipv4Addr>) {
        let found = self.spec.interfaces.iter().filter(|interface| interface.zone == inside).find_map(|interface| {
            let shared = interface.addresses.iter().find_map(|own| {
                let (first, last) = v4_bounds(own)?;
                (first <= *range.end() && *range.start() <= last).then(|| own.network())
            })?;
            Some((shared, interface.name.clone()))
        });
        if let Some((link, name)) = found {
            let range = span(range);
            self.problem(
                key,
                format_args!(
                    "{range} overlaps {link} on the inside interface \"{name}\"; take external addresses from outside"
                ),
            );
        }
    }

    /// Static entries.
    pub(super) fn statics(&mut self, table: &Table<Name, file::Static>) {
        for (Name(name), entry) in &table.0 {
            let key = format!("nat44.static.{name}");
            let Some((outside_zone, inside_zone)) = self.zones(&key, entry.from.as_ref(), entry.to.as_ref()) else {
                continue;
            };
            let Some((Text(external), Text(inside))) = entry.external.zip(entry.inside) else { continue };
            let external_key = format!("{key}.external");
            self.external(&external_key, inside_zone, external);
            if let Some(pool) = self.pool_with(external) {
                self.problem(
                    &external_key,
                    format_args!(
                        "{external} is in pool \"{pool}\"; take it out of the pool, for it belongs to {inside} alone"
                    ),
                );
            }
            if let Some(interface) = self.owner_of(IpAddr::V4(external)) {
                self.problem(
                    &external_key,
                    format_args!(
                        "{external} is the gateway's own address on interface \"{interface}\"; take another, or use \
                     `forwards` for single ports"
                    ),
                );
            }
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.external == external) {
                let message =
                    format!("{external} belongs to nat44.static.{} already; give each its own address", other.name);
                self.problem(&external_key, message);
            }
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.inside == inside) {
                let message =
                    format!("{inside} has an external address by nat44.static.{} already; a host has one", other.name);
                self.problem(format_args!("{key}.inside"), message);
            }
            self.inside_host(&format!("{key}.inside"), inside_zone, inside);
            self.spec.static_nat.push(StaticNat {
                name: name.clone(),
                inside_zone,
                outside_zone,
                external,
                inside,
                filtering: entry.filtering.0,
            });
        }
    }

    /// Port forwards.
    pub(super) fn forwards(&mut self, table: &Table<Name, file::Forward>) {
        let mut claims = Vec::new();
        for (owner, (Name(name), forward)) in table.0.iter().enumerate() {
            let key = format!("nat44.forwards.{name}");
            let Some((outside_zone, inside_zone)) = self.zones(&key, forward.from.as_ref(), forward.to.as_ref()) else {
                continue;
            };
            let (Some(Text(external)), Some(Text(inside))) = (&forward.external, &forward.inside) else { continue };
            let Some(Text(protocol)) = forward.protocol else { continue };
            let Endpoint { address: external, ports: external_ports } = external;
            let Endpoint { address: inside, ports: inside_ports } = inside;
            self.external(&format!("{key}.external"), inside_zone, *external);
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.external == *external) {
                let message = format!(
                    "{external} belongs to nat44.static.{} with all its ports; take another address",
                    other.name
                );
                self.problem(format_args!("{key}.external"), message);
            }
            let inside_port = *inside_ports.start();
            let more = external_ports.end() - external_ports.start();
            if inside_ports.end() != inside_ports.start() && inside_ports.end() - inside_port != more {
                self.problem(
                    format_args!("{key}.inside"),
                    format_args!(
                        "{} and {} are not equally many ports; name the first inside port alone, the others \
                         follow in order",
                        span(inside_ports),
                        span(external_ports)
                    ),
                );
            } else if inside_port.checked_add(more).is_none() {
                self.problem(
                    format_args!("{key}.inside"),
                    format_args!(
                        "{} ports from {inside_port} on go beyond 65535; choose a lower inside port or fewer \
                         external ones",
                        u32::from(more) + 1
                    ),
                );
            }
            self.inside_host(&format!("{key}.inside"), inside_zone, *inside);
            let space = (protocol == ForwardProtocol::Udp, external.to_bits());
            claims.push(Claim { first: (space, *external_ports.start()), last: (space, *external_ports.end()), owner });
            self.spec.forwards.push(PortForward {
                name: name.clone(),
                inside_zone,
                outside_zone,
                protocol,
                external: *external,
                external_ports: external_ports.clone(),
                inside: *inside,
                inside_port,
                filtering: forward.filtering.0,
            });
        }
        for (one, two) in overlapping(claims) {
            let ((udp, address), first) = one.first.max(two.first);
            let ports = span(&(first..=one.last.min(two.last).1));
            let (protocol, address) = (if udp { "udp" } else { "tcp" }, Ipv4Addr::from_bits(address));
            let [one, two] = [one, two].map(|claim| table.0.get_index(claim.owner).map_or("", |(Name(name), _)| name));
            self.problem(
                format_args!("nat44.forwards.{two}.external"),
                format_args!(
                    "{protocol} {address}:{ports} belongs to nat44.forwards.{one} already; choose other ports or \
                     another address"
                ),
            );
        }
    }

    /// What holds for every external address of a static entry.
    fn external(&mut self, key: &str, inside: ZoneId, external: Ipv4Addr) {
        if !is_host(IpAddr::V4(external)) {
            self.problem(
                key,
                format_args!("{external} is no address of a host; write one that is routed to this gateway"),
            );
        }
        self.external_not_inside(key, inside, &(external..=external));
        let router =
            self.spec.routes.iter().find(|route| matches!(route.next_hop, NextHop::Via(via, _) if via == external));
        if let Some(prefix) = router.map(|route| route.prefix) {
            self.problem(
                key,
                format_args!("{external} is the router of the route to {prefix}; take an address of your own"),
            );
        }
    }

    /// An inside host must be where its zone is, and not be the gateway.
    fn inside_host(&mut self, key: &str, zone: ZoneId, host: Ipv4Addr) {
        let host = IpAddr::V4(host);
        let zone_name = self.spec.zones.get(usize::from(zone.0)).cloned().unwrap_or_default();
        if let Some(interface) = self.owner_of(host) {
            self.problem(
                key,
                format_args!("{host} is the gateway's own address on interface \"{interface}\"; name a host behind it"),
            );
            return;
        }
        if !self.sound("interfaces") || !self.sound("routes") {
            return;
        }
        let leads_to = self.route_to(host).map(|InterfaceId(index)| &self.spec.interfaces[usize::from(index)]);
        match leads_to {
            Some(interface) if interface.zone == zone => {}
            Some(interface) => {
                let message = format!(
                    "{host} is reached by interface \"{}\", which is not in zone \"{zone_name}\"; name a host \
                     of that zone",
                    interface.name
                );
                self.problem(key, message);
            }
            None => self.problem(
                key,
                format_args!(
                    "no interface or route leads to {host}; name a host that zone \"{zone_name}\" reaches, or add a \
                 route"
                ),
            ),
        }
    }
}
