//! `timers` and `icmp`.

use std::net::IpAddr;
use std::time::Duration;

use dataplane::plan::{IcmpPolicy, Timers};

use super::Resolver;
use crate::config::decode::Text;
use crate::config::file;
use crate::config::text::Number;
use crate::config::written;

/// The longest idle time: longer is a mistake of units.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest that a host waits for fragments (RFC 1122 section 3.3.2).
const FRAGMENT_MAX: Duration = Duration::from_secs(60);

impl Resolver<'_> {
    /// Idle times: none below what its RFC demands.
    pub(super) fn timers(&mut self, timers: &file::Timers) {
        let defaults = Timers::default();
        let mut bounded =
            |key: &str, Text(time): Text<Duration>, default: Duration, least: u64, most: Duration, why: &str| {
                let least = Duration::from_secs(least);
                if time < least || time > most {
                    let is_long = time > most;
                    let [time_text, least, most, default] = [time, least, most, default].map(written);
                    let message = if is_long {
                        format!("{time_text} is too long; write at most {most} (default {default})")
                    } else {
                        format!("{time_text} is too short{why}; write {least} or more (default {default})")
                    };
                    self.problem(format_args!("timers.{key}"), message);
                }
                time
            };
        let fragment =
            bounded("fragment", timers.fragment, defaults.fragment, 2, FRAGMENT_MAX, " (RFC 6146 section 4)");
        let mut timer = |key: &str, time: Text<Duration>, default: Duration, least: u64, why: &str| {
            bounded(key, time, default, least, TIMER_MAX, why)
        };
        const UDP: &str =
            " (RFC 4787 REQ-5 allows less than 120s only to ports 0 to 1023, which `timers.udp-ports` is for)";
        let udp = timer("udp", timers.udp, defaults.udp, 120, UDP);
        let tcp_opening = timer("tcp-opening", timers.tcp_opening, defaults.tcp_opening, 1, "");
        let tcp_established =
            timer("tcp-established", timers.tcp_established, defaults.tcp_established, 7440, " (RFC 5382 REQ-5)");
        let tcp_closing = timer("tcp-closing", timers.tcp_closing, defaults.tcp_closing, 240, " (RFC 5382 REQ-5)");
        let icmp = timer("icmp", timers.icmp, defaults.icmp, 60, " (RFC 5508 REQ-2)");
        let hold_down = timer("hold-down", timers.hold_down, defaults.hold_down, 0, "");
        let mut udp_ports = Vec::new();
        for (&port, &time) in &timers.udp_ports.0 {
            let key = format!("udp-ports.{port}");
            udp_ports.push((port, timer(&key, time, defaults.udp, 1, "")));
        }
        for (port, _) in udp_ports.iter().filter(|(port, _)| *port > 1023) {
            self.problem_with_key(
                format_args!("timers.udp-ports.{port}"),
                format_args!(
                    "port {port} may not have a time of its own; RFC 4787 REQ-5 allows it for ports 0 to 1023, \
                     so remove it"
                ),
            );
        }
        self.spec.timers =
            Timers { udp, udp_ports, tcp_opening, tcp_established, tcp_closing, icmp, hold_down, fragment };
    }

    /// The gateway's own ICMP errors.
    pub(super) fn icmp(&mut self, icmp: &file::Icmp) {
        let silent = icmp.silent.iter();
        let silent =
            silent.filter_map(|(i, Text(name))| self.interface(format_args!("icmp.silent[{i}]"), name)).collect();
        let (Text(Number(rate)), Text(Number(burst))) = (icmp.rate, icmp.burst);
        let mut sources: Vec<IpAddr> = Vec::new();
        for (i, &Text(address)) in icmp.sources.iter() {
            let own = self.spec.interfaces.iter().flat_map(|interface| &interface.addresses);
            let is_own = own.map(|it| it.address).any(|it| it == address);
            let key = format!("icmp.sources[{i}]");
            if let Some(other) = sources.iter().find(|it| it.is_ipv6() == address.is_ipv6()) {
                self.problem(&key, format_args!("there is {other} of the same family already; give one for each"));
            } else if !is_own && self.sound("interfaces") {
                self.problem(
                    &key,
                    format_args!("{address} is no address of the gateway's; add it to an interface's `addresses:`"),
                );
            }
            sources.push(address);
        }
        self.spec.icmp = IcmpPolicy { rate, burst, silent, sources };
    }
}
