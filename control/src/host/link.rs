//! An interface as the host sees it: its own addresses, how far each has come, and who is on its link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane::plan::{InterfaceId, InterfaceSpec, IpPrefix, MacAddr};
use dataplane::time::Time;

use super::neighbour::RETRANS_TIMER;

/// RFC 5227 §1.1, ANNOUNCE_NUM, for both families: how often a new address is announced.
const ANNOUNCE_NUM: u8 = 2;
/// RFC 5227 §1.1, ANNOUNCE_INTERVAL (RFC 4861 §7.2.6 wants at least one second).
pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227 §1.1, DEFEND_INTERVAL: the least time between two defences of an address.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// How many addresses are defended on one link within [`DEFEND_INTERVAL`].
const DISPUTES: usize = 16;

/// How far an own address has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not started yet.
    New,
    /// IPv6: being tested for uniqueness, not to be used (RFC 4862 §5.4).
    Tentative,
    /// In use, with so many announcements still to come.
    Assigned(u8),
    /// IPv6: another station has it; not used (RFC 4862 §5.4.5).
    Duplicate,
}

/// One own address.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub prefix: IpPrefix,
    pub standing: Standing,
    /// When its next announcement, or the end of its test, is due.
    deadline: Time,
}

impl Own {
    /// Whether packets may be sent from it and are taken to it.
    pub fn usable(&self) -> bool {
        matches!(self.standing, Standing::Assigned(_))
    }
}

/// What an own address wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Ask whether anybody has it.
    Test(Ipv6Addr),
    /// Tell everybody that it is ours.
    Announce(IpAddr),
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub id: InterfaceId,
    pub name: String,
    pub mac: MacAddr,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
    pub own: Vec<Own>,
    /// Whether frames pass. If not, its addresses rest: nothing is tested, nothing announced.
    pub up: bool,
    /// The addresses defended within [`DEFEND_INTERVAL`], and when.
    defended: Vec<(IpAddr, Time)>,
}

impl Link {
    /// The interface, its link up, its addresses not started yet. It has a link-local address if it has any IPv6 address.
    pub fn new(id: InterfaceId, spec: &InterfaceSpec) -> Self {
        let mut prefixes = spec.addresses.clone();
        let is_link_local = |prefix: &IpPrefix| matches!(prefix.address, IpAddr::V6(a) if a.is_unicast_link_local());
        if prefixes.iter().any(|prefix| prefix.address.is_ipv6()) && !prefixes.iter().any(is_link_local) {
            prefixes.push(IpPrefix { address: link_local(spec.mac).into(), len: 64 });
        }
        let new = |prefix| Own { prefix, standing: Standing::New, deadline: Time::NEVER };
        Link {
            id,
            name: spec.name.clone(),
            mac: spec.mac,
            mtu: usize::from(spec.mtu),
            own: prefixes.into_iter().map(new).collect(),
            up: true,
            defended: Vec::new(),
        }
    }

    /// Takes over what the same link has reached under the plan before; addresses that are new begin at `now`. If the link is
    /// down its addresses rest; if it has come up, they are brought up again.
    pub fn continue_from(&mut self, before: Option<&Link>, now: Time) {
        for own in &mut self.own {
            let known = before.and_then(|link| link.own.iter().find(|it| it.prefix.address == own.prefix.address));
            match known {
                Some(known) => (own.standing, own.deadline) = (known.standing, known.deadline),
                None => own.deadline = now,
            }
        }
        self.defended = before.map(|link| link.defended.clone()).unwrap_or_default();
        match (before.is_none_or(|link| link.up), self.up) {
            (_, false) => self.rest(),
            (false, true) => self.begin(now),
            (true, true) => {}
        }
    }

    /// Brings the addresses up, if the link is: IPv4 at once, IPv6 after its test.
    pub fn start(&mut self, now: Time) -> Vec<Task> {
        if self.up {
            self.begin(now);
        }
        self.poll(now)
    }

    /// An address that has been in use before the link went down is only announced anew; the others are tested.
    fn begin(&mut self, now: Time) {
        for own in &mut self.own {
            own.standing = if own.usable() { Standing::Assigned(ANNOUNCE_NUM) } else { Standing::New };
            own.deadline = now;
        }
    }

    /// Puts the addresses to rest. A test under way is of no worth, nor is one that failed: who had the address may be gone
    /// when the link is back.
    fn rest(&mut self) {
        for own in &mut self.own {
            own.standing = if own.usable() { Standing::Assigned(0) } else { Standing::New };
            own.deadline = Time::NEVER;
        }
    }

    /// What is due now.
    pub fn poll(&mut self, now: Time) -> Vec<Task> {
        let mut tasks = Vec::new();
        for own in self.own.iter_mut().filter(|own| own.deadline <= now) {
            let announcements = match (own.standing, own.prefix.address) {
                (Standing::New, IpAddr::V6(address)) => {
                    own.standing = Standing::Tentative;
                    own.deadline = now + RETRANS_TIMER;
                    tasks.push(Task::Test(address));
                    continue;
                }
                (Standing::New | Standing::Tentative, _) => ANNOUNCE_NUM,
                (Standing::Assigned(left), _) => left,
                (Standing::Duplicate, _) => 0,
            };
            let left = announcements.saturating_sub(1);
            if announcements > 0 {
                tasks.push(Task::Announce(own.prefix.address));
                own.standing = Standing::Assigned(left);
            }
            own.deadline = if left > 0 { now + ANNOUNCE_INTERVAL } else { Time::NEVER };
        }
        tasks
    }

    /// When [`Link::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.own.iter().map(|own| own.deadline).min().filter(|&deadline| deadline < Time::NEVER)
    }

    /// Whether this is an address of the interface that is in use.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.own.iter().any(|own| own.usable() && own.prefix.address == address)
    }

    /// The address, if it is being tested.
    pub fn tentative(&mut self, address: IpAddr) -> Option<&mut Own> {
        self.own.iter_mut().find(|own| own.standing == Standing::Tentative && own.prefix.address == address)
    }

    /// Whether a station with this address can be on the link: it is in one of its prefixes, and not as the prefix itself
    /// or its broadcast address.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.own.iter().any(|own| own.prefix.contains(address) && !is_edge(own.prefix, address))
    }

    /// Whether this is the broadcast address, or the old form of it, of one of the link's prefixes.
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        self.own.iter().any(|own| own.prefix.contains(address.into()) && is_edge(own.prefix, address.into()))
    }

    /// The address to ask for `target` from: for IPv4 that of the same prefix, or the first; for IPv6 the link-local one, or
    /// any other while that is not usable.
    pub fn source_for(&self, target: IpAddr) -> Option<IpAddr> {
        let mut usable = self.own.iter().filter(|own| own.usable() && own.prefix.address.is_ipv4() == target.is_ipv4());
        let best = |own: &&Own| match own.prefix.address {
            IpAddr::V4(_) => own.prefix.contains(target),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        usable.clone().find(best).or_else(|| usable.next()).map(|own| own.prefix.address)
    }

    /// The link-local address, once it is in use.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.own.iter().filter(|own| own.usable()).find_map(|own| match own.prefix.address {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        })
    }

    /// Whether a disputed address may be defended now, or was defended too lately. Notes the defence.
    pub fn may_defend(&mut self, address: IpAddr, now: Time) -> bool {
        self.defended.retain(|&(_, at)| now.since(at) < DEFEND_INTERVAL);
        let may = self.defended.len() < DISPUTES && !self.defended.iter().any(|&(disputed, _)| disputed == address);
        if may {
            self.defended.push((address, now));
        }
        may
    }
}

/// Whether `address` is an IPv4 prefix' first or last, which no station has (RFC 3021: but for /31 and /32).
fn is_edge(prefix: IpPrefix, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) if prefix.len < 31 => {
            let host = address.to_bits() & (u32::MAX >> prefix.len);
            host == 0 || host == u32::MAX >> prefix.len
        }
        _ => false,
    }
}

/// The link-local IPv6 address of an Ethernet interface: fe80::/64 and the modified EUI-64 of its address (RFC 4291 §2.5.6
/// and appendix A).
#[must_use]
pub const fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(u128::from_be_bytes(octets))
}
