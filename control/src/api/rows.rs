//! From what the gateway holds to what goes over the socket: indices become names, bits become addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dataplane::counters::{self, Counter, Counters, Drop};
use dataplane::plan::{InterfaceId, IpPrefix, NextHop, Plan, PoolSpec, ZoneId};
use dataplane::pool::Proto;
use dataplane::session::walk::{MappingRow, SessionRow};
use dataplane::steer::{ShardId, WorkerId};
use dataplane::trace::RuleRef;

use super::request::{Neighbours, View};
use super::types::{
    DropReason, Interface, Mapping, Neighbour, Pool, PoolAddress, Prefix, Route, Session, Shard, Status, Worker,
};
use crate::host;

/// Rows that are made one by one, as they are sent.
type Rows<'a, R> = Box<dyn Iterator<Item = R> + Send + 'a>;

impl View {
    /// The sum of a counter over all workers.
    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        counters::sum(self.workers.iter().map(|(_, counters)| counter(counters)))
    }

    fn is_up(&self, port: usize) -> bool {
        self.sample.ports.get(port).is_some_and(|port| port.up)
    }
}

/// The sum of an array of counters.
fn total(counters: &[Counter]) -> u64 {
    counters::sum(counters)
}

pub(super) fn status(view: &View) -> Status {
    let spec = &view.plan.spec;
    let workers = view.workers.len();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: view.uptime.as_secs(),
        ready: view.ready,
        generation: spec.generation,
        config: view.files.iter().map(|file| file.display().to_string()).collect(),
        workers,
        ports: spec.ports.len(),
        ports_up: (0..spec.ports.len()).filter(|&port| view.is_up(port)).count(),
        sessions: counters::sum(view.workers.iter().flat_map(|(_, counters)| &counters.sessions)),
        session_limit: spec.limits.sessions.into(),
        mappings: counters::sum(view.workers.iter().flat_map(|(_, counters)| &counters.mappings)),
        mapping_limit: spec.limits.mappings.into(),
    }
}

fn proto(proto: Proto) -> String {
    match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Icmp => "icmp",
    }
    .to_owned()
}

/// The kind of a rule, and its name.
fn rule(rule: RuleRef, plan: &Plan) -> (&'static str, String) {
    let spec = &plan.spec;
    let (kind, name) = match rule {
        RuleRef::None => ("", None),
        RuleRef::Crossing(index) => ("siit", spec.crossings.get(usize::from(index)).map(|it| &it.name)),
        RuleRef::Prefix(index) => ("prefix", spec.prefixes.get(usize::from(index)).map(|rule| &rule.name)),
        RuleRef::Nat44(index) => ("rule", spec.nat44.get(usize::from(index)).map(|rule| &rule.name)),
        RuleRef::Forward(index) => ("forward", spec.forwards.get(usize::from(index)).map(|entry| &entry.name)),
        RuleRef::Static(index) => ("static", spec.static_nat.get(usize::from(index)).map(|entry| &entry.name)),
    };
    (kind, name.cloned().unwrap_or_default())
}

pub(super) fn session(row: &SessionRow, plan: &Plan) -> Session {
    let (kind, rule) = rule(row.rule, plan);
    Session {
        proto: proto(row.proto),
        state: row.class.labels().1.to_owned(),
        inside: Ipv4Addr::from_bits(row.inside.source),
        inside_port: row.inside.source_port,
        external: Ipv4Addr::from_bits(row.outside.source),
        external_port: row.outside.source_port,
        remote: Ipv4Addr::from_bits(row.outside.destination),
        remote_port: row.outside.destination_port,
        opened: if row.opened_inside { "inside" } else { "outside" }.to_owned(),
        kind: kind.to_owned(),
        rule,
        expires_seconds: row.remaining.as_secs(),
        packets_out: row.counts.map(|it| it.packets[0]),
        bytes_out: row.counts.map(|it| it.bytes[0]),
        packets_in: row.counts.map(|it| it.packets[1]),
        bytes_in: row.counts.map(|it| it.bytes[1]),
    }
}

pub(super) fn mapping(row: &MappingRow, plan: &Plan) -> Mapping {
    Mapping {
        proto: proto(row.proto),
        inside: Ipv4Addr::from_bits(row.inside),
        inside_port: row.inside_port,
        external: Ipv4Addr::from_bits(row.external),
        external_port: row.external_port,
        sessions: row.sessions,
        held_down: row.sessions == 0,
        rule: rule(row.rule, plan).1,
    }
}

/// The pools that the configuration has now, with the external addresses that each allocates from.
fn with_addresses(view: &View) -> impl Iterator<Item = (&PoolSpec, &[u32])> + Send {
    let pools = view.plan.spec.pools.iter().zip(&view.plan.pools);
    pools.map(|(spec, externals)| (spec, externals.as_slice())).filter(|(spec, _)| !spec.name.is_empty())
}

fn pool_address(view: &View, pool: &PoolSpec, external: u32) -> PoolAddress {
    let there = view.plan.externals.get(external as usize);
    let [tcp_used, udp_used, icmp_used] = view.leases.ports_used(external).map(u64::from);
    let (free, leasable) = view.leases.free_blocks(external);
    PoolAddress {
        pool: pool.name.clone(),
        address: Ipv4Addr::from_bits(there.map_or(0, |external| external.address)),
        draining: there.is_some_and(|external| external.draining),
        tcp_used,
        udp_used,
        icmp_used,
        blocks: leasable.into(),
        // Read while others lease: never below zero.
        blocks_used: leasable.saturating_sub(free).into(),
        blocks_free: free.into(),
    }
}

pub(super) fn pool_addresses(view: &View) -> Rows<'_, PoolAddress> {
    let (plan, pools) = (&view.plan, &view.plan.spec.pools);
    let here = with_addresses(view)
        .flat_map(move |(pool, externals)| externals.iter().map(move |&external| pool_address(view, pool, external)));
    let draining = plan.externals.iter().zip(0..).filter(|(external, _)| external.draining);
    let draining = draining.filter_map(move |(external, id)| {
        let pool = pools.get(usize::from(external.pool?.0))?;
        Some(pool_address(view, pool, id))
    });
    Box::new(here.chain(draining))
}

pub(super) fn pools(view: &View) -> Rows<'_, Pool> {
    Box::new(with_addresses(view).map(move |(spec, externals)| {
        let addresses = externals.len() as u64;
        // Port 0 is never given out.
        let each = u64::from(*spec.ports.end()).saturating_sub(u64::from((*spec.ports.start()).max(1))) + 1;
        let mut pool = Pool {
            pool: spec.name.clone(),
            addresses,
            ports: each * addresses,
            tcp_used: 0,
            udp_used: 0,
            icmp_used: 0,
            blocks: 0,
            blocks_used: 0,
            blocks_free: 0,
        };
        for &external in externals {
            let address = pool_address(view, spec, external);
            pool.tcp_used += address.tcp_used;
            pool.udp_used += address.udp_used;
            pool.icmp_used += address.icmp_used;
            pool.blocks += address.blocks;
            pool.blocks_used += address.blocks_used;
            pool.blocks_free += address.blocks_free;
        }
        pool
    }))
}

pub(super) fn interfaces(view: &View) -> Rows<'_, Interface> {
    let spec = &view.plan.spec;
    let there = spec.interfaces.iter().enumerate().filter(|(_, interface)| !interface.name.is_empty());
    Box::new(there.map(move |(index, interface)| {
        let port = usize::from(interface.port.0);
        let sum = |counter: fn(&dataplane::counters::InterfaceCounters) -> &Counter| {
            let counts = view.workers.iter().filter_map(|(_, counters)| counters.interfaces.get(index));
            counts.map(|counts| counter(counts).get()).sum()
        };
        Interface {
            interface: interface.name.clone(),
            port: spec.ports.get(port).map(|port| port.name.clone()).unwrap_or_default(),
            vlan: interface.vlan,
            outer_vlan: interface.outer_vlan,
            zone: spec.zones.get(usize::from(interface.zone.0)).cloned().unwrap_or_default(),
            mac: interface.mac.to_string(),
            mtu: interface.mtu,
            addresses: interface.addresses.iter().map(IpPrefix::to_string).collect(),
            up: view.is_up(port),
            received_packets: sum(|c| &c.received_packets),
            received_bytes: sum(|c| &c.received_bytes),
            transmitted_packets: sum(|c| &c.transmitted_packets),
            transmitted_bytes: sum(|c| &c.transmitted_bytes),
        }
    }))
}

fn interface_name(plan: &Plan, id: InterfaceId) -> String {
    plan.interface(id).map(|interface| interface.name.clone()).unwrap_or_default()
}

pub(super) fn neighbour(neighbour: &host::Neighbour, among: &Neighbours) -> Neighbour {
    Neighbour {
        interface: interface_name(&among.plan, neighbour.interface),
        address: neighbour.address,
        mac: neighbour.mac.map(|mac| mac.to_string()),
        state: neighbour.state.name().to_owned(),
        age_seconds: among.now.since(neighbour.since).as_secs(),
    }
}

pub(super) fn routes(view: &View) -> Rows<'_, Route> {
    let plan = &view.plan;
    let withdrawn = move |id| plan.interface(id).is_some_and(|it| plan.spec.links_down.contains(&it.port));
    let on = move |to: IpPrefix, kind: &str, via: Option<IpAddr>, id| Route {
        to: to.to_string(),
        kind: kind.to_owned(),
        via,
        interface: Some(interface_name(plan, id)),
        withdrawn: withdrawn(id),
    };
    let interfaces = plan.spec.interfaces.iter().zip((0..).map(InterfaceId));
    let connected = interfaces.flat_map(move |(interface, id)| {
        // Several addresses of one prefix are on one link.
        let networks: BTreeSet<_> = interface.addresses.iter().map(|it| (it.network().address, it.len)).collect();
        networks.into_iter().map(move |(address, len)| on(IpPrefix { address, len }, "connected", None, id))
    });
    let routes = plan.spec.routes.iter().map(move |route| match route.next_hop {
        NextHop::Via(router, id) => on(route.prefix, "static", Some(router), id),
        NextHop::OnLink(id) => on(route.prefix, "static", None, id),
        NextHop::Unreachable => Route {
            to: route.prefix.to_string(),
            kind: "unreachable".to_owned(),
            via: None,
            interface: None,
            withdrawn: false,
        },
    });
    Box::new(connected.chain(routes))
}

/// What a worker has done since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    busy_cycles: u64,
    packets: u64,
}

/// What each worker has done.
pub(super) fn done(view: &View) -> Vec<Done> {
    let of = |counters: &Counters| Done { busy_cycles: counters.busy_cycles.get(), packets: counters.received.get() };
    view.workers.iter().map(|(_, counters)| of(counters)).collect()
}

/// The workers; `before` is what [`done`] said this `time` ago.
#[expect(clippy::cast_precision_loss, reason = "a quarter of a second's cycles and packets")]
pub(super) fn workers<'a>(view: &'a View, before: &[Done], time: Duration) -> Rows<'a, Worker> {
    let pairs = done(view).into_iter().zip(before.to_vec());
    Box::new(view.workers.iter().zip(pairs).enumerate().map(move |(worker, ((core, counters), (now, before)))| {
        let mempool = view.sample.mempools.get(worker).copied().unwrap_or_default();
        let (cycles, packets) = (now.busy_cycles - before.busy_cycles, now.packets - before.packets);
        let in_time = counters.cycles_per_second.get() as f64 * time.as_secs_f64();
        let busy = if in_time > 0.0 { (cycles as f64 / in_time).min(1.0) } else { 0.0 };
        Worker {
            worker,
            core: *core,
            // In thousandths: more is noise.
            busy: (busy * 1000.0).round() / 1000.0,
            cycles_per_packet: cycles.checked_div(packets),
            poll_cycles: counters.poll_cycles.get(),
            busy_cycles: counters.busy_cycles.get(),
            polls: counters.polls.get(),
            empty_polls: counters.empty_polls.get(),
            received: counters.received.get(),
            transmitted: counters.transmitted.get(),
            dropped: total(&counters.dropped),
            // Few: a worker's number is below 64.
            shards: u8::try_from(worker).map_or(0, |worker| view.map.shards_of(WorkerId(worker)).len()),
            handed_over: total(&counters.handed_over),
            taken_over: counters.taken_over.get(),
            buffers: mempool.size,
            buffers_free: mempool.free,
        }
    }))
}

pub(super) fn shards(view: &View) -> Rows<'_, Shard> {
    Box::new(ShardId::all().map(|shard| Shard { shard: shard.0, worker: view.map.owner(shard).0 }))
}

pub(super) fn prefixes(view: &View) -> Rows<'_, Prefix> {
    let zone = |id: ZoneId| view.plan.spec.zones.get(usize::from(id.0)).cloned().unwrap_or_default();
    let rules = view.plan.spec.prefixes.iter().enumerate();
    Box::new(rules.map(move |(at, rule)| Prefix {
        rule: rule.full_name(),
        from: zone(rule.from),
        to: zone(rule.to),
        inside: rule.inside.to_string(),
        outside: rule.outside.to_string(),
        set: view.renumbered.get(at).copied().unwrap_or(false),
    }))
}

pub(super) fn stats(view: &View) -> Rows<'_, DropReason> {
    Box::new(Drop::ALL.iter().map(|&reason| DropReason {
        function: reason.function().to_owned(),
        reason: reason.name().to_owned(),
        packets: view.sum(|c| &c.dropped[reason as usize]),
        meaning: reason.explain().to_owned(),
        advice: reason.advice().to_owned(),
    }))
}
