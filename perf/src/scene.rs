//! The gateway's configuration for the benches that make their own engines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane::message::{NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::plan::{
    FilteringSet, InterfaceId, InterfaceSpec, IpPrefix, Limits, MidStream, MssClamp, Nat44Rule, NextHop, PoolId,
    PoolSpec, Pooling, PortId, PortSpec, RouteSpec, Spec, Timers, ZoneId,
};

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

const ROUTERS: [(InterfaceId, IpAddr); 3] = [
    (InterfaceId(0), IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2))),
    (InterfaceId(0), IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2))),
    (InterfaceId(1), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
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
        ],
        timers: Timers { udp: LONG, udp_ports: vec![(SHORT_LIVED, SHORT)], hold_down: HOLD_DOWN, ..Timers::default() },
        limits: Limits { sessions: 64, mappings: 64, ..Limits::default() },
        secret: *b"0123456789abcdef",
        ..Spec::default()
    }
}
