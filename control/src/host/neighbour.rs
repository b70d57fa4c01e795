//! The neighbour table: RFC 4861 §7.3's states, for IPv6 and, since RFC 826 leaves the matter open, for IPv4 too.
//!
//! The table decides and keeps time; it reads and writes no packet. What is to be done comes out as [`Effect`]s, in the
//! order in which it is to be done.
//!
//! ```text
//!              resolve            answer            reachable time
//!    (none) ───────────▶ INCOMPLETE ────▶ REACHABLE ───────────▶ STALE ◀── a request addressed to us
//!       ▲                    │ 3 × 1 s       ▲  ▲                  │ used
//!       │ 60 s               ▼        answer │  │ answer           ▼
//!       └───────────────── FAILED ◀──────── PROBE ◀───────────── DELAY
//!                                  3 × 1 s            5 s
//! ```
//!
//! An entry is made by our own resolution or by a request addressed to us, never by an advertisement that nobody asked for.
//! The table is bounded. To make room, the oldest failed entry goes, then the oldest stale one; those in use and those of
//! the file stay. Unanswered resolutions may take half of the table at most, so that a scan of a large subnet cannot push
//! out the neighbours that are there (RFC 6583 §7.1).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use dataplane::message::{NeighbourState, NeighbourUpdate};
use dataplane::plan::{InterfaceId, MacAddr};
use dataplane::time::Time;

use super::random::Random;

/// RFC 4861 §10, RETRANS_TIMER: time between two solicitations.
pub(super) const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// RFC 4861 §10, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT: solicitations before giving up.
const MAX_SOLICIT: u8 = 3;
/// RFC 4861 §10, DELAY_FIRST_PROBE_TIME: from the first use of a stale entry to its first probe.
const DELAY_FIRST_PROBE_TIME: Duration = Duration::from_secs(5);
/// RFC 4861 §10, REACHABLE_TIME; multiplied by a random factor of 0.5 to 1.5 at each confirmation.
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long a failed entry is kept to be looked at.
const FAILED_KEPT: Duration = Duration::from_secs(60);

/// What is known of a neighbour (RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NudState {
    /// Given in the configuration: never resolved, never expiring.
    Permanent,
    /// Solicited, not answered yet.
    Incomplete,
    /// Confirmed not long ago.
    Reachable,
    /// Known, not confirmed lately, and not used since.
    Stale,
    /// Used since it went stale; probed soon.
    Delay,
    /// Being probed.
    Probe,
    /// It did not answer.
    Failed,
}

impl NudState {
    /// Every state, in order.
    pub const ALL: [NudState; 7] = [
        NudState::Permanent,
        NudState::Incomplete,
        NudState::Reachable,
        NudState::Stale,
        NudState::Delay,
        NudState::Probe,
        NudState::Failed,
    ];

    /// The state's name in listings and metrics: those of iproute2.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            NudState::Permanent => "permanent",
            NudState::Incomplete => "incomplete",
            NudState::Reachable => "reachable",
            NudState::Stale => "stale",
            NudState::Delay => "delay",
            NudState::Probe => "probe",
            NudState::Failed => "failed",
        }
    }
}

/// One line of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface it is on.
    pub interface: InterfaceId,
    /// Its network address.
    pub address: IpAddr,
    /// Its Ethernet address, where known.
    pub mac: Option<MacAddr>,
    /// What is known of it.
    pub state: NudState,
    /// Since when it is in that state.
    pub since: Time,
}

/// A neighbour's name: where, and who.
pub(super) type Key = (InterfaceId, IpAddr);

/// Something that the table wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell the workers.
    Publish(NeighbourUpdate),
    /// Ask for the neighbour: this station if there is one to ask, else everyone.
    Solicit(Key, Option<MacAddr>),
}

/// The flags of an advertisement (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertisement {
    /// It answers a solicitation of ours, hence confirms that the neighbour hears us.
    pub solicited: bool,
    /// It replaces an address known before.
    pub replace: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: NudState,
    mac: Option<MacAddr>,
    since: Time,
    /// When something is to happen next; [`Time::NEVER`] if nothing.
    deadline: Time,
    /// Solicitations sent in this state.
    sent: u8,
}

impl Entry {
    /// Where it stands among those that may go to make room: the smallest first.
    fn eviction_rank(&self) -> Option<(u8, Time)> {
        match self.state {
            NudState::Failed => Some((0, self.since)),
            NudState::Stale => Some((1, self.since)),
            _ => None,
        }
    }

    /// What the workers know of it.
    fn published(&self) -> Option<NeighbourState> {
        match (self.state, self.mac) {
            (NudState::Permanent | NudState::Reachable, Some(mac)) => Some(NeighbourState::Reachable(mac)),
            (NudState::Stale | NudState::Delay | NudState::Probe, Some(mac)) => Some(NeighbourState::Stale(mac)),
            (NudState::Failed, _) => Some(NeighbourState::Failed),
            _ => None,
        }
    }
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub(super) struct Table {
    entries: BTreeMap<Key, Entry>,
    /// Index of `entries` by deadline.
    timers: BTreeSet<(Time, Key)>,
    /// Index of those that may be evicted, the first to go first.
    evictable: BTreeSet<((u8, Time), Key)>,
    /// How many are [`NudState::Incomplete`].
    incomplete: usize,
    limit: usize,
    random: Random,
    overflows: u64,
}

impl Table {
    /// An empty table for at most `limit` neighbours.
    pub fn new(limit: usize, random: Random) -> Self {
        Table {
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            evictable: BTreeSet::new(),
            incomplete: 0,
            limit,
            random,
            overflows: 0,
        }
    }

    /// Whether there is an entry, of any state.
    pub fn contains(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Whether a solicitation to this neighbour is out and unanswered.
    pub fn awaits(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| matches!(entry.state, NudState::Incomplete | NudState::Probe))
    }

    /// How often a neighbour was refused for want of room.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Everyone, by interface and address.
    pub fn iter(&self) -> impl Iterator<Item = Neighbour> + '_ {
        self.iter_after(None)
    }

    /// Those after this one, in the same order; everyone, if there is none.
    pub fn iter_after(&self, after: Option<Key>) -> impl Iterator<Item = Neighbour> + '_ {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((start, Bound::Unbounded)).map(|(&(interface, address), entry)| Neighbour {
            interface,
            address,
            mac: entry.mac,
            state: entry.state,
            since: entry.since,
        })
    }

    /// Removes a neighbour, here and in the workers' tables.
    pub fn forget_one(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.contains(key) {
            self.remove(key);
            effects.push(publish(key, NeighbourState::Failed));
        }
    }

    /// When [`Table::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|&(deadline, _)| deadline)
    }

    /// Adds a neighbour of the configuration, whatever the limit.
    pub fn insert_permanent(&mut self, key: Key, mac: MacAddr, now: Time, effects: &mut Vec<Effect>) {
        self.set(key, NudState::Permanent, Some(mac), now, effects);
    }

    /// A worker holds packets for this neighbour.
    pub fn resolve(&mut self, key: Key, now: Time, effects: &mut Vec<Effect>) {
        match self.entries.get(&key).map(|entry| (entry.state, entry.published())) {
            Some((NudState::Incomplete, _)) => {}
            None | Some((NudState::Failed, _)) => {
                if self.incomplete >= self.limit.div_ceil(2) || !self.make_room(key, effects) {
                    self.overflows += 1;
                    effects.push(publish(key, NeighbourState::Failed));
                    return;
                }
                self.set(key, NudState::Incomplete, None, now, effects);
            }
            // The worker does not know what we know: say it again.
            Some((_, published)) => effects.extend(published.map(|state| publish(key, state))),
        }
    }

    /// A worker sent to a neighbour that it knows as stale (RFC 4861 §7.3.3).
    pub fn used(&mut self, key: Key, now: Time, effects: &mut Vec<Effect>) {
        if let Some(&Entry { state: NudState::Stale, mac, .. }) = self.entries.get(&key) {
            self.set(key, NudState::Delay, mac, now, effects);
        }
    }

    /// A neighbour asked for one of our addresses and so told us its own (RFC 4861 §7.2.3; RFC 826: "if I am the target").
    /// It has not been shown to hear us.
    pub fn asked(&mut self, key: Key, mac: MacAddr, now: Time, effects: &mut Vec<Effect>) {
        match self.entries.get(&key) {
            Some(entry) if entry.state == NudState::Permanent || entry.mac == Some(mac) => {}
            _ => {
                if self.make_room(key, effects) {
                    self.set(key, NudState::Stale, Some(mac), now, effects);
                } else {
                    self.overflows += 1;
                }
            }
        }
    }

    /// A neighbour says where it is (RFC 4861 §7.2.5). False if nobody wanted to know.
    pub fn advertised(
        &mut self,
        key: Key,
        mac: Option<MacAddr>,
        how: Advertisement,
        now: Time,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(&Entry { state, mac: known, .. }) = self.entries.get(&key) else { return false };
        let moved = mac.is_some() && mac != known;
        match state {
            NudState::Permanent | NudState::Failed => return false,
            NudState::Incomplete if mac.is_none() => return false,
            NudState::Incomplete => {
                let state = if how.solicited { NudState::Reachable } else { NudState::Stale };
                self.set(key, state, mac, now, effects);
            }
            NudState::Reachable if moved && !how.replace => self.set(key, NudState::Stale, known, now, effects),
            _ if moved && !how.replace => {}
            _ if how.solicited => self.set(key, NudState::Reachable, mac.or(known), now, effects),
            _ if moved => self.set(key, NudState::Stale, mac, now, effects),
            _ => {}
        }
        true
    }

    /// The link is down: what was known of its neighbours may no longer hold when it is back, and who waits for one waits in
    /// vain. Those of the configuration stay.
    pub fn forget(&mut self, interface: InterfaceId, effects: &mut Vec<Effect>) {
        let there = self.entries.iter().filter(|(key, entry)| key.0 == interface && entry.state != NudState::Permanent);
        let gone: Vec<_> = there.map(|(&key, entry)| (key, entry.state)).collect();
        for (key, state) in gone {
            if state != NudState::Failed {
                effects.push(publish(key, NeighbourState::Failed));
            }
            self.remove(key);
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some(&(deadline, key)) = self.timers.first()
            && deadline <= now
        {
            let Some(&entry) = self.entries.get(&key) else {
                self.timers.pop_first();
                continue;
            };
            let Entry { state, mac, sent, .. } = entry;
            match state {
                NudState::Incomplete | NudState::Probe if sent < MAX_SOLICIT => {
                    effects.push(Effect::Solicit(key, mac));
                    self.put(key, Entry { sent: sent + 1, deadline: now + RETRANS_TIMER, ..entry });
                }
                NudState::Incomplete | NudState::Probe => self.set(key, NudState::Failed, None, now, effects),
                NudState::Reachable => self.set(key, NudState::Stale, mac, now, effects),
                NudState::Delay => self.set(key, NudState::Probe, mac, now, effects),
                NudState::Failed | NudState::Stale | NudState::Permanent => self.remove(key),
            }
        }
    }

    /// Enters a state: its timer, its solicitation, and the news for the workers if there is any.
    fn set(&mut self, key: Key, state: NudState, mac: Option<MacAddr>, now: Time, effects: &mut Vec<Effect>) {
        let before = self.entries.get(&key).copied();
        let deadline = match state {
            NudState::Permanent | NudState::Stale => Time::NEVER,
            NudState::Incomplete | NudState::Probe => now + RETRANS_TIMER,
            NudState::Reachable => now + self.random.around(REACHABLE_TIME),
            NudState::Delay => now + DELAY_FIRST_PROBE_TIME,
            NudState::Failed => now + FAILED_KEPT,
        };
        let soliciting = matches!(state, NudState::Incomplete | NudState::Probe);
        let since = before.filter(|entry| entry.state == state).map_or(now, |entry| entry.since);
        let entry = Entry { state, mac, since, deadline, sent: u8::from(soliciting) };
        // A worker reports use once per publication, so going stale again is news even with the same address.
        let known = before.and_then(|entry| entry.published());
        if let Some(news) = entry.published()
            && (Some(news) != known || state == NudState::Stale)
        {
            effects.push(publish(key, news));
        }
        if soliciting {
            effects.push(Effect::Solicit(key, mac));
        }
        self.put(key, entry);
    }

    /// Makes sure that `key` has a place, evicting if it must.
    fn make_room(&mut self, key: Key, effects: &mut Vec<Effect>) -> bool {
        if self.entries.contains_key(&key) || self.entries.len() < self.limit {
            return true;
        }
        let Some(&(_, victim)) = self.evictable.first() else { return false };
        // The workers are to forget a stale neighbour; that a failed one failed they know.
        if self.entries[&victim].state == NudState::Stale {
            effects.push(publish(victim, NeighbourState::Failed));
        }
        self.remove(victim);
        true
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.remove(key);
        if entry.deadline < Time::NEVER {
            self.timers.insert((entry.deadline, key));
        }
        self.evictable.extend(entry.eviction_rank().map(|rank| (rank, key)));
        self.incomplete += usize::from(entry.state == NudState::Incomplete);
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.timers.remove(&(entry.deadline, key));
            if let Some(rank) = entry.eviction_rank() {
                self.evictable.remove(&(rank, key));
            }
            self.incomplete -= usize::from(entry.state == NudState::Incomplete);
        }
    }
}

fn publish((interface, address): Key, state: NeighbourState) -> Effect {
    Effect::Publish(NeighbourUpdate { interface, address, state })
}
