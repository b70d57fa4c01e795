//! Another plan for a gateway at work.

use std::sync::Arc;

use dataplane::message::ToWorker;
use dataplane::plan::{Plan, Spec};
use dataplane::pool::Leases;
use tracing::error;

use super::Gateway;

impl Gateway {
    /// Compiles the running configuration anew, for the links as they were last seen, and works by it from now on.
    pub(super) fn republish(&mut self) {
        let spec = Spec { links_down: self.watch.links_down(), ..self.plan.spec.clone() };
        match Plan::compile(spec) {
            Ok(plan) => self.publish(Arc::new(plan), Arc::clone(&self.leases)),
            // Links decide where a route leads, not whether the configuration is right; it was compiled before.
            Err(error) => error!(%error, "routes stay as they were before the link changed"),
        }
    }

    /// Gives workers, host and metrics this plan, with the leases of its external addresses. The workers take it up between
    /// two bursts, in order with all other messages.
    pub(super) fn publish(&mut self, plan: Arc<Plan>, leases: Arc<Leases>) {
        for worker in &mut self.workers {
            worker.send(ToWorker::Plan { plan: Arc::clone(&plan), leases: Arc::clone(&leases) });
        }
        self.host.adopt(Arc::clone(&plan));
        self.metrics.adopt(Arc::clone(&plan), Arc::clone(&leases));
        (self.plan, self.leases) = (plan, leases);
    }
}
