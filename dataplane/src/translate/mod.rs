//! The rewriting: pure functions over a frame and what was read of it.

pub mod icmp;
pub mod mss;
pub mod napt;
