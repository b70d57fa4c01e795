//! The TCP state machine of a session (RFC 5382, RFC 6146 §3.5.2, RFC 7857 §2): pure, one segment at a time.
//!
//! The client is the side that sent the first SYN. Where the RFCs leave a corpse or cut off a new connection, the
//! decisions D1 and D11 of the requirements apply: an idle established session just ends; a SYN after both FINs or after
//! a RST starts the session again, with its sender as the client. FIN and RST change the state only if they lie in the
//! window (RFC 7857 §2.2).
//!
//! A connection that was open before its session was (mid-stream `adopt`) begins at [`State::Adopted`] and is taken for
//! established when the server has sent something. Its windows' scales are not known, so the largest is assumed: no
//! segment of the connection is held to be outside of its window.

use crate::packet::parse::{get16, get32, tcp_flags};

/// State of a TCP session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The client's SYN has passed; the server has not answered it.
    #[default]
    Init,
    /// Both sides have sent a SYN.
    Established,
    /// The client has sent a FIN.
    ClientFin,
    /// The server has sent a FIN.
    ServerFin,
    /// Both have.
    BothFin,
    /// A RST has passed (RFC 6146's TRANS).
    Transitory,
    /// Taken up in mid-stream: the client has sent, the server not yet.
    Adopted,
    /// The same, and the client has sent a FIN.
    AdoptedFin,
}

/// What a segment does to the session's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// It runs on.
    Keep,
    /// Starts anew with the opening time.
    Opening,
    /// Starts anew with the established time.
    Established,
    /// Starts anew with the closing time.
    Closing,
}

/// The fields of a segment that the machine looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Flags (RFC 9293 §3.1).
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningful with ACK.
    pub ack: u32,
    /// Window as sent, not scaled.
    pub window: u16,
    /// Sequence space that it takes: payload, SYN and FIN.
    pub len: u32,
    /// Window scale option (RFC 7323 §2), only read in a SYN.
    pub scale: Option<u8>,
}

impl Segment {
    /// Reads the segment `tcp`, which has at least 20 bytes and ends where the packet ends.
    #[must_use]
    pub fn read(tcp: &[u8]) -> Segment {
        let flags = tcp.get(13).copied().unwrap_or(0);
        let header = usize::from(tcp.get(12).copied().unwrap_or(0) >> 4) * 4;
        let payload = u32::try_from(tcp.len().saturating_sub(header)).unwrap_or(0);
        let syn = flags & tcp_flags::SYN != 0;
        let marks = u32::from(syn) + u32::from(flags & tcp_flags::FIN != 0);
        let options = tcp.get(20..header.min(tcp.len())).unwrap_or(&[]);
        Segment {
            flags,
            seq: get32(tcp, 4),
            ack: get32(tcp, 8),
            window: get16(tcp, 14),
            len: payload + marks,
            scale: if syn {
                option(options, 3).and_then(|value| value.first().map(|&scale| scale.min(SCALE_MAX)))
            } else {
                None
            },
        }
    }

    /// Whether it opens a connection.
    #[must_use]
    pub fn opens(&self) -> bool {
        opens(self.flags)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Whether a segment with these flags opens a connection: a SYN that neither answers nor ends anything.
#[must_use]
pub fn opens(flags: u8) -> bool {
    use tcp_flags::{ACK, FIN, RST, SYN};
    flags & (SYN | ACK | FIN | RST) == SYN
}

/// Whether a segment with these flags may be of an open connection: it answers, and neither opens nor ends at once.
#[must_use]
pub fn adopts(flags: u8) -> bool {
    use tcp_flags::{ACK, RST, SYN};
    flags & (SYN | ACK | RST) == ACK
}

/// The value of a TCP option, without kind and length.
#[must_use]
pub fn option(mut options: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        match *options {
            [0, ..] | [] | [_] => return None,
            [1, ..] => options = &options[1..],
            [found, len, ..] => {
                let len = usize::from(len);
                if len < 2 || len > options.len() {
                    return None;
                }
                if found == kind {
                    return Some(&options[2..len]);
                }
                options = &options[len..];
            }
        }
    }
}

/// What one side has shown of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Side {
    /// The end of what it has sent.
    end: u32,
    /// What it has acknowledged.
    ack: u32,
    /// The window that it offers, scaled.
    window: u32,
    /// Its scale, if it offered one.
    scale: u8,
    flags: u8,
}

/// The largest window scale (RFC 7323 §2.3).
const SCALE_MAX: u8 = 14;

const SENT: u8 = 1;
const ACKED: u8 = 2;
const SCALES: u8 = 4;

/// A session's TCP state: the machine's, and each side's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    state: State,
    sides: [Side; 2], // client, server
}

impl Tcp {
    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it was taken up in mid-stream, and the server has sent nothing yet.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        matches!(self.state, State::Adopted | State::AdoptedFin)
    }

    /// A session that the client's first SYN opens.
    #[must_use]
    pub fn open(syn: &Segment) -> Tcp {
        let mut tcp = Tcp::default();
        tcp.track(0, syn);
        tcp
    }

    /// A session that a segment of the client opens in the middle of its connection.
    #[must_use]
    pub fn adopt(segment: &Segment) -> Tcp {
        let side = Side { scale: SCALE_MAX, flags: SCALES, ..Side::default() };
        let state = if segment.has(tcp_flags::FIN) { State::AdoptedFin } else { State::Adopted };
        let mut tcp = Tcp { state, sides: [side; 2] };
        tcp.track(0, segment);
        tcp
    }

    /// Whether this segment, of either side, opens a new connection in place of one that has ended (D11). Its sender is
    /// then the client.
    #[must_use]
    pub fn is_reopened_by(&self, segment: &Segment) -> bool {
        matches!(self.state, State::BothFin | State::Transitory) && segment.opens()
    }

    /// A segment of the client (or else of the server) passes. Returns what becomes of the timer.
    pub fn pass(&mut self, from_client: bool, segment: &Segment) -> Timer {
        let in_window = self.in_window(from_client, segment);
        let (state, timer) = next(self.state, from_client, segment, in_window);
        if segment.has(tcp_flags::SYN) && state == State::Init && self.state != State::Init {
            // The addresses and ports are used for a new connection (D11), or again for one that had no answer.
            *self = Tcp::default();
        }
        self.state = state;
        if in_window || !segment.has(tcp_flags::RST) {
            self.track(usize::from(!from_client), segment);
        }
        timer
    }

    fn track(&mut self, side: usize, segment: &Segment) {
        let other_scales = self.sides[1 - side].flags & SCALES != 0;
        let side = &mut self.sides[side];
        let end = segment.seq.wrapping_add(segment.len);
        if segment.has(tcp_flags::SYN) {
            // Its numbers begin here, whatever an earlier connection has left.
            let flags = if segment.scale.is_some() { SCALES } else { 0 };
            *side = Side { scale: segment.scale.unwrap_or(0), flags, ..Side::default() };
        }
        if side.flags & SENT == 0 || after(end, side.end) {
            side.end = end;
            side.flags |= SENT;
        }
        // A window in a SYN is never scaled, and none is unless both sides scale (RFC 7323 §2.2).
        let scale = if segment.has(tcp_flags::SYN) || !other_scales { 0 } else { side.scale };
        if segment.has(tcp_flags::ACK) && (side.flags & ACKED == 0 || !after(side.ack, segment.ack)) {
            side.ack = segment.ack;
            side.flags |= ACKED;
            side.window = u32::from(segment.window) << scale;
        }
    }

    /// Whether a FIN or RST of this side belongs to the connection: where the peer has acknowledged anything, the segment
    /// must touch what it expects next, up to the end of its window; else it must continue what was sent.
    fn in_window(&self, from_client: bool, segment: &Segment) -> bool {
        let (own, peer) = if from_client { (&self.sides[0], &self.sides[1]) } else { (&self.sides[1], &self.sides[0]) };
        if peer.flags & ACKED != 0 {
            let end = segment.seq.wrapping_add(segment.len);
            !after(peer.ack, end) && !after(segment.seq, peer.ack.wrapping_add(peer.window.max(1)))
        } else if own.flags & SENT != 0 {
            segment.seq == own.end
        } else {
            // The server's first word, a refusal: it must acknowledge the client's SYN (RFC 9293 §3.10.7.3).
            segment.has(tcp_flags::ACK) && segment.ack == peer.end
        }
    }
}

/// Whether `a` comes after `b` in sequence space (RFC 9293 §3.4).
fn after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

/// One step of the machine: the new state, and what becomes of the timer.
#[must_use]
pub fn next(state: State, from_client: bool, segment: &Segment, in_window: bool) -> (State, Timer) {
    use State::{Adopted, AdoptedFin, BothFin, ClientFin, Established, Init, ServerFin, Transitory};
    let syn = segment.has(tcp_flags::SYN);
    let rst = segment.has(tcp_flags::RST);
    let fin = segment.has(tcp_flags::FIN) && in_window;
    match state {
        Init if syn && from_client => (Init, Timer::Opening),
        Init if syn => (Established, Timer::Established),
        Init => (Init, Timer::Keep),
        BothFin | Transitory | Adopted | AdoptedFin if segment.opens() && from_client => (Init, Timer::Opening),
        BothFin => (BothFin, Timer::Keep),
        // Whatever the client sends, it is the server's answer that counts.
        Adopted if from_client && segment.has(tcp_flags::FIN) => (AdoptedFin, Timer::Keep),
        Adopted | AdoptedFin if from_client => (state, Timer::Keep),
        _ if rst => match (in_window, state) {
            (true, Transitory) | (false, _) => (state, Timer::Keep),
            (true, _) => (Transitory, Timer::Closing),
        },
        Transitory => (Established, Timer::Established),
        Adopted => (if fin { ServerFin } else { Established }, Timer::Established),
        AdoptedFin if fin => (BothFin, Timer::Closing),
        AdoptedFin => (ClientFin, Timer::Established),
        Established if fin => (if from_client { ClientFin } else { ServerFin }, Timer::Established),
        ServerFin if fin && from_client => (BothFin, Timer::Closing),
        ClientFin if fin && !from_client => (BothFin, Timer::Closing),
        Established | ClientFin | ServerFin => (state, Timer::Established),
    }
}
