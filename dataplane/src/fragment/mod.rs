//! Fragments of IPv4 datagrams (RFC 791 §3.2): which datagram a fragment belongs to, and cutting up what a link does not take.
//!
//! A datagram is translated by its ports, and only its first fragment has them. So a shard remembers of each datagram what
//! that one said, and lends it to the later ones ([`Lent`]); those that come before it wait ([`reassembly`]). Nothing is put
//! together: every fragment leaves as one. Identifications that the gateway chooses come from [`identification`], and what is
//! too large for the next link is cut by [`mod@cut`].
//!
//! No I/O and no clock: every call that depends on time takes it.

pub mod cut;
pub mod identification;
pub mod reassembly;

use crate::counters::Drop;
use crate::packet::parse::{Fragment, Transport, View4, get16, protocol};
use crate::pool::Proto;
use crate::session::{Secret, tcp};
use crate::steer::ShardId;
use identification::Identifications;
use reassembly::Reassembly;

/// The longest datagram, in bytes of payload in units of 8 (RFC 791 §3.1: 65,535 with the header).
const UNITS_MAX: u16 = 8190;

/// What names the fragments of one datagram (RFC 791 §3.2). Addresses in host order, as they stand in the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Identification.
    pub identification: u16,
    /// IP protocol.
    pub protocol: u8,
}

impl Datagram {
    /// The datagram that a packet belongs to.
    #[must_use]
    pub fn of(frame: &[u8], view: &View4) -> Self {
        let &View4 { source, destination, protocol, .. } = view;
        Datagram { source, destination, identification: get16(frame, view.l3 + 4), protocol }
    }

    /// The shard that learns the datagram's ports, where its addresses do not say whose it is (design rule 9). A fixed
    /// function, as every worker that receives one of its fragments must name the same shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        let addresses = u64::from(self.source) << 32 | u64::from(self.destination);
        let rest = u64::from(self.identification) << 8 | u64::from(self.protocol);
        let mixed = (addresses ^ rest << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest;
        #[allow(clippy::cast_possible_truncation)] // 6 bits are left
        ShardId((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as u8)
    }
}

/// Which part of its datagram a fragment is, in units of 8 bytes of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    start: u16,
    /// Where it ends; of the last one rounded up.
    end: u16,
    /// No more come behind it.
    last: bool,
}

impl Piece {
    /// Reads the part that a fragment is.
    ///
    /// # Errors
    /// [`Drop::FragmentLength`] where no sender would cut: it is empty, breaks off within 8 bytes, or goes beyond the largest
    /// datagram. [`Drop::FragmentOverwrite`] if it begins within the transport header, which a first fragment that is let
    /// through always has whole (RFC 1858 §4, RFC 3128).
    pub fn read(frame: &[u8], view: &View4) -> Result<Piece, Drop> {
        let field = get16(frame, view.l3 + 6);
        let (start, last) = (field & 0x1fff, field & 0x2000 == 0);
        let bytes = u16::try_from(view.end - view.l4).map_err(|_| Drop::FragmentLength)?;
        let end = start + bytes.div_ceil(8);
        if bytes == 0 || (!last && bytes % 8 != 0) || end > UNITS_MAX {
            return Err(Drop::FragmentLength);
        }
        let header = if view.protocol == protocol::TCP { 20 } else { 8 };
        if start != 0 && start * 8 < header {
            return Err(Drop::FragmentOverwrite);
        }
        Ok(Piece { start, end, last })
    }
}

/// What the first fragment of a datagram lends to the others: what is in the transport header, which only it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// Source port. Of an ICMP query the requester's is the identifier, the other's is 0.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The transport, as the first fragment opens a session with it.
    pub transport: Transport,
    /// The identification that the datagram leaves with, if it gets another one.
    pub identification: Option<u16>,
}

impl Lent {
    /// What the first fragment that `view` was read from has to lend.
    ///
    /// # Errors
    /// Why no fragment of the datagram can be translated: an ICMP error is only looked into whole, for its checksum covers
    /// what it quotes.
    pub fn of(view: &View4) -> Result<Lent, Drop> {
        let transport = match view.transport {
            // A segment that was cut is not taken up in mid-stream.
            Transport::Tcp(flags) => Transport::Tcp(if tcp::opens(flags) { flags } else { 0 }),
            Transport::Udp | Transport::IcmpQuery(_) => view.transport,
            Transport::IcmpError => return Err(Drop::Fragment),
            Transport::IcmpOther => return Err(Drop::IcmpType),
            Transport::Other => return Err(Drop::Protocol),
        };
        let &View4 { source_port, destination_port, .. } = view;
        Ok(Lent { source_port, destination_port, transport, identification: None })
    }

    /// A fragment with what is lent to it. A later one has no transport header: `l4` is its end.
    #[must_use]
    pub fn to(&self, view: &View4) -> View4 {
        let &Lent { source_port, destination_port, transport, .. } = self;
        let later = view.fragment == Fragment::Later;
        let transport = if let (Transport::Tcp(_), true) = (transport, later) { Transport::Tcp(0) } else { transport };
        let l4 = if later { view.end } else { view.l4 };
        View4 { source_port, destination_port, transport, l4, ..*view }
    }
}

/// Whether fragments of this protocol can be translated at all.
#[must_use]
pub fn is_translatable(protocol: u8) -> bool {
    Proto::from_ip(protocol).is_some()
}

/// What a shard knows of datagrams in fragments. It moves with the shard.
#[derive(Debug)]
pub struct Datagrams<T> {
    /// Those that are on their way.
    pub reassembly: Reassembly<T>,
    /// The identifications of those that leave.
    pub identifications: Identifications,
}

impl<T> Datagrams<T> {
    /// Of a shard that has seen none. `fragments` may wait in all shards together.
    #[must_use]
    pub fn new(shard: ShardId, secret: &Secret, fragments: u32) -> Self {
        Datagrams { reassembly: Reassembly::new(fragments), identifications: Identifications::new(shard, secret) }
    }

    /// Exchanges all that is known with another one, as a shard leaves or arrives. Nothing may wait in either.
    pub fn exchange<U>(&mut self, other: &mut Datagrams<U>) {
        self.reassembly.exchange(&mut other.reassembly);
        std::mem::swap(&mut self.identifications, &mut other.identifications);
    }
}
