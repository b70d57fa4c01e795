//! `tables`: three designs of a flow table on one benchmark, and the engine's with sessions of each size (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod classes;
mod hashbrown;
mod own;
mod rte_hash;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dataplane::dpdk::{Eal, EalConfig, Error, WorkerThread, available_cores, cycles};
use dataplane::session::slab::{Record, Slab, SlabArena};
use dataplane::worker::BURST;
use perf::clock;
use perf::figures::{Case, Sheet, Window};
use perf::frames::permutation;
use perf::machine::{self, Part};
use perf::matrix::{TABLES, WORST};
use perf::options::Common;
use perf::scene::MAPPINGS_PER_EXTERNAL;

/// Hits of a window.
const HITS: usize = 1 << 20;
/// Memory that DPDK's table takes at most, in bytes for a session, and what there is beside it.
const RTE_BYTES: usize = 220;
const RTE_MIB: usize = 64;
/// What a run takes at most, in bytes for a session.
const BYTES_PER_SESSION: usize = 500;

/// Compares the engine's flow table with DPDK's rte_hash and with hashbrown's HashTable.
///
/// Same keys, same hashes, same records of 64 bytes, two entries for each session, random order, batches of 32. Then the
/// engine's own table with sessions of each size class.
#[derive(Debug, Parser)]
#[command(name = "tables")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// The core to measure on [default: the last one]
    #[arg(long)]
    core: Option<usize>,
}

impl Options {
    /// How often a table of so many sessions is filled, hit and emptied.
    fn rounds(&self, sessions: usize) -> u8 {
        let once = sessions > TABLES[2] && !self.common.full;
        self.common.windows.unwrap_or(if once { 1 } else { 3 })
    }
}

/// What an entry is found by: addresses, ports, protocol; as long as DPDK's fastest comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Key {
    addresses: [u32; 2],
    ports: [u16; 2],
    proto: u32,
}

impl Key {
    /// 32 bits that are spread evenly: two folded multiplications, as the engine's. All tables are given the same.
    #[inline]
    pub fn hash(&self) -> u32 {
        let folded = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            {
                product as u64 ^ (product >> 64) as u64
            }
        };
        let [source, destination] = self.addresses.map(u64::from);
        let [from, to] = self.ports.map(u64::from);
        let rest = from | to << 16 | u64::from(self.proto) << 32;
        let once = folded(source | destination << 32 ^ 0x9e37_79b9_7f4a_7c15, rest ^ 0xbf58_476d_1ce4_e5b9);
        let twice = folded(once ^ 0x94d0_49bb_1331_11eb, 0x9e37_79b9_7f4a_7c15);
        #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
        {
            (twice ^ twice >> 32) as u32
        }
    }
}

/// A session: a cache line, of which both keys and a word that each hit writes are looked at.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line {
    keys: [Key; 2],
    hits: u64,
    is_used: bool,
}

impl Record for Line {
    type Side = ();
    type Extra = ();

    fn is_used(&self) -> bool {
        self.is_used
    }
}

/// The sessions, by number.
pub type Sessions = Slab<Line>;

impl Line {
    /// Those of the n-th flow, from inside and from outside, by CSIT's scheme.
    fn of(flow: u32) -> Line {
        let (host, port) = (flow / 63, 1024 + flow % 63);
        let (external, mapped) = (flow / MAPPINGS_PER_EXTERNAL, 1024 + flow % MAPPINGS_PER_EXTERNAL);
        let [port, mapped] = [port, mapped].map(|it| u16::try_from(it).unwrap_or(u16::MAX));
        let (inside, remote, external) = (0x0a00_0000 + host, 0x1400_0000 + host, 0xcb00_7100 + external);
        let out = Key { addresses: [inside, remote], ports: [port, port], proto: 17 };
        let back = Key { addresses: [remote, external], ports: [port, mapped], proto: 17 };
        Line { keys: [out, back], hits: 0, is_used: true }
    }
}

/// An entry's value: the session, and which of its keys it is of.
#[inline]
pub fn value(session: u32, side: usize) -> u32 {
    session << 1 | u32::from(side > 0)
}

/// A table of entries. A batch is handled as its design wants it: all at once, or one after the other.
pub trait Table: Sized {
    /// As in the results.
    const NAME: &'static str;

    /// Empty, for this many entries.
    fn new(entries: usize) -> Result<Self>;

    /// The values of these keys. Each is there. Their sessions are prefetched.
    fn find(&self, sessions: &Sessions, keys: &[Key; BURST]) -> [u32; BURST];

    /// What will be looked up soon.
    fn expect(&self, _hash: u32) {}

    /// Enters what is not there: looked up, then entered.
    fn insert(&mut self, sessions: &Sessions, key: &Key, value: u32) -> Result<()>;

    /// Takes out what is there.
    fn remove(&mut self, sessions: &Sessions, key: &Key, value: u32) -> Result<()>;

    /// The memory that it holds, in bytes.
    fn bytes(&self) -> usize;
}

fn main() -> Result<()> {
    let options = Options::parse();
    let core = options.core.or_else(|| available_cores().last().copied()).context("no core")?;
    let mut part = Part::begin("tables", clock::frequency());
    println!("{}, core {core}, load before {}", part.machine, part.load_before);
    let most = options.common.flows(TABLES[1]);
    let fitting = |sessions: usize| ((sessions * BYTES_PER_SESSION) >> 20) as u64 <= machine::available_mib();
    let wanted: Vec<usize> = TABLES.into_iter().filter(|&it| it <= most).collect();
    let sizes: Vec<usize> = wanted.iter().copied().filter(|&it| fitting(it)).collect();
    part.notes.extend((sizes.len() < wanted.len()).then(|| "not enough memory free for the largest tables".to_owned()));
    let largest = sizes.last().copied().context("no size to measure")?;
    let memory_mib = u32::try_from((largest * RTE_BYTES).div_ceil(1 << 20) + RTE_MIB)?;
    let config = EalConfig { memory_mib, hugepages: true, ..EalConfig::default() };
    let (eal, pages) = match Eal::start(&config) {
        Ok(eal) => (eal, "reserved huge pages"),
        Err(Error::NoMemory { .. }) => (Eal::start(&EalConfig { hugepages: false, ..config })?, "ordinary pages"),
        Err(error) => return Err(error.into()),
    };
    part.pages = format!("rte_hash on {pages}; the others as the kernel gives them");
    let worker = std::thread::spawn(move || {
        let _registered = WorkerThread::enter(eal, core)?;
        let mut sheet = Sheet::new(&options.common.only);
        for sessions in sizes {
            for _ in 0..options.rounds(sessions) {
                round::<own::Own>(sessions, &mut sheet)?;
                round::<rte_hash::RteHash>(sessions, &mut sheet)?;
                round::<hashbrown::Brown>(sessions, &mut sheet)?;
                classes::rounds(sessions, &mut sheet)?;
            }
        }
        println!("\n{}", sheet.list(|_| true));
        part.finish(sheet.into_cells(), options.common.out.as_deref())
    });
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Fills a table, hits it, empties it.
fn round<T: Table>(count: usize, sheet: &mut Sheet) -> Result<()> {
    let case = |what: &str| Case::new(&format!("{}: {what}", T::NAME), count);
    if !sheet.wants(T::NAME) {
        return Ok(());
    }
    let mut arena = SlabArena::<Line>::new(SlabArena::<Line>::segments_for(count, 1));
    let mut sessions = Sessions::new(arena.free());
    let mut table = T::new(2 * count)?;
    let order: Vec<u32> = permutation(count, 1).into_iter().map(u32::try_from).collect::<Result<_, _>>()?;
    let mut ids = vec![0; count];

    let (mut spent, mut worst) = (Vec::new(), 0);
    for flows in order.chunks(BURST) {
        let start = clock::ticks();
        for &flow in flows {
            Line::of(flow).keys.iter().for_each(|key| table.expect(key.hash()));
        }
        for &flow in flows {
            let line = Line::of(flow);
            let begin = cycles();
            let id = sessions.insert(&mut arena, line).context("no room for a session")?;
            for (side, key) in line.keys.iter().enumerate() {
                table.insert(&sessions, key, value(id, side))?;
            }
            worst = worst.max(cycles().wrapping_sub(begin));
            ids[flow as usize] = id;
        }
        spent.push(clock::ticks() - start);
    }
    // What a table does all at once now and then is part of what insertions cost.
    let mean = spent.iter().sum::<u64>() as f64 / count as f64;
    sheet.put(&case("insertion"), "cycles/session", Window::of(mean));
    sheet.put(&case(WORST), "cycles", Window::of(worst as f64));
    sheet.put(&case("memory"), "bytes/session", Window::of(table.bytes() as f64 / count as f64));

    let again = permutation(count, 2);
    let mut flows = again.iter().copied().cycle();
    for (side, what) in ["hit from inside", "hit from outside"].into_iter().enumerate() {
        let mut spent = Vec::with_capacity(HITS / BURST);
        // The first quarter warms up.
        for at in 0..HITS / BURST * 5 / 4 {
            let mut keys = [Key::default(); BURST];
            for key in &mut keys {
                let flow = u32::try_from(flows.next().unwrap_or(0))?;
                *key = Line::of(flow).keys[side];
            }
            let start = clock::ticks();
            let values = table.find(&sessions, &keys);
            let mut right = true;
            for (key, value) in keys.iter().zip(values) {
                if let Some(line) = sessions.get_mut(value >> 1) {
                    right &= line.keys[side] == *key;
                    line.hits += 1;
                }
            }
            let ticks = clock::ticks() - start;
            ensure!(right && values.iter().all(|it| (it & 1) as usize == side), "{}: not what was entered", T::NAME);
            if at >= HITS / BURST / 4 {
                spent.push(ticks);
            }
        }
        sheet.put(&case(what), "cycles/hit", Window::new(spent, BURST));
    }

    let mut spent = Vec::new();
    for flows in again.chunks(BURST) {
        let start = clock::ticks();
        for &flow in flows {
            sessions.prefetch(ids[flow]);
        }
        for &flow in flows {
            let line = sessions.get(ids[flow]).context("a session is gone")?;
            line.keys.iter().for_each(|key| table.expect(key.hash()));
        }
        for &flow in flows {
            let line = *sessions.get(ids[flow]).context("a session is gone")?;
            for (side, key) in line.keys.iter().enumerate() {
                table.remove(&sessions, key, value(ids[flow], side))?;
            }
            sessions.remove(&mut arena, ids[flow]);
        }
        spent.push(clock::ticks() - start);
    }
    let mean = spent.iter().sum::<u64>() as f64 / count as f64;
    sheet.put(&case("removal"), "cycles/session", Window::of(mean));
    ensure!(sessions.is_empty(), "{}: sessions are left", T::NAME);
    Ok(())
}

/// Whether an entry is the one of this key.
#[inline]
pub fn side_of(sessions: &Sessions, value: u32, key: &Key) -> bool {
    sessions.get(value >> 1).is_some_and(|line| line.keys[(value & 1) as usize] == *key)
}
