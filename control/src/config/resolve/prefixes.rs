//! `nptv6`, `map66` and `netmap`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::plan::{IpPrefix, PrefixKind, PrefixRule};
use dataplane::translate::nptv6;

use super::Resolver;
use crate::config::address::{Claim, bounds, is_host, is_link_local, overlapping};
use crate::config::decode::Text;
use crate::config::file::{File, OwnAddresses};
use crate::config::text::Name;

/// A rule as it is written, whatever it is called.
struct Written<'a> {
    key: String,
    name: &'a str,
    zones: [Option<&'a Text<Name>>; 2],
    prefixes: [Option<IpPrefix>; 2],
    kind: PrefixKind,
}

impl Resolver<'_> {
    /// Stateless translation of prefixes.
    pub(super) fn prefix_rules(&mut self, file: &File) {
        let prefixes = |inside: Option<Text<IpPrefix>>, outside: Option<Text<IpPrefix>>| {
            [inside, outside].map(|prefix| prefix.map(|Text(prefix)| prefix))
        };
        let nptv6 = file.nptv6.0.iter().map(|(Name(name), it)| Written {
            key: format!("nptv6.{name}"),
            name,
            zones: [it.from.as_ref(), it.to.as_ref()],
            prefixes: prefixes(it.inside, it.outside),
            kind: PrefixKind::Nptv6 { allow_zero_iid: it.allow_zero_iid.0 },
        });
        let map66 = file.map66.0.iter().map(|(Name(name), it)| Written {
            key: format!("map66.{name}"),
            name,
            zones: [it.from.as_ref(), it.to.as_ref()],
            prefixes: prefixes(it.inside, it.outside),
            kind: PrefixKind::Map66 { maps_own: it.own_addresses.0 == OwnAddresses::Mapped },
        });
        let netmap = file.netmap.0.iter().map(|(Name(name), it)| Written {
            key: format!("netmap.{name}"),
            name,
            zones: [it.from.as_ref(), it.to.as_ref()],
            prefixes: prefixes(it.inside, it.outside),
            kind: PrefixKind::Netmap,
        });
        let mut keys = Vec::new();
        for rule in nptv6.chain(map66).chain(netmap) {
            let Written { key, name, zones: [from, to], prefixes: [inside, outside], kind } = rule;
            let zones = self.zones(&key, from, to);
            for (side, prefix) in [("inside", inside), ("outside", outside)] {
                let Some(prefix) = prefix else { continue };
                self.unicast(&format!("{key}.{side}"), prefix);
            }
            let (Some((from, to)), Some(inside), Some(outside)) = (zones, inside, outside) else { continue };
            self.pair(&key, kind, inside, outside);
            let (inside, outside) = (inside.network(), outside.network());
            let same = |other: &PrefixRule| (other.from, other.to, other.inside) == (from, to, inside);
            if let Some(at) = self.spec.prefixes.iter().position(same) {
                let message = format!("{inside} is translated between these zones by {} already; remove one", keys[at]);
                self.problem(format_args!("{key}.inside"), message);
            }
            self.spec.prefixes.push(PrefixRule { name: name.to_owned(), from, to, inside, outside, kind });
            keys.push(key);
        }
        self.outside_prefixes(&keys);
    }

    /// A prefix that a rule may name.
    fn unicast(&mut self, key: &str, prefix: IpPrefix) {
        if prefix.network() != prefix {
            let net = prefix.network();
            self.problem(key, format_args!("{prefix} has bits set after its length; write {net}"));
        } else if prefix.len == 0 || !is_host(first_host(prefix)) || is_link_local(prefix.address) {
            self.problem(
                key,
                format_args!("{prefix} is no prefix of hosts; write one that is routed, such as 2001:db8:1::/48"),
            );
        }
    }

    /// Two prefixes that can be exchanged.
    fn pair(&mut self, key: &str, kind: PrefixKind, inside: IpPrefix, outside: IpPrefix) {
        let is_v6 = [inside, outside].map(|prefix| prefix.address.is_ipv6());
        if is_v6[0] != is_v6[1] {
            self.problem(
                format_args!("{key}.outside"),
                format_args!(
                    "{outside} and {inside} are not of one address family; name a prefix of the family of {inside}"
                ),
            );
            return;
        }
        if kind != PrefixKind::Netmap && !is_v6[0] {
            self.problem(
                format_args!("{key}.inside"),
                format_args!("{inside} is IPv4, and this is for IPv6; use `netmap:`"),
            );
            return;
        }
        let equal = |this: &mut Self| {
            if inside.len != outside.len {
                this.problem(
                    format_args!("{key}.outside"),
                    format_args!("{outside} and {inside} are not of one length; write a prefix of {} bits", inside.len),
                );
            }
        };
        match kind {
            PrefixKind::Nptv6 { .. } => {
                for (side, prefix) in [("inside", inside), ("outside", outside)] {
                    if prefix.len > nptv6::LEN_MAX {
                        self.problem(
                            format_args!("{key}.{side}"),
                            format_args!(
                                "{prefix} leaves no word for the adjustment (RFC 6296 section 3.5); write a prefix of at most 64 \
                                 bits, or use `map66:` or `netmap:`"
                            ),
                        );
                    }
                }
            }
            PrefixKind::Map66 { .. } => {
                if !(16..=112).contains(&inside.len) || !inside.len.is_multiple_of(16) {
                    self.problem(
                        format_args!("{key}.inside"),
                        format_args!("{inside} does not do; write a prefix of 16, 32, 48, 64, 80, 96 or 112 bits"),
                    );
                } else {
                    equal(self);
                }
            }
            PrefixKind::Netmap => equal(self),
        }
    }

    /// Outside prefixes belong to one rule each, and to nothing else.
    fn outside_prefixes(&mut self, keys: &[String]) {
        let mut claims: Vec<Claim<(bool, u128)>> = Vec::new();
        for (rule, owner) in self.spec.prefixes.iter().zip(0..) {
            let (first, last) = bounds(&rule.outside);
            claims.push(Claim { first, last, owner });
        }
        for (one, two) in overlapping(claims) {
            let (one, two) = (one.owner, two.owner);
            let other = self.spec.prefixes[one].outside;
            self.problem(
                format_args!("{}.outside", keys[two]),
                format_args!("it overlaps {other} of {}; an outside prefix belongs to one rule", keys[one]),
            );
        }
        let outside: Vec<IpPrefix> = self.spec.prefixes.iter().map(|rule| rule.outside).collect();
        for (outside, key) in outside.into_iter().zip(keys) {
            let key = format!("{key}.outside");
            if let Some((what, address)) = self.external_within(outside) {
                self.problem(
                    &key,
                    format_args!("{outside} holds {address} of {what}; an external address has one use"),
                );
            }
            let width = if outside.address.is_ipv4() { 32 } else { 128 };
            if let Some(interface) = self.owner_of(outside.address).filter(|_| outside.len == width) {
                let address = outside.address;
                self.problem(
                    &key,
                    format_args!("{address} is the gateway's own address on interface \"{interface}\"; take another"),
                );
            }
        }
    }

    /// An external address of NAT44 within a prefix, and what has it.
    fn external_within(&self, prefix: IpPrefix) -> Option<(String, Ipv4Addr)> {
        let within = |address: Ipv4Addr| prefix.contains(IpAddr::V4(address));
        let spec = &self.spec;
        let pools = spec.pools.iter().flat_map(|pool| pool.addresses.iter().map(move |range| (pool, range)));
        let (first, last) = bounds(&prefix);
        let pooled = pools.filter(|_| prefix.address.is_ipv4()).find_map(|(pool, range)| {
            let bits = |address: Ipv4Addr| (false, u128::from(address.to_bits()));
            let shared = bits(*range.start()).max(first);
            (shared <= bits(*range.end()).min(last))
                .then(|| (format!("pools.{}", pool.name), Ipv4Addr::from_bits(u32::try_from(shared.1).unwrap_or(0))))
        });
        let statics = spec.static_nat.iter().find(|it| within(it.external));
        let statics = statics.map(|it| (format!("nat44.static.{}", it.name), it.external));
        let forwards = spec.forwards.iter().find(|it| within(it.external));
        let forwards = forwards.map(|it| (format!("nat44.forwards.{}", it.name), it.external));
        pooled.or(statics).or(forwards)
    }
}

/// An address within a prefix that a host could have.
fn first_host(prefix: IpPrefix) -> IpAddr {
    match prefix.network().address {
        IpAddr::V4(first) if prefix.len < 32 => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | 1)),
        IpAddr::V6(first) if prefix.len < 64 => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | 1 << 64)),
        address => address,
    }
}
