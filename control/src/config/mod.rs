//! The configuration file: read, checked and resolved into what the data plane and the programs work from.
//!
//! [`Config::load`] promises that a file it accepts is consistent: every name leads somewhere, no two things claim the
//! same address or port, every value is one that the RFCs and the data plane allow. What it refuses it names by file,
//! key, value and remedy ([`ConfigError`]). It looks at nothing but the file: whether the cores and devices exist is
//! seen at start.
//!
//! The way through: `file` holds the file as written (strict: unknown and repeated keys are errors), `text` reads the
//! values, `resolve` gives them meaning. `docs/configuration.md` explains the keys.

mod address;
mod difference;
mod error;
mod file;
mod flows;
mod resolve;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::plan::{MacAddr, PortId, Spec};
use serde::de::IgnoredAny;

pub use difference::{Change, What};
pub use error::{ConfigError, Problem};

/// Where the programs look when no file is named.
pub const DEFAULT_PATH: &str = "/etc/turnpike/turnpike.yaml";

/// Where the control socket is, unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/turnpike/control.sock";

/// A consistent configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The files that it was read from.
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
    /// The values by key, which [`Config::difference`] compares.
    values: serde_yaml::Value,
}

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
    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, or says something impossible.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            problems: vec![Problem {
                position: None,
                key: String::new(),
                message: format!("cannot be read: {error}; name a file that you may read (default: {DEFAULT_PATH})"),
            }],
        })?;
        Config::parse(&text, path)
    }

    /// Reads the text of a file, which is called `path` in errors.
    ///
    /// # Errors
    /// When it says something impossible.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let failed = |problems| ConfigError { file: PathBuf::from(path), problems };
        let document = serde_yaml::Deserializer::from_str(text);
        let file: file::File =
            serde_path_to_error::deserialize(document).map_err(|error| failed(vec![syntax_problem(text, &error)]))?;
        let values = serde_yaml::from_str(text).unwrap_or_default();
        let config = resolve::resolve(file, values).map_err(failed)?;
        Ok(Config { files: vec![path.to_owned()], ..config })
    }

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

/// What serde found, without the position and path that serde_yaml writes into its messages.
fn syntax_problem(text: &str, error: &serde_path_to_error::Error<serde_yaml::Error>) -> Problem {
    let key = error.path().to_string();
    let key = key.trim_end_matches(['.', '?']).to_owned();
    let location = error.inner().location();
    let mut message = error.inner().to_string();
    if let Some(location) = &location {
        let suffix = format!(" at line {} column {}", location.line(), location.column());
        message = message.replacen(&suffix, "", 1);
    }
    message = without_path(&message, &key).to_owned();
    if serde_yaml::from_str::<IgnoredAny>(text).is_err() {
        message = format!("this is not YAML: {message}; look at the indentation, brackets and quotes here and above");
    }
    if let Some(remedy) = unknown_field_remedy(&message) {
        message.push_str(&remedy);
    }
    Problem { position: location.map(|location| (location.line(), location.column())), key, message }
}

/// `message` without the path that serde_yaml put in front: that of `key` or of something around it.
fn without_path<'a>(message: &'a str, key: &str) -> &'a str {
    match message.split_once(": ") {
        Some((path, rest)) if key.starts_with(path.trim_end_matches(['.', '?'])) => rest,
        _ => message,
    }
}

/// The key that was probably meant, where serde says "unknown field `x`, expected one of `y`, `z`".
fn unknown_field_remedy(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`').step_by(2);
    let wrong = quoted.next()?;
    let meant = error::suggest(wrong, quoted)?;
    Some(format!("; did you mean `{meant}`?"))
}
