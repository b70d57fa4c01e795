//! The kernel's interface that a device sits on, or makes: what the drivers do not tell of it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::ifaddrs::getifaddrs;
use nix::libc;
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

/// Merging of received packets by the kernel (GRO) or for it (LRO), switched off on an interface. A router must send on what it
/// has received, and what is merged does not fit a packet buffer. Switched on again when dropped.
#[derive(Debug)]
pub(super) struct NoMerging {
    index: u32,
    gro: bool,
    lro: bool,
}

/// `linux/ethtool.h`.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETH_FLAG_LRO: u32 = 1 << 15;

impl NoMerging {
    /// Switches off what is on.
    ///
    /// # Errors
    /// What the kernel said, if something stays on.
    pub(super) fn on(index: u32) -> io::Result<Self> {
        let mut switched = NoMerging { index, gro: false, lro: false };
        if ethtool(index, ETHTOOL_GGRO, 0)? != 0 {
            ethtool(index, ETHTOOL_SGRO, 0)?;
            switched.gro = true;
        }
        let flags = ethtool(index, ETHTOOL_GFLAGS, 0)?;
        if flags & ETH_FLAG_LRO != 0 {
            ethtool(index, ETHTOOL_SFLAGS, flags & !ETH_FLAG_LRO)?;
            switched.lro = true;
        }
        Ok(switched)
    }
}

impl Drop for NoMerging {
    fn drop(&mut self) {
        // The interface may be gone; then there is nothing to put back.
        if self.gro {
            let _ = ethtool(self.index, ETHTOOL_SGRO, 1);
        }
        if self.lro
            && let Ok(flags) = ethtool(self.index, ETHTOOL_GFLAGS, 0)
        {
            let _ = ethtool(self.index, ETHTOOL_SFLAGS, flags | ETH_FLAG_LRO);
        }
    }
}

/// Asks the kernel for a setting of an interface, or sets it: commands whose argument and answer are a number.
fn ethtool(index: u32, command: u32, value: u32) -> io::Result<u32> {
    let name = name_of(index).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    // Of any kind: the kernel only wants to know the network namespace.
    let socket = UnixDatagram::unbound()?;
    let mut setting = [command, value];
    // SAFETY: all zeros is a valid `ifreq`, with an empty name and a number as its value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut setting).cast();
    // SAFETY: the socket is open; `request` is an `ifreq` with a name, as SIOCETHTOOL wants it, and its data is an
    // `ethtool_value`, which these commands read and write: two u32.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(setting[1])
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
