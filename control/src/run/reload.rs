//! Reload: the configuration is read again, and applied as a whole or not at all.
//!
//! It is checked as at the start; what can only change by a restart is refused. Then the successor of the plan goes to the
//! workers between two bursts ([`Plan::succeed`]), and to the host. Sessions that it still allows go on; the workers' sweeps
//! end the others, and when the last worker has said so, the ports that they held may be leased again. Until then
//! another reload waits.

use std::sync::Arc;

use dataplane::counters::{Counter, Counters, sum};
use dataplane::message::ToWorker;
use dataplane::plan::{IpPrefix, Plan, PlanError, PortId, Spec};
use dataplane::time::Time;
use tracing::{error, info, warn};

use super::{Gateway, USUAL_MTU, check_mtus, receive_for_interfaces, spec};
use crate::api::Answer;
use crate::api::types::{Change, ReloadReport};
use crate::config::Config;

/// Another outside prefix for a rule, by its full name; none: the files' own again.
pub(crate) type Renumbering = (String, Option<IpPrefix>);

/// A reload that somebody wants: with which change beside the files', and who waits for the answer.
type Wanted = (Option<Renumbering>, Option<Answer<Result<ReloadReport, String>>>);

/// Reloads that may wait for the one before.
const WAITING_MAX: usize = 16;

/// What is running was made from, and how the last reload stands.
#[derive(Debug)]
pub(super) struct Reload {
    /// The configuration in force.
    pub(super) config: Config,
    /// The largest packets that the ports were opened for, by port.
    mtus: Vec<u16>,
    /// The reload whose sweep goes on.
    sweeping: Option<Sweeping>,
    /// Who asked for another one meanwhile: a signal, or a client of the control socket that waits for the answer.
    waiting: Vec<Wanted>,
}

/// A reload that the workers have taken up.
#[derive(Debug)]
struct Sweeping {
    generation: u32,
    /// Workers that have not checked all their sessions yet.
    workers: usize,
    since: Time,
    /// Sessions that reloads had ended before.
    ended: u64,
}

impl Reload {
    /// The configuration that the gateway started with.
    pub(super) fn new(config: &Config) -> Self {
        let of = |id: PortId| config.outline().interfaces.iter().filter(move |it| it.port == id).map(|it| it.mtu);
        let ids = (0..=u16::MAX).map(PortId).zip(&config.ports);
        let mtus = ids.map(|(id, _)| of(id).max().unwrap_or(0).max(USUAL_MTU)).collect();
        Reload { config: config.clone(), mtus, sweeping: None, waiting: Vec::new() }
    }

    /// Whether sessions are still being checked against a new plan.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweeping.is_some()
    }
}

impl Gateway {
    /// Somebody wants a reload: now, or as soon as the one before is done with.
    pub(super) fn want_reload(&mut self, (renumbering, answer): Wanted, now: Time, out: &mut Vec<ToWorker>) {
        // While a shard is on its way there is nobody to check its sessions.
        if (self.reload.is_sweeping() || self.moves.is_going_on()) && self.reload.waiting.len() < WAITING_MAX {
            self.reload.waiting.push((renumbering, answer));
            return;
        }
        let result = self.reload(false, renumbering, now, out);
        // What it says is in the log; a client that has gone does not mind.
        if let Some(answer) = answer {
            let _ = answer.send(result);
        }
    }

    /// Reads the configuration again, and applies it; or, with `check_only`, only says what it would change.
    ///
    /// # Errors
    /// What is wrong, as the user shall read it. Nothing has changed then.
    pub(super) fn reload(
        &mut self,
        check_only: bool,
        renumbering: Option<Renumbering>,
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<ReloadReport, String> {
        if check_only {
            return self.prepare(renumbering).map(|(report, _)| report);
        }
        self.service.reloading();
        let result = self.apply(renumbering, now, out);
        self.metrics.reloaded(result.is_ok());
        match &result {
            Ok(report) => {
                for Change { key, what, flows } in &report.changes {
                    info!(key, what, flows, "reload");
                }
                let changes = report.changes.len();
                info!(generation = report.generation, changes, "the configuration has been read again");
            }
            Err(problems) => {
                problems.lines().for_each(|problem| error!("{problem}"));
                warn!("the reload was refused; the gateway goes on as before");
            }
        }
        self.service.ready(&self.status());
        result
    }

    /// Reads and checks, and says what would change. No successor where nothing does.
    fn prepare(&self, renumbering: Option<Renumbering>) -> Result<(ReloadReport, Option<(Config, Plan)>), String> {
        let config = match renumbering {
            None => self.reload.config.reread(),
            Some((rule, outside)) => self.reload.config.renumber(&rule, outside),
        };
        let config = config.map_err(|error| error.to_string())?;
        let restart = self.reload.config.needs_restart(&config);
        if !restart.is_empty() {
            let keys = restart.join(", ");
            return Err(format!("{keys}: takes effect at a restart only; put it back, or restart the gateway"));
        }
        let changes = self.reload.config.difference(&config).into_iter().map(|change| {
            let flows = change.flows().to_owned();
            Change { what: change.what.to_string(), key: change.key, flows }
        });
        let generation = self.plan.spec.generation;
        let mut report = ReloadReport { generation, applied: false, changes: changes.collect() };
        if report.changes.is_empty() {
            return Ok((report, None));
        }
        report.generation += 1;
        let links_down = self.plan.spec.links_down.clone();
        let spec = spec(&config, &self.ports, self.plan.spec.secret, report.generation);
        self.fits_ports(&spec)?;
        let plan = Plan::succeed(&self.plan, &self.leases, Spec { links_down, ..spec }).map_err(refusal)?;
        check_mtus(&plan, &self.ports).map_err(|error| error.to_string())?;
        Ok((report, Some((config, plan))))
    }

    /// Whether the ports, as they were opened, do for these interfaces' tags and packets.
    fn fits_ports(&self, spec: &Spec) -> Result<(), String> {
        for interface in &spec.interfaces {
            let Some((name, port)) = self.ports.get(usize::from(interface.port.0)) else { continue };
            let most = self.reload.mtus.get(usize::from(interface.port.0)).copied().unwrap_or(USUAL_MTU);
            if interface.mtu > most {
                return Err(format!(
                    "interfaces.{}.mtu: port {name} was opened for packets of at most {most} bytes; restart the gateway",
                    interface.name
                ));
            }
            if interface.outer_vlan.is_some() && !port.info().two_tags {
                return Err(format!(
                    "interfaces.{}.outer-vlan: port {name} was opened for frames with one tag; restart the gateway",
                    interface.name
                ));
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        renumbering: Option<Renumbering>,
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<ReloadReport, String> {
        if self.reload.is_sweeping() || self.moves.is_going_on() {
            return Err(
                "the reload before, or a move of a shard, is still being carried out; try again in a moment".to_owned()
            );
        }
        let (mut report, successor) = self.prepare(renumbering)?;
        report.applied = true;
        let Some((config, plan)) = successor else { return Ok(report) };
        receive_for_interfaces(&plan, &self.ports).map_err(|error| error.to_string())?;
        let plan = Arc::new(plan);
        let leases = Arc::new(self.leases.succeed(&self.plan, &plan));
        let ended = self.sum(|counters| &counters.session_reload_ends);
        self.publish(Arc::clone(&plan), leases);
        self.host.succeed(plan, now, out);
        self.reload.config = config;
        let (generation, workers) = (report.generation, self.workers.len());
        self.reload.sweeping = Some(Sweeping { generation, workers, since: now, ended });
        Ok(report)
    }

    /// A worker has checked all its sessions against the plan of this generation.
    pub(super) fn swept(&mut self, generation: u32, now: Time, out: &mut Vec<ToWorker>) {
        let Some(sweeping) = self.reload.sweeping.as_mut().filter(|it| it.generation == generation) else { return };
        sweeping.workers = sweeping.workers.saturating_sub(1);
        if sweeping.workers > 0 {
            return;
        }
        let (since, before) = (sweeping.since, sweeping.ended);
        self.reload.sweeping = None;
        self.leases.open(&self.plan);
        let ended = self.sum(|counters| &counters.session_reload_ends) - before;
        let kept = sum(self.workers.iter().flat_map(|it| &it.counters.sessions));
        let milliseconds = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        info!(generation, sessions_ended = ended, sessions_kept = kept, milliseconds, "reload: every session checked");
        self.resume_reloads(now, out);
    }

    /// Nothing stands in the way of those who wait for a reload any more.
    pub(super) fn resume_reloads(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        // The first of them may begin another sweep, for which the others go on waiting.
        for wanted in std::mem::take(&mut self.reload.waiting) {
            self.want_reload(wanted, now, out);
        }
    }

    /// The sum of a counter over all workers.
    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        sum(self.workers.iter().map(|worker| counter(&worker.counters)))
    }
}

/// Why a plan can't succeed the one in force, in words for the file's author.
fn refusal(error: PlanError) -> String {
    match error {
        PlanError::TooMany(what, most) => {
            format!("too many {what}: there is room for {most}; remove some, or restart the gateway")
        }
        error => error.to_string(),
    }
}
