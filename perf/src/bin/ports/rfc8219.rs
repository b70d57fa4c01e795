//! RFC 8219 §7: throughput, latency, packet delay variation and the loss curve, through the ports, both ways at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use perf::figures::{Case, Sheet, Window, percentile, spread};
use perf::frames::{End, Lengths};
use perf::machine::Part;
use perf::matrix::{FLOWS, ROUTED};

use crate::Options;
use crate::between::Between;
use crate::forwarding::{IO, Load, NAT44, routed4};
use crate::generator::{Both, Generator, Trial, from_sides, opened};
use crate::peer::Peer;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// A trial of throughput, delay variation and loss.
    pub trial: Duration,
    /// The trial of latency.
    pub latency: Duration,
    /// How often each is repeated.
    pub repeats: usize,
    /// A search ends when it knows the rate to this part of it.
    pub precision: f64,
}

impl Length {
    /// The RFC's, or short ones, which are said to be short.
    pub fn of(options: &Options) -> Self {
        let seconds = Duration::from_secs_f64;
        let (trial, latency, repeats, precision) = match (options.common.full, options.common.quick) {
            (true, _) => (60.0, 120.0, 1, 0.01),
            (false, true) => (0.05, 0.1, 1, 0.2),
            (false, false) => (0.5, 1.0, 3, 0.02),
        };
        let repeats = options.repeats.map_or(repeats, usize::from);
        Length { trial: seconds(trial), latency: seconds(latency), repeats, precision }
    }

    /// The rate from each of these sides at which searches begin: a little more than what comes out when as much is offered
    /// as is taken.
    pub fn top(self, generator: &mut Generator, at: usize, traffic: &mut Both, sides: [bool; 2]) -> Result<f64> {
        let Length { trial, .. } = self.brief();
        let rates = from_sides(traffic, sides, |traffic| generator.rush(at, traffic, trial / 10, trial))?;
        let most = rates.into_iter().fold(0.0, f64::max) * 1.2;
        ensure!(most > 0.0, "nothing comes out");
        Ok(most)
    }

    /// Says what is tried, where a trial takes long.
    pub fn tell(self, what: &str, rate: f64) {
        if self.trial >= Duration::from_secs(10) {
            eprintln!("{what}: a trial at {:.3} Mpps", rate / 1e6);
        }
    }

    /// For the tester's own test: no longer than a second.
    fn brief(self) -> Self {
        let second = Duration::from_secs(1);
        Length { trial: self.trial.min(second), latency: self.latency.min(second), ..self }
    }
}

/// The highest rate that `passes`, from each side, between `least`, which does, and `most`, by bisection.
pub fn search(least: f64, most: f64, precision: f64, mut passes: impl FnMut(f64) -> Result<bool>) -> Result<f64> {
    let (mut low, mut high) = (least, most);
    // The first try is the top: what passes there needs no search.
    let mut rate = most;
    while high - low > high * precision {
        if passes(rate)? {
            low = rate;
        } else {
            high = rate;
        }
        if low >= most {
            break;
        }
        rate = f64::midpoint(low, high);
        // Below a thousandth of what it does under load, it does not pass at all.
        if high < most / 1000.0 {
            break;
        }
    }
    Ok(low)
}

/// Packets of so many seconds.
pub fn packets(rate: f64, seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of packets")]
    let packets = (rate * seconds) as u64;
    packets.max(1)
}

/// What is said of delays beside their median.
const DELAYS: [(&str, f64); 5] = [("least", 0.0), ("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Puts in the median of each trial's delays, and beside it the distribution: medians of the trials.
pub fn put_latency(sheet: &mut Sheet, case: &Case, trials: &[Vec<u64>], frequency: f64) {
    let micros = |delays: &Vec<u64>, q| percentile(delays, q) as f64 / frequency * 1e6;
    for delays in trials {
        sheet.put(case, "µs", Window::of(micros(delays, 0.5)));
    }
    for (what, q) in DELAYS {
        let figures: Vec<f64> = trials.iter().map(|delays| micros(delays, q)).collect();
        sheet.beside(case, what, spread(&figures).1);
    }
}

/// Runs everything.
pub fn run(
    options: &Options,
    mut part: Part,
    peers: &[Peer],
    generator: &mut Generator,
    externals: &[End],
) -> Result<()> {
    let length = Length::of(options);
    part.notes.push(format!(
        "trials of {} s, latency over {} s, {} of each, of which the lowest and the highest stand for \
         the 1st and the 99th percentile; the RFC wants 60 s, 120 s and 20. testpmd io, the tester's own test, has \
         trials of {} s",
        length.trial.as_secs_f64(),
        length.latency.as_secs_f64(),
        length.repeats,
        length.brief().trial.as_secs_f64(),
    ));
    let mut loads = vec![Load { name: "testpmd io".into(), gateway: IO, ..routed4() }];
    // A load takes half an hour at full length.
    let every = options.every_load || !options.common.full;
    loads.extend(every.then(routed4));
    let flows = if every { [ROUTED, externals.len()] } else { [FLOWS[2]; 2] };
    for flows in flows.into_iter().filter(|&it| it <= externals.len()) {
        if loads.iter().all(|it| it.gateway != NAT44 || it.flows != flows) {
            let traffic = opened(&externals[..flows], Lengths::Fixed(64));
            loads.push(Load { name: "NAT44".into(), flows, gateway: NAT44, traffic });
        }
    }
    let mut sheet = Sheet::new(&options.common.only);
    let mut gaps = Vec::new();
    for load in &mut loads {
        let peer = &peers[load.gateway];
        peer.wake()?;
        let length = if load.gateway == IO { length.brief() } else { length };
        measure(load, length, generator, part.frequency, &mut sheet, &mut gaps)?;
        peer.freeze()?;
    }
    let (_, gap, worst) = spread(&gaps);
    part.notes.push(format!("the generator's own longest gap in a trial: median {gap:.0} µs, longest {worst:.0} µs"));
    println!("\nRFC 8219: {}\n\n{}", part.notes.join(". "), sheet.list(|_| true));
    part.finish(sheet.into_cells(), options.common.out.as_deref())
}

fn measure(
    load: &mut Load,
    length: Length,
    generator: &mut Generator,
    frequency: f64,
    sheet: &mut Sheet,
    gaps: &mut Vec<f64>,
) -> Result<()> {
    let micros = |ticks: u64| ticks as f64 / frequency * 1e6;
    let Load { name, flows, gateway, traffic } = load;
    let case = |what: &str| Case::new(&format!("{what}, {name}"), *flows);
    let most = length.top(generator, *gateway, traffic, [true, true])?;
    for _ in 0..length.repeats {
        let mut rate = 0.0;
        // What loses nothing loses less than a thousandth.
        for (what, tolerance) in [("throughput, no loss", 0.0), ("throughput, loss of 0.1 %", 0.001)] {
            let passes = |rate| {
                length.tell(&format!("{what}, {name}"), rate);
                let packets = packets(rate, length.trial.as_secs_f64());
                let trial = generator.passes(*gateway, traffic, rate, packets, tolerance)?;
                gaps.push(micros(trial.gap));
                Ok(trial.passes(tolerance))
            };
            rate = search(rate, most.max(rate), length.precision, passes)?;
            sheet.put(&case(what), "Mpps each way", Window::of(rate / 1e6));
        }
    }
    let mut trial = |traffic: &mut Both, rate: f64, time: Duration| -> Result<Trial> {
        length.tell(&format!("latency and loss, {name}"), rate);
        let trial = generator.pace_again(*gateway, traffic, rate, packets(rate, time.as_secs_f64()))?;
        gaps.push(micros(trial.gap));
        Ok(trial)
    };
    let at =
        |sheet: &Sheet, what: &str| sheet.cells().iter().find(|it| it.case == case(what)).map_or(0.0, |it| it.median);
    let lossless = at(sheet, "throughput, no loss") * 1e6;
    let half = at(sheet, "throughput, loss of 0.1 %") * 1e6 / 2.0;
    for (what, rate, time) in [
        ("latency at the lossless throughput", lossless, length.latency),
        ("latency at half of the throughput with 0.1 % loss", half, length.latency),
    ] {
        let case = case(what);
        if rate < 1.0 {
            continue;
        }
        let trials: Result<Vec<_>> = (0..length.repeats).map(|_| Ok(trial(traffic, rate, time)?.delays)).collect();
        put_latency(sheet, &case, &trials?, frequency);
    }
    // RFC 8219 §7.3.1: between the shortest delay and the one that a thousandth is above.
    let variation = case("delay variation at the lossless throughput");
    for _ in 0..if lossless < 1.0 { 0 } else { length.repeats } {
        let delays = trial(traffic, lossless, length.trial)?.delays;
        let [least, most] = [0.0, 0.999].map(|q| micros(percentile(&delays, q)));
        sheet.put(&variation, "µs", Window::of(most - least));
    }
    // RFC 2544 §26.3: from the top down, until nothing is lost twice in succession.
    let mut whole = 0;
    for tenth in (1..=10_u8).rev() {
        let rate = most * f64::from(tenth) / 10.0;
        let case = case(&format!("loss at {} % of the top rate", u32::from(tenth) * 10));
        let mut lost = 0.0;
        for _ in 0..length.repeats {
            let loss = trial(traffic, rate, length.trial)?.loss();
            sheet.put(&case, "% lost", Window::of(loss * 100.0));
            lost += loss;
        }
        sheet.beside(&case, "Mpps each way offered", rate / 1e6);
        whole = if lost > 0.0 { 0 } else { whole + 1 };
        if whole == 2 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_the_highest_rate_that_passes() {
        for limit in [0.3, 17.0, 999.0] {
            let found = search(0.0, 1000.0, 0.001, |rate| Ok(rate <= limit)).expect("it searches");
            assert!(found <= limit && (found > limit * 0.998 || limit < 1.0), "{found} for {limit}");
        }
        let top = search(0.0, 1000.0, 0.01, |_| Ok(true)).expect("it searches");
        assert!((top - 1000.0).abs() < 1e-9, "what passes at the top needs no search");
        let none = search(0.0, 1000.0, 0.01, |_| Ok(false)).expect("it searches");
        assert!(none.abs() < 1e-9, "what never passes ends, too");
    }
}
