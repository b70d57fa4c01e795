//! The engine's flow table with sessions of each size class, and nothing else: what they will cost the translators to come.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dataplane::pool::Proto;
use dataplane::session::ends::{Ends, Ends6, Ends44, Ends64, Ends66, Key, Words};
use dataplane::session::flows::{FlowArena, Flows};
use dataplane::session::index::BucketArena;
use dataplane::session::slab::{RECORDS, SlabArena};
use dataplane::session::{Direction, NONE, Secret, Session};
use dataplane::steer::SHARDS;
use dataplane::time::Time;
use dataplane::trace::RuleRef;
use dataplane::worker::BURST;
use perf::clock;
use perf::figures::{Case, Sheet, Window};
use perf::frames::permutation;

use crate::HITS;

/// A class, and the ends of its n-th flow: one mapping and one remote end each, by CSIT's scheme.
trait Class: Ends {
    const NAME: &'static str;
    fn of(flow: u32) -> Self;
}

const fn inside6(host: u32) -> Words {
    [0x2001_0db8, 0, 0, host]
}

const fn remote6(host: u32) -> Words {
    [0x2001_0db8, 0xffff, 0, host]
}

impl Class for Ends44 {
    const NAME: &'static str = "sessions 4-4";
    fn of(flow: u32) -> Self {
        let host = flow / 63;
        Ends44([0x0a00_0000 + host, 0x1400_0000 + host, 0xcb00_7100 + flow / 64_512])
    }
}

impl Class for Ends6 {
    const NAME: &'static str = "sessions 6, untranslated";
    fn of(flow: u32) -> Self {
        Ends6([inside6(flow / 63), remote6(flow / 63)])
    }
}

impl Class for Ends64 {
    const NAME: &'static str = "sessions 6-4";
    fn of(flow: u32) -> Self {
        let host = flow / 63;
        let external = 0xcb00_7100 + flow / 64_512;
        Ends64 { inside: inside6(host), remote: 0x1400_0000 + host, external, prefix: 0 }
    }
}

impl Class for Ends66 {
    const NAME: &'static str = "sessions 6-6";
    fn of(flow: u32) -> Self {
        Ends66([inside6(flow / 63), remote6(flow / 63), [0x2001_0db8, 1, 0, flow / 64_512]])
    }
}

/// All classes with so many sessions.
pub fn rounds(count: usize, sheet: &mut Sheet) -> Result<()> {
    round::<Ends44>(count, sheet)?;
    round::<Ends6>(count, sheet)?;
    round::<Ends64>(count, sheet)?;
    round::<Ends66>(count, sheet)
}

/// The session of a flow.
fn session<E: Class>(flow: u32) -> Session<E> {
    let port = |number: u32| u16::try_from(1024 + number).unwrap_or(u16::MAX);
    let ports = [port(flow % 63), port(flow % 63), port(flow % 64_512)];
    let mut session = Session::between(E::of(flow), ports, Proto::Udp, RuleRef::None);
    session.deadline = Time::from_secs(300);
    session
}

const BOTH: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

/// Fills a table, hits it as the engine does, and empties it.
fn round<E: Class>(count: usize, sheet: &mut Sheet) -> Result<()> {
    let case = |what: &str| Case::new(&format!("{}: {what}", E::NAME), count);
    if !sheet.wants(E::NAME) {
        return Ok(());
    }
    let secret = Secret::new([7; 16]);
    let mut arena = FlowArena::<E>::new(count);
    // As in the engine, an inside host's sessions are in one of 64 tables.
    let mut shards: Vec<_> = (0..SHARDS).map(|_| Flows::<E>::new(count, Time::ZERO)).collect();
    let shard_of = |flow: usize| flow / 63 % SHARDS;
    let free = (arena.buckets.free(), arena.sessions.free());
    let order: Vec<u32> = permutation(count, 1).into_iter().map(u32::try_from).collect::<Result<_, _>>()?;
    let mut ids = vec![NONE; count];

    let mut spent = Vec::new();
    for some in order.chunks(BURST) {
        let start = clock::ticks();
        for &flow in some {
            let session = session::<E>(flow);
            let hashes = BOTH.map(|direction| session.key(direction).hash(&secret, Proto::Udp));
            let shard = &mut shards[shard_of(flow as usize)];
            ids[flow as usize] = shard.insert(&mut arena, session, hashes).context("no room for a session")?;
        }
        spent.push(clock::ticks() - start);
    }
    let mean = spent.iter().sum::<u64>() as f64 / count as f64;
    sheet.put(&case("insertion"), "cycles/session", Window::of(mean));
    let buckets = (free.0 - arena.buckets.free()) * BucketArena::bytes();
    let records = (free.1 - arena.sessions.free()) * RECORDS * SlabArena::<Session<E>>::bytes();
    sheet.put(&case("memory"), "bytes/session", Window::of((buckets + records) as f64 / count as f64));

    let again = permutation(count, 2);
    let mut next = again.iter().copied().cycle();
    for (direction, what) in BOTH.into_iter().zip(["hit from inside", "hit from outside"]) {
        let mut spent = Vec::with_capacity(HITS / BURST);
        // The first quarter warms up.
        for at in 0..HITS / BURST * 5 / 4 {
            let packets: [_; BURST] = std::array::from_fn(|_| {
                let flow = next.next().unwrap_or(0);
                (flow, session::<E>(u32::try_from(flow).unwrap_or(0)).key(direction))
            });
            let start = clock::ticks();
            let hashes = packets.map(|(_, key)| key.hash(&secret, Proto::Udp));
            let buckets: [_; BURST] = std::array::from_fn(|at| shards[shard_of(packets[at].0)].home_bucket(hashes[at]));
            let mut guesses: [u32; BURST] = std::array::from_fn(|at| buckets[at].guess(hashes[at]));
            for (at, guess) in guesses.iter_mut().enumerate() {
                let shard = &shards[shard_of(packets[at].0)];
                match *guess {
                    NONE => *guess = shard.guess_overflow(hashes[at]).unwrap_or(NONE),
                    id => shard.records().prefetch(id),
                }
            }
            let mut right = true;
            for (at, &(flow, key)) in packets.iter().enumerate() {
                let shard = &mut shards[shard_of(flow)];
                let fits = |id: &u32| shard.records().get(*id).is_some_and(|session| session.key(direction) == key);
                let id = Some(guesses[at]).filter(fits);
                let id = id.or_else(|| shard.find(hashes[at], direction, key, Proto::Udp)).unwrap_or(NONE);
                if let Some(session) = shard.records_mut().get_mut(id) {
                    session.deadline = session.deadline + Duration::from_nanos(1);
                }
                right &= id == ids[flow];
            }
            let ticks = clock::ticks() - start;
            ensure!(right, "{}: not the session that was entered", E::NAME);
            if at >= HITS / BURST / 4 {
                spent.push(ticks);
            }
        }
        sheet.put(&case(what), "cycles/hit", Window::new(spent, BURST));
    }

    let mut spent = Vec::new();
    for some in again.chunks(BURST) {
        let start = clock::ticks();
        some.iter().for_each(|&flow| shards[shard_of(flow)].records().prefetch(ids[flow]));
        for &flow in some {
            let shard = &shards[shard_of(flow)];
            shard.prefetch_entries(&secret, shard.records().get(ids[flow]).context("a session is gone")?);
        }
        for &flow in some {
            shards[shard_of(flow)].remove(&mut arena, &secret, ids[flow]).context("a session is gone")?;
        }
        spent.push(clock::ticks() - start);
    }
    let mean = spent.iter().sum::<u64>() as f64 / count as f64;
    sheet.put(&case("removal"), "cycles/session", Window::of(mean));
    ensure!(shards.iter().all(|shard| shard.records().is_empty()), "{}: sessions are left", E::NAME);
    Ok(())
}
