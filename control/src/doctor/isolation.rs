//! What lets a process drive a device and keeps the device to that process's memory: the IOMMU and vfio.

use std::os::unix::fs::MetadataExt;

use super::{Findings, Tree, Wanted};

pub(super) fn examine(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    if wanted.is_some_and(|wanted| wanted.pci.is_empty()) {
        for name in ["iommu", "iommu-mode", "vfio", "vfio-permissions"] {
            findings.check(name).not_applicable("no port of the file is a PCI device");
        }
        return;
    }
    let groups = tree.names("sys/kernel/iommu_groups").len();
    iommu(tree, groups, findings);
    mode(tree, groups, findings);
    vfio(tree, findings);
    permissions(tree, findings);
}

fn is_intel(tree: &Tree) -> bool {
    tree.field("proc/cpuinfo", "vendor_id").as_deref() == Some("GenuineIntel")
}

fn iommu(tree: &Tree, groups: usize, findings: &mut Findings) {
    let check = findings.check("iommu");
    if groups > 0 {
        return check.ok(format!("on, {groups} groups"));
    }
    let remedy = if is_intel(tree) {
        "VT-d on in the BIOS, and kernel arguments `intel_iommu=on iommu=pt`"
    } else {
        "the IOMMU (AMD-Vi, SMMU) on in the BIOS, and kernel argument `iommu=pt`"
    };
    check.fail("off: no device can be given to a process safely", remedy);
}

/// With `iommu=pt` the kernel's own devices bypass the IOMMU, so only what is given away pays for it.
fn mode(tree: &Tree, groups: usize, findings: &mut Findings) {
    let unsafe_mode = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    if matches!(tree.text(unsafe_mode).as_deref(), Some("Y" | "1")) {
        return findings.check("iommu-mode").warn(
            "vfio gives devices away without an IOMMU: such a device can write to any memory",
            "`echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`, unless this is a laboratory",
        );
    }
    let check = findings.check("iommu-mode");
    if groups == 0 {
        return check.not_applicable("there is no IOMMU");
    }
    let passes = |argument: &str| tree.kernel_argument(argument).iter().any(|value| value == "pt" || value == "1");
    if passes("iommu") || passes("iommu.passthrough") {
        check.ok("the kernel's own devices pass it by");
    } else {
        check.warn("the kernel's own devices go through the IOMMU, which slows them", "kernel argument `iommu=pt`");
    }
}

fn vfio(tree: &Tree, findings: &mut Findings) {
    let check = findings.check("vfio");
    if tree.exists("sys/bus/pci/drivers/vfio-pci") {
        check.ok("the driver vfio-pci is loaded");
    } else {
        check.fail(
            "the driver vfio-pci is not loaded",
            "`modprobe vfio-pci`; to keep it: `echo vfio-pci > /etc/modules-load.d/vfio-pci.conf`",
        );
    }
}

/// Who may use the devices that are given away.
fn permissions(tree: &Tree, findings: &mut Findings) {
    let check = findings.check("vfio-permissions");
    let Some(main) = tree.metadata("dev/vfio/vfio") else {
        return check.not_applicable("there is no /dev/vfio/vfio yet");
    };
    let group_files = tree.names("dev/vfio").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let groups: Vec<(String, std::fs::Metadata)> =
        group_files.filter_map(|name| Some((name.clone(), tree.metadata(&format!("dev/vfio/{name}"))?))).collect();
    let files = std::iter::once(("vfio".to_owned(), main)).chain(groups);
    let closed = |mode: u32, group: u32| mode & 0o006 != 0o006 && (mode & 0o060 != 0o060 || group == 0);
    let closed: Vec<String> = files
        .filter(|(_, metadata)| closed(metadata.mode(), metadata.gid()))
        .map(|(name, metadata)| format!("/dev/vfio/{name} (mode {:04o})", metadata.mode() & 0o7777))
        .collect();
    if closed.is_empty() {
        return check.ok("a group, or everybody, may use what is bound to vfio-pci");
    }
    check.warn(
        format!("root alone may use {}", closed.join(", ")),
        "run Turnpike as root, or install its udev rule (`make install`) and `udevadm trigger --subsystem-match=vfio`",
    );
}
