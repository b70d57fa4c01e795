//! Files that are good, and files that are not: a bad one is refused with its name, the key, the value and a remedy.
#![allow(missing_docs)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::config::{Config, ConfigError, Cpu, Device, Poll};
use dataplane::plan::{
    Filtering, FilteringSet, ForwardProtocol, InterfaceId, IpPrefix, MacAddr, MssClamp, NextHop, Pooling, PortId,
    PrefixKind, ZoneId,
};
use dataplane::translate::eam::Hairpin;
use dataplane::translate::siit::UdpChecksumNone;

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
  fragment: 3s
icmp: {rate: 500, burst: 50, silent: [guests], sources: [198.51.100.2]}
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
    assert_eq!((spec.timers.fragment, spec.limits.fragments), (seconds(3), 1024));
    assert_eq!(spec.timers.tcp_established, seconds(7440), "RFC 5382 REQ-5, by default");
    assert_eq!((spec.icmp.rate, spec.icmp.burst, &spec.icmp.silent[..]), (500, 50, &[InterfaceId(1)][..]));
    assert_eq!(spec.icmp.sources, ["198.51.100.2".parse::<std::net::IpAddr>().unwrap()]);
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
        if let Err(error) = Config::load(&[&file]) {
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

/// Each line: a piece of [`GOOD`], what stands there instead, and what the refusal says: key, value and remedy. A `^` marks
/// the place that it names; where that is not within the piece, the first word says it.
#[test]
fn bad_values_are_named_with_place_key_value_and_remedy() {
    let cases: &[(&str, &str, &[&str])] = &[
        // Strictness: unknown keys, repeated keys, missing keys, wrong kinds, no YAML at all.
        ("    mtu: 1500", "    ^mtuu: 1500", &["interfaces.inside.mtuu", "no key \"mtuu\"", "did you mean \"mtu\"?"]),
        ("  packets: 16384", "  ^buffers: 16384", &["boot.buffers", "no key \"buffers\"", "packets"]),
        (
            "    zone: inside\n",
            "",
            &["box.yaml:12:3: ", "interfaces.inside.zone", "\"zone\" is missing", "add `zone:`"],
        ),
        (
            "    mtu: 1500",
            "    mtu: 1500\n    ^mtu: 1400",
            &["interfaces.inside.mtu", "\"mtu\" is given twice, first in line 16", "remove one"],
        ),
        ("  guests: {port", "  ^inside: {port", &["interfaces", "\"inside\" is given twice", "remove one"]),
        ("    carrier:", "    ^subscribers:", &["nat44.rules", "\"subscribers\" is given twice"]),
        ("udp-ports: {53: 10s}", "udp-ports: {53: 10s, ^53: 20s}", &["timers.udp-ports", "\"53\" is given twice"]),
        (
            "[192.168.20.1/24]",
            "^192.168.20.1/24",
            &["interfaces.guests.addresses", "\"192.168.20.1/24\" is not a list", "write [192.168.20.1/24]"],
        ),
        ("version: 1\n", "version: ^2\n", &["version", "\"2\"", "write 1"]),
        ("version: 1\n", "", &["box.yaml:2:1: ", "version", "\"version\" is missing", "with 1"]),
        (
            "    port: lan\n",
            "   port: lan\n",
            &["box.yaml:14:9: ", "interfaces.inside", "this is not YAML", "same column"],
        ),
        ("hugepages: false", "hugepages: ^maybe", &["boot.memory.hugepages", "\"maybe\"", "true or false"]),
        // Shapes: no section, no list, no scalar, nothing at all.
        (
            "  cpu: {workers: [1], control: 0, poll: adaptive}",
            "  ^cpu: [1]",
            &["boot.cpu", "a list does not do", "workers, control"],
        ),
        (
            "  cpu: {workers: [1], control: 0, poll: adaptive}",
            "  cpu: ^1",
            &["boot.cpu", "\"1\" does not do", "a section of the keys"],
        ),
        (
            "  public:\n",
            "  ^public:\n    - x\n  other:\n",
            &["pools.public", "a list does not do", "a section of the keys"],
        ),
        ("metrics: {listen", "metrics: {^listen: [a], x", &["metrics.listen", "a list does not do", "127.0.0.1:17644"]),
        (
            "metrics: {listen",
            "metrics: {^listen: {a: b}, x",
            &["metrics.listen", "a mapping does not do", "127.0.0.1:17644"],
        ),
        (
            "[192.168.20.1/24]",
            "{192.168.20.1/24: x}",
            &["box.yaml:19:47: ", "interfaces.guests.addresses", "a mapping does not do", "a list"],
        ),
        ("mtu: 1500", "^mtu:", &["interfaces.inside.mtu", "nothing stands here", "or remove the key"]),
        ("mtu: 1500", "^mtu: ~", &["interfaces.inside.mtu", "nothing stands here", "or remove the key"]),
        (
            "metrics: {listen: \"127.0.0.1:9999\"}",
            "^metrics:",
            &["metrics", "nothing stands here", "listen, or remove the key"],
        ),
        ("{53: 10s}", "{53: 10s, ^053: 20s}", &["timers.udp-ports.053", "\"053\" is given twice", "as \"53\""]),
        ("{53: 10s}", "{^dns: 10s}", &["timers.udp-ports.dns", "\"dns\" does not do as a key", "from 0 to 65535"]),
        (
            "{tcp: address-dependent}",
            "[tcp]",
            &["box.yaml:34:70: ", "nat44.rules.carrier.filtering", "a list does not do", "each of tcp, udp and icmp"],
        ),
        // YAML that is not, and YAML that is not read.
        ("    port: lan\n", "\t^port: lan\n", &["interfaces.inside", "not YAML", "a tab", "with spaces"]),
        (
            "    mtu: 1500\n",
            "    mtu:1500\n    ^mss",
            &["interfaces.inside", "not YAML", "a `:` is missing here or in the line above"],
        ),
        ("pci: \"0000:03:00.0\"", "pci: ^\"0000:03:00.0", &["ports.wan.pci", "not YAML", "a quote that is missing"]),
        ("[192.168.20.1/24]", "[192.168.20.1/24", &["box.yaml:20:3: ", "not YAML", "is not closed"]),
        ("\"127.0.0.1:9999\"", "[::1]^:9999", &["metrics", "not YAML", "a bracket"]),
        (
            "pool: public, pooling",
            "pool: ^@public, pooling",
            &["nat44.rules.subscribers.pool", "not YAML", "quotes around it"],
        ),
        (
            "pool: public, pooling",
            "pool: ^*public, pooling",
            &["nat44.rules.subscribers.pool", "aliases", "write the value out"],
        ),
        (
            "pool: public, pooling",
            "pool: ^&public public, pooling",
            &["nat44.rules.subscribers.pool", "anchors", "remove it"],
        ),
        (
            "pool: public, pooling",
            "pool: ^!public public, pooling",
            &["nat44.rules.subscribers.pool", "tags", "remove it"],
        ),
        (
            "pool: public, pooling",
            "pool: {^{ pool }}, pooling",
            &["nat44.rules.subscribers.pool", "where a key belongs", "put quotes"],
        ),
        (
            "    port: lan\n",
            "    ^<<: {mtu: 1400}\n    port: lan\n",
            &["interfaces.inside", "merge keys", "write the keys out"],
        ),
        ("timers:\n", "^---\ntimers:\n", &["a second document", "remove this `---`"]),
        ("rate: 500", "rate: ^\0", &["a NUL character", "remove it"]),
        // Boot.
        (
            "[1], control: 0, poll: adaptive}\n  memory: {hugepages: false, size: 256M}\n  packets: 16384",
            "[1, 2], control: 0, poll: adaptive}\n  memory: {hugepages: false, size: 256M}\n  packets: ^6000",
            &["boot.packets", "6000 buffers", "1 other workers", "write a number from 7680"],
        ),
        ("workers: [1]", "workers: [1, ^1]", &["boot.cpu.workers[1]", "core 1 is named twice"]),
        ("workers: [1]", "workers: [^one]", &["boot.cpu.workers[0]", "\"one\"", "whole number"]),
        ("poll: adaptive", "poll: ^lazy", &["boot.cpu.poll", "\"lazy\"", "busy or adaptive"]),
        ("control: 0, poll: adaptive", "control: ^1, poll: busy", &["boot.cpu.control", "core 1", "adaptive"]),
        ("size: 256M", "size: ^256", &["boot.memory.size", "\"256\"", "such as 256M"]),
        ("size: 256M", "size: ^8M", &["boot.memory.size", "8M", "write at least 41M"]),
        ("packets: 16384", "packets: ^1000", &["boot.packets", "\"1000\"", "from 2176 to 4194304"]),
        ("sessions: 65536", "sessions: ^0", &["boot.tables.sessions", "\"0\"", "from 64"]),
        ("sessions: 65536", "fragments: ^63", &["boot.tables.fragments", "\"63\"", "from 64"]),
        ("packets: 16384", "packets: ^5000", &["boot.packets", "5000 buffers", "write a number from 6656"]),
        // Ports.
        ("device: \"net_af_packet0,iface=lan0\"", "", &["box.yaml:9:3: ", "ports.lan", "names no device", "`pci:"]),
        (
            "pci: \"0000:03:00.0\"",
            "pci: \"0000:03:00.0\", device: net_tap0",
            &["box.yaml:10:3: ", "ports.wan", "both", "either"],
        ),
        ("pci: \"0000:03:00.0\"", "pci: ^eth0", &["ports.wan.pci", "\"eth0\"", "dpdk-devbind.py"]),
        ("pci: \"0000:03:00.0\"", "device: ^eth0", &["ports.wan.device", "\"eth0\"", "net_af_packet0"]),
        (
            "pci: \"0000:03:00.0\"",
            "device: \"net_af_packet0,iface=wan0\"",
            &["box.yaml:10:3: ", "ports.wan", "net_af_packet0", "\"lan\""],
        ),
        ("rx-descriptors: 1024", "rx-descriptors: ^1000", &["ports.wan.rx-descriptors", "1000", "multiple of 32"]),
        ("  wan: {pci", "  ^\"w an\": {pci", &["ports", "\"w an\"", "a name"]),
        ("ports:\n", "^ports: {}\nx:\n", &["ports", "there is none", "name at least one device"]),
        // Interfaces.
        ("interfaces:\n", "^interfaces: {}\nx:\n", &["interfaces", "there is none", "name at least one"]),
        ("vlan: 20, ", "outer-vlan: ^300, ", &["interfaces.guests.outer-vlan", "no `vlan:`", "add the inner tag"]),
        ("vlan: 20, ", "vlan: 20, outer-vlan: ^0, ", &["interfaces.guests.outer-vlan", "\"0\"", "from 1 to 4094"]),
        (
            "  uplink: {port: wan",
            "  ^uplink: {port: lan, vlan: 20",
            &["interfaces.uplink", "tag 20 of port \"lan\"", "\"guests\"", "another `vlan:`"],
        ),
        (
            "[192.168.20.1/24]",
            "[192.168.20.1/24, ^192.168.20.1/25]",
            &["interfaces.guests.addresses[1]", "given twice", "remove one"],
        ),
        (
            "vlan: 20, ",
            "vlan: 20, mac: ^\"01:00:5e:00:00:01\", ",
            &["interfaces.guests.mac", "address of a group", "one station"],
        ),
        ("zone: inside\n", "zone: ^in side\n", &["interfaces.inside.zone", "\"in side\"", "a name"]),
        (
            "  uplink: {port: wan",
            "  uplink: {port: ^wann",
            &["interfaces.uplink.port", "\"wann\"", "did you mean \"wan\"?"],
        ),
        (
            "  uplink: {port: wan",
            "  uplink: {port: ^zzzzz",
            &["interfaces.uplink.port", "\"zzzzz\"", "there is lan, wan"],
        ),
        ("vlan: 20, ", "vlan: ^4095, ", &["interfaces.guests.vlan", "4095", "1 to 4094"]),
        ("vlan: 20, ", "", &["box.yaml:19:3: ", "interfaces.guests", "untagged", "\"lan\"", "\"inside\"", "vlan"]),
        ("[192.168.20.1/24]", "[^192.168.20.1/33]", &["interfaces.guests.addresses[0]", "192.168.20.1/33", "0 to 32"]),
        (
            "[192.168.20.1/24]",
            "[^192.168.20.1]",
            &["interfaces.guests.addresses[0]", "192.168.20.1\"", "prefix length"],
        ),
        (
            "[192.168.20.1/24]",
            "[]",
            &["box.yaml:19:47: ", "interfaces.guests.addresses", "there is none", "192.0.2.1/24"],
        ),
        (
            "[192.168.20.1/24]",
            "[^192.168.20.0/24]",
            &["interfaces.guests.addresses[0]", "192.168.20.0/24", "network address"],
        ),
        ("[192.168.20.1/24]", "[^192.168.20.255/24]", &["interfaces.guests.addresses[0]", "broadcast"]),
        ("[192.168.20.1/24]", "[^224.0.0.1/24]", &["interfaces.guests.addresses[0]", "224.0.0.1/24", "single station"]),
        ("[192.168.20.1/24]", "[^\"fe80::1/64\"]", &["interfaces.guests.addresses[0]", "fe80::1/64", "leave it out"]),
        (
            "[192.168.20.1/24]",
            "[^192.168.1.129/25]",
            &["interfaces.guests.addresses", "192.168.1.128/25 overlaps 192.168.1.0/24", "realms"],
        ),
        (
            "[198.51.100.2/24, ",
            "[^192.168.0.2/16, ",
            &["interfaces.uplink.addresses", "192.168.0.0/16 overlaps 192.168.1.0/24"],
        ),
        ("mtu: 1500", "mtu: ^1279", &["interfaces.inside.mtu", "1279", "1280 or more", "RFC 8200"]),
        ("vlan: 20, ", "vlan: 20, mtu: ^67, ", &["interfaces.guests.mtu", "\"67\"", "from 68 to 9000"]),
        ("mtu: 1500", "mtu: ^9001", &["interfaces.inside.mtu", "9001", "to 9000"]),
        ("mss-clamp: 1360", "mss-clamp: ^1461", &["interfaces.guests.mss-clamp", "1461", "536 to 1460"]),
        ("mss-clamp: 1360", "mss-clamp: ^auto", &["interfaces.guests.mss-clamp", "\"auto\"", "from-mtu"]),
        ("{192.168.1.77:", "{^192.168.2.77:", &["interfaces.inside.neighbours.192.168.2.77", "192.168.1.0/24"]),
        ("{192.168.1.77:", "{^192.168.1.1:", &["interfaces.inside.neighbours.192.168.1.1", "own"]),
        (
            "\"02:00:00:00:00:77\"",
            "^\"03:00:00:00:00:77\"",
            &["interfaces.inside.neighbours", "03:00:00:00:00:77", "group"],
        ),
        // Routes.
        (
            "via: 198.51.100.1}",
            "via: ^198.51.101.1}",
            &["routes[0].via", "198.51.101.1", "no connected prefix", "198.51.100.0/24"],
        ),
        ("via: 198.51.100.1}", "via: ^198.51.100.2}", &["routes[0].via", "198.51.100.2", "own address", "uplink"]),
        ("via: 198.51.100.1}", "via: ^\"2001:db8:f::1\"}", &["routes[0].via", "family"]),
        ("via: 198.51.100.1}", "via: ^198.51.100.1, interface: guests}", &["routes[0].via", "192.168.20.0/24"]),
        (
            "via: 198.51.100.1}",
            "via: 198.51.100.1, unreachable: true}",
            &["box.yaml:22:5: ", "routes[0]", "0.0.0.0/0", "alone"],
        ),
        ("via: \"fe80::1\", interface: uplink", "via: ^\"fe80::1\"", &["routes[1].via", "fe80::1", "add `interface:`"]),
        ("interface: uplink}", "interface: ^uplnk}", &["routes[1].interface", "\"uplnk\"", "did you mean \"uplink\"?"]),
        ("10.66.0.0/16", "^10.66.0.1/16", &["routes[2].to", "10.66.0.1/16", "write 10.66.0.0/16"]),
        ("10.66.0.0/16", "^0.0.0.0/0", &["routes[2].to", "routes[0]", "remove one"]),
        (
            "to: 0.0.0.0/0, via: 198.51.100.1",
            "to: ^192.168.1.128/25, via: 198.51.100.1",
            &["routes[0].to", "192.168.1.0/24", "\"inside\"", "realms"],
        ),
        (
            "to: 10.67.0.0/16, interface",
            "to: ^10.67.0.0, interface",
            &["routes[3].to", "prefix is missing", "192.0.2.1/24"],
        ),
        // Pools.
        (
            "[203.0.113.0/28, 203.0.113.32-203.0.113.39, 203.0.113.50]",
            "[]",
            &["box.yaml:28:5: ", "pools.public.addresses", "there is none", "203.0.113.1"],
        ),
        (
            "203.0.113.50]",
            "^203.0.113.8-203.0.113.9]",
            &["pools.public.addresses[2]", "203.0.113.8-203.0.113.9", "pools.public.addresses[0]"],
        ),
        (
            "pools:\n",
            "pools:\n  other: {addresses: [203.0.113.48/30]}\n",
            &["box.yaml:29:60: ", "pools.public.addresses[2]", "203.0.113.50 is also in pools.other.addresses[0]"],
        ),
        ("203.0.113.0/28,", "^203.0.113.1/28,", &["pools.public.addresses[0]", "203.0.113.1/28", "192.0.2.0/28"]),
        ("203.0.113.32-203.0.113.39", "^203.0.113.39-203.0.113.32", &["pools.public.addresses[1]", "rising order"]),
        ("203.0.113.0/28,", "100.0.0.0/15,", &["box.yaml:26:1: ", "pools", "131081 addresses", "65536"]),
        ("203.0.113.0/28,", "^240.0.0.0/28,", &["pools.public.addresses[0]", "240.0.0.0-240.0.0.15"]),
        ("203.0.113.0/28,", "^198.51.100.1,", &["pools.public.addresses[0]", "198.51.100.1", "router", "0.0.0.0/0"]),
        ("203.0.113.0/28,", "^198.51.100.255,", &["pools.public.addresses[0]", "198.51.100.255", "broadcast"]),
        ("ports: 1024-65535", "ports: ^0-65535", &["pools.public.ports", "\"0-65535\"", "between 1 and 65535"]),
        ("ports: 1024-65535", "ports: ^1024-65536", &["pools.public.ports", "\"1024-65536\""]),
        // Rules.
        (
            "pool: public, pooling",
            "pool: ^publik, pooling",
            &["nat44.rules.subscribers.pool", "\"publik\"", "did you mean \"public\"?"],
        ),
        (
            "{from: inside, to: outside, source",
            "{from: ^insid, to: outside, source",
            &["nat44.rules.subscribers.from", "\"insid\"", "did you mean \"inside\"?"],
        ),
        ("to: outside, source", "to: ^inside, source", &["nat44.rules.subscribers.to", "\"inside\"", "two zones"]),
        (
            "source: [192.168.0.0/16]",
            "source: [^192.168.1.0/16]",
            &["nat44.rules.subscribers.source[0]", "192.168.1.0/16", "write 192.168.0.0/16"],
        ),
        (
            "source: [192.168.0.0/16]",
            "source: [^\"fd00::/8\"]",
            &["nat44.rules.subscribers.source[0]", "fd00::/8", "IPv4"],
        ),
        (
            "203.0.113.0/28,",
            "192.168.1.64/28,",
            &["box.yaml:33:78: ", "nat44.rules.subscribers.pool", "192.168.1.64-192.168.1.79", "192.168.1.0/24"],
        ),
        ("profile: cgn", "profile: ^carrier", &["nat44.rules.carrier.profile", "\"carrier\"", "default or cgn"]),
        ("{tcp: address-dependent}", "^open", &["nat44.rules.carrier.filtering", "\"open\"", "endpoint-independent"]),
        (
            "{tcp: address-dependent}",
            "{tcp: ^open}",
            &["nat44.rules.carrier.filtering", "\"open\"", "endpoint-independent"],
        ),
        (
            "{tcp: address-dependent}",
            "{^sctp: address-dependent}",
            &["nat44.rules.carrier.filtering.sctp", "sctp", "tcp, udp, icmp"],
        ),
        (
            "pooling: paired-soft",
            "pooling: ^arbitrary",
            &["nat44.rules.subscribers.pooling", "\"arbitrary\"", "paired"],
        ),
        // Forwards.
        ("protocol: tcp", "protocol: ^sctp", &["nat44.forwards.web.protocol", "\"sctp\"", "tcp or udp"]),
        (
            "\"203.0.113.50:8080\"",
            "^\"203.0.113.50\"",
            &["nat44.forwards.web.external", "203.0.113.50", "\"192.0.2.1:80\""],
        ),
        (
            "\"203.0.113.50:8080\"",
            "^\"203.0.113.60:8080\"",
            &["nat44.forwards.web.external", "203.0.113.60", "nat44.static.mail"],
        ),
        (
            "protocol: tcp, external: \"203.0.113.50:8080\"",
            "protocol: udp, external: \"203.0.113.50:27010\"",
            &["box.yaml:37:65: ", "nat44.forwards.games.external", "udp 203.0.113.50:27010", "nat44.forwards.web"],
        ),
        (
            "\"192.168.1.11:27000\"",
            "^\"192.168.1.11:65530\"",
            &["nat44.forwards.games.inside", "11 ports from 65530", "65535"],
        ),
        (
            "\"192.168.1.11:27000\"",
            "^\"192.168.1.11:27000-27005\"",
            &["nat44.forwards.games.inside", "27000-27005", "equally many"],
        ),
        (
            "\"192.168.1.10:80\"",
            "^\"172.16.0.1:80\"",
            &["nat44.forwards.web.inside", "172.16.0.1", "\"uplink\"", "\"inside\""],
        ),
        ("\"192.168.1.10:80\"", "^\"10.66.0.1:80\"", &["nat44.forwards.web.inside", "10.66.0.1", "add a route"]),
        ("\"192.168.1.10:80\"", "^\"192.168.1.1:80\"", &["nat44.forwards.web.inside", "192.168.1.1", "own address"]),
        (
            "external: \"203.0.113.50:8080\"",
            "external: ^\"127.0.0.1:8080\"",
            &["nat44.forwards.web.external", "127.0.0.1", "no address of a host"],
        ),
        (
            "external: \"203.0.113.50:8080\"",
            "external: ^\"198.51.100.1:8080\"",
            &["nat44.forwards.web.external", "198.51.100.1", "router of the route to 0.0.0.0/0"],
        ),
        // Static addresses.
        (
            "external: 203.0.113.60,",
            "external: ^203.0.113.35,",
            &["nat44.static.mail.external", "203.0.113.35", "pool \"public\"", "out of the pool"],
        ),
        (
            "external: 203.0.113.60,",
            "external: ^198.51.100.2,",
            &["nat44.static.mail.external", "198.51.100.2", "forwards"],
        ),
        (
            "external: 203.0.113.60,",
            "external: ^192.168.20.9,",
            &["nat44.static.mail.external", "192.168.20.0/24", "\"guests\""],
        ),
        (
            "  static:\n",
            "  static:\n    post: {from: outside, to: inside, external: 203.0.113.60, inside: 192.168.1.26}\n",
            &["box.yaml:40:49: ", "nat44.static.mail.external", "203.0.113.60", "nat44.static.post"],
        ),
        (
            "  static:\n",
            "  static:\n    post: {from: outside, to: inside, external: 203.0.113.61, inside: 192.168.1.25}\n",
            &["box.yaml:40:71: ", "nat44.static.mail.inside", "192.168.1.25", "nat44.static.post"],
        ),
        // Timers: the RFCs' least values.
        ("udp: 6m", "udp: ^119s", &["timers.udp", "1m 59s", "RFC 4787 REQ-5", "write 2m or more", "udp-ports"]),
        ("udp: 6m", "udp: ^300", &["timers.udp", "\"300\"", "unit"]),
        ("udp: 6m", "udp: ^100d", &["timers.udp", "100d is too long", "at most 30d"]),
        ("udp: 6m", "tcp-established: ^7439s", &["timers.tcp-established", "2h 3m 59s", "RFC 5382 REQ-5", "2h 4m"]),
        ("udp: 6m", "tcp-closing: ^239s", &["timers.tcp-closing", "3m 59s", "RFC 5382", "4m"]),
        ("udp: 6m", "tcp-opening: ^0s", &["timers.tcp-opening", "0s", "1s"]),
        ("fragment: 3s", "fragment: ^1s", &["timers.fragment", "1s", "RFC 6146", "write 2s or more"]),
        ("fragment: 3s", "fragment: ^61s", &["timers.fragment", "1m 1s is too long", "at most 1m"]),
        ("udp: 6m", "icmp: ^59s", &["timers.icmp", "59s", "RFC 5508 REQ-2", "1m"]),
        ("{53: 10s}", "{^1024: 10s}", &["timers.udp-ports.1024", "1024", "0 to 1023", "remove it"]),
        // What only the data plane's own compiler sees: static entries' addresses count too.
        ("203.0.113.0/28,", "100.64.0.0/16,", &["box.yaml:26:1: ", "pools", "65545 addresses"]),
        (
            "[203.0.113.0/28, 203.0.113.32-203.0.113.39, 203.0.113.50]",
            "[100.64.0.0/16]",
            &["box.yaml:2:1: ", "external addresses", "65536"],
        ),
        // ICMP, metrics, control.
        ("rate: 500", "rate: ^0", &["icmp.rate", "\"0\"", "from 1 to 1000000"]),
        (
            "sources: [198.51.100.2]",
            "sources: [^192.0.2.99]",
            &["icmp.sources[0]", "192.0.2.99 is no address of the gateway's", "`addresses:`"],
        ),
        (
            "sources: [198.51.100.2]",
            "sources: [198.51.100.2, ^192.168.1.1]",
            &["icmp.sources[1]", "198.51.100.2 of the same family", "one for each"],
        ),
        ("silent: [guests]", "silent: [^guest]", &["icmp.silent[0]", "\"guest\"", "did you mean \"guests\"?"]),
        ("127.0.0.1:9999", "127.0.0.1", &["box.yaml:46:19: ", "metrics.listen", "\"127.0.0.1\"", "127.0.0.1:17644"]),
        ("metrics: {", "control: {socket: ^run/x}\nmetrics: {", &["control.socket", "\"run/x\"", "an absolute path"]),
        (
            "metrics: {",
            "control: {group: ^\"wheel users\"}\nmetrics: {",
            &["control.group", "\"wheel users\"", "such as turnpike"],
        ),
    ];
    let mut surprises = Vec::new();
    for (from, marked, parts) in cases {
        let to = marked.replace('^', "");
        let place = match marked.find('^') {
            Some(at) => {
                let before = format!("{}{}", &GOOD[..GOOD.find(from).unwrap()], &marked[..at]);
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                format!("box.yaml:{}:{column}: ", before.matches('\n').count() + 1)
            }
            None => parts[0].to_owned(),
        };
        let message = refusal(from, &to);
        let said = |line: &str| line.starts_with(&place) && parts.iter().all(|part| line.contains(part));
        if !place.starts_with("box.yaml:") || !message.lines().any(said) {
            surprises
                .push(format!("{marked:?} should be refused at {place} with {parts:?}, but is with:\n{message}\n"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

/// What is one too many is refused, at its section or its name.
#[test]
fn limits_are_named() {
    let ports: String = (0..31).map(|i| format!("  p{i}: {{device: net_null{i}}}\n")).collect();
    let message = refusal("interfaces:\n", &format!("{ports}interfaces:\n"));
    assert!(message.contains("box.yaml:8:1: ports: there are 33 ports; at most 32"), "{message}");

    let interface = |i: usize| {
        let (outer, inner, zone) = (1 + i / 4000, 1 + i % 4000, i % 255);
        let tags = format!("outer-vlan: {outer}, vlan: {inner}");
        format!("  i{i}: {{port: lan, {tags}, zone: z{zone}, addresses: [\"fd01:{i:x}::1/64\"]}}\n")
    };
    let many: String = (0..4094).map(interface).collect();
    let message = refusal("routes:\n", &format!("{many}routes:\n"));
    assert!(message.contains("box.yaml:11:1: interfaces: there are 4097 interfaces; at most 4096"), "{message}");
    // The good file has two zones and its last interface in line 20: the zones z0 to z254 are one too many.
    let column = many.lines().nth(254).unwrap().find("z254").unwrap() + 1;
    let zone = format!("box.yaml:275:{column}: interfaces.i254.zone: \"z254\" is one zone too many; there may be 256");
    assert!(message.contains(&zone), "{message}");
}

/// What is said twice about one mistake is said once: a section that could not be read is not missed by others.
#[test]
fn a_mistake_has_no_echo() {
    for (from, to, key) in [
        ("zone: outside, addresses", "zone: out side, addresses", "interfaces.uplink.zone"),
        ("  uplink: {port: wan, zone", "  uplink: {prt: wan, zone", "interfaces.uplink.prt"),
        ("  uplink: {port", "  up link: {port", "interfaces.up link"),
        ("[198.51.100.2/24, ", "[198.51.100.2, ", "interfaces.uplink.addresses[0]"),
        ("[192.168.1.1/24, ", "[192.168.1.1, ", "interfaces.inside.addresses[0]"),
        ("  public:\n", "  pub lic:\n", "pools.pub lic"),
        ("[203.0.113.0/28, ", "[203.0.113.0/29/28, ", "pools.public.addresses[0]"),
        ("device: \"net_af_packet0,iface=lan0\"", "device: lan0", "ports.lan.device"),
    ] {
        let message = refusal(from, to);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(&format!(": {key}: ")), "{message}");
    }
}

/// An item that was refused keeps its place, so that the others are told where they are.
#[test]
fn items_after_a_bad_one_keep_their_index() {
    let message = refusal("[192.168.20.1/24]", "[192.168.20.1, 192.168.20.2/24, 192.168.20.255/24]");
    let [bad, broadcast] = message.lines().collect::<Vec<_>>()[..] else { panic!("{message}") };
    assert!(bad.starts_with("box.yaml:19:59: interfaces.guests.addresses[0]"), "{bad}");
    assert!(broadcast.starts_with("box.yaml:19:90: interfaces.guests.addresses[2]"), "{broadcast}");
}

/// Files in a directory of their own.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// GOOD without the pools and what follows, and these.
fn halves() -> (&'static str, &'static str) {
    GOOD.split_at(GOOD.find("pools:\n").unwrap())
}

#[test]
fn the_files_of_a_directory_are_merged_in_the_order_of_their_names() {
    let (first, second) = halves();
    let more = "version: 1\nicmp: {rate: 700}\nroutes:\n  - {to: 10.68.0.0/16, unreachable: true}\ninterfaces:\n  \
                guests: {mtu: 1400}\n";
    let files = [("10-base.yaml", first), ("9-nat.yaml", second), (".hidden.yaml", "!"), ("notes.txt", "!")];
    let directory = directory(&[&files[..], &[("99-more.yaml", more)]].concat());
    let config = Config::load(&[directory.path()]).unwrap();
    let spec = config.outline();
    // Byte order: 10-base, 9-nat, 99-more. Scalars are replaced, lists appended, mappings merged.
    assert_eq!((spec.icmp.rate, spec.icmp.burst), (700, 50));
    let routes: Vec<String> = spec.routes.iter().map(|route| route.prefix.to_string()).collect();
    assert_eq!(routes, ["0.0.0.0/0", "::/0", "10.66.0.0/16", "10.67.0.0/16", "10.68.0.0/16"]);
    assert_eq!((spec.interfaces[1].vlan, spec.interfaces[1].mtu), (Some(20), 1400));

    // Files that are named are merged in the order that they are named in.
    let path = |name| directory.path().join(name);
    let config = Config::load(&[path("99-more.yaml"), path("10-base.yaml"), path("9-nat.yaml")]).unwrap();
    assert_eq!(config.outline().icmp.rate, 500);
    assert_eq!(config.outline().routes[0].prefix, prefix("10.68.0.0/16"));
}

#[test]
fn a_problem_names_the_file_that_it_is_in() {
    let (first, second) = halves();
    let more = "version: 2\nicmp: {rate: 0}\nnat44:\n  rules:\n    carrier: {pool: publik}\n  static: [x]\nports: {wan: \
                {device: net_tap0}}\n";
    let directory = directory(&[("a.yaml", first), ("b.yaml", &second.replace("udp: 6m", "udp: 6")), ("c.yaml", more)]);
    let error = Config::load(&[directory.path()]).unwrap_err();
    let told: Vec<String> = error
        .problems
        .iter()
        .map(|p| format!("{} {:?} {}", p.file.file_name().unwrap().display(), p.position.unwrap(), p.key))
        .collect();
    assert_eq!(
        told,
        [
            "a.yaml (10, 3) ports.wan",
            "b.yaml (16, 8) timers.udp",
            "c.yaml (1, 10) version",
            "c.yaml (2, 14) icmp.rate",
            "c.yaml (5, 21) nat44.rules.carrier.pool",
            "c.yaml (6, 3) nat44.static",
        ]
    );
    // What is no YAML is told for every file, and nothing else then.
    let directory = self::directory(&[("a.yaml", "a: [\n"), ("b.yaml", GOOD), ("c.yaml", "b: \"1\n")]);
    let error = Config::load(&[directory.path()]).unwrap_err();
    let files: Vec<_> = error.problems.iter().map(|p| p.file.file_name().unwrap().to_owned()).collect();
    assert_eq!(files, ["a.yaml", "c.yaml"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = directory(&[("notes.txt", GOOD)]);
    let message = |path: &Path| Config::load(&[path]).unwrap_err().to_string();
    assert!(message(directory.path()).ends_with(": holds no *.yaml; put one there, or name a file"));
    let latin = directory.path().join("latin.yaml");
    std::fs::write(&latin, b"version: 1\n# K\xf6ln\n").unwrap();
    assert!(message(&latin).ends_with("latin.yaml:2:4: the text is not UTF-8 here; save it as UTF-8"));
    assert!(message(Path::new("/dev/zero")).contains("is larger than 16 MiB"));
}

/// Whatever is nested or repeated, reading takes no more than the file's own size.
#[test]
fn hostile_yaml_is_refused() {
    let laughs: String = (1..9).map(|i| format!("l{i}: &l{i} [*l{0}, *l{0}, *l{0}, *l{0}]\n", i - 1)).collect();
    for (text, part) in [
        (format!("l0: &l0 [lol]\n{laughs}"), "anchors"),
        ("[".repeat(100_000), "nested"),
        ("{a: ".repeat(100_000), "nested"),
        ((0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect(), "more than 32 levels"),
        ("? ".repeat(10_000), "more than 32 levels"),
        ("- ".repeat(10_000), "more than 32 levels"),
    ] {
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.contains(part) && message.len() < 2000, "{message}");
    }
    let message = parse("\"\\e[2Jx\": 1").unwrap_err().to_string();
    assert!(!message.contains('\u{1b}'), "{message:?}");
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
             external: 203.0.113.50:27000-27010, inside: 192.168.1.11:27000, filtering: endpoint-independent}",
            "nat44.forwards.play: added: {from: outside, to: inside, protocol: udp, \
             external: 203.0.113.50:27000-27010, inside: 192.168.1.11:27000, filtering: endpoint-independent}",
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
    let error = Config::load(&["/nonexistent/turnpike.yaml"]).unwrap_err().to_string();
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

/// Buffers hold the largest packet of any interface, so the memory for them grows with it.
#[test]
fn buffers_for_jumbo_packets_take_their_memory() {
    let jumbo = GOOD.replace("    mtu: 1500", "    mtu: 9000");
    parse(&jumbo).unwrap();
    // 16384 buffers of 9216 bytes, and 512 more for each.
    let error = parse(&jumbo.replace("size: 256M", "size: 151M")).unwrap_err().to_string();
    assert!(error.contains("boot.memory.size") && error.contains("write at least 153M"), "{error}");
    parse(&jumbo.replace("size: 256M", "size: 153M")).unwrap();
}

/// Sections of stateless prefix translation, behind [`GOOD`].
const PREFIXES: &str = r#"
nptv6:
  home: {from: inside, to: outside, inside: "fd01:203:405::/48", outside: "2001:db8:1:200::/56", allow-zero-iid: true}
map66:
  mesh: {from: inside, to: outside, inside: "fdca:ffee:babe::/64", outside: "2001:db8:7:1::/64", own-addresses: mapped}
netmap:
  branch: {from: inside, to: outside, inside: 10.1.2.0/24, outside: 198.18.5.0/24}
  six: {from: inside, to: outside, inside: "fd00:7::/112", outside: "2001:db8:8::/112"}
firewall: none
"#;

#[test]
fn prefix_rules_are_read_and_checked() {
    let good = format!("{GOOD}{PREFIXES}");
    let spec = parse(&good).unwrap().spec(&|_| MacAddr::default(), [0; 16], 1);
    let read: Vec<_> = spec.prefixes.iter().map(|rule| (&*rule.name, rule.inside, rule.outside, rule.kind)).collect();
    assert_eq!(
        read,
        [
            (
                "home",
                prefix("fd01:203:405::/48"),
                prefix("2001:db8:1:200::/56"),
                PrefixKind::Nptv6 { allow_zero_iid: true }
            ),
            ("mesh", prefix("fdca:ffee:babe::/64"), prefix("2001:db8:7:1::/64"), PrefixKind::Map66 { maps_own: true }),
            ("branch", prefix("10.1.2.0/24"), prefix("198.18.5.0/24"), PrefixKind::Netmap),
            ("six", prefix("fd00:7::/112"), prefix("2001:db8:8::/112"), PrefixKind::Netmap),
        ]
    );
    assert!(spec.prefixes.iter().all(|rule| (rule.from, rule.to) == (ZoneId(0), ZoneId(1))));

    let cases: &[(&str, &str, &[&str])] = &[
        (
            "fd01:203:405::/48",
            "fd01:203:405::1/48",
            &["nptv6.home.inside", "bits set after its length", "fd01:203:405::/48"],
        ),
        ("2001:db8:1:200::/56", "2001:db8:1:200::/72", &["nptv6.home.outside", "leaves no word", "map66", "netmap"]),
        ("2001:db8:1:200::/56", "192.0.2.0/24", &["nptv6.home.outside", "not of one address family"]),
        ("2001:db8:1:200::/56", "ff02::/48", &["nptv6.home.outside", "no prefix of hosts"]),
        ("2001:db8:1:200::/56", "fe80::/64", &["nptv6.home.outside", "no prefix of hosts"]),
        ("2001:db8:1:200::/56", "2001:db8:7::/48", &["map66.mesh.outside", "overlaps 2001:db8:7::/48 of nptv6.home"]),
        ("fdca:ffee:babe::/64", "fdca:ffee:babe::/56", &["map66.mesh.inside", "16, 32, 48, 64, 80, 96 or 112"]),
        ("fdca:ffee:babe::/64", "fdca:ffee:babe::/48", &["map66.mesh.outside", "not of one length", "48 bits"]),
        ("own-addresses: mapped", "own-addresses: kept", &["map66.mesh.own-addresses", "exempt or mapped"]),
        ("198.18.5.0/24", "198.18.5.0/25", &["netmap.branch.outside", "not of one length", "24 bits"]),
        ("198.18.5.0/24", "203.0.113.0/24", &["netmap.branch.outside", "203.0.113.0 of pools.public", "one use"]),
        (
            "inside: 10.1.2.0/24, outside: 198.18.5.0/24",
            "inside: 10.1.2.3/32, outside: 198.51.100.2/32",
            &["netmap.branch.outside", "the gateway's own address", "uplink"],
        ),
        ("\"fd00:7::/112\"", "\"fd01:203:405::/48\"", &["netmap.six.inside", "by nptv6.home already"]),
        ("branch: {from: inside, to: outside", "branch: {from: inside, to: inside", &["netmap.branch.to", "two zones"]),
        ("firewall: none", "firewall: open", &["firewall", "write none"]),
    ];
    for (from, to, wanted) in cases {
        assert_eq!(good.matches(from).count(), 1, "{from:?} must mark one place");
        let error = match parse(&good.replace(from, to)) {
            Ok(_) => panic!("accepted: {to:?}"),
            Err(error) => error.to_string(),
        };
        for text in *wanted {
            assert!(error.contains(text), "{to:?} gives {error:?}, without {text:?}");
        }
    }
}

/// A section of stateless translation between the families, behind [`GOOD`].
const CROSSINGS: &str = r#"
siit:
  border:
    ipv4: outside
    ipv6: inside
    prefixes: ["2001:db8:46::/96", "64:ff9b:1::/48"]
    destinations: [198.18.5.0/24, 198.18.6.7-198.18.6.20]
    mappings: [{ipv4: 198.18.7.1, ipv6: "2001:db8:7::1"}, {ipv4: 198.18.8.0/24, ipv6: "2001:db8:8::/120"}]
    hairpin: simple
    udp-checksum-none: drop
    lowest-ipv6-mtu: 1400
    traffic-class: zero
    tos: 32
    mtu-plateaus: [1500, 1280]
    error-sources: [198.18.9.1-198.18.9.4]
"#;

#[test]
fn translators_between_the_families_are_read_and_checked() {
    let good = format!("{GOOD}{CROSSINGS}");
    let spec = parse(&good).unwrap().spec(&|_| MacAddr::default(), [0; 16], 1);
    let [border] = &spec.crossings[..] else { panic!("{:?}", spec.crossings) };
    assert_eq!((border.ipv4, border.ipv6), (ZoneId(1), ZoneId(0)));
    assert_eq!(border.prefixes.iter().map(|it| it.length()).collect::<Vec<_>>(), [96, 48]);
    assert_eq!(border.destinations.len(), 2);
    let host = |last| Ipv4Addr::new(198, 18, 8, last).to_bits();
    assert_eq!(border.mappings.to6(host(77)), Some("2001:db8:8::4d".parse::<std::net::Ipv6Addr>().unwrap().to_bits()));
    assert_eq!((border.hairpin, border.settings.udp_checksum_none), (Hairpin::Simple, UdpChecksumNone::Drop));
    assert_eq!(
        (border.settings.lowest_ipv6_mtu, border.settings.copy_tos, border.settings.tos),
        (1400, false, Some(32))
    );
    assert_eq!(border.settings.plateaus, [1500, 1280]);
    let address = |last| Ipv4Addr::new(198, 18, 9, last);
    assert_eq!(border.error_sources, [address(1)..=address(4)]);
    // Without a pool, errors come from the gateway's own address (RFC 6791).
    let bare = parse(&good.replace("    error-sources: [198.18.9.1-198.18.9.4]\n", "")).unwrap();
    let own = Ipv4Addr::new(198, 51, 100, 2);
    assert_eq!(bare.outline().crossings[0].error_sources, [own..=own]);

    let cases: &[(&str, &str, &[&str])] = &[
        ("2001:db8:46::/96", "2001:db8:46::/95", &["siit.border.prefixes[0]", "32, 40, 48, 56, 64 or 96"]),
        ("2001:db8:46::/96", "2001:db8::/33", &["siit.border.prefixes[0]", "32, 40, 48, 56, 64 or 96"]),
        ("2001:db8:46::/96", "2001:db8:46:0:ff00::/96", &["siit.border.prefixes[0]", "bits 64 to 71"]),
        ("2001:db8:46::/96", "192.0.2.0/24", &["siit.border.prefixes[0]", "is IPv4"]),
        ("64:ff9b:1::/48", "2001:db8:46::/96", &["siit.border.prefixes[1]", "given twice"]),
        ("\"2001:db8:8::/120\"", "\"2001:db8:8::/121\"", &["siit.border.mappings[1]", "leaves more bits", "RFC 7757"]),
        (
            "{ipv4: 198.18.7.1, ipv6: \"2001:db8:7::1\"}",
            "{ipv4: 198.18.8.0/24, ipv6: \"2001:db8:9::/120\"}",
            &["siit.border.mappings", "IPv4 prefix is in", "too"],
        ),
        ("ipv4: 198.18.7.1,", "ipv4: \"2001:db8::7\",", &["siit.border.mappings[0]", "not of the two families"]),
        ("hairpin: simple", "hairpin: maybe", &["siit.border.hairpin", "intrinsic, simple or none"]),
        ("lowest-ipv6-mtu: 1400", "lowest-ipv6-mtu: 1200", &["siit.border.lowest-ipv6-mtu", "1280"]),
        ("    hairpin: simple", "    destination-prefix: \"2001:db8:47::/96\"", &["destination-prefix", "not among"]),
        (
            "    hairpin: simple",
            "    mappings-file: no-such.csv",
            &["siit.border.mappings-file", "no-such.csv cannot be read"],
        ),
    ];
    for (from, to, wanted) in cases {
        assert_eq!(good.matches(from).count(), 1, "{from:?} must mark one place");
        let error = match parse(&good.replace(from, to)) {
            Ok(_) => panic!("accepted: {to:?}"),
            Err(error) => error.to_string(),
        };
        for text in *wanted {
            assert!(error.contains(text), "{to:?} gives {error:?}, without {text:?}");
        }
    }
}

/// EAM-09: a hundred thousand rows from a file beside the configuration, as people and Jool write them; a wrong one is named by its line.
#[test]
fn mappings_come_from_a_file() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mappings");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!("{GOOD}{CROSSINGS}").replace("    hairpin: simple", "    mappings-file: eam.csv");
    let file = directory.join("turnpike.yaml");
    std::fs::write(&file, &text).unwrap();
    let mut rows = String::from("IPv6 Prefix,IPv4 Prefix\n# a remark\n\n");
    for row in 0..100_000_u32 {
        let (four, six) =
            (Ipv4Addr::from_bits(0x0b00_0000 + row), format!("2001:db8:9::{:x}:{:x}", row >> 16, row & 0xffff));
        // In either order, with spaces or without.
        rows += &if row % 2 == 0 { format!("{six}/128,{four}/32\n") } else { format!("{four}, {six}\n") };
    }
    std::fs::write(directory.join("eam.csv"), &rows).unwrap();
    let config = Config::load(&[&file]).unwrap();
    let mappings = &config.outline().crossings[0].mappings;
    assert_eq!(mappings.len(), 100_002);
    let six = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
    assert_eq!(mappings.to6(0x0b00_0000 + 99_999), Some(six("2001:db8:9::1:869f")));

    // A change of the file is a change of the configuration.
    std::fs::write(directory.join("eam.csv"), rows.replace("11.0.0.7,", "11.9.0.7,")).unwrap();
    let changed = Config::load(&[&file]).unwrap();
    let changes = config.difference(&changed);
    assert!(changes.iter().any(|change| change.key == "siit.border.mappings-file"), "{changes:?}");

    std::fs::write(directory.join("eam.csv"), rows + "11.9.9.9;2001:db8::7\n").unwrap();
    let error = Config::load(&[&file]).unwrap_err().to_string();
    assert!(error.contains("eam.csv:100004: \"11.9.9.9;2001:db8::7\" is no mapping; write"), "{error}");
}

/// NPT-13: a prefix that is set at run time outlives reloads, gives way to the file's when it is taken back, and goes with its rule.
#[test]
fn a_prefix_is_set_at_run_time() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("renumbered.yaml");
    let text = format!("{GOOD}{PREFIXES}");
    std::fs::write(&file, &text).unwrap();
    let config = Config::load(&[&file]).unwrap();
    let outside = |config: &Config| config.outline().prefixes.first().map(|rule| rule.outside);
    let set = config.renumber("nptv6.home", Some(prefix("2001:db8:99::/48"))).unwrap();
    assert_eq!((outside(&set), set.is_renumbered("nptv6.home")), (Some(prefix("2001:db8:99::/48")), true));
    let changes: Vec<_> = config.difference(&set).into_iter().map(|change| change.key).collect();
    assert_eq!(changes, ["nptv6.home.outside"]);
    assert_eq!(outside(&set.reread().unwrap()), Some(prefix("2001:db8:99::/48")));
    let unset = set.renumber("nptv6.home", None).unwrap();
    assert_eq!((outside(&unset), unset.is_renumbered("nptv6.home")), (Some(prefix("2001:db8:1:200::/56")), false));
    // As the file's own, it is checked.
    let wrong = set.renumber("nptv6.home", Some(prefix("2001:db8:7:1::/64"))).unwrap_err().to_string();
    assert!(wrong.contains("overlaps"), "{wrong}");
    let nobody = set.renumber("nptv6.nobody", Some(prefix("2001:db8:99::/48"))).unwrap_err().to_string();
    assert!(nobody.contains("no rule is called \"nptv6.nobody\"; there is nptv6.home"), "{nobody}");
    std::fs::write(&file, text.replace("  home: {from", "  other: {from")).unwrap();
    let gone = set.reread().unwrap();
    assert_eq!((outside(&gone), gone.is_renumbered("nptv6.home")), (Some(prefix("2001:db8:1:200::/56")), false));
}
