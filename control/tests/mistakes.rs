//! Mistakes as somebody makes them who has never seen the manual: each is answered with what mends it.
#![allow(missing_docs)]

use std::path::Path;

use control::config::Config;

const GOOD: &str = r#"version: 1
ports:
  lan: {device: "net_af_packet0,iface=eth1"}
  wan: {device: "net_af_packet1,iface=eth2"}
interfaces:
  inside:
    port: lan
    zone: inside
    addresses: [192.168.1.1/24]
  uplink:
    port: wan
    zone: outside
    addresses: [198.51.100.2/24]
routes:
  - {to: 0.0.0.0/0, via: 198.51.100.1}
pools:
  public:
    addresses: [203.0.113.1]
nat44:
  rules:
    everyone:
      from: inside
      to: outside
      pool: public
timers:
  udp: 5m
"#;

/// What was done, as a piece of [`GOOD`] and what stands there instead, and the whole answer.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    // A tab in place of spaces.
    (
        "    port: lan\n",
        "	port: lan\n",
        &["gateway.yaml:7:2: interfaces.inside: this is not YAML: a tab stands in the indentation; indent with spaces"],
    ),
    // No quotes around an address with a bracket.
    (
        "timers:\n",
        "metrics:\n  listen: [::1]:17644\ntimers:\n",
        &[
            "gateway.yaml:26:16: metrics: this is not YAML: this belongs to nothing above; begin all keys of a section in the same column, and put quotes around a value that begins with a bracket or a quote",
        ],
    ),
    // One space too few.
    (
        "    zone: outside",
        "   zone: outside",
        &[
            "gateway.yaml:12:4: interfaces: this is not YAML: this belongs to nothing above; begin all keys of a section in the same column, and put quotes around a value that begins with a bracket or a quote",
        ],
    ),
    // One level too deep.
    (
        "    zone: outside",
        "      zone: outside",
        &[
            "gateway.yaml:12:11: interfaces.uplink: this is not YAML: a `:` cannot stand here; begin all keys of a section in the same column, and put quotes around a value with `: ` in it",
        ],
    ),
    // No space after a colon.
    (
        "    zone: outside",
        "    zone:outside",
        &[
            "gateway.yaml:13:5: interfaces.uplink: this is not YAML: a `:` is missing here or in the line above; put a `:` and a space after each key",
        ],
    ),
    // A quote that is not closed.
    (
        "iface=eth2\"}",
        "iface=eth2}",
        &[
            "gateway.yaml:4:17: ports.wan.device: this is not YAML: the text in quotes is wrong here; look for a quote that is missing, and write `\\` as `\\\\` in double quotes",
        ],
    ),
    // A list that is not closed.
    (
        "[203.0.113.1]",
        "[203.0.113.1",
        &[
            "gateway.yaml:19:6: pools.public.addresses[0]: this is not YAML: a bracket here or above is not closed, or closed twice; count `[` `]` `{` `}` and the commas between, and put quotes around a value that begins with a bracket",
        ],
    ),
    // A key misspelt.
    (
        "    addresses: [198",
        "    adresses: [198",
        &[
            "gateway.yaml:13:5: interfaces.uplink.adresses: there is no key \"adresses\" here; did you mean \"addresses\"?",
        ],
    ),
    // A key of another program.
    (
        "    zone: outside\n",
        "    zone: outside\n    ip-address: 198.51.100.2\n",
        &[
            "gateway.yaml:13:5: interfaces.uplink.ip-address: there is no key \"ip-address\" here; the keys here are port, vlan, outer-vlan, mac, zone, addresses, mtu, mss-clamp, neighbours",
        ],
    ),
    // A tag that cannot be.
    (
        "    port: lan\n",
        "    port: lan\n    vlan: 5000\n",
        &["gateway.yaml:8:11: interfaces.inside.vlan: \"5000\" does not do; write a whole number from 1 to 4094"],
    ),
    // An address without its length.
    (
        "[192.168.1.1/24]",
        "[192.168.1.1, ::1]",
        &[
            "gateway.yaml:9:17: interfaces.inside.addresses[0]: \"192.168.1.1\" does not do: the length of its prefix is missing; write an address with a prefix length, such as 192.0.2.1/24 or \"2001:db8::1/64\"",
            "gateway.yaml:9:30: interfaces.inside.addresses[1]: \"::1\" does not do: the length of its prefix is missing; write an address with a prefix length, such as 192.0.2.1/24 or \"2001:db8::1/64\"",
        ],
    ),
    // The address of the network for that of the host.
    (
        "[192.168.1.1/24]",
        "[192.168.1.0/24]",
        &[
            "gateway.yaml:9:17: interfaces.inside.addresses[0]: 192.168.1.0/24 is the network address of its network; write that of a host, such as 192.168.1.1/24",
        ],
    ),
    // A pool that there is not.
    (
        "pool: public",
        "pool: publik",
        &["gateway.yaml:24:13: nat44.rules.everyone.pool: no pool is called \"publik\"; did you mean \"public\"?"],
    ),
    // Two interfaces in one network.
    (
        "[198.51.100.2/24]",
        "[198.51.100.2/24, 192.168.1.2/24]",
        &[
            "gateway.yaml:13:34: interfaces.uplink.addresses[1]: 192.168.1.0/24 overlaps 192.168.1.0/24 of interface \"inside\"; give them different prefixes (networks with equal addresses need realms, which come in a later version)",
        ],
    ),
    // Lists in place of names.
    (
        "  inside:\n    port: lan\n    zone: inside\n    addresses: [192.168.1.1/24]\n  uplink:\n",
        "  - name: uplink\n",
        &[
            "gateway.yaml:5:1: interfaces: a list does not do; write entries without dashes, each a name (a letter or digit, then letters, digits, `-`, `_` or `.`, at most 32 in all), a colon, and a section of the keys port, vlan, outer-vlan, mac, zone, addresses, mtu, mss-clamp, neighbours",
        ],
    ),
    // One thing in place of a list of it.
    (
        "[203.0.113.1]",
        "203.0.113.1",
        &[
            "gateway.yaml:18:16: pools.public.addresses: \"203.0.113.1\" is not a list; write [203.0.113.1], in brackets",
        ],
    ),
    // A time without its unit.
    (
        "udp: 5m",
        "udp: 300",
        &[
            "gateway.yaml:26:8: timers.udp: \"300\" does not do: its unit is missing; write a time with its unit, such as 90s, 5m, 2h or 1h 30m",
        ],
    ),
    // A time that is too short.
    (
        "udp: 5m",
        "udp: 30s",
        &[
            "gateway.yaml:26:8: timers.udp: 30s is too short (RFC 4787 REQ-5 allows less than 120s only to ports 0 to 1023, which `timers.udp-ports` is for); write 2m or more (default 5m)",
        ],
    ),
    // A key given twice.
    (
        "    zone: inside\n",
        "    zone: inside\n    zone: lan\n",
        &[
            "gateway.yaml:9:5: interfaces.inside.zone: \"zone\" is given twice, first in line 8; remove one of the two, or rename it",
        ],
    ),
    // Both kinds of device.
    (
        "{device: \"net_af_packet1,iface=eth2\"}",
        "{device: \"net_af_packet1,iface=eth2\", pci: \"0000:03:00.0\"}",
        &[
            "gateway.yaml:4:3: ports.wan: both `device` and `pci` are given; write either `device: \"net_...\"` or `pci: \"0000:03:00.0\"`",
        ],
    ),
    // A kernel's name for a device.
    (
        "{device: \"net_af_packet1,iface=eth2\"}",
        "{device: eth2}",
        &[
            "gateway.yaml:4:17: ports.wan.device: \"eth2\" does not do; write a DPDK virtual device: its driver, a number and arguments, such as \"net_af_packet0,iface=eth1\" (a PCI device goes under `pci:`)",
        ],
    ),
    // A section that is commented out but for its name.
    (
        "  - {to: 0.0.0.0/0, via: 198.51.100.1}\n",
        "  # - {to: 0.0.0.0/0, via: 198.51.100.1}\n",
        &[
            "gateway.yaml:14:1: routes: nothing stands here; write a list (in brackets, or a dash before each item), each item a section of the keys to, via, interface, unreachable, or remove the key",
        ],
    ),
    // A router in another network.
    (
        "via: 198.51.100.1}",
        "via: 198.51.101.1}",
        &[
            "gateway.yaml:15:26: routes[0].via: 198.51.101.1 is on no connected prefix; name a router on one of 192.168.1.0/24, 198.51.100.0/24",
        ],
    ),
    // Yes for true.
    (
        "addresses: [203.0.113.1]\n",
        "addresses: [203.0.113.1]\n    proxy-arp: yes\n",
        &["gateway.yaml:19:16: pools.public.proxy-arp: \"yes\" does not do; write true or false"],
    ),
    // A template that was not filled in.
    (
        "pool: public",
        "pool: {{ pool }}",
        &[
            "gateway.yaml:24:14: nat44.rules.everyone.pool: a list or mapping stands where a key belongs; write one word before the `:`, and put quotes around a value that begins with `[` or `{`",
        ],
    ),
    // A key left out.
    (
        "      to: outside\n",
        "",
        &[
            "gateway.yaml:21:5: nat44.rules.everyone.to: \"to\" is missing; add `to:` with a name (a letter or digit, then letters, digits, `-`, `_` or `.`, at most 32 in all)",
        ],
    ),
    // Several at once: all are told.
    (
        "    zone: inside\n    addresses: [192.168.1.1/24]\n",
        "    zone: inside\n    mtu: 9999\n    addresses: [192.168.1.1/24, 10.0.0.1]\n    neighbours: {10.0.0.7: 0}\n",
        &[
            "gateway.yaml:9:10: interfaces.inside.mtu: \"9999\" does not do; write a whole number from 68 to 9000",
            "gateway.yaml:10:33: interfaces.inside.addresses[1]: \"10.0.0.1\" does not do: the length of its prefix is missing; write an address with a prefix length, such as 192.0.2.1/24 or \"2001:db8::1/64\"",
            "gateway.yaml:11:28: interfaces.inside.neighbours.10.0.0.7: \"0\" does not do; write the Ethernet address of one station, such as \"02:00:00:00:00:77\"",
        ],
    ),
];

#[test]
fn each_answer_says_how_to_mend_the_file() {
    assert!(Config::parse(GOOD, Path::new("gateway.yaml")).is_ok());
    for (from, to, answer) in MISTAKES {
        assert_eq!(GOOD.matches(from).count(), 1, "{from:?} must mark one place");
        let error = Config::parse(&GOOD.replace(from, to), Path::new("gateway.yaml")).expect_err(to);
        assert_eq!(error.to_string().lines().collect::<Vec<_>>(), *answer, "{to}");
        for line in answer.iter() {
            assert!(line.contains("; "), "{line} has no remedy");
        }
    }
}
