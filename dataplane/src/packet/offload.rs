//! Checksums that the sender has left to its network card, and that no card has finished.
//!
//! Linux writes only the pseudo-header's sum into the place of a TCP or UDP checksum that the card shall compute (the
//! kernel's CHECKSUM_PARTIAL). On a wire such a packet never appears; over veth, in virtio and in captures made at the
//! sender it does. It must be finished before it is translated, since translation only updates checksums (design rule 5).

use super::checksum::{checksum, fold, pseudo4, pseudo6, sum};
use super::parse::{self, IPV6, ethertype};

const UDP_FIELD: usize = 6;

/// Where a transport header is, and what its checksum starts from.
struct Segment {
    at: usize,
    end: usize,
    /// Offset of the checksum in the header.
    field: usize,
    pseudo: u32,
}

/// Finishes the transport checksum of a frame, if it is unfinished; says whether it was. A finished one costs the sum of the
/// pseudo-header.
pub fn finish(frame: &mut [u8]) -> bool {
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
    let link = parse::link(frame).ok()?;
    let ip = link.len;
    match link.ethertype {
        ethertype::IPV4 => {
            let header = 4 * usize::from(*frame.get(ip)? & 0x0f);
            let whole = get(ip + 6)? & 0x3fff == 0;
            let protocol = *frame.get(ip + 9)?;
            let len = get(ip + 2)?.checked_sub(u16::try_from(header).ok()?)?;
            let address = |at| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk::<4>()?));
            let pseudo = pseudo4(address(ip + 12)?, address(ip + 16)?, protocol, len);
            let at = ip + header;
            whole.then_some(Segment { at, end: at + usize::from(len), field: field(protocol)?, pseudo })
        }
        ethertype::IPV6 => {
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
