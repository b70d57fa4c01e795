//! The packets: UDP with valid checksums, of flows by CSIT's scheme, replayed in random order.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::plan::MacAddr;
use etherparse::PacketBuilder;

/// The Ethernet address of every neighbour.
pub const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0xaa, 0xaa]);
/// The gateway's Ethernet addresses: inside, outside.
pub const GATEWAY: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
/// Flows of one inside host, as in CSIT's tests.
pub const PORTS_PER_HOST: usize = 63;
/// The first inside host, the first remote one, the first external address.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// The first remote host.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
/// The first external address.
pub const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);
/// The first port of a host, on either side.
const PORT: u16 = 1024;

/// One end of an IPv4 flow.
pub type End = (Ipv4Addr, u16);

/// Inside and remote end of a flow: 63 mappings of the n-th inside host, each to `remotes` ports of the n-th remote one.
#[must_use]
pub fn flow_ends(flow: usize, remotes: usize) -> (End, End) {
    let (mapping, remote) = (flow / remotes, flow % remotes);
    let host = u32::try_from(mapping / PORTS_PER_HOST).unwrap_or(u32::MAX);
    let port = |offset| PORT + u16::try_from(offset).unwrap_or(0);
    let mapping = mapping % PORTS_PER_HOST;
    let inside = (Ipv4Addr::from_bits(INSIDE.to_bits() + host), port(mapping));
    (inside, (Ipv4Addr::from_bits(REMOTE.to_bits() + host), port(mapping * remotes + remote)))
}

/// The flow that has this remote end.
#[must_use]
pub fn flow_of(remote: End, remotes: usize) -> Option<usize> {
    let host = usize::try_from(remote.0.to_bits().checked_sub(REMOTE.to_bits())?).ok()?;
    Some(host * PORTS_PER_HOST * remotes + usize::from(remote.1.checked_sub(PORT)?))
}

/// Addresses of an IPv6 flow: those of the n-th inside host and of the n-th remote one.
#[must_use]
pub fn flow_ends6(flow: u16) -> (Ipv6Addr, Ipv6Addr) {
    let address = |net| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, flow);
    (address(0xaaaa), address(0xbbbb))
}

/// Source and destination of an IPv4 frame with UDP.
#[must_use]
pub fn ends4(frame: &[u8]) -> (End, End) {
    let byte = |at: usize| frame[at];
    let address = |at: usize| Ipv4Addr::new(byte(at), byte(at + 1), byte(at + 2), byte(at + 3));
    let port = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    ((address(26), port(34)), (address(30), port(36)))
}

/// Lengths of frames, in bytes with the frame check sequence that a wire adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lengths {
    /// All of this length.
    Fixed(u16),
    /// CSIT's mix: of 48 frames, 28 of 64 bytes, 16 of 570 and 4 of 1,518.
    Imix,
}

impl Lengths {
    /// That of the n-th frame.
    #[must_use]
    pub const fn of(self, n: usize) -> u16 {
        match (self, n * 5 % 12) {
            (Lengths::Fixed(length), _) => length,
            (Lengths::Imix, 0..7) => 64,
            (Lengths::Imix, 7..11) => 570,
            (Lengths::Imix, _) => 1518,
        }
    }

    /// The mean.
    #[must_use]
    pub fn mean(self) -> f64 {
        (0..48).map(|n| f64::from(self.of(n))).sum::<f64>() / 48.0
    }

    /// As in the tables: `64`, or `IMIX`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Lengths::Fixed(length) => length.to_string(),
            Lengths::Imix => "IMIX".into(),
        }
    }
}

/// Frame check sequence, in bytes: counted in a frame's length, never seen.
const FCS: usize = 4;
/// Ethernet header.
const ETHERNET: usize = 14;
/// The largest frame.
const LONGEST: usize = 1518 - FCS;

/// The bytes of an IPv4 frame with UDP that are its flow's and its length's: from IPv4's total length to UDP's checksum.
pub type Patch4 = [u8; 26];

/// Writes [`Patch4`]s.
#[derive(Clone, Copy, Debug)]
pub struct Writer4 {
    patch: Patch4,
}

impl Writer4 {
    /// A writer, which has a frame of `etherparse` for its model.
    #[must_use]
    pub fn new() -> Self {
        let mut patch = [0; 26];
        patch.copy_from_slice(&frame4()[16..42]);
        Writer4 { patch }
    }

    /// Of a frame of `length` bytes from one end to the other.
    #[must_use]
    pub fn patch(&self, (source, destination): (End, End), length: u16) -> Patch4 {
        let mut patch = self.patch;
        let ip = length.saturating_sub(18);
        let udp = ip.saturating_sub(20);
        patch[0..2].copy_from_slice(&ip.to_be_bytes());
        patch[8..10].fill(0);
        patch[10..14].copy_from_slice(&source.0.octets());
        patch[14..18].copy_from_slice(&destination.0.octets());
        patch[18..20].copy_from_slice(&source.1.to_be_bytes());
        patch[20..22].copy_from_slice(&destination.1.to_be_bytes());
        patch[22..24].copy_from_slice(&udp.to_be_bytes());
        patch[24..26].fill(0);
        // The header begins two bytes earlier; the datagram's payload is zeros.
        let header = checksum(0x4500 + sum(&patch[..18]));
        let datagram = checksum(17 + u64::from(udp) + sum(&patch[10..26]));
        patch[8..10].copy_from_slice(&header.to_be_bytes());
        patch[24..26].copy_from_slice(&(if datagram == 0 { 0xffff } else { datagram }).to_be_bytes());
        patch
    }
}

impl Default for Writer4 {
    fn default() -> Self {
        Self::new()
    }
}

/// The sum of the 16-bit words.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

/// RFC 1071's checksum of what has been summed up.
fn checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Whether both checksums of an IPv4 frame with UDP are right.
#[must_use]
pub fn is_right4(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(16..18).map(|it| usize::from(u16::from_be_bytes([it[0], it[1]]))) else { return false };
    let (Some(header), Some(datagram)) = (frame.get(14..34), frame.get(34..ETHERNET + ip)) else { return false };
    let odd = datagram.chunks_exact(2).remainder().first().map_or(0, |&byte| u64::from(byte) << 8);
    let pseudo = sum(&header[12..20]) + 17 + datagram.len() as u64;
    checksum(sum(header)) == 0 && checksum(pseudo + sum(datagram) + odd) == 0
}

/// An IPv4 frame with UDP.
fn frame4() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER.0, GATEWAY[0].0).ipv4([0; 4], [0; 4], 64).udp(0, 0);
    let mut frame = Vec::with_capacity(LONGEST);
    builder.write(&mut frame, &[]).expect("a Vec takes anything");
    frame
}

/// An IPv6 frame with UDP of `length` bytes.
fn frame6((source, destination): (Ipv6Addr, Ipv6Addr), length: u16) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(PEER.0, GATEWAY[0].0).ipv6(source.octets(), destination.octets(), 64).udp(PORT, PORT);
    let payload = vec![0; usize::from(length) - FCS - ETHERNET - 40 - 8];
    let mut frame = Vec::with_capacity(LONGEST);
    builder.write(&mut frame, &payload).expect("a Vec takes anything");
    frame
}

/// Frames that differ in a few bytes and in length only, to be written again and again. Kept small, so that what is not
/// measured takes little of the caches.
#[derive(Clone, Debug)]
pub struct Traffic {
    template: Vec<u8>,
    /// Where the frames differ: from the length field of the IP header on.
    at: usize,
    width: usize,
    /// What the length field leaves out.
    outside_length: usize,
    patches: Vec<u8>,
    next: usize,
}

impl Traffic {
    /// IPv4 frames to this address of the gateway's.
    pub fn of4(to: MacAddr, patches: impl Iterator<Item = Patch4>) -> Traffic {
        let mut template = frame4();
        template[..6].copy_from_slice(&to.0);
        Traffic::new(template, 16, size_of::<Patch4>(), ETHERNET, patches.flatten().collect())
    }

    /// IPv6 frames to this address of the gateway's.
    pub fn of6(to: MacAddr, flows: impl Iterator<Item = (Ipv6Addr, Ipv6Addr)>, length: u16) -> Traffic {
        let mut template = frame6(flow_ends6(0), length);
        template[..6].copy_from_slice(&to.0);
        let patches = flows.flat_map(|ends| frame6(ends, length)[18..62].to_vec());
        Traffic::new(template, 18, 44, ETHERNET + 40, patches.collect())
    }

    fn new(mut template: Vec<u8>, at: usize, width: usize, outside_length: usize, patches: Vec<u8>) -> Traffic {
        template.resize(LONGEST, 0);
        Traffic { template, at, width, outside_length, patches, next: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.patches.len() / self.width
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// The same frames in another order, the same at every run.
    #[must_use]
    pub fn shuffled(mut self) -> Traffic {
        let order = permutation(self.len(), 3);
        self.patches = order.iter().flat_map(|&at| self.patch(at)).copied().collect();
        self
    }

    fn patch(&self, at: usize) -> &[u8] {
        &self.patches[at * self.width..][..self.width]
    }

    /// The first frame is next.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// Writes the next frame to where `room` leads, given the frame's length; after the last comes the first.
    #[inline]
    pub fn write<'a>(&mut self, room: impl FnOnce(usize) -> &'a mut [u8]) {
        let patch = &self.patches[self.next..self.next + self.width];
        let length = self.outside_length + usize::from(u16::from_be_bytes([patch[0], patch[1]]));
        let frame = room(length);
        if let Some(template) = self.template.get(..frame.len()) {
            frame.copy_from_slice(template);
            frame[self.at..self.at + self.width].copy_from_slice(patch);
        }
        self.next += self.width;
        if self.next == self.patches.len() {
            self.next = 0;
        }
    }
}

/// Random numbers that follow from `seed` (the SplitMix64 generator).
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// The numbers below `count` in an order that follows from `seed` (Fisher and Yates).
#[must_use]
pub fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut random = random(seed);
    let mut numbers: Vec<usize> = (0..count).collect();
    for left in (1..count).rev() {
        let bound = left as u64 + 1;
        numbers.swap(left, usize::try_from(random() % bound).unwrap_or(0));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    /// Reads a frame by `etherparse`: its ends, and whether its checksums are right.
    fn read4(frame: &[u8]) -> (End, End, bool) {
        let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
            panic!("IPv4 with UDP");
        };
        let (header, datagram) = (ip.header().to_header(), udp.to_header());
        let wanted = datagram.calc_checksum_ipv4(&header, udp.payload()).expect("short");
        let right = header.header_checksum == header.calc_header_checksum() && datagram.checksum == wanted;
        ((header.source.into(), datagram.source_port), (header.destination.into(), datagram.destination_port), right)
    }

    #[test]
    fn frames_are_what_another_library_reads() {
        let writer = Writer4::new();
        for lengths in [Lengths::Fixed(64), Lengths::Fixed(1518), Lengths::Imix] {
            for flow in [0, 1, 62, 63, 64_511, 10_000_000] {
                let ends = flow_ends(flow, 1);
                let patch = writer.patch(ends, lengths.of(flow));
                let mut traffic = Traffic::of4(GATEWAY[0], std::iter::once(patch));
                let mut frame = Vec::new();
                traffic.write(|length| {
                    frame.resize(length, 0);
                    &mut frame
                });
                assert_eq!(frame.len() + FCS, usize::from(lengths.of(flow)));
                assert_eq!(read4(&frame), (ends.0, ends.1, true), "flow {flow}");
                assert_eq!(ends4(&frame), ends);
                assert!(is_right4(&frame));
                for at in [20, 27, 35] {
                    frame[at] ^= 1;
                    assert!(!is_right4(&frame), "byte {at}");
                    frame[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn flows_are_told_apart_by_their_remote_end() {
        for remotes in [1, 10] {
            for flow in (0..100_000).chain([10_321_919]) {
                assert_eq!(flow_of(flow_ends(flow, remotes).1, remotes), Some(flow));
            }
        }
        let insides: std::collections::HashSet<_> = (0..1000).map(|flow| flow_ends(flow, 10).0).collect();
        assert_eq!(insides.len(), 100, "ten flows share a mapping");
    }

    #[test]
    fn csit_s_mix_of_lengths() {
        let lengths: Vec<u16> = (0..48).map(|n| Lengths::Imix.of(n)).collect();
        let count = |length| lengths.iter().filter(|&&it| it == length).count();
        assert_eq!((count(64), count(570), count(1518)), (28, 16, 4));
        assert!((Lengths::Imix.mean() - 353.833).abs() < 0.001);
    }

    #[test]
    fn ipv6_frames() {
        let mut traffic = Traffic::of6(GATEWAY[1], [flow_ends6(7)].into_iter(), 78);
        let mut frame = Vec::new();
        traffic.write(|length| {
            frame.resize(length, 0);
            &mut frame
        });
        let packet = SlicedPacket::from_ethernet(&frame).expect("a frame");
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport) else {
            panic!("IPv6 with UDP");
        };
        let (header, datagram) = (ip.header().to_header(), udp.to_header());
        assert_eq!((header.source_addr(), header.destination_addr()), flow_ends6(7));
        assert_eq!(datagram.calc_checksum_ipv6(&header, udp.payload()).expect("short"), datagram.checksum);
        assert_eq!(frame.len() + FCS, 78);
    }

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut numbers = permutation(1000, 3);
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1000));
    }
}
