//! RFC 9693: how fast connections are made and torn down, how many there can be, and what is forwarded over them.
//!
//! Phase 1 sends one packet for each connection, each combination once, in pseudorandom order; phase 2 uses existing state
//! only. A rate of phase 1 passes when every packet came out and every reply to it reached its inside end. Tables are emptied
//! between the trials, and no session ends by itself during one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use perf::figures::{Case, Sheet, Window, grouped};
use perf::frames::{End, GATEWAY, Lengths, Traffic, Writer4, ends4, flow_ends, flow_of, permutation};
use perf::machine::Part;

use crate::Options;
use crate::between::Between;
use crate::forwarding::NAT44;
use crate::generator::{Both, Generator, PASSES, from_sides, opened};
use crate::peer::Peer;
use crate::rfc8219::{Length, packets, search};

/// Longer than it takes to empty a table.
const PATIENCE: Duration = Duration::from_secs(120);
/// Timed out sessions, which there must be none of.
const TIMEOUTS: &str = "turnpike_session_deletions_total{cause=\"timeout\"}";

/// Runs everything, on the NAT44 gateway whose table has room for `sessions`.
pub fn run(
    options: &Options,
    mut part: Part,
    sessions: usize,
    peers: &[Peer],
    generator: &mut Generator,
) -> Result<()> {
    let length = Length::of(options);
    let peer = &peers[NAT44];
    peer.wake()?;
    part.notes.push(format!(
        "trials of {} s, {} of each; the table holds {} sessions",
        length.trial.as_secs_f64(),
        length.repeats,
        grouped(sessions)
    ));
    let mut sheet = Sheet::new(&options.common.only);
    // Filled to nine tenths: a pool with one address for 64,512 mappings is to be able to give each its port.
    let flows = (sessions * 9 / 10).max(1);
    for _ in 0..length.repeats {
        let rate = establishment(flows, length, peer, generator)?;
        sheet.put(&Case::new("maximum connection establishment rate", flows), "million/s", Window::of(rate / 1e6));

        empty(peer)?;
        let opened_flows = generator.open(NAT44, flows, PASSES)?;
        let Ok(externals) = opened_flows else {
            anyhow::bail!("{flows} flows do not pass: {:?}", peer.scrape()?.drops())
        };
        let mut traffic = opened(&externals, Lengths::Fixed(64));
        for (way, sides) in [("in→out", [true, false]), ("out→in", [false, true]), ("both ways", [true, true])] {
            let rate = throughput(&mut traffic, sides, length, generator)?;
            let ways = sides.iter().filter(|&&it| it).count() as f64;
            let case = Case::new(&format!("throughput over established state, no loss, {way}"), flows);
            sheet.put(&case, "Mpps", Window::of(rate * ways / 1e6));
        }
        let seconds = empty(peer)?;
        let case = Case::new("connection tear-down rate", flows);
        sheet.put(&case, "million/s", Window::of(flows as f64 / seconds / 1e6));
    }
    let capacity = capacity(sessions, peer, generator)?;
    sheet.put(&Case::new("connection tracking table capacity", sessions), "connections", Window::of(capacity as f64));
    let expired = peer.scrape()?.sum(TIMEOUTS);
    ensure!(expired < 0.5, "{expired} sessions timed out during the trials");
    empty(peer)?;
    peer.freeze()?;
    println!("\nRFC 9693: {}\n\n{}", part.notes.join(". "), sheet.list(|_| true));
    part.finish(sheet.into_cells(), options.common.out.as_deref())
}

/// Ends all sessions. Returns how long that took.
fn empty(peer: &Peer) -> Result<f64> {
    let start = Instant::now();
    peer.flush()?;
    while peer.scrape()?.sum("turnpike_sessions{") > 0.5 {
        ensure!(start.elapsed() < PATIENCE, "the table does not become empty");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The highest rate at which all flows can be opened.
fn establishment(flows: usize, length: Length, peer: &Peer, generator: &mut Generator) -> Result<f64> {
    let writer = Writer4::new();
    let order = permutation(flows, 5);
    let requests = order.into_iter().map(|flow| writer.patch(flow_ends(flow, 1), 64));
    let mut traffic: Both = [Some(Traffic::of4(GATEWAY[0], requests)), None];
    let mut trial = |rate: f64| -> Result<bool> {
        empty(peer)?;
        if let Some(traffic) = &mut traffic[0] {
            traffic.rewind();
        }
        let mut externals: Vec<Option<End>> = vec![None; flows];
        let trial = generator.pace(NAT44, &mut traffic, rate, flows as u64, |frame| {
            let (external, remote) = ends4(frame);
            if let Some(place) = flow_of(remote, 1).and_then(|flow| externals.get_mut(flow)) {
                *place = Some(external);
            }
        })?;
        let externals: Vec<End> = externals.into_iter().flatten().collect();
        // The replies are not what is measured: a lost one is sent again.
        Ok(trial.passes(0.0) && externals.len() == flows && generator.validate(NAT44, &externals, PASSES)? == flows)
    };
    let mut most = 10_000.0;
    while trial(most)? {
        most *= 2.0;
    }
    search(0.0, most, length.precision, trial)
}

/// The highest rate from each of these sides at which nothing is lost.
fn throughput(traffic: &mut Both, sides: [bool; 2], length: Length, generator: &mut Generator) -> Result<f64> {
    let most = length.top(generator, NAT44, traffic, sides)?;
    let trial = |rate: f64| -> Result<bool> {
        let packets = packets(rate, length.trial.as_secs_f64());
        let trial = from_sides(traffic, sides, |part| generator.passes(NAT44, part, rate, packets, 0.0));
        Ok(trial?.passes(0.0))
    };
    search(0.0, most, length.precision, trial)
}

/// The largest number of connections that all pass: doubled until they do not, then bisected.
fn capacity(sessions: usize, peer: &Peer, generator: &mut Generator) -> Result<usize> {
    let mut passes = |flows: usize| -> Result<bool> {
        empty(peer)?;
        Ok(generator.open(NAT44, flows, 2)?.is_ok())
    };
    let (mut low, mut high) = (0, (sessions / 16).max(1));
    while passes(high)? {
        (low, high) = (high, high * 2);
    }
    // To a thousandth, or to the last one of a small table.
    while high - low > (high / 1000).max(1) {
        let middle = usize::midpoint(low, high);
        if passes(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
