//! Where and when a run was made, and the file that its figures go into.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use dataplane::dpdk::available_cores;
use serde::{Deserialize, Serialize};

use crate::figures::Cell;

/// The figures of one program's run, with what must be known to read them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Which: `engine`, `tables`, `ports`, `rings`, `workers`, `rfc8219`, `rfc9693`.
    pub part: String,
    /// When it began, in UTC.
    pub date: String,
    /// The commit, with `+` if files were changed since.
    pub commit: String,
    /// Processor and number of cores.
    pub machine: String,
    /// Ticks of the time-stamp counter in a second.
    pub frequency: f64,
    /// Load average over one minute, before.
    pub load_before: String,
    /// The same, after.
    pub load_after: String,
    /// What pages packets and tables were on.
    pub pages: String,
    /// How it was called.
    pub command: String,
    /// What else to know: one line each.
    pub notes: Vec<String>,
    /// The figures.
    pub cells: Vec<Cell>,
}

impl Part {
    /// One that begins now, without figures.
    #[must_use]
    pub fn begin(part: &str, frequency: f64) -> Self {
        Part {
            part: part.into(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: commit(),
            machine: processor(),
            frequency,
            load_before: load(),
            load_after: String::new(),
            pages: String::new(),
            command: command(),
            notes: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// With what is to be said of its pages.
    #[must_use]
    pub fn on(mut self, pages: &str) -> Self {
        self.pages = pages.into();
        self
    }

    /// Puts in the figures, and writes `PART.json` into a directory, which is made.
    ///
    /// # Errors
    /// The directory can't be written to.
    pub fn finish(mut self, cells: Vec<Cell>, directory: Option<&Path>) -> Result<()> {
        (self.cells, self.load_after) = (cells, load());
        let Some(directory) = directory else { return Ok(()) };
        let file = directory.join(format!("{}.json", self.part));
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let text = serde_json::to_string_pretty(&self)? + "\n";
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }
}

/// What a command prints, in one line.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|it| it.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit() -> String {
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| !it.is_empty());
    let commit = output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    commit + if changed { "+" } else { "" }
}

fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// What this processor is called.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    // Those of the process, whichever this thread keeps to.
    let cores = available_cores().len();
    format!("{}, {cores} cores", name.map_or("unknown processor", |(_, name)| name))
}

/// A line of the kernel's like `MemAvailable:  123 kB`, in MiB.
fn mib(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|it| it.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// Memory of the machine that is free for ordinary pages, in MiB.
#[must_use]
pub fn available_mib() -> u64 {
    mib("/proc/meminfo", "MemAvailable")
}

/// Memory of this process that is in use, reserved huge pages included, in MiB.
#[must_use]
pub fn resident_mib() -> u64 {
    ["VmRSS", "HugetlbPages"].map(|name| mib("/proc/self/status", name)).iter().sum()
}

/// Memory of this process on huge pages, in MiB: those that the kernel has put there, and those that were reserved.
#[must_use]
pub fn huge_mib() -> (u64, u64) {
    let rollup = |name| mib("/proc/self/smaps_rollup", name);
    (rollup("AnonHugePages"), rollup("Private_Hugetlb") + rollup("Shared_Hugetlb"))
}

/// Huge pages that are reserved and free, in MiB.
#[must_use]
pub fn free_huge_mib() -> u64 {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let free = sizes.filter_map(|size| {
        let kib: u64 = size.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free: u64 = fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some((kib * free) >> 10)
    });
    free.sum()
}
