//! Virtual reassembly: what a shard remembers of the datagrams whose fragments are on their way.
//!
//! An entry for each datagram knows which parts of it have been seen, and what its first fragment lends. Fragments that come
//! before the first wait, in the order in which they came. A datagram that has been seen whole is forgotten.
//!
//! Everything is bounded, and its memory taken at start: datagrams that are known and such that wait for their first
//! fragment have places of their own, so that no flood of the one kind takes those of the other; the fragments that wait are
//! counted, in number and in bytes. Where there is no place the oldest of the same kind goes. So a flood of fragments
//! without a first one only shortens the time for which others can wait (RFC 4787 REQ-14a): whole packets, and fragments in
//! order, never come here to wait.
//!
//! No part of a datagram passes twice, and none that overlaps another: what does so ends the whole datagram (RFC 5722), but
//! for the mere repetition of what has passed, which only ends itself.

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use super::{Datagram, Lent, Piece};
use crate::counters::Drop;
use crate::steer::SHARDS;
use crate::time::Time;

/// Disjoint parts of a datagram that are kept apart. In order, and in reversed order, there is one.
const PARTS_MAX: usize = 12;
/// Known datagrams for each fragment that may wait.
const KNOWN: usize = 4;
/// Bytes that may wait for each fragment that may.
const BYTES: usize = 2048;
const NIL: u32 = u32::MAX;

/// What is to be done with a fragment.
#[derive(Debug)]
pub enum Offer {
    /// It goes on, with what is lent to it; before it those that have waited, which [`Reassembly::release`] gives.
    Pass(Lent, Chain),
    /// It waits: [`Reassembly::hold`] takes it.
    Wait(Place),
    /// It is dropped.
    Refuse(Drop),
}

/// A place for a fragment to wait in.
#[derive(Debug)]
pub struct Place(u32);

/// Fragments that wait no more, in the order in which they came. To be taken by [`Reassembly::release`].
#[derive(Debug)]
pub struct Chain(u32);

/// What is known of a datagram.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Its first fragment has not come. The chain of those that wait.
    Waiting { first: u32, last: u32 },
    /// Its first fragment has come.
    Known(Lent),
    /// No more of it passes.
    Refused(Drop),
}

impl State {
    fn is_waiting(&self) -> bool {
        matches!(self, State::Waiting { .. })
    }
}

#[derive(Clone, Debug)]
struct Entry {
    datagram: Datagram,
    deadline: Time,
    /// What has been seen of it, in units of 8 bytes: sorted, neither overlapping nor touching.
    parts: ArrayVec<(u16, u16), PARTS_MAX>,
    /// Its length in the same units, once its last fragment has come.
    len: Option<u16>,
    state: State,
    /// Its neighbours in the queue that it is in, the older one first; of a free entry the next free one.
    previous: u32,
    next: u32,
}

impl Entry {
    fn is_complete(&self) -> bool {
        self.len.is_some_and(|len| self.parts[..] == [(0, len)])
    }
}

/// What a fragment is to what has been seen of its datagram.
enum Seen {
    New,
    Repeated,
    Overlapping,
    /// There are too many gaps to remember another one.
    Scattered,
}

/// Entries by age, the oldest first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
    len: usize,
}

impl Queue {
    const EMPTY: Queue = Queue { first: NIL, last: NIL, len: 0 };
}

/// A fragment that waits.
#[derive(Debug)]
struct Slot<T> {
    held: Option<T>,
    bytes: usize,
    /// Why it is lost, if it is.
    lost: Drop,
    /// The next one of its datagram, of those that are lost, or of the free slots.
    next: u32,
}

/// The datagrams of one shard in fragments. `T` is what waits: a packet, and what else its owner must know of it.
#[derive(Debug)]
pub struct Reassembly<T> {
    table: HashMap<Datagram, u32>,
    entries: Box<[Entry]>,
    free: u32,
    waiting: Queue,
    waiting_max: usize,
    known: Queue,
    known_max: usize,
    /// Twice as many as may wait: those that are lost give theirs back when they are taken.
    slots: Box<[Slot<T>]>,
    free_slot: u32,
    held: usize,
    held_max: usize,
    bytes: usize,
    /// Those that have waited in vain: the first and the last.
    lost: (u32, u32),
}

impl<T> Reassembly<T> {
    /// Without any. Of the `fragments` that may wait in all shards together this one has its share.
    #[must_use]
    pub fn new(fragments: u32) -> Self {
        let share = (fragments as usize / SHARDS).max(1);
        let (waiting_max, known_max) = (share, KNOWN * share);
        // One more, for a datagram that becomes known.
        let count = waiting_max + known_max + 1;
        let next = |at: usize, count: usize| if at + 1 < count { u32::try_from(at + 1).unwrap_or(NIL) } else { NIL };
        let entry = |at| Entry {
            datagram: Datagram::default(),
            deadline: Time::ZERO,
            parts: ArrayVec::new(),
            len: None,
            state: State::Waiting { first: NIL, last: NIL },
            previous: NIL,
            next: next(at, count),
        };
        let slot = |at| Slot { held: None, bytes: 0, lost: Drop::FragmentTimeout, next: next(at, 2 * share) };
        Reassembly {
            // Twice the room, one to come included: at half load hashbrown clears its tombstones in place, and never
            // allocates.
            table: HashMap::with_capacity(2 * (count + 1)),
            entries: (0..count).map(entry).collect(),
            free: 0,
            waiting: Queue::EMPTY,
            waiting_max,
            known: Queue::EMPTY,
            known_max,
            slots: (0..2 * share).map(slot).collect(),
            free_slot: 0,
            held: 0,
            held_max: share,
            bytes: 0,
            lost: (NIL, NIL),
        }
    }

    /// Fragments that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Datagrams that something is known of.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.table.len()
    }

    /// What to do with a fragment of `bytes` bytes that is this piece of a datagram. `first`: it is the first one, and what it
    /// has to lend, or why no fragment of the datagram can pass. A datagram of which nothing is known yet is given up at
    /// `deadline`. Whatever the answer, [`Reassembly::take_lost`] may have something afterwards.
    pub fn offer(
        &mut self,
        datagram: &Datagram,
        piece: Piece,
        bytes: usize,
        first: Option<Result<Lent, Drop>>,
        now: Time,
        deadline: Time,
    ) -> Offer {
        let found = self.table.get(datagram).copied();
        let live = found.filter(|&id| self.entry(id).is_some_and(|entry| entry.deadline > now));
        let id = match (live, found) {
            (Some(id), _) => id,
            (None, over) => {
                if let Some(over) = over {
                    self.remove(over, Drop::FragmentTimeout);
                }
                if first.is_none() {
                    self.make_room(false);
                }
                self.add(datagram, deadline)
            }
        };
        match self.see(id, piece) {
            Seen::New => {}
            Seen::Repeated => return Offer::Refuse(Drop::FragmentOverlap),
            Seen::Scattered => return Offer::Refuse(Drop::FragmentQueueFull),
            Seen::Overlapping => {
                self.refuse(id, Drop::FragmentOverlap);
                return Offer::Refuse(Drop::FragmentOverlap);
            }
        }
        let Some(entry) = self.entries.get_mut(id as usize) else { return Offer::Refuse(Drop::FragmentQueueFull) };
        let complete = entry.is_complete();
        match (entry.state, first) {
            (State::Refused(reason), _) => Offer::Refuse(reason),
            (State::Known(lent), _) => {
                if complete {
                    self.remove(id, Drop::FragmentTimeout);
                }
                Offer::Pass(lent, Chain(NIL))
            }
            (State::Waiting { .. }, Some(Ok(lent))) => {
                let first = self.turn(id, State::Known(lent));
                self.detach(first, None);
                if complete {
                    self.remove(id, Drop::FragmentTimeout);
                }
                Offer::Pass(lent, Chain(first))
            }
            (State::Waiting { .. }, Some(Err(reason))) => {
                self.refuse(id, reason);
                Offer::Refuse(reason)
            }
            (State::Waiting { .. }, None) => match self.place(id, bytes) {
                Some(place) => Offer::Wait(place),
                None => Offer::Refuse(Drop::FragmentQueueFull),
            },
        }
    }

    /// Takes a fragment that is to wait.
    pub fn hold(&mut self, place: Place, held: T) {
        if let Some(slot) = self.slots.get_mut(place.0 as usize) {
            slot.held = Some(held);
        }
    }

    /// The next of those that wait no more and go on.
    pub fn release(&mut self, chain: &mut Chain) -> Option<T> {
        self.vacate(&mut chain.0).and_then(|(held, _)| held)
    }

    /// The next of those that have waited in vain, with the reason for which it is dropped.
    pub fn take_lost(&mut self) -> Option<(T, Drop)> {
        let mut first = self.lost.0;
        let (held, reason) = self.vacate(&mut first)?;
        self.lost = if first == NIL { (NIL, NIL) } else { (first, self.lost.1) };
        held.map(|held| (held, reason))
    }

    /// Forgets all datagrams whose first fragment has not come: [`Reassembly::take_lost`] has what waited, in the order in which
    /// it came for each of them.
    pub fn give_up_waiting(&mut self) {
        while self.waiting.first != NIL {
            self.remove(self.waiting.first, Drop::FragmentTimeout);
        }
    }

    /// Exchanges what is known of datagrams with another one, of the same size. Nothing may wait in either.
    pub(super) fn exchange<U>(&mut self, other: &mut Reassembly<U>) {
        use std::mem::swap;
        swap(&mut self.table, &mut other.table);
        swap(&mut self.entries, &mut other.entries);
        swap(&mut self.free, &mut other.free);
        swap(&mut self.waiting, &mut other.waiting);
        swap(&mut self.known, &mut other.known);
        swap(&mut self.waiting_max, &mut other.waiting_max);
        swap(&mut self.known_max, &mut other.known_max);
    }

    /// Gives up the datagrams that are longest past their deadlines: one of those that wait and one that is known.
    /// [`Reassembly::take_lost`] has what waited. Returns true if there was any, and so may be more.
    pub fn expire(&mut self, now: Time) -> bool {
        let mut found = false;
        for id in [self.waiting.first, self.known.first] {
            if self.entry(id).is_some_and(|entry| entry.deadline <= now) {
                self.remove(id, Drop::FragmentTimeout);
                found = true;
            }
        }
        found
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    /// Marks a piece as seen, unless it may not pass.
    fn see(&mut self, id: u32, piece: Piece) -> Seen {
        let Some(entry) = self.entries.get_mut(id as usize) else { return Seen::Scattered };
        let Piece { start, end, last } = piece;
        let parts = &mut entry.parts;
        // The parts that it overlaps or touches.
        let at = parts.iter().position(|part| part.1 >= start).unwrap_or(parts.len());
        let behind = at + parts[at..].iter().take_while(|part| part.0 <= end).count();
        let near = &parts[at..behind];
        if near.iter().any(|part| part.0 <= start && end <= part.1) {
            return Seen::Repeated;
        }
        let overlaps = near.iter().any(|part| part.0 < end && start < part.1);
        let beyond = entry.len.is_some_and(|len| last || end > len);
        let cuts = last && parts.last().is_some_and(|part| part.1 > end);
        if overlaps || beyond || cuts {
            return Seen::Overlapping;
        }
        match near {
            [] => {
                if parts.try_insert(at, (start, end)).is_err() {
                    return Seen::Scattered;
                }
            }
            [first, ..] => {
                let joined = (first.0.min(start), near[near.len() - 1].1.max(end));
                parts.drain(at + 1..behind);
                parts[at] = joined;
            }
        }
        if last {
            entry.len = Some(end);
        }
        Seen::New
    }

    /// A place for a fragment of this datagram to wait in, behind those that do. For that the oldest of the other datagrams go.
    fn place(&mut self, id: u32, bytes: usize) -> Option<Place> {
        while self.held >= self.held_max || self.bytes + bytes > self.held_max * BYTES {
            let oldest = self.waiting.first;
            if oldest == id || oldest == NIL {
                return None;
            }
            self.remove(oldest, Drop::FragmentQueueFull);
        }
        let at = self.free_slot;
        let slot = self.slots.get_mut(at as usize)?;
        self.free_slot = std::mem::replace(&mut slot.next, NIL);
        slot.bytes = bytes;
        self.held += 1;
        self.bytes += bytes;
        let State::Waiting { first, last } = &mut self.entries.get_mut(id as usize)?.state else { return None };
        let before = std::mem::replace(last, at);
        if *first == NIL {
            *first = at;
        }
        if let Some(before) = self.slots.get_mut(before as usize) {
            before.next = at;
        }
        Some(Place(at))
    }

    /// Takes what is in the slot `at`, which is then the next one of its chain.
    fn vacate(&mut self, at: &mut u32) -> Option<(Option<T>, Drop)> {
        let slot = self.slots.get_mut(*at as usize)?;
        let (held, lost) = (slot.held.take(), slot.lost);
        let next = std::mem::replace(&mut slot.next, self.free_slot);
        self.free_slot = std::mem::replace(at, next);
        Some((held, lost))
    }

    /// Fragments that wait do so no more. With a reason they are lost.
    fn detach(&mut self, first: u32, reason: Option<Drop>) {
        let (mut at, mut last) = (first, NIL);
        while let Some(slot) = self.slots.get_mut(at as usize) {
            self.held -= 1;
            self.bytes -= slot.bytes;
            if let Some(reason) = reason {
                slot.lost = reason;
            }
            last = std::mem::replace(&mut at, slot.next);
        }
        if reason.is_some() && first != NIL {
            match self.slots.get_mut(self.lost.1 as usize) {
                Some(before) => before.next = first,
                None => self.lost.0 = first,
            }
            self.lost.1 = last;
        }
    }

    /// An entry for a datagram of which nothing is known. It waits.
    fn add(&mut self, datagram: &Datagram, deadline: Time) -> u32 {
        let id = self.free;
        if let Some(entry) = self.entries.get_mut(id as usize) {
            self.free = entry.next;
            entry.datagram = *datagram;
            entry.deadline = deadline;
            entry.parts.clear();
            entry.len = None;
            entry.state = State::Waiting { first: NIL, last: NIL };
            self.table.insert(*datagram, id);
            self.link(id);
        }
        id
    }

    /// Makes room for one more that waits, or that is known.
    fn make_room(&mut self, known: bool) {
        let (queue, max) = if known { (self.known, self.known_max) } else { (self.waiting, self.waiting_max) };
        if queue.len >= max {
            self.remove(queue.first, Drop::FragmentQueueFull);
        }
    }

    /// A datagram that waited does so no more.
    fn turn(&mut self, id: u32, state: State) -> u32 {
        self.make_room(true);
        self.unlink(id);
        let mut first = NIL;
        if let Some(entry) = self.entries.get_mut(id as usize)
            && let State::Waiting { first: waiting, .. } = std::mem::replace(&mut entry.state, state)
        {
            first = waiting;
        }
        self.link(id);
        first
    }

    /// No more of a datagram passes, and what waited for it is lost.
    fn refuse(&mut self, id: u32, reason: Drop) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        if entry.state.is_waiting() {
            let first = self.turn(id, State::Refused(reason));
            self.detach(first, Some(reason));
        } else {
            entry.state = State::Refused(reason);
        }
    }

    /// Forgets a datagram; what waits for it is lost.
    fn remove(&mut self, id: u32, reason: Drop) {
        self.unlink(id);
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        self.table.remove(&entry.datagram);
        entry.next = std::mem::replace(&mut self.free, id);
        if let State::Waiting { first, .. } = entry.state {
            self.detach(first, Some(reason));
        }
    }

    /// Puts an entry behind all others of its queue.
    fn link(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        let queue = if entry.state.is_waiting() { &mut self.waiting } else { &mut self.known };
        queue.len += 1;
        let before = std::mem::replace(&mut queue.last, id);
        (entry.previous, entry.next) = (before, NIL);
        match self.entries.get_mut(before as usize) {
            Some(before) => before.next = id,
            None => queue.first = id,
        }
    }

    /// Takes an entry out of its queue.
    fn unlink(&mut self, id: u32) {
        let Some(entry) = self.entries.get(id as usize) else { return };
        let (previous, next) = (entry.previous, entry.next);
        let queue = if entry.state.is_waiting() { &mut self.waiting } else { &mut self.known };
        queue.len -= 1;
        match self.entries.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => queue.first = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(next) => next.previous = previous,
            None => queue.last = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::parse::Transport;

    const NOW: Time = Time::from_secs(1000);
    const AGE: Duration = Duration::from_secs(2);

    /// What a first fragment lends: a port to know it by.
    fn lent(port: u16) -> Lent {
        Lent { source_port: port, destination_port: 53, transport: Transport::Udp, identification: None }
    }

    fn datagram(identification: u16) -> Datagram {
        Datagram { source: 1, destination: 2, identification, protocol: 17 }
    }

    /// A shard of a gateway in which so many fragments may wait for each shard, and what became of the fragments: they are known
    /// by numbers.
    struct Bench {
        reassembly: Reassembly<u32>,
        passed: Vec<u32>,
        /// Of each datagram, those that passed behind or with a first one.
        lives: BTreeMap<u16, Vec<Vec<u32>>>,
        lost: Vec<(u32, Drop)>,
        refused: Vec<(u32, Drop)>,
    }

    impl Bench {
        fn new(share: u32) -> Bench {
            let reassembly = Reassembly::new(share * 64);
            Bench { reassembly, passed: Vec::new(), lives: BTreeMap::new(), lost: Vec::new(), refused: Vec::new() }
        }

        fn take_lost(&mut self) {
            self.lost.extend(std::iter::from_fn(|| self.reassembly.take_lost()));
        }

        /// A fragment comes: its number, its datagram, units from and to, whether it is the last one.
        fn offer(&mut self, number: u32, id: u16, (start, end, last): (u16, u16, bool), bytes: usize, now: Time) {
            let first = (start == 0).then(|| Ok(lent(id)));
            self.offer_with(number, id, Piece { start, end, last }, bytes, first, now);
        }

        fn offer_with(
            &mut self,
            number: u32,
            id: u16,
            piece: Piece,
            bytes: usize,
            first: Option<Result<Lent, Drop>>,
            now: Time,
        ) {
            let is_first = first.is_some();
            match self.reassembly.offer(&datagram(id), piece, bytes, first, now, now + AGE) {
                Offer::Pass(lends, mut chain) => {
                    assert_eq!(lends, lent(id));
                    let mut passed: Vec<_> = std::iter::from_fn(|| self.reassembly.release(&mut chain)).collect();
                    passed.push(number);
                    self.passed.extend(&passed);
                    let lives = self.lives.entry(id).or_default();
                    if is_first {
                        lives.push(passed);
                    } else {
                        lives.last_mut().expect("a first one has passed").extend(passed);
                    }
                }
                Offer::Wait(place) => self.reassembly.hold(place, number),
                Offer::Refuse(reason) => self.refused.push((number, reason)),
            }
            self.take_lost();
        }

        /// So many later fragments that wait, one of each datagram from `id` on.
        fn flood(&mut self, id: u16, count: u16, bytes: usize) {
            for n in 0..count {
                self.offer(u32::from(id + n), id + n, (10, 20, false), bytes, NOW);
            }
        }
    }

    #[test]
    fn fragments_go_on_in_the_order_in_which_they_came() {
        let mut it = Bench::new(16);
        for (number, part) in [(1, (20, 30, true)), (2, (10, 20, false)), (3, (0, 10, false))] {
            assert_eq!((it.passed.len(), it.reassembly.held()), (0, number as usize - 1));
            it.offer(number, 7, part, 100, NOW);
        }
        assert_eq!(it.passed, [1, 2, 3]);
        // It was whole, and is forgotten.
        assert_eq!((it.reassembly.held(), it.reassembly.datagrams()), (0, 0));
        // One that is known lends to what comes later, until it is whole.
        for (number, part) in [(4, (0, 10, false)), (5, (20, 30, true)), (6, (10, 20, false))] {
            it.offer(number, 7, part, 100, NOW);
            assert_eq!(it.reassembly.datagrams(), usize::from(number < 6));
        }
        assert_eq!(it.passed, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn datagrams_are_told_apart() {
        let mut it = Bench::new(16);
        it.offer(1, 7, (10, 20, true), 100, NOW);
        it.offer(2, 8, (0, 10, false), 100, NOW);
        assert_eq!((&it.passed[..], it.reassembly.held()), (&[2][..], 1));
    }

    #[test]
    fn an_overlap_ends_the_datagram() {
        for overlapping in [(15, 25, false), (5, 12, false), (9, 21, false), (0, 12, false), (15, 30, true)] {
            let mut it = Bench::new(16);
            it.offer(1, 7, (10, 20, false), 100, NOW);
            it.offer(2, 7, overlapping, 100, NOW);
            assert_eq!(
                (&it.refused[..], &it.lost[..]),
                (&[(2, Drop::FragmentOverlap)][..], &[(1, Drop::FragmentOverlap)][..])
            );
            it.offer(3, 7, (0, 5, false), 100, NOW);
            assert_eq!((it.refused[1], it.passed.len(), it.reassembly.held()), ((3, Drop::FragmentOverlap), 0, 0));
        }
    }

    /// What is behind the last one, or a second last one, or a last one before what has been seen.
    #[test]
    fn nothing_is_beyond_the_end() {
        for (one, other) in
            [((10, 20, true), (20, 30, false)), ((10, 20, true), (20, 30, true)), ((20, 30, false), (10, 20, true))]
        {
            let mut it = Bench::new(16);
            it.offer(1, 7, one, 100, NOW);
            it.offer(2, 7, other, 100, NOW);
            assert_eq!((it.refused[0], it.lost[0]), ((2, Drop::FragmentOverlap), (1, Drop::FragmentOverlap)));
        }
    }

    #[test]
    fn a_repetition_ends_itself_alone() {
        let mut it = Bench::new(16);
        it.offer(1, 7, (10, 20, true), 100, NOW);
        it.offer(2, 7, (10, 20, true), 100, NOW);
        it.offer(3, 7, (12, 14, false), 100, NOW);
        assert_eq!(it.refused, [(2, Drop::FragmentOverlap), (3, Drop::FragmentOverlap)]);
        it.offer(4, 7, (0, 10, false), 100, NOW);
        assert_eq!((it.passed, it.lost), (vec![1, 4], vec![]));
    }

    #[test]
    fn a_first_one_that_can_not_pass_takes_the_others_along() {
        let mut it = Bench::new(16);
        it.offer(1, 7, (10, 20, false), 100, NOW);
        it.offer_with(2, 7, Piece { start: 0, end: 10, last: false }, 100, Some(Err(Drop::Fragment)), NOW);
        it.offer(3, 7, (20, 30, true), 100, NOW);
        assert_eq!((it.refused, it.lost), (vec![(2, Drop::Fragment), (3, Drop::Fragment)], vec![(1, Drop::Fragment)]));
    }

    /// Twelve disjoint parts are remembered; one more is refused, and what closes a gap is not.
    #[test]
    fn gaps_are_bounded() {
        let mut it = Bench::new(16);
        for (n, start) in (0..).zip((10..).step_by(2).take(PARTS_MAX)) {
            it.offer(n, 7, (start, start + 1, false), 8, NOW);
        }
        it.offer(100, 7, (100, 101, false), 8, NOW);
        assert_eq!(it.refused, [(100, Drop::FragmentQueueFull)]);
        it.offer(101, 7, (11, 12, false), 8, NOW);
        it.offer(102, 7, (0, 10, false), 8, NOW);
        assert_eq!((it.passed.len(), it.reassembly.held()), (PARTS_MAX + 2, 0));
    }

    #[test]
    fn the_number_that_waits_is_bounded() {
        let mut it = Bench::new(16);
        it.flood(0, 40, 100);
        assert_eq!((it.reassembly.held(), it.reassembly.datagrams()), (16, 16));
        // The oldest went, in their order.
        assert!(it.lost.iter().copied().eq((0..24).map(|number| (number, Drop::FragmentQueueFull))));
        // A datagram can't take the place of its own.
        let mut it = Bench::new(16);
        for (n, start) in (0..16).zip(100..) {
            it.offer(n, 7, (start, start + 1, false), 8, NOW);
        }
        it.offer(16, 7, (116, 117, false), 8, NOW);
        assert_eq!((it.refused, it.lost.len(), it.reassembly.held()), (vec![(16, Drop::FragmentQueueFull)], 0, 16));
    }

    #[test]
    fn the_bytes_that_wait_are_bounded() {
        let mut it = Bench::new(16);
        // 16 * 2048 bytes: three of these.
        it.flood(0, 5, 9000);
        assert_eq!((it.reassembly.held(), it.lost.len()), (3, 2));
        it.offer(9, 4, (0, 10, false), 100, NOW);
        assert_eq!((&it.passed[..], it.reassembly.held()), (&[4, 9][..], 2));
        // What has gone on gave its room back, and what was lost as well.
        it.flood(10, 1, 9000);
        assert_eq!((it.reassembly.held(), it.lost.len()), (3, 2));
        // One that is larger than all of it finds none, whatever goes.
        it.flood(20, 1, 16 * 2048 + 1);
        assert_eq!((it.refused, it.reassembly.held()), (vec![(20, Drop::FragmentQueueFull)], 0));
    }

    /// Datagrams that are known have places of their own: no flood of the one kind takes those of the other.
    #[test]
    fn known_and_waiting_ones_do_not_displace_each_other() {
        let mut it = Bench::new(16);
        it.flood(0, 16, 100);
        for id in 1000..1200 {
            it.offer(u32::from(id), id, (0, 10, false), 100, NOW);
        }
        assert_eq!((it.passed.len(), it.reassembly.held(), it.reassembly.datagrams()), (200, 16, 16 + 64));
        it.flood(2000, 100, 100);
        it.offer(1, 1199, (10, 20, true), 100, NOW);
        assert_eq!(it.passed.len(), 201);
        // Of the oldest known ones nothing is known any more: their later fragments wait.
        it.offer(2, 1000, (10, 20, true), 100, NOW);
        assert_eq!(it.passed.len(), 201);
    }

    /// Both kinds are given up at their deadline: not before, and then whether the timer comes by or a fragment does.
    #[test]
    fn age_is_bounded() {
        let mut it = Bench::new(16);
        it.offer(1, 7, (10, 20, false), 100, NOW);
        it.offer(2, 8, (0, 10, false), 100, NOW);
        let (before, after) = (NOW + Duration::from_millis(1999), NOW + AGE);
        assert!(!it.reassembly.expire(before));
        // A later one of the same datagram does not make it younger.
        it.offer(3, 7, (20, 30, true), 100, before);
        it.offer(4, 9, (10, 20, false), 100, before);
        assert!(it.reassembly.expire(after) && !it.reassembly.expire(after));
        it.take_lost();
        assert_eq!((it.reassembly.datagrams(), it.reassembly.held()), (1, 1));
        assert_eq!(it.lost, [(1, Drop::FragmentTimeout), (3, Drop::FragmentTimeout)]);
        // Without a timer: it begins anew.
        let mut it = Bench::new(16);
        it.offer(1, 7, (10, 20, true), 100, NOW);
        it.offer(2, 7, (0, 10, false), 100, after);
        assert_eq!((it.passed, it.lost), (vec![2], vec![(1, Drop::FragmentTimeout)]));
    }

    #[test]
    fn what_waits_can_be_given_up_at_once_and_the_rest_moves() {
        let (mut it, mut other) = (Bench::new(16), Reassembly::<()>::new(16 * 64));
        it.offer(1, 8, (0, 10, false), 100, NOW);
        for (number, id, part) in [(2, 7, (20, 30, true)), (3, 9, (10, 20, true)), (4, 7, (10, 20, false))] {
            it.offer(number, id, part, 100, NOW);
        }
        it.reassembly.give_up_waiting();
        it.take_lost();
        assert_eq!(it.lost.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 4, 3]);
        it.reassembly.exchange(&mut other);
        assert_eq!((it.reassembly.datagrams(), it.reassembly.held(), other.datagrams()), (0, 0, 1));
        it.reassembly = Reassembly::new(16 * 64);
        it.reassembly.exchange(&mut other);
        it.offer(5, 8, (10, 20, true), 100, NOW);
        assert_eq!(it.passed, [1, 5]);
    }

    proptest! {
        /// Any fragments of a few datagrams, at any time: each has one fate; what passes of one life of a datagram never overlaps,
        /// and comes with its own first one; and all bounds hold.
        #[test]
        fn each_fragment_has_one_fate(
            arrivals in prop::collection::vec((0..40u16, 0..12u16, 1..5u16, any::<bool>(), 0..3000usize, 0..400u64), 1..300),
        ) {
            let mut it = Bench::new(4);
            let (mut now, mut parts) = (NOW, BTreeMap::new());
            for (number, (id, start, len, last, bytes, millis)) in (0..).zip(arrivals) {
                now = now + Duration::from_millis(millis);
                parts.insert(number, (start, start + len));
                it.offer(number, id % 10, (start, start + len, last), bytes, now);
                if id > 30 {
                    it.reassembly.expire(now);
                    it.take_lost();
                }
                let held = it.reassembly.held();
                prop_assert!(held <= 4 && it.reassembly.datagrams() <= 4 + 16 + 1);
                prop_assert_eq!(it.passed.len() + it.lost.len() + it.refused.len() + held, number as usize + 1);
            }
            for life in it.lives.values().flatten() {
                let mut life: Vec<_> = life.iter().map(|number| parts[number]).collect();
                life.sort_unstable();
                prop_assert_eq!(life[0].0, 0);
                prop_assert!(life.is_sorted_by(|one, next| one.1 <= next.0), "{life:?}");
            }
            while it.reassembly.expire(now + AGE) {}
            it.take_lost();
            prop_assert_eq!((it.reassembly.held(), it.reassembly.datagrams()), (0, 0));
            prop_assert_eq!(it.passed.len() + it.lost.len() + it.refused.len(), parts.len());
        }
    }
}
