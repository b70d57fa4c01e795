//! What stands between the generator's two ports: the gateway, or testpmd in its place. A process of its own, all of them on
//! the same core: only one is awake at a time.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use dataplane::stages::Stage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use perf::frames::{EXTERNAL, GATEWAY, PEER};
use perf::scene::MAPPINGS_PER_EXTERNAL;

use crate::between::{Between, Counts};

/// Slots of a memif ring, as a power of two.
const RING: u32 = 11;
/// Memory for a process' packets, in MiB.
const MEMORY_MIB: u32 = 256;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// testpmd: from one port to the other, untouched.
    Io,
    /// testpmd: with the Ethernet addresses swapped.
    Macswap,
    /// The gateway without any translation.
    Router,
    /// The gateway with a NAT44 rule, and room for so many sessions.
    Nat44 { sessions: usize },
}

impl Kind {
    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Io => "testpmd io",
            Kind::Macswap => "testpmd macswap",
            Kind::Router | Kind::Nat44 { .. } => "turnpike",
        }
    }

    /// In file names.
    fn slug(self) -> &'static str {
        match self {
            Kind::Io => "io",
            Kind::Macswap => "macswap",
            Kind::Router => "router",
            Kind::Nat44 { .. } => "nat44",
        }
    }
}

/// The machine as the peers may use it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where sockets and configurations are.
    pub directory: PathBuf,
    /// The core on which they forward.
    pub core: usize,
    /// The core of all else.
    pub control: usize,
    /// Whether their memory is on reserved huge pages.
    pub hugepages: bool,
    /// The gateway.
    pub turnpike: PathBuf,
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    /// What it is.
    pub kind: Kind,
    child: Child,
    place: Place,
    metrics: String,
}

impl Peer {
    /// Starts one, and waits until it forwards.
    pub fn start(kind: Kind, place: &Place) -> Result<Peer> {
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        // It ends with this process, whatever becomes of it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        let ready = match kind {
            Kind::Io | Kind::Macswap => {
                // It writes to a pipe when its buffer is full, unless it is told otherwise.
                command.args(["stdbuf", "-oL", "dpdk-testpmd"]).args(testpmd(kind, place));
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
                "Press enter to exit"
            }
            Kind::Router | Kind::Nat44 { .. } => {
                let file = place.directory.join(format!("{}.yaml", kind.slug()));
                fs::write(&file, configuration(kind, place, &metrics))?;
                command.arg(&place.turnpike).args(["run", "-c"]).arg(file);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                "forwarding packets"
            }
        };
        let mut child = command.spawn().with_context(|| format!("starting {} by setpriv", kind.name()))?;
        let output: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (None, Some(stderr)) => Box::new(stderr),
            (None, None) => bail!("{} says nothing", kind.name()),
        };
        let peer = Peer { kind, child, place: place.clone(), metrics };
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains(ready)) {
            let line = lines.next();
            said.push(line.with_context(|| format!("{} does not start: {}", kind.name(), said.join("\n")))?);
        }
        // Somebody must go on reading.
        thread::spawn(move || lines.for_each(drop));
        Ok(peer)
    }

    /// The device that leads to its port, inside (0) or outside (1); `id` tells it from the devices of other peers.
    pub fn device(&self, side: usize, id: usize) -> String {
        let socket = socket(self.kind, &self.place.directory, side);
        format!("net_memif{id},role=client,id=0,rsize={RING},socket-abstract=no,socket={}", socket.display())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.kind.name()))
    }

    /// What the gateway counts. It must be awake.
    pub fn scrape(&self) -> Result<Scrape> {
        let mut stream = TcpStream::connect(&self.metrics)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "the gateway's metrics: {answer}");
        Ok(Scrape(answer))
    }

    /// Ends all sessions. It must be awake.
    pub fn flush(&self) -> Result<()> {
        let ctl = self.place.turnpike.with_file_name("turnpikectl");
        let socket = self.place.directory.join(format!("{}.control", self.kind.slug()));
        let output = Command::new(ctl).arg("--socket").arg(socket).args(["session", "flush", "--all"]).output()?;
        ensure!(output.status.success(), "turnpikectl session flush: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Between for Peer {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn wake(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    fn counts(&self) -> Result<Counts> {
        let scrape = self.scrape()?;
        Ok(Counts {
            received: scrape.sum("turnpike_packets_in_total{source=\"port\"}"),
            busy: scrape.sum("turnpike_worker_busy_cycles_total"),
            stages: scrape.stages(),
            sessions: scrape.sum("turnpike_sessions{"),
            drops: scrape.drops().into_iter().map(Into::into).collect(),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page of metrics.
#[derive(Debug)]
pub struct Scrape(String);

impl Scrape {
    /// The sum of the series that begin like this.
    pub fn sum(&self, series: &str) -> f64 {
        let fitting = self.0.lines().filter(|line| line.starts_with(series));
        fitting.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Cycles that its worker has spent on each stage of packets' way.
    fn stages(&self) -> [f64; Stage::ALL.len()] {
        let series =
            |stage: Stage| format!("turnpike_worker_stage_cycles_total{{worker=\"0\",stage=\"{}\"", stage.name());
        Stage::ALL.map(|stage| self.sum(&series(stage)))
    }

    /// What was dropped, by reason.
    pub fn drops(&self) -> Vec<&str> {
        self.0.lines().filter(|line| line.starts_with("turnpike_drops_total") && !line.ends_with(" 0")).collect()
    }
}

/// Two devices of the generator's that lead to each other, by a socket.
pub fn loopback(socket: &Path, id: usize) -> [String; 2] {
    ["server", "client"].map(|role| {
        let id = id + usize::from(role == "client");
        format!("net_memif{id},role={role},id=0,rsize={RING},socket-abstract=no,socket={}", socket.display())
    })
}

fn socket(kind: Kind, directory: &Path, side: usize) -> PathBuf {
    directory.join(format!("{}-{side}.memif", kind.slug()))
}

fn server(kind: Kind, place: &Place, side: usize) -> String {
    let socket = socket(kind, &place.directory, side);
    format!("net_memif{side},role=server,id=0,rsize={RING},socket-abstract=no,socket={}", socket.display())
}

fn testpmd(kind: Kind, place: &Place) -> Vec<String> {
    let mut arguments = vec![
        "--no-pci".into(),
        "--no-telemetry".into(),
        format!("-m{MEMORY_MIB}"),
        format!("--file-prefix={}-{}", kind.slug(), std::process::id()),
        format!("--lcores=0@{},1@{}", place.control, place.core),
        format!("--vdev={}", server(kind, place, 0)),
        format!("--vdev={}", server(kind, place, 1)),
    ];
    // As the gateway starts its own (dataplane/src/dpdk/eal.rs).
    if place.hugepages {
        arguments.extend(["--in-memory".into(), "--single-file-segments".into()]);
    } else {
        arguments.extend(["--no-huge".into(), "--no-shconf".into(), "--iova-mode=va".into()]);
    }
    arguments.push("--".into());
    arguments.extend(["--nb-cores=1", "--burst=32", "--total-num-mbufs=16384", "--disable-link-check"].map(Into::into));
    arguments.push(format!("--forward-mode={}", kind.slug()));
    arguments.extend([format!("--rxd={}", 1 << RING), format!("--txd={}", 1 << RING)]);
    arguments
}

/// The gateway's file. All neighbours are static, no session ends by itself, and freed ports can be used at once.
fn configuration(kind: Kind, place: &Place, metrics: &str) -> String {
    let (sessions, translation) = match kind {
        Kind::Nat44 { sessions } => {
            let addresses = u32::try_from(sessions).unwrap_or(u32::MAX).div_ceil(MAPPINGS_PER_EXTERNAL);
            let last = std::net::Ipv4Addr::from_bits(EXTERNAL.to_bits() + addresses - 1);
            let rule =
                "subscribers: {from: inside, to: outside, source: [10.0.0.0/8], pool: public, pooling: paired-soft}";
            (sessions, format!("pools:\n  public: {{addresses: [{EXTERNAL}-{last}]}}\nnat44:\n  rules:\n    {rule}\n"))
        }
        _ => (64, String::new()),
    };
    let Place { core, control, hugepages, directory, .. } = place;
    let slug = kind.slug();
    format!(
        r#"version: 1
boot:
  cpu: {{workers: [{core}], control: {control}, poll: busy}}
  memory: {{hugepages: {hugepages}, size: {MEMORY_MIB}M}}
  tables: {{sessions: {sessions}, mappings: {sessions}}}
ports:
  lan: {{device: "{lan}", rx-descriptors: {slots}, tx-descriptors: {slots}}}
  wan: {{device: "{wan}", rx-descriptors: {slots}, tx-descriptors: {slots}}}
interfaces:
  inside:
    port: lan
    zone: inside
    mac: "{inside}"
    addresses: [192.168.1.1/24, "fd00:1::1/64"]
    neighbours: {{192.168.1.2: "{peer}", "fd00:1::2": "{peer}"}}
  outside:
    port: wan
    zone: outside
    mac: "{outside}"
    addresses: [198.51.100.2/24, "2001:db8:f::2/64"]
    neighbours: {{198.51.100.1: "{peer}", "2001:db8:f::1": "{peer}"}}
routes:
  - {{to: 10.0.0.0/8, via: 192.168.1.2}}
  - {{to: 0.0.0.0/0, via: 198.51.100.1}}
  - {{to: "2001:db8:aaaa::/48", via: "fd00:1::2"}}
  - {{to: "::/0", via: "2001:db8:f::1"}}
{translation}timers: {{udp: 12h, hold-down: 0s}}
metrics: {{listen: "{metrics}"}}
control: {{socket: {directory}/{slug}.control}}
"#,
        lan = server(kind, place, 0),
        wan = server(kind, place, 1),
        slots = 1 << RING,
        inside = GATEWAY[0],
        outside = GATEWAY[1],
        peer = PEER,
        directory = directory.display(),
    )
}
