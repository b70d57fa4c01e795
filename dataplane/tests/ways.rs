//! The short way does what the long one does: the same frames, counters and questions, with every translator side by side.
//!
//! Stories are told on the long way; without them packets take the short way where it leads to their end (`engine/short.rs`).

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use common::{INSIDE, Lab, OUTSIDE, PEER, end, prefix, spec, tcp, tcp6, udp, udp6, with_ip};
use dataplane::message::NeighbourState;
use dataplane::plan::{
    CrossingSpec, IcmpPolicy, InterfaceId, Nat44Rule, NextHop, PoolSpec, PrefixKind, PrefixRule, RouteSpec, Spec,
    ZoneId,
};
use dataplane::translate::eam::{Hairpin, Row, Table};
use dataplane::translate::embed::Prefix;
use dataplane::translate::siit::Settings;
use proptest::prelude::*;
use proptest::sample::select;

/// Hosts of NAT44, of NETMAP, of none; mapped ones; servers; addresses of pool, outside prefixes, and our own; ones that are no host's.
const ADDRESSES4: [&str; 17] = [
    "192.168.1.10",
    "192.168.1.11",
    "10.1.2.7",
    "10.1.2.8",
    "10.9.9.9",
    "198.18.7.7",
    "198.18.7.8",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.5",
    "203.0.114.7",
    "192.0.2.33",
    "198.51.100.2",
    "192.168.1.255",
    "127.0.0.1",
    "224.0.0.1",
    "0.0.0.0",
];

/// The same of NPTv6, NETMAP, and of none; embedded and mapped hosts; servers; outside prefixes, our own, and no host's.
const ADDRESSES6: [&str; 16] = [
    "fd01:203:405:1::1234",
    "fd01:203:405:ffff::1",
    "fd00:7::1",
    "fd00:1::10",
    "2001:db8:1c0:2:21::",
    "2001:db8:aaaa::",
    "2001:db8:bbbb::b",
    "2001:db8:5::1",
    "2001:db8:1c6:3364:7::",
    "2001:db8:112:700:1::",
    "2001:db8:1:d550::1234",
    "2001:db8:8::1",
    "fd00:1::1",
    "2001:db8:f::2",
    "fe80::7",
    "::1",
];

fn exchange(kind: PrefixKind, inside: &str, outside: &str) -> PrefixRule {
    let (inside, outside) = (prefix(inside), prefix(outside));
    PrefixRule { name: inside.to_string(), from: ZoneId(0), to: ZoneId(1), inside, outside, kind }
}

/// Which translators there are: what keeps state, and on which side a translator has IPv4, if there is one.
type Which = (bool, Option<u8>, Hairpin);

/// A gateway with these, and the three that exchange prefixes.
fn gateway((has_state, ipv4, hairpin): Which) -> Spec {
    let mut spec = spec();
    let (nat44, pools): (Vec<Nat44Rule>, Vec<PoolSpec>) = (spec.nat44.clone(), spec.pools.clone());
    (spec.nat44, spec.pools) = if has_state { (nat44, pools) } else { (Vec::new(), Vec::new()) };
    spec.icmp = IcmpPolicy { rate: 1_000_000, burst: 1_000_000, ..IcmpPolicy::default() };
    let via = |to: &str, router: &str| {
        let next_hop = NextHop::Via(router.parse::<IpAddr>().expect("a router"), INSIDE);
        RouteSpec { prefix: prefix(to), next_hop }
    };
    spec.routes.extend(["10.1.2.0/24", "10.9.9.0/24"].map(|to| via(to, "192.168.1.2")));
    let six = ["fd01:203:405::/48", "fd00:7::/64", "2001:db8:1c0::/48", "2001:db8:aaaa::/48", "2001:db8:bbbb::/48"];
    spec.routes.extend(six.map(|to| via(to, "fd00:1::2")));
    spec.prefixes = vec![
        exchange(PrefixKind::Netmap, "10.1.2.0/24", "203.0.114.0/24"),
        exchange(PrefixKind::Nptv6 { allow_zero_iid: false }, "fd01:203:405::/48", "2001:db8:1::/48"),
        exchange(PrefixKind::Netmap, "fd00:7::/64", "2001:db8:8::/64"),
    ];
    let Some(ipv4) = ipv4 else { return spec };
    let row = |v4: &str, v6: &str| Row {
        v4: v4.parse::<Ipv4Addr>().expect("IPv4").to_bits(),
        v4_len: 32,
        v6: v6.parse::<Ipv6Addr>().expect("IPv6").to_bits(),
        v6_len: 128,
    };
    let rows = [row("198.18.7.7", "2001:db8:aaaa::"), row("198.18.7.8", "2001:db8:bbbb::b")];
    let network = "2001:db8:100::".parse::<Ipv6Addr>().expect("IPv6").to_bits();
    let [first, last] = ["192.0.2.0", "192.0.2.255"].map(|it| it.parse::<Ipv4Addr>().expect("IPv4"));
    spec.crossings = vec![CrossingSpec {
        name: "border".into(),
        ipv4: ZoneId(ipv4),
        ipv6: ZoneId(1 - ipv4),
        prefixes: vec![Prefix::new(network, 40).expect("it embeds")],
        destinations: vec![first..=last],
        destination_prefix: None,
        mappings: Arc::new(Table::build(&rows).expect("a table").0),
        hairpin,
        settings: Settings::default(),
        error_sources: Vec::new(),
        error_prefix: None,
        report_discards: true,
    }];
    spec
}

/// A packet by its parts.
#[derive(Clone, Debug)]
struct Packet {
    from_inside: bool,
    six: bool,
    ends: (usize, usize),
    ports: (u16, u16),
    /// TCP, with these flags.
    flags: Option<&'static str>,
    hops: u8,
    len: usize,
    dont_fragment: bool,
    /// Zero and one: as they are. Two: a UDP datagram without a checksum; three: one of a wrong length.
    oddity: u8,
}

impl Packet {
    fn frame(&self) -> (InterfaceId, Vec<u8>) {
        let interface = if self.from_inside { INSIDE } else { OUTSIDE };
        let payload = vec![7; self.len];
        if self.six {
            let [from, to] = [self.ends.0, self.ends.1].map(|at| ADDRESSES6[at % ADDRESSES6.len()]);
            let [from, to] = [from, to].map(|it| it.parse::<Ipv6Addr>().expect("IPv6"));
            let mut frame = match self.flags {
                Some(flags) => tcp6(interface, (from, self.ports.0), (to, self.ports.1), flags, &payload, self.hops),
                None => udp6(interface, (from, self.ports.0), (to, self.ports.1), &payload, self.hops),
            };
            match self.oddity {
                3 if self.flags.is_none() => frame[14 + 45] ^= 0x7f,
                // An offset of less than a header, or more than there is.
                3 => frame[14 + 52] ^= 0x90,
                _ => {}
            }
            return (interface, frame);
        }
        let [from, to] = [self.ends.0, self.ends.1].map(|at| ADDRESSES4[at % ADDRESSES4.len()]);
        let (from, to) = (end(&format!("{from}:{}", self.ports.0)), end(&format!("{to}:{}", self.ports.1)));
        let mut frame = match self.flags {
            Some(flags) => tcp(interface, from, to, flags, 1, 1, &payload),
            None => udp(interface, from, to, &payload),
        };
        match self.oddity {
            2 if self.flags.is_none() => frame[14 + 26..14 + 28].fill(0),
            3 if self.flags.is_none() => frame[14 + 25] ^= 0x7f,
            3 => frame[14 + 32] ^= 0x90,
            _ => {}
        }
        let frame = with_ip(frame, |ip| {
            ip[8] = self.hops;
            ip[6] = if self.dont_fragment { 0x40 } else { 0 };
        });
        (interface, frame)
    }
}

fn packet() -> impl Strategy<Value = Packet> {
    let flags =
        prop_oneof![2 => Just(None), 1 => select(vec![Some("S"), Some("SA"), Some("A"), Some("FA"), Some("R")])];
    let hops = prop_oneof![8 => Just(64_u8), 1 => select(vec![0, 1, 2])];
    let len = prop_oneof![6 => 0..100_usize, 1 => select(vec![1212, 1232, 1233, 1252, 1452, 1453, 1472])];
    let oddity = prop_oneof![8 => Just(0_u8), 1 => Just(2), 1 => Just(3)];
    let port = || select(vec![53_u16, 4000, 4001]);
    (
        any::<bool>(),
        any::<bool>(),
        (0..100_usize, 0..100_usize),
        (port(), port()),
        flags,
        hops,
        len,
        any::<bool>(),
        oddity,
    )
        .prop_map(|(from_inside, six, ends, ports, flags, hops, len, dont_fragment, oddity)| Packet {
            from_inside,
            six,
            ends,
            ports,
            flags,
            hops,
            len,
            dont_fragment,
            oddity,
        })
}

/// A gateway all of whose neighbours are known or answer; what came of bursts, and how often each counter moved.
fn run(which: Which, bursts: &[Vec<(InterfaceId, Vec<u8>)>], stories: bool) -> (Vec<String>, String) {
    let mut lab = Lab::knowing(gateway(which), &[]);
    let known = [(INSIDE, "192.168.1.2"), (INSIDE, "fd00:1::2"), (OUTSIDE, "198.51.100.1"), (OUTSIDE, "2001:db8:f::1")];
    for (interface, address) in known {
        lab.neighbour(interface, address.parse().expect("an address"), NeighbourState::Reachable(PEER));
    }
    lab.run();
    lab.worker.set_tracing(stories);
    let mut seen = Vec::new();
    for burst in bursts {
        for interface in [INSIDE, OUTSIDE] {
            let frames: Vec<Vec<u8>> =
                burst.iter().filter(|(from, _)| *from == interface).map(|(_, frame)| frame.clone()).collect();
            let came = lab.send_all(interface, &frames);
            seen.extend(came.frames.iter().map(|it| format!("sent {it:02x?}")));
            seen.extend(came.punted.iter().map(|it| format!("punted {it:02x?}")));
            seen.extend(came.resolve.iter().map(|it| format!("resolve {it:?}")));
        }
    }
    let interfaces = lab.worker.engine().plan().spec.interfaces.clone();
    (seen, format!("{:#?}", common::tally::tally(&lab.counters, &interfaces)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn both_ways_lead_to_the_same_end(
        has_state: bool,
        ipv4 in select(vec![None, Some(0), Some(1)]),
        hairpin in select(vec![Hairpin::None, Hairpin::Simple, Hairpin::Intrinsic]),
        bursts in prop::collection::vec(prop::collection::vec(packet(), 1..40), 1..6),
    ) {
        // Twice: what is new the first time is known the second time.
        let bursts: Vec<Vec<_>> = bursts.iter().chain(&bursts).map(|it| it.iter().map(Packet::frame).collect()).collect();
        let which = (has_state, ipv4, hairpin);
        let (short, long) = (run(which, &bursts, false), run(which, &bursts, true));
        for (at, (short, long)) in short.0.iter().zip(&long.0).enumerate() {
            prop_assert_eq!(short, long, "{}", at);
        }
        prop_assert_eq!(short, long);
    }
}
