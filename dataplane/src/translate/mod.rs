//! The rewriting: pure functions over a frame and what was read of it; and between address families, the mapping of addresses.

pub mod eam;
pub mod embed;
pub mod icmp;
pub mod mss;
pub mod napt;
pub mod siit;
