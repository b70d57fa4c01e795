//! Timers: which records are due.
//!
//! A wheel of 8,192 slots of one second. Each slot is a list through the caller's own records ([`Link`] in the record,
//! reached by [`Links`]); which slots are occupied is noted in a bitmap, so an idle wheel, or a clock that jumps, costs
//! nothing. A deadline beyond the wheel's 2.3 hours waits at its end.
//!
//! The wheel is lazy: a record whose deadline moves on is left where it is. [`Wheel::next_due`] gives it back, disarmed,
//! when its slot is reached; the caller looks at the true deadline, and deletes the record or arms it again. Thus:
//!
//! - a record is never given back later than one second after the deadline that it was armed with, provided the caller
//!   asks that often;
//! - it is given back before that deadline only from the wheel's end.
//!
//! All operations take constant time. None allocates or panics.

use super::bits::BitSet;
use crate::time::Time;

/// Slots of the wheel. A power of two.
const SLOTS: usize = 8192;
/// The ticks that they stand for at a time.
const TICKS: u64 = SLOTS as u64;
/// The width of a slot, in nanoseconds.
const TICK: u64 = 1_000_000_000;
/// The tick that a time is in: within one, [`Wheel::next_due`] has no more to say after it has said that there is none.
#[inline]
#[must_use]
pub const fn tick_of(now: Time) -> u64 {
    now.0 / TICK
}

/// No record, or no slot.
const NONE: u32 = u32::MAX;

/// Marks, in place of a record before it, the slot that a record is the first of.
const FIRST: u32 = 1 << 31;

/// A record's place in the wheel. The default is disarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The record before it in its slot's list; of the first, the slot with [`FIRST`]; [`NONE`] if it is in none.
    prev: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Link { prev: NONE, next: NONE }
    }
}

impl Link {
    /// Whether the record is in the wheel.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.prev != NONE
    }
}

/// Where the links are: the caller's records by id. Ids are below 2^31.
pub trait Links {
    /// The link of record `id`. The wheel asks only for records that it was given; a record is disarmed before it goes.
    fn link(&mut self, id: u32) -> Option<&mut Link>;
}

/// The timers of one shard.
#[derive(Debug)]
pub struct Wheel {
    /// The first record of each slot.
    heads: Box<[u32]>,
    occupied: BitSet,
    /// Every slot before this tick has been emptied. The slots stand for the [`TICKS`] ticks from here on.
    tick: u64,
}

impl Wheel {
    /// A wheel without records.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Wheel { heads: vec![NONE; SLOTS].into_boxed_slice(), occupied: BitSet::new(SLOTS), tick: now.0 / TICK }
    }

    /// Puts record `id` into the wheel, or moves it there: it will be due in the second after `deadline`.
    pub fn arm(&mut self, links: &mut impl Links, id: u32, deadline: Time) {
        self.disarm(links, id);
        let tick = deadline.0.div_ceil(TICK).clamp(self.tick, self.tick + (TICKS - 1));
        let slot = (tick % TICKS) as u32;
        let Some(head) = self.heads.get_mut(slot as usize) else { return };
        let next = std::mem::replace(head, id);
        if let Some(link) = links.link(id) {
            *link = Link { prev: FIRST | slot, next };
        }
        match links.link(next).filter(|_| next != NONE) {
            Some(link) => link.prev = id,
            None => self.occupied.insert(slot as usize),
        }
    }

    /// Takes record `id` out of the wheel, if it is in.
    pub fn disarm(&mut self, links: &mut impl Links, id: u32) {
        let Link { prev, next } = links.link(id).map(std::mem::take).unwrap_or_default();
        if prev == NONE {
            return;
        }
        if next != NONE
            && let Some(link) = links.link(next)
        {
            link.prev = prev;
        }
        if prev & FIRST == 0 {
            if let Some(link) = links.link(prev) {
                link.next = next;
            }
            return;
        }
        let slot = (prev & !FIRST) as usize;
        if let Some(head) = self.heads.get_mut(slot) {
            *head = next;
        }
        if next == NONE {
            self.occupied.remove(slot);
        }
    }

    /// Disarms one record whose slot is due and returns its id. None when there is none. To be called until then, or
    /// until the caller has done enough for now: what is left stays due.
    pub fn next_due(&mut self, links: &mut impl Links, now: Time) -> Option<u32> {
        let now = now.0 / TICK;
        // After a longer jump all slots are due, in any order.
        self.tick = self.tick.max(now.saturating_sub(TICKS - 1));
        let here = (self.tick % TICKS) as usize;
        let next = self.occupied.next(here).or_else(|| self.occupied.next(0));
        let ahead = next.map(|slot| (slot as u64).wrapping_sub(self.tick) % TICKS);
        let Some(due) = ahead.map(|ahead| self.tick + ahead).filter(|&due| due <= now) else {
            self.tick = self.tick.max(now);
            return None;
        };
        self.tick = due;
        let id = *self.heads.get((due % TICKS) as usize)?;
        self.disarm(links, id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    impl Links for Vec<Link> {
        fn link(&mut self, id: u32) -> Option<&mut Link> {
            self.get_mut(id as usize)
        }
    }

    const RECORDS: u32 = 50;

    #[derive(Debug, Clone)]
    enum Step {
        /// Arm a record, so many milliseconds from now (or before).
        Arm(u32, i64),
        Disarm(u32),
        /// Let so many milliseconds pass, then take so many due records at the most.
        Pass(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let span = prop_oneof![-3_000i64..10_000, 0i64..600_000, 0i64..40_000_000, Just(i64::MAX)];
        let pass = prop_oneof![0u64..3_000, 0u64..600_000, 0u64..400_000_000];
        prop_oneof![
            4 => (0..RECORDS, span).prop_map(|(id, span)| Step::Arm(id, span)),
            1 => (0..RECORDS).prop_map(Step::Disarm),
            2 => (pass, 1usize..100).prop_map(|(pass, budget)| Step::Pass(pass, budget)),
        ]
    }

    fn offset(now: Time, millis: i64) -> Time {
        let span = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 { now - span } else { now + span }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Used as it is meant to be, against deadlines in a map.
        #[test]
        fn gives_back_what_is_due(
            start in prop_oneof![Just(0u64), 0..40_000_000u64, Just(1_700_000_000_123)],
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut now = Time::from_millis(start);
            let mut links = vec![Link::default(); RECORDS as usize];
            let mut wheel = Wheel::new(now);
            let mut model = BTreeMap::new();
            // Up to here, the wheel is exact: its length from when it was last emptied of what was due.
            let length = Duration::from_secs(8190);
            let mut reach = now + length;
            for step in steps {
                match step {
                    Step::Arm(id, span) => {
                        let deadline = offset(now, span);
                        wheel.arm(&mut links, id, deadline);
                        model.insert(id, (deadline, deadline <= reach));
                    }
                    Step::Disarm(id) => {
                        wheel.disarm(&mut links, id);
                        model.remove(&id);
                    }
                    Step::Pass(millis, budget) => {
                        now = now + Duration::from_millis(millis);
                        let mut done = false;
                        for _ in 0..budget {
                            let Some(id) = wheel.next_due(&mut links, now) else {
                                done = true;
                                break;
                            };
                            let armed = model.remove(&id);
                            prop_assert!(!links[id as usize].is_armed());
                            let Some((deadline, exact)) = armed else {
                                return Err(TestCaseError::fail(format!("{id} is not armed")));
                            };
                            if deadline > now {
                                prop_assert!(!exact, "{} is early", id);
                                wheel.arm(&mut links, id, deadline);
                                model.insert(id, (deadline, deadline <= reach));
                            }
                        }
                        if done {
                            reach = now + length;
                            for (id, &(deadline, _)) in &model {
                                prop_assert!(deadline + Duration::from_secs(1) > now, "{} is overdue", id);
                            }
                        }
                    }
                }
                for id in 0..RECORDS {
                    prop_assert_eq!(links[id as usize].is_armed(), model.contains_key(&id));
                }
            }
            // All of them come back in the end, each once.
            let mut left: Vec<u32> = Vec::new();
            for _ in 0..3 {
                now = now + Duration::from_secs(8192);
                while let Some(id) = wheel.next_due(&mut links, now) {
                    left.push(id);
                }
            }
            left.sort_unstable();
            prop_assert!(left.iter().eq(model.keys()));
        }
    }

    /// Within the wheel's length nothing is given back early, and a second is the most that it is late.
    #[test]
    fn is_exact_to_the_second() {
        for deadline in [0, 1, 999, 1_000, 1_001, 240_000, 7_440_000, 8_190_999] {
            let deadline = Time::from_millis(deadline);
            let mut links = vec![Link::default(); 1];
            let mut wheel = Wheel::new(Time::ZERO);
            wheel.arm(&mut links, 0, deadline);
            let mut now = Time::ZERO;
            while wheel.next_due(&mut links, now).is_none() {
                now = now + Duration::from_millis(1);
            }
            assert!(now >= deadline && now.since(deadline) < Duration::from_secs(1), "{deadline:?} at {now:?}");
        }
    }

    /// The clock jumps by days: all are looked at at once, and a record that lives on is not looked at again and again.
    #[test]
    fn a_jump_is_cheap() {
        let mut links = vec![Link::default(); 1000];
        let mut wheel = Wheel::new(Time::ZERO);
        for id in 0..1000 {
            wheel.arm(&mut links, id, Time::from_secs(u64::from(id) * 9));
        }
        let jump = Time::from_secs(1_000_000);
        let deadline = jump + Duration::from_secs(300);
        let (mut looks, mut ends) = (vec![0; 1000], 0);
        for second in 0..=300 {
            let now = jump + Duration::from_secs(second);
            while let Some(id) = wheel.next_due(&mut links, now) {
                looks[id as usize] += 1;
                if deadline > now {
                    wheel.arm(&mut links, id, deadline);
                } else {
                    ends += 1;
                }
            }
            assert!(looks.iter().all(|&looks| looks > 0));
        }
        assert_eq!(ends, 1000);
        assert!(looks.iter().all(|&looks| looks <= 3), "{looks:?}");
    }
}
