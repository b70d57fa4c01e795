//! Shards that move from worker to worker: because the operator says so, or because one worker is busy and another is not.
//!
//! One at a time, and never while a reload's sweep goes on: every session is to be checked by the worker that has it. The
//! workers do the rest among themselves ([`dataplane::steer::hand_over`]), and say when it is done.

use std::time::Duration;

use dataplane::message::ToWorker;
use dataplane::steer::hand_over::Move;
use dataplane::steer::{SHARDS, ShardId, WorkerId};
use dataplane::time::Time;
use tracing::info;

use super::Gateway;
use crate::api::Answer;
use crate::api::types::Moved;

/// How often the workers' loads are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// A worker that is busy for this part of the time gives a shard away...
const BUSY: f64 = 0.9;
/// ... if another is busy for no more than this.
const IDLE: f64 = 0.5;
/// A shard that has moved by itself stays for this long, lest one heavy subscriber go to and fro.
const STAY: Duration = Duration::from_secs(600);

/// The move that goes on, and what leads to the next.
#[derive(Debug)]
pub(super) struct Moves {
    going_on: Option<Going>,
    /// When loads were last compared, and how long each worker had been busy by then, in nanoseconds.
    compared: Time,
    busy_nanos: Vec<u64>,
    /// When each shard last moved.
    moved: [Option<Time>; SHARDS],
}

#[derive(Debug)]
struct Going {
    from: WorkerId,
    since: Time,
    answer: Option<Answer<Result<Moved, String>>>,
}

impl Moves {
    pub(super) fn new(workers: usize) -> Self {
        Moves { going_on: None, compared: Time::ZERO, busy_nanos: vec![0; workers], moved: [None; SHARDS] }
    }

    /// Whether a shard is on its way.
    pub(super) fn is_going_on(&self) -> bool {
        self.going_on.is_some()
    }

    /// How busy each worker has been since the last comparison, if it is time for another: 0 to 1.
    fn loads(&mut self, busy_nanos: Vec<u64>, now: Time) -> Option<Vec<f64>> {
        let passed = now.since(self.compared);
        if passed < COMPARE_EVERY {
            return None;
        }
        let spent = busy_nanos.iter().zip(&self.busy_nanos).map(|(now, before)| now.saturating_sub(*before));
        let loads = spent.map(|nanos| Duration::from_nanos(nanos).div_duration_f64(passed)).collect();
        (self.busy_nanos, self.compared) = (busy_nanos, now);
        Some(loads)
    }

    /// The move that these loads call for.
    fn wanted(&self, loads: &[f64], owner: impl Fn(ShardId) -> WorkerId, now: Time) -> Option<(ShardId, WorkerId)> {
        let workers = || (0..).map(WorkerId).zip(loads);
        let (busiest, &most) = workers().max_by(|a, b| a.1.total_cmp(b.1))?;
        let (idlest, &least) = workers().min_by(|a, b| a.1.total_cmp(b.1))?;
        let may_move = |shard: &ShardId| {
            owner(*shard) == busiest && self.moved[shard.index()].is_none_or(|at| now.since(at) >= STAY)
        };
        // The last shard of a worker is all of its load: to move it moves the trouble.
        let owned = ShardId::all().filter(|&shard| owner(shard) == busiest).count();
        let shard = ShardId::all().find(may_move)?;
        (most >= BUSY && least <= IDLE && owned > 1).then_some((shard, idlest))
    }
}

impl Gateway {
    /// Begins to move a shard. The answer comes when it has arrived, or at once if it can't go.
    pub(super) fn move_shard(
        &mut self,
        shard: ShardId,
        to: WorkerId,
        answer: Option<Answer<Result<Moved, String>>>,
        now: Time,
    ) {
        let from = self.map.owner(shard);
        let refusal = if to.index() >= self.workers.len() {
            Some(format!("there is no worker {}: they are numbered from 0 to {}", to.0, self.workers.len() - 1))
        } else if self.moves.is_going_on() || self.reload.is_sweeping() {
            Some("another move, or a reload, is still being carried out; try again in a moment".to_owned())
        } else {
            None
        };
        let done = Moved { shard: shard.0, from: from.0, to: to.0 };
        match refusal {
            Some(refusal) => drop(answer.map(|answer| answer.send(Err(refusal)))),
            None if from == to => drop(answer.map(|answer| answer.send(Ok(done)))),
            None => {
                let order = Box::new(Move::order(shard, to, &self.plan, now));
                self.moves.going_on = Some(Going { from, since: now, answer });
                if let Some(worker) = self.workers.get_mut(from.index()) {
                    worker.send(ToWorker::Move(order));
                }
            }
        }
    }

    /// A worker says that a shard has arrived.
    pub(super) fn moved(&mut self, moving: &Move, now: Time, out: &mut Vec<ToWorker>) {
        let Some(Going { from, since, answer }) = self.moves.going_on.take() else { return };
        self.moves.moved[moving.id.index()] = Some(now);
        let (shard, to) = (moving.id.0, self.map.owner(moving.id).0);
        let microseconds = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        info!(shard, from = from.0, to, microseconds, "shard moved");
        // A driver that refuses now has said so at start, or leaves the packets to be handed over.
        for (_, port) in &self.ports {
            let _ = port.steer(&self.map);
        }
        if let Some(answer) = answer {
            let _ = answer.send(Ok(Moved { shard, from: from.0, to }));
        }
        self.resume_reloads(now, out);
    }

    /// Moves a shard from a busy worker to an idle one, if there are such.
    pub(super) fn balance(&mut self, now: Time) {
        let busy_nanos = self.workers.iter().map(|worker| worker.counters.busy_nanos()).collect();
        let Some(loads) = self.moves.loads(busy_nanos, now) else { return };
        if let Some((shard, to)) = self.moves.wanted(&loads, |shard| self.map.owner(shard), now)
            && !self.moves.is_going_on()
            && !self.reload.is_sweeping()
        {
            info!(shard = shard.0, to = to.0, "a worker is busy and another is not: a shard moves");
            self.move_shard(shard, to, None, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(shard: ShardId) -> WorkerId {
        WorkerId(shard.0 % 3)
    }

    #[test]
    fn a_busy_worker_gives_a_shard_to_the_idlest() {
        let moves = Moves::new(3);
        let now = Time::from_secs(100);
        assert_eq!(moves.wanted(&[0.2, 0.95, 0.1], owner, now), Some((ShardId(1), WorkerId(2))));
        assert_eq!(moves.wanted(&[0.6, 0.95, 0.7], owner, now), None, "nobody is idle");
        assert_eq!(moves.wanted(&[0.1, 0.8, 0.1], owner, now), None, "nobody is overloaded");
        let alone = |shard: ShardId| WorkerId(u8::from(shard.0 == 7));
        assert_eq!(moves.wanted(&[0.1, 1.0], alone, now), None, "the load is one shard's");
    }

    #[test]
    fn what_has_moved_stays_for_a_while() {
        let mut moves = Moves::new(3);
        moves.moved[1] = Some(Time::from_secs(100));
        let wanted = |secs| moves.wanted(&[0.2, 0.95, 0.1], owner, Time::from_secs(secs)).map(|(shard, _)| shard);
        assert_eq!([wanted(200), wanted(701)], [Some(ShardId(4)), Some(ShardId(1))]);
    }

    #[test]
    fn loads_are_those_since_the_last_comparison() {
        let mut moves = Moves::new(2);
        let seconds = |busy: [u64; 2]| busy.map(|secs| secs * 1_000_000_000).to_vec();
        assert_eq!(moves.loads(seconds([5, 0]), Time::from_secs(10)), Some(vec![0.5, 0.0]));
        assert_eq!(moves.loads(seconds([6, 0]), Time::from_secs(15)), None);
        assert_eq!(moves.loads(seconds([15, 5]), Time::from_secs(30)), Some(vec![0.5, 0.25]));
    }
}
