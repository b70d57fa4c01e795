//! Datagrams in fragments, cut up and put together by etherparse's headers and by hand: the other side of what the gateway
//! does.

use etherparse::Ipv4Header;

/// The fragments of a frame's datagram, cut before each of these units of 8 bytes of payload.
pub fn cut_up(frame: &[u8], cuts: &[u16]) -> Vec<Vec<u8>> {
    let (header, payload) = Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 packet");
    let units = (payload.len().div_ceil(8)) as u16;
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([units]);
    let piece = |(start, end): (u16, u16)| {
        let (from, to) = (usize::from(start) * 8, (usize::from(end) * 8).min(payload.len()));
        part(frame, start, end != units, &payload[from..to], header.identification)
    };
    starts.zip(ends).map(piece).collect()
}

/// A fragment with the frame's headers and any place in the datagram.
pub fn part(frame: &[u8], offset: u16, more: bool, payload: &[u8], identification: u16) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 packet");
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = offset.try_into().expect("an offset");
    header.identification = identification;
    header.total_len = (header.header_len() + payload.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], &header.to_bytes()[..], payload].concat()
}

/// The frame as a datagram that may be fragmented, with this identification.
pub fn fragmentable(frame: &[u8], identification: u16) -> Vec<u8> {
    let (_, payload) = Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 packet");
    part(frame, 0, false, payload, identification)
}

/// A fragment's identification, offset in bytes, whether more come, and payload.
pub fn place(frame: &[u8]) -> (u16, usize, bool, Vec<u8>) {
    let (header, payload) = Ipv4Header::from_slice(&frame[14..]).expect("an IPv4 packet");
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
