//! The gateway that hostile frames are made for: its configuration, and the proper traffic among which they come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use control::config::Config;
use dataplane::plan::{MacAddr, Spec};

use crate::build::{ACK, Ip4, Ip6, NEIGHBOUR_ADVERTISEMENT, SYN, arp, ethernet, icmp, icmp6, tagged, tcp, udp};

/// The configuration. `LAN` and `WAN` stand for the devices, `METRICS` for the address of the metrics.
pub const CONFIG: &str = r#"
version: 1
boot:
  cpu: {poll: adaptive}
  memory: {size: 256M}
  packets: 8191
  tables: {sessions: 65536, mappings: 65536}
ports:
  lan: {device: "LAN"}
  wan: {device: "WAN"}
interfaces:
  inside:
    port: lan
    zone: inside
    mac: "02:00:00:00:00:01"
    addresses: [192.168.1.1/24, "fd00:1::1/64"]
    mss-clamp: from-mtu
    neighbours: {192.168.1.10: "02:00:00:00:aa:aa", "fd00:1::10": "02:00:00:00:aa:aa"}
  guests:
    port: lan
    vlan: 20
    zone: inside
    mac: "02:00:00:00:00:01"
    addresses: [192.168.20.1/24]
    neighbours: {192.168.20.5: "02:00:00:00:aa:aa"}
  uplink:
    port: wan
    zone: outside
    mac: "02:00:00:00:00:02"
    addresses: [198.51.100.2/24, "2001:db8:f::2/64"]
    mtu: 1400
    neighbours: {198.51.100.1: "02:00:00:00:aa:aa", "2001:db8:f::1": "02:00:00:00:aa:aa"}
  customers:
    port: lan
    outer-vlan: 300
    vlan: 30
    zone: inside
    mac: "02:00:00:00:00:01"
    addresses: [192.168.30.1/24]
    neighbours: {192.168.30.5: "02:00:00:00:aa:aa"}
routes:
  - {to: 0.0.0.0/0, via: 198.51.100.1}
  - {to: "::/0", via: "2001:db8:f::1"}
  - {to: 10.66.0.0/16, unreachable: true}
pools:
  public: {addresses: [203.0.113.5]}
nat44:
  rules:
    subscribers: {from: inside, to: outside, source: [192.168.0.0/16], pool: public}
  forwards:
    web: {from: outside, to: inside, protocol: tcp, external: "203.0.113.5:8080", inside: "192.168.1.10:80"}
    games: {from: outside, to: inside, protocol: udp, external: "203.0.113.5:27000-27010", inside: "192.168.1.10:7000"}
  static:
    mail: {from: outside, to: inside, external: 203.0.113.60, inside: 192.168.1.25, filtering: endpoint-independent}
metrics: {listen: "METRICS"}
"#;

/// The side of the gateway that a frame arrives at, or leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The port `lan`.
    Inside,
    /// The port `wan`.
    Outside,
}

impl Side {
    /// Both, in the order of the ports.
    pub const BOTH: [Side; 2] = [Side::Inside, Side::Outside];

    /// The gateway's Ethernet address there.
    #[must_use]
    pub const fn gateway(self) -> [u8; 6] {
        match self {
            Side::Inside => [2, 0, 0, 0, 0, 1],
            Side::Outside => [2, 0, 0, 0, 0, 2],
        }
    }

    /// The largest packet there, in bytes.
    #[must_use]
    pub const fn mtu(self) -> usize {
        match self {
            Side::Inside => 1500,
            Side::Outside => 1400,
        }
    }

    /// The gateway's addresses there.
    #[must_use]
    pub const fn own(self) -> (Ipv4Addr, Ipv6Addr) {
        match self {
            Side::Inside => (Ipv4Addr::new(192, 168, 1, 1), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
            Side::Outside => (Ipv4Addr::new(198, 51, 100, 2), Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2)),
        }
    }
}

/// Every neighbour's Ethernet address.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0xaa, 0xaa];
/// The inside host.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
/// The inside host that has an external address of its own.
pub const MAIL: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 25);
/// The host on the inside VLAN.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 20, 5);
/// The VLAN of [`GUEST`].
pub const VLAN: u16 = 20;
/// The host behind two tags.
pub const CUSTOMER: Ipv4Addr = Ipv4Addr::new(192, 168, 30, 5);
/// The tags of [`CUSTOMER`]: outer and inner.
pub const TAGS: (u16, u16) = (300, 30);
/// The server outside.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The pool's only address. Ports are preserved: what the inside host sends from 4000 comes from 4000 here.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The external address of [`MAIL`].
pub const EXTERNAL_MAIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 60);
/// The inside host's IPv6 address.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10);
/// The server's IPv6 address.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x1111, 0, 0, 0, 0, 1);

/// The IPv4 header from the inside host to the server, or from there back to the external address.
#[must_use]
pub fn way4(side: Side) -> Ip4 {
    match side {
        Side::Inside => Ip4::new(HOST, SERVER),
        Side::Outside => Ip4::new(SERVER, EXTERNAL),
    }
}

/// The IPv6 header from the inside host to the server, or back.
#[must_use]
pub fn way6(side: Side) -> Ip6 {
    match side {
        Side::Inside => Ip6::new(HOST6, SERVER6),
        Side::Outside => Ip6::new(SERVER6, HOST6),
    }
}

/// Ports of the flow that [`way4`] and [`way6`] are of: of UDP, TCP and identifiers alike, on the given side.
#[must_use]
pub const fn ports(side: Side) -> (u16, u16) {
    match side {
        Side::Inside => (4000, 53),
        Side::Outside => (53, 4000),
    }
}

/// Proper traffic: played in order it makes a session of every kind, uses every entry, and asks the gateway itself. Played
/// again, it keeps them.
#[must_use]
pub fn proper() -> Vec<(Side, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut add = |side: Side, kind: u16, packet: Vec<u8>| frames.push((side, ethernet(side, kind, &packet)));
    let name = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
    for side in Side::BOTH {
        let (from, to) = ports(side);
        add(side, 0x0800, way4(side).packet(17, &udp(from, to, name)));
        add(side, 0x86dd, way6(side).packet(17, &udp(from, to, name)));
        add(side, 0x86dd, way6(side).packet(6, &tcp(from, to, SYN, &[2, 4, 5, 180], b"")));
        add(side, 0x86dd, way6(side).packet(58, &icmp6(128, 0, [0x0f, 0xa0, 0, 1], b"ping")));
    }
    for (side, flags, payload) in [
        (Side::Inside, SYN, &b""[..]),
        (Side::Outside, SYN | ACK, b""),
        (Side::Inside, ACK, b"GET / HTTP/1.1\r\n\r\n"),
        (Side::Outside, ACK, b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let ((from, to), options) = (ports(side), if flags & SYN == 0 { &[][..] } else { &[2, 4, 5, 180] });
        add(side, 0x0800, way4(side).packet(6, &tcp(from, to, flags, options, payload)));
    }
    add(Side::Inside, 0x0800, way4(Side::Inside).packet(1, &icmp(8, 0, [0x0f, 0xa0, 0, 1], b"ping")));
    add(Side::Outside, 0x0800, way4(Side::Outside).packet(1, &icmp(0, 0, [0x0f, 0xa0, 0, 1], b"ping")));
    // What the forwards and the static entry let in.
    add(Side::Outside, 0x0800, Ip4::new(SERVER, EXTERNAL).packet(6, &tcp(5000, 8080, SYN, &[2, 4, 5, 180], b"")));
    add(Side::Inside, 0x0800, Ip4::new(HOST, SERVER).packet(6, &tcp(80, 5000, SYN | ACK, &[2, 4, 5, 180], b"")));
    add(Side::Outside, 0x0800, Ip4::new(SERVER, EXTERNAL).packet(17, &udp(5000, 27_003, b"move")));
    add(Side::Outside, 0x0800, Ip4::new(SERVER, EXTERNAL_MAIL).packet(17, &udp(5000, 25, b"mail")));
    add(Side::Inside, 0x0800, Ip4::new(MAIL, SERVER).packet(17, &udp(25, 5000, b"mail")));
    for side in Side::BOTH {
        let (own, own6) = side.own();
        let (router, router6) = neighbours(side);
        add(side, 0x0800, Ip4::new(router, own).packet(1, &icmp(8, 0, [0, 9, 0, 1], b"ping")));
        add(side, 0x86dd, Ip6::new(router6, own6).packet(58, &icmp6(128, 0, [0, 9, 0, 1], b"ping")));
        add(side, 0x0806, arp(1, PEER, router, [0; 6], own));
        let target = [&[0; 4][..], &own6.octets(), &[1, 1], &PEER].concat();
        add(side, 0x86dd, Ip6 { hops: 255, ..Ip6::new(router6, own6) }.discovery(135, &target));
        let answer = [&[0x60, 0, 0, 0][..], &router6.octets(), &[2, 1], &PEER].concat();
        add(side, 0x86dd, Ip6 { hops: 255, ..Ip6::new(router6, own6) }.discovery(NEIGHBOUR_ADVERTISEMENT, &answer));
    }
    // Ports of other blocks than the inside host has: blocks belong to shards, and so to hosts.
    for (host, port) in [(GUEST, 4200), (CUSTOMER, 4300)] {
        let out = ethernet(Side::Inside, 0x0800, &Ip4::new(host, SERVER).packet(17, &udp(port, 53, name)));
        let back = Ip4::new(SERVER, EXTERNAL).packet(17, &udp(53, port, name));
        let out = if host == GUEST { tagged(&out, 0x8100, VLAN) } else { double_tagged(&out) };
        frames.extend([(Side::Inside, out), (Side::Outside, ethernet(Side::Outside, 0x0800, &back))]);
    }
    frames
}

/// The frame with the tags of [`CUSTOMER`].
#[must_use]
pub fn double_tagged(frame: &[u8]) -> Vec<u8> {
    tagged(&tagged(frame, 0x8100, TAGS.1), 0x88a8, TAGS.0)
}

/// The gateway's neighbours on a side: the inside host, or the router outside.
#[must_use]
pub const fn neighbours(side: Side) -> (Ipv4Addr, Ipv6Addr) {
    match side {
        Side::Inside => (HOST, HOST6),
        Side::Outside => (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1)),
    }
}

/// Whether the gateway itself has this address.
#[must_use]
pub fn is_own(address: IpAddr) -> bool {
    let of = |side: Side| <[IpAddr; 2]>::from((side.own().0.into(), side.own().1.into())).contains(&address);
    let tagged = [[192, 168, 20, 1], [192, 168, 30, 1]].map(IpAddr::from);
    tagged.contains(&address) || Side::BOTH.into_iter().any(of)
}

/// What is sent behind a flood, to see that the gateway lives: a ping of its own address, a new flow, and the flow's answer.
#[must_use]
pub fn afterwards() -> [(Side, Vec<u8>); 3] {
    let of = |side, packet: Vec<u8>| (side, ethernet(side, 0x0800, &packet));
    let (own, _) = Side::Inside.own();
    [
        of(Side::Inside, Ip4::new(HOST, own).packet(1, &icmp(8, 0, [0x77, 0x77, 0, 1], b"alive?"))),
        of(Side::Inside, Ip4::new(HOST, SERVER).packet(17, &udp(40_404, 40_405, b"alive?"))),
        of(Side::Outside, Ip4::new(SERVER, EXTERNAL).packet(17, &udp(40_405, 40_404, b"alive!"))),
    ]
}

/// [`CONFIG`] with devices that are never opened.
///
/// # Panics
/// Never: it is consistent.
#[must_use]
pub fn config() -> Config {
    let text = CONFIG.replace("LAN", "net_ring0").replace("WAN", "net_ring1").replace("METRICS", "127.0.0.1:1");
    Config::parse(&text, Path::new("hostile.yaml")).expect("a configuration")
}

/// What the data plane works from under [`CONFIG`].
#[must_use]
pub fn spec() -> Spec {
    config().spec(&|_| MacAddr::default(), *b"0123456789abcdef", 1)
}
