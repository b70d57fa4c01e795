//! Another plan for a gateway at work: links that change, addresses that are drained. Reload makes its own (`reload`).

use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::message::ToWorker;
use dataplane::plan::Plan;
use dataplane::pool::Leases;
use dataplane::time::Time;
use tracing::{error, info};

use super::Gateway;

impl Gateway {
    /// Works by the running configuration for the links as they were last seen.
    pub(super) fn republish(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        match self.plan.with_links_down(self.watch.links_down()) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                self.publish(Arc::clone(&plan), Arc::clone(&self.leases));
                self.host.succeed(plan, now, out);
            }
            // Links decide where a route leads, not whether the configuration is right; it was compiled before.
            Err(error) => error!(%error, "routes stay as they were before the link changed"),
        }
    }

    /// Lets go of external addresses that a reload took out of their pool, and that nothing is mapped to any more.
    pub(super) fn let_go(&mut self) {
        let externals = (0..).zip(&self.plan.externals);
        let empty = externals.filter(|(id, external)| external.draining && !self.leases.is_leased(*id));
        let empty: Vec<Ipv4Addr> = empty.map(|(_, external)| Ipv4Addr::from_bits(external.address)).collect();
        // While a reload goes on, its sweep may still need them.
        if empty.is_empty() || self.reload.is_sweeping() {
            return;
        }
        match self.plan.without_drained(&self.leases) {
            Ok(plan) => {
                let plan = Arc::new(plan);
                let leases = Arc::new(self.leases.succeed(&self.plan, &plan));
                self.publish(Arc::clone(&plan), leases);
                self.host.adopt(plan);
                empty.iter().for_each(|address| info!(%address, "drained: the address is no longer ours"));
            }
            Err(error) => error!(%error, "drained addresses stay"),
        }
    }

    /// Gives workers and metrics this plan, with the leases of its external addresses; the host's part is the caller's. The
    /// workers take it up between two bursts, in order with all other messages.
    pub(super) fn publish(&mut self, plan: Arc<Plan>, leases: Arc<Leases>) {
        for worker in &mut self.workers {
            worker.send(ToWorker::Plan { plan: Arc::clone(&plan), leases: Arc::clone(&leases) });
        }
        self.metrics.adopt(Arc::clone(&plan), Arc::clone(&leases));
        (self.plan, self.leases) = (plan, leases);
    }
}
