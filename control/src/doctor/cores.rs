//! Cores: those that workers have, or would have, and what else may run on them.

use super::tree::{list_cores, parse_cores};
use super::{Findings, Tree, Wanted};

const CPUS: &str = "sys/devices/system/cpu";

/// An idle state that takes longer than this to leave is deep, in microseconds. At 10 Gbit/s 15 small packets arrive in a
/// microsecond, and 1,024 descriptors are full after 69.
const DEEP_IDLE_US: u64 = 10;

/// The cores that a process may be pinned to: those that are on.
pub(super) fn usable(tree: &Tree) -> Vec<u16> {
    tree.cores(&format!("{CPUS}/online"))
}

/// The node that a core's memory is at.
pub(super) fn node_of(tree: &Tree, core: u16) -> Option<u32> {
    nodes(tree).into_iter().find(|node| node_cores(tree, *node).contains(&core))
}

/// The NUMA nodes.
pub(super) fn nodes(tree: &Tree) -> Vec<u32> {
    let names = tree.names("sys/devices/system/node");
    let mut nodes: Vec<u32> = names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    nodes.sort_unstable();
    nodes
}

/// The cores of a node.
pub(super) fn node_cores(tree: &Tree, node: u32) -> Vec<u16> {
    tree.cores(&format!("sys/devices/system/node/node{node}/cpulist"))
}

pub(super) fn examine(tree: &Tree, wanted: Option<&Wanted>, findings: &mut Findings) {
    instructions(tree, findings);
    if let Some(wanted) = wanted {
        workers(tree, &wanted.workers, findings);
    }
    let isolated = tree.cores(&format!("{CPUS}/isolated"));
    // Without a file to say which cores workers have, those that somebody has set apart.
    let polling = wanted.map_or(&isolated, |wanted| &wanted.workers);
    isolation(tree, polling, &isolated, findings);
    siblings(tree, polling, findings);
    governor(tree, polling, findings);
    idle_states(tree, polling, findings);
    interrupts(tree, polling, findings);
    nmi_watchdog(tree, findings);
}

/// What the levels of x86-64 are made of is the psABI's; v3 is the one with AVX2, which DPDK's drivers have paths for, and the
/// one that programs are built for unless they are told otherwise (.cargo/config.toml): such a one does not come so far here.
fn instructions(tree: &Tree, findings: &mut Findings) {
    const V3: [&str; 7] = ["avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"];
    let check = findings.check("instructions");
    let Some(flags) = tree.field("proc/cpuinfo", "flags") else {
        return check.not_applicable("not an x86-64 processor");
    };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let model = tree.field("proc/cpuinfo", "model name").unwrap_or_else(|| "this processor".to_owned());
    let missing: Vec<&str> = V3.into_iter().filter(|flag| !flags.contains(flag)).collect();
    if missing.is_empty() {
        check.ok(format!("x86-64-v3 ({model})"));
    } else {
        check.warn(
            format!("below x86-64-v3: {model} has no {}", missing.join(", ")),
            "in a virtual machine let it see the host's processor (`-cpu host`); else build for it, which is slower: \
             `RUSTFLAGS=\"-C target-cpu=x86-64\" make install`",
        );
    }
}

/// Whether the file's workers can have their cores.
fn workers(tree: &Tree, workers: &[u16], findings: &mut Findings) {
    let online = usable(tree);
    let list = list_cores(workers);
    let absent: Vec<u16> = workers.iter().copied().filter(|core| !online.contains(core)).collect();
    let check = findings.check("worker-cores");
    if absent.is_empty() {
        check.ok(format!("workers on {list}, of {} that are on", list_cores(&online)));
    } else {
        check.fail(
            format!("workers are to have {list}, and {} is not on", list_cores(&absent)),
            format!("choose boot.cpu.workers among {}", list_cores(&online)),
        );
    }
    if workers.contains(&0) {
        findings.check("core-0").warn(
            "a worker has core 0, where the kernel does work that can't be moved",
            "choose another core in boot.cpu.workers",
        );
    } else {
        findings.check("core-0").ok("left to the kernel");
    }
}

/// Whether the kernel keeps its scheduler, its tick and its callbacks off the cores.
fn isolation(tree: &Tree, polling: &[u16], isolated: &[u16], findings: &mut Findings) {
    let all = usable(tree);
    if polling.is_empty() {
        let example = list_cores(all.get(1..).unwrap_or_default());
        return findings.check("isolation").warn(
            "no core is set apart from the scheduler",
            format!(
                "choose cores for workers (of {example}, on the ports' NUMA node), and give them in the kernel arguments \
                 `isolcpus=CORES nohz_full=CORES rcu_nocbs=CORES`"
            ),
        );
    }
    let no_tick = tree.cores(&format!("{CPUS}/nohz_full"));
    let values = tree.kernel_argument("rcu_nocbs");
    let callbacks: Vec<u16> = values
        .iter()
        .flat_map(|value| if value == "all" { all.clone() } else { parse_cores(value) })
        // "Note that nohz_full CPUs are also no-callbacks CPUs" (kernel-parameters.txt).
        .chain(no_tick.iter().copied())
        .collect();
    let list = list_cores(polling);
    let missing: Vec<String> = [("isolcpus", isolated), ("nohz_full", &no_tick), ("rcu_nocbs", &callbacks)]
        .into_iter()
        .filter(|(_, has)| polling.iter().any(|core| !has.contains(core)))
        .map(|(argument, _)| format!("{argument}={list}"))
        .collect();
    let check = findings.check("isolation");
    if missing.is_empty() {
        check.ok(format!("scheduler, tick and callbacks keep off {list}"));
    } else {
        let names: Vec<&str> = missing.iter().filter_map(|argument| argument.split('=').next()).collect();
        check.warn(
            format!("{list}: {} does not cover them", names.join(", ")),
            format!("kernel arguments `{}`", missing.join(" ")),
        );
    }
}

/// Whether something else may run on the other half of a worker's core.
fn siblings(tree: &Tree, polling: &[u16], findings: &mut Findings) {
    let siblings = |core: u16| tree.cores(&format!("{CPUS}/cpu{core}/topology/thread_siblings_list"));
    let check = findings.check("smt");
    if usable(tree).iter().all(|core| siblings(*core).len() < 2) {
        return check.ok("off: every core is a whole one");
    }
    if polling.is_empty() {
        return check.not_applicable("on; it matters where workers are");
    }
    let isolated = tree.cores(&format!("{CPUS}/isolated"));
    let mut shared: Vec<String> = Vec::new();
    let mut others: Vec<u16> = Vec::new();
    for &core in polling {
        for other in siblings(core).into_iter().filter(|other| *other != core) {
            // Another worker is there to work; an isolated core that is none stays idle.
            if polling.contains(&other) || !isolated.contains(&other) {
                shared.push(format!("{core} with {other}"));
                others.push(other);
            }
        }
    }
    if shared.is_empty() {
        return check.ok(format!("on; the siblings of {} are kept idle", list_cores(polling)));
    }
    others.sort_unstable();
    check.warn(
        format!("workers share their cores: {}", shared.join(", ")),
        format!(
            "kernel argument `nosmt`, or set {} apart too (isolcpus) and use them for nothing",
            list_cores(&others)
        ),
    );
}

fn governor(tree: &Tree, polling: &[u16], findings: &mut Findings) {
    let online = usable(tree);
    let cores = if polling.is_empty() { &online } else { polling };
    let governors: Vec<(u16, String)> = cores
        .iter()
        .filter_map(|core| Some((*core, tree.text(&format!("{CPUS}/cpu{core}/cpufreq/scaling_governor"))?)))
        .collect();
    let check = findings.check("governor");
    if governors.is_empty() {
        return check.not_applicable("the kernel does not set this machine's frequency");
    }
    let slow: Vec<u16> =
        governors.iter().filter(|(_, governor)| governor != "performance").map(|(core, _)| *core).collect();
    match governors.iter().find(|(_, governor)| governor != "performance") {
        None => check.ok(format!("performance on {}", list_cores(cores))),
        Some((_, governor)) => check.warn(
            format!("{governor} on {}", list_cores(&slow)),
            format!("`cpupower -c {} frequency-set -g performance` at every boot", list_cores(&slow)),
        ),
    }
}

/// Deep sleep of a core delays the first packets after a pause: of an adaptive worker, and of the whole package.
fn idle_states(tree: &Tree, polling: &[u16], findings: &mut Findings) {
    let online = usable(tree);
    let cores = if polling.is_empty() { &online } else { polling };
    let check = findings.check("idle-states");
    let mut deepest: Option<(u64, String)> = None;
    let mut known = false;
    for core in cores {
        let states = format!("{CPUS}/cpu{core}/cpuidle");
        for state in tree.names(&states).iter().filter(|name| name.starts_with("state")) {
            let Some(latency) = tree.number(&format!("{states}/{state}/latency")) else { continue };
            known = true;
            let off = tree.number(&format!("{states}/{state}/disable")).unwrap_or(0) != 0;
            if !off && latency > deepest.as_ref().map_or(DEEP_IDLE_US, |(latency, _)| *latency) {
                deepest = Some((latency, tree.text(&format!("{states}/{state}/name")).unwrap_or_default()));
            }
        }
    }
    match deepest {
        _ if !known => check.not_applicable("the kernel puts no core to sleep deeply here"),
        None => check.ok(format!("none takes longer than {DEEP_IDLE_US} us to leave")),
        Some((latency, name)) => check.warn(
            format!("{name} takes {latency} us to leave"),
            "C-states off in the BIOS, or kernel arguments `intel_idle.max_cstate=1 processor.max_cstate=1`",
        ),
    }
}

fn interrupts(tree: &Tree, polling: &[u16], findings: &mut Findings) {
    let check = findings.check("interrupts");
    if polling.is_empty() {
        return check.not_applicable("it matters where workers are");
    }
    let numbers = tree.names("proc/irq").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let mut hit: Vec<u32> = numbers
        .filter(|irq| {
            // Where it really goes, if the kernel says; else where it may go.
            let lists = ["effective_affinity_list", "smp_affinity_list"];
            let cores = lists.iter().map(|list| tree.cores(&format!("proc/irq/{irq}/{list}")));
            let cores = cores.into_iter().find(|cores| !cores.is_empty()).unwrap_or_default();
            polling.iter().any(|core| cores.contains(core))
        })
        .filter_map(|irq| irq.parse().ok())
        .collect();
    hit.sort_unstable();
    let list = list_cores(polling);
    if hit.is_empty() {
        return check.ok(format!("none goes to {list}"));
    }
    let others: Vec<u16> = usable(tree).into_iter().filter(|core| !polling.contains(core)).collect();
    let shown: Vec<String> = hit.iter().take(5).map(u32::to_string).collect();
    let more = if hit.len() > shown.len() { ", ..." } else { "" };
    check.warn(
        format!("{} may interrupt {list}: IRQ {}{more}", hit.len(), shown.join(", ")),
        format!(
            "kernel argument `irqaffinity={}`, and keep irqbalance off these cores (IRQBALANCE_BANNED_CPULIST={list})",
            list_cores(&others)
        ),
    );
}

fn nmi_watchdog(tree: &Tree, findings: &mut Findings) {
    let check = findings.check("nmi-watchdog");
    match tree.number("proc/sys/kernel/nmi_watchdog") {
        None => check.not_applicable("this kernel has none"),
        Some(0) => check.ok("off"),
        Some(_) => check.warn(
            "on: it interrupts every core",
            "kernel argument `nmi_watchdog=0`, or now: `sysctl kernel.nmi_watchdog=0`",
        ),
    }
}
