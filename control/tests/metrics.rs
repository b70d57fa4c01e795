//! The metrics as their readers see them: promtool's lint, the HTTP answers, and the list in docs/metrics.md.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use control::host::{HostCounters, Ignored, NudState};
use control::metrics::{MempoolSample, Metrics, PortSample, Sample, Server};
use dataplane::counters::{Counters, Drop};
use dataplane::plan::{InterfaceSpec, IpPrefix, MacAddr, MssClamp, Plan, PoolSpec, PortId, PortSpec, Spec, ZoneId};
use dataplane::pool::Leases;

/// A gateway of two ports, two interfaces and a pool, with two workers.
fn gateway() -> (Metrics, Vec<Arc<Counters>>) {
    let interface = |name: &str, port: u16, address: [u8; 4]| InterfaceSpec {
        name: name.to_owned(),
        port: PortId(port),
        vlan: None,
        outer_vlan: None,
        zone: ZoneId(u8::try_from(port).unwrap()),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        addresses: vec![IpPrefix { address: Ipv4Addr::from(address).into(), len: 24 }],
        mtu: 1500,
        neighbours: Vec::new(),
        mss_clamp: MssClamp::Off,
    };
    let spec = Spec {
        ports: ["lan", "wan"].map(|name| PortSpec { name: name.to_owned() }).into(),
        zones: vec!["inside".to_owned(), "outside".to_owned()],
        interfaces: vec![interface("inside", 0, [192, 168, 1, 1]), interface("uplink", 1, [198, 51, 100, 2])],
        pools: vec![PoolSpec {
            name: "public".to_owned(),
            addresses: vec![Ipv4Addr::new(203, 0, 113, 0)..=Ipv4Addr::new(203, 0, 113, 3)],
            ports: 1..=65535,
            proxy_arp: false,
            answer_echo: false,
        }],
        ..Spec::default()
    };
    let workers: Vec<_> = (0..2).map(|_| Arc::new(Counters::among(2, 2))).collect();
    let plan = Arc::new(Plan::compile(spec).unwrap());
    let metrics = Metrics::new(Arc::clone(&plan), Arc::new(Leases::new(&plan)), workers.clone());
    let port = PortSample { receive_packets: 7, missed: 3, up: true, ..PortSample::default() };
    let (mut host, mut neighbours) = (HostCounters::default(), [0; NudState::ALL.len()]);
    host.ignored[Ignored::Looped as usize] = 2;
    neighbours[NudState::Stale as usize] = 4;
    metrics.publish(Sample {
        host,
        neighbours,
        ports: vec![port, PortSample::default()],
        mempools: vec![MempoolSample { free: 5, size: 9 }],
    });
    (metrics, workers)
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let (metrics, _) = gateway();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(metrics.text().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && said.iter().all(String::is_empty), "{}", said.concat());
}

/// Type and label names of each metric in the text format.
fn served(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = rest.rsplit_once('}').unwrap().0.split("\",").map(|pair| pair.split_once('=').unwrap().0);
            families.get_mut(name).unwrap().1.extend(labels.map(str::to_owned));
        }
    }
    families
}

#[test]
fn the_document_lists_what_is_served() {
    let document = include_str!("../../docs/metrics.md");
    let mut listed = BTreeMap::new();
    for line in document.lines().filter(|line| line.starts_with("| `turnpike_")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect::<BTreeSet<_>>();
        listed.insert(cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels));
        assert!(cells[4].len() > 10, "no meaning: {line}");
    }
    assert_eq!(listed, served(&gateway().0.text()));
    for reason in Drop::ALL {
        let row = format!("| {} | {} | {} |", reason.function(), reason.name(), reason.explain());
        assert!(document.contains(&row), "docs/metrics.md lacks the row: {row}");
    }
}

#[test]
fn every_drop_reason_is_there_from_the_start_and_workers_add_up() {
    let (metrics, workers) = gateway();
    let text = metrics.text();
    for reason in Drop::ALL {
        let (function, reason) = (reason.function(), reason.name());
        let series = format!("turnpike_drops_total{{function=\"{function}\",reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&series), "{series}");
    }
    workers[0].dropped[Drop::NoRoute as usize].add(2);
    workers[1].dropped[Drop::NoRoute as usize].add(3);
    workers[0].received.add(6);
    workers[1].interfaces[1].transmitted_bytes.add(1514);
    workers[1].cycles_per_second.add(2_000_000_000);
    workers[1].poll_cycles.add(4_000_000_000);
    workers[1].busy_cycles.add(3_000_000_000);
    workers[0].handed_over[1].add(8);
    workers[1].taken_over.add(8);
    workers[1].hand_over_drops[0].add(4);
    let text = metrics.text();
    for line in [
        "turnpike_drops_total{function=\"route\",reason=\"no-route\"} 5",
        "turnpike_packets_imbalance 1",
        "turnpike_worker_packets_total{worker=\"0\"} 6",
        "turnpike_worker_poll_cycles_total{worker=\"1\"} 4000000000",
        "turnpike_worker_busy_cycles_total{worker=\"1\"} 3000000000",
        "turnpike_worker_busy_seconds_total{worker=\"1\"} 1.5",
        "turnpike_worker_busy_seconds_total{worker=\"0\"} 0",
        "turnpike_worker_hand_over_packets_total{from=\"0\",to=\"1\"} 8",
        "turnpike_worker_hand_over_packets_total{from=\"1\",to=\"0\"} 0",
        "turnpike_worker_hand_over_drops_total{from=\"1\",to=\"0\"} 4",
        "turnpike_interface_transmit_bytes_total{interface=\"uplink\"} 1514",
        "turnpike_port_receive_packets_total{port=\"lan\"} 7",
        "turnpike_port_drops_total{port=\"lan\",reason=\"imissed\"} 3",
        "turnpike_port_up{port=\"wan\"} 0",
        "turnpike_mempool_free{worker=\"0\"} 5",
        "turnpike_host_ignored_packets_total{reason=\"looped\"} 2",
        "turnpike_neighbours{state=\"stale\"} 4",
        "turnpike_pool_addresses{pool=\"public\"} 4",
        "turnpike_pool_ports{pool=\"public\"} 262140",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} not in:\n{text}");
    }
}

/// One HTTP exchange: the status line and the body.
fn ask(server: &Server, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn http_answers_scrapes_and_probes_past_a_client_that_says_nothing() {
    let (metrics, _) = gateway();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), metrics.clone()).unwrap();
    let silent = TcpStream::connect(server.address()).unwrap();
    (&silent).write_all(b"GET /metr").unwrap();
    assert_eq!(ask(&server, "GET /healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    assert_eq!(ask(&server, "GET /readyz").0, "HTTP/1.1 503 Service Unavailable");
    metrics.set_ready(true);
    assert_eq!(ask(&server, "GET /readyz").0, "HTTP/1.1 200 OK");
    let (status, body) = ask(&server, "GET /metrics?name=x");
    assert_eq!((status.as_str(), body), ("HTTP/1.1 200 OK", metrics.text()));
    assert_eq!(ask(&server, "GET /").0, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(&server, "POST /metrics").0, "HTTP/1.1 405 Method Not Allowed");

    let taken = Server::start(server.address(), metrics).unwrap_err().to_string();
    assert!(taken.contains("metrics.listen") && taken.contains("in use"), "{taken}");
    drop(silent);
}
