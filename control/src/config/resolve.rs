//! From the file as written to a consistent [`Config`]: names become indices, defaults are filled in, and everything
//! that contradicts itself is collected as a [`Problem`].

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::plan::{
    EXTERNALS_MAX, Filtering, ForwardProtocol, IcmpPolicy, InterfaceId, InterfaceSpec, IpPrefix, Limits, MacAddr,
    MssClamp, Nat44Rule, NextHop, Plan, PoolId, PoolSpec, Pooling, PortForward, PortId, PortSpec, RouteSpec, Spec,
    StaticNat, Timers, ZoneId,
};

use super::address::{Claim, bounds, edge_of, is_host, is_link_local, overlapping, v4_bounds};
use super::error::{Problem, suggest};
use super::file::{self, File, Profile};
use super::text::{Endpoint, Listen, Name, Pci, Size, Table, Text, Vdev};
use super::{Boot, Config, Control, Cpu, DEFAULT_SOCKET, Device, Memory, Metrics, Poll, Port, written};

/// The version of the file's format that this program reads.
const VERSION: u32 = 1;
/// Workers that the data plane can run.
const WORKERS_MAX: usize = 1;
/// Ports: DPDK's RTE_MAX_ETHPORTS as Debian builds it.
const PORTS_MAX: usize = 32;
/// Interfaces.
const INTERFACES_MAX: usize = 4096;
/// Zones: what [`ZoneId`] can number.
const ZONES_MAX: usize = 256;
/// Pool addresses: static entries' own addresses count too, but the plan's compiler sees to them.
const POOL_ADDRESSES_MAX: u64 = EXTERNALS_MAX as u64;
/// The largest MTU: a jumbo frame as most devices take it.
const MTU_MAX: u16 = 9000;
/// The smallest MTU of IPv4 (RFC 791 §3.2), in bytes.
const MTU_MIN_V4: u16 = 68;
/// The smallest MTU of IPv6 (RFC 8200 §5), in bytes.
const MTU_MIN_V6: u16 = 1280;
/// The smallest segment size worth clamping to, in bytes: the default of RFC 9293 §3.7.1.
const MSS_MIN: u16 = 536;
/// What a packet buffer takes in all, in bytes: data room, headroom, descriptor and the pool's share, rounded up.
const BUFFER_BYTES: u64 = 2560;
/// Buffers per worker beyond those that wait in descriptor rings: bursts, held packets, packets for the host.
const BUFFERS_SPARE: u32 = 2048;
/// Default port number of the metrics.
const METRICS_PORT: u16 = 17644;
/// The longest idle time: longer is a mistake of units.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Gives the file its meaning.
pub(super) fn resolve(file: File, values: serde_yaml::Value) -> Result<Config, Vec<Problem>> {
    if file.version.0 != VERSION {
        let message = format!("{} is not a version that this program reads; write {VERSION}", file.version.0);
        return Err(vec![Problem { position: None, key: "version".to_owned(), message }]);
    }
    let mut resolver = Resolver::default();
    let r = &mut resolver;
    let ports = r.ports(&file.ports);
    let boot = r.boot(&file.boot, &ports);
    r.interfaces(&file.interfaces, &ports);
    r.routes(&file.routes);
    r.pools(&file.pools);
    r.rules(&file.nat44.rules);
    r.statics(&file.nat44.statics);
    r.forwards(&file.nat44.forwards);
    r.timers(&file.timers);
    r.icmp(&file.icmp);
    let control = Control {
        socket: file.control.socket.as_ref().map_or_else(|| Some(DEFAULT_SOCKET.into()), |Text(path)| path.0.clone()),
        group: file.control.group.clone(),
    };
    let listen = file.metrics.listen.map_or(Some(([127, 0, 0, 1], METRICS_PORT).into()), |Text(Listen(listen))| listen);
    if resolver.problems.is_empty()
        && let Err(error) = Plan::compile(resolver.spec.clone())
    {
        resolver.problem("", format_args!("the data plane cannot use this: {error}; remove or shrink what it names"));
    }
    if resolver.problems.is_empty() {
        let metrics = Metrics { listen };
        Ok(Config { files: Vec::new(), boot, ports, metrics, control, spec: resolver.spec, values })
    } else {
        Err(resolver.problems)
    }
}

/// What has been resolved, and what is wrong. After a problem it goes on with a stand-in, only to find further ones.
#[derive(Default)]
struct Resolver {
    spec: Spec,
    problems: Vec<Problem>,
}

impl Resolver {
    fn problem(&mut self, key: impl Display, message: impl Display) {
        self.problems.push(Problem { position: None, key: key.to_string(), message: message.to_string() });
    }

    /// The index of `name` among `known`, or a problem at `key`.
    fn find<'a>(
        &mut self,
        key: impl Display,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<usize> {
        let found = known.clone().position(|other| other == name);
        if found.is_none() {
            let remedy = match suggest(name, known.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => match known.collect::<Vec<_>>() {
                    names if names.is_empty() => format!("the file has no {kind} at all: add one"),
                    names => format!("the file has {}", names.join(", ")),
                },
            };
            self.problem(key, format_args!("no {kind} is called \"{name}\"; {remedy}"));
        }
        found
    }

    fn interface(&mut self, key: impl Display, name: &str) -> Option<InterfaceId> {
        let names: Vec<String> = self.spec.interfaces.iter().map(|interface| interface.name.clone()).collect();
        self.find(key, "interface", name, names.iter().map(String::as_str)).map(|index| InterfaceId(id(index)))
    }

    fn zone(&mut self, key: impl Display, name: &str) -> Option<ZoneId> {
        let zones = self.spec.zones.clone();
        let index = self.find(key, "zone", name, zones.iter().map(String::as_str))?;
        u8::try_from(index).ok().map(ZoneId)
    }

    fn ports(&mut self, table: &Table<Name, file::Port>) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        self.limit("ports", table.0.len(), PORTS_MAX, "ports");
        if table.0.is_empty() {
            self.problem("ports", "there is none; name at least one device");
        }
        for (Name(name), port) in &table.0 {
            let key = format!("ports.{name}");
            let device = match (&port.device, &port.pci) {
                (Some(Text(Vdev(vdev))), None) => Device::Vdev(vdev.clone()),
                (None, Some(Text(Pci(pci)))) => Device::Pci(pci.clone()),
                (given, _) => {
                    let what = if given.is_some() { "both `device` and `pci` are given" } else { "it names no device" };
                    self.problem(
                        &key,
                        format_args!("{what}; write either `device: \"net_...\"` or `pci: \"0000:03:00.0\"`"),
                    );
                    Device::Vdev(format!("net_null{name}"))
                }
            };
            if let Some(other) = ports.iter().find(|other| device_name(&other.device) == device_name(&device)) {
                let (device, other) = (device_name(&device), &other.name);
                self.problem(
                    &key,
                    format_args!(
                        "{device} is already the device of port \"{other}\"; a device makes one port (give \
                         virtual devices different numbers)"
                    ),
                );
            }
            let mut descriptors = |which: &str, given: Option<Text<u16>>| {
                let number = given.map_or(1024, |Text(number)| number);
                if !(64..=16_384).contains(&number) || !number.is_multiple_of(32) {
                    self.problem(
                        format_args!("{key}.{which}"),
                        format_args!(
                            "{number} is no size that devices take; write a multiple of 32 from 64 to 16384, \
                             such as 1024"
                        ),
                    );
                }
                number
            };
            let rx_descriptors = descriptors("rx-descriptors", port.rx_descriptors);
            let tx_descriptors = descriptors("tx-descriptors", port.tx_descriptors);
            self.spec.ports.push(PortSpec { name: name.clone() });
            ports.push(Port { name: name.clone(), device, rx_descriptors, tx_descriptors });
        }
        ports
    }

    fn boot(&mut self, boot: &file::Boot, ports: &[Port]) -> Boot {
        let workers: Vec<u16> = boot.cpu.workers.iter().map(|core| core.0).collect();
        for (i, core) in workers.iter().enumerate() {
            if workers[..i].contains(core) {
                self.problem(
                    format_args!("boot.cpu.workers[{i}]"),
                    format_args!("core {core} is named twice; each worker has a core of its own"),
                );
            }
        }
        if workers.len() > WORKERS_MAX {
            let key = "boot.cpu.workers";
            self.problem(
                key,
                format_args!(
                    "{} cores are named, but several workers come in a later version; name one core",
                    workers.len()
                ),
            );
        }
        let poll = boot.cpu.poll.map(|poll| poll.0);
        let control = boot.cpu.control.map(|core| core.0);
        if let Some(core) = control.filter(|core| poll == Some(Poll::Busy) && workers.contains(core)) {
            self.problem(
                "boot.cpu.control",
                format_args!(
                    "core {core} is a worker's, which leaves it nothing with `poll: busy`; name another core, \
                     or write `poll: adaptive`"
                ),
            );
        }

        let packets = boot.packets.map_or(16_384, |Text(packets)| packets);
        let rings: u32 = ports.iter().map(|port| u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors)).sum();
        let packets_min = rings + BUFFERS_SPARE;
        if packets < packets_min || packets > 4_194_304 {
            self.problem(
                "boot.packets",
                format_args!(
                    "{packets} buffers do not do: the ports' descriptors hold up to {rings}, and \
                     {BUFFERS_SPARE} more are needed; write a number from {packets_min} to 4194304"
                ),
            );
        }
        let size = boot.memory.size.map_or(256 << 20, |Text(Size(size))| size);
        let size_min = u64::from(packets) * BUFFER_BYTES * workers.len().max(1) as u64;
        if size < size_min {
            self.problem(
                "boot.memory.size",
                format_args!(
                    "{}M is too little for {packets} packets per worker; write at least {}M",
                    size >> 20,
                    (size_min >> 20) + 1
                ),
            );
        }

        let defaults = Limits::default();
        let mut table = |which: &str, given: Option<Text<u32>>, default: u32| {
            let number = given.map_or(default, |Text(number)| number);
            if !(64..=67_108_864).contains(&number) {
                let key = format_args!("boot.tables.{which}").to_string();
                self.problem(key, format_args!("{number} entries do not do; write a number from 64 to 67108864"));
            }
            number
        };
        self.spec.limits = Limits {
            sessions: table("sessions", boot.tables.sessions, defaults.sessions),
            mappings: table("mappings", boot.tables.mappings, defaults.mappings),
            neighbours: table("neighbours", boot.tables.neighbours, defaults.neighbours),
            ..defaults
        };
        let hugepages = boot.memory.hugepages.is_some_and(|Text(on)| on);
        Boot { cpu: Cpu { workers, control, poll }, memory: Memory { hugepages, size }, packets }
    }

    fn interfaces(&mut self, table: &Table<Name, file::Interface>, ports: &[Port]) {
        self.limit("interfaces", table.0.len(), INTERFACES_MAX, "interfaces");
        if table.0.is_empty() {
            self.problem("interfaces", "there is none; name at least one, with its port, zone and addresses");
        }
        for (Name(name), interface) in &table.0 {
            let key = format!("interfaces.{name}");
            let port = self.find(format_args!("{key}.port"), "port", &interface.port, ports.iter().map(|p| &*p.name));
            let port = PortId(port.map_or(u16::MAX, id));
            let vlan = interface.vlan.map(|Text(vlan)| vlan);
            if let Some(tag) = vlan.filter(|tag| !(1..=4094).contains(tag)) {
                self.problem(
                    format_args!("{key}.vlan"),
                    format_args!("{tag} is no 802.1Q tag; write one from 1 to 4094"),
                );
            }
            let outer_vlan = interface.outer_vlan.map(|Text(vlan)| vlan);
            if let Some(tag) = outer_vlan.filter(|tag| !(1..=4094).contains(tag)) {
                self.problem(
                    format_args!("{key}.outer-vlan"),
                    format_args!("{tag} is no 802.1ad tag; write one from 1 to 4094"),
                );
            }
            if outer_vlan.is_some() && vlan.is_none() {
                self.problem(
                    format_args!("{key}.outer-vlan"),
                    "there is no `vlan:` for it to be around; add the inner tag, or write this one as `vlan:`",
                );
            }
            let tags = (port, outer_vlan, vlan);
            let same = |other: &&InterfaceSpec| (other.port, other.outer_vlan, other.vlan) == tags;
            if let Some(other) = self.spec.interfaces.iter().find(|other| port.0 != u16::MAX && same(other)) {
                let what = match (outer_vlan, vlan) {
                    (Some(outer), Some(inner)) => format!("tag {inner} within {outer}"),
                    (_, Some(tag)) => format!("tag {tag}"),
                    (_, None) => "the untagged interface".to_owned(),
                };
                let message = format!(
                    "{what} of port \"{}\" already belongs to interface \"{}\"; give one of them another `vlan:`",
                    interface.port, other.name
                );
                self.problem(&key, message);
            }
            let zone = self.zone_of(&key, &interface.zone.0);
            let addresses: Vec<IpPrefix> = interface.addresses.iter().map(|address| address.0).collect();
            self.own_addresses(&key, &addresses);
            let mtu = self.mtu(&key, interface.mtu, &addresses);
            let mss_clamp = interface.mss_clamp.map(|clamp| clamp.0).unwrap_or_default();
            if let MssClamp::Fixed(size) = mss_clamp {
                let most = mtu.saturating_sub(40).max(MSS_MIN);
                if !(MSS_MIN..=most).contains(&size) {
                    self.problem(
                        format_args!("{key}.mss-clamp"),
                        format_args!(
                            "{size} bytes do not do with an MTU of {mtu}; write off, from-mtu or a number from \
                             {MSS_MIN} to {most}"
                        ),
                    );
                }
            }
            let mut neighbours = Vec::new();
            for (&address, &Text(mac)) in &interface.neighbours.0 {
                let key = format!("{key}.neighbours.{address}");
                let on_link = addresses.iter().any(|own| own.contains(address)) || is_link_local(address);
                if !on_link {
                    let links = list(addresses.iter().map(|own| own.network()));
                    self.problem(
                        &key,
                        format_args!(
                            "{address} is on no prefix of this interface ({links}); add an address beside it, or \
                         remove it"
                        ),
                    );
                } else if addresses.iter().any(|own| own.address == address) {
                    self.problem(&key, format_args!("{address} is this interface's own; remove it"));
                }
                neighbours.push((address, mac));
            }
            self.spec.interfaces.push(InterfaceSpec {
                name: name.clone(),
                port,
                vlan,
                outer_vlan,
                zone,
                mac: interface.mac.map_or(MacAddr::default(), |Text(mac)| mac),
                addresses,
                mtu,
                neighbours,
                mss_clamp,
            });
        }
        self.overlapping_interfaces();
    }

    /// The zone of this name; zones come into being with the first interface that names them.
    fn zone_of(&mut self, key: &str, Name(name): &Name) -> ZoneId {
        let index = self.spec.zones.iter().position(|zone| zone == name).unwrap_or_else(|| {
            self.spec.zones.push(name.clone());
            self.spec.zones.len() - 1
        });
        if index == ZONES_MAX {
            self.problem(
                format_args!("{key}.zone"),
                format_args!("\"{name}\" is one zone too many; there may be {ZONES_MAX}"),
            );
        }
        ZoneId(u8::try_from(index).unwrap_or(u8::MAX))
    }

    fn mtu(&mut self, key: &str, given: Option<Text<u16>>, addresses: &[IpPrefix]) -> u16 {
        let mtu = given.map_or(1500, |Text(mtu)| mtu);
        let v6 = addresses.iter().any(|address| address.address.is_ipv6());
        let (least, why) = if v6 {
            (MTU_MIN_V6, "the interface has IPv6 addresses, RFC 8200 section 5")
        } else {
            (MTU_MIN_V4, "RFC 791 section 3.2")
        };
        if !(least..=MTU_MAX).contains(&mtu) {
            self.problem(
                format_args!("{key}.mtu"),
                format_args!("{mtu} bytes are out of range; write a number from {least} ({why}) to {MTU_MAX}"),
            );
        }
        mtu
    }

    fn own_addresses(&mut self, key: &str, addresses: &[IpPrefix]) {
        if addresses.is_empty() {
            self.problem(
                format_args!("{key}.addresses"),
                "there is none; give the interface at least one, such as 192.0.2.1/24",
            );
        }
        for (i, own) in addresses.iter().enumerate() {
            let key = format!("{key}.addresses[{i}]");
            if is_link_local(own.address) {
                self.problem(
                    &key,
                    format_args!(
                        "{own} is link-local, and that address follows from the port's Ethernet address; leave it out"
                    ),
                );
            } else if !is_host(own.address) {
                self.problem(
                    &key,
                    format_args!("{own} is no address of a host; write one that a single station can have"),
                );
            } else if let Some(which) = edge_of(own, own.address) {
                self.problem(
                    &key,
                    format_args!("{own} is the {which} address of {}; write one between", own.network()),
                );
            } else if addresses[..i].iter().any(|other| other.address == own.address) {
                self.problem(&key, format_args!("{own} is given twice; remove one of the two"));
            }
        }
    }

    /// There is one address space for all zones until realms exist: no two interfaces may share addresses (RFC 4787
    /// REQ-7 leaves it to us to survive an overlap or to prevent it).
    fn overlapping_interfaces(&mut self) {
        let mut claims = Vec::new();
        for (i, interface) in self.spec.interfaces.iter().enumerate() {
            for own in interface.addresses.iter().filter(|own| !is_link_local(own.address)) {
                let (first, last) = bounds(own);
                claims.push(Claim { first, last, owner: i });
            }
        }
        for (earlier, later) in overlapping(claims) {
            let [(earlier, earlier_link), (later, later_link)] = [earlier, later].map(|claim| {
                let interface = &self.spec.interfaces[claim.owner];
                let link =
                    interface.addresses.iter().map(|own| own.network()).find(|link| bounds(link).0 == claim.first);
                (interface.name.clone(), link.map(|link| link.to_string()).unwrap_or_default())
            });
            self.problem(
                format_args!("interfaces.{later}.addresses"),
                format_args!(
                    "{later_link} overlaps {earlier_link} of interface \"{earlier}\"; give them different prefixes \
                     (networks with equal addresses need realms, which come in a later version)"
                ),
            );
        }
    }

    fn routes(&mut self, routes: &[file::Route]) {
        for (i, route) in routes.iter().enumerate() {
            let key = format!("routes[{i}]");
            let prefix = route.to.0;
            if prefix.network() != prefix {
                let net = prefix.network();
                self.problem(
                    format_args!("{key}.to"),
                    format_args!("{prefix} has bits set after its length; write {net}"),
                );
            }
            if let Some(first) = routes[..i].iter().position(|other| other.to == route.to) {
                self.problem(
                    format_args!("{key}.to"),
                    format_args!("routes[{first}] leads to {prefix} already; remove one of the two"),
                );
            }
            let Some(next_hop) = self.next_hop(&key, route) else { continue };
            if let NextHop::Via(_, interface) | NextHop::OnLink(interface) = next_hop {
                self.route_hides_link(&key, prefix, interface);
            }
            self.spec.routes.push(RouteSpec { prefix: prefix.network(), next_hop });
        }
    }

    fn next_hop(&mut self, key: &str, route: &file::Route) -> Option<NextHop> {
        let interface = match &route.interface {
            Some(name) => Some(self.interface(format_args!("{key}.interface"), name)?),
            None => None,
        };
        let unreachable = route.unreachable.is_some_and(|Text(on)| on);
        match (route.via, interface) {
            (None, None) if unreachable => Some(NextHop::Unreachable),
            (Some(Text(via)), interface) if !unreachable => self.via(key, route.to.0, via, interface),
            (None, Some(interface)) if !unreachable => Some(NextHop::OnLink(interface)),
            _ => {
                self.problem(
                    key,
                    format_args!(
                        "the route to {} must lead to one thing; write `via:` with a router's address, or \
                         `interface:` alone for what is on the link, or `unreachable: true` alone",
                        route.to.0
                    ),
                );
                None
            }
        }
    }

    fn via(&mut self, key: &str, to: IpPrefix, via: IpAddr, interface: Option<InterfaceId>) -> Option<NextHop> {
        let key = format!("{key}.via");
        if via.is_ipv4() != to.address.is_ipv4() {
            self.problem(
                &key,
                format_args!("{via} and {to} are not of one address family; name a router of the family of {to}"),
            );
            return None;
        }
        if is_link_local(via) {
            let found = interface.map(|interface| NextHop::Via(via, interface));
            if found.is_none() {
                self.problem(
                    &key,
                    format_args!("{via} is link-local, so it may be on any interface; add `interface:`"),
                );
            }
            return found;
        }
        let connected = self.spec.interfaces.iter().enumerate().find(|(i, candidate)| {
            let named = interface.is_none_or(|InterfaceId(index)| usize::from(index) == *i);
            named && candidate.addresses.iter().any(|own| own.contains(via))
        });
        let Some((index, candidate)) = connected else {
            let links = list(self.links(interface));
            self.problem(&key, format_args!("{via} is on no connected prefix; name a router on one of {links}"));
            return None;
        };
        if candidate.addresses.iter().any(|own| own.address == via) {
            let name = candidate.name.clone();
            self.problem(
                &key,
                format_args!(
                    "{via} is the gateway's own address on interface \"{name}\"; name the router at the other end"
                ),
            );
            return None;
        }
        Some(NextHop::Via(via, InterfaceId(id(index))))
    }

    /// The connected prefixes, of one interface or of all.
    fn links(&self, only: Option<InterfaceId>) -> Vec<IpPrefix> {
        let chosen = |i: usize| only.is_none_or(|InterfaceId(index)| usize::from(index) == i);
        let interfaces = self.spec.interfaces.iter().enumerate().filter(|(i, _)| chosen(*i));
        interfaces.flat_map(|(_, interface)| interface.addresses.iter().map(|own| own.network())).collect()
    }

    /// A route that takes a part of one zone's link into another zone: their addresses overlap (RFC 4787 REQ-7).
    fn route_hides_link(&mut self, key: &str, prefix: IpPrefix, InterfaceId(interface): InterfaceId) {
        let zone = self.spec.interfaces[usize::from(interface)].zone;
        let hidden = self.spec.interfaces.iter().find_map(|other| {
            let covers = |own: &&IpPrefix| own.len <= prefix.len && own.contains(prefix.address);
            let own = other.addresses.iter().find(covers).filter(|_| other.zone != zone)?;
            Some((own.network(), other.name.clone()))
        });
        if let Some((link, other)) = hidden {
            self.problem(
                format_args!("{key}.to"),
                format_args!(
                    "{prefix} is a part of {link} on interface \"{other}\", but the route leads into another \
                     zone; inside and outside may not share addresses (realms come in a later version)"
                ),
            );
        }
    }

    fn pools(&mut self, table: &Table<Name, file::Pool>) {
        let (mut claims, mut keys) = (Vec::new(), Vec::new());
        for (Name(name), pool) in &table.0 {
            let key = format!("pools.{name}");
            if pool.addresses.is_empty() {
                self.problem(
                    format_args!("{key}.addresses"),
                    "there is none; give the pool at least one, such as 203.0.113.1",
                );
            }
            for (i, Text(range)) in pool.addresses.iter().enumerate() {
                let key = format!("{key}.addresses[{i}]");
                self.pool_range(&key, range);
                claims.push(Claim { first: range.start().to_bits(), last: range.end().to_bits(), owner: keys.len() });
                keys.push(key);
            }
            self.spec.pools.push(PoolSpec {
                name: name.clone(),
                addresses: pool.addresses.iter().map(|range| range.0.clone()).collect(),
                ports: pool.ports.as_ref().map_or(1..=u16::MAX, |ports| ports.0.clone()),
                proxy_arp: pool.proxy_arp.is_none_or(|Text(on)| on),
                answer_echo: pool.answer_echo.is_none_or(|Text(on)| on),
            });
        }
        let total: u64 = claims.iter().map(|claim| u64::from(claim.last - claim.first) + 1).sum();
        if total > POOL_ADDRESSES_MAX {
            self.problem(
                "pools",
                format_args!(
                    "the pools have {total} addresses; at most {POOL_ADDRESSES_MAX} are possible, so make them \
                     smaller"
                ),
            );
        }
        for (one, two) in overlapping(claims) {
            let (first, last) = (one.first.max(two.first), one.last.min(two.last));
            let shared = span(&(Ipv4Addr::from_bits(first)..=Ipv4Addr::from_bits(last)));
            let [one, two] = [one, two].map(|claim| keys[claim.owner].as_str());
            self.problem(
                two,
                format_args!(
                    "{shared} is also in {one}; an address belongs to one pool, once, so remove it from one of them"
                ),
            );
        }
    }

    /// What a pool may not hold: addresses that no host can have, and those of routers and links.
    fn pool_range(&mut self, key: &str, range: &RangeInclusive<Ipv4Addr>) {
        if !is_host(IpAddr::V4(*range.start())) || !is_host(IpAddr::V4(*range.end())) {
            self.problem(
                key,
                format_args!(
                    "{} are no addresses of hosts; write addresses that are routed to this gateway",
                    span(range)
                ),
            );
        }
        let inside = |address: IpAddr| matches!(address, IpAddr::V4(address) if range.contains(&address));
        let router = self.spec.routes.iter().find_map(|route| match route.next_hop {
            NextHop::Via(via, _) if inside(via) => Some((via, route.prefix)),
            _ => None,
        });
        if let Some((via, to)) = router {
            self.problem(key, format_args!("{via} is the router of the route to {to}; leave it out of the pool"));
        }
        let edge =
            self.links(None).into_iter().filter(|link| link.address.is_ipv4() && link.len < 31).find_map(|link| {
                let (first, last) = v4_bounds(&link)?;
                [first, last].into_iter().find(|edge| range.contains(edge)).map(|edge| (edge, link))
            });
        if let Some((edge, link)) = edge {
            self.problem(
                key,
                format_args!(
                    "{edge} is the network or broadcast address of the connected prefix {link}; leave it out of the \
                 pool"
                ),
            );
        }
    }

    fn rules(&mut self, table: &Table<Name, file::Rule>) {
        for (Name(name), rule) in &table.0 {
            let key = format!("nat44.rules.{name}");
            let zones = self.zones(&key, &rule.from, &rule.to);
            let source = self.prefixes(&format!("{key}.source"), &rule.source);
            let destination = self.prefixes(&format!("{key}.destination"), &rule.destination);
            let pools: Vec<String> = self.spec.pools.iter().map(|pool| pool.name.clone()).collect();
            let pool = self.find(format_args!("{key}.pool"), "pool", &rule.pool, pools.iter().map(String::as_str));
            let Some(((from, to), pool)) = zones.zip(pool) else { continue };
            for range in self.spec.pools[pool].addresses.clone() {
                self.external_not_inside(&format!("{key}.pool"), from, &range);
            }
            let profile = rule.profile.map(|profile| profile.0).unwrap_or_default();
            let filtering = match profile {
                Profile::Default => Filtering::AddressPortDependent,
                Profile::Cgn => Filtering::EndpointIndependent,
            };
            self.spec.nat44.push(Nat44Rule {
                name: name.clone(),
                from,
                to,
                source,
                destination,
                pool: PoolId(id(pool)),
                filtering: rule.filtering.unwrap_or_default().or(filtering),
                pooling: rule.pooling.map_or(Pooling::Paired, |pooling| pooling.0),
                port_preservation: rule.port_preservation.is_none_or(|Text(on)| on),
                port_parity: rule.port_parity.is_none_or(|Text(on)| on),
                inbound_refresh: rule.inbound_refresh.is_none_or(|Text(on)| on),
                mid_stream: rule.mid_stream.map(|Text(choice)| choice).unwrap_or_default(),
            });
        }
    }

    /// The two zones of a translation.
    fn zones(&mut self, key: &str, from: &str, to: &str) -> Option<(ZoneId, ZoneId)> {
        let (one, other) = (self.zone(format_args!("{key}.from"), from), self.zone(format_args!("{key}.to"), to));
        let (one, other) = (one?, other?);
        if one == other {
            self.problem(
                format_args!("{key}.to"),
                format_args!(
                    "\"{to}\" is also the zone that it comes from; a translation has an inside and an outside, so name \
                     two zones"
                ),
            );
            return None;
        }
        Some((one, other))
    }

    fn prefixes(&mut self, key: &str, prefixes: &[Text<IpPrefix>]) -> Vec<IpPrefix> {
        for (i, Text(prefix)) in prefixes.iter().enumerate() {
            let key = format!("{key}[{i}]");
            if prefix.address.is_ipv6() {
                self.problem(&key, format_args!("{prefix} is IPv6, and NAT44 is for IPv4; remove it"));
            } else if prefix.network() != *prefix {
                let net = prefix.network();
                self.problem(&key, format_args!("{prefix} has bits set after its length; write {net}"));
            }
        }
        prefixes.iter().map(|prefix| prefix.0).collect()
    }

    /// External addresses may not be on a link of the inside zone: the two address spaces would overlap.
    fn external_not_inside(&mut self, key: &str, inside: ZoneId, range: &RangeInclusive<Ipv4Addr>) {
        let found = self.spec.interfaces.iter().filter(|interface| interface.zone == inside).find_map(|interface| {
            let shared = interface.addresses.iter().find_map(|own| {
                let (first, last) = v4_bounds(own)?;
                (first <= *range.end() && *range.start() <= last).then(|| own.network())
            })?;
            Some((shared, interface.name.clone()))
        });
        if let Some((link, name)) = found {
            let range = span(range);
            self.problem(
                key,
                format_args!(
                    "{range} overlaps {link} on the inside interface \"{name}\"; take external addresses from outside"
                ),
            );
        }
    }

    fn statics(&mut self, table: &Table<Name, file::Static>) {
        for (Name(name), entry) in &table.0 {
            let key = format!("nat44.static.{name}");
            let Some((outside_zone, inside_zone)) = self.zones(&key, &entry.from, &entry.to) else { continue };
            let (external, inside) = (entry.external.0, entry.inside.0);
            let external_key = format!("{key}.external");
            self.external(&external_key, inside_zone, external);
            if let Some(pool) = self.pool_with(external) {
                self.problem(
                    &external_key,
                    format_args!(
                        "{external} is in pool \"{pool}\"; take it out of the pool, for it belongs to {inside} alone"
                    ),
                );
            }
            if let Some(interface) = self.owner_of(IpAddr::V4(external)) {
                self.problem(
                    &external_key,
                    format_args!(
                        "{external} is the gateway's own address on interface \"{interface}\"; take another, or use \
                     `forwards` for single ports"
                    ),
                );
            }
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.external == external) {
                let message =
                    format!("{external} belongs to nat44.static.{} already; give each its own address", other.name);
                self.problem(&external_key, message);
            }
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.inside == inside) {
                let message =
                    format!("{inside} has an external address by nat44.static.{} already; a host has one", other.name);
                self.problem(format_args!("{key}.inside"), message);
            }
            self.inside_host(&format!("{key}.inside"), inside_zone, inside);
            self.spec.static_nat.push(StaticNat {
                name: name.clone(),
                inside_zone,
                outside_zone,
                external,
                inside,
                filtering: entry.filtering.map_or(Filtering::EndpointIndependent, |filtering| filtering.0),
            });
        }
    }

    fn forwards(&mut self, table: &Table<Name, file::Forward>) {
        let mut claims = Vec::new();
        for (owner, (Name(name), forward)) in table.0.iter().enumerate() {
            let key = format!("nat44.forwards.{name}");
            let Some((outside_zone, inside_zone)) = self.zones(&key, &forward.from, &forward.to) else { continue };
            let Text(Endpoint { address: external, ports: external_ports }) = &forward.external;
            let Text(Endpoint { address: inside, ports: inside_ports }) = &forward.inside;
            let protocol = forward.protocol.0;
            self.external(&format!("{key}.external"), inside_zone, *external);
            if let Some(other) = self.spec.static_nat.iter().find(|other| other.external == *external) {
                let message = format!(
                    "{external} belongs to nat44.static.{} with all its ports; take another address",
                    other.name
                );
                self.problem(format_args!("{key}.external"), message);
            }
            let inside_port = *inside_ports.start();
            let more = external_ports.end() - external_ports.start();
            if inside_ports.end() != inside_ports.start() && inside_ports.end() - inside_port != more {
                self.problem(
                    format_args!("{key}.inside"),
                    format_args!(
                        "{} and {} are not equally many ports; name the first inside port alone, the others \
                         follow in order",
                        span(inside_ports),
                        span(external_ports)
                    ),
                );
            } else if inside_port.checked_add(more).is_none() {
                self.problem(
                    format_args!("{key}.inside"),
                    format_args!(
                        "{} ports from {inside_port} on go beyond 65535; choose a lower inside port or fewer \
                         external ones",
                        u32::from(more) + 1
                    ),
                );
            }
            self.inside_host(&format!("{key}.inside"), inside_zone, *inside);
            let space = (protocol == ForwardProtocol::Udp, external.to_bits());
            claims.push(Claim { first: (space, *external_ports.start()), last: (space, *external_ports.end()), owner });
            self.spec.forwards.push(PortForward {
                name: name.clone(),
                inside_zone,
                outside_zone,
                protocol,
                external: *external,
                external_ports: external_ports.clone(),
                inside: *inside,
                inside_port,
                filtering: forward.filtering.map_or(Filtering::EndpointIndependent, |filtering| filtering.0),
            });
        }
        for (one, two) in overlapping(claims) {
            let ((udp, address), first) = one.first.max(two.first);
            let ports = span(&(first..=one.last.min(two.last).1));
            let (protocol, address) = (if udp { "udp" } else { "tcp" }, Ipv4Addr::from_bits(address));
            let [one, two] = [one, two].map(|claim| table.0.get_index(claim.owner).map_or("", |(Name(name), _)| name));
            self.problem(
                format_args!("nat44.forwards.{two}.external"),
                format_args!(
                    "{protocol} {address}:{ports} belongs to nat44.forwards.{one} already; choose other ports or \
                     another address"
                ),
            );
        }
    }

    /// What holds for every external address of a static entry.
    fn external(&mut self, key: &str, inside: ZoneId, external: Ipv4Addr) {
        if !is_host(IpAddr::V4(external)) {
            self.problem(
                key,
                format_args!("{external} is no address of a host; write one that is routed to this gateway"),
            );
        }
        self.external_not_inside(key, inside, &(external..=external));
        let router =
            self.spec.routes.iter().find(|route| matches!(route.next_hop, NextHop::Via(via, _) if via == external));
        if let Some(prefix) = router.map(|route| route.prefix) {
            self.problem(
                key,
                format_args!("{external} is the router of the route to {prefix}; take an address of your own"),
            );
        }
    }

    /// An inside host must be where its zone is, and not be the gateway.
    fn inside_host(&mut self, key: &str, zone: ZoneId, host: Ipv4Addr) {
        let host = IpAddr::V4(host);
        let zone_name = self.spec.zones.get(usize::from(zone.0)).cloned().unwrap_or_default();
        if let Some(interface) = self.owner_of(host) {
            self.problem(
                key,
                format_args!("{host} is the gateway's own address on interface \"{interface}\"; name a host behind it"),
            );
            return;
        }
        let leads_to = self.route_to(host).map(|InterfaceId(index)| &self.spec.interfaces[usize::from(index)]);
        match leads_to {
            Some(interface) if interface.zone == zone => {}
            Some(interface) => {
                let message = format!(
                    "{host} is reached by interface \"{}\", which is not in zone \"{zone_name}\"; name a host \
                     of that zone",
                    interface.name
                );
                self.problem(key, message);
            }
            None => self.problem(
                key,
                format_args!(
                    "no interface or route leads to {host}; name a host that zone \"{zone_name}\" reaches, or add a \
                 route"
                ),
            ),
        }
    }

    /// By longest prefix: the interface that leads to an address. None where nothing does.
    fn route_to(&self, address: IpAddr) -> Option<InterfaceId> {
        let connected = self
            .spec
            .interfaces
            .iter()
            .enumerate()
            .flat_map(|(i, interface)| interface.addresses.iter().map(move |own| (*own, Some(InterfaceId(id(i))))));
        let routed = self.spec.routes.iter().map(|route| match route.next_hop {
            NextHop::Via(_, interface) | NextHop::OnLink(interface) => (route.prefix, Some(interface)),
            NextHop::Unreachable => (route.prefix, None),
        });
        let matching = routed.chain(connected).filter(|(prefix, _)| prefix.contains(address));
        matching.max_by_key(|(prefix, _)| prefix.len).and_then(|(_, interface)| interface)
    }

    /// The interface that has this very address.
    fn owner_of(&self, address: IpAddr) -> Option<String> {
        let has = |interface: &&InterfaceSpec| interface.addresses.iter().any(|own| own.address == address);
        self.spec.interfaces.iter().find(has).map(|interface| interface.name.clone())
    }

    /// The pool that has this address.
    fn pool_with(&self, address: Ipv4Addr) -> Option<String> {
        let has = |pool: &&PoolSpec| pool.addresses.iter().any(|range| range.contains(&address));
        self.spec.pools.iter().find(has).map(|pool| pool.name.clone())
    }

    fn timers(&mut self, timers: &file::Timers) {
        let defaults = Timers::default();
        let mut timer = |key: &str, given: Option<Text<Duration>>, default: Duration, least: u64, why: &str| {
            let time = given.map_or(default, |Text(time)| time);
            let least = Duration::from_secs(least);
            if time < least || time > TIMER_MAX {
                let [time_text, least, most, default] = [time, least, TIMER_MAX, default].map(written);
                let message = if time > TIMER_MAX {
                    format!("{time_text} is too long; write at most {most} (default {default})")
                } else {
                    format!("{time_text} is too short{why}; write {least} or more (default {default})")
                };
                self.problem(format_args!("timers.{key}"), message);
            }
            time
        };
        const UDP: &str =
            " (RFC 4787 REQ-5 allows less than 120s only to ports 0 to 1023, which `timers.udp-ports` is for)";
        let udp = timer("udp", timers.udp, defaults.udp, 120, UDP);
        let tcp_opening = timer("tcp-opening", timers.tcp_opening, defaults.tcp_opening, 1, "");
        let tcp_established =
            timer("tcp-established", timers.tcp_established, defaults.tcp_established, 7440, " (RFC 5382 REQ-5)");
        let tcp_closing = timer("tcp-closing", timers.tcp_closing, defaults.tcp_closing, 240, " (RFC 5382 REQ-5)");
        let icmp = timer("icmp", timers.icmp, defaults.icmp, 60, " (RFC 5508 REQ-2)");
        let hold_down = timer("hold-down", timers.hold_down, defaults.hold_down, 0, "");
        let mut udp_ports = Vec::new();
        for (&port, &time) in &timers.udp_ports.0 {
            let key = format!("udp-ports.{port}");
            udp_ports.push((port, timer(&key, Some(time), defaults.udp, 1, "")));
        }
        for (port, _) in udp_ports.iter().filter(|(port, _)| *port > 1023) {
            self.problem(
                format_args!("timers.udp-ports.{port}"),
                format_args!(
                    "port {port} may not have a time of its own; RFC 4787 REQ-5 allows it for ports 0 to 1023, \
                     so remove it"
                ),
            );
        }
        self.spec.timers = Timers { udp, udp_ports, tcp_opening, tcp_established, tcp_closing, icmp, hold_down };
    }

    fn icmp(&mut self, icmp: &file::Icmp) {
        let defaults = IcmpPolicy::default();
        let mut number = |which: &str, given: Option<Text<u32>>, default: u32| {
            let number = given.map_or(default, |Text(number)| number);
            if !(1..=1_000_000).contains(&number) {
                self.problem(
                    format_args!("icmp.{which}"),
                    format_args!(
                        "{number} errors do not do; write a number from 1 to 1000000 (to send none on an \
                         interface, name it under `icmp.silent`)"
                    ),
                );
            }
            number
        };
        let rate = number("rate", icmp.rate, defaults.rate);
        let burst = number("burst", icmp.burst, defaults.burst);
        let silent = icmp.silent.iter().enumerate();
        let silent = silent.filter_map(|(i, name)| self.interface(format_args!("icmp.silent[{i}]"), name)).collect();
        self.spec.icmp = IcmpPolicy { rate, burst, silent };
    }

    fn limit(&mut self, key: &str, number: usize, most: usize, what: &str) {
        if number > most {
            self.problem(key, format_args!("there are {number} {what}; at most {most} are possible, so remove some"));
        }
    }
}

/// An index as the data plane numbers things. Every table is limited below what it can number.
fn id(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// The name that a device has in DPDK.
fn device_name(device: &Device) -> &str {
    match device {
        Device::Vdev(vdev) => vdev.split(',').next().unwrap_or(vdev),
        Device::Pci(pci) => pci,
    }
}

/// A range as a user would write it.
fn span<T: Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Things in a row, or that there is none.
fn list<T: Display>(things: impl IntoIterator<Item = T>) -> String {
    let things: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    if things.is_empty() { "none".to_owned() } else { things.join(", ") }
}
