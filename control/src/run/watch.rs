//! The watch over ports and workers, twice a second.
//!
//! A port whose link goes down, or whose device is deleted, is reported once; its routes are withdrawn, packets that wait
//! for a neighbour behind it are answered, and what it counted stays counted. When it is up again, all comes back by itself.
//! A link that flaps is followed no faster than the watch looks.
//!
//! A worker that no longer moves takes its flows with it, and nothing that it holds can be trusted: the process ends at once
//! (SIGABRT), and the service manager starts it anew. What counts is looks, not time: a process that was stopped as a whole,
//! or a machine that was, finds its workers moving at the next look.

use std::process;
use std::time::Duration;

use dataplane::counters::Counters;
use dataplane::dpdk::{Link, Port};
use dataplane::message::ToWorker;
use dataplane::plan::PortId;
use dataplane::time::Time;
use tracing::{error, info, warn};

use super::Gateway;
use super::worker::Running;
use crate::host::NudState;
use crate::metrics::{MempoolSample, PortSample, Sample};

/// How often ports and workers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// After so many looks at which it had not moved, a worker is lost: two seconds.
const STILL_MAX: u32 = 4;

/// What was last seen of ports and workers.
#[derive(Debug)]
pub(super) struct Watch {
    /// When to look next.
    pub(super) due: Time,
    /// By port, in the order of the plan.
    ports: Vec<Seen>,
    /// By worker.
    workers: Vec<Pace>,
}

/// A port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    /// The device was deleted.
    Gone,
}

impl From<Link> for State {
    fn from(link: Link) -> Self {
        match link {
            Link { gone: true, .. } => State::Gone,
            Link { up: true, .. } => State::Up,
            Link { .. } => State::Down,
        }
    }
}

#[derive(Debug)]
struct Seen {
    state: State,
    sample: PortSample,
}

/// How a worker's rounds go on.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// The rounds counted at the last look.
    polls: u64,
    /// Looks since then that found the same number.
    still: u32,
}

impl Pace {
    /// Takes a look. True if the worker is lost.
    fn look(&mut self, polls: u64) -> bool {
        self.still = if polls == self.polls { self.still + 1 } else { 0 };
        self.polls = polls;
        self.still >= STILL_MAX
    }
}

impl Watch {
    /// Nothing has been seen yet: links are taken to be up.
    pub(super) fn new(ports: usize, workers: usize) -> Self {
        let port = || Seen { state: State::Up, sample: PortSample::default() };
        Watch { due: Time::ZERO, ports: (0..ports).map(|_| port()).collect(), workers: vec![Pace::default(); workers] }
    }

    /// The ports whose link is down.
    pub(super) fn links_down(&self) -> Vec<PortId> {
        let ids = (0..=u16::MAX).map(PortId).zip(&self.ports);
        ids.filter(|(_, seen)| seen.state != State::Up).map(|(id, _)| id).collect()
    }

    /// Looks at the ports. True if a link has gone down or come up.
    fn look_at_ports(&mut self, ports: &[(String, Port)]) -> bool {
        let mut changed = false;
        for ((name, port), seen) in ports.iter().zip(&mut self.ports) {
            let before = seen.state;
            if before == State::Gone {
                continue;
            }
            seen.state = port.link().into();
            seen.sample.up = seen.state == State::Up;
            seen.sample.gone = seen.state == State::Gone;
            if seen.state != State::Gone {
                count(&mut seen.sample, port);
            }
            if seen.state == before {
                continue;
            }
            match seen.state {
                State::Up => info!(port = name, "link is up"),
                State::Down => warn!(port = name, "link is down: its routes are withdrawn until it is up again"),
                State::Gone => error!(
                    port = name,
                    "the device is gone: its routes are withdrawn, and the other ports go on; make it again and restart"
                ),
            }
            if (before == State::Up) != (seen.state == State::Up) {
                seen.sample.link_changes += 1;
                changed = true;
            }
        }
        changed
    }

    /// Looks at the workers. Gives one that is lost.
    fn look_at_workers<'a>(&mut self, workers: &'a [Running]) -> Option<&'a Running> {
        let looked = workers.iter().zip(&mut self.workers);
        let mut lost = looked.filter_map(|(worker, pace)| pace.look(worker.counters.polls.get()).then_some(worker));
        lost.next()
    }
}

/// Takes over what the device has counted. A driver may forget it while nobody is at its other end (`net_memif`); we don't.
fn count(sample: &mut PortSample, port: &Port) {
    let stats = port.stats();
    for (known, now) in [
        (&mut sample.receive_packets, stats.rx_packets),
        (&mut sample.receive_bytes, stats.rx_bytes),
        (&mut sample.transmit_packets, stats.tx_packets),
        (&mut sample.transmit_bytes, stats.tx_bytes),
        (&mut sample.missed, stats.rx_missed),
        (&mut sample.receive_errors, stats.rx_errors),
        (&mut sample.no_buffer, stats.rx_no_buffer),
        (&mut sample.transmit_errors, stats.tx_errors),
    ] {
        *known = now.max(*known);
    }
}

impl Gateway {
    /// Looks at ports and workers, and does what follows. Ends the process if a worker is lost.
    pub(super) fn look(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        self.watch.due = now + LOOK_EVERY;
        if let Some(lost) = self.watch.look_at_workers(&self.workers) {
            error!(
                core = lost.core,
                "a worker does not move any more: aborting, for the service manager to start anew"
            );
            process::abort();
        }
        if self.watch.look_at_ports(&self.ports) {
            self.republish(now, out);
            self.service.status(&self.status());
        }
        let ports = self.watch.ports.iter().map(|seen| seen.sample.clone()).collect();
        self.let_go();
        let counters: Vec<&Counters> = self.workers.iter().map(|worker| &*worker.counters).collect();
        let interfaces = self.plan.spec.interfaces.iter().map(|interface| interface.name.as_str());
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
    }

    /// What the service manager shows.
    pub(super) fn status(&self) -> String {
        let names = self.ports.iter().zip(&self.watch.ports);
        let not_up = names.filter_map(|((name, _), seen)| match seen.state {
            State::Up => None,
            State::Down => Some(format!("{name} is down")),
            State::Gone => Some(format!("{name} is gone")),
        });
        let not_up: Vec<_> = not_up.collect();
        match &not_up[..] {
            [] => format!("Forwarding packets between {} ports", self.ports.len()),
            _ => format!("Forwarding packets; of {} ports, {}", self.ports.len(), not_up.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_lost_when_four_looks_find_it_where_it_was() {
        let mut pace = Pace::default();
        let looks = [1000, 1000, 1000, 1000, 1001, 1001, 1001, 1001, 1001, 1001];
        let lost: Vec<_> = looks.into_iter().map(|polls| pace.look(polls)).collect();
        assert_eq!(lost, [false, false, false, false, false, false, false, false, true, true]);
        // Before its first round it may take as long.
        let mut pace = Pace::default();
        assert_eq!([0, 0, 0, 7].map(|polls| pace.look(polls)), [false; 4]);
    }
}
