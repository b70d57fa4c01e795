//! The flow table of a shard: the sessions of one class, found by both of their keys, with their timers.

use std::fmt::Debug;

use super::ends::{Ends, Key};
use super::index::{self, Bucket, BucketArena, Index};
use super::record::{Counts, Direction, NONE, Session};
use super::slab::{Slab, SlabArena};
use super::wheel::Wheel;
use super::{ID_BITS, ID_MASK, Secret};
use crate::pool::Proto;
use crate::steer::SHARDS;
use crate::time::Time;

/// Index entries of a session.
const fn entries<E: Ends>() -> usize {
    if E::ONE_KEY { 1 } else { 2 }
}

/// The memory that the flow tables of a worker's shards share.
#[derive(Debug)]
pub struct FlowArena<E: Ends> {
    /// For their indexes.
    pub buckets: BucketArena,
    /// For their records.
    pub sessions: SlabArena<Session<E>>,
}

impl<E: Ends> FlowArena<E> {
    /// For so many sessions in all, whose packets are not counted.
    #[must_use]
    pub fn new(sessions: usize) -> Self {
        FlowArena {
            buckets: BucketArena::new(BucketArena::segments_for(entries::<E>() * sessions, SHARDS)),
            sessions: SlabArena::new(SlabArena::<Session<E>>::segments_for(sessions, SHARDS)),
        }
    }

    /// For so many sessions in all, whose packets are counted.
    #[must_use]
    pub fn counting(sessions: usize) -> Self {
        let segments = SlabArena::<Session<E>>::segments_for(sessions, SHARDS);
        FlowArena { sessions: SlabArena::extended(segments), ..FlowArena::new(sessions) }
    }

    /// See [`super::Arenas::make_room`].
    pub fn make_room(&mut self, workers: usize) {
        self.buckets.make_room(workers * self.buckets.free());
        self.sessions.make_room(workers * self.sessions.free());
    }
}

/// The bucket that a look-up begins in, while it is fetched.
#[derive(Clone, Copy, Debug)]
pub struct HomeBucket<'a>(&'a Bucket);

impl HomeBucket<'_> {
    /// That of no session.
    pub const NONE: HomeBucket<'static> = HomeBucket(&index::EMPTY);

    /// The session that a look-up with this hash will probably find; [`NONE`]: not here.
    #[inline(always)]
    #[must_use]
    pub fn guess(self, hash: u32) -> u32 {
        self.0.first_candidate(hash).map_or(NONE, |value| value & ID_MASK)
    }
}

/// What the index holds for a session's key of this direction.
#[inline]
fn value<E: Ends>(direction: Direction, id: u32) -> u32 {
    if E::ONE_KEY { id } else { (direction as u32) << ID_BITS | id }
}

/// The sessions of one class.
#[derive(Debug)]
pub struct Flows<E: Ends> {
    index: Index,
    sessions: Slab<Session<E>>,
    timers: Wheel,
}

impl<E: Ends> Flows<E> {
    /// Empty, with room for so many sessions.
    #[must_use]
    pub fn new(sessions: usize, now: Time) -> Self {
        Flows {
            index: Index::new(BucketArena::segments_for(entries::<E>() * sessions, 1)),
            sessions: Slab::new(SlabArena::<Session<E>>::segments_for(sessions, 1)),
            timers: Wheel::new(now),
        }
    }

    /// The records.
    #[inline]
    #[must_use]
    pub fn records(&self) -> &Slab<Session<E>> {
        &self.sessions
    }

    /// The records, writable.
    #[inline]
    pub fn records_mut(&mut self) -> &mut Slab<Session<E>> {
        &mut self.sessions
    }

    /// Fetches the bucket that a look-up with this hash will read first.
    #[inline(always)]
    pub fn home_bucket(&self, hash: u32) -> HomeBucket<'_> {
        HomeBucket(self.index.prefetch(hash))
    }

    /// Fetches the second bucket of those in which a look-up with this hash may end. False: there is none.
    pub fn prefetch_overflow(&self, hash: u32) -> bool {
        self.index.prefetch_overflow(hash)
    }

    /// The session that it will probably find there, fetched.
    pub fn guess_overflow(&self, hash: u32) -> Option<u32> {
        let id = self.index.overflow_candidate(hash)? & ID_MASK;
        self.sessions.prefetch(id);
        Some(id)
    }

    /// The session that a packet of this direction belongs to. It may be past its deadline.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u32, direction: Direction, key: E::Key, proto: Proto) -> Option<u32> {
        let is = |found: u32| {
            let id = found & ID_MASK;
            let fits = |session: &Session<E>| session.key(direction) == key && session.proto == proto;
            found == value::<E>(direction, id) && self.sessions.get(id).is_some_and(fits)
        };
        self.index.find(hash, is).map(|value| value & ID_MASK)
    }

    /// Adds a session, which ends at its deadline. `hashes` are those of its keys, outbound and inbound. None: there is no room,
    /// and nothing has changed.
    pub fn insert(&mut self, arena: &mut FlowArena<E>, session: Session<E>, hashes: [u32; 2]) -> Option<u32> {
        let id = self.sessions.insert(&mut arena.sessions, session)?;
        let inside = value::<E>(Direction::Outbound, id);
        let mut entered = self.index.insert(&mut arena.buckets, hashes[0], inside).is_ok();
        if entered && !E::ONE_KEY {
            let outside = value::<E>(Direction::Inbound, id);
            entered = self.index.insert(&mut arena.buckets, hashes[1], outside).is_ok();
            if !entered {
                self.index.remove(&mut arena.buckets, hashes[0], inside);
            }
        }
        if !entered {
            self.sessions.remove(&mut arena.sessions, id);
            return None;
        }
        self.timers.arm(&mut self.sessions, id, session.deadline);
        Some(id)
    }

    /// Takes a session out.
    pub fn remove(&mut self, arena: &mut FlowArena<E>, secret: &Secret, id: u32) -> Option<Session<E>> {
        self.timers.disarm(&mut self.sessions, id);
        let session = self.sessions.remove(&mut arena.sessions, id)?;
        for (direction, hash) in hashes(secret, &session) {
            self.index.remove(&mut arena.buckets, hash, value::<E>(direction, id));
        }
        Some(session)
    }

    /// Counts a packet of a session, from its IP header on, if packets are counted.
    #[inline]
    pub fn count(&mut self, id: u32, direction: Direction, bytes: usize) {
        if let Some(Counts { packets, bytes: all }) = self.sessions.extra_mut(id) {
            packets[direction as usize] += 1;
            all[direction as usize] += bytes as u64;
        }
    }

    /// The session's deadline is sooner than before, or it was given out by [`Flows::next_due`] before its end. (A later one
    /// is found out when the timer fires.)
    pub fn arm(&mut self, id: u32, deadline: Time) {
        self.timers.arm(&mut self.sessions, id, deadline);
    }

    /// The next session whose timer fires: to be removed, or armed again.
    pub fn next_due(&mut self, now: Time) -> Option<u32> {
        self.timers.next_due(&mut self.sessions, now)
    }

    /// Fetches what [`Flows::remove`] will look for.
    pub fn prefetch_entries(&self, secret: &Secret, session: &Session<E>) {
        for (_, hash) in hashes(secret, session) {
            self.index.prefetch(hash);
        }
    }
}

/// The directions that a session is entered for, with the hashes of its keys.
fn hashes<E: Ends>(secret: &Secret, session: &Session<E>) -> impl Iterator<Item = (Direction, u32)> {
    let of = |direction| (direction, session.key(direction).hash(secret, session.proto));
    [Direction::Outbound, Direction::Inbound].into_iter().take(entries::<E>()).map(of)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::session::ends::{Ends6, Ends44, Ends64, Ends66};
    use crate::session::slab::RECORDS;
    use crate::trace::RuleRef;

    /// What session number `n` is between: so that many have some of their addresses or ports in common.
    trait Numbered: Ends {
        fn numbered(n: u32) -> Self;
    }

    fn words(n: u32) -> [u32; 4] {
        [0x2001_0db8, n % 7, 0, n]
    }

    impl Numbered for Ends44 {
        fn numbered(n: u32) -> Self {
            Ends44([n, n % 5, !n])
        }
    }

    impl Numbered for Ends6 {
        fn numbered(n: u32) -> Self {
            Ends6([words(n), words(n % 5)])
        }
    }

    impl Numbered for Ends66 {
        fn numbered(n: u32) -> Self {
            Ends66([words(n), words(n % 5), words(!n)])
        }
    }

    impl Numbered for Ends64 {
        fn numbered(n: u32) -> Self {
            Ends64 { inside: words(n), remote: n % 5, external: !n, prefix: u16::from(n.is_multiple_of(2)) }
        }
    }

    const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Icmp];

    /// Inserts, finds by both keys, ends by hand and by time, against a map of numbers.
    fn behaves<E: Numbered>(steps: &[(u32, u8)]) {
        const ROOM: usize = 300;
        let secret = Secret::new([7; 16]);
        let mut arena = FlowArena::<E>::new(ROOM);
        let mut flows = Flows::<E>::new(ROOM, Time::ZERO);
        let free = (arena.buckets.free(), arena.sessions.free());
        let mut model = BTreeMap::new();
        let mut now = Time::ZERO;
        let session = |n: u32| {
            // Neighbours in number differ in their protocol alone.
            let proto = PROTOS[n as usize % 3];
            Session::between(E::numbered(n / 3), [1, 2, 3], proto, RuleRef::None)
        };
        let hashes = |session: &Session<E>| {
            [Direction::Outbound, Direction::Inbound].map(|it| session.key(it).hash(&secret, session.proto))
        };
        let find = |flows: &Flows<E>, n: u32| {
            let session = session(n);
            let [out, back] = hashes(&session);
            let found = flows.find(out, Direction::Outbound, session.key(Direction::Outbound), session.proto);
            let other = flows.find(back, Direction::Inbound, session.key(Direction::Inbound), session.proto);
            assert_eq!(found, other);
            let guess = flows.home_bucket(out).guess(out);
            assert!(found.is_none() || guess == NONE || flows.records().get(guess).is_some());
            found
        };
        for &(n, what) in steps {
            match what {
                // It lasts for up to ten seconds.
                0..=5 if !model.contains_key(&n) => {
                    let deadline = now + std::time::Duration::from_secs(1 + u64::from(n) % 10);
                    let mut session = session(n);
                    session.deadline = deadline;
                    match flows.insert(&mut arena, session, hashes(&session)) {
                        Some(id) => drop(model.insert(n, (id, deadline))),
                        None => assert!(model.len() >= ROOM),
                    }
                }
                6..=8 => {
                    if let Some((id, _)) = model.remove(&n) {
                        assert!(flows.remove(&mut arena, &secret, id).is_some());
                    }
                }
                _ => {
                    now = now + std::time::Duration::from_secs(1);
                    while let Some(id) = flows.next_due(now) {
                        let deadline = flows.records().get(id).map(|session| session.deadline);
                        assert!(deadline.is_some_and(|deadline| deadline <= now));
                        flows.remove(&mut arena, &secret, id);
                    }
                    // At the latest one second after its time.
                    model.retain(|_, (_, deadline)| *deadline > now);
                }
            }
            assert_eq!(find(&flows, n), model.get(&n).map(|&(id, _)| id));
        }
        for n in 0..400 {
            assert_eq!(find(&flows, n), model.get(&n).map(|&(id, _)| id));
        }
        assert_eq!(flows.records().len(), model.len());
        for (id, _) in model.into_values() {
            assert!(flows.remove(&mut arena, &secret, id).is_some());
        }
        assert_eq!((arena.buckets.free(), arena.sessions.free()), free);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((0u32..400, 0u8..10), 1..1500)) {
            behaves::<Ends44>(&steps);
            behaves::<Ends6>(&steps);
            behaves::<Ends64>(&steps);
            behaves::<Ends66>(&steps);
        }
    }

    /// What a session of each class takes with its timer and its index entries; to NAT's, a mapping comes.
    #[test]
    fn each_class_keeps_to_its_bytes() {
        fn bytes<E: Numbered>() -> f64 {
            const MANY: u32 = 40_000;
            let secret = Secret::new([7; 16]);
            let mut arena = FlowArena::<E>::new(MANY as usize);
            let mut flows = Flows::<E>::new(MANY as usize, Time::ZERO);
            let free = (arena.buckets.free(), arena.sessions.free());
            for n in 0..MANY {
                let session = Session::between(E::numbered(n), [1, 2, 3], Proto::Udp, RuleRef::None);
                let hashes =
                    [Direction::Outbound, Direction::Inbound].map(|it| session.key(it).hash(&secret, Proto::Udp));
                assert!(flows.insert(&mut arena, session, hashes).is_some());
            }
            let buckets = (free.0 - arena.buckets.free()) * BucketArena::bytes();
            let sessions = (free.1 - arena.sessions.free()) * SlabArena::<Session<E>>::bytes() * RECORDS;
            (buckets + sessions) as f64 / f64::from(MANY)
        }
        // A mapping of NAT44 takes 64 bytes with its entries and its timer. With an IPv6 address in it, it will take 16 more;
        // and the last segments of this table are not full.
        let (mapping, mapping6, rounding) = (64.0, 80.0, 1.5);
        assert!(bytes::<Ends44>() + mapping <= 160.0 + rounding, "{}", bytes::<Ends44>());
        assert!(bytes::<Ends6>() <= 192.0, "{}", bytes::<Ends6>());
        assert!(bytes::<Ends64>() + mapping6 <= 224.0, "{}", bytes::<Ends64>());
        assert!(bytes::<Ends66>() + mapping6 <= 256.0, "{}", bytes::<Ends66>());
    }
}
