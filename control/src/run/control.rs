//! The control thread: it answers the workers, watches the ports, and waits to be told to stop.

use std::time::Duration;

use crossbeam_channel::{Receiver, never, select};
use dataplane::counters::Counters;
use dataplane::dpdk::{Mbuf, Port};
use dataplane::message::{FromWorker, ToWorker};
use dataplane::packet::Packet;
use dataplane::time::Time;
use tracing::{info, warn};

use super::{Gateway, RunError};
use crate::host::NudState;
use crate::metrics::{MempoolSample, PortSample, Sample};

/// How often ports and workers are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How soon a worker's full inbox is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Messages of workers that are answered before time is looked at again.
const MESSAGES: usize = 256;

impl Gateway {
    /// The control loop. Returns when `stop` says something, with what it said, or is gone.
    ///
    /// # Errors
    /// [`RunError::WorkerLost`] when a worker has ended by itself.
    pub fn run(mut self, stop: &Receiver<&'static str>) -> Result<(), RunError> {
        let mut out = Vec::new();
        self.host.start(self.clock.now(), &mut out);
        self.send(&mut out);
        let mut links = vec![None; self.ports.len()];
        self.watch(&mut links)?;
        let mut watch_at = self.clock.now() + WATCH_EVERY;
        self.metrics.set_ready(true);
        info!(workers = self.workers.len(), ports = self.ports.len(), "forwarding packets");
        loop {
            let wait = self.due(watch_at).since(self.clock.now());
            let first = select! {
                recv(self.from_workers) -> message => message.ok(),
                recv(stop) -> reason => {
                    info!(reason = reason.unwrap_or("asked to"), "stopping");
                    break;
                }
                recv(self.requests) -> request => {
                    match request {
                        Ok(request) => self.request(request),
                        // Its server is gone, or there is none.
                        Err(_) => self.requests = never(),
                    }
                    None
                }
                default(wait) => None,
            };
            let now = self.clock.now();
            let more = self.from_workers.clone();
            for message in first.into_iter().chain(more.try_iter().take(MESSAGES)) {
                self.answer(message, now, &mut out);
            }
            if self.host.next_deadline().is_some_and(|due| due <= now) {
                self.host.poll(now, &mut out);
            }
            self.send(&mut out);
            for notice in self.host.notices() {
                warn!("{notice}");
            }
            if watch_at <= now {
                self.watch(&mut links)?;
                watch_at = now + WATCH_EVERY;
            }
        }
        self.stop();
        Ok(())
    }

    /// When something is to be done next, if no message comes.
    fn due(&self, watch_at: Time) -> Time {
        let retry = self.workers.iter().any(|worker| worker.has_backlog());
        let retry = if retry { self.clock.now() + RETRY_AFTER } else { Time::NEVER };
        watch_at.min(self.host.next_deadline().unwrap_or(Time::NEVER)).min(retry)
    }

    fn answer(&mut self, message: FromWorker<Mbuf>, now: Time, out: &mut Vec<ToWorker>) {
        match message {
            FromWorker::Punt { interface, packet } => self.host.receive(interface, packet.data(), now, out),
            FromWorker::Resolve { interface, address } => self.host.resolve(interface, address, now, out),
            FromWorker::NeighbourUsed { interface, address } => self.host.neighbour_used(interface, address, now, out),
            FromWorker::Spent(message) => drop(message),
            FromWorker::Walked(walk) => self.walked(walk),
            FromWorker::Swept { .. } => {}
        }
    }

    /// Neighbours are every worker's business; a frame or packet leaves once, by the first.
    fn send(&mut self, out: &mut Vec<ToWorker>) {
        self.workers.iter_mut().for_each(|worker| worker.flush());
        for message in out.drain(..) {
            match message {
                ToWorker::Frame { .. } | ToWorker::Packet { .. } => {
                    if let Some(first) = self.workers.first_mut() {
                        first.send(message);
                    }
                }
                message => self.workers.iter_mut().for_each(|worker| worker.send(message.clone())),
            }
        }
    }

    /// Looks at ports and workers.
    fn watch(&mut self, links: &mut [Option<bool>]) -> Result<(), RunError> {
        if let Some(lost) = self.workers.iter().find(|worker| !worker.is_running()) {
            self.metrics.set_ready(false);
            return Err(RunError::WorkerLost(lost.core));
        }
        let ports: Vec<PortSample> = self.ports.iter().map(|(_, port)| sample(port)).collect();
        for (((name, _), port), before) in self.ports.iter().zip(&ports).zip(links) {
            match before.replace(port.up) {
                Some(up) if up == port.up => {}
                None if port.up => {}
                _ if port.up => info!(port = name, "link is up"),
                _ => warn!(port = name, "link is down"),
            }
        }
        let counters: Vec<&Counters> = self.workers.iter().map(|worker| &*worker.counters).collect();
        let interfaces = self.host.plan().spec.interfaces.iter().map(|interface| interface.name.as_str());
        for warning in self.checksums.look(interfaces, &counters) {
            warn!("{warning}");
        }
        let mempools = self.workers.iter().map(|worker| {
            let size = u64::from(worker.pool.size());
            MempoolSample { free: size.saturating_sub(u64::from(worker.pool.in_use())), size }
        });
        let mut neighbours = [0; NudState::ALL.len()];
        self.host.neighbours().for_each(|neighbour| neighbours[neighbour.state as usize] += 1);
        let (mempools, host) = (mempools.collect(), self.host.counters());
        self.metrics.publish(Sample { ports, mempools, host, neighbours });
        Ok(())
    }

    /// Workers first, then their ports.
    fn stop(mut self) {
        self.metrics.set_ready(false);
        drop(self.server.take());
        drop(self.control.take());
        // Nobody listens any more: a worker that waits for room in its outbox goes on to its last message.
        self.from_workers = never();
        self.workers.iter_mut().for_each(|worker| worker.stop());
        let sum = |counter: fn(&dataplane::counters::Counters) -> u64| -> u64 {
            self.workers.iter().map(|worker| counter(&worker.counters)).sum()
        };
        let (received, transmitted) = (sum(|c| c.received.get()), sum(|c| c.transmitted.get()));
        let dropped = sum(|c| c.dropped.iter().map(dataplane::counters::Counter::get).sum());
        info!(received, transmitted, dropped, "stopped");
    }
}

fn sample(port: &Port) -> PortSample {
    let stats = port.stats();
    PortSample {
        receive_packets: stats.rx_packets,
        receive_bytes: stats.rx_bytes,
        transmit_packets: stats.tx_packets,
        transmit_bytes: stats.tx_bytes,
        missed: stats.rx_missed,
        receive_errors: stats.rx_errors,
        no_buffer: stats.rx_no_buffer,
        transmit_errors: stats.tx_errors,
        up: port.link().up,
    }
}
