//! A worker's thread: the poll loop on a core of its own.

use std::hint;
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use dataplane::counters::Counters;
use dataplane::dpdk::{Eal, Mbuf, Mempool, Queue, WorkerThread, cycles, cycles_per_second};
use dataplane::engine::Engine;
use dataplane::message::{FromWorker, ToWorker};
use dataplane::steer::hand_over::Links;
use dataplane::worker::{Access, Worker};
use tracing::info;

use super::{Backlog, Clock, MESSAGES_MAX, RunError};
use crate::config::Poll;

/// Empty polls after which an adaptive worker yields, and after which it sleeps.
const SPINS: u32 = 64;
const YIELDS: u32 = 192;

/// The first sleep, and the longest: with what the kernel adds, below 1 ms.
const SLEEP_MIN: Duration = Duration::from_micros(20);
const SLEEP_MAX: Duration = Duration::from_micros(500);

/// Messages kept for a worker that does not take them; beyond, frames and packets of the host are lost, as on any link.
const BACKLOG_MAX: usize = 8192;

/// What a worker does when there was nothing to do.
#[derive(Debug)]
pub(super) struct Backoff {
    poll: Poll,
    empty: u32,
}

impl Backoff {
    pub(super) fn new(poll: Poll) -> Self {
        Backoff { poll, empty: 0 }
    }

    /// There was something to do.
    fn reset(&mut self) {
        self.empty = 0;
    }

    /// How long to sleep after one more empty poll; none to go on at once.
    fn next(&mut self) -> Option<Duration> {
        if self.poll == Poll::Busy {
            return None;
        }
        self.empty = self.empty.saturating_add(1);
        let sleeps = self.empty.checked_sub(SPINS + YIELDS)?;
        Some((SLEEP_MIN * (1 << sleeps.min(10))).min(SLEEP_MAX))
    }

    fn wait(&mut self) {
        match self.next() {
            Some(sleep) => thread::sleep(sleep),
            None if self.empty > SPINS => thread::yield_now(),
            None => hint::spin_loop(),
        }
    }
}

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) core: u16,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Mempool,
    inbox: Sender<ToWorker>,
    backlog: Backlog,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a worker and waits until it polls.
    #[expect(clippy::too_many_arguments, reason = "all that a worker owns, given once")]
    pub(super) fn start(
        eal: Eal,
        core: u16,
        links: Links<Mbuf>,
        engine: Engine<Mbuf>,
        access: Vec<Access<Queue>>,
        pool: Mempool,
        outbox: Sender<FromWorker<Mbuf>>,
        mut backoff: Backoff,
        clock: Clock,
    ) -> Result<Self, RunError> {
        let (inbox, messages) = bounded(MESSAGES_MAX);
        let (started, starting) = bounded(1);
        let counters = Arc::clone(engine.counters());
        counters.cycles_per_second.add(cycles_per_second(eal));
        let mut worker = Worker::among(links, engine, access, pool.clone(), messages, outbox);
        let poll = if backoff.poll == Poll::Busy { "busy" } else { "adaptive" };
        info!(core, poll, buffers = pool.size(), "worker");
        let work = move || {
            let _guard = AbortOnPanic;
            let registered = WorkerThread::enter(eal, usize::from(core));
            let running = registered.is_ok();
            // The control thread waits for this.
            let _ = started.send(registered.as_ref().map(|_| ()).map_err(Clone::clone));
            if running {
                work(&mut worker, &mut backoff, clock);
            }
        };
        let spawned = thread::Builder::new().name(format!("worker-{core}")).spawn(work);
        let thread = spawned.map_err(|error| RunError::System { what: "a worker's thread", error })?;
        let running = Running { core, counters, pool, inbox, backlog: Backlog::new(), thread: Some(thread) };
        starting.recv().map_err(|_| RunError::WorkerLost(core))??;
        Ok(running)
    }

    /// Gives the worker a message, now or as soon as it has room.
    pub(super) fn send(&mut self, message: ToWorker) {
        if self.backlog.len() >= BACKLOG_MAX && matches!(message, ToWorker::Frame { .. } | ToWorker::Packet { .. }) {
            return;
        }
        self.backlog.push_back(message);
        self.flush();
    }

    /// Gives the worker what could not be given before.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.backlog.pop_front() {
            match self.inbox.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => return self.backlog.push_front(message),
                // It was told to stop.
                Err(TrySendError::Disconnected(_)) => return self.backlog.clear(),
            }
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Tells it to stop, and waits until it has.
    pub(super) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // What waits is of no use any more; a full inbox is emptied within a few polls.
        self.backlog.clear();
        let _ = self.inbox.send(ToWorker::Stop);
        // There is no other way for it to end: a panic ends the process.
        let _ = thread.join();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends the process when its thread panics, before anything that the worker owns is dropped. What the panic has to say is out
/// by then. A gateway that has lost a worker, and with it the state of its flows, is better started anew.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

/// The loop. Of the cycles that a poll takes, those of one with packets are the worker's load.
fn work(worker: &mut Worker<Queue, Mempool>, backoff: &mut Backoff, clock: Clock) {
    let counters = Arc::clone(worker.counters());
    let mut before = cycles();
    loop {
        let poll = worker.poll_once(clock.now());
        let after = cycles();
        counters.poll_cycles.add(after.wrapping_sub(before));
        if poll.received + poll.taken_over > 0 {
            counters.busy_cycles.add(after.wrapping_sub(before));
        }
        if poll.stop {
            return;
        }
        if poll.received + poll.taken_over + poll.messages == 0 && !poll.more {
            backoff.wait();
            before = cycles();
        } else {
            backoff.reset();
            before = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn adaptive_polling_sleeps_longer_and_longer_but_below_a_millisecond() {
        let mut backoff = Backoff::new(Poll::Adaptive);
        let waits: Vec<_> = (0..2 * (SPINS + YIELDS)).map(|_| backoff.next()).collect();
        let (awake, asleep) = waits.split_at((SPINS + YIELDS - 1) as usize);
        assert!(awake.iter().all(Option::is_none));
        assert!(asleep.is_sorted() && asleep[0] == Some(SLEEP_MIN) && asleep.last() == Some(&Some(SLEEP_MAX)));
        assert!(SLEEP_MAX < Duration::from_millis(1));
        backoff.reset();
        assert_eq!(backoff.next(), None);
    }

    /// Runs itself again to panic there.
    #[test]
    fn a_panic_in_a_worker_ends_the_process() {
        const AGAIN: &str = "TURNPIKE_TEST_PANIC";
        if std::env::var_os(AGAIN).is_some() {
            let worker = thread::Builder::new().name("worker-7".to_owned()).spawn(|| {
                let _guard = AbortOnPanic;
                panic!("a fault that was never thought of");
            });
            let _ = worker.map(JoinHandle::join);
            process::exit(0);
        }
        let name = "run::worker::tests::a_panic_in_a_worker_ends_the_process";
        let mut again = process::Command::new(std::env::current_exe().expect("a test has a file"));
        let done = again.args(["--exact", name, "--nocapture"]).env(AGAIN, "1").output().expect("it runs");
        assert_eq!(done.status.signal(), Some(6), "SIGABRT: {done:?}");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("worker-7") && said.contains("a fault that was never thought of"), "{said}");
    }

    #[test]
    fn busy_polling_never_sleeps() {
        let mut backoff = Backoff::new(Poll::Busy);
        assert!((0..100_000).all(|_| backoff.next().is_none()));
    }
}
