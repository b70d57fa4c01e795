//! Network devices on PCI: who drives them, where they are, how fast their slot is.

use super::cores::{node_cores, node_of as core_node};
use super::tree::list_cores;
use super::{Findings, Tree, Wanted};

const DEVICES: &str = "sys/bus/pci/devices";

/// Drivers of the kernel that share their device with DPDK: it is never taken from them (DPDK's guides to mlx4, mlx5
/// and mana).
const SHARED: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

/// Drivers that hand a device to a process.
const HANDED: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// Whether it is one of Intel's E810 and E82x, which take a package of instructions at start, and without it hash and steer
/// next to nothing (DPDK's guide to ice; the numbers are those of its driver in DPDK 22.11).
fn wants_package(vendor: u16, device: u16) -> bool {
    let ice = matches!(
        device,
        0x0dbd
            | 0x0dcd
            | 0x124c..=0x124f
            | 0x151d
            | 0x1591..=0x1593
            | 0x1599..=0x159b
            | 0x1888
            | 0x188a..=0x188e
            | 0x1890..=0x1894
            | 0x1897..=0x189a
            | 0x579c..=0x579f
    );
    vendor == 0x8086 && ice
}

/// What sysfs says of a device.
struct Pci {
    address: String,
    vendor: u16,
    device: u16,
    driver: Option<String>,
    /// The kernel's interfaces on it.
    interfaces: Vec<String>,
    /// Of these, the ones that the kernel has routes by: this machine's own connections.
    routed: Vec<String>,
    node: Option<u32>,
    /// GT/s and lanes: as they are, and as the device could.
    link: Option<(Link, Link)>,
    /// The IOMMU's group.
    group: Option<String>,
}

/// A PCI Express link.
#[derive(Clone, Copy, PartialEq)]
struct Link {
    /// Gigatransfers a second.
    speed: f64,
    lanes: u64,
}

impl Link {
    /// `current` or `max`.
    fn read(tree: &Tree, directory: &str, which: &str) -> Option<Link> {
        let speed = tree.text(&format!("{directory}/{which}_link_speed"))?;
        let speed = speed.split_whitespace().next()?.parse().ok()?;
        let lanes = tree.number(&format!("{directory}/{which}_link_width"))?;
        (lanes > 0).then_some(Link { speed, lanes })
    }

    /// Gbit/s after the line code: 8b/10b up to 5 GT/s, 128b/130b above (PCI Express Base Specification).
    fn gigabits(self) -> f64 {
        let code = if self.speed > 5.0 { 128.0 / 130.0 } else { 0.8 };
        // A few dozen lanes.
        #[allow(clippy::cast_precision_loss)]
        let lanes = self.lanes as f64;
        self.speed * code * lanes
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} GT/s x{} ({:.0} Gbit/s)", self.speed, self.lanes, self.gigabits())
    }
}

impl Pci {
    fn read(tree: &Tree, address: &str) -> Option<Pci> {
        let directory = format!("{DEVICES}/{address}");
        let id = |name: &str| {
            let text = tree.text(&format!("{directory}/{name}"))?;
            u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
        };
        let current = Link::read(tree, &directory, "current");
        let mut interfaces = tree.names(&format!("{directory}/net"));
        for virtio in tree.names(&directory).iter().filter(|name| name.starts_with("virtio")) {
            interfaces.extend(tree.names(&format!("{directory}/{virtio}/net")));
        }
        let routes = tree.text("proc/net/route").unwrap_or_default();
        let has_route =
            |name: &&String| routes.lines().any(|line| line.split_whitespace().next() == Some(name.as_str()));
        Some(Pci {
            address: address.to_owned(),
            vendor: id("vendor")?,
            device: id("device")?,
            driver: tree.link(&format!("{directory}/driver")),
            routed: interfaces.iter().filter(has_route).cloned().collect(),
            interfaces,
            node: node_of(tree, address),
            link: current.zip(Link::read(tree, &directory, "max")),
            group: tree.link(&format!("{directory}/iommu_group")),
        })
    }

    /// What it is, where it is, how it is connected.
    fn describe(&self) -> String {
        let mut text =
            format!("{:04x}:{:04x}, {}", self.vendor, self.device, self.driver.as_deref().unwrap_or("no driver"));
        if !self.interfaces.is_empty() {
            text.push_str(&format!(" as {}", self.interfaces.join(", ")));
        }
        if !self.routed.is_empty() {
            text.push_str(" with routes of the kernel");
        }
        if let Some(node) = self.node {
            text.push_str(&format!(", node {node}"));
        }
        if let Some((link, _)) = self.link {
            text.push_str(&format!(", PCIe {link}"));
        }
        text
    }

    fn is_shared(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| SHARED.contains(&driver))
    }

    /// Whether DPDK can have it as it is.
    fn is_ready(&self) -> bool {
        self.is_shared() || self.driver.as_deref().is_some_and(|driver| HANDED.contains(&driver))
    }
}

/// The node that a device is at; none if the machine has no nodes (`-1`).
pub(super) fn node_of(tree: &Tree, address: &str) -> Option<u32> {
    tree.text(&format!("{DEVICES}/{address}/numa_node"))?.parse().ok()
}

/// Every PCI device of the class of network controllers.
fn network_devices(tree: &Tree) -> Vec<Pci> {
    let addresses = tree.names(DEVICES);
    let network = |address: &&String| {
        tree.text(&format!("{DEVICES}/{address}/class")).is_some_and(|class| class.starts_with("0x02"))
    };
    addresses.iter().filter(network).filter_map(|address| Pci::read(tree, address)).collect()
}

/// The command that gives a device to DPDK.
fn bind(address: &str) -> String {
    format!("`systemctl enable --now turnpike-bind@{address}`, or `dpdk-devbind.py --bind=vfio-pci {address}`")
}

pub(super) fn examine(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    let devices = network_devices(tree);
    let asked: &[(String, String)] = wanted.map_or(&[], |wanted| &wanted.pci);
    for (port, address) in asked {
        match devices.iter().find(|device| device.address == *address) {
            Some(device) => port_device(tree, port, device, wanted, findings),
            None => {
                let there: Vec<&str> = devices.iter().map(|device| &*device.address).collect();
                let remedy = match &there[..] {
                    [] => "look whether it is seated, and what `lspci -D` lists".to_owned(),
                    there => format!("set ports.{port}.pci to one of {}", there.join(", ")),
                };
                let found = format!("ports.{port}: there is no such network device");
                findings.on(address, "device").fail(found, remedy);
            }
        }
    }
    for device in devices.iter().filter(|device| asked.iter().all(|(_, address)| device.address != *address)) {
        let check = findings.on(&device.address, "device");
        match (wanted, device.is_ready()) {
            (Some(_), _) => check.not_applicable(format!("{}; no port of the file", device.describe())),
            (None, true) => check.ok(device.describe()),
            (None, false) => check.not_applicable(format!("{}; not DPDK's", device.describe())),
        }
        if wanted.is_none() && device.is_ready() {
            slot(device, findings);
            group(tree, device, findings);
            package(tree, device, findings);
        }
    }
    if wanted.is_none() && !devices.iter().any(Pci::is_ready) {
        let check = findings.check("devices");
        let found = format!("none of {} is bound for DPDK", devices.len());
        match devices.iter().find(|device| device.routed.is_empty()) {
            _ if devices.is_empty() => {
                check.fail("there is no network device on PCI", "look whether it is seated: `lspci -D`");
            }
            None => check.fail(found, "all carry this machine's own connections: add devices for Turnpike"),
            Some(free) => check.fail(found, format!("for each port: {}", bind(&free.address))),
        }
    }
}

/// A device that the file makes a port of.
fn port_device(tree: &Tree, port: &str, device: &Pci, wanted: Option<&Wanted>, findings: &mut Findings) {
    let check = findings.on(&device.address, "device");
    let found = format!("ports.{port}: {}", device.describe());
    match device.driver.as_deref() {
        _ if device.is_shared() => check.ok(format!("{found}; it stays with the kernel's driver")),
        Some("vfio-pci") => check.ok(found),
        Some(driver) if device.is_ready() => check.warn(
            format!("{found}; {driver} does not keep the device to its memory"),
            format!("use vfio-pci: {}", bind(&device.address)),
        ),
        _ if !device.routed.is_empty() => check.fail(
            found,
            format!(
                "choose another device, or first give this machine another connection than {}; then {}",
                device.routed.join(", "),
                bind(&device.address)
            ),
        ),
        _ => check.fail(found, bind(&device.address)),
    }
    slot(device, findings);
    group(tree, device, findings);
    if let Some(wanted) = wanted {
        near(tree, device, &wanted.workers, findings);
    }
    package(tree, device, findings);
}

/// Whether the slot is as fast as the device.
fn slot(device: &Pci, findings: &mut Findings) {
    let check = findings.on(&device.address, "pcie-link");
    match device.link {
        None => check.not_applicable("it does not say"),
        Some((link, most)) if link.gigabits() + 0.5 < most.gigabits() => check.warn(
            format!("{link}, and the device could {most}"),
            "move it to a slot with more lanes, or set the slot's speed in the BIOS",
        ),
        Some(_) => check.ok("as wide and fast as the device can"),
    }
}

/// All devices of a group are given away together, or none.
fn group(tree: &Tree, device: &Pci, findings: &mut Findings) {
    let check = findings.on(&device.address, "iommu-group");
    let Some(group) = device.group.as_deref().filter(|_| !device.is_shared()) else {
        return check.not_applicable(if device.is_shared() { "the kernel keeps it" } else { "it is in none" });
    };
    let members = tree.names(&format!("sys/kernel/iommu_groups/{group}/devices"));
    let held = |address: &String| {
        let driver = tree.link(&format!("{DEVICES}/{address}/driver"))?;
        // A bridge's driver does no DMA of its own, and vfio lets it stay.
        let stays = driver == "vfio-pci" || driver == "pcieport";
        (*address != device.address && !stays).then(|| (address.clone(), driver))
    };
    let held: Vec<(String, String)> = members.iter().filter_map(held).collect();
    match held.first() {
        None => check.ok(format!("group {group}; nothing else in it is the kernel's")),
        Some((other, driver)) => check.fail(
            format!("group {group} has {other} too, which is {driver}'s"),
            format!("bind it too: {}; or another slot", bind(other)),
        ),
    }
}

/// Whether the workers are at the device's node.
fn near(tree: &Tree, device: &Pci, workers: &[u16], findings: &mut Findings) {
    let check = findings.on(&device.address, "numa");
    let Some(node) = device.node else {
        return check.not_applicable("the machine has one node");
    };
    let far: Vec<u16> = workers.iter().copied().filter(|core| core_node(tree, *core) != Some(node)).collect();
    if far.is_empty() {
        return check.ok(format!("node {node}, as the workers"));
    }
    check.warn(
        format!("node {node}, and the workers' {} is at another", list_cores(&far)),
        format!(
            "choose boot.cpu.workers among {}, or move the device to a slot of the other socket",
            list_cores(&node_cores(tree, node))
        ),
    );
}

/// The file that some devices load at start.
fn package(tree: &Tree, device: &Pci, findings: &mut Findings) {
    if !wants_package(device.vendor, device.device) {
        return;
    }
    let check = findings.on(&device.address, "device-package");
    let places = ["lib/firmware/updates/intel/ice/ddp/ice.pkg", "lib/firmware/intel/ice/ddp/ice.pkg"];
    match places.into_iter().find(|place| tree.exists(place)) {
        Some(place) => check.ok(format!("/{place}")),
        None => check.warn(
            "the file ice.pkg is not there: the device would hash and steer next to nothing",
            "`apt install firmware-misc-nonfree` (of the section non-free-firmware)",
        ),
    }
}
