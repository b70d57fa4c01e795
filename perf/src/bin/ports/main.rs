//! `ports`: the running gateway through its ports, against testpmd in its place (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod forwarding;
mod generator;
mod peer;
mod rfc8219;
mod rfc9693;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dataplane::dpdk::{Eal, EalConfig, Mempool, MempoolConfig, WorkerThread, available_cores};
use generator::Generator;
use peer::{Kind, Peer, Place};
use perf::clock;
use perf::machine::{Part, free_huge_mib};
use perf::options::Common;
use perf::stages;

/// Memory for the generator's packets, in MiB, and how many there are.
const MEMORY_MIB: u32 = 256;
const PACKETS: u32 = 32_767;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Run {
    /// As fast as it goes, against testpmd, and latency at half of that
    Forwarding,
    /// Throughput, latency, delay variation, loss curve
    Rfc8219,
    /// Connections: establishment, throughput, tear-down, capacity
    Rfc9693,
}

/// Measures the running gateway through memif ports, against testpmd in its place, on the same core and in the same run.
///
/// The gateway and two testpmds run on one core, the generator on another. Only one of them is awake at a time, and they take
/// turns in every round, so that what disturbs the machine disturbs all of them. Figures are medians of the rounds.
#[derive(Debug, Parser)]
#[command(name = "ports")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// The core of gateway and testpmd [default: the last one]
    #[arg(long)]
    core: Option<usize>,
    /// The generator's core [default: the last but one]
    #[arg(long)]
    generator: Option<usize>,
    /// What to run [default: forwarding; with --quick or --full all]. RFC 9693's trials come last, as they empty the tables
    #[arg(value_enum)]
    runs: Vec<Run>,
    /// How often trials of RFC 8219 and RFC 9693 are repeated [default: 3; with --quick or --full 1]. RFC 8219 wants 20,
    /// with --full some ten hours for a load
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    repeats: Option<u8>,
    /// With --full: RFC 8219 with every load, not only NAT44 with 64,512 flows
    #[arg(long)]
    every_load: bool,
    /// The gateway's program; `turnpikectl` is beside it
    #[arg(long, default_value = "target/release/turnpike")]
    turnpike: PathBuf,
}

impl Options {
    fn runs(&self) -> Vec<Run> {
        match (self.runs.is_empty(), self.common.quick || self.common.full) {
            (false, _) => self.runs.clone(),
            (true, false) => vec![Run::Forwarding],
            (true, true) => vec![Run::Forwarding, Run::Rfc8219, Run::Rfc9693],
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let cores = available_cores();
    let from_behind = |n: usize| cores.iter().rev().nth(n).copied();
    let core = options.core.or_else(|| from_behind(0)).context("no core")?;
    let generator = options.generator.or_else(|| from_behind(1)).unwrap_or(core);
    ensure!(core != generator, "two cores are needed: one for the gateway, one for the generator");
    let control = cores.iter().copied().find(|it| ![core, generator].contains(it)).unwrap_or(generator);
    ensure!(
        options.turnpike.is_file(),
        "{} is missing: cargo build --release --bin turnpike --bin turnpikectl",
        options.turnpike.display()
    );

    let mut part = Part::begin("ports", clock::frequency());
    // Generator and peers take as much each.
    let hugepages = free_huge_mib() >= u64::from(MEMORY_MIB) * 5;
    let eal = Eal::start(&EalConfig { memory_mib: MEMORY_MIB, hugepages, ..EalConfig::default() })?;
    part.pages = if hugepages { "packets on huge pages" } else { "packets on ordinary pages" }.into();
    println!("{}, load {}; {}", part.machine, part.load_before, part.pages);
    println!("gateway and testpmd on core {core}, generator on core {generator}");

    let directory = tempfile::tempdir()?;
    let turnpike = options.turnpike.canonicalize()?;
    let place = Place { directory: directory.path().to_owned(), core, control, hugepages, turnpike };
    // Started here, as a child keeps to the core of the thread that starts it.
    let sessions = forwarding::sessions(&options);
    let kinds = [Kind::Io, Kind::Macswap, Kind::Router, Kind::Nat44 { sessions }];
    let mut peers = Vec::new();
    for kind in kinds {
        let peer = Peer::start(kind, &place)?;
        peer.freeze()?;
        peers.push(peer);
    }
    let work = || -> Result<()> {
        let _registered = WorkerThread::enter(eal, generator)?;
        let pool = Mempool::new(eal, &MempoolConfig { packets: PACKETS, ..MempoolConfig::default() })?;
        let mut generator = Generator::new(eal, pool, part.frequency);
        for (at, peer) in peers.iter().enumerate() {
            peer.wake()?;
            generator.connect([0, 1].map(|side| peer.device(side, 2 * at + side)))?;
            peer.freeze()?;
        }
        // And a pair that leads from one to the other: the generator's own rate.
        generator.connect(peer::loopback(&directory.path().join("loopback.memif"), 2 * peers.len()))?;
        let externals = forwarding::open(sessions, &peers, &mut generator)?;
        let part = |name| {
            let mut part = Part::begin(name, part.frequency).on(&part.pages);
            part.notes.extend(stages::note());
            part
        };
        let mut runs = options.runs();
        runs.sort_unstable();
        for run in runs {
            match run {
                Run::Forwarding => forwarding::run(&options, part("ports"), &peers, &mut generator, &externals)?,
                Run::Rfc8219 => rfc8219::run(&options, part("rfc8219"), &peers, &mut generator, &externals)?,
                Run::Rfc9693 => rfc9693::run(&options, part("rfc9693"), sessions, &peers, &mut generator)?,
            }
        }
        Ok(())
    };
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
