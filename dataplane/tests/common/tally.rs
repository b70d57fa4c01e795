//! Every counter by name, and which of them moved.

use std::collections::BTreeMap;

use dataplane::counters::{Counter, Counters, Drop, IcmpError, MappingFailure, SessionClass};
use dataplane::plan::InterfaceSpec;

/// Every counter's value by its name, but for those of polls, time and samples.
pub type Tally = BTreeMap<String, i128>;

/// Reads all counters. Those of an interface are called by its name.
pub fn tally(counters: &Counters, interfaces: &[InterfaceSpec]) -> Tally {
    let mut tally = Tally::new();
    let mut note = |name: String, counter: &Counter| {
        assert!(tally.insert(name.clone(), i128::from(counter.get())).is_none(), "two counters named {name}");
    };
    for (name, counter) in [
        ("received", &counters.received),
        ("from-host", &counters.from_host),
        ("originated", &counters.originated),
        ("transmitted", &counters.transmitted),
        ("punted", &counters.punted),
        ("consumed", &counters.consumed),
        ("held", &counters.held),
        ("fragments-held", &counters.fragments_held),
        ("fragments", &counters.fragments),
        ("cut", &counters.cut),
        ("pieces", &counters.pieces),
        ("hairpins", &counters.hairpins),
        ("nat44-out", &counters.nat44[0]),
        ("nat44-in", &counters.nat44[1]),
        ("routed4", &counters.routed[0]),
        ("routed6", &counters.routed[1]),
        ("session-creations", &counters.session_creations),
        ("session-adoptions", &counters.session_adoptions),
        ("session-timeouts", &counters.session_timeouts),
        ("session-replacements", &counters.session_replacements),
        ("mappings-tcp", &counters.mappings[0]),
        ("mappings-udp", &counters.mappings[1]),
        ("mappings-icmp", &counters.mappings[2]),
        ("mappings-held", &counters.mappings_held),
        ("mapping-creations", &counters.mapping_creations),
        ("icmp-rate-limited", &counters.icmp_rate_limited),
        ("tcp-resets", &counters.tcp_resets),
        ("tcp-resets-rate-limited", &counters.tcp_resets_rate_limited),
        ("originate-failures", &counters.originate_failures),
    ] {
        note(name.into(), counter);
    }
    for reason in Drop::ALL {
        note(format!("drop-{}", reason.name()), &counters.dropped[*reason as usize]);
    }
    for class in SessionClass::ALL {
        let (proto, state) = class.labels();
        note(format!("sessions-{proto}-{state}"), &counters.sessions[class as usize]);
    }
    for cause in MappingFailure::ALL {
        note(format!("mapping-failures-{}", cause.name()), &counters.mapping_failures[cause as usize]);
    }
    for error in IcmpError::ALL {
        let (family, kind, code) = error.type_code();
        note(format!("icmp{family}-{kind}/{code}"), &counters.icmp_errors[error as usize]);
    }
    for (interface, counters) in interfaces.iter().zip(&counters.interfaces) {
        note(format!("{}-received", interface.name), &counters.received_packets);
        note(format!("{}-received-bytes", interface.name), &counters.received_bytes);
        note(format!("{}-transmitted", interface.name), &counters.transmitted_packets);
        note(format!("{}-transmitted-bytes", interface.name), &counters.transmitted_bytes);
    }
    tally
}

/// The counters that differ, with by how much.
pub fn moved(before: &Tally, after: &Tally) -> Tally {
    let change = |(name, value): (&String, &i128)| (name.clone(), value - before[name]);
    after.iter().map(change).filter(|(_, change)| *change != 0).collect()
}

/// Reads `"received 2, held -1"`; a name alone counts one.
pub fn expected(text: &str) -> Tally {
    let entry = |part: &str| match part.trim().split_once(' ') {
        Some((name, change)) => (name.to_owned(), change.parse().expect("a number")),
        None => (part.trim().to_owned(), 1),
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(entry).collect()
}
