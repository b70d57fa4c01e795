//! A wire between two threads of one process, for tests and measurements.

use super::eal::Eal;
use super::error::Error;
use super::mempool::Mempool;
use super::port::{Port, PortConfig};
use super::queue::Queue;

/// Queues that the device is opened with. The first and the last are used: the driver keeps the counters of neighbouring ones in
/// one line of the cache, which the threads at both ends would take from each other in each burst.
const QUEUES: usize = 8;

/// Lays a wire, and gives its ends: what one sends the other receives, as the same buffers, for nothing is copied. A ring for each
/// direction holds 1,023 packets. The wire is there as long as one of its ends is.
///
/// For tests and measurements: a wire exists within one process only, so nothing else can be at its other end. It is the device
/// `net_ring` with that number. Each queue of such a device is a ring that leads back to itself; so an end is made of one's receive
/// queue and another's transmit queue.
///
/// # Errors
/// Those of [`Port::open`]: above all, the device is open already.
pub fn wire(eal: Eal, number: usize, pool: &Mempool) -> Result<[Queue; 2], Error> {
    let (_, queues) = Port::open(eal, &PortConfig::new(&format!("net_ring{number}")), &[pool; QUEUES])?;
    let mut queues = queues.into_iter();
    let (first, last) = queues.next().zip(queues.next_back()).expect("the driver has sixteen queues");
    Ok(Queue::crossed(first, last))
}
