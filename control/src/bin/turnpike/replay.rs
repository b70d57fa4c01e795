//! `turnpike replay`: what the gateway would have done with captured traffic.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::config::{Config, DEFAULT_PATH};
use control::replay::{Options, Replay, ReplayError};
use dataplane::plan::MacAddr;

/// Send captures through the gateway and see what comes out
///
/// Needs no DPDK, no device and no root: the same engine runs in virtual time, with the clock of the captures. Neighbours that
/// the configuration does not name are assumed to be there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  turnpike replay -c configs/nat44.yaml --in inside=lan.pcap --out-dir out --explain
  turnpike replay -c configs/nat44.yaml --in inside=lan.pcapng --in uplink=wan.pcapng --out-dir out --tail 2h10m

A capture that holds both directions of its traffic needs --gateway-mac: the Ethernet address of the gateway that was there
when it was made. Without it every packet is taken as sent to the gateway.

Exit codes: 0 done, 1 failed (a capture can't be read), 2 wrong use or configuration.")]
pub struct Args {
    /// The configuration: files, or directories whose *.yaml are read, merged in this order
    #[arg(short, long, value_name = "FILE", num_args = 1.., default_value = DEFAULT_PATH)]
    config: Vec<PathBuf>,
    /// A capture (pcap or pcapng, Ethernet or raw IP) of what arrived at an interface
    #[arg(long = "in", value_name = "NAME=CAPTURE", required = true, num_args = 1.., value_parser = input)]
    inputs: Vec<(String, PathBuf)>,
    /// Where NAME.pcap goes for each interface: what left by it
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
    /// Let the clock run on after the last packet, so that timers expire (90s, 5m, 2h10m)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    tail: Duration,
    /// What random choices follow from: equal seeds give equal output
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// An Ethernet address that the gateway had when the captures were made; leaves out what it sent itself
    #[arg(long, value_name = "MAC", value_parser = mac)]
    gateway_mac: Vec<MacAddr>,
    /// Print a line for each packet: what happened to it, and why
    #[arg(long)]
    explain: bool,
}

/// Packets between two signs of life.
const PROGRESS_EVERY: u64 = 100_000;

fn input(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("give the interface's name, = and the capture, as in inside=lan.pcap".to_owned()),
    }
}

fn mac(text: &str) -> Result<MacAddr, String> {
    let parts: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
        .collect::<Option<_>>()
        .unwrap_or_default();
    parts.try_into().map(MacAddr).map_err(|_| "give six bytes in hexadecimal, as in 02:00:00:00:00:01".to_owned())
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let options = Options {
        inputs: args.inputs,
        out_dir: args.out_dir,
        tail: args.tail,
        seed: args.seed,
        gateway: args.gateway_mac,
        explain: args.explain,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match replay(&config, &options, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads us has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => match error.downcast_ref::<ReplayError>() {
            Some(wrong) if wrong.is_misuse() => {
                eprintln!("turnpike: {wrong}");
                Ok(ExitCode::from(2))
            }
            _ => Err(error),
        },
    }
}

fn replay(config: &Config, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut replay = Replay::new(config, options)?;
    let show = io::stderr().is_terminal() && !options.explain;
    let mut packets = 0;
    while let Some(line) = replay.step()? {
        out.write_all(line.as_bytes())?;
        packets += 1;
        if show && packets % PROGRESS_EVERY == 0 {
            eprint!("\r{packets} packets");
        }
    }
    if show && packets >= PROGRESS_EVERY {
        eprintln!("\r{packets} packets");
    }
    write!(out, "{}", replay.finish(options.tail)?)?;
    Ok(())
}
