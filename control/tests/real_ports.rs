//! What `turnpike replay` says of conversations of all kinds (flows, fragments, ICMP errors, hairpins) is what the running gateway
//! does to them through real ports, with one worker and with two: per flow the same packets leave in the same order, external ends and
//! IPv4 identifications replaced by what they stand for. Over memif: no privileges, no network.
#![allow(missing_docs)]

#[path = "../../dataplane/tests/common/mod.rs"]
mod common;
mod memif;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::mix::{Mix, hosts};
use common::player::{Player, assert_same};
use common::{INSIDE, MACS, OUTSIDE, PEER};
use control::capture::{CaptureReader, CaptureWriter};
use control::config::Config;
use control::replay::{Options, Replay};
use dataplane::counters::Drop;
use dataplane::plan::InterfaceId;
use dataplane::time::Time;
use dataplane::worker::Burst;
use hostile::scene::Side;
use memif::{Gateway, PATIENCE, Scrape, Wires};

const ROUNDS: u64 = 40;

/// The interfaces, in the order of their numbers and of the sides.
const NAMES: [&str; 2] = ["inside", "uplink"];

type Frames = Vec<(InterfaceId, Vec<u8>)>;

/// The file of [`common::mix::gateway`].
fn config(workers: usize) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let cores = allowed.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    let cores: Vec<_> = cores.take(workers).collect();
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut neighbours = String::new();
    hosts().for_each(|host| write!(neighbours, "{host}: \"{}\", ", mac(PEER.0)).unwrap());
    format!(
        r#"
version: 1
boot:
  cpu: {{workers: {cores:?}, poll: adaptive}}
  tables: {{sessions: 8192, mappings: 8192, fragments: 4096}}
ports:
  lan: {{device: "LAN"}}
  wan: {{device: "WAN"}}
interfaces:
  inside:
    port: lan
    zone: inside
    mac: "{}"
    addresses: [192.168.1.1/24]
    mtu: 1400
    neighbours: {{{neighbours}}}
  uplink:
    port: wan
    zone: outside
    mac: "{}"
    addresses: [198.51.100.2/24]
    neighbours: {{198.51.100.1: "{}"}}
routes:
  - {{to: 0.0.0.0/0, via: 198.51.100.1}}
pools:
  public: {{addresses: [203.0.113.5-203.0.113.6], ports: 1024-60000}}
nat44:
  rules:
    everyone:
      {{from: inside, to: outside, source: [192.168.0.0/16], pool: public, filtering: endpoint-independent}}
  forwards:
    web: {{from: outside, to: inside, protocol: tcp, external: "203.0.113.5:80", inside: "192.168.1.10:8000"}}
  static:
    whole:
      {{from: outside, to: inside, external: 203.0.113.60, inside: 192.168.1.25, filtering: endpoint-independent}}
timers: {{fragment: 60s}}
icmp: {{rate: 1000000, burst: 100000}}
metrics: {{listen: "METRICS"}}
"#,
        mac(MACS[0].0),
        mac(MACS[1].0),
        mac(PEER.0),
    )
}

/// A replay of all that has come so far, which grows with each round.
struct Replayed {
    config: Config,
    arrivals: Vec<(Time, InterfaceId, Vec<u8>)>,
    dropped: Vec<(Drop, u64)>,
}

impl Replayed {
    fn new(config: &str) -> Self {
        let config = config.replace("LAN", "net_ring0").replace("WAN", "net_ring1").replace("METRICS", "127.0.0.1:1");
        let config = Config::parse(&config, Path::new("mix.yaml")).expect("a configuration");
        Replayed { config, arrivals: Vec::new(), dropped: Vec::new() }
    }

    /// What leaves after these frames have come, one after the other.
    fn round(&mut self, round: u64, frames: Frames, dir: &Path) -> Frames {
        let begins = Time::from_secs(1000) + Duration::from_millis(10 * round);
        let times = (0..).map(|n| begins + Duration::from_micros(n));
        self.arrivals.extend(times.zip(frames).map(|(time, (interface, frame))| (time, interface, frame)));
        let path = |name: &str| dir.join(format!("{name}.pcap"));
        let mut inputs = NAMES.map(|name| CaptureWriter::create(&path(name)).unwrap());
        for (time, interface, frame) in &self.arrivals {
            inputs[usize::from(interface.0)].write(*time, frame).unwrap();
        }
        inputs.into_iter().for_each(|input| input.finish().unwrap());
        let options = Options {
            inputs: NAMES.map(|name| (name.to_owned(), path(name))).to_vec(),
            out_dir: dir.join("out"),
            tail: Duration::ZERO,
            seed: 5,
            gateway: MACS.to_vec(),
            explain: false,
        };
        let mut replay = Replay::new(&self.config, &options).unwrap();
        while replay.step().unwrap().is_some() {}
        self.dropped = replay.finish(options.tail).unwrap().dropped;
        let left = [INSIDE, OUTSIDE].into_iter().zip(NAMES).flat_map(|(interface, name)| {
            let records = CaptureReader::open(&options.out_dir.join(format!("{name}.pcap"))).unwrap();
            let records = records.map(Result::unwrap).filter(|record| record.time >= begins);
            records.map(move |record| (interface, record.data))
        });
        left.collect()
    }
}

/// Sends frames into the running gateway, and takes what leaves until all is where it goes.
fn through_ports(gateway: &Gateway, wires: &mut Wires, frames: &Frames, sent: &mut u64) -> Frames {
    let mut left = Frames::new();
    let mut keep = |side: Side, frame: &[u8]| left.push((InterfaceId(side as u16), frame.to_vec()));
    for (interface, frame) in frames {
        let mut burst = Burst::new();
        burst.push(wires.packet(frame));
        wires.send(Side::BOTH[usize::from(interface.0)], &mut burst, &mut keep);
        *sent += 1;
    }
    let start = Instant::now();
    loop {
        while wires.drain(&mut keep) {}
        let scrape = gateway.scrape();
        let done = scrape.sum("turnpike_packets_in_total{source=\"port\"}") == *sent
            && scrape.is_balanced()
            && scrape.sum("turnpike_packets_out_total{fate=\"transmitted\"}") == wires.received;
        if done {
            return left;
        }
        assert!(start.elapsed() < PATIENCE, "sent {sent}, received {}:\n{}", wires.received, scrape.0);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Packets that the gateway has dropped for a reason.
fn dropped(scrape: &Scrape, reason: Drop) -> u64 {
    let label = format!("reason=\"{}\"", reason.name());
    let series = scrape.0.lines().filter(|line| line.starts_with("turnpike_drops_total{") && line.contains(&label));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn the_running_gateway_does_what_a_replay_says() {
    let eal = memif::eal();
    for (seed, workers) in [(71, 1), (72, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(workers);
        let gateway = Gateway::start(&dir, &config);
        let mut wires = Wires::connect(eal, &dir);
        // Routes follow links: the gateway has seen theirs.
        let start = Instant::now();
        while gateway.scrape().sum("turnpike_port_up{") < 2 {
            assert!(start.elapsed() < PATIENCE, "its ports do not come up");
            thread::sleep(Duration::from_millis(20));
        }
        // What it announces finds no link at first.
        let before = gateway.scrape();
        let mut replayed = Replayed::new(&config);
        let (mut real, mut virtually, mut mix) = (Player::new(), Player::new(), Mix::new(seed));
        let mut sent = 0;
        for round in 0..ROUNDS {
            let steps = mix.round(40);
            let frames = virtually.frames(&steps);
            let expected = virtually.tell(&replayed.round(round, frames, dir.path()));
            let frames = real.frames(&steps);
            let seen = real.tell(&through_ports(&gateway, &mut wires, &frames, &mut sent));
            assert_same(&seen, &expected);
        }
        let scrape = gateway.scrape();
        for reason in Drop::ALL {
            let counted = dropped(&scrape, *reason) - dropped(&before, *reason);
            let expected =
                replayed.dropped.iter().find(|(dropped, _)| dropped == reason).map_or(0, |&(_, count)| count);
            assert_eq!(counted, expected, "{}", reason.name());
        }
        for counter in ["turnpike_hairpin_packets_total", "turnpike_fragments_total"] {
            assert!(scrape.sum(counter) > 10, "{counter}");
        }
        assert!(real.put_together() > 10);
    }
}
