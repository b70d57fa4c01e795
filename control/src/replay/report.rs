//! What a replay says: a line for each packet, and a summary.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dataplane::counters::{Counter, Counters, Drop, IcmpError};
use dataplane::plan::{InterfaceId, Plan, PrefixRule};
use dataplane::time::Time;
use dataplane::trace::{Disposal, Endpoints, RuleRef, SessionStep, Trace};

use super::input::Arrival;

/// Packets of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// Packets of its capture.
    pub received: u64,
    /// Packets that left by it.
    pub transmitted: u64,
}

/// The end of a replay: all that was counted. Its [`fmt::Display`] is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// By interface, in the order of the configuration.
    pub interfaces: Vec<InterfaceReport>,
    /// Packets left out because the gateway itself had sent them.
    pub left_out: u64,
    /// ICMP errors and TCP resets that the engine made.
    pub originated: u64,
    /// Packets for the gateway itself.
    pub punted: u64,
    /// What the gateway itself answered.
    pub from_host: u64,
    /// Packets still waiting for a neighbour.
    pub held: u64,
    /// Packets dropped, by reason; reasons without any are left out.
    pub dropped: Vec<(Drop, u64)>,
    /// Sessions made.
    pub sessions_made: u64,
    /// Sessions ended.
    pub sessions_ended: u64,
    /// Sessions at the end.
    pub sessions_now: u64,
    /// Mappings made.
    pub mappings_made: u64,
    /// Mappings at the end.
    pub mappings_now: u64,
    /// When the first packet arrived.
    pub started: Time,
    /// When the clock stopped.
    pub ended: Time,
    /// What the user should know about the captures.
    pub notes: Vec<String>,
}

impl Summary {
    pub(super) fn new(plan: &Plan, started: Time) -> Self {
        let name = |name: &String| InterfaceReport { name: name.clone(), received: 0, transmitted: 0 };
        Summary {
            interfaces: plan.spec.interfaces.iter().map(|interface| name(&interface.name)).collect(),
            left_out: 0,
            originated: 0,
            punted: 0,
            from_host: 0,
            held: 0,
            dropped: Vec::new(),
            sessions_made: 0,
            sessions_ended: 0,
            sessions_now: 0,
            mappings_made: 0,
            mappings_now: 0,
            started,
            ended: started,
            notes: Vec::new(),
        }
    }

    /// Takes over what the worker counted.
    pub(super) fn close(&mut self, counters: &Counters, ended: Time, notes: Vec<String>) {
        let sum = |gauges: &[Counter]| gauges.iter().map(Counter::get).sum();
        let dropped = Drop::ALL.iter().map(|&reason| (reason, counters.drops(reason)));
        *self = Summary {
            interfaces: std::mem::take(&mut self.interfaces),
            left_out: self.left_out,
            originated: counters.originated.get(),
            punted: counters.punted.get(),
            from_host: counters.from_host.get(),
            held: counters.held.get(),
            dropped: dropped.filter(|(_, n)| *n > 0).collect(),
            sessions_made: counters.session_creations.get(),
            sessions_ended: counters.session_timeouts.get() + counters.session_replacements.get(),
            sessions_now: sum(&counters.sessions),
            mappings_made: counters.mapping_creations.get(),
            mappings_now: sum(&counters.mappings),
            started: self.started,
            ended,
            notes,
        };
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received: u64 = self.interfaces.iter().map(|interface| interface.received).sum();
        let seconds = self.ended.since(self.started).as_secs_f64();
        writeln!(f, "{received} packets, {seconds:.6} s of virtual time from {}", Clock(self.started))?;
        let width = self.interfaces.iter().map(|interface| interface.name.len()).max().unwrap_or_default().max(9);
        writeln!(f, "  {:width$} {:>12} {:>12}", "interface", "in", "out")?;
        for InterfaceReport { name, received, transmitted } in &self.interfaces {
            writeln!(f, "  {name:width$} {received:>12} {transmitted:>12}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "left out   {:>8}  packets that the gateway itself had sent", self.left_out)?;
        }
        writeln!(f, "originated {:>8}  ICMP errors and TCP resets of the gateway", self.originated)?;
        writeln!(f, "punted     {:>8}  packets for the gateway itself; {} answers", self.punted, self.from_host)?;
        if self.held > 0 {
            writeln!(f, "held       {:>8}  packets wait for a neighbour", self.held)?;
        }
        writeln!(f, "dropped    {:>8}", self.dropped.iter().map(|(_, n)| n).sum::<u64>())?;
        for (reason, n) in &self.dropped {
            writeln!(f, "  {:>18}  {}: {}", n, reason.name(), reason.explain())?;
        }
        let Summary { sessions_made, sessions_ended, sessions_now, mappings_made, mappings_now, .. } = self;
        writeln!(f, "sessions   {sessions_made:>8}  made, {sessions_ended} ended, {sessions_now} now")?;
        writeln!(f, "mappings   {mappings_made:>8}  made, {mappings_now} now")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// A time as captures print it: seconds since the Unix epoch.
struct Clock(Time);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.0 / 1_000_000_000, self.0.0 % 1_000_000_000)
    }
}

/// A packet's protocol, addresses and ports.
struct Flow(Endpoints);

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoints { protocol, source, source_port, destination, destination_port } = self.0;
        let name = match protocol {
            1 => "icmp",
            6 => "tcp",
            17 => "udp",
            58 => "icmpv6",
            _ => return write!(f, "protocol {protocol} {source} > {destination}"),
        };
        if matches!(protocol, 6 | 17) {
            let (from, to) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
            return write!(f, "{name} {from} > {to}");
        }
        write!(f, "{name} {source} > {destination}")?;
        match source_port.max(destination_port) {
            0 => Ok(()),
            identifier => write!(f, " id {identifier}"),
        }
    }
}

/// The beginning of a line: which packet.
fn packet(plan: &Plan, arrival: &Arrival, before: Option<Endpoints>) -> String {
    let interface = &plan.spec.interfaces[usize::from(arrival.interface.0)].name;
    let what = match (before, arrival.frame.get(12..14)) {
        (Some(endpoints), _) => Flow(endpoints).to_string(),
        (None, Some(ethertype)) => format!("EtherType {:02x}{:02x}", ethertype[0], ethertype[1]),
        (None, None) => format!("{} bytes", arrival.frame.len()),
    };
    format!("{interface} {} {} {what}: ", arrival.number, Clock(arrival.time))
}

/// The line of a packet that the gateway itself had sent.
pub(super) fn left_out(plan: &Plan, arrival: &Arrival) -> String {
    packet(plan, arrival, None) + "left out, the gateway sent it\n"
}

/// The line of a packet. It has several stories if it had to wait; the last one says what became of it.
pub(super) fn line(plan: &Plan, arrival: &Arrival, stories: &[Trace]) -> String {
    let interface = |id: InterfaceId| &plan.spec.interfaces[usize::from(id.0)].name;
    let Some(trace) = stories.last() else { return String::new() };
    let waited = stories.iter().find_map(|story| match story.disposal {
        Disposal::Hold(id, neighbour) => Some(resolved(plan, id, neighbour)),
        _ => None,
    });
    let mut line = packet(plan, arrival, trace.before);
    line += &match (trace.disposal, waited) {
        (Disposal::Transmit(id), Some(neighbour)) => format!("sent by {} to {neighbour}", interface(id)),
        (Disposal::Transmit(id), None) => format!("sent by {}", interface(id)),
        (Disposal::Hold(id, neighbour), _) => format!("waits on {} for neighbour {neighbour}", interface(id)),
        (Disposal::HoldFragment, _) => "waits for the first fragment of its datagram".to_owned(),
        (Disposal::HandOver, _) => "handed over to the worker that owns its flow".to_owned(),
        (Disposal::Punt, _) => "for the gateway itself".to_owned(),
        (Disposal::Drop(reason), _) => {
            format!("dropped, {}: {}", reason.name(), reason.explain().trim_end_matches('.'))
        }
    };
    if let Some(after) = trace.after {
        line += &format!(" as {}", Flow(after));
    }
    if let Some(rule) = rule_name(plan, trace.rule) {
        line += &format!(", by {rule}");
    }
    line += match trace.session {
        SessionStep::None => "",
        SessionStep::Hit => ", of a session",
        SessionStep::New => ", a new session",
        SessionStep::Quoted => ", about a session",
    };
    if let Some(error) = trace.error {
        line += &format!(", answered with {}", error_name(error));
    }
    if trace.reset {
        line += ", answered with a TCP reset";
    }
    line + "\n"
}

/// A neighbour that was resolved for this packet.
fn resolved(plan: &Plan, interface: InterfaceId, neighbour: IpAddr) -> String {
    let named = &plan.spec.interfaces[usize::from(interface.0)].neighbours;
    let word = if named.iter().any(|(address, _)| *address == neighbour) { "neighbour" } else { "assumed neighbour" };
    format!("{word} {neighbour}")
}

/// The rule's place in the configuration file.
fn rule_name(plan: &Plan, rule: RuleRef) -> Option<String> {
    let spec = &plan.spec;
    match rule {
        RuleRef::None => None,
        RuleRef::Nat44(i) => spec.nat44.get(usize::from(i)).map(|rule| format!("nat44.rules.{}", rule.name)),
        RuleRef::Forward(i) => spec.forwards.get(usize::from(i)).map(|rule| format!("nat44.forwards.{}", rule.name)),
        RuleRef::Static(i) => spec.static_nat.get(usize::from(i)).map(|rule| format!("nat44.static.{}", rule.name)),
        RuleRef::Crossing(i) => spec.crossings.get(usize::from(i)).map(|it| format!("siit.{}", it.name)),
        RuleRef::Prefix(i) => spec.prefixes.get(usize::from(i)).map(PrefixRule::full_name),
    }
}

/// An ICMP error as people call it.
fn error_name(error: IcmpError) -> &'static str {
    match error {
        IcmpError::NetUnreachable4 => "ICMP network unreachable",
        IcmpError::HostUnreachable4 => "ICMP host unreachable",
        IcmpError::FragmentationNeeded4 => "ICMP fragmentation needed",
        IcmpError::SourceRouteFailed4 => "ICMP source route failed",
        IcmpError::Prohibited4 => "ICMP administratively prohibited",
        IcmpError::TimeExceeded4 => "ICMP time exceeded",
        IcmpError::NoRoute6 => "ICMPv6 no route",
        IcmpError::Prohibited6 => "ICMPv6 administratively prohibited",
        IcmpError::AddressUnreachable6 => "ICMPv6 address unreachable",
        IcmpError::PacketTooBig6 => "ICMPv6 packet too big",
        IcmpError::TimeExceeded6 => "ICMPv6 time exceeded",
        IcmpError::SourcePolicy6 => "ICMPv6 source address failed policy",
        IcmpError::ParameterProblem6 => "ICMPv6 parameter problem",
    }
}
