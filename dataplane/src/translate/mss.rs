//! TCP MSS clamping: lowers the maximum segment size option of a SYN (RFC 9293 §3.7.1), never raises it.

use crate::packet::checksum::Delta;
use crate::packet::parse::{get16, put16, tcp_flags};
use crate::plan::{InterfaceSpec, MssClamp};

const MSS: u8 = 2;

/// The clamp of a SYN that enters and leaves by these interfaces, for segments behind so many bytes of IP and TCP headers there
/// and here.
#[must_use]
pub fn limit(ingress: Option<&InterfaceSpec>, egress: &InterfaceSpec, headers: (u16, u16)) -> Option<u16> {
    let of = |interface: &InterfaceSpec, headers: u16| match interface.mss_clamp {
        MssClamp::Off => None,
        MssClamp::FromMtu => Some(interface.mtu.saturating_sub(headers)),
        MssClamp::Fixed(limit) => Some(limit),
    };
    [ingress.and_then(|it| of(it, headers.0)), of(egress, headers.1)].into_iter().flatten().min()
}

/// Lowers the MSS of the segment `tcp` to `limit`, if it is a SYN with a larger one.
pub fn clamp(tcp: &mut [u8], limit: u16) {
    let is_syn = tcp.get(13).is_some_and(|flags| flags & tcp_flags::SYN != 0);
    let header = usize::from(tcp.get(12).copied().unwrap_or(0) >> 4) * 4;
    if !is_syn || header > tcp.len() {
        return;
    }
    let mut at = 20;
    while at + 1 < header {
        match (tcp[at], usize::from(tcp[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (MSS, 4) if at + 4 <= header => {
                let old = get16(tcp, at + 2);
                if old > limit {
                    put16(tcp, at + 2, limit);
                    // On an odd offset the option's bytes count in each other's places.
                    let swap = |word: u16| if at % 2 == 0 { word } else { word.swap_bytes() };
                    let checksum = Delta::default().word(swap(old), swap(limit)).apply(get16(tcp, 16));
                    put16(tcp, 16, checksum);
                }
                return;
            }
            (_, len) => at += len.max(2),
        }
    }
}
