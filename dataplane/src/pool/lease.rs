//! The table of port blocks.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::plan::Plan;
use crate::steer::ShardId;

/// Ports in a block.
pub const BLOCK_PORTS: usize = 64;
/// Blocks of an address.
pub const BLOCKS: usize = 65_536 / BLOCK_PORTS;
/// End of a list of blocks.
pub(super) const NIL: u16 = u16::MAX;

const FREE: u8 = 0xff;
const STATIC: u8 = 0xfe;

/// Who owns a port block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: no mapping can exist here.
    Free,
    /// It is never leased: it holds static ports, and the static tables say where they lead; or the pool leaves it out.
    Static,
    /// This shard.
    Shard(ShardId),
}

/// All blocks of all external addresses that ports are allocated from.
#[derive(Debug)]
pub struct Leases {
    addresses: Box<[AddressLeases]>,
}

/// The blocks of one address. `owner` and `free` are written by compare-and-swap; the rest of a block by the worker that
/// holds its lease.
#[derive(Debug)]
pub(super) struct AddressLeases {
    owner: Box<[AtomicU8]>, // any worker: compare-and-swap to lease, store by the owner to give back
    free: AtomicU32,        // any worker: fetch_add, fetch_sub beside the owner's change
    leasable: u32,
    pub(super) blocks: Box<[Block]>, // owner's worker: rw, others: ro (statistics)
}

/// One block's bits and its place in its owner's list.
#[derive(Debug)]
pub(super) struct Block {
    /// Ports taken, for TCP, UDP and ICMP.
    pub(super) used: [AtomicU64; 3],
    pub(super) next: AtomicU16,
    pub(super) previous: AtomicU16,
}

impl Leases {
    /// The table for this plan's external addresses, all blocks free but those with static ports.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let addresses = plan.externals.iter().map(|external| {
            let pool = external.pool.and_then(|pool| plan.spec.pools.get(usize::from(pool.0)));
            let range = pool.map_or(0..=0, |pool| {
                usize::from(*pool.ports.start()) / BLOCK_PORTS..=usize::from(*pool.ports.end()) / BLOCK_PORTS
            });
            // A block that the pool does not give out is never leased either.
            let is_static = |block: usize| {
                !range.contains(&block) || external.static_blocks.iter().any(|&b| usize::from(b) == block)
            };
            let owners: Box<[AtomicU8]> = (0..if external.pool.is_some() { BLOCKS } else { 0 })
                .map(|block| AtomicU8::new(if is_static(block) { STATIC } else { FREE }))
                .collect();
            let leasable = owners.iter().map(|owner| u32::from(owner.load(Ordering::Relaxed) == FREE)).sum();
            let blocks = owners.iter().map(|_| Block {
                used: Default::default(),
                next: AtomicU16::new(NIL),
                previous: AtomicU16::new(NIL),
            });
            AddressLeases { blocks: blocks.collect(), owner: owners, free: AtomicU32::new(leasable), leasable }
        });
        Leases { addresses: addresses.collect() }
    }

    #[inline]
    pub(super) fn address(&self, external: u32) -> Option<&AddressLeases> {
        self.addresses.get(external as usize)
    }

    /// Who owns the block of `port` at the external address with this index: one load. An address without leases (a
    /// whole-address static entry, or one that only has forwards) answers [`Owner::Static`].
    #[inline]
    #[must_use]
    pub fn owner(&self, external: u32, port: u16) -> Owner {
        let Some(owner) = self.address(external).and_then(|a| a.owner.get(usize::from(port) / BLOCK_PORTS)) else {
            return Owner::Static;
        };
        match owner.load(Ordering::Acquire) {
            FREE => Owner::Free,
            STATIC => Owner::Static,
            shard => Owner::Shard(ShardId(shard)),
        }
    }

    /// Blocks of this address that nobody holds, and that could be leased at all.
    #[must_use]
    pub fn free_blocks(&self, external: u32) -> (u32, u32) {
        self.address(external).map_or((0, 0), |a| (a.free.load(Ordering::Relaxed), a.leasable))
    }

    /// Ports in use at this address, for TCP, UDP and ICMP; for metrics.
    #[must_use]
    pub fn ports_used(&self, external: u32) -> [u32; 3] {
        let Some(address) = self.address(external) else { return [0; 3] };
        std::array::from_fn(|proto| {
            address.blocks.iter().map(|block| block.used[proto].load(Ordering::Relaxed).count_ones()).sum()
        })
    }
}

impl AddressLeases {
    /// Whether no block of the address is free.
    #[inline]
    pub(super) fn is_exhausted(&self) -> bool {
        self.free.load(Ordering::Relaxed) == 0
    }

    /// Whether more than half of the address's blocks are free.
    #[inline]
    pub(super) fn plenty(&self) -> bool {
        self.free.load(Ordering::Relaxed) * 2 > self.leasable
    }

    #[inline]
    pub(super) fn is_free(&self, block: usize) -> bool {
        self.owner.get(block).is_some_and(|owner| owner.load(Ordering::Relaxed) == FREE)
    }

    #[inline]
    pub(super) fn owned_by(&self, block: usize, shard: ShardId) -> bool {
        self.owner.get(block).is_some_and(|owner| owner.load(Ordering::Relaxed) == shard.0)
    }

    /// Takes a free block for `shard`: the one compare-and-swap of rule 3.
    pub(super) fn lease(&self, block: usize, shard: ShardId) -> bool {
        let taken = self
            .owner
            .get(block)
            .is_some_and(|owner| owner.compare_exchange(FREE, shard.0, Ordering::Acquire, Ordering::Relaxed).is_ok());
        if taken {
            self.free.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives an empty block back. Only its owner calls this.
    pub(super) fn release(&self, block: usize) {
        if let Some(owner) = self.owner.get(block) {
            // Counted first: who leases it at once must find it counted.
            self.free.fetch_add(1, Ordering::Relaxed);
            owner.store(FREE, Ordering::Release);
        }
    }
}
