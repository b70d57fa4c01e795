//! `turnpike doctor`: whether a machine is fit for bare-metal use, and what to change.
//!
//! [`examine`] reads what the kernel shows in files and changes nothing. With a configuration it looks at what that file
//! asks for: its cores, its memory, its PCI ports. Without one it judges the machine for PCI ports and busy workers in
//! general. [`probe`] opens the configured ports through DPDK and says what their devices can do.
//!
//! Each [`Finding`] is one thing looked at. A [`Verdict::Fail`] keeps Turnpike from running on these devices; a
//! [`Verdict::Warn`] costs speed or evenness.

mod cores;
mod devices;
mod isolation;
mod memory;
mod probe;
mod tree;

use std::fmt::Display;

use serde::Serialize;

use crate::config::{Config, Device};

pub use probe::probe;
pub use tree::Tree;

/// How a thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but slower or less evenly than it could.
    Warn,
    /// Turnpike can't run on these devices before it is changed.
    Fail,
    /// The question does not arise here.
    NotApplicable,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Cores and what else runs on them.
    Cores,
    /// Huge pages and limits.
    Memory,
    /// The IOMMU and vfio.
    Isolation,
    /// Network devices.
    Devices,
    /// What DPDK says of the configured ports.
    Ports,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// The name of the check: the same in every report.
    pub check: &'static str,
    /// The device or port, where there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it was found.
    pub verdict: Verdict,
    /// What was found, in one line.
    pub found: String,
    /// What to change, in one line: a command, or kernel arguments. Always there when the verdict is warn or fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a configuration asks of a machine.
#[derive(Clone, Debug)]
struct Wanted {
    /// The workers' cores, in order.
    workers: Vec<u16>,
    /// Bytes of huge pages. None: it is content with ordinary pages.
    huge_pages: Option<u64>,
    /// The ports that are PCI devices: name and address.
    pci: Vec<(String, String)>,
}

impl Wanted {
    /// `usable` are the cores that the process may use.
    fn new(config: &Config, usable: &[u16]) -> Self {
        let mut workers = config.boot.cpu.worker_cores(usable);
        workers.sort_unstable();
        let pci = config.ports.iter().filter_map(|port| match &port.device {
            Device::Pci(address) => Some((port.name.clone(), address.to_ascii_lowercase())),
            Device::Vdev(_) => None,
        });
        let memory = &config.boot.memory;
        Wanted { workers, huge_pages: memory.hugepages.then_some(memory.size), pci: pci.collect() }
    }
}

/// Looks at a machine; with a configuration, at what that asks of it.
#[must_use]
pub fn examine(tree: &Tree, config: Option<&Config>) -> Vec<Finding> {
    let usable = cores::usable(tree);
    let wanted = config.map(|config| Wanted::new(config, &usable));
    let mut findings = Findings::new(Area::Cores);
    cores::examine(tree, wanted.as_ref(), &mut findings);
    findings.area = Area::Memory;
    memory::examine(tree, wanted.as_ref(), &mut findings);
    findings.area = Area::Isolation;
    isolation::examine(tree, wanted.as_ref(), &mut findings);
    findings.area = Area::Devices;
    devices::examine(tree, wanted.as_ref(), &mut findings);
    findings.list
}

/// Findings as they are made.
#[derive(Debug)]
struct Findings {
    /// What the next ones are about.
    area: Area,
    list: Vec<Finding>,
}

impl Findings {
    fn new(area: Area) -> Self {
        Findings { area, list: Vec::new() }
    }

    /// Begins a finding on the machine.
    fn check(&mut self, name: &'static str) -> Check<'_> {
        Check { findings: self, name, subject: None }
    }

    /// Begins a finding on one device.
    fn on(&mut self, subject: &str, name: &'static str) -> Check<'_> {
        Check { findings: self, name, subject: Some(subject.to_owned()) }
    }
}

/// A finding that wants its verdict.
struct Check<'a> {
    findings: &'a mut Findings,
    name: &'static str,
    subject: Option<String>,
}

impl Check<'_> {
    fn ok(self, found: impl Display) {
        self.add(Verdict::Ok, &found, None);
    }

    fn warn(self, found: impl Display, remedy: impl Display) {
        self.add(Verdict::Warn, &found, Some(remedy.to_string()));
    }

    fn fail(self, found: impl Display, remedy: impl Display) {
        self.add(Verdict::Fail, &found, Some(remedy.to_string()));
    }

    fn not_applicable(self, found: impl Display) {
        self.add(Verdict::NotApplicable, &found, None);
    }

    fn add(self, verdict: Verdict, found: &dyn Display, remedy: Option<String>) {
        let Check { findings, name: check, subject } = self;
        findings.list.push(Finding { area: findings.area, check, subject, verdict, found: found.to_string(), remedy });
    }
}
