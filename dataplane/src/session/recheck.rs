//! Sessions and mappings under a new configuration: which go on, and which end.
//!
//! A session remembers the epoch in which it was checked: each plan that a worker is given begins one. When another plan has come, it is checked
//! again on its next packet, and a bounded sweep does the rest, after which nothing refers to what the new plan left out.
//!
//! A session goes on if its packets would be translated by the same rule to the same external address and port. So it
//! ends when its rule is gone, covers it no more or comes later than another that covers it, when the rule has another
//! pool, and when its address or port now belongs to something else. An address that merely left its pool is drained: what
//! is mapped to it goes on.

use super::{Context, Mapping, Session, Shard, idle_time};
use crate::plan::{Filtering, Plan};
use crate::policy::Translation;
use crate::route::neighbour::Hop;
use crate::trace::RuleRef;

/// Chunks of 32 records that one step of a sweep looks at, where there are no packets to be kept waiting.
pub const CHUNKS: usize = 4;

/// How far a sweep is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    /// The shard.
    pub shard: usize,
    /// Its sessions are done, and the mappings come.
    mappings: bool,
    /// The chunk.
    place: usize,
}

/// Whether a mapping's port is still one that its pool gives out, or gave out and now drains.
pub fn keeps(plan: &Plan, mapping: &Mapping) -> bool {
    let Some(external) = plan.externals.get(usize::from(mapping.external)) else { return false };
    let Some(pool) = external.pool.filter(|pool| pool.0 == mapping.pool) else { return false };
    let Some(pool) = plan.spec.pools.get(usize::from(pool.0)) else { return false };
    let block = mapping.external_port / 64;
    !external.static_blocks.contains(&block) && (external.draining || pool.ports.contains(&mapping.external_port))
}

/// Whether a mapping is one that its rule would make, so that strangers may come in by it as the rule's filtering says.
#[must_use]
pub fn allows_mapping(plan: &Plan, mapping: &Mapping) -> bool {
    let rule = plan.spec.nat44.get(usize::from(mapping.rule));
    rule.is_some_and(|rule| {
        rule.pool.0 == mapping.pool && plan.policy.covers_source(mapping.rule, rule.from, rule.to, mapping.inside)
    }) && keeps(plan, mapping)
}

/// Whether the plan would translate the session's packets as the session does.
fn allows(plan: &Plan, session: &Session, mapping: Option<&Mapping>) -> bool {
    let (from, to) = (session.inside_zone(), session.outside_zone());
    let (inside, outside) = (session.inside(), session.outside());
    if plan.prefixes.covers(from, to, inside.source) {
        return false;
    }
    match session.rule() {
        RuleRef::None | RuleRef::Prefix(_) | RuleRef::Crossing(_) => false,
        RuleRef::Forward(_) | RuleRef::Static(_) => {
            let external = plan.external(outside.source).map(|(_, external)| external.static_nat);
            external
                .and_then(|whole| plan.policy.static_in(outside.source, whole, session.proto, outside.source_port))
                .is_some_and(|entry| {
                    entry.rule == session.rule()
                        && (entry.inside, entry.inside_port) == (inside.source, inside.source_port)
                        && (entry.inside_zone, entry.outside_zone) == (from, to)
                })
        }
        RuleRef::Nat44(rule) => {
            let covered = if session.opened_inside() {
                let port = inside.source_port;
                let found =
                    plan.policy.translation(from, to, inside.source, Some(session.proto), port, inside.destination);
                matches!(found, Some(Translation::Nat44(found)) if found == rule)
            } else {
                // A mapping lets strangers in that its rule's destinations leave out.
                plan.policy.covers_source(rule, from, to, inside.source)
            };
            let pool = plan.spec.nat44.get(usize::from(rule)).map(|rule| rule.pool.0);
            covered && mapping.is_some_and(|mapping| pool == Some(mapping.pool) && keeps(plan, mapping))
        }
    }
}

impl Shard {
    /// Checks a session against the plan in force. False: the plan does not allow it, and it has ended.
    pub fn recheck(&mut self, context: &mut Context, id: u32) -> bool {
        let Some(session) = self.flows.records().get(id).copied() else { return false };
        if !allows(context.plan, &session, self.mappings.get(session.mapping)) {
            context.counters.session_reload_ends.add(1);
            self.remove_session(context, id);
            return false;
        }
        if let Some(session) = self.flows.records_mut().get_mut(id) {
            session.epoch = context.epoch;
            session.hops = [Hop::UNKNOWN; 2];
            let timers = &context.plan.spec.timers;
            let idle = idle_time(timers, session.class, session.inside().destination_port);
            session.set_own_idle(idle != timers.udp);
        }
        let filtering = match session.rule() {
            RuleRef::None | RuleRef::Prefix(_) | RuleRef::Crossing(_) => None,
            RuleRef::Nat44(rule) => {
                self.reuse_mapping(context, session.mapping, rule);
                context.plan.spec.nat44.get(usize::from(rule)).map(|rule| rule.filtering.of(session.proto))
            }
            RuleRef::Forward(index) => context.plan.spec.forwards.get(usize::from(index)).map(|it| it.filtering),
            RuleRef::Static(index) => context.plan.spec.static_nat.get(usize::from(index)).map(|it| it.filtering),
        };
        // Its remote address may come by any port from now on. Without room for that it may not, and the session goes on.
        if filtering == Some(Filtering::AddressDependent) && !session.has_permission() {
            let held = self.hold_permission(context, &session);
            if let Some(session) = self.flows.records_mut().get_mut(id) {
                session.set_permission(held);
            }
        }
        true
    }

    /// A flow that `rule` covers is to use a mapping that exists. The mapping's own rule stays, while it still covers it;
    /// otherwise it becomes this one's. False: the mapping's address or port is no longer its pool's.
    pub fn reuse_mapping(&mut self, context: &Context, id: u32, rule: u16) -> bool {
        let Some(mapping) = self.mappings.get_mut(id).filter(|mapping| keeps(context.plan, mapping)) else {
            return false;
        };
        if !allows_mapping(context.plan, mapping) {
            mapping.rule = rule;
        }
        if let Some(spec) = context.plan.spec.nat44.get(usize::from(mapping.rule)) {
            mapping.filtering = spec.filtering.of(mapping.proto);
        }
        true
    }

    /// Takes a sweep one step further through this shard. True: the shard is done.
    pub(crate) fn sweep(&mut self, context: &mut Context, sweep: &mut Sweep, chunks: usize) -> bool {
        for _ in 0..chunks {
            let place = sweep.place;
            sweep.place += 1;
            if !sweep.mappings {
                match self.flows.records().ids_in(place) {
                    Some(ids) => ids.for_each(|id| {
                        if self.flows.records().get(id).is_some_and(|session| session.epoch != context.epoch) {
                            self.recheck(context, id);
                        }
                    }),
                    None => (sweep.mappings, sweep.place) = (true, 0),
                }
            } else {
                match self.mappings.ids_in(place) {
                    Some(ids) => ids.for_each(|id| self.recheck_held(context, id)),
                    None => {
                        *sweep = Sweep { shard: sweep.shard + 1, ..Sweep::default() };
                        return true;
                    }
                }
            }
        }
        false
    }

    /// A mapping that only holds its port down does not hold it against a plan that gives the port to something else.
    fn recheck_held(&mut self, context: &mut Context, id: u32) {
        let held = |mapping: &Mapping| mapping.sessions == 0 && !keeps(context.plan, mapping);
        let Some(mapping) = self.mappings.get(id).copied().filter(held) else { return };
        self.hold_downs.disarm(&mut self.mappings, id);
        context.counters.mappings_held.sub(1);
        self.free_mapping(context, id, &mapping);
    }
}
