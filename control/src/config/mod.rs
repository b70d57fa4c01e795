//! The configuration: read, checked and resolved into what the data plane and the programs work from.
//!
//! [`Config::load`] promises that what it accepts is consistent: every name leads somewhere, no two things claim the
//! same address or port, every value is one that the RFCs and the data plane allow. What it refuses it names, all at
//! once, by file, line, column, key, value and remedy ([`ConfigError`]). It looks at nothing but the files: whether the
//! cores and devices exist is seen at start.
//!
//! The way through: `load` finds the files, `node` reads each into a tree with positions and merges them, `decode` makes
//! the types of `file` out of the tree (`text` reads the scalars), `resolve` gives them meaning. `schema` and `difference`
//! follow from the same types. `docs/configuration.md` explains the keys.

mod address;
mod decode;
mod difference;
mod error;
mod file;
mod flows;
mod load;
mod node;
mod resolve;
mod schema;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use dataplane::plan::{IpPrefix, MacAddr, PortId, Spec};

pub use difference::{Change, What};
pub use error::{ConfigError, Problem};
pub use schema::schema;

/// Where the programs look when no file is named: in all the `*.yaml` of this directory.
pub const DEFAULT_PATH: &str = "/etc/turnpike";

/// Where the control socket is, unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/turnpike/control.sock";

/// A consistent configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The files and directories that it was read from, as they were named.
    pub files: Vec<PathBuf>,
    /// What is read once, at start.
    pub boot: Boot,
    /// The ports' devices, in the order of [`Spec::ports`].
    pub ports: Vec<Port>,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// Where the control socket is.
    pub control: Control,
    /// Everything else, but for what is known only when the process runs.
    spec: Spec,
    /// What is allowed but may surprise, as sentences without a full stop.
    notes: Vec<String>,
    /// Outside prefixes that were set at run time, in place of the file's, by their rules' full names.
    renumbered: Renumbered,
    /// The values by key, which [`Config::difference`] compares.
    values: serde_yaml::Value,
}

/// Outside prefixes by their rules' full names, such as `nptv6.home`.
type Renumbered = std::collections::BTreeMap<String, IpPrefix>;

/// The boot-time section: a change of it needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Cores and how they are used.
    pub cpu: Cpu,
    /// Memory that DPDK takes at start.
    pub memory: Memory,
    /// Packet buffers per worker.
    pub packets: u32,
}

/// Cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The cores named for workers, one worker each. Empty: see [`Cpu::worker_cores`].
    pub workers: Vec<u16>,
    /// The core of the control thread. None: wherever the kernel puts it.
    pub control: Option<u16>,
    /// How workers wait, if the file says so; see [`Cpu::poll_on`].
    pub poll: Option<Poll>,
}

impl Cpu {
    /// The workers' cores: those named, else the last of the cores that the process may use (the first is where the
    /// kernel does most of its own work).
    #[must_use]
    pub fn worker_cores(&self, usable: &[u16]) -> Vec<u16> {
        if self.workers.is_empty() { usable.last().copied().into_iter().collect() } else { self.workers.clone() }
    }

    /// How workers wait on a machine with this many cores online: as the file says, else adaptive where workers are not
    /// fewer than cores (busy polling would starve all else), else busy.
    #[must_use]
    pub fn poll_on(&self, cores: usize) -> Poll {
        let workers = self.workers.len().max(1);
        self.poll.unwrap_or(if workers < cores { Poll::Busy } else { Poll::Adaptive })
    }
}

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// It never sleeps: the lowest latency, a whole core.
    Busy,
    /// After empty polls it pauses, yields and sleeps, at most 1 ms.
    Adaptive,
}

/// Memory that DPDK takes at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// From huge pages; otherwise ordinary ones.
    pub hugepages: bool,
    /// How much, in bytes.
    pub size: u64,
}

/// A port's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in the file.
    pub name: String,
    /// The device.
    pub device: Device,
    /// Receive descriptors.
    pub rx_descriptors: u16,
    /// Transmit descriptors.
    pub tx_descriptors: u16,
}

/// A DPDK device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A virtual device with its arguments, as EAL's `--vdev` takes it.
    Vdev(String),
    /// A PCI address (`0000:03:00.0`), as EAL's `--allow` takes it.
    Pci(String),
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The address to listen on. None: nowhere.
    pub listen: Option<std::net::SocketAddr>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its path. None: there is none.
    pub socket: Option<PathBuf>,
    /// The system group whose members may read. None: root alone.
    pub group: Option<String>,
}

impl Config {
    /// The data plane's configuration.
    ///
    /// `macs` gives each port's Ethernet address, `secret` keys everything that must be unpredictable, and `generation`
    /// is 1 at start and grows with every reload.
    #[must_use]
    pub fn spec(&self, macs: &dyn Fn(PortId) -> MacAddr, secret: [u8; 16], generation: u32) -> Spec {
        let mut spec = Spec { generation, secret, ..self.spec.clone() };
        for interface in &mut spec.interfaces {
            if interface.mac == MacAddr::default() {
                interface.mac = macs(interface.port);
            }
        }
        spec
    }

    /// Whether a rule's outside prefix was set at run time.
    #[must_use]
    pub fn is_renumbered(&self, rule: &str) -> bool {
        self.renumbered.contains_key(rule)
    }

    /// What is allowed but may surprise, as far as the file alone tells: for `turnpike check`.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The data plane's configuration without what is known only at run time: its generation and secret are zero, and
    /// so are the interfaces' Ethernet addresses that the file leaves to the port.
    #[must_use]
    pub fn outline(&self) -> &Spec {
        &self.spec
    }
}

/// A time as the file has it: `2h 4m`, `90s` as `1m 30s`, with nothing below the millisecond.
#[must_use]
pub fn written(time: Duration) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let mut rest = time.as_millis();
    let mut parts = Vec::new();
    for (unit, name) in units {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}
