//! Files that are good, and files that are not: a bad one is refused with its name, the key, the value and a remedy.
#![allow(missing_docs)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::config::{Config, ConfigError, Cpu, Device, Poll};
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, InterfaceId, IpPrefix, MacAddr, MssClamp, NextHop, Pooling, PortId,
    ZoneId,
};

/// A file that uses every section and that the bad ones below change in one place.
const GOOD: &str = r#"
version: 1
boot:
  cpu: {workers: [1], control: 0, poll: adaptive}
  memory: {hugepages: false, size: 256M}
  packets: 16384
  tables: {sessions: 65536, mappings: 65536, neighbours: 4096}
ports:
  lan: {device: "net_af_packet0,iface=lan0"}
  wan: {pci: "0000:03:00.0", rx-descriptors: 1024, tx-descriptors: 512}
interfaces:
  inside:
    port: lan
    zone: inside
    addresses: [192.168.1.1/24, "fd00:1::1/64"]
    mtu: 1500
    mss-clamp: from-mtu
    neighbours: {192.168.1.77: "02:00:00:00:00:77"}
  guests: {port: lan, vlan: 20, zone: inside, addresses: [192.168.20.1/24], mss-clamp: 1360}
  uplink: {port: wan, zone: outside, addresses: [198.51.100.2/24, "2001:db8:f::2/64"]}
routes:
  - {to: 0.0.0.0/0, via: 198.51.100.1}
  - {to: "::/0", via: "fe80::1", interface: uplink}
  - {to: 10.66.0.0/16, unreachable: true}
  - {to: 10.67.0.0/16, interface: guests}
pools:
  public:
    addresses: [203.0.113.0/28, 203.0.113.32-203.0.113.39, 203.0.113.50]
    ports: 1024-65535
    proxy-arp: false
nat44:
  rules:
    subscribers: {from: inside, to: outside, source: [192.168.0.0/16], pool: public, pooling: paired-soft}
    carrier: {from: inside, to: outside, pool: public, profile: cgn, filtering: {tcp: address-dependent}}
  forwards:
    web: {from: outside, to: inside, protocol: tcp, external: "203.0.113.50:8080", inside: "192.168.1.10:80"}
    games: {from: outside, to: inside, protocol: udp, external: "203.0.113.50:27000-27010", inside: "192.168.1.11:27000"}
  static:
    mail: {from: outside, to: inside, external: 203.0.113.60, inside: 192.168.1.25, filtering: address-dependent}
timers:
  udp: 6m
  udp-ports: {53: 10s}
  hold-down: 1m 30s
icmp: {rate: 500, burst: 50, silent: [guests]}
metrics: {listen: "127.0.0.1:9999"}
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("box.yaml"))
}

/// What a file like [`GOOD`] is refused with when `from` reads `to`.
#[track_caller]
fn refusal(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} must mark one place");
    match parse(&GOOD.replace(from, to)) {
        Ok(_) => panic!("accepted: {to:?}"),
        Err(error) => error.to_string(),
    }
}

fn prefix(text: &str) -> IpPrefix {
    let (address, len) = text.split_once('/').unwrap();
    IpPrefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
}

#[test]
fn everything_in_a_file_arrives() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.boot.cpu, Cpu { workers: vec![1], control: Some(0), poll: Some(Poll::Adaptive) });
    assert!(!config.boot.memory.hugepages);
    assert_eq!(config.boot.memory.size, 268_435_456);
    assert_eq!(config.boot.packets, 16_384);
    assert_eq!(config.ports[0].device, Device::Vdev("net_af_packet0,iface=lan0".into()));
    assert_eq!(config.ports[1].device, Device::Pci("0000:03:00.0".into()));
    assert_eq!((config.ports[1].rx_descriptors, config.ports[1].tx_descriptors), (1024, 512));
    assert_eq!(config.metrics.listen, Some("127.0.0.1:9999".parse().unwrap()));

    let macs = |PortId(port)| MacAddr([2, 0, 0, 0, 0, u8::try_from(port).unwrap()]);
    let spec = config.spec(&macs, [7; 16], 3);
    assert_eq!((spec.generation, spec.secret), (3, [7; 16]));
    assert_eq!(spec.ports.iter().map(|port| &*port.name).collect::<Vec<_>>(), ["lan", "wan"]);
    assert_eq!(spec.zones, ["inside", "outside"]);
    assert_eq!((spec.limits.sessions, spec.limits.mappings, spec.limits.neighbours), (65_536, 65_536, 4096));

    let [inside, guests, uplink] = &spec.interfaces[..] else { panic!("{:?}", spec.interfaces) };
    assert_eq!((&*inside.name, inside.port, inside.vlan, inside.zone), ("inside", PortId(0), None, ZoneId(0)));
    assert_eq!((&*guests.name, guests.port, guests.vlan, guests.zone), ("guests", PortId(0), Some(20), ZoneId(0)));
    assert_eq!((&*uplink.name, uplink.port, uplink.vlan, uplink.zone), ("uplink", PortId(1), None, ZoneId(1)));
    assert_eq!(uplink.mac, MacAddr([2, 0, 0, 0, 0, 1]));
    assert_eq!(inside.addresses, [prefix("192.168.1.1/24"), prefix("fd00:1::1/64")]);
    assert_eq!(inside.neighbours, [("192.168.1.77".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 0x77]))]);
    assert_eq!(
        (inside.mss_clamp, guests.mss_clamp, uplink.mss_clamp),
        (MssClamp::FromMtu, MssClamp::Fixed(1360), MssClamp::Off)
    );
    assert_eq!(uplink.mtu, 1500);

    let routes: Vec<_> = spec.routes.iter().map(|route| (route.prefix, route.next_hop)).collect();
    let via = |router: &str| NextHop::Via(router.parse().unwrap(), InterfaceId(2));
    assert_eq!(
        routes,
        [
            (prefix("0.0.0.0/0"), via("198.51.100.1")),
            (prefix("::/0"), via("fe80::1")),
            (prefix("10.66.0.0/16"), NextHop::Unreachable),
            (prefix("10.67.0.0/16"), NextHop::OnLink(InterfaceId(1))),
        ]
    );

    let address = |last| Ipv4Addr::new(203, 0, 113, last);
    let pool = &spec.pools[0];
    assert_eq!(pool.addresses, [address(0)..=address(15), address(32)..=address(39), address(50)..=address(50)]);
    assert_eq!((pool.ports.clone(), pool.proxy_arp, pool.answer_echo), (1024..=65_535, false, true));

    let [subscribers, carrier] = &spec.nat44[..] else { panic!("{:?}", spec.nat44) };
    assert_eq!(
        (subscribers.from, subscribers.to, &subscribers.source[..]),
        (ZoneId(0), ZoneId(1), &[prefix("192.168.0.0/16")][..])
    );
    assert_eq!((subscribers.pooling, carrier.pooling), (Pooling::PairedSoft, Pooling::Paired));
    let closed = Filtering::AddressPortDependent;
    assert_eq!(subscribers.filtering, FilteringSet { tcp: closed, udp: closed, icmp: closed });
    let open = Filtering::EndpointIndependent;
    assert_eq!(carrier.filtering, FilteringSet { tcp: Filtering::AddressDependent, udp: open, icmp: open });

    let [web, games] = &spec.forwards[..] else { panic!("{:?}", spec.forwards) };
    assert_eq!((web.inside_zone, web.outside_zone, web.protocol), (ZoneId(0), ZoneId(1), ForwardProtocol::Tcp));
    assert_eq!((web.external, web.external_ports.clone(), web.inside_port), (address(50), 8080..=8080, 80));
    assert_eq!((games.external_ports.clone(), games.inside_port, games.filtering), (27_000..=27_010, 27_000, open));
    let mail = &spec.static_nat[0];
    assert_eq!((mail.external, mail.inside), (address(60), Ipv4Addr::new(192, 168, 1, 25)));
    assert_eq!(mail.filtering, Filtering::AddressDependent);

    let seconds = Duration::from_secs;
    assert_eq!(
        (spec.timers.udp, &spec.timers.udp_ports[..], spec.timers.hold_down),
        (seconds(360), &[(53, seconds(10))][..], seconds(90))
    );
    assert_eq!(spec.timers.tcp_established, seconds(7440), "RFC 5382 REQ-5, by default");
    assert_eq!((spec.icmp.rate, spec.icmp.burst, &spec.icmp.silent[..]), (500, 50, &[InterfaceId(1)][..]));
}

#[test]
fn files_that_come_with_the_program_are_good() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let is_ours = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "yaml") && std::fs::read_to_string(path).unwrap().contains("\nversion:")
    };
    let files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).filter(is_ours).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        if let Err(error) = Config::load(&file) {
            panic!("{error}");
        }
    }
}

#[test]
fn polling_follows_the_machine_where_the_file_is_silent() {
    let cpu = |workers: &[u16], poll| Cpu { workers: workers.to_vec(), control: None, poll };
    assert_eq!(cpu(&[1], None).poll_on(2), Poll::Busy);
    assert_eq!(cpu(&[0], None).poll_on(1), Poll::Adaptive);
    assert_eq!(cpu(&[], None).poll_on(1), Poll::Adaptive);
    assert_eq!(cpu(&[1], Some(Poll::Adaptive)).poll_on(64), Poll::Adaptive);
    assert_eq!(cpu(&[], None).worker_cores(&[0, 2, 3]), [3]);
    assert_eq!(cpu(&[1], None).worker_cores(&[0, 2, 3]), [1]);
}

#[test]
fn order_of_the_file_is_kept() {
    let text = GOOD.replace("    carrier:", "    aaa: {from: inside, to: outside, pool: public}\n    carrier:");
    let spec = parse(&text).unwrap().spec(&|_| MacAddr::default(), [0; 16], 1);
    assert_eq!(spec.nat44.iter().map(|rule| &*rule.name).collect::<Vec<_>>(), ["subscribers", "aaa", "carrier"]);
}

/// Each line: a piece of [`GOOD`], what stands there instead, and what the refusal says: key, value and remedy.
#[test]
fn bad_values_are_named_with_key_value_and_remedy() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Strictness: unknown keys, repeated keys, missing keys, wrong kinds, no YAML at all.
        (
            "    mtu: 1500",
            "    mtuu: 1500",
            &["box.yaml:16:5: interfaces.inside.mtuu", "`mtuu`", "did you mean `mtu`?"],
        ),
        ("  packets: 16384", "  buffers: 16384", &["boot", "unknown field `buffers`", "`packets`"]),
        ("    zone: inside\n", "", &["interfaces.inside", "missing field `zone`"]),
        ("    mtu: 1500", "    mtu: 1500\n    mtu: 1400", &["interfaces.inside", "duplicate", "mtu"]),
        ("  guests: {port", "  inside: {port", &["interfaces", "\"inside\" is given twice", "remove one"]),
        ("    carrier:", "    subscribers:", &["nat44.rules", "\"subscribers\" is given twice"]),
        ("udp-ports: {53: 10s}", "udp-ports: {53: 10s, 53: 20s}", &["timers.udp-ports", "\"53\" is given twice"]),
        ("[192.168.20.1/24]", "192.168.20.1/24", &["interfaces.guests.addresses", "192.168.20.1/24", "sequence"]),
        ("version: 1\n", "version: 2\n", &["box.yaml: version: 2", "write 1"]),
        ("version: 1\n", "", &["missing field `version`"]),
        ("    port: lan\n", "   port: lan\n", &["box.yaml:", "interfaces.inside: this is not YAML", "indentation"]),
        ("hugepages: false", "hugepages: maybe", &["boot.memory.hugepages", "\"maybe\"", "true or false"]),
        // Boot.
        ("workers: [1]", "workers: [1, 2]", &["boot.cpu.workers", "2 cores", "name one core"]),
        ("workers: [1]", "workers: [1, 1]", &["boot.cpu.workers[1]", "core 1 is named twice"]),
        ("workers: [1]", "workers: [one]", &["boot.cpu.workers[0]", "\"one\"", "whole number"]),
        ("poll: adaptive", "poll: lazy", &["boot.cpu.poll", "\"lazy\"", "busy or adaptive"]),
        ("control: 0, poll: adaptive", "control: 1, poll: busy", &["boot.cpu.control", "core 1", "adaptive"]),
        ("size: 256M", "size: 256", &["boot.memory.size", "\"256\"", "such as 256M"]),
        ("size: 256M", "size: 8M", &["boot.memory.size", "8M", "write at least 41M"]),
        ("packets: 16384", "packets: 1000", &["boot.packets", "1000", "write a number from 5632"]),
        ("sessions: 65536", "sessions: 0", &["boot.tables.sessions", "0 entries", "from 64"]),
        // Ports.
        ("device: \"net_af_packet0,iface=lan0\"", "", &["ports.lan", "names no device", "`pci:"]),
        ("pci: \"0000:03:00.0\"", "pci: \"0000:03:00.0\", device: net_tap0", &["ports.wan", "both", "either"]),
        ("pci: \"0000:03:00.0\"", "pci: eth0", &["ports.wan.pci", "\"eth0\"", "dpdk-devbind.py"]),
        ("pci: \"0000:03:00.0\"", "device: eth0", &["ports.wan.device", "\"eth0\"", "net_af_packet0"]),
        ("pci: \"0000:03:00.0\"", "device: \"net_af_packet0,iface=wan0\"", &["ports.wan", "net_af_packet0", "\"lan\""]),
        ("rx-descriptors: 1024", "rx-descriptors: 1000", &["ports.wan.rx-descriptors", "1000", "multiple of 32"]),
        ("  wan: {pci", "  \"w an\": {pci", &["ports", "\"w an\"", "a name"]),
        // Interfaces.
        (
            "  uplink: {port: wan",
            "  uplink: {port: wann",
            &["interfaces.uplink.port", "\"wann\"", "did you mean \"wan\"?"],
        ),
        (
            "  uplink: {port: wan",
            "  uplink: {port: zzzzz",
            &["interfaces.uplink.port", "\"zzzzz\"", "the file has lan, wan"],
        ),
        ("vlan: 20, ", "vlan: 4095, ", &["interfaces.guests.vlan", "4095", "1 to 4094"]),
        ("vlan: 20, ", "", &["interfaces.guests", "untagged", "\"lan\"", "\"inside\"", "vlan"]),
        ("[192.168.20.1/24]", "[192.168.20.1/33]", &["interfaces.guests.addresses[0]", "192.168.20.1/33", "0 to 32"]),
        ("[192.168.20.1/24]", "[192.168.20.1]", &["interfaces.guests.addresses[0]", "192.168.20.1\"", "prefix length"]),
        ("[192.168.20.1/24]", "[]", &["interfaces.guests.addresses", "there is none", "192.0.2.1/24"]),
        (
            "[192.168.20.1/24]",
            "[192.168.20.0/24]",
            &["interfaces.guests.addresses[0]", "192.168.20.0/24", "network address"],
        ),
        ("[192.168.20.1/24]", "[192.168.20.255/24]", &["interfaces.guests.addresses[0]", "broadcast"]),
        ("[192.168.20.1/24]", "[224.0.0.1/24]", &["interfaces.guests.addresses[0]", "224.0.0.1/24", "single station"]),
        ("[192.168.20.1/24]", "[\"fe80::1/64\"]", &["interfaces.guests.addresses[0]", "fe80::1/64", "leave it out"]),
        (
            "[192.168.20.1/24]",
            "[192.168.1.129/25]",
            &["interfaces.guests.addresses", "192.168.1.128/25 overlaps 192.168.1.0/24", "realms"],
        ),
        (
            "[198.51.100.2/24, ",
            "[192.168.0.2/16, ",
            &["interfaces.uplink.addresses", "192.168.0.0/16 overlaps 192.168.1.0/24"],
        ),
        ("mtu: 1500", "mtu: 1279", &["interfaces.inside.mtu", "1279", "from 1280", "RFC 8200"]),
        ("vlan: 20, ", "vlan: 20, mtu: 67, ", &["interfaces.guests.mtu", "67", "from 68", "RFC 791"]),
        ("mtu: 1500", "mtu: 9001", &["interfaces.inside.mtu", "9001", "to 9000"]),
        ("mss-clamp: 1360", "mss-clamp: 1461", &["interfaces.guests.mss-clamp", "1461", "536 to 1460"]),
        ("mss-clamp: 1360", "mss-clamp: auto", &["interfaces.guests.mss-clamp", "\"auto\"", "from-mtu"]),
        ("{192.168.1.77:", "{192.168.2.77:", &["interfaces.inside.neighbours.192.168.2.77", "192.168.1.0/24"]),
        ("{192.168.1.77:", "{192.168.1.1:", &["interfaces.inside.neighbours.192.168.1.1", "own"]),
        (
            "\"02:00:00:00:00:77\"",
            "\"03:00:00:00:00:77\"",
            &["interfaces.inside.neighbours", "03:00:00:00:00:77", "group"],
        ),
        // Routes.
        (
            "via: 198.51.100.1}",
            "via: 198.51.101.1}",
            &["routes[0].via", "198.51.101.1", "no connected prefix", "198.51.100.0/24"],
        ),
        ("via: 198.51.100.1}", "via: 198.51.100.2}", &["routes[0].via", "198.51.100.2", "own address", "uplink"]),
        ("via: 198.51.100.1}", "via: \"2001:db8:f::1\"}", &["routes[0].via", "family"]),
        ("via: 198.51.100.1}", "via: 198.51.100.1, interface: guests}", &["routes[0].via", "192.168.20.0/24"]),
        ("via: 198.51.100.1}", "via: 198.51.100.1, unreachable: true}", &["routes[0]", "0.0.0.0/0", "alone"]),
        ("via: \"fe80::1\", interface: uplink", "via: \"fe80::1\"", &["routes[1].via", "fe80::1", "add `interface:`"]),
        ("interface: uplink}", "interface: uplnk}", &["routes[1].interface", "\"uplnk\"", "did you mean \"uplink\"?"]),
        ("10.66.0.0/16", "10.66.0.1/16", &["routes[2].to", "10.66.0.1/16", "write 10.66.0.0/16"]),
        ("10.66.0.0/16", "0.0.0.0/0", &["routes[2].to", "routes[0]", "remove one"]),
        (
            "to: 0.0.0.0/0, via: 198.51.100.1",
            "to: 192.168.1.128/25, via: 198.51.100.1",
            &["routes[0].to", "192.168.1.0/24", "\"inside\"", "realms"],
        ),
        // Pools.
        (
            "203.0.113.50]",
            "203.0.113.8-203.0.113.9]",
            &["pools.public.addresses[2]", "203.0.113.8-203.0.113.9", "pools.public.addresses[0]"],
        ),
        (
            "pools:\n",
            "pools:\n  other: {addresses: [203.0.113.48/30]}\n",
            &["pools.public.addresses[2]", "203.0.113.50 is also in pools.other.addresses[0]"],
        ),
        ("203.0.113.0/28,", "203.0.113.1/28,", &["pools.public.addresses[0]", "203.0.113.1/28", "192.0.2.0/28"]),
        ("203.0.113.32-203.0.113.39", "203.0.113.39-203.0.113.32", &["pools.public.addresses[1]", "rising order"]),
        ("203.0.113.0/28,", "100.0.0.0/15,", &["pools", "131081 addresses", "65536"]),
        ("203.0.113.0/28,", "240.0.0.0/28,", &["pools.public.addresses[0]", "240.0.0.0-240.0.0.15"]),
        ("203.0.113.0/28,", "198.51.100.1,", &["pools.public.addresses[0]", "198.51.100.1", "router", "0.0.0.0/0"]),
        ("203.0.113.0/28,", "198.51.100.255,", &["pools.public.addresses[0]", "198.51.100.255", "broadcast"]),
        ("ports: 1024-65535", "ports: 0-65535", &["pools.public.ports", "\"0-65535\"", "between 1 and 65535"]),
        ("ports: 1024-65535", "ports: 1024-65536", &["pools.public.ports", "\"1024-65536\""]),
        // Rules.
        (
            "pool: public, pooling",
            "pool: publik, pooling",
            &["nat44.rules.subscribers.pool", "\"publik\"", "did you mean \"public\"?"],
        ),
        (
            "{from: inside, to: outside, source",
            "{from: insid, to: outside, source",
            &["nat44.rules.subscribers.from", "\"insid\"", "did you mean \"inside\"?"],
        ),
        ("to: outside, source", "to: inside, source", &["nat44.rules.subscribers.to", "\"inside\"", "two zones"]),
        (
            "source: [192.168.0.0/16]",
            "source: [192.168.1.0/16]",
            &["nat44.rules.subscribers.source[0]", "192.168.1.0/16", "write 192.168.0.0/16"],
        ),
        (
            "source: [192.168.0.0/16]",
            "source: [\"fd00::/8\"]",
            &["nat44.rules.subscribers.source[0]", "fd00::/8", "IPv4"],
        ),
        (
            "203.0.113.0/28,",
            "192.168.1.64/28,",
            &["nat44.rules.subscribers.pool", "192.168.1.64-192.168.1.79", "192.168.1.0/24"],
        ),
        ("profile: cgn", "profile: carrier", &["nat44.rules.carrier.profile", "\"carrier\"", "default or cgn"]),
        ("{tcp: address-dependent}", "open", &["nat44.rules.carrier.filtering", "\"open\"", "endpoint-independent"]),
        (
            "{tcp: address-dependent}",
            "{tcp: open}",
            &["nat44.rules.carrier.filtering", "\"open\"", "endpoint-independent"],
        ),
        ("{tcp: address-dependent}", "{sctp: address-dependent}", &["nat44.rules.carrier.filtering", "sctp", "`tcp`"]),
        ("pooling: paired-soft", "pooling: arbitrary", &["nat44.rules.subscribers.pooling", "\"arbitrary\"", "paired"]),
        // Forwards.
        ("protocol: tcp", "protocol: sctp", &["nat44.forwards.web.protocol", "\"sctp\"", "tcp or udp"]),
        (
            "\"203.0.113.50:8080\"",
            "\"203.0.113.50\"",
            &["nat44.forwards.web.external", "203.0.113.50", "\"192.0.2.1:80\""],
        ),
        (
            "\"203.0.113.50:8080\"",
            "\"203.0.113.60:8080\"",
            &["nat44.forwards.web.external", "203.0.113.60", "nat44.static.mail"],
        ),
        (
            "protocol: tcp, external: \"203.0.113.50:8080\"",
            "protocol: udp, external: \"203.0.113.50:27010\"",
            &["nat44.forwards.games.external", "udp 203.0.113.50:27010", "nat44.forwards.web"],
        ),
        (
            "\"192.168.1.11:27000\"",
            "\"192.168.1.11:65530\"",
            &["nat44.forwards.games.inside", "11 ports from 65530", "65535"],
        ),
        (
            "\"192.168.1.11:27000\"",
            "\"192.168.1.11:27000-27005\"",
            &["nat44.forwards.games.inside", "27000-27005", "equally many"],
        ),
        (
            "\"192.168.1.10:80\"",
            "\"172.16.0.1:80\"",
            &["nat44.forwards.web.inside", "172.16.0.1", "\"uplink\"", "\"inside\""],
        ),
        ("\"192.168.1.10:80\"", "\"10.66.0.1:80\"", &["nat44.forwards.web.inside", "10.66.0.1", "add a route"]),
        ("\"192.168.1.10:80\"", "\"192.168.1.1:80\"", &["nat44.forwards.web.inside", "192.168.1.1", "own address"]),
        // Static addresses.
        (
            "external: 203.0.113.60,",
            "external: 203.0.113.35,",
            &["nat44.static.mail.external", "203.0.113.35", "pool \"public\"", "out of the pool"],
        ),
        (
            "external: 203.0.113.60,",
            "external: 198.51.100.2,",
            &["nat44.static.mail.external", "198.51.100.2", "forwards"],
        ),
        (
            "external: 203.0.113.60,",
            "external: 192.168.20.9,",
            &["nat44.static.mail.external", "192.168.20.0/24", "\"guests\""],
        ),
        (
            "  static:\n",
            "  static:\n    post: {from: outside, to: inside, external: 203.0.113.60, inside: 192.168.1.26}\n",
            &["nat44.static.mail.external", "203.0.113.60", "nat44.static.post"],
        ),
        (
            "  static:\n",
            "  static:\n    post: {from: outside, to: inside, external: 203.0.113.61, inside: 192.168.1.25}\n",
            &["nat44.static.mail.inside", "192.168.1.25", "nat44.static.post"],
        ),
        // Timers: the RFCs' least values.
        ("udp: 6m", "udp: 119s", &["timers.udp", "1m 59s", "RFC 4787 REQ-5", "write 2m or more", "udp-ports"]),
        ("udp: 6m", "udp: 300", &["timers.udp", "\"300\"", "unit"]),
        ("udp: 6m", "udp: 100d", &["timers.udp", "100d is too long", "at most 30d"]),
        ("udp: 6m", "tcp-established: 7439s", &["timers.tcp-established", "2h 3m 59s", "RFC 5382 REQ-5", "2h 4m"]),
        ("udp: 6m", "tcp-closing: 239s", &["timers.tcp-closing", "3m 59s", "RFC 5382", "4m"]),
        ("udp: 6m", "tcp-opening: 0s", &["timers.tcp-opening", "0s", "1s"]),
        ("udp: 6m", "icmp: 59s", &["timers.icmp", "59s", "RFC 5508 REQ-2", "1m"]),
        ("{53: 10s}", "{1024: 10s}", &["timers.udp-ports.1024", "1024", "0 to 1023", "remove it"]),
        // ICMP, metrics.
        // What only the data plane's own compiler sees: static entries' addresses count too.
        ("203.0.113.0/28,", "100.64.0.0/16,", &["pools", "65545 addresses"]),
        (
            "[203.0.113.0/28, 203.0.113.32-203.0.113.39, 203.0.113.50]",
            "[100.64.0.0/16]",
            &["external addresses", "65536"],
        ),
        ("rate: 500", "rate: 0", &["icmp.rate", "0 errors", "icmp.silent"]),
        ("silent: [guests]", "silent: [guest]", &["icmp.silent[0]", "\"guest\"", "did you mean \"guests\"?"]),
        ("127.0.0.1:9999", "127.0.0.1", &["metrics.listen", "\"127.0.0.1\"", "127.0.0.1:17644"]),
    ];
    let mut surprises = Vec::new();
    for (from, to, parts) in cases {
        let message = refusal(from, to);
        let missing: Vec<&str> = parts.iter().copied().filter(|part| !message.contains(part)).collect();
        if !message.starts_with("box.yaml:") || !missing.is_empty() {
            surprises.push(format!("{to:?} should be refused with {missing:?}, but is with:\n{message}\n"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn what_is_allowed_at_the_edges() {
    let cases = [
        ("udp: 6m", "udp: 120s"),
        ("udp: 6m", "tcp-established: 7440s"),
        ("udp: 6m", "tcp-closing: 240s"),
        ("udp: 6m", "tcp-opening: 30s"),
        ("udp: 6m", "icmp: 60s"),
        ("{53: 10s}", "{0: 1s, 1023: 10s}"),
        ("mtu: 1500", "mtu: 1280"),
        ("mtu: 1500", "mtu: 9000"),
        ("127.0.0.1:9999", "off"),
        ("203.0.113.0/28,", "198.51.100.2, 198.51.100.3,"),
        ("[198.51.100.2/24, ", "[198.51.100.2/31, "),
        ("[192.168.20.1/24]", "[192.168.20.1/24, 192.168.20.2/24]"),
        ("via: 198.51.100.1}", "via: 198.51.100.1, interface: uplink}"),
        ("{tcp: address-dependent}", "address-dependent"),
        ("\"192.168.1.11:27000\"", "\"192.168.1.11:27000-27010\""),
        ("protocol: tcp, external: \"203.0.113.50:8080\"", "protocol: tcp, external: \"203.0.113.50:27005\""),
        ("pci: \"0000:03:00.0\"", "pci: \"03:00.0\""),
    ];
    for (from, to) in cases {
        assert_eq!(GOOD.matches(from).count(), 1, "{from:?}");
        let text = match to {
            "[198.51.100.2/31, " => GOOD.replace(from, to).replace("via: 198.51.100.1}", "via: 198.51.100.3}"),
            _ => GOOD.replace(from, to),
        };
        if let Err(error) = parse(&text) {
            panic!("{to:?}: {error}");
        }
    }
}

#[test]
fn problems_are_told_all_at_once() {
    let text = GOOD.replace("mtu: 1500", "mtu: 60").replace("udp: 6m", "udp: 1s").replace("rate: 500", "rate: 0");
    let error = parse(&text).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(keys, ["interfaces.inside.mtu", "timers.udp", "icmp.rate"]);
    assert_eq!(error.to_string().lines().count(), 3);
}

/// What changes from [`GOOD`] when each `from` reads `to`.
#[track_caller]
fn changes(edits: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let (old, mut text) = (parse(GOOD).unwrap(), GOOD.to_owned());
    for (from, to) in edits {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must mark one place");
        text = text.replace(from, to);
    }
    let new = parse(&text).unwrap();
    (old.difference(&new).iter().map(ToString::to_string).collect(), old.needs_restart(&new))
}

#[test]
fn differences_are_told_by_key() {
    let (all, restart) = changes(&[]);
    assert_eq!((all.len(), restart.len()), (0, 0));

    let (all, restart) = changes(&[
        ("rate: 500", "rate: 600"),
        ("203.0.113.50]", "203.0.113.50, 203.0.113.51]"),
        ("  - {to: 10.66.0.0/16, unreachable: true}\n", ""),
        ("    games:", "    play:"),
    ]);
    assert_eq!(
        all,
        [
            "routes[2]: removed: {to: 10.66.0.0/16, unreachable: true}",
            "pools.public.addresses[3]: added: 203.0.113.51",
            "nat44.forwards.games: removed: {from: outside, to: inside, protocol: udp, \
             external: 203.0.113.50:27000-27010, inside: 192.168.1.11:27000}",
            "nat44.forwards.play: added: {from: outside, to: inside, protocol: udp, \
             external: 203.0.113.50:27000-27010, inside: 192.168.1.11:27000}",
            "icmp.rate: 500 becomes 600",
        ]
    );
    assert_eq!(restart, Vec::<String>::new());

    let (_, restart) = changes(&[
        ("packets: 16384", "packets: 20000"),
        ("tx-descriptors: 512", "tx-descriptors: 1024"),
        ("127.0.0.1:9999", "127.0.0.1:9998"),
        ("mtu: 1500", "mtu: 1400"),
    ]);
    assert_eq!(restart, ["boot.packets", "ports.wan.tx-descriptors", "metrics.listen"]);
}

#[test]
fn another_order_is_a_difference_where_it_decides() {
    let carrier =
        "    carrier: {from: inside, to: outside, pool: public, profile: cgn, filtering: {tcp: address-dependent}}\n";
    let (all, _) = changes(&[(carrier, ""), ("  rules:\n", &format!("  rules:\n{carrier}"))]);
    assert_eq!(all, ["nat44.rules: the order subscribers, carrier becomes carrier, subscribers"]);
    let (all, _) =
        changes(&[("[203.0.113.0/28, 203.0.113.32-203.0.113.39,", "[203.0.113.32-203.0.113.39, 203.0.113.0/28,")]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("pools.public.addresses: the order ["), "{all:?}");
    let guests = "  guests: {port: lan, vlan: 20, zone: inside, addresses: [192.168.20.1/24], mss-clamp: 1360}\n";
    let (all, _) = changes(&[(guests, ""), ("  inside:\n", &format!("{guests}  inside:\n"))]);
    assert_eq!(all, Vec::<String>::new(), "names find interfaces in any order");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/turnpike.yaml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/turnpike.yaml"), "{error}");
    assert!(error.contains("No such file"), "{error}");
}

/// Nothing that a file can hold makes the reader panic: the good file with every line missing, cut anywhere, and with
/// every scalar replaced by something odd.
#[test]
fn no_file_makes_it_panic() {
    let lines: Vec<&str> = GOOD.lines().collect();
    for skip in 0..lines.len() {
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, line)| *line).collect();
        let _ = parse(&rest.join("\n"));
    }
    for end in (0..GOOD.len()).filter(|end| GOOD.is_char_boundary(*end)) {
        let _ = parse(&GOOD[..end]);
    }
    let words: Vec<&str> = GOOD.split(|c: char| " \n{}[],\"".contains(c)).filter(|word| !word.is_empty()).collect();
    for odd in ["0", "-1", "4294967296", "~", "!x", "&a", "*a", "é", "1e999", "0.0.0.0/0", "::/0", "255.255.255.255/32"]
    {
        for word in &words {
            let _ = parse(&GOOD.replacen(word, odd, 1));
        }
    }
}
