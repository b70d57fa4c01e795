//! What a capture made at the sender shows before its network card is done: unfinished checksums.
//!
//! Linux leaves the TCP or UDP checksum to the card, and writes the pseudo-header's sum into its place (the kernel's
//! CHECKSUM_PARTIAL). On a wire such a packet never appears, so the replay does what the card would have done.

use dataplane::packet::checksum::{checksum, fold, pseudo4, pseudo6, sum};

const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV6: usize = 40;
const UDP_FIELD: usize = 6;

/// Where a transport header is, and what its checksum starts from.
struct Segment {
    at: usize,
    end: usize,
    /// Offset of the checksum in the header.
    field: usize,
    pseudo: u32,
}

/// Finishes the transport checksum of a frame, if it is unfinished; says whether it was.
pub(super) fn finish(frame: &mut [u8]) -> bool {
    let Some(Segment { at, end, field, pseudo }) = segment(frame) else { return false };
    let Some(segment) = frame.get_mut(at..end).filter(|segment| segment.len() >= field + 2) else { return false };
    let found = u16::from_be_bytes([segment[field], segment[field + 1]]);
    let unfinished = found == fold(pseudo) && fold(sum(pseudo, segment)) != 0xffff;
    if unfinished {
        segment[field..field + 2].fill(0);
        let finished = match checksum(pseudo, segment) {
            0 if field == UDP_FIELD => 0xffff, // RFC 768: zero would mean that there is none
            finished => finished,
        };
        segment[field..field + 2].copy_from_slice(&finished.to_be_bytes());
    }
    unfinished
}

/// Finds the TCP or UDP header of a whole packet; IPv6 only without extension headers, as offloads have it.
fn segment(frame: &[u8]) -> Option<Segment> {
    let get = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let ip = if get(12)? == 0x8100 { ETHERNET + TAG } else { ETHERNET };
    match get(ip - 2)? {
        0x0800 => {
            let header = 4 * usize::from(*frame.get(ip)? & 0x0f);
            let whole = get(ip + 6)? & 0x3fff == 0;
            let protocol = *frame.get(ip + 9)?;
            let len = get(ip + 2)?.checked_sub(u16::try_from(header).ok()?)?;
            let address = |at| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk::<4>()?));
            let pseudo = pseudo4(address(ip + 12)?, address(ip + 16)?, protocol, len);
            let at = ip + header;
            whole.then_some(Segment { at, end: at + usize::from(len), field: field(protocol)?, pseudo })
        }
        0x86dd => {
            let (len, protocol) = (get(ip + 4)?, *frame.get(ip + 6)?);
            let address = |at| Some(u128::from_be_bytes(*frame.get(at..)?.first_chunk::<16>()?));
            let pseudo = pseudo6(address(ip + 8)?, address(ip + 24)?, protocol, len);
            let at = ip + IPV6;
            Some(Segment { at, end: at + usize::from(len), field: field(protocol)?, pseudo })
        }
        _ => None,
    }
}

/// Offset of the checksum in TCP's and UDP's headers.
fn field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(UDP_FIELD),
        _ => None,
    }
}
