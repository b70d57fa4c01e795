//! The gateway in virtual time: captures in, captures out, and what happened to each packet.
//!
//! [`Replay`] runs the same worker and engine as `turnpike run`, over packets on the heap. What it promises:
//!
//! - The clock is that of the captures. They are merged by time; of equal times, the interface that stands first in the
//!   configuration comes first; a packet that is older than its predecessor takes the predecessor's time. Between packets the
//!   clock runs on by seconds while anything can expire, and in one step otherwise.
//! - All that is due has expired when a packet comes: as in a worker, which polls far more often than packets come.
//! - Equal input and an equal seed give equal output, byte for byte.
//! - A capture belongs to an interface. Frames of a VLAN interface are given its tags on their way in, if they have none, and
//!   lose them on their way out. Raw IP gets an Ethernet header.
//! - Checksums that a capture shows unfinished, because it was made at the sender, are finished.
//! - Neighbours are those of the file; all others are assumed to have [`NEIGHBOUR`]. The gateway answers ARP, neighbour
//!   discovery and pings for its addresses, but asks and announces nothing.
//! - Without [`Options::gateway`], every frame to one station counts as sent to the gateway, whatever its destination. A capture
//!   of both directions of a conversation needs it: frames *from* it are left out, frames to others are left to the engine.

mod device;
mod input;
mod report;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use dataplane::counters::Counters;
use dataplane::dpdk::MempoolConfig;
use dataplane::engine::Engine;
use dataplane::message::{FromWorker, NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::packet::{HeapPacket, HeapPool, Packet};
use dataplane::plan::{InterfaceId, MacAddr, Plan, PlanError, PortId};
use dataplane::pool::Leases;
use dataplane::time::Time;
use dataplane::worker::Worker;

use crate::capture::{CaptureError, CaptureWriter};
use crate::config::Config;
use crate::host::{self, Host};
use device::ReplayDevice;
use input::Merge;

pub use report::{InterfaceReport, Summary};

/// The Ethernet address of every neighbour that the configuration does not name.
pub const NEIGHBOUR: MacAddr = MacAddr([0x02, 0x54, 0x50, 0x00, 0x00, 0x01]);

/// How far the clock steps while something can expire.
const STEP: Duration = Duration::from_secs(1);

/// What to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// A capture for each of these interfaces, by name.
    pub inputs: Vec<(String, PathBuf)>,
    /// Where `NAME.pcap` of each interface goes. Made if it is not there.
    pub out_dir: PathBuf,
    /// How long the clock runs on after the last packet.
    pub tail: Duration,
    /// What the engine's unpredictable choices follow from.
    pub seed: u64,
    /// The gateway's Ethernet addresses at the time of the captures. See the module's documentation.
    pub gateway: Vec<MacAddr>,
    /// Whether to say what happened to each packet.
    pub explain: bool,
}

/// Why a replay is not possible.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// An interface that the configuration does not have.
    #[error("--in {name}=...: the configuration has no interface of this name; it has {known}")]
    UnknownInterface {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Two captures for one interface.
    #[error("--in {name}=...: given twice; join the captures with `mergecap -w BOTH A B`")]
    Twice {
        /// The interface's name.
        name: String,
    },
    /// An output file would replace an input.
    #[error("{}: is an input and would be replaced by the output; choose another --out-dir", path.display())]
    Overwrite {
        /// The file.
        path: PathBuf,
    },
    /// A capture can't be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The configuration can't be compiled.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The directory of the output can't be made.
    #[error("{}: {error}", path.display())]
    OutDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl ReplayError {
    /// Whether the fault is in what was asked for, rather than in a file or the system.
    #[must_use]
    pub fn is_misuse(&self) -> bool {
        matches!(self, ReplayError::UnknownInterface { .. } | ReplayError::Twice { .. } | ReplayError::Overwrite { .. })
    }
}

/// A replay under way.
pub struct Replay {
    plan: Arc<Plan>,
    worker: Worker<ReplayDevice, HeapPool>,
    counters: Arc<Counters>,
    /// To the worker's devices, and what they sent, in order.
    arrivals: Vec<Sender<HeapPacket>>,
    departures: Receiver<(PortId, HeapPacket)>,
    to_worker: Sender<ToWorker>,
    from_worker: Receiver<FromWorker<HeapPacket>>,
    host: Host,
    outputs: Vec<CaptureWriter>,
    input: Merge,
    now: Time,
    explain: bool,
    summary: Summary,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("now", &self.now).field("input", &self.input).finish_non_exhaustive()
    }
}

impl Replay {
    /// Opens the captures and makes a gateway for them.
    ///
    /// # Errors
    /// When an interface or a file is not there, or the files can't be made.
    pub fn new(config: &Config, options: &Options) -> Result<Self, ReplayError> {
        let seed = options.seed.to_le_bytes();
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&seed);
        let plan = Arc::new(Plan::compile(config.spec(&|port| own_mac(port), secret, 1))?);
        let inputs = by_interface(&plan, &options.inputs)?;
        let outputs = outputs(&plan, options)?;
        let input = Merge::open(&plan, &inputs, &options.gateway)?;
        let now = input.start().unwrap_or_default();

        let (to_worker, inbox) = unbounded();
        let (outbox, from_worker) = unbounded();
        let (sent, departures) = unbounded();
        let (arrivals, devices) = (0..=u16::MAX)
            .zip(&plan.spec.ports)
            .map(|(port, _)| {
                let (sender, receiver) = unbounded();
                (sender, ReplayDevice::new(PortId(port), receiver, sent.clone()))
            })
            .unzip();
        let counters = Arc::new(Counters::new(plan.spec.interfaces.len()));
        let leases = Arc::new(Leases::new(&plan));
        let engine = Engine::new(Arc::clone(&plan), leases, Arc::clone(&counters), now);
        let packets = usize::try_from(config.boot.packets).unwrap_or(usize::MAX);
        let mtu = plan.spec.interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(0);
        let pool = HeapPool::new(packets).with_frames_of(MempoolConfig::frame_size_for(mtu).into());
        let mut worker = Worker::new(engine, devices, pool, inbox, outbox);
        worker.set_tracing(options.explain);
        Ok(Replay {
            host: settled_host(&plan, options.seed, now),
            summary: Summary::new(&plan, now),
            plan,
            worker,
            counters,
            arrivals,
            departures,
            to_worker,
            from_worker,
            outputs,
            input,
            now,
            explain: options.explain,
        })
    }

    /// Takes the next packet; gives the lines that explain it (empty if they were not asked for), or none at the end.
    ///
    /// # Errors
    /// When a capture can't be read on, or the output not be written.
    pub fn step(&mut self) -> Result<Option<String>, ReplayError> {
        let Some(arrival) = self.input.next()? else { return Ok(None) };
        self.advance(arrival.time)?;
        let interface = usize::from(arrival.interface.0);
        self.summary.interfaces[interface].received += 1;
        let mut lines = String::new();
        if arrival.own {
            self.summary.left_out += 1;
            if self.explain {
                lines = report::left_out(&self.plan, &arrival);
            }
            return Ok(Some(lines));
        }
        let port = self.plan.spec.interfaces[interface].port;
        // The worker holds the other end for as long as we live.
        let _ = self.arrivals[usize::from(port.0)].send(input::packet(&self.plan, &arrival));
        self.poll()?;
        if self.explain {
            lines = report::line(&self.plan, &arrival, &self.worker.take_traces());
        }
        Ok(Some(lines))
    }

    /// Lets the clock run on by `tail` after the last packet, and closes the output.
    ///
    /// # Errors
    /// When the output can't be written.
    pub fn finish(mut self, tail: Duration) -> Result<Summary, ReplayError> {
        self.advance(self.now + tail)?;
        // Whichever shards have something to end by now: a poll looks at a few of them only.
        self.worker.engine_mut().settle(self.now);
        self.poll()?;
        for output in self.outputs {
            output.finish()?;
        }
        self.summary.close(&self.counters, self.now, self.input.notes(&self.plan));
        Ok(self.summary)
    }

    /// The virtual clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets time pass, with the timers that expire meanwhile.
    fn advance(&mut self, to: Time) -> Result<(), ReplayError> {
        while self.now + STEP < to && self.can_expire() {
            self.now = self.now + STEP;
            self.worker.engine_mut().settle(self.now);
            self.poll()?;
        }
        self.now = self.now.max(to);
        self.worker.engine_mut().settle(self.now);
        Ok(())
    }

    fn can_expire(&self) -> bool {
        let c = &self.counters;
        let gauges = c.sessions.iter().chain(&c.mappings).chain([&c.mappings_held, &c.held]);
        gauges.into_iter().any(|gauge| gauge.get() > 0)
    }

    /// Polls the worker, and answers it until it has nothing more to say.
    fn poll(&mut self) -> Result<(), ReplayError> {
        loop {
            self.worker.poll_once(self.now);
            self.record()?;
            let mut answers = Vec::new();
            while let Ok(message) = self.from_worker.try_recv() {
                self.answer(message, &mut answers);
            }
            if answers.is_empty() {
                return Ok(());
            }
            for answer in answers {
                let _ = self.to_worker.send(answer); // we hold the worker, and so the other end
            }
        }
    }

    /// Writes down what the devices sent.
    fn record(&mut self) -> Result<(), ReplayError> {
        while let Ok((port, packet)) = self.departures.try_recv() {
            let Some((interface, frame)) = input::untag(&self.plan, port, packet.data()) else { continue };
            let index = usize::from(interface.0);
            self.outputs[index].write(self.now, &frame)?;
            self.summary.interfaces[index].transmitted += 1;
        }
        Ok(())
    }

    /// What the control thread would answer.
    fn answer(&mut self, message: FromWorker<HeapPacket>, answers: &mut Vec<ToWorker>) {
        match message {
            FromWorker::Resolve { interface, address } => {
                let neighbours = &self.plan.spec.interfaces[usize::from(interface.0)].neighbours;
                let known = neighbours.iter().find(|(neighbour, _)| *neighbour == address);
                let state = NeighbourState::Reachable(known.map_or(NEIGHBOUR, |&(_, mac)| mac));
                answers.push(ToWorker::Neighbour(NeighbourUpdate { interface, address, state }));
            }
            FromWorker::Punt { interface, packet } => {
                let mut replies = Vec::new();
                self.host.receive(interface, packet.data(), self.now + host::SETTLING, &mut replies);
                // What the host learns of neighbours is left aside: its timers would ask them, and nobody is there.
                answers.extend(replies.into_iter().filter(|reply| !matches!(reply, ToWorker::Neighbour(_))));
            }
            // Nobody asked for a new plan, a walk or a move.
            FromWorker::NeighbourUsed { .. }
            | FromWorker::Spent(_)
            | FromWorker::Swept { .. }
            | FromWorker::Walked(_)
            | FromWorker::Moved(_) => {}
        }
    }
}

/// The Ethernet address of a port in a replay.
fn own_mac(port: PortId) -> MacAddr {
    let [high, low] = port.0.to_be_bytes();
    MacAddr([0x02, 0x54, 0x50, 0x01, high, low])
}

/// A host whose addresses are all in use. Its clock is [`host::SETTLING`] ahead of ours.
fn settled_host(plan: &Arc<Plan>, seed: u64, now: Time) -> Host {
    let mut host = Host::new(Arc::clone(plan), seed, now);
    let mut announcements = Vec::new();
    host.start(now, &mut announcements);
    while let Some(due) = host.next_deadline().filter(|&due| due <= now + host::SETTLING) {
        host.poll(due, &mut announcements);
    }
    host
}

/// Resolves the interfaces' names; in the order of the configuration.
fn by_interface(plan: &Plan, inputs: &[(String, PathBuf)]) -> Result<Vec<(InterfaceId, PathBuf)>, ReplayError> {
    let mut seen = BTreeSet::new();
    let mut resolved = Vec::new();
    for (name, path) in inputs {
        let found = (0..=u16::MAX).zip(&plan.spec.interfaces).find(|(_, interface)| interface.name == *name);
        let Some((index, _)) = found else {
            let known: Vec<_> = plan.spec.interfaces.iter().map(|interface| interface.name.as_str()).collect();
            return Err(ReplayError::UnknownInterface { name: name.clone(), known: known.join(", ") });
        };
        if !seen.insert(index) {
            return Err(ReplayError::Twice { name: name.clone() });
        }
        resolved.push((InterfaceId(index), path.clone()));
    }
    resolved.sort_by_key(|(interface, _)| *interface);
    Ok(resolved)
}

/// Creates a capture for each interface.
fn outputs(plan: &Plan, options: &Options) -> Result<Vec<CaptureWriter>, ReplayError> {
    let dir = &options.out_dir;
    std::fs::create_dir_all(dir).map_err(|error| ReplayError::OutDir { path: dir.clone(), error })?;
    let real = |path: &Path| path.canonicalize().ok();
    let taken: BTreeSet<_> = options.inputs.iter().filter_map(|(_, path)| real(path)).collect();
    let paths = plan.spec.interfaces.iter().map(|interface| dir.join(format!("{}.pcap", interface.name)));
    let paths: Vec<_> = paths.collect();
    if let Some(path) = paths.iter().find(|path| real(path).is_some_and(|path| taken.contains(&path))) {
        return Err(ReplayError::Overwrite { path: path.clone() });
    }
    paths.iter().map(|path| Ok(CaptureWriter::create(path)?)).collect()
}
