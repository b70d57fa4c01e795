//! The gateway as a host of its own: it answers for its addresses, and finds the neighbours for the workers.
//!
//! [`Host`] does no I/O and owns no clock, like the engine: frames, questions and time go in, messages for the workers come
//! out. The control thread drives it, and so do tests and `turnpike replay`, in virtual time. What it promises:
//!
//! - **Own addresses.** ARP (RFC 826) and neighbour discovery (RFC 4861) are answered for the interfaces' addresses. IPv6
//!   addresses are tested for uniqueness first (RFC 4862 §5.4) and not used if another station has them; every address is
//!   announced twice when it comes into use; another station that claims one is reported and countered at most every ten
//!   seconds (RFC 5227 §2.4). An interface with any IPv6 address has a link-local one too ([`link_local`]).
//! - **Addresses that stand for others on a shared LAN.** ARP and neighbour discovery are answered for what translators without state
//!   map, if it is a part of the link's network.
//! - **External addresses on a shared LAN.** ARP is answered for pools with `proxy_arp`, and for those of forwards and
//!   static translations, on each interface whose on-link prefix covers them, and nowhere else.
//! - **Neighbours.** One table for both families, with the states and timers of RFC 4861 §7.3, bounded. What the workers need
//!   of it is published to them as it changes.
//! - **Pings and the rest.** ICMP echo requests to any own address, and to pools with `answer_echo`, are answered, the first
//!   one too: the reply is routed by the worker, where it waits for its neighbour like any packet. Where nobody listens, UDP
//!   gets a port unreachable error and TCP a reset, ten a second in all.
//! - **Every input is accounted for**: each frame that came in is either handled or counted under one [`Ignored`] reason. No
//!   input panics, and no state grows without bound.
//!
//! Only `smoltcp::wire` is used, to read and write packets. smoltcp's `Interface` would serve sockets of the box itself; as
//! long as there are none, it would be a second table of neighbours and routes for nothing.
//!
//! Order of calls: [`Host::new`], [`Host::start`] once, then [`Host::receive`], [`Host::resolve`], [`Host::neighbour_used`] and
//! [`Host::succeed`] as they come, and [`Host::poll`] when [`Host::next_deadline`] has passed; `now` never goes back.
//! A caller that wants every address in use at once, at the price of not testing it (a replay), starts the host
//! [`SETTLING`] before its first packet, polls until then and throws the output away. Every message goes to one worker, but
//! [`ToWorker::Neighbour`], which goes to all.

mod arp;
mod ip;
mod link;
mod ndp;
mod neighbour;
mod random;
mod succeed;
mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::message::{NeighbourState, NeighbourUpdate, ToWorker};
use dataplane::plan::{InterfaceId, MacAddr, Plan, PoolId};
use dataplane::time::Time;
use smoltcp::wire::{ArpOperation, EthernetFrame, EthernetProtocol};

pub use link::link_local;
pub use neighbour::{Neighbour, NudState};

use link::{Link, Task};
use neighbour::{Effect, Table};
use random::Random;
use wire::{ArpEnd, NdEnd};

/// How long after [`Host::start`] the last address has been tested and the last announcement made.
pub const SETTLING: Duration = Duration::from_secs(4);

/// Errors and resets that the host sends, per second over a long time, and at once.
const ANSWERS_PER_SECOND: u32 = 10;
const ANSWERS_AT_ONCE: u32 = 10;

/// External addresses that are announced at start; further ones are only answered for.
const ANNOUNCED_MAX: usize = 256;

/// Notices kept for the caller; when it does not take them, the oldest go.
const NOTICES_MAX: usize = 64;

/// Why a frame was not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// Too short, inconsistent in its lengths, or not what its type says.
    Malformed,
    /// Neither ARP nor IP, or a protocol or message that the host has no answer for.
    Unsupported,
    /// Addressed to another station's Ethernet address, or one packet to many that is for one only.
    OtherStation,
    /// From one of the gateway's own Ethernet addresses: it came back.
    Looped,
    /// A checksum is wrong.
    Checksum,
    /// The source cannot be a sender: unspecified, loopback, multicast, broadcast or an address of the gateway.
    BadSource,
    /// ARP or neighbour discovery from a station that is not on the link.
    OffLink,
    /// Neighbour discovery that did not start on the link: its hop limit is not 255 (RFC 4861 §7.1).
    HopLimit,
    /// For no address of the gateway's, or for one that is not in use yet.
    NotOurs,
    /// It claims an address of the gateway's.
    Conflict,
    /// News of a neighbour that nobody asked for.
    Unneeded,
    /// A fragment.
    Fragment,
    /// Larger than the interface's MTU, so that no answer would fit.
    TooBig,
    /// The interface is one on which no errors are sent (`icmp.silent`).
    Silent,
    /// More errors and resets than the host sends.
    RateLimited,
}

impl Ignored {
    /// Every reason, in order.
    pub const ALL: [Ignored; 15] = [
        Ignored::Malformed,
        Ignored::Unsupported,
        Ignored::OtherStation,
        Ignored::Looped,
        Ignored::Checksum,
        Ignored::BadSource,
        Ignored::OffLink,
        Ignored::HopLimit,
        Ignored::NotOurs,
        Ignored::Conflict,
        Ignored::Unneeded,
        Ignored::Fragment,
        Ignored::TooBig,
        Ignored::Silent,
        Ignored::RateLimited,
    ];

    /// The reason's name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Ignored::Malformed => "malformed",
            Ignored::Unsupported => "unsupported",
            Ignored::OtherStation => "other-station",
            Ignored::Looped => "looped",
            Ignored::Checksum => "checksum",
            Ignored::BadSource => "bad-source",
            Ignored::OffLink => "off-link",
            Ignored::HopLimit => "hop-limit",
            Ignored::NotOurs => "not-ours",
            Ignored::Conflict => "conflict",
            Ignored::Unneeded => "unneeded",
            Ignored::Fragment => "fragment",
            Ignored::TooBig => "too-big",
            Ignored::Silent => "silent",
            Ignored::RateLimited => "rate-limited",
        }
    }
}

/// What the host counts. `received = handled + the sum of ignored`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Frames given to [`Host::receive`].
    pub received: u64,
    /// Frames that were acted upon.
    pub handled: u64,
    /// Frames that were not, by [`Ignored`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// Neighbours refused because the table was full, or half full of unanswered resolutions.
    pub neighbour_overflows: u64,
}

impl HostCounters {
    /// Frames ignored for one reason.
    #[must_use]
    pub fn ignored(&self, reason: Ignored) -> u64 {
        self.ignored[reason as usize]
    }
}

/// Something that the operator should hear of, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another station already has one of our IPv6 addresses; it is not used.
    Duplicate {
        /// The interface's name.
        interface: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: MacAddr,
    },
    /// Another station claims an address that we use.
    Conflict {
        /// The interface's name.
        interface: String,
        /// The address.
        address: IpAddr,
        /// Who claims it.
        mac: MacAddr,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Duplicate { interface, address, mac } => write!(
                f,
                "interface {interface}: {address} is in use by {mac}, so it is not used here; \
                 give one of the two another address and restart"
            ),
            Notice::Conflict { interface, address, mac } => write!(
                f,
                "interface {interface}: {mac} claims {address}, which is the gateway's; give one of the two another address"
            ),
        }
    }
}

/// The gateway as a host. See the module's documentation.
#[derive(Debug)]
pub struct Host {
    plan: Arc<Plan>,
    /// By [`InterfaceId`].
    links: Vec<Link>,
    neighbours: Table,
    /// Usable addresses of all interfaces, without the link-local ones.
    addresses: BTreeSet<IpAddr>,
    /// External addresses to announce, and when to do it (again).
    external: Vec<(InterfaceId, Ipv4Addr)>,
    announce_external: Time,
    /// Rate limit of errors and resets: when the bucket will be full again.
    bucket_full: Time,
    random: Random,
    counters: HostCounters,
    notices: VecDeque<Notice>,
}

impl Host {
    /// The host of this plan. `seed` makes its random delays; equal seeds give equal output. Nothing is sent before
    /// [`Host::start`].
    #[must_use]
    pub fn new(plan: Arc<Plan>, seed: u64, now: Time) -> Self {
        let ids = (0..=u16::MAX).map(InterfaceId);
        let links: Vec<_> = ids.zip(&plan.spec.interfaces).map(|(id, spec)| Link::new(id, spec)).collect();
        let mut random = Random::new(seed);
        let limit = usize::try_from(plan.spec.limits.neighbours).unwrap_or(usize::MAX);
        let neighbours = Table::new(limit, Random::new(random.next()));
        let mut host = Host {
            plan,
            links,
            neighbours,
            addresses: BTreeSet::new(),
            external: Vec::new(),
            announce_external: Time::NEVER,
            bucket_full: now,
            random,
            counters: HostCounters::default(),
            notices: VecDeque::new(),
        };
        host.external = host.external_on_links();
        host
    }

    /// Brings the interfaces' addresses up and publishes the neighbours that the configuration names.
    pub fn start(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        let mut effects = Vec::new();
        for (link, spec) in self.links.iter().zip(&self.plan.spec.interfaces) {
            for &(address, mac) in &spec.neighbours {
                self.neighbours.insert_permanent((link.id, address), mac, now, &mut effects);
            }
        }
        self.apply(effects, out);
        for index in 0..self.links.len() {
            let tasks = self.links[index].start(now);
            self.perform(index, tasks, out);
        }
        self.announce_external(|_, _| true, out);
        self.announce_external = now + link::ANNOUNCE_INTERVAL;
    }

    /// Works by another plan from now on, with the same interfaces, links and external addresses.
    pub fn adopt(&mut self, plan: Arc<Plan>) {
        self.plan = plan;
    }

    /// Takes in a frame: untagged Ethernet, from its destination address on.
    pub fn receive(&mut self, interface: InterfaceId, frame: &[u8], now: Time, out: &mut Vec<ToWorker>) {
        self.counters.received += 1;
        match self.dispatch(interface, frame, now, out) {
            Ok(()) => self.counters.handled += 1,
            Err(reason) => self.counters.ignored[reason as usize] += 1,
        }
    }

    /// The configuration in use.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A worker holds packets for this neighbour ([`dataplane::message::FromWorker::Resolve`]).
    pub fn resolve(&mut self, interface: InterfaceId, address: IpAddr, now: Time, out: &mut Vec<ToWorker>) {
        let mut effects = Vec::new();
        if self.resolvable(interface, address) {
            self.neighbours.resolve((interface, address), now, &mut effects);
        } else {
            let state = NeighbourState::Failed;
            effects.push(Effect::Publish(NeighbourUpdate { interface, address, state }));
        }
        self.apply(effects, out);
    }

    /// A worker sent to a stale neighbour ([`dataplane::message::FromWorker::NeighbourUsed`]).
    pub fn neighbour_used(&mut self, interface: InterfaceId, address: IpAddr, now: Time, out: &mut Vec<ToWorker>) {
        let mut effects = Vec::new();
        self.neighbours.used((interface, address), now, &mut effects);
        self.apply(effects, out);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Time, out: &mut Vec<ToWorker>) {
        for index in 0..self.links.len() {
            let tasks = self.links[index].poll(now);
            self.perform(index, tasks, out);
        }
        if self.announce_external <= now {
            self.announce_external = Time::NEVER;
            self.announce_external(|_, _| true, out);
        }
        let mut effects = Vec::new();
        self.neighbours.poll(now, &mut effects);
        self.apply(effects, out);
    }

    /// When [`Host::poll`] has something to do; none if nothing ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let external = (self.announce_external < Time::NEVER).then_some(self.announce_external);
        let links = self.links.iter().filter_map(Link::next_deadline);
        links.chain(self.neighbours.next_deadline()).chain(external).min()
    }

    /// The neighbour table, by interface and address.
    pub fn neighbours(&self) -> impl Iterator<Item = Neighbour> + '_ {
        self.neighbours.iter()
    }

    /// The neighbours after this one, in the same order; all, if there is none.
    pub fn neighbours_after(&self, after: Option<(InterfaceId, IpAddr)>) -> impl Iterator<Item = Neighbour> + '_ {
        self.neighbours.iter_after(after)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        HostCounters { neighbour_overflows: self.neighbours.overflows(), ..self.counters }
    }

    /// Takes what the operator should hear of, oldest first.
    pub fn notices(&mut self) -> impl Iterator<Item = Notice> + '_ {
        self.notices.drain(..)
    }

    fn dispatch(
        &mut self,
        interface: InterfaceId,
        frame: &[u8],
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let index = usize::from(interface.0);
        let link = self.links.get(index).ok_or(Ignored::NotOurs)?;
        let frame = EthernetFrame::new_checked(frame).map_err(|_| Ignored::Malformed)?;
        let (from, to) = (MacAddr(frame.src_addr().0), MacAddr(frame.dst_addr().0));
        if self.links.iter().any(|link| link.mac == from) {
            return Err(Ignored::Looped);
        }
        if !is_station(from) {
            return Err(Ignored::BadSource);
        }
        if to != link.mac && !is_group(to) {
            return Err(Ignored::OtherStation);
        }
        let came = Came { index, from, to };
        match frame.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(came, frame.payload(), now, out),
            EthernetProtocol::Ipv4 => self.receive_ipv4(came, frame.payload(), now, out),
            EthernetProtocol::Ipv6 => self.receive_ipv6(came, frame.payload(), now, out),
            EthernetProtocol::Unknown(_) => Err(Ignored::Unsupported),
        }
    }

    /// Whether asking for this neighbour can lead to anything: the link is up, it is not ourselves, it is one station, and the
    /// interface speaks its family.
    fn resolvable(&self, interface: InterfaceId, address: IpAddr) -> bool {
        let Some(link) = self.links.get(usize::from(interface.0)) else { return false };
        let one_station = match address {
            IpAddr::V4(v4) => !is_bad_source4(v4) && !link.is_broadcast(v4) && !self.proxies(link, v4),
            IpAddr::V6(v6) => !is_bad_source6(v6) && !self.stands_for(link, address),
        };
        link.up
            && one_station
            && link.own.iter().any(|own| own.prefix.address.is_ipv4() == address.is_ipv4())
            && link.own.iter().all(|own| own.prefix.address != address)
    }

    /// Whether an address of the link's network stands for a host elsewhere, by a translator without state. Not where the whole network
    /// does: then nothing says which of its addresses are hosts of its own.
    fn stands_for(&self, link: &Link, address: IpAddr) -> bool {
        let network = link.own.iter().map(|own| own.prefix).find(|prefix| prefix.contains(address));
        let Some((network, interface)) = network.zip(self.plan.interface(link.id)) else { return false };
        link.reaches(address) && self.plan.stands_for(interface.zone, address, network)
    }

    /// Whether ARP for an address that is not our own is answered on this link.
    fn proxies(&self, link: &Link, address: Ipv4Addr) -> bool {
        let spec = &self.plan.spec;
        let proxied = |pool: PoolId| spec.pools.get(usize::from(pool.0)).is_some_and(|pool| pool.proxy_arp);
        // Drained addresses too, of which no pool speaks any more.
        let external = self.plan.external(address.to_bits()).map(|(_, external)| external);
        let forwarded = || spec.forwards.iter().any(|rule| rule.external == address);
        let is_external = external.is_some_and(|external| external.pool.is_none_or(proxied) || forwarded());
        link.reaches(address.into()) && is_external || self.stands_for(link, address.into())
    }

    /// The external addresses that are answered for, and where; the first [`ANNOUNCED_MAX`] of them.
    fn external_on_links(&self) -> Vec<(InterfaceId, Ipv4Addr)> {
        let spec = &self.plan.spec;
        let pools = spec.pools.iter().filter(|pool| pool.proxy_arp).flat_map(|pool| pool.addresses.iter().cloned());
        let rules =
            spec.static_nat.iter().map(|rule| rule.external).chain(spec.forwards.iter().map(|rule| rule.external));
        let ranges: Vec<_> = pools.chain(rules.map(|address| address..=address)).collect();
        let mut found = BTreeSet::new();
        for link in &self.links {
            for own in &link.own {
                let IpAddr::V4(address) = own.prefix.address else { continue };
                let hosts = u32::MAX.checked_shr(own.prefix.len.into()).unwrap_or(0);
                let (first, last) = (address.to_bits() & !hosts, address.to_bits() | hosts);
                for range in &ranges {
                    let shared = first.max(range.start().to_bits())..=last.min(range.end().to_bits());
                    let shared = shared.map(Ipv4Addr::from_bits).filter(|&external| {
                        link.reaches(external.into()) && link.own.iter().all(|own| own.prefix.address != external)
                    });
                    found.extend(shared.take(ANNOUNCED_MAX).map(|external| (link.id, external)));
                }
            }
        }
        found.into_iter().take(ANNOUNCED_MAX).collect()
    }

    /// Announces those of the external addresses that are wanted, where the link is up.
    fn announce_external(&self, wanted: impl Fn(InterfaceId, Ipv4Addr) -> bool, out: &mut Vec<ToWorker>) {
        for &(id, address) in self.external.iter().filter(|&&(id, address)| wanted(id, address)) {
            let link = &self.links[usize::from(id.0)];
            if link.up {
                announce(link, address.into(), out);
            }
        }
    }

    /// Carries out what a link's own addresses want, and keeps [`Host::addresses`] up to date.
    fn perform(&mut self, index: usize, tasks: Vec<Task>, out: &mut Vec<ToWorker>) {
        let link = &self.links[index];
        for task in tasks {
            match task {
                Task::Test(address) => {
                    let nobody = NdEnd { mac: link.mac, address: Ipv6Addr::UNSPECIFIED };
                    send_frame(link, wire::solicitation(nobody, address, None), out);
                }
                Task::Announce(address) => {
                    if !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                        self.addresses.insert(address);
                    }
                    announce(link, address, out);
                }
            }
        }
    }

    /// Carries out what the neighbour table wants.
    fn apply(&mut self, effects: Vec<Effect>, out: &mut Vec<ToWorker>) {
        for effect in effects {
            match effect {
                Effect::Publish(update) => out.push(ToWorker::Neighbour(update)),
                Effect::Solicit((interface, target), to) => {
                    let Some(link) = self.links.get(usize::from(interface.0)) else { continue };
                    // Without a source there is nothing to ask from yet; the next attempt comes in a second.
                    let frame = match (link.source_for(target), target) {
                        (Some(IpAddr::V4(address)), IpAddr::V4(target)) => {
                            let sender = ArpEnd { mac: link.mac, address };
                            let target = ArpEnd { mac: MacAddr::default(), address: target };
                            wire::arp(ArpOperation::Request, sender, target, to.unwrap_or(wire::BROADCAST))
                        }
                        (Some(IpAddr::V6(address)), IpAddr::V6(target)) => {
                            wire::solicitation(NdEnd { mac: link.mac, address }, target, to)
                        }
                        _ => continue,
                    };
                    send_frame(link, frame, out);
                }
            }
        }
    }

    /// Another station claims an address that we use: report and counter it, but not too often (RFC 5227 §2.4 c).
    fn conflict(&mut self, index: usize, address: IpAddr, mac: MacAddr, now: Time, out: &mut Vec<ToWorker>) -> Ignored {
        let link = &mut self.links[index];
        if link.may_defend(address, now) {
            announce(link, address, out);
            let interface = link.name.clone();
            self.notice(Notice::Conflict { interface, address, mac });
        }
        Ignored::Conflict
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }
}

/// How a frame came in.
#[derive(Clone, Copy, Debug)]
struct Came {
    /// Index of the link.
    index: usize,
    from: MacAddr,
    to: MacAddr,
}

/// A gratuitous ARP (RFC 5227 §3: a request) or an unsolicited advertisement.
fn announce(link: &Link, address: IpAddr, out: &mut Vec<ToWorker>) {
    let frame = match address {
        IpAddr::V4(address) => {
            let sender = ArpEnd { mac: link.mac, address };
            wire::arp(ArpOperation::Request, sender, ArpEnd { mac: MacAddr::default(), address }, wire::BROADCAST)
        }
        IpAddr::V6(address) => wire::advertisement(NdEnd { mac: link.mac, address }, None),
    };
    send_frame(link, frame, out);
}

fn send_frame(link: &Link, frame: Box<[u8]>, out: &mut Vec<ToWorker>) {
    out.push(ToWorker::Frame { interface: link.id, frame });
}

/// Whether this Ethernet address is that of more than one station.
fn is_group(mac: MacAddr) -> bool {
    mac.0[0] & 1 == 1
}

/// Whether this Ethernet address can be that of one station.
fn is_station(mac: MacAddr) -> bool {
    !is_group(mac) && mac != MacAddr::default()
}

/// Whether nobody can send from this address (RFC 1812 §5.3.7).
fn is_bad_source4(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 0 | 127 | 224..)
}

/// Whether nobody can send from this address (RFC 4291 §2.5.2, §2.5.3, §2.7).
fn is_bad_source6(address: Ipv6Addr) -> bool {
    address.is_unspecified() || address.is_loopback() || address.is_multicast()
}
