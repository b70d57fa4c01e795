//! The rewriting: pure functions over a frame and what was read of it; and between address families, the mapping of addresses.

pub mod eam;
pub mod embed;
pub mod exchange;
pub mod icmp;
pub mod map66;
pub mod mss;
pub mod napt;
pub mod netmap;
pub mod nptv6;
pub mod siit;

/// Why an address has no counterpart in the other prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// Its subnet is all ones, or is not in the part of the shorter prefix that is mapped (RFC 6296 §3.7, §4.2).
    Subnet,
    /// Its interface identifier is all ones (RFC 6296 §3.7).
    Identifier,
    /// Its interface identifier is zero (RFC 6296 §3.7).
    ZeroIdentifier,
}
