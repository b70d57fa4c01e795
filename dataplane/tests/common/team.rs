//! A gateway of several workers on one thread: they are stepped one by one, in whatever order a test likes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use dataplane::counters::{Counter, Counters, Drop};
use dataplane::engine::{Engine, Part};
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{HeapPacket, HeapPool, Packet};
use dataplane::plan::{InterfaceId, Plan, Spec};
use dataplane::pool::Leases;
use dataplane::steer::hand_over::{Links, Move};
use dataplane::steer::{ShardId, ShardMap, WorkerId};
use dataplane::time::Time;
use dataplane::worker::{Access, Poll, Worker};

use super::{PEER, Wire};

/// Packets that a ring holds.
pub const RING: usize = 512;

/// The gateway. Every port has a queue for each worker.
pub struct Team {
    pub workers: Vec<Worker<Wire, HeapPool>>,
    pub counters: Vec<Arc<Counters>>,
    pub plan: Arc<Plan>,
    pub leases: Arc<Leases>,
    pub map: Arc<ShardMap>,
    pub now: Time,
    /// What has left, in the order in which the workers were stepped.
    pub frames: Vec<(InterfaceId, Vec<u8>)>,
    /// What the host was given.
    pub punted: Vec<(InterfaceId, Vec<u8>)>,
    /// Shards on their way.
    pub moves: usize,
    to_workers: Vec<Sender<ToWorker>>,
    from_workers: Receiver<FromWorker<HeapPacket>>,
}

impl Team {
    /// So many workers, which share this configuration's limits.
    pub fn new(spec: Spec, workers: u8) -> Team {
        Team::with_rings(spec, workers, RING)
    }

    /// The same with rings of this capacity.
    pub fn with_rings(spec: Spec, workers: u8, ring: usize) -> Team {
        Team::behind_nics(spec, workers, ring, false)
    }

    /// The same, and workers know whether NICs deliver packets by the shards.
    pub fn behind_nics(spec: Spec, workers: u8, ring: usize, steered: bool) -> Team {
        let now = Time::from_secs(1000);
        let plan = Arc::new(Plan::compile(spec).expect("a plan"));
        let leases = Arc::new(Leases::new(&plan));
        let map = Arc::new(ShardMap::dealt(workers));
        let (outbox, from_workers) = crossbeam_channel::bounded(65_536);
        let pool = HeapPool::new(65_536);
        let (mut to_workers, mut counters) = (Vec::new(), Vec::new());
        let workers = (0..).map(WorkerId).zip(Links::between(&map, workers, ring)).map(|(id, links)| {
            let (to_worker, inbox) = crossbeam_channel::bounded(65_536);
            to_workers.push(to_worker);
            counters.push(Arc::new(Counters::among(usize::from(workers), plan.spec.interfaces.len())));
            let part = Part { shards: map.shards_of(id), workers, steered };
            let counters = Arc::clone(&counters[id.index()]);
            let engine = Engine::among(part, Arc::clone(&plan), Arc::clone(&leases), counters, now);
            let devices = plan.spec.ports.iter().map(|_| Access::Own(Wire::default()));
            Worker::among(links, engine, devices, pool.clone(), inbox, outbox.clone())
        });
        let workers = workers.collect();
        let (frames, punted) = (Vec::new(), Vec::new());
        Team { workers, counters, plan, leases, map, now, frames, punted, moves: 0, to_workers, from_workers }
    }

    /// Puts a frame into a worker's queue of an interface's port.
    pub fn arrive(&mut self, worker: usize, interface: InterfaceId, frame: &[u8]) {
        let port = usize::from(self.plan.interface(interface).expect("an interface").port.0);
        self.workers[worker].devices_mut()[port].rx.push_back(HeapPacket::from_frame(frame));
    }

    /// Gives a shard to another worker.
    pub fn move_shard(&mut self, shard: ShardId, to: WorkerId) {
        let from = self.map.owner(shard).index();
        let order = Box::new(Move::order(shard, to, &self.plan, self.now));
        self.to_workers[from].send(ToWorker::Move(order)).expect("room");
        self.moves += 1;
    }

    /// One poll of one worker; the control thread answers at once.
    pub fn step(&mut self, worker: usize) -> Poll {
        let poll = self.workers[worker].poll_once(self.now);
        while let Ok(event) = self.from_workers.try_recv() {
            match event {
                FromWorker::Punt { interface, packet } => self.punted.push((interface, packet.data().to_vec())),
                FromWorker::Resolve { interface, address } => self.neighbour(interface, address),
                FromWorker::Moved(moving) => {
                    self.moves -= 1;
                    assert!(moving.shard.sessions().next().is_none(), "an empty one is left over");
                }
                _ => {}
            }
        }
        for (wire, port) in self.workers[worker].devices_mut().iter_mut().zip(0..) {
            let interface = self.plan.spec.interfaces.iter().position(|it| it.port.0 == port).expect("an interface");
            let interface = InterfaceId(u16::try_from(interface).expect("few"));
            self.frames.extend(wire.tx.drain(..).map(|frame| (interface, frame)));
        }
        assert_eq!(self.counters[worker].imbalance(), 0, "worker {worker}: what came = where it all went");
        poll
    }

    /// Polls all in turn until nothing moves. What has left since the last call.
    pub fn run(&mut self) -> Vec<(InterfaceId, Vec<u8>)> {
        while (0..self.workers.len()).fold(false, |moved, worker| {
            let Poll { received, taken_over, messages, .. } = self.step(worker);
            moved | (received + taken_over + messages > 0)
        }) {}
        self.check();
        std::mem::take(&mut self.frames)
    }

    /// Lets time pass; timers fire.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.workers.iter_mut().for_each(|worker| worker.engine_mut().settle(self.now));
    }

    /// Lets every worker run in a thread of its own, as it likes, until so many packets have been received in all, and no ring
    /// has any. Stops anyhow after a minute; [`Team::run`] does what is then left, and has what left.
    pub fn run_free(&mut self, received: u64) {
        let stop = AtomicBool::new(false);
        let (now, deadline) = (self.now, Instant::now() + Duration::from_secs(60));
        let mut workers = std::mem::take(&mut self.workers);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let Poll { received, taken_over, messages, .. } = worker.poll_once(now);
                        if received + taken_over + messages == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let is_quiet = || {
                let taken_over = self.sum(|it| &it.taken_over);
                self.sum(|it| &it.received) == received && self.handed_over() == taken_over
            };
            while !is_quiet() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
        self.workers = workers;
    }

    /// One frame into a worker's queue; what leaves.
    pub fn send(&mut self, worker: usize, interface: InterfaceId, frame: &[u8]) -> Vec<(InterfaceId, Vec<u8>)> {
        self.arrive(worker, interface, frame);
        self.run()
    }

    /// The law of conservation (design rule 6), when nothing is in the rings.
    #[track_caller]
    pub fn check(&self) {
        assert_eq!(self.sum(|it| &it.taken_over), self.handed_over(), "nothing is in the rings");
        let imbalance: i128 = self.counters.iter().map(|counters| counters.imbalance()).sum();
        assert_eq!(imbalance, 0, "received + from host + originated = where it all went");
    }

    /// Packets that went by a ring.
    pub fn handed_over(&self) -> u64 {
        self.counters.iter().flat_map(|it| &it.handed_over).map(Counter::get).sum()
    }

    /// A counter of all workers.
    pub fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.counters.iter().map(|it| counter(it).get()).sum()
    }

    /// Drops for a reason, by all workers.
    pub fn drops(&self, reason: Drop) -> u64 {
        self.counters.iter().map(|it| it.drops(reason)).sum()
    }

    /// Says to all workers where a neighbour is.
    pub fn neighbour(&self, interface: InterfaceId, address: IpAddr) {
        let update = NeighbourUpdate { interface, address, state: NeighbourState::Reachable(PEER) };
        self.to_workers.iter().for_each(|worker| worker.send(ToWorker::Neighbour(update)).expect("room"));
    }
}
