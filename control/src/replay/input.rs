//! Captures as a gateway's ports would have seen them: merged by time, with Ethernet headers and tags.

use std::collections::HashSet;
use std::path::PathBuf;

use dataplane::packet::parse::ethertype::is_tag;
use dataplane::packet::parse::{self, ETHERNET, TAG};
use dataplane::packet::{HeapPacket, offload};
use dataplane::plan::{InterfaceId, MacAddr, Plan, PortId};
use dataplane::time::Time;

use super::NEIGHBOUR;
use crate::capture::{CaptureError, CaptureReader, LinkType, Record};

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Where the EtherType of an untagged frame is.
const ETHERTYPE_AT: usize = 12;

/// An Ethernet header with two tags and a frame check sequence, in bytes: what a frame has on top of the MTU at most.
const FRAME_OVERHEAD: usize = ETHERNET + 2 * TAG + 4;

/// Pairs of stations that are remembered for each capture, to notice that it holds both directions.
const STATIONS_MAX: usize = 4096;

/// A packet that arrives at an interface.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The interface.
    pub interface: InterfaceId,
    /// When: never before an earlier arrival.
    pub time: Time,
    /// Its number in its capture, from 1.
    pub number: u64,
    /// The frame, untagged or tagged as it was captured.
    pub frame: Vec<u8>,
    /// Whether the gateway itself sent it.
    pub own: bool,
}

/// The captures, merged.
#[derive(Debug)]
pub(super) struct Merge {
    sources: Vec<Source>,
    gateway: Vec<MacAddr>,
    clock: Time,
}

/// One interface's capture.
#[derive(Debug)]
struct Source {
    interface: InterfaceId,
    /// The interface's Ethernet address in the replay.
    mac: MacAddr,
    reader: CaptureReader,
    /// The packet to come.
    head: Option<Record>,
    /// The capture ended inside a packet.
    cut_short: Option<CaptureError>,
    /// Packets that were captured in part, and the first one.
    cut: u64,
    first_cut: Option<(u64, usize, u32)>,
    /// Who sent to whom: source and destination of frames to one station.
    stations: HashSet<[u8; 12]>,
    /// Two stations that send to each other.
    both_ways: Option<(MacAddr, MacAddr)>,
    /// Packets whose checksum was unfinished.
    unfinished: u64,
    /// Frames too large for the interface's link, and the interface's MTU in bytes.
    oversized: u64,
    mtu: u16,
}

impl Merge {
    /// Opens the captures, given in the order of their interfaces.
    pub(super) fn open(
        plan: &Plan,
        inputs: &[(InterfaceId, PathBuf)],
        gateway: &[MacAddr],
    ) -> Result<Self, CaptureError> {
        let sources = inputs.iter().map(|(interface, path)| {
            let mut source = Source {
                interface: *interface,
                mac: plan.spec.interfaces[usize::from(interface.0)].mac,
                mtu: plan.spec.interfaces[usize::from(interface.0)].mtu,
                reader: CaptureReader::open(path)?,
                head: None,
                cut_short: None,
                cut: 0,
                first_cut: None,
                stations: HashSet::new(),
                both_ways: None,
                unfinished: 0,
                oversized: 0,
            };
            source.read()?;
            Ok(source)
        });
        Ok(Merge {
            sources: sources.collect::<Result<_, CaptureError>>()?,
            gateway: gateway.to_vec(),
            clock: Time::ZERO,
        })
    }

    /// When the first packet arrives.
    pub(super) fn start(&self) -> Option<Time> {
        self.sources.iter().filter_map(|source| source.head.as_ref()).map(|head| head.time).min()
    }

    /// The next arrival: the earliest head, of equals the first interface's.
    pub(super) fn next(&mut self) -> Result<Option<Arrival>, CaptureError> {
        let waiting = self.sources.iter_mut().filter(|source| source.head.is_some());
        let Some(source) = waiting.min_by_key(|source| source.head.as_ref().map(|head| head.time)) else {
            return Ok(None);
        };
        let Some(record) = source.head.take() else { return Ok(None) };
        source.read()?;
        self.clock = self.clock.max(record.time);
        Ok(Some(source.arrive(record, self.clock, &self.gateway)))
    }

    /// What the user should know about the captures.
    pub(super) fn notes(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        for source in &self.sources {
            let path = source.reader.path().display();
            if let Some(error) = &source.cut_short {
                notes.push(format!("{error}; what came before was replayed"));
            }
            if let Some((number, captured, wire)) = source.first_cut {
                notes.push(format!(
                    "{path}: {} packets are cut off (the first: packet {number}, {captured} of {wire} bytes) and will mostly be \
                     dropped; capture whole packets (tcpdump -s 0)",
                    source.cut
                ));
            }
            if source.unfinished > 0 {
                notes.push(format!(
                    "{path}: {} packets had unfinished checksums (captured at their sender, before its network card); they were \
                     finished",
                    source.unfinished
                ));
            }
            if source.oversized > 0 {
                notes.push(format!(
                    "{path}: {} frames are larger than a link with an MTU of {} carries (captured before segmentation or after \
                     coalescing); capture with that switched off (ethtool -K IFACE tso off gso off gro off)",
                    source.oversized, source.mtu
                ));
            }
            if let Some((a, b)) = source.both_ways.filter(|_| self.gateway.is_empty()) {
                notes.push(format!(
                    "{path}: holds both directions between {a} and {b}, and all of it was sent into interface {}; \
                     say with --gateway-mac which of the two is the gateway",
                    plan.spec.interfaces[usize::from(source.interface.0)].name
                ));
            }
        }
        notes
    }
}

impl Source {
    /// Reads the next packet into `head`.
    fn read(&mut self) -> Result<(), CaptureError> {
        self.head = match self.reader.next().transpose() {
            Ok(record) => record,
            Err(error @ CaptureError::CutShort { .. }) => {
                self.cut_short = Some(error);
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(record) = self.head.as_ref().filter(|record| record.is_cut()) {
            self.cut += 1;
            self.first_cut.get_or_insert((record.number, record.data.len(), record.wire_len));
        }
        Ok(())
    }

    /// Makes a frame to the gateway of a captured packet.
    fn arrive(&mut self, record: Record, time: Time, gateway: &[MacAddr]) -> Arrival {
        let (mut frame, mut own) = (record.data, false);
        match record.link {
            LinkType::Ip => {
                let ethertype =
                    if frame.first().is_some_and(|byte| byte >> 4 == 6) { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
                frame = [&self.mac.0[..], &NEIGHBOUR.0, &ethertype, &frame].concat();
            }
            LinkType::Ethernet => {
                if let Some((destination, rest)) = frame.split_first_chunk_mut::<6>() {
                    let source = rest.first_chunk::<6>().copied().unwrap_or_default();
                    own = gateway.contains(&MacAddr(source));
                    let to_one = destination[0] & 1 == 0;
                    if to_one {
                        self.notice(source, *destination);
                    }
                    if to_one && (gateway.is_empty() || gateway.contains(&MacAddr(*destination))) {
                        *destination = self.mac.0;
                    }
                }
            }
        }
        self.unfinished += u64::from(offload::finish(&mut frame));
        self.oversized += u64::from(frame.len() > usize::from(self.mtu) + FRAME_OVERHEAD);
        Arrival { interface: self.interface, time, number: record.number, frame, own }
    }

    /// Remembers who sent to whom.
    fn notice(&mut self, source: [u8; 6], destination: [u8; 6]) {
        let pair =
            |a: [u8; 6], b: [u8; 6]| -> [u8; 12] { std::array::from_fn(|i| if i < 6 { a[i] } else { b[i - 6] }) };
        if self.both_ways.is_none() && source != destination {
            if self.stations.contains(&pair(destination, source)) {
                self.both_ways = Some((MacAddr(destination), MacAddr(source)));
            } else if self.stations.len() < STATIONS_MAX {
                self.stations.insert(pair(source, destination));
            }
        }
    }
}

/// The frame as it comes over the wire of the interface's port: with its tags.
pub(super) fn packet(plan: &Plan, arrival: &Arrival) -> HeapPacket {
    let interface = &plan.spec.interfaces[usize::from(arrival.interface.0)];
    let frame = &arrival.frame;
    match frame.split_at_checked(ETHERTYPE_AT) {
        Some((addresses, rest)) if !is_tag(parse::get16(rest, 0)) => {
            let tags = interface.tags().flat_map(|(kind, vlan)| [kind, vlan]).flat_map(u16::to_be_bytes);
            let tags: Vec<u8> = tags.collect();
            HeapPacket::from_frame(&[addresses, &tags, rest].concat())
        }
        _ => HeapPacket::from_frame(frame),
    }
}

/// The interface by which a port sent a frame, and the frame without that interface's tags.
pub(super) fn untag(plan: &Plan, port: PortId, frame: &[u8]) -> Option<(InterfaceId, Vec<u8>)> {
    let link = parse::link(frame).ok()?;
    let interface = plan.ingress(port, link.outer_vlan, link.vlan)?;
    let tags = link.len - ETHERNET;
    Some((interface, [&frame[..ETHERTYPE_AT], &frame[ETHERTYPE_AT + tags..]].concat()))
}
