//! Datagrams in fragments, cut up and put together by etherparse's headers and by hand: the other side of what the gateway
//! does.

use etherparse::Ipv4Header;

use super::tags;

/// Bytes before the IP header: an Ethernet header and tags.
pub fn link_len(frame: &[u8]) -> usize {
    14 + 4 * tags(frame).len()
}

/// An IPv4 frame's header, and what is behind it.
fn split(frame: &[u8]) -> (Ipv4Header, &[u8]) {
    Ipv4Header::from_slice(&frame[link_len(frame)..]).expect("an IPv4 packet")
}

/// The fragments of a frame's datagram, cut before each of these units of 8 bytes of payload.
pub fn cut_up(frame: &[u8], cuts: &[u16]) -> Vec<Vec<u8>> {
    let (header, payload) = split(frame);
    let units = (payload.len().div_ceil(8)) as u16;
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([units]);
    starts.zip(ends).map(|(start, end)| units_of(frame, start, end, header.identification)).collect()
}

/// The fragment that has these units of a frame's datagram, from the first to before the second.
pub fn units_of(frame: &[u8], start: u16, end: u16, identification: u16) -> Vec<u8> {
    let (_, payload) = split(frame);
    let [from, to] = [start, end].map(|unit| (usize::from(unit) * 8).min(payload.len()));
    part(frame, start, to < payload.len(), &payload[from..to], identification)
}

/// A fragment with the frame's headers and any place in the datagram.
pub fn part(frame: &[u8], offset: u16, more: bool, payload: &[u8], identification: u16) -> Vec<u8> {
    let (mut header, _) = split(frame);
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = offset.try_into().expect("an offset");
    header.identification = identification;
    header.total_len = (header.header_len() + payload.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&frame[..link_len(frame)], &header.to_bytes()[..], payload].concat()
}

/// The frame as a datagram that may be fragmented, with this identification.
pub fn fragmentable(frame: &[u8], identification: u16) -> Vec<u8> {
    let (_, payload) = split(frame);
    part(frame, 0, false, payload, identification)
}

/// A fragment's identification, offset in bytes, whether more come, and payload.
pub fn place(frame: &[u8]) -> (u16, usize, bool, Vec<u8>) {
    let (header, payload) = split(frame);
    let payload = payload[..usize::from(header.total_len) - header.header_len()].to_vec();
    (header.identification, usize::from(header.fragment_offset.value()) * 8, header.more_fragments, payload)
}

/// Puts fragments of one datagram together as a host does (RFC 791 §3.2), whatever their order: a frame with the headers of
/// the first. Panics if anything of it is missing, twice there, or of another datagram.
#[track_caller]
pub fn put_together(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut places: Vec<_> = frames.iter().map(|frame| place(frame)).collect();
    let first = &frames[places.iter().position(|place| place.1 == 0).expect("a first fragment")];
    let identification = places[0].0;
    places.sort_by_key(|place| place.1);
    let mut payload = Vec::new();
    let count = places.len();
    for (nth, (id, offset, more, piece)) in places.into_iter().enumerate() {
        assert_eq!((id, offset), (identification, payload.len()), "the next piece of one datagram");
        assert_eq!(more, nth + 1 < count);
        payload.extend(piece);
    }
    part(first, 0, false, &payload, identification)
}

/// All orders of three.
pub const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
