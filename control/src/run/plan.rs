//! Another plan for a gateway at work.

use std::sync::Arc;

use dataplane::message::ToWorker;
use dataplane::plan::Plan;
use dataplane::pool::Leases;
use dataplane::time::Time;
use tracing::error;

use super::Gateway;

impl Gateway {
    /// Works by the running configuration for the links as they were last seen.
    pub(super) fn republish(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        match self.plan.with_links_down(self.watch.links_down()) {
            Ok(plan) => self.publish(Arc::new(plan), Arc::clone(&self.leases), now, out),
            // Links decide where a route leads, not whether the configuration is right; it was compiled before.
            Err(error) => error!(%error, "routes stay as they were before the link changed"),
        }
    }

    /// Gives workers, host and metrics this plan, a successor of the present one, with the leases of its external addresses.
    /// The workers have it before anything that the host says in `out`.
    pub(super) fn publish(&mut self, plan: Arc<Plan>, leases: Arc<Leases>, now: Time, out: &mut Vec<ToWorker>) {
        for worker in &mut self.workers {
            worker.send(ToWorker::Plan { plan: Arc::clone(&plan), leases: Arc::clone(&leases) });
        }
        self.host.succeed(Arc::clone(&plan), now, out);
        self.metrics.adopt(Arc::clone(&plan), Arc::clone(&leases));
        (self.plan, self.leases) = (plan, leases);
    }
}
