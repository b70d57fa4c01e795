//! The configuration as it is written: one type per section, no meaning yet. The documentation of a key here is what
//! editors show (by the schema); `docs/configuration.md` explains every key, and a test holds it to the schema.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::plan::{
    self, Filtering, FilteringSet, ForwardProtocol, IpPrefix, Limits, MacAddr, MidStream, MssClamp, Pooling,
};
use dataplane::translate::eam::Hairpin;
use dataplane::translate::siit::UdpChecksumNone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_yaml::{Mapping, Value};

use super::decode::{List, Reader, Setting, Table, Text, describe, key_of, section};
use super::error::Problems;
use super::node::{Kind, Node};
use super::text::{
    Descriptors, Endpoint, FilePath, FromText, Group, Listen, Name, Network, Number, Pci, Size, SocketPath, Vdev,
};
use super::{DEFAULT_SOCKET, Poll};

/// An 802.1Q or 802.1ad tag.
pub(super) type Tag = Number<1, 4094>;
/// Entries of a table.
pub(super) type Entries = Number<64, 67_108_864>;
/// Fragments that wait: at least one for each shard.
pub(super) type Fragments = Number<64, 1_048_576>;
/// ICMP errors.
pub(super) type Errors = Number<1, 1_000_000>;

section! {
    /// The configuration of a Turnpike gateway.
    File {
        /// The version of the format: 1.
        version: required Text<Number<1, 1>>,
        /// What is read once, at start.
        boot: default Boot = Boot::default(),
        /// DPDK devices.
        ports: required Table<Name, Port>,
        /// What all else speaks about.
        interfaces: required Table<Name, Interface>,
        /// Static routes.
        routes: default List<Route> = List::default(),
        /// External addresses.
        pools: default Table<Name, Pool> = Table::default(),
        /// IPv4 translation.
        nat44: default Nat44 = Nat44::default(),
        /// Stateless IPv6 prefix translation (RFC 6296): checksum-neutral, prefixes of at most 64 bits.
        nptv6: default Table<Name, Nptv6> = Table::default(),
        /// Stateless IPv6 prefix translation as MAP66 did it: checksum-neutral, prefixes of 16 to 112 bits in steps of 16.
        map66: default Table<Name, Map66> = Table::default(),
        /// Stateless translation of a prefix, IPv4 or IPv6, that keeps the bits behind it.
        netmap: default Table<Name, Netmap> = Table::default(),
        /// Stateless translation between IPv4 and IPv6 (RFC 7915).
        siit: default Table<Name, Siit> = Table::default(),
        /// Between which zones packets are tracked and filtered. As yet there is no firewall: none.
        firewall: default Text<Firewall> = Text(Firewall::None),
        /// Idle times.
        timers: default Timers = Timers::default(),
        /// The gateway's own ICMP errors.
        icmp: default Icmp = Icmp::default(),
        /// Where Prometheus finds the numbers.
        metrics: default Metrics = Metrics::default(),
        /// Where turnpikectl finds the gateway.
        control: default Control = Control::default(),
    }
}

section! {
    /// What is read once, at start.
    Boot {
        /// Cores.
        cpu: default Cpu = Cpu::default(),
        /// Memory for DPDK.
        memory: default Memory = Memory::default(),
        /// Packet buffers per worker. At least the sum of all descriptors, 1024 for each other worker,
        /// boot.tables.fragments, and 2048 more.
        packets: default Text<Number<2176, 4_194_304>> = Text(Number(16_384)),
        /// Sizes of the tables, which the workers share evenly. Their memory is taken at start.
        tables: default Tables = Tables::default(),
    }
}

section! {
    /// Cores.
    Cpu {
        /// The workers' cores, one worker per core. Default: the last core that the process may use.
        workers: default List<Text<u16>> = List::default(),
        /// The core of the control thread. Default: wherever the kernel puts it.
        control: optional Text<u16>,
        /// How a worker waits. busy never sleeps; adaptive pauses, yields and sleeps, at most 1 ms. Default: adaptive
        /// where workers are not fewer than cores, else busy.
        poll: optional Text<Poll>,
    }
}

section! {
    /// Memory for DPDK.
    Memory {
        /// Take memory from 2 MiB or 1 GiB pages; otherwise from ordinary ones.
        hugepages: default Text<bool> = Text(false),
        /// How much memory DPDK takes. 2560 bytes per packet buffer at least; with an MTU of 9000 on any interface 9728.
        size: default Text<Size> = Text(Size(256 << 20)),
    }
}

section! {
    /// Sizes of the tables, which the workers share evenly. Their memory is taken at start.
    Tables {
        /// Sessions. When the table is full new sessions are refused and counted; existing ones stay.
        sessions: default Text<Entries> = Text(Number(Limits::default().sessions)),
        /// Mappings. When the table is full new ones are refused and counted; existing ones stay.
        mappings: default Text<Entries> = Text(Number(Limits::default().mappings)),
        /// Neighbours on all interfaces together.
        neighbours: default Text<Entries> = Text(Number(Limits::default().neighbours)),
        /// Fragments that may wait for the first one of their datagram, of all workers together. When there are more, the
        /// oldest are given up.
        fragments: default Text<Fragments> = Text(Number(Limits::default().fragments)),
        /// Count the packets and bytes of each session, for lists of sessions. Takes 32 bytes more for each.
        session_counters: default Text<bool> = Text(false),
    }
}

section! {
    /// A port: one DPDK device, by either device or pci.
    Port {
        /// A virtual device as EAL's --vdev takes it: driver, number, arguments.
        device: optional Text<Vdev>,
        /// A device bound to vfio-pci (or, for mlx5, its kernel driver).
        pci: optional Text<Pci>,
        /// Packets that may wait to be received.
        rx_descriptors: default Text<Descriptors> = Text(Descriptors(1024)),
        /// Packets that may wait to be sent.
        tx_descriptors: default Text<Descriptors> = Text(Descriptors(1024)),
    }
}

section! {
    /// An interface: a port, or a VLAN of one, with addresses.
    Interface {
        /// The port that carries it.
        port: required Text<Name>,
        /// Its 802.1Q tag. Default: untagged.
        vlan: optional Text<Tag>,
        /// The 802.1ad service tag around vlan (QinQ).
        outer_vlan: optional Text<Tag>,
        /// Its Ethernet address. Default: the port's.
        mac: optional Text<MacAddr>,
        /// The zone it is in. Rules speak of zones.
        zone: required Text<Name>,
        /// The gateway's addresses there. The first of each family is the source of ICMP errors.
        addresses: required List<Text<IpPrefix>>,
        /// The largest IP packet that it sends, in bytes. At least 1280 with IPv6 addresses (RFC 8200 section 5).
        mtu: default Text<Number<68, 9000>> = Text(Number(1500)),
        /// Lowers the TCP maximum segment size in SYNs that enter or leave here: to the MTU less the headers, or to a
        /// number of bytes. Never raises it.
        mss_clamp: default Text<MssClamp> = Text(MssClamp::Off),
        /// Neighbours that are never resolved and never expire.
        neighbours: default Table<IpAddr, Text<MacAddr>> = Table::default(),
    }
}

section! {
    /// A static route: it has via, or interface alone (what it covers is on the link), or unreachable.
    Route {
        /// Where to.
        to: required Text<IpPrefix>,
        /// The router: on a connected prefix, or link-local with interface.
        via: optional Text<IpAddr>,
        /// Where the router, or the link, is. Default: follows from via.
        interface: optional Text<Name>,
        /// Nowhere: dropped, and answered with ICMP host unreachable.
        unreachable: default Text<bool> = Text(false),
    }
}

section! {
    /// External addresses and ports to allocate from.
    Pool {
        /// The addresses, any shape.
        addresses: required List<Text<RangeInclusive<Ipv4Addr>>>,
        /// The ports and ICMP identifiers that may be given out.
        ports: default Text<RangeInclusive<u16>> = Text(1..=u16::MAX),
        /// Answer ARP for these addresses on an interface whose prefix covers them.
        proxy_arp: default Text<bool> = Text(true),
        /// Answer pings of these addresses that belong to no session.
        answer_echo: default Text<bool> = Text(true),
    }
}

section! {
    /// IPv4 translation.
    Nat44 {
        /// Translation to an address and port of a pool. The first that matches decides, in the order of the file.
        rules: default Table<Name, Rule> = Table::default(),
        /// Ports of an external address that always lead to an inside host.
        forwards: default Table<Name, Forward> = Table::default(),
        /// Whole external addresses that always lead to an inside host, which also leaves by them.
        r#static: default Table<Name, Static> = Table::default(),
    }
}

section! {
    /// Translation to an address and port of a pool.
    Rule {
        /// The inside zone.
        from: required Text<Name>,
        /// The outside zone.
        to: required Text<Name>,
        /// Inside addresses that it covers. Default: any.
        source: default List<Text<IpPrefix>> = List::default(),
        /// Outside addresses that it covers. Default: any.
        destination: default List<Text<IpPrefix>> = List::default(),
        /// The pool to allocate from.
        pool: required Text<Name>,
        /// The defaults of this rule: with cgn, filtering is endpoint-independent (RFC 6888).
        profile: default Text<Profile> = Text(Profile::Default),
        /// What a mapping lets in from outside (RFC 4787 REQ-8): one word, or one for each protocol. Default: by profile.
        filtering: optional FilteringChoice,
        /// An inside host keeps one external address (RFC 4787 REQ-2). When that has no port left, paired refuses the new
        /// session, paired-soft takes another address.
        pooling: default Text<Pooling> = Text(Pooling::Paired),
        /// Keep the inside port where it is free.
        port_preservation: default Text<bool> = Text(true),
        /// An even port becomes an even one (RFC 4787 REQ-4).
        port_parity: default Text<bool> = Text(true),
        /// Packets from outside keep a session alive too (RFC 4787 REQ-6).
        inbound_refresh: default Text<bool> = Text(true),
        /// What becomes of a TCP segment from inside that belongs to no session and opens none, as after a restart:
        /// dropped silently; answered with a RST; or taken for the first of a session.
        mid_stream: default Text<MidStream> = Text(MidStream::default()),
    }
}

section! {
    /// Filtering by protocol.
    FilteringByProtocol {
        /// For TCP (RFC 5382 REQ-3). Default: by profile.
        tcp: optional Text<Filtering>,
        /// For UDP. Default: by profile.
        udp: optional Text<Filtering>,
        /// For ICMP queries. Default: by profile.
        icmp: optional Text<Filtering>,
    }
}

section! {
    /// Ports of an external address that always lead to an inside host.
    Forward {
        /// The outside zone.
        from: required Text<Name>,
        /// The inside zone.
        to: required Text<Name>,
        /// The transport protocol.
        protocol: required Text<ForwardProtocol>,
        /// The external address (of a pool, of an interface or of its own) and its ports. No pool gives these ports out.
        external: required Text<Endpoint>,
        /// The inside host and the port of the first external one; the others follow in order.
        inside: required Text<Endpoint>,
        /// Who may use it.
        filtering: default Text<Filtering> = Text(Filtering::EndpointIndependent),
    }
}

section! {
    /// A whole external address that always leads to an inside host, which also leaves by it.
    Static {
        /// The outside zone.
        from: required Text<Name>,
        /// The inside zone.
        to: required Text<Name>,
        /// The external address: in no pool, and not the gateway's own.
        external: required Text<Ipv4Addr>,
        /// The inside host. It has one external address.
        inside: required Text<Ipv4Addr>,
        /// Who may use it.
        filtering: default Text<Filtering> = Text(Filtering::EndpointIndependent),
    }
}

section! {
    /// Stateless IPv6 prefix translation (RFC 6296).
    Nptv6 {
        /// The inside zone.
        from: required Text<Name>,
        /// The outside zone.
        to: required Text<Name>,
        /// The prefix inside. Up to 48 bits the subnet is adjusted, beyond that the interface identifier.
        inside: required Text<IpPrefix>,
        /// The prefix outside, of any length up to 64. Of the longer inside prefix only the first part has addresses there.
        outside: required Text<IpPrefix>,
        /// Translate interface identifiers of zeros too, which RFC 6296 section 3.7 drops where prefixes are longer than 48 bits.
        allow_zero_iid: default Text<bool> = Text(false),
    }
}

section! {
    /// Stateless IPv6 prefix translation as MAP66 did it: the word behind the prefix is adjusted.
    Map66 {
        /// The inside zone.
        from: required Text<Name>,
        /// The outside zone.
        to: required Text<Name>,
        /// The prefix inside: of 16, 32, 48, 64, 80, 96 or 112 bits.
        inside: required Text<IpPrefix>,
        /// The prefix outside, of the same length.
        outside: required Text<IpPrefix>,
        /// What becomes of the gateway's own addresses within the prefixes: exempt from the translation, or mapped like any other
        /// (MAP66's --nocheck).
        own_addresses: default Text<OwnAddresses> = Text(OwnAddresses::Exempt),
    }
}

section! {
    /// Stateless translation of a prefix that keeps the bits behind it.
    Netmap {
        /// The inside zone.
        from: required Text<Name>,
        /// The outside zone.
        to: required Text<Name>,
        /// The prefix inside, IPv4 or IPv6.
        inside: required Text<IpPrefix>,
        /// The prefix outside, of the same family and length.
        outside: required Text<IpPrefix>,
    }
}

section! {
    /// Stateless translation between IPv4 and IPv6 (RFC 7915).
    Siit {
        /// The zone where IPv4 packets come from, and go to.
        ipv4: required Text<Name>,
        /// The zone where IPv6 packets come from, and go to.
        ipv6: required Text<Name>,
        /// IPv6 prefixes that embed IPv4 addresses (RFC 6052): of 32, 40, 48, 56, 64 or 96 bits. Addresses are embedded in the first.
        prefixes: default List<Text<IpPrefix>> = List::default(),
        /// IPv4 destinations that are embedded in the first prefix. Those that are mapped need not stand here.
        destinations: default List<Text<RangeInclusive<Ipv4Addr>>> = List::default(),
        /// The prefix that they are embedded in, one of prefixes. Default: the first.
        destination_prefix: optional Text<IpPrefix>,
        /// Explicit address mappings (RFC 7757). The longest prefix counts.
        mappings: default List<AddressMapping> = List::default(),
        /// A file with more of them, one to a line: an IPv4 and an IPv6 prefix with a comma between. Relative to this file.
        mappings_file: optional Text<FilePath>,
        /// How mapped hosts reach each other by their IPv4 addresses: intrinsic, simple (RFC 7757 section 4) or none.
        hairpin: default Text<Hairpin> = Text(Hairpin::Intrinsic),
        /// What becomes of IPv4 UDP datagrams without a checksum: it is computed (of fragments it can't be), they are dropped, or
        /// forwarded without one.
        udp_checksum_none: default Text<UdpChecksumNone> = Text(UdpChecksumNone::Compute),
        /// The longest IPv6 packet that leaves whole although it may be cut.
        lowest_ipv6_mtu: default Text<Number<1280, 9000>> = Text(Number(1280)),
        /// The IPv6 traffic class: copied from the IPv4 type of service, or zero.
        traffic_class: default Text<TrafficClass> = Text(TrafficClass::Copy),
        /// The IPv4 type of service. Default: copied from the IPv6 traffic class.
        tos: optional Text<Number<0, 255>>,
        /// MTUs that are assumed where a router does not tell its own (RFC 1191 section 7). Default: the RFC's.
        mtu_plateaus: default List<Text<Number<68, 65_535>>> = List::default(),
        /// IPv4 sources of ICMP errors from IPv6 routers that have no IPv4 address (RFC 6791). Default: the gateway's own.
        error_sources: default List<Text<RangeInclusive<Ipv4Addr>>> = List::default(),
        /// A prefix for the sources of ICMP errors from IPv4 routers, where no prefix embeds and nothing maps them.
        error_prefix: optional Text<IpPrefix>,
        /// Senders of packets that can't be translated are told so (RFC 7915 section 4.4), at the rate of icmp.rate. Of hops, routes
        /// and sizes they always are.
        report_discards: default Text<bool> = Text(true),
    }
}

section! {
    /// An explicit address mapping.
    AddressMapping {
        /// The IPv4 address or prefix.
        ipv4: required Text<Network>,
        /// The IPv6 address or prefix, with at least as many bits behind it.
        ipv6: required Text<Network>,
    }
}

section! {
    /// How long a session may be idle. Each is at most 30 days.
    Timers {
        /// UDP. At least 120s (RFC 4787 REQ-5).
        udp: default Text<Duration> = Text(plan::Timers::default().udp),
        /// Port: time, for UDP to these destination ports. Only 0 to 1023 (RFC 4787 REQ-5a).
        udp_ports: default Table<u16, Text<Duration>> = Table::default(),
        /// TCP before both sides have answered.
        tcp_opening: default Text<Duration> = Text(plan::Timers::default().tcp_opening),
        /// TCP in use. At least 7440s (RFC 5382 REQ-5).
        tcp_established: default Text<Duration> = Text(plan::Timers::default().tcp_established),
        /// TCP after both FINs or a RST. At least 240s (RFC 5382 REQ-5).
        tcp_closing: default Text<Duration> = Text(plan::Timers::default().tcp_closing),
        /// ICMP queries. At least 60s (RFC 5508 REQ-2).
        icmp: default Text<Duration> = Text(plan::Timers::default().icmp),
        /// How long a freed port stays unused, where the filtering was endpoint-independent (RFC 6888 REQ-8).
        hold_down: default Text<Duration> = Text(plan::Timers::default().hold_down),
        /// How long the fragments of a datagram are waited for, from the one that comes first. 2s (RFC 6146 section 4) to 60s.
        fragment: default Text<Duration> = Text(plan::Timers::default().fragment),
    }
}

section! {
    /// The gateway's own ICMP errors.
    Icmp {
        /// ICMP errors per second that the gateway itself may send, over a long time.
        rate: default Text<Errors> = Text(Number(plan::IcmpPolicy::default().rate)),
        /// How many of them at once.
        burst: default Text<Errors> = Text(Number(plan::IcmpPolicy::default().burst)),
        /// Interfaces on which it sends none (RFC 5508 REQ-9).
        silent: default List<Text<Name>> = List::default(),
        /// Where they come from, by one of the gateway's addresses for each family. Default: by that of the interface that the packet
        /// came in by.
        sources: default List<Text<IpAddr>> = List::default(),
    }
}

section! {
    /// Where Prometheus finds the numbers.
    Metrics {
        /// Where /metrics, /healthz and /readyz are served by HTTP.
        listen: default Text<Listen> = Text(Listen(Some(([127, 0, 0, 1], 17_644).into()))),
    }
}

section! {
    /// Where turnpikectl finds the gateway.
    Control {
        /// The Unix socket that turnpikectl speaks to.
        socket: default Text<SocketPath> = Text(SocketPath(Some(DEFAULT_SOCKET.into()))),
        /// The system group whose members may look at things by it. Changes are root's. Default: root alone.
        group: optional Text<Group>,
    }
}

/// What a rule's defaults are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// A closed border.
    Default,
    /// Carrier-grade NAT: endpoint-independent filtering (RFC 6888 REQ-7).
    Cgn,
}

/// What filters packets between zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firewall {
    /// Nothing: what is not translated is routed, both ways.
    None,
}

/// The traffic class of packets from IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrafficClass {
    /// That of the IPv4 packet.
    Copy,
    /// None.
    Zero,
}

/// What becomes of the gateway's own addresses within a translated prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnAddresses {
    /// They stay the gateway's.
    Exempt,
    /// They are translated too.
    Mapped,
}

/// A word out of a few.
macro_rules! words {
    ($type:ty, $wanted:literal, $($word:literal => $value:path),+) => {
        impl FromText for $type {
            fn wanted() -> Cow<'static, str> {
                $wanted.into()
            }

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some($value),)+
                    _ => None,
                }
            }

            fn to_text(&self) -> String {
                match self {
                    $($value => $word.to_owned(),)+
                }
            }

            fn schema() -> Schema {
                json_schema!({"enum": [$($word),+]})
            }
        }
    };
}

words!(
    MidStream, "drop, reset or adopt",
    "drop" => MidStream::Drop, "reset" => MidStream::Reset, "adopt" => MidStream::Adopt
);
words!(Firewall, "none", "none" => Firewall::None);
words!(OwnAddresses, "exempt or mapped", "exempt" => OwnAddresses::Exempt, "mapped" => OwnAddresses::Mapped);
words!(TrafficClass, "copy or zero", "copy" => TrafficClass::Copy, "zero" => TrafficClass::Zero);
words!(
    Hairpin, "intrinsic, simple or none",
    "intrinsic" => Hairpin::Intrinsic, "simple" => Hairpin::Simple, "none" => Hairpin::None
);
words!(
    UdpChecksumNone, "compute, drop or forward",
    "compute" => UdpChecksumNone::Compute, "drop" => UdpChecksumNone::Drop, "forward" => UdpChecksumNone::Forward
);
words!(Poll, "busy or adaptive", "busy" => Poll::Busy, "adaptive" => Poll::Adaptive);
words!(Profile, "default or cgn", "default" => Profile::Default, "cgn" => Profile::Cgn);
words!(Pooling, "paired or paired-soft", "paired" => Pooling::Paired, "paired-soft" => Pooling::PairedSoft);
words!(ForwardProtocol, "tcp or udp", "tcp" => ForwardProtocol::Tcp, "udp" => ForwardProtocol::Udp);
words!(
    Filtering, "endpoint-independent, address-dependent or address-and-port-dependent",
    "endpoint-independent" => Filtering::EndpointIndependent,
    "address-dependent" => Filtering::AddressDependent,
    "address-and-port-dependent" => Filtering::AddressPortDependent
);

/// `filtering:` of a rule: one for all protocols, or one for each that is named.
#[derive(Clone, Debug, Default)]
pub(super) struct FilteringChoice(FilteringByProtocol);

impl FilteringChoice {
    /// With what is not named taken from `default`.
    pub fn or(&self, default: Filtering) -> FilteringSet {
        let pick = |chosen: Option<Text<Filtering>>| chosen.map_or(default, |Text(filtering)| filtering);
        FilteringSet { tcp: pick(self.0.tcp), udp: pick(self.0.udp), icmp: pick(self.0.icmp) }
    }
}

impl Setting for FilteringChoice {
    fn wanted() -> String {
        format!("{}, or one of these for each of tcp, udp and icmp", Filtering::wanted())
    }

    fn decode(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => FilteringByProtocol::decode(node, path, problems).map(FilteringChoice),
            Kind::Scalar(_) => {
                let all = Some(Text::decode(node, path, problems)?);
                Some(FilteringChoice(FilteringByProtocol { tcp: all, udp: all, icmp: all }))
            }
            Kind::Null | Kind::List(_) => {
                Self::refuse(node, path, problems);
                None
            }
        }
    }

    fn encode(&self) -> Value {
        self.0.encode()
    }
}

impl JsonSchema for FilteringChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FilteringChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let by_protocol = generator.subschema_for::<FilteringByProtocol>();
        json_schema!({"anyOf": [Filtering::schema(), by_protocol]})
    }
}
