//! Conversations of all kinds, drawn from a seed: flows, datagrams in fragments, ICMP errors, hairpins, each step by what it
//! is. The bytes depend on the gateway's external ends, and are made by [`super::player`].

use std::net::Ipv4Addr;

use dataplane::plan::{Filtering, ForwardProtocol, IcmpPolicy, Spec};

use super::scene::{filtering, forward, one_to_one};
use super::{End, end, pool, spec};

/// Numbers from a seed (Marsaglia's xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }

    /// Once in so many times.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What a flow is of. An end of a ping has its identifier for a port, or 0 at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Udp,
    Tcp,
    Ping,
}

/// Whom an inside host talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A server outside.
    Server(End),
    /// An inside host, by its external end: a hairpin.
    Inside(End),
}

/// A flow with an inside host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub kind: Kind,
    pub host: End,
    pub peer: Peer,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the host to its peer.
    There,
    Back,
}

/// How large a packet is, and whether it may be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Small and atomic (RFC 6864 §4).
    Atomic,
    /// Small, and may be fragmented.
    Loose,
    /// Small and atomic, at its last hop.
    Expired,
    /// Larger than the inside link takes, and may be fragmented.
    Wide,
    /// As large, and may not.
    Stiff,
    /// A fragment of a datagram of 3000 bytes: its part in units of 8 bytes, the transport header being the first.
    Part { start: u16, end: u16 },
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A packet of a flow, whose first one opens it.
    Packet(Flow, Way, Form),
    /// A packet of the flow can't be delivered: so says its receiver, or a router outside.
    Error(Flow, Way),
    /// From outside, to a port that no pool gives out.
    Knock(u16),
}

/// A packet's number and what it is. The fragments of a datagram share one.
pub type Numbered = (u16, Step);

/// Payload of a datagram in fragments, in units of 8 bytes.
pub const DATAGRAM: u16 = 375;

/// The host that has an external address of its own, and that address.
pub const WHOLE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 168, 1, 25), Ipv4Addr::new(203, 0, 113, 60)];

/// Two external addresses, open mappings, a forward, a static entry. The inside link takes 1400 bytes; all ICMP errors are sent,
/// and whatever waits has room.
pub fn gateway() -> Spec {
    let mut spec = Spec {
        icmp: IcmpPolicy { rate: 1_000_000_000, burst: 1_000_000, ..IcmpPolicy::default() },
        pools: vec![pool(&["203.0.113.5-203.0.113.6"], 1024..=60_000)],
        nat44: vec![filtering(Filtering::EndpointIndependent)],
        forwards: vec![forward(ForwardProtocol::Tcp, "203.0.113.5", 80..=80, end("192.168.1.10:8000"))],
        static_nat: vec![one_to_one("203.0.113.60", "192.168.1.25")],
        ..spec()
    };
    spec.interfaces[0].mtu = 1400;
    // One worker alone holds what several share.
    (spec.limits.held_per_neighbour, spec.limits.fragments) = (128, 4096);
    spec
}

/// The ends that static entries give external ends to: inside and outside.
pub fn static_ends() -> [(Kind, End, End); 4] {
    let whole = |kind, port| (kind, (WHOLE[0], port), (WHOLE[1], port));
    let forward = (Kind::Tcp, end("192.168.1.10:8000"), end("203.0.113.5:80"));
    [forward, whole(Kind::Udp, 53), whole(Kind::Tcp, 80), whole(Kind::Ping, 0)]
}

/// Every host's address.
pub fn hosts() -> impl Iterator<Item = Ipv4Addr> {
    (10..50).map(|last| Ipv4Addr::new(192, 168, 1, last))
}

/// A conversation of many, round by round.
pub struct Mix {
    dice: Dice,
    tag: u16,
    /// All flows; those of rounds before this one are known to all.
    flows: Vec<Flow>,
    /// Inside ends with external ends that are known.
    ends: Vec<(Kind, End)>,
    /// Fragments that are late.
    late: Vec<Numbered>,
}

impl Mix {
    pub fn new(seed: u64) -> Mix {
        let ends = static_ends().map(|(kind, inside, _)| (kind, inside)).to_vec();
        Mix { dice: Dice(seed), tag: 0, flows: Vec::new(), ends, late: Vec::new() }
    }

    /// What comes at once, at most so many draws. In a round a flow is opened by no more than one packet, and only what was
    /// opened before is answered, quoted, or called by its external end.
    pub fn round(&mut self, most: usize) -> Vec<Numbered> {
        let known = self.flows.len();
        let mut steps = std::mem::take(&mut self.late);
        for _ in 0..1 + self.dice.below(most) {
            match self.dice.below(12) {
                0..3 => self.open(&mut steps),
                _ if known == 0 => steps.push(self.knock()),
                choice => {
                    let (flow, way) = self.known(known);
                    match choice {
                        3..6 => self.datagram(flow, way, &mut steps),
                        6 => {
                            let step = Step::Error(flow, way);
                            steps.push((self.next(), step));
                        }
                        7 => steps.push(self.knock()),
                        _ => {
                            let forms = [Form::Atomic, Form::Atomic, Form::Loose, Form::Wide, Form::Stiff];
                            let form = forms[self.dice.below(forms.len())];
                            let form = if self.dice.once_in(8) { Form::Expired } else { form };
                            steps.push((self.next(), Step::Packet(flow, way, form)));
                        }
                    }
                }
            }
        }
        self.ends.extend(self.flows[known..].iter().map(|flow| (flow.kind, flow.host)));
        steps
    }

    /// So many draws of flows that are opened, and nothing else.
    pub fn openings(&mut self, count: usize) -> Vec<Numbered> {
        let (known, mut steps) = (self.flows.len(), Vec::new());
        (0..count).for_each(|_| self.open(&mut steps));
        self.ends.extend(self.flows[known..].iter().map(|flow| (flow.kind, flow.host)));
        steps
    }

    /// So many draws of what is sure to pass, in flows that are known.
    pub fn passing(&mut self, count: usize) -> Vec<Numbered> {
        let mut steps = Vec::new();
        for _ in 0..count {
            let (flow, way) = self.known(self.flows.len());
            match self.dice.below(8) {
                0..3 => {
                    let tag = self.next();
                    steps.extend(self.cut(flow.kind).map(|(start, end)| packet(tag, flow, way, start, end)));
                }
                3 => steps.push((self.next(), Step::Error(flow, way))),
                form => {
                    let form = [Form::Atomic, Form::Atomic, Form::Loose, Form::Wide][form - 4];
                    steps.push((self.next(), Step::Packet(flow, way, form)));
                }
            }
        }
        steps
    }

    fn next(&mut self) -> u16 {
        self.tag += 1;
        self.tag
    }

    fn knock(&mut self) -> Numbered {
        let port = 60_001 + self.dice.below(5000) as u16;
        (self.next(), Step::Knock(port))
    }

    /// A flow that is known, and a way of its packets.
    fn known(&mut self, known: usize) -> (Flow, Way) {
        let way = if self.dice.once_in(2) { Way::There } else { Way::Back };
        (self.flows[self.dice.below(known)], way)
    }

    /// Opens a flow: from inside, to a server or an inside host; or from outside, to an end that is known.
    fn open(&mut self, steps: &mut Vec<Numbered>) {
        let dice = &mut self.dice;
        let server = (Ipv4Addr::new(198, 18, 0, 1 + dice.below(3) as u8), 80);
        let (kind, inside) = self.ends[dice.below(self.ends.len())];
        let host = (Ipv4Addr::new(192, 168, 1, 10 + dice.below(40) as u8), 5000 + dice.below(4) as u16);
        let (flow, way) = match dice.below(5) {
            0 | 1 => {
                let kind = [Kind::Udp, Kind::Tcp, Kind::Ping][dice.below(3)];
                let server = (server.0, if kind == Kind::Ping { 0 } else { server.1 });
                (Flow { kind, host, peer: Peer::Server(server) }, Way::There)
            }
            // Nobody pings a host by an address that it shares.
            _ if kind == Kind::Ping && inside.1 != 0 => return,
            2 if kind != Kind::Ping => {
                let peer = Peer::Server((Ipv4Addr::new(198, 18, 0, 9), 40_000 + dice.below(1000) as u16));
                (Flow { kind, host: inside, peer }, Way::Back)
            }
            _ => (Flow { kind, host, peer: Peer::Inside(inside) }, Way::There),
        };
        // The same as seen from the other end.
        let turned = |other: &Flow| other.kind == flow.kind && other.peer == Peer::Inside(flow.host);
        if self.flows.contains(&flow) || self.flows.iter().any(turned) || flow.peer == Peer::Inside(flow.host) {
            return;
        }
        self.flows.push(flow);
        let tag = self.next();
        if flow.kind != Kind::Tcp && self.dice.once_in(4) {
            steps.extend(self.cut(flow.kind).map(|(start, end)| packet(tag, flow, way, start, end)));
        } else {
            steps.push((tag, Step::Packet(flow, way, Form::Atomic)));
        }
    }

    /// A datagram's parts, in some order.
    fn cut(&mut self, kind: Kind) -> impl Iterator<Item = (u16, u16)> + use<> {
        let all = header_units(kind) + DATAGRAM;
        let cuts: &[u16] = [&[150, 290][..], &[171, 300], &[5, 100, 200, 300]][self.dice.below(3)];
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let mut parts: Vec<_> = starts.zip(cuts.iter().copied().chain([all])).collect();
        for at in (1..parts.len()).rev() {
            parts.swap(at, self.dice.below(at + 1));
        }
        parts.into_iter()
    }

    /// A datagram in fragments, some of which may come among other packets, or in the next round; and of some datagrams one is
    /// missing, comes twice, overlaps, or is too small.
    fn datagram(&mut self, flow: Flow, way: Way, steps: &mut Vec<Numbered>) {
        let tag = self.next();
        let mut parts: Vec<_> = self.cut(flow.kind).collect();
        let at = self.dice.below(parts.len());
        let (start, end) = parts[at];
        match self.dice.below(12) {
            0 => drop(parts.remove(at)),
            // Before the datagram is complete; then it would be forgotten.
            1 if at + 1 < parts.len() => parts.insert(at, (start, end)),
            2 => parts.insert(at, (start.max(20) - 10, end.max(30) - 1)),
            3 => parts.insert(at, (0, 2)),
            _ => {}
        }
        // They keep their order where they come: none is put before another.
        let late = if self.dice.once_in(3) { self.dice.below(parts.len()) } else { 0 };
        let later = parts.split_off(parts.len() - late);
        let mut at = steps.len().saturating_sub(self.dice.below(8));
        for (start, end) in parts {
            steps.insert(at, packet(tag, flow, way, start, end));
            at += 1 + self.dice.below(steps.len() - at);
        }
        self.late.extend(later.into_iter().map(|(start, end)| packet(tag, flow, way, start, end)));
    }
}

fn packet(tag: u16, flow: Flow, way: Way, start: u16, end: u16) -> Numbered {
    (tag, Step::Packet(flow, way, Form::Part { start, end }))
}

/// The transport header, in units of 8 bytes. TCP has an option.
pub fn header_units(kind: Kind) -> u16 {
    if kind == Kind::Tcp { 3 } else { 1 }
}
