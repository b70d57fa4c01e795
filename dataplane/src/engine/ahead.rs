//! Reading a burst ahead of its turn, so that the waits for memory overlap.
//!
//! Each packet is read into a [`Lane`], and has the bucket of its session fetched; a dozen packets later that has arrived,
//! and names the session, which is fetched; and when that of the last one is on its way, the first packet can go. What stands in a lane was true when it was read, and is only a guess at the packet's turn: those before it may
//! have ended its session, or made it.

use super::Engine;
use crate::packet::Packet;
use crate::packet::checksum;
use crate::packet::parse::{self, ETHERNET, IPV4, IPV6, ethertype, get16, get32, get128, protocol, tcp_flags};
use crate::plan::{InterfaceId, Plan, PortId, Target, ZoneId};
use crate::pool::Proto;
use crate::session::{Direction, FlowKey, HomeBucket, NONE, Shard};
use crate::stages::Stage;
use crate::steer::{ShardId, shard_of4};
use crate::translate::eam;
use crate::worker::BURST;

/// So many packets are read from the fetching of a bucket to its first use.
const LAG: usize = 12;

/// What may become of a packet on the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing: it takes the long one.
    Long,
    /// It may belong to a session.
    Session,
    /// It belongs to another worker.
    Elsewhere,
    /// Nothing is translated where it comes from.
    Route4,
    /// It may be translated without state, or is routed.
    Stateless4,
    Stateless6,
    /// It may be translated without state, or belong to a session.
    Either4,
    /// It may be translated without state, or takes the long way.
    Translation4,
}

/// A packet of the burst, as far as it was read ahead. Two of them to a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub key: FlowKey,
    pub hash: u32,
    /// The session that was prefetched.
    pub guess: u32,
    /// Length of the IP packet, in bytes.
    pub total: u16,
    pub ingress: InterfaceId,
    /// Offset of the IP header.
    pub l3: u8,
    pub zone: ZoneId,
    pub shard: ShardId,
    pub proto: Proto,
    pub direction: Direction,
    pub course: Course,
}

const _: () = assert!(size_of::<Lane>() <= 40);

impl Lane {
    pub(super) const LONG: Lane = Lane {
        key: FlowKey { addresses: 0, ports: 0 },
        hash: 0,
        guess: NONE,
        total: 0,
        ingress: InterfaceId(u16::MAX),
        l3: 0,
        zone: ZoneId(u8::MAX),
        shard: ShardId(0),
        proto: Proto::Udp,
        direction: Direction::Outbound,
        course: Course::Long,
    };

    /// What the short way is, for a packet that it leads to its end.
    pub const fn stage(&self) -> Stage {
        match self.course {
            Course::Session | Course::Either4 => Stage::Session,
            Course::Route4 | Course::Stateless4 | Course::Stateless6 | Course::Translation4 => Stage::Route,
            Course::Elsewhere | Course::Long => Stage::Return,
        }
    }

    /// Source and destination address.
    pub const fn addresses(&self) -> (u32, u32) {
        #[allow(clippy::cast_possible_truncation)] // the two halves
        (self.key.addresses as u32, (self.key.addresses >> 32) as u32)
    }
}

/// The interface that packets come in by, as far as reading ahead needs it. The same for most packets of a burst.
#[derive(Clone, Copy, Debug)]
struct Ingress {
    /// See [`ingress_key`].
    key: u64,
    /// The station's address, in the upper 48 bits; none has the others set.
    mac: u64,
    id: InterfaceId,
    zone: ZoneId,
    /// Its packets may have sessions.
    is_inside: bool,
    /// Nothing is translated to or from its zone.
    is_plain: bool,
    /// Its IPv4 packets may be translated without state; and may belong to sessions.
    is_stateless4: bool,
    has_state4: bool,
    /// The translators that its packets may cross by, from either family.
    crosses4: Option<u16>,
    crosses6: Option<u16>,
}

impl Ingress {
    const NONE: Ingress = Ingress {
        key: u64::MAX,
        mac: u64::MAX,
        id: InterfaceId(u16::MAX),
        zone: ZoneId(u8::MAX),
        is_inside: false,
        is_plain: false,
        is_stateless4: false,
        has_state4: false,
        crosses4: None,
        crosses6: None,
    };

    /// The table of a translator, if it has rows.
    #[inline(always)]
    fn mappings<'a>(&self, plan: &'a Plan, crossing: Option<u16>) -> Option<&'a eam::Table> {
        let (_, spec) = plan.crossing(crossing?)?;
        Some(&*spec.mappings).filter(|it| !it.is_empty())
    }
}

/// What an interface is found by: port, outer and inner VLAN.
#[inline(always)]
const fn ingress_key(port: PortId, outer_vlan: u16, vlan: u16) -> u64 {
    port.0 as u64 | (outer_vlan as u64) << 16 | (vlan as u64) << 32
}

/// A whole TCP or UDP datagram behind an IPv4 header without options, its hop count above one.
#[derive(Clone, Copy)]
struct Skim4 {
    key: FlowKey,
    total: u16,
    proto: Proto,
}

/// Reads an IPv4 packet, if it is as plain as most are. What this accepts, [`parse::ipv4`] accepts, and reads the same in.
#[inline(always)]
fn skim4(packet: &[u8]) -> Option<Skim4> {
    const PORTS: usize = IPV4 + 8;
    let head = packet.first_chunk::<PORTS>()?;
    let total = get16(head, 2);
    let len = usize::from(total);
    // Version, header length and fragment fields; hop count.
    let plain = head[0] == 0x45 && get16(head, 6) & 0x3fff == 0 && head[8] > 1;
    if !plain || len < PORTS || len > packet.len() || !checksum::is_right(head.first_chunk()?) {
        return None;
    }
    let proto = if head[9] == protocol::UDP {
        let length = usize::from(get16(head, IPV4 + 4));
        if length < 8 || length > len - IPV4 {
            return None;
        }
        Proto::Udp
    } else if head[9] == protocol::TCP {
        let offset = usize::from(*packet.get(IPV4 + 12)? >> 4) * 4;
        if offset < 20 || offset > len - IPV4 {
            return None;
        }
        Proto::Tcp
    } else {
        return None;
    };
    let key = FlowKey::new([get32(head, 12), get32(head, 16)], [get16(head, 20), get16(head, 22)]);
    Some(Skim4 { key, total, proto })
}

/// Reads an IPv6 packet that is a TCP or UDP datagram behind a header without extensions, and gives its length. Not a segment that
/// opens a connection, which may have to be clamped.
#[inline(always)]
fn skim6(packet: &[u8]) -> Option<(u16, Proto)> {
    let head = packet.first_chunk::<IPV6>()?;
    let total = get16(head, 4).checked_add(40)?;
    let payload = packet.get(IPV6..usize::from(total))?;
    if head[0] >> 4 != 6 || head[7] <= 1 {
        return None;
    }
    if head[6] == protocol::UDP {
        let length = usize::from(get16(payload.first_chunk::<8>()?, 4));
        return (8..=payload.len()).contains(&length).then_some((total, Proto::Udp));
    }
    if head[6] == protocol::TCP {
        let header = payload.first_chunk::<20>()?;
        let offset = usize::from(header[12] >> 4) * 4;
        let plain = (20..=payload.len()).contains(&offset) && header[13] & tcp_flags::SYN == 0;
        return plain.then_some((total, Proto::Tcp));
    }
    None
}

impl<P: Packet> Engine<P> {
    /// Reads a burst, each packet with the port that it came in by, and has fetched what its packets will touch.
    #[inline(never)]
    pub(super) fn look_ahead<'a>(
        &self,
        burst: impl ExactSizeIterator<Item = (PortId, &'a P)>,
        lanes: &mut [Lane; BURST],
    ) where
        P: 'a,
    {
        // Stories are told on the long way.
        if self.traces.is_some() {
            return;
        }
        let mut buckets = [HomeBucket::NONE; BURST];
        let mut ingress = Ingress::NONE;
        let mut missed = 0;
        let count = burst.len();
        for (at, (port, packet)) in burst.enumerate() {
            if let Some(bucket) = self.read_lane(port, packet, &mut ingress, &mut lanes[at % BURST]) {
                buckets[at % BURST] = bucket;
            }
            if let Some(earlier) = at.checked_sub(LAG) {
                missed |= self.fetch_session(lanes, &buckets, earlier);
            }
        }
        self.counters.stages.end(Stage::Read, count);
        for rest in count.saturating_sub(LAG)..count {
            missed |= self.fetch_session(lanes, &buckets, rest);
        }
        if missed != 0 {
            self.fetch_further(lanes, missed);
        }
        self.counters.stages.end(Stage::Fetch, count);
    }

    /// Has the session of a packet fetched, as far as its bucket, which should be there by now, names it. Gives the packet's bit
    /// if it does not: few sessions are in the second bucket of a list, which is fetched; the others are still to be made.
    #[inline(always)]
    fn fetch_session(&self, lanes: &mut [Lane; BURST], buckets: &[HomeBucket; BURST], at: usize) -> u32 {
        let (lane, bucket) = (&mut lanes[at % BURST], &buckets[at % BURST]);
        if !matches!(lane.course, Course::Session | Course::Either4) {
            return 0;
        }
        let shard = &self.shards[lane.shard.index()];
        lane.guess = bucket.guess(lane.hash);
        if lane.guess != NONE {
            shard.prefetch_session(lane.guess);
            return 0;
        }
        if !shard.prefetch_overflow(lane.hash) && lane.direction == Direction::Outbound {
            self.prefetch_opening(shard, lane);
        }
        1 << (at % BURST)
    }

    /// Has the sessions fetched that second buckets name.
    #[inline(never)]
    fn fetch_further(&self, lanes: &mut [Lane; BURST], missed: u32) {
        let mut rest = missed;
        while let Some(lane) = lanes.get_mut(rest.trailing_zeros() as usize) {
            rest &= rest - 1;
            if let Some(id) = self.shards[lane.shard.index()].guess_overflow(lane.hash) {
                lane.guess = id;
            }
        }
    }

    /// Has fetched what is looked at first when a session is made from inside: where the mapping and the subscriber would be
    /// found, if the zone's first pool is the one.
    #[inline(never)]
    fn prefetch_opening(&self, shard: &Shard, lane: &Lane) {
        #[allow(clippy::cast_possible_truncation)] // the lower halves
        let (source, port) = (lane.key.addresses as u32, lane.key.ports as u16);
        if let Some(pool) = self.plan.policy.first_pool(lane.zone) {
            shard.prefetch_opening(&self.secret, source, port, lane.proto, pool, self.arenas.is_full());
        }
    }

    /// Reads a packet into its lane, and has its session's bucket fetched. None: it has no session, or is special.
    #[inline(always)]
    fn read_lane(&self, port: PortId, packet: &P, known: &mut Ingress, lane: &mut Lane) -> Option<HomeBucket<'_>> {
        if packet.is_merged() || !packet.is_contiguous() {
            return None;
        }
        let frame = packet.data();
        let ethernet = frame.first_chunk::<ETHERNET>()?;
        let (l3, kind, key) = match get16(ethernet, 12) {
            kind @ (ethertype::IPV4 | ethertype::IPV6) => (ETHERNET, kind, ingress_key(port, 0, 0)),
            _ => {
                let link = parse::link(frame).ok()?;
                (link.len, link.ethertype, ingress_key(port, link.outer_vlan, link.vlan))
            }
        };
        if known.key != key {
            *known = self.ingress(port, key)?;
        }
        if get64(ethernet) & MAC != known.mac {
            return None;
        }
        let ip = frame.get(l3..)?;
        (lane.ingress, lane.zone) = (known.id, known.zone);
        #[allow(clippy::cast_possible_truncation)] // 22 at the most
        {
            lane.l3 = l3 as u8;
        }
        if kind != ethertype::IPV4 {
            if kind == ethertype::IPV6 {
                (lane.total, lane.proto) = skim6(ip)?;
                lane.course = Course::Stateless6;
                if let Some(mappings) = known.mappings(&self.plan, known.crosses6) {
                    mappings.prefetch6(get128(ip, 8));
                    mappings.prefetch6(get128(ip, 24));
                }
            }
            return None;
        }
        let Skim4 { key, total, proto } = skim4(ip)?;
        (lane.key, lane.total, lane.proto) = (key, total, proto);
        if known.is_plain {
            lane.course = Course::Route4;
            return None;
        }
        let (source, destination) = lane.addresses();
        if known.is_stateless4 {
            lane.course = if known.has_state4 { Course::Translation4 } else { Course::Stateless4 };
            if let Some(mappings) = known.mappings(&self.plan, known.crosses4) {
                mappings.prefetch4(source);
                mappings.prefetch4(destination);
            }
            if !known.has_state4 {
                return None;
            }
        }
        let special = if self.plan.is_special4(destination) { self.plan.target4(destination) } else { None };
        let external = match special {
            None => None,
            Some(Target::Prefix(_) | Target::Cross(_)) => {
                lane.course = Course::Translation4;
                return None;
            }
            Some(target) => {
                let external = target.external_id(destination);
                if external.is_none() && !target.leads_out() {
                    return None;
                }
                external
            }
        };
        let (shard, direction) = match external {
            #[allow(clippy::cast_possible_truncation)] // the upper half
            Some(id) => (self.owner(id, proto, (key.ports >> 16) as u16)?, Direction::Inbound),
            None if known.is_inside => (shard_of4(source), Direction::Outbound),
            None => return None,
        };
        (lane.shard, lane.direction) = (shard, direction);
        if !self.owns(shard) {
            // From inside to an external address it may have to be turned round first, by its sender's owner.
            if !known.is_stateless4 && (external.is_none() || !known.is_inside) {
                lane.course = Course::Elsewhere;
            }
            return None;
        }
        lane.course = if known.is_stateless4 { Course::Either4 } else { Course::Session };
        lane.hash = self.secret.flow_hash(key, proto);
        Some(self.shards[shard.index()].home_bucket(lane.hash))
    }

    #[inline(never)]
    fn ingress(&self, port: PortId, key: u64) -> Option<Ingress> {
        #[allow(clippy::cast_possible_truncation)] // the parts that it was made of
        let id = self.plan.ingress(port, (key >> 16) as u16, (key >> 32) as u16)?;
        let interface = self.plan.interface(id)?;
        let zone = interface.zone;
        let [a, b, c, d, e, f] = interface.mac.0;
        Some(Ingress {
            key,
            mac: u64::from_be_bytes([a, b, c, d, e, f, 0, 0]),
            id,
            zone,
            is_inside: self.plan.policy.is_inside(zone),
            is_plain: self.plan.is_plain(zone),
            is_stateless4: self.plan.is_stateless4(zone),
            has_state4: !self.plan.policy.is_plain(zone),
            crosses4: self.plan.crossings.from4(zone),
            crosses6: self.plan.crossings.from6(zone),
        })
    }
}

/// The destination of a frame, among its first eight bytes.
const MAC: u64 = !0xffff;

/// The first eight bytes of a frame.
#[inline(always)]
fn get64(ethernet: &[u8; ETHERNET]) -> u64 {
    ethernet.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
