//! What Prometheus sees: `/metrics`, and `/healthz` and `/readyz` for service managers.
//!
//! Promises:
//! - Nothing is counted here. A scrape reads the workers' [`Counters`], each of which has its worker as only writer, the table of
//!   port blocks ([`Leases`]), and the latest [`Sample`] of what only the control thread may ask of devices. Scrapes never touch the packet path.
//! - Every series exists from the start, at zero: every drop reason, every state, every cause.
//! - No label grows with traffic: no address, no subscriber, no flow.
//! - The HTTP server has a thread of its own, so that a slow or hostile client can't hold up neighbour discovery, which
//!   runs on the control thread.
//!
//! docs/metrics.md lists the names; a test holds it against what is served.

mod families;
mod server;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dataplane::counters::Counters;
use dataplane::plan::Plan;
use dataplane::pool::Leases;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use crate::host::{HostCounters, NudState};

pub use server::{ServeError, Server};

/// A device's own statistics.
#[derive(Clone, Debug, Default)]
pub struct PortSample {
    /// Frames received.
    pub receive_packets: u64,
    /// Bytes received.
    pub receive_bytes: u64,
    /// Frames sent.
    pub transmit_packets: u64,
    /// Bytes sent.
    pub transmit_bytes: u64,
    /// Frames that the device dropped because its receive queues were full.
    pub missed: u64,
    /// Frames received damaged.
    pub receive_errors: u64,
    /// Frames lost because there was no buffer for them.
    pub no_buffer: u64,
    /// Frames accepted for transmission and then lost.
    pub transmit_errors: u64,
    /// Whether the link is up.
    pub up: bool,
    /// Whether the device was deleted.
    pub gone: bool,
    /// How often the link went down or came up.
    pub link_changes: u64,
}

/// Packet buffers of a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct MempoolSample {
    /// Buffers not in use.
    pub free: u64,
    /// Buffers in all.
    pub size: u64,
}

/// What the control thread last saw of the devices, and of itself.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// By port, in the order of the plan.
    pub ports: Vec<PortSample>,
    /// By worker.
    pub mempools: Vec<MempoolSample>,
    /// What the host counted.
    pub host: HostCounters,
    /// Neighbours, by [`NudState`].
    ///
    /// [`NudState`]: crate::host::NudState
    pub neighbours: [u64; NudState::ALL.len()],
}

/// The gateway's metrics. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    state: Arc<Mutex<State>>,
}

/// What the control thread writes. A scrape reads a copy.
#[derive(Clone, Debug)]
struct State {
    started: SystemTime,
    ready: bool,
    /// Whether the configuration was last read without error, and when the one in use was read.
    reload: (bool, SystemTime),
    plan: Arc<Plan>,
    leases: Arc<Leases>,
    workers: Vec<Arc<Counters>>,
    sample: Sample,
}

impl Metrics {
    /// Metrics of a process that started now, with these port blocks and workers.
    #[must_use]
    pub fn new(plan: Arc<Plan>, leases: Arc<Leases>, workers: Vec<Arc<Counters>>) -> Self {
        let (started, sample) = (SystemTime::now(), Sample::default());
        let state = Arc::new(Mutex::new(State {
            started,
            ready: false,
            reload: (true, started),
            plan,
            leases,
            workers,
            sample,
        }));
        let registry = Registry::new();
        registry.register(Box::new(Scrape(Arc::clone(&state)))).expect("the only collector of this registry");
        Metrics { registry, state }
    }

    /// Says whether packets are being forwarded.
    pub fn set_ready(&self, ready: bool) {
        lock(&self.state).ready = ready;
    }

    /// The configuration has been read again, and was applied or refused.
    pub fn reloaded(&self, applied: bool) {
        let mut state = lock(&self.state);
        state.reload = (applied, if applied { SystemTime::now() } else { state.reload.1 });
    }

    /// Whether packets are being forwarded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        lock(&self.state).ready
    }

    /// Replaces what is known of the devices.
    pub fn publish(&self, sample: Sample) {
        lock(&self.state).sample = sample;
    }

    /// Tells from now on of this plan, with the same ports and interfaces, and these port blocks.
    pub fn adopt(&self, plan: Arc<Plan>, leases: Arc<Leases>) {
        let mut state = lock(&self.state);
        (state.plan, state.leases) = (plan, leases);
    }

    /// What was last known of the devices.
    #[must_use]
    pub fn sample(&self) -> Sample {
        lock(&self.state).sample.clone()
    }

    /// Every metric, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail, and every family has a sample; were one empty, the rest is still served.
        let _ = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        text
    }
}

/// Nothing that holds it can leave it half written.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry's only collector: it holds nothing and reads everything.
struct Scrape(Arc<Mutex<State>>);

impl Collector for Scrape {
    /// None: names can't collide with another collector's, as there is none.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = lock(&self.0).clone();
        families::collect(&state)
    }
}
