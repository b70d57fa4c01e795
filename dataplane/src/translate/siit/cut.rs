//! Cutting up a translated packet that the next link, or every way there is, does not take whole. IPv6 leaves that to the sender,
//! in whose place the translator stands (RFC 7915 §4.1).

use super::header::FRAGMENT;
use crate::fragment::cut::PIECES_MAX;
use crate::packet::parse::{IPV6, get16, put16};
use crate::packet::{Packet, PacketPool};

/// The longest header of the link, in bytes.
const LINK_MAX: usize = 22;
const HEADER: usize = IPV6 + FRAGMENT;

/// Into how many fragments so many bytes behind an IPv6 header must be cut, to be packets of `most` bytes. None if there is no room
/// for 8 bytes of payload, or it would be more than [`PIECES_MAX`].
#[must_use]
pub fn pieces(payload: usize, most: u16) -> Option<usize> {
    let pieces = payload.div_ceil(room(most)?);
    (pieces <= PIECES_MAX).then_some(pieces)
}

/// Bytes of payload that a fragment has room for, if more come behind it.
fn room(most: u16) -> Option<usize> {
    let room = usize::from(most).checked_sub(HEADER)? & !7;
    (room > 0).then_some(room)
}

/// Cuts `packet`, a frame with an IPv6 header at `l3` and a fragment header behind it, into packets of at most `most` bytes. Gives
/// them in order to `out`; the last of them in the packet's own buffer, the others in packets of the pool. Fragments of a fragment
/// have their places in the datagram.
///
/// # Errors
/// Gives back the packet, which must not be used, and nothing that was given to `out` may be, if the pool is exhausted or
/// [`pieces`] says that it can't be cut.
pub fn cut<L: PacketPool>(
    mut packet: L::Packet,
    l3: usize,
    most: u16,
    pool: &mut L,
    mut out: impl FnMut(L::Packet),
) -> Result<(), L::Packet> {
    let (before, end) = (l3 + HEADER, packet.data().len());
    let Some(payload) = end.checked_sub(before).filter(|_| l3 <= LINK_MAX) else { return Err(packet) };
    let (Some(room), Some(pieces)) = (room(most), pieces(payload, most)) else { return Err(packet) };
    let mut headers = [0; LINK_MAX + HEADER];
    let headers = &mut headers[..before];
    headers.copy_from_slice(&packet.data()[..before]);
    let field = get16(headers, l3 + IPV6 + 2);
    for piece in 0..pieces.max(1) {
        let (from, last) = (before + piece * room, piece + 1 >= pieces);
        let len = if last { end - from } else { room };
        #[allow(clippy::cast_possible_truncation)] // less than a datagram, and than what was there
        let (offset, payload) = (field.wrapping_add((piece * room) as u16) & 0xfff8, (FRAGMENT + len) as u16);
        put16(headers, l3 + 4, payload);
        put16(headers, l3 + IPV6 + 2, offset | if last { field & 1 } else { 1 });
        if last {
            // The headers stand where the payload of the fragments before it was.
            if !packet.trim_front(from - before) || packet.data().len() < before {
                return Err(packet);
            }
            packet.data_mut()[..before].copy_from_slice(headers);
        } else {
            let Some(mut fragment) = pool.alloc().filter(|fragment| fragment.tailroom() >= before + len) else {
                return Err(packet);
            };
            let (true, Some(payload)) = (fragment.append(before + len), packet.data().get(from..from + len)) else {
                return Err(packet);
            };
            fragment.data_mut()[..before].copy_from_slice(headers);
            fragment.data_mut()[before..].copy_from_slice(payload);
            out(fragment);
        }
    }
    out(packet);
    Ok(())
}
