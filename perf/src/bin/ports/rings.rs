//! Forwarding over rings: ports of DPDK's `net_ring`, which pass pointers, so that what is measured is not copies.
//!
//! They exist within one process only, so what stands between is a thread here, on the core of the other peers: workers as the
//! gateway has them, and in testpmd's place a loop that does what testpmd does.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::dpdk::{Eal, Mempool, Queue, WorkerThread, cycles, wire};
use dataplane::engine::{Engine, Output};
use dataplane::packet::Packet;
use dataplane::plan::{Limits, Plan, Spec};
use dataplane::pool::Leases;
use dataplane::time::Time;
use dataplane::worker::{Burst, Device, Worker};
use perf::frames::INSIDE;
use perf::machine::Part;
use perf::scene::{neighbours, router, translate};

use crate::Options;
use crate::between::{Between, Counts};
use crate::forwarding::{IO, MACSWAP, NAT44, ROUTER, open, rounds, routed4, sessions, translated};
use crate::generator::Generator;

/// A thread of this process that has sent nothing for so long sends nothing more.
const QUIET: Duration = Duration::from_millis(5);
/// Polls between two looks for orders.
const POLLS: usize = 16;
/// Time of the first poll.
const EPOCH: Time = Time::from_secs(1000);
/// The forwarder that is to work, or none.
type Order = Option<usize>;

/// What the thread has in each place.
enum Forwarder {
    /// What testpmd does in its mode io: a burst from each port to the other, untouched; what that does not take is dropped. In its
    /// mode macswap it also swaps the Ethernet addresses.
    Loop {
        ports: [Queue; 2],
        macswap: bool,
    },
    Gateway(Box<Worker<Queue, Mempool>>),
}

impl Forwarder {
    /// A gateway on these ports, which knows its neighbours.
    fn gateway(spec: Spec, ports: [Queue; 2], mut pool: Mempool) -> Result<Self> {
        let plan = Arc::new(Plan::compile(spec)?);
        let leases = Arc::new(Leases::new(&plan));
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let mut out = Output::new(&plan.spec.limits);
        let mut engine = Engine::new(plan, leases, counters, EPOCH);
        for neighbour in neighbours() {
            engine.apply(neighbour, EPOCH, &mut pool, &mut out);
        }
        // Nobody has anything to say to it, nor listens.
        let ((_, inbox), (outbox, _)) = (bounded(1), bounded(1));
        Ok(Forwarder::Gateway(Box::new(Worker::new(engine, ports.into(), pool, inbox, outbox))))
    }

    fn counters(&self) -> Option<Arc<Counters>> {
        match self {
            Forwarder::Loop { .. } => None,
            Forwarder::Gateway(worker) => Some(Arc::clone(worker.counters())),
        }
    }

    /// One turn.
    fn poll(&mut self, now: impl FnOnce() -> Time) {
        match self {
            Forwarder::Loop { ports, macswap } => {
                for from in 0..2 {
                    let mut burst = Burst::new();
                    ports[from].receive(&mut burst);
                    if burst.is_empty() {
                        continue;
                    }
                    if *macswap {
                        burst.iter_mut().for_each(|packet| swap_addresses(packet.data_mut()));
                    }
                    ports[1 - from].transmit(&mut burst);
                    Packet::discard(&mut burst);
                }
            }
            Forwarder::Gateway(worker) => {
                let before = cycles();
                if worker.poll_once(now()).received > 0 {
                    worker.counters().busy_cycles.add(cycles().wrapping_sub(before));
                }
            }
        }
    }
}

fn swap_addresses(frame: &mut [u8]) {
    if let Some((destination, source)) = frame.get_mut(..12).map(|it| it.split_at_mut(6)) {
        destination.swap_with_slice(source);
    }
}

/// One of the forwarders as the generator's thread sees it.
struct Place {
    at: usize,
    counters: Option<Arc<Counters>>,
    orders: Sender<Order>,
}

impl Place {
    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).context("the thread that forwards has ended")
    }
}

impl Between for Place {
    fn name(&self) -> &'static str {
        match self.at {
            IO => "io loop",
            MACSWAP => "macswap loop",
            _ => "turnpike",
        }
    }

    fn wake(&self) -> Result<()> {
        self.order(Some(self.at))
    }

    fn freeze(&self) -> Result<()> {
        self.order(None)
    }

    fn counts(&self) -> Result<Counts> {
        let counters = self.counters.as_ref().context("a loop counts nothing")?;
        let mut counts = Counts {
            received: counters.received.get() as f64,
            busy: counters.busy_cycles.get() as f64,
            sessions: counters.sessions.iter().map(Counter::get).sum::<u64>() as f64,
            ..Counts::default()
        };
        for (spent, (_, total)) in counts.stages.iter_mut().zip(counters.stages.totals()) {
            *spent = total.cycles.get() as f64;
        }
        let drops = Drop::ALL.iter().map(|&why| (why.name(), counters.drops(why))).filter(|(_, count)| *count > 0);
        counts.drops = drops.map(|(why, count)| format!("{why} {count}")).collect();
        Ok(counts)
    }
}

/// Runs everything over rings. What forwards does so on this core.
pub fn run(options: &Options, part: Part, eal: Eal, core: usize, pool: &Mempool) -> Result<()> {
    let mut generator = Generator::new(eal, pool.clone(), part.frequency, QUIET);
    // Two for each of the forwarders, and one that leads from one of the generator's ports to the other.
    let mut forwarders = Vec::new();
    for at in [IO, MACSWAP, ROUTER, NAT44] {
        let [[inside, lan], [outside, wan]] = [wire(eal, 2 * at, pool)?, wire(eal, 2 * at + 1, pool)?];
        generator.take([inside, outside]);
        let ports = [lan, wan];
        forwarders.push(match at {
            ROUTER => Forwarder::gateway(router(), ports, pool.clone())?,
            NAT44 => Forwarder::gateway(nat44(sessions(options))?, ports, pool.clone())?,
            _ => Forwarder::Loop { ports, macswap: at == MACSWAP },
        });
    }
    generator.take(wire(eal, 2 * forwarders.len(), pool)?);

    let counters: Vec<_> = forwarders.iter().map(Forwarder::counters).collect();
    let (orders, inbox) = bounded(1);
    thread::scope(|scope| {
        let thread = scope.spawn(move || serve(eal, core, forwarders, &inbox));
        // It ends when nobody can give orders any more.
        let place = |(at, counters)| Place { at, counters, orders: orders.clone() };
        let measured =
            measure(options, part, &counters.into_iter().enumerate().map(place).collect::<Vec<_>>(), &mut generator);
        drop(orders);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(measured)
    })
}

/// The generator's side.
fn measure(options: &Options, mut part: Part, places: &[Place], generator: &mut Generator) -> Result<()> {
    let externals = open(sessions(options), places, generator)?;
    let mut loads = vec![routed4()];
    loads.extend(translated(&externals));
    let times = match (options.common.quick, options.common.full) {
        (true, _) => [5, 20],
        (_, true) => [100, 500],
        _ => [25, 100],
    };
    let sheet = rounds(options, &mut part, places, generator, &mut loads, times)?;
    println!("\nOver rings, within one process\n\n{}", sheet.list(|_| true));
    part.finish(sheet.into_cells(), options.common.out.as_deref())
}

/// The thread that forwards: with what the last order says, and parked while that is nothing.
fn serve(eal: Eal, core: usize, mut forwarders: Vec<Forwarder>, orders: &Receiver<Order>) -> Result<()> {
    let _registered = WorkerThread::enter(eal, core)?;
    let start = Instant::now();
    let mut awake: Order = None;
    loop {
        let order = if awake.is_some() { orders.try_recv() } else { orders.recv().map_err(TryRecvError::from) };
        match order {
            Ok(order) => awake = order,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        if let Some(forwarder) = awake.and_then(|at| forwarders.get_mut(at)) {
            for _ in 0..POLLS {
                forwarder.poll(|| EPOCH + start.elapsed());
            }
        }
    }
}

/// The gateway's configuration, with tables and pool for so many flows.
fn nat44(flows: usize) -> Result<Spec> {
    let mut spec = router();
    let sessions = u32::try_from(flows)?;
    spec.limits = Limits { sessions, mappings: sessions, ..spec.limits };
    translate(&mut spec, sessions, INSIDE.into(), 8);
    Ok(spec)
}
