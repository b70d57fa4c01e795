//! Turnpike's control side: everything around the packet path.

pub mod capture;
pub mod metrics;
