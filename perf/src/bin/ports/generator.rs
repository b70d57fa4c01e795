//! The generator: one thread with a port to each side of whatever stands between. It makes what testpmd can't: valid checksums,
//! IPv6, millions of flows, and return traffic to the external endpoints that it has learnt.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dataplane::dpdk::{Eal, Mbuf, Mempool, Port, PortConfig, Queue};
use dataplane::packet::{Packet, PacketPool};
use dataplane::worker::{BURST, Burst, Device};
use perf::clock;
use perf::frames::{End, Lengths, Traffic, Writer4, ends4, flow_ends, flow_of, is_right4};

/// Longer than anything takes that does not fail.
const PATIENCE: Duration = Duration::from_secs(30);
/// Another process that has sent nothing for so long sends nothing more.
pub const QUIET: Duration = Duration::from_millis(50);
/// Nothing came out for so long while flows are opened: what is missing is lost.
const SILENCE: Duration = Duration::from_millis(200);
/// Packets on their way while flows are opened: few enough for every ring.
const WINDOW: usize = 512;
/// Passes in which lost packets are sent again while flows are opened.
pub const PASSES: usize = 5;
/// Slots of a device's rings.
const SLOTS: u16 = 2048;
/// Buffers that are kept at hand.
const STOCK: usize = 1024;
/// Tries at a rate that the generator does not keep.
const TRIES: usize = 3;
/// Delays that a trial keeps.
const DELAYS: u64 = 2_000_000;
/// Packets a second below which they are sent one by one.
const SPARSE: f64 = 1e6;
/// Packets that rings and buffers on the way hold at most.
const ON_THE_WAY: u64 = 16_384;
/// The part of a trial's time by which its last packet may be late.
const SLACK: f64 = 0.02;
/// Where an IPv4 frame's payload begins, and an IPv6 frame's.
const PAYLOAD: [usize; 2] = [42, 62];

/// The traffic of a trial: from inside, from outside.
pub type Both = [Option<Traffic>; 2];

/// A port of the generator.
#[derive(Debug)]
struct Link {
    queue: Queue,
    /// What its ring did not take.
    waiting: Burst<Mbuf>,
}

/// Lets these sides send: the other side's traffic is put away for the time being.
pub fn from_sides<T>(traffic: &mut Both, sides: [bool; 2], send: impl FnOnce(&mut Both) -> T) -> T {
    let mut part: Both = std::array::from_fn(|side| traffic[side].take_if(|_| sides[side]));
    let done = send(&mut part);
    for (mine, part) in traffic.iter_mut().zip(part) {
        *mine = mine.take().or(part);
    }
    done
}

/// What a trial at a fixed rate gave.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Packets offered to each side.
    pub sent: [u64; 2],
    /// Packets that came out at the other.
    pub received: [u64; 2],
    /// How long they were on their way, in ticks: a sample, sorted.
    pub delays: Vec<u64>,
    /// The longest time between two turns of the generator's loop, in ticks: what was late for that reason is its own doing.
    pub gap: u64,
    /// Whether the generator could send as fast as it should.
    pub kept: bool,
}

impl Trial {
    /// The share that was lost.
    pub fn loss(&self) -> f64 {
        let (sent, received) = (self.sent[0] + self.sent[1], self.received[0] + self.received[1]);
        1.0 - received as f64 / sent.max(1) as f64
    }

    /// Whether everything came out.
    fn is_whole(&self) -> bool {
        self.sent == self.received
    }

    /// Whether it was offered at its rate, and no larger share than this was lost.
    pub fn passes(&self, tolerance: f64) -> bool {
        self.kept && if tolerance > 0.0 { self.loss() <= tolerance } else { self.is_whole() }
    }
}

/// The generator.
#[derive(Debug)]
pub struct Generator {
    eal: Eal,
    pool: Mempool,
    frequency: f64,
    /// What has sent nothing for so long sends nothing more.
    quiet: Duration,
    links: Vec<[Link; 2]>,
    stock: Vec<Mbuf>,
    /// Frames with a wrong checksum among those that were looked at.
    wrong: u64,
}

impl Generator {
    /// One without ports, which gives what stands between so long to send what it still has.
    pub fn new(eal: Eal, pool: Mempool, frequency: f64, quiet: Duration) -> Self {
        Generator { eal, pool, frequency, quiet, links: Vec::new(), stock: Vec::with_capacity(STOCK), wrong: 0 }
    }

    /// Opens two devices, which lead to a peer that is awake, and waits for their links. They are the next pair.
    pub fn connect(&mut self, devices: [String; 2]) -> Result<()> {
        let open = |device: String| -> Result<(Port, Queue)> {
            let config = PortConfig { rx_descriptors: SLOTS, tx_descriptors: SLOTS, ..PortConfig::new(&device) };
            let (port, mut queues) = Port::open(self.eal, &config, &[&self.pool])?;
            Ok((port, queues.pop().context("no queue")?))
        };
        let [inside, outside] = devices;
        let [(inside, near), (outside, far)] = [open(inside)?, open(outside)?];
        let start = Instant::now();
        while ![&inside, &outside].iter().all(|it| it.link().up) {
            ensure!(start.elapsed() < PATIENCE, "the links do not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.take([near, far]);
        Ok(())
    }

    /// Takes two ports that are open as the next pair.
    pub fn take(&mut self, queues: [Queue; 2]) {
        self.links.push(queues.map(|queue| Link { queue, waiting: Burst::new() }));
    }

    /// Ticks in a duration.
    pub fn ticks(&self, time: Duration) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours at some GHz")]
        let ticks = (time.as_secs_f64() * self.frequency) as u64;
        ticks
    }

    /// Sends as much as the peer takes. Returns packets per second that came out at outside and inside, over `time` after
    /// `warm`.
    pub fn rush(&mut self, at: usize, traffic: &mut Both, warm: Duration, time: Duration) -> Result<[f64; 2]> {
        let start = clock::ticks();
        let (begin, end) = (start + self.ticks(warm), start + self.ticks(warm + time));
        let (mut received, mut from) = ([0; 2], start);
        let mut counting = false;
        let now = loop {
            let now = clock::ticks();
            if now >= end {
                break now;
            }
            if !counting && now >= begin {
                (counting, received, from) = (true, [0; 2], now);
            }
            for side in 0..2 {
                if let Some(traffic) = &mut traffic[side] {
                    let link = &mut self.links[at][side];
                    if link.waiting.is_empty() {
                        fill(&mut link.waiting, BURST, traffic, &mut self.stock, &mut self.pool)?;
                    }
                    link.queue.transmit(&mut link.waiting);
                }
                received[1 - side] += self.collect(at, side, |_| ());
            }
        };
        self.drain(at);
        self.check()?;
        let seconds = (now - from) as f64 / self.frequency;
        Ok(received.map(|it| it as f64 / seconds))
    }

    /// Sends `packets` from each side that has traffic, `rate` a second; what a ring does not take is lost. All frames carry
    /// the time at which they were sent. `see` is shown what comes out. What can't become a trial with this tolerance any more, as too
    /// many packets are lost or late, is broken off.
    #[allow(clippy::too_many_arguments)]
    fn pace_within(
        &mut self,
        at: usize,
        traffic: &mut Both,
        rate: f64,
        packets: u64,
        tolerance: Option<f64>,
        mut see: impl FnMut(&[u8]),
    ) -> Result<Trial> {
        self.drain(at);
        let mut trial = Trial::default();
        let mut broken_off = false;
        let (per_tick, quiet) = (rate / self.frequency, self.ticks(self.quiet));
        // One delay in so many is kept.
        let every = 1 + packets / DELAYS;
        // A burst at a time, unless that would take long to come together.
        let least = if rate > SPARSE { BURST as u64 } else { 1 };
        let start = clock::ticks();
        let (mut last, mut heard, mut sent) = (start, start, start);
        loop {
            let now = clock::ticks();
            trial.gap = trial.gap.max(now - last);
            last = now;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of packets")]
            let due = packets.min(((now - start) as f64 * per_tick) as u64);
            let mut done = true;
            for side in 0..2 {
                let Some(traffic) = &mut traffic[side] else { continue };
                let owed = due - trial.sent[side];
                if owed >= least || (owed > 0 && due == packets) {
                    let link = &mut self.links[at][side];
                    let count = usize::try_from(owed).map_or(BURST, |owed| owed.min(BURST));
                    fill(&mut link.waiting, count, traffic, &mut self.stock, &mut self.pool)?;
                    link.waiting.iter_mut().for_each(|packet| stamp(packet.data_mut()));
                    link.queue.transmit(&mut link.waiting);
                    Packet::discard(&mut link.waiting);
                    trial.sent[side] += count as u64;
                    (heard, sent) = (now, now);
                }
                done &= trial.sent[side] == packets;
            }
            for side in 0..2 {
                let (delays, mut n) = (&mut trial.delays, trial.received[1 - side]);
                let count = self.collect(at, side, |frame| {
                    see(frame);
                    n += 1;
                    if n % every == 0 {
                        delays.extend(delay(frame));
                    }
                });
                trial.received[1 - side] += count;
                if count > 0 {
                    heard = now;
                }
            }
            if done && (trial.is_whole() || now > heard + quiet) {
                break;
            }
            if let Some(tolerance) = tolerance {
                let lost = (trial.sent[0] + trial.sent[1]).saturating_sub(trial.received[0] + trial.received[1]);
                let bearable = packets as f64 * 2.0 * tolerance + (2 * ON_THE_WAY) as f64;
                let late = (0..2).filter(|&side| traffic[side].is_some()).map(|side| due - trial.sent[side]).max();
                if lost as f64 > bearable || late.unwrap_or(0) as f64 > packets as f64 * SLACK + (8 * BURST) as f64 {
                    broken_off = true;
                    break;
                }
            }
        }
        trial.delays.sort_unstable();
        // A burst later than it should be is no fault.
        trial.kept = !broken_off && (sent - start) as f64 * per_tick <= packets as f64 * (1.0 + SLACK) + BURST as f64;
        self.check()?;
        Ok(trial)
    }

    /// The same, whatever becomes of it.
    pub fn pace(
        &mut self,
        at: usize,
        traffic: &mut Both,
        rate: f64,
        packets: u64,
        see: impl FnMut(&[u8]),
    ) -> Result<Trial> {
        self.pace_within(at, traffic, rate, packets, None, see)
    }

    /// Whether no larger share than `tolerance` is lost. Tried again if that was for the generator's own sake, as when it was interrupted.
    pub fn passes(&mut self, at: usize, traffic: &mut Both, rate: f64, packets: u64, tolerance: f64) -> Result<Trial> {
        let mut trial = Trial::default();
        for _ in 0..TRIES {
            trial = self.pace_within(at, traffic, rate, packets, Some(tolerance), |_| ())?;
            if trial.passes(tolerance) || trial.loss() > tolerance {
                break;
            }
        }
        Ok(trial)
    }

    /// The same as [`Generator::pace`], again if the generator itself did not keep the rate, as when it was interrupted.
    pub fn pace_again(&mut self, at: usize, traffic: &mut Both, rate: f64, packets: u64) -> Result<Trial> {
        let mut trial = Trial::default();
        for _ in 0..TRIES {
            trial = self.pace(at, traffic, rate, packets, |_| ())?;
            if trial.kept {
                break;
            }
        }
        Ok(trial)
    }

    /// Takes what has come at one side, shows it, and keeps the buffers. Returns how many.
    fn collect(&mut self, at: usize, side: usize, mut see: impl FnMut(&[u8])) -> u64 {
        let mut burst = Burst::<Mbuf>::new();
        self.links[at][side].queue.receive(&mut burst);
        let mut count = 0;
        for packet in &burst {
            let frame = packet.data();
            if is_ours(frame) {
                count += 1;
                see(frame);
            }
        }
        // One frame of a burst is looked at closely.
        if let Some(frame) = burst.first().map(Packet::data).filter(|it| is_ours(it) && it[12..14] == [8, 0]) {
            self.wrong += u64::from(!is_right4(frame));
        }
        let room = STOCK.saturating_sub(self.stock.len()).min(burst.len());
        self.stock.extend(burst.drain(..room));
        Packet::discard(&mut burst);
        count
    }

    /// Receives until nothing comes any more, and forgets it.
    pub fn drain(&mut self, at: usize) {
        for link in &mut self.links[at] {
            Packet::discard(&mut link.waiting);
        }
        let mut heard = Instant::now();
        while heard.elapsed() < self.quiet {
            if (0..2).any(|side| self.collect(at, side, |_| ()) > 0) {
                heard = Instant::now();
            }
        }
    }

    fn check(&mut self) -> Result<()> {
        ensure!(self.wrong == 0, "{} frames with a wrong checksum came out", std::mem::take(&mut self.wrong));
        Ok(())
    }

    /// Opens flows, all checked: each comes out once with right checksums, and a reply to where it came from reaches its
    /// inside end. Returns the external ends by flow, or how many flows passed.
    pub fn open(&mut self, at: usize, flows: usize, passes: usize) -> Result<Result<Vec<End>, usize>> {
        self.drain(at);
        let writer = Writer4::new();
        let mut externals: Vec<Option<End>> = vec![None; flows];
        let requests = |flow: usize| writer.patch(flow_ends(flow, 1), 64);
        self.send_all(at, 0, &mut externals, passes, requests, |frame| {
            let (external, remote) = ends4(frame);
            Some((flow_of(remote, 1)?, external))
        })?;
        let mut came: Vec<End> = externals.iter().flatten().copied().collect();
        if came.len() < flows {
            return Ok(Err(came.len()));
        }
        let passed = self.validate(at, &came, passes)?;
        came.sort_unstable();
        let shared = came.windows(2).filter(|pair| pair[0] == pair[1]).count();
        ensure!(shared == 0, "{shared} external ends are those of two flows");
        Ok(if passed == flows { Ok(externals.into_iter().flatten().collect()) } else { Err(passed) })
    }

    /// Sends a reply to the external end of each flow. Returns how many reached their inside end.
    pub fn validate(&mut self, at: usize, externals: &[End], passes: usize) -> Result<usize> {
        let writer = Writer4::new();
        let mut insides: Vec<Option<End>> = vec![None; externals.len()];
        let replies = |flow: usize| writer.patch((flow_ends(flow, 1).1, externals[flow]), 64);
        self.send_all(at, 1, &mut insides, passes, replies, |frame| {
            let (remote, inside) = ends4(frame);
            Some((flow_of(remote, 1)?, inside))
        })?;
        Ok(insides.iter().enumerate().filter(|(flow, end)| **end == Some(flow_ends(*flow, 1).0)).count())
    }

    /// Sends one frame of each flow from a side, again if it gets lost, and notes what comes out at the other.
    fn send_all(
        &mut self,
        at: usize,
        side: usize,
        seen: &mut [Option<End>],
        passes: usize,
        patch: impl Fn(usize) -> perf::frames::Patch4,
        read: impl Fn(&[u8]) -> Option<(usize, End)>,
    ) -> Result<()> {
        let to = perf::frames::GATEWAY[side];
        for _ in 0..passes {
            let missing: Vec<usize> = (0..seen.len()).filter(|&flow| seen[flow].is_none()).collect();
            let (mut sent, mut came, mut heard) = (0, 0, Instant::now());
            while came < missing.len() && heard.elapsed() < SILENCE {
                let count = BURST.min(missing.len() - sent);
                if count > 0 && sent - came.min(sent) + count <= WINDOW {
                    let mut traffic = Traffic::of4(to, missing[sent..sent + count].iter().map(|&flow| patch(flow)));
                    let link = &mut self.links[at][side];
                    fill(&mut link.waiting, count, &mut traffic, &mut self.stock, &mut self.pool)?;
                    link.queue.transmit(&mut link.waiting);
                    Packet::discard(&mut link.waiting);
                    sent += count;
                }
                let mut wrong = 0;
                let count = self.collect(at, 1 - side, |frame| {
                    let place = read(frame).and_then(|(flow, end)| Some((seen.get_mut(flow)?, end)));
                    match place {
                        Some((place, end)) if is_right4(frame) => *place = Some(end),
                        _ => wrong += 1,
                    }
                });
                self.wrong += wrong;
                if count > 0 {
                    came += usize::try_from(count)?;
                    heard = Instant::now();
                }
            }
            if came == missing.len() {
                break;
            }
        }
        self.check()
    }
}

/// The traffic of flows that are open, in random order: from inside, from outside.
pub fn opened(externals: &[End], lengths: Lengths) -> Both {
    let writer = Writer4::new();
    let [inside, outside] = perf::frames::GATEWAY;
    let ends = |flow| flow_ends(flow, 1);
    let out = (0..externals.len()).map(|flow| writer.patch(ends(flow), lengths.of(flow)));
    let back = externals.iter().enumerate();
    let back = back.map(|(flow, &external)| writer.patch((ends(flow).1, external), lengths.of(flow)));
    [Some(Traffic::of4(inside, out).shuffled()), Some(Traffic::of4(outside, back).shuffled())]
}

/// Appends `count` frames to a burst.
fn fill(
    burst: &mut Burst<Mbuf>,
    count: usize,
    traffic: &mut Traffic,
    stock: &mut Vec<Mbuf>,
    pool: &mut Mempool,
) -> Result<()> {
    for _ in 0..count {
        let mut packet = stock.pop().or_else(|| pool.alloc()).context("the generator has no buffers left")?;
        packet.truncate(0);
        traffic.write(|length| {
            assert!(packet.append(length), "a frame fits a buffer");
            packet.data_mut()
        });
        burst.push(packet);
    }
    Ok(())
}

/// Whether a frame is one of the test's: UDP.
#[inline]
fn is_ours(frame: &[u8]) -> bool {
    match frame.get(12..24) {
        Some([8, 0, .., 17]) => true,
        Some([0x86, 0xdd, rest @ ..]) => rest[6] == 17,
        _ => false,
    }
}

/// Where a frame's payload begins.
fn payload(frame: &[u8]) -> usize {
    PAYLOAD[usize::from(frame.get(12) == Some(&0x86))]
}

/// Puts the time into a frame's payload: four bytes, and their complement, so that the checksum stays what it is.
fn stamp(frame: &mut [u8]) {
    #[expect(clippy::cast_possible_truncation, reason = "delays are shorter than a second")]
    let now = clock::ticks() as u32;
    let at = payload(frame);
    if let Some(room) = frame.get_mut(at..at + 8) {
        room[..4].copy_from_slice(&now.to_be_bytes());
        room[4..].copy_from_slice(&(!now).to_be_bytes());
    }
}

/// How long ago a frame was stamped, in ticks.
fn delay(frame: &[u8]) -> Option<u64> {
    let at = payload(frame);
    let room: [u8; 8] = frame.get(at..at + 8)?.try_into().ok()?;
    let [then, complement] = [0, 4].map(|at| u32::from_be_bytes([room[at], room[at + 1], room[at + 2], room[at + 3]]));
    #[expect(clippy::cast_possible_truncation, reason = "delays are shorter than a second")]
    let now = clock::ticks() as u32;
    (then == !complement).then(|| u64::from(now.wrapping_sub(then)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_leaves_the_checksum_right() {
        for flow in 0..1000 {
            let patch = Writer4::new().patch(flow_ends(flow, 1), 64);
            let mut frame = Vec::new();
            Traffic::of4(perf::frames::GATEWAY[0], std::iter::once(patch)).write(|length| {
                frame.resize(length, 0);
                &mut frame
            });
            assert_eq!(delay(&frame), None, "no stamp yet");
            stamp(&mut frame);
            assert!(is_ours(&frame) && is_right4(&frame));
            assert!(delay(&frame).is_some());
        }
    }
}
