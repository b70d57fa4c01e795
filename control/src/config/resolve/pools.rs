//! `pools`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use dataplane::plan::{EXTERNALS_MAX, NextHop, PoolSpec};

use super::Resolver;
use crate::config::address::{Claim, is_host, overlapping, v4_bounds};
use crate::config::decode::{List, Table, Text};
use crate::config::file;
use crate::config::text::{Name, span};

/// Pool addresses: static entries' own addresses count too, but the plan's compiler sees to them.
const POOL_ADDRESSES_MAX: u64 = EXTERNALS_MAX as u64;

impl Resolver<'_> {
    /// External addresses.
    pub(super) fn pools(&mut self, table: &Table<Name, file::Pool>) {
        let (mut claims, mut keys) = (Vec::new(), Vec::new());
        for (Name(name), pool) in &table.0 {
            let key = format!("pools.{name}");
            if pool.addresses.as_ref().is_some_and(List::is_empty) {
                self.problem(
                    format_args!("{key}.addresses"),
                    "there is none; give the pool at least one, such as 203.0.113.1",
                );
            }
            let mut addresses = Vec::new();
            for (i, Text(range)) in pool.addresses.iter().flat_map(List::iter) {
                let key = format!("{key}.addresses[{i}]");
                self.pool_range(&key, range);
                claims.push(Claim { first: range.start().to_bits(), last: range.end().to_bits(), owner: keys.len() });
                keys.push(key);
                addresses.push(range.clone());
            }
            self.names.pools.insert(name.clone());
            self.spec.pools.push(PoolSpec {
                name: name.clone(),
                addresses,
                ports: pool.ports.0.clone(),
                proxy_arp: pool.proxy_arp.0,
                answer_echo: pool.answer_echo.0,
            });
        }
        let total: u64 = claims.iter().map(|claim| u64::from(claim.last - claim.first) + 1).sum();
        if total > POOL_ADDRESSES_MAX {
            self.problem(
                "pools",
                format_args!(
                    "the pools have {total} addresses; at most {POOL_ADDRESSES_MAX} are possible, so make them \
                     smaller"
                ),
            );
        }
        for (one, two) in overlapping(claims) {
            let (first, last) = (one.first.max(two.first), one.last.min(two.last));
            let shared = span(&(Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last)));
            let [one, two] = [one, two].map(|claim| keys[claim.owner].as_str());
            self.problem(
                two,
                format_args!(
                    "{shared} is also in {one}; an address belongs to one pool, once, so remove it from one of them"
                ),
            );
        }
    }

    /// What a pool may not hold: addresses that no host can have, and those of routers and links.
    fn pool_range(&mut self, key: &str, range: &RangeInclusive<Ipv4Addr>) {
        if !is_host(IpAddr::V4(*range.start())) || !is_host(IpAddr::V4(*range.end())) {
            self.problem(
                key,
                format_args!(
                    "{} are no addresses of hosts; write addresses that are routed to this gateway",
                    span(range)
                ),
            );
        }
        let inside = |address: IpAddr| matches!(address, IpAddr::V4(address) if range.contains(&address));
        let router = self.spec.routes.iter().find_map(|route| match route.next_hop {
            NextHop::Via(via, _) if inside(via) => Some((via, route.prefix)),
            _ => None,
        });
        if let Some((via, to)) = router {
            self.problem(key, format_args!("{via} is the router of the route to {to}; leave it out of the pool"));
        }
        let edge =
            self.links(None).into_iter().filter(|link| link.address.is_ipv4() && link.len < 31).find_map(|link| {
                let (first, last) = v4_bounds(&link)?;
                [first, last].into_iter().find(|edge| range.contains(edge)).map(|edge| (edge, link))
            });
        if let Some((edge, link)) = edge {
            self.problem(
                key,
                format_args!(
                    "{edge} is the network or broadcast address of the connected prefix {link}; leave it out of the \
                 pool"
                ),
            );
        }
    }

    /// The pool that has this address.
    pub(super) fn pool_with(&self, address: Ipv4Addr) -> Option<String> {
        let has = |pool: &&PoolSpec| pool.addresses.iter().any(|range| range.contains(&address));
        self.spec.pools.iter().find(has).map(|pool| pool.name.clone())
    }
}
