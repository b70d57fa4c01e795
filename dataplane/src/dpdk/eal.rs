//! DPDK's environment: its memory, its drivers, its devices.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{Error, reason};
use super::log::{self, Setup};
use super::thread::{check_cores, roaming_cores};

/// How DPDK's environment is started.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Memory that DPDK takes at start, in MiB: it holds the packet pools and the drivers' rings.
    pub memory_mib: u32,
    /// Whether that memory is huge pages. Without them it is ordinary pages, which any machine has.
    pub hugepages: bool,
    /// The core that the calling thread, every thread that it starts later, and DPDK's own threads keep to; none leaves
    /// them on all cores that the process has.
    pub control_core: Option<usize>,
    /// The PCI addresses that ports will be opened on (`0000:03:00.0`, with device arguments after a comma if need be).
    /// Other PCI devices are not touched.
    pub pci: Vec<String>,
    /// Whether everything that DPDK says goes to standard error: for finding faults.
    pub verbose: bool,
}

impl Default for EalConfig {
    /// 256 MiB of ordinary pages, no PCI device.
    fn default() -> Self {
        EalConfig { memory_mib: 256, hugepages: false, control_core: None, pci: Vec::new(), verbose: false }
    }
}

/// The proof that EAL has been started, and lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts EAL. The calling thread becomes its main thread; with [`EalConfig::control_core`] it is pinned to it.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Core`], [`Error::BadName`] for a PCI address that is none, [`Error::Start`] with what EAL said. A
    /// start that EAL itself refused can't be repeated in this process: [`Error::AlreadyStarted`].
    pub fn start(config: &EalConfig) -> Result<Eal, Error> {
        check_memory(config)?;
        check_cores(config.control_core.as_slice())?;
        let arguments = arguments(config, &roaming_cores())?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::AlreadyStarted);
        }
        let setup = Setup::begin();
        log::init(config.verbose);
        // EAL permutes the array and keeps pointers to the strings, so both are given to it for good.
        let mut argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
        let argc = i32::try_from(argv.len()).expect("a few arguments");
        argv.push(std::ptr::null_mut());
        // SAFETY: argv holds argc strings, NUL-terminated, never freed, and a null pointer, as main's argv; this is the
        // only call in the process, as STARTED was false.
        let code = unsafe { dpdk_sys::rte_eal_init(argc, argv.leak().as_mut_ptr()) };
        remove_runtime_directory();
        if code < 0 {
            // SAFETY: reads a thread-local of DPDK; no conditions.
            let errno = unsafe { dpdk_sys::dpdk_errno() };
            return Err(Error::Start { reason: reason(errno.saturating_neg()), log: setup.log() });
        }
        Ok(Eal(()))
    }
}

/// EAL makes a directory for the files of this process, and has been told to put none in it. A start that failed leaves
/// it too, or has not come so far and names none.
fn remove_runtime_directory() {
    // SAFETY: EAL gives a pointer to a string of its own, which is empty until it has made the directory.
    let directory = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    // Where it could not be made, or is not empty, there is nothing to tidy.
    let _ = fs::remove_dir(Path::new(OsStr::from_bytes(directory.to_bytes())));
}

/// EAL's command line.
fn arguments(config: &EalConfig, cores: &[usize]) -> Result<Vec<CString>, Error> {
    let cores = config.control_core.map_or_else(|| cores.to_vec(), |core| vec![core]);
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut arguments = vec![
        "turnpike".to_owned(),
        // Two processes never share anything.
        format!("--file-prefix=turnpike-{}", std::process::id()),
        "--no-telemetry".into(),
        // EAL's default would tie this thread, and those started from it, to one core.
        format!("--lcores=0@({})", cores.join(",")),
        format!("-m{}", config.memory_mib),
    ];
    if config.hugepages {
        // Anonymous huge pages: nothing is left in /dev/hugepages. vhost and memif pass memory on by file descriptor
        // and take only a few.
        arguments.extend(["--in-memory".into(), "--single-file-segments".into()]);
    } else {
        // DPDK 22.11 refuses --in-memory together with --no-huge; without shared files it amounts to the same.
        arguments.extend(["--no-huge".into(), "--no-shconf".into(), "--iova-mode=va".into()]);
    }
    if config.pci.is_empty() {
        arguments.push("--no-pci".into());
    }
    for device in &config.pci {
        let remedy = "write it as 0000:03:00.0, as `lspci -D` does";
        let address = device.split(',').next().unwrap_or_default();
        if !is_pci_address(address) {
            return Err(Error::BadName { what: "PCI address", value: device.clone(), remedy });
        }
        arguments.push(format!("--allow={device}"));
    }
    let c_string = |argument: String| {
        CString::new(argument).map_err(|error| Error::BadName {
            what: "PCI device",
            value: String::from_utf8_lossy(&error.into_vec()).into_owned(),
            remedy: "leave the NUL out",
        })
    };
    arguments.into_iter().map(c_string).collect()
}

/// Whether `text` is domain, bus, device and function in hexadecimal: `0000:03:00.0`.
pub(super) fn is_pci_address(text: &str) -> bool {
    let pattern = b"hhhh:hh:hh.h";
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern)
            .all(|(byte, &want)| if want == b'h' { byte.is_ascii_hexdigit() } else { byte == want })
}

/// EAL's own words on memory are hard to read, and some of it would only be missed later.
fn check_memory(config: &EalConfig) -> Result<(), Error> {
    let free = if config.hugepages { free_huge_pages() } else { available_memory() };
    match free.map(|bytes| bytes >> 20) {
        Some(free_mib) if free_mib < u64::from(config.memory_mib) => {
            Err(Error::NoMemory { wanted_mib: config.memory_mib, free_mib, huge: config.hugepages })
        }
        _ => Ok(()),
    }
}

/// Free huge pages of all sizes, in bytes; none if the kernel doesn't tell.
fn free_huge_pages() -> Option<u64> {
    let mut bytes = 0;
    for size in fs::read_dir("/sys/kernel/mm/hugepages").ok()?.flatten() {
        let kib: u64 = size.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free: u64 = fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        bytes += kib * 1024 * free;
    }
    Some(bytes)
}

/// Memory that can be had without swapping, in bytes; none if the kernel doesn't tell.
fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(config: &EalConfig) -> String {
        let arguments = arguments(config, &[0, 2, 3]).expect("valid");
        arguments.iter().map(|a| a.to_str().expect("ASCII")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn command_line_without_huge_pages_or_pci() {
        let line = line(&EalConfig::default());
        let prefix = format!("turnpike --file-prefix=turnpike-{} --no-telemetry", std::process::id());
        assert_eq!(line, format!("{prefix} --lcores=0@(0,2,3) -m256 --no-huge --no-shconf --iova-mode=va --no-pci"));
    }

    #[test]
    fn command_line_with_huge_pages_and_pci() {
        let pci = vec!["0000:03:00.0".into(), "0000:03:00.1,dv_flow_en=0".into()];
        let line = line(&EalConfig { hugepages: true, pci, control_core: Some(3), ..EalConfig::default() });
        assert!(
            line.ends_with(
                "--lcores=0@(3) -m256 --in-memory --single-file-segments --allow=0000:03:00.0 --allow=0000:03:00.1,dv_flow_en=0"
            ),
            "{line}"
        );
    }

    #[test]
    fn pci_addresses() {
        assert!(is_pci_address("0000:03:00.0") && is_pci_address("0001:AF:1f.7"));
        for wrong in ["", "03:00.0", "0000:03:00", "0000:03:00.00", "0000-03:00.0", "000g:03:00.0", "net_tap0"] {
            assert!(!is_pci_address(wrong), "{wrong}");
        }
        let config = EalConfig { pci: vec!["03:00.0".into()], ..EalConfig::default() };
        let error = arguments(&config, &[0]).expect_err("no domain").to_string();
        assert_eq!(error, "`03:00.0` is no PCI address: write it as 0000:03:00.0, as `lspci -D` does");
    }
}
