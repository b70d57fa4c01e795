//! Memory: huge pages where they are wanted, and the right to lock it for devices.

use super::cores::{node_of, nodes};
use super::devices::node_of as device_node;
use super::{Findings, Tree, Wanted};

/// The bit of CAP_IPC_LOCK in a capability mask (linux/capability.h): its holder may lock memory without limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Huge pages of one size.
struct Pages {
    /// Size of each, in KiB.
    kib: u64,
    total: u64,
    free: u64,
}

/// The huge pages that a directory of sysfs tells of.
fn pages(tree: &Tree, directory: &str) -> Vec<Pages> {
    let size = |name: &String| {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let total = tree.number(&format!("{directory}/{name}/nr_hugepages"))?;
        let free = tree.number(&format!("{directory}/{name}/free_hugepages"))?;
        Some(Pages { kib, total, free })
    };
    let mut pages: Vec<Pages> = tree.names(directory).iter().filter_map(size).collect();
    pages.sort_by_key(|pages| pages.kib);
    pages
}

fn free_bytes(pages: &[Pages]) -> u64 {
    pages.iter().map(|pages| (pages.kib * pages.free) << 10).sum()
}

/// `1024 of 2 MiB (1000 free)`, for each size that there are any of.
fn describe(pages: &[Pages]) -> String {
    let some: Vec<String> = pages
        .iter()
        .filter(|pages| pages.total > 0)
        .map(|pages| format!("{} of {} ({} free)", pages.total, size(pages.kib << 10), pages.free))
        .collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

/// Bytes in the unit that they fill.
fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 && bytes.trailing_zeros() >= 30 {
        format!("{} GiB", bytes >> 30)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

pub(super) fn examine(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    huge_pages(tree, wanted, findings);
    nodes_pages(tree, wanted, findings);
    mount(tree, findings);
    locked(tree, wanted, findings);
}

fn huge_pages(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    let check = findings.check("huge-pages");
    let all = pages(tree, "sys/kernel/mm/hugepages");
    let (have, free) = (describe(&all), free_bytes(&all));
    let need = match wanted.map(|wanted| (wanted.huge_pages, wanted.pci.is_empty())) {
        Some((None, true)) => return check.not_applicable(format!("{have}; the file asks for ordinary pages")),
        Some((None, false)) => {
            return check.warn(
                format!("{have}; the file asks for ordinary pages"),
                "set boot.memory.hugepages to true: devices then read and write memory with far fewer translations",
            );
        }
        Some((Some(bytes), _)) => bytes,
        // Enough for any configuration to start with, its default included.
        None => 1 << 30,
    };
    if free >= need {
        return check.ok(have);
    }
    let for_whom = if wanted.is_some() { "boot.memory.size" } else { "a start" };
    check.fail(
        format!("{have}; {for_whom} wants {}", size(need)),
        format!(
            "now: `echo {} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`; for good: kernel arguments \
             `default_hugepagesz=1G hugepagesz=1G hugepages={}`",
            // On top of what others have taken.
            all.iter().find(|pages| pages.kib == 2048).map_or(0, |pages| pages.total - pages.free.min(pages.total))
                + need.div_ceil(2 << 20),
            need.div_ceil(1 << 30)
        ),
    );
}

/// Each node that has a worker or a port has huge pages of its own.
fn nodes_pages(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    let check = findings.check("huge-pages-by-node");
    let all = nodes(tree);
    let Some(wanted) = wanted.filter(|wanted| wanted.huge_pages.is_some()).filter(|_| all.len() > 1) else {
        let each: Vec<String> =
            all.iter().map(|node| format!("node {node}: {}", describe(&on_node(tree, *node)))).collect();
        return match &each[..] {
            [] | [_] => check.not_applicable("one node has all memory"),
            each => check.ok(each.join("; ")),
        };
    };
    let workers = wanted.workers.iter().filter_map(|core| node_of(tree, *core));
    let ports = wanted.pci.iter().filter_map(|(_, address)| device_node(tree, address));
    let mut used: Vec<u32> = workers.chain(ports).collect();
    used.sort_unstable();
    used.dedup();
    let each: Vec<String> =
        used.iter().map(|node| format!("node {node}: {}", describe(&on_node(tree, *node)))).collect();
    let found = each.join("; ");
    let need = wanted.huge_pages.unwrap_or(0) / u64::try_from(used.len().max(1)).unwrap_or(1);
    match used.iter().find(|node| free_bytes(&on_node(tree, **node)) < need) {
        None => check.ok(found),
        Some(node) => check.warn(
            format!("{found}; node {node} has fewer than {}", size(need)),
            format!(
                "`echo {} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages`",
                need.div_ceil(2 << 20)
            ),
        ),
    }
}

fn on_node(tree: &Tree, node: u32) -> Vec<Pages> {
    pages(tree, &format!("sys/devices/system/node/node{node}/hugepages"))
}

fn mount(tree: &Tree, findings: &mut Findings) {
    let mounts = tree.text("proc/mounts").unwrap_or_default();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields.find(|fields| fields.get(2) == Some(&"hugetlbfs"));
    let check = findings.check("huge-page-mount");
    match mount.as_ref().and_then(|fields| fields.get(1)) {
        Some(place) => check.ok(format!("hugetlbfs at {place}; Turnpike leaves no files in it")),
        None => check.not_applicable("no hugetlbfs is mounted; Turnpike takes its pages without one"),
    }
}

/// A device reaches only memory that is locked.
fn locked(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    let check = findings.check("locked-memory");
    if wanted.is_some_and(|wanted| wanted.pci.is_empty()) {
        return check.not_applicable("no port of the file is a PCI device");
    }
    let limits = tree.text("proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
    let capabilities = tree.field("proc/self/status", "CapEff");
    let capable =
        capabilities.and_then(|mask| u64::from_str_radix(&mask, 16).ok()).is_some_and(|mask| mask & CAP_IPC_LOCK != 0);
    match limit {
        Some("unlimited") => check.ok("no limit here"),
        _ if capable => check.ok("no limit here: this process has CAP_IPC_LOCK"),
        limit => {
            let limit = limit.and_then(|limit| limit.parse::<u64>().ok());
            let limit =
                limit.map_or("a limit that is not known".to_owned(), |bytes| format!("{} KiB at most", bytes >> 10));
            check.fail(
                format!("{limit} here: a device can't be given its memory"),
                "start Turnpike by its systemd unit (LimitMEMLOCK=infinity), or after `ulimit -l unlimited`",
            );
        }
    }
}
