//! The filter in a request's query: `proto=udp&inside=192.168.1.0/24`.

use std::net::Ipv4Addr;

use dataplane::plan::Plan;
use dataplane::pool::Proto;
use dataplane::session::walk::{Filter, Prefix4};
use dataplane::trace::RuleRef;

use super::answer::Problem;

/// What a query may hold besides a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Nothing.
    Sessions,
    /// Nothing, and no remote address.
    Mappings,
    /// `all=true`, which stands for a filter that fits everything.
    Flush,
}

/// Reads a filter; the rules' names are those of `plan`.
pub(super) fn filter(query: Option<&str>, of: Of, plan: &Plan) -> Result<Filter, Problem> {
    let (mut filter, mut all) = (Filter::default(), false);
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*key {
            "proto" => filter.proto = Some(proto(&value)?),
            "inside" => filter.inside = Some(prefix(&key, &value)?),
            "external" => filter.external = Some(prefix(&key, &value)?),
            "external-port" => filter.external_port = Some(port(&key, &value)?),
            "remote" if of != Of::Mappings => filter.remote = Some(prefix(&key, &value)?),
            "rule" => filter.rule = Some(rule(&value, plan)?),
            "all" if of == Of::Flush && value == "true" => all = true,
            _ => return Err(unknown(&key, &value, of)),
        }
    }
    match of {
        Of::Flush if filter == Filter::default() && !all => Err(Problem::wrong(
            "nothing says which sessions are to end",
            "give a filter, or `all` to end every session",
        )),
        Of::Flush if filter != Filter::default() && all => {
            Err(Problem::wrong("`all` and a filter contradict each other", "leave one of the two out"))
        }
        _ => Ok(filter),
    }
}

fn unknown(key: &str, value: &str, of: Of) -> Problem {
    let remote = if of == Of::Mappings { "" } else { "remote, " };
    let all = if of == Of::Flush { ", or all=true" } else { "" };
    Problem::wrong(
        format!("`{key}={value}` is no filter here"),
        format!("filters are proto, inside, external, external-port, {remote}rule{all}"),
    )
}

fn proto(value: &str) -> Result<Proto, Problem> {
    match value {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        "icmp" => Ok(Proto::Icmp),
        _ => {
            Err(Problem::wrong(format!("proto: `{value}` is no protocol that is translated"), "write tcp, udp or icmp"))
        }
    }
}

fn port(key: &str, value: &str) -> Result<u16, Problem> {
    value.parse().map_err(|_| Problem::wrong(format!("{key}: `{value}` is no port"), "write a number from 0 to 65535"))
}

/// An address, or a prefix with whatever host bits.
fn prefix(key: &str, value: &str) -> Result<Prefix4, Problem> {
    let (address, len) = value.split_once('/').unwrap_or((value, "32"));
    let read = || {
        let (address, len): (Ipv4Addr, u32) = (address.parse().ok()?, len.parse().ok()?);
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(len)?).unwrap_or(0);
        Some(Prefix4 { address: address.to_bits() & mask, mask })
    };
    read().ok_or_else(|| {
        let remedy = "write it like 192.168.1.10 or 192.168.0.0/16";
        Problem::wrong(format!("{key}: `{value}` is no IPv4 address or prefix"), remedy)
    })
}

/// The kinds of what makes sessions, as their sections in the file are called.
const SECTIONS: [&str; 3] = ["rules", "forwards", "static"];

/// A rule, forward or static entry, by its name; where several have it, by `rules.NAME`, `forwards.NAME` or `static.NAME`.
fn rule(value: &str, plan: &Plan) -> Result<RuleRef, Problem> {
    let spec = &plan.spec;
    let rules = spec.nat44.iter().zip(0..).map(|(it, i)| (SECTIONS[0], &it.name, RuleRef::Nat44(i)));
    let forwards = spec.forwards.iter().zip(0..).map(|(it, i)| (SECTIONS[1], &it.name, RuleRef::Forward(i)));
    let statics = spec.static_nat.iter().zip(0..).map(|(it, i)| (SECTIONS[2], &it.name, RuleRef::Static(i)));
    // A reload leaves places without a name.
    let named = || rules.clone().chain(forwards.clone()).chain(statics.clone()).filter(|(_, name, _)| !name.is_empty());
    let meant = |&(section, name, _): &(&str, &String, RuleRef)| {
        name == value || value.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) == Some(name)
    };
    let mut found = named().filter(meant);
    match (found.next(), found.next()) {
        (Some((_, _, rule)), None) => Ok(rule),
        (Some((one, ..)), Some((other, ..))) => Err(Problem::wrong(
            format!("rule: `{value}` is in both nat44.{one} and nat44.{other}"),
            format!("write {one}.{value} or {other}.{value}"),
        )),
        (None, _) => {
            let mut names: Vec<&str> = named().map(|(_, name, _)| name.as_str()).collect();
            names.sort_unstable();
            let remedy =
                if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) };
            Err(Problem::wrong(format!("rule: there is no rule, forward or static entry `{value}`"), remedy))
        }
    }
}
