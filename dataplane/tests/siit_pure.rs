//! Stateless translation of single packets: requirements §7, by the rows' names. Expected bytes are the requirements' own vectors, or
//! put together here field by field; every checksum is verified by etherparse.
#![allow(clippy::cast_possible_truncation)]

use std::net::Ipv6Addr;

use dataplane::counters::{Drop, IcmpError};
use dataplane::packet::parse;
use dataplane::packet::{HeapPacket, HeapPool, Packet};
use dataplane::translate::eam::Role;
use dataplane::translate::embed::Prefix;
use dataplane::translate::siit::{Mtus, Refusal, Settings, UdpChecksumNone, cut, to4, to6};
use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv4Header, Ipv6Header};
use proptest::prelude::*;

const LINK: usize = 14;
const MTUS: Mtus = Mtus { v4: 1500, v6: 1500 };
/// 192.0.2.33 and 198.51.100.2, and what 2001:db8:100::/40 makes of them (RFC 7915 appendix A).
const HOST4: [u8; 4] = [192, 0, 2, 33];
const SERVER4: [u8; 4] = [198, 51, 100, 2];
const HOST6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 1, 0xc0, 0, 2, 0, 0x21, 0, 0, 0, 0, 0, 0];
const SERVER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 1, 0xc6, 0x33, 0x64, 0, 2, 0, 0, 0, 0, 0, 0];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

fn prefix() -> Prefix {
    Prefix::new("2001:db8:100::".parse::<Ipv6Addr>().unwrap().to_bits(), 40).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What words add up to, complemented: zero, if a checksum among them is right.
fn excess(parts: &[&[u8]]) -> u16 {
    let whole = parts.concat();
    u16::from_be_bytes(Sum16BitWords::new().add_slice(&whole).ones_complement().to_ne_bytes())
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Fields of an IPv4 header, of a packet from the host to the server.
#[derive(Clone, Debug)]
struct Four {
    tos: u8,
    identification: u16,
    field: u16,
    ttl: u8,
    protocol: u8,
    options: Vec<u8>,
}

const fn four(protocol: u8) -> Four {
    Four { tos: 0, identification: 0, field: 0, ttl: 64, protocol, options: Vec::new() }
}

impl Four {
    fn before(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, self.tos, 0, 0, 0, 0, 0, 0, self.ttl, self.protocol, 0, 0];
        packet.extend(HOST4.iter().chain(&SERVER4).chain(&self.options));
        put(&mut packet, 2, (header + payload.len()) as u16);
        put(&mut packet, 4, self.identification);
        put(&mut packet, 6, self.field);
        let checksum = excess(&[&packet]);
        put(&mut packet, 10, checksum);
        [&packet[..], payload].concat()
    }
}

/// An IPv6 packet from the host to the server.
fn six(class: u8, next_header: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60 | class >> 4, class << 4, 0, 0, 0, 0, next_header, hop_limit];
    put(&mut packet, 4, payload.len() as u16);
    [&packet[..], &HOST6, &SERVER6, payload].concat()
}

fn pseudo4(protocol: u8, len: usize) -> Vec<u8> {
    let mut pseudo = [&HOST4[..], &SERVER4, &[0, protocol, 0, 0]].concat();
    put(&mut pseudo, 10, len as u16);
    pseudo
}

fn pseudo6(protocol: u8, len: usize) -> Vec<u8> {
    [&HOST6[..], &SERVER6, &(len as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat()
}

/// Where the checksum of a transport is.
fn checksum_at(protocol: u8) -> usize {
    match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        other => panic!("{other}"),
    }
}

fn checked(mut segment: Vec<u8>, protocol: u8, pseudo: &[u8]) -> Vec<u8> {
    let at = checksum_at(protocol);
    put(&mut segment, at, 0);
    let checksum = match (excess(&[pseudo, &segment]), protocol) {
        (0, UDP) => 0xffff,
        (checksum, _) => checksum,
    };
    put(&mut segment, at, checksum);
    segment
}

/// A segment with a right checksum over IPv4, and the same over IPv6: of TCP, UDP, or an echo request.
fn segments(protocol: u8, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match protocol {
        TCP => {
            let header = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
            let segment = [&header[..], data].concat();
            let len = segment.len();
            (checked(segment.clone(), TCP, &pseudo4(TCP, len)), checked(segment, TCP, &pseudo6(TCP, len)))
        }
        UDP => {
            let mut segment = [&[0x04, 0xd2, 0, 53, 0, 0, 0, 0][..], data].concat();
            let len = segment.len();
            put(&mut segment, 4, len as u16);
            (checked(segment.clone(), UDP, &pseudo4(UDP, len)), checked(segment, UDP, &pseudo6(UDP, len)))
        }
        ICMP => {
            let message = |kind: u8| [&[kind, 0, 0, 0, 0x12, 0x34, 0, 1][..], data].concat();
            (checked(message(8), ICMP, &[]), checked(message(128), ICMPV6, &pseudo6(ICMPV6, data.len() + 8)))
        }
        other => panic!("{other}"),
    }
}

/// The packet in a frame that is padded behind it.
fn framed(packet: &[u8]) -> HeapPacket {
    HeapPacket::from_frame(&[&[0xee; LINK][..], packet, &[0xdd; 6]].concat())
}

fn to_six_by(
    packet: &[u8],
    settings: &Settings,
    cut: bool,
    quoted: impl FnMut(Role, u32) -> Option<u128>,
) -> Result<Vec<u8>, Refusal> {
    let mut frame = framed(packet);
    let view = parse::ipv4(frame.data(), LINK).expect("a packet");
    let before = frame.data().to_vec();
    let examined = to6::examine(&frame, &view, settings, quoted);
    assert_eq!(frame.data(), before, "examining changes nothing");
    let plan = examined?;
    let addresses = (prefix().embed(view.source), prefix().embed(view.destination));
    let l4 = to6::translate(&mut frame, &view, &plan, addresses, MTUS, settings, cut).expect("it was examined");
    let data = frame.data()[LINK..].to_vec();
    let is_whole = view.fragment == parse::Fragment::Whole;
    assert_eq!(data.len(), plan.len + if cut && is_whole { 8 } else { 0 });
    assert_eq!(usize::from(word(&data, 4)) + 40, data.len());
    let (header, _) = Ipv6Header::from_slice(&data).expect("IPv6");
    assert_eq!(l4 - LINK, if header.next_header.0 == 44 { 48 } else { 40 });
    Ok(data)
}

fn to_six(packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    to_six_by(packet, &Settings::default(), false, |_, address| Some(prefix().embed(address)))
}

fn to_four_by(
    packet: &[u8],
    identification: u16,
    settings: &Settings,
    quoted: impl FnMut(Role, u128) -> Option<u32>,
) -> Result<Vec<u8>, Refusal> {
    let mut frame = framed(packet);
    let view = parse::ipv6(frame.data(), LINK).expect("a packet");
    let before = frame.data().to_vec();
    let examined = to4::examine(&frame, &view, quoted);
    assert_eq!(frame.data(), before, "examining changes nothing");
    let plan = examined?;
    let extract = |address| prefix().extract(address).expect("an embedded address");
    let addresses = (extract(view.source), extract(view.destination));
    let l4 = to4::translate(&mut frame, &view, &plan, addresses, identification, MTUS, settings).expect("examined");
    assert_eq!(l4, LINK + 20);
    let data = frame.data()[LINK..].to_vec();
    assert_eq!(data.len(), plan.len);
    let (header, _) = Ipv4Header::from_slice(&data).expect("IPv4");
    assert_eq!((header.calc_header_checksum(), usize::from(header.total_len)), (header.header_checksum, data.len()));
    Ok(data)
}

fn to_four(packet: &[u8]) -> Result<Vec<u8>, Refusal> {
    to_four_by(packet, 0, &Settings::default(), |_, address| prefix().extract(address))
}

fn silent(reason: Drop) -> Refusal {
    Refusal { reason, error: None }
}

fn told(reason: Drop, error: IcmpError, value: u16) -> Refusal {
    Refusal { reason, error: Some((error, value)) }
}

const UDP6: &str = "60000000000c114020010db801c00002002100000000000020010db801c633640002000000000000\
                    04d20035000c897d70696e67";
const UDP4: &str = "45000020000000003f118f76c0000221c6336402 04d20035000c2fa770696e67";
const SYN6: &str = "60000000001806 40 20010db801c00002002100000000000020010db801c633640002000000000000\
                    9c40005000000001000000006002ffff69140000020405b4";
const SYN4: &str = "4500002c000000003f068f75c0000221c6336402 9c40005000000001000000006002ffff0f3e0000020405b4";
const ECHO6: &str = "6000000000103a4020010db801c00002002100000000000020010db801c633640002000000000000\
                     80004969123400016162636465666768";
const ECHO4: &str = "45000024000000003f018f82c0000221c6336402 08005435123400016162636465666768";
const NEEDED4: &str = "4500003c0000000040017c98cb007107c0000221 0304e3f800000578\
                       45000020000000003c119276c0000221c6336402 04d20035000c2fa770696e67";
const TOO_BIG6: &str = "60000000003c3a3f20010db801cb0071000700000000000020010db801c000020021000000000000\
                        0200273a0000058c\
                        60000000000c113c20010db801c00002002100000000000020010db801c633640002000000000000\
                        04d20035000c897d70696e67";

/// XL-13, XL-14, XL-24, XL-28: the requirements' packets, byte for byte.
#[test]
fn xl_24_28_the_known_packets() {
    for (six, four) in [(UDP6, UDP4), (SYN6, SYN4), (ECHO6, ECHO4)] {
        assert_eq!(to_four(&hex(six)), Ok(hex(four)), "{four}");
        // Back, with another hop less.
        let mut six = hex(six);
        six[7] = 62;
        assert_eq!(to_six(&hex(four)), Ok(six), "{four}");
    }
}

/// XL-33, XL-36, XL-38: the requirements' error about the UDP packet, and its way back.
#[test]
fn xl_38_the_known_error() {
    assert_eq!(to_six(&hex(NEEDED4)), Ok(hex(TOO_BIG6)));
    let mut back = hex(NEEDED4);
    back[8] = 62;
    put(&mut back, 10, 0x7e98);
    assert_eq!(to_four(&hex(TOO_BIG6)), Ok(back));
}

/// XL-01, XL-13, RTR-13: type of service and traffic class, DSCP and ECN, copied or as the operator says.
#[test]
fn xl_01_13_traffic_class() {
    let (udp4, udp6) = segments(UDP, b"tos");
    let packet4 = Four { tos: 0xb9, ..four(UDP) }.before(&udp4);
    let packet6 = six(0xb9, UDP, 64, &udp6);
    assert_eq!(to_six(&packet4), Ok(six(0xb9, UDP, 63, &udp6)));
    assert_eq!(to_four(&packet6), Ok(Four { tos: 0xb9, ttl: 63, ..four(UDP) }.before(&udp4)));
    let settings = Settings { copy_tos: false, tos: Some(0x20), ..Settings::default() };
    assert_eq!(to_six_by(&packet4, &settings, false, |_, _| None), Ok(six(0, UDP, 63, &udp6)));
    let expected = Four { tos: 0x20, ttl: 63, ..four(UDP) }.before(&udp4);
    assert_eq!(to_four_by(&packet6, 0, &settings, |_, _| None), Ok(expected));
}

/// XL-02, XL-04: options are left out; but not those that lead somewhere else.
#[test]
fn xl_02_04_options() {
    let (tcp4, tcp6) = segments(TCP, b"options");
    let (udp4, udp6) = segments(UDP, b"options");
    let (echo4, echo6) = segments(ICMP, b"options");
    let pad = |mut options: Vec<u8>| {
        options.resize(options.len().next_multiple_of(4), 0);
        options
    };
    for options in [
        vec![],
        vec![7, 39, 4].into_iter().chain([0; 36]).collect(), // record route
        vec![68, 12, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8],          // timestamp
        vec![131, 7, 8, 1, 2, 3, 4],                         // loose source route, at its end
        vec![1, 137, 7, 12, 1, 2, 3, 4],                     // strict source route, at its end
        vec![1; 40],
        vec![9, 0, 131, 7], // broken: what follows can't be told
        vec![0, 131, 7, 4], // behind the end of options
        vec![131],
    ] {
        let options = pad(options);
        for (protocol, segment4, segment6) in [(TCP, &tcp4, &tcp6), (UDP, &udp4, &udp6), (ICMP, &echo4, &echo6)] {
            let packet = Four { options: options.clone(), ..four(protocol) }.before(segment4);
            let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
            assert_eq!(to_six(&packet), Ok(six(0, next_header, 63, segment6)), "{options:?}");
        }
    }
    for options in
        [vec![131, 7, 4, 1, 2, 3, 4], vec![1, 137, 11, 8, 0, 0, 0, 0, 0, 0, 0, 0], vec![68, 4, 5, 0, 137, 3, 3]]
    {
        let packet = Four { options: pad(options), ..four(UDP) }.before(&udp4);
        assert_eq!(to_six(&packet), Err(told(Drop::SourceRoute, IcmpError::SourceRouteFailed4, 0)));
    }
}

/// XL-03, XL-15: one hop less.
#[test]
fn xl_03_15_hops() {
    for (before, after) in [(255, 254), (64, 63), (2, 1)] {
        for protocol in [TCP, UDP, ICMP] {
            let (segment4, segment6) = segments(protocol, b"hops");
            let translated = to_six(&Four { ttl: before, ..four(protocol) }.before(&segment4)).unwrap();
            assert_eq!(translated[7], after);
            let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
            assert_eq!(to_four(&six(0, next_header, before, &segment6)).unwrap()[8], after);
        }
    }
}

/// What becomes of the size of an IPv4 packet of this length.
fn fit6(len: usize, field: u16, mtu: u16, lowest_ipv6_mtu: u16) -> Result<Option<u16>, Refusal> {
    let protocol = if field & 0x1fff == 0 { UDP } else { 253 };
    let segment = if protocol == UDP { segments(UDP, &vec![7; len - 28]).0 } else { vec![7; len - 20] };
    let frame = framed(&Four { field, ..four(protocol) }.before(&segment));
    let view = parse::ipv4(frame.data(), LINK).unwrap();
    let settings = Settings { lowest_ipv6_mtu, ..Settings::default() };
    to6::examine(&frame, &view, &settings, |_, _| None).unwrap().fit(mtu, &settings)
}

/// XL-05, XL-06, XL-07: what fits, what is to be cut, and what its sender is told.
#[test]
fn xl_05_06_07_sizes_in_ipv6() {
    const DF: u16 = 0x4000;
    let needed = |mtu| Err(told(Drop::TooBig, IcmpError::FragmentationNeeded4, mtu));
    assert_eq!(fit6(1480, DF, 1500, 1280), Ok(None));
    assert_eq!(fit6(1481, DF, 1500, 1280), needed(1480));
    assert_eq!(fit6(1500, DF, 1500, 1280), needed(1480));
    assert_eq!(fit6(1500, DF | 100, 1500, 1280), needed(1472));
    assert_eq!(fit6(1472, DF | 100, 1500, 1280), Ok(None));
    // Not said to be whole: 1280 is what every way takes, unless the operator knows better.
    assert_eq!(fit6(500, 0, 1500, 1280), Ok(None));
    assert_eq!(fit6(1260, 0, 1500, 1280), Ok(None));
    assert_eq!(fit6(1261, 0, 1500, 1280), Ok(Some(1280)));
    assert_eq!(fit6(1480, 0, 1500, 1500), Ok(None));
    assert_eq!(fit6(1481, 0, 1500, 1500), Ok(Some(1500)));
    assert_eq!(fit6(1480, 0, 1400, 1500), Ok(Some(1400)));
    assert_eq!(fit6(1252, 100, 1500, 1280), Ok(None));
    assert_eq!(fit6(1253, 100, 1500, 1280), Ok(Some(1280)));
    // A sender of options is told as if they were kept: what it sends next fits all the same.
    let packet = Four { field: DF, options: vec![1; 4], ..four(UDP) }.before(&segments(UDP, &[7; 1484 - 32]).0);
    let (frame, settings) = (framed(&packet), Settings::default());
    let view = parse::ipv4(frame.data(), LINK).unwrap();
    let plan = to6::examine(&frame, &view, &settings, |_, _| None).unwrap();
    assert_eq!((plan.len, plan.fit(1500, &settings), plan.fit(1504, &settings)), (1500, needed(1480), Ok(None)));
    // More than 32 pieces are too many.
    assert_eq!(fit6(20 + 32 * 1232, 0, 9000, 1280), Ok(Some(1280)));
    assert_eq!(fit6(21 + 32 * 1232, 0, 9000, 1280), Err(silent(Drop::FragmentationNeeded)));
    // XL-07: no fragment header, although it may be cut.
    let (udp4, udp6) = segments(UDP, &[1; 472]);
    let packet = Four { identification: 0xbeef, ..four(UDP) }.before(&udp4);
    assert_eq!(to_six(&packet), Ok(six(0, UDP, 63, &udp6)));
}

/// Cuts the IPv6 form of an IPv4 packet, puts the pieces together, and gives what they held, their offsets in units of eight bytes and
/// whether more come, and the rest of their fragment headers. (etherparse 0.18 has those bits in other places than RFC 8200 §4.5.)
fn cut_up(packet: &[u8], most: u16) -> (Vec<u8>, Vec<(u16, bool)>, [u8; 6]) {
    let whole = to_six_by(packet, &Settings::default(), true, |_, _| None).unwrap();
    let mut pieces = Vec::new();
    let frame = HeapPacket::from_frame(&[&[0xee; LINK][..], &whole].concat());
    cut::cut(frame, LINK, most, &mut HeapPool::new(64), |piece| pieces.push(piece)).expect("room");
    let (mut data, mut places, mut rest) = (Vec::new(), Vec::new(), [0; 6]);
    for piece in &pieces {
        assert_eq!(piece.data()[..LINK], [0xee; LINK]);
        let (header, payload) = Ipv6Header::from_slice(&piece.data()[LINK..]).unwrap();
        assert!(payload.len() + 40 <= usize::from(most));
        assert_eq!((usize::from(header.payload_length), header.hop_limit), (payload.len(), 63));
        assert_eq!((header.next_header.0, header.source, header.destination), (44, HOST6, SERVER6));
        let place = word(payload, 2);
        assert!(place & 1 == 0 || payload.len() % 8 == 0, "only the last one ends anywhere");
        places.push((place >> 3, place & 1 != 0));
        let [next, reserved, _, _, identification @ ..] = *payload.first_chunk::<8>().unwrap();
        rest[..2].copy_from_slice(&[next, reserved]);
        rest[2..].copy_from_slice(&identification);
        data.extend_from_slice(&payload[8..]);
    }
    (data, places, rest)
}

/// XL-06, XL-08: a packet that may be cut becomes fragments of one datagram.
#[test]
fn xl_06_cutting() {
    for protocol in [TCP, UDP, ICMP] {
        let (segment4, segment6) = segments(protocol, &(0..2000u16).map(|n| n as u8).collect::<Vec<_>>());
        let packet = Four { identification: 0xbeef, ..four(protocol) }.before(&segment4);
        let (data, places, rest) = cut_up(&packet, 1280);
        assert_eq!(data, segment6);
        assert_eq!(places, [(0, true), (154, false)]);
        assert_eq!(rest, [if protocol == ICMP { ICMPV6 } else { protocol }, 0, 0, 0, 0xbe, 0xef]);
    }
    // Of a fragment.
    let packet = Four { identification: 7, field: 0x2000 | 300, ..four(UDP) }.before(&[9; 2400]);
    let (data, places, _) = cut_up(&packet, 1280);
    assert_eq!((data, places), (vec![9; 2400], vec![(300, true), (454, true)]));
    let packet = Four { identification: 7, field: 300, ..four(UDP) }.before(&[9; 2401]);
    let (data, places, _) = cut_up(&packet, 1000);
    assert_eq!((data, places), (vec![9; 2401], vec![(300, true), (419, true), (538, false)]));
    // What can't be is not.
    let whole = to_six_by(&packet, &Settings::default(), true, |_, _| None).unwrap();
    for (most, pool) in [(55, 64), (0, 64), (100, 64), (1280, 0)] {
        let frame = HeapPacket::from_frame(&[&[0xee; LINK][..], &whole].concat());
        assert!(cut::cut(frame, LINK, most, &mut HeapPool::new(pool), |_| {}).is_err(), "{most}");
    }
}

/// XL-08: fragments stay fragments; their identification has as many zeros before it.
#[test]
fn xl_08_fragments_to_ipv6() {
    let (udp4, udp6) = segments(UDP, &[5; 1000]);
    let fragment = |next: u8, field: u16, data: &[u8]| {
        let mut header = [next, 0, 0, 0, 0, 0, 0xbe, 0xef];
        put(&mut header, 2, field);
        six(0, 44, 63, &[&header[..], data].concat())
    };
    let at = |field, data: &[u8]| Four { identification: 0xbeef, field, ..four(UDP) }.before(data);
    assert_eq!(to_six(&at(0x2000, &udp4[..800])), Ok(fragment(UDP, 1, &udp6[..800])));
    assert_eq!(to_six(&at(100, &udp4[800..])), Ok(fragment(UDP, 800, &udp6[800..])));
    assert_eq!(to_six(&at(0x6000 | 8, &[3; 64])), Ok(fragment(UDP, 65, &[3; 64])));
    assert_eq!(to_six(&at(0x1fff, &[3; 4])), Ok(fragment(UDP, 0xfff8, &[3; 4])));
}

/// XL-18, XL-22: and back; an identification of more than 16 bits loses the upper ones. A single one is whole.
#[test]
fn xl_18_22_fragments_to_ipv4() {
    let (tcp4, tcp6) = segments(TCP, &[5; 1000]);
    let fragment = |next: u8, field: u16, data: &[u8]| {
        let mut header = [next, 0xff, 0, 0, 0x12, 0x34, 0x56, 0x78];
        put(&mut header, 2, field);
        six(0, 44, 64, &[&header[..], data].concat())
    };
    let at = |field, data: &[u8]| Four { identification: 0x5678, field, ttl: 63, ..four(TCP) }.before(data);
    assert_eq!(to_four(&fragment(TCP, 1, &tcp6[..800])), Ok(at(0x2000, &tcp4[..800])));
    assert_eq!(to_four(&fragment(TCP, 800, &tcp6[800..])), Ok(at(100, &tcp4[800..])));
    assert_eq!(to_four(&fragment(TCP, 0xfff1, &[3; 8])), Ok(at(0x3ffe, &[3; 8])));
    // Reserved bits are none of ours.
    assert_eq!(to_four(&fragment(TCP, 0x0326, &[3; 8])), Ok(at(100, &[3; 8])));
    assert_eq!(to_four(&fragment(TCP, 0, &tcp6)), Ok(at(0, &tcp4)));
    let (echo4, echo6) = segments(ICMP, b"atomic");
    let expected = Four { identification: 0x5678, ttl: 63, ..four(ICMP) }.before(&echo4);
    assert_eq!(to_four(&fragment(ICMPV6, 0, &echo6)), Ok(expected));
}

/// XL-08, XL-18: fragments that no sender would cut. Cut again, they would be parts of something else.
#[test]
fn xl_08_18_fragments_that_can_not_be() {
    for (offset, more, len) in [(8, false, 0), (0, true, 1431), (8, true, 1431), (65528, true, 8), (65528, false, 1400)]
    {
        let data = vec![3; len];
        let packet = Four { field: (offset / 8) | (u16::from(more) << 13), ..four(UDP) }.before(&data);
        assert_eq!(to_six(&packet), Err(silent(Drop::FragmentLength)), "{offset} {more} {len}");
        let mut header = [UDP, 0, 0, 0, 0, 0, 0, 7];
        put(&mut header, 2, offset | u16::from(more));
        let packet = six(0, 44, 64, &[&header[..], &data].concat());
        assert_eq!(to_four(&packet), Err(silent(Drop::FragmentLength)), "{offset} {more} {len}");
    }
}

/// XL-10: fragments of ICMP messages are not translated.
#[test]
fn xl_10_fragmented_icmp() {
    let (echo4, echo6) = segments(ICMP, &[5; 100]);
    for (field, data) in [(0x2000, &echo4[..64]), (8, &echo4[64..])] {
        let packet = Four { field, ..four(ICMP) }.before(data);
        assert_eq!(to_six(&packet), Err(told(Drop::FragmentIcmp, IcmpError::Prohibited4, 0)));
    }
    for (field, data) in [(1, &echo6[..64]), (64, &echo6[64..])] {
        let packet = six(0, 44, 64, &[&[ICMPV6, 0, 0, field, 0, 0, 0, 7][..], data].concat());
        // D8: no error about any ICMPv6 message.
        assert_eq!(to_four(&packet), Err(silent(Drop::FragmentIcmp)));
    }
}

/// XL-14: short packets may be cut, long ones not; the identification is the generator's.
#[test]
fn xl_14_dont_fragment() {
    for protocol in [TCP, UDP, ICMP] {
        for (len, field) in [(60, 0), (1259, 0), (1260, 0), (1261, 0x4000), (1480, 0x4000)] {
            let header = if protocol == TCP { 40 } else { 28 };
            let (segment4, segment6) = segments(protocol, &vec![1; len - header]);
            let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
            let expected = Four { identification: 0x4711, field, ttl: 63, ..four(protocol) }.before(&segment4);
            let packet = six(0, next_header, 64, &segment6);
            assert_eq!(to_four_by(&packet, 0x4711, &Settings::default(), |_, _| None), Ok(expected), "{len}");
        }
    }
}

/// A chain of extension headers of these kinds, each of 8 bytes more than its place in it says.
fn chained(kinds: &[u8], protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..kinds.len() {
        let len = at % 3;
        bytes.extend([kinds.get(at + 1).copied().unwrap_or(protocol), len as u8, 0, 0, 1, 1, 1, 1]);
        bytes.extend(vec![1; len * 8]);
    }
    six(0, kinds.first().copied().unwrap_or(protocol), 64, &[&bytes[..], segment].concat())
}

/// XL-16: what has no counterpart is left out.
#[test]
fn xl_16_extension_headers() {
    for protocol in [TCP, UDP, ICMP] {
        let (segment4, segment6) = segments(protocol, b"extended");
        let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
        let expected = Four { ttl: 63, ..four(protocol) }.before(&segment4);
        for kinds in [&[0][..], &[60], &[43], &[0, 60, 43], &[60, 60], &[0, 60, 43, 60, 60, 60, 60, 60]] {
            let packet = chained(kinds, next_header, &segment6);
            assert_eq!(to_four(&packet), Ok(expected.clone()), "{kinds:?}");
        }
    }
    let (_, udp6) = segments(UDP, b"extended");
    assert_eq!(to_four(&chained(&[60; 9], UDP, &udp6)), Err(silent(Drop::ExtensionHeaders)));
    assert_eq!(to_four(&chained(&[60; 64], UDP, &udp6)), Err(silent(Drop::ExtensionHeaders)));
    // Cut off in the middle of one.
    assert_eq!(to_four(&six(0, 60, 64, &[UDP, 0, 1, 4])), Err(silent(Drop::TransportShort)));
}

/// XL-17: a routing header that is not at its end.
#[test]
fn xl_17_routing_header() {
    let (_, udp6) = segments(UDP, b"routed");
    let (_, echo6) = segments(ICMP, b"routed");
    let routing = |next| [next, 2, 0, 1, 0, 0, 0, 0].into_iter().chain([9; 16]).collect::<Vec<u8>>();
    let packet = six(0, 43, 64, &[routing(UDP), udp6.clone()].concat());
    assert_eq!(to_four(&packet), Err(told(Drop::RoutingHeader, IcmpError::ParameterProblem6, 43)));
    let behind = [vec![43, 0, 0, 0, 0, 0, 0, 0], routing(UDP), udp6].concat();
    let packet = six(0, 60, 64, &behind);
    assert_eq!(to_four(&packet), Err(told(Drop::RoutingHeader, IcmpError::ParameterProblem6, 51)));
    let packet = six(0, 43, 64, &[routing(ICMPV6), echo6].concat());
    assert_eq!(to_four(&packet), Err(silent(Drop::RoutingHeader)));
}

/// XL-19: extension headers behind a fragment header; ESP and transports are none.
#[test]
fn xl_19_extension_headers_of_fragments() {
    let data = [&[59, 0, 0, 0, 0, 0, 0, 0][..], &[7; 56]].concat();
    let fragment = |next: u8, field: u8| six(0, 44, 64, &[&[next, 0, 0, field, 0, 0, 0, 7][..], &data].concat());
    for next in [0, 43, 44, 51, 60, 135, 139, 140] {
        for field in [0, 1, 64] {
            let expected = Err(told(Drop::FragmentExtension, IcmpError::Prohibited6, 0));
            assert_eq!(to_four(&fragment(next, field)), expected, "{next}");
        }
    }
    for next in [50, 47, 132, 253] {
        for (field, field4) in [(0, 0), (1, 0x2000), (64, 8)] {
            let expected = Four { identification: 7, field: field4, ttl: 63, ..four(next) }.before(&data);
            assert_eq!(to_four(&fragment(next, field)), Ok(expected), "{next}");
        }
    }
}

/// XL-20, XL-21: what every IPv6 link takes is cut in IPv4; the sender of more is told.
#[test]
fn xl_20_21_sizes_in_ipv4() {
    let fit = |len: usize, mtu| {
        let (_, udp6) = segments(UDP, &vec![0; len - 48]);
        let frame = framed(&six(0, UDP, 64, &udp6));
        let view = parse::ipv6(frame.data(), LINK).unwrap();
        to4::examine(&frame, &view, |_, _| None).unwrap().fit(mtu)
    };
    let too_big = |mtu| Err(told(Drop::TooBig, IcmpError::PacketTooBig6, mtu));
    assert_eq!(fit(1280, 1500), Ok(None));
    assert_eq!(fit(1280, 1260), Ok(None));
    assert_eq!(fit(1280, 1259), Ok(Some(1259)));
    assert_eq!(fit(1280, 576), Ok(Some(576)));
    assert_eq!(fit(1281, 1260), too_big(1280));
    assert_eq!(fit(1500, 1480), Ok(None));
    assert_eq!(fit(1500, 1400), too_big(1420));
    assert_eq!(fit(1500, 576), too_big(1280));
}

/// XL-25: datagrams without a checksum.
#[test]
fn xl_25_udp_without_a_checksum() {
    let (mut udp4, udp6) = segments(UDP, b"zero");
    put(&mut udp4, 6, 0);
    let mut without = udp6.clone();
    put(&mut without, 6, 0);
    let by = |packet: &[u8], udp_checksum_none| {
        let settings = Settings { udp_checksum_none, ..Settings::default() };
        to_six_by(packet, &settings, false, |_, _| None)
    };
    let refused = Err(told(Drop::UdpChecksumNone, IcmpError::Prohibited4, 0));
    for options in [vec![], vec![1; 4]] {
        let packet = Four { options, ..four(UDP) }.before(&udp4);
        assert_eq!(by(&packet, UdpChecksumNone::Drop), refused);
        assert_eq!(by(&packet, UdpChecksumNone::Compute), Ok(six(0, UDP, 63, &udp6)));
        assert_eq!(by(&packet, UdpChecksumNone::Forward), Ok(six(0, UDP, 63, &without)));
    }
    // A sum of zero is sent as 0xffff, for zero would mean none.
    let (zero4, zero6) = (0..=u16::MAX)
        .map(|n| segments(UDP, &n.to_be_bytes()))
        .find(|(_, segment6)| word(segment6, 6) == 0xffff)
        .expect("one of all sums");
    let mut packet = four(UDP).before(&zero4);
    put(&mut packet, 26, 0);
    assert_eq!(by(&packet, UdpChecksumNone::Compute), Ok(six(0, UDP, 63, &zero6)));
    // A part of it can't be computed; later parts do not say.
    let first = Four { field: 0x2000, ..four(UDP) }.before(&[&udp4[..], &[0; 4]].concat());
    assert_eq!(by(&first, UdpChecksumNone::Drop), refused);
    assert_eq!(by(&first, UdpChecksumNone::Compute), refused);
    let forwarded = by(&first, UdpChecksumNone::Forward).unwrap();
    assert_eq!(forwarded[48..], [&without[..], &[0; 4]].concat());
    let later = Four { field: 8, ..four(UDP) }.before(&[0; 16]);
    assert_eq!(by(&later, UdpChecksumNone::Drop).unwrap()[48..], [0; 16]);
    // To IPv4, where it is allowed, it stays none.
    assert_eq!(to_four(&six(0, UDP, 64, &without)), Ok(Four { ttl: 63, ..four(UDP) }.before(&udp4)));
}

/// XL-24: every sum that is computed to zero is sent as 0xffff in UDP, both ways, and as zero in TCP.
#[test]
fn xl_24_a_sum_of_zero() {
    for protocol in [UDP, TCP] {
        let mut zeros = [0, 0];
        for n in 0..=u16::MAX {
            let (segment4, segment6) = segments(protocol, &n.to_be_bytes());
            let at = checksum_at(protocol);
            let edge = |segment: &[u8]| matches!(word(segment, at), 0 | 0xffff);
            if edge(&segment4) || edge(&segment6) {
                zeros[0] += usize::from(edge(&segment4));
                zeros[1] += usize::from(edge(&segment6));
                let (packet4, packet6) = (four(protocol).before(&segment4), six(0, protocol, 64, &segment6));
                assert_eq!(to_six(&packet4).unwrap()[40..], segment6);
                assert_eq!(to_four(&packet6).unwrap()[20..], segment4);
            }
        }
        assert!(zeros.iter().all(|&found| found > 0), "{zeros:?}");
    }
}

/// XL-26, XL-27: of other protocols nothing but the IP header is changed.
#[test]
fn xl_26_27_other_protocols() {
    let payload: Vec<u8> = (0..99).collect();
    for protocol in [132, 50, 47, 253, 51, 33, 136, 4, 41] {
        let (packet4, packet6) = (four(protocol).before(&payload), six(0, protocol, 64, &payload));
        assert_eq!(to_six(&packet4), Ok(six(0, protocol, 63, &payload)), "{protocol}");
        assert_eq!(to_four(&packet6), Ok(Four { ttl: 63, ..four(protocol) }.before(&payload)), "{protocol}");
    }
    assert_eq!(to_six(&four(253).before(&[])), Ok(six(0, 253, 63, &[])));
    assert_eq!(to_four(&six(0, 59, 64, &[])), Ok(Four { ttl: 63, ..four(59) }.before(&[])));
}

/// XL-29, XL-30: what is neither an echo nor an error that the other family knows is dropped without a word.
#[test]
fn xl_29_30_messages_without_equivalent() {
    let quote4 = four(UDP).before(&segments(UDP, b"quoted").0);
    for kind in 0..=255u8 {
        let message = checked([&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quote4].concat(), ICMP, &[]);
        let found = to_six(&four(ICMP).before(&message)).map(|packet| (packet[40], packet[41]));
        let expected = match kind {
            0 => Ok((129, 0)),
            3 => Ok((1, 0)),
            8 => Ok((128, 0)),
            11 => Ok((3, 0)),
            12 => Ok((4, 0)),
            _ => Err(silent(Drop::IcmpUntranslatable)),
        };
        assert_eq!(found, expected, "{kind}");
    }
    assert_eq!(to_six(&four(2).before(&[0x16, 0, 0, 0, 0, 0, 0, 0])), Err(silent(Drop::IcmpUntranslatable)));
    let quote6 = six(0, UDP, 64, &segments(UDP, b"quoted").1);
    for kind in 0..=255u8 {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quote6].concat();
        let len = message.len();
        let message = checked(message, ICMPV6, &pseudo6(ICMPV6, len));
        let found = to_four(&six(0, ICMPV6, 64, &message)).map(|packet| (packet[20], packet[21]));
        let expected = match kind {
            1 => Ok((3, 1)),
            2 => Ok((3, 4)),
            3 => Ok((11, 0)),
            4 => Ok((12, 0)),
            128 => Ok((8, 0)),
            129 => Ok((0, 0)),
            _ => Err(silent(Drop::IcmpUntranslatable)),
        };
        assert_eq!(found, expected, "{kind}");
    }
}

/// An ICMP error with these first bytes, about `quote`, with a right checksum.
fn error4(start: [u8; 8], quote: &[u8]) -> Vec<u8> {
    checked([&start[..], quote].concat(), ICMP, &[])
}

fn error6(start: [u8; 8], quote: &[u8]) -> Vec<u8> {
    let message = [&start[..], quote].concat();
    let len = message.len();
    checked(message, ICMPV6, &pseudo6(ICMPV6, len))
}

/// XL-31, XL-32, XL-35, XL-37: types, codes and pointers in packets.
#[test]
fn xl_31_32_35_37_errors_in_packets() {
    let (udp4, udp6) = segments(UDP, b"quoted");
    let quote4 = Four { ttl: 60, ..four(UDP) }.before(&udp4);
    let quote6 = six(0, UDP, 60, &udp6);
    for (four_start, six_start) in [
        ([3, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]),
        ([3, 2, 0, 0, 0, 0, 0, 0], [4, 1, 0, 0, 0, 0, 0, 6]),
        ([3, 3, 0, 0, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0, 0, 0]),
        ([3, 4, 0, 0, 0, 0, 0x05, 0x78], [2, 0, 0, 0, 0, 0, 0x05, 0x8c]),
        ([3, 10, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]),
        ([11, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]),
        ([11, 1, 0, 0, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0]),
        ([12, 0, 0, 0, 8, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 7]),
        ([12, 0, 0, 0, 16, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 24]),
    ] {
        let packet4 = Four { ttl: 63, ..four(ICMP) }.before(&error4(four_start, &quote4));
        let packet6 = six(0, ICMPV6, 62, &error6(six_start, &quote6));
        assert_eq!(to_six(&packet4), Ok(packet6.clone()), "{four_start:?}");
        let mut back = six(0, ICMPV6, 64, &packet6[40..]);
        if six_start[0] == 4 && six_start[1] == 1 {
            // The pointer of an unknown next header says nothing more.
            back = six(0, ICMPV6, 64, &error6([4, 1, 0, 0, 0, 0, 0, 40], &quote6));
        }
        assert_eq!(to_four(&back), Ok(packet4), "{six_start:?}");
    }
    // XL-34: a router of old, which does not tell its MTU.
    let long = Four { ttl: 60, ..four(UDP) }.before(&segments(UDP, &[0; 1472]).0);
    let packet = to_six(&four(ICMP).before(&error4([3, 4, 0, 0, 0, 0, 0, 0], &long[..28]))).unwrap();
    assert_eq!(packet[40..48], [2, 0, packet[42], packet[43], 0, 0, 0x05, 0xd4]);
    // XL-36: the quoted packet had a fragment header.
    let fragment = six(0, 44, 60, &[&[UDP, 0, 0, 1, 0, 0, 0, 7][..], &[0; 64]].concat());
    let packet = to_four(&six(0, ICMPV6, 64, &error6([2, 0, 0, 0, 0, 0, 0x05, 0x78], &fragment))).unwrap();
    assert_eq!(word(&packet, 26), 1372);
}

/// XL-38: quotes of every length, of every transport: header for header, with the transport's checksum as far as it is there.
#[test]
fn xl_38_quotes_of_every_length() {
    for protocol in [TCP, UDP, ICMP, 132] {
        let data: Vec<u8> = (0..1100u16).map(|n| n as u8).collect();
        let (segment4, segment6) = if protocol == 132 { (data.clone(), data) } else { segments(protocol, &data) };
        let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
        // Half a checksum can't be updated.
        let half = if protocol == 132 { 1000 } else { checksum_at(protocol) + 1 };
        for len in (0..40).chain([64, 100, 128, 500, 520]).filter(|&len| len != half) {
            let quote4 = Four { ttl: 3, tos: 0x10, ..four(protocol) }.before(&segment4);
            let mut quote6 = six(0x10, next_header, 3, &segment6);
            let start4 = [11, 0, 0, 0, 0, 0, 0, 0];
            let packet4 = Four { ttl: 63, ..four(ICMP) }.before(&error4(start4, &quote4[..20 + len]));
            quote6.truncate(40 + len);
            let packet6 = six(0, ICMPV6, 62, &error6([3, 0, 0, 0, 0, 0, 0, 0], &quote6));
            assert_eq!(to_six(&packet4), Ok(packet6.clone()), "{protocol} {len}");
            let mut there = packet6;
            there[7] = 64;
            assert_eq!(to_four(&there), Ok(packet4), "{protocol} {len}");
        }
    }
    // Without a whole IP header there is nothing to go by.
    let quote4 = four(UDP).before(&segments(UDP, b"quoted").0);
    let quote6 = six(0, UDP, 64, &segments(UDP, b"quoted").1);
    for len in [0, 8, 19] {
        let packet = four(ICMP).before(&error4([3, 1, 0, 0, 0, 0, 0, 0], &quote4[..len]));
        assert_eq!(to_six(&packet), Err(silent(Drop::QuoteUnreadable)));
    }
    for len in [0, 8, 28, 39] {
        let packet = six(0, ICMPV6, 64, &error6([1, 0, 0, 0, 0, 0, 0, 0], &quote6[..len]));
        assert_eq!(to_four(&packet), Err(silent(Drop::QuoteUnreadable)));
    }
}

/// XL-38: quotes with options, extension and fragment headers.
#[test]
fn xl_38_quotes_with_more_headers() {
    let (udp4, udp6) = segments(UDP, &[7; 80]);
    let start4 = [3, 1, 0, 0, 0, 0, 0, 0];
    let start6 = [1, 0, 0, 0, 0, 0, 0, 0];
    // Options are left out.
    let optioned = Four { options: vec![7, 7, 4, 0, 0, 0, 0, 0], ..four(UDP) }.before(&udp4);
    let expected = six(0, ICMPV6, 63, &error6(start6, &six(0, UDP, 64, &udp6)));
    assert_eq!(to_six(&four(ICMP).before(&error4(start4, &optioned))), Ok(expected));
    // So are extension headers; the packet says how long it was without them.
    let extended = chained(&[0, 60, 43], UDP, &udp6);
    let expected = Four { ttl: 63, ..four(ICMP) }.before(&error4(start4, &four(UDP).before(&udp4)));
    assert_eq!(to_four(&six(0, ICMPV6, 64, &error6(start6, &extended))), Ok(expected));
    // Fragments: the first with its transport header, the others without.
    for (field4, field6, (data4, data6)) in [
        (0x2000, 1u16, (&udp4[..64], &udp6[..64])),
        (0x2008, 65, (&udp4[64..72], &udp6[64..72])),
        (9, 72, (&[1; 9][..], &[1; 9][..])),
    ] {
        let quote4 = Four { identification: 0x5678, field: field4, ..four(UDP) }.before(data4);
        let header = [UDP, 0, (field6 >> 8) as u8, field6 as u8, 0, 0, 0x56, 0x78];
        let quote6 = six(0, 44, 64, &[&header[..], data6].concat());
        let packet4 = Four { ttl: 63, ..four(ICMP) }.before(&error4(start4, &quote4));
        let packet6 = six(0, ICMPV6, 62, &error6(start6, &quote6));
        assert_eq!(to_six(&packet4), Ok(packet6));
        assert_eq!(to_four(&six(0, ICMPV6, 64, &error6(start6, &quote6))), Ok(packet4));
    }
    // Broken headers.
    let good = four(UDP).before(&udp4);
    for (at, value) in [(0, 0x55), (0, 0x44), (0, 0x4f), (3, 19)] {
        let mut quote = good[..40].to_vec();
        quote[2] = 0;
        quote[at] = value;
        let packet = four(ICMP).before(&error4(start4, &quote));
        assert_eq!(to_six(&packet), Err(silent(Drop::QuoteUnreadable)), "{at} {value}");
    }
}

/// XL-38: errors about errors, and about what no translated packet is.
#[test]
fn xl_38_quotes_that_are_refused() {
    let inner4 = four(ICMP).before(&error4([3, 1, 0, 0, 0, 0, 0, 0], &four(UDP).before(&segments(UDP, b"x").0)));
    let packet = four(ICMP).before(&error4([11, 0, 0, 0, 0, 0, 0, 0], &inner4));
    assert_eq!(to_six(&packet), Err(silent(Drop::QuoteUntranslatable)));
    let inner6 = six(0, ICMPV6, 64, &error6([1, 0, 0, 0, 0, 0, 0, 0], &six(0, UDP, 64, &segments(UDP, b"x").1)));
    let packet = six(0, ICMPV6, 64, &error6([3, 0, 0, 0, 0, 0, 0, 0], &inner6));
    assert_eq!(to_four(&packet), Err(silent(Drop::QuoteUntranslatable)));
    // Every other type inside, and IGMP.
    for kind in (0..=255u8).filter(|kind| ![0, 8].contains(kind)) {
        let packet = four(ICMP).before(&error4([11, 0, 0, 0, 0, 0, 0, 0], &four(ICMP).before(&[kind; 8])));
        assert_eq!(to_six(&packet), Err(silent(Drop::QuoteUntranslatable)), "{kind}");
    }
    for kind in (0..=255u8).filter(|kind| ![128, 129].contains(kind)) {
        let packet = six(0, ICMPV6, 64, &error6([3, 0, 0, 0, 0, 0, 0, 0], &six(0, ICMPV6, 64, &[kind; 8])));
        assert_eq!(to_four(&packet), Err(silent(Drop::QuoteUntranslatable)), "{kind}");
    }
    let packet = four(ICMP).before(&error4([11, 0, 0, 0, 0, 0, 0, 0], &four(2).before(&[0; 8])));
    assert_eq!(to_six(&packet), Err(silent(Drop::QuoteUntranslatable)));
    // A source route of IPv6.
    let routing = [&[UDP, 2, 0, 1, 0, 0, 0, 0][..], &[9; 16], &segments(UDP, b"x").1].concat();
    let packet = six(0, ICMPV6, 64, &error6([1, 0, 0, 0, 0, 0, 0, 0], &six(0, 43, 64, &routing)));
    assert_eq!(to_four(&packet), Err(silent(Drop::QuoteUntranslatable)));
}

/// XL-38, EAM-04: addresses inside come by their role, the destination's first; without one the error is dropped.
#[test]
fn xl_38_addresses_inside() {
    let packet4 = four(ICMP).before(&error4([3, 1, 0, 0, 0, 0, 0, 0], &four(UDP).before(&segments(UDP, b"x").0)));
    let mut asked = Vec::new();
    let settings = Settings::default();
    let packet6 = to_six_by(&packet4, &settings, false, |role, address| {
        asked.push((role, address.to_be_bytes()));
        Some(if role == Role::QuotedSource { 0x1111 << 96 } else { 0x2222 << 96 })
    });
    let packet6 = packet6.unwrap();
    assert_eq!(asked, [(Role::QuotedDestination, SERVER4), (Role::QuotedSource, HOST4)]);
    assert_eq!((&packet6[56..60], &packet6[72..76]), (&[0, 0, 0x11, 0x11][..], &[0, 0, 0x22, 0x22][..]));
    assert_eq!(excess(&[&pseudo6(ICMPV6, packet6.len() - 40), &packet6[40..]]), 0);
    for missing in [Role::QuotedSource, Role::QuotedDestination] {
        let found = to_six_by(&packet4, &settings, false, |role, _| (role != missing).then_some(1));
        assert_eq!(found, Err(silent(Drop::QuoteAddress)));
        let quote6 = six(0, UDP, 64, &segments(UDP, b"x").1);
        let packet6 = six(0, ICMPV6, 64, &error6([1, 0, 0, 0, 0, 0, 0, 0], &quote6));
        let found = to_four_by(&packet6, 0, &settings, |role, _| (role != missing).then_some(1));
        assert_eq!(found, Err(silent(Drop::QuoteAddress)));
    }
}

/// An RFC 4884 extension with one MPLS label stack entry (RFC 4950).
fn mpls() -> Vec<u8> {
    let mut extension = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0xfe];
    let checksum = excess(&[&extension]);
    put(&mut extension, 2, checksum);
    extension
}

/// XL-39: extensions pass untouched behind a quote whose length is told in the other family's units.
#[test]
fn xl_39_extensions() {
    let (udp4, udp6) = segments(UDP, &[7; 300]);
    let quote4 = four(UDP).before(&udp4);
    let quote6 = six(0, UDP, 64, &udp6);
    for (kind4, kind6) in [([3, 1], [1, 0]), ([11, 0], [3, 0])] {
        // 128 bytes of quote become 148, in words of eight bytes 152.
        let packet4 = four(ICMP)
            .before(&error4([kind4[0], kind4[1], 0, 0, 0, 32, 0, 0], &[&quote4[..128], &mpls()[..]].concat()));
        let quoted6 = [&quote6[..148], &[0; 4][..], &mpls()[..]].concat();
        let expected = six(0, ICMPV6, 63, &error6([kind6[0], kind6[1], 0, 0, 19, 0, 0, 0], &quoted6));
        assert_eq!(to_six(&packet4), Ok(expected));
        // 128 bytes become 108, and 128 again with zeros; 152 become 132.
        for (len, padding) in [(128, 20), (152, 0)] {
            let message =
                error6([kind6[0], kind6[1], 0, 0, len as u8 / 8, 0, 0, 0], &[&quote6[..len], &mpls()[..]].concat());
            let quoted4 = [&quote4[..len - 20], &vec![0; padding][..], &mpls()[..]].concat();
            let words = (len - 20 + padding) as u8 / 4;
            let expected = Four { ttl: 63, ..four(ICMP) }
                .before(&error4([if kind6[0] == 1 { 3 } else { 11 }, kind4[1], 0, 0, 0, words, 0, 0], &quoted4));
            assert_eq!(to_four(&six(0, ICMPV6, 64, &message)), Ok(expected), "{len}");
        }
    }
    // Rather less quote than less extension.
    let large: Vec<u8> = mpls().repeat(30);
    let packet6 = six(0, ICMPV6, 64, &error6([3, 0, 0, 0, 32, 0, 0, 0], &[&quote6[..256], &large[..]].concat()));
    let packet = to_four(&packet6).unwrap();
    assert_eq!((packet.len(), packet[25]), (576, 47));
    assert_eq!(packet[28..216], quote4[..188]);
    assert_eq!(packet[216..], large);
    assert_eq!(excess(&[&packet[20..]]), 0);
    // Larger than there is room for at all: cut off.
    let huge: Vec<u8> = mpls().repeat(60);
    let packet6 = six(0, ICMPV6, 64, &error6([3, 0, 0, 0, 32, 0, 0, 0], &[&quote6[..256], &huge[..]].concat()));
    let packet = to_four(&packet6).unwrap();
    assert_eq!((packet.len(), packet[25]), (576, 32));
    assert_eq!(packet[156..], huge[..420]);
    // Where the other family has no place for them they are left out, with the zeros before them.
    let packet4 = four(ICMP).before(&error4([3, 4, 0, 0, 0, 32, 5, 0x78], &[&quote4[..128], &mpls()[..]].concat()));
    let expected = six(0, ICMPV6, 63, &error6([2, 0, 0, 0, 0, 0, 5, 0x8c], &quote6[..148]));
    assert_eq!(to_six(&packet4), Ok(expected));
    // A length that is longer than the message.
    let packet4 = four(ICMP).before(&error4([3, 1, 0, 0, 0, 255, 0, 0], &quote4[..128]));
    assert_eq!(to_six(&packet4), Ok(six(0, ICMPV6, 63, &error6([1, 0, 0, 0, 0, 0, 0, 0], &quote6[..148]))));
}

/// XL-40: errors are not longer than their family wants them.
#[test]
fn xl_40_long_errors() {
    let (udp4, udp6) = segments(UDP, &[7; 3000]);
    let (quote4, quote6) = (four(UDP).before(&udp4), six(0, UDP, 64, &udp6));
    let start4 = [3, 1, 0, 0, 0, 0, 0, 0];
    let start6 = [1, 0, 0, 0, 0, 0, 0, 0];
    for len in [1232, 1233, 2000] {
        let packet = to_six(&four(ICMP).before(&error4(start4, &quote4[..len]))).unwrap();
        assert_eq!(packet, six(0, ICMPV6, 63, &error6(start6, &quote6[..1232])), "{len}");
    }
    // So long a packet may not have been cut up in IPv4.
    let quote4 = Four { field: 0x4000, ..four(UDP) }.before(&udp4);
    for len in [568, 569, 1232] {
        let packet = to_four(&six(0, ICMPV6, 64, &error6(start6, &quote6[..len]))).unwrap();
        assert_eq!(packet, Four { ttl: 63, ..four(ICMP) }.before(&error4(start4, &quote4[..548])), "{len}");
    }
}

/// Nothing is begun in a buffer without the room.
#[test]
fn buffers_without_room() {
    let (udp4, _) = segments(UDP, b"room");
    let (echo4, _) = segments(ICMP, b"room");
    let error = error4([3, 1, 0, 0, 0, 0, 0, 0], &four(UDP).before(&udp4));
    for (packet, needed) in
        [(four(UDP).before(&udp4), 28), (four(ICMP).before(&echo4), 28), (four(ICMP).before(&error), 40)]
    {
        for (room, fits) in [(needed, true), (needed - 1, false)] {
            let mut frame = framed(&packet);
            assert!(frame.prepend(128 - room));
            let moved: Vec<u8> = frame.data()[128 - room..].to_vec();
            frame.data_mut()[..moved.len()].copy_from_slice(&moved);
            let view = parse::ipv4(frame.data(), LINK).unwrap();
            let examined =
                to6::examine(&frame, &view, &Settings::default(), |_, address| Some(prefix().embed(address)));
            assert_eq!(examined.err(), (!fits).then_some(silent(Drop::NoRoom)));
        }
    }
}

#[derive(Clone, Debug)]
struct Sent {
    header: Four,
    data: Vec<u8>,
    spoilt: u16,
}

/// A packet that both families can carry, with a checksum that may be wrong.
fn sent() -> impl Strategy<Value = Sent> {
    let protocol = prop::sample::select(vec![TCP, UDP, ICMP, 132]);
    let options = prop::sample::select(vec![vec![], vec![1; 4], vec![7, 39, 40].into_iter().chain([0; 37]).collect()]);
    let data = prop::collection::vec(any::<u8>(), 0..300);
    let spoilt = prop_oneof![Just(0u16), any::<u16>()];
    (protocol, options, data, spoilt, any::<[u8; 2]>(), 2u8.., any::<u16>()).prop_map(
        |(protocol, options, data, spoilt, [tos, flag], ttl, identification)| {
            let field = if flag & 1 == 0 { 0 } else { 0x4000 };
            Sent { header: Four { tos, identification, field, ttl, protocol, options }, data, spoilt }
        },
    )
}

impl Sent {
    fn segment(&self) -> Vec<u8> {
        if self.header.protocol == 132 {
            return self.data.clone();
        }
        let (mut segment, _) = segments(self.header.protocol, &self.data);
        let at = checksum_at(self.header.protocol);
        // Neither none of UDP, nor the other zero of one's complement, which does not come back as it was.
        let spoilt = word(&segment, at).wrapping_add(self.spoilt);
        put(&mut segment, at, if matches!(spoilt, 0 | 0xffff) { 1 } else { spoilt });
        segment
    }
}

/// What the checksum is off by, in either family.
fn off4(protocol: u8, segment: &[u8]) -> u16 {
    match protocol {
        ICMP => excess(&[segment]),
        _ => excess(&[&pseudo4(protocol, segment.len()), segment]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// There and back: the payload is the same, a right checksum is right, a wrong one as wrong as before, both times.
    #[test]
    fn there_and_back(sent in sent()) {
        let Four { protocol, tos, ttl, .. } = sent.header;
        let segment = sent.segment();
        let there = to_six(&sent.header.before(&segment)).unwrap();
        let (header, payload) = Ipv6Header::from_slice(&there).unwrap();
        let next_header = if protocol == ICMP { ICMPV6 } else { protocol };
        let expected = (tos, next_header, ttl - 1, HOST6, SERVER6);
        let found = (header.traffic_class, header.next_header.0, header.hop_limit, header.source, header.destination);
        prop_assert_eq!(found, expected);
        if protocol == 132 {
            prop_assert_eq!(payload, &segment[..]);
        } else {
            let off6 = excess(&[&pseudo6(next_header, payload.len()), payload]);
            prop_assert_eq!(off6, off4(protocol, &segment));
            let skip = checksum_at(protocol) + 2;
            prop_assert_eq!(&payload[skip..], &segment[skip..]);
        }
        let mut there = there;
        there[7] = ttl;
        let back = to_four_by(&there, sent.header.identification, &Settings::default(), |_, _| None).unwrap();
        let expected = Four { field: 0, ttl: ttl - 1, options: vec![], ..sent.header }.before(&segment);
        prop_assert_eq!(&back[..20], &expected[..20]);
        if protocol == 132 {
            prop_assert_eq!(&back[20..], &segment[..]);
        } else {
            prop_assert_eq!(off4(protocol, &back[20..]), off4(protocol, &segment));
        }
    }

    /// Errors there and back: the quote is the same but for identification and flags; the error's own checksum is as wrong as it was.
    #[test]
    fn errors_there_and_back(sent in sent(), cut in 0usize..400, wrong: u16) {
        let quote = Four { identification: 0, field: 0, options: vec![], ..sent.header.clone() }.before(&sent.segment());
        let cut = cut.clamp(20, quote.len());
        let mut message = error4([11, 1, 0, 0, 0, 0, 0, 0], &quote[..cut]);
        let spoilt = word(&message, 2).wrapping_add(wrong);
        put(&mut message, 2, spoilt);
        let mut there = to_six(&four(ICMP).before(&message)).unwrap();
        prop_assert_eq!(excess(&[&pseudo6(ICMPV6, there.len() - 40), &there[40..]]) % 0xffff, excess(&[&message]) % 0xffff);
        there[7] = 65;
        let back = to_four(&there).unwrap();
        prop_assert_eq!(&back[28..], &message[8..]);
        prop_assert_eq!(excess(&[&back[20..]]) % 0xffff, excess(&[&message]) % 0xffff);
    }

    /// Whatever comes behind a readable header, nothing panics, and what comes out says how long it is.
    #[test]
    fn anything_to_six(
        mut header in any::<(u8, u16, u16, u8)>(),
        protocol in prop::sample::select(vec![1u8, 1, 1, 6, 17, 2, 58, 44, 0, 253]),
        start in any::<[u8; 8]>(),
        quote in sent(),
        spoil in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
        len in 0usize..700,
        whole: bool,
        cut: bool,
    ) {
        if whole {
            header.2 &= 0x4000;
        }
        let mut payload = [&start[..], &quote.header.before(&quote.segment()), &[0xab; 300]].concat();
        for (at, value) in spoil {
            if let Some(byte) = payload.get_mut(at) {
                *byte = value;
            }
        }
        payload.truncate(len);
        let (tos, identification, field, ttl) = header;
        let packet = Four { tos, identification, field, ttl, protocol, options: quote.header.options }.before(&payload);
        let mut frame = framed(&packet);
        let settings = Settings { udp_checksum_none: UdpChecksumNone::Compute, ..Settings::default() };
        if let Ok(view) = parse::ipv4(frame.data(), LINK)
            && let Ok(plan) = to6::examine(&frame, &view, &settings, |_, address| Some(prefix().embed(address)))
        {
            let low = Settings { lowest_ipv6_mtu: 100, ..settings.clone() };
            let cut = cut && matches!(plan.fit(9000, &low), Ok(Some(100)));
            prop_assert!(to6::translate(&mut frame, &view, &plan, (1, 2), MTUS, &settings, cut).is_some());
            let data = &frame.data()[LINK..];
            prop_assert_eq!((data[0] >> 4, usize::from(word(data, 4)) + 40), (6, data.len()));
        }
    }

    /// The same from IPv6.
    #[test]
    fn anything_to_four(
        (class, hop_limit) in any::<(u8, u8)>(),
        next in prop::sample::select(vec![58u8, 58, 58, 6, 17, 0, 43, 44, 60, 51, 59, 253]),
        start in any::<[u8; 8]>(),
        inner in prop::sample::select(vec![58u8, 6, 17, 0, 43, 44, 60, 253]),
        quoted in prop::collection::vec(any::<u8>(), 0..400),
        spoil in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
        len in 0usize..700,
    ) {
        let mut payload = [&start[..], &six(0, inner, 64, &quoted), &[0x3a; 300]].concat();
        for (at, value) in spoil {
            if let Some(byte) = payload.get_mut(at) {
                *byte = value;
            }
        }
        payload.truncate(len);
        let mut frame = framed(&six(class, next, hop_limit, &payload));
        if let Ok(view) = parse::ipv6(frame.data(), LINK)
            && let Ok(plan) = to4::examine(&frame, &view, |_, address| Some(address as u32))
        {
            let settings = Settings::default();
            prop_assert!(to4::translate(&mut frame, &view, &plan, (1, 2), 3, MTUS, &settings).is_some());
            let data = &frame.data()[LINK..];
            prop_assert_eq!((data[0], usize::from(word(data, 2))), (0x45, data.len()));
            prop_assert_eq!(excess(&[&data[..20]]), 0);
        }
    }
}
