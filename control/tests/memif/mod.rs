//! A running gateway whose ports are memif, and the other ends of them: real ports without privileges or a network.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::dpdk::{Eal, EalConfig, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Queue};
use dataplane::packet::{Packet, PacketPool};
use dataplane::worker::{Burst, Device};
use hostile::scene::Side;

/// Longer than all of it takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// The gateway, ended with the test.
pub struct Gateway {
    child: Child,
    metrics: String,
}

impl Gateway {
    /// Runs the program on this configuration. In it `LAN` and `WAN` stand for the devices, `METRICS` for the address of the metrics.
    pub fn start(dir: &tempfile::TempDir, config: &str) -> Self {
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let device = |n: u8| {
            let socket = dir.path().join(format!("{n}.sock"));
            format!("net_memif{n},role=server,id=0,socket={},socket-abstract=no", socket.display())
        };
        let config = format!("{config}\ncontrol: {{socket: off}}\n");
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
    pub fn scrape(&self) -> Scrape {
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

pub struct Scrape(pub String);

impl Scrape {
    /// The sum of the series that begin like this.
    pub fn sum(&self, series: &str) -> u64 {
        let fitting = self.0.lines().filter(|line| line.starts_with(series));
        fitting.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Every packet that came is where it went.
    pub fn is_balanced(&self) -> bool {
        let out = ["turnpike_packets_out_total{", "turnpike_drops_total{", "turnpike_packets_held "];
        self.sum("turnpike_packets_in_total{") == out.iter().map(|series| self.sum(series)).sum::<u64>()
    }
}

/// DPDK of the test itself, to be started once.
pub fn eal() -> Eal {
    Eal::start(&EalConfig { memory_mib: 256, ..EalConfig::default() }).unwrap()
}

/// The other ends of the gateway's ports.
pub struct Wires {
    ports: Vec<(Port, Queue)>,
    pool: Mempool,
    /// Frames that the gateway has sent.
    pub received: u64,
}

impl Wires {
    /// Connects to both ports.
    pub fn connect(eal: Eal, dir: &tempfile::TempDir) -> Self {
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

    /// Takes what the gateway has sent, and shows it.
    pub fn drain(&mut self, mut show: impl FnMut(Side, &[u8])) -> bool {
        let mut some = false;
        for ((_, queue), side) in self.ports.iter_mut().zip(Side::BOTH) {
            let mut burst: Burst<Mbuf> = Burst::new();
            queue.receive(&mut burst);
            for packet in &burst {
                show(side, packet.data());
                self.received += 1;
                some = true;
            }
            Packet::discard(&mut burst);
        }
        some
    }

    /// Sends all of a burst by one side, as its ring takes it, and shows what the gateway sends meanwhile.
    pub fn send(&mut self, side: Side, burst: &mut Burst<Mbuf>, mut show: impl FnMut(Side, &[u8])) {
        let start = Instant::now();
        while !burst.is_empty() {
            self.ports[side as usize].1.transmit(burst);
            if !self.drain(&mut show) && !burst.is_empty() {
                thread::yield_now();
            }
            assert!(start.elapsed() < PATIENCE, "the gateway takes no more");
        }
    }

    pub fn packet(&mut self, frame: &[u8]) -> Mbuf {
        let mut packet = self.pool.alloc().expect("a buffer");
        assert!(packet.append(frame.len()));
        packet.data_mut().copy_from_slice(frame);
        packet
    }
}
