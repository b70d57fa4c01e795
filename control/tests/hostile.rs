//! A million malformed frames through the gateway in virtual time, and a good part of them straight into the host: nothing
//! crashes, every frame is counted once, what leaves is well-formed, and the gateway works on as before.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use control::capture::{CaptureReader, CaptureWriter};
use control::config::Config;
use control::host::{Host, SETTLING};
use control::replay::{Options, Replay, Summary};
use dataplane::plan::{InterfaceId, MacAddr, Plan};
use dataplane::time::Time;
use hostile::build::{Ip4, ethernet, udp};
use hostile::check::{Kind, alive, well_formed};
use hostile::scene::{self, CONFIG, HOST, SERVER, Side};
use hostile::{Catalogue, Stream};

/// Frames of the flood.
const FRAMES: usize = 1_000_000;

/// One each of this virtual time: a flood of a quarter of an hour, so that sessions come and go.
const EVERY: Duration = Duration::from_millis(1);

fn config() -> Config {
    let text = CONFIG.replace("LAN", "net_ring0").replace("WAN", "net_ring1").replace("METRICS", "127.0.0.1:1");
    Config::parse(&text, Path::new("hostile.yaml")).expect("a configuration")
}

#[test]
fn a_million_hostile_frames_through_replay() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let names = ["inside", "uplink"];
    let start = Time::from_secs(1_700_000_000);
    let mut inputs = names.map(|name| CaptureWriter::create(&path(&format!("{name}.pcap"))).unwrap());
    let mut sent = [0u64; 2];
    let mut now = start;
    let mut put = |side: Side, frame: &[u8]| {
        inputs[side as usize].write(now, frame).unwrap();
        sent[side as usize] += 1;
        now = now + EVERY;
    };
    let mut stream = Stream::new(6);
    for _ in 0..FRAMES {
        let (side, frame) = stream.frame();
        put(side, frame);
    }
    for (side, frame) in scene::afterwards() {
        put(side, &frame);
    }
    inputs.into_iter().for_each(|input| input.finish().unwrap());

    let options = Options {
        inputs: names.map(|name| (name.to_owned(), path(&format!("{name}.pcap")))).to_vec(),
        out_dir: path("out"),
        tail: Duration::from_secs(1),
        seed: 6,
        gateway: Side::BOTH.map(|side| MacAddr(side.gateway())).to_vec(),
        explain: false,
    };
    let mut replay = Replay::new(&config(), &options).unwrap();
    while replay.step().unwrap().is_some() {}
    let summary = replay.finish(options.tail).unwrap();
    assert_eq!([summary.interfaces[0].received, summary.interfaces[2].received], sent);
    every_frame_is_counted_once(&summary);

    let mut kinds = BTreeMap::new();
    let outputs = ["inside", "guests", "uplink", "customers"];
    let mut left = [0u64; 4];
    let mut ends = Vec::new();
    let mut samples = ["forwarded.pcap", "own.pcap"].map(|name| CaptureWriter::create(&path(name)).unwrap());
    for (interface, name) in outputs.into_iter().enumerate() {
        let side = if name == "uplink" { Side::Outside } else { Side::Inside };
        for record in CaptureReader::open(&path(&format!("out/{name}.pcap"))).unwrap() {
            let record = record.unwrap();
            let kind = well_formed(side, &record.data)
                .unwrap_or_else(|wrong| panic!("{name}, frame {}: {wrong}: {:02x?}", record.number, record.data));
            left[interface] += 1;
            if left[interface] % if kind == Kind::Own { 16 } else { 256 } == 0 {
                samples[usize::from(kind == Kind::Own)].write(record.time, &record.data).unwrap();
            }
            *kinds.entry((name, kind == Kind::Own)).or_insert(0u64) += 1;
            if record.time >= start + EVERY * u32::try_from(FRAMES).unwrap() {
                ends.push((side, record.data));
            }
        }
    }
    assert_eq!(left.to_vec(), summary.interfaces.iter().map(|it| it.transmitted).collect::<Vec<_>>());
    // Everything was there: translated, routed, refused with an error, answered by the host.
    let expected = outputs.map(|name| (name, false)).into_iter().chain([("inside", true), ("uplink", true)]);
    assert!(expected.into_iter().all(|kind| kinds.get(&kind).is_some_and(|&frames| frames > 1000)), "{kinds:?}");

    // The gateway pings and translates as before.
    alive(&ends).unwrap();
    for sample in &mut samples {
        // What the judge must find: a packet whose header checksum is wrong.
        let mut spoiled =
            ethernet(Side::Inside, 0x0800, &Ip4::new(SERVER, HOST).packet(17, &udp(40_000, 40_001, b"spoiled")));
        spoiled[24] ^= 1;
        sample.write(start, &spoiled).unwrap();
    }
    samples.into_iter().for_each(|sample| sample.finish().unwrap());
    // Behind IP's header others' packets are as they were, and so is what our errors quote. What we wrote is right all through.
    let ip = "ip.checksum.status#1 == 0 || ip.bogus_ip_length#1 || ip.bogus_header_length#1 || ip.bogus_ip_version#1";
    let own = "icmp.checksum.status#1 == 0 || icmpv6.checksum.status#1 == 0 || (tcp.checksum.status#1 == 0 && !icmp && !icmpv6)
        || ((_ws.malformed || _ws.expert.severity == error) && !icmp.type in {3, 11} && !icmpv6.type < 128)";
    assert_eq!(tshark(&path("forwarded.pcap"), ip), ["spoiled"]);
    assert_eq!(tshark(&path("own.pcap"), &format!("{ip} || {own}")), ["spoiled"]);
}

/// Design rule 6, for a whole replay.
fn every_frame_is_counted_once(summary: &Summary) {
    let received: u64 = summary.interfaces.iter().map(|interface| interface.received).sum();
    let transmitted: u64 = summary.interfaces.iter().map(|interface| interface.transmitted).sum();
    let dropped: u64 = summary.dropped.iter().map(|(_, count)| count).sum();
    assert_eq!(
        received - summary.left_out + summary.from_host + summary.originated,
        transmitted + summary.punted + summary.held + dropped,
        "{summary}"
    );
}

/// What Wireshark says of the packets that a filter fits: the one that was spoiled by its payload, others by their summaries.
fn tshark(capture: &Path, filter: &str) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    command.args(["-T", "fields", "-e", "data.data", "-e", "_ws.col.Info", "-e", "_ws.expert.message"]);
    let output = command.arg("-Y").arg(filter).arg("-r").arg(capture).output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| if line.starts_with("73706f696c6564\t") { "spoiled".into() } else { line.into() })
        .collect()
}

/// Every frame of the catalogue goes to every interface of the host itself: each is handled or ignored by one name, what it
/// answers is bounded, and it works on.
#[test]
fn the_host_survives_the_catalogue() {
    let plan = Arc::new(Plan::compile(config().spec(&|_| MacAddr::default(), *b"0123456789abcdef", 1)).unwrap());
    let mut now = Time::from_secs(1000);
    let mut host = Host::new(Arc::clone(&plan), 1, now);
    let mut out = Vec::new();
    host.start(now, &mut out);
    while let Some(due) = host.next_deadline().filter(|&due| due <= now + SETTLING) {
        host.poll(due, &mut out);
    }
    now = now + SETTLING;
    out.clear();
    let catalogue = Catalogue::new();
    let mut given = 0;
    for (_, frame) in catalogue.iter() {
        for interface in 0..4 {
            now = now + Duration::from_micros(10);
            host.receive(InterfaceId(interface), frame, now, &mut out);
            given += 1;
            if host.next_deadline().is_some_and(|due| due <= now) {
                host.poll(now, &mut out);
            }
            assert!(out.len() <= 1024, "answers without bound");
            out.clear();
            host.notices().for_each(drop);
        }
    }
    let counters = host.counters();
    assert_eq!(counters.received, given);
    assert_eq!(counters.received, counters.handled + counters.ignored.iter().sum::<u64>());
    assert!(counters.handled > 1000 && counters.ignored.iter().filter(|count| **count > 0).count() > 10);
    assert!(host.neighbours().count() <= 4096);
    let [(_, ping), ..] = scene::afterwards();
    host.receive(InterfaceId(0), &ping, now + Duration::from_secs(60), &mut out);
    assert_eq!(out.len(), 1, "{out:?}");
}

/// The catalogue is what it says: nothing in it comes from chance, and every family is there.
#[test]
fn the_frames_follow_from_the_seed() {
    let catalogue = Catalogue::new();
    assert!(catalogue.families().all(|(_, frames)| frames >= 10), "{:?}", catalogue.families().collect::<Vec<_>>());
    let play = |seed| {
        let mut stream = Stream::new(seed);
        let mut next = || {
            let (side, frame) = stream.frame();
            (side, frame.to_vec())
        };
        (0..10_000).map(|_| next()).collect::<Vec<_>>()
    };
    assert!(play(1) == play(1) && play(1) != play(2));
    assert!(catalogue.len() < FRAMES * 3 / 4, "all of it fits into the flood");
}
