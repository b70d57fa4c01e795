//! Every kind of malformed frame, one by one: what a field can say wrongly, said in every way that matters.
//!
//! Most of them are proper packets of flows that exist ([`scene::proper`]) with one thing wrong, so that they get as far into
//! the gateway as that thing allows.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::build::{
    ACK, Ip4, Ip6, SYN, arp, checksum, ethernet, get16, icmp, icmp6, low8, low16, packet_at, put16, seal_transport,
    seal4, tagged, tcp, udp,
};
use crate::random::Random;
use crate::scene::{self, EXTERNAL, HOST, HOST6, PEER, SERVER, SERVER6, Side, VLAN, ports, way4, way6};

/// Frames in one piece of memory, with the family that each belongs to.
#[derive(Debug, Default)]
pub struct Catalogue {
    bytes: Vec<u8>,
    frames: Vec<Entry>,
    families: Vec<(&'static str, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    side: Side,
    start: usize,
    end: usize,
}

impl Catalogue {
    /// All of them.
    #[must_use]
    pub fn new() -> Self {
        let mut all = Catalogue::default();
        for (name, make) in FAMILIES {
            make(&mut all);
            all.families.push((name, all.frames.len()));
        }
        all
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// A frame, and the side that it arrives at.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(Side, &[u8])> {
        let Entry { side, start, end } = *self.frames.get(index)?;
        Some((side, &self.bytes[start..end]))
    }

    /// The frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Side, &[u8])> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The families' names, with the number of frames in each.
    pub fn families(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let starts = [0].into_iter().chain(self.families.iter().map(|(_, end)| *end));
        self.families.iter().zip(starts).map(|((name, end), start)| (*name, end - start))
    }

    fn add(&mut self, side: Side, frame: &[u8]) {
        if frame.is_empty() {
            return; // no device delivers it
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push(Entry { side, start, end: self.bytes.len() });
    }

    fn add4(&mut self, side: Side, packet: &[u8]) {
        self.add(side, &ethernet(side, 0x0800, packet));
    }

    fn add6(&mut self, side: Side, packet: &[u8]) {
        self.add(side, &ethernet(side, 0x86dd, packet));
    }
}

type Family = (&'static str, fn(&mut Catalogue));

const FAMILIES: &[Family] = &[
    ("proper", proper),
    ("truncated", truncated),
    ("runts and giants", sizes),
    ("IPv4 version and header length", header_length),
    ("IP length", ip_length),
    ("IPv4 options", options4),
    ("fragments", fragments),
    ("IPv6 extension headers", extensions),
    ("TCP offset, flags and options", tcp_headers),
    ("UDP length", udp_length),
    ("checksums", checksums),
    ("ICMP types and codes", icmp_types),
    ("ICMP quotes", icmp_quotes),
    ("ICMPv6 quotes", icmp6_quotes),
    ("tags and EtherTypes", links),
    ("ARP", arps),
    ("neighbour discovery", discoveries),
    ("addresses", addresses),
    ("protocols", protocols),
    ("random bytes", noise),
    ("on VLANs", on_vlan),
];

/// The packets that are spoiled: each protocol, both families, both ways.
fn bases4() -> Vec<(Side, u8, Vec<u8>)> {
    let mut bases = Vec::new();
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let echo = if side == Side::Inside { 8 } else { 0 };
        for (protocol, payload) in [
            (17, udp(from, to, b"sixteen bytes...")),
            (6, tcp(from, to, ACK, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b"segment")),
            (6, tcp(from, to, SYN, &[2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 0, 0], b"")),
            (1, icmp(echo, 0, [0x0f, 0xa0, 0, 2], b"echo")),
            (1, icmp(3, 4, [0, 0, 5, 0], &quoted(side, 17, &udp(to, from, b"quoted")))),
        ] {
            bases.push((side, protocol, way4(side).packet(protocol, &payload)));
        }
    }
    bases
}

fn bases6() -> Vec<(Side, u8, Vec<u8>)> {
    let mut bases = Vec::new();
    for side in Side::BOTH {
        let (from, to) = ports(side);
        for (protocol, payload) in [
            (17, udp(from, to, b"sixteen bytes...")),
            (6, tcp(from, to, SYN, &[2, 4, 5, 180], b"")),
            (58, icmp6(128, 0, [0x0f, 0xa0, 0, 2], b"echo")),
            (58, icmp6(2, 0, [0, 0, 5, 0], &quoted6(side, 17, &udp(to, from, b"quoted")))),
        ] {
            bases.push((side, protocol, way6(side).packet(protocol, &payload)));
        }
    }
    bases
}

/// The packet that an error from `side` quotes: one of the flow, as it went out by that side.
fn quoted(side: Side, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match side {
        Side::Inside => Ip4::new(SERVER, HOST).packet(protocol, payload),
        Side::Outside => Ip4::new(EXTERNAL, SERVER).packet(protocol, payload),
    }
}

fn quoted6(side: Side, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match side {
        Side::Inside => Ip6::new(SERVER6, HOST6).packet(protocol, payload),
        Side::Outside => Ip6::new(HOST6, SERVER6).packet(protocol, payload),
    }
}

fn proper(all: &mut Catalogue) {
    scene::proper().iter().for_each(|(side, frame)| all.add(*side, frame));
    bases4().iter().for_each(|(side, _, packet)| all.add4(*side, packet));
    bases6().iter().for_each(|(side, _, packet)| all.add6(*side, packet));
}

/// Cut off at every length: as it is, and with an IP length that fits.
fn truncated(all: &mut Catalogue) {
    for (side, frame) in scene::proper() {
        (0..frame.len()).for_each(|len| all.add(side, &frame[..len]));
    }
    for (side, _, packet) in bases4() {
        for len in 20..packet.len() {
            let mut cut = packet[..len].to_vec();
            put16(&mut cut, 2, low16(len));
            seal4(&mut cut);
            all.add4(side, &cut);
        }
    }
    for (side, _, packet) in bases6() {
        for len in 40..packet.len() {
            let mut cut = packet[..len].to_vec();
            put16(&mut cut, 4, low16(len - 40));
            all.add6(side, &cut);
        }
    }
}

/// Frames of nothing but one byte, and proper datagrams of every size up to more than a buffer takes.
fn sizes(all: &mut Catalogue) {
    for side in Side::BOTH {
        for len in 1..=80 {
            for byte in [0, 0x45, 0x60, 0x81, 0xff] {
                all.add(side, &vec![byte; len]);
            }
        }
        let (from, to) = ports(side);
        for len in (0..=8972).step_by(47).chain(1340..1500).chain(1960..2060) {
            let payload = vec![0x5a; len];
            all.add4(side, &way4(side).packet(17, &udp(from, to, &payload)));
            all.add4(side, &Ip4 { fragment: 0x4000, ..way4(side) }.packet(17, &udp(from, to, &payload)));
            all.add6(side, &way6(side).packet(17, &udp(from, to, &payload)));
        }
        for pad in 0..64 {
            all.add4(side, &[&way4(side).packet(17, &udp(from, to, b""))[..], &vec![0xa5; pad]].concat());
            all.add6(side, &[&way6(side).packet(17, &udp(from, to, b""))[..], &vec![0xa5; pad]].concat());
        }
    }
}

/// Every version with every header length, the checksum being right for it, wrong, and right for 20 bytes.
fn header_length(all: &mut Catalogue) {
    for (side, _, packet) in bases4() {
        for first in 0..=255 {
            let mut odd = packet.clone();
            odd[0] = first;
            all.add4(side, &odd);
            seal4(&mut odd);
            all.add4(side, &odd);
            put16(&mut odd, 10, 0);
            let sum = checksum(&[&odd[..20]]);
            put16(&mut odd, 10, sum);
            all.add4(side, &odd);
        }
    }
    for (side, _, packet) in bases6() {
        for first in 0..=255 {
            let mut odd = packet.clone();
            odd[0] = first;
            all.add6(side, &odd);
        }
    }
}

/// Every total length and payload length that is near a boundary, with and without padding.
fn ip_length(all: &mut Catalogue) {
    let values = |exact: usize| (0..=exact + 24).chain([576, 1280, 1500, 4096, 0x7fff, 0x8000, 0xfffe, 0xffff]);
    for pad in [0, 18] {
        for (side, _, packet) in bases4() {
            for total in values(packet.len()) {
                let mut odd = [&packet[..], &vec![0; pad]].concat();
                put16(&mut odd, 2, low16(total));
                seal4(&mut odd);
                all.add4(side, &odd);
            }
        }
        for (side, _, packet) in bases6() {
            for payload in values(packet.len() - 40) {
                let mut odd = [&packet[..], &vec![0; pad]].concat();
                put16(&mut odd, 4, low16(payload));
                all.add6(side, &odd);
            }
        }
    }
}

/// Every kind of option with every kind of length, in areas of every size.
fn options4(all: &mut Catalogue) {
    let mut add = |side: Side, options: Vec<u8>| {
        let (from, to) = ports(side);
        all.add4(side, &Ip4 { options, ..way4(side) }.packet(17, &udp(from, to, b"options")));
    };
    for side in Side::BOTH {
        for kind in 0..=255 {
            for len in [0, 1, 2, 3, 4, 7, 8, 11, 39, 40, 41, 255] {
                for area in [4, 12, 40] {
                    let mut options = vec![kind, len, 4];
                    options.resize(area, 0);
                    add(side, options);
                }
            }
        }
        // Source routes, record route and timestamps with every pointer; options that begin in the last byte.
        for kind in [0x83, 0x89, 0x07, 0x44] {
            for pointer in 0..=45 {
                let mut options = vec![kind, 39, pointer];
                options.extend(SERVER.octets());
                options.resize(40, 0xff);
                add(side, options);
            }
        }
        for area in (4..=40).step_by(4) {
            let mut options = vec![1; area];
            options[area - 1] = 0x94;
            add(side, options);
            add(side, vec![0x94; area]);
            add(side, vec![1; area]);
            add(side, vec![0; area]);
        }
    }
}

/// Every place that a fragment can have, tiny ones, and such as overlap or write over a header (RFC 1858, 3128, 5722).
fn fragments(all: &mut Catalogue) {
    let offsets = || (0..=40).chain([64, 185, 4095, 4096, 8000, 8188, 8189, 8190, 8191]);
    for (side, protocol, packet) in bases4() {
        for offset in offsets() {
            for flags in 0..8 {
                for len in [0, 1, 7, 8, 9, 16, 19, 20, 24] {
                    let payload = &packet[20..packet.len().min(20 + len)];
                    let mut fragment = Ip4 { fragment: flags << 13 | offset, ..way4(side) }.packet(protocol, b"");
                    fragment.extend(payload);
                    let total = low16(fragment.len());
                    put16(&mut fragment, 2, total);
                    seal4(&mut fragment);
                    all.add4(side, &fragment);
                }
            }
        }
    }
    for (side, protocol, packet) in bases6() {
        for offset in offsets() {
            for flags in 0..8 {
                for len in [0, 1, 8, 20] {
                    let payload = &packet[40..packet.len().min(40 + len)];
                    let chain = vec![(44, fragment_header(offset << 3 | flags))];
                    all.add6(side, &Ip6 { chain, ..way6(side) }.packet(protocol, payload));
                }
            }
        }
    }
}

fn fragment_header(field: u16) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    vec![0, 0, high, low, 0x12, 0x34, 0x56, 0x78]
}

/// An extension header of `units` times 8 bytes more than the first 8, which says that it has `said`.
fn extension(number: u8, said: u8, units: usize) -> Vec<u8> {
    match number {
        44 => fragment_header(u16::from(said) & 1),
        _ => {
            let mut header = vec![0; 8 + 8 * units];
            header[1] = said;
            header[2] = if number == 43 { said & 3 } else { 1 }; // a routing type, or padding that fills the header
            header[3] = if number == 43 { low8(units) } else { low8(4 + 8 * units) };
            header
        }
    }
}

/// Hop-by-hop, routing, fragment, ESP, AH, no next header, destination options, mobility, HIP, Shim6, unknown ones.
const HEADERS: [u8; 12] = [0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 253, 200];

/// A packet of the flow behind a chain of headers.
fn behind(side: Side, chain: Vec<(u8, Vec<u8>)>, protocol: u8) -> Vec<u8> {
    let (from, to) = ports(side);
    let payload = match protocol {
        17 => udp(from, to, b"behind the chain"),
        6 => tcp(from, to, SYN, &[2, 4, 5, 180], b""),
        58 => icmp6(128, 0, [0x0f, 0xa0, 0, 3], b"behind the chain"),
        _ => vec![0x5a; 12],
    };
    Ip6 { chain, ..way6(side) }.packet(protocol, &payload)
}

/// Every extension header with every length, every two and three in a row, chains up to 64, truncated and lying.
fn extensions(all: &mut Catalogue) {
    let one = |number| (number, extension(number, 0, 0));
    for side in Side::BOTH {
        for first in HEADERS {
            for said in 0..=255 {
                all.add6(side, &behind(side, vec![(first, extension(first, said, 0))], 17));
                all.add6(side, &behind(side, vec![(first, extension(first, said, usize::from(said) % 9))], 17));
            }
            for second in HEADERS {
                for protocol in [6, 17, 58, 59, 41, 0] {
                    all.add6(side, &behind(side, vec![one(first), one(second)], protocol));
                }
                for third in HEADERS {
                    let chain = [first, second, third].map(|number| (number, extension(number, 1, 1)));
                    all.add6(side, &behind(side, chain.to_vec(), 17));
                }
            }
            for depth in 1..=64 {
                let mut chain = vec![one(first); depth];
                all.add6(side, &behind(side, chain.clone(), 17));
                // A fragment in the midst of the chain.
                chain[depth / 2] = (44, fragment_header(low16(depth) << 3 | 1));
                all.add6(side, &behind(side, chain, 6));
            }
        }
        // Routing headers of every type, with segments left (type 0: RFC 5095).
        for kind in 0..=255 {
            for left in [0, 1, 2, 255] {
                let mut header = extension(43, 2, 2);
                (header[2], header[3]) = (kind, left);
                header[8..24].copy_from_slice(&HOST6.octets());
                all.add6(side, &behind(side, vec![(43, header)], 17));
            }
        }
        // Hop-by-hop and destination options of every type, with lengths that lie; router alert and jumbo payload among them.
        for number in [0, 60] {
            for option in 0..=255 {
                for len in [0, 4, 5, 200] {
                    let mut header = extension(number, 0, 0);
                    (header[2], header[3]) = (option, len);
                    all.add6(side, &behind(side, vec![(number, header)], 17));
                }
            }
        }
        let packet = behind(side, HEADERS[..10].iter().map(|&number| one(number)).collect(), 6);
        for len in 40..packet.len() {
            let mut cut = packet[..len].to_vec();
            put16(&mut cut, 4, low16(len - 40));
            all.add6(side, &cut);
        }
    }
}

/// Both families' packet of the flow with this transport.
fn add_both(all: &mut Catalogue, side: Side, protocol: u8, segment: &[u8]) {
    all.add4(side, &way4(side).packet(protocol, segment));
    all.add6(side, &way6(side).packet(protocol, segment));
}

/// Every data offset with options that lie, and every set of flags.
fn tcp_headers(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        for flags in [SYN, ACK] {
            for offset in 0..16u8 {
                for kind in (0..=10).chain([19, 29, 30, 34, 69, 253, 254, 255]) {
                    for len in [0, 1, 2, 3, 4, 5, 40, 255] {
                        for lead in 0..2 {
                            // An option at an even place and at an odd one, behind a no-operation.
                            let mut options = vec![1; lead];
                            options.extend([kind, len, 0xff, 0xff]);
                            options.resize(40, 0);
                            let mut segment = tcp(from, to, flags, &options, b"");
                            segment[12] = offset << 4;
                            add_both(all, side, 6, &segment);
                        }
                    }
                }
            }
        }
        for flags in 0..=255 {
            for reserved in 0..16 {
                let mut segment = tcp(from, to, flags, &[], b"");
                segment[12] |= reserved;
                // Another connection's than the one that the proper traffic keeps.
                put16(&mut segment, if side == Side::Inside { 2 } else { 0 }, 54);
                add_both(all, side, 6, &segment);
            }
        }
    }
}

/// Every UDP length near the right one, and far from it; ports of zero.
fn udp_length(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let proper = udp(from, to, b"sixteen bytes...");
        for len in (0..48).chain([255, 256, 1500, 0x7fff, 0x8000, 0xfff8, 0xffff]) {
            let mut segment = proper.clone();
            put16(&mut segment, 4, len);
            add_both(all, side, 17, &segment);
        }
        for (from, to) in [(0, to), (from, 0), (0, 0)] {
            add_both(all, side, 17, &udp(from, to, b"port 0"));
            add_both(all, side, 6, &tcp(from, to, SYN, &[], b""));
        }
    }
}

/// Checksums that are zero, all ones, wrong, or unfinished: only the pseudo-header's sum.
fn checksums(all: &mut Catalogue) {
    let spoil = |right: u16| [0, 0xffff, !right, right.swap_bytes(), right ^ 1, right ^ 0x8000, right.wrapping_add(1)];
    for (side, protocol, packet) in bases4() {
        for wrong in spoil(get16(&packet, 10)) {
            let mut odd = packet.clone();
            put16(&mut odd, 10, wrong);
            all.add4(side, &odd);
        }
        let at = 20 + crate::build::checksum_at(protocol).unwrap_or(0);
        let len = low16(packet.len() - 20).to_be_bytes();
        let unfinished = !checksum(&[&packet[12..20], &[0, protocol], &len]);
        for wrong in spoil(get16(&packet, at)).into_iter().chain([unfinished]) {
            let mut odd = packet.clone();
            put16(&mut odd, at, wrong);
            all.add4(side, &odd);
        }
    }
    for (side, protocol, packet) in bases6() {
        let at = 40 + crate::build::checksum_at(protocol).unwrap_or(0);
        let len = low16(packet.len() - 40).to_be_bytes();
        let unfinished = !checksum(&[&packet[8..40], &[0, protocol], &len]);
        for wrong in spoil(get16(&packet, at)).into_iter().chain([unfinished]) {
            let mut odd = packet.clone();
            put16(&mut odd, at, wrong);
            all.add6(side, &odd);
        }
    }
}

/// Every type with every code, of both families, quoting a packet of the flow.
fn icmp_types(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let quote = quoted(side, 17, &udp(to, from, b"quoted"));
        let quote6 = quoted6(side, 17, &udp(to, from, b"quoted"));
        for kind in 0..=255 {
            for code in 0..=255 {
                all.add4(side, &way4(side).packet(1, &icmp(kind, code, [0, 0, 5, 0], &quote[..28])));
                all.add6(side, &way6(side).packet(58, &icmp6(kind, code, [0, 0, 5, 0], &quote6[..48])));
            }
        }
        // To the gateway itself.
        let (own, own6) = side.own();
        let (neighbour, neighbour6) = scene::neighbours(side);
        for kind in 0..=255 {
            for code in [0, 1, 255] {
                all.add4(side, &Ip4::new(neighbour, own).packet(1, &icmp(kind, code, [0, 9, 0, 1], &quote)));
                let message = icmp6(kind, code, [0, 9, 0, 1], &quote6);
                all.add6(side, &Ip6::new(neighbour6, own6).packet(58, &message));
            }
        }
    }
}

/// Errors that quote every protocol at every length, headers that lie, fragments, and other errors (ICM-16).
fn icmp_quotes(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let mut add = |kind: u8, quote: &[u8]| {
            all.add4(side, &way4(side).packet(1, &icmp(kind, 1, [0, 0, 5, 0], quote)));
        };
        for protocol in 0..=255 {
            let quote = quoted(side, protocol, &udp(to, from, &[0x5a; 40]));
            (0..=64).for_each(|len| add(3, &quote[..len]));
        }
        for kind in [3, 4, 5, 11, 12] {
            for (protocol, transport) in [
                (17, udp(to, from, &[0x5a; 30])),
                (6, tcp(to, from, ACK, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b"quoted")),
                (1, icmp(if side == Side::Inside { 0 } else { 8 }, 0, [0x0f, 0xa0, 0, 1], b"quoted")),
            ] {
                let quote = quoted(side, protocol, &transport);
                for len in 0..=quote.len() {
                    add(kind, &quote[..len]);
                }
                for first in 0..=255 {
                    let mut odd = quote.clone();
                    odd[0] = first;
                    add(kind, &odd);
                    seal4(&mut odd);
                    add(kind, &odd);
                }
                for total in (0..=80).chain([576, 0x8000, 0xffff]) {
                    let mut odd = quote.clone();
                    put16(&mut odd, 2, total);
                    seal4(&mut odd);
                    add(kind, &odd);
                }
                for fragment in [0x2000, 1, 0x2001, 0x1fff, 0x4000, 0x8000] {
                    let mut odd = quote.clone();
                    put16(&mut odd, 6, fragment);
                    seal4(&mut odd);
                    add(kind, &odd);
                }
            }
        }
        // An error about an error about an error.
        let mut quote = quoted(side, 17, &udp(to, from, b"the innermost"));
        for _ in 0..16 {
            quote = quoted(side, 1, &icmp(3, 1, [0; 4], &quote));
            for len in [20, 28, 36, 48, quote.len()] {
                add(3, &quote[..len.min(quote.len())]);
            }
        }
    }
}

/// The same for IPv6, with extension headers in the quote.
fn icmp6_quotes(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let mut add = |kind: u8, quote: &[u8]| {
            all.add6(side, &way6(side).packet(58, &icmp6(kind, 0, [0, 0, 5, 0], quote)));
        };
        for protocol in 0..=255 {
            let quote = quoted6(side, protocol, &udp(to, from, &[0x5a; 40]));
            (0..=64).step_by(4).for_each(|len| add(1, &quote[..len]));
        }
        let mut quote = quoted6(side, 17, &udp(to, from, b"the innermost"));
        for kind in [1, 2, 3, 4, 100, 127] {
            (0..=quote.len()).for_each(|len| add(kind, &quote[..len]));
        }
        for depth in 0..12 {
            quote = quoted6(side, 58, &icmp6(1, 0, [0; 4], &quote));
            add(1 + depth % 4, &quote);
        }
        for number in HEADERS {
            add(1, &behind(side, vec![(number, extension(number, 0, 0)); 9], 17));
        }
    }
}

/// Tags that are cut off, doubled and tripled; unknown VLANs; 802.3 lengths; every EtherType's upper half.
fn links(all: &mut Catalogue) {
    for (side, frame) in scene::proper() {
        for tpid in [0x8100, 0x88a8, 0x9100, 0x9200] {
            for tci in [0, 1, VLAN, VLAN | 0xe000, VLAN | 0x1000, 21, 4094, 4095] {
                all.add(side, &tagged(&frame, tpid, tci));
            }
            let double = tagged(&tagged(&frame, tpid, VLAN), 0x8100, VLAN);
            all.add(side, &double);
            all.add(side, &tagged(&double, 0x88a8, 4));
        }
    }
    for side in Side::BOTH {
        let (from, to) = ports(side);
        let packet = way4(side).packet(17, &udp(from, to, b"tagged"));
        let triple = (0..3).fold(ethernet(side, 0x0800, &packet), |frame, _| tagged(&frame, 0x8100, VLAN));
        for len in 0..triple.len() {
            all.add(side, &triple[..len]);
        }
        for kind in 0..=255 {
            for low in [0, 6, 0xa8, 0xdd, 0xff] {
                all.add(side, &ethernet(side, kind << 8 | low, &packet));
            }
        }
        for len in 0..=1500 {
            all.add(side, &ethernet(side, len, &[&[0x42, 0x42, 3][..], &packet].concat()));
        }
        for to in [[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [1, 0x80, 0xc2, 0, 0, 0], PEER] {
            for from in [[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1], PEER, [2, 0, 0, 0, 0xbb, 1]] {
                for (_, frame) in scene::proper().iter().filter(|(of, _)| *of == side) {
                    all.add(side, &[&to[..], &from, &frame[12..]].concat());
                }
            }
        }
    }
}

/// ARP with every field wrong, and of every length.
fn arps(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (own, _) = side.own();
        let (neighbour, _) = scene::neighbours(side);
        for packet in [
            arp(1, PEER, neighbour, [0; 6], own),
            arp(2, PEER, neighbour, side.gateway(), own),
            arp(1, [2, 0, 0, 0, 0xbb, 1], own, [0; 6], own),
            arp(1, [2, 0, 0, 0, 0xbb, 2], Ipv4Addr::UNSPECIFIED, [0; 6], own),
            arp(1, PEER, neighbour, [0; 6], EXTERNAL),
        ] {
            for to in [side.gateway(), [0xff; 6]] {
                let mut add = |packet: &[u8]| all.add(side, &[&to[..], &PEER, &[8, 6], packet].concat());
                (0..packet.len()).for_each(|len| add(&packet[..len]));
                for pad in [0, 18, 200] {
                    add(&[&packet[..], &vec![0; pad]].concat());
                }
                for at in 0..packet.len() {
                    for value in [0, 1, 2, 4, 6, 8, 16, 127, 128, 224, 254, 255] {
                        let mut odd = packet.clone();
                        odd[at] = value;
                        add(&odd);
                    }
                }
            }
        }
    }
}

/// Neighbour discovery with options of every type and length, wrong hop limits, codes and addresses, and of every length.
fn discoveries(all: &mut Catalogue) {
    let group: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let link_local: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
    for side in Side::BOTH {
        let (_, own) = side.own();
        let (_, neighbour) = scene::neighbours(side);
        let solicited: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, own.segments()[7]);
        for (kind, fixed) in [
            (133, vec![0; 4]),
            (134, [64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0].to_vec()),
            (135, [&[0; 4][..], &own.octets()].concat()),
            (136, [&[0xe0, 0, 0, 0][..], &neighbour.octets()].concat()),
            (136, [&[0x20, 0, 0, 0][..], &own.octets()].concat()),
            (137, [&[0; 4][..], &neighbour.octets(), &own.octets()].concat()),
        ] {
            let ip = Ip6 { hops: 255, ..Ip6::new(neighbour, own) };
            for option in (0..=40).chain([253, 254, 255]) {
                for len in [0, 1, 2, 3, 4, 32, 255] {
                    let mut body = [&fixed[..], &[option, len], &PEER].concat();
                    all.add6(side, &ip.discovery(kind, &body));
                    body.resize(fixed.len() + 32, 0);
                    all.add6(side, &ip.discovery(kind, &body));
                }
            }
            let whole = [&fixed[..], &[1, 1], &PEER, &[2, 1], &PEER].concat();
            (0..=whole.len()).for_each(|len| all.add6(side, &ip.discovery(kind, &whole[..len])));
            for hops in [0, 1, 64, 254] {
                all.add6(side, &Ip6 { hops, ..ip.clone() }.discovery(kind, &whole));
            }
            for code in [1, 255] {
                all.add6(side, &ip.packet(58, &[&[kind, code, 0, 0][..], &whole].concat()));
            }
            for source in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, group, own, link_local, neighbour] {
                for destination in [own, solicited, group, link_local, neighbour, Ipv6Addr::UNSPECIFIED] {
                    let ip = Ip6 { hops: 255, ..Ip6::new(source, destination) };
                    all.add6(side, &ip.discovery(kind, &whole));
                    for target in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, group, link_local] {
                        let mut odd = whole.clone();
                        if let Some(field) = odd.get_mut(4..20) {
                            field.copy_from_slice(&target.octets());
                        }
                        all.add6(side, &ip.discovery(kind, &odd));
                    }
                }
            }
            for number in HEADERS {
                let chain = vec![(number, extension(number, 0, 0))];
                all.add6(side, &Ip6 { chain, ..ip.clone() }.discovery(kind, &whole));
            }
            let proper = ip.discovery(kind, &whole);
            for at in 0..proper.len() {
                for value in [0, 1, 2, 0x3a, 0x7f, 0x80, 0xfe, 0xff] {
                    let mut odd = ethernet(side, 0x86dd, &proper);
                    odd[14 + at] = value;
                    seal(&mut odd);
                    all.add(side, &odd);
                }
            }
        }
    }
}

/// Every pair of addresses that can't be, or that mean something, of both families.
fn addresses(all: &mut Catalogue) {
    let v4 = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [10, 66, 1, 1],
        [100, 64, 0, 1],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [172, 16, 0, 1],
        [192, 0, 2, 1],
        [192, 168, 1, 0],
        [192, 168, 1, 1],
        [192, 168, 1, 10],
        [192, 168, 1, 25],
        [192, 168, 1, 255],
        [192, 168, 20, 5],
        [198, 18, 0, 1],
        [198, 51, 100, 1],
        [198, 51, 100, 2],
        [198, 51, 100, 255],
        [203, 0, 113, 5],
        [203, 0, 113, 60],
        [224, 0, 0, 1],
        [239, 255, 255, 255],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ]
    .map(Ipv4Addr::from); // one line for each dozen
    let v6 = [
        "::",
        "::1",
        "::ffff:198.51.100.1",
        "::198.51.100.1",
        "64:ff9b::c612:1",
        "100::1",
        "2001::1",
        "2001:db8:1111::1",
        "2001:db8:f::",
        "2001:db8:f::1",
        "2001:db8:f::2",
        "2002:c612:1::1",
        "fc00::1",
        "fd00:1::1",
        "fd00:1::10",
        "fe80::1",
        "fe80::ff:fe00:1",
        "fec0::1",
        "ff01::1",
        "ff02::1",
        "ff02::2",
        "ff02::1:ff00:1",
        "ff05::1:3",
        "ff0e::1",
    ];
    let v6: Vec<Ipv6Addr> = v6.into_iter().filter_map(|text| text.parse().ok()).collect();
    for side in Side::BOTH {
        let (from, to) = ports(side);
        for (protocol, segment) in [
            (17, udp(from, to, b"")),
            (6, tcp(from, to, SYN, &[], b"")),
            (1, icmp(8, 0, [0, 9, 0, 1], b"")),
            (58, icmp6(128, 0, [0, 9, 0, 1], b"")),
        ] {
            for source in v4 {
                v4.iter().for_each(|it| all.add4(side, &Ip4::new(source, *it).packet(protocol, &segment)));
            }
            for &source in &v6 {
                v6.iter().for_each(|it| all.add6(side, &Ip6::new(source, *it).packet(protocol, &segment)));
            }
        }
        for ttl in 0..=255 {
            all.add4(side, &Ip4 { ttl, ..way4(side) }.packet(17, &udp(from, to, b"")));
            all.add6(side, &Ip6 { hops: ttl, ..way6(side) }.packet(17, &udp(from, to, b"")));
        }
    }
}

/// Every protocol number, with a transport header that fits no other and with none.
fn protocols(all: &mut Catalogue) {
    for side in Side::BOTH {
        let (from, to) = ports(side);
        for protocol in 0..=255 {
            for len in [0, 1, 4, 8, 20, 40] {
                let payload = &udp(from, to, &[0x5a; 32])[..len];
                add_both(all, side, protocol, payload);
            }
        }
    }
}

/// Random bytes: whole frames, behind an Ethernet header, and behind an IP header that is right.
fn noise(all: &mut Catalogue) {
    let mut random = Random::new(1);
    for side in Side::BOTH {
        for len in (1..=1514).step_by(3) {
            let mut bytes = vec![0; len];
            random.fill(&mut bytes);
            all.add(side, &bytes);
            all.add4(side, &bytes);
            all.add6(side, &bytes);
            let protocol = [1, 6, 17, 58, low8(len)][len % 5];
            let mut packet = way4(side).packet(protocol, &[]);
            packet.extend(&bytes);
            put16(&mut packet, 2, low16(20 + len));
            seal4(&mut packet);
            all.add4(side, &packet);
            all.add6(side, &way6(side).packet(protocol, &bytes));
        }
    }
}

/// Some of all the others that arrive inside, with the tag of the VLAN there, or with two.
fn on_vlan(all: &mut Catalogue) {
    let inside = all.iter().filter(|(side, _)| *side == Side::Inside).step_by(23).zip([false, true].iter().cycle());
    let tag = |frame, &double| if double { scene::double_tagged(frame) } else { tagged(frame, 0x8100, VLAN) };
    let frames: Vec<_> = inside.map(|((_, frame), double)| tag(frame, double)).collect();
    frames.iter().for_each(|frame| all.add(Side::Inside, frame));
}

/// Makes the checksums of a frame right, as far as its headers lead to them: so that what else is wrong with it is read.
pub fn seal(frame: &mut [u8]) {
    let at = packet_at(frame);
    let Some(packet) = frame.get_mut(at..) else { return };
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            seal4(packet);
            let (protocol, header) = (packet[9], usize::from(packet[0] & 15) * 4);
            let pseudo = [&packet[12..20], &[0, protocol]].concat();
            if let Some(segment) = packet.get_mut(header..) {
                seal_transport(segment, protocol, &pseudo);
            }
        }
        Some(6) if packet.len() >= 40 => {
            let protocol = packet[6];
            let pseudo = [&packet[8..40], &[0, protocol]].concat();
            seal_transport(&mut packet[40..], protocol, &pseudo);
        }
        _ => {}
    }
}
