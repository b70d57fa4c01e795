//! The table of port blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::plan::{External, Plan};
use crate::steer::{ShardId, rss};

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
///
/// After a reload there is a new table, which shares the addresses that stay with the old one: see [`Leases::succeed`].
#[derive(Debug)]
pub struct Leases {
    addresses: Box<[Arc<AddressLeases>]>,
}

/// The blocks of one address. The owners and `free` are written by compare-and-swap; the rest of a block by the worker
/// that holds its lease.
#[derive(Debug)]
pub(super) struct AddressLeases {
    /// In host order.
    address: u32,
    owner: [AtomicU8; BLOCKS], // any worker: compare-and-swap to lease, store by the owner to give back; control: STATIC
    closed: [AtomicU64; BLOCKS / 64], // control: rw, workers: ro. Blocks that may not be leased (any more)
    free: AtomicU32,           // whoever changes an owner, beside it
    leasable: AtomicU32,       // control: rw, workers: ro
    /// None where the address has no pool.
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

/// The blocks of an address that may not be leased, a bit each: it has no pool or leaves it, its pool does not give them
/// out, or they hold static ports.
fn closed_blocks(plan: &Plan, external: &External) -> [u64; BLOCKS / 64] {
    let mut closed = [u64::MAX; BLOCKS / 64];
    let pool = external.pool.and_then(|pool| plan.spec.pools.get(usize::from(pool.0)));
    if let Some(pool) = pool.filter(|_| !external.draining) {
        let (first, last) =
            (usize::from(*pool.ports.start()) / BLOCK_PORTS, usize::from(*pool.ports.end()) / BLOCK_PORTS);
        for block in first..=last {
            closed[block / 64] &= !(1 << (block % 64));
        }
        for &block in &external.static_blocks {
            closed[usize::from(block) / 64] |= 1 << (block % 64);
        }
    }
    closed
}

impl Leases {
    /// The table for this plan's external addresses, all blocks free but those with static ports.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let addresses = plan.externals.iter().map(|external| {
            let address = AddressLeases::closed(external.address, external.pool.is_some());
            address.open(&closed_blocks(plan, external));
            Arc::new(address)
        });
        Leases { addresses: addresses.collect() }
    }

    /// The table for `plan`, which succeeds the plan `old` of this table ([`Plan::succeed`]). What may not be leased under
    /// `plan` is closed from here on, for workers of both plans; what may be leased only now is opened by [`Leases::open`],
    /// when no session of the old plan is left. No port ever has two owners.
    #[must_use]
    pub fn succeed(&self, old: &Plan, plan: &Plan) -> Self {
        let places = plan.externals.len().max(old.externals.len());
        let addresses = (0..places).map(|id| {
            let before = old.externals.get(id).filter(|it| it.address != 0);
            let kept = self.addresses.get(id).filter(|_| before.is_some());
            match (plan.externals.get(id).filter(|it| it.address != 0), kept) {
                // Gone: what is mapped to it gives its ports back to where it got them.
                (None, Some(address)) => {
                    address.close(&[u64::MAX; BLOCKS / 64]);
                    Arc::clone(address)
                }
                (None, None) => Arc::new(AddressLeases::closed(0, false)),
                // Without a pool it had nothing to lease, and nothing was.
                (Some(external), Some(address)) if external.pool.is_some() && address.blocks.is_empty() => {
                    Arc::new(AddressLeases::closed(external.address, true))
                }
                (Some(external), Some(address)) => {
                    let closed = closed_blocks(plan, external);
                    address.close(&closed);
                    // Back in its pool before it was empty: what was closed held nothing but what may go on.
                    if before.is_some_and(|it| it.draining && it.static_blocks.is_empty() && it.pool == external.pool) {
                        address.open(&closed);
                    }
                    Arc::clone(address)
                }
                (Some(external), None) => {
                    let address = AddressLeases::closed(external.address, external.pool.is_some());
                    address.open(&closed_blocks(plan, external));
                    Arc::new(address)
                }
            }
        });
        Leases { addresses: addresses.collect() }
    }

    /// Opens the blocks that may be leased under `plan`, this table's own, and were not before. Call it when no session and
    /// no mapping of the plan before is left.
    pub fn open(&self, plan: &Plan) {
        for (address, external) in self.addresses.iter().zip(&plan.externals) {
            address.open(&closed_blocks(plan, external));
        }
    }

    /// Whether any shard holds a block of this address.
    #[must_use]
    pub fn is_leased(&self, external: u32) -> bool {
        self.address(external).is_some_and(|address| {
            address.owner.iter().any(|owner| !matches!(owner.load(Ordering::Relaxed), FREE | STATIC))
        })
    }

    #[inline]
    pub(super) fn address(&self, external: u32) -> Option<&AddressLeases> {
        self.addresses.get(external as usize).map(|address| &**address)
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
        self.address(external).map_or((0, 0), |a| (a.free.load(Ordering::Relaxed), a.leasable.load(Ordering::Relaxed)))
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
    /// An address of which no block may be leased. Without a pool it has no room for ports either.
    fn closed(address: u32, pool: bool) -> Self {
        let block = || Block { used: Default::default(), next: AtomicU16::new(NIL), previous: AtomicU16::new(NIL) };
        AddressLeases {
            address,
            owner: std::array::from_fn(|_| AtomicU8::new(STATIC)),
            closed: std::array::from_fn(|_| AtomicU64::new(u64::MAX)),
            free: AtomicU32::new(0),
            leasable: AtomicU32::new(0),
            blocks: (0..if pool { BLOCKS } else { 0 }).map(|_| block()).collect(),
        }
    }

    /// Closes blocks, a bit each: the free ones at once, the leased ones when they are given back.
    fn close(&self, closed: &[u64; BLOCKS / 64]) {
        for (word, &bits) in self.closed.iter().zip(closed) {
            let before = word.fetch_or(bits, Ordering::SeqCst);
            self.leasable.fetch_sub((bits & !before).count_ones(), Ordering::Relaxed);
        }
        (0..BLOCKS).filter(|&block| self.is_closed(block)).for_each(|block| self.retire(block));
    }

    /// Opens the blocks that are not in `closed`.
    fn open(&self, closed: &[u64; BLOCKS / 64]) {
        if self.blocks.is_empty() {
            return;
        }
        for (block, owner) in self.owner.iter().enumerate() {
            let (word, bit) = (&self.closed[block / 64], 1 << (block % 64));
            if closed[block / 64] & bit == 0 && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                self.leasable.fetch_add(1, Ordering::Relaxed);
                self.free.fetch_add(1, Ordering::Relaxed);
                if owner.compare_exchange(STATIC, FREE, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    // Its owner has not given it back yet: it was never away.
                    self.free.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Whether a block may not be leased (any more).
    #[inline]
    pub(super) fn is_closed(&self, block: usize) -> bool {
        self.closed.get(block / 64).is_none_or(|word| word.load(Ordering::SeqCst) >> (block % 64) & 1 == 1)
    }

    /// Takes a block that is free out of use.
    fn retire(&self, block: usize) {
        let free = |owner: &AtomicU8| owner.compare_exchange(FREE, STATIC, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let Some(owner) = self.owner.get(block).filter(|owner| free(owner)) else { return };
        self.free.fetch_sub(1, Ordering::Relaxed);
        // Opened meanwhile: whoever comes second sees it here too.
        if !self.is_closed(block) && owner.compare_exchange(STATIC, FREE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.free.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether no block of the address is free.
    #[inline]
    pub(super) fn is_exhausted(&self) -> bool {
        self.free.load(Ordering::Relaxed) == 0
    }

    /// Whether more than half of the address's blocks are free.
    #[inline]
    pub(super) fn plenty(&self) -> bool {
        self.free.load(Ordering::Relaxed) * 2 > self.leasable.load(Ordering::Relaxed)
    }

    /// The shard that a block is home to.
    pub(super) fn home(&self, block: usize) -> ShardId {
        rss::home(self.address, u16::try_from(block * BLOCK_PORTS).unwrap_or(0))
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
            owner.store(FREE, Ordering::SeqCst);
            // Closed meanwhile: whoever comes second, this or the control thread, sees it.
            if self.is_closed(block) {
                self.retire(block);
            }
        }
    }
}
