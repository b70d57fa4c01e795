//! The kernel's interface that a device sits on, or makes: what the drivers do not tell of it.

use std::ffi::CString;
use std::fs;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_indextoname};

/// How a kernel's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is up and has a carrier.
    Up,
    /// It is set down, or has no carrier.
    Down,
    /// It is in another network namespace, from where nothing can be told of it.
    Elsewhere,
    /// It was deleted.
    Gone,
}

/// A kernel's interface, by the index that it had when the port was opened: one made later by the same name is another.
#[derive(Debug)]
pub(super) struct Interface {
    index: u32,
    name: String,
    /// Made by the driver, which keeps it by an open file, wherever it is moved to.
    tap: bool,
}

impl Interface {
    /// The interface of a device of this driver, if it has one whose going up and down is the device's.
    pub(super) fn of(driver: &str, index: Option<u32>) -> Option<Self> {
        if !["net_af_packet", "net_af_xdp", "net_pcap", "net_tap"].contains(&driver) {
            return None;
        }
        let (index, tap) = (index?, driver == "net_tap");
        let name = name_of(index)?.into_string().ok()?;
        Some(Interface { index, name, tap })
    }

    /// How it is now. Asks the kernel.
    pub(super) fn state(&self) -> State {
        // It may have got another name.
        let Some(name) = name_of(self.index) else {
            return if self.tap && tap_exists(&self.name) { State::Elsewhere } else { State::Gone };
        };
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        // Where the kernel has no answer, for want of memory say, nothing has changed.
        let up = getifaddrs().map_or(true, |mut all| {
            all.any(|it| it.interface_name.as_bytes() == name.as_bytes() && it.flags.contains(wanted))
        });
        if up { State::Up } else { State::Down }
    }
}

/// The name of the interface of this index, in the namespace of the process. (nix 0.31 takes the C library's null for a name,
/// an empty one.)
fn name_of(index: u32) -> Option<CString> {
    if_indextoname(index).ok().filter(|name| !name.is_empty())
}

/// Whether a file that this process has open is a TAP device of this name. The kernel names it there as long as the device
/// exists, in whatever namespace.
fn tap_exists(name: &str) -> bool {
    let Ok(files) = fs::read_dir("/proc/self/fdinfo") else { return false };
    let names_it = |line: &str| line.strip_prefix("iff:").is_some_and(|it| it.trim() == name);
    files.flatten().any(|file| fs::read_to_string(file.path()).is_ok_and(|about| about.lines().any(names_it)))
}
