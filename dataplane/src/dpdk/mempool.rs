//! Pools of packet buffers.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eal::Eal;
use super::error::{Error, reason};
use super::log::Setup;
use super::mbuf::Mbuf;
use super::mtu::FRAME_OVERHEAD;
use crate::packet::PacketPool;

/// Buffers that a registered thread may keep for itself between visits to the pool: as many as eight bursts.
const CACHE: u32 = 256;

/// What a pool should hold.
#[derive(Clone, Copy, Debug)]
pub struct MempoolConfig {
    /// Number of buffers. Best is a power of two less one.
    pub packets: u32,
    /// The largest frame that fits a buffer, in bytes with Ethernet header and tags; the headroom comes on top.
    pub frame_size: u16,
    /// The NUMA node whose memory to take; none for any.
    pub numa_node: Option<u32>,
}

impl MempoolConfig {
    /// The frame size for packets of up to `mtu` bytes: with Ethernet header and two VLAN tags, rounded up to a multiple of
    /// 1,024 so that the slots of `net_af_packet` and the buffers of `net_memif` can be of that size; 2,048 at least.
    #[must_use]
    pub const fn frame_size_for(mtu: u16) -> u16 {
        let frame = mtu.saturating_add(FRAME_OVERHEAD);
        match frame.checked_next_multiple_of(1024) {
            Some(size) if size > Self::FRAME_SIZE => size,
            Some(_) => Self::FRAME_SIZE,
            None => u16::MAX,
        }
    }

    const FRAME_SIZE: u16 = 2048;
}

impl Default for MempoolConfig {
    /// 16,383 buffers for frames of up to 2,048 bytes, on any node.
    fn default() -> Self {
        MempoolConfig { packets: 16_383, frame_size: Self::FRAME_SIZE, numa_node: None }
    }
}

/// A pool of packet buffers. It lives as long as the process; clones are handles to the same pool.
///
/// Any thread may take and return buffers; each worker has a pool of its own so that they don't meet in it.
#[derive(Clone, Debug)]
pub struct Mempool {
    pool: NonNull<dpdk_sys::rte_mempool>,
    packets: u32,
    frame_size: u16,
}

// SAFETY: a mempool made with flags 0 is multi-producer and multi-consumer: DPDK lets all threads use it at once. It is
// never freed.
unsafe impl Send for Mempool {}
// SAFETY: as above; what `&Mempool` offers only reads counters.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Takes the memory for a pool.
    ///
    /// # Errors
    /// [`Error::Pool`] when EAL's memory doesn't suffice, or the pool's size is impossible.
    pub fn new(_eal: Eal, config: &MempoolConfig) -> Result<Mempool, Error> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let &MempoolConfig { packets, frame_size, numa_node } = config;
        let name = CString::new(format!("packets-{}", SERIAL.fetch_add(1, Ordering::Relaxed))).expect("no NUL");
        // A pool must be one and a half times its cache.
        let cache = CACHE.min(packets / 2);
        let room = frame_size.saturating_add(HEADROOM);
        let node = numa_node.and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        let setup = Setup::begin();
        // SAFETY: EAL runs (`_eal`); `name` is a NUL-terminated string, which DPDK copies; all numbers are checked by
        // DPDK; control calls are made one at a time (`setup`).
        let pool = unsafe { dpdk_sys::rte_pktmbuf_pool_create(name.as_ptr(), packets, cache, 0, room, node) };
        let pool = NonNull::new(pool).ok_or_else(|| {
            // SAFETY: reads a thread-local of DPDK; no conditions.
            let errno = unsafe { dpdk_sys::dpdk_errno() };
            Error::Pool { packets, frame_size, reason: reason(errno.saturating_neg()), log: setup.log() }
        })?;
        Ok(Mempool { pool, packets, frame_size: room - HEADROOM })
    }

    /// Number of buffers.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.packets
    }

    /// Number of buffers that are taken: held by the program, or waiting in a device's rings. Exact while nobody takes
    /// or returns any. It walks over all threads' caches: for gauges, not for the packet path.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is never freed; the function only reads.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.pool.as_ptr()) }
    }

    /// The largest frame that fits a buffer, in bytes.
    #[must_use]
    pub fn frame_size(&self) -> u16 {
        self.frame_size
    }

    pub(super) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.pool.as_ptr()
    }
}

/// Bytes that DPDK leaves free before the frame.
#[expect(clippy::cast_possible_truncation, reason = "a small constant of DPDK's configuration")]
const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;

impl PacketPool for Mempool {
    type Packet = Mbuf;

    fn alloc(&mut self) -> Option<Mbuf> {
        // SAFETY: the pool is a packet pool and is never freed.
        let mbuf = NonNull::new(unsafe { dpdk_sys::rte_pktmbuf_alloc(self.pool.as_ptr()) })?;
        // SAFETY: DPDK has just given this buffer to us alone, reset, with one reference and one segment.
        Some(unsafe { Mbuf::from_raw(mbuf) })
    }
}
