//! The extension headers of an IPv6 packet, of which IPv4 has none (RFC 7915 §5.1).

use crate::counters::Drop;
use crate::packet::parse::{EXTENSIONS_MAX, IPV6, get16, get32};

/// The fragment header.
pub(super) const FRAGMENT: u8 = 44;
/// The routing header.
const ROUTING: u8 = 43;

/// What stands between an IPv6 header and what is translated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// Offset behind the headers that are skipped.
    pub end: usize,
    /// What follows there.
    pub protocol: u8,
    /// The fragment header's offset-and-flag field and identification.
    pub fragment: Option<(u16, u32)>,
    /// Offset of the segments that a routing header has left.
    pub segments_left: Option<usize>,
}

impl Chain {
    /// Reads the headers behind the IPv6 header at `l3`, of a packet that ends at `end`, or is cut off there.
    ///
    /// # Errors
    /// [`Drop::ExtensionHeaders`], [`Drop::FragmentExtension`]; [`Drop::TransportShort`] if it ends among them.
    pub fn read(frame: &[u8], l3: usize, end: usize) -> Result<Self, Drop> {
        let packet = frame.get(..end).unwrap_or(&[]);
        let next_header = *packet.get(l3 + 6).ok_or(Drop::TransportShort)?;
        let mut chain = Chain { end: l3 + IPV6, protocol: next_header, fragment: None, segments_left: None };
        for _ in 0..=EXTENSIONS_MAX {
            let skipped = match chain.protocol {
                // Hop-by-hop options, routing, destination options.
                0 | ROUTING | 60 => true,
                FRAGMENT => false,
                _ => return Ok(chain),
            };
            let header = packet.get(chain.end..).and_then(<[u8]>::first_chunk::<8>).ok_or(Drop::TransportShort)?;
            if skipped {
                if chain.protocol == ROUTING && header[3] != 0 {
                    chain.segments_left.get_or_insert(chain.end + 3);
                }
                chain.end += usize::from(header[1]) * 8 + 8;
                if chain.end > packet.len() {
                    return Err(Drop::TransportShort);
                }
                chain.protocol = header[0];
                continue;
            }
            chain.fragment = Some((get16(header, 2), get32(header, 4)));
            (chain.end, chain.protocol) = (chain.end + 8, header[0]);
            // Behind it only the transport is fragmented as in IPv4. ESP looks like one; AH, and what moves about, does not.
            let extends = matches!(chain.protocol, 0 | ROUTING | FRAGMENT | 51 | 60 | 135 | 139 | 140);
            return if extends { Err(Drop::FragmentExtension) } else { Ok(chain) };
        }
        Err(Drop::ExtensionHeaders)
    }

    /// Whether it is a part of a datagram. One that is the first and the last part is whole (RFC 6946).
    pub fn is_part(&self) -> bool {
        self.fragment.is_some_and(|(field, _)| field & 0xfff9 != 0)
    }

    /// Whether the transport header is not here.
    pub fn is_later(&self) -> bool {
        self.fragment.is_some_and(|(field, _)| field & 0xfff8 != 0)
    }
}
