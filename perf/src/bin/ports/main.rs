//! `ports`: the running gateway through its ports, against testpmd in its place, and its workers over rings (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod between;
mod forwarding;
mod generator;
mod peer;
mod rfc8219;
mod rfc9693;
mod rings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use between::Between;
use clap::Parser;
use dataplane::dpdk::{Eal, EalConfig, Mempool, MempoolConfig, WorkerThread, available_cores};
use generator::{Generator, QUIET};
use peer::{Kind, Peer, Place};
use perf::clock;
use perf::frames::End;
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
    /// Forwarding as fast as it goes over rings, within this process, against a loop in testpmd's place
    Rings,
}

/// Measures the gateway through ports, against testpmd in its place, on the same core and in the same run.
///
/// Over memif the gateway is the program as it runs. Over rings, which exist within one process only, its workers run in this
/// one, and so do loops that stand for testpmd.
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
    /// What to run [default: forwarding, rings; with --quick or --full all]. RFC 9693's trials come after the others over memif,
    /// as they empty the tables
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
    /// In their order.
    fn runs(&self) -> Vec<Run> {
        let mut runs = match (self.runs.is_empty(), self.common.quick || self.common.full) {
            (false, _) => self.runs.clone(),
            (true, false) => vec![Run::Forwarding, Run::Rings],
            (true, true) => vec![Run::Forwarding, Run::Rfc8219, Run::Rfc9693, Run::Rings],
        };
        runs.sort_unstable();
        runs.dedup();
        runs
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
    let runs = options.runs();
    let over_memif = runs != [Run::Rings];
    ensure!(
        options.turnpike.is_file() || !over_memif,
        "{} is missing: cargo build --release --bin turnpike --bin turnpikectl",
        options.turnpike.display()
    );

    let frequency = clock::frequency();
    let mut part = Part::begin("ports", frequency);
    // Generator and peers take as much each.
    let hugepages = free_huge_mib() >= u64::from(MEMORY_MIB) * 5;
    let eal = Eal::start(&EalConfig { memory_mib: MEMORY_MIB, hugepages, ..EalConfig::default() })?;
    part.pages = if hugepages { "packets on huge pages" } else { "packets on ordinary pages" }.into();
    println!("{}, load {}; {}", part.machine, part.load_before, part.pages);
    println!("gateway and testpmd on core {core}, generator on core {generator}");

    let directory = tempfile::tempdir()?;
    let sessions = forwarding::sessions(&options);
    // Started here, as a child keeps to the core of the thread that starts it.
    let mut peers = Vec::new();
    if over_memif {
        let turnpike = options.turnpike.canonicalize()?;
        let place = Place { directory: directory.path().to_owned(), core, control, hugepages, turnpike };
        for kind in [Kind::Io, Kind::Macswap, Kind::Router, Kind::Nat44 { sessions }] {
            let peer = Peer::start(kind, &place)?;
            peer.freeze()?;
            peers.push(peer);
        }
    }
    let work = || -> Result<()> {
        let _registered = WorkerThread::enter(eal, generator)?;
        let pool = Mempool::new(eal, &MempoolConfig { packets: PACKETS, ..MempoolConfig::default() })?;
        let part = |name| {
            let mut part = Part::begin(name, frequency).on(&part.pages);
            part.notes.extend(stages::note());
            part
        };
        let mut generator = Generator::new(eal, pool.clone(), frequency, QUIET);
        let externals =
            if over_memif { connect(directory.path(), sessions, &peers, &mut generator)? } else { Vec::new() };
        for run in runs {
            match run {
                Run::Forwarding => forwarding::run(&options, part("ports"), &peers, &mut generator, &externals)?,
                Run::Rfc8219 => rfc8219::run(&options, part("rfc8219"), &peers, &mut generator, &externals)?,
                Run::Rfc9693 => rfc9693::run(&options, part("rfc9693"), sessions, &peers, &mut generator)?,
                Run::Rings => rings::run(&options, part("rings"), eal, core, &pool)?,
            }
        }
        Ok(())
    };
    let done = std::thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Connects the generator to all peers, and opens the flows of the last one. Returns their external ends.
fn connect(directory: &Path, sessions: usize, peers: &[Peer], generator: &mut Generator) -> Result<Vec<End>> {
    for (at, peer) in peers.iter().enumerate() {
        peer.wake()?;
        generator.connect([0, 1].map(|side| peer.device(side, 2 * at + side)))?;
        peer.freeze()?;
    }
    // And a pair that leads from one to the other: the generator's own rate.
    generator.connect(peer::loopback(&directory.join("loopback.memif"), 2 * peers.len()))?;
    forwarding::open(sessions, peers, generator)
}
