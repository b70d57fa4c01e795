//! The gateway's configuration for the benches that make their own engines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane::message::{NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::plan::{
    CrossingSpec, FilteringSet, InterfaceId, InterfaceSpec, IpPrefix, Limits, MidStream, MssClamp, Nat44Rule, NextHop,
    PoolId, PoolSpec, Pooling, PortId, PortSpec, PrefixKind, PrefixRule, RouteSpec, Spec, Timers, ZoneId,
};
use dataplane::translate::eam::{Hairpin, Row, Table};
use dataplane::translate::embed::Prefix;
use dataplane::translate::siit::Settings;

use crate::frames::{EXTERNAL, GATEWAY, INSIDE, PEER};

/// Mappings of one external address, as in CSIT's tests: those of 1,024 hosts.
pub const MAPPINGS_PER_EXTERNAL: u32 = 64_512;
/// Sessions to this remote port end soon; all others outlast the run.
pub const SHORT_LIVED: u16 = 53;
/// How soon.
pub const SHORT: Duration = Duration::from_secs(10);
/// Their ports are unused for so long afterwards.
pub const HOLD_DOWN: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(1_000_000);

const ROUTERS: [(InterfaceId, IpAddr); 4] = [
    (InterfaceId(0), IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2))),
    (InterfaceId(0), IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2))),
    (InterfaceId(1), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
    (InterfaceId(1), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb9, 0xaaaa, 0, 0, 0, 0, 2))),
];

/// The neighbours, for every worker to know.
pub fn neighbours() -> impl Iterator<Item = ToWorker> {
    ROUTERS.into_iter().map(|(interface, address)| {
        let state = NeighbourState::Reachable(PEER);
        ToWorker::Neighbour(NeighbourUpdate { interface, address, state })
    })
}

/// Adds the rule that translates what comes from `source`, and a pool for so many mappings by CSIT's scheme.
pub fn translate(spec: &mut Spec, mappings: u32, source: IpAddr, len: u8) {
    let addresses = mappings.div_ceil(MAPPINGS_PER_EXTERNAL);
    spec.pools = vec![PoolSpec {
        name: "public".into(),
        addresses: vec![EXTERNAL..=Ipv4Addr::from_bits(EXTERNAL.to_bits() + addresses - 1)],
        ports: 1..=65_535,
        proxy_arp: false,
        answer_echo: false,
    }];
    spec.nat44 = vec![Nat44Rule {
        name: "subscribers".into(),
        from: ZoneId(0),
        to: ZoneId(1),
        source: vec![IpPrefix { address: source, len }],
        destination: Vec::new(),
        pool: PoolId(0),
        filtering: FilteringSet::default(),
        // As hosts are paired with addresses by chance, some addresses would have too many.
        pooling: Pooling::PairedSoft,
        port_preservation: true,
        port_parity: true,
        inbound_refresh: true,
        mid_stream: MidStream::Drop,
    }];
}

/// The stateless translators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stateless {
    /// NPTv6, the inside prefix to another of its length.
    Nptv6,
    /// NETMAP of IPv4.
    Netmap,
    /// Between IPv4 inside and IPv6 outside, by a prefix.
    Siit,
    /// The same, with the remote hosts in a table of 100,000 rows.
    Eam,
}

impl Stateless {
    /// In the order of the tables.
    pub const ALL: [Stateless; 4] = [Stateless::Nptv6, Stateless::Netmap, Stateless::Siit, Stateless::Eam];
}

/// Rows of the table of explicit address mappings.
pub const ROWS: u32 = 100_000;
/// NPTv6's prefixes, of 48 bits.
pub const NPTV6: [u128; 2] = [0x2001_0db8_aaaa << 80, 0x2001_0db8_cccc << 80];
/// NETMAP's outside addresses are those inside plus this.
pub const NETMAP: u32 = 20 << 24;
/// Where IPv4 is embedded: a prefix of 96 bits.
pub const EMBEDDED: u128 = 0x2001_0db8_0046 << 80;
/// The first mapped remote host in IPv6.
pub const MAPPED: u128 = 0x2001_0db8_0008 << 80;

/// Adds a stateless translator. It covers the inside hosts, or, to be passed by, none that sends.
///
/// # Panics
/// If its constants do not do.
pub fn translate_stateless(spec: &mut Spec, kind: Stateless, matching: bool) {
    let six = |address: u128, len| IpPrefix { address: Ipv6Addr::from_bits(address).into(), len };
    let four = |a: u8, len| IpPrefix { address: Ipv4Addr::new(a, 0, 0, 0).into(), len };
    let rule = |name: &str, inside, outside, kind| PrefixRule {
        name: name.into(),
        from: ZoneId(0),
        to: ZoneId(1),
        inside,
        outside,
        kind,
    };
    // Others than those that send.
    let aside = u128::from(!matching) << 84;
    match kind {
        Stateless::Nptv6 => {
            let [inside, outside] = NPTV6.map(|prefix| six(prefix ^ aside, 48));
            spec.prefixes.push(rule("site", inside, outside, PrefixKind::Nptv6 { allow_zero_iid: false }));
        }
        Stateless::Netmap => {
            let (inside, outside) = if matching { (10, 30) } else { (11, 31) };
            spec.prefixes.push(rule("branch", four(inside, 8), four(outside, 8), PrefixKind::Netmap));
        }
        Stateless::Siit | Stateless::Eam => {
            let row = |n: u32| Row { v4: (20 << 24) + n, v4_len: 32, v6: MAPPED + u128::from(n), v6_len: 128 };
            let rows: Vec<Row> = if kind == Stateless::Eam { (0..ROWS).map(row).collect() } else { Vec::new() };
            let destination = Ipv4Addr::new(if matching { 20 } else { 21 }, 0, 0, 0);
            let last = Ipv4Addr::from_bits(destination.to_bits() | 0xff_ffff);
            spec.crossings.push(CrossingSpec {
                name: "border".into(),
                ipv4: ZoneId(0),
                ipv6: ZoneId(1),
                prefixes: vec![Prefix::new(EMBEDDED, 96).expect("a prefix that embeds")],
                destinations: vec![destination..=last],
                destination_prefix: None,
                mappings: Table::build(&rows).expect("a table").0.into(),
                hairpin: Hairpin::None,
                settings: Settings::default(),
                error_sources: Vec::new(),
                error_prefix: None,
                report_discards: true,
            });
        }
    }
}

/// Two interfaces; behind each a router that leads to everything else on that side. Nothing is translated, and there is room
/// for a few sessions.
#[must_use]
pub fn router() -> Spec {
    let prefix = |address: IpAddr, len| IpPrefix { address, len };
    let interface = |name: &str, port: u8, addresses: [IpPrefix; 2]| InterfaceSpec {
        name: name.into(),
        port: PortId(port.into()),
        vlan: None,
        outer_vlan: None,
        zone: ZoneId(port),
        mac: GATEWAY[usize::from(port)],
        addresses: addresses.into(),
        mtu: 1500,
        neighbours: Vec::new(),
        mss_clamp: MssClamp::Off,
    };
    let via = |router: usize| NextHop::Via(ROUTERS[router].1, ROUTERS[router].0);
    let (v4, v6) = (|a, b, c, d| IpAddr::from([a, b, c, d]), |a, b| IpAddr::from([a, b, 0xaaaa, 0, 0, 0, 0, 0]));
    Spec {
        generation: 1,
        ports: vec![PortSpec { name: "lan".into() }, PortSpec { name: "wan".into() }],
        zones: vec!["inside".into(), "outside".into()],
        interfaces: vec![
            interface(
                "inside",
                0,
                [prefix(v4(192, 168, 1, 1), 24), prefix(IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, 1]), 64)],
            ),
            interface("outside", 1, [prefix(v4(198, 51, 100, 2), 24), prefix(v6(0x2001, 0xdb9), 64)]),
        ],
        routes: vec![
            RouteSpec { prefix: prefix(INSIDE.into(), 8), next_hop: via(0) },
            RouteSpec { prefix: prefix(v6(0x2001, 0xdb8), 48), next_hop: via(1) },
            RouteSpec { prefix: prefix(v4(0, 0, 0, 0), 0), next_hop: via(2) },
            RouteSpec { prefix: prefix(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0), next_hop: via(3) },
        ],
        timers: Timers { udp: LONG, udp_ports: vec![(SHORT_LIVED, SHORT)], hold_down: HOLD_DOWN, ..Timers::default() },
        limits: Limits { sessions: 64, mappings: 64, ..Limits::default() },
        secret: *b"0123456789abcdef",
        ..Spec::default()
    }
}
