//! Why DPDK, a pool or a port could not be set up, in words for the operator.

use std::io;

use super::log::Log;
use super::thread::CoreError;

/// Why DPDK, a pool or a port could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EAL can be started once in a process, whether that succeeds or not.
    #[error("DPDK was started before in this process, and can be started only once")]
    AlreadyStarted,
    /// A string from the configuration that DPDK can't be given.
    #[error("`{value}` is no {what}: {remedy}")]
    BadName {
        /// What it should have been.
        what: &'static str,
        /// The string.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// Less memory is free than the configuration wants.
    #[error(
        "DPDK is to have {wanted_mib} MiB of {} and {free_mib} MiB are free: {}",
        if *.huge { "huge pages" } else { "memory" },
        if *.huge {
            "reserve more (sysctl vm.nr_hugepages), or set boot.memory.hugepages to false"
        } else {
            "lower boot.memory.size, or free some"
        }
    )]
    NoMemory {
        /// In MiB, from the configuration.
        wanted_mib: u32,
        /// In MiB, from the kernel.
        free_mib: u64,
        /// Whether huge pages are meant.
        huge: bool,
    },
    /// The control thread can't have its core.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// EAL didn't start.
    #[error("DPDK did not start: {reason}{log}")]
    Start {
        /// What EAL's error code says.
        reason: String,
        /// What EAL said.
        log: Log,
    },
    /// A packet pool could not be made.
    #[error(
        "no pool of {packets} packets of {frame_size} bytes: {reason}; raise boot.memory.size or lower boot.packets{log}"
    )]
    Pool {
        /// Packets wanted.
        packets: u32,
        /// Bytes of frame in each.
        frame_size: u16,
        /// What DPDK's error code says.
        reason: String,
        /// What DPDK said.
        log: Log,
    },
    /// The device is open already.
    #[error("device `{device}` is already open: each port needs a device of its own")]
    AlreadyOpen {
        /// The device's name.
        device: String,
    },
    /// A kernel interface that a vdev should sit on is not there.
    #[error("device `{device}`: there is no interface `{interface}` in this network namespace")]
    NoInterface {
        /// The vdev.
        device: String,
        /// The value of its `iface=`.
        interface: String,
    },
    /// A PCI device can't be used.
    #[error("PCI device {device}: {reason}{log}")]
    Pci {
        /// Its address.
        device: String,
        /// What is wrong, and what to do.
        reason: String,
        /// What DPDK said.
        log: Log,
    },
    /// The device can't carry packets of the configured size.
    #[error("device `{device}` can't have an MTU of {wanted} bytes: {reason}")]
    Mtu {
        /// The device.
        device: String,
        /// In bytes, without the Ethernet header.
        wanted: u16,
        /// What limits it.
        reason: String,
    },
    /// The driver refused something else.
    #[error("device `{device}`: {step} failed: {reason}{log}")]
    Device {
        /// The device.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the error code says.
        reason: String,
        /// What the driver said.
        log: Log,
    },
}

/// What a return code of DPDK says: a negated errno, or -1 from drivers that don't tell.
pub(super) fn reason(code: i32) -> String {
    match code {
        -1 => "the driver refused".into(),
        _ => io::Error::from_raw_os_error(code.saturating_neg()).to_string(),
    }
}
