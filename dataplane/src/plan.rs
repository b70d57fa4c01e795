//! The configuration as the data plane reads it.
//!
//! [`Spec`] is plain data: what the configuration file says, with every name resolved to an index and every address
//! parsed. `Plan::compile` turns it into the immutable [`Plan`] that workers read, with its tables built.

mod succeed;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::packet::parse::ethertype;
use crate::policy::Policy;
use crate::policy::crossing::Crossings;
use crate::policy::prefixes::Prefixes;
use crate::pool::Proto;
use crate::route::neighbour::Neighbour;
use crate::route::trie::Trie;
use crate::trace::RuleRef;
use crate::translate::{eam, embed, siit};
use succeed::Before;
pub(crate) use succeed::Named;

/// Index of a port in [`Spec::ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Index of an interface in [`Spec::interfaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

/// Index of a zone in [`Spec::zones`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZoneId(pub u8);

/// Index of a pool in [`Spec::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The link-local IPv6 address that follows from it (RFC 4291 appendix A: EUI-64).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

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

    /// Whether all of an IPv4 prefix is in a range.
    fn is_within(&self, range: &RangeInclusive<Ipv4Addr>) -> bool {
        match self.network().address {
            IpAddr::V4(first) => {
                let last = first.to_bits() | u32::MAX.checked_shr(self.len.into()).unwrap_or(0);
                range.contains(&first) && range.contains(&Ipv4Addr::from_bits(last))
            }
            IpAddr::V6(_) => false,
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The configuration, names resolved: the input of `Plan::compile`.
///
/// In the running plan after a reload, zones, interfaces, pools, rules, forwards and static entries without a name are
/// places that nothing has any more: see [`Plan::succeed`].
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
    /// The order in which the NAT44 rules are asked, by index. Empty: that of [`Spec::nat44`].
    pub nat44_order: Vec<u16>,
    /// Static port forwards.
    pub forwards: Vec<PortForward>,
    /// Static one-to-one translations of whole addresses.
    pub static_nat: Vec<StaticNat>,
    /// Stateless translation of prefixes.
    pub prefixes: Vec<PrefixRule>,
    /// Outside prefixes that rules had before, the newest last: what still comes for them is dropped by a name of its own. Follows
    /// from the plan before.
    pub former: Vec<IpPrefix>,
    /// Stateless translation between IPv4 and IPv6.
    pub crossings: Vec<CrossingSpec>,
    /// Idle times of sessions.
    pub timers: Timers,
    /// How the gateway sends ICMP errors of its own.
    pub icmp: IcmpPolicy,
    /// Table sizes, from the boot-time section.
    pub limits: Limits,
    /// Ports whose link is down. What lies behind them by a connected prefix or a static route is unreachable, unless another
    /// route takes over: one for the same prefix, or a less specific one that leads to the same zone. (What is inside is not
    /// sought outside because a cable is pulled.)
    pub links_down: Vec<PortId>,
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
    /// The 802.1ad service tag (1 to 4094) around [`InterfaceSpec::vlan`], if frames carry two.
    pub outer_vlan: Option<u16>,
    /// The zone it is in.
    pub zone: ZoneId,
    /// Its Ethernet address: the one in the file, else that of the port.
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

impl InterfaceSpec {
    /// The VLAN tags of its frames, outermost first: type and identifier.
    pub fn tags(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let outer = self.outer_vlan.map(|vlan| (ethertype::SERVICE, vlan));
        outer.into_iter().chain(self.vlan.map(|vlan| (ethertype::VLAN, vlan)))
    }
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

impl FilteringSet {
    /// That of a protocol.
    #[must_use]
    pub const fn of(&self, proto: Proto) -> Filtering {
        match proto {
            Proto::Tcp => self.tcp,
            Proto::Udp => self.udp,
            Proto::Icmp => self.icmp,
        }
    }
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
    /// What becomes of a TCP segment from inside in the middle of a connection that has no session.
    pub mid_stream: MidStream,
}

/// What becomes of a TCP segment from inside that belongs to no session and is no SYN alone: after a restart, or when its
/// session has timed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MidStream {
    /// It is dropped, silently.
    #[default]
    Drop,
    /// It is dropped, and its sender is told by a RST that the connection is gone.
    Reset,
    /// It opens a session, as a SYN would.
    Adopt,
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

/// How a rule exchanges prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixKind {
    /// NPTv6 (RFC 6296): checksum-neutral; prefixes of at most 64 bits, of any two lengths.
    Nptv6 {
        /// Interface identifiers of zeros pass, where prefixes are longer than 48 bits (RFC 6296 §3.7 drops them, D4).
        allow_zero_iid: bool,
    },
    /// MAP66: checksum-neutral; prefixes of one length, 16 to 112 bits in steps of 16.
    Map66 {
        /// The gateway's own addresses are mapped like any other (MAP66's `--nocheck`).
        maps_own: bool,
    },
    /// The bits behind the prefix stay, and checksums follow; IPv4 or IPv6, of one length.
    Netmap,
}

/// A stateless exchange of one prefix for another.
#[derive(Clone, Debug)]
pub struct PrefixRule {
    /// Its name in the file.
    pub name: String,
    /// The inside zone.
    pub from: ZoneId,
    /// The outside zone.
    pub to: ZoneId,
    /// The prefix inside, its host bits zero.
    pub inside: IpPrefix,
    /// The prefix outside, of the same family, its host bits zero.
    pub outside: IpPrefix,
    /// How.
    pub kind: PrefixKind,
}

impl PrefixRule {
    /// Its name with the section that it is in, as people find it in the file.
    #[must_use]
    pub fn full_name(&self) -> String {
        let section = match self.kind {
            PrefixKind::Nptv6 { .. } => "nptv6",
            PrefixKind::Map66 { .. } => "map66",
            PrefixKind::Netmap => "netmap",
        };
        format!("{section}.{}", self.name)
    }
}

/// A stateless translator between IPv4 and IPv6 (RFC 7915).
#[derive(Clone, Debug)]
pub struct CrossingSpec {
    /// Its name in the file.
    pub name: String,
    /// The zone where IPv4 packets come from, and go to.
    pub ipv4: ZoneId,
    /// The zone where IPv6 packets come from, and go to. A zone belongs to one translator on each side.
    pub ipv6: ZoneId,
    /// Prefixes that embed IPv4 addresses (RFC 6052). What is embedded is in the first; what is extracted may be from any.
    pub prefixes: Vec<embed::Prefix>,
    /// IPv4 destinations that are embedded, beside those that are mapped: inclusive ranges.
    pub destinations: Vec<RangeInclusive<Ipv4Addr>>,
    /// The prefix that they are embedded in, if it is not the first: addresses of hosts in IPv6 have one of their own, where RFC 2765
    /// is followed. It is one of [`CrossingSpec::prefixes`] too.
    pub destination_prefix: Option<embed::Prefix>,
    /// Explicit address mappings (RFC 7757).
    pub mappings: Arc<eam::Table>,
    /// How flows between mapped hosts by way of IPv4 are treated.
    pub hairpin: eam::Hairpin,
    /// What RFC 7915 leaves to the operator.
    pub settings: siit::Settings,
    /// The sources in IPv4 of ICMP errors from routers in IPv6 that have no address there (RFC 6791): inclusive ranges.
    pub error_sources: Vec<RangeInclusive<Ipv4Addr>>,
    /// The prefix in IPv6 of ICMP errors from routers in IPv4 whose address is neither mapped nor embedded.
    pub error_prefix: Option<embed::Prefix>,
    /// Whether senders are told of packets that can't be translated (RFC 7915 §4.4, §5.4).
    pub report_discards: bool,
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
    /// How long the fragments of a datagram are waited for, from the one that comes first. RFC 6146 §4: not below 2 s.
    pub fragment: Duration,
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
            fragment: Duration::from_secs(5),
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
    /// Interfaces about whose packets no errors are originated (RFC 5508 REQ-9).
    pub silent: Vec<InterfaceId>,
    /// Where they come from: one address of a family, in place of the interface's that the packet came in by.
    pub sources: Vec<IpAddr>,
}

impl Default for IcmpPolicy {
    fn default() -> Self {
        IcmpPolicy { rate: 1000, burst: 100, silent: Vec::new(), sources: Vec::new() }
    }
}

/// Sizes of the gateway's tables, over all workers. Memory for them is taken at start.
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
    /// Fragments that may wait for the first one of their datagram, in all shards of all workers. Each of the 64 shards has its
    /// share, at least one.
    pub fragments: u32,
    /// Whether the packets and bytes of each session are counted: 32 bytes more for each.
    pub session_counters: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions: 262_144,
            mappings: 262_144,
            neighbours: 4096,
            held_per_neighbour: 16,
            held: 1024,
            fragments: 1024,
            session_counters: false,
        }
    }
}

impl Limits {
    /// What one of so many workers has of it. All of them know every neighbour.
    #[must_use]
    pub fn share(&self, workers: u8) -> Limits {
        let part = |limit: u32| limit.div_ceil(u32::from(workers.max(1)));
        Limits { sessions: part(self.sessions), mappings: part(self.mappings), held: part(self.held), ..*self }
    }
}

/// An external address: one that flows are translated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The address, host order.
    pub address: u32,
    /// The pool that allocates from it, if one does.
    pub pool: Option<PoolId>,
    /// It is also an interface's own address: of what belongs to no session ICMP, and from inside all, is for the gateway.
    pub local: bool,
    /// The gateway answers pings of it that belong to no session.
    pub answer_echo: bool,
    /// Blocks of 64 ports that hold a forwarded port, and are never leased. Sorted.
    pub static_blocks: Vec<u16>,
    /// The whole-address entry that it belongs to, by index.
    pub static_nat: Option<u16>,
    /// A reload has taken it out of its pool: what is mapped to it goes on, and nothing new is.
    pub draining: bool,
    /// The zones that it is external to: those that its rules, its static entry and its forwards lead to from inside.
    pub outside: ZoneSet,
}

/// A set of zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneSet([u64; 4]);

impl ZoneSet {
    const EMPTY: ZoneSet = ZoneSet([0; 4]);

    fn insert(&mut self, zone: ZoneId) {
        self.0[usize::from(zone.0) / 64] |= 1 << (zone.0 % 64);
    }

    /// Whether a zone is in it.
    #[must_use]
    pub fn contains(&self, zone: ZoneId) -> bool {
        self.0[usize::from(zone.0) / 64] >> (zone.0 % 64) & 1 == 1
    }

    /// What is in both.
    #[must_use]
    pub fn both(&self, other: &ZoneSet) -> ZoneSet {
        ZoneSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Its zones, in their order.
    pub fn iter(&self) -> impl Iterator<Item = ZoneId> + use<> {
        let set = *self;
        (0..=u8::MAX).map(ZoneId).filter(move |&zone| set.contains(zone))
    }
}

impl FromIterator<ZoneId> for ZoneSet {
    fn from_iter<I: IntoIterator<Item = ZoneId>>(zones: I) -> Self {
        let mut set = ZoneSet::EMPTY;
        zones.into_iter().for_each(|zone| set.insert(zone));
        set
    }
}

impl External {
    /// A place in the table without an address.
    const VACANT: External = External {
        address: 0,
        pool: None,
        local: false,
        answer_echo: false,
        static_blocks: Vec::new(),
        static_nat: None,
        draining: false,
        outside: ZoneSet::EMPTY,
    };
}

/// What a destination address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One of the gateway's own, on this interface.
    Local(InterfaceId),
    /// An external address; its index is `first_id + (destination - first_address)`.
    External {
        /// The first address of the range, host order.
        first_address: u32,
        /// Its index in [`Plan::externals`].
        first_id: u32,
    },
    /// In the outside prefix of a rule that exchanges prefixes, by its place in [`Spec::prefixes`].
    Prefix(u16),
    /// In an outside prefix that a rule had before.
    Former,
    /// In the other address family, by a translator, given by its place in [`Spec::crossings`].
    Cross(u16),
    /// This router.
    Via(Neighbour),
    /// The destination is a neighbour on this interface.
    OnLink(InterfaceId),
    /// A subnet's broadcast address.
    Broadcast,
    /// Explicitly unreachable.
    Unreachable,
    /// Behind this interface, whose link is down.
    LinkDown(InterfaceId),
}

impl Target {
    /// The index in [`Plan::externals`] of the destination (host order) that this is the meaning of, if it is external.
    #[inline]
    #[must_use]
    pub const fn external_id(self, destination: u32) -> Option<u32> {
        match self {
            Target::External { first_address, first_id } => {
                Some(first_id.wrapping_add(destination.wrapping_sub(first_address)))
            }
            _ => None,
        }
    }

    /// The neighbour that it leads to, if it leads out; `on_link` is the destination as a neighbour on an interface.
    #[inline]
    #[must_use]
    pub fn next_hop(self, on_link: impl FnOnce(InterfaceId) -> Neighbour) -> Option<Neighbour> {
        match self {
            Target::Via(router) => Some(router),
            Target::OnLink(interface) => Some(on_link(interface)),
            Target::Local(_)
            | Target::External { .. }
            | Target::Prefix(_)
            | Target::Cross(_)
            | Target::Former
            | Target::Broadcast
            | Target::Unreachable
            | Target::LinkDown(_) => None,
        }
    }

    /// Whether a packet may leave by it, or could if a link were up: it is neither the gateway's own nor a broadcast.
    #[inline]
    #[must_use]
    pub const fn leads_out(self) -> bool {
        matches!(self, Target::Via(_) | Target::OnLink(_) | Target::Unreachable | Target::LinkDown(_))
    }
}

/// A port's interfaces by VLAN identifier (0: no such tag).
type ByVlan = Box<[Option<InterfaceId>]>;

/// A port's interfaces by their tags.
#[derive(Debug)]
struct Vlans {
    /// Those without a service tag.
    single: ByVlan,
    /// Those with one, by its identifier; of an identifier that no interface has, or on a port without any, empty.
    double: Box<[ByVlan]>,
}

impl Vlans {
    const IDENTIFIERS: usize = 4096;

    fn new() -> Self {
        Vlans { single: Self::level(), double: Box::default() }
    }

    fn level() -> ByVlan {
        vec![None; Self::IDENTIFIERS].into()
    }

    fn slot(&mut self, outer: u16, vlan: u16) -> Option<&mut Option<InterfaceId>> {
        let level = if outer == 0 {
            &mut self.single
        } else {
            if self.double.is_empty() {
                self.double = vec![ByVlan::default(); Self::IDENTIFIERS].into();
            }
            let level = self.double.get_mut(usize::from(outer))?;
            if level.is_empty() {
                *level = Self::level();
            }
            level
        };
        level.get_mut(usize::from(vlan))
    }
}

/// The compiled, immutable configuration that workers read.
#[derive(Debug)]
pub struct Plan {
    /// What it was compiled from.
    pub spec: Spec,
    /// Every external address.
    pub externals: Vec<External>,
    /// The external addresses of each pool, by index in `externals`.
    pub pools: Vec<Vec<u32>>,
    /// For each port, its interfaces by their tags.
    vlans: Vec<Vlans>,
    targets: Vec<Target>,
    /// The place of each target; only while the plan is being made.
    target_places: HashMap<Target, u32>,
    fib4: Trie,
    fib6: Trie,
    /// The routes of IPv6 alone, without the prefixes of translators; if there are translators.
    routes6: Trie,
    /// A bit for each IPv4 /16 in which there are addresses that mean more than a way out.
    special: Box<[u64]>,
    /// The zones that nothing is translated from or to.
    plain: Vec<bool>,
    /// What to do with a flow that has no session.
    pub policy: Policy,
    /// What is exchanged without any.
    pub prefixes: Prefixes,
    /// What crosses from one address family to the other without any.
    pub crossings: Crossings,
    /// External addresses that the workers' tables have room for. Fixed at start.
    pub capacity: usize,
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
    /// The ports are not those that were opened at start.
    #[error("the ports are other ones than at start")]
    Ports,
}

/// Most external addresses of a plan.
pub const EXTERNALS_MAX: usize = 65_536;

/// Most interfaces of a plan: so many are counted.
pub const INTERFACES_MAX: usize = 4096;

/// External addresses that there is room for at least: twice as many as at start, and no fewer than this.
const CAPACITY_MIN: usize = 1024;

impl Plan {
    /// Builds the tables.
    ///
    /// # Errors
    /// When the specification contradicts itself.
    pub fn compile(spec: Spec) -> Result<Plan, PlanError> {
        Plan::compile_after(spec, None)
    }

    fn compile_after(spec: Spec, before: Option<&Before>) -> Result<Plan, PlanError> {
        check_references(&spec)?;
        let mut plan = Plan {
            externals: Vec::new(),
            pools: vec![Vec::new(); spec.pools.len()],
            vlans: spec.ports.iter().map(|_| Vlans::new()).collect(),
            targets: Vec::new(),
            target_places: HashMap::new(),
            fib4: Trie::new(),
            fib6: Trie::new(),
            routes6: Trie::new(),
            special: vec![0; (1 << 16) / 64].into(),
            plain: Vec::new(),
            policy: Policy::compile(&spec)?,
            prefixes: Prefixes::compile(&spec),
            crossings: Crossings::compile(&spec),
            capacity: 0,
            spec: Spec::default(),
        };
        let zones = (0..=u8::MAX).take(spec.zones.len()).map(ZoneId);
        plan.plain = zones.map(|zone| plan.policy.is_plain(zone) && !plan.is_stateless4(zone)).collect();
        plan.add_interfaces(&spec)?;
        plan.add_routes(&spec);
        for &former in &spec.former {
            plan.route(former, Target::Former);
        }
        // What crosses to IPv6 leaves by them too, by whatever prefix it got there.
        if !spec.crossings.is_empty() {
            plan.routes6 = plan.fib6.clone();
        }
        // After the routes: of a prefix that is both, the translation counts.
        for (rule, index) in spec.prefixes.iter().zip(0..) {
            plan.route(rule.outside, Target::Prefix(index));
        }
        for (crossing, index) in spec.crossings.iter().zip(0..) {
            for prefix in &crossing.prefixes {
                let address = Ipv6Addr::from_bits(prefix.network()).into();
                plan.route(IpPrefix { address, len: prefix.length() }, Target::Cross(index));
            }
            for range in &crossing.destinations {
                for prefix in prefixes_of(range.start().to_bits(), range.end().to_bits()) {
                    plan.route(prefix, Target::Cross(index));
                }
            }
        }
        plan.add_own(&spec);
        plan.add_externals(&spec, before)?;
        plan.target_places = HashMap::new();
        plan.spec = spec;
        Ok(plan)
    }

    fn add_interfaces(&mut self, spec: &Spec) -> Result<(), PlanError> {
        for (interface, id) in spec.interfaces.iter().zip(0..).filter(|(interface, _)| !interface.is_vacant()) {
            let id = InterfaceId(id);
            let slot = self.vlans.get_mut(usize::from(interface.port.0));
            let (outer, vlan) = (interface.outer_vlan.unwrap_or(0), interface.vlan.unwrap_or(0));
            let slot = slot.and_then(|vlans| vlans.slot(outer, vlan));
            let slot = slot.ok_or_else(|| PlanError::Dangling(format!("interface {}", interface.name)))?;
            if let Some(other) = slot.replace(id) {
                let other = spec.interfaces[usize::from(other.0)].name.clone();
                return Err(PlanError::Overlap(format!("interface {}", interface.name), format!("interface {other}")));
            }
            let link = if is_down(spec, id) { Target::LinkDown(id) } else { Target::OnLink(id) };
            for prefix in &interface.addresses {
                self.route(*prefix, link);
                if let IpAddr::V4(address) = prefix.address
                    && prefix.len < 31
                {
                    let host = u32::MAX >> prefix.len;
                    for broadcast in [address.to_bits() | host, address.to_bits() & !host] {
                        self.route(host4(broadcast), Target::Broadcast);
                    }
                }
            }
        }
        Ok(())
    }

    /// After every prefix, so that nothing else hides an address of our own.
    fn add_own(&mut self, spec: &Spec) {
        for (interface, id) in spec.interfaces.iter().zip(0..) {
            for prefix in &interface.addresses {
                let len = if prefix.address.is_ipv4() { 32 } else { 128 };
                self.route(IpPrefix { address: prefix.address, len }, Target::Local(InterfaceId(id)));
            }
        }
    }

    fn add_routes(&mut self, spec: &Spec) {
        for route in &spec.routes {
            let target = match route.next_hop {
                NextHop::Via(_, id) | NextHop::OnLink(id) if is_down(spec, id) => {
                    if has_substitute(spec, route.prefix, id) {
                        continue;
                    }
                    Target::LinkDown(id)
                }
                NextHop::Via(router, interface) => Target::Via(Neighbour::new(interface, router)),
                NextHop::OnLink(interface) => Target::OnLink(interface),
                NextHop::Unreachable => Target::Unreachable,
            };
            self.route(route.prefix, target);
        }
    }

    fn add_externals(&mut self, spec: &Spec, before: Option<&Before>) -> Result<(), PlanError> {
        let is_local = |address: u32| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(address));
            spec.interfaces.iter().any(|interface| interface.addresses.iter().any(|own| own.address == address))
        };
        let mut places = Places::new(before);
        for (pool, id) in spec.pools.iter().zip(0..) {
            let rules = spec.nat44.iter().filter(|rule| !rule.is_vacant() && rule.pool.0 == id);
            let outside: ZoneSet = rules.map(|rule| rule.to).collect();
            for range in &pool.addresses {
                let (first, last) = (range.start().to_bits(), range.end().to_bits());
                // Runs of addresses in neighbouring places: one for a range, but for what a reload has made of it.
                let mut run: Option<(u32, u32)> = None;
                for address in first..=last {
                    let external = External {
                        address,
                        pool: Some(PoolId(id)),
                        local: is_local(address),
                        answer_echo: pool.answer_echo,
                        outside,
                        ..External::VACANT
                    };
                    let external = places.add(&mut self.externals, external)?;
                    self.pools[usize::from(id)].push(external);
                    match run {
                        Some((from, first_id)) if external.wrapping_sub(first_id) == address - from => {}
                        _ => {
                            if let Some((from, first_id)) = run.replace((address, external)) {
                                self.external_range(from, address - 1, first_id);
                            }
                        }
                    }
                }
                if let Some((from, first_id)) = run {
                    self.external_range(from, last, first_id);
                }
            }
        }
        let mut single = |plan: &mut Plan, external: External| -> Result<u32, PlanError> {
            let address = external.address;
            let external = External { local: is_local(address), ..external };
            let id = places.add(&mut plan.externals, external)?;
            plan.external_range(address, address, id);
            Ok(id)
        };
        for (entry, index) in spec.static_nat.iter().zip(0..).filter(|(entry, _)| !entry.is_vacant()) {
            let address = entry.external.to_bits();
            let outside = ZoneSet::from_iter([entry.outside_zone]);
            single(self, External { address, static_nat: Some(index), outside, ..External::VACANT })?;
        }
        for forward in spec.forwards.iter().filter(|forward| !forward.is_vacant()) {
            let address = forward.external.to_bits();
            let id = match self.external(address) {
                Some((id, _)) => id,
                None => single(self, External { address, ..External::VACANT })?,
            };
            let external = &mut self.externals[id as usize];
            external.outside.insert(forward.outside_zone);
            for block in forward.external_ports.start() / 64..=forward.external_ports.end() / 64 {
                if !external.static_blocks.contains(&block) {
                    external.static_blocks.push(block);
                }
            }
            external.static_blocks.sort_unstable();
        }
        for external in before.iter().flat_map(|before| &before.draining) {
            match self.external(external.address).map(|(id, _)| id) {
                // It is in no pool any more, but has forwards: these go on beside what is drained.
                Some(id) => {
                    let kept = &mut self.externals[id as usize];
                    if kept.pool.is_none() && kept.static_nat.is_none() {
                        (kept.pool, kept.draining) = (external.pool, true);
                        external.outside.iter().for_each(|zone| kept.outside.insert(zone));
                    }
                }
                None if external.local || !is_local(external.address) => {
                    single(self, External { draining: true, static_blocks: Vec::new(), ..external.clone() })?;
                }
                None => {}
            }
        }
        let room = (2 * self.externals.len()).clamp(CAPACITY_MIN, EXTERNALS_MAX);
        self.capacity = before.map_or(room, |before| before.capacity);
        if self.externals.len() > self.capacity {
            return Err(PlanError::TooMany("external addresses for the tables made at start", self.capacity));
        }
        Ok(())
    }

    fn external_range(&mut self, first: u32, last: u32, first_id: u32) {
        let target = Target::External { first_address: first, first_id };
        for prefix in prefixes_of(first, last) {
            self.route(prefix, target);
        }
    }

    fn route(&mut self, prefix: IpPrefix, target: Target) {
        let place = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        let value = *self.target_places.entry(target).or_insert(place);
        if value == place {
            self.targets.push(target);
        }
        match prefix.address {
            IpAddr::V4(address) => {
                if !target.leads_out() {
                    let (first, len) = (address.to_bits() >> 16, u32::from(prefix.len).min(16));
                    for high in first..=first | 0xffff >> len {
                        self.special[high as usize / 64] |= 1 << (high % 64);
                    }
                }
                self.fib4.insert(&address.octets(), prefix.len, value);
            }
            IpAddr::V6(address) => self.fib6.insert(&address.octets(), prefix.len, value),
        }
    }

    /// The interface on a port for a VLAN within the VLAN of a service tag (0: no such tag).
    #[inline]
    #[must_use]
    pub fn ingress(&self, port: PortId, outer_vlan: u16, vlan: u16) -> Option<InterfaceId> {
        let vlans = self.vlans.get(usize::from(port.0))?;
        let level = if outer_vlan == 0 { &vlans.single } else { vlans.double.get(usize::from(outer_vlan))? };
        *level.get(usize::from(vlan))?
    }

    /// The interface with this index. Every [`InterfaceId`] that the plan itself gives out is valid.
    #[inline]
    #[must_use]
    pub fn interface(&self, id: InterfaceId) -> Option<&InterfaceSpec> {
        self.spec.interfaces.get(usize::from(id.0))
    }

    /// Whether an IPv4 destination (host order) may mean more than a way out: our own, an external address, a broadcast
    /// address. One load from a small table, for most packets instead of [`Plan::target4`].
    #[inline]
    #[must_use]
    pub fn is_special4(&self, destination: u32) -> bool {
        self.special.get(destination as usize >> 22).is_none_or(|word| word >> (destination >> 16 & 63) & 1 == 1)
    }

    /// What an IPv4 destination (host order) means.
    #[inline(always)]
    #[must_use]
    pub fn target4(&self, destination: u32) -> Option<Target> {
        self.targets.get(self.fib4.lookup4(destination)? as usize).copied()
    }

    /// What an IPv6 destination means.
    #[inline(always)]
    #[must_use]
    pub fn target6(&self, destination: u128) -> Option<Target> {
        self.targets.get(self.fib6.lookup6(destination)? as usize).copied()
    }

    /// What the IPv6 destination of a packet means that has crossed from IPv4 or is our own: it does not cross.
    #[inline(always)]
    #[must_use]
    pub fn beyond6(&self, destination: u128) -> Option<Target> {
        match self.target6(destination)? {
            Target::Cross(_) => self.targets.get(self.routes6.lookup6(destination)? as usize).copied(),
            target => Some(target),
        }
    }

    /// Whether nothing is translated from or to a zone: its packets are only routed.
    #[inline]
    #[must_use]
    pub fn is_plain(&self, zone: ZoneId) -> bool {
        self.plain.get(usize::from(zone.0)).copied().unwrap_or(false)
    }

    /// Whether IPv4 packets from a zone may be translated without state.
    #[must_use]
    pub fn is_stateless4(&self, zone: ZoneId) -> bool {
        self.prefixes.is_inside::<u32>(zone) || self.crossings.from4(zone).is_some()
    }

    /// Whether packets from a zone to this address are translated without state, so that it stands for a host elsewhere; and not to all
    /// of its network, which is on a link there.
    #[must_use]
    pub fn stands_for(&self, zone: ZoneId, address: IpAddr, network: IpPrefix) -> bool {
        let target = match address {
            IpAddr::V4(address) => self.target4(address.to_bits()),
            IpAddr::V6(address) => self.target6(address.to_bits()),
        };
        match (target, address) {
            (Some(Target::Prefix(index)), _) => {
                let rule = self.spec.prefixes.get(usize::from(index));
                rule.is_some_and(|rule| rule.to == zone && rule.outside.len > network.len)
            }
            (Some(Target::Local(_) | Target::Broadcast | Target::External { .. }), _) => false,
            (_, IpAddr::V4(it)) => {
                self.crossings.from4(zone).and_then(|index| self.crossing(index)).is_some_and(|(crossing, spec)| {
                    let holds_all = |range: &RangeInclusive<Ipv4Addr>| network.is_within(range);
                    let is_part = match spec.mappings.row4(it.to_bits()) {
                        Some(row) => row.v4_len > network.len,
                        None => !spec.destinations.iter().any(holds_all),
                    };
                    is_part && crossing.destination6(spec, it.to_bits(), target).is_some()
                })
            }
            (_, IpAddr::V6(it)) => {
                self.crossings.from6(zone).and_then(|index| self.crossing(index)).is_some_and(|(crossing, spec)| {
                    let is_part = match spec.mappings.row6(it.to_bits()) {
                        Some(row) => row.v6_len > network.len,
                        None => !spec.prefixes.iter().any(|prefix| prefix.length() <= network.len),
                    };
                    is_part && crossing.destination4(spec, it.to_bits(), target).is_some()
                })
            }
        }
    }

    /// The zone that a packet leaves to, if it may leave at all.
    #[inline]
    #[must_use]
    pub fn egress_zone(&self, target: Target) -> Option<ZoneId> {
        let interface = match target {
            Target::Via(router) => router.interface(),
            Target::OnLink(id) | Target::LinkDown(id) => id,
            _ => return None,
        };
        self.interface(interface).map(|interface| interface.zone)
    }

    /// The zones of a translation, inside and outside. None where there is no such translation (any more).
    fn zones(&self, rule: RuleRef) -> Option<(ZoneId, ZoneId)> {
        let spec = &self.spec;
        match rule {
            RuleRef::None => None,
            RuleRef::Nat44(index) => {
                spec.nat44.get(usize::from(index)).filter(|it| !it.is_vacant()).map(|it| (it.from, it.to))
            }
            RuleRef::Forward(index) => {
                let forward = spec.forwards.get(usize::from(index)).filter(|it| !it.is_vacant());
                forward.map(|it| (it.inside_zone, it.outside_zone))
            }
            RuleRef::Static(index) => {
                let entry = spec.static_nat.get(usize::from(index)).filter(|it| !it.is_vacant());
                entry.map(|it| (it.inside_zone, it.outside_zone))
            }
            RuleRef::Prefix(index) => spec.prefixes.get(usize::from(index)).map(|it| (it.from, it.to)),
            RuleRef::Crossing(index) => spec.crossings.get(usize::from(index)).map(|it| (it.ipv4, it.ipv6)),
        }
    }

    /// The zone that a translation leads to from inside.
    #[must_use]
    pub fn outside_zone(&self, rule: RuleRef) -> Option<ZoneId> {
        self.zones(rule).map(|(_, outside)| outside)
    }

    /// The zone that a translation leads to from outside.
    #[must_use]
    pub fn inside_zone(&self, rule: RuleRef) -> Option<ZoneId> {
        self.zones(rule).map(|(inside, _)| inside)
    }

    /// The external address with this value (host order), and its index.
    #[must_use]
    pub fn external(&self, address: u32) -> Option<(u32, &External)> {
        let id = self.target4(address)?.external_id(address)?;
        Some((id, self.externals.get(id as usize)?))
    }
}

/// Gives external addresses their places: those that they had, or vacant ones.
struct Places<'a> {
    before: Option<&'a Before>,
    taken: HashMap<u32, u32>,
    vacant: std::vec::IntoIter<u32>,
    beyond: u32,
}

impl<'a> Places<'a> {
    fn new(before: Option<&'a Before>) -> Self {
        let len = before.map_or(0, |before| before.len);
        let mut is_vacant = vec![true; len];
        for &place in before.iter().flat_map(|before| before.places.values()) {
            is_vacant[place as usize] = false;
        }
        let vacant: Vec<u32> = (0..).zip(is_vacant).filter(|(_, vacant)| *vacant).map(|(place, _)| place).collect();
        let beyond = u32::try_from(len).unwrap_or(u32::MAX);
        Places { before, taken: HashMap::new(), vacant: vacant.into_iter(), beyond }
    }

    fn add(&mut self, externals: &mut Vec<External>, external: External) -> Result<u32, PlanError> {
        let address = external.address;
        let place = match self.before.and_then(|before| before.places.get(&address)) {
            Some(&place) => place,
            None => self.vacant.next().unwrap_or_else(|| {
                self.beyond += 1;
                self.beyond - 1
            }),
        };
        if self.taken.insert(address, place).is_some() {
            let text = format!("external address {}", Ipv4Addr::from_bits(address));
            return Err(PlanError::Overlap(text, "another use of the same address".into()));
        }
        if place as usize >= EXTERNALS_MAX {
            return Err(PlanError::TooMany("external addresses", EXTERNALS_MAX));
        }
        if externals.len() <= place as usize {
            externals.resize(place as usize + 1, External::VACANT);
        }
        externals[place as usize] = external;
        Ok(place)
    }
}

fn host4(address: u32) -> IpPrefix {
    IpPrefix { address: IpAddr::V4(Ipv4Addr::from_bits(address)), len: 32 }
}

/// Whether an interface's link is down.
fn is_down(spec: &Spec, id: InterfaceId) -> bool {
    spec.interfaces.get(usize::from(id.0)).is_some_and(|it| spec.links_down.contains(&it.port))
}

/// Whether another route takes over from one for `prefix` by an interface whose link is down: see [`Spec::links_down`].
fn has_substitute(spec: &Spec, prefix: IpPrefix, by: InterfaceId) -> bool {
    let zone = |id: InterfaceId| spec.interfaces.get(usize::from(id.0)).map(|it| it.zone);
    let connected = spec.interfaces.iter().zip((0..=u16::MAX).map(InterfaceId));
    let connected = connected.flat_map(|(it, id)| it.addresses.iter().map(move |&prefix| (prefix, Some(id))));
    let routed = spec.routes.iter().map(|route| match route.next_hop {
        NextHop::Via(_, id) | NextHop::OnLink(id) => (route.prefix, Some(id)),
        NextHop::Unreachable => (route.prefix, None),
    });
    let holds = connected.chain(routed).filter(|(other, to)| {
        other.len <= prefix.len && other.contains(prefix.address) && !to.is_some_and(|id| is_down(spec, id))
    });
    let best = holds.max_by_key(|(other, _)| other.len);
    best.is_some_and(|(other, to)| other.len == prefix.len || to.is_none_or(|to| zone(to) == zone(by)))
}

/// The fewest prefixes that make up an inclusive range of addresses.
fn prefixes_of(first: u32, last: u32) -> Vec<IpPrefix> {
    let (mut next, end) = (u64::from(first), u64::from(last) + 1);
    let mut prefixes = Vec::new();
    while next < end {
        let aligned = if next == 0 { 32 } else { next.trailing_zeros() };
        let bits = aligned.min((end - next).ilog2()).min(32);
        let address = u32::try_from(next).unwrap_or(u32::MAX);
        let len = u8::try_from(32 - bits).unwrap_or(32);
        prefixes.push(IpPrefix { address: IpAddr::V4(Ipv4Addr::from_bits(address)), len });
        next += 1 << bits;
    }
    prefixes
}

/// Every index points somewhere.
fn check_references(spec: &Spec) -> Result<(), PlanError> {
    let zone = |zone: ZoneId, what: String| {
        if usize::from(zone.0) < spec.zones.len() { Ok(()) } else { Err(PlanError::Dangling(what)) }
    };
    let interface = |id: InterfaceId, what: String| {
        if usize::from(id.0) < spec.interfaces.len() { Ok(()) } else { Err(PlanError::Dangling(what)) }
    };
    if spec.interfaces.len() > INTERFACES_MAX {
        return Err(PlanError::TooMany("interfaces", INTERFACES_MAX));
    }
    for it in spec.interfaces.iter().filter(|it| !it.is_vacant()) {
        zone(it.zone, format!("interface {}", it.name))?;
        if usize::from(it.port.0) >= spec.ports.len() {
            return Err(PlanError::Dangling(format!("interface {}", it.name)));
        }
    }
    for it in spec.nat44.iter().filter(|it| !it.is_vacant()) {
        zone(it.from, format!("rule {}", it.name))?;
        zone(it.to, format!("rule {}", it.name))?;
        if usize::from(it.pool.0) >= spec.pools.len() {
            return Err(PlanError::Dangling(format!("rule {}", it.name)));
        }
    }
    for it in spec.forwards.iter().filter(|it| !it.is_vacant()) {
        zone(it.inside_zone, format!("forward {}", it.name))?;
        zone(it.outside_zone, format!("forward {}", it.name))?;
    }
    for it in spec.static_nat.iter().filter(|it| !it.is_vacant()) {
        zone(it.inside_zone, format!("static {}", it.name))?;
        zone(it.outside_zone, format!("static {}", it.name))?;
    }
    for it in &spec.crossings {
        zone(it.ipv4, format!("siit {}", it.name))?;
        zone(it.ipv6, format!("siit {}", it.name))?;
    }
    for it in &spec.prefixes {
        zone(it.from, format!("prefix rule {}", it.name))?;
        zone(it.to, format!("prefix rule {}", it.name))?;
    }
    for it in &spec.routes {
        match it.next_hop {
            NextHop::Via(_, id) | NextHop::OnLink(id) => interface(id, format!("route {}", it.prefix))?,
            NextHop::Unreachable => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_prefixes() {
        let text = |first: [u8; 4], last: [u8; 4]| {
            let prefixes = prefixes_of(u32::from_be_bytes(first), u32::from_be_bytes(last));
            prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text([0, 0, 0, 0], [255, 255, 255, 255]), ["0.0.0.0/0"]);
        assert_eq!(text([192, 0, 2, 1], [192, 0, 2, 1]), ["192.0.2.1/32"]);
        assert_eq!(
            text([192, 0, 2, 1], [192, 0, 2, 6]),
            ["192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32"]
        );
    }
}
