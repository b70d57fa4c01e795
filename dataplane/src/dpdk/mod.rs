//! Safe owners over dpdk-sys: the only place that calls DPDK.
//!
//! The order of calls, each needing what the one before gave:
//!
//! 1. [`check_cores`] on the cores that the configuration names, then [`Eal::start`], once in a process;
//! 2. [`Mempool::new`], one for each worker;
//! 3. [`Port::open`] for each port, with the workers' pools: it gives a [`Port`] for the control thread and one
//!    [`Queue`] for each worker;
//! 4. in each worker's `std::thread`: [`WorkerThread::enter`], then bursts of [`Mbuf`]s through its queues
//!    ([`Device`](crate::worker::Device)).
//!
//! ```no_run
//! use dataplane::dpdk::{Eal, EalConfig, Mempool, MempoolConfig, Port, PortConfig, WorkerThread};
//! use dataplane::worker::{Burst, Device};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! dataplane::dpdk::check_cores(&[1])?;
//! let eal = Eal::start(&EalConfig { memory_mib: 256, ..EalConfig::default() })?;
//! let pool = Mempool::new(eal, &MempoolConfig { packets: 16_384, ..MempoolConfig::default() })?;
//! let config = PortConfig::new("net_af_packet0,iface=lan0");
//! let (port, mut queues) = Port::open(eal, &config, &[&pool])?;
//! let mut queue = queues.pop().expect("a queue for each pool");
//! let worker = std::thread::spawn(move || {
//!     let _registered = WorkerThread::enter(eal, 1).expect("core 1 was checked");
//!     let mut burst = Burst::new();
//!     queue.receive(&mut burst);
//!     queue.transmit(&mut burst);
//! });
//! println!("{:?} {:?}, {} packets in use", port.link(), port.stats(), pool.in_use());
//! # worker.join().unwrap(); Ok(()) }
//! ```
//!
//! # What outlives what
//!
//! DPDK's memory must outlive every packet buffer in it, and a buffer is too small a thing to count references with. So
//! EAL, once started, and pools, once made, live until the process ends: [`Eal`] is the proof that EAL runs, and there
//! is no way to stop it. Nothing that they hold outlives the process (anonymous memory, no files, no sockets). Ports do
//! end: a port is stopped and closed when its [`Port`] handles and its [`Queue`]s are all gone, so that no queue of a
//! stopped port can be polled.
//!
//! # Threads
//!
//! DPDK's control calls want one caller at a time; a lock of this module sees to it, and `net_memif`'s last ones are made where its
//! driver hears of its peer, on DPDK's thread of interrupts. Bursts and buffers take no lock: a
//! [`Queue`] belongs to one thread at a time (`&mut self`), an [`Mbuf`] to its owner.

mod cycles;
mod eal;
mod error;
mod interrupt;
mod kernel;
mod log;
mod mbuf;
mod mempool;
mod mtu;
mod port;
mod queue;
mod rss;
mod rules;
mod thread;
mod wire;

pub use cycles::{cycles, cycles_per_second};
pub use eal::{Eal, EalConfig};
pub use error::Error;
pub use log::Log;
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolConfig};
pub use port::{Capabilities, Hashing, Link, Offloads, Port, PortConfig, PortInfo, PortStats};
pub use queue::Queue;
pub use rss::{Side, Steering};
pub use thread::{CoreError, WorkerThread, available_cores, check_cores};
pub use wire::wire;
