//! The sessions of a shard: what is remembered of each flow, how it is found, and when it ends.
//!
//! A [`Shard`] holds everything that the flows of its inside addresses need: their sessions ([`record`], [`tcp`]) in a
//! [`slab`], found by both of their sides through one [`index`], ended by a timer [`wheel`]; the mappings and subscribers
//! above them; and its share of the external ports. It belongs to one worker, whose [`Arenas`] lend it memory.
//!
//! A session past its deadline is never used: the look-up's caller compares. Reclaiming its memory comes later, in
//! bounded work per tick.

pub mod bits;
pub mod ends;
pub mod flows;
pub mod index;
#[allow(unsafe_code)]
pub mod memory;
#[allow(unsafe_code)]
pub mod prefetch;
pub mod recheck;
pub mod record;
pub mod slab;
#[allow(unsafe_code)]
mod tags;
pub mod tcp;
pub mod walk;
pub mod wheel;

pub use ends::FlowKey;
pub use flows::HomeBucket;
pub use record::{Counts, Direction, Mapping, NONE, Permission, Session, Subscriber, Tuple4};

use std::hash::Hasher;
use std::time::Duration;

use arrayvec::ArrayVec;
use siphasher::sip::SipHasher13;

use crate::counters::{Counters, Drop, SessionClass};
use crate::plan::{Filtering, Limits, Plan, Timers};
use crate::pool::{Leases, Ports, Proto, Want};
use crate::steer::{SHARDS, ShardId, ShardSet};
use crate::time::Time;
use ends::Ends44;
use flows::{FlowArena, Flows};
use index::{BucketArena, Index};
use slab::{Slab, SlabArena};
use wheel::Wheel;

/// Sessions and held-down mappings that one poll looks at. Each may wait for memory ten times; so many take no longer than a
/// few bursts of packets.
const EXPIRE_BUDGET: usize = 16;

/// The kinds of records, beside sessions, that an index entry points to: the upper three bits of its value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A permission, by its inside endpoint and remote address.
    Permission,
    /// A mapping, by its inside endpoint and pool.
    MappingInside,
    /// A mapping, by its external endpoint.
    MappingOutside,
    /// A subscriber, by its address and pool.
    Subscriber,
}

const ID_BITS: u32 = 29;
const ID_MASK: u32 = (1 << ID_BITS) - 1;

impl Kind {
    #[inline]
    fn value(self, id: u32) -> u32 {
        (self as u32) << ID_BITS | id
    }

    #[inline]
    fn id(self, value: u32) -> Option<u32> {
        (value >> ID_BITS == self as u32).then_some(value & ID_MASK)
    }
}

/// The key of the table hashes and of the random choices.
#[derive(Clone, Copy, Debug)]
pub struct Secret {
    bytes: [u8; 16],
    words: [u64; 2],
}

impl Secret {
    /// From the plan's secret.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        let word = u128::from_le_bytes(bytes);
        #[allow(clippy::cast_possible_truncation)] // the two halves
        let words = [word as u64, (word >> 64) as u64];
        Secret { bytes, words }
    }

    /// Hash of a key of two words, for the index: a folded multiplication, twice.
    #[inline]
    fn index_hash(&self, a: u64, b: u64) -> u32 {
        let once = folded(a ^ self.words[0], b ^ self.words[1]);
        let twice = folded(once ^ self.words[1], 0x9e37_79b9_7f4a_7c15);
        #[allow(clippy::cast_possible_truncation)] // half of it is enough
        {
            (twice ^ twice >> 32) as u32
        }
    }

    /// The same of five words.
    #[inline]
    pub(super) fn long_hash(&self, words: [u64; 4], last: u64) -> u32 {
        let [a, b, c, d] = words;
        let first = folded(a ^ self.words[0], b ^ self.words[1]);
        self.index_hash(first ^ folded(c ^ self.words[1], d ^ first), last)
    }

    /// Hash of what a packet's session is found by.
    #[inline]
    #[must_use]
    pub fn flow_hash(&self, key: FlowKey, proto: Proto) -> u32 {
        self.index_hash(key.addresses, u64::from(key.ports) | (proto as u64) << 32)
    }

    /// Hash of an IPv6 address.
    #[must_use]
    pub fn address_hash(&self, address: u128) -> u32 {
        #[allow(clippy::cast_possible_truncation)] // the two halves
        self.index_hash((address >> 64) as u64, address as u64)
    }

    fn endpoint_hash(&self, kind: Kind, address: u32, port: u16, proto: Proto, extra: u32) -> u32 {
        let high = u64::from(address) << 32 | u64::from(extra);
        self.index_hash(high, u64::from(port) << 16 | (proto as u64) << 8 | kind as u64)
    }

    /// A random choice that nobody outside can guess and that every run with the same secret repeats (design rule 1).
    fn choice(&self, shard: ShardId, inside: u32, port: u16, proto: Proto, attempt: u32) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.bytes);
        hasher.write_u64(u64::from(inside) << 32 | u64::from(attempt));
        hasher.write_u64(u64::from(port) << 16 | (proto as u64) << 8 | u64::from(shard.0));
        hasher.finish()
    }
}

#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[allow(clippy::cast_possible_truncation)] // the two halves
    {
        product as u64 ^ (product >> 64) as u64
    }
}

/// The memory of a worker's shards, all taken at start. Any shard may grow into all of it.
#[derive(Debug)]
pub struct Arenas {
    /// For sessions.
    flows: FlowArena<Ends44>,
    /// For the indexes of everything else.
    other_buckets: BucketArena,
    mappings: SlabArena<Mapping>,
    subscribers: SlabArena<Subscriber>,
    permissions: SlabArena<Permission>,
    sessions_left: u32,
    mappings_left: u32,
}

impl Arenas {
    /// Memory for tables of these sizes.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let (sessions, mappings) = (limits.sessions as usize, limits.mappings as usize);
        Arenas {
            flows: if limits.session_counters { FlowArena::counting(sessions) } else { FlowArena::new(sessions) },
            other_buckets: BucketArena::new(BucketArena::segments_for(sessions + 3 * mappings, SHARDS)),
            mappings: SlabArena::new(SlabArena::<Mapping>::segments_for(mappings, SHARDS)),
            subscribers: SlabArena::new(SlabArena::<Subscriber>::segments_for(mappings, SHARDS)),
            permissions: SlabArena::new(SlabArena::<Permission>::segments_for(sessions, SHARDS)),
            sessions_left: limits.sessions,
            mappings_left: limits.mappings,
        }
    }

    /// Makes room for what all of so many workers have, each as much as this one: moved shards bring their segments along. Call
    /// it before any shard holds one.
    pub fn make_room(&mut self, workers: usize) {
        self.flows.make_room(workers);
        self.other_buckets.make_room(workers * self.other_buckets.free());
        self.mappings.make_room(workers * self.mappings.free());
        self.subscribers.make_room(workers * self.subscribers.free());
        self.permissions.make_room(workers * self.permissions.free());
    }

    /// What the first six figures of [`Arenas::free`] count, and the bytes that each of these segments takes.
    pub const SEGMENTS: [(&'static str, usize); 6] = [
        ("index of the sessions", BucketArena::bytes()),
        ("index of all else", BucketArena::bytes()),
        ("sessions", SlabArena::<Session>::bytes() * slab::RECORDS),
        ("mappings", SlabArena::<Mapping>::bytes() * slab::RECORDS),
        ("subscribers", SlabArena::<Subscriber>::bytes() * slab::RECORDS),
        ("permissions", SlabArena::<Permission>::bytes() * slab::RECORDS),
    ];

    /// Whether no more sessions can be made.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sessions_left == 0
    }

    /// What no shard holds: segments of both kinds of index, of sessions, mappings, subscribers and permissions, and how many
    /// sessions and mappings may still be made.
    #[must_use]
    pub fn free(&self) -> [usize; 8] {
        [
            self.flows.buckets.free(),
            self.other_buckets.free(),
            self.flows.sessions.free(),
            self.mappings.free(),
            self.subscribers.free(),
            self.permissions.free(),
            self.sessions_left as usize,
            self.mappings_left as usize,
        ]
    }
}

/// What the operations of a shard work with, besides the shard itself.
#[derive(Debug)]
pub struct Context<'a> {
    /// The configuration.
    pub plan: &'a Plan,
    /// The external ports.
    pub leases: &'a Leases,
    /// What is counted.
    pub counters: &'a Counters,
    /// The worker's memory.
    pub arenas: &'a mut Arenas,
    /// The key of hashes and choices.
    pub secret: &'a Secret,
    /// The time.
    pub now: Time,
    /// The engine's epoch: a session of another one is checked against the plan before it is used.
    pub epoch: u32,
}

/// One of the 64 parts of the state.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    /// The sessions. Apart from all else, so that what hits touch is as dense as can be.
    flows: Flows<Ends44>,
    /// Mappings, subscribers and permissions.
    index: Index,
    mappings: Slab<Mapping>,
    subscribers: Slab<Subscriber>,
    permissions: Slab<Permission>,
    hold_downs: Wheel,
    ports: Ports,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(id: ShardId, plan: &Plan, now: Time) -> Self {
        let limits = &plan.spec.limits;
        let (sessions, mappings) = (limits.sessions as usize, limits.mappings as usize);
        Shard {
            id,
            flows: Flows::new(sessions, now),
            index: Index::new(BucketArena::segments_for(sessions + 3 * mappings, 1)),
            mappings: Slab::new(SlabArena::<Mapping>::segments_for(mappings, 1)),
            subscribers: Slab::new(SlabArena::<Subscriber>::segments_for(mappings, 1)),
            permissions: Slab::new(SlabArena::<Permission>::segments_for(sessions, 1)),
            hold_downs: Wheel::new(now),
            ports: Ports::new(id, plan.capacity),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// External ports are taken first from the blocks that are home to these shards; none: from any.
    pub fn prefer(&mut self, near: Option<ShardSet>) {
        self.ports.prefer(near);
    }

    /// The session with this number, which [`Shard::find`] gave.
    #[inline]
    pub fn session_mut(&mut self, id: u32) -> Option<&mut Session> {
        self.flows.records_mut().get_mut(id)
    }

    /// The session with this number.
    #[inline]
    #[must_use]
    pub fn session(&self, id: u32) -> Option<&Session> {
        self.flows.records().get(id)
    }

    /// The mapping with this number.
    #[must_use]
    pub fn mapping(&self, id: u32) -> Option<&Mapping> {
        self.mappings.get(id)
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.flows.records().iter().map(|(_, session)| session)
    }

    /// What each of them has carried, if that is counted.
    pub fn counts(&self) -> impl Iterator<Item = &Counts> {
        let records = self.flows.records();
        records.iter().filter_map(|(id, _)| records.extra(id))
    }

    /// All mappings, held-down ones included.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter().map(|(_, mapping)| mapping)
    }

    /// Fetches the index bucket that a look-up with this hash will read first.
    #[inline(always)]
    pub fn home_bucket(&self, hash: u32) -> HomeBucket<'_> {
        self.flows.home_bucket(hash)
    }

    /// Fetches a session, if there is one with this number.
    #[inline(always)]
    pub fn prefetch_session(&self, id: u32) {
        self.flows.records().prefetch(id);
    }

    /// Fetches the second bucket of those in which a look-up with this hash may end. False: there is none.
    pub fn prefetch_overflow(&self, hash: u32) -> bool {
        self.flows.prefetch_overflow(hash)
    }

    /// The session that it will probably find there, fetched.
    pub fn guess_overflow(&self, hash: u32) -> Option<u32> {
        self.flows.guess_overflow(hash)
    }

    /// Fetches what a new session from inside will touch first: the buckets in which the mapping of its endpoint and its
    /// subscriber would be found, and the places that both records will get; of a table that is full, the first alone.
    pub fn prefetch_opening(&self, secret: &Secret, inside: u32, port: u16, proto: Proto, pool: u16, full: bool) {
        let mapping = secret.endpoint_hash(Kind::MappingInside, inside, port, proto, u32::from(pool));
        self.index.prefetch(mapping);
        if full {
            return;
        }
        self.index.prefetch(secret.endpoint_hash(Kind::Subscriber, inside, pool, Proto::Tcp, 0));
        self.flows.records().prefetch_vacant();
        self.mappings.prefetch_vacant();
    }

    /// What is in the place with this number: a session, or nothing that any packet fits.
    #[inline(always)]
    pub fn session_place(&mut self, id: u32) -> Option<&mut Session> {
        self.flows.records_mut().place_mut(id)
    }

    /// Counts a packet of a session, from its IP header on, if packets are counted.
    #[inline]
    pub fn count(&mut self, id: u32, direction: Direction, bytes: usize) {
        self.flows.count(id, direction, bytes);
    }

    /// The session that a packet of this direction belongs to. It may be past its deadline.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u32, direction: Direction, key: FlowKey, proto: Proto) -> Option<u32> {
        self.flows.find(hash, direction, key, proto)
    }

    /// The live mapping of an inside endpoint in a pool.
    #[must_use]
    pub fn mapping_of_inside(&self, secret: &Secret, inside: u32, port: u16, proto: Proto, pool: u16) -> Option<u32> {
        let hash = secret.endpoint_hash(Kind::MappingInside, inside, port, proto, u32::from(pool));
        self.find_mapping(hash, Kind::MappingInside, |mapping| {
            mapping.inside == inside && mapping.inside_port == port && mapping.proto == proto && mapping.pool == pool
        })
    }

    /// The live mapping of an external endpoint; the address by index in the plan.
    #[must_use]
    pub fn mapping_of_external(&self, secret: &Secret, external: u32, port: u16, proto: Proto) -> Option<u32> {
        let hash = secret.endpoint_hash(Kind::MappingOutside, external, port, proto, 0);
        self.find_mapping(hash, Kind::MappingOutside, |mapping| {
            u32::from(mapping.external) == external && mapping.external_port == port && mapping.proto == proto
        })
    }

    fn find_mapping(&self, hash: u32, kind: Kind, is: impl Fn(&Mapping) -> bool) -> Option<u32> {
        let matches = |value| kind.id(value).and_then(|id| self.mappings.get(id)).is_some_and(&is);
        self.index.find(hash, matches).map(|value| value & ID_MASK)
    }

    /// Leave for a remote address to send to an inside endpoint: it has a session there (address-dependent filtering). A
    /// session that has ended counts until it is reclaimed.
    #[must_use]
    pub fn permission(&self, secret: &Secret, inside: u32, port: u16, proto: Proto, remote: u32) -> Option<u32> {
        let hash = secret.endpoint_hash(Kind::Permission, inside, port, proto, remote);
        let matches = |value| {
            Kind::Permission.id(value).and_then(|id| self.permissions.get(id)).is_some_and(|permission| {
                let Permission { inside: address, inside_port, remote: sender, .. } = *permission;
                (address, inside_port, sender) == (inside, port, remote) && permission.proto == proto
            })
        };
        self.index.find(hash, matches).map(|value| value & ID_MASK)
    }

    /// Counts a session under its permission, which is made if there is none. False: there is no room for it.
    fn hold_permission(&mut self, context: &mut Context, session: &Session) -> bool {
        let Tuple4 { source: inside, source_port: inside_port, destination: remote, .. } = session.inside();
        let proto = session.proto;
        let id = match self.permission(context.secret, inside, inside_port, proto, remote) {
            Some(id) => id,
            None => {
                let permission = Permission { inside, remote, inside_port, proto, used: true, sessions: 0 };
                let Some(id) = self.permissions.insert(&mut context.arenas.permissions, permission) else {
                    return false;
                };
                let hash = context.secret.endpoint_hash(Kind::Permission, inside, inside_port, proto, remote);
                if !self.enter(context, hash, Kind::Permission.value(id)) {
                    self.permissions.remove(&mut context.arenas.permissions, id);
                    return false;
                }
                id
            }
        };
        if let Some(permission) = self.permissions.get_mut(id) {
            permission.sessions += 1;
        }
        true
    }

    /// A session has ended: if it is counted under a permission, that may end with it.
    fn leave_permission(&mut self, context: &mut Context, session: &Session) {
        if !session.has_permission() {
            return;
        }
        let Tuple4 { source: inside, source_port: inside_port, destination: remote, .. } = session.inside();
        let proto = session.proto;
        let Some(id) = self.permission(context.secret, inside, inside_port, proto, remote) else { return };
        let Some(permission) = self.permissions.get_mut(id) else { return };
        permission.sessions = permission.sessions.saturating_sub(1);
        if permission.sessions == 0 {
            let hash = context.secret.endpoint_hash(Kind::Permission, inside, inside_port, proto, remote);
            self.index.remove(&mut context.arenas.other_buckets, hash, Kind::Permission.value(id));
            self.permissions.remove(&mut context.arenas.permissions, id);
        }
    }

    /// Makes a mapping for an inside endpoint by a NAT44 rule: pairs the subscriber with an external address, and takes
    /// a port there. It is made for a session that follows: without room for that there is none, and no port is held down
    /// for nothing.
    ///
    /// # Errors
    /// [`Drop::SessionTableFull`], [`Drop::MappingTableFull`], [`Drop::NoPort`].
    pub fn add_mapping(
        &mut self,
        context: &mut Context,
        rule: u16,
        inside: u32,
        port: u16,
        proto: Proto,
    ) -> Result<u32, Drop> {
        let Some(spec) = context.plan.spec.nat44.get(usize::from(rule)) else { return Err(Drop::NoPort) };
        if context.arenas.sessions_left == 0 {
            return Err(Drop::SessionTableFull);
        }
        if context.arenas.mappings_left == 0 {
            return Err(Drop::MappingTableFull);
        }
        let pool = spec.pool.0;
        let pool_spec = context.plan.spec.pools.get(usize::from(pool)).ok_or(Drop::NoPort)?;
        let externals = context.plan.pools.get(usize::from(pool)).ok_or(Drop::NoPort)?;
        let want = Want {
            proto,
            port,
            preserve: spec.port_preservation,
            parity: spec.port_parity,
            range: pool_spec.ports.clone(),
        };
        let known = self.subscriber(context, inside, pool);
        let (external, external_port) = self.take_port(context, externals, known, spec.pooling, inside, &want)?;
        self.index.prefetch(context.secret.endpoint_hash(Kind::MappingOutside, external, external_port, proto, 0));
        let subscriber = match known {
            Some(id) => {
                self.pair_anew(context, id, external);
                Some(id)
            }
            None => {
                let paired = u16::try_from(external).unwrap_or(u16::MAX);
                self.add_subscriber(context, Subscriber { inside, pool, external: paired, mappings: 0, used: true })
            }
        };
        let Some(subscriber) = subscriber else {
            self.ports.release(context.leases, external, proto, external_port);
            return Err(Drop::MappingTableFull);
        };
        let mapping = Mapping {
            deadline: Time::ZERO,
            inside,
            subscriber,
            sessions: 0,
            inside_port: port,
            external_port,
            external: u16::try_from(external).unwrap_or(u16::MAX),
            pool,
            rule,
            proto,
            filtering: spec.filtering.of(proto),
        };
        if let Some(entry) = self.subscribers.get_mut(subscriber) {
            entry.mappings += 1;
        }
        let Some(id) = self.mappings.insert(&mut context.arenas.mappings, mapping) else {
            self.free_port(context, &mapping);
            return Err(Drop::MappingTableFull);
        };
        let [inside, outside] = mapping_entries(context.secret, &mapping).map(|(hash, kind)| (hash, kind.value(id)));
        if !self.enter(context, inside.0, inside.1) || !self.enter(context, outside.0, outside.1) {
            self.forget_mapping(context, id, &mapping);
            self.mappings.remove(&mut context.arenas.mappings, id);
            self.free_port(context, &mapping);
            return Err(Drop::MappingTableFull);
        }
        context.arenas.mappings_left -= 1;
        context.counters.mapping_creations.add(1);
        context.counters.mappings[proto.index()].add(1);
        Ok(id)
    }

    /// The pairing of an inside address in a pool, if it has one.
    fn subscriber(&self, context: &Context, inside: u32, pool: u16) -> Option<u32> {
        let hash = context.secret.endpoint_hash(Kind::Subscriber, inside, pool, Proto::Tcp, 0);
        let matches = |value| {
            Kind::Subscriber
                .id(value)
                .and_then(|id| self.subscribers.get(id))
                .is_some_and(|subscriber| subscriber.inside == inside && subscriber.pool == pool)
        };
        self.index.find(hash, matches).map(|value| value & ID_MASK)
    }

    /// A subscriber whose address has left the pool has got a port at another one: that is its address now.
    fn pair_anew(&mut self, context: &Context, id: u32, external: u32) {
        if let Some(subscriber) = self.subscribers.get_mut(id).filter(|it| !is_paired(context, it)) {
            subscriber.external = u16::try_from(external).unwrap_or(u16::MAX);
        }
    }

    fn add_subscriber(&mut self, context: &mut Context, subscriber: Subscriber) -> Option<u32> {
        let id = self.subscribers.insert(&mut context.arenas.subscribers, subscriber)?;
        let hash = context.secret.endpoint_hash(Kind::Subscriber, subscriber.inside, subscriber.pool, Proto::Tcp, 0);
        if self.enter(context, hash, Kind::Subscriber.value(id)) {
            return Some(id);
        }
        self.subscribers.remove(&mut context.arenas.subscribers, id);
        None
    }

    /// A port at the subscriber's address; a new subscriber is paired with the first address, from a random one on, that
    /// has a port.
    fn take_port(
        &mut self,
        context: &Context,
        externals: &[u32],
        known: Option<u32>,
        pooling: crate::plan::Pooling,
        inside: u32,
        want: &Want,
    ) -> Result<(u32, u16), Drop> {
        let (shard, secret) = (self.id, context.secret);
        let mut at = |external: u32| {
            let random = |attempt| secret.choice(shard, inside, want.port, want.proto, attempt);
            self.ports.allocate(context.leases, external, want, random).map(|port| (external, port))
        };
        let paired = known.and_then(|id| self.subscribers.get(id)).filter(|it| is_paired(context, it));
        if let Some(external) = paired.map(|subscriber| u32::from(subscriber.external)) {
            let found = at(external);
            if found.is_some() || pooling == crate::plan::Pooling::Paired {
                return found.ok_or(Drop::NoPort);
            }
        }
        let first = secret.choice(shard, inside, 0, Proto::Tcp, 0);
        let count = externals.len() as u64;
        let found = (0..count).find_map(|step| {
            let index = usize::try_from((first % count + step) % count).unwrap_or(0);
            externals.get(index).and_then(|&external| at(external))
        });
        found.ok_or(Drop::NoPort)
    }

    /// Adds a session, and counts it with its mapping. `hashes` are those of its keys, outbound and inbound.
    ///
    /// # Errors
    /// [`Drop::SessionTableFull`]; the mapping is then as before.
    pub fn add_session(
        &mut self,
        context: &mut Context,
        mut session: Session,
        hashes: [u32; 2],
        filtering: Filtering,
    ) -> Result<u32, Drop> {
        if context.arenas.sessions_left == 0 {
            return Err(Drop::SessionTableFull);
        }
        if filtering == Filtering::AddressDependent {
            if !self.hold_permission(context, &session) {
                return Err(Drop::SessionTableFull);
            }
            session.set_permission(true);
        }
        let Some(id) = self.flows.insert(&mut context.arenas.flows, session, hashes) else {
            self.leave_permission(context, &session);
            return Err(Drop::SessionTableFull);
        };
        context.arenas.sessions_left -= 1;
        if let Some(mapping) = self.mappings.get_mut(session.mapping) {
            mapping.sessions += 1;
        }
        context.counters.session_creations.add(1);
        context.counters.sessions[session.class as usize].add(1);
        Ok(id)
    }

    /// A session was opened, used, or has changed its state: counts it under its class, and moves its deadline.
    #[inline]
    pub fn refresh(&mut self, counters: &Counters, id: u32, class: SessionClass, deadline: Option<Time>) {
        let Some(session) = self.flows.records_mut().get_mut(id) else { return };
        if class != session.class {
            counters.sessions[session.class as usize].sub(1);
            counters.sessions[class as usize].add(1);
            session.class = class;
        }
        if let Some(deadline) = deadline {
            let sooner = deadline < session.deadline;
            session.deadline = deadline;
            // A later deadline is found out when the timer fires; only a sooner one must be told.
            if sooner {
                self.flows.arm(id, deadline);
            }
        }
    }

    /// Ends a session, and its mapping with its last one.
    pub fn remove_session(&mut self, context: &mut Context, id: u32) {
        let Some(session) = self.flows.remove(&mut context.arenas.flows, context.secret, id) else { return };
        self.leave_permission(context, &session);
        context.arenas.sessions_left += 1;
        context.counters.sessions[session.class as usize].sub(1);
        let Some(mapping) = self.mappings.get_mut(session.mapping) else { return };
        mapping.sessions = mapping.sessions.saturating_sub(1);
        if mapping.sessions == 0 {
            self.end_mapping(context, session.mapping);
        }
    }

    /// A mapping without sessions ends. Its port stays unused for a while, if strangers could know it (RFC 6888 REQ-8;
    /// other filterings are exempt by REQ-8 c).
    fn end_mapping(&mut self, context: &mut Context, id: u32) {
        let hold = context.plan.spec.timers.hold_down;
        let Some(mapping) = self.mappings.get_mut(id) else { return };
        if mapping.filtering != Filtering::EndpointIndependent || hold == Duration::ZERO {
            self.abandon_mapping(context, id);
            return;
        }
        mapping.deadline = context.now + hold;
        let copy = *mapping;
        self.forget_mapping(context, id, &copy);
        context.counters.mappings[copy.proto.index()].sub(1);
        context.counters.mappings_held.add(1);
        self.hold_downs.arm(&mut self.mappings, id, copy.deadline);
    }

    /// A mapping without sessions ends, and its port is free at once: nobody has seen it, or nobody could use it.
    pub fn abandon_mapping(&mut self, context: &mut Context, id: u32) {
        let Some(mapping) = self.mappings.get(id).copied().filter(|mapping| mapping.sessions == 0) else { return };
        self.forget_mapping(context, id, &mapping);
        context.counters.mappings[mapping.proto.index()].sub(1);
        self.free_mapping(context, id, &mapping);
    }

    /// A session lasts until `deadline`, in a mapping that only packets from inside keep alive (RFC 4787 REQ-6): one of
    /// them moves the mapping's end; any other's session ends no later than the mapping. Returns the session's deadline.
    pub fn keep_mapping(&mut self, id: u32, from_inside: bool, deadline: Time) -> Time {
        let Some(mapping) = self.mappings.get_mut(id) else { return deadline };
        if !from_inside {
            return deadline.min(mapping.deadline);
        }
        mapping.deadline = mapping.deadline.max(deadline);
        deadline
    }

    fn forget_mapping(&mut self, context: &mut Context, id: u32, mapping: &Mapping) {
        for (hash, kind) in mapping_entries(context.secret, mapping) {
            self.index.remove(&mut context.arenas.other_buckets, hash, kind.value(id));
        }
    }

    fn free_mapping(&mut self, context: &mut Context, id: u32, mapping: &Mapping) {
        self.mappings.remove(&mut context.arenas.mappings, id);
        context.arenas.mappings_left += 1;
        self.free_port(context, mapping);
    }

    fn free_port(&mut self, context: &mut Context, mapping: &Mapping) {
        self.ports.release(context.leases, u32::from(mapping.external), mapping.proto, mapping.external_port);
        let Some(subscriber) = self.subscribers.get_mut(mapping.subscriber) else { return };
        subscriber.mappings = subscriber.mappings.saturating_sub(1);
        if subscriber.mappings == 0 {
            let (inside, pool) = (subscriber.inside, subscriber.pool);
            let hash = context.secret.endpoint_hash(Kind::Subscriber, inside, pool, Proto::Tcp, 0);
            self.index.remove(&mut context.arenas.other_buckets, hash, Kind::Subscriber.value(mapping.subscriber));
            self.subscribers.remove(&mut context.arenas.subscribers, mapping.subscriber);
        }
    }

    fn enter(&mut self, context: &mut Context, hash: u32, value: u32) -> bool {
        self.index.insert(&mut context.arenas.other_buckets, hash, value).is_ok()
    }

    /// Ends what is past its deadline, in bounded work. True if there may be more.
    pub fn expire(&mut self, context: &mut Context) -> bool {
        let mut due = ArrayVec::<u32, EXPIRE_BUDGET>::new();
        while !due.is_full()
            && let Some(id) = self.flows.next_due(context.now)
        {
            due.push(id);
        }
        self.prefetch_ends(context, &due);
        let mut budget = due.remaining_capacity();
        for id in due {
            let Some(deadline) = self.flows.records().get(id).map(|session| session.deadline) else { continue };
            if deadline <= context.now {
                context.counters.session_timeouts.add(1);
                self.remove_session(context, id);
            } else {
                self.flows.arm(id, deadline);
            }
        }
        while budget > 0
            && let Some(id) = self.hold_downs.next_due(&mut self.mappings, context.now)
        {
            budget -= 1;
            let Some(mapping) = self.mappings.get(id).copied() else { continue };
            if mapping.deadline <= context.now {
                context.counters.mappings_held.sub(1);
                self.free_mapping(context, id, &mapping);
            } else {
                self.hold_downs.arm(&mut self.mappings, id, mapping.deadline);
            }
        }
        budget == 0
    }
}

impl Shard {
    /// Fetches what ending these sessions will touch: each depends on the one before, so all of them go step by step.
    fn prefetch_ends(&self, context: &Context, due: &[u32]) {
        for &id in due {
            self.flows.records().prefetch(id);
        }
        let ends = || due.iter().filter_map(|&id| self.flows.records().get(id)).filter(|it| it.deadline <= context.now);
        for session in ends() {
            self.flows.prefetch_entries(context.secret, session);
            self.mappings.prefetch(session.mapping);
        }
        for mapping in ends().filter_map(|session| self.mappings.get(session.mapping)) {
            for (hash, _) in mapping_entries(context.secret, mapping) {
                self.index.prefetch(hash);
            }
            self.subscribers.prefetch(mapping.subscriber);
        }
    }
}

/// Whether the address that a subscriber is paired with is still given out by its pool.
fn is_paired(context: &Context, subscriber: &Subscriber) -> bool {
    let external = context.plan.externals.get(usize::from(subscriber.external));
    external.is_some_and(|it| !it.draining && it.pool.is_some_and(|pool| pool.0 == subscriber.pool))
}

/// Both index entries of a mapping.
fn mapping_entries(secret: &Secret, mapping: &Mapping) -> [(u32, Kind); 2] {
    let Mapping { inside, inside_port, external, external_port, proto, pool, .. } = *mapping;
    [
        (secret.endpoint_hash(Kind::MappingInside, inside, inside_port, proto, u32::from(pool)), Kind::MappingInside),
        (
            secret.endpoint_hash(Kind::MappingOutside, u32::from(external), external_port, proto, 0),
            Kind::MappingOutside,
        ),
    ]
}

/// How long a session of this class lasts without a packet. `port` is the remote one.
#[inline]
#[must_use]
pub fn idle_time(timers: &Timers, class: SessionClass, port: u16) -> Duration {
    match class {
        SessionClass::Udp => {
            timers.udp_ports.iter().find(|(known, _)| *known == port).map_or(timers.udp, |(_, time)| *time)
        }
        SessionClass::Icmp => timers.icmp,
        SessionClass::TcpOpening => timers.tcp_opening,
        SessionClass::TcpEstablished => timers.tcp_established,
        SessionClass::TcpClosing => timers.tcp_closing,
    }
}
