//! A shard's blocks, and the choice of a port in them.
//!
//! In this order: the inside port itself, if it is to be preserved and its block is ours or there is plenty; a port in
//! our blocks, of the same parity and on the same side of 1024; a new block, if there is one a block whose packets a NIC
//! delivers to our worker; then without the parity; then on the other side of 1024 (RFC 4787 REQ-3 a, REQ-4). Where there is a choice it is taken by a keyed hash, so that nobody outside
//! can guess the next port (RFC 6056, RFC 7857 §9).

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use super::lease::{AddressLeases, BLOCK_PORTS, BLOCKS, Leases, NIL};
use crate::steer::{ShardId, ShardSet};

/// The first port that is not well-known (RFC 4787 REQ-3 a).
const WELL_KNOWN: u16 = 1024;
/// Own blocks that are tried before a new one is leased; all are tried before a flow is refused. Few, for each is a wait for
/// memory: blocks with room are in front.
const OWN_BLOCKS_TRIED: usize = 3;

/// A protocol whose ports (or identifiers) are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Proto {
    /// TCP ports.
    #[default]
    Tcp,
    /// UDP ports.
    Udp,
    /// ICMP query identifiers.
    Icmp,
}

impl Proto {
    /// Index in tables by protocol.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// From the IP protocol number.
    #[inline]
    #[must_use]
    pub const fn from_ip(protocol: u8) -> Option<Proto> {
        match protocol {
            6 => Some(Proto::Tcp),
            17 => Some(Proto::Udp),
            1 => Some(Proto::Icmp),
            _ => None,
        }
    }
}

/// The port that an inside endpoint would like.
#[derive(Clone, Debug)]
pub struct Want {
    /// For which protocol.
    pub proto: Proto,
    /// The inside port.
    pub port: u16,
    /// Keep it, if it is free.
    pub preserve: bool,
    /// Keep its parity.
    pub parity: bool,
    /// What the pool may give.
    pub range: RangeInclusive<u16>,
}

/// A shard's side of the leases: for each external address, a list of the blocks that it holds.
#[derive(Debug)]
pub struct Ports {
    shard: ShardId,
    heads: Box<[u16]>,
    /// For each address, a bit for each protocol of which our blocks there have no port left.
    full: Box<[u8]>,
    /// Shards whose home blocks a NIC delivers to our worker: those are leased before others. None: all are alike.
    near: Option<ShardSet>,
}

impl Ports {
    /// No blocks yet, with room for this many external addresses.
    #[must_use]
    pub fn new(shard: ShardId, externals: usize) -> Self {
        Ports { shard, heads: vec![NIL; externals].into(), full: vec![0; externals].into(), near: None }
    }

    /// From now on, blocks that are home to these shards are leased before others.
    pub fn prefer(&mut self, near: Option<ShardSet>) {
        self.near = near;
    }

    /// Takes a port of the external address. `random` is the keyed hash of the attempt number.
    pub fn allocate(
        &mut self,
        leases: &Leases,
        external: u32,
        want: &Want,
        mut random: impl FnMut(u32) -> u64,
    ) -> Option<u16> {
        let address = leases.address(external)?;
        let proto = 1 << want.proto.index();
        // An exhausted address is known at once, not searched anew for every refused flow.
        let full = self.full.get(external as usize).copied().unwrap_or(0);
        if address.is_exhausted() && full & proto != 0 {
            return None;
        }
        if want.preserve && want.port != 0 && want.range.contains(&want.port) {
            let block = usize::from(want.port) / BLOCK_PORTS;
            let bit = 1u64 << (usize::from(want.port) % BLOCK_PORTS);
            let ours = (address.owned_by(block, self.shard) && !address.is_closed(block))
                || (address.plenty() && address.is_free(block) && self.lease(address, external, block));
            if ours && let Some(port) = take(address, want.proto, block, bit, 0) {
                return Some(port);
            }
        }
        let low = want.port < WELL_KNOWN;
        let stages = [(true, true), (true, false), (false, true), (false, false)];
        for ((same_side, parity), attempt) in stages.into_iter().zip(1..) {
            if parity && !want.parity {
                continue;
            }
            let class = Class { want, low: low == same_side, parity };
            let seed = random(attempt);
            let found = self
                .in_own(address, external, &class, OWN_BLOCKS_TRIED, seed)
                .or_else(|| self.in_new(address, external, &class, seed))
                .or_else(|| self.in_own(address, external, &class, BLOCKS, seed));
            if found.is_some() {
                return found;
            }
        }
        self.set_full(external, full | proto);
        None
    }

    /// Gives a port back, and its block with the last one.
    pub fn release(&mut self, leases: &Leases, external: u32, proto: Proto, port: u16) {
        let number = usize::from(port) / BLOCK_PORTS;
        let Some(address) = leases.address(external) else { return };
        let Some(block) = address.blocks.get(number) else { return };
        self.set_full(external, 0);
        let used = &block.used[proto.index()];
        let before = used.load(Ordering::Relaxed);
        used.store(before & !(1 << (usize::from(port) % BLOCK_PORTS)), Ordering::Relaxed);
        if block.used.iter().all(|used| used.load(Ordering::Relaxed) == 0) {
            self.unlink(address, external, number);
            address.release(number);
        } else if before == u64::MAX {
            // It has room again.
            self.unlink(address, external, number);
            self.link(address, external, number);
        }
    }

    /// Takes a block out of the address's list.
    fn unlink(&mut self, address: &AddressLeases, external: u32, number: usize) {
        let Some(block) = address.blocks.get(number) else { return };
        let (previous, next) = (block.previous.load(Ordering::Relaxed), block.next.load(Ordering::Relaxed));
        match address.blocks.get(usize::from(previous)) {
            Some(before) => before.next.store(next, Ordering::Relaxed),
            None => self.set_head(external, next),
        }
        if let Some(after) = address.blocks.get(usize::from(next)) {
            after.previous.store(previous, Ordering::Relaxed);
        }
    }

    /// Puts a block in front of the address's list.
    fn link(&mut self, address: &AddressLeases, external: u32, number: usize) {
        let (Some(block), Ok(place)) = (address.blocks.get(number), u16::try_from(number)) else { return };
        let head = self.heads.get(external as usize).copied().unwrap_or(NIL);
        block.next.store(head, Ordering::Relaxed);
        block.previous.store(NIL, Ordering::Relaxed);
        if let Some(after) = address.blocks.get(usize::from(head)) {
            after.previous.store(place, Ordering::Relaxed);
        }
        self.set_head(external, place);
    }

    /// A port in a block that is ours already, of the first `limit` in the list.
    fn in_own(&self, address: &AddressLeases, external: u32, class: &Class, limit: usize, seed: u64) -> Option<u16> {
        let mut block = self.heads.get(external as usize).copied().unwrap_or(NIL);
        for _ in 0..limit {
            let number = usize::from(block);
            let entry = address.blocks.get(number)?;
            if !address.is_closed(number)
                && let Some(port) = take(address, class.want.proto, number, class.mask(number), seed)
            {
                return Some(port);
            }
            block = entry.next.load(Ordering::Relaxed);
        }
        None
    }

    /// A port in a block that nobody holds.
    fn in_new(&mut self, address: &AddressLeases, external: u32, class: &Class, seed: u64) -> Option<u16> {
        if address.is_exhausted() {
            return None;
        }
        let blocks = class.blocks();
        let count = blocks.len();
        let start = reduce(seed >> 32, count);
        let near = self.near;
        let is_near = |block: usize| near.is_none_or(|near| near.contains(address.home(block)));
        for anywhere in [false, true] {
            for step in 0..count {
                let place = start + step;
                let block = blocks.start + if place < count { place } else { place - count };
                let fits = address.is_free(block) && class.mask(block) != 0 && (anywhere || is_near(block));
                if fits && self.lease(address, external, block) {
                    return take(address, class.want.proto, block, class.mask(block), seed);
                }
            }
            // Nothing else is left, if nothing is preferred.
            if near.is_none() {
                break;
            }
        }
        None
    }

    fn lease(&mut self, address: &AddressLeases, external: u32, block: usize) -> bool {
        let leased = address.lease(block, self.shard);
        if leased {
            self.link(address, external, block);
            self.set_full(external, 0);
        }
        leased
    }

    fn set_head(&mut self, external: u32, block: u16) {
        if let Some(head) = self.heads.get_mut(external as usize) {
            *head = block;
        }
    }

    fn set_full(&mut self, external: u32, protos: u8) {
        if let Some(full) = self.full.get_mut(external as usize) {
            *full = protos;
        }
    }
}

/// The ports that would do, at one stage of the search.
struct Class<'a> {
    want: &'a Want,
    low: bool,
    parity: bool,
}

impl Class<'_> {
    /// Blocks in which they lie.
    fn blocks(&self) -> std::ops::Range<usize> {
        let boundary = usize::from(WELL_KNOWN) / BLOCK_PORTS;
        let (first, last) = (usize::from(*self.want.range.start()), usize::from(*self.want.range.end()));
        let (start, end) = if self.low { (0, boundary) } else { (boundary, BLOCKS) };
        let start = start.max(first / BLOCK_PORTS);
        start..end.min(last / BLOCK_PORTS + 1).max(start)
    }

    /// The bits of a block that would do.
    fn mask(&self, block: usize) -> u64 {
        if !self.blocks().contains(&block) {
            return 0;
        }
        let base = block * BLOCK_PORTS;
        let (first, last) = (usize::from(*self.want.range.start()).max(1), usize::from(*self.want.range.end()));
        let from = u64::MAX << first.saturating_sub(base).min(63);
        let upto = u64::MAX >> (base + BLOCK_PORTS - 1).saturating_sub(last).min(63);
        let parity = match (self.parity, self.want.port % 2) {
            (false, _) => u64::MAX,
            (true, 0) => 0x5555_5555_5555_5555,
            (true, _) => 0xaaaa_aaaa_aaaa_aaaa,
        };
        if first >= base + BLOCK_PORTS || last < base { 0 } else { from & upto & parity }
    }
}

/// Takes one free port out of `mask`, picked by `seed`.
fn take(address: &AddressLeases, proto: Proto, block: usize, mask: u64, seed: u64) -> Option<u16> {
    let used = &address.blocks.get(block)?.used[proto.index()];
    let taken = used.load(Ordering::Relaxed);
    let free = mask & !taken;
    if free == 0 {
        return None;
    }
    let bit = nth_bit(free, reduce(seed & 0xffff_ffff, free.count_ones() as usize));
    used.store(taken | 1 << bit, Ordering::Relaxed);
    u16::try_from(block * BLOCK_PORTS + bit).ok()
}

/// The place of the n-th bit that is set, from 0. There are more than n.
fn nth_bit(bits: u64, n: usize) -> usize {
    let (mut place, mut n) = (0, n);
    for width in [32, 16, 8, 4, 2, 1] {
        let below = (bits >> place & ((1 << width) - 1)).count_ones() as usize;
        // No branch: which half it is in is chance.
        let above = usize::from(n >= below);
        place += width * above;
        n -= below * above;
    }
    place
}

/// Maps 32 random bits to 0..count.
fn reduce(random: u64, count: usize) -> usize {
    usize::try_from((random * count as u64) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_bit_is_found_wherever_it_is() {
        for bits in [1, 1 << 63, u64::MAX, 0x5555_5555_5555_5555, 0xdead_beef_0bad_cafe, 0x8000_0001_0000_8000] {
            let places = (0..64).filter(|place| bits >> place & 1 == 1);
            for (n, place) in places.enumerate() {
                assert_eq!(nth_bit(bits, n), place);
            }
        }
    }
}
