//! Whether a transport checksum is right: looked at in samples, and before a segment is answered. No forwarded packet is
//! stopped for it (design rule 5): its receiver will see.

use super::checksum::{fold, pseudo4, pseudo6, sum};
use super::parse::{Fragment, IPV6, Transport, View4, View6, get16, protocol};

/// What one transport checksum covers, the checksum included.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    pseudo: u32,
    data: &'a [u8],
}

impl<'a> Covered<'a> {
    /// Of the IPv4 packet that `view` was read from. None if there is no checksum that could be looked at: of a fragment, of
    /// UDP without one (RFC 768), of another protocol than TCP, UDP and ICMP.
    #[must_use]
    pub fn of4(frame: &'a [u8], view: &View4) -> Option<Covered<'a>> {
        if view.fragment != Fragment::Whole {
            return None;
        }
        let data = transport(frame.get(view.l4..view.end)?, view.transport)?;
        let pseudo = match view.protocol {
            protocol::ICMP => 0,
            other => pseudo4(view.source, view.destination, other, u16::try_from(data.len()).ok()?),
        };
        Some(Covered { pseudo, data })
    }

    /// Of the IPv6 packet that `view` was read from; none behind extension headers, of which one may stand for the
    /// destination.
    #[must_use]
    pub fn of6(frame: &'a [u8], view: &View6) -> Option<Covered<'a>> {
        if view.fragment != Fragment::Whole || view.l4 != view.l3 + IPV6 {
            return None;
        }
        let data = transport(frame.get(view.l4..view.end)?, view.transport)?;
        let pseudo = pseudo6(view.source, view.destination, view.protocol, u16::try_from(data.len()).ok()?);
        Some(Covered { pseudo, data })
    }

    /// Whether the checksum is right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        fold(sum(self.pseudo, self.data)) == 0xffff
    }
}

/// The part of an IP payload that the checksum covers.
fn transport(payload: &[u8], transport: Transport) -> Option<&[u8]> {
    match transport {
        Transport::Udp if get16(payload, 6) == 0 => None,
        Transport::Udp => payload.get(..usize::from(get16(payload, 4))),
        Transport::Other => None,
        Transport::Tcp(_) | Transport::IcmpQuery(_) | Transport::IcmpError | Transport::IcmpOther => Some(payload),
    }
}
