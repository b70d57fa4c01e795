//! `routes`.

use std::collections::HashMap;
use std::net::IpAddr;

use dataplane::plan::{InterfaceId, IpPrefix, NextHop, RouteSpec};

use super::{Resolver, id, list};
use crate::config::address::is_link_local;
use crate::config::decode::{List, Text};
use crate::config::file;

impl Resolver<'_> {
    /// Static routes.
    pub(super) fn routes(&mut self, routes: &List<file::Route>) {
        let mut known: HashMap<IpPrefix, usize> = HashMap::new();
        for (i, route) in routes.iter() {
            let key = format!("routes[{i}]");
            let Some(Text(prefix)) = route.to else { continue };
            if prefix.network() != prefix {
                let net = prefix.network();
                self.problem(
                    format_args!("{key}.to"),
                    format_args!("{prefix} has bits set after its length; write {net}"),
                );
            }
            if let Some(first) = known.get(&prefix) {
                self.problem(
                    format_args!("{key}.to"),
                    format_args!("routes[{first}] leads to {prefix} already; remove one of the two"),
                );
            }
            known.entry(prefix).or_insert(i);
            let Some(next_hop) = self.next_hop(&key, prefix, route) else { continue };
            if let NextHop::Via(_, interface) | NextHop::OnLink(interface) = next_hop {
                self.route_hides_link(&key, prefix, interface);
            }
            self.spec.routes.push(RouteSpec { prefix: prefix.network(), next_hop });
        }
    }

    fn next_hop(&mut self, key: &str, to: IpPrefix, route: &file::Route) -> Option<NextHop> {
        let interface = match &route.interface {
            Some(Text(name)) => Some(self.interface(format_args!("{key}.interface"), name)?),
            None => None,
        };
        let Text(unreachable) = route.unreachable;
        match (route.via, interface) {
            (None, None) if unreachable => Some(NextHop::Unreachable),
            (Some(Text(via)), interface) if !unreachable => self.via(key, to, via, interface),
            (None, Some(interface)) if !unreachable => Some(NextHop::OnLink(interface)),
            _ => {
                if !self.sound(key) {
                    return None;
                }
                self.problem(
                    key,
                    format_args!(
                        "the route to {} must lead to one thing; write `via:` with a router's address, or \
                         `interface:` alone for what is on the link, or `unreachable: true` alone",
                        to
                    ),
                );
                None
            }
        }
    }

    fn via(&mut self, key: &str, to: IpPrefix, via: IpAddr, interface: Option<InterfaceId>) -> Option<NextHop> {
        let key = format!("{key}.via");
        if via.is_ipv4() != to.address.is_ipv4() {
            self.problem(
                &key,
                format_args!("{via} and {to} are not of one address family; name a router of the family of {to}"),
            );
            return None;
        }
        if is_link_local(via) {
            let found = interface.map(|interface| NextHop::Via(via, interface));
            if found.is_none() {
                self.problem(
                    &key,
                    format_args!("{via} is link-local, so it may be on any interface; add `interface:`"),
                );
            }
            return found;
        }
        let connected = self.spec.interfaces.iter().enumerate().find(|(i, candidate)| {
            let named = interface.is_none_or(|InterfaceId(index)| usize::from(index) == *i);
            named && candidate.addresses.iter().any(|own| own.contains(via))
        });
        let Some((index, candidate)) = connected else {
            if !self.sound("interfaces") {
                return None;
            }
            let links = list(self.links(interface));
            self.problem(&key, format_args!("{via} is on no connected prefix; name a router on one of {links}"));
            return None;
        };
        if candidate.addresses.iter().any(|own| own.address == via) {
            let name = candidate.name.clone();
            self.problem(
                &key,
                format_args!(
                    "{via} is the gateway's own address on interface \"{name}\"; name the router at the other end"
                ),
            );
            return None;
        }
        Some(NextHop::Via(via, InterfaceId(id(index))))
    }

    /// The connected prefixes, of one interface or of all.
    pub(super) fn links(&self, only: Option<InterfaceId>) -> Vec<IpPrefix> {
        let chosen = |i: usize| only.is_none_or(|InterfaceId(index)| usize::from(index) == i);
        let interfaces = self.spec.interfaces.iter().enumerate().filter(|(i, _)| chosen(*i));
        interfaces.flat_map(|(_, interface)| interface.addresses.iter().map(|own| own.network())).collect()
    }

    /// A route that takes a part of one zone's link into another zone: their addresses overlap (RFC 4787 REQ-7).
    fn route_hides_link(&mut self, key: &str, prefix: IpPrefix, InterfaceId(interface): InterfaceId) {
        if !self.sound("interfaces") {
            return;
        }
        let zone = self.spec.interfaces[usize::from(interface)].zone;
        let hidden = self.spec.interfaces.iter().find_map(|other| {
            let covers = |own: &&IpPrefix| own.len <= prefix.len && own.contains(prefix.address);
            let own = other.addresses.iter().find(covers).filter(|_| other.zone != zone)?;
            Some((own.network(), other.name.clone()))
        });
        if let Some((link, other)) = hidden {
            self.problem(
                format_args!("{key}.to"),
                format_args!(
                    "{prefix} is a part of {link} on interface \"{other}\", but the route leads into another \
                     zone; inside and outside may not share addresses (realms come in a later version)"
                ),
            );
        }
    }

    /// By longest prefix: the interface that leads to an address. None where nothing does.
    pub(super) fn route_to(&self, address: IpAddr) -> Option<InterfaceId> {
        let connected = self
            .spec
            .interfaces
            .iter()
            .enumerate()
            .flat_map(|(i, interface)| interface.addresses.iter().map(move |own| (*own, Some(InterfaceId(id(i))))));
        let routed = self.spec.routes.iter().map(|route| match route.next_hop {
            NextHop::Via(_, interface) | NextHop::OnLink(interface) => (route.prefix, Some(interface)),
            NextHop::Unreachable => (route.prefix, None),
        });
        let matching = routed.chain(connected).filter(|(prefix, _)| prefix.contains(address));
        matching.max_by_key(|(prefix, _)| prefix.len).and_then(|(_, interface)| interface)
    }
}
