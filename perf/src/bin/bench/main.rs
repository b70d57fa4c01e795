//! `bench`: what a packet costs in the engine, alone on one core (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod cycles;
mod floor;
mod instructions;
mod rig;
mod sessions;

use anyhow::{Context, Result};
use clap::Parser;
use cycles::{Cycles, by_part};
use dataplane::dpdk::{Eal, EalConfig, Error, Mempool, MempoolConfig, WorkerThread, available_cores};
use dataplane::packet::{HeapPool, Packet, PacketPool};
use dataplane::stages::Stage;
use floor::Floor;
use perf::clock;
use perf::figures::{Case, Sheet, Window, grouped};
use perf::frames::Lengths;
use perf::machine::{self, Part};
use perf::matrix::{ENGINE, FILLED, FLOWS, FRAMES, MEMORY, RESIDENT, ROUTED, STATELESS, TURN};
use perf::options::Common;
use perf::scene::Stateless;
use perf::stages::{self, Spent};
use rig::{Build, Headers, ROTATION, Rig, Supply, Way};
use sessions::{Filled, Full, empty_loop};

/// Bursts in a window: about a million packets.
const BURSTS: usize = 32_768;
/// Rounds in which one window is measured: there is one more, to warm up.
const ROUNDS_OF_ONE_WINDOW: usize = 2;
/// Memory for the packets, in MiB.
const MEMORY_MIB: u32 = 128;
/// What a gateway of ten million sessions takes at most here, with the frames of its flows: in bytes a session.
const BYTES_PER_FLOW: usize = 700;
/// The flows at which a full table is flooded, and bursts are timed one by one.
const FLOODED: usize = 1_032_192;
const CYCLES: &str = "cycles/packet";

/// Measures what a packet costs in Turnpike's engine, from parsing to the written link-layer header, on one core.
///
/// Prints Markdown tables. Every case is measured in several windows, the cases taking turns; the median is what counts.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// The core to measure on [default: the last one]
    #[arg(long)]
    core: Option<usize>,
    /// Turns in which all sessions are made, used and ended
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..))]
    turns: u8,
    /// Packets on the heap instead of DPDK's: for profilers
    #[arg(long)]
    heap: bool,
    /// Only the case of this very name: for callgrind
    #[arg(long, hide = true)]
    case: Option<String>,
    /// Bursts of a window: for callgrind
    #[arg(long, hide = true)]
    bursts: Option<usize>,
}

impl Options {
    fn bursts(&self) -> usize {
        self.bursts.unwrap_or(if self.common.quick { BURSTS / 20 } else { BURSTS })
    }

    fn flows(&self) -> usize {
        self.common.flows(FLOWS[2])
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let core = options.core.or_else(|| available_cores().last().copied()).context("no core")?;
    let mut part = Part::begin("engine", clock::frequency());
    println!("{}, core {core}, load before {}", part.machine, part.load_before);
    println!(
        "cycles: of the {:.0} MHz time-stamp counter; reading it twice takes {} a burst, which is counted",
        part.frequency / 1e6,
        clock::overhead()
    );
    if options.heap {
        part.pages = "packets on the heap: for profiling, not to quote".into();
        return Bench::new(options, part, HeapPool::new(2 * ROTATION))?.run();
    }
    let config = EalConfig { memory_mib: MEMORY_MIB, hugepages: true, ..EalConfig::default() };
    let (eal, pages) = match Eal::start(&config) {
        Ok(eal) => (eal, "huge pages"),
        Err(Error::NoMemory { .. }) => {
            println!("no huge pages are free (sysctl vm.nr_hugepages={} reserves enough): using ordinary ones", 1024);
            (Eal::start(&EalConfig { hugepages: false, ..config })?, "ordinary pages")
        }
        Err(error) => return Err(error.into()),
    };
    part.pages = format!("{ROTATION} packets in rotation on {pages}");
    let worker = std::thread::spawn(move || {
        let _registered = WorkerThread::enter(eal, core)?;
        Bench::new(options, part, Mempool::new(eal, &MempoolConfig::default())?)?.run()
    });
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A run.
struct Bench<L: PacketPool> {
    options: Options,
    part: Part,
    supply: Supply<L>,
    sheet: Sheet,
}

/// A case, and where its cycles have gone.
struct Measured {
    case: Case,
    way: Way,
    headers: Headers,
    spent: Spent,
}

impl Measured {
    fn new(case: Case, way: Way, headers: Headers) -> Self {
        Measured { case, way, headers, spent: Spent::default() }
    }
}

/// A gateway and the cases that are measured with it.
struct Station<P> {
    gateway: Rig<P>,
    cases: Vec<Measured>,
    /// What a poll's tick is measured as.
    tick: Option<Case>,
    floor: Option<(Case, Floor)>,
}

impl<P: Packet> Station<P> {
    /// A NAT44 gateway; `remark` says in what it differs from the plain one.
    fn nat44(gateway: Rig<P>, flows: usize, frames: Lengths, remark: &str, headers: Headers) -> Self {
        let case = |name: &str| Case::new(&format!("{name}{remark}"), flows).frames(frames.name());
        let cases = [("NAT44 in→out", Way::Out), ("NAT44 out→in", Way::In)];
        let cases = cases.map(|(name, way)| Measured::new(case(name), way, headers)).into();
        Station { gateway, cases, tick: None, floor: None }
    }
}

impl<L: PacketPool> Bench<L> {
    fn new(options: Options, part: Part, pool: L) -> Result<Self> {
        let mut part = part;
        part.notes.extend(stages::note());
        let sheet = match &options.case {
            Some(case) => Sheet::exactly(case),
            None => Sheet::new(&options.common.only),
        };
        Ok(Bench { part, supply: Supply::new(pool)?, sheet, options })
    }

    fn run(mut self) -> Result<()> {
        self.established()?;
        if self.options.case.is_none() {
            self.new_sessions()?;
            self.full_table()?;
            self.turns()?;
        }
        if self.options.common.full {
            self.instructions()?;
        }
        let Bench { options, part, sheet, .. } = self;
        println!("\n{}", sheet.list(|_| true));
        part.finish(sheet.into_cells(), options.common.out.as_deref())
    }

    /// Whether there is memory for a gateway of so many flows. Says what is missing.
    fn fits(&mut self, flows: usize) -> bool {
        let (wanted, there) = ((flows * BYTES_PER_FLOW) as u64 >> 20, machine::available_mib());
        if wanted > there {
            let note = format!("{} flows not measured: {wanted} MiB wanted, {there} MiB free", grouped(flows));
            println!("{note}; close other programs, or lower vm.nr_hugepages if huge pages lie idle");
            self.part.notes.push(note);
        }
        wanted <= there
    }

    /// What an established flow's packets cost.
    fn established(&mut self) -> Result<()> {
        let mut stations = self.stations()?;
        let (anonymous, reserved) = machine::huge_mib();
        let note = format!("tables: {anonymous} MiB on transparent huge pages; {reserved} MiB of reserved ones in all");
        println!("{note}");
        self.part.notes.push(note);
        let (windows, bursts) = (self.options.common.windows(), self.options.bursts());
        let Bench { sheet, supply, .. } = self;
        // The first round warms up, and is not counted. In each, the cases take turns.
        for round in 0..=windows {
            sheet.counting = round > 0;
            for Station { gateway, cases, tick, floor } in &mut stations {
                for Measured { case, way, headers, spent } in cases {
                    let before = Spent::now(gateway.engine.counters());
                    sheet.add(case, CYCLES, || gateway.window(*way, *headers, bursts, supply))?;
                    if sheet.counting {
                        *spent += Spent::now(gateway.engine.counters()).since(&before);
                    }
                }
                if let Some((case, floor)) = floor {
                    sheet.add(case, CYCLES, || anyhow::Ok(floor.window(bursts)))?;
                }
                if let Some(case) = tick {
                    sheet.add(case, "cycles/tick", || anyhow::Ok(gateway.ticks(bursts)))?;
                }
            }
        }
        for Station { gateway, cases, .. } in &stations {
            for Measured { case, spent, .. } in cases {
                sheet.beside(case, "opened", gateway.opened);
                spent.put(sheet, case, |_| true);
                let floor = sheet.cells().iter().find(|it| it.case == Case::new(ENGINE[10].0, case.flows));
                // Only NAT44 looks flows up.
                if let (Some(floor), true) = (floor.map(|it| it.median), case.name.starts_with("NAT44")) {
                    sheet.beside(case, "floor", floor);
                }
            }
        }
        Ok(())
    }

    /// The gateways with established flows that are wanted.
    fn stations(&mut self) -> Result<Vec<Station<L::Packet>>> {
        let mut stations = Vec::new();
        for (configured, rows) in [(false, [ENGINE[0], ENGINE[2]]), (true, [ENGINE[1], ENGINE[3]])] {
            if rows.iter().any(|(name, _)| self.sheet.wants(name)) {
                let gateway = Rig::router(ROUTED, configured, &mut self.supply)?;
                let case = |row: usize| Case::new(rows[row].0, ROUTED);
                let cases = [(0, Way::Out), (1, Way::In)];
                let cases = cases.map(|(row, way)| Measured::new(case(row), way, Headers::Warm)).into();
                stations.push(Station { gateway, cases, tick: None, floor: None });
            }
        }
        for (at, kind) in Stateless::ALL.into_iter().enumerate() {
            let rows = &ENGINE[STATELESS + 2 * at..][..2];
            let flows = rows[0].1[0];
            if rows.iter().any(|(name, _)| self.sheet.wants(name)) {
                let gateway = Rig::stateless(kind, flows, &mut self.supply)?;
                let case = |row: usize| Case::new(rows[row].0, flows);
                let cases = [(0, Way::Out), (1, Way::In)];
                let cases = cases.map(|(row, way)| Measured::new(case(row), way, Headers::Warm)).into();
                stations.push(Station { gateway, cases, tick: None, floor: None });
            }
        }
        let wanted = |row: usize| ENGINE[row..row + 2].iter().any(|(name, _)| self.sheet.wants(name));
        let (warm, cold, shared) = (wanted(4), wanted(6), wanted(8));
        let beside = wanted(10);
        let most = self.options.flows();
        for flows in FLOWS.into_iter().filter(|&it| it <= most) {
            if (warm || cold || beside) && self.fits(flows) {
                let gateway = Rig::nat44(&Build::of(flows), &mut self.supply)?;
                let mut station = Station::nat44(gateway, flows, Lengths::Fixed(64), "", Headers::Warm);
                for (row, way) in [(6, Way::Out), (7, Way::In)] {
                    station.cases.push(Measured::new(Case::new(ENGINE[row].0, flows), way, Headers::Cold));
                }
                if self.options.case.is_none() {
                    station.floor = Some((Case::new(ENGINE[10].0, flows), Floor::new(flows)));
                    station.tick = Some(Case::new(ENGINE[11].0, flows));
                }
                stations.push(station);
            }
            let wants = ENGINE[8].1.contains(&flows) && (flows < FLOWS[4] || self.options.common.full);
            if shared && wants && self.fits(flows) {
                let gateway = Rig::nat44(&Build { remotes: 10, ..Build::of(flows) }, &mut self.supply)?;
                let remark = ", 10 remotes a mapping";
                stations.push(Station::nat44(gateway, flows, Lengths::Fixed(64), remark, Headers::Warm));
            }
        }
        if warm && ROUTED <= most && self.options.case.is_none() {
            for lengths in [Lengths::Fixed(512), Lengths::Fixed(1518), Lengths::Imix] {
                debug_assert!(FRAMES.contains(&&*lengths.name()));
                let gateway = Rig::nat44(&Build { lengths, ..Build::of(ROUTED) }, &mut self.supply)?;
                stations.push(Station::nat44(gateway, ROUTED, lengths, "", Headers::Warm));
            }
        }
        Ok(stations)
    }

    /// What new sessions cost, and the end of sessions; and how long polls take while many end.
    fn new_sessions(&mut self) -> Result<()> {
        let [opening, expiry] = ["NAT44 new session", "session expiry"];
        let latencies = ["poll", "poll, sessions ending", "empty loop"];
        let wants = |it: &[&str]| it.iter().any(|name| self.sheet.wants(name));
        if !wants(&[opening, expiry]) && !wants(&latencies) {
            return Ok(());
        }
        let (most, windows, bursts) = (self.options.flows(), self.options.common.windows(), self.options.bursts());
        for flows in FLOWS.into_iter().filter(|&it| (FLOWS[2]..=most).contains(&it)) {
            for percent in FILLED {
                if !self.fits(flows) {
                    continue;
                }
                let Bench { sheet, supply, .. } = self;
                let mut gateway = Filled::new(flows, percent, supply)?;
                let case = |name: &str| Case::new(&format!("{name}, {percent} % full"), flows);
                let (opening, expiry) = (case(opening), case(expiry));
                let mut share: f64 = 1.0;
                let mut spent = Spent::default();
                for round in 0..=windows {
                    let window = gateway.window(if self.options.common.quick { 1024 } else { usize::MAX }, supply)?;
                    if round > 0 {
                        sheet.add(&opening, "cycles/session", || anyhow::Ok(window.opening))?;
                        sheet.add(&expiry, "cycles/session", || anyhow::Ok(window.expiry))?;
                        share = share.min(window.share);
                        spent += window.spent;
                    }
                }
                sheet.beside(&opening, "opened", share);
                spent.put(sheet, &opening, |stage| stage != Stage::Expire);
                spent.put(sheet, &expiry, |stage| stage == Stage::Expire);
                if percent == FILLED[0] {
                    let [quiet, busy] = gateway.latency(bursts, supply)?;
                    let empty = empty_loop(quiet.p50, bursts);
                    for (name, latency) in latencies.iter().zip([quiet, busy, empty]) {
                        let case = Case::new(name, flows);
                        sheet.add(&case, "cycles/burst", || anyhow::Ok(Window::of(latency.p50 as f64)))?;
                        for (what, ticks) in
                            [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)]
                        {
                            sheet.beside(&case, what, ticks as f64);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What established flows' packets cost while new ones flood a full table.
    fn full_table(&mut self) -> Result<()> {
        let names = ["NAT44 in→out, table full", "NAT44 in→out, table full and flooded", "refused new flow"];
        let flows = FLOODED.min(self.options.flows());
        if !names.iter().any(|name| self.sheet.wants(name)) || !self.fits(flows) {
            return Ok(());
        }
        let bursts = self.options.bursts();
        let mut gateway = Full::new(flows, &mut self.supply)?;
        let case = |at: usize| Case::new(names[at], flows);
        let Bench { sheet, supply, options, .. } = self;
        for round in 0..=options.common.windows() {
            sheet.counting = round > 0;
            let (alone, _) = gateway.window(false, bursts, supply)?;
            let (flooded, refused) = gateway.window(true, bursts, supply)?;
            for (at, window) in [alone, flooded, refused].into_iter().enumerate() {
                sheet.add(&case(at), CYCLES, || anyhow::Ok(window))?;
            }
        }
        Ok(())
    }

    /// All sessions made, used and ended, over and over.
    fn turns(&mut self) -> Result<()> {
        let flows = FLOWS[4].min(self.options.flows());
        if !TURN.iter().any(|name| self.sheet.wants(name)) || !self.fits(flows) {
            return Ok(());
        }
        let Bench { sheet, supply, options, .. } = self;
        let mut cycles = Cycles::new(flows, supply)?;
        let resident = Case::new(RESIDENT, flows);
        let mut most_ended = 0;
        for _ in 0..options.turns {
            let turn = cycles.turn(supply)?;
            for (name, window) in TURN.iter().zip([turn.made, turn.hit, turn.ended]) {
                sheet.put(&Case::new(name, flows), "cycles/session", window);
            }
            sheet.put(&resident, "MiB", Window::of(turn.resident as f64));
            most_ended = most_ended.max(turn.most_ended);
            for (part, bytes) in by_part(&turn.held, flows) {
                sheet.put(&Case::new(&format!("{MEMORY}{part}"), flows), "bytes/flow", Window::of(bytes));
            }
        }
        sheet.beside(&Case::new(TURN[2], flows), "ended in a poll at most", most_ended as f64);
        Ok(())
    }

    /// Instructions, for the cases of 1,008 flows that have been measured.
    fn instructions(&mut self) -> Result<()> {
        let cases = self.sheet.cells().iter().map(|cell| cell.case.clone());
        let counted = ENGINE[..8].iter().chain(&ENGINE[STATELESS..]);
        let of_engine = |case: &Case| counted.clone().any(|(name, _)| *name == case.name);
        let cases: Vec<Case> = cases.filter(|it| it.flows == ROUTED && it.frames == "64" && of_engine(it)).collect();
        for case in cases {
            let count = instructions::per_packet(&case.name, case.flows)?;
            self.sheet.beside(&case, "instructions", count);
        }
        Ok(())
    }
}
