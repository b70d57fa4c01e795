//! What the control thread and a worker say to each other. Never on the packet's fast way.

use std::net::IpAddr;
use std::sync::Arc;

use crate::plan::{InterfaceId, MacAddr, Plan};
use crate::pool::Leases;
use crate::session::walk::Walk;
use crate::steer::hand_over::Move;

/// What is known of a neighbour (RFC 826, RFC 4861), as the control thread publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Use this link-layer address.
    Reachable(MacAddr),
    /// Use this link-layer address, and say [`FromWorker::NeighbourUsed`] once when you do (RFC 4861 §7.3.3: the first
    /// packet sent to a stale neighbour starts its probing).
    Stale(MacAddr),
    /// Resolution failed: packets held for it are answered with an ICMP error and dropped; a later packet asks anew.
    Failed,
}

/// One change of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourUpdate {
    /// The interface it is on.
    pub interface: InterfaceId,
    /// Its network address.
    pub address: IpAddr,
    /// What is known of it now.
    pub state: NeighbourState,
}

/// From the control thread to a worker, applied between bursts.
#[derive(Debug)]
pub enum ToWorker {
    /// A neighbour changed.
    Neighbour(NeighbourUpdate),
    /// Send this frame as it is: an untagged Ethernet frame (ARP, NDP); the worker adds the interface's tag.
    Frame {
        /// Where it leaves.
        interface: InterfaceId,
        /// From the Ethernet header on, without a VLAN tag.
        frame: Box<[u8]>,
    },
    /// Route this IP packet of the gateway's own (an echo reply): it finds its interface and neighbour as any other.
    Packet {
        /// From the IP header on.
        packet: Box<[u8]>,
    },
    /// Work by this plan from now on: the successor of the present one (see [`Plan::succeed`]). If its generation is another,
    /// every session is checked against it: on its next packet, or by a bounded sweep, whose end is told by
    /// [`FromWorker::Swept`].
    Plan {
        /// The plan.
        plan: Arc<Plan>,
        /// The leases of its external addresses.
        leases: Arc<Leases>,
    },
    /// List, count or end sessions or mappings: one bounded step, after which it comes back by [`FromWorker::Walked`].
    Walk(Box<Walk>),
    /// Give this shard to another worker, with an empty one to take its place. The other worker says [`FromWorker::Moved`]
    /// when it has it; so does this one, at once, if the shard is not its own, or there is no such other worker.
    Move(Box<Move>),
    /// Leave the loop. Packets still held are freed with the worker.
    Stop,
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum FromWorker<P> {
    /// A frame for the host: ARP, NDP, and what is addressed to the gateway itself. Untagged.
    Punt {
        /// Where it came in.
        interface: InterfaceId,
        /// The frame, from its Ethernet header on.
        packet: P,
    },
    /// Packets wait for this neighbour. Said once per neighbour until it is answered.
    Resolve {
        /// The interface it is on.
        interface: InterfaceId,
        /// Its network address.
        address: IpAddr,
    },
    /// A packet was sent to a neighbour published as [`NeighbourState::Stale`]. Said once per publication.
    NeighbourUsed {
        /// The interface it is on.
        interface: InterfaceId,
        /// Its network address.
        address: IpAddr,
    },
    /// Every session has been checked against the plan of this generation: nothing refers any more to what it left out.
    Swept {
        /// The plan's generation.
        generation: u32,
    },
    /// A walk has been taken a step further.
    Walked(Box<Walk>),
    /// A shard has arrived where it was to go, and the map says so; or its worker did not have it. With the empty shard that is
    /// left over.
    Moved(Box<Move>),
    /// A message that has been applied comes back, so that its memory is freed off the packet path.
    Spent(ToWorker),
}
