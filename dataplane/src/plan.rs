//! The configuration as the data plane reads it.
//!
//! [`Spec`] is plain data: what the configuration file says, with every name resolved to an index and every address
//! parsed. `Plan::compile` turns it into the immutable [`Plan`] that workers read, with its tables built.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Index of a port in [`Spec::ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Index of an interface in [`Spec::interfaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

/// Index of a zone in [`Spec::zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZoneId(pub u8);

/// Index of a pool in [`Spec::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address with the length of its on-link prefix, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    /// The address. Where a prefix is meant, its host bits are zero.
    pub address: IpAddr,
    /// Prefix length in bits, at most 32 or 128.
    pub len: u8,
}

impl IpPrefix {
    /// Whether `address` is of the same family and inside the prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.len).min(width);
        shift == 128 || own >> shift == other >> shift
    }

    /// The prefix that the address is in: the same with its host bits zero.
    #[must_use]
    pub fn network(&self) -> IpPrefix {
        let len = u32::from(self.len);
        let address = match self.address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(len).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !host))
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(len).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !host))
            }
        };
        IpPrefix { address, len: self.len }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The configuration, names resolved: the input of `Plan::compile`.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Grows by one at every reload; 1 at start.
    pub generation: u32,
    /// The ports, in the order of the file.
    pub ports: Vec<PortSpec>,
    /// The zones' names.
    pub zones: Vec<String>,
    /// The interfaces, in the order of the file.
    pub interfaces: Vec<InterfaceSpec>,
    /// Static routes. Connected prefixes follow from the interfaces' addresses and are not listed.
    pub routes: Vec<RouteSpec>,
    /// External addresses to allocate from.
    pub pools: Vec<PoolSpec>,
    /// NAT44 rules; the first that matches decides.
    pub nat44: Vec<Nat44Rule>,
    /// Static port forwards.
    pub forwards: Vec<PortForward>,
    /// Static one-to-one translations of whole addresses.
    pub static_nat: Vec<StaticNat>,
    /// Idle times of sessions.
    pub timers: Timers,
    /// How the gateway sends ICMP errors of its own.
    pub icmp: IcmpPolicy,
    /// Table sizes, from the boot-time section.
    pub limits: Limits,
    /// Key of everything that must be unpredictable from outside (ports, table hashes). Random per process; fixed by
    /// `turnpike replay --seed`.
    pub secret: [u8; 16],
}

/// A port: one device, carrying one or more interfaces.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Its name in the file.
    pub name: String,
}

/// A logical interface on a port.
#[derive(Clone, Debug)]
pub struct InterfaceSpec {
    /// Its name in the file.
    pub name: String,
    /// The port that carries it.
    pub port: PortId,
    /// Its 802.1Q tag (1 to 4094); none for the untagged interface of the port.
    pub vlan: Option<u16>,
    /// The zone it is in.
    pub zone: ZoneId,
    /// Its Ethernet address: that of the port.
    pub mac: MacAddr,
    /// Its addresses, with the lengths of their on-link prefixes. The first of each family is the source of ICMP errors.
    pub addresses: Vec<IpPrefix>,
    /// The largest IP packet that it sends, in bytes.
    pub mtu: u16,
    /// Neighbours given in the file: never resolved, never expiring.
    pub neighbours: Vec<(IpAddr, MacAddr)>,
    /// Clamp of the TCP maximum segment size in SYNs that enter or leave here.
    pub mss_clamp: MssClamp,
}

/// TCP MSS clamping (only ever lowering).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// Left as it is.
    #[default]
    Off,
    /// At most the interface's MTU less the headers (40 bytes for IPv4, 60 for IPv6).
    FromMtu,
    /// At most this many bytes.
    Fixed(u16),
}

/// A static route.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec {
    /// Where to.
    pub prefix: IpPrefix,
    /// By what.
    pub next_hop: NextHop,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// To this router on that interface.
    Via(IpAddr, InterfaceId),
    /// The destination is itself a neighbour on that interface.
    OnLink(InterfaceId),
    /// Nowhere: dropped with ICMP host unreachable.
    Unreachable,
}

/// External addresses and ports to allocate from.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Its name in the file.
    pub name: String,
    /// The addresses, inclusive ranges in the order of the file: any shape.
    pub addresses: Vec<RangeInclusive<Ipv4Addr>>,
    /// The ports and ICMP identifiers that may be given out. Port 0 never is.
    pub ports: RangeInclusive<u16>,
    /// Whether the gateway answers ARP for these addresses on an interface whose on-link prefix covers them.
    pub proxy_arp: bool,
    /// Whether the gateway answers pings of these addresses that belong to no session.
    pub answer_echo: bool,
}

/// Which packets from outside an existing mapping admits (RFC 4787 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// From anyone.
    EndpointIndependent,
    /// From an address that the inside endpoint has sent to.
    AddressDependent,
    /// From an address and port that the inside endpoint has sent to.
    #[default]
    AddressPortDependent,
}

/// [`Filtering`] for each protocol (RFC 5382 REQ-3: TCP's is chosen apart from UDP's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilteringSet {
    /// For TCP.
    pub tcp: Filtering,
    /// For UDP.
    pub udp: Filtering,
    /// For ICMP queries.
    pub icmp: Filtering,
}

/// What becomes of a new session when its subscriber's external address has no port left (RFC 7857 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// It is refused.
    #[default]
    Paired,
    /// It takes another address of the pool.
    PairedSoft,
}

/// A rule that translates IPv4 flows to an address and port of a pool.
#[derive(Clone, Debug)]
pub struct Nat44Rule {
    /// Its name in the file.
    pub name: String,
    /// The inside zone.
    pub from: ZoneId,
    /// The outside zone.
    pub to: ZoneId,
    /// Inside addresses that it covers. Empty: all.
    pub source: Vec<IpPrefix>,
    /// Outside addresses that it covers. Empty: all.
    pub destination: Vec<IpPrefix>,
    /// What to allocate from.
    pub pool: PoolId,
    /// What a mapping admits from outside.
    pub filtering: FilteringSet,
    /// What to do when the paired address is full.
    pub pooling: Pooling,
    /// Keep the inside port where it is free (RFC 4787 §4.2.1).
    pub port_preservation: bool,
    /// Keep the port's parity (RFC 4787 REQ-4).
    pub port_parity: bool,
    /// Whether packets from outside keep a UDP session alive (RFC 4787 REQ-6; those from inside always do).
    pub inbound_refresh: bool,
}

/// A transport protocol that a port forward names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports of an external address that always lead to an inside host.
#[derive(Clone, Debug)]
pub struct PortForward {
    /// Its name in the file.
    pub name: String,
    /// The inside zone.
    pub inside_zone: ZoneId,
    /// The outside zone.
    pub outside_zone: ZoneId,
    /// Transport protocol.
    pub protocol: ForwardProtocol,
    /// The external address: of a pool, of an interface, or of its own.
    pub external: Ipv4Addr,
    /// The external ports.
    pub external_ports: RangeInclusive<u16>,
    /// The inside host.
    pub inside: Ipv4Addr,
    /// The inside port of the first external port; the others follow in order.
    pub inside_port: u16,
    /// Who may use it.
    pub filtering: Filtering,
}

/// A whole external address that always leads to an inside host, and the host's address outside.
#[derive(Clone, Debug)]
pub struct StaticNat {
    /// Its name in the file.
    pub name: String,
    /// The inside zone.
    pub inside_zone: ZoneId,
    /// The outside zone.
    pub outside_zone: ZoneId,
    /// The external address. In no pool.
    pub external: Ipv4Addr,
    /// The inside host.
    pub inside: Ipv4Addr,
    /// Who may use it.
    pub filtering: Filtering,
}

/// Idle times after which a session ends.
#[derive(Clone, Debug)]
pub struct Timers {
    /// UDP. RFC 4787 REQ-5: never below 120 s, default 300 s.
    pub udp: Duration,
    /// UDP to these destination ports, 0 to 1023 (RFC 4787 REQ-5a).
    pub udp_ports: Vec<(u16, Duration)>,
    /// TCP before both sides have answered (RFC 7857 §2.1). Default 240 s.
    pub tcp_opening: Duration,
    /// TCP established. RFC 5382 REQ-5: not below 7440 s, which is the default (D1).
    pub tcp_established: Duration,
    /// TCP after both FINs, or after a RST (RFC 7857 §2.2). Default 240 s.
    pub tcp_closing: Duration,
    /// ICMP queries. RFC 5508 REQ-2: not below 60 s, which is the default.
    pub icmp: Duration,
    /// How long a port of an endpoint-independent mapping stays unused after its last session (RFC 6888 REQ-8).
    pub hold_down: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            udp: Duration::from_secs(300),
            udp_ports: Vec::new(),
            tcp_opening: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(240),
            icmp: Duration::from_secs(60),
            hold_down: Duration::from_secs(120),
        }
    }
}

/// Token bucket of the ICMP errors that the gateway originates (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
#[derive(Clone, Debug)]
pub struct IcmpPolicy {
    /// Errors per second over a long time.
    pub rate: u32,
    /// Errors at once.
    pub burst: u32,
    /// Interfaces on which errors are originated at all (RFC 5508 REQ-9), by index; those not listed send them.
    pub silent: Vec<InterfaceId>,
}

impl Default for IcmpPolicy {
    fn default() -> Self {
        IcmpPolicy { rate: 1000, burst: 100, silent: Vec::new() }
    }
}

/// Sizes of a worker's tables. Memory for them is taken at start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions.
    pub sessions: u32,
    /// Mappings.
    pub mappings: u32,
    /// Neighbours.
    pub neighbours: u32,
    /// Packets that may wait for one neighbour's resolution.
    pub held_per_neighbour: u32,
    /// Packets that may wait for resolutions in all.
    pub held: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { sessions: 262_144, mappings: 262_144, neighbours: 4096, held_per_neighbour: 16, held: 1024 }
    }
}

/// The compiled, immutable configuration that workers read.
#[derive(Debug)]
pub struct Plan {
    /// What it was compiled from.
    pub spec: Spec,
}

/// Why a [`Spec`] can't be compiled. The configuration reader finds these first and says where in the file they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An index points outside its table.
    #[error("{0} refers to something that does not exist")]
    Dangling(String),
    /// Two things claim the same address or port.
    #[error("{0} overlaps {1}")]
    Overlap(String, String),
    /// More of something than the packet path can number.
    #[error("too many {0}: at most {1}")]
    TooMany(&'static str, usize),
}

impl Plan {
    /// Builds the tables.
    ///
    /// # Errors
    /// When the specification contradicts itself.
    pub fn compile(spec: Spec) -> Result<Plan, PlanError> {
        Ok(Plan { spec })
    }
}
