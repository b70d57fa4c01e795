//! Arithmetic of prefixes and ranges: what a link's addresses are, and which claims overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::plan::IpPrefix;

/// The first and last address of a prefix, ordered by family first.
pub(super) fn bounds(prefix: &IpPrefix) -> ((bool, u128), (bool, u128)) {
    let (family, bits, width) = match prefix.address {
        IpAddr::V4(address) => (false, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (true, address.to_bits(), 128),
    };
    let host = u128::MAX.checked_shr(128 - width + u32::from(prefix.len)).unwrap_or(0);
    ((family, bits & !host), (family, bits | host))
}

/// The first and last address of an IPv4 prefix.
pub(super) fn v4_bounds(prefix: &IpPrefix) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let IpAddr::V4(address) = prefix.address else { return None };
    let host = u32::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
    Some((Ipv4Addr::from_bits(address.to_bits() & !host), Ipv4Addr::from_bits(address.to_bits() | host)))
}

/// Whether `address` is the first or last of a link, which stand for the link (RFC 1122 section 3.2.1.3) or for any of
/// its routers (RFC 4291 section 2.6.1), but not where the link is of two ends (RFC 3021, RFC 6164) or one.
pub(super) fn edge_of(link: &IpPrefix, address: IpAddr) -> Option<&'static str> {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let (first, last) = bounds(link);
    let bits = bounds(&IpPrefix { address, len: width }).0;
    match (link.len + 1 < width, address.is_ipv4()) {
        (true, true) if bits == first => Some("network"),
        (true, true) if bits == last => Some("broadcast"),
        (true, false) if bits == first => Some("subnet-router anycast"),
        _ => None,
    }
}

/// The first address of a link that a host can have.
pub(super) fn host_of(link: &IpPrefix) -> IpPrefix {
    let address = match link.network().address {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | 1)),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | 1)),
    };
    IpPrefix { address, len: link.len }
}

/// Whether a single station can have this address.
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
            !special && address.to_ipv4_mapped().is_none()
        }
    }
}

/// Whether this is an IPv6 link-local address (RFC 4291 section 2.5.6).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// A range of something that belongs to the `owner`-th thing of the file.
#[derive(Clone, Copy)]
pub(super) struct Claim<T> {
    pub first: T,
    pub last: T,
    pub owner: usize,
}

/// Pairs of claims of different owners that overlap, the one of the earlier owner first: at least one pair for each
/// owner whose claim overlaps another's.
pub(super) fn overlapping<T: Ord + Copy>(mut claims: Vec<Claim<T>>) -> Vec<(Claim<T>, Claim<T>)> {
    claims.sort_by_key(|claim| claim.first);
    let mut found = Vec::new();
    let mut furthest: Option<Claim<T>> = None;
    for claim in claims {
        if let Some(other) = furthest.filter(|other| claim.first <= other.last && claim.owner != other.owner) {
            found.push(if other.owner < claim.owner { (other, claim) } else { (claim, other) });
        }
        if furthest.is_none_or(|other| claim.last > other.last) {
            furthest = Some(claim);
        }
    }
    found
}
