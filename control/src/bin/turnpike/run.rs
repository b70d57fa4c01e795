//! `turnpike run`: the gateway at work.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use control::config::{Config, DEFAULT_PATH};
use control::run::{Gateway, Order};
use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

/// Run the gateway
///
/// Stays in the foreground, writes its log to standard error (key=value), reads its configuration
/// again on SIGHUP, and stops cleanly on SIGTERM and SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  turnpike run -c /etc/turnpike

Exit codes: 0 stopped when asked to, 1 could not start or had to stop, 2 wrong use or configuration.")]
pub struct Args {
    /// The configuration: files, or directories whose *.yaml are read, merged in this order
    #[arg(short, long, value_name = "FILE", num_args = 1.., default_value = DEFAULT_PATH)]
    config: Vec<PathBuf>,
    /// Log details too, and everything that DPDK says
    #[arg(short, long)]
    verbose: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let level = if args.verbose { Level::DEBUG } else { Level::INFO };
    let format = tracing_logfmt::builder().with_target(false).layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(format).init();
    let orders = signals()?;
    let files = args.config.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = files, "starting");
    match Gateway::start(&config, args.verbose).map(|gateway| gateway.run(&orders)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_configuration() => {
            eprintln!("{files}: {error}");
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says what signals ask of us. Caught from here on, also while starting.
fn signals() -> anyhow::Result<Receiver<Order>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signals can't be caught")?;
    let (sender, receiver) = bounded(1);
    let wait = move || {
        for signal in signals.forever() {
            let order = match signal {
                SIGHUP => Order::Reload,
                SIGINT => Order::Stop("SIGINT"),
                _ => Order::Stop("SIGTERM"),
            };
            // A second one, while the first waits, says nothing new; but that it is to stop is never lost.
            let _ = match order {
                Order::Reload => sender.try_send(order).is_ok(),
                Order::Stop(_) => sender.send(order).is_ok(),
            };
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).context("no thread for signals")?;
    Ok(receiver)
}
