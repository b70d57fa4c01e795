//! `workers`: several workers in one process, against as many processes of one worker at once (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

mod source;
mod team;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use dataplane::dpdk::available_cores;
use perf::clock;
use perf::figures::{Case, Sheet, Window, spread};
use perf::machine::Part;
use perf::matrix::FLOWS;
use perf::options::Common;

/// Measures two workers in one process against two processes of one worker at once, on the same cores.
///
/// The generator is inside the workers' ports. The ratio tells what sharing costs, whatever the cores are worth. The rows
/// `steered` have each packet come to the worker that owns its flow, as a NIC can do it; in the others every other flow's
/// packets are handed over.
#[derive(Debug, Parser)]
#[command(name = "workers")]
struct Options {
    #[command(flatten)]
    common: Common,
    /// The two cores [default: the last two]
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Runs workers with so many flows, and is driven by standard input
    #[arg(long, hide = true)]
    serve: Option<usize>,
    /// Packets come to the owners of their flows
    #[arg(long, hide = true)]
    steered: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(flows) = options.serve {
        return team::serve(&options.cores, flows, options.steered);
    }
    let mut cores = options.cores.clone();
    if cores.is_empty() {
        cores = available_cores().into_iter().rev().take(2).collect();
    }
    ensure!(cores.len() == 2, "two cores are needed: --cores A,B");
    let mut part = Part::begin("workers", clock::frequency());
    part.pages = "packets on ordinary pages".into();
    println!("{}, load {}; cores {cores:?}", part.machine, part.load_before);
    let most = options.common.flows(FLOWS[2]);
    let millis = match (options.common.quick, options.common.full) {
        (true, _) => 100,
        (_, true) => 2000,
        _ => 500,
    };
    let rounds = options.common.windows();
    part.notes.push(format!("{rounds} rounds of {millis} ms each"));
    let mut sheet = Sheet::new(&options.common.only);
    for flows in FLOWS[1..4].iter().copied().filter(|&it| it <= most) {
        // Each of the two has half of the flows; the table of both together is as large.
        let half = flows / 2;
        let mut apart = [Team::start(&cores[..1], half, true)?, Team::start(&cores[1..], half, true)?];
        for (steered, name) in [(true, "two workers, steered"), (false, "two workers, every other flow handed over")] {
            let mut together = Team::start(&cores, flows, steered)?;
            let (mut ratios, mut shares, mut losses) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..=rounds {
                together.order(millis)?;
                let [rate, share, lost] = together.answer()?;
                for team in &mut apart {
                    team.order(millis)?;
                }
                let mut both = 0.0;
                for team in &mut apart {
                    both += team.answer()?[0];
                }
                if round > 0 {
                    sheet.put(&Case::new(name, flows), "Mpps", Window::of(rate / 1e6));
                    sheet.put(&Case::new("two processes of one worker", flows), "Mpps", Window::of(both / 1e6));
                    ratios.push(rate / both);
                    shares.push(share);
                    losses.push(lost);
                }
            }
            sheet.beside(&Case::new(name, flows), "of two processes", spread(&ratios).1);
            sheet.beside(&Case::new(name, flows), "handed over", spread(&shares).1);
            sheet.beside(&Case::new(name, flows), "lost in rings", spread(&losses).1);
        }
    }
    println!("\nNAT44, both ways\n\n{}", sheet.list(|_| true));
    part.finish(sheet.into_cells(), options.common.out.as_deref())
}

/// A process with workers, which waits for orders.
struct Team {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Team {
    fn start(cores: &[usize], flows: usize, steered: bool) -> Result<Self> {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args([format!("--cores={}", cores.join(",")), format!("--serve={flows}")]);
        command.args(steered.then_some("--steered"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("its standard input")?;
        let answers = BufReader::new(child.stdout.take().context("its standard output")?);
        let mut team = Team { child, orders, answers };
        // DPDK may have something to say first.
        while team.line()? != "ready" {}
        Ok(team)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a process with workers has ended");
        Ok(line.trim().to_owned())
    }

    fn order(&mut self, millis: u32) -> Result<()> {
        Ok(writeln!(self.orders, "{millis}")?)
    }

    /// Packets a second, the share of them that was handed over, and the share that was lost between the workers.
    fn answer(&mut self) -> Result<[f64; 3]> {
        let line = self.line()?;
        let figures: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        figures.try_into().map_err(|_| anyhow!("an answer: {line}"))
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
