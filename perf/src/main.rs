//! `bench`: what a packet costs in the engine, alone on one core (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod clock;
mod floor;
mod report;
mod rig;
mod traffic;

use std::fs;

use anyhow::{Context, Result};
use clap::Parser;
use dataplane::dpdk::{Eal, EalConfig, Mempool, MempoolConfig, WorkerThread, available_cores};
use dataplane::packet::{HeapPool, PacketPool};
use floor::Floor;
use report::Sheet;
use rig::{Headers, ROTATION, Rig, Way};

/// Sessions of the NAT44 cases: 1, 16 inside hosts, one external address' worth as CSIT has it, and sixteen times that.
const SESSIONS: [usize; 4] = [1, 1008, 64_512, 1_032_192];
/// Flows of the routed cases.
const ROUTED: u16 = 1008;
/// Bursts in a window: about a million packets.
const BURSTS: usize = 32_768;
/// Memory for the packets, in MiB.
const MEMORY_MIB: u32 = 128;

/// Measures what a packet costs in Turnpike's engine, from parsing to the written link-layer header, on one core.
///
/// Prints a Markdown table. Every case is measured in several windows, the cases taking turns; the median is what counts.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// A hundredth of the packets and three windows: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// The core to measure on [default: the last one]
    #[arg(long)]
    core: Option<usize>,
    /// Windows per case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    windows: u8,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases of at most this many flows
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    flows: usize,
    /// Packets on the heap instead of DPDK's: for profilers
    #[arg(long)]
    heap: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let core = options.core.or_else(|| available_cores().last().copied()).context("no core")?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{}, core {core}, load before {}", processor(), load.split(' ').next().unwrap_or("?"));
    if options.heap {
        println!("packets on the heap: for profiling, not to quote\n");
        return measure(&options, &mut HeapPool::new(2 * ROTATION));
    }
    let config = EalConfig { memory_mib: MEMORY_MIB, hugepages: true, ..EalConfig::default() };
    let (eal, pages) = match Eal::start(&config) {
        Ok(eal) => (eal, "huge pages"),
        Err(dataplane::dpdk::Error::NoMemory { .. }) => {
            (Eal::start(&EalConfig { hugepages: false, ..config })?, "ordinary pages (no huge pages are free)")
        }
        Err(error) => return Err(error.into()),
    };
    println!("packets: {ROTATION} mbufs in rotation, {pages}");
    let worker = std::thread::spawn(move || {
        let _registered = WorkerThread::enter(eal, core)?;
        let mut pool = Mempool::new(eal, &MempoolConfig::default())?;
        measure(&options, &mut pool)
    });
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn measure<L: PacketPool>(options: &Options, pool: &mut L) -> Result<()> {
    let frequency = clock::frequency();
    println!(
        "cycles: of the {:.0} MHz time-stamp counter; reading it twice takes {} a burst, which is counted",
        frequency / 1e6,
        clock::overhead()
    );
    let mut packets = rig::rotation(pool)?;
    let mut router = Rig::router(ROUTED, pool)?;
    let mut gateways = Vec::new();
    for flows in SESSIONS.into_iter().filter(|&flows| flows <= options.flows) {
        gateways.push((flows, Rig::nat44(flows, pool, &mut packets)?, Floor::new(flows)));
    }
    println!("tables: {} MiB on transparent huge pages", huge_mib());
    let (windows, bursts) = if options.quick { (3, BURSTS / 100) } else { (options.windows, BURSTS) };
    let mut sheet = Sheet::new(&options.only);
    // The first round warms up, and is not counted. In each, the cases take turns.
    for round in 0..=windows {
        sheet.counting = round > 0;
        let routed = usize::from(ROUTED);
        sheet.add("IPv4 routed", routed, || router.window(Way::Out, Headers::Warm, bursts, pool, &mut packets))?;
        sheet.add("IPv6 routed", routed, || router.window(Way::In, Headers::Warm, bursts, pool, &mut packets))?;
        for (flows, gateway, floor) in &mut gateways {
            for (headers, remark) in [(Headers::Warm, ""), (Headers::Cold, ", headers cold")] {
                for (way, name) in [(Way::Out, "NAT44 in→out"), (Way::In, "NAT44 out→in")] {
                    let name = format!("{name}{remark}");
                    sheet.add(&name, *flows, || gateway.window(way, headers, bursts, pool, &mut packets))?;
                }
            }
            sheet.add("floor: bucket and session", *flows, || Ok(floor.window(bursts)))?;
            sheet.add("a poll's tick", *flows, || Ok(gateway.ticks(bursts)))?;
        }
    }
    for (flows, gateway, _) in &gateways {
        if let Some(window) = gateway.opening {
            sheet.add("NAT44 new session, once", *flows, || Ok(window))?;
        }
    }
    println!("\n{}", sheet.table(frequency));
    Ok(())
}

/// What this processor is called.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", name.map_or("unknown processor", |(_, name)| name))
}

/// How much of this process is on huge pages that the kernel has put there, in MiB.
fn huge_mib() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}
