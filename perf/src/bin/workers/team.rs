//! Some workers in one process, each with a thread on a core of its own and ports that make their packets themselves.

use std::io::{BufRead, Write};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::dpdk::{Eal, EalConfig, Mbuf, Mempool, MempoolConfig, WorkerThread};
use dataplane::engine::{Engine, Output, Part};
use dataplane::message::{FromWorker, ToWorker};
use dataplane::plan::{Limits, Plan};
use dataplane::pool::Leases;
use dataplane::steer::hand_over::Links;
use dataplane::steer::{ShardMap, WorkerId, shard_of4};
use dataplane::time::Time;
use dataplane::worker::{Access, Worker};
use perf::frames::{End, GATEWAY, INSIDE, Traffic, Writer4, flow_ends, flow_of};
use perf::scene::{neighbours, router, translate};

use crate::source::{Seen, Source};

/// Packets that a ring between two workers holds.
const RING: usize = 1024;
/// Buffers of a worker.
const PACKETS: u32 = 8191;
const MEMORY_MIB: u32 = 128;
/// The part of a window that warms up.
const WARM: u32 = 5;
/// Polls between two looks at the clock.
const POLLS: usize = 16;
/// Time of the first poll.
const EPOCH: Time = Time::from_secs(1000);

type Running = Worker<Source, Mempool>;

/// A worker's thread, which is told how long to run and answers with packets a second.
struct Thread {
    orders: Sender<Duration>,
    rates: Receiver<f64>,
}

/// Runs workers on these cores, with the flows from `first` on, until standard input ends: each line is the milliseconds of a
/// window, and is answered with packets a second, the share of them that was handed over, and the share that was lost. With `steered`, every worker's
/// ports bring the packets of its own flows; otherwise packets come to any worker.
pub fn serve(cores: &[usize], flows: usize, steered: bool) -> Result<()> {
    let eal = Eal::start(&EalConfig { memory_mib: MEMORY_MIB * u32::try_from(cores.len())?, ..EalConfig::default() })?;
    let count = u8::try_from(cores.len())?;
    let map = Arc::new(ShardMap::dealt(count));
    let (mut workers, counters, _outbox) = workers(eal, count, flows, &map)?;
    open(&mut workers, flows, |flow| place(flow, steered, &map))?;

    let mut threads = Vec::new();
    for (worker, &core) in workers.into_iter().zip(cores) {
        let (orders, inbox) = bounded(1);
        let (outbox, rates) = bounded(1);
        thread::spawn(move || run(eal, core, worker, &inbox, &outbox));
        threads.push(Thread { orders, rates });
    }
    let sum = |counter: fn(&Counters) -> u64| counters.iter().map(|it| counter(it)).sum::<u64>();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(line?.trim().parse().context("milliseconds")?);
        let before = [handed_over, lost, transmitted].map(sum);
        for thread in &threads {
            thread.orders.send(time)?;
        }
        let mut rate = 0.0;
        for thread in &threads {
            rate += thread.rates.recv()?;
        }
        let after = [handed_over, lost, transmitted].map(sum);
        let [handed, lost, sent] = [0, 1, 2].map(|at| (after[at] - before[at]) as f64);
        println!("{rate} {} {}", handed / sent.max(1.0), lost / (sent + lost).max(1.0));
        std::io::stdout().flush()?;
    }
    let refused = sum(|it| it.drops(Drop::Unsolicited) + it.drops(Drop::NoPort));
    ensure!(refused == 0, "{refused} packets of open flows were dropped");
    Ok(())
}

fn handed_over(counters: &Counters) -> u64 {
    counters.handed_over.iter().map(Counter::get).sum()
}

/// For want of room in a ring: each worker makes packets as fast as it can, whatever the other one can take.
fn lost(counters: &Counters) -> u64 {
    counters.drops(Drop::HandOverFull)
}

fn transmitted(counters: &Counters) -> u64 {
    counters.transmitted.get()
}

type Gateway = (Vec<Running>, Vec<Arc<Counters>>, Receiver<FromWorker<Mbuf>>);

/// So many workers of one gateway, with room for the flows.
fn workers(eal: Eal, count: u8, flows: usize, map: &Arc<ShardMap>) -> Result<Gateway> {
    let mut spec = router();
    // Shards are not of the same size.
    let sessions = u32::try_from(flows + flows / 4 + 1024)?;
    spec.limits = Limits { sessions, mappings: sessions, ..spec.limits };
    translate(&mut spec, sessions, INSIDE.into(), 8);
    let plan = Arc::new(Plan::compile(spec)?);
    let leases = Arc::new(Leases::new(&plan));
    let (outbox, events) = bounded(1024);
    let (mut workers, mut all) = (Vec::new(), Vec::new());
    for (id, links) in (0..).map(WorkerId).zip(Links::between(map, count, RING)) {
        let counters = Arc::new(Counters::among(usize::from(count), plan.spec.interfaces.len()));
        all.push(Arc::clone(&counters));
        let part = Part { shards: map.shards_of(id), workers: count, steered: false };
        let mut engine = Engine::among(part, Arc::clone(&plan), Arc::clone(&leases), counters, EPOCH);
        let mut pool = Mempool::new(eal, &MempoolConfig { packets: PACKETS, ..MempoolConfig::default() })?;
        let mut out = Output::new(&plan.spec.limits);
        for neighbour in neighbours() {
            engine.apply(neighbour, EPOCH, &mut pool, &mut out);
        }
        let devices: Vec<_> = plan.spec.ports.iter().map(|_| Access::Own(Source::new(pool.clone()))).collect();
        // Nobody has anything to say to it.
        let (_, inbox) = bounded::<ToWorker>(1);
        workers.push(Worker::among(links, engine, devices, pool, inbox, outbox.clone()));
    }
    Ok((workers, all, events))
}

/// The worker whose ports bring a flow's packets.
fn place(flow: usize, steered: bool, map: &ShardMap) -> WorkerId {
    let (inside, _) = flow_ends(flow, 1);
    let owner = map.owner(shard_of4(inside.0.to_bits()));
    // Without steering, the owner or the next one, by the flow's number.
    if steered || flow.is_multiple_of(2) { owner } else { WorkerId(owner.0 ^ 1) }
}

/// Opens the flows, and gives each worker's ports the packets that they will bring for ever: requests and replies.
fn open(workers: &mut [Running], flows: usize, place: impl Fn(usize) -> WorkerId) -> Result<()> {
    let writer = Writer4::new();
    let mut mine: Vec<Vec<usize>> = vec![Vec::new(); workers.len()];
    let count = workers.len();
    (0..flows).for_each(|flow| mine[place(flow).index() % count].push(flow));
    let requests =
        |worker: usize| Traffic::of4(GATEWAY[0], mine[worker].iter().map(|&flow| writer.patch(flow_ends(flow, 1), 64)));
    let seen = Seen::default();
    for (number, worker) in workers.iter_mut().enumerate() {
        if let [inside, outside] = worker.devices_mut() {
            inside.play(Some(requests(number)), false);
            outside.tell(Some(Arc::clone(&seen)));
        }
    }
    let mut now = EPOCH;
    loop {
        let mut moved = 0;
        for worker in workers.iter_mut() {
            now = now + Duration::from_micros(3);
            let poll = worker.poll_once(now);
            moved += poll.received + poll.taken_over;
        }
        if moved == 0 && workers.iter_mut().all(|it| it.devices_mut().iter().all(Source::is_done)) {
            break;
        }
    }
    let mut externals: Vec<Option<End>> = vec![None; flows];
    for &(external, remote) in seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(place) = flow_of(remote, 1).and_then(|flow| externals.get_mut(flow)) {
            *place = Some(external);
        }
    }
    let opened = externals.iter().flatten().count();
    let drops = workers.iter().flat_map(|it| Drop::ALL.iter().map(|&why| (why.name(), it.counters().drops(why))));
    let drops: Vec<_> = drops.filter(|(_, count)| *count > 0).collect();
    ensure!(opened == flows, "{opened} of {flows} flows came out; dropped {drops:?}");
    for (number, worker) in workers.iter_mut().enumerate() {
        let replies = mine[number].iter().filter_map(|&flow| Some((flow_ends(flow, 1).1, externals[flow]?)));
        let replies = Traffic::of4(GATEWAY[1], replies.map(|ends| writer.patch(ends, 64)));
        if let [inside, outside] = worker.devices_mut() {
            inside.play(Some(requests(number).shuffled()), true);
            outside.play(Some(replies.shuffled()), true);
            outside.tell(None);
        }
    }
    Ok(())
}

/// A worker's thread.
fn run(eal: Eal, core: usize, mut worker: Running, orders: &Receiver<Duration>, rates: &Sender<f64>) -> Result<()> {
    let _registered = WorkerThread::enter(eal, core)?;
    let start = Instant::now();
    let now = || EPOCH + Duration::from_secs(1) + start.elapsed();
    while let Ok(time) = orders.recv() {
        let begin = Instant::now();
        let mut from = None;
        let rate = loop {
            for _ in 0..POLLS {
                worker.poll_once(now());
            }
            let (elapsed, sent) = (begin.elapsed(), transmitted(worker.counters()));
            match from {
                None if elapsed >= time / WARM => from = Some((elapsed, sent)),
                Some((since, before)) if elapsed >= time => {
                    break (sent - before) as f64 / (elapsed - since).as_secs_f64();
                }
                _ => {}
            }
        };
        rates.send(rate)?;
    }
    Ok(())
}
