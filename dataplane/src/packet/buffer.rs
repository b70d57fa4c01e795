//! What the engine needs of a packet buffer.
//!
//! The engine is generic over [`Packet`], so that the same code runs on DPDK mbufs in a worker and on heap buffers in
//! tests, fuzzing and `turnpike replay`. A packet owns its buffer: dropping it gives the buffer back.

use arrayvec::ArrayVec;

/// What the device says about the transport checksum of a received packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// The device did not look.
    #[default]
    Unknown,
    /// The device found it right.
    Good,
    /// The device found it wrong.
    Bad,
    /// The sender left it to hardware (virtio, TAP): only the pseudo-header is in it.
    Partial,
}

/// A received or originated frame in one contiguous buffer, with room before and behind it.
pub trait Packet: Sized + Send + std::fmt::Debug {
    /// The frame, from its Ethernet header on.
    fn data(&self) -> &[u8];

    /// The frame, writable.
    fn data_mut(&mut self) -> &mut [u8];

    /// Whether [`Packet::data`] is the whole frame. A multi-segment mbuf is not contiguous.
    fn is_contiguous(&self) -> bool;

    /// Bytes free before the frame.
    fn headroom(&self) -> usize;

    /// Bytes free behind the frame.
    fn tailroom(&self) -> usize;

    /// Grows the frame at the front by `n` bytes (content undefined). False, and no change, without the room.
    #[must_use]
    fn prepend(&mut self, n: usize) -> bool;

    /// Cuts `n` bytes off the front. False, and no change, if the frame is shorter.
    #[must_use]
    fn trim_front(&mut self, n: usize) -> bool;

    /// Grows the frame at the back by `n` bytes (content undefined). False, and no change, without the room.
    #[must_use]
    fn append(&mut self, n: usize) -> bool;

    /// Shortens the frame to `len` bytes. No change if it is not longer.
    fn truncate(&mut self, len: usize);

    /// The device's word on the transport checksum.
    fn rx_checksum(&self) -> RxChecksum;

    /// Whether the device says that the frame holds several TCP segments: one that its sender left to hardware to cut (TSO), or
    /// that hardware has merged (LRO).
    fn is_merged(&self) -> bool;

    /// Gives back all buffers of `burst`, which may be cheaper than one by one.
    fn discard<const N: usize>(burst: &mut ArrayVec<Self, N>) {
        burst.clear();
    }
}

/// A bounded source of empty packets, for what the gateway originates.
pub trait PacketPool {
    /// The kind of packet it gives.
    type Packet: Packet;

    /// An empty frame with the usual headroom; none when the pool is exhausted.
    fn alloc(&mut self) -> Option<Self::Packet>;
}
