//! Captures, against the programs that write and read them: scapy and editcap write, tshark is the oracle of what is in a
//! file and reads what we write.
#![allow(clippy::cast_possible_truncation, missing_docs)]

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use control::capture::{CaptureError, CaptureReader, CaptureWriter, LinkType, Record};
use dataplane::time::Time;
use proptest::prelude::*;

/// Runs a program to its end and gives what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a scapy script; `PATH` in it is the directory.
fn scapy(dir: &Path, script: &str) {
    let script = script.replace("PATH", dir.to_str().unwrap());
    run("/usr/bin/python3", &["-c", &format!("from scapy.all import *\n{script}")]);
}

/// Time in nanoseconds, captured length and wire length of each packet, as tshark sees them.
fn tshark(path: &Path) -> Vec<(u64, usize, u32)> {
    let fields = ["-e", "frame.time_epoch", "-e", "frame.cap_len", "-e", "frame.len"];
    let args = [&["-r", path.to_str().unwrap(), "-T", "fields"], &fields[..]].concat();
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (seconds, nanos) = fields.next().unwrap().split_once('.').unwrap();
        let time = seconds.parse::<u64>().unwrap() * 1_000_000_000 + format!("{nanos:0<9}").parse::<u64>().unwrap();
        (time, fields.next().unwrap().parse().unwrap(), fields.next().unwrap().parse().unwrap())
    };
    run("tshark", &args).lines().map(line).collect()
}

fn read(path: &Path) -> Vec<Record> {
    CaptureReader::open(path).unwrap().collect::<Result<_, _>>().unwrap()
}

/// We see what tshark sees.
fn agrees_with_tshark(path: &Path) -> Vec<Record> {
    let records = read(path);
    let ours: Vec<_> = records.iter().map(|r| (r.time.0, r.data.len(), r.wire_len)).collect();
    assert_eq!(ours, tshark(path), "{}", path.display());
    assert!(!records.is_empty());
    assert!(records.iter().enumerate().all(|(i, r)| r.number == i as u64 + 1));
    records
}

#[test]
fn pcap_in_every_precision_and_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    scapy(
        dir.path(),
        r"
a = Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02')/IP(src='192.0.2.1', dst='192.0.2.2')/UDP(sport=1, dport=2)/b'one'
b = Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02')/IPv6(src='2001:db8::1', dst='2001:db8::2')/UDP(sport=1, dport=2)/b'two!'
for order, name in (('<', 'le'), ('>', 'be')):
    for nano in (False, True):
        w = PcapWriter('PATH/%s-%s.pcap' % (name, 'ns' if nano else 'us'), endianness=order, nano=nano)
        w.write_header(a)
        w.write_packet(bytes(a), sec=1700000000, usec=123456789 if nano else 123456)
        w.write_packet(bytes(b), sec=1700000001, usec=1)
        w.close()
",
    );
    for (name, first, second) in [
        ("le-us", 123_456_000, 1_000),
        ("be-us", 123_456_000, 1_000),
        ("le-ns", 123_456_789, 1),
        ("be-ns", 123_456_789, 1),
    ] {
        let records = agrees_with_tshark(&dir.path().join(format!("{name}.pcap")));
        assert_eq!(records[0].time, Time(1_700_000_000_000_000_000 + first), "{name}");
        assert_eq!(records[1].time, Time(1_700_000_001_000_000_000 + second), "{name}");
        assert_eq!(records[0].link, LinkType::Ethernet);
        assert!(records[0].data.ends_with(b"one") && records[1].data.ends_with(b"two!"), "{name}");
    }
}

#[test]
fn pcapng_and_captures_that_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    scapy(
        dir.path(),
        r"
w = PcapWriter('PATH/in.pcap', nano=True)
p = Ether(src='02:00:00:00:00:01', dst='02:00:00:00:00:02')/IP(src='192.0.2.1', dst='192.0.2.2')/UDP(sport=1, dport=2)
w.write_header(p)
for i in range(5):
    w.write_packet(bytes(p/(b'x' * (i * 301))), sec=1700000000 + i, usec=7 + i)
w.close()
",
    );
    run("editcap", &["-F", "pcapng", &at("in.pcap"), &at("out.pcapng")]);
    run("editcap", &["-F", "pcapng", "-s", "96", &at("in.pcap"), &at("cut.pcapng")]);
    let (plain, ng) = (read(&dir.path().join("in.pcap")), agrees_with_tshark(&dir.path().join("out.pcapng")));
    assert_eq!(plain, ng);
    let cut = agrees_with_tshark(&dir.path().join("cut.pcapng"));
    assert_eq!(cut.iter().map(Record::is_cut).collect::<Vec<_>>(), [false, true, true, true, true]);
    assert!(plain.iter().all(|record| !record.is_cut()));
}

/// A pcapng file of one section with one Ethernet interface (`options`, already encoded) and one packet.
fn pcapng(big_endian: bool, link: u16, options: &[u8], timestamp: u64, frame: &[u8]) -> Vec<u8> {
    let u16 = |n: u16| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let u32 = |n: u32| if big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let len = u32(body.len() as u32 + 12);
        [&u32(kind)[..], &len, body, &len].concat()
    };
    let section = [&u32(0x1a2b_3c4d)[..], &u16(1), &u16(0), &[0xff; 8]].concat();
    let interface = [&u16(link)[..], &u16(0), &u32(0), options].concat();
    let mut packet = [0, (timestamp >> 32) as u32, timestamp as u32, frame.len() as u32, frame.len() as u32]
        .iter()
        .flat_map(|&n| u32(n))
        .collect::<Vec<_>>();
    packet.extend_from_slice(frame);
    packet.resize(packet.len().next_multiple_of(4), 0);
    [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet)].concat()
}

/// The smallest IPv4 packet there is.
const IPV4: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0xf6, 0xdd, 192, 0, 2, 1, 192, 0, 2, 2];

#[test]
fn pcapng_timestamps_in_odd_units_and_orders() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.pcapng");
    let resolution = |big: bool, value: u8| {
        let (code, len) = if big { ([0, 9], [0, 1]) } else { ([9, 0], [1, 0]) };
        [&code[..], &len, &[value, 0, 0, 0]].concat()
    };
    let offset = |big: bool, seconds: i64| {
        let (head, value) =
            if big { ([0, 14, 0, 8], seconds.to_be_bytes()) } else { ([14, 0, 8, 0], seconds.to_le_bytes()) };
        [&head[..], &value].concat()
    };
    for big in [false, true] {
        for (name, options, units) in [
            ("microseconds by default", vec![], 1_700_000_000_000_001),
            ("nanoseconds", resolution(big, 9), 1_700_000_000_000_000_001),
            ("2^-10 s", resolution(big, 0x8a), 1_700_000_000 * 1024 + 512),
            ("offset", [offset(big, 1_600_000_000), vec![0; 4]].concat(), 5_000_000),
            ("negative offset", [offset(big, -3), vec![0; 4]].concat(), 1_700_000_000_000_000),
        ] {
            fs::write(&path, pcapng(big, 101, &options, units, &IPV4)).unwrap();
            let records = agrees_with_tshark(&path);
            assert_eq!((records[0].link, &records[0].data[..]), (LinkType::Ip, &IPV4[..]), "{name}");
        }
    }
}

#[test]
fn raw_ip_by_each_of_its_link_types() {
    let dir = tempfile::tempdir().unwrap();
    for link in [12, 101, 228, 229] {
        scapy(
            dir.path(),
            &format!(
                "p = IP(src='192.0.2.1', dst='192.0.2.2')/UDP(sport=1, dport=2)\n\
                 wrpcap('PATH/{link}.pcap', [p], linktype={link})"
            ),
        );
        let records = read(&dir.path().join(format!("{link}.pcap")));
        assert_eq!((records.len(), records[0].link, records[0].data[0]), (1, LinkType::Ip, 0x45));
    }
    scapy(dir.path(), "wrpcap('PATH/cooked.pcap', [CookedLinux()/IP()/UDP()], linktype=113)");
    let error = CaptureReader::open(&dir.path().join("cooked.pcap")).unwrap().next().unwrap().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cooked.pcap: packet 1: link type 113") && text.contains("-i NAME"), "{text}");
}

#[test]
fn what_we_write_is_read_by_tshark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ours.pcap");
    let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &IPV4].concat();
    let mut writer = CaptureWriter::create(&path).unwrap();
    let times = [Time(0), Time(1_700_000_000_123_456_789), Time(4_294_967_295_999_999_999)];
    for time in times {
        writer.write(time, &frame).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(tshark(&path), times.map(|t| (t.0, 34, 34)));
    assert_eq!(run("tshark", &["-r", path.to_str().unwrap(), "-T", "fields", "-e", "ip.dst"]), "192.0.2.2\n".repeat(3));
    assert!(read(&path).iter().all(|record| record.data == frame));
}

#[test]
fn errors_name_the_file_the_packet_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.pcap");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        CaptureReader::open(&path)
    };
    let text = |bytes: &[u8]| match open(bytes) {
        Err(error) => error.to_string(),
        Ok(reader) => reader.last().unwrap().unwrap_err().to_string(),
    };
    assert!(text(b"").contains("neither pcap nor pcapng"), "{}", text(b""));
    assert!(text(b"#!/bin/sh\necho hello, world\n").contains("editcap"));
    let missing = CaptureReader::open(&dir.path().join("none.pcap")).unwrap_err();
    assert!(matches!(&missing, CaptureError::Io { path, .. } if path.ends_with("none.pcap")));
    assert!(CaptureReader::open(dir.path()).unwrap_err().to_string().contains("directory"));

    let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &IPV4].concat();
    let whole = PathBuf::from(&path);
    let mut writer = CaptureWriter::create(&whole).unwrap();
    (0..3).for_each(|i| writer.write(Time::from_secs(i), &frame).unwrap());
    writer.finish().unwrap();
    let good = fs::read(&path).unwrap();
    // Killed in the middle of a packet: the packets before it are still there.
    let results: Vec<_> = open(&good[..good.len() - 7]).unwrap().collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 2);
    assert!(results[2].as_ref().unwrap_err().to_string().ends_with("the file ends inside packet 3"));
    let mut lying = good.clone();
    lying[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(text(&lying).ends_with("the file ends inside packet 1"), "{}", text(&lying));
    let endless = Cursor::new(lying).chain(io::repeat(0));
    let error = CaptureReader::from_reader(&path, endless).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("broken.pcap: damaged at packet 1: it claims an impossible length"));
    let orphan = pcapng(false, 1, &[], 0, &frame);
    let without_interface = [&orphan[..28], &orphan[28 + 20..]].concat();
    assert!(text(&without_interface).contains("interface that the file does not describe"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    /// Damage of any kind ends in packets, in an error, or in both: never in a panic, nor without an end.
    #[test]
    fn no_damage_makes_the_reader_panic(
        kind in 0usize..4,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let frame = [0xa5; 61];
        let mut bytes = match kind {
            0 => pcapng(false, 1, &[9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8], 1 << 60, &frame),
            1 => pcapng(true, 1, &[0, 9, 0, 1, 0x8a, 0, 0, 0], 1 << 60, &frame),
            _ => {
                let magic: u32 = if kind == 2 { 0xa1b2_c3d4 } else { 0xa1b2_3c4d };
                let record = [&[1, 0, 0, 0, 2, 0, 0, 0, 61, 0, 0, 0, 61, 0, 0, 0][..], &frame].concat();
                let header = [&magic.to_le_bytes()[..], &[2, 0, 4, 0], &[0; 8], &[0, 0, 4, 0, 1, 0, 0, 0]].concat();
                [header, record.clone(), record].concat()
            }
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(reader) = CaptureReader::from_reader(Path::new("damaged"), Cursor::new(bytes)) {
            prop_assert!(reader.count() < 20);
        }
    }
}
