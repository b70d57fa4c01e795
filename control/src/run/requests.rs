//! What the control thread does for the control socket: a bounded piece of work for each request, and never any waiting.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::message::ToWorker;
use dataplane::session::walk::Walk;

use super::Gateway;
use crate::api::{Answer, NEIGHBOURS, Neighbours, Request, View, Walked};

/// Walks that are with a worker, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Walks {
    last: u64,
    waiting: HashMap<u64, Answer<Option<Walked>>>,
}

impl Gateway {
    /// Does what a client of the control socket asks for, or begins it. One that has gone does not mind.
    pub(super) fn request(&mut self, request: Request, out: &mut Vec<ToWorker>) {
        match request {
            Request::View(answer) => {
                let _ = answer.send(self.view());
            }
            Request::Neighbours { after, answer } => {
                let neighbours = self.host.neighbours_after(after).take(NEIGHBOURS).collect();
                let _ = answer.send(Neighbours { plan: Arc::clone(&self.plan), now: self.clock.now(), neighbours });
            }
            Request::Walk { worker, walk, answer } => self.walk(worker, walk, answer),
            Request::MoveShard { shard, to, answer } => self.move_shard(shard, to, Some(answer), self.clock.now()),
            Request::Reload { check_only: true, answer } => {
                let _ = answer.send(self.reload(true, None, self.clock.now(), out));
            }
            Request::Reload { check_only: false, answer } => {
                self.want_reload((None, Some(answer)), self.clock.now(), out);
            }
            Request::Renumber { rule, outside, answer } => {
                self.want_reload((Some((rule, outside)), Some(answer)), self.clock.now(), out);
            }
        }
    }

    fn view(&self) -> View {
        View {
            files: self.reload.config.files.clone(),
            renumbered: self
                .plan
                .spec
                .prefixes
                .iter()
                .map(|it| self.reload.config.is_renumbered(&it.full_name()))
                .collect(),
            uptime: std::time::Duration::from_nanos(self.clock.now().0),
            ready: self.metrics.is_ready(),
            plan: Arc::clone(&self.plan),
            leases: Arc::clone(&self.leases),
            map: Arc::clone(&self.map),
            workers: self.workers.iter().map(|worker| (worker.core, Arc::clone(&worker.counters))).collect(),
            sample: self.metrics.sample(),
        }
    }

    fn walk(&mut self, worker: usize, mut walk: Box<Walk>, answer: Answer<Option<Walked>>) {
        match self.workers.get_mut(worker) {
            Some(worker) => {
                self.walks.last += 1;
                walk.id = self.walks.last;
                self.walks.waiting.insert(walk.id, answer);
                worker.send(ToWorker::Walk(walk));
            }
            None => {
                let _ = answer.send(None);
            }
        }
    }

    /// A walk is back from its worker.
    pub(super) fn walked(&mut self, walk: Box<Walk>) {
        if let Some(answer) = self.walks.waiting.remove(&walk.id) {
            let _ = answer.send(Some(Walked { plan: Arc::clone(&self.plan), walk }));
        }
    }
}
