//! Makes the frames of conversations ([`super::mix`]) for a gateway, and tells what it sends in words that do not depend on
//! its choice of external ends and identifications: so two gateways can be compared, flow by flow.
//!
//! An external end is replaced by the inside end that it stands for, of which each has one, and it has no other; an
//! identification that the gateway has chosen by the datagram that it names, likewise one for one. Order is kept among
//! the whole packets of a flow, and among its fragments, though not between the two. Toward a pool's address, where datagrams in
//! fragments belong to different shards, it is kept among the fragments of each (design rule 9).

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Formatter};
use std::net::Ipv4Addr;

use dataplane::plan::InterfaceId;

use super::fragments::{place, put_together, units_of};
use super::mix::{DATAGRAM, Flow, Form, Kind, Numbered, Peer, Step, WHOLE, Way, header_units, static_ends};
use super::scene::{error, with_header};
use super::{End, INSIDE, OUTSIDE, icmp, read, tcp_with, udp};

/// What leaves, by flow, way and kind, where order is kept.
pub type Seen = BTreeMap<Group, Vec<Told>>;

/// Frames whose order is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub name: String,
    /// The shards' inside ends. Order may suffer while they move under traffic.
    pub ends: Vec<Ipv4Addr>,
    /// Fragments that go to the shard of their datagram first, whichever that is.
    pub is_hashed: bool,
}

/// A frame as it is told of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub tag: u16,
    what: String,
    /// The transport header without ports and checksum, and the payload.
    body: Vec<u8>,
}

impl Debug for Told {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Told { tag, what, body } = self;
        write!(f, "{tag} {what} {} bytes {:02x?}...", body.len(), &body[..body.len().min(24)])
    }
}

/// Asserts that the same has been seen.
#[track_caller]
pub fn assert_same(seen: &Seen, expected: &Seen) {
    for group in seen.keys().chain(expected.keys()) {
        assert_eq!(seen.get(group), expected.get(group), "{}", group.name);
    }
}

/// All others in the conversations with one gateway.
pub struct Player {
    /// External ends as they were seen to stand for inside ends, and back.
    inside: HashMap<(Kind, End), End>,
    outside: HashMap<(Kind, End), End>,
    /// The packet that opened a flow.
    opened: HashMap<Flow, u16>,
    /// What was sent, by its tag.
    sent: HashMap<u16, (Flow, Way, Form)>,
    /// Identifications that the gateway has chosen, and back: by source, destination and protocol.
    chosen: HashMap<(u16, InterfaceId), u16>,
    chosen_for: HashMap<(End, End, u8, u16), u16>,
    /// Fragments that have left.
    fragments: HashMap<(u16, InterfaceId), Vec<Vec<u8>>>,
}

impl Player {
    /// Without any acquaintance but the static entries.
    pub fn new() -> Player {
        let ends = || static_ends().into_iter();
        Player {
            inside: ends().map(|(kind, inside, external)| ((kind, external), inside)).collect(),
            outside: ends().map(|(kind, inside, external)| ((kind, inside), external)).collect(),
            opened: HashMap::new(),
            sent: HashMap::new(),
            chosen: HashMap::new(),
            chosen_for: HashMap::new(),
            fragments: HashMap::new(),
        }
    }

    /// The frames of steps, and where they arrive; but for those in flows that have not got through.
    pub fn frames(&mut self, steps: &[Numbered]) -> Vec<(InterfaceId, Vec<u8>)> {
        steps.iter().filter_map(|&(tag, step)| self.frame(tag, step)).collect()
    }

    /// The frame of a step. None if its flow has no external end yet.
    fn frame(&mut self, tag: u16, step: Step) -> Option<(InterfaceId, Vec<u8>)> {
        let (flow, way, form) = match step {
            Step::Knock(port) => {
                let (from, to) = ((Ipv4Addr::new(198, 18, 0, 9), 7), (Ipv4Addr::new(203, 0, 113, 5), port));
                return Some((OUTSIDE, udp(OUTSIDE, from, to, &tag.to_be_bytes())));
            }
            Step::Error(flow, way) => return self.error(tag, flow, way),
            Step::Packet(flow, way, form) => (flow, way, form),
        };
        let (interface, from, to) = self.sent_ends(flow, way)?;
        let opens = *self.opened.entry(flow).or_insert(tag) == tag;
        let frame = packet(interface, flow.kind, way, (from, to), opens, form, tag);
        self.sent.insert(tag, (flow, way, form));
        Some((interface, frame))
    }

    /// The ends of a flow's packet where it is sent, and where that is.
    fn sent_ends(&self, flow: Flow, way: Way) -> Option<(InterfaceId, End, End)> {
        let external = |end| self.outside.get(&(flow.kind, end)).copied();
        Some(match (way, flow.peer) {
            (Way::There, Peer::Server(server)) => (INSIDE, flow.host, server),
            (Way::There, Peer::Inside(peer)) => (INSIDE, flow.host, external(peer)?),
            (Way::Back, Peer::Server(server)) => (OUTSIDE, server, external(flow.host)?),
            (Way::Back, Peer::Inside(peer)) => (INSIDE, peer, external(flow.host)?),
        })
    }

    /// The ends of a flow's packet as its receiver sees them, and where that is.
    fn seen_ends(&self, flow: Flow, way: Way) -> Option<(InterfaceId, End, End)> {
        let external = |end| self.outside.get(&(flow.kind, end)).copied();
        Some(match (way, flow.peer) {
            (Way::There, Peer::Server(server)) => (OUTSIDE, external(flow.host)?, server),
            (Way::There, Peer::Inside(peer)) => (INSIDE, external(flow.host)?, peer),
            (Way::Back, Peer::Server(server)) => (INSIDE, server, flow.host),
            (Way::Back, Peer::Inside(peer)) => (INSIDE, external(peer)?, flow.host),
        })
    }

    /// The receiver of a packet, or a router before it, says that it can't be delivered.
    fn error(&self, tag: u16, flow: Flow, way: Way) -> Option<(InterfaceId, Vec<u8>)> {
        let (interface, from, to) = self.seen_ends(flow, way)?;
        let about = packet(interface, flow.kind, way, (from, to), false, Form::Atomic, tag);
        let (sender, code) = if interface == OUTSIDE { (Ipv4Addr::new(198, 18, 0, 254), 1) } else { (to.0, 3) };
        let frame = error(interface, sender, 3, code, &about[14..]);
        Some((interface, with_header(&frame, |header| header.identification = tag)))
    }

    /// What has left, told of.
    #[track_caller]
    pub fn tell(&mut self, frames: &[(InterfaceId, Vec<u8>)]) -> Seen {
        frames.iter().for_each(|(interface, frame)| self.learn(*interface, frame));
        let mut seen = Seen::new();
        for (interface, frame) in frames {
            let (group, told) = self.told(*interface, frame);
            seen.entry(group).or_default().push(told);
        }
        seen
    }

    /// Which external ends stand for which inside ends, and which identifications for which datagrams.
    fn learn(&mut self, interface: InterfaceId, frame: &[u8]) {
        let got = read(frame);
        let (id, offset, more, _) = place(frame);
        let Some(tag) = tag(frame) else { return };
        let (flow, way, form) = self.sent[&tag];
        if offset == 0 && way == Way::There {
            let external = ends(got.protocol, &got.transport, got.source.0, got.destination.0).0;
            let before = *self.outside.entry((flow.kind, flow.host)).or_insert(external);
            assert_eq!(before, external, "{:?} has one external end", flow.host);
            let before = *self.inside.entry((flow.kind, external)).or_insert(flow.host);
            assert_eq!(before, flow.host, "{external:?} stands for one host");
        }
        if offset > 0 || more {
            self.fragments.entry((tag, interface)).or_default().push(frame.to_vec());
        }
        let kept = matches!(form, Form::Atomic | Form::Stiff | Form::Expired)
            || (way, interface) == (Way::Back, INSIDE) && matches!(flow.peer, Peer::Server(_));
        if kept {
            assert_eq!(id, tag, "the identification of an atomic datagram, or a host's outside, is kept");
        } else {
            let before = *self.chosen.entry((tag, interface)).or_insert(id);
            assert_eq!(before, id, "a datagram has one identification");
            let names = ((got.source.0, 0), (got.destination.0, 0), got.protocol, id);
            let before = *self.chosen_for.entry(names).or_insert(tag);
            assert_eq!(before, tag, "an identification names one datagram: {names:?}");
        }
    }

    /// A frame that has left: where it belongs in the order, and what it says.
    fn told(&self, interface: InterfaceId, frame: &[u8]) -> (Group, Told) {
        let got = read(frame);
        let Some(tag) = tag(frame) else { return self.told_error(interface, frame) };
        let (flow, way, form) = self.sent[&tag];
        let (_, offset, more, mut body) = place(frame);
        let inside_peer = match flow.peer {
            Peer::Server(_) => None,
            Peer::Inside(peer) => Some(peer),
        };
        let ends = if offset == 0 {
            let (from, to) = ends(got.protocol, &got.transport, got.source.0, got.destination.0);
            blank(got.protocol, &mut body);
            format!("{} {}", self.end(flow.kind, from), self.end(flow.kind, to))
        } else {
            let (from, to) =
                if way == Way::There { (Some(flow.host), inside_peer) } else { (inside_peer, Some(flow.host)) };
            let address = |end, address| self.address(flow.kind, end, address);
            format!("{} {}", address(from, got.source.0), address(to, got.destination.0))
        };
        let peer = inside_peer.map(|peer| peer.0);
        let toward_pool = way == Way::Back && peer.is_none() && flow.host.0 != WHOLE[0];
        let order = match form {
            Form::Part { .. } if toward_pool => format!("datagram {tag}"),
            Form::Part { .. } => "fragments".into(),
            _ => "packets".into(),
        };
        let name = format!("{interface:?} {flow:?} {way:?} {order}");
        let what = format!("{ends} ttl {} at {offset} {}", got.ttl, if more { "and more" } else { "" });
        let is_hashed = toward_pool && matches!(form, Form::Part { .. });
        let group = Group { name, ends: [flow.host.0].into_iter().chain(peer).collect(), is_hashed };
        (group, Told { tag, what, body })
    }

    /// An ICMP error: what it quotes is of a flow too, as it looks where the error goes.
    fn told_error(&self, interface: InterfaceId, frame: &[u8]) -> (Group, Told) {
        let got = read(frame);
        let quote = &got.transport[8..];
        let kind = match quote[9] {
            17 => Kind::Udp,
            6 => Kind::Tcp,
            _ => Kind::Ping,
        };
        let address = |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
        let (from, to) = ends(quote[9], &quote[20..], address(12), address(16));
        let (said, to_whom) = (outer(got.source.0), outer(got.destination.0));
        let about = format!("{} {}", self.end(kind, from), self.end(kind, to));
        let (id, tag) = (word(quote, 4), word(frame, 18));
        let what = format!("{}/{} from {said} to {to_whom} about {id}", got.transport[0], got.transport[1]);
        let ends = [from, to].map(|end| self.inside.get(&(kind, end)).map_or(end.0, |inside| inside.0));
        let name = format!("{interface:?} errors about {about} {id}");
        (Group { name, ends: ends.to_vec(), is_hashed: false }, Told { tag, what, body: Vec::new() })
    }

    /// An end, an inside end in place of an external one.
    fn end(&self, kind: Kind, end: End) -> String {
        self.inside.get(&(kind, end)).map_or_else(|| format!("{end:?}"), |host| format!("<{host:?}>"))
    }

    /// An address in a fragment that has no ports, and may be the external one of this end.
    fn address(&self, kind: Kind, end: Option<End>, address: Ipv4Addr) -> String {
        let is = |end: &End| self.outside.get(&(kind, *end)).is_some_and(|external| external.0 == address);
        end.filter(is).map_or_else(|| address.to_string(), |end| format!("<{}>", end.0))
    }

    /// Datagrams whose fragments have all left: their receivers put them together, and find every checksum right.
    #[track_caller]
    pub fn put_together(&self) -> usize {
        let mut count = 0;
        for ((tag, _), frames) in &self.fragments {
            let (flow, _, form) = self.sent[tag];
            let bytes: usize = frames.iter().map(|frame| place(frame).3.len()).sum();
            let whole = match form {
                Form::Part { .. } => usize::from(header_units(flow.kind) + DATAGRAM) * 8,
                _ => transport_len(flow.kind, form),
            };
            if bytes == whole {
                assert_eq!(read(&put_together(frames)).transport.len(), whole);
                count += 1;
            }
        }
        count
    }
}

/// An address of an error itself. Which of the pool's it is, is part of the choice of external ends.
fn outer(address: Ipv4Addr) -> String {
    let is_external = [Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(203, 0, 113, 6)].contains(&address);
    if is_external { "external".to_owned() } else { address.to_string() }
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Bytes of a packet behind its IP header.
fn transport_len(kind: Kind, form: Form) -> usize {
    let payload = match form {
        Form::Atomic | Form::Loose | Form::Expired => 1,
        // More than fits a link that takes 1400 bytes, and fits one that takes 1500.
        Form::Wide | Form::Stiff => 175,
        Form::Part { .. } => DATAGRAM,
    };
    usize::from(header_units(kind) + payload) * 8
}

/// A packet of a flow between ends as they are where it is sent. Each unit of its payload begins with its tag.
fn packet(
    interface: InterfaceId,
    kind: Kind,
    way: Way,
    ends: (End, End),
    opens: bool,
    form: Form,
    tag: u16,
) -> Vec<u8> {
    let (from, to) = ends;
    let units = (transport_len(kind, form) / 8) as u16 - header_units(kind);
    let payload: Vec<u8> =
        (0..units).flat_map(|unit| [tag, unit, !tag, 0x5a5a].map(u16::to_be_bytes)).flatten().collect();
    let frame = match (kind, way) {
        (Kind::Udp, _) => udp(interface, from, to, &payload),
        (Kind::Tcp, _) if opens => tcp_with(interface, from, to, "S", 1000, 0, &payload, &[1; 4]),
        (Kind::Tcp, Way::There) => tcp_with(interface, from, to, "A", 1001, 1, &payload, &[1; 4]),
        (Kind::Tcp, Way::Back) => tcp_with(interface, from, to, "A", 1, 1001, &payload, &[1; 4]),
        (Kind::Ping, Way::There) => icmp(interface, from.0, to.0, 8, 0, identifier(from.1, tag), &payload),
        (Kind::Ping, Way::Back) => icmp(interface, from.0, to.0, 0, 0, identifier(to.1, tag), &payload),
    };
    let frame = with_header(&frame, |header| {
        header.identification = tag;
        header.dont_fragment = matches!(form, Form::Atomic | Form::Stiff | Form::Expired);
        header.time_to_live = if form == Form::Expired { 1 } else { 64 };
    });
    match form {
        Form::Part { start, end } => units_of(&frame, start, end, tag),
        _ => frame,
    }
}

fn identifier(id: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}

/// The tag of a packet that is no ICMP error.
fn tag(frame: &[u8]) -> Option<u16> {
    let (_, offset, _, body) = place(frame);
    let header = match (offset, frame[23]) {
        (1.., _) => 0,
        (0, 6) => 24,
        (0, 1) if !matches!(body[0], 0 | 8) => return None,
        _ => 8,
    };
    Some(word(&body, header))
}

/// The ends that a transport header names.
fn ends(protocol: u8, transport: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> (End, End) {
    match (protocol, transport[0]) {
        (1, 8) => ((from, word(transport, 4)), (to, 0)),
        (1, _) => ((from, 0), (to, word(transport, 4))),
        _ => ((from, word(transport, 0)), (to, word(transport, 2))),
    }
}

/// Blanks what translation changes of a transport header.
fn blank(protocol: u8, transport: &mut [u8]) {
    let (ports, checksum) = match protocol {
        1 => (4..6, 2),
        6 => (0..4, 16),
        _ => (0..4, 6),
    };
    transport[ports].fill(0);
    transport[checksum..checksum + 2].fill(0);
}
