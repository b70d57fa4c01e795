//! The gateway at work: from a configuration to forwarding packets, and down again.
//!
//! Start, each step needing what the one before gave: the cores are checked; DPDK takes its memory; a packet pool is made for
//! each worker; the ports are opened, which tells their Ethernet addresses; the plan is compiled with these; workers start on
//! their cores; and when all of them run, the gateway is ready. A step that fails undoes the ones before and says why, and what
//! to do.
//!
//! Then the calling thread is the control thread: it answers the workers (neighbours, pings), looks after ports and workers,
//! and ends when it is told to. Workers stop between two bursts, and ports close after them.

mod checksums;
mod control;
mod moves;
mod plan;
mod reload;
mod requests;
pub mod service;
mod watch;
mod worker;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use dataplane::counters::Counters;
use dataplane::dpdk::{
    CoreError, Eal, EalConfig, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Queue, Side, Steering,
};
use dataplane::dpdk::{available_cores, check_cores};
use dataplane::engine::{Engine, Part};
use dataplane::message::{FromWorker, ToWorker};
use dataplane::plan::{INTERFACES_MAX, MacAddr, Nat44Rule, Plan, PlanError, PortId, Spec, ZoneId};
use dataplane::pool::Leases;
use dataplane::steer::hand_over::Links;
use dataplane::steer::{ShardMap, WorkerId};
use dataplane::time::Time;
use dataplane::worker::Access;
use tracing::{info, warn};

use crate::api::{self, Request, SocketError};
use crate::config::{Config, Device};
use crate::host::Host;
use crate::metrics::{Metrics, ServeError, Server};
use checksums::ChecksumWatch;
use moves::Moves;
use reload::Reload;
use requests::Walks;
use service::Service;
use watch::Watch;
use worker::{Backoff, Running};

/// Messages that may wait between the control thread and a worker, each way.
const MESSAGES_MAX: usize = 1024;

/// Packets that may wait in the ring from one worker to another: what a busy worker receives in about a tenth of a millisecond.
pub(crate) const RING: u32 = 1024;

/// The MTU that every device has without being asked.
const USUAL_MTU: u16 = 1500;

/// Why the gateway can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A core can't be used.
    #[error("boot.cpu: {error}")]
    Core {
        /// Why.
        error: CoreError,
    },
    /// DPDK did not start, or has no memory for packets.
    #[error("{error}{}", permissions())]
    Dpdk {
        /// What it said.
        error: dataplane::dpdk::Error,
    },
    /// A port can't be opened.
    #[error("ports.{port}: {error}{}", permissions())]
    Port {
        /// Its name.
        port: String,
        /// Why.
        error: dataplane::dpdk::Error,
    },
    /// A port carries only smaller packets than an interface is to send.
    #[error(
        "interfaces.{interface}.mtu: port {port} carries packets of at most {most} bytes; set the MTU to that, or raise the device's"
    )]
    Mtu {
        /// The interface's name.
        interface: String,
        /// The port's name.
        port: String,
        /// In bytes, without the Ethernet header.
        most: u16,
    },
    /// The configuration can't be compiled.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Metrics can't be served.
    #[error(transparent)]
    Metrics(#[from] ServeError),
    /// The control socket can't be had.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The system refused a thread or randomness.
    #[error("{what}: {error}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A worker ended before it began.
    #[error("the worker on core {0} did not start; please report what stands above")]
    WorkerLost(u16),
}

impl RunError {
    /// Whether the configuration is at fault, rather than the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, RunError::Mtu { .. } | RunError::Plan(_))
    }
}

impl From<CoreError> for RunError {
    fn from(error: CoreError) -> Self {
        RunError::Core { error }
    }
}

/// A hint for errors that often are a lack of rights.
fn permissions() -> String {
    match std::fs::metadata("/proc/self").map(|process| process.uid()) {
        Ok(0) | Err(_) => String::new(),
        Ok(uid) => format!(
            "; this process runs as user {uid}: run it as root, or give it the capabilities NET_ADMIN, NET_RAW and IPC_LOCK"
        ),
    }
}

/// A clock that starts with the process and never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now(self) -> Time {
        // 584 years of nanoseconds.
        Time(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What a gateway is told from outside, by signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Stop, for this reason.
    Stop(&'static str),
}

/// A gateway that forwards packets.
pub struct Gateway {
    clock: Clock,
    /// What is running was read from, and how a reload stands.
    reload: Reload,
    /// What the workers work by, or are about to.
    plan: Arc<Plan>,
    leases: Arc<Leases>,
    host: Host,
    ports: Vec<(String, Port)>,
    workers: Vec<Running>,
    /// Which worker owns which shard.
    map: Arc<ShardMap>,
    moves: Moves,
    from_workers: Receiver<FromWorker<Mbuf>>,
    metrics: Metrics,
    checksums: ChecksumWatch,
    watch: Watch,
    service: Service,
    /// Answers scrapes until it is dropped.
    server: Option<Server>,
    /// Answers on the control socket until it is dropped.
    control: Option<api::Server>,
    /// What the control socket's clients ask for.
    requests: Receiver<Request>,
    walks: Walks,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("ports", &self.ports).field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts everything; returns when packets are forwarded. `verbose` lets DPDK say all it has to say.
    ///
    /// # Errors
    /// [`RunError`] names what is missing and what to do. What was started is stopped again; but DPDK can't be started
    /// twice in a process.
    pub fn start(config: &Config, verbose: bool) -> Result<Self, RunError> {
        let clock = Clock(Instant::now());
        let cpu = &config.boot.cpu;
        let usable: Vec<u16> = available_cores().into_iter().filter_map(|core| core.try_into().ok()).collect();
        let cores = cpu.worker_cores(&usable);
        let named: Vec<usize> = cores.iter().chain(&cpu.control).map(|&core| usize::from(core)).collect();
        check_cores(&named)?;
        // Before anything that another gateway on this machine would notice.
        let socket = api::Socket::claim(&config.control)?;

        let eal = start_dpdk(config, verbose)?;
        let pools = cores.iter().map(|_| packet_pool(eal, config)).collect::<Result<Vec<_>, _>>()?;
        // The configuration allows no more than there are shards.
        let count = u8::try_from(cores.len()).unwrap_or(u8::MAX);
        let map = Arc::new(ShardMap::dealt(count));
        let (ports, queues) = open_ports(eal, config, &pools, &map)?;
        let steered = ports.iter().any(|(_, port)| port.info().steering == Steering::Destination);
        let plan = Arc::new(compile(config, &ports)?);
        check_mtus(&plan, &ports)?;
        receive_for_interfaces(&plan, &ports)?;

        let leases = Arc::new(Leases::new(&plan));
        let (outbox, from_workers) = bounded(MESSAGES_MAX);
        let links = Links::between(&map, count, RING as usize).into_iter().zip((0..).map(WorkerId));
        let mut workers = Vec::new();
        for (((&core, pool), access), (links, id)) in cores.iter().zip(&pools).zip(queues).zip(links) {
            let counters = Arc::new(Counters::among(cores.len(), INTERFACES_MAX));
            let part = Part { shards: map.shards_of(id), workers: count, steered };
            let engine = Engine::among(part, Arc::clone(&plan), Arc::clone(&leases), counters, clock.now());
            let backoff = Backoff::new(cpu.poll_on(usable.len()));
            let outbox = outbox.clone();
            workers.push(Running::start(eal, core, links, engine, access, pool.clone(), outbox, backoff, clock)?);
        }
        let counters = workers.iter().map(|worker| Arc::clone(&worker.counters)).collect();
        let metrics = Metrics::new(Arc::clone(&plan), Arc::clone(&leases), counters);
        let server = config.metrics.listen.map(|address| Server::start(address, metrics.clone())).transpose()?;
        if let Some(address) = server.as_ref().map(Server::address) {
            info!(url = format!("http://{address}/metrics"), "metrics");
        }
        let host = Host::new(Arc::clone(&plan), random()?, clock.now());
        let (asking, requests) = bounded(api::REQUESTS);
        let control = socket.map(|socket| api::Server::start(socket, asking)).transpose()?;
        if let Some(path) = &config.control.socket {
            info!(path = %path.display(), "control socket");
        }
        Ok(Gateway {
            clock,
            reload: Reload::new(config),
            watch: Watch::new(ports.len(), workers.len()),
            moves: Moves::new(workers.len()),
            map,
            service: Service::from_environment(),
            plan,
            leases,
            host,
            ports,
            workers,
            from_workers,
            metrics,
            checksums: ChecksumWatch::default(),
            server,
            control,
            requests,
            walks: Walks::default(),
        })
    }
}

pub(crate) fn start_dpdk(config: &Config, verbose: bool) -> Result<Eal, RunError> {
    let pci = config.ports.iter().filter_map(|port| match &port.device {
        Device::Pci(address) => Some(address.clone()),
        Device::Vdev(_) => None,
    });
    let config = EalConfig {
        memory_mib: u32::try_from(config.boot.memory.size >> 20).unwrap_or(u32::MAX),
        hugepages: config.boot.memory.hugepages,
        control_core: config.boot.cpu.control.map(usize::from),
        pci: pci.collect(),
        verbose,
    };
    Eal::start(&config).map_err(|error| RunError::Dpdk { error })
}

pub(crate) fn packet_pool(eal: Eal, config: &Config) -> Result<Mempool, RunError> {
    let mtu = config.outline().interfaces.iter().map(|interface| interface.mtu).max().unwrap_or(USUAL_MTU);
    let frame_size = MempoolConfig::frame_size_for(mtu);
    let wanted = MempoolConfig { packets: config.boot.packets, frame_size, ..MempoolConfig::default() };
    Mempool::new(eal, &wanted).map_err(|error| RunError::Dpdk { error })
}

/// The ports with their names, and for each worker its way to each of them.
pub(crate) type Ports = (Vec<(String, Port)>, Vec<Vec<Access<Queue>>>);

pub(crate) fn open_ports(eal: Eal, config: &Config, pools: &[Mempool], map: &ShardMap) -> Result<Ports, RunError> {
    let pools: Vec<&Mempool> = pools.iter().collect();
    let mut by_worker: Vec<Vec<Access<Queue>>> = pools.iter().map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    for (id, port) in (0..=u16::MAX).map(PortId).zip(&config.ports) {
        let (Device::Vdev(device) | Device::Pci(device)) = &port.device;
        let interfaces = || config.outline().interfaces.iter().filter(|interface| interface.port == id);
        let mtu = interfaces().map(|interface| interface.mtu.max(USUAL_MTU)).max();
        let two_tags = interfaces().any(|interface| interface.outer_vlan.is_some());
        let wanted = PortConfig {
            rx_descriptors: port.rx_descriptors,
            tx_descriptors: port.tx_descriptors,
            mtu: mtu.filter(|&mtu| mtu > USUAL_MTU || two_tags),
            two_tags,
            side: side(config.outline(), id),
            ..PortConfig::new(device)
        };
        let (opened, queues) =
            Port::open(eal, &wanted, &pools).map_err(|error| RunError::Port { port: port.name.clone(), error })?;
        let about = opened.info();
        let (driver, mac, link) = (&about.driver, about.mac, opened.link().up);
        let (count, steering, rx_checksums) = (queues.len(), about.steering, about.offloads.to_string());
        info!(
            port = port.name,
            device = about.device,
            driver,
            %mac,
            mtu = about.mtu,
            queues = count,
            %steering,
            rx_checksums,
            link,
            "port open"
        );
        match &about.flow_rules {
            Some(Ok(())) => info!(port = port.name, %steering, "it is steered by flow rules"),
            Some(Err(reason)) => info!(port = port.name, reason, "its driver takes no flow rules to steer by"),
            None => {}
        }
        if let Some(reason) = &about.offloads.merging {
            let remedy = "run `ethtool -K IF gro off lro off`, IF being its interface";
            warn!(port = port.name, reason, remedy, "the kernel may merge what the port receives");
        }
        if !opened.steer(map) {
            warn!(
                port = port.name,
                "its driver does not let us say which queue a packet goes to: more are handed over"
            );
        }
        if count < pools.len() {
            let workers = pools.len();
            info!(
                port = port.name,
                workers, "fewer queues than workers: those without one send and receive by the others"
            );
        }
        // A worker without a queue sends by one that has one, always the same, so that order is kept.
        let mut queues = queues.into_iter().map(Access::Own);
        for (number, worker) in by_worker.iter_mut().enumerate() {
            let through = || Access::Through(WorkerId(u8::try_from(number % count.max(1)).unwrap_or(0)));
            worker.push(queues.next().unwrap_or_else(through));
        }
        ports.push((port.name.clone(), opened));
    }
    Ok((ports, by_worker))
}

/// The side of the flows that a port sees: that of its interfaces' zones in the rules, if they agree.
fn side(spec: &Spec, port: PortId) -> Side {
    let zones = || spec.interfaces.iter().filter(|interface| interface.port == port).map(|interface| interface.zone);
    let all = |of: fn(&Nat44Rule) -> ZoneId| zones().all(|zone| spec.nat44.iter().any(|rule| of(rule) == zone));
    match (all(|rule| rule.from), all(|rule| rule.to)) {
        (true, false) => Side::Inside,
        (false, true) => Side::Outside,
        _ => Side::Neither,
    }
}

/// The plan, with the ports' addresses and a secret of its own.
fn compile(config: &Config, ports: &[(String, Port)]) -> Result<Plan, RunError> {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(no_randomness)?;
    Ok(Plan::compile(spec(config, ports, secret, 1))?)
}

/// What the plan is compiled from: the configuration, with the ports' addresses.
fn spec(config: &Config, ports: &[(String, Port)], secret: [u8; 16], generation: u32) -> Spec {
    let mac = |id: PortId| match ports.get(usize::from(id.0)).map(|(_, port)| port.mac()) {
        Some(mac) if mac != MacAddr::default() => mac,
        // A device without a notion of addresses: any that is ours alone will do.
        _ => {
            let [high, low] = id.0.to_be_bytes();
            MacAddr([0x02, secret[0], secret[1], secret[2], high, low])
        }
    };
    config.spec(&mac, secret, generation)
}

fn check_mtus(plan: &Plan, ports: &[(String, Port)]) -> Result<(), RunError> {
    for interface in &plan.spec.interfaces {
        let Some((name, port)) = ports.get(usize::from(interface.port.0)) else { continue };
        let most = if interface.outer_vlan.is_some() { port.mtu_with_two_tags() } else { port.mtu() };
        if interface.mtu > most {
            let (interface, port) = (interface.name.clone(), name.clone());
            return Err(RunError::Mtu { interface, port, most });
        }
    }
    Ok(())
}

/// Has the ports receive what is sent to their interfaces' own Ethernet addresses.
fn receive_for_interfaces(plan: &Plan, ports: &[(String, Port)]) -> Result<(), RunError> {
    for (id, (name, port)) in (0..=u16::MAX).map(PortId).zip(ports) {
        let interfaces = plan.spec.interfaces.iter().filter(|interface| interface.port == id);
        let other: Vec<MacAddr> = interfaces.map(|it| it.mac).filter(|&mac| mac != port.mac()).collect();
        let told = port.receive_for(&other).map_err(|error| RunError::Port { port: name.clone(), error })?;
        if !told {
            info!(port = name, "receives frames to all addresses: its driver has no room for the interfaces' own");
        }
    }
    Ok(())
}

fn random() -> Result<u64, RunError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(u64::from_le_bytes(bytes))
}

fn no_randomness(error: getrandom::Error) -> RunError {
    RunError::System { what: "random numbers", error: io::Error::other(error.to_string()) }
}

/// What the control thread can't send at once, because a worker's inbox is full, in order.
type Backlog = std::collections::VecDeque<ToWorker>;
