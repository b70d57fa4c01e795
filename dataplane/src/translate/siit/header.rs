//! The headers of both families, written anew (RFC 7915 §4.1, §5.1), and the room for them.

use crate::packet::Packet;
use crate::packet::checksum::{fold, halves};
use crate::packet::parse::{IPV4, IPV6, put16, put32};

/// Length of an IPv6 fragment header, in bytes.
pub(super) const FRAGMENT: usize = 8;

/// An IPv6 header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header6 {
    pub class: u8,
    /// Length of what follows, in bytes.
    pub payload: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: u128,
    pub destination: u128,
}

impl Header6 {
    #[inline(always)]
    pub fn write(&self, to: &mut [u8; IPV6]) {
        let first = 6 << 28 | u32::from(self.class) << 20;
        let second = u32::from(self.payload) << 16 | u32::from(self.next_header) << 8 | u32::from(self.hop_limit);
        to[..4].copy_from_slice(&first.to_be_bytes());
        to[4..8].copy_from_slice(&second.to_be_bytes());
        to[8..24].copy_from_slice(&self.source.to_be_bytes());
        to[24..].copy_from_slice(&self.destination.to_be_bytes());
    }

    /// Writes it, before a fragment header if there is one: the header's `offset`-and-flag field and its identification. The
    /// payload includes that. Nothing without the room.
    pub fn write_before(mut self, fragment: Option<(u16, u32)>, to: &mut [u8]) {
        let Some((header, rest)) = to.split_first_chunk_mut() else { return };
        if let Some((field, identification)) = fragment
            && let Some(to) = rest.first_chunk_mut::<FRAGMENT>()
        {
            *to = [self.next_header, 0, 0, 0, 0, 0, 0, 0];
            put16(to, 2, field);
            put32(to, 4, identification);
            self.next_header = super::chain::FRAGMENT;
        }
        self.write(header);
    }
}

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header4 {
    pub tos: u8,
    /// Length of the packet, in bytes.
    pub total: u16,
    pub identification: u16,
    /// Flags and offset, as they stand in the header.
    pub field: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: u32,
    pub destination: u32,
}

impl Header4 {
    #[inline(always)]
    pub fn write(&self, to: &mut [u8; IPV4]) {
        let first = 0x4500_0000 | u32::from(self.tos) << 16 | u32::from(self.total);
        let second = u32::from(self.identification) << 16 | u32::from(self.field);
        let third = u32::from(self.ttl) << 24 | u32::from(self.protocol) << 16;
        let sum = halves(first) + halves(second) + halves(third) + halves(self.source) + halves(self.destination);
        let third = third | u32::from(!fold(sum));
        to[..4].copy_from_slice(&first.to_be_bytes());
        to[4..8].copy_from_slice(&second.to_be_bytes());
        to[8..12].copy_from_slice(&third.to_be_bytes());
        to[12..16].copy_from_slice(&self.source.to_be_bytes());
        to[16..].copy_from_slice(&self.destination.to_be_bytes());
    }

    /// Writes it. Nothing without the room.
    pub fn write_to(&self, to: &mut [u8]) {
        if let Some(to) = to.first_chunk_mut() {
            self.write(to);
        }
    }
}

/// The flags-and-offset field of IPv6's fragment header as IPv4 has it (RFC 7915 §5.1.1).
pub(super) const fn field4(field: u16) -> u16 {
    (field & 1) << 13 | field >> 3
}

/// The flags-and-offset field of IPv4 as IPv6's fragment header has it (RFC 7915 §4.1).
pub(super) const fn field6(field: u16) -> u16 {
    (field & 0x1fff) << 3 | field >> 13 & 1
}

/// Makes room for `headers` bytes in front of the frame's byte `stays`, behind the first `l3` bytes; what is in the room is
/// undefined. False, and no change, if there is none.
#[inline(always)]
pub(super) fn reframe<P: Packet>(packet: &mut P, l3: usize, stays: usize, headers: usize) -> bool {
    let needed = l3 + headers;
    if needed >= stays { packet.prepend(needed - stays) } else { packet.trim_front(stays - needed) }
}

/// Whether [`reframe`] will find its room.
#[inline(always)]
pub(super) fn has_room<P: Packet>(packet: &P, l3: usize, stays: usize, headers: usize) -> bool {
    (l3 + headers).saturating_sub(stays) <= packet.headroom()
}
