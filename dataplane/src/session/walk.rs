//! Listing, counting and ending sessions and mappings, in bounded steps between bursts.
//!
//! A [`Walk`] goes through a worker's shards, 32 records at a time. The control thread sends it ([`ToWorker::Walk`]), the
//! worker takes it one step further and sends it back ([`FromWorker::Walked`]); so nobody waits for a table of a million
//! sessions, and the worker allocates nothing: rows go into memory that the walk brought along. What lives all the way
//! through is met once; what comes or goes meanwhile may or may not be.
//!
//! [`ToWorker::Walk`]: crate::message::ToWorker::Walk
//! [`FromWorker::Walked`]: crate::message::FromWorker::Walked

use std::time::Duration;

use super::slab::CHUNK;
use super::{Context, Counts, Mapping, Session, Shard, Tuple4};
use crate::counters::SessionClass;
use crate::plan::Plan;
use crate::pool::Proto;
use crate::steer::ShardId;
use crate::trace::RuleRef;

/// Chunks of 32 records whose records are looked at in one step, and all that are passed.
const CHUNKS: usize = 4;
const PLACES: usize = 64;

/// The rows that one step can bring.
pub const STEP: usize = CHUNKS * CHUNK;

/// What a walk does with the records that its filter fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sessions are put into [`Walk::sessions`].
    ListSessions,
    /// Mappings are put into [`Walk::mappings`].
    ListMappings,
    /// Sessions are counted in [`Walk::met`].
    CountSessions,
    /// Sessions are ended, and counted in [`Walk::met`].
    EndSessions,
}

/// IPv4 addresses of one prefix, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix4 {
    /// The address, its host bits zero.
    pub address: u32,
    /// A bit for each bit of the prefix.
    pub mask: u32,
}

impl Prefix4 {
    /// Whether `address` is in it.
    #[must_use]
    pub const fn contains(&self, address: u32) -> bool {
        address & self.mask == self.address
    }
}

/// Which records. What is none fits all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this protocol.
    pub proto: Option<Proto>,
    /// With an inside address in this prefix.
    pub inside: Option<Prefix4>,
    /// With an external address in this prefix.
    pub external: Option<Prefix4>,
    /// With this external port or identifier.
    pub external_port: Option<u16>,
    /// With a remote address in this prefix. Mappings have none, and do not fit.
    pub remote: Option<Prefix4>,
    /// Made by this rule.
    pub rule: Option<RuleRef>,
}

/// A session in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The shard that it is in.
    pub shard: ShardId,
    /// Its protocol.
    pub proto: Proto,
    /// What it is counted under.
    pub class: SessionClass,
    /// An outbound packet as it looks inside.
    pub inside: Tuple4,
    /// An outbound packet as it looks outside.
    pub outside: Tuple4,
    /// Whether the inside end opened it.
    pub opened_inside: bool,
    /// The rule that made it.
    pub rule: RuleRef,
    /// How long it lasts without a packet.
    pub remaining: Duration,
    /// What it has carried, if that is counted.
    pub counts: Option<Counts>,
}

/// A mapping in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingRow {
    /// The shard that it is in.
    pub shard: ShardId,
    /// Its protocol.
    pub proto: Proto,
    /// Inside address, host order.
    pub inside: u32,
    /// Inside port or identifier.
    pub inside_port: u16,
    /// External address, host order.
    pub external: u32,
    /// External port or identifier.
    pub external_port: u16,
    /// Its sessions now. None: it is held down.
    pub sessions: u32,
    /// The rule that made it.
    pub rule: RuleRef,
}

/// A walk, and how far it is.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Whose it is, for the control thread.
    pub id: u64,
    /// What is done.
    pub action: Action,
    /// With which records.
    pub filter: Filter,
    /// The sessions that the last step brought.
    pub sessions: Vec<SessionRow>,
    /// The mappings that the last step brought.
    pub mappings: Vec<MappingRow>,
    /// How many records the filter has fitted so far.
    pub met: u64,
    /// Whether it is at its end.
    pub done: bool,
    /// Where it goes on: the shard, and the chunk there.
    at: (usize, usize),
}

impl Walk {
    /// A walk at its beginning, with room for the rows of a step.
    #[must_use]
    pub fn new(id: u64, action: Action, filter: Filter) -> Self {
        let room = |is: Action| if action == is { STEP } else { 0 };
        Walk {
            id,
            action,
            filter,
            sessions: Vec::with_capacity(room(Action::ListSessions)),
            mappings: Vec::with_capacity(room(Action::ListMappings)),
            met: 0,
            done: false,
            at: (0, 0),
        }
    }
}

impl Filter {
    /// Whether it fits a session.
    #[must_use]
    pub fn fits(&self, session: &Session) -> bool {
        self.proto.is_none_or(|proto| proto == session.proto)
            && self.inside.is_none_or(|prefix| prefix.contains(session.inside().source))
            && self.external.is_none_or(|prefix| prefix.contains(session.outside().source))
            && self.external_port.is_none_or(|port| port == session.outside().source_port)
            && self.remote.is_none_or(|prefix| prefix.contains(session.outside().destination))
            && self.rule.is_none_or(|rule| rule == session.rule())
    }

    /// Whether it fits a mapping, whose external address (host order) is `external`.
    #[must_use]
    pub fn fits_mapping(&self, mapping: &Mapping, external: u32) -> bool {
        self.remote.is_none()
            && self.proto.is_none_or(|proto| proto == mapping.proto)
            && self.inside.is_none_or(|prefix| prefix.contains(mapping.inside))
            && self.external.is_none_or(|prefix| prefix.contains(external))
            && self.external_port.is_none_or(|port| port == mapping.external_port)
            && self.rule.is_none_or(|rule| rule == RuleRef::Nat44(mapping.rule))
    }
}

impl Walk {
    /// Forgets the rows of the last step, for the next one.
    pub fn begin_step(&mut self) {
        self.sessions.clear();
        self.mappings.clear();
    }

    /// The shard that is next; none at the end.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.at.0
    }

    /// Takes it through one shard, as far as `budget` allows. True: that shard is done.
    pub(crate) fn through(&mut self, shard: &mut Shard, context: &mut Context, budget: &mut Budget) -> bool {
        while budget.chunks > 0 && budget.places > 0 {
            let ids = match self.action {
                Action::ListMappings => shard.mappings.ids_in(self.at.1).map(Ids::Mappings),
                _ => shard.flows.records().ids_in(self.at.1).map(Ids::Sessions),
            };
            let Some(ids) = ids else {
                self.at = (self.at.0 + 1, 0);
                return true;
            };
            budget.places -= 1;
            self.at.1 += 1;
            let before = budget.records;
            match ids {
                Ids::Sessions(ids) => ids.for_each(|id| self.meet_session(shard, context, id, budget)),
                Ids::Mappings(ids) => ids.for_each(|id| self.meet_mapping(shard, context.plan, id, budget)),
            }
            budget.chunks -= usize::from(budget.records > before);
        }
        false
    }

    fn meet_session(&mut self, shard: &mut Shard, context: &mut Context, id: u32, budget: &mut Budget) {
        budget.records += 1;
        let Some(session) = shard.flows.records().get(id) else { return };
        // One whose time is over is gone, but for its memory.
        if session.deadline <= context.now || !self.filter.fits(session) {
            return;
        }
        self.met += 1;
        match self.action {
            Action::ListSessions => self.sessions.push(SessionRow {
                shard: shard.id,
                proto: session.proto,
                class: session.class,
                inside: session.inside(),
                outside: session.outside(),
                opened_inside: session.opened_inside(),
                rule: session.rule(),
                remaining: session.deadline.since(context.now),
                counts: shard.flows.records().extra(id).copied(),
            }),
            Action::EndSessions => {
                context.counters.session_flushes.add(1);
                shard.remove_session(context, id);
            }
            Action::CountSessions | Action::ListMappings => {}
        }
    }

    fn meet_mapping(&mut self, shard: &Shard, plan: &Plan, id: u32, budget: &mut Budget) {
        budget.records += 1;
        let Some(mapping) = shard.mappings.get(id) else { return };
        let external = plan.externals.get(usize::from(mapping.external)).map_or(0, |external| external.address);
        if !self.filter.fits_mapping(mapping, external) {
            return;
        }
        self.met += 1;
        self.mappings.push(MappingRow {
            shard: shard.id,
            proto: mapping.proto,
            inside: mapping.inside,
            inside_port: mapping.inside_port,
            external,
            external_port: mapping.external_port,
            sessions: mapping.sessions,
            rule: RuleRef::Nat44(mapping.rule),
        });
    }
}

/// The ids in a chunk of one of the tables.
enum Ids<S, M> {
    Sessions(S),
    Mappings(M),
}

/// What is left of the work that one step may do.
#[derive(Debug)]
pub(crate) struct Budget {
    chunks: usize,
    places: usize,
    records: usize,
}

impl Budget {
    /// That of a whole step.
    pub(crate) const fn step() -> Self {
        Budget { chunks: CHUNKS, places: PLACES, records: 0 }
    }

    /// Whether there is none.
    pub(crate) const fn is_spent(&self) -> bool {
        self.chunks == 0 || self.places == 0
    }
}
