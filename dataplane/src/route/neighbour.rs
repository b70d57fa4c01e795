//! A worker's neighbours: what the control thread has published, and the packets that wait for it.
//!
//! Resolution itself (ARP, NDP) is the control thread's. A packet to an unknown neighbour is held, bounded in all and per
//! neighbour, and the control thread is told once; its answer releases the packets or has them dropped by name.
//!
//! A neighbour that packets can be sent to has a [`Hop`], which sessions remember instead of its name: behind it stands the
//! link-layer header, ready to be copied ([`Way`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::counters::Drop;
use crate::message::{NeighbourState, NeighbourUpdate};
use crate::plan::{InterfaceId, Limits, MacAddr};
use crate::steer::passage::Passage;

const NIL: u32 = u32::MAX;

/// Neighbours that are found again without a look-up.
const RECENT: usize = 128;

/// Where a neighbour is among those.
#[inline]
fn recent_place(neighbour: &Neighbour) -> usize {
    #[allow(clippy::cast_possible_truncation)] // the last bits are what tells neighbours apart
    let word = neighbour.address as u32 ^ neighbour.link << 8;
    word.wrapping_mul(0x9e37_79b1) as usize >> 25
}

/// A neighbour's name: its network address, and the interface that it is on. Built so that it is copied, compared and
/// hashed in a few instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The address; of IPv4 in the low 32 bits.
    address: u128,
    /// The interface's number, times two, plus one for IPv6.
    link: u32,
}

impl Neighbour {
    /// The neighbour at this address.
    #[must_use]
    pub fn new(interface: InterfaceId, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Neighbour::ipv4(interface, address.to_bits()),
            IpAddr::V6(address) => Neighbour::ipv6(interface, address.to_bits()),
        }
    }

    /// The neighbour at this IPv4 address, in host order.
    #[inline]
    #[must_use]
    pub const fn ipv4(interface: InterfaceId, address: u32) -> Self {
        Neighbour { address: address as u128, link: (interface.0 as u32) << 1 }
    }

    /// The neighbour at this IPv6 address, in host order.
    #[inline]
    #[must_use]
    pub const fn ipv6(interface: InterfaceId, address: u128) -> Self {
        Neighbour { address, link: (interface.0 as u32) << 1 | 1 }
    }

    /// The interface that it is on.
    #[inline]
    #[must_use]
    pub const fn interface(self) -> InterfaceId {
        #[allow(clippy::cast_possible_truncation)] // 16 bits were shifted by one
        InterfaceId((self.link >> 1) as u16)
    }

    /// Whether its address is of IPv6.
    #[inline]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.link & 1 == 1
    }

    /// Its network address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        match u32::try_from(self.address) {
            Ok(address) if self.link & 1 == 0 => IpAddr::V4(Ipv4Addr::from_bits(address)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(self.address)),
        }
    }
}

/// Where a frame goes: out of an interface, to an Ethernet address. Aligned, to be moved as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Adjacency {
    /// Its destination.
    pub mac: MacAddr,
    /// The interface that it leaves by.
    pub interface: InterfaceId,
}

/// The place of a neighbour among those of one worker that packets can be sent to. Good for one epoch of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop(u16);

impl Hop {
    /// None is known.
    pub const UNKNOWN: Hop = Hop(u16::MAX);
}

/// The longest link-layer header: Ethernet's with two VLAN tags, in bytes.
pub const HEADER_MAX: usize = 22;

/// The way out to a neighbour, as a packet needs it: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Way {
    /// The link-layer header, up to the EtherType of IP.
    pub header: [u8; HEADER_MAX],
    /// Its length, in bytes.
    pub len: u8,
    /// The interface that it leads out of.
    pub interface: InterfaceId,
    /// The largest IP packet that it takes, in bytes. Zero: there is more to be done first than to send.
    pub mtu: u16,
}

impl Way {
    /// Nothing is sent this way.
    pub const CLOSED: Way = Way { header: [0; HEADER_MAX], len: 0, interface: InterfaceId(u16::MAX), mtu: 0 };
}

/// A packet that waits, as it came in or as its turn has left it.
#[derive(Debug)]
pub struct Held<P> {
    /// The packet, unchanged.
    pub packet: P,
    /// The interface that it came in by; none for one of the gateway's own.
    pub ingress: Option<InterfaceId>,
    /// What is to be known of it beside that.
    pub passage: Passage,
}

#[derive(Debug)]
enum State {
    /// Asked for, not answered; with the waiting packets.
    Incomplete {
        first: u32,
        last: u32,
        count: u32,
    },
    Known(Adjacency, Hop),
    /// Known, and its use is to be reported.
    Stale(Adjacency, Hop),
}

/// What a look-up says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Send there.
    Known(Adjacency, Hop),
    /// Send there, and tell the control thread that the neighbour is used.
    Stale(Adjacency, Hop),
    /// Nothing is known.
    Unknown,
}

/// The neighbour table of one worker.
#[derive(Debug)]
pub struct Neighbours<P> {
    table: HashMap<Neighbour, State>,
    table_max: usize,
    /// By hop. Those of neighbours that are gone stay closed until all are used up: sessions may remember them.
    ways: Box<[Way]>,
    /// What was looked up last, by [`recent_place`].
    recent: Box<[(Neighbour, Hop)]>,
    /// Hops that have not been given out in this epoch, and those that were given back in it.
    unused: Vec<Hop>,
    retired: Vec<Hop>,
    held_per_neighbour: u32,
    slots: Vec<Slot<P>>,
    free: u32,
}

#[derive(Debug)]
struct Slot<P> {
    held: Option<Held<P>>,
    next: u32,
}

impl<P> Neighbours<P> {
    /// Empty tables of these sizes.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let slots =
            (0..limits.held).map(|at| Slot { held: None, next: if at + 1 < limits.held { at + 1 } else { NIL } });
        let ways = (limits.neighbours as usize).min(usize::from(u16::MAX));
        Neighbours {
            ways: vec![Way::CLOSED; ways].into(),
            recent: vec![(Neighbour::ipv4(InterfaceId(0), 0), Hop::UNKNOWN); RECENT].into(),
            unused: (0..u16::try_from(ways).unwrap_or(u16::MAX)).rev().map(Hop).collect(),
            retired: Vec::with_capacity(ways),
            // Twice the room, one to come included: at half load hashbrown clears its tombstones in place, and never
            // allocates.
            table: HashMap::with_capacity(2 * (limits.neighbours as usize + 1)),
            table_max: limits.neighbours as usize,
            held_per_neighbour: limits.held_per_neighbour,
            slots: slots.collect(),
            free: if limits.held > 0 { 0 } else { NIL },
        }
    }

    /// What is known of a neighbour. A stale one is reported once.
    #[inline]
    pub fn lookup(&mut self, neighbour: &Neighbour) -> Lookup {
        match self.table.get_mut(neighbour) {
            Some(State::Known(adjacency, hop)) => Lookup::Known(*adjacency, *hop),
            Some(state @ State::Stale(..)) => {
                let State::Stale(adjacency, hop) = *state else { return Lookup::Unknown };
                *state = State::Known(adjacency, hop);
                Lookup::Stale(adjacency, hop)
            }
            Some(State::Incomplete { .. }) | None => Lookup::Unknown,
        }
    }

    /// The way of a hop; closed if there is none, or if the neighbour is to be looked up first.
    #[inline]
    #[must_use]
    pub fn way(&self, hop: Hop) -> &Way {
        self.ways.get(usize::from(hop.0)).unwrap_or(&Way::CLOSED)
    }

    /// Opens the way of a neighbour that was looked up.
    pub fn open(&mut self, neighbour: &Neighbour, hop: Hop, way: Way) {
        self.set_way(hop, way);
        if let Some(place) = self.recent.get_mut(recent_place(neighbour)) {
            *place = (*neighbour, hop);
        }
    }

    fn set_way(&mut self, hop: Hop, way: Way) {
        if let Some(place) = self.ways.get_mut(usize::from(hop.0)) {
            *place = way;
        }
    }

    /// Interfaces may be others than before, and no hop is remembered any more: closes all ways, and gives hops anew.
    pub fn begin_epoch(&mut self) {
        self.ways.fill(Way::CLOSED);
        self.recent.fill((Neighbour::ipv4(InterfaceId(0), 0), Hop::UNKNOWN));
        self.unused.append(&mut self.retired);
    }

    /// The hop of a neighbour that was looked up lately, and its way; closed if it was not, or is to be looked up again.
    #[inline]
    #[must_use]
    pub fn recent(&self, neighbour: &Neighbour) -> (Hop, &Way) {
        match self.recent.get(recent_place(neighbour)) {
            Some((known, hop)) if known == neighbour => (*hop, self.way(*hop)),
            _ => (Hop::UNKNOWN, &Way::CLOSED),
        }
    }

    /// Whether there are no hops left to give out until a new epoch begins.
    #[must_use]
    pub fn wants_epoch(&self) -> bool {
        self.unused.is_empty() && !self.retired.is_empty()
    }

    /// Holds a packet for a neighbour. The flag says that the neighbour is new, hence to be asked for, whether or not there
    /// was room for the packet.
    ///
    /// # Errors
    /// Gives the packet back, with the reason to drop it.
    pub fn hold(&mut self, neighbour: Neighbour, held: Held<P>) -> (bool, Result<(), (P, Drop)>) {
        let new = !self.table.contains_key(&neighbour);
        if new && self.table.len() >= self.table_max {
            return (false, Err((held.packet, Drop::NeighbourTableFull)));
        }
        let empty = State::Incomplete { first: NIL, last: NIL, count: 0 };
        let state = self.table.entry(neighbour).or_insert(empty);
        let slot = self.free;
        let (State::Incomplete { first, last, count }, Some(entry)) = (state, self.slots.get_mut(slot as usize)) else {
            return (new, Err((held.packet, Drop::NeighbourQueueFull)));
        };
        if *count >= self.held_per_neighbour {
            return (new, Err((held.packet, Drop::NeighbourQueueFull)));
        }
        *count += 1;
        self.free = entry.next;
        *entry = Slot { held: Some(held), next: NIL };
        let before = std::mem::replace(last, slot);
        if *first == NIL {
            *first = slot;
        }
        if let Some(before) = self.slots.get_mut(before as usize) {
            before.next = slot;
        }
        (new, Ok(()))
    }

    /// Applies what the control thread publishes. The packets that waited are then taken one by one with
    /// [`Neighbours::release`].
    pub fn apply(&mut self, update: &NeighbourUpdate) -> Waiting {
        let key = Neighbour::new(update.interface, update.address);
        let to = |mac| Adjacency { mac, interface: update.interface };
        let hop = match self.table.get(&key) {
            Some(State::Known(_, hop) | State::Stale(_, hop)) => *hop,
            Some(State::Incomplete { .. }) | None => Hop::UNKNOWN,
        };
        // Its address may be another, and a stale one's use is to be reported: the next packet looks it up.
        self.set_way(hop, Way::CLOSED);
        let before = match update.state {
            NeighbourState::Reachable(mac) => self.publish(key, hop, |hop| State::Known(to(mac), hop)),
            NeighbourState::Stale(mac) => self.publish(key, hop, |hop| State::Stale(to(mac), hop)),
            NeighbourState::Failed => {
                if hop != Hop::UNKNOWN {
                    self.retired.push(hop);
                }
                self.table.remove(&key)
            }
        };
        match before {
            Some(State::Incomplete { first, .. }) => Waiting { next: first },
            _ => Waiting { next: NIL },
        }
    }

    fn publish(&mut self, key: Neighbour, hop: Hop, state: impl FnOnce(Hop) -> State) -> Option<State> {
        // The control thread's table is bounded by the same number; what exceeds it is asked for again.
        if self.table.len() >= self.table_max && !self.table.contains_key(&key) {
            return None;
        }
        let hop = if hop == Hop::UNKNOWN { self.unused.pop().unwrap_or(Hop::UNKNOWN) } else { hop };
        self.table.insert(key, state(hop))
    }

    /// Takes the next of the packets that waited.
    pub fn release(&mut self, waiting: &mut Waiting) -> Option<Held<P>> {
        let slot = self.slots.get_mut(waiting.next as usize)?;
        let held = slot.held.take();
        let next = std::mem::replace(&mut slot.next, self.free);
        self.free = std::mem::replace(&mut waiting.next, next);
        held
    }
}

/// The packets that waited for a neighbour.
#[derive(Debug)]
pub struct Waiting {
    next: u32,
}
