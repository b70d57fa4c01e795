//! The processor's cycle counter: x86's TSC, Arm's virtual counter. It ticks evenly, whatever the frequency of the core, and
//! costs a few nanoseconds to read.

use super::eal::Eal;

/// The counter.
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: reads a register; no conditions.
    unsafe { dpdk_sys::rte_rdtsc() }
}

/// How much it counts in a second.
#[must_use]
pub fn cycles_per_second(_eal: Eal) -> u64 {
    // SAFETY: EAL, which has measured it, runs (`_eal`).
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
