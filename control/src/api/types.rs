//! What goes over the socket: JSON objects, flat, so that each is a row of a table too. docs/control-socket.md explains the
//! fields; a test holds it against these types.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// An object of a list, with the names of its fields in their order.
pub trait Row: Serialize {
    /// The fields.
    const FIELDS: &'static [&'static str];
}

macro_rules! rows {
    ($($(#[$doc:meta])+ $name:ident { $($(#[$field_doc:meta])+ $field:ident: $type:ty,)+ })+) => {$(
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])+ pub $field: $type,)+ }

        impl Row for $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];
        }
    )+};
}

rows! {
    /// The gateway as a whole.
    Status {
        /// The program's version.
        version: String,
        /// The process.
        pid: u32,
        /// Seconds since it started.
        uptime_seconds: u64,
        /// Whether packets are forwarded.
        ready: bool,
        /// 1 at start; one more with each reload.
        generation: u32,
        /// The configuration's files.
        config: Vec<String>,
        /// Workers.
        workers: usize,
        /// Ports.
        ports: usize,
        /// Ports whose link is up.
        ports_up: usize,
        /// Sessions now.
        sessions: u64,
        /// Sessions that the tables hold.
        session_limit: u64,
        /// Mappings now.
        mappings: u64,
        /// Mappings that the tables hold.
        mapping_limit: u64,
    }

    /// A session. For ICMP queries the inside and external ports are the identifier, and the remote port is 0.
    Session {
        /// `tcp`, `udp` or `icmp`.
        proto: String,
        /// `opening`, `established` or `closing` for TCP, else `active`.
        state: String,
        /// The inside host.
        inside: Ipv4Addr,
        /// Its port.
        inside_port: u16,
        /// The address that it has outside.
        external: Ipv4Addr,
        /// The port that it has outside.
        external_port: u16,
        /// Its peer outside.
        remote: Ipv4Addr,
        /// The peer's port.
        remote_port: u16,
        /// Which side opened it: `inside` or `outside`.
        opened: String,
        /// What made it: `rule`, `forward` or `static`.
        kind: String,
        /// The name of that.
        rule: String,
        /// Seconds that it lasts without a packet.
        expires_seconds: u64,
        /// Its packets from inside; nothing unless `boot.tables.session-counters` is set.
        packets_out: Option<u64>,
        /// Bytes in them, from their IP headers on.
        bytes_out: Option<u64>,
        /// Its packets from outside.
        packets_in: Option<u64>,
        /// Bytes in them.
        bytes_in: Option<u64>,
    }

    /// A mapping.
    Mapping {
        /// `tcp`, `udp` or `icmp`.
        proto: String,
        /// The inside host.
        inside: Ipv4Addr,
        /// Its port, or identifier.
        inside_port: u16,
        /// The address that it has outside.
        external: Ipv4Addr,
        /// The port, or identifier, that it has outside.
        external_port: u16,
        /// Its sessions now.
        sessions: u32,
        /// It has none: its port is held down, not to be used yet.
        held_down: bool,
        /// The rule that made it.
        rule: String,
    }

    /// A pool.
    Pool {
        /// Its name.
        pool: String,
        /// Its addresses.
        addresses: u64,
        /// Ports that may be given out, for each protocol, of all addresses.
        ports: u64,
        /// TCP ports that mappings hold.
        tcp_used: u64,
        /// UDP ports that mappings hold.
        udp_used: u64,
        /// ICMP identifiers that mappings hold.
        icmp_used: u64,
        /// Blocks of 64 ports that can be leased.
        blocks: u64,
        /// Blocks that are leased.
        blocks_used: u64,
        /// Blocks that are free for any flow.
        blocks_free: u64,
    }

    /// An address of a pool.
    PoolAddress {
        /// The pool.
        pool: String,
        /// The address.
        address: Ipv4Addr,
        /// A reload has taken it out of the pool: what is mapped to it goes on, and nothing new is.
        draining: bool,
        /// TCP ports that mappings hold.
        tcp_used: u64,
        /// UDP ports that mappings hold.
        udp_used: u64,
        /// ICMP identifiers that mappings hold.
        icmp_used: u64,
        /// Blocks of 64 ports that can be leased.
        blocks: u64,
        /// Blocks that are leased.
        blocks_used: u64,
        /// Blocks that are free for any flow.
        blocks_free: u64,
    }

    /// An interface.
    Interface {
        /// Its name.
        interface: String,
        /// Its port.
        port: String,
        /// Its 802.1Q tag, if it has one.
        vlan: Option<u16>,
        /// The 802.1ad service tag around that, if there is one.
        outer_vlan: Option<u16>,
        /// Its zone.
        zone: String,
        /// Its Ethernet address.
        mac: String,
        /// The largest IP packet that it sends, in bytes.
        mtu: u16,
        /// Its addresses, with the lengths of their prefixes.
        addresses: Vec<String>,
        /// Whether its port's link is up.
        up: bool,
        /// Frames received.
        received_packets: u64,
        /// Bytes of these, with the Ethernet header, without the FCS.
        received_bytes: u64,
        /// Frames that the device accepted.
        transmitted_packets: u64,
        /// Bytes of these, with the Ethernet header, without the FCS.
        transmitted_bytes: u64,
    }

    /// A neighbour.
    Neighbour {
        /// The interface that it is on.
        interface: String,
        /// Its address.
        address: IpAddr,
        /// Its Ethernet address, where known.
        mac: Option<String>,
        /// As iproute2 names it: `permanent`, `incomplete`, `reachable`, `stale`, `delay`, `probe` or `failed`.
        state: String,
        /// Seconds in that state.
        age_seconds: u64,
    }

    /// A route.
    Route {
        /// Where to.
        to: String,
        /// `connected`, `static` or `unreachable`.
        kind: String,
        /// The router, if it goes by one.
        via: Option<IpAddr>,
        /// The interface, if it has one.
        interface: Option<String>,
        /// It is not used, because its port's link is down.
        withdrawn: bool,
    }

    /// A worker.
    Worker {
        /// Its number.
        worker: usize,
        /// Its core.
        core: u16,
        /// Which part of the last quarter of a second it was busy: 0 to 1.
        busy: f64,
        /// Processor cycles that a packet cost in that time. None without packets.
        cycles_per_packet: Option<u64>,
        /// Processor cycles spent in rounds of its loop.
        poll_cycles: u64,
        /// Those of them in rounds that found packets.
        busy_cycles: u64,
        /// Rounds of its loop.
        polls: u64,
        /// Rounds that found no packet.
        empty_polls: u64,
        /// Packets taken from its ports.
        received: u64,
        /// Packets that its ports accepted.
        transmitted: u64,
        /// Packets dropped.
        dropped: u64,
        /// Shards that it owns.
        shards: usize,
        /// Packets handed over to other workers.
        handed_over: u64,
        /// Packets that other workers handed over to it.
        taken_over: u64,
        /// Its packet buffers.
        buffers: u64,
        /// Those not in use.
        buffers_free: u64,
    }

    /// A shard: one of the 64 parts of the state.
    Shard {
        /// Its number.
        shard: u8,
        /// The worker that owns it.
        worker: u8,
    }

    /// A rule that exchanges prefixes.
    Prefix {
        /// Its section and name in the file.
        rule: String,
        /// The inside zone.
        from: String,
        /// The outside zone.
        to: String,
        /// The prefix inside.
        inside: String,
        /// The prefix outside, as it is now.
        outside: String,
        /// Whether the outside prefix was set at run time, in place of the file's.
        set: bool,
    }

    /// A shard that has moved.
    Moved {
        /// Its number.
        shard: u8,
        /// The worker that owned it.
        from: u8,
        /// The worker that owns it now.
        to: u8,
    }

    /// A reason for drops.
    DropReason {
        /// The function that drops.
        function: String,
        /// The reason.
        reason: String,
        /// Packets dropped.
        packets: u64,
        /// What the reason means.
        meaning: String,
        /// What to do about it.
        advice: String,
    }

    /// How many sessions a filter fits.
    Count {
        /// That many.
        sessions: u64,
    }

    /// How many sessions were ended.
    Flushed {
        /// That many.
        sessions: u64,
    }

    /// What a reload changes, or would change.
    ReloadReport {
        /// The configuration's generation: in use now if there are no changes or they were made, else what it would be.
        generation: u32,
        /// Whether the changes were made.
        applied: bool,
        /// The changes.
        changes: Vec<Change>,
    }

    /// A difference between two configurations.
    Change {
        /// The key.
        key: String,
        /// What becomes of it.
        what: String,
        /// What that does to live flows. Empty: nothing.
        flows: String,
    }

    /// Why a request is not answered.
    Refusal {
        /// What is wrong.
        error: String,
        /// What to do, if that is not plain.
        remedy: Option<String>,
    }
}
