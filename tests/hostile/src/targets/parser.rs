//! Any bytes as a frame: through the reader, and whatever relies on what it promises.

use dataplane::counters::IcmpError;
use dataplane::packet::parse::{self, Fragment, Transport, View4, View6, ethertype};
use dataplane::packet::{HeapPacket, HeapPool, PacketPool, checksum, error, offload};
use dataplane::packet::{Packet, buffer};
use dataplane::session::Tuple4;
use dataplane::translate::embed::WELL_KNOWN;
use dataplane::translate::siit::{Mtus, Settings, to4, to6};
use dataplane::translate::{icmp, mss, napt};
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};

use crate::build;

/// Reads `frame`. The views' promises hold, etherparse reads the same, and what rewrites a frame changes nothing else.
///
/// # Panics
/// When that is not so.
pub fn parser(frame: &[u8]) {
    let mut finished = frame.to_vec();
    let was_unfinished = offload::finish(&mut finished);
    assert_eq!(finished.len(), frame.len());
    assert!(was_unfinished || finished == frame, "finished without need");
    for frame in [frame, &finished] {
        let Ok(link) = parse::link(frame) else { continue };
        assert!(link.len <= frame.len() && link.vlan < 4096);
        // Whatever it says that it is, it may be taken for the other.
        if let Ok(view) = parse::ipv4(frame, link.len) {
            assert_eq!(view.l3, link.len);
            four(frame, &view);
            assert!(!was_unfinished || link.ethertype != ethertype::IPV4 || !offload::finish(&mut finished.clone()));
        }
        if let Ok(view) = parse::ipv6(frame, link.len) {
            assert_eq!(view.l3, link.len);
            six(frame, &view);
        }
    }
    // Arithmetic, for any bytes at any place.
    let whole = checksum::fold(checksum::sum(0, frame));
    assert_eq!(!whole, build::checksum(&[frame]));
    let (even, odd) = frame.split_at(frame.len() / 4 * 2);
    assert_eq!(checksum::fold(checksum::sum(checksum::sum(0, even), odd)), whole);
    mss::clamp(&mut frame.to_vec(), 536);
}

/// The fixed part of a transport header, in bytes.
const fn fixed(transport: Transport, six: bool) -> usize {
    match transport {
        Transport::Tcp(_) => 20,
        Transport::Udp => 8,
        Transport::IcmpQuery(_) | Transport::IcmpError | Transport::IcmpOther => {
            if six {
                4
            } else {
                8
            }
        }
        Transport::Other => 0,
    }
}

fn four(frame: &[u8], view: &View4) {
    assert!(view.l3 + 20 <= view.l4 && view.l4 <= view.end && view.end <= frame.len());
    assert!(view.l4 + fixed(view.transport, false) <= view.end, "{view:?}");
    let header = Ipv4HeaderSlice::from_slice(&frame[view.l3..]).expect("a header");
    assert_eq!((usize::from(header.total_len()), header.slice().len()), (view.end - view.l3, view.l4 - view.l3));
    assert_eq!((header.source_addr().to_bits(), header.destination_addr().to_bits()), (view.source, view.destination));
    assert_eq!((header.protocol().0, header.ttl()), (view.protocol, view.ttl));
    assert_eq!(header.is_fragmenting_payload(), view.fragment != Fragment::Whole);
    assert!(checksum::is_header_right(header.slice()) && build::checksum(&[header.slice()]) == 0);

    let to = Tuple4 { source: 0xc633_6402, destination: 0x0a00_0001, source_port: 40_000, destination_port: 7 };
    if view.transport == Transport::IcmpError && view.fragment == Fragment::Whole {
        if let Ok(quote) = icmp::quote(frame, view) {
            let mut rewritten = frame.to_vec();
            icmp::rewrite(&mut rewritten, view, &quote, &to, &to);
            assert_only(frame, &rewritten, view.l3 + 8..view.end);
            // The checksums that were right are right again: of the header, of the message, and of the quoted header.
            let again = parse::ipv4(&rewritten, view.l3);
            assert!(view.ttl == 0 || again.is_ok_and(|again| icmp::quote(&rewritten, &again).is_ok()), "{frame:02x?}");
        }
    } else if view.fragment == Fragment::Whole {
        let mut rewritten = frame.to_vec();
        let from = Tuple4 {
            source: view.source,
            destination: view.destination,
            source_port: view.source_port,
            destination_port: view.destination_port,
        };
        if let Some(proto) = dataplane::pool::Proto::from_ip(view.protocol) {
            let (addresses, transport) = napt::deltas(proto, &from, &to);
            napt::rewrite(&mut rewritten, view, &to, addresses, transport);
            assert_only(frame, &rewritten, view.l3 + 8..view.end);
            assert!(parse::ipv4(&rewritten, view.l3).is_ok(), "{frame:02x?}");
        }
    }
    if let (Transport::Tcp(_), Fragment::Whole) = (view.transport, view.fragment) {
        let mut clamped = frame.to_vec();
        mss::clamp(&mut clamped[view.l4..view.end], 536);
        assert_only(frame, &clamped, view.l4..view.end);
    }
    to_six(frame, view);
    if error::may_answer4(frame, view) {
        let original = &frame[view.l3..view.end];
        let mut answer = empty();
        assert!(error::write4(&mut answer, IcmpError::FragmentationNeeded4, 1400, 0xc633_6402, original));
        let read = parse::ipv4(answer.data(), parse::ETHERNET).expect("our own");
        assert!((read.end, read.transport) == (answer.data().len(), Transport::IcmpError));
        assert!(answer.data().len() <= parse::ETHERNET + error::ERROR4_MAX);
        assert_eq!(build::checksum(&[&answer.data()[read.l4..]]), 0);
    }
}

fn six(frame: &[u8], view: &View6) {
    assert!(view.l3 + 40 <= view.l4 && view.l4 <= view.end && view.end <= frame.len());
    assert!(view.l4 + fixed(view.transport, true) <= view.end, "{view:?}");
    let header = Ipv6HeaderSlice::from_slice(&frame[view.l3..]).expect("a header");
    assert_eq!(usize::from(header.payload_length()) + 40, view.end - view.l3);
    assert_eq!((header.source_addr().to_bits(), header.destination_addr().to_bits()), (view.source, view.destination));
    assert_eq!(header.hop_limit(), view.hop_limit);
    to_four(frame, view);
    if error::may_answer6(frame, view, IcmpError::TimeExceeded6) {
        let original = &frame[view.l3..view.end];
        let mut answer = empty();
        assert!(error::write6(&mut answer, IcmpError::TimeExceeded6, 0, 1 << 125, original));
        let read = parse::ipv6(answer.data(), parse::ETHERNET).expect("our own");
        assert!((read.end, read.transport) == (answer.data().len(), Transport::IcmpError));
        assert!(answer.data().len() <= parse::ETHERNET + error::ERROR6_MAX);
    }
}

const MTUS: Mtus = Mtus { v4: 1500, v6: 1500 };

/// What can be translated to IPv6 is, and is as long as it says.
fn to_six(frame: &[u8], view: &View4) {
    let (mut packet, settings) = (HeapPacket::from_frame(frame), Settings::default());
    let embed = |address| WELL_KNOWN.embed(address);
    let Ok(plan) = to6::examine(&packet, view, &settings, |_, address| Some(embed(address))) else { return };
    assert_eq!(packet.data(), frame, "examined, not changed");
    let to = (embed(view.source), embed(view.destination));
    assert!(to6::translate(&mut packet, view, &plan, to, MTUS, &settings, false).is_some());
    let ip = &packet.data()[view.l3..];
    let header = Ipv6HeaderSlice::from_slice(ip).expect("a header");
    assert_eq!((plan.len, usize::from(header.payload_length()) + 40), (ip.len(), ip.len()));
    assert_eq!((header.source_addr().to_bits(), header.destination_addr().to_bits()), to);
}

/// What can be translated to IPv4 is, and is as long as it says.
fn to_four(frame: &[u8], view: &View6) {
    let (mut packet, settings) = (HeapPacket::from_frame(frame), Settings::default());
    let Ok(plan) = to4::examine(&packet, view, |_, _| Some(0xc000_0201)) else { return };
    assert_eq!(packet.data(), frame, "examined, not changed");
    let to = (0xc633_6402, 0x0a00_0001);
    assert!(to4::translate(&mut packet, view, &plan, to, 7, MTUS, &settings).is_some());
    let ip = &packet.data()[view.l3..];
    let header = Ipv4HeaderSlice::from_slice(ip).expect("a header");
    assert_eq!((plan.len, usize::from(header.total_len())), (ip.len(), ip.len()));
    assert_eq!((header.source_addr().to_bits(), header.destination_addr().to_bits()), to);
    assert_eq!(build::checksum(&[header.slice()]), 0);
}

fn empty() -> impl buffer::Packet {
    HeapPool::new(1).alloc().expect("a packet")
}

/// Nothing has changed but in this range.
fn assert_only(before: &[u8], after: &[u8], range: std::ops::Range<usize>) {
    assert_eq!(before.len(), after.len());
    assert_eq!(before[..range.start], after[..range.start]);
    assert_eq!(before[range.end..], after[range.end..]);
}
