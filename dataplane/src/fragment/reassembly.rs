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
