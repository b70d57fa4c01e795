//! A million malformed frames over memif into the running gateway, into both of its ports: it lives, its metrics account for
//! every one of them, what it sends is well-formed, and it works on as before. No privileges, no network.
#![allow(missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::dpdk::{Eal, EalConfig, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Queue};
use dataplane::packet::{Packet, PacketPool};
use dataplane::worker::{Burst, Device};
use hostile::Stream;
use hostile::check::{alive, well_formed};
use hostile::scene::{self, CONFIG, Side};

/// Frames of the flood.
const FRAMES: u64 = 1_000_000;

/// Longer than all of it takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// The gateway, ended with the test.
struct Gateway {
    child: Child,
    metrics: String,
}

impl Gateway {
    fn start(dir: &tempfile::TempDir) -> Self {
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let device = |n: u8| {
            let socket = dir.path().join(format!("{n}.sock"));
            format!("net_memif{n},role=server,id=0,socket={},socket-abstract=no", socket.display())
        };
        let config = format!("{CONFIG}\ncontrol: {{socket: off}}\n");
        let config = config.replace("LAN", &device(0)).replace("WAN", &device(1)).replace("METRICS", &metrics);
        let path = dir.path().join("turnpike.yaml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
        let mut child = command.args(["run", "-c"]).arg(path).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains("forwarding packets")) {
            seen.push(log.next().unwrap_or_else(|| panic!("it does not start: {seen:#?}")));
        }
        // What it says is shown if the test fails; nobody reading would stop it.
        thread::spawn(move || log.for_each(|line| eprintln!("{line}")));
        Gateway { child, metrics }
    }

    /// What the metrics say now.
    fn scrape(&self) -> Scrape {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Scrape(answer)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Scrape(String);

impl Scrape {
    /// The sum of the series that begin like this.
    fn sum(&self, series: &str) -> u64 {
        let fitting = self.0.lines().filter(|line| line.starts_with(series));
        fitting.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Every packet that came is where it went.
    fn is_balanced(&self) -> bool {
        let out = ["turnpike_packets_out_total{", "turnpike_drops_total{", "turnpike_packets_held "];
        self.sum("turnpike_packets_in_total{") == out.iter().map(|series| self.sum(series)).sum::<u64>()
    }
}

/// The other ends of the gateway's ports.
struct Wires {
    ports: Vec<(Port, Queue)>,
    pool: Mempool,
    received: u64,
}

impl Wires {
    fn connect(dir: &tempfile::TempDir) -> Self {
        let eal = Eal::start(&EalConfig { memory_mib: 256, ..EalConfig::default() }).unwrap();
        let pool = Mempool::new(eal, &MempoolConfig { packets: 4095, frame_size: 9216, ..Default::default() }).unwrap();
        let open = |n: u8| {
            let socket = dir.path().join(format!("{n}.sock"));
            // Slots for the largest frame: with more than one slot for a frame the driver of DPDK 22.11 overruns a full ring.
            let socket = socket.display();
            let device = format!("net_memif{n},role=client,id=0,bsize=16384,socket={socket},socket-abstract=no");
            let (port, mut queues) = Port::open(eal, &PortConfig::new(&device), &[&pool]).unwrap();
            (port, queues.remove(0))
        };
        let ports: Vec<_> = [0, 1].map(open).into();
        let start = Instant::now();
        while !ports.iter().all(|(port, _)| port.link().up) {
            assert!(start.elapsed() < PATIENCE, "the links do not come up");
            thread::sleep(Duration::from_millis(10));
        }
        Wires { ports, pool, received: 0 }
    }

    /// Takes what the gateway has sent, checks it, and shows it.
    fn drain(&mut self, mut show: impl FnMut(Side, &[u8])) -> bool {
        let mut some = false;
        for ((_, queue), side) in self.ports.iter_mut().zip(Side::BOTH) {
            let mut burst: Burst<Mbuf> = Burst::new();
            queue.receive(&mut burst);
            for packet in &burst {
                if let Err(wrong) = well_formed(side, packet.data()) {
                    panic!("{side:?}: {wrong}: {:02x?}", packet.data());
                }
                show(side, packet.data());
                self.received += 1;
                some = true;
            }
            Packet::discard(&mut burst);
        }
        some
    }

    /// Sends all of a burst by one side, as its ring takes it.
    fn send(&mut self, side: Side, burst: &mut Burst<Mbuf>) {
        let start = Instant::now();
        while !burst.is_empty() {
            self.ports[side as usize].1.transmit(burst);
            if !self.drain(|_, _| {}) && !burst.is_empty() {
                thread::yield_now();
            }
            assert!(start.elapsed() < PATIENCE, "the gateway takes no more");
        }
    }

    fn packet(&mut self, frame: &[u8]) -> Mbuf {
        let mut packet = self.pool.alloc().expect("a buffer");
        assert!(packet.append(frame.len()));
        packet.data_mut().copy_from_slice(frame);
        packet
    }
}

#[test]
fn a_million_hostile_frames_over_memif() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&dir);
    let mut wires = Wires::connect(&dir);
    let before = gateway.scrape().sum("turnpike_packets_in_total{source=\"port\"}");
    assert_eq!(before, 0);

    let mut stream = Stream::new(11);
    let mut bursts = [Burst::new(), Burst::new()];
    for _ in 0..FRAMES {
        let (side, frame) = stream.frame();
        let burst = &mut bursts[side as usize];
        burst.push(wires.packet(frame));
        if burst.is_full() {
            wires.send(side, burst);
        }
    }
    for (side, burst) in Side::BOTH.into_iter().zip(&mut bursts) {
        wires.send(side, burst);
    }

    // Every frame that was sent came in and is accounted for; every frame that the gateway sent has come.
    let settle = |wires: &mut Wires, sent: u64, left: &mut Vec<(Side, Vec<u8>)>| {
        let start = Instant::now();
        loop {
            while wires.drain(|side, frame| left.push((side, frame.to_vec()))) {}
            let scrape = gateway.scrape();
            let done = scrape.sum("turnpike_packets_in_total{source=\"port\"}") == sent
                && scrape.is_balanced()
                && scrape.sum("turnpike_packets_out_total{fate=\"transmitted\"}") == wires.received;
            if done {
                return scrape;
            }
            assert!(start.elapsed() < PATIENCE, "sent {sent}, received {}:\n{}", wires.received, scrape.0);
            thread::sleep(Duration::from_millis(20));
        }
    };
    let scrape = settle(&mut wires, FRAMES, &mut Vec::new());
    // Of everything that the frames are made for something came.
    for series in [
        "fate=\"transmitted\"",
        "fate=\"punted\"",
        "source=\"originated\"",
        "reason=\"multi-segment\"",
        "reason=\"ip-length\"",
    ] {
        assert!(scrape.0.lines().any(|line| line.contains(series) && !line.ends_with(" 0")), "{series}: {}", scrape.0);
    }
    let (mut left, mut sent) = (Vec::new(), FRAMES);
    for (side, frame) in scene::afterwards() {
        let mut burst = Burst::new();
        burst.push(wires.packet(&frame));
        wires.send(side, &mut burst);
        sent += 1;
        settle(&mut wires, sent, &mut left);
    }
    // The ping's answer takes its time: the control thread makes it, behind a queue that a million frames have filled. What
    // that had no room for is asked for again.
    let (start, mut asked) = (Instant::now(), Instant::now());
    while let Err(missing) = alive(&left) {
        assert!(start.elapsed() < Duration::from_secs(10), "{missing}: {left:02x?}");
        if asked.elapsed() > Duration::from_secs(1) {
            let [(side, ping), ..] = scene::afterwards();
            let mut burst = Burst::new();
            burst.push(wires.packet(&ping));
            wires.send(side, &mut burst);
            asked = Instant::now();
        }
        wires.drain(|side, frame| left.push((side, frame.to_vec())));
        thread::sleep(Duration::from_millis(1));
    }
}
