//! Forwarding as fast as it goes: the gateway's rate, that of testpmd or what stands for it in the same run, and their ratio.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use dataplane::stages::Stage;
use perf::figures::{Case, Sheet, Window, grouped, spread};
use perf::frames::{End, GATEWAY, Lengths, Traffic, Writer4, flow_ends, flow_ends6};
use perf::machine::Part;
use perf::matrix::{FLOWS, ROUTED};
use perf::stages::PREFIX;

use crate::Options;
use crate::between::{Between, Counts};
use crate::generator::{Both, Generator, PASSES, from_sides, opened};
use crate::peer::Peer;
use crate::rfc8219::{packets, put_latency};

/// Which sides send.
const WAYS: [(&str, [bool; 2]); 3] =
    [("in→out", [true, false]), ("out→in", [false, true]), ("both ways", [true, true])];
/// The places of what stands between, and of the generator's ports that lead there.
pub const IO: usize = 0;
pub const MACSWAP: usize = 1;
pub const ROUTER: usize = 2;
pub const NAT44: usize = 3;
/// Nothing stands between: the generator's two ports lead to each other.
const ALONE: usize = 4;

/// What is forwarded, and by which gateway.
pub struct Load {
    pub name: String,
    pub flows: usize,
    pub gateway: usize,
    pub traffic: Both,
}

/// The largest number of sessions that this run opens.
pub fn sessions(options: &Options) -> usize {
    let most = options.common.flows(FLOWS[2]);
    FLOWS[..4].iter().copied().filter(|&it| it <= most).max().unwrap_or(FLOWS[0])
}

/// Opens the NAT44 gateway's flows. Returns their external ends.
pub fn open(flows: usize, between: &[impl Between], generator: &mut Generator) -> Result<Vec<End>> {
    let nat44 = between.get(NAT44).context("the gateway")?;
    nat44.wake()?;
    let opened = generator.open(NAT44, flows, PASSES)?;
    let Counts { sessions, drops, .. } = nat44.counts()?;
    nat44.freeze()?;
    let externals = opened.map_err(|n| anyhow!("only {n} of {flows} flows pass; {drops:?}"))?;
    ensure!(
        (sessions - flows as f64).abs() < 0.5,
        "{flows} flows, and the gateway says that it has {sessions} sessions"
    );
    println!("{} flows opened through the ports, each checked in both directions", grouped(flows));
    Ok(externals)
}

/// Runs everything over memif.
pub fn run(
    options: &Options,
    mut part: Part,
    peers: &[Peer],
    generator: &mut Generator,
    externals: &[End],
) -> Result<()> {
    let mut loads = vec![routed4(), routed6()];
    loads.extend(translated(externals));
    let times = if options.common.quick { [20, 60] } else { [100, 500] };
    let mut sheet = rounds(options, &mut part, peers, generator, &mut loads, times)?;
    latency(&mut loads, options, peers, generator, &mut sheet, part.frequency)?;
    println!("\n{}", sheet.list(|_| true));
    part.finish(sheet.into_cells(), options.common.out.as_deref())
}

/// Runs all rounds: each load each way through all that stands between, and through nothing, for so many milliseconds: those that
/// warm up, and those that count.
pub fn rounds(
    options: &Options,
    part: &mut Part,
    between: &[impl Between],
    generator: &mut Generator,
    loads: &mut [Load],
    times: [u64; 2],
) -> Result<Sheet> {
    let [warm, time] = times.map(Duration::from_millis);
    let rounds = options.common.windows();
    part.notes.push(format!("{rounds} rounds of {} ms each", time.as_millis()));
    let mut sheet = Sheet::new(&options.common.only);
    let mut ratios: Vec<(Case, [Vec<f64>; 4])> = Vec::new();
    for round in 0..=rounds {
        sheet.counting = round > 0;
        for load in &mut *loads {
            for (way, sides) in WAYS {
                let what = format!("{} {way}", load.name);
                if !sheet.wants(&what) {
                    continue;
                }
                let mut rates = [0.0; 5];
                let mut cycles = f64::NAN;
                let mut stages = [0.0; Stage::ALL.len()];
                for at in [IO, MACSWAP, load.gateway, ALONE] {
                    let it = between.get(at);
                    let ours = it.filter(|_| at == load.gateway);
                    it.map(Between::wake).transpose()?;
                    let before = ours.map(Between::counts).transpose()?;
                    let rate = from_sides(&mut load.traffic, sides, |traffic| generator.rush(at, traffic, warm, time));
                    if let (Some(ours), Some(before)) = (ours, before) {
                        let after = ours.counts()?;
                        let packets = after.received - before.received;
                        cycles = (after.busy - before.busy) / packets;
                        stages = std::array::from_fn(|stage| (after.stages[stage] - before.stages[stage]) / packets);
                    }
                    it.map(Between::freeze).transpose()?;
                    rates[at] = rate?.into_iter().sum::<f64>() / 1e6;
                    let who = it.map_or("the generator alone", Between::name);
                    let case = Case::new(&format!("{what}, {who}"), load.flows);
                    if round > 0 {
                        sheet.put(&case, "Mpps", Window::of(rates[at]));
                    }
                }
                if round > 0 {
                    let case = Case::new(&format!("{what}, turnpike"), load.flows);
                    // Of the last round.
                    for (stage, cycles) in Stage::ALL.into_iter().zip(stages).filter(|(_, cycles)| *cycles > 0.0) {
                        sheet.beside(&case, &format!("{PREFIX}{}", stage.name()), cycles);
                    }
                    let at = ratios.iter().position(|(it, _)| *it == case).unwrap_or(ratios.len());
                    if at == ratios.len() {
                        ratios.push((case, Default::default()));
                    }
                    let ours = rates[load.gateway];
                    for (list, figure) in ratios[at].1.iter_mut().zip([
                        ours / rates[IO],
                        ours / rates[MACSWAP],
                        cycles,
                        ours / rates[ALONE],
                    ]) {
                        list.push(figure);
                    }
                }
            }
        }
    }
    let [io, macswap] = [IO, MACSWAP].map(|at| format!("of {}", between[at].name()));
    for (case, lists) in &ratios {
        for (what, list) in [&io, &macswap, "busy cycles/packet", "of the generator"].iter().zip(lists) {
            sheet.beside(case, what, spread(list).1);
        }
    }
    Ok(sheet)
}

/// How long packets are on their way when each side sends half of what comes out at most.
fn latency(
    loads: &mut [Load],
    options: &Options,
    peers: &[Peer],
    generator: &mut Generator,
    sheet: &mut Sheet,
    frequency: f64,
) -> Result<()> {
    let time = if options.common.quick { 0.1 } else { 0.5 };
    for load in loads {
        for at in [IO, load.gateway] {
            let (name, who) = (&load.name, peers[at].name());
            let both = Case::new(&format!("{name} both ways, {who}"), load.flows);
            let Some(most) = sheet.cells().iter().find(|it| it.case == both).map(|it| it.median * 1e6 / 2.0) else {
                continue;
            };
            peers[at].wake()?;
            let rate = most / 2.0;
            let mut trial = || generator.pace_again(at, &mut load.traffic, rate, packets(rate, time));
            // The first one warms up.
            let trials: Result<Vec<_>> = (0..=options.common.windows()).map(|_| Ok(trial()?.delays)).skip(1).collect();
            peers[at].freeze()?;
            let case = Case::new(&format!("latency at half of the rate, {name}, {who}"), load.flows);
            put_latency(sheet, &case, &trials?, frequency);
            sheet.beside(&case, "Mpps each way", rate / 1e6);
        }
    }
    Ok(())
}

/// NAT44 at each number of flows, of those that are open.
pub fn translated(externals: &[End]) -> impl Iterator<Item = Load> {
    let fitting = FLOWS.into_iter().filter(|it| (ROUTED..=externals.len()).contains(it));
    fitting.map(|flows| {
        let traffic = opened(&externals[..flows], Lengths::Fixed(64));
        Load { name: "NAT44".into(), flows, gateway: NAT44, traffic }
    })
}

pub fn routed4() -> Load {
    let writer = Writer4::new();
    let out = (0..ROUTED).map(|flow| writer.patch(flow_ends(flow, 1), 64));
    let back = (0..ROUTED).map(|flow| flow_ends(flow, 1)).map(|(inside, remote)| writer.patch((remote, inside), 64));
    let traffic = [Some(Traffic::of4(GATEWAY[0], out).shuffled()), Some(Traffic::of4(GATEWAY[1], back).shuffled())];
    Load { name: "IPv4 routed".into(), flows: ROUTED, gateway: ROUTER, traffic }
}

fn routed6() -> Load {
    let flows = || (0..=u16::MAX).take(ROUTED).map(flow_ends6);
    let out = Traffic::of6(GATEWAY[0], flows(), 78).shuffled();
    let back = Traffic::of6(GATEWAY[1], flows().map(|(inside, remote)| (remote, inside)), 78).shuffled();
    Load { name: "IPv6 routed".into(), flows: ROUTED, gateway: ROUTER, traffic: [Some(out), Some(back)] }
}
