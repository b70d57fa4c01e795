//! Cutting up a datagram that the next link does not take (RFC 791 §3.2, RFC 1812 §5.2.6).

use arrayvec::ArrayVec;

use crate::packet::checksum;
use crate::packet::parse::{IPV4, View4, get16, put16};
use crate::packet::{Packet, PacketPool};

/// The most fragments that one packet is cut into: enough for 1500 bytes over any link.
pub const PIECES_MAX: usize = 32;

/// The longest header of IP and of the link that is copied to every fragment, in bytes.
const LINK_MAX: usize = 22;
const HEADER_MAX: usize = 60;

/// Into how many fragments a packet must be cut for a link that takes `mtu` bytes. None if it can't be: there is no room
/// for 8 bytes of payload, or it would be more than [`PIECES_MAX`].
#[must_use]
pub fn pieces(view: &View4, mtu: u16) -> Option<usize> {
    let room = room(view.l4 - view.l3, mtu)?;
    Some((view.end - view.l4).div_ceil(room)).filter(|&pieces| pieces <= PIECES_MAX)
}

/// Bytes of payload that a fragment has room for, if more come behind it.
fn room(header: usize, mtu: u16) -> Option<usize> {
    let room = usize::from(mtu).checked_sub(header)? & !7;
    (room > 0).then_some(room)
}

/// Cuts `packet`, a frame whose IPv4 packet `view` was read from, for a link that takes `mtu` bytes, and gives the fragments
/// in order to `out`; the last of them in the packet's own buffer, the others in packets of the pool. Fragments of a fragment
/// have their places in the datagram; of the options only those go with the later ones that are to be copied (RFC 791 §3.1).
///
/// # Errors
/// Gives back the packet, which must not be used, and nothing that was given to `out` may be, if the pool is exhausted or
/// [`pieces`] says that it can't be cut.
pub fn cut<L: PacketPool>(
    mut packet: L::Packet,
    view: &View4,
    mtu: u16,
    pool: &mut L,
    mut out: impl FnMut(L::Packet),
) -> Result<(), L::Packet> {
    let (Some(room), Some(pieces)) = (room(view.l4 - view.l3, mtu), pieces(view, mtu)) else { return Err(packet) };
    let frame = packet.data();
    let link: ArrayVec<u8, LINK_MAX> = frame[..view.l3].iter().copied().take(LINK_MAX).collect();
    let first: ArrayVec<u8, HEADER_MAX> = frame[view.l3..view.l4].iter().copied().take(HEADER_MAX).collect();
    let later = later_header(&first);
    let field = get16(&first, 6);
    for piece in 0..pieces {
        let (from, last) = (view.l4 + piece * room, piece + 1 == pieces);
        let header = if piece == 0 { &first } else { &later };
        let more = if last { field & 0x2000 } else { 0x2000 };
        #[allow(clippy::cast_possible_truncation)] // a datagram has at most 8191 units
        let offset = (field & 0x1fff).wrapping_add((piece * room / 8) as u16);
        let flags = field & 0x8000 | more | offset & 0x1fff;
        let before = link.len() + header.len();
        if last {
            packet.truncate(view.end);
            // The headers stand where the payload of the fragments before it was.
            if !packet.trim_front(from - before) || packet.data().len() < before {
                return Err(packet);
            }
            write(packet.data_mut(), &link, header, flags);
        } else {
            let Some(mut fragment) = pool.alloc().filter(|fragment| fragment.tailroom() >= before + room) else {
                return Err(packet);
            };
            let (true, Some(payload)) = (fragment.append(before + room), packet.data().get(from..from + room)) else {
                return Err(packet);
            };
            fragment.data_mut()[before..].copy_from_slice(payload);
            write(fragment.data_mut(), &link, header, flags);
            out(fragment);
        }
    }
    out(packet);
    Ok(())
}

/// Writes the headers of a fragment, whose length is that of the frame.
fn write(frame: &mut [u8], link: &[u8], header: &[u8], flags: u16) {
    frame[..link.len()].copy_from_slice(link);
    let ip = &mut frame[link.len()..];
    let total = u16::try_from(ip.len()).unwrap_or(u16::MAX);
    ip[..header.len()].copy_from_slice(header);
    put16(ip, 2, total);
    put16(ip, 6, flags);
    put16(ip, 10, 0);
    let sum = checksum::checksum(0, &ip[..header.len()]);
    put16(ip, 10, sum);
}

/// The header of all fragments but the first: with those options that are to be copied.
fn later_header(first: &[u8]) -> ArrayVec<u8, HEADER_MAX> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut header: ArrayVec<u8, HEADER_MAX> = first.iter().copied().take(IPV4).collect();
    let mut options = first.get(IPV4..).unwrap_or(&[]);
    while let [kind, ref rest @ ..] = *options {
        let len = match (kind, rest) {
            (END, _) => break,
            (NOTHING, _) => 1,
            (_, [len, ..]) if (2..=options.len()).contains(&usize::from(*len)) => usize::from(*len),
            // It can't be told where the next one would begin.
            _ => break,
        };
        if kind & COPIED != 0 {
            header.extend(options[..len].iter().copied());
        }
        options = &options[len..];
    }
    while header.len() % 4 != 0 {
        header.push(END);
    }
    #[allow(clippy::cast_possible_truncation)] // at most 15
    let words = (header.len() / 4) as u8;
    header[0] = 0x40 | words;
    header
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;
    use crate::packet::parse::{self, Fragment};
    use crate::packet::{HeapPacket, HeapPool};

    /// A frame with these options, this flags-and-offset field, and `len` bytes of payload that count up.
    fn frame(options: &[u8], field: u16, len: usize) -> Vec<u8> {
        let mut ip = etherparse::Ipv4Header::new(len as u16, 9, etherparse::IpNumber(17), [10; 4], [20; 4]).unwrap();
        ip.options = options.try_into().unwrap();
        ip.set_payload_len(len).unwrap();
        ip.identification = 0xbeef;
        ip.dont_fragment = field & 0x4000 != 0;
        ip.more_fragments = field & 0x2000 != 0;
        ip.fragment_offset = (field & 0x1fff).try_into().unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let payload = (0..len).map(|byte| if byte < 8 { [0, 1, 0, 2, 0, 8, 0, 0][byte] } else { byte as u8 });
        [&[1; 12][..], &[8, 0], &ip.to_bytes()[..]].concat().into_iter().chain(payload).collect()
    }

    fn cut_up(frame: &[u8], mtu: u16, pool: usize) -> Option<Vec<Vec<u8>>> {
        let view = parse::ipv4(frame, 14).expect("a packet");
        let mut fragments = Vec::new();
        let packet = HeapPacket::from_frame(frame);
        cut(packet, &view, mtu, &mut HeapPool::new(pool), |it| fragments.push(it)).ok()?;
        Some(fragments.iter().map(|it| it.data().to_vec()).collect())
    }

    /// N44-26: etherparse puts the fragments together again, in the order in which they leave.
    #[test]
    fn n44_26_what_was_cut_is_put_together_again() {
        for (len, mtu, field, options) in [
            (1480, 1400, 0, &[][..]),
            (1480, 68, 0, &[]),
            (1480, 576, 0x2000 | 185, &[]),
            (1479, 576, 700, &[]),
            (1449, 1449, 0, &[0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0]),
        ] {
            let frame = frame(options, field, len);
            let fragments = cut_up(&frame, mtu, 64).expect("room");
            let mut payload = Vec::new();
            for (nth, fragment) in fragments.iter().enumerate() {
                assert_eq!(fragment[..14], frame[..14]);
                let (header, rest) = etherparse::Ipv4Header::from_slice(&fragment[14..]).unwrap();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                assert!(fragment.len() - 14 <= usize::from(mtu));
                assert_eq!(usize::from(header.total_len), fragment.len() - 14);
                assert_eq!(header.fragment_offset.value(), (field & 0x1fff) + (payload.len() / 8) as u16);
                assert_eq!((header.identification, header.time_to_live), (0xbeef, 9));
                let last = nth + 1 == fragments.len();
                assert_eq!(header.more_fragments, !last || field & 0x2000 != 0);
                // Router alert is copied, record route is not (RFC 2113, RFC 791).
                let copied = if nth == 0 { options } else { &options[..options.len().min(4)] };
                assert_eq!(&header.options[..], copied);
                payload.extend_from_slice(rest);
            }
            assert_eq!(payload, frame[frame.len() - len..]);
        }
    }

    /// What can't be cut is not: no room for a payload, too many fragments, an exhausted pool.
    #[test]
    fn what_cannot_be_cut_is_not() {
        let large = frame(&[], 0, 1480);
        assert_eq!(parse::ipv4(&large, 14).unwrap().fragment, Fragment::Whole);
        assert_eq!(cut_up(&large, 27, 64), None);
        assert_eq!(cut_up(&large, 60, 64), None);
        assert_eq!(cut_up(&large, 576, 1), None);
        assert_eq!(cut_up(&large, 576, 2).expect("room").len(), 3);
    }

    /// Options that lie about their length end the list.
    #[test]
    fn broken_options_are_not_copied() {
        for options in [[0x94, 0, 0, 0], [0x94, 9, 0, 0], [0x94, 1, 0x94, 4], [1, 1, 1, 0x94]] {
            let fragments = cut_up(&frame(&options, 0, 600), 576, 4).expect("room");
            assert_eq!(fragments[0][14], 0x46);
            assert_eq!(fragments[1][14], 0x45);
        }
    }
}
