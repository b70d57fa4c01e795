//! The control thread: it answers the workers, looks after ports and workers, and waits to be told to stop.

use std::time::Duration;

use crossbeam_channel::{Receiver, never, select};
use dataplane::dpdk::Mbuf;
use dataplane::message::{FromWorker, ToWorker};
use dataplane::packet::Packet;
use dataplane::time::Time;
use tracing::{info, warn};

use super::{Gateway, Order};

/// How soon a worker's full inbox is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Messages of workers that are answered before time is looked at again.
const MESSAGES: usize = 256;

impl Gateway {
    /// The control loop. Returns when `orders` say so, or are gone. A worker that is lost ends the process.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let mut out = Vec::new();
        // Links first: on those that are down there is nobody to announce an address to.
        self.look(self.clock.now(), &mut out);
        self.host.start(self.clock.now(), &mut out);
        self.send(&mut out);
        self.metrics.set_ready(true);
        self.service.ready(&self.status());
        info!(workers = self.workers.len(), ports = self.ports.len(), "forwarding packets");
        loop {
            let wait = self.due().since(self.clock.now());
            let first = select! {
                recv(self.from_workers) -> message => message.ok(),
                recv(orders) -> order => {
                    match order {
                        Ok(Order::Reload) => self.want_reload((None, None), self.clock.now(), &mut out),
                        Ok(Order::Stop(reason)) => {
                            info!(reason, "stopping");
                            break;
                        }
                        Err(_) => break,
                    }
                    None
                }
                recv(self.requests) -> request => {
                    match request {
                        Ok(request) => self.request(request, &mut out),
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
            if self.watch.due <= now {
                self.look(now, &mut out);
                self.balance(now);
            }
            self.send(&mut out);
            for notice in self.host.notices() {
                warn!("{notice}");
            }
            self.service.beat(now);
        }
        self.stop();
    }

    /// When something is to be done next, if no message comes.
    fn due(&self) -> Time {
        let retry = self.workers.iter().any(|worker| worker.has_backlog());
        let retry = if retry { self.clock.now() + RETRY_AFTER } else { Time::NEVER };
        let host = self.host.next_deadline().unwrap_or(Time::NEVER);
        self.watch.due.min(self.service.beat_due()).min(host).min(retry)
    }

    fn answer(&mut self, message: FromWorker<Mbuf>, now: Time, out: &mut Vec<ToWorker>) {
        match message {
            FromWorker::Punt { interface, packet } => self.host.receive(interface, packet.data(), now, out),
            FromWorker::Resolve { interface, address } => self.host.resolve(interface, address, now, out),
            FromWorker::NeighbourUsed { interface, address } => self.host.neighbour_used(interface, address, now, out),
            FromWorker::Spent(message) => drop(message),
            FromWorker::Walked(walk) => self.walked(walk),
            FromWorker::Swept { generation } => self.swept(generation, now, out),
            FromWorker::Moved(moving) => self.moved(&moving, now, out),
        }
    }

    /// Neighbours are every worker's business; a frame or packet leaves once, by the first, whoever has the port's queue.
    fn send(&mut self, out: &mut Vec<ToWorker>) {
        self.workers.iter_mut().for_each(|worker| worker.flush());
        for message in out.drain(..) {
            if let ToWorker::Neighbour(update) = message {
                self.workers.iter_mut().for_each(|worker| worker.send(ToWorker::Neighbour(update)));
            } else if let Some(first) = self.workers.first_mut() {
                first.send(message);
            }
        }
    }

    /// Workers first, then their ports.
    fn stop(mut self) {
        self.metrics.set_ready(false);
        self.service.stopping();
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
