//! A port as one worker sees it.

use std::mem;
use std::sync::Arc;

use super::mbuf::Mbuf;
use super::port::OpenPort;
use crate::packet::{Packet, offload};
use crate::worker::{Burst, Device};

/// A receive queue and a transmit queue of a port: made once by [`Port::open`](super::Port::open), and moved into the
/// worker that polls it. The port stays open as long as one of its queues is there.
#[derive(Debug)]
pub struct Queue {
    port: Arc<OpenPort>,
    /// Their numbers.
    receive: u16,
    transmit: u16,
    /// Transport checksums may be unfinished, and nothing says so.
    from_kernel: bool,
}

impl Queue {
    /// The queue `id` of `port`.
    ///
    /// # Safety
    /// The port is started with that many receive and transmit queues, and this is the only `Queue` with that id.
    pub(super) unsafe fn new(port: Arc<OpenPort>, id: u16, from_kernel: bool) -> Self {
        Queue { port, receive: id, transmit: id, from_kernel }
    }

    /// Two queues of one port with their transmit queues exchanged: what one sends is where the other's would have gone.
    ///
    /// # Panics
    /// They are of two ports.
    pub(super) fn crossed(mut one: Queue, mut other: Queue) -> [Queue; 2] {
        assert!(Arc::ptr_eq(&one.port, &other.port), "queues of one port");
        // Each number still has one owner.
        mem::swap(&mut one.transmit, &mut other.transmit);
        [one, other]
    }
}

impl Device for Queue {
    type Packet = Mbuf;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        let len = burst.len();
        let room = u16::try_from(burst.remaining_capacity()).expect("a burst's length fits u16");
        // SAFETY: the port is started and the queue ours alone (`new`); the array has room for `room` pointers behind
        // its first `len`, and an `Mbuf` is a pointer to a buffer that has one owner, which DPDK's are when received.
        unsafe {
            let free = burst.as_mut_ptr().add(len).cast();
            let received = dpdk_sys::rte_eth_rx_burst(self.port.id(), self.receive, free, room);
            burst.set_len(len + usize::from(received));
        }
        if self.from_kernel {
            for packet in &mut burst[len..] {
                offload::finish(packet.data_mut());
            }
        }
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Burst<Mbuf>) {
        let len = u16::try_from(burst.len()).expect("a burst's length fits u16");
        // SAFETY: the port is started and the queue ours alone (`new`, `crossed`); the array holds `len` pointers to buffers that
        // it owns. DPDK takes over the first `sent`, which are forgotten below.
        let sent = unsafe { dpdk_sys::rte_eth_tx_burst(self.port.id(), self.transmit, burst.as_mut_ptr().cast(), len) };
        if sent == len {
            // SAFETY: none is left that is the array's own.
            unsafe { burst.set_len(0) };
        } else {
            burst.drain(..usize::from(sent)).for_each(mem::forget);
        }
    }
}
