//! What a worker counts, and the names of every drop.
//!
//! One [`Counters`] per worker. Each counter has one writer, its worker; everyone may read (relaxed). The law that a test
//! holds after every scenario (design rule 6):
//! `received + from_host + originated = transmitted + punted + dropped + consumed + held`, summed over all workers; for one of
//! several, what it has taken over stands on the left and what it has handed over on the right.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stages::Stages;

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64); // worker: rw, control: ro

impl Counter {
    /// Adds `n`. Only the owning worker calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away from a gauge. Only the owning worker calls this. What a shard brings along when it moves was added by its
    /// old owner: one worker's gauge may so fall below zero, and wrap; only the sum over all workers, which wraps likewise
    /// ([`sum`]), is what there is.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The present value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The sum of counters, or of one gauge over all workers.
#[must_use]
pub fn sum<'a>(counters: impl IntoIterator<Item = &'a Counter>) -> u64 {
    counters.into_iter().fold(0, |sum, counter| sum.wrapping_add(counter.get()))
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident, $function:literal, $name:literal, $advice:literal;)+) => {
        /// Why a packet was dropped. Every dropped packet has exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Drop { $($(#[doc = $doc])+ $variant,)+ }

        impl Drop {
            /// Every reason, in order.
            pub const ALL: &'static [Drop] = &[$(Drop::$variant,)+];

            /// The reason's name in metrics, in the CLI and in the documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Drop::$variant => $name,)+ }
            }

            /// The function that drops: the metric's `function` label.
            #[must_use]
            pub const fn function(self) -> &'static str {
                match self { $(Drop::$variant => $function,)+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn explain(self) -> &'static str {
                match self { $(Drop::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// What an operator should do about it, in a sentence. Where there is nothing to do, it begins with `nothing`.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Drop::$variant => $advice,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than its Ethernet or VLAN header.
    FrameShort, "port", "frame-short",
        "look for a faulty cable, device or sender on the port's segment: no host sends such frames";
    /// The frame is larger than a packet buffer, and so than every interface's MTU: it came in several segments.
    MultiSegment, "port", "multi-segment",
        "raise interfaces.NAME.mtu if such packets are to pass, else lower the neighbours' to it; for net_memif see its bsize";
    /// The frame holds several TCP segments: its sender left them to hardware to cut (TSO), or hardware has merged them (LRO).
    Unsegmented, "port", "unsegmented",
        "switch it off where it comes from: TSO at the sender (`ethtool -K IF tso off gso off`), LRO and GRO at the device";
    /// The VLAN tags, or the absence of any, belong to no interface of this port.
    UnknownVlan, "port", "unknown-vlan",
        "add an interface with these tags to the port, or take the VLAN off the switch's trunk";
    /// The frame is addressed to another station's Ethernet address.
    OtherStation, "port", "other-station",
        "nothing: a switch floods what it has not learnt; if it goes on, look for a mirror port or a wrong static neighbour";
    /// A protocol between neighbours on the link: LLDP, slow protocols (LACP), MAC control (pause), 802.1X.
    LinkControl, "port", "link-control",
        "nothing: it is meant for the neighbour on the cable, and ends here";
    /// An IEEE 802.3 frame, with a length in place of the EtherType: spanning tree, CDP, IS-IS.
    LengthFrame, "port", "length-frame",
        "nothing: switches and routers speak such protocols among themselves";
    /// A labelled packet: MPLS is not read.
    Mpls, "port", "mpls",
        "let the neighbour send plain IP: take this link out of its MPLS";
    /// A PPPoE frame: no PPP session ends here.
    Pppoe, "port", "pppoe",
        "let another device end the PPPoE session, and connect the gateway behind it";
    /// The EtherType is neither IP nor ARP, nor one of those that have a name of their own here.
    NotIp, "port", "not-ip",
        "nothing, if it is rare; otherwise capture on the port and look for the sender";
    /// The device did not accept the packet for transmission.
    TransmitFull, "port", "transmit-full",
        "see whether the link is up and how full it is; raise ports.NAME.tx-descriptors if bursts are short";
    /// The ring to the worker that owns the packet's flow was full.
    HandOverFull, "worker", "hand-over-full",
        "see with `turnpikectl worker show` which worker is busy: give it fewer shards, or the gateway more workers";
    /// Workers handed the packet to and fro without agreeing on its owner.
    HandOverAstray, "worker", "hand-over-astray",
        "nothing: it lasts a moment after a reload";
    /// The IP header is shorter than the minimum, longer than the packet, or of the wrong version (RFC 1812 §5.2.2).
    IpHeader, "ip", "ip-header",
        "capture on the interface and look for the sender: no host sends such packets";
    /// The IPv4 header checksum is wrong (RFC 1812 §5.2.2).
    IpChecksum, "ip", "ip-checksum",
        "look for a faulty device on the way: something damages packets, or forwards them without care";
    /// The IP length field exceeds what arrived (RFC 1812 §5.2.2).
    IpLength, "ip", "ip-length",
        "look for what cuts packets off; over an interface of the kernel, `ethtool -K IF tso off gso off gro off` at both ends";
    /// The packet ends inside its transport header.
    TransportShort, "ip", "transport-short",
        "capture on the interface and look for the sender: such packets are crafted, or cut off";
    /// The source address can't be a sender: unspecified, loopback, multicast or broadcast (RFC 1812 §5.3.7).
    BadSource, "ip", "bad-source",
        "find the sender by its Ethernet address: it is misconfigured, or spoofs";
    /// The destination is loopback, unspecified or otherwise not to be forwarded (RFC 1812 §5.3.7).
    BadDestination, "ip", "bad-destination",
        "find the sender by its Ethernet address: it is misconfigured, or scans";
    /// To a multicast group: multicast is not forwarded, and this is no group of the gateway's own.
    Multicast, "ip", "multicast",
        "nothing: the gateway is no multicast router";
    /// To all hosts of a link or subnet by IPv4: broadcasts are not forwarded (RFC 1812 §5.3.5, RFC 2644).
    Broadcast, "ip", "broadcast",
        "nothing: hosts broadcast on their own link; a directed broadcast from elsewhere is an old way of attack";
    /// An IP packet for one host in a frame for many: not forwarded (RFC 1812 §5.3.4).
    LinkBroadcast, "ip", "link-broadcast",
        "find the sender by its Ethernet address: it sends frames to everyone that are for one host";
    /// A link-local address does not leave its link (RFC 3927 §7, RFC 4291 §2.5.6).
    LinkLocal, "ip", "link-local",
        "nothing: such addresses are for one link; if something is missed, give its host a routable address";
    /// The time to live or hop limit has run out; answered with time exceeded.
    TtlExceeded, "ip", "ttl-exceeded",
        "nothing, if it is traceroute; if it goes on, look for a routing loop with the router beyond";
    /// No route leads to the destination; answered with destination unreachable.
    NoRoute, "route", "no-route",
        "add a route, or a default route, if the destination should be reached; see `turnpikectl route list`";
    /// Larger than the next link takes and not to be fragmented; answered with the link's MTU.
    TooBig, "route", "too-big",
        "nothing: the sender learns the MTU from the answer; if connections hang, something between drops ICMP: set mss-clamp";
    /// Larger than the next link takes, and it would have to be cut into more than 32 fragments.
    FragmentationNeeded, "route", "fragmentation-needed",
        "raise the interface's mtu, or let the hosts use path MTU discovery";
    /// The neighbour did not answer; answered with host or address unreachable.
    NeighbourFailed, "route", "neighbour-failed",
        "see whether the neighbour is up and in the right VLAN; `turnpikectl neighbour list` says which failed";
    /// Too many packets wait for this neighbour's resolution, or for resolutions in all.
    NeighbourQueueFull, "route", "neighbour-queue-full",
        "nothing, if a scan or a burst is on; if it goes on, look for neighbours that do not answer";
    /// The neighbour table is full.
    NeighbourTableFull, "route", "neighbour-table-full",
        "raise boot.tables.neighbours, or find who scans a large subnet: `turnpikectl neighbour list`";
    /// To an external address, or from outside to an inside network, and no mapping or forward leads in.
    Unsolicited, "nat44", "unsolicited",
        "nothing: this is what the gateway keeps out; if it should come in, add a forward or a static entry";
    /// Another session already has the same inside addresses and ports: its peer uses two external addresses of one host, or
    /// the sender is in another zone than the host that it says it is.
    FlowConflict, "nat44", "flow-conflict",
        "see whether a host claims an address of another zone; otherwise nothing: the other session goes on";
    /// A mapping exists, but its filtering does not admit this sender.
    Filtered, "nat44", "filtered",
        "nothing, unless an application needs it: then set the rule's filtering to endpoint-independent";
    /// The session table is full; existing sessions are not evicted.
    SessionTableFull, "nat44", "session-table-full",
        "raise boot.tables.sessions, or see with `turnpikectl session list` whether one host has them all";
    /// The mapping table is full; existing mappings are not evicted.
    MappingTableFull, "nat44", "mapping-table-full",
        "raise boot.tables.mappings, or see with `turnpikectl mapping list` whether one host has them all";
    /// A reload has left the mapping of this inside endpoint without its address or port; it is being ended, and the next
    /// packets get a new one.
    MappingEnds, "nat44", "mapping-ends",
        "nothing: it lasts a moment after a reload";
    /// No external port is left for this subscriber; answered with host unreachable (RFC 6888 REQ-11).
    NoPort, "nat44", "no-port",
        "add addresses to the pool, or see with `turnpikectl mapping list` whether one host has all ports";
    /// A TCP segment that belongs to no session, and does not open one: it is not a SYN alone.
    TcpNotSyn, "nat44", "tcp-not-syn",
        "nothing: connections of before a restart or a time-out; to keep them, set the rule's mid-stream to adopt";
    /// A fragment of an ICMP error: errors are translated whole only, for their checksum covers what they quote.
    Fragment, "nat44", "fragment",
        "nothing, if rare: no host cuts up an error, which has at most 576 bytes";
    /// A first fragment that does not hold its whole transport header (RFC 1858 §3).
    FragmentTiny, "ip", "fragment-tiny",
        "find the sender: no host cuts so small; it is an old way to get around filters";
    /// A later fragment that would write over the transport header (RFC 1858 §4, RFC 3128).
    FragmentOverwrite, "nat44", "fragment-overwrite",
        "find the sender: no host sends it; it is an old way to get around filters";
    /// A fragment that overlaps another one of its datagram, repeats it or lies beyond its end, or is of a datagram of which
    /// one did (RFC 5722).
    FragmentOverlap, "nat44", "fragment-overlap",
        "nothing, if rare: a network may double packets; otherwise find the sender, which attacks what puts fragments together";
    /// A fragment that no sender would cut: empty, broken off within 8 bytes, or beyond the largest datagram (RFC 791 §3.2).
    FragmentLength, "nat44", "fragment-length",
        "find the sender: such fragments are crafted";
    /// The first fragment of its datagram, which has the ports, has not come in time.
    FragmentTimeout, "nat44", "fragment-timeout",
        "nothing, if rare: a fragment was lost on the way; otherwise look for losses, or raise timers.fragment";
    /// Too many fragments wait for the first of their datagrams; the oldest are given up.
    FragmentQueueFull, "nat44", "fragment-queue-full",
        "nothing, if a flood is on: others are not affected; otherwise raise boot.tables.fragments";
    /// Only TCP, UDP and ICMP are port-translated.
    Protocol, "nat44", "protocol",
        "give the host a whole address (nat44.static) if it needs that protocol; not all are carried yet";
    /// From inside to an external address, by a sender that no rule translates there.
    Hairpin, "nat44", "hairpin",
        "let a rule or static entry cover the sender, or let it use the inside address; if its address is foreign, it spoofs";
    /// An ICMP type that is neither a query nor an error, or an error that hosts ignore: redirect, source quench
    /// (RFC 5508 REQ-11, RFC 6633).
    IcmpType, "nat44", "icmp-type",
        "nothing: such messages are obsolete, or only for the link that they are on";
    /// An ICMP error whose checksum is wrong (RFC 5508 REQ-3).
    IcmpErrorChecksum, "nat44", "icmp-error-checksum",
        "nothing, if rare; otherwise look for a device on the way that damages packets";
    /// An ICMP error whose quoted IPv4 header is unreadable or has a wrong checksum (RFC 5508 REQ-3 a).
    IcmpErrorQuote, "nat44", "icmp-error-quote",
        "nothing: broken or forged errors";
    /// An ICMP error that quotes a protocol without mappings, another error, or a fragment without its header.
    IcmpErrorProtocol, "nat44", "icmp-error-protocol",
        "nothing: no translated flow can have caused it";
    /// An ICMP error about a flow that has no session or mapping (RFC 5508 REQ-4).
    IcmpErrorNoSession, "nat44", "icmp-error-no-session",
        "nothing: late or forged errors";
    /// A rule exchanges the prefix, but this address has no counterpart: a subnet or identifier of all ones, or one that the
    /// shorter of two prefixes leaves out (RFC 6296 §3.7, §4.2); answered with destination unreachable.
    PrefixUnmapped, "prefix", "prefix-unmapped",
        "number the host's subnet otherwise; subnet ffff, and identifiers of all ones, can't be translated";
    /// To an outside prefix that a rule had before a reload or `turnpikectl prefix set`; answered with destination unreachable.
    PrefixFormer, "prefix", "prefix-former",
        "nothing: peers use the old addresses until they notice; look at DNS if it goes on";
    /// An interface identifier of zeros, where identifiers are adjusted (RFC 6296 §3.7); answered with parameter problem.
    PrefixZeroIdentifier, "prefix", "prefix-zero-identifier",
        "give the host another address, or write `allow-zero-iid: true` in the rule";
    /// Its source has no address in the other family: it is neither mapped nor embedded (RFC 7757 §3.3); answered with prohibited.
    Uncrossed, "siit", "uncrossed",
        "add a mapping for the sender, or a prefix that its address is in";
    /// The well-known prefix 64:ff9b::/96 before an IPv4 address that is not global (RFC 6052 §3.1).
    NotGlobal, "siit", "not-global",
        "use a prefix of your own, or 64:ff9b:1::/48, for private addresses";
    /// An IPv4 packet whose sender chose its way (a source route that has not ended): not translated (RFC 7915 §4.1).
    SourceRoute, "siit", "source-route",
        "find the sender: no host uses source routes any more; they are an old way to get around filters";
    /// An IPv6 packet with a routing header that has not ended: not translated (RFC 7915 §5.1).
    RoutingHeader, "siit", "routing-header",
        "let the sender address the packet itself: IPv4 has no such header";
    /// An IPv6 packet with more extension headers than are looked behind.
    ExtensionHeaders, "siit", "extension-headers",
        "find the sender: no host sends so many";
    /// A fragment with extension headers behind its fragment header, which IPv4 could not tell from data (RFC 7915 §5.1.1).
    FragmentExtension, "siit", "fragment-extension",
        "let the sender send smaller packets, or without such headers";
    /// A fragment of an ICMP message, whose checksum needs the length of the whole message: not translated (RFC 7915 §1.2).
    FragmentIcmp, "siit", "fragment-icmp",
        "nothing: send smaller pings";
    /// An ICMP message, its code, or the field that it points to is unknown in the other family (RFC 7915 §4.2, §5.2).
    IcmpUntranslatable, "siit", "icmp-untranslatable",
        "nothing: such messages are for one link or one family only";
    /// An ICMP error whose quoted packet can't be read.
    QuoteUnreadable, "siit", "quote-unreadable",
        "nothing, if rare: broken or forged errors";
    /// An ICMP error that quotes another error, or a message that no translated packet can have been (RFC 7915 §4.3, §5.3).
    QuoteUntranslatable, "siit", "quote-untranslatable",
        "nothing: no host answers an error with an error";
    /// An ICMP error that quotes an address without an equivalent in the other family.
    QuoteAddress, "siit", "quote-address",
        "nothing, if rare: no translated packet can have had that address; otherwise see whether a mapping is missing";
    /// A UDP datagram without a checksum, which IPv6 wants, from a sender that must send one or of which not all is here (RFC 7915 §4.5).
    UdpChecksumNone, "siit", "udp-checksum-none",
        "let the sender compute checksums, or have the gateway do so (fragments excepted): its capture on the port says who it is";
    /// The packet would be longer in the other family than its buffer, or an IP packet, can be.
    NoRoom, "siit", "no-room",
        "report it: buffers are made with room for that";
    /// The queue to the control thread is full.
    PuntQueueFull, "host", "punt-queue-full",
        "find who floods the gateway itself with ARP, neighbour discovery or pings; forwarded packets are not affected";
    /// The control thread gave a packet that is not a valid frame or IP packet, too large for a buffer, or for an interface
    /// that is gone.
    HostPacket, "host", "host-packet",
        "report it: the gateway has made a packet that it can't send";
    /// The packet pool is empty, so a packet of the host could not be sent, or one that is too large not be cut up.
    PoolEmpty, "host", "pool-empty",
        "raise boot.packets";
}

/// Number of drop reasons.
pub const DROPS: usize = Drop::ALL.len();

/// The stateless translators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Translator {
    /// NPTv6.
    Nptv6,
    /// MAP66.
    Map66,
    /// NETMAP.
    Netmap,
}

impl Translator {
    /// Every one, in order.
    pub const ALL: [Translator; 3] = [Translator::Nptv6, Translator::Map66, Translator::Netmap];

    /// The metric's `translator` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Translator::Nptv6 => "nptv6",
            Translator::Map66 => "map66",
            Translator::Netmap => "netmap",
        }
    }
}

/// Why a mapping could not be made (RFC 7659's causes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MappingFailure {
    /// No port left.
    Ports,
    /// Table full.
    Memory,
}

impl MappingFailure {
    /// Every cause, in order.
    pub const ALL: [MappingFailure; 2] = [MappingFailure::Ports, MappingFailure::Memory];

    /// The metric's `cause` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MappingFailure::Ports => "ports",
            MappingFailure::Memory => "memory",
        }
    }
}

/// What a session is counted under while it lives: protocol and state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionClass {
    /// TCP before both sides have answered.
    #[default]
    TcpOpening,
    /// TCP established.
    TcpEstablished,
    /// TCP after a FIN or a RST.
    TcpClosing,
    /// UDP.
    Udp,
    /// ICMP query.
    Icmp,
}

impl SessionClass {
    /// Every class, in order.
    pub const ALL: [SessionClass; 5] = [
        SessionClass::TcpOpening,
        SessionClass::TcpEstablished,
        SessionClass::TcpClosing,
        SessionClass::Udp,
        SessionClass::Icmp,
    ];

    /// The metric's `proto` and `state` labels.
    #[must_use]
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            SessionClass::TcpOpening => ("tcp", "opening"),
            SessionClass::TcpEstablished => ("tcp", "established"),
            SessionClass::TcpClosing => ("tcp", "closing"),
            SessionClass::Udp => ("udp", "active"),
            SessionClass::Icmp => ("icmp", "active"),
        }
    }
}

/// The ICMP errors that the gateway originates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IcmpError {
    /// IPv4 3/0: no route.
    NetUnreachable4,
    /// IPv4 3/1: neighbour failed, or no port left (D2).
    HostUnreachable4,
    /// IPv4 3/4.
    FragmentationNeeded4,
    /// IPv4 3/5: a source route that can't be followed.
    SourceRouteFailed4,
    /// IPv4 3/13: can't be translated (RFC 7915 §4.4).
    Prohibited4,
    /// IPv4 11/0.
    TimeExceeded4,
    /// IPv6 1/0: no route.
    NoRoute6,
    /// IPv6 1/1: can't be translated (RFC 7915 §5.4).
    Prohibited6,
    /// IPv6 1/3: neighbour failed.
    AddressUnreachable6,
    /// IPv6 2/0.
    PacketTooBig6,
    /// IPv6 3/0.
    TimeExceeded6,
    /// IPv6 1/5: the source address can't be translated.
    SourcePolicy6,
    /// IPv6 4/0: a header field can't be followed.
    ParameterProblem6,
}

impl IcmpError {
    /// Every error, in order.
    pub const ALL: [IcmpError; 13] = [
        IcmpError::NetUnreachable4,
        IcmpError::HostUnreachable4,
        IcmpError::FragmentationNeeded4,
        IcmpError::SourceRouteFailed4,
        IcmpError::Prohibited4,
        IcmpError::TimeExceeded4,
        IcmpError::NoRoute6,
        IcmpError::Prohibited6,
        IcmpError::AddressUnreachable6,
        IcmpError::PacketTooBig6,
        IcmpError::TimeExceeded6,
        IcmpError::SourcePolicy6,
        IcmpError::ParameterProblem6,
    ];

    /// Address family (4 or 6), type and code.
    #[must_use]
    pub const fn type_code(self) -> (u8, u8, u8) {
        match self {
            IcmpError::NetUnreachable4 => (4, 3, 0),
            IcmpError::HostUnreachable4 => (4, 3, 1),
            IcmpError::FragmentationNeeded4 => (4, 3, 4),
            IcmpError::SourceRouteFailed4 => (4, 3, 5),
            IcmpError::Prohibited4 => (4, 3, 13),
            IcmpError::TimeExceeded4 => (4, 11, 0),
            IcmpError::NoRoute6 => (6, 1, 0),
            IcmpError::Prohibited6 => (6, 1, 1),
            IcmpError::AddressUnreachable6 => (6, 1, 3),
            IcmpError::PacketTooBig6 => (6, 2, 0),
            IcmpError::TimeExceeded6 => (6, 3, 0),
            IcmpError::SourcePolicy6 => (6, 1, 5),
            IcmpError::ParameterProblem6 => (6, 4, 0),
        }
    }
}

/// Traffic of one interface, on cache lines of its own: those of two workers may lie side by side.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct InterfaceCounters {
    /// Frames received.
    pub received_packets: Counter,
    /// Bytes received, Ethernet header included, FCS not.
    pub received_bytes: Counter,
    /// Frames that the device accepted.
    pub transmitted_packets: Counter,
    /// Bytes of these, Ethernet header included, FCS not.
    pub transmitted_bytes: Counter,
    /// Packets whose transport checksum was looked at: a sample of those received.
    pub checksum_samples: Counter,
    /// Those of them whose transport checksum was wrong.
    pub checksum_bad: Counter,
}

/// Everything that one worker counts. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// Packets taken from devices.
    pub received: Counter,
    /// Packets taken from the control thread.
    pub from_host: Counter,
    /// Packets that the engine made: ICMP errors, TCP resets, and of a packet that it cut up all fragments but one.
    pub originated: Counter,
    /// Packets that a device accepted.
    pub transmitted: Counter,
    /// Packets given to the control thread.
    pub punted: Counter,
    /// Packets that went into another (reassembly).
    pub consumed: Counter,
    /// Packets held now, for a neighbour or for the first fragment of their datagram. Gauge.
    pub held: Counter,
    /// Those of them that are fragments and wait for the first one of their datagram. Gauge.
    pub fragments_held: Counter,
    /// Fragments that were given the ports of their datagram's first one, or had them.
    pub fragments: Counter,
    /// Packets cut up because the next link does not take them whole.
    pub cut: Counter,
    /// The fragments that became of them.
    pub pieces: Counter,
    /// Packets from inside that were turned round to another inside host, by its external address.
    pub hairpins: Counter,
    /// Packets handed over to each worker, by its number; for its flows, or to be sent by it.
    pub handed_over: Box<[Counter]>,
    /// Packets not handed over to each worker because the ring to it was full.
    pub hand_over_drops: Box<[Counter]>,
    /// Packets that other workers have handed over to this one.
    pub taken_over: Counter,
    /// Packets dropped, by [`Drop`].
    pub dropped: [Counter; DROPS],
    /// Packets translated by NAT44, from inside and from outside.
    pub nat44: [Counter; 2],
    /// Packets whose prefixes were exchanged, by [`Translator`], from inside and from outside; both, if they were turned round.
    pub exchanged: [[Counter; 2]; Translator::ALL.len()],
    /// Packets that have crossed to IPv6, and to IPv4; both, if they were turned round.
    pub crossed: [Counter; 2],
    /// Packets routed untranslated, IPv4 and IPv6.
    pub routed: [Counter; 2],
    /// Sessions now, by [`SessionClass`]. Gauges.
    pub sessions: [Counter; SessionClass::ALL.len()],
    /// Sessions made.
    pub session_creations: Counter,
    /// Sessions of these that were opened in the middle of a TCP connection.
    pub session_adoptions: Counter,
    /// Sessions ended by their timer.
    pub session_timeouts: Counter,
    /// Sessions whose addresses and ports a new TCP connection took over (D11).
    pub session_replacements: Counter,
    /// Sessions ended by the operator.
    pub session_flushes: Counter,
    /// Sessions ended because a new configuration does not allow them.
    pub session_reload_ends: Counter,
    /// Mappings now: TCP, UDP, ICMP. Gauges.
    pub mappings: [Counter; 3],
    /// Mappings that are held down now, their ports not to be reused yet. Gauge.
    pub mappings_held: Counter,
    /// Mappings made.
    pub mapping_creations: Counter,
    /// Mappings refused, by [`MappingFailure`].
    pub mapping_failures: [Counter; MappingFailure::ALL.len()],
    /// ICMP errors sent, by [`IcmpError`].
    pub icmp_errors: [Counter; IcmpError::ALL.len()],
    /// ICMP errors not sent because of the rate limit.
    pub icmp_rate_limited: Counter,
    /// TCP resets sent about segments in mid-stream.
    pub tcp_resets: Counter,
    /// TCP resets not sent because of the rate limit.
    pub tcp_resets_rate_limited: Counter,
    /// ICMP errors and TCP resets not sent because the packet pool was empty.
    pub originate_failures: Counter,
    /// Polls of the worker.
    pub polls: Counter,
    /// Polls that found no packet.
    pub empty_polls: Counter,
    /// Processor cycles spent in polls (of the counter that ticks evenly: x86's TSC).
    pub poll_cycles: Counter,
    /// Those of them spent in polls that found packets.
    pub busy_cycles: Counter,
    /// How many such cycles a second has; zero until the worker runs. Gauge.
    pub cycles_per_second: Counter,
    /// Where its cycles go, by stage of a packet's way, in builds that count them.
    pub stages: Stages,
    /// By interface.
    pub interfaces: Box<[InterfaceCounters]>,
}

impl Counters {
    /// All zero, for this many interfaces and a worker that is alone.
    #[must_use]
    pub fn new(interfaces: usize) -> Self {
        Counters::among(1, interfaces)
    }

    /// All zero, for one of so many workers, and this many interfaces.
    #[must_use]
    pub fn among(workers: usize, interfaces: usize) -> Self {
        let by_worker = || (0..workers).map(|_| Counter::default()).collect();
        Counters {
            handed_over: by_worker(),
            hand_over_drops: by_worker(),
            taken_over: Counter::default(),
            received: Counter::default(),
            from_host: Counter::default(),
            originated: Counter::default(),
            transmitted: Counter::default(),
            punted: Counter::default(),
            consumed: Counter::default(),
            held: Counter::default(),
            fragments_held: Counter::default(),
            fragments: Counter::default(),
            cut: Counter::default(),
            pieces: Counter::default(),
            hairpins: Counter::default(),
            dropped: std::array::from_fn(|_| Counter::default()),
            nat44: Default::default(),
            exchanged: Default::default(),
            crossed: Default::default(),
            routed: Default::default(),
            sessions: Default::default(),
            session_creations: Counter::default(),
            session_adoptions: Counter::default(),
            session_timeouts: Counter::default(),
            session_replacements: Counter::default(),
            session_flushes: Counter::default(),
            session_reload_ends: Counter::default(),
            mappings: Default::default(),
            mappings_held: Counter::default(),
            mapping_creations: Counter::default(),
            mapping_failures: Default::default(),
            icmp_errors: Default::default(),
            icmp_rate_limited: Counter::default(),
            tcp_resets: Counter::default(),
            tcp_resets_rate_limited: Counter::default(),
            originate_failures: Counter::default(),
            polls: Counter::default(),
            empty_polls: Counter::default(),
            poll_cycles: Counter::default(),
            busy_cycles: Counter::default(),
            cycles_per_second: Counter::default(),
            stages: Stages::default(),
            interfaces: (0..interfaces).map(|_| InterfaceCounters::default()).collect(),
        }
    }

    /// Nanoseconds spent in polls that found packets.
    #[must_use]
    pub fn busy_nanos(&self) -> u64 {
        let nanos = u128::from(self.busy_cycles.get()) * 1_000_000_000;
        nanos.checked_div(self.cycles_per_second.get().into()).map_or(0, |nanos| nanos.try_into().unwrap_or(u64::MAX))
    }

    /// Drops for one reason.
    #[must_use]
    pub fn drops(&self, reason: Drop) -> u64 {
        self.dropped[reason as usize].get()
    }

    /// What is missing from the law of conservation, as it holds for one worker: zero, always, between polls. What it has
    /// taken over came in, and what it has handed over went out; summed over all workers the two differ by what is in the
    /// rings.
    #[must_use]
    pub fn imbalance(&self) -> i128 {
        let sum = |counters: &[&Counter]| counters.iter().map(|c| i128::from(c.get())).sum::<i128>();
        let all = |counters: &[Counter]| counters.iter().map(|c| i128::from(c.get())).sum::<i128>();
        sum(&[&self.received, &self.from_host, &self.originated, &self.taken_over])
            - sum(&[&self.transmitted, &self.punted, &self.consumed, &self.held])
            - all(&self.dropped)
            - all(&self.handed_over)
    }
}
