//! What people see of each type.

use std::fmt::Write;
use std::time::Duration;

use control::api::types::{
    Count, DropReason, Flushed, Interface, Mapping, Moved, Neighbour, Pool, PoolAddress, Prefix, ReloadReport, Route,
    Row, Session, Shard, Status, Worker,
};
use control::config::written;

/// A type that is listed as a table.
pub trait Table: Row {
    /// The columns.
    const TITLES: &'static [&'static str];

    /// A line, as many cells as columns.
    fn cells(&self) -> Vec<String>;
}

/// A type that is printed by itself.
pub trait Summary: Row {
    /// Its lines.
    fn summary(&self) -> String;
}

fn seconds(seconds: u64) -> String {
    written(Duration::from_secs(seconds))
}

/// Of how many, in percent.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

fn dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

impl Summary for Status {
    fn summary(&self) -> String {
        let Status { version, pid, generation, workers, ports, ports_up, .. } = self;
        let state = if self.ready { "forwards packets" } else { "does not forward packets" };
        let uptime = seconds(self.uptime_seconds);
        let config = self.config.join(", ");
        let table = |now: u64, limit: u64| format!("{now} of {limit} ({})", percent(now, limit));
        let sessions = table(self.sessions, self.session_limit);
        let mappings = table(self.mappings, self.mapping_limit);
        format!(
            "turnpike {version}: {state}\n\
             process        {pid}, up {uptime}\n\
             configuration  {config}, generation {generation}\n\
             workers        {workers}\n\
             ports          {ports_up} of {ports} up\n\
             sessions       {sessions}\n\
             mappings       {mappings}\n"
        )
    }
}

impl Summary for Count {
    fn summary(&self) -> String {
        format!("{}\n", self.sessions)
    }
}

impl Summary for Flushed {
    fn summary(&self) -> String {
        format!("{} ended\n", self.sessions)
    }
}

impl Summary for ReloadReport {
    fn summary(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            // Writing to a string does not fail.
            let _ = write!(text, "{}: {}", change.key, change.what);
            let _ = if change.flows.is_empty() { writeln!(text) } else { writeln!(text, " ({})", change.flows) };
        }
        let generation = self.generation;
        let _ = match (self.changes.is_empty(), self.applied) {
            (true, _) => writeln!(text, "nothing changes; generation {generation} is in use"),
            (false, true) => writeln!(text, "done; generation {generation} is in use"),
            (false, false) => writeln!(text, "nothing was changed; this would be generation {generation}"),
        };
        text
    }
}

impl Table for Session {
    const TITLES: &'static [&'static str] =
        &["PROTO", "STATE", "INSIDE", "EXTERNAL", "REMOTE", "OPENED", "RULE", "EXPIRES", "OUT", "IN"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.proto.clone(),
            self.state.clone(),
            format!("{}:{}", self.inside, self.inside_port),
            format!("{}:{}", self.external, self.external_port),
            format!("{}:{}", self.remote, self.remote_port),
            self.opened.clone(),
            if self.kind == "rule" { self.rule.clone() } else { format!("{} {}", self.kind, self.rule) },
            seconds(self.expires_seconds),
            carried(self.packets_out, self.bytes_out),
            carried(self.packets_in, self.bytes_in),
        ]
    }
}

/// What a session has carried one way, if that is counted.
fn carried(packets: Option<u64>, bytes: Option<u64>) -> String {
    packets.zip(bytes).map_or_else(|| "-".to_owned(), |(packets, bytes)| format!("{packets} of {bytes} bytes"))
}

impl Table for Mapping {
    const TITLES: &'static [&'static str] = &["PROTO", "INSIDE", "EXTERNAL", "SESSIONS", "RULE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.proto.clone(),
            format!("{}:{}", self.inside, self.inside_port),
            format!("{}:{}", self.external, self.external_port),
            if self.held_down { "held down".to_owned() } else { self.sessions.to_string() },
            self.rule.clone(),
        ]
    }
}

impl Table for Pool {
    const TITLES: &'static [&'static str] =
        &["POOL", "ADDRESSES", "PORTS", "TCP", "UDP", "ICMP", "BLOCKS", "USED", "FREE", "FULL"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.pool.clone(), self.addresses.to_string(), self.ports.to_string()];
        let counts = [self.tcp_used, self.udp_used, self.icmp_used, self.blocks, self.blocks_used, self.blocks_free];
        cells.extend(counts.map(|n| n.to_string()));
        cells.push(percent(self.blocks_used, self.blocks));
        cells
    }
}

impl Table for PoolAddress {
    const TITLES: &'static [&'static str] =
        &["POOL", "ADDRESS", "STATE", "TCP", "UDP", "ICMP", "BLOCKS", "USED", "FREE", "FULL"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.pool.clone(), self.address.to_string()];
        cells.push(if self.draining { "draining" } else { "used" }.to_owned());
        let counts = [self.tcp_used, self.udp_used, self.icmp_used, self.blocks, self.blocks_used, self.blocks_free];
        cells.extend(counts.map(|n| n.to_string()));
        cells.push(percent(self.blocks_used, self.blocks));
        cells
    }
}

impl Table for Interface {
    const TITLES: &'static [&'static str] = &[
        "INTERFACE",
        "PORT",
        "VLAN",
        "ZONE",
        "MAC",
        "MTU",
        "LINK",
        "RX-PACKETS",
        "RX-BYTES",
        "TX-PACKETS",
        "TX-BYTES",
        "ADDRESSES",
    ];

    fn cells(&self) -> Vec<String> {
        let vlan = match (self.outer_vlan, self.vlan) {
            (Some(outer), Some(inner)) => format!("{outer}.{inner}"),
            (outer, inner) => dash(outer.or(inner)),
        };
        vec![
            self.interface.clone(),
            self.port.clone(),
            vlan,
            self.zone.clone(),
            self.mac.clone(),
            self.mtu.to_string(),
            if self.up { "up" } else { "down" }.to_owned(),
            self.received_packets.to_string(),
            self.received_bytes.to_string(),
            self.transmitted_packets.to_string(),
            self.transmitted_bytes.to_string(),
            self.addresses.join(" "),
        ]
    }
}

impl Table for Neighbour {
    const TITLES: &'static [&'static str] = &["INTERFACE", "ADDRESS", "MAC", "STATE", "AGE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.interface.clone(),
            self.address.to_string(),
            dash(self.mac.as_ref()),
            self.state.clone(),
            seconds(self.age_seconds),
        ]
    }
}

impl Table for Route {
    const TITLES: &'static [&'static str] = &["TO", "KIND", "VIA", "INTERFACE", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.to.clone(),
            self.kind.clone(),
            dash(self.via),
            dash(self.interface.as_ref()),
            if self.withdrawn { "withdrawn" } else { "used" }.to_owned(),
        ]
    }
}

impl Table for Worker {
    const TITLES: &'static [&'static str] = &[
        "WORKER",
        "CORE",
        "BUSY",
        "CYCLES/PACKET",
        "POLLS",
        "EMPTY",
        "RECEIVED",
        "TRANSMITTED",
        "DROPPED",
        "SHARDS",
        "HANDED-OVER",
        "TAKEN-OVER",
        "BUFFERS",
        "BUFFERS-FREE",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.worker.to_string(), self.core.to_string(), format!("{:.1}%", self.busy * 100.0)];
        cells.push(dash(self.cycles_per_packet));
        let counts = [
            self.polls,
            self.empty_polls,
            self.received,
            self.transmitted,
            self.dropped,
            self.shards as u64,
            self.handed_over,
            self.taken_over,
            self.buffers,
            self.buffers_free,
        ];
        cells.extend(counts.map(|n| n.to_string()));
        cells
    }
}

impl Table for Shard {
    const TITLES: &'static [&'static str] = &["SHARD", "WORKER"];

    fn cells(&self) -> Vec<String> {
        vec![self.shard.to_string(), self.worker.to_string()]
    }
}

impl Table for Prefix {
    const TITLES: &'static [&'static str] = &["RULE", "FROM", "TO", "INSIDE", "OUTSIDE", "SET"];

    fn cells(&self) -> Vec<String> {
        let set = if self.set { "at run time" } else { "by the file" };
        let Prefix { rule, from, to, inside, outside, .. } = self.clone();
        vec![rule, from, to, inside, outside, set.to_owned()]
    }
}

impl Summary for Moved {
    fn summary(&self) -> String {
        format!("shard {} moved from worker {} to worker {}\n", self.shard, self.from, self.to)
    }
}

impl Table for DropReason {
    const TITLES: &'static [&'static str] = &["FUNCTION", "REASON", "PACKETS", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![self.function.clone(), self.reason.clone(), self.packets.to_string(), self.meaning.clone()]
    }
}
