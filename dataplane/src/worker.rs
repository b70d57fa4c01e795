//! The poll loop: receive, engine, transmit.

use arrayvec::ArrayVec;

use crate::packet::Packet;

/// The most packets taken from a device, or given to it, at once.
pub const BURST: usize = 32;

/// A reused array of packets. What is left in it after use is freed by its owner.
pub type Burst<P> = ArrayVec<P, BURST>;

/// One port as one worker sees it: a receive queue and a transmit queue of its own.
pub trait Device: Send {
    /// The kind of packet it moves.
    type Packet: Packet;

    /// Appends what has arrived to `burst`, as far as there is room in it.
    fn receive(&mut self, burst: &mut Burst<Self::Packet>);

    /// Sends `burst` in order. What the device does not accept is left in it, in order.
    fn transmit(&mut self, burst: &mut Burst<Self::Packet>);
}
