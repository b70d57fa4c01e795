//! ICMP through NAT44: requirements §3. Packets are built by etherparse in the form that each side should see, and
//! compared byte by byte.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod common;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::moves::moves;
use common::scene::{error, forward, one_to_one, with_header, with_pool};
use common::{End, INSIDE, Lab, MACS, OUTSIDE, PEER, echo, end, fragments, icmp, pool, read, spec, tcp, udp, udp_ttl};
use dataplane::counters::{Drop, IcmpError};
use dataplane::plan::{ForwardProtocol, IcmpPolicy, InterfaceId, Spec, Timers};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, TcpHeader, UdpHeader};

/// The inside host, as it is outside, and a server. For an echo the first number is its identifier.
const H: &str = "192.168.1.10:4000";
const EXTERNAL: &str = "203.0.113.5:4711";
const S: &str = "198.18.0.1:1000";
/// A router on the way, and one inside that has no mapping.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const INSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    UdpWithoutChecksum,
    Echo,
}
use Kind::{Echo, Tcp, Udp, UdpWithoutChecksum};

const KINDS: [Kind; 4] = [Tcp, Udp, UdpWithoutChecksum, Echo];
const PAYLOAD: &[u8] =
    b"a payload of the packet, long enough to be quoted in part, or cut off where a router quotes little";

/// An IPv4 header with everything in it that must not change.
fn header(source: Ipv4Addr, destination: Ipv4Addr, ttl: u8, protocol: IpNumber, options: &[u8], len: usize) -> Vec<u8> {
    let mut header = Ipv4Header::new(len as u16, ttl, protocol, source.octets(), destination.octets()).unwrap();
    header.identification = 0xbeef;
    header.ecn = 1.try_into().unwrap();
    header.options = options.try_into().unwrap();
    header.total_len = (header.header_len() + len) as u16;
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

/// A packet of a flow, from the client (a SYN, a datagram, an echo request) or from the server.
fn packet(kind: Kind, from_client: bool, source: End, destination: End, ttl: u8, options: &[u8]) -> Vec<u8> {
    let (from, to) = (source.0.octets(), destination.0.octets());
    let (protocol, transport) = match kind {
        Tcp => {
            let mut tcp = TcpHeader::new(source.1, destination.1, 0x0102_0304, 65_000);
            tcp.syn = true;
            tcp.ack = !from_client;
            tcp.checksum = tcp.calc_checksum_ipv4_raw(from, to, PAYLOAD).unwrap();
            (IpNumber::TCP, tcp.to_bytes().to_vec())
        }
        Udp | UdpWithoutChecksum => {
            let mut udp = UdpHeader::without_ipv4_checksum(source.1, destination.1, PAYLOAD.len()).unwrap();
            if kind == Udp {
                udp.checksum = udp.calc_checksum_ipv4_raw(from, to, PAYLOAD).unwrap();
            }
            (IpNumber::UDP, udp.to_bytes().to_vec())
        }
        Echo => {
            let echo = |id| IcmpEchoHeader { id, seq: 9 };
            let kind = if from_client {
                Icmpv4Type::EchoRequest(echo(source.1))
            } else {
                Icmpv4Type::EchoReply(echo(destination.1))
            };
            (IpNumber::ICMP, Icmpv4Header::with_checksum(kind, PAYLOAD).to_bytes().to_vec())
        }
    };
    let payload = [&transport[..], PAYLOAD].concat();
    [header(source.0, destination.0, ttl, protocol, options, payload.len()), payload].concat()
}

/// An ICMP message with everything in it given.
fn message(from: Ipv4Addr, to: Ipv4Addr, ttl: u8, start: [u8; 2], word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let kind = Icmpv4Type::Unknown { type_u8: start[0], code_u8: start[1], bytes5to8: word };
    let icmp = [&Icmpv4Header::with_checksum(kind, rest).to_bytes()[..], rest].concat();
    [header(from, to, ttl, IpNumber::ICMP, &[], icmp.len()), icmp].concat()
}

/// A frame that arrives at the gateway.
fn arriving(interface: InterfaceId, packet: &[u8]) -> Vec<u8> {
    [&MACS[usize::from(interface.0)].0[..], &PEER.0, &[8, 0], packet].concat()
}

/// A frame that the gateway sends.
fn leaving(interface: InterfaceId, packet: &[u8]) -> Vec<u8> {
    [&PEER.0[..], &MACS[usize::from(interface.0)].0, &[8, 0], packet].concat()
}

/// A gateway with a flow between H and S through [`EXTERNAL`], whose packets crossed byte for byte as they should.
#[track_caller]
fn flow(kind: Kind) -> Lab {
    let (h, external, s) = (end(H), end(EXTERNAL), end(S));
    let mut lab = Lab::new(with_pool(pool(&["203.0.113.5"], 4711..=4711)));
    let out = lab.pass(INSIDE, &arriving(INSIDE, &packet(kind, true, h, s, 64, &[])), OUTSIDE);
    assert_eq!(out, leaving(OUTSIDE, &packet(kind, true, external, s, 63, &[])), "{kind:?}");
    let back = lab.pass(OUTSIDE, &arriving(OUTSIDE, &packet(kind, false, s, external, 60, &[])), INSIDE);
    assert_eq!(back, leaving(INSIDE, &packet(kind, false, s, h, 59, &[])), "{kind:?}");
    lab.recount();
    lab
}

/// An error about what H sent goes from the router to H, byte for byte; the quote is `change`d in what the router says
/// and in what H hears.
#[track_caller]
fn from_outside(kind: Kind, start: [u8; 2], word: [u8; 4], options: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut lab = flow(kind);
    let said = change(packet(kind, true, end(EXTERNAL), end(S), 7, options));
    let heard = change(packet(kind, true, end(H), end(S), 7, options));
    let error = message(ROUTER, end(EXTERNAL).0, 64, start, word, &said);
    let expected = message(ROUTER, end(H).0, 63, start, word, &heard);
    let seen = lab.pass(OUTSIDE, &arriving(OUTSIDE, &error), INSIDE);
    assert_eq!(seen, leaving(INSIDE, &expected), "{kind:?} {start:?}, {} bytes", said.len());
    lab.moved(moves().inbound(1));
}

/// An error about what S sent goes from `router` to S, from the flow's own external address, byte for byte.
#[track_caller]
fn from_inside(kind: Kind, router: Ipv4Addr, start: [u8; 2], options: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let mut lab = flow(kind);
    let said = change(packet(kind, false, end(S), end(H), 7, options));
    let heard = change(packet(kind, false, end(S), end(EXTERNAL), 7, options));
    let error = message(router, end(S).0, 64, start, [0; 4], &said);
    let expected = message(end(EXTERNAL).0, end(S).0, 63, start, [0; 4], &heard);
    let seen = lab.pass(INSIDE, &arriving(INSIDE, &error), OUTSIDE);
    assert_eq!(seen, leaving(OUTSIDE, &expected), "{kind:?} {start:?}, {} bytes", said.len());
    lab.moved(moves().outbound(1));
}

fn cut(len: usize) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |mut quote| {
        quote.truncate(len);
        quote
    }
}

// --- Queries ----------------------------------------------------------------------------------------------------------

/// ICM-01: two hosts ping with the same identifier at once: each gets its own reply.
#[test]
fn icm_01_queries_and_replies() {
    let mut lab = Lab::default_lab();
    let hosts = ["192.168.1.10:77", "192.168.1.11:77"].map(end);
    let outside = hosts.map(|host| lab.ping_out(host, end(S).0));
    assert_eq!(outside.map(|seen| seen.0), [Ipv4Addr::new(203, 0, 113, 5); 2]);
    assert_ne!(outside[0].1, outside[1].1);
    for (host, external) in hosts.into_iter().zip(outside) {
        let reply = read(&lab.pass(OUTSIDE, &echo(OUTSIDE, end(S).0, external.0, false, external.1, 1), INSIDE));
        assert_eq!((reply.source.0, reply.destination, &reply.payload[..]), (end(S).0, host, &b"abcdefgh"[..]));
    }
    lab.moved(moves().outbound(2).inbound(2).opened("icmp-active", 2, 2));
    // A stranger's reply, and one with another identifier, do not pass.
    let other = Ipv4Addr::new(198, 18, 0, 99);
    lab.dropped(OUTSIDE, &echo(OUTSIDE, other, outside[0].0, false, outside[0].1, 1), Drop::Filtered);
    lab.dropped(OUTSIDE, &echo(OUTSIDE, end(S).0, outside[0].0, false, 9, 1), Drop::Unsolicited);
}

/// ICM-01: the other queries of RFC 792 and RFC 950: timestamp, information, address mask.
#[test]
fn icm_01_other_queries() {
    let mut lab = Lab::default_lab();
    for (request, reply) in [(13, 14), (15, 16), (17, 18)] {
        let query = icmp(INSIDE, end(H).0, end(S).0, request, 0, [0, 77, 0, 1], &[0; 12]);
        let out = read(&lab.pass(INSIDE, &query, OUTSIDE));
        let id = [out.transport[4], out.transport[5]];
        assert_eq!((out.source.0, out.transport[0]), (Ipv4Addr::new(203, 0, 113, 5), request));
        let answer = icmp(OUTSIDE, end(S).0, out.source.0, reply, 0, [id[0], id[1], 0, 1], &[0; 12]);
        let back = read(&lab.pass(OUTSIDE, &answer, INSIDE));
        assert_eq!(
            (back.destination.0, &back.transport[..6]),
            (end(H).0, &[reply, 0, back.transport[2], back.transport[3], 0, 77][..])
        );
    }
    // A reply that nobody asked for opens nothing.
    lab.recount();
    lab.dropped(INSIDE, &echo(INSIDE, end(H).0, end(S).0, false, 78, 1), Drop::Unsolicited);
    lab.moved(moves().dropped("inside", Drop::Unsolicited, 1));
}

/// ICM-02: one identifier outside for every destination.
#[test]
fn icm_02_query_mapping_is_endpoint_independent() {
    let mut lab = Lab::default_lab();
    let seen: HashSet<End> = (1..20).map(|last| lab.ping_out(end(H), Ipv4Addr::new(198, 18, 0, last))).collect();
    assert_eq!(seen.len(), 1);
    lab.moved(moves().outbound(19).opened("icmp-active", 19, 1));
}

/// ICM-03, ICM-04: a query lives for 60 s, or what is configured; its mapping goes with its last query.
#[test]
fn icm_03_query_timer() {
    for timer in [60, 90] {
        let timers = Timers { icmp: Duration::from_secs(timer), ..Timers::default() };
        for (idle, alive) in [(timer - 1, true), (timer + 1, false)] {
            let mut lab = Lab::new(Spec { timers: timers.clone(), ..spec() });
            let external = lab.ping_out(end(H), end(S).0);
            lab.wait_secs(idle);
            let reply = echo(OUTSIDE, end(S).0, external.0, false, external.1, 1);
            assert_eq!(lab.arrives(&reply).is_some(), alive);
            assert_eq!(lab.mappings(), [0, 0, u64::from(alive)]);
        }
    }
    assert_eq!(Timers::default().icmp, Duration::from_secs(60));
}

// --- Errors from outside ----------------------------------------------------------------------------------------------

/// ICM-08: an error about what an inside host has sent: every byte of it, quoted whole or in part, of every kind.
#[test]
fn icm_08_errors_from_outside() {
    for kind in KINDS {
        for start in [[3, 0], [3, 1], [3, 3], [3, 13], [11, 0], [11, 1], [12, 0]] {
            from_outside(kind, start, [0; 4], &[], |quote| quote);
        }
        // From eight bytes of the transport header on; but half of TCP's checksum can't be right.
        for len in (28..60).filter(|&len| kind != Tcp || len != 37) {
            from_outside(kind, [11, 0], [0; 4], &[], cut(len));
        }
        from_outside(kind, [3, 4], [0, 0, 0x05, 0x14], &[], cut(28));
        from_outside(kind, [12, 0], [20, 0, 0, 0], &[], cut(28));
    }
}

/// ICM-08: no mapping, no entry: dropped without a word. The error must come to where the quoted packet was sent from.
#[test]
fn icm_08_errors_about_nothing() {
    let (h, external, s) = (end(H), end(EXTERNAL), end(S));
    let mut lab = flow(Udp);
    let arrives = |quote: Vec<u8>| arriving(OUTSIDE, &message(ROUTER, external.0, 64, [3, 3], [0; 4], &quote));
    lab.dropped(OUTSIDE, &arrives(packet(Udp, true, (external.0, 4712), s, 7, &[])), Drop::IcmpErrorNoSession);
    lab.dropped(OUTSIDE, &arrives(packet(Tcp, true, external, s, 7, &[])), Drop::IcmpErrorNoSession);
    lab.dropped(OUTSIDE, &arrives(packet(Udp, true, h, s, 7, &[])), Drop::IcmpErrorNoSession);
    lab.dropped(OUTSIDE, &arrives(packet(Udp, true, s, external, 7, &[])), Drop::IcmpErrorNoSession);
    lab.moved(moves().dropped("outside", Drop::IcmpErrorNoSession, 4));
    lab.wait_secs(301);
    lab.dropped(OUTSIDE, &arrives(packet(Udp, true, external, s, 7, &[])), Drop::IcmpErrorNoSession);
    // Straight to the inside address.
    let inner = message(ROUTER, h.0, 64, [3, 3], [0; 4], &packet(Udp, true, h, s, 7, &[]));
    lab.dropped(OUTSIDE, &arriving(OUTSIDE, &inner), Drop::Unsolicited);
}

/// ICM-08: the session with that server has ended, but the mapping still says who sent it.
#[test]
fn icm_08_the_mapping_is_enough() {
    let mut lab = flow(Udp);
    lab.wait_secs(200);
    lab.udp_out(end(H), end("198.18.0.2:2"));
    lab.wait_secs(101);
    assert_eq!(lab.sessions(), 1);
    let quote = packet(Udp, true, end(EXTERNAL), end(S), 7, &[]);
    let error = message(ROUTER, end(EXTERNAL).0, 64, [3, 3], [0; 4], &quote);
    let seen = lab.pass(OUTSIDE, &arriving(OUTSIDE, &error), INSIDE);
    let heard = packet(Udp, true, end(H), end(S), 7, &[]);
    assert_eq!(seen, leaving(INSIDE, &message(ROUTER, end(H).0, 63, [3, 3], [0; 4], &heard)));
}

/// ICM-08: about flows of static entries, with and without a session.
#[test]
fn icm_08_static_entries() {
    let forwards = vec![forward(ForwardProtocol::Udp, "203.0.113.9", 80..=80, end(H))];
    let static_nat = vec![one_to_one("203.0.113.60", "192.168.1.25")];
    let mut lab = Lab::new(Spec { forwards, static_nat, ..spec() });
    for (external, inside) in [("203.0.113.9:80", H), ("203.0.113.60:9", "192.168.1.25:9")] {
        let (external, inside) = (end(external), end(inside));
        let quote = packet(Udp, true, external, end(S), 7, &[]);
        let error = arriving(OUTSIDE, &message(ROUTER, external.0, 64, [3, 1], [0; 4], &quote));
        let heard = message(ROUTER, inside.0, 63, [3, 1], [0; 4], &packet(Udp, true, inside, end(S), 7, &[]));
        assert_eq!(lab.pass(OUTSIDE, &error, INSIDE), leaving(INSIDE, &heard));
        assert!(lab.udp_in(end(S), external, inside));
        assert_eq!(lab.pass(OUTSIDE, &error, INSIDE), leaving(INSIDE, &heard));
    }
    // And of echo replies that a static host has sent.
    let (external, inside) = (Ipv4Addr::new(203, 0, 113, 60), Ipv4Addr::new(192, 168, 1, 25));
    let (client, id) = (end(S).0, 77);
    lab.pass(OUTSIDE, &echo(OUTSIDE, client, external, true, id, 1), INSIDE);
    let reply = |from: Ipv4Addr| packet(Echo, false, (from, 0), (client, id), 7, &[]);
    let error = message(ROUTER, external, 64, [11, 0], [0; 4], &reply(external));
    let heard = message(ROUTER, inside, 63, [11, 0], [0; 4], &reply(inside));
    assert_eq!(lab.pass(OUTSIDE, &arriving(OUTSIDE, &error), INSIDE), leaving(INSIDE, &heard));
}

// --- Errors from inside -----------------------------------------------------------------------------------------------

/// ICM-09: an error about what an inside host was sent, by the host itself and by a router that has no mapping: every
/// byte of it. It comes from the flow's external address.
#[test]
fn icm_09_errors_from_inside() {
    for kind in KINDS {
        for router in [end(H).0, INSIDE_ROUTER] {
            for start in [[3, 1], [3, 3], [11, 0], [12, 0]] {
                from_inside(kind, router, start, &[], |quote| quote);
            }
            for len in (28..60).filter(|&len| kind != Tcp || len != 37) {
                from_inside(kind, router, [3, 3], &[], cut(len));
            }
        }
    }
}

/// ICM-09: a router with an address of its own outside is seen by that one.
#[test]
fn icm_09_from_a_router_with_its_own_address() {
    let static_nat = vec![one_to_one("203.0.113.60", &INSIDE_ROUTER.to_string())];
    let mut lab = Lab::new(Spec { static_nat, ..with_pool(pool(&["203.0.113.5"], 4711..=4711)) });
    assert_eq!(lab.udp_out(end(H), end(S)), end(EXTERNAL));
    lab.pass(OUTSIDE, &udp(OUTSIDE, end(S), end(EXTERNAL), b"in"), INSIDE);
    let error = message(INSIDE_ROUTER, end(S).0, 64, [11, 0], [0; 4], &packet(Udp, false, end(S), end(H), 7, &[]));
    let own = Ipv4Addr::new(203, 0, 113, 60);
    let heard = message(own, end(S).0, 63, [11, 0], [0; 4], &packet(Udp, false, end(S), end(EXTERNAL), 7, &[]));
    assert_eq!(lab.pass(INSIDE, &arriving(INSIDE, &error), OUTSIDE), leaving(OUTSIDE, &heard));
}

/// ICM-09: about no flow that the gateway knows: nothing of the inside gets out.
#[test]
fn icm_09_errors_about_nothing() {
    let mut lab = flow(Udp);
    let about = |quote: Vec<u8>| arriving(INSIDE, &message(end(H).0, end(S).0, 64, [3, 3], [0; 4], &quote));
    lab.dropped(INSIDE, &about(packet(Udp, false, end(S), end("192.168.1.10:1"), 7, &[])), Drop::IcmpErrorNoSession);
    lab.dropped(INSIDE, &about(packet(Tcp, false, end(S), end(H), 7, &[])), Drop::IcmpErrorNoSession);
    lab.dropped(INSIDE, &about(packet(Udp, true, end(H), end(S), 7, &[])), Drop::IcmpErrorNoSession);
    lab.moved(moves().dropped("inside", Drop::IcmpErrorNoSession, 3));
    lab.wait_secs(301);
    lab.dropped(INSIDE, &about(packet(Udp, false, end(S), end(H), 7, &[])), Drop::IcmpErrorNoSession);
}

// --- What is quoted ---------------------------------------------------------------------------------------------------

/// ICM-05: an error whose ICMP checksum is wrong is dropped without a word.
#[test]
fn icm_05_bad_icmp_checksum() {
    let mut lab = flow(Udp);
    let outer = message(ROUTER, end(EXTERNAL).0, 64, [3, 3], [0; 4], &packet(Udp, true, end(EXTERNAL), end(S), 7, &[]));
    let inner = message(end(H).0, end(S).0, 64, [3, 3], [0; 4], &packet(Udp, false, end(S), end(H), 7, &[]));
    for at in [20, 21, 22, 24, 60, 100] {
        for (from, packet) in [(OUTSIDE, &outer), (INSIDE, &inner)] {
            let mut wrong = arriving(from, packet);
            wrong[14 + at] ^= if at == 20 { 8 } else { 4 }; // the type stays an error: 3 becomes 11
            lab.dropped(from, &wrong, Drop::IcmpErrorChecksum);
        }
    }
    lab.moved(moves().dropped("inside", Drop::IcmpErrorChecksum, 6).dropped("outside", Drop::IcmpErrorChecksum, 6));
}

/// ICM-06 a: an error whose quoted IPv4 header has a wrong checksum, or is none, is dropped without a word.
#[test]
fn icm_06_bad_quoted_header() {
    let mut lab = flow(Udp);
    let quote = packet(Udp, true, end(EXTERNAL), end(S), 7, &[]);
    let mut quotes: Vec<Vec<u8>> = (0..20)
        .map(|at| {
            let mut quote = quote.clone();
            quote[at] ^= 0x20;
            quote
        })
        .collect();
    quotes.extend([0, 1, 19, 20, 27].map(|len| quote[..len].to_vec()));
    for quote in &quotes {
        let error = message(ROUTER, end(EXTERNAL).0, 64, [3, 3], [0; 4], quote);
        lab.dropped(OUTSIDE, &arriving(OUTSIDE, &error), Drop::IcmpErrorQuote);
    }
    lab.moved(moves().dropped("outside", Drop::IcmpErrorQuote, quotes.len() as i64));
}

/// ICM-06 b: options of the quoted header are skipped, and stay.
#[test]
fn icm_06_options_in_the_quoted_header() {
    let options = [0x44, 12, 13, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 7, 4, 192, 168, 1, 10, 0];
    let longest = [1; 40];
    for kind in KINDS {
        for options in [&options[..], &longest] {
            from_outside(kind, [11, 0], [0; 4], options, |quote| quote);
            from_outside(kind, [3, 4], [0, 0, 5, 20], options, cut(20 + options.len() + 8));
            from_inside(kind, INSIDE_ROUTER, [11, 0], options, |quote| quote);
            from_inside(kind, end(H).0, [3, 3], options, cut(20 + options.len() + 8));
        }
    }
}

/// ICM-06 c: the quoted transport checksum is not verified: a wrong one stays wrong by as much.
#[test]
fn icm_06_bad_quoted_transport_checksum() {
    let spoilt = |mut quote: Vec<u8>| {
        let last = quote.len() - 1;
        quote[last] ^= 0xff;
        quote
    };
    for kind in KINDS {
        from_outside(kind, [3, 1], [0; 4], &[], spoilt);
        from_inside(kind, end(H).0, [3, 3], &[], spoilt);
    }
}

/// An RFC 4884 extension with one MPLS label stack entry (RFC 4950).
fn mpls() -> Vec<u8> {
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0xfe];
    let checksum = etherparse::checksum::Sum16BitWords::new().add_slice(&extension).ones_complement();
    extension[2..4].copy_from_slice(&checksum.to_ne_bytes());
    extension
}

/// ICM-07: an extension behind the quote (RFC 4884), and the padding before it, pass untouched.
#[test]
fn icm_07_extensions() {
    let extended = |quote: Vec<u8>| {
        let mut quote = quote;
        quote.resize(128, 0); // padded, or cut off
        [quote, mpls()].concat()
    };
    assert!(packet(Tcp, true, end(H), end(S), 7, &[1; 16]).len() > 128, "this one is cut off");
    for kind in KINDS {
        for options in [&[][..], &[1; 16]] {
            // The length of the quote in words; and as before RFC 4884, without it.
            for words in [32, 0] {
                from_outside(kind, [11, 0], [0, words, 0, 0], options, extended);
                from_outside(kind, [3, 1], [0, words, 0, 0], options, extended);
            }
            from_inside(kind, INSIDE_ROUTER, [11, 0], options, extended);
        }
    }
    // A length that lies changes nothing that would not have been changed, and cuts the quote off where it says.
    from_outside(Udp, [11, 0], [0, 255, 0, 0], &[], |quote| quote);
    let mut lab = flow(Udp);
    let lie =
        message(ROUTER, end(EXTERNAL).0, 64, [11, 0], [0, 6, 0, 0], &packet(Udp, true, end(EXTERNAL), end(S), 7, &[]));
    lab.dropped(OUTSIDE, &arriving(OUTSIDE, &lie), Drop::IcmpErrorQuote);
}

/// ICM-10, N44-23: errors of either side neither refresh nor end what they are about.
#[test]
fn icm_10_errors_leave_the_session() {
    let about_sent = packet(Udp, true, end(EXTERNAL), end(S), 7, &[]);
    let about_received = packet(Udp, false, end(S), end(H), 7, &[]);
    for kind in [3, 11, 12] {
        let mut lab = flow(Udp);
        for _ in 0..2 {
            lab.wait_secs(149);
            let error = message(ROUTER, end(EXTERNAL).0, 64, [kind, 1], [0; 4], &about_sent);
            lab.pass(OUTSIDE, &arriving(OUTSIDE, &error), INSIDE);
            let error = message(end(H).0, end(S).0, 64, [kind, 1], [0; 4], &about_received);
            lab.pass(INSIDE, &arriving(INSIDE, &error), OUTSIDE);
        }
        assert_eq!(lab.sessions(), 1);
        lab.recount();
        lab.wait_secs(3);
        lab.moved(moves().expired("udp-active", 1, 1));
    }
}

// --- Errors of the gateway's own --------------------------------------------------------------------------------------

/// ICM-12, D2: a query that gets no identifier is answered by 3/1. ICM-13: not on a silent interface.
#[test]
fn icm_12_no_identifier_left() {
    for silent in [false, true] {
        let icmp = IcmpPolicy { silent: if silent { vec![INSIDE] } else { Vec::new() }, ..IcmpPolicy::default() };
        let mut lab = Lab::new(Spec { icmp, ..with_pool(pool(&["203.0.113.5"], 4711..=4711)) });
        lab.ping_out(end(H), end(S).0);
        lab.recount();
        let query = echo(INSIDE, end(H).0, end(S).0, true, 9, 1);
        if silent {
            lab.dropped(INSIDE, &query, Drop::NoPort);
        } else {
            let answer = lab.refused(INSIDE, &query, Drop::NoPort);
            assert_eq!((&answer.transport[..2], &answer.transport[8..]), (&[3, 1][..], &query[14..]));
        }
        let refused = moves().dropped("inside", Drop::NoPort, 1).and("mapping-failures-ports", 1);
        lab.moved(if silent { refused } else { refused.answered("inside", "icmp4-3/1", 1) });
    }
}

/// ICM-13: a silent interface gets no error of any kind, the others do.
#[test]
fn icm_13_silent_interfaces() {
    let icmp = IcmpPolicy { silent: vec![OUTSIDE], ..IcmpPolicy::default() };
    let mut lab = Lab::new(Spec { icmp, ..spec() });
    let external = lab.udp_out(end(H), end(S));
    lab.dropped(OUTSIDE, &udp_ttl(OUTSIDE, end(S), external, b"", 1), Drop::TtlExceeded);
    assert_eq!(lab.refused(INSIDE, &udp_ttl(INSIDE, end(H), end(S), b"", 1), Drop::TtlExceeded).transport[0], 11);
}

/// ICM-14: the time to live runs out in the gateway: time exceeded, from the address of the interface that the packet
/// came in by, about the packet as it came; from both sides, for every protocol.
#[test]
fn icm_14_time_exceeded() {
    let (inside, outside) = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(198, 51, 100, 2));
    for kind in KINDS {
        for ttl in [0, 1] {
            let mut lab = flow(kind);
            let out = packet(kind, true, end(H), end(S), ttl, &[]);
            let answer = lab.refused(INSIDE, &arriving(INSIDE, &out), Drop::TtlExceeded);
            assert_eq!((answer.source.0, answer.destination.0, answer.ttl), (inside, end(H).0, 64));
            assert_eq!((&answer.transport[..2], &answer.transport[4..8]), (&[11, 0][..], &[0; 4][..]));
            assert_eq!(answer.transport[8..], out);
            lab.moved(moves().dropped("inside", Drop::TtlExceeded, 1).answered("inside", "icmp4-11/0", 1));
            let back = packet(kind, false, end(S), end(EXTERNAL), ttl, &[]);
            let answer = lab.refused(OUTSIDE, &arriving(OUTSIDE, &back), Drop::TtlExceeded);
            assert_eq!((answer.source.0, answer.destination.0), (outside, end(S).0));
            assert_eq!(answer.transport[8..], back, "the external address, not H's");
            lab.moved(moves().dropped("outside", Drop::TtlExceeded, 1).answered("outside", "icmp4-11/0", 1));
        }
        // With a TTL of 2 it passes.
        let mut lab = flow(kind);
        let out = lab.pass(INSIDE, &arriving(INSIDE, &packet(kind, true, end(H), end(S), 2, &[])), OUTSIDE);
        assert_eq!(out, leaving(OUTSIDE, &packet(kind, true, end(EXTERNAL), end(S), 1, &[])));
    }
    // Before there is a session: none is made for it.
    let mut lab = Lab::default_lab();
    lab.refused(INSIDE, &udp_ttl(INSIDE, end(H), end(S), b"", 1), Drop::TtlExceeded);
    assert_eq!((lab.sessions(), lab.mappings()), (0, [0; 3]));
}

/// ICM-14: a packet quoted is cut off so that the error has at most 576 bytes (RFC 1812 §4.3.2.3).
#[test]
fn icm_14_long_quotes() {
    let mut lab = Lab::default_lab();
    let long = udp_ttl(INSIDE, end(H), end(S), &[7; 1400], 1);
    let answer = lab.refused(INSIDE, &long, Drop::TtlExceeded);
    assert_eq!(answer.transport[8..], long[14..14 + 576 - 28]);
}

/// ICM-14, RTR-02: no error is sent about an error, nor about one that can't be translated; nor ever a source quench,
/// redirect or reply.
#[test]
fn icm_14_no_error_about_errors() {
    let mut lab = flow(Udp);
    let quote = packet(Udp, true, end(EXTERNAL), end(S), 7, &[]);
    let error = message(ROUTER, end(EXTERNAL).0, 1, [3, 3], [0; 4], &quote);
    lab.dropped(OUTSIDE, &arriving(OUTSIDE, &error), Drop::TtlExceeded);
    let quote = packet(Udp, false, end(S), end(H), 7, &[]);
    let error = message(end(H).0, end(S).0, 1, [3, 3], [0; 4], &quote);
    lab.dropped(INSIDE, &arriving(INSIDE, &error), Drop::TtlExceeded);
    lab.moved(moves().dropped("outside", Drop::TtlExceeded, 1).dropped("inside", Drop::TtlExceeded, 1));
    let sent: Vec<(u8, u8, u8)> = IcmpError::ALL.iter().map(|error| error.type_code()).collect();
    assert!(sent.iter().all(|&(family, kind, _)| family == 6 || [3, 11].contains(&kind)), "{sent:?}");
}

/// ICM-14: a flood that wants answers gets them at the configured rate; the bucket fills again.
#[test]
fn icm_14_errors_are_rate_limited() {
    let icmp = IcmpPolicy { rate: 10, burst: 12, ..IcmpPolicy::default() };
    let mut lab = Lab::new(Spec { icmp, ..spec() });
    lab.udp_out(end(H), end(S));
    lab.neighbour(INSIDE, end(H).0.into(), dataplane::message::NeighbourState::Reachable(PEER));
    lab.recount();
    let probes: Vec<_> = (0..30).map(|port| udp_ttl(INSIDE, end(H), (end(S).0, 33_434 + port), b"", 1)).collect();
    for (wait, answers) in [(0, 12), (0, 0), (500, 5), (100, 1), (10_000, 12)] {
        lab.wait(Duration::from_millis(wait));
        assert_eq!(lab.send_all(INSIDE, &probes).frames.len(), answers);
        let answers = answers as i64;
        lab.moved(
            moves()
                .dropped("inside", Drop::TtlExceeded, 30)
                .answered("inside", "icmp4-11/0", answers)
                .and("icmp-rate-limited", 30 - answers),
        );
    }
}

/// ICM-15: types that are neither query nor error are dropped, and counted by their name.
#[test]
fn icm_15_other_types() {
    let mut lab = flow(Udp);
    for kind in [1, 2, 6, 7, 9, 10, 19, 30, 40, 41, 42, 43, 255] {
        lab.dropped(INSIDE, &icmp(INSIDE, end(H).0, end(S).0, kind, 0, [0; 4], &[0; 8]), Drop::IcmpType);
        lab.dropped(OUTSIDE, &icmp(OUTSIDE, end(S).0, end(EXTERNAL).0, kind, 0, [0; 4], &[0; 8]), Drop::IcmpType);
    }
    lab.moved(moves().dropped("inside", Drop::IcmpType, 13).dropped("outside", Drop::IcmpType, 13));
}

/// ICM-16: an error that quotes any protocol, cut off anywhere, of any header length, never stops the gateway: it is
/// dropped for one of the reasons that errors have, or passes with all its checksums right.
#[test]
fn icm_16_hostile_quotes() {
    let (external, h, s) = (end(EXTERNAL), end(H), end(S));
    let mut lab = flow(Udp);
    let noise: Vec<u8> = (0..64u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let ports = |from: End, to: End| [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let (mut sent, mut passed) = (0, 0);
    let reasons = [Drop::IcmpErrorQuote, Drop::IcmpErrorProtocol, Drop::IcmpErrorNoSession, Drop::IcmpErrorChecksum];
    for protocol in 0..=255 {
        for len in 0..=64 {
            for known in [true, false] {
                for (from, outer, inner) in
                    [(OUTSIDE, (ROUTER, external.0), (external, s)), (INSIDE, (h.0, s.0), (s, h))]
                {
                    let mut rest = noise.clone();
                    if known {
                        rest[..4].copy_from_slice(&ports(inner.0, inner.1));
                    }
                    let quote =
                        [header(inner.0.0, inner.1.0, 7, IpNumber(protocol), &[], 500), rest[..len].to_vec()].concat();
                    // All of it, and itself cut off.
                    for quote in [&quote[..], &quote[..len]] {
                        let error = message(outer.0, outer.1, 64, [3, 3], [0; 4], quote);
                        sent += 1;
                        for (_, frame) in lab.send(from, &arriving(from, &error)).frames {
                            read(&frame);
                            passed += 1;
                        }
                    }
                }
            }
        }
    }
    let dropped: u64 = reasons.iter().map(|&reason| lab.counters.drops(reason)).sum();
    assert_eq!(passed + dropped, sent);
    // UDP with the flow's ports and at least eight bytes, both ways; of those cut off, from 28 bytes on.
    assert_eq!(passed, 2 * (57 + 37));
    // Every header length, also beyond the end, and every version.
    for first in 0..=255 {
        for len in [20, 28, 44, 60, 64] {
            let mut quote = packet(Udp, true, external, s, 7, &[]);
            quote[0] = first;
            quote[10..12].fill(0);
            let header = (usize::from(first & 15) * 4).min(quote.len());
            let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&quote[..header]).ones_complement();
            quote[10..12].copy_from_slice(&sum.to_ne_bytes());
            let error = message(ROUTER, external.0, 64, [3, 3], [0; 4], &quote[..len]);
            for (_, frame) in lab.send(OUTSIDE, &arriving(OUTSIDE, &error)).frames {
                read(&frame);
            }
        }
    }
    assert_eq!(lab.udp_out(h, s), external, "and the flow goes on");
}

/// ICM-16: the protocols that have crashed others: GRE, IPv4 in IPv4, ESP, and an error about an error.
#[test]
fn icm_16_protocols_without_mappings() {
    let mut lab = flow(Udp);
    for protocol in [0, 4, 41, 47, 50, 51, 58, 132, 136, 253, 255] {
        let quote = [header(end(EXTERNAL).0, end(S).0, 7, IpNumber(protocol), &[], 8), vec![0; 8]].concat();
        let error = message(ROUTER, end(EXTERNAL).0, 64, [3, 2], [0; 4], &quote);
        lab.dropped(OUTSIDE, &arriving(OUTSIDE, &error), Drop::IcmpErrorProtocol);
    }
    lab.moved(moves().dropped("outside", Drop::IcmpErrorProtocol, 11));
    let inner = packet(Udp, true, end(EXTERNAL), end(S), 7, &[]);
    let nested = message(end(EXTERNAL).0, end(S).0, 7, [3, 3], [0; 4], &inner);
    let error = message(ROUTER, end(EXTERNAL).0, 64, [11, 0], [0; 4], &nested);
    lab.dropped(OUTSIDE, &arriving(OUTSIDE, &error), Drop::IcmpErrorProtocol);
    // A later fragment has no header to go by.
    let later = with_header(&arriving(OUTSIDE, &inner), |header| header.fragment_offset = 8.try_into().unwrap());
    let error = message(ROUTER, end(EXTERNAL).0, 64, [11, 1], [0; 4], &later[14..]);
    lab.dropped(OUTSIDE, &arriving(OUTSIDE, &error), Drop::IcmpErrorProtocol);
}

/// An error that is itself fragmented can't be verified: its fragments are dropped by their name, those before the first one
/// too.
#[test]
fn icm_16_fragmented_errors() {
    for interface in [OUTSIDE, INSIDE] {
        let mut lab = flow(Udp);
        let name = if interface == OUTSIDE { "outside" } else { "inside" };
        let about = if interface == OUTSIDE { (end(EXTERNAL), end(S)) } else { (end(S), end(H)) };
        let from = if interface == OUTSIDE { ROUTER } else { INSIDE_ROUTER };
        let whole = error(interface, from, 3, 3, &packet(Udp, true, about.0, about.1, 7, &[]));
        let [first, second, third] = &fragments::cut_up(&whole, &[1, 2])[..] else { panic!("three") };
        assert!(lab.send(interface, second).frames.is_empty());
        lab.moved(
            moves().and("received", 1).and(&format!("{name}-received"), 1).and("held", 1).and("fragments-held", 1),
        );
        lab.send_all(interface, &[first.clone(), third.clone()]);
        let dropped = moves().dropped(name, Drop::Fragment, 2).and("drop-fragment", 1);
        lab.moved(dropped.and("held", -1).and("fragments-held", -1));
    }
}

/// A TCP segment's error has its sequence number left alone: the host checks it (RFC 5927).
#[test]
fn icm_08_quoted_sequence_numbers_stay() {
    let mut lab = flow(Tcp);
    let sent = lab.pass(INSIDE, &tcp(INSIDE, end(H), end(S), "A", 0xdead_beef, 1, b"data"), OUTSIDE);
    let seen = read(&lab.pass(OUTSIDE, &error(OUTSIDE, ROUTER, 3, 1, &sent[14..]), INSIDE));
    assert_eq!(seen.transport[8 + 20..][..8], [0x0f, 0xa0, 0x03, 0xe8, 0xde, 0xad, 0xbe, 0xef]);
}
