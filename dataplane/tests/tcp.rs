//! TCP through NAT44: requirements §2, and the state machine of §5 as far as it is NAT44's (decisions D1 and D11).
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod common;

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use common::moves::{Moves, moves};
use common::scene::{error, filtering, forward, one_to_one, with_header, with_rule};
use common::{
    End, INSIDE, Lab, MACS, OUTSIDE, PEER, Read, end, fragments, read, read6, rule, spec, tcp, tcp_with, udp,
};
use dataplane::counters::Drop;
use dataplane::message::NeighbourState;
use dataplane::packet::PacketPool;
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, IcmpPolicy, InterfaceId, MidStream, MssClamp, Nat44Rule, Spec, Timers,
};
use dataplane::session::tcp::{State, adopts};
use etherparse::PacketBuilder;

const H: &str = "192.168.1.10:4000";
const S: &str = "198.18.0.1:1000";
const S2: &str = "198.18.0.2:1000";

/// Who sends a segment: the side that opened the connection, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}
use Side::{Client, Server};

/// A connection through the gateway, with both ends' sequence numbers.
struct Connection {
    host: End,
    external: End,
    server: End,
    /// Whether the client is inside.
    outbound: bool,
    /// What each side sends next: client, server.
    next: [u32; 2],
    /// What goes into the SYNs.
    options: [Vec<u8>; 2],
}

impl Connection {
    /// None yet, of an inside client.
    fn outbound() -> Connection {
        let external = end("203.0.113.5:4000");
        let options = [Vec::new(), Vec::new()];
        Connection { host: end(H), external, server: end(S), outbound: true, next: [1000, 0xffff_fff0], options }
    }

    /// None yet, of an outside client, by the forward of [`forwarding`].
    fn inbound() -> Connection {
        let (host, external) = (end("192.168.1.20:80"), end("203.0.113.5:8080"));
        Connection { host, external, outbound: false, ..Connection::outbound() }
    }

    /// Whether this side is inside.
    fn is_inside(&self, side: Side) -> bool {
        (side == Client) == self.outbound
    }

    /// The frame of this side's next segment, `skip` bytes further on in its sequence space.
    fn frame(&self, side: Side, flags: &str, skip: u32, payload: &[u8]) -> Vec<u8> {
        let options = if flags.contains('S') { &self.options[side as usize][..] } else { &[] };
        let (own, peer) = (self.next[side as usize].wrapping_add(skip), self.next[1 - side as usize]);
        if self.is_inside(side) {
            tcp_with(INSIDE, self.host, self.server, flags, own, peer, payload, options)
        } else {
            tcp_with(OUTSIDE, self.server, self.external, flags, own, peer, payload, options)
        }
    }

    /// A segment passes, translated right, with everything else as it was.
    #[track_caller]
    fn pass(&mut self, lab: &mut Lab, side: Side, flags: &str, payload: &[u8]) -> Read {
        let frame = self.frame(side, flags, 0, payload);
        let own = &mut self.next[side as usize];
        *own = own.wrapping_add(payload.len() as u32);
        *own = own.wrapping_add(flags.chars().filter(|flag| "SF".contains(*flag)).count() as u32);
        self.crosses(lab, side, &frame)
    }

    /// A frame of this side crosses the gateway.
    #[track_caller]
    fn crosses(&self, lab: &mut Lab, side: Side, frame: &[u8]) -> Read {
        let (from, to) = if self.is_inside(side) { (INSIDE, OUTSIDE) } else { (OUTSIDE, INSIDE) };
        let seen = read(&lab.pass(from, frame, to));
        let ends = if self.is_inside(side) { (self.external, self.server) } else { (self.server, self.host) };
        assert_eq!((seen.source, seen.destination), ends);
        // All but ports and checksum.
        assert_eq!(seen.transport[4..16], frame[34 + 4..34 + 16]);
        assert_eq!(seen.transport[18..], frame[34 + 18..]);
        seen
    }

    /// The three-way handshake.
    #[track_caller]
    fn open(&mut self, lab: &mut Lab) {
        self.pass(lab, Client, "S", b"");
        self.pass(lab, Server, "SA", b"");
        self.pass(lab, Client, "A", b"");
    }
}

/// With a forward for [`Connection::inbound`].
fn forwarding(spec: Spec) -> Spec {
    let forward = forward(ForwardProtocol::Tcp, "203.0.113.5", 8080..=8080, end("192.168.1.20:80"));
    Spec { forwards: vec![forward], ..spec }
}

/// The state of the gateway's one session, which the gauges agree with.
#[track_caller]
fn state(lab: &Lab) -> State {
    let states: Vec<State> =
        lab.worker.engine().shards().iter().flat_map(|s| s.sessions()).map(|s| s.tcp.state()).collect();
    let [state] = states[..] else { panic!("one session: {states:?}") };
    let class = match state {
        State::Init | State::Adopted | State::AdoptedFin => 0,
        State::Established => 1,
        _ => 2,
    };
    let gauges: Vec<u64> = lab.counters.sessions.iter().map(dataplane::counters::Counter::get).collect();
    assert_eq!(gauges.iter().position(|&gauge| gauge == 1), Some(class), "{state:?} and {gauges:?}");
    state
}

/// Expects the gateway's only session to end `secs` from now, a second more or less.
#[track_caller]
fn ends_in(lab: &mut Lab, secs: u64) {
    lab.wait_secs(secs - 1);
    assert_eq!(lab.sessions(), 1, "it lives a second before");
    lab.wait_secs(2);
    assert_eq!(lab.sessions(), 0, "it is gone a second after");
}

// --- Mapping and filtering --------------------------------------------------------------------------------------------

/// TCP-01: one inside endpoint keeps one external endpoint for every server.
#[test]
fn tcp_01_mapping_is_endpoint_independent() {
    let mut lab = Lab::default_lab();
    let seen: HashSet<End> = [S, "198.18.0.1:1001", S2].map(|server| lab.syn_out(end(H), end(server))).into();
    assert_eq!(seen, HashSet::from([end("203.0.113.5:4000")]));
    lab.moved(moves().outbound(3).opened("tcp-opening", 3, 1));
}

/// Which outsiders' SYNs reach an endpoint that has sent to S alone: another port of S, and S2.
fn admitted(set: FilteringSet) -> [bool; 2] {
    let mut lab = Lab::new(with_rule(Nat44Rule { filtering: set, ..rule() }));
    let external = lab.syn_out(end(H), end(S));
    ["198.18.0.1:1001", S2].map(|from| lab.arrives(&tcp(OUTSIDE, end(from), external, "S", 1, 0, b"")).is_some())
}

/// TCP-04: the three filterings of TCP, whatever that of UDP is.
#[test]
fn tcp_04_filtering() {
    use Filtering::{AddressDependent, AddressPortDependent, EndpointIndependent};
    for udp in [EndpointIndependent, AddressDependent, AddressPortDependent] {
        let with = |tcp| admitted(FilteringSet { tcp, udp, icmp: udp });
        assert_eq!(with(EndpointIndependent), [true, true]);
        assert_eq!(with(AddressDependent), [true, false]);
        assert_eq!(with(AddressPortDependent), [false, false]);
    }
}

/// TCP-04, N44-18: endpoint-independent for UDP, address-and-port-dependent for TCP, in one gateway.
#[test]
fn tcp_04_filtering_is_chosen_apart_from_udp() {
    let set = FilteringSet { udp: Filtering::EndpointIndependent, ..FilteringSet::default() };
    let mut lab = Lab::new(with_rule(Nat44Rule { filtering: set, ..rule() }));
    let by_tcp = lab.syn_out(end(H), end(S));
    let by_udp = lab.udp_out(end(H), end(S));
    assert_eq!(by_tcp, by_udp);
    lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S2), by_tcp, "S", 1, 0, b""), Drop::Filtered);
    assert!(lab.udp_in(end(S2), by_udp, end(H)));
}

/// TCP-14: no external port for two inside endpoints.
#[test]
fn tcp_14_no_overloading() {
    let mut lab = Lab::new(with_rule(filtering(Filtering::EndpointIndependent)));
    let seen: HashSet<End> =
        (10..60).map(|last| lab.syn_out((Ipv4Addr::new(192, 168, 1, last), 4000), end(S))).collect();
    assert_eq!(seen.len(), 50);
}

// --- All valid sequences pass -----------------------------------------------------------------------------------------

/// TCP-02: handshake, data both ways, close; from inside and, by a forward, from outside.
#[test]
fn tcp_02_a_connection() {
    for mut connection in [Connection::outbound(), Connection::inbound()] {
        let mut lab = Lab::new(forwarding(spec()));
        let mappings = i64::from(connection.outbound);
        connection.open(&mut lab);
        assert_eq!(state(&lab), State::Established);
        connection.pass(&mut lab, Client, "PA", b"GET / HTTP/1.1\r\n\r\n");
        connection.pass(&mut lab, Server, "PA", &[b'x'; 1400]);
        connection.pass(&mut lab, Client, "A", b"");
        connection.pass(&mut lab, Client, "FA", b"");
        assert_eq!(state(&lab), State::ClientFin);
        connection.pass(&mut lab, Server, "FA", b"");
        assert_eq!(state(&lab), State::BothFin);
        connection.pass(&mut lab, Client, "A", b"");
        let (by_client, by_server) = (6, 3);
        let crossed = if connection.outbound {
            moves().outbound(by_client).inbound(by_server)
        } else {
            moves().inbound(by_client).outbound(by_server)
        };
        lab.moved(crossed.opened("tcp-closing", 1, 0).and("mappings-tcp", mappings).and("mapping-creations", mappings));
    }
}

/// TCP-02: a split handshake: the server acknowledges and sends its SYN apart.
#[test]
fn tcp_02_split_handshake() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.pass(&mut lab, Client, "S", b"");
    connection.pass(&mut lab, Server, "A", b"");
    assert_eq!(state(&lab), State::Init);
    connection.pass(&mut lab, Server, "S", b"");
    assert_eq!(state(&lab), State::Established);
    connection.pass(&mut lab, Client, "SA", b"");
    connection.pass(&mut lab, Server, "A", b"");
    connection.pass(&mut lab, Client, "PA", b"data");
    assert_eq!(state(&lab), State::Established);
}

/// TCP-02: a keepalive (RFC 9293 §3.8.4) and its answer pass, and keep the connection alive.
#[test]
fn tcp_02_keepalive() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.open(&mut lab);
    for payload in [&b""[..], b"\0"] {
        lab.wait_secs(7200);
        let probe = connection.frame(Client, "A", u32::MAX, payload);
        connection.crosses(&mut lab, Client, &probe);
        connection.pass(&mut lab, Server, "A", b"");
    }
    assert_eq!(state(&lab), State::Established);
    ends_in(&mut lab, 7440);
}

/// TCP-02: after one side's FIN the other sends for hours.
#[test]
fn tcp_02_half_close() {
    for (closes, talks, half) in [(Client, Server, State::ClientFin), (Server, Client, State::ServerFin)] {
        let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
        connection.open(&mut lab);
        connection.pass(&mut lab, closes, "FA", b"");
        for _ in 0..3 {
            lab.wait_secs(7000);
            connection.pass(&mut lab, talks, "PA", b"still here");
            connection.pass(&mut lab, closes, "A", b"");
        }
        assert_eq!(state(&lab), half);
        connection.pass(&mut lab, talks, "FA", b"last words");
        assert_eq!(state(&lab), State::BothFin);
        ends_in(&mut lab, 240);
    }
}

/// TCP-02: urgent data, reserved bits, ECN flags and unknown options pass untouched.
#[test]
fn tcp_02_urgent_and_unknown() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    // MSS, SACK permitted, timestamps, an experimental option, NOPs.
    let options = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 253, 4, 0x99, 0x89, 1, 1, 1, 1];
    connection.options = [options.to_vec(), options.to_vec()];
    connection.open(&mut lab);
    connection.pass(&mut lab, Client, "PUA", b"urgent");
    let builder = PacketBuilder::ethernet2(PEER.0, MACS[0].0)
        .ipv4(connection.host.0.octets(), connection.server.0.octets(), 64)
        .tcp(connection.host.1, connection.server.1, connection.next[0], 1000)
        .ack(connection.next[1])
        .ns()
        .cwr()
        .ece()
        .urg(7);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"odd").unwrap();
    connection.crosses(&mut lab, Client, &frame);
}

/// TCP-03: both sides' SYNs cross; so it is with filtering of any kind, as each has sent to the other.
#[test]
fn tcp_03_simultaneous_open() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.pass(&mut lab, Client, "S", b"");
    connection.pass(&mut lab, Server, "S", b"");
    assert_eq!(state(&lab), State::Established);
    // Each answers with a SYN,ACK that repeats its SYN (RFC 9293 §3.5, figure 7).
    let [client, server] = connection.next;
    let answers = [
        (Client, tcp(INSIDE, connection.host, connection.server, "SA", client - 1, server, b"")),
        (Server, tcp(OUTSIDE, connection.server, connection.external, "SA", server - 1, client, b"")),
    ];
    for (side, frame) in answers {
        connection.crosses(&mut lab, side, &frame);
    }
    connection.pass(&mut lab, Client, "PA", b"hello");
    connection.pass(&mut lab, Server, "PA", b"hello");
    connection.pass(&mut lab, Client, "FA", b"");
    connection.pass(&mut lab, Server, "FA", b"");
    assert_eq!(state(&lab), State::BothFin);
}

// --- Silence ----------------------------------------------------------------------------------------------------------

/// TCP-05, TCP-07: an unsolicited SYN is answered by nothing, then or later, wherever it goes; nor is one asked for, held
/// or given to the host.
#[test]
fn tcp_05_unsolicited_syns_meet_silence() {
    let mut lab = Lab::default_lab();
    let external = lab.syn_out(end(H), end(S));
    lab.recount();
    let unmapped = (external.0, 4001);
    for (to, reason) in [(unmapped, Drop::Unsolicited), (external, Drop::Filtered), (end(H), Drop::Unsolicited)] {
        lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S2), to, "S", 1, 0, b""), reason);
    }
    for _ in 0..150 {
        lab.wait(Duration::from_millis(100));
        let seen = lab.run();
        assert!(seen.frames.is_empty() && seen.punted.is_empty() && seen.resolve.is_empty(), "{seen:?}");
    }
    lab.moved(moves().dropped("outside", Drop::Unsolicited, 2).dropped("outside", Drop::Filtered, 1));
}

/// TCP-07: a SYN that was dropped is not remembered: when H calls in its turn, nothing but H's SYN is sent.
#[test]
fn tcp_07_no_syn_is_stored() {
    let mut lab = Lab::default_lab();
    lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S), end("203.0.113.5:4000"), "S", 1, 0, b""), Drop::Unsolicited);
    lab.wait_secs(2);
    assert_eq!(lab.syn_out(end(H), end(S)), end("203.0.113.5:4000"));
    lab.wait_secs(10);
    assert!(lab.run().frames.is_empty());
}

/// The rig's configuration with a rule that does this with segments in mid-stream.
fn mid_stream(mid_stream: MidStream) -> Spec {
    with_rule(Nat44Rule { mid_stream, ..rule() })
}

/// A connection that is established when the gateway is started anew, with this configuration.
fn restarted(spec: Spec) -> (Lab, Connection) {
    let (mut before, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.open(&mut before);
    connection.pass(&mut before, Client, "PA", b"GET / HTTP/1.1\r\n\r\n");
    connection.pass(&mut before, Server, "PA", &[b'x'; 1400]);
    (Lab::new(spec), connection)
}

/// TCP-18, `drop`, the default: a segment in mid-stream, without state, is dropped and counted by its name, from both sides.
#[test]
fn tcp_18_mid_stream_segments_are_dropped() {
    let mut lab = Lab::new(forwarding(with_rule(filtering(Filtering::EndpointIndependent))));
    let flags = ["A", "PA", "FA", "R", "RA", "F", "SA", "SR", ""];
    for flags in flags {
        lab.dropped(INSIDE, &tcp(INSIDE, end(H), end(S), flags, 7, 7, b""), Drop::TcpNotSyn);
    }
    lab.moved(moves().dropped("inside", Drop::TcpNotSyn, flags.len() as i64));
    let external = lab.syn_out(end(H), end(S));
    lab.recount();
    for flags in flags {
        lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S2), external, flags, 7, 7, b""), Drop::TcpNotSyn);
        lab.dropped(OUTSIDE, &tcp(OUTSIDE, end(S2), end("203.0.113.5:8080"), flags, 7, 7, b""), Drop::TcpNotSyn);
    }
    lab.moved(moves().dropped("outside", Drop::TcpNotSyn, 2 * flags.len() as i64));
}

/// TCP-18: only a SYN alone opens: nothing that also answers, ends or resets; ECN's marks may be set (RFC 3168 §6.1.1).
/// From inside, to a forward and to an endpoint-independent mapping.
#[test]
fn tcp_18_only_a_syn_alone_opens() {
    let mut lab = Lab::new(forwarding(with_rule(filtering(Filtering::EndpointIndependent))));
    let external = lab.syn_out(end(H), end(S));
    lab.recount();
    let doors =
        [(INSIDE, "192.168.1.10:4001", S), (OUTSIDE, S2, "203.0.113.5:8080"), (OUTSIDE, S2, "203.0.113.5:4000")];
    assert_eq!(external, end(doors[2].2));
    for (interface, from, to) in doors {
        for flags in ["SA", "SF", "SR", "SFA", "SFR", "SRA", "SFRA", "SFPU"] {
            lab.dropped(interface, &tcp(interface, end(from), end(to), flags, 7, 7, b""), Drop::TcpNotSyn);
        }
    }
    lab.moved(moves().dropped("inside", Drop::TcpNotSyn, 8).dropped("outside", Drop::TcpNotSyn, 16));
    for (interface, from, to) in doors {
        let other = if interface == INSIDE { OUTSIDE } else { INSIDE };
        lab.pass(interface, &tcp(interface, end(from), end(to), "SEC", 7, 0, b""), other);
    }
    lab.moved(moves().outbound(1).inbound(2).opened("tcp-opening", 3, 1));
}

/// TCP-18: the default is to drop.
#[test]
fn tcp_18_after_a_restart_a_connection_hangs_by_default() {
    let (mut lab, connection) = restarted(spec());
    lab.dropped(INSIDE, &connection.frame(Client, "PA", 0, b"are you there?"), Drop::TcpNotSyn);
    lab.dropped(OUTSIDE, &connection.frame(Server, "PA", 0, b"are you there?"), Drop::Unsolicited);
    lab.moved(moves().dropped("inside", Drop::TcpNotSyn, 1).dropped("outside", Drop::Unsolicited, 1));
}

/// What the sender of a segment in mid-stream is told: who seems to answer, to whom, and the RST's flags, sequence and
/// acknowledgement numbers.
#[track_caller]
fn told(lab: &mut Lab, frame: &[u8]) -> (End, End, u8, u32, u32) {
    let seen = lab.refused(INSIDE, frame, Drop::TcpNotSyn);
    assert_eq!((seen.ttl, seen.protocol, seen.transport.len()), (64, 6, 20));
    let number = |at: usize| u32::from_be_bytes(seen.transport[at..at + 4].try_into().unwrap());
    (seen.source, seen.destination, seen.transport[13], number(4), number(8))
}

/// TCP-18, `reset`: the inside end of a connection that the gateway has forgotten learns it at its next segment, by a RST
/// that its stack takes for the server's; the outside end learns nothing.
#[test]
fn tcp_18_reset_after_a_restart() {
    let (mut lab, connection) = restarted(mid_stream(MidStream::Reset));
    lab.dropped(OUTSIDE, &connection.frame(Server, "PA", 0, b"are you there?"), Drop::Unsolicited);
    lab.moved(moves().dropped("outside", Drop::Unsolicited, 1));
    let answer = told(&mut lab, &connection.frame(Client, "PA", 0, b"are you there?"));
    assert_eq!(
        answer,
        (end(S), end(H), 0x04, connection.next[1], 0),
        "RST, where the client expects the server's next"
    );
    lab.moved(moves().dropped("inside", Drop::TcpNotSyn, 1).answered("inside", "tcp-resets", 1));
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
    let story = &lab.stories()[1];
    assert!(story.reset && story.error.is_none());
}

/// TCP-18, RFC 9293 §3.10.7.1: with ACK, <SEQ=SEG.ACK><CTL=RST>; else <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>, where SYN
/// and FIN count; a RST is never answered.
#[test]
fn tcp_18_reset_numbers() {
    let mut lab = Lab::new(mid_stream(MidStream::Reset));
    for (flags, seq, ack, payload, answer) in [
        ("A", 7, 9, &b""[..], Some((0x04, 9, 0))),
        ("PA", 7, 0xffff_ffff, b"data", Some((0x04, 0xffff_ffff, 0))),
        ("FA", 7, 0, b"data", Some((0x04, 0, 0))),
        ("SA", 7, 9, b"", Some((0x04, 9, 0))),
        ("SFA", 7, 9, b"", Some((0x04, 9, 0))),
        ("", 7, 9, b"", Some((0x14, 0, 7))),
        ("P", 7, 9, b"data", Some((0x14, 0, 11))),
        ("F", 7, 9, b"", Some((0x14, 0, 8))),
        ("F", 0xffff_ffff, 9, b"data", Some((0x14, 0, 4))),
        ("SF", 7, 9, b"data", Some((0x14, 0, 13))),
        ("R", 7, 9, b"", None),
        ("RA", 7, 9, b"data", None),
        ("SR", 7, 9, b"", None),
        ("FRA", 7, 9, b"", None),
    ] {
        let frame = tcp(INSIDE, end(H), end(S), flags, seq, ack, payload);
        match answer {
            Some((reset, seq, ack)) => assert_eq!(told(&mut lab, &frame), (end(S), end(H), reset, seq, ack), "{flags}"),
            None => lab.dropped(INSIDE, &frame, Drop::TcpNotSyn),
        }
    }
    // Behind IP and TCP options, in a frame with padding and a tag the lengths are still right.
    let padded = [&tcp(INSIDE, end(H), end(S), "F", 7, 0, b"x")[..], &[0xee; 5]].concat();
    assert_eq!(told(&mut lab, &padded).4, 9);
    let options = with_header(&tcp_with(INSIDE, end(H), end(S), "F", 7, 0, b"x", &[1; 8]), |header| {
        header.options = [1, 1, 1, 0].into();
    });
    assert_eq!(told(&mut lab, &options).4, 9);
}

/// TCP-18, TCP-07: a stranger's segments are met with silence whatever the mode, at every kind of door.
#[test]
fn tcp_18_strangers_meet_silence_in_every_mode() {
    for mode in [MidStream::Drop, MidStream::Reset, MidStream::Adopt] {
        let rule = Nat44Rule { mid_stream: mode, ..filtering(Filtering::EndpointIndependent) };
        let mut lab = Lab::new(forwarding(with_rule(rule)));
        let external = lab.syn_out(end(H), end(S));
        for flags in ["A", "PA", "FA", "R", "RA", "F", "SA", "SF", ""] {
            let to = |to| tcp(OUTSIDE, end(S2), to, flags, 7, 7, b"");
            lab.dropped(OUTSIDE, &to(external), Drop::TcpNotSyn);
            lab.dropped(OUTSIDE, &to(end("203.0.113.5:8080")), Drop::TcpNotSyn);
            lab.dropped(OUTSIDE, &to((external.0, 4001)), Drop::Unsolicited);
            lab.dropped(OUTSIDE, &to(end(H)), Drop::Unsolicited);
        }
        assert_eq!(lab.sessions(), 1);
    }
}

/// TCP-18: a host behind a forward or a static address is not told, nor its connection adopted: there the mode is `drop`.
#[test]
fn tcp_18_static_entries_drop() {
    for mode in [MidStream::Reset, MidStream::Adopt] {
        let spec = Spec { static_nat: vec![one_to_one("203.0.113.9", "192.168.1.30")], ..mid_stream(mode) };
        let mut lab = Lab::new(forwarding(spec));
        for host in ["192.168.1.20:80", "192.168.1.30:80"] {
            lab.dropped(INSIDE, &tcp(INSIDE, end(host), end(S), "PA", 7, 7, b"data"), Drop::TcpNotSyn);
        }
    }
}

/// TCP-18: resets have a bucket of their own, of the size of that for ICMP errors; an interface without ICMP errors has
/// resets all the same, as the rule says so.
#[test]
fn tcp_18_resets_are_rate_limited() {
    let icmp = IcmpPolicy { rate: 10, burst: 3, silent: vec![INSIDE], ..IcmpPolicy::default() };
    let mut lab = Lab::new(Spec { icmp, ..mid_stream(MidStream::Reset) });
    let segment = tcp(INSIDE, end(H), end(S), "A", 7, 9, b"");
    let seen = lab.send_all(INSIDE, &vec![segment.clone(); 50]);
    assert_eq!(seen.frames.len(), 3);
    lab.moved(
        moves()
            .dropped("inside", Drop::TcpNotSyn, 50)
            .answered("inside", "tcp-resets", 3)
            .and("tcp-resets-rate-limited", 47),
    );
    lab.wait(Duration::from_millis(100));
    told(&mut lab, &segment);
    lab.dropped(INSIDE, &segment, Drop::TcpNotSyn);
    // Resets do not eat the ICMP errors' share.
    let mut lab = Lab::new(Spec {
        icmp: IcmpPolicy { rate: 10, burst: 3, ..IcmpPolicy::default() },
        ..mid_stream(MidStream::Reset)
    });
    assert_eq!(lab.send_all(INSIDE, &vec![segment; 50]).frames.len(), 3);
    let expired = common::udp_ttl(INSIDE, end(H), end(S), b"", 1);
    assert_eq!(lab.send_all(INSIDE, &vec![expired; 50]).frames.len(), 3);
}

/// TCP-18: what is never answered: a damaged segment, one from a broadcast address, a fragment; and none without a buffer.
#[test]
fn tcp_18_what_is_never_reset() {
    let mut lab = Lab::new(mid_stream(MidStream::Reset));
    let segment = tcp(INSIDE, end(H), end(S), "PA", 7, 9, b"data");
    let mut damaged = segment.clone();
    damaged[34 + 3] ^= 1;
    lab.dropped(INSIDE, &damaged, Drop::TcpNotSyn);
    lab.dropped(INSIDE, &tcp(INSIDE, end("192.168.1.255:4000"), end(S), "PA", 7, 9, b""), Drop::TcpNotSyn);
    let long = tcp(INSIDE, end(H), end(S), "PA", 7, 9, &[7; 60]);
    for fragment in fragments::cut_up(&long, &[5]) {
        lab.dropped(INSIDE, &fragment, Drop::TcpNotSyn);
    }
    lab.recount();
    let mut taken = Vec::new();
    while let Some(packet) = lab.pool.alloc() {
        taken.push(packet);
    }
    lab.dropped(INSIDE, &segment, Drop::TcpNotSyn);
    lab.moved(moves().dropped("inside", Drop::TcpNotSyn, 1).and("originate-failures", 1));
    drop(taken);
    told(&mut lab, &segment);
}

/// TCP-18: a reset waits for its neighbour as any packet does, and is lost when that fails.
#[test]
fn tcp_18_a_reset_waits_for_its_neighbour() {
    for (state, frames) in [(NeighbourState::Reachable(PEER), 1), (NeighbourState::Failed, 0)] {
        let mut lab = Lab::new(mid_stream(MidStream::Reset));
        lab.resolving = false;
        let seen = lab.send(INSIDE, &tcp(INSIDE, end(H), end(S), "A", 7, 9, b""));
        assert!(seen.frames.is_empty());
        assert_eq!(seen.resolve, [(INSIDE, end(H).0.into())]);
        lab.neighbour(INSIDE, end(H).0.into(), state);
        assert_eq!(lab.run().frames.len(), frames);
    }
}

/// TCP-18, `adopt`: a connection outlives a restart: it keeps its port, either side's data passes, and it ends like any.
#[test]
fn tcp_18_adopt_after_a_restart() {
    let (mut lab, mut connection) = restarted(mid_stream(MidStream::Adopt));
    lab.dropped(OUTSIDE, &connection.frame(Server, "PA", 0, b"first?"), Drop::Unsolicited);
    lab.recount();
    connection.pass(&mut lab, Client, "PA", b"POST / HTTP/1.1\r\n\r\n");
    lab.moved(moves().outbound(1).opened("tcp-opening", 1, 1).and("session-adoptions", 1));
    assert_eq!(state(&lab), State::Adopted);
    connection.pass(&mut lab, Server, "PA", b"first?");
    lab.moved(moves().inbound(1).turned("tcp-opening", "tcp-established"));
    lab.wait_secs(7439);
    connection.pass(&mut lab, Client, "A", b"");
    connection.pass(&mut lab, Client, "FA", b"");
    assert_eq!(state(&lab), State::ClientFin);
    connection.pass(&mut lab, Server, "FA", b"");
    assert_eq!(state(&lab), State::BothFin);
    ends_in(&mut lab, 240);
}

/// TCP-18: without an answer an adopted connection lasts 240 s, whatever the inside sends; then its next segment may be
/// adopted in its turn.
#[test]
fn tcp_18_adopted_connections_need_an_answer() {
    let (mut lab, mut connection) = restarted(mid_stream(MidStream::Adopt));
    connection.pass(&mut lab, Client, "PA", b"hello?");
    for _ in 0..3 {
        lab.wait_secs(60);
        let again = connection.frame(Client, "PA", 0u32.wrapping_sub(6), b"hello?");
        connection.crosses(&mut lab, Client, &again);
    }
    assert_eq!(state(&lab), State::Adopted);
    ends_in(&mut lab, 60);
    connection.pass(&mut lab, Client, "FA", b"");
    assert_eq!(state(&lab), State::AdoptedFin);
    ends_in(&mut lab, 240);
}

/// TCP-18: what adopts: every segment with an ACK that neither opens nor resets; all others are dropped. Fragments never.
#[test]
fn tcp_18_what_adopts() {
    for bits in 0u8..64 {
        let flags: String =
            "FSRPAU".chars().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, it)| it).collect();
        let has = |flag| flags.contains(flag);
        let (adopted, opened) = (has('A') && !has('S') && !has('R'), has('S') && !has('A') && !has('R') && !has('F'));
        assert_eq!(adopts(bits), adopted, "{flags}");
        let mut lab = Lab::new(mid_stream(MidStream::Adopt));
        let frame = tcp(INSIDE, end(H), end(S), &flags, 7, 9, b"");
        if adopted || opened {
            let seen = read(&lab.pass(INSIDE, &frame, OUTSIDE));
            assert_eq!((seen.source, seen.destination), (end("203.0.113.5:4000"), end(S)), "{flags}");
        } else {
            lab.dropped(INSIDE, &frame, Drop::TcpNotSyn);
        }
        assert_eq!(lab.counters.session_adoptions.get(), u64::from(adopted), "{flags}");
    }
    let mut lab = Lab::new(mid_stream(MidStream::Adopt));
    for fragment in fragments::cut_up(&tcp(INSIDE, end(H), end(S), "PA", 7, 9, &[0; 60]), &[5]) {
        lab.dropped(INSIDE, &fragment, Drop::TcpNotSyn);
    }
}

/// TCP-18, TCP-12: of an adopted connection the windows' scales are not known: what may lie in a window counts; what lies
/// before it, or further off than any window reaches, does not.
#[test]
fn tcp_18_adopted_windows() {
    let reach = 65_000 << 14;
    for (skip, counts) in
        [(0, true), (65_001, true), (reach, true), (reach + 1, false), (u32::MAX, false), (0x8000_0000, false)]
    {
        for side in [Client, Server] {
            let (mut lab, mut connection) = restarted(mid_stream(MidStream::Adopt));
            connection.pass(&mut lab, Client, "A", b"");
            connection.pass(&mut lab, Server, "A", b"");
            let reset = connection.frame(side, "R", skip, b"");
            connection.crosses(&mut lab, side, &reset);
            assert_eq!(state(&lab) == State::Transitory, counts, "RST of the {side:?}, {skip} from the left edge");
        }
    }
}

/// TCP-18, D11: the ports of an adopted connection are used for a new one: it is a connection like any other.
#[test]
fn tcp_18_an_adopted_connection_is_opened_anew() {
    for first in ["A", "FA"] {
        let (mut lab, mut old) = restarted(mid_stream(MidStream::Adopt));
        old.pass(&mut lab, Client, first, b"");
        let mut new = Connection { next: [0x8000_0000, 0x9000_0000], ..Connection::outbound() };
        new.open(&mut lab);
        assert_eq!(state(&lab), State::Established);
        new.pass(&mut lab, Client, "FA", b"");
        new.pass(&mut lab, Server, "FA", b"");
        assert_eq!(state(&lab), State::BothFin);
    }
}

/// TCP-18: to adopt is to open: a full table refuses it, and the sender is told.
#[test]
fn tcp_18_a_full_table_adopts_nothing() {
    let mut spec = mid_stream(MidStream::Adopt);
    spec.limits.sessions = 1;
    let mut lab = Lab::new(spec);
    let adopted = tcp(INSIDE, end(H), end(S), "A", 7, 9, b"");
    lab.pass(INSIDE, &adopted, OUTSIDE);
    let other = tcp(INSIDE, end("192.168.1.10:4002"), end(S), "A", 7, 9, b"");
    let answer = lab.refused(INSIDE, &other, Drop::SessionTableFull);
    assert_eq!((answer.protocol, &answer.transport[..2]), (1, &[3, 1][..]));
    assert_eq!(lab.counters.session_adoptions.get(), 1);
    lab.pass(INSIDE, &adopted, OUTSIDE);
    lab.wait_secs(241);
    lab.pass(INSIDE, &other, OUTSIDE);
}

// --- Timers -----------------------------------------------------------------------------------------------------------

/// TCP-08, D1: an established connection may be idle for 7440 s; data still passes at 7439 s.
#[test]
fn tcp_08_established_idle_time() {
    for side in [Client, Server] {
        let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
        connection.open(&mut lab);
        lab.wait_secs(7439);
        connection.pass(&mut lab, side, "PA", b"back again");
        lab.recount();
        lab.wait_secs(7439);
        lab.moved(moves());
        lab.wait_secs(2);
        lab.moved(moves().expired("tcp-established", 1, 1));
        lab.dropped(OUTSIDE, &connection.frame(Server, "PA", 0, b"late"), Drop::Unsolicited);
        lab.dropped(INSIDE, &connection.frame(Client, "PA", 0, b"late"), Drop::TcpNotSyn);
    }
}

/// TCP-08: a half-open connection lives for 240 s: the SYN,ACK still passes at 239 s, and not at 241 s.
#[test]
fn tcp_08_half_open_idle_time() {
    for (wait, alive) in [(239, true), (241, false)] {
        let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
        connection.pass(&mut lab, Client, "S", b"");
        lab.wait_secs(wait);
        if alive {
            connection.pass(&mut lab, Server, "SA", b"");
        } else {
            lab.dropped(OUTSIDE, &connection.frame(Server, "SA", 0, b""), Drop::Unsolicited);
        }
    }
}

/// TCP-08, TCP-10: after both FINs 240 s, which no segment prolongs.
#[test]
fn tcp_08_closing_time() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.open(&mut lab);
    connection.pass(&mut lab, Server, "FA", b"");
    connection.pass(&mut lab, Client, "FA", b"");
    lab.wait_secs(100);
    connection.pass(&mut lab, Server, "A", b"");
    connection.pass(&mut lab, Client, "RA", b"");
    ends_in(&mut lab, 140);
}

/// TCP-09: the opening and the closing time are set apart.
#[test]
fn tcp_09_opening_and_closing_timers() {
    let timers = Timers { tcp_opening: Duration::from_secs(30), ..Timers::default() };
    let mut lab = Lab::new(Spec { timers: timers.clone(), ..spec() });
    Connection::outbound().pass(&mut lab, Client, "S", b"");
    ends_in(&mut lab, 30);
    let (mut lab, mut connection) = (Lab::new(Spec { timers, ..spec() }), Connection::outbound());
    connection.open(&mut lab);
    connection.pass(&mut lab, Client, "FA", b"");
    connection.pass(&mut lab, Server, "FA", b"");
    ends_in(&mut lab, 240);
    let timers = Timers { tcp_closing: Duration::from_secs(30), ..Timers::default() };
    let (mut lab, mut connection) = (Lab::new(Spec { timers, ..spec() }), Connection::outbound());
    connection.open(&mut lab);
    connection.pass(&mut lab, Server, "RA", b"");
    ends_in(&mut lab, 30);
}

// --- The state machine ------------------------------------------------------------------------------------------------

const OPENING: u64 = 200;
const ESTABLISHED: u64 = 7440;
const CLOSING: u64 = 150;
/// How long the connection has been in its state when the segment comes.
const WAITED: u64 = 50;

/// Brings a new connection into a state.
fn reach(state: State, connection: &mut Connection, lab: &mut Lab) {
    let first = match state {
        State::Init => Some("S"),
        State::Adopted => Some("A"),
        State::AdoptedFin => Some("FA"),
        _ => None,
    };
    match first {
        Some(flags) => drop(connection.pass(lab, Client, flags, b"")),
        None => connection.open(lab),
    }
    let then: &[(Side, &str)] = match state {
        State::Init | State::Established | State::Adopted | State::AdoptedFin => &[],
        State::ClientFin => &[(Client, "FA")],
        State::ServerFin => &[(Server, "FA")],
        State::BothFin => &[(Server, "FA"), (Client, "FA")],
        State::Transitory => &[(Client, "RA")],
    };
    for (side, flags) in then {
        connection.pass(lab, *side, flags, b"");
    }
}

/// TCP-10: every edge of the machine, of connections that inside hosts open and of those that outside hosts open: where
/// each segment leads, that it passes, and when the session then ends.
#[test]
fn tcp_10_every_edge() {
    use State::{Adopted, AdoptedFin, BothFin, ClientFin, Established, Init, ServerFin, Transitory};
    const KEEP: u64 = 0; // the timer runs on
    type Row = [(&'static str, State, u64); 5]; // SYN, SYN+ACK, FIN, RST, other
    let same = |state, time| {
        [("S", state, time), ("SA", state, time), ("FA", state, time), ("RA", state, time), ("A", state, time)]
    };
    let row = |mut row: Row, changes: &[(&'static str, State, u64)]| {
        for change in changes {
            *row.iter_mut().find(|edge| edge.0 == change.0).unwrap() = *change;
        }
        row
    };
    let reset = ("RA", Transitory, CLOSING);
    // D11: whoever sends a SYN on a closed connection opens a new one.
    let again = ("S", Init, OPENING);
    let machine: [(State, u64, Row, Row); 8] = [
        // state, its timer, what the client's segments do, what the server's do
        (
            Init,
            OPENING,
            row(same(Init, KEEP), &[("S", Init, OPENING), ("SA", Init, OPENING)]),
            row(same(Init, KEEP), &[("S", Established, ESTABLISHED), ("SA", Established, ESTABLISHED)]),
        ),
        (
            Established,
            ESTABLISHED,
            row(same(Established, ESTABLISHED), &[("FA", ClientFin, ESTABLISHED), reset]),
            row(same(Established, ESTABLISHED), &[("FA", ServerFin, ESTABLISHED), reset]),
        ),
        (
            ClientFin,
            ESTABLISHED,
            row(same(ClientFin, ESTABLISHED), &[reset]),
            row(same(ClientFin, ESTABLISHED), &[("FA", BothFin, CLOSING), reset]),
        ),
        (
            ServerFin,
            ESTABLISHED,
            row(same(ServerFin, ESTABLISHED), &[("FA", BothFin, CLOSING), reset]),
            row(same(ServerFin, ESTABLISHED), &[reset]),
        ),
        (BothFin, CLOSING, row(same(BothFin, KEEP), &[again]), row(same(BothFin, KEEP), &[again])),
        (
            Transitory,
            CLOSING,
            row(same(Established, ESTABLISHED), &[again, ("RA", Transitory, KEEP)]),
            row(same(Established, ESTABLISHED), &[again, ("RA", Transitory, KEEP)]),
        ),
        // TCP-18: taken up in mid-stream; nothing that the client sends makes it last.
        (
            Adopted,
            OPENING,
            row(same(Adopted, KEEP), &[again, ("FA", AdoptedFin, KEEP)]),
            row(same(Established, ESTABLISHED), &[("FA", ServerFin, ESTABLISHED), reset]),
        ),
        (
            AdoptedFin,
            OPENING,
            row(same(AdoptedFin, KEEP), &[again]),
            row(same(ClientFin, ESTABLISHED), &[("FA", BothFin, CLOSING), reset]),
        ),
    ];
    let timers = Timers {
        tcp_opening: Duration::from_secs(OPENING),
        tcp_established: Duration::from_secs(ESTABLISHED),
        tcp_closing: Duration::from_secs(CLOSING),
        ..Timers::default()
    };
    for outbound in [true, false] {
        for (from, timer, by_client, by_server) in machine {
            for (side, (flags, to, time)) in
                by_client.map(|edge| (Client, edge)).into_iter().chain(by_server.map(|edge| (Server, edge)))
            {
                if !outbound && [Adopted, AdoptedFin].contains(&from) {
                    continue; // only from inside is a connection taken up
                }
                println!("{from:?}, {flags} of the {side:?}, client inside: {outbound}");
                let mut lab = Lab::new(forwarding(Spec { timers: timers.clone(), ..mid_stream(MidStream::Adopt) }));
                let mut connection = if outbound { Connection::outbound() } else { Connection::inbound() };
                reach(from, &mut connection, &mut lab);
                assert_eq!(state(&lab), from);
                lab.wait_secs(WAITED);
                connection.pass(&mut lab, side, flags, b"");
                assert_eq!(state(&lab), to);
                ends_in(&mut lab, if time == KEEP { timer - WAITED } else { time });
            }
        }
    }
}

/// TCP-11: a RST passes, and the session stays for 240 s; traffic in that time, of either side, restores it.
#[test]
fn tcp_11_reset() {
    for side in [Client, Server] {
        let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
        connection.open(&mut lab);
        lab.recount();
        connection.pass(&mut lab, side, "R", b"");
        lab.moved(cross(&connection, side).turned("tcp-established", "tcp-closing"));
        lab.wait_secs(200);
        connection.pass(&mut lab, Server, "PA", b"alive after all");
        assert_eq!(state(&lab), State::Established);
        connection.pass(&mut lab, side, "RA", b"");
        ends_in(&mut lab, 240);
    }
}

/// One packet of this side crosses.
fn cross(connection: &Connection, side: Side) -> Moves {
    if connection.is_inside(side) { moves().outbound(1) } else { moves().inbound(1) }
}

/// D11: a new connection with the addresses and ports of one that is closing, by either side, under the same mapping: it
/// is a connection like any other, and ends like one.
#[test]
fn tcp_10_d11_a_closing_connection_is_opened_anew() {
    for closed in [State::BothFin, State::Transitory] {
        for opener in [Client, Server] {
            let (mut lab, mut old) = (Lab::default_lab(), Connection::outbound());
            reach(closed, &mut old, &mut lab);
            lab.wait_secs(100);
            lab.recount();
            // Sequence numbers far behind the old ones.
            let mut new = Connection { next: [0x8000_0000, 0x9000_0000], ..Connection::outbound() };
            let other = if opener == Client { Server } else { Client };
            new.pass(&mut lab, opener, "S", b"");
            lab.moved(
                cross(&new, opener)
                    .turned("tcp-closing", "tcp-opening")
                    .and("session-creations", 1)
                    .and("session-replacements", 1),
            );
            new.pass(&mut lab, other, "SA", b"");
            new.pass(&mut lab, opener, "A", b"");
            assert_eq!(state(&lab), State::Established);
            lab.wait_secs(7000);
            new.pass(&mut lab, opener, "FA", b"");
            assert_eq!(state(&lab), State::ClientFin, "who opens is the client");
            new.pass(&mut lab, other, "FA", b"");
            assert_eq!(state(&lab), State::BothFin);
            assert_eq!(lab.mappings(), [1, 0, 0]);
        }
    }
}

/// A host that has lost its state opens a connection anew that the gateway still holds established; the end of the new
/// one is understood, wherever its sequence numbers lie.
#[test]
fn tcp_12_an_established_connection_is_opened_anew() {
    for start in [[5u32, 6], [0x4000_0000, 0x4000_0000], [0x8000_0000, 0x9000_0000], [0xf000_0000, 0xe000_0000]] {
        let (mut lab, mut old) = (Lab::default_lab(), Connection::outbound());
        old.open(&mut lab);
        old.pass(&mut lab, Client, "PA", b"about to crash");
        let mut new = Connection { next: start, ..Connection::outbound() };
        new.open(&mut lab);
        new.pass(&mut lab, Client, "FA", b"");
        new.pass(&mut lab, Server, "FA", b"");
        assert_eq!(state(&lab), State::BothFin, "{start:x?}");
    }
}

/// A connection that was refused, then tried again from the same port: its end is understood.
#[test]
fn tcp_12_a_refused_connection_is_tried_again() {
    for start in [[5u32, 6], [0x4000_0000, 0x4000_0000], [0x8000_0000, 0x9000_0000], [0xf000_0000, 0xe000_0000]] {
        let (mut lab, mut refused) = (Lab::default_lab(), Connection::outbound());
        refused.pass(&mut lab, Client, "S", b"");
        refused.next[1] = 0;
        refused.pass(&mut lab, Server, "RA", b"");
        assert_eq!(state(&lab), State::Init);
        let mut new = Connection { next: start, ..Connection::outbound() };
        new.open(&mut lab);
        new.pass(&mut lab, Server, "FA", b"");
        new.pass(&mut lab, Client, "RA", b"");
        assert_eq!(state(&lab), State::Transitory, "{start:x?}");
    }
}

/// N44-16: the RST by which an inside host answers a stranger's SYN keeps nothing alive.
#[test]
fn n44_16_an_answer_by_reset_does_not_refresh() {
    let mut lab = Lab::new(forwarding(spec()));
    let mut connection = Connection::inbound();
    connection.pass(&mut lab, Client, "S", b"");
    lab.wait_secs(100);
    connection.pass(&mut lab, Server, "RA", b"");
    ends_in(&mut lab, 140);
}

// --- What does not belong to the connection ---------------------------------------------------------------------------

/// A connection with these window scale options; the windows are 65,000 as sent.
fn scaled(lab: &mut Lab, scales: [Option<u8>; 2]) -> Connection {
    let option = |scale: Option<u8>| scale.map_or(Vec::new(), |scale| vec![1, 3, 3, scale]);
    let mut connection = Connection { options: scales.map(option), ..Connection::outbound() };
    connection.open(lab);
    connection.pass(lab, Server, "A", b"");
    connection
}

/// TCP-12: a RST or FIN changes the state only within the window that the other side offers: with its scale where both
/// sides scale, and else as sent.
#[test]
fn tcp_12_flags_out_of_window_are_ignored() {
    for (scales, window) in [
        ([None, None], 65_000),
        ([Some(7), None], 65_000),
        ([None, Some(7)], 65_000),
        ([Some(3), Some(7)], 65_000 << 7),
        ([Some(14), Some(14)], 65_000 << 14),
        ([Some(0), Some(15)], 65_000 << 14), // RFC 7323 §2.3: 14 at most
    ] {
        // Of the client's segments, the server's window decides.
        for (skip, counts) in [
            (0, true),
            (1, true),
            (window, true),
            (window + 1, false),
            (window + 100_000, false),
            (0x7000_0000, false),
            (0x9000_0000, false),
            (u32::MAX, false),
            (u32::MAX - 70_000, false),
        ] {
            let mut lab = Lab::default_lab();
            let connection = scaled(&mut lab, scales);
            lab.wait_secs(100);
            let reset = connection.frame(Client, "R", skip, b"");
            connection.crosses(&mut lab, Client, &reset);
            assert_eq!(state(&lab) == State::Transitory, counts, "RST {skip} from the left edge, {scales:?}");
            ends_in(&mut lab, if counts { 240 } else { 7340 });

            // A FIN takes one place: it may lie one before the left edge, which is a retransmission.
            let fin_counts = counts || skip == u32::MAX;
            let mut lab = Lab::default_lab();
            let connection = scaled(&mut lab, scales);
            let fin = connection.frame(Client, "FA", skip, b"");
            connection.crosses(&mut lab, Client, &fin);
            assert_eq!(state(&lab) == State::ClientFin, fin_counts, "FIN {skip} from the left edge, {scales:?}");
        }
    }
}

/// TCP-12: a thousand blind RSTs and FINs from outside, with the right addresses and ports and sequence numbers from all
/// over the space, leave state and timer.
#[test]
fn tcp_12_blind_flood() {
    let mut lab = Lab::default_lab();
    let mut connection = scaled(&mut lab, [Some(2), Some(2)]);
    lab.wait_secs(100);
    lab.recount();
    let mut resets = 0;
    for n in 0..1000u32 {
        let skip = n.wrapping_mul(4_294_967); // evenly, less the window itself
        if !(1..=65_000 << 2).contains(&skip) && skip != 0 {
            let frame = connection.frame(Server, "R", skip, b"");
            connection.crosses(&mut lab, Server, &frame);
            resets += 1;
        }
    }
    assert!(resets > 990);
    lab.moved(moves().inbound(resets));
    assert_eq!(state(&lab), State::Established);
    lab.wait_secs(7339);
    connection.pass(&mut lab, Client, "PA", b"and it works");
}

/// TCP-15: an ICMP error about a connection passes, with the MTU that it names, and neither closes nor refreshes it.
#[test]
fn tcp_15_icmp_errors_leave_the_connection() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.open(&mut lab);
    let sent = lab.pass(INSIDE, &connection.frame(Client, "PA", 0, &[0; 1400]), OUTSIDE);
    lab.wait_secs(100);
    lab.recount();
    let mut too_big = error(OUTSIDE, end(S2).0, 3, 4, &sent[14..]);
    too_big[34 + 6..34 + 8].copy_from_slice(&1280u16.to_be_bytes());
    too_big[34 + 2..34 + 4].fill(0);
    let checksum = etherparse::checksum::Sum16BitWords::new().add_slice(&too_big[34..]).ones_complement();
    too_big[34 + 2..34 + 4].copy_from_slice(&checksum.to_ne_bytes());
    let seen = read(&lab.pass(OUTSIDE, &too_big, INSIDE));
    assert_eq!((seen.destination.0, &seen.transport[..2]), (end(H).0, &[3, 4][..]));
    assert_eq!(seen.transport[6..8], 1280u16.to_be_bytes());
    for code in 0..=15 {
        lab.pass(OUTSIDE, &error(OUTSIDE, end(S2).0, 3, code, &sent[14..]), INSIDE);
    }
    lab.moved(moves().inbound(17));
    assert_eq!(state(&lab), State::Established);
    ends_in(&mut lab, 7340);
}

/// TCP-13: no application gateway touches a payload. (FTP's, which is to be on by default, comes later.)
#[test]
fn tcp_13_no_application_gateways() {
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.server.1 = 1723;
    connection.open(&mut lab);
    connection.pass(&mut lab, Client, "PA", b"\0\x9c\0\x01\x1a\x2b\x3c\x4d\0\x07\0\0\0\x01\0\0");
    let (mut lab, mut connection) = (Lab::default_lab(), Connection::outbound());
    connection.server.1 = 21;
    connection.open(&mut lab);
    connection.pass(&mut lab, Client, "PA", b"PORT 192,168,1,10,15,160\r\n");
}

// --- MSS clamp --------------------------------------------------------------------------------------------------------

/// The rig with clamps of the inside and the outside interface, and this MTU of the outside one.
fn clamping(inside: MssClamp, outside: MssClamp, mtu: u16) -> Lab {
    let mut spec = forwarding(spec());
    spec.interfaces[0].mss_clamp = inside;
    spec.interfaces[1].mss_clamp = outside;
    spec.interfaces[1].mtu = mtu;
    Lab::new(spec)
}

/// A TCP header's options, before and behind the gateway, in a SYN from inside and a SYN,ACK from outside; and the same
/// over IPv6, which is routed.
fn clamped(lab: &mut Lab, options: &[u8]) -> [Vec<u8>; 4] {
    let (h6, s6): (Ipv6Addr, Ipv6Addr) = ("fd00:1::10".parse().unwrap(), "2001:db8:5::1".parse().unwrap());
    let tcp6 = |interface: InterfaceId, from: Ipv6Addr, to: Ipv6Addr, ack: bool| {
        let builder = PacketBuilder::ethernet2(PEER.0, MACS[usize::from(interface.0)].0)
            .ipv6(from.octets(), to.octets(), 64)
            .tcp(1, 2, 3, 4)
            .syn();
        let builder = if ack { builder.ack(9) } else { builder }.options_raw(options).unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, b"").unwrap();
        frame
    };
    let out = read(&lab.pass(INSIDE, &tcp_with(INSIDE, end(H), end(S), "S", 1, 0, b"", options), OUTSIDE));
    let back = read(&lab.pass(OUTSIDE, &tcp_with(OUTSIDE, end(S), out.source, "SA", 1, 2, b"", options), INSIDE));
    let out6 = read6(&lab.pass(INSIDE, &tcp6(INSIDE, h6, s6, false), OUTSIDE));
    let back6 = read6(&lab.pass(OUTSIDE, &tcp6(OUTSIDE, s6, h6, true), INSIDE));
    [out.transport, back.transport, out6.transport, back6.transport].map(|tcp| tcp[20..].to_vec())
}

fn mss(value: u16) -> [u8; 4] {
    let [high, low] = value.to_be_bytes();
    [2, 4, high, low]
}

/// TCP-17: the MSS of SYN and SYN,ACK is lowered to a fixed value, over IPv4 and IPv6, and never raised.
#[test]
fn tcp_17_fixed_clamp() {
    for (inside, outside) in [(MssClamp::Off, MssClamp::Fixed(1360)), (MssClamp::Fixed(1360), MssClamp::Off)] {
        for (before, after) in [(1460, 1360), (1361, 1360), (1360, 1360), (1200, 1200), (65_535, 1360), (0, 0)] {
            let mut lab = clamping(inside, outside, 1500);
            assert_eq!(clamped(&mut lab, &mss(before)), [mss(after); 4]);
        }
    }
    // Of two clamps the lower.
    let mut lab = clamping(MssClamp::Fixed(1300), MssClamp::Fixed(1360), 1500);
    assert_eq!(clamped(&mut lab, &mss(1460)), [mss(1300); 4]);
    let mut lab = clamping(MssClamp::Off, MssClamp::Off, 1400);
    assert_eq!(clamped(&mut lab, &mss(1460)), [mss(1460); 4]);
}

/// TCP-17: from the MTU: 40 bytes less over IPv4, 60 over IPv6.
#[test]
fn tcp_17_clamp_from_mtu() {
    let mut lab = clamping(MssClamp::Off, MssClamp::FromMtu, 1400);
    assert_eq!(clamped(&mut lab, &mss(1460)), [mss(1360), mss(1360), mss(1340), mss(1340)]);
    let mut lab = clamping(MssClamp::Off, MssClamp::FromMtu, 1400);
    assert_eq!(clamped(&mut lab, &mss(1340)), [mss(1340); 4]);
}

/// TCP-17: wherever the option lies, also on odd offsets, the checksum is right (`read` checks it), and the others stay.
#[test]
fn tcp_17_option_offsets() {
    for before in 0..8usize {
        let options = |value| {
            let mut options = vec![1; before];
            options.extend(mss(value));
            options.extend([4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
            options.resize(options.len().next_multiple_of(4), 0);
            options
        };
        let mut lab = clamping(MssClamp::Off, MssClamp::Fixed(1360), 1500);
        assert_eq!(clamped(&mut lab, &options(1460)), [(); 4].map(|()| options(1360)));
    }
    // After another option of odd length; and broken or missing ones are left alone.
    let mut lab = clamping(MssClamp::Off, MssClamp::Fixed(1360), 1500);
    assert_eq!(clamped(&mut lab, &[3, 3, 7, 2, 4, 5, 180, 0])[0], [3, 3, 7, 2, 4, 5, 80, 0]);
    for options in [
        &[][..],
        &[1, 1, 1, 1],
        &[0, 2, 4, 5, 180, 0, 0, 0],
        &[2, 3, 5, 180],
        &[1, 2, 4, 5],
        &[1, 1, 1, 2],
        &[8, 0, 2, 4],
        &[8, 40, 2, 4],
    ] {
        let mut lab = clamping(MssClamp::Off, MssClamp::Fixed(1360), 1500);
        assert_eq!(clamped(&mut lab, options), [(); 4].map(|()| options.to_vec()), "{options:?}");
    }
}

/// TCP-17: a segment that is no SYN is left alone; connections from outside are clamped too.
#[test]
fn tcp_17_which_segments() {
    let mut lab = clamping(MssClamp::Off, MssClamp::Fixed(1360), 1500);
    let mut connection = Connection::outbound();
    connection.open(&mut lab);
    let odd = tcp_with(INSIDE, end(H), end(S), "A", 1001, 1, b"x", &mss(1460));
    assert_eq!(read(&lab.pass(INSIDE, &odd, OUTSIDE)).transport[20..24], mss(1460));
    let syn = tcp_with(OUTSIDE, end(S2), end("203.0.113.5:8080"), "S", 1, 0, b"", &mss(1460));
    assert_eq!(read(&lab.pass(OUTSIDE, &syn, INSIDE)).transport[20..24], mss(1360));
    // A checksum that was wrong stays wrong by as much.
    let mut wrong = tcp_with(INSIDE, end(H), end(S2), "S", 1, 0, b"", &mss(1460));
    let right = lab.pass(INSIDE, &wrong, OUTSIDE);
    wrong[34 + 14] ^= 0x55; // the window
    let out = lab.pass(INSIDE, &wrong, OUTSIDE);
    assert_eq!((&out[34 + 16..34 + 18], &out[34 + 20..34 + 24]), (&right[34 + 16..34 + 18], &mss(1360)[..]));
}

/// A datagram of UDP's is not taken for a segment, nor a segment behind IP options misread.
#[test]
fn tcp_17_only_tcp_and_where_it_begins() {
    let mut lab = clamping(MssClamp::Off, MssClamp::Fixed(1360), 1500);
    let payload = [0xff; 64];
    assert_eq!(read(&lab.pass(INSIDE, &udp(INSIDE, end(H), end(S), &payload), OUTSIDE)).payload, payload);
    let syn = tcp_with(INSIDE, end(H), end(S), "S", 1, 0, b"", &mss(1460));
    let behind_options = with_header(&syn, |header| header.options = [1, 1, 1, 0].into());
    assert_eq!(read(&lab.pass(INSIDE, &behind_options, OUTSIDE)).transport[20..24], mss(1360));
}
