//! `turnpike translate-address`: what a configuration makes of an address, and by which rule.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use control::config::{Config, DEFAULT_PATH};
use dataplane::plan::{Plan, PrefixRule, Target};
use dataplane::translate::Unmapped;
use dataplane::translate::eam::{Hairpin, Role};

/// Say what an address becomes under a configuration, in both directions, and by which rule
///
/// Stateless rules and static entries are looked through; what is allocated when a flow begins is not known before.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  turnpike translate-address -c configs/map66.yaml fdca:ffee:babe::1

Exit codes: 0 something translates it, 1 nothing does, 2 wrong use or configuration.")]
pub struct Args {
    /// Files, or directories whose *.yaml are read, merged in this order
    #[arg(short, long = "config", value_name = "FILE", default_value = DEFAULT_PATH)]
    config: Vec<PathBuf>,
    /// The address, IPv4 or IPv6
    address: IpAddr,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let plan = Plan::compile(config.outline().clone()).context("the configuration does not do")?;
    let lines = explain(&plan, args.address);
    if lines.is_empty() {
        println!("{}: nothing translates it", args.address);
        return Ok(ExitCode::FAILURE);
    }
    for line in lines {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that is to be said of an address, a line for each direction and rule.
fn explain(plan: &Plan, address: IpAddr) -> Vec<String> {
    let mut lines = match address {
        IpAddr::V4(it) => {
            let found = plan.prefixes.counterparts(it.to_bits()).into_iter();
            let found =
                found.map(|(rule, inside, to)| (rule, inside, to.map(|to| IpAddr::V4(Ipv4Addr::from_bits(to)))));
            exchanged(plan, address, found)
        }
        IpAddr::V6(it) => {
            let found = plan.prefixes.counterparts(it.to_bits()).into_iter();
            let found =
                found.map(|(rule, inside, to)| (rule, inside, to.map(|to| IpAddr::V6(Ipv6Addr::from_bits(to)))));
            exchanged(plan, address, found)
        }
    };
    lines.extend(crossed(plan, address));
    if let IpAddr::V4(address) = address {
        lines.extend(nat44(plan, address));
    }
    lines
}

/// By translators between the families.
fn crossed(plan: &Plan, address: IpAddr) -> Vec<String> {
    let mut lines = Vec::new();
    for index in (0..).take(plan.spec.crossings.len()) {
        let Some((crossing, spec)) = plan.crossing(index) else { continue };
        let (ipv4, ipv6) = (zone(plan, spec.ipv4), zone(plan, spec.ipv6));
        let mut say = |role: &str, from: &str, to: IpAddr, mapped: bool| {
            let how = if mapped { "mapped" } else { "embedded" };
            lines.push(format!("{address} as a {role}, from {from}: {to}, {how} (siit.{})", spec.name));
        };
        match address {
            IpAddr::V4(it) => {
                let bits = it.to_bits();
                let mapped = spec.mappings.to6(bits).is_some();
                if let Some(to) = spec.to6(Role::Source, bits, None) {
                    say("source", ipv4, Ipv6Addr::from_bits(to).into(), mapped && spec.hairpin != Hairpin::Simple);
                }
                if let Some(to) = crossing.destination6(spec, bits, plan.target4(bits)) {
                    say("destination", ipv4, Ipv6Addr::from_bits(to).into(), mapped);
                }
            }
            IpAddr::V6(it) => {
                let bits = it.to_bits();
                if let Some(to) = spec.to4(bits) {
                    say("source", ipv6, Ipv4Addr::from_bits(to).into(), spec.mappings.to4(bits).is_some());
                }
                if let Some(to) = crossing.destination4(spec, bits, plan.target6(bits)) {
                    say("destination", ipv6, Ipv4Addr::from_bits(to.address).into(), !to.embedded);
                }
            }
        }
    }
    lines
}

fn zone(plan: &Plan, id: dataplane::plan::ZoneId) -> &str {
    plan.spec.zones.get(usize::from(id.0)).map_or("", String::as_str)
}

/// By rules that exchange prefixes.
fn exchanged(
    plan: &Plan,
    address: IpAddr,
    found: impl Iterator<Item = (u16, bool, Result<IpAddr, Unmapped>)>,
) -> Vec<String> {
    let spec = &plan.spec;
    let line = |(index, inside, to): (u16, bool, Result<IpAddr, Unmapped>)| {
        let rule: &PrefixRule = spec.prefixes.get(usize::from(index))?;
        let (from_zone, to_zone) = (zone(plan, rule.from), zone(plan, rule.to));
        let mut line = if inside {
            format!("{address} as a source, from {from_zone} to {to_zone}: ")
        } else {
            format!("{address} as a destination, from {to_zone} to {from_zone}: ")
        };
        let _ = match to {
            Ok(to) => write!(line, "{to}"),
            Err(Unmapped::Subnet) => write!(line, "refused, its subnet has no counterpart"),
            Err(Unmapped::Identifier) => write!(line, "refused, its interface identifier is all ones"),
            Err(Unmapped::ZeroIdentifier) => write!(line, "refused, its interface identifier is zero"),
        };
        let _ = write!(line, " ({})", rule.full_name());
        Some(line)
    };
    found.filter_map(line).collect()
}

/// By static entries, forwards and pools.
fn nat44(plan: &Plan, address: Ipv4Addr) -> Vec<String> {
    let spec = &plan.spec;
    let mut lines = Vec::new();
    for entry in &spec.static_nat {
        let (inside, outside) = (zone(plan, entry.inside_zone), zone(plan, entry.outside_zone));
        if entry.inside == address {
            let to = entry.external;
            lines
                .push(format!("{address} as a source, from {inside} to {outside}: {to} (nat44.static.{})", entry.name));
        }
        if entry.external == address {
            let to = entry.inside;
            lines.push(format!(
                "{address} as a destination, from {outside} to {inside}: {to} (nat44.static.{})",
                entry.name
            ));
        }
    }
    for entry in &spec.forwards {
        let ports = |first: u16| {
            let more = entry.external_ports.end() - entry.external_ports.start();
            if more == 0 { format!("port {first}") } else { format!("ports {first}-{}", first.saturating_add(more)) }
        };
        let (inside, outside) = (zone(plan, entry.inside_zone), zone(plan, entry.outside_zone));
        let (inside_ports, outside_ports) = (ports(entry.inside_port), ports(*entry.external_ports.start()));
        if entry.external == address {
            lines.push(format!(
                "{address} as a destination, from {outside} to {inside}: {outside_ports} of it to {inside_ports} of {} \
                 (nat44.forwards.{})",
                entry.inside, entry.name
            ));
        }
        if entry.inside == address {
            lines.push(format!(
                "{address} as a source, from {inside} to {outside}: {inside_ports} of it as {outside_ports} of {} \
                 (nat44.forwards.{})",
                entry.external, entry.name
            ));
        }
    }
    let covers = |prefixes: &[dataplane::plan::IpPrefix]| {
        prefixes.is_empty() || prefixes.iter().any(|it| it.contains(IpAddr::V4(address)))
    };
    for rule in spec.nat44.iter().filter(|rule| covers(&rule.source)) {
        let pool = spec.pools.get(usize::from(rule.pool.0)).map_or("", |pool| &pool.name);
        lines.push(format!(
            "{address} as a source, from {} to {}: an address and port of pool {pool} (nat44.rules.{})",
            zone(plan, rule.from),
            zone(plan, rule.to),
            rule.name
        ));
    }
    if let Some(Target::External { .. }) = plan.target4(address.to_bits())
        && let Some((_, external)) = plan.external(address.to_bits())
        && let Some(pool) = external.pool.and_then(|pool| spec.pools.get(usize::from(pool.0)))
    {
        lines.push(format!("{address} as a destination: whatever has the port, by its mapping (pools.{})", pool.name));
    }
    lines
}
