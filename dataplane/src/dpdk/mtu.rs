//! How large a packet a device carries.
//!
//! A NIC's driver knows. Software devices know too little of themselves: the largest frame of `net_af_packet` and `net_memif`
//! follows from their arguments, and `net_af_packet`'s MTU is that of the kernel's interface, which its driver can't set to
//! more than 1500 bytes. So these two are looked after here, and what a device can't carry is refused at start, with what to
//! write instead.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::libc;
use nix::net::if_::if_indextoname;

use super::error::{Error, reason};
use super::log::Setup;
use super::mempool::Mempool;
use super::port::{OpenPort, PortConfig, UNSUPPORTED};
use crate::packet::parse::{ETHERNET, TAG};

/// Two VLAN tags, in bytes.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const TAGS: u16 = 2 * TAG as u16;
/// Ethernet header and two VLAN tags, in bytes: what a frame has on top of its packet, at most.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const FRAME_OVERHEAD: u16 = ETHERNET as u16 + TAGS;
/// Ethernet header and frame check sequence, in bytes: what DPDK itself has frames have, where a driver says nothing.
const DPDK_OVERHEAD: u32 = 18;

/// `net_af_packet`: what the kernel puts before the frame into each slot of its ring, rounded up (TPACKET2_HDRLEN, alignment).
const RING_OVERHEAD: u32 = 66;
/// `net_af_packet`: the size of a slot without `framesz=`.
const RING_SLOT: u32 = 2048;
/// `net_af_packet`: the size of a block of slots without `blocksz=`, a page.
const RING_BLOCK: u32 = 4096;
/// `net_memif`: the size of a buffer without `bsize=`.
const MEMIF_BUFFER: u32 = 2048;
/// `net_af_xdp`: the largest frame size of a pool; with headroom, descriptor and the pool's own share it is within a page.
const XDP_FRAME: u16 = 3072;

/// The number that a vdev's argument is set to.
fn argument(device: &str, key: &str) -> Option<u32> {
    let mut arguments = device.split(',').skip(1).filter_map(|argument| argument.split_once('='));
    arguments.find(|(name, _)| *name == key)?.1.parse().ok()
}

/// What is wrong with a vdev's arguments, whatever its MTU, if its driver would not say so.
pub(super) fn check_arguments(device: &str) -> Result<(), Error> {
    let slot = argument(device, "framesz").unwrap_or(RING_SLOT);
    let block = argument(device, "blocksz").unwrap_or(RING_BLOCK);
    // The kernel leaves the rest of a block empty, and the driver does not. About a smaller block it speaks up itself.
    if device.starts_with("net_af_packet") && block > slot && block.checked_rem(slot).is_some_and(|rest| rest != 0) {
        let remedy = "make blocksz a multiple of framesz and of 4096, as framesz=2048,blocksz=4096 or framesz=9216,blocksz=36864";
        return Err(Error::BadName { what: "DPDK device", value: device.into(), remedy });
    }
    // The guest would send TCP segments of up to 64 KiB, which no link can carry on.
    if device.starts_with("net_vhost") && argument(device, "tso").is_some_and(|tso| tso != 0) {
        let remedy = "leave tso out: the guest cuts its segments itself then";
        return Err(Error::BadName { what: "DPDK device", value: device.into(), remedy });
    }
    Ok(())
}

/// The largest frame that a device's arguments have room for, in bytes, and what to write for frames of `wanted` bytes.
fn room(driver: &str, device: &str, wanted: u16) -> Option<(u16, String)> {
    let most = |bytes: u32| u16::try_from(bytes).unwrap_or(u16::MAX);
    match driver {
        "net_af_packet" => {
            let slot = (u32::from(wanted) + RING_OVERHEAD).next_multiple_of(1024);
            let room = argument(device, "framesz").unwrap_or(RING_SLOT).saturating_sub(RING_OVERHEAD);
            Some((most(room), format!("framesz={slot},blocksz={}", slot * 4)))
        }
        "net_memif" => {
            let room = argument(device, "bsize").unwrap_or(MEMIF_BUFFER);
            Some((most(room), format!("bsize={} at both ends", u32::from(wanted).next_multiple_of(1024))))
        }
        _ => None,
    }
}

impl OpenPort {
    /// Gives the device the MTU that is wanted, if any, and says what it is: the largest packet, in bytes without Ethernet
    /// header and tags.
    pub(super) fn set_mtu(
        &self,
        config: &PortConfig,
        info: &dpdk_sys::rte_eth_dev_info,
        driver: &str,
        pools: &[&Mempool],
        setup: &Setup,
    ) -> Result<u16, Error> {
        let frame = config.mtu.unwrap_or(0).saturating_add(FRAME_OVERHEAD);
        let room = room(driver, &config.device, frame);
        if let Some(wanted) = config.mtu {
            if let Some(pool) = pools.iter().find(|pool| pool.frame_size() < frame) {
                let reason = format!("frames of {frame} bytes don't fit buffers for {}", pool.frame_size());
                return Err(self.can_not_have(wanted, reason));
            }
            if let Some((room, remedy)) = room.as_ref().filter(|(room, _)| *room < frame) {
                let reason = format!("its arguments have room for frames of {room} bytes; for {frame} write {remedy}");
                return Err(self.can_not_have(wanted, reason));
            }
        }
        match (driver, room) {
            ("net_memif", Some((room, _))) => Ok(room.saturating_sub(FRAME_OVERHEAD)),
            ("net_af_packet", _) => self.kernel_mtu(info.if_index, config),
            _ => self.driver_mtu(config, info, driver, setup),
        }
    }

    /// The MTU of a device whose driver knows it.
    fn driver_mtu(
        &self,
        config: &PortConfig,
        info: &dpdk_sys::rte_eth_dev_info,
        driver: &str,
        setup: &Setup,
    ) -> Result<u16, Error> {
        // What this one can carry is its MTU and 22 bytes.
        let tags = if config.two_tags && driver != "net_tap" { TAGS } else { 0 };
        let mut mtu = 0;
        // SAFETY: the port is open, `mtu` is room for the answer; control calls are made one at a time (`setup`).
        let now = match unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id(), &raw mut mtu) } {
            0 => mtu,
            code => return Err(self.refused("reading its MTU", reason(code), setup)),
        };
        let Some(packet) = config.mtu else { return Ok(now.saturating_sub(tags)) };
        let wanted = packet.saturating_add(tags);
        if wanted == now {
            return Ok(packet);
        }
        let most = most(info);
        if wanted > most {
            return Err(self.can_not_have(packet, format!("it takes {} at most", most.saturating_sub(tags))));
        }
        // SAFETY: as above.
        match unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id(), wanted) } {
            0 => Ok(packet),
            // A device without a notion of an MTU does not measure tags either.
            UNSUPPORTED if packet <= now => Ok(now),
            UNSUPPORTED => Err(self.can_not_have(packet, format!("its driver can't change it from {now}"))),
            code => Err(self.refused("setting its MTU", reason(code), setup)),
        }
    }

    /// The MTU of a device that is an interface of the kernel's.
    fn kernel_mtu(&self, index: u32, config: &PortConfig) -> Result<u16, Error> {
        // The kernel allows for one tag, and only if its type is 802.1Q's.
        let tags = if config.two_tags { TAGS } else { 0 };
        let wanted = config.mtu.map(|mtu| mtu.saturating_add(tags));
        match interface_mtu(index, wanted) {
            Ok(mtu) => Ok(mtu.saturating_sub(tags)),
            Err(error) => {
                let name =
                    if_indextoname(index).map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into());
                let wanted = wanted.unwrap_or(0);
                let reason = format!("interface `{name}` does not take {wanted}: {error}");
                Err(self.can_not_have(config.mtu.unwrap_or(0), reason))
            }
        }
    }

    fn can_not_have(&self, wanted: u16, reason: String) -> Error {
        Error::Mtu { device: self.name().into(), wanted, reason }
    }
}

/// The largest MTU that a driver says it can have, as DPDK judges it.
pub(super) fn most(info: &dpdk_sys::rte_eth_dev_info) -> u16 {
    let longest = info.max_rx_pktlen;
    let stated = info.max_mtu != u16::MAX && longest > u32::from(info.max_mtu);
    let by_frame = if stated { u32::from(info.max_mtu) } else { longest.saturating_sub(DPDK_OVERHEAD) };
    u16::try_from(by_frame).unwrap_or(u16::MAX).min(info.max_mtu)
}

/// The MTU of an interface of the kernel's, in bytes, after setting it to `wanted`.
fn interface_mtu(index: u32, wanted: Option<u16>) -> io::Result<u16> {
    let name = if_indextoname(index)?;
    let name = name.as_bytes_with_nul();
    // Of any kind: the kernel only wants to know the network namespace.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: all zeros is a valid `ifreq`, with an empty name and a number as its value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    // SAFETY: the socket is open, and `request` is an `ifreq` with a name, as both calls want it: read by the one, its
    // value written by the other.
    let mtu = unsafe {
        if let Some(wanted) = wanted {
            request.ifr_ifru.ifru_mtu = i32::from(wanted);
            if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw const request) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_mtu
    };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Whether `net_af_xdp` can use these pools: why not, if not.
pub(super) fn check_xdp(driver: &str, pools: &[&Mempool]) -> Result<(), String> {
    match pools.iter().find(|pool| driver == "net_af_xdp" && pool.frame_size() > XDP_FRAME) {
        None => Ok(()),
        Some(pool) => Err(format!(
            "its buffers are pages, and those of this gateway have room for frames of {} bytes; lower every interfaces.NAME.mtu \
             to {} at most, or use another kind of device",
            pool.frame_size(),
            XDP_FRAME - FRAME_OVERHEAD
        )),
    }
}
