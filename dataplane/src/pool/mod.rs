//! External addresses and ports: who owns them, and how one is chosen.
//!
//! Ports are leased, not dealt. The unit is an external address; a block is 64 consecutive ports, the same block for
//! TCP, UDP and ICMP identifiers. [`Leases`] is the table of all blocks, shared by all workers: a shard takes a free
//! block by one compare-and-swap, and from then on only its worker writes that block's bits, until it gives the block
//! back. [`Ports`] is a shard's own side: the list of its blocks at each address, and the choice of a port in them.
//! Blocks that hold a static port are marked and never leased, so that no port has two owners.

pub mod lease;
pub mod ports;

pub use lease::{BLOCK_PORTS, Leases, Owner};
pub use ports::{Ports, Proto, Want};
