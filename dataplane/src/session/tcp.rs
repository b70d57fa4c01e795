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

    /// Reads a segment that neither opens nor ends anything; none if it does, or is shorter than 20 bytes.
    #[inline]
    #[must_use]
    pub fn read_plain(tcp: &[u8]) -> Option<Segment> {
        let head = tcp.first_chunk::<20>()?;
        let flags = head[13];
        if flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST) != 0 {
            return None;
        }
        let header = usize::from(head[12] >> 4) * 4;
        let len = u32::try_from(tcp.len().saturating_sub(header)).unwrap_or(0);
        Some(Segment { flags, seq: get32(head, 4), ack: get32(head, 8), window: get16(head, 14), len, scale: None })
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

/// The largest window scale (RFC 7323 §2.3).
const SCALE_MAX: u8 = 14;

/// Of a side: it has sent something; it has acknowledged something; its last window is to be scaled; it scales windows. The
/// upper four bits are its scale.
const SENT: u8 = 1;
const ACKED: u8 = 2;
const SCALED: u8 = 4;
const SCALES: u8 = 8;

/// A session's TCP state: the machine's, and what each side's next segment is held against.
///
/// Of each side one number is enough: what the peer has acknowledged; before the peer has acknowledged anything, the end of
/// what the side has sent; and before it has sent anything, the end of what the peer has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// For the client's segments, and for the server's.
    expected: [u32; 2],
    /// The window that the peer offers them, as sent.
    windows: [u16; 2],
    /// Flags and scale of the client, and of the server.
    sides: [u8; 2],
    state: State,
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
        tcp.track(true, syn);
        tcp
    }

    /// A session that a segment of the client opens in the middle of its connection.
    #[must_use]
    pub fn adopt(segment: &Segment) -> Tcp {
        let state = if segment.has(tcp_flags::FIN) { State::AdoptedFin } else { State::Adopted };
        let mut tcp = Tcp { state, sides: [SCALES | SCALE_MAX << 4; 2], ..Tcp::default() };
        tcp.track(true, segment);
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
        // Nothing else is held against the window.
        let ends = segment.flags & (tcp_flags::FIN | tcp_flags::RST) != 0;
        let in_window = ends && self.in_window(from_client, segment);
        let (state, timer) = next(self.state, from_client, segment, in_window);
        if segment.has(tcp_flags::SYN) && state == State::Init && self.state != State::Init {
            // The addresses and ports are used for a new connection (D11), or again for one that had no answer.
            *self = Tcp::default();
        }
        self.state = state;
        if in_window || !segment.has(tcp_flags::RST) {
            self.track(from_client, segment);
        }
        timer
    }

    /// Whether segments that neither open nor end anything leave the state as it is, and start the established time anew.
    #[inline]
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established | State::ClientFin | State::ServerFin)
    }

    /// Such a segment passes in such a state: what [`Tcp::pass`] comes down to.
    #[inline]
    pub fn pass_plain(&mut self, from_client: bool, segment: &Segment) {
        self.track(from_client, segment);
    }

    /// Takes note of a segment of one side.
    #[inline]
    fn track(&mut self, from_client: bool, segment: &Segment) {
        let (own, peer) = if from_client { (0, 1) } else { (1, 0) };
        let syn = segment.has(tcp_flags::SYN);
        if syn {
            // Its numbers begin here, whatever an earlier connection has left. (Of that, what was acknowledged last stands
            // for the end of what the peer has sent.)
            self.sides[own] = segment.scale.map_or(0, |scale| SCALES | scale << 4);
        }
        let end = segment.seq.wrapping_add(segment.len);
        let first = self.sides[own] & SENT == 0;
        if self.sides[peer] & ACKED == 0 && (first || after(end, self.expected[own])) {
            self.expected[own] = end;
        }
        if self.sides[own] & ACKED == 0 && self.sides[peer] & SENT == 0 && (first || after(end, self.expected[peer])) {
            self.expected[peer] = end;
        }
        self.sides[own] |= SENT;
        if segment.has(tcp_flags::ACK)
            && (syn || self.sides[own] & ACKED == 0 || !after(self.expected[peer], segment.ack))
        {
            (self.expected[peer], self.windows[peer]) = (segment.ack, segment.window);
            // A window in a SYN is never scaled, and none is unless both sides scale (RFC 7323 §2.2).
            let scaled = if syn || self.sides[peer] & SCALES == 0 { 0 } else { SCALED };
            self.sides[own] = self.sides[own] & !SCALED | ACKED | scaled;
        }
    }

    /// Whether a FIN or RST of this side belongs to the connection: where the peer has acknowledged anything, the segment
    /// must touch what it expects next, up to the end of its window; else it must continue what was sent.
    fn in_window(&self, from_client: bool, segment: &Segment) -> bool {
        let (own, peer) = if from_client { (0, 1) } else { (1, 0) };
        let expected = self.expected[own];
        if self.sides[peer] & ACKED != 0 {
            let scale = if self.sides[peer] & SCALED == 0 { 0 } else { self.sides[peer] >> 4 };
            let window = (u32::from(self.windows[own]) << scale).max(1);
            let end = segment.seq.wrapping_add(segment.len);
            !after(expected, end) && !after(segment.seq, expected.wrapping_add(window))
        } else if self.sides[own] & SENT != 0 {
            segment.seq == expected
        } else {
            // The server's first word, a refusal: it must acknowledge the client's SYN (RFC 9293 §3.10.7.3).
            segment.has(tcp_flags::ACK) && segment.ack == expected
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
