//! `turnpike replay` as its users see it: scapy writes the captures, the program runs, tshark reads what came out and checks
//! every checksum.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use control::capture::CaptureWriter;
use control::config::Config;
use control::replay::{InterfaceReport, Options, Replay};
use dataplane::plan::MacAddr;
use dataplane::time::Time;
use proptest::prelude::*;
use tempfile::TempDir;

const CONFIG: &str = r#"
version: 1
ports:
  lan: {device: "net_tap0,iface=lan0"}
  wan: {device: "net_tap1,iface=wan0"}
interfaces:
  inside: {port: lan, zone: inside, addresses: [192.168.1.1/24, "2001:db8:1::1/64"], neighbours: {192.168.1.77: "02:00:00:00:00:77"}}
  guests: {port: lan, vlan: 20, zone: inside, addresses: [192.168.20.1/24]}
  uplink: {port: wan, zone: outside, addresses: [198.51.100.2/24]}
routes: [{to: 0.0.0.0/0, via: 198.51.100.1}]
pools:
  public: {addresses: [203.0.113.1], ports: 1024-65535}
nat44:
  rules:
    subscribers: {from: inside, to: outside, pool: public}
  forwards:
    web: {from: outside, to: inside, protocol: tcp, external: "203.0.113.9:8080", inside: "192.168.1.77:80"}
"#;

/// What every scapy script begins with: names for the stations, and `write`.
const PRELUDE: &str = r"
from scapy.all import *
A, GW, R = '02:00:00:00:00:aa', '02:00:00:00:00:01', '02:00:00:00:00:02'
host = lambda dst='198.51.100.77', **more: Ether(src=A, dst=GW)/IP(src='192.168.1.10', dst=dst, **more)
wan = lambda dst='203.0.113.1', src='198.51.100.77', **more: Ether(src=R, dst=GW)/IP(src=src, dst=dst, **more)
def write(name, *packets, **more):
    packets = [(time, packet.copy()) for time, packet in packets]
    for time, packet in packets:
        packet.time = EDecimal(time)
    wrpcap(name, [packet for _, packet in packets], nano=True, **more)
";

struct Lab {
    dir: TempDir,
}

impl Lab {
    /// A directory with the configuration and the captures that the script writes.
    fn new(script: &str) -> Self {
        Self::with_config(CONFIG, script)
    }

    fn with_config(config: &str, script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("turnpike.yaml"), config).unwrap();
        let script = format!("{PRELUDE}{script}");
        let output = Command::new("/usr/bin/python3").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Lab { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
        command.current_dir(self.dir.path()).args(["replay", "-c", "turnpike.yaml"]).args(args.split_whitespace());
        command.output().unwrap()
    }

    /// A run that must succeed; gives what it printed.
    fn replay(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A run that must fail; gives its exit code and what it complained about.
    fn refusal(&self, args: &str) -> (i32, String) {
        let output = self.run(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// The fields of the packets of a capture, one line each, as tshark reads them.
    fn tshark(&self, capture: &str, fields: &str) -> Vec<String> {
        tshark(&self.path(capture), fields)
    }
}

/// Every header's checksum must be right.
fn tshark(capture: &Path, fields: &str) -> Vec<String> {
    let run = |args: &[&str]| {
        let checks = ["ip", "tcp", "udp"].map(|protocol| format!("-o{protocol}.check_checksum:TRUE"));
        let output = Command::new("tshark").arg("-r").arg(capture).args(checks).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let bad = ["ip", "tcp", "udp", "icmp", "icmpv6"].map(|it| format!("{it}.checksum.status == 0")).join(" || ");
    assert_eq!(run(&["-Y", &format!("{bad} || _ws.malformed || ip.len > frame.len")]), [""; 0]);
    let fields = fields.split_whitespace().flat_map(|field| ["-e", field]);
    run(&[&["-T", "fields", "-E", "separator= ", "-E", "occurrence=f"], &fields.collect::<Vec<_>>()[..]].concat())
}

const UDP: &str = "ip.src udp.srcport ip.dst udp.dstport";
const TCP: &str = "ip.src tcp.srcport ip.dst tcp.dstport";

#[test]
fn a_flow_goes_out_and_its_answer_comes_back() {
    let lab = Lab::new(
        r"
write('in.pcap', (1700000000, host()/UDP(sport=40053, dport=9)/b'question'))
write('up.pcap', (1700000000.25, wan()/UDP(sport=9, dport=40053)/b'answer'),
                 (1700000000.5, wan(src='198.51.100.78')/UDP(sport=9, dport=40053)/b'stranger'))
",
    );
    let said = lab.replay("--in inside=in.pcap uplink=up.pcap --out-dir out");
    let fields = format!("frame.time_epoch eth.src eth.dst {UDP} ip.ttl data.data");
    let gateway = |port: u8| format!("02:54:50:01:00:0{port}");
    assert_eq!(
        lab.tshark("out/uplink.pcap", &fields),
        [format!(
            "1700000000.000000000 {} 02:54:50:00:00:01 203.0.113.1 40053 198.51.100.77 9 63 {}",
            gateway(1),
            "7175657374696f6e"
        )]
    );
    assert_eq!(
        lab.tshark("out/inside.pcap", &fields),
        [format!(
            "1700000000.250000000 {} 02:54:50:00:00:01 198.51.100.77 9 192.168.1.10 40053 63 {}",
            gateway(0),
            "616e73776572"
        )]
    );
    assert_eq!(lab.tshark("out/guests.pcap", UDP), [""; 0]);
    let expected = "\
3 packets, 0.500000 s of virtual time from 1700000000.000000000
  interface           in          out
  inside               1            1
  guests               0            0
  uplink               2            1
originated        0  ICMP errors and TCP resets of the gateway
punted            0  packets for the gateway itself; 0 answers
dropped           1
                   1  filtered: A mapping exists, but its filtering does not admit this sender.
sessions          1  made, 0 ended, 1 now
mappings          1  made, 1 now
";
    assert_eq!(said, expected);
}

#[test]
fn explain_says_what_happened_to_each_packet_and_why() {
    let lab = Lab::new(
        r"
write('in.pcap', (1700000000, host()/UDP(sport=40053, dport=9)),
                 (1700000001, host()/UDP(sport=40053, dport=9)),
                 (1700000002, host(ttl=1)/UDP(sport=40053, dport=9)),
                 (1700000003, host(dst='192.168.1.1')/ICMP(id=7)/b'ping'),
                 (1700000004, Ether(src=A, dst='ff:ff:ff:ff:ff:ff')/ARP(hwsrc=A, psrc='192.168.1.10', pdst='192.168.1.1')))
write('up.pcap', (1700000005, wan(dst='203.0.113.9')/TCP(sport=50000, dport=8080, flags='S')),
                 (1700000006, wan(dst='203.0.113.9')/TCP(sport=50000, dport=8081, flags='S')))
",
    );
    let said = lab.replay("--in inside=in.pcap uplink=up.pcap --out-dir out --explain");
    let lines: Vec<_> = said.lines().take(7).collect();
    let udp = "udp 192.168.1.10:40053 > 198.51.100.77:9";
    let translated = "udp 203.0.113.1:40053 > 198.51.100.77:9";
    let expected = [
        format!(
            "inside 1 1700000000.000000000 {udp}: sent by uplink to assumed neighbour 198.51.100.77 as {translated}, \
             by nat44.rules.subscribers, a new session"
        ),
        format!("inside 2 1700000001.000000000 {udp}: sent by uplink as {translated}, by nat44.rules.subscribers, of a session"),
        format!(
            "inside 3 1700000002.000000000 {udp}: dropped, ttl-exceeded: The time to live or hop limit has run out; answered \
             with time exceeded, by nat44.rules.subscribers, of a session, answered with ICMP time exceeded"
        ),
        "inside 4 1700000003.000000000 icmp 192.168.1.10 > 192.168.1.1 id 7: for the gateway itself".to_owned(),
        "inside 5 1700000004.000000000 EtherType 0806: for the gateway itself".to_owned(),
        "uplink 1 1700000005.000000000 tcp 198.51.100.77:50000 > 203.0.113.9:8080: sent by inside to neighbour 192.168.1.77 as \
         tcp 198.51.100.77:50000 > 192.168.1.77:80, by nat44.forwards.web, a new session"
            .to_owned(),
        "uplink 2 1700000006.000000000 tcp 198.51.100.77:50000 > 203.0.113.9:8081: dropped, unsolicited: To an external \
         address, or from outside to an inside network, and no mapping or forward leads in"
            .to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_gateway_answers_for_itself_and_names_neighbours_as_the_file_does() {
    let lab = Lab::new(
        r"
ns = Ether(src=A, dst='33:33:ff:00:00:01')/IPv6(src='2001:db8:1::10', dst='ff02::1:ff00:1', hlim=255)
write('in.pcap',
    (1, Ether(src=A, dst='ff:ff:ff:ff:ff:ff')/ARP(hwsrc=A, psrc='192.168.1.10', pdst='192.168.1.1')),
    (2, host(dst='192.168.1.1')/ICMP(id=7, seq=3)/b'ping'),
    (3, ns/ICMPv6ND_NS(tgt='2001:db8:1::1')/ICMPv6NDOptSrcLLAddr(lladdr=A)))
write('up.pcap', (4, wan(dst='203.0.113.9')/TCP(sport=50000, dport=8080, flags='S')))
",
    );
    let said = lab.replay("--in inside=in.pcap uplink=up.pcap --out-dir out");
    assert!(said.contains("punted            3  packets for the gateway itself; 3 answers\n"), "{said}");
    let fields =
        "eth.dst arp.opcode arp.src.proto_ipv4 icmp.type icmp.seq icmpv6.type icmpv6.nd.na.target_address tcp.dstport";
    let expected = [
        "02:00:00:00:00:aa 2 192.168.1.1     ",
        "02:54:50:00:00:01   0 3   ",
        "02:00:00:00:00:aa     136 2001:db8:1::1 ",
        "02:00:00:00:00:77       80",
    ];
    assert_eq!(lab.tshark("out/inside.pcap", fields), expected);
}

#[test]
fn equal_input_and_seed_give_equal_output_and_another_seed_other_ports() {
    let config = CONFIG.replace("pool: public}", "pool: public, port-preservation: false}");
    let flows = "write('in.pcap', *[(1 + i, host()/UDP(sport=20000 + i, dport=9)) for i in range(20)])";
    let lab = Lab::with_config(&config, flows);
    let said = ["a --seed 7", "b --seed 7", "c --seed 8"]
        .map(|run| lab.replay(&format!("--in inside=in.pcap --explain --out-dir {run}")));
    let [a, b, c] = ["a", "b", "c"].map(|dir| fs::read(lab.path(dir).join("uplink.pcap")).unwrap());
    assert!(a == b && said[0] == said[1]);
    assert_ne!(lab.tshark("a/uplink.pcap", UDP), lab.tshark("c/uplink.pcap", UDP));
    assert_eq!(a.len(), c.len());
}

#[test]
fn captures_are_merged_by_time_and_the_clock_never_goes_back() {
    let lab = Lab::new(
        r"
dns = lambda n: host()/UDP(sport=5000 + n, dport=9)
guest = lambda n: Ether(src=A, dst=GW)/IP(src='192.168.20.10', dst='198.51.100.77')/UDP(sport=6000 + n, dport=9)
write('in.pcap', (10, dns(1)), (12, dns(2)), (11, dns(3)), (13, dns(4)))
write('guests.pcap', (10, guest(1)), (11, guest(2)), (12.5, guest(3)))
",
    );
    // The order of the options is not the order of the file.
    lab.replay("--in guests=guests.pcap --in inside=in.pcap --out-dir out");
    let expected = [
        "10.000000000 5001",
        "10.000000000 6001",
        "11.000000000 6002",
        "12.000000000 5002",
        "12.000000000 5003",
        "12.500000000 6003",
        "13.000000000 5004",
    ];
    assert_eq!(lab.tshark("out/uplink.pcap", "frame.time_epoch udp.srcport"), expected);
}

#[test]
fn timers_expire_between_packets_and_in_the_tail_and_long_gaps_cost_nothing() {
    let lab = Lab::new(
        r"
answer = wan()/UDP(sport=5000, dport=40053)
write('in.pcap', (1000000000, host()/UDP(sport=40053, dport=5000)))
write('up.pcap', (1000000299, answer), (1000000600, answer), (1700000000, answer))
",
    );
    let args = "--in inside=in.pcap uplink=up.pcap --out-dir out";
    let started = Instant::now();
    let said = lab.replay(args);
    assert!(started.elapsed().as_secs() < 10);
    // RFC 4787 REQ-5: five minutes of silence, measured from the last packet (REQ-6: also from outside) end it.
    assert_eq!(lab.tshark("out/inside.pcap", "frame.time_epoch"), ["1000000299.000000000"]);
    assert!(said.contains("sessions          1  made, 1 ended, 0 now\n"), "{said}");
    fs::remove_file(lab.path("up.pcap")).unwrap();
    for (tail, ended) in [("0s", 0), ("4m58s", 0), ("5m10s", 1)] {
        let said = lab.replay(&format!("--in inside=in.pcap --out-dir out --tail {tail}"));
        assert!(said.contains(&format!("sessions          1  made, {ended} ended")), "{tail}: {said}");
    }
}

#[test]
fn tags_go_on_and_off_and_raw_ip_gets_a_header() {
    let lab = Lab::new(
        r"
guest = IP(src='192.168.20.10', dst='198.51.100.77')/UDP(sport=6001, dport=9)
write('bare.pcap', (1, Ether(src=A, dst=GW)/guest))
write('tagged.pcap', (1, Ether(src=A, dst=GW)/Dot1Q(vlan=20)/guest))
write('other.pcap', (1, Ether(src=A, dst=GW)/Dot1Q(vlan=21)/guest))
write('raw.pcap', (1, guest), linktype=101)
write('up.pcap', (2, wan()/UDP(sport=9, dport=6001)))
write('raw6.pcap', (1, IPv6(src='2001:db8:1::10', dst='2001:db8:1::20')/UDP(sport=1, dport=2)), linktype=229)
",
    );
    for capture in ["bare", "tagged", "raw"] {
        lab.replay(&format!("--in guests={capture}.pcap uplink=up.pcap --out-dir {capture}"));
        let out = lab.tshark(&format!("{capture}/uplink.pcap"), UDP);
        assert_eq!(out, ["203.0.113.1 6001 198.51.100.77 9"], "{capture}");
        let back = lab.tshark(&format!("{capture}/guests.pcap"), &format!("{UDP} vlan.id frame.len"));
        assert_eq!(back, ["198.51.100.77 9 192.168.20.10 6001  42"], "{capture}");
    }
    let said = lab.replay("--in guests=other.pcap --out-dir other");
    assert!(said.contains("unknown-vlan"), "{said}");
    lab.replay("--in inside=raw6.pcap --out-dir six");
    let fields = "eth.type ipv6.src ipv6.dst ipv6.hlim";
    assert_eq!(lab.tshark("six/inside.pcap", fields), ["0x86dd 2001:db8:1::10 2001:db8:1::20 63"]);
}

/// QinQ and an Ethernet address of the interface's own: both tags go on and off, whatever type the outer one was captured
/// with; frames come from the interface's address, and the host answers with it.
#[test]
fn service_tags_go_on_and_off_and_the_interface_has_its_own_address() {
    let customer = r#"customer: {port: lan, outer-vlan: 200, vlan: 20, mac: "02:00:00:00:00:c0", zone: inside,
    addresses: [192.168.30.1/24, 192.168.31.1/24, "2001:db8:30::1/64"]}"#;
    let config = CONFIG.replace("  uplink: {", &format!("  {customer}\n  uplink: {{"));
    let lab = Lab::with_config(
        &config,
        r"
packet = IP(src='192.168.30.10', dst='198.51.100.77')/UDP(sport=6001, dport=9)
arp = [Ether(src=A, dst='ff:ff:ff:ff:ff:ff')/ARP(op=1, hwsrc=A, psrc=f'192.168.{net}.10', pdst=f'192.168.{net}.1') for net in (30, 31)]
solicitation = IPv6(src='fe80::aa', dst='ff02::1:ff00:c0', hlim=255)/ICMPv6ND_NS(tgt='fe80::ff:fe00:c0')/ICMPv6NDOptSrcLLAddr(lladdr=A)
solicitation = Ether(src=A, dst='33:33:ff:00:00:c0')/solicitation
write('bare.pcap', (1, Ether(src=A, dst=GW)/packet), (3, arp[0]), (4, arp[1]), (5, solicitation))
for name, kind in (('new', 0x88a8), ('old', 0x9100), ('q', 0x8100)):
    write(name + '.pcap', (1, Ether(src=A, dst=GW, type=kind)/Dot1AD(vlan=200, type=0x8100)/Dot1Q(vlan=20)/packet))
for name, tags in (('alone', Dot1Q(vlan=20)), ('service', Dot1AD(vlan=200)), ('three', Dot1AD(vlan=200)/Dot1Q(vlan=20)/Dot1Q(vlan=20))):
    write(name + '.pcap', (1, Ether(src=A, dst=GW)/tags/packet))
write('up.pcap', (2, wan()/UDP(sport=9, dport=6001)))
",
    );
    for capture in ["bare", "new", "old", "q"] {
        lab.replay(&format!("--in customer={capture}.pcap uplink=up.pcap --out-dir {capture}"));
        let out = lab.tshark(&format!("{capture}/uplink.pcap"), &format!("{UDP} frame.len"));
        assert_eq!(out, ["203.0.113.1 6001 198.51.100.77 9 42"], "{capture}");
        let back = lab.tshark(&format!("{capture}/customer.pcap"), &format!("eth.src {UDP} vlan.id frame.len"));
        assert_eq!(back[0], "02:00:00:00:00:c0 198.51.100.77 9 192.168.30.10 6001  42", "{capture}");
    }
    let answers =
        lab.tshark("bare/customer.pcap", "eth.src arp.src.hw_mac arp.src.proto_ipv4 icmpv6.nd.na.target_address");
    let mac = "02:00:00:00:00:c0";
    let expected = [
        format!("{mac} {mac} 192.168.30.1 "),
        format!("{mac} {mac} 192.168.31.1 "),
        format!("{mac}   fe80::ff:fe00:c0"),
    ];
    assert_eq!(answers[1..], expected);
    for capture in ["alone", "service", "three"] {
        let said = lab.replay(&format!("--in customer={capture}.pcap --out-dir {capture} --explain"));
        // The customer's tag alone is the guests', to whom this Ethernet address is another station's.
        let reason = if capture == "alone" { "other-station" } else { "unknown-vlan" };
        assert!(said.contains(&format!("dropped, {reason}")), "{capture}: {said}");
    }
}

#[test]
fn a_capture_of_both_directions_is_told_apart_by_the_gateway_s_address() {
    let lab = Lab::new(
        r"
back = Ether(src=GW, dst=A)/IP(src='198.51.100.77', dst='192.168.1.10')/UDP(sport=9, dport=40053)
other = Ether(src=A, dst=R)/IP(src='192.168.1.10', dst='198.51.100.77')/UDP(sport=9, dport=9)
write('in.pcap', (1, host()/UDP(sport=40053, dport=9)), (2, back), (3, other))
",
    );
    let said = lab.replay("--in inside=in.pcap --out-dir out");
    assert!(said.contains("both directions between 02:00:00:00:00:aa and 02:00:00:00:00:01"), "{said}");
    assert!(said.contains("say with --gateway-mac which of the two is the gateway"), "{said}");
    let said = lab.replay("--in inside=in.pcap --out-dir out --gateway-mac 02:00:00:00:00:01 --explain");
    assert!(!said.contains("note:") && said.contains("left out          1"), "{said}");
    assert!(said.contains("inside 2 2.000000000 EtherType 0800: left out, the gateway sent it\n"), "{said}");
    assert!(said.contains("dropped, other-station"), "{said}");
    assert_eq!(lab.tshark("out/uplink.pcap", UDP), ["203.0.113.1 40053 198.51.100.77 9"]);
    assert_eq!(lab.tshark("out/inside.pcap", UDP), [""; 0]);
}

#[test]
fn captures_made_at_the_sender_are_finished_and_cut_ones_reported() {
    // What Linux leaves in the place of the checksum: the folded sum of the pseudo-header (include/linux/skbuff.h).
    let lab = Lab::new(
        r"
def partial(packet, proto, at):
    raw = bytearray(bytes(packet))
    ip = raw[14:34]
    pseudo = bytes(ip[12:20]) + bytes([0, proto]) + (len(raw) - 34).to_bytes(2, 'big')
    total = sum(int.from_bytes(pseudo[i:i + 2], 'big') for i in range(0, len(pseudo), 2))
    total = (total & 0xffff) + (total >> 16)
    raw[34 + at:34 + at + 2] = total.to_bytes(2, 'big')
    return Ether(bytes(raw))
syn = partial(host()/TCP(sport=40000, dport=80, flags='S'), 6, 16)
udp = partial(host()/UDP(sport=40053, dport=9)/b'odd', 17, 6)
wrong = host()/UDP(sport=40054, dport=53, chksum=0x1234)
write('in.pcap', (1, syn), (2, udp))
write('wrong.pcap', (1, wrong))
w = PcapWriter('cut.pcap', linktype=1)
big = bytes(host()/UDP(sport=1, dport=2)/(b'x' * 1000))
w.write_header(None)
w.write_packet(big[:96], sec=1, usec=0, caplen=96, wirelen=len(big))
w.close()
giant = host()/TCP(sport=40000, dport=80, flags='A')/(b'x' * 20000)
write('giant.pcap', (1, syn), (2, giant))
open('killed.pcap', 'wb').write(open('in.pcap', 'rb').read()[:-5])
",
    );
    let said = lab.replay("--in inside=in.pcap --out-dir out");
    assert!(said.contains("note: in.pcap: 2 packets had unfinished checksums"), "{said}");
    assert_eq!(lab.tshark("out/uplink.pcap", TCP)[0], "203.0.113.1 40000 198.51.100.77 80");
    assert_eq!(lab.tshark("out/uplink.pcap", UDP)[1], "203.0.113.1 40053 198.51.100.77 9");
    // A checksum that is wrong in another way stays wrong: it is not ours to mend.
    lab.replay("--in inside=wrong.pcap --out-dir out");
    let status = Command::new("tshark")
        .args(["-o", "udp.check_checksum:TRUE", "-T", "fields", "-e", "udp.checksum.status", "-r"])
        .arg(lab.path("out/uplink.pcap"))
        .output();
    assert_eq!(String::from_utf8(status.unwrap().stdout).unwrap().trim(), "0");
    let said = lab.replay("--in inside=cut.pcap --out-dir out");
    assert!(said.contains("cut.pcap: 1 packets are cut off (the first: packet 1, 96 of 1042 bytes)"), "{said}");
    assert!(said.contains("ip-length") && said.contains("tcpdump -s 0"), "{said}");
    let said = lab.replay("--in inside=giant.pcap --out-dir out");
    assert!(said.contains("1 frames are larger than a link with an MTU of 1500 carries"), "{said}");
    let said = lab.replay("--in inside=killed.pcap --out-dir out");
    assert!(said.contains("killed.pcap: the file ends inside packet 2; what came before was replayed"), "{said}");
}

#[test]
fn what_can_not_be_done_is_refused_with_a_reason() {
    let lab = Lab::new(
        r"
write('in.pcap', (1, host()/UDP(sport=40053, dport=9)))
open('text.pcap', 'w').write('no capture at all, just text')
import os; os.mkdir('same'); write('same/uplink.pcap', (1, wan()/UDP(sport=1, dport=2)))
",
    );
    for (args, code, words) in [
        ("--in lan=in.pcap --out-dir out", 2, "no interface of this name; it has inside, guests, uplink"),
        ("--in inside=in.pcap --in inside=in.pcap --out-dir out", 2, "given twice"),
        ("--in uplink=same/uplink.pcap --out-dir same", 2, "is an input and would be replaced"),
        ("--in inside --out-dir out", 2, "inside=lan.pcap"),
        ("--in inside=in.pcap --out-dir out --gateway-mac 02:00", 2, "six bytes in hexadecimal"),
        ("--in inside=in.pcap --out-dir out --tail soon", 2, "--tail"),
        ("--in inside=none.pcap --out-dir out", 1, "none.pcap: No such file or directory (os error 2)\n"),
        ("--in inside=text.pcap --out-dir out", 1, "text.pcap: neither pcap nor pcapng"),
        ("--in inside=in.pcap --out-dir in.pcap", 1, "in.pcap: File exists"),
    ] {
        let (status, said) = lab.refusal(args);
        assert_eq!(status, code, "{args}: {said}");
        assert!(said.contains(words), "{args}: {said}");
    }
    assert!(fs::metadata(lab.path("same/uplink.pcap")).unwrap().len() > 24);
}

/// A frame that is nearly right: a packet from scapy's hands would be too polite.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let station = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xaa];
    let ipv4 = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 168, 1, 10, 198, 51, 100, 77, 0x9c, 0x40, 0, 80];
    let ipv6 = [0x60, 0, 0, 0, 0, 20, 17, 64, 0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
    let frames = prop_oneof![
        Just([&station[..], &[8, 0], &ipv4, &[0; 30]].concat()),
        Just([&station[..], &[0x81, 0, 0, 20, 8, 0], &ipv4, &[0; 20]].concat()),
        Just([&station[..], &[0x86, 0xdd], &ipv6, &ipv6[8..], &[0; 20]].concat()),
        Just([&station[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 40]].concat()),
    ];
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (frames, damage, 0usize..80).prop_map(|(mut frame, damage, cut)| {
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(60)));
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// Whatever a capture holds, nothing panics and every packet is accounted for (the law of the counters).
    #[test]
    fn every_packet_of_any_capture_is_accounted_for(
        frames in proptest::collection::vec((nearly_right(), 0u64..100_000_000_000), 1..60),
        gateway in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.pcap");
        let mut writer = CaptureWriter::create(&path).unwrap();
        for (frame, time) in &frames {
            writer.write(Time(*time), frame).unwrap();
        }
        writer.finish().unwrap();
        let tables = "version: 1\nboot: {tables: {sessions: 1024, mappings: 1024}}";
        let config = Config::parse(&CONFIG.replace("version: 1", tables), Path::new("test.yaml")).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let options = Options {
            inputs: vec![("inside".to_owned(), path.clone()), ("uplink".to_owned(), path)],
            out_dir: dir.path().join("out"),
            tail: Duration::from_secs(3600),
            seed: 1,
            gateway: if gateway { vec![mac] } else { Vec::new() },
            explain: true,
        };
        let mut replay = Replay::new(&config, &options).unwrap();
        while let Some(line) = replay.step().unwrap() {
            prop_assert!(line.ends_with('\n'), "{line}");
        }
        let end = replay.finish(options.tail).unwrap();
        let sum = |of: fn(&InterfaceReport) -> u64| end.interfaces.iter().map(of).sum::<u64>();
        prop_assert_eq!(sum(|interface| interface.received), 2 * frames.len() as u64);
        let entered = sum(|interface| interface.received) - end.left_out + end.originated + end.from_host;
        let dropped = end.dropped.iter().map(|(_, n)| n).sum::<u64>();
        prop_assert_eq!(entered, sum(|interface| interface.transmitted) + end.punted + end.held + dropped, "{}", end);
        prop_assert_eq!(end.sessions_made, end.sessions_ended + end.sessions_now);
    }
}
