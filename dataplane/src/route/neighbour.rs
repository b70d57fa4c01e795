//! A worker's neighbours: what the control thread has published, and the packets that wait for it.
//!
//! Resolution itself (ARP, NDP) is the control thread's. A packet to an unknown neighbour is held, bounded in all and per
//! neighbour, and the control thread is told once; its answer releases the packets or has them dropped by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::counters::Drop;
use crate::message::{NeighbourState, NeighbourUpdate};
use crate::plan::{InterfaceId, Limits, MacAddr};
use crate::steer::passage::Passage;

const NIL: u32 = u32::MAX;

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
    Known(Adjacency),
    /// Known, and its use is to be reported.
    Stale(Adjacency),
}

/// What a look-up says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Send there.
    Known(Adjacency),
    /// Send there, and tell the control thread that the neighbour is used.
    Stale(Adjacency),
    /// Nothing is known.
    Unknown,
}

/// The neighbour table of one worker.
#[derive(Debug)]
pub struct Neighbours<P> {
    table: HashMap<Neighbour, State>,
    table_max: usize,
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
        Neighbours {
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
            Some(State::Known(adjacency)) => Lookup::Known(*adjacency),
            Some(state @ State::Stale(_)) => {
                let State::Stale(adjacency) = *state else { return Lookup::Unknown };
                *state = State::Known(adjacency);
                Lookup::Stale(adjacency)
            }
            Some(State::Incomplete { .. }) | None => Lookup::Unknown,
        }
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
        let before = match update.state {
            NeighbourState::Reachable(mac) => self.publish(key, State::Known(to(mac))),
            NeighbourState::Stale(mac) => self.publish(key, State::Stale(to(mac))),
            NeighbourState::Failed => self.table.remove(&key),
        };
        match before {
            Some(State::Incomplete { first, .. }) => Waiting { next: first },
            _ => Waiting { next: NIL },
        }
    }

    fn publish(&mut self, key: Neighbour, state: State) -> Option<State> {
        // The control thread's table is bounded by the same number; what exceeds it is asked for again.
        if self.table.len() >= self.table_max && !self.table.contains_key(&key) {
            return None;
        }
        self.table.insert(key, state)
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
