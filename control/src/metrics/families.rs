//! The metrics themselves: name, meaning, labels, and where each value is read.

use std::time::SystemTime;

use dataplane::counters::{self, Counter, Counters, Drop, IcmpError, MappingFailure, SessionClass, Translator};
use dataplane::plan::PoolSpec;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use crate::host::{Ignored, NudState};

use super::{PortSample, State};

/// Protocols in the order in which mappings and ports are counted.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "icmp"];

/// The families of one scrape.
struct Page(Vec<MetricFamily>);

/// The values of the labels of a series, and its value.
type Series<const LABELS: usize> = ([String; LABELS], f64);

impl Page {
    fn family<const LABELS: usize>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        series: impl IntoIterator<Item = Series<LABELS>>,
    ) {
        let metric = |(values, value): Series<LABELS>| {
            let pair = |(name, value): (&str, String)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.to_owned());
                pair.set_value(value);
                pair
            };
            let mut metric = Metric::from_label(labels.into_iter().zip(values).map(pair).collect());
            if kind == MetricType::COUNTER {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        };
        let metrics: Vec<Metric> = series.into_iter().map(metric).collect();
        if metrics.is_empty() {
            return; // no pool, say: the text format has no empty families
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("turnpike_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn counter<const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        series: impl IntoIterator<Item = Series<LABELS>>,
    ) {
        self.family(MetricType::COUNTER, name, help, labels, series);
    }

    fn gauge<const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        series: impl IntoIterator<Item = Series<LABELS>>,
    ) {
        self.family(MetricType::GAUGE, name, help, labels, series);
    }
}

/// A metric's number. Prometheus counts in doubles: exact up to 2^53.
fn number(n: u64) -> f64 {
    n as f64
}

impl State {
    /// The sum of one counter over all workers.
    fn sum(&self, counter: impl Fn(&Counters) -> &Counter) -> f64 {
        number(counters::sum(self.workers.iter().map(|worker| counter(worker))))
    }

    /// A value of each worker, labelled by its index.
    fn by_worker(&self, value: impl Fn(&Counters) -> f64) -> Vec<Series<1>> {
        self.workers.iter().enumerate().map(|(index, worker)| ([index.to_string()], value(worker))).collect()
    }

    /// A counter of each interface, labelled by its name.
    fn by_interface(&self, counter: impl Fn(&Counters, usize) -> &Counter) -> Vec<Series<1>> {
        let interfaces = self.plan.spec.interfaces.iter().enumerate().filter(|(_, spec)| !spec.name.is_empty());
        interfaces.map(|(index, spec)| ([spec.name.clone()], self.sum(|c| counter(c, index)))).collect()
    }
}

/// Reads everything.
pub(super) fn collect(state: &State) -> Vec<MetricFamily> {
    let mut page = Page(Vec::new());
    process(&mut page, state);
    ports(&mut page, state);
    interfaces(&mut page, state);
    host(&mut page, state);
    packets(&mut page, state);
    workers(&mut page, state);
    sessions(&mut page, state);
    pools(&mut page, state);
    icmp(&mut page, state);
    page.0
}

fn process(page: &mut Page, state: &State) {
    let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let (loaded, loaded_at) = (f64::from(u8::from(state.reload.0)), since_epoch(state.reload.1));
    let started = since_epoch(state.started);
    page.gauge(
        "build_info",
        "Always 1; the program's version.",
        ["version"],
        [([env!("CARGO_PKG_VERSION").to_owned()], 1.0)],
    );
    page.gauge("start_time_seconds", "When the process started, since the Unix epoch.", [], [([], started)]);
    page.gauge(
        "config_last_reload_successful",
        "1 if the configuration was last read without error.",
        [],
        [([], loaded)],
    );
    let help = "When the configuration in use was read, since the Unix epoch.";
    page.gauge("config_last_reload_timestamp_seconds", help, [], [([], loaded_at)]);
    let ready = f64::from(u8::from(state.ready));
    page.gauge("ready", "1 while packets are forwarded; what /readyz says.", [], [([], ready)]);
}

fn ports(page: &mut Page, state: &State) {
    let sample = &state.sample;
    let names = || state.plan.spec.ports.iter().map(|port| port.name.clone());
    let samples: Vec<(String, PortSample)> =
        names().enumerate().map(|(i, name)| (name, sample.ports.get(i).cloned().unwrap_or_default())).collect();
    let each = |value: fn(&PortSample) -> u64| -> Vec<Series<1>> {
        samples.iter().map(|(name, port)| ([name.clone()], number(value(port)))).collect()
    };
    page.gauge("port_up", "1 if the port's link is up.", ["port"], each(|p| u64::from(p.up)));
    let help = "1 if the port's device was deleted; it takes a restart to have it back.";
    page.gauge("port_gone", help, ["port"], each(|p| u64::from(p.gone)));
    let help = "How often the port's link went down or came up.";
    page.counter("port_link_changes_total", help, ["port"], each(|p| p.link_changes));
    let help = "Frames that the device received.";
    page.counter("port_receive_packets_total", help, ["port"], each(|p| p.receive_packets));
    page.counter("port_receive_bytes_total", "Bytes that the device received.", ["port"], each(|p| p.receive_bytes));
    page.counter("port_transmit_packets_total", "Frames that the device sent.", ["port"], each(|p| p.transmit_packets));
    page.counter("port_transmit_bytes_total", "Bytes that the device sent.", ["port"], each(|p| p.transmit_bytes));
    let drops = samples.iter().flat_map(|(name, port)| {
        [
            ("imissed", port.missed),
            ("ierrors", port.receive_errors),
            ("nombuf", port.no_buffer),
            ("oerrors", port.transmit_errors),
        ]
        .map(|(reason, n)| ([name.clone(), reason.to_owned()], number(n)))
    });
    page.counter(
        "port_drops_total",
        "Frames that the device lost, before or behind the gateway.",
        ["port", "reason"],
        drops,
    );
    let pools = || sample.mempools.iter().enumerate();
    let help = "Packet buffers of a worker that are not in use.";
    page.gauge("mempool_free", help, ["worker"], pools().map(|(i, pool)| ([i.to_string()], number(pool.free))));
    let help = "Packet buffers of a worker.";
    page.gauge("mempool_size", help, ["worker"], pools().map(|(i, pool)| ([i.to_string()], number(pool.size))));
}

fn interfaces(page: &mut Page, state: &State) {
    let labels = ["interface"];
    let series = state.by_interface(|c, i| &c.interfaces[i].received_packets);
    page.counter("interface_receive_packets_total", "Frames received on an interface.", labels, series);
    let series = state.by_interface(|c, i| &c.interfaces[i].received_bytes);
    let help = "Bytes received on an interface, with the Ethernet header, without the FCS.";
    page.counter("interface_receive_bytes_total", help, labels, series);
    let series = state.by_interface(|c, i| &c.interfaces[i].transmitted_packets);
    let help = "Frames that the device of an interface accepted.";
    page.counter("interface_transmit_packets_total", help, labels, series);
    let series = state.by_interface(|c, i| &c.interfaces[i].transmitted_bytes);
    let help = "Bytes that the device of an interface accepted, with the Ethernet header, without the FCS.";
    page.counter("interface_transmit_bytes_total", help, labels, series);
    let series = state.by_interface(|c, i| &c.interfaces[i].checksum_samples);
    let help = "Packets received on an interface whose transport checksum was looked at: one in 61.";
    page.counter("checksum_samples_total", help, labels, series);
    let series = state.by_interface(|c, i| &c.interfaces[i].checksum_bad);
    let help = "Packets of this sample whose transport checksum was wrong.";
    page.counter("checksum_bad_total", help, labels, series);
}

fn host(page: &mut Page, state: &State) {
    let sample = &state.sample;
    let received = number(sample.host.received);
    page.counter("host_packets_total", "Frames that came to the gateway itself.", [], [([], received)]);
    let ignored = Ignored::ALL.iter().map(|&why| ([why.name().to_owned()], number(sample.host.ignored(why))));
    page.counter("host_ignored_packets_total", "Frames to the gateway itself without effect.", ["reason"], ignored);
    let neighbours = NudState::ALL.iter().zip(sample.neighbours);
    let neighbours = neighbours.map(|(nud, n)| ([nud.name().to_owned()], number(n)));
    page.gauge("neighbours", "Neighbours now, by state (RFC 4861).", ["state"], neighbours);
    let limit = number(state.plan.spec.limits.neighbours.into());
    page.gauge("neighbour_limit", "Neighbours that the table holds.", [], [([], limit)]);
    let overflows = number(sample.host.neighbour_overflows);
    let help = "Neighbours refused because the table was full, or half full of unanswered resolutions.";
    page.counter("neighbour_overflows_total", help, [], [([], overflows)]);
}

fn packets(page: &mut Page, state: &State) {
    let series = |of: [(&str, f64); 3]| of.map(|(name, n)| ([name.to_owned()], n));
    let entered = series([
        ("port", state.sum(|c| &c.received)),
        ("host", state.sum(|c| &c.from_host)),
        ("originated", state.sum(|c| &c.originated)),
    ]);
    page.counter(
        "packets_in_total",
        "Packets that came into the engine, by where they came from.",
        ["source"],
        entered,
    );
    let left = series([
        ("transmitted", state.sum(|c| &c.transmitted)),
        ("punted", state.sum(|c| &c.punted)),
        ("consumed", state.sum(|c| &c.consumed)),
    ]);
    page.counter("packets_out_total", "Packets that left the engine otherwise than by a drop.", ["fate"], left);
    let held = state.sum(|c| &c.held);
    let help = "Packets that wait for a neighbour's resolution, or for the first fragment of their datagram.";
    page.gauge("packets_held", help, [], [([], held)]);
    let imbalance = state.workers.iter().map(|worker| worker.imbalance()).sum::<i128>() as f64;
    let help = "Packets in, less out, dropped and held. Zero, but for packets in work during the scrape.";
    page.gauge("packets_imbalance", help, [], [([], imbalance)]);
    let drops = Drop::ALL.iter().map(|&reason| {
        let labels = [reason.function().to_owned(), reason.name().to_owned()];
        (labels, state.sum(|c| &c.dropped[reason as usize]))
    });
    page.counter("drops_total", "Packets dropped, by function and reason.", ["function", "reason"], drops);
    let directions = || ["outbound", "inbound"].into_iter().enumerate();
    let nat44 =
        directions().map(|(i, direction)| (["nat44".to_owned(), direction.to_owned()], state.sum(|c| &c.nat44[i])));
    let exchanged = Translator::ALL.iter().flat_map(|&translator| {
        directions().map(move |(i, direction)| {
            let labels = [translator.name().to_owned(), direction.to_owned()];
            (labels, state.sum(|c| &c.exchanged[translator as usize][i]))
        })
    });
    let crossed = ["to-ipv6", "to-ipv4"].into_iter().enumerate();
    let crossed =
        crossed.map(|(i, direction)| (["siit".to_owned(), direction.to_owned()], state.sum(|c| &c.crossed[i])));
    let translated = nat44.chain(exchanged).chain(crossed);
    page.counter("translated_packets_total", "Packets translated.", ["function", "direction"], translated);
    let routed = ["ipv4", "ipv6"].into_iter().enumerate();
    let routed = routed.map(|(i, family)| ([family.to_owned()], state.sum(|c| &c.routed[i])));
    page.counter("routed_packets_total", "Packets routed without translation.", ["family"], routed);
    fragments(page, state);
    let help = "Packets from inside that were turned round to another inside host, by its external address.";
    page.counter("hairpin_packets_total", help, [], [([], state.sum(|c| &c.hairpins))]);
}

fn fragments(page: &mut Page, state: &State) {
    let held = state.sum(|c| &c.fragments_held);
    page.gauge("fragments_held", "Fragments that wait for the first one of their datagram.", [], [([], held)]);
    let limit = number(state.plan.spec.limits.fragments.into());
    page.gauge("fragment_limit", "Fragments that may wait, in all shards together.", [], [([], limit)]);
    let help = "Fragments that were given the ports of their datagram.";
    page.counter("fragments_total", help, [], [([], state.sum(|c| &c.fragments))]);
    let help = "Packets cut up because the next link does not take them whole.";
    page.counter("fragmented_packets_total", help, [], [([], state.sum(|c| &c.cut))]);
    let help = "Fragments that were made of them; all but one of each are also in packets_in_total, as originated.";
    page.counter("fragment_creations_total", help, [], [([], state.sum(|c| &c.pieces))]);
}

fn workers(page: &mut Page, state: &State) {
    let labels = ["worker"];
    let series = state.by_worker(|c| number(c.received.get()));
    page.counter("worker_packets_total", "Packets that a worker took from its ports.", labels, series);
    let series = state.by_worker(|c| number(c.polls.get()));
    page.counter("worker_polls_total", "Rounds of a worker's loop.", labels, series);
    let series = state.by_worker(|c| number(c.empty_polls.get()));
    page.counter("worker_empty_polls_total", "Rounds of a worker's loop that found no packet.", labels, series);
    let series = state.by_worker(|c| number(c.poll_cycles.get()));
    page.counter(
        "worker_poll_cycles_total",
        "Processor cycles that a worker spent in rounds of its loop.",
        labels,
        series,
    );
    let series = state.by_worker(|c| number(c.busy_cycles.get()));
    page.counter("worker_busy_cycles_total", "Those of them in rounds that found packets.", labels, series);
    let series = state.by_worker(|c| number(c.busy_cycles.get()) / number(c.cycles_per_second.get().max(1)));
    let help = "Time that a worker spent on rounds with packets; its rate is the worker's load.";
    page.counter("worker_busy_seconds_total", help, labels, series);
    let pairs = |counters: fn(&Counters) -> &[Counter]| {
        let mut series = Vec::new();
        for (from, worker) in state.workers.iter().enumerate() {
            let to_others = counters(worker).iter().enumerate().filter(|&(to, _)| to != from);
            series.extend(to_others.map(|(to, counter)| ([from.to_string(), to.to_string()], number(counter.get()))));
        }
        series
    };
    let help = "Packets that a worker handed over to the worker that owns their flows.";
    page.counter("worker_hand_over_packets_total", help, ["from", "to"], pairs(|c| &c.handed_over));
    let help = "Packets lost because the ring from a worker to another was full; also in drops_total.";
    page.counter("worker_hand_over_drops_total", help, ["from", "to"], pairs(|c| &c.hand_over_drops));
    let mut spent = Vec::new();
    for (index, worker) in state.workers.iter().enumerate() {
        let labels = |name: &str| [index.to_string(), name.to_owned()];
        spent.extend(worker.stages.totals().map(|(stage, it)| (labels(stage.name()), number(it.cycles.get()))));
    }
    let help = "Processor cycles that a worker spent on a stage of its packets' way.";
    page.counter("worker_stage_cycles_total", help, ["worker", "stage"], spent);
}

fn sessions(page: &mut Page, state: &State) {
    let limits = state.plan.spec.limits;
    let now = SessionClass::ALL.iter().map(|&class| {
        let (proto, phase) = class.labels();
        (["nat44", proto, phase].map(str::to_owned), state.sum(|c| &c.sessions[class as usize]))
    });
    page.gauge("sessions", "Sessions now.", ["function", "proto", "state"], now);
    page.gauge("session_limit", "Sessions that the tables hold.", [], [([], number(limits.sessions.into()))]);
    let created = state.sum(|c| &c.session_creations);
    page.counter("session_creations_total", "Sessions made.", [], [([], created)]);
    let adopted = state.sum(|c| &c.session_adoptions);
    let help = "Sessions of these that were made in the middle of a TCP connection (mid-stream: adopt).";
    page.counter("session_adoptions_total", help, [], [([], adopted)]);
    let ended = [
        (["timeout".to_owned()], state.sum(|c| &c.session_timeouts)),
        (["replaced".to_owned()], state.sum(|c| &c.session_replacements)),
        (["flush".to_owned()], state.sum(|c| &c.session_flushes)),
        (["reload".to_owned()], state.sum(|c| &c.session_reload_ends)),
    ];
    page.counter("session_deletions_total", "Sessions ended, by cause.", ["cause"], ended);
    let mappings = PROTOCOLS.into_iter().enumerate();
    let mappings = mappings.map(|(i, proto)| ([proto.to_owned()], state.sum(|c| &c.mappings[i])));
    page.gauge("mappings", "Mappings now.", ["proto"], mappings);
    let held = state.sum(|c| &c.mappings_held);
    page.gauge("mappings_held", "Mappings whose port is held down, not to be reused yet.", [], [([], held)]);
    page.gauge("mapping_limit", "Mappings that the tables hold.", [], [([], number(limits.mappings.into()))]);
    let created = state.sum(|c| &c.mapping_creations);
    page.counter("mapping_creations_total", "Mappings made.", [], [([], created)]);
    let failures = MappingFailure::ALL
        .iter()
        .map(|&cause| ([cause.name().to_owned()], state.sum(|c| &c.mapping_failures[cause as usize])));
    let help = "Mappings refused, by cause (RFC 7659).";
    page.counter("mapping_failures_total", help, ["cause"], failures);
}

fn pools(page: &mut Page, state: &State) {
    let (plan, leases) = (&state.plan, &state.leases);
    // Each pool with the external addresses that it allocates from.
    let pools = || {
        let pools = plan.spec.pools.iter().zip(&plan.pools).filter(|(spec, _)| !spec.name.is_empty());
        pools.map(|(spec, externals)| (spec, externals.as_slice()))
    };
    let name = |spec: &PoolSpec| spec.name.clone();
    let addresses = pools().map(|(spec, externals)| ([name(spec)], number(externals.len() as u64)));
    page.gauge("pool_addresses", "External addresses of a pool.", ["pool"], addresses);
    let ports = pools().map(|(spec, externals)| {
        let each = u64::from(*spec.ports.end()).saturating_sub(u64::from(*spec.ports.start())) + 1;
        ([name(spec)], number(each * externals.len() as u64))
    });
    page.gauge("pool_ports", "Ports of a pool, for each protocol.", ["pool"], ports);
    let used = pools().flat_map(|(spec, externals)| {
        let used = externals.iter().map(|&external| leases.ports_used(external).map(u64::from));
        let used = used.fold([0; 3], |sum, one| std::array::from_fn::<u64, 3, _>(|proto| sum[proto] + one[proto]));
        PROTOCOLS.into_iter().zip(used).map(|(proto, n)| ([name(spec), proto.to_owned()], number(n)))
    });
    page.gauge("pool_ports_used", "Ports of a pool that mappings hold.", ["pool", "proto"], used);
    let blocks = |of: fn((u32, u32)) -> u32| {
        let sum = move |externals: &[u32]| externals.iter().map(|&id| u64::from(of(leases.free_blocks(id)))).sum();
        pools().map(move |(spec, externals)| ([spec.name.clone()], number(sum(externals))))
    };
    let help = "Blocks of 64 ports of a pool that can be leased.";
    page.gauge("pool_blocks", help, ["pool"], blocks(|(_, leasable)| leasable));
    let help = "Blocks of a pool that are leased; the others are free for any flow.";
    page.gauge("pool_blocks_used", help, ["pool"], blocks(|(free, leasable)| leasable.saturating_sub(free)));
}

fn icmp(page: &mut Page, state: &State) {
    let errors = IcmpError::ALL.iter().map(|&error| {
        let (family, kind, code) = error.type_code();
        ([format!("ipv{family}"), kind.to_string(), code.to_string()], state.sum(|c| &c.icmp_errors[error as usize]))
    });
    let help = "ICMP errors that the gateway sent.";
    page.counter("icmp_errors_sent_total", help, ["family", "type", "code"], errors);
    let limited = state.sum(|c| &c.icmp_rate_limited);
    page.counter("icmp_rate_limited_total", "ICMP errors not sent because of the rate limit.", [], [([], limited)]);
    let resets = state.sum(|c| &c.tcp_resets);
    let help = "TCP resets sent about segments in mid-stream without a session (mid-stream: reset).";
    page.counter("tcp_resets_sent_total", help, [], [([], resets)]);
    let limited = state.sum(|c| &c.tcp_resets_rate_limited);
    let help = "TCP resets not sent because of the rate limit.";
    page.counter("tcp_resets_rate_limited_total", help, [], [([], limited)]);
    let failed = state.sum(|c| &c.originate_failures);
    let help = "ICMP errors and TCP resets not sent because no packet buffer was free.";
    page.counter("originate_failures_total", help, [], [([], failed)]);
}
