//! `interfaces`, and the zones that they name.

use std::collections::HashMap;
use std::net::IpAddr;

use dataplane::plan::{INTERFACES_MAX, InterfaceSpec, IpPrefix, MacAddr, MssClamp, PortId, ZoneId};

use super::{Resolver, id, list};
use crate::config::address::{Claim, bounds, edge_of, host_of, is_host, is_link_local, overlapping};
use crate::config::decode::{List, Table, Text};
use crate::config::file;
use crate::config::text::Name;

/// Zones: what [`ZoneId`] can number.
const ZONES_MAX: usize = 256;
/// The smallest MTU of IPv6 (RFC 8200 §5), in bytes.
const MTU_MIN_V6: u16 = 1280;
/// The smallest segment size worth clamping to, in bytes: the default of RFC 9293 §3.7.1.
const MSS_MIN: u16 = 536;

impl Resolver<'_> {
    /// Interfaces and, by their names, zones.
    pub(super) fn interfaces(&mut self, table: Option<&Table<Name, file::Interface>>) {
        let Some(table) = table else { return };
        self.limit("interfaces", table.0.len(), INTERFACES_MAX, "interfaces");
        if table.0.is_empty() && self.sound("interfaces") {
            self.problem("interfaces", "there is none; name at least one, with its port, zone and addresses");
        }
        for (Name(name), interface) in &table.0 {
            let key = format!("interfaces.{name}");
            let port = interface.port.as_ref();
            let port = port.and_then(|Text(Name(port))| self.find(format_args!("{key}.port"), "port", port));
            let [vlan, outer_vlan] =
                [interface.vlan, interface.outer_vlan].map(|tag| tag.map(|Text(tag)| tag.narrow()));
            if outer_vlan.is_some() && interface.vlan.is_none() && self.sound(&format!("{key}.vlan")) {
                self.problem(
                    format_args!("{key}.outer-vlan"),
                    "there is no `vlan:` for it to be around; add the inner tag, or write this one as `vlan:`",
                );
            }
            self.same_tags(&key, port, outer_vlan, vlan);
            let port = PortId(port.map_or(u16::MAX, id));
            let zone = interface.zone.as_ref().map_or(ZoneId(u8::MAX), |Text(zone)| self.zone_of(&key, zone));
            let addresses = interface.addresses.as_ref().map(|list| self.own_addresses(&key, list)).unwrap_or_default();
            let mtu = self.mtu(&key, interface.mtu.0.narrow(), &addresses);
            let Text(mss_clamp) = interface.mss_clamp;
            if let MssClamp::Fixed(size) = mss_clamp {
                let most = mtu.saturating_sub(40).max(MSS_MIN);
                if !(MSS_MIN..=most).contains(&size) {
                    self.problem(
                        format_args!("{key}.mss-clamp"),
                        format_args!(
                            "{size} bytes do not do with an MTU of {mtu}; write off, from-mtu or a number from \
                             {MSS_MIN} to {most}"
                        ),
                    );
                }
            }
            let neighbours = self.neighbours(&key, &addresses, &interface.neighbours);
            self.names.interfaces.insert(name.clone());
            self.spec.interfaces.push(InterfaceSpec {
                name: name.clone(),
                port,
                vlan,
                outer_vlan,
                zone,
                mac: interface.mac.map_or(MacAddr::default(), |Text(mac)| mac),
                addresses,
                mtu,
                neighbours,
                mss_clamp,
            });
        }
        self.overlapping_interfaces(table);
    }

    /// Two interfaces of a port differ in their tags.
    fn same_tags(&mut self, key: &str, port: Option<usize>, outer_vlan: Option<u16>, vlan: Option<u16>) {
        let Some(port) =
            port.filter(|_| self.sound(&format!("{key}.vlan")) && self.sound(&format!("{key}.outer-vlan")))
        else {
            return;
        };
        let tags = (PortId(id(port)), outer_vlan, vlan);
        let same = |other: &&InterfaceSpec| (other.port, other.outer_vlan, other.vlan) == tags;
        let Some(other) = self.spec.interfaces.iter().find(same) else { return };
        let what = match (outer_vlan, vlan) {
            (Some(outer), Some(inner)) => format!("tag {inner} within {outer}"),
            (_, Some(tag)) => format!("tag {tag}"),
            (_, None) => "the untagged interface".to_owned(),
        };
        let (port, other) = (&self.names.ports[port], &other.name);
        let message = format!(
            "{what} of port \"{port}\" already belongs to interface \"{other}\"; give one of them another `vlan:`"
        );
        self.problem(key, message);
    }

    fn neighbours(
        &mut self,
        key: &str,
        addresses: &[IpPrefix],
        neighbours: &Table<IpAddr, Text<MacAddr>>,
    ) -> Vec<(IpAddr, MacAddr)> {
        for &address in neighbours.0.keys() {
            let at = format!("{key}.neighbours.{address}");
            let on_link = addresses.iter().any(|own| own.contains(address)) || is_link_local(address);
            if !on_link && self.sound(&format!("{key}.addresses")) {
                let links = list(addresses.iter().map(|own| own.network()));
                self.problem_with_key(
                    at,
                    format_args!(
                        "{address} is on no prefix of this interface ({links}); add an address beside it, or remove it"
                    ),
                );
            } else if addresses.iter().any(|own| own.address == address) {
                self.problem_with_key(at, format_args!("{address} is this interface's own; remove it"));
            }
        }
        neighbours.0.iter().map(|(&address, &Text(mac))| (address, mac)).collect()
    }

    /// The zone of this name; zones come into being with the first interface that names them.
    fn zone_of(&mut self, key: &str, Name(name): &Name) -> ZoneId {
        let (index, new) = self.names.zones.insert_full(name.clone());
        if new {
            self.spec.zones.push(name.clone());
        }
        if new && index == ZONES_MAX {
            self.problem(
                format_args!("{key}.zone"),
                format_args!("\"{name}\" is one zone too many; there may be {ZONES_MAX}, so use another"),
            );
        }
        ZoneId(u8::try_from(index).unwrap_or(u8::MAX))
    }

    fn mtu(&mut self, key: &str, mtu: u16, addresses: &[IpPrefix]) -> u16 {
        let v6 = addresses.iter().any(|address| address.address.is_ipv6());
        if v6 && mtu < MTU_MIN_V6 {
            self.problem(
                format_args!("{key}.mtu"),
                format_args!(
                    "{mtu} bytes are too few for the interface's IPv6 addresses (RFC 8200 section 5); write {MTU_MIN_V6} \
                     or more, up to 9000"
                ),
            );
        }
        mtu
    }

    fn own_addresses(&mut self, key: &str, given: &List<Text<IpPrefix>>) -> Vec<IpPrefix> {
        if given.is_empty() {
            self.problem(
                format_args!("{key}.addresses"),
                "there is none; give the interface at least one, such as 192.0.2.1/24",
            );
        }
        let mut addresses: Vec<IpPrefix> = Vec::new();
        for (i, Text(own)) in given.iter() {
            let key = format!("{key}.addresses[{i}]");
            if is_link_local(own.address) {
                self.problem(
                    &key,
                    format_args!(
                        "{own} is link-local, and that address follows from the port's Ethernet address; leave it out"
                    ),
                );
            } else if !is_host(own.address) {
                self.problem(
                    &key,
                    format_args!("{own} is no address of a host; write one that a single station can have"),
                );
            } else if let Some(which) = edge_of(own, own.address) {
                let host = host_of(own);
                self.problem(
                    &key,
                    format_args!("{own} is the {which} address of its network; write that of a host, such as {host}"),
                );
            } else if addresses.iter().any(|other| other.address == own.address) {
                self.problem(&key, format_args!("{own} is given twice; remove one of the two"));
            }
            addresses.push(*own);
        }
        addresses
    }

    /// There is one address space for all zones until realms exist: no two interfaces may share addresses (RFC 4787
    /// REQ-7 leaves it to us to survive an overlap or to prevent it).
    fn overlapping_interfaces(&mut self, table: &Table<Name, file::Interface>) {
        let (mut claims, mut places) = (Vec::new(), HashMap::new());
        for (owner, (Name(name), interface)) in table.0.iter().enumerate() {
            for (i, Text(own)) in interface.addresses.iter().flat_map(List::iter) {
                if !is_link_local(own.address) {
                    let (first, last) = bounds(own);
                    claims.push(Claim { first, last, owner });
                    places.insert((owner, first), (name, i, own.network()));
                }
            }
        }
        for claims in overlapping(claims) {
            let [earlier, later] = <[_; 2]>::from(claims).map(|claim| places[&(claim.owner, claim.first)]);
            let ((earlier, _, earlier_link), (later, i, later_link)) = (earlier, later);
            self.problem(
                format_args!("interfaces.{later}.addresses[{i}]"),
                format_args!(
                    "{later_link} overlaps {earlier_link} of interface \"{earlier}\"; give them different prefixes \
                     (networks with equal addresses need realms, which come in a later version)"
                ),
            );
        }
    }
}
