//! `turnpike check` as its user sees it: text, exit code, and which stream it is on.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn turnpike(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    Command::new(env!("CARGO_BIN_EXE_turnpike")).args(args).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The report on a good file, its runs of spaces made one.
fn report(file: &str) -> String {
    let output = turnpike(&["check", file]);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""));
    let lines: Vec<String> =
        text(&output.stdout).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join("\n")
}

#[track_caller]
fn says(report: &str, line: &str) {
    assert!(report.lines().any(|other| other == line), "no line {line:?} in:\n{report}");
}

#[test]
fn a_good_file_is_explained() {
    let report = report("configs/nat44.yaml");
    says(&report, "lan net_af_packet0,iface=lan0 1024, 1024 inside (untagged), guests (tag 20)");
    says(&report, "wan PCI 0000:03:00.0 1024, 1024 uplink (untagged)");
    says(&report, "192.168.20.0/24 interface guests, on the link its addresses");
    says(&report, "0.0.0.0/0 198.51.100.1 on interface uplink routes");
    // 16 + 8 + 1 addresses, 65535 ports each.
    says(
        &report,
        "public 203.0.113.0-203.0.113.15, 203.0.113.32-203.0.113.39, 203.0.113.50 25 1-65535 1638375 yes yes",
    );
    says(&report, "192.168.0.0/16 to any: translated to pool public (rule subscribers)");
    says(&report, "tcp 192.168.1.10:80 leaves as tcp 203.0.113.50:8080 (forward web)");
    says(&report, "unsolicited, to an external address or 192.168.0.0/16: dropped");
    says(&report, "to the gateway's own 192.168.1.1, 192.168.20.1: dropped");
    says(&report, "all else: routed, not translated");
    says(&report, "games outside udp 203.0.113.50:27000-27010 udp 192.168.1.11:27000-27010 inside anyone");
    says(&report, "mail outside 203.0.113.60 192.168.1.25 inside anyone");
    says(&report, "TCP, established 2h 4m");
    says(&report, "IPv6 is routed into zone inside from everywhere: NAT44 does not shield it");
}

/// What an interface is told by on the wire: its tags, and its Ethernet address.
#[test]
fn tags_and_ethernet_addresses_are_shown() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("customers.yaml");
    let good = include_str!("../../configs/minimal.yaml");
    let customer = |name: &str, outer, net| {
        format!(
            "  {name}: {{port: lan, outer-vlan: {outer}, vlan: 20, mac: \"02:00:00:00:00:{net:02x}\", zone: inside, \
             addresses: [192.168.{net}.1/24]}}\n"
        )
    };
    let both = customer("one", 200, 30) + &customer("two", 300, 40);
    std::fs::write(&file, good.replace("interfaces:\n", &format!("interfaces:\n{both}"))).unwrap();
    let report = report(file.to_str().unwrap());
    assert!(report.contains(" one (tag 20 within 200), two (tag 20 within 300), inside (untagged)\n"), "{report}");
    says(&report, "one inside 02:00:00:00:00:1e 192.168.30.1/24 1500 off");
    assert!(report.contains("\ninside inside the port's 192.168.1.1/24 1500 off"), "{report}");
}

/// A host that no rule covers is closed by its forward or static entry alone; the gateway's address beside it is not.
#[test]
fn hosts_with_a_forward_only_are_said_to_be_closed() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("servers.yaml");
    let good = include_str!("../../configs/nat44.yaml");
    std::fs::write(&file, good.replace("source: [192.168.0.0/16]", "source: [192.168.20.0/24]")).unwrap();
    let report = report(file.to_str().unwrap());
    let closed = "192.168.20.0/24, 192.168.1.10, 192.168.1.11, 192.168.1.25";
    says(&report, &format!("unsolicited, to an external address or {closed}: dropped"));
    says(&report, "to the gateway's own 192.168.20.1: dropped");
}

#[test]
fn zones_without_a_rule_are_said_to_be_routed() {
    let report = report("configs/home.yaml");
    says(&report, "home guests routed: no rule is about these zones routed");
    says(&report, "guests home routed: no rule is about these zones routed");
}

#[test]
fn a_shared_uplink_address_is_pointed_out() {
    let report = report("configs/home.yaml");
    let note = "198.51.100.2 of pool uplink is also the gateway's own on uplink: of what belongs to no session, pings reach \
                the gateway, and from inside all else";
    says(&report, note);
}

#[test]
fn a_bad_file_is_refused_on_standard_error_with_code_2() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bad.yaml");
    let good = include_str!("../../configs/nat44.yaml");
    let bad = good.replace("udp: 5m", "udp: 30s").replace("pool: public\n", "pool: publc\n");
    std::fs::write(&file, &bad).unwrap();
    let output = turnpike(&["check", file.to_str().unwrap()]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(2), ""));
    let errors = text(&output.stderr);
    let [pool, timer] = errors.lines().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    // Where they are, as grep and an editor count it.
    let place = |needle: &str| {
        let (line, text) = bad.lines().enumerate().find(|(_, line)| line.contains(needle)).unwrap();
        format!("bad.yaml:{}:{}: ", line + 1, text.find(needle).unwrap() + 1)
    };
    let unknown =
        place("publc") + "nat44.rules.subscribers.pool: no pool is called \"publc\"; did you mean \"public\"?";
    assert!(pool.ends_with(&unknown), "{pool}");
    assert!(timer.contains(&(place("30s") + "timers.udp: 30s is too short (RFC 4787 REQ-5")), "{timer}");
}

#[test]
fn a_missing_file_and_wrong_use_end_with_code_2() {
    let output = turnpike(&["check", "/nonexistent/turnpike.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nonexistent/turnpike.yaml: cannot be read: No such file"));
    assert_eq!(turnpike(&["check", "--frobnicate"]).status.code(), Some(2));
    assert_eq!(turnpike(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(turnpike(&[]).status.code(), Some(2));
}

#[test]
fn help_has_an_example_and_names_the_default_file() {
    for args in [&["--help"][..], &["check", "--help"][..], &["check", "-h"][..]] {
        let output = turnpike(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Example:\n  turnpike check configs/minimal.yaml"), "{args:?}");
    }
    assert!(text(&turnpike(&["check", "-h"]).stdout).contains("/etc/turnpike]"));
}

#[test]
fn several_files_are_checked_together() {
    let directory = tempfile::tempdir().unwrap();
    let good = include_str!("../../configs/nat44.yaml");
    let (first, second) = good.split_at(good.find("pools:").unwrap());
    std::fs::write(directory.path().join("a.yaml"), first).unwrap();
    std::fs::write(directory.path().join("b.yaml"), second).unwrap();
    let whole = report("configs/nat44.yaml");
    let parts = report(directory.path().to_str().unwrap());
    let after_title = |report: &str| report.split_once('\n').unwrap().1.to_owned();
    assert_eq!(after_title(&parts), after_title(&whole));
    let half = turnpike(&["check", directory.path().join("b.yaml").to_str().unwrap()]);
    assert_eq!(half.status.code(), Some(2));
    assert!(text(&half.stderr).contains("b.yaml:1:1: version: \"version\" is missing"));
}

#[test]
fn the_schema_is_printed() {
    let output = turnpike(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), include_str!("../../configs/turnpike.schema.json"));
}

/// A file of stateless prefix translation, in a file of its own beside the others.
fn prefixes() -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("prefixes.yaml");
    let good = include_str!("../../configs/minimal.yaml");
    let text = good.to_owned()
        + r#"
nptv6:
  home: {from: inside, to: outside, inside: "fd01:203:405::/48", outside: "2001:db8:1::/48"}
netmap:
  branch: {from: inside, to: outside, inside: 10.1.2.0/24, outside: 198.18.5.0/24}
"#;
    std::fs::write(&file, text).unwrap();
    file
}

/// What passes both ways without state is said so (there is no firewall).
#[test]
fn prefix_rules_are_said_to_be_open() {
    let report = report(prefixes().to_str().unwrap());
    says(&report, "nptv6.home fd01:203:405::/48 2001:db8:1::/48 inside outside checksum-neutral (RFC 6296)");
    says(&report, "netmap.branch 10.1.2.0/24 198.18.5.0/24 inside outside bits behind the prefix kept");
    assert!(report.contains("from fd01:203:405::/48: from 2001:db8:1::/48 (nptv6.home)"), "{report}");
    assert!(report.contains("to 198.18.5.0/24: to 10.1.2.0/24 (netmap.branch), from anyone"), "{report}");
    let open = "lets everybody in zone outside reach hosts of fd01:203:405::/48 by their outside addresses";
    assert!(report.contains(&format!("nptv6.home {open}")), "{report}");
}

/// RFC 6296 §3.6's example, asked for from either side; and what no rule translates.
#[test]
fn an_address_is_translated_for_its_reader() {
    let file = prefixes();
    let ask = |address: &str| {
        let output = turnpike(&["translate-address", "-c", file.to_str().unwrap(), address]);
        (output.status.code(), text(&output.stdout))
    };
    let inside = "fd01:203:405:1::1234 as a source, from inside to outside: 2001:db8:1:d550::1234 (nptv6.home)\n";
    assert_eq!(ask("fd01:203:405:1::1234"), (Some(0), inside.to_owned()));
    let outside = "2001:db8:1:d550::1234 as a destination, from outside to inside: fd01:203:405:1::1234 (nptv6.home)\n";
    assert_eq!(ask("2001:db8:1:d550::1234"), (Some(0), outside.to_owned()));
    let (code, said) = ask("fd01:203:405:ffff::1");
    assert_eq!((code, said.contains("refused, its subnet has no counterpart")), (Some(0), true), "{said}");
    let (code, said) = ask("10.1.2.77");
    assert_eq!((code, said.contains("198.18.5.77 (netmap.branch)")), (Some(0), true), "{said}");
    let (code, said) = ask("192.168.1.10");
    assert_eq!((code, said.contains("an address and port of pool")), (Some(0), true), "{said}");
    assert_eq!(ask("2001:db8:77::1"), (Some(1), "2001:db8:77::1: nothing translates it\n".to_owned()));
    assert_eq!(turnpike(&["translate-address", "-c", file.to_str().unwrap(), "nonsense"]).status.code(), Some(2));
}

/// Addresses of both families, mapped and embedded, in both roles.
#[test]
fn addresses_are_translated_between_the_families() {
    let ask = |address: &str| {
        let output = turnpike(&["translate-address", "-c", "configs/siit-dc.yaml", address]);
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = ask("203.0.113.10");
    assert_eq!(code, Some(0));
    assert!(
        said.contains("203.0.113.10 as a destination, from internet: 2001:db8:12::10, mapped (siit.dc)\n"),
        "{said}"
    );
    let (_, said) = ask("2001:db8:12::10");
    assert_eq!(said, "2001:db8:12::10 as a source, from servers: 203.0.113.10, mapped (siit.dc)\n");
    let (_, said) = ask("2001:db8:46::9.9.9.9");
    assert!(
        said.contains("2001:db8:46::909:909 as a destination, from servers: 9.9.9.9, embedded (siit.dc)\n"),
        "{said}"
    );
    let report = report("configs/siit-dc.yaml");
    says(&report, "siit.dc internet servers 2001:db8:46::/96 2 intrinsic 198.51.100.2");
    assert!(report.contains("to mapped and embedded addresses: crosses to IPv4 (siit.dc)"), "{report}");
}

/// RFC 6052 §3.1: hosts of ours have no addresses in the well-known prefix; and RFC 7757 §5: overlaps are told.
#[test]
fn the_well_known_prefix_is_not_for_hosts() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("well-known.yaml");
    let good = include_str!("../../configs/siit-dc.yaml");
    let text = good.replace("2001:db8:46::/96\"]", "64:ff9b::/96\"]\n    destinations: [203.0.113.64/26]");
    let text = text.replace(
        "      - {ipv4: 203.0.113.10,",
        "      - {ipv4: 203.0.113.0/27, ipv6: \"2001:db8:13::/123\"}\n      - {ipv4: 203.0.113.10,",
    );
    std::fs::write(&file, text).unwrap();
    let report = report(file.to_str().unwrap());
    assert!(report.contains("siit.dc: hosts have addresses in 64:ff9b::/96"), "{report}");
    assert!(report.contains("203.0.113.10/32 within 203.0.113.0/27: the longest counts"), "{report}");
}
