//! What scenarios are made of: entries of the configuration, steps, and packets that [`super`] has no builder for.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use dataplane::counters::Drop;
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, InterfaceId, Nat44Rule, PoolSpec, PortForward, Spec, StaticNat, ZoneId,
};
use etherparse::Ipv4Header;

use super::{End, INSIDE, Lab, OUTSIDE, Read, echo, icmp, read, rule, spec, tcp, udp};

/// A forward of ports of an external address to an inside host, open to everyone.
pub fn forward(protocol: ForwardProtocol, external: &str, ports: RangeInclusive<u16>, inside: End) -> PortForward {
    PortForward {
        name: format!("{external}:{ports:?}"),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        protocol,
        external: external.parse().expect("an address"),
        external_ports: ports,
        inside: inside.0,
        inside_port: inside.1,
        filtering: Filtering::EndpointIndependent,
    }
}

/// A whole external address for an inside host, open to everyone.
pub fn one_to_one(external: &str, inside: &str) -> StaticNat {
    StaticNat {
        name: external.into(),
        inside_zone: ZoneId(0),
        outside_zone: ZoneId(1),
        external: external.parse().expect("an address"),
        inside: inside.parse().expect("an address"),
        filtering: Filtering::EndpointIndependent,
    }
}

/// The rule of the rig with this filtering for all protocols.
pub fn filtering(filtering: Filtering) -> Nat44Rule {
    Nat44Rule { filtering: FilteringSet { tcp: filtering, udp: filtering, icmp: filtering }, ..rule() }
}

/// The frame with another IPv4 header, whose checksum is computed anew.
pub fn with_header(frame: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let (mut header, rest) = Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 packet");
    change(&mut header);
    header.total_len = (header.header_len() + rest.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], &header.to_bytes()[..], rest].concat()
}

/// An ICMP error from `from` about a packet (from its IP header on), of which 28 bytes are quoted, that arrives on
/// `interface` for the packet's source.
pub fn error(interface: InterfaceId, from: Ipv4Addr, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
    let header = Ipv4Header::from_slice(about).expect("an IPv4 packet").0;
    icmp(interface, from, header.source.into(), kind, code, [0; 4], &about[..about.len().min(header.header_len() + 8)])
}

/// The same frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes()[..], &frame[12..]].concat()
}

/// The rig's configuration with another pool.
pub fn with_pool(pool: PoolSpec) -> Spec {
    Spec { pools: vec![pool], ..spec() }
}

/// The rig's configuration with another rule.
pub fn with_rule(rule: Nat44Rule) -> Spec {
    Spec { nat44: vec![rule], ..spec() }
}

impl Lab {
    /// A datagram from inside passes; where it seems to come from.
    #[track_caller]
    pub fn udp_out(&mut self, host: End, server: End) -> End {
        let out = read(&self.pass(INSIDE, &udp(INSIDE, host, server, b"out"), OUTSIDE));
        assert_eq!((out.destination, &out.payload[..]), (server, &b"out"[..]));
        out.source
    }

    /// A SYN from inside passes; where it seems to come from.
    #[track_caller]
    pub fn syn_out(&mut self, host: End, server: End) -> End {
        let out = read(&self.pass(INSIDE, &tcp(INSIDE, host, server, "S", 1000, 0, b""), OUTSIDE));
        assert_eq!(out.destination, server);
        out.source
    }

    /// An echo request from inside passes; where it seems to come from, the identifier being the port.
    #[track_caller]
    pub fn ping_out(&mut self, host: End, server: Ipv4Addr) -> End {
        let out = read(&self.pass(INSIDE, &echo(INSIDE, host.0, server, true, host.1, 1), OUTSIDE));
        assert_eq!((out.destination, out.transport[0]), ((server, 0), 8));
        out.source
    }

    /// A frame is dropped for this reason and its sender told: the ICMP error, which comes back where the frame came from.
    #[track_caller]
    pub fn refused(&mut self, from: InterfaceId, frame: &[u8], reason: Drop) -> Read {
        let before = self.counters.drops(reason);
        let seen = self.send(from, frame);
        assert_eq!(self.counters.drops(reason), before + 1, "dropped as {}: {:?}", reason.name(), self.drops());
        let [(interface, answer)] = &seen.frames[..] else { panic!("one answer: {seen:?}") };
        assert_eq!(*interface, from);
        read(answer)
    }

    /// What becomes of a frame from outside: what an inside host sees of it, if anything leaves at all.
    #[track_caller]
    pub fn arrives(&mut self, frame: &[u8]) -> Option<Read> {
        let mut seen = self.send(OUTSIDE, frame);
        assert!(seen.frames.len() <= 1 && seen.punted.is_empty(), "one in, at most one out: {seen:?}");
        let (interface, frame) = seen.frames.pop()?;
        assert_eq!(interface, INSIDE);
        Some(read(&frame))
    }

    /// Whether a datagram from outside reaches this inside endpoint.
    #[track_caller]
    pub fn udp_in(&mut self, server: End, external: End, host: End) -> bool {
        let seen = self.arrives(&udp(OUTSIDE, server, external, b"in"));
        if let Some(seen) = &seen {
            assert_eq!((seen.source, seen.destination, &seen.payload[..]), (server, host, &b"in"[..]));
        }
        seen.is_some()
    }
}
