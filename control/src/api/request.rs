//! What the server asks of the control thread. Each request is a small, bounded piece of work there: it hands out what it
//! has, passes on one step of a walk, and leaves everything that takes time to the asking side.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dataplane::counters::Counters;
use dataplane::plan::{InterfaceId, IpPrefix, Plan};
use dataplane::pool::Leases;
use dataplane::session::walk::Walk;
use dataplane::steer::{ShardId, ShardMap, WorkerId};
use dataplane::time::Time;
use tokio::sync::oneshot;

use super::types::{Moved, ReloadReport};
use crate::host::Neighbour;
use crate::metrics::Sample;

/// Where the answer goes. Giving it never waits; if nobody wants it any more, it is lost.
pub type Answer<T> = oneshot::Sender<T>;

/// The most neighbours of one answer.
pub const NEIGHBOURS: usize = 256;

/// A request to the control thread.
#[derive(Debug)]
pub enum Request {
    /// What there is.
    View(Answer<View>),
    /// The next neighbours, [`NEIGHBOURS`] at most.
    Neighbours {
        /// Those after this one; from the first one on if none.
        after: Option<(InterfaceId, IpAddr)>,
        /// Where they go.
        answer: Answer<Neighbours>,
    },
    /// Take a walk a step further.
    Walk {
        /// Through the shards of this worker, by number.
        worker: usize,
        /// The walk. Its id is the control thread's to give.
        walk: Box<Walk>,
        /// Where it comes back to. None: there is no such worker.
        answer: Answer<Option<Walked>>,
    },
    /// Give a shard to another worker.
    MoveShard {
        /// The shard.
        shard: ShardId,
        /// The worker, by number.
        to: WorkerId,
        /// Where the report goes when it has arrived, or why it can't go.
        answer: Answer<Result<Moved, String>>,
    },
    /// Give a rule that exchanges prefixes another outside prefix.
    Renumber {
        /// The rule, with its section: `nptv6.home`.
        rule: String,
        /// The prefix. None: that of the files again.
        outside: Option<IpPrefix>,
        /// Where the report goes, or why there is none.
        answer: Answer<Result<ReloadReport, String>>,
    },
    /// Read the configuration again.
    Reload {
        /// Say what would change, and change nothing.
        check_only: bool,
        /// Where the report goes, or why there is none.
        answer: Answer<Result<ReloadReport, String>>,
    },
}

/// What the gateway consists of, for reading: everything in it may be read by any thread.
#[derive(Clone, Debug)]
pub struct View {
    /// The configuration's files.
    pub files: Vec<PathBuf>,
    /// Which of the rules that exchange prefixes have an outside prefix that was set at run time.
    pub renumbered: Vec<bool>,
    /// How long the process has run.
    pub uptime: Duration,
    /// Whether packets are forwarded.
    pub ready: bool,
    /// The plan in use.
    pub plan: Arc<Plan>,
    /// The leases of its external addresses.
    pub leases: Arc<Leases>,
    /// Which worker owns which shard.
    pub map: Arc<ShardMap>,
    /// The workers' cores, and what they count.
    pub workers: Vec<(u16, Arc<Counters>)>,
    /// What was last seen of the devices, less than a second or so ago.
    pub sample: Sample,
}

/// Some of the neighbours, in order.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// The plan that their interfaces are numbered by.
    pub plan: Arc<Plan>,
    /// When they were looked at.
    pub now: Time,
    /// They.
    pub neighbours: Vec<Neighbour>,
}

/// A walk that came back.
#[derive(Clone, Debug)]
pub struct Walked {
    /// The plan that its rows are numbered by.
    pub plan: Arc<Plan>,
    /// It, with the rows of the step.
    pub walk: Box<Walk>,
}
