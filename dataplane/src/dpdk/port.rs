//! A port: one DPDK device, opened, started, watched.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use nix::net::if_::if_nametoindex;

use super::eal::{Eal, is_pci_address};
use super::error::{Error, reason};
use super::interrupt;
use super::kernel::{Interface, NoMerging, State};
use super::log::{Setup, control};
use super::mempool::Mempool;
use super::mtu;
use super::queue::Queue;
use super::rss::{self, Rss, Side, Steering};
use super::rules::{self, Rules};
use crate::plan::MacAddr;
use crate::steer::ShardMap;

/// How a port is opened.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The device: a vdev with its arguments (`net_af_packet0,iface=lan0`), or a PCI address out of
    /// [`EalConfig::pci`](super::EalConfig::pci).
    pub device: String,
    /// Descriptors of each receive queue. The driver may round them.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue. The driver may round them.
    pub tx_descriptors: u16,
    /// The address to give the device; none keeps its own.
    pub mac: Option<MacAddr>,
    /// The largest packet, in bytes without Ethernet header and tags; none keeps the device's.
    pub mtu: Option<u16>,
    /// Whether frames of such packets may have two VLAN tags. For one there is always room.
    pub two_tags: bool,
    /// Whether to receive frames to any address. A device that can't filter always does.
    pub promiscuous: bool,
    /// The side of its flows, by which it is to spread them over several queues.
    pub side: Side,
}

impl PortConfig {
    /// The device as it is, with 1,024 descriptors a queue.
    #[must_use]
    pub fn new(device: &str) -> Self {
        PortConfig {
            device: device.into(),
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mac: None,
            mtu: None,
            two_tags: false,
            promiscuous: false,
            side: Side::Neither,
        }
    }
}

/// What a port can do, and how it was set up.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// The device's name, without its arguments.
    pub device: String,
    /// The driver's name, as `net_ixgbe`.
    pub driver: String,
    /// The NUMA node that the device is at, if it is at one.
    pub numa_node: Option<u32>,
    /// Receive queues that the device can have.
    pub max_rx_queues: u16,
    /// Transmit queues that the device can have.
    pub max_tx_queues: u16,
    /// Queues that it was opened with, each way.
    pub queues: u16,
    /// How it spreads what it receives over them.
    pub steering: Steering,
    /// Whether it does so by flow rules (rte_flow), or why its driver takes none for that. None where they were not asked for: its
    /// configuration says all, or there is one queue.
    pub flow_rules: Option<Result<(), String>>,
    /// Entries of its table from hashes to queues (RETA); 0 if there is none to be written.
    pub reta_size: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// What is left to hardware.
    pub offloads: Offloads,
    /// The kernel's index of the interface that the device sits on, or makes.
    pub if_index: Option<u32>,
    /// The device's address.
    pub mac: MacAddr,
    /// The largest packet, in bytes without Ethernet header and tags.
    pub mtu: u16,
    /// Whether frames of such packets may have two VLAN tags.
    pub two_tags: bool,
}

/// What a port leaves to its device's hardware: on receive alone. All of it saves work, and nothing depends on it.
///
/// Checksums of packets that leave are not left to it. Those of forwarded packets are updated by difference, which costs less than
/// telling the device where they are, and lets drivers use their faster transmit paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The transport checksums that it looks at: UDP's, TCP's.
    pub rx_checksums: [bool; 2],
    /// Why the kernel's interface below may still merge received packets (GRO, LRO), which it was told not to.
    pub merging: Option<String>,
}

impl fmt::Display for Offloads {
    /// The checksums: `UDP, TCP`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rx_checksums {
            [true, true] => "UDP, TCP",
            [true, false] => "UDP",
            [false, true] => "TCP",
            [false, false] => "none",
        })
    }
}

/// What a port's device could do if it were asked to: what [`Port::capabilities`] finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The largest packet that its driver says it takes, in bytes without Ethernet header.
    pub max_mtu: u16,
    /// The packets that it can spread over queues by a hash (RSS), in DPDK's words: `ipv4`, `ipv4-udp`, ...
    pub hashes: Vec<&'static str>,
    /// Entries of the table from hashes to queues (RETA); 0 if it has none.
    pub reta_size: u16,
    /// Bytes of the hash's key; 0 if it has none.
    pub hash_key_size: u8,
    /// Hashing IPv4 by the source address alone.
    pub source_only: Hashing,
    /// Hashing IPv4 by destination address and port alone.
    pub destination_only: Hashing,
    /// Hashing IPv6 by the first 64 bits of the source address alone.
    pub source_prefix_only: Hashing,
    /// Whether its driver has flow rules (rte_flow).
    pub flow_rules: bool,
    /// The checksums that it looks at: IPv4's header, UDP, TCP.
    pub rx_checksums: [bool; 3],
    /// The checksums that it can write: IPv4's header, UDP, TCP.
    pub tx_checksums: [bool; 3],
    /// Whether it can merge received TCP segments (LRO). It is never asked to: a router must not.
    pub lro: bool,
}

/// How a device can be told to hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hashing {
    /// Not at all.
    #[default]
    No,
    /// When it is configured.
    ByConfiguration,
    /// By a flow rule.
    ByFlowRule,
}

/// Whether a port has a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// The device was deleted: it will never be up again. Known of devices on an interface of the kernel's.
    pub gone: bool,
    /// Mbit/s, if the device knows. Software devices make something up.
    pub speed_mbps: Option<u32>,
    /// Whether both directions go at once.
    pub full_duplex: bool,
}

/// What a device counts since it was opened. Zero where it doesn't count. Names in parentheses are DPDK's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received (ipackets).
    pub rx_packets: u64,
    /// Bytes of these (ibytes).
    pub rx_bytes: u64,
    /// Packets lost because the receive queue was full: the workers were too slow (imissed).
    pub rx_missed: u64,
    /// Packets that arrived damaged (ierrors).
    pub rx_errors: u64,
    /// Times when the pool had no buffer to receive into (rx_nombuf).
    pub rx_no_buffer: u64,
    /// Packets sent (opackets).
    pub tx_packets: u64,
    /// Bytes of these (obytes).
    pub tx_bytes: u64,
    /// Packets that the device took and could not send (oerrors).
    pub tx_errors: u64,
}

/// A handle to an open port, for the control thread. Clones are handles to the same port; it closes with the last of
/// them and of its [`Queue`]s.
#[derive(Clone, Debug)]
pub struct Port {
    open: Arc<OpenPort>,
    info: Arc<PortInfo>,
    /// The kernel's interface that it sits on.
    interface: Option<Arc<Interface>>,
    /// Held for its drop: that interface merges no packets meanwhile.
    _no_merging: Option<Arc<NoMerging>>,
}

impl Port {
    /// Opens and starts a device with one receive and one transmit queue for each of `pools`, or as many as it has; frames that
    /// the queue `n` receives are in buffers of `pools[n]`.
    ///
    /// All multicast is received (RFC 4861 needs it), and UDP's and TCP's checksums are looked at where the device can,
    /// but for virtio: its host would then send packets with unfinished checksums.
    ///
    /// # Errors
    /// [`Error`] names the device, what is wrong with it, and what its driver said. Whatever was opened is closed again.
    pub fn open(eal: Eal, config: &PortConfig, pools: &[&Mempool]) -> Result<(Port, Vec<Queue>), Error> {
        mtu::check_arguments(&config.device)?;
        let open = OpenPort::probe(eal, &config.device)?;
        let mut info = open.configure(config, pools)?;
        let open = Arc::new(open);
        // These hand over what a kernel's network stack sends, and do not say that a checksum is unfinished.
        let from_kernel = matches!(info.driver.as_str(), "net_af_packet" | "net_af_xdp");
        let no_merging = info.if_index.filter(|_| from_kernel).map(NoMerging::on).transpose();
        let no_merging = no_merging.map_err(|error| info.offloads.merging = Some(error.to_string())).ok().flatten();
        // SAFETY: `configure` has set up that many queues and started the port; each id is given once.
        let queues = (0..info.queues).map(|id| unsafe { Queue::new(Arc::clone(&open), id, from_kernel) }).collect();
        let interface = Interface::of(&info.driver, info.if_index).map(Arc::new);
        let _no_merging = no_merging.map(Arc::new);
        Ok((Port { open, info: Arc::new(info), interface, _no_merging }, queues))
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Its address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.info.mac
    }

    /// The largest packet, in bytes without Ethernet header and tags.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.info.mtu
    }

    /// The largest packet whose frames may have two VLAN tags, in bytes without them and the Ethernet header.
    #[must_use]
    pub fn mtu_with_two_tags(&self) -> u16 {
        if self.info.two_tags { self.info.mtu } else { self.info.mtu.saturating_sub(mtu::TAGS) }
    }

    /// Has the device deliver packets to the owners of their shards, or, where it knows no owners, over all queues that there are;
    /// as far as its steering goes. False if its driver refuses. For the control thread, at start and when a shard has moved.
    #[must_use]
    pub fn steer(&self, map: &ShardMap) -> bool {
        let _control = control();
        let entries = self.info.reta_size;
        let written = entries == 0 || rss::write_table(&self.open, map, entries, self.info.queues).is_ok();
        let mut rules = self.open.rules.lock().unwrap_or_else(PoisonError::into_inner);
        match rules.take().map(|rules| rules.renew(map)).transpose() {
            Ok(renewed) => {
                *rules = renewed;
                written
            }
            Err(_) => false,
        }
    }

    /// Has the port receive frames to further addresses, in addition to what it receives already. Says whether its driver
    /// could be told; if not, the port receives frames to any address from now on, or always has.
    ///
    /// # Errors
    /// [`Error::Device`] when the driver refuses even that.
    pub fn receive_for(&self, macs: &[MacAddr]) -> Result<bool, Error> {
        let setup = Setup::begin();
        let id = self.open.id;
        let told = macs.iter().all(|mac| {
            let mut mac = dpdk_sys::rte_ether_addr { addr_bytes: mac.0 };
            // SAFETY: the port is open, `mac` is an address, which DPDK copies; control calls are made one at a time
            // (`setup`).
            unsafe { dpdk_sys::rte_eth_dev_mac_addr_add(id, &raw mut mac, 0) == 0 }
        });
        if told {
            return Ok(true);
        }
        // SAFETY: as above.
        match unsafe { dpdk_sys::rte_eth_promiscuous_enable(id) } {
            0 | UNSUPPORTED => Ok(false),
            code => Err(self.open.refused("receiving frames to all addresses", reason(code), &setup)),
        }
    }

    /// Whether it has a link now. For the control thread: it may cost system calls.
    ///
    /// What the driver says, and, where the device sits on an interface of the kernel's, what the kernel says of that:
    /// `net_af_packet` and others never take note of its going down.
    #[must_use]
    pub fn link(&self) -> Link {
        let unknown = |up, gone| Link { up, gone, speed_mbps: None, full_duplex: false };
        // The driver is not asked about an interface that it can't find: it would complain each time.
        let kernel_up = match self.interface.as_ref().map(|interface| interface.state()) {
            None | Some(State::Up) => true,
            Some(State::Down) => false,
            Some(State::Elsewhere) => return unknown(true, false),
            Some(State::Gone) => return unknown(false, true),
        };
        let mut link = MaybeUninit::<dpdk_sys::dpdk_link>::uninit();
        let control = control();
        // SAFETY: the port is open; `link` is room for the answer, which is written if the code is 0.
        let code = unsafe { dpdk_sys::dpdk_eth_link_get_nowait(self.open.id, link.as_mut_ptr()) };
        drop(control);
        if code != 0 {
            return unknown(false, false);
        }
        // SAFETY: the code is 0.
        let link = unsafe { link.assume_init() };
        let speed_mbps = Some(link.speed_mbps).filter(|&speed| speed != dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN);
        Link { up: link.up && kernel_up, gone: false, speed_mbps, full_duplex: link.full_duplex }
    }

    /// What its device could do if it were asked to. Asks its driver a few questions and changes nothing; for the control
    /// thread. A device that does not answer can do nothing.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let _control = control();
        let Ok(info) = device_info(self.open.id) else { return Capabilities::default() };
        let types = info.flow_type_rss_offloads;
        // SAFETY: the port is open and started; control calls are made one at a time.
        let flow_rules = unsafe { dpdk_sys::dpdk_has_flow_rules(self.open.id) };
        let takes_rule = |ipv6, all| {
            // Without a table there is nothing to spread over. (And net_tap, which has none, would set itself up for it.)
            flow_rules && info.reta_size > 0 && { rules::would_take(self.open.id, ipv6, all, info.nb_rx_queues) }
        };
        let hashing = |ipv6, kind: u64, fields: u64| {
            let all = kind | fields;
            if types & all == all {
                Hashing::ByConfiguration
            } else if takes_rule(ipv6, all) {
                Hashing::ByFlowRule
            } else {
                Hashing::No
            }
        };
        let names = [
            (dpdk_sys::DPDK_RSS_IPV4, "ipv4"),
            (dpdk_sys::DPDK_RSS_FRAG_IPV4, "ipv4-frag"),
            (dpdk_sys::DPDK_RSS_IPV4_TCP, "ipv4-tcp"),
            (dpdk_sys::DPDK_RSS_IPV4_UDP, "ipv4-udp"),
            (dpdk_sys::DPDK_RSS_IPV6, "ipv6"),
            (dpdk_sys::DPDK_RSS_FRAG_IPV6, "ipv6-frag"),
            (dpdk_sys::DPDK_RSS_IPV6_TCP, "ipv6-tcp"),
            (dpdk_sys::DPDK_RSS_IPV6_UDP, "ipv6-udp"),
        ];
        let (udp4, udp6) = (dpdk_sys::DPDK_RSS_IPV4_UDP, dpdk_sys::DPDK_RSS_IPV6_UDP);
        let destination = dpdk_sys::DPDK_RSS_L3_DST_ONLY | dpdk_sys::DPDK_RSS_L4_DST_ONLY;
        let source = 1_u64 << dpdk_sys::DPDK_RSS_L3_SRC_ONLY_BIT;
        let prefix = source | dpdk_sys::DPDK_RSS_L3_PRE64;
        let rx = [
            dpdk_sys::DPDK_RX_OFFLOAD_IPV4_CKSUM,
            dpdk_sys::DPDK_RX_OFFLOAD_UDP_CKSUM,
            dpdk_sys::DPDK_RX_OFFLOAD_TCP_CKSUM,
        ];
        let tx = [
            dpdk_sys::DPDK_TX_OFFLOAD_IPV4_CKSUM,
            dpdk_sys::DPDK_TX_OFFLOAD_UDP_CKSUM,
            dpdk_sys::DPDK_TX_OFFLOAD_TCP_CKSUM,
        ];
        Capabilities {
            max_mtu: mtu::most(&info),
            hashes: names.into_iter().filter(|(bit, _)| types & bit != 0).map(|(_, name)| name).collect(),
            reta_size: info.reta_size,
            hash_key_size: info.hash_key_size,
            source_only: hashing(false, udp4, source),
            destination_only: hashing(false, udp4, destination),
            source_prefix_only: hashing(true, udp6, prefix),
            flow_rules,
            rx_checksums: rx.map(|bit| info.rx_offload_capa & bit != 0),
            tx_checksums: tx.map(|bit| info.tx_offload_capa & bit != 0),
            lro: info.rx_offload_capa & dpdk_sys::DPDK_RX_OFFLOAD_TCP_LRO != 0,
        }
    }

    /// What the device has counted. For the control thread: it may cost a system call.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let mut stats = MaybeUninit::<dpdk_sys::rte_eth_stats>::zeroed();
        let _control = control();
        // SAFETY: the port is open; `stats` is room for the answer, and all zeros is a valid one, should the driver
        // keep no statistics.
        let stats = unsafe {
            dpdk_sys::rte_eth_stats_get(self.open.id, stats.as_mut_ptr());
            stats.assume_init()
        };
        PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffer: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        }
    }
}

/// The ids of the ports that are open: a device may be opened once.
static OPEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// A device that DPDK has made a port of: stopped, closed and removed when dropped.
#[derive(Debug)]
pub(super) struct OpenPort {
    id: u16,
    name: String,
    device: *mut dpdk_sys::rte_device,
    /// The flow rules that it has been given.
    rules: Mutex<Option<Rules>>,
}

// SAFETY: `device` is DPDK's; it is used by `drop` alone, under the lock of control calls.
unsafe impl Send for OpenPort {}
// SAFETY: as above; nothing of `&OpenPort` uses `device`.
unsafe impl Sync for OpenPort {}

impl OpenPort {
    /// The port's number.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// The device's name, without its arguments.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Finds `device`, or makes it.
    fn probe(_eal: Eal, device: &str) -> Result<OpenPort, Error> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let c_string = |text: &str| {
            let remedy = "write a vdev like net_tap0,iface=tap0 or a PCI address like 0000:03:00.0";
            let bad = || Error::BadName { what: "DPDK device", value: device.into(), remedy };
            CString::new(text).ok().filter(|text| !text.is_empty()).ok_or_else(bad)
        };
        let (c_device, c_name) = (c_string(device)?, c_string(name)?);
        if let Some(interface) = missing_interface(name, arguments) {
            return Err(Error::NoInterface { device: name.into(), interface: interface.into() });
        }
        let failed = |step, reason, setup: &Setup| {
            let (device, log) = (name.to_owned(), setup.log());
            if is_pci_address(name) {
                Error::Pci { reason: pci_reason(Path::new("/sys/bus/pci/devices"), name), device, log }
            } else {
                Error::Device { device, step, reason, log }
            }
        };
        let setup = Setup::begin();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match port_by_name(&c_name) {
            Some(id) if open.contains(&id) => return Err(Error::AlreadyOpen { device: name.into() }),
            Some(id) => id,
            None => {
                // SAFETY: EAL runs (`_eal`); the string is NUL-terminated, and DPDK copies it.
                let code = unsafe { dpdk_sys::rte_dev_probe(c_device.as_ptr()) };
                if code < 0 {
                    return Err(failed("opening it", reason(code), &setup));
                }
                port_by_name(&c_name)
                    .ok_or_else(|| failed("opening it", "its driver made no port of it".into(), &setup))?
            }
        };
        open.push(id);
        drop(open);
        let info = device_info(id);
        let device = info.as_ref().map_or(ptr::null_mut(), |info| info.device);
        Ok(OpenPort { id, name: name.into(), device, rules: Mutex::new(None) })
    }

    /// Sets the device up and starts it.
    fn configure(&self, config: &PortConfig, pools: &[&Mempool]) -> Result<PortInfo, Error> {
        let setup = Setup::begin();
        let id = self.id;
        let check = |step: &'static str, code: i32| {
            if code < 0 { Err(self.refused(step, reason(code), &setup)) } else { Ok(()) }
        };
        let info = device_info(id).map_err(|code| self.refused("asking what it can do", reason(code), &setup))?;
        let driver = driver_name(&info);
        let queues = OpenPort::queues(pools.len(), &info, &driver);
        mtu::check_xdp(&driver, pools)
            .map_err(|reason| self.refused("using this gateway's buffers", reason, &setup))?;

        // SAFETY: all zeros is DPDK's default configuration.
        let mut conf: dpdk_sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        let virtio = driver.starts_with("net_virtio") || driver.starts_with("net_vhost");
        let checksums = [dpdk_sys::DPDK_RX_OFFLOAD_UDP_CKSUM, dpdk_sys::DPDK_RX_OFFLOAD_TCP_CKSUM];
        // Nothing else is ever asked for; above all not to merge segments (LRO).
        conf.rxmode.offloads = if virtio { 0 } else { info.rx_offload_capa & (checksums[0] | checksums[1]) };
        let mut rss = Rss::choose(&info, config.side, queues);
        rss.configure(&mut conf);
        let (mut rx_descriptors, mut tx_descriptors) = (config.rx_descriptors, config.tx_descriptors);
        let node = unsafe {
            // SAFETY: the port is open, and control calls are made one at a time (`setup`); all pointers are to locals
            // or null where null means the driver's default.
            let mut code = dpdk_sys::rte_eth_dev_configure(id, queues, queues, &raw const conf);
            if code < 0 && rss.steering != Steering::Device {
                // Spreading is never worth a port.
                rss.left_to_the_device();
                rss.configure(&mut conf);
                code = dpdk_sys::rte_eth_dev_configure(id, queues, queues, &raw const conf);
            }
            check("configuring it", code)?;
            let code = dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx_descriptors, &raw mut tx_descriptors);
            check("choosing descriptors", code)?;
            dpdk_sys::rte_eth_dev_socket_id(id)
        };
        let numa_node = u32::try_from(node).ok();
        let any_node = u32::MAX; // SOCKET_ID_ANY, -1
        let node = numa_node.unwrap_or(any_node);
        for (queue, pool) in (0..queues).zip(pools) {
            // SAFETY: as above; the pool is a packet pool and never freed.
            unsafe {
                let pool = pool.as_ptr();
                let code = dpdk_sys::rte_eth_rx_queue_setup(id, queue, rx_descriptors, node, ptr::null(), pool);
                check("setting up a receive queue", code)?;
                let code = dpdk_sys::rte_eth_tx_queue_setup(id, queue, tx_descriptors, node, ptr::null());
                check("setting up a transmit queue", code)?;
            }
        }
        let mtu = self.set_mtu(config, &info, &driver, pools, &setup)?;
        let mac = self.set_mac(config.mac, &setup)?;
        // SAFETY: the port is open, configured, and has its queues; control calls are made one at a time.
        unsafe {
            check("starting it", dpdk_sys::rte_eth_dev_start(id))?;
            // A device that can't be told has no filter, and receives everything.
            let unless_unsupported = |code| if code == UNSUPPORTED { 0 } else { code };
            let code = unless_unsupported(dpdk_sys::rte_eth_allmulticast_enable(id));
            check("receiving all multicast", code)?;
            if config.promiscuous {
                let code = unless_unsupported(dpdk_sys::rte_eth_promiscuous_enable(id));
                check("receiving frames to all addresses", code)?;
            }
        }
        if self.merges() {
            let reason = "it merges received TCP segments all the same; use another device or driver".into();
            return Err(self.refused("switching off LRO", reason, &setup));
        }
        let flow_rules = self.steer_by_rules(config.side, &mut rss, queues);
        Ok(PortInfo {
            device: self.name.clone(),
            driver,
            numa_node,
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            queues,
            steering: rss.steering,
            flow_rules,
            reta_size: rss.entries,
            rx_descriptors,
            tx_descriptors,
            offloads: Offloads {
                rx_checksums: checksums.map(|offload| conf.rxmode.offloads & offload != 0),
                merging: None,
            },
            if_index: Some(info.if_index).filter(|&index| index != 0),
            mac,
            mtu,
            two_tags: config.two_tags,
        })
    }

    /// Has flow rules spread what the started port receives, where its configuration could not as we would like. Says whether its
    /// driver takes them, or why not; None if there is no need for any.
    fn steer_by_rules(&self, side: Side, rss: &mut Rss, queues: u16) -> Option<Result<(), String>> {
        if rss.steering != Steering::Hash || side == Side::Neither {
            return None;
        }
        let workers = u8::try_from(queues).unwrap_or(u8::MAX);
        let given = Rules::give(self.id, side, &ShardMap::dealt(workers), queues, rss.is_ours());
        Some(given.map(|given| {
            *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
            rss.steering = Rss::by_rules(side);
        }))
    }

    /// Whether the device merges TCP segments: some drivers switch on by themselves what they can't do without.
    fn merges(&self) -> bool {
        let mut conf = MaybeUninit::<dpdk_sys::rte_eth_conf>::zeroed();
        // SAFETY: the port is open, `conf` is room for the answer; all zeros is a valid one, should there be none.
        let conf = unsafe {
            dpdk_sys::rte_eth_dev_conf_get(self.id, conf.as_mut_ptr());
            conf.assume_init()
        };
        conf.rxmode.offloads & dpdk_sys::DPDK_RX_OFFLOAD_TCP_LRO != 0
    }

    pub(super) fn refused(&self, step: &'static str, reason: String, setup: &Setup) -> Error {
        Error::Device { device: self.name.clone(), step, reason, log: setup.log() }
    }

    /// The number of queues each way for so many workers: one each, as far as the device has them.
    fn queues(workers: usize, info: &dpdk_sys::rte_eth_dev_info, driver: &str) -> u16 {
        let most = match driver {
            // Of the peer's queues nobody knows here; and the kernel spreads a TAP's packets without keeping a flow in order.
            "net_memif" | "net_tap" => 1,
            _ => info.max_rx_queues.min(info.max_tx_queues),
        };
        u16::try_from(workers).unwrap_or(u16::MAX).min(most).max(1)
    }

    /// Sets the address, and says what it is. A device that has no notion of an address delivers everything, so any
    /// address is as good.
    fn set_mac(&self, wanted: Option<MacAddr>, setup: &Setup) -> Result<MacAddr, Error> {
        let mut mac = dpdk_sys::rte_ether_addr { addr_bytes: wanted.unwrap_or_default().0 };
        // SAFETY: the port is open, `mac` is an address and room for one; control calls are made one at a time (`setup`).
        let (step, code) = unsafe {
            match wanted {
                Some(_) => ("setting its address", dpdk_sys::rte_eth_dev_default_mac_addr_set(self.id, &raw mut mac)),
                None => ("reading its address", dpdk_sys::rte_eth_macaddr_get(self.id, &raw mut mac)),
            }
        };
        match code {
            0 | UNSUPPORTED => Ok(MacAddr(mac.addr_bytes)),
            code => Err(self.refused(step, reason(code), setup)),
        }
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        let _setup = Setup::begin();
        self.rules.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let id = self.id;
        // SAFETY: the port is open; whoever polls it holds a reference to this value, so nobody does; control calls are
        // made one at a time. Nothing more can be done about a driver that refuses.
        let close = || unsafe {
            // An interface of the kernel's would stay as it is; where nothing was switched on, this does nothing.
            dpdk_sys::rte_eth_promiscuous_disable(id);
            dpdk_sys::rte_eth_dev_stop(id);
            dpdk_sys::rte_eth_dev_close(id);
        };
        // When the peer goes, memif's driver takes the connection down on DPDK's interrupt thread, with nothing to keep that apart
        // from a close at the same moment: both would free its memory.
        if self.name.starts_with("net_memif") {
            interrupt::run(close)
        } else {
            close()
        }
        if !self.device.is_null() {
            // SAFETY: the device is DPDK's, and nothing uses it: its port is closed.
            unsafe { dpdk_sys::rte_dev_remove(self.device) };
        }
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).retain(|&id| id != self.id);
    }
}

/// What a driver returns for what it doesn't do: -ENOTSUP.
pub(super) const UNSUPPORTED: i32 = -95;

/// The port of that name, if there is one.
fn port_by_name(name: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: `name` is NUL-terminated, `id` is room for the answer.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) };
    (code == 0).then_some(id)
}

/// What DPDK knows of an open port.
fn device_info(id: u16) -> Result<dpdk_sys::rte_eth_dev_info, i32> {
    let mut info = MaybeUninit::<dpdk_sys::rte_eth_dev_info>::zeroed();
    // SAFETY: `info` is room for the answer, complete if the code is 0.
    match unsafe { dpdk_sys::rte_eth_dev_info_get(id, info.as_mut_ptr()) } {
        // SAFETY: the code is 0.
        0 => Ok(unsafe { info.assume_init() }),
        code => Err(code),
    }
}

fn driver_name(info: &dpdk_sys::rte_eth_dev_info) -> String {
    if info.driver_name.is_null() {
        return String::new();
    }
    // SAFETY: DPDK points to a string of the driver, which stays loaded.
    unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
}

/// The `iface=` of a vdev that sits on an interface of the kernel's, if there is no such interface.
fn missing_interface<'a>(name: &str, arguments: &'a str) -> Option<&'a str> {
    let sits_on_one = ["net_af_packet", "net_af_xdp", "net_pcap"].iter().any(|driver| name.starts_with(driver));
    let interface = arguments.split(',').find_map(|argument| argument.strip_prefix("iface="))?;
    (sits_on_one && if_nametoindex(interface).is_err()).then_some(interface)
}

/// Why DPDK has no port for a PCI device, from the kernel's view of it.
fn pci_reason(devices: &Path, address: &str) -> String {
    let device = devices.join(address);
    if !device.exists() {
        return "there is no such device; `lspci -D` lists those that there are".into();
    }
    match fs::read_link(device.join("driver"))
        .ok()
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy())
    {
        Some(driver) if ["vfio-pci", "uio_pci_generic", "igb_uio"].contains(&&*driver) => {
            format!(
                "it is bound to {driver}, but no DPDK driver took it: is the driver installed (librte-net-*), and the IOMMU on?"
            )
        }
        Some(driver) => format!(
            "it belongs to the kernel's driver {driver}; `dpdk-devbind.py --bind=vfio-pci {address}` takes it away from the kernel"
        ),
        None => format!("no kernel driver holds it; `dpdk-devbind.py --bind=vfio-pci {address}` gives it to DPDK"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn pci_devices_that_dpdk_can_not_have() {
        let sysfs = std::env::temp_dir().join(format!("turnpike-pci-{}", std::process::id()));
        for (address, driver) in
            [("0000:01:00.0", Some("e1000e")), ("0000:02:00.0", Some("vfio-pci")), ("0000:03:00.0", None)]
        {
            fs::create_dir_all(sysfs.join(address)).expect("temporary directory");
            if let Some(driver) = driver {
                symlink(format!("../../drivers/{driver}"), sysfs.join(address).join("driver")).expect("link");
            }
        }
        let bind = |address| format!("`dpdk-devbind.py --bind=vfio-pci {address}`");
        assert_eq!(
            pci_reason(&sysfs, "0000:00:00.0"),
            "there is no such device; `lspci -D` lists those that there are"
        );
        let expected =
            format!("it belongs to the kernel's driver e1000e; {} takes it away from the kernel", bind("0000:01:00.0"));
        assert_eq!(pci_reason(&sysfs, "0000:01:00.0"), expected);
        assert!(pci_reason(&sysfs, "0000:02:00.0").starts_with("it is bound to vfio-pci, but no DPDK driver took it"));
        let expected = format!("no kernel driver holds it; {} gives it to DPDK", bind("0000:03:00.0"));
        assert_eq!(pci_reason(&sysfs, "0000:03:00.0"), expected);
        fs::remove_dir_all(&sysfs).expect("temporary directory");
    }
}
