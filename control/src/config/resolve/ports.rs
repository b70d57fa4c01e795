//! `ports`.

use dataplane::plan::PortSpec;

use super::Resolver;
use crate::config::decode::{Table, Text};
use crate::config::file;
use crate::config::text::{Descriptors, Name, Pci, Vdev};
use crate::config::{Device, Port};

/// Ports: DPDK's RTE_MAX_ETHPORTS as Debian builds it.
const PORTS_MAX: usize = 32;

impl Resolver<'_> {
    /// What DPDK opens. None where the section is missing or no section.
    pub(super) fn ports(&mut self, table: Option<&Table<Name, file::Port>>) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        let Some(table) = table else { return ports };
        self.limit("ports", table.0.len(), PORTS_MAX, "ports");
        if table.0.is_empty() && self.sound("ports") {
            self.problem("ports", "there is none; name at least one device");
        }
        for (Name(name), port) in &table.0 {
            let key = format!("ports.{name}");
            let device = match (&port.device, &port.pci) {
                (Some(Text(Vdev(vdev))), None) => Device::Vdev(vdev.clone()),
                (None, Some(Text(Pci(pci)))) => Device::Pci(pci.clone()),
                (given, _) => {
                    let what = if given.is_some() { "both `device` and `pci` are given" } else { "it names no device" };
                    if self.sound(&key) {
                        self.problem(
                            &key,
                            format_args!("{what}; write either `device: \"net_...\"` or `pci: \"0000:03:00.0\"`"),
                        );
                    }
                    // No device is called so.
                    Device::Pci(format!("of port {name}"))
                }
            };
            if let Some(other) = ports.iter().find(|other| device_name(&other.device) == device_name(&device)) {
                let (device, other) = (device_name(&device), &other.name);
                self.problem(
                    &key,
                    format_args!(
                        "{device} is already the device of port \"{other}\"; a device makes one port (give \
                         virtual devices different numbers)"
                    ),
                );
            }
            let (Text(Descriptors(rx_descriptors)), Text(Descriptors(tx_descriptors))) =
                (port.rx_descriptors, port.tx_descriptors);
            self.names.ports.insert(name.clone());
            self.spec.ports.push(PortSpec { name: name.clone() });
            ports.push(Port { name: name.clone(), device, rx_descriptors, tx_descriptors });
        }
        ports
    }
}

/// The name that a device has in DPDK.
fn device_name(device: &Device) -> &str {
    match device {
        Device::Vdev(vdev) => vdev.split(',').next().unwrap_or(vdev),
        Device::Pci(pci) => pci,
    }
}
