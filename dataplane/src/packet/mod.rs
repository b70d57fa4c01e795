//! Packets: the [`Packet`] trait with its two implementations (mbuf and heap), header views, parsing, checksums.

pub mod buffer;
pub mod checksum;
pub mod error;
pub mod heap;
pub mod offload;
pub mod parse;
pub mod reset;
pub mod verify;

pub use buffer::{Packet, PacketPool, RxChecksum};
pub use heap::{HeapPacket, HeapPool};
