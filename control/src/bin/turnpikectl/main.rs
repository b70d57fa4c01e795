//! `turnpikectl`: looks at a running gateway and changes it, by its control socket.
//!
//! A command is a variant of [`Command`] and a line in [`run`]; what it lists is a type of [`control::api::types`] with a
//! [`Table`](tables::Table). Exit codes: 0, 1 (failed, refused), 2 (wrong use).

mod filter;
mod output;
mod tables;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use control::api::types::{
    Count, DropReason, Flushed, Interface, Mapping, Moved, Neighbour, Pool, PoolAddress, Prefix, ReloadReport, Route,
    Session, Shard, Status, Worker,
};
use control::api::{Client, ClientError};
use control::config::DEFAULT_SOCKET;
use hyper::Method;

use filter::{Filters, MappingFilters};
use output::{Format, Output};

/// Look at a running Turnpike, and change it
#[derive(Debug, Parser)]
#[command(name = "turnpikectl", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// The gateway's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    socket: PathBuf,
    /// Print JSON: an object, or a list of them with one on each line
    #[arg(long, global = true, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values, with a line of names first
    #[arg(long, global = true)]
    csv: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  turnpikectl status
  turnpikectl session list --inside 192.168.1.0/24 --proto tcp
  turnpikectl --json pool list

Who may: root everything; members of the group that the configuration names as control.group may look.

Exit codes: 0 done, 1 failed or refused, 2 wrong use.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Say how the gateway is
    #[command(after_help = "Example:\n  turnpikectl status")]
    Status,
    /// Read the configuration again, and use it
    ///
    /// It is checked first, and used as a whole or not at all. What changes is printed, with what that does to live flows.
    #[command(after_help = "Example:\n  turnpikectl reload --check")]
    Reload {
        /// Only say what would change
        #[arg(long)]
        check: bool,
    },
    /// Sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Mappings: the external addresses and ports of inside ones
    #[command(subcommand)]
    Mapping(MappingCommand),
    /// Pools of external addresses
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Interfaces
    #[command(subcommand)]
    Interface(InterfaceCommand),
    /// Neighbours: ARP and neighbour discovery
    #[command(subcommand)]
    Neighbour(NeighbourCommand),
    /// Routes
    #[command(subcommand)]
    Route(RouteCommand),
    /// Workers
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Shards: the parts of the state that workers own
    #[command(subcommand)]
    Shard(ShardCommand),
    /// Rules that exchange prefixes: nptv6, map66, netmap
    #[command(subcommand)]
    Prefix(PrefixCommand),
    /// Count the drops by reason, since the start
    #[command(after_help = "Example:\n  turnpikectl stats --explain")]
    Stats(StatsArgs),
    /// Print a script that completes this program's commands
    #[command(
        after_help = "Example:\n  turnpikectl completions bash > /usr/share/bash-completion/completions/turnpikectl"
    )]
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct StatsArgs {
    /// Say what each reason means, and what to do about it
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List sessions
    #[command(after_help = "Example:\n  turnpikectl session list --inside 192.168.1.10")]
    List(Filters),
    /// Count sessions
    #[command(after_help = "Example:\n  turnpikectl session count --proto udp")]
    Count(Filters),
    /// End sessions
    ///
    /// Their next packets are treated as those of any flow that is not known.
    #[command(after_help = "Example:\n  turnpikectl session flush --inside 192.168.1.10")]
    Flush {
        #[command(flatten)]
        filters: Filters,
        /// End every session
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
enum MappingCommand {
    /// List mappings
    #[command(after_help = "Example:\n  turnpikectl mapping list --external 203.0.113.1 --external-port 40000")]
    List(MappingFilters),
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// List pools, and how full they are
    #[command(after_help = "Example:\n  turnpikectl pool list --addresses")]
    List {
        /// Each address by itself
        #[arg(long)]
        addresses: bool,
    },
}

#[derive(Debug, Subcommand)]
enum InterfaceCommand {
    /// List interfaces
    #[command(after_help = "Example:\n  turnpikectl interface list")]
    List,
}

#[derive(Debug, Subcommand)]
enum NeighbourCommand {
    /// List neighbours
    #[command(after_help = "Example:\n  turnpikectl neighbour list")]
    List,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// List routes
    #[command(after_help = "Example:\n  turnpikectl route list")]
    List,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Show the workers, and how busy they are
    #[command(after_help = "Example:\n  turnpikectl worker show")]
    Show,
}

#[derive(Debug, Subcommand)]
enum ShardCommand {
    /// List the shards with their workers
    #[command(after_help = "Example:\n  turnpikectl shard list")]
    List,
    /// Give a shard, with all of its sessions, to another worker
    #[command(after_help = "Example:\n  turnpikectl shard move 17 1")]
    Move {
        /// The shard, 0 to 63
        shard: u8,
        /// The worker, by its number
        worker: u8,
    },
}

#[derive(Debug, Subcommand)]
enum PrefixCommand {
    /// List the rules with their prefixes
    #[command(after_help = "Example:\n  turnpikectl prefix list")]
    List,
    /// Give a rule another outside prefix, as when a provider renumbers
    ///
    /// It holds at once, and through reloads, until the gateway stops; what still comes for the old prefix is dropped and counted
    /// (prefix-former).
    #[command(after_help = "Example:\n  turnpikectl prefix set nptv6.home 2001:db8:2::/48")]
    Set {
        /// The rule, with its section
        rule: String,
        /// The prefix
        prefix: String,
    },
    /// Give a rule the outside prefix of the file again
    #[command(after_help = "Example:\n  turnpikectl prefix unset nptv6.home")]
    Unset {
        /// The rule, with its section
        rule: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_quiet(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turnpikectl: {error:#}");
            let wrong_use = error.downcast_ref::<ClientError>().is_some_and(ClientError::is_wrong_use);
            ExitCode::from(if wrong_use { 2 } else { 1 })
        }
    }
}

/// Whether the reader of our output has seen enough, as `head` has.
fn is_quiet(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let format = match (cli.json, cli.csv) {
        (true, _) => Format::Json,
        (_, true) => Format::Csv,
        _ => Format::Table,
    };
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "turnpikectl", &mut script);
            return Ok(io::Write::write_all(&mut io::stdout(), &script)?);
        }
        Command::Man { directory } => {
            return clap_mangen::generate_to(Cli::command(), directory)
                .with_context(|| directory.display().to_string());
        }
        _ => {}
    }
    let client = Client::new(&cli.socket)?;
    let output = Output { client: &client, format };
    match &cli.command {
        Command::Status => output.object::<Status>(Method::GET, "/v1/status"),
        Command::Reload { check } => {
            output.object::<ReloadReport>(Method::POST, if *check { "/v1/reload?check=true" } else { "/v1/reload" })
        }
        Command::Session(SessionCommand::List(filters)) => {
            output.list::<Session>(&format!("/v1/sessions{}", filters.query(false)))
        }
        Command::Session(SessionCommand::Count(filters)) => {
            output.object::<Count>(Method::GET, &format!("/v1/sessions/count{}", filters.query(false)))
        }
        Command::Session(SessionCommand::Flush { filters, all }) => {
            output.object::<Flushed>(Method::DELETE, &format!("/v1/sessions{}", filters.query(*all)))
        }
        Command::Mapping(MappingCommand::List(filters)) => {
            output.list::<Mapping>(&format!("/v1/mappings{}", filters.query()))
        }
        Command::Pool(PoolCommand::List { addresses: false }) => output.list::<Pool>("/v1/pools"),
        Command::Pool(PoolCommand::List { addresses: true }) => output.list::<PoolAddress>("/v1/pools/addresses"),
        Command::Interface(InterfaceCommand::List) => output.list::<Interface>("/v1/interfaces"),
        Command::Neighbour(NeighbourCommand::List) => output.list::<Neighbour>("/v1/neighbours"),
        Command::Route(RouteCommand::List) => output.list::<Route>("/v1/routes"),
        Command::Worker(WorkerCommand::Show) => output.list::<Worker>("/v1/workers"),
        Command::Shard(ShardCommand::List) => output.list::<Shard>("/v1/shards"),
        Command::Shard(ShardCommand::Move { shard, worker }) => {
            output.object::<Moved>(Method::POST, &format!("/v1/shards?shard={shard}&worker={worker}"))
        }
        Command::Prefix(PrefixCommand::List) => output.list::<Prefix>("/v1/prefixes"),
        Command::Prefix(PrefixCommand::Set { rule, prefix }) => {
            output.object::<ReloadReport>(Method::POST, &renumber(rule, prefix))
        }
        Command::Prefix(PrefixCommand::Unset { rule }) => {
            output.object::<ReloadReport>(Method::POST, &renumber(rule, "file"))
        }
        Command::Stats(StatsArgs { explain: true }) if format == Format::Table => output.explained("/v1/stats"),
        Command::Stats(_) => output.list::<DropReason>("/v1/stats"),
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

/// The request that gives a rule another outside prefix.
fn renumber(rule: &str, outside: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("rule", rule)
        .append_pair("outside", outside)
        .finish();
    format!("/v1/prefixes?{query}")
}
