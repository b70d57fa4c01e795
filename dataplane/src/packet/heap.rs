//! Packets on the heap: for tests, fuzzing and `turnpike replay`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::buffer::{Packet, PacketPool, RxChecksum};

/// Room before the frame, as DPDK's `RTE_PKTMBUF_HEADROOM`, in bytes.
pub const HEADROOM: usize = 128;

/// Room behind the frame of an originated packet, in bytes.
const TAILROOM: usize = 2048;

/// A frame on the heap, with headroom. Moved as cheaply as a driver's: it is a pointer.
#[derive(Debug)]
pub struct HeapPacket(Box<Frame>);

#[derive(Debug)]
struct Frame {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    rx_checksum: RxChecksum,
    merged: bool,
    /// Held for its drop: the place in the pool that this packet takes.
    _lease: Option<Lease>,
}

/// Gives the slot back to the pool that a packet came from.
#[derive(Debug)]
struct Lease(Arc<AtomicUsize>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl HeapPacket {
    /// A packet holding `frame`, with [`HEADROOM`] before it and 256 bytes behind it: more than an ICMP error grows by.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut buffer = vec![0; HEADROOM + frame.len() + 256];
        buffer[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        HeapPacket::new(buffer, HEADROOM + frame.len(), None)
    }

    fn new(buffer: Vec<u8>, end: usize, lease: Option<Lease>) -> Self {
        let (rx_checksum, merged) = (RxChecksum::Unknown, false);
        HeapPacket(Box::new(Frame { buffer, start: HEADROOM, end, rx_checksum, merged, _lease: lease }))
    }

    /// The same packet with the given word of the device on its checksum.
    #[must_use]
    pub fn with_rx_checksum(mut self, rx_checksum: RxChecksum) -> Self {
        self.0.rx_checksum = rx_checksum;
        self
    }

    /// The same packet, of which the device says that it holds several TCP segments.
    #[must_use]
    pub fn as_merged(mut self) -> Self {
        self.0.merged = true;
        self
    }
}

impl Packet for HeapPacket {
    #[inline]
    fn data(&self) -> &[u8] {
        &self.0.buffer[self.0.start..self.0.end]
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0.buffer[self.0.start..self.0.end]
    }

    fn is_contiguous(&self) -> bool {
        true
    }

    fn headroom(&self) -> usize {
        self.0.start
    }

    fn tailroom(&self) -> usize {
        self.0.buffer.len() - self.0.end
    }

    fn prepend(&mut self, n: usize) -> bool {
        let fits = n <= self.0.start;
        if fits {
            self.0.start -= n;
        }
        fits
    }

    fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.0.end - self.0.start;
        if fits {
            self.0.start += n;
        }
        fits
    }

    fn append(&mut self, n: usize) -> bool {
        let fits = n <= self.tailroom();
        if fits {
            self.0.end += n;
        }
        fits
    }

    fn truncate(&mut self, len: usize) {
        self.0.end = self.0.end.min(self.0.start + len);
    }

    fn rx_checksum(&self) -> RxChecksum {
        self.0.rx_checksum
    }

    fn is_merged(&self) -> bool {
        self.0.merged
    }
}

/// A bounded pool of [`HeapPacket`]s.
#[derive(Debug, Clone)]
pub struct HeapPool {
    free: Arc<AtomicUsize>,
    tailroom: usize,
}

impl HeapPool {
    /// A pool that gives at most `capacity` packets at a time.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        HeapPool { free: Arc::new(AtomicUsize::new(capacity)), tailroom: TAILROOM }
    }

    /// The same, with room for frames of this many bytes.
    #[must_use]
    pub fn with_frames_of(self, bytes: usize) -> Self {
        HeapPool { tailroom: bytes, ..self }
    }

    /// How many packets can still be taken.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }
}

impl PacketPool for HeapPool {
    type Packet = HeapPacket;

    fn alloc(&mut self) -> Option<HeapPacket> {
        // Only this handle takes packets (`&mut self`); a packet dropped elsewhere only adds.
        if self.free.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.free.fetch_sub(1, Ordering::Relaxed);
        let lease = Some(Lease(Arc::clone(&self.free)));
        Some(HeapPacket::new(vec![0; HEADROOM + self.tailroom], HEADROOM, lease))
    }
}
