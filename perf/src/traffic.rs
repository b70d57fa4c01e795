//! The packets: built by `etherparse`, replayed in random order.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::plan::MacAddr;
use etherparse::PacketBuilder;

/// Payload of a UDP datagram that makes a frame of 64 bytes with IPv4, the checksum at its end counted.
const PAYLOAD4: [u8; 18] = [0; 18];
/// That of the smallest frame with IPv6 in CSIT's tests, 78 bytes.
const PAYLOAD6: [u8; 12] = [0; 12];

/// The Ethernet address of every neighbour.
pub const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0xaa, 0xaa]);

/// One end of a flow.
pub type End = (Ipv4Addr, u16);

/// A UDP datagram over IPv4 to an interface of the gateway.
pub fn udp4(to: MacAddr, source: End, destination: End) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER.0, to.0)
        .ipv4(source.0.octets(), destination.0.octets(), 64)
        .udp(source.1, destination.1);
    let mut frame = Vec::with_capacity(builder.size(PAYLOAD4.len()));
    builder.write(&mut frame, &PAYLOAD4).expect("a Vec takes anything");
    frame
}

/// A UDP datagram over IPv6 to an interface of the gateway.
pub fn udp6(to: MacAddr, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(PEER.0, to.0).ipv6(source.octets(), destination.octets(), 64).udp(1024, 1024);
    let mut frame = Vec::with_capacity(builder.size(PAYLOAD6.len()));
    builder.write(&mut frame, &PAYLOAD6).expect("a Vec takes anything");
    frame
}

/// Source and destination of an IPv4 frame.
pub fn ends4(frame: &[u8]) -> (End, End) {
    let byte = |at: usize| frame[at];
    let address = |at: usize| Ipv4Addr::new(byte(at), byte(at + 1), byte(at + 2), byte(at + 3));
    let port = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    ((address(26), port(34)), (address(30), port(36)))
}

/// Frames that differ in a few bytes only, to be written again and again. Kept small, so that what is not measured takes
/// little of the caches.
#[derive(Debug)]
pub struct Traffic {
    template: Vec<u8>,
    /// Where the frames differ.
    at: usize,
    width: usize,
    patches: Vec<u8>,
    next: usize,
}

impl Traffic {
    /// IPv4 frames: from the header's checksum to the end of UDP's.
    pub fn of4(frames: impl Iterator<Item = Vec<u8>>) -> Traffic {
        Traffic::new(frames, 24, 18)
    }

    /// IPv6 frames: from the addresses to the end of UDP's checksum.
    pub fn of6(frames: impl Iterator<Item = Vec<u8>>) -> Traffic {
        Traffic::new(frames, 22, 40)
    }

    fn new(frames: impl Iterator<Item = Vec<u8>>, at: usize, width: usize) -> Traffic {
        let (mut template, mut patches) = (Vec::new(), Vec::new());
        for frame in frames {
            patches.extend_from_slice(&frame[at..at + width]);
            template = frame;
        }
        Traffic { template, at, width, patches, next: 0 }
    }

    /// The same frames in another order, the same at every run.
    pub fn shuffled(mut self) -> Traffic {
        let patches = self.patches.chunks_exact(self.width);
        let order = permutation(patches.len(), 3);
        self.patches = order.iter().flat_map(|&at| &self.patches[at * self.width..][..self.width]).copied().collect();
        self
    }

    /// Length of a frame, in bytes, without its frame check sequence.
    pub fn frame_len(&self) -> usize {
        self.template.len()
    }

    /// Writes the next frame; after the last comes the first.
    #[inline]
    pub fn write(&mut self, frame: &mut [u8]) {
        frame.copy_from_slice(&self.template);
        frame[self.at..self.at + self.width].copy_from_slice(&self.patches[self.next..self.next + self.width]);
        self.next = (self.next + self.width) % self.patches.len();
    }
}

/// The numbers below `count` in an order that follows from `seed` (Fisher and Yates, by the SplitMix64 generator).
pub fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let mut numbers: Vec<usize> = (0..count).collect();
    for left in (1..count).rev() {
        let bound = left as u64 + 1;
        numbers.swap(left, usize::try_from(random() % bound).unwrap_or(0));
    }
    numbers
}
