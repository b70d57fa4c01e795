//! `turnpike check`: says in tables what a configuration file means, or what is wrong with it.

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use control::config::{Config, DEFAULT_PATH, Device, Poll, written};
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, InterfaceId, InterfaceSpec, IpPrefix, MacAddr, MssClamp, Nat44Rule,
    NextHop, Pooling, PortForward, PrefixKind, PrefixRule, Spec, ZoneId,
};
use dataplane::translate::eam::Hairpin;
use dataplane::translate::embed::Prefix;

/// Say what a configuration means, or what is wrong with it
///
/// Reads nothing but the files and changes nothing: cores and devices are looked for when the gateway starts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  turnpike check configs/minimal.yaml

Exit codes: 0 the file is good, 2 it is not (the problems are on standard error).")]
pub struct Args {
    /// Files, or directories whose *.yaml are read, merged in this order
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    files: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.files)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let files: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
    let verdict = if files.len() == 1 { "is good. It says:" } else { "are good. Together they say:" };
    let report = format!("{} {verdict}\n\n{}", files.join(", "), Report { config: &config, cores }.write());
    match std::io::stdout().write_all(report.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The file's meaning, for a reader.
struct Report<'a> {
    config: &'a Config,
    /// Cores of this machine, which the way of polling depends on.
    cores: usize,
}

impl Report<'_> {
    fn write(&self) -> String {
        let sections = [
            ("Boot", self.boot()),
            ("Ports", self.ports()),
            ("Interfaces", self.interfaces()),
            ("Routes (the longest prefix wins)", self.routes()),
            ("Pools", self.pools()),
            ("NAT44 rules (the first that matches decides)", self.rules()),
            ("NAT44 port forwards", self.forwards()),
            ("NAT44 static addresses", self.statics()),
            ("Prefixes for prefixes (stateless, both ways)", self.prefixes()),
            ("Between IPv4 and IPv6 (stateless, both ways)", self.crossings()),
            ("Between zones", self.zones()),
            ("Timers", self.timers()),
            ("ICMP errors of the gateway itself", self.icmp()),
            ("Metrics", self.metrics()),
            ("Worth a look", self.notes()),
        ];
        let mut text = String::new();
        for (title, table) in sections.into_iter().filter(|(_, table)| !table.rows.is_empty()) {
            let _ = write!(text, "{title}\n{table}\n");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    fn spec(&self) -> &Spec {
        self.config.outline()
    }

    fn interface(&self, InterfaceId(index): InterfaceId) -> &InterfaceSpec {
        &self.spec().interfaces[usize::from(index)]
    }

    fn zone(&self, ZoneId(index): ZoneId) -> &str {
        &self.spec().zones[usize::from(index)]
    }

    fn boot(&self) -> Table {
        let boot = &self.config.boot;
        let workers = match &boot.cpu.workers[..] {
            [] => "the last core that the process may use".to_owned(),
            cores => format!("core {}", list(cores)),
        };
        let control = boot.cpu.control.map_or("wherever the kernel puts it".to_owned(), |core| format!("core {core}"));
        let poll = match boot.cpu.poll_on(self.cores) {
            Poll::Busy => "busy: never sleeps",
            Poll::Adaptive => "adaptive: sleeps up to 1 ms when idle",
        };
        let default = if boot.cpu.poll.is_none() { " (default on this machine)" } else { "" };
        let pages = if boot.memory.hugepages { "huge pages" } else { "ordinary pages" };
        let limits = &self.spec().limits;
        let mut table = Table::new(&[]);
        table.row([&"worker", &workers]);
        table.row([&"control thread", &control]);
        table.row([&"polling", &format!("{poll}{default}")]);
        table.row([&"memory", &format!("{} MiB of {pages}", boot.memory.size >> 20)]);
        table.row([&"packet buffers", &boot.packets]);
        table.row([&"table of sessions", &limits.sessions]);
        table.row([&"table of mappings", &limits.mappings]);
        table.row([&"table of neighbours", &limits.neighbours]);
        table
    }

    fn ports(&self) -> Table {
        let mut table = Table::new(&["port", "device", "descriptors (rx, tx)", "interfaces"]);
        for (i, port) in self.config.ports.iter().enumerate() {
            let device = match &port.device {
                Device::Vdev(vdev) => vdev.clone(),
                Device::Pci(pci) => format!("PCI {pci}"),
            };
            let interfaces = self.spec().interfaces.iter().filter(|interface| usize::from(interface.port.0) == i);
            let interfaces = interfaces.map(|interface| match (interface.outer_vlan, interface.vlan) {
                (Some(outer), Some(vlan)) => format!("{} (tag {vlan} within {outer})", interface.name),
                (_, Some(vlan)) => format!("{} (tag {vlan})", interface.name),
                (_, None) => format!("{} (untagged)", interface.name),
            });
            let descriptors = format!("{}, {}", port.rx_descriptors, port.tx_descriptors);
            table.row([&port.name, &device, &descriptors, &list(interfaces)]);
        }
        table
    }

    fn interfaces(&self) -> Table {
        let header = ["interface", "zone", "Ethernet address", "addresses", "MTU", "MSS clamp", "static neighbours"];
        let mut table = Table::new(&header);
        for interface in &self.spec().interfaces {
            let clamp = match interface.mss_clamp {
                MssClamp::Off => "off".to_owned(),
                MssClamp::FromMtu => format!("{} (IPv6 {})", interface.mtu - 40, interface.mtu.saturating_sub(60)),
                MssClamp::Fixed(size) => size.to_string(),
            };
            let neighbours = interface.neighbours.iter().map(|(address, mac)| format!("{address} at {mac}"));
            let zone = self.zone(interface.zone);
            let addresses = list(&interface.addresses);
            let mac = if interface.mac == MacAddr::default() { "the port's".into() } else { interface.mac.to_string() };
            table.row([&interface.name, &zone, &mac, &addresses, &interface.mtu, &clamp, &list(neighbours)]);
        }
        table
    }

    fn routes(&self) -> Table {
        let mut table = Table::new(&["to", "by", "from"]);
        for interface in &self.spec().interfaces {
            let mut links: Vec<IpPrefix> = interface.addresses.iter().map(|own| own.network()).collect();
            links.dedup();
            for link in links {
                table.row([&link, &format!("interface {}, on the link", interface.name), &"its addresses"]);
            }
        }
        for route in &self.spec().routes {
            let by = match route.next_hop {
                NextHop::Via(via, interface) => format!("{via} on interface {}", self.interface(interface).name),
                NextHop::OnLink(interface) => format!("interface {}, on the link", self.interface(interface).name),
                NextHop::Unreachable => "nothing: answered with ICMP unreachable".to_owned(),
            };
            table.row([&route.prefix, &by, &"routes"]);
        }
        table
    }

    fn pools(&self) -> Table {
        let header = ["pool", "addresses", "number", "ports", "ports in all", "answers ARP", "answers ping"];
        let mut table = Table::new(&header);
        for pool in &self.spec().pools {
            let number: u64 = pool.addresses.iter().map(count).sum();
            let ports = u64::from(pool.ports.end() - pool.ports.start()) + 1;
            let addresses = list(pool.addresses.iter().map(span));
            let [arp, echo] = [pool.proxy_arp, pool.answer_echo].map(yes_no);
            table.row([&pool.name, &addresses, &number, &span(&pool.ports), &(number * ports), &arp, &echo]);
        }
        table
    }

    fn rules(&self) -> Table {
        let header =
            ["rule", "from", "to", "sources become", "lets in", "when its address is full", "keeps", "refresh"];
        let mut table = Table::new(&header);
        for rule in &self.spec().nat44 {
            let from = format!("{} {}", self.zone(rule.from), any(&rule.source));
            let to = format!("{} {}", self.zone(rule.to), any(&rule.destination));
            let pool = format!("an address and port of {}", self.spec().pools[usize::from(rule.pool.0)].name);
            let full = match rule.pooling {
                Pooling::Paired => "refuses",
                Pooling::PairedSoft => "takes another of the pool",
            };
            let keeps = match (rule.port_preservation, rule.port_parity) {
                (true, true) => "port if free, parity",
                (true, false) => "port if free",
                (false, true) => "parity",
                (false, false) => "nothing",
            };
            let refresh = if rule.inbound_refresh { "both ways" } else { "from inside" };
            table.row([&rule.name, &from, &to, &pool, &lets_in(&rule.filtering), &full, &keeps, &refresh]);
        }
        table
    }

    fn forwards(&self) -> Table {
        let mut table = Table::new(&["forward", "from", "external", "goes to", "in zone", "for whom"]);
        for forward in &self.spec().forwards {
            let [inside, external] = forward_ends(forward);
            let (from, to) = (self.zone(forward.outside_zone), self.zone(forward.inside_zone));
            table.row([&forward.name, &from, &external, &inside, &to, &whom(forward.filtering)]);
        }
        table
    }

    fn statics(&self) -> Table {
        let mut table = Table::new(&["static", "from", "external", "is", "in zone", "for whom"]);
        for entry in &self.spec().static_nat {
            let (from, to) = (self.zone(entry.outside_zone), self.zone(entry.inside_zone));
            table.row([&entry.name, &from, &entry.external, &entry.inside, &to, &whom(entry.filtering)]);
        }
        table
    }

    /// What becomes of a packet from each zone to each other: the consequence of all rules together.
    fn zones(&self) -> Table {
        let mut table = Table::new(&["from", "to", "IPv4", "IPv6"]);
        let zones = || (0..=u8::MAX).zip(&self.spec().zones).map(|(i, name)| (ZoneId(i), name));
        for (from, from_name) in zones() {
            for (to, to_name) in zones().filter(|(to, _)| *to != from) {
                let mut effects: Vec<String> = self.exchanged(from, to, false);
                effects.extend(self.outbound(from, to));
                effects.extend(self.inbound(from, to));
                if effects.is_empty() {
                    effects.push("routed: no rule is about these zones".to_owned());
                }
                let mut effects6 = self.exchanged(from, to, true);
                effects6.push(if effects6.is_empty() { "routed" } else { "all else: routed" }.to_owned());
                for i in 0..effects.len().max(effects6.len()) {
                    let [from_name, to_name] = [from_name, to_name].map(|name| if i == 0 { name } else { "" });
                    let [effect, effect6] = [&effects, &effects6].map(|it| it.get(i).map_or("", String::as_str));
                    table.row([&from_name, &to_name, &effect, &effect6]);
                }
            }
        }
        table
    }

    /// Translators between the families.
    fn crossings(&self) -> Table {
        let header =
            ["translator", "IPv4 in", "IPv6 in", "prefixes", "embeds", "mappings", "hairpin", "routers' errors from"];
        let mut table = Table::new(&header);
        for it in &self.spec().crossings {
            let prefix = |prefix: &Prefix| format!("{}/{}", Ipv6Addr::from_bits(prefix.network()), prefix.length());
            let prefixes = list(it.prefixes.iter().map(prefix));
            let into = it.destination_prefix.as_ref().map_or(String::new(), |it| format!(" in {}", prefix(it)));
            let embeds = format!("{}{into}", list(it.destinations.iter().map(span)));
            let hairpin = match it.hairpin {
                Hairpin::None => "none",
                Hairpin::Simple => "simple",
                Hairpin::Intrinsic => "intrinsic",
            };
            let (ipv4, ipv6) = (self.zone(it.ipv4), self.zone(it.ipv6));
            let sources = list(it.error_sources.iter().map(span));
            let name = format!("siit.{}", it.name);
            table.row([&name, &ipv4, &ipv6, &prefixes, &embeds, &it.mappings.len(), &hairpin, &sources]);
        }
        table
    }

    /// Rules that exchange prefixes.
    fn prefixes(&self) -> Table {
        let mut table = Table::new(&["rule", "inside", "outside", "from", "to", "how"]);
        for rule in &self.spec().prefixes {
            let how = match rule.kind {
                PrefixKind::Nptv6 { allow_zero_iid: false } => "checksum-neutral (RFC 6296)",
                PrefixKind::Nptv6 { allow_zero_iid: true } => "checksum-neutral (RFC 6296), identifiers of zeros too",
                PrefixKind::Map66 { maps_own: false } => "checksum-neutral, the word behind the prefix",
                PrefixKind::Map66 { maps_own: true } => {
                    "checksum-neutral, the word behind the prefix; own addresses too"
                }
                PrefixKind::Netmap => "bits behind the prefix kept",
            };
            let (name, from, to) = (rule.full_name(), self.zone(rule.from), self.zone(rule.to));
            table.row([&name, &rule.inside, &rule.outside, &from, &to, &how]);
        }
        table
    }

    /// What rules that exchange prefixes do to packets of one family.
    fn exchanged(&self, from: ZoneId, to: ZoneId, six: bool) -> Vec<String> {
        let rules = self.spec().prefixes.iter().filter(|rule| rule.inside.address.is_ipv6() == six);
        let effect = |rule: &PrefixRule| {
            let (inside, outside, name) = (rule.inside, rule.outside, rule.full_name());
            if (rule.from, rule.to) == (from, to) {
                Some(format!("from {inside}: from {outside} ({name})"))
            } else if (rule.to, rule.from) == (from, to) {
                Some(format!("to {outside}: to {inside} ({name}), from anyone"))
            } else {
                None
            }
        };
        let mut effects: Vec<String> = rules.filter_map(effect).collect();
        for it in &self.spec().crossings {
            if !six && (it.ipv4, it.ipv6) == (from, to) {
                effects.push(format!("to mapped and embedded addresses: crosses to IPv6 (siit.{})", it.name));
            } else if six && (it.ipv6, it.ipv4) == (from, to) {
                effects.push(format!("to mapped and embedded addresses: crosses to IPv4 (siit.{})", it.name));
            }
        }
        effects
    }

    /// What rules do to packets from inside.
    fn outbound(&self, from: ZoneId, to: ZoneId) -> Vec<String> {
        let rules: Vec<&Nat44Rule> =
            self.spec().nat44.iter().filter(|rule| (rule.from, rule.to) == (from, to)).collect();
        let statics =
            self.spec().static_nat.iter().filter(|entry| (entry.inside_zone, entry.outside_zone) == (from, to));
        let mut effects: Vec<String> = statics
            .map(|entry| format!("{} leaves as {} (static {})", entry.inside, entry.external, entry.name))
            .collect();
        let forwards = self.spec().forwards.iter();
        for forward in forwards.filter(|entry| (entry.inside_zone, entry.outside_zone) == (from, to)) {
            let [inside, external] = forward_ends(forward);
            effects.push(format!("{inside} leaves as {external} (forward {})", forward.name));
        }
        for rule in &rules {
            let pool = &self.spec().pools[usize::from(rule.pool.0)].name;
            let (source, destination) = (any(&rule.source), any(&rule.destination));
            effects.push(format!("{source} to {destination}: translated to pool {pool} (rule {})", rule.name));
        }
        let all = rules.iter().any(|rule| rule.source.is_empty() && rule.destination.is_empty());
        if !effects.is_empty() && !all {
            effects.push("all else: routed, not translated".to_owned());
        }
        effects
    }

    /// What rules do to packets from outside.
    fn inbound(&self, from: ZoneId, to: ZoneId) -> Vec<String> {
        let spec = self.spec();
        let rules: Vec<&Nat44Rule> = spec.nat44.iter().filter(|rule| (rule.to, rule.from) == (from, to)).collect();
        let forwards: Vec<&PortForward> =
            spec.forwards.iter().filter(|entry| (entry.outside_zone, entry.inside_zone) == (from, to)).collect();
        let statics = spec.static_nat.iter().filter(|entry| (entry.outside_zone, entry.inside_zone) == (from, to));
        let mut effects = Vec::new();
        if !forwards.is_empty() {
            let names = list(forwards.iter().map(|entry| &entry.name));
            effects.push(format!("to the external ports of {names}: forwarded"));
        }
        let mut closed: Vec<IpPrefix> = rules.iter().flat_map(|rule| &rule.source).copied().collect();
        let mut hosts: Vec<Ipv4Addr> = forwards.iter().map(|entry| entry.inside).collect();
        for entry in statics {
            effects.push(format!("{} leads to {} (static {})", entry.external, entry.inside, entry.name));
            hosts.push(entry.inside);
        }
        let all = rules.iter().any(|rule| rule.source.is_empty());
        for host in hosts.into_iter().map(IpAddr::V4) {
            if !closed.iter().any(|prefix| prefix.contains(host)) {
                closed.push(IpPrefix { address: host, len: 32 });
            }
        }
        if !rules.is_empty() {
            effects.push("what belongs to a session or mapping from inside: translated back".to_owned());
        }
        if all || !closed.is_empty() {
            let inside = if all { "any inside address".to_owned() } else { list(closed.iter().map(short)) };
            effects.push(format!("unsolicited, to an external address or {inside}: dropped"));
        }
        let interfaces = spec.interfaces.iter().filter(|interface| interface.zone == to);
        let own = interfaces.flat_map(|interface| &interface.addresses).map(|own| own.address);
        let is_closed = |own: &IpAddr| own.is_ipv4() && (all || closed.iter().any(|prefix| prefix.contains(*own)));
        let own: Vec<IpAddr> = own.filter(is_closed).collect();
        if !own.is_empty() {
            effects.push(format!("to the gateway's own {}: dropped", list(own)));
        }
        if !effects.is_empty() && !all {
            effects.push("all else: routed, not translated".to_owned());
        }
        effects
    }

    fn timers(&self) -> Table {
        let timers = &self.spec().timers;
        let mut table = Table::new(&["idle", "ends after"]);
        let mut row = |what: &str, time: Duration| table.row([&what, &written(time)]);
        row("UDP", timers.udp);
        for (port, time) in &timers.udp_ports {
            row(&format!("UDP to port {port}"), *time);
        }
        row("TCP, opening", timers.tcp_opening);
        row("TCP, established", timers.tcp_established);
        row("TCP, closing", timers.tcp_closing);
        row("ICMP query", timers.icmp);
        row("freed port, before it is used again", timers.hold_down);
        row("fragments without the first of their datagram", timers.fragment);
        table
    }

    fn icmp(&self) -> Table {
        let icmp = &self.spec().icmp;
        let mut table = Table::new(&[]);
        table.row([&"rate", &format!("{} per second, {} at once", icmp.rate, icmp.burst)]);
        if !icmp.silent.is_empty() {
            table.row([&"none on", &list(icmp.silent.iter().map(|&interface| &self.interface(interface).name))]);
        }
        if !icmp.sources.is_empty() {
            table.row([&"from", &list(icmp.sources.iter())]);
        }
        table
    }

    fn metrics(&self) -> Table {
        let mut table = Table::new(&[]);
        let listen = self.config.metrics.listen.map_or("off".to_owned(), |address| format!("http://{address}/metrics"));
        table.row([&"served at", &listen]);
        table
    }

    /// What is allowed but may surprise.
    fn notes(&self) -> Table {
        let spec = self.spec();
        let mut table = Table::new(&[]);
        let mut note = |text: String| table.row([&text]);
        let has_v6 = |zone| {
            let inside = spec.interfaces.iter().filter(|interface| interface.zone == zone);
            inside.flat_map(|interface| &interface.addresses).any(|own| own.address.is_ipv6())
        };
        let mut open: Vec<ZoneId> = spec.nat44.iter().map(|rule| rule.from).filter(|zone| has_v6(*zone)).collect();
        open.dedup();
        for zone in open {
            note(format!("IPv6 is routed into zone {} from everywhere: NAT44 does not shield it", self.zone(zone)));
        }
        for said in self.config.notes() {
            note(said.clone());
        }
        for it in &spec.crossings {
            note(format!(
                "siit.{} lets hosts in zones {} and {} reach each other, whoever begins: there is no firewall",
                it.name,
                self.zone(it.ipv4),
                self.zone(it.ipv6)
            ));
        }
        for rule in &spec.prefixes {
            note(format!(
                "{} lets everybody in zone {} reach hosts of {} by their outside addresses: there is no firewall",
                rule.full_name(),
                self.zone(rule.to),
                rule.inside
            ));
        }
        for (i, port) in spec.ports.iter().enumerate() {
            if spec.interfaces.iter().all(|interface| usize::from(interface.port.0) != i) {
                note(format!("port {} carries no interface: what arrives there is dropped", port.name));
            }
        }
        for (i, pool) in spec.pools.iter().enumerate() {
            if spec.nat44.iter().all(|rule| usize::from(rule.pool.0) != i) {
                note(format!("pool {} is used by no rule", pool.name));
            }
            for interface in &spec.interfaces {
                let own = interface.addresses.iter().find(|own| match own.address {
                    IpAddr::V4(own) => pool.addresses.iter().any(|range| range.contains(&own)),
                    IpAddr::V6(_) => false,
                });
                if let Some(own) = own {
                    note(format!(
                        "{} of pool {} is also the gateway's own on {}: of what belongs to no session, pings reach \
                         the gateway, and from inside all else",
                        own.address, pool.name, interface.name
                    ));
                }
            }
        }
        table
    }
}

/// A prefix, or the one address that it is.
fn short(prefix: &IpPrefix) -> String {
    if prefix.len == 32 { prefix.address.to_string() } else { prefix.to_string() }
}

/// The inside and the external end of a forward.
fn forward_ends(forward: &PortForward) -> [String; 2] {
    let protocol = match forward.protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
    };
    let more = forward.external_ports.end() - forward.external_ports.start();
    let inside_ports = forward.inside_port..=forward.inside_port.saturating_add(more);
    [
        format!("{protocol} {}:{}", forward.inside, span(&inside_ports)),
        format!("{protocol} {}:{}", forward.external, span(&forward.external_ports)),
    ]
}

/// What a mapping lets in from outside.
fn lets_in(filtering: &FilteringSet) -> String {
    let FilteringSet { tcp, udp, icmp } = *filtering;
    if tcp == udp && udp == icmp {
        return whom(tcp).to_owned();
    }
    format!("tcp: {}; udp: {}; icmp: {}", whom(tcp), whom(udp), whom(icmp))
}

/// Who may use a mapping from outside.
fn whom(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "anyone",
        Filtering::AddressDependent => "hosts that were sent to",
        Filtering::AddressPortDependent => "ports that were sent to",
    }
}

/// Prefixes, none of which means all.
fn any(prefixes: &[IpPrefix]) -> String {
    if prefixes.is_empty() { "any".to_owned() } else { list(prefixes) }
}

fn yes_no(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

/// A range as the file has it.
fn span<T: Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// How many addresses a range has.
fn count(range: &RangeInclusive<Ipv4Addr>) -> u64 {
    u64::from(range.end().to_bits() - range.start().to_bits()) + 1
}

fn list<T: Display>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ")
}

/// Text in columns.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(header: &[&str]) -> Self {
        Table { header: header.iter().map(|title| (*title).to_owned()).collect(), rows: Vec::new() }
    }

    fn row<const N: usize>(&mut self, cells: [&dyn Display; N]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = Some(&self.header).filter(|header| !header.is_empty());
        let lines: Vec<&Vec<String>> = header.into_iter().chain(&self.rows).collect();
        let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
        let width =
            |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for (i, line) in lines.iter().enumerate() {
            let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(f, "  {}", cells.join("  ").trim_end())?;
            if i == 0 && header.is_some() {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(f, "  {}", rule.join("  "))?;
            }
        }
        Ok(())
    }
}
